package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/mdlayher/socket"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// nfSocket is a netfilter socket of one namespace. Unlike the library's connections it hands out messages as they come, so
// that a dump of a large table is never in memory as a whole.
type nfSocket struct {
	c   *socket.Conn
	buf []byte
	seq uint32
}

const (
	nfHeader     = 16       // of a netlink message: u32 length, u16 type, u16 flags, u32 sequence, u32 port; in the machine's order
	nfGeneral    = 4        // of a netfilter message: u8 family, u8 version, u16 resource
	nfDatagram   = 64 << 10 // more than the kernel puts into one
	nfSendBuffer = 64 << 10
)

func dialNetfilter(ns netns.NsHandle, buffer int) (*nfSocket, error) {
	c, err := socket.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER, "netlink", &socket.Config{NetNS: int(ns)})
	if err != nil {
		return nil, err
	}
	err = errors.Join(c.Bind(&unix.SockaddrNetlink{Family: unix.AF_NETLINK}), c.SetReadBuffer(buffer), c.SetWriteBuffer(nfSendBuffer))
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &nfSocket{c: c, buf: make([]byte, nfDatagram)}, nil
}

func (s *nfSocket) close() { _ = s.c.Close() } // nobody waits for it

// send writes a request; attributes are its attributes as bytes.
func (s *nfSocket) send(typ, flags uint16, family byte, resource uint16, attributes []byte) error {
	s.seq++
	b := make([]byte, nfHeader+nfGeneral, nfHeader+nfGeneral+len(attributes))
	b = append(b, attributes...)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], typ)
	binary.NativeEndian.PutUint16(b[6:], flags|unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(b[8:], s.seq)
	b[nfHeader] = family
	binary.BigEndian.PutUint16(b[nfHeader+2:], resource)
	return s.c.Sendto(context.Background(), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// receive waits for one datagram and hands each of its messages to f, whose data are valid until f returns. A message of
// kind error or end is not handed out: it ends the exchange that it answers.
func (s *nfSocket) receive(f func(typ uint16, family byte, attributes []byte)) (end bool, err error) {
	n, _, err := s.c.Recvfrom(context.Background(), s.buf, 0)
	if err != nil {
		return false, err
	}
	return nfMessages(s.buf[:n], f)
}

// exchange sends a request and hands out the answers until the kernel says that it is done.
func (s *nfSocket) exchange(limit time.Duration, typ, flags uint16, family byte, resource uint16, attributes []byte, f func(typ uint16, family byte, attributes []byte)) error {
	if err := s.c.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	defer func() { _ = s.c.SetDeadline(time.Time{}) }()
	if err := s.send(typ, flags, family, resource, attributes); err != nil {
		return err
	}
	for {
		end, err := s.receive(f)
		if end || err != nil {
			return err
		}
	}
}

// nfMessages walks the messages of a datagram.
func nfMessages(b []byte, f func(typ uint16, family byte, attributes []byte)) (end bool, err error) {
	for len(b) >= nfHeader {
		n := int(binary.NativeEndian.Uint32(b))
		if n < nfHeader || n > len(b) {
			return false, fmt.Errorf("netlink message of %d bytes in %d", n, len(b))
		}
		typ, body := binary.NativeEndian.Uint16(b[4:]), b[nfHeader:n]
		multi := binary.NativeEndian.Uint16(b[6:])&unix.NLM_F_MULTI != 0
		b = b[min(len(b), (n+3)&^3):]
		switch {
		case typ == unix.NLMSG_DONE && multi:
			return true, nil
		case typ == unix.NLMSG_ERROR:
			if len(body) < 4 {
				return true, errors.New("netlink error without a number")
			}
			if errno := -int32(binary.NativeEndian.Uint32(body)); errno != 0 {
				return true, syscall.Errno(errno)
			}
			return true, nil
		case typ < unix.NLMSG_MIN_TYPE || len(body) < nfGeneral: // the end of a batch of logged packets
		default:
			f(typ, body[0], body[nfGeneral:])
		}
	}
	return false, nil
}

// nfAttributes walks attributes: u16 length, u16 type, data, padded to four bytes.
func nfAttributes(b []byte, f func(typ uint16, data []byte)) {
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[4:n])
		b = b[min(len(b), (n+3)&^3):]
	}
}

// nfAttribute adds an attribute.
func nfAttribute(b []byte, typ uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(data)))
	b = append(binary.NativeEndian.AppendUint16(b, typ), data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// writeSetting sets a sysctl of the namespace of the calling thread.
func writeSetting(path, value string) error {
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		return fmt.Errorf("set %s: %w", path, err)
	}
	return nil
}
