package agent_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"image"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/agent"
	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/media"
)

// screen is a display on which tests draw by damage alone: its pixels are the number of drawings.
type screen struct {
	damaged chan struct{}
	cursor  chan struct{}
	done    chan struct{}

	mu       sync.Mutex
	size     media.Size
	region   media.Region
	captures int
	resizes  []media.Layout
	fail     error
	shape    uint32 // serial of a cursor that is seen
}

func newScreen() *screen {
	return &screen{
		damaged: make(chan struct{}, 1), cursor: make(chan struct{}, 1), done: make(chan struct{}),
		size: media.Size{Width: 640, Height: 480},
	}
}

func (s *screen) draw(r image.Rectangle) {
	s.mu.Lock()
	s.region.Add(r)
	s.mu.Unlock()
	select {
	case s.damaged <- struct{}{}:
	default:
	}
}

func (s *screen) Size() media.Size {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size
}
func (s *screen) MaxSize() media.Size            { return media.Size{Width: 2000, Height: 1500} }
func (s *screen) Damaged() <-chan struct{}       { return s.damaged }
func (s *screen) CursorChanged() <-chan struct{} { return s.cursor }
func (s *screen) Done() <-chan struct{}          { return s.done }
func (s *screen) Cursor() (media.Cursor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shape != 0 {
		return media.Cursor{Serial: s.shape, Size: media.Size{Width: 1, Height: 1}, RGBA: make([]byte, 4)}, nil
	}
	return media.Cursor{Serial: 7}, nil
}

func (s *screen) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.captures
}

func (s *screen) resized() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.resizes)
}

func (s *screen) Arrange(layout media.Layout) error {
	s.mu.Lock()
	s.size = layout.Size()
	s.resizes = append(s.resizes, layout)
	s.mu.Unlock()
	s.draw(layout.Size().Bounds())
	return nil
}

func (s *screen) TakeDamage(r *media.Region) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.AddRegion(&s.region)
	s.region.Reset()
	return nil
}

func (s *screen) Capture(r *media.Region, size media.Size) ([]media.View, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.captures++
	if s.fail != nil {
		return nil, s.fail
	}
	var views []media.View
	for _, c := range r.Clusters(nil, size.Bounds()) {
		views = append(views, media.View{Rect: c})
	}
	return views, nil
}

// input notes what is injected.
type input struct {
	mu     sync.Mutex
	events []media.Event
}

func (in *input) Inject(e media.Event) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.events = append(in.events, e)
	return nil
}

func (in *input) take() []media.Event {
	in.mu.Lock()
	defer in.mu.Unlock()
	events := in.events
	in.events = nil
	return events
}

// encoder makes a packet of every call that has views.
type encoder struct {
	epoch uint32
	fresh bool
	size  media.Size
	parts int // a view of more than a quarter of the screen takes so many packets
	rest  int
}

func (e *encoder) Close() {}

func (e *encoder) Due() (uint64, bool) { return 0, false }

func (e *encoder) Begin(size media.Size) { e.epoch++; e.fresh, e.size = true, size }

func (e *encoder) Encode(views []media.View, at uint64, _ media.Quality) (*media.Packet, error) {
	if len(views) == 0 && !e.fresh && e.rest == 0 {
		return nil, nil
	}
	for _, v := range views {
		if v.Rect.Dx()*v.Rect.Dy()*4 > e.size.Width*e.size.Height {
			e.rest = e.parts
		}
	}
	e.rest = max(0, e.rest-1)
	p := &media.Packet{Epoch: e.epoch, NewEpoch: e.fresh, Size: e.size, CaptureMicros: at, More: e.rest > 0}
	for _, v := range views {
		p.Sections = append(p.Sections, media.Section{Kind: media.SectionTiles, Body: []byte(v.Rect.String())})
	}
	e.fresh = false
	return p, nil
}

// link is one connection of a viewer in memory.
type link struct {
	toAgent  chan media.FromViewer
	toViewer chan media.ToViewer
	updates  chan update
	gone     chan struct{}
	stalled  atomic.Bool // nothing is written
}

type update struct {
	seq  uint32
	at   time.Time
	text string
	size media.Size
	new  bool
}

func newLink() *link {
	return &link{
		toAgent: make(chan media.FromViewer), toViewer: make(chan media.ToViewer, 1000),
		updates: make(chan update, 1000), gone: make(chan struct{}),
	}
}

func (l *link) Receive(ctx context.Context) (media.FromViewer, error) {
	select {
	case m := <-l.toAgent:
		return m, nil
	case <-l.gone:
		return nil, io.EOF
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *link) Send(ctx context.Context, m media.ToViewer) error {
	if err := l.stall(ctx); err != nil {
		return err
	}
	l.toViewer <- m
	return nil
}

func (l *link) SendUpdate(ctx context.Context, seq uint32, p *media.Packet) error {
	if err := l.stall(ctx); err != nil {
		return err
	}
	u := update{seq: seq, at: time.Now(), size: p.Size, new: p.NewEpoch}
	for _, s := range p.Sections {
		u.text += string(s.Body)
	}
	l.updates <- u
	return nil
}

func (l *link) stall(ctx context.Context) error {
	if !l.stalled.Load() {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

// world is an agent with a session, in virtual time.
type world struct {
	t      *testing.T
	screen *screen
	input  *input
	agent  *agent.Agent
	broker ed25519.PrivateKey
	cancel context.CancelFunc
	mu     sync.Mutex
	events []agent.Event // guarded by mu
	parts  sync.WaitGroup
	split  int // packets for a large change
}

func newWorld(t *testing.T, change func(*appstream.SessionSpec)) *world {
	t.Helper()
	public, broker, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, screen: newScreen(), input: &input{}, broker: broker}
	w.agent, err = agent.New(agent.Options{
		Screen: w.screen, Input: w.input,
		NewEncoder: func(media.Codecs) (media.Encoder, error) { return &encoder{parts: w.split}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	spec := appstream.SessionSpec{
		ID: "s1", Endpoint: "vpce-1", ControlKey: public, DisconnectTimeout: 5 * time.Minute,
		Application: appstream.Application{Name: "editor"},
	}
	if change != nil {
		change(&spec)
	}
	if err := w.agent.Begin(spec); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w.cancel = cancel
	w.parts.Go(func() { _ = w.agent.Run(ctx) })
	w.parts.Go(func() {
		for {
			select {
			case e := <-w.agent.Events():
				w.mu.Lock()
				w.events = append(w.events, e)
				w.mu.Unlock()
			case <-ctx.Done():
				return
			}
		}
	})
	return w
}

// seen is the events so far.
func (w *world) seen() []agent.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.events)
}

func (w *world) end() {
	w.cancel()
	w.parts.Wait()
}

// page is a viewer.
type page struct {
	w                *world
	control, display *link
	welcome          *media.Welcome
	controlEnd       ending
	displayEnd       ending
}

// ending is how a connection ended, if it did.
type ending struct {
	mu   sync.Mutex
	over bool
	why  *media.Close
}

func (e *ending) set(c *media.Close) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.over, e.why = true, c
}

func (e *ending) get() (bool, *media.Close) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.over, e.why
}

func (e *ending) isOver() bool {
	over, _ := e.get()
	return over
}

func (w *world) ticket() string {
	token, err := appstream.SignTicket(w.broker, appstream.Ticket{
		ID: base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatUint(rand.Uint64(), 16))), KeyID: appstream.KeyControl,
		Session: "s1", Endpoint: "vpce-1", Channel: appstream.ChannelControl, Expires: time.Now().Add(time.Minute),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

func (w *world) open(ticket string) *page {
	w.t.Helper()
	return w.connect(ticket, &media.Hello{Version: 1})
}

func (w *world) connect(ticket string, hello *media.Hello) *page {
	w.t.Helper()
	p := &page{w: w, control: newLink()}
	w.parts.Go(func() {
		p.controlEnd.set(w.agent.ServeControl(context.Background(), ticket, p.control))
	})
	p.say(hello)
	synctest.Wait()
	var ok bool
	if p.welcome, ok = (<-p.control.toViewer).(*media.Welcome); !ok {
		w.t.Fatal("no welcome came")
	}
	return p
}

func (p *page) say(m media.FromViewer) {
	p.w.t.Helper()
	select {
	case p.control.toAgent <- m:
	case <-time.After(time.Hour):
		p.w.t.Fatal("agent does not read")
	}
}

// show opens the display.
func (p *page) show(window int) {
	p.display = newLink()
	p.w.parts.Go(func() {
		p.displayEnd.set(p.w.agent.ServeDisplay(context.Background(), p.welcome.DisplayTicket, p.display))
	})
	p.display.toAgent <- &media.Start{Version: 1, Codecs: media.CodecTiles, Window: window}
	synctest.Wait()
}

// got takes the updates that have come.
func (p *page) got() []update {
	synctest.Wait()
	var all []update
	for {
		select {
		case u := <-p.display.updates:
			all = append(all, u)
		default:
			return all
		}
	}
}

func (p *page) ack(seq uint32) {
	p.display.toAgent <- &media.Ack{Seq: seq}
	synctest.Wait()
}

func wantEnd(t *testing.T, e *ending, want media.CloseCode) {
	t.Helper()
	over, why := e.get()
	wantCode(t, over, why, want)
}

func wantCode(t *testing.T, over bool, c *media.Close, want media.CloseCode) {
	t.Helper()
	switch {
	case !over:
		t.Errorf("connection is open, want it closed with %d", want)
	case c == nil:
		t.Errorf("connection ended without a reason, want %d", want)
	case c.Code != want:
		t.Errorf("closed with %v, want %d", c, want)
	}
}

var letter = image.Rect(10, 10, 20, 26)

func TestPacing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.end()
		p := w.open(w.ticket())
		p.show(0)
		if u := p.got(); len(u) != 1 || !u[0].new || u[0].text != "(0,0)-(640,480)" {
			t.Fatalf("first updates: got %+v, want the whole screen", u)
		}
		p.ack(1)
		time.Sleep(time.Second)
		const step = 10 * time.Microsecond // of looking for updates
		seq := uint32(1)
		expect := func(what string, after time.Duration, text string) {
			t.Helper()
			start := time.Now()
			for {
				u := p.got()
				if len(u) > 1 {
					t.Fatalf("%s: got %d updates at once", what, len(u))
				}
				if len(u) == 1 {
					seq++
					if got := u[0].at.Sub(start); (got-after).Abs() > 2*step || u[0].text != text || u[0].seq != seq {
						t.Fatalf("%s: got update %d of %s after %v, want %d of %s after %v", what, u[0].seq, u[0].text, got, seq, text, after)
					}
					p.ack(seq)
					return
				}
				time.Sleep(step)
				if time.Since(start) > time.Second {
					t.Fatalf("%s: nothing came", what)
				}
			}
		}
		w.screen.draw(letter)
		expect("first change of a quiet period", 0, letter.String())
		w.screen.draw(letter)
		expect("second change at once", time.Second/60, letter.String())
		w.screen.draw(letter)
		synctest.Wait()
		w.screen.draw(letter.Add(image.Pt(10, 0)))
		expect("two that merge", time.Second/60, "(10,10)-(30,26)")

		p.say(&media.Input{Seq: 1, Event: media.Key{Down: true, Code: "KeyA", Key: "a"}})
		w.screen.draw(letter)
		expect("answer to a key", 0, letter.String())
		w.screen.draw(letter)
		expect("what is behind it", time.Second/60, letter.String())
		p.say(&media.Input{Seq: 2, Event: media.Pointer{X: 1, Y: 1}})
		w.screen.draw(letter)
		expect("answer to a bare movement", time.Second/60, letter.String())
		p.say(&media.Input{Seq: 3, Event: media.Pointer{X: 1, Y: 1, Buttons: media.ButtonLeft}})
		w.screen.draw(letter)
		expect("answer to a click", 0, letter.String())

		// More than a quarter of the screen waits until its burst has ended.
		time.Sleep(time.Second)
		big := image.Rect(0, 0, 640, 300)
		w.screen.draw(big)
		expect("large change", time.Millisecond, big.String())
		time.Sleep(time.Second)
		var drawing sync.WaitGroup
		drawing.Go(func() {
			for i := range 10 {
				w.screen.draw(image.Rect(0, 0, 640, 300+i))
				time.Sleep(600 * time.Microsecond)
			}
		})
		expect("large change that goes on", 3*time.Millisecond, "(0,0)-(640,304)")
		drawing.Wait()

		// A frame in strips is whole from the second on, although each strip is small.
		time.Sleep(time.Second)
		p.got()
		strips := func() {
			for y := 0; y < 480; y += 60 {
				w.screen.draw(image.Rect(0, y, 640, y+60))
				synctest.Wait()
				time.Sleep(300 * time.Microsecond)
			}
		}
		for frame := range 5 {
			strips()
			time.Sleep(40 * time.Millisecond)
			u := p.got()
			if frame > 0 && (len(u) != 1 || u[0].text != "(0,0)-(640,480)") {
				t.Errorf("frame %d came in %d updates: %+v", frame, len(u), u)
			}
			seq = u[len(u)-1].seq
			p.ack(seq)
		}
		time.Sleep(time.Second)
		w.screen.draw(image.Rect(0, 60, 640, 120))
		expect("a strip after a rest", 0, "(0,60)-(640,120)")

		// A film whose frames come in one piece is not waited for any more, until one comes in strips.
		time.Sleep(time.Second)
		for frame := 1; frame <= 40; frame++ {
			time.Sleep(20 * time.Millisecond)
			w.screen.draw(big)
			after := time.Duration(0)
			if frame <= 16 {
				after = time.Millisecond
			}
			expect(fmt.Sprintf("frame %d in one piece", frame), after, big.String())
		}
		torn := 0
		for range 20 {
			time.Sleep(20 * time.Millisecond)
			strips()
			time.Sleep(40 * time.Millisecond)
			u := p.got()
			if len(u) != 1 {
				torn++
			}
			seq = u[len(u)-1].seq
			p.ack(seq)
		}
		if torn > 1 {
			t.Errorf("%d of 20 frames in strips were torn", torn)
		}
	})
}

func TestFlow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.end()
		p := w.open(w.ticket())
		p.show(0)
		for range 100 {
			w.screen.draw(letter)
			time.Sleep(20 * time.Millisecond)
		}
		u := p.got()
		if len(u) != 3 {
			t.Fatalf("%d updates without an acknowledgement, want 3", len(u))
		}
		captures := w.screen.count()
		for i := range 100 {
			w.screen.draw(letter.Add(image.Pt(i, 0)))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if w.screen.count() != captures {
			t.Error("captured while the viewer is behind")
		}
		p.ack(1)
		if u := p.got(); len(u) != 1 || u[0].text != "(10,10)-(119,26)" {
			t.Errorf("after an acknowledgement: got %+v, want all of it in one", u)
		}
		p.ack(4)
		p.ack(2) // repetitions are fine
		time.Sleep(20 * time.Second)
		p.say(&media.Pong{})
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if p.displayEnd.isOver() {
			t.Fatalf("closed with %v although nothing is due", p.displayEnd.why)
		}
		p.display.toAgent <- &media.Ack{Seq: 77}
		synctest.Wait()
		wantEnd(t, &p.displayEnd, media.CloseBadMessage)
	})
}

// The answer to a key goes alone and at once, although a page waits and the flow is closed to it; what is large is no
// answer.
func TestAnswerGoesBeforeWhatWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.end()
		w.split = 50
		p := w.open(w.ticket())
		p.show(0)
		p.got() // three of the first page's fifty
		p.ack(1)
		p.got()
		big := image.Rect(0, 0, 640, 400)
		p.say(&media.Input{Seq: 1, Event: media.Key{Down: true, Code: "KeyA", Key: "a"}})
		synctest.Wait()
		p.ack(2)
		if u := p.got(); len(u) != 0 {
			t.Fatalf("the page took the place that was kept for the answer: %+v", u)
		}
		w.screen.draw(big)
		synctest.Wait()
		w.screen.draw(letter.Add(image.Pt(0, 420)))
		u := p.got()
		if len(u) != 1 || u[0].text != "(10,430)-(20,446)" {
			t.Fatalf("got %+v, want the letter alone", u)
		}
		time.Sleep(10 * time.Millisecond)
		p.ack(u[0].seq)
		time.Sleep(10 * time.Millisecond) // it is large
		if u := p.got(); len(u) == 0 || u[0].text != big.String() {
			t.Fatalf("then got %+v, want the page", u)
		}
	})
}

// A change that takes several updates is sent without pause as far as the flow allows.
func TestChangeInParts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.end()
		w.split = 5
		p := w.open(w.ticket())
		start := time.Now()
		p.show(0)
		if u := p.got(); len(u) != 3 {
			t.Fatalf("got %d updates, want the three that may be in flight", len(u))
		}
		p.ack(3)
		if u := p.got(); len(u) != 2 {
			t.Fatalf("got %d updates, want the other two", len(u))
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("took %v, want no pause", took)
		}
		p.ack(5)
		time.Sleep(time.Second)
		if u := p.got(); len(u) != 0 {
			t.Errorf("got %d updates more", len(u))
		}
	})
}

func TestTooSlow(t *testing.T) {
	t.Parallel()
	t.Run("no acknowledgement", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, nil)
			defer w.end()
			p := w.open(w.ticket())
			p.show(0)
			time.Sleep(20 * time.Second)
			p.say(&media.Pong{}) // control is alive
			time.Sleep(10*time.Second - 1)
			synctest.Wait()
			if p.displayEnd.isOver() {
				t.Fatalf("closed too early: %v", p.displayEnd.why)
			}
			time.Sleep(time.Nanosecond)
			synctest.Wait()
			wantEnd(t, &p.displayEnd, media.CloseTooSlow)
			if p.controlEnd.isOver() {
				t.Errorf("control was closed too: %v", p.controlEnd.why)
			}
		})
	})
	t.Run("display is not read", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, nil)
			defer w.end()
			p := w.open(w.ticket())
			p.show(0)
			p.ack(1)
			p.display.stalled.Store(true)
			w.screen.draw(letter)
			time.Sleep(20 * time.Second)
			p.say(&media.Pong{})
			time.Sleep(11 * time.Second)
			synctest.Wait()
			wantEnd(t, &p.displayEnd, media.CloseTooSlow)
		})
	})
	t.Run("control is not read", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, nil)
			defer w.end()
			p := w.open(w.ticket())
			p.control.stalled.Store(true)
			for range 100 {
				select {
				case p.control.toAgent <- &media.Ping{}:
				case <-time.After(time.Minute):
				}
			}
			synctest.Wait()
			wantEnd(t, &p.controlEnd, media.CloseTooSlow)
		})
	})
	t.Run("no hello", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, nil)
			defer w.end()
			c := w.agent.ServeControl(context.Background(), w.ticket(), newLink())
			wantCode(t, true, c, media.CloseTooSlow)
		})
	})
}

func TestNothingHappensWhenNothingChanges(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.end()
		p := w.open(w.ticket())
		p.show(0)
		p.ack(1)
		p.got()
		if m, ok := (<-p.control.toViewer).(*media.Ping); !ok {
			t.Errorf("the first update came with %+v, want a ping to measure the way", m)
		}
		captures := w.screen.count()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if u := p.got(); len(u) != 0 || w.screen.count() != captures {
			t.Errorf("in ten quiet minutes: %d updates and %d captures", len(u), w.screen.count()-captures)
		}
		if n := len(p.control.toViewer); n != 0 {
			t.Errorf("in ten quiet minutes: %d control messages", n)
		}
		if p.controlEnd.isOver() || p.displayEnd.isOver() {
			t.Error("a quiet viewer was taken for lost")
		}
	})
}

func TestDisconnectTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.end()
		p := w.open(w.ticket())
		p.say(&media.Input{Seq: 1, Event: media.Key{Down: true, Code: "KeyA", Key: "a"}})
		close(p.control.gone)
		time.Sleep(5*time.Minute - time.Second)
		synctest.Wait()
		p = w.open(p.welcome.ResumeTicket) // just in time
		close(p.control.gone)
		time.Sleep(5*time.Minute - 1)
		synctest.Wait()
		want := []agent.Event{
			{Kind: agent.Connected, Session: "s1"},
			{Kind: agent.Disconnected, Session: "s1"},
			{Kind: agent.Connected, Session: "s1"},
			{Kind: agent.Disconnected, Session: "s1"},
		}
		if diff := cmp.Diff(want, w.seen()); diff != "" {
			t.Errorf("events want(-) got(+)\n%s", diff)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		want = append(want, agent.Event{
			Kind: agent.Over, Session: "s1", Code: appstream.EndDisconnected, Reason: "nobody came back within the disconnect timeout",
		})
		if diff := cmp.Diff(want, w.seen()); diff != "" {
			t.Errorf("events want(-) got(+)\n%s", diff)
		}
		wantCode(t, true, w.agent.ServeControl(context.Background(), p.welcome.ResumeTicket, newLink()), media.CloseNoSession)
		wantInput := []media.Event{
			media.Key{Down: true, Code: "KeyA", Key: "a"}, media.ReleaseAll{}, media.ReleaseAll{},
		}
		if diff := cmp.Diff(wantInput, w.input.take()); diff != "" {
			t.Errorf("input want(-) got(+): keys are let go when the viewer is lost\n%s", diff)
		}
	})
}

func TestIdleTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(s *appstream.SessionSpec) { s.IdleTimeout = time.Minute })
		defer w.end()
		p := w.open(w.ticket())
		for i := range uint32(20) {
			time.Sleep(10 * time.Second)
			p.say(&media.Input{Seq: i + 1, Event: media.Pointer{X: int(i), Y: 1}})
		}
		for range 8 {
			time.Sleep(10 * time.Second)
			select {
			case p.control.toAgent <- &media.Ping{}:
			case <-time.After(time.Second):
			}
		}
		synctest.Wait()
		wantEnd(t, &p.controlEnd, media.CloseEnded)
		var last media.ToViewer
		for len(p.control.toViewer) > 0 {
			last = <-p.control.toViewer
		}
		if e, ok := last.(*media.Ended); !ok || e.Code != uint16(appstream.EndIdle) {
			t.Errorf("last message: got %+v", last)
		}
		// The session lives on: the user may come back from the portal.
		w.open(w.ticket())
	})
}

func TestInputIsNotRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.end()
		text := func(p *page, seq uint32, s string) {
			p.say(&media.Input{Seq: seq, Event: media.Text{Text: s}})
		}
		p := w.open(w.ticket())
		text(p, 1, "a")
		text(p, 2, "b")
		text(p, 2, "again")
		text(p, 1, "older")
		text(p, 5, "c")
		close(p.control.gone)
		synctest.Wait()
		p = w.open(p.welcome.ResumeTicket) // the same page, which repeats what it is not sure of
		text(p, 4, "older")
		text(p, 5, "again")
		text(p, 6, "d")
		close(p.control.gone)
		synctest.Wait()
		p = w.open(p.welcome.ResumeTicket) // the page was loaded again
		text(p, 1, "e")
		text(p, 1, "again")
		text(p, 2, "f")
		synctest.Wait()
		got := ""
		for _, e := range w.input.take() {
			if e, ok := e.(media.Text); ok {
				got += e.Text
			}
		}
		if got != "abcdef" {
			t.Errorf("got %q, want %q", got, "abcdef")
		}
	})
}

func TestResizesAreSpaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.end()
		p := w.open(w.ticket())
		for i := range 100 {
			p.say(&media.Resize{Size: media.Size{Width: 500 + i, Height: 400}, Scale: 100 + i})
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		n := w.screen.resized()
		if n < 2 || n > 7 {
			t.Errorf("the screen was resized %d times in half a second, want one every 100 ms", n)
		}
		if got, want := w.screen.Size(), (media.Size{Width: 599, Height: 400}); got != want {
			t.Errorf("got %v at the end, want %v", got, want)
		}
		w.screen.mu.Lock()
		defer w.screen.mu.Unlock()
		if got := w.screen.resizes[n-1].Scale; got != 199 {
			t.Errorf("got a scale of %d %% at the end, want 199", got)
		}
	})
}

func TestScreenFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.end()
		p := w.open(w.ticket())
		w.screen.mu.Lock()
		w.screen.fail = errors.New("no such drawable")
		w.screen.mu.Unlock()
		p.show(0)
		wantEnd(t, &p.displayEnd, media.CloseInternal)
		close(w.screen.done)
		synctest.Wait()
		wantEnd(t, &p.controlEnd, media.CloseEnded)
	})
}

func TestCursorIsSent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.end()
		p := w.open(w.ticket())
		w.screen.cursor <- struct{}{}
		synctest.Wait()
		if c, ok := (<-p.control.toViewer).(*media.Cursor); !ok || c.Serial != 7 {
			t.Errorf("got %+v, want the cursor", c)
		}
		p = w.open(w.ticket()) // the next viewer gets it without a change
		if c, ok := (<-p.control.toViewer).(*media.Cursor); !ok || c.Serial != 7 {
			t.Errorf("got %+v, want the cursor", c)
		}
	})
}

// The pictures of an animated cursor are sent once, as long as the viewer keeps them.
func TestCursorsThatTheViewerKeepsAreNamed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.end()
		p := w.connect(w.ticket(), &media.Hello{Version: 1, KeepsCursors: true})
		show := func(serial uint32) media.ToViewer {
			w.screen.mu.Lock()
			w.screen.shape = serial
			w.screen.mu.Unlock()
			w.screen.cursor <- struct{}{}
			synctest.Wait()
			select {
			case m := <-p.control.toViewer:
				return m
			default:
				return nil
			}
		}
		for round := range 3 {
			for serial := uint32(1); serial <= media.KeptCursors; serial++ {
				m := show(serial)
				c, whole := m.(*media.Cursor)
				again, named := m.(*media.CursorAgain)
				if whole && c.Serial != serial || named && again.Serial != serial || whole == named || whole != (round == 0) {
					t.Fatalf("round %d, cursor %d: got %+v", round, serial, m)
				}
			}
		}
		show(1000) // takes the place of the oldest
		if _, whole := show(1).(*media.Cursor); !whole {
			t.Error("a cursor that the viewer no longer has was not sent")
		}
		if _, named := show(3).(*media.CursorAgain); !named {
			t.Error("a cursor that the viewer still has was sent again")
		}
	})
}

func TestWarnsBeforeTheGreatestLength(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(s *appstream.SessionSpec) { s.EndsAt = time.Now().Add(time.Hour) })
		defer w.end()
		notices := func(l *link) (texts []string) {
			synctest.Wait()
			for {
				select {
				case m := <-l.toViewer:
					if n, ok := m.(*media.Notice); ok {
						if n.Code != media.NoticeEndsSoon {
							t.Errorf("got code %d", n.Code)
						}
						texts = append(texts, n.Text)
					}
				default:
					return texts
				}
			}
		}
		stay := func(p *page, d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(min(10*time.Second, time.Until(end))) {
				p.say(&media.Ping{})
			}
		}
		p := w.open(w.ticket())
		stay(p, 54*time.Minute)
		if got := notices(p.control); got != nil {
			t.Errorf("six minutes before the end: got %q", got)
		}
		stay(p, 90*time.Second)
		want := []string{"This session ends in 5 minutes, when it reaches its greatest length. Save your work."}
		if diff := cmp.Diff(want, notices(p.control)); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		stay(p, time.Minute)
		if got := notices(p.control); got != nil {
			t.Errorf("told again: %q", got)
		}
		p = w.open(w.ticket()) // who comes late is told what is left
		want = []string{"This session ends in 4 minutes, when it reaches its greatest length. Save your work."}
		if diff := cmp.Diff(want, notices(p.control)); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

func TestRefreshAndHide(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.end()
		p := w.open(w.ticket())
		p.show(0)
		p.got()
		p.ack(1)
		time.Sleep(time.Second)
		p.display.toAgent <- &media.Refresh{}
		if u := p.got(); len(u) != 1 || !u[0].new || u[0].text != "(0,0)-(640,480)" {
			t.Fatalf("after a refresh: got %+v", u)
		}
		p.ack(2)
		time.Sleep(time.Second)
		p.say(&media.Visibility{Hidden: true})
		synctest.Wait()
		w.screen.draw(letter)
		time.Sleep(time.Second)
		if u := p.got(); len(u) != 0 {
			t.Errorf("hidden: got %+v", u)
		}
		p.say(&media.Visibility{})
		if u := p.got(); len(u) != 1 || u[0].text != letter.String() {
			t.Errorf("seen again: got %+v, want what changed", u)
		}
	})
}

func TestBegin(t *testing.T) {
	t.Parallel()
	a, err := agent.New(agent.Options{Screen: newScreen(), Input: &input{}})
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, true, a.ServeControl(t.Context(), "x.y", newLink()), media.CloseNoSession)
	key := make([]byte, ed25519.PublicKeySize)
	for _, tt := range []struct {
		name string
		spec appstream.SessionSpec
		ok   bool
	}{
		{"no key", appstream.SessionSpec{ID: "a"}, false},
		{"first", appstream.SessionSpec{ID: "a", ControlKey: key}, true},
		{"again", appstream.SessionSpec{ID: "a", ControlKey: key}, true},
		{"another", appstream.SessionSpec{ID: "b", ControlKey: key}, false},
	} {
		if err := a.Begin(tt.spec); (err == nil) != tt.ok {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
	a.End(appstream.EndShutdown, "over")
	if err := a.Begin(appstream.SessionSpec{ID: "a", ControlKey: key}); err == nil {
		t.Error("after the end: got no error")
	}
}
