package certs

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// issueAt writes a chain of an authority for a name, issued at a moment, and returns its serial number.
func issueAt(t *testing.T, a *Authority, f ChainFiles, name string, when time.Time) string {
	t.Helper()
	cert, err := a.Issue([]string{name}, nil, when)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, f.Key, "PRIVATE KEY", key)
	writePEM(t, f.Cert, "CERTIFICATE", cert.Leaf.Raw)
	return cert.Leaf.SerialNumber.String()
}

// TestChainMistakes replaces a chain in the ways that go wrong.
func TestChainMistakes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		site, err := OpenAuthority(filepath.Join(t.TempDir(), "site"), Constraints{Names: []string{"apps.example.org"}, Ranges: constraints().Ranges})
		if err != nil {
			t.Fatal(err)
		}
		const name, other = "apps.example.org", "other.apps.example.org"
		folders := [2]string{t.TempDir(), t.TempDir()}
		at := func(dir string) ChainFiles {
			return ChainFiles{Cert: filepath.Join(dir, "chain.pem"), Key: filepath.Join(dir, "key.pem")}
		}
		first := issueAt(t, site, at(folders[0]), name, time.Now())
		link := filepath.Join(t.TempDir(), "current")
		if err := os.Symlink(folders[0], link); err != nil {
			t.Fatal(err)
		}
		server := source(t, Options{Authority: authority(t), Chains: []ChainFiles{at(link)}}).Config()
		serial := func(name string) string {
			t.Helper()
			time.Sleep(checkEvery)
			client := trusting(site, name)
			client.InsecureSkipVerify = true // which certificate it is, is what counts
			client.ClientSessionCache = nil
			state, err := handshake(t, pipe, server, client, "127.80.1.10:443")
			if err != nil {
				return err.Error()
			}
			return state.PeerCertificates[0].SerialNumber.String()
		}
		want := func(what, name, want string) {
			t.Helper()
			if got := serial(name); got != want {
				t.Errorf("%s: got %s, want %s", what, got, want)
			}
		}
		want("at first", name, first)

		// Links are swapped as Kubernetes and certbot do.
		second := issueAt(t, site, at(folders[1]), name, time.Now())
		if err := os.Symlink(folders[1], link+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link+".new", link); err != nil {
			t.Fatal(err)
		}
		want("after a swap of links", name, second)

		// Half of a file that is written in place, then all of it.
		f := at(folders[1])
		half := at(t.TempDir())
		third := issueAt(t, site, half, name, time.Now())
		for i, files := range [][2]string{{half.Key, f.Key}, {half.Cert, f.Cert}} {
			b, err := os.ReadFile(files[0])
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range []int{0, len(b) / 2, len(b)} {
				if err := os.WriteFile(files[1], b[:n], 0o600); err != nil {
					t.Fatal(err)
				}
				if i == 1 && n == len(b) {
					want("all is written", name, third)
				} else {
					want("half is written", name, second)
				}
			}
		}

		issueAt(t, site, f, name, time.Now().Add(-2*leafLife))
		want("a chain that has ended", name, third)
		fourth := issueAt(t, site, f, other, time.Now())
		want("a chain for another name", other, fourth)
		if got := serial(name); got == third || got == fourth {
			t.Errorf("the name that the chain is not for any more: got %s", got)
		}
		fifth := issueAt(t, site, f, name, time.Now())
		want("a good chain again", name, fifth)
	})
}

// TestOpenSSLClient asks OpenSSL what a server speaks.
func TestOpenSSLClient(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("needs openssl (Debian: openssl; scripts/setup.sh test installs it)")
	}
	a := authority(t)
	serve := func(minimum uint16) string {
		t.Helper()
		l, err := tls.Listen("tcp", "127.0.0.1:0", source(t, Options{Authority: a, MinVersion: minimum}).Config())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func(c net.Conn) {
					defer func() { _ = c.Close() }()
					_ = c.SetDeadline(time.Now().Add(20 * time.Second))
					_, _ = c.Write([]byte("hello")) // completes the handshake; the client tells how it went
					_, _ = c.Read(make([]byte, 1))
				}(c)
			}
		}()
		return l.Addr().String()
	}
	modern, older := serve(0), serve(tls.VersionTLS12)
	connect := func(at string, args ...string) (bool, string) {
		t.Helper()
		args = append([]string{"s_client", "-connect", at, "-servername", endpointName, "-CAfile", a.Path(), "-verify_return_error", "-brief"}, args...)
		cmd := exec.CommandContext(t.Context(), openssl, args...)
		cmd.Stdin = strings.NewReader("Q\n")
		out, err := cmd.CombinedOutput()
		return err == nil && strings.Contains(string(out), "CONNECTION ESTABLISHED"), string(out)
	}
	// Level 0: OpenSSL itself is willing to speak what is old.
	for _, tt := range []struct {
		at   string
		args string
		ok   bool
		says string
	}{
		{modern, "-tls1_3", true, "TLSv1.3"},
		{modern, "-tls1_2", false, ""},
		{modern, "-tls1_1 -cipher ALL:@SECLEVEL=0", false, ""},
		{older, "-tls1_3", true, "TLSv1.3"},
		{older, "-tls1_2", true, "TLSv1.2"},
		{older, "-tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384", true, "ECDHE-ECDSA-AES256-GCM-SHA384"},
		{older, "-tls1_2 -cipher ECDHE-ECDSA-CHACHA20-POLY1305", true, "CHACHA20"},
		{older, "-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA:ECDHE-ECDSA-AES256-SHA:ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0", false, ""},
		{older, "-tls1_2 -cipher AES128-SHA:AES256-SHA:AES128-GCM-SHA256:@SECLEVEL=0", false, ""},
		{older, "-tls1_2 -cipher aNULL:eNULL:@SECLEVEL=0", false, ""},
		{older, "-tls1_1 -cipher ALL:@SECLEVEL=0", false, ""},
		{older, "-tls1 -cipher ALL:@SECLEVEL=0", false, ""},
	} {
		ok, out := connect(tt.at, strings.Fields(tt.args)...)
		if ok != tt.ok || !strings.Contains(out, tt.says) {
			t.Errorf("%s: connected %v, want %v and %q\n%s", tt.args, ok, tt.ok, tt.says, out)
		}
	}
}
