package appstream

import (
	"crypto/ed25519"
	"errors"
	"time"
)

// Grant is what a streaming URL lets its bearer do: use one stack and fleet as one user until it expires.
type Grant struct {
	Purpose     string    `json:"p"` // GrantPurpose; keeps grants and tickets apart
	Stack       string    `json:"st"`
	Fleet       string    `json:"fl"`
	UserID      string    `json:"u"`
	Application string    `json:"a,omitempty"` // starts at once; empty: the user chooses
	Context     string    `json:"c,omitempty"` // SessionContext
	Resolution  string    `json:"r,omitempty"` // WIDTHxHEIGHT
	Expires     time.Time `json:"x"`
}

// GrantPurpose marks grants.
const GrantPurpose = "streaming-url"

// maxGrant bounds what VerifyGrant looks at, in bytes.
const maxGrant = 8192

// Why a streaming URL is not accepted.
var (
	ErrGrantInvalid = errors.New("streaming URL is not valid")
	ErrGrantExpired = errors.New("streaming URL expired")
)

// SignGrant makes the text form that a streaming URL carries.
func SignGrant(key ed25519.PrivateKey, g Grant) (string, error) {
	g.Purpose = GrantPurpose
	return signToken(key, g)
}

// VerifyGrant checks form, signature, purpose and expiry.
func VerifyGrant(token string, key ed25519.PublicKey, now time.Time) (Grant, error) {
	var g Grant
	if len(token) > maxGrant {
		return g, ErrGrantInvalid
	}
	payload, sig, err := splitToken(token, &g)
	if err != nil || g.Purpose != GrantPurpose || !ed25519.Verify(key, payload, sig) {
		return Grant{}, ErrGrantInvalid
	}
	if !now.Before(g.Expires) {
		return g, ErrGrantExpired
	}
	return g, nil
}
