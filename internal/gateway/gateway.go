// Package gateway admits viewers at endpoints and joins them to the agents of their sessions.
//
// A connection reaches it only when the endpoint's address rules admitted it. The gateway serves the viewer's page on port 443,
// checks the ticket of each channel (signature, expiry, endpoint, channel, live session), dials the session's agent and from then on
// relays bytes; it parses no message. Single use of tickets is enforced by the agent. A Gateway owns the viewers' connections
// that it accepted; each lives no longer than Run.
package gateway

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/audit"
	"penstock.dev/penstock/internal/vpc"
)

// Options is what a Gateway is built from.
type Options struct {
	Sessions   sessions
	Agents     agents
	ControlKey ed25519.PublicKey
	Page       http.Handler // the viewer's page and assets
	PortalURL  string       // where the viewer leads back to
	Region     string
	// Explain answers whether another connection from the same source would be admitted.
	Explain func(c *vpc.Conn, port uint16) vpc.Verdict
	// KnownHost refuses Host headers that are not the endpoint's (DNS rebinding); host is without port.
	KnownHost func(c *vpc.Conn, host string) bool
	// Hosts are the addresses of an endpoint's network interfaces, in all its zones, as viewers dial them; may be nil.
	Hosts func(id vpc.EndpointID) []string
	TLS   *tls.Config    // of viewers' connections; nil: they are plain
	Audit audit.Recorder // of tickets and viewers; nil keeps no record
	Log   *slog.Logger
	Now   func() time.Time
}

// sessions is where the gateway learns of sessions.
type sessions interface {
	Session(ctx context.Context, id appstream.SessionID) (*appstream.Session, bool, error)
}

// agents opens connections to the agents of instances.
type agents interface {
	Dial(ctx context.Context, id appstream.InstanceID) (net.Conn, error)
}

// door is where admitted connections come from.
type door interface {
	Accept(ctx context.Context) (*vpc.Conn, error)
}

// Gateway serves viewers.
type Gateway struct {
	Options

	relays   relays
	refusals [refusalCodes]atomic.Uint64
}

// New only builds.
func New(o Options) *Gateway {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Audit = audit.Or(o.Audit)
	return &Gateway{Options: o}
}

const (
	pagePort      = 443
	headerTimeout = 10 * time.Second
	idleTimeout   = 75 * time.Second
	maxHeader     = 16 << 10
	dialTimeout   = 5 * time.Second
)

type connKey struct{}

// Run serves the connections that d admits until ctx ends, then ends them all: within 3 s, and so that viewers know whether to come
// back. It is called once.
func (g *Gateway) Run(ctx context.Context, d door) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx)) // requests in progress end after ctx
	defer stopServing()
	srv := &http.Server{
		Handler:           http.HandlerFunc(g.serve),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(g.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return serving },
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
	err := srv.Serve(listener{ctx, d, g.TLS})
	var ending sync.WaitGroup
	ending.Go(g.relays.drain)
	ending.Go(func() {
		soon, cancel := context.WithTimeout(serving, drainStep)
		defer cancel()
		if srv.Shutdown(soon) != nil {
			_ = srv.Close()
		}
	})
	ending.Wait()
	if errors.Is(err, http.ErrServerClosed) || ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("serve viewers: %w", err)
}

// listener makes a net.Listener of a door.
type listener struct {
	ctx context.Context //nolint:containedctx // net.Listener's Accept takes none
	d   door
	tls *tls.Config
}

// Accept returns without a handshake: that is for the goroutine of the connection, with the server's time limit.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.d.Accept(l.ctx)
	if err != nil || l.tls == nil {
		return c, err
	}
	return Secure(c, l.tls), nil
}

func (l listener) Close() error   { return nil }
func (l listener) Addr() net.Addr { return &net.TCPAddr{} }

// visit is one request of a viewer at an endpoint.
type visit struct {
	endpoint appstream.EndpointID
	source   string
	conn     *vpc.Conn // nil at the internet endpoint
	hosts    []string  // of the endpoint's interfaces, as they stand in URLs
}

func (g *Gateway) serve(w http.ResponseWriter, r *http.Request) {
	conn, _ := r.Context().Value(connKey{}).(net.Conn)
	wire, _ := under(conn)
	c, ok := wire.(*vpc.Conn)
	if !ok {
		http.Error(w, "no endpoint", http.StatusInternalServerError)
		return
	}
	host := hostOf(r.Host)
	if g.KnownHost != nil && !g.KnownHost(c, host) {
		writeError(w, http.StatusMisdirectedRequest, "wrong-host", "this address serves no host of that name")
		return
	}
	v := visit{endpoint: appstream.EndpointID(c.Endpoint), source: c.Source.String(), conn: c}
	v.hosts = g.hosts(c.Endpoint)
	setHeaders(w.Header(), r, v.hosts)
	name, isChannel := strings.CutPrefix(r.URL.Path, "/v1/channel/")
	onPagePort := c.Port == pagePort
	switch {
	case isChannel && onPagePort && name == string(appstream.ChannelControl),
		isChannel && !onPagePort && name == string(appstream.ChannelDisplay):
		g.channel(w, r, v, appstream.Channel(name))
	case isChannel:
		writeError(w, http.StatusNotFound, "not-here", "this port carries no channel of that name")
	case !onPagePort:
		writeError(w, http.StatusNotFound, "not-here", "this port carries channels only; the page is on port 443")
	case r.URL.Path == "/v1/config.json":
		g.config(w, v)
	case r.URL.Path == "/v1/reachability":
		g.reachability(w, r, v)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		writeError(w, http.StatusMethodNotAllowed, "method", "only GET is served here")
	default:
		g.Page.ServeHTTP(w, r)
	}
}

// Internet serves sessions of stacks without an interface endpoint on the public plane: /stream/ and /v1/ paths.
func (g *Gateway) Internet() http.Handler {
	v := func(r *http.Request) visit { return visit{endpoint: appstream.InternetEndpoint, source: r.RemoteAddr} }
	mux := http.NewServeMux()
	mux.Handle("GET /stream/", http.StripPrefix("/stream", g.Page))
	mux.HandleFunc("GET /v1/config.json", func(w http.ResponseWriter, r *http.Request) { g.config(w, v(r)) })
	mux.HandleFunc("GET /v1/channel/{channel}", func(w http.ResponseWriter, r *http.Request) {
		g.channel(w, r, v(r), appstream.Channel(r.PathValue("channel")))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		setHeaders(w.Header(), r, nil)
		mux.ServeHTTP(w, r)
	})
}

// hosts are the addresses of an endpoint, as they stand in URLs.
func (g *Gateway) hosts(id vpc.EndpointID) []string {
	if g.Hosts == nil {
		return nil
	}
	var out []string
	for _, h := range g.Hosts(id) {
		out = append(out, hostOf(net.JoinHostPort(h, "0")))
	}
	return out
}

// setHeaders sets what every answer of the private plane carries: nothing is cached, nothing else may be loaded or framed. Pages connect
// to where they came from and to the endpoint's other hosts, should this one be lost.
func setHeaders(h http.Header, r *http.Request, hosts []string) {
	host := hostOf(r.Host)
	ws := "ws"
	if r.TLS != nil {
		ws = "wss"
	}
	allowed := " " + ws + "://" + host + ":*"
	if isLiteral6(host) { // a policy cannot name such a host (Chromium drops "wss://[fd00::1]:*"), only all that speak the scheme
		allowed = " " + ws + ":"
	}
	for _, o := range hosts {
		if o != host && !isLiteral6(o) {
			allowed += " " + ws + "://" + o + ":*"
		}
	}
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "+
		"img-src 'self' data:; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "+
		"connect-src 'self'"+allowed)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
}

// isLiteral6 says whether a host of a URL is an IPv6 address.
func isLiteral6(host string) bool { return strings.HasPrefix(host, "[") }

// hostOf returns the host of a Host header without its port; what is not a plausible host becomes "invalid".
func hostOf(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
	}
	for _, c := range host {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '.' && c != '-' && c != ':' {
			return "invalid"
		}
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
		host = "[" + host + "]"
	}
	return host
}

func (g *Gateway) config(w http.ResponseWriter, v visit) {
	writeJSON(w, http.StatusOK, map[string]any{
		"portalUrl": g.PortalURL, "endpointId": string(v.endpoint), "region": g.Region, "hosts": append([]string{}, v.hosts...),
	})
}

// reachability tells a viewer with a valid ticket which rule would keep it from a port of its endpoint.
func (g *Gateway) reachability(w http.ResponseWriter, r *http.Request, v visit) {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if _, ref := g.check(r.Context(), token, v, ""); ref != nil {
		writeError(w, http.StatusForbidden, ref.code.name(), ref.reason)
		return
	}
	port, err := strconv.ParseUint(r.URL.Query().Get("port"), 10, 16)
	if err != nil {
		writeError(w, http.StatusBadRequest, "bad-port", "port must be a number from 0 to 65535")
		return
	}
	type hop struct {
		Direction string `json:"direction"`
		Kind      string `json:"kind"`
		Resource  string `json:"resource"`
		Rule      string `json:"rule"`
		Allow     bool   `json:"allow"`
		Why       string `json:"why"`
		Fix       string `json:"fix,omitempty"`
	}
	verdict := g.Explain(v.conn, uint16(port))
	hops := make([]hop, 0, len(verdict.Hops))
	for _, h := range verdict.Hops {
		hops = append(hops, hop{string(h.Dir), string(h.Kind), h.Resource, h.Rule, h.Allow, h.Why, h.Fix})
	}
	writeJSON(w, http.StatusOK, map[string]any{"ok": verdict.OK, "symptom": verdict.Symptom, "hops": hops})
}

// check verifies a ticket for this endpoint; channel "" accepts a ticket of any channel.
func (g *Gateway) check(ctx context.Context, token string, v visit, channel appstream.Channel) (*appstream.Session, *refusal) {
	var found *appstream.Session
	var lookup error
	t, err := appstream.VerifyTicket(token, func(keyID string, id appstream.SessionID) ed25519.PublicKey {
		var ok bool
		found, ok, lookup = g.Sessions.Session(ctx, id)
		switch {
		case lookup != nil || !ok:
			found = nil
			return g.ControlKey // only to tell an unknown session from a forged ticket
		case keyID == appstream.KeySession:
			return found.PublicKey
		case keyID == appstream.KeyControl:
			return g.ControlKey
		default:
			return nil
		}
	}, g.Now())
	switch {
	case lookup != nil:
		return nil, refuse(codeInternal, "the session cannot be looked up now")
	case errors.Is(err, appstream.ErrTicketExpired):
		return nil, refuse(codeTicketExpired, "the ticket expired; open the application again from the portal")
	case err != nil:
		return nil, refuse(codeBadTicket, err.Error())
	case found == nil:
		return nil, refuse(codeNoSession, "the session does not exist or has ended")
	case t.Endpoint != v.endpoint || found.Endpoint != v.endpoint:
		return nil, refuse(codeWrongEndpoint, "the session streams from another endpoint")
	case channel != "" && t.Channel != channel:
		return nil, refuse(codeWrongChannel, "the ticket is for another channel")
	case !found.Live():
		return nil, refuse(codeNoSession, "the session has ended")
	default:
		return found, nil
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func writeError(w http.ResponseWriter, status int, code, reason string) {
	writeJSON(w, status, map[string]string{"code": code, "reason": reason})
}
