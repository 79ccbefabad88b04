package rootless

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Host opens sockets of the machine's network: the process outside makes them and hands them over, and a socket keeps the
// namespace that it was made in. Its methods may be called concurrently.
type Host struct {
	lifeline *os.File // ends with the process outside

	asking sync.Mutex // one question at a time
	link   *net.UnixConn
}

// hostPatience bounds a question to the process outside.
const hostPatience = 10 * time.Second

// question asks for a socket. Each is one packet on the link, answered by another.
type question struct {
	Op      string `json:"op"`
	Network string `json:"network,omitempty"`
	Address string `json:"address,omitempty"`
}

// The operations of questions.
const (
	opListen = "listen" // a listener of TCP, or of an abstract Unix name
	opPacket = "packet" // a UDP socket
	opSocket = "socket" // a TCP socket over IPv4 that is bound to nothing
)

// answer comes with the socket, or says why there is none.
type answer struct {
	Error string        `json:"error,omitempty"`
	Errno syscall.Errno `json:"errno,omitempty"`
}

// hostError is what went wrong outside, with the error number that callers look for.
type hostError struct {
	text  string
	errno syscall.Errno
}

func (e *hostError) Error() string { return e.text }

// Unwrap is the error number.
func (e *hostError) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}

// Listen is net.Listen in the machine's network. Names of Unix sockets must be abstract.
func (h *Host) Listen(network, address string) (net.Listener, error) {
	f, err := h.ask(question{Op: opListen, Network: network, Address: address})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FileListener(f)
}

// ListenPacket is net.ListenPacket in the machine's network.
func (h *Host) ListenPacket(network, address string) (net.PacketConn, error) {
	f, err := h.ask(question{Op: opPacket, Network: network, Address: address})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return net.FilePacketConn(f)
}

// Adopt puts a new TCP socket of the machine's network in the place of the descriptor, which a dialer made and uses for nothing yet.
func (h *Host) Adopt(fd uintptr) error {
	f, err := h.ask(question{Op: opSocket})
	if err != nil {
		return err
	}
	defer f.Close()
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := conn.Control(func(from uintptr) {
		failed = errors.Join(unix.SetNonblock(int(from), true), unix.Dup3(int(from), int(fd), unix.O_CLOEXEC))
	}); err != nil {
		return err
	}
	return failed
}

// Gone returns when the process outside is no more.
func (h *Host) Gone() {
	_, _ = h.lifeline.Read(make([]byte, 1)) // nothing is ever written to it
}

func (h *Host) ask(q question) (*os.File, error) {
	h.asking.Lock()
	defer h.asking.Unlock()
	b, err := json.Marshal(q)
	if err != nil {
		return nil, err
	}
	if err := h.link.SetDeadline(time.Now().Add(hostPatience)); err != nil {
		return nil, fmt.Errorf("ask for a socket of the machine's network: %w", err)
	}
	if _, err := h.link.Write(b); err != nil {
		return nil, fmt.Errorf("ask for a socket of the machine's network: %w", err)
	}
	buf, rights := make([]byte, 4<<10), make([]byte, unix.CmsgSpace(4))
	n, m, _, _, err := h.link.ReadMsgUnix(buf, rights)
	if err != nil {
		return nil, fmt.Errorf("ask for a socket of the machine's network: %w", err)
	}
	var a answer
	if err := json.Unmarshal(buf[:n], &a); err != nil {
		return nil, fmt.Errorf("ask for a socket of the machine's network: %w", err)
	}
	if a.Error != "" {
		return nil, &hostError{a.Error, a.Errno}
	}
	messages, err := unix.ParseSocketControlMessage(rights[:m])
	if err != nil || len(messages) != 1 {
		return nil, errors.New("ask for a socket of the machine's network: none came with the answer")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.New("ask for a socket of the machine's network: none came with the answer")
	}
	return os.NewFile(uintptr(fds[0]), q.Network+" "+q.Address), nil
}

// serveSockets answers questions until the link ends. It keeps no socket.
func serveSockets(link *net.UnixConn) {
	buf := make([]byte, 4<<10)
	for {
		n, err := link.Read(buf)
		if err != nil || n == 0 {
			return
		}
		var q question
		var f *os.File
		if err = json.Unmarshal(buf[:n], &q); err == nil {
			f, err = open(q)
		}
		var a answer
		var rights []byte
		if err != nil {
			a.Error = err.Error()
			a.Errno, _ = errors.AsType[syscall.Errno](err)
		} else {
			rights = unix.UnixRights(int(f.Fd()))
		}
		b, err := json.Marshal(a)
		if err == nil {
			_, _, err = link.WriteMsgUnix(b, rights, nil)
		}
		if f != nil {
			_ = f.Close() // the socket lives on inside
		}
		if err != nil {
			return
		}
	}
}

// open makes the socket of a question.
func open(q question) (*os.File, error) {
	ctx, cancel := context.WithTimeout(context.Background(), hostPatience)
	defer cancel()
	var lc net.ListenConfig
	switch q.Op {
	case opListen:
		l, err := lc.Listen(ctx, q.Network, q.Address)
		if err != nil {
			return nil, err
		}
		defer l.Close()
		switch l := l.(type) {
		case *net.TCPListener:
			return l.File()
		case *net.UnixListener:
			return l.File()
		}
		return nil, fmt.Errorf("%s is no network to listen on", q.Network)
	case opPacket:
		p, err := lc.ListenPacket(ctx, q.Network, q.Address)
		if err != nil {
			return nil, err
		}
		defer p.Close()
		if u, ok := p.(*net.UDPConn); ok {
			return u.File()
		}
		return nil, fmt.Errorf("%s is no network of packets", q.Network)
	case opSocket:
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
		if err != nil {
			return nil, os.NewSyscallError("socket", err)
		}
		return os.NewFile(uintptr(fd), "socket"), nil
	}
	return nil, fmt.Errorf("unknown operation %q", q.Op)
}
