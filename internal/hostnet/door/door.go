// Package door is what network drivers share behind their listeners: connections that arrived are counted in and out,
// bounded, handed to Accept, and ended with their interface. What is admitted is the driver's to judge.
package door

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"penstock.dev/penstock/internal/vpc"
)

// Limits bound connections; more are reset. Zero values stand for the defaults.
type Limits struct {
	Waiting   int // connections that Accept has not taken (256)
	PerSource int // open connections of one source address (1,024)
	Open      int // all open connections (8,192)
}

// Config is what New needs. Zero values are usable.
type Config struct {
	Limits Limits
	// Refused is told of each connection that was not admitted; it must not block. It may be nil.
	Refused func(vpc.Refusal)
	// Ledger is told of what passed on connections of metered interfaces, and of what was refused. It may be nil.
	Ledger *Ledger
	// Adopt makes the descriptor of a check's new socket one of the network where the listeners are; nil: the thread's own.
	Adopt func(fd uintptr) error
	// Log may be nil.
	Log *slog.Logger
}

// Door counts the connections of one driver. All methods may be called concurrently.
type Door struct {
	cfg        Config
	log        *slog.Logger
	admitted   atomic.Uint64
	refused    atomic.Uint64
	shed       atomic.Uint64
	complained atomic.Int64 // the second in which accepting last failed aloud
	waiting    chan *vpc.Conn
	done       chan struct{} // closed by Close

	mu        sync.Mutex
	closed    bool
	sampled   time.Time // when Sample was called last
	conns     map[*vpc.Conn]open
	perSource map[netip.Addr]int
	probes    map[probe]chan<- struct{}
}

// Interface is a network interface at which connections arrive, until Leave.
type Interface struct {
	vpc.PlannedInterface
	// Metered says that sockets are asked for what passed; nothing else counts it.
	Metered bool
	left    bool // guarded by Door.mu
}

// open is what is known about an open connection.
type open struct {
	at     *Interface
	source netip.Addr // as it was dialled from
	tcp    *net.TCPConn
	meter  *meter // nil: not metered
}

// New makes a door that is open.
func New(cfg Config) *Door {
	for _, d := range []struct {
		v *int
		n int
	}{{&cfg.Limits.Waiting, 256}, {&cfg.Limits.PerSource, 1024}, {&cfg.Limits.Open, 8192}} {
		if *d.v <= 0 {
			*d.v = d.n
		}
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Door{
		cfg: cfg, log: log,
		waiting:   make(chan *vpc.Conn, cfg.Limits.Waiting),
		done:      make(chan struct{}),
		conns:     map[*vpc.Conn]open{},
		perSource: map[netip.Addr]int{},
		probes:    map[probe]chan<- struct{}{},
	}
}

// Done is closed by Close.
func (d *Door) Done() <-chan struct{} { return d.done }

// Stats counts connections since New.
func (d *Door) Stats() vpc.DriverStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return vpc.DriverStats{
		Admitted: d.admitted.Load(), Refused: d.refused.Load(), Shed: d.shed.Load(),
		Open: len(d.conns), Waiting: len(d.waiting),
	}
}

// Serve accepts on a listener until that or the door is closed, and hands each connection to arrived. log names the listener.
func (d *Door) Serve(l net.Listener, log *slog.Logger, arrived func(*net.TCPConn)) {
	var pause time.Duration
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors or memory: wait for better times
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			if now, last := time.Now().Unix(), d.complained.Load(); now != last && d.complained.CompareAndSwap(last, now) {
				log.Error("connections could not be accepted", "error", err)
			}
			select {
			case <-time.After(pause):
				continue
			case <-d.done:
				return
			}
		}
		pause = 0
		if tcp, ok := c.(*net.TCPConn); ok {
			arrived(tcp)
		} else {
			_ = c.Close() // listeners of drivers are TCP's
		}
	}
}

// Arrive judges a connection at an interface by the verdict of the rules on its flow: it waits for Accept, or it is reset
// before a byte was sent and the reason told.
func (d *Door) Arrive(at *Interface, c *net.TCPConn, f vpc.Flow, v vpc.Verdict) {
	if !v.OK {
		d.countRefused(at, c, f, v)
		Reset(c)
		d.Refuse(at, f, v)
		return
	}
	d.admitted.Add(1)
	conn, m := d.track(at, c, f)
	if conn == nil {
		d.lastRead(open{at: at, meter: m})
		d.shed.Add(1)
		Reset(c)
		d.tell(at, f, vpc.Verdict{}, "too many connections are open")
		return
	}
	select {
	case d.waiting <- conn:
	default:
		d.shed.Add(1)
		_ = c.SetLinger(0) // so that Close resets
		_ = conn.Close()   // nobody is left to tell
		d.tell(at, f, vpc.Verdict{}, "too many connections are waiting")
	}
}

// Refuse counts and tells a connection that the rules do not admit.
func (d *Door) Refuse(at *Interface, f vpc.Flow, v vpc.Verdict) {
	d.refused.Add(1)
	reason := "not admitted"
	if h := v.Blocked(); h != nil {
		reason = h.Why
	}
	d.tell(at, f, v, reason)
}

// track counts the connection in, or returns nil when there is no room for it or its interface is gone.
func (d *Door) track(at *Interface, c *net.TCPConn, f vpc.Flow) (*vpc.Conn, *meter) {
	o := open{at: at, source: AddrPort(c.RemoteAddr()).Addr(), tcp: c, meter: d.newMeter(at, c, f)}
	var conn *vpc.Conn
	conn = vpc.NewConn(c, func() {
		d.lastRead(o)
		d.untrack(conn)
	})
	conn.Endpoint, conn.Service, conn.VPC, conn.Interface = at.Endpoint, at.Service, at.VPC, at.ID
	conn.Port, conn.Source, conn.Local = f.Dst.Port(), f.Src, f.Dst
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || at.left || len(d.conns) >= d.cfg.Limits.Open || d.perSource[o.source] >= d.cfg.Limits.PerSource {
		return nil, o.meter
	}
	d.conns[conn] = o
	d.perSource[o.source]++
	return conn, o.meter
}

func (d *Door) untrack(c *vpc.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	o, ok := d.conns[c]
	if !ok {
		return
	}
	delete(d.conns, c)
	if d.perSource[o.source]--; d.perSource[o.source] <= 0 {
		delete(d.perSource, o.source)
	}
}

func (d *Door) tell(at *Interface, f vpc.Flow, v vpc.Verdict, reason string) {
	if d.cfg.Refused != nil {
		d.cfg.Refused(vpc.Refusal{Endpoint: at.Endpoint, Interface: at.ID, Flow: f, Verdict: v, Reason: reason})
	}
}

// Accept returns the next admitted connection that is still open; net.ErrClosed after Close.
func (d *Door) Accept(ctx context.Context) (*vpc.Conn, error) {
	for {
		select {
		case <-d.done:
			return nil, net.ErrClosed
		default:
		}
		select {
		case c := <-d.waiting:
			d.mu.Lock()
			_, alive := d.conns[c]
			d.mu.Unlock()
			if alive {
				return c, nil
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-d.done:
			return nil, net.ErrClosed
		}
	}
}

// Ending is how the users of connections learn that their interface left.
type Ending bool

// The endings.
const (
	Orderly Ending = false // by an end of the stream, where nothing is unread
	ByReset Ending = true
)

// Leave ends the connections of interfaces and admits no more at them. It returns how many there were.
func (d *Door) Leave(how Ending, left ...*Interface) int {
	d.mu.Lock()
	for _, i := range left {
		i.left = true
	}
	conns := d.take(how, func(o open) bool { return o.at.left })
	d.mu.Unlock()
	return end(conns)
}

// Close ends all connections and admits no more. It returns how many there were.
func (d *Door) Close(how Ending) int {
	d.mu.Lock()
	if !d.closed {
		d.closed = true
		close(d.done)
	}
	conns := d.take(how, func(open) bool { return true })
	d.mu.Unlock()
	return end(conns)
}

// Closed says whether Close was called.
func (d *Door) Closed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// take lists connections to end. The caller holds mu.
func (d *Door) take(how Ending, which func(open) bool) (conns []*vpc.Conn) {
	for c, o := range d.conns {
		if which(o) {
			conns = append(conns, c)
			if how == ByReset {
				_ = o.tcp.SetLinger(0) // without it the user sees an orderly end
			}
		}
	}
	return conns
}

func end(conns []*vpc.Conn) int {
	for _, c := range conns {
		_ = c.Close() // the interface goes; nobody is left to tell
	}
	return len(conns)
}

// Reset closes a connection so that its user sees a reset and not one byte.
func Reset(c *net.TCPConn) {
	_ = c.SetLinger(0) // without it the user sees an orderly end
	_ = c.Close()      // it is not ours to report on
}

// AddrPort is the address of an end of a TCP connection, IPv4 as such; the zero value when it is none.
func AddrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
