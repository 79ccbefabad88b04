package vpc

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// world is a small network that test cases change before they ask.
type world struct {
	Resources
	vpc        *VPC
	a, b       *Subnet
	group      *SecurityGroup
	acl        *NetworkACL
	table      *RouteTable
	eniA, eniB *NetworkInterface
}

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func newWorld() *world {
	w := &world{
		vpc: &VPC{ID: "vpc-1", CIDR: pfx("10.77.0.0/16"), Gateway: "vgw-1"},
		a:   &Subnet{ID: "subnet-a", VPC: "vpc-1", CIDR: pfx("10.77.1.0/24"), Zone: "us-east-1a"},
		b:   &Subnet{ID: "subnet-b", VPC: "vpc-1", CIDR: pfx("10.77.2.0/24"), Zone: "us-east-1b"},
		group: &SecurityGroup{ID: "sg-1", VPC: "vpc-1", Rules: []SecurityGroupRule{
			{ID: "sgr-443", Protocol: TCP, Ports: PortRange{443, 443}, Peer: Peer{CIDR: pfx("192.168.0.0/16")}},
			{ID: "sgr-1400", Protocol: TCP, Ports: PortRange{1400, 1499}, Peer: Peer{CIDR: pfx("192.168.0.0/16")}},
			{ID: "sgr-out", Egress: true, Protocol: AllProtocols, Ports: AllPorts, Peer: Peer{CIDR: pfx("0.0.0.0/0")}},
		}},
		acl: &NetworkACL{
			ID: "acl-1", VPC: "vpc-1", Entries: []NetworkACLEntry{
				{Number: 100, Allow: true, Protocol: AllProtocols, CIDR: pfx("0.0.0.0/0"), Ports: AllPorts},
				{Number: 100, Egress: true, Allow: true, Protocol: AllProtocols, CIDR: pfx("0.0.0.0/0"), Ports: AllPorts},
			},
			Associations: []NetworkACLAssociation{{ID: "aclassoc-a", Subnet: "subnet-a"}, {ID: "aclassoc-b", Subnet: "subnet-b"}},
		},
		table: &RouteTable{ID: "rtb-1", VPC: "vpc-1", Propagates: true, Associations: []RouteTableAssociation{{ID: "rtbassoc-1", Main: true}}},
		eniA:  &NetworkInterface{ID: "eni-a", VPC: "vpc-1", Subnet: "subnet-a", Addr: netip.MustParseAddr("10.77.1.4"), Groups: []SecurityGroupID{"sg-1"}, Endpoint: "vpce-1"},
		eniB:  &NetworkInterface{ID: "eni-b", VPC: "vpc-1", Subnet: "subnet-b", Addr: netip.MustParseAddr("10.77.2.4"), Groups: []SecurityGroupID{"sg-1"}, Endpoint: "vpce-1"},
	}
	w.Resources = Resources{
		VPCs: []*VPC{w.vpc}, Subnets: []*Subnet{w.a, w.b}, Groups: []*SecurityGroup{w.group}, ACLs: []*NetworkACL{w.acl},
		RouteTables: []*RouteTable{w.table}, Interfaces: []*NetworkInterface{w.eniA, w.eniB},
		Endpoints:     []*Endpoint{{ID: "vpce-1", Service: "com.amazonaws.us-east-1.appstream.streaming"}},
		UserNetworks:  []netip.Prefix{pfx("192.168.0.0/16"), pfx("172.16.0.0/16")},
		EndpointPorts: func(string) []PortRange { return []PortRange{{443, 443}, {1400, 1499}} },
	}
	return w
}

func flow(src, dst string) Flow {
	f := Flow{VPC: "vpc-1", Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst), Protocol: TCP}
	if pfx("10.77.0.0/16").Contains(f.Src.Addr()) || pfx("fd00:77::/56").Contains(f.Src.Addr()) {
		f.SrcVPC = "vpc-1"
	}
	return f
}

// path is the verdict in one line: each hop's kind, resource and rule.
func path(v Verdict) string {
	var out []string
	for _, h := range v.Hops {
		mark := ""
		if !h.Allow {
			mark = "!"
		}
		out = append(out, mark+string(h.Dir)+string(h.Kind)+" "+h.Resource+" "+h.Rule)
	}
	return strings.Join(out, "; ")
}

// dual gives the world IPv6: a block, a subnet with both families and one interface with both addresses.
func dual(w *world) {
	w.UserNetworks = append(w.UserNetworks, pfx("fd01::/48"))
	w.vpc.IPv6 = []CIDRBlock{{CIDR: pfx("fd00:77::/56")}}
	w.a.IPv6, w.b.IPv6, w.eniA.Addr6 = pfx("fd00:77:0:1::/64"), pfx("fd00:77:0:2::/64"), netip.MustParseAddr("fd00:77:0:1::4")
	w.group.Rules = append(w.group.Rules, SecurityGroupRule{ID: "sgr-six", Protocol: TCP, Ports: PortRange{443, 443}, Peer: Peer{CIDR: pfx("fd01::/64")}})
	w.acl.Entries = append(w.acl.Entries,
		NetworkACLEntry{Number: 101, Allow: true, Protocol: AllProtocols, CIDR: pfx("::/0"), Ports: AllPorts},
		NetworkACLEntry{Number: 101, Egress: true, Allow: true, Protocol: AllProtocols, CIDR: pfx("::/0"), Ports: AllPorts})
}

func TestExplain(t *testing.T) {
	t.Parallel()
	const in = "->device-route vgw-1 192.168.0.0/16; ->network-acl-inbound acl-1 100; ->security-group sg-1 sgr-443; ->listener eni-a 443; <-return-route rtb-1 192.168.0.0/16; <-network-acl-outbound acl-1 100"
	tests := []struct {
		name    string
		change  func(*world)
		flow    Flow
		symptom Symptom
		path    string
	}{
		{name: "admitted", flow: flow("192.168.0.1:40000", "10.77.1.4:443"), symptom: Connected, path: in},
		{
			name: "last port of the range", flow: flow("192.168.0.1:40000", "10.77.2.4:1499"), symptom: Connected,
			path: "->device-route vgw-1 192.168.0.0/16; ->network-acl-inbound acl-1 100; ->security-group sg-1 sgr-1400; ->listener eni-b 1499; <-return-route rtb-1 192.168.0.0/16; <-network-acl-outbound acl-1 100",
		},
		{
			name: "network that the group does not admit", flow: flow("172.16.0.5:40000", "10.77.1.4:443"), symptom: Timeout,
			path: "->device-route vgw-1 172.16.0.0/16; ->network-acl-inbound acl-1 100; !->security-group sg-1 ",
		},
		{
			name: "network without a route", flow: flow("203.0.113.9:40000", "10.77.1.4:443"), symptom: NoRoute,
			path: "!->device-route  ",
		},
		{
			name: "other VPC", flow: Flow{VPC: "vpc-1", SrcVPC: "vpc-2", Src: netip.MustParseAddrPort("10.8.0.4:1"), Dst: netip.MustParseAddrPort("10.77.1.4:443"), Protocol: TCP},
			symptom: NoRoute, path: "!->device-route vpc-2 ",
		},
		{
			name: "port that nothing listens on", symptom: Refused, flow: flow("192.168.0.1:40000", "10.77.1.4:22"),
			change: func(w *world) {
				w.group.Rules = append(w.group.Rules, SecurityGroupRule{ID: "sgr-22", Protocol: TCP, Ports: PortRange{22, 22}, Peer: Peer{CIDR: pfx("0.0.0.0/0")}})
			},
			path: "->device-route vgw-1 192.168.0.0/16; ->network-acl-inbound acl-1 100; ->security-group sg-1 sgr-22; !->listener eni-a 22",
		},
		{
			name: "address without an interface", flow: flow("192.168.0.1:40000", "10.77.1.9:443"), symptom: Timeout,
			path: "->device-route vgw-1 192.168.0.0/16; ->network-acl-inbound acl-1 100; !->listener subnet-a ",
		},
		{
			name: "address outside every subnet", flow: flow("192.168.0.1:40000", "10.77.9.9:443"), symptom: Timeout,
			path: "->device-route vgw-1 192.168.0.0/16; !->device-route vpc-1 ",
		},
		{
			name: "ACL denies before it allows", flow: flow("192.168.0.1:40000", "10.77.1.4:443"), symptom: Timeout,
			change: func(w *world) {
				w.acl.Entries = append(w.acl.Entries, NetworkACLEntry{Number: 50, Protocol: TCP, CIDR: pfx("192.168.0.0/24"), Ports: PortRange{400, 500}})
			},
			path: "->device-route vgw-1 192.168.0.0/16; !->network-acl-inbound acl-1 50",
		},
		{
			name: "ACL entry for UDP does not matter", flow: flow("192.168.0.1:40000", "10.77.1.4:443"), symptom: Connected,
			change: func(w *world) {
				w.acl.Entries = append(w.acl.Entries, NetworkACLEntry{Number: 50, Protocol: UDP, CIDR: pfx("0.0.0.0/0"), Ports: PortRange{0, 65535}})
			},
			path: in,
		},
		{
			name: "ACL without outbound entries", flow: flow("192.168.0.1:40000", "10.77.1.4:443"), symptom: Timeout,
			change: func(w *world) {
				w.acl.Entries = slices.DeleteFunc(w.acl.Entries, func(e NetworkACLEntry) bool { return e.Egress })
			},
			path: strings.Replace(in, "<-network-acl-outbound acl-1 100", "!<-network-acl-outbound acl-1 *", 1),
		},
		{
			name: "ACL with a narrow ephemeral range, port inside", flow: flow("192.168.0.1:40000", "10.77.1.4:443"), symptom: Connected,
			change: func(w *world) {
				w.acl.Entries[1] = NetworkACLEntry{Number: 100, Egress: true, Allow: true, Protocol: TCP, CIDR: pfx("0.0.0.0/0"), Ports: PortRange{32768, 60999}}
			},
			path: in,
		},
		{
			name: "ACL with a narrow ephemeral range, port outside", flow: flow("192.168.0.1:2000", "10.77.1.4:443"), symptom: Timeout,
			change: func(w *world) {
				w.acl.Entries[1] = NetworkACLEntry{Number: 100, Egress: true, Allow: true, Protocol: TCP, CIDR: pfx("0.0.0.0/0"), Ports: PortRange{32768, 60999}}
			},
			path: strings.Replace(in, "<-network-acl-outbound acl-1 100", "!<-network-acl-outbound acl-1 *", 1),
		},
		{
			name: "no way back", flow: flow("192.168.0.1:40000", "10.77.1.4:443"), symptom: Timeout,
			change: func(w *world) { w.table.Propagates = false },
			path:   "->device-route vgw-1 192.168.0.0/16; ->network-acl-inbound acl-1 100; ->security-group sg-1 sgr-443; ->listener eni-a 443; !<-return-route rtb-1 ",
		},
		{
			name: "a refusal needs a way back too", flow: flow("192.168.0.1:40000", "10.77.1.4:22"), symptom: Timeout,
			change: func(w *world) {
				w.table.Propagates = false
				w.group.Rules[0].Ports = PortRange{0, 65535}
			},
			path: "->device-route vgw-1 192.168.0.0/16; ->network-acl-inbound acl-1 100; ->security-group sg-1 sgr-443; !<-return-route rtb-1 ",
		},
		{
			name: "static route through the gateway", flow: flow("192.168.0.1:40000", "10.77.1.4:443"), symptom: Connected,
			change: func(w *world) {
				w.table.Propagates = false
				w.table.Routes = []Route{{CIDR: pfx("192.168.0.0/20"), Gateway: "vgw-1"}}
			},
			path: strings.Replace(in, "rtb-1 192.168.0.0/16", "rtb-1 192.168.0.0/20", 1),
		},
		{
			name: "a longer prefix leads into a dead end", flow: flow("192.168.0.1:40000", "10.77.1.4:443"), symptom: Timeout,
			change: func(w *world) {
				w.table.Routes = []Route{{CIDR: pfx("192.168.0.0/24"), Interface: "eni-b"}}
			},
			path: "->device-route vgw-1 192.168.0.0/16; ->network-acl-inbound acl-1 100; ->security-group sg-1 sgr-443; ->listener eni-a 443; !<-return-route rtb-1 192.168.0.0/24",
		},
		{
			name: "the subnet's own table, not the main one", flow: flow("192.168.0.1:40000", "10.77.1.4:443"), symptom: Timeout,
			change: func(w *world) {
				w.RouteTables = append(w.RouteTables, &RouteTable{ID: "rtb-2", VPC: "vpc-1", Associations: []RouteTableAssociation{{ID: "x", Subnet: "subnet-a"}}})
			},
			path: "->device-route vgw-1 192.168.0.0/16; ->network-acl-inbound acl-1 100; ->security-group sg-1 sgr-443; ->listener eni-a 443; !<-return-route rtb-2 ",
		},
		{
			name: "users' network inside the VPC's block", flow: flow("10.77.5.1:40000", "10.77.1.4:443"), symptom: Timeout,
			change: func(w *world) {
				w.UserNetworks = append(w.UserNetworks, pfx("10.77.5.0/24"))
				w.group.Rules[0].Peer.CIDR = pfx("0.0.0.0/0")
			},
			path: "", // set below: the flow comes from outside
		},
		{
			name: "inside one subnet no ACL is asked", flow: flow("10.77.1.50:40000", "10.77.1.4:443"), symptom: Connected,
			change: func(w *world) {
				w.acl.Entries = nil
				w.group.Rules[0].Peer.CIDR = pfx("10.77.0.0/16")
			},
			path: "->device-route subnet-a local; ->security-group sg-1 sgr-443; ->listener eni-a 443; <-return-route rtb-1 10.77.0.0/16",
		},
		{
			name: "between subnets both ACLs are asked, both ways", flow: flow("10.77.2.50:40000", "10.77.1.4:443"), symptom: Connected,
			change: func(w *world) { w.group.Rules[0].Peer.CIDR = pfx("10.77.0.0/16") },
			path: "->device-route subnet-b local; ->network-acl-outbound acl-1 100; ->network-acl-inbound acl-1 100; ->security-group sg-1 sgr-443; ->listener eni-a 443; " +
				"<-return-route rtb-1 10.77.0.0/16; <-network-acl-outbound acl-1 100; <-network-acl-inbound acl-1 100",
		},
		{
			name: "a group as peer admits its members", flow: flow("10.77.2.4:40000", "10.77.1.4:443"), symptom: Connected,
			change: func(w *world) { w.group.Rules[0].Peer = Peer{Group: "sg-1"} },
			path: "->device-route subnet-b local; ->security-group sg-1 sgr-out; ->network-acl-outbound acl-1 100; ->network-acl-inbound acl-1 100; ->security-group sg-1 sgr-443; ->listener eni-a 443; " +
				"<-return-route rtb-1 10.77.0.0/16; <-network-acl-outbound acl-1 100; <-network-acl-inbound acl-1 100",
		},
		{
			name: "a group as peer admits nobody else", flow: flow("10.77.2.50:40000", "10.77.1.4:443"), symptom: Timeout,
			change: func(w *world) { w.group.Rules[0].Peer = Peer{Group: "sg-1"} },
			path:   "->device-route subnet-b local; ->network-acl-outbound acl-1 100; ->network-acl-inbound acl-1 100; !->security-group sg-1 ",
		},
		{
			name: "a group as peer is no address outside", flow: Flow{VPC: "vpc-1", Src: netip.MustParseAddrPort("10.77.2.4:40000"), Dst: netip.MustParseAddrPort("10.77.1.4:443"), Protocol: TCP},
			symptom: Timeout,
			change: func(w *world) {
				w.UserNetworks = append(w.UserNetworks, pfx("10.77.2.0/24"))
				w.group.Rules[0].Peer = Peer{Group: "sg-1"}
			},
			path: "->device-route vgw-1 10.77.2.0/24; ->network-acl-inbound acl-1 100; !->security-group sg-1 ",
		},
		{
			name: "an interface's group judges what leaves it", flow: flow("10.77.2.4:40000", "10.77.1.4:443"), symptom: Timeout,
			change: func(w *world) {
				w.group.Rules = w.group.Rules[:2]
				w.group.Rules[0].Peer.CIDR = pfx("0.0.0.0/0")
			},
			path: "->device-route subnet-b local; !->security-group sg-1 ",
		},
		{
			name: "an IPv6 rule admits no IPv4 address", flow: flow("192.168.0.1:40000", "10.77.1.4:443"), symptom: Timeout,
			change: func(w *world) { w.group.Rules[0].Peer.CIDR = pfx("::/0") },
			path:   "->device-route vgw-1 192.168.0.0/16; ->network-acl-inbound acl-1 100; !->security-group sg-1 ",
		},
		{
			name: "a prefix list admits what its entries hold", flow: flow("192.168.0.1:40000", "10.77.1.4:443"), symptom: Connected,
			change: func(w *world) {
				w.PrefixLists = []*PrefixList{{ID: "pl-1", AddressFamily: FamilyIPv4, Entries: []PrefixListEntry{{CIDR: pfx("192.168.0.0/16")}, {CIDR: pfx("192.168.0.0/30")}}}}
				w.group.Rules[0].Peer = Peer{PrefixList: "pl-1"}
			},
			path: in,
		},
		{
			name: "a prefix list admits nothing else", flow: flow("172.16.0.5:40000", "10.77.1.4:443"), symptom: Timeout,
			change: func(w *world) {
				w.PrefixLists = []*PrefixList{{ID: "pl-1", AddressFamily: FamilyIPv4, Entries: []PrefixListEntry{{CIDR: pfx("192.168.0.0/16")}}}}
				w.group.Rules[0].Peer = Peer{PrefixList: "pl-1"}
			},
			path: "->device-route vgw-1 172.16.0.0/16; ->network-acl-inbound acl-1 100; !->security-group sg-1 ",
		},
		{
			name: "a list that is gone admits nobody", flow: flow("192.168.0.1:40000", "10.77.1.4:443"), symptom: Timeout,
			change: func(w *world) { w.group.Rules[0].Peer = Peer{PrefixList: "pl-gone"} },
			path:   "->device-route vgw-1 192.168.0.0/16; ->network-acl-inbound acl-1 100; !->security-group sg-1 ",
		},
		{
			name: "a route to a prefix list beats a propagated one", flow: flow("192.168.0.1:40000", "10.77.1.4:443"), symptom: Timeout,
			change: func(w *world) {
				w.PrefixLists = []*PrefixList{{ID: "pl-1", AddressFamily: FamilyIPv4, Entries: []PrefixListEntry{{CIDR: pfx("192.168.0.0/16")}}}}
				w.table.Routes = []Route{{PrefixList: "pl-1", Interface: "eni-b"}}
			},
			path: "->device-route vgw-1 192.168.0.0/16; ->network-acl-inbound acl-1 100; ->security-group sg-1 sgr-443; ->listener eni-a 443; !<-return-route rtb-1 pl-1",
		},
		{
			name: "a static route beats one to a prefix list", flow: flow("192.168.0.1:40000", "10.77.1.4:443"), symptom: Connected,
			change: func(w *world) {
				w.PrefixLists = []*PrefixList{{ID: "pl-1", AddressFamily: FamilyIPv4, Entries: []PrefixListEntry{{CIDR: pfx("192.168.0.0/16")}}}}
				w.table.Routes = []Route{{PrefixList: "pl-1", Interface: "eni-b"}, {CIDR: pfx("192.168.0.0/16"), Gateway: "vgw-1"}}
			},
			path: in,
		},
		{
			name: "IPv6", flow: flow("[fd01::7]:40000", "[fd00:77:0:1::4]:443"), symptom: Connected, change: dual,
			path: "->device-route vgw-1 fd01::/48; ->network-acl-inbound acl-1 101; ->security-group sg-1 sgr-six; ->listener eni-a 443; <-return-route rtb-1 fd01::/48; <-network-acl-outbound acl-1 101",
		},
		{
			name: "IPv6 inside one subnet", flow: flow("[fd00:77:0:1::9]:40000", "[fd00:77:0:1::4]:443"), symptom: Connected,
			change: func(w *world) {
				dual(w)
				w.acl.Entries = nil
				w.group.Rules[0].Peer.CIDR = pfx("fd00:77::/56")
			},
			path: "->device-route subnet-a local; ->security-group sg-1 sgr-443; ->listener eni-a 443; <-return-route rtb-1 fd00:77::/56",
		},
		{
			name: "an IPv4 rule admits no IPv6 address", flow: flow("[fd01::7]:40000", "[fd00:77:0:1::4]:1400"), symptom: Timeout, change: dual,
			path: "->device-route vgw-1 fd01::/48; ->network-acl-inbound acl-1 101; !->security-group sg-1 ",
		},
		{
			name: "an interface without an IPv6 address", flow: flow("[fd01::7]:40000", "[fd00:77:0:2::4]:443"), symptom: Timeout, change: dual,
			path: "->device-route vgw-1 fd01::/48; ->network-acl-inbound acl-1 101; !->listener subnet-b ",
		},
		{
			name: "a VPC without IPv6", flow: flow("[fd01::7]:40000", "[fd00:77:0:1::4]:443"), symptom: Timeout,
			change: func(w *world) { w.UserNetworks = append(w.UserNetworks, pfx("fd01::/48")) },
			path:   "->device-route vgw-1 fd01::/48; !->device-route vpc-1 ",
		},
		{
			name: "from one family to the other", flow: flow("192.168.0.1:40000", "[fd00:77:0:1::4]:443"), symptom: NoRoute, change: dual,
			path: "!->device-route vpc-1 ",
		},
		{
			name: "a second IPv4 block", flow: flow("192.168.0.1:40000", "10.78.0.4:443"), symptom: Connected,
			change: func(w *world) {
				w.vpc.Secondary = []CIDRBlock{{CIDR: pfx("10.78.0.0/16")}}
				w.a.CIDR, w.eniA.Addr = pfx("10.78.0.0/24"), netip.MustParseAddr("10.78.0.4")
			},
			path: in,
		},
		{
			name: "no such VPC", flow: Flow{VPC: "vpc-9", Src: netip.MustParseAddrPort("192.168.0.1:1"), Dst: netip.MustParseAddrPort("10.77.1.4:443"), Protocol: TCP},
			symptom: NoRoute, path: "!->device-route vpc-9 ",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			if tt.change != nil {
				tt.change(w)
			}
			if tt.path == "" {
				tt.flow.SrcVPC = ""
				tt.path = "->device-route vgw-1 10.77.5.0/24; ->network-acl-inbound acl-1 100; ->security-group sg-1 sgr-443; ->listener eni-a 443; !<-return-route rtb-1 10.77.0.0/16"
			}
			v := NewSnapshot(w.Resources).Explain(tt.flow)
			if got := path(v); got != tt.path {
				t.Errorf("path:\n got %s\nwant %s", got, tt.path)
			}
			if v.Symptom != tt.symptom || v.OK != (tt.symptom == Connected) {
				t.Errorf("symptom = %s (ok %t), want %s", v.Symptom, v.OK, tt.symptom)
			}
			for i, h := range v.Hops {
				if h.Why == "" {
					t.Errorf("hop %d says no reason", i)
				}
			}
			if h := v.Blocked(); (h == nil) != v.OK {
				t.Errorf("Blocked() = %+v, ok %t", h, v.OK)
			}
		})
	}
}

func TestExplainNamesTheMissingRule(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.group.Rules = w.group.Rules[:1] // only 443
	h := NewSnapshot(w.Resources).Explain(flow("192.168.0.1:40000", "10.77.1.4:1400")).Blocked()
	if h == nil {
		t.Fatal("admitted")
	}
	if want := "add an inbound rule to sg-1: tcp 1400-1499 from 192.168.0.0/16"; h.Fix != want {
		t.Errorf("fix = %q, want %q", h.Fix, want)
	}
}

func TestExplainNamesTheListAndItsEntry(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.PrefixLists = []*PrefixList{{ID: "pl-1", AddressFamily: FamilyIPv4, Entries: []PrefixListEntry{{CIDR: pfx("192.168.0.0/16")}, {CIDR: pfx("192.168.0.0/30")}, {CIDR: pfx("192.168.8.0/24")}}}}
	w.group.Rules[0].Peer = Peer{PrefixList: "pl-1"}
	w.table.Routes = []Route{{PrefixList: "pl-1", Gateway: "vgw-1"}}
	type named struct {
		Kind  HopKind
		List  PrefixListID
		Entry string
	}
	var got []named
	for _, h := range NewSnapshot(w.Resources).Explain(flow("192.168.0.1:40000", "10.77.1.4:443")).Hops {
		if h.PrefixList != "" {
			got = append(got, named{h.Kind, h.PrefixList, h.Entry.String()})
			if !strings.Contains(h.Why, "192.168.0.0/30") || !strings.Contains(h.Why, "pl-1") {
				t.Errorf("why = %q", h.Why)
			}
		}
	}
	want := []named{{HopSecurityGroup, "pl-1", "192.168.0.0/30"}, {HopReturnRoute, "pl-1", "192.168.0.0/30"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("hops (-want +got):\n%s", d)
	}
}

func TestExplainRange(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.acl.Entries[1] = NetworkACLEntry{Number: 100, Egress: true, Allow: true, Protocol: TCP, CIDR: pfx("0.0.0.0/0"), Ports: PortRange{32768, 60999}}
	w.acl.Entries = append(w.acl.Entries,
		NetworkACLEntry{Number: 90, Egress: true, Protocol: TCP, CIDR: pfx("192.168.0.0/16"), Ports: PortRange{40000, 40001}},
		NetworkACLEntry{Number: 95, Egress: true, Allow: true, Protocol: TCP, CIDR: pfx("192.168.0.0/16"), Ports: PortRange{30000, 35000}},
	)
	type span struct {
		From, To uint16
		OK       bool
		Rule     string
	}
	var got []span
	for _, r := range NewSnapshot(w.Resources).ExplainRange(flow("192.168.0.1:1", "10.77.1.4:443")) {
		s := span{From: r.From, To: r.To, OK: r.Verdict.OK}
		if h := r.Verdict.Blocked(); h != nil {
			s.Rule = h.Rule
		}
		got = append(got, s)
	}
	want := []span{{1024, 29999, false, "*"}, {30000, 39999, true, ""}, {40000, 40001, false, "90"}, {40002, 60999, true, ""}, {61000, 65535, false, "*"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("ranges (-want +got):\n%s", d)
	}

	whole := NewSnapshot(newWorld().Resources).ExplainRange(flow("192.168.0.1:1", "10.77.1.4:443"))
	if len(whole) != 1 || whole[0].From != 1024 || whole[0].To != 65535 || !whole[0].Verdict.OK {
		t.Errorf("open ACL: got %+v", whole)
	}
}

// naive is a second implementation of the rules, as plainly as they can be written down: it reads the resources afresh for
// every question and shares no code with Explain.
func naive(r Resources, f Flow) Symptom {
	inAny := func(list []netip.Prefix, a netip.Addr) bool {
		for _, p := range list {
			if p.Contains(a) {
				return true
			}
		}
		return false
	}
	var v *VPC
	for _, x := range r.VPCs {
		if x.ID == f.VPC {
			v = x
		}
	}
	subnetOf := func(a netip.Addr) *Subnet {
		for _, s := range r.Subnets {
			if s.VPC == f.VPC && (s.CIDR.Contains(a) || s.IPv6.Contains(a)) {
				return s
			}
		}
		return nil
	}
	blocksOf := func(id PrefixListID) (out []netip.Prefix) {
		for _, l := range r.PrefixLists {
			if l.ID == id {
				for _, e := range l.Entries {
					out = append(out, e.CIDR)
				}
			}
		}
		return out
	}
	interfaceAt := func(a netip.Addr) *NetworkInterface {
		for _, n := range r.Interfaces {
			if n.VPC == f.VPC && (n.Addr == a || n.Addr6 == a) {
				return n
			}
		}
		return nil
	}
	acl := func(s *Subnet, egress bool, other netip.Addr, port uint16) bool {
		best, allow := 1<<20, false
		for _, a := range r.ACLs {
			for _, as := range a.Associations {
				if as.Subnet != s.ID {
					continue
				}
				for _, e := range a.Entries {
					portOK := e.Protocol == AllProtocols || int(port) >= e.Ports.From && int(port) <= e.Ports.To
					if e.Egress == egress && e.Number < best && (e.Protocol == AllProtocols || e.Protocol == f.Protocol) && e.CIDR.Contains(other) && portOK {
						best, allow = e.Number, e.Allow
					}
				}
			}
		}
		return allow
	}
	groups := func(n *NetworkInterface, egress bool, other netip.Addr) bool {
		for _, id := range n.Groups {
			for _, g := range r.Groups {
				if g.ID != id {
					continue
				}
				for _, rule := range g.Rules {
					if rule.Egress != egress || rule.Protocol != AllProtocols && rule.Protocol != f.Protocol {
						continue
					}
					if rule.Protocol != AllProtocols && (int(f.Dst.Port()) < rule.Ports.From || int(f.Dst.Port()) > rule.Ports.To) {
						continue
					}
					if rule.Peer.Group != "" {
						member := interfaceAt(other)
						if f.SrcVPC == f.VPC && member != nil && slices.Contains(member.Groups, rule.Peer.Group) {
							return true
						}
						continue
					}
					if rule.Peer.CIDR.Contains(other) || inAny(blocksOf(rule.Peer.PrefixList), other) {
						return true
					}
				}
			}
		}
		return false
	}
	routed := func(s *Subnet) bool {
		var table *RouteTable
		for _, t := range r.RouteTables {
			for _, a := range t.Associations {
				if a.Main && t.VPC == f.VPC && table == nil {
					table = t
				}
			}
		}
		for _, t := range r.RouteTables {
			for _, a := range t.Associations {
				if a.Subnet == s.ID && !a.Main {
					table = t
				}
			}
		}
		dst := f.Src.Addr()
		own := []netip.Prefix{v.CIDR}
		for _, b := range v.Secondary {
			own = append(own, b.CIDR)
		}
		for _, b := range v.IPv6 {
			own = append(own, b.CIDR)
		}
		// Static routes with a block of their own, then those of lists, but for what is inside the VPC: of equally long ones
		// the first wins.
		var static []Route
		for _, x := range table.Routes {
			if x.PrefixList == "" {
				static = append(static, x)
			}
		}
		for _, x := range table.Routes {
			for _, b := range blocksOf(x.PrefixList) {
				if slices.ContainsFunc(own, func(o netip.Prefix) bool { return o.Contains(b.Addr()) && o.Bits() <= b.Bits() }) {
					continue
				}
				static = append(static, Route{CIDR: b, Gateway: x.Gateway})
			}
		}
		for _, b := range own {
			if !b.Contains(dst) {
				continue
			}
			// The VPC's own route, unless a static one is longer.
			best, ok := b.Bits(), f.SrcVPC == f.VPC
			for _, x := range static {
				if x.CIDR.Contains(dst) && x.CIDR.Bits() > best {
					best, ok = x.CIDR.Bits(), x.Gateway == v.Gateway
				}
			}
			return ok
		}
		best, ok := -1, false
		for _, x := range static {
			if x.CIDR.Contains(dst) && x.CIDR.Bits() > best {
				best, ok = x.CIDR.Bits(), x.Gateway == v.Gateway
			}
		}
		if table.Propagates {
			for _, u := range r.UserNetworks {
				if u.Contains(dst) && u.Bits() > best {
					best, ok = u.Bits(), true
				}
			}
		}
		return ok
	}

	if v == nil || f.SrcVPC != "" && f.SrcVPC != f.VPC || f.Src.Addr().Is4() != f.Dst.Addr().Is4() {
		return NoRoute
	}
	var from *Subnet
	if f.SrcVPC == "" {
		if !inAny(r.UserNetworks, f.Src.Addr()) {
			return NoRoute
		}
	} else if from = subnetOf(f.Src.Addr()); from == nil {
		return NoRoute
	}
	to := subnetOf(f.Dst.Addr())
	if to == nil {
		return Timeout
	}
	n := interfaceAt(f.Dst.Addr())
	src := (*NetworkInterface)(nil)
	if from != nil {
		src = interfaceAt(f.Src.Addr())
	}
	same := from != nil && from.ID == to.ID
	switch {
	case src != nil && !groups(src, true, f.Dst.Addr()),
		!same && from != nil && !acl(from, true, f.Dst.Addr(), f.Dst.Port()),
		!same && !acl(to, false, f.Src.Addr(), f.Dst.Port()),
		n == nil,
		!groups(n, false, f.Src.Addr()),
		!routed(to),
		!same && !acl(to, true, f.Src.Addr(), f.Src.Port()),
		!same && from != nil && !acl(from, false, f.Dst.Addr(), f.Src.Port()):
		return Timeout
	}
	for _, p := range r.EndpointPorts("") {
		if f.Protocol == TCP && int(f.Dst.Port()) >= p.From && int(f.Dst.Port()) <= p.To {
			return Connected
		}
	}
	return Refused
}

// randomWorld draws rules from a small set of values, so that they meet and overlap often.
func randomWorld(r *rand.Rand) *world { return randomWorldOf(r, false) }

// randomWorldOf is randomWorld, with IPv6 too and a second IPv4 block when it is dual.
func randomWorldOf(r *rand.Rand, dual bool) *world {
	pick := func(list ...string) netip.Prefix { return pfx(list[r.IntN(len(list))]) }
	ports := func() PortRange {
		all := []PortRange{{443, 443}, {1400, 1499}, {1400, 1450}, {1024, 65535}, {0, 65535}, {32768, 60999}, {22, 22}, {400, 1420}}
		return all[r.IntN(len(all))]
	}
	cidrs := []string{"0.0.0.0/0", "192.168.0.0/16", "192.168.1.0/24", "172.16.0.0/16", "10.77.0.0/16", "10.77.2.0/24", "10.77.1.4/32", "::/0"}
	w := newWorld()
	if dual {
		w.UserNetworks = append(w.UserNetworks, pfx("fd01::/48"))
		w.vpc.IPv6 = []CIDRBlock{{CIDR: pfx("fd00:77::/56")}}
		w.vpc.Secondary = []CIDRBlock{{CIDR: pfx("10.78.0.0/24")}}
		w.a.IPv6, w.eniA.Addr6 = pfx("fd00:77:0:1::/64"), netip.MustParseAddr("fd00:77:0:1::4")
		w.b.IPv6 = pfx("fd00:77:0:2::/64") // where the interface is IPv4 only
		c := &Subnet{ID: "subnet-c", VPC: "vpc-1", IPv6: pfx("fd00:77:0:3::/64")}
		d := &Subnet{ID: "subnet-d", VPC: "vpc-1", CIDR: pfx("10.78.0.0/24")}
		w.Subnets = append(w.Subnets, c, d)
		w.Interfaces = append(w.Interfaces,
			&NetworkInterface{ID: "eni-c", VPC: "vpc-1", Subnet: c.ID, Addr6: netip.MustParseAddr("fd00:77:0:3::4"), Groups: []SecurityGroupID{"sg-1"}, Endpoint: "vpce-1"},
			&NetworkInterface{ID: "eni-d", VPC: "vpc-1", Subnet: d.ID, Addr: netip.MustParseAddr("10.78.0.4"), Groups: []SecurityGroupID{"sg-1"}, Endpoint: "vpce-1"})
		cidrs = append(cidrs, "::/0", "fd01::/48", "fd01::/64", "fd01::7/128", "fd00:77::/56", "fd00:77:0:1::/64", "fd00:77:0:3::4/128", "10.78.0.0/24")
	}
	w.group.Rules = nil
	groups := []*SecurityGroup{w.group, {ID: "sg-2", VPC: "vpc-1"}, {ID: "sg-3", VPC: "vpc-1"}}
	w.Groups = groups
	lists := []PrefixListID{"pl-1", "pl-2", "pl-2", "pl-gone"}
	if dual {
		lists = append(lists, "pl-6", "pl-6")
	}
	for _, id := range []PrefixListID{"pl-1", "pl-2", "pl-6"} {
		l := &PrefixList{ID: id, AddressFamily: FamilyIPv4}
		if id == "pl-6" {
			l.AddressFamily = FamilyIPv6
		}
		for range r.IntN(5) {
			if p := pick(cidrs[1:]...); FamilyOf(p.Addr()) == l.AddressFamily {
				l.Entries = append(l.Entries, PrefixListEntry{CIDR: p})
			}
		}
		w.PrefixLists = append(w.PrefixLists, l)
	}
	list := func() PrefixListID { return lists[r.IntN(len(lists))] }
	for _, g := range groups {
		for n := range r.IntN(5) {
			rule := SecurityGroupRule{ID: SecurityGroupRuleID(string(g.ID) + string(rune('a'+n))), Egress: r.IntN(3) == 0, Protocol: TCP, Ports: ports()}
			switch r.IntN(6) {
			case 0:
				rule.Protocol, rule.Ports = AllProtocols, AllPorts
			case 1:
				rule.Protocol = UDP
			}
			switch r.IntN(6) {
			case 0:
				rule.Peer.Group = groups[r.IntN(3)].ID
			case 1, 2:
				rule.Peer.PrefixList = list()
			default:
				rule.Peer.CIDR = pick(cidrs...)
			}
			g.Rules = append(g.Rules, rule)
		}
	}
	draw := func() []SecurityGroupID {
		out := []SecurityGroupID{"sg-1"}
		if r.IntN(2) == 0 {
			out = append(out, groups[1+r.IntN(2)].ID)
		}
		return out
	}
	w.eniA.Groups, w.eniB.Groups = draw(), draw()
	acls := []*NetworkACL{{ID: "acl-1", VPC: "vpc-1"}, {ID: "acl-2", VPC: "vpc-1"}}
	for _, a := range acls {
		used := map[[2]int]bool{}
		if r.IntN(3) > 0 { // most lists let something through
			a.Entries = append(a.Entries,
				NetworkACLEntry{Number: 500, Allow: true, Protocol: AllProtocols, CIDR: pfx("0.0.0.0/0"), Ports: AllPorts},
				NetworkACLEntry{Number: 500, Egress: true, Allow: true, Protocol: AllProtocols, CIDR: pfx("0.0.0.0/0"), Ports: AllPorts},
				NetworkACLEntry{Number: 501, Allow: true, Protocol: AllProtocols, CIDR: pfx("::/0"), Ports: AllPorts},
				NetworkACLEntry{Number: 501, Egress: true, Allow: true, Protocol: AllProtocols, CIDR: pfx("::/0"), Ports: AllPorts})
		}
		for range r.IntN(6) {
			e := NetworkACLEntry{Number: 1 + r.IntN(900), Egress: r.IntN(2) == 0, Allow: r.IntN(2) == 0, Protocol: TCP, CIDR: pick(cidrs...), Ports: ports()}
			if r.IntN(5) == 0 {
				e.Protocol, e.Ports = AllProtocols, AllPorts
			}
			key := [2]int{e.Number, 0}
			if e.Egress {
				key[1] = 1
			}
			if e.Number == 500 || e.Number == 501 || used[key] {
				continue
			}
			used[key] = true
			a.Entries = append(a.Entries, e)
		}
	}
	acls[0].Associations = []NetworkACLAssociation{{ID: "1", Subnet: "subnet-a"}}
	second := acls[r.IntN(2)]
	second.Associations = append(second.Associations, NetworkACLAssociation{ID: "2", Subnet: "subnet-b"}, NetworkACLAssociation{ID: "3", Subnet: "subnet-c"}, NetworkACLAssociation{ID: "4", Subnet: "subnet-d"})
	w.ACLs = acls
	w.table.Propagates = r.IntN(4) > 0
	own := &RouteTable{ID: "rtb-2", VPC: "vpc-1", Propagates: r.IntN(2) == 0}
	if r.IntN(2) == 0 {
		own.Associations = []RouteTableAssociation{{ID: "x", Subnet: "subnet-a"}}
	}
	w.RouteTables = append(w.RouteTables, own)
	for _, t := range w.RouteTables {
		seen := map[netip.Prefix]bool{}
		for range r.IntN(3) {
			to := []string{"192.168.0.0/16", "192.168.1.0/24", "0.0.0.0/0", "172.16.0.0/16"}
			if dual {
				to = append(to, "::/0", "fd01::/64")
			}
			route := Route{CIDR: pick(to...), Gateway: "vgw-1"}
			if r.IntN(3) == 0 {
				route.Gateway, route.Interface = "", "eni-b"
			}
			if !seen[route.CIDR] {
				seen[route.CIDR] = true
				t.Routes = append(t.Routes, route)
			}
		}
		if r.IntN(3) == 0 {
			route := Route{PrefixList: list(), Gateway: "vgw-1"}
			if r.IntN(2) == 0 {
				route.Gateway, route.Interface = "", "eni-b"
			}
			t.Routes = append(t.Routes, route)
		}
	}
	return w
}

func randomFlow(r *rand.Rand, w *world) Flow {
	sources := []string{"192.168.0.1", "192.168.1.7", "172.16.0.5", "10.77.1.4", "10.77.1.50", "10.77.2.4", "10.77.2.60", "10.77.9.9", "203.0.113.5"}
	dests := []string{"10.77.1.4", "10.77.2.4", "10.77.1.4", "10.77.2.4", "10.77.1.9", "10.77.8.8"}
	if six := len(w.vpc.IPv6) > 0; six && r.IntN(2) == 0 || r.IntN(50) == 0 {
		sources = []string{"fd01::1", "fd01::7", "fd01:0:0:8::1", "fd00:77:0:1::4", "fd00:77:0:1::9", "fd00:77:0:3::4", "fd00:77:0:2::9", "fd02::1", "192.168.0.1"}
		dests = []string{"fd00:77:0:1::4", "fd00:77:0:1::4", "fd00:77:0:3::4", "fd00:77:0:2::4", "fd00:77:0:1::99", "fd00:77:0:9::1"}
	} else if six && r.IntN(6) == 0 {
		dests = []string{"10.78.0.4", "10.78.0.4", "10.78.0.9", "fd00:77:0:1::4"}
	}
	sports := []uint16{1024, 2000, 32767, 32768, 45000, 60999, 61000, 65535}
	dports := []uint16{443, 1400, 1450, 1451, 1499, 22, 1500, 22, 420}
	f := Flow{
		VPC: "vpc-1", Protocol: TCP,
		Src: netip.AddrPortFrom(netip.MustParseAddr(sources[r.IntN(len(sources))]), sports[r.IntN(len(sports))]),
		Dst: netip.AddrPortFrom(netip.MustParseAddr(dests[r.IntN(len(dests))]), dports[r.IntN(len(dports))]),
	}
	if pfx("10.77.0.0/16").Contains(f.Src.Addr()) || pfx("fd00:77::/56").Contains(f.Src.Addr()) {
		f.SrcVPC = "vpc-1"
		if r.IntN(20) == 0 {
			f.SrcVPC = "vpc-2"
		}
	}
	return f
}

func agree(t *testing.T, seed uint64, flows int) map[Symptom]int {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 7))
	w := randomWorldOf(r, r.IntN(2) == 0)
	s := NewSnapshot(w.Resources)
	seen := map[Symptom]int{}
	for range flows {
		f := randomFlow(r, w)
		v := s.Explain(f)
		seen[v.Symptom]++
		if want := naive(w.Resources, f); v.Symptom != want || v.OK != (want == Connected) {
			t.Fatalf("seed %d, flow %+v: got %s by %s, want %s", seed, f, v.Symptom, path(v), want)
		}
	}
	return seen
}

func TestExplainAgreesWithTheNaiveReading(t *testing.T) {
	t.Parallel()
	total := map[Symptom]int{}
	for seed := range uint64(2000) {
		for k, n := range agree(t, seed, 60) {
			total[k] += n
		}
	}
	// A generator that produces one symptom alone would prove nothing.
	for _, k := range []Symptom{Connected, Refused, Timeout, NoRoute} {
		if total[k] < 800 {
			t.Errorf("only %d of 120000 flows were %s", total[k], k)
		}
	}
	t.Logf("symptoms: %v", total)
}

func FuzzExplainAgreesWithTheNaiveReading(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { agree(t, seed, 60) })
}

func TestExplainRangeAgreesWithExplain(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 9))
		w := randomWorldOf(r, seed%2 == 0)
		s := NewSnapshot(w.Resources)
		f := randomFlow(r, w)
		next := EphemeralFirst
		for _, span := range s.ExplainRange(f) {
			if int(span.From) != next {
				t.Fatalf("seed %d: a range begins at %d, want %d", seed, span.From, next)
			}
			next = int(span.To) + 1
			for _, port := range []uint16{span.From, span.To, span.From + uint16(r.IntN(int(span.To-span.From)+1))} {
				f.Src = netip.AddrPortFrom(f.Src.Addr(), port)
				if got := s.Explain(f).Symptom; got != span.Verdict.Symptom {
					t.Fatalf("seed %d, port %d: %s, the range says %s", seed, port, got, span.Verdict.Symptom)
				}
			}
		}
		if next != EphemeralLast+1 {
			t.Fatalf("seed %d: ranges end at %d", seed, next-1)
		}
	}
}

func BenchmarkExplain(b *testing.B) {
	w := newWorld()
	for n := range 50 {
		w.group.Rules = slices.Insert(w.group.Rules, 0, SecurityGroupRule{
			ID: "sgr-x", Protocol: TCP, Ports: PortRange{n, n}, Peer: Peer{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(n), 0}), 24)},
		})
	}
	s := NewSnapshot(w.Resources)
	for name, f := range map[string]Flow{
		"admitted": flow("192.168.0.1:40000", "10.77.1.4:443"),
		"denied":   flow("172.16.0.5:40000", "10.77.1.4:443"),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.Explain(f)
			}
		})
	}
}
