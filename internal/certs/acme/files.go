package acme

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Files of one directory URL, each replaced whole, mode 0600.
const (
	accountFile     = "account.key"     // PKCS #8 in PEM
	orderFile       = "order.json"      // pending
	certificateFile = "certificate.pem" // key, then the chain: one file, so that they are always of each other
)

func (c *Client) path(name string) string { return filepath.Join(c.dir, name) }

// write replaces a file so that after a crash there is the one or the other.
func (c *Client) write(name string, b []byte) error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(c.dir, "."+name+"-") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), c.path(name))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", c.path(name), err), remove(f.Name()))
	}
	d, err := os.Open(c.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// accountKey is read, or made where there is none.
func (c *Client) accountKey() (*ecdsa.PrivateKey, error) {
	b, err := os.ReadFile(c.path(accountFile))
	if errors.Is(err, fs.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		return key, c.write(accountFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM block; remove it to have another account made", c.path(accountFile))
	}
	return parseKey(c.path(accountFile), block.Bytes)
}

func parseKey(path string, der []byte) (*ecdsa.PrivateKey, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	k, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a key of another kind than ECDSA", path)
	}
	return k, nil
}

// readOrder is the order that was kept; nil when there is none that can be used.
func (c *Client) readOrder() (*pending, error) {
	b, err := os.ReadFile(c.path(orderFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no order is no error
	}
	if err != nil {
		return nil, err
	}
	p := &pending{}
	err = json.Unmarshal(b, p)
	if err == nil {
		p.key, err = parseKey(c.path(orderFile), p.Key)
	}
	if err != nil { // it can be ordered again
		c.o.Log.Warn("order of a certificate could not be read; another one is made", "error", err)
		return nil, nil //nolint:nilnil // as above
	}
	return p, nil
}

func (c *Client) keepOrder(p *pending) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return c.write(orderFile, b)
}

func (c *Client) dropOrder() error { return remove(c.path(orderFile)) }

// keepCertificate checks that a chain is what was ordered, writes it and forgets the order.
func (c *Client) keepCertificate(chain [][]byte, p *pending) (*tls.Certificate, error) {
	var b bytes.Buffer
	blocks := []*pem.Block{{Type: "PRIVATE KEY", Bytes: p.Key}}
	for _, der := range chain {
		blocks = append(blocks, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	}
	for _, block := range blocks {
		if err := pem.Encode(&b, block); err != nil {
			return nil, err
		}
	}
	cert, err := parse(b.Bytes())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("the certificate that was issued: %w", err), c.dropOrder())
	}
	for _, n := range p.Names {
		if err := cert.Leaf.VerifyHostname(n); err != nil {
			return nil, errors.Join(fmt.Errorf("the certificate that was issued: %w", err), c.dropOrder())
		}
	}
	if err := c.write(certificateFile, b.Bytes()); err != nil {
		return nil, err
	}
	return cert, c.dropOrder()
}

func parse(b []byte) (*tls.Certificate, error) {
	cert, err := tls.X509KeyPair(b, b)
	if err != nil {
		return nil, err
	}
	if cert.Leaf == nil { // GODEBUG x509keypairleaf=0
		cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0])
	}
	return &cert, err
}

// readCertificate is the one that was kept; nil when there is none, or when it is not for all names of now.
func (c *Client) readCertificate() (*tls.Certificate, error) {
	b, err := os.ReadFile(c.path(certificateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no certificate is no error
	}
	if err != nil {
		return nil, fmt.Errorf("read the certificate by ACME: %w", err)
	}
	cert, err := parse(b)
	if err != nil {
		c.o.Log.Warn("certificate by ACME could not be read; another one is ordered", "file", c.path(certificateFile), "error", err)
		return nil, nil //nolint:nilnil // as above
	}
	for _, n := range c.o.Names {
		if cert.Leaf.VerifyHostname(n) != nil {
			c.o.Log.Info("certificate by ACME is not for all names; another one is ordered", "name", n)
			return nil, nil //nolint:nilnil,nilerr // as above
		}
	}
	return cert, nil
}
