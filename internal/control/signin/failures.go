package signin

import (
	"container/list"
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"penstock.dev/penstock/internal/state"
)

// Failures are counted three ways, each of which makes the next attempt wait longer and longer:
//   - of a name from one source, so that guessing one user's password from one place ends soon;
//   - of a name from anywhere, later, so that many sources cannot go on and one hostile source cannot lock a user out;
//   - of a source, whatever the name, so that one password cannot be tried on many users.
//
// Names that no user has are counted in the same way, or the waiting would tell which exist. The counts are bounded and forgotten after a
// day. They are in memory, and keep writes those that changed to the store now and then, so that a restart does not forget them and an
// attempt that fails does not take longer for its writing. What they count for is kept as a keyed hash: a name may be a password that was
// typed into the wrong field.
type failures struct {
	secret []byte
	mu     sync.Mutex
	counts map[string]*list.Element // of *failure
	order  *list.List               // newest first
	dirty  map[string]bool          // what changed since it was written
}

type failure struct {
	key  string
	n    int
	last time.Time
	free time.Time // the next attempt is looked at from then on
}

// counted is a failure as stored.
type counted struct {
	Key        string
	N          int
	Last, Free time.Time
}

var failureCounts = state.Table[counted]{Kind: "sign-in-failure", ID: func(c *counted) string { return c.Key }}

const (
	keepEvery = 2 * time.Second
	keepAtOne = 1000 // counts written in one transaction
)

const (
	maxFailures  = 1 << 16
	forgetAfter  = 24 * time.Hour
	firstWait    = time.Second
	longestWait  = 15 * time.Minute
	freeBoth     = 5  // failures of a name from one source that cost no waiting
	freeOfName   = 50 // of a name from anywhere
	freeOfSource = 30 // of a source
)

func newFailures(seed []byte) (*failures, error) {
	secret, err := hkdf.Key(sha256.New, seed, nil, "penstock sign-in failures 1", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the key of failures: %w", err)
	}
	return &failures{secret: secret, counts: map[string]*list.Element{}, order: list.New(), dirty: map[string]bool{}}, nil
}

// id is what is kept of what a count is for.
func (f *failures) id(key string) string {
	m := hmac.New(sha256.New, f.secret)
	m.Write([]byte(key))
	return hex.EncodeToString(m.Sum(nil)[:16])
}

type counter struct {
	key  string
	free int
}

// counters are what an attempt counts for. An IPv6 source is its /64: one user has at least so many addresses.
func counters(what, name, source string) []counter {
	if a, err := netip.ParseAddr(source); err == nil {
		a = a.Unmap().WithZone("")
		if a.Is6() {
			if p, err := a.Prefix(64); err == nil {
				source = p.String()
			}
		} else {
			source = a.String()
		}
	}
	return []counter{
		{what + " both " + source + " " + name, freeBoth}, {what + " name " + name, freeOfName}, {what + " source " + source, freeOfSource},
	}
}

// attempt refuses an attempt that comes too early. One that may go on is counted as failed at once, so that many at one time are not
// looked at as if each were the first; undo or succeeded takes it back. locked says that the next one will have to wait, and this one
// did not, if this fails.
func (f *failures) attempt(now time.Time, cs []counter) (locked bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var until time.Time
	for _, c := range cs {
		if e := f.counts[f.id(c.key)]; e != nil {
			if x := entry(e); now.Sub(x.last) < forgetAfter && x.free.After(until) {
				until = x.free
			}
		}
	}
	if left := until.Sub(now); left > 0 {
		left = (left + time.Second - 1).Truncate(time.Second)
		return false, &Refusal{Code: CodeWait, Reason: "too many attempts failed; try again in " + inWords(left), Wait: left}
	}
	return f.countLocked(now, cs), nil
}

// inWords says a time in whole seconds or minutes, never too short.
func inWords(d time.Duration) string {
	n, unit := int((d+time.Second-1)/time.Second), "second"
	if d > 2*time.Minute {
		n, unit = int((d+time.Minute-1)/time.Minute), "minute"
	}
	if n == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", n, unit)
}

func (f *failures) count(now time.Time, cs []counter) (locked bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.countLocked(now, cs)
}

func (f *failures) countLocked(now time.Time, cs []counter) (locked bool) {
	for _, c := range cs {
		id := f.id(c.key)
		e := f.counts[id]
		if e == nil {
			e = f.order.PushFront(&failure{key: id})
			f.counts[id] = e
			if f.order.Len() > maxFailures {
				f.drop(f.order.Back())
			}
		} else {
			f.order.MoveToFront(e)
		}
		f.dirty[id] = true
		x := entry(e)
		if now.Sub(x.last) >= forgetAfter {
			x.n = 0
		}
		x.n++
		x.last = now
		if over := x.n - c.free; over >= 0 {
			locked = locked || over == 0
			x.free = now.Add(min(firstWait<<min(over, 20), longestWait))
		}
	}
	return locked
}

// so is how often something failed so far.
func (f *failures) so(key string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.counts[f.id(key)]; e != nil {
		return entry(e).n
	}
	return 0
}

func (f *failures) drop(e *list.Element) {
	id := entry(e).key
	delete(f.counts, id)
	f.order.Remove(e)
	f.dirty[id] = true
}

// undo takes back what attempt counted, when nothing was looked at.
func (f *failures) undo(cs []counter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range cs {
		id := f.id(c.key)
		if e := f.counts[id]; e != nil {
			x := entry(e)
			x.n, x.free = max(x.n-1, 0), time.Time{}
			f.dirty[id] = true
		}
	}
}

// succeeded forgets the failures of a name from one source. Those of the source stay: one right password must not buy a guesser more.
func (f *failures) succeeded(cs []counter) {
	f.undo(cs)
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.counts[f.id(cs[0].key)]; e != nil {
		f.drop(e)
	}
}

// forget removes every count of a name: an administrator lets its user try again.
func (f *failures) forget(what, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.counts[f.id(what+" name "+name)]; e != nil {
		f.drop(e)
	}
}

// changed takes some of what was not written yet: what to write, and what to remove.
func (f *failures) changed(now time.Time) (write []*counted, remove []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.dirty {
		if len(write)+len(remove) >= keepAtOne {
			break
		}
		delete(f.dirty, id)
		e := f.counts[id]
		if e == nil || now.Sub(entry(e).last) >= forgetAfter {
			remove = append(remove, id)
			continue
		}
		x := entry(e)
		write = append(write, &counted{id, x.n, x.last.UTC(), x.free.UTC()})
	}
	return write, remove
}

// again puts back what could not be written.
func (f *failures) again(write []*counted, remove []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range write {
		f.dirty[c.Key] = true
	}
	for _, id := range remove {
		f.dirty[id] = true
	}
}

// remember takes in what an earlier run counted.
func (f *failures) remember(now time.Time, all []*counted) {
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.SortFunc(all, func(a, b *counted) int { return b.Last.Compare(a.Last) })
	for _, c := range all {
		if now.Sub(c.Last) >= forgetAfter || f.order.Len() >= maxFailures {
			f.dirty[c.Key] = true // to be removed
			continue
		}
		if e := f.counts[c.Key]; e != nil { // failed since the start
			x := entry(e)
			x.n += c.N
			if c.Free.After(x.free) {
				x.free = c.Free
			}
			f.dirty[c.Key] = true
			continue
		}
		f.counts[c.Key] = f.order.PushBack(&failure{c.Key, c.N, c.Last, c.Free})
	}
}

// attempt is failures.attempt, after what an earlier run counted was read: the first attempt waits for that.
func (s *Service) attempt(ctx context.Context, cs []counter) (locked bool, err error) {
	if err := s.rememberFailures(ctx); err != nil {
		return false, err
	}
	return s.failures.attempt(s.Now(), cs)
}

func (s *Service) rememberFailures(ctx context.Context) error {
	s.remembering.Lock()
	defer s.remembering.Unlock()
	if s.remembered {
		return nil
	}
	all, err := state.Read(ctx, s.Store, func(r state.Reader) ([]*counted, error) { return failureCounts.List(r, state.Query{}) })
	if err != nil {
		return fmt.Errorf("read the counts of failed sign-ins: %w", err)
	}
	s.failures.remember(s.Now(), all)
	s.remembered = true
	return nil
}

// keepFailures writes the counts that change until ctx ends, and then once more.
func (s *Service) keepFailures(ctx context.Context) error {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.writeFailures(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), keepEvery)
			defer cancel()
			s.writeFailures(last)
			return nil
		}
	}
}

// writeFailures writes all counts that changed.
func (s *Service) writeFailures(ctx context.Context) {
	for {
		write, remove := s.failures.changed(s.Now())
		if len(write)+len(remove) == 0 {
			return
		}
		_, err := s.Store.Update(ctx, func(tx state.Tx) error {
			for _, c := range write {
				if err := failureCounts.Put(tx, c); err != nil {
					return err
				}
			}
			for _, id := range remove {
				if err := failureCounts.Delete(tx, id); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			s.failures.again(write, remove)
			if ctx.Err() == nil {
				s.Log.Warn("the counts of failed sign-ins were not written", "error", err)
			}
			return
		}
	}
}

func entry(e *list.Element) *failure {
	return e.Value.(*failure) //nolint:forcetypeassert // the list holds nothing else
}
