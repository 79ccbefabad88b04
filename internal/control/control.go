// Package control decides: operations on stacks and fleets, placement of sessions, and the reconcilers that keep fleets,
// instances and sessions at their desired state.
//
// An operation writes what is wanted and returns; reconcilers bring the world to it and write what they see. All state is in
// the store; a Control holds none, so any number of calls may run concurrently and a crash at any instruction is followed by a
// correct start.
package control

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/audit"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// Options is what a Control is built from.
type Options struct {
	Store   state.Store
	Compute appstream.Compute
	// DialAddr is where viewers reach an address of a VPC.
	DialAddr func(vpc.VPCID, netip.AddrPort) (netip.AddrPort, bool)
	// UserNetworks are where viewers are that have a way into VPCs; nil: in networks of both families.
	UserNetworks func() []vpc.UserNetwork
	ServiceRole  ServiceRole // what AppStream may do in the account's network; nil: everything
	Quotas       Quotas
	Roles        Roles              // that SAML assertions name; nil: they are asked at the sign-in alone
	Key          ed25519.PrivateKey // signs tickets and streaming URLs
	Region       string
	Account      string
	PublicURL    string // of the portal, no slash at the end: "http://127.0.0.1:8080"
	// InternetOrigin and InternetPort are where sessions of stacks without an endpoint stream from.
	InternetOrigin string
	InternetPort   uint16
	Secure         bool           // endpoints are reached by https
	Audit          audit.Recorder // of sessions that end; nil keeps no record
	Log            *slog.Logger
	Now            func() time.Time
}

// Roles says whether a role that an assertion named lets its user stream from a stack; the error is fault.Denied when none does.
type Roles interface {
	MayStream(ctx context.Context, v appstream.Visitor, stack string, from iam.Request) error
}

// Control serves operations and runs the reconcilers.
type Control struct {
	Options
}

// New only builds.
func New(o Options) *Control {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Audit = audit.Or(o.Audit)
	return &Control{Options: o}
}

// Run reconciles until ctx ends. Adopt goes before it.
func (c *Control) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := []func(context.Context) error{c.fleetLoop().Run, c.builderLoop().Run, c.instanceLoop().Run, c.sessionLoop().Run, c.watchInstances, c.purge}
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

func publicKey(k ed25519.PrivateKey) ed25519.PublicKey {
	return k.Public().(ed25519.PublicKey) //nolint:forcetypeassert // documented to be of this type
}

// newSessionID returns a random UUID (version 4).
func newSessionID() appstream.SessionID {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return appstream.SessionID(fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]))
}

// newInstanceID returns "i-" and 17 hex digits.
func newInstanceID() appstream.InstanceID {
	var b [9]byte
	_, _ = rand.Read(b[:])
	return appstream.InstanceID("i-" + hex.EncodeToString(b[:])[:17])
}

// newTokenID returns 128 random bits.
func newTokenID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}
