package agent

import (
	"context"
	"fmt"
	"image"
	"sync"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/media"
)

const (
	ackTime = 30 * time.Second // an acknowledgement that is due for so long ends the connection
	// A change of more than a quarter of the screen that is still being drawn is given burstTime to end;
	// it has ended when nothing came for burstGap.
	burstShare = 4
	burstGap   = time.Millisecond
	burstTime  = 3 * time.Millisecond
	// A change of moveShare of the screen makes what changes there within moveTime part of a moving picture.
	moveShare = 16
	moveTime  = 250 * time.Millisecond
	// When wholeFrames changes of a moving picture came in one piece, the next ones are thought to, until more comes
	// within burstGap after one was sent.
	wholeFrames = 16
	// promptShare is how small a change must be, as a share of the screen, to count as the answer to an input.
	promptShare = 16
	never       = 24 * time.Hour
	// updateGrace is what an update in the making is given when its connection ends.
	updateGrace = 250 * time.Millisecond
	// updateOverhead is what an update has beside its sections' bodies.
	updateOverhead = 64
	maxFailures    = 10
)

// DisplayConn is a viewer's display connection. Receive and SendUpdate are each called by one goroutine at a
// time, errors are as with ControlConn. The packet is not used after SendUpdate has returned.
type DisplayConn interface {
	Receive(ctx context.Context) (media.FromViewer, error)
	SendUpdate(ctx context.Context, seq uint32, p *media.Packet) error
}

// display is one display connection. Its pump captures, encodes and sends; nothing else does.
type display struct {
	a       *Agent
	conn    DisplayConn
	encoder media.Encoder
	cancel  context.CancelCauseFunc
	done    chan struct{} // closed when the pump has ended
	wake    chan struct{} // holds a token when something below changed

	mu      sync.Mutex // guards what follows
	flow    media.Flow
	pacer   media.Pacer
	hidden  bool
	refresh bool   // the viewer wants a new epoch
	probe   uint64 // time of the ping whose answer is awaited; 0: none

	// Only the pump uses these.
	viewer  *viewer
	size    media.Size
	region  media.Region // damage that was not sent yet
	prompt  media.Region // of it, what is small and came soon after an input
	taken   media.Region
	seq     uint32
	more    bool            // the encoder has the rest of a change
	moved   image.Rectangle // where the last large change was
	movedAt time.Time
	whole   int       // changes of what moves that came in one piece, one after the other
	hasty   time.Time // when a change that was not waited for had been sent
	timer   *time.Timer
	// failures counts captures that failed one after the other, as one does when the size has just changed.
	failures int
}

// close ends the connection for a reason; the first reason counts.
func (d *display) close(why *media.Close) { d.cancel(why) }

// ServeDisplay serves a display connection until it ends, and returns why it is to be closed; nil when the
// viewer is gone already.
func (a *Agent) ServeDisplay(ctx context.Context, ticket string, conn DisplayConn) *media.Close {
	if c := a.admit(ticket, appstream.ChannelDisplay); c != nil {
		return c
	}
	defer a.served.Done()
	m, err := receiveFirst(ctx, conn.Receive)
	if err != nil {
		return reasonOf(ctx, err)
	}
	start, ok := m.(*media.Start)
	switch {
	case !ok:
		return &media.Close{Code: media.CloseBadMessage, Reason: "the first message is not start"}
	case start.Version < 1:
		return &media.Close{Code: media.CloseVersion, Reason: "no common protocol version"}
	case start.Codecs&media.CodecTiles == 0:
		return &media.Close{Code: media.CloseVersion, Reason: "the viewer offers no codec that the agent has"}
	}
	encoder, err := a.newEncoder(start.Codecs)
	if err != nil {
		a.log.Error("encoder was not made", "error", err)
		return &media.Close{Code: media.CloseInternal, Reason: "the agent has no encoder"}
	}
	defer encoder.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d := &display{
		a: a, conn: conn, encoder: encoder, cancel: cancel,
		done: make(chan struct{}), wake: make(chan struct{}, 1), flow: media.NewFlow(start.Window),
	}
	defer close(d.done)
	v, c := a.attach(d)
	if c != nil {
		return c
	}
	d.viewer = v
	receiver := make(chan struct{})
	go func() {
		defer close(receiver)
		cancel(d.receive(ctx))
	}()
	err = d.pump(ctx)
	cancel(err)
	<-receiver
	a.mu.Lock()
	if v.display == d {
		v.display = nil
	}
	a.mu.Unlock()
	return reasonOf(ctx, err)
}

// attach makes d the viewer's display and waits until the one before it has stopped using the screen.
func (a *Agent) attach(d *display) (*viewer, *media.Close) {
	for {
		a.mu.Lock()
		v := a.viewer
		if v == nil {
			a.mu.Unlock()
			return nil, &media.Close{Code: media.CloseReplaced, Reason: "there is no control connection"}
		}
		old := a.drawing
		if old == nil || closed(old.done) {
			v.display, a.drawing = d, d
			d.hidden = v.hidden
			a.mu.Unlock()
			return v, nil
		}
		a.mu.Unlock()
		old.close(&media.Close{Code: media.CloseReplaced, Reason: "another display connection replaced this one"})
		<-old.done
	}
}

func closed(ch chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// receive takes acknowledgements and wishes until the connection ends.
func (d *display) receive(ctx context.Context) error {
	for {
		m, err := d.conn.Receive(ctx)
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *media.Ack:
			now := d.a.now()
			d.mu.Lock()
			ok := d.flow.Acknowledged(m.Seq, time.Duration(m.DecodeMicros)*time.Microsecond, m.Queued, now)
			d.mu.Unlock()
			if !ok {
				return &media.Close{Code: media.CloseBadMessage, Reason: "ack: this update was not sent"}
			}
		case *media.Refresh:
			d.mu.Lock()
			d.refresh = true
			d.mu.Unlock()
		default:
			return &media.Close{Code: media.CloseBadMessage, Reason: "a second first message"}
		}
		signal(d.wake)
	}
}

func (d *display) setHidden(hidden bool) {
	d.mu.Lock()
	d.hidden = hidden
	d.mu.Unlock()
	signal(d.wake)
}

// inputSeen lets the answer to an input go without waiting for its turn.
func (d *display) inputSeen(now time.Time) {
	d.mu.Lock()
	d.pacer.InputSeen(now)
	d.flow.InputSeen(now)
	d.mu.Unlock()
	signal(d.wake)
}

// answered takes the answer to the newest probe.
func (d *display) answered(sent uint64) {
	now := d.a.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.probe == 0 || sent != d.probe {
		return
	}
	d.probe = 0
	d.flow.RoundTrip(time.Duration(d.a.micros()-sent)*time.Microsecond, now)
}

// pump sends changes until ctx ends. While the viewer is behind or hidden it captures nothing and does not
// even listen, unless the user works and waits for an answer: the screen merges its damage. When nothing changes,
// nothing wakes it.
func (d *display) pump(ctx context.Context) error {
	d.timer = time.NewTimer(never)
	defer d.timer.Stop()
	for {
		next := d.turn()
		switch {
		case next.late:
			return &media.Close{Code: media.CloseTooSlow, Reason: "no acknowledgement came for 30 seconds"}
		case next.update:
			if err := d.look(ctx); err != nil {
				return err
			}
			if next = d.turn(); !next.update {
				continue
			}
			if !next.prompt {
				if err := d.settle(ctx); err != nil {
					return err
				}
			}
			if err := d.update(ctx, next.prompt); err != nil {
				return err
			}
			if d.whole > wholeFrames {
				d.hasty = d.a.now()
			}
			continue
		}
		var damaged <-chan struct{}
		if next.listen {
			damaged = d.a.screen.Damaged()
		}
		d.timer.Reset(next.wait)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-damaged:
			if err := d.take(); err != nil {
				return d.lost(ctx, err)
			}
		case <-d.wake:
		case <-d.timer.C:
		}
	}
}

// turn is what the pump is to do.
type turn struct {
	late   bool // the viewer is too slow
	update bool // send one now,
	prompt bool // with the answer to an input alone
	listen bool // damage is of interest
	wait   time.Duration
}

// turn looks at the flow. It takes up the wish for a refresh.
func (d *display) turn() turn {
	now := d.a.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refresh {
		d.refresh = false
		d.size = media.Size{}
	}
	t := turn{wait: never}
	if oldest, waiting := d.flow.Oldest(); waiting {
		t.wait = oldest.Add(ackTime).Sub(now)
		if t.wait <= 0 {
			return turn{late: true}
		}
	}
	if d.hidden {
		return t
	}
	open := d.flow.Open(now)
	answer := d.flow.Working(now) && d.flow.OpenPrompt(now)
	t.listen = open || answer
	wait := d.pacer.Wait(now)
	if t.listen && !d.prompt.Empty() && d.size == d.a.screen.Size() {
		if wait == 0 {
			t.update, t.prompt = true, true
			return t
		}
		t.wait = min(t.wait, wait)
	}
	if !open {
		return t
	}
	switch {
	case d.more:
		wait = 0
	case d.pending():
	default:
		at, ok := d.encoder.Due()
		if !ok {
			return t
		}
		wait = max(0, d.a.started.Add(time.Duration(at)*time.Microsecond).Sub(now))
	}
	if n, _ := d.flow.InFlight(); n > 0 {
		wait = max(wait, d.pacer.Hold(now))
	}
	t.update = wait == 0
	t.wait = min(t.wait, wait)
	return t
}

// look takes the damage that is there already: what is drawn goes before what the encoder still has.
func (d *display) look(ctx context.Context) error {
	select {
	case <-d.a.screen.Damaged():
		if err := d.take(); err != nil {
			return d.lost(ctx, err)
		}
	default:
	}
	return nil
}

// take takes damage. What is small and comes soon after an input is thought to be its answer.
func (d *display) take() error {
	if err := d.a.screen.TakeDamage(&d.taken); err != nil {
		return err
	}
	now := d.a.now()
	if now.Sub(d.hasty) < burstGap {
		d.whole = 0 // it was in parts after all
	}
	d.mu.Lock()
	working := d.flow.Working(now)
	d.mu.Unlock()
	for _, r := range d.taken.Rects() {
		if working && r.Dx()*r.Dy()*promptShare <= d.size.Width*d.size.Height {
			d.prompt.Add(r)
		} else {
			d.region.Add(r)
		}
	}
	d.taken.Reset()
	return nil
}

// pending reports whether there may be something to send.
func (d *display) pending() bool {
	return d.more || !d.region.Empty() || !d.prompt.Empty() || d.size != d.a.screen.Size()
}

// settle gives a large change that is still being drawn a few milliseconds to end, so that the picture is
// not half old and half new. So does any change of what moves: a frame may be drawn in parts, each of them small.
func (d *display) settle(ctx context.Context) error {
	start := d.a.now()
	large := d.region.Area()*burstShare > d.size.Width*d.size.Height
	moves := d.moves(start)
	if !large && !moves || d.size != d.a.screen.Size() {
		return nil
	}
	if !moves {
		d.whole = 0
	}
	if d.whole++; d.whole > wholeFrames {
		return nil
	}
	end := start.Add(burstTime)
	for {
		left := end.Sub(d.a.now())
		if left <= 0 {
			return nil
		}
		d.timer.Reset(min(left, burstGap))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-d.timer.C:
			return nil
		case <-d.a.screen.Damaged():
			d.whole = 0
			if err := d.take(); err != nil {
				return d.lost(ctx, err)
			}
		}
	}
}

// moves reports whether some of the damage is where a large change was of late.
func (d *display) moves(now time.Time) bool {
	if now.Sub(d.movedAt) > moveTime {
		return false
	}
	for _, r := range d.region.Rects() {
		if r.Overlaps(d.moved) {
			return true
		}
	}
	return false
}

// noteMove remembers where a large change is.
func (d *display) noteMove(views []media.View, now time.Time) {
	var box image.Rectangle
	for i := range views {
		box = box.Union(views[i].Rect)
	}
	if box.Dx()*box.Dy()*moveShare < d.size.Width*d.size.Height {
		return
	}
	if now.Sub(d.movedAt) <= moveTime {
		box = box.Union(d.moved) // it may have come in two parts
	}
	d.moved, d.movedAt = box, now
}

// update captures and encodes what changed and sends it, unless nothing did. A prompt one has only the answer to an
// input, the rest goes on waiting.
func (d *display) update(ctx context.Context, prompt bool) error {
	start := d.a.now()
	d.mu.Lock()
	quality := d.flow.Quality(prompt, d.more || !d.region.Empty(), start)
	if d.flow.WantsProbe(start) {
		d.flow.Probed(start)
		d.probe = d.a.micros()
		d.viewer.send(&media.Ping{Time: d.probe}) // on the other connection: ahead of the update
	}
	d.mu.Unlock()
	p, err := d.encode(quality, prompt)
	if err != nil {
		return d.lost(ctx, err)
	}
	d.more = p != nil && p.More
	if p == nil {
		return nil
	}
	d.seq++
	d.mu.Lock()
	d.pacer.Started(start)
	d.flow.Sent(media.SentUpdate{
		Seq: d.seq, Bytes: p.Bytes() + updateOverhead, Prompt: prompt, Lossy: !p.Lossless,
	}, d.a.now()) // before its acknowledgement can come
	d.mu.Unlock()
	bounded, cancel := sending(ctx, ackTime, updateGrace)
	defer cancel()
	if err := d.conn.SendUpdate(bounded, d.seq, p); err != nil {
		if bounded.Err() != nil {
			return &media.Close{Code: media.CloseTooSlow, Reason: "the viewer does not read"}
		}
		return err
	}
	return nil
}

// encode returns the change since the last update; nil when there is none, or when the screen has just
// changed its size and will say so.
func (d *display) encode(quality media.Quality, prompt bool) (*media.Packet, error) {
	s := d.a.screen
	d.a.screenMu.Lock()
	defer d.a.screenMu.Unlock()
	if size := s.Size(); size != d.size {
		d.encoder.Begin(size)
		d.size = size
		d.region.Reset()
		d.prompt.Reset()
		d.region.Add(size.Bounds())
		prompt = false
	}
	region := &d.region
	if prompt {
		region = &d.prompt
	} else {
		region.AddRegion(&d.prompt)
		d.prompt.Reset()
	}
	captured := d.a.micros()
	views, err := s.Capture(region, d.size)
	region.Reset()
	if err != nil {
		d.size = media.Size{} // from the start
		if d.failures++; d.failures > maxFailures {
			return nil, err
		}
		d.a.log.Debug("capture failed", "error", err)
		return nil, nil
	}
	d.failures = 0
	d.noteMove(views, d.a.now())
	for i := range views {
		views[i].Prompt = prompt
	}
	p, err := d.encoder.Encode(views, captured, quality)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return p, nil
}

// lost is the end of a connection whose screen failed.
func (d *display) lost(ctx context.Context, err error) error {
	if ctx.Err() == nil {
		d.a.log.Warn("screen could not be streamed", "error", err)
	}
	return &media.Close{Code: media.CloseInternal, Reason: "the screen could not be captured"}
}
