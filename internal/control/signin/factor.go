package signin

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 6238: what every authenticator app takes; HMAC-SHA-1 has no known weakness
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net/url"
	"slices"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
)

// A second factor is a time-based one-time password (RFC 6238) of six digits and 30 seconds.
const (
	factorSeed    = 20 // bytes; RFC 4226 advises the length of the hash
	factorPeriod  = 30 * time.Second
	factorDigits  = 6
	factorSkew    = 1 // steps before and after now that are accepted, for clocks that differ
	recoveryCodes = 10
)

// totp is the code of a seed at one time step.
func totp(seed []byte, step int64) string {
	var counter [8]byte
	binary.BigEndian.PutUint64(counter[:], uint64(step)) //nolint:gosec // steps are after 1970
	mac := hmac.New(sha1.New, seed)
	mac.Write(counter[:])
	sum := mac.Sum(nil)
	at := sum[len(sum)-1] & 0x0f
	n := binary.BigEndian.Uint32(sum[at:]) & 0x7fffffff
	return fmt.Sprintf("%0*d", factorDigits, n%1_000_000)
}

func stepAt(t time.Time) int64 { return t.Unix() / int64(factorPeriod/time.Second) }

// matchFactor finds the time step whose code was typed, among those that are accepted now and newer than the last one used.
func matchFactor(seed []byte, code string, now time.Time, last int64) (step int64, ok bool) {
	at := stepAt(now)
	for step := at - factorSkew; step <= at+factorSkew; step++ {
		if step > last && hmac.Equal([]byte(totp(seed, step)), []byte(code)) {
			return step, true
		}
	}
	return 0, false
}

// Enrolment is what an authenticator app takes of a second factor that is being added.
type Enrolment struct {
	Secret string // base32, for typing
	URI    string // otpauth://…, for a QR code
}

func (s *Service) enrolment(user string, seed []byte) Enrolment {
	secret := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(seed)
	q := url.Values{"secret": {secret}, "issuer": {s.Product}, "algorithm": {"SHA1"}, "digits": {"6"}, "period": {"30"}}
	u := url.URL{Scheme: "otpauth", Host: "totp", Path: "/" + s.Product + ":" + user, RawQuery: q.Encode()}
	return Enrolment{Secret: secret, URI: u.String()}
}

func factorBound(user string) []byte { return []byte("second factor " + user) }

// Enrol begins to add a second factor at StepEnrol, or says again what it began with.
func (s *Service) Enrol(ctx context.Context, token string) (Enrolment, error) {
	if err := s.recordable(); err != nil {
		return Enrolment{}, err
	}
	return state.Write(ctx, s.Store, func(tx state.Tx) (Enrolment, error) {
		si, err := s.at(tx, token, StepEnrol)
		if err != nil {
			return Enrolment{}, err
		}
		return s.enrol(tx, si)
	})
}

func (s *Service) enrol(tx state.Tx, si *SignIn) (Enrolment, error) {
	user := si.Visitor.UserID
	seed, err := s.sealed.Open(nil, nil, si.Enrol, factorBound(user))
	if err != nil { // none yet
		seed = make([]byte, factorSeed)
		_, _ = rand.Read(seed) // never fails
		si.Enrol = s.sealed.Seal(nil, nil, seed, factorBound(user))
	}
	return s.enrolment(user, seed), signIns.Put(tx, si)
}

// AddFactor begins to add a second factor, or to replace it, for a user who is signed in and types the password again.
func (s *Service) AddFactor(ctx context.Context, token, password string, c Client) (Enrolment, error) {
	if s.SecondFactor == FactorOff {
		return Enrolment{}, fault.New(fault.NotPermitted, "second-factor", "", "this portal takes no second factor")
	}
	if _, err := s.proved(ctx, token, password, c); err != nil {
		return Enrolment{}, err
	}
	return state.Write(ctx, s.Store, func(tx state.Tx) (Enrolment, error) {
		si, err := s.at(tx, token, StepDone)
		if err != nil {
			return Enrolment{}, err
		}
		return s.enrol(tx, si)
	})
}

// ConfirmFactor adds the second factor when the app shows the right code, and tells the recovery codes: this once.
func (s *Service) ConfirmFactor(ctx context.Context, token, code string, c Client) (Token, error) {
	if err := s.recordable(); err != nil {
		return Token{}, err
	}
	var v appstream.Visitor
	t, err := state.Write(ctx, s.Store, func(tx state.Tx) (Token, error) {
		si, err := s.at(tx, token, StepEnrol, StepDone)
		if err != nil {
			return Token{}, err
		}
		v = si.Visitor
		seed, err := s.sealed.Open(nil, nil, si.Enrol, factorBound(v.UserID))
		if err != nil {
			return Token{}, &Refusal{Code: CodeStep, Reason: "no second factor is being added; begin again"}
		}
		step, ok := matchFactor(seed, plainCode(code), s.Now(), 0)
		if !ok {
			return Token{}, &Refusal{Code: CodeWrongCode, Reason: "the code is wrong; check the clock of your device, and enter the newest code"}
		}
		cred, ok, err := credentials.Get(tx, v.UserID)
		if err != nil {
			return Token{}, err
		}
		if !ok {
			return Token{}, &Refusal{Code: CodeEnded, Reason: "you are not signed in, or the sign-in has ended"}
		}
		cred.Factor, cred.LastStep, cred.Recovery = s.sealed.Seal(nil, nil, seed, factorBound(v.UserID)), step, nil
		var codes []string
		for range recoveryCodes {
			one := randomText(12)
			codes = append(codes, one)
			cred.Recovery = append(cred.Recovery, tokenID(plainCode(one)))
		}
		if err := credentials.Put(tx, cred); err != nil {
			return Token{}, err
		}
		// Whoever is signed in without the factor, somewhere else, has to show it.
		if err := endAll(tx, v); err != nil {
			return Token{}, err
		}
		t, err := s.promote(tx, si, token, StepDone)
		t.RecoveryCodes = codes
		return t, err
	})
	s.audit("AddSecondFactor", v, c, err)
	return t, err
}

// RemoveFactor is for a user who is signed in and types the password again.
func (s *Service) RemoveFactor(ctx context.Context, token, password string, c Client) error {
	if s.SecondFactor == FactorRequired {
		return fault.New(fault.NotPermitted, "second-factor", "", "this portal requires a second factor; you can replace it")
	}
	si, err := s.proved(ctx, token, password, c)
	if err != nil {
		return err
	}
	_, err = s.Store.Update(ctx, func(tx state.Tx) error { return dropFactor(tx, si.Visitor.UserID) })
	s.audit("RemoveSecondFactor", si.Visitor, c, err)
	return err
}

func dropFactor(tx state.Tx, user string) error {
	cred, ok, err := credentials.Get(tx, user)
	if err != nil || !ok {
		return err
	}
	cred.Factor, cred.LastStep, cred.Recovery = nil, 0, nil
	return credentials.Put(tx, cred)
}

// ResetFactor is the operator's help for a user who lost both the device and the recovery codes. The user's sign-ins end.
func (s *Service) ResetFactor(ctx context.Context, name string) error {
	err := s.change(ctx, name, func(tx state.Tx, _ *appstream.User) error {
		if err := endAll(tx, poolVisitor(name)); err != nil {
			return err
		}
		return dropFactor(tx, name)
	})
	s.audit("RemoveSecondFactor", poolVisitor(name), Client{Source: "operator"}, err)
	return err
}

// CheckFactor goes on with a sign-in at StepFactor: by the app's code, which works once, or by a recovery code, which is used up.
func (s *Service) CheckFactor(ctx context.Context, token, code string, c Client) (Token, error) {
	if err := s.recordable(); err != nil {
		return Token{}, err
	}
	si, err := state.Read(ctx, s.Store, func(r state.Reader) (*SignIn, error) { return s.at(r, token, StepFactor) })
	if err != nil {
		return Token{}, err
	}
	t, err := s.checkFactor(ctx, si, token, plainCode(code), c)
	if err != nil || t.Step == StepDone {
		s.audit("SignIn", si.Visitor, c, err)
	}
	return t, err
}

func (s *Service) checkFactor(ctx context.Context, si *SignIn, token, code string, c Client) (Token, error) {
	user := si.Visitor.UserID
	count := counters(codeFailures, user, c.Source)
	locked, err := s.attempt(ctx, count)
	if err != nil {
		return Token{}, err
	}
	t, err := state.Write(ctx, s.Store, func(tx state.Tx) (Token, error) {
		si, err := s.at(tx, token, StepFactor)
		if err != nil {
			return Token{}, err
		}
		cred, ok, err := credentials.Get(tx, user)
		if err != nil {
			return Token{}, err
		}
		if !ok || !s.useCode(cred, code) {
			return Token{}, &Refusal{Code: CodeWrongCode, Reason: "the code is wrong or was used before"}
		}
		if err := credentials.Put(tx, cred); err != nil {
			return Token{}, err
		}
		return s.promote(tx, si, token, stepAfterFactor(cred))
	})
	switch r, refused := err.(*Refusal); { //nolint:errorlint // it is made just above
	case err == nil:
		s.failures.succeeded(count)
	case !refused || r.Code != CodeWrongCode:
		s.failures.undo(count)
	case locked:
		s.audit(lockOut, si.Visitor, c, nil)
	}
	return t, err
}

// useCode reports whether a code is right, and marks it as used.
func (s *Service) useCode(cred *credential, code string) bool {
	if seed, err := s.sealed.Open(nil, nil, cred.Factor, factorBound(cred.User)); err == nil && len(code) == factorDigits {
		if step, ok := matchFactor(seed, code, s.Now(), cred.LastStep); ok {
			cred.LastStep = step
			return true
		}
		return false
	}
	if i := slices.Index(cred.Recovery, tokenID(code)); i >= 0 {
		cred.Recovery = slices.Delete(cred.Recovery, i, i+1)
		return true
	}
	return false
}

// Account is what a user of the pool sees of the own account.
type Account struct {
	UserID          string `json:"userId"`
	SecondFactor    bool   `json:"secondFactor"`
	RecoveryCodes   int    `json:"recoveryCodes"`   // that are left
	FactorAllowed   bool   `json:"factorAllowed"`   // may be added
	FactorRemovable bool   `json:"factorRemovable"` // may be removed
}

// Account tells a user of the pool who is signed in about the own account.
func (s *Service) Account(ctx context.Context, token string) (Account, error) {
	si, err := s.Lookup(ctx, token)
	switch {
	case err != nil:
		return Account{}, err
	case si.Step != StepDone:
		return Account{}, &Refusal{Code: CodeEnded, Reason: "the sign-in is not finished"}
	case si.Visitor.Auth != appstream.AuthUserPool:
		return Account{}, fault.New(fault.NotPermitted, "user", "", "your account is not kept here")
	}
	cred, err := s.credential(ctx, si.Visitor.UserID)
	if err != nil {
		return Account{}, err
	}
	return Account{
		UserID: si.Visitor.UserID, SecondFactor: len(cred.Factor) > 0, RecoveryCodes: len(cred.Recovery),
		FactorAllowed: s.SecondFactor != FactorOff, FactorRemovable: s.SecondFactor != FactorRequired,
	}, nil
}

// Inspect tells the operator about a user of the pool: whether there is a second factor, and how many browsers are signed in.
func (s *Service) Inspect(ctx context.Context, user string) (factor bool, live int, err error) {
	err = s.Store.View(ctx, func(r state.Reader) error {
		cred, ok, err := credentials.Get(r, user)
		if err != nil {
			return err
		}
		factor = ok && len(cred.Factor) > 0
		all, err := signIns.By(r, "user", userKey(poolVisitor(user)))
		now := s.Now()
		for _, si := range all {
			if si.Step == StepDone && now.Before(si.Expires) && now.Sub(si.Seen) < s.Idle {
				live++
			}
		}
		return err
	})
	return factor, live, err
}
