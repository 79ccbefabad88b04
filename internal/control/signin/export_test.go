package signin

import (
	"context"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"penstock.dev/penstock/internal/state"
)

// CodeOf is what an authenticator app shows.
func CodeOf(secret string, at time.Time) string {
	seed, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(secret)
	if err != nil {
		return ""
	}
	return totp(seed, stepAt(at))
}

// WaitingPassword is the temporary password of the only mail that waits.
func (s *Service) WaitingPassword(ctx context.Context) (string, error) {
	return state.Read(ctx, s.Store, func(r state.Reader) (string, error) {
		all, err := mails.List(r, state.Query{})
		if err != nil || len(all) != 1 {
			return "", fmt.Errorf("%d mails wait: %w", len(all), err)
		}
		body, err := s.sealed.Open(nil, nil, all[0].Sealed, []byte("mail "+all[0].ID))
		if err != nil {
			return "", err
		}
		var m Mail
		if err := json.Unmarshal(body, &m); err != nil {
			return "", err
		}
		_, after, _ := strings.Cut(m.Text, "temporary password  ")
		password, _, _ := strings.Cut(after, "\n")
		return password, nil
	})
}
