package mailer

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"penstock.dev/penstock/internal/control/signin"
)

var from = mail.Address{Name: "Penstock", Address: "apps@example.com"}

func testMail() signin.Mail {
	return signin.Mail{
		ID: "m-1", To: "ann@example.com", Subject: "Your access to Pënstock", Created: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC),
		Text: "Hello Ann,\n\n  temporary password  ABCD-EFGH\n.\nfrom ünicode " + strings.Repeat("x", 200) + "\n",
	}
}

// checkMail expects a text to be the test's mail.
func checkMail(t *testing.T, r io.Reader) {
	t.Helper()
	m, err := mail.ReadMessage(r)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(quotedprintable.NewReader(m.Body))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.ReplaceAll(string(body), "\r\n", "\n"), testMail().Text; got != want {
		t.Errorf("text: got %q, want %q", got, want)
	}
	subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
	if err != nil || subject != testMail().Subject {
		t.Errorf("subject: got %q (%v)", subject, err)
	}
	for name, want := range map[string]string{"To": "<ann@example.com>", "From": `"Penstock" <apps@example.com>`, "Auto-Submitted": "auto-generated", "Message-Id": "<m-1@example.com>"} {
		if got := m.Header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "mail")
	if err := (Files{dir, from}).Send(t.Context(), testMail()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "m-1.eml")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode: got %v (%v), want 0600", info, err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	checkMail(t, f)
	bad := testMail()
	bad.To = "ann@example.com\r\nBcc: bob@example.com"
	if err := (Files{dir, from}).Send(t.Context(), bad); !errors.Is(err, signin.ErrRejected) {
		t.Errorf("a header in an address: got %v", err)
	}
}

// server runs Debian's aiosmtpd: arguments are folder, security and user:password. It writes each mail into the folder.
const server = `
import asyncio, os, ssl, sys
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
folder, security, login = sys.argv[1:4]
class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody@"): return "550 no such mailbox"
        if address.startswith("later@"): return "451 come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"
    async def handle_DATA(self, server, session, envelope):
        path = os.path.join(folder, "mail")
        open(path + ".new", "wb").write(envelope.content)
        open(path + ".meta", "w").write("%s %s %s" % (envelope.mail_from, ",".join(envelope.rcpt_tos), session.ssl is not None))
        os.rename(path + ".new", path)
        return "250 OK"
context = None
if security != "none":
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem"))
def authenticate(server, session, envelope, mechanism, data):
    ok = isinstance(data, LoginPassword) and (data.login + b":" + data.password).decode() == login
    return AuthResult(success=ok, handled=ok)
loop = asyncio.new_event_loop()
asyncio.set_event_loop(loop)
def factory():
    return SMTP(Handler(), hostname="test", tls_context=context if security == "starttls" else None, require_starttls=security == "starttls",
        authenticator=authenticate if login else None, auth_required=bool(login), auth_require_tls=security == "starttls", loop=loop)
s = loop.run_until_complete(loop.create_server(factory, "127.0.0.1", 0, ssl=context if security == "tls" else None))
print(s.sockets[0].getsockname()[1], flush=True)
loop.run_forever()
`

func startServer(t *testing.T, security, login string) (dir, addr string) {
	t.Helper()
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import aiosmtpd").Run(); err != nil {
		t.Skip("Debian's python3-aiosmtpd is missing: run scripts/setup.sh test")
	}
	dir = t.TempDir()
	writeCert(t, dir)
	cmd := exec.Command(python, "-c", server, dir, security, login)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	port, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the mail server did not start: %v", err)
	}
	return dir, "127.0.0.1:" + strings.TrimSpace(port)
}

func writeCert(t *testing.T, dir string) {
	t.Helper()
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
	for name, b := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSMTP(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, security, login string }{
		{"plain on this machine", Plain, ""}, {"STARTTLS with a password", StartTLS, "apps:a secret"}, {"TLS with a password", Implicit, "apps:a secret"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			dir, addr := startServer(t, tc.security, tc.login)
			s := &SMTP{Addr: addr, Security: tc.security, From: from}
			if tc.security != Plain {
				s.CAFile = filepath.Join(dir, "cert.pem")
			}
			if tc.login != "" {
				s.User, s.PasswordFile = "apps", filepath.Join(dir, "password")
				if err := os.WriteFile(s.PasswordFile, []byte("wrong\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Check(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if tc.login != "" {
				if err := s.Send(ctx, testMail()); err == nil || errors.Is(err, signin.ErrRejected) {
					t.Errorf("a wrong password: got %v, want an error that is tried again", err)
				}
				if err := os.WriteFile(s.PasswordFile, []byte("a secret\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Send(ctx, testMail()); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(filepath.Join(dir, "mail"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			checkMail(t, f)
			meta, err := os.ReadFile(filepath.Join(dir, "mail.meta"))
			if want := "apps@example.com ann@example.com " + map[bool]string{true: "True", false: "False"}[tc.security == StartTLS]; err != nil || string(meta) != want {
				t.Errorf("envelope: got %q (%v), want %q", meta, err, want)
			}
			nobody, later := testMail(), testMail()
			nobody.To, later.To = "nobody@example.com", "later@example.com"
			if err := s.Send(ctx, nobody); !errors.Is(err, signin.ErrRejected) {
				t.Errorf("an unknown mailbox: got %v, want that it is rejected for good", err)
			}
			if err := s.Send(ctx, later); err == nil || errors.Is(err, signin.ErrRejected) {
				t.Errorf("a mailbox that is busy: got %v, want an error that is tried again", err)
			}
			if tc.security == Plain {
				return
			}
			s.CAFile = ""
			if err := s.Send(ctx, testMail()); err == nil {
				t.Error("a server of an unknown authority got the mail")
			}
		})
	}
}

func TestSMTPWithoutTLSOfferedIsRefused(t *testing.T) {
	t.Parallel()
	_, addr := startServer(t, Plain, "")
	s := &SMTP{Addr: addr, Security: StartTLS, From: from}
	if err := s.Send(t.Context(), testMail()); err == nil || !strings.Contains(err.Error(), "STARTTLS") {
		t.Errorf("got %v, want that mail is not sent in the clear", err)
	}
}

func TestSilentServerIsLeft(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		c, err := l.Accept()
		if err == nil {
			defer func() { _ = c.Close() }()
			cancel() // while the greeting is awaited
			_, _ = io.Copy(io.Discard, c)
		}
	}()
	s := &SMTP{Addr: l.Addr().String(), Security: Plain, From: from}
	if err := s.Send(ctx, testMail()); err == nil {
		t.Error("a server that says nothing took a mail")
	}
}

func TestSMTPCheck(t *testing.T) {
	t.Parallel()
	good := SMTP{Addr: "mail.example.com:587", Security: StartTLS, From: from}
	for name, tc := range map[string]struct {
		change func(*SMTP)
		want   string
	}{
		"no port":                 {func(s *SMTP) { s.Addr = "mail.example.com" }, "HOST:PORT"},
		"in the clear":            {func(s *SMTP) { s.Security = Plain }, "in the clear"},
		"security":                {func(s *SMTP) { s.Security = "ssl" }, "security"},
		"sender":                  {func(s *SMTP) { s.From.Address = "apps" }, "sender"},
		"user without a password": {func(s *SMTP) { s.User = "apps" }, "go together"},
	} {
		s := good
		tc.change(&s)
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, tc.want)
		}
	}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
}
