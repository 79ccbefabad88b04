package kernel

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/hostnet/door"
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
				l, err := net.ListenTCP("tcp", &net.TCPAddr{Port: int(port)}) // both families where the machine has them
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
			d.work.Go(func() {
				d.door.Serve(l, d.log.With("vpc", n.id, "port", port), func(c *net.TCPConn) { d.judge(n, c, port) })
			})
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

// judge hands a connection to Accept. The packet filter has judged it already; what it should not have let through is reset.
func (d *Driver) judge(n *network, c *net.TCPConn, port uint16) {
	if d.door.Probed(n.id, c) {
		return
	}
	remote, local := door.AddrPort(c.RemoteAddr()), door.AddrPort(c.LocalAddr())
	d.mu.Lock()
	i := n.interfaces[local.Addr()]
	source := vpc.VPCID("")
	if n.interfaces[remote.Addr()] != nil {
		source = n.id
	}
	d.mu.Unlock()
	if i == nil || !slices.ContainsFunc(i.Ports, func(r vpc.PortRange) bool { return r.Contains(port) }) {
		door.Reset(c) // the interface left while the connection came, or does not listen here
		return
	}
	f := vpc.Flow{VPC: n.id, SrcVPC: source, Protocol: vpc.TCP, Src: remote, Dst: local}
	d.door.Arrive(i.Interface, c, f, d.snapshot.Load().Explain(f))
}

// Accept returns the next admitted connection that is still open.
func (d *Driver) Accept(ctx context.Context) (*vpc.Conn, error) { return d.door.Accept(ctx) }

// Check connects to every port of the interface from an address of the namespace that the rules let pass, and waits until
// the connection arrives at this driver.
func (d *Driver) Check(ctx context.Context, id vpc.NetworkInterfaceID) error {
	return d.check(ctx, id, nil)
}

// CheckPort is Check of one port.
func (d *Driver) CheckPort(ctx context.Context, id vpc.NetworkInterfaceID, port uint16) error {
	return d.check(ctx, id, []vpc.PortRange{{From: int(port), To: int(port)}})
}

// check connects to ports, by default to all of the interface.
func (d *Driver) check(ctx context.Context, id vpc.NetworkInterfaceID, ports []vpc.PortRange) error {
	ns, places, err := d.find(id)
	if err != nil {
		return fmt.Errorf("check %s: %w", id, err)
	}
	defer ns.Close()
	return inside(ns, func() error {
		for _, i := range places {
			from := probeAddr(vpc.FamilyOf(i.Addr))
			wanted := ports
			if wanted == nil {
				wanted = i.Ports
			}
			for _, r := range wanted {
				for port := r.From; port <= r.To; port++ {
					if err := d.door.Probe(ctx, i.VPC, from, netip.AddrPortFrom(i.Addr, uint16(port))); err != nil {
						return fmt.Errorf("connect to %s: %w", netip.AddrPortFrom(i.Addr, uint16(port)), err)
					}
				}
			}
		}
		return nil
	})
}

// find is an interface at each of its addresses, with a handle of its own to its namespace, which may be closed meanwhile.
func (d *Driver) find(id vpc.NetworkInterfaceID) (netns.NsHandle, []*iface, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range d.networks {
		var places []*iface
		for _, i := range n.interfaces {
			if i.ID != id {
				continue
			}
			if i.err != nil {
				return netns.None(), nil, i.err
			}
			places = append(places, i)
		}
		if len(places) > 0 {
			fd, err := unix.FcntlInt(uintptr(n.ns), unix.F_DUPFD_CLOEXEC, 0)
			return netns.NsHandle(fd), places, err
		}
	}
	return netns.None(), nil, vpc.ErrUnknownInterface
}
