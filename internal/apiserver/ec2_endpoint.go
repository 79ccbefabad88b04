package apiserver

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"penstock.dev/penstock/internal/control/network"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/vpc"
	api "penstock.dev/penstock/internal/wire/ec2api"
)

// groupNames are the names of all groups.
func (h *ec2Handlers) groupNames(ctx context.Context) (map[vpc.SecurityGroupID]string, error) {
	all, err := h.net.DescribeSecurityGroups(ctx, nil)
	if err != nil {
		return nil, err
	}
	out := make(map[vpc.SecurityGroupID]string, len(all))
	for _, g := range all {
		out[g.ID] = g.Name
	}
	return out, nil
}

func (h *ec2Handlers) endpointShape(e *vpc.Endpoint, names map[vpc.SecurityGroupID]string) api.VpcEndpoint {
	out := api.VpcEndpoint{
		VpcEndpointId: new(string(e.ID)), VpcEndpointType: new(string(e.Type)), VpcId: new(string(e.VPC)), ServiceName: new(e.Service),
		State: new(string(e.State)), PolicyDocument: new(e.PolicyDocument), RouteTableIds: []string{}, SubnetIds: texts(e.Subnets),
		Groups: make([]api.SecurityGroupIdentifier, 0, len(e.Groups)), IpAddressType: new(string(e.IPAddressType)),
		DnsOptions: &api.DnsOptions{DnsRecordIpType: new(string(e.DNSRecordType))}, PrivateDnsEnabled: new(e.PrivateDNS), RequesterManaged: new(false),
		NetworkInterfaceIds: texts(e.Interfaces), DnsEntries: make([]api.DnsEntry, 0, len(e.DNSEntries)), CreationTimestamp: new(e.Created),
		Tags: ec2Tags(e.Tags), OwnerId: new(e.OwnerID), ServiceRegion: new(h.region),
	}
	for _, g := range e.Groups {
		out.Groups = append(out.Groups, api.SecurityGroupIdentifier{GroupId: new(string(g)), GroupName: strOrNil(names[g])})
	}
	for _, d := range e.DNSEntries {
		out.DnsEntries = append(out.DnsEntries, api.DnsEntry{DnsName: new(d.Name), HostedZoneId: new(d.HostedZone)})
	}
	if e.LastError != nil {
		out.LastError = &api.LastError{Code: new(e.LastError.Code), Message: new(e.LastError.Message)}
		out.FailureReason = new(e.LastError.Message)
	}
	return out
}

// chosenAddresses reads the addresses that a request chose for interfaces.
func chosenAddresses(list []api.SubnetConfiguration) (map[vpc.SubnetID]network.ChosenAddresses, error) {
	out := make(map[vpc.SubnetID]network.ChosenAddresses, len(list))
	for _, c := range list {
		if c.SubnetId == nil {
			return nil, fault.New(fault.Missing, "", "", "The request must contain the parameter SubnetConfiguration.SubnetId").WithCode("MissingParameter")
		}
		out[vpc.SubnetID(*c.SubnetId)] = network.ChosenAddresses{IPv4: deref(c.Ipv4), IPv6: deref(c.Ipv6)}
	}
	return out, nil
}

func dnsRecordType(o *api.DnsOptionsSpecification) (vpc.DNSRecordType, error) {
	if o == nil {
		return "", nil
	}
	if err := cmp.Or(
		ec2Unsupported(deref(o.PrivateDnsOnlyForInboundResolverEndpoint), "DnsOptions.PrivateDnsOnlyForInboundResolverEndpoint", "it is for gateway services"),
		ec2Unsupported(len(o.PrivateDnsSpecifiedDomains) > 0, "DnsOptions.PrivateDnsSpecifiedDomain", "it is for resource endpoints"),
	); err != nil {
		return "", err
	}
	return vpc.DNSRecordType(deref(o.DnsRecordIpType)), nil
}

func (h *ec2Handlers) createVpcEndpoint(ctx context.Context, _ Caller, in *api.CreateVpcEndpointInput) (*api.CreateVpcEndpointOutput, error) {
	if err := cmp.Or(
		ec2Unsupported(in.ServiceNetworkArn != nil, "ServiceNetworkArn", "there are no service networks"),
		ec2Unsupported(in.ResourceConfigurationArn != nil, "ResourceConfigurationArn", "there are no resource configurations"),
	); err != nil {
		return nil, err
	}
	tags, err := specifiedTags(in.TagSpecifications, "vpc-endpoint")
	if err != nil {
		return nil, err
	}
	addresses, err := chosenAddresses(in.SubnetConfigurations)
	if err != nil {
		return nil, err
	}
	record, err := dnsRecordType(in.DnsOptions)
	if err != nil {
		return nil, err
	}
	e, err := h.net.CreateVPCEndpoint(ctx, network.CreateEndpoint{
		VPC: vpc.VPCID(deref(in.VpcId)), Service: deref(in.ServiceName), ServiceRegion: deref(in.ServiceRegion),
		Type: vpc.EndpointType(deref(in.VpcEndpointType)), Subnets: ec2IDs[vpc.SubnetID](in.SubnetIds), Addresses: addresses,
		Groups: ec2IDs[vpc.SecurityGroupID](in.SecurityGroupIds), RouteTables: in.RouteTableIds, PolicyDocument: deref(in.PolicyDocument),
		PrivateDNS: in.PrivateDnsEnabled, IPAddressType: vpc.IPAddressType(deref(in.IpAddressType)), DNSRecordType: record, ClientToken: deref(in.ClientToken), Tags: tags,
	})
	if err != nil {
		return nil, err
	}
	names, err := h.groupNames(ctx)
	if err != nil {
		return nil, err
	}
	return &api.CreateVpcEndpointOutput{VpcEndpoint: new(h.endpointShape(e, names)), ClientToken: in.ClientToken}, nil
}

func (h *ec2Handlers) describeVpcEndpoints(ctx context.Context, _ Caller, in *api.DescribeVpcEndpointsInput) (*api.DescribeVpcEndpointsOutput, error) {
	type e = api.VpcEndpoint
	all, err := h.net.DescribeEndpoints(ctx, ec2IDs[vpc.EndpointID](in.VpcEndpointIds))
	if err != nil {
		return nil, err
	}
	names, err := h.groupNames(ctx)
	if err != nil {
		return nil, err
	}
	items := make([]e, 0, len(all))
	for _, v := range all {
		items = append(items, h.endpointShape(v, names))
	}
	state := one(func(v *e) string { return *v.State })
	f := ec2Filter[e]{
		"ip-address-type": one(func(v *e) string { return *v.IpAddressType }),
		"service-name":    one(func(v *e) string { return *v.ServiceName }),
		"service-region":  one(func(v *e) string { return *v.ServiceRegion }),
		"vpc-id":          one(func(v *e) string { return *v.VpcId }),
		"vpc-endpoint-id": one(func(v *e) string { return *v.VpcEndpointId }),
		"vpc-endpoint-state": func(v *e) []string {
			// Clients ask in camel case as the model has it, or in lower case as answers have it.
			s := state(v)[0]
			return []string{s, strings.ToUpper(s[:1]) + s[1:]}
		},
		"vpc-endpoint-type": one(func(v *e) string { return *v.VpcEndpointType }),
	}
	items, next, err := found(items, f, in.Filters, func(v *e) []api.Tag { return v.Tags }, func(v *e) string { return *v.VpcEndpointId }, in.MaxResults, in.NextToken)
	return &api.DescribeVpcEndpointsOutput{VpcEndpoints: items, NextToken: next}, err
}

func (h *ec2Handlers) modifyVpcEndpoint(ctx context.Context, _ Caller, in *api.ModifyVpcEndpointInput) (*api.ModifyVpcEndpointOutput, error) {
	if len(in.AddRouteTableIds)+len(in.RemoveRouteTableIds) > 0 {
		return nil, fault.New(fault.Invalid, "", "", "Route tables cannot be modified for Interface type VPC endpoints.").WithCode("InvalidParameter")
	}
	addresses, err := chosenAddresses(in.SubnetConfigurations)
	if err != nil {
		return nil, err
	}
	record, err := dnsRecordType(in.DnsOptions)
	if err != nil {
		return nil, err
	}
	err = h.net.ModifyVPCEndpoint(ctx, network.ModifyEndpoint{
		ID: vpc.EndpointID(deref(in.VpcEndpointId)), AddSubnets: ec2IDs[vpc.SubnetID](in.AddSubnetIds), RemoveSubnets: ec2IDs[vpc.SubnetID](in.RemoveSubnetIds),
		Addresses: addresses, AddGroups: ec2IDs[vpc.SecurityGroupID](in.AddSecurityGroupIds), RemoveGroups: ec2IDs[vpc.SecurityGroupID](in.RemoveSecurityGroupIds),
		PrivateDNS: in.PrivateDnsEnabled, PolicyDocument: in.PolicyDocument, ResetPolicy: deref(in.ResetPolicy),
		IPAddressType: vpc.IPAddressType(deref(in.IpAddressType)), DNSRecordType: record,
	})
	return &api.ModifyVpcEndpointOutput{Return: new(true)}, err
}

func (h *ec2Handlers) deleteVpcEndpoints(ctx context.Context, _ Caller, in *api.DeleteVpcEndpointsInput) (*api.DeleteVpcEndpointsOutput, error) {
	failed, err := h.net.DeleteVPCEndpoints(ctx, ec2IDs[vpc.EndpointID](in.VpcEndpointIds))
	if err != nil {
		return nil, err
	}
	out := &api.DeleteVpcEndpointsOutput{Unsuccessful: make([]api.UnsuccessfulItem, 0, len(failed))}
	for _, f := range failed {
		out.Unsuccessful = append(out.Unsuccessful, api.UnsuccessfulItem{
			ResourceId: new(string(f.ID)), Error: &api.UnsuccessfulItemError{Code: new(f.Code), Message: new(f.Message)},
		})
	}
	return out, nil
}

func (h *ec2Handlers) describeVpcEndpointServices(_ context.Context, _ Caller, in *api.DescribeVpcEndpointServicesInput) (*api.DescribeVpcEndpointServicesOutput, error) {
	type s = api.ServiceDetail
	for _, name := range in.ServiceNames {
		if _, ok := vpc.FindService(h.region, name); !ok {
			return nil, fault.Newf(fault.NotFound, "", "", "The Vpc Endpoint Service '%.200s' does not exist", name).WithCode("InvalidServiceName")
		}
	}
	zones, zoneIDs := []string{}, []string{}
	for _, z := range vpc.Zones(h.region) {
		zones, zoneIDs = append(zones, z.Name), append(zoneIDs, z.ID)
	}
	items := []s{}
	for _, v := range vpc.Services(h.region) {
		if len(in.ServiceNames) > 0 && !slices.Contains(in.ServiceNames, v.Name) || len(in.ServiceRegions) > 0 && !slices.Contains(in.ServiceRegions, h.region) {
			continue
		}
		d := s{
			ServiceName: new(v.Name), ServiceId: new(v.ID), ServiceType: []api.ServiceTypeDetail{{ServiceType: new("Interface")}}, ServiceRegion: new(h.region),
			AvailabilityZones: zones, AvailabilityZoneIds: zoneIDs, Owner: new("amazon"), BaseEndpointDnsNames: []string{v.BaseDNSName},
			VpcEndpointPolicySupported: new(false), AcceptanceRequired: new(false), ManagesVpcEndpoints: new(false),
			PrivateDnsNameVerificationState: new("verified"), SupportedIpAddressTypes: []string{"ipv4", "ipv6"}, Tags: []api.Tag{},
		}
		for _, n := range v.PrivateNames {
			d.PrivateDnsName = new(n)
			d.PrivateDnsNames = append(d.PrivateDnsNames, api.PrivateDnsDetails{PrivateDnsName: new(n)})
		}
		items = append(items, d)
	}
	f := ec2Filter[s]{
		"owner":          one(func(v *s) string { return *v.Owner }),
		"service-name":   one(func(v *s) string { return *v.ServiceName }),
		"service-region": one(func(v *s) string { return *v.ServiceRegion }),
		"service-type":   one(func(v *s) string { return *v.ServiceType[0].ServiceType }),
		"supported-ip-address-types": func(v *s) []string {
			return v.SupportedIpAddressTypes
		},
	}
	items, next, err := found(items, f, in.Filters, func(v *s) []api.Tag { return v.Tags }, func(v *s) string { return *v.ServiceName }, in.MaxResults, in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeVpcEndpointServicesOutput{ServiceDetails: items, ServiceNames: make([]string, 0, len(items)), NextToken: next}
	for i := range items {
		out.ServiceNames = append(out.ServiceNames, *items[i].ServiceName)
	}
	return out, nil
}

// describeVpcEndpointAssociations is about resource and service network endpoints: there are none.
func (h *ec2Handlers) describeVpcEndpointAssociations(ctx context.Context, _ Caller, in *api.DescribeVpcEndpointAssociationsInput) (*api.DescribeVpcEndpointAssociationsOutput, error) {
	if _, err := h.net.DescribeEndpoints(ctx, ec2IDs[vpc.EndpointID](in.VpcEndpointIds)); err != nil {
		return nil, err
	}
	items, err := absent[api.VpcEndpointAssociation, vpc.EndpointID](nil, in.Filters, "vpc-endpoint-id", "associated-resource-accessibility", "association-id",
		"associated-resource-id", "service-network-arn", "resource-configuration-group-arn", "service-network-resource-association-id")
	return &api.DescribeVpcEndpointAssociationsOutput{VpcEndpointAssociations: items}, err
}

func (h *ec2Handlers) interfaceShape(n *vpc.NetworkInterface, names map[vpc.SecurityGroupID]string) api.NetworkInterface {
	zone, _ := vpc.FindZone(h.region, n.Zone)
	out := api.NetworkInterface{
		NetworkInterfaceId: new(string(n.ID)), SubnetId: new(string(n.Subnet)), VpcId: new(string(n.VPC)), OwnerId: new(n.OwnerID),
		AvailabilityZone: new(n.Zone), AvailabilityZoneId: new(zone.ID), Description: new(n.Description), InterfaceType: new(n.InterfaceType),
		MacAddress: new(n.MAC), RequesterManaged: new(n.RequesterManaged), DenyAllIgwTraffic: new(n.Addr6.IsValid()), Ipv6Native: new(!n.Addr.IsValid()),
		RequesterId: new("amazon-aws"), SourceDestCheck: new(true), Status: new(n.Status), TagSet: ec2Tags(n.Tags), Ipv6Addresses: []api.NetworkInterfaceIpv6Address{},
		PrivateIpAddresses: []api.NetworkInterfacePrivateIpAddress{},
		Groups:             make([]api.GroupIdentifier, 0, len(n.Groups)),
		Attachment: &api.NetworkInterfaceAttachment{
			AttachmentId: new("ela-attach-" + strings.TrimPrefix(string(n.ID), vpc.PrefixNetworkInterface+"-")), DeleteOnTermination: new(false),
			DeviceIndex: i32(1), InstanceOwnerId: new("amazon-aws"), Status: new("attached"),
		},
	}
	for _, g := range n.Groups {
		out.Groups = append(out.Groups, api.GroupIdentifier{GroupId: new(string(g)), GroupName: strOrNil(names[g])})
	}
	if n.Addr.IsValid() {
		private := "ip-" + strings.ReplaceAll(n.Addr.String(), ".", "-") + ".ec2.internal"
		if h.region != "us-east-1" {
			private = "ip-" + strings.ReplaceAll(n.Addr.String(), ".", "-") + "." + h.region + ".compute.internal"
		}
		out.PrivateIpAddress, out.PrivateDnsName = new(n.Addr.String()), new(private)
		out.PrivateIpAddresses = append(out.PrivateIpAddresses, api.NetworkInterfacePrivateIpAddress{
			Primary: new(true), PrivateIpAddress: new(n.Addr.String()), PrivateDnsName: new(private),
		})
	}
	if n.Addr6.IsValid() {
		out.Ipv6Address = new(n.Addr6.String())
		out.Ipv6Addresses = append(out.Ipv6Addresses, api.NetworkInterfaceIpv6Address{Ipv6Address: out.Ipv6Address, IsPrimaryIpv6: new(false)})
	}
	return out
}

func (h *ec2Handlers) describeNetworkInterfaces(ctx context.Context, _ Caller, in *api.DescribeNetworkInterfacesInput) (*api.DescribeNetworkInterfacesOutput, error) {
	type n = api.NetworkInterface
	all, err := h.net.DescribeNetworkInterfaces(ctx, ec2IDs[vpc.NetworkInterfaceID](in.NetworkInterfaceIds))
	if err != nil {
		return nil, err
	}
	names, err := h.groupNames(ctx)
	if err != nil {
		return nil, err
	}
	items := make([]n, 0, len(all))
	for _, v := range all {
		items = append(items, h.interfaceShape(v, names))
	}
	f := ec2Filter[n]{
		"addresses.primary":                yes(func(*n) bool { return true }),
		"addresses.private-ip-address":     one(func(v *n) string { return deref(v.PrivateIpAddress) }),
		"attachment.attachment-id":         one(func(v *n) string { return *v.Attachment.AttachmentId }),
		"attachment.delete-on-termination": yes(func(v *n) bool { return *v.Attachment.DeleteOnTermination }),
		"attachment.device-index":          one(func(*n) string { return "1" }),
		"attachment.instance-owner-id":     one(func(v *n) string { return *v.Attachment.InstanceOwnerId }),
		"attachment.status":                one(func(v *n) string { return *v.Attachment.Status }),
		"availability-zone":                one(func(v *n) string { return *v.AvailabilityZone }),
		"availability-zone-id":             one(func(v *n) string { return *v.AvailabilityZoneId }),
		"description":                      one(func(v *n) string { return *v.Description }),
		"group-id":                         every(func(v *n) []api.GroupIdentifier { return v.Groups }, func(g *api.GroupIdentifier) string { return *g.GroupId }),
		"group-name":                       every(func(v *n) []api.GroupIdentifier { return v.Groups }, func(g *api.GroupIdentifier) string { return deref(g.GroupName) }),
		"interface-type":                   one(func(v *n) string { return *v.InterfaceType }),
		"mac-address":                      one(func(v *n) string { return *v.MacAddress }),
		"network-interface-id":             one(func(v *n) string { return *v.NetworkInterfaceId }),
		"owner-id":                         one(func(v *n) string { return *v.OwnerId }),
		"ipv6-addresses.ipv6-address":      every(func(v *n) []api.NetworkInterfaceIpv6Address { return v.Ipv6Addresses }, func(a *api.NetworkInterfaceIpv6Address) string { return *a.Ipv6Address }),
		"private-dns-name":                 one(func(v *n) string { return deref(v.PrivateDnsName) }),
		"private-ip-address":               one(func(v *n) string { return deref(v.PrivateIpAddress) }),
		"requester-id":                     one(func(v *n) string { return *v.RequesterId }),
		"requester-managed":                yes(func(v *n) bool { return *v.RequesterManaged }),
		"source-dest-check":                yes(func(v *n) bool { return *v.SourceDestCheck }),
		"status":                           one(func(v *n) string { return *v.Status }),
		"subnet-id":                        one(func(v *n) string { return *v.SubnetId }),
		"vpc-id":                           one(func(v *n) string { return *v.VpcId }),
	}
	for _, name := range []string{
		"association.allocation-id", "association.association-id", "addresses.association.owner-id", "addresses.association.public-ip",
		"association.ip-owner-id", "association.public-ip", "association.public-dns-name", "attachment.attach-time", "attachment.instance-id",
		"operator.managed", "operator.principal",
	} {
		f[name] = never[n]
	}
	items, next, err := found(items, f, in.Filters, func(v *n) []api.Tag { return v.TagSet }, func(v *n) string { return *v.NetworkInterfaceId }, in.MaxResults, in.NextToken)
	return &api.DescribeNetworkInterfacesOutput{NetworkInterfaces: items, NextToken: next}, err
}
