package media_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"penstock.dev/penstock/internal/media"
)

// path is a link in virtual time as TCP makes it: bytes arrive in order at a rate, a round trip later the viewer's
// answer is back. A loss holds up all that is behind it for a while and then lets it through.
type path struct {
	rate     float64 // bytes per second
	trip     time.Duration
	decode   time.Duration
	lossTime time.Duration // of each loss; 0: there are none
	jitter   time.Duration // at most so long a processor is awaited after the way
	rng      *rand.Rand

	drawn time.Time // when the viewer has drawn all that it has
	free  time.Time // when the link has carried all that was given to it
	held  time.Time // what is behind a loss arrives no earlier
}

// carry gives the link bytes and returns when they have arrived, and how long they waited for others before.
func (p *path) carry(bytes int, now time.Time) (arrived time.Time, queued time.Duration) {
	queued = max(0, p.free.Sub(now))
	if p.free.Before(now) {
		p.free = now
	}
	p.free = p.free.Add(time.Duration(float64(bytes) / p.rate * float64(time.Second)))
	// One packet in a hundred.
	if p.lossTime > 0 && p.rng.Float64() < 1-math.Pow(0.99, float64(1+bytes/1448)) {
		p.held = p.free.Add(p.trip/2 + p.lossTime)
	}
	arrived = p.free.Add(p.trip / 2)
	if p.jitter > 0 {
		arrived = arrived.Add(time.Duration(p.rng.Int64N(int64(p.jitter))))
		defer func() { p.held = arrived }()
	}
	if arrived.Before(p.held) {
		arrived = p.held
	}
	return arrived, queued
}

// stream drives a Flow over a path with a source that always has more.
type stream struct {
	t    *testing.T
	flow media.Flow
	path *path
	now  time.Time
	seq  uint32
	acks []event // in order of time
	// film is 60 frames a second of video, each of frame bytes at the quantizer 26, which cannot be cut.
	film      bool
	frame     float64
	nextFrame time.Time
	steps     int // changes of quality
	quality   media.Quality
	frames    int
	late      []time.Duration // of frames when drawn
	nextKey   time.Time
	keys      bool
	prompt    bool // the answer to a key waits
	keyAt     time.Time

	most    int // updates in flight, ever
	carried int
	queue   []time.Duration // of each update: wait for what was sent before
	echo    []time.Duration // from a key to its answer drawn, beyond the round trip
	rates   []float64
	updates int
}

type event struct {
	at      time.Time
	seq     uint32    // 0: a pong
	arrived time.Time // at the viewer, which draws one after the other,
	drawn   time.Time // and has done that
	sent    time.Time
	key     time.Time
}

func newStream(t *testing.T, rate float64, trip time.Duration, loss bool) *stream {
	p := &path{rate: rate, trip: trip, decode: 3 * time.Millisecond, rng: rand.New(rand.NewPCG(1, uint64(rate)))}
	if loss {
		p.lossTime = trip + 10*time.Millisecond // fast retransmission
	}
	return &stream{t: t, flow: media.NewFlow(0), path: p, now: time.Unix(1000, 0)}
}

func (s *stream) push(e event) {
	i, _ := slices.BinarySearchFunc(s.acks, e, func(a, b event) int { return a.at.Compare(b.at) })
	s.acks = slices.Insert(s.acks, i, e)
}

func (s *stream) send(bytes int, key time.Time) {
	if s.flow.WantsProbe(s.now) {
		s.flow.Probed(s.now)
		at, _ := s.path.carry(60, s.now)
		s.push(event{at: at.Add(s.path.trip / 2), sent: s.now})
	}
	s.seq++
	s.flow.Sent(media.SentUpdate{Seq: s.seq, Bytes: bytes, Prompt: !key.IsZero(), Lossy: s.film}, s.now)
	n, _ := s.flow.InFlight()
	s.most = max(s.most, n)
	at, queued := s.path.carry(bytes, s.now)
	if s.path.drawn.Before(at) {
		s.path.drawn = at
	}
	s.path.drawn = s.path.drawn.Add(s.path.decode)
	s.push(event{at: s.path.drawn.Add(s.path.trip / 2), seq: s.seq, arrived: at, drawn: s.path.drawn, key: key, sent: s.now})
	s.queue = append(s.queue, queued)
	s.carried += bytes
	s.updates++
}

// run lets time pass.
func (s *stream) run(d time.Duration) {
	end := s.now.Add(d)
	for {
		if s.keys && !s.prompt && !s.now.Before(s.nextKey) {
			s.nextKey = s.now.Add(time.Duration(90+s.path.rng.IntN(120)) * time.Millisecond)
			s.flow.InputSeen(s.now)
			s.prompt, s.keyAt = true, s.now
		}
		if s.prompt && s.flow.OpenPrompt(s.now) {
			s.prompt = false
			s.send(600, s.keyAt)
		}
		switch {
		case s.film:
			if !s.now.Before(s.nextFrame) && s.flow.Open(s.now) {
				q := s.flow.Quality(false, false, s.now)
				if q.VideoQP != s.quality.VideoQP || q.VideoFPS != s.quality.VideoFPS {
					s.steps++
				}
				s.quality = q
				s.nextFrame = s.now.Add(time.Second / time.Duration(q.VideoFPS))
				s.frames++
				s.send(int(s.frame*math.Exp2(float64(26-q.VideoQP)/6)*(0.9+0.2*s.path.rng.Float64())/float64(q.VideoScale*q.VideoScale)), time.Time{})
			}
		default:
			for s.flow.Open(s.now) {
				s.send(s.flow.Limit(s.now), time.Time{})
			}
		}
		next := end
		if len(s.acks) > 0 && s.acks[0].at.Before(next) {
			next = s.acks[0].at
		}
		if s.keys && s.nextKey.After(s.now) && s.nextKey.Before(next) {
			next = s.nextKey
		}
		if s.film && s.nextFrame.After(s.now) && s.nextFrame.Before(next) {
			next = s.nextFrame
		}
		s.now = next
		for len(s.acks) > 0 && !s.acks[0].at.After(s.now) {
			e := s.acks[0]
			s.acks = s.acks[1:]
			if e.seq == 0 {
				s.flow.RoundTrip(s.now.Sub(e.sent), s.now)
				continue
			}
			waiting := 0
			for _, later := range s.acks {
				if later.seq > e.seq && !later.arrived.After(e.drawn) {
					waiting++
				}
			}
			if !s.flow.Acknowledged(e.seq, e.drawn.Sub(e.arrived), waiting, s.now) {
				s.t.Fatalf("acknowledgement of %d was refused", e.seq)
			}
			s.rates = append(s.rates, s.flow.Rate())
			if s.film && e.key.IsZero() {
				s.late = append(s.late, s.now.Sub(e.sent)-s.path.trip)
			}
			if !e.key.IsZero() {
				s.echo = append(s.echo, s.now.Sub(e.key)-s.path.trip)
			}
		}
		if !s.now.Before(end) {
			return
		}
	}
}

func (s *stream) forget() {
	s.carried, s.queue, s.echo, s.rates, s.updates = 0, nil, nil, nil, 0
	s.steps, s.frames, s.late = 0, 0, nil
}

func quantile[T int | time.Duration | float64](list []T, q float64) T {
	if len(list) == 0 {
		return 0
	}
	list = slices.Clone(list)
	slices.Sort(list)
	return list[int(q*float64(len(list)-1))]
}

const mbit = 1e6 / 8

// links are the conditions that the stream has to work in.
func links(f func(name string, rate float64, trip time.Duration, loss bool)) {
	for _, rate := range []float64{0.5, 2, 10, 100} {
		for _, trip := range []time.Duration{5, 50, 150} {
			for _, loss := range []bool{false, true} {
				name := fmt.Sprintf("%v Mbit/s, %d ms", rate, trip)
				if loss {
					name += ", loss"
				}
				f(name, rate*mbit, trip*time.Millisecond, loss)
			}
		}
	}
}

// least is how long the link takes for an update of the least size.
func least(rate float64) time.Duration {
	return time.Duration(2048 / rate * float64(time.Second))
}

// Whatever the link: never more than three updates in flight, a queue that is short, a link that is used, a
// steady estimate, and an answer to a key that does not wait for a large picture.
func TestFlowOverLinks(t *testing.T) {
	t.Parallel()
	links(func(name string, rate float64, trip time.Duration, loss bool) {
		t.Run(name, func(t *testing.T) {
			s := newStream(t, rate, trip, loss)
			s.run(3 * time.Second)
			s.forget()
			s.run(30 * time.Second)
			used := float64(s.carried) / (rate * 30)
			low, high := quantile(s.rates, 0.02)/rate, quantile(s.rates, 0.98)/rate
			queue := quantile(s.queue, 0.95)
			s.keys = true
			s.forget()
			s.run(30 * time.Second)
			echo := quantile(s.echo, 0.5)
			t.Logf("used %.2f, queue p95 %v, estimate %.2f to %.2f of the rate; with keys: used %.2f, queue p95 %v, echo p50 %v p95 %v beyond the round trip",
				used, queue, low, high, float64(s.carried)/(rate*30), quantile(s.queue, 0.95), echo, quantile(s.echo, 0.95))
			if s.most > 3 {
				t.Errorf("%d updates in flight", s.most)
			}
			// Behind a loss the path holds what has arrived for a round trip; that is a queue of the path's own.
			bound := 60*time.Millisecond + least(rate)
			if loss {
				bound += trip
			}
			if queue > bound {
				t.Errorf("updates waited %v, want at most %v", queue, bound)
			}
			if !loss && used < 0.9 {
				t.Errorf("the link was used to %.2f of what it carries", used)
			}
			// TCP alone carries 1.2 packets a round trip and √loss: a hundredth lost, 12 packets.
			if tcp := 12 * 1448 / trip.Seconds(); loss && used*rate < min(0.6*rate, tcp) {
				t.Errorf("with losses %.0f B/s were carried, want %.0f", used*rate, min(0.6*rate, tcp))
			}
			if !loss && (low < 0.9 || high > 1.1) {
				t.Errorf("the estimate swings from %.2f to %.2f of the rate", low, high)
			}
			if high > 1.2 {
				t.Errorf("the estimate reaches %.2f of the rate", high)
			}
			if echo > bound {
				t.Errorf("half of the answers took more than %v beyond the round trip, want %v", echo, bound)
			}
			if len(s.echo) < 100 {
				t.Errorf("%d keys were answered", len(s.echo))
			}
		})
	})
}

// A link that becomes ten times slower or faster is followed, and so is a route that becomes longer or shorter.
func TestFlowFollows(t *testing.T) {
	t.Parallel()
	type change struct {
		name    string
		rate    float64 // factor
		trip    time.Duration
		settles time.Duration
	}
	for _, c := range []change{
		{"slower", 0.1, 0, 3 * time.Second},
		{"faster", 10, 0, 3 * time.Second},
		{"longer", 1, 150 * time.Millisecond, 12 * time.Second},
		{"shorter", 1, 5 * time.Millisecond, 12 * time.Second},
	} {
		for _, rate := range []float64{5, 20} {
			for _, trip := range []time.Duration{5, 50, 150} {
				for _, loss := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s, %v Mbit/s, %d ms, loss %v", c.name, rate, trip, loss), func(t *testing.T) {
						s := newStream(t, rate*mbit, trip*time.Millisecond, loss)
						s.run(5 * time.Second)
						s.path.rate *= c.rate
						if c.trip > 0 {
							s.path.trip = c.trip
						}
						start := s.now
						s.run(c.settles)
						if left := s.path.free.Sub(s.now); left > 200*time.Millisecond+least(s.path.rate) {
							t.Errorf("%v after the change %v are still to be carried", s.now.Sub(start), left)
						}
						s.forget()
						s.run(15 * time.Second)
						used := float64(s.carried) / (s.path.rate * 15)
						queue := quantile(s.queue, 0.95)
						t.Logf("used %.2f, queue p95 %v, estimate %.2f to %.2f", used, queue, quantile(s.rates, 0.02)/s.path.rate, quantile(s.rates, 0.98)/s.path.rate)
						if s.most > 3 {
							t.Errorf("%d updates in flight", s.most)
						}
						if !loss && used < 0.9 {
							t.Errorf("the link was used to %.2f", used)
						}
						bound := 60*time.Millisecond + least(s.path.rate)
						if loss {
							bound += s.path.trip
						}
						if queue > bound {
							t.Errorf("updates waited %v, want at most %v", queue, bound)
						}
					})
				}
			}
		}
	}
}

// A film takes what the link has: frames come in time, the picture is as good as that allows, and the quality does not
// swing.
func TestQualityFollowsTheLink(t *testing.T) {
	t.Parallel()
	for _, rate := range []float64{0.5, 2, 10, 100} {
		for _, trip := range []time.Duration{5, 50, 150} {
			t.Run(fmt.Sprintf("%v Mbit/s, %d ms", rate, trip), func(t *testing.T) {
				s := newStream(t, rate*mbit, trip*time.Millisecond, false)
				s.film, s.frame = true, 16_000 // 7.7 Mbit/s at 60 a second
				s.run(8 * time.Second)
				s.forget()
				s.run(30 * time.Second)
				fps := float64(s.frames) / 30
				late := quantile(s.late, 0.95)
				t.Logf("QP %d, %.1f frames/s, late p50 %v p95 %v, used %.2f, %d steps", s.quality.VideoQP, fps, quantile(s.late, 0.5), late, float64(s.carried)/(rate*mbit*30), s.steps)
				bound, least := 40*time.Millisecond, min(16, 2.4/trip.Seconds()/1000)
				if rate < 1 { // the coarsest picture is too much: the slowest rate
					bound, least = 100*time.Millisecond, 10
				}
				if late > bound {
					t.Errorf("frames came %v late, want at most %v", late, bound)
				}
				if fps < least {
					t.Errorf("%.1f frames a second", fps)
				}
				if rate >= 10 && s.quality.VideoQP > 28 {
					t.Errorf("quantizer %d on a link with room", s.quality.VideoQP)
				}
				if s.steps > 8 {
					t.Errorf("the quality changed %d times in 30 s", s.steps)
				}
			})
		}
	}
}

// A link that gets slower is followed at once, one that gets faster in steps of a second; text has no losses for it.
func TestQualityFollowsChanges(t *testing.T) {
	t.Parallel()
	s := newStream(t, 20*mbit, 20*time.Millisecond, false)
	s.film, s.frame = true, 16_000
	s.run(10 * time.Second)
	good := s.quality.VideoQP
	s.path.rate = 1 * mbit
	s.run(3 * time.Second)
	s.forget()
	s.run(5 * time.Second)
	if s.quality.VideoQP <= good || s.quality.VideoFPS > 30 || quantile(s.late, 0.95) > 80*time.Millisecond {
		t.Errorf("on a slow link: %+v, frames %v late", s.quality, quantile(s.late, 0.95))
	}
	s.path.rate = 20 * mbit
	s.run(25 * time.Second)
	if s.quality.VideoQP > good+2 || s.quality.VideoFPS != 60 {
		t.Errorf("on a fast link again: %+v, want quantizer %d", s.quality, good)
	}
}

// Updates that come late for no reason of the link's, as on a busy machine, cost no quality, and the link is not taken for a slow one.
func TestQualityIgnoresABusyMachine(t *testing.T) {
	t.Parallel()
	for _, frame := range []float64{2_000, 5_000, 16_000} {
		for _, busy := range []struct{ stall, jitter time.Duration }{
			{10, 0}, {40, 0}, {100, 0}, {0, 10}, {0, 20}, {0, 40}, {100, 20},
		} {
			t.Run(fmt.Sprintf("%.0f bytes, %d ms, %d ms", frame, busy.stall, busy.jitter), func(t *testing.T) {
				s := newStream(t, 100*mbit, 5*time.Millisecond, false)
				s.run(time.Second) // the first picture
				s.film, s.frame = true, frame
				s.run(5 * time.Second)
				s.forget()
				s.path.jitter = busy.jitter * time.Millisecond
				for range 300 {
					s.run(time.Duration(20+int(busy.stall)+s.path.rng.IntN(1+4*int(busy.stall))) * time.Millisecond)
					s.path.held = s.now.Add(busy.stall * time.Millisecond) // nobody took what came
				}
				t.Logf("%+v after %d steps, rate %.0f to %.0f B/s", s.quality, s.steps, quantile(s.rates, 0.02), quantile(s.rates, 0.5))
				if s.quality.VideoFPS != 60 || s.quality.VideoQP > 30 {
					t.Errorf("got %+v after %d steps, want the quality of an idle machine", s.quality, s.steps)
				}
				if median := quantile(s.rates, 0.5); busy.stall == 0 && busy.jitter <= 20 && median < s.path.rate/2 {
					t.Errorf("the link of %.0f B/s was taken for one of %.0f", s.path.rate, median)
				}
			})
		}
	}
}

// A viewer that needs long to draw gets fewer frames, then smaller ones, and the full picture when it can.
func TestQualityFollowsTheViewer(t *testing.T) {
	t.Parallel()
	s := newStream(t, 100*mbit, 5*time.Millisecond, false)
	s.film, s.frame = true, 16_000
	for _, step := range []struct {
		decode time.Duration
		fps    [2]int
		scale  int
	}{
		{3 * time.Millisecond, [2]int{60, 60}, 1},
		{25 * time.Millisecond, [2]int{25, 35}, 1},
		{100 * time.Millisecond, [2]int{8, 15}, 2},
		{20 * time.Millisecond, [2]int{30, 45}, 2},
		{3 * time.Millisecond, [2]int{60, 60}, 1},
	} {
		s.path.decode = step.decode
		s.run(10 * time.Second)
		if fps := s.quality.VideoFPS; fps < step.fps[0] || fps > step.fps[1] || s.quality.VideoScale != step.scale {
			t.Errorf("drawing takes %v: got %+v, want %d to %d frames at scale %d", step.decode, s.quality, step.fps[0], step.fps[1], step.scale)
		}
		if s.quality.VideoQP > 28 {
			t.Errorf("drawing takes %v: quantizer %d for the sake of the viewer", step.decode, s.quality.VideoQP)
		}
	}
}
