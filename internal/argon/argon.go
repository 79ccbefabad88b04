// Package argon hashes passwords with Argon2id (RFC 9106). It bounds how many are hashed at one time, and so the memory that
// sign-ins can take.
package argon

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"

	"golang.org/x/crypto/argon2"

	"penstock.dev/penstock/internal/fault"
)

// Options are the cost of one hash and how many may be made. The zero value is the default of every member: 46 MiB, one pass, one
// lane, which is one of the equally strong settings that OWASP's password storage cheat sheet lists.
type Options struct {
	MemoryKiB uint32 // 0: 47104
	Passes    uint32 // 0: 1
	Slots     int    // hashes at one time; 0: one a processor
	Queue     int    // callers that may wait for a slot; more are told to come later; 0: 32 a slot
}

// Hasher makes and checks hashes. It may be used concurrently; it holds at most Slots × MemoryKiB.
type Hasher struct {
	memoryKiB, passes uint32
	slots, queue      chan struct{}
	work              atomic.Uint64
}

const (
	lanes     = 1
	saltBytes = 16
	hashBytes = 32
	// What a stored hash may ask for at most, so that a damaged one cannot exhaust memory.
	maxMemoryKiB = 1 << 20
	maxPasses    = 64
)

// New builds a hasher.
func New(o Options) *Hasher {
	if o.MemoryKiB == 0 {
		o.MemoryKiB = 46 << 10
	}
	if o.Passes == 0 {
		o.Passes = 1
	}
	if o.Slots == 0 {
		o.Slots = runtime.GOMAXPROCS(0)
	}
	if o.Queue == 0 {
		o.Queue = 32 * o.Slots
	}
	return &Hasher{
		memoryKiB: o.MemoryKiB, passes: o.Passes, slots: make(chan struct{}, o.Slots), queue: make(chan struct{}, o.Slots+o.Queue),
	}
}

var b64 = base64.RawStdEncoding.Strict()

// Hash returns the hash of a password with its salt and cost, in the PHC string form: $argon2id$v=19$m=…,t=…,p=…$SALT$HASH.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	var salt [saltBytes]byte
	_, _ = rand.Read(salt[:]) // never fails
	sum, err := h.derive(ctx, password, salt[:], h.passes, h.memoryKiB, lanes)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memoryKiB, h.passes, lanes, b64.EncodeToString(salt[:]), b64.EncodeToString(sum)), nil
}

// Verify reports whether a password has this hash, and whether the hash was made at another cost than today's.
// An empty hash takes the same time as one that is there, and no password has it.
func (h *Hasher) Verify(ctx context.Context, hash, password string) (ok, stale bool, err error) {
	if hash == "" {
		_, err := h.derive(ctx, password, make([]byte, saltBytes), h.passes, h.memoryKiB, lanes)
		return false, false, err
	}
	p, err := parse(hash)
	if err != nil {
		return false, false, err
	}
	sum, err := h.derive(ctx, password, p.salt, p.passes, p.memoryKiB, p.lanes)
	if err != nil {
		return false, false, err
	}
	ok = subtle.ConstantTimeCompare(sum, p.sum) == 1
	return ok, p.memoryKiB != h.memoryKiB || p.passes != h.passes || p.lanes != lanes, nil
}

// derive waits for a slot and hashes.
func (h *Hasher) derive(ctx context.Context, password string, salt []byte, passes, memoryKiB uint32, lanes uint8) ([]byte, error) {
	select {
	case h.queue <- struct{}{}:
		defer func() { <-h.queue }()
	default:
		return nil, fault.New(fault.Throttled, "", "", "too many people are signing in at this moment; try again")
	}
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	h.work.Add(uint64(memoryKiB) * uint64(passes))
	return argon2.IDKey([]byte(password), salt, passes, memoryKiB, lanes, hashBytes), nil
}

// Work is what all hashes so far have cost: the KiB that they filled, each as often as it was passed over. Two ways through a program
// of which this grows alike take a guesser's clock the same time.
func (h *Hasher) Work() uint64 { return h.work.Load() }

type params struct {
	memoryKiB, passes uint32
	lanes             uint8
	salt, sum         []byte
}

var errForm = errors.New("password hash is not of the form $argon2id$v=19$m=…,t=…,p=…$SALT$HASH")

func parse(hash string) (p params, err error) {
	part := strings.Split(hash, "$")
	if len(part) != 6 || part[0] != "" || part[1] != "argon2id" || part[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return p, errForm
	}
	if n, err := fmt.Sscanf(part[3], "m=%d,t=%d,p=%d", &p.memoryKiB, &p.passes, &p.lanes); n != 3 || err != nil {
		return p, errForm
	}
	if p.memoryKiB == 0 || p.memoryKiB > maxMemoryKiB || p.passes == 0 || p.passes > maxPasses || p.lanes == 0 {
		return p, fmt.Errorf("password hash asks for %d KiB, %d passes and %d lanes", p.memoryKiB, p.passes, p.lanes)
	}
	if p.salt, err = b64.DecodeString(part[4]); err != nil {
		return p, errForm
	}
	if p.sum, err = b64.DecodeString(part[5]); err != nil || len(p.sum) != hashBytes || len(p.salt) < 8 {
		return p, errForm
	}
	return p, nil
}
