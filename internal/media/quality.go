package media

import (
	"slices"
	"time"
)

// Rules of how lossy codings follow the link and the viewer (docs/adr/0032).
const (
	// The second update with losses in a row that is later than lateTime lowers the quality by a step, one that is
	// later than veryLateTime by two. When none was later than calmTime for calmFor, it is raised by one.
	lateTime     = 30 * time.Millisecond
	veryLateTime = 120 * time.Millisecond
	calmTime     = 18 * time.Millisecond
	calmFor      = time.Second
	fewLates     = 2
	// A step that had to be taken back makes the next try wait twice as long, at most mostCalmFor.
	mostCalmFor = 8 * time.Second
	// stepTime is how long a step has to show its effect, beside a round trip.
	stepTime = 100 * time.Millisecond

	decodesKept = 15
	// drawShare is how much of its time the viewer may spend on drawing, in percent; leastFPS is as few frames a
	// second as that may lead to before the video gets smaller. A viewer that could draw smallerFPS of the smaller ones
	// for smallFrames gets the larger again.
	drawShare   = 80
	leastFPS    = 12
	smallerFPS  = 55
	smallFrames = 150
	mostFPS     = 60
)

// rung is one step of quality. The picture gets coarser first, then slower; text is never touched.
type rung struct{ qp, jpeg, fps int }

// A finer quantizer than the first rung's keeps the grain of a film: thirty times the bytes, and half as many frames where processors
// are few (docs/benchmarks.md). What rests is exact anyway.

// A finer quantizer than the first rung's keeps the grain of a film, for thirty times the bytes and half as many frames where processors
// are few (docs/benchmarks.md); what rests is exact anyway.

// firstRung is what a link of which nothing is known gets.
const firstRung = 1

//nolint:gochecknoglobals // a table
var ladder = [...]rung{
	{28, 90, 60},
	{28, 85, 60},
	{30, 75, 60},
	{32, 65, 60},
	{32, 65, 30},
	{34, 55, 30},
	{36, 45, 30},
	{36, 40, 20},
	{36, 40, 12},
}

// tuner chooses the quality of lossy codings by how late they come to the viewer, and how long it takes to draw
// them. Its zero value stands at the best rung; start sets it.
type tuner struct {
	rung     int
	stepAt   time.Time // of the last step
	raised   bool      // the last step went up
	calmAt   time.Time // since when nothing was late
	lates    int       // updates that were late, one after the other
	patience time.Duration

	decodes  [decodesKept]time.Duration
	decodeAt int
	decoded  int // how many there are
	fps      int // that the viewer can draw; 0: as many as it gets
	small    bool
	smallFor int // frames that the viewer drew fast since then
}

func (t *tuner) start() { t.rung, t.patience = firstRung, calmFor }

// seen notes an update with losses: how much later than the shortest round trip it came, and how long the viewer
// took to draw it.
func (t *tuner) seen(late, base, decode time.Duration, now time.Time) {
	t.drawn(decode)
	if late <= lateTime {
		t.lates = 0
	}
	settled := now.Sub(t.stepAt) >= stepTime+base
	switch {
	case late > lateTime:
		t.calmAt = now
		if t.lates++; !settled || t.lates < fewLates {
			return
		}
		if t.raised && now.Sub(t.stepAt) < 2*t.patience {
			t.patience = min(2*t.patience, mostCalmFor)
		}
		t.step(1, now)
		if late > veryLateTime {
			t.step(1, now)
		}
	case late > calmTime, t.calmAt.IsZero():
		t.calmAt = now
	case now.Sub(t.calmAt) >= t.patience && settled:
		if t.raised {
			t.patience = max(calmFor, t.patience/2) // the last one held
		}
		t.calmAt = now
		t.step(-1, now)
	}
}

func (t *tuner) step(by int, now time.Time) {
	t.rung = max(0, min(t.rung+by, len(ladder)-1))
	t.stepAt, t.raised = now, by < 0
}

// drawn notes how long the viewer took.
func (t *tuner) drawn(decode time.Duration) {
	t.decodes[t.decodeAt] = decode
	t.decodeAt = (t.decodeAt + 1) % decodesKept
	if t.decoded = min(t.decoded+1, decodesKept); t.decoded < decodesKept {
		return
	}
	sorted := t.decodes
	slices.Sort(sorted[:])
	half := max(sorted[decodesKept/2], time.Millisecond)
	can := min(int(time.Second*drawShare/100/half), mostFPS)
	switch {
	case can < leastFPS && !t.small:
		t.small = true
		t.decoded = 0 // what was seen was of the larger video
		can = leastFPS
	case can >= smallerFPS && t.small && t.smallFor < smallFrames:
		t.smallFor++
	case can >= smallerFPS && t.small:
		t.small, t.smallFor = false, 0
		t.decoded = 0
	}
	t.fps = max(can, leastFPS)
}

// fill sets what the tuner decides.
func (t *tuner) fill(q *Quality) {
	r := ladder[t.rung]
	q.VideoQP, q.JPEGQuality, q.VideoFPS, q.VideoScale = r.qp, r.jpeg, r.fps, 1
	if t.fps > 0 {
		q.VideoFPS = min(q.VideoFPS, t.fps)
	}
	if t.small {
		q.VideoScale = 2
	}
}
