package loopback

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"sync"
	"syscall"
	"testing"
	"time"

	"penstock.dev/penstock/internal/hostnet/door"
	"penstock.dev/penstock/internal/sqlite"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
	"penstock.dev/penstock/internal/vpc/vpctest"
)

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

func openStore(t testing.TB) state.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// refusals collects what a driver tells of.
type refusals struct {
	mu  sync.Mutex
	all []vpc.Refusal
}

func (r *refusals) add(x vpc.Refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, x)
}

func (r *refusals) list() []vpc.Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]vpc.Refusal(nil), r.all...)
}

func start(t testing.TB, cfg Config) (*Driver, *refusals) {
	t.Helper()
	r := &refusals{}
	if cfg.Store == nil {
		cfg.Store = openStore(t)
	}
	if cfg.Spread == "" {
		cfg.Spread = t.TempDir()
	}
	cfg.Refused = r.add
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, r
}

// dialFrom connects from a user's address, which loopback plays.
func dialFrom(ctx context.Context, d *Driver, from netip.AddrPort, id vpc.VPCID, to netip.AddrPort) (net.Conn, error) {
	at, ok := d.DialAddr(id, to)
	if !ok {
		return nil, fmt.Errorf("no address for %s", id)
	}
	for _, u := range d.UserNetworks() {
		if u.CIDR.Contains(from.Addr()) {
			from = netip.AddrPortFrom(vpc.Rebase(from.Addr(), u.Dial), from.Port())
		}
	}
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from)}
	return dialer.DialContext(ctx, "tcp4", at.String())
}

func TestConformance(t *testing.T) {
	t.Parallel()
	vpctest.Run(t, func(t *testing.T) vpctest.Harness {
		d, r := start(t, Config{})
		return vpctest.Harness{
			Driver: d, Refusals: r.list,
			Dial: func(ctx context.Context, from netip.AddrPort, id vpc.VPCID, to netip.AddrPort) (net.Conn, error) {
				return dialFrom(ctx, d, from, id, to)
			},
		}
	})
}

func TestFlows(t *testing.T) {
	t.Parallel()
	vpctest.RunFlows(t, func(t *testing.T) vpctest.Harness {
		d, r := start(t, Config{Meter: true})
		return vpctest.Harness{
			Driver: d, Refusals: r.list,
			Dial: func(ctx context.Context, from netip.AddrPort, id vpc.VPCID, to netip.AddrPort) (net.Conn, error) {
				return dialFrom(ctx, d, from, id, to)
			},
		}
	})
}

func apply(t *testing.T, d *Driver, networks ...*vpctest.Network) {
	t.Helper()
	if err := d.Apply(t.Context(), vpctest.PlanOf(networks...)); err != nil {
		t.Fatal(err)
	}
}

func checkAll(t *testing.T, d *Driver, n *vpctest.Network) {
	t.Helper()
	for _, i := range n.Interfaces {
		if err := d.Check(t.Context(), i.ID); err != nil {
			t.Errorf("check %s: %v", i.ID, err)
		}
	}
}

func TestMappingKeepsTheLowBits(t *testing.T) {
	t.Parallel()
	d, _ := start(t, Config{})
	n := vpctest.NewNetwork(77)
	apply(t, d, n)
	at, ok := d.DialAddr(n.VPC.ID, n.At(0, 1400))
	b := at.Addr().As4()
	if !ok || b[0] != 127 || b[1] < firstSlot || b[2] != 1 || b[3] != 10 || at.Port() != 1400 {
		t.Errorf("10.77.1.10:1400 is dialled at %s", at)
	}
}

func TestMappingIsRememberedAndFreed(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	a, b := vpctest.NewNetwork(77), vpctest.NewNetwork(78)
	first, _ := start(t, Config{Store: store, Spread: "x"})
	apply(t, first, a, b)
	wantA, _ := first.DialAddr(a.VPC.ID, a.At(0, 1400))
	wantB, _ := first.DialAddr(b.VPC.ID, b.At(0, 1400))
	if wantA.Addr().As4()[1] == wantB.Addr().As4()[1] {
		t.Fatal("two VPCs share a network")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}

	// Another place to begin the search: what is remembered counts.
	second, _ := start(t, Config{Store: store, Spread: "another"})
	apply(t, second, b, a)
	if got, _ := second.DialAddr(a.VPC.ID, a.At(0, 1400)); got != wantA {
		t.Errorf("after a restart: %s, want %s", got, wantA)
	}
	apply(t, second, b)
	if got, _ := second.DialAddr(b.VPC.ID, b.At(0, 1400)); got != wantB {
		t.Errorf("the VPC that stays: %s, want %s", got, wantB)
	}
	var left []*record
	if err := store.View(t.Context(), func(r state.Reader) (err error) {
		left, err = records().List(r, state.Query{})
		return err
	}); err != nil || len(left) != 1 || left[0].VPC != b.VPC.ID {
		t.Errorf("remembered: %+v, %v", left, err)
	}
}

func TestTwoProcessesDoNotCollide(t *testing.T) {
	t.Parallel()
	n := vpctest.NewNetwork(77)
	var seen []byte
	for range 3 {
		d, _ := start(t, Config{Spread: "the same place"}) // a store of its own each
		apply(t, d, n)
		checkAll(t, d, n)
		at, _ := d.DialAddr(n.VPC.ID, n.At(0, 1400))
		for _, s := range seen {
			if s == at.Addr().As4()[1] {
				t.Errorf("127.%d is used twice", s)
			}
		}
		seen = append(seen, at.Addr().As4()[1])
	}
}

// sockets counts the listeners that are open, and notes claims that are given up while some are.
type sockets struct {
	mu    sync.Mutex
	open  int
	early []string
}

type countedListener struct {
	net.Listener
	closed func()
}

func (l countedListener) Close() error {
	l.closed()
	return l.Listener.Close()
}

func (s *sockets) Listen(network, address string) (net.Listener, error) {
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	if network == "unix" {
		return countedListener{l, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.open > 0 {
				s.early = append(s.early, fmt.Sprintf("%s with %d listeners", address, s.open))
			}
		}}, nil
	}
	s.mu.Lock()
	s.open++
	s.mu.Unlock()
	var once sync.Once
	return countedListener{l, func() {
		once.Do(func() {
			s.mu.Lock()
			s.open--
			s.mu.Unlock()
		})
	}}, nil
}

func (s *sockets) Adopt(uintptr) error { return nil }

// Whoever claims a network that another process gave up listens on it at once.
func TestNothingListensOnFreedNetworks(t *testing.T) {
	t.Parallel()
	n := vpctest.NewNetwork(77)
	s := &sockets{}
	d, _ := start(t, Config{Sockets: s})
	apply(t, d, n)
	if s.open == 0 {
		t.Fatal("nothing listens")
	}
	apply(t, d)
	if len(s.early) > 0 || s.open > 0 {
		t.Errorf("given up too early: %v; %d listeners are left", s.early, s.open)
	}
}

// Not beside other tests: what listens without a claim may be in the way of their networks.
func TestAnotherProgramOnTheAddress(t *testing.T) {
	store := openStore(t)
	n := vpctest.NewNetwork(77)
	first, _ := start(t, Config{Store: store, Spread: t.Name()})
	apply(t, first, n)
	had, _ := first.DialAddr(n.VPC.ID, n.At(1, 1450))
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	squatter, err := net.Listen("tcp4", had.String())
	if err != nil {
		t.Fatal(err)
	}
	defer squatter.Close()

	// The port is the second interface's: the first one listens already, and the /16 cannot be exchanged any more.
	second, _ := start(t, Config{Store: store, Spread: t.Name()})
	alone := vpctest.NewNetwork(77)
	alone.Interfaces = alone.Interfaces[1:]
	apply(t, second, alone)
	got, _ := second.DialAddr(n.VPC.ID, n.At(1, 1450))
	if got == had {
		t.Fatalf("still at %s, which another program has", got)
	}
	checkAll(t, second, alone)
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}

	busy, err := net.Listen("tcp4", got.String())
	if err != nil {
		t.Fatal(err)
	}
	third, _ := start(t, Config{Store: store, Spread: t.Name()})
	apply(t, third, n)
	if err := third.Check(t.Context(), n.Interfaces[0].ID); err != nil {
		t.Errorf("the interface whose address is free: %v", err)
	}
	if err := third.Check(t.Context(), n.Interfaces[1].ID); err == nil {
		t.Error("the interface whose address is taken serves")
	}
	if err := busy.Close(); err != nil {
		t.Fatal(err)
	}
	apply(t, third, n) // the next plan finds it free
	checkAll(t, third, n)
}

func TestSourcesWithoutANetwork(t *testing.T) {
	t.Parallel()
	d, r := start(t, Config{})
	n := vpctest.NewNetwork(77)
	n.Group.Rules[0].Peer.CIDR = netip.MustParsePrefix("0.0.0.0/0")
	apply(t, d, n)
	at, _ := d.DialAddr(n.VPC.ID, n.At(0, 443))
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 250, 3, 4)}} // in no user network and in no VPC
	c, err := dialer.DialContext(t.Context(), "tcp4", at.String())
	if err == nil {
		defer c.Close()
		if b, err := io.ReadAll(c); err == nil || len(b) > 0 {
			t.Errorf("read %q, %v; want a reset", b, err)
		}
	}
	await(t, "refusal", func() bool { return len(r.list()) == 1 })
	if got := r.list()[0]; got.Verdict.Symptom != vpc.NoRoute || got.Verdict.Blocked().Kind != vpc.HopDeviceRoute {
		t.Errorf("refusal = %+v", got)
	}
}

func TestSourcesInsideAVPC(t *testing.T) {
	t.Parallel()
	d, r := start(t, Config{})
	a, b := vpctest.NewNetwork(77), vpctest.NewNetwork(78)
	a.Group.Rules[0].Peer.CIDR = netip.MustParsePrefix("10.77.0.0/16")
	apply(t, d, a, b)
	at, _ := d.DialAddr(a.VPC.ID, a.At(0, 443))
	inside, _ := d.DialAddr(a.VPC.ID, netip.MustParseAddrPort("10.77.2.99:0"))
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(inside)}
	c, err := dialer.DialContext(t.Context(), "tcp4", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	served, err := d.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer served.Close()
	if got := served.Source.Addr().String(); got != "10.77.2.99" {
		t.Errorf("source = %s", got)
	}

	other, _ := d.DialAddr(b.VPC.ID, netip.MustParseAddrPort("10.78.2.99:0"))
	dialer.LocalAddr = net.TCPAddrFromAddrPort(other)
	if c, err := dialer.DialContext(t.Context(), "tcp4", at.String()); err == nil {
		defer c.Close()
	}
	await(t, "refusal", func() bool { return len(r.list()) == 1 })
	if got := r.list()[0]; got.Verdict.Symptom != vpc.NoRoute || got.Flow.SrcVPC != b.VPC.ID {
		t.Errorf("refusal = %+v", got)
	}
}

func TestControlPortElsewhere(t *testing.T) {
	t.Parallel()
	d, _ := start(t, Config{ControlPort: 8443})
	n := vpctest.NewNetwork(77)
	apply(t, d, n)
	checkAll(t, d, n)
	at, _ := d.DialAddr(n.VPC.ID, n.At(0, 443))
	if at.Port() != 8443 || d.ControlPort() != 8443 || d.Hint("bin/penstock") == "" {
		t.Errorf("443 is dialled at %s, hint %q", at, d.Hint("bin/penstock"))
	}
	c, err := dialFrom(t.Context(), d, netip.MustParseAddrPort("192.168.0.1:0"), n.VPC.ID, n.At(0, 443))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	served, err := d.Accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer served.Close()
	if served.Port != 443 || served.Local != n.At(0, 443) {
		t.Errorf("port = %d at %s, want the one that the user meant", served.Port, served.Local)
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		cfg  Config
		fits int
	}{
		{"waiting", Config{Limits: door.Limits{Waiting: 3}}, 3},
		{"of one source", Config{Limits: door.Limits{PerSource: 4}}, 4},
		{"open", Config{Limits: door.Limits{Open: 5}}, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d, r := start(t, tt.cfg)
			n := vpctest.NewNetwork(77)
			apply(t, d, n)
			const tries = 12
			for range tries {
				c, err := dialFrom(t.Context(), d, netip.MustParseAddrPort("192.168.0.1:0"), n.VPC.ID, n.At(0, 1400))
				if err == nil {
					defer c.Close()
				} else if !errors.Is(err, syscall.ECONNRESET) {
					t.Fatal(err)
				}
			}
			await(t, "all connections", func() bool { st := d.Stats(); return int(st.Shed)+st.Open == tries && len(r.list()) == int(st.Shed) })
			if st := d.Stats(); st.Open != tt.fits || int(st.Shed) != tries-tt.fits || st.Admitted != tries {
				t.Errorf("stats = %+v, want %d open", st, tt.fits)
			}
			if got := r.list(); len(got) != tries-tt.fits || got[0].Reason == "" {
				t.Errorf("%d refusals, want %d", len(got), tries-tt.fits)
			}
			// There is room again when one ends.
			served, err := d.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := served.Close(); err != nil {
				t.Error(err)
			}
			c, err := dialFrom(t.Context(), d, netip.MustParseAddrPort("192.168.0.1:0"), n.VPC.ID, n.At(0, 1401))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			await(t, "room", func() bool { return d.Stats().Open == tt.fits })
		})
	}
}

func TestNewRefusesUserNetworksThatCannotBePlayed(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	for _, u := range []vpc.UserNetwork{
		{CIDR: netip.MustParsePrefix("192.168.0.0/16"), Dial: netip.MustParsePrefix("10.0.0.0/16")},
		{CIDR: netip.MustParsePrefix("192.168.0.0/16"), Dial: netip.MustParsePrefix("127.0.0.0/17")},
		{CIDR: netip.MustParsePrefix("192.168.0.0/16"), Dial: netip.MustParsePrefix("127.80.0.0/16")},
		{CIDR: netip.MustParsePrefix("192.168.0.1/16"), Dial: netip.MustParsePrefix("127.0.0.0/16")},
		{CIDR: netip.MustParsePrefix("10.0.0.0/8"), Dial: netip.MustParsePrefix("127.0.0.0/8")},
	} {
		if _, err := New(Config{Store: store, UserNetworks: []vpc.UserNetwork{u}}); err == nil {
			t.Errorf("%v was taken", u)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("a driver without a store")
	}
}

func TestRebase(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ addr, to, want string }{
		{"10.77.1.10", "127.80.0.0/16", "127.80.1.10"},
		{"127.0.0.1", "192.168.0.0/16", "192.168.0.1"},
		{"127.0.9.77", "172.16.64.0/20", "172.16.73.77"},
		{"10.1.2.3", "0.0.0.0/0", "10.1.2.3"},
		{"10.1.2.3", "1.2.3.4/32", "1.2.3.4"},
	} {
		if got := vpc.Rebase(netip.MustParseAddr(tt.addr), netip.MustParsePrefix(tt.to)).String(); got != tt.want {
			t.Errorf("%s into %s: got %s, want %s", tt.addr, tt.to, got, tt.want)
		}
	}
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not come", what)
		}
	}
}

func TestApplyWithAnEndedContext(t *testing.T) {
	t.Parallel()
	d, _ := start(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Apply(ctx, vpctest.PlanOf(vpctest.NewNetwork(77))); !errors.Is(err, context.Canceled) {
		t.Errorf("apply: %v", err)
	}
}
