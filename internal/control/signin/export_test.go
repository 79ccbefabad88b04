package signin

import (
	"encoding/base32"
	"time"
)

// CodeOf is what an authenticator app shows.
func CodeOf(secret string, at time.Time) string {
	seed, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(secret)
	if err != nil {
		return ""
	}
	return totp(seed, stepAt(at))
}
