package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// tlsRegion is a penstock dev that speaks TLS alone, and what a client needs to trust it.
type tlsRegion struct {
	*server
	caBundle, dnsAddr string
	roots             *x509.CertPool
}

func startTLS(t *testing.T) *tlsRegion {
	t.Helper()
	needE2E(t)
	dir := t.TempDir()
	t.Setenv("AWS_CA_BUNDLE", filepath.Join(dir, "ca", "root.pem"))
	r := &tlsRegion{server: start(t, dir, "--tls", "on"), roots: x509.NewCertPool()}
	b, err := os.ReadFile(filepath.Join(dir, "dev.json"))
	if err != nil {
		t.Fatal(err)
	}
	var info struct{ CABundle, DNSAddr string }
	if err := json.Unmarshal(b, &info); err != nil {
		t.Fatal(err)
	}
	r.caBundle, r.dnsAddr = info.CABundle, info.DNSAddr
	root, err := os.ReadFile(r.caBundle)
	if err != nil || !r.roots.AppendCertsFromPEM(root) {
		t.Fatalf("root certificate %s: %v", r.caBundle, err)
	}
	return r
}

// client is a browser that trusts the root and nothing else, and asks the region's own name server.
func (r *tlsRegion) client() *http.Client {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, r.dnsAddr)
	}}
	jar, _ := cookiejar.New(nil)
	return &http.Client{Jar: jar, Timeout: patience, Transport: &http.Transport{
		DialContext: (&net.Dialer{Timeout: 10 * time.Second, Resolver: resolver}).DialContext, TLSClientConfig: &tls.Config{RootCAs: r.roots},
	}}
}

// TestMissionOverTLS: API, portal and endpoint with the private authority's certificates, by address and by name.
func TestMissionOverTLS(t *testing.T) {
	r := startTLS(t)
	for _, u := range []string{r.info.APIURL, r.info.PublicURL, r.info.StreamingURL, r.info.ConsoleURL} {
		if !strings.HasPrefix(u, "https://") {
			t.Errorf("dev.json has %q, want https", u)
		}
	}
	var id struct{ Account string }
	r.aws(&id, "sts", "get-caller-identity")
	if id.Account != r.info.AccountID {
		t.Errorf("account with AWS_CA_BUNDLE: got %q, want %q", id.Account, r.info.AccountID)
	}
	t.Setenv("AWS_CA_BUNDLE", "/etc/ssl/certs/ca-certificates.crt")
	r.aws(&id, "--ca-bundle", r.caBundle, "sts", "get-caller-identity")
	if out, err := r.tryAWS("sts", "get-caller-identity"); err == nil || !strings.Contains(err.Error(), "CERTIFICATE_VERIFY_FAILED") {
		t.Errorf("without the root: got %s, %v; want a refusal", out, err)
	}
	t.Setenv("AWS_CA_BUNDLE", r.caBundle)

	name := r.regionalName()
	client := r.client()
	for _, host := range []string{r.info.EndpointAddresses[0].Dial, r.info.EndpointAddresses[1].Dial, name} {
		resp, err := client.Get("https://" + host + "/v1/config.json")
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK || !strings.Contains(string(b), r.info.VPCEndpointID) || resp.TLS.Version != tls.VersionTLS13 {
			t.Errorf("%s: got %s %s over TLS %x", host, resp.Status, b, resp.TLS.Version)
		}
		if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "wss://"+host+":*") {
			t.Errorf("%s: content security policy %q lacks wss", host, csp)
		}
	}
	r.channels(name)
	r.strangers(name)
}

func (r *tlsRegion) regionalName() string {
	r.t.Helper()
	var out struct {
		VpcEndpoints []struct{ DnsEntries []struct{ DnsName string } } //nolint:revive // as the API spells it
	}
	r.aws(&out, "ec2", "describe-vpc-endpoints", "--vpc-endpoint-ids", r.info.VPCEndpointID)
	return out.VpcEndpoints[0].DnsEntries[0].DnsName
}

// channels opens two sessions over wss, by address and by name, and ends one from the API.
func (r *tlsRegion) channels(name string) {
	t := r.t
	p := &portal{s: r.server, client: r.client()}
	resp, err := p.client.Get(r.info.StreamingURL)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	first := resp
	for first.Request.Response != nil {
		first = first.Request.Response
	}
	if c := first.Cookies(); len(c) != 1 || !c[0].Secure || !c[0].HttpOnly {
		t.Errorf("cookies: got %v, want one that is Secure and HttpOnly", c)
	}
	l := p.mustLaunch("xterm")
	u := mustURL(t, l.ViewerURL)
	if u.Scheme != "https" {
		t.Fatalf("viewer URL: got %s, want https", u.Scheme)
	}
	v := r.dial(u.Host, ticketOf(u))
	v.mustLive(t)
	_ = v.conn.Close(websocket.StatusNormalClosure, "") // both sides say goodbye through TLS, or this waits and fails
	until(t, "the session to be left", func() bool { return !connected(r.sessions(), l.SessionID) })

	l = p.mustLaunch("xterm")
	u = mustURL(t, l.ViewerURL)
	v = r.dial(name, ticketOf(u)) // the endpoint's name instead of its address
	v.mustLive(t)
	r.aws(nil, "appstream", "expire-session", "--session-id", l.SessionID)
	if why := v.mustEnd(t); why == "" {
		t.Error("the session ended without a reason")
	}
	if _, _, err := v.conn.Read(v.ctx); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("after goodbye: got %v, want the end of the connection", err)
	}
}

func connected(list []sessionInfo, id string) bool {
	for _, s := range list {
		if s.ID == id {
			return s.ConnectionState == "CONNECTED"
		}
	}
	return false
}

func (r *tlsRegion) dial(host, ticket string) *viewer {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*patience)
	r.t.Cleanup(cancel)
	client := r.client()
	client.Timeout = 0 // of the whole connection
	c, _, err := websocket.Dial(ctx, "wss://"+host+"/v1/channel/control", &websocket.DialOptions{
		HTTPClient: client, Subprotocols: []string{"penstock.1", "ticket." + ticket}, HTTPHeader: http.Header{"Origin": {"https://" + host}},
	})
	if err != nil {
		r.t.Fatalf("connect to %s: %v", host, err)
	}
	c.SetReadLimit(64 << 20)
	r.t.Cleanup(func() { _ = c.CloseNow() })
	hello := []byte{0x01, 1, 0, 0, 0, 0, 0, 0x20, 0x03, 0x58, 0x02, 100, 0, 0} // as in tryConnect
	if err := c.Write(ctx, websocket.MessageBinary, hello); err != nil {
		r.t.Fatal(err)
	}
	return &viewer{c, ctx}
}

// strangers are clients that must not get through.
func (r *tlsRegion) strangers(name string) {
	t := r.t
	endpoint := net.JoinHostPort(r.info.EndpointAddresses[0].Dial, "443")
	channels := net.JoinHostPort(r.info.EndpointAddresses[0].Dial, "1400")
	for what, tt := range map[string]struct {
		at     string
		config *tls.Config
		says   string // empty: the handshake succeeds
	}{
		"trusting the root, 443":       {endpoint, &tls.Config{RootCAs: r.roots}, ""},
		"trusting the root, 1400":      {channels, &tls.Config{RootCAs: r.roots}, ""},
		"trusting the root, by name":   {channels, &tls.Config{RootCAs: r.roots, ServerName: name}, ""},
		"not trusting it":              {endpoint, &tls.Config{RootCAs: x509.NewCertPool()}, "unknown authority"},
		"TLS 1.2":                      {endpoint, &tls.Config{RootCAs: r.roots, MaxVersion: tls.VersionTLS12}, "protocol version"},
		"a name of no endpoint":        {endpoint, &tls.Config{RootCAs: r.roots, ServerName: "x" + name}, "wanted to match x" + name},
		"a name outside the authority": {endpoint, &tls.Config{RootCAs: r.roots, ServerName: "bank.example"}, "wanted to match bank.example"},
	} {
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", tt.at, tt.config)
		if err == nil {
			_ = c.Close()
		}
		if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %v, want %q", what, err, tt.says)
		}
	}
	resp, err := http.Get("http://" + endpoint + "/")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("plain HTTP at the endpoint: got %s, want 400", resp.Status)
	}
	req, err := http.NewRequest(http.MethodGet, "https://"+endpoint+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "bank.example"
	if resp, err = r.client().Do(req); err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("another host's name: got %s, want 421", resp.Status)
	}
}

// TestAuthorityOutlivesRestarts: who trusted the root once trusts it after a restart, and penstock trust shows the same.
func TestAuthorityOutlivesRestarts(t *testing.T) {
	r := startTLS(t)
	before, err := os.ReadFile(r.caBundle)
	if err != nil {
		t.Fatal(err)
	}
	r.stop()
	s := start(t, r.dir, "--tls", "on", "--no-demo")
	resp, err := r.client().Get(s.info.PublicURL + "/")
	if err != nil {
		t.Fatalf("after a restart: %v", err)
	}
	_ = resp.Body.Close()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(bin, "trust", "--data-dir", r.dir, "--print").Output()
	if err != nil || string(out) != string(before) {
		t.Errorf("penstock trust --print: got %s, %v; want the root from before the restart", out, err)
	}
}

// TestOwnChain: the operator's files decide for their name, a new chain is served without a restart, and endpoints keep the
// private authority's certificates.
func TestOwnChain(t *testing.T) {
	needE2E(t)
	dir := t.TempDir()
	chain, key := filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem")
	writeChain(t, chain, key, "apps.example.org")
	s := start(t, filepath.Join(dir, "data"), "--no-demo", "--tls-cert", chain, "--tls-key", key)
	addr := strings.TrimPrefix(s.info.PublicURL, "https://")
	shown := func() *x509.Certificate {
		t.Helper()
		c, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", addr, &tls.Config{ServerName: "apps.example.org", InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		return c.ConnectionState().PeerCertificates[0]
	}
	first := shown()
	if err := first.VerifyHostname("apps.example.org"); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(first)
	client := &http.Client{Timeout: patience, Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		},
		TLSClientConfig: &tls.Config{RootCAs: roots},
	}}
	resp, err := client.Get("https://apps.example.org/api/portal/v1/me")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("portal by the chain's name: got %s, want 401 from the portal", resp.Status)
	}
	writeChain(t, chain, key, "apps.example.org")
	until(t, "the new chain to be served", func() bool { return shown().SerialNumber.Cmp(first.SerialNumber) != 0 })
	root, err := os.ReadFile(filepath.Join(dir, "data", "ca", "root.pem"))
	if err != nil {
		t.Fatal(err)
	}
	private := x509.NewCertPool()
	private.AppendCertsFromPEM(root)
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", addr, &tls.Config{RootCAs: private})
	if err != nil {
		t.Fatalf("by address: %v", err)
	}
	_ = c.Close()
}

// writeChain writes a certificate for a name that vouches for itself, and its key.
func writeChain(t *testing.T, chain, key, name string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, &x509.Certificate{SerialNumber: serial}, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{key: {Type: "PRIVATE KEY", Bytes: secret}, chain: {Type: "CERTIFICATE", Bytes: der}} {
		if err := os.WriteFile(path+".new", pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
}
