package signin

import (
	"context"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
)

// credential is what a user of the pool can prove. Nothing in it can be turned back into what the user knows, except the seed of
// the second factor, which is sealed.
type credential struct {
	User      string
	Hash      string    // of the password
	Temporary bool      `json:",omitempty"`
	Expires   time.Time `json:",omitzero"` // of a temporary password

	Factor   []byte   `json:",omitempty"` // sealed seed of the second factor
	LastStep int64    `json:",omitempty"` // newest time step of which a code was accepted; older ones are refused
	Recovery []string `json:",omitempty"` // SHA-256 of the recovery codes that are left

	Reset        string    `json:",omitempty"` // SHA-256 of the code in a mail
	ResetExpires time.Time `json:",omitzero"`
}

var credentials = state.Table[credential]{Kind: "user-credential", ID: func(c *credential) string { return c.User }}

// What failures are counted for.
const (
	passwordFailures = "password"
	codeFailures     = "code"
)

// maxNameBytes bounds what is looked at of a name that somebody typed.
const maxNameBytes = 512

// PasswordSignIn begins a sign-in of a user of the pool. The token's step says what is still missing. Whether the name or the password
// was wrong is told to nobody, and takes the same time.
func (s *Service) PasswordSignIn(ctx context.Context, name, password string, c Client, earlier string) (Token, error) {
	if err := s.recordable(); err != nil {
		return Token{}, err
	}
	t, err := s.passwordSignIn(ctx, name, password, c, earlier)
	if err != nil || t.Step == StepDone {
		s.auditName(ctx, "SignIn", name, c, err)
	} else {
		s.audit("CheckPassword", poolVisitor(name), c, nil)
	}
	return t, err
}

func (s *Service) passwordSignIn(ctx context.Context, name, password string, c Client, earlier string) (Token, error) {
	wrong := &Refusal{Code: CodeWrong, Reason: "the user name or the password is wrong"}
	if name == "" || len(name) > maxNameBytes || password == "" || len(password) > 4*maxPassword {
		return Token{}, wrong
	}
	count := counters(passwordFailures, name, c.Source)
	locked, err := s.attempt(ctx, count)
	if err != nil {
		return Token{}, err
	}
	cred, err := s.credential(ctx, name)
	if err != nil {
		s.failures.undo(count)
		return Token{}, err
	}
	typed := password
	if cred.Temporary {
		typed = plainCode(password)
	}
	ok, stale, err := s.Hasher.Verify(ctx, cred.Hash, typed)
	if err != nil {
		s.failures.undo(count)
		return Token{}, err
	}
	if !ok {
		if locked {
			s.auditLockOut(ctx, name, c)
		}
		return Token{}, wrong
	}
	s.failures.succeeded(count)
	fresh := ""
	if stale {
		if fresh, err = s.Hasher.Hash(ctx, typed); err != nil {
			return Token{}, err
		}
	}
	return state.Write(ctx, s.Store, func(tx state.Tx) (Token, error) {
		now, ok, err := credentials.Get(tx, name)
		if err != nil {
			return Token{}, err
		}
		if !ok || now.Hash != cred.Hash { // changed while the password was hashed
			return Token{}, wrong
		}
		u, ok, err := appstream.Users.Get(tx, name)
		switch {
		case err != nil:
			return Token{}, err
		case !ok:
			return Token{}, wrong
		case !u.Enabled:
			return Token{}, &Refusal{Code: CodeDisabled, Reason: "your account is disabled; ask your administrator"}
		case now.Temporary && !s.Now().Before(now.Expires):
			return Token{}, &Refusal{Code: CodeExpired, Reason: "the temporary password has expired; ask your administrator for a new one"}
		}
		if fresh != "" {
			now.Hash = fresh
			if err := credentials.Put(tx, now); err != nil {
				return Token{}, err
			}
		}
		return s.begin(tx, SignIn{Step: s.stepAfterPassword(now), Visitor: poolVisitor(name), Client: c}, earlier)
	})
}

// credential is what a name's user can prove; of a name that nobody has, what nothing can prove.
func (s *Service) credential(ctx context.Context, name string) (*credential, error) {
	return state.Read(ctx, s.Store, func(r state.Reader) (*credential, error) {
		c, ok, err := credentials.Get(r, name)
		if err == nil && !ok {
			c = new(credential)
		}
		return c, err
	})
}

// stepAfterPassword is what a user has to do after the password was right. A temporary password is replaced before anything else,
// except that a second factor, where there is one, comes first: whoever found the mail must not choose the password.
func (s *Service) stepAfterPassword(c *credential) Step {
	switch {
	case len(c.Factor) > 0:
		return StepFactor
	case c.Temporary:
		return StepNewPassword
	case s.SecondFactor == FactorRequired:
		return StepEnrol
	}
	return StepDone
}

// stepAfterFactor is what is left when the second factor was right.
func stepAfterFactor(c *credential) Step {
	if c.Temporary {
		return StepNewPassword
	}
	return StepDone
}

// ChooseNewPassword replaces a temporary password and goes on with the sign-in.
func (s *Service) ChooseNewPassword(ctx context.Context, token, password string, c Client) (Token, error) {
	if err := s.recordable(); err != nil {
		return Token{}, err
	}
	si, err := state.Read(ctx, s.Store, func(r state.Reader) (*SignIn, error) { return s.at(r, token, StepNewPassword) })
	if err != nil {
		return Token{}, err
	}
	user := si.Visitor.UserID
	hash, err := s.newHash(ctx, user, password)
	var t Token
	if err == nil {
		t, err = state.Write(ctx, s.Store, func(tx state.Tx) (Token, error) {
			si, err := s.at(tx, token, StepNewPassword)
			if err != nil {
				return Token{}, err
			}
			cred, err := s.setPassword(tx, user, hash)
			if err != nil {
				return Token{}, err
			}
			next := StepDone
			if len(cred.Factor) == 0 && s.SecondFactor == FactorRequired {
				next = StepEnrol
			}
			return s.promote(tx, si, token, next)
		})
	}
	s.audit("ChangePassword", si.Visitor, c, err)
	if err == nil && t.Step == StepDone {
		s.audit("SignIn", si.Visitor, c, nil)
	}
	return t, err
}

// ChangePassword is for a user who is signed in and knows the password. Every other sign-in of the user ends.
func (s *Service) ChangePassword(ctx context.Context, token, old, password string, c Client) (Token, error) {
	si, err := s.proved(ctx, token, old, c)
	if err != nil {
		return Token{}, err
	}
	user := si.Visitor.UserID
	hash, err := s.newHash(ctx, user, password)
	var t Token
	if err == nil {
		t, err = state.Write(ctx, s.Store, func(tx state.Tx) (Token, error) {
			si, err := s.at(tx, token, StepDone)
			if err != nil {
				return Token{}, err
			}
			if _, err := s.setPassword(tx, user, hash); err != nil {
				return Token{}, err
			}
			return s.promote(tx, si, token, StepDone)
		})
	}
	s.audit("ChangePassword", si.Visitor, c, err)
	return t, err
}

// proved is the sign-in of a user of the pool who typed the password again.
func (s *Service) proved(ctx context.Context, token, password string, c Client) (*SignIn, error) {
	if err := s.recordable(); err != nil {
		return nil, err
	}
	si, err := state.Read(ctx, s.Store, func(r state.Reader) (*SignIn, error) { return s.at(r, token, StepDone) })
	if err != nil {
		return nil, err
	}
	if si.Visitor.Auth != appstream.AuthUserPool {
		return nil, fault.New(fault.NotPermitted, "user", "", "your password is not kept here")
	}
	user := si.Visitor.UserID
	count := counters(passwordFailures, user, c.Source)
	if _, err := s.attempt(ctx, count); err != nil {
		return nil, err
	}
	cred, err := s.credential(ctx, user)
	if err != nil {
		s.failures.undo(count)
		return nil, err
	}
	if len(password) > 4*maxPassword {
		password = ""
	}
	ok, _, err := s.Hasher.Verify(ctx, cred.Hash, password)
	if err != nil {
		s.failures.undo(count)
		return nil, err
	}
	if !ok {
		err := &Refusal{Code: CodeWrong, Reason: "the password is wrong"}
		s.audit("CheckPassword", si.Visitor, c, err)
		return nil, err
	}
	s.failures.succeeded(count)
	return si, nil
}

// newHash checks a password that a user chose and hashes it.
func (s *Service) newHash(ctx context.Context, user, password string) (string, error) {
	u, err := state.Read(ctx, s.Store, func(r state.Reader) (*appstream.User, error) {
		u, ok, err := appstream.Users.Get(r, user)
		if err == nil && !ok {
			err = &Refusal{Code: CodeEnded, Reason: "you are not signed in, or the sign-in has ended"}
		}
		return u, err
	})
	if err != nil {
		return "", err
	}
	if err := checkPassword(password, u.Name, u.FirstName, u.LastName); err != nil {
		return "", err
	}
	cred, err := s.credential(ctx, user)
	if err != nil {
		return "", err
	}
	same := password
	if cred.Temporary {
		same = plainCode(password)
	}
	if ok, _, err := s.Hasher.Verify(ctx, cred.Hash, same); err != nil {
		return "", err
	} else if ok {
		return "", &Refusal{Code: CodeWeak, Reason: "the password is the one that it replaces"}
	}
	return s.Hasher.Hash(ctx, password)
}

// setPassword writes a password that the user chose, and ends every sign-in of the user: the caller begins a new one.
func (s *Service) setPassword(tx state.Tx, user, hash string) (*credential, error) {
	u, ok, err := appstream.Users.Get(tx, user)
	if err != nil {
		return nil, err
	}
	if !ok || !u.Enabled {
		return nil, &Refusal{Code: CodeDisabled, Reason: "your account is disabled; ask your administrator"}
	}
	cred, ok, err := credentials.Get(tx, user)
	if err != nil {
		return nil, err
	}
	if !ok {
		cred = &credential{User: user}
	}
	cred.Hash, cred.Temporary, cred.Expires = hash, false, time.Time{}
	cred.Reset, cred.ResetExpires = "", time.Time{}
	if err := endAll(tx, poolVisitor(user)); err != nil {
		return nil, err
	}
	u.Status = appstream.UserConfirmed
	if err := appstream.Users.Put(tx, u); err != nil {
		return nil, err
	}
	return cred, credentials.Put(tx, cred)
}
