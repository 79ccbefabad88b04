package gateway

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// closeWait is how long one way may carry nothing when the other has ended.
	closeWait = 2 * time.Second
	// spliceFrom is how much of a frame has to be outstanding before a plain connection's bytes are left to the kernel.
	spliceFrom = burst

	// drainStep is how long relays may end by themselves, then how long viewers may take to close, and then how long it takes to cut
	// them off: together well within the 5 s that a server has to end.
	drainStep = time.Second

	// A viewer that answers nothing for this long is gone (docs/protocol.md has the same limit for messages).
	deadAfter         = 30 * time.Second
	keepAliveIdle     = 15 * time.Second
	keepAliveInterval = 5 * time.Second
	keepAliveCount    = 3

	// unsent is how much may wait in the kernel before the network takes it: enough to keep a link busy, and on a slow one the rest waits
	// where its sender knows of it (docs/adr/0022).
	unsent = burst

	tcpUserTimeout  = 0x12 // linux/tcp.h; package syscall lacks them
	tcpNotSentLowat = 0x19
)

// relay carries the bytes of one channel between a viewer and an agent.
//
// Nothing is queued here. What has to wait waits in the bounded buffers of the two sockets, so a viewer that does not read stops the
// reads from its own agent and nothing else. A direction holds one pooled buffer while bytes are on their way, and none while it is
// quiet.
type relay struct {
	viewer  net.Conn // *tls.Conn, or wire
	wire    net.Conn // what the driver accepted
	records *records // under TLS of Secure
	timed   bool     // the kernel does not notice that this viewer reads nothing
	agent   net.Conn

	frames  frames       // of the agent; belongs to the way down
	parting atomic.Int32 // close code that the viewer is to get at the end of the current frame; 0: none
	moved   atomic.Int64 // bytes both ways

	mu    sync.Mutex  // guards the rest
	limit *time.Timer // of the way that goes on when the other has ended
	seen  int64       // moved when limit was set
}

func newRelay(viewer, agent net.Conn) *relay {
	r := &relay{viewer: viewer, agent: agent}
	r.wire, r.records = under(viewer)
	return r
}

// run sends head and early to the agent, then carries bytes until both ways have ended. It closes both connections.
func (r *relay) run(head string, early []byte) (up, down int64) {
	defer func() { _ = r.viewer.Close() }()
	defer func() { _ = r.agent.Close() }()
	r.timed = !watch(r.wire)
	if _, err := r.agent.Write(append([]byte(head), early...)); err != nil {
		return 0, 0
	}
	var ways sync.WaitGroup
	ways.Go(func() {
		down = r.down()
		r.finish(r.viewer)
	})
	up = int64(len(early)) + r.up()
	r.finish(r.agent)
	ways.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limit.Stop()
	return up, down
}

// finish tells a side that the way towards it has ended. The other way ends by itself when that side takes the goodbye; a side that
// does not, and has nothing more to say, is cut off.
func (r *relay) finish(to net.Conn) {
	halfClose(to)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.limit == nil {
		r.seen = r.moved.Load()
		r.limit = time.AfterFunc(closeWait, r.late)
	}
}

func (r *relay) late() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := r.moved.Load(); n != r.seen {
		r.seen = n
		r.limit.Reset(closeWait)
		return
	}
	r.cut()
}

// cut ends both ways at once.
func (r *relay) cut() {
	_ = r.wire.Close()
	_ = r.agent.Close()
}

// leave says goodbye to the viewer with a close code as soon as the agent is between two frames. It does not wait.
func (r *relay) leave(code refusalCode) {
	r.parting.Store(int32(code))
	_ = r.agent.SetReadDeadline(time.Now()) // wakes the way down
}

// down carries bytes from the agent to the viewer.
func (r *relay) down() (total int64) {
	src := newSource(r.agent)
	defer src.release()
	var kernel *net.TCPConn // the viewer's, when the kernel can carry bytes to it
	if r.viewer == r.wire && src.socket != nil {
		kernel, _ = raw(r.wire).(*net.TCPConn)
	}
	for {
		b, err := src.next()
		code := r.parting.Load()
		if code != 0 {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = r.agent.SetReadDeadline(time.Time{}) // of leave
			}
			if len(b) > 0 && !r.frames.between() {
				b = b[:r.frames.next(b)]
			} else {
				b = nil
			}
		} else {
			r.frames.skip(b)
		}
		if len(b) > 0 {
			if werr := r.toViewer(b); werr != nil {
				return total
			}
			total += r.note(len(b))
		}
		if code != 0 && r.frames.between() {
			_ = r.toViewer(closeFrame(refusalCode(code), "the gateway restarts; the session goes on"))
			return total
		}
		if err == nil && kernel != nil && r.frames.left >= spliceFrom {
			src.release()
			var n int64
			n, err = io.CopyN(kernel, raw(r.agent), int64(min(r.frames.left, 1<<40))) //nolint:gosec // bounded in the same expression
			r.frames.pass(uint64(n))                                                  //nolint:gosec // not negative
			total += r.note(int(n))
			if errors.Is(err, os.ErrDeadlineExceeded) && r.parting.Load() != 0 {
				err = nil // looked at with the next read
			}
		}
		if err != nil {
			return total
		}
	}
}

// toViewer writes b with one system call, whatever number of TLS records it makes.
func (r *relay) toViewer(b []byte) error {
	if r.timed {
		_ = r.wire.SetWriteDeadline(time.Now().Add(deadAfter))
	}
	if r.records == nil || len(b) <= smallBuffer {
		_, err := r.viewer.Write(b)
		return err
	}
	r.records.gather()
	_, err := r.viewer.Write(b)
	return errors.Join(err, r.records.send())
}

// up carries bytes from the viewer to the agent.
func (r *relay) up() (total int64) {
	src := newSource(r.viewer)
	defer src.release()
	for {
		b, err := src.next()
		if len(b) > 0 {
			if _, werr := r.agent.Write(b); werr != nil {
				return total
			}
			total += r.note(len(b))
		}
		if err != nil {
			return total
		}
	}
}

// note counts n bytes that moved, and returns n.
func (r *relay) note(n int) int64 {
	r.moved.Add(int64(n))
	return int64(n)
}

// source reads one connection with a buffer that it holds only while bytes come.
type source struct {
	conn    net.Conn
	records *records        // under conn; nil: conn is no TLS of ours
	socket  syscall.RawConn // of conn; nil: conn cannot be watched
	buf     *buffer
	n       int
	err     error
	try     func(fd uintptr) bool
	small   []byte // while quiet, for connections that cannot be watched
}

const smallBuffer = 512

func newSource(c net.Conn) *source {
	s := &source{conn: c}
	if _, r := under(c); r != nil && r.watch() {
		s.records = r
		return s
	}
	if k, ok := raw(c).(syscall.Conn); ok {
		if socket, err := k.SyscallConn(); err == nil {
			s.socket, s.try = socket, s.fill
			return s
		}
	}
	s.small = make([]byte, smallBuffer)
	return s
}

// next waits for bytes. They are valid until the next call; with an error there may be some too.
func (s *source) next() ([]byte, error) {
	switch {
	case s.records != nil:
		return s.nextRecords()
	case s.socket != nil:
		if err := s.socket.Read(s.try); err != nil {
			s.release()
			return nil, err
		}
		return s.buf[:s.n], s.err
	case s.buf != nil:
		n, err := s.conn.Read(s.buf[:])
		b := s.buf[:n]
		if n <= len(s.small) { // it has become quiet
			b = s.small[:copy(s.small, b)]
			s.release()
		}
		return b, err
	default:
		n, err := s.conn.Read(s.small)
		if n == len(s.small) {
			s.take()
		}
		return s.small[:n], err
	}
}

// fill reads once; false: nothing is there, and the buffer is given back for the time of waiting.
func (s *source) fill(fd uintptr) bool {
	s.take()
	var ready bool
	s.n, ready, s.err = readSocket(fd, s.buf[:])
	if !ready {
		s.release()
	}
	return ready
}

// nextRecords decrypts all that has come, or waits for more.
func (s *source) nextRecords() ([]byte, error) {
	for {
		s.take()
		for s.n = 0; s.n < len(s.buf); {
			n, err := s.conn.Read(s.buf[s.n:])
			s.n += n
			if errors.Is(err, errNothing) {
				break
			}
			if err != nil {
				return s.buf[:s.n], err
			}
		}
		if s.n > 0 {
			return s.buf[:s.n], nil
		}
		s.release()
		if err := s.records.await(); err != nil {
			return nil, err
		}
	}
}

func (s *source) take() {
	if s.buf == nil {
		s.buf = buffers.Get().(*buffer) //nolint:forcetypeassert // the pool has no other
	}
}

func (s *source) release() {
	if s.buf != nil {
		buffers.Put(s.buf)
		s.buf = nil
	}
}

// raw is the connection as the kernel knows it, so that its bytes can be carried without a copy.
func raw(c net.Conn) net.Conn {
	if t, ok := c.(interface{ TCP() (*net.TCPConn, bool) }); ok {
		if tcp, ok := t.TCP(); ok {
			return tcp
		}
	}
	return c
}

func halfClose(c net.Conn) {
	if h, ok := raw(c).(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite()
		return
	}
	_ = c.Close()
}

// watch lets the kernel end a connection whose other side has vanished, be it quiet or with bytes on their way, or whose other side
// takes nothing; and hold little that it has not sent. False: it is none of the kernel's.
func watch(c net.Conn) bool {
	tcp, ok := raw(c).(*net.TCPConn)
	if !ok {
		return false
	}
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount})
	if socket, err := tcp.SyscallConn(); err == nil {
		_ = socket.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(deadAfter/time.Millisecond))
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowat, unsent)
		})
	}
	return true
}

// closeFrame is a server's WebSocket close frame.
func closeFrame(code refusalCode, reason string) []byte {
	reason = reason[:min(len(reason), maxReason)]
	b := []byte{0x80 | opClose, byte(2 + len(reason))}
	return append(binary.BigEndian.AppendUint16(b, uint16(code)), reason...)
}

// relays are the live relays of a gateway.
type relays struct {
	running sync.WaitGroup

	mu      sync.Mutex // guards the rest
	closed  bool
	live    map[*relay]struct{}
	settled int         // live ones when memory was last given back
	settle  *time.Timer // until it is given back
}

// The arrival of a crowd leaves the heap at a multiple of what its connections need while they are quiet (handshakes, grown stacks),
// and the collector keeps it so: nothing else allocates. It is collected once when so many have come, a quarter more than the last
// time, and for a while no more do.
const (
	crowd       = 500
	settleAfter = 2 * time.Second
)

func (s *relays) arrived() {
	if n := len(s.live); n < crowd || n < s.settled+s.settled/4 {
		return
	}
	if s.settle != nil {
		s.settle.Reset(settleAfter)
		return
	}
	s.settle = time.AfterFunc(settleAfter, func() {
		s.mu.Lock()
		s.settled = len(s.live)
		s.mu.Unlock()
		debug.FreeOSMemory()
	})
}

// enter counts a relay in; false when no more are taken.
func (s *relays) enter(r *relay) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.live == nil {
		s.live = map[*relay]struct{}{}
	}
	s.live[r] = struct{}{}
	s.running.Add(1)
	s.arrived()
	return true
}

func (s *relays) exit(r *relay) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, r)
	s.settled = min(s.settled, len(s.live))
	s.running.Done()
}

// each calls f of all live relays.
func (s *relays) each(f func(*relay)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for r := range s.live {
		f(r)
	}
}

// drain takes no more relays and returns when all have ended. For a while they may end by themselves, as they do when the agents end
// too; then the viewers are told to come back; who stays after that is cut off.
func (s *relays) drain() {
	s.mu.Lock()
	s.closed = true
	if s.settle != nil {
		s.settle.Stop()
	}
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		s.running.Wait()
		close(ended)
	}()
	for _, step := range []func(*relay){
		func(*relay) {},
		func(r *relay) { r.leave(codeRestart) },
		(*relay).cut,
	} {
		s.each(step)
		select {
		case <-ended:
			return
		case <-time.After(drainStep):
		}
	}
	<-ended
}
