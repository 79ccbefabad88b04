package e2e

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"mime/quotedprintable"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// mailServer is Debian's aiosmtpd with STARTTLS and a password, in a process of its own. Each mail is a file.
const mailServer = `
import asyncio, os, ssl, sys
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
folder, port = sys.argv[1], int(sys.argv[2])
class Handler:
    n = 0
    async def handle_DATA(self, server, session, envelope):
        Handler.n += 1
        path = os.path.join(folder, "%03d" % Handler.n)
        head = "X-Envelope: %s %s %s\r\n" % (envelope.mail_from, ",".join(envelope.rcpt_tos), session.ssl is not None)
        open(path + ".new", "wb").write(head.encode() + envelope.content)
        os.rename(path + ".new", path + ".eml")
        return "250 OK"
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem"))
def authenticate(server, session, envelope, mechanism, data):
    ok = isinstance(data, LoginPassword) and data.login == b"apps" and data.password == b"a secret"
    return AuthResult(success=ok, handled=ok)
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
def factory():
    return SMTP(Handler(), hostname="test", tls_context=context, require_starttls=True, authenticator=authenticate, auth_required=True, loop=loop)
loop.run_until_complete(loop.create_server(factory, "127.0.0.1", port))
print("ready", flush=True)
loop.run_forever()
`

// post is a mail server that a test starts and stops, always at one address.
type post struct {
	t         *testing.T
	dir, addr string
}

func newPost(t *testing.T) *post {
	t.Helper()
	if err := exec.Command("/usr/bin/python3", "-c", "import aiosmtpd").Run(); err != nil {
		t.Skip("Debian's python3-aiosmtpd is missing: run scripts/setup.sh test")
	}
	p := &post{t: t, dir: t.TempDir(), addr: freePort(t)}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"cert.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		"password": []byte("a secret\n"),
	} {
		if err := os.WriteFile(filepath.Join(p.dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p *post) flags() []string {
	return []string{
		"--smtp-addr", p.addr, "--smtp-from", "apps@example.com", "--smtp-user", "apps", "--smtp-password-file", filepath.Join(p.dir, "password"),
		"--smtp-ca-file", filepath.Join(p.dir, "cert.pem"),
	}
}

// open starts the server; it ends with the test.
func (p *post) open() {
	p.t.Helper()
	_, port, _ := net.SplitHostPort(p.addr)
	cmd := exec.Command("/usr/bin/python3", "-c", mailServer, p.dir, port)
	out, err := cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
		p.t.Fatalf("the mail server said %q (%v): %s", line, err, said.String())
	}
}

// letter is a mail that arrived.
type letter struct {
	*mail.Message
	text string
}

// mail waits for the n-th mail, from 1.
func (p *post) mail(n int) letter {
	p.t.Helper()
	path := filepath.Join(p.dir, fmt.Sprintf("%03d.eml", n))
	until(p.t, fmt.Sprintf("mail %d", n), func() bool { _, err := os.Stat(path); return err == nil })
	b, err := os.ReadFile(path)
	if err != nil {
		p.t.Fatal(err)
	}
	m, err := mail.ReadMessage(bytes.NewReader(b))
	if err != nil {
		p.t.Fatalf("mail %d: %v\n%s", n, err, b)
	}
	text, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		p.t.Fatal(err)
	}
	return letter{m, strings.ReplaceAll(string(text), "\r\n", "\n")}
}

var secretPattern = regexp.MustCompile(`(?m)^  (?:temporary password|code)  (\S+)$`)

func (l letter) secret(t *testing.T) string {
	t.Helper()
	m := secretPattern.FindStringSubmatch(l.text)
	if m == nil {
		t.Fatalf("no secret in %q", l.text)
	}
	return m[1]
}

// visitor is a browser without a screen that knows nothing yet.
func (s *server) visitor() *portal {
	s.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &portal{s: s, client: &http.Client{Jar: jar, Timeout: patience}}
}

// stepped is the portal's answer to a step of a sign-in.
type stepped struct {
	Step, Code, Reason, UserID string
	Stacks                     []struct{ Name string }
	status                     int
}

// call does one step at the portal; a nil body is a GET.
func (p *portal) call(path string, body any) (out stepped) {
	p.s.t.Helper()
	method, reader := http.MethodGet, io.Reader(nil)
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			p.s.t.Fatal(err)
		}
		method, reader = http.MethodPost, bytes.NewReader(b)
	}
	r, err := http.NewRequest(method, p.s.info.PublicURL+"/api/portal/v1/"+path, reader)
	if err != nil {
		p.s.t.Fatal(err)
	}
	r.Header.Set("X-Penstock-Portal", "1")
	r.Header.Set("Origin", p.s.info.PublicURL)
	resp, err := p.client.Do(r)
	if err != nil {
		p.s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err == nil && len(b) > 0 {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		p.s.t.Fatalf("%s answered %s %q: %v", path, resp.Status, b, err)
	}
	out.status = resp.StatusCode
	return out
}

func (p *portal) want(path string, body any, status int, code string) stepped {
	p.s.t.Helper()
	out := p.call(path, body)
	if out.status != status || out.Step+out.Code != code {
		p.s.t.Errorf("%s: got %d %+v, want %d %s", path, out.status, out, status, code)
	}
	return out
}

// usersList is `penstock users --json`.
type usersList struct {
	Users []struct {
		UserName, Status      string
		Enabled, SecondFactor bool
		SignIns               int
	}
	Mails []struct {
		ID, Failure string
		Attempts    int
	}
}

func (s *server) users() (out usersList) {
	s.t.Helper()
	if err := json.Unmarshal([]byte(s.mustPenstock("users", "--json")), &out); err != nil {
		s.t.Fatal(err)
	}
	return out
}

// TestUserByMail: CreateUser while the mail server is away, which loses nothing, also across a restart; the welcome mail by STARTTLS and a
// password; the forced new password; a reset; `penstock users` all along; names that try to write headers.
func TestUserByMail(t *testing.T) {
	needE2E(t)
	t.Parallel()
	p := newPost(t)
	dir := t.TempDir()
	flags := append(p.flags(), "--public-addr", freePort(t)) // the same after the restart: it stands in the mail
	s := start(t, dir, flags...)
	pool := []string{"--authentication-type", "USERPOOL"}
	appstream := func(operation string, args ...string) {
		s.aws(nil, append([]string{"appstream", operation}, args...)...)
	}
	const ada, password = "ada@example.com", "a quiet harbour at dusk"

	appstream("create-user", append(pool, "--user-name", ada, "--first-name", "Ada")...)
	waits := func() bool {
		l := s.users()
		return len(l.Mails) == 1 && l.Mails[0].Attempts > 0 && l.Mails[0].Failure != ""
	}
	until(t, "a mail that could not be delivered", waits)
	if l := s.users(); len(l.Users) != 1 || l.Users[0].UserName != ada || l.Users[0].Status != "UNCONFIRMED" || !l.Users[0].Enabled || l.Users[0].SignIns != 0 {
		t.Errorf("users: %+v", l)
	}
	if text := s.mustPenstock("users"); !strings.Contains(text, ada) || !strings.Contains(text, "waits since") {
		t.Errorf("penstock users printed\n%s", text)
	}
	var described struct{ Users []struct{ Status string } } // the API goes on meanwhile
	s.aws(&described, append([]string{"appstream", "describe-users"}, pool...)...)
	if len(described.Users) != 1 {
		t.Errorf("DescribeUsers: %+v", described)
	}
	s.stop()
	s = start(t, dir, flags...)
	if l := s.users(); len(l.Mails) != 1 {
		t.Errorf("mails after a restart: %+v", l.Mails)
	}
	p.open()
	welcome := p.mail(1)
	if got := welcome.Header.Get("X-Envelope"); got != "apps@example.com "+ada+" True" {
		t.Errorf("envelope: %q, want sender, recipient and TLS", got)
	}
	if !strings.Contains(welcome.text, s.info.PublicURL) || welcome.Header.Get("To") != "<"+ada+">" {
		t.Errorf("mail to %s: %q", welcome.Header.Get("To"), welcome.text)
	}
	until(t, "an empty queue", func() bool { return len(s.users().Mails) == 0 })

	v := s.visitor()
	v.want("signin", map[string]string{"userName": ada, "password": "not the one in it"}, 403, "wrong-password")
	v.want("signin", map[string]string{"userName": ada, "password": welcome.secret(t)}, 200, "new-password")
	v.want("me", nil, 401, "not-signed-in")
	if l := v.launch("xterm"); l.status != 401 {
		t.Errorf("a launch before a password was chosen: %+v", l)
	}
	v.want("signin/new-password", map[string]string{"password": "password1234"}, 422, "weak-password")
	v.want("signin/new-password", map[string]string{"password": password}, 200, "done")
	s.aws(nil, "appstream", "batch-associate-user-stack", "--user-stack-associations", "UserName="+ada+",StackName="+s.info.StackName+",AuthenticationType=USERPOOL")
	if me := v.call("me", nil); me.status != 200 || me.UserID != ada || len(me.Stacks) != 1 || me.Stacks[0].Name != s.info.StackName {
		t.Errorf("signed in: %+v", me)
	}
	if l := s.users(); l.Users[0].Status != "CONFIRMED" || l.Users[0].SignIns != 1 {
		t.Errorf("users: %+v", l)
	}
	s.visitor().want("signin", map[string]string{"userName": ada, "password": welcome.secret(t)}, 403, "wrong-password") // it was for once

	// A forgotten password: the code is for once, and ends the other sign-ins. Whoever is asked for, the answer is the same.
	other := s.visitor()
	other.want("reset", map[string]string{"userName": "nobody@example.com"}, 202, "")
	other.want("reset", map[string]string{"userName": ada}, 202, "")
	reset := p.mail(2)
	fresh := map[string]string{"userName": ada, "code": reset.secret(t), "password": "another quiet harbour"}
	other.want("reset/confirm", map[string]string{"userName": ada, "code": "AAAA-AAAA-AAAA", "password": "another quiet harbour"}, 403, "wrong-code")
	other.want("reset/confirm", fresh, 204, "")
	other.want("reset/confirm", fresh, 403, "wrong-code")
	v.want("me", nil, 401, "not-signed-in")
	other.want("signin", map[string]string{"userName": ada, "password": password}, 403, "wrong-password")
	other.want("signin", map[string]string{"userName": ada, "password": "another quiet harbour"}, 200, "done")

	// Names cannot begin a header or an address of their own.
	for _, name := range []string{"eve@example.com\r\nBcc: x@evil.example", "eve@example.com\nSubject: x", "eve@example.com,x@evil.example", "eve@example.com> <x@evil.example", "eve"} {
		if _, err := s.tryAWS(append([]string{"appstream", "create-user", "--user-name", name}, pool...)...); err == nil {
			t.Errorf("a user named %q was made", name)
		}
	}
	if _, err := s.tryAWS(append([]string{"appstream", "create-user", "--user-name", "eve@example.com", "--first-name", "Eve\r\nBcc: x@evil.example"}, pool...)...); err == nil {
		t.Error("a first name with a header was taken")
	}
	appstream("create-user", append(pool, "--user-name", "eve@example.com", "--first-name", "Eve\r\nBcc", "--last-name", "\r\n\r\nX")...)
	eve := p.mail(3)
	if got := eve.Header.Get("X-Envelope"); got != "apps@example.com eve@example.com True" || eve.Header.Get("Bcc") != "" || len(eve.Header) != len(welcome.Header) {
		t.Errorf("envelope %q, headers %v", got, eve.Header)
	}

	// The operator's command refuses what it cannot do.
	for _, args := range [][]string{{"users", "--remove-second-factor", "nobody@example.com"}, {"users", "ada"}, {"users", "--jason"}} {
		if out, err := s.penstock(args...); err == nil {
			t.Errorf("penstock %s: got %s", strings.Join(args, " "), out)
		}
	}
	if l := s.users(); len(l.Users) != 2 {
		t.Errorf("users: %+v", l)
	}
	s.stop()
	if out, err := s.penstock("users"); err == nil {
		t.Errorf("penstock users without a server: %s", out)
	}
}

// TestSignInFlags: the flags of signing in do what they say, through the built binary, and wrong ones are refused before anything starts.
func TestSignInFlags(t *testing.T) {
	needE2E(t)
	t.Parallel()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args []string
		want string
	}{
		{[]string{"--second-factor", "sms"}, "--second-factor"},
		{[]string{"--sign-in-idle", "1s"}, "--sign-in-idle"},
		{[]string{"--sign-in-life", "1000h"}, "--sign-in-life"},
		{[]string{"--smtp-from", "a@example.com"}, "--smtp-addr"},
		{[]string{"--smtp-addr", "mail.example.com", "--smtp-from", "a@example.com"}, "HOST:PORT"},
		{[]string{"--smtp-addr", "mail.example.com:25", "--smtp-from", "a@example.com", "--smtp-security", "none"}, "in the clear"},
		{[]string{"--smtp-addr", "mail.example.com:25", "--smtp-from", "nobody"}, "not an e-mail address"},
		{[]string{"--smtp-addr", "mail.example.com:25", "--smtp-from", "a@example.com", "--smtp-user", "u"}, "go together"},
		{[]string{"--identity-providers", "/nonexistent/providers"}, "/nonexistent/providers"},
		{[]string{"--user-quota", "3"}, "user-quota"},
	} {
		dir := filepath.Join(t.TempDir(), "data")
		args := append([]string{"dev", "--data-dir", dir, "--api-addr", freePort(t), "--public-addr", freePort(t)}, tc.args...)
		out, err := exec.CommandContext(t.Context(), bin, args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), tc.want) {
			t.Errorf("%v: %v\n%s\nwant it to name %s", tc.args, err, tail(string(out), 500), tc.want)
		}
	}
	limits := filepath.Join(t.TempDir(), "limits.json")
	if err := os.WriteFile(limits, []byte(`{"users": 1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := start(t, dir, "--no-demo", "--second-factor", "required", "--limits", limits)
	pool := []string{"appstream", "create-user", "--authentication-type", "USERPOOL", "--user-name"}
	s.aws(nil, append(pool, "ada@example.com")...)
	s.awsFails("LimitExceededException", append(pool, "bob@example.com")...)
	// Without a mail server the mail is a file for the operator alone.
	var files []string
	until(t, "the mail's file", func() bool {
		files, err = filepath.Glob(filepath.Join(dir, "mail", "*.eml"))
		return err == nil && len(files) == 1
	})
	if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the mail's file: %v, %v", info, err)
	}
	m, err := mail.ReadMessage(bytes.NewReader(mustRead(t, files[0])))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		t.Fatal(err)
	}
	v := s.visitor()
	v.want("signin", map[string]string{"userName": "ada@example.com", "password": letter{m, strings.ReplaceAll(string(text), "\r\n", "\n")}.secret(t)}, 200, "new-password")
	v.want("signin/new-password", map[string]string{"password": "a quiet harbour at dusk"}, 200, "enrol") // the factor is required
	v.want("me", nil, 401, "not-signed-in")
	v.want("signin/enrol/confirm", map[string]string{"code": "000000"}, 403, "wrong-step")
}
