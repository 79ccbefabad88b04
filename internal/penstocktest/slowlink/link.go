// Package slowlink is a session's stream over a link of a chosen bandwidth, delay and loss: the real agent and
// gateway on one side, a viewer that decodes on the other, and between them two network namespaces that are joined by
// nothing but this package, packet by packet. What TCP does is the kernel's. For tests and measurements, on Linux,
// as root.
package slowlink

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Conditions are what a link does to packets, each way.
type Conditions struct {
	Rate  float64       // bits a second
	Trip  time.Duration // both ways together
	Loss  float64       // share of packets that vanish, on the way to the viewer
	Queue int           // bytes that wait at most before the link; the rest is dropped. 0: a second's worth, at least 64 KiB
}

func (c Conditions) queue() int {
	if c.Queue > 0 {
		return c.Queue
	}
	return max(int(c.Rate/8), 64<<10)
}

// Link joins two namespaces of its own. The near end has the address Near, the far end Far.
type Link struct {
	near, far *end
	down, up  *way // to the far end, and back
	running   sync.WaitGroup
	cancel    context.CancelFunc

	congestion string
}

// The addresses of the two ends.
const (
	Near = "198.18.0.1"
	Far  = "198.18.0.2"
)

// end is one namespace with its device.
type end struct {
	ns  netns.NsHandle
	tun *os.File
}

// Missing says why links cannot be made here; "" when they can.
func Missing() string {
	if os.Geteuid() != 0 {
		return "needs root, for network namespaces"
	}
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return "needs /dev/net/tun: " + err.Error()
	}
	_ = f.Close()
	return ""
}

// Open makes a link. Congestion is the congestion control of TCP towards the viewer; "" for the kernel's default.
func Open(c Conditions, congestion string) (*Link, error) {
	l := &Link{down: newWay(c, c.Loss), up: newWay(c, 0), congestion: congestion}
	var err error
	if l.near, err = openEnd(Near); err != nil {
		return nil, err
	}
	if l.far, err = openEnd(Far); err != nil {
		l.near.close()
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	for _, w := range []struct {
		way      *way
		from, to *os.File
	}{{l.down, l.near.tun, l.far.tun}, {l.up, l.far.tun, l.near.tun}} {
		l.running.Go(func() { w.way.take(w.from) })
		l.running.Go(func() { w.way.give(ctx, w.to) })
	}
	return l, nil
}

// Close ends the link and its namespaces.
func (l *Link) Close() {
	l.cancel()
	l.near.close()
	l.far.close()
	l.running.Wait()
}

// Set changes what the link does from now on.
func (l *Link) Set(c Conditions) {
	l.down.set(c, c.Loss)
	l.up.set(c, 0)
}

// Cut has the link carry nothing any more, and tell nobody: as when a viewer's machine loses its network.
func (l *Link) Cut() {
	for _, w := range []*way{l.down, l.up} {
		w.mu.Lock()
		w.cut = true
		w.mu.Unlock()
	}
}

// Waiting is how many bytes wait on the way to the viewer before the link's narrow place.
func (l *Link) Waiting() int { return l.down.waiting() }

// Packets is how many packets both ends have given to the link.
func (l *Link) Packets() int { return l.down.given() + l.up.given() }

// Listen listens at the near end.
func (l *Link) Listen(port int) (net.Listener, error) {
	var ln net.Listener
	err := l.near.inside(func() (err error) {
		ln, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.ParseIP(Near), Port: port})
		return err
	})
	if err == nil && l.congestion != "" {
		err = choose(ln, l.congestion)
	}
	return ln, err
}

// choose sets the congestion control of a listener's connections.
func choose(ln net.Listener, congestion string) error {
	socket, ok := ln.(*net.TCPListener)
	if !ok {
		return errors.New("no TCP listener")
	}
	c, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion)
	}); err != nil {
		return err
	}
	if failed != nil {
		return fmt.Errorf("choose congestion control %q: %w", congestion, failed)
	}
	return nil
}

// Dial connects to the near end from the far one.
func (l *Link) Dial(ctx context.Context, port int) (net.Conn, error) {
	var c net.Conn
	err := l.far.inside(func() error {
		// The socket is made by this thread, in its namespace; DialContext could take another one.
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "viewer")
		defer f.Close()
		limit := unix.Timeval{Sec: 20}
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
			return err
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte(net.ParseIP(Near).To4()), Port: port}); err != nil {
			return fmt.Errorf("connect over the link: %w", err)
		}
		c, err = net.FileConn(f)
		return err
	})
	if err == nil && ctx.Err() != nil {
		_ = c.Close()
		return nil, ctx.Err()
	}
	return c, err
}

func (e *end) close() {
	_ = e.tun.Close()
	_ = e.ns.Close()
}

// inside runs f on a thread of the namespace.
func (e *end) inside(f func() error) error { return onThread(f, e.ns) }

// onThread runs f on a thread of its own, in ns unless that is none; the thread ends with it.
func onThread(f func() error, ns netns.NsHandle) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread has another namespace
		if ns.IsOpen() {
			if err := netns.Set(ns); err != nil {
				done <- fmt.Errorf("enter network namespace: %w", err)
				return
			}
		}
		done <- f()
	}()
	return <-done
}

func openEnd(address string) (*end, error) {
	e := &end{ns: netns.None()}
	err := onThread(func() (err error) {
		if e.ns, err = netns.New(); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		request, err := unix.NewIfreq("link0")
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			_ = unix.Close(fd)
			return fmt.Errorf("make tunnel device: %w", err)
		}
		e.tun = os.NewFile(uintptr(fd), "tun")
		device, err := netlink.LinkByName("link0")
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(address + "/30")
		if err != nil {
			return err
		}
		return errors.Join(netlink.LinkSetTxQLen(device, 5000), netlink.AddrAdd(device, a), netlink.LinkSetUp(device))
	}, netns.None())
	if err != nil {
		if e.tun != nil {
			_ = e.tun.Close()
		}
		if e.ns.IsOpen() {
			_ = e.ns.Close()
		}
		return nil, err
	}
	return e, nil
}

// way is one direction: a queue before a place that carries so many bits a second, and a delay behind it.
type way struct {
	mu    sync.Mutex // guards what follows
	c     Conditions
	loss  float64
	cut   bool
	rng   *rand.Rand
	free  time.Time // when the narrow place has carried what waits
	due   []packet
	count int // of packets that came
	ready chan struct{}
}

type packet struct {
	bytes []byte
	at    time.Time // at the other end
}

func newWay(c Conditions, loss float64) *way {
	return &way{c: c, loss: loss, rng: rand.New(rand.NewPCG(7, 7)), ready: make(chan struct{}, 1)}
}

func (w *way) set(c Conditions, loss float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// What waits is carried at the new rate too.
	if left := time.Until(w.free); left > 0 {
		w.free = time.Now().Add(time.Duration(float64(left) * w.c.Rate / c.Rate))
	}
	w.c, w.loss = c, loss
}

func (w *way) waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return int(max(0, time.Until(w.free).Seconds()) * w.c.Rate / 8)
}

func (w *way) given() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}

// take reads packets until the device is closed.
func (w *way) take(from *os.File) {
	b := make([]byte, 4096)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		if b[0]>>4 == 4 { // not what the kernel says to its neighbours in IPv6
			w.add(append([]byte(nil), b[:n]...))
		}
	}
}

func (w *way) add(b []byte) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count++
	if w.cut {
		return
	}
	if w.free.Before(now) {
		w.free = now
	}
	if int(w.free.Sub(now).Seconds()*w.c.Rate/8) > w.c.queue() || w.loss > 0 && len(b) > 100 && w.rng.Float64() < w.loss {
		return
	}
	w.free = w.free.Add(time.Duration(float64(len(b)) * 8 / w.c.Rate * float64(time.Second)))
	at := w.free.Add(w.c.Trip / 2)
	if n := len(w.due); n > 0 && w.due[n-1].at.After(at) {
		at = w.due[n-1].at // the delay has become shorter; order stays
	}
	w.due = append(w.due, packet{b, at})
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

// give writes packets when they are due.
func (w *way) give(ctx context.Context, to *os.File) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		w.mu.Lock()
		wait := time.Hour
		var next *packet
		if len(w.due) > 0 {
			if wait = time.Until(w.due[0].at); wait <= 0 {
				next = &w.due[0]
				w.due = w.due[1:]
			}
		}
		w.mu.Unlock()
		if next != nil {
			if _, err := to.Write(next.bytes); err != nil && ctx.Err() != nil {
				return
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-w.ready:
		case <-timer.C:
		}
	}
}
