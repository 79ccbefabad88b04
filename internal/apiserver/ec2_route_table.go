package apiserver

import (
	"context"

	"penstock.dev/penstock/internal/control/network"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/vpc"
	api "penstock.dev/penstock/internal/wire/ec2api"
)

func routeTableShape(t *network.RouteTable) api.RouteTable {
	out := api.RouteTable{
		RouteTableId: new(string(t.ID)), VpcId: new(string(t.VPC)), OwnerId: new(t.OwnerID), Tags: ec2Tags(t.Tags),
		Associations: make([]api.RouteTableAssociation, 0, len(t.Associations)), Routes: make([]api.Route, 0, len(t.Effective)),
		PropagatingVgws: []api.PropagatingVgw{},
	}
	if t.Propagates {
		out.PropagatingVgws = append(out.PropagatingVgws, api.PropagatingVgw{GatewayId: new(string(t.Gateway))})
	}
	for _, a := range t.Associations {
		out.Associations = append(out.Associations, api.RouteTableAssociation{
			Main: new(a.Main), RouteTableAssociationId: new(string(a.ID)), RouteTableId: new(string(t.ID)), SubnetId: strOrNil(string(a.Subnet)),
			AssociationState: &api.RouteTableAssociationState{State: new("associated")},
		})
	}
	for _, r := range t.Effective {
		route := api.Route{
			GatewayId: strOrNil(string(r.Gateway)), NetworkInterfaceId: strOrNil(string(r.Interface)),
			Origin: new(r.Origin), State: new(r.State),
		}
		switch {
		case r.PrefixList != "":
			route.DestinationPrefixListId = new(string(r.PrefixList))
		case r.CIDR.Addr().Is6():
			route.DestinationIpv6CidrBlock = new(r.CIDR.String())
		default:
			route.DestinationCidrBlock = new(r.CIDR.String())
		}
		out.Routes = append(out.Routes, route)
	}
	return out
}

func (h *ec2Handlers) createRouteTable(ctx context.Context, _ Caller, in *api.CreateRouteTableInput) (*api.CreateRouteTableOutput, error) {
	tags, err := specifiedTags(in.TagSpecifications, "route-table")
	if err != nil {
		return nil, err
	}
	t, err := h.net.CreateRouteTable(ctx, vpc.VPCID(deref(in.VpcId)), tags, deref(in.ClientToken))
	if err != nil {
		return nil, err
	}
	return &api.CreateRouteTableOutput{RouteTable: new(routeTableShape(&t)), ClientToken: in.ClientToken}, nil
}

func (h *ec2Handlers) describeRouteTables(ctx context.Context, _ Caller, in *api.DescribeRouteTablesInput) (*api.DescribeRouteTablesOutput, error) {
	type t = api.RouteTable
	all, err := h.net.DescribeRouteTables(ctx, ec2IDs[vpc.RouteTableID](in.RouteTableIds))
	if err != nil {
		return nil, err
	}
	items := make([]t, 0, len(all))
	for i := range all {
		items = append(items, routeTableShape(&all[i]))
	}
	associations := func(v *t) []api.RouteTableAssociation { return v.Associations }
	routes := func(v *t) []api.Route { return v.Routes }
	f := ec2Filter[t]{
		"association.gateway-id":                 never[t],
		"association.route-table-association-id": every(associations, func(a *api.RouteTableAssociation) string { return *a.RouteTableAssociationId }),
		"association.route-table-id":             every(associations, func(a *api.RouteTableAssociation) string { return *a.RouteTableId }),
		"association.subnet-id":                  every(associations, func(a *api.RouteTableAssociation) string { return deref(a.SubnetId) }),
		"association.main": every(associations, func(a *api.RouteTableAssociation) string {
			if *a.Main {
				return "true"
			}
			return "false"
		}),
		"owner-id":                              one(func(v *t) string { return *v.OwnerId }),
		"route-table-id":                        one(func(v *t) string { return *v.RouteTableId }),
		"route.destination-cidr-block":          every(routes, func(r *api.Route) string { return deref(r.DestinationCidrBlock) }),
		"route.destination-ipv6-cidr-block":     every(routes, func(r *api.Route) string { return deref(r.DestinationIpv6CidrBlock) }),
		"route.destination-prefix-list-id":      every(routes, func(r *api.Route) string { return deref(r.DestinationPrefixListId) }),
		"route.egress-only-internet-gateway-id": never[t],
		"route.gateway-id":                      every(routes, func(r *api.Route) string { return deref(r.GatewayId) }),
		"route.instance-id":                     never[t],
		"route.nat-gateway-id":                  never[t],
		"route.transit-gateway-id":              never[t],
		"route.origin":                          every(routes, func(r *api.Route) string { return *r.Origin }),
		"route.state":                           every(routes, func(r *api.Route) string { return *r.State }),
		"route.vpc-peering-connection-id":       never[t],
		"vpc-id":                                one(func(v *t) string { return *v.VpcId }),
	}
	items, next, err := found(items, f, in.Filters, func(v *t) []api.Tag { return v.Tags }, func(v *t) string { return *v.RouteTableId }, in.MaxResults, in.NextToken)
	return &api.DescribeRouteTablesOutput{RouteTables: items, NextToken: next}, err
}

func (h *ec2Handlers) deleteRouteTable(ctx context.Context, _ Caller, in *api.DeleteRouteTableInput) (*api.DeleteRouteTableOutput, error) {
	return nil, h.net.DeleteRouteTable(ctx, vpc.RouteTableID(deref(in.RouteTableId)))
}

func (h *ec2Handlers) associateRouteTable(ctx context.Context, _ Caller, in *api.AssociateRouteTableInput) (*api.AssociateRouteTableOutput, error) {
	if err := ec2Unsupported(in.GatewayId != nil || in.PublicIpv4Pool != nil, "GatewayId", "only subnets have route tables"); err != nil {
		return nil, err
	}
	if in.SubnetId == nil {
		return nil, fault.New(fault.Missing, "", "", "The request must contain the parameter SubnetId").WithCode("MissingParameter")
	}
	id, err := h.net.AssociateRouteTable(ctx, vpc.RouteTableID(deref(in.RouteTableId)), vpc.SubnetID(*in.SubnetId))
	return &api.AssociateRouteTableOutput{AssociationId: new(string(id)), AssociationState: &api.RouteTableAssociationState{State: new("associated")}}, err
}

func (h *ec2Handlers) disassociateRouteTable(ctx context.Context, _ Caller, in *api.DisassociateRouteTableInput) (*api.DisassociateRouteTableOutput, error) {
	return nil, h.net.DisassociateRouteTable(ctx, vpc.RouteTableAssociationID(deref(in.AssociationId)))
}

func (h *ec2Handlers) replaceRouteTableAssociation(ctx context.Context, _ Caller, in *api.ReplaceRouteTableAssociationInput) (*api.ReplaceRouteTableAssociationOutput, error) {
	id, err := h.net.ReplaceRouteTableAssociation(ctx, vpc.RouteTableAssociationID(deref(in.AssociationId)), vpc.RouteTableID(deref(in.RouteTableId)))
	return &api.ReplaceRouteTableAssociationOutput{NewAssociationId: new(string(id)), AssociationState: &api.RouteTableAssociationState{State: new("associated")}}, err
}

// routeTo reads the destination of a route.
func routeTo(cidr, cidr6, list *string) (vpc.Route, error) {
	given := 0
	for _, p := range []*string{cidr, cidr6, list} {
		if p != nil {
			given++
		}
	}
	switch {
	case given > 1:
		return vpc.Route{}, fault.New(fault.Combination, "", "", "Only one of DestinationCidrBlock, DestinationIpv6CidrBlock and DestinationPrefixListId may be given").WithCode("InvalidParameterCombination")
	case list != nil:
		return vpc.Route{PrefixList: vpc.PrefixListID(*list)}, nil
	case cidr6 != nil:
		p, err := vpc.ParseCIDR6(*cidr6)
		return vpc.Route{CIDR: p}, err
	case cidr == nil:
		return vpc.Route{}, fault.New(fault.Missing, "", "", "The request must contain the parameter destinationCidrBlock").WithCode("MissingParameter")
	}
	p, err := vpc.ParseCIDR(*cidr)
	return vpc.Route{CIDR: p}, err
}

// routeTarget refuses targets that cannot exist here.
func routeTarget(others ...*string) error {
	for _, o := range others {
		if err := ec2Unsupported(o != nil, "target", "routes lead through the VPC's gateway (vgw-…) or to a network interface"); err != nil {
			return err
		}
	}
	return nil
}

func (h *ec2Handlers) createRoute(ctx context.Context, _ Caller, in *api.CreateRouteInput) (*api.CreateRouteOutput, error) {
	route, err := routeTo(in.DestinationCidrBlock, in.DestinationIpv6CidrBlock, in.DestinationPrefixListId)
	if err != nil {
		return nil, err
	}
	if err := routeTarget(in.VpcEndpointId, in.TransitGatewayId, in.LocalGatewayId, in.CarrierGatewayId, in.CoreNetworkArn, in.OdbNetworkArn,
		in.EgressOnlyInternetGatewayId, in.InstanceId, in.VpcPeeringConnectionId, in.NatGatewayId); err != nil {
		return nil, err
	}
	route.Gateway, route.Interface = vpc.GatewayID(deref(in.GatewayId)), vpc.NetworkInterfaceID(deref(in.NetworkInterfaceId))
	err = h.net.CreateRoute(ctx, vpc.RouteTableID(deref(in.RouteTableId)), route)
	return &api.CreateRouteOutput{Return: new(true)}, err
}

func (h *ec2Handlers) replaceRoute(ctx context.Context, _ Caller, in *api.ReplaceRouteInput) (*api.ReplaceRouteOutput, error) {
	route, err := routeTo(in.DestinationCidrBlock, in.DestinationIpv6CidrBlock, in.DestinationPrefixListId)
	if err != nil {
		return nil, err
	}
	if err := routeTarget(in.VpcEndpointId, in.TransitGatewayId, in.LocalGatewayId, in.CarrierGatewayId, in.CoreNetworkArn, in.OdbNetworkArn,
		in.EgressOnlyInternetGatewayId, in.InstanceId, in.VpcPeeringConnectionId, in.NatGatewayId); err != nil {
		return nil, err
	}
	route.Gateway, route.Interface = vpc.GatewayID(deref(in.GatewayId)), vpc.NetworkInterfaceID(deref(in.NetworkInterfaceId))
	return nil, h.net.ReplaceRoute(ctx, vpc.RouteTableID(deref(in.RouteTableId)), route)
}

func (h *ec2Handlers) deleteRoute(ctx context.Context, _ Caller, in *api.DeleteRouteInput) (*api.DeleteRouteOutput, error) {
	route, err := routeTo(in.DestinationCidrBlock, in.DestinationIpv6CidrBlock, in.DestinationPrefixListId)
	if err != nil {
		return nil, err
	}
	return nil, h.net.DeleteRoute(ctx, vpc.RouteTableID(deref(in.RouteTableId)), route)
}
