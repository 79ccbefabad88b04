package network

import (
	"cmp"
	"context"
	"net/netip"
	"strconv"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// DefaultVPCCIDR is the block of an account's default VPC, as EC2 makes it.
const DefaultVPCCIDR = "172.31.0.0/16"

// CreateVPC makes a VPC with its default group, network ACL and main route table, and the IPv6 block that is asked for, if any.
func (s *Service) CreateVPC(ctx context.Context, cidr, tenancy string, tags vpc.Tags, ipv6 ...IPv6Block) (*vpc.VPC, error) {
	if cidr == "" {
		return nil, missing("CidrBlock")
	}
	p, err := vpc.ParseCIDR(cidr)
	if err != nil {
		return nil, err
	}
	if err := vpc.CheckVPCCIDR(p); err != nil {
		return nil, err
	}
	if err := s.checkTags(tags); err != nil {
		return nil, err
	}
	switch tenancy {
	case "", "default":
		tenancy = "default"
	case "dedicated":
	default:
		return nil, invalid("Value (%s) for parameter instanceTenancy is invalid.", tenancy)
	}
	return state.Write(ctx, s.store, func(tx state.Tx) (*vpc.VPC, error) {
		return s.createVPC(tx, p, tenancy, tags, false, ipv6...)
	})
}

func (s *Service) createVPC(tx state.Tx, cidr netip.Prefix, tenancy string, tags vpc.Tags, isDefault bool, ipv6 ...IPv6Block) (*vpc.VPC, error) {
	n, err := tx.Count(vpc.KindVPC, state.Key{})
	if err != nil {
		return nil, err
	}
	if n >= s.limits.VPCs {
		return nil, limit("VpcLimitExceeded", "The maximum number of VPCs has been reached.")
	}
	v := &vpc.VPC{
		ID: newID[vpc.VPCID](vpc.PrefixVPC), OwnerID: s.account, CIDR: cidr, Tenancy: tenancy, Default: isDefault,
		CIDRAssociation: newID[string](vpc.PrefixCIDRAssociation),
		DNSSupport:      true, DNSHostnames: isDefault,
		DHCPOptions:          string(s.DHCPOptions()),
		DefaultSecurityGroup: newID[vpc.SecurityGroupID](vpc.PrefixSecurityGroup),
		DefaultNetworkACL:    newID[vpc.NetworkACLID](vpc.PrefixNetworkACL),
		MainRouteTable:       newID[vpc.RouteTableID](vpc.PrefixRouteTable),
		Gateway:              newID[vpc.GatewayID](vpc.PrefixGateway),
		Tags:                 tags, Created: s.now().UTC(),
	}
	group := &vpc.SecurityGroup{
		ID: v.DefaultSecurityGroup, OwnerID: s.account, VPC: v.ID, Name: vpc.DefaultGroupName,
		Description: "default VPC security group", Created: v.Created,
		Rules: []vpc.SecurityGroupRule{
			{
				ID: newID[vpc.SecurityGroupRuleID](vpc.PrefixSecurityGroupRule), Protocol: vpc.AllProtocols, Ports: vpc.AllPorts,
				Peer: vpc.Peer{Group: v.DefaultSecurityGroup},
			},
			egressTo(anywhere()),
		},
	}
	acl := &vpc.NetworkACL{
		ID: v.DefaultNetworkACL, OwnerID: s.account, VPC: v.ID, Default: true,
		Entries: []vpc.NetworkACLEntry{allowAll(false, anywhere()), allowAll(true, anywhere())},
	}
	table := &vpc.RouteTable{
		ID: v.MainRouteTable, OwnerID: s.account, VPC: v.ID, Propagates: true,
		Associations: []vpc.RouteTableAssociation{{ID: newID[vpc.RouteTableAssociationID](vpc.PrefixRouteTableAssociation), Main: true}},
	}
	if err := cmp.Or(
		vpc.VPCs().Put(tx, v),
		vpc.SecurityGroups().Put(tx, group),
		vpc.NetworkACLs().Put(tx, acl),
		vpc.RouteTables().Put(tx, table),
	); err != nil {
		return nil, err
	}
	for _, b := range ipv6 {
		if _, err := s.addIPv6(tx, v, b); err != nil {
			return nil, err
		}
	}
	return v, nil
}

// DHCPOptions is the account's one set of DHCP options, which every VPC uses.
func (s *Service) DHCPOptions() vpc.DHCPOptionsID {
	return vpc.DHCPOptionsID(vpc.PrefixDHCPOptions + "-0" + s.account + "0000")
}

// begun is the document that says that an account got what every account begins with.
type begun struct {
	Account string `json:"account"`
}

func accounts() state.Table[begun] {
	return state.Table[begun]{Kind: "network-account", ID: func(b *begun) string { return b.Account }}
}

// EnsureDefaultVPC makes the default VPC of a new account, 172.31.0.0/16 with a /20 in each zone. An account has it from
// its beginning; whoever deletes it is without: then the result is nil.
func (s *Service) EnsureDefaultVPC(ctx context.Context) (*vpc.VPC, error) {
	return state.Write(ctx, s.store, func(tx state.Tx) (*vpc.VPC, error) {
		have, err := vpc.VPCs().By(tx, "default", "true")
		if err != nil {
			return nil, err
		}
		if len(have) > 0 {
			return have[0], nil
		}
		if _, old, err := accounts().Get(tx, s.account); err != nil || old {
			return nil, err
		}
		if err := accounts().Put(tx, &begun{Account: s.account}); err != nil {
			return nil, err
		}
		v, err := s.createVPC(tx, netip.MustParsePrefix(DefaultVPCCIDR), "default", nil, true)
		if err != nil {
			return nil, err
		}
		for i, z := range vpc.Zones(s.region) {
			block := netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 31, byte(i * 16), 0}), 20)
			n, err := s.createSubnet(tx, v, block, netip.Prefix{}, z.Name, nil)
			if err != nil {
				return nil, err
			}
			n.DefaultForAZ, n.MapPublicIP = true, true
			if err := vpc.Subnets().Put(tx, n); err != nil {
				return nil, err
			}
		}
		return v, nil
	})
}

// DescribeVPCs returns the named VPCs, or all.
func (s *Service) DescribeVPCs(ctx context.Context, ids []vpc.VPCID) ([]*vpc.VPC, error) {
	return describe(ctx, s.store, vpc.VPCs(), ids)
}

// DeleteVPC removes a VPC with its default group, ACL and main table; anything else in it is in the way.
func (s *Service) DeleteVPC(ctx context.Context, id vpc.VPCID) error {
	_, err := s.store.Update(ctx, func(tx state.Tx) error {
		v, err := get(tx, vpc.VPCs(), id)
		if err != nil {
			return err
		}
		for _, c := range []struct {
			kind  state.Kind
			allow int
		}{
			{vpc.KindSubnet, 0},
			{vpc.KindNetworkInterface, 0},
			{vpc.KindSecurityGroup, 1},
			{vpc.KindNetworkACL, 1},
			{vpc.KindRouteTable, 1},
		} {
			n, err := tx.Count(c.kind, state.Key{Name: "vpc", Value: string(id)})
			if err != nil {
				return err
			}
			if n > c.allow {
				return dependency("The vpc '%s' has dependencies and cannot be deleted.", id)
			}
		}
		endpoints, err := vpc.Endpoints().By(tx, "vpc", string(id))
		if err != nil {
			return err
		}
		for _, e := range endpoints {
			if e.State != vpc.EndpointDeleted {
				return dependency("The vpc '%s' has dependencies and cannot be deleted.", id)
			}
		}
		return cmp.Or(
			vpc.SecurityGroups().Delete(tx, string(v.DefaultSecurityGroup)),
			vpc.NetworkACLs().Delete(tx, string(v.DefaultNetworkACL)),
			vpc.RouteTables().Delete(tx, string(v.MainRouteTable)),
			vpc.VPCs().Delete(tx, string(id)),
		)
	})
	return err
}

// VPCAttribute names an attribute of ModifyVpcAttribute.
type VPCAttribute string

// The attributes of a VPC.
const (
	EnableDNSSupport                 VPCAttribute = "enableDnsSupport"
	EnableDNSHostnames               VPCAttribute = "enableDnsHostnames"
	EnableNetworkAddressUsageMetrics VPCAttribute = "enableNetworkAddressUsageMetrics"
)

// ModifyVPCAttribute sets one attribute.
func (s *Service) ModifyVPCAttribute(ctx context.Context, id vpc.VPCID, attribute VPCAttribute, value bool) error {
	_, err := s.store.Update(ctx, func(tx state.Tx) error {
		v, err := get(tx, vpc.VPCs(), id)
		if err != nil {
			return err
		}
		switch attribute {
		case EnableDNSSupport:
			v.DNSSupport = value
		case EnableDNSHostnames:
			v.DNSHostnames = value
		case EnableNetworkAddressUsageMetrics:
			v.AddressUsageMetrics = value
		default:
			return invalid("Value (%s) for parameter attribute is invalid. Unknown attribute.", attribute)
		}
		return vpc.VPCs().Put(tx, v)
	})
	return err
}

// anywhere is 0.0.0.0/0.
func anywhere() netip.Prefix { return netip.PrefixFrom(netip.IPv4Unspecified(), 0) }

// anywhere6 is ::/0.
func anywhere6() netip.Prefix { return netip.PrefixFrom(netip.IPv6Unspecified(), 0) }

// egressTo is the rule that every new group has for each family that its VPC has.
func egressTo(all netip.Prefix) vpc.SecurityGroupRule {
	return vpc.SecurityGroupRule{
		ID: newID[vpc.SecurityGroupRuleID](vpc.PrefixSecurityGroupRule), Egress: true,
		Protocol: vpc.AllProtocols, Ports: vpc.AllPorts, Peer: vpc.Peer{CIDR: all},
	}
}

// allowAll is the rule of a default network ACL: 100 for IPv4, 101 for IPv6.
func allowAll(egress bool, all netip.Prefix) vpc.NetworkACLEntry {
	e := vpc.NetworkACLEntry{Number: 100, Egress: egress, Allow: true, Protocol: vpc.AllProtocols, CIDR: all, Ports: vpc.AllPorts}
	if all.Addr().Is6() {
		e.Number = 101
	}
	return e
}

// Faults of EC2 whose code does not follow from their kind.

func missing(parameter string) error {
	return fault.Newf(fault.Missing, "", "", "The request must contain the parameter %s", parameter).WithCode("MissingParameter")
}

func invalid(format string, args ...any) error {
	return fault.Newf(fault.Invalid, "", "", format, args...).WithCode("InvalidParameterValue")
}

func invalidParameter(format string, args ...any) error {
	return fault.Newf(fault.Invalid, "", "", format, args...).WithCode("InvalidParameter")
}

func combination(format string, args ...any) error {
	return fault.Newf(fault.Combination, "", "", format, args...).WithCode("InvalidParameterCombination")
}

func dependency(format string, args ...any) error {
	return fault.Newf(fault.InUse, "", "", format, args...).WithCode("DependencyViolation")
}

// plural is a count with its noun.
func plural(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + more
}

func limit(code, text string) error {
	return fault.New(fault.Limit, "", "", text).WithCode(code)
}
