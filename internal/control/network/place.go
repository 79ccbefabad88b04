package network

import (
	"context"
	"slices"
	"strings"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// Facts are what policies may ask of a resource besides its tags. What it has not is empty.
type Facts struct {
	VPC          vpc.VPCID // that it is in; of a VPC itself
	Subnet       vpc.SubnetID
	Zone, ZoneID string
	Tenancy      string // of a VPC
	Service      string // of an endpoint
}

// FactsOf are the facts about each of the resources. It reads these alone; what does not exist is left out.
func (s *Service) FactsOf(ctx context.Context, ids []string) (map[string]Facts, error) {
	return state.Read(ctx, s.store, func(r state.Reader) (map[string]Facts, error) {
		out := make(map[string]Facts, len(ids))
		for _, id := range ids {
			f, err := s.factsOf(r, id)
			if err != nil {
				return nil, err
			}
			if f != (Facts{}) {
				out[id] = f
			}
		}
		return out, nil
	})
}

func (s *Service) factsOf(r state.Reader, id string) (Facts, error) {
	prefix, _, _ := strings.Cut(id, "-")
	switch prefix {
	case vpc.PrefixVPC:
		return factsIn(r, vpc.VPCs(), id, func(v *vpc.VPC) Facts { return Facts{VPC: v.ID, Tenancy: v.Tenancy} })
	case vpc.PrefixSubnet:
		return factsIn(r, vpc.Subnets(), id, func(v *vpc.Subnet) Facts { return s.placed(v.VPC, v.ID, v.Zone) })
	case vpc.PrefixSecurityGroup:
		return factsIn(r, vpc.SecurityGroups(), id, func(v *vpc.SecurityGroup) Facts { return Facts{VPC: v.VPC} })
	case vpc.PrefixNetworkACL:
		return factsIn(r, vpc.NetworkACLs(), id, func(v *vpc.NetworkACL) Facts { return Facts{VPC: v.VPC} })
	case vpc.PrefixRouteTable:
		return factsIn(r, vpc.RouteTables(), id, func(v *vpc.RouteTable) Facts { return Facts{VPC: v.VPC} })
	case vpc.PrefixEndpoint:
		return factsIn(r, vpc.Endpoints(), id, func(v *vpc.Endpoint) Facts { return Facts{VPC: v.VPC, Service: v.Service} })
	case vpc.PrefixNetworkInterface:
		n, ok, err := vpc.NetworkInterfaces().Get(r, id)
		if err != nil || !ok {
			return Facts{}, err
		}
		return factsIn(r, vpc.Subnets(), string(n.Subnet), func(v *vpc.Subnet) Facts { return s.placed(n.VPC, n.Subnet, v.Zone) })
	}
	return Facts{}, nil
}

func (s *Service) placed(v vpc.VPCID, subnet vpc.SubnetID, zone string) Facts {
	f := Facts{VPC: v, Subnet: subnet, Zone: zone}
	for _, z := range vpc.Zones(s.region) {
		if z.Name == zone {
			f.ZoneID = z.ID
		}
	}
	return f
}

func factsIn[T any](r state.Reader, t state.Table[T], id string, of func(*T) Facts) (Facts, error) {
	v, ok, err := t.Get(r, id)
	if err != nil || !ok {
		return Facts{}, err
	}
	return of(v), nil
}

// DefaultVPC is the ID of the default VPC; empty when there is none.
func (s *Service) DefaultVPC(ctx context.Context) (vpc.VPCID, error) {
	return state.Read(ctx, s.store, func(r state.Reader) (vpc.VPCID, error) {
		defaults, err := vpc.VPCs().By(r, "default", "true")
		if err != nil || len(defaults) == 0 {
			return "", err
		}
		return defaults[0].ID, nil
	})
}

// GroupNamed is the ID of the default VPC's group with that name; empty when there is none.
func (s *Service) GroupNamed(ctx context.Context, name string) (vpc.SecurityGroupID, error) {
	return state.Read(ctx, s.store, func(r state.Reader) (vpc.SecurityGroupID, error) {
		g, err := s.group(r, GroupRef{Name: name})
		if fault.Is(err, fault.NotFound) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		return g.ID, nil
	})
}

// Associated are the IDs of what an association ties: the route table or network ACL and the subnet, or the VPC of a block; none for an
// unknown one.
func (s *Service) Associated(ctx context.Context, association string) ([]string, error) {
	out, err := state.Read(ctx, s.store, func(r state.Reader) ([]string, error) {
		tables, err := vpc.RouteTables().By(r, "association", association)
		if err != nil {
			return nil, err
		}
		for _, t := range tables {
			for _, a := range t.Associations {
				if string(a.ID) == association {
					return []string{string(t.ID), string(a.Subnet)}, nil
				}
			}
		}
		acls, err := vpc.NetworkACLs().By(r, "association", association)
		if err != nil {
			return nil, err
		}
		for _, l := range acls {
			for _, a := range l.Associations {
				if string(a.ID) == association {
					return []string{string(l.ID), string(a.Subnet)}, nil
				}
			}
		}
		vpcs, err := vpc.VPCs().List(r, state.Query{}) // few: a quota bounds them
		for _, v := range vpcs {
			if v.CIDRAssociation == association || slices.ContainsFunc(slices.Concat(v.Secondary, v.IPv6), func(b vpc.CIDRBlock) bool { return b.Association == association }) {
				return []string{string(v.ID)}, nil
			}
		}
		return nil, err
	})
	return slices.DeleteFunc(out, func(id string) bool { return id == "" }), err // the main table's association has no subnet
}
