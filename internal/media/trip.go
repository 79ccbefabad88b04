package media

import "time"

const (
	// tripTime is how long a round trip counts, and tripsKept how many do: a route that has become longer is
	// noticed after as many.
	tripTime  = 10 * time.Second
	tripsKept = 8
	// smallUpdate is how large an update may be whose way tells of the delay alone, in bytes.
	smallUpdate = 1 << 10
	// doubtTime is how much later than expected is not noise, and doubtSpacing how often it is looked into.
	doubtTime    = 10 * time.Millisecond
	doubtSpacing = 250 * time.Millisecond
	// drainTime bounds the wait for an empty link, on which a ping tells the truth.
	drainTime = time.Second
)

// tripFilter is the shortest round trip of late: of pings and small updates that found nothing of ours ahead of
// them.
type tripFilter struct {
	trips [tripsKept]trip
	at    int
	any   time.Duration // until there are such: the shortest of whatever came
	last  trip          // newest ping's

	doubt    bool
	pingedAt time.Time
	drain    time.Time // since when the link is left to run empty; zero: it is not
}

type trip struct {
	took time.Duration
	at   time.Time
}

// least is the shortest round trip; false when nothing is known.
func (t *tripFilter) least() (time.Duration, bool) {
	best, newest := time.Duration(0), t.newest()
	for _, s := range t.trips {
		if s.took > 0 && newest.Sub(s.at) <= tripTime && (best == 0 || s.took < best) {
			best = s.took
		}
	}
	if best == 0 || t.any > 0 && t.any < best {
		best = t.any
	}
	return best, best > 0
}

func (t *tripFilter) newest() time.Time {
	return t.trips[(t.at+tripsKept-1)%tripsKept].at
}

// seen notes how long an update and its acknowledgement were on their way. Exact: it was small and alone.
func (t *tripFilter) seen(took time.Duration, exact bool, now time.Time) {
	least, known := t.least()
	switch {
	case exact:
		t.add(took, now)
	case !known || took < least:
		t.any = took // at most so long; better than nothing
	}
}

func (t *tripFilter) add(took time.Duration, now time.Time) {
	t.trips[t.at] = trip{took, now}
	t.at = (t.at + 1) % tripsKept
	t.any = 0
	t.doubt = false
}

// answered notes the answer to a ping. Two that took much longer than the shortest, one after the other, are a
// new route.
func (t *tripFilter) answered(took time.Duration, now time.Time) {
	least, known := t.least()
	longer := known && took > least+least/4+doubtTime
	if longer && t.last.took > least+least/4+doubtTime && now.Sub(t.last.at) < tripTime {
		t.trips = [tripsKept]trip{}
		took = min(took, t.last.took)
	}
	t.last = trip{took, now}
	t.add(took, now)
	t.doubt = longer
}

func (t *tripFilter) wantsProbe(now time.Time) bool {
	since := now.Sub(t.pingedAt)
	return since > tripTime || since > doubtSpacing && (t.doubt || now.Sub(t.newest()) > tripTime)
}

func (t *tripFilter) probed(now time.Time) {
	t.pingedAt = now
	t.drain = time.Time{}
}

// draining reports whether nothing is to be sent until all is acknowledged, because the link has not been empty
// for so long that nobody knows the shortest round trip any more.
func (t *tripFilter) draining(now time.Time) bool {
	if newest := t.newest(); newest.IsZero() || now.Sub(newest) <= tripTime || now.Sub(t.pingedAt) <= tripTime {
		t.drain = time.Time{}
		return false
	}
	if t.drain.IsZero() {
		t.drain = now
	}
	return now.Sub(t.drain) <= drainTime
}
