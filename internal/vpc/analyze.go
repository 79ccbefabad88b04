package vpc

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// maxExplained bounds the connections that one analysis judges, and maxExplanations what it says about a failure.
const (
	maxExplained    = 50_000
	maxExplanations = 20
)

// ErrTooWide is returned by Analyze for a path with more sorts of packets than one analysis judges.
var ErrTooWide = errors.New("the path has too many possible packets; name a source address and a destination port")

// Analyze answers a path with the evaluator that judges real packets: whether any packet that the path allows comes from the
// source to the destination and its answer back. filterIn and filterOut are IDs of components to pass and to avoid.
// An error says why there is no answer: an end that does not exist, or ErrTooWide.
func Analyze(r Resources, p *InsightsPath, filterIn, filterOut []string) (Findings, error) {
	a := &analysis{Resources: r, snapshot: NewSnapshot(r), path: p, filterIn: filterIn, filterOut: filterOut}
	a.narrow()
	return a.run()
}

// analysis is one run of Analyze.
type analysis struct {
	Resources
	snapshot            *Snapshot
	path                *InsightsPath
	filterIn, filterOut []string
	explained           int

	// What packets may look like: the path's members and both of its filters.
	src, dst           netip.Addr // zero: any
	srcPorts, dstPorts PortRange
	empty              string // why no packet can be like that
}

// end is where a packet begins or ends.
type end struct {
	id        string
	addr      netip.Addr
	vpc       VPCID             // empty: among the users
	eni       *NetworkInterface // nil: no interface of ours
	endpoint  *Endpoint         // of the interface
	gateway   *VPC              // through whose gateway users come
	leftovers []netip.Addr      // of a users' network: where rules change
}

// narrow reads what packets of the path look like.
func (a *analysis) narrow() {
	a.srcPorts, a.dstPorts = PortRange{From: EphemeralFirst, To: EphemeralLast}, AllPorts
	if p := a.path.DestinationPort; p != nil {
		a.dstPorts = PortRange{From: *p, To: *p}
	}
	addr := func(into *netip.Addr, v netip.Addr, what string) {
		switch {
		case !v.IsValid():
		case into.IsValid() && *into != v:
			a.empty = fmt.Sprintf("the path's filters want two %s addresses, %s and %s", what, *into, v)
		default:
			*into = v
		}
	}
	ports := func(into *PortRange, v *PortRange, what string) {
		if v == nil {
			return
		}
		both := *v
		if *into != AllPorts {
			both = PortRange{From: max(into.From, v.From), To: min(into.To, v.To)}
		}
		if both.From > both.To {
			a.empty = fmt.Sprintf("no %s port is in both %s and %s", what, *into, *v)
			return
		}
		*into = both
	}
	addr(&a.src, a.path.SourceIP, "source")
	addr(&a.dst, a.path.DestinationIP, "destination")
	filters := slices.DeleteFunc([]*InsightsFilter{a.path.AtSource, a.path.AtDestination}, func(f *InsightsFilter) bool { return f == nil })
	if slices.ContainsFunc(filters, func(f *InsightsFilter) bool { return f.SourcePorts != nil }) {
		a.srcPorts = AllPorts // what is asked for counts, also below the ports that devices choose
	}
	for _, f := range filters {
		addr(&a.src, f.Source, "source")
		addr(&a.dst, f.Destination, "destination")
		ports(&a.srcPorts, f.SourcePorts, "source")
		ports(&a.dstPorts, f.DestinationPorts, "destination")
	}
	if a.src.IsValid() && a.dst.IsValid() && a.src.Is4() != a.dst.Is4() {
		a.empty = fmt.Sprintf("%s and %s are of different IP versions", a.src, a.dst)
	}
}

func (a *analysis) run() (Findings, error) {
	if a.empty != "" {
		return Findings{Explanations: []Explanation{{Code: CodeNoPath, Component: a.path.Source, Missing: a.empty}}}, nil
	}
	sources, out, err := a.sources()
	if err != nil {
		return Findings{}, err
	}
	destinations, more, err := a.destinations(sources)
	if err != nil {
		return Findings{}, err
	}
	if out = append(out, more...); len(out) > 0 {
		return Findings{Explanations: out}, nil
	}
	filtered := false
	for _, dst := range destinations {
		for _, src := range sources {
			f, passedOver, err := a.try(src, dst)
			if err != nil {
				return Findings{}, err
			}
			filtered = filtered || passedOver
			if f != nil {
				return *f, nil
			}
		}
	}
	if filtered {
		return Findings{Explanations: []Explanation{{
			Code: CodeComponentFilter, Component: a.path.Source, Destination: a.path.Destination,
			Missing: "a path that the filters of the analysis allow; without them there is one",
		}}}, nil
	}
	return Findings{Explanations: a.explain(sources, destinations)}, nil
}

func (a *analysis) findInterface(id string) *NetworkInterface {
	i := slices.IndexFunc(a.Interfaces, func(n *NetworkInterface) bool { return string(n.ID) == id })
	if i < 0 {
		return nil
	}
	return a.Interfaces[i]
}

func (a *analysis) findEndpoint(id string) *Endpoint {
	i := slices.IndexFunc(a.Endpoints, func(e *Endpoint) bool { return string(e.ID) == id })
	if i < 0 {
		return nil
	}
	return a.Endpoints[i]
}

// interfaces are the interfaces of an end that names one or an endpoint, in the order of the endpoint's subnets.
func (a *analysis) interfaces(id string) ([]end, error) {
	of := func(n *NetworkInterface) (out []end) {
		for _, addr := range n.Addrs() {
			out = append(out, end{id: string(n.ID), addr: addr, vpc: n.VPC, eni: n, endpoint: a.findEndpoint(string(n.Endpoint))})
		}
		return out
	}
	if strings.HasPrefix(id, PrefixEndpoint+"-") {
		e := a.findEndpoint(id)
		if e == nil {
			return nil, NotFound(EndpointID(id))
		}
		var out []end
		for _, i := range e.Interfaces {
			if n := a.findInterface(string(i)); n != nil {
				out = append(out, of(n)...)
			}
		}
		return out, nil
	}
	n := a.findInterface(id)
	if n == nil {
		return nil, NotFound(NetworkInterfaceID(id))
	}
	return of(n), nil
}

// withAddress keeps the ends that have an address; when none has it, it says so.
func withAddress(ends []end, addr netip.Addr, direction string) ([]end, []Explanation) {
	if !addr.IsValid() || len(ends) == 0 {
		return ends, nil
	}
	kept := slices.DeleteFunc(slices.Clone(ends), func(e end) bool { return e.addr != addr })
	if len(kept) > 0 {
		return kept, nil
	}
	var out []Explanation
	for i, e := range ends {
		if i > 0 && ends[i-1].eni == e.eni {
			continue // its other address
		}
		out = append(out, Explanation{
			Code: CodeAddress, Direction: direction, Component: e.id, Interface: e.eni.ID, Subnet: e.eni.Subnet, VPC: e.vpc,
			Address: addr, Addresses: e.eni.Addrs(),
		})
	}
	return nil, out
}

// sources are where packets begin. Of the users' networks they are the first address of each; where rules may judge others
// otherwise is in leftovers.
func (a *analysis) sources() ([]end, []Explanation, error) {
	id := a.path.Source
	if !strings.HasPrefix(id, PrefixGateway+"-") {
		ends, err := a.interfaces(id)
		if err != nil {
			return nil, nil, err
		}
		kept, why := withAddress(ends, a.src, "egress")
		if len(ends) == 0 {
			why = []Explanation{a.badState(a.findEndpoint(id))}
		}
		return kept, why, nil
	}
	i := slices.IndexFunc(a.VPCs, func(v *VPC) bool { return string(v.Gateway) == id })
	if i < 0 {
		return nil, nil, NotFound(GatewayID(id))
	}
	v := a.VPCs[i]
	if a.src.IsValid() {
		return []end{{id: id, addr: a.src, gateway: v}}, nil, nil
	}
	var out []end
	for _, u := range a.UserNetworks {
		u = u.Masked()
		out = append(out, end{id: id, addr: firstClient(u), gateway: v, leftovers: a.leftovers(u, v.ID)})
	}
	if len(out) == 0 {
		return nil, []Explanation{{Code: CodeCannotRoute, Component: id, Gateway: v.Gateway, VPC: v.ID, Missing: "attach a network of users to the VPC"}}, nil
	}
	return out, nil, nil
}

func firstClient(u netip.Prefix) netip.Addr {
	if u.Bits() < u.Addr().BitLen()-1 {
		return u.Addr().Next()
	}
	return u.Addr()
}

// leftovers are the addresses of a users' network at which a rule of the VPC begins or ceases to match: between two of them
// every address is judged alike.
func (a *analysis) leftovers(u netip.Prefix, id VPCID) []netip.Addr {
	var out []netip.Addr
	add := func(p netip.Prefix) {
		if !p.IsValid() || !p.Overlaps(u) || p.Bits() <= u.Bits() {
			return
		}
		out = append(out, p.Masked().Addr())
		if next := lastAddr(p).Next(); u.Contains(next) {
			out = append(out, next)
		}
	}
	for _, g := range a.Groups {
		if g.VPC == id {
			for _, r := range g.Rules {
				add(r.Peer.CIDR)
			}
		}
	}
	for _, l := range a.ACLs {
		if l.VPC == id {
			for _, e := range l.Entries {
				add(e.CIDR)
			}
		}
	}
	for _, t := range a.RouteTables {
		if t.VPC == id {
			for _, r := range t.Routes {
				add(r.CIDR)
			}
		}
	}
	for _, l := range a.PrefixLists {
		for _, e := range l.Entries {
			add(e.CIDR)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// destinations are where packets end: interfaces, or the path's address.
func (a *analysis) destinations(sources []end) ([]end, []Explanation, error) {
	id := a.path.Destination
	if id == "" {
		if !a.dst.IsValid() || len(sources) == 0 {
			return nil, nil, nil
		}
		e := end{id: a.dst.String(), addr: a.dst, vpc: sources[0].vpc}
		if v := sources[0].gateway; v != nil {
			e.vpc = v.ID
		}
		i := slices.IndexFunc(a.Interfaces, func(n *NetworkInterface) bool { return n.VPC == e.vpc && slices.Contains(n.Addrs(), a.dst) })
		if i >= 0 {
			e.eni = a.Interfaces[i]
			e.id, e.endpoint = string(e.eni.ID), a.findEndpoint(string(e.eni.Endpoint))
		}
		return a.serving([]end{e})
	}
	ends, err := a.interfaces(id)
	if err != nil {
		return nil, nil, err
	}
	if e := a.findEndpoint(id); len(ends) == 0 && e != nil {
		return nil, []Explanation{a.badState(e)}, nil
	}
	kept, why := withAddress(ends, a.dst, "ingress")
	if len(why) > 0 {
		return nil, why, nil
	}
	return a.serving(kept)
}

// serving keeps the ends whose endpoint works; when none does, it says so. An endpoint that is pending because of a change
// serves all the while.
func (a *analysis) serving(ends []end) ([]end, []Explanation, error) {
	var kept []end
	var why []Explanation
	for _, e := range ends {
		if p := e.endpoint; p != nil && p.State != EndpointAvailable && (p.State != EndpointPending || p.Realised == 0) {
			if why == nil {
				why = append(why, a.badState(p))
			}
			continue
		}
		kept = append(kept, e)
	}
	if len(kept) > 0 {
		why = nil
	}
	return kept, why, nil
}

func (a *analysis) badState(e *Endpoint) Explanation {
	x := Explanation{Code: CodeBadState, Component: string(e.ID), Endpoint: e.ID, VPC: e.VPC, State: string(e.State)}
	switch {
	case len(e.Subnets) == 0:
		x.Missing = "the endpoint has no subnet; add one"
	case e.LastError != nil:
		x.Missing = e.LastError.Message
	}
	return x
}

// flowOf is a connection between two ends.
func (a *analysis) flowOf(src, dst end, srcPort, dstPort int) Flow {
	return Flow{
		VPC: dst.vpc, SrcVPC: src.vpc, Protocol: a.path.Protocol,
		Src: netip.AddrPortFrom(src.addr, uint16(srcPort)), Dst: netip.AddrPortFrom(dst.addr, uint16(dstPort)), //nolint:gosec // ports were checked
	}
}

// try looks for a packet between two ends that comes through. The second result says that one came through which the
// filters of the analysis do not allow.
func (a *analysis) try(src, dst end) (*Findings, bool, error) {
	if src.addr.Is4() != dst.addr.Is4() || src.gateway != nil && src.gateway.ID != dst.vpc {
		return nil, false, nil
	}
	passedOver := false
	for _, addr := range append([]netip.Addr{src.addr}, src.leftovers...) {
		src.addr = addr
		for _, port := range a.destinationPorts(dst) {
			var good []PortRange
			var verdict Verdict
			var blocked *Hop
			cuts := a.sourcePorts(src, dst)
			for i, from := range cuts {
				to := a.lastSourcePort()
				if i+1 < len(cuts) {
					to = cuts[i+1] - 1
				}
				if a.explained++; a.explained > maxExplained {
					return nil, false, ErrTooWide
				}
				v := a.snapshot.Explain(a.flowOf(src, dst, from, port))
				switch {
				case !v.OK:
					if blocked == nil {
						blocked = v.Blocked()
					}
					continue
				case len(good) == 0:
					verdict = v
					good = append(good, PortRange{From: from, To: to})
				case good[len(good)-1].To == from-1:
					good[len(good)-1].To = to
				default:
					good = append(good, PortRange{From: from, To: to})
				}
			}
			if len(good) == 0 {
				continue
			}
			f := a.found(src, dst, port, good, verdict)
			if !a.allowed(f) {
				passedOver = true
				continue
			}
			if blocked != nil {
				f.Warning = fmt.Sprintf("Only source ports %s of %d-%d come through: %s.", joinRanges(good), a.firstSourcePort(), a.lastSourcePort(), blocked.Why)
			}
			return &f, passedOver, nil
		}
	}
	return nil, passedOver, nil
}

func joinRanges(list []PortRange) string {
	var out []string
	for _, r := range list {
		out = append(out, r.String())
	}
	return strings.Join(out, ", ")
}

func (a *analysis) firstSourcePort() int { return max(a.srcPorts.From, 0) }

func (a *analysis) lastSourcePort() int {
	if a.srcPorts == AllPorts {
		return EphemeralLast
	}
	return a.srcPorts.To
}

func (a *analysis) aclOf(id SubnetID) *NetworkACL {
	for _, l := range a.ACLs {
		for _, as := range l.Associations {
			if as.Subnet == id {
				return l
			}
		}
	}
	return nil
}

func (a *analysis) subnetOf(id VPCID, addr netip.Addr) *Subnet {
	if v := a.snapshot.vpcs[id]; v != nil {
		if n := v.subnetOf(addr); n != nil {
			return n.Subnet
		}
	}
	return nil
}

// cuts are from and the points up to to at which a range of list begins or has ended.
func cuts(from, to int, list []PortRange) []int {
	out := []int{from}
	for _, r := range list {
		if r == AllPorts {
			continue
		}
		for _, c := range []int{r.From, r.To + 1} {
			if c > from && c <= to {
				out = append(out, c)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// sourcePorts are the source ports at which the ACLs that answers pass change their mind.
func (a *analysis) sourcePorts(src, dst end) []int {
	var list []PortRange
	add := func(n *Subnet, egress bool) {
		if n == nil {
			return
		}
		if l := a.aclOf(n.ID); l != nil {
			for _, e := range l.Entries {
				if e.Egress == egress && e.Protocol.HasPorts() {
					list = append(list, e.Ports)
				}
			}
		}
	}
	add(a.subnetOf(dst.vpc, dst.addr), true)
	if src.vpc != "" {
		add(a.subnetOf(src.vpc, src.addr), false)
	}
	return cuts(a.firstSourcePort(), a.lastSourcePort(), list)
}

// listens are the ports on which an end takes connections.
func (a *analysis) listens(e end) []PortRange {
	if e.endpoint == nil || a.EndpointPorts == nil {
		return nil
	}
	return a.EndpointPorts(e.endpoint.Service)
}

// destinationPorts are the ports that the path allows and the destination listens on, one for each way in which rules judge
// them; where it listens on none of them, the first that the path allows.
func (a *analysis) destinationPorts(dst end) []int {
	if a.dstPorts.From == a.dstPorts.To && a.dstPorts != AllPorts {
		return []int{a.dstPorts.From}
	}
	var ranges []PortRange
	for _, g := range a.Groups {
		if dst.eni != nil && slices.Contains(dst.eni.Groups, g.ID) {
			for _, r := range g.Rules {
				ranges = append(ranges, r.Ports)
			}
		}
	}
	if n := a.subnetOf(dst.vpc, dst.addr); n != nil {
		if l := a.aclOf(n.ID); l != nil {
			for _, e := range l.Entries {
				ranges = append(ranges, e.Ports)
			}
		}
	}
	var out []int
	for _, r := range a.listens(dst) {
		if a.dstPorts != AllPorts {
			r = PortRange{From: max(r.From, a.dstPorts.From), To: min(r.To, a.dstPorts.To)}
		}
		if r.From <= r.To {
			out = append(out, cuts(r.From, r.To, ranges)...)
		}
	}
	if len(out) == 0 {
		out = []int{max(a.dstPorts.From, 1)}
	}
	return out
}

// found is the path of a connection that came through.
func (a *analysis) found(src, dst end, port int, ports []PortRange, v Verdict) Findings {
	there := &PacketHeader{
		Protocol: a.path.Protocol, Source: src.addr, Destination: dst.addr,
		SourcePorts: ports, DestinationPorts: []PortRange{{From: port, To: port}},
	}
	back := &PacketHeader{
		Protocol: a.path.Protocol, Source: dst.addr, Destination: src.addr,
		SourcePorts: there.DestinationPorts, DestinationPorts: ports,
	}
	begin, goal := a.component(src), a.component(dst)
	f := Findings{Found: true, Forward: []PathComponent{with(begin, nil, there)}, Return: []PathComponent{with(goal, nil, back)}}
	from := a.subnetOf(src.vpc, src.addr)
	to := a.subnetOf(dst.vpc, dst.addr)
	for _, h := range v.Hops {
		switch h.Kind {
		case HopDeviceRoute, HopListener:
		case HopSecurityGroup:
			f.Forward = append(f.Forward, PathComponent{Component: h.Resource, GroupRule: a.groupRule(h), VPC: dst.vpc})
		case HopNetworkACLIn, HopNetworkACLOut:
			c := PathComponent{Component: h.Resource, ACLRule: a.aclRule(h, a.flowOf(src, dst, 0, 0)), VPC: dst.vpc}
			n := to
			if h.Dir == Forward && h.Kind == HopNetworkACLOut || h.Dir == Return && h.Kind == HopNetworkACLIn {
				n = from
			}
			if n != nil {
				c.Subnet = n.ID
			}
			if h.Dir == Return {
				f.Return = append(f.Return, c)
			} else {
				f.Forward = append(f.Forward, c)
			}
		case HopReturnRoute:
			f.Return = append(f.Return, PathComponent{Component: h.Resource, Route: a.route(h), VPC: dst.vpc})
		}
	}
	f.Forward = append(f.Forward, with(goal, there, nil))
	f.Return = append(f.Return, with(begin, back, nil))
	return f
}

func with(c PathComponent, in, out *PacketHeader) PathComponent {
	c.In, c.Out = in, out
	return c
}

// component is an end as a component of the path.
func (a *analysis) component(e end) PathComponent {
	c := PathComponent{Component: e.id, VPC: e.vpc}
	switch {
	case e.gateway != nil:
		c.VPC, c.AttachedTo = e.gateway.ID, string(e.gateway.ID)
	case e.eni != nil:
		c.Subnet, c.AttachedTo = e.eni.Subnet, string(e.eni.Endpoint)
		if e.endpoint != nil {
			c.Service = e.endpoint.Service
		}
	}
	return c
}

// allowed says whether a path passes what it must pass and nothing that it must not pass.
func (a *analysis) allowed(f Findings) bool {
	if len(a.filterIn)+len(a.filterOut) == 0 {
		return true
	}
	passed := map[string]bool{}
	for _, c := range slices.Concat(f.Forward, f.Return) {
		for _, id := range []string{c.Component, c.AttachedTo, string(c.Subnet), string(c.VPC)} {
			passed[id] = true
		}
	}
	return !slices.ContainsFunc(a.filterIn, func(id string) bool { return !passed[id] }) &&
		!slices.ContainsFunc(a.filterOut, func(id string) bool { return passed[id] })
}

// groupRule is the rule that a hop names.
func (a *analysis) groupRule(h Hop) *SecurityGroupRule {
	for _, g := range a.Groups {
		if string(g.ID) != h.Resource {
			continue
		}
		for i := range g.Rules {
			if string(g.Rules[i].ID) == h.Rule {
				return &g.Rules[i]
			}
		}
	}
	return nil
}

// aclRule is the entry that a hop names; the fixed last one for "*".
func (a *analysis) aclRule(h Hop, f Flow) *NetworkACLEntry {
	egress := h.Kind == HopNetworkACLOut
	number, err := strconv.Atoi(h.Rule)
	if err != nil {
		if f.Dst.Addr().Is6() {
			return &NetworkACLEntry{Number: FixedDenyNumberIP6, Egress: egress, Protocol: AllProtocols, CIDR: netip.PrefixFrom(netip.IPv6Unspecified(), 0), Ports: AllPorts}
		}
		return &NetworkACLEntry{Number: FixedDenyNumber, Egress: egress, Protocol: AllProtocols, CIDR: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Ports: AllPorts}
	}
	for _, l := range a.ACLs {
		if string(l.ID) == h.Resource {
			if i := l.find(number, egress); i >= 0 {
				return &l.Entries[i]
			}
		}
	}
	return nil
}

// routes are the routes of a table as DescribeRouteTables shows them.
func (a *analysis) routes(id string) []InsightsRoute {
	i := slices.IndexFunc(a.RouteTables, func(t *RouteTable) bool { return string(t.ID) == id })
	if i < 0 {
		return nil
	}
	t := a.RouteTables[i]
	v := a.snapshot.vpcs[t.VPC]
	if v == nil {
		return nil
	}
	var out []InsightsRoute
	for _, b := range v.Blocks() {
		out = append(out, InsightsRoute{CIDR: b, Gateway: LocalGateway, Origin: "CreateRouteTable", State: "active"})
	}
	for _, r := range t.Routes {
		x := InsightsRoute{CIDR: r.CIDR, PrefixList: r.PrefixList, Gateway: r.Gateway, Interface: r.Interface, Origin: "CreateRoute", State: "active"}
		if r.Gateway != v.Gateway && r.Gateway != LocalGateway {
			x.State = "blackhole" // an interface of an endpoint forwards nothing
		}
		out = append(out, x)
	}
	if t.Propagates {
		for _, u := range a.UserNetworks {
			u = u.Masked()
			if _, local := v.BlockOf(u); !local && !slices.ContainsFunc(t.Routes, func(r Route) bool { return r.CIDR == u }) {
				out = append(out, InsightsRoute{CIDR: u, Gateway: v.Gateway, Origin: "EnableVgwRoutePropagation", State: "active"})
			}
		}
	}
	return out
}

// route is the route that a hop names.
func (a *analysis) route(h Hop) *InsightsRoute {
	for _, r := range a.routes(h.Resource) {
		if r.Destination() == h.Rule {
			return &r
		}
	}
	return nil
}

// explain says why no packet comes through: everything that is in the way of the first packet between each two ends.
func (a *analysis) explain(sources, destinations []end) []Explanation {
	var out, other []Explanation // other: between addresses of two IP versions, told when there is nothing else
	seen := map[string]bool{}
	add := func(list ...Explanation) {
		for _, x := range list {
			key := fmt.Sprintf("%+v %+v %+v %+v", x, x.ACLRule, x.GroupRule, x.Route)
			if !seen[key] && len(out) < maxExplanations {
				seen[key] = true
				out = append(out, x)
			}
		}
	}
	met := slices.ContainsFunc(destinations, func(d end) bool {
		return slices.ContainsFunc(sources, func(s end) bool { return s.addr.Is4() == d.addr.Is4() })
	})
	for _, dst := range destinations {
		for _, src := range sources {
			switch {
			case src.gateway != nil && src.gateway.ID != dst.vpc:
				add(Explanation{
					Code: CodeCannotRoute, Component: src.id, Gateway: src.gateway.Gateway, Destination: dst.id, SourceVPC: src.gateway.ID, DestinationVPC: dst.vpc,
					Missing: fmt.Sprintf("a path from the gateway of %s", dst.vpc),
				})
				continue
			case src.addr.Is4() != dst.addr.Is4() && met: // others can meet
				continue
			case src.addr.Is4() != dst.addr.Is4():
				other = append(other, Explanation{Code: CodeCannotRoute, Component: src.id, Destination: dst.id, Address: src.addr, Missing: "addresses of the same IP version"})
				continue
			}
			f := a.flowOf(src, dst, a.firstSourcePort(), a.destinationPorts(dst)[0])
			if a.firstSourcePort() == 0 {
				f = a.flowOf(src, dst, EphemeralFirst, int(f.Dst.Port()))
			}
			for _, h := range a.snapshot.denials(f) {
				add(a.explanation(h, f, src, dst)...)
			}
		}
	}
	if len(out) == 0 {
		add(other...)
	}
	slices.SortStableFunc(out, func(x, y Explanation) int { return cmp.Compare(rank(x.Code), rank(y.Code)) })
	return out
}

// rank puts what names a rule before what only accompanies it.
func rank(code string) int {
	if code == CodeCannotRoute {
		return 1
	}
	return 0
}

func (a *analysis) explanation(h denial, f Flow, src, dst end) []Explanation {
	x := Explanation{Component: h.Resource, Missing: cmp.Or(h.Fix, h.Why), VPC: dst.vpc, Destination: dst.id}
	if dst.eni != nil {
		x.Interface, x.Subnet = dst.eni.ID, dst.eni.Subnet
		x.Endpoint = dst.eni.Endpoint
	}
	switch h.Kind {
	case HopDeviceRoute:
		x.Code, x.Component, x.Address = CodeCannotRoute, src.id, src.addr
		if src.gateway != nil {
			x.Gateway, x.CIDRs = src.gateway.Gateway, slices.Clone(a.UserNetworks)
		}
		if src.vpc != "" && src.vpc != dst.vpc {
			x.SourceVPC, x.DestinationVPC = src.vpc, dst.vpc
		}
	case HopSecurityGroup:
		x.Code, x.Direction = CodeGroupMismatch, "ingress"
		other, eni := f.Src.Addr(), dst.eni
		if h.egress {
			x.Direction = "egress"
			other, eni = f.Dst.Addr(), src.eni
			x.Interface, x.Subnet, x.Endpoint = eni.ID, eni.Subnet, eni.Endpoint
		}
		x.Groups = slices.Clone(eni.Groups)
		x.GroupRule = &SecurityGroupRule{
			Egress: h.egress, Protocol: f.Protocol, Ports: a.missingPorts(dst, int(f.Dst.Port())), Peer: Peer{CIDR: a.peer(other)},
		}
	case HopNetworkACLIn, HopNetworkACLOut:
		x.Code, x.Direction = CodeACLRestriction, "ingress"
		if h.Kind == HopNetworkACLOut {
			x.Direction = "egress"
		}
		x.ACL, x.ACLRule = NetworkACLID(h.Resource), a.aclRule(h.Hop, f)
		n := a.subnetOf(dst.vpc, dst.addr)
		if h.Dir == Forward && h.Kind == HopNetworkACLOut || h.Dir == Return && h.Kind == HopNetworkACLIn {
			n = a.subnetOf(src.vpc, src.addr)
		}
		x.Interface = ""
		if n != nil {
			x.Subnet = n.ID
		}
	case HopReturnRoute:
		return a.routeExplanations(x, h.Hop, f)
	case HopListener:
		x.Code, x.Port = CodeNoPath, int(f.Dst.Port())
		if x.Ports = a.listens(dst); len(x.Ports) > 0 {
			x.Protocols = []Protocol{TCP}
		}
	}
	return []Explanation{x}
}

// routeExplanations are about the way back: the route that leads nowhere, or all of those that do not match.
func (a *analysis) routeExplanations(x Explanation, h Hop, f Flow) []Explanation {
	x.Direction, x.RouteTable, x.Address, x.Destination, x.Interface = "egress", RouteTableID(h.Resource), f.Src.Addr(), f.Src.Addr().String(), ""
	if r := a.route(h); r != nil {
		x.Route, x.Code = r, CodeCannotRoute
		if r.State == "blackhole" {
			x.Code, x.State = CodeBadStateRoute, r.State
		}
		return []Explanation{x}
	}
	x.Code = CodeNoRoute
	out := []Explanation{x}
	for _, r := range a.routes(h.Resource) {
		y := x
		y.Code, y.Route, y.Missing = CodeCannotRoute, &r, ""
		out = append(out, y)
	}
	return out
}

// missingPorts are the ports that a missing rule should admit: the whole range of the listener.
func (a *analysis) missingPorts(dst end, port int) PortRange {
	for _, r := range a.listens(dst) {
		if r.Contains(uint16(port)) { //nolint:gosec // ports were checked
			return r
		}
	}
	return PortRange{From: port, To: port}
}

// peer is whom a missing rule should name: the users' network of an address, or the address alone.
func (a *analysis) peer(addr netip.Addr) netip.Prefix {
	if u, ok := a.snapshot.userNetwork(addr); ok {
		return u
	}
	return netip.PrefixFrom(addr, addr.BitLen())
}

// denial is a hop that denies a connection; egress: by the groups of the interface that the packet leaves.
type denial struct {
	Hop
	egress bool
}

// denials are all the hops that deny a connection, not only the first as in Explain.
func (s *Snapshot) denials(f Flow) []denial {
	v := s.Explain(f)
	first := v.Blocked()
	if first == nil {
		return nil
	}
	dst := s.vpcs[f.VPC]
	if first.Kind == HopDeviceRoute || dst == nil {
		return []denial{{Hop: *first}}
	}
	var out []denial
	add := func(h Hop, egress bool) {
		if !h.Allow {
			out = append(out, denial{h, egress})
		}
	}
	eni, to := s.interfaces[vpcAddr{f.VPC, f.Dst.Addr()}], dst.subnetOf(f.Dst.Addr())
	var from *subnetView
	if f.SrcVPC != "" {
		from = dst.subnetOf(f.Src.Addr())
		if src := s.interfaces[vpcAddr{f.VPC, f.Src.Addr()}]; src != nil {
			add(s.judgeGroups(src, src.out, f, f.Dst.Addr(), true), true)
		}
	}
	if from == nil || from.ID != to.ID {
		if from != nil {
			add(judgeACL(from, from.out, HopNetworkACLOut, Forward, f.Protocol, f.Dst.Addr(), f.Dst.Port()), false)
		}
		add(judgeACL(to, to.in, HopNetworkACLIn, Forward, f.Protocol, f.Src.Addr(), f.Dst.Port()), false)
	}
	switch {
	case eni == nil:
		add(*first, false) // nobody has the address
	default:
		add(s.judgeGroups(eni, eni.in, f, f.Src.Addr(), false), false)
		if f.Protocol != TCP || !slices.ContainsFunc(eni.ports, func(r PortRange) bool { return r.Contains(f.Dst.Port()) }) {
			add(Hop{
				Dir: Forward, Kind: HopListener, Resource: string(eni.ID),
				Why: fmt.Sprintf("%s does not listen on %s", eni.ID, traffic(f.Protocol, f.Dst.Port())),
			}, false)
		}
	}
	for _, h := range s.judgeReturn(to, from, f) {
		add(h, false)
	}
	return out
}
