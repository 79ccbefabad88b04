package certs

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Kept is a certificate that somebody else keeps good, for names of the operator's.
type Kept interface {
	// Certificate is nil while there is none.
	Certificate(now time.Time) *tls.Certificate
	// Serves says whether a host is one that it is kept for, also while there is none.
	Serves(host string) bool
}

// Options is what a Source is built from. Authority or Chains may be absent, not both.
type Options struct {
	Authority *Authority
	Chains    []ChainFiles // preferred to the authority for the names that they are for
	Kept      []Kept       // as chains, after them
	// Known says whether a name is served at the address that the client came to: certificates are issued for no others.
	Known func(name string, local netip.Addr) bool
	// MinVersion is tls.VersionTLS13 when zero.
	MinVersion uint16
	Log        *slog.Logger
}

// Source has the certificate for each handshake.
type Source struct {
	Options
	chains []*chain

	mu     sync.Mutex
	issued map[subject]*issued
}

// subject is what a certificate of the authority is for.
type subject struct {
	name string // empty: for the address alone
	addr netip.Addr
}

type issued struct {
	cert *tls.Certificate
	at   time.Time
}

// maxIssued bounds the certificates kept; another one then takes the place of any.
const maxIssued = 1024

// New reads the chain files, which must be good now.
func New(o Options) (*Source, error) {
	if o.Authority == nil && len(o.Chains) == 0 {
		return nil, errors.New("no certificates: neither an authority nor chain files")
	}
	if o.MinVersion == 0 {
		o.MinVersion = tls.VersionTLS13
	}
	if o.Known == nil {
		o.Known = func(string, netip.Addr) bool { return false }
	}
	s := &Source{Options: o, issued: map[subject]*issued{}}
	for _, f := range o.Chains {
		c, err := openChain(f, time.Now())
		if err != nil {
			return nil, err
		}
		if end := c.cert.Leaf.NotAfter; time.Now().After(end) {
			o.Log.Error("certificate chain has ended; clients refuse it until its files are replaced", "file", f.Cert, "ended", end)
		}
		s.chains = append(s.chains, c)
	}
	return s, nil
}

// Config is for servers of HTTP/1.1 and WebSockets. Sessions resume by tickets whose keys change daily. TLS 1.2, where it is spoken, has
// suites with forward secrecy and authenticated encryption alone.
func (s *Source) Config() *tls.Config {
	return &tls.Config{
		MinVersion: s.MinVersion, NextProtos: []string{"http/1.1"}, GetCertificate: s.Certificate,
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
	}
}

// Certificate answers a handshake: with the chain that is for the name asked for; then with one of the authority for name and
// address; for a name that is not served here, with what is for the address.
func (s *Source) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	now := time.Now()
	local := localAddr(hello.Conn)
	name := canonical(hello.ServerName)
	wanted := name
	if wanted == "" && local.IsValid() {
		wanted = local.String()
	}
	for _, c := range s.chains {
		if cert := c.get(now, s.Log); cert.Leaf.VerifyHostname(wanted) == nil {
			return cert, nil
		}
	}
	for _, k := range s.Kept {
		if cert := k.Certificate(now); cert != nil && cert.Leaf.VerifyHostname(wanted) == nil {
			return cert, nil
		}
	}
	if s.Authority == nil {
		return s.chains[0].get(now, s.Log), nil // the client will say which name is wrong
	}
	if name != "" && (!s.Authority.PermitsName(name) || !s.Known(name, local)) {
		name = ""
	}
	if !s.Authority.PermitsAddr(local) {
		local = netip.Addr{}
	}
	if name == "" && !local.IsValid() {
		if len(s.chains) > 0 {
			return s.chains[0].get(now, s.Log), nil
		}
		return nil, fmt.Errorf("no certificate for %q at %s", hello.ServerName, localAddr(hello.Conn))
	}
	return s.fromAuthority(subject{name, local}, now)
}

// Serves says whether a chain or a certificate kept is for a name of the operator's: then it is a name of ours.
func (s *Source) Serves(name string) bool {
	for _, c := range s.chains {
		if c.get(time.Now(), s.Log).Leaf.VerifyHostname(name) == nil {
			return true
		}
	}
	return slices.ContainsFunc(s.Kept, func(k Kept) bool { return k.Serves(name) })
}

// fromAuthority returns the certificate kept, or another when that is due for renewal.
func (s *Source) fromAuthority(who subject, now time.Time) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	had := s.issued[who]
	if had != nil && now.Sub(had.at) < renewIn && now.Before(had.cert.Leaf.NotAfter) {
		return had.cert, nil
	}
	var names []string
	var addrs []netip.Addr
	if who.name != "" {
		names = append(names, who.name)
	}
	if who.addr.IsValid() {
		addrs = append(addrs, who.addr)
	}
	cert, err := s.Authority.Issue(names, addrs, now)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate: %w", err)
	}
	for other := range s.issued {
		if had != nil || len(s.issued) < maxIssued {
			break
		}
		delete(s.issued, other)
	}
	s.issued[who] = &issued{cert, now}
	s.Log.Info("certificate was issued", "name", who.name, "address", who.addr, "until", cert.Leaf.NotAfter, "renewal", had != nil)
	return cert, nil
}

func localAddr(c net.Conn) netip.Addr {
	if c == nil {
		return netip.Addr{}
	}
	a, ok := c.LocalAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return a.AddrPort().Addr().Unmap().WithZone("")
}
