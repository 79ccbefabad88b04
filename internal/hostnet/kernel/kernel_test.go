package kernel

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/vpc"
	"penstock.dev/penstock/internal/vpc/vpctest"
)

// TestMain looks for goroutines and namespaces that outlived their tests.
func TestMain(m *testing.M) {
	if ran, code := work(); ran {
		os.Exit(code)
	}
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

// needKernel skips where network namespaces cannot be made.
func needKernel(t testing.TB) {
	t.Helper()
	if err := Available(); err != nil {
		if os.Getenv("PENSTOCK_TEST_STRICT") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// users is a network namespace where users are, with a name that nobody else has.
type users struct {
	name string
	ns   netns.NsHandle
	bind bool // dial by the VPC's link, for VPCs with the same block
}

func newUsers(t testing.TB) *users {
	t.Helper()
	needKernel(t)
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	u := &users{name: "penstock-test-" + hex.EncodeToString(b[:])}
	var err error
	if u.ns, err = makeNamespace(u.name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeName(u.name); err != nil {
			t.Error(err)
		}
		_ = u.ns.Close() // the namespace goes with it
	})
	u.do(t, func(h *netlink.Handle) error {
		lo, err := h.LinkByName(vpc.LoopbackLink)
		if err != nil {
			return err
		}
		return h.LinkSetUp(lo)
	})
	return u
}

func (u *users) do(t testing.TB, f func(*netlink.Handle) error) {
	t.Helper()
	h, err := netlink.NewHandleAt(u.ns, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := f(h); err != nil {
		t.Fatal(err)
	}
}

// The users of the tests, as in vpctest.
var (
	officeAddr  = netip.MustParseAddr("192.168.0.7")
	guestAddr   = netip.MustParseAddr("172.16.0.5")
	officeAddr6 = netip.MustParseAddr("fd01::7")
	guestAddr6  = netip.MustParseAddr("fd02::5")
)

func (u *users) attachment() Attachment {
	return Attachment{
		Namespace: u.name,
		Networks: []netip.Prefix{
			netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("172.16.0.0/16"), netip.MustParsePrefix("fd01::/64"), netip.MustParsePrefix("fd02::/64"),
		},
		Addresses: []netip.Addr{officeAddr, guestAddr, officeAddr6, guestAddr6},
	}
}

// dial connects from a user by the link to a VPC. What is dropped ends after limit.
func (u *users) dial(ctx context.Context, d *Driver, from netip.AddrPort, id vpc.VPCID, to netip.AddrPort, limit time.Duration) (c net.Conn, err error) {
	link := d.LinkName(id, 0)
	err = inside(u.ns, func() error {
		dialer := net.Dialer{Timeout: limit, LocalAddr: net.TCPAddrFromAddrPort(from), Control: func(_, _ string, raw syscall.RawConn) error {
			if !u.bind {
				return nil
			}
			var err error
			if cerr := raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), link) }); cerr != nil {
				return cerr
			}
			return err
		}}
		c, err = dialer.DialContext(ctx, "tcp", to.String())
		return err
	})
	return c, err
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

func start(t testing.TB, u *users, cfg Config) (*Driver, *refusals) {
	t.Helper()
	r := &refusals{}
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	if cfg.Attachments == nil {
		cfg.Attachments = []Attachment{u.attachment()}
	}
	cfg.Refused = r.add
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		nothingLeft(t, d, u)
	})
	return d, r
}

// nothingLeft looks for what a closed driver left on the machine.
func nothingLeft(t testing.TB, d *Driver, u *users) {
	t.Helper()
	if names, err := leftNamespaces(d.cfg.Names, d.owner); err != nil || len(names) > 0 {
		t.Errorf("namespaces were left: %v, %v", names, err)
	}
	u.do(t, func(h *netlink.Handle) error {
		links, err := h.LinkList()
		for _, l := range links {
			if strings.HasPrefix(l.Attrs().Alias, alias(d.owner)) {
				t.Errorf("link %s was left", l.Attrs().Name)
			}
		}
		return err
	})
}

func TestConformance(t *testing.T) { conformance(t, vpc.FamilyIPv4) }

func TestConformanceIPv6(t *testing.T) { conformance(t, vpc.FamilyIPv6) }

func conformance(t *testing.T, family vpc.AddressFamily) {
	t.Parallel()
	needKernel(t)
	comes := []netip.Addr{vpctest.NewNetwork(77).At(1, 0).Addr(), vpctest.NewNetwork6(77).At(1, 0).Addr()}
	vpctest.Run(t, func(t *testing.T) vpctest.Harness {
		u := newUsers(t)
		u.bind = true
		d, r := start(t, u, Config{})
		return vpctest.Harness{
			Driver: d, Family: family, Refusals: r.list,
			Dial: func(ctx context.Context, from netip.AddrPort, id vpc.VPCID, to netip.AddrPort) (net.Conn, error) {
				limit := 2 * time.Second
				if strings.HasSuffix(t.Name(), "/Concurrent") && slices.Contains(comes, to.Addr()) {
					limit = 200 * time.Millisecond // this interface comes and goes, in silence
				}
				return u.dial(ctx, d, from, id, to, limit)
			},
		}
	})
}

func TestFlows(t *testing.T) { flowConformance(t, vpc.FamilyIPv4) }

func TestFlowsIPv6(t *testing.T) { flowConformance(t, vpc.FamilyIPv6) }

func flowConformance(t *testing.T, family vpc.AddressFamily) {
	t.Parallel()
	needKernel(t)
	vpctest.RunFlows(t, func(t *testing.T) vpctest.Harness {
		u := newUsers(t)
		d, r := start(t, u, Config{Meter: true})
		return vpctest.Harness{
			Driver: d, Family: family, Refusals: r.list,
			Dial: func(ctx context.Context, from netip.AddrPort, id vpc.VPCID, to netip.AddrPort) (net.Conn, error) {
				return u.dial(ctx, d, from, id, to, 2*time.Second)
			},
		}
	})
}
