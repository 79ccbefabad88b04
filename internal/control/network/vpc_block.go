package network

import (
	"context"
	"net/netip"
	"slices"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// IPv6Block asks for an IPv6 block of a VPC: one that it is given (Amazon), or one that its owner brings.
type IPv6Block struct {
	Amazon bool
	CIDR   string
	Pool   string // the owner's name for where the block is from: "ipv6pool-ec2-…"; may be empty
}

const prefixIPv6Pool = "ipv6pool-ec2"

// AssociateBlock gives a VPC another IPv4 block (cidr) or another IPv6 block; exactly one of them is asked for.
func (s *Service) AssociateBlock(ctx context.Context, id vpc.VPCID, cidr string, ipv6 *IPv6Block) (vpc.CIDRBlock, error) {
	return state.Write(ctx, s.store, func(tx state.Tx) (vpc.CIDRBlock, error) {
		v, err := get(tx, vpc.VPCs(), id)
		switch {
		case err != nil:
			return vpc.CIDRBlock{}, err
		case cidr == "" && ipv6 == nil:
			return vpc.CIDRBlock{}, missing("CidrBlock, Ipv6CidrBlock or AmazonProvidedIpv6CidrBlock")
		case cidr != "" && ipv6 != nil:
			return vpc.CIDRBlock{}, combination("Only one of CidrBlock and an IPv6 CIDR block may be given")
		case ipv6 != nil:
			return s.addIPv6(tx, v, *ipv6)
		}
		return s.addIPv4(tx, v, cidr)
	})
}

func (s *Service) addIPv4(tx state.Tx, v *vpc.VPC, cidr string) (vpc.CIDRBlock, error) {
	p, err := vpc.ParseCIDR(cidr)
	if err != nil {
		return vpc.CIDRBlock{}, err
	}
	if err := vpc.CheckSecondaryCIDR(v, p); err != nil {
		return vpc.CIDRBlock{}, err
	}
	if err := freeOfRoutes(tx, v, p); err != nil {
		return vpc.CIDRBlock{}, err
	}
	b := vpc.CIDRBlock{Association: newID[string](vpc.PrefixCIDRAssociation), CIDR: p}
	v.Secondary = append(v.Secondary, b)
	return b, vpc.VPCs().Put(tx, v)
}

// freeOfRoutes says whether no route of the VPC leads to the block or to a part of it: the local route would take its place.
func freeOfRoutes(r state.Reader, v *vpc.VPC, p netip.Prefix) error {
	tables, err := vpc.RouteTables().By(r, "vpc", string(v.ID))
	if err != nil {
		return err
	}
	for _, t := range tables {
		for _, x := range t.Routes {
			if x.CIDR.IsValid() && p.Contains(x.CIDR.Addr()) && p.Bits() <= x.CIDR.Bits() {
				return fault.Newf(fault.Invalid, "", "", "The CIDR '%s' conflicts with the route to %s of the route table %s.", p, x.CIDR, t.ID).WithCode("InvalidVpc.Range")
			}
		}
	}
	return nil
}

// addIPv6 gives a VPC an IPv6 block. With the first one, groups and the default network ACL that let everything out or through
// in IPv4 do so in IPv6; those that were changed are left as they are.
func (s *Service) addIPv6(tx state.Tx, v *vpc.VPC, q IPv6Block) (vpc.CIDRBlock, error) {
	none := vpc.CIDRBlock{}
	if err := vpc.CheckIPv6Count(v); err != nil {
		return none, err
	}
	all, err := vpc.VPCs().List(tx, state.Query{})
	if err != nil {
		return none, err
	}
	b := vpc.CIDRBlock{Association: newID[string](vpc.PrefixCIDRAssociation), Pool: q.Pool}
	switch {
	case q.Amazon && (q.CIDR != "" || q.Pool != ""):
		return none, combination("AmazonProvidedIpv6CidrBlock excludes Ipv6CidrBlock and Ipv6Pool")
	case q.Amazon:
		b.Pool = vpc.AmazonPool
		b.CIDR, err = vpc.AmazonBlock(s.account, all)
	case q.CIDR == "":
		return none, missing("Ipv6CidrBlock")
	case q.Pool != "" && !vpc.ValidID(prefixIPv6Pool, q.Pool):
		return none, fault.Newf(fault.Malformed, "", "", "Invalid id: %q (expecting %q)", q.Pool, prefixIPv6Pool+"-...").WithCode("InvalidIpv6PoolID.Malformed")
	default:
		if b.CIDR, err = vpc.ParseCIDR6(q.CIDR); err == nil {
			err = vpc.CheckVPCIPv6(b.CIDR, all)
		}
		if err == nil {
			err = freeOfRoutes(tx, v, b.CIDR)
		}
	}
	if err != nil {
		return none, err
	}
	first := len(v.IPv6) == 0
	v.IPv6 = append(v.IPv6, b)
	if err := vpc.VPCs().Put(tx, v); err != nil {
		return none, err
	}
	if first {
		err = openForIPv6(tx, v)
	}
	return b, err
}

func openForIPv6(tx state.Tx, v *vpc.VPC) error {
	groups, err := vpc.SecurityGroups().By(tx, "vpc", string(v.ID))
	if err != nil {
		return err
	}
	for _, g := range groups {
		all := egressTo(anywhere())
		out := slices.DeleteFunc(slices.Clone(g.Rules), func(r vpc.SecurityGroupRule) bool { return !r.Egress })
		if len(out) != 1 || !out[0].Same(&all) {
			continue
		}
		g.Rules = append(g.Rules, egressTo(anywhere6()))
		if err := vpc.SecurityGroups().Put(tx, g); err != nil {
			return err
		}
	}
	a, err := get(tx, vpc.NetworkACLs(), v.DefaultNetworkACL)
	if err != nil {
		return err
	}
	for _, egress := range []bool{false, true} {
		way := slices.DeleteFunc(slices.Clone(a.Entries), func(e vpc.NetworkACLEntry) bool { return e.Egress != egress })
		if len(way) != 1 || way[0] != allowAll(egress, anywhere()) {
			continue
		}
		if err := a.Add(allowAll(egress, anywhere6()), vpc.MaxACLEntryNumber); err != nil {
			return err
		}
	}
	return vpc.NetworkACLs().Put(tx, a)
}

// DisassociateBlock takes a block away from its VPC; subnets in it are in the way. It returns the VPC.
func (s *Service) DisassociateBlock(ctx context.Context, association string) (*vpc.VPC, vpc.CIDRBlock, error) {
	var gone vpc.CIDRBlock
	if !vpc.ValidID(vpc.PrefixCIDRAssociation, association) {
		return nil, gone, fault.Newf(fault.Malformed, "", "", "Invalid id: %q (expecting %q)", association, vpc.PrefixCIDRAssociation+"-...").WithCode("InvalidVpcCidrBlockAssociationID.Malformed")
	}
	v, err := state.Write(ctx, s.store, func(tx state.Tx) (*vpc.VPC, error) {
		all, err := vpc.VPCs().List(tx, state.Query{})
		if err != nil {
			return nil, err
		}
		is := func(b vpc.CIDRBlock) bool { return b.Association == association }
		for _, v := range all {
			if v.CIDRAssociation == association {
				return nil, fault.Newf(fault.NotPermitted, "", "", "The vpc CIDR block with association ID %s may not be disassociated. It is the primary IPv4 CIDR block of the VPC", association).WithCode("OperationNotPermitted")
			}
			i := slices.IndexFunc(slices.Concat(v.Secondary, v.IPv6), is)
			if i < 0 {
				continue
			}
			gone = slices.Concat(v.Secondary, v.IPv6)[i]
			subnets, err := vpc.Subnets().By(tx, "vpc", string(v.ID))
			if err != nil {
				return nil, err
			}
			for _, n := range subnets {
				if n.CIDR.Overlaps(gone.CIDR) || n.IPv6.Overlaps(gone.CIDR) {
					return nil, fault.Newf(fault.InUse, "", "", "The vpc %s currently has a subnet within CIDR block %s", v.ID, gone.CIDR).WithCode("InvalidCidrBlock.InUse")
				}
			}
			v.Secondary, v.IPv6 = without(v.Secondary, is), without(v.IPv6, is)
			return v, vpc.VPCs().Put(tx, v)
		}
		return nil, fault.Newf(fault.NotFound, "", "", "The vpc CIDR block association ID '%.60s' does not exist", association).WithCode("InvalidVpcCidrBlockAssociationID.NotFound")
	})
	return v, gone, err
}
