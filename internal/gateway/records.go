package gateway

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
)

const (
	burst = 64 << 10 // most that is carried at once
	// overhead is room for what TLS adds to a burst: 22 bytes a record, which hold 16 KiB, the first ones about 1,300 bytes.
	overhead = 2 << 10
)

type (
	buffer [burst]byte
	sealed [burst + overhead]byte
)

// The pools are shared by all relays: a buffer is held only while bytes are on their way.
//
//nolint:gochecknoglobals // pools
var (
	buffers = sync.Pool{New: func() any { return new(buffer) }}
	sealeds = sync.Pool{New: func() any { return new(sealed) }}
)

// Secure makes the server's end of a TLS connection in a way that lets a relay carry its bytes in few system calls and hold no buffer
// while it is quiet. The handshake is the caller's or happens at first use.
func Secure(c net.Conn, config *tls.Config) *tls.Conn {
	r := &records{Conn: c}
	if s, ok := raw(c).(syscall.Conn); ok {
		r.socket, _ = s.SyscallConn() // an error: it reads like any other connection
	}
	return tls.Server(r, config)
}

// SecureListener is l with Secure for each connection.
func SecureListener(l net.Listener, config *tls.Config) net.Listener {
	return secureListener{l, config}
}

type secureListener struct {
	net.Listener
	config *tls.Config
}

func (l secureListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return Secure(c, l.config), nil
}

// under is the connection that carries c: what the driver accepted. With it come the records of a TLS connection that Secure made.
func under(c net.Conn) (net.Conn, *records) {
	t, ok := c.(*tls.Conn)
	if !ok {
		return c, nil
	}
	if r, ok := t.NetConn().(*records); ok {
		return r.Conn, r
	}
	return t.NetConn(), nil
}

// records is the connection under TLS. Once a relay reads, Read does not wait any more but says errNothing, and await waits for
// it. Between gather and send, Write collects the records that TLS makes of one burst.
type records struct {
	net.Conn
	socket syscall.RawConn // nil: it cannot be watched

	// Of the reading goroutine.
	relaying bool
	in       *buffer
	from, to int
	err      error
	try      func(fd uintptr) bool

	mu  sync.Mutex // guards the rest, and the order of writes
	out *sealed
	n   int
}

// nothing is a temporary error, after which a tls.Conn can be read again.
type nothing struct{ error }

func (nothing) Timeout() bool   { return true }
func (nothing) Temporary() bool { return true }

//nolint:gochecknoglobals // a sentinel
var errNothing net.Error = nothing{errors.New("nothing has come yet")}

// watch makes Read say errNothing instead of waiting; false when the connection cannot do that.
func (r *records) watch() bool {
	if r.socket == nil {
		return false
	}
	r.relaying, r.try = true, r.fill
	return true
}

// await waits until something has come, or the end.
func (r *records) await() error {
	if err := r.socket.Read(r.try); err != nil {
		return err
	}
	return r.err
}

// fill reads once; false: nothing is there.
func (r *records) fill(fd uintptr) bool {
	if r.in == nil {
		r.in = buffers.Get().(*buffer) //nolint:forcetypeassert // the pool has no other
	}
	r.from = 0
	var ready bool
	r.to, ready, r.err = readSocket(fd, r.in[:])
	if r.to == 0 {
		r.release()
	}
	return ready
}

func (r *records) release() {
	if r.in != nil {
		buffers.Put(r.in)
		r.in, r.from, r.to = nil, 0, 0
	}
}

// readSocket reads what is there. ready is false when nothing is; the end is io.EOF.
func readSocket(fd uintptr, b []byte) (n int, ready bool, err error) {
	for {
		n, err = syscall.Read(int(fd), b)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EAGAIN):
			return 0, false, nil
		case err != nil:
			return 0, true, err
		case n == 0:
			return 0, true, io.EOF
		default:
			return n, true, nil
		}
	}
}

// Read is called by TLS.
func (r *records) Read(b []byte) (int, error) {
	if !r.relaying {
		return r.Conn.Read(b)
	}
	if r.in == nil {
		if r.err != nil {
			return 0, r.err
		}
		return 0, errNothing
	}
	n := copy(b, r.in[r.from:r.to])
	if r.from += n; r.from == r.to {
		r.release()
	}
	return n, nil
}

// Write is called by TLS, once a record.
func (r *records) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.out == nil {
		return r.Conn.Write(b)
	}
	if len(b) > len(r.out)-r.n {
		if err := r.flush(); err != nil {
			return 0, err
		}
	}
	if len(b) > len(r.out) {
		return r.Conn.Write(b)
	}
	r.n += copy(r.out[r.n:], b)
	return len(b), nil
}

// gather begins to collect what is written.
func (r *records) gather() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.out = sealeds.Get().(*sealed) //nolint:forcetypeassert // the pool has no other
}

// send writes what was collected, and ends collecting.
func (r *records) send() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.flush()
	sealeds.Put(r.out)
	r.out = nil
	return err
}

func (r *records) flush() error {
	n := r.n
	r.n = 0
	_, err := r.Conn.Write(r.out[:n])
	return err
}
