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

func vpcShape(v *vpc.VPC) api.Vpc {
	return api.Vpc{
		VpcId: new(string(v.ID)), OwnerId: new(v.OwnerID), CidrBlock: new(v.CIDR.String()), State: new("available"),
		InstanceTenancy: new(v.Tenancy), IsDefault: new(v.Default), DhcpOptionsId: new(v.DHCPOptions), Tags: ec2Tags(v.Tags),
		CidrBlockAssociationSet: []api.VpcCidrBlockAssociation{{
			AssociationId: new(v.CIDRAssociation), CidrBlock: new(v.CIDR.String()), CidrBlockState: &api.VpcCidrBlockState{State: new("associated")},
		}},
	}
}

func (h *ec2Handlers) createVpc(ctx context.Context, _ Caller, in *api.CreateVpcInput) (*api.CreateVpcOutput, error) {
	if err := cmp.Or(
		ec2Unsupported(deref(in.AmazonProvidedIpv6CidrBlock) || in.Ipv6CidrBlock != nil || in.Ipv6Pool != nil || in.Ipv6IpamPoolId != nil, "Ipv6CidrBlock", "VPCs are IPv4 only"),
		ec2Unsupported(in.Ipv4IpamPoolId != nil || in.Ipv4NetmaskLength != nil, "Ipv4IpamPoolId", "there is no IPAM"),
	); err != nil {
		return nil, err
	}
	tags, err := specifiedTags(in.TagSpecifications, "vpc")
	if err != nil {
		return nil, err
	}
	v, err := h.net.CreateVPC(ctx, deref(in.CidrBlock), deref(in.InstanceTenancy), tags)
	if err != nil {
		return nil, err
	}
	return &api.CreateVpcOutput{Vpc: new(vpcShape(v))}, nil
}

func (h *ec2Handlers) describeVpcs(ctx context.Context, _ Caller, in *api.DescribeVpcsInput) (*api.DescribeVpcsOutput, error) {
	all, err := h.net.DescribeVPCs(ctx, ec2IDs[vpc.VPCID](in.VpcIds))
	if err != nil {
		return nil, err
	}
	items := make([]api.Vpc, 0, len(all))
	for _, v := range all {
		items = append(items, vpcShape(v))
	}
	associations := func(v *api.Vpc) []api.VpcCidrBlockAssociation { return v.CidrBlockAssociationSet }
	f := ec2Filter[api.Vpc]{
		"cidr":                                        one(func(v *api.Vpc) string { return *v.CidrBlock }),
		"cidr-block-association.cidr-block":           every(associations, func(a *api.VpcCidrBlockAssociation) string { return *a.CidrBlock }),
		"cidr-block-association.association-id":       every(associations, func(a *api.VpcCidrBlockAssociation) string { return *a.AssociationId }),
		"cidr-block-association.state":                every(associations, func(a *api.VpcCidrBlockAssociation) string { return *a.CidrBlockState.State }),
		"dhcp-options-id":                             one(func(v *api.Vpc) string { return *v.DhcpOptionsId }),
		"ipv6-cidr-block-association.ipv6-pool":       never[api.Vpc],
		"ipv6-cidr-block-association.state":           never[api.Vpc],
		"ipv6-cidr-block-association.association-id":  never[api.Vpc],
		"ipv6-cidr-block-association.ipv6-cidr-block": never[api.Vpc],
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
	return api.Subnet{
		SubnetId: new(string(n.ID)), VpcId: new(string(n.VPC)), OwnerId: new(n.OwnerID), State: new("available"),
		CidrBlock: new(n.CIDR.String()), AvailableIpAddressCount: i32(n.Free), AvailabilityZone: new(n.Zone), AvailabilityZoneId: new(zone.ID),
		DefaultForAz: new(n.DefaultForAZ), MapPublicIpOnLaunch: new(n.MapPublicIP), MapCustomerOwnedIpOnLaunch: new(false),
		AssignIpv6AddressOnCreation: new(false), Ipv6CidrBlockAssociationSet: []api.SubnetIpv6CidrBlockAssociation{},
		EnableDns64: new(false), Ipv6Native: new(false), SubnetArn: new(h.ec2ARN("subnet", string(n.ID))), Tags: ec2Tags(n.Tags),
		PrivateDnsNameOptionsOnLaunch: &api.PrivateDnsNameOptionsOnLaunch{
			HostnameType: new(n.HostnameType), EnableResourceNameDnsARecord: new(n.ResourceNameA), EnableResourceNameDnsAAAARecord: new(false),
		},
	}
}

func (h *ec2Handlers) createSubnet(ctx context.Context, _ Caller, in *api.CreateSubnetInput) (*api.CreateSubnetOutput, error) {
	if err := cmp.Or(
		ec2Unsupported(in.Ipv6CidrBlock != nil || deref(in.Ipv6Native) || in.Ipv6IpamPoolId != nil, "Ipv6CidrBlock", "VPCs are IPv4 only"),
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
	n, err := h.net.CreateSubnet(ctx, vpc.VPCID(deref(in.VpcId)), deref(in.CidrBlock), deref(in.AvailabilityZone)+deref(in.AvailabilityZoneId), tags)
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
	f := ec2Filter[s]{
		"availability-zone":          one(func(v *s) string { return *v.AvailabilityZone }),
		"availabilityZone":           one(func(v *s) string { return *v.AvailabilityZone }),
		"availability-zone-id":       one(func(v *s) string { return *v.AvailabilityZoneId }),
		"available-ip-address-count": one(func(v *s) string { return strconv.Itoa(int(*v.AvailableIpAddressCount)) }),
		"cidr-block":                 one(func(v *s) string { return *v.CidrBlock }),
		"cidr":                       one(func(v *s) string { return *v.CidrBlock }),
		"cidrBlock":                  one(func(v *s) string { return *v.CidrBlock }),
		"customer-owned-ipv4-pool":   never[s],
		"default-for-az":             yes(func(v *s) bool { return *v.DefaultForAz }),
		"defaultForAz":               yes(func(v *s) bool { return *v.DefaultForAz }),
		"enable-dns64":               yes(func(*s) bool { return false }),
		"enable-lni-at-device-index": never[s],
		"ipv6-cidr-block-association.ipv6-cidr-block":      never[s],
		"ipv6-cidr-block-association.association-id":       never[s],
		"ipv6-cidr-block-association.state":                never[s],
		"ipv6-native":                                      yes(func(*s) bool { return false }),
		"map-customer-owned-ip-on-launch":                  yes(func(*s) bool { return false }),
		"map-public-ip-on-launch":                          yes(func(v *s) bool { return *v.MapPublicIpOnLaunch }),
		"outpost-arn":                                      never[s],
		"owner-id":                                         one(func(v *s) string { return *v.OwnerId }),
		"private-dns-name-options-on-launch.hostname-type": one(func(v *s) string { return *v.PrivateDnsNameOptionsOnLaunch.HostnameType }),
		"private-dns-name-options-on-launch.enable-resource-name-dns-a-record":    yes(func(v *s) bool { return *v.PrivateDnsNameOptionsOnLaunch.EnableResourceNameDnsARecord }),
		"private-dns-name-options-on-launch.enable-resource-name-dns-aaaa-record": yes(func(*s) bool { return false }),
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
		ec2Unsupported(on(in.AssignIpv6AddressOnCreation), "AssignIpv6AddressOnCreation", "VPCs are IPv4 only"),
		ec2Unsupported(on(in.EnableDns64), "EnableDns64", "VPCs are IPv4 only"),
		ec2Unsupported(on(in.EnableResourceNameDnsAAAARecordOnLaunch), "EnableResourceNameDnsAAAARecordOnLaunch", "VPCs are IPv4 only"),
		ec2Unsupported(on(in.MapCustomerOwnedIpOnLaunch), "MapCustomerOwnedIpOnLaunch", "there are no outposts"),
		ec2Unsupported(in.EnableLniAtDeviceIndex != nil, "EnableLniAtDeviceIndex", "there are no outposts"),
	); err != nil {
		return nil, err
	}
	return nil, h.net.ModifySubnet(ctx, vpc.SubnetID(deref(in.SubnetId)), func(n *vpc.Subnet) error {
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
