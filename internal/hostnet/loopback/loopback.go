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

	"penstock.dev/penstock/internal/hostnet/door"
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
	// Sockets opens the sockets of the machine's network when the process is in another one. It may be nil.
	Sockets Sockets
	// Unjudged admits every connection: somebody behind Accept judges it. Bounds hold all the same.
	Unjudged bool
	// ControlPort is where port 443 of the interfaces listens; 0: 443 where that can be bound, otherwise 8443.
	ControlPort uint16
	// Limits bound connections.
	Limits door.Limits
	// Meter counts the traffic of interfaces, for Flows.
	Meter bool
	// Refused is told of each connection that was not admitted; it must not block. It may be nil.
	Refused func(vpc.Refusal)
	// Log may be nil.
	Log *slog.Logger
}

// Sockets opens sockets of a network in which the process is not.
type Sockets interface {
	// Listen is net.Listen.
	Listen(network, address string) (net.Listener, error)
	// Adopt makes the descriptor of a new TCP socket one of that network.
	Adopt(fd uintptr) error
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
	door     *door.Door
	ledger   *door.Ledger // nil: not metered
	snapshot atomic.Pointer[vpc.Snapshot]
	work     sync.WaitGroup

	applying sync.Mutex                      // one Apply or Close at a time; above mu
	left     map[vpc.NetworkInterfaceID]bool // have IPv6 addresses that are not served; guarded by applying

	mu         sync.Mutex
	control    uint16 // 0 until the first Apply
	slots      map[played]*slot
	interfaces map[vpc.NetworkInterfaceID]*iface
}

// iface is an interface of the plan with its listeners.
type iface struct {
	*door.Interface
	slot      uint8
	listeners []net.Listener
	err       error // why it does not listen
}

var (
	_ vpc.Driver    = (*Driver)(nil)
	_ vpc.FlowMeter = (*Driver)(nil)
)

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
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var ledger *door.Ledger
	if cfg.Meter {
		ledger = door.NewLedger(0)
	}
	behind := door.Config{Limits: cfg.Limits, Refused: cfg.Refused, Ledger: ledger, Log: log}
	if cfg.Sockets != nil {
		behind.Adopt = cfg.Sockets.Adopt
	}
	return &Driver{
		cfg: cfg, log: log, ledger: ledger,
		door:       door.New(behind),
		slots:      map[played]*slot{},
		interfaces: map[vpc.NetworkInterfaceID]*iface{},
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
	_, s := d.slotOf(id, private.Addr())
	if s == nil || d.control == 0 {
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
func (d *Driver) Stats() vpc.DriverStats { return d.door.Stats() }

// Flows is what passed on connections and what was refused, as sockets tell it: what no socket of the driver sees is not in it.
func (d *Driver) Flows(context.Context) ([]vpc.InterfaceFlows, error) {
	if d.ledger == nil {
		return nil, errors.New("flows: the network is not metered")
	}
	d.door.Sample()
	d.mu.Lock()
	ids := make([]vpc.NetworkInterfaceID, 0, len(d.interfaces))
	for id := range d.interfaces {
		ids = append(ids, id)
	}
	d.mu.Unlock()
	return d.ledger.Take(ids), nil
}

// Apply puts the plan in force. Rules change first, so that no listener answers under rules that are no more.
func (d *Driver) Apply(ctx context.Context, plan vpc.Plan) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	if d.door.Closed() {
		return net.ErrClosed
	}
	if plan.Snapshot == nil {
		return errors.New("apply network plan: no snapshot")
	}
	freed, err := d.settleSlots(ctx, plan.Snapshot)
	defer func() { // not before their interfaces are closed: whoever takes one next listens on it at once
		for _, s := range freed {
			_ = s.claim.Close() // whoever takes it next finds out by claiming
		}
	}()
	if err != nil {
		return fmt.Errorf("apply network plan: %w", err)
	}
	d.snapshot.Store(plan.Snapshot)
	d.settleControlPort()

	wanted := d.playable(plan.Interfaces)
	for _, gone := range d.outdated(wanted) {
		d.closeInterface(gone)
	}
	for _, p := range plan.Interfaces {
		if wanted[p.ID].Addr != p.Addr {
			continue
		}
		if err := d.openInterface(ctx, p); err != nil {
			return fmt.Errorf("apply network plan: %w", err)
		}
	}
	return nil
}

// ErrNoIPv6 says that no loopback address can play an IPv6 address: there is one alone, ::1.
var ErrNoIPv6 = errors.New("the loopback network driver cannot carry IPv6; use --net kernel")

// playable are the interfaces at their IPv4 addresses. Those that have none are there with their IPv6 address, which fails.
func (d *Driver) playable(plan []vpc.PlannedInterface) map[vpc.NetworkInterfaceID]vpc.PlannedInterface {
	out := make(map[vpc.NetworkInterfaceID]vpc.PlannedInterface, len(plan))
	left := map[vpc.NetworkInterfaceID]netip.Addr{}
	for _, p := range plan {
		if p.Addr.Is6() {
			left[p.ID] = p.Addr
		}
		if _, had := out[p.ID]; !had || p.Addr.Is4() {
			out[p.ID] = p
		}
	}
	for id, a := range left {
		if !d.left[id] && out[id].Addr.Is4() {
			d.log.Warn("network interface is served at its IPv4 address alone", "interface", id, "not", a, "reason", ErrNoIPv6)
		}
	}
	d.left = make(map[vpc.NetworkInterfaceID]bool, len(left))
	for id := range left {
		d.left[id] = true
	}
	return out
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
		l, err := d.listen("tcp4", netip.AddrPortFrom(lastAddr(number), controlPort).String())
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
		_, s := d.slotOf(i.VPC, i.Addr)
		if !ok || i.err != nil || s == nil || s.number != i.slot || !samePlace(w, i.PlannedInterface) {
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
	delete(d.interfaces, i.ID)
	listeners := i.listeners
	i.listeners = nil
	d.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close() // a listener that is closed twice is closed
	}
	d.door.Leave(door.Orderly, i.Interface)
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
		of, s := d.slotOf(p.VPC, p.Addr)
		d.mu.Unlock()
		if s == nil {
			err := fmt.Errorf("%s is in no block of %s", p.Addr, p.VPC)
			if p.Addr.Is6() {
				err = fmt.Errorf("%s: %w", p.Addr, ErrNoIPv6)
			}
			d.addInterface(&iface{Interface: &door.Interface{PlannedInterface: p, Metered: d.cfg.Meter}, err: err})
			return nil
		}
		i := &iface{Interface: &door.Interface{PlannedInterface: p, Metered: d.cfg.Meter}, slot: s.number}
		i.listeners, i.err = d.listenAll(p, s.number)
		if errors.Is(i.err, syscall.EADDRINUSE) && len(taken) < 8 && !d.inUse(s.number) {
			d.log.Info("loopback network was in use by another process", "vpc", p.VPC, "network", slotPrefix(s.number))
			taken[s.number] = true
			if err := d.moveSlot(ctx, d.snapshot.Load(), of, taken); err != nil {
				return err
			}
			continue
		}
		d.addInterface(i)
		return nil
	}
}

func (d *Driver) inUse(slot uint8) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, i := range d.interfaces {
		if i.slot == slot && i.err == nil {
			return true
		}
	}
	return false
}

func (d *Driver) addInterface(i *iface) {
	d.mu.Lock()
	d.interfaces[i.ID] = i
	listeners := i.listeners
	d.mu.Unlock()
	for _, l := range listeners {
		port := uint16(l.Addr().(*net.TCPAddr).Port)
		if port == d.ControlPort() {
			port = controlPort
		}
		d.work.Go(func() {
			d.door.Serve(l, d.log.With("interface", i.ID, "port", port), func(c *net.TCPConn) { d.judge(i, c, port) })
		})
	}
	if i.err != nil {
		d.log.Warn("network interface could not listen", "interface", i.ID, "error", i.err)
	}
}

func (d *Driver) listenAll(p vpc.PlannedInterface, number uint8) ([]net.Listener, error) {
	var out []net.Listener
	for _, r := range p.Ports {
		for port := r.From; port <= r.To; port++ {
			d.mu.Lock()
			at := netip.AddrPortFrom(dialAddr(number, p.Addr), d.dialPort(uint16(port)))
			d.mu.Unlock()
			l, err := d.listen("tcp4", at.String())
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

func (d *Driver) listen(network, address string) (net.Listener, error) {
	if d.cfg.Sockets != nil {
		return d.cfg.Sockets.Listen(network, address)
	}
	return net.Listen(network, address) //nolint:noctx // numbers are not looked up
}

// judge admits a connection or resets it before a byte was sent.
func (d *Driver) judge(i *iface, c *net.TCPConn, port uint16) {
	if d.door.Probed("", c) {
		return
	}
	remote := door.AddrPort(c.RemoteAddr())
	source, sourceVPC := d.translate(remote.Addr())
	f := vpc.Flow{
		VPC: i.VPC, SrcVPC: sourceVPC, Protocol: vpc.TCP,
		Src: netip.AddrPortFrom(source, remote.Port()),
		Dst: netip.AddrPortFrom(i.Addr, port),
	}
	verdict := vpc.Verdict{OK: true}
	if !d.cfg.Unjudged {
		verdict = d.snapshot.Load().Explain(f)
	}
	d.door.Arrive(i.Interface, c, f, verdict)
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
	for of, s := range d.slots {
		if b[0] == 127 && b[1] == s.number {
			if v := vpc.Rebase(a, netip.PrefixFrom(of.block.Addr(), 16).Masked()); of.block.Contains(v) {
				return v, of.vpc
			}
		}
	}
	return a, ""
}

// Accept returns the next admitted connection that is still open.
func (d *Driver) Accept(ctx context.Context) (*vpc.Conn, error) { return d.door.Accept(ctx) }

// Check connects to every port of the interface and waits until the connection arrives at this driver: another
// process on the same address would not be taken for it.
func (d *Driver) Check(ctx context.Context, id vpc.NetworkInterfaceID) error {
	return d.check(ctx, id, nil)
}

// CheckPort is Check of one port.
func (d *Driver) CheckPort(ctx context.Context, id vpc.NetworkInterfaceID, port uint16) error {
	return d.check(ctx, id, []vpc.PortRange{{From: int(port), To: int(port)}})
}

// check connects to ports, by default to all of the interface.
func (d *Driver) check(ctx context.Context, id vpc.NetworkInterfaceID, ports []vpc.PortRange) error {
	d.mu.Lock()
	i := d.interfaces[id]
	d.mu.Unlock()
	if i == nil {
		return fmt.Errorf("check %s: %w", id, vpc.ErrUnknownInterface)
	}
	if i.err != nil {
		return i.err
	}
	if ports == nil {
		ports = i.Ports
	}
	for _, r := range ports {
		for port := r.From; port <= r.To; port++ {
			d.mu.Lock()
			at := netip.AddrPortFrom(dialAddr(i.slot, i.Addr), d.dialPort(uint16(port)))
			d.mu.Unlock()
			if err := d.door.Probe(ctx, "", lastAddr(i.slot), at); err != nil {
				return fmt.Errorf("connect to %s port %d: %w", i.Addr, port, err)
			}
		}
	}
	return nil
}

// Close ends everything and waits for it.
func (d *Driver) Close() error {
	d.applying.Lock()
	defer d.applying.Unlock()
	if d.door.Closed() {
		return nil
	}
	d.door.Close(door.Orderly)
	d.mu.Lock()
	all := make([]*iface, 0, len(d.interfaces))
	for _, i := range d.interfaces {
		all = append(all, i)
	}
	slots := d.slots
	d.slots = map[played]*slot{}
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
