// Package e2e drives the built binary as its users do: the AWS CLI, the official SDK, sockets on the user networks, signals.
// It runs with PENSTOCK_E2E=1 (make e2e); the browser's part is in web/e2e.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	patience     = 60 * time.Second // for anything that a test waits for
	stopPatience = 5 * time.Second  // SIGTERM ends penstock dev within 5 s
)

// binary is built once a run.
var binary = sync.OnceValues(func() (string, error) {
	if b := os.Getenv("PENSTOCK_BIN"); b != "" {
		return b, nil
	}
	dir, err := os.MkdirTemp("", "penstock-e2e-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // an ordinary user runs it too
		return "", err
	}
	path := filepath.Join(dir, "penstock")
	// The flags of make build: what that compiled is used again.
	cmd := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-o", path, "penstock.dev/penstock/cmd/penstock")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("build: %w\n%s", err, out), os.RemoveAll(dir))
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if os.Getenv("PENSTOCK_BIN") == "" && os.Getenv("PENSTOCK_E2E") == "1" {
		if b, err := binary(); err == nil {
			_ = os.RemoveAll(filepath.Dir(b))
		}
	}
	os.Exit(code)
}

// needE2E skips where the whole system was not asked for.
func needE2E(t *testing.T) {
	t.Helper()
	if os.Getenv("PENSTOCK_E2E") != "1" {
		t.Skip("needs PENSTOCK_E2E=1: it starts the built binary with X servers and AWS clients (make e2e)")
	}
}

// devInfo is dev.json.
type devInfo struct {
	APIURL, PublicURL, ConsoleURL, Region, AccountID, Net    string
	StackName, FleetName, VPCID, VPCEndpointID, StreamingURL string
	CABundle                                                 string
	PID                                                      int
	UserNetworks                                             []struct{ CIDR, Dial string }
	EndpointAddresses                                        []struct{ SubnetID, Private, Dial string }
}

// server is a running `penstock dev`.
type server struct {
	t      *testing.T
	dir    string
	cmd    *exec.Cmd
	info   devInfo
	stderr *lockedBuffer
	ready  chan struct{} // closed when it printed ready
	done   chan struct{} // closed when the process has ended
	err    error         // how it ended
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// freePort is a port of 127.0.0.1 that nobody uses now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// start runs `penstock dev` on a data directory and waits for `ready`.
func start(t *testing.T, dir string, args ...string) *server {
	t.Helper()
	s := launch(t, dir, args...)
	s.awaitReady()
	return s
}

// launch starts `penstock dev` and does not wait.
func launch(t *testing.T, dir string, args ...string) *server {
	t.Helper()
	return launchAs(t, nil, dir, args...)
}

// launchAs is launch as another user.
func launchAs(t *testing.T, who *syscall.Credential, dir string, args ...string) *server {
	t.Helper()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	args = append([]string{bin, "dev", "--data-dir", dir, "--api-addr", freePort(t), "--public-addr", freePort(t), "--log-level", "info"}, args...)
	return launchCommand(t, who, dir, args, nil)
}

// launchCommand starts a command that becomes a server on a data directory; env comes on top of this process's.
func launchCommand(t *testing.T, who *syscall.Credential, dir string, args, env []string) *server {
	t.Helper()
	_ = os.Remove(filepath.Join(dir, "dev.json"))
	s := &server{t: t, dir: dir, stderr: &lockedBuffer{}, ready: make(chan struct{}), done: make(chan struct{})}
	s.cmd = exec.Command(args[0], args[1:]...)
	s.cmd.Env = append(os.Environ(), env...)
	s.cmd.Stderr = s.stderr
	if who != nil {
		s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
		s.cmd.Env = append(s.cmd.Env, "HOME="+dir)
		s.cmd.Dir = dir
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		sc := bufio.NewScanner(out)
		for sc.Scan() {
			if sc.Text() == "ready" {
				close(s.ready)
			}
		}
		s.err = s.cmd.Wait()
		close(s.done)
	}()
	t.Cleanup(func() {
		s.stop()
		if t.Failed() {
			t.Logf("log of penstock:\n%s", tail(s.stderr.String(), 8000))
		}
	})
	return s
}

func (s *server) awaitReady() {
	s.t.Helper()
	select {
	case <-s.ready:
	case <-s.done:
		s.t.Fatalf("penstock dev ended before it was ready: %v\n%s", s.err, tail(s.stderr.String(), 4000))
	case <-time.After(patience):
		s.t.Fatalf("penstock dev is not ready after %v\n%s", patience, tail(s.stderr.String(), 4000))
	}
	b, err := os.ReadFile(filepath.Join(s.dir, "dev.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := json.Unmarshal(b, &s.info); err != nil {
		s.t.Fatal(err)
	}
}

// roots are the certificates that clients of the server trust; nil when nothing speaks TLS.
func (s *server) roots() *x509.CertPool {
	s.t.Helper()
	if s.info.CABundle == "" {
		return nil
	}
	pem, err := os.ReadFile(s.info.CABundle)
	if err != nil {
		s.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		s.t.Fatalf("%s holds no certificate", s.info.CABundle)
	}
	return pool
}

// stop ends the server with SIGTERM and reports when that takes too long.
func (s *server) stop() {
	s.t.Helper()
	select {
	case <-s.done:
		return
	default:
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(2 * stopPatience): // twice: other work shares the machine
		s.t.Errorf("penstock dev did not end within %v of SIGTERM", 2*stopPatience)
		s.kill()
	}
}

// kill ends the server with SIGKILL.
func (s *server) kill() {
	s.t.Helper()
	_ = s.cmd.Process.Kill()
	select {
	case <-s.done:
	case <-time.After(patience):
		s.t.Fatal("penstock dev survived SIGKILL")
	}
}

// env is the environment of AWS clients of this server.
func (s *server) env() []string {
	return append(os.Environ(),
		"AWS_SHARED_CREDENTIALS_FILE="+filepath.Join(s.dir, "aws", "credentials"),
		"AWS_CONFIG_FILE="+filepath.Join(s.dir, "aws", "config"),
		"AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER=", "AWS_MAX_ATTEMPTS=1", "PYTHONWARNINGS=ignore")
}

// awsPath is Debian's AWS CLI; another one may come first on PATH.
const awsPath = "/usr/bin/aws"

// aws runs the AWS CLI and decodes what it prints.
func (s *server) aws(into any, args ...string) {
	s.t.Helper()
	out, err := s.tryAWS(args...)
	if err != nil {
		s.t.Fatalf("aws %s: %v", strings.Join(args, " "), err)
	}
	if into != nil {
		if err := json.Unmarshal(out, into); err != nil {
			s.t.Fatalf("aws %s printed %q: %v", strings.Join(args, " "), out, err)
		}
	}
}

// tryAWS runs the AWS CLI; the error carries what it said.
func (s *server) tryAWS(args ...string) ([]byte, error) {
	if _, err := os.Stat(awsPath); err != nil {
		s.t.Skip("needs Debian's AWS CLI: apt-get install awscli")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, awsPath, append([]string{"--endpoint-url", s.info.APIURL, "--output", "json"}, args...)...)
	cmd.Env = s.env()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return out, err
}

// awsFails runs the AWS CLI and wants this error code.
func (s *server) awsFails(code string, args ...string) {
	s.t.Helper()
	_, err := s.tryAWS(args...)
	if err == nil || !strings.Contains(err.Error(), "("+code+")") {
		s.t.Errorf("aws %s: got %v, want error %s", strings.Join(args, " "), err, code)
	}
}

// until polls a condition that only the outside can see, with a bound.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if cond() {
			return
		}
	}
	t.Fatalf("waited %v for %s", patience, what)
}

// sessionInfo is one session of `penstock sessions --json`.
type sessionInfo struct {
	ID, UserID, StackName, FleetName, State, ConnectionState, EndpointID, EndReason, Display, Xauthority, Builder string
	PID                                                                                                           int
}

func (s *server) sessions() []sessionInfo {
	s.t.Helper()
	bin, err := binary()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := exec.Command(bin, "sessions", "--json", "--data-dir", s.dir).Output()
	if err != nil {
		s.t.Fatalf("penstock sessions: %v", err)
	}
	var list []sessionInfo
	if err := json.Unmarshal(out, &list); err != nil {
		s.t.Fatal(err)
	}
	return list
}

// portal is a browser without a screen: it signs in by streaming URL and launches.
type portal struct {
	s      *server
	client *http.Client
}

// visit opens a streaming URL as a browser does.
func (s *server) visit(streamingURL string) *portal {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	p := &portal{s: s, client: &http.Client{Jar: jar, Timeout: patience}}
	resp, err := p.client.Get(streamingURL)
	if err != nil {
		s.t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusNotImplemented {
		s.t.Fatalf("streaming URL answered %s", resp.Status)
	}
	return p
}

// launched is the answer of the portal's launch call.
type launched struct {
	SessionID, State, ViewerURL, Code, Reason string
	status                                    int
}

func (p *portal) launch(application string) launched {
	p.s.t.Helper()
	body := strings.NewReader(fmt.Sprintf(`{"applicationId":%q}`, application))
	req, err := http.NewRequest(http.MethodPost, p.s.info.PublicURL+"/api/portal/v1/launch", body)
	if err != nil {
		p.s.t.Fatal(err)
	}
	req.Header.Set("X-Penstock-Portal", "1")
	req.Header.Set("Origin", p.s.info.PublicURL)
	resp, err := p.client.Do(req)
	if err != nil {
		p.s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var out launched
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		p.s.t.Fatal(err)
	}
	out.status = resp.StatusCode
	return out
}

// mustLaunch launches and wants a session that is ready.
func (p *portal) mustLaunch(application string) launched {
	p.s.t.Helper()
	l := p.launch(application)
	if l.State != "ready" {
		p.s.t.Fatalf("launch: got %+v, want state ready", l)
	}
	return l
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

// lines are the lines of a file.
func lines(t *testing.T, path string) func(func(string) bool) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.SplitSeq(string(b), "\n")
}
