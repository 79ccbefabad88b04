package media

import "time"

const (
	// spacing is the least time between the starts of two updates: 60 a second.
	spacing = time.Second / 60
	// grantFor is how long after an input its answer may jump the spacing, and maxGrants how many may.
	grantFor  = 50 * time.Millisecond
	maxGrants = 2
	// holdFor is how long a change that nobody waits for lets the answer to an input go first.
	holdFor = 8 * time.Millisecond
)

// Pacer spaces updates out. The first change of a quiet period goes at once; so does a change soon after a
// key, a button or the wheel, once for each of them.
type Pacer struct {
	last   time.Time
	grants int
	until  time.Time
	input  time.Time
}

// InputSeen notes a key, a button or a turn of the wheel.
func (p *Pacer) InputSeen(now time.Time) {
	if now.After(p.until) {
		p.grants = 0
	}
	p.grants = min(p.grants+1, maxGrants)
	p.until = now.Add(grantFor)
	p.input = now
}

// Hold is how long a change that no input has caused waits while the link has something to carry: the answer to an
// input that has just come would have to wait behind it.
func (p *Pacer) Hold(now time.Time) time.Duration {
	if p.grants == 0 {
		return 0
	}
	return max(0, p.input.Add(holdFor).Sub(now))
}

// Wait is how long the next update has to wait.
func (p *Pacer) Wait(now time.Time) time.Duration {
	wait := spacing - now.Sub(p.last)
	if wait <= 0 || p.grants > 0 && !now.After(p.until) {
		return 0
	}
	return wait
}

// Started notes that an update begins. In a run of updates the next one's turn does not move with one that came late,
// but for more than half a turn: a late frame of a film would make all that follow late too, and in the end one is left out.
func (p *Pacer) Started(now time.Time) {
	since := now.Sub(p.last)
	if since < spacing && p.grants > 0 {
		p.grants--
	}
	p.last = now.Add(-lateness(since, spacing))
}

// lateness is how much of the wait for the next turn is over already when the present one began since the last.
func lateness(since, turn time.Duration) time.Duration {
	if since >= 2*turn {
		return 0 // a new run
	}
	return max(0, min(since-turn, turn/2))
}

// Turn is when the turn began that an update or a frame takes now, when the last one began at last. Times are µs.
func Turn(last, now, interval uint64) uint64 {
	if last > now {
		return now
	}
	return now - uint64(lateness(time.Duration(now-last), time.Duration(interval)))
}
