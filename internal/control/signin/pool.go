package signin

import (
	"context"
	"net/mail"
	"strings"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
)

// temporaryLife is how long a temporary password works (AppStream: 7 days).
const temporaryLife = 7 * 24 * time.Hour

// What CreateUser does about the welcome mail (MessageAction).
const (
	Welcome  = ""
	Suppress = "SUPPRESS"
	Resend   = "RESEND"
)

// NewUser is what CreateUser sends.
type NewUser struct {
	Name                string
	FirstName, LastName *string
	Message             string // Welcome, Suppress or Resend
}

// CreateUser adds a user to the pool, enabled, with a temporary password in a mail of its own. Resend makes and mails another
// temporary password for a user who never chose one. With Suppress no password is made: the user signs in after a Resend.
func (s *Service) CreateUser(ctx context.Context, n NewUser) error {
	if err := checkUserName(n.Name); err != nil {
		return err
	}
	if n.Message == Resend && (n.FirstName != nil || n.LastName != nil) {
		return fault.New(fault.Combination, "messageAction", "", "RESEND takes no firstName and no lastName")
	}
	var password, hash string
	if n.Message != Suppress {
		var err error
		password = randomText(16)
		if hash, err = s.Hasher.Hash(ctx, plainCode(password)); err != nil {
			return err
		}
	}
	_, err := s.Store.Update(ctx, func(tx state.Tx) error {
		u, err := s.created(tx, n)
		if err != nil || n.Message == Suppress {
			return err
		}
		c := &credential{User: u.Name, Hash: hash, Temporary: true, Expires: s.Now().UTC().Add(temporaryLife)}
		if err := credentials.Put(tx, c); err != nil {
			return err
		}
		return s.post(tx, s.welcome(u, password), temporaryLife)
	})
	if err == nil {
		s.failures.forget(passwordFailures, n.Name)
	}
	return err
}

// created writes a new user, or finds the one whose mail is sent again.
func (s *Service) created(tx state.Tx, n NewUser) (*appstream.User, error) {
	u, ok, err := appstream.Users.Get(tx, n.Name)
	if err != nil {
		return nil, err
	}
	if n.Message == Resend {
		switch {
		case !ok:
			return nil, fault.New(fault.Combination, "messageAction", "", "RESEND is for a user who exists")
		case u.Status != appstream.UserUnconfirmed:
			return nil, fault.New(fault.NotPermitted, "user", u.Name, "the user has chosen a password; the mail cannot be sent again")
		case !u.Enabled:
			return nil, fault.New(fault.NotPermitted, "user", u.Name, "the user is disabled; enable it first").WithCode("InvalidAccountStatusException")
		}
		return u, nil
	}
	if ok {
		return nil, fault.New(fault.AlreadyExists, "user", n.Name, "a user with this name exists")
	}
	count, err := tx.Count(appstream.Users.Kind, state.Key{})
	if err != nil {
		return nil, err
	}
	if count >= s.UserQuota {
		return nil, fault.Newf(fault.Limit, "user", n.Name, "the pool has its quota of %d users", s.UserQuota)
	}
	u = &appstream.User{Name: n.Name, Enabled: true, Status: appstream.UserUnconfirmed, Created: s.Now().UTC()}
	if n.FirstName != nil {
		u.FirstName = *n.FirstName
	}
	if n.LastName != nil {
		u.LastName = *n.LastName
	}
	return u, appstream.Users.Put(tx, u)
}

// checkUserName refuses what is not one plain e-mail address.
func checkUserName(name string) error {
	a, err := mail.ParseAddress(name)
	_, host, _ := strings.Cut(name, "@")
	if err != nil || a.Address != name || a.Name != "" || strings.ContainsAny(name, " \t\r\n<>\"") || !strings.Contains(host, ".") && host != "localhost" {
		return fault.New(fault.Invalid, "userName", "", "it must be an e-mail address")
	}
	return nil
}

// DeleteUser removes a user with all secrets, associations and sign-ins. Running sessions go on until they end.
func (s *Service) DeleteUser(ctx context.Context, name string) error {
	return s.change(ctx, name, func(tx state.Tx, u *appstream.User) error {
		as, err := appstream.UserStacks.By(tx, "user", name)
		if err != nil {
			return err
		}
		for _, a := range as {
			if err := appstream.UserStacks.Delete(tx, appstream.UserStacks.ID(a)); err != nil {
				return err
			}
		}
		if err := endAll(tx, poolVisitor(name)); err != nil {
			return err
		}
		if err := credentials.Delete(tx, name); err != nil {
			return err
		}
		return appstream.Users.Delete(tx, u.Name)
	})
}

// SetUserEnabled switches a user on or off. A user who is switched off is signed out everywhere; running sessions go on.
func (s *Service) SetUserEnabled(ctx context.Context, name string, enabled bool) error {
	return s.change(ctx, name, func(tx state.Tx, u *appstream.User) error {
		u.Enabled = enabled
		if !enabled {
			if err := endAll(tx, poolVisitor(name)); err != nil {
				return err
			}
		}
		return appstream.Users.Put(tx, u)
	})
}

func (s *Service) change(ctx context.Context, name string, fn func(state.Tx, *appstream.User) error) error {
	_, err := s.Store.Update(ctx, func(tx state.Tx) error {
		u, ok, err := appstream.Users.Get(tx, name)
		if err != nil {
			return err
		}
		if !ok {
			return fault.New(fault.NotFound, "user", name, "the pool has no user with this name")
		}
		return fn(tx, u)
	})
	return err
}

// Users lists the pool in order of names, and the name to go on after when there are more.
func (s *Service) Users(ctx context.Context, after string, limit int) (out []*appstream.User, next string, err error) {
	out, err = state.Read(ctx, s.Store, func(r state.Reader) ([]*appstream.User, error) {
		return appstream.Users.List(r, state.Query{After: after, Limit: limit + 1})
	})
	if len(out) > limit {
		out = out[:limit]
		next = out[limit-1].Name
	}
	return out, next, err
}

// HasUsers reports whether anybody could sign in by a password.
func (s *Service) HasUsers(ctx context.Context) (bool, error) {
	return state.Read(ctx, s.Store, func(r state.Reader) (bool, error) {
		n, err := r.Count(appstream.Users.Kind, state.Key{})
		return n > 0, err
	})
}

// Link is one user and one stack of a batch.
type Link struct {
	User, Stack string
	Notify      bool // SendEmailNotification
}

// LinkError is why one of a batch was not done.
type LinkError struct {
	Link
	Code, Message string // UserStackAssociationErrorCode
}

// Associate lets users use stacks; what cannot be done is answered and does not keep the rest from being done.
func (s *Service) Associate(ctx context.Context, links []Link) ([]LinkError, error) {
	return s.batch(ctx, links, func(tx state.Tx, l Link, u *appstream.User, st *appstream.Stack) error {
		if err := appstream.UserStacks.Put(tx, &appstream.UserStack{UserName: l.User, StackName: l.Stack}); err != nil || !l.Notify {
			return err
		}
		return s.post(tx, s.assigned(u, st), temporaryLife)
	})
}

// Disassociate undoes Associate. Sessions that run go on until they end.
func (s *Service) Disassociate(ctx context.Context, links []Link) ([]LinkError, error) {
	return s.batch(ctx, links, func(tx state.Tx, l Link, u *appstream.User, st *appstream.Stack) error {
		a := appstream.UserStack{UserName: l.User, StackName: l.Stack}
		if err := appstream.UserStacks.Delete(tx, appstream.UserStacks.ID(&a)); err != nil || !l.Notify {
			return err
		}
		return s.post(tx, s.removed(u, st), temporaryLife)
	})
}

func (s *Service) batch(ctx context.Context, links []Link, fn func(state.Tx, Link, *appstream.User, *appstream.Stack) error) ([]LinkError, error) {
	return state.Write(ctx, s.Store, func(tx state.Tx) ([]LinkError, error) {
		var failed []LinkError
		for _, l := range links {
			st, ok, err := appstream.Stacks.Get(tx, l.Stack)
			if err != nil {
				return nil, err
			}
			if !ok {
				failed = append(failed, LinkError{l, "STACK_NOT_FOUND", "there is no stack " + l.Stack})
				continue
			}
			u, ok, err := appstream.Users.Get(tx, l.User)
			if err != nil {
				return nil, err
			}
			if !ok {
				failed = append(failed, LinkError{l, "USER_NAME_NOT_FOUND", "the pool has no user " + l.User})
				continue
			}
			if err := fn(tx, l, u, st); err != nil {
				return nil, err
			}
		}
		return failed, nil
	})
}

// Links lists associations of a stack, of a user or of both, in order of stack and user, and where to go on when there are more.
func (s *Service) Links(ctx context.Context, stack, user, after string, limit int) (out []*appstream.UserStack, next string, err error) {
	out, err = state.Read(ctx, s.Store, func(r state.Reader) ([]*appstream.UserStack, error) {
		if stack != "" && user != "" {
			a, ok, err := appstream.UserStacks.Get(r, appstream.UserStacks.ID(&appstream.UserStack{UserName: user, StackName: stack}))
			if err != nil || !ok {
				return nil, err
			}
			return []*appstream.UserStack{a}, nil
		}
		by := state.Key{Name: "stack", Value: stack}
		if stack == "" {
			by = state.Key{Name: "user", Value: user}
		}
		return appstream.UserStacks.List(r, state.Query{By: by, After: after, Limit: limit + 1})
	})
	if len(out) > limit {
		out = out[:limit]
		next = appstream.UserStacks.ID(out[limit-1])
	}
	return out, next, err
}
