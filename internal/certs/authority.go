// Package certs makes and keeps the TLS certificates of Penstock's listeners: from a name-constrained private authority of its
// own, made once for each data directory, or from chain files that the operator supplies.
//
// Everything here may be used concurrently. Nothing runs between handshakes: certificates are issued, renewed and read again
// when a handshake asks for one.
package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Constraints are what an authority may vouch for. They are part of its root certificate, critical, so that who trusts the
// root trusts it for nothing else.
type Constraints struct {
	Names  []string       // each stands for itself and every name below it: "streaming.example.net"
	Ranges []netip.Prefix // addresses
}

// Authority is a private certificate authority.
type Authority struct {
	path string
	root *x509.Certificate
	key  *ecdsa.PrivateKey
}

const (
	rootFile = "root.pem"
	keyFile  = "root.key"

	rootLife = 10 * 365 * 24 * time.Hour
	leafLife = 30 * 24 * time.Hour
	renewIn  = leafLife * 2 / 3
	skew     = time.Hour // clocks of clients may be behind by as much
)

// OpenAuthority reads the authority in dir, or makes it there when dir does not exist. Files are for the owner alone.
// It refuses an authority that has ended or whose constraints do not cover c: what people imported cannot be widened.
func OpenAuthority(dir string, c Constraints) (*Authority, error) {
	a, err := readAuthority(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeAuthority(dir, c); err != nil {
			return nil, fmt.Errorf("make the certificate authority: %w", err)
		}
		a, err = readAuthority(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read the certificate authority: %w", err)
	}
	again := "; remove the folder to have a new one made, and trust that one (penstock trust)"
	if now := time.Now(); now.After(a.root.NotAfter) {
		return nil, fmt.Errorf("the certificate authority in %s ended on %s%s", dir, a.root.NotAfter.Format(time.DateOnly), again)
	}
	for _, n := range c.Names {
		if !a.PermitsName(n) {
			return nil, fmt.Errorf("the certificate authority in %s may not vouch for %s%s", dir, n, again)
		}
	}
	for _, r := range c.Ranges {
		if !a.permitsRange(r) {
			return nil, fmt.Errorf("the certificate authority in %s may not vouch for addresses of %s%s", dir, r, again)
		}
	}
	return a, nil
}

// makeAuthority writes both files beside dir and renames them into place together, so that there is never half an authority,
// and when two processes make one, only one of them is.
func makeAuthority(dir string, c Constraints) (err error) {
	if len(c.Names) == 0 || len(c.Ranges) == 0 {
		return errors.New("no constraints: such a root could vouch for any name or address")
	}
	cert, key, err := newRoot(c, time.Now())
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+"-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	for _, f := range []struct {
		name, kind string
		der        []byte
	}{{keyFile, "PRIVATE KEY", key}, {rootFile, "CERTIFICATE", cert}} {
		if err := writeSynced(filepath.Join(tmp, f.name), pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der})); err != nil {
			return err
		}
	}
	if err := os.Rename(tmp, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func writeSynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// newRoot returns certificate and key in DER.
func newRoot(c Constraints, now time.Time) (cert, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial,
		// The serial number tells the authorities of several data directories apart in lists of certificates.
		Subject:   pkix.Name{Organization: []string{"Penstock"}, CommonName: fmt.Sprintf("Penstock private CA %x", serial.Bytes()[:4])},
		NotBefore: now.Add(-skew), NotAfter: now.Add(rootLife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, // it signs servers, never another authority
		KeyUsage: x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		PermittedDNSDomainsCritical: true, // of the whole extension
		PermittedDNSDomains:         c.Names,
	}
	for _, r := range c.Ranges {
		r = r.Masked()
		t.PermittedIPRanges = append(t.PermittedIPRanges, &net.IPNet{
			IP: r.Addr().AsSlice(), Mask: net.CIDRMask(r.Bits(), r.Addr().BitLen()),
		})
	}
	if cert, err = x509.CreateCertificate(rand.Reader, t, t, private.Public(), private); err != nil {
		return nil, nil, err
	}
	key, err = x509.MarshalPKCS8PrivateKey(private)
	return cert, key, err
}

// newSerial is 16 random bytes, positive, never shorter (RFC 5280, section 4.1.2.2).
func newSerial() (*big.Int, error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return nil, err
	}
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b), nil
}

func readAuthority(dir string) (*Authority, error) {
	if _, err := os.Stat(dir); err != nil {
		return nil, err
	}
	a := &Authority{path: filepath.Join(dir, rootFile)}
	der, err := readPEM(a.path, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	if a.root, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("%s: %w", a.path, err)
	}
	path := filepath.Join(dir, keyFile)
	if der, err = readPEM(path, "PRIVATE KEY"); err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var ok bool
	if a.key, ok = key.(*ecdsa.PrivateKey); !ok || !a.key.PublicKey.Equal(a.root.PublicKey) {
		return nil, fmt.Errorf("%s is not the key of %s", path, a.path)
	}
	if !a.root.IsCA || !a.root.PermittedDNSDomainsCritical {
		return nil, fmt.Errorf("%s is not a certificate authority with critical name constraints", a.path)
	}
	return a, nil
}

func readPEM(path, kind string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is missing: restore it, or remove its folder to have a new authority made", path)
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s holds no PEM block %q", path, kind)
	}
	return block.Bytes, nil
}

// Path is the file with the root certificate in PEM.
func (a *Authority) Path() string { return a.path }

// PEM is the root certificate.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw})
}

// Name is the root certificate's common name; no two authorities share it.
func (a *Authority) Name() string { return a.root.Subject.CommonName }

// Fingerprint is the SHA-256 of the root certificate, as browsers show it.
func (a *Authority) Fingerprint() string {
	sum := sha256.Sum256(a.root.Raw)
	s := strings.ToUpper(hex.EncodeToString(sum[:]))
	var b bytes.Buffer
	for i := 0; i < len(s); i += 2 {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(s[i : i+2])
	}
	return b.String()
}

// Ends is the last moment that the root certificate is good for.
func (a *Authority) Ends() time.Time { return a.root.NotAfter }

// Permitted are the constraints of the root certificate.
func (a *Authority) Permitted() Constraints {
	c := Constraints{Names: slices.Clone(a.root.PermittedDNSDomains)}
	for _, n := range a.root.PermittedIPRanges {
		addr, _ := netip.AddrFromSlice(n.IP)
		ones, _ := n.Mask.Size()
		c.Ranges = append(c.Ranges, netip.PrefixFrom(addr, ones))
	}
	return c
}

// PermitsName says whether the constraints admit a name, in any case, with or without a dot at the end.
func (a *Authority) PermitsName(name string) bool {
	name = canonical(name)
	return slices.ContainsFunc(a.root.PermittedDNSDomains, func(apex string) bool {
		return name == apex || strings.HasSuffix(name, "."+apex)
	})
}

// PermitsAddr says whether the constraints admit an address.
func (a *Authority) PermitsAddr(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	return addr.IsValid() && a.permitsRange(netip.PrefixFrom(addr, addr.BitLen()))
}

func (a *Authority) permitsRange(r netip.Prefix) bool {
	return slices.ContainsFunc(a.Permitted().Ranges, func(p netip.Prefix) bool {
		return p.Bits() <= r.Bits() && p.Contains(r.Addr())
	})
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// Issue makes a certificate for a server at these names and addresses, with a key of its own, good for 30 days or until the
// authority ends. It refuses what the constraints do not admit.
func (a *Authority) Issue(names []string, addrs []netip.Addr, now time.Time) (*tls.Certificate, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{"Penstock"}}, // no common name: names are in the alternatives alone
		NotBefore:    now.Add(-skew), NotAfter: now.Add(leafLife),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if t.NotAfter.After(a.root.NotAfter) {
		t.NotAfter = a.root.NotAfter
	}
	for _, n := range names {
		if !a.PermitsName(n) {
			return nil, fmt.Errorf("name %q is outside the authority's constraints", n)
		}
		t.DNSNames = append(t.DNSNames, canonical(n))
	}
	for _, addr := range addrs {
		if !a.PermitsAddr(addr) {
			return nil, fmt.Errorf("address %s is outside the authority's constraints", addr)
		}
		t.IPAddresses = append(t.IPAddresses, addr.Unmap().WithZone("").AsSlice())
	}
	if len(t.DNSNames)+len(t.IPAddresses) == 0 {
		return nil, errors.New("a certificate needs a name or an address")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.root, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}
