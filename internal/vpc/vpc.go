package vpc

import (
	"net/netip"
	"time"

	"penstock.dev/penstock/internal/state"
)

// Tags are a resource's tags.
type Tags map[string]string

// VPC is one virtual network.
type VPC struct {
	ID                   VPCID           `json:"id"`
	OwnerID              string          `json:"ownerId"`
	CIDR                 netip.Prefix    `json:"cidr"` // masked, /16 to /28
	CIDRAssociation      string          `json:"cidrAssociation"`
	Secondary            []CIDRBlock     `json:"secondary,omitzero"` // IPv4 blocks besides CIDR
	IPv6                 []CIDRBlock     `json:"ipv6,omitzero"`
	Tenancy              string          `json:"tenancy"`
	Default              bool            `json:"default,omitzero"`
	DNSSupport           bool            `json:"dnsSupport"`
	DNSHostnames         bool            `json:"dnsHostnames"`
	AddressUsageMetrics  bool            `json:"addressUsageMetrics,omitzero"`
	DHCPOptions          string          `json:"dhcpOptions"`
	DefaultSecurityGroup SecurityGroupID `json:"defaultSecurityGroup"`
	DefaultNetworkACL    NetworkACLID    `json:"defaultNetworkAcl"`
	MainRouteTable       RouteTableID    `json:"mainRouteTable"`
	// Gateway stands for the attachment of the users' networks: the target of the routes back to them.
	Gateway GatewayID `json:"gateway"`
	Tags    Tags      `json:"tags,omitzero"`
	Created time.Time `json:"created"`
}

// CIDRBlock is a block of addresses that was associated with a VPC.
type CIDRBlock struct {
	Association string       `json:"association"` // "vpc-cidr-assoc-…"
	CIDR        netip.Prefix `json:"cidr"`
	Pool        string       `json:"pool,omitzero"` // of IPv6 blocks: AmazonPool, or one of the owner's
}

// Blocks are all blocks of the VPC, the first IPv4 one first.
func (v *VPC) Blocks() []netip.Prefix {
	out := make([]netip.Prefix, 0, 1+len(v.Secondary)+len(v.IPv6))
	out = append(out, v.CIDR)
	for _, b := range v.Secondary {
		out = append(out, b.CIDR)
	}
	for _, b := range v.IPv6 {
		out = append(out, b.CIDR)
	}
	return out
}

// BlockOf is the block of the VPC that a prefix is in, itself included.
func (v *VPC) BlockOf(p netip.Prefix) (netip.Prefix, bool) {
	for _, b := range v.Blocks() {
		if b.Contains(p.Addr()) && b.Bits() <= p.Bits() {
			return b, true
		}
	}
	return netip.Prefix{}, false
}

// Subnet is a part of a VPC in one Availability Zone. It has an IPv4 block, an IPv6 block, or both.
type Subnet struct {
	ID               SubnetID     `json:"id"`
	OwnerID          string       `json:"ownerId"`
	VPC              VPCID        `json:"vpc"`
	CIDR             netip.Prefix `json:"cidr,omitzero"` // masked, /16 to /28; zero: IPv6 only
	IPv6             netip.Prefix `json:"ipv6,omitzero"` // masked; zero: IPv4 only
	IPv6Association  string       `json:"ipv6Association,omitzero"`
	AssignIPv6       bool         `json:"assignIpv6,omitzero"` // to interfaces that are made in it
	Zone             string       `json:"zone"`                // "us-east-1a"
	DefaultForAZ     bool         `json:"defaultForAz,omitzero"`
	MapPublicIP      bool         `json:"mapPublicIp,omitzero"`
	ResourceNameA    bool         `json:"resourceNameA,omitzero"` // private DNS name options: answer A queries for resource names
	ResourceNameAAAA bool         `json:"resourceNameAaaa,omitzero"`
	HostnameType     string       `json:"hostnameType"` // "ip-name" or "resource-name"
	Tags             Tags         `json:"tags,omitzero"`
}

// Blocks are the subnet's blocks, IPv4 first.
func (s *Subnet) Blocks() []netip.Prefix {
	out := make([]netip.Prefix, 0, 2)
	for _, p := range []netip.Prefix{s.CIDR, s.IPv6} {
		if p.IsValid() {
			out = append(out, p)
		}
	}
	return out
}

// Contains says whether an address is one of the subnet's.
func (s *Subnet) Contains(a netip.Addr) bool { return s.CIDR.Contains(a) || s.IPv6.Contains(a) }

// Native says whether the subnet has IPv6 addresses alone.
func (s *Subnet) Native() bool { return !s.CIDR.IsValid() }

// Kinds of documents in the store.
const (
	KindVPC              state.Kind = "vpc"
	KindSubnet           state.Kind = "subnet"
	KindSecurityGroup    state.Kind = "security-group"
	KindNetworkACL       state.Kind = "network-acl"
	KindRouteTable       state.Kind = "route-table"
	KindNetworkInterface state.Kind = "network-interface"
	KindEndpoint         state.Kind = "vpc-endpoint"
	KindPrefixList       state.Kind = "prefix-list"
)

// Tables. The secondary keys are named in the functions.

// VPCs is the table of VPCs; keys: cidr, default ("true").
func VPCs() state.Table[VPC] {
	return state.Table[VPC]{Kind: KindVPC, ID: func(v *VPC) string { return string(v.ID) }, Keys: func(v *VPC) []state.Key {
		keys := []state.Key{{Name: "cidr", Value: v.CIDR.String()}}
		if v.Default {
			keys = append(keys, state.Key{Name: "default", Value: "true"})
		}
		return keys
	}}
}

// Subnets is the table of subnets; keys: vpc.
func Subnets() state.Table[Subnet] {
	return state.Table[Subnet]{Kind: KindSubnet, ID: func(s *Subnet) string { return string(s.ID) }, Keys: func(s *Subnet) []state.Key {
		return []state.Key{{Name: "vpc", Value: string(s.VPC)}}
	}}
}

// SecurityGroups is the table of security groups; keys: vpc, rule (each rule's ID), peer (each group named by a rule),
// prefix-list (each list named by a rule).
func SecurityGroups() state.Table[SecurityGroup] {
	return state.Table[SecurityGroup]{Kind: KindSecurityGroup, ID: func(g *SecurityGroup) string { return string(g.ID) }, Keys: func(g *SecurityGroup) []state.Key {
		keys := []state.Key{{Name: "vpc", Value: string(g.VPC)}}
		peers, lists := map[SecurityGroupID]bool{}, map[PrefixListID]bool{}
		for _, r := range g.Rules {
			keys = append(keys, state.Key{Name: "rule", Value: string(r.ID)})
			if r.Peer.Group != "" && !peers[r.Peer.Group] {
				peers[r.Peer.Group] = true
				keys = append(keys, state.Key{Name: "peer", Value: string(r.Peer.Group)})
			}
			if id := r.Peer.PrefixList; id != "" && !lists[id] {
				lists[id] = true
				keys = append(keys, state.Key{Name: "prefix-list", Value: string(id)})
			}
		}
		return keys
	}}
}

// NetworkACLs is the table of network ACLs; keys: vpc, subnet (each associated), association (each ID).
func NetworkACLs() state.Table[NetworkACL] {
	return state.Table[NetworkACL]{Kind: KindNetworkACL, ID: func(a *NetworkACL) string { return string(a.ID) }, Keys: func(a *NetworkACL) []state.Key {
		keys := []state.Key{{Name: "vpc", Value: string(a.VPC)}}
		for _, s := range a.Associations {
			keys = append(keys, state.Key{Name: "subnet", Value: string(s.Subnet)}, state.Key{Name: "association", Value: string(s.ID)})
		}
		return keys
	}}
}

// RouteTables is the table of route tables; keys: vpc, subnet (each associated explicitly), association (each ID),
// prefix-list (each list that a route leads to).
func RouteTables() state.Table[RouteTable] {
	return state.Table[RouteTable]{Kind: KindRouteTable, ID: func(t *RouteTable) string { return string(t.ID) }, Keys: func(t *RouteTable) []state.Key {
		keys := []state.Key{{Name: "vpc", Value: string(t.VPC)}}
		for _, s := range t.Associations {
			keys = append(keys, state.Key{Name: "association", Value: string(s.ID)})
			if s.Subnet != "" {
				keys = append(keys, state.Key{Name: "subnet", Value: string(s.Subnet)})
			}
		}
		for _, r := range t.Routes {
			if r.PrefixList != "" {
				keys = append(keys, state.Key{Name: "prefix-list", Value: string(r.PrefixList)})
			}
		}
		return keys
	}}
}

// PrefixLists is the table of managed prefix lists; keys: name.
func PrefixLists() state.Table[PrefixList] {
	return state.Table[PrefixList]{Kind: KindPrefixList, ID: func(l *PrefixList) string { return string(l.ID) }, Keys: func(l *PrefixList) []state.Key {
		return []state.Key{{Name: "name", Value: l.Name}}
	}}
}

// NetworkInterfaces is the table of network interfaces; keys: vpc, subnet, endpoint, group (each).
func NetworkInterfaces() state.Table[NetworkInterface] {
	return state.Table[NetworkInterface]{Kind: KindNetworkInterface, ID: func(n *NetworkInterface) string { return string(n.ID) }, Keys: func(n *NetworkInterface) []state.Key {
		keys := []state.Key{{Name: "vpc", Value: string(n.VPC)}, {Name: "subnet", Value: string(n.Subnet)}}
		if n.Endpoint != "" {
			keys = append(keys, state.Key{Name: "endpoint", Value: string(n.Endpoint)})
		}
		for _, g := range n.Groups {
			keys = append(keys, state.Key{Name: "group", Value: string(g)})
		}
		return keys
	}}
}

// Endpoints is the table of endpoints; keys: vpc, group (each).
func Endpoints() state.Table[Endpoint] {
	return state.Table[Endpoint]{Kind: KindEndpoint, ID: func(e *Endpoint) string { return string(e.ID) }, Keys: func(e *Endpoint) []state.Key {
		keys := []state.Key{{Name: "vpc", Value: string(e.VPC)}}
		for _, g := range e.Groups {
			keys = append(keys, state.Key{Name: "group", Value: string(g)})
		}
		return keys
	}}
}
