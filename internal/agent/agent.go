// Package agent runs one session's stream: it admits the viewer by ticket, follows the screen's damage, sends
// what changed as soon as the viewer can take it, and injects the viewer's input.
package agent

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/media"
)

// Screen is the display that is streamed. Capture and Arrange never overlap, nor does Arrange with the use of
// captured views; the other methods may be called at any time.
type Screen interface {
	Size() media.Size
	MaxSize() media.Size
	// Arrange gives the screen its monitors and the desktop its scale.
	Arrange(layout media.Layout) error
	// Damaged holds a token when something was drawn since the last TakeDamage, or the size changed.
	Damaged() <-chan struct{}
	// TakeDamage adds what was drawn since the last call.
	TakeDamage(region *media.Region) error
	// Capture returns views that are valid until the next call. It fails when the size is not the
	// screen's any more.
	Capture(region *media.Region, size media.Size) ([]media.View, error)
	CursorChanged() <-chan struct{}
	Cursor() (media.Cursor, error)
	// Done is closed when the display is gone.
	Done() <-chan struct{}
}

// Input injects what the user did. The agent calls it from one goroutine at a time.
type Input interface {
	Inject(e media.Event) error
}

// Options are the parts of an agent. Log, Now and Key have defaults.
type Options struct {
	Screen Screen
	Input  Input
	// NewEncoder makes the encoder of one display connection.
	NewEncoder func(codecs media.Codecs) (media.Encoder, error)
	// Key signs the tickets that this agent issues; a new one by default.
	Key ed25519.PrivateKey
	Log *slog.Logger
	Now func() time.Time
}

// EventKind says what happened.
type EventKind int

// The events.
const (
	Connected    EventKind = iota + 1 // a viewer has joined
	Disconnected                      // the viewer is gone; it may come back
	Over                              // the session is over by the agent's decision: Code and Reason say why
)

// Event is something that whoever placed the session wants to know.
type Event struct {
	Kind    EventKind
	Session appstream.SessionID
	Code    appstream.EndCode
	Reason  string
}

// maxEvents bounds the events that nobody has taken yet. The oldest connection events are dropped first:
// the newest say how it is.
const maxEvents = 64

// Agent serves at most one session in its life, and at most one viewer at a time.
type Agent struct {
	screen     Screen
	input      Input
	newEncoder func(media.Codecs) (media.Encoder, error)
	key        ed25519.PrivateKey
	log        *slog.Logger
	now        func() time.Time
	started    time.Time
	events     chan Event
	kick       chan struct{} // holds a token when Run should look at the state
	served     sync.WaitGroup

	screenMu sync.Mutex // held while the screen is resized, or captured and encoded
	inputMu  sync.Mutex // held while input is injected

	mu       sync.Mutex // guards all below
	spec     *appstream.SessionSpec
	over     *media.Ended
	viewer   *viewer
	drawing  *display  // the display connection that last used the screen
	leftAt   time.Time // since when nobody is connected; zero while somebody is
	pending  []Event
	order    media.InputOrder
	cursor   *media.Cursor
	tickets  tickets
	buttons  media.Buttons
	lastUsed time.Time // when the user last did something
	warned   bool      // the viewer was told that the session ends soon
}

// New builds an agent. Run must be running for timers and events.
func New(o Options) (*Agent, error) {
	if o.Key == nil {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			return nil, fmt.Errorf("make the agent's key: %w", err)
		}
		o.Key = key
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Agent{
		screen: o.Screen, input: o.Input, newEncoder: o.NewEncoder, key: o.Key, log: o.Log, now: o.Now,
		started: o.Now(), events: make(chan Event), kick: make(chan struct{}, 1),
		tickets: tickets{used: map[string]time.Time{}},
	}, nil
}

// PublicKey proves the tickets that the agent signs with key ID appstream.KeySession.
func (a *Agent) PublicKey() ed25519.PublicKey {
	public, _ := a.key.Public().(ed25519.PublicKey)
	return public
}

// Begin lets viewers of this session in. Another Begin of the same session is no error.
func (a *Agent) Begin(spec appstream.SessionSpec) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.over != nil:
		return errors.New("the session is over")
	case a.spec != nil && a.spec.ID != spec.ID:
		return errors.New("the instance runs another session")
	case a.spec != nil:
		return nil
	case len(spec.ControlKey) != ed25519.PublicKeySize:
		return errors.New("the session has no key for its tickets")
	}
	a.spec = &spec
	a.leftAt = a.now()
	signal(a.kick)
	return nil
}

// End ends the session: the viewer is told why, and no other is let in. It does not wait; Run does.
func (a *Agent) End(code appstream.EndCode, reason string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.endLocked(code, reason)
}

func (a *Agent) endLocked(code appstream.EndCode, reason string) {
	if a.over != nil {
		return
	}
	a.over = &media.Ended{Code: uint16(code), Reason: reason}
	a.leftAt = time.Time{}
	if v := a.viewer; v != nil {
		v.close(&media.Close{Code: media.CloseEnded, Reason: reason})
	}
	signal(a.kick)
}

// decideOver ends the session by the agent's own decision and reports it.
func (a *Agent) decideOver(code appstream.EndCode, reason string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.spec == nil || a.over != nil {
		return
	}
	a.endLocked(code, reason)
	a.emitLocked(Event{Kind: Over, Session: a.spec.ID, Code: code, Reason: reason})
}

// Events are delivered while Run runs.
func (a *Agent) Events() <-chan Event { return a.events }

func (a *Agent) emitLocked(e Event) {
	if len(a.pending) >= maxEvents {
		a.pending = append(a.pending[:0], a.pending[1:]...)
	}
	a.pending = append(a.pending, e)
	signal(a.kick)
}

// Run delivers events, follows the cursor and the time without a viewer, until ctx ends or the display is
// gone, and waits until no viewer is served any more.
func (a *Agent) Run(ctx context.Context) error {
	defer a.served.Wait()
	defer a.End(appstream.EndShutdown, "the server shuts down")
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		next, out, wait := a.look()
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-a.screen.Done():
			a.End(appstream.EndInstanceFailed, "the display of the session ended")
			return errors.New("display is gone")
		case <-a.screen.CursorChanged():
			a.refreshCursor()
		case out <- next:
			a.mu.Lock()
			a.pending = a.pending[1:]
			a.mu.Unlock()
		case <-a.kick:
		case <-timer.C:
		}
	}
}

// look returns the next event with the channel that takes it (nil for none) and how long nothing is to be
// done.
func (a *Agent) look() (Event, chan<- Event, time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	wait := 24 * time.Hour
	if a.over == nil && a.spec != nil && !a.leftAt.IsZero() && a.spec.DisconnectTimeout > 0 {
		wait = a.leftAt.Add(a.spec.DisconnectTimeout).Sub(a.now())
		if wait <= 0 {
			const reason = "nobody came back within the disconnect timeout"
			a.endLocked(appstream.EndDisconnected, reason)
			a.emitLocked(Event{Kind: Over, Session: a.spec.ID, Code: appstream.EndDisconnected, Reason: reason})
		}
	}
	wait = min(wait, a.warnLocked())
	if len(a.pending) == 0 {
		return Event{}, nil, wait
	}
	return a.pending[0], a.events, wait
}

// warnTime is how long before the session's greatest length its user is told, as AppStream does.
const warnTime = 5 * time.Minute

// warnLocked tells the viewer once that the session ends soon, and returns how long that is off.
func (a *Agent) warnLocked() time.Duration {
	const never = 24 * time.Hour
	if a.over != nil || a.spec == nil || a.spec.EndsAt.IsZero() || a.viewer == nil || a.warned {
		return never
	}
	now := a.now()
	left := a.spec.EndsAt.Sub(now)
	if left > warnTime {
		return left - warnTime
	}
	a.warned = true
	if minutes := int((left + time.Minute - 1) / time.Minute); minutes > 0 {
		unit := "minutes"
		if minutes == 1 {
			unit = "minute"
		}
		a.viewer.send(&media.Notice{Code: media.NoticeEndsSoon, Text: fmt.Sprintf(
			"This session ends in %d %s, when it reaches its greatest length. Save your work.", minutes, unit)})
	}
	return never
}

// refreshCursor fetches the cursor and hands it to the viewer.
func (a *Agent) refreshCursor() {
	c, err := a.screen.Cursor()
	if err != nil {
		a.log.Debug("cursor was not fetched", "error", err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cursor != nil && a.cursor.Serial == c.Serial {
		return // shown again, not changed
	}
	a.cursor = &c
	if a.viewer != nil {
		signal(a.viewer.cursor)
	}
}

// micros is the agent's monotonic clock.
func (a *Agent) micros() uint64 { return uint64(a.now().Sub(a.started).Microseconds()) }

// signal leaves a token in a channel of capacity 1.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// reasonOf is why ctx ended for a connection, or why it broke: nil when the viewer is simply gone.
func reasonOf(ctx context.Context, err error) *media.Close {
	if c, ok := errors.AsType[*media.Close](context.Cause(ctx)); ok {
		return c
	}
	if c, ok := errors.AsType[*media.Close](err); ok {
		return c
	}
	return nil
}
