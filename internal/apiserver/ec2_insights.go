package apiserver

import (
	"context"
	"net/netip"
	"strconv"
	"strings"

	"penstock.dev/penstock/internal/control/network"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/vpc"
	api "penstock.dev/penstock/internal/wire/ec2api"
)

// componentShape names a component by its ID; nil for none.
func (h *ec2Handlers) componentShape(id string) *api.AnalysisComponent {
	if id == "" {
		return nil
	}
	prefix, _, _ := strings.Cut(id, "-")
	c := &api.AnalysisComponent{Id: new(id)}
	if kind := ec2Prefixes[prefix]; kind != "" {
		c.Arn = new(h.ec2ARN(kind, id))
	}
	return c
}

func portRangeShape(r vpc.PortRange) *api.PortRange {
	if r == vpc.AllPorts {
		r = vpc.PortRange{From: 0, To: 65535}
	}
	return &api.PortRange{From: i32(r.From), To: i32(r.To)}
}

func portRangeShapes(list []vpc.PortRange) []api.PortRange {
	out := make([]api.PortRange, 0, len(list))
	for _, r := range list {
		out = append(out, *portRangeShape(r))
	}
	return out
}

func addrOrNil(a netip.Addr) *string {
	if !a.IsValid() {
		return nil
	}
	return new(a.String())
}

func headerShape(p *vpc.PacketHeader) *api.AnalysisPacketHeader {
	if p == nil {
		return nil
	}
	return &api.AnalysisPacketHeader{
		Protocol: new(p.Protocol.Number()), SourceAddresses: []string{hostCIDR(p.Source)}, DestinationAddresses: []string{hostCIDR(p.Destination)},
		SourcePortRanges: portRangeShapes(p.SourcePorts), DestinationPortRanges: portRangeShapes(p.DestinationPorts),
	}
}

// hostCIDR is one address in CIDR notation, as headers of analyses carry it.
func hostCIDR(a netip.Addr) string { return netip.PrefixFrom(a, a.BitLen()).String() }

func aclRuleShape(e *vpc.NetworkACLEntry) *api.AnalysisAclRule {
	if e == nil {
		return nil
	}
	action := "deny"
	if e.Allow {
		action = "allow"
	}
	out := &api.AnalysisAclRule{
		Cidr: new(e.CIDR.String()), Egress: new(e.Egress), Protocol: new(e.Protocol.Number()), RuleAction: new(action), RuleNumber: i32(e.Number),
	}
	if e.Protocol == vpc.AllProtocols {
		out.Protocol = new("all")
	}
	if e.Protocol.HasPorts() {
		out.PortRange = portRangeShape(e.Ports)
	}
	return out
}

func groupRuleShape(group string, r *vpc.SecurityGroupRule) *api.AnalysisSecurityGroupRule {
	if r == nil {
		return nil
	}
	out := &api.AnalysisSecurityGroupRule{
		Direction: new("ingress"), SecurityGroupId: strOrNil(group), PrefixListId: strOrNil(string(r.Peer.PrefixList)), Protocol: new(r.Protocol.String()),
	}
	if r.Egress {
		out.Direction = new("egress")
	}
	if r.Protocol == vpc.AllProtocols {
		out.Protocol = new("all")
	}
	if r.Peer.CIDR.IsValid() {
		out.Cidr = new(r.Peer.CIDR.String())
	}
	if r.Peer.Group != "" {
		out.SecurityGroupId = new(string(r.Peer.Group))
	}
	if r.Protocol.HasPorts() {
		out.PortRange = portRangeShape(r.Ports)
	}
	return out
}

func analysisRouteShape(r *vpc.InsightsRoute) *api.AnalysisRouteTableRoute {
	if r == nil {
		return nil
	}
	out := &api.AnalysisRouteTableRoute{
		DestinationPrefixListId: strOrNil(string(r.PrefixList)), GatewayId: strOrNil(string(r.Gateway)), NetworkInterfaceId: strOrNil(string(r.Interface)), Origin: new(strings.ToLower(r.Origin)), State: new(r.State),
	}
	if r.CIDR.IsValid() {
		out.DestinationCidr = new(r.CIDR.String())
	}
	return out
}

func (h *ec2Handlers) pathComponents(list []vpc.PathComponent) []api.PathComponent {
	out := make([]api.PathComponent, 0, len(list))
	for i, c := range list {
		out = append(out, api.PathComponent{
			SequenceNumber: i32(i + 1), Component: h.componentShape(c.Component), AttachedTo: h.componentShape(c.AttachedTo),
			AclRule: aclRuleShape(c.ACLRule), SecurityGroupRule: groupRuleShape(c.Component, c.GroupRule), RouteTableRoute: analysisRouteShape(c.Route),
			Subnet: h.componentShape(string(c.Subnet)), Vpc: h.componentShape(string(c.VPC)), InboundHeader: headerShape(c.In), OutboundHeader: headerShape(c.Out),
			ServiceName: strOrNil(c.Service), AdditionalDetails: []api.AdditionalDetail{}, Explanations: []api.Explanation{},
		})
	}
	return out
}

func (h *ec2Handlers) explanationShape(x vpc.Explanation) api.Explanation {
	out := api.Explanation{
		ExplanationCode: new(x.Code), Direction: strOrNil(x.Direction), Component: h.componentShape(x.Component), MissingComponent: strOrNil(x.Missing),
		Acl: h.componentShape(string(x.ACL)), AclRule: aclRuleShape(x.ACLRule), Address: addrOrNil(x.Address), Destination: h.componentShape(x.Destination),
		VpcEndpoint: h.componentShape(string(x.Endpoint)), VpnGateway: h.componentShape(string(x.Gateway)), NetworkInterface: h.componentShape(string(x.Interface)),
		PortRanges: portRangeShapes(x.Ports), RouteTableRoute: analysisRouteShape(x.Route), RouteTable: h.componentShape(string(x.RouteTable)),
		State: strOrNil(x.State), Subnet: h.componentShape(string(x.Subnet)), Vpc: h.componentShape(string(x.VPC)),
		SourceVpc: h.componentShape(string(x.SourceVPC)), DestinationVpc: h.componentShape(string(x.DestinationVPC)),
	}
	if x.Port > 0 {
		out.Port = i32(x.Port)
	}
	for _, a := range x.Addresses {
		out.Addresses = append(out.Addresses, a.String())
	}
	for _, c := range x.CIDRs {
		out.Cidrs = append(out.Cidrs, c.String())
	}
	for _, p := range x.Protocols {
		out.Protocols = append(out.Protocols, p.String())
	}
	for _, g := range x.Groups {
		out.SecurityGroups = append(out.SecurityGroups, *h.componentShape(string(g)))
	}
	if len(x.Groups) > 0 {
		out.SecurityGroup = h.componentShape(string(x.Groups[0]))
		out.SecurityGroupRule = groupRuleShape(string(x.Groups[0]), x.GroupRule)
	}
	return out
}

func pathFilterShape(f *vpc.InsightsFilter) *api.PathFilter {
	if f == nil {
		return nil
	}
	ports := func(r *vpc.PortRange) *api.FilterPortRange {
		if r == nil {
			return nil
		}
		return &api.FilterPortRange{FromPort: i32(r.From), ToPort: i32(r.To)}
	}
	return &api.PathFilter{
		SourceAddress: addrOrNil(f.Source), DestinationAddress: addrOrNil(f.Destination), SourcePortRange: ports(f.SourcePorts), DestinationPortRange: ports(f.DestinationPorts),
	}
}

// pathFilter reads a filter of a request.
func pathFilter(member string, f *api.PathRequestFilter) (*vpc.InsightsFilter, error) {
	if f == nil {
		return nil, nil
	}
	out := &vpc.InsightsFilter{}
	for _, a := range []struct {
		name string
		text *string
		into *netip.Addr
	}{{"SourceAddress", f.SourceAddress, &out.Source}, {"DestinationAddress", f.DestinationAddress, &out.Destination}} {
		if a.text == nil {
			continue
		}
		var err error
		if *a.into, err = netip.ParseAddr(*a.text); err != nil {
			return nil, fault.Newf(fault.Invalid, "", "", "Value (%.60s) for parameter %s.%s is invalid. This is not an IP address.", *a.text, member, a.name).WithCode("InvalidParameterValue")
		}
	}
	ports := func(r *api.RequestFilterPortRange) *vpc.PortRange {
		if r == nil {
			return nil
		}
		out := &vpc.PortRange{From: 0, To: 65535}
		if r.FromPort != nil {
			out.From = int(*r.FromPort)
		}
		if r.ToPort != nil {
			out.To = int(*r.ToPort)
		}
		return out
	}
	out.SourcePorts, out.DestinationPorts = ports(f.SourcePortRange), ports(f.DestinationPortRange)
	return out, nil
}

func (h *ec2Handlers) insightsPathShape(p *vpc.InsightsPath) api.NetworkInsightsPath {
	out := api.NetworkInsightsPath{
		NetworkInsightsPathId: new(string(p.ID)), NetworkInsightsPathArn: new(h.ec2ARN("network-insights-path", string(p.ID))), CreatedDate: new(p.Created),
		Source: new(p.Source), SourceArn: h.componentShape(p.Source).Arn, Destination: strOrNil(p.Destination),
		SourceIp: addrOrNil(p.SourceIP), DestinationIp: addrOrNil(p.DestinationIP), Protocol: new(p.Protocol.String()), Tags: ec2Tags(p.Tags),
		FilterAtSource: pathFilterShape(p.AtSource), FilterAtDestination: pathFilterShape(p.AtDestination),
	}
	if c := h.componentShape(p.Destination); c != nil {
		out.DestinationArn = c.Arn
	}
	if p.DestinationPort != nil {
		out.DestinationPort = i32(*p.DestinationPort)
	}
	return out
}

// lowerPathProtocol writes tcp for TCP, which the AWS CLI's own example sends although the model's enum has small letters.
func lowerPathProtocol(in *api.CreateNetworkInsightsPathInput) {
	if in.Protocol != nil {
		in.Protocol = new(strings.ToLower(*in.Protocol))
	}
}

func (h *ec2Handlers) createNetworkInsightsPath(ctx context.Context, _ Caller, in *api.CreateNetworkInsightsPathInput) (*api.CreateNetworkInsightsPathOutput, error) {
	tags, err := specifiedTags(in.TagSpecifications, "network-insights-path")
	if err != nil {
		return nil, err
	}
	atSource, err := pathFilter("FilterAtSource", in.FilterAtSource)
	if err != nil {
		return nil, err
	}
	atDestination, err := pathFilter("FilterAtDestination", in.FilterAtDestination)
	if err != nil {
		return nil, err
	}
	p, err := h.net.CreateInsightsPath(ctx, network.CreateInsightsPath{
		Source: deref(in.Source), Destination: deref(in.Destination), SourceIP: deref(in.SourceIp), DestinationIP: deref(in.DestinationIp),
		Protocol: deref(in.Protocol), DestinationPort: intp(in.DestinationPort), AtSource: atSource, AtDestination: atDestination, Tags: tags,
	}, deref(in.ClientToken))
	if err != nil {
		return nil, err
	}
	return &api.CreateNetworkInsightsPathOutput{NetworkInsightsPath: new(h.insightsPathShape(p))}, nil
}

func (h *ec2Handlers) describeNetworkInsightsPaths(ctx context.Context, _ Caller, in *api.DescribeNetworkInsightsPathsInput) (*api.DescribeNetworkInsightsPathsOutput, error) {
	type p = api.NetworkInsightsPath
	all, err := h.net.DescribeInsightsPaths(ctx, ec2IDs[vpc.InsightsPathID](in.NetworkInsightsPathIds))
	if err != nil {
		return nil, err
	}
	items := make([]p, 0, len(all))
	for _, v := range all {
		items = append(items, h.insightsPathShape(v))
	}
	f := ec2Filter[p]{
		"destination": one(func(v *p) string { return deref(v.Destination) }),
		"protocol":    one(func(v *p) string { return *v.Protocol }),
		"source":      one(func(v *p) string { return *v.Source }),
	}
	for prefix, of := range map[string]func(*p) *api.PathFilter{
		"filter-at-source.":      func(v *p) *api.PathFilter { return v.FilterAtSource },
		"filter-at-destination.": func(v *p) *api.PathFilter { return v.FilterAtDestination },
	} {
		read := func(of func(*p) *api.PathFilter, value func(*api.PathFilter) *string) func(*p) []string {
			return func(v *p) []string {
				if at := of(v); at != nil {
					if s := value(at); s != nil {
						return []string{*s}
					}
				}
				return nil
			}
		}
		ports := func(r *api.FilterPortRange) *string {
			if r == nil {
				return nil
			}
			return new(vpc.PortRange{From: int(*r.FromPort), To: int(*r.ToPort)}.String())
		}
		f[prefix+"source-address"] = read(of, func(x *api.PathFilter) *string { return x.SourceAddress })
		f[prefix+"destination-address"] = read(of, func(x *api.PathFilter) *string { return x.DestinationAddress })
		f[prefix+"source-port-range"] = read(of, func(x *api.PathFilter) *string { return ports(x.SourcePortRange) })
		f[prefix+"destination-port-range"] = read(of, func(x *api.PathFilter) *string { return ports(x.DestinationPortRange) })
	}
	items, next, err := found(items, f, in.Filters, func(v *p) []api.Tag { return v.Tags }, func(v *p) string { return *v.NetworkInsightsPathId }, in.MaxResults, in.NextToken)
	return &api.DescribeNetworkInsightsPathsOutput{NetworkInsightsPaths: items, NextToken: next}, err
}

func (h *ec2Handlers) deleteNetworkInsightsPath(ctx context.Context, _ Caller, in *api.DeleteNetworkInsightsPathInput) (*api.DeleteNetworkInsightsPathOutput, error) {
	return &api.DeleteNetworkInsightsPathOutput{NetworkInsightsPathId: in.NetworkInsightsPathId}, h.net.DeleteInsightsPath(ctx, vpc.InsightsPathID(deref(in.NetworkInsightsPathId)))
}

func (h *ec2Handlers) analysisShape(a *vpc.InsightsAnalysis) api.NetworkInsightsAnalysis {
	out := api.NetworkInsightsAnalysis{
		NetworkInsightsAnalysisId: new(string(a.ID)), NetworkInsightsAnalysisArn: new(h.ec2ARN("network-insights-analysis", string(a.ID))),
		NetworkInsightsPathId: new(string(a.Path)), FilterInArns: a.FilterIn, FilterOutArns: a.FilterOut, StartDate: new(a.Started),
		Status: new(string(a.Status)), StatusMessage: strOrNil(a.Message), WarningMessage: strOrNil(a.Warning), Tags: ec2Tags(a.Tags),
	}
	if a.Status != vpc.AnalysisSucceeded {
		return out
	}
	out.NetworkPathFound = new(a.Found)
	out.ForwardPathComponents, out.ReturnPathComponents = h.pathComponents(a.Forward), h.pathComponents(a.Return)
	for _, x := range a.Explanations {
		out.Explanations = append(out.Explanations, h.explanationShape(x))
	}
	return out
}

func (h *ec2Handlers) startNetworkInsightsAnalysis(ctx context.Context, _ Caller, in *api.StartNetworkInsightsAnalysisInput) (*api.StartNetworkInsightsAnalysisOutput, error) {
	if err := ec2Unsupported(len(in.AdditionalAccounts) > 0, "AdditionalAccount", "there is one account"); err != nil {
		return nil, err
	}
	tags, err := specifiedTags(in.TagSpecifications, "network-insights-analysis")
	if err != nil {
		return nil, err
	}
	a, err := h.net.StartInsightsAnalysis(ctx, vpc.InsightsPathID(deref(in.NetworkInsightsPathId)), in.FilterInArns, in.FilterOutArns, tags, deref(in.ClientToken))
	if err != nil {
		return nil, err
	}
	return &api.StartNetworkInsightsAnalysisOutput{NetworkInsightsAnalysis: new(h.analysisShape(a))}, nil
}

func (h *ec2Handlers) describeNetworkInsightsAnalyses(ctx context.Context, _ Caller, in *api.DescribeNetworkInsightsAnalysesInput) (*api.DescribeNetworkInsightsAnalysesOutput, error) {
	type a = api.NetworkInsightsAnalysis
	all, err := h.net.DescribeInsightsAnalyses(ctx, ec2IDs[vpc.InsightsAnalysisID](in.NetworkInsightsAnalysisIds), vpc.InsightsPathID(deref(in.NetworkInsightsPathId)))
	if err != nil {
		return nil, err
	}
	items := make([]a, 0, len(all))
	for _, v := range all {
		if in.AnalysisStartTime != nil && v.Started.Before(*in.AnalysisStartTime) || in.AnalysisEndTime != nil && v.Started.After(*in.AnalysisEndTime) {
			continue
		}
		items = append(items, h.analysisShape(v))
	}
	f := ec2Filter[a]{
		"path-found": func(v *a) []string {
			if v.NetworkPathFound == nil {
				return nil
			}
			return []string{strconv.FormatBool(*v.NetworkPathFound)}
		},
		"status": one(func(v *a) string { return *v.Status }),
	}
	items, next, err := found(items, f, in.Filters, func(v *a) []api.Tag { return v.Tags }, func(v *a) string { return *v.NetworkInsightsAnalysisId }, in.MaxResults, in.NextToken)
	return &api.DescribeNetworkInsightsAnalysesOutput{NetworkInsightsAnalyses: items, NextToken: next}, err
}

func (h *ec2Handlers) deleteNetworkInsightsAnalysis(ctx context.Context, _ Caller, in *api.DeleteNetworkInsightsAnalysisInput) (*api.DeleteNetworkInsightsAnalysisOutput, error) {
	err := h.net.DeleteInsightsAnalysis(ctx, vpc.InsightsAnalysisID(deref(in.NetworkInsightsAnalysisId)))
	return &api.DeleteNetworkInsightsAnalysisOutput{NetworkInsightsAnalysisId: in.NetworkInsightsAnalysisId}, err
}

// describeDhcpOptions: the account has the one set that every VPC of it uses, as a new account has in EC2.
func (h *ec2Handlers) describeDhcpOptions(ctx context.Context, _ Caller, in *api.DescribeDhcpOptionsInput) (*api.DescribeDhcpOptionsOutput, error) {
	type o = api.DhcpOptions
	domain := "ec2.internal"
	if h.region != "us-east-1" {
		domain = h.region + ".compute.internal"
	}
	id := h.net.DHCPOptions()
	for _, want := range in.DhcpOptionsIds {
		if err := vpc.CheckID(vpc.DHCPOptionsID(want)); err != nil {
			return nil, err
		}
		if want != string(id) {
			return nil, vpc.NotFound(vpc.DHCPOptionsID(want))
		}
	}
	value := func(s string) []api.AttributeValue { return []api.AttributeValue{{Value: new(s)}} }
	items := []o{{
		DhcpOptionsId: new(string(id)), OwnerId: new(h.account), Tags: []api.Tag{},
		DhcpConfigurations: []api.DhcpConfiguration{{Key: new("domain-name"), Values: value(domain)}, {Key: new("domain-name-servers"), Values: value("AmazonProvidedDNS")}},
	}}
	configurations := func(v *o) []api.DhcpConfiguration { return v.DhcpConfigurations }
	f := ec2Filter[o]{
		"dhcp-options-id": one(func(v *o) string { return *v.DhcpOptionsId }),
		"key":             every(configurations, func(c *api.DhcpConfiguration) string { return *c.Key }),
		"value": func(v *o) (out []string) {
			for _, c := range v.DhcpConfigurations {
				out = append(out, every(func(c *api.DhcpConfiguration) []api.AttributeValue { return c.Values }, func(a *api.AttributeValue) string { return *a.Value })(&c)...)
			}
			return out
		},
		"owner-id": one(func(v *o) string { return *v.OwnerId }),
	}
	items, next, err := found(items, f, in.Filters, func(v *o) []api.Tag { return v.Tags }, func(v *o) string { return *v.DhcpOptionsId }, in.MaxResults, in.NextToken)
	return &api.DescribeDhcpOptionsOutput{DhcpOptions: items, NextToken: next}, err
}
