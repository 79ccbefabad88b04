package media

import (
	"math"
	"time"
)

// Limits of what is in flight between agent and viewer (docs/adr/0032).
const (
	maxInFlight = 3 // updates
	// firstUpdate and firstWindow are for a link of which nothing is known: half a second of the slowest.
	firstUpdate    = 32 << 10 // bytes
	firstWindow    = 64 << 10
	maxWindow      = 8 << 20 // when the viewer has no wish
	leastUpdate    = 2 << 10
	greatestUpdate = 8 << 20
	// promptRoom is what the answer to an input may take beyond the window.
	promptRoom = 16 << 10

	// queueTime is how much waits at the link's narrowest place, so that it never runs dry; and how much while the
	// user works, so that answers do not wait.
	queueTime     = 50 * time.Millisecond
	workQueueTime = 20 * time.Millisecond
	// workTime is how long after an input the user counts as working.
	workTime = 500 * time.Millisecond
	// longTrip is a round trip in which more than one answer is under way.
	longTrip = 100 * time.Millisecond
	// leastUpdateTime, or workUpdateTime while the user works, and mostUpdateTime bound how long the link is busy with
	// one update.
	leastUpdateTime = 25 * time.Millisecond
	workUpdateTime  = 15 * time.Millisecond
	mostUpdateTime  = 100 * time.Millisecond

	// enoughBytes is how many an update must have to tell something of the bandwidth; fewer tell of the delay,
	// unless they fill the link.
	enoughBytes = 16 << 10
	// fadeTime is how fast what was seen of the bandwidth loses weight.
	fadeTime   = 300 * time.Millisecond
	fadeTrips  = 4
	fadeMost   = 0.02 // weight that the past keeps through any quiet time: it is all that is known
	leastBusy  = 100 * time.Microsecond
	staleReach = 10 * time.Second
	staleLimit = 128 << 10 // bytes of the first update after so long
)

// Flow decides whether another update may be sent and how large it may be: at most three, and at most the
// window's bytes, are un-acknowledged. An update that is greater than the window goes alone. The window is what
// the link carries in one round trip and a little more, so that what a slow link cannot carry merges here
// and not in the buffers of sockets and routers.
type Flow struct {
	wish    int // the viewer's
	pending [maxInFlight]inFlight
	n       int
	prompts int // of them, answers
	bytes   int
	acked   uint32

	trip  tripFilter
	tuner tuner
	input time.Time // when the user did something last
	delay time.Duration

	arrived time.Time // when the viewer had the update that it acknowledged last, as seen here
	// carried bytes took busy seconds; both fade, so their ratio is the bandwidth of late.
	carried, busy float64
	fadedAt       time.Time
	runBytes      int           // of small updates that followed each other without a gap
	runBusy       time.Duration // what they took
	runFull       bool          // the link was full with some of them
	// reach is how large an update may be by what was seen so far: it doubles at most.
	reach int
}

// SentUpdate is an update as it was sent.
type SentUpdate struct {
	Seq    uint32
	Bytes  int
	Prompt bool // it answers an input
	Lossy  bool // some of it has losses
}

type inFlight struct {
	SentUpdate
	sent  time.Time
	ahead int // bytes that were in flight before it
	alone bool
	// full says that the link had as much to carry as it was thought to, so that it can turn out to carry less.
	full bool
}

// NewFlow makes an empty flow; wish is the greatest number of bytes in flight that the viewer wishes, 0 for
// no wish.
func NewFlow(wish int) Flow {
	if wish <= 0 || wish > maxWindow {
		wish = maxWindow
	}
	f := Flow{wish: wish, reach: firstUpdate}
	f.tuner.start()
	return f
}

// InputSeen notes a key, a button or the wheel: its answer shall not wait.
func (f *Flow) InputSeen(now time.Time) { f.input = now }

// Working reports whether the user did something of late.
func (f *Flow) Working(now time.Time) bool {
	return !f.input.IsZero() && now.Sub(f.input) < workTime
}

// kept is how many updates are kept for answers while the user works: who types fast hits a key every 100 ms.
func (f *Flow) kept() int {
	if base, _ := f.trip.least(); base > longTrip {
		return 2
	}
	return 1
}

// Open reports whether an update may be sent now. Some are kept for answers while the user works.
func (f *Flow) Open(now time.Time) bool {
	switch {
	case f.n == 0:
		return true
	case f.n == maxInFlight, f.trip.draining(now):
		return false
	case f.Working(now) && f.n-f.prompts+f.kept() >= maxInFlight:
		return false
	}
	window := f.window(now)
	if f.Working(now) {
		window -= f.size(now) / 2
	}
	return f.bytes < window
}

// OpenPrompt reports whether a small update that answers an input may be sent now.
func (f *Flow) OpenPrompt(now time.Time) bool {
	return f.n == 0 || f.n < maxInFlight && f.bytes < f.window(now)+promptRoom
}

// InFlight is how many updates, and how many bytes, wait for their acknowledgement.
func (f *Flow) InFlight() (updates, bytes int) { return f.n, f.bytes }

// Oldest is when the oldest update that is not acknowledged was sent; false when there is none.
func (f *Flow) Oldest() (time.Time, bool) {
	return f.pending[0].sent, f.n > 0
}

// Limit is how large the next update may be, in bytes on the wire.
func (f *Flow) Limit(now time.Time) int {
	return min(f.size(now), max(f.wish, leastUpdate))
}

// Quality is what the link and the viewer can take of the next update. An answer to an input takes less when other
// things wait.
func (f *Flow) Quality(prompt, backlog bool, now time.Time) Quality {
	q := Quality{Limit: f.Limit(now), BytesPerSecond: int(f.Rate())}
	if prompt && backlog {
		q.Limit = f.PromptLimit(now)
	}
	f.tuner.fill(&q)
	return q
}

// PromptLimit is how large the answer to an input may be when other things wait too, in bytes on the wire.
func (f *Flow) PromptLimit(now time.Time) int { return min(f.Limit(now), promptRoom) }

// Sent notes an update. It must have been Open, or OpenPrompt when it answers an input.
func (f *Flow) Sent(u SentUpdate, now time.Time) {
	if f.n == 0 && !f.arrived.IsZero() && now.Sub(f.arrived) > staleReach {
		f.reach = min(f.reach, staleLimit)
	}
	f.pending[f.n] = inFlight{SentUpdate: u, sent: now, ahead: f.bytes, alone: f.n == 0}
	f.n++
	f.pending[f.n-1].full = f.n == maxInFlight || 2*u.Bytes >= f.size(now) || f.bytes+u.Bytes >= f.window(now)
	if u.Prompt {
		f.prompts++
	}
	f.bytes += u.Bytes
}

// Acknowledged notes that update seq and all before it are drawn, that it took the viewer decode from its
// receipt to that, and how many it has waiting now. It reports false when seq was never sent; repetitions are fine.
func (f *Flow) Acknowledged(seq uint32, decode time.Duration, waiting int, now time.Time) bool {
	if seq <= f.acked {
		return true
	}
	done, bytes := 0, 0
	for done < f.n && f.pending[done].Seq <= seq {
		bytes += f.pending[done].Bytes
		done++
	}
	if done == 0 || f.pending[done-1].Seq != seq {
		return false
	}
	first, last := f.pending[0], f.pending[done-1]
	took := now.Sub(last.sent)
	// The viewer's own time is none of the link's. It may say what it likes, so never more than is left of the
	// shortest round trip.
	base, known := f.trip.least()
	decode = max(0, min(decode, took-base))
	arrived := now.Add(-decode)
	took = max(arrived.Sub(last.sent), time.Microsecond)

	full := false
	for i := range f.pending[:done] {
		full = full || f.pending[i].full
	}
	f.measure(&first, bytes, full, arrived, base, known)
	f.delay = max(0, took-base)
	if last.Lossy && known {
		// What the link cannot explain, a busy machine for one, gets no better with fewer bytes.
		late := f.delay
		if explained := float64(last.ahead+last.Bytes) / max(f.Rate(), 1); late > 2*seconds(explained) {
			late = seconds(explained)
		}
		f.tuner.seen(late, base, decode, waiting, now)
	}
	f.trip.seen(took, last.alone && bytes <= smallUpdate, now)
	if rate := f.Rate(); last.alone && rate > 0 && took > 3*(base+seconds(float64(bytes)/rate))/2+doubtTime {
		f.trip.doubt = true
	}
	if arrived.After(f.arrived) {
		f.arrived = arrived
	}
	f.acked = seq
	for _, p := range f.pending[:done] {
		if p.Prompt {
			f.prompts--
		}
	}
	copy(f.pending[:], f.pending[done:f.n])
	f.n -= done
	f.bytes -= bytes
	return true
}

// measure takes bytes that have arrived into the bandwidth. The link was busy with them from when the update
// before them had arrived, or from when their first could have. When it was not full, it may carry more than that and not less:
// what small updates take on their way is mostly the wait for processors.
func (f *Flow) measure(first *inFlight, bytes int, full bool, arrived time.Time, base time.Duration, known bool) {
	start := first.sent.Add(base)
	gap := !f.arrived.After(start)
	if !gap {
		start = f.arrived
	}
	busy := max(arrived.Sub(start), leastBusy)
	if gap {
		// base is not exact; what seems to have taken no time has taken some.
		busy = max(busy, arrived.Sub(first.sent)/8)
		f.runBytes, f.runBusy, f.runFull = 0, 0, false
	}
	f.runBytes += bytes
	f.runBusy += busy
	f.runFull = f.runFull || full
	enough := enoughBytes
	if known && f.busy > 0 {
		enough = min(enough, f.size(arrived)/2)
	}
	if f.runBytes < enough {
		return
	}
	if !f.runFull && float64(f.runBytes) < f.Rate()*f.runBusy.Seconds() {
		f.runBytes, f.runBusy = 0, 0
		return
	}
	fade := math.Exp(-arrived.Sub(f.fadedAt).Seconds() / max(fadeTime, fadeTrips*base).Seconds())
	fade = max(fade, fadeMost)
	f.fadedAt = arrived
	f.carried = f.carried*fade + float64(f.runBytes)
	f.busy = f.busy*fade + f.runBusy.Seconds()
	f.runBytes, f.runBusy, f.runFull = 0, 0, false
	could := int(min(f.Rate()*mostUpdateTime.Seconds(), greatestUpdate))
	f.reach = max(min(could, max(f.reach, min(2*f.reach, 2*bytes))), leastUpdate)
}

// Rate is the bandwidth of late in bytes a second; 0 when nothing is known.
func (f *Flow) Rate() float64 {
	if f.busy == 0 {
		return 0
	}
	return f.carried / f.busy
}

// Delay is how much longer than the shortest round trip the update that was acknowledged last was on its way,
// without the viewer's own time.
func (f *Flow) Delay() time.Duration { return f.delay }

// size is how large an update may be by the link alone: as much as keeps it busy for a while that is short
// enough for whoever waits behind.
func (f *Flow) size(now time.Time) int {
	rate := f.Rate()
	if rate == 0 {
		return f.reach
	}
	base, _ := f.trip.least()
	shortest := leastUpdateTime
	if f.Working(now) {
		shortest = workUpdateTime
	}
	t := max(shortest, min((base+f.queueTime(now))/2, mostUpdateTime))
	return max(min(int(min(rate*t.Seconds(), greatestUpdate)), f.reach), leastUpdate)
}

func (f *Flow) queueTime(now time.Time) time.Duration {
	if f.Working(now) {
		return workQueueTime
	}
	return queueTime
}

// window is how many bytes may be in flight.
func (f *Flow) window(now time.Time) int {
	rate := f.Rate()
	if rate == 0 {
		return min(firstWindow, f.wish)
	}
	base, _ := f.trip.least()
	window := min(rate*(base+f.queueTime(now)).Seconds(), maxWindow)
	return min(max(int(window), leastUpdate), f.wish)
}

// WantsProbe reports whether a ping should be sent before the next update, because nothing else has told of the
// shortest round trip for long. The ping's answer goes to RoundTrip.
func (f *Flow) WantsProbe(now time.Time) bool { return f.n == 0 && f.trip.wantsProbe(now) }

// Probed notes that the ping was sent.
func (f *Flow) Probed(now time.Time) { f.trip.probed(now) }

// RoundTrip notes that a ping was answered, now.
func (f *Flow) RoundTrip(took time.Duration, now time.Time) {
	if took > 0 && took < time.Minute {
		f.trip.answered(took, now)
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
