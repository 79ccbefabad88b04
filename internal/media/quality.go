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
	// They are late for lateFor at least: what a stall of a busy machine has held up comes all at once.
	lateFor = 40 * time.Millisecond
	// A step that had to be taken back makes the next try wait twice as long, at most mostCalmFor.
	mostCalmFor = 8 * time.Second
	// stepTime is how long a step has to show its effect, beside a round trip.
	stepTime = 100 * time.Millisecond

	// Of drawsKept updates with losses, the viewer had most waiting while it drew the one before: it is full, and gets as many as take
	// drawShare of its time, in percent. It had at most few of them waiting: it has room, and gets an eighth more. How long one takes
	// tells less: a viewer decodes one while it paints another.
	drawsKept = 15
	mostWait  = 8
	fewWait   = 3
	drawShare = 85
	// leastFPS is as few frames a second as that may lead to before the video gets smaller. A viewer that could draw
	// mostFPS of the smaller ones, and smallFrames in all, gets the larger again.
	leastFPS    = 12
	smallFrames = 150
	mostFPS     = 60
)

// rung is one step of quality. The picture gets coarser first, then slower; text is never touched.
type rung struct{ qp, jpeg, fps int }

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
	lates    int       // updates that were late, one after the other,
	lateAt   time.Time // since then
	patience time.Duration

	draws    [drawsKept]time.Duration // what the viewer took for each
	drawn    int                      // how many there are
	waited   int                      // how many of them waited in the viewer for the one before
	waits    bool                     // the next one does
	drawnAt  time.Time
	fps      int           // that the viewer gets at most
	trial    time.Duration // how long there has to be room before it gets more
	roomAt   time.Time     // since when there is; zero: there is none
	fpsAt    time.Time     // of the last change
	fpsUp    bool          // it got more
	small    bool
	smallFor int // frames that the viewer drew fast since then
}

func (t *tuner) start() { t.rung, t.patience, t.fps, t.trial = firstRung, calmFor, mostFPS, 0 }

// seen notes an update with losses: how much later than the shortest round trip it came, how long the viewer
// took to draw it, and how many it had waiting then.
func (t *tuner) seen(late, base, decode time.Duration, waiting int, now time.Time) {
	t.draw(decode, waiting, now)
	if late <= lateTime {
		t.lates = 0
	}
	settled := now.Sub(t.stepAt) >= stepTime+base
	switch {
	case late > lateTime:
		t.calmAt = now
		if t.lates++; t.lates == 1 {
			t.lateAt = now
		}
		if !settled || t.lates < fewLates || now.Sub(t.lateAt) < lateFor {
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

// draw notes how long the viewer took, and how many updates it has waiting.
func (t *tuner) draw(decode time.Duration, waiting int, now time.Time) {
	if t.waits {
		t.waited++
		decode = min(decode, now.Sub(t.drawnAt)) // it could not begin before
	}
	t.waits, t.drawnAt = waiting > 0, now
	t.draws[t.drawn] = decode
	if t.small {
		t.smallFor++
	}
	if t.drawn++; t.drawn < drawsKept {
		return
	}
	waited := t.waited
	t.drawn, t.waited = 0, 0
	slices.Sort(t.draws[:])
	can := int(time.Second * drawShare / 100 / max(t.draws[drawsKept/2], time.Millisecond))
	switch {
	case waited >= mostWait:
		t.full(can, now)
	case waited > fewWait:
		t.roomAt = time.Time{}
	default:
		t.room(now)
	}
}

// full gives the viewer what it can draw.
func (t *tuner) full(can int, now time.Time) {
	if t.fpsUp && now.Sub(t.fpsAt) < 2*t.trial+calmFor {
		t.trial = max(calmFor, min(2*t.trial, mostCalmFor)) // that was too much
	}
	t.roomAt = time.Time{}
	if can < leastFPS && !t.small {
		t.small, t.smallFor = true, 0
		can = leastFPS
	}
	t.setFPS(min(can, t.fps), false, now)
}

// room gives the viewer more, when it has had room for long enough.
func (t *tuner) room(now time.Time) {
	switch {
	case t.roomAt.IsZero():
		t.roomAt = now
	case now.Sub(t.roomAt) < t.trial:
	case t.fps < mostFPS:
		if t.fpsUp {
			t.trial /= 2 // the last one held
		}
		t.setFPS(t.fps+t.fps/8+1, true, now)
	case t.small && t.smallFor >= smallFrames:
		t.small = false
	}
}

func (t *tuner) setFPS(fps int, up bool, now time.Time) {
	t.fps = max(leastFPS, min(fps, mostFPS))
	t.fpsAt, t.fpsUp = now, up
}

// fill sets what the tuner decides.
func (t *tuner) fill(q *Quality) {
	r := ladder[t.rung]
	q.VideoQP, q.JPEGQuality, q.VideoFPS, q.VideoScale = r.qp, r.jpeg, min(r.fps, t.fps), 1
	if t.small {
		q.VideoScale = 2
	}
}
