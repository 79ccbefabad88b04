package appstream

import (
	"crypto/ed25519"
	"errors"
	"time"
)

// Grant is what a streaming URL lets its bearer do: use one stack and fleet, or one builder, as one user until it expires.
type Grant struct {
	Purpose     Purpose   `json:"p"`
	Stack       string    `json:"st"`
	Fleet       string    `json:"fl"`
	Builder     BuilderID `json:"b,omitempty"` // instead of stack and fleet
	Made        time.Time `json:"m,omitzero"`  // when the builder was: one made later with its name is another one
	UserID      string    `json:"u"`
	Application string    `json:"a,omitempty"` // starts at once; empty: the user chooses
	Context     string    `json:"c,omitempty"` // SessionContext
	Expires     time.Time `json:"x"`
}

// Purpose keeps signed things apart: what was made for one use is refused for another.
type Purpose string

// ForStreamingURL is the purpose of what stands in a URL that an API caller hands to a user.
const ForStreamingURL Purpose = "streaming-url"

// maxGrant bounds what VerifyGrant looks at, in bytes.
const maxGrant = 8192

// Why a streaming URL is not accepted.
var (
	ErrGrantInvalid = errors.New("streaming URL is not valid")
	ErrGrantExpired = errors.New("streaming URL expired")
)

// SignGrant makes the text form of a grant.
func SignGrant(key ed25519.PrivateKey, g Grant) (string, error) {
	return signToken(key, g)
}

// VerifyGrant checks form, signature, purpose and expiry.
func VerifyGrant(token string, key ed25519.PublicKey, purpose Purpose, now time.Time) (Grant, error) {
	var g Grant
	if len(token) > maxGrant {
		return g, ErrGrantInvalid
	}
	payload, sig, err := splitToken(token, &g)
	if err != nil || g.Purpose != purpose || !ed25519.Verify(key, payload, sig) {
		return Grant{}, ErrGrantInvalid
	}
	if !now.Before(g.Expires) {
		return g, ErrGrantExpired
	}
	return g, nil
}
