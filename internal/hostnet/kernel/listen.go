package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/vpc"
)

// listen binds every port of the VPC's interfaces once, on all addresses of its namespace: the interface is read from the
// accepted connection. It returns what is wrong with each interface.
func (d *Driver) listen(n *network, interfaces []vpc.PlannedInterface) map[vpc.NetworkInterfaceID]error {
	wanted := map[uint16]bool{}
	for _, p := range interfaces {
		for _, r := range p.Ports {
			for port := r.From; port <= r.To; port++ {
				wanted[uint16(port)] = true
			}
		}
	}
	var missing []uint16
	for port := range wanted {
		if n.listeners[port] == nil {
			missing = append(missing, port)
		}
	}
	for port, l := range n.listeners {
		if !wanted[port] {
			delete(n.listeners, port)
			_ = l.Close() // nobody waits for it
		}
	}
	broken := map[uint16]error{}
	if len(missing) > 0 {
		opened := map[uint16]net.Listener{}
		err := inside(n.ns, func() error {
			for _, port := range missing {
				l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4zero, Port: int(port)})
				if err != nil {
					broken[port] = err
					continue
				}
				opened[port] = l
			}
			return nil
		})
		for _, port := range missing {
			if err != nil {
				broken[port] = err
			}
		}
		for port, l := range opened {
			n.listeners[port] = l
			d.work.Go(func() { d.serve(n, l, port) })
		}
	}
	out := map[vpc.NetworkInterfaceID]error{}
	for _, p := range interfaces {
		for port, err := range broken {
			if out[p.ID] == nil && slices.ContainsFunc(p.Ports, func(r vpc.PortRange) bool { return r.Contains(port) }) {
				out[p.ID] = fmt.Errorf("listen for %s: %w", netip.AddrPortFrom(p.Addr, port), err)
			}
		}
	}
	return out
}

// serve accepts on one port of a VPC until it is closed.
func (d *Driver) serve(n *network, l net.Listener, port uint16) {
	var pause time.Duration
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors or memory: wait for better times
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			if now, last := time.Now().Unix(), d.complained.Load(); now != last && d.complained.CompareAndSwap(last, now) {
				d.log.Error("connections could not be accepted", "vpc", n.id, "port", port, "error", err)
			}
			select {
			case <-time.After(pause):
				continue
			case <-d.done:
				return
			}
		}
		pause = 0
		d.judge(n, c.(*net.TCPConn), port)
	}
}

// judge hands a connection to Accept. The packet filter has judged it already; what it should not have let through is reset.
func (d *Driver) judge(n *network, c *net.TCPConn, port uint16) {
	remote, local := addrPort(c.RemoteAddr()), addrPort(c.LocalAddr())
	d.mu.Lock()
	checked := d.probes[probe{n.id, remote}]
	delete(d.probes, probe{n.id, remote})
	i := n.interfaces[local.Addr()]
	source := vpc.VPCID("")
	if n.interfaces[remote.Addr()] != nil {
		source = n.id
	}
	d.mu.Unlock()
	if checked != nil {
		close(checked)
		reset(c)
		return
	}
	if i == nil || !slices.ContainsFunc(i.plan.Ports, func(r vpc.PortRange) bool { return r.Contains(port) }) {
		reset(c) // the interface left while the connection came, or does not listen here
		return
	}
	f := vpc.Flow{VPC: n.id, SrcVPC: source, Protocol: vpc.TCP, Src: remote, Dst: local}
	if verdict := d.snapshot.Load().Explain(f); !verdict.OK {
		d.refused.Add(1)
		reset(c)
		reason := "not admitted"
		if h := verdict.Blocked(); h != nil {
			reason = h.Why
		}
		d.tell(i, f, verdict, reason)
		return
	}
	d.admitted.Add(1)
	conn := d.track(n, i, c, f)
	if conn == nil {
		d.shed.Add(1)
		reset(c)
		d.tell(i, f, vpc.Verdict{}, "too many connections are open")
		return
	}
	select {
	case d.waiting <- conn:
	default:
		d.shed.Add(1)
		_ = c.SetLinger(0) // so that Close resets
		_ = conn.Close()   // nobody is left to tell
		d.tell(i, f, vpc.Verdict{}, "too many connections are waiting")
	}
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// track counts the connection in, or returns nil when there is no room for it or its interface is gone.
func (d *Driver) track(n *network, i *iface, c *net.TCPConn, f vpc.Flow) *vpc.Conn {
	var conn *vpc.Conn
	conn = vpc.NewConn(c, func() { d.untrack(conn) })
	conn.Endpoint, conn.Service, conn.VPC, conn.Interface = i.plan.Endpoint, i.plan.Service, i.plan.VPC, i.plan.ID
	conn.Port, conn.Source, conn.Local = f.Dst.Port(), f.Src, f.Dst
	source := f.Src.Addr()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || n.interfaces[i.plan.Addr] != i || len(d.conns) >= d.cfg.MaxOpen || d.perSource[source] >= d.cfg.MaxPerSource {
		return nil
	}
	d.conns[conn] = open{iface: i, source: source, tcp: c}
	d.perSource[source]++
	return conn
}

func (d *Driver) untrack(c *vpc.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	o, ok := d.conns[c]
	if !ok {
		return
	}
	delete(d.conns, c)
	if d.perSource[o.source]--; d.perSource[o.source] <= 0 {
		delete(d.perSource, o.source)
	}
}

func (d *Driver) tell(i *iface, f vpc.Flow, v vpc.Verdict, reason string) {
	if d.cfg.Refused != nil {
		d.cfg.Refused(vpc.Refusal{Endpoint: i.plan.Endpoint, Interface: i.plan.ID, Flow: f, Verdict: v, Reason: reason})
	}
}

// reset closes a connection so that its user sees a reset and not one byte.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0) // without it the user sees an orderly end
	_ = c.Close()      // it is not ours to report on
}

// Accept returns the next admitted connection that is still open.
func (d *Driver) Accept(ctx context.Context) (*vpc.Conn, error) {
	for {
		select {
		case <-d.done:
			return nil, net.ErrClosed
		default:
		}
		select {
		case c := <-d.waiting:
			d.mu.Lock()
			_, alive := d.conns[c]
			d.mu.Unlock()
			if alive {
				return c, nil
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-d.done:
			return nil, net.ErrClosed
		}
	}
}

// Check connects to every port of the interface from an address of the namespace that the rules let pass, and waits until
// the connection arrives at this driver.
func (d *Driver) Check(ctx context.Context, id vpc.NetworkInterfaceID) error {
	ns, i, err := d.find(id)
	if err != nil {
		return fmt.Errorf("check %s: %w", id, err)
	}
	defer ns.Close()
	return inside(ns, func() error {
		for _, r := range i.plan.Ports {
			for port := r.From; port <= r.To; port++ {
				if err := d.probe(ctx, i.plan.VPC, netip.AddrPortFrom(i.plan.Addr, uint16(port))); err != nil {
					return fmt.Errorf("connect to %s port %d: %w", i.plan.Addr, port, err)
				}
			}
		}
		return nil
	})
}

// find is an interface with a handle of its own to its namespace, which may be closed meanwhile.
func (d *Driver) find(id vpc.NetworkInterfaceID) (netns.NsHandle, *iface, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range d.networks {
		for _, i := range n.interfaces {
			if i.plan.ID != id {
				continue
			}
			if i.err != nil {
				return netns.None(), nil, i.err
			}
			fd, err := unix.FcntlInt(uintptr(n.ns), unix.F_DUPFD_CLOEXEC, 0)
			return netns.NsHandle(fd), i, err
		}
	}
	return netns.None(), nil, vpc.ErrUnknownInterface
}

// probe connects from a port that is registered before the connection is made. It runs on a thread of the namespace.
func (d *Driver) probe(ctx context.Context, id vpc.VPCID, to netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	arrived := make(chan struct{})
	var key probe
	defer func() {
		d.mu.Lock()
		delete(d.probes, key)
		d.mu.Unlock()
	}()
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if cerr := raw.Control(func(fd uintptr) {
			if err = syscall.Bind(int(fd), &syscall.SockaddrInet4{Addr: probeAddr().As4()}); err != nil {
				return
			}
			var sa syscall.Sockaddr
			if sa, err = syscall.Getsockname(int(fd)); err != nil {
				return
			}
			in, ok := sa.(*syscall.SockaddrInet4)
			if !ok {
				err = errors.New("not an IPv4 socket")
				return
			}
			key = probe{id, netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port))}
			d.mu.Lock()
			d.probes[key] = arrived
			d.mu.Unlock()
		}); cerr != nil {
			return cerr
		}
		return err
	}}
	c, err := dialer.DialContext(ctx, "tcp4", to.String())
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
		return ctx.Err()
	case <-d.done:
		return net.ErrClosed
	}
}
