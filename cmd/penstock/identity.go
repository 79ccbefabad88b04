package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"time"

	"penstock.dev/penstock/internal/iam"
)

// identity is what a data directory is from its first start on: the account, its root access key and the signing key.
//
// Everything secret in the data directory hangs on the seed: users' access keys and session tokens are sealed under keys derived from it.
// With a key file, seed and root's secret are sealed themselves, so that the directory alone opens nothing.
type identity struct {
	AccountID   string    `json:"accountId"`
	AccessKeyID string    `json:"accessKeyId"`
	Secret      string    `json:"secretAccessKey,omitempty"`
	Seed        []byte    `json:"signingSeed,omitempty"` // Ed25519
	Created     time.Time `json:"created"`
	RootSince   time.Time `json:"rootKeySince,omitzero"` // root's key was replaced then; what it had signed for before is over
	Sealed      *sealed   `json:"sealed,omitempty"`      // in the place of secret and seed
}

// sealed is secret and seed under the key of a key file: AES-256-GCM, the key by PBKDF2-HMAC-SHA-256 over the file's content.
type sealed struct {
	Salt       []byte `json:"salt"`
	Iterations int    `json:"iterations"`
	Box        []byte `json:"box"` // nonce and ciphertext, bound to account and access key ID
}

// secrets are what a key file seals.
type secrets struct {
	Secret string `json:"secretAccessKey"`
	Seed   []byte `json:"signingSeed"`
}

const (
	keyIterations    = 600_000 // a passphrase in a key file costs who guesses it
	maxKeyIterations = 10_000_000
	minKeyBytes      = 16 // of a key file
	maxKeyBytes      = 4096
)

var errSealed = errors.New("the identity is sealed with a key file; name it with --key-file")

// readKeyFile reads a key file: random bytes or a passphrase, in one piece. White space at its ends does not count.
func readKeyFile(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read the key file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("key file %s can be read by others (mode %04o); chmod 600 it", path, info.Mode().Perm())
	}
	if info.Size() > maxKeyBytes {
		return nil, fmt.Errorf("key file %s is larger than %d bytes", path, maxKeyBytes)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the key file: %w", err)
	}
	key := []byte(strings.TrimSpace(string(b)))
	if len(key) < minKeyBytes {
		return nil, fmt.Errorf("key file %s holds %d bytes; at least %d are wanted, such as from: head -c 32 /dev/urandom | base64", path, len(key), minKeyBytes)
	}
	return key, nil
}

func identityPath(dir string) string { return filepath.Join(dir, "identity.json") }

// loadIdentity reads DIR/identity.json, or makes it on the first start (mode 0600). With a key file's content it is sealed; one that is
// not sealed yet gets sealed then. The account ID is that of a new identity and must be that of an older one; "": any.
func loadIdentity(dir string, key []byte, accountID string) (identity, error) {
	id, err := readIdentity(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		id = newIdentity()
		if accountID != "" {
			id.AccountID = accountID
		}
		return id, id.write(dir, key)
	case err != nil:
		return id, err
	}
	if accountID != "" && id.AccountID != accountID {
		return id, fmt.Errorf("account ID %s: the data directory is of account %s, and an account keeps its ID", accountID, id.AccountID)
	}
	wasSealed := id.Sealed != nil
	if err := id.open(key); err != nil {
		return id, fmt.Errorf("%s: %w", identityPath(dir), err)
	}
	if key != nil && !wasSealed {
		return id, id.write(dir, key)
	}
	return id, nil
}

// readIdentity reads the file as it is.
func readIdentity(dir string) (id identity, err error) {
	path := identityPath(dir)
	b, err := os.ReadFile(path)
	if err != nil {
		return id, err
	}
	if err := json.Unmarshal(b, &id); err != nil {
		return id, fmt.Errorf("%s is damaged: %w", path, err)
	}
	if id.AccountID == "" || id.AccessKeyID == "" || id.Sealed == nil && (len(id.Seed) != ed25519.SeedSize || id.Secret == "") {
		return id, fmt.Errorf("%s is damaged: a member is missing", path)
	}
	return id, nil
}

// open unseals an identity.
func (id *identity) open(key []byte) error {
	if id.Sealed == nil {
		return nil
	}
	if key == nil {
		return errSealed
	}
	box, err := id.Sealed.cipher(key)
	if err != nil {
		return err
	}
	b, err := box.Open(nil, nil, id.Sealed.Box, id.bound())
	if err != nil {
		return errors.New("the key file is not the one that this data directory was sealed with")
	}
	var s secrets
	if err := json.Unmarshal(b, &s); err != nil || len(s.Seed) != ed25519.SeedSize || s.Secret == "" {
		return errors.New("the sealed part is damaged")
	}
	id.Secret, id.Seed, id.Sealed = s.Secret, s.Seed, nil
	return nil
}

func (id *identity) bound() []byte { return []byte(id.AccountID + " " + id.AccessKeyID) }

func (s *sealed) cipher(key []byte) (cipher.AEAD, error) {
	if len(s.Salt) < 16 || s.Iterations < 1 || s.Iterations > maxKeyIterations {
		return nil, errors.New("the sealed part is damaged")
	}
	k, err := pbkdf2.Key(sha256.New, string(key), s.Salt, s.Iterations, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(k)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// write replaces the file, sealed when there is a key.
func (id identity) write(dir string, key []byte) error {
	if key != nil {
		s := &sealed{Salt: make([]byte, 16), Iterations: keyIterations}
		_, _ = rand.Read(s.Salt) // never fails
		plain, err := json.Marshal(secrets{id.Secret, id.Seed})
		if err != nil {
			return err
		}
		box, err := s.cipher(key)
		if err != nil {
			return err
		}
		s.Box = box.Seal(nil, nil, plain, id.bound())
		id.Secret, id.Seed, id.Sealed = "", nil, s
	}
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(identityPath(dir), append(b, '\n'))
}

func newIdentity() identity {
	n, err := rand.Int(rand.Reader, big.NewInt(9e11))
	if err != nil {
		n = big.NewInt(0) // crypto/rand never fails
	}
	id := identity{AccountID: fmt.Sprintf("%012d", n.Int64()+1e11), Seed: make([]byte, ed25519.SeedSize), Created: time.Now().UTC().Truncate(time.Second)}
	_, _ = rand.Read(id.Seed)
	id.newRootKey()
	return id
}

// newRootKey gives the account's root another access key.
func (id *identity) newRootKey() {
	key, secret := make([]byte, 10), make([]byte, 30)
	for _, b := range [][]byte{key, secret} {
		_, _ = rand.Read(b) // never fails
	}
	id.AccessKeyID, id.Secret = "AKIA"+base32.StdEncoding.EncodeToString(key), base64.StdEncoding.EncodeToString(secret)
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
