package door

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"penstock.dev/penstock/internal/vpc"
)

// patience bounds every wait.
const patience = 20 * time.Second

// TestMain looks for goroutines that outlived their tests.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	for end := time.Now().Add(10 * time.Second); code == 0 && runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			fmt.Fprintln(os.Stderr, "goroutines were left behind:")
			_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1) // the exit code says it
			code = 1
		}
	}
	os.Exit(code)
}

// porch is a door behind one listener, whose connections are admitted unless the test says otherwise.
type porch struct {
	t  *testing.T
	d  *Door
	l  *net.TCPListener
	at *Interface

	mu      sync.Mutex
	verdict vpc.Verdict
	told    []vpc.Refusal
}

func newPorch(t *testing.T, limits Limits) *porch {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	p := &porch{t: t, l: l, at: plan("eni-1"), verdict: vpc.Verdict{OK: true}}
	p.d = New(Config{Limits: limits, Refused: func(r vpc.Refusal) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.told = append(p.told, r)
	}})
	var serving sync.WaitGroup
	serving.Go(func() { p.d.Serve(l, slog.New(slog.DiscardHandler), p.judge) })
	t.Cleanup(func() {
		p.d.Close(Orderly)
		_ = l.Close() // it was only read from
		serving.Wait()
	})
	return p
}

func plan(id vpc.NetworkInterfaceID) *Interface {
	return &Interface{PlannedInterface: vpc.PlannedInterface{ID: id, Endpoint: "vpce-1", Service: "svc", VPC: "vpc-1", Addr: netip.MustParseAddr("10.0.1.10")}}
}

func (p *porch) judgeBy(v vpc.Verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.verdict = v
}

func (p *porch) judge(c *net.TCPConn) {
	if p.d.Probed("vpc-1", c) {
		return
	}
	p.mu.Lock()
	at, v := p.at, p.verdict
	p.mu.Unlock()
	p.d.Arrive(at, c, vpc.Flow{VPC: at.VPC, Protocol: vpc.TCP, Src: AddrPort(c.RemoteAddr()), Dst: netip.AddrPortFrom(at.Addr, 443)}, v)
}

// user is a user's end of a connection; reset says that it ended before the handshake was noticed.
type user struct {
	net.Conn
	reset error
}

func (p *porch) dial(from string) user {
	p.t.Helper()
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(p.t.Context(), "tcp4", p.l.Addr().String())
	if errors.Is(err, syscall.ECONNRESET) {
		return user{reset: err}
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Close() })
	return user{Conn: c}
}

func (p *porch) accept() *vpc.Conn {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	c, err := p.d.Accept(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (p *porch) await(what string, is func(vpc.DriverStats) bool) {
	p.t.Helper()
	for end := time.Now().Add(patience); !is(p.d.Stats()); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("%s did not come: %+v", what, p.d.Stats())
		}
	}
}

func (p *porch) reasons() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []string
	for _, r := range p.told {
		all = append(all, r.Reason)
	}
	return strings.Join(all, "; ")
}

// ended is how the user's end of a connection ended.
func (p *porch) ended(c user) error {
	p.t.Helper()
	if c.reset != nil {
		return c.reset
	}
	_ = c.SetReadDeadline(time.Now().Add(patience)) // the read says it
	n, err := c.Read(make([]byte, 1))
	if n > 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		p.t.Fatalf("read %d bytes, %v, want the connection ended", n, err)
	}
	return err
}

func TestConnectionsAreCountedInAndOut(t *testing.T) {
	t.Parallel()
	p := newPorch(t, Limits{})
	user := p.dial("127.0.0.1")
	p.await("the connection", func(s vpc.DriverStats) bool { return s.Admitted == 1 && s.Open == 1 && s.Waiting == 1 })
	c := p.accept()
	if c.Endpoint != "vpce-1" || c.Interface != "eni-1" || c.VPC != "vpc-1" || c.Service != "svc" || c.Port != 443 ||
		c.Source != AddrPort(user.LocalAddr()) || c.Local != netip.MustParseAddrPort("10.0.1.10:443") {
		t.Errorf("connection = %+v", c)
	}
	if s := p.d.Stats(); s.Open != 1 || s.Waiting != 0 {
		t.Errorf("after Accept: %+v", s)
	}
	for range 2 {
		_ = c.Close() // twice: it is counted out once
	}
	if s := p.d.Stats(); s != (vpc.DriverStats{Admitted: 1}) {
		t.Errorf("after Close: %+v", s)
	}
	if err := p.ended(user); !errors.Is(err, io.EOF) {
		t.Errorf("the user saw %v", err)
	}
}

func TestRefusedConnectionIsResetAndTold(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		verdict vpc.Verdict
		want    string
	}{
		{vpc.Verdict{Hops: []vpc.Hop{{Kind: vpc.HopSecurityGroup, Why: "no rule"}}}, "no rule"},
		{vpc.Verdict{}, "not admitted"},
	} {
		p := newPorch(t, Limits{})
		p.judgeBy(tt.verdict)
		user := p.dial("127.0.0.1")
		if err := p.ended(user); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the user saw %v, want a reset", err)
		}
		p.await("the count", func(s vpc.DriverStats) bool { return s == vpc.DriverStats{Refused: 1} })
		p.await("the reason", func(vpc.DriverStats) bool { return p.reasons() == tt.want })
		p.mu.Lock()
		if r := p.told[0]; r.Endpoint != "vpce-1" || r.Interface != "eni-1" || !r.Flow.Src.IsValid() || r.Flow.Dst.Port() != 443 {
			t.Errorf("told: %+v", r)
		}
		p.mu.Unlock()
	}
}

func TestLimitsShed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		limits  Limits
		sources []string
		want    vpc.DriverStats
		reason  string
	}{
		{"waiting", Limits{Waiting: 1}, []string{"127.0.0.1", "127.0.0.1"}, vpc.DriverStats{Admitted: 2, Shed: 1, Open: 1, Waiting: 1}, "too many connections are waiting"},
		{"open", Limits{Open: 1}, []string{"127.0.0.1", "127.0.0.2"}, vpc.DriverStats{Admitted: 2, Shed: 1, Open: 1, Waiting: 1}, "too many connections are open"},
		{"source", Limits{PerSource: 1}, []string{"127.0.0.1", "127.0.0.2", "127.0.0.1"}, vpc.DriverStats{Admitted: 3, Shed: 1, Open: 2, Waiting: 2}, "too many connections are open"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newPorch(t, tt.limits)
			var last user
			for i, from := range tt.sources {
				last = p.dial(from)
				p.await("the connection", func(s vpc.DriverStats) bool { return s.Admitted == uint64(i+1) })
			}
			if err := p.ended(last); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("the user saw %v, want a reset", err)
			}
			p.await("the counts", func(s vpc.DriverStats) bool { return s == tt.want })
			p.await("the reason", func(vpc.DriverStats) bool { return p.reasons() == tt.reason })
			_ = p.accept().Close() // makes room
			p.dial(tt.sources[0])
			p.await("room", func(s vpc.DriverStats) bool {
				return s.Admitted == tt.want.Admitted+1 && s.Shed == 1 && s.Open == tt.want.Open
			})
		})
	}
}

func TestLeaveEndsOneInterface(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		how  Ending
		want error
	}{{Orderly, io.EOF}, {ByReset, syscall.ECONNRESET}} {
		p := newPorch(t, Limits{})
		goes := p.dial("127.0.0.1")
		p.accept()
		waits := p.dial("127.0.0.1")
		p.await("the connection that waits", func(s vpc.DriverStats) bool { return s.Waiting == 1 })
		left := p.at
		p.mu.Lock()
		p.at = plan("eni-2")
		p.mu.Unlock()
		stays := p.dial("127.0.0.1")
		p.await("the connection that stays", func(s vpc.DriverStats) bool { return s.Open == 3 })
		if n := p.d.Leave(tt.how, left); n != 2 {
			t.Errorf("%d connections left, want 2", n)
		}
		for _, c := range []user{goes, waits} {
			if err := p.ended(c); !errors.Is(err, tt.want) {
				t.Errorf("the user saw %v, want %v", err, tt.want)
			}
		}
		c := p.accept() // not the one that waited and went
		if c.Interface != "eni-2" || c.Source != AddrPort(stays.LocalAddr()) {
			t.Errorf("accepted %+v", c)
		}
		p.mu.Lock()
		p.at = left
		p.mu.Unlock()
		late := p.dial("127.0.0.1")
		if err := p.ended(late); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("after it left: %v, want a reset", err)
		}
		p.await("the count", func(s vpc.DriverStats) bool { return s.Shed == 1 && s.Open == 1 })
	}
}

func TestCloseEndsEverything(t *testing.T) {
	t.Parallel()
	p := newPorch(t, Limits{})
	user := p.dial("127.0.0.1")
	p.accept()
	got := make(chan error, 1)
	go func() {
		_, err := p.d.Accept(context.Background())
		got <- err
	}()
	if n := p.d.Close(ByReset); n != 1 || !p.d.Closed() {
		t.Errorf("%d connections ended, closed is %t", n, p.d.Closed())
	}
	if err := <-got; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
	if err := p.ended(user); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the user saw %v", err)
	}
	late := p.dial("127.0.0.1")
	if err := p.ended(late); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after Close: %v", err)
	}
	if n := p.d.Close(ByReset); n != 0 {
		t.Errorf("%d connections ended twice", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New(Config{}).Accept(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Accept with an ended context: %v", err)
	}
}

// TestServeOutlivesErrors has a listener whose Accept fails as without descriptors: it is said once a second, not each time.
func TestServeOutlivesErrors(t *testing.T) {
	t.Parallel()
	p := newPorch(t, Limits{})
	l := &failing{left: 4}
	var log bytes.Buffer
	served := make(chan struct{})
	go func() {
		defer close(served)
		p.d.Serve(l, slog.New(slog.NewTextHandler(&log, nil)), func(c *net.TCPConn) { _ = c.Close() })
	}()
	<-served
	if n := strings.Count(log.String(), "connections could not be accepted"); n < 1 || n > 2 || !strings.Contains(log.String(), "too many open files") {
		t.Errorf("log: %s", log.String())
	}
}

type failing struct {
	net.Listener
	left int
}

func (f *failing) Accept() (net.Conn, error) {
	if f.left--; f.left >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return nil, net.ErrClosed
}

func TestProbeWaitsForItsOwnArrival(t *testing.T) {
	t.Parallel()
	p := newPorch(t, Limits{})
	p.judgeBy(vpc.Verdict{}) // checks go past the rules
	to := AddrPort(p.l.Addr())
	if err := p.d.Probe(t.Context(), "vpc-1", netip.MustParseAddr("127.0.0.9"), to); err != nil {
		t.Errorf("probe: %v", err)
	}
	if s := p.d.Stats(); s != (vpc.DriverStats{}) {
		t.Errorf("the check was counted: %+v", s)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.d.Probe(ctx, "vpc-2", netip.MustParseAddr("127.0.0.9"), to); err == nil {
		t.Error("the check of another network was answered")
	}
	if len(p.d.probes) != 0 {
		t.Errorf("checks are remembered: %v", p.d.probes)
	}

	stranger, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.d.Probe(ctx, "vpc-1", netip.MustParseAddr("127.0.0.1"), AddrPort(stranger.Addr())); err == nil || !strings.Contains(err.Error(), "another process answers") {
		t.Errorf("another process: %v", err)
	}
	_ = stranger.Close()
	if err := p.d.Probe(t.Context(), "vpc-1", netip.MustParseAddr("127.0.0.1"), AddrPort(stranger.Addr())); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestProbeByIPv6(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 on this machine: ", err)
	}
	defer l.Close()
	d := New(Config{})
	go d.Serve(l, slog.New(slog.DiscardHandler), func(c *net.TCPConn) {
		if !d.Probed("", c) {
			_ = c.Close()
		}
	})
	if err := d.Probe(t.Context(), "", netip.IPv6Loopback(), AddrPort(l.Addr())); err != nil {
		t.Error(err)
	}
}

// TestConcurrent has connections arrive, be accepted, closed and left behind at once; what is counted open in the end is nothing.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	p := newPorch(t, Limits{Waiting: 8, PerSource: 16, Open: 24})
	ctx, cancel := context.WithCancel(t.Context())
	var owners, users, changes sync.WaitGroup
	for range 2 {
		owners.Go(func() {
			for {
				c, err := p.d.Accept(ctx)
				if err != nil {
					return
				}
				owners.Go(func() {
					_, _ = io.Copy(c, c) // ends with the user or the interface
					_ = c.Close()        // perhaps a second time
				})
			}
		})
	}
	changes.Go(func() {
		for ctx.Err() == nil {
			next := plan("eni-next")
			p.mu.Lock()
			left := p.at
			p.at = next
			p.mu.Unlock()
			p.d.Leave(ByReset, left)
			_ = p.d.Stats()
			time.Sleep(time.Millisecond)
		}
	})
	for range 8 {
		users.Go(func() {
			for range 100 {
				c, err := net.Dial("tcp4", p.l.Addr().String())
				if errors.Is(err, syscall.ECONNRESET) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				_ = c.SetDeadline(time.Now().Add(patience)) // bounds the wait
				_, _ = io.WriteString(c, "hello")           // it may be reset at any time
				_, _ = io.ReadFull(c, make([]byte, 5))      // as above
				_ = c.Close()
			}
		})
	}
	users.Wait()
	p.await("all arrivals", func(s vpc.DriverStats) bool { return s.Admitted == 800 })
	cancel()
	changes.Wait()
	p.d.Close(ByReset)
	owners.Wait()
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	if len(p.d.conns) != 0 || len(p.d.perSource) != 0 {
		t.Errorf("%d connections and %d sources are left", len(p.d.conns), len(p.d.perSource))
	}
}
