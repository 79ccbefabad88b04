package network_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/control/network"
	"penstock.dev/penstock/internal/sqlite"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// limited is a service with small quotas that nothing runs, on the store.
func limited(store state.Store, l network.Limits) *network.Service {
	return network.New(network.Config{Store: store, Region: region, AccountID: account, Limits: l})
}

// TestQuotas: up to each quota and no further, with EC2's code; also by many at the same time.
func TestQuotas(t *testing.T) {
	t.Parallel()
	const callers = 12
	type site struct {
		*network.Service
		vpc   *vpc.VPC
		sub   *network.Subnet
		group *vpc.SecurityGroup
		acl   *vpc.NetworkACL
		table network.RouteTable
		path  *vpc.InsightsPath
	}
	for _, tt := range []struct {
		name, code string
		limits     network.Limits
		room       int // how many more fit into the site below
		one        func(s *site, n int) error
	}{
		{"VPCs", "VpcLimitExceeded", network.Limits{VPCs: 4}, 3, func(s *site, n int) error {
			_, err := s.CreateVPC(t.Context(), fmt.Sprintf("10.%d.0.0/16", 100+n), "", nil)
			return err
		}},
		{"subnets", "SubnetLimitExceeded", network.Limits{SubnetsPerVPC: 4}, 3, func(s *site, n int) error {
			_, err := s.CreateSubnet(t.Context(), s.vpc.ID, fmt.Sprintf("10.1.%d.0/24", 100+n), "", nil)
			return err
		}},
		{"groups", "SecurityGroupLimitExceeded", network.Limits{SecurityGroups: 5}, 3, func(s *site, n int) error {
			_, err := s.CreateSecurityGroup(t.Context(), s.vpc.ID, fmt.Sprint("g", n), "d", nil)
			return err
		}},
		{"rules", "RulesPerSecurityGroupLimitExceeded", network.Limits{RulesPerGroup: 3}, 3, func(s *site, n int) error {
			port := 1000 + n
			_, _, err := s.Authorize(t.Context(), network.GroupRef{ID: s.group.ID}, false, []network.RuleRequest{{Protocol: "tcp", From: &port, To: &port, CIDR: "10.0.0.0/8"}}, nil)
			return err
		}},
		{"network ACLs", "NetworkAclLimitExceeded", network.Limits{NetworkACLsPerVPC: 5}, 3, func(s *site, _ int) error {
			_, err := s.CreateNetworkACL(t.Context(), s.vpc.ID, nil, "")
			return err
		}},
		{"ACL entries", "NetworkAclEntryLimitExceeded", network.Limits{EntriesPerNetworkACL: 3}, 3, func(s *site, n int) error {
			return s.CreateNetworkACLEntry(t.Context(), s.acl.ID, vpc.NetworkACLEntry{Number: 1 + n, Protocol: vpc.AllProtocols, CIDR: netip.MustParsePrefix("0.0.0.0/0"), Ports: vpc.AllPorts})
		}},
		{"route tables", "RouteTableLimitExceeded", network.Limits{RouteTablesPerVPC: 5}, 3, func(s *site, _ int) error {
			_, err := s.CreateRouteTable(t.Context(), s.vpc.ID, nil, "")
			return err
		}},
		{"routes", "RouteLimitExceeded", network.Limits{RoutesPerTable: 3}, 3, func(s *site, n int) error {
			return s.CreateRoute(t.Context(), s.table.ID, vpc.Route{CIDR: netip.MustParsePrefix(fmt.Sprintf("192.168.%d.0/24", n)), Gateway: s.vpc.Gateway})
		}},
		{"endpoints", "VpcEndpointLimitExceeded", network.Limits{EndpointsPerVPC: 3}, 3, func(s *site, _ int) error {
			_, err := s.CreateVPCEndpoint(t.Context(), network.CreateEndpoint{VPC: s.vpc.ID, Service: streaming, Type: vpc.EndpointInterface, Subnets: []vpc.SubnetID{s.sub.ID}})
			return err
		}},
		{"addresses", "InsufficientFreeAddressesInSubnet", network.Limits{}, 11, func(s *site, _ int) error {
			_, err := s.CreateVPCEndpoint(t.Context(), network.CreateEndpoint{VPC: s.vpc.ID, Service: streaming, Type: vpc.EndpointInterface, Subnets: []vpc.SubnetID{s.sub.ID}})
			return err
		}},
		{"prefix lists", "PrefixListLimitExceeded", network.Limits{PrefixLists: 3}, 3, func(s *site, n int) error {
			_, err := s.CreatePrefixList(t.Context(), network.CreatePrefixList{Name: fmt.Sprint("l", n), AddressFamily: "IPv4", MaxEntries: 1}, "")
			return err
		}},
		{"paths", "NetworkInsightsPathLimitExceeded", network.Limits{NetworkInsightsPaths: 4}, 3, func(s *site, _ int) error {
			_, err := s.CreateInsightsPath(t.Context(), network.CreateInsightsPath{Source: string(s.vpc.Gateway), DestinationIP: "10.1.1.4", Protocol: "tcp"}, "")
			return err
		}},
		{"analyses", "NetworkInsightsAnalysisLimitExceeded", network.Limits{NetworkInsightsAnalyses: 3}, 3, func(s *site, _ int) error {
			_, err := s.StartInsightsAnalysis(t.Context(), s.path.ID, nil, nil, nil, "")
			return err
		}},
		{"tags", "TagLimitExceeded", network.Limits{TagsPerResource: 3}, 3, func(s *site, n int) error {
			return s.CreateTags(t.Context(), []string{string(s.vpc.ID)}, vpc.Tags{fmt.Sprint("k", n): "v"})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			s := &site{Service: limited(openStore(t), tt.limits)}
			s.vpc = must[*vpc.VPC](t)(s.CreateVPC(ctx, "10.1.0.0/16", "", nil))
			s.sub = must[*network.Subnet](t)(s.CreateSubnet(ctx, s.vpc.ID, "10.1.1.0/28", "", nil))
			s.group = must[*vpc.SecurityGroup](t)(s.CreateSecurityGroup(ctx, s.vpc.ID, "g", "d", nil))
			s.acl = must[*vpc.NetworkACL](t)(s.CreateNetworkACL(ctx, s.vpc.ID, nil, ""))
			s.table = must[network.RouteTable](t)(s.CreateRouteTable(ctx, s.vpc.ID, nil, ""))
			s.path = must[*vpc.InsightsPath](t)(s.CreateInsightsPath(ctx, network.CreateInsightsPath{Source: string(s.vpc.Gateway), DestinationIP: "10.1.1.4", Protocol: "tcp"}, ""))
			var made, refused atomic.Int64
			var wg sync.WaitGroup
			for n := range callers {
				wg.Go(func() {
					switch err := tt.one(s, n); code(err) {
					case "":
						made.Add(1)
					case tt.code:
						refused.Add(1)
					default:
						t.Errorf("got %v, want %s", err, tt.code)
					}
				})
			}
			wg.Wait()
			if made.Load() != int64(tt.room) || refused.Load() != int64(callers-tt.room) {
				t.Errorf("%d made and %d refused, want %d and %d", made.Load(), refused.Load(), tt.room, callers-tt.room)
			}
			addresses := map[netip.Addr]bool{}
			for _, i := range must[[]*vpc.NetworkInterface](t)(s.DescribeNetworkInterfaces(ctx, nil)) {
				if addresses[i.Addr] {
					t.Errorf("%s was given twice", i.Addr)
				}
				addresses[i.Addr] = true
			}
		})
	}
}

func TestGroupsPerInterface(t *testing.T) {
	t.Parallel()
	s, ctx := limited(openStore(t), network.Limits{GroupsPerInterface: 2}), t.Context()
	v := must[*vpc.VPC](t)(s.CreateVPC(ctx, "10.1.0.0/16", "", nil))
	var groups []vpc.SecurityGroupID
	for n := range 3 {
		groups = append(groups, must[*vpc.SecurityGroup](t)(s.CreateSecurityGroup(ctx, v.ID, fmt.Sprint("g", n), "d", nil)).ID)
	}
	create := func(groups ...vpc.SecurityGroupID) (*vpc.Endpoint, error) {
		return s.CreateVPCEndpoint(ctx, network.CreateEndpoint{VPC: v.ID, Service: streaming, Type: vpc.EndpointInterface, Groups: groups})
	}
	if _, err := create(groups...); code(err) != "SecurityGroupsPerInterfaceLimitExceeded" {
		t.Errorf("three of two: %v", err)
	}
	e := must[*vpc.Endpoint](t)(create(groups[:2]...))
	if err := s.ModifyVPCEndpoint(ctx, network.ModifyEndpoint{ID: e.ID, AddGroups: groups[2:]}); code(err) != "SecurityGroupsPerInterfaceLimitExceeded" {
		t.Errorf("one more: %v", err)
	}
	if err := s.ModifyVPCEndpoint(ctx, network.ModifyEndpoint{ID: e.ID, AddGroups: groups[2:], RemoveGroups: groups[:1]}); err != nil {
		t.Errorf("one for another: %v", err)
	}
}

// TestClientTokens: a repeat answers what the first call made, also by another process later; other parameters are a mismatch;
// what is gone can be made again.
func TestClientTokens(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/state.db"
	ctx := t.Context()
	open := func() (*sqlite.Store, *network.Service) {
		store, err := sqlite.Open(ctx, sqlite.Options{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		s := limited(store, network.Limits{})
		if err := s.Recover(ctx); err != nil {
			t.Fatal(err)
		}
		return store, s
	}
	store, s := open()
	v := must[*vpc.VPC](t)(s.CreateVPC(ctx, "10.1.0.0/16", "", nil))
	other := vpc.Tags{"other": "parameters"}
	makers := map[string]func(*network.Service, vpc.Tags) (string, error){
		"ACL": func(s *network.Service, tags vpc.Tags) (string, error) {
			a, err := s.CreateNetworkACL(ctx, v.ID, tags, "token")
			if err != nil {
				return "", err
			}
			return string(a.ID), nil
		},
		"route table": func(s *network.Service, tags vpc.Tags) (string, error) {
			r, err := s.CreateRouteTable(ctx, v.ID, tags, "token")
			if err != nil {
				return "", err
			}
			return string(r.ID), nil
		},
		"endpoint": func(s *network.Service, tags vpc.Tags) (string, error) {
			e, err := s.CreateVPCEndpoint(ctx, network.CreateEndpoint{VPC: v.ID, Service: streaming, Type: vpc.EndpointInterface, Tags: tags, ClientToken: "token"})
			if err != nil {
				return "", err
			}
			return string(e.ID), nil
		},
		"prefix list": func(s *network.Service, tags vpc.Tags) (string, error) {
			l, err := s.CreatePrefixList(ctx, network.CreatePrefixList{Name: "l", AddressFamily: "IPv4", MaxEntries: 1, Tags: tags}, "token")
			if err != nil {
				return "", err
			}
			return string(l.ID), nil
		},
		"path": func(s *network.Service, tags vpc.Tags) (string, error) {
			p, err := s.CreateInsightsPath(ctx, network.CreateInsightsPath{Source: string(v.Gateway), DestinationIP: "10.1.0.4", Protocol: "tcp", Tags: tags}, "token")
			if err != nil {
				return "", err
			}
			return string(p.ID), nil
		},
	}
	first := map[string]string{}
	for name, create := range makers {
		first[name] = must[string](t)(create(s, nil))
	}
	analysis := must[*vpc.InsightsAnalysis](t)(s.StartInsightsAnalysis(ctx, vpc.InsightsPathID(first["path"]), nil, nil, nil, "token"))
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	store, s = open()
	defer store.Close()
	for name, create := range makers {
		if again := must[string](t)(create(s, nil)); again != first[name] {
			t.Errorf("%s: %s, then %s", name, first[name], again)
		}
		if _, err := create(s, other); code(err) != "IdempotentParameterMismatch" {
			t.Errorf("%s with other parameters: %v", name, err)
		}
	}
	again := must[*vpc.InsightsAnalysis](t)(s.StartInsightsAnalysis(ctx, vpc.InsightsPathID(first["path"]), nil, nil, nil, "token"))
	if again.ID != analysis.ID || again.Status != vpc.AnalysisSucceeded || len(again.Explanations) == 0 {
		t.Errorf("analysis %s, then %+v", analysis.ID, again)
	}
	if err := s.DeleteNetworkACL(ctx, vpc.NetworkACLID(first["ACL"])); err != nil {
		t.Fatal(err)
	}
	if made := must[string](t)(makers["ACL"](s, other)); made == first["ACL"] {
		t.Error("a deleted ACL was answered")
	}
	if _, err := s.CreateNetworkACL(ctx, v.ID, nil, string(make([]byte, 65))); code(err) != "InvalidParameterValue" {
		t.Errorf("a long token: %v", err)
	}
}

// TestInterruptedAnalysis: an analysis that a crash cut short is failed after the next start.
func TestInterruptedAnalysis(t *testing.T) {
	t.Parallel()
	store, ctx := openStore(t), t.Context()
	if _, err := store.Update(ctx, func(tx state.Tx) error {
		return vpc.InsightsAnalyses().Put(tx, &vpc.InsightsAnalysis{ID: "nia-00000000000000001", Path: "nip-00000000000000001", Status: vpc.AnalysisRunning})
	}); err != nil {
		t.Fatal(err)
	}
	s := limited(store, network.Limits{})
	if err := s.Recover(ctx); err != nil {
		t.Fatal(err)
	}
	a := must[[]*vpc.InsightsAnalysis](t)(s.DescribeInsightsAnalyses(ctx, nil, ""))[0]
	if a.Status != vpc.AnalysisFailed || a.Message == "" {
		t.Errorf("got %+v", a)
	}
}

// TestBlocksAndAddresses draws VPCs, subnets and endpoints at random and compares what is taken with a plain model: every
// address of the VPC and who has it.
func TestBlocksAndAddresses(t *testing.T) {
	t.Parallel()
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 21))
			s, ctx := limited(openStore(t), network.Limits{}), t.Context()
			bits := 22 + r.IntN(4)
			v := must[*vpc.VPC](t)(s.CreateVPC(ctx, fmt.Sprintf("10.7.%d.%d/%d", r.IntN(256), r.IntN(256), bits), "", nil)) // also with low bits set
			if v.CIDR != v.CIDR.Masked() {
				t.Fatalf("the block %s has low bits", v.CIDR)
			}
			owner := map[netip.Addr]vpc.SubnetID{}
			subnets := map[vpc.SubnetID]netip.Prefix{}
			made, refused := 0, 0
			for range 40 {
				p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 7, byte(r.IntN(256)), byte(r.IntN(256))}), bits-1+r.IntN(29-bits+2))
				if r.IntN(3) > 0 { // most inside the VPC
					a := v.CIDR.Addr().As4()
					low := r.IntN(1 << (32 - bits))
					p = netip.PrefixFrom(netip.AddrFrom4([4]byte{a[0], a[1], a[2] + byte(low>>8), a[3] | byte(low)}), p.Bits())
				}
				m := p.Masked()
				want := ""
				switch {
				case m.Bits() > 28 || m.Bits() < bits || !v.CIDR.Contains(m.Addr()):
					want = "InvalidSubnet.Range"
				default:
					for a := m.Addr(); m.Contains(a); a = a.Next() {
						if owner[a] != "" {
							want = "InvalidSubnet.Conflict"
						}
					}
				}
				n, err := s.CreateSubnet(ctx, v.ID, p.String(), "", nil)
				if code(err) != want {
					t.Fatalf("%s in %s: got %v, want %q", p, v.CIDR, err, want)
				}
				if err != nil {
					refused++
					continue
				}
				made++
				if n.CIDR != m || n.Free != 1<<(32-m.Bits())-5 {
					t.Fatalf("%s became %s with %d free", p, n.CIDR, n.Free)
				}
				subnets[n.ID] = m
				for a := m.Addr(); m.Contains(a); a = a.Next() {
					owner[a] = n.ID
				}
			}
			if made == 0 || refused == 0 {
				t.Logf("%d subnets made, %d refused", made, refused)
			}
			taken := map[netip.Addr]bool{}
			for range 30 {
				for id, m := range subnets {
					e, err := s.CreateVPCEndpoint(ctx, network.CreateEndpoint{VPC: v.ID, Service: streaming, Type: vpc.EndpointInterface, Subnets: []vpc.SubnetID{id}})
					if code(err) == "VpcEndpointLimitExceeded" || code(err) == "InsufficientFreeAddressesInSubnet" {
						continue
					} else if err != nil {
						t.Fatal(err)
					}
					addr := must[[]*vpc.NetworkInterface](t)(s.DescribeNetworkInterfaces(ctx, e.Interfaces))[0].Addr
					first, last := m.Addr(), m.Addr()
					for a := m.Addr(); m.Contains(a); a = a.Next() {
						last = a
					}
					reserved := []netip.Addr{first, first.Next(), first.Next().Next(), first.Next().Next().Next(), last}
					if taken[addr] || owner[addr] != id || slices.Contains(reserved, addr) {
						t.Fatalf("%s of %s: taken %t, reserved %v", addr, m, taken[addr], reserved)
					}
					taken[addr] = true
				}
			}
		})
	}
}

// TestRestartKeepsEverything: another service on the same store describes the same.
func TestRestartKeepsEverything(t *testing.T) {
	t.Parallel()
	store, ctx := openStore(t), t.Context()
	s := limited(store, network.Limits{})
	v := must[*vpc.VPC](t)(s.EnsureDefaultVPC(ctx))
	l := must[*vpc.PrefixList](t)(s.CreatePrefixList(ctx, network.CreatePrefixList{Name: "l", AddressFamily: "IPv4", MaxEntries: 2, Entries: []network.PrefixListEntry{{CIDR: "10.0.0.0/8"}}}, ""))
	if _, err := s.ModifyPrefixList(ctx, network.ModifyPrefixList{ID: l.ID, CurrentVersion: new(int64(1)), Remove: []string{"10.0.0.0/8"}}); err != nil {
		t.Fatal(err)
	}
	p := must[*vpc.InsightsPath](t)(s.CreateInsightsPath(ctx, network.CreateInsightsPath{Source: string(v.Gateway), DestinationIP: "172.31.0.9", Protocol: "tcp", Tags: vpc.Tags{"k": "v"}}, ""))
	must[*vpc.InsightsAnalysis](t)(s.StartInsightsAnalysis(ctx, p.ID, nil, nil, nil, ""))
	describe := func(s *network.Service) []any {
		return []any{
			must[[]*vpc.VPC](t)(s.DescribeVPCs(ctx, nil)), must[[]network.Subnet](t)(s.DescribeSubnets(ctx, nil)), must[[]*vpc.SecurityGroup](t)(s.DescribeSecurityGroups(ctx, nil)),
			must[[]*vpc.NetworkACL](t)(s.DescribeNetworkACLs(ctx, nil)), must[[]network.RouteTable](t)(s.DescribeRouteTables(ctx, nil)),
			must[[]*vpc.PrefixList](t)(s.DescribePrefixLists(ctx, nil)), must[[]vpc.PrefixListEntry](t)(s.PrefixListEntries(ctx, l.ID, new(int64(1)))),
			must[[]*vpc.InsightsPath](t)(s.DescribeInsightsPaths(ctx, nil)), must[[]*vpc.InsightsAnalysis](t)(s.DescribeInsightsAnalyses(ctx, nil, p.ID)),
			must[[]network.TagDescription](t)(s.DescribeTags(ctx)),
		}
	}
	before := describe(s)
	next := limited(store, network.Limits{})
	if err := next.Recover(ctx); err != nil {
		t.Fatal(err)
	}
	prefixes := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	addrs := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if d := cmp.Diff(before, describe(next), prefixes, addrs); d != "" {
		t.Errorf("after a restart (-before +after):\n%s", d)
	}
}
