package vpc

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Ruleset is what a packet filter must have in force for one VPC: the same rules that Explain judges by, as data.
// Every rule that stands for a hop carries the hop's identity as its name.
type Ruleset struct {
	VPC    VPCID
	Sets   []AddrSet
	Chains []Chain
}

// AddrSet is a named set of addresses.
type AddrSet struct {
	Name   string
	Addrs  []netip.Addr // sorted
	Ranges []AddrRange  // sorted, neither overlapping nor touching; instead of Addrs when Interval is set
	// Interval says that the set is one of ranges.
	Interval bool
	Family   AddressFamily // of its members
}

// Hook is where in a packet's way a chain stands; empty: only where other chains lead.
type Hook string

// The hooks, of a network namespace.
const (
	HookPrerouting Hook = "prerouting"
	HookInput      Hook = "input"
	HookForward    Hook = "forward"
	HookOutput     Hook = "output"
)

// Chain is an ordered list of rules; the first that matches and decides wins. What passes a chain with a hook goes on to
// the chain with the next priority.
type Chain struct {
	Name     string
	Hook     Hook
	Priority int // below -200: before connection tracking
	Drop     bool
	Rules    []Rule
}

// Action is what a rule does with a packet that it matches.
type Action string

// The actions.
const (
	ActionAccept   Action = "accept"   // go on to the next chain with a hook
	ActionDrop     Action = "drop"     // without an answer
	ActionReset    Action = "reset"    // answer with a TCP reset
	ActionJump     Action = "jump"     // and come back when nothing there decides
	ActionGoto     Action = "goto"     // and do not come back
	ActionDispatch Action = "dispatch" // goto the chain of the address in Targets; go on when it is not there
)

// Rule is one rule; members with zero values match everything.
type Rule struct {
	Name        string        // identity: Hop.Identity, or what else counts packets
	Family      AddressFamily // of packets; empty: both. Rules with addresses or sets have theirs.
	TooBig      bool          // an ICMP message that a packet was too big for its way, without which TCP stalls
	InLink      string        // by which the packet comes
	OutLink     string        // by which the packet leaves
	Established bool          // it belongs to a connection that was admitted
	Opening     bool          // it begins a TCP connection
	Src, Dst    netip.Prefix
	SrcSet      string // the name of a set that holds the source
	DstSet      string
	Traffic     *Traffic
	Action      Action
	Chain       string // of jump and goto
	BySource    bool   // dispatch by source address instead of destination
	Targets     []Target
}

// Traffic is a protocol and, where it has them, destination ports.
type Traffic struct {
	Protocol Protocol
	Ports    PortRange
}

// Target is where dispatch leads for an address.
type Target struct {
	Addr  netip.Addr
	Chain string
}

// Place is how a VPC lies in the network that filters its packets.
type Place struct {
	Links []Link
	// Probes are addresses of the namespace itself, at most one a family, from which interfaces are checked past the rules.
	// Packets from outside that claim to have one are dropped.
	Probes []netip.Addr
}

// Link is an interface by which users' networks reach the VPC.
type Link struct {
	Name     string
	Networks []netip.Prefix
}

// LoopbackLink is the name of the interface by which a namespace reaches its own addresses.
const LoopbackLink = "lo"

// Subnets are the subnets of a VPC.
func (s *Snapshot) Subnets(id VPCID) []Subnet {
	v := s.vpcs[id]
	if v == nil {
		return nil
	}
	out := make([]Subnet, 0, len(v.subnets))
	for _, n := range v.subnets {
		out = append(out, *n.Subnet)
	}
	return out
}

// Identity names the rule that a hop was judged by, in counters and comments: "network-acl-inbound:acl-…:100".
func (h Hop) Identity() string {
	return string(h.Kind) + ":" + h.Resource + ":" + h.Rule
}

// Priorities of the chains. Up to priorityInterfaces they stand before connection tracking (-200), so they see every packet alone.
const (
	priorityFamily     = -330
	priorityRoutes     = -310
	priorityACL        = -300
	priorityInterfaces = -290
	priorityGroups     = 0
	priorityListeners  = 5
)

// compiler builds one ruleset.
type compiler struct {
	s     *Snapshot
	v     *vpcView
	place Place
	out   Ruleset
	made  map[string]bool // chains and sets
	enis  []place         // the addresses of interfaces, in their order
	ipv6  bool            // the VPC has IPv6 addresses
}

// place is an interface at one of its addresses.
type place struct {
	*interfaceView
	at netip.Addr
}

// families are those that the VPC has.
func (c *compiler) families() []AddressFamily {
	if c.ipv6 {
		return []AddressFamily{FamilyIPv4, FamilyIPv6}
	}
	return []AddressFamily{FamilyIPv4}
}

// of names a set that there may be one of for each family.
func (f AddressFamily) of(name string) string {
	if f == FamilyIPv6 {
		return name + "-ipv6"
	}
	return name
}

// Compile is the VPC's ruleset; empty when the VPC is unknown. Equal snapshots compile to equal rulesets.
//
// Packets meet, on their way in: family, sources, network ACL, interfaces, security groups, listeners; on their way out:
// family, routes, network ACL, security groups. Nothing is forwarded. A VPC without IPv6 addresses drops all IPv6 packets first;
// in one that has them, whatever no rule is about is dropped, as the link-local addresses of links.
func (s *Snapshot) Compile(id VPCID, at Place) Ruleset {
	v := s.vpcs[id]
	if v == nil {
		return Ruleset{VPC: id}
	}
	c := &compiler{s: s, v: v, place: at, out: Ruleset{VPC: id}, made: map[string]bool{}, ipv6: len(v.IPv6) > 0}
	for at, n := range s.interfaces {
		if at.vpc == id {
			c.enis = append(c.enis, place{n, at.addr})
		}
	}
	slices.SortFunc(c.enis, func(a, b place) int { return a.at.Compare(b.at) })
	subnets := slices.SortedFunc(slices.Values(v.subnets), func(a, b *subnetView) int { return cmp.Compare(a.ID, b.ID) })

	for _, h := range []Hook{HookPrerouting, HookOutput} {
		if !c.ipv6 { // nobody may find a way around the rules by it
			c.base("family-"+string(h), h, priorityFamily, []Rule{{Name: "ipv6:" + string(h) + ":", Family: FamilyIPv6, Action: ActionDrop}}, false)
		}
	}
	c.base("forward", HookForward, 0, []Rule{{Name: "forward::", Action: ActionDrop}}, true)
	c.sources()
	c.acls(subnets)
	c.interfaces(subnets)
	c.routes(subnets)
	c.groups(false)
	c.groups(true)
	c.listeners()
	return c.out
}

func (c *compiler) chain(name string, rules []Rule) string {
	if !c.made[name] {
		c.made[name] = true
		c.out.Chains = append(c.out.Chains, Chain{Name: name, Rules: rules})
	}
	return name
}

func (c *compiler) base(name string, h Hook, priority int, rules []Rule, drop bool) {
	c.out.Chains = append(c.out.Chains, Chain{Name: name, Hook: h, Priority: priority, Drop: drop, Rules: rules})
}

// probe admits checks; they never leave the namespace.
func (c *compiler) probe(h Hook) []Rule {
	var rules []Rule
	for _, a := range c.place.Probes {
		if a.Is4() || c.ipv6 {
			p := netip.PrefixFrom(a, a.BitLen())
			rules = append(rules, Rule{Src: p, Action: ActionAccept}, Rule{Dst: p, Action: ActionAccept})
		}
	}
	for i := range rules {
		if h == HookOutput {
			rules[i].OutLink = LoopbackLink
		} else {
			rules[i].InLink = LoopbackLink
		}
	}
	return rules
}

// sources lets in what comes from a network of users by a link that leads there.
func (c *compiler) sources() {
	rules := append([]Rule{{InLink: LoopbackLink, Action: ActionAccept}}, c.tooBig()...)
	for _, u := range c.s.users {
		for _, l := range c.place.Links {
			if slices.Contains(l.Networks, u) && (u.Addr().Is4() || c.ipv6) {
				h := Hop{Kind: HopDeviceRoute, Resource: string(c.v.Gateway), Rule: u.String()}
				rules = append(rules, Rule{Name: h.Identity(), InLink: l.Name, Src: u, Action: ActionAccept})
			}
		}
	}
	rules = append(rules, Rule{Name: Hop{Kind: HopDeviceRoute}.Identity(), Action: ActionDrop})
	c.base("sources", HookPrerouting, priorityRoutes, rules, true)
}

// tooBig lets in what routers say about packets that they cannot pass on, from wherever they are: a network ACL cannot name
// them, and without it TCP does not learn. Connection tracking lets it on only when it is about a connection that was admitted.
func (c *compiler) tooBig() (rules []Rule) {
	for _, f := range c.families() {
		rules = append(rules, Rule{Family: f, TooBig: true, Action: ActionAccept})
	}
	return rules
}

// acls judges packets that cross the border of a subnet, each packet alone.
func (c *compiler) acls(subnets []*subnetView) {
	in, out := append(c.probe(HookPrerouting), c.tooBig()...), c.probe(HookOutput)
	for _, n := range subnets {
		for _, b := range c.blocks(n) { // within a subnet, from either family's block to the same one's
			same := Rule{Src: b, Dst: b, Action: ActionAccept}
			in, out = append(in, same), append(out, same)
		}
	}
	for _, n := range subnets {
		for _, b := range c.blocks(n) {
			in = append(in, Rule{Dst: b, Action: ActionGoto, Chain: c.acl(n, n.in, HopNetworkACLIn)})
			out = append(out, Rule{Src: b, Action: ActionGoto, Chain: c.acl(n, n.out, HopNetworkACLOut)})
		}
	}
	in = append(in, Rule{Name: Hop{Kind: HopDeviceRoute, Resource: string(c.v.ID)}.Identity(), Action: ActionDrop})
	out = append(out, Rule{Name: "output::", Action: ActionDrop})
	c.base("acl-in", HookPrerouting, priorityACL, in, true)
	c.base("acl-out", HookOutput, priorityACL, out, true)
}

// blocks are a subnet's blocks of the families that the VPC has.
func (c *compiler) blocks(n *subnetView) []netip.Prefix {
	return slices.DeleteFunc(n.Blocks(), func(b netip.Prefix) bool { return b.Addr().Is6() && !c.ipv6 })
}

func (c *compiler) acl(n *subnetView, entries []NetworkACLEntry, kind HopKind) string {
	name := "in-"
	if kind == HopNetworkACLOut {
		name = "out-"
	}
	name += cmp.Or(string(n.acl), "no-acl")
	if c.made[name] {
		return name
	}
	rules := make([]Rule, 0, len(entries)+1)
	for _, e := range entries {
		if e.CIDR.Addr().Is6() && !c.ipv6 {
			continue
		}
		r := Rule{Name: Hop{Kind: kind, Resource: string(n.acl), Rule: fmt.Sprint(e.Number)}.Identity(), Traffic: trafficOf(e.Protocol, e.Ports), Action: ActionDrop}
		if e.Allow {
			r.Action = ActionAccept
		}
		if kind == HopNetworkACLOut {
			r.Dst = e.CIDR.Masked()
		} else {
			r.Src = e.CIDR.Masked()
		}
		rules = append(rules, r)
	}
	return c.chain(name, append(rules, Rule{Name: Hop{Kind: kind, Resource: string(n.acl), Rule: "*"}.Identity(), Action: ActionDrop}))
}

func trafficOf(p Protocol, ports PortRange) *Traffic {
	if p == AllProtocols {
		return nil
	}
	if !p.HasPorts() {
		ports = AllPorts
	}
	return &Traffic{Protocol: p, Ports: ports}
}

// interfaces drops what goes to an address that no interface has, so that nobody learns more about a subnet.
func (c *compiler) interfaces(subnets []*subnetView) {
	rules := c.probe(HookPrerouting)
	for _, f := range c.families() {
		set := AddrSet{Name: f.of("interfaces"), Family: f}
		for _, n := range c.enis {
			if FamilyOf(n.at) == f {
				set.Addrs = append(set.Addrs, n.at)
			}
		}
		c.out.Sets = append(c.out.Sets, set)
		rules = append(rules, Rule{Family: f, DstSet: set.Name, Action: ActionAccept})
	}
	for _, n := range subnets {
		for _, b := range c.blocks(n) {
			rules = append(rules, Rule{Name: Hop{Kind: HopListener, Resource: string(n.ID)}.Identity(), Dst: b, Action: ActionDrop})
		}
	}
	c.base("interfaces", HookPrerouting, priorityInterfaces, rules, true)
}

// routes drops what has no way back. Routes are rules, so that they change together with all others.
func (c *compiler) routes(subnets []*subnetView) {
	rules := c.probe(HookOutput)
	for _, n := range subnets {
		name := "routes-" + cmp.Or(string(n.table), "none")
		var table []Rule
		for i := 0; i < len(n.routes) && !c.made[name]; i++ {
			r := &n.routes[i]
			if r.cidr.Addr().Is6() && !c.ipv6 {
				continue
			}
			rule := Rule{Name: Hop{Kind: HopReturnRoute, Resource: string(n.table), Rule: r.rule()}.Identity(), Dst: r.cidr, Action: ActionDrop}
			if r.alive {
				rule.Action = ActionAccept
			}
			if r.list != "" { // entries that follow each other are one set: no other route decides between them
				blocks := []netip.Prefix{r.cidr}
				for ; i+1 < len(n.routes) && n.routes[i+1].list == r.list; i++ {
					blocks = append(blocks, n.routes[i+1].cidr)
				}
				f := FamilyOf(r.cidr.Addr())
				rule.Dst, rule.Family, rule.DstSet = netip.Prefix{}, f, c.ranges(fmt.Sprintf("%s-%d", name, len(table)), f, blocks)
			}
			if r.target == string(LocalGateway) { // what is outside cannot be reached by it
				inside := rule
				inside.OutLink = LoopbackLink
				table = append(table, inside)
				rule.Action = ActionDrop
			}
			table = append(table, rule)
		}
		table = append(table, Rule{Name: Hop{Kind: HopReturnRoute, Resource: string(n.table)}.Identity(), Action: ActionDrop})
		for _, b := range c.blocks(n) {
			rules = append(rules, Rule{Src: b, Action: ActionGoto, Chain: c.chain(name, table)})
		}
	}
	c.base("routes", HookOutput, priorityRoutes, append(rules, Rule{Name: "output::", Action: ActionDrop}), true)
}

// groups admits new connections by the union of the groups of an interface, and everything of admitted ones.
func (c *compiler) groups(egress bool) {
	base, prefix, hook := "groups-in", "group-in-", HookInput
	if egress {
		base, prefix, hook = "groups-out", "group-out-", HookOutput
	}
	var targets []Target
	for _, n := range c.enis {
		all := n.in
		if egress {
			all = n.out
		}
		var own []Rule
		for i := 0; i < len(all); { // rules come group by group
			j := i
			for j < len(all) && all[j].group == all[i].group {
				j++
			}
			own = append(own, Rule{Action: ActionJump, Chain: c.group(prefix+string(all[i].group), all[i:j], egress)})
			i = j
		}
		first := ""
		if len(n.Groups) > 0 {
			first = string(n.Groups[0])
		}
		own = append(own, Rule{Name: Hop{Kind: HopSecurityGroup, Resource: first}.Identity(), Action: ActionDrop})
		targets = append(targets, Target{Addr: n.at, Chain: c.chain(base+"-"+string(n.ID), own)})
	}
	c.judge(base, hook, priorityGroups, Rule{Action: ActionDispatch, BySource: egress, Targets: targets})
}

func (c *compiler) group(name string, rules []ruleView, egress bool) string {
	if c.made[name] {
		return name
	}
	out := make([]Rule, 0, len(rules))
	for i := range rules {
		r := &rules[i]
		rule := Rule{
			Name:    Hop{Kind: HopSecurityGroup, Resource: string(r.group), Rule: string(r.ID)}.Identity(),
			Traffic: trafficOf(r.Protocol, r.Ports), Action: ActionAccept,
		}
		peer := func(f AddressFamily, set string) {
			rule.Family, rule.SrcSet, rule.DstSet = f, set, ""
			if egress {
				rule.SrcSet, rule.DstSet = "", set
			}
			out = append(out, rule)
		}
		switch list := c.s.lists[r.Peer.PrefixList]; {
		case r.Peer.PrefixList != "" && (list == nil || list.ipv6 && !c.ipv6):
		case list != nil:
			f := FamilyIPv4
			if list.ipv6 {
				f = FamilyIPv6
			}
			peer(f, c.ranges("list-"+string(list.id), f, list.entries))
		case r.Peer.Group != "":
			for _, f := range c.families() {
				peer(f, c.members(r.Peer.Group, f))
			}
		case !r.Peer.CIDR.IsValid() || r.Peer.CIDR.Addr().Is6() && !c.ipv6:
		case egress:
			rule.Dst = r.Peer.CIDR.Masked()
			out = append(out, rule)
		default:
			rule.Src = r.Peer.CIDR.Masked()
			out = append(out, rule)
		}
	}
	return c.chain(name, out)
}

// ranges is a set of blocks of addresses.
func (c *compiler) ranges(name string, f AddressFamily, blocks []netip.Prefix) string {
	if !c.made[name] {
		c.made[name] = true
		c.out.Sets = append(c.out.Sets, AddrSet{Name: name, Family: f, Ranges: rangesOf(blocks), Interval: true})
	}
	return name
}

// members is the set of private addresses of a family that a group stands for.
func (c *compiler) members(g SecurityGroupID, f AddressFamily) string {
	name := f.of("members-" + string(g))
	if c.made[name] {
		return name
	}
	c.made[name] = true
	set := AddrSet{Name: name, Family: f}
	for at := range c.s.members[g] {
		if at.vpc == c.v.ID && FamilyOf(at.addr) == f {
			set.Addrs = append(set.Addrs, at.addr)
		}
	}
	slices.SortFunc(set.Addrs, netip.Addr.Compare)
	c.out.Sets = append(c.out.Sets, set)
	return name
}

// listeners resets connections to ports on which an interface does not listen, also where another one of the VPC does.
func (c *compiler) listeners() {
	var targets []Target
	for _, n := range c.enis {
		name := []string{"listen"}
		var own []Rule
		for _, p := range n.ports {
			name = append(name, p.String())
			own = append(own, Rule{Traffic: &Traffic{TCP, p}, Action: ActionAccept})
		}
		own = append(own, Rule{Name: string(HopListener) + "::", Traffic: &Traffic{TCP, AllPorts}, Action: ActionReset}, Rule{Action: ActionAccept})
		targets = append(targets, Target{Addr: n.at, Chain: c.chain(strings.Join(name, "-"), own)})
	}
	c.judge("listeners", HookInput, priorityListeners, Rule{Action: ActionDispatch, Targets: targets})
}

// judge dispatches what begins and lets pass what goes on. A packet that opens a TCP connection is judged although its
// addresses and ports are those of a connection that ended and is remembered still.
func (c *compiler) judge(base string, h Hook, priority int, dispatch Rule) {
	rules := c.probe(h)
	var all []Rule // one a family that has targets
	for _, f := range c.families() {
		one := dispatch
		one.Family, one.Targets = f, nil
		for _, t := range dispatch.Targets {
			if FamilyOf(t.Addr) == f {
				one.Targets = append(one.Targets, t)
			}
		}
		if len(one.Targets) > 0 {
			all = append(all, one)
		}
	}
	for _, opening := range all {
		opening.Opening = true
		rules = append(rules, opening)
	}
	rules = append(rules, Rule{Established: true, Action: ActionAccept})
	rules = append(rules, all...)
	c.base(base, h, priority, append(rules, Rule{Name: string(h) + "::", Action: ActionDrop}), true)
}

// String is the ruleset as text, a rule a line.
func (r Ruleset) String() string {
	var b strings.Builder
	for _, s := range r.Sets {
		if s.Interval {
			fmt.Fprintf(&b, "set %s %v\n", s.Name, s.Ranges)
			continue
		}
		fmt.Fprintf(&b, "set %s %v\n", s.Name, s.Addrs)
	}
	for _, c := range r.Chains {
		fmt.Fprintf(&b, "chain %s", c.Name)
		if c.Hook != "" {
			policy := ActionAccept
			if c.Drop {
				policy = ActionDrop
			}
			fmt.Fprintf(&b, " hook %s priority %d policy %s", c.Hook, c.Priority, policy)
		}
		b.WriteString("\n")
		for i := range c.Rules {
			fmt.Fprintf(&b, "  %s\n", c.Rules[i].text())
		}
	}
	return b.String()
}

func (r *Rule) text() string {
	var w []string
	add := func(yes bool, format string, args ...any) {
		if yes {
			w = append(w, fmt.Sprintf(format, args...))
		}
	}
	add(r.Family == FamilyIPv6, "ipv6")
	add(r.TooBig, "too big")
	add(r.InLink != "", "in by %s", r.InLink)
	add(r.OutLink != "", "out by %s", r.OutLink)
	add(r.Established, "established")
	add(r.Opening, "opening")
	add(r.Src.IsValid(), "from %s", r.Src)
	add(r.SrcSet != "", "from @%s", r.SrcSet)
	add(r.Dst.IsValid(), "to %s", r.Dst)
	add(r.DstSet != "", "to @%s", r.DstSet)
	if r.Traffic != nil {
		add(true, "%s", r.Traffic.Protocol)
		add(r.Traffic.Ports != AllPorts, "%s", r.Traffic.Ports)
	}
	add(true, "%s", r.Action)
	add(r.Chain != "", "%s", r.Chain)
	add(r.BySource, "by source")
	for _, t := range r.Targets {
		add(true, "%s:%s", t.Addr, t.Chain)
	}
	add(r.Name != "", "# %s", r.Name)
	return strings.Join(w, " ")
}
