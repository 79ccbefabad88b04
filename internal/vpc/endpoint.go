package vpc

import (
	"cmp"
	"net/netip"
	"time"

	"penstock.dev/penstock/internal/fault"
)

// EndpointState is a VPC endpoint's state as clients see it; lower case as live answers carry it.
type EndpointState string

// The states that an endpoint of ours can be in.
const (
	EndpointPending   EndpointState = "pending"
	EndpointAvailable EndpointState = "available"
	EndpointFailed    EndpointState = "failed"
	EndpointDeleting  EndpointState = "deleting"
	EndpointDeleted   EndpointState = "deleted"
)

// EndpointType is the kind of an endpoint. Only interface endpoints exist here.
type EndpointType string

// The endpoint types of the API.
const (
	EndpointInterface EndpointType = "Interface"
	EndpointGateway   EndpointType = "Gateway"
)

// IPAddressType says which addresses the interfaces of an endpoint have.
type IPAddressType string

// The IP address types.
const (
	AddressIPv4 IPAddressType = "ipv4"
	AddressIPv6 IPAddressType = "ipv6" // needs subnets that are IPv6 only
	AddressDual IPAddressType = "dualstack"
)

// DNSRecordType says which records the names of an endpoint have.
type DNSRecordType string

// The DNS record types.
const (
	RecordIPv4    DNSRecordType = "ipv4"
	RecordIPv6    DNSRecordType = "ipv6"
	RecordDual    DNSRecordType = "dualstack"
	RecordService DNSRecordType = "service-defined" // as the interfaces have addresses
)

// Endpoint is an interface VPC endpoint: one network interface in each of its subnets.
type Endpoint struct {
	ID             EndpointID           `json:"id"`
	OwnerID        string               `json:"ownerId"`
	VPC            VPCID                `json:"vpc"`
	Type           EndpointType         `json:"type"`
	Service        string               `json:"service"` // "com.amazonaws.us-east-1.appstream.streaming"
	State          EndpointState        `json:"state"`
	LastError      *EndpointError       `json:"lastError,omitzero"`
	Subnets        []SubnetID           `json:"subnets,omitzero"`
	Groups         []SecurityGroupID    `json:"groups,omitzero"`
	Interfaces     []NetworkInterfaceID `json:"interfaces,omitzero"` // of Subnets, in the same order
	IPAddressType  IPAddressType        `json:"ipAddressType"`
	DNSRecordType  DNSRecordType        `json:"dnsRecordType"`
	PrivateDNS     bool                 `json:"privateDns,omitzero"`
	PolicyDocument string               `json:"policyDocument"`
	DNSEntries     []DNSEntry           `json:"dnsEntries,omitzero"` // regional, zonal, private
	Tags           Tags                 `json:"tags,omitzero"`
	Created        time.Time            `json:"created"`
	Deleted        time.Time            `json:"deleted,omitzero"` // when State became deleted
	// Generation counts what was asked; Realised is the generation that the network last carried.
	Generation int64 `json:"generation"`
	Realised   int64 `json:"realised,omitzero"`
	// Served says that it was available once: from then on it is available while one of its interfaces answers.
	Served bool `json:"served,omitzero"`
	// DNSSuffix is the part of the regional name that is not the ID.
	DNSSuffix string `json:"dnsSuffix"`
}

// EndpointError is why an endpoint does not serve.
type EndpointError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// DNSEntry is one name of an endpoint.
type DNSEntry struct {
	Name       string `json:"name"`
	HostedZone string `json:"hostedZone"`
}

// The states of an endpoint's network interface: it answers, or it does not yet or any more.
const (
	InterfaceInUse   = "in-use"
	InterfacePending = "pending"
)

// NetworkInterface is an address of each family, or of one, in a subnet.
type NetworkInterface struct {
	ID               NetworkInterfaceID `json:"id"`
	OwnerID          string             `json:"ownerId"`
	VPC              VPCID              `json:"vpc"`
	Subnet           SubnetID           `json:"subnet"`
	Zone             string             `json:"zone"`
	Addr             netip.Addr         `json:"addr,omitzero"`  // IPv4; zero: IPv6 only
	Addr6            netip.Addr         `json:"addr6,omitzero"` // IPv6; zero: IPv4 only
	MAC              string             `json:"mac"`
	Groups           []SecurityGroupID  `json:"groups,omitzero"`
	Endpoint         EndpointID         `json:"endpoint,omitzero"` // empty: not an endpoint's
	InterfaceType    string             `json:"interfaceType"`     // "vpc_endpoint"
	Description      string             `json:"description"`
	RequesterManaged bool               `json:"requesterManaged,omitzero"`
	Status           string             `json:"status"` // InterfaceInUse or InterfacePending
	Tags             Tags               `json:"tags,omitzero"`
}

// Addrs are the interface's addresses, IPv4 first.
func (n *NetworkInterface) Addrs() []netip.Addr {
	out := make([]netip.Addr, 0, 2)
	for _, a := range []netip.Addr{n.Addr, n.Addr6} {
		if a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}

// CheckIPAddressTypes applies the rules for an endpoint's address and record types. Empty ones get their defaults: IPv4, and
// records as there are addresses.
func CheckIPAddressTypes(t IPAddressType, r DNSRecordType) (IPAddressType, DNSRecordType, error) {
	t = cmp.Or(t, AddressIPv4)
	switch t {
	case AddressIPv4, AddressIPv6, AddressDual:
	default:
		return t, r, fault.Newf(fault.Invalid, "", "", "The IP address type '%.40s' is not valid. It is ipv4, ipv6 or dualstack.", t).WithCode("InvalidParameter")
	}
	r = cmp.Or(r, DNSRecordType(t))
	switch r {
	case RecordIPv4, RecordIPv6, RecordDual, RecordService:
	default:
		return t, r, fault.Newf(fault.Invalid, "", "", "The DNS record IP type '%.40s' is not valid. It is ipv4, ipv6, dualstack or service-defined.", r).WithCode("InvalidParameter")
	}
	if r != RecordService && t != AddressDual && r != DNSRecordType(t) {
		return t, r, fault.Newf(fault.Invalid, "", "", "The DNS record IP type %s does not fit the IP address type %s.", r, t).WithCode("InvalidParameter")
	}
	return t, r, nil
}

// Fits says whether an endpoint of the address type may have an interface in the subnet.
func (t IPAddressType) Fits(n *Subnet) error {
	why := ""
	switch {
	case t == AddressIPv6 && !n.Native():
		why = "is not IPv6 only"
	case t != AddressIPv4 && !n.IPv6.IsValid():
		why = "has no IPv6 CIDR block"
	case t != AddressIPv6 && n.Native():
		why = "has no IPv4 CIDR block"
	default:
		return nil
	}
	return fault.Newf(fault.Invalid, "", "", "The IP address type %s is not possible in the subnet %s, which %s.", t, n.ID, why).WithCode("InvalidParameter")
}

// Has says whether names of the record type have records for an address.
func (r DNSRecordType) Has(a netip.Addr) bool {
	switch r {
	case RecordIPv4:
		return a.Is4()
	case RecordIPv6:
		return a.Is6()
	case RecordDual, RecordService:
	}
	return true
}
