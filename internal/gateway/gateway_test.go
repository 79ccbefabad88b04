package gateway_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/gateway"
	"penstock.dev/penstock/internal/vpc"
)

const (
	endpoint = "vpce-00000000000000001"
	patience = 10 * time.Second
)

// site is a gateway with two ports (page and display), sessions and one agent that echoes.
type site struct {
	t            *testing.T
	gateway      *gateway.Gateway
	page, shared net.Listener // port 443, port 1400
	control      ed25519.PrivateKey
	agentKey     ed25519.PrivateKey
	conns        chan *vpc.Conn
	upgrades     atomic.Int32
	agentDown    atomic.Bool
	echoing      atomic.Int32 // messages that the agent got
	flooded      atomic.Int64 // bytes that the agent sent unasked
	scheme       string
	client       *http.Client
	stop         context.CancelFunc // ends the gateway
	ended        chan struct{}      // closed when Run has returned

	mu       sync.Mutex
	sessions map[appstream.SessionID]*appstream.Session
	socket   string
}

func (s *site) Session(_ context.Context, id appstream.SessionID) (*appstream.Session, bool, error) {
	if id == "broken" {
		return nil, false, errors.New("store is down")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	x, ok := s.sessions[id]
	return x, ok, nil
}

func (s *site) Dial(ctx context.Context, _ appstream.InstanceID) (net.Conn, error) {
	if s.agentDown.Load() {
		return nil, errors.New("no agent")
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", s.socket)
}

func (s *site) Accept(ctx context.Context) (*vpc.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func newSite(t *testing.T) *site {
	t.Helper()
	return newSiteWith(t, nil)
}

// newSecureSite is a site whose viewers speak TLS.
func newSecureSite(t *testing.T) *site {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	return newSiteWith(t, &tls.Config{Certificates: s.TLS.Certificates})
}

func newSiteWith(t *testing.T, encryption *tls.Config) *site {
	t.Helper()
	_, control, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	agentPub, agentKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, control: control, agentKey: agentKey, conns: make(chan *vpc.Conn), socket: filepath.Join(t.TempDir(), "a"), scheme: "ws", ended: make(chan struct{})}
	if encryption != nil {
		s.scheme = "wss"
		s.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	}
	s.sessions = map[appstream.SessionID]*appstream.Session{
		"live":  {ID: "live", Endpoint: endpoint, State: appstream.SessionActive, PublicKey: agentPub},
		"over":  {ID: "over", Endpoint: endpoint, State: appstream.SessionExpired},
		"other": {ID: "other", Endpoint: "vpce-00000000000000002", State: appstream.SessionActive},
	}
	ctx, cancel := context.WithCancel(t.Context())
	s.page, s.shared = s.listen(ctx, 443), s.listen(ctx, 1400)
	agent := s.runAgent()
	s.gateway = gateway.New(gateway.Options{
		Sessions: s, Agents: s, ControlKey: control.Public().(ed25519.PublicKey),
		Page:      http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the page") }),
		PortalURL: "http://portal", Region: "us-east-1",
		Explain: func(_ *vpc.Conn, port uint16) vpc.Verdict {
			return vpc.Verdict{Symptom: vpc.Timeout, Hops: []vpc.Hop{{Kind: vpc.HopSecurityGroup, Resource: "sg-1", Why: fmt.Sprint("no rule for ", port)}}}
		},
		KnownHost: func(_ *vpc.Conn, host string) bool { return host == "127.0.0.1" },
		Hosts:     func(vpc.EndpointID) []string { return []string{"127.0.0.1", "127.80.2.10", "fd00::2"} },
		TLS:       encryption,
		Log:       slog.New(slog.DiscardHandler),
	})
	s.stop = cancel
	go func() {
		defer close(s.ended)
		if err := s.gateway.Run(ctx, s); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		s.waitEnded(t)
		_ = agent.Close()
	})
	return s
}

func (s *site) waitEnded(t *testing.T) {
	t.Helper()
	select {
	case <-s.ended:
	case <-time.After(patience):
		t.Error("Run did not end")
	}
}

// mustOpen opens a control channel that works.
func (s *site) mustOpen(t *testing.T) *websocket.Conn {
	t.Helper()
	c, _, err := s.open(s.page, "control", s.ticket(nil), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	return c
}

// listen accepts on a free loopback port and hands the connections over as those of an endpoint's port.
func (s *site) listen(ctx context.Context, port uint16) net.Listener {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			vc := vpc.NewConn(c, nil)
			vc.Endpoint, vc.Port = endpoint, port
			vc.Source = netip.MustParseAddrPort("192.168.0.1:50000")
			select {
			case s.conns <- vc:
			case <-ctx.Done():
				_ = c.Close()
			}
		}
	}()
	s.t.Cleanup(func() { _ = l.Close() })
	return l
}

// runAgent serves WebSockets that echo.
func (s *site) runAgent() *http.Server {
	l, err := net.Listen("unix", s.socket)
	if err != nil {
		s.t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.upgrades.Add(1)
		if r.Header.Get("Cookie") != "" || r.Header.Get("Origin") != "" {
			s.t.Errorf("the viewer's headers reached the agent: %v", r.Header)
		}
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"penstock.1"}})
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		c.SetReadLimit(1 << 20)
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil {
				return
			}
			s.echoing.Add(1)
			switch string(b) {
			case "bye":
				_ = c.Close(4410, "ended")
				return
			case "flood":
				for err == nil {
					err = c.Write(r.Context(), kind, make([]byte, 1<<16))
					s.flooded.Add(1 << 16)
				}
				return
			}
			if err := c.Write(r.Context(), kind, b); err != nil {
				return
			}
		}
	})}
	go func() { _ = srv.Serve(l) }()
	return srv
}

func (s *site) ticket(change func(*appstream.Ticket)) string {
	s.t.Helper()
	return s.signed(nil, change)
}

// signed makes a ticket signed by key; nil: by the key that it names.
func (s *site) signed(key ed25519.PrivateKey, change func(*appstream.Ticket)) string {
	s.t.Helper()
	tk := appstream.Ticket{
		ID: "1", KeyID: appstream.KeyControl, Session: "live", Endpoint: endpoint, Channel: appstream.ChannelControl,
		Expires: time.Now().Add(time.Minute),
	}
	if change != nil {
		change(&tk)
	}
	switch {
	case key != nil:
	case tk.KeyID == appstream.KeySession:
		key = s.agentKey
	default:
		key = s.control
	}
	token, err := appstream.SignTicket(key, tk)
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

// open opens a channel as a viewer does.
func (s *site) open(l net.Listener, channel, token string, header http.Header) (*websocket.Conn, *http.Response, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	return websocket.Dial(ctx, s.scheme+"://"+l.Addr().String()+"/v1/channel/"+channel, &websocket.DialOptions{
		HTTPClient: s.client, Subprotocols: []string{"penstock.1", "ticket." + token}, HTTPHeader: header,
	})
}

func (s *site) read(c *websocket.Conn) ([]byte, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	_, b, err := c.Read(ctx)
	return b, err
}

func TestRelay(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, tc := range []struct {
		name    string
		l       net.Listener
		channel string
		change  func(*appstream.Ticket)
	}{
		{"control by the broker's ticket", s.page, "control", nil},
		{"display by the agent's ticket", s.shared, "display", func(tk *appstream.Ticket) {
			tk.KeyID, tk.Channel = appstream.KeySession, appstream.ChannelDisplay
		}},
	} {
		c, _, err := s.open(tc.l, tc.channel, s.ticket(tc.change), http.Header{"Origin": {"http://127.0.0.1:443"}, "Cookie": {"secret=1"}})
		if err != nil {
			t.Fatalf("%s: %v", tc.name, err)
		}
		c.SetReadLimit(1 << 20)
		for _, size := range []int{0, 1, 125, 126, 70000, 500000} {
			want := bytes.Repeat([]byte{byte(size)}, size)
			if err := c.Write(t.Context(), websocket.MessageBinary, want); err != nil {
				t.Fatalf("%s: %v", tc.name, err)
			}
			got, err := s.read(c)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s: %d bytes came back as %d (%v)", tc.name, size, len(got), err)
			}
		}
		if err := c.Write(t.Context(), websocket.MessageBinary, []byte("bye")); err != nil {
			t.Fatal(err)
		}
		if _, err := s.read(c); websocket.CloseStatus(err) != 4410 {
			t.Errorf("%s: the agent's goodbye arrived as %v, want close code 4410", tc.name, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, tc := range []struct {
		name   string
		token  string
		want   websocket.StatusCode
		before func()
	}{
		{"garbage", "x.y", 4401, nil},
		{"forged", s.ticket(func(tk *appstream.Ticket) { tk.KeyID = "other" }), 4401, nil},
		{"broker's name, agent's key", s.signed(s.agentKey, nil), 4401, nil},
		{"expired", s.ticket(func(tk *appstream.Ticket) { tk.Expires = time.Now().Add(-time.Second) }), 4405, nil},
		{"ticket for another endpoint", s.ticket(func(tk *appstream.Ticket) { tk.Endpoint = "vpce-00000000000000002" }), 4403, nil},
		{"session of another endpoint", s.ticket(func(tk *appstream.Ticket) { tk.Session = "other" }), 4403, nil},
		{"internet ticket", s.ticket(func(tk *appstream.Ticket) { tk.Endpoint = appstream.InternetEndpoint }), 4403, nil},
		{"ended session", s.ticket(func(tk *appstream.Ticket) { tk.Session = "over" }), 4404, nil},
		{"unknown session", s.ticket(func(tk *appstream.Ticket) { tk.Session = "none" }), 4404, nil},
		{"another channel", s.ticket(func(tk *appstream.Ticket) { tk.Channel = appstream.ChannelDisplay }), 4406, nil},
		{"store down", s.ticket(func(tk *appstream.Ticket) { tk.Session = "broken" }), 4500, nil},
		{"agent down", s.ticket(nil), 4503, func() { s.agentDown.Store(true) }},
	} {
		if tc.before != nil {
			tc.before()
		}
		c, _, err := s.open(s.page, "control", tc.token, nil)
		if err != nil {
			t.Errorf("%s: handshake: %v", tc.name, err)
			continue
		}
		_, err = s.read(c)
		if got := websocket.CloseStatus(err); got != tc.want {
			t.Errorf("%s: got close code %d (%v), want %d", tc.name, got, err, tc.want)
		}
		if n := s.gateway.Refused(uint16(tc.want)); n == 0 {
			t.Errorf("%s: the refusal was not counted", tc.name)
		}
	}
	if n := s.upgrades.Load(); n != 0 {
		t.Errorf("%d refused viewers reached the agent", n)
	}
}

func TestTicketOfASessionDoesNotOpenAnInterfaceEndpointsSessionOnTheInternet(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: s.gateway.Internet()}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	for name, token := range map[string]string{
		"its own ticket":     s.ticket(nil),
		"an internet ticket": s.ticket(func(tk *appstream.Ticket) { tk.Endpoint = appstream.InternetEndpoint }),
	} {
		c, _, err := s.open(l, "control", token, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.read(c); websocket.CloseStatus(err) != 4403 {
			t.Errorf("%s: got %v, want close code 4403", name, err)
		}
	}
}

// TestOtherZones: a page of another interface of the endpoint may connect here, and pages of here may connect there.
func TestOtherZones(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, origin := range []string{"http://127.80.2.10", "http://127.80.2.10:443", "http://[fd00::2]"} {
		c, _, err := s.open(s.page, "control", s.ticket(nil), http.Header{"Origin": {origin}})
		if err != nil {
			t.Errorf("page of %s: %v", origin, err)
			continue
		}
		_ = c.CloseNow()
	}
	resp, err := http.Get("http://" + s.page.Addr().String() + "/v1/config.json")
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || !strings.Contains(string(b), `"hosts":["127.0.0.1","127.80.2.10","[fd00::2]"]`) {
		t.Errorf("config: %s, %v", b, err)
	}
	csp := resp.Header.Get("Content-Security-Policy")
	if want := "connect-src 'self' ws://127.0.0.1:* ws://127.80.2.10:*"; !strings.HasSuffix(csp, want) {
		t.Errorf("content security policy %q, want it to end in %q", csp, want)
	}
}

func TestHandshakeErrors(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	base := func() *http.Request {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.page.Addr().String()+"/v1/channel/control", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range map[string]string{
			"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
			"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol": "penstock.1, ticket." + s.ticket(nil),
		} {
			r.Header.Set(k, v)
		}
		return r
	}
	for _, tc := range []struct {
		name   string
		change func(*http.Request)
		want   int
	}{
		{"no upgrade", func(r *http.Request) { r.Header.Del("Upgrade") }, 426},
		{"old version", func(r *http.Request) { r.Header.Set("Sec-WebSocket-Version", "8") }, 426},
		{"short key", func(r *http.Request) { r.Header.Set("Sec-WebSocket-Key", "AAAA") }, 426},
		{"another site", func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") }, 426},
		{"another endpoint's interface", func(r *http.Request) { r.Header.Set("Origin", "http://127.80.3.10:443") }, 426},
		{"no subprotocol", func(r *http.Request) { r.Header.Set("Sec-WebSocket-Protocol", "chat") }, 426},
		{"rebound name", func(r *http.Request) { r.Host = "evil.example" }, 421},
		{"unknown channel on the page's port", func(r *http.Request) { r.URL.Path = "/v1/channel/usb" }, 404},
		{"page on the display port", func(r *http.Request) { r.URL.Host, r.URL.Path = s.shared.Addr().String(), "/" }, 404},
		{"control on the display port", func(r *http.Request) { r.URL.Host = s.shared.Addr().String() }, 404},
		{"post", func(r *http.Request) { r.URL.Path, r.Method = "/", http.MethodPost }, 405},
	} {
		r := base()
		tc.change(r)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode != tc.want {
			t.Errorf("%s: got status %d, want %d", tc.name, resp.StatusCode, tc.want)
		}
		if cc := resp.Header.Get("Cache-Control"); tc.want != 421 && cc != "no-store" {
			t.Errorf("%s: Cache-Control is %q, want no-store", tc.name, cc)
		}
	}
}

func TestRandomBytesAndStalledViewers(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for i := range 50 {
		for _, l := range []net.Listener{s.page, s.shared} {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			junk := make([]byte, 1+i*400)
			_, _ = rand.Read(junk)
			_, _ = c.Write(junk)
			_ = c.Close()
		}
	}
	// A viewer that stops in the middle of a request keeps nobody else out.
	stalled, err := net.Dial("tcp", s.page.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stalled.Close() }()
	_, _ = io.WriteString(stalled, "GET / HTTP/1.1\r\nHost: 127")
	resp, err := http.Get("http://" + s.page.Addr().String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if b, _ := io.ReadAll(resp.Body); string(b) != "the page" {
		t.Errorf("page: got %q", b)
	}
	if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "connect-src 'self' ws://127.0.0.1:*") {
		t.Errorf("Content-Security-Policy: got %q", csp)
	}
}

func TestReachabilityNamesTheRule(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ask := func(token string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.page.Addr().String()+"/v1/reachability?port=1444", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		var out struct {
			Hops []struct{ Why string }
		}
		_ = json.NewDecoder(resp.Body).Decode(&out)
		if len(out.Hops) == 0 {
			return resp.StatusCode, ""
		}
		return resp.StatusCode, out.Hops[0].Why
	}
	if status, why := ask(s.ticket(nil)); status != 200 || why != "no rule for 1444" {
		t.Errorf("with a ticket: got %d, %q", status, why)
	}
	if status, why := ask("no.ticket"); status != 403 || why != "" {
		t.Errorf("without a ticket: got %d, %q", status, why)
	}
}
