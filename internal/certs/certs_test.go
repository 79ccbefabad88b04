package certs

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const endpointName = "vpce-1.streaming.example.net"

func constraints() Constraints {
	return Constraints{
		Names:  []string{"streaming.example.net", "localhost"},
		Ranges: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fc00::/7")},
	}
}

func authority(t *testing.T) *Authority {
	t.Helper()
	a, err := OpenAuthority(filepath.Join(t.TempDir(), "ca"), constraints())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAuthorityIsMadeOnce(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data", "ca")
	made := make([]*Authority, 8)
	var wg sync.WaitGroup
	for i := range made {
		wg.Go(func() {
			a, err := OpenAuthority(dir, constraints())
			if err != nil {
				t.Error(err)
				return
			}
			made[i] = a
		})
	}
	wg.Wait()
	for _, a := range made[1:] {
		if t.Failed() || a.Fingerprint() != made[0].Fingerprint() {
			t.Fatal("two callers have two authorities")
		}
	}
	if diff := cmp.Diff(constraints(), made[0].Permitted(), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("constraints (-want +got):\n%s", diff)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, rootFile): 0o600, filepath.Join(dir, keyFile): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: got %v, %v, want mode %o", path, info, err, want)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(dir), ".ca-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAuthorityThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	other := authority(t)
	tests := map[string]struct {
		spoil func(t *testing.T, dir string)
		want  Constraints
		says  string
	}{
		"more names":     {want: Constraints{Names: []string{"example.net"}}, says: "may not vouch for example.net"},
		"more addresses": {want: Constraints{Ranges: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/7")}}, says: "may not vouch for addresses of 10.0.0.0/7"},
		"no key":         {spoil: func(t *testing.T, dir string) { remove(t, filepath.Join(dir, keyFile)) }, says: "root.key is missing"},
		"no certificate": {spoil: func(t *testing.T, dir string) { remove(t, filepath.Join(dir, rootFile)) }, says: "root.pem is missing"},
		"rubbish": {spoil: func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, rootFile), []byte("rubbish"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, says: "holds no PEM block"},
		"another's certificate": {spoil: func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, rootFile), other.PEM(), 0o600); err != nil {
				t.Fatal(err)
			}
		}, says: "is not the key of"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "ca")
			if _, err := OpenAuthority(dir, constraints()); err != nil {
				t.Fatal(err)
			}
			if tt.spoil != nil {
				tt.spoil(t, dir)
			}
			if _, err := OpenAuthority(dir, tt.want); err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want an error that says %q", err, tt.says)
			}
		})
	}
	if _, err := OpenAuthority(filepath.Join(t.TempDir(), "ca"), Constraints{Names: []string{"x"}}); err == nil {
		t.Error("an authority without constraints on addresses was made")
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func TestIssueRefusesWhatIsNotPermitted(t *testing.T) {
	t.Parallel()
	a := authority(t)
	addr := netip.MustParseAddr
	tests := map[string]struct {
		names []string
		addrs []netip.Addr
		ok    bool
	}{
		"name":                    {names: []string{endpointName}, ok: true},
		"apex, capitals, dot":     {names: []string{"Streaming.Example.NET."}, ok: true},
		"address":                 {addrs: []netip.Addr{addr("127.80.1.10")}, ok: true},
		"mapped address":          {addrs: []netip.Addr{addr("::ffff:10.1.2.3")}, ok: true},
		"IPv6":                    {addrs: []netip.Addr{addr("fd00::1")}, ok: true},
		"another name":            {names: []string{"bank.example"}},
		"name that ends the same": {names: []string{"evilstreaming.example.net"}},
		"parent":                  {names: []string{"example.net"}},
		"one of two":              {names: []string{endpointName, "bank.example"}},
		"public address":          {addrs: []netip.Addr{addr("192.0.2.1")}},
		"no address":              {addrs: []netip.Addr{{}}},
		"nothing":                 {},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := a.Issue(tt.names, tt.addrs, time.Now()); (err == nil) != tt.ok {
				t.Errorf("got %v, want success %v", err, tt.ok)
			}
		})
	}
}

// rogue signs whatever it is told to with the authority's key: what a thief of the key could do.
func rogue(t *testing.T, a *Authority, names []string, addrs []net.IP) (leaf *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		DNSNames: names, IPAddresses: addrs, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.root, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if leaf, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return leaf
}

// TestVerifiers asks Go, OpenSSL and NSS about certificates that the root's constraints admit and forbid.
func TestVerifiers(t *testing.T) {
	t.Parallel()
	a := authority(t)
	good, err := a.Issue([]string{endpointName}, []netip.Addr{netip.MustParseAddr("127.80.1.10")}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		cert *x509.Certificate
		host string // a name or an address of the certificate
		ok   bool
	}{
		"name":                           {good.Leaf, endpointName, true},
		"address":                        {good.Leaf, "127.80.1.10", true},
		"forbidden name":                 {rogue(t, a, []string{"bank.example"}, nil), "bank.example", false},
		"forbidden address":              {rogue(t, a, nil, []net.IP{{192, 0, 2, 1}}), "192.0.2.1", false},
		"permitted name, forbidden name": {rogue(t, a, []string{endpointName, "bank.example"}, nil), endpointName, false},
		"permitted name, forbidden IP":   {rogue(t, a, []string{endpointName}, []net.IP{{192, 0, 2, 1}}), endpointName, false},
	}
	verifiers := map[string]func(*testing.T, *Authority, *x509.Certificate, string) bool{"go": goAccepts, "openssl": opensslAccepts, "nss": nssAccepts}
	for verifier, accepts := range verifiers {
		for name, tt := range tests {
			t.Run(verifier+"/"+name, func(t *testing.T) {
				t.Parallel()
				if got := accepts(t, a, tt.cert, tt.host); got != tt.ok {
					t.Errorf("accepted: got %v, want %v", got, tt.ok)
				}
			})
		}
	}
}

func goAccepts(t *testing.T, a *Authority, cert *x509.Certificate, host string) bool {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.PEM())
	_, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: host})
	t.Log(err)
	return err == nil
}

func opensslAccepts(t *testing.T, a *Authority, cert *x509.Certificate, host string) bool {
	t.Helper()
	kind := "-verify_hostname"
	if _, err := netip.ParseAddr(host); err == nil {
		kind = "-verify_ip"
	}
	_, err := tool(t, "openssl", "verify", "-CAfile", a.Path(), "-purpose", "sslserver", "-x509_strict", kind, host, writeCert(t, cert))
	return err == nil
}

func nssAccepts(t *testing.T, a *Authority, cert *x509.Certificate, _ string) bool {
	t.Helper()
	db := "sql:" + t.TempDir()
	for _, args := range [][]string{
		{"-N", "--empty-password"},
		{"-A", "-n", "root", "-t", "C,,", "-i", a.Path()},
		{"-A", "-n", "leaf", "-t", ",,", "-i", writeCert(t, cert)},
	} {
		if out, err := tool(t, "certutil", append([]string{"-d", db}, args...)...); err != nil {
			t.Fatalf("certutil %s: %v\n%s", args, err, out)
		}
	}
	_, err := tool(t, "certutil", "-d", db, "-V", "-u", "V", "-n", "leaf") // V: a server's certificate
	return err == nil
}

// tool runs a program that not every machine has.
func tool(t *testing.T, name string, args ...string) ([]byte, error) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("needs %s (scripts/setup.sh test installs it)", name)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	t.Logf("%s: %v: %s", name, err, out)
	return out, err
}

func writeCert(t *testing.T, cert *x509.Certificate) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "leaf.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// at is a connection with a local address.
type at struct {
	net.Conn
	local string
}

func (a at) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(a.local)) }

// sockets are two ends of a connection of the kernel's.
func sockets(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, server
}

// pipe is for virtual time. Its ends wait for each other, also when both have to tell of a mistake.
func pipe(*testing.T) (client, server net.Conn) { return net.Pipe() }

// handshake lets a client connect and returns what it saw.
func handshake(t *testing.T, via func(*testing.T) (net.Conn, net.Conn), server, client *tls.Config, local string) (tls.ConnectionState, error) {
	t.Helper()
	c, s := via(t)
	var wg sync.WaitGroup
	var serverErr error
	wg.Go(func() {
		conn := tls.Server(at{s, local}, server)
		_, serverErr = conn.Write([]byte("x")) // also sends the session ticket
		_ = conn.Close()
	})
	conn := tls.Client(c, client)
	_, err := io.ReadAll(conn)
	_ = c.Close()
	wg.Wait()
	if err == nil {
		err = serverErr
	}
	return conn.ConnectionState(), err
}

func source(t *testing.T, o Options) *Source {
	t.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	if o.Known == nil {
		o.Known = func(name string, _ netip.Addr) bool { return name == endpointName }
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func trusting(a *Authority, name string) *tls.Config {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.PEM())
	return &tls.Config{RootCAs: pool, ServerName: name, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
}

func TestHandshakes(t *testing.T) {
	t.Parallel()
	a := authority(t)
	strict := source(t, Options{Authority: a}).Config()
	tests := map[string]struct {
		server       *tls.Config
		name, local  string
		most         uint16
		wrongName    bool
		wrongVersion bool
	}{
		"name":               {name: endpointName, local: "127.80.1.10:443"},
		"name in capitals":   {name: strings.ToUpper(endpointName), local: "127.80.1.10:443"},
		"address":            {name: "127.80.1.10", local: "127.80.1.10:443"},
		"IPv6 address":       {name: "fd00::1", local: "[fd00::1]:443"},
		"another address":    {name: "127.80.1.10", local: "127.80.2.10:443", wrongName: true},
		"name not served":    {name: "vpce-2.streaming.example.net", local: "127.80.1.10:443", wrongName: true},
		"name not permitted": {name: "bank.example", local: "127.80.1.10:443", wrongName: true},
		"only TLS 1.2":       {name: endpointName, local: "127.80.1.10:443", most: tls.VersionTLS12, wrongVersion: true},
		"TLS 1.2 allowed": {
			server: source(t, Options{Authority: a, MinVersion: tls.VersionTLS12}).Config(),
			name:   endpointName, local: "127.80.1.10:443", most: tls.VersionTLS12,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, client := tt.server, trusting(a, tt.name)
			if server == nil {
				server = strict
			}
			client.MaxVersion = tt.most
			_, err := handshake(t, sockets, server, client, tt.local)
			_, hostname := errors.AsType[x509.HostnameError](err)
			switch {
			case tt.wrongName && !hostname:
				t.Errorf("got %v, want a wrong name", err)
			case tt.wrongVersion && (err == nil || !strings.Contains(err.Error(), "protocol version")):
				t.Errorf("got %v, want a wrong version", err)
			case !tt.wrongName && !tt.wrongVersion && err != nil:
				t.Errorf("handshake: %v", err)
			}
		})
	}
}

func TestTicketsResume(t *testing.T) {
	t.Parallel()
	a := authority(t)
	server, client := source(t, Options{Authority: a}).Config(), trusting(a, endpointName)
	for i, want := range []bool{false, true} {
		state, err := handshake(t, sockets, server, client, "127.80.1.10:443")
		if err != nil || state.DidResume != want {
			t.Errorf("handshake %d: resumed %v, %v; want %v", i, state.DidResume, err, want)
		}
	}
}

// TestRenewal lets two months pass: no client ever sees a certificate that has ended, and few are issued.
func TestRenewal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := authority(t)
		server := source(t, Options{Authority: a}).Config()
		serials := map[string]bool{}
		for range 60 * 4 {
			client := trusting(a, endpointName)
			client.ClientSessionCache = nil
			state, err := handshake(t, pipe, server, client, "127.80.1.10:443")
			if err != nil {
				t.Fatalf("at %s: %v", time.Now(), err)
			}
			leaf := state.PeerCertificates[0]
			if left := time.Until(leaf.NotAfter); left < leafLife/3-6*time.Hour {
				t.Fatalf("at %s: the certificate ends in %s", time.Now(), left)
			}
			serials[leaf.SerialNumber.String()] = true
			time.Sleep(6 * time.Hour)
		}
		if len(serials) != 3 {
			t.Errorf("certificates in 60 days: got %d, want 3", len(serials))
		}
	})
}

// TestAuthorityEnds: no leaf outlives its root, and an ended root is refused with a reason.
func TestAuthorityEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "ca")
		a, err := OpenAuthority(dir, constraints())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(rootLife - 24*time.Hour)
		leaf, err := a.Issue([]string{endpointName}, nil, time.Now())
		if err != nil || !leaf.Leaf.NotAfter.Equal(a.Ends()) {
			t.Errorf("leaf on the root's last day: ends %v, %v; want %v", leaf.Leaf.NotAfter, err, a.Ends())
		}
		time.Sleep(48 * time.Hour)
		if _, err := OpenAuthority(dir, constraints()); err == nil || !strings.Contains(err.Error(), "ended on") {
			t.Errorf("got %v, want that it ended", err)
		}
	})
}

func TestIssuedAreBounded(t *testing.T) {
	t.Parallel()
	a := authority(t)
	s := source(t, Options{Authority: a, Known: func(string, netip.Addr) bool { return true }})
	addr := netip.MustParseAddr("10.0.0.0")
	for range maxIssued + 100 {
		addr = addr.Next()
		if _, err := s.fromAuthority(subject{addr: addr}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if len(s.issued) != maxIssued {
		t.Errorf("kept: got %d, want %d", len(s.issued), maxIssued)
	}
}

// writeChain writes a certificate of a for a name, and its key.
func writeChain(t *testing.T, a *Authority, f ChainFiles, name string) {
	t.Helper()
	cert, err := a.Issue([]string{name}, nil, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, f.Cert, "CERTIFICATE", cert.Leaf.Raw)
	writePEM(t, f.Key, "PRIVATE KEY", key)
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestChainFilesAreReadAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		site, err := OpenAuthority(filepath.Join(t.TempDir(), "site"), Constraints{Names: []string{"apps.example.org"}, Ranges: constraints().Ranges})
		if err != nil {
			t.Fatal(err)
		}
		private := authority(t)
		dir := t.TempDir()
		f := ChainFiles{Cert: filepath.Join(dir, "chain.pem"), Key: filepath.Join(dir, "key.pem")}
		writeChain(t, site, f, "apps.example.org")
		server := source(t, Options{Authority: private, Chains: []ChainFiles{f}}).Config()
		serial := func() string {
			t.Helper()
			client := trusting(site, "apps.example.org")
			client.ClientSessionCache = nil
			state, err := handshake(t, pipe, server, client, "127.80.1.10:443")
			if err != nil {
				t.Fatal(err)
			}
			return state.PeerCertificates[0].SerialNumber.String()
		}
		first := serial()
		writeChain(t, site, f, "apps.example.org")
		if serial() != first {
			t.Error("the files were looked at twice in a second")
		}
		time.Sleep(checkEvery)
		second := serial()
		if second == first {
			t.Error("the new chain is not served")
		}
		for what, change := range map[string]func(){
			"rubbish":             func() { writePEM(t, f.Cert, "CERTIFICATE", []byte("rubbish")) },
			"key of another":      func() { writePEM(t, f.Key, "PRIVATE KEY", []byte("rubbish")) },
			"no file":             func() { remove(t, f.Cert) },
			"certificate is back": func() { writePEM(t, f.Cert, "CERTIFICATE", []byte("more rubbish")) },
		} {
			change()
			time.Sleep(checkEvery)
			if serial() != second {
				t.Errorf("%s: the chain before is not served", what)
			}
			time.Sleep(checkEvery)
		}
		writeChain(t, site, f, "apps.example.org")
		time.Sleep(checkEvery)
		if third := serial(); third == second {
			t.Error("after mistakes, the good chain is not served")
		}
		// Names that the chain is not for are the authority's.
		if _, err := handshake(t, pipe, server, trusting(private, endpointName), "127.80.1.10:443"); err != nil {
			t.Error(err)
		}
	})
}

func TestNewRefusesBadChains(t *testing.T) {
	t.Parallel()
	if _, err := New(Options{}); err == nil {
		t.Error("a source without certificates was made")
	}
	_, err := New(Options{Chains: []ChainFiles{{Cert: "/nowhere/chain.pem", Key: "/nowhere/key.pem"}}})
	if err == nil || !strings.Contains(err.Error(), "/nowhere/chain.pem") {
		t.Errorf("got %v, want the name of the file", err)
	}
}

func TestConcurrentHandshakes(t *testing.T) {
	t.Parallel()
	a := authority(t)
	s := source(t, Options{Authority: a})
	var wg sync.WaitGroup
	certs := make([]*tls.Certificate, 16)
	for i := range certs {
		wg.Go(func() {
			c, err := s.Certificate(&tls.ClientHelloInfo{ServerName: endpointName, Conn: at{nil, "127.80.1.10:443"}})
			if err != nil {
				t.Error(err)
			}
			certs[i] = c
		})
	}
	wg.Wait()
	for _, c := range certs {
		if t.Failed() || !bytes.Equal(c.Certificate[0], certs[0].Certificate[0]) {
			t.Fatal("handshakes at the same time got different certificates")
		}
	}
}
