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

// Started notes that an update begins.
func (p *Pacer) Started(now time.Time) {
	if now.Sub(p.last) < spacing && p.grants > 0 {
		p.grants--
	}
	p.last = now
}
