// Package kernel is the network driver that filters packets: a network namespace a VPC, a bridge a subnet, an address an
// interface, one nftables table that holds groups, network ACLs and routes, and links to the namespaces where users are.
// It needs CAP_NET_ADMIN and CAP_SYS_ADMIN.
//
// What the rules deny is dropped without an answer. Groups remember the connections that they admitted; network ACLs and
// routes judge every packet. Accepted connections are judged once more by the same rules, so that a packet filter that
// somebody else flushed admits nobody before it is healed.
package kernel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/hostnet/door"
	"penstock.dev/penstock/internal/vpc"
)

// Attachment joins networks of users to every VPC that has interfaces.
type Attachment struct {
	// Namespace is the named network namespace where the users, or their router, are; empty: that of the process.
	Namespace string
	// Networks are the users' networks, each masked; IPv4 and IPv6.
	Networks []netip.Prefix
	// Addresses are put on the users' end of the links; the first of each family is the source of what goes to the VPCs. Empty
	// where the users' addresses are there already.
	Addresses []netip.Addr
	// LAN is set when the users are on a real network; nil: they are joined by a pair of links.
	LAN *LAN
}

// maxAttachments is as many as a digit of their links' names tells apart.
const maxAttachments = 16

// Config is what New needs. Zero values are usable but for DataDir.
type Config struct {
	// DataDir names what the driver makes, so that a later start finds what a crash left.
	DataDir     string
	Attachments []Attachment
	// Limits bound connections.
	Limits door.Limits
	// Names is the folder of the namespaces' names (empty: that of iproute2).
	Names string
	// Meter counts the traffic of interfaces, for Flows.
	Meter bool
	// HealEvery is how often the network is compared with the plan (0: 2 s).
	HealEvery time.Duration
	// Refused is told of connections that the rules dropped, as far as they are logged: each once a minute, or once between
	// two calls of Flows, and of those that were reset after they were accepted. It must not block. It may be nil.
	// Every packet is counted by the rules, see Counters.
	Refused func(vpc.Refusal)
	// Quiet leaves dropped connections out of Refused, for a caller who sees them end.
	Quiet bool
	// Log may be nil.
	Log *slog.Logger
}

// Driver implements vpc.Driver with network namespaces and nftables.
type Driver struct {
	cfg      Config
	owner    string
	log      *slog.Logger
	door     *door.Door
	ledger   *door.Ledger
	snapshot atomic.Pointer[vpc.Snapshot]
	healed   atomic.Uint64

	complained atomic.Int64 // the second in which healing last failed aloud
	work       sync.WaitGroup

	applying sync.Mutex // one Apply, check of the network or Close at a time; above mu
	swept    bool
	plan     vpc.Plan
	change   func(*vpc.Ruleset) // set by tests: rules that the compiler could have got wrong
	// Set by tests: drops are not logged; connection tracking does not count.
	unlogged, untracked bool

	mu       sync.Mutex
	networks map[vpc.VPCID]*network
}

// network is a VPC's namespace. Its fields are guarded by Driver.applying but for interfaces, which is also guarded by Driver.mu:
// written under both, read under either.
type network struct {
	id         vpc.VPCID
	name       string // of the namespace
	blocks     []netip.Prefix
	ipv6       bool // the machine has IPv6
	ns         netns.NsHandle
	route      *netlink.Handle
	compiled   *vpc.Snapshot // to rules
	rules      vpc.Ruleset
	generation uint32 // of the packet filter when rules were put in force; 0: they are not
	onLAN      [maxAttachments]bool
	settled    bool // everything was there once: what is missing now was taken away
	mended     bool // something was put right, but not everything yet
	bridges    map[vpc.SubnetID][]netip.Addr
	listeners  map[uint16]net.Listener
	interfaces map[netip.Addr]*iface
	watch      *watch
	logs       bool // the rules log what they drop
}

// iface is an interface of the plan.
type iface struct {
	*door.Interface
	err error // why it does not serve
}

var (
	_ vpc.Driver    = (*Driver)(nil)
	_ vpc.FlowMeter = (*Driver)(nil)
)

// New builds a driver. Nothing is made or removed before the first Apply.
func New(cfg Config) (*Driver, error) {
	if cfg.DataDir == "" {
		return nil, errors.New("kernel network driver: no data directory")
	}
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("kernel network driver: %w", err)
	}
	if len(cfg.Attachments) > maxAttachments {
		return nil, fmt.Errorf("kernel network driver: more than %d attachments", maxAttachments)
	}
	for _, a := range cfg.Attachments {
		if len(a.Networks) == 0 {
			return nil, errors.New("kernel network driver: an attachment without networks of users")
		}
		for _, p := range a.Networks {
			if !p.IsValid() || p.Addr().Is4In6() || p != p.Masked() || p.Bits() == 0 {
				return nil, fmt.Errorf("kernel network driver: %s is not a network of users", p)
			}
		}
		for _, addr := range a.Addresses {
			if !slices.ContainsFunc(a.Networks, func(p netip.Prefix) bool { return p.Contains(addr) }) {
				return nil, fmt.Errorf("kernel network driver: address %s is in no network of its attachment", addr)
			}
		}
	}
	if err := checkAttachments(cfg.Attachments); err != nil {
		return nil, fmt.Errorf("kernel network driver: attachment %w", err)
	}
	cfg.Names = cmp.Or(cfg.Names, namedNamespaces)
	if cfg.HealEvery <= 0 {
		cfg.HealEvery = 2 * time.Second
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	keep := refusalKeep
	if cfg.Meter {
		keep = 0 // until Flows is called
	}
	ledger := door.NewLedger(keep)
	return &Driver{
		cfg: cfg, owner: owner(dir), log: log, ledger: ledger,
		door:     door.New(door.Config{Limits: cfg.Limits, Refused: cfg.Refused, Ledger: ledger, Log: log}),
		networks: map[vpc.VPCID]*network{},
	}, nil
}

// refusalKeep is for how long a dropped connection is told of once, where nobody asks for flows.
const refusalKeep = time.Minute

// Available says what keeps this process from using the driver; nil when nothing does.
func Available() error {
	ns, err := unnamedNamespace()
	if err != nil {
		return fmt.Errorf("the kernel network driver needs CAP_NET_ADMIN and CAP_SYS_ADMIN: %w", err)
	}
	defer ns.Close()
	if _, err := (filter{ns}).generation(); err != nil {
		return fmt.Errorf("the kernel network driver needs nftables: %w", err)
	}
	return nil
}

// UserNetworks are the networks of the attachments. They are real, so they are dialled from as they are.
func (d *Driver) UserNetworks() []vpc.UserNetwork {
	var out []vpc.UserNetwork
	for _, a := range d.cfg.Attachments {
		for _, p := range a.Networks {
			out = append(out, vpc.UserNetwork{CIDR: p, Dial: p})
		}
	}
	return out
}

// DialAddr is the address itself.
func (d *Driver) DialAddr(id vpc.VPCID, private netip.AddrPort) (netip.AddrPort, bool) {
	s := d.snapshot.Load()
	if s == nil {
		return netip.AddrPort{}, false
	}
	_, ok := s.HasVPC(id)
	return private, ok
}

// Hint is what an operator can do to be served better: nothing here.
func (d *Driver) Hint(string) string { return "" }

// Stats counts connections since New. Refused counts those that Config.Refused is told of; every dropped packet is in Counters.
func (d *Driver) Stats() vpc.DriverStats { return d.door.Stats() }

// Healed counts how often something was put back that somebody else took away.
func (d *Driver) Healed() uint64 { return d.healed.Load() }

// Counters are packets by the identity of rules (vpc.Hop.Identity), since the VPC's rules last changed.
func (d *Driver) Counters(id vpc.VPCID) (map[string]uint64, error) {
	d.applying.Lock()
	defer d.applying.Unlock()
	n := d.networks[id]
	if n == nil {
		return nil, fmt.Errorf("counters of %s: not on the network", id)
	}
	return filter{n.ns}.counters(n.rules)
}

// Apply puts the plan in force. Rules come before addresses and listeners, so that nothing answers without them.
func (d *Driver) Apply(_ context.Context, plan vpc.Plan) error {
	d.applying.Lock()
	defer d.applying.Unlock()
	if d.door.Closed() {
		return net.ErrClosed
	}
	if plan.Snapshot == nil {
		return errors.New("apply network plan: no snapshot")
	}
	if !d.swept {
		if err := d.sweep(); err != nil {
			return fmt.Errorf("remove the network of an earlier run: %w", err)
		}
		d.swept = true
		d.work.Go(d.heal)
	}
	d.plan = plan
	if err := d.settle(); err != nil {
		return fmt.Errorf("apply network plan: %w", err)
	}
	return nil
}

// settle brings the network to the plan, whatever it is now.
func (d *Driver) settle() error {
	wanted := map[vpc.VPCID][]vpc.PlannedInterface{}
	for _, p := range d.plan.Interfaces {
		if _, ok := d.plan.Snapshot.HasVPC(p.VPC); ok {
			wanted[p.VPC] = append(wanted[p.VPC], p)
		}
	}
	d.leave(wanted)
	d.snapshot.Store(d.plan.Snapshot)
	var errs []error
	for id, n := range d.networks {
		if len(wanted[id]) == 0 {
			errs = append(errs, d.closeNetwork(n))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		errs = append(errs, d.settleNetwork(id, wanted[id]))
	}
	return errors.Join(errs...)
}

// leave ends the connections of interfaces that are not wanted as they are, while they still have an address to answer from.
func (d *Driver) leave(wanted map[vpc.VPCID][]vpc.PlannedInterface) {
	d.mu.Lock()
	var leaving []*door.Interface
	var networks []*network // that interfaces leave
	for id, n := range d.networks {
		before := len(leaving)
		for addr, i := range n.interfaces {
			if !slices.ContainsFunc(wanted[id], func(p vpc.PlannedInterface) bool { return samePlace(p, i.PlannedInterface) }) {
				leaving = append(leaving, i.Interface)
				delete(n.interfaces, addr)
				n.watch.leave(addr, i.ID)
			}
		}
		if len(leaving) > before {
			networks = append(networks, n)
		}
	}
	d.mu.Unlock()
	linger(d.door.Leave(door.ByReset, leaving...))
	for _, n := range networks { // while it is known whose addresses they were
		d.lookAt(n)
	}
}

func samePlace(a, b vpc.PlannedInterface) bool {
	return a.ID == b.ID && a.Endpoint == b.Endpoint && a.VPC == b.VPC && a.Addr == b.Addr && a.Service == b.Service && slices.Equal(a.Ports, b.Ports)
}

// resetLinger is how long resets have to leave the namespace before its links may go.
const resetLinger = 10 * time.Millisecond

func linger(resets int) {
	if resets > 0 {
		time.Sleep(resetLinger)
	}
}

// settleNetwork brings one VPC to the plan. An error is about its rules; what is wrong with its interfaces is noted for Check.
func (d *Driver) settleNetwork(id vpc.VPCID, interfaces []vpc.PlannedInterface) error {
	n, err := d.network(id)
	if err != nil {
		return err
	}
	healed := n.settled
	changed, attached := d.settleLinks(n)
	rules, err := d.settleRules(n)
	if err != nil {
		return fmt.Errorf("rules of %s: %w", id, err)
	}
	addressed, err := d.settleInterfaces(n, interfaces, attached)
	if err != nil {
		return fmt.Errorf("interfaces of %s: %w", id, err)
	}
	n.mended = n.mended || healed && (changed || rules || addressed)
	if n.mended && attached == nil { // it may take more than one pass, when something else goes during the first
		n.mended = false
		d.healed.Add(1)
		d.log.Warn("network was changed by somebody else and put right", "vpc", id, "namespace", n.name,
			"links", changed, "rules", rules, "addresses", addressed)
	}
	n.settled = n.settled || attached == nil
	return nil
}

// network is the VPC's namespace, made when it is not there, named again when its name was taken away.
func (d *Driver) network(id vpc.VPCID) (*network, error) {
	blocks := d.plan.Snapshot.Blocks(id)
	if n := d.networks[id]; n != nil {
		n.blocks = blocks
		if named(n.ns, n.name) {
			return n, nil
		}
		if err := errors.Join(removeName(n.name), nameNamespace(n.ns, n.name)); err != nil {
			return nil, fmt.Errorf("name the namespace of %s: %w", id, err)
		}
		d.healed.Add(1)
		d.log.Warn("network namespace was deleted by somebody else and put back", "vpc", id, "namespace", n.name)
		return n, nil
	}
	name := filepath.Join(d.cfg.Names, namespaceName(d.owner, id))
	ns, err := makeNamespace(name)
	if err != nil {
		return nil, err
	}
	route, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open network namespace %s: %w", name, err), removeName(name), ns.Close())
	}
	n := &network{id: id, name: name, blocks: blocks, ipv6: hasIPv6(), ns: ns, route: route, listeners: map[uint16]net.Listener{}, interfaces: map[netip.Addr]*iface{}}
	d.mu.Lock()
	d.networks[id] = n
	d.mu.Unlock()
	d.watchNetwork(n) // before anything can pass
	return n, nil
}

// settleLinks joins the users' networks. attached is what keeps users from the VPC.
func (d *Driver) settleLinks(n *network) (changed bool, attached error) {
	changed, attached = n.ensureLoopback()
	for i := range d.cfg.Attachments {
		join := d.attach
		if d.cfg.Attachments[i].LAN != nil {
			join = d.attachLAN
		}
		done, err := join(n, i)
		if err != nil {
			attached = errors.Join(attached, fmt.Errorf("attach %s to the networks of its users: %w", n.id, err))
		}
		changed = changed || done
	}
	return changed, attached
}

// settleRules replaces the VPC's table when the rules changed or somebody else touched the packet filter. foreign says the latter.
func (d *Driver) settleRules(n *network) (foreign bool, err error) {
	f := filter{n.ns}
	if n.generation != 0 {
		now, err := f.generation()
		if err != nil {
			return false, err
		}
		foreign = now != n.generation
	}
	rules := n.rules
	if n.compiled != d.plan.Snapshot {
		place := vpc.Place{Probes: []netip.Addr{probeAddr(vpc.FamilyIPv4), probeAddr(vpc.FamilyIPv6)}}
		for i, a := range d.cfg.Attachments {
			place.Links = append(place.Links, vpc.Link{Name: insideName(i), Networks: a.Networks})
		}
		rules = d.plan.Snapshot.Compile(n.id, place)
		if d.change != nil {
			d.change(&rules)
		}
	}
	if n.generation != 0 && !foreign && (n.compiled == d.plan.Snapshot || reflect.DeepEqual(rules, n.rules)) {
		n.compiled = d.plan.Snapshot
		return false, nil
	}
	if d.cfg.Meter && n.generation != 0 && !foreign { // counters begin again with other rules
		if err := n.watch.lookBeyond(); err != nil {
			d.log.Warn("what rules dropped without logging could not be counted", "vpc", n.id, "error", err)
		}
	}
	logs := n.watch.log != nil && !d.unlogged
	if n.generation != 0 && !foreign && logs == n.logs {
		generation, alone, err := f.amend(n.generation, n.rules, rules, logs)
		if err == nil && alone {
			n.watch.amended(rules)
			n.generation, n.compiled, n.rules = generation, d.plan.Snapshot, rules
			return false, nil
		}
		foreign = err == nil // somebody else made a change at the same time
		if err != nil && !errors.Is(err, errNotAmended) {
			d.log.Warn("the packet filter is replaced: it could not be amended", "vpc", n.id, "error", err)
		}
	}
	n.generation, n.compiled = 0, nil
	generation, err := f.replace(rules, logs)
	if logs && errors.Is(err, unix.ENOENT) {
		d.log.Warn("the packet filter cannot log what it drops", "vpc", n.id, "error", err)
		logs = false
		generation, err = f.replace(rules, logs)
	}
	if err != nil {
		return foreign, err
	}
	n.watch.replaced()
	n.generation, n.compiled, n.rules, n.logs = generation, d.plan.Snapshot, rules, logs
	return foreign, nil
}

// settleInterfaces gives the namespace its addresses and listeners. foreign says that something was missing that no plan took away.
func (d *Driver) settleInterfaces(n *network, interfaces []vpc.PlannedInterface, attached error) (foreign bool, err error) {
	bridges := map[vpc.SubnetID][]netip.Addr{}
	for _, s := range d.plan.Snapshot.Subnets(n.id) {
		bridges[s.ID] = nil
		for _, p := range interfaces {
			if s.Contains(p.Addr) && n.carries(p.Addr) {
				bridges[s.ID] = append(bridges[s.ID], p.Addr)
			}
		}
	}
	if err := n.dropBridges(bridges); err != nil {
		return false, err
	}
	listening := d.listen(n, interfaces)
	changed := false
	for id, addrs := range bridges {
		done, err := n.ensureBridge(id, addrs)
		if err != nil {
			return false, err
		}
		changed = changed || done
	}
	foreign = changed && reflect.DeepEqual(bridges, n.bridges)
	n.bridges = bridges
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range interfaces {
		i := n.interfaces[p.Addr]
		if i == nil {
			i = &iface{Interface: &door.Interface{PlannedInterface: p, Metered: d.cfg.Meter && !n.watch.tracks()}}
			n.interfaces[p.Addr] = i
		}
		was := i.err
		i.err = errors.Join(attached, listening[p.ID])
		if !n.carries(p.Addr) {
			i.err = errors.Join(fmt.Errorf("%s: %w", p.Addr, ErrNoIPv6), i.err)
		}
		if i.err != nil && was == nil {
			d.log.Warn("network interface could not serve", "interface", p.ID, "error", i.err)
		}
	}
	return foreign, nil
}

// carries says whether the machine has the family of an address.
func (n *network) carries(a netip.Addr) bool { return a.Is4() || n.ipv6 }

// dropBridges removes bridges of subnets that are no more.
func (n *network) dropBridges(keep map[vpc.SubnetID][]netip.Addr) error {
	names := map[string]bool{}
	for id := range keep {
		names[bridgeName(id)] = true
	}
	links, err := whole(n.route.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		if l.Type() == "bridge" && !names[l.Attrs().Name] {
			if err := n.route.LinkDel(l); err != nil && !gone(err) {
				return fmt.Errorf("remove bridge %s: %w", l.Attrs().Name, err)
			}
		}
	}
	return nil
}

// heal compares the network with the plan from time to time: namespaces, links, addresses and rules belong to the machine,
// where others may delete them.
func (d *Driver) heal() {
	tick := time.NewTicker(d.cfg.HealEvery)
	defer tick.Stop()
	for {
		select {
		case <-d.door.Done():
			return
		case <-tick.C:
		}
		d.applying.Lock()
		if d.door.Closed() {
			d.applying.Unlock()
			return
		}
		err := d.settle()
		d.applying.Unlock()
		if now, last := time.Now().Unix(), d.complained.Load(); err != nil && now-last >= 30 && d.complained.CompareAndSwap(last, now) {
			d.log.Error("network could not be put right", "error", err)
		}
	}
}

// sweep removes what an earlier run of the same data directory left: its namespaces hold no sockets any more.
func (d *Driver) sweep() error {
	var errs []error
	removed := 0
	seen := map[string]bool{}
	for _, a := range d.cfg.Attachments {
		if seen[a.Namespace] {
			continue
		}
		seen[a.Namespace] = true
		n, err := detachAll(a.Namespace, d.owner, "")
		removed += n
		errs = append(errs, err)
	}
	names, err := leftNamespaces(d.cfg.Names, d.owner)
	errs = append(errs, err)
	for _, name := range names {
		errs = append(errs, leaveLANsOf(name), removeName(name))
		removed++
	}
	if removed > 0 {
		d.log.Info("network of an earlier run was removed", "namespaces", names, "count", removed)
	}
	return errors.Join(errs...)
}

// closeNetwork takes a VPC off the machine.
func (d *Driver) closeNetwork(n *network) error {
	d.mu.Lock()
	delete(d.networks, n.id)
	listeners := n.listeners
	n.listeners, n.interfaces = nil, nil
	d.mu.Unlock()
	for _, l := range listeners {
		_ = l.Close() // a listener that is closed twice is closed
	}
	var errs []error
	seen := map[string]bool{}
	for _, a := range d.cfg.Attachments {
		if !seen[a.Namespace] {
			seen[a.Namespace] = true
			_, err := detachAll(a.Namespace, d.owner, n.id)
			errs = append(errs, err)
		}
	}
	errs = append(errs, leaveLANs(n.route))
	n.route.Close()
	n.watch.close()
	return errors.Join(append(errs, removeName(n.name), n.ns.Close())...)
}

// Close ends everything, waits for it, and removes all that the driver made.
func (d *Driver) Close() error {
	d.applying.Lock()
	if d.door.Closed() {
		d.applying.Unlock()
		return nil
	}
	linger(d.door.Close(door.ByReset))
	d.mu.Lock()
	networks := make([]*network, 0, len(d.networks))
	for _, n := range d.networks {
		networks = append(networks, n)
	}
	d.mu.Unlock()
	var errs []error
	for _, n := range networks {
		errs = append(errs, d.closeNetwork(n))
	}
	d.applying.Unlock()
	d.work.Wait()
	return errors.Join(errs...)
}
