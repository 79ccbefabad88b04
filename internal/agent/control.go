package agent

import (
	"context"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/media"
)

// ProtocolVersion is the greatest version of the channel protocol that the agent speaks.
const ProtocolVersion = 1

const (
	firstMessageTime = 30 * time.Second // the page's first script connects, what speaks may still be on its way over a slow link
	lostTime         = 30 * time.Second // a viewer that takes a message no sooner is lost
	endedTime        = 3 * time.Second  // for the last message of all
	resizeSpacing    = 100 * time.Millisecond
	maxOut           = 32
)

// ControlConn is a viewer's control connection. Receive and Send are each called by one goroutine at a
// time. A message that breaks the protocol is an error that is a *media.Close; every other error means that
// the viewer is gone. Cancelling ctx does not break the connection.
type ControlConn interface {
	Receive(ctx context.Context) (media.FromViewer, error)
	Send(ctx context.Context, m media.ToViewer) error
}

// viewer is the control connection that the session has now.
type viewer struct {
	cancel  context.CancelCauseFunc
	out     chan media.ToViewer // when it is full, the viewer is too slow
	cursor  chan struct{}       // holds a token when the cursor is to be sent
	layout  chan media.Layout   // holds the screen that is wished last
	fixed   bool                // sizes of the window do not count
	display *display            // guarded by the agent's mutex
	hidden  bool                // guarded by the agent's mutex
	kept    *keptCursors        // nil: the viewer keeps none; used by the writer alone
}

// close ends the viewer's connections for a reason; the first reason counts.
func (v *viewer) close(why *media.Close) { v.cancel(why) }

// send queues a message.
func (v *viewer) send(m media.ToViewer) {
	select {
	case v.out <- m:
	default:
		v.close(&media.Close{Code: media.CloseTooSlow, Reason: "the viewer does not read"})
	}
}

// ServeControl serves a control connection until it ends, and returns why it is to be closed; nil when the
// viewer is gone already.
func (a *Agent) ServeControl(ctx context.Context, ticket string, conn ControlConn) *media.Close {
	if c := a.admit(ticket, appstream.ChannelControl); c != nil {
		return c
	}
	defer a.served.Done()
	m, err := receiveFirst(ctx, conn.Receive)
	if err != nil {
		return reasonOf(ctx, err)
	}
	hello, ok := m.(*media.Hello)
	switch {
	case !ok:
		return &media.Close{Code: media.CloseBadMessage, Reason: "the first message is not hello"}
	case hello.Version < 1:
		return &media.Close{Code: media.CloseVersion, Reason: "no common protocol version"}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	v := &viewer{
		cancel: cancel, out: make(chan media.ToViewer, maxOut), cursor: make(chan struct{}, 1),
		layout: make(chan media.Layout, 1), fixed: hello.FixedSize,
	}
	if hello.KeepsCursors {
		v.kept = new(keptCursors)
	}
	welcome, c := a.join(v, hello)
	if c != nil {
		return c
	}
	writer := make(chan struct{})
	go func() {
		defer close(writer)
		if err := a.write(ctx, v, conn, welcome); err != nil {
			cancel(err)
		}
	}()
	sizer := make(chan struct{})
	go func() {
		defer close(sizer)
		a.follow(ctx, v)
	}()
	err = a.read(ctx, v, conn)
	cancel(err)
	a.leave(v, reasonOf(ctx, err))
	<-sizer
	<-writer
	return reasonOf(ctx, err)
}

// receiveFirst bounds the wait for a connection's first message.
func receiveFirst(ctx context.Context, receive func(context.Context) (media.FromViewer, error)) (media.FromViewer, error) {
	bounded, cancel := context.WithTimeoutCause(ctx, firstMessageTime,
		&media.Close{Code: media.CloseTooSlow, Reason: "no message came"})
	defer cancel()
	m, err := receive(bounded)
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		return nil, context.Cause(bounded)
	}
	return m, err
}

// join makes v the session's viewer in place of the one before it, gives the screen its size and words its welcome.
func (a *Agent) join(v *viewer, hello *media.Hello) (*media.Welcome, *media.Close) {
	t, c := a.replace(v)
	if c != nil {
		return nil, c
	}
	spec := a.spec // does not change any more
	size := hello.Size
	if spec.Width != 0 && spec.Height != 0 {
		size, v.fixed = media.Size{Width: int(spec.Width), Height: int(spec.Height)}, true
	}
	if size != (media.Size{}) {
		a.arrange(v, media.SingleMonitor(size, hello.Scale)) // before welcome, so that the first picture has it
	}
	name := spec.Application.DisplayName
	if name == "" {
		name = spec.Application.Name
	}
	return &media.Welcome{
		Version: min(hello.Version, ProtocolVersion), DisplayPort: spec.DisplayPort, MaxSize: a.screen.MaxSize(),
		Session: string(spec.ID), Application: name, DisplayTicket: t.Display, ResumeTicket: t.Resume,
	}, nil
}

// replace closes the viewer that the session has, if any, and puts v in its place.
func (a *Agent) replace(v *viewer) (*media.Tickets, *media.Close) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over != nil {
		return nil, &media.Close{Code: media.CloseEnded, Reason: a.over.Reason}
	}
	a.tickets.own = nil
	t, err := a.newTicketsLocked()
	if err != nil {
		a.log.Error("tickets were not signed", "error", err)
		return nil, &media.Close{Code: media.CloseInternal, Reason: "the agent could not sign tickets"}
	}
	if old := a.viewer; old != nil {
		old.close(&media.Close{Code: media.CloseReplaced, Reason: "the session was resumed elsewhere"})
	}
	a.viewer = v
	a.leftAt = time.Time{}
	a.lastUsed = a.now()
	a.order.Connected()
	if a.cursor != nil {
		signal(v.cursor)
	}
	a.emitLocked(Event{Kind: Connected, Session: a.spec.ID})
	a.warned = false // this viewer was not told yet that the session ends soon
	signal(a.kick)
	return t, nil
}

// leave takes v from the session unless another has replaced it, and lets its keys go. Its display ends for
// the same reason.
func (a *Agent) leave(v *viewer, why *media.Close) {
	if why == nil {
		why = &media.Close{Code: media.CloseInternal, Reason: "the control connection is gone"}
	}
	a.mu.Lock()
	if d := v.display; d != nil {
		d.close(why)
	}
	current := a.viewer == v
	if current {
		a.viewer = nil
		if a.over == nil {
			a.leftAt = a.now()
		}
		a.emitLocked(Event{Kind: Disconnected, Session: a.spec.ID})
	}
	a.mu.Unlock()
	if current {
		a.inject(media.ReleaseAll{})
	}
}

// write sends the first message, then what is queued, and ends the connection of a user who does nothing for too long. While nothing
// happens it sends nothing: whether the viewer is still there is watched by the kernel that carries its connection, and asked by the
// viewer when it has a reason to (docs/protocol.md).
func (a *Agent) write(ctx context.Context, v *viewer, conn ControlConn, first media.ToViewer) error {
	if err := send(ctx, conn, first); err != nil {
		return err
	}
	timer := time.NewTimer(a.untilIdle())
	defer timer.Stop()
	for {
		var m media.ToViewer
		select {
		case <-ctx.Done():
			return a.sayEnded(conn)
		case m = <-v.out:
		case <-v.cursor:
			a.mu.Lock()
			m = v.kept.message(a.cursor)
			a.mu.Unlock()
		case <-timer.C:
			wait := a.untilIdle()
			if wait > 0 { // something was done meanwhile
				timer.Reset(wait)
				continue
			}
			m = &media.Ended{Code: uint16(appstream.EndIdle), Reason: "you were inactive for too long"}
		}
		if err := send(ctx, conn, m); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return a.sayEnded(conn)
		}
		if _, last := m.(*media.Ended); last {
			return &media.Close{Code: media.CloseEnded, Reason: "you were inactive for too long"}
		}
	}
}

// untilIdle is how much longer the user may do nothing, as the fleet allows.
func (a *Agent) untilIdle() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.spec.IdleTimeout <= 0 {
		return never
	}
	return max(0, a.lastUsed.Add(a.spec.IdleTimeout).Sub(a.now()))
}

// sending is the context of one message: it ends after limit, and when ctx has ended, after grace. A message
// that is cut short breaks the connection, and with it the word of why it ends.
func sending(ctx context.Context, limit, grace time.Duration) (context.Context, context.CancelFunc) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-bounded.Done():
		case <-timer.C:
			cancel()
		}
	})
	return bounded, func() { stop(); cancel() }
}

// send sends one message in bounded time.
func send(ctx context.Context, conn ControlConn, m media.ToViewer) error {
	bounded, cancel := sending(ctx, lostTime, endedTime)
	defer cancel()
	err := conn.Send(bounded, m)
	if err != nil && bounded.Err() != nil {
		return &media.Close{Code: media.CloseTooSlow, Reason: "the viewer does not read"}
	}
	return err
}

// sayEnded sends the last message when the session is over.
func (a *Agent) sayEnded(conn ControlConn) error {
	a.mu.Lock()
	over := a.over
	a.mu.Unlock()
	if over == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), endedTime)
	defer cancel()
	return conn.Send(ctx, over)
}

// read takes the viewer's messages until the connection ends.
func (a *Agent) read(ctx context.Context, v *viewer, conn ControlConn) error {
	for {
		m, err := conn.Receive(ctx)
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *media.Input:
			a.take(v, m)
		case *media.Ping:
			v.send(&media.Pong{Time: m.Time})
		case *media.Pong:
			a.answered(v, m)
		case *media.Resize:
			if !v.fixed {
				wish(v.layout, media.SingleMonitor(m.Size, m.Scale))
			}
		case *media.Monitors:
			if !v.fixed {
				wish(v.layout, m.Layout)
			}
		case *media.Visibility:
			a.setHidden(v, m.Hidden)
		case *media.End:
			a.decideOver(appstream.EndByUser, "you ended the session")
		case *media.NeedDisplayTicket:
			if c := a.reissue(v); c != nil {
				return c
			}
		default:
			return &media.Close{Code: media.CloseBadMessage, Reason: "a second first message"}
		}
	}
}

// answered hands the answer to a ping to the display that asked.
func (a *Agent) answered(v *viewer, m *media.Pong) {
	a.mu.Lock()
	d := v.display
	a.mu.Unlock()
	if d != nil {
		d.answered(m.Time)
	}
}

// reissue answers NeedDisplayTicket.
func (a *Agent) reissue(v *viewer) *media.Close {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.viewer != v {
		return nil
	}
	t, err := a.newTicketsLocked()
	if err != nil {
		a.log.Error("tickets were not signed", "error", err)
		return &media.Close{Code: media.CloseInternal, Reason: "the agent could not sign tickets"}
	}
	v.send(t)
	return nil
}

// take injects one input of the viewer.
func (a *Agent) take(v *viewer, in *media.Input) {
	now := a.now()
	a.mu.Lock()
	if a.viewer != v || !a.order.Accept(in.Seq) {
		a.mu.Unlock()
		return
	}
	a.lastUsed = now
	prompt := true
	if p, ok := in.Event.(media.Pointer); ok {
		prompt = p.Buttons != a.buttons
		a.buttons = p.Buttons
	}
	d := v.display
	a.mu.Unlock()
	if prompt && d != nil {
		d.inputSeen(now)
	}
	a.inject(in.Event)
}

func (a *Agent) inject(e media.Event) {
	a.inputMu.Lock()
	defer a.inputMu.Unlock()
	if err := a.input.Inject(e); err != nil {
		a.log.Warn("input was not injected", "error", err)
	}
}

// setHidden stops the display while nobody can see it.
func (a *Agent) setHidden(v *viewer, hidden bool) {
	a.mu.Lock()
	v.hidden = hidden
	d := v.display
	a.mu.Unlock()
	if d != nil {
		d.setHidden(hidden)
	}
}

// wish replaces the screen that waits in ch.
func wish(ch chan media.Layout, layout media.Layout) {
	for {
		select {
		case ch <- layout:
			return
		default:
		}
		select {
		case <-ch:
		default:
		}
	}
}

// follow gives the screen what the viewer wishes, not more than ten times a second; the last wish counts.
func (a *Agent) follow(ctx context.Context, v *viewer) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case layout := <-v.layout:
			a.arrange(v, layout)
		}
		timer.Reset(resizeSpacing)
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
	}
}

// arrange gives the screen the monitors and the scale that v wishes, or the nearest that it can have, unless
// another viewer has replaced v.
func (a *Agent) arrange(v *viewer, layout media.Layout) {
	a.screenMu.Lock()
	defer a.screenMu.Unlock()
	a.mu.Lock()
	current := a.viewer == v
	a.mu.Unlock()
	if !current {
		return
	}
	layout = layout.Fit(a.screen.MaxSize())
	if err := a.screen.Arrange(layout); err != nil {
		a.log.Warn("screen was not resized", "size", layout.Size(), "scale", layout.Scale, "error", err)
	}
}
