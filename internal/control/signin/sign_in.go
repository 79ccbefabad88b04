package signin

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/state"
)

// Step is how far a sign-in came. Only Done lets the browser see or start anything.
type Step string

// The steps, in their order.
const (
	StepNewPassword Step = "new-password"  // a temporary password was right; the user must choose one
	StepFactor      Step = "second-factor" // the password was right; a code is missing
	StepEnrol       Step = "enrol"         // a second factor must be added
	StepBind        Step = "bind"          // an identity provider vouched; the browser that asked for it is awaited
	StepDone        Step = "done"
)

const (
	stepLife = 15 * time.Minute // of a sign-in that is not done
	bindLife = time.Minute
	// maxSignIns bounds the sign-ins of one user; the oldest end. A streaming URL's user may be many people.
	maxSignIns = 100
	// purgeEvery is how often expired sign-ins are removed. They are refused from the moment they expire on.
	purgeEvery = 10 * time.Minute
)

// SignIn is one browser's sign-in as stored.
type SignIn struct {
	ID      string // SHA-256 of the token, hex
	Step    Step
	Visitor appstream.Visitor
	Created time.Time // of the first step
	Seen    time.Time
	Expires time.Time // in any case
	Until   time.Time `json:",omitzero"` // what the identity provider allows, at most
	Client  Client    // at the time of signing in
	Binding string    `json:",omitempty"` // at StepBind: what the browser that asked can show
	Enrol   []byte    `json:",omitempty"` // at StepEnrol: sealed seed of the second factor that is being added
}

// signIns is the table of sign-ins.
var signIns = state.Table[SignIn]{
	Kind: "sign-in",
	ID:   func(s *SignIn) string { return s.ID },
	Keys: func(s *SignIn) []state.Key { return []state.Key{{Name: "user", Value: userKey(s.Visitor)}} },
}

func userKey(v appstream.Visitor) string {
	return string(v.Auth) + " " + v.Provider + " " + v.UserID
}

// Token is what the browser keeps of a sign-in.
type Token struct {
	Value   string // 256 random bits, base64url
	Step    Step
	Expires time.Time
	// RecoveryCodes are told once, when a second factor was added.
	RecoveryCodes []string
}

func newToken() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func tokenID(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// begin writes a new sign-in and answers its token. It takes the place of an earlier one of the same browser.
func (s *Service) begin(tx state.Tx, si SignIn, earlier string) (Token, error) {
	token, now := newToken(), s.Now().UTC()
	si.ID, si.Seen = tokenID(token), now
	if si.Created.IsZero() {
		si.Created = now
	}
	si.Expires = now.Add(s.Life)
	if !si.Until.IsZero() && si.Until.Before(si.Expires) {
		si.Expires = si.Until
	}
	most := now.Add(stepLife)
	if si.Step == StepBind {
		most = now.Add(bindLife)
	}
	if si.Step != StepDone && si.Expires.After(most) {
		si.Expires = most
	}
	if earlier != "" {
		if err := signIns.Delete(tx, tokenID(earlier)); err != nil {
			return Token{}, err
		}
	}
	others, err := signIns.By(tx, "user", userKey(si.Visitor))
	if err != nil {
		return Token{}, err
	}
	slices.SortFunc(others, func(a, b *SignIn) int { return cmp.Or(a.Seen.Compare(b.Seen), cmp.Compare(a.ID, b.ID)) })
	for len(others) >= maxSignIns {
		if err := signIns.Delete(tx, others[0].ID); err != nil {
			return Token{}, err
		}
		others = others[1:]
	}
	return Token{Value: token, Step: si.Step, Expires: si.Expires}, signIns.Put(tx, &si)
}

// promote replaces a sign-in by one at another step, with a new token and all of its life.
func (s *Service) promote(tx state.Tx, si *SignIn, token string, to Step) (Token, error) {
	next := *si
	next.Step, next.Enrol, next.Binding = to, nil, ""
	return s.begin(tx, next, token)
}

// live refuses sign-ins that ended: expired, idle, or of a user who was disabled or deleted.
func (s *Service) live(r state.Reader, token string) (*SignIn, error) {
	ended := &Refusal{Code: CodeEnded, Reason: "you are not signed in, or the sign-in has ended"}
	if len(token) < 40 || len(token) > 64 {
		return nil, ended
	}
	si, ok, err := signIns.Get(r, tokenID(token))
	if err != nil {
		return nil, err
	}
	now := s.Now()
	if !ok || !now.Before(si.Expires) || now.Sub(si.Seen) >= s.Idle {
		return nil, ended
	}
	if si.Visitor.Auth == appstream.AuthUserPool {
		u, ok, err := appstream.Users.Get(r, si.Visitor.UserID)
		if err != nil {
			return nil, err
		}
		if !ok || !u.Enabled {
			return nil, ended
		}
	}
	return si, nil
}

// Lookup finds the sign-in of a token, at whatever step it is, and counts it as used.
func (s *Service) Lookup(ctx context.Context, token string) (*SignIn, error) {
	si, err := state.Read(ctx, s.Store, func(r state.Reader) (*SignIn, error) { return s.live(r, token) })
	if err != nil {
		return nil, err
	}
	if s.Now().Sub(si.Seen) < min(time.Minute, s.Idle/4) {
		return si, nil
	}
	return state.Write(ctx, s.Store, func(tx state.Tx) (*SignIn, error) {
		si, err := s.live(tx, token)
		if err != nil {
			return nil, err
		}
		si.Seen = s.Now().UTC()
		return si, signIns.Put(tx, si)
	})
}

// at finds a sign-in that is at one of the given steps.
func (s *Service) at(r state.Reader, token string, steps ...Step) (*SignIn, error) {
	si, err := s.live(r, token)
	if err == nil && !slices.Contains(steps, si.Step) {
		return nil, &Refusal{Code: CodeStep, Reason: "the sign-in is not at this step; begin again"}
	}
	return si, err
}

// Open signs in whoever opens a streaming URL, or comes from an identity provider with nothing left to prove. Life bounds the
// sign-in; zero: the service's own bound. Once, when not empty, is what may open one sign-in only, until the given time.
func (s *Service) Open(ctx context.Context, v appstream.Visitor, c Client, earlier string, o OpenOptions) (Token, error) {
	if err := s.recordable(); err != nil {
		return Token{}, err
	}
	t, err := state.Write(ctx, s.Store, func(tx state.Tx) (Token, error) {
		si := SignIn{Step: StepDone, Visitor: v, Client: c}
		if o.Life > 0 {
			si.Until = s.Now().UTC().Add(o.Life)
		}
		if o.Binding != "" {
			si.Step, si.Binding = StepBind, o.Binding
		}
		if o.Once != "" {
			if err := s.spend(tx, o.Once, o.OnceUntil); err != nil {
				return Token{}, err
			}
		}
		return s.begin(tx, si, earlier)
	})
	if o.Binding == "" || err != nil {
		s.audit("SignIn", v, c, err)
	}
	return t, err
}

// OpenOptions are what goes with a sign-in that somebody else vouched for.
type OpenOptions struct {
	Life time.Duration // zero: as long as any
	// Binding makes it wait for the browser that can show the same value (Bind).
	Binding string
	// Once is used up by it, and remembered until OnceUntil: the ID of an assertion.
	Once      string
	OnceUntil time.Time
}

// Bind finishes a sign-in at StepBind for the browser that began it.
func (s *Service) Bind(ctx context.Context, handle, binding string, c Client, earlier string) (Token, error) {
	if err := s.recordable(); err != nil {
		return Token{}, err
	}
	var v appstream.Visitor
	t, err := state.Write(ctx, s.Store, func(tx state.Tx) (Token, error) {
		si, err := s.at(tx, handle, StepBind)
		if err != nil {
			return Token{}, err
		}
		v = si.Visitor
		if si.Binding == "" || si.Binding != binding {
			return Token{}, &Refusal{Code: "other-browser", Reason: "another browser began this sign-in; begin again in this one"}
		}
		if earlier != "" {
			if err := signIns.Delete(tx, tokenID(earlier)); err != nil {
				return Token{}, err
			}
		}
		return s.promote(tx, si, handle, StepDone)
	})
	s.audit("SignIn", v, c, err)
	return t, err
}

// SignOut ends a sign-in, or every one of its user.
func (s *Service) SignOut(ctx context.Context, token string, everywhere bool, c Client) error {
	var v appstream.Visitor
	_, err := s.Store.Update(ctx, func(tx state.Tx) error {
		si, ok, err := signIns.Get(tx, tokenID(token))
		if err != nil || !ok {
			return err
		}
		v = si.Visitor
		if everywhere && si.Step == StepDone {
			return endAll(tx, si.Visitor)
		}
		return signIns.Delete(tx, si.ID)
	})
	if v.UserID != "" {
		s.audit("SignOut", v, c, err)
	}
	return err
}

// endAll ends every sign-in of a user.
func endAll(tx state.Tx, v appstream.Visitor) error {
	all, err := signIns.By(tx, "user", userKey(v))
	if err != nil {
		return err
	}
	for _, si := range all {
		if err := signIns.Delete(tx, si.ID); err != nil {
			return err
		}
	}
	return nil
}

// spent is something that may be used once, until it expires by itself.
type spent struct {
	ID      string // SHA-256 of it, hex
	Expires time.Time
}

var spends = state.Table[spent]{Kind: "sign-in-spent", ID: func(s *spent) string { return s.ID }}

// Spend uses something up that may be used once; a Refusal says that it was used before.
func (s *Service) Spend(ctx context.Context, what string, until time.Time) error {
	_, err := s.Store.Update(ctx, func(tx state.Tx) error { return s.spend(tx, what, until) })
	return err
}

// spend refuses what was used before.
func (s *Service) spend(tx state.Tx, what string, until time.Time) error {
	id := tokenID(what)
	if _, ok, err := spends.Get(tx, id); err != nil {
		return err
	} else if ok {
		return &Refusal{Code: "replayed", Reason: "this sign-in was used before; begin again"}
	}
	return spends.Put(tx, &spent{ID: id, Expires: until.UTC()})
}

// purge removes what expired, now and then.
func (s *Service) purge(ctx context.Context) error {
	tick := time.NewTicker(purgeEvery)
	defer tick.Stop()
	for {
		if err := s.Purge(ctx); err != nil && ctx.Err() == nil {
			s.Log.Warn("expired sign-ins were not removed", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Purge removes sign-ins and other things that expired.
func (s *Service) Purge(ctx context.Context) error {
	now := s.Now()
	_, err := s.Store.Update(ctx, func(tx state.Tx) error {
		all, err := signIns.List(tx, state.Query{})
		if err != nil {
			return err
		}
		for _, si := range all {
			if !now.Before(si.Expires) || now.Sub(si.Seen) >= s.Idle {
				if err := signIns.Delete(tx, si.ID); err != nil {
					return err
				}
			}
		}
		once, err := spends.List(tx, state.Query{})
		if err != nil {
			return err
		}
		for _, o := range once {
			if !now.Before(o.Expires) {
				if err := spends.Delete(tx, o.ID); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return err
}
