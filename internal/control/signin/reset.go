package signin

import (
	"context"
	"crypto/subtle"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/state"
)

const (
	resetLife  = 24 * time.Hour
	resetPause = time.Minute // between two mails to one user
	resetTries = 5           // wrong codes before the code is void
	// maxResetRequests may wait to be looked at; more are dropped: the user asks again.
	maxResetRequests = 256
	resetFailures    = "reset"
)

type resetRequest struct {
	user   string
	client Client
}

// RequestReset has a code mailed to a user who forgot the password. The answer is the same, and as fast, whoever the name belongs
// to: the request is looked at later.
func (s *Service) RequestReset(name string, c Client) {
	if name == "" || len(name) > maxNameBytes {
		return
	}
	if _, err := s.failures.attempt(s.Now(), counters("reset request", name, c.Source)); err != nil {
		return
	}
	select {
	case s.resets <- resetRequest{name, c}:
	default:
		s.Log.Warn("request for a new password was dropped: too many wait")
	}
}

func (s *Service) serveResets(ctx context.Context) error {
	for {
		select {
		case q := <-s.resets:
			if err := s.reset(ctx, q); err != nil && ctx.Err() == nil {
				s.Log.Warn("request for a new password failed", "error", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// reset mails a code to a user who once chose a password; others ask an administrator, as in AppStream.
func (s *Service) reset(ctx context.Context, q resetRequest) error {
	now, code := s.Now().UTC(), randomText(12)
	sent := false
	_, err := s.Store.Update(ctx, func(tx state.Tx) error {
		sent = false
		u, ok, err := appstream.Users.Get(tx, q.user)
		if err != nil || !ok || !u.Enabled || u.Status != appstream.UserConfirmed {
			return err
		}
		cred, ok, err := credentials.Get(tx, q.user)
		if err != nil || !ok || cred.Temporary || cred.ResetExpires.Sub(now) > resetLife-resetPause {
			return err
		}
		cred.Reset, cred.ResetExpires, cred.ResetTries = tokenID(plainCode(code)), now.Add(resetLife), 0
		if err := credentials.Put(tx, cred); err != nil {
			return err
		}
		sent = true
		return s.post(tx, s.resetMail(u, code), resetLife)
	})
	if sent || err != nil {
		s.audit("RequestNewPassword", poolVisitor(q.user), q.client, err)
	}
	return err
}

// Reset sets a new password with the code of a mail, and ends every sign-in of the user. The user signs in then, with the second
// factor where there is one.
func (s *Service) Reset(ctx context.Context, name, code, password string, c Client) error {
	err := s.confirmReset(ctx, name, plainCode(code), password, c)
	s.auditName(ctx, "ChangePassword", name, c, err)
	return err
}

func (s *Service) confirmReset(ctx context.Context, name, code, password string, c Client) error {
	wrong := &Refusal{Code: CodeWrongCode, Reason: "the code is wrong, was used before or has expired"}
	if name == "" || len(name) > maxNameBytes || len(code) > 64 {
		return wrong
	}
	count := counters(resetFailures, name, c.Source)
	if _, err := s.failures.attempt(s.Now(), count); err != nil {
		return err
	}
	// The password is looked at first: what is wrong with it is told without using up the code, and to everybody alike.
	if err := checkPassword(password, name); err != nil {
		s.failures.undo(count)
		return err
	}
	hash, err := s.Hasher.Hash(ctx, password)
	if err != nil {
		s.failures.undo(count)
		return err
	}
	right := false
	_, err = s.Store.Update(ctx, func(tx state.Tx) error {
		right = false
		cred, ok, err := credentials.Get(tx, name)
		if err != nil || !ok || cred.Reset == "" {
			return err
		}
		if !s.Now().Before(cred.ResetExpires) || cred.ResetTries >= resetTries {
			return nil
		}
		if subtle.ConstantTimeCompare([]byte(cred.Reset), []byte(tokenID(code))) != 1 {
			cred.ResetTries++
			return credentials.Put(tx, cred)
		}
		right = true
		_, err = s.setPassword(tx, name, hash)
		return err
	})
	if err != nil {
		return err
	}
	if !right {
		return wrong
	}
	s.failures.succeeded(count)
	s.failures.forget(passwordFailures, name)
	return nil
}
