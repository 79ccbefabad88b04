package vpc

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// analyzable is newWorld with an endpoint that works.
func analyzable() *world {
	w := newWorld()
	w.Endpoints = []*Endpoint{{
		ID: "vpce-1", VPC: "vpc-1", Service: "com.amazonaws.us-east-1.appstream.streaming", State: EndpointAvailable, Realised: 1,
		Subnets: []SubnetID{"subnet-a", "subnet-b"}, Interfaces: []NetworkInterfaceID{"eni-a", "eni-b"}, Groups: []SecurityGroupID{"sg-1"},
	}}
	return w
}

// sixth gives IPv6 to the VPC, its first subnet and interface, and to the users.
func sixth(w *world) {
	w.vpc.IPv6 = []CIDRBlock{{CIDR: pfx("fd00:77::/56")}}
	w.a.IPv6 = pfx("fd00:77::/64")
	w.eniA.Addr6 = netip.MustParseAddr("fd00:77::4")
	w.UserNetworks = append(w.UserNetworks, pfx("fd00:1::/64"))
	w.group.Rules = append(w.group.Rules, SecurityGroupRule{ID: "sgr-six", Protocol: TCP, Ports: PortRange{443, 443}, Peer: Peer{CIDR: pfx("fd00:1::/64")}})
	w.acl.Entries = append(w.acl.Entries,
		NetworkACLEntry{Number: 101, Allow: true, Protocol: AllProtocols, CIDR: pfx("::/0"), Ports: AllPorts},
		NetworkACLEntry{Number: 101, Egress: true, Allow: true, Protocol: AllProtocols, CIDR: pfx("::/0"), Ports: AllPorts})
}

// told are findings in one line: the components of both ways, or each reason with what it names.
func told(f Findings) string {
	var out []string
	if f.Found {
		for _, way := range [][]PathComponent{f.Forward, f.Return} {
			for _, c := range way {
				s := c.Component
				switch {
				case c.ACLRule != nil:
					s += fmt.Sprintf("#%d", c.ACLRule.Number)
				case c.GroupRule != nil:
					s += "#" + string(c.GroupRule.ID)
				case c.Route != nil:
					s += "#" + c.Route.Destination()
				}
				out = append(out, s)
			}
			out = append(out, "|")
		}
		return strings.Join(out[:len(out)-1], " ")
	}
	for _, x := range f.Explanations {
		s := x.Code
		if x.Direction != "" {
			s += " " + x.Direction
		}
		s += " " + x.Component
		switch {
		case x.ACLRule != nil:
			s += fmt.Sprintf(" #%d", x.ACLRule.Number)
		case x.GroupRule != nil:
			s += fmt.Sprintf(" %s %s %s", x.GroupRule.Protocol, x.GroupRule.Ports, x.GroupRule.Peer.CIDR)
		case x.Route != nil:
			s += " " + x.Route.Destination() + " " + x.Route.State
		case x.State != "":
			s += " " + x.State
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

func TestAnalyze(t *testing.T) {
	t.Parallel()
	office, guest := netip.MustParseAddr("192.168.0.7"), netip.MustParseAddr("172.16.0.5")
	const good = "vgw-1 acl-1#100 sg-1#sgr-1400 eni-a | eni-a rtb-1#192.168.0.0/16 acl-1#100 vgw-1"
	const mismatch = "ENI_SG_RULES_MISMATCH ingress sg-1 tcp 1400-1499 172.16.0.0/16"
	tests := []struct {
		name    string
		path    InsightsPath
		change  func(*world)
		in, out []string
		want    string
		warning string
	}{
		{name: "a client of the office", path: InsightsPath{SourceIP: office, DestinationPort: new(1400)}, want: good},
		{name: "any client, any port", path: InsightsPath{}, want: strings.ReplaceAll(good, "sgr-1400", "sgr-443")},
		{name: "to one interface", path: InsightsPath{Destination: "eni-b", SourceIP: office, DestinationPort: new(1400)}, want: strings.ReplaceAll(good, "eni-a", "eni-b")},
		{name: "to an address", path: InsightsPath{Destination: "-", DestinationIP: netip.MustParseAddr("10.77.1.4"), SourceIP: office, DestinationPort: new(1400)}, want: good},
		{name: "to an address that nobody has", path: InsightsPath{Destination: "-", DestinationIP: netip.MustParseAddr("10.77.1.9"), SourceIP: office, DestinationPort: new(1400)}, want: "NO_PATH subnet-a"},
		{name: "to an address outside", path: InsightsPath{Destination: "-", DestinationIP: netip.MustParseAddr("10.99.1.9"), SourceIP: office, DestinationPort: new(1400)}, want: "CANNOT_ROUTE vgw-1"},
		{name: "an address of the endpoint", path: InsightsPath{DestinationIP: netip.MustParseAddr("10.77.2.4"), SourceIP: office, DestinationPort: new(1400)}, want: strings.ReplaceAll(good, "eni-a", "eni-b")},
		{
			name: "no address of the endpoint", path: InsightsPath{DestinationIP: netip.MustParseAddr("10.77.2.5"), SourceIP: office, DestinationPort: new(1400)},
			want: "ENI_ADDRESS_RESTRICTION ingress eni-a; ENI_ADDRESS_RESTRICTION ingress eni-b",
		},
		{name: "a client whom no rule admits", path: InsightsPath{SourceIP: guest, DestinationPort: new(1400)}, want: mismatch + "; " + mismatch},
		{
			name: "everything in the way is told", path: InsightsPath{Destination: "eni-a", SourceIP: guest, DestinationPort: new(1400)},
			change: func(w *world) {
				w.acl.Entries = []NetworkACLEntry{{Number: 90, Protocol: TCP, CIDR: pfx("172.16.0.0/12"), Ports: PortRange{1400, 1499}}}
				w.table.Propagates = false
			},
			want: "SUBNET_ACL_RESTRICTION ingress acl-1 #90; " + mismatch + "; NO_ROUTE_TO_DESTINATION egress rtb-1; " +
				"SUBNET_ACL_RESTRICTION egress acl-1 #32767; CANNOT_ROUTE egress rtb-1 10.77.0.0/16 active",
		},
		{
			name: "a route that leads nowhere", path: InsightsPath{Destination: "eni-a", SourceIP: office, DestinationPort: new(443)},
			change: func(w *world) { w.table.Routes = []Route{{CIDR: pfx("192.168.0.0/24"), Interface: "eni-b"}} },
			want:   "BAD_STATE_ROUTE egress rtb-1 192.168.0.0/24 blackhole",
		},
		{
			name: "answers to some ports only", path: InsightsPath{Destination: "eni-a", SourceIP: office, DestinationPort: new(1400)},
			change: func(w *world) {
				w.acl.Entries[1] = NetworkACLEntry{Number: 100, Egress: true, Allow: true, Protocol: TCP, CIDR: pfx("0.0.0.0/0"), Ports: PortRange{32768, 65535}}
			},
			want: good, warning: "Only source ports 32768-65535 of 1024-65535 come through: no entry allows tcp 1024 to 192.168.0.7.",
		},
		{
			name: "the ports that the filter asks for", path: InsightsPath{Destination: "eni-a", AtSource: &InsightsFilter{Source: office, SourcePorts: &PortRange{20, 1500}, DestinationPorts: &PortRange{1400, 1400}}},
			change: func(w *world) {
				w.acl.Entries[1] = NetworkACLEntry{Number: 100, Egress: true, Allow: true, Protocol: TCP, CIDR: pfx("0.0.0.0/0"), Ports: PortRange{32768, 65535}}
			},
			want: "SUBNET_ACL_RESTRICTION egress acl-1 #32767",
		},
		{
			name: "one block among the users that a rule admits", path: InsightsPath{Destination: "eni-a", DestinationPort: new(443)},
			change: func(w *world) { w.group.Rules[0].Peer.CIDR = pfx("192.168.77.32/27") },
			want:   strings.ReplaceAll(good, "sgr-1400", "sgr-443"),
		},
		{
			name: "one block of a prefix list", path: InsightsPath{Destination: "eni-a", DestinationPort: new(443)},
			change: func(w *world) {
				w.PrefixLists = []*PrefixList{{ID: "pl-1", AddressFamily: FamilyIPv4, Entries: []PrefixListEntry{{CIDR: pfx("203.0.113.0/24")}, {CIDR: pfx("172.16.9.0/28")}}}}
				w.group.Rules[0].Peer = Peer{PrefixList: "pl-1"}
				w.table.Propagates, w.table.Routes = false, []Route{{PrefixList: "pl-1", Gateway: "vgw-1"}}
			},
			want: "vgw-1 acl-1#100 sg-1#sgr-443 eni-a | eni-a rtb-1#pl-1 acl-1#100 vgw-1",
		},
		{
			name: "none of the users", path: InsightsPath{Destination: "eni-a", DestinationPort: new(443)},
			change: func(w *world) { w.group.Rules = nil },
			want:   "ENI_SG_RULES_MISMATCH ingress sg-1 tcp 443 192.168.0.0/16; ENI_SG_RULES_MISMATCH ingress sg-1 tcp 443 172.16.0.0/16",
		},
		{
			name: "one port of the range that a rule admits", path: InsightsPath{Destination: "eni-a", SourceIP: office},
			change: func(w *world) { w.group.Rules = w.group.Rules[1:]; w.group.Rules[0].Ports = PortRange{1450, 1450} },
			want:   good,
		},
		{name: "UDP", path: InsightsPath{Destination: "eni-a", SourceIP: office, DestinationPort: new(1400), Protocol: UDP}, want: "ENI_SG_RULES_MISMATCH ingress sg-1 udp 1400-1499 192.168.0.0/16; NO_PATH eni-a"},
		{
			name: "a port that nothing listens on", path: InsightsPath{Destination: "eni-a", SourceIP: office, DestinationPort: new(22)},
			change: func(w *world) { w.group.Rules[0].Protocol, w.group.Rules[0].Ports = AllProtocols, AllPorts },
			want:   "NO_PATH eni-a",
		},
		{name: "a network that is not attached", path: InsightsPath{SourceIP: netip.MustParseAddr("203.0.113.5"), DestinationPort: new(443)}, want: "CANNOT_ROUTE vgw-1; CANNOT_ROUTE vgw-1"},
		{name: "an endpoint that failed", path: InsightsPath{SourceIP: office}, change: func(w *world) { w.Endpoints[0].State = EndpointFailed }, want: "BAD_STATE vpce-1 failed"},
		{name: "an endpoint that changes", path: InsightsPath{SourceIP: office, DestinationPort: new(1400)}, change: func(w *world) { w.Endpoints[0].State = EndpointPending }, want: good},
		{name: "a new endpoint", path: InsightsPath{SourceIP: office}, change: func(w *world) { w.Endpoints[0].State, w.Endpoints[0].Realised = EndpointPending, 0 }, want: "BAD_STATE vpce-1 pending"},
		{name: "an endpoint without subnets", path: InsightsPath{SourceIP: office}, change: func(w *world) { w.Endpoints[0].Interfaces, w.Endpoints[0].Subnets = nil, nil }, want: "BAD_STATE vpce-1 available"},
		{
			name: "inside the VPC", path: InsightsPath{Source: "eni-a", Destination: "eni-b", DestinationPort: new(443)},
			change: func(w *world) { w.group.Rules[0].Peer = Peer{Group: "sg-1"} },
			want:   "eni-a sg-1#sgr-out acl-1#100 acl-1#100 sg-1#sgr-443 eni-b | eni-b rtb-1#10.77.0.0/16 acl-1#100 acl-1#100 eni-a",
		},
		{
			name: "inside the VPC, without a rule out", path: InsightsPath{Source: "eni-a", Destination: "eni-b", DestinationPort: new(443)},
			change: func(w *world) { w.group.Rules = w.group.Rules[:2]; w.group.Rules[0].Peer = Peer{Group: "sg-1"} },
			want:   "ENI_SG_RULES_MISMATCH egress sg-1 tcp 443 10.77.2.4/32",
		},
		{name: "through a component", path: InsightsPath{SourceIP: office, DestinationPort: new(1400)}, in: []string{"eni-b"}, want: strings.ReplaceAll(good, "eni-a", "eni-b")},
		{name: "around a component", path: InsightsPath{SourceIP: office, DestinationPort: new(1400)}, out: []string{"subnet-a"}, want: strings.ReplaceAll(good, "eni-a", "eni-b")},
		{name: "around all", path: InsightsPath{SourceIP: office, DestinationPort: new(1400)}, out: []string{"acl-1"}, want: "COMPONENT_FILTER_RESTRICTION vgw-1"},
		{
			name: "by IPv6", path: InsightsPath{Destination: "eni-a", DestinationPort: new(443), AtSource: &InsightsFilter{Source: netip.MustParseAddr("fd00:1::7")}},
			change: sixth, want: "vgw-1 acl-1#101 sg-1#sgr-six eni-a | eni-a rtb-1#fd00:1::/64 acl-1#101 vgw-1",
		},
		{
			name: "by IPv6, without entries for it", path: InsightsPath{Destination: "eni-a", DestinationPort: new(443), AtSource: &InsightsFilter{Source: netip.MustParseAddr("fd00:1::7")}},
			change: func(w *world) { sixth(w); w.acl.Entries = w.acl.Entries[:2] },
			want:   "SUBNET_ACL_RESTRICTION ingress acl-1 #32768; SUBNET_ACL_RESTRICTION egress acl-1 #32768",
		},
		{
			name: "to an interface without IPv6", path: InsightsPath{Destination: "eni-b", DestinationPort: new(443), AtSource: &InsightsFilter{Source: netip.MustParseAddr("fd00:1::7")}},
			change: sixth, want: "CANNOT_ROUTE vgw-1",
		},
		{
			name: "any client, by IPv6 alone", path: InsightsPath{Destination: "eni-a", DestinationPort: new(443)},
			change: func(w *world) { sixth(w); w.group.Rules = w.group.Rules[3:] },
			want:   "vgw-1 acl-1#101 sg-1#sgr-six eni-a | eni-a rtb-1#fd00:1::/64 acl-1#101 vgw-1",
		},
		{name: "filters that exclude each other", path: InsightsPath{AtSource: &InsightsFilter{Source: office}, AtDestination: &InsightsFilter{Source: guest}}, want: "NO_PATH vgw-1"},
		{name: "gateway of another VPC", path: InsightsPath{Source: "vgw-2", SourceIP: office}, change: func(w *world) {
			w.VPCs = append(w.VPCs, &VPC{ID: "vpc-2", CIDR: pfx("10.78.0.0/16"), Gateway: "vgw-2"})
		}, want: "CANNOT_ROUTE vgw-2; CANNOT_ROUTE vgw-2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := analyzable()
			if tt.change != nil {
				tt.change(w)
			}
			p := tt.path
			if p.Source == "" {
				p.Source = "vgw-1"
			}
			switch p.Destination {
			case "":
				p.Destination = "vpce-1"
			case "-":
				p.Destination = ""
			}
			if p.Protocol == 0 {
				p.Protocol = TCP
			}
			f, err := Analyze(w.Resources, &p, tt.in, tt.out)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tt.want, told(f)); d != "" {
				t.Errorf("findings (-want +got):\n%s", d)
			}
			if f.Warning != tt.warning {
				t.Errorf("warning: got %q, want %q", f.Warning, tt.warning)
			}
		})
	}
}

func TestAnalyzeWithoutAnEnd(t *testing.T) {
	t.Parallel()
	for _, p := range []InsightsPath{
		{Source: "vgw-9", Destination: "eni-a"}, {Source: "vgw-1", Destination: "eni-9"}, {Source: "vgw-1", Destination: "vpce-9"}, {Source: "eni-9", Destination: "eni-a"},
	} {
		p.Protocol = TCP
		if _, err := Analyze(analyzable().Resources, &p, nil, nil); !strings.HasSuffix(code(err), ".NotFound") {
			t.Errorf("%s to %s: got %v", p.Source, p.Destination, err)
		}
	}
}

// TestAnalyzeAgreesWithTheNaiveReading asks for any client and any port, and compares with all clients and ports one by one.
func TestAnalyzeAgreesWithTheNaiveReading(t *testing.T) {
	t.Parallel()
	found := 0
	const worlds = 300
	clients := []string{"192.168.0.1", "192.168.1.1", "192.168.2.1", "172.16.0.1", "fd01::1", "fd01::7", "fd01:0:0:1::1"} // one for each way in which randomWorld's blocks can match
	for seed := range uint64(worlds) {
		r := rand.New(rand.NewPCG(seed, 11))
		w := randomWorldOf(r, seed%3 == 0)
		w.Endpoints = analyzable().Endpoints
		p := &InsightsPath{Source: "vgw-1", Destination: "vpce-1", Protocol: TCP}
		f, err := Analyze(w.Resources, p, nil, nil)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		flow := func(src netip.Addr, sport int, dst netip.Addr, dport int) Symptom {
			return naive(w.Resources, Flow{VPC: "vpc-1", Protocol: TCP, Src: netip.AddrPortFrom(src, uint16(sport)), Dst: netip.AddrPortFrom(dst, uint16(dport))})
		}
		want := slices.ContainsFunc(clients, func(c string) bool {
			return slices.ContainsFunc([]*NetworkInterface{w.eniA, w.eniB}, func(n *NetworkInterface) bool {
				return slices.ContainsFunc([]int{443, 1400, 1420, 1421, 1450, 1451, 1499}, func(dport int) bool {
					return slices.ContainsFunc([]int{1024, 1420, 1421, 1450, 1451, 1499, 1500, 32767, 32768, 60999, 61000, 65535}, func(sport int) bool {
						return slices.ContainsFunc(n.Addrs(), func(a netip.Addr) bool { return flow(netip.MustParseAddr(c), sport, a, dport) == Connected })
					})
				})
			})
		})
		if f.Found != want {
			t.Fatalf("seed %d: found %t (%s), want %t", seed, f.Found, told(f), want)
		}
		if !f.Found {
			if len(f.Explanations) == 0 {
				t.Fatalf("seed %d: no reason", seed)
			}
			continue
		}
		found++
		h := f.Forward[0].Out
		for _, ports := range h.SourcePorts {
			for _, sport := range []int{ports.From, ports.To} {
				if got := flow(h.Source, sport, h.Destination, h.DestinationPorts[0].From); got != Connected {
					t.Fatalf("seed %d: %s:%d is %s, and the path has it", seed, h.Source, sport, got)
				}
			}
		}
	}
	if found < worlds/5 || found > worlds*4/5 {
		t.Errorf("%d of %d worlds let something through: the generator proves too little", found, worlds)
	}
}

// TestMissingRuleHelps adds the rule that an explanation asks for.
func TestMissingRuleHelps(t *testing.T) {
	t.Parallel()
	helped := 0
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 13))
		w := randomWorld(r)
		w.Endpoints = analyzable().Endpoints
		p := &InsightsPath{Source: "vgw-1", Destination: "eni-a", SourceIP: netip.MustParseAddr("192.168.1.7"), DestinationPort: new(1400), Protocol: TCP}
		f, err := Analyze(w.Resources, p, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if f.Found || len(f.Explanations) != 1 || f.Explanations[0].Code != CodeGroupMismatch {
			continue
		}
		helped++
		x := f.Explanations[0]
		i := slices.IndexFunc(w.Groups, func(g *SecurityGroup) bool { return g.ID == x.Groups[0] })
		w.Groups[i].Rules = append(w.Groups[i].Rules, *x.GroupRule)
		if f, err = Analyze(w.Resources, p, nil, nil); err != nil || !f.Found {
			t.Fatalf("seed %d: with the missing rule: %s, %v", seed, told(f), err)
		}
	}
	if helped < 20 {
		t.Errorf("only %d worlds lacked a rule alone", helped)
	}
}

// TestAnalyzeIsBounded: rules of every port and of many blocks make more sorts of packets than one analysis judges.
func TestAnalyzeIsBounded(t *testing.T) {
	t.Parallel()
	w := analyzable()
	w.group.Rules = nil
	for n := range 60 {
		w.group.Rules = append(w.group.Rules, SecurityGroupRule{
			ID: SecurityGroupRuleID(fmt.Sprint("sgr-", n)), Protocol: UDP, Ports: PortRange{1400 + n, 1400 + n}, Peer: Peer{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(2 * n), 0}), 24)},
		})
	}
	for n := range 19 {
		w.acl.Entries = append(w.acl.Entries, NetworkACLEntry{Number: 200 + n, Egress: true, Protocol: TCP, CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(2 * n), 0}), 24), Ports: PortRange{2000 + 2*n, 2000 + 2*n}})
	}
	if _, err := Analyze(w.Resources, &InsightsPath{Source: "vgw-1", Destination: "vpce-1", Protocol: TCP}, nil, nil); !errors.Is(err, ErrTooWide) {
		t.Errorf("got %v, want %v", err, ErrTooWide)
	}
	f, err := Analyze(w.Resources, &InsightsPath{Source: "vgw-1", Destination: "vpce-1", Protocol: TCP, SourceIP: netip.MustParseAddr("192.168.0.9"), DestinationPort: new(1400)}, nil, nil)
	if err != nil || f.Found {
		t.Errorf("narrowed: %v, %v", f, err)
	}
}

// BenchmarkAnalyze: one client and port, and as many questions as one analysis asks.
func BenchmarkAnalyze(b *testing.B) {
	w := analyzable()
	w.group.Rules = nil
	for n := range 60 {
		w.group.Rules = append(w.group.Rules, SecurityGroupRule{
			ID: SecurityGroupRuleID(fmt.Sprint("sgr-", n)), Protocol: UDP, Ports: PortRange{1400 + n, 1400 + n}, Peer: Peer{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(2 * n), 0}), 24)},
		})
	}
	for n := range 19 {
		w.acl.Entries = append(w.acl.Entries, NetworkACLEntry{Number: 200 + n, Egress: true, Protocol: TCP, CIDR: pfx("172.16.0.0/24"), Ports: PortRange{2000 + 2*n, 2000 + 2*n}})
	}
	for name, p := range map[string]*InsightsPath{
		"one client": {Source: "vgw-1", Destination: "vpce-1", Protocol: TCP, SourceIP: netip.MustParseAddr("192.168.0.9"), DestinationPort: new(1400)},
		"too wide":   {Source: "vgw-1", Destination: "vpce-1", Protocol: TCP},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := Analyze(w.Resources, p, nil, nil); err != nil && !errors.Is(err, ErrTooWide) {
					b.Fatal(err)
				}
			}
		})
	}
}
