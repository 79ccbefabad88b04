package kernel

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/vpc"
	"penstock.dev/penstock/internal/vpc/vpctest"
)

// crowdPlan is what one process of a crowd does.
type crowdPlan struct {
	Namespace string
	To        netip.AddrPort
	Sources   []netip.Addr
	Count     int
}

// crowdResult is how its connections were in the end.
type crowdResult struct{ Open, Cut int }

// crowd opens connections all at once and holds them; each line that it reads has it say how they are, until its input ends.
func crowd(config []byte) error {
	var p crowdPlan
	if err := json.Unmarshal(config, &p); err != nil {
		return err
	}
	ns, err := netns.GetFromPath(namePath(p.Namespace))
	if err != nil {
		return err
	}
	fds := make([]int, 0, p.Count)
	if err := inside(ns, func() error {
		for k := range p.Count {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			fds = append(fds, fd)
			from := &unix.SockaddrInet4{Addr: p.Sources[k%len(p.Sources)].As4()}
			err = errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1), unix.Bind(fd, from),
				unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}))
			if err != nil {
				return err
			}
			if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: p.To.Addr().As4(), Port: int(p.To.Port())}); err != nil && !errors.Is(err, unix.EINPROGRESS) {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	spoke := make([]bool, len(fds))
	for in.Scan() {
		var r crowdResult
		for i, fd := range fds {
			// As a viewer does. What was connected by a SYN cookie while the listener's queue was full is made only by its first bytes.
			if !spoke[i] && unix.Sendto(fd, []byte{'x'}, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil) == nil {
				spoke[i] = true
			}
			n, _, err := unix.Recvfrom(fd, make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
			if n < 0 && errors.Is(err, unix.EAGAIN) {
				r.Open++
			} else {
				r.Cut++
			}
		}
		b, err := json.Marshal(r)
		if err != nil {
			return err
		}
		fmt.Println(string(b))
	}
	return nil
}

// people is a running crowd.
type people struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// gather starts processes of a crowd.
func gather(t *testing.T, plans ...crowdPlan) (all []*people) {
	t.Helper()
	for _, p := range plans {
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		c := &people{cmd: exec.CommandContext(t.Context(), "/proc/self/exe")}
		c.cmd.Env = append(os.Environ(), workerEnv+"=crowd", workerConfigEnv+"="+string(b))
		c.cmd.Stderr = os.Stderr
		in, err := c.cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		c.in, c.out = in, bufio.NewReader(out)
		all = append(all, c)
	}
	return all
}

// ask asks all of a crowd.
func ask(t *testing.T, all []*people) (sum crowdResult) {
	t.Helper()
	for _, c := range all {
		if _, err := io.WriteString(c.in, "\n"); err != nil {
			t.Fatal(err)
		}
		var r crowdResult
		line, err := c.out.ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(line, &r)
		}
		if err != nil {
			t.Fatal(err)
		}
		sum.Open, sum.Cut = sum.Open+r.Open, sum.Cut+r.Cut
	}
	return sum
}

func disperse(t *testing.T, all []*people) {
	t.Helper()
	for _, c := range all {
		_ = c.in.Close() // the wait says it
		if err := c.cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// held is what a driver and its process have of the machine.
type held struct{ descriptors, goroutines, tracked, addrs, rules, names, links int }

func (l *lane) held() (h held) {
	l.t.Helper()
	n := l.d.networks[l.n.VPC.ID]
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		l.t.Fatal(err)
	}
	h.descriptors, h.goroutines = len(fds), runtime.NumGoroutine()
	if err := inside(n.ns, func() error {
		b, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if err == nil {
			h.tracked, err = strconv.Atoi(strings.TrimSpace(string(b)))
		}
		return err
	}); err != nil {
		l.t.Fatal(err)
	}
	addrs, err := addrsOf(n.route, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	counters, err := l.d.Counters(l.n.VPC.ID)
	if err != nil {
		l.t.Fatal(err)
	}
	names, err := filepath.Glob(namePath(namespacePrefix(l.d.owner)) + "*")
	if err != nil {
		l.t.Fatal(err)
	}
	l.u.do(l.t, func(handle *netlink.Handle) error {
		links, err := handle.LinkList()
		h.links = len(links)
		return err
	})
	h.addrs, h.rules, h.names = len(addrs), len(counters), len(names)
	return h
}

// within says whether nothing is held beyond what was, up to a few descriptors and goroutines of the runtime and other tests.
func (h held) within(before held) bool {
	const few = 10
	return h.descriptors <= before.descriptors+few && h.goroutines <= before.goroutines+few && h.tracked <= before.tracked+few &&
		h.addrs == before.addrs && h.rules == before.rules && h.names == before.names && h.links == before.links
}

// TestCrowd: 20,000 connections at once from many addresses. As many as there is room for are open, the others are cut off, and
// when they are gone everything is as it was.
func TestCrowd(t *testing.T) { // alone: it counts what this process holds
	u := newUsers(t)
	var sources []netip.Addr
	for i := range byte(22) {
		sources = append(sources, netip.AddrFrom4([4]byte{192, 168, 1, 1 + i}))
	}
	a := u.attachment()
	a.Addresses = append(sources, a.Addresses...)
	var told sync.Map // reasons
	d, err := New(Config{DataDir: t.TempDir(), Attachments: []Attachment{a}, Refused: func(r vpc.Refusal) { told.Store(r.Reason, true) }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		nothingLeft(t, d, u)
	}()
	l := &lane{t: t, u: u, d: d, n: vpctest.NewNetwork(77)}
	l.apply()
	user, served := l.connects(anyPort(officeAddr), 0, 443)
	before := l.held()

	ctx, cancel := context.WithCancel(t.Context())
	var gateway sync.WaitGroup
	gateway.Go(func() {
		for {
			c, err := d.Accept(ctx)
			if err != nil {
				return
			}
			gateway.Go(func() {
				_, _ = io.Copy(io.Discard, c) // until the user or the driver ends it
				_ = c.Close()                 // as above
			})
		}
	})
	const each, most, mostOfOne = 10_000, 8192, 1024
	to := l.n.At(0, 443)
	crowd := gather(t,
		crowdPlan{u.name, to, sources[:2], each}, // 5,000 from each of two addresses
		crowdPlan{u.name, to, sources[2:], each}) // 500 from each of twenty
	var r crowdResult
	for end := time.Now().Add(3 * patience); d.Stats().Admitted != 2*each+1; time.Sleep(50 * time.Millisecond) { // all at once takes a busy machine a while
		if r = ask(t, crowd); time.Now().After(end) {
			t.Fatalf("the crowd did not come: %+v, it is %+v", d.Stats(), r)
		}
	}
	if s := d.Stats(); s.Open > most || s.Shed != 2*each+1-uint64(s.Open) {
		t.Errorf("stats = %+v", s)
	}
	l.flows(user, served) // who was there first is not disturbed
	await(t, "resets", func() bool { r = ask(t, crowd); return r.Open+1 <= most && r.Open+1 == d.Stats().Open })
	if room := 2*mostOfOne + each; r.Open > room || r.Open == 0 {
		t.Errorf("%d are open, %d were cut off", r.Open, r.Cut)
	}
	if _, ok := told.Load("too many connections are open"); !ok {
		t.Error("nobody was told why")
	}
	disperse(t, crowd)
	await(t, "end of the crowd", func() bool { return d.Stats().Open == 1 })
	cancel()
	gateway.Wait()
	l.flows(l.connects(anyPort(sources[0]), 0, 1400))
	l.flows(user, served)
	var after held
	for end := time.Now().Add(6 * patience); !after.within(before); time.Sleep(100 * time.Millisecond) { // tracked connections go by the kernel's own time
		if after = l.held(); time.Now().After(end) {
			t.Fatalf("before %+v, after %+v", before, after)
		}
	}
}

// starved runs a driver whose process may have few descriptors, and echoes.
func starved(config []byte) error {
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 200, Max: 200}); err != nil {
		return err
	}
	d, err := driverOf(config, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	n := vpctest.NewNetwork(77)
	if err := d.Apply(context.Background(), vpctest.PlanOf(n)); err != nil {
		return err
	}
	fmt.Println("serves")
	closed := make(chan error, 1)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is the process's
		closed <- d.Close()
	}()
	for {
		c, err := d.Accept(context.Background())
		if errors.Is(err, net.ErrClosed) {
			return <-closed
		}
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(c, c) // until the user ends it
			_ = c.Close()        // as above
		}()
	}
}

// TestOutOfDescriptors: a process that may open nothing more goes on when it may again, and says so once a second at most.
func TestOutOfDescriptors(t *testing.T) {
	t.Parallel()
	u := newUsers(t)
	cfg := place{t.TempDir(), []Attachment{u.attachment()}}
	b, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), workerEnv+"=starved", workerConfigEnv+"="+string(b))
	var log bytes.Buffer
	cmd.Stderr = &log
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said(t, bufio.NewReader(out), "serves")
	n := vpctest.NewNetwork(77)
	echoes := func() bool {
		c, err := u.dial(t.Context(), &Driver{owner: owner(cfg.DataDir)}, anyPort(officeAddr), n.VPC.ID, n.At(0, 443), time.Second)
		if err != nil {
			return false
		}
		defer c.Close()
		return word(c, c, 2*time.Second)
	}
	if !echoes() {
		t.Fatal("it does not serve")
	}
	var users []net.Conn
	for range 300 {
		c, err := u.dial(t.Context(), &Driver{owner: owner(cfg.DataDir)}, anyPort(officeAddr), n.VPC.ID, n.At(0, 443), patience)
		if err != nil {
			t.Fatal(err)
		}
		users = append(users, c)
	}
	if word(users[299], users[299], time.Second) {
		t.Error("the last of 300 was served: the test does not test")
	}
	for _, c := range users {
		_ = c.Close() // it is the test's
	}
	await(t, "service", echoes)
	_ = in.Close() // the wait says it
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, log.String())
	}
	lines := strings.Count(log.String(), "connections could not be accepted")
	if seconds := int(time.Since(began).Seconds()); lines == 0 || lines > seconds+2 {
		t.Errorf("said %d times in %d s:\n%s", lines, seconds, log.String())
	}
	if names, err := leftNamespaces(namedNamespaces, owner(cfg.DataDir)); err != nil || len(names) > 0 {
		t.Errorf("namespaces were left: %v, %v", names, err)
	}
}

// TestForeignListener: somebody in the VPC's namespace has a port. The interfaces say which, and serve when it is free.
func TestForeignListener(t *testing.T) {
	t.Parallel()
	l := newLane(t, Config{HealEvery: 20 * time.Millisecond})
	var foreign net.Listener
	l.d.applying.Lock()
	n := l.d.networks[l.n.VPC.ID]
	err := n.listeners[1450].Close()
	delete(n.listeners, 1450)
	if err == nil {
		err = inside(n.ns, func() (err error) {
			foreign, err = net.Listen("tcp", ":1450")
			return err
		})
	}
	l.d.applying.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	await(t, "complaint", func() bool {
		err := l.d.Check(t.Context(), l.n.Interfaces[0].ID)
		return errors.Is(err, unix.EADDRINUSE) && strings.Contains(err.Error(), "1450")
	})
	l.flows(l.connects(anyPort(officeAddr), 0, 443)) // the other ports serve
	if err := foreign.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, "the port", func() bool { return l.d.Check(t.Context(), l.n.Interfaces[0].ID) == nil })
	l.flows(l.connects(anyPort(officeAddr), 0, 1450))
}
