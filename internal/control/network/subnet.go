package network

import (
	"cmp"
	"context"
	"net/netip"
	"strings"

	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// Subnet is a subnet and how many of its IPv4 addresses are free.
type Subnet struct {
	*vpc.Subnet
	Free int
}

// SubnetIPv6 asks for the IPv6 block of a subnet. Native: for that alone, without an IPv4 block.
type SubnetIPv6 struct {
	CIDR   string
	Native bool
}

// blocks reads the blocks that a subnet shall have; zero: none of that family.
func (q SubnetIPv6) blocks(cidr string) (four, six netip.Prefix, err error) {
	switch {
	case q.Native && cidr != "":
		return four, six, combination("An IPv6 only subnet has no IPv4 CIDR block: Ipv6Native excludes CidrBlock")
	case q.Native && q.CIDR == "":
		return four, six, missing("Ipv6CidrBlock")
	case !q.Native && cidr == "":
		return four, six, missing("CidrBlock")
	}
	if cidr != "" {
		if four, err = vpc.ParseCIDR(cidr); err != nil {
			return four, six, err
		}
	}
	if q.CIDR != "" {
		six, err = vpc.ParseCIDR6(q.CIDR)
	}
	return four, six, err
}

// CreateSubnet makes a subnet in a zone (name or ID; empty: the first) and ties it to the VPC's default ACL. It has the IPv6
// block that is asked for, if any.
func (s *Service) CreateSubnet(ctx context.Context, id vpc.VPCID, cidr, zone string, tags vpc.Tags, ipv6 ...SubnetIPv6) (*Subnet, error) {
	var q SubnetIPv6
	if len(ipv6) > 0 {
		q = ipv6[0]
	}
	p, six, err := q.blocks(cidr)
	if err != nil {
		return nil, err
	}
	if err := s.checkTags(tags); err != nil {
		return nil, err
	}
	zones := vpc.Zones(s.region)
	z := zones[0]
	if zone != "" {
		var ok bool
		if z, ok = vpc.FindZone(s.region, zone); !ok {
			return nil, invalid("Value (%s) for parameter availabilityZone is invalid. Subnets can currently only be created in the following availability zones: %s.", zone, zoneNames(zones))
		}
	}
	return state.Write(ctx, s.store, func(tx state.Tx) (*Subnet, error) {
		v, err := get(tx, vpc.VPCs(), id)
		if err != nil {
			return nil, err
		}
		n, err := s.createSubnet(tx, v, p, six, z.Name, tags)
		if err != nil {
			return nil, err
		}
		return &Subnet{Subnet: n, Free: vpc.Usable(n)}, nil
	})
}

func zoneNames(zones []vpc.Zone) string {
	names := make([]string, 0, len(zones))
	for _, z := range zones {
		names = append(names, z.Name)
	}
	return strings.Join(names, ", ")
}

func (s *Service) createSubnet(tx state.Tx, v *vpc.VPC, cidr, six netip.Prefix, zone string, tags vpc.Tags) (*vpc.Subnet, error) {
	others, err := vpc.Subnets().By(tx, "vpc", string(v.ID))
	if err != nil {
		return nil, err
	}
	if len(others) >= s.limits.SubnetsPerVPC {
		return nil, limit("SubnetLimitExceeded", "The maximum number of subnets has been reached.")
	}
	n := &vpc.Subnet{
		ID: newID[vpc.SubnetID](vpc.PrefixSubnet), OwnerID: s.account, VPC: v.ID, CIDR: cidr, IPv6: six, Zone: zone,
		HostnameType: "ip-name", Tags: tags,
	}
	if cidr.IsValid() {
		if err := vpc.CheckSubnetCIDR(v, cidr, others); err != nil {
			return nil, err
		}
	}
	if six.IsValid() {
		if err := vpc.CheckSubnetIPv6(v, six, others); err != nil {
			return nil, err
		}
		n.IPv6Association = newID[string](vpc.PrefixSubnetCIDR)
	}
	if n.Native() { // names by address are names by IPv4 address
		n.AssignIPv6, n.HostnameType = true, "resource-name"
	}
	acl, err := get(tx, vpc.NetworkACLs(), v.DefaultNetworkACL)
	if err != nil {
		return nil, err
	}
	acl.Associations = append(acl.Associations, newACLAssociation(n.ID))
	return n, cmp.Or(vpc.Subnets().Put(tx, n), vpc.NetworkACLs().Put(tx, acl))
}

// DescribeSubnets returns the named subnets, or all.
func (s *Service) DescribeSubnets(ctx context.Context, ids []vpc.SubnetID) ([]Subnet, error) {
	found, err := describe(ctx, s.store, vpc.Subnets(), ids)
	if err != nil {
		return nil, err
	}
	return state.Read(ctx, s.store, func(r state.Reader) ([]Subnet, error) {
		out := make([]Subnet, 0, len(found))
		for _, n := range found {
			used, err := r.Count(vpc.KindNetworkInterface, state.Key{Name: "subnet", Value: string(n.ID)})
			if err != nil {
				return nil, err
			}
			out = append(out, Subnet{Subnet: n, Free: max(0, vpc.Usable(n)-used)})
		}
		return out, nil
	})
}

// DeleteSubnet removes a subnet without interfaces, and its associations.
func (s *Service) DeleteSubnet(ctx context.Context, id vpc.SubnetID) error {
	_, err := s.store.Update(ctx, func(tx state.Tx) error {
		if _, err := get(tx, vpc.Subnets(), id); err != nil {
			return err
		}
		used, err := tx.Count(vpc.KindNetworkInterface, state.Key{Name: "subnet", Value: string(id)})
		if err != nil {
			return err
		}
		if used > 0 {
			return dependency("The subnet '%s' has dependencies and cannot be deleted.", id)
		}
		acls, err := vpc.NetworkACLs().By(tx, "subnet", string(id))
		if err != nil {
			return err
		}
		for _, a := range acls {
			a.Associations = without(a.Associations, func(x vpc.NetworkACLAssociation) bool { return x.Subnet == id })
			if err := vpc.NetworkACLs().Put(tx, a); err != nil {
				return err
			}
		}
		tables, err := vpc.RouteTables().By(tx, "subnet", string(id))
		if err != nil {
			return err
		}
		for _, t := range tables {
			t.Associations = without(t.Associations, func(x vpc.RouteTableAssociation) bool { return x.Subnet == id })
			if err := vpc.RouteTables().Put(tx, t); err != nil {
				return err
			}
		}
		return vpc.Subnets().Delete(tx, string(id))
	})
	return err
}

func without[T any](list []T, drop func(T) bool) []T {
	out := make([]T, 0, len(list))
	for _, v := range list {
		if !drop(v) {
			out = append(out, v)
		}
	}
	return out
}

// ModifySubnet changes one attribute of a subnet: change gets the stored subnet.
func (s *Service) ModifySubnet(ctx context.Context, id vpc.SubnetID, change func(*vpc.Subnet) error) error {
	_, err := s.store.Update(ctx, func(tx state.Tx) error {
		n, err := get(tx, vpc.Subnets(), id)
		if err != nil {
			return err
		}
		if err := change(n); err != nil {
			return err
		}
		return vpc.Subnets().Put(tx, n)
	})
	return err
}

func newACLAssociation(id vpc.SubnetID) vpc.NetworkACLAssociation {
	return vpc.NetworkACLAssociation{ID: newID[vpc.NetworkACLAssociationID](vpc.PrefixNetworkACLAssociation), Subnet: id}
}
