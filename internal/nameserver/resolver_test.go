package nameserver

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// program is the path of a program that not every machine has.
func program(t *testing.T, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	if err != nil {
		t.Skipf("needs %s (Debian: %s; scripts/setup.sh test installs it)", name, pkg)
	}
	return path
}

func dig(t *testing.T, path, source, at string, args ...string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(at)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	args = append([]string{"@" + host, "-p", port, "-b", source, "+time=5", "+tries=2"}, args...)
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		t.Errorf("dig %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

// TestBehindDnsmasq is the site's setup of docs/dns.md: dnsmasq sends our zone here, from the address that chooses the view, and
// keeps the rest; hosts ask dnsmasq.
func TestBehindDnsmasq(t *testing.T) {
	t.Parallel()
	dnsmasq, digger := program(t, "dnsmasq", "dnsmasq-base"), program(t, "dig", "bind9-dnsutils")
	names := twoVPCs()
	names.Views[0].Sources = []netip.Prefix{netip.MustParsePrefix("127.80.0.0/16")}
	names.Views[1].Sources = []netip.Prefix{netip.MustParsePrefix("127.81.0.0/16")}
	on := run(t, server(names), "127.0.0.1:0")
	host, port, _ := net.SplitHostPort(on.Addr())

	free, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	at := free.Addr()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	_, own, _ := net.SplitHostPort(at)
	var said bytes.Buffer
	cmd := exec.CommandContext(t.Context(), dnsmasq, "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--log-facility=-",
		"--user=", "--pid-file=", "--listen-address=127.0.0.1", "--bind-interfaces", "--port="+own, "--stop-dns-rebind",
		"--rebind-domain-ok=/"+apex+"/"+private+"/",
		"--server=/"+apex+"/"+host+"#"+port+"@127.80.0.9", "--server=/"+private+"/"+host+"#"+port+"@127.80.0.9",
		"--host-record=printer.site.example,192.0.2.9")
	cmd.Stderr, cmd.Stdout = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; { // it says nothing when it serves
		m := new(dns.Msg).SetQuestion("printer.site.example.", dns.TypeA)
		if r, err := exchangeFrom(t, "tcp", "127.0.0.1", at, m); err == nil && r.Rcode == dns.RcodeSuccess {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("dnsmasq does not serve")
		}
		time.Sleep(20 * time.Millisecond)
	}
	for name, tt := range map[string]struct {
		args []string
		want string
	}{
		"regional name":        {[]string{"+short", "vpce-1." + apex}, "10.0.1.10 10.0.2.10"},
		"zonal name":           {[]string{"+short", "vpce-1-a." + apex}, "10.0.1.10"},
		"private name":         {[]string{"+short", "any." + private}, "10.0.1.10 10.0.2.10"},
		"over TCP":             {[]string{"+short", "+tcp", "vpce-1." + apex}, "10.0.1.10 10.0.2.10"},
		"no AAAA":              {[]string{"+short", "vpce-1." + apex, "AAAA"}, ""},
		"another VPC's name":   {[]string{"+short", "vpce-2." + apex}, ""},
		"the site's own names": {[]string{"+short", "printer.site.example"}, "192.0.2.9"},
	} {
		got := dig(t, digger, "127.0.0.1", at, tt.args...)
		words := strings.Fields(got)
		if len(words) == 2 && words[0] > words[1] { // dnsmasq turns the addresses round
			got = words[1] + " " + words[0]
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
	if got := dig(t, digger, "127.0.0.1", at, "vpce-2."+apex); !strings.Contains(got, "NXDOMAIN") {
		t.Errorf("another VPC's name: got %s, want NXDOMAIN", got)
	}
	// Asked directly, the view is the asker's.
	if got := dig(t, digger, "127.81.0.9", on.Addr(), "+short", "vpce-2."+apex); got != "10.8.1.5" {
		t.Errorf("directly, from the second VPC: got %q", got)
	}
}
