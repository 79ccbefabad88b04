package kernel

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/flowlog"
	"penstock.dev/penstock/internal/vpc"
	"penstock.dev/penstock/internal/vpc/vpctest"
)

// pair is the suite's network twice, with flow logs and without. What is measured alternates between them, so that what else the
// machine does hits both: only the ratio means something.
type pair struct {
	off, on benchLane
}

type benchLane struct {
	u     *users
	d     *Driver
	n     *vpctest.Network
	spent time.Duration
}

func newPair(b *testing.B) *pair {
	b.Helper()
	lane := func(base byte, cfg Config) benchLane {
		cfg.HealEvery = time.Hour
		u := newUsers(b)
		d, _ := start(b, u, cfg)
		d.unlogged = !cfg.Meter
		n := vpctest.NewNetwork(base)
		if err := d.Apply(b.Context(), vpctest.PlanOf(n)); err != nil {
			b.Fatal(err)
		}
		return benchLane{u: u, d: d, n: n}
	}
	p := &pair{off: lane(77, Config{}), on: lane(78, Config{Meter: true})}
	log, err := flowlog.New(flowlog.Config{Dir: filepath.Join(b.TempDir(), "flow-logs"), AccountID: "123456789012", Source: p.on.d, Interval: time.Second})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { log.Run(ctx); close(done) }()
	b.Cleanup(func() {
		cancel()
		<-done
	})
	return p
}

// measure runs the same on both, in turns.
func (p *pair) measure(b *testing.B, unit string, each float64, run func(*benchLane) error) {
	b.Helper()
	for b.Loop() {
		for _, l := range []*benchLane{&p.off, &p.on} {
			began := time.Now()
			if err := run(l); err != nil {
				b.Fatal(err)
			}
			l.spent += time.Since(began)
		}
	}
	off, on := each*float64(b.N)/p.off.spent.Seconds(), each*float64(b.N)/p.on.spent.Seconds()
	b.ReportMetric(off, "off-"+unit)
	b.ReportMetric(on, "on-"+unit)
	b.ReportMetric(on/off, "on/off")
}

func (l *benchLane) connects(port, many int, want error) error {
	to := &unix.SockaddrInet4{Addr: l.n.Interfaces[0].Addr.As4(), Port: port}
	return inside(l.u.ns, func() error {
		for range many {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			if errors.Is(want, unix.EINPROGRESS) {
				err = unix.SetNonblock(fd, true)
			} else {
				err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			}
			if err == nil {
				if err = unix.Connect(fd, to); errors.Is(err, want) || errors.Is(err, unix.ECONNRESET) { // reset after the handshake: too many wait
					err = nil
				}
			}
			if err := errors.Join(err, unix.Close(fd)); err != nil {
				return err
			}
		}
		return nil
	})
}

// BenchmarkFlowLogsConnect is connections that are admitted, with flow logs of an interval of a second and without.
func BenchmarkFlowLogsConnect(b *testing.B) {
	const many = 100
	newPair(b).measure(b, "connects/s", many, func(l *benchLane) error { return l.connects(443, many, nil) })
}

// BenchmarkFlowLogsDrop is requests that the rules drop, logged and unlogged.
func BenchmarkFlowLogsDrop(b *testing.B) {
	const many = 100
	newPair(b).measure(b, "drops/s", many, func(l *benchLane) error { return l.connects(2222, many, unix.EINPROGRESS) })
}

// BenchmarkFlowLogsThroughput is what one connection carries from a user.
func BenchmarkFlowLogsThroughput(b *testing.B) {
	p := newPair(b)
	const size = 16 << 20
	ends := map[*benchLane][2]net.Conn{}
	for _, l := range []*benchLane{&p.off, &p.on} {
		user, err := l.u.dial(b.Context(), l.d, anyPort(officeAddr), l.n.VPC.ID, l.n.At(0, 1400), patience)
		if err != nil {
			b.Fatal(err)
		}
		served, err := l.d.Accept(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		ends[l] = [2]net.Conn{user, served}
		b.Cleanup(func() { _ = errors.Join(user.Close(), served.Close()) })
	}
	buf := make([]byte, 1<<20)
	p.measure(b, "Gbit/s", size*8/1e9, func(l *benchLane) error {
		sent := make(chan error, 1)
		go func() {
			var err error
			for n := 0; n < size && err == nil; n += len(buf) {
				_, err = ends[l][0].Write(buf)
			}
			sent <- err
		}()
		_, err := io.CopyN(io.Discard, ends[l][1], size)
		return errors.Join(err, <-sent)
	})
}

// BenchmarkFlowsOfManyConnections is a look at many connections that are remembered, none of which carried anything since.
func BenchmarkFlowsOfManyConnections(b *testing.B) {
	u := newUsers(b)
	d, _ := start(b, u, Config{Meter: true, HealEvery: time.Hour})
	n := vpctest.NewNetwork(77)
	if err := d.Apply(b.Context(), vpctest.PlanOf(n)); err != nil {
		b.Fatal(err)
	}
	l := benchLane{u: u, d: d, n: n}
	const many = 10000
	n.Group.Rules = append(n.Group.Rules, vpc.SecurityGroupRule{ID: "sgr-udp", Protocol: vpc.UDP, Ports: vpc.AllPorts, Peer: n.Group.Rules[0].Peer})
	if err := d.Apply(b.Context(), vpctest.PlanOf(n)); err != nil {
		b.Fatal(err)
	}
	if err := inside(l.u.ns, func() error {
		for k := range many {
			c, err := net.DialUDP("udp4", &net.UDPAddr{IP: officeAddr.AsSlice(), Port: 20000 + k}, net.UDPAddrFromAddrPort(n.At(0, 5000)))
			if err != nil {
				return err
			}
			_, err = c.Write([]byte("x"))
			if err := errors.Join(err, c.Close()); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	if _, err := d.Flows(b.Context()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := d.Flows(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	d.networks[n.VPC.ID].watch.mu.Lock()
	b.ReportMetric(float64(len(d.networks[n.VPC.ID].watch.counted)), "connections")
	d.networks[n.VPC.ID].watch.mu.Unlock()
}
