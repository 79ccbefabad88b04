package signin

import (
	"container/list"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// Failures are counted three ways, each of which makes the next attempt wait longer and longer:
//   - of a name from one source, so that guessing one user's password from one place ends soon;
//   - of a name from anywhere, later, so that many sources cannot go on and one hostile source cannot lock a user out;
//   - of a source, whatever the name, so that one password cannot be tried on many users.
//
// Names that no user has are counted in the same way, or the waiting would tell which exist. The counts are in memory, bounded, and
// forgotten after a day: an attempt that fails writes nothing to the store.
type failures struct {
	mu     sync.Mutex
	counts map[string]*list.Element // of *failure
	order  *list.List               // newest first
}

type failure struct {
	key  string
	n    int
	last time.Time
	free time.Time // the next attempt is looked at from then on
}

const (
	maxFailures  = 1 << 16
	forgetAfter  = 24 * time.Hour
	firstWait    = time.Second
	longestWait  = 15 * time.Minute
	freeBoth     = 5  // failures of a name from one source that cost no waiting
	freeOfName   = 50 // of a name from anywhere
	freeOfSource = 30 // of a source
)

func newFailures() *failures {
	return &failures{counts: map[string]*list.Element{}, order: list.New()}
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
		if e := f.counts[c.key]; e != nil {
			if x := entry(e); now.Sub(x.last) < forgetAfter && x.free.After(until) {
				until = x.free
			}
		}
	}
	if left := until.Sub(now); left > 0 {
		left = (left + time.Second - 1).Truncate(time.Second)
		return false, &Refusal{Code: CodeWait, Reason: "too many attempts failed; try again in " + inWords(left), Wait: left}
	}
	return f.count(now, cs), nil
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
	for _, c := range cs {
		e := f.counts[c.key]
		if e == nil {
			e = f.order.PushFront(&failure{key: c.key})
			f.counts[c.key] = e
			if f.order.Len() > maxFailures {
				oldest := f.order.Back()
				delete(f.counts, entry(oldest).key)
				f.order.Remove(oldest)
			}
		} else {
			f.order.MoveToFront(e)
		}
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
	if e := f.counts[key]; e != nil {
		return entry(e).n
	}
	return 0
}

// undo takes back what attempt counted, when nothing was looked at.
func (f *failures) undo(cs []counter) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range cs {
		if e := f.counts[c.key]; e != nil {
			x := entry(e)
			x.n, x.free = max(x.n-1, 0), time.Time{}
		}
	}
}

// succeeded forgets the failures of a name from one source. Those of the source stay: one right password must not buy a guesser more.
func (f *failures) succeeded(cs []counter) {
	f.undo(cs)
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.counts[cs[0].key]; e != nil {
		delete(f.counts, cs[0].key)
		f.order.Remove(e)
	}
}

// forget removes every count of a name: an administrator lets its user try again.
func (f *failures) forget(what, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := what + " name " + name
	if e := f.counts[key]; e != nil {
		delete(f.counts, key)
		f.order.Remove(e)
	}
}

func entry(e *list.Element) *failure {
	return e.Value.(*failure) //nolint:forcetypeassert // the list holds nothing else
}
