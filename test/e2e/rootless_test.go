package e2e

import (
	"context"
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

	"penstock.dev/penstock/internal/compute/procfs"
	"penstock.dev/penstock/internal/wire/flowlog"
)

// rootlessUser is an ordinary user that nobody else is.
const rootlessUser = 21346

// TestRootlessNetwork runs `penstock dev --net rootless` as an ordinary user: the kernel judges who comes from which network, and
// nothing of the machine's own network changes.
func TestRootlessNetwork(t *testing.T) {
	needE2E(t)
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become an ordinary user of its own")
	}
	dir, err := os.MkdirTemp("", "penstock-rootless-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chown(dir, rootlessUser, rootlessUser); err != nil {
		t.Fatal(err)
	}
	who := &syscall.Credential{Uid: rootlessUser, Gid: rootlessUser}
	if _, err := binary(); err != nil { // other tests use it too: it must not be built into the folder that goes
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", dir) // of the instances: a folder that goes with the test
	s := launchAs(t, who, dir, "--net", "rootless", "--flow-log-interval", "500ms")
	s.awaitReadyOrSkip()
	s.rootlessContract()
	for _, a := range s.info.EndpointAddresses {
		for _, port := range []string{pagePortOf(t, s), "1400", "1499"} {
			at := net.JoinHostPort(a.Dial, port)
			if b, err := talk(t, "127.0.3.9", at); err != nil || !strings.HasPrefix(b, "HTTP/1.1 ") {
				t.Errorf("office to %s: got %q (%v), want an HTTP answer", at, b, err)
			}
			cutOff(t, "127.1.0.5", at)
		}
	}

	// Flow logs have users' addresses as the rules have them, counted by the kernel.
	until(t, "flow logs", func() bool {
		all, at := s.flowLogs(), netip.MustParseAddr(s.info.EndpointAddresses[1].Private)
		in, out := flowed(all, netip.MustParseAddr("192.168.3.9"), at, 1400, flowlog.Accept)
		rejected, _ := flowed(all, netip.MustParseAddr("172.16.0.5"), at, 1499, flowlog.Reject)
		return in && out && rejected
	})

	// A session streams; groups remember it, network ACLs do not.
	l := s.visit(s.info.StreamingURL).mustLaunch("xterm")
	origin := mustURL(t, l.ViewerURL)
	v := s.connect(l.ViewerURL, "")
	v.mustLive(t)
	s.admitOffice(false)
	s.refusedSoon("127.0.0.1", origin.Host)
	cutOff(t, "127.0.0.1", origin.Host)
	v.mustLive(t)
	s.admitOffice(true)
	s.stalled(v, "127.0.0.1", origin.Host)

	// A second server is refused, and the first one lives.
	second := launchAs(t, who, dir, "--net", "rootless")
	select {
	case <-second.done:
	case <-time.After(patience):
		t.Fatal("a second server on the data directory does not end")
	}
	if second.err == nil || strings.Count(second.stderr.String(), "is in use by") != 1 {
		t.Errorf("a second server: %v, %s", second.err, second.stderr)
	}

	// After kill -9 of the process outside nothing runs any more, and the next start serves.
	s.kill()
	noProcessesOf(t, rootlessUser)
	s = launchAs(t, who, dir, "--net", "rootless")
	s.awaitReady()
	s.rootlessContract()
	if b, err := talk(t, "127.0.0.1", net.JoinHostPort(s.info.EndpointAddresses[0].Dial, "1400")); err != nil || b == "" {
		t.Errorf("after a restart: %q, %v", b, err)
	}
	// The process inside is the server: its end is that of the process outside.
	if s.info.PID == s.cmd.Process.Pid {
		t.Errorf("the server %d is not in namespaces of its own", s.info.PID)
	}
	if err := syscall.Kill(s.info.PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.done:
	case <-time.After(2 * stopPatience):
		t.Fatal("SIGTERM to the server did not end the process outside")
	}
	if s.err != nil {
		t.Errorf("after SIGTERM: %v", s.err)
	}
	s = launchAs(t, who, dir, "--net", "rootless", "--no-demo")
	s.awaitReady()
	s.stop()
	if s.err != nil {
		t.Errorf("after SIGTERM: %v", s.err)
	}
	noProcessesOf(t, rootlessUser)
	if left, err := filepath.Glob(filepath.Join(dir, "netns", "*")); err != nil || len(left) > 0 {
		t.Errorf("namespaces were left: %v, %v", left, err)
	}
}

// awaitReadyOrSkip skips where user namespaces are not allowed.
func (s *server) awaitReadyOrSkip() {
	s.t.Helper()
	select {
	case <-s.done:
		if text := s.stderr.String(); strings.Contains(text, "user namespaces are not allowed here") && os.Getenv("PENSTOCK_TEST_STRICT") != "1" {
			s.t.Skip(text)
		}
	case <-s.ready:
	case <-time.After(patience):
	}
	s.awaitReady()
}

// rootlessContract checks dev.json.
func (s *server) rootlessContract() {
	s.t.Helper()
	if s.info.Net != "rootless" || len(s.info.EndpointAddresses) != 2 || len(s.info.UserNetworks) != 2 || !strings.HasPrefix(s.info.PublicURL, "http://127.0.0.1:") {
		s.t.Fatalf("dev.json: %+v", s.info)
	}
	for _, a := range s.info.EndpointAddresses {
		private, dialled := netip.MustParseAddr(a.Private), netip.MustParseAddr(a.Dial)
		if !strings.HasPrefix(a.Private, "10.77.") || !dialled.IsLoopback() || private.As4()[2] != dialled.As4()[2] || private.As4()[3] != dialled.As4()[3] {
			s.t.Errorf("%s is dialled at %s", a.Private, a.Dial)
		}
	}
	if n := s.info.UserNetworks[0]; n.CIDR != "192.168.0.0/16" || n.Dial != "127.0.0.0/16" {
		s.t.Errorf("the first network of users is %+v", n)
	}
}

// pagePortOf is where 443 can be dialled.
func pagePortOf(t *testing.T, s *server) string {
	t.Helper()
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(b)) == "1024" {
		if !strings.Contains(s.stderr.String(), "port 443 could not be bound") {
			t.Error("an ordinary user bound port 443")
		}
		return "8443"
	}
	return "443"
}

// cutOff wants a connection that ends without a byte.
func cutOff(t *testing.T, source, at string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	c, err := d.DialContext(ctx, "tcp", at)
	if err != nil {
		t.Errorf("%s to %s: %v", source, at, err)
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience)) // the read says it
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%s to %s: read %d bytes, %v, want a reset", source, at, n, err)
	}
}

// noProcessesOf waits until a user has no process.
func noProcessesOf(t *testing.T, uid int) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		all, err := procfs.List()
		if err != nil {
			t.Fatal(err)
		}
		var left []int
		for _, p := range all {
			if p.UID == uid && p.State != 'Z' {
				left = append(left, p.PID)
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			out, _ := exec.CommandContext(t.Context(), "ps", "-fu", "21346").Output()
			t.Fatalf("processes were left: %v\n%s", left, out)
		}
	}
}
