package network

import (
	"context"
	"slices"
	"strings"

	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// VPCsOf says in which VPC each of the resources is; IDs of what is not there, or in no VPC, are left out.
func (s *Service) VPCsOf(ctx context.Context, ids []string) (map[string]vpc.VPCID, error) {
	return state.Read(ctx, s.store, func(r state.Reader) (map[string]vpc.VPCID, error) {
		out := make(map[string]vpc.VPCID, len(ids))
		for _, id := range ids {
			v, err := vpcOf(r, id)
			if err != nil {
				return nil, err
			}
			if v != "" {
				out[id] = v
			}
		}
		return out, nil
	})
}

func vpcOf(r state.Reader, id string) (vpc.VPCID, error) {
	prefix, _, _ := strings.Cut(id, "-")
	switch prefix {
	case vpc.PrefixSubnet:
		return placeOf(r, vpc.Subnets(), id, func(v *vpc.Subnet) vpc.VPCID { return v.VPC })
	case vpc.PrefixSecurityGroup:
		return placeOf(r, vpc.SecurityGroups(), id, func(v *vpc.SecurityGroup) vpc.VPCID { return v.VPC })
	case vpc.PrefixNetworkACL:
		return placeOf(r, vpc.NetworkACLs(), id, func(v *vpc.NetworkACL) vpc.VPCID { return v.VPC })
	case vpc.PrefixRouteTable:
		return placeOf(r, vpc.RouteTables(), id, func(v *vpc.RouteTable) vpc.VPCID { return v.VPC })
	case vpc.PrefixNetworkInterface:
		return placeOf(r, vpc.NetworkInterfaces(), id, func(v *vpc.NetworkInterface) vpc.VPCID { return v.VPC })
	case vpc.PrefixEndpoint:
		return placeOf(r, vpc.Endpoints(), id, func(v *vpc.Endpoint) vpc.VPCID { return v.VPC })
	case vpc.PrefixSecurityGroupRule:
		groups, err := vpc.SecurityGroups().By(r, "rule", id)
		if err != nil || len(groups) == 0 {
			return "", err
		}
		return groups[0].VPC, nil
	}
	return "", nil
}

func placeOf[T any](r state.Reader, t state.Table[T], id string, of func(*T) vpc.VPCID) (vpc.VPCID, error) {
	v, ok, err := t.Get(r, id)
	if err != nil || !ok {
		return "", err
	}
	return of(v), nil
}

// Associated are the IDs of the route table or network ACL and of the subnet that an association ties; none for an unknown one.
func (s *Service) Associated(ctx context.Context, association string) []string {
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
		return nil, nil
	})
	if err != nil {
		return []string{association} // of no known type: only who may do it to everything may do it now
	}
	return slices.DeleteFunc(out, func(id string) bool { return id == "" }) // the main table's association has no subnet
}
