package main

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"penstock.dev/penstock/internal/certs/acme"
)

// acmeConfig is what --acme-… say; without names nothing is asked of any authority.
type acmeConfig struct {
	directory, challenge, zone, email, caFile string
	eabKeyID, eabKeyFile                      string
	names                                     []string
	httpAddr                                  netip.AddrPort
}

func (c *acmeConfig) flags(fs *flag.FlagSet) {
	fs.StringVar(&c.directory, "acme-directory", "", "`URL` of the directory of an ACME server, whose terms of service you accept by it; turns TLS on")
	fs.Func("acme-name", "`name` that --acme-directory certifies; may be repeated; *.NAME needs dns-01", func(s string) error {
		c.names = append(c.names, s)
		return nil
	})
	fs.StringVar(&c.challenge, "acme-challenge", acme.HTTP01, "`kind` of challenge: http-01 or dns-01 (by --dns-addr)")
	fs.TextVar(&c.httpAddr, "acme-http-addr", netip.MustParseAddrPort("0.0.0.0:80"), "`address` where http-01 challenges are answered, as port 80 of the names")
	fs.StringVar(&c.zone, "acme-dns-zone", "", "`name` that CNAMEs of _acme-challenge.NAME lead to, delegated to --dns-addr (default: delegate those names)")
	fs.StringVar(&c.email, "acme-email", "", "`address` for messages of the authority")
	fs.StringVar(&c.caFile, "acme-ca", "", "`file` with the roots of the ACME server's own certificate in PEM (default: the machine's)")
	fs.StringVar(&c.eabKeyID, "acme-eab-kid", "", "`ID` of the key of an account that the authority knows otherwise")
	fs.StringVar(&c.eabKeyFile, "acme-eab-key", "", "`file` with the key of --acme-eab-kid in base64url")
}

// used says whether certificates come from an ACME server.
func (c *acmeConfig) used() bool { return c.directory != "" }

// check refuses what cannot work, before anything is opened.
func (c *acmeConfig) check() error {
	if !c.used() {
		if len(c.names) > 0 {
			return errors.New("--acme-name needs --acme-directory")
		}
		return nil
	}
	if len(c.names) == 0 {
		return errors.New("--acme-directory needs --acme-name")
	}
	if (c.eabKeyID == "") != (c.eabKeyFile == "") {
		return errors.New("--acme-eab-kid and --acme-eab-key go together")
	}
	if c.zone != "" && c.challenge != acme.DNS01 {
		return errors.New("--acme-dns-zone is for --acme-challenge dns-01")
	}
	return nil
}

// options reads the files that the flags name.
func (c *acmeConfig) options(dataDir string) (acme.Options, error) {
	o := acme.Options{
		Directory: c.directory, Names: c.names, Challenge: c.challenge, Zone: c.zone, Email: c.email, KeyID: c.eabKeyID,
		Dir: filepath.Join(dataDir, "acme"),
	}
	if c.caFile != "" {
		b, err := os.ReadFile(c.caFile)
		if err != nil {
			return o, fmt.Errorf("--acme-ca: %w", err)
		}
		o.Roots = x509.NewCertPool()
		if !o.Roots.AppendCertsFromPEM(b) {
			return o, fmt.Errorf("--acme-ca: %s holds no certificate in PEM", c.caFile)
		}
	}
	if c.eabKeyFile != "" {
		b, err := os.ReadFile(c.eabKeyFile)
		if err != nil {
			return o, fmt.Errorf("--acme-eab-key: %w", err)
		}
		if o.MACKey, err = base64.RawURLEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(string(b)), "=")); err != nil || len(o.MACKey) == 0 {
			return o, fmt.Errorf("--acme-eab-key: %s is not a key in base64url", c.eabKeyFile)
		}
	}
	return o, nil
}

// openACME makes the client of the ACME server and binds the listener for its challenges.
func (r *region) openACME(ctx context.Context) error {
	c := &r.config.acme
	if !c.used() {
		return nil
	}
	o, err := c.options(r.config.dataDir)
	if err != nil {
		return err
	}
	o.Log = r.log.With("part", "acme")
	if r.acme, err = acme.New(o); err != nil {
		return err
	}
	if c.challenge == acme.HTTP01 {
		if r.acmeListener, err = r.bind(ctx, "acme-http-addr", c.httpAddr.String()); err != nil {
			return err
		}
	}
	return nil
}

// challengeText are the records of challenges that the name server has for everybody.
func (r *region) challengeText(name string) ([]string, bool) {
	if r.acme == nil {
		return nil, false
	}
	return r.acme.Text(name)
}

// checkPublicURL wants an origin, with the scheme that is served.
func checkPublicURL(s string, secure bool) error {
	u, err := url.Parse(s)
	if err != nil {
		return err
	}
	want := "http"
	if secure {
		want = "https"
	}
	switch {
	case u.Scheme != want:
		return fmt.Errorf("its scheme must be %s, which is what is served", want)
	case u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return errors.New("it must be a scheme and a host, perhaps with a port, and nothing after")
	}
	return nil
}

// publicOrigin is by what users come to the public plane, and what its Host headers may say besides its address.
func (r *region) publicOrigin() string {
	if r.config.publicURL != "" {
		return r.config.publicURL
	}
	return r.url(r.publicListener.Addr().String())
}

// publicHost says whether the public plane is served for a host: that of --public-url, and the operator's names.
func (r *region) publicHost(host string) bool {
	u, err := url.Parse(r.config.publicURL)
	return r.ownName(host) || err == nil && u.Hostname() != "" && strings.EqualFold(strings.Trim(host, "[]"), u.Hostname())
}

// publicPort is the port that browsers see.
func (r *region) publicPort() uint16 {
	u, err := url.Parse(r.config.publicURL)
	if err != nil || u.Host == "" {
		return tcpPort(r.publicListener)
	}
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil && u.Scheme == "https" {
		return 443
	}
	if err != nil {
		return 80
	}
	return uint16(n)
}
