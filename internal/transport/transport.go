// Package transport carries the channels of a session over WebSocket. It is the agent's side: it completes the
// handshake, turns messages into values and back, and closes with the code and reason that the agent gives.
package transport

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/coder/websocket"

	"penstock.dev/penstock/internal/agent"
	"penstock.dev/penstock/internal/media"
	"penstock.dev/penstock/internal/wire/channel"
)

const (
	maxReason   = 123 // bytes in a WebSocket close frame
	handlerPath = "/v1/channel/"
)

// Handler serves /v1/channel/control and /v1/channel/display for one agent. Which viewers come here is the
// gateway's decision; tickets are the agent's.
type Handler struct {
	agent *agent.Agent
	log   *slog.Logger
	mux   http.ServeMux
}

// NewHandler makes the handler of one agent's viewers.
func NewHandler(a *agent.Agent, log *slog.Logger) *Handler {
	h := &Handler{agent: a, log: log}
	h.mux.HandleFunc("GET "+handlerPath+"control", func(w http.ResponseWriter, r *http.Request) {
		h.serve(w, r, channel.Control, func(ctx context.Context, ticket string, c *conn) *media.Close {
			return h.agent.ServeControl(ctx, ticket, &controlConn{conn: c})
		})
	})
	h.mux.HandleFunc("GET "+handlerPath+"display", func(w http.ResponseWriter, r *http.Request) {
		h.serve(w, r, channel.Display, func(ctx context.Context, ticket string, c *conn) *media.Close {
			return h.agent.ServeDisplay(ctx, ticket, &displayConn{conn: c})
		})
	})
	return h
}

// ServeHTTP serves one connection until it ends.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

// serve completes the handshake and runs the connection. A refusal is a close code, because browsers hide
// the body of a refused handshake.
func (h *Handler) serve(
	w http.ResponseWriter, r *http.Request, kind channel.Connection,
	run func(context.Context, string, *conn) *media.Close,
) {
	if !sameHost(r) {
		http.Error(w, `{"code":"forbidden","reason":"Origin is another host than this one"}`, http.StatusForbidden)
		return
	}
	ticket, offered := subprotocols(r)
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:       []string{channel.Subprotocol},
		InsecureSkipVerify: true, // sameHost has looked: pages and channels differ in their port
		CompressionMode:    websocket.CompressionDisabled,
	})
	if err != nil {
		h.log.Debug("handshake failed", "error", err)
		return
	}
	c := newConn(ws, kind)
	defer c.end()
	if !offered {
		c.close(&media.Close{Code: media.CloseVersion, Reason: "no common protocol version"})
		return
	}
	// The request's context would end with the hijacked connection's server, not with the connection.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	c.start()
	if why := run(ctx, ticket, c); why != nil {
		h.log.Debug("connection closed", "code", int(why.Code), "reason", why.Reason)
		c.close(why)
	}
}

// sameHost reports whether the page that opened the connection, if one did, came from the host that the
// connection goes to, on any port.
func sameHost(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	if err != nil {
		return false
	}
	host := (&url.URL{Host: r.Host}).Hostname()
	return host != "" && strings.EqualFold(u.Hostname(), host)
}

// subprotocols finds the ticket among the offered subprotocols, and whether ours is offered.
func subprotocols(r *http.Request) (ticket string, offered bool) {
	for _, line := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(line, ",") {
			p = strings.TrimSpace(p)
			if t, ok := strings.CutPrefix(p, channel.TicketPrefix); ok {
				ticket = t
			}
			offered = offered || p == channel.Subprotocol
		}
	}
	return ticket, offered
}

// conn is one WebSocket with a goroutine that reads it.
type conn struct {
	ws       *websocket.Conn
	kind     channel.Connection
	incoming chan incoming
	stop     chan struct{} // closed when nobody takes messages any more
	stopOnce sync.Once
	reader   sync.WaitGroup
	buf      []byte
}

type incoming struct {
	m   media.FromViewer
	err error
}

func newConn(ws *websocket.Conn, kind channel.Connection) *conn {
	ws.SetReadLimit(-1) // read bounds it itself, to say which message was too large
	return &conn{ws: ws, kind: kind, incoming: make(chan incoming), stop: make(chan struct{})}
}

// start begins to read.
func (c *conn) start() {
	c.reader.Go(func() {
		for {
			m, err := c.read()
			select {
			case c.incoming <- incoming{m, err}:
			case <-c.stop:
				return
			}
			if err != nil {
				return
			}
		}
	})
}

// read reads one message.
func (c *conn) read() (media.FromViewer, error) {
	// Not the connection's context: when that ends, a cut-off read would break the connection before its
	// close code is sent.
	kind, r, err := c.ws.Reader(context.Background())
	if err != nil {
		return nil, err
	}
	if kind != websocket.MessageBinary {
		return nil, &media.Close{Code: media.CloseBadMessage, Reason: "text message"}
	}
	b, err := io.ReadAll(io.LimitReader(r, channel.MaxFromViewer+1))
	if err != nil {
		return nil, err
	}
	m, err := channel.Parse(c.kind, channel.FromViewer, b)
	if err != nil {
		return nil, &media.Close{Code: media.CloseBadMessage, Reason: err.Error()}
	}
	return fromWire(m), nil
}

// Receive waits for the next message.
func (c *conn) Receive(ctx context.Context) (media.FromViewer, error) {
	select {
	case in := <-c.incoming:
		return in.m, in.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// close tells the viewer why and ends the connection.
func (c *conn) close(why *media.Close) {
	reason := why.Reason
	if len(reason) > maxReason {
		n := maxReason
		for n > 0 && !utf8.RuneStart(reason[n]) {
			n--
		}
		reason = reason[:n]
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.ws.Close(websocket.StatusCode(why.Code), reason) // waits 5 s for each step
	}()
	for {
		select {
		case <-done:
			return
		case <-c.incoming: // what still comes until the viewer's own close frame
		}
	}
}

// end frees what the connection holds.
func (c *conn) end() {
	c.stopOnce.Do(func() { close(c.stop) })
	_ = c.ws.CloseNow()
	c.reader.Wait()
}

func (c *conn) write(ctx context.Context, b []byte) error {
	return c.ws.Write(ctx, websocket.MessageBinary, b)
}

// controlConn is an agent.ControlConn.
type controlConn struct{ *conn }

// Send sends one message.
func (c *controlConn) Send(ctx context.Context, m media.ToViewer) error {
	w := toWire(m)
	if w == nil {
		return errors.New("message has no wire form")
	}
	c.buf = w.Append(c.buf[:0])
	return c.write(ctx, c.buf)
}

// displayConn is an agent.DisplayConn.
type displayConn struct{ *conn }

// SendUpdate sends one packet.
func (c *displayConn) SendUpdate(ctx context.Context, seq uint32, p *media.Packet) error {
	h := channel.UpdateHeader{
		Seq: seq, Epoch: p.Epoch, CaptureMicros: p.CaptureMicros,
		Width: uint16(p.Size.Width), Height: uint16(p.Size.Height),
	}
	if p.NewEpoch {
		h.Flags |= channel.UpdateNewEpoch
	}
	if p.Lossless {
		h.Flags |= channel.UpdateLossless
	}
	c.buf = channel.AppendUpdateHeader(c.buf[:0], &h, uint8(len(p.Sections)))
	for i := range p.Sections {
		s := &p.Sections[i]
		if s.Kind == media.SectionTiles || s.Kind == media.SectionText {
			c.buf = channel.AppendStream(c.buf, channel.SectionKind(s.Kind), s.RawLength, s.Body)
		} else {
			c.buf = channel.AppendSection(c.buf, channel.SectionKind(s.Kind), s.Body)
		}
	}
	if len(c.buf) > channel.MaxFromAgent {
		return errors.New("update is larger than the greatest message")
	}
	return c.write(ctx, c.buf)
}
