package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"penstock.dev/penstock/internal/nameserver"
)

// pebbleBinary is Let's Encrypt's ACME server for tests, as pinned in tools/go.mod.
var pebbleBinary = sync.OnceValues(func() (string, error) {
	path, err := filepath.Abs("../../.cache/tools/pebble")
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-C", "../../tools", "-buildvcs=false", "-o", path, "github.com/letsencrypt/pebble/v2/cmd/pebble").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build pebble: %w\n%s", err, out)
	}
	return path, nil
})

// site is what surrounds a server that asks for certificates: an ACME server, which is reached through a proxy where requests can be
// spoiled, and the name server that the ACME server asks, which delegates challenges to the one of penstock.
type site struct {
	t         *testing.T
	directory string // URL, at the proxy
	caFile    string // root of the proxy's certificate
	eabFile   string
	httpAddr  string // where challenges are answered
	dnsAddr   string // of penstock's name server
	roots     *x509.CertPool

	address atomic.Value            // string: where names of the site lead
	spoil   atomic.Pointer[spoiler] // of requests to the ACME server
	seen    sync.Map                // path → *atomic.Int64: requests that got to it and were answered with 201
}

// spoiler handles a request instead of the ACME server, and says so.
type spoiler func(w http.ResponseWriter, r *http.Request, forward func()) bool

const (
	acmeName  = "portal.example.test"
	acmeAlias = "challenges.example.net"
	eabKey    = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
)

// newSite starts it all. validity is how long certificates are good.
func newSite(t *testing.T, validity time.Duration, cname bool) *site {
	t.Helper()
	needE2E(t)
	bin, err := pebbleBinary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := &site{t: t, httpAddr: freePort(t), dnsAddr: freePort(t), eabFile: filepath.Join(dir, "eab"), caFile: filepath.Join(dir, "root.pem")}
	s.address.Store("127.0.0.1")
	if err := os.WriteFile(s.eabFile, []byte(eabKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cert, key := selfSigned(t, dir)
	listen, manage := freePort(t), freePort(t)
	_, httpPort, _ := net.SplitHostPort(s.httpAddr)
	config := fmt.Sprintf(`{"pebble": {"listenAddress": %q, "managementListenAddress": %q, "certificate": %q, "privateKey": %q,
		"httpPort": %s, "tlsPort": 1, "externalAccountBindingRequired": true, "externalAccountMACKeys": {"kid-1": %q},
		"retryAfter": {"authz": 1, "order": 1}, "keyAlgorithm": "ecdsa",
		"profiles": {"default": {"description": "short", "validityPeriod": %d}}}}`,
		listen, manage, cert, key, httpPort, eabKey, int(validity.Seconds()))
	file := filepath.Join(dir, "pebble.json")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "-config", file, "-dnsserver", s.names(cname))
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=25", "PEBBLE_AUTHZREUSE=0")
	said := &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of pebble:\n%s", tail(said.String(), 4000))
		}
	})
	pool := x509.NewCertPool()
	b, err := os.ReadFile(cert)
	if err != nil || !pool.AppendCertsFromPEM(b) {
		t.Fatal(err)
	}
	trusting := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	s.roots = x509.NewCertPool()
	until(t, "pebble to serve", func() bool {
		resp, err := (&http.Client{Transport: trusting, Timeout: 5 * time.Second}).Get("https://" + manage + "/roots/0")
		if err != nil {
			return false
		}
		defer func() { _ = resp.Body.Close() }()
		root, err := io.ReadAll(resp.Body)
		return err == nil && s.roots.AppendCertsFromPEM(root)
	})
	s.proxy(&url.URL{Scheme: "https", Host: listen}, trusting)
	return s
}

// proxy passes requests on to the ACME server, by the address that they came to, so that its URLs lead to the proxy.
func (s *site) proxy(to *url.URL, by http.RoundTripper) {
	pass := &httputil.ReverseProxy{Transport: by, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.Out.Host = r.In.Host
	}, ModifyResponse: func(r *http.Response) error {
		if r.StatusCode == http.StatusCreated {
			n, _ := s.seen.LoadOrStore(r.Request.URL.Path, &atomic.Int64{})
			n.(*atomic.Int64).Add(1) //nolint:forcetypeassert // stored above
		}
		return nil
	}}
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := s.spoil.Load(); f != nil && (*f)(w, r, func() { pass.ServeHTTP(httptest.NewRecorder(), r) }) {
			return
		}
		pass.ServeHTTP(w, r)
	}))
	s.t.Cleanup(srv.Close)
	s.directory = srv.URL + "/dir"
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	if err := os.WriteFile(s.caFile, root, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// made counts what the ACME server made: "/sign-me-up" accounts, "/order-plz" orders.
func (s *site) made(path string) int64 {
	n, ok := s.seen.Load(path)
	if !ok {
		return 0
	}
	return n.(*atomic.Int64).Load() //nolint:forcetypeassert // stored as such
}

const newAccount, newOrder = "/sign-me-up", "/order-plz"

// names is the site's name server: its hosts are at address; _acme-challenge is delegated, or leads elsewhere by a CNAME that is.
func (s *site) names(cname bool) string {
	sockets, err := nameserver.Listen(s.t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		s.t.Fatal(err)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) {
		r := new(dns.Msg).SetReply(m)
		q := m.Question[0]
		switch {
		case q.Qtype == dns.TypeTXT && strings.HasPrefix(q.Name, "_acme-challenge."):
			ask := q.Name
			if cname {
				ask = acmeAlias + "."
				r.Answer = append(r.Answer, &dns.CNAME{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET}, Target: ask})
			}
			a, err := dns.Exchange(new(dns.Msg).SetQuestion(ask, dns.TypeTXT), s.dnsAddr)
			if err != nil || !a.Authoritative {
				r.Rcode = dns.RcodeServerFailure
				break
			}
			r.Rcode = a.Rcode
			r.Answer = append(r.Answer, a.Answer...)
		case q.Qtype == dns.TypeA:
			r.Answer = append(r.Answer, &dns.A{
				Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.ParseIP(s.address.Load().(string)), //nolint:forcetypeassert // stored as such
			})
		}
		_ = w.WriteMsg(r) // the asker asks again
	})
	for _, srv := range []*dns.Server{{PacketConn: sockets.UDP, Handler: handler}, {Listener: sockets.TCP, Handler: handler}} {
		go func() { _ = srv.ActivateAndServe() }()
		s.t.Cleanup(func() { _ = srv.Shutdown() })
	}
	return sockets.Addr()
}

func selfSigned(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "pebble"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "pebble.pem"), filepath.Join(dir, "pebble.key")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// flags are those of a server that gets its certificates here.
func (s *site) flags(challenge string, more ...string) []string {
	return append([]string{
		"--no-demo", "--acme-directory", s.directory, "--acme-ca", s.caFile, "--acme-eab-kid", "kid-1", "--acme-eab-key", s.eabFile,
		"--acme-email", "ops@example.test", "--acme-challenge", challenge, "--acme-name", acmeName, "--acme-http-addr", s.httpAddr,
		"--dns-addr", s.dnsAddr,
	}, more...)
}

// handshake is the certificate that a client gets who trusts the authority alone and asks for a name; nil when it does not verify.
func (s *site) handshake(p *server, name string) *x509.Certificate {
	s.t.Helper()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", strings.TrimPrefix(p.info.PublicURL, "https://"),
		&tls.Config{RootCAs: s.roots, ServerName: name})
	if err != nil {
		return nil
	}
	defer func() { _ = c.Close() }()
	return c.ConnectionState().PeerCertificates[0]
}

// issued waits for a certificate that differs from another, and returns it.
func (s *site) issued(p *server, than *x509.Certificate) *x509.Certificate {
	s.t.Helper()
	var cert *x509.Certificate
	until(s.t, "a certificate", func() bool {
		cert = s.handshake(p, acmeName)
		return cert != nil && (than == nil || cert.SerialNumber.Cmp(than.SerialNumber) != 0)
	})
	return cert
}

// acmeFiles are the files of the account, in DIR/acme.
func acmeFiles(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	paths, err := filepath.Glob(filepath.Join(dir, "acme", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v; want 0600", p, info, err)
		}
		if out[filepath.Base(p)], err = os.ReadFile(p); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// TestACMEByDNS: names, one of them with a star, are certified by records of penstock's own name server; the certificate is renewed under
// running connections, survives a server that is away and a restart, and the account stays the same. A quarter of all nonces is refused.
func TestACMEByDNS(t *testing.T) {
	t.Parallel()
	for name, cname := range map[string]bool{"delegated": false, "by CNAME": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 36*time.Second, cname)
			flags := s.flags("dns-01", "--acme-name", "*.apps.example.test")
			if cname {
				flags = append(flags, "--acme-dns-zone", acmeAlias)
			}
			dir := t.TempDir()
			p := start(t, dir, flags...)
			first := s.issued(p, nil)
			if star := s.handshake(p, "any.apps.example.test"); star == nil || star.SerialNumber.Cmp(first.SerialNumber) != 0 {
				t.Errorf("a name under the star: got %v", star)
			}
			client := &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.roots, ServerName: acmeName}}}
			portal := func() (reused bool) {
				t.Helper()
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.info.PublicURL, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Host = acmeName
				resp, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if err != nil || resp.StatusCode != http.StatusOK || !bytes.Contains(b, []byte("<html")) {
					t.Fatalf("portal by its name: %s, %v", resp.Status, err)
				}
				return resp.TLS.PeerCertificates[0].SerialNumber.Cmp(first.SerialNumber) == 0
			}
			portal()
			files := acmeFiles(t, dir)
			second := s.issued(p, first)
			if !portal() {
				t.Error("the connection from before the renewal was closed by it")
			}
			if s.made(newAccount) != 1 {
				t.Errorf("accounts: %d, want 1", s.made(newAccount))
			}

			// The server is away: what is there stays, also over a restart.
			away := spoiler(func(w http.ResponseWriter, _ *http.Request, _ func()) bool {
				c, _, err := http.NewResponseController(w).Hijack()
				if err == nil {
					_ = c.Close()
				}
				return true
			})
			s.spoil.Store(&away)
			until(t, "a renewal to fail", func() bool {
				return strings.Contains(p.stderr.String(), "certificate was not issued; what was there stays")
			})
			p.stop()
			p = start(t, dir, flags...)
			raw, err := tls.Dial("tcp", strings.TrimPrefix(p.info.PublicURL, "https://"), &tls.Config{InsecureSkipVerify: true, ServerName: acmeName}) //nolint:gosec // it may have ended
			if err != nil {
				t.Fatal(err)
			}
			kept := raw.ConnectionState().PeerCertificates[0]
			_ = raw.Close()
			if kept.VerifyHostname(acmeName) != nil || kept.SerialNumber.Cmp(first.SerialNumber) == 0 {
				t.Errorf("after a restart without the ACME server: certificate %v of %v", kept.SerialNumber, kept.DNSNames)
			}
			s.spoil.Store(nil)
			until(t, "a certificate after the server came back", func() bool {
				c := s.handshake(p, acmeName)
				return c != nil && c.SerialNumber.Cmp(kept.SerialNumber) != 0 && c.SerialNumber.Cmp(second.SerialNumber) != 0
			})
			if now := acmeFiles(t, dir); !bytes.Equal(now["account.key"], files["account.key"]) || s.made(newAccount) != 1 {
				t.Errorf("the account did not stay: %d were made", s.made(newAccount))
			}
		})
	}
}

// TestACMEByHTTP: a rate limit that asks to come back soon, a challenge that goes to the wrong machine, and then a certificate.
func TestACMEByHTTP(t *testing.T) {
	t.Parallel()
	s := newSite(t, time.Hour, false)
	limited := atomic.Int64{}
	limit := spoiler(func(w http.ResponseWriter, r *http.Request, _ func()) bool {
		if r.URL.Path != newOrder || limited.Add(1) > 2 {
			return false
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
		_ = json.NewEncoder(w).Encode(map[string]string{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "slow down"})
		return true
	})
	s.spoil.Store(&limit)
	s.address.Store("127.0.0.99") // nobody answers challenges there
	p := start(t, t.TempDir(), s.flags("http-01")...)
	until(t, "the challenge to fail", func() bool {
		return strings.Contains(p.stderr.String(), acmeName+" was not authorized by http-01")
	})
	if n := limited.Load(); n < 3 {
		t.Errorf("orders asked for: %d, want more than the 2 that were refused", n)
	}
	if c := s.handshake(p, acmeName); c != nil {
		t.Errorf("a certificate %v without a challenge that was met", c.DNSNames)
	}
	s.address.Store("127.0.0.1")
	cert := s.issued(p, nil)
	if s.made(newOrder) != 2 || len(cert.DNSNames) != 1 {
		t.Errorf("orders: %d for %v; want a second after the one that failed", s.made(newOrder), cert.DNSNames)
	}
	for _, path := range []string{"/", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/x", "/.well-known/acme-challenge/../../etc/passwd"} {
		resp, err := http.Get("http://" + s.httpAddr + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s at the listener for challenges: %s", path, resp.Status)
		}
	}
}

// TestACMEKilled: kill -9 while the certificate is asked for. The next start goes on with the same order, whether the server had got
// the request or not.
func TestACMEKilled(t *testing.T) {
	t.Parallel()
	for name, reaches := range map[string]bool{"before the server has the request": false, "after the server has the request": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, time.Hour, false)
			asked := make(chan struct{})
			var once sync.Once
			hold := spoiler(func(_ http.ResponseWriter, r *http.Request, forward func()) bool {
				if !strings.HasPrefix(r.URL.Path, "/finalize-order/") {
					return false
				}
				if reaches {
					forward()
				}
				_, _ = io.Copy(io.Discard, r.Body) // only then is the end of the connection seen
				once.Do(func() { close(asked) })
				<-r.Context().Done()
				return true
			})
			s.spoil.Store(&hold)
			dir := t.TempDir()
			p := start(t, dir, s.flags("dns-01")...)
			select {
			case <-asked:
			case <-time.After(patience):
				t.Fatal("no certificate was asked for")
			}
			p.kill()
			if _, ok := acmeFiles(t, dir)["order.json"]; !ok {
				t.Fatal("no order was kept: the test does not test")
			}
			s.spoil.Store(nil)
			p = start(t, dir, s.flags("dns-01")...)
			s.issued(p, nil)
			files := acmeFiles(t, dir)
			if s.made(newOrder) != 1 || s.made(newAccount) != 1 {
				t.Errorf("orders: %d, accounts: %d; want the first of each to be gone on with", s.made(newOrder), s.made(newAccount))
			}
			if _, ok := files["order.json"]; ok {
				t.Error("the order was kept after its certificate was issued")
			}
		})
	}
}
