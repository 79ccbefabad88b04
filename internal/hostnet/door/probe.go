package door

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"penstock.dev/penstock/internal/vpc"
)

// probePatience bounds a check of one port.
const probePatience = 5 * time.Second

// probe is the remote end of a check's connection.
type probe struct {
	in   vpc.VPCID
	from netip.AddrPort
}

// Probe connects to a port from an address of the driver's own, and waits until the connection arrives where Probed is
// asked: another process on the same address is not taken for this one. in tells apart networks whose addresses may be equal.
// It dials in the network namespace of the calling thread.
func (d *Door) Probe(ctx context.Context, in vpc.VPCID, from netip.Addr, to netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	arrived := make(chan struct{})
	var key probe
	defer func() {
		d.mu.Lock()
		delete(d.probes, key)
		d.mu.Unlock()
	}()
	// The port is registered before the connection is made, so that it cannot arrive unknown.
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if cerr := raw.Control(func(fd uintptr) {
			if d.cfg.Adopt != nil {
				if err = d.cfg.Adopt(fd); err != nil {
					return
				}
			}
			var at netip.AddrPort
			if at, err = bind(int(fd), from); err != nil {
				return
			}
			key = probe{in, at}
			d.mu.Lock()
			d.probes[key] = arrived
			d.mu.Unlock()
		}); cerr != nil {
			return cerr
		}
		return err
	}}
	c, err := dialer.DialContext(ctx, "tcp", to.String())
	if err != nil {
		select {
		case <-arrived: // and was reset before the dialer looked
			return nil
		default:
			return err
		}
	}
	defer c.Close()
	select {
	case <-arrived:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("another process answers: %w", ctx.Err())
	case <-d.done:
		return net.ErrClosed
	}
}

// Probed says whether a connection is a check's. If so, the check is answered and the connection reset.
func (d *Door) Probed(in vpc.VPCID, c *net.TCPConn) bool {
	key := probe{in, AddrPort(c.RemoteAddr())}
	d.mu.Lock()
	arrived := d.probes[key]
	delete(d.probes, key)
	d.mu.Unlock()
	if arrived == nil {
		return false
	}
	close(arrived)
	Reset(c)
	return true
}

// bind gives a socket an address and any free port, and returns both.
func bind(fd int, a netip.Addr) (netip.AddrPort, error) {
	var want syscall.Sockaddr = &syscall.SockaddrInet6{Addr: a.As16()}
	if a.Is4() {
		want = &syscall.SockaddrInet4{Addr: a.As4()}
	}
	if err := syscall.Bind(fd, want); err != nil {
		return netip.AddrPort{}, err
	}
	got, err := syscall.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, err
	}
	switch at := got.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port)), nil
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(at.Addr).Unmap(), uint16(at.Port)), nil
	}
	return netip.AddrPort{}, errors.New("not a socket of IP")
}
