package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"penstock.dev/penstock/internal/certs/acme"
)

// TestACMEFlagsThatCannotWork are refused before anything is asked of an authority, with the flag and the reason.
func TestACMEFlagsThatCannotWork(t *testing.T) {
	t.Parallel()
	junk := filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(junk, []byte("no PEM, no base64!\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(more ...string) []string {
		return append([]string{"--acme-directory", "https://ca.example/dir", "--acme-name", "portal.example.com"}, more...)
	}
	for name, tt := range map[string]struct {
		args []string
		says string
	}{
		"no directory":           {[]string{"--acme-name", "portal.example.com"}, "--acme-name needs --acme-directory"},
		"no name":                {[]string{"--acme-directory", "https://ca.example/dir"}, "--acme-directory needs --acme-name"},
		"plain directory":        {[]string{"--acme-directory", "http://ca.example/dir", "--acme-name", "portal.example.com"}, "not an https URL"},
		"unknown challenge":      {with("--acme-challenge", "tls-alpn-01"), "tls-alpn-01"},
		"star by HTTP":           {with("--acme-name", "*.example.com"), "needs the challenge dns-01"},
		"no domain name":         {with("--acme-name", "portal example"), "is not a domain name"},
		"single label":           {with("--acme-name", "localhost"), "is not a domain name"},
		"zone without DNS":       {with("--acme-dns-zone", "challenges.example.net"), "--acme-dns-zone is for"},
		"key ID without its key": {with("--acme-eab-kid", "k"), "go together"},
		"key that is no base64":  {with("--acme-eab-kid", "k", "--acme-eab-key", junk), "is not a key in base64url"},
		"roots that are no PEM":  {with("--acme-ca", junk), "holds no certificate in PEM"},
		"roots that are missing": {with("--acme-ca", junk+"x"), "--acme-ca"},
		"public URL, plain":      {with("--public-url", "http://portal.example.com"), "scheme must be https"},
		"public URL with a path": {with("--public-url", "https://portal.example.com/x"), "nothing after"},
		"public URL, no host":    {with("--public-url", "https://"), "a scheme and a host"},
	} {
		c, err := parseDev(tt.args, io.Discard)
		if err == nil {
			var o acme.Options
			if o, err = c.acme.options(t.TempDir()); err == nil {
				_, err = acme.New(o)
			}
		}
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: got %v, want an error that says %q", name, err, tt.says)
		}
	}
	c, err := parseDev(with("--public-url", "https://portal.example.com", "--acme-challenge", "dns-01", "--acme-name", "*.example.com"), io.Discard)
	if err != nil || !c.secure() {
		t.Errorf("good flags: %v, TLS %v", err, c.secure())
	}
}
