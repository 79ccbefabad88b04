// Package signin decides who is signed in at the portal: users of the pool with their passwords and second factors, federated
// users that an identity provider vouches for, and bearers of streaming URLs.
//
// A sign-in is a row of the store; the browser holds a random token of which the row knows the SHA-256. Whatever makes a sign-in
// worth more makes a new row with a new token, so that no token from before it is worth anything.
package signin

import (
	"context"
	"crypto/cipher"
	"errors"
	"log/slog"
	"sync"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/audit"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/state"
)

// hasher makes and checks hashes of passwords. An empty hash takes as long as one that is there, and no password has it.
type hasher interface {
	Hash(ctx context.Context, password string) (string, error)
	Verify(ctx context.Context, hash, password string) (ok, stale bool, err error)
}

// SecondFactor says who needs a second factor.
type SecondFactor string

// The settings of SecondFactor.
const (
	FactorOff      SecondFactor = "off"      // nobody may add one; those who have one still need it
	FactorOptional SecondFactor = "optional" // a user may add one
	FactorRequired SecondFactor = "required" // a user of the pool adds one at the first sign-in
)

// Options are the parts that a Service needs. Store, Seed and Hasher are required.
type Options struct {
	Store  state.Store
	Seed   []byte // of the data directory; what is sealed is sealed under keys derived from it
	Hasher hasher
	// Mailer delivers what users are told; nil: nothing is delivered, and mails wait until they expire.
	Mailer    Mailer
	PublicURL string // of the portal, for mails; no slash at the end
	Product   string // name in mails and in authenticator apps; empty: Penstock

	UserQuota    int           // users of the pool; 0: 50, as in AppStream
	Idle         time.Duration // a sign-in ends when it was not used for so long; 0: 2 h
	Life         time.Duration // and after so long in any case; 0: 12 h
	SecondFactor SecondFactor  // empty: optional

	Audit audit.Recorder // of every act of signing in; nil keeps no record
	Log   *slog.Logger
	Now   func() time.Time
}

// Service keeps users' secrets and sign-ins. It is safe for concurrent use.
type Service struct {
	Options
	sealed   cipher.AEAD // seeds of second factors, and mails that wait
	failures *failures
	resets   chan resetRequest

	remembering sync.Mutex
	remembered  bool // that earlier runs' failures were read; guarded by remembering
}

// Defaults of Options.
const (
	DefaultUserQuota = 50
	DefaultIdle      = 2 * time.Hour
	DefaultLife      = 12 * time.Hour
)

// New builds a service; nothing runs or is read yet.
func New(o Options) (*Service, error) {
	if o.Store == nil || o.Hasher == nil || len(o.Seed) < 32 {
		return nil, errors.New("signin needs a store, a hasher and a seed of 32 bytes")
	}
	setDefault(&o.Product, "Penstock")
	setDefault(&o.UserQuota, DefaultUserQuota)
	setDefault(&o.Idle, DefaultIdle)
	setDefault(&o.Life, DefaultLife)
	setDefault(&o.SecondFactor, FactorOptional)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Audit = audit.Or(o.Audit)
	sealed, err := state.Sealer(o.Seed, "penstock sign-in 1")
	if err != nil {
		return nil, err
	}
	failures, err := newFailures(o.Seed)
	if err != nil {
		return nil, err
	}
	return &Service{Options: o, sealed: sealed, failures: failures, resets: make(chan resetRequest, maxResetRequests)}, nil
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// Run delivers mail, answers requests for new passwords and forgets what expired, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := []func(context.Context) error{s.deliver, s.serveResets, s.purge, s.keepFailures}
	errs := make([]error, len(parts))
	var wg sync.WaitGroup
	for i, part := range parts {
		wg.Go(func() {
			defer cancel()
			errs[i] = part(ctx)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Refusal is why a sign-in went no further, in words for the user. The code is stable.
type Refusal struct {
	Code   string
	Reason string        // one sentence, lower case, no full stop
	Wait   time.Duration // before the next attempt; zero: none
}

func (r *Refusal) Error() string { return r.Reason }

// Codes of refusals.
const (
	CodeWrong     = "wrong-password" // name or password, and nobody learns which
	CodeWait      = "wait"
	CodeDisabled  = "disabled"
	CodeExpired   = "password-expired"
	CodeWeak      = "weak-password"
	CodeWrongCode = "wrong-code"
	CodeStep      = "wrong-step" // the sign-in is not at the step that the request is for
	CodeEnded     = "not-signed-in"
	CodeNoRecord  = "no-record" // the audit log cannot be written
)

// Client is where an attempt comes from.
type Client struct {
	Source string     // address, without port
	Agent  string     // User-Agent
	TLS    *audit.TLS `json:"-"` // nil: plain
}

// Origin is where a client is, as policies ask for it.
func (c Client) Origin() iam.Request {
	q := iam.Request{SourceIP: c.Source, UserAgent: c.Agent, Transport: iam.Plain}
	if c.TLS != nil {
		q.Transport = iam.Secure
	}
	return q
}

// recordable refuses to begin what could not go on record: nobody comes in, by whichever way, and nothing that a user proves with
// changes. Who is in goes on, and signs out.
func (s *Service) recordable() error {
	if err := s.Audit.Ready(); err != nil {
		s.Log.Error("a sign-in was refused: the audit log cannot be written", "error", err)
		return &Refusal{Code: CodeNoRecord, Reason: "nobody can sign in at this moment; tell your administrator"}
	}
	return nil
}

// audit puts an act on record; err is nil or why it was refused. Anybody can cause refusals: they are bounded.
func (s *Service) audit(name string, v appstream.Visitor, c Client, err error) {
	e := audit.Event{
		Source: audit.SignInSource, Name: name, Type: audit.SignIn, Identity: audit.StreamingUser(v.UserID, string(v.Auth)),
		SourceIP: c.Source, UserAgent: c.Agent, TLS: c.TLS, Unproved: err != nil || name == lockOut, Additional: map[string]any{},
	}
	if v.Provider != "" {
		e.Additional["provider"] = v.Provider
	}
	if v.Stack != "" {
		e.Additional["stackName"] = v.Stack
	}
	if v.Builder != "" {
		e.Additional["builder"] = string(v.Builder)
	}
	if r, ok := errors.AsType[*Refusal](err); ok {
		e.ErrorCode, e.ErrorText = r.Code, r.Reason
	} else if f, ok := errors.AsType[*fault.Error](err); ok {
		e.ErrorCode, e.ErrorText = "Refused", f.Error()
	} else if err != nil {
		e.ErrorCode, e.ErrorText = "Internal", "internal"
	}
	s.Audit.Record(e)
}

const (
	lockOut = "LockOut"
	// hiddenName stands for a name that nobody has: it may be a password in the wrong field. The words are CloudTrail's.
	hiddenName = "HIDDEN_DUE_TO_SECURITY_REASONS"
)

// auditName is audit for a name that somebody typed.
func (s *Service) auditName(ctx context.Context, act, name string, c Client, err error) {
	known := err == nil
	if !known {
		known, _ = state.Read(ctx, s.Store, func(r state.Reader) (bool, error) {
			_, ok, err := appstream.Users.Get(r, name)
			return ok, err
		})
	}
	if !known {
		name = hiddenName
	}
	s.audit(act, poolVisitor(name), c, err)
}

func (s *Service) auditLockOut(ctx context.Context, name string, c Client) {
	s.auditName(ctx, lockOut, name, c, &Refusal{Code: CodeWait, Reason: "too many attempts failed; the next one waits"})
}

func poolVisitor(user string) appstream.Visitor {
	return appstream.Visitor{Auth: appstream.AuthUserPool, UserID: user}
}
