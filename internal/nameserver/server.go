// Package nameserver answers for the names of endpoints: each VPC sees its own, chosen by where a question comes from, and
// addresses that are down are left out. Other names are asked of upstream servers, or refused.
package nameserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Options is what a Server is built from.
type Options struct {
	// Names are asked for with each question; they change as endpoints do.
	Names func() *Names
	// Text, which may be nil, has the TXT records of names that are zones of their own and the same for every source: answers to
	// challenges of certificate authorities. false: the name is none. The name is in lower case, without a dot at the end.
	Text func(name string) ([]string, bool)
	// Upstreams are asked, in their order, for names that are not ours, on behalf of sources that have a view. None: refused.
	Upstreams []netip.AddrPort
	Log       *slog.Logger
}

// Server answers questions. All methods may be called concurrently.
type Server struct {
	Options
	forwards forwards
	serial   atomic.Uint32 // of the zones, from the clock
	stats    struct{ answered, forwarded, refused, failed atomic.Uint64 }
}

// Stats counts answers.
type Stats struct {
	Answered  uint64 // of our own zones
	Forwarded uint64 // from upstream
	Refused   uint64
	Failed    uint64 // upstream did not answer, or too many questions waited for it
}

const (
	ttl         = 10   // seconds; also of the answer that something does not exist
	maxUDP      = 1232 // what crosses every network unfragmented (DNS flag day 2020)
	idleTimeout = 10 * time.Second
	maxConns    = 256 // TCP connections at a time
)

// New only builds.
func New(o Options) *Server {
	s := &Server{Options: o}
	s.forwards.room = make(chan struct{}, maxForwards)
	s.forwards.running = map[question]*forward{}
	s.serial.Store(uint32(time.Now().Unix()))
	return s
}

// Stats counts since the server was made.
func (s *Server) Stats() Stats {
	return Stats{s.stats.answered.Load(), s.stats.forwarded.Load(), s.stats.refused.Load(), s.stats.failed.Load()}
}

// Sockets are the two ways to ask, at one address and port.
type Sockets struct {
	UDP net.PacketConn
	TCP net.Listener
}

// Listen binds both; port 0 finds one that is free for both.
func Listen(ctx context.Context, addr netip.AddrPort) (*Sockets, error) {
	var lc net.ListenConfig
	return ListenBy(addr,
		func(network, address string) (net.Listener, error) { return lc.Listen(ctx, network, address) },
		func(network, address string) (net.PacketConn, error) { return lc.ListenPacket(ctx, network, address) })
}

// ListenBy is Listen by others' means.
func ListenBy(addr netip.AddrPort, listen func(network, address string) (net.Listener, error), packets func(network, address string) (net.PacketConn, error)) (*Sockets, error) {
	var last error
	for range 16 {
		l, err := listen("tcp", addr.String())
		if err != nil {
			return nil, err
		}
		p, err := packets("udp", l.Addr().String())
		if err == nil {
			return &Sockets{UDP: p, TCP: l}, nil
		}
		last = errors.Join(err, l.Close())
		if addr.Port() != 0 {
			break
		}
	}
	return nil, last
}

// Addr is where the sockets are.
func (s *Sockets) Addr() string { return s.TCP.Addr().String() }

// Close closes both.
func (s *Sockets) Close() error { return errors.Join(s.UDP.Close(), s.TCP.Close()) }

// Run answers what comes to the sockets until ctx ends, and closes them.
func (s *Server) Run(ctx context.Context, on *Sockets) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) { s.serve(ctx, w, m) })
	servers := []*dns.Server{
		{PacketConn: on.UDP, UDPSize: dns.MaxMsgSize},
		{Listener: &limited{Listener: on.TCP, room: make(chan struct{}, maxConns)}, IdleTimeout: func() time.Duration { return idleTimeout }, MaxTCPQueries: 128},
	}
	errs := make([]error, len(servers))
	var wg sync.WaitGroup
	for i, srv := range servers {
		srv.Handler, srv.ReadTimeout, srv.WriteTimeout = handler, idleTimeout, idleTimeout
		srv.MsgInvalidFunc = func([]byte, error) {} // rubbish is answered with FORMERR where it has a header, and not logged
		started := make(chan struct{})
		srv.NotifyStartedFunc = func() { close(started) }
		served := make(chan struct{})
		wg.Go(func() {
			defer cancel()
			defer close(served)
			errs[i] = srv.ActivateAndServe()
		})
		wg.Go(func() {
			<-ctx.Done()
			select {
			case <-started: // Shutdown before that does nothing
			case <-served:
				return
			}
			done, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer stop()
			_ = srv.ShutdownContext(done)
		})
	}
	wg.Wait()
	_ = on.Close()
	if err := errors.Join(errs...); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serve names: %w", err)
	}
	return nil
}

// limited closes connections beyond a number.
type limited struct {
	net.Listener
	room chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.room <- struct{}{}:
			return &counted{Conn: c, release: sync.OnceFunc(func() { <-l.room })}, nil
		default:
			_ = c.Close()
		}
	}
}

type counted struct {
	net.Conn
	release func()
}

func (c *counted) Close() error {
	defer c.release()
	return c.Conn.Close()
}

func (s *Server) serve(ctx context.Context, w dns.ResponseWriter, m *dns.Msg) {
	overTCP := false
	var src netip.Addr
	switch a := w.RemoteAddr().(type) {
	case *net.UDPAddr:
		src = a.AddrPort().Addr()
	case *net.TCPAddr:
		src, overTCP = a.AddrPort().Addr(), true
	}
	if r := s.Answer(ctx, m, src, overTCP); r != nil {
		if err := w.WriteMsg(r); err != nil {
			s.Log.Debug("answer was not sent", "source", src, "error", err)
		}
	}
}

// Answer is the answer to a message from a source, ready to be packed; nil when it gets none.
func (s *Server) Answer(ctx context.Context, m *dns.Msg, src netip.Addr, overTCP bool) *dns.Msg {
	if m.Response {
		return nil // an answer to an answer would make two servers talk for ever
	}
	r := new(dns.Msg)
	r.SetReply(m)
	r.Compress = true
	size := dns.MinMsgSize
	opt := m.IsEdns0()
	if opt != nil {
		size = min(max(size, int(opt.UDPSize())), maxUDP)
		r.SetEdns0(maxUDP, false)
	}
	if overTCP {
		size = dns.MaxMsgSize
	}
	switch q := m.Question; {
	case m.Opcode != dns.OpcodeQuery:
		r.Rcode = dns.RcodeNotImplemented
	case len(q) != 1:
		r.Rcode = dns.RcodeFormatError
	case opt != nil && opt.Version() != 0:
		r.IsEdns0().SetExtendedRcode(dns.RcodeBadVers)
		r.Rcode = dns.RcodeBadVers
	case q[0].Qclass != dns.ClassINET, slices.Contains([]uint16{dns.TypeAXFR, dns.TypeIXFR, dns.TypeOPT, dns.TypeTSIG}, q[0].Qtype):
		r.Rcode = dns.RcodeRefused
	default:
		s.resolve(ctx, m, r, src, overTCP)
	}
	if r.Rcode == dns.RcodeRefused {
		s.stats.refused.Add(1)
	}
	r.Truncate(size)
	return r
}

// resolve fills r in.
func (s *Server) resolve(ctx context.Context, m, r *dns.Msg, src netip.Addr, overTCP bool) {
	q := m.Question[0]
	name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
	names := s.Names()
	view := names.viewOf(src)
	apex := names.apexOf(view, name)
	if text, ours := s.text(name); ours {
		s.stats.answered.Add(1)
		s.fromText(r, q, name, text)
		return
	}
	switch {
	case apex != "":
		s.stats.answered.Add(1)
		s.fromZone(r, q, apex, name, view)
	case view == nil || len(s.Upstreams) == 0 || !m.RecursionDesired:
		r.Rcode = dns.RcodeRefused
	default:
		s.fromUpstream(ctx, m, r, overTCP)
	}
}

func (s *Server) text(name string) ([]string, bool) {
	if s.Text == nil {
		return nil, false
	}
	return s.Text(name)
}

// fromText answers with the records of a zone that has nothing but text at its apex.
func (s *Server) fromText(r *dns.Msg, q dns.Question, name string, text []string) {
	r.Authoritative = true
	r.RecursionAvailable = false
	head := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: ttl}
	switch q.Qtype {
	case dns.TypeTXT:
		for _, t := range text {
			r.Answer = append(r.Answer, &dns.TXT{Hdr: head, Txt: []string{t}})
		}
	case dns.TypeSOA:
		r.Answer = append(r.Answer, s.soa(name))
	case dns.TypeNS:
		r.Answer = append(r.Answer, &dns.NS{Hdr: head, Ns: nameServer(name)})
	}
	if len(r.Answer) == 0 {
		r.Ns = append(r.Ns, s.soa(name))
	}
}

// fromZone answers with authority.
func (s *Server) fromZone(r *dns.Msg, q dns.Question, apex, name string, view *View) {
	r.Authoritative = true
	r.RecursionAvailable = false
	head := func(typ uint16) dns.RR_Header {
		return dns.RR_Header{Name: q.Name, Rrtype: typ, Class: dns.ClassINET, Ttl: ttl}
	}
	targets, exists := view.find(name)
	exists = exists || name == apex
	switch {
	case !exists:
		r.Rcode = dns.RcodeNameError
	case q.Qtype == dns.TypeSOA && name == apex:
		r.Answer = append(r.Answer, s.soa(apex))
	case q.Qtype == dns.TypeNS && name == apex:
		r.Answer = append(r.Answer, &dns.NS{Hdr: head(dns.TypeNS), Ns: nameServer(apex)})
	case q.Qtype == dns.TypeANY: // RFC 8482
		r.Answer = append(r.Answer, &dns.HINFO{Hdr: head(dns.TypeHINFO), Cpu: "RFC8482"})
	case q.Qtype == dns.TypeA || q.Qtype == dns.TypeAAAA:
		for _, t := range serving(ofFamily(targets, q.Qtype)) {
			if q.Qtype == dns.TypeA {
				r.Answer = append(r.Answer, &dns.A{Hdr: head(dns.TypeA), A: t.Addr.AsSlice()})
			} else {
				r.Answer = append(r.Answer, &dns.AAAA{Hdr: head(dns.TypeAAAA), AAAA: t.Addr.AsSlice()})
			}
		}
	}
	if len(r.Answer) == 0 {
		r.Ns = append(r.Ns, s.soa(apex)) // how long to remember that there is nothing
	}
}

func ofFamily(ts []Target, typ uint16) []Target {
	var out []Target
	for _, t := range ts {
		if t.Addr.Is4() == (typ == dns.TypeA) {
			out = append(out, t)
		}
	}
	return out
}

func nameServer(apex string) string { return "ns." + apex + "." }

func (s *Server) soa(apex string) dns.RR {
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: apex + ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
		Ns:  nameServer(apex), Mbox: "hostmaster." + apex + ".", Serial: s.serial.Load(),
		Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttl,
	}
}
