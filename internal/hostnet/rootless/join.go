package rootless

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// pipeSize is how much is on its way in one direction at most: what a pipe holds unless told otherwise.
	pipeSize = 64 << 10
	// maxPipes bounds the pipes kept for the next use, two descriptors each.
	maxPipes = 64
)

// pipes are kernel buffers between two sockets. A connection has one only while bytes are on their way: an idle one costs
// no descriptor beyond its two sockets.
type pipes struct {
	mu   sync.Mutex
	free []pipe
	shut bool
}

type pipe struct{ r, w int }

func (p *pipes) get() (pipe, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.free); n > 0 {
		out := p.free[n-1]
		p.free = p.free[:n-1]
		return out, nil
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return pipe{}, os.NewSyscallError("pipe2", err)
	}
	return pipe{fds[0], fds[1]}, nil
}

// put takes a pipe back; one that may hold bytes of its last use is closed.
func (p *pipes) put(x pipe, empty bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if empty && !p.shut && len(p.free) < maxPipes {
		p.free = append(p.free, x)
		return
	}
	_, _ = unix.Close(x.r), unix.Close(x.w)
}

func (p *pipes) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shut = true
	for _, x := range p.free {
		_, _ = unix.Close(x.r), unix.Close(x.w)
	}
	p.free = nil
}

// join carries bytes both ways until both ends are done, or one of them fails, which resets the other. The bytes stay in the kernel.
// An end that closes its side for writing may go on reading.
func join(p *pipes, a, b *net.TCPConn) {
	var both sync.WaitGroup
	for _, way := range []struct{ dst, src *net.TCPConn }{{a, b}, {b, a}} {
		both.Go(func() {
			err := flow(p, way.dst, way.src)
			if err == nil {
				err = way.dst.CloseWrite()
			}
			if err == nil {
				return
			}
			for _, c := range []*net.TCPConn{way.dst, way.src} {
				_ = c.SetLinger(0) // the other side is to learn that it was cut off, not that it ended
				_ = c.Close()      // which ends the other direction
			}
		})
	}
	both.Wait()
}

// flow carries bytes one way until src ends.
func flow(p *pipes, dst, src *net.TCPConn) error {
	from, err := src.SyscallConn()
	if err != nil {
		return err
	}
	to, err := dst.SyscallConn()
	if err != nil {
		return err
	}
	for {
		x, n, err := take(p, from)
		if err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
		for err == nil && n > 0 {
			var m int64
			if werr := to.Write(func(fd uintptr) bool {
				m, err = splice(x.r, int(fd), int(n))
				return !errors.Is(err, unix.EAGAIN)
			}); werr != nil {
				err = werr
			} else if err == nil && m == 0 {
				err = io.ErrShortWrite
			}
			n -= m
		}
		p.put(x, n == 0)
		if err != nil {
			return err
		}
	}
}

// take waits until there is something to read and moves it into a pipe; n is 0 at the end, and then there is no pipe.
func take(p *pipes, from rawReader) (x pipe, n int64, err error) {
	if rerr := from.Read(func(fd uintptr) bool {
		if x, err = p.get(); err != nil {
			return true
		}
		n, err = splice(int(fd), x.w, pipeSize)
		if n > 0 {
			return true
		}
		p.put(x, true)
		if errors.Is(err, unix.EAGAIN) {
			err = nil
			return false
		}
		return true
	}); rerr != nil {
		return x, 0, rerr
	}
	return x, n, err
}

// rawReader is the part of syscall.RawConn that waits for something to read.
type rawReader interface {
	Read(f func(fd uintptr) bool) error
}

// splice moves up to n bytes. None without an error means that the source has ended.
func splice(from, to, n int) (int64, error) {
	for {
		m, err := unix.Splice(from, nil, to, nil, n, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		if !errors.Is(err, unix.EINTR) {
			return max(m, 0), err
		}
	}
}
