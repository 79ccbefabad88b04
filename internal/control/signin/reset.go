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
// to: the request is looked at later. It fails for everybody while nothing can go on record.
func (s *Service) RequestReset(name string, c Client) error {
	if err := s.recordable(); err != nil {
		return err
	}
	if name == "" || len(name) > maxNameBytes {
		return nil
	}
	if _, err := s.failures.attempt(s.Now(), counters("reset request", name, c.Source)); err != nil {
		return nil // nobody is told
	}
	select {
	case s.resets <- resetRequest{name, c}:
	default:
		s.Log.Warn("request for a new password was dropped: too many wait")
	}
	return nil
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
		cred.Reset, cred.ResetExpires = tokenID(plainCode(code)), now.Add(resetLife)
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
	if err := s.recordable(); err != nil {
		return err
	}
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
	if _, err := s.attempt(ctx, count); err != nil {
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
	// A wrong code writes nothing, whoever the name belongs to: the time of a write would tell who asked for a code.
	cred, err := s.credential(ctx, name)
	if err != nil {
		return err
	}
	if !s.rightCode(cred, code) {
		s.failures.count(s.Now(), tries(cred))
		return wrong
	}
	_, err = s.Store.Update(ctx, func(tx state.Tx) error {
		now, ok, err := credentials.Get(tx, name)
		if err == nil && (!ok || now.Reset != cred.Reset) { // used or replaced since
			err = wrong
		}
		if err == nil {
			_, err = s.setPassword(tx, name, hash)
		}
		return err
	})
	if err != nil {
		return err
	}
	s.failures.succeeded(count)
	s.failures.forget(passwordFailures, name)
	return nil
}

// tries count the wrong codes against the code of one mail, wherever they came from.
func tries(c *credential) []counter {
	return []counter{{key: "reset code " + c.Reset, free: resetTries}}
}

// rightCode reports whether a code is that of the newest mail, which is good for a time and for some tries.
func (s *Service) rightCode(c *credential, code string) bool {
	same := subtle.ConstantTimeCompare([]byte(c.Reset), []byte(tokenID(code))) == 1
	return same && s.Now().Before(c.ResetExpires) && s.failures.so(tries(c)[0].key) < resetTries
}
