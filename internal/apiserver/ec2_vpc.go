package apiserver

import (
	"cmp"
	"context"
	"slices"
	"strconv"

	"penstock.dev/penstock/internal/control/network"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/vpc"
	api "penstock.dev/penstock/internal/wire/ec2api"
)

// ec2Unsupported refuses a member that asks for something that cannot be here.
func ec2Unsupported(present bool, member, why string) error {
	if !present {
		return nil
	}
	return fault.Newf(fault.Unsupported, "", "", "The parameter %s is not supported: %s", member, why).WithCode("UnsupportedOperation")
}

// blockShape is an association of an IPv4 block; state is "associated" unless it changes in this call.
func blockShape(b vpc.CIDRBlock, state string) api.VpcCidrBlockAssociation {
	return api.VpcCidrBlockAssociation{AssociationId: new(b.Association), CidrBlock: new(b.CIDR.String()), CidrBlockState: &api.VpcCidrBlockState{State: new(state)}}
}

// blockShape6 is an association of an IPv6 block.
func (h *ec2Handlers) blockShape6(b vpc.CIDRBlock, state string) api.VpcIpv6CidrBlockAssociation {
	out := api.VpcIpv6CidrBlockAssociation{
		AssociationId: new(b.Association), Ipv6CidrBlock: new(b.CIDR.String()), Ipv6CidrBlockState: &api.VpcCidrBlockState{State: new(state)},
		NetworkBorderGroup: new(h.region), Ipv6Pool: strOrNil(b.Pool), IpSource: new("byoip"), Ipv6AddressAttribute: new("public"),
	}
	if b.Pool == vpc.AmazonPool {
		out.IpSource = new("amazon")
	}
	if b.CIDR.Addr().IsPrivate() {
		out.Ipv6AddressAttribute = new("private")
	}
	return out
}

func (h *ec2Handlers) vpcShape(v *vpc.VPC) api.Vpc {
	out := api.Vpc{
		VpcId: new(string(v.ID)), OwnerId: new(v.OwnerID), CidrBlock: new(v.CIDR.String()), State: new("available"),
		InstanceTenancy: new(v.Tenancy), IsDefault: new(v.Default), DhcpOptionsId: new(v.DHCPOptions), Tags: ec2Tags(v.Tags),
		CidrBlockAssociationSet:     []api.VpcCidrBlockAssociation{blockShape(vpc.CIDRBlock{Association: v.CIDRAssociation, CIDR: v.CIDR}, "associated")},
		Ipv6CidrBlockAssociationSet: []api.VpcIpv6CidrBlockAssociation{},
	}
	for _, b := range v.Secondary {
		out.CidrBlockAssociationSet = append(out.CidrBlockAssociationSet, blockShape(b, "associated"))
	}
	for _, b := range v.IPv6 {
		out.Ipv6CidrBlockAssociationSet = append(out.Ipv6CidrBlockAssociationSet, h.blockShape6(b, "associated"))
	}
	return out
}

// ipv6Block reads the request for an IPv6 block; nil: none.
func ipv6Block(amazon *bool, cidr, pool, border *string) (*network.IPv6Block, error) {
	if border != nil && !deref(amazon) {
		return nil, fault.New(fault.Combination, "", "", "Ipv6CidrBlockNetworkBorderGroup needs AmazonProvidedIpv6CidrBlock").WithCode("InvalidParameterCombination")
	}
	if !deref(amazon) && cidr == nil && pool == nil {
		return nil, nil //nolint:nilnil // nothing was asked for
	}
	return &network.IPv6Block{Amazon: deref(amazon), CIDR: deref(cidr), Pool: deref(pool)}, nil
}

func (h *ec2Handlers) associateVpcCidrBlock(ctx context.Context, _ Caller, in *api.AssociateVpcCidrBlockInput) (*api.AssociateVpcCidrBlockOutput, error) {
	six, err := ipv6Block(in.AmazonProvidedIpv6CidrBlock, in.Ipv6CidrBlock, in.Ipv6Pool, in.Ipv6CidrBlockNetworkBorderGroup)
	if err := cmp.Or(
		ec2Unsupported(in.Ipv4IpamPoolId != nil || in.Ipv4NetmaskLength != nil, "Ipv4IpamPoolId", "there is no IPAM"),
		ec2Unsupported(in.Ipv6IpamPoolId != nil || in.Ipv6NetmaskLength != nil, "Ipv6IpamPoolId", "there is no IPAM"),
		err,
	); err != nil {
		return nil, err
	}
	b, err := h.net.AssociateBlock(ctx, vpc.VPCID(deref(in.VpcId)), deref(in.CidrBlock), six)
	if err != nil {
		return nil, err
	}
	out := &api.AssociateVpcCidrBlockOutput{VpcId: in.VpcId}
	if b.CIDR.Addr().Is6() {
		out.Ipv6CidrBlockAssociation = new(h.blockShape6(b, "associating"))
	} else {
		out.CidrBlockAssociation = new(blockShape(b, "associating"))
	}
	return out, nil
}

func (h *ec2Handlers) disassociateVpcCidrBlock(ctx context.Context, _ Caller, in *api.DisassociateVpcCidrBlockInput) (*api.DisassociateVpcCidrBlockOutput, error) {
	v, b, err := h.net.DisassociateBlock(ctx, deref(in.AssociationId))
	if err != nil {
		return nil, err
	}
	out := &api.DisassociateVpcCidrBlockOutput{VpcId: new(string(v.ID))}
	if b.CIDR.Addr().Is6() {
		out.Ipv6CidrBlockAssociation = new(h.blockShape6(b, "disassociating"))
	} else {
		out.CidrBlockAssociation = new(blockShape(b, "disassociating"))
	}
	return out, nil
}

func (h *ec2Handlers) createVpc(ctx context.Context, _ Caller, in *api.CreateVpcInput) (*api.CreateVpcOutput, error) {
	six, err := ipv6Block(in.AmazonProvidedIpv6CidrBlock, in.Ipv6CidrBlock, in.Ipv6Pool, in.Ipv6CidrBlockNetworkBorderGroup)
	if err := cmp.Or(
		ec2Unsupported(in.Ipv4IpamPoolId != nil || in.Ipv4NetmaskLength != nil, "Ipv4IpamPoolId", "there is no IPAM"),
		ec2Unsupported(in.Ipv6IpamPoolId != nil || in.Ipv6NetmaskLength != nil, "Ipv6IpamPoolId", "there is no IPAM"),
		err,
	); err != nil {
		return nil, err
	}
	tags, err := specifiedTags(in.TagSpecifications, "vpc")
	if err != nil {
		return nil, err
	}
	var blocks []network.IPv6Block
	if six != nil {
		blocks = append(blocks, *six)
	}
	v, err := h.net.CreateVPC(ctx, deref(in.CidrBlock), deref(in.InstanceTenancy), tags, blocks...)
	if err != nil {
		return nil, err
	}
	return &api.CreateVpcOutput{Vpc: new(h.vpcShape(v))}, nil
}

func (h *ec2Handlers) describeVpcs(ctx context.Context, _ Caller, in *api.DescribeVpcsInput) (*api.DescribeVpcsOutput, error) {
	all, err := h.net.DescribeVPCs(ctx, ec2IDs[vpc.VPCID](in.VpcIds))
	if err != nil {
		return nil, err
	}
	items := make([]api.Vpc, 0, len(all))
	for _, v := range all {
		items = append(items, h.vpcShape(v))
	}
	associations := func(v *api.Vpc) []api.VpcCidrBlockAssociation { return v.CidrBlockAssociationSet }
	associations6 := func(v *api.Vpc) []api.VpcIpv6CidrBlockAssociation { return v.Ipv6CidrBlockAssociationSet }
	f := ec2Filter[api.Vpc]{
		"cidr":                                        one(func(v *api.Vpc) string { return *v.CidrBlock }),
		"cidr-block-association.cidr-block":           every(associations, func(a *api.VpcCidrBlockAssociation) string { return *a.CidrBlock }),
		"cidr-block-association.association-id":       every(associations, func(a *api.VpcCidrBlockAssociation) string { return *a.AssociationId }),
		"cidr-block-association.state":                every(associations, func(a *api.VpcCidrBlockAssociation) string { return *a.CidrBlockState.State }),
		"dhcp-options-id":                             one(func(v *api.Vpc) string { return *v.DhcpOptionsId }),
		"ipv6-cidr-block-association.ipv6-pool":       every(associations6, func(a *api.VpcIpv6CidrBlockAssociation) string { return deref(a.Ipv6Pool) }),
		"ipv6-cidr-block-association.state":           every(associations6, func(a *api.VpcIpv6CidrBlockAssociation) string { return *a.Ipv6CidrBlockState.State }),
		"ipv6-cidr-block-association.association-id":  every(associations6, func(a *api.VpcIpv6CidrBlockAssociation) string { return *a.AssociationId }),
		"ipv6-cidr-block-association.ipv6-cidr-block": every(associations6, func(a *api.VpcIpv6CidrBlockAssociation) string { return *a.Ipv6CidrBlock }),
		"is-default":                                  yes(func(v *api.Vpc) bool { return *v.IsDefault }),
		"isDefault":                                   yes(func(v *api.Vpc) bool { return *v.IsDefault }), // as older clients spell it
		"owner-id":                                    one(func(v *api.Vpc) string { return *v.OwnerId }),
		"state":                                       one(func(v *api.Vpc) string { return *v.State }),
		"vpc-id":                                      one(func(v *api.Vpc) string { return *v.VpcId }),
	}
	items, next, err := found(items, f, in.Filters, func(v *api.Vpc) []api.Tag { return v.Tags }, func(v *api.Vpc) string { return *v.VpcId }, in.MaxResults, in.NextToken)
	return &api.DescribeVpcsOutput{Vpcs: items, NextToken: next}, err
}

func (h *ec2Handlers) deleteVpc(ctx context.Context, _ Caller, in *api.DeleteVpcInput) (*api.DeleteVpcOutput, error) {
	return nil, h.net.DeleteVPC(ctx, vpc.VPCID(deref(in.VpcId)))
}

func (h *ec2Handlers) modifyVpcAttribute(ctx context.Context, _ Caller, in *api.ModifyVpcAttributeInput) (*api.ModifyVpcAttributeOutput, error) {
	var attribute network.VPCAttribute
	var value *bool
	given := 0
	for _, a := range []struct {
		name network.VPCAttribute
		v    *api.AttributeBooleanValue
	}{
		{network.EnableDNSSupport, in.EnableDnsSupport},
		{network.EnableDNSHostnames, in.EnableDnsHostnames},
		{network.EnableNetworkAddressUsageMetrics, in.EnableNetworkAddressUsageMetrics},
	} {
		if a.v != nil {
			attribute, value = a.name, a.v.Value
			given++
		}
	}
	if err := oneAttribute(given); err != nil {
		return nil, err
	}
	return nil, h.net.ModifyVPCAttribute(ctx, vpc.VPCID(deref(in.VpcId)), attribute, deref(value))
}

// oneAttribute holds for the operations that change one attribute a call.
func oneAttribute(given int) error {
	switch given {
	case 1:
		return nil
	case 0:
		return fault.New(fault.Missing, "", "", "The request must contain exactly one attribute to modify").WithCode("MissingParameter")
	default:
		return fault.New(fault.Combination, "", "", "Only one attribute may be modified at a time").WithCode("InvalidParameterCombination")
	}
}

func (h *ec2Handlers) describeVpcAttribute(ctx context.Context, _ Caller, in *api.DescribeVpcAttributeInput) (*api.DescribeVpcAttributeOutput, error) {
	all, err := h.net.DescribeVPCs(ctx, []vpc.VPCID{vpc.VPCID(deref(in.VpcId))})
	if err != nil {
		return nil, err
	}
	v := all[0]
	out := &api.DescribeVpcAttributeOutput{VpcId: new(string(v.ID))}
	switch network.VPCAttribute(deref(in.Attribute)) {
	case network.EnableDNSSupport:
		out.EnableDnsSupport = &api.AttributeBooleanValue{Value: new(v.DNSSupport)}
	case network.EnableDNSHostnames:
		out.EnableDnsHostnames = &api.AttributeBooleanValue{Value: new(v.DNSHostnames)}
	case network.EnableNetworkAddressUsageMetrics:
		out.EnableNetworkAddressUsageMetrics = &api.AttributeBooleanValue{Value: new(v.AddressUsageMetrics)}
	default:
		return nil, fault.Newf(fault.Invalid, "", "", "Value (%.80s) for parameter attribute is invalid. Unknown attribute.", deref(in.Attribute)).WithCode("InvalidParameterValue")
	}
	return out, nil
}

func (h *ec2Handlers) subnetShape(n *network.Subnet) api.Subnet {
	zone, _ := vpc.FindZone(h.region, n.Zone)
	out := api.Subnet{
		SubnetId: new(string(n.ID)), VpcId: new(string(n.VPC)), OwnerId: new(n.OwnerID), State: new("available"),
		AvailableIpAddressCount: i32(n.Free), AvailabilityZone: new(n.Zone), AvailabilityZoneId: new(zone.ID),
		DefaultForAz: new(n.DefaultForAZ), MapPublicIpOnLaunch: new(n.MapPublicIP), MapCustomerOwnedIpOnLaunch: new(false),
		AssignIpv6AddressOnCreation: new(n.AssignIPv6), Ipv6CidrBlockAssociationSet: []api.SubnetIpv6CidrBlockAssociation{},
		EnableDns64: new(false), Ipv6Native: new(n.Native()), SubnetArn: new(h.ec2ARN("subnet", string(n.ID))), Tags: ec2Tags(n.Tags),
		PrivateDnsNameOptionsOnLaunch: &api.PrivateDnsNameOptionsOnLaunch{
			HostnameType: new(n.HostnameType), EnableResourceNameDnsARecord: new(n.ResourceNameA), EnableResourceNameDnsAAAARecord: new(n.ResourceNameAAAA),
		},
	}
	if !n.Native() {
		out.CidrBlock = new(n.CIDR.String())
	}
	if n.IPv6.IsValid() {
		out.Ipv6CidrBlockAssociationSet = append(out.Ipv6CidrBlockAssociationSet, api.SubnetIpv6CidrBlockAssociation{
			AssociationId: new(n.IPv6Association), Ipv6CidrBlock: new(n.IPv6.String()), Ipv6CidrBlockState: &api.SubnetCidrBlockState{State: new("associated")},
		})
	}
	return out
}

func (h *ec2Handlers) createSubnet(ctx context.Context, _ Caller, in *api.CreateSubnetInput) (*api.CreateSubnetOutput, error) {
	if err := cmp.Or(
		ec2Unsupported(in.Ipv6IpamPoolId != nil || in.Ipv6NetmaskLength != nil, "Ipv6IpamPoolId", "there is no IPAM"),
		ec2Unsupported(in.Ipv4IpamPoolId != nil || in.Ipv4NetmaskLength != nil, "Ipv4IpamPoolId", "there is no IPAM"),
		ec2Unsupported(in.OutpostArn != nil, "OutpostArn", "there are no outposts"),
	); err != nil {
		return nil, err
	}
	if in.AvailabilityZone != nil && in.AvailabilityZoneId != nil {
		return nil, fault.New(fault.Combination, "", "", "Only one of AvailabilityZone and AvailabilityZoneId may be given").WithCode("InvalidParameterCombination")
	}
	tags, err := specifiedTags(in.TagSpecifications, "subnet")
	if err != nil {
		return nil, err
	}
	n, err := h.net.CreateSubnet(ctx, vpc.VPCID(deref(in.VpcId)), deref(in.CidrBlock), deref(in.AvailabilityZone)+deref(in.AvailabilityZoneId), tags,
		network.SubnetIPv6{CIDR: deref(in.Ipv6CidrBlock), Native: deref(in.Ipv6Native)})
	if err != nil {
		return nil, err
	}
	return &api.CreateSubnetOutput{Subnet: new(h.subnetShape(n))}, nil
}

func (h *ec2Handlers) describeSubnets(ctx context.Context, _ Caller, in *api.DescribeSubnetsInput) (*api.DescribeSubnetsOutput, error) {
	all, err := h.net.DescribeSubnets(ctx, ec2IDs[vpc.SubnetID](in.SubnetIds))
	if err != nil {
		return nil, err
	}
	items := make([]api.Subnet, 0, len(all))
	for i := range all {
		items = append(items, h.subnetShape(&all[i]))
	}
	type s = api.Subnet
	associations := func(v *s) []api.SubnetIpv6CidrBlockAssociation { return v.Ipv6CidrBlockAssociationSet }
	f := ec2Filter[s]{
		"availability-zone":          one(func(v *s) string { return *v.AvailabilityZone }),
		"availabilityZone":           one(func(v *s) string { return *v.AvailabilityZone }),
		"availability-zone-id":       one(func(v *s) string { return *v.AvailabilityZoneId }),
		"available-ip-address-count": one(func(v *s) string { return strconv.Itoa(int(*v.AvailableIpAddressCount)) }),
		"cidr-block":                 one(func(v *s) string { return deref(v.CidrBlock) }),
		"cidr":                       one(func(v *s) string { return deref(v.CidrBlock) }),
		"cidrBlock":                  one(func(v *s) string { return deref(v.CidrBlock) }),
		"customer-owned-ipv4-pool":   never[s],
		"default-for-az":             yes(func(v *s) bool { return *v.DefaultForAz }),
		"defaultForAz":               yes(func(v *s) bool { return *v.DefaultForAz }),
		"enable-dns64":               yes(func(*s) bool { return false }),
		"enable-lni-at-device-index": never[s],
		"ipv6-cidr-block-association.ipv6-cidr-block":      every(associations, func(a *api.SubnetIpv6CidrBlockAssociation) string { return *a.Ipv6CidrBlock }),
		"ipv6-cidr-block-association.association-id":       every(associations, func(a *api.SubnetIpv6CidrBlockAssociation) string { return *a.AssociationId }),
		"ipv6-cidr-block-association.state":                every(associations, func(a *api.SubnetIpv6CidrBlockAssociation) string { return *a.Ipv6CidrBlockState.State }),
		"ipv6-native":                                      yes(func(v *s) bool { return *v.Ipv6Native }),
		"map-customer-owned-ip-on-launch":                  yes(func(*s) bool { return false }),
		"map-public-ip-on-launch":                          yes(func(v *s) bool { return *v.MapPublicIpOnLaunch }),
		"outpost-arn":                                      never[s],
		"owner-id":                                         one(func(v *s) string { return *v.OwnerId }),
		"private-dns-name-options-on-launch.hostname-type": one(func(v *s) string { return *v.PrivateDnsNameOptionsOnLaunch.HostnameType }),
		"private-dns-name-options-on-launch.enable-resource-name-dns-a-record":    yes(func(v *s) bool { return *v.PrivateDnsNameOptionsOnLaunch.EnableResourceNameDnsARecord }),
		"private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record": yes(func(v *s) bool { return *v.PrivateDnsNameOptionsOnLaunch.EnableResourceNameDnsAAAARecord }),
		"state":      one(func(v *s) string { return *v.State }),
		"subnet-arn": one(func(v *s) string { return *v.SubnetArn }),
		"subnet-id":  one(func(v *s) string { return *v.SubnetId }),
		"vpc-id":     one(func(v *s) string { return *v.VpcId }),
	}
	items, next, err := found(items, f, in.Filters, func(v *s) []api.Tag { return v.Tags }, func(v *s) string { return *v.SubnetId }, in.MaxResults, in.NextToken)
	return &api.DescribeSubnetsOutput{Subnets: items, NextToken: next}, err
}

func (h *ec2Handlers) deleteSubnet(ctx context.Context, _ Caller, in *api.DeleteSubnetInput) (*api.DeleteSubnetOutput, error) {
	return nil, h.net.DeleteSubnet(ctx, vpc.SubnetID(deref(in.SubnetId)))
}

func (h *ec2Handlers) modifySubnetAttribute(ctx context.Context, _ Caller, in *api.ModifySubnetAttributeInput) (*api.ModifySubnetAttributeOutput, error) {
	on := func(v *api.AttributeBooleanValue) bool { return v != nil && deref(v.Value) }
	given := 0
	for _, present := range []bool{
		in.AssignIpv6AddressOnCreation != nil, in.MapPublicIpOnLaunch != nil, in.MapCustomerOwnedIpOnLaunch != nil, in.EnableDns64 != nil,
		in.PrivateDnsHostnameTypeOnLaunch != nil, in.EnableResourceNameDnsARecordOnLaunch != nil,
		in.EnableResourceNameDnsAAAARecordOnLaunch != nil, in.EnableLniAtDeviceIndex != nil, in.DisableLniAtDeviceIndex != nil,
	} {
		if present {
			given++
		}
	}
	if err := cmp.Or(
		oneAttribute(given),
		ec2Unsupported(on(in.EnableDns64), "EnableDns64", "there is no NAT64"),
		ec2Unsupported(on(in.MapCustomerOwnedIpOnLaunch), "MapCustomerOwnedIpOnLaunch", "there are no outposts"),
		ec2Unsupported(in.EnableLniAtDeviceIndex != nil, "EnableLniAtDeviceIndex", "there are no outposts"),
	); err != nil {
		return nil, err
	}
	return nil, h.net.ModifySubnet(ctx, vpc.SubnetID(deref(in.SubnetId)), func(n *vpc.Subnet) error {
		refused := func(format string, args ...any) error {
			return fault.Newf(fault.Invalid, "", "", format, args...).WithCode("InvalidParameterValue")
		}
		switch {
		case on(in.AssignIpv6AddressOnCreation) && !n.IPv6.IsValid():
			return refused("Invalid value 'true' for assignIpv6AddressOnCreation. The subnet %s has no IPv6 CIDR block.", n.ID)
		case in.AssignIpv6AddressOnCreation != nil && !on(in.AssignIpv6AddressOnCreation) && n.Native():
			return refused("Invalid value 'false' for assignIpv6AddressOnCreation. The subnet %s is IPv6 only.", n.ID)
		case on(in.MapPublicIpOnLaunch) && n.Native():
			return refused("Invalid value 'true' for mapPublicIpOnLaunch. The subnet %s is IPv6 only.", n.ID)
		case on(in.EnableResourceNameDnsAAAARecordOnLaunch) && !n.IPv6.IsValid():
			return refused("Invalid value 'true' for enableResourceNameDnsAAAARecordOnLaunch. The subnet %s has no IPv6 CIDR block.", n.ID)
		}
		if in.AssignIpv6AddressOnCreation != nil {
			n.AssignIPv6 = on(in.AssignIpv6AddressOnCreation)
		}
		if in.EnableResourceNameDnsAAAARecordOnLaunch != nil {
			n.ResourceNameAAAA = on(in.EnableResourceNameDnsAAAARecordOnLaunch)
		}
		if in.MapPublicIpOnLaunch != nil {
			n.MapPublicIP = on(in.MapPublicIpOnLaunch)
		}
		if in.EnableResourceNameDnsARecordOnLaunch != nil {
			n.ResourceNameA = on(in.EnableResourceNameDnsARecordOnLaunch)
		}
		if in.PrivateDnsHostnameTypeOnLaunch != nil {
			n.HostnameType = *in.PrivateDnsHostnameTypeOnLaunch
		}
		return nil
	})
}

func (h *ec2Handlers) describeAvailabilityZones(_ context.Context, _ Caller, in *api.DescribeAvailabilityZonesInput) (*api.DescribeAvailabilityZonesOutput, error) {
	type z = api.AvailabilityZone
	for _, name := range slices.Concat(in.ZoneNames, in.ZoneIds) {
		if _, ok := vpc.FindZone(h.region, name); !ok {
			return nil, fault.Newf(fault.Invalid, "", "", "Invalid availability zone: [%.80s]", name).WithCode("InvalidParameterValue")
		}
	}
	var items []z
	for _, v := range vpc.Zones(h.region) {
		if len(in.ZoneNames) > 0 && !slices.Contains(in.ZoneNames, v.Name) || len(in.ZoneIds) > 0 && !slices.Contains(in.ZoneIds, v.ID) {
			continue
		}
		items = append(items, z{
			ZoneName: new(v.Name), ZoneId: new(v.ID), RegionName: new(h.region), State: new("available"), ZoneType: new("availability-zone"),
			OptInStatus: new("opt-in-not-required"), GroupName: new(h.region + "-zg-1"), NetworkBorderGroup: new(h.region), Messages: []api.AvailabilityZoneMessage{},
		})
	}
	f := ec2Filter[z]{
		"group-name": one(func(v *z) string { return *v.GroupName }), "group-long-name": never[z], "message": never[z],
		"opt-in-status": one(func(v *z) string { return *v.OptInStatus }), "parent-zone-id": never[z], "parent-zone-name": never[z],
		"region-name": one(func(v *z) string { return *v.RegionName }), "state": one(func(v *z) string { return *v.State }),
		"zone-id": one(func(v *z) string { return *v.ZoneId }), "zone-name": one(func(v *z) string { return *v.ZoneName }),
		"zone-type": one(func(v *z) string { return *v.ZoneType }),
	}
	items, err := f.apply(items, in.Filters, nil)
	return &api.DescribeAvailabilityZonesOutput{AvailabilityZones: items}, err
}

func (h *ec2Handlers) describeRegions(_ context.Context, _ Caller, in *api.DescribeRegionsInput) (*api.DescribeRegionsOutput, error) {
	type r = api.Region
	for _, name := range in.RegionNames {
		if name != h.region {
			return nil, fault.Newf(fault.Invalid, "", "", "Invalid region provided: %.80s", name).WithCode("InvalidParameterValue")
		}
	}
	items := []r{{RegionName: new(h.region), Endpoint: new("ec2." + h.region + ".amazonaws.com"), OptInStatus: new("opt-in-not-required")}}
	f := ec2Filter[r]{
		"endpoint":      one(func(v *r) string { return *v.Endpoint }),
		"opt-in-status": one(func(v *r) string { return *v.OptInStatus }),
		"region-name":   one(func(v *r) string { return *v.RegionName }),
	}
	items, err := f.apply(items, in.Filters, nil)
	return &api.DescribeRegionsOutput{Regions: items}, err
}

func (h *ec2Handlers) describeAccountAttributes(ctx context.Context, _ Caller, in *api.DescribeAccountAttributesInput) (*api.DescribeAccountAttributesOutput, error) {
	all, err := h.net.DescribeVPCs(ctx, nil)
	if err != nil {
		return nil, err
	}
	defaultVPC := "none"
	for _, v := range all {
		if v.Default {
			defaultVPC = string(v.ID)
		}
	}
	known := []struct{ name, value string }{
		{"supported-platforms", "VPC"},
		{"vpc-max-security-groups-per-interface", strconv.Itoa(h.net.Limits().GroupsPerInterface)},
		{"max-elastic-ips", "0"},
		{"max-instances", "0"},
		{"vpc-max-elastic-ips", "0"},
		{"default-vpc", defaultVPC},
	}
	out := &api.DescribeAccountAttributesOutput{AccountAttributes: []api.AccountAttribute{}}
	for _, a := range known {
		if len(in.AttributeNames) > 0 && !slices.Contains(in.AttributeNames, a.name) {
			continue
		}
		out.AccountAttributes = append(out.AccountAttributes, api.AccountAttribute{
			AttributeName: new(a.name), AttributeValues: []api.AccountAttributeValue{{AttributeValue: new(a.value)}},
		})
	}
	return out, nil
}

// What cannot exist here is truthfully none.

// absent is the answer of a describing operation about resources that cannot exist here: known are its documented filters.
func absent[T any, ID ~string](ids []string, filters []api.Filter, known ...string) ([]T, error) {
	for _, id := range ids {
		return nil, cmp.Or(vpc.CheckID(ID(id)), vpc.NotFound(ID(id)))
	}
	f := ec2Filter[T]{}
	for _, name := range known {
		f[name] = never[T]
	}
	return f.apply([]T{}, filters, func(*T) []api.Tag { return nil })
}

func (h *ec2Handlers) describeInternetGateways(_ context.Context, _ Caller, in *api.DescribeInternetGatewaysInput) (*api.DescribeInternetGatewaysOutput, error) {
	items, err := absent[api.InternetGateway, vpc.InternetGatewayID](in.InternetGatewayIds, in.Filters, "attachment.state", "attachment.vpc-id", "internet-gateway-id", "owner-id")
	return &api.DescribeInternetGatewaysOutput{InternetGateways: items}, err
}

func (h *ec2Handlers) describeVpcPeeringConnections(_ context.Context, _ Caller, in *api.DescribeVpcPeeringConnectionsInput) (*api.DescribeVpcPeeringConnectionsOutput, error) {
	items, err := absent[api.VpcPeeringConnection, vpc.PeeringConnectionID](in.VpcPeeringConnectionIds, in.Filters,
		"accepter-vpc-info.cidr-block", "accepter-vpc-info.owner-id", "accepter-vpc-info.vpc-id", "expiration-time", "requester-vpc-info.cidr-block",
		"requester-vpc-info.owner-id", "requester-vpc-info.vpc-id", "status-code", "status-message", "vpc-peering-connection-id")
	return &api.DescribeVpcPeeringConnectionsOutput{VpcPeeringConnections: items}, err
}
