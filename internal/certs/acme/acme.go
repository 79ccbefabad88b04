// Package acme gets the operator's names a certificate from an ACME server (RFC 8555) and keeps it good: by HTTP-01, or by DNS-01
// with records that the name server of Penstock serves.
//
// One goroutine, that of Run, talks to the server; what it has is read concurrently by handshakes and by those who answer challenges.
package acme

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	rfc8555 "golang.org/x/crypto/acme"
)

// The kinds of challenge that are answered.
const (
	HTTP01 = "http-01"
	DNS01  = "dns-01"
)

// Options is what New needs.
type Options struct {
	// Directory is the URL of the ACME server's directory: https.
	Directory string
	// Names are in one certificate, at most 100; "*.example.net" needs DNS01. To give them says that they are served here.
	Names []string
	// Challenge is HTTP01 or DNS01.
	Challenge string
	// Zone, with DNS01, is a name whose TXT records are the answers to all challenges, besides those at _acme-challenge of each
	// name: a CNAME there can lead to it.
	Zone string
	// Email may be empty.
	Email string
	// KeyID and MACKey bind the account to one that the authority knows otherwise (RFC 8555, section 7.3.4); empty: no binding.
	KeyID  string
	MACKey []byte
	// Roots verify the ACME server; nil: those of the machine.
	Roots *x509.CertPool
	// Dir keeps the account's key, the order under way and the certificate, for the owner alone.
	Dir string
	Log *slog.Logger
}

// Bounds of talking to the server.
const (
	attemptTime  = 5 * time.Minute  // one try to get a certificate
	requestTime  = 30 * time.Second // one HTTP request
	maxAnswer    = 1 << 20          // bytes of an answer
	retryFirst   = 10 * time.Second // after a failure; then four times as long each time
	retryMost    = 6 * time.Hour
	requestTries = 8               // of one request that the server asks to repeat
	maxAsked     = 2 * time.Minute // a Retry-After that is longer ends the attempt
	wakeMost     = time.Hour       // clocks may be set, machines may sleep
)

// Client gets and keeps one certificate.
type Client struct {
	o   Options
	dir string // of this directory URL and these names

	mu     sync.RWMutex
	cert   *tls.Certificate
	tokens map[string]string // HTTP-01: answers by token
	texts  map[string]string // DNS-01: record by authorization
}

// New reads what an earlier run left. It fails on options that can never work, and on files that cannot be read.
func New(o Options) (*Client, error) {
	u, err := url.Parse(o.Directory)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("ACME directory %q is not an https URL", o.Directory)
	}
	if o.Challenge != HTTP01 && o.Challenge != DNS01 {
		return nil, fmt.Errorf("ACME challenge %q is not %s or %s", o.Challenge, HTTP01, DNS01)
	}
	if (o.KeyID == "") != (len(o.MACKey) == 0) {
		return nil, errors.New("an external account needs both its key ID and its key")
	}
	if len(o.Names) == 0 || len(o.Names) > 100 {
		return nil, fmt.Errorf("a certificate is for 1 to 100 names, not %d", len(o.Names))
	}
	names := make([]string, 0, len(o.Names))
	for _, n := range o.Names {
		n = canonical(n)
		plain, wild := strings.CutPrefix(n, "*.")
		if !plausible(plain) {
			return nil, fmt.Errorf("ACME name %q is not a domain name", n)
		}
		if wild && o.Challenge != DNS01 {
			return nil, fmt.Errorf("ACME name %q needs the challenge %s", n, DNS01)
		}
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	o.Names = names
	if o.Zone = canonical(o.Zone); o.Zone != "" && !plausible(o.Zone) {
		return nil, fmt.Errorf("ACME zone %q is not a domain name", o.Zone)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	sum := sha256.Sum256([]byte(o.Directory))
	c := &Client{
		o: o, dir: filepath.Join(o.Dir, u.Hostname()+"-"+hex.EncodeToString(sum[:4])),
		tokens: map[string]string{}, texts: map[string]string{},
	}
	if c.cert, err = c.readCertificate(); err != nil {
		return nil, err
	}
	return c, nil
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// plausible says whether a name could be a host's: labels of letters, digits and hyphens, two at least.
func plausible(name string) bool {
	labels := strings.Split(name, ".")
	if len(name) > 253 || len(labels) < 2 {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || strings.Trim(l, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// Certificate is the one that is kept; nil while there is none.
func (c *Client) Certificate(time.Time) *tls.Certificate {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.cert
}

// Serves says whether a host is one of the names, also while there is no certificate.
func (c *Client) Serves(host string) bool {
	host = canonical(host)
	return slices.ContainsFunc(c.o.Names, func(n string) bool {
		if apex, wild := strings.CutPrefix(n, "*."); wild {
			label, rest, _ := strings.Cut(host, ".")
			return label != "" && rest == apex
		}
		return n == host
	})
}

const challengePath = "/.well-known/acme-challenge/"

// ServeHTTP answers HTTP-01 challenges, and nothing else.
func (c *Client) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, ok := strings.CutPrefix(r.URL.Path, challengePath)
	c.mu.RLock()
	answer := c.tokens[token]
	c.mu.RUnlock()
	if !ok || answer == "" || r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = io.WriteString(w, answer) // who asked went away
}

// Text has the TXT records of a zone of challenges; false: the name is none. The zones are there all the time, so that their
// delegation can be tried.
func (c *Client) Text(zone string) ([]string, bool) {
	if c.o.Challenge != DNS01 {
		return nil, false
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []string
	known := zone == c.o.Zone && zone != ""
	for _, n := range c.o.Names {
		plain := strings.TrimPrefix(n, "*.")
		ours := zone == "_acme-challenge."+plain
		known = known || ours
		if !ours && zone != c.o.Zone {
			continue
		}
		for _, key := range []string{plain, "*." + plain} { // two authorizations, one name
			if v := c.texts[key]; v != "" && !slices.Contains(out, v) {
				out = append(out, v)
			}
		}
	}
	return out, known
}

// Run gets a certificate, and another when two thirds of its life are over, until ctx ends. While that fails, the one before stays.
func (c *Client) Run(ctx context.Context) error {
	var pause time.Duration
	var again time.Time // not before
	for ctx.Err() == nil {
		wait := max(c.dueIn(time.Now()), time.Until(again))
		if wait <= 0 {
			wait = c.attempt(ctx, &pause)
			again = time.Now().Add(wait).Round(0) // by the wall clock: machines sleep
		}
		t := time.NewTimer(min(wait, wakeMost))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
	return nil
}

// attempt renews once and returns how long to wait then; pause grows with failures.
func (c *Client) attempt(ctx context.Context, pause *time.Duration) (wait time.Duration) {
	err := c.renew(ctx)
	if err == nil {
		*pause = 0
		return max(c.dueIn(time.Now()), retryFirst) // also when the new one is due at once
	}
	*pause = min(max(4**pause, retryFirst), retryMost)
	wait = *pause + rand.N(*pause/4) //nolint:gosec // spreads retries
	if asked, ok := rateLimit(err); ok && asked > wait {
		wait = min(asked, 24*time.Hour)
	}
	if ctx.Err() == nil {
		c.o.Log.Error("certificate was not issued; what was there stays", "names", c.o.Names, "error", err, "retry", wait.Round(time.Second))
	}
	return wait
}

func rateLimit(err error) (time.Duration, bool) {
	e, ok := errors.AsType[*rfc8555.Error](err)
	if !ok {
		return 0, false
	}
	return rfc8555.RateLimit(e)
}

// dueIn is how long the certificate need not be renewed; not positive when it must be now.
func (c *Client) dueIn(now time.Time) time.Duration {
	cert := c.Certificate(now)
	if cert == nil {
		return 0
	}
	life := cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore)
	return cert.Leaf.NotBefore.Add(life * 2 / 3).Sub(now)
}

// renew is one attempt.
func (c *Client) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	client, err := c.account(ctx)
	if err != nil {
		return err
	}
	p, err := c.order(ctx, client)
	if err != nil {
		return err
	}
	chain, err := c.fulfil(ctx, client, p)
	if err != nil {
		return err
	}
	cert, err := c.keepCertificate(chain, p)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.cert = cert
	c.mu.Unlock()
	c.o.Log.Info("certificate was issued", "names", c.o.Names, "until", cert.Leaf.NotAfter, "issuer", cert.Leaf.Issuer.String())
	return nil
}

// account is a client with an account at the server; its key is made at first use and kept.
func (c *Client) account(ctx context.Context) (*rfc8555.Client, error) {
	key, err := c.accountKey()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: c.o.Roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true, DisableKeepAlives: true, // an attempt in weeks
	}
	client := &rfc8555.Client{
		Key: key, DirectoryURL: c.o.Directory, UserAgent: "penstock", RetryBackoff: backoff,
		HTTPClient: &http.Client{Timeout: requestTime, Transport: bounded{transport}},
	}
	a := &rfc8555.Account{}
	if c.o.Email != "" {
		a.Contact = []string{"mailto:" + c.o.Email}
	}
	if c.o.KeyID != "" {
		a.ExternalAccountBinding = &rfc8555.ExternalAccountBinding{KID: c.o.KeyID, Key: c.o.MACKey}
	}
	found, err := client.GetReg(ctx, "")
	if err == nil {
		if !slices.Equal(found.Contact, a.Contact) && c.o.Email != "" {
			if _, err := client.UpdateReg(ctx, a); err != nil {
				c.o.Log.Warn("e-mail of the ACME account was not changed", "error", err)
			}
		}
		return client, nil
	}
	if !errors.Is(err, rfc8555.ErrNoAccount) {
		return nil, fmt.Errorf("find the account at %s: %w", c.o.Directory, err)
	}
	if _, err = client.Register(ctx, a, rfc8555.AcceptTOS); err != nil && !errors.Is(err, rfc8555.ErrAccountAlreadyExists) {
		return nil, fmt.Errorf("make an account at %s: %w", c.o.Directory, err)
	}
	return client, nil
}

// backoff repeats what the server asks to repeat, a few times.
func backoff(n int, _ *http.Request, resp *http.Response) time.Duration {
	if n > requestTries {
		return -1
	}
	d := min(time.Duration(1<<(n-1))*100*time.Millisecond, 5*time.Second)
	if s := resp.Header.Get("Retry-After"); s != "" {
		if asked, err := time.ParseDuration(s + "s"); err == nil {
			d = max(d, asked)
		} else if at, err := http.ParseTime(s); err == nil {
			d = max(d, time.Until(at))
		}
	}
	if d > maxAsked {
		return -1
	}
	return d + rand.N(100*time.Millisecond) //nolint:gosec // spreads retries
}

// bounded cuts answers that are too long for what they could say.
type bounded struct{ http.RoundTripper }

// RoundTrip limits the body.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	}
	return resp, err
}
