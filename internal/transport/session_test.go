package transport_test

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"penstock.dev/penstock/internal/agent"
	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/media"
	"penstock.dev/penstock/internal/wire/channel"
)

// TestMain fails when the tests leave goroutines behind.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	end := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(end) {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > before && code == 0 {
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		fmt.Fprintf(os.Stderr, "%d goroutines are left of %d:\n%s\n", n, before, stacks)
		code = 1
	}
	os.Exit(code)
}

func wantClose(t testing.TB, ws *websocket.Conn, want media.CloseCode) {
	t.Helper()
	if code, reason := closeOf(t, ws); code != int(want) {
		t.Errorf("closed with %d %q, want %d", code, reason, want)
	}
}

func (r *rig) event(t testing.TB, kind agent.EventKind) agent.Event {
	t.Helper()
	timeout := time.After(patience)
	for {
		r.mu.Lock()
		for i, e := range r.events {
			if e.Kind == kind {
				r.events = append(r.events[:i], r.events[i+1:]...)
				r.mu.Unlock()
				return e
			}
		}
		r.mu.Unlock()
		select {
		case <-r.more:
		case <-timeout:
			t.Fatalf("waited too long for event %d", kind)
		}
	}
}

func TestTicketRefusals(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	tests := map[string]struct {
		channel string
		ticket  string
		want    media.CloseCode
	}{
		"none":             {"control", "", media.CloseBadTicket},
		"no signature":     {"control", "abc", media.CloseBadTicket},
		"unknown key":      {"control", r.ticket(t, func(k *appstream.Ticket) { k.KeyID = "other" }), media.CloseBadTicket},
		"wrong key":        {"control", r.ticket(t, func(k *appstream.Ticket) { k.KeyID = appstream.KeySession }), media.CloseBadTicket},
		"expired":          {"control", r.ticket(t, func(k *appstream.Ticket) { k.Expires = time.Now().Add(-time.Second) }), media.CloseTicketExpired},
		"other session":    {"control", r.ticket(t, func(k *appstream.Ticket) { k.Session = "other" }), media.CloseWrongChannel},
		"other channel":    {"control", r.ticket(t, func(k *appstream.Ticket) { k.Channel = appstream.ChannelDisplay }), media.CloseWrongChannel},
		"control's":        {"display", r.ticket(t, nil), media.CloseWrongChannel},
		"other endpoint":   {"control", r.ticket(t, func(k *appstream.Ticket) { k.Endpoint = "vpce-0fedcba9876543210" }), media.CloseWrongEndpoint},
		"nobody to show":   {"display", r.ticket(t, func(k *appstream.Ticket) { k.Channel = appstream.ChannelDisplay }), media.CloseReplaced},
		"too long to read": {"control", strings.Repeat("a", 2000), media.CloseBadTicket},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ws := r.dial(t, tt.channel, tt.ticket)
			if name == "nobody to show" {
				send(t, ws, &channel.Start{Version: 1, Codecs: channel.CodecTiles})
			}
			wantClose(t, ws, tt.want)
		})
	}
	t.Run("used", func(t *testing.T) {
		ticket := r.ticket(t, nil)
		first := r.joinControl(t, ticket, channel.Hello{})
		wantClose(t, r.dial(t, "control", ticket), media.CloseTicketUsed)
		send(t, first.control, &channel.Ping{Time: 5}) // the first viewer is not disturbed
		if got := receiveType[*channel.Pong](t, first.control); got.Time != 5 {
			t.Errorf("got pong %d, want 5", got.Time)
		}
	})
}

func TestHandshakeRefusals(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", r.web.Listener.Addr().String())
		},
		DisableKeepAlives: true,
	}}
	get := func(method, path string, header http.Header) int {
		req, err := http.NewRequestWithContext(t.Context(), method, "http://vpce.example:1401"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = header
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	upgrade := func(origin string) http.Header {
		return http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
			"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}, "Origin": {origin},
		}
	}
	for name, tt := range map[string]struct {
		method, path string
		header       http.Header
		want         int
	}{
		"plain request":   {"GET", "/v1/channel/control", http.Header{}, http.StatusUpgradeRequired},
		"other path":      {"GET", "/v1/channel/audio", http.Header{}, http.StatusNotFound},
		"POST":            {"POST", "/v1/channel/control", http.Header{}, http.StatusMethodNotAllowed},
		"foreign origin":  {"GET", "/v1/channel/control", upgrade("https://evil.example"), http.StatusForbidden},
		"null origin":     {"GET", "/v1/channel/control", upgrade("null"), http.StatusForbidden},
		"origin no URL":   {"GET", "/v1/channel/control", upgrade("::"), http.StatusForbidden},
		"page's own port": {"GET", "/v1/channel/display", upgrade("https://vpce.example"), http.StatusSwitchingProtocols},
	} {
		t.Run(name, func(t *testing.T) {
			if got := get(tt.method, tt.path, tt.header); got != tt.want {
				t.Errorf("got status %d, want %d", got, tt.want)
			}
		})
	}
}

func TestBadMessages(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	control := func(t *testing.T) *websocket.Conn {
		return r.joinControl(t, r.ticket(t, nil), channel.Hello{}).control
	}
	display := func(t *testing.T) *websocket.Conn { return r.join(t, channel.Hello{}).display }
	fresh := func(t *testing.T) *websocket.Conn { return r.dial(t, "control", r.ticket(t, nil)) }
	freshDisplay := func(t *testing.T) *websocket.Conn {
		v := r.joinControl(t, r.ticket(t, nil), channel.Hello{})
		return r.dial(t, "display", v.welcome.DisplayTicket)
	}
	tests := map[string]struct {
		open   func(*testing.T) *websocket.Conn
		kind   websocket.MessageType
		bytes  []byte
		want   media.CloseCode
		reason string
	}{
		"text":                     {control, websocket.MessageText, []byte("hello"), media.CloseBadMessage, "text message"},
		"empty":                    {control, websocket.MessageBinary, nil, media.CloseBadMessage, "type 0x00: empty message"},
		"unknown type":             {control, websocket.MessageBinary, []byte{0xee}, media.CloseBadMessage, "type 0xee: unknown message type"},
		"wrong direction":          {control, websocket.MessageBinary, (&channel.Ended{}).Append(nil), media.CloseBadMessage, "ended: not sent on this connection in this direction"},
		"other connection's":       {control, websocket.MessageBinary, (&channel.Ack{}).Append(nil), media.CloseBadMessage, "ack: not sent on this connection in this direction"},
		"short":                    {control, websocket.MessageBinary, []byte{byte(channel.TypePointer), 1}, media.CloseBadMessage, "pointer: too short"},
		"oversized":                {control, websocket.MessageBinary, append((&channel.Text{Text: "x"}).Append(nil), make([]byte, 70000)...), media.CloseBadMessage, "text: larger than the greatest message"},
		"far oversized":            {control, websocket.MessageBinary, make([]byte, 5<<20), media.CloseBadMessage, "type 0x00: larger than the greatest message"},
		"second hello":             {control, websocket.MessageBinary, (&channel.Hello{Version: 1}).Append(nil), media.CloseBadMessage, "a second first message"},
		"input before hello":       {fresh, websocket.MessageBinary, (&channel.Pointer{Seq: 1}).Append(nil), media.CloseBadMessage, "the first message is not hello"},
		"version 0":                {fresh, websocket.MessageBinary, (&channel.Hello{}).Append(nil), media.CloseVersion, "no common protocol version"},
		"ack of what was not sent": {display, websocket.MessageBinary, (&channel.Ack{Seq: 1000}).Append(nil), media.CloseBadMessage, "ack: this update was not sent"},
		"input on display":         {display, websocket.MessageBinary, (&channel.Pointer{Seq: 1}).Append(nil), media.CloseBadMessage, "pointer: not sent on this connection in this direction"},
		"unknown refresh":          {display, websocket.MessageBinary, []byte{byte(channel.TypeRefresh), 9}, media.CloseBadMessage, "refresh: unknown reason"},
		"ack before start":         {freshDisplay, websocket.MessageBinary, (&channel.Ack{}).Append(nil), media.CloseBadMessage, "the first message is not start"},
		"start of version 0":       {freshDisplay, websocket.MessageBinary, (&channel.Start{Codecs: 1}).Append(nil), media.CloseVersion, "no common protocol version"},
		"no codec":                 {freshDisplay, websocket.MessageBinary, (&channel.Start{Version: 1, Codecs: 8}).Append(nil), media.CloseVersion, "the viewer offers no codec that the agent has"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			ws := tt.open(t)
			if err := ws.Write(t.Context(), tt.kind, tt.bytes); err != nil {
				t.Fatal(err)
			}
			code, reason := closeOf(t, ws)
			if code != int(tt.want) || reason != tt.reason {
				t.Errorf("closed with %d %q, want %d %q", code, reason, tt.want, tt.reason)
			}
		})
	}
	t.Run("still serves", func(t *testing.T) {
		v := r.join(t, channel.Hello{Width: 300, Height: 200})
		v.until(t, "the picture", func(p *image.NRGBA) bool { return p.Rect.Dx() == 300 })
	})
}

// Random bytes, sent after a proper beginning or instead of it, end their own connection at most.
func TestRandomBytes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	rng := rand.New(rand.NewPCG(5, 6))
	for round := range 60 {
		ws := r.dial(t, "control", r.ticket(t, nil))
		if round%3 > 0 {
			send(t, ws, &channel.Hello{Version: 1})
			receiveType[*channel.Welcome](t, ws)
		}
		for range 1 + rng.IntN(20) {
			b := make([]byte, 1+rng.IntN(40))
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			if round%3 == 2 { // types that exist
				b[0] = []byte{1, 3, 4, 5, 10, 12, 16, 17, 18, 19, 20}[rng.IntN(11)]
			}
			if err := ws.Write(t.Context(), websocket.MessageBinary, b); err != nil {
				break // closed already
			}
		}
		_ = ws.CloseNow()
	}
	v := r.join(t, channel.Hello{Width: 400, Height: 300})
	v.until(t, "the picture", func(p *image.NRGBA) bool { return p.Rect.Dx() == 400 && p.Rect.Dy() == 300 })
}

func TestResumeAndReplace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first := r.join(t, channel.Hello{Width: 640, Height: 480})
	first.until(t, "the picture", func(*image.NRGBA) bool { return true })
	r.event(t, agent.Connected)

	second := r.join(t, channel.Hello{}) // the user opens the session in another tab
	wantClose(t, first.control, media.CloseReplaced)
	wantClose(t, first.display, media.CloseReplaced)
	second.until(t, "the picture", func(p *image.NRGBA) bool { return p.Rect.Dx() == 640 })
	wantClose(t, r.dial(t, "control", first.welcome.ResumeTicket), media.CloseReplaced)

	_ = second.control.CloseNow() // the network goes away
	r.event(t, agent.Disconnected)
	third := r.joinControl(t, second.welcome.ResumeTicket, channel.Hello{})
	r.event(t, agent.Connected)
	r.openDisplay(t, third, third.welcome.DisplayTicket)
	third.until(t, "the picture", func(p *image.NRGBA) bool { return p.Rect.Dx() == 640 })
	wantClose(t, r.dial(t, "control", second.welcome.ResumeTicket), media.CloseTicketUsed)

	// The display alone is lost; the viewer asks for another ticket.
	_ = third.display.CloseNow()
	wantClose(t, r.dial(t, "display", third.welcome.DisplayTicket), media.CloseTicketUsed)
	send(t, third.control, &channel.NeedDisplayTicket{})
	tickets := receiveType[*channel.Tickets](t, third.control)
	third.decoder.Close()
	fourth := &viewer{control: third.control, decoder: newDecoder(t)}
	r.openDisplay(t, fourth, tickets.DisplayTicket)
	fourth.until(t, "the picture", func(p *image.NRGBA) bool { return p.Rect.Dx() == 640 })

	// A second display of the same viewer takes the place of the first.
	send(t, third.control, &channel.NeedDisplayTicket{})
	fifth := &viewer{control: third.control, decoder: newDecoder(t)}
	r.openDisplay(t, fifth, receiveType[*channel.Tickets](t, third.control).DisplayTicket)
	fifth.until(t, "the picture", func(p *image.NRGBA) bool { return p.Rect.Dx() == 640 })
	wantClose(t, fourth.display, media.CloseReplaced)
}

func TestUserEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	v := r.join(t, channel.Hello{})
	v.until(t, "the picture", func(*image.NRGBA) bool { return true })
	send(t, v.control, &channel.End{})
	if got := receiveType[*channel.Ended](t, v.control); got.Code != channel.EndedByUser || got.Reason == "" {
		t.Errorf("got %+v", got)
	}
	wantClose(t, v.control, media.CloseEnded)
	wantClose(t, v.display, media.CloseEnded)
	if e := r.event(t, agent.Over); e.Code != appstream.EndByUser || e.Session != session {
		t.Errorf("got event %+v", e)
	}
	wantClose(t, r.dial(t, "control", v.welcome.ResumeTicket), media.CloseNoSession)
}

func TestAdministratorEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	v := r.join(t, channel.Hello{})
	r.agent.End(appstream.EndByAdministrator, "an administrator ended the session")
	if got := receiveType[*channel.Ended](t, v.control); got.Code != channel.EndedByAdmin {
		t.Errorf("got %+v", got)
	}
	wantClose(t, v.control, media.CloseEnded)
}

func TestSizes(t *testing.T) {
	t.Parallel()
	size := func(w, h int) func(*image.NRGBA) bool {
		return func(p *image.NRGBA) bool { return p.Rect.Dx() == w && p.Rect.Dy() == h }
	}
	t.Run("follows", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		v := r.join(t, channel.Hello{Width: 333, Height: 251})
		v.until(t, "the wished size", size(333, 251))
		if v.updates != 1 {
			t.Errorf("the wished size came with update %d, want the first", v.updates)
		}
		for i := range uint16(10) {
			send(t, v.control, &channel.Resize{Width: 400 + 20*i, Height: 300 + 10*i, Scale: 100})
		}
		v.until(t, "the last size", size(580, 390))
		send(t, v.control, &channel.Resize{Width: 1, Height: 1})
		v.until(t, "the least size", size(64, 64))
		send(t, v.control, &channel.Resize{Width: 9999, Height: 9999})
		v.until(t, "the greatest size", size(1920, 1200))
	})
	t.Run("fixed by the viewer", func(t *testing.T) {
		t.Parallel()
		r := newRig(t)
		v := r.join(t, channel.Hello{Width: 500, Height: 400, Flags: channel.HelloFixedSize})
		send(t, v.control, &channel.Resize{Width: 700, Height: 600})
		send(t, v.control, &channel.Ping{})
		receiveType[*channel.Pong](t, v.control)
		v.until(t, "the fixed size", size(500, 400))
	})
	t.Run("fixed by the session", func(t *testing.T) {
		t.Parallel()
		r := newRig(t, func(s *appstream.SessionSpec) { s.Width, s.Height = 801, 601 })
		v := r.join(t, channel.Hello{Width: 500, Height: 400})
		v.until(t, "the fixed size", size(801, 601))
	})
}

// After a program has filled the terminal many times over, the viewer's picture is the screen's to the last
// pixel, and stays so through a lost and refreshed picture.
func TestPictureIsExact(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	v := r.join(t, channel.Hello{Width: 800, Height: 600})
	filled := filepath.Join(r.home, "filled") // something is drawn after it was made
	r.start(t, "xterm", "-geometry", "100x35+10+10", "-e", "sh", "-c", "ls -lR --color=always /usr/share/doc /etc 2>/dev/null | head -n 20000; for i in 1 2 3 4 5 6 7 8 9; do sleep 0.05; ls --color=always /usr/bin | tail -n 90; done; touch "+filled+"; sleep 0.3; echo end; sleep 1000")
	r.same(t, v, filled)
	send(t, v.display, &channel.Refresh{Reason: channel.RefreshDecoder})
	before := v.updates
	v.update(t)
	if v.updates != before+1 {
		t.Error("refresh brought nothing")
	}
	r.same(t, v, "")
	t.Logf("%d updates, %d bytes", v.updates, v.bytes)
}

// same takes updates until a file is there, unless it has no name, and both pictures are equal.
func (r *rig) same(t testing.TB, v *viewer, file string) {
	t.Helper()
	other, err := r.server.OpenScreen()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	end := time.Now().Add(patience)
	for {
		_, err := os.Stat(file)
		if (err == nil || file == "") && v.decoder.Picture != nil {
			var region media.Region
			size := other.Size()
			region.Add(size.Bounds())
			views, err := other.Capture(&region, size)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(rgba(views[0].Pix), v.decoder.Picture) {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("after %d updates the viewer's picture differs from the screen", v.updates)
		}
		v.update(t)
	}
}

func rgba(pix []byte) []byte {
	out := make([]byte, len(pix))
	for i := 0; i < len(pix); i += 4 {
		out[i], out[i+1], out[i+2], out[i+3] = pix[i+2], pix[i+1], pix[i], 0xff
	}
	return out
}

// A viewer that acknowledges nothing gets three updates and no more, however much is drawn; then one that
// has all of it.
func TestViewerThatDoesNotAcknowledge(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	v := r.join(t, channel.Hello{Width: 800, Height: 600})
	r.start(t, "xterm", "-geometry", "100x35+10+10", "-e", "sh", "-c", "seq 1 100000; sleep 1000")
	// A cancelled read would break the connection, so one goroutine reads on.
	messages := make(chan []byte)
	go func() {
		defer close(messages)
		for range 4 {
			_, b, err := v.display.Read(t.Context())
			if err != nil {
				return
			}
			messages <- b
		}
	}()
	last := uint32(0)
	quiet := time.After(time.Second)
	for waiting := true; waiting; {
		select {
		case b := <-messages:
			u, err := v.decoder.Apply(b)
			if err != nil {
				t.Fatal(err)
			}
			last = u.Seq
		case <-quiet:
			waiting = false
		}
	}
	if last == 0 || last > 3 {
		t.Fatalf("%d updates came without an acknowledgement, want 1 to 3", last)
	}
	send(t, v.display, &channel.Ack{Seq: last})
	for b := range messages { // the rest of four
		u, err := v.decoder.Apply(b)
		if err != nil {
			t.Fatal(err)
		}
		send(t, v.display, &channel.Ack{Seq: u.Seq})
	}
	r.same(t, v, "")
}

func TestHiddenViewer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	v := r.join(t, channel.Hello{Width: 800, Height: 600})
	v.until(t, "the picture", func(*image.NRGBA) bool { return true })
	send(t, v.control, &channel.Visibility{Hidden: true})
	send(t, v.control, &channel.Ping{})
	receiveType[*channel.Pong](t, v.control) // the agent has seen it
	r.start(t, "xterm", "-geometry", "100x35+10+10", "-bg", "white")
	other, err := r.server.OpenScreen()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	end := time.Now().Add(patience)
	for { // until the terminal is on the screen
		var region media.Region
		region.Add(other.Size().Bounds())
		views, err := other.Capture(&region, other.Size())
		if err != nil {
			t.Fatal(err)
		}
		if views[0].Pix[(300*800+300)*4] == 0xff {
			break
		}
		if time.Now().After(end) {
			t.Fatal("waited too long for the terminal")
		}
		time.Sleep(10 * time.Millisecond)
	}
	send(t, v.control, &channel.Visibility{Hidden: false})
	before := v.updates
	r.same(t, v, "")
	if got := v.updates - before; got > 3 {
		t.Errorf("%d updates came after the page was seen again, want what changed in one or few", got)
	}
}

// A viewer that stops reading costs the agent no memory beyond what one update needs.
func TestViewerThatDoesNotRead(t *testing.T) {
	r := newRig(t)
	v := r.join(t, channel.Hello{Width: 1600, Height: 1000})
	v.until(t, "the picture", func(*image.NRGBA) bool { return true })
	r.start(t, "xterm", "-geometry", "200x70+0+0", "-e", "sh", "-c", "cat /dev/urandom | base64 -w 190")
	for range 20 {
		v.update(t)
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	end := time.Now().Add(2 * time.Second)
	for time.Now().Before(end) { // control still works; display is not read
		send(t, v.control, &channel.Ping{Time: 1})
		receiveType[*channel.Pong](t, v.control)
		time.Sleep(5 * time.Millisecond)
	}
	if after := heap(); after > before+8<<20 {
		t.Errorf("heap grew from %d to %d bytes", before, after)
	}
	for range 5 {
		v.update(t)
	}
}
