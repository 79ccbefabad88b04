package vpc

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Flow is one connection from a user's device or from inside a VPC to an address of a VPC.
type Flow struct {
	VPC      VPCID // where Dst is
	Src, Dst netip.AddrPort
	Protocol Protocol
	// SrcVPC is where Src is; empty: in a network of users.
	SrcVPC VPCID
}

// Direction of a packet, seen from the device.
type Direction string

// The directions.
const (
	Forward Direction = "->" // the device's packet
	Return  Direction = "<-" // the answer
)

// HopKind is what a packet is judged by at a hop.
type HopKind string

// The hops, in the order in which a connection from a user's network meets them.
const (
	HopDeviceRoute   HopKind = "device-route"
	HopNetworkACLIn  HopKind = "network-acl-inbound"
	HopNetworkACLOut HopKind = "network-acl-outbound"
	HopSecurityGroup HopKind = "security-group"
	HopListener      HopKind = "listener"
	HopReturnRoute   HopKind = "return-route"
)

// Hop is one judgement. Fix is set where Allow is false and a change of rules would help.
type Hop struct {
	Dir      Direction
	Kind     HopKind
	Resource string // "acl-…", "sg-…", "rtb-…", "eni-…"
	Rule     string // "sgr-…", "100", "*", "10.0.0.0/16", "pl-…"
	// PrefixList is the list by which the rule or route matched, and Entry the longest of its blocks that did.
	PrefixList PrefixListID
	Entry      netip.Prefix
	Allow      bool
	Why, Fix   string
}

// Symptom is what the device's user sees on a network that drops what it denies.
type Symptom string

// The symptoms.
const (
	Connected Symptom = "connected"
	Refused   Symptom = "refused"
	Timeout   Symptom = "timeout"
	NoRoute   Symptom = "no-route"
)

// Verdict is the answer to whether a connection comes about, hop by hop up to the first that denies it.
type Verdict struct {
	OK      bool
	Hops    []Hop
	Symptom Symptom
}

// Blocked is the hop that denied the connection, nil when it was admitted.
func (v Verdict) Blocked() *Hop {
	if n := len(v.Hops); n > 0 && !v.Hops[n-1].Allow {
		return &v.Hops[n-1]
	}
	return nil
}

// Resources are what a snapshot is made of. The caller must not change them afterwards.
type Resources struct {
	VPCs          []*VPC
	Subnets       []*Subnet
	Groups        []*SecurityGroup
	ACLs          []*NetworkACL
	RouteTables   []*RouteTable
	Interfaces    []*NetworkInterface
	Endpoints     []*Endpoint
	PrefixLists   []*PrefixList
	UserNetworks  []netip.Prefix // attached to every VPC
	EndpointPorts func(service string) []PortRange
}

// Snapshot is an immutable, pre-sorted state of the rules. It may be used concurrently.
type Snapshot struct {
	vpcs       map[VPCID]*vpcView
	interfaces map[vpcAddr]*interfaceView
	members    map[SecurityGroupID]map[vpcAddr]bool
	lists      map[PrefixListID]*prefixList
	users      []netip.Prefix
}

type vpcAddr struct {
	vpc  VPCID
	addr netip.Addr
}

type vpcView struct {
	*VPC
	subnets []*subnetView
}

type subnetView struct {
	*Subnet
	acl     NetworkACLID
	in, out []NetworkACLEntry // in the order of their numbers
	table   RouteTableID
	routes  []routeView // IPv4 first, longest prefix first, static before those of lists before propagated
}

type routeView struct {
	cidr   netip.Prefix
	list   PrefixListID // that cidr is an entry of
	alive  bool         // leads somewhere
	target string
}

// rule is how hops and counters name the route.
func (r *routeView) rule() string {
	if r.list != "" {
		return string(r.list)
	}
	return r.cidr.String()
}

// why names the route to people.
func (r *routeView) why() string {
	if r.list != "" {
		return fmt.Sprintf("%s (entry %s)", r.list, r.cidr)
	}
	return r.cidr.String()
}

type interfaceView struct {
	*NetworkInterface
	subnet *subnetView
	in     []ruleView
	out    []ruleView
	ports  []PortRange
}

type ruleView struct {
	group SecurityGroupID
	SecurityGroupRule
}

// NewSnapshot sorts and links the resources. What refers to something that is not there admits nothing.
func NewSnapshot(r Resources) *Snapshot {
	s := &Snapshot{
		vpcs:       make(map[VPCID]*vpcView, len(r.VPCs)),
		interfaces: make(map[vpcAddr]*interfaceView, len(r.Interfaces)),
		members:    map[SecurityGroupID]map[vpcAddr]bool{},
		lists:      make(map[PrefixListID]*prefixList, len(r.PrefixLists)),
	}
	for _, l := range r.PrefixLists {
		s.lists[l.ID] = newPrefixList(l)
	}
	for _, u := range r.UserNetworks {
		s.users = append(s.users, u.Masked())
	}
	for _, v := range r.VPCs {
		s.vpcs[v.ID] = &vpcView{VPC: v}
	}
	subnets := make(map[SubnetID]*subnetView, len(r.Subnets))
	for _, n := range r.Subnets {
		v := s.vpcs[n.VPC]
		if v == nil {
			continue
		}
		view := &subnetView{Subnet: n}
		subnets[n.ID] = view
		v.subnets = append(v.subnets, view)
	}
	for _, a := range r.ACLs {
		in, out := sortedEntries(a)
		for _, as := range a.Associations {
			if n := subnets[as.Subnet]; n != nil {
				n.acl, n.in, n.out = a.ID, in, out
			}
		}
	}
	s.linkRoutes(r, subnets)

	groups := make(map[SecurityGroupID]*SecurityGroup, len(r.Groups))
	for _, g := range r.Groups {
		groups[g.ID] = g
	}
	ports := make(map[EndpointID][]PortRange, len(r.Endpoints))
	if r.EndpointPorts != nil {
		for _, e := range r.Endpoints {
			ports[e.ID] = r.EndpointPorts(e.Service)
		}
	}
	for _, n := range r.Interfaces {
		if subnets[n.Subnet] == nil {
			continue
		}
		view := &interfaceView{NetworkInterface: n, subnet: subnets[n.Subnet], ports: ports[n.Endpoint]}
		for _, id := range n.Groups {
			if s.members[id] == nil {
				s.members[id] = map[vpcAddr]bool{}
			}
			for _, a := range n.Addrs() {
				s.members[id][vpcAddr{n.VPC, a}] = true
			}
			if g := groups[id]; g != nil {
				for _, rule := range g.Rules {
					if rule.Egress {
						view.out = append(view.out, ruleView{id, rule})
					} else {
						view.in = append(view.in, ruleView{id, rule})
					}
				}
			}
		}
		for _, a := range n.Addrs() {
			s.interfaces[vpcAddr{n.VPC, a}] = view
		}
	}
	return s
}

func (s *Snapshot) linkRoutes(r Resources, subnets map[SubnetID]*subnetView) {
	main := map[VPCID]*RouteTable{}
	explicit := map[SubnetID]*RouteTable{}
	for _, t := range r.RouteTables {
		for _, a := range t.Associations {
			if a.Main {
				main[t.VPC] = t
			} else {
				explicit[a.Subnet] = t
			}
		}
	}
	routes := map[RouteTableID][]routeView{}
	for _, n := range subnets {
		t := explicit[n.ID]
		if t == nil {
			t = main[n.VPC]
		}
		if t == nil {
			continue
		}
		if _, done := routes[t.ID]; !done {
			routes[t.ID] = s.routesOf(t)
		}
		n.table, n.routes = t.ID, routes[t.ID]
	}
}

// routesOf orders a table's routes as they win: longest prefix, local first, static before propagated.
func (s *Snapshot) routesOf(t *RouteTable) []routeView {
	v := s.vpcs[t.VPC]
	if v == nil {
		return nil
	}
	var out []routeView
	for _, b := range v.Blocks() {
		out = append(out, routeView{cidr: b, alive: true, target: string(LocalGateway)})
	}
	var listed []routeView
	for _, r := range t.Routes {
		alive := r.Gateway == v.Gateway && r.Gateway != "" || r.Gateway == LocalGateway
		view := routeView{cidr: r.CIDR.Masked(), list: r.PrefixList, alive: alive, target: cmp.Or(string(r.Gateway), string(r.Interface))}
		if r.PrefixList == "" {
			out = append(out, view)
			continue
		}
		if l := s.lists[r.PrefixList]; l != nil {
			for _, e := range l.entries {
				if _, inside := v.BlockOf(e); inside {
					continue // the local route beats lists inside it, as it beats propagated routes
				}
				view.cidr = e
				listed = append(listed, view)
			}
		}
	}
	out = append(out, listed...)
	if t.Propagates {
		for _, u := range s.users {
			if _, inside := v.BlockOf(u); inside {
				continue // the local route beats propagated ones inside it, however long they are
			}
			out = append(out, routeView{cidr: u, alive: true, target: string(v.Gateway)})
		}
	}
	slices.SortStableFunc(out, func(a, b routeView) int {
		return cmp.Or(cmp.Compare(a.cidr.Addr().BitLen(), b.cidr.Addr().BitLen()), cmp.Compare(b.cidr.Bits(), a.cidr.Bits()))
	})
	return out
}

func sortedEntries(a *NetworkACL) (in, out []NetworkACLEntry) {
	for _, e := range a.Entries {
		if e.Egress {
			out = append(out, e)
		} else {
			in = append(in, e)
		}
	}
	byNumber := func(x, y NetworkACLEntry) int { return cmp.Compare(x.Number, y.Number) }
	slices.SortFunc(in, byNumber)
	slices.SortFunc(out, byNumber)
	return in, out
}

// UserNetworks are the users' networks that the snapshot knows.
func (s *Snapshot) UserNetworks() []netip.Prefix { return slices.Clone(s.users) }

// Blocks are the VPC's blocks of addresses, the one of HasVPC first.
func (s *Snapshot) Blocks(id VPCID) []netip.Prefix {
	if v := s.vpcs[id]; v != nil {
		return v.Blocks()
	}
	return nil
}

// HasVPC says whether the VPC is in the snapshot, and its first IPv4 block.
func (s *Snapshot) HasVPC(id VPCID) (netip.Prefix, bool) {
	v := s.vpcs[id]
	if v == nil {
		return netip.Prefix{}, false
	}
	return v.CIDR, true
}

// VPCs are the VPCs of the snapshot in the order of their identifiers.
func (s *Snapshot) VPCs() []VPCID {
	out := make([]VPCID, 0, len(s.vpcs))
	for id := range s.vpcs {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// userNetwork finds the network of users that an address belongs to.
func (s *Snapshot) userNetwork(a netip.Addr) (netip.Prefix, bool) {
	for _, u := range s.users {
		if u.Contains(a) {
			return u, true
		}
	}
	return netip.Prefix{}, false
}

func (v *vpcView) subnetOf(a netip.Addr) *subnetView {
	for _, n := range v.subnets {
		if n.Contains(a) {
			return n
		}
	}
	return nil
}

// Explain judges a connection: device route, ACL into the subnet, security group, listener, return route, and the ACL
// out of the subnet to the device's port. Inside one subnet no ACL is asked; between two subnets of a VPC both are.
func (s *Snapshot) Explain(f Flow) Verdict {
	hops := make([]Hop, 0, 8)
	fail := func(h Hop, symptom Symptom) Verdict {
		return Verdict{Hops: append(hops, h), Symptom: symptom}
	}

	dst := s.vpcs[f.VPC]
	var from *subnetView // where the device is, when it is inside the VPC
	switch {
	case dst == nil:
		return fail(Hop{Dir: Forward, Kind: HopDeviceRoute, Resource: string(f.VPC), Why: "there is no VPC " + string(f.VPC)}, NoRoute)
	case f.Src.Addr().Is4() != f.Dst.Addr().Is4():
		return fail(Hop{
			Dir: Forward, Kind: HopDeviceRoute, Resource: string(f.VPC),
			Why: fmt.Sprintf("%s and %s are addresses of different families", f.Src.Addr(), f.Dst.Addr()),
			Fix: "connect from an " + string(FamilyOf(f.Dst.Addr())) + " address",
		}, NoRoute)
	case f.SrcVPC != "" && f.SrcVPC != f.VPC:
		return fail(Hop{
			Dir: Forward, Kind: HopDeviceRoute, Resource: string(f.SrcVPC),
			Why: fmt.Sprintf("%s is in %s, which has no route to %s", f.Src.Addr(), f.SrcVPC, f.VPC),
			Fix: "connect from a user network or from a subnet of " + string(f.VPC),
		}, NoRoute)
	case f.SrcVPC != "":
		if from = dst.subnetOf(f.Src.Addr()); from == nil {
			return fail(Hop{Dir: Forward, Kind: HopDeviceRoute, Resource: string(f.SrcVPC), Why: fmt.Sprintf("%s is in no subnet of %s", f.Src.Addr(), f.SrcVPC)}, NoRoute)
		}
		hops = append(hops, Hop{Dir: Forward, Kind: HopDeviceRoute, Resource: string(from.ID), Rule: string(LocalGateway), Allow: true, Why: "inside the VPC"})
	default:
		u, ok := s.userNetwork(f.Src.Addr())
		if !ok {
			return fail(Hop{
				Dir: Forward, Kind: HopDeviceRoute,
				Why: fmt.Sprintf("%s is in no network that has a route to %s", f.Src.Addr(), f.VPC),
				Fix: "attach the user's network to the VPC",
			}, NoRoute)
		}
		hops = append(hops, Hop{Dir: Forward, Kind: HopDeviceRoute, Resource: string(dst.Gateway), Rule: u.String(), Allow: true, Why: u.String() + " is attached to " + string(f.VPC)})
	}

	eni := s.interfaces[vpcAddr{f.VPC, f.Dst.Addr()}]
	to := dst.subnetOf(f.Dst.Addr())
	if to == nil {
		return fail(Hop{Dir: Forward, Kind: HopDeviceRoute, Resource: string(f.VPC), Why: fmt.Sprintf("%s is in no subnet of %s", f.Dst.Addr(), f.VPC)}, Timeout)
	}

	// What leaves an interface of ours inside the VPC passes that interface's groups first.
	if from != nil {
		if src := s.interfaces[vpcAddr{f.VPC, f.Src.Addr()}]; src != nil {
			h := s.judgeGroups(src, src.out, f, f.Dst.Addr(), true)
			if !h.Allow {
				return fail(h, Timeout)
			}
			hops = append(hops, h)
		}
	}
	crosses := from == nil || from.ID != to.ID
	if crosses {
		if from != nil {
			h := judgeACL(from, from.out, HopNetworkACLOut, Forward, f.Protocol, f.Dst.Addr(), f.Dst.Port())
			if !h.Allow {
				return fail(h, Timeout)
			}
			hops = append(hops, h)
		}
		h := judgeACL(to, to.in, HopNetworkACLIn, Forward, f.Protocol, f.Src.Addr(), f.Dst.Port())
		if !h.Allow {
			return fail(h, Timeout)
		}
		hops = append(hops, h)
	}

	if eni == nil {
		return fail(Hop{Dir: Forward, Kind: HopListener, Resource: string(to.ID), Why: fmt.Sprintf("no network interface has the address %s", f.Dst.Addr())}, Timeout)
	}
	h := s.judgeGroups(eni, eni.in, f, f.Src.Addr(), false)
	if !h.Allow {
		return fail(h, Timeout)
	}
	hops = append(hops, h)

	listens := f.Protocol == TCP && slices.ContainsFunc(eni.ports, func(r PortRange) bool { return r.Contains(f.Dst.Port()) })
	// A refusal is an answer too: it has to find its way back before the device sees it.
	listener := Hop{Dir: Forward, Kind: HopListener, Resource: string(eni.ID), Rule: strconv.Itoa(int(f.Dst.Port())), Allow: listens}
	if listens {
		listener.Why = fmt.Sprintf("%s listens on %s", eni.ID, listener.Rule)
	} else {
		listener.Why = fmt.Sprintf("%s does not listen on %s %s", eni.ID, f.Protocol, listener.Rule)
		listener.Fix = "endpoints listen on tcp 443 and, for streaming, 1400-1499"
	}

	back := s.judgeReturn(to, from, f)
	for _, h := range back {
		if !h.Allow {
			hops = append(hops, listenerPassed(listener, listens)...)
			hops = append(hops, back...)
			return Verdict{Hops: cutAtDenial(hops), Symptom: Timeout}
		}
	}
	if !listens {
		return fail(listener, Refused)
	}
	hops = append(hops, listener)
	hops = append(hops, back...)
	return Verdict{OK: true, Hops: hops, Symptom: Connected}
}

// listenerPassed leaves a refusing listener out of the hops when its answer cannot come back: the way back is the news.
func listenerPassed(h Hop, listens bool) []Hop {
	if !listens {
		return nil
	}
	return []Hop{h}
}

func cutAtDenial(hops []Hop) []Hop {
	for i, h := range hops {
		if !h.Allow {
			return hops[:i+1]
		}
	}
	return hops
}

// judgeReturn is the way of the answer: route, and ACLs, which remember nothing.
func (s *Snapshot) judgeReturn(to, from *subnetView, f Flow) []Hop {
	hops := make([]Hop, 0, 3)
	hops = append(hops, judgeRoute(to, from, f.Src.Addr()))
	if from != nil && from.ID == to.ID {
		return hops
	}
	hops = append(hops, judgeACL(to, to.out, HopNetworkACLOut, Return, f.Protocol, f.Src.Addr(), f.Src.Port()))
	if from != nil {
		hops = append(hops, judgeACL(from, from.in, HopNetworkACLIn, Return, f.Protocol, f.Dst.Addr(), f.Src.Port()))
	}
	return hops
}

func judgeRoute(to, from *subnetView, device netip.Addr) Hop {
	h := Hop{Dir: Return, Kind: HopReturnRoute, Resource: string(to.table)}
	for _, r := range to.routes {
		if !r.cidr.Contains(device) {
			continue
		}
		h.Rule = r.rule()
		if r.list != "" {
			h.PrefixList, h.Entry = r.list, r.cidr
		}
		switch {
		case r.target == string(LocalGateway) && from == nil:
			h.Why = fmt.Sprintf("route %s keeps answers to %s inside the VPC, but the device is outside", r.why(), device)
			h.Fix = "use a VPC whose CIDR does not overlap the users' network"
		case !r.alive:
			h.Why = fmt.Sprintf("route %s leads to %s, which carries nothing to the users' networks", r.why(), r.target)
			h.Fix = fmt.Sprintf("delete the route %s from %s or point it at the VPC's gateway", r.rule(), to.table)
		default:
			h.Allow, h.Why = true, fmt.Sprintf("route %s leads to %s", r.why(), r.target)
		}
		return h
	}
	h.Why = fmt.Sprintf("no route of %s leads to %s", to.table, device)
	h.Fix = fmt.Sprintf("add a route to %s through the VPC's gateway", device)
	if to.table == "" {
		h.Why = fmt.Sprintf("subnet %s has no route table", to.ID)
	}
	return h
}

// judgeACL finds the first entry that matches the other side's address and the packet's destination port.
func judgeACL(n *subnetView, entries []NetworkACLEntry, kind HopKind, dir Direction, proto Protocol, other netip.Addr, port uint16) Hop {
	h := Hop{Dir: dir, Kind: kind, Resource: string(n.acl)}
	for i := range entries {
		e := &entries[i]
		if !e.matches(proto, other, port) {
			continue
		}
		h.Rule, h.Allow = strconv.Itoa(e.Number), e.Allow
		if e.Allow {
			h.Why = "entry " + h.Rule + " allows " + traffic(proto, port) + " " + preposition(kind) + " " + other.String()
			return h
		}
		h.Why = "entry " + h.Rule + " denies " + traffic(proto, port) + " " + preposition(kind) + " " + other.String()
		h.Fix = aclFix(n, kind, dir, other)
		return h
	}
	h.Rule = "*"
	h.Why = "no entry allows " + traffic(proto, port) + " " + preposition(kind) + " " + other.String()
	h.Fix = aclFix(n, kind, dir, other)
	return h
}

func traffic(p Protocol, port uint16) string { return p.String() + " " + strconv.Itoa(int(port)) }

func preposition(kind HopKind) string {
	if kind == HopNetworkACLOut {
		return "to"
	}
	return "from"
}

func aclFix(n *subnetView, kind HopKind, dir Direction, other netip.Addr) string {
	ports := "443 and 1400-1499"
	if dir == Return {
		ports = "1024-65535" // ports that devices choose for their side of a connection
	}
	way := "inbound"
	if kind == HopNetworkACLOut {
		way = "outbound"
	}
	return fmt.Sprintf("allow %s tcp %s %s %s in %s, before any entry that denies it", way, ports, preposition(kind), other, n.acl)
}

func (e *NetworkACLEntry) matches(proto Protocol, other netip.Addr, port uint16) bool {
	if !e.CIDR.Contains(other) {
		return false
	}
	if e.Protocol == AllProtocols {
		return true
	}
	return e.Protocol == proto && (!proto.HasPorts() || e.Ports.Contains(port))
}

// judgeGroups is the union of the rules of the interface's groups.
func (s *Snapshot) judgeGroups(n *interfaceView, rules []ruleView, f Flow, other netip.Addr, egress bool) Hop {
	h := Hop{Dir: Forward, Kind: HopSecurityGroup}
	kind := HopNetworkACLIn // for the preposition
	way := "inbound"
	if egress {
		kind, way = HopNetworkACLOut, "outbound"
	}
	port := f.Dst.Port()
	for i := range rules {
		r := &rules[i]
		if r.Protocol != AllProtocols && (r.Protocol != f.Protocol || r.Protocol.HasPorts() && !r.Ports.Contains(port)) {
			continue
		}
		by := ""
		switch {
		case r.Peer.PrefixList != "":
			e, ok := s.lists[r.Peer.PrefixList].match(other)
			if !ok {
				continue
			}
			h.PrefixList, h.Entry = r.Peer.PrefixList, e
			by = fmt.Sprintf(", by the entry %s of %s", e, r.Peer.PrefixList)
		case r.Peer.Group != "":
			// A group stands for the private addresses of the interfaces that carry it, never for addresses outside.
			if f.SrcVPC != f.VPC || !s.members[r.Peer.Group][vpcAddr{f.VPC, other}] {
				continue
			}
		case !r.Peer.CIDR.IsValid() || !r.Peer.CIDR.Contains(other):
			continue
		}
		h.Resource, h.Rule, h.Allow = string(r.group), string(r.ID), true
		h.Why = string(r.ID) + " allows " + traffic(f.Protocol, port) + " " + preposition(kind) + " " + other.String() + by
		return h
	}
	if len(n.Groups) > 0 {
		h.Resource = string(n.Groups[0])
	}
	h.Why = fmt.Sprintf("no rule of %s allows %s %s %s", joinIDs(n.Groups), traffic(f.Protocol, port), preposition(kind), other)
	want := strconv.Itoa(int(port))
	if port >= 1400 && port <= 1499 {
		want = "1400-1499"
	}
	peer := other.String()
	if u, ok := s.userNetwork(other); ok {
		peer = u.String()
	}
	h.Fix = fmt.Sprintf("add an %s rule to %s: %s %s %s %s", way, h.Resource, f.Protocol, want, preposition(kind), peer)
	return h
}

func joinIDs(ids []SecurityGroupID) string {
	if len(ids) == 0 {
		return "no security group"
	}
	names := make([]string, 0, len(ids))
	for _, id := range ids {
		names = append(names, string(id))
	}
	return strings.Join(names, ", ")
}

// The range of ports that devices choose for their side of a connection.
const (
	EphemeralFirst = 1024
	EphemeralLast  = 65535
)

// RangeVerdict is the verdict that holds for every source port from From to To.
type RangeVerdict struct {
	From, To uint16
	Verdict  Verdict
}

// ExplainRange judges a connection for every source port of 1024 to 65535 and returns the verdicts in order of ports,
// neighbours with the same deciding hop joined: a narrowed ephemeral range fails only some connections.
func (s *Snapshot) ExplainRange(f Flow) []RangeVerdict {
	// Source ports matter only to the ACLs that answers pass: verdicts change where an entry of theirs begins or ends.
	cuts := []int{EphemeralFirst}
	if v := s.vpcs[f.VPC]; v != nil {
		lists := [][]NetworkACLEntry{}
		if n := v.subnetOf(f.Dst.Addr()); n != nil {
			lists = append(lists, n.out)
		}
		if f.SrcVPC == f.VPC {
			if n := v.subnetOf(f.Src.Addr()); n != nil {
				lists = append(lists, n.in)
			}
		}
		for _, entries := range lists {
			for _, e := range entries {
				if e.Ports == AllPorts {
					continue
				}
				for _, c := range []int{e.Ports.From, e.Ports.To + 1} {
					if c > EphemeralFirst && c <= EphemeralLast {
						cuts = append(cuts, c)
					}
				}
			}
		}
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)

	var out []RangeVerdict
	for i, from := range cuts {
		to := EphemeralLast
		if i+1 < len(cuts) {
			to = cuts[i+1] - 1
		}
		f.Src = netip.AddrPortFrom(f.Src.Addr(), uint16(from))
		v := s.Explain(f)
		if n := len(out); n > 0 && sameDecision(out[n-1].Verdict, v) {
			out[n-1].To = uint16(to)
			continue
		}
		out = append(out, RangeVerdict{From: uint16(from), To: uint16(to), Verdict: v})
	}
	return out
}

func sameDecision(a, b Verdict) bool {
	if a.OK != b.OK || a.Symptom != b.Symptom {
		return false
	}
	if a.OK {
		return true
	}
	if len(a.Hops) != len(b.Hops) {
		return false
	}
	last := len(a.Hops) - 1
	return last < 0 || a.Hops[last].Kind == b.Hops[last].Kind && a.Hops[last].Rule == b.Hops[last].Rule && a.Hops[last].Resource == b.Hops[last].Resource
}
