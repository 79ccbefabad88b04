package vpc_test

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/vpc"
	"penstock.dev/penstock/internal/vpc/vpctest"
)

var update = flag.Bool("update", false, "write golden files")

func place() vpc.Place {
	return vpc.Place{
		Probes: []netip.Addr{netip.MustParseAddr("169.254.77.3"), netip.MustParseAddr("100::4d:3")},
		Links: []vpc.Link{
			{Name: "att0", Networks: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("fd01::/64")}},
			{Name: "att1", Networks: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/16")}},
		},
	}
}

// rich is the suite's network with one of everything: a group that names a group, IPv6, a denied entry, a blackhole.
func rich() *vpctest.Network {
	n := vpctest.NewNetwork(77)
	p := netip.MustParsePrefix
	n.Group.Rules = append(n.Group.Rules,
		vpc.SecurityGroupRule{ID: "sgr-self", Protocol: vpc.AllProtocols, Ports: vpc.AllPorts, Peer: vpc.Peer{Group: n.Group.ID}},
		vpc.SecurityGroupRule{ID: "sgr-six", Protocol: vpc.TCP, Ports: vpc.AllPorts, Peer: vpc.Peer{CIDR: p("::/0")}},
		vpc.SecurityGroupRule{ID: "sgr-ping", Protocol: vpc.ICMP, Ports: vpc.PortRange{From: 8, To: -1}, Peer: vpc.Peer{CIDR: p("192.168.0.0/16")}},
		vpc.SecurityGroupRule{ID: "sgr-list", Protocol: vpc.TCP, Ports: vpc.PortRange{From: 443, To: 443}, Peer: vpc.Peer{PrefixList: "pl-branches"}},
		vpc.SecurityGroupRule{ID: "sgr-list6", Protocol: vpc.TCP, Ports: vpc.PortRange{From: 443, To: 443}, Peer: vpc.Peer{PrefixList: "pl-six"}},
		vpc.SecurityGroupRule{ID: "sgr-gone", Protocol: vpc.TCP, Ports: vpc.PortRange{From: 443, To: 443}, Peer: vpc.Peer{PrefixList: "pl-gone"}},
		vpc.SecurityGroupRule{ID: "sgr-out", Egress: true, Protocol: vpc.AllProtocols, Ports: vpc.AllPorts, Peer: vpc.Peer{CIDR: p("0.0.0.0/0")}},
	)
	n.ACL.Entries = append(n.ACL.Entries, vpc.NetworkACLEntry{Number: 7, Protocol: vpc.TCP, CIDR: p("192.168.9.0/24"), Ports: vpc.PortRange{From: 0, To: 65535}})
	n.Lists = []*vpc.PrefixList{
		{ID: "pl-branches", AddressFamily: vpc.FamilyIPv4, Entries: []vpc.PrefixListEntry{{CIDR: p("172.16.0.0/24")}, {CIDR: p("172.16.1.0/24")}, {CIDR: p("172.16.8.8/32")}, {CIDR: p("172.16.0.128/25")}}},
		{ID: "pl-six", AddressFamily: vpc.FamilyIPv6, Entries: []vpc.PrefixListEntry{{CIDR: p("fd00::/8")}}},
	}
	n.Table.Routes = []vpc.Route{{PrefixList: "pl-branches", Interface: "eni-dead"}, {CIDR: p("192.168.9.0/24"), Interface: "eni-dead"}, {CIDR: p("0.0.0.0/0"), Gateway: n.VPC.Gateway}}
	return n
}

// richer is rich with IPv6: one interface has both addresses, another is alone in an IPv6-only subnet.
func richer() *vpctest.Network {
	n := rich()
	p := netip.MustParsePrefix
	n.VPC.IPv6 = []vpc.CIDRBlock{{CIDR: p("fd00:77::/56")}}
	n.Subnets[0].IPv6, n.Interfaces[0].Addr6 = p("fd00:77:0:1::/64"), netip.MustParseAddr("fd00:77:0:1::10")
	n.Subnets[1].CIDR, n.Subnets[1].IPv6 = netip.Prefix{}, p("fd00:77:0:2::/64")
	n.Interfaces[1].Addr, n.Interfaces[1].Addr6 = netip.Addr{}, netip.MustParseAddr("fd00:77:0:2::10")
	n.ACL.Entries = append(n.ACL.Entries, vpc.NetworkACLEntry{Number: 101, Allow: true, Protocol: vpc.AllProtocols, CIDR: p("::/0"), Ports: vpc.AllPorts})
	return n
}

func TestCompileGolden(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]*vpctest.Network{"compiled.txt": rich(), "compiled-ipv6.txt": richer()} {
		got := vpctest.PlanOf(n).Snapshot.Compile(n.VPC.ID, place()).String()
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got; -update writes it):\n%s", name, diff)
		}
	}
}

func TestCompileIsStableAndWhole(t *testing.T) {
	t.Parallel()
	n := rich()
	var first vpc.Ruleset
	for range 20 { // snapshots are made of maps
		r := vpctest.PlanOf(n, vpctest.NewNetwork(78)).Snapshot.Compile(n.VPC.ID, place())
		if first.VPC == "" {
			first = r
		}
		if diff := cmp.Diff(first, r, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Fatalf("two compilations of equal rules differ:\n%s", diff)
		}
	}
	chains, sets := map[string]bool{}, map[string]bool{"": true}
	for _, c := range first.Chains {
		if chains[c.Name] {
			t.Errorf("chain %s is there twice", c.Name)
		}
		chains[c.Name] = true
	}
	for _, s := range first.Sets {
		sets[s.Name] = true
	}
	families := map[string]vpc.AddressFamily{}
	for _, s := range first.Sets {
		families[s.Name] = s.Family
		for _, a := range s.Addrs {
			if vpc.FamilyOf(a) != s.Family {
				t.Errorf("set %s of %s has %s", s.Name, s.Family, a)
			}
		}
	}
	for _, c := range first.Chains {
		for _, r := range c.Rules {
			for _, set := range []string{r.SrcSet, r.DstSet} {
				if set != "" && families[set] != r.Family {
					t.Errorf("a rule for %q packets asks set %s of %s", r.Family, set, families[set])
				}
			}
			to := []string{r.Chain}
			for _, target := range r.Targets {
				to = append(to, target.Chain)
			}
			for _, name := range to {
				if name != "" && !chains[name] {
					t.Errorf("%s leads to %s, which is not there", c.Name, name)
				}
			}
			if !sets[r.SrcSet] || !sets[r.DstSet] {
				t.Errorf("%s uses a set that is not there: %+v", c.Name, r)
			}
			if strings.Contains(r.Name, "sgr-six") {
				t.Error("an IPv6 rule was compiled for IPv4 packets")
			}
		}
	}
}

// TestEveryHopHasARule compares the names: what Explain says of a flow is in the ruleset.
func TestEveryHopHasARule(t *testing.T) {
	t.Parallel()
	n := rich()
	s := vpctest.PlanOf(n).Snapshot
	names := map[string]bool{}
	for _, c := range s.Compile(n.VPC.ID, place()).Chains {
		for _, r := range c.Rules {
			names[r.Name] = true
		}
	}
	for _, src := range []string{"192.168.0.7:50000", "192.168.9.9:50000", "172.16.0.5:999", "10.77.1.10:40000"} {
		for _, dst := range []string{"10.77.1.10:443", "10.77.2.10:1499", "10.77.2.10:22", "10.77.1.99:443", "10.77.9.9:443"} {
			f := vpc.Flow{VPC: n.VPC.ID, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst), Protocol: vpc.TCP}
			if strings.HasPrefix(src, "10.77.") {
				f.SrcVPC = n.VPC.ID
			}
			for _, h := range s.Explain(f).Hops {
				inside := h.Kind == vpc.HopDeviceRoute && f.SrcVPC != "" && h.Allow // no rule: the packet starts here
				ports := h.Kind == vpc.HopListener && strings.HasPrefix(h.Resource, "eni-")
				if !names[h.Identity()] && !inside && !ports {
					t.Errorf("%s to %s: no rule is named %q", src, dst, h.Identity())
				}
			}
		}
	}
}

func TestCompileUnknownVPC(t *testing.T) {
	t.Parallel()
	if r := vpctest.PlanOf(rich()).Snapshot.Compile("vpc-unknown", place()); len(r.Chains)+len(r.Sets) != 0 || r.VPC != "vpc-unknown" {
		t.Errorf("ruleset = %v", r)
	}
}
