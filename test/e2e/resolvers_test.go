package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"

	"penstock.dev/penstock/internal/hostnet/kernel"
)

// resolver is a site's resolver with the snippet of docs/dns.md.
type resolver struct {
	name string // as in docs/dns.md
	at   string // where it answers
	// views: the snippet says from where it asks.
	views bool
	// start has the command that runs it in a folder.
	start func(dir, snippet, source string) (*exec.Cmd, error)
}

// TestResolversOfTheSite has real resolvers ask for names of endpoints of the kernel driver, set up as docs/dns.md says.
func TestResolversOfTheSite(t *testing.T) {
	needE2E(t)
	unpacked, err := filepath.Abs("../../.cache/debian")
	if err != nil {
		t.Fatal(err)
	}
	missing := kernel.Available()
	if _, err := os.Stat(filepath.Join(unpacked, ".unpacked")); err != nil && missing == nil {
		missing = fmt.Errorf("needs resolvers that scripts/setup.sh test unpacks: %w", err)
	}
	if missing != nil {
		if os.Getenv("PENSTOCK_TEST_STRICT") == "1" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	if os.Getenv(insideEnv) == "1" {
		loopbackUp(t)
		resolversOfTheSite(t, unpacked)
		return
	}
	t.Parallel()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestResolversOfTheSite$", "-test.count=1", "-test.v", "-test.timeout=3m")
	cmd.Env = append(os.Environ(), insideEnv+"=1", "PENSTOCK_BIN="+bin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestResolversOfTheSite") {
		t.Fatalf("inside its namespace: %v\n%s", err, tail(string(out), 12000))
	}
}

// outside is an address of no network that has a view.
const outside = "198.51.100.7"

func siteResolvers(unpacked string) []resolver {
	libs := "LD_LIBRARY_PATH=" + strings.Join(libraries(unpacked), ":")
	write := func(dir, name, text string) (string, error) {
		path := filepath.Join(dir, name)
		return path, os.WriteFile(path, []byte(text), 0o644)
	}
	command := func(path string, args ...string) *exec.Cmd {
		cmd := exec.Command(path, args...)
		cmd.Env = append(os.Environ(), libs)
		return cmd
	}
	return []resolver{
		{"dnsmasq", "127.0.0.1:5301", true, func(dir, snippet, _ string) (*exec.Cmd, error) {
			conf, err := write(dir, "dnsmasq.conf", "no-resolv\nno-hosts\nport=5301\nlisten-address=127.0.0.1\nbind-interfaces\nstop-dns-rebind\nuser=root\n"+snippet)
			return command("/usr/sbin/dnsmasq", "--keep-in-foreground", "--log-facility=-", "--pid-file=", "--conf-file="+conf), err
		}},
		{"Unbound", "127.0.0.1:5302", true, func(dir, snippet, _ string) (*exec.Cmd, error) {
			conf, err := write(dir, "unbound.conf", "server:\n  interface: 127.0.0.1@5302\n  username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n"+
				"  directory: \""+dir+"\"\n  use-syslog: no\n  num-threads: 1\n  private-address: 10.0.0.0/8\n  do-ip6: no\nremote-control:\n  control-enable: no\n"+snippet)
			return command(filepath.Join(unpacked, "usr/sbin/unbound"), "-d", "-c", conf), err
		}},
		{"BIND", "127.0.0.1:5303", true, func(dir, snippet, source string) (*exec.Cmd, error) {
			conf, err := write(dir, "named.conf", `options { directory "`+dir+`"; listen-on port 5303 { 127.0.0.1; }; listen-on-v6 { none; };
				recursion yes; pid-file none; session-keyfile none; dnssec-validation no; query-source address `+source+`; }; controls {};
				`+snippet)
			return command(filepath.Join(unpacked, "usr/sbin/named"), "-g", "-n", "1", "-c", conf), err
		}},
		{"systemd-resolved", "127.0.0.53:53", false, func(dir, snippet, _ string) (*exec.Cmd, error) {
			conf, err := write(dir, "penstock.conf", snippet+"\nLLMNR=no\nMulticastDNS=no\nDNSSEC=no\n")
			caps := "+net_bind_service,+net_raw,+setpcap"
			script := `set -e; mount -t tmpfs none /run; mkdir -p /run/systemd/resolve /run/systemd/resolved.conf.d; chown 65534:65534 /run/systemd/resolve
				cp "$1" /run/systemd/resolved.conf.d/; echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start
				exec setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=` + caps + ` --ambient-caps=` + caps + ` "$2"`
			return command("unshare", "-m", "sh", "-c", script, "sh", conf, filepath.Join(unpacked, "lib/systemd/systemd-resolved")), err
		}},
	}
}

// libraries are the folders of an unpacked system that have shared libraries.
func libraries(unpacked string) []string {
	var out []string
	for _, pattern := range []string{"usr/lib/*-linux-gnu", "lib/*-linux-gnu", "usr/lib/*-linux-gnu/systemd"} {
		found, err := filepath.Glob(filepath.Join(unpacked, pattern))
		if err == nil { // it is no bad pattern
			out = append(out, found...)
		}
	}
	return out
}

// snippetOf is the block of docs/dns.md under a resolver's name.
func snippetOf(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/dns.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "\n**"+name+"**")
	_, rest, opened := strings.Cut(rest, "\n```\n")
	block, _, closed := strings.Cut(rest, "```")
	if !ok || !opened || !closed {
		t.Fatalf("docs/dns.md has no snippet for %s", name)
	}
	return block
}

func resolversOfTheSite(t *testing.T, unpacked string) {
	s := start(t, t.TempDir(), "--net", "kernel", "--dns-addr", "127.0.0.1:5353")
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: netlink.NewIPNet([]byte{198, 51, 100, 7})}); err != nil {
		t.Fatal(err)
	}
	office, _ := s.kernelContract()
	s.aws(nil, "ec2", "modify-vpc-attribute", "--vpc-id", s.info.VPCID, "--enable-dns-hostnames", "Value=true")
	s.aws(nil, "ec2", "modify-vpc-endpoint", "--vpc-endpoint-id", s.info.VPCEndpointID, "--private-dns-enabled")
	var described struct {
		VpcEndpoints []struct{ DnsEntries []struct{ DnsName string } } //nolint:revive // as the API spells it
	}
	s.aws(&described, "ec2", "describe-vpc-endpoints", "--vpc-endpoint-ids", s.info.VPCEndpointID)
	regional, zonal := "", ""
	for _, d := range described.VpcEndpoints[0].DnsEntries {
		switch {
		case strings.HasPrefix(d.DnsName, "*."):
		case strings.Contains(d.DnsName, "-us-east-1a."):
			zonal = d.DnsName
		case regional == "":
			regional = d.DnsName
		}
	}
	_, zone, _ := strings.Cut(regional, ".")
	private := "any.streaming.us-east-1.appstream2.amazonappstream.com"
	var all []string
	for _, a := range s.info.EndpointAddresses {
		all = append(all, a.Dial)
	}
	slices.Sort(all)
	until(t, "the private name", func() bool {
		r, err := dns.Exchange(new(dns.Msg).SetQuestion(private+".", dns.TypeA), "127.0.0.1:5353")
		return err == nil && len(r.Answer) == 2
	})
	for _, rs := range siteResolvers(unpacked) {
		t.Run(rs.name, func(t *testing.T) {
			ask := rs.run(t, office)
			for _, tt := range []struct {
				what, name string
				typ        uint16
				rcode      int
				want       []string
			}{
				{"regional name", regional, dns.TypeA, dns.RcodeSuccess, all},
				{"zonal name", zonal, dns.TypeA, dns.RcodeSuccess, []string{s.info.EndpointAddresses[0].Dial}},
				{"private name", private, dns.TypeA, dns.RcodeSuccess, all},
				{"no AAAA", regional, dns.TypeAAAA, dns.RcodeSuccess, nil},
				{"no such name", "none." + zone, dns.TypeA, dns.RcodeNameError, nil},
			} {
				for _, network := range []string{"udp", "tcp"} {
					r, got := ask(network, tt.name, tt.typ)
					if r == nil || r.Rcode != tt.rcode || !slices.Equal(got, tt.want) {
						t.Errorf("%s by %s: got %v in %v, want %v with %s", tt.what, network, got, r, tt.want, dns.RcodeToString[tt.rcode])
					}
					if r != nil && r.IsEdns0() == nil {
						t.Errorf("%s by %s: the answer lacks EDNS", tt.what, network)
					}
				}
			}
		})
		if rs.views {
			t.Run(rs.name+" outside", func(t *testing.T) {
				if r, got := rs.run(t, outside)("udp", regional, dns.TypeA); r == nil || r.Rcode != dns.RcodeNameError || len(got) != 0 {
					t.Errorf("from an address without a view: %v, want NXDOMAIN", r)
				}
			})
		}
	}
}

// run starts the resolver, which asks from a source, and returns how it is asked; it ends with the test.
func (rs resolver) run(t *testing.T, source string) func(network, name string, typ uint16) (*dns.Msg, []string) {
	t.Helper()
	cmd, err := rs.start(t.TempDir(), strings.ReplaceAll(snippetOf(t, rs.name), "10.77.0.2", source), source)
	if err != nil {
		t.Fatal(err)
	}
	said := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of %s:\n%s", rs.name, tail(said.String(), 3000))
		}
	})
	ask := func(network, name string, typ uint16) (*dns.Msg, []string) {
		m := new(dns.Msg).SetQuestion(name+".", typ)
		m.SetEdns0(1232, false)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		r, _, err := (&dns.Client{Net: network, Timeout: 5 * time.Second}).ExchangeContext(ctx, m, rs.at)
		if err != nil {
			return nil, nil
		}
		var got []string
		for _, rr := range r.Answer {
			if a, ok := rr.(*dns.A); ok {
				got = append(got, a.A.String())
			}
		}
		slices.SortFunc(got, func(a, b string) int { return netip.MustParseAddr(a).Compare(netip.MustParseAddr(b)) })
		return r, got
	}
	end := time.Now().Add(20 * time.Second)
	for {
		if r, _ := ask("tcp", "version.bind", dns.TypeTXT); r != nil {
			return ask
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not serve:\n%s", rs.name, tail(said.String(), 3000))
		}
		time.Sleep(50 * time.Millisecond)
	}
}
