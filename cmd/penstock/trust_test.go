package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"penstock.dev/penstock/internal/certs"
)

// privateStores are stores like the machine's, in folders of the test's own.
func privateStores(t *testing.T) (s trustStores, bundle string) {
	t.Helper()
	for tool, pkg := range map[string]string{"certutil": "libnss3-tools", "update-ca-certificates": "ca-certificates"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s (Debian: %s; scripts/setup.sh test installs it)", tool, pkg)
		}
	}
	dir := t.TempDir()
	local, etc, hooks := filepath.Join(dir, "local"), filepath.Join(dir, "etc"), filepath.Join(dir, "hooks")
	conf := filepath.Join(dir, "ca-certificates.conf")
	for _, d := range []string{local, etc, hooks} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(conf, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return trustStores{system: local, home: filepath.Join(dir, "home"), update: []string{
		"update-ca-certificates", "--certsconf", conf, "--localcertsdir", local, "--etccertsdir", etc, "--hooksdir", hooks,
	}}, filepath.Join(etc, "ca-certificates.crt")
}

func testAuthority(t *testing.T) *certs.Authority {
	t.Helper()
	ca, err := openAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// TestTrust installs two authorities, twice, and removes one: the bundle and the NSS database say who is trusted.
func TestTrust(t *testing.T) {
	t.Parallel()
	stores, bundle := privateStores(t)
	one, two := testAuthority(t), testAuthority(t)
	var said bytes.Buffer
	trusted := func(ca *certs.Authority) (system, nss bool) {
		t.Helper()
		b, err := os.ReadFile(bundle)
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("certutil", "-d", "sql:"+stores.nss(), "-L").CombinedOutput()
		if err != nil {
			t.Fatalf("certutil: %v\n%s", err, out)
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, ca.Name()) {
				nss = strings.Contains(line, "C,,")
			}
		}
		return bytes.Contains(b, ca.PEM()), nss
	}
	want := func(step string, ca *certs.Authority, want bool) {
		t.Helper()
		if system, nss := trusted(ca); system != want || nss != want {
			t.Errorf("%s: trusted by system %v, NSS %v; want %v\n%s", step, system, nss, want, said.String())
		}
	}
	for _, ca := range []*certs.Authority{one, one, two} {
		if err := stores.install(t.Context(), &said, ca, true); err != nil {
			t.Fatal(err)
		}
	}
	want("installed", one, true)
	want("installed", two, true)
	for range 2 {
		if err := stores.uninstall(t.Context(), &said, one, true); err != nil {
			t.Fatal(err)
		}
		want("uninstalled", one, false)
		want("uninstalled the other", two, true)
	}
	if !strings.Contains(said.String(), "was not there") {
		t.Errorf("the second time nothing was there, and it does not say so:\n%s", said.String())
	}
}

// TestTrustWithoutRoot does the user's store and says what the system's needs.
func TestTrustWithoutRoot(t *testing.T) {
	t.Parallel()
	stores, _ := privateStores(t)
	ca := testAuthority(t)
	var said bytes.Buffer
	err := stores.install(t.Context(), &said, ca, false)
	if err == nil || !strings.Contains(err.Error(), "needs root") || !strings.Contains(said.String(), "NSS store: "+ca.Name()+" is trusted") {
		t.Errorf("got %v and\n%s", err, said.String())
	}
	if _, err := os.Stat(stores.file(ca)); err == nil {
		t.Error("the system's store was written")
	}
}

func TestExplainTrust(t *testing.T) {
	t.Parallel()
	ca := testAuthority(t)
	var b bytes.Buffer
	explainTrust(&b, ca)
	for _, want := range []string{ca.Path(), ca.Fingerprint(), "streaming.appstream.us-east-1.vpce.amazonaws.com", "10.0.0.0/8", "AWS_CA_BUNDLE=" + ca.Path()} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("lacks %q:\n%s", want, b.String())
		}
	}
}

func TestTrustArguments(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "nothing")
	if err := trustCommand(context.Background(), []string{"--data-dir", dir, "--print"}); err != nil {
		t.Errorf("the first use: %v", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"--print", "--install"}, {"extra"}, {"--uninstall", "--data-dir", dir}} {
		if err := trustCommand(context.Background(), args); err == nil {
			t.Errorf("trust %v: got no error", args)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("--uninstall made an authority")
	}
}
