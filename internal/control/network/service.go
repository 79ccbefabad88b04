// Package network decides about virtual networks: operations on VPCs, subnets, security groups, network ACLs, route
// tables and endpoints, and the reconciler that keeps the driver's network at what is stored.
//
// An operation is one transaction that writes what is wanted. Run brings the network to it and writes what it sees.
package network

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// Config is what New needs. Store, Region and AccountID are required; Driver is required by Run.
type Config struct {
	Store     state.Store
	Driver    vpc.Driver
	Region    string
	AccountID string
	Limits    Limits
	// DeletedLinger is how long a deleted endpoint is still described, as "deleted" (0: 5 s).
	DeletedLinger time.Duration
	// HealthEvery is how often each interface of an endpoint that is available is checked (0: 5 s).
	HealthEvery time.Duration
	Log         *slog.Logger
	Now         func() time.Time
}

// Service answers operations and reconciles endpoints. All methods may be called concurrently.
type Service struct {
	store       state.Store // of operations: its updates wait until they are in force
	raw         state.Store // of the reconciler
	progress    *progress
	driver      vpc.Driver
	region      string
	account     string
	limits      Limits
	linger      time.Duration
	healthEvery time.Duration
	log         *slog.Logger
	now         func() time.Time
	snapshot    atomic.Pointer[vpc.Snapshot]
}

// New builds the service; Run starts its work.
func New(cfg Config) *Service {
	inForce := &progress{}
	s := &Service{
		store: prompt{Store: cfg.Store, progress: inForce}, raw: cfg.Store, progress: inForce, driver: cfg.Driver, region: cfg.Region, account: cfg.AccountID,
		limits: cfg.Limits.withDefaults(), linger: cfg.DeletedLinger, healthEvery: cfg.HealthEvery, log: cfg.Log, now: cfg.Now,
	}
	if s.healthEvery == 0 {
		s.healthEvery = healthEvery
	}
	if s.linger == 0 {
		s.linger = 5 * time.Second
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.snapshot.Store(vpc.NewSnapshot(vpc.Resources{}))
	return s
}

// Snapshot is the state of the rules that the driver last had in force; empty before Run's first pass.
func (s *Service) Snapshot() *vpc.Snapshot { return s.snapshot.Load() }

// Region is the region that the service answers for.
func (s *Service) Region() string { return s.region }

// Account is the account that owns everything here.
func (s *Service) Account() string { return s.account }

// UserNetworks are the networks from which users come.
func (s *Service) UserNetworks() []vpc.UserNetwork {
	if s.driver == nil {
		return nil
	}
	return s.driver.UserNetworks()
}

func (s *Service) userCIDRs() []netip.Prefix {
	nets := s.UserNetworks()
	out := make([]netip.Prefix, 0, len(nets))
	for _, n := range nets {
		out = append(out, n.CIDR)
	}
	return out
}

// newID makes an identifier of the type's prefix.
func newID[ID ~string](prefix string) ID {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return ID(vpc.FormatID(prefix, b))
}

// get returns the document or the fault that EC2 answers for a wrong or unknown identifier.
func get[T any, ID ~string](r state.Reader, t state.Table[T], id ID) (*T, error) {
	if err := vpc.CheckID(id); err != nil {
		return nil, err
	}
	v, ok, err := t.Get(r, string(id))
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, vpc.NotFound(id)
	}
	return v, nil
}

// describe returns the named documents, each of which must exist, or all of them when none is named.
func describe[T any, ID ~string](ctx context.Context, s state.Store, t state.Table[T], ids []ID) ([]*T, error) {
	return state.Read(ctx, s, func(r state.Reader) ([]*T, error) {
		if len(ids) == 0 {
			return t.List(r, state.Query{})
		}
		out := make([]*T, 0, len(ids))
		seen := map[ID]bool{}
		for _, id := range ids {
			if seen[id] {
				continue
			}
			seen[id] = true
			v, err := get(r, t, id)
			if err != nil {
				return nil, err
			}
			out = append(out, v)
		}
		return out, nil
	})
}
