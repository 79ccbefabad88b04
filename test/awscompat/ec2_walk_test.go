package awscompat

import (
	"context"
	"fmt"
	"net"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/apiserver"
	"penstock.dev/penstock/internal/control/network"
	"penstock.dev/penstock/internal/hostnet/loopback"
	identity "penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/sqlite"
	"penstock.dev/penstock/internal/vpc"
)

const streamingService = "com.amazonaws." + region + ".appstream.streaming"

// netAPI is an API whose networks are real: the reconciler runs on the loopback driver.
type netAPI struct {
	api
	service *network.Service
	driver  *loopback.Driver
	ec2     *ec2.Client
}

func serveNetworks(t *testing.T) *netAPI {
	t.Helper()
	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	driver, err := loopback.New(loopback.Config{Store: store, Spread: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	nets := network.New(network.Config{Store: store, Driver: driver, Region: region, AccountID: account, DeletedLinger: time.Second})
	if _, err := nets.EnsureDefaultVPC(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- nets.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := driver.Close(); err != nil {
			t.Error(err)
		}
	})
	dir := identity.NewDirectory([]identity.Credential{{AccessKeyID: keyID, Secret: secret, Principal: identity.RootOf(account)}}, nil)
	handler, err := apiserver.New(apiserver.Options{AccountID: account, Region: region, Credentials: dir, Roles: dir, Network: nets})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	a := &netAPI{service: nets, driver: driver}
	a.url = srv.URL
	a.ec2 = ec2.NewFromConfig(a.good(), func(o *ec2.Options) { o.RetryMaxAttempts = 1 })
	return a
}

// ok stops the test when a call failed.
func ok[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// refused is the error of a call whose answer does not matter.
func refused[T any](_ T, err error) error { return err }

func filter(name string, values ...string) types.Filter {
	return types.Filter{Name: &name, Values: values}
}

func tcp(from, to int32, cidr string) types.IpPermission {
	return types.IpPermission{IpProtocol: aws.String("tcp"), FromPort: &from, ToPort: &to, IpRanges: []types.IpRange{{CidrIp: &cidr}}}
}

// endpointState polls as scripts do: there is no waiter for endpoints.
func (a *netAPI) endpointState(t *testing.T, id string, want types.State) types.VpcEndpoint {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		out := ok[*ec2.DescribeVpcEndpointsOutput](t)(a.ec2.DescribeVpcEndpoints(t.Context(), &ec2.DescribeVpcEndpointsInput{VpcEndpointIds: []string{id}}))
		if e := out.VpcEndpoints[0]; e.State == want {
			return e
		} else if time.Now().After(end) {
			t.Fatalf("endpoint %s is %s (%+v), want %s", id, e.State, e.LastError, want)
		}
	}
}

// dials connects as a user and says whether the driver admitted the connection.
func (a *netAPI) dials(t *testing.T, from, vpcID, addr string, port uint16) bool {
	t.Helper()
	at, known := a.driver.DialAddr(vpc.VPCID(vpcID), netip.AddrPortFrom(netip.MustParseAddr(addr), port))
	if !known {
		t.Fatalf("no address for %s", vpcID)
	}
	before := a.driver.Stats()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
	c, err := dialer.DialContext(t.Context(), "tcp4", at.String())
	if err == nil {
		defer c.Close()
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		now := a.driver.Stats()
		if now.Admitted > before.Admitted {
			return true
		}
		if now.Refused > before.Refused || err != nil && strings.Contains(err.Error(), "refused") {
			return false
		}
	}
	t.Fatal("the connection was neither admitted nor refused")
	return false
}

// TestNetworkWalk goes through the mission's page: VPC, subnets in two zones, group, ACL, endpoint, and back.
func TestNetworkWalk(t *testing.T) {
	t.Parallel()
	a := serveNetworks(t)
	ctx, c := t.Context(), a.ec2

	v := ok[*ec2.CreateVpcOutput](t)(c.CreateVpc(ctx, &ec2.CreateVpcInput{
		CidrBlock:         aws.String("10.20.0.0/16"),
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeVpc, Tags: []types.Tag{{Key: aws.String("Name"), Value: aws.String("streams")}}}},
	})).Vpc
	if err := ec2.NewVpcAvailableWaiter(c).Wait(ctx, &ec2.DescribeVpcsInput{VpcIds: []string{*v.VpcId}}, 30*time.Second); err != nil {
		t.Fatal(err)
	}
	for attribute, want := range map[types.VpcAttributeName]bool{types.VpcAttributeNameEnableDnsSupport: true, types.VpcAttributeNameEnableDnsHostnames: false, types.VpcAttributeNameEnableNetworkAddressUsageMetrics: false} {
		got := ok[*ec2.DescribeVpcAttributeOutput](t)(c.DescribeVpcAttribute(ctx, &ec2.DescribeVpcAttributeInput{VpcId: v.VpcId, Attribute: attribute}))
		for _, b := range []*types.AttributeBooleanValue{got.EnableDnsSupport, got.EnableDnsHostnames, got.EnableNetworkAddressUsageMetrics} {
			if b != nil && *b.Value != want {
				t.Errorf("%s = %t, want %t", attribute, *b.Value, want)
			}
		}
	}

	// What a VPC is born with, found as Terraform finds it.
	acls := ok[*ec2.DescribeNetworkAclsOutput](t)(c.DescribeNetworkAcls(ctx, &ec2.DescribeNetworkAclsInput{Filters: []types.Filter{filter("default", "true"), filter("vpc-id", *v.VpcId)}})).NetworkAcls
	if len(acls) != 1 || len(acls[0].Entries) != 4 || !*acls[0].IsDefault {
		t.Errorf("default ACL = %+v", acls)
	}
	tables := ok[*ec2.DescribeRouteTablesOutput](t)(c.DescribeRouteTables(ctx, &ec2.DescribeRouteTablesInput{Filters: []types.Filter{filter("association.main", "true"), filter("vpc-id", *v.VpcId)}})).RouteTables
	if len(tables) != 1 || *tables[0].Routes[0].GatewayId != "local" || *tables[0].Routes[0].DestinationCidrBlock != "10.20.0.0/16" || !*tables[0].Associations[0].Main {
		t.Errorf("main table = %+v", tables)
	}
	defaults := ok[*ec2.DescribeSecurityGroupsOutput](t)(c.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{Filters: []types.Filter{filter("group-name", "default"), filter("vpc-id", *v.VpcId)}})).SecurityGroups
	if len(defaults) != 1 || *defaults[0].IpPermissions[0].UserIdGroupPairs[0].GroupId != *defaults[0].GroupId || *defaults[0].IpPermissions[0].UserIdGroupPairs[0].UserId != account {
		t.Errorf("default group = %+v", defaults)
	}

	var subnets []string
	for i, zone := range []string{"us-east-1a", "us-east-1b"} {
		s := ok[*ec2.CreateSubnetOutput](t)(c.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: v.VpcId, CidrBlock: aws.String(fmt.Sprintf("10.20.%d.0/24", i+1)), AvailabilityZone: &zone})).Subnet
		if *s.AvailableIpAddressCount != 251 || *s.AvailabilityZone != zone || *s.AvailabilityZoneId != fmt.Sprintf("use1-az%d", i+1) || s.State != types.SubnetStateAvailable {
			t.Errorf("subnet = %+v", s)
		}
		subnets = append(subnets, *s.SubnetId)
	}
	group := *ok[*ec2.CreateSecurityGroupOutput](t)(c.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{VpcId: v.VpcId, GroupName: aws.String("viewers"), Description: aws.String("streams")})).GroupId
	rules := ok[*ec2.AuthorizeSecurityGroupIngressOutput](t)(c.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{
		GroupId: &group, IpPermissions: []types.IpPermission{tcp(443, 443, "192.168.0.0/16"), tcp(1400, 1499, "192.168.0.0/16")},
	})).SecurityGroupRules
	if len(rules) != 2 || *rules[0].CidrIpv4 != "192.168.0.0/16" || *rules[0].FromPort != 443 || *rules[0].IsEgress {
		t.Errorf("rules = %+v", rules)
	}

	// An ACL of its own, with the return path that the page asks for.
	acl := *ok[*ec2.CreateNetworkAclOutput](t)(c.CreateNetworkAcl(ctx, &ec2.CreateNetworkAclInput{VpcId: v.VpcId})).NetworkAcl.NetworkAclId
	for _, e := range []ec2.CreateNetworkAclEntryInput{
		{RuleNumber: aws.Int32(100), Egress: aws.Bool(false), PortRange: &types.PortRange{From: aws.Int32(443), To: aws.Int32(443)}},
		{RuleNumber: aws.Int32(110), Egress: aws.Bool(false), PortRange: &types.PortRange{From: aws.Int32(1400), To: aws.Int32(1499)}},
		{RuleNumber: aws.Int32(100), Egress: aws.Bool(true), PortRange: &types.PortRange{From: aws.Int32(1024), To: aws.Int32(65535)}},
	} {
		e.NetworkAclId, e.Protocol, e.RuleAction, e.CidrBlock = &acl, aws.String("6"), types.RuleActionAllow, aws.String("192.168.0.0/16")
		if _, err := c.CreateNetworkAclEntry(ctx, &e); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range subnets {
		found := ok[*ec2.DescribeNetworkAclsOutput](t)(c.DescribeNetworkAcls(ctx, &ec2.DescribeNetworkAclsInput{Filters: []types.Filter{filter("association.subnet-id", id)}})).NetworkAcls
		i := slices.IndexFunc(found[0].Associations, func(x types.NetworkAclAssociation) bool { return *x.SubnetId == id })
		old := found[0].Associations[i].NetworkAclAssociationId
		moved := ok[*ec2.ReplaceNetworkAclAssociationOutput](t)(c.ReplaceNetworkAclAssociation(ctx, &ec2.ReplaceNetworkAclAssociationInput{AssociationId: old, NetworkAclId: &acl}))
		if *moved.NewAssociationId == *old {
			t.Error("the association kept its ID")
		}
	}
	own := ok[*ec2.DescribeNetworkAclsOutput](t)(c.DescribeNetworkAcls(ctx, &ec2.DescribeNetworkAclsInput{NetworkAclIds: []string{acl}})).NetworkAcls[0]
	var lines []string
	for _, e := range own.Entries {
		ports := "all"
		if e.PortRange != nil {
			ports = fmt.Sprintf("%d-%d", *e.PortRange.From, *e.PortRange.To)
		}
		lines = append(lines, fmt.Sprintf("egress=%t %d %s %s %s %s", *e.Egress, *e.RuleNumber, e.RuleAction, *e.Protocol, ports, *e.CidrBlock))
	}
	if d := cmp.Diff([]string{
		"egress=true 100 allow 6 1024-65535 192.168.0.0/16", "egress=true 32767 deny -1 all 0.0.0.0/0",
		"egress=false 100 allow 6 443-443 192.168.0.0/16", "egress=false 110 allow 6 1400-1499 192.168.0.0/16", "egress=false 32767 deny -1 all 0.0.0.0/0",
	}, lines); d != "" {
		t.Errorf("entries (-want +got):\n%s", d)
	}

	services := ok[*ec2.DescribeVpcEndpointServicesOutput](t)(c.DescribeVpcEndpointServices(ctx, &ec2.DescribeVpcEndpointServicesInput{Filters: []types.Filter{filter("service-name", "*.appstream.streaming")}}))
	if len(services.ServiceNames) != 1 || services.ServiceNames[0] != streamingService || *services.ServiceDetails[0].VpcEndpointPolicySupported {
		t.Errorf("services = %+v", services)
	}

	create := &ec2.CreateVpcEndpointInput{
		VpcId: v.VpcId, ServiceName: aws.String(streamingService), VpcEndpointType: types.VpcEndpointTypeInterface,
		SubnetIds: subnets, SecurityGroupIds: []string{group}, PrivateDnsEnabled: aws.Bool(true), ClientToken: aws.String("walk"),
	}
	wantCode(t, refused(c.CreateVpcEndpoint(ctx, create)), "InvalidParameter", "enableDnsHostnames")
	if _, err := c.ModifyVpcAttribute(ctx, &ec2.ModifyVpcAttributeInput{VpcId: v.VpcId, EnableDnsHostnames: &types.AttributeBooleanValue{Value: aws.Bool(true)}}); err != nil {
		t.Fatal(err)
	}
	made := ok[*ec2.CreateVpcEndpointOutput](t)(c.CreateVpcEndpoint(ctx, create))
	e := *made.VpcEndpoint
	if e.State != "pending" || *made.ClientToken != "walk" {
		t.Errorf("a new endpoint is %s, token %s", e.State, *made.ClientToken)
	}
	if again := ok[*ec2.CreateVpcEndpointOutput](t)(c.CreateVpcEndpoint(ctx, create)); *again.VpcEndpoint.VpcEndpointId != *e.VpcEndpointId {
		t.Error("the token made a second endpoint")
	}
	e = a.endpointState(t, *e.VpcEndpointId, "available")
	var names []string
	for _, d := range e.DnsEntries {
		names = append(names, strings.Replace(*d.DnsName, *e.VpcEndpointId, "VPCE", 1))
	}
	if len(names) != 4 || !strings.HasPrefix(names[0], "VPCE-") || !strings.HasSuffix(names[0], ".streaming.appstream.us-east-1.vpce.amazonaws.com") ||
		!strings.Contains(names[1], "-us-east-1a.streaming.appstream.") || !strings.HasSuffix(names[3], ".amazonappstream.com") {
		t.Errorf("names = %q", names)
	}
	if d := cmp.Diff([]any{subnets, []string{group}, "viewers", true, false, types.IpAddressTypeIpv4, types.DnsRecordIpTypeIpv4, account},
		[]any{e.SubnetIds, []string{*e.Groups[0].GroupId}, *e.Groups[0].GroupName, *e.PrivateDnsEnabled, *e.RequesterManaged, e.IpAddressType, e.DnsOptions.DnsRecordIpType, *e.OwnerId}); d != "" {
		t.Errorf("endpoint (-want +got):\n%s", d)
	}
	interfaces := ok[*ec2.DescribeNetworkInterfacesOutput](t)(c.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{Filters: []types.Filter{filter("description", "VPC Endpoint Interface "+*e.VpcEndpointId)}})).NetworkInterfaces
	if len(interfaces) != 2 {
		t.Fatalf("interfaces = %+v", interfaces)
	}
	for _, n := range interfaces {
		if n.InterfaceType != types.NetworkInterfaceTypeVpcEndpoint || !*n.RequesterManaged || n.Status != types.NetworkInterfaceStatusInUse || *n.Groups[0].GroupId != group {
			t.Errorf("interface = %+v", n)
		}
		for _, port := range []uint16{443, 1400, 1499} {
			if !a.dials(t, "127.0.0.1", *v.VpcId, *n.PrivateIpAddress, port) {
				t.Errorf("the office does not reach %s port %d", *n.PrivateIpAddress, port)
			}
		}
		if a.dials(t, "127.1.0.5", *v.VpcId, *n.PrivateIpAddress, 443) {
			t.Errorf("a guest reaches %s", *n.PrivateIpAddress)
		}
	}

	// The call returns when the rule is in force.
	if _, err := c.RevokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: &group, SecurityGroupRuleIds: []string{*rules[0].SecurityGroupRuleId}}); err != nil {
		t.Fatal(err)
	}
	if a.dials(t, "127.0.0.1", *v.VpcId, "10.20.1.4", 443) {
		t.Error("admitted after the rule went")
	}
	if !a.dials(t, "127.0.0.1", *v.VpcId, "10.20.1.4", 1400) {
		t.Error("the other rule went too")
	}
	if _, err := c.DeleteNetworkAclEntry(ctx, &ec2.DeleteNetworkAclEntryInput{NetworkAclId: &acl, RuleNumber: aws.Int32(100), Egress: aws.Bool(true)}); err != nil {
		t.Fatal(err)
	}
	if a.dials(t, "127.0.0.1", *v.VpcId, "10.20.1.4", 1400) {
		t.Error("admitted without a way out for the answer")
	}

	if _, err := c.ModifyVpcEndpoint(ctx, &ec2.ModifyVpcEndpointInput{VpcEndpointId: e.VpcEndpointId, RemoveSubnetIds: subnets[1:], PrivateDnsEnabled: aws.Bool(false)}); err != nil {
		t.Fatal(err)
	}
	if e = a.endpointState(t, *e.VpcEndpointId, "available"); len(e.NetworkInterfaceIds) != 1 || *e.PrivateDnsEnabled || len(e.DnsEntries) != 1 {
		t.Errorf("modified endpoint = %+v", e)
	}

	// Down again: what is in use is refused, in the words that clients retry on.
	wantCode(t, refused(c.DeleteVpc(ctx, &ec2.DeleteVpcInput{VpcId: v.VpcId})), "DependencyViolation", "has dependencies")
	wantCode(t, refused(c.DeleteSubnet(ctx, &ec2.DeleteSubnetInput{SubnetId: &subnets[0]})), "DependencyViolation", "has dependencies")
	wantCode(t, refused(c.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: &group})), "DependencyViolation", "dependent object")
	wantCode(t, refused(c.DeleteNetworkAcl(ctx, &ec2.DeleteNetworkAclInput{NetworkAclId: &acl})), "DependencyViolation", "has dependencies")
	deleted := ok[*ec2.DeleteVpcEndpointsOutput](t)(c.DeleteVpcEndpoints(ctx, &ec2.DeleteVpcEndpointsInput{VpcEndpointIds: []string{*e.VpcEndpointId, "vpce-0123456789abcdef0"}}))
	if len(deleted.Unsuccessful) != 1 || *deleted.Unsuccessful[0].Error.Code != "InvalidVpcEndpoint.NotFound" || *deleted.Unsuccessful[0].ResourceId != "vpce-0123456789abcdef0" {
		t.Errorf("unsuccessful = %+v", deleted.Unsuccessful)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		out, err := c.DescribeVpcEndpoints(ctx, &ec2.DescribeVpcEndpointsInput{VpcEndpointIds: []string{*e.VpcEndpointId}})
		if err != nil {
			wantCode(t, err, "InvalidVpcEndpointId.NotFound", "does not exist")
			break
		}
		if s := out.VpcEndpoints[0].State; s != "deleting" && s != "deleted" || time.Now().After(end) {
			t.Fatalf("a deleted endpoint is %s", s)
		}
	}
	for _, id := range subnets {
		if _, err := c.DeleteSubnet(ctx, &ec2.DeleteSubnetInput{SubnetId: &id}); err != nil {
			t.Error(err)
		}
	}
	for what, err := range map[string]error{
		"acl":   refused(c.DeleteNetworkAcl(ctx, &ec2.DeleteNetworkAclInput{NetworkAclId: &acl})),
		"group": refused(c.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: &group})),
	} {
		if err != nil {
			t.Errorf("delete %s: %v", what, err)
		}
	}
	if _, err := c.DeleteVpc(ctx, &ec2.DeleteVpcInput{VpcId: v.VpcId}); err != nil {
		t.Error(err)
	}
	wantCode(t, refused(c.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{VpcIds: []string{*v.VpcId}})), "InvalidVpcID.NotFound", *v.VpcId)
}

func TestNetworkErrorsOnTheWire(t *testing.T) {
	t.Parallel()
	a := serveNetworks(t)
	ctx, c := t.Context(), a.ec2
	def := ok[*ec2.DescribeVpcsOutput](t)(c.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{Filters: []types.Filter{filter("is-default", "true")}})).Vpcs[0]
	if *def.CidrBlock != "172.31.0.0/16" || !*def.IsDefault {
		t.Errorf("default VPC = %+v", def)
	}
	sub := ok[*ec2.DescribeSubnetsOutput](t)(c.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{Filters: []types.Filter{filter("default-for-az", "true"), filter("availability-zone", "us-east-1?")}})).Subnets
	if len(sub) != 3 {
		t.Errorf("%d default subnets, want 3", len(sub))
	}
	for _, tt := range []struct {
		name, code, says string
		err              error
	}{
		{"unknown filter", "InvalidParameterValue", "magic", refused(c.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{Filters: []types.Filter{filter("magic", "x")}}))},
		{"token", "InvalidNextToken", "", refused(c.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{NextToken: aws.String("nonsense")}))},
		{"two attributes", "InvalidParameterCombination", "", refused(c.ModifyVpcAttribute(ctx, &ec2.ModifyVpcAttributeInput{VpcId: def.VpcId, EnableDnsHostnames: &types.AttributeBooleanValue{Value: aws.Bool(true)}, EnableDnsSupport: &types.AttributeBooleanValue{Value: aws.Bool(true)}}))},
		{"no attribute", "MissingParameter", "", refused(c.ModifyVpcAttribute(ctx, &ec2.ModifyVpcAttributeInput{VpcId: def.VpcId}))},
		{"type left out", "InvalidParameter", "Gateway", refused(c.CreateVpcEndpoint(ctx, &ec2.CreateVpcEndpointInput{VpcId: def.VpcId, ServiceName: aws.String(streamingService), SubnetIds: []string{*sub[0].SubnetId}}))},
		{"service", "InvalidServiceName", "s3", refused(c.CreateVpcEndpoint(ctx, &ec2.CreateVpcEndpointInput{VpcId: def.VpcId, ServiceName: aws.String("com.amazonaws.us-east-1.s3")}))},
		{"malformed vpc", "InvalidVpcID.Malformed", "", refused(c.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{VpcIds: []string{"vpc-x"}}))},
		{"group", "InvalidGroup.NotFound", "", refused(c.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{GroupNames: []string{"nobody"}}))},
		{"eni", "InvalidNetworkInterfaceID.NotFound", "", refused(c.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{"eni-0123456789abcdef0"}}))},
		{"tag type", "InvalidParameterValue", "taggable", refused(c.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.0.0.0/16"), TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeSubnet, Tags: []types.Tag{{Key: aws.String("a")}}}}}))},
		{"ipv6 of a pool", "UnsupportedOperation", "IPAM", refused(c.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.0.0.0/16"), Ipv6IpamPoolId: aws.String("ipam-pool-0123456789abcdef0")}))},
		{"dry run", "DryRunOperation", "", refused(c.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.0.0.0/16"), DryRun: aws.Bool(true)}))},
		{"prefix list", "InvalidPrefixListId.NotFound", "", refused(c.DescribePrefixLists(ctx, &ec2.DescribePrefixListsInput{PrefixListIds: []string{"pl-0123456789abcdef0"}}))},
		{"zone", "InvalidParameterValue", "", refused(c.DescribeAvailabilityZones(ctx, &ec2.DescribeAvailabilityZonesInput{ZoneNames: []string{"mars-1a"}}))},
		{"acl entry's ports", "MissingParameter", "portRange", refused(c.CreateNetworkAclEntry(ctx, &ec2.CreateNetworkAclEntryInput{NetworkAclId: aws.String("acl-0123456789abcdef0"), RuleNumber: aws.Int32(1), Egress: aws.Bool(true), Protocol: aws.String("6"), RuleAction: types.RuleActionAllow, CidrBlock: aws.String("0.0.0.0/0")}))},
	} {
		t.Run(tt.name, func(t *testing.T) { wantCode(t, tt.err, tt.code, tt.says) })
	}
	if got := ok[*ec2.DescribePrefixListsOutput](t)(c.DescribePrefixLists(ctx, &ec2.DescribePrefixListsInput{Filters: []types.Filter{filter("prefix-list-name", streamingService)}})); len(got.PrefixLists) != 0 {
		t.Errorf("prefix lists = %+v", got.PrefixLists)
	}
	if got := ok[*ec2.DescribeVpcsOutput](t)(c.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{Filters: []types.Filter{filter("cidr", "10.0.0.0/16")}})); len(got.Vpcs) != 0 {
		t.Errorf("a refused call made %+v", got.Vpcs)
	}
}

func TestNetworkPages(t *testing.T) {
	t.Parallel()
	a := serveNetworks(t)
	ctx, c := t.Context(), a.ec2
	v := ok[*ec2.CreateVpcOutput](t)(c.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.30.0.0/16")})).Vpc
	want := map[string]bool{}
	for n := range 23 {
		s := ok[*ec2.CreateSubnetOutput](t)(c.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: v.VpcId, CidrBlock: aws.String(fmt.Sprintf("10.30.%d.0/24", n))})).Subnet
		want[*s.SubnetId] = true
	}
	pages := ec2.NewDescribeSubnetsPaginator(c, &ec2.DescribeSubnetsInput{Filters: []types.Filter{filter("vpc-id", *v.VpcId)}, MaxResults: aws.Int32(5)})
	var sizes []int
	for pages.HasMorePages() {
		p := ok[*ec2.DescribeSubnetsOutput](t)(pages.NextPage(ctx))
		sizes = append(sizes, len(p.Subnets))
		for _, s := range p.Subnets {
			if !want[*s.SubnetId] {
				t.Errorf("%s came twice or should not have come", *s.SubnetId)
			}
			delete(want, *s.SubnetId)
		}
	}
	if d := cmp.Diff([]int{5, 5, 5, 5, 3}, sizes); d != "" || len(want) != 0 {
		t.Errorf("pages (-want +got):\n%s\nmissing: %v", d, want)
	}
}

// TestSecurityGroupsAsTerraform repeats the calls that its provider makes for a group.
func TestSecurityGroupsAsTerraform(t *testing.T) {
	t.Parallel()
	a := serveNetworks(t)
	ctx, c := t.Context(), a.ec2
	v := ok[*ec2.CreateVpcOutput](t)(c.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.40.0.0/16")})).Vpc
	group := ok[*ec2.CreateSecurityGroupOutput](t)(c.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{VpcId: v.VpcId, GroupName: aws.String("tf"), Description: aws.String("Managed by Terraform")})).GroupId
	everything := types.IpPermission{IpProtocol: aws.String("-1"), FromPort: aws.Int32(0), ToPort: aws.Int32(0), IpRanges: []types.IpRange{{CidrIp: aws.String("0.0.0.0/0")}}}
	if _, err := c.RevokeSecurityGroupEgress(ctx, &ec2.RevokeSecurityGroupEgressInput{GroupId: group, IpPermissions: []types.IpPermission{everything}}); err != nil {
		t.Fatal(err)
	}
	everything.IpRanges, everything.Ipv6Ranges = nil, []types.Ipv6Range{{CidrIpv6: aws.String("::/0")}}
	wantCode(t, refused(c.RevokeSecurityGroupEgress(ctx, &ec2.RevokeSecurityGroupEgressInput{GroupId: group, IpPermissions: []types.IpPermission{everything}})), "InvalidPermission.NotFound", "")
	in := []types.IpPermission{
		{IpProtocol: aws.String("tcp"), FromPort: aws.Int32(443), ToPort: aws.Int32(443), IpRanges: []types.IpRange{{CidrIp: aws.String("10.0.0.0/8"), Description: aws.String("a")}, {CidrIp: aws.String("192.168.0.0/16")}}},
		{IpProtocol: aws.String("icmp"), FromPort: aws.Int32(8), ToPort: aws.Int32(-1), IpRanges: []types.IpRange{{CidrIp: aws.String("0.0.0.0/0")}}},
		{IpProtocol: aws.String("-1"), UserIdGroupPairs: []types.UserIdGroupPair{{GroupId: group, UserId: aws.String(account)}}},
	}
	made := ok[*ec2.AuthorizeSecurityGroupIngressOutput](t)(c.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: group, IpPermissions: in}))
	if len(made.SecurityGroupRules) != 4 || *made.SecurityGroupRules[3].FromPort != -1 || *made.SecurityGroupRules[3].ReferencedGroupInfo.GroupId != *group {
		t.Errorf("rules = %+v", made.SecurityGroupRules)
	}
	got := ok[*ec2.DescribeSecurityGroupsOutput](t)(c.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{GroupIds: []string{*group}})).SecurityGroups[0]
	if len(got.IpPermissionsEgress) != 0 || len(got.IpPermissions) != 3 {
		t.Fatalf("group = %+v", got)
	}
	if p := got.IpPermissions[2]; p.FromPort != nil || p.ToPort != nil || *p.IpProtocol != "-1" {
		t.Errorf("all traffic = %+v", p)
	}
	if p := got.IpPermissions[1]; *p.FromPort != 8 || *p.ToPort != -1 {
		t.Errorf("icmp = %+v", p)
	}
	wantCode(t, refused(c.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: group, IpPermissions: in[:1]})), "InvalidPermission.Duplicate", "already exists")
	if _, err := c.RevokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: group, IpPermissions: in}); err != nil {
		t.Error(err)
	}
	// The older form, one rule in the request itself.
	if _, err := c.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: group, IpProtocol: aws.String("tcp"), FromPort: aws.Int32(22), ToPort: aws.Int32(22), CidrIp: aws.String("10.0.0.0/8")}); err != nil {
		t.Error(err)
	}
	all := ok[*ec2.DescribeSecurityGroupRulesOutput](t)(c.DescribeSecurityGroupRules(ctx, &ec2.DescribeSecurityGroupRulesInput{Filters: []types.Filter{filter("group-id", *group)}})).SecurityGroupRules
	if len(all) != 1 || *all[0].FromPort != 22 {
		t.Errorf("rules = %+v", all)
	}
}

func TestNetworkTags(t *testing.T) {
	t.Parallel()
	a := serveNetworks(t)
	ctx, c := t.Context(), a.ec2
	v := ok[*ec2.CreateVpcOutput](t)(c.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.50.0.0/16")})).Vpc
	tags := []types.Tag{{Key: aws.String("Name"), Value: aws.String("x")}, {Key: aws.String("team"), Value: aws.String("")}}
	if _, err := c.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{*v.VpcId}, Tags: tags}); err != nil {
		t.Fatal(err)
	}
	for _, f := range []types.Filter{filter("tag:Name", "x"), filter("tag-key", "team"), filter("tag:team", ""), filter("tag:Name", "?"), filter("tag:Name", "nope", "*")} {
		got := ok[*ec2.DescribeVpcsOutput](t)(c.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{Filters: []types.Filter{f}})).Vpcs
		if len(got) != 1 || *got[0].VpcId != *v.VpcId {
			t.Errorf("%s %v: %d VPCs", *f.Name, f.Values, len(got))
		}
	}
	all := ok[*ec2.DescribeTagsOutput](t)(c.DescribeTags(ctx, &ec2.DescribeTagsInput{Filters: []types.Filter{filter("resource-id", *v.VpcId)}})).Tags
	if len(all) != 2 || *all[0].Key != "Name" || all[0].ResourceType != types.ResourceTypeVpc {
		t.Errorf("tags = %+v", all)
	}
	if _, err := c.DeleteTags(ctx, &ec2.DeleteTagsInput{Resources: []string{*v.VpcId}, Tags: []types.Tag{{Key: aws.String("Name")}}}); err != nil {
		t.Fatal(err)
	}
	got := ok[*ec2.DescribeVpcsOutput](t)(c.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{VpcIds: []string{*v.VpcId}})).Vpcs[0]
	if len(got.Tags) != 1 || *got.Tags[0].Key != "team" {
		t.Errorf("tags = %+v", got.Tags)
	}
}
