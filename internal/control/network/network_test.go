package network_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/control/network"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/hostnet/loopback"
	"penstock.dev/penstock/internal/sqlite"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

const (
	region    = "us-east-1"
	account   = "000000000000"
	streaming = "com.amazonaws.us-east-1.appstream.streaming"
)

// TestMain looks for goroutines that outlived their tests.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	for end := time.Now().Add(10 * time.Second); code == 0 && flag.Lookup("test.fuzz").Value.String() == "" && runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			fmt.Fprintln(os.Stderr, "goroutines were left behind:")
			_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1) // the exit code says it
			code = 1
		}
	}
	os.Exit(code)
}

// code is the EC2 error code of a fault, "" without an error.
func code(err error) string {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f.Code
	}
	if err != nil {
		return "not a fault: " + err.Error()
	}
	return ""
}

func openStore(t *testing.T) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// run is a service with its driver, working.
type run struct {
	*network.Service
	driver *loopback.Driver
	stop   func()
}

// start runs a service on the store until the test ends or stop is called.
func start(t *testing.T, store state.Store) *run {
	t.Helper()
	d, err := loopback.New(loopback.Config{Store: store, Spread: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	s := network.New(network.Config{Store: store, Driver: d, Region: region, AccountID: account, DeletedLinger: 300 * time.Millisecond})
	if err := s.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("run: %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Error("run did not end with its context")
			}
			if err := d.Close(); err != nil {
				t.Errorf("close driver: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return &run{Service: s, driver: d, stop: stop}
}

// quiet is a service that nothing runs.
func quiet(t *testing.T) *network.Service {
	t.Helper()
	return network.New(network.Config{Store: openStore(t), Region: region, AccountID: account})
}

// await waits for a state of the store.
func await(t *testing.T, store state.Store, what string, is func(state.Reader) (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		var ok bool
		var at state.Revision
		if err := store.View(ctx, func(r state.Reader) (err error) {
			if at, err = r.Revision(); err != nil {
				return err
			}
			ok, err = is(r)
			return err
		}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if ok {
			return
		}
		if _, err := store.Changes(ctx, at); err != nil {
			t.Fatalf("%s did not come: %v", what, err)
		}
	}
}

func awaitState(t *testing.T, store state.Store, id vpc.EndpointID, want vpc.EndpointState) *vpc.Endpoint {
	t.Helper()
	var e *vpc.Endpoint
	await(t, store, string(want), func(r state.Reader) (bool, error) {
		v, ok, err := vpc.Endpoints().Get(r, string(id))
		e = v
		return ok && v.State == want, err
	})
	return e
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// site is a VPC with two subnets and a group that admits the office.
type site struct {
	vpc   *vpc.VPC
	a, b  *network.Subnet
	group *vpc.SecurityGroup
}

func admitOffice(t *testing.T, s *network.Service, id vpc.SecurityGroupID) {
	t.Helper()
	if _, _, err := s.Authorize(t.Context(), network.GroupRef{ID: id}, false, []network.RuleRequest{
		{Protocol: "tcp", From: new(443), To: new(443), CIDR: "192.168.0.0/16"},
		{Protocol: "tcp", From: new(1400), To: new(1499), CIDR: "192.168.0.0/16"},
	}, nil); err != nil {
		t.Fatal(err)
	}
}

func newSite(t *testing.T, s *network.Service) site {
	t.Helper()
	ctx := t.Context()
	v := must[*vpc.VPC](t)(s.CreateVPC(ctx, "10.77.0.0/16", "", nil))
	out := site{
		vpc:   v,
		a:     must[*network.Subnet](t)(s.CreateSubnet(ctx, v.ID, "10.77.1.0/24", "us-east-1a", nil)),
		b:     must[*network.Subnet](t)(s.CreateSubnet(ctx, v.ID, "10.77.2.0/24", "us-east-1b", nil)),
		group: must[*vpc.SecurityGroup](t)(s.CreateSecurityGroup(ctx, v.ID, "viewers", "streams", nil)),
	}
	admitOffice(t, s, out.group.ID)
	return out
}

func (w site) endpoint(t *testing.T, s *network.Service, subnets ...vpc.SubnetID) *vpc.Endpoint {
	t.Helper()
	return must[*vpc.Endpoint](t)(s.CreateVPCEndpoint(t.Context(), network.CreateEndpoint{
		VPC: w.vpc.ID, Service: streaming, Type: vpc.EndpointInterface, Subnets: subnets, Groups: []vpc.SecurityGroupID{w.group.ID},
	}))
}

func TestCreateVPCMakesItsDefaults(t *testing.T) {
	t.Parallel()
	s, ctx := quiet(t), t.Context()
	v := must[*vpc.VPC](t)(s.CreateVPC(ctx, "10.0.5.9/16", "", vpc.Tags{"Name": "x"}))
	if v.CIDR.String() != "10.0.0.0/16" || !v.DNSSupport || v.DNSHostnames || v.Default || v.Tags["Name"] != "x" {
		t.Errorf("vpc = %+v", v)
	}
	groups := must[[]*vpc.SecurityGroup](t)(s.DescribeSecurityGroups(ctx, nil))
	if len(groups) != 1 || groups[0].Name != "default" || groups[0].Description != "default VPC security group" || len(groups[0].Rules) != 2 {
		t.Errorf("groups = %+v", groups)
	}
	acls := must[[]*vpc.NetworkACL](t)(s.DescribeNetworkACLs(ctx, nil))
	if len(acls) != 1 || !acls[0].Default || len(acls[0].Entries) != 2 {
		t.Errorf("acls = %+v", acls)
	}
	tables := must[[]network.RouteTable](t)(s.DescribeRouteTables(ctx, nil))
	if len(tables) != 1 || !tables[0].Associations[0].Main || tables[0].Effective[0].Gateway != "local" {
		t.Errorf("tables = %+v", tables)
	}
	if err := s.DeleteVPC(ctx, v.ID); err != nil {
		t.Fatal(err)
	}
	for name, n := range map[string]int{
		"groups": len(must[[]*vpc.SecurityGroup](t)(s.DescribeSecurityGroups(ctx, nil))), "acls": len(must[[]*vpc.NetworkACL](t)(s.DescribeNetworkACLs(ctx, nil))),
		"tables": len(must[[]network.RouteTable](t)(s.DescribeRouteTables(ctx, nil))), "vpcs": len(must[[]*vpc.VPC](t)(s.DescribeVPCs(ctx, nil))),
	} {
		if n != 0 {
			t.Errorf("%d %s are left", n, name)
		}
	}
}

func TestDefaultVPCIsMadeOnce(t *testing.T) {
	t.Parallel()
	s, ctx := quiet(t), t.Context()
	var ids [8]vpc.VPCID
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			v, err := s.EnsureDefaultVPC(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = v.ID
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("default VPCs %v", ids)
		}
	}
	subnets := must[[]network.Subnet](t)(s.DescribeSubnets(ctx, nil))
	if len(subnets) != 3 || !subnets[0].DefaultForAZ || subnets[0].Free != 4091 {
		t.Errorf("subnets = %+v", subnets)
	}
	// Groups without a VPC are the default one's, also by name.
	g := must[*vpc.SecurityGroup](t)(s.CreateSecurityGroup(ctx, "", "web", "a group", nil))
	if g.VPC != ids[0] {
		t.Errorf("group's VPC = %s", g.VPC)
	}
	if _, err := s.DeleteSecurityGroup(ctx, network.GroupRef{Name: "web"}); err != nil {
		t.Error(err)
	}
	// Deleted is deleted, also at the next start.
	for _, n := range subnets {
		if err := s.DeleteSubnet(ctx, n.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.DeleteVPC(ctx, ids[0]); err != nil {
		t.Fatal(err)
	}
	if v, err := s.EnsureDefaultVPC(ctx); v != nil || err != nil {
		t.Errorf("after it was deleted: %+v, %v", v, err)
	}
}

// TestRefusals walks the error codes that clients test for.
func TestRefusals(t *testing.T) {
	t.Parallel()
	s, ctx := quiet(t), t.Context()
	w := newSite(t, s)
	other := must[*vpc.VPC](t)(s.CreateVPC(ctx, "10.77.0.0/16", "", nil)) // the same CIDR is another VPC's own business
	otherSubnet := must[*network.Subnet](t)(s.CreateSubnet(ctx, other.ID, "10.77.1.0/24", "", nil))
	sameZone := must[*network.Subnet](t)(s.CreateSubnet(ctx, w.vpc.ID, "10.77.3.0/28", "use1-az1", nil))
	e := w.endpoint(t, s, w.a.ID)
	table := must[network.RouteTable](t)(s.CreateRouteTable(ctx, w.vpc.ID, nil, ""))
	acl := must[*vpc.NetworkACL](t)(s.CreateNetworkACL(ctx, w.vpc.ID, nil, ""))
	assoc := must[vpc.RouteTableAssociationID](t)(s.AssociateRouteTable(ctx, table.ID, w.b.ID))

	const (
		noVPC    = vpc.VPCID("vpc-0123456789abcdef0")
		noSubnet = vpc.SubnetID("subnet-0123456789abcdef0")
		noGroup  = vpc.SecurityGroupID("sg-0123456789abcdef0")
	)
	create := func(change func(*network.CreateEndpoint)) error {
		c := network.CreateEndpoint{VPC: w.vpc.ID, Service: streaming, Type: vpc.EndpointInterface}
		change(&c)
		_, err := s.CreateVPCEndpoint(ctx, c)
		return err
	}
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"vpc too large", second(s.CreateVPC(ctx, "10.0.0.0/8", "", nil)), "InvalidVpc.Range"},
		{"vpc of AppStream's range", second(s.CreateVPC(ctx, "198.19.0.0/20", "", nil)), "InvalidVpc.Range"},
		{"vpc without a block", second(s.CreateVPC(ctx, "", "", nil)), "MissingParameter"},
		{"vpc tenancy", second(s.CreateVPC(ctx, "10.0.0.0/16", "host", nil)), "InvalidParameterValue"},
		{"vpc tag", second(s.CreateVPC(ctx, "10.0.0.0/16", "", vpc.Tags{"aws:x": "y"})), "InvalidParameterValue"},
		{"no such vpc", s.DeleteVPC(ctx, noVPC), "InvalidVpcID.NotFound"},
		{"vpc id of a wrong form", s.DeleteVPC(ctx, "vpc-nonsense"), "InvalidVpcID.Malformed"},
		{"vpc in use", s.DeleteVPC(ctx, w.vpc.ID), "DependencyViolation"},
		{"attribute", s.ModifyVPCAttribute(ctx, w.vpc.ID, "enableMagic", true), "InvalidParameterValue"},

		{"two IPv6 blocks in one", second(s.CreateVPC(ctx, "10.0.0.0/16", "", nil, network.IPv6Block{Amazon: true, CIDR: "fd12::/56"})), "InvalidParameterCombination"},
		{"an IPv6 block that is none", second(s.CreateVPC(ctx, "10.0.0.0/16", "", nil, network.IPv6Block{CIDR: "10.0.0.0/16"})), "InvalidParameterValue"},
		{"an IPv6 block of a pool alone", second(s.CreateVPC(ctx, "10.0.0.0/16", "", nil, network.IPv6Block{Pool: "ipv6pool-ec2-0123456789abcdef0"})), "MissingParameter"},
		{"an IPv6 block of no pool", second(s.CreateVPC(ctx, "10.0.0.0/16", "", nil, network.IPv6Block{CIDR: "fd12::/56", Pool: "pool"})), "InvalidIpv6PoolID.Malformed"},
		{"an IPv6 block too large", second(s.CreateVPC(ctx, "10.0.0.0/16", "", nil, network.IPv6Block{CIDR: "fd12::/40"})), "InvalidVpc.Range"},
		{"no block", second(s.AssociateBlock(ctx, w.vpc.ID, "", nil)), "MissingParameter"},
		{"two blocks", second(s.AssociateBlock(ctx, w.vpc.ID, "10.78.0.0/16", &network.IPv6Block{Amazon: true})), "InvalidParameterCombination"},
		{"a block that overlaps", second(s.AssociateBlock(ctx, w.vpc.ID, "10.77.0.0/20", nil)), "InvalidVpc.Range"},
		{"a block of another private range", second(s.AssociateBlock(ctx, w.vpc.ID, "192.168.0.0/16", nil)), "InvalidVpc.Range"},
		{"a block of no vpc", second(s.AssociateBlock(ctx, noVPC, "10.78.0.0/16", nil)), "InvalidVpcID.NotFound"},
		{"the first block", second(s.DisassociateBlock(ctx, w.vpc.CIDRAssociation)), "OperationNotPermitted"},
		{"no such block", second(s.DisassociateBlock(ctx, "vpc-cidr-assoc-0123456789abcdef0")), "InvalidVpcCidrBlockAssociationID.NotFound"},
		{"block id of a wrong form", second(s.DisassociateBlock(ctx, "vpc-cidr-assoc-x")), "InvalidVpcCidrBlockAssociationID.Malformed"},
		{"IPv6 subnet of an IPv4 vpc", second(s.CreateSubnet(ctx, w.vpc.ID, "10.77.9.0/24", "", nil, network.SubnetIPv6{CIDR: "fd12::/64"})), "InvalidSubnet.Range"},
		{"native subnet with IPv4", second(s.CreateSubnet(ctx, w.vpc.ID, "10.77.9.0/24", "", nil, network.SubnetIPv6{CIDR: "fd12::/64", Native: true})), "InvalidParameterCombination"},
		{"native subnet without a block", second(s.CreateSubnet(ctx, w.vpc.ID, "", "", nil, network.SubnetIPv6{Native: true})), "MissingParameter"},

		{"subnet outside", second(s.CreateSubnet(ctx, w.vpc.ID, "10.78.0.0/24", "", nil)), "InvalidSubnet.Range"},
		{"subnet overlaps", second(s.CreateSubnet(ctx, w.vpc.ID, "10.77.1.128/25", "", nil)), "InvalidSubnet.Conflict"},
		{"subnet's zone", second(s.CreateSubnet(ctx, w.vpc.ID, "10.77.9.0/24", "us-east-1x", nil)), "InvalidParameterValue"},
		{"subnet of no vpc", second(s.CreateSubnet(ctx, noVPC, "10.77.9.0/24", "", nil)), "InvalidVpcID.NotFound"},
		{"subnet in use", s.DeleteSubnet(ctx, w.a.ID), "DependencyViolation"},
		{"no such subnet", s.DeleteSubnet(ctx, noSubnet), "InvalidSubnetID.NotFound"},

		{"group's name taken", second(s.CreateSecurityGroup(ctx, w.vpc.ID, "viewers", "x", nil)), "InvalidGroup.Duplicate"},
		{"group without a description", second(s.CreateSecurityGroup(ctx, w.vpc.ID, "x", "", nil)), "MissingParameter"},
		{"group named default", second(s.CreateSecurityGroup(ctx, w.vpc.ID, "default", "x", nil)), "InvalidParameterValue"},
		{"group without a default vpc", second(s.CreateSecurityGroup(ctx, "", "x", "x", nil)), "VPCIdNotSpecified"},
		{"default group", second(s.DeleteSecurityGroup(ctx, network.GroupRef{ID: w.vpc.DefaultSecurityGroup})), "CannotDelete"},
		{"group in use", second(s.DeleteSecurityGroup(ctx, network.GroupRef{ID: w.group.ID})), "DependencyViolation"},
		{"no such group", second(s.DeleteSecurityGroup(ctx, network.GroupRef{ID: noGroup})), "InvalidGroup.NotFound"},
		{"group id of a wrong form", second(s.DeleteSecurityGroup(ctx, network.GroupRef{ID: "sg-1"})), "InvalidGroupId.Malformed"},

		{"acl in use", s.DeleteNetworkACL(ctx, w.vpc.DefaultNetworkACL), "InvalidParameterValue"},
		{"acl entry of no acl", s.DeleteNetworkACLEntry(ctx, "acl-0123456789abcdef0", 1, true), "InvalidNetworkAclID.NotFound"},
		{"no such acl entry", s.DeleteNetworkACLEntry(ctx, acl.ID, 1, true), "InvalidNetworkAclEntry.NotFound"},
		{"no such acl association", second(s.ReplaceNetworkACLAssociation(ctx, "aclassoc-0123456789abcdef0", acl.ID)), "InvalidAssociationID.NotFound"},

		{"main table", s.DeleteRouteTable(ctx, w.vpc.MainRouteTable), "DependencyViolation"},
		{"table in use", s.DeleteRouteTable(ctx, table.ID), "DependencyViolation"},
		{"no such table", s.DeleteRouteTable(ctx, "rtb-0123456789abcdef0"), "InvalidRouteTableID.NotFound"},
		{"subnet has a table", second(s.AssociateRouteTable(ctx, w.vpc.MainRouteTable, w.b.ID)), "Resource.AlreadyAssociated"},
		{"subnet of another vpc", second(s.AssociateRouteTable(ctx, table.ID, otherSubnet.ID)), "InvalidParameterValue"},
		{"no such association", s.DisassociateRouteTable(ctx, "rtbassoc-0123456789abcdef0"), "InvalidAssociationID.NotFound"},
		{"route to a gateway that is not there", s.CreateRoute(ctx, table.ID, vpc.Route{CIDR: netip.MustParsePrefix("0.0.0.0/0"), Gateway: "vgw-0123456789abcdef0"}), "InvalidGatewayID.NotFound"},
		{"route to another vpc's gateway", s.CreateRoute(ctx, table.ID, vpc.Route{CIDR: netip.MustParsePrefix("0.0.0.0/0"), Gateway: other.Gateway}), "InvalidGatewayID.NotFound"},
		{"local route", s.DeleteRoute(ctx, table.ID, vpc.Route{CIDR: w.vpc.CIDR}), "InvalidParameterValue"},
		{"no such route", s.DeleteRoute(ctx, table.ID, vpc.Route{CIDR: netip.MustParsePrefix("1.0.0.0/8")}), "InvalidRoute.NotFound"},

		{"no service", create(func(c *network.CreateEndpoint) { c.Service = "" }), "MissingParameter"},
		{"unknown service", create(func(c *network.CreateEndpoint) { c.Service = "com.amazonaws.us-east-1.s3" }), "InvalidServiceName"},
		{"service of another region", create(func(c *network.CreateEndpoint) { c.Service = "com.amazonaws.eu-west-1.appstream.streaming" }), "InvalidServiceName"},
		{"type missing is Gateway", create(func(c *network.CreateEndpoint) { c.Type = "" }), "InvalidParameter"},
		{"Gateway with subnets", create(func(c *network.CreateEndpoint) { c.Type, c.Subnets = "", []vpc.SubnetID{w.a.ID} }), "InvalidParameter"},
		{"route tables", create(func(c *network.CreateEndpoint) { c.RouteTables = []string{string(table.ID)} }), "InvalidParameter"},
		{"two subnets of a zone", create(func(c *network.CreateEndpoint) { c.Subnets = []vpc.SubnetID{w.a.ID, sameZone.ID} }), "DuplicateSubnetsInSameZone"},
		{"subnet of another vpc", create(func(c *network.CreateEndpoint) { c.Subnets = []vpc.SubnetID{otherSubnet.ID} }), "InvalidParameter"},
		{"no such subnet", create(func(c *network.CreateEndpoint) { c.Subnets = []vpc.SubnetID{noSubnet} }), "InvalidSubnetID.NotFound"},
		{"group of another vpc", create(func(c *network.CreateEndpoint) { c.Groups = []vpc.SecurityGroupID{other.DefaultSecurityGroup} }), "InvalidParameter"},
		{"no such group", create(func(c *network.CreateEndpoint) { c.Groups = []vpc.SecurityGroupID{noGroup} }), "InvalidGroup.NotFound"},
		{"private dns without hostnames", create(func(c *network.CreateEndpoint) { c.PrivateDNS = new(true) }), "InvalidParameter"},
		{"policy", create(func(c *network.CreateEndpoint) {
			c.PolicyDocument = `{"Statement":[{"Effect":"Deny","Principal":"*","Action":"*","Resource":"*"}]}`
		}), "InvalidParameter"},
		{"policy that is none", create(func(c *network.CreateEndpoint) { c.PolicyDocument = `{` }), "InvalidPolicyDocument"},
		{"policy too long", create(func(c *network.CreateEndpoint) { c.PolicyDocument = strings.Repeat(" ", 20481) }), "InvalidPolicyDocument"},
		{"dualstack", create(func(c *network.CreateEndpoint) { c.IPAddressType, c.Subnets = "dualstack", []vpc.SubnetID{w.b.ID} }), "InvalidParameter"},
		{"ipv6", create(func(c *network.CreateEndpoint) { c.IPAddressType, c.Subnets = "ipv6", []vpc.SubnetID{w.b.ID} }), "InvalidParameter"},
		{"address type", create(func(c *network.CreateEndpoint) { c.IPAddressType = "ipv5" }), "InvalidParameter"},
		{"records of another family", create(func(c *network.CreateEndpoint) { c.DNSRecordType = "ipv6" }), "InvalidParameter"},
		{"chosen IPv6 address", create(func(c *network.CreateEndpoint) {
			c.Addresses = map[vpc.SubnetID]network.ChosenAddresses{w.b.ID: {IPv6: "fd00::9"}}
		}), "InvalidParameter"},
		{"other addresses without IPv6", s.ModifyVPCEndpoint(ctx, network.ModifyEndpoint{ID: e.ID, IPAddressType: "dualstack"}), "InvalidParameter"},
		{"chosen address reserved", create(func(c *network.CreateEndpoint) {
			c.Addresses = map[vpc.SubnetID]network.ChosenAddresses{w.b.ID: {IPv4: "10.77.2.3"}}
		}), "InvalidParameterValue"},
		{"chosen address elsewhere", create(func(c *network.CreateEndpoint) {
			c.Addresses = map[vpc.SubnetID]network.ChosenAddresses{w.b.ID: {IPv4: "10.77.1.9"}}
		}), "InvalidParameterValue"},
		{"chosen address that is none", create(func(c *network.CreateEndpoint) {
			c.Addresses = map[vpc.SubnetID]network.ChosenAddresses{w.b.ID: {IPv4: "ten"}}
		}), "InvalidParameterValue"},
		{"chosen address in use", create(func(c *network.CreateEndpoint) {
			c.Addresses = map[vpc.SubnetID]network.ChosenAddresses{w.a.ID: {IPv4: "10.77.1.4"}}
		}), "InvalidIPAddress.InUse"},
		{"add a subnet of the same zone", s.ModifyVPCEndpoint(ctx, network.ModifyEndpoint{ID: e.ID, AddSubnets: []vpc.SubnetID{sameZone.ID}, RemoveSubnets: []vpc.SubnetID{w.a.ID}}), "DuplicateSubnetsInSameZone"},
		{"take the last group", s.ModifyVPCEndpoint(ctx, network.ModifyEndpoint{ID: e.ID, RemoveGroups: []vpc.SecurityGroupID{w.group.ID}}), "InvalidParameter"},
		{"no such endpoint", s.ModifyVPCEndpoint(ctx, network.ModifyEndpoint{ID: "vpce-0123456789abcdef0"}), "InvalidVpcEndpointId.NotFound"},
		{"endpoint id of a wrong form", second(s.DeleteVPCEndpoints(ctx, []vpc.EndpointID{"vpce-x"})), "InvalidVpcEndpointId.Malformed"},
		{"tags of nothing", s.CreateTags(ctx, []string{"i-0123456789abcdef0"}, vpc.Tags{"a": "b"}), "InvalidID"},
		{"tags of no resource", s.CreateTags(ctx, []string{string(noVPC)}, vpc.Tags{"a": "b"}), "InvalidVpcID.NotFound"},
	} {
		if got := code(tt.err); got != tt.want {
			t.Errorf("%s: got %q (%v), want %q", tt.name, got, tt.err, tt.want)
		}
	}
	// Nothing that was refused left anything behind.
	if n := len(must[[]*vpc.Endpoint](t)(s.DescribeEndpoints(ctx, nil))); n != 1 {
		t.Errorf("%d endpoints, want 1", n)
	}
	if n := len(must[[]*vpc.NetworkInterface](t)(s.DescribeNetworkInterfaces(ctx, nil))); n != 1 {
		t.Errorf("%d interfaces, want 1", n)
	}
	if err := s.DisassociateRouteTable(ctx, assoc); err != nil {
		t.Error(err)
	}
	failed := must[[]network.Unsuccessful](t)(s.DeleteVPCEndpoints(ctx, []vpc.EndpointID{e.ID, "vpce-0123456789abcdef0"}))
	if len(failed) != 1 || failed[0].Code != "InvalidVpcEndpoint.NotFound" || failed[0].ID != "vpce-0123456789abcdef0" {
		t.Errorf("unsuccessful = %+v", failed)
	}
}

func TestSecurityGroupRules(t *testing.T) {
	t.Parallel()
	s, ctx := quiet(t), t.Context()
	w := newSite(t, s)
	ref := network.GroupRef{ID: w.group.ID}
	everything := network.RuleRequest{Protocol: "-1", From: new(0), To: new(0), CIDR: "0.0.0.0/0"}
	// As Terraform takes the default egress rules away.
	revoked, _, err := s.Revoke(ctx, ref, true, nil, []network.RuleRequest{everything})
	if err != nil || len(revoked) != 1 {
		t.Errorf("revoke the default egress: %v, %v", revoked, err)
	}
	everything.CIDR = "::/0"
	if _, _, err := s.Revoke(ctx, ref, true, nil, []network.RuleRequest{everything}); code(err) != "InvalidPermission.NotFound" {
		t.Errorf("revoke what is not there: %v", err)
	}
	again := network.RuleRequest{Protocol: "6", From: new(443), To: new(443), CIDR: "192.168.1.1/16", Description: "other words"}
	if _, _, err := s.Authorize(ctx, ref, false, []network.RuleRequest{again}, nil); code(err) != "InvalidPermission.Duplicate" {
		t.Errorf("the same rule: %v", err)
	}
	_, added, err := s.Authorize(ctx, ref, false, []network.RuleRequest{
		{Protocol: "tcp", From: new(443), To: new(443), Group: network.GroupRef{ID: w.vpc.DefaultSecurityGroup}, GroupOwner: account},
		{Protocol: "tcp", From: new(443), To: new(443), CIDR: "2001:db8::/32"},
	}, vpc.Tags{"a": "b"})
	if err != nil || len(added) != 2 || added[0].Peer.Group != w.vpc.DefaultSecurityGroup || added[0].Tags["a"] != "b" {
		t.Fatalf("added %+v, %v", added, err)
	}
	g := must[[]*vpc.SecurityGroup](t)(s.DescribeSecurityGroups(ctx, []vpc.SecurityGroupID{w.group.ID}))[0]
	if p := g.Permissions(false); len(p) != 2 || len(p[0].Rules) != 3 {
		t.Errorf("permissions = %+v", p)
	}
	rules := must[[]network.Rule](t)(s.DescribeSecurityGroupRules(ctx, []vpc.SecurityGroupRuleID{added[1].ID}))
	if len(rules) != 1 || rules[0].Group.ID != w.group.ID {
		t.Errorf("rules = %+v", rules)
	}
	// A group that another names cannot go.
	victim := must[*vpc.SecurityGroup](t)(s.CreateSecurityGroup(ctx, w.vpc.ID, "victim", "x", nil))
	if _, _, err := s.Authorize(ctx, ref, false, []network.RuleRequest{{Protocol: "-1", Group: network.GroupRef{ID: victim.ID}}}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.DeleteSecurityGroup(ctx, network.GroupRef{ID: victim.ID}); code(err) != "DependencyViolation" {
		t.Errorf("delete a group that is named: %v", err)
	}
	if err := s.ModifyRules(ctx, ref, map[vpc.SecurityGroupRuleID]network.RuleRequest{added[1].ID: {Protocol: "udp", From: new(53), To: new(53), CIDR: "10.0.0.0/8", Description: "dns"}}); err != nil {
		t.Fatal(err)
	}
	rules = must[[]network.Rule](t)(s.DescribeSecurityGroupRules(ctx, []vpc.SecurityGroupRuleID{added[1].ID}))
	if rules[0].Protocol != vpc.UDP || rules[0].Description != "dns" || rules[0].Tags["a"] != "b" {
		t.Errorf("modified rule = %+v", rules[0].SecurityGroupRule)
	}
	if _, _, err := s.Revoke(ctx, ref, false, []vpc.SecurityGroupRuleID{added[0].ID, added[1].ID}, nil); err != nil {
		t.Error(err)
	}
	if _, _, err := s.Revoke(ctx, ref, false, []vpc.SecurityGroupRuleID{added[0].ID}, nil); code(err) != "InvalidSecurityGroupRuleId.NotFound" {
		t.Errorf("revoke twice: %v", err)
	}
	// In a default VPC what does not match comes back and is no error.
	d := must[*vpc.VPC](t)(s.EnsureDefaultVPC(ctx))
	_, unknown, err := s.Revoke(ctx, network.GroupRef{ID: d.DefaultSecurityGroup}, true, nil, []network.RuleRequest{everything})
	if err != nil || len(unknown) != 1 {
		t.Errorf("default VPC: %v, %v", unknown, err)
	}
}

func TestNetworkACLAssociations(t *testing.T) {
	t.Parallel()
	s, ctx := quiet(t), t.Context()
	w := newSite(t, s)
	own := must[*vpc.NetworkACL](t)(s.CreateNetworkACL(ctx, w.vpc.ID, nil, "token"))
	if again := must[*vpc.NetworkACL](t)(s.CreateNetworkACL(ctx, w.vpc.ID, nil, "token")); again.ID != own.ID {
		t.Error("the token made a second ACL")
	}
	def := must[[]*vpc.NetworkACL](t)(s.DescribeNetworkACLs(ctx, []vpc.NetworkACLID{w.vpc.DefaultNetworkACL}))[0]
	if len(def.Associations) != 2 {
		t.Fatalf("associations = %+v", def.Associations)
	}
	old := def.Associations[0]
	made := must[vpc.NetworkACLAssociationID](t)(s.ReplaceNetworkACLAssociation(ctx, old.ID, own.ID))
	if made == old.ID {
		t.Error("the association kept its ID")
	}
	if _, err := s.ReplaceNetworkACLAssociation(ctx, old.ID, own.ID); code(err) != "InvalidAssociationID.NotFound" {
		t.Errorf("the old association: %v", err)
	}
	if err := s.DeleteNetworkACL(ctx, own.ID); code(err) != "DependencyViolation" {
		t.Errorf("delete an ACL with a subnet: %v", err)
	}
	back := must[vpc.NetworkACLAssociationID](t)(s.ReplaceNetworkACLAssociation(ctx, made, w.vpc.DefaultNetworkACL))
	if must[vpc.NetworkACLAssociationID](t)(s.ReplaceNetworkACLAssociation(ctx, back, w.vpc.DefaultNetworkACL)) == back {
		t.Error("moving to the same ACL makes a new association")
	}
	if err := s.DeleteNetworkACL(ctx, own.ID); err != nil {
		t.Error(err)
	}
	def = must[[]*vpc.NetworkACL](t)(s.DescribeNetworkACLs(ctx, []vpc.NetworkACLID{w.vpc.DefaultNetworkACL}))[0]
	if len(def.Associations) != 2 {
		t.Errorf("associations = %+v", def.Associations)
	}
}

func TestClientToken(t *testing.T) {
	t.Parallel()
	s, ctx := quiet(t), t.Context()
	w := newSite(t, s)
	c := network.CreateEndpoint{VPC: w.vpc.ID, Service: streaming, Type: vpc.EndpointInterface, Subnets: []vpc.SubnetID{w.a.ID}, ClientToken: "once"}
	var ids [20]vpc.EndpointID
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			e, err := s.CreateVPCEndpoint(ctx, c)
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = e.ID
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Fatalf("endpoints %v", ids)
		}
	}
	c.Subnets = []vpc.SubnetID{w.b.ID}
	if _, err := s.CreateVPCEndpoint(ctx, c); code(err) != "IdempotentParameterMismatch" {
		t.Errorf("other parameters: %v", err)
	}
}

func TestPrivateDNS(t *testing.T) {
	t.Parallel()
	s, ctx := quiet(t), t.Context()
	w := newSite(t, s)
	create := func(private *bool) (*vpc.Endpoint, error) {
		return s.CreateVPCEndpoint(ctx, network.CreateEndpoint{VPC: w.vpc.ID, Service: streaming, Type: vpc.EndpointInterface, PrivateDNS: private})
	}
	if e := must[*vpc.Endpoint](t)(create(nil)); e.PrivateDNS {
		t.Error("private DNS came by itself in a VPC that does not allow it")
	}
	if err := s.ModifyVPCAttribute(ctx, w.vpc.ID, network.EnableDNSHostnames, true); err != nil {
		t.Fatal(err)
	}
	first := must[*vpc.Endpoint](t)(create(new(true)))
	if !first.PrivateDNS || len(first.DNSEntries) != 2 {
		t.Errorf("endpoint = %+v", first)
	}
	if _, err := create(new(true)); code(err) != "InvalidParameter" {
		t.Errorf("a second one with the same names: %v", err)
	}
	second := must[*vpc.Endpoint](t)(create(nil))
	if second.PrivateDNS {
		t.Error("two endpoints have the same names")
	}
	if err := s.ModifyVPCEndpoint(ctx, network.ModifyEndpoint{ID: second.ID, PrivateDNS: new(true)}); code(err) != "InvalidParameter" {
		t.Errorf("modify into a conflict: %v", err)
	}
	if err := s.ModifyVPCEndpoint(ctx, network.ModifyEndpoint{ID: first.ID, PrivateDNS: new(false)}); err != nil {
		t.Fatal(err)
	}
	if err := s.ModifyVPCEndpoint(ctx, network.ModifyEndpoint{ID: second.ID, PrivateDNS: new(true)}); err != nil {
		t.Errorf("after the first gave them up: %v", err)
	}
}

func TestTags(t *testing.T) {
	t.Parallel()
	s, ctx := quiet(t), t.Context()
	w := newSite(t, s)
	e := w.endpoint(t, s, w.a.ID)
	rule := w.group.Rules[0].ID
	all := []string{
		string(w.vpc.ID), string(w.a.ID), string(w.group.ID), string(rule), string(w.vpc.DefaultNetworkACL), string(w.vpc.MainRouteTable),
		string(e.ID), string(e.Interfaces[0]),
	}
	if err := s.CreateTags(ctx, all, vpc.Tags{"Name": "x", "empty": ""}); err != nil {
		t.Fatal(err)
	}
	if got := must[[]network.TagDescription](t)(s.DescribeTags(ctx)); len(got) != 2*len(all) {
		t.Errorf("%d tags, want %d", len(got), 2*len(all))
	}
	if err := s.DeleteTags(ctx, all[:1], []network.TagSelector{{Key: "Name", Value: new("other")}, {Key: "empty", Value: new("")}}); err != nil {
		t.Fatal(err)
	}
	v := must[[]*vpc.VPC](t)(s.DescribeVPCs(ctx, []vpc.VPCID{w.vpc.ID}))[0]
	if d := cmp.Diff(vpc.Tags{"Name": "x"}, v.Tags); d != "" {
		t.Errorf("tags (-want +got):\n%s", d)
	}
	if err := s.DeleteTags(ctx, all, nil); err != nil {
		t.Fatal(err)
	}
	if got := must[[]network.TagDescription](t)(s.DescribeTags(ctx)); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
	many := vpc.Tags{}
	for n := range 51 {
		many[fmt.Sprint(n)] = ""
	}
	if err := s.CreateTags(ctx, all[:1], many); code(err) != "TagLimitExceeded" {
		t.Errorf("51 tags: %v", err)
	}
	// A tag is no modification: the endpoint stays what it is.
	if got := must[[]*vpc.Endpoint](t)(s.DescribeEndpoints(ctx, nil))[0]; got.Generation != e.Generation {
		t.Errorf("generation = %d, want %d", got.Generation, e.Generation)
	}
}

// TestParallelMutations asks for the same few addresses and names from a hundred sides.
func TestParallelMutations(t *testing.T) {
	t.Parallel()
	s, ctx := quiet(t), t.Context()
	w := newSite(t, s)
	small := must[*network.Subnet](t)(s.CreateSubnet(ctx, w.vpc.ID, "10.77.5.0/28", "us-east-1c", nil))
	var mu sync.Mutex
	codes := map[string]int{}
	note := func(what string, err error) {
		mu.Lock()
		defer mu.Unlock()
		codes[what+" "+code(err)]++
	}
	var wg sync.WaitGroup
	for n := range 100 {
		wg.Go(func() {
			switch n % 4 {
			case 0: // 25 endpoints for 11 addresses
				_, err := s.CreateVPCEndpoint(ctx, network.CreateEndpoint{VPC: w.vpc.ID, Service: streaming, Type: vpc.EndpointInterface, Subnets: []vpc.SubnetID{small.ID}})
				note("endpoint", err)
			case 1: // 25 groups of 5 names
				_, err := s.CreateSecurityGroup(ctx, w.vpc.ID, fmt.Sprintf("g%d", n%5), "x", nil)
				note("group", err)
			case 2: // 25 rules of 13 kinds
				_, _, err := s.Authorize(ctx, network.GroupRef{ID: w.group.ID}, false, []network.RuleRequest{{Protocol: "tcp", From: new(n / 8), To: new(n / 8), CIDR: "10.0.0.0/8"}}, nil)
				note("rule", err)
			case 3: // 25 subnets of 5 blocks
				_, err := s.CreateSubnet(ctx, w.vpc.ID, fmt.Sprintf("10.77.%d.0/24", 100+n%5), "", nil)
				note("subnet", err)
			}
		})
	}
	wg.Wait()
	want := map[string]int{
		"endpoint ": 11, "endpoint InsufficientFreeAddressesInSubnet": 14,
		"group ": 5, "group InvalidGroup.Duplicate": 20,
		"rule ": 13, "rule InvalidPermission.Duplicate": 12,
		"subnet ": 5, "subnet InvalidSubnet.Conflict": 20,
	}
	if d := cmp.Diff(want, codes); d != "" {
		t.Errorf("answers (-want +got):\n%s", d)
	}
	seen := map[netip.Addr]bool{}
	for _, i := range must[[]*vpc.NetworkInterface](t)(s.DescribeNetworkInterfaces(ctx, nil)) {
		if seen[i.Addr] {
			t.Errorf("%s was given twice", i.Addr)
		}
		seen[i.Addr] = true
	}
	if free := must[[]network.Subnet](t)(s.DescribeSubnets(ctx, []vpc.SubnetID{small.ID}))[0].Free; free != 0 {
		t.Errorf("%d addresses are free", free)
	}
}

// dial connects from a user to an interface's port and says whether the connection was served.
func (r *run) dial(t *testing.T, from string, id vpc.VPCID, to netip.Addr, port uint16) (net.Conn, *vpc.Conn) {
	t.Helper()
	at, ok := r.driver.DialAddr(id, netip.AddrPortFrom(to, port))
	if !ok {
		t.Fatalf("no address for %s", id)
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 10 * time.Second}
	c, err := dialer.DialContext(t.Context(), "tcp4", at.String())
	if err != nil {
		return nil, nil
	}
	t.Cleanup(func() { _ = c.Close() })
	type result struct {
		conn *vpc.Conn
		err  error
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	accepted := make(chan result, 1)
	go func() {
		v, err := r.driver.Accept(ctx)
		accepted <- result{v, err}
	}()
	closed := make(chan struct{})
	go func() {
		_ = c.SetReadDeadline(time.Now().Add(15 * time.Second)) // the read says it
		_, err := c.Read(make([]byte, 1))
		if e, ok := errors.AsType[net.Error](err); err != nil && (!ok || !e.Timeout()) {
			close(closed)
		}
	}()
	select {
	case got := <-accepted:
		if got.err != nil {
			t.Fatal(got.err)
		}
		t.Cleanup(func() { _ = got.conn.Close() })
		return c, got.conn
	case <-closed:
		cancel()
		<-accepted
		return nil, nil
	}
}

func (r *run) interfaces(t *testing.T, e *vpc.Endpoint) []*vpc.NetworkInterface {
	t.Helper()
	return must[[]*vpc.NetworkInterface](t)(r.DescribeNetworkInterfaces(t.Context(), e.Interfaces))
}

func TestEndpointLife(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	r := start(t, store)
	ctx := t.Context()
	w := newSite(t, r.Service)
	e := w.endpoint(t, r.Service, w.a.ID)
	if e.State != vpc.EndpointPending {
		t.Errorf("a new endpoint is %s", e.State)
	}
	e = awaitState(t, store, e.ID, vpc.EndpointAvailable)
	eni := r.interfaces(t, e)[0]
	if eni.Addr.String() != "10.77.1.4" || eni.Status != "in-use" || eni.Description != "VPC Endpoint Interface "+string(e.ID) {
		t.Errorf("interface = %+v", eni)
	}

	office, served := r.dial(t, "127.0.0.1", w.vpc.ID, eni.Addr, 443)
	if served == nil || served.Source.Addr().String() != "192.168.0.1" || served.Endpoint != e.ID {
		t.Fatalf("office: %+v", served)
	}
	if _, guest := r.dial(t, "127.1.0.5", w.vpc.ID, eni.Addr, 443); guest != nil {
		t.Error("a guest was served")
	}

	// A modification goes through pending and leaves what runs alone.
	if err := r.ModifyVPCEndpoint(ctx, network.ModifyEndpoint{ID: e.ID, AddSubnets: []vpc.SubnetID{w.b.ID}}); err != nil {
		t.Fatal(err)
	}
	e = awaitState(t, store, e.ID, vpc.EndpointAvailable)
	if len(e.Interfaces) != 2 || e.Generation != 2 || e.Realised != 2 || len(e.DNSEntries) != 3 {
		t.Errorf("endpoint = %+v", e)
	}
	if _, err := served.Write([]byte("x")); err != nil {
		t.Errorf("the running connection: %v", err)
	}
	_, served2 := r.dial(t, "127.0.0.1", w.vpc.ID, netip.MustParseAddr("10.77.2.4"), 1400)
	if served2 == nil {
		t.Fatal("the new interface does not serve")
	}

	// A rule that goes is gone when the call returns, for new connections.
	rule := network.RuleRequest{Protocol: "tcp", From: new(443), To: new(443), CIDR: "192.168.0.0/16"}
	if _, _, err := r.Revoke(ctx, network.GroupRef{ID: w.group.ID}, false, nil, []network.RuleRequest{rule}); err != nil {
		t.Fatal(err)
	}
	if _, late := r.dial(t, "127.0.0.1", w.vpc.ID, eni.Addr, 443); late != nil {
		t.Error("served after its rule went")
	}
	if _, err := served.Write([]byte("x")); err != nil {
		t.Errorf("the running connection: %v", err)
	}

	// A subnet that goes takes its connections with it and leaves the others.
	if err := r.ModifyVPCEndpoint(ctx, network.ModifyEndpoint{ID: e.ID, RemoveSubnets: []vpc.SubnetID{w.a.ID}}); err != nil {
		t.Fatal(err)
	}
	ended(t, office)
	if _, err := served2.Write([]byte("x")); err != nil {
		t.Errorf("the connection of the interface that stays: %v", err)
	}
	awaitState(t, store, e.ID, vpc.EndpointAvailable)
	if err := r.DeleteSubnet(ctx, w.a.ID); err != nil {
		t.Errorf("delete the subnet: %v", err)
	}

	if failed, err := r.DeleteVPCEndpoints(ctx, []vpc.EndpointID{e.ID}); err != nil || len(failed) > 0 {
		t.Fatalf("delete: %v, %v", failed, err)
	}
	awaitState(t, store, e.ID, vpc.EndpointDeleted)
	if n := len(must[[]*vpc.NetworkInterface](t)(r.DescribeNetworkInterfaces(ctx, nil))); n != 0 {
		t.Errorf("%d interfaces are left", n)
	}
	if err := r.DeleteSubnet(ctx, w.b.ID); err != nil {
		t.Error(err)
	}
	await(t, store, "the end of the record", func(rd state.Reader) (bool, error) {
		_, ok, err := vpc.Endpoints().Get(rd, string(e.ID))
		return !ok, err
	})
	if _, err := r.DeleteSecurityGroup(ctx, network.GroupRef{ID: w.group.ID}); err != nil {
		t.Error(err)
	}
	if err := r.DeleteVPC(ctx, w.vpc.ID); err != nil {
		t.Error(err)
	}
}

func ended(t *testing.T, c net.Conn) {
	t.Helper()
	// What the other side wrote before comes first.
	awaitTrue(t, "end of the connection", func() bool {
		_ = c.SetReadDeadline(time.Now().Add(time.Second)) // the read says it
		_, err := c.Read(make([]byte, 16))
		e, ok := errors.AsType[net.Error](err)
		return err != nil && (!ok || !e.Timeout())
	})
}

func awaitTrue(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not come", what)
		}
	}
}

func TestEndpointAddresses(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	r := start(t, store)
	w := newSite(t, r.Service)
	e := w.endpoint(t, r.Service, w.a.ID, w.b.ID)
	awaitState(t, store, e.ID, vpc.EndpointAvailable)
	api := must[*vpc.Endpoint](t)(r.CreateVPCEndpoint(t.Context(), network.CreateEndpoint{
		VPC: w.vpc.ID, Service: "com.amazonaws.us-east-1.appstream.api", Type: vpc.EndpointInterface, Subnets: []vpc.SubnetID{w.a.ID},
	}))
	awaitState(t, store, api.ID, vpc.EndpointAvailable)
	var addrs []network.Address
	if err := store.View(t.Context(), func(rd state.Reader) (err error) {
		addrs, err = r.EndpointAddresses(rd, e.ID)
		return err
	}); err != nil || len(addrs) != 2 || addrs[0].Subnet != w.a.ID || !addrs[1].Dial.Addr().IsLoopback() {
		t.Errorf("addresses = %+v, %v", addrs, err)
	}
	// The API's endpoint listens on 443 alone.
	if at, _ := r.driver.DialAddr(w.vpc.ID, netip.MustParseAddrPort("10.77.1.5:1400")); at.IsValid() {
		if c, err := net.Dial("tcp4", at.String()); err == nil {
			_ = c.Close() // that it came about is the failure
			t.Error("an API endpoint listens on 1400")
		}
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	first := start(t, store)
	w := newSite(t, first.Service)
	e := awaitState(t, store, w.endpoint(t, first.Service, w.a.ID, w.b.ID).ID, vpc.EndpointAvailable)
	had, _ := first.driver.DialAddr(w.vpc.ID, netip.MustParseAddrPort("10.77.1.4:1400"))
	first.stop()

	// While nothing serves it, an API without a reconciler must not say that it is available for long: Run's first act is to say so.
	states := []vpc.EndpointState{vpc.EndpointAvailable}
	seen := make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var before state.Revision
	if err := store.View(ctx, func(r state.Reader) (err error) {
		before, err = r.Revision()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(seen)
		at := before
		for {
			if _, err := store.Changes(ctx, at); err != nil {
				return
			}
			if err := store.View(ctx, func(r state.Reader) (err error) {
				if at, err = r.Revision(); err != nil {
					return err
				}
				v, _, err := vpc.Endpoints().Get(r, string(e.ID))
				if v != nil && (len(states) == 0 || states[len(states)-1] != v.State) {
					states = append(states, v.State)
				}
				return err
			}); err != nil {
				return
			}
			if len(states) > 1 && states[len(states)-1] == vpc.EndpointAvailable {
				return
			}
		}
	}()
	second := start(t, store)
	<-seen
	if d := cmp.Diff([]vpc.EndpointState{vpc.EndpointAvailable, vpc.EndpointPending, vpc.EndpointAvailable}, states); d != "" {
		t.Errorf("states (-want +got):\n%s", d)
	}
	if got, _ := second.driver.DialAddr(w.vpc.ID, netip.MustParseAddrPort("10.77.1.4:1400")); got != had {
		t.Errorf("dialled at %s, want %s as before", got, had)
	}
	if _, served := second.dial(t, "127.0.0.1", w.vpc.ID, netip.MustParseAddr("10.77.2.4"), 1499); served == nil {
		t.Error("not served after the restart")
	}
}

func TestFailedEndpointRecovers(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	r := start(t, store)
	w := newSite(t, r.Service)
	awaitState(t, store, w.endpoint(t, r.Service, w.b.ID).ID, vpc.EndpointAvailable) // so that the VPC's /16 stays
	at, _ := r.driver.DialAddr(w.vpc.ID, netip.MustParseAddrPort("10.77.1.4:1444"))
	squatter, err := net.Listen("tcp4", at.String())
	if err != nil {
		t.Fatal(err)
	}
	e := awaitState(t, store, w.endpoint(t, r.Service, w.a.ID).ID, vpc.EndpointFailed)
	if e.LastError == nil || !strings.Contains(e.LastError.Message, "10.77.1.4:1444") || !strings.Contains(e.LastError.Message, "in use") {
		t.Errorf("last error = %+v", e.LastError)
	}
	if _, err := r.DescribeEndpoints(t.Context(), []vpc.EndpointID{e.ID}); err != nil {
		t.Error(err)
	}
	if err := squatter.Close(); err != nil {
		t.Fatal(err)
	}
	if e := awaitState(t, store, e.ID, vpc.EndpointAvailable); e.LastError != nil {
		t.Errorf("last error = %+v", e.LastError)
	}
}

// stuck is a driver whose checks do not end before it is let go.
type stuck struct {
	*loopback.Driver
	let chan struct{}
}

func (d stuck) Check(ctx context.Context, id vpc.NetworkInterfaceID) error {
	select {
	case <-d.let:
		return d.Driver.Check(ctx, id)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestRulesDoNotWaitForChecks changes rules, endpoints and deletes one while checks hang.
func TestRulesDoNotWaitForChecks(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	d, err := loopback.New(loopback.Config{Store: store, Spread: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	driver := stuck{d, make(chan struct{})}
	s := network.New(network.Config{Store: store, Driver: driver, Region: region, AccountID: account, DeletedLinger: time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	w := newSite(t, s)
	var all []*vpc.Endpoint
	for range 6 { // more than are checked at a time
		all = append(all, w.endpoint(t, s, w.a.ID))
	}
	other := w.endpoint(t, s, w.b.ID)
	f := vpc.Flow{VPC: w.vpc.ID, Protocol: vpc.TCP, Src: netip.MustParseAddrPort("172.16.0.5:40000"), Dst: netip.MustParseAddrPort("10.77.1.4:443")}
	await(t, store, "interfaces", func(state.Reader) (bool, error) {
		return s.Snapshot().Explain(f).Blocked().Kind == vpc.HopSecurityGroup, nil
	})
	if _, _, err := s.Authorize(ctx, network.GroupRef{ID: w.group.ID}, false, []network.RuleRequest{{Protocol: "tcp", From: new(443), To: new(443), CIDR: "172.16.0.0/16"}}, nil); err != nil {
		t.Fatal(err)
	}
	if v := s.Snapshot().Explain(f); !v.OK {
		t.Errorf("not in force: %+v", v.Blocked())
	}
	if _, err := s.DeleteVPCEndpoints(ctx, []vpc.EndpointID{other.ID}); err != nil {
		t.Fatal(err)
	}
	await(t, store, "the end of the other", func(rd state.Reader) (bool, error) {
		_, ok, err := vpc.Endpoints().Get(rd, string(other.ID))
		return !ok, err
	})
	if err := s.ModifyVPCEndpoint(ctx, network.ModifyEndpoint{ID: all[0].ID, AddSubnets: []vpc.SubnetID{w.b.ID}}); err != nil {
		t.Fatal(err)
	}
	close(driver.let)
	for _, e := range all {
		awaitState(t, store, e.ID, vpc.EndpointAvailable)
	}
	if e := awaitState(t, store, all[0].ID, vpc.EndpointAvailable); e.Realised != 2 || len(e.Interfaces) != 2 {
		t.Errorf("endpoint = %+v", e)
	}
}

// crashing is a store that stops its user at the n-th use: the call fails before it was done or after.
type crashing struct {
	state.Store
	mu    sync.Mutex
	left  int
	after bool
	dead  context.CancelFunc
}

var errCrashed = errors.New("the process is dead")

// use says whether the call is the one at which the process dies, and whether it still happens.
func (c *crashing) use() (dies, happens bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left--
	switch {
	case c.left > 0:
		return false, true
	case c.left == 0:
		c.dead()
		return true, c.after
	default:
		return true, false
	}
}

func (c *crashing) View(ctx context.Context, fn func(state.Reader) error) error {
	dies, happens := c.use()
	var err error
	if happens {
		err = c.Store.View(context.WithoutCancel(ctx), fn)
	}
	if dies {
		return errCrashed
	}
	return err
}

func (c *crashing) Update(ctx context.Context, fn func(state.Tx) error) (state.Revision, error) {
	dies, happens := c.use()
	var rev state.Revision
	var err error
	if happens {
		rev, err = c.Store.Update(context.WithoutCancel(ctx), fn)
	}
	if dies {
		return 0, errCrashed
	}
	return rev, err
}

// TestCrashAnywhere kills the reconciler at each use of its store, before and after the write, while an endpoint is made
// and another one goes; the next start has to bring both to their end.
func TestCrashAnywhere(t *testing.T) {
	t.Parallel()
	for _, after := range []bool{false, true} {
		for n := 1; n <= 11; n++ {
			t.Run(fmt.Sprintf("use %d after=%t", n, after), func(t *testing.T) {
				t.Parallel()
				store := openStore(t)
				s := network.New(network.Config{Store: store, Region: region, AccountID: account})
				w := newSite(t, s)
				comes := w.endpoint(t, s, w.a.ID)
				goes := w.endpoint(t, s, w.b.ID)
				if _, err := s.DeleteVPCEndpoints(t.Context(), []vpc.EndpointID{goes.ID}); err != nil {
					t.Fatal(err)
				}

				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				broken := &crashing{Store: store, left: n, after: after, dead: cancel}
				d, err := loopback.New(loopback.Config{Store: broken, Spread: t.TempDir()})
				if err != nil {
					t.Fatal(err)
				}
				_ = network.New(network.Config{Store: broken, Driver: d, Region: region, AccountID: account, DeletedLinger: time.Millisecond}).Run(ctx) // it dies
				if err := d.Close(); err != nil {
					t.Error(err)
				}

				r := start(t, store)
				awaitState(t, store, comes.ID, vpc.EndpointAvailable)
				await(t, store, "the end of the other", func(rd state.Reader) (bool, error) {
					_, ok, err := vpc.Endpoints().Get(rd, string(goes.ID))
					return !ok, err
				})
				if _, served := r.dial(t, "127.0.0.1", w.vpc.ID, netip.MustParseAddr("10.77.1.4"), 1400); served == nil {
					t.Error("not served")
				}
				if left := must[[]*vpc.NetworkInterface](t)(r.DescribeNetworkInterfaces(t.Context(), nil)); len(left) != 1 {
					t.Errorf("%d interfaces, want 1", len(left))
				}
			})
		}
	}
}

// TestBlocks: a VPC gets and gives back blocks, with what follows from its first IPv6 one.
func TestBlocks(t *testing.T) {
	t.Parallel()
	s, ctx := quiet(t), t.Context()
	w := newSite(t, s)
	changed := must[*vpc.SecurityGroup](t)(s.CreateSecurityGroup(ctx, w.vpc.ID, "changed", "x", nil))
	if _, _, err := s.Authorize(ctx, network.GroupRef{ID: changed.ID}, true, []network.RuleRequest{{Protocol: "tcp", From: new(1), To: new(2), CIDR: "10.0.0.0/8"}}, nil); err != nil {
		t.Fatal(err)
	}
	six := must[vpc.CIDRBlock](t)(s.AssociateBlock(ctx, w.vpc.ID, "", &network.IPv6Block{Amazon: true}))
	again := must[vpc.CIDRBlock](t)(s.AssociateBlock(ctx, w.vpc.ID, "", &network.IPv6Block{Amazon: true}))
	other := must[*vpc.VPC](t)(s.CreateVPC(ctx, "10.0.0.0/16", "", nil, network.IPv6Block{Amazon: true}))
	for i, b := range []vpc.CIDRBlock{six, again, other.IPv6[0]} {
		if b.CIDR.Bits() != 56 || b.CIDR.Addr().As16()[0] != 0xfd || b.CIDR.Addr().As16()[6] != byte(i) || b.Pool != vpc.AmazonPool {
			t.Errorf("block %d: %+v", i, b)
		}
	}
	if _, err := s.AssociateBlock(ctx, other.ID, "", &network.IPv6Block{CIDR: again.CIDR.String()}); code(err) != "InvalidVpc.Range" {
		t.Errorf("a block that another VPC has: %v", err)
	}
	outbound := func(id vpc.SecurityGroupID) (out []string) {
		for _, r := range must[[]*vpc.SecurityGroup](t)(s.DescribeSecurityGroups(ctx, []vpc.SecurityGroupID{id}))[0].Rules {
			if r.Egress {
				out = append(out, r.Peer.CIDR.String())
			}
		}
		return out
	}
	both := []string{"0.0.0.0/0", "::/0"}
	for id, want := range map[vpc.SecurityGroupID][]string{
		w.vpc.DefaultSecurityGroup: both, w.group.ID: both, changed.ID: {"0.0.0.0/0", "10.0.0.0/8"}, other.DefaultSecurityGroup: both,
		must[*vpc.SecurityGroup](t)(s.CreateSecurityGroup(ctx, w.vpc.ID, "new", "x", nil)).ID: both,
	} {
		if d := cmp.Diff(want, outbound(id)); d != "" {
			t.Errorf("what %s lets out (-want +got):\n%s", id, d)
		}
	}
	acl := must[[]*vpc.NetworkACL](t)(s.DescribeNetworkACLs(ctx, []vpc.NetworkACLID{w.vpc.DefaultNetworkACL}))[0]
	var entries []string
	for _, e := range acl.Entries {
		entries = append(entries, fmt.Sprintf("%d %s %t", e.Number, e.CIDR, e.Egress))
	}
	if d := cmp.Diff([]string{"100 0.0.0.0/0 false", "101 ::/0 false", "100 0.0.0.0/0 true", "101 ::/0 true"}, entries); d != "" {
		t.Errorf("default ACL (-want +got):\n%s", d)
	}
	four := must[vpc.CIDRBlock](t)(s.AssociateBlock(ctx, w.vpc.ID, "10.78.0.0/16", nil))
	table := must[[]network.RouteTable](t)(s.DescribeRouteTables(ctx, []vpc.RouteTableID{w.vpc.MainRouteTable}))[0]
	local := map[string]bool{}
	for _, r := range table.Effective {
		local[r.CIDR.String()] = r.Gateway == vpc.LocalGateway
	}
	if !local["10.77.0.0/16"] || !local["10.78.0.0/16"] || !local[six.CIDR.String()] {
		t.Errorf("local routes: %v", local)
	}
	if got := code(s.CreateRoute(ctx, w.vpc.MainRouteTable, vpc.Route{CIDR: six.CIDR, Gateway: w.vpc.Gateway})); got != "RouteAlreadyExists" {
		t.Errorf("a route to a block of the VPC: %q", got)
	}
	if err := s.CreateRoute(ctx, w.vpc.MainRouteTable, vpc.Route{CIDR: netip.MustParsePrefix("10.80.1.0/24"), Gateway: w.vpc.Gateway}); err != nil {
		t.Fatal(err)
	}
	for in, want := range map[string]string{"10.80.0.0/16": "InvalidVpc.Range", "10.80.1.0/24": "InvalidVpc.Range", "10.80.1.0/25": ""} {
		if _, err := s.AssociateBlock(ctx, w.vpc.ID, in, nil); code(err) != want {
			t.Errorf("block %s beside a route to 10.80.1.0/24: got %v, want %q", in, err, want)
		}
	}

	subnet := must[*network.Subnet](t)(s.CreateSubnet(ctx, w.vpc.ID, "10.78.1.0/24", "us-east-1c", nil, network.SubnetIPv6{CIDR: netip.PrefixFrom(six.CIDR.Addr(), 64).String()}))
	if subnet.Native() || subnet.Free != 251 || subnet.AssignIPv6 || subnet.IPv6Association == "" {
		t.Errorf("subnet = %+v", subnet)
	}
	for _, b := range []vpc.CIDRBlock{six, four} {
		if _, _, err := s.DisassociateBlock(ctx, b.Association); code(err) != "InvalidCidrBlock.InUse" {
			t.Errorf("%s with a subnet: %v", b.CIDR, err)
		}
	}
	if err := s.DeleteSubnet(ctx, subnet.ID); err != nil {
		t.Fatal(err)
	}
	for _, b := range []vpc.CIDRBlock{six, four} {
		if _, gone, err := s.DisassociateBlock(ctx, b.Association); err != nil || gone != b {
			t.Errorf("disassociate %s: %v, %v", b.CIDR, gone, err)
		}
	}
	v := must[[]*vpc.VPC](t)(s.DescribeVPCs(ctx, []vpc.VPCID{w.vpc.ID}))[0]
	if len(v.Secondary) != 1 || len(v.IPv6) != 1 || v.IPv6[0] != again {
		t.Errorf("what is left: %+v", v)
	}
}

// TestEndpointsOfBothFamilies on a driver that has no IPv6: the endpoint that needs it fails and says why, the one that has both
// serves IPv4; types change without another interface.
func TestEndpointsOfBothFamilies(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	r := start(t, store)
	ctx := t.Context()
	v := must[*vpc.VPC](t)(r.CreateVPC(ctx, "10.77.0.0/16", "", nil, network.IPv6Block{CIDR: "fd00:77::/56"}))
	dual := must[*network.Subnet](t)(r.CreateSubnet(ctx, v.ID, "10.77.1.0/24", "us-east-1a", nil, network.SubnetIPv6{CIDR: "fd00:77:0:1::/64"}))
	native := must[*network.Subnet](t)(r.CreateSubnet(ctx, v.ID, "", "us-east-1b", nil, network.SubnetIPv6{CIDR: "fd00:77:0:2::/64", Native: true}))
	if !native.Native() || !native.AssignIPv6 || native.Free != 0 {
		t.Errorf("native subnet: %+v", native)
	}
	admitOffice(t, r.Service, v.DefaultSecurityGroup)
	create := func(t6 vpc.IPAddressType, subnets []vpc.SubnetID, chosen map[vpc.SubnetID]network.ChosenAddresses) *vpc.Endpoint {
		t.Helper()
		return must[*vpc.Endpoint](t)(r.CreateVPCEndpoint(ctx, network.CreateEndpoint{
			VPC: v.ID, Service: streaming, Type: vpc.EndpointInterface, IPAddressType: t6, Subnets: subnets, Addresses: chosen,
		}))
	}
	six := awaitState(t, store, create("ipv6", []vpc.SubnetID{native.ID}, nil).ID, vpc.EndpointFailed)
	if six.DNSRecordType != "ipv6" || six.LastError == nil || !strings.Contains(six.LastError.Message, "IPv6") {
		t.Errorf("IPv6 endpoint: %+v, %+v", six, six.LastError)
	}
	if i := r.interfaces(t, six)[0]; i.Addr.IsValid() || i.Addr6.String() != "fd00:77:0:2::4" {
		t.Errorf("its interface: %+v", i)
	}
	e := awaitState(t, store, create("dualstack", nil, map[vpc.SubnetID]network.ChosenAddresses{dual.ID: {IPv6: "fd00:77:0:1::99"}}).ID, vpc.EndpointAvailable)
	first := r.interfaces(t, e)[0]
	if first.Addr.String() != "10.77.1.4" || first.Addr6.String() != "fd00:77:0:1::99" || e.DNSRecordType != "dualstack" {
		t.Errorf("dual endpoint %+v with %+v", e, first)
	}
	if _, served := r.dial(t, "127.0.0.1", v.ID, first.Addr, 443); served == nil {
		t.Error("the dual endpoint does not serve IPv4")
	}
	modify := func(m network.ModifyEndpoint) (*vpc.Endpoint, *vpc.NetworkInterface) {
		t.Helper()
		m.ID = e.ID
		if err := r.ModifyVPCEndpoint(ctx, m); err != nil {
			t.Fatal(err)
		}
		now := awaitState(t, store, e.ID, vpc.EndpointAvailable)
		return now, r.interfaces(t, now)[0]
	}
	now, i := modify(network.ModifyEndpoint{IPAddressType: "ipv4"})
	if i.ID != first.ID || i.Addr != first.Addr || i.Addr6.IsValid() || now.DNSRecordType != "ipv4" {
		t.Errorf("made IPv4: %+v with %+v", now, i)
	}
	now, i = modify(network.ModifyEndpoint{IPAddressType: "dualstack", DNSRecordType: "ipv6"})
	if i.ID != first.ID || i.Addr != first.Addr || i.Addr6.String() != "fd00:77:0:1::4" || now.DNSRecordType != "ipv6" {
		t.Errorf("made dual: %+v with %+v", now, i)
	}
	_, i = modify(network.ModifyEndpoint{Addresses: map[vpc.SubnetID]network.ChosenAddresses{dual.ID: {IPv4: "10.77.1.50", IPv6: "fd00:77:0:1::50"}}})
	if i.ID == first.ID || i.Addr.String() != "10.77.1.50" || i.Addr6.String() != "fd00:77:0:1::50" {
		t.Errorf("with other addresses: %+v", i)
	}
	for name, m := range map[string]network.ModifyEndpoint{
		"to IPv6 in a subnet of both": {IPAddressType: "ipv6"}, "a native subnet": {AddSubnets: []vpc.SubnetID{native.ID}}, "records": {IPAddressType: "ipv4", DNSRecordType: "ipv6"},
	} {
		m.ID = e.ID
		if err := r.ModifyVPCEndpoint(ctx, m); code(err) != "InvalidParameter" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(must[[]*vpc.NetworkInterface](t)(r.DescribeNetworkInterfaces(ctx, nil))); n != 2 {
		t.Errorf("%d interfaces, want 2", n)
	}
}

// TestPrefixLists: a list admits and routes by its entries, and a change of it is in force for all who name it.
func TestPrefixLists(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	r := start(t, store)
	ctx := t.Context()
	w := newSite(t, r.Service)
	e := awaitState(t, store, w.endpoint(t, r.Service, w.a.ID).ID, vpc.EndpointAvailable)
	addr := r.interfaces(t, e)[0].Addr
	list := vpc.PrefixList{ID: "pl-0123456789abcdef0", OwnerID: account, Name: "offices", AddressFamily: vpc.FamilyIPv4, MaxEntries: 40, Version: 1, State: vpc.PrefixListCreated}
	put := func(entries ...string) {
		t.Helper()
		l := list
		for _, x := range entries {
			l.Entries = append(l.Entries, vpc.PrefixListEntry{CIDR: netip.MustParsePrefix(x)})
		}
		if _, err := store.Update(ctx, func(tx state.Tx) error { return vpc.PrefixLists().Put(tx, &l) }); err != nil {
			t.Fatal(err)
		}
	}
	put("192.168.0.0/16", "10.0.0.0/8")
	ref := network.GroupRef{ID: w.group.ID}
	request := network.RuleRequest{Protocol: "tcp", From: new(443), To: new(443), PrefixList: list.ID, Description: "offices"}
	var ids []vpc.SecurityGroupRuleID
	for _, rule := range must[[]*vpc.SecurityGroup](t)(r.DescribeSecurityGroups(ctx, []vpc.SecurityGroupID{w.group.ID}))[0].Rules {
		if !rule.Egress {
			ids = append(ids, rule.ID)
		}
	}
	if _, _, err := r.Revoke(ctx, ref, false, ids, nil); err != nil {
		t.Fatal(err)
	}
	_, added, err := r.Authorize(ctx, ref, false, []network.RuleRequest{request}, nil)
	if err != nil || len(added) != 1 || added[0].Peer.PrefixList != list.ID {
		t.Fatalf("authorize a list: %+v, %v", added, err)
	}
	served := func(want bool, why string) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			_, c := r.dial(t, "127.0.0.1", w.vpc.ID, addr, 443)
			if (c != nil) == want {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: served %t", why, c != nil)
			}
		}
	}
	served(true, "the list has the office")
	put("10.0.0.0/8")
	served(false, "the list lost the office")
	put("192.168.0.0/24")
	served(true, "the list has the office again")

	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"twice":          {second(r.Authorize(ctx, ref, false, []network.RuleRequest{request}, nil)), "InvalidPermission.Duplicate"},
		"more than fits": {second(r.Authorize(ctx, ref, false, []network.RuleRequest{{Protocol: "tcp", From: new(1400), To: new(1499), PrefixList: list.ID}}, nil)), "RulesPerSecurityGroupLimitExceeded"},
		"not there":      {second(r.Authorize(ctx, ref, false, []network.RuleRequest{{Protocol: "-1", PrefixList: "pl-0123456789abcdef1"}}, nil)), "InvalidPrefixListId.NotFound"},
		"wrong form":     {second(r.Authorize(ctx, ref, false, []network.RuleRequest{{Protocol: "-1", PrefixList: "pl-x"}}, nil)), "InvalidPrefixListId.Malformed"},
		"route nowhere":  {r.CreateRoute(ctx, w.vpc.MainRouteTable, vpc.Route{PrefixList: "pl-0123456789abcdef1", Gateway: w.vpc.Gateway}), "InvalidPrefixListId.NotFound"},
		"no such route":  {r.DeleteRoute(ctx, w.vpc.MainRouteTable, vpc.Route{PrefixList: list.ID}), "InvalidRoute.NotFound"},
	} {
		if got := code(tt.err); got != tt.want {
			t.Errorf("%s: got %q (%v), want %q", name, got, tt.err, tt.want)
		}
	}

	dead := vpc.Route{PrefixList: list.ID, Interface: e.Interfaces[0]}
	if err := r.CreateRoute(ctx, w.vpc.MainRouteTable, dead); err != nil {
		t.Fatal(err)
	}
	served(false, "the list leads into a dead end")
	if got := code(r.CreateRoute(ctx, w.vpc.MainRouteTable, dead)); got != "RouteAlreadyExists" {
		t.Errorf("the same route: %q", got)
	}
	for i := range 11 {
		err := r.CreateRoute(ctx, w.vpc.MainRouteTable, vpc.Route{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{1, byte(i), 0, 0}), 16), Gateway: w.vpc.Gateway})
		if want := map[bool]string{true: "RouteLimitExceeded"}[i == 10]; code(err) != want { // 40 of the list and 10
			t.Errorf("route %d: %v, want %q", i, err, want)
		}
	}
	if err := r.ReplaceRoute(ctx, w.vpc.MainRouteTable, vpc.Route{PrefixList: list.ID, Gateway: w.vpc.Gateway}); err != nil {
		t.Fatal(err)
	}
	served(true, "the list leads to the users")
	if err := r.DeleteRoute(ctx, w.vpc.MainRouteTable, vpc.Route{PrefixList: list.ID}); err != nil {
		t.Error(err)
	}
	users := func(t *testing.T) (groups, tables int) {
		if err := store.View(ctx, func(rd state.Reader) error {
			g, err := vpc.SecurityGroups().By(rd, "prefix-list", string(list.ID))
			if err != nil {
				return err
			}
			x, err := vpc.RouteTables().By(rd, "prefix-list", string(list.ID))
			groups, tables = len(g), len(x)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return groups, tables
	}
	if g, x := users(t); g != 1 || x != 0 {
		t.Errorf("%d groups and %d tables name the list, want 1 and 0", g, x)
	}
	if _, _, err := r.Revoke(ctx, ref, false, nil, []network.RuleRequest{request}); err != nil {
		t.Error(err)
	}
	served(false, "the rule was revoked")
	if g, _ := users(t); g != 0 {
		t.Errorf("%d groups name the list", g)
	}
}

// second is the error of an operation.
func second(results ...any) error {
	err, _ := results[len(results)-1].(error)
	return err
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	r := start(t, store)
	ctx := t.Context()
	w := newSite(t, r.Service)
	e := awaitState(t, store, w.endpoint(t, r.Service, w.a.ID).ID, vpc.EndpointAvailable)
	addr := r.interfaces(t, e)[0].Addr
	change := func(fn func() error) {
		t.Helper()
		if err := fn(); err != nil {
			t.Fatal(err)
		}
	}
	main := must[[]network.RouteTable](t)(r.DescribeRouteTables(ctx, []vpc.RouteTableID{w.vpc.MainRouteTable}))[0]
	var origins []string
	for _, x := range main.Effective {
		origins = append(origins, x.CIDR.String()+" "+x.Origin)
	}
	want := []string{"10.77.0.0/16 CreateRouteTable", "192.168.0.0/16 EnableVgwRoutePropagation", "172.16.0.0/16 EnableVgwRoutePropagation"}
	if d := cmp.Diff(want, origins); d != "" {
		t.Errorf("main table (-want +got):\n%s", d)
	}
	own := must[network.RouteTable](t)(r.CreateRouteTable(ctx, w.vpc.ID, nil, ""))
	change(func() error { _, err := r.AssociateRouteTable(ctx, own.ID, w.a.ID); return err })
	if _, served := r.dial(t, "127.0.0.1", w.vpc.ID, addr, 443); served != nil {
		t.Error("served without a way back")
	}
	change(func() error {
		return r.CreateRoute(ctx, own.ID, vpc.Route{CIDR: netip.MustParsePrefix("192.168.0.0/16"), Gateway: w.vpc.Gateway})
	})
	if _, served := r.dial(t, "127.0.0.1", w.vpc.ID, addr, 443); served == nil {
		t.Error("not served with a route back")
	}
	if err := r.CreateRoute(ctx, own.ID, vpc.Route{CIDR: netip.MustParsePrefix("192.168.0.0/16"), Gateway: w.vpc.Gateway}); code(err) != "RouteAlreadyExists" {
		t.Errorf("the same route: %v", err)
	}
	change(func() error {
		return r.ReplaceRoute(ctx, own.ID, vpc.Route{CIDR: netip.MustParsePrefix("192.168.0.0/16"), Interface: e.Interfaces[0]})
	})
	if _, served := r.dial(t, "127.0.0.1", w.vpc.ID, addr, 443); served != nil {
		t.Error("served through a dead end")
	}
	change(func() error {
		return r.DeleteRoute(ctx, own.ID, vpc.Route{CIDR: netip.MustParsePrefix("192.168.0.0/16")})
	})
	tables := must[[]network.RouteTable](t)(r.DescribeRouteTables(ctx, nil))
	i := slices.IndexFunc(tables, func(x network.RouteTable) bool { return x.ID == own.ID })
	change(func() error { return r.DisassociateRouteTable(ctx, tables[i].Associations[0].ID) })
	if _, served := r.dial(t, "127.0.0.1", w.vpc.ID, addr, 443); served == nil {
		t.Error("not served with the main table again")
	}
	if err := r.DeleteRouteTable(ctx, own.ID); err != nil {
		t.Error(err)
	}
	// The role of main table moves with its association.
	next := must[network.RouteTable](t)(r.CreateRouteTable(ctx, w.vpc.ID, nil, ""))
	change(func() error {
		_, err := r.ReplaceRouteTableAssociation(ctx, main.Associations[0].ID, next.ID)
		return err
	})
	if _, served := r.dial(t, "127.0.0.1", w.vpc.ID, addr, 443); served != nil {
		t.Error("served, but the new main table knows no way back")
	}
	if err := r.DeleteRouteTable(ctx, main.ID); err != nil {
		t.Errorf("the former main table: %v", err)
	}
}
