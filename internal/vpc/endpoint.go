package vpc

import (
	"net/netip"
	"time"
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
	IPAddressType  string               `json:"ipAddressType"`       // "ipv4"
	DNSRecordType  string               `json:"dnsRecordType"`       // "ipv4"
	PrivateDNS     bool                 `json:"privateDns,omitzero"`
	PolicyDocument string               `json:"policyDocument"`
	DNSEntries     []DNSEntry           `json:"dnsEntries,omitzero"` // regional, zonal, private
	ClientToken    string               `json:"clientToken,omitzero"`
	RequestHash    string               `json:"requestHash,omitzero"` // of the parameters that came with ClientToken
	Tags           Tags                 `json:"tags,omitzero"`
	Created        time.Time            `json:"created"`
	Deleted        time.Time            `json:"deleted,omitzero"` // when State became deleted
	// Generation counts what was asked; Realised is the generation that the network last carried.
	Generation int64 `json:"generation"`
	Realised   int64 `json:"realised,omitzero"`
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

// NetworkInterface is an address in a subnet.
type NetworkInterface struct {
	ID               NetworkInterfaceID `json:"id"`
	OwnerID          string             `json:"ownerId"`
	VPC              VPCID              `json:"vpc"`
	Subnet           SubnetID           `json:"subnet"`
	Zone             string             `json:"zone"`
	Addr             netip.Addr         `json:"addr"`
	MAC              string             `json:"mac"`
	Groups           []SecurityGroupID  `json:"groups,omitzero"`
	Endpoint         EndpointID         `json:"endpoint,omitzero"` // empty: not an endpoint's
	InterfaceType    string             `json:"interfaceType"`     // "vpc_endpoint"
	Description      string             `json:"description"`
	RequesterManaged bool               `json:"requesterManaged,omitzero"`
	Status           string             `json:"status"` // "pending", "in-use"
	Tags             Tags               `json:"tags,omitzero"`
}
