package vpc

import (
	"net/netip"
	"time"
)

// SecurityGroup is a stateful, allow-only set of rules for network interfaces.
type SecurityGroup struct {
	ID          SecurityGroupID     `json:"id"`
	OwnerID     string              `json:"ownerId"`
	VPC         VPCID               `json:"vpc"`
	Name        string              `json:"name"`
	Description string              `json:"description"`
	Rules       []SecurityGroupRule `json:"rules,omitzero"` // in the order in which they were added
	Tags        Tags                `json:"tags,omitzero"`
	Created     time.Time           `json:"created"`
}

// SecurityGroupRule admits one kind of traffic from or to one peer.
type SecurityGroupRule struct {
	ID          SecurityGroupRuleID `json:"id"`
	Egress      bool                `json:"egress,omitzero"`
	Protocol    Protocol            `json:"protocol"`
	Ports       PortRange           `json:"ports"` // ICMP: type and code; {-1,-1} for every port
	Peer        Peer                `json:"peer"`
	Description string              `json:"description,omitzero"`
	Tags        Tags                `json:"tags,omitzero"`
}

// Peer is the other side of a security group's rule: exactly one of its members is set.
type Peer struct {
	CIDR       netip.Prefix    `json:"cidr,omitzero"` // IPv4 or IPv6, masked
	Group      SecurityGroupID `json:"group,omitzero"`
	PrefixList string          `json:"prefixList,omitzero"`
}

// DefaultGroupName is the name of the group that every VPC has.
const DefaultGroupName = "default"
