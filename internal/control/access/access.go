// Package access keeps the account's users, roles, managed policies and access keys, and decides who may do what.
//
// Everything is durable in the store. The account's root is not: its key comes with the data directory, and no policy limits it.
package access

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/state"
)

// Options are the parts that a Service needs. Store, AccountID and Seed are required.
type Options struct {
	Store      state.Store
	AccountID  string         // 12 digits
	Seed       []byte         // the data directory's secret, from which the keys of what is sealed are derived
	Root       iam.Credential // of the account's root; without an access key ID there is none
	Region     string         // aws:RequestedRegion of what AppStream asks as its service role
	RootSince  time.Time      // root's temporary credentials from before are over; zero for none
	FlushEvery time.Duration  // how often last-used times are written; 0 for 1 min
	Log        *slog.Logger
	Now        func() time.Time
}

// Service answers questions about identities. It is safe for concurrent use.
type Service struct {
	options Options
	secrets cipher.AEAD // seals the secrets of access keys
	tokens  cipher.AEAD // seals session tokens

	roleMade atomic.Bool // the service role was made once; it may have been deleted since

	mu         sync.Mutex
	root       iam.Credential
	rootSince  time.Time
	generation uint64               // counts writes, so that a set read before one is not kept after it
	sets       map[setKey]*setEntry // policies of principals, parsed
	used       map[string]use       // of access keys, not written yet
}

// maxSets bounds the cache of policies; when it is full, all are read again.
const maxSets = 4096

type setKey struct {
	kind Kind
	name string
	id   string
}

type setEntry struct {
	set  *iam.PolicySet
	tags map[string]string
}

// New builds a service; nothing runs or is read yet.
func New(o Options) (*Service, error) {
	if o.Store == nil || o.AccountID == "" || len(o.Seed) < 32 {
		return nil, errors.New("access needs a store, an account and a seed of 32 bytes")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.FlushEvery == 0 {
		o.FlushEvery = time.Minute
	}
	s := &Service{options: o, root: o.Root, rootSince: o.RootSince, sets: map[setKey]*setEntry{}, used: map[string]use{}}
	var err error
	if s.secrets, err = state.Sealer(o.Seed, "penstock access keys 1"); err != nil {
		return nil, err
	}
	s.tokens, err = state.Sealer(o.Seed, "penstock session tokens 1")
	return s, err
}

// SetRoot replaces the credential of the account's root. Temporary credentials of root from before since are over.
func (s *Service) SetRoot(c iam.Credential, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.root, s.rootSince = c, since
}

func (s *Service) rootNow() (iam.Credential, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.root, s.rootSince
}

// Run writes last-used times now and then until ctx ends, and a last time then.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(s.options.FlushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := s.Flush(ctx); err != nil && ctx.Err() == nil {
				s.options.Log.Warn("last-used times were not written", "error", err)
			}
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			if err := s.Flush(last); err != nil {
				s.options.Log.Warn("last-used times were not written", "error", err)
			}
			return nil
		}
	}
}

// update writes, and forgets the policies that were read before.
func (s *Service) update(ctx context.Context, fn func(state.Tx) error) (state.Revision, error) {
	rev, err := s.options.Store.Update(ctx, fn)
	s.mu.Lock()
	s.generation++
	clear(s.sets)
	s.mu.Unlock()
	return rev, err
}

// newID is a unique ID with its prefix: AIDA, AROA, ANPA, AKIA, ASIA.
func newID(prefix string) string {
	var b [10]byte
	rand.Read(b[:]) // never fails
	return prefix + base32.StdEncoding.EncodeToString(b[:])
}

func (s *Service) now() time.Time { return s.options.Now().UTC().Truncate(time.Second) }

func notFound(format string, args ...any) error {
	return fault.Newf(fault.NotFound, "", "", format, args...)
}

func limit(what string, n int) error {
	return fault.Newf(fault.Limit, "", "", "Cannot exceed quota for %s: %d", what, n)
}

// parse reads a document and says in IAM's words what is wrong with it.
func parse(kind iam.PolicyKind, document string) (*iam.Policy, error) {
	p, err := iam.ParsePolicy(kind, document)
	if err != nil {
		return nil, fault.New(fault.Invalid, "", "", err.Error()).WithCode("MalformedPolicyDocument")
	}
	return p, nil
}

// sizeOf is a document's size as IAM's quotas count it: without white space.
func sizeOf(document string) int {
	n := 0
	for _, c := range document {
		if !strings.ContainsRune(" \t\r\n", c) {
			n++
		}
	}
	return n
}
