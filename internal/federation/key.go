package federation

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

const (
	keyBits = 3072
	keyFile = "saml.pem"
	// keyLife is long: providers pin the certificate, and nobody checks its end.
	keyLife = 10 * 365 * 24 * time.Hour
)

// samlKey reads the key with which requests are signed and assertions are decrypted, or makes it on the first start (mode 0600).
func samlKey(dir string) (*rsa.PrivateKey, *x509.Certificate, error) {
	path := filepath.Join(dir, keyFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if b, err = newSAMLKey(); err == nil {
			err = writeKey(dir, path, b)
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("key of SAML: %w", err)
	}
	damaged := fmt.Errorf("key of SAML: %s is damaged", path)
	keyBlock, rest := pem.Decode(b)
	certBlock, _ := pem.Decode(rest)
	if keyBlock == nil || certBlock == nil {
		return nil, nil, damaged
	}
	key, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, nil, errors.Join(damaged, err)
	}
	rsaKey, ok := key.(*rsa.PrivateKey)
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if !ok || err != nil || !rsaKey.PublicKey.Equal(cert.PublicKey) {
		return nil, nil, errors.Join(damaged, err)
	}
	return rsaKey, cert, nil
}

func newSAMLKey() ([]byte, error) {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Penstock SAML"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(keyLife),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	}
	cert, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})...), nil
}

// writeKey writes the file whole or not at all.
func writeKey(dir, path string, b []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".saml-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
