package certs

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// ChainFiles are a certificate with its intermediates, and its key, in PEM.
type ChainFiles struct{ Cert, Key string }

// checkEvery bounds how often the files are looked at.
const checkEvery = time.Second

// chain is a certificate from files. A change of the files is noticed at a handshake; what cannot be used leaves the one
// before in place.
type chain struct {
	files ChainFiles

	mu      sync.Mutex
	checked time.Time
	seen    [2]os.FileInfo // of the files when they were last read
	cert    *tls.Certificate
}

func openChain(f ChainFiles, now time.Time) (*chain, error) {
	c := &chain{files: f, checked: now}
	var err error
	if c.seen, err = c.stat(); err != nil {
		return nil, fmt.Errorf("certificate chain: %w", err)
	}
	if c.cert, err = f.read(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *chain) stat() (seen [2]os.FileInfo, err error) {
	for i, path := range []string{c.files.Cert, c.files.Key} {
		if seen[i], err = os.Stat(path); err != nil {
			return seen, err
		}
	}
	return seen, nil
}

func (f ChainFiles) read() (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("certificate chain %s with key %s: %w", f.Cert, f.Key, err)
	}
	if cert.Leaf == nil { // GODEBUG x509keypairleaf=0
		if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return nil, fmt.Errorf("certificate chain %s: %w", f.Cert, err)
		}
	}
	return &cert, nil
}

// get returns the certificate of the files as they are now, at most checkEvery late.
func (c *chain) get(now time.Time, log *slog.Logger) *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.checked) < checkEvery {
		return c.cert
	}
	c.checked = now
	seen, err := c.stat()
	if err != nil || same(seen[0], c.seen[0]) && same(seen[1], c.seen[1]) {
		return c.cert // files that are away for a moment are being replaced
	}
	c.seen = seen
	cert, err := c.files.read()
	if err != nil {
		log.Warn("certificate chain was not read again; the one before stays", "error", err)
		return c.cert
	}
	if old := c.cert.Leaf; now.After(cert.Leaf.NotAfter) && now.Before(old.NotAfter) {
		log.Warn("certificate chain was replaced by one that has ended; the one before stays", "file", c.files.Cert, "ended", cert.Leaf.NotAfter)
		return c.cert
	}
	log.Info("certificate chain was read again", "file", c.files.Cert, "names", cert.Leaf.DNSNames, "until", cert.Leaf.NotAfter)
	c.cert = cert
	return cert
}

func same(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
