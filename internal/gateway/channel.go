package gateway

import (
	"context"
	"crypto/sha1" //nolint:gosec // the WebSocket handshake prescribes it
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"penstock.dev/penstock/internal/appstream"
)

// refusalCode is a WebSocket close code of docs/protocol.md.
type refusalCode uint16

const (
	codeRestart       refusalCode = 1012 // of RFC 6455's registry: Service Restart
	codeBadTicket     refusalCode = 4401
	codeWrongEndpoint refusalCode = 4403
	codeNoSession     refusalCode = 4404
	codeTicketExpired refusalCode = 4405
	codeWrongChannel  refusalCode = 4406
	codeInternal      refusalCode = 4500
	codeUnreachable   refusalCode = 4503

	firstRefusalCode = 4400
	refusalCodes     = 200
)

func (c refusalCode) name() string {
	switch c {
	case codeBadTicket:
		return "bad-ticket"
	case codeWrongEndpoint:
		return "wrong-endpoint"
	case codeNoSession:
		return "no-session"
	case codeTicketExpired:
		return "ticket-expired"
	case codeWrongChannel:
		return "wrong-channel"
	case codeUnreachable:
		return "agent-unreachable"
	case codeInternal:
		return "internal"
	case codeRestart:
		return "restart"
	default:
		return "refused"
	}
}

// refusal is why a viewer is not admitted.
type refusal struct {
	code   refusalCode
	reason string
}

func refuse(code refusalCode, reason string) *refusal { return &refusal{code, reason} }

const (
	subprotocol  = "penstock.1"
	ticketPrefix = "ticket."
	maxReason    = 120 // a close frame holds 123 bytes of reason
)

// channel admits one WebSocket and relays it to the session's agent.
func (g *Gateway) channel(w http.ResponseWriter, r *http.Request, v visit, channel appstream.Channel) {
	key, token, problem := handshake(r, func(origin string) bool { return g.sameEndpoint(v, origin) })
	if problem != "" {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Sec-WebSocket-Version", "13")
		writeError(w, http.StatusUpgradeRequired, "not-a-channel", problem)
		return
	}
	s, ref := g.check(r.Context(), token, v, channel)
	var upstream net.Conn
	if ref == nil {
		ctx, cancel := context.WithTimeout(r.Context(), dialTimeout)
		var err error
		upstream, err = g.Agents.Dial(ctx, s.Instance)
		cancel()
		if err != nil {
			g.Log.Warn("agent could not be reached", "session", s.ID, "instance", s.Instance, "error", err)
			ref = refuse(codeUnreachable, "the session's machine cannot be reached now")
		}
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		if upstream != nil {
			_ = upstream.Close()
		}
		g.Log.Error("taking over a connection failed", "error", err)
		return
	}
	var carried *relay
	if ref == nil {
		if carried = newRelay(conn, upstream); !g.relays.enter(carried) {
			_ = upstream.Close()
			ref = refuse(codeRestart, "the gateway restarts; the session goes on")
		}
	}
	if ref != nil {
		g.count(ref.code)
		g.Log.Info("viewer was refused", "endpoint", v.endpoint, "source", v.source, "channel", channel, "code", ref.code.name(), "reason", ref.reason)
		g.record("RedeemTicket", r, v, channel, s, ref, nil)
		closeRefused(conn, key, ref)
		return
	}
	g.record("RedeemTicket", r, v, channel, s, nil, nil)
	g.Log.Info("viewer was admitted", "endpoint", v.endpoint, "source", v.source, "channel", channel, "session", s.ID)
	early, _ := buffered.Peek(buffered.Reader.Buffered())
	early = slices.Clone(early)
	// A goroutine of its own, so that what the server needed for the request is free while the channel lives.
	go func() {
		defer g.relays.exit(carried)
		start := time.Now()
		up, down := carried.run(upgradeRequest(channel, token, key), early)
		g.Log.Info("viewer left", "endpoint", v.endpoint, "channel", channel, "session", s.ID, "bytesIn", up, "bytesOut", down, "lasted", time.Since(start).Round(time.Millisecond))
		g.record("CloseChannel", r, v, channel, s, nil, map[string]any{"bytesIn": up, "bytesOut": down, "seconds": int64(time.Since(start).Seconds())})
	}()
}

func (g *Gateway) count(c refusalCode) {
	if c >= firstRefusalCode && c < firstRefusalCode+refusalCodes {
		g.refusals[c-firstRefusalCode].Add(1)
	}
}

// Refused says how often viewers were refused with this close code.
func (g *Gateway) Refused(code uint16) uint64 {
	if code < firstRefusalCode || code >= firstRefusalCode+refusalCodes {
		return 0
	}
	return g.refusals[code-firstRefusalCode].Load()
}

// sameEndpoint says whether a page of another host is one of this endpoint: of another of its interfaces, or of its name.
func (g *Gateway) sameEndpoint(v visit, host string) bool {
	return v.conn != nil && (slices.Contains(v.hosts, host) || g.KnownHost != nil && g.KnownHost(v.conn, host))
}

// handshake reads the WebSocket key and the ticket of an upgrade request, or says what is wrong with it. related says whether a page of
// another host than the one that was asked may connect.
func handshake(r *http.Request, related func(host string) bool) (key, token, problem string) {
	switch {
	case r.Method != http.MethodGet:
		return "", "", "channels are opened with GET"
	case !tokenIn(r.Header, "Connection", "upgrade") || !tokenIn(r.Header, "Upgrade", "websocket"):
		return "", "", "this is a WebSocket; the request asks for no upgrade"
	case r.Header.Get("Sec-Websocket-Version") != "13":
		return "", "", "WebSocket version 13 is needed"
	}
	key = r.Header.Get("Sec-Websocket-Key")
	if b, err := base64.StdEncoding.DecodeString(key); err != nil || len(b) != 16 {
		return "", "", "Sec-WebSocket-Key is not 16 bytes in base64"
	}
	if o := r.Header.Get("Origin"); o != "" {
		u, err := url.Parse(o)
		want := hostOf(r.Host)
		if err != nil {
			return "", "", "Origin is not a URL"
		}
		if from := hostOf(u.Host); from != want && !related(from) {
			return "", "", "Origin is another host than this one"
		}
	}
	hasProtocol := false
	for _, h := range r.Header.Values("Sec-Websocket-Protocol") {
		for p := range strings.SplitSeq(h, ",") {
			p = strings.TrimSpace(p)
			hasProtocol = hasProtocol || p == subprotocol
			if t, ok := strings.CutPrefix(p, ticketPrefix); ok && token == "" {
				token = t
			}
		}
	}
	if !hasProtocol {
		return "", "", "subprotocol " + subprotocol + " is not offered"
	}
	return key, token, ""
}

func tokenIn(h http.Header, name, token string) bool {
	for _, v := range h.Values(name) {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// upgradeRequest is what the agent gets instead of the viewer's request: nothing but what was checked.
func upgradeRequest(channel appstream.Channel, token, key string) string {
	return "GET /v1/channel/" + string(channel) + " HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + "\r\n" +
		"Sec-WebSocket-Protocol: " + subprotocol + ", " + ticketPrefix + token + "\r\n\r\n"
}

// closeRefused completes the WebSocket handshake and closes with a code and a reason, because browsers hide refused handshakes.
func closeRefused(conn net.Conn, key string, ref *refusal) {
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(closeWait))
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // RFC 6455, section 1.3
	_, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: %s\r\n\r\n%s",
		base64.StdEncoding.EncodeToString(sum[:]), subprotocol, closeFrame(ref.code, ref.reason))
	if err != nil {
		return
	}
	halfClose(conn)
	_, _ = io.CopyN(io.Discard, conn, 4096) // the viewer's close frame and its end, or the deadline
}
