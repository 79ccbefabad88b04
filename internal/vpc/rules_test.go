package vpc

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/fault"
)

// code is the EC2 error code of a fault, "" without one.
func code(err error) string {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f.Code
	}
	if err != nil {
		return "not a fault: " + err.Error()
	}
	return ""
}

func TestCheckVPCCIDR(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"10.0.0.0/16": "", "10.0.0.0/28": "", "192.168.5.9/24": "", "100.64.0.0/16": "",
		"10.0.0.0/15": "InvalidVpc.Range", "10.0.0.0/29": "InvalidVpc.Range", "0.0.0.0/0": "InvalidVpc.Range",
		"169.254.0.0/16": "InvalidVpc.Range", "169.254.77.0/24": "InvalidVpc.Range", "198.19.0.0/20": "InvalidVpc.Range",
		"198.18.0.0/16": "", "127.0.0.0/16": "InvalidVpc.Range", "224.0.0.0/16": "InvalidVpc.Range",
		"": "InvalidParameterValue", "10.0.0.0": "InvalidParameterValue", "10.0.0/16": "InvalidParameterValue", "fd00::/64": "InvalidParameterValue",
		"10.0.0.0/33": "InvalidParameterValue", "::ffff:10.0.0.0/112": "InvalidParameterValue",
	} {
		p, err := ParseCIDR(in)
		if err == nil {
			err = CheckVPCCIDR(p)
		}
		if got := code(err); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestCheckSubnetCIDR(t *testing.T) {
	t.Parallel()
	v := &VPC{CIDR: pfx("10.0.0.0/16")}
	others := []*Subnet{{CIDR: pfx("10.0.1.0/24")}, {CIDR: pfx("10.0.64.0/18")}}
	for in, want := range map[string]string{
		"10.0.0.0/24": "", "10.0.2.0/28": "", "10.0.0.0/29": "InvalidSubnet.Range", "10.1.0.0/24": "InvalidSubnet.Range",
		"10.0.1.128/25": "InvalidSubnet.Conflict", "10.0.0.0/16": "InvalidSubnet.Conflict", "10.0.127.0/24": "InvalidSubnet.Conflict", "10.0.128.0/24": "",
		"10.0.0.0/15": "InvalidSubnet.Range",
	} {
		if got := code(CheckSubnetCIDR(v, pfx(in), others)); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	n := &Subnet{ID: "subnet-x", CIDR: pfx("10.0.1.16/28")}
	if got := Usable(n); got != 11 {
		t.Errorf("usable = %d, want 11", got)
	}
	taken := map[netip.Addr]bool{}
	is := func(a netip.Addr) bool { return taken[a] }
	var got []string
	for {
		a, err := FreeAddress(n.ID, n.CIDR, is)
		if err != nil {
			if code(err) != "InsufficientFreeAddressesInSubnet" {
				t.Errorf("full: %v", err)
			}
			break
		}
		taken[a] = true
		got = append(got, a.String())
	}
	want := make([]string, 0, 11)
	for i := 20; i <= 30; i++ {
		want = append(want, fmt.Sprintf("10.0.1.%d", i))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("addresses (-want +got):\n%s", d)
	}
	delete(taken, netip.MustParseAddr("10.0.1.25"))
	if a, err := FreeAddress(n.ID, n.CIDR, is); err != nil || a.String() != "10.0.1.25" {
		t.Errorf("freed address: %v, %v", a, err)
	}
	for in, want := range map[string]string{
		"10.0.1.25": "", "10.0.1.16": "InvalidParameterValue", "10.0.1.19": "InvalidParameterValue", "10.0.1.31": "InvalidParameterValue",
		"10.0.1.20": "InvalidIPAddress.InUse", "10.0.1.32": "InvalidParameterValue", "fd00::1": "InvalidParameterValue",
	} {
		if got := code(CheckAddress(n.CIDR, netip.MustParseAddr(in), is)); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

func TestIPv6Addresses(t *testing.T) {
	t.Parallel()
	n := &Subnet{ID: "subnet-x", IPv6: pfx("fd00:77:0:1::/64")}
	if got := Usable(n); got != 0 || !n.Native() {
		t.Errorf("an IPv6-only subnet has %d IPv4 addresses, native %t", got, n.Native())
	}
	taken := map[netip.Addr]bool{netip.MustParseAddr("fd00:77:0:1::4"): true, netip.MustParseAddr("fd00:77:0:1::6"): true}
	is := func(a netip.Addr) bool { return taken[a] }
	for _, want := range []string{"fd00:77:0:1::5", "fd00:77:0:1::7"} {
		a, err := FreeAddress(n.ID, n.IPv6, is)
		if err != nil || a.String() != want {
			t.Errorf("free address: %v (%v), want %s", a, err, want)
		}
		taken[a] = true
	}
	for in, want := range map[string]string{
		"fd00:77:0:1::9": "", "fd00:77:0:1::": "InvalidParameterValue", "fd00:77:0:1::3": "InvalidParameterValue", "fd00:77:0:1::4": "InvalidIPAddress.InUse",
		"fd00:77:0:1:ffff:ffff:ffff:ffff": "InvalidParameterValue", "fd00:77:0:1:ffff:ffff:ffff:fffe": "", "fd00:77:0:2::9": "InvalidParameterValue", "10.0.1.9": "InvalidParameterValue",
	} {
		if got := code(CheckAddress(n.IPv6, netip.MustParseAddr(in), is)); got != want {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

func TestBlocksOfVPCs(t *testing.T) {
	t.Parallel()
	v := &VPC{ID: "vpc-1", CIDR: pfx("10.0.0.0/16"), Secondary: []CIDRBlock{{CIDR: pfx("10.9.0.0/24")}}, IPv6: []CIDRBlock{{CIDR: pfx("fd00:77::/56")}}}
	for in, want := range map[string]string{
		"10.1.0.0/16": "", "100.64.0.0/16": "", "8.8.0.0/16": "", "10.9.0.0/16": "InvalidVpc.Range", "10.0.128.0/24": "InvalidVpc.Range",
		"172.16.0.0/16": "InvalidVpc.Range", "192.168.0.0/16": "InvalidVpc.Range", "198.19.0.0/20": "InvalidVpc.Range", "10.2.0.0/15": "InvalidVpc.Range", "10.2.0.0/29": "InvalidVpc.Range",
	} {
		if got := code(CheckSecondaryCIDR(v, pfx(in))); got != want {
			t.Errorf("second block %s: got %q, want %q", in, got, want)
		}
	}
	full := *v
	full.Secondary = make([]CIDRBlock, BlocksPerVPC-1)
	if got := code(CheckSecondaryCIDR(&full, pfx("10.1.0.0/16"))); got != "CidrLimitExceeded" {
		t.Errorf("sixth block: got %q", got)
	}
	public := &VPC{CIDR: pfx("100.64.0.0/16")}
	if got := code(CheckSecondaryCIDR(public, pfx("10.1.0.0/16"))); got != "InvalidVpc.Range" {
		t.Errorf("private block beside a public one: got %q", got)
	}
	for in, want := range map[string]string{
		"2001:db8::/56": "", "fd12::/48": "", "fd12::/60": "", "fd12::/58": "InvalidVpc.Range", "fd12::/64": "InvalidVpc.Range", "fd12::/40": "InvalidVpc.Range",
		"fe80::/56": "InvalidVpc.Range", "ff00::/48": "InvalidVpc.Range", "fd00:77::/60": "InvalidVpc.Range", "fd00:77::/48": "InvalidVpc.Range",
	} {
		if got := code(CheckVPCIPv6(pfx(in), []*VPC{v})); got != want {
			t.Errorf("IPv6 block %s: got %q, want %q", in, got, want)
		}
	}
	others := []*Subnet{{CIDR: pfx("10.0.1.0/24"), IPv6: pfx("fd00:77:0:1::/64")}}
	for in, want := range map[string]string{"10.0.2.0/24": "", "10.9.0.0/25": "", "10.0.1.128/25": "InvalidSubnet.Conflict", "10.1.0.0/24": "InvalidSubnet.Range", "10.0.2.0/29": "InvalidSubnet.Range"} {
		if got := code(CheckSubnetCIDR(v, pfx(in), others)); got != want {
			t.Errorf("subnet %s: got %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{
		"fd00:77:0:2::/64": "", "fd00:77:0:10::/60": "", "fd00:77:0:1::/64": "InvalidSubnet.Conflict", "fd00:77::/60": "InvalidSubnet.Conflict",
		"fd00:78::/64": "InvalidSubnet.Range", "fd00:77::/52": "InvalidSubnet.Range", "fd00:77:0:2::/65": "InvalidSubnet.Range", "fd00:77:0:2::/66": "InvalidSubnet.Range",
	} {
		if got := code(CheckSubnetIPv6(v, pfx(in), others)); got != want {
			t.Errorf("IPv6 subnet %s: got %q, want %q", in, got, want)
		}
	}
	if got := code(CheckSubnetIPv6(&VPC{CIDR: pfx("10.0.0.0/16")}, pfx("fd00:77::/64"), nil)); got != "InvalidSubnet.Range" {
		t.Errorf("IPv6 subnet of an IPv4 VPC: got %q", got)
	}
}

func TestAmazonBlocks(t *testing.T) {
	t.Parallel()
	var vpcs []*VPC
	seen := map[netip.Prefix]bool{}
	for range 256 {
		b, err := AmazonBlock("123456789012", vpcs)
		if err != nil {
			t.Fatal(err)
		}
		if b.Bits() != 56 || !pfx("fd00::/8").Contains(b.Addr()) || seen[b] {
			t.Fatalf("block %s", b)
		}
		seen[b] = true
		vpcs = append(vpcs, &VPC{IPv6: []CIDRBlock{{CIDR: b}}})
	}
	if _, err := AmazonBlock("123456789012", vpcs); code(err) != "AddressLimitExceeded" {
		t.Errorf("block 257: %v", err)
	}
	mine, _ := AmazonBlock("123456789012", nil)
	again, _ := AmazonBlock("123456789012", nil)
	other, _ := AmazonBlock("123456789013", nil)
	if mine != again || netip.PrefixFrom(mine.Addr(), 48).Masked() == netip.PrefixFrom(other.Addr(), 48).Masked() {
		t.Errorf("blocks of accounts: %s, %s, another's %s", mine, again, other)
	}
}

func TestIPAddressTypes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		t, wantT IPAddressType
		r, wantR DNSRecordType
		code     string
	}{
		{"", "ipv4", "", "ipv4", ""},
		{"ipv6", "ipv6", "", "ipv6", ""},
		{"dualstack", "dualstack", "", "dualstack", ""},
		{"dualstack", "dualstack", "ipv6", "ipv6", ""},
		{"ipv4", "ipv4", "service-defined", "service-defined", ""},
		{"ipv4", "ipv4", "ipv6", "ipv6", "InvalidParameter"},
		{"ipv6", "ipv6", "dualstack", "dualstack", "InvalidParameter"},
		{"ipv5", "ipv5", "", "", "InvalidParameter"},
		{"", "ipv4", "cname", "cname", "InvalidParameter"},
	} {
		a, r, err := CheckIPAddressTypes(tt.t, tt.r)
		if a != tt.wantT || r != tt.wantR || code(err) != tt.code {
			t.Errorf("%q %q: got %q %q %q", tt.t, tt.r, a, r, code(err))
		}
	}
	four, six, both := &Subnet{CIDR: pfx("10.0.1.0/24")}, &Subnet{IPv6: pfx("fd00::/64")}, &Subnet{CIDR: pfx("10.0.1.0/24"), IPv6: pfx("fd00::/64")}
	for a, want := range map[IPAddressType][3]bool{AddressIPv4: {true, false, true}, AddressIPv6: {false, true, false}, AddressDual: {false, false, true}} {
		for i, n := range []*Subnet{four, six, both} {
			if err := a.Fits(n); (err == nil) != want[i] {
				t.Errorf("%s in subnet %d: %v", a, i, err)
			}
		}
	}
}

func TestNormalizeTraffic(t *testing.T) {
	t.Parallel()
	tests := []struct {
		protocol string
		from, to *int
		p        Protocol
		r        PortRange
		code     string
	}{
		{"tcp", new(443), new(443), TCP, PortRange{443, 443}, ""},
		{"6", new(1400), new(1499), TCP, PortRange{1400, 1499}, ""},
		{"TCP", new(0), new(65535), TCP, PortRange{0, 65535}, ""},
		{"-1", new(0), new(0), AllProtocols, AllPorts, ""},
		{"-1", nil, nil, AllProtocols, AllPorts, ""},
		{"all", new(22), new(80), AllProtocols, AllPorts, ""},
		{"icmp", new(-1), new(-1), ICMP, AllPorts, ""},
		{"icmp", new(8), nil, ICMP, PortRange{8, -1}, ""},
		{"58", nil, nil, ICMPv6, AllPorts, ""},
		{"50", nil, nil, 50, AllPorts, ""},
		{"tcp", new(443), nil, 0, PortRange{}, "InvalidParameterValue"},
		{"tcp", nil, nil, 0, PortRange{}, "InvalidParameterValue"},
		{"tcp", new(2), new(1), 0, PortRange{}, "InvalidParameterValue"},
		{"udp", new(-1), new(-1), 0, PortRange{}, "InvalidParameterValue"},
		{"tcp", new(1), new(65536), 0, PortRange{}, "InvalidParameterValue"},
		{"icmp", new(256), new(0), 0, PortRange{}, "InvalidParameterValue"},
		{"", nil, nil, 0, PortRange{}, "MissingParameter"},
		{"256", nil, nil, 0, PortRange{}, "InvalidParameterValue"},
		{"-2", nil, nil, 0, PortRange{}, "InvalidParameterValue"},
		{"sctp", nil, nil, 0, PortRange{}, "InvalidParameterValue"},
	}
	for _, tt := range tests {
		p, r, err := NormalizeTraffic(tt.protocol, tt.from, tt.to)
		if p != tt.p || r != tt.r || code(err) != tt.code {
			t.Errorf("%q: got %v %v %q, want %v %v %q", tt.protocol, p, r, code(err), tt.p, tt.r, tt.code)
		}
	}
}

func noLists(PrefixListID) *PrefixList { return nil }

// TestPrefixListsCountByTheirSize: a rule that names a list costs what the list may hold, in the list's family alone.
func TestPrefixListsCountByTheirSize(t *testing.T) {
	t.Parallel()
	all := map[PrefixListID]*PrefixList{
		"pl-4": {ID: "pl-4", AddressFamily: FamilyIPv4, MaxEntries: 50}, "pl-6": {ID: "pl-6", AddressFamily: FamilyIPv6, MaxEntries: 60},
		"pl-big": {ID: "pl-big", AddressFamily: FamilyIPv4, MaxEntries: 61},
	}
	lists := func(id PrefixListID) *PrefixList { return all[id] }
	rule := func(port int, p Peer) SecurityGroupRule {
		return SecurityGroupRule{Protocol: TCP, Ports: PortRange{port, port}, Peer: p}
	}
	g := &SecurityGroup{}
	if got := code(g.Add([]SecurityGroupRule{rule(1, Peer{PrefixList: "pl-big"})}, lists, RulesPerGroup)); got != "RulesPerSecurityGroupLimitExceeded" {
		t.Errorf("a list of 61: got %q", got)
	}
	if err := g.Add([]SecurityGroupRule{rule(1, Peer{PrefixList: "pl-4"}), rule(1, Peer{PrefixList: "pl-6"})}, lists, RulesPerGroup); err != nil {
		t.Fatal(err)
	}
	for n := range 10 {
		if err := g.Add([]SecurityGroupRule{rule(n, Peer{CIDR: pfx("10.0.0.0/8")})}, lists, RulesPerGroup); err != nil {
			t.Fatal(err)
		}
	}
	if got := code(g.Add([]SecurityGroupRule{rule(11, Peer{CIDR: pfx("10.0.0.0/8")})}, lists, RulesPerGroup)); got != "RulesPerSecurityGroupLimitExceeded" {
		t.Errorf("after a list of 50 and 10 rules: got %q", got)
	}
	if got := code(g.Add([]SecurityGroupRule{rule(11, Peer{CIDR: pfx("fd00::/8")})}, lists, RulesPerGroup)); got != "RulesPerSecurityGroupLimitExceeded" {
		t.Errorf("IPv6 after a list of 60: got %q", got)
	}
	if got := code(g.Add([]SecurityGroupRule{rule(1, Peer{PrefixList: "pl-4"})}, lists, RulesPerGroup)); got != "InvalidPermission.Duplicate" {
		t.Errorf("the same list: got %q", got)
	}
	all["pl-4"].MaxEntries++ // as a change of the list does it
	if got := code(g.CheckQuota(lists, RulesPerGroup)); got != "RulesPerSecurityGroupLimitExceeded" {
		t.Errorf("a list that grew: got %q", got)
	}
	table := &RouteTable{Routes: []Route{{CIDR: pfx("10.0.0.0/8")}, {PrefixList: "pl-4"}}}
	if n := table.Count(lists); n != 52 {
		t.Errorf("routes count %d, want 52", n)
	}
}

func TestRanges(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		in   []string
		want string
	}{
		{"none", nil, "[]"},
		{"one address", []string{"10.0.0.1/32"}, "[10.0.0.1-10.0.0.1]"},
		{"neighbours", []string{"10.0.1.0/24", "10.0.0.0/24"}, "[10.0.0.0-10.0.1.255]"},
		{"one in another", []string{"10.0.0.0/8", "10.9.0.0/16", "11.0.0.0/32"}, "[10.0.0.0-11.0.0.0]"},
		{"apart", []string{"10.0.0.0/24", "10.0.2.0/24"}, "[10.0.0.0-10.0.0.255 10.0.2.0-10.0.2.255]"},
		{"all there is", []string{"0.0.0.0/0", "255.255.255.255/32"}, "[0.0.0.0-255.255.255.255]"},
		{"halves", []string{"128.0.0.0/1", "0.0.0.0/1"}, "[0.0.0.0-255.255.255.255]"},
		{"IPv6", []string{"fd00::/8", "fe00::/8", "::1/128"}, "[::1-::1 fd00::-feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]"},
	} {
		var in []netip.Prefix
		for _, p := range tt.in {
			in = append(in, pfx(p))
		}
		if got := fmt.Sprint(rangesOf(in)); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestSecurityGroupAdd(t *testing.T) {
	t.Parallel()
	rule := func(port int, cidr string) SecurityGroupRule {
		return SecurityGroupRule{Protocol: TCP, Ports: PortRange{port, port}, Peer: Peer{CIDR: pfx(cidr)}}
	}
	g := &SecurityGroup{}
	if err := g.Add([]SecurityGroupRule{rule(443, "10.0.0.0/8"), rule(443, "11.0.0.0/8"), rule(80, "10.0.0.0/8")}, noLists, RulesPerGroup); err != nil {
		t.Fatal(err)
	}
	again := rule(443, "10.0.0.0/8")
	again.Description = "a description makes no other rule"
	if got := code(g.Add([]SecurityGroupRule{rule(1, "1.0.0.0/8"), again}, noLists, RulesPerGroup)); got != "InvalidPermission.Duplicate" {
		t.Errorf("duplicate: got %q", got)
	}
	if got := code(g.Add([]SecurityGroupRule{rule(2, "1.0.0.0/8"), rule(2, "1.0.0.0/8")}, noLists, RulesPerGroup)); got != "InvalidPermission.Duplicate" {
		t.Errorf("twice in one call: got %q", got)
	}
	if len(g.Rules) != 3 {
		t.Errorf("a refused call left %d rules, want 3", len(g.Rules))
	}
	p := g.Permissions(false)
	if len(p) != 2 || len(p[0].Rules) != 2 || len(p[1].Rules) != 1 || len(g.Permissions(true)) != 0 {
		t.Errorf("permissions: %+v", p)
	}

	full := &SecurityGroup{}
	for n := range RulesPerGroup {
		if err := full.Add([]SecurityGroupRule{rule(n, "10.0.0.0/8")}, noLists, RulesPerGroup); err != nil {
			t.Fatal(err)
		}
	}
	if got := code(full.Add([]SecurityGroupRule{rule(999, "10.0.0.0/8")}, noLists, RulesPerGroup)); got != "RulesPerSecurityGroupLimitExceeded" {
		t.Errorf("rule 61: got %q", got)
	}
	out := rule(999, "10.0.0.0/8")
	out.Egress = true
	if err := full.Add([]SecurityGroupRule{out, rule(999, "fd00::/8")}, noLists, RulesPerGroup); err != nil {
		t.Errorf("other direction and family: %v", err)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"web": "", "a b._-:/()#,@[]+=&;{}!$*": "", "": "MissingParameter", "sg-web": "InvalidParameterValue", "wéb": "InvalidParameterValue",
		"a\nb": "InvalidParameterValue", strings.Repeat("x", 255): "", strings.Repeat("x", 256): "InvalidParameterValue", "a~b": "InvalidParameterValue",
	} {
		if got := code(CheckGroupName(in)); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestNetworkACLEntries(t *testing.T) {
	t.Parallel()
	a := &NetworkACL{ID: "acl-x"}
	entry := func(n int, egress bool) NetworkACLEntry {
		return NetworkACLEntry{Number: n, Egress: egress, Allow: true, Protocol: AllProtocols, CIDR: pfx("0.0.0.0/0"), Ports: AllPorts}
	}
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"number 0", a.Add(entry(0, false), ACLEntriesPerDirection), "InvalidParameterValue"},
		{"the fixed number", a.Add(entry(32767, false), ACLEntriesPerDirection), "InvalidParameterValue"},
		{"highest", a.Add(entry(32766, false), ACLEntriesPerDirection), ""},
		{"first", a.Add(entry(100, false), ACLEntriesPerDirection), ""},
		{"same number, other direction", a.Add(entry(100, true), ACLEntriesPerDirection), ""},
		{"same number again", a.Add(entry(100, true), ACLEntriesPerDirection), "NetworkAclEntryAlreadyExists"},
		{"replace", a.Replace(entry(100, true)), ""},
		{"replace nothing", a.Replace(entry(101, true)), "InvalidNetworkAclEntry.NotFound"},
		{"remove", a.Remove(100, true), ""},
		{"remove nothing", a.Remove(100, true), "InvalidNetworkAclEntry.NotFound"},
		{"no block", a.Add(NetworkACLEntry{Number: 5, Protocol: AllProtocols}, ACLEntriesPerDirection), "MissingParameter"},
		{"ports turned round", a.Add(NetworkACLEntry{Number: 5, Protocol: TCP, CIDR: pfx("0.0.0.0/0"), Ports: PortRange{5, 4}}, ACLEntriesPerDirection), "InvalidParameterValue"},
	} {
		if got := code(tt.err); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	var numbers []int
	for _, e := range a.Entries {
		numbers = append(numbers, e.Number)
	}
	if d := cmp.Diff([]int{100, 32766}, numbers); d != "" {
		t.Errorf("entries (-want +got):\n%s", d)
	}
	for n := range 30 {
		err := a.Add(entry(n+1, false), ACLEntriesPerDirection)
		if n < 18 && err != nil || n >= 18 && code(err) != "NetworkAclEntryLimitExceeded" {
			t.Fatalf("entry %d: %v", n+3, err)
		}
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	id := FormatID(PrefixVPC, [8]byte{0xab, 1, 2, 3, 4, 5, 6, 0xff})
	if id != "vpc-0ab010203040506ff" || !ValidID(PrefixVPC, id) {
		t.Errorf("id = %s", id)
	}
	for in, want := range map[SecurityGroupID]string{
		"sg-0123456789abcdef0": "", "sg-12345678": "", "sg-0123456789ABCDEF0": "InvalidGroupId.Malformed", "sg-": "InvalidGroupId.Malformed",
		"vpc-0123456789abcdef0": "InvalidGroupId.Malformed", "sg-0123456789abcdef": "InvalidGroupId.Malformed", "": "InvalidGroupId.Malformed",
	} {
		if got := code(CheckID(in)); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if got := code(NotFound(EndpointID("vpce-1"))); got != "InvalidVpcEndpointId.NotFound" {
		t.Errorf("code = %q", got)
	}
}

func TestDNSEntries(t *testing.T) {
	t.Parallel()
	s, ok := FindService("eu-central-1", "com.amazonaws.eu-central-1.appstream.streaming")
	if !ok {
		t.Fatal("no streaming service")
	}
	if _, ok := FindService("eu-central-1", "com.amazonaws.us-east-1.appstream.streaming"); ok {
		t.Error("another region's service was found")
	}
	e := &Endpoint{ID: "vpce-0123456789abcdef0", DNSSuffix: "abcd1234", PrivateDNS: true}
	var got []string
	for _, d := range DNSEntries(e, s, []string{"eu-central-1a", "eu-central-1b"}) {
		got = append(got, d.Name)
		if d.HostedZone == "" {
			t.Errorf("%s has no hosted zone", d.Name)
		}
	}
	want := []string{
		"vpce-0123456789abcdef0-abcd1234.streaming.appstream.eu-central-1.vpce.amazonaws.com",
		"vpce-0123456789abcdef0-abcd1234-eu-central-1a.streaming.appstream.eu-central-1.vpce.amazonaws.com",
		"vpce-0123456789abcdef0-abcd1234-eu-central-1b.streaming.appstream.eu-central-1.vpce.amazonaws.com",
		"*.streaming.eu-central-1.appstream2.amazonappstream.com",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("names (-want +got):\n%s", d)
	}
	if got := DNSEntries(&Endpoint{ID: "vpce-0123456789abcdef0", DNSSuffix: "x"}, s, []string{"eu-central-1a"}); len(got) != 1 {
		t.Errorf("one zone: %v", got)
	}
	if z := Zones("ap-southeast-2"); z[1] != (Zone{"ap-southeast-2b", "apse2-az2"}) {
		t.Errorf("zone = %v", z[1])
	}
}
