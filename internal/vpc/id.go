// Package vpc holds the rules of the virtual network: VPCs, subnets, security groups, network ACLs, route tables,
// network interfaces and endpoints, and who may reach what. It is pure: no I/O, no goroutines, no clock.
// The contract of the drivers that put it on a real network is here too, with its suite in vpctest.
package vpc

import (
	"strings"

	"penstock.dev/penstock/internal/fault"
)

// Identifiers as in EC2: a prefix, a dash and 17 hexadecimal digits.
type (
	// VPCID is "vpc-…".
	VPCID string
	// SubnetID is "subnet-…".
	SubnetID string
	// SecurityGroupID is "sg-…".
	SecurityGroupID string
	// SecurityGroupRuleID is "sgr-…".
	SecurityGroupRuleID string
	// NetworkACLID is "acl-…".
	NetworkACLID string
	// NetworkACLAssociationID is "aclassoc-…".
	NetworkACLAssociationID string
	// RouteTableID is "rtb-…".
	RouteTableID string
	// RouteTableAssociationID is "rtbassoc-…".
	RouteTableAssociationID string
	// NetworkInterfaceID is "eni-…".
	NetworkInterfaceID string
	// EndpointID is "vpce-…".
	EndpointID string
	// PrefixListID is "pl-…".
	PrefixListID string
	// InsightsPathID is "nip-…".
	InsightsPathID string
	// InsightsAnalysisID is "nia-…".
	InsightsAnalysisID string
	// DHCPOptionsID is "dopt-…".
	DHCPOptionsID string
	// InternetGatewayID is "igw-…": there are none.
	InternetGatewayID string
	// PeeringConnectionID is "pcx-…": there are none.
	PeeringConnectionID string
	// GatewayID is "vgw-…" or "local".
	GatewayID string
)

// Prefixes of the identifiers.
const (
	PrefixVPC                   = "vpc"
	PrefixCIDRAssociation       = "vpc-cidr-assoc"
	PrefixSubnet                = "subnet"
	PrefixSubnetCIDR            = "subnet-cidr-assoc"
	PrefixSecurityGroup         = "sg"
	PrefixSecurityGroupRule     = "sgr"
	PrefixNetworkACL            = "acl"
	PrefixNetworkACLAssociation = "aclassoc"
	PrefixRouteTable            = "rtb"
	PrefixRouteTableAssociation = "rtbassoc"
	PrefixNetworkInterface      = "eni"
	PrefixEndpoint              = "vpce"
	PrefixPrefixList            = "pl"
	PrefixInsightsPath          = "nip"
	PrefixInsightsAnalysis      = "nia"
	PrefixGateway               = "vgw"
	PrefixDHCPOptions           = "dopt"
)

const hexDigits = "0123456789abcdef"

// FormatID makes an identifier of prefix from random bytes: "0" and 16 digits, as EC2 does today.
func FormatID(prefix string, random [8]byte) string {
	var b strings.Builder
	b.Grow(len(prefix) + 18)
	b.WriteString(prefix)
	b.WriteString("-0")
	for _, c := range random {
		b.WriteByte(hexDigits[c>>4])
		b.WriteByte(hexDigits[c&15])
	}
	return b.String()
}

// ValidID reports whether id is prefix, a dash and 8 or 17 lower-case hexadecimal digits (8: as in EC2 before 2016).
func ValidID(prefix, id string) bool {
	digits, ok := strings.CutPrefix(id, prefix+"-")
	if !ok || len(digits) != 17 && len(digits) != 8 {
		return false
	}
	return strings.Trim(digits, hexDigits) == ""
}

// idCodes are the EC2 error codes of each resource: what a wrong form and an unknown identifier answer.
type idCodes struct{ prefix, malformed, notFound, noun string }

var (
	vpcCodes         = idCodes{PrefixVPC, "InvalidVpcID.Malformed", "InvalidVpcID.NotFound", "vpc"}
	subnetCodes      = idCodes{PrefixSubnet, "InvalidSubnetID.Malformed", "InvalidSubnetID.NotFound", "subnet"}
	groupCodes       = idCodes{PrefixSecurityGroup, "InvalidGroupId.Malformed", "InvalidGroup.NotFound", "security group"}
	groupRuleCodes   = idCodes{PrefixSecurityGroupRule, "InvalidSecurityGroupRuleId.Malformed", "InvalidSecurityGroupRuleId.NotFound", "security group rule"}
	aclCodes         = idCodes{PrefixNetworkACL, "InvalidNetworkAclId.Malformed", "InvalidNetworkAclID.NotFound", "network ACL"}
	aclAssocCodes    = idCodes{PrefixNetworkACLAssociation, "InvalidAssociationID.Malformed", "InvalidAssociationID.NotFound", "network ACL association"}
	routeTableCodes  = idCodes{PrefixRouteTable, "InvalidRouteTableId.Malformed", "InvalidRouteTableID.NotFound", "route table"}
	routeAssocCodes  = idCodes{PrefixRouteTableAssociation, "InvalidAssociationID.Malformed", "InvalidAssociationID.NotFound", "route table association"}
	interfaceCodes   = idCodes{PrefixNetworkInterface, "InvalidNetworkInterfaceId.Malformed", "InvalidNetworkInterfaceID.NotFound", "network interface"}
	endpointCodes    = idCodes{PrefixEndpoint, "InvalidVpcEndpointId.Malformed", "InvalidVpcEndpointId.NotFound", "vpc endpoint"}
	prefixListCodes  = idCodes{PrefixPrefixList, "InvalidPrefixListId.Malformed", "InvalidPrefixListId.NotFound", "prefix list"}
	insightsCodes    = idCodes{PrefixInsightsPath, "InvalidNetworkInsightsPathId.Malformed", "InvalidNetworkInsightsPathId.NotFound", "network insights path"}
	analysisCodes    = idCodes{PrefixInsightsAnalysis, "InvalidNetworkInsightsAnalysisId.Malformed", "InvalidNetworkInsightsAnalysisId.NotFound", "network insights analysis"}
	dhcpCodes        = idCodes{PrefixDHCPOptions, "InvalidDhcpOptionsId.Malformed", "InvalidDhcpOptionID.NotFound", "dhcpOption"}
	igwCodes         = idCodes{"igw", "InvalidInternetGatewayId.Malformed", "InvalidInternetGatewayID.NotFound", "internetGateway"}
	peeringCodes     = idCodes{"pcx", "InvalidVpcPeeringConnectionId.Malformed", "InvalidVpcPeeringConnectionID.NotFound", "vpcPeeringConnection"}
	gatewayCodes     = idCodes{PrefixGateway, "InvalidGatewayID.Malformed", "InvalidGatewayID.NotFound", "gateway"}
	codesWithoutForm = idCodes{"", "InvalidID", "InvalidID", "resource"}
)

func codesOf(id any) idCodes {
	switch id.(type) {
	case VPCID:
		return vpcCodes
	case SubnetID:
		return subnetCodes
	case SecurityGroupID:
		return groupCodes
	case SecurityGroupRuleID:
		return groupRuleCodes
	case NetworkACLID:
		return aclCodes
	case NetworkACLAssociationID:
		return aclAssocCodes
	case RouteTableID:
		return routeTableCodes
	case RouteTableAssociationID:
		return routeAssocCodes
	case NetworkInterfaceID:
		return interfaceCodes
	case EndpointID:
		return endpointCodes
	case PrefixListID:
		return prefixListCodes
	case InsightsPathID:
		return insightsCodes
	case InsightsAnalysisID:
		return analysisCodes
	case DHCPOptionsID:
		return dhcpCodes
	case InternetGatewayID:
		return igwCodes
	case PeeringConnectionID:
		return peeringCodes
	case GatewayID:
		return gatewayCodes
	default:
		return codesWithoutForm
	}
}

// CheckID is the fault that EC2 answers for an identifier of a wrong form, nil when the form is right.
func CheckID[ID ~string](id ID) error {
	c := codesOf(id)
	if ValidID(c.prefix, string(id)) {
		return nil
	}
	return fault.Newf(fault.Malformed, "", "", "Invalid id: %q (expecting %q)", string(id), c.prefix+"-...").WithCode(c.malformed)
}

// NotFound is the fault that EC2 answers for an identifier of nothing.
func NotFound[ID ~string](id ID) error {
	c := codesOf(id)
	return fault.Newf(fault.NotFound, "", "", "The %s ID '%s' does not exist", c.noun, string(id)).WithCode(c.notFound)
}
