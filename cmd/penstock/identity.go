package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"penstock.dev/penstock/internal/iam"
)

// identity is what a data directory is from its first start on: the account, its root access key and the signing key.
type identity struct {
	AccountID   string    `json:"accountId"`
	AccessKeyID string    `json:"accessKeyId"`
	Secret      string    `json:"secretAccessKey"`
	Seed        []byte    `json:"signingSeed"` // Ed25519
	Created     time.Time `json:"created"`
}

// loadIdentity reads DIR/identity.json, or makes it on the first start (mode 0600).
func loadIdentity(dir string) (identity, error) {
	path := filepath.Join(dir, "identity.json")
	var id identity
	b, err := os.ReadFile(path)
	switch {
	case err == nil:
		if err := json.Unmarshal(b, &id); err != nil {
			return id, fmt.Errorf("%s is damaged: %w", path, err)
		}
		if len(id.Seed) != ed25519.SeedSize || id.AccountID == "" || id.AccessKeyID == "" || id.Secret == "" {
			return id, fmt.Errorf("%s is damaged: a member is missing", path)
		}
		return id, nil
	case !errors.Is(err, fs.ErrNotExist):
		return id, err
	}
	id = newIdentity()
	b, err = json.MarshalIndent(id, "", "  ")
	if err != nil {
		return id, err
	}
	return id, writeFile(path, append(b, '\n'))
}

func newIdentity() identity {
	n, err := rand.Int(rand.Reader, big.NewInt(9e11))
	if err != nil {
		n = big.NewInt(0) // crypto/rand never fails
	}
	key, secret, seed := make([]byte, 10), make([]byte, 30), make([]byte, ed25519.SeedSize)
	for _, b := range [][]byte{key, secret, seed} {
		_, _ = rand.Read(b) // never fails
	}
	return identity{
		AccountID:   fmt.Sprintf("%012d", n.Int64()+1e11),
		AccessKeyID: "AKIA" + base32.StdEncoding.EncodeToString(key),
		Secret:      base64.StdEncoding.EncodeToString(secret),
		Seed:        seed,
		Created:     time.Now().UTC().Truncate(time.Second),
	}
}

func (id identity) signingKey() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(id.Seed) }

// root is the credential of the account's root.
func (id identity) root() iam.Credential {
	return iam.Credential{AccessKeyID: id.AccessKeyID, Secret: id.Secret, Principal: iam.RootOf(id.AccountID)}
}

// writeFile replaces a file whole or not at all, mode 0600.
func writeFile(path string, body []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(body)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	return nil
}
