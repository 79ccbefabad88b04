package media

import "time"

// Limits of what is in flight between agent and viewer.
const (
	maxInFlight = 3        // updates
	minWindow   = 64 << 10 // bytes
	maxWindow   = 4 << 20  // bytes, when the viewer has no wish
	rateSamples = 10
	// leastSample is how many bytes an acknowledgement must cover to tell something of the bandwidth; fewer
	// tell of the delay.
	leastSample    = 16 << 10
	roundTripsKept = 16
)

// Flow decides whether another update may be sent: at most three, and at most the window's bytes, are
// un-acknowledged. An update that is greater than the window goes alone. The window follows the measured
// bandwidth and delay, so that what a slow link cannot carry merges here and not in socket buffers.
type Flow struct {
	limit   int // the viewer's wish
	pending [maxInFlight]inFlight
	n       int
	bytes   int
	acked   uint32

	lastAck    time.Time
	rates      [rateSamples]float64 // bytes per second
	rateAt     int
	roundTrips [roundTripsKept]time.Duration
	roundAt    int
}

type inFlight struct {
	seq   uint32
	bytes int
	sent  time.Time
}

// NewFlow makes an empty flow; limit is the greatest number of bytes in flight that the viewer wishes, 0 for
// no wish.
func NewFlow(limit int) Flow {
	if limit <= 0 || limit > maxWindow {
		limit = maxWindow
	}
	return Flow{limit: limit}
}

// Open reports whether an update may be sent now.
func (f *Flow) Open() bool {
	return f.n == 0 || f.n < maxInFlight && f.bytes < f.window()
}

// InFlight is how many updates wait for their acknowledgement.
func (f *Flow) InFlight() int { return f.n }

// Oldest is when the oldest update that is not acknowledged was sent; false when there is none.
func (f *Flow) Oldest() (time.Time, bool) {
	return f.pending[0].sent, f.n > 0
}

// Sent notes an update. It must have been Open.
func (f *Flow) Sent(seq uint32, bytes int, now time.Time) {
	f.pending[f.n] = inFlight{seq, bytes, now}
	f.n++
	f.bytes += bytes
}

// Acknowledged notes that update seq and all before it are drawn. It reports false when seq was never sent;
// repetitions are fine.
func (f *Flow) Acknowledged(seq uint32, now time.Time) bool {
	if seq <= f.acked {
		return true
	}
	done := 0
	for done < f.n && f.pending[done].seq <= seq {
		done++
	}
	if done == 0 || f.pending[done-1].seq != seq {
		return false
	}
	bytes := 0
	for _, p := range f.pending[:done] {
		bytes += p.bytes
	}
	last := f.pending[done-1]
	start := f.pending[0].sent
	if f.lastAck.After(start) {
		start = f.lastAck
	}
	if took := now.Sub(start); took > 0 && bytes >= leastSample {
		f.rates[f.rateAt] = float64(bytes) / took.Seconds()
		f.rateAt = (f.rateAt + 1) % rateSamples
	}
	f.roundTrips[f.roundAt] = max(now.Sub(last.sent), time.Microsecond)
	f.roundAt = (f.roundAt + 1) % roundTripsKept
	f.lastAck = now
	f.acked = seq
	copy(f.pending[:], f.pending[done:f.n])
	f.n -= done
	f.bytes -= bytes
	return true
}

// Limits of one update, in bytes. Its acknowledgement has to come within half a minute, so the first is small
// enough for any link, and each later one for what the link has shown. The greatest fits into a message.
const (
	firstUpdate    = 1 << 20
	leastUpdate    = 128 << 10
	greatestUpdate = 24 << 20
	updateTime     = 2 * time.Second
)

// Limit is how large the next update may be, in bytes.
func (f *Flow) Limit() int {
	rate := f.rate()
	if rate == 0 {
		return firstUpdate
	}
	return int(max(leastUpdate, min(rate*updateTime.Seconds(), greatestUpdate)))
}

// BytesPerSecond is the greatest bandwidth of late; 0 when nothing is known.
func (f *Flow) BytesPerSecond() int { return int(f.rate()) }

// rate is the greatest bandwidth of late, in bytes per second; 0 when nothing is known.
func (f *Flow) rate() float64 {
	rate := 0.0
	for _, r := range f.rates {
		rate = max(rate, r)
	}
	return rate
}

// window is twice what the link carries in one round trip, between 64 KiB and the viewer's wish.
func (f *Flow) window() int {
	trip := time.Duration(0)
	for _, t := range f.roundTrips {
		if t > 0 && (trip == 0 || t < trip) {
			trip = t
		}
	}
	return max(min(int(2*f.rate()*trip.Seconds()), f.limit), min(minWindow, f.limit))
}
