package e2e

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/vishvananda/netlink"

	"penstock.dev/penstock/internal/hostnet/kernel"
)

// insideEnv is set for the run of this test that has a network namespace of its own.
const insideEnv = "PENSTOCK_E2E_NETWORK_NAMESPACE"

// TestKernelNetwork runs `penstock dev --net kernel`: real addresses, packets dropped by the kernel, nothing left behind. The
// server and its clients run in a network namespace of their own, so that nothing on the machine changes.
func TestKernelNetwork(t *testing.T) {
	needE2E(t)
	if err := kernel.Available(); err != nil {
		if os.Getenv("PENSTOCK_TEST_STRICT") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if os.Getenv(insideEnv) == "1" {
		loopbackUp(t)
		kernelNetwork(t)
		return
	}
	t.Parallel()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKernelNetwork$", "-test.count=1", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), insideEnv+"=1", "PENSTOCK_BIN="+bin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestKernelNetwork") {
		t.Fatalf("inside its namespace: %v\n%s", err, tail(string(out), 12000))
	}
}

func loopbackUp(t *testing.T) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func kernelNetwork(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, "--net", "kernel")
	office, guests := s.kernelContract()
	for _, a := range s.info.EndpointAddresses {
		for _, port := range []string{"443", "1400", "1499"} {
			at := net.JoinHostPort(a.Dial, port)
			if b, err := talk(t, "", at); err != nil || !strings.HasPrefix(b, "HTTP/1.1 ") {
				t.Errorf("office to %s: got %q (%v), want an HTTP answer", at, b, err)
			}
			if b, err := talk(t, office, at); err != nil || !strings.HasPrefix(b, "HTTP/1.1 ") {
				t.Errorf("office as %s to %s: got %q (%v), want an HTTP answer", office, at, b, err)
			}
			silent(t, guests, at)
		}
		silent(t, office, net.JoinHostPort(a.Dial, "1500"))
	}

	// A session streams, and groups remember it while new connections are dropped.
	l := s.visit(s.info.StreamingURL).mustLaunch("xterm")
	host := mustURL(t, l.ViewerURL).Hostname()
	if addr, err := netip.ParseAddr(host); err != nil || !strings.HasPrefix(host, "10.77.") {
		t.Errorf("the viewer is at %s (%v), want an endpoint's own address", addr, err)
	}
	v := s.connect(l.ViewerURL, "")
	v.mustLive(t)
	var groups struct {
		SecurityGroups []struct {
			GroupID string `json:"GroupId"`
		}
	}
	s.aws(&groups, "ec2", "describe-security-groups", "--filters", "Name=group-name,Values=demo-streaming")
	rule := []string{"--group-id", groups.SecurityGroups[0].GroupID, "--protocol", "tcp", "--port", "443", "--cidr", s.info.UserNetworks[0].CIDR}
	s.aws(nil, append([]string{"ec2", "revoke-security-group-ingress"}, rule...)...)
	silent(t, office, net.JoinHostPort(host, "443"))
	v.mustLive(t)
	s.aws(nil, append([]string{"ec2", "authorize-security-group-ingress"}, rule...)...)
	if b, err := talk(t, office, net.JoinHostPort(host, "443")); err != nil || b == "" {
		t.Errorf("after the rule came back: %q, %v", b, err)
	}

	// A network ACL remembers nothing: a denied inbound packet stalls the running session at once, until the entry goes.
	var acls struct {
		NetworkAcls []struct {
			NetworkACLID string `json:"NetworkAclId"`
		}
	}
	s.aws(&acls, "ec2", "describe-network-acls", "--filters", "Name=vpc-id,Values="+s.info.VPCID)
	entry := []string{"--network-acl-id", acls.NetworkAcls[0].NetworkACLID, "--rule-number", "1", "--ingress"}
	s.aws(nil, append([]string{"ec2", "create-network-acl-entry", "--protocol", "-1", "--rule-action", "deny", "--cidr-block", s.info.UserNetworks[0].CIDR}, entry...)...)
	silent(t, office, net.JoinHostPort(host, "443"))
	pong := make(chan error, 1)
	go func() { pong <- v.ping() }()
	select {
	case err := <-pong:
		t.Errorf("a packet of the session passed the network ACL that denies it (%v)", err)
	case <-time.After(500 * time.Millisecond):
	}
	s.aws(nil, append([]string{"ec2", "delete-network-acl-entry"}, entry...)...)
	select {
	case err := <-pong: // TCP sends again what was dropped
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("the stalled session did not go on")
	}

	// kill -9 leaves a namespace and a link; the next start takes them away and serves.
	s.kill()
	if n, links := s.left(); n != 1 || links != 1 {
		t.Errorf("after SIGKILL: %d namespaces, %d links: the test does not test", n, links)
	}
	s = start(t, dir, "--net", "kernel")
	office, guests = s.kernelContract()
	at := net.JoinHostPort(s.info.EndpointAddresses[0].Dial, "443")
	if b, err := talk(t, office, at); err != nil || b == "" {
		t.Errorf("after a restart: %q, %v", b, err)
	}
	silent(t, guests, at)
	if n, links := s.left(); n != 1 || links != 1 {
		t.Errorf("after a restart: %d namespaces, %d links, want one of each", n, links)
	}
	s.stop()
	if n, links := s.left(); n != 0 || links != 0 {
		t.Errorf("after SIGTERM: %d namespaces and %d links were left", n, links)
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil || len(routes) != 0 {
		t.Errorf("after SIGTERM: routes %v, %v", routes, err)
	}
}

// ping waits for the answer to a ping.
func (v *viewer) ping() error {
	if err := v.conn.Write(v.ctx, websocket.MessageBinary, []byte{0x03, 1, 2, 3, 4, 5, 6, 7, 8}); err != nil {
		return err
	}
	for {
		_, b, err := v.conn.Read(v.ctx)
		if err != nil || b[0] == 0x04 {
			return err
		}
	}
}

// kernelContract checks dev.json and returns an address of each user network that this machine plays.
func (s *server) kernelContract() (office, guests string) {
	s.t.Helper()
	if s.info.Net != "kernel" || len(s.info.EndpointAddresses) != 2 || len(s.info.UserNetworks) != 2 {
		s.t.Fatalf("dev.json: %+v", s.info)
	}
	for _, a := range s.info.EndpointAddresses {
		if a.Private != a.Dial {
			s.t.Errorf("%s is dialled at %s", a.Private, a.Dial)
		}
	}
	var first []string
	for _, n := range s.info.UserNetworks {
		p, err := netip.ParsePrefix(n.CIDR)
		if err != nil || n.CIDR != n.Dial {
			s.t.Fatalf("user network %+v: %v", n, err)
		}
		first = append(first, p.Addr().Next().String())
	}
	return first[0], first[1]
}

// silent wants no answer at all to a connection.
func silent(t *testing.T, source, at string) {
	t.Helper()
	d := net.Dialer{Timeout: 300 * time.Millisecond, LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	c, err := d.DialContext(t.Context(), "tcp", at)
	if err == nil {
		_ = c.Close() // that it came about is the failure
	}
	if e, ok := errors.AsType[net.Error](err); !ok || !e.Timeout() {
		t.Errorf("%s to %s: %v, want silence", source, at, err)
	}
}

// left counts the server's namespaces and links.
func (s *server) left() (namespaces, links int) {
	s.t.Helper()
	names, err := filepath.Glob("/run/netns/penstock-*-" + strings.TrimPrefix(s.info.VPCID, "vpc-"))
	if err != nil {
		s.t.Fatal(err)
	}
	all, err := netlink.LinkList()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, l := range all {
		if strings.HasPrefix(l.Attrs().Name, "psk") {
			links++
		}
	}
	return len(names), links
}
