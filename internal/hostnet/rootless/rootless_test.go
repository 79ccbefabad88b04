package rootless

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/compute/procfs"
	"penstock.dev/penstock/internal/hostnet/kernel"
	"penstock.dev/penstock/internal/sqlite"
	"penstock.dev/penstock/internal/vpc"
	"penstock.dev/penstock/internal/vpc/vpctest"
)

// patience bounds every wait.
const patience = 20 * time.Second

// The environment of the test's own processes: a part is what a process outside or inside runs.
const (
	partEnv = "PENSTOCK_TEST_ROOTLESS_PART"
	thenEnv = "PENSTOCK_TEST_ROOTLESS_THEN" // the part of the process inside
	// firstUser begins the users of the tests' processes. Each process is a user of its own, so that what it left is told from what
	// tests beside it, in this process or in others on the machine, still run.
	firstUser, usersEach = 1 << 20, 64
)

// nextUser counts the users of this process's tests.
var nextUser atomic.Int64 //nolint:gochecknoglobals // the machine's users are global

// host is this process's machine, when it runs inside.
var host *Host //nolint:gochecknoglobals // TestMain has no other way to hand it to tests

// TestMain is also the main function of the test's own processes.
func TestMain(m *testing.M) {
	switch os.Getenv(partEnv) {
	case "outside":
		os.Exit(outside())
	case "forbidden":
		os.Exit(forbidden())
	case "sleeper":
		sleeper()
	}
	var err error
	if host, err = Inside(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
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

// outside runs the tests of the inside in namespaces of their own.
func outside() int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), partEnv+"="+os.Getenv(thenEnv))
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := Run(context.Background(), cmd); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// self is a command that runs this program as an ordinary user, in a folder of that user's.
func self(t *testing.T, part string, args ...string) *exec.Cmd {
	t.Helper()
	dir, err := os.MkdirTemp("", "penstock-rootless-") // where everybody may look
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	program := filepath.Join(dir, "test")
	own, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	syscall.ForkLock.RLock() // a process that starts meanwhile would hold the file open for writing, and then it cannot be executed
	err = os.WriteFile(program, own, 0o755)
	syscall.ForkLock.RUnlock()
	if err := errors.Join(err, os.Chmod(program, 0o755), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), partEnv+"="+part, "TMPDIR="+dir, "HOME="+dir)
	cmd.Dir = dir
	if os.Geteuid() == 0 {
		user := uint32(firstUser + os.Getpid()*usersEach + int(nextUser.Add(1))%usersEach)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	}
	return cmd
}

// mayEnter skips where user namespaces are not allowed.
func mayEnter(t *testing.T) {
	t.Helper()
	cmd := self(t, "outside", "-test.run=^TestInsideAvailable$")
	if out, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(out), ErrNotAllowed.Error()) && os.Getenv("PENSTOCK_TEST_STRICT") != "1" {
			t.Skip(string(out))
		}
		t.Fatalf("%v\n%s", err, out)
	}
}

func needInside(t *testing.T) {
	t.Helper()
	if host == nil {
		t.Skip("a part of TestInside")
	}
}

// TestInside runs the tests whose names begin with TestInside as an ordinary user, in namespaces.
func TestInside(t *testing.T) {
	if host != nil {
		return
	}
	t.Parallel()
	mayEnter(t)
	cmd := self(t, "outside", "-test.run=^TestInside.", "-test.v", "-test.timeout=5m")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestInsideConformance") {
		t.Errorf("%v\n%s", err, failed(string(out)))
	}
	if os.Geteuid() != 0 {
		return
	}
	user := int(cmd.SysProcAttr.Credential.Uid)
	for end := time.Now().Add(patience); len(processesOf(t, user)) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("processes were left: %v", processesOf(t, user))
		}
	}
}

// failed is what the tests that did not pass printed, from the output of a run with -test.v.
func failed(out string) string {
	var all, one strings.Builder // one: of the present test
	bad := true                  // what comes before the first test is no test's output
	end := func() {
		if bad {
			all.WriteString(one.String())
		}
		one.Reset()
	}
	for line := range strings.Lines(out) {
		if line == "PASS\n" || line == "FAIL\n" || strings.HasPrefix(line, "=== RUN ") && !strings.Contains(line, "/") {
			end()
			bad = true // until it says otherwise: it may never end
		}
		if strings.HasPrefix(line, "--- PASS") || strings.HasPrefix(line, "--- SKIP") {
			bad = false
		}
		one.WriteString(line)
	}
	end()
	return all.String()
}

// TestAsRoot runs the suite for root, who keeps all users inside.
func TestAsRoot(t *testing.T) {
	if host != nil {
		return
	}
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	mayEnter(t)
	cmd := self(t, "outside", "-test.run=^TestInside(Conformance|Users)$", "-test.v", "-test.timeout=3m")
	cmd.SysProcAttr = nil
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestInsideConformance") {
		t.Errorf("%v\n%s", err, failed(string(out)))
	}
}

// TestWithFileCapabilities: the program may have been allowed port 443 by setcap.
func TestWithFileCapabilities(t *testing.T) {
	if host != nil {
		return
	}
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to give a file capabilities")
	}
	mayEnter(t)
	cmd := self(t, "outside", "-test.run=^TestInside(Available|Users)$", "-test.v")
	// struct vfs_cap_data: u32 version 2 and the effective bit, u32 permitted, u32 inheritable, and both again for capabilities from 32 on
	value := binary.LittleEndian.AppendUint32(nil, 0x02000001)
	for _, set := range []uint32{1 << unix.CAP_NET_BIND_SERVICE, 0, 0, 0} {
		value = binary.LittleEndian.AppendUint32(value, set)
	}
	if err := unix.Setxattr(cmd.Path, "security.capability", value, 0); err != nil {
		t.Skipf("this file system keeps no capabilities: %v", err)
	}
	if out, err := cmd.CombinedOutput(); err != nil || strings.Count(string(out), "--- PASS: TestInside") != 2 {
		t.Errorf("%v\n%s", err, out)
	}
}

func processesOf(t *testing.T, uid int) (out []int) {
	t.Helper()
	all, err := procfs.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if p.UID == uid && p.State != 'Z' {
			out = append(out, p.PID)
		}
	}
	return out
}

func TestInsideAvailable(t *testing.T) {
	needInside(t)
	if err := kernel.Available(); err != nil {
		t.Fatalf("%v: %v", ErrNotAllowed, err)
	}
}

// TestInsideUsers: an ordinary user is still that user; root is every user.
func TestInsideUsers(t *testing.T) {
	needInside(t)
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	var first, outer, n int
	if _, err := fmt.Sscan(string(b), &first, &outer, &n); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if first != 0 || n < 65536 {
			t.Errorf("root has the users %s", b)
		}
		return
	}
	if first != os.Geteuid() || outer != first || n != 1 {
		t.Errorf("user %d has the users %s", os.Geteuid(), b)
	}
}

// start makes a driver inside. Namespaces are shared by the tests, so one driver lives at a time.
func start(t *testing.T, cfg Config) (*Driver, func() []vpc.Refusal) {
	t.Helper()
	needInside(t)
	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	var mu sync.Mutex
	var told []vpc.Refusal
	cfg.Host, cfg.Store = host, store
	if cfg.DataDir == "" {
		cfg.DataDir = t.TempDir()
	}
	if cfg.DialPatience == 0 {
		cfg.DialPatience = 1500 * time.Millisecond // longer than the kernel's wait before it sends a lost SYN again
	}
	cfg.Refused = func(r vpc.Refusal) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, r)
	}
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		names, err := os.ReadDir(filepath.Join(cfg.DataDir, "netns"))
		if err != nil || len(names) > 0 {
			t.Errorf("namespaces were left: %v, %v", names, err)
		}
		if err := unix.Unmount(filepath.Join(cfg.DataDir, "netns"), 0); err != nil {
			t.Error(err)
		}
		links, err := netlink.LinkList()
		if err != nil || len(links) != 1 {
			t.Errorf("links were left: %d, %v", len(links), err)
		}
	})
	return d, func() []vpc.Refusal {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(told)
	}
}

// dial connects from the machine, as the user of an address in the users' networks.
func dial(ctx context.Context, d *Driver, from netip.AddrPort, id vpc.VPCID, to netip.AddrPort) (net.Conn, error) {
	at, ok := d.DialAddr(id, to)
	if !ok {
		return nil, errors.New("no address to dial")
	}
	for _, u := range d.UserNetworks() {
		if u.CIDR.Contains(from.Addr()) {
			from = netip.AddrPortFrom(vpc.Rebase(from.Addr(), u.Dial), from.Port())
		}
	}
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from), Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if cerr := raw.Control(func(fd uintptr) {
			if err = host.Adopt(fd); err == nil {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			}
		}); cerr != nil {
			return cerr
		}
		return err
	}}
	return dialer.DialContext(ctx, "tcp4", at.String())
}

func TestInsideConformance(t *testing.T) {
	needInside(t)
	vpctest.Run(t, func(t *testing.T) vpctest.Harness {
		d, told := start(t, Config{})
		return vpctest.Harness{
			Driver: d, Refusals: told,
			Dial: func(ctx context.Context, from netip.AddrPort, id vpc.VPCID, to netip.AddrPort) (net.Conn, error) {
				return dial(ctx, d, from, id, to)
			},
		}
	})
}

func TestInsideFlows(t *testing.T) {
	needInside(t)
	vpctest.RunFlows(t, func(t *testing.T) vpctest.Harness {
		d, told := start(t, Config{Meter: true})
		return vpctest.Harness{
			Driver: d, Refusals: told,
			Dial: func(ctx context.Context, from netip.AddrPort, id vpc.VPCID, to netip.AddrPort) (net.Conn, error) {
				return dial(ctx, d, from, id, to)
			},
		}
	})
}

// lane is a driver with the suite's network in force.
type lane struct {
	t *testing.T
	d *Driver
	n *vpctest.Network
}

func newLane(t *testing.T, cfg Config) *lane {
	t.Helper()
	d, _ := start(t, cfg)
	l := &lane{t, d, vpctest.NewNetwork(77)}
	l.apply()
	return l
}

func (l *lane) apply() {
	l.t.Helper()
	if err := l.d.Apply(l.t.Context(), vpctest.PlanOf(l.n)); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lane) connect(from string, i int, port uint16) (user *net.TCPConn, served *vpc.Conn) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	c, err := dial(ctx, l.d, netip.MustParseAddrPort(from), l.n.VPC.ID, l.n.At(i, port))
	if err != nil {
		l.t.Fatal(err)
	}
	if served, err = l.d.Accept(ctx); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _, _ = c.Close(), served.Close() })
	if err := errors.Join(c.SetDeadline(time.Now().Add(patience)), served.SetDeadline(time.Now().Add(patience))); err != nil {
		l.t.Fatal(err)
	}
	return c.(*net.TCPConn), served
}

// TestInsideKeepsThePort: network ACLs judge the port that the user has, and one port may go to several interfaces.
func TestInsideKeepsThePort(t *testing.T) {
	l := newLane(t, Config{})
	user, served := l.connect("192.168.3.9:0", 0, 443)
	own := user.LocalAddr().(*net.TCPAddr).AddrPort()
	if want := netip.AddrPortFrom(netip.MustParseAddr("192.168.3.9"), own.Port()); served.Source != want {
		t.Errorf("source = %s, want %s", served.Source, want)
	}
	at, _ := l.d.DialAddr(l.n.VPC.ID, l.n.At(0, 443))
	if served.Dialled != at || served.LocalAddr().String() != at.String() {
		t.Errorf("dialled = %s, local address %s, want %s", served.Dialled, served.LocalAddr(), at)
	}
	if _, other := l.connect(fmt.Sprintf("192.168.3.9:%d", own.Port()), 1, 1400); other.Source != served.Source {
		t.Errorf("the same port to another interface arrived from %s, want %s", other.Source, served.Source)
	}
}

// TestInsideCarriesWhatIsSent: each direction whole, with a reader that is slower than the writer, and open until its own end.
func TestInsideCarriesWhatIsSent(t *testing.T) {
	l := newLane(t, Config{})
	user, served := l.connect("192.168.0.7:0", 0, 1400)
	inner, ok := served.TCP()
	if !ok {
		t.Fatal("not a TCP connection")
	}
	sent := make([]byte, 8<<20)
	_, _ = rand.Read(sent) // never fails
	for _, way := range []struct{ from, to *net.TCPConn }{{user, inner}, {inner, user}} {
		var writing sync.WaitGroup
		writing.Go(func() {
			_, err := way.from.Write(sent)
			if err = errors.Join(err, way.from.CloseWrite()); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(20 * time.Millisecond) // until all buffers are full
		got := sha256.New()
		if _, err := io.CopyBuffer(got, struct{ io.Reader }{way.to}, make([]byte, 3000)); err != nil {
			t.Fatal(err)
		}
		writing.Wait()
		if want := sha256.Sum256(sent); !bytes.Equal(got.Sum(nil), want[:]) {
			t.Error("other bytes arrived than were sent")
		}
	}
	_ = served.Close() // both directions have ended
	l.settled(0)
}

// settled waits until so many connections are carried.
func (l *lane) settled(n int) {
	l.t.Helper()
	for end := time.Now().Add(patience); l.d.outside.Stats().Open != n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			l.t.Fatalf("%d connections are carried, want %d", l.d.outside.Stats().Open, n)
		}
	}
}

// TestInsideResetsGoThrough: whoever cuts the connection off, the other one learns that it was cut off.
func TestInsideResetsGoThrough(t *testing.T) {
	l := newLane(t, Config{})
	user, served := l.connect("192.168.0.7:0", 0, 443)
	inner, _ := served.TCP()
	_ = inner.SetLinger(0) // what the test is about shows if this fails
	_ = served.Close()
	if _, err := user.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the user saw %v", err)
	}
	user, served = l.connect("192.168.0.7:0", 0, 443)
	_ = user.SetLinger(0)
	_ = user.Close()
	if _, err := served.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the gateway saw %v", err)
	}
	l.settled(0)
}

func descriptors(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// TestInsideIdleConnectionsHoldNoPipes: a connection costs its sockets and nothing else while nothing is on its way.
func TestInsideIdleConnectionsHoldNoPipes(t *testing.T) {
	l := newLane(t, Config{})
	user, served := l.connect("192.168.0.7:0", 0, 443)
	l.exchange(user, served)
	const idle = 50
	before := descriptors(t)
	for range idle {
		user, served := l.connect("192.168.0.7:0", 0, 443)
		l.exchange(user, served)
	}
	const sockets = 4 // the user's, the one outside, the two inside: all in this process
	if got := descriptors(t) - before; got > idle*sockets+2*maxPipes || got >= idle*(sockets+2) {
		t.Errorf("%d idle connections hold %d descriptors", idle, got)
	}
}

func (l *lane) exchange(user, served net.Conn) {
	l.t.Helper()
	if err := errors.Join(user.SetDeadline(time.Now().Add(patience)), served.SetDeadline(time.Now().Add(patience))); err != nil {
		l.t.Fatal(err)
	}
	for _, c := range []struct{ from, to net.Conn }{{user, served}, {served, user}} {
		b := make([]byte, 1)
		if _, err := c.from.Write([]byte("x")); err != nil {
			l.t.Fatal(err)
		}
		if _, err := io.ReadFull(c.to, b); err != nil {
			l.t.Fatal(err)
		}
	}
}

// TestInsideTakesOtherSlots: what others listen on outside is not taken, and one of two drivers does not take the other's.
func TestInsideTakesOtherSlots(t *testing.T) {
	l := newLane(t, Config{})
	at, _ := l.d.DialAddr(l.n.VPC.ID, l.n.At(0, 443))
	if _, err := host.Listen("tcp4", at.String()); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second listener on %s: %v", at, err)
	}
	claim, err := host.Listen("unix", fmt.Sprintf("@penstock-loopback-127.%d", at.Addr().As4()[1]))
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a second claim: %v", err)
	}
	if claim != nil {
		_ = claim.Close() // that it came about is the failure
	}
	// The listeners are outside: nothing listens on that address in here.
	if c, err := net.DialTimeout("tcp4", at.String(), time.Second); err == nil {
		_ = c.Close()
		t.Errorf("%s is reached from the inside", at)
	}
}

// TestInsideTooManyRules: one message holds them all, and this user's are bounded by the machine.
func TestInsideTooManyRules(t *testing.T) {
	needInside(t)
	if os.Geteuid() == 0 {
		t.Skip("for an ordinary user")
	}
	l := newLane(t, Config{})
	user, served := l.connect("192.168.0.7:0", 0, 443)
	for i := range 30_000 {
		l.n.Group.Rules = append(l.n.Group.Rules, vpc.SecurityGroupRule{
			ID: vpc.SecurityGroupRuleID("sgr-" + strconv.Itoa(i)), Protocol: vpc.TCP, Ports: vpc.PortRange{From: 443, To: 443},
			Peer: vpc.Peer{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 8), byte(i), 0}), 24)},
		})
	}
	err := l.d.Apply(t.Context(), vpctest.PlanOf(l.n))
	if err == nil || !strings.Contains(err.Error(), "net.core.wmem_max") {
		t.Fatalf("30,000 rules: %v", err)
	}
	l.exchange(user, served) // what was in force is in force
	l.n.Group.Rules = l.n.Group.Rules[:2]
	l.apply()
	l.connect("192.168.0.7:0", 0, 443)
}

// TestInsideRefusedConnectionEndsSoon: silence inside is a reset outside, after a bound.
func TestInsideRefusedConnectionEndsSoon(t *testing.T) {
	l := newLane(t, Config{})
	const many = 40
	var users []net.Conn
	for range many {
		c, err := dial(t.Context(), l.d, netip.MustParseAddrPort("172.16.0.5:0"), l.n.VPC.ID, l.n.At(0, 443))
		if err != nil {
			t.Fatal(err)
		}
		users = append(users, c)
	}
	for _, c := range users {
		_ = c.SetDeadline(time.Now().Add(patience)) // the read says it
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the user saw %v, want a reset", err)
		}
		_ = c.Close()
	}
	if s := l.d.Stats(); s.Refused != many || s.Admitted != 0 || s.Open != 0 {
		t.Errorf("stats = %+v", s)
	}
	l.settled(0)
}

// forbidden is a process that may make no user namespace.
func forbidden() int {
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(Run(context.Background(), exec.Command("/bin/true")))
	return 0
}

func TestSaysHowToAllowIt(t *testing.T) {
	if host != nil {
		return
	}
	t.Parallel()
	mayEnter(t)
	cmd := self(t, "forbidden")
	uid, gid := os.Geteuid(), os.Getegid()
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	want := ErrNotAllowed.Error() + ": to allow them, run: sudo sysctl -w user.max_user_namespaces="
	if err != nil || !strings.HasPrefix(string(out), want) || strings.Count(string(out), "\n") != 1 {
		t.Errorf("%v, %q, want %q…", err, out, want)
	}
}

// sleeper starts a grandchild that waits, says its ID, and waits.
func sleeper() {
	h, err := Inside()
	if err != nil || h == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(os.Getpid())
	h.Gone()
	os.Exit(0)
}

// TestEndsWithTheProcessOutside: nothing inside outlives the process outside, however that ends.
func TestEndsWithTheProcessOutside(t *testing.T) {
	if host != nil {
		return
	}
	t.Parallel()
	mayEnter(t)
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGHUP} {
		cmd := self(t, "outside")
		cmd.Env = append(cmd.Env, thenEnv+"=sleeper")
		said, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var pid int
		if _, err := fmt.Fscan(said, &pid); err != nil {
			t.Fatal(err)
		}
		p, err := procfs.Get(pid)
		if err != nil {
			t.Fatal(err)
		}
		ns := fmt.Sprintf("/proc/%d/ns/net", pid)
		if own, _ := os.Readlink("/proc/self/ns/net"); own == mustReadlink(t, ns) {
			t.Error("it is in this process's network: the test does not test")
		}
		_ = cmd.Process.Signal(sig) // the wait says it
		_ = cmd.Wait()
		for end := time.Now().Add(patience); p.Alive(); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("the process inside outlived %v", sig)
			}
		}
	}
}

func mustReadlink(t *testing.T, path string) string {
	t.Helper()
	s, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
