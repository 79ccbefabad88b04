package awscompat

import (
	"net/netip"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"
)

// TestIPv6Walk makes VPCs, subnets, routes, rules and endpoints of both families with the SDK and reads them back. The network
// below is the loopback driver, which has no IPv6: what that means for an endpoint is part of the walk.
func TestIPv6Walk(t *testing.T) {
	t.Parallel()
	a := serveNetworks(t)
	c, ctx := a.ec2, t.Context()
	made := ok[*ec2.CreateVpcOutput](t)(c.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.77.0.0/16"), AmazonProvidedIpv6CidrBlock: aws.Bool(true)})).Vpc
	id := *made.VpcId
	if n := len(made.Ipv6CidrBlockAssociationSet); n != 1 {
		t.Fatalf("%d IPv6 blocks", n)
	}
	six := made.Ipv6CidrBlockAssociationSet[0]
	block := netip.MustParsePrefix(*six.Ipv6CidrBlock)
	if *six.Ipv6Pool != "Amazon" || block.Bits() != 56 || six.IpSource != types.IpSourceAmazon || six.Ipv6CidrBlockState.State != types.VpcCidrBlockStateCodeAssociated {
		t.Errorf("IPv6 block: %+v", six)
	}
	sub := func(n byte) string {
		x := block.Addr().As16()
		x[7] = n
		return netip.PrefixFrom(netip.AddrFrom16(x), 64).String()
	}

	// A second IPv4 block, and an IPv6 block of one's own.
	second := ok[*ec2.AssociateVpcCidrBlockOutput](t)(c.AssociateVpcCidrBlock(ctx, &ec2.AssociateVpcCidrBlockInput{VpcId: &id, CidrBlock: aws.String("10.78.0.0/16")}))
	if second.CidrBlockAssociation.CidrBlockState.State != types.VpcCidrBlockStateCodeAssociating || second.Ipv6CidrBlockAssociation != nil {
		t.Errorf("associate: %+v", second)
	}
	own := ok[*ec2.AssociateVpcCidrBlockOutput](t)(c.AssociateVpcCidrBlock(ctx, &ec2.AssociateVpcCidrBlockInput{
		VpcId: &id, Ipv6CidrBlock: aws.String("2001:db8:77::/48"), Ipv6Pool: aws.String("ipv6pool-ec2-0123456789abcdef0"),
	})).Ipv6CidrBlockAssociation
	if own.IpSource != types.IpSourceByoip || *own.Ipv6CidrBlock != "2001:db8:77::/48" {
		t.Errorf("own block: %+v", own)
	}
	found := ok[*ec2.DescribeVpcsOutput](t)(c.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{Filters: []types.Filter{filter("ipv6-cidr-block-association.ipv6-cidr-block", *own.Ipv6CidrBlock)}}))
	if len(found.Vpcs) != 1 || len(found.Vpcs[0].CidrBlockAssociationSet) != 2 || len(found.Vpcs[0].Ipv6CidrBlockAssociationSet) != 2 {
		t.Fatalf("VPCs with the block: %+v", found.Vpcs)
	}
	for _, association := range []*string{second.CidrBlockAssociation.AssociationId, own.AssociationId} {
		gone := ok[*ec2.DisassociateVpcCidrBlockOutput](t)(c.DisassociateVpcCidrBlock(ctx, &ec2.DisassociateVpcCidrBlockInput{AssociationId: association}))
		if *gone.VpcId != id || (gone.CidrBlockAssociation == nil) == (gone.Ipv6CidrBlockAssociation == nil) {
			t.Errorf("disassociate: %+v", gone)
		}
	}

	native := ok[*ec2.CreateSubnetOutput](t)(c.CreateSubnet(ctx, &ec2.CreateSubnetInput{
		VpcId: &id, Ipv6CidrBlock: aws.String(sub(1)), Ipv6Native: aws.Bool(true), AvailabilityZone: aws.String(region + "a"),
	})).Subnet
	both := ok[*ec2.CreateSubnetOutput](t)(c.CreateSubnet(ctx, &ec2.CreateSubnetInput{
		VpcId: &id, CidrBlock: aws.String("10.77.2.0/24"), Ipv6CidrBlock: aws.String(sub(2)), AvailabilityZone: aws.String(region + "b"),
	})).Subnet
	four := ok[*ec2.CreateSubnetOutput](t)(c.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: &id, CidrBlock: aws.String("10.77.3.0/24"), AvailabilityZone: aws.String(region + "c")})).Subnet
	if native.CidrBlock != nil || !*native.Ipv6Native || !*native.AssignIpv6AddressOnCreation || *native.AvailableIpAddressCount != 0 || *native.Ipv6CidrBlockAssociationSet[0].Ipv6CidrBlock != sub(1) {
		t.Errorf("IPv6-only subnet: %+v", native)
	}
	if *both.CidrBlock != "10.77.2.0/24" || *both.Ipv6Native || *both.AssignIpv6AddressOnCreation || *both.AvailableIpAddressCount != 251 {
		t.Errorf("subnet of both: %+v", both)
	}
	assign := func(subnet *string, on bool) error {
		return refused(c.ModifySubnetAttribute(ctx, &ec2.ModifySubnetAttributeInput{SubnetId: subnet, AssignIpv6AddressOnCreation: &types.AttributeBooleanValue{Value: &on}}))
	}
	if err := assign(both.SubnetId, true); err != nil {
		t.Error(err)
	}
	subnets := ok[*ec2.DescribeSubnetsOutput](t)(c.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{Filters: []types.Filter{filter("ipv6-native", "false"), filter("vpc-id", id)}}))
	if len(subnets.Subnets) != 2 {
		t.Errorf("subnets that are not IPv6 only: %+v", subnets.Subnets)
	}

	// What a VPC with IPv6 begins with.
	acl := ok[*ec2.DescribeNetworkAclsOutput](t)(c.DescribeNetworkAcls(ctx, &ec2.DescribeNetworkAclsInput{Filters: []types.Filter{filter("vpc-id", id)}})).NetworkAcls[0]
	entries := map[int32]string{}
	for _, e := range acl.Entries {
		if !*e.Egress {
			entries[*e.RuleNumber] = string(e.RuleAction) + " " + aws.ToString(e.CidrBlock) + aws.ToString(e.Ipv6CidrBlock)
		}
	}
	if d := cmp.Diff(map[int32]string{100: "allow 0.0.0.0/0", 101: "allow ::/0", 32767: "deny 0.0.0.0/0", 32768: "deny ::/0"}, entries); d != "" {
		t.Errorf("default network ACL (-want +got):\n%s", d)
	}
	group := ok[*ec2.CreateSecurityGroupOutput](t)(c.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{VpcId: &id, GroupName: aws.String("viewers"), Description: aws.String("x")}))
	shape := ok[*ec2.DescribeSecurityGroupsOutput](t)(c.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{GroupIds: []string{*group.GroupId}})).SecurityGroups[0]
	if out := shape.IpPermissionsEgress; len(out) != 1 || len(out[0].IpRanges) != 1 || len(out[0].Ipv6Ranges) != 1 || *out[0].Ipv6Ranges[0].CidrIpv6 != "::/0" {
		t.Errorf("a new group lets out: %+v", out)
	}

	// Routes.
	table := ok[*ec2.DescribeRouteTablesOutput](t)(c.DescribeRouteTables(ctx, &ec2.DescribeRouteTablesInput{Filters: []types.Filter{filter("vpc-id", id)}})).RouteTables[0]
	var gateway string
	local := 0
	for _, r := range table.Routes {
		if r.DestinationIpv6CidrBlock != nil && *r.DestinationIpv6CidrBlock == block.String() && *r.GatewayId == "local" {
			local++
		}
		if r.Origin == types.RouteOriginEnableVgwRoutePropagation {
			gateway = *r.GatewayId
		}
	}
	if local != 1 {
		t.Errorf("routes: %+v", table.Routes)
	}
	to := aws.String("2001:db8::/32")
	if err := refused(c.CreateRoute(ctx, &ec2.CreateRouteInput{RouteTableId: table.RouteTableId, DestinationIpv6CidrBlock: to, GatewayId: &gateway})); err != nil {
		t.Error(err)
	}
	if err := refused(c.ReplaceRoute(ctx, &ec2.ReplaceRouteInput{RouteTableId: table.RouteTableId, DestinationIpv6CidrBlock: to, GatewayId: &gateway})); err != nil {
		t.Error(err)
	}
	tables := ok[*ec2.DescribeRouteTablesOutput](t)(c.DescribeRouteTables(ctx, &ec2.DescribeRouteTablesInput{Filters: []types.Filter{filter("route.destination-ipv6-cidr-block", "2001:db8::/32")}}))
	if len(tables.RouteTables) != 1 {
		t.Errorf("tables with the route: %+v", tables.RouteTables)
	}
	if err := refused(c.DeleteRoute(ctx, &ec2.DeleteRouteInput{RouteTableId: table.RouteTableId, DestinationIpv6CidrBlock: aws.String("2001:db8::/32")})); err != nil {
		t.Error(err)
	}

	// Endpoints.
	create := func(t6 types.IpAddressType, config ...types.SubnetConfiguration) (*types.VpcEndpoint, error) {
		in := &ec2.CreateVpcEndpointInput{
			VpcId: &id, ServiceName: aws.String(streamingService), VpcEndpointType: types.VpcEndpointTypeInterface, IpAddressType: t6,
			SecurityGroupIds: []string{*group.GroupId}, SubnetConfigurations: config, PrivateDnsEnabled: aws.Bool(false),
		}
		for _, s := range config {
			in.SubnetIds = append(in.SubnetIds, *s.SubnetId)
		}
		out, err := c.CreateVpcEndpoint(ctx, in)
		if err != nil {
			return nil, err
		}
		return out.VpcEndpoint, nil
	}
	chosen := netip.MustParsePrefix(sub(2)).Addr().As16()
	chosen[15] = 0x50
	dual, err := create(types.IpAddressTypeDualstack, types.SubnetConfiguration{SubnetId: both.SubnetId, Ipv4: aws.String("10.77.2.50"), Ipv6: aws.String(netip.AddrFrom16(chosen).String())})
	if err != nil {
		t.Fatal(err)
	}
	if dual.IpAddressType != types.IpAddressTypeDualstack || dual.DnsOptions.DnsRecordIpType != types.DnsRecordIpTypeDualstack {
		t.Errorf("dual-stack endpoint: %+v", dual)
	}
	a.endpointState(t, *dual.VpcEndpointId, "available")
	eni := func(id string) types.NetworkInterface {
		return ok[*ec2.DescribeNetworkInterfacesOutput](t)(c.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{id}})).NetworkInterfaces[0]
	}
	i := eni(dual.NetworkInterfaceIds[0])
	if *i.PrivateIpAddress != "10.77.2.50" || *i.Ipv6Addresses[0].Ipv6Address != netip.AddrFrom16(chosen).String() || !*i.DenyAllIgwTraffic {
		t.Errorf("interface: %+v", i)
	}
	if err := refused(c.ModifyVpcEndpoint(ctx, &ec2.ModifyVpcEndpointInput{VpcEndpointId: dual.VpcEndpointId, DnsOptions: &types.DnsOptionsSpecification{DnsRecordIpType: types.DnsRecordIpTypeIpv4}})); err != nil {
		t.Error(err)
	}
	if now := a.endpointState(t, *dual.VpcEndpointId, "available"); now.DnsOptions.DnsRecordIpType != types.DnsRecordIpTypeIpv4 || now.IpAddressType != types.IpAddressTypeDualstack {
		t.Errorf("with other records: %+v", now.DnsOptions)
	}
	six6, err := create(types.IpAddressTypeIpv6, types.SubnetConfiguration{SubnetId: native.SubnetId})
	if err != nil {
		t.Fatal(err)
	}
	failed := a.endpointState(t, *six6.VpcEndpointId, "failed")
	if failed.LastError == nil || failed.FailureReason == nil {
		t.Errorf("an IPv6 endpoint on a network without IPv6: %+v", failed)
	}
	if i := eni(six6.NetworkInterfaceIds[0]); i.PrivateIpAddress != nil || len(i.PrivateIpAddresses) != 0 || len(i.Ipv6Addresses) != 1 {
		t.Errorf("its interface: %+v", i)
	}

	endpoint := func(_ *types.VpcEndpoint, err error) error { return err }
	for _, x := range []struct {
		name, code, says string
		err              error
	}{
		{"IPv6 in an IPv4 subnet", "InvalidParameter", "IPv6", endpoint(create(types.IpAddressTypeIpv6, types.SubnetConfiguration{SubnetId: four.SubnetId}))},
		{"IPv6 in a subnet of both", "InvalidParameter", "not IPv6 only", endpoint(create(types.IpAddressTypeIpv6, types.SubnetConfiguration{SubnetId: both.SubnetId}))},
		{"both in an IPv4 subnet", "InvalidParameter", "no IPv6 CIDR block", endpoint(create(types.IpAddressTypeDualstack, types.SubnetConfiguration{SubnetId: four.SubnetId}))},
		{"IPv4 in an IPv6 subnet", "InvalidParameter", "no IPv4 CIDR block", endpoint(create(types.IpAddressTypeIpv4, types.SubnetConfiguration{SubnetId: native.SubnetId}))},
		{"an address in use", "InvalidIPAddress.InUse", "", endpoint(create(types.IpAddressTypeDualstack, types.SubnetConfiguration{SubnetId: both.SubnetId, Ipv6: aws.String(netip.AddrFrom16(chosen).String())}))},
		{"IPv6 addresses without a block", "InvalidParameterValue", "no IPv6 CIDR block", assign(four.SubnetId, true)},
		{"a subnet in use", "InvalidCidrBlock.InUse", block.String(), refused(c.DisassociateVpcCidrBlock(ctx, &ec2.DisassociateVpcCidrBlockInput{AssociationId: six.AssociationId}))},
		{"the first block", "OperationNotPermitted", "primary", refused(c.DisassociateVpcCidrBlock(ctx, &ec2.DisassociateVpcCidrBlockInput{AssociationId: made.CidrBlockAssociationSet[0].AssociationId}))},
		{"a subnet twice", "InvalidSubnet.Conflict", sub(2), refused(c.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: &id, CidrBlock: aws.String("10.77.9.0/24"), Ipv6CidrBlock: aws.String(sub(2))}))},
		{"a subnet elsewhere", "InvalidSubnet.Range", "", refused(c.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: &id, CidrBlock: aws.String("10.77.9.0/24"), Ipv6CidrBlock: aws.String("fd00:1:2:3::/64")}))},
		{"a route to the VPC itself", "RouteAlreadyExists", block.String(), refused(c.CreateRoute(ctx, &ec2.CreateRouteInput{RouteTableId: table.RouteTableId, DestinationIpv6CidrBlock: aws.String(block.String()), GatewayId: &gateway}))},
		{"a route to IPv4 as IPv6", "InvalidParameterValue", "ipv6CidrBlock", refused(c.CreateRoute(ctx, &ec2.CreateRouteInput{RouteTableId: table.RouteTableId, DestinationIpv6CidrBlock: aws.String("10.0.0.0/8"), GatewayId: &gateway}))},
	} {
		t.Run(x.name, func(t *testing.T) { wantCode(t, x.err, x.code, x.says) })
	}
}
