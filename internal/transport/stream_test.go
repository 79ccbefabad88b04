package transport_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"image"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"penstock.dev/penstock/internal/agent"
	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/encode"
	"penstock.dev/penstock/internal/media"
	"penstock.dev/penstock/internal/transport"
	"penstock.dev/penstock/internal/wire/channel"
	"penstock.dev/penstock/internal/x11"
)

const (
	patience = 20 * time.Second
	session  = appstream.SessionID("3a1c9a52-0000-4000-8000-000000000001")
	endpoint = appstream.EndpointID("vpce-0123456789abcdef0")
)

// rig is a whole session: X server, agent and the HTTP server that viewers reach.
type rig struct {
	server *x11.Server
	screen *x11.Screen
	agent  *agent.Agent
	web    *httptest.Server
	broker ed25519.PrivateKey
	home   string

	mu     sync.Mutex
	events []agent.Event
	more   chan struct{}
}

type option func(*appstream.SessionSpec)

func newRig(t testing.TB, options ...option) *rig {
	t.Helper()
	if _, err := exec.LookPath("Xvfb"); err != nil {
		t.Skip("needs Xvfb (Debian package xvfb)")
	}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	r := &rig{more: make(chan struct{}, 1), home: t.TempDir()}
	var err error
	r.server, err = x11.StartServer(t.Context(), x11.ServerOptions{
		Dir: r.home, MaxSize: media.Size{Width: 1920, Height: 1200}, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.server.Close(); err != nil {
			t.Error(err)
		}
	})
	if r.screen, err = r.server.OpenScreen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.screen.Close)
	input, err := r.server.OpenInput()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(input.Close)
	r.agent, err = agent.New(agent.Options{
		Screen: r.screen, Input: input, Log: log,
		NewEncoder: func(codecs media.Codecs) (media.Encoder, error) { return encode.NewTiles(codecs, encode.Options{}) },
	})
	if err != nil {
		t.Fatal(err)
	}
	_, r.broker, err = ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	public, _ := r.broker.Public().(ed25519.PublicKey)
	spec := appstream.SessionSpec{
		ID: session, Endpoint: endpoint, ControlKey: public, DisplayPort: 1401,
		Application: appstream.Application{Name: "xterm", DisplayName: "Terminal"}, DisconnectTimeout: time.Minute,
	}
	for _, o := range options {
		o(&spec)
	}
	if err := r.agent.Begin(spec); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() {
		if err := r.agent.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	parts.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case e := <-r.agent.Events():
				r.mu.Lock()
				r.events = append(r.events, e)
				r.mu.Unlock()
				select {
				case r.more <- struct{}{}:
				default:
				}
			}
		}
	})
	r.web = httptest.NewUnstartedServer(transport.NewHandler(r.agent, log))
	socket, err := net.Listen("unix", filepath.Join(r.home, "viewer.sock"))
	if err != nil {
		t.Fatal(err)
	}
	_ = r.web.Listener.Close()
	r.web.Listener = socket
	r.web.Start()
	t.Cleanup(func() {
		cancel()
		parts.Wait()
		r.web.Close()
	})
	return r
}

// ticket is a broker's ticket.
func (r *rig) ticket(t testing.TB, change func(*appstream.Ticket)) string {
	t.Helper()
	id := base64.RawURLEncoding.EncodeToString([]byte(fmt.Sprintf("%016x", rand.Uint64())))
	tk := appstream.Ticket{
		ID: id, KeyID: appstream.KeyControl, Session: session, Endpoint: endpoint,
		Channel: appstream.ChannelControl, Expires: time.Now().Add(time.Minute),
	}
	if change != nil {
		change(&tk)
	}
	s, err := appstream.SignTicket(r.broker, tk)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// dial opens one connection with a ticket.
func (r *rig) dial(t testing.TB, name, ticket string) *websocket.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ws, resp, err := websocket.Dial(ctx, "ws://vpce.example/v1/channel/"+name, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", r.web.Listener.Addr().String())
			},
		}},
		Subprotocols:    []string{channel.Subprotocol, channel.TicketPrefix + ticket},
		CompressionMode: websocket.CompressionDisabled,
	})
	if resp != nil && resp.Body != nil {
		_ = resp.Body.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	ws.SetReadLimit(channel.MaxFromAgent)
	t.Cleanup(func() { _ = ws.CloseNow() })
	return ws
}

// viewer is a client of both connections.
type viewer struct {
	control, display *websocket.Conn
	welcome          *channel.Welcome
	decoder          *encode.Decoder
	seq              uint32
	updates          int
	bytes            int
}

func send(t testing.TB, ws *websocket.Conn, m channel.Message) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := ws.Write(ctx, websocket.MessageBinary, m.Append(nil)); err != nil {
		t.Fatalf("send %v: %v", m.Type(), err)
	}
}

func receive(t testing.TB, ws *websocket.Conn, kind channel.Connection) (channel.Message, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, b, err := ws.Read(ctx)
	if err != nil {
		return nil, err
	}
	m, err := channel.Parse(kind, channel.FromAgent, b)
	if err != nil {
		t.Fatalf("agent's message: %v", err)
	}
	return m, nil
}

// receiveType skips messages of other types.
func receiveType[M channel.Message](t testing.TB, ws *websocket.Conn) M {
	t.Helper()
	for {
		m, err := receive(t, ws, channel.Control)
		if err != nil {
			t.Fatalf("wait for %T: %v", *new(M), err)
		}
		if want, ok := m.(M); ok {
			return want
		}
	}
}

// closeOf reads until the connection ends and returns its close code.
func closeOf(t testing.TB, ws *websocket.Conn) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		if _, _, err := ws.Read(ctx); err != nil {
			if ce, ok := errors.AsType[websocket.CloseError](err); ok {
				return int(ce.Code), ce.Reason
			}
			t.Fatalf("connection ended without a close code: %v", err)
		}
	}
}

func newDecoder(t testing.TB) *encode.Decoder {
	t.Helper()
	d := encode.NewDecoder()
	t.Cleanup(d.Close)
	return d
}

// joinControl opens control and says hello.
func (r *rig) joinControl(t testing.TB, ticket string, hello channel.Hello) *viewer {
	t.Helper()
	v := &viewer{control: r.dial(t, "control", ticket), decoder: encode.NewDecoder()}
	t.Cleanup(v.decoder.Close)
	hello.Version = 1
	send(t, v.control, &hello)
	first, err := receive(t, v.control, channel.Control)
	if err != nil {
		t.Fatalf("wait for welcome: %v", err)
	}
	var ok bool
	if v.welcome, ok = first.(*channel.Welcome); !ok {
		t.Fatalf("the first message is %v, want welcome", first.Type())
	}
	return v
}

func (r *rig) join(t testing.TB, hello channel.Hello) *viewer {
	t.Helper()
	v := r.joinControl(t, r.ticket(t, nil), hello)
	r.openDisplay(t, v, v.welcome.DisplayTicket)
	return v
}

func (r *rig) openDisplay(t testing.TB, v *viewer, ticket string) {
	t.Helper()
	v.display = r.dial(t, "display", ticket)
	send(t, v.display, &channel.Start{Version: 1, Codecs: channel.CodecTiles | channel.CodecCopy | channel.CodecFill})
}

// update takes one update, draws and acknowledges it.
func (v *viewer) update(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, b, err := v.display.Read(ctx)
	if err != nil {
		t.Fatalf("wait for an update: %v", err)
	}
	u, err := v.decoder.Apply(b)
	if err != nil {
		t.Fatal(err)
	}
	v.updates++
	v.bytes += len(b)
	send(t, v.display, &channel.Ack{Seq: u.Seq})
}

// until takes updates until the picture fulfils a condition.
func (v *viewer) until(t testing.TB, what string, ok func(picture *image.NRGBA) bool) {
	t.Helper()
	end := time.Now().Add(patience)
	for v.decoder.Picture == nil || !ok(v.picture()) {
		if time.Now().After(end) {
			t.Fatalf("waited too long for %s", what)
		}
		v.update(t)
	}
}

func (v *viewer) picture() *image.NRGBA {
	return &image.NRGBA{
		Pix: v.decoder.Picture, Stride: v.decoder.Width * 4, Rect: image.Rect(0, 0, v.decoder.Width, v.decoder.Height),
	}
}

func (v *viewer) key(t testing.TB, code, key string, flags uint8) {
	t.Helper()
	for _, down := range []bool{true, false} {
		v.seq++
		send(t, v.control, &channel.Key{Seq: v.seq, Down: down, Flags: flags, Code: code, Key: key})
	}
}

// start runs an X client in the session.
func (r *rig) start(t testing.TB, name string, args ...string) *exec.Cmd {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("needs %s", name)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "DISPLAY="+r.server.Display(), "XAUTHORITY="+r.server.Xauthority(), "HOME="+r.home, "LC_ALL=C.UTF-8")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// dark counts pixels that are not near white.
func dark(p *image.NRGBA, r image.Rectangle) int {
	n := 0
	r = r.Intersect(p.Rect)
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			at := p.PixOffset(x, y)
			if int(p.Pix[at])+int(p.Pix[at+1])+int(p.Pix[at+2]) < 300 {
				n++
			}
		}
	}
	return n
}

func light(p *image.NRGBA) int {
	n := 0
	for i := 0; i < len(p.Pix); i += 4 {
		if p.Pix[i] > 200 && p.Pix[i+1] > 200 && p.Pix[i+2] > 200 {
			n++
		}
	}
	return n
}

// The whole path: a letter typed in the viewer changes the viewer's picture, and the text reaches the
// program in the terminal.
func TestTypeIntoTerminal(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	v := r.join(t, channel.Hello{Width: 700, Height: 500, Scale: 100})
	if v.welcome.SessionID != string(session) || v.welcome.Application != "Terminal" || v.welcome.DisplayPort != 1401 ||
		v.welcome.MaxWidth != 1920 || v.welcome.MaxHeight != 1200 {
		t.Errorf("got welcome %+v", v.welcome)
	}
	out := filepath.Join(r.home, "typed")
	r.start(t, "xterm", "-geometry", "80x24+0+0", "-bg", "white", "-fg", "black", "-bc", "-e", "sh", "-c", "cat > "+out)
	v.until(t, "the terminal's window", func(p *image.NRGBA) bool {
		return p.Rect.Dx() == 700 && p.Rect.Dy() == 500 && light(p) > 50_000
	})
	v.seq++
	send(t, v.control, &channel.Pointer{Seq: v.seq, X: 200, Y: 100})
	line := image.Rect(4, 2, 60, 16)
	before := dark(v.picture(), line)
	v.key(t, "KeyH", "h", 0)
	v.until(t, "the letter's pixels", func(p *image.NRGBA) bool { return dark(p, line) != before })
	for _, k := range []struct {
		code, key string
		flags     uint8
	}{
		{"KeyE", "E", channel.KeyShift},
		{"Minus", "ß", 0},
		{"Quote", "Ä", channel.KeyShift},
		{"KeyQ", "@", channel.KeyAltGraph},
		{"Digit2", "é", 0},
		{"Digit7", "/", channel.KeyShift},
		{"KeyZ", "€", channel.KeyAltGraph},
		{"Backspace", "Backspace", 0},
		{"KeyY", "z", 0},
		{"Enter", "Enter", 0},
	} {
		v.key(t, k.code, k.key, k.flags)
	}
	v.seq++
	send(t, v.control, &channel.Text{Seq: v.seq, Text: "ねこ Ω~x"})
	v.key(t, "Enter", "Enter", 0)
	many := "" // in one message
	for r := rune(0x4e00); r < 0x4e00+30; r++ {
		many += string(r)
	}
	v.seq++
	send(t, v.control, &channel.Text{Seq: v.seq, Text: many + "\n"})
	// Ctrl+D twice by the way of a page: Control goes down, the character comes with the flag.
	v.seq++
	send(t, v.control, &channel.Key{Seq: v.seq, Down: true, Flags: channel.KeyCtrl, Code: "ControlLeft", Key: "Control"})
	v.key(t, "KeyD", "d", channel.KeyCtrl)
	want := "hEßÄ@é/z\nねこ Ω~x\n" + many + "\n"
	end := time.Now().Add(patience)
	for {
		b, err := os.ReadFile(out)
		if err == nil && string(b) == want {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("terminal's program got %q, want %q", b, want)
		}
		drain(t, v)
	}
}

// drain takes updates for a moment.
func drain(t testing.TB, v *viewer) {
	t.Helper()
	v.seq++
	send(t, v.control, &channel.Ping{Time: uint64(v.seq)})
	receiveType[*channel.Pong](t, v.control)
	time.Sleep(20 * time.Millisecond) // a program outside writes a file
}
