package vpc

import "net/netip"

// NetworkACL is a stateless, ordered list of rules at the border of the subnets that it is associated with.
type NetworkACL struct {
	ID           NetworkACLID            `json:"id"`
	OwnerID      string                  `json:"ownerId"`
	VPC          VPCID                   `json:"vpc"`
	Default      bool                    `json:"default,omitzero"`
	Entries      []NetworkACLEntry       `json:"entries,omitzero"` // without the fixed last rule; ordered by Egress, then Number
	Associations []NetworkACLAssociation `json:"associations,omitzero"`
	Tags         Tags                    `json:"tags,omitzero"`
	ClientToken  string                  `json:"clientToken,omitzero"`
}

// NetworkACLEntry is one rule.
type NetworkACLEntry struct {
	Number   int          `json:"number"` // 1 to 32766
	Egress   bool         `json:"egress,omitzero"`
	Allow    bool         `json:"allow,omitzero"`
	Protocol Protocol     `json:"protocol"`
	CIDR     netip.Prefix `json:"cidr"`  // IPv4 or IPv6, masked
	Ports    PortRange    `json:"ports"` // TCP and UDP; otherwise {-1,-1}
	ICMPType int          `json:"icmpType,omitzero"`
	ICMPCode int          `json:"icmpCode,omitzero"`
}

// Numbers of an ACL's fixed last rules, which deny everything and cannot be changed.
const (
	MaxACLEntryNumber  = 32766
	FixedDenyNumber    = 32767
	FixedDenyNumberIP6 = 32768
)

// NetworkACLAssociation ties a subnet to an ACL.
type NetworkACLAssociation struct {
	ID     NetworkACLAssociationID `json:"id"`
	Subnet SubnetID                `json:"subnet"`
}
