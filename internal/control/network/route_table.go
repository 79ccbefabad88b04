package network

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// RouteTable is a route table with all the routes that are in force, the local and the propagated ones too.
type RouteTable struct {
	*vpc.RouteTable
	Effective []EffectiveRoute
	Gateway   vpc.GatewayID // of the VPC
}

// EffectiveRoute is a route as DescribeRouteTables shows it.
type EffectiveRoute struct {
	CIDR       netip.Prefix
	PrefixList vpc.PrefixListID // instead of CIDR
	Gateway    vpc.GatewayID
	Interface  vpc.NetworkInterfaceID
	Origin     string // "CreateRouteTable", "CreateRoute", "EnableVgwRoutePropagation"
	State      string // "active", "blackhole"
}

func (s *Service) effective(r state.Reader, t *vpc.RouteTable) (RouteTable, error) {
	v, err := get(r, vpc.VPCs(), t.VPC)
	if err != nil {
		return RouteTable{}, err
	}
	out := RouteTable{RouteTable: t, Gateway: v.Gateway}
	for _, b := range v.Blocks() {
		out.Effective = append(out.Effective, EffectiveRoute{CIDR: b, Gateway: vpc.LocalGateway, Origin: "CreateRouteTable", State: "active"})
	}
	for _, route := range t.Routes {
		e := EffectiveRoute{CIDR: route.CIDR, PrefixList: route.PrefixList, Gateway: route.Gateway, Interface: route.Interface, Origin: "CreateRoute", State: "active"}
		if route.Interface != "" {
			if _, ok, err := vpc.NetworkInterfaces().Get(r, string(route.Interface)); err != nil {
				return RouteTable{}, err
			} else if !ok {
				e.State = "blackhole"
			}
		}
		out.Effective = append(out.Effective, e)
	}
	if t.Propagates {
		for _, u := range s.userCIDRs() {
			_, local := v.BlockOf(u)
			if local || u.Addr().Is6() && len(v.IPv6) == 0 || slices.ContainsFunc(t.Routes, func(x vpc.Route) bool { return x.CIDR == u }) {
				continue // the local route or the static one wins
			}
			out.Effective = append(out.Effective, EffectiveRoute{CIDR: u, Gateway: v.Gateway, Origin: "EnableVgwRoutePropagation", State: "active"})
		}
	}
	return out, nil
}

// CreateRouteTable makes a table that knows the VPC alone. A token makes repeats harmless.
func (s *Service) CreateRouteTable(ctx context.Context, id vpc.VPCID, tags vpc.Tags, token string) (RouteTable, error) {
	if err := s.checkTags(tags); err != nil {
		return RouteTable{}, err
	}
	return state.Write(ctx, s.store, func(tx state.Tx) (RouteTable, error) {
		t, err := once(s, tx, "CreateRouteTable", token, createInVPC{id, tags}, vpc.RouteTables(), func() (*vpc.RouteTable, error) {
			if _, err := get(tx, vpc.VPCs(), id); err != nil {
				return nil, err
			}
			n, err := tx.Count(vpc.KindRouteTable, state.Key{Name: "vpc", Value: string(id)})
			if err != nil {
				return nil, err
			}
			if n >= s.limits.RouteTablesPerVPC {
				return nil, limit("RouteTableLimitExceeded", "The maximum number of route tables has been reached.")
			}
			t := &vpc.RouteTable{ID: newID[vpc.RouteTableID](vpc.PrefixRouteTable), OwnerID: s.account, VPC: id, Tags: tags}
			return t, vpc.RouteTables().Put(tx, t)
		})
		if err != nil {
			return RouteTable{}, err
		}
		return s.effective(tx, t)
	})
}

// DescribeRouteTables returns the named tables, or all.
func (s *Service) DescribeRouteTables(ctx context.Context, ids []vpc.RouteTableID) ([]RouteTable, error) {
	return state.Read(ctx, s.store, func(r state.Reader) ([]RouteTable, error) {
		var tables []*vpc.RouteTable
		if len(ids) == 0 {
			var err error
			if tables, err = vpc.RouteTables().List(r, state.Query{}); err != nil {
				return nil, err
			}
		}
		for _, id := range ids {
			t, err := get(r, vpc.RouteTables(), id)
			if err != nil {
				return nil, err
			}
			tables = append(tables, t)
		}
		out := make([]RouteTable, 0, len(tables))
		for _, t := range tables {
			e, err := s.effective(r, t)
			if err != nil {
				return nil, err
			}
			out = append(out, e)
		}
		return out, nil
	})
}

// DeleteRouteTable removes a table that is not the main one and has no subnets.
func (s *Service) DeleteRouteTable(ctx context.Context, id vpc.RouteTableID) error {
	_, err := s.store.Update(ctx, func(tx state.Tx) error {
		t, err := get(tx, vpc.RouteTables(), id)
		if err != nil {
			return err
		}
		if len(t.Associations) > 0 {
			return dependency("The routeTable '%s' has dependencies and cannot be deleted.", id)
		}
		return vpc.RouteTables().Delete(tx, string(id))
	})
	return err
}

// AssociateRouteTable ties a subnet to a table instead of the main one.
func (s *Service) AssociateRouteTable(ctx context.Context, id vpc.RouteTableID, subnet vpc.SubnetID) (vpc.RouteTableAssociationID, error) {
	return state.Write(ctx, s.store, func(tx state.Tx) (vpc.RouteTableAssociationID, error) {
		t, err := get(tx, vpc.RouteTables(), id)
		if err != nil {
			return "", err
		}
		n, err := get(tx, vpc.Subnets(), subnet)
		if err != nil {
			return "", err
		}
		if t.VPC != n.VPC {
			return "", invalid("Route table %s and subnet %s belong to different networks", id, subnet)
		}
		have, err := vpc.RouteTables().By(tx, "subnet", string(subnet))
		if err != nil {
			return "", err
		}
		for _, o := range have {
			for _, a := range o.Associations {
				if a.Subnet == subnet && o.ID == id {
					return a.ID, nil
				}
				if a.Subnet == subnet {
					return "", fault.Newf(fault.AlreadyExists, "", "", "the specified association for route table %s conflicts with an existing association", id).WithCode("Resource.AlreadyAssociated")
				}
			}
		}
		a := vpc.RouteTableAssociation{ID: newID[vpc.RouteTableAssociationID](vpc.PrefixRouteTableAssociation), Subnet: subnet}
		t.Associations = append(t.Associations, a)
		return a.ID, vpc.RouteTables().Put(tx, t)
	})
}

// DisassociateRouteTable gives a subnet back to the main table.
func (s *Service) DisassociateRouteTable(ctx context.Context, id vpc.RouteTableAssociationID) error {
	_, err := s.store.Update(ctx, func(tx state.Tx) error {
		t, a, err := tableOf(tx, id)
		if err != nil {
			return err
		}
		if a.Main {
			return invalid("cannot disassociate the main route table association %s", id)
		}
		t.Associations = without(t.Associations, func(x vpc.RouteTableAssociation) bool { return x.ID == id })
		return vpc.RouteTables().Put(tx, t)
	})
	return err
}

// ReplaceRouteTableAssociation moves a subnet, or the role of main table, to another table.
func (s *Service) ReplaceRouteTableAssociation(ctx context.Context, id vpc.RouteTableAssociationID, to vpc.RouteTableID) (vpc.RouteTableAssociationID, error) {
	return state.Write(ctx, s.store, func(tx state.Tx) (vpc.RouteTableAssociationID, error) {
		prev, a, err := tableOf(tx, id)
		if err != nil {
			return "", err
		}
		next, err := get(tx, vpc.RouteTables(), to)
		if err != nil {
			return "", err
		}
		if prev.VPC != next.VPC {
			return "", invalid("Route table %s and the association's route table %s belong to different networks", next.ID, prev.ID)
		}
		if prev.ID == next.ID {
			return id, nil
		}
		prev.Associations = without(prev.Associations, func(x vpc.RouteTableAssociation) bool { return x.ID == id })
		a.ID = newID[vpc.RouteTableAssociationID](vpc.PrefixRouteTableAssociation)
		next.Associations = append(next.Associations, a)
		if err := cmp.Or(vpc.RouteTables().Put(tx, prev), vpc.RouteTables().Put(tx, next)); err != nil {
			return "", err
		}
		if !a.Main {
			return a.ID, nil
		}
		v, err := get(tx, vpc.VPCs(), next.VPC)
		if err != nil {
			return "", err
		}
		v.MainRouteTable = next.ID
		return a.ID, vpc.VPCs().Put(tx, v)
	})
}

func tableOf(r state.Reader, id vpc.RouteTableAssociationID) (*vpc.RouteTable, vpc.RouteTableAssociation, error) {
	none := vpc.RouteTableAssociation{}
	if err := vpc.CheckID(id); err != nil {
		return nil, none, err
	}
	holders, err := vpc.RouteTables().By(r, "association", string(id))
	if err != nil {
		return nil, none, err
	}
	for _, t := range holders {
		for _, a := range t.Associations {
			if a.ID == id {
				return t, a, nil
			}
		}
	}
	return nil, none, vpc.NotFound(id)
}

// CreateRoute adds a static route through the VPC's gateway or to an interface.
func (s *Service) CreateRoute(ctx context.Context, id vpc.RouteTableID, route vpc.Route) error {
	return s.changeRoute(ctx, id, route, func(t *vpc.RouteTable, i int, lists vpc.Lists) error {
		if i >= 0 {
			return fault.Newf(fault.AlreadyExists, "", "", "The route identified by %s already exists.", route.Destination()).WithCode("RouteAlreadyExists")
		}
		t.Routes = append(t.Routes, route)
		if t.Count(lists) > s.limits.RoutesPerTable {
			return limit("RouteLimitExceeded", "The maximum number of routes has been reached.")
		}
		return nil
	})
}

// ReplaceRoute changes where a static route leads.
func (s *Service) ReplaceRoute(ctx context.Context, id vpc.RouteTableID, route vpc.Route) error {
	return s.changeRoute(ctx, id, route, func(t *vpc.RouteTable, i int, _ vpc.Lists) error {
		if i < 0 {
			return noRoute(id, &route)
		}
		t.Routes[i] = route
		return nil
	})
}

func (s *Service) changeRoute(ctx context.Context, id vpc.RouteTableID, route vpc.Route, change func(*vpc.RouteTable, int, vpc.Lists) error) error {
	_, err := s.store.Update(ctx, func(tx state.Tx) error {
		t, err := get(tx, vpc.RouteTables(), id)
		if err != nil {
			return err
		}
		v, err := get(tx, vpc.VPCs(), t.VPC)
		if err != nil {
			return err
		}
		lists, err := prefixLists(tx)
		if err != nil {
			return err
		}
		if route.PrefixList != "" {
			if _, err := get(tx, vpc.PrefixLists(), route.PrefixList); err != nil {
				return err
			}
		} else if slices.Contains(v.Blocks(), route.CIDR) {
			return fault.Newf(fault.AlreadyExists, "", "", "The route identified by %s already exists.", route.CIDR).WithCode("RouteAlreadyExists")
		}
		switch {
		case route.Gateway != "" && route.Interface != "":
			return combination("Only one target of a route may be given")
		case route.Interface != "":
			n, err := get(tx, vpc.NetworkInterfaces(), route.Interface)
			if err != nil {
				return err
			}
			if n.VPC != t.VPC {
				return invalid("route table %s and interface %s belong to different networks", id, route.Interface)
			}
		case route.Gateway == "":
			return missing("GatewayId")
		case route.Gateway != v.Gateway:
			return cmp.Or(vpc.CheckID(route.Gateway), vpc.NotFound(route.Gateway))
		}
		if b, inside := v.BlockOf(route.CIDR); inside && route.PrefixList == "" {
			return invalid("The destination CIDR block %s is inside the VPC's block %s, which only the local route leads to", route.CIDR, b)
		}
		i := slices.IndexFunc(t.Routes, func(r vpc.Route) bool { return r.SameDestination(&route) })
		if err := change(t, i, lists); err != nil {
			return err
		}
		return vpc.RouteTables().Put(tx, t)
	})
	return err
}

// DeleteRoute removes the static route with the destination of to.
func (s *Service) DeleteRoute(ctx context.Context, id vpc.RouteTableID, to vpc.Route) error {
	_, err := s.store.Update(ctx, func(tx state.Tx) error {
		t, err := get(tx, vpc.RouteTables(), id)
		if err != nil {
			return err
		}
		v, err := get(tx, vpc.VPCs(), t.VPC)
		if err != nil {
			return err
		}
		if to.PrefixList == "" && slices.Contains(v.Blocks(), to.CIDR) {
			return invalid("cannot remove local route %s in route table %s", to.CIDR, id)
		}
		if to.PrefixList != "" {
			if _, err := get(tx, vpc.PrefixLists(), to.PrefixList); err != nil {
				return err
			}
		}
		i := slices.IndexFunc(t.Routes, func(r vpc.Route) bool { return r.SameDestination(&to) })
		if i < 0 {
			return noRoute(id, &to)
		}
		t.Routes = slices.Delete(t.Routes, i, i+1)
		return vpc.RouteTables().Put(tx, t)
	})
	return err
}

func noRoute(id vpc.RouteTableID, to *vpc.Route) error {
	kind := "destination-cidr-block"
	switch {
	case to.PrefixList != "":
		kind = "destination-prefix-list-id"
	case to.CIDR.Addr().Is6():
		kind = "destination-ipv6-cidr-block"
	}
	return fault.Newf(fault.NotFound, "", "", "no route with %s %s in route table %s", kind, to.Destination(), id).WithCode("InvalidRoute.NotFound")
}
