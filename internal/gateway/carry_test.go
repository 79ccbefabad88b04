package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"penstock.dev/penstock/internal/vpc"
)

const carryPatience = 30 * time.Second

// unixSockets are the two ends of a connection to an agent.
func unixSockets(t *testing.T) (agent, near *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "a")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if near, err = net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr)); err != nil {
		t.Fatal(err)
	}
	if agent, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	_ = agent.SetDeadline(time.Now().Add(carryPatience))
	t.Cleanup(func() { _, _ = agent.Close(), near.Close() })
	return agent, near
}

// carried is a running relay with both far ends.
type carried struct {
	viewer halfCloser
	agent  *net.UnixConn
	relay  *relay
	ended  chan [2]int64
	given  chan struct{} // closed when the driver has its connection back
}

// ways are the kinds of a viewer's connection.
var ways = []string{"plain", "TLS", "TLS of another listener", "TLS over a pipe"}

// join runs a relay over a viewer's connection of one kind.
func join(t *testing.T, way string, cert tls.Certificate) *carried {
	t.Helper()
	c := &carried{ended: make(chan [2]int64, 1), given: make(chan struct{})}
	var far, near net.Conn
	if way == "TLS over a pipe" {
		far, near = net.Pipe()
	} else {
		far, near = sockets(t)
	}
	var server net.Conn = vpc.NewConn(near, func() { close(c.given) })
	config := &tls.Config{Certificates: []tls.Certificate{cert}}
	switch way {
	case "plain":
		c.viewer = far.(*net.TCPConn)
	case "TLS of another listener":
		server = tls.Server(server, config)
	default:
		server = Secure(server, config)
	}
	if t1, ok := server.(*tls.Conn); ok {
		client := tls.Client(far, &tls.Config{InsecureSkipVerify: true})
		c.viewer = client
		var wg sync.WaitGroup
		wg.Go(func() { _ = t1.HandshakeContext(t.Context()) })
		if err := client.HandshakeContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
	}
	_ = c.viewer.SetDeadline(time.Now().Add(carryPatience))
	var agentNear *net.UnixConn
	c.agent, agentNear = unixSockets(t)
	c.relay = newRelay(server, agentNear)
	go func() {
		up, down := c.relay.run("HEAD", []byte("early"))
		c.ended <- [2]int64{up, down}
	}()
	head := make([]byte, 9)
	if _, err := io.ReadFull(c.agent, head); err != nil || string(head) != "HEADearly" {
		t.Fatalf("the agent got %q, %v", head, err)
	}
	return c
}

func (c *carried) wait(t *testing.T) [2]int64 {
	t.Helper()
	select {
	case n := <-c.ended:
		select {
		case <-c.given:
		default:
			t.Error("the relay ended and the driver has not got its connection back")
		}
		return n
	case <-time.After(carryPatience):
		t.Fatal("the relay did not end")
		return [2]int64{}
	}
}

// TestCarry: whatever is sent in whatever pieces arrives, both ways at once, up to each side's goodbye; frames larger than what is
// spliced and small ones mixed.
func TestCarry(t *testing.T) {
	t.Parallel()
	cert := selfSigned(t)
	for i, way := range ways {
		for seed := range uint64(4) {
			t.Run(way, func(t *testing.T) {
				t.Parallel()
				random := rand.New(rand.NewPCG(seed, uint64(i)))
				c := join(t, way, cert)
				down := []byte(answer101)
				for len(down) < 3<<20 {
					down = append(down, serverFrame(0x82, noise(random, random.IntN(1<<random.IntN(21))))...)
				}
				up := noise(random, 1+random.IntN(2<<20))
				seeds := [2]uint64{random.Uint64(), random.Uint64()}
				var wg sync.WaitGroup
				send := func(to halfCloser, b []byte, seed uint64) {
					wg.Go(func() {
						random := rand.New(rand.NewPCG(seed, 0))
						for len(b) > 0 {
							n := min(len(b), 1+random.IntN(1<<random.IntN(19)))
							if _, err := to.Write(b[:n]); err != nil {
								t.Errorf("write: %v", err)
								return
							}
							b = b[n:]
							if random.IntN(8) == 0 {
								runtime.Gosched()
							}
						}
						if err := to.CloseWrite(); err != nil {
							t.Errorf("half-close: %v", err)
						}
					})
				}
				check := func(what string, from net.Conn, want []byte) {
					wg.Go(func() {
						if got, err := io.ReadAll(from); err != nil || !bytes.Equal(got, want) {
							t.Errorf("%s: got %d bytes, %v; want %d", what, len(got), err, len(want))
						}
					})
				}
				send(c.agent, down, seeds[0])
				check("down", c.viewer, down)
				send(c.viewer, up, seeds[1])
				check("up", c.agent, up)
				wg.Wait()
				if n, want := c.wait(t), [2]int64{int64(len(up)) + 5, int64(len(down))}; n != want {
					t.Errorf("bytes counted: got %v, want %v", n, want)
				}
			})
		}
	}
}

func noise(random *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := 0; i < n; i += 7 {
		b[i] = byte(random.Uint32())
	}
	return b
}

// TestLossOfEitherSide: when one side vanishes in the middle of a transfer, the other is told and everything is given back.
func TestLossOfEitherSide(t *testing.T) {
	t.Parallel()
	cert := selfSigned(t)
	for _, way := range ways {
		for _, lost := range []string{"viewer", "agent", "viewer stays and does not close"} {
			if way == "TLS over a pipe" && lost != "viewer" && lost != "agent" {
				continue // takes as long as TestViewerThatTakesNothing
			}
			t.Run(way+", "+lost, func(t *testing.T) {
				t.Parallel()
				c := join(t, way, cert)
				const stays = "viewer stays and does not close"
				frame := serverFrame(0x82, make([]byte, 1<<20))
				go func() { // saturates the way down
					_, err := io.WriteString(c.agent, answer101)
					for i := 0; err == nil && (i < 3 || lost != stays); i++ {
						_, err = c.agent.Write(frame)
					}
				}()
				if _, err := io.ReadFull(c.viewer, make([]byte, len(answer101)+3*len(frame))); err != nil {
					t.Fatal(err)
				}
				var other net.Conn = c.viewer
				switch lost {
				case "viewer":
					if tcp, ok := underClient(c.viewer).(*net.TCPConn); ok {
						_ = tcp.SetLinger(0) // a reset
					}
					_ = underClient(c.viewer).Close()
					other = c.agent
				default:
					_ = c.agent.Close()
				}
				if lost != stays {
					_, err := io.Copy(io.Discard, other)
					if errors.Is(err, os.ErrDeadlineExceeded) {
						t.Errorf("the other side was not told: %v", err)
					}
					_ = other.Close()
				}
				c.wait(t)
			})
		}
	}
}

func underClient(c net.Conn) net.Conn {
	if t, ok := c.(*tls.Conn); ok {
		return t.NetConn()
	}
	return c
}

// TestSlowViewer: a viewer that does not read stops its own agent after a bounded number of bytes, costs no more memory than one
// burst, and delays nobody else.
func TestSlowViewer(t *testing.T) {
	t.Parallel()
	cert := selfSigned(t)
	for _, way := range []string{"plain", "TLS"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			slow, other := join(t, way, cert), join(t, way, cert)
			tcp := underClient(slow.viewer).(*net.TCPConn)
			_ = tcp.SetReadBuffer(64 << 10)
			var written atomic.Int64
			go func() {
				b := serverFrame(0x82, make([]byte, 1<<20))
				_, err := io.WriteString(slow.agent, answer101)
				for err == nil {
					var n int
					n, err = slow.agent.Write(b)
					written.Add(int64(n))
				}
			}()
			// It has stopped when a second goes by without progress; the agent's way of 1 MiB steps is what progress means.
			for last, since := int64(-1), time.Now(); time.Since(since) < time.Second; time.Sleep(20 * time.Millisecond) {
				if n := written.Load(); n != last {
					last, since = n, time.Now()
				}
				if written.Load() > 64<<20 {
					t.Fatalf("the agent could send %d bytes that nobody read", written.Load())
				}
			}
			if _, err := io.WriteString(other.agent, "anything"); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 8)
			if _, err := io.ReadFull(other.viewer, got); err != nil || string(got) != "anything" {
				t.Errorf("another viewer, meanwhile: got %q, %v", got, err)
			}
			// It takes up where it stopped.
			if _, err := io.CopyN(io.Discard, slow.viewer, written.Load()); err != nil {
				t.Errorf("reading again: %v", err)
			}
			for _, c := range []*carried{slow, other} {
				_ = c.viewer.Close()
				_ = c.agent.Close()
				c.wait(t)
			}
		})
	}
}

// TestFairness: while other channels carry all that the machine can, a message on a quiet one goes there and back again and again.
func TestFairness(t *testing.T) {
	t.Parallel()
	cert := selfSigned(t)
	quiet := join(t, "TLS", cert)
	var carriedBytes atomic.Int64
	var wg sync.WaitGroup
	var loud []*carried
	for range 2 * runtime.GOMAXPROCS(0) {
		c := join(t, "TLS", cert)
		loud = append(loud, c)
		wg.Go(func() {
			b := serverFrame(0x82, make([]byte, 1<<20))
			_, err := io.WriteString(c.agent, answer101)
			for err == nil {
				_, err = c.agent.Write(b)
			}
		})
		wg.Go(func() {
			b := make([]byte, 64<<10)
			for {
				n, err := c.viewer.Read(b)
				carriedBytes.Add(int64(n))
				if err != nil {
					return
				}
			}
		})
	}
	wg.Go(func() { _, _ = io.Copy(quiet.agent, quiet.agent) })
	for i := range byte(20) {
		before := carriedBytes.Load()
		if _, err := quiet.viewer.Write([]byte{i}); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 1)
		if _, err := io.ReadFull(quiet.viewer, got); err != nil || got[0] != i {
			t.Fatalf("ping %d: got %v, %v", i, got, err)
		}
		for carriedBytes.Load() == before { // the load is real
			time.Sleep(time.Millisecond)
		}
	}
	for _, c := range append(loud, quiet) {
		_ = underClient(c.viewer).Close()
		_ = c.agent.Close()
		c.wait(t)
	}
	wg.Wait()
}

// TestViewerThatTakesNothing: where no kernel watches the connection, the relay does.
func TestViewerThatTakesNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		_, viewer := net.Pipe()
		agent, agentNear := net.Pipe()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			newRelay(vpc.NewConn(viewer, nil), agentNear).run("HEAD", nil)
		}()
		if _, err := io.ReadFull(agent, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := io.WriteString(agent, answer101); err != nil {
			t.Fatal(err)
		}
		if _, err := agent.Read(make([]byte, 1)); err == nil {
			t.Error("the agent was not told")
		}
		_ = agent.Close()
		<-ended
		if waited := time.Since(start); waited < deadAfter || waited > deadAfter+2*closeWait {
			t.Errorf("given up after %s, want %s", waited, deadAfter)
		}
	})
}

// TestViewersSocket: the kernel is told how long a viewer may be silent, and how little is to wait in it.
func TestViewersSocket(t *testing.T) {
	t.Parallel()
	_, near := sockets(t)
	watch(vpc.NewConn(near, nil))
	socket, err := near.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []struct {
		name                string
		level, option, want int
	}{
		{"SO_KEEPALIVE", syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
		{"TCP_KEEPIDLE", syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 15},
		{"TCP_KEEPINTVL", syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 5},
		{"TCP_KEEPCNT", syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT, 3},
		{"TCP_USER_TIMEOUT", syscall.IPPROTO_TCP, tcpUserTimeout, 30_000},
		{"TCP_NOTSENT_LOWAT", syscall.IPPROTO_TCP, tcpNotSentLowat, 64 << 10},
		{"TCP_NODELAY", syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1},
	} {
		var got int
		_ = socket.Control(func(fd uintptr) { got, err = syscall.GetsockoptInt(int(fd), o.level, o.option) })
		if err != nil || got != o.want {
			t.Errorf("%s: got %d, %v; want %d", o.name, got, err, o.want)
		}
	}
}

// TestQuietRelayHoldsNoBuffer: after bytes went both ways, neither direction keeps what they were carried in.
func TestQuietRelayHoldsNoBuffer(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"plain", "TLS"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			near, far := unixSockets(t)
			var src *source
			var write func([]byte) error
			if way == "plain" {
				src = newSource(near)
				write = func(b []byte) error { _, err := far.Write(b); return err }
			} else {
				server := Secure(near, &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}})
				client := tls.Client(far, &tls.Config{InsecureSkipVerify: true})
				var wg sync.WaitGroup
				wg.Go(func() { _ = client.HandshakeContext(t.Context()) })
				if err := server.HandshakeContext(t.Context()); err != nil {
					t.Fatal(err)
				}
				wg.Wait()
				src = newSource(server)
				write = func(b []byte) error { _, err := client.Write(b); return err }
			}
			if err := write([]byte("some")); err != nil {
				t.Fatal(err)
			}
			if b, err := src.next(); string(b) != "some" || err != nil {
				t.Fatalf("got %q, %v", b, err)
			}
			if src.buf == nil {
				t.Fatal("the test does not see the buffer")
			}
			_ = near.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			if _, err := src.next(); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("with nothing to read: %v", err)
			}
			if src.buf != nil || src.records != nil && src.records.in != nil {
				t.Error("a buffer was held while nothing came")
			}
			_ = near.SetReadDeadline(time.Now().Add(carryPatience))
			if err := write([]byte("more")); err != nil {
				t.Fatal(err)
			}
			if b, err := src.next(); string(b) != "more" || err != nil {
				t.Errorf("after quiet: got %q, %v", b, err)
			}
		})
	}
}

// TestManyRelaysLeaveNothing: 2,000 connections that come and go, each ended by another of the ways to end one.
func TestManyRelaysLeaveNothing(t *testing.T) {
	descriptors := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	cert := selfSigned(t)
	beforeGoroutines, beforeDescriptors := runtime.NumGoroutine(), descriptors()
	t.Run("2000", func(t *testing.T) {
		var wg sync.WaitGroup
		for worker := range 8 {
			wg.Go(func() {
				for i := range 250 {
					// In a test of its own, so that what it opened is closed with it.
					t.Run("one", func(t *testing.T) {
						way := "plain"
						if i%8 == worker {
							way = "TLS"
						}
						c := join(t, way, cert)
						if _, err := io.WriteString(c.agent, "x"); err != nil {
							t.Fatal(err)
						}
						if _, err := io.ReadFull(c.viewer, make([]byte, 1)); err != nil {
							t.Fatal(err)
						}
						switch i % 4 {
						case 0:
							_ = c.viewer.Close()
						case 1:
							_ = c.agent.Close()
						case 2:
							_ = underClient(c.viewer).Close()
						default:
							c.relay.cut()
						}
						_, _ = c.viewer.Close(), c.agent.Close()
						c.wait(t)
					})
				}
			})
		}
		wg.Wait()
	})
	ctx, cancel := context.WithTimeout(t.Context(), carryPatience)
	defer cancel()
	for runtime.NumGoroutine() > beforeGoroutines || descriptors() > beforeDescriptors {
		if ctx.Err() != nil {
			t.Fatalf("left: goroutines %d, were %d; descriptors %d, were %d", runtime.NumGoroutine(), beforeGoroutines, descriptors(), beforeDescriptors)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
