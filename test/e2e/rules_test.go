package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"penstock.dev/penstock/internal/sqlite"
	"penstock.dev/penstock/internal/state"
)

func mustJSON(t *testing.T, b []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("%q: %v", b, err)
	}
}

// guest is an address of the second user network, which the demo's group does not admit.
const guest = "127.1.0.5"

// TestSourceOutsideTheGroupGetsNothing connects from both user networks to every kind of port.
func TestSourceOutsideTheGroupGetsNothing(t *testing.T) {
	needE2E(t)
	t.Parallel()
	s := start(t, t.TempDir())
	for _, a := range s.info.EndpointAddresses {
		for _, port := range []string{"443", "1400", "1499"} {
			if b, err := talk(t, "", net.JoinHostPort(a.Dial, port)); err != nil || !strings.HasPrefix(b, "HTTP/1.1 ") {
				t.Errorf("office network to %s:%s: got %q (%v), want an HTTP answer", a.Dial, port, b, err)
			}
			if b, _ := talk(t, guest, net.JoinHostPort(a.Dial, port)); b != "" {
				t.Errorf("guest network to %s:%s: got %q, want not one byte", a.Dial, port, b)
			}
		}
		if c, err := net.DialTimeout("tcp", net.JoinHostPort(a.Dial, "1500"), time.Second); err == nil {
			_ = c.Close()
			t.Errorf("%s listens on 1500", a.Dial)
		}
	}
	// The change of a rule is in force at once, in both directions.
	var groups struct {
		SecurityGroups []struct {
			GroupID string `json:"GroupId"`
		}
	}
	s.aws(&groups, "ec2", "describe-security-groups", "--filters", "Name=group-name,Values=demo-streaming")
	group := groups.SecurityGroups[0].GroupID
	dial := net.JoinHostPort(s.info.EndpointAddresses[0].Dial, "443")
	s.aws(nil, "ec2", "authorize-security-group-ingress", "--group-id", group, "--protocol", "tcp", "--port", "443", "--cidr", "172.16.0.0/16")
	until(t, "guest network to be admitted", func() bool { b, _ := talk(t, guest, dial); return b != "" })
	s.aws(nil, "ec2", "revoke-security-group-ingress", "--group-id", group, "--protocol", "tcp", "--port", "443", "--cidr", "172.16.0.0/16")
	until(t, "guest network to be refused", func() bool { b, _ := talk(t, guest, dial); return b == "" })
}

// talk sends a request from a source address and returns what comes back.
func talk(t *testing.T, source, addr string) (string, error) {
	t.Helper()
	return talkTrusting(t, nil, source, addr)
}

// talkTrusting is talk over TLS where there are roots to trust.
func talkTrusting(t *testing.T, roots *x509.CertPool, source, addr string) (string, error) {
	t.Helper()
	d := net.Dialer{Timeout: 5 * time.Second}
	if source != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(source)}
	}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	host, _, _ := net.SplitHostPort(addr)
	if roots != nil {
		c = tls.Client(c, &tls.Config{RootCAs: roots, ServerName: host})
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n"); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

// TestTicketsWorkOnceAndOnlyAtTheirEndpoint tries a ticket at the other zone, from the guests, on the internet endpoint and twice.
func TestTicketsWorkOnceAndOnlyAtTheirEndpoint(t *testing.T) {
	needE2E(t)
	t.Parallel()
	s := start(t, t.TempDir())
	p := s.visit(s.info.StreamingURL)
	closeCode := func(origin, ticket, source string) websocket.StatusCode {
		_, err := tryConnect(t, mustURL(t, origin), ticket, source)
		return websocket.CloseStatus(err)
	}
	u := mustURL(t, p.mustLaunch("xterm").ViewerURL)
	if u.RawQuery != "" {
		t.Errorf("the viewer's URL carries a query: %q", u.RawQuery)
	}
	ticket := ticketOf(u)
	if code := closeCode(s.info.PublicURL, ticket, ""); code != 4403 {
		t.Errorf("on the internet endpoint: close code %d, want 4403", code)
	}
	if code := closeCode(u.Scheme+"://"+u.Host, forge(ticket), ""); code != 4401 {
		t.Errorf("forged: close code %d, want 4401", code)
	}
	if v, err := tryConnect(t, u, ticket, guest); err == nil {
		v.mustLive(t)
		t.Error("the guests' network was admitted")
	}
	v, err := tryConnect(t, u, ticket, "")
	if err != nil {
		t.Fatalf("first use: %v", err)
	}
	if code := closeCode(u.Scheme+"://"+u.Host, ticket, ""); code != 4402 {
		t.Errorf("second use: close code %d, want 4402", code)
	}
	v.mustLive(t)

	// Another user's session: its ticket does not open this one, and a stack's endpoint change does not help.
	var out struct{ StreamingURL string }
	s.aws(&out, "appstream", "create-streaming-url", "--stack-name", s.info.StackName, "--fleet-name", s.info.FleetName, "--user-id", "eve")
	other := mustURL(t, s.visit(out.StreamingURL).mustLaunch("xterm").ViewerURL)
	if _, err := tryConnect(t, other, ticketOf(other), ""); err != nil {
		t.Fatalf("eve's own session: %v", err)
	}
	v.mustLive(t)
}

// forge changes one letter in the middle of a ticket's signature.
func forge(ticket string) string {
	b := []byte(ticket)
	i := len(b) - 20
	if b[i] == 'A' {
		b[i] = 'B'
	} else {
		b[i] = 'A'
	}
	return string(b)
}

// TestBadInputAtTheAPI sends what no client should.
func TestBadInputAtTheAPI(t *testing.T) {
	needE2E(t)
	t.Parallel()
	s := start(t, t.TempDir(), "--no-demo")
	s.awsFails("InvalidVpcEndpointId.NotFound", "ec2", "describe-vpc-endpoints", "--vpc-endpoint-ids", "vpce-00000000000000000")
	s.awsFails("ResourceNotFoundException", "appstream", "create-stack", "--name", "x", "--access-endpoints", "EndpointType=STREAMING,VpceId=vpce-00000000000000000")
	s.awsFails("ResourceNotFoundException", "appstream", "create-streaming-url", "--stack-name", "x", "--fleet-name", "x", "--user-id", "ann")
	s.awsFails("InvalidVpc.Range", "ec2", "create-vpc", "--cidr-block", "10.0.0.0/8")
	s.awsFails("DryRunOperation", "ec2", "create-vpc", "--cidr-block", "10.9.0.0/16", "--dry-run")
	s.awsFails("InvalidSignatureException", "--region", "eu-west-1", "appstream", "describe-stacks")
	if _, err := s.tryAWS("appstream", "create-stack", "--name", "no spaces"); err == nil || !strings.Contains(err.Error(), "name") {
		t.Errorf("bad stack name: got %v, want an error that names the member", err)
	}
	for name, body := range map[string][]byte{"empty": nil, "random": random(4096), "huge": bytes.Repeat([]byte("a"), 8<<20)} {
		resp, err := http.Post(s.info.APIURL, "application/x-amz-json-1.1", bytes.NewReader(body))
		if err != nil {
			continue // the server may close while a huge body is still being sent
		}
		_ = resp.Body.Close()
		if resp.StatusCode < 400 || resp.StatusCode >= 500 {
			t.Errorf("%s body: got %s, want a client error", name, resp.Status)
		}
	}
	s.aws(nil, "sts", "get-caller-identity")
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// TestRestartAndKill ends the server in both ways and starts it on the same data.
func TestRestartAndKill(t *testing.T) {
	needE2E(t)
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir)
	endpoint, account := s.info.VPCEndpointID, s.info.AccountID

	// A second server on the same data is refused and says why.
	second := launch(t, dir)
	select {
	case <-second.done:
		if second.err == nil || !strings.Contains(second.stderr.String(), "data directory") {
			t.Errorf("second server: got %v and %q", second.err, second.stderr.String())
		}
	case <-time.After(patience):
		t.Fatal("a second server runs on the same data")
	}
	s.awaitReadyFile()

	v := s.connect(s.visit(s.info.StreamingURL).mustLaunch("xterm").ViewerURL, "")
	v.mustLive(t)
	session := s.sessions()[0]
	if session.PID == 0 || session.Display == "" {
		t.Fatalf("session: got %+v", session)
	}
	left := processesOf(t, dir)
	if len(left) == 0 {
		t.Fatal("found no process of the session: the test looks for the wrong thing")
	}
	s.kill()

	s = start(t, dir)
	if s.info.VPCEndpointID != endpoint || s.info.AccountID != account {
		t.Errorf("after kill -9: endpoint %s of account %s, want %s and %s", s.info.VPCEndpointID, s.info.AccountID, endpoint, account)
	}
	var ended bool
	for _, x := range s.sessions() {
		if x.ID == session.ID {
			ended = x.State == "EXPIRED" && x.EndReason != ""
		}
	}
	if !ended {
		t.Errorf("after kill -9 the session is not shown as ended: %+v", s.sessions())
	}
	for _, p := range left {
		// A process that ended but that nobody has waited for shows no command.
		if b, err := os.ReadFile(filepath.Join(filepath.Dir(p), "cmdline")); err == nil && len(b) > 0 {
			t.Errorf("%s of before kill -9 survived: %q", p, b)
		}
	}
	s.connect(s.visit(s.info.StreamingURL).mustLaunch("xterm").ViewerURL, "").mustLive(t)

	start := time.Now()
	s.stop()
	t.Logf("SIGTERM to end: %v", time.Since(start).Round(time.Millisecond))
	if s.err != nil {
		t.Errorf("SIGTERM: exit status is %v, want 0", s.err)
	}
	if left := processesOf(t, dir); len(left) > 0 {
		t.Errorf("processes left after SIGTERM: %v", left)
	}
}

// TestDemoGoesOnWhereItWasCut forgets how far the demo came, as a kill before the record was written does: the next start finds what is there.
func TestDemoGoesOnWhereItWasCut(t *testing.T) {
	needE2E(t)
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir)
	first := s.info
	s.stop()
	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(dir, "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = store.Update(t.Context(), func(tx state.Tx) error { return tx.Delete("demo", "demo") })
	if err := errors.Join(err, store.Close()); err != nil {
		t.Fatal(err)
	}
	s = start(t, dir)
	if s.info.VPCID != first.VPCID || s.info.VPCEndpointID != first.VPCEndpointID || s.info.StreamingURL == "" {
		t.Errorf("got VPC %s, endpoint %s and URL %q, want %s, %s and a URL", s.info.VPCID, s.info.VPCEndpointID, s.info.StreamingURL, first.VPCID, first.VPCEndpointID)
	}
}

// awaitReadyFile restores what launch removed for the second server.
func (s *server) awaitReadyFile() {
	b, err := json.Marshal(map[string]any{"adminSocket": filepath.Join(s.dir, "admin.sock")})
	if err == nil {
		err = os.WriteFile(filepath.Join(s.dir, "dev.json"), b, 0o600)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// processesOf lists the processes whose environment carries the marker of instances of a data directory.
func processesOf(t *testing.T, dir string) []string {
	t.Helper()
	id, err := os.ReadFile(filepath.Join(dir, "compute", "id"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sh", "-c", `grep -lzs "^PENSTOCK_INSTANCE=`+strings.TrimSpace(string(id))+`" /proc/[0-9]*/environ || true`).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(out))
}

// applicationHas reports whether a process of a data directory's instances has this in its environment.
func applicationHas(t *testing.T, dir, variable string) bool {
	t.Helper()
	for _, p := range processesOf(t, dir) {
		b, err := os.ReadFile(p)
		if err == nil && slices.Contains(strings.Split(string(b), "\x00"), variable) {
			return true
		}
	}
	return false
}

// TestWithoutPrivilege runs the whole path as an ordinary user: the page's port moves to 8443, everything else stays.
func TestWithoutPrivilege(t *testing.T) {
	needE2E(t)
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to become an ordinary user; every other test runs as one already")
	}
	const nobody = 65534
	dir, err := os.MkdirTemp("", "penstock-nobody-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	s := launchAs(t, &syscall.Credential{Uid: nobody, Gid: nobody}, dir)
	s.awaitReady()
	u := mustURL(t, s.visit(s.info.StreamingURL).mustLaunch("xterm").ViewerURL)
	if u.Port() != "8443" && u.Port() != "" {
		t.Errorf("the page's port is %s, want 8443", u.Port())
	}
	v, err := tryConnect(t, u, ticketOf(u), "")
	if err != nil {
		t.Fatal(err)
	}
	v.mustLive(t)
	if _, err := tryConnect(t, u, ticketOf(u), guest); err == nil {
		t.Error("the guests' network was admitted")
	}
}
