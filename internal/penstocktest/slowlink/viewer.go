package slowlink

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"

	"penstock.dev/penstock/internal/encode"
	"penstock.dev/penstock/internal/wire/channel"
)

// Viewer is a viewer at the far end: it decodes and acknowledges what comes and answers pings.
type Viewer struct {
	session          *Session
	control, display *websocket.Conn
	decoder          *encode.Decoder
	cancel           context.CancelFunc
	running          sync.WaitGroup

	mu    sync.Mutex // guards what follows
	seq   uint32     // of inputs
	keys  int        // pressed
	shown int        // of them, answered on the picture
	// pressed is when each key was pressed.
	pressed []time.Time
	frame   uint32
	hold    bool // acknowledge nothing
	held    []uint32
	seen    Seen
	err     error
	changed chan struct{}
}

// Seen is what a viewer saw since the last Take.
type Seen struct {
	Updates, Bytes int
	Largest        int             // update
	Echo           []time.Duration // from a key to its letter, drawn
	Frames         int             // of the film, whole
	Torn           int             // updates that left the film half new
	Ages           []time.Duration // of frames, when drawn: since they were drawn on the screen, or of video since it was captured
	Trip           []time.Duration // of the viewer's own pings on control
	Waiting        []int           // bytes before the link's narrow place, as each update was drawn
}

// Open connects a viewer that has these codecs, and waits for the first update.
func (s *Session) Open(codecs uint32) (*Viewer, error) {
	ctx, cancel := context.WithCancel(context.Background())
	v := &Viewer{session: s, decoder: encode.NewDecoder(), cancel: cancel, changed: make(chan struct{}, 1)}
	if err := v.open(ctx, codecs); err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

func (v *Viewer) open(ctx context.Context, codecs uint32) error {
	opening, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	ticket, err := v.session.ticket()
	if err != nil {
		return err
	}
	if v.control, err = v.dial(opening, "control", controlPort, ticket); err != nil {
		return err
	}
	if err := write(opening, v.control, &channel.Hello{Version: 1}); err != nil {
		return err
	}
	m, err := read(opening, v.control, channel.Control)
	if err != nil {
		return fmt.Errorf("wait for welcome: %w", err)
	}
	welcome, ok := m.(*channel.Welcome)
	if !ok {
		return fmt.Errorf("first message is %v, want welcome", m.Type())
	}
	if v.display, err = v.dial(opening, "display", int(welcome.DisplayPort), welcome.DisplayTicket); err != nil {
		return err
	}
	if err := write(opening, v.display, &channel.Start{Version: 1, Codecs: codecs}); err != nil {
		return err
	}
	v.running.Go(func() { v.fail(v.follow(ctx)) })
	v.running.Go(func() { v.fail(v.draw(ctx)) })
	return nil
}

func (v *Viewer) dial(ctx context.Context, name string, port int, ticket string) (*websocket.Conn, error) {
	ws, resp, err := websocket.Dial(ctx, "wss://"+Near+"/v1/channel/"+name, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: &http.Transport{
			DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return v.session.Link.Dial(ctx, port) },
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // a certificate that signs itself
		}},
		Subprotocols: []string{channel.Subprotocol, channel.TicketPrefix + ticket}, CompressionMode: websocket.CompressionDisabled,
	})
	if resp != nil && resp.Body != nil {
		_ = resp.Body.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	ws.SetReadLimit(channel.MaxFromAgent)
	return ws, nil
}

func write(ctx context.Context, ws *websocket.Conn, m channel.Message) error {
	return ws.Write(ctx, websocket.MessageBinary, m.Append(nil))
}

func read(ctx context.Context, ws *websocket.Conn, kind channel.Connection) (channel.Message, error) {
	_, b, err := ws.Read(ctx)
	if err != nil {
		return nil, err
	}
	return channel.Parse(kind, channel.FromAgent, b)
}

// Close ends the viewer's connections.
func (v *Viewer) Close() {
	v.cancel()
	for _, ws := range []*websocket.Conn{v.control, v.display} {
		if ws != nil {
			_ = ws.CloseNow()
		}
	}
	v.running.Wait()
	v.decoder.Close()
}

// fail notes why the viewer ended.
func (v *Viewer) fail(err error) {
	v.mu.Lock()
	if v.err == nil {
		v.err = err
	}
	v.mu.Unlock()
	v.signal()
}

func (v *Viewer) signal() {
	select {
	case v.changed <- struct{}{}:
	default:
	}
}

// follow reads control.
func (v *Viewer) follow(ctx context.Context) error {
	for {
		m, err := read(ctx, v.control, channel.Control)
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *channel.Ping:
			if err := write(ctx, v.control, &channel.Pong{Time: m.Time}); err != nil {
				return err
			}
		case *channel.Pong:
			v.mu.Lock()
			v.seen.Trip = append(v.seen.Trip, time.Since(time.UnixMicro(int64(m.Time)))) //nolint:gosec // its own
			v.mu.Unlock()
		}
	}
}

// draw reads display.
func (v *Viewer) draw(ctx context.Context) error {
	for {
		_, b, err := v.display.Read(ctx)
		if err != nil {
			return err
		}
		start := time.Now()
		v.mu.Lock()
		u, err := v.decoder.Apply(b)
		if err != nil {
			v.mu.Unlock()
			return err
		}
		v.look(len(b), u)
		hold := v.hold
		if hold {
			v.held = append(v.held, u.Seq)
		}
		v.mu.Unlock()
		v.signal()
		if hold {
			continue
		}
		took := time.Since(start).Microseconds()
		if err := write(ctx, v.display, &channel.Ack{Seq: u.Seq, DecodeMicros: uint32(took)}); err != nil { //nolint:gosec // short
			return err
		}
	}
}

// look sees what an update has changed.
func (v *Viewer) look(size int, u *channel.Update) {
	s := &v.seen
	s.Updates++
	s.Bytes += size
	s.Largest = max(s.Largest, size)
	s.Waiting = append(s.Waiting, v.session.Link.Waiting())
	for v.shown < v.keys && v.pixel(letter.Min.X, letter.Min.Y) == colourOf(v.keys) {
		s.Echo = append(s.Echo, time.Since(v.pressed[v.shown]))
		v.shown++
	}
	corners := marks()
	first, last := v.pixel(corners[0].Min.X, corners[0].Min.Y), v.pixel(corners[1].Min.X, corners[1].Min.Y)
	_, played := v.session.Screen.age(first)
	switch {
	case slices.ContainsFunc(u.Sections, func(s channel.Section) bool { return s.Kind == channel.SectionVideo }):
		// This viewer has no decoder for video; a frame of video is whole.
		s.Frames++
		s.Ages = append(s.Ages, time.Since(v.session.started)-time.Duration(u.CaptureMicros)*time.Microsecond) //nolint:gosec // short
	case !played: // no film
	case first != last:
		s.Torn++
	case first != v.frame:
		if age, ok := v.session.Screen.age(first); ok {
			v.frame = first
			s.Frames++
			s.Ages = append(s.Ages, age)
		}
	}
}

func (v *Viewer) pixel(x, y int) uint32 {
	p := v.decoder.Picture[(y*v.decoder.Width+x)*4:]
	return uint32(p[0])<<16 | uint32(p[1])<<8 | uint32(p[2])
}

// Take returns what was seen since the last Take.
func (v *Viewer) Take() (Seen, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.seen
	v.seen = Seen{}
	return s, v.err
}

// Key presses and releases a key.
func (v *Viewer) Key(ctx context.Context) error {
	v.mu.Lock()
	v.keys++
	v.pressed = append(v.pressed, time.Now())
	v.seq += 2
	seq := v.seq
	v.mu.Unlock()
	if err := write(ctx, v.control, &channel.Key{Seq: seq - 1, Down: true, Code: "KeyA", Key: "a"}); err != nil {
		return err
	}
	return write(ctx, v.control, &channel.Key{Seq: seq, Code: "KeyA", Key: "a"})
}

// Ping measures the round trip on control; the answer is in Seen.
func (v *Viewer) Ping(ctx context.Context) error {
	return write(ctx, v.control, &channel.Ping{Time: uint64(time.Now().UnixMicro())}) //nolint:gosec // after 1970
}

// Hide says whether anybody can see the picture.
func (v *Viewer) Hide(ctx context.Context, hidden bool) error {
	return write(ctx, v.control, &channel.Visibility{Hidden: hidden})
}

// Until waits for a condition of what was seen so far.
func (v *Viewer) Until(limit time.Duration, what string, ok func(*Seen) bool) error {
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for {
		v.mu.Lock()
		err, done := v.err, ok(&v.seen)
		v.mu.Unlock()
		switch {
		case done:
			return nil
		case err != nil:
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		select {
		case <-v.changed:
		case <-timeout.C:
			return fmt.Errorf("waited too long for %s", what)
		}
	}
}

// Answered waits until all keys are on the picture.
func (v *Viewer) Answered(limit time.Duration) error {
	return v.Until(limit, "the answers to all keys", func(*Seen) bool { return v.shown == v.keys })
}

// Hold acknowledges nothing more until Release.
func (v *Viewer) Hold() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.hold = true
}

// Release acknowledges what was held back, and goes on; it returns how many updates that were.
func (v *Viewer) Release(ctx context.Context) (int, error) {
	v.mu.Lock()
	held := v.held
	v.hold, v.held = false, nil
	v.mu.Unlock()
	if len(held) == 0 {
		return 0, nil
	}
	return len(held), write(ctx, v.display, &channel.Ack{Seq: held[len(held)-1]})
}

// Exact waits until the viewer's picture is the screen's.
func (v *Viewer) Exact(limit time.Duration) error {
	return v.Until(limit, "the exact picture", func(*Seen) bool {
		return v.session.Screen.Shows(v.decoder.Picture)
	})
}
