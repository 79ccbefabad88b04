// Package loopback is the network driver that needs no privilege: VPCs and users' networks are played by /16s of
// 127.0.0.0/8, and the rules are judged when a connection is accepted, on the translated addresses.
//
// It is weaker than a driver that filters packets: a refused client sees a connection that is reset at once, not
// silence; network ACLs are judged for new connections only; and other machines cannot reach it.
package loopback

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// The port of control and input, and its stand-in where the machine does not let us bind it.
const (
	controlPort         = 443
	fallbackControlPort = 8443
)

// Config is what New needs. Zero values are usable but for Store.
type Config struct {
	// Store remembers which VPC is played by which /16.
	Store state.Store
	// Spread says where in the pool of /16s the search for a free one begins; give the data directory.
	Spread string
	// UserNetworks default to DefaultUserNetworks.
	UserNetworks []vpc.UserNetwork
	// ControlPort is where port 443 of the interfaces listens; 0: 443 where that can be bound, otherwise 8443.
	ControlPort uint16
	// MaxWaiting bounds connections that Accept has not taken (0: 256); more are reset.
	MaxWaiting int
	// MaxPerSource bounds open connections of one source address (0: 1,024); more are reset.
	MaxPerSource int
	// MaxOpen bounds all open connections (0: 8,192); more are reset.
	MaxOpen int
	// Refused is told of each connection that was not admitted; it must not block. It may be nil.
	Refused func(vpc.Refusal)
	// Log may be nil.
	Log *slog.Logger
}

// DefaultUserNetworks are the office 192.168.0.0/16, played by 127.0.0.0/16, and the guests' network 172.16.0.0/16, played by 127.1.0.0/16.
func DefaultUserNetworks() []vpc.UserNetwork {
	return []vpc.UserNetwork{
		{CIDR: netip.MustParsePrefix("192.168.0.0/16"), Dial: netip.MustParsePrefix("127.0.0.0/16")},
		{CIDR: netip.MustParsePrefix("172.16.0.0/16"), Dial: netip.MustParsePrefix("127.1.0.0/16")},
	}
}

// Driver implements vpc.Driver on 127.0.0.0/8.
type Driver struct {
	cfg      Config
	log      *slog.Logger
	snapshot atomic.Pointer[vpc.Snapshot]
	admitted atomic.Uint64
	refused  atomic.Uint64
	shed     atomic.Uint64

	complained atomic.Int64 // the second in which accepting last failed aloud
	waiting    chan *vpc.Conn
	done       chan struct{} // closed by Close
	work       sync.WaitGroup

	applying sync.Mutex // one Apply or Close at a time; above mu

	mu         sync.Mutex
	closed     bool
	control    uint16 // 0 until the first Apply
	slots      map[vpc.VPCID]*slot
	interfaces map[vpc.NetworkInterfaceID]*iface
	conns      map[*vpc.Conn]open
	perSource  map[netip.Addr]int
	probes     map[netip.AddrPort]chan<- struct{}
}

// iface is an interface of the plan with its listeners.
type iface struct {
	plan      vpc.PlannedInterface
	slot      uint8
	listeners []net.Listener
	err       error // why it does not listen
}

// open is what is known about an open connection.
type open struct {
	iface  *iface
	source netip.Addr
}

var _ vpc.Driver = (*Driver)(nil)

// New builds a driver. Nothing is bound before the first Apply.
func New(cfg Config) (*Driver, error) {
	if cfg.Store == nil {
		return nil, errors.New("loopback driver: no store")
	}
	if cfg.UserNetworks == nil {
		cfg.UserNetworks = DefaultUserNetworks()
	}
	for _, u := range cfg.UserNetworks {
		if u.CIDR.Bits() != u.Dial.Bits() || u.CIDR != u.CIDR.Masked() || u.Dial != u.Dial.Masked() ||
			!u.CIDR.Addr().Is4() || !u.Dial.Addr().IsLoopback() || !u.Dial.Addr().Is4() {
			return nil, fmt.Errorf("user network %s cannot be played by %s", u.CIDR, u.Dial)
		}
		if top := u.Dial.Addr().As4()[1]; top >= firstSlot || u.Dial.Bits() < 16 {
			return nil, fmt.Errorf("user network %s: %s is kept for VPCs", u.CIDR, u.Dial)
		}
	}
	if cfg.MaxWaiting <= 0 {
		cfg.MaxWaiting = 256
	}
	if cfg.MaxPerSource <= 0 {
		cfg.MaxPerSource = 1024
	}
	if cfg.MaxOpen <= 0 {
		cfg.MaxOpen = 8192
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Driver{
		cfg: cfg, log: log,
		waiting:    make(chan *vpc.Conn, cfg.MaxWaiting),
		done:       make(chan struct{}),
		slots:      map[vpc.VPCID]*slot{},
		interfaces: map[vpc.NetworkInterfaceID]*iface{},
		conns:      map[*vpc.Conn]open{},
		perSource:  map[netip.Addr]int{},
		probes:     map[netip.AddrPort]chan<- struct{}{},
	}, nil
}

// ControlPort is the port on which interfaces serve what clients mean by 443; 0 before the first Apply.
func (d *Driver) ControlPort() uint16 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.control
}

// Hint is what an operator can do about a ControlPort other than 443; empty when nothing is to be done.
func (d *Driver) Hint(binary string) string {
	if p := d.ControlPort(); p == 0 || p == controlPort {
		return ""
	}
	return "port 443 could not be bound; to allow it: sudo setcap cap_net_bind_service=+ep " + binary
}

// UserNetworks are the networks from which users come and the addresses that play them.
func (d *Driver) UserNetworks() []vpc.UserNetwork {
	return append([]vpc.UserNetwork(nil), d.cfg.UserNetworks...)
}

// DialAddr translates an address of a VPC to the one that listens on this machine.
func (d *Driver) DialAddr(id vpc.VPCID, private netip.AddrPort) (netip.AddrPort, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.slots[id]
	if s == nil || d.control == 0 || !private.Addr().Is4() {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(dialAddr(s.number, private.Addr()), d.dialPort(private.Port())), true
}

func (d *Driver) dialPort(port uint16) uint16 {
	if port == controlPort && d.control != 0 {
		return d.control
	}
	return port
}

// Stats counts connections since New.
func (d *Driver) Stats() vpc.DriverStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return vpc.DriverStats{
		Admitted: d.admitted.Load(), Refused: d.refused.Load(), Shed: d.shed.Load(),
		Open: len(d.conns), Waiting: len(d.waiting),
	}
}

// Apply puts the plan in force. Rules change first, so that no listener answers under rules that are no more.
func (d *Driver) Apply(ctx context.Context, plan vpc.Plan) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	if d.isClosed() {
		return net.ErrClosed
	}
	if plan.Snapshot == nil {
		return errors.New("apply network plan: no snapshot")
	}
	if err := d.settleSlots(ctx, plan.Snapshot); err != nil {
		return fmt.Errorf("apply network plan: %w", err)
	}
	d.snapshot.Store(plan.Snapshot)
	d.settleControlPort()

	wanted := make(map[vpc.NetworkInterfaceID]vpc.PlannedInterface, len(plan.Interfaces))
	for _, p := range plan.Interfaces {
		wanted[p.ID] = p
	}
	for _, gone := range d.outdated(wanted) {
		d.closeInterface(gone)
	}
	for _, p := range plan.Interfaces {
		if err := d.openInterface(ctx, p); err != nil {
			return fmt.Errorf("apply network plan: %w", err)
		}
	}
	return nil
}

func (d *Driver) isClosed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

// settleControlPort finds out once where the role of 443 can listen.
func (d *Driver) settleControlPort() {
	if d.ControlPort() != 0 {
		return
	}
	port := d.cfg.ControlPort
	if port == 0 {
		d.mu.Lock()
		var number uint8
		for _, s := range d.slots {
			number = s.number
		}
		d.mu.Unlock()
		if number == 0 {
			return // no VPC yet: nothing listens
		}
		port = controlPort
		l, err := listen(netip.AddrPortFrom(lastAddr(number), controlPort))
		if err == nil {
			err = l.Close()
		}
		if err != nil {
			port = fallbackControlPort
			d.log.Warn("port 443 could not be bound", "using", port, "error", err)
		}
	}
	d.mu.Lock()
	d.control = port
	d.mu.Unlock()
}

// outdated are the interfaces that are not wanted as they are.
func (d *Driver) outdated(wanted map[vpc.NetworkInterfaceID]vpc.PlannedInterface) []*iface {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []*iface
	for id, i := range d.interfaces {
		w, ok := wanted[id]
		s := d.slots[i.plan.VPC]
		if !ok || i.err != nil || s == nil || s.number != i.slot || !samePlace(w, i.plan) {
			out = append(out, i)
		}
	}
	return out
}

func samePlace(a, b vpc.PlannedInterface) bool {
	if a.Endpoint != b.Endpoint || a.VPC != b.VPC || a.Addr != b.Addr || a.Service != b.Service || len(a.Ports) != len(b.Ports) {
		return false
	}
	for i := range a.Ports {
		if a.Ports[i] != b.Ports[i] {
			return false
		}
	}
	return true
}

// closeInterface ends an interface's listeners and then its connections.
func (d *Driver) closeInterface(i *iface) {
	d.mu.Lock()
	delete(d.interfaces, i.plan.ID)
	listeners := i.listeners
	i.listeners = nil
	d.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close() // a listener that is closed twice is closed
	}
	d.mu.Lock()
	var conns []*vpc.Conn
	for c, o := range d.conns {
		if o.iface == i {
			conns = append(conns, c)
		}
	}
	d.mu.Unlock()
	for _, c := range conns {
		_ = c.Close() // the interface goes; nobody is left to tell
	}
}

// openInterface listens on all ports of an interface or notes why it cannot. A /16 that others use is exchanged while the VPC has no other interface.
func (d *Driver) openInterface(ctx context.Context, p vpc.PlannedInterface) error {
	d.mu.Lock()
	_, have := d.interfaces[p.ID]
	d.mu.Unlock()
	if have {
		return nil
	}
	taken := map[uint8]bool{} // slots on which others listen
	for {
		d.mu.Lock()
		s := d.slots[p.VPC]
		d.mu.Unlock()
		if s == nil {
			d.addInterface(&iface{plan: p, err: fmt.Errorf("VPC %s is not in the plan", p.VPC)})
			return nil
		}
		i := &iface{plan: p, slot: s.number}
		i.listeners, i.err = d.listenAll(p, s.number)
		if errors.Is(i.err, syscall.EADDRINUSE) && len(taken) < 8 && !d.vpcInUse(p.VPC) {
			d.log.Info("loopback network was in use by another process", "vpc", p.VPC, "network", slotPrefix(s.number))
			taken[s.number] = true
			if err := d.moveSlot(ctx, p.VPC, taken); err != nil {
				return err
			}
			continue
		}
		d.addInterface(i)
		return nil
	}
}

func (d *Driver) vpcInUse(id vpc.VPCID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, i := range d.interfaces {
		if i.plan.VPC == id && i.err == nil {
			return true
		}
	}
	return false
}

func (d *Driver) addInterface(i *iface) {
	d.mu.Lock()
	d.interfaces[i.plan.ID] = i
	listeners := i.listeners
	d.mu.Unlock()
	for _, l := range listeners {
		port := uint16(l.Addr().(*net.TCPAddr).Port)
		if port == d.ControlPort() {
			port = controlPort
		}
		d.work.Go(func() { d.serve(i, l, port) })
	}
	if i.err != nil {
		d.log.Warn("network interface could not listen", "interface", i.plan.ID, "error", i.err)
	}
}

func (d *Driver) listenAll(p vpc.PlannedInterface, number uint8) ([]net.Listener, error) {
	var out []net.Listener
	for _, r := range p.Ports {
		for port := r.From; port <= r.To; port++ {
			d.mu.Lock()
			at := netip.AddrPortFrom(dialAddr(number, p.Addr), d.dialPort(uint16(port)))
			d.mu.Unlock()
			l, err := listen(at)
			if err != nil {
				for _, l := range out {
					_ = l.Close() // it was never used
				}
				return nil, fmt.Errorf("listen for %s: %w", netip.AddrPortFrom(p.Addr, uint16(port)), err)
			}
			out = append(out, l)
		}
	}
	return out, nil
}

func listen(at netip.AddrPort) (net.Listener, error) {
	return net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at))
}

// serve accepts on one listener until it is closed.
func (d *Driver) serve(i *iface, l net.Listener, port uint16) {
	var pause time.Duration
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors or memory: wait for better times
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			if now, last := time.Now().Unix(), d.complained.Load(); now != last && d.complained.CompareAndSwap(last, now) {
				d.log.Error("connections could not be accepted", "interface", i.plan.ID, "port", port, "error", err)
			}
			select {
			case <-time.After(pause):
				continue
			case <-d.done:
				return
			}
		}
		pause = 0
		d.judge(i, c.(*net.TCPConn), port)
	}
}

// judge admits a connection or resets it before a byte was sent.
func (d *Driver) judge(i *iface, c *net.TCPConn, port uint16) {
	remote := c.RemoteAddr().(*net.TCPAddr).AddrPort()
	remote = netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	d.mu.Lock()
	probe := d.probes[remote]
	delete(d.probes, remote)
	d.mu.Unlock()
	if probe != nil {
		close(probe)
		reset(c)
		return
	}

	source, sourceVPC := d.translate(remote.Addr())
	f := vpc.Flow{
		VPC: i.plan.VPC, SrcVPC: sourceVPC, Protocol: vpc.TCP,
		Src: netip.AddrPortFrom(source, remote.Port()),
		Dst: netip.AddrPortFrom(i.plan.Addr, port),
	}
	verdict := d.snapshot.Load().Explain(f)
	if !verdict.OK {
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

	conn := d.track(i, c, remote.Addr(), f)
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

// track counts the connection in, or returns nil when there is no room for it or its interface is gone.
func (d *Driver) track(i *iface, c *net.TCPConn, dialled netip.Addr, f vpc.Flow) *vpc.Conn {
	var conn *vpc.Conn
	conn = vpc.NewConn(c, func() { d.untrack(conn) })
	conn.Endpoint, conn.Service, conn.VPC, conn.Interface = i.plan.Endpoint, i.plan.Service, i.plan.VPC, i.plan.ID
	conn.Port, conn.Source, conn.Local = f.Dst.Port(), f.Src, f.Dst
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.interfaces[i.plan.ID] != i || len(d.conns) >= d.cfg.MaxOpen || d.perSource[dialled] >= d.cfg.MaxPerSource {
		return nil
	}
	d.conns[conn] = open{iface: i, source: dialled}
	d.perSource[dialled]++
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

// reset closes a connection so that its client sees a reset and not one byte.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0) // without it the client sees an orderly end
	_ = c.Close()      // it is not ours to report on
}

// translate is the address in the modelled networks that a loopback address stands for, and the VPC that it is in.
// An address that stands for nothing is returned as it is; no network has it.
func (d *Driver) translate(a netip.Addr) (netip.Addr, vpc.VPCID) {
	for _, u := range d.cfg.UserNetworks {
		if u.Dial.Contains(a) {
			return vpc.Rebase(a, u.CIDR), ""
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	b := a.As4()
	for id, s := range d.slots {
		if b[0] == 127 && b[1] == s.number {
			if v := vpc.Rebase(a, netip.PrefixFrom(s.cidr.Addr(), 16).Masked()); s.cidr.Contains(v) {
				return v, id
			}
		}
	}
	return a, ""
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

// Check connects to every port of the interface and waits until the connection arrives at this driver: another
// process on the same address would not be taken for it.
func (d *Driver) Check(ctx context.Context, id vpc.NetworkInterfaceID) error {
	d.mu.Lock()
	i := d.interfaces[id]
	d.mu.Unlock()
	if i == nil {
		return fmt.Errorf("check %s: %w", id, vpc.ErrUnknownInterface)
	}
	if i.err != nil {
		return i.err
	}
	for _, r := range i.plan.Ports {
		for port := r.From; port <= r.To; port++ {
			d.mu.Lock()
			at := netip.AddrPortFrom(dialAddr(i.slot, i.plan.Addr), d.dialPort(uint16(port)))
			d.mu.Unlock()
			if err := d.probe(ctx, lastAddr(i.slot), at); err != nil {
				return fmt.Errorf("connect to %s port %d: %w", i.plan.Addr, port, err)
			}
		}
	}
	return nil
}

// probe connects from an address that is registered before the connection is made, so that it passes the rules.
func (d *Driver) probe(ctx context.Context, from netip.Addr, to netip.AddrPort) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	arrived := make(chan struct{})
	var source netip.AddrPort
	defer func() {
		d.mu.Lock()
		delete(d.probes, source)
		d.mu.Unlock()
	}()
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if cerr := raw.Control(func(fd uintptr) {
			if err = syscall.Bind(int(fd), &syscall.SockaddrInet4{Addr: from.As4()}); err != nil {
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
			source = netip.AddrPortFrom(netip.AddrFrom4(in.Addr), uint16(in.Port))
			d.mu.Lock()
			d.probes[source] = arrived
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
		return fmt.Errorf("another process answers: %w", ctx.Err())
	case <-d.done:
		return net.ErrClosed
	}
}

// Close ends everything and waits for it.
func (d *Driver) Close() error {
	d.applying.Lock()
	defer d.applying.Unlock()
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	close(d.done)
	all := make([]*iface, 0, len(d.interfaces))
	for _, i := range d.interfaces {
		all = append(all, i)
	}
	slots := d.slots
	d.slots = map[vpc.VPCID]*slot{}
	d.mu.Unlock()
	for _, i := range all {
		d.closeInterface(i)
	}
	d.work.Wait()
	var errs []error
	for _, s := range slots {
		errs = append(errs, s.claim.Close())
	}
	return errors.Join(errs...)
}
