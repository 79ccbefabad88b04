package state

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
)

// Sealer is AES-256-GCM with random nonces, under a key for one purpose that is derived from the data directory's seed. What must
// not lie in the store in the clear goes through one.
func Sealer(seed []byte, purpose string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, seed, nil, purpose, 32)
	if err != nil {
		return nil, fmt.Errorf("derive the key of %s: %w", purpose, err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
