package vpc

import (
	"net/netip"
	"time"

	"penstock.dev/penstock/internal/state"
)

// InsightsPath is a question to Reachability Analyzer: does traffic come from the source to the destination?
type InsightsPath struct {
	ID      InsightsPathID `json:"id"`
	OwnerID string         `json:"ownerId"`
	// Source is a VPC's gateway (the users' networks), a network interface or an endpoint.
	Source string `json:"source"`
	// Destination is a network interface or an endpoint; empty: DestinationIP says it.
	Destination     string          `json:"destination,omitzero"`
	SourceIP        netip.Addr      `json:"sourceIp,omitzero"`
	DestinationIP   netip.Addr      `json:"destinationIp,omitzero"`
	Protocol        Protocol        `json:"protocol"`                     // TCP or UDP
	DestinationPort *int            `json:"destinationPort,omitzero"`     // nil: any port that the destination listens on
	AtSource        *InsightsFilter `json:"filterAtSource,omitzero"`      // of packets that leave the source
	AtDestination   *InsightsFilter `json:"filterAtDestination,omitzero"` // of packets that arrive; nothing changes packets on the way
	Tags            Tags            `json:"tags,omitzero"`
	Created         time.Time       `json:"created"`
}

// InsightsFilter narrows the packets that an analysis considers; what is zero or nil narrows nothing.
type InsightsFilter struct {
	Source           netip.Addr `json:"source,omitzero"`
	Destination      netip.Addr `json:"destination,omitzero"`
	SourcePorts      *PortRange `json:"sourcePorts,omitzero"`
	DestinationPorts *PortRange `json:"destinationPorts,omitzero"`
}

// AnalysisStatus is how far an analysis is.
type AnalysisStatus string

// The statuses.
const (
	AnalysisRunning   AnalysisStatus = "running"
	AnalysisSucceeded AnalysisStatus = "succeeded"
	AnalysisFailed    AnalysisStatus = "failed"
)

// InsightsAnalysis is one answer to a path, for the state of the network when it was started.
type InsightsAnalysis struct {
	ID      InsightsAnalysisID `json:"id"`
	OwnerID string             `json:"ownerId"`
	Path    InsightsPathID     `json:"path"`
	// FilterIn are components that the traffic must pass, FilterOut components that it must not pass; ARNs as they came.
	FilterIn  []string       `json:"filterIn,omitzero"`
	FilterOut []string       `json:"filterOut,omitzero"`
	Status    AnalysisStatus `json:"status"`
	// Message says why the analysis failed.
	Message string    `json:"message,omitzero"`
	Started time.Time `json:"started"`
	Tags    Tags      `json:"tags,omitzero"`
	Findings
}

// Findings are what an analysis found out.
type Findings struct {
	Found        bool            `json:"found,omitzero"`
	Warning      string          `json:"warning,omitzero"`
	Forward      []PathComponent `json:"forward,omitzero"`
	Return       []PathComponent `json:"return,omitzero"`
	Explanations []Explanation   `json:"explanations,omitzero"` // why the destination is not reachable
}

// PathComponent is one component that a packet passes, with the rule by which it was let through.
type PathComponent struct {
	Component  string             `json:"component"` // "vgw-…", "acl-…", "sg-…", "rtb-…", "eni-…"
	AttachedTo string             `json:"attachedTo,omitzero"`
	ACLRule    *NetworkACLEntry   `json:"aclRule,omitzero"`
	GroupRule  *SecurityGroupRule `json:"groupRule,omitzero"` // of the group Component
	Route      *InsightsRoute     `json:"route,omitzero"`
	Subnet     SubnetID           `json:"subnet,omitzero"`
	VPC        VPCID              `json:"vpc,omitzero"`
	In         *PacketHeader      `json:"in,omitzero"`
	Out        *PacketHeader      `json:"out,omitzero"`
	Service    string             `json:"service,omitzero"` // of the endpoint whose interface this is
}

// InsightsRoute is a route of a table, static or not.
type InsightsRoute struct {
	CIDR       netip.Prefix       `json:"cidr,omitzero"` // exactly one of CIDR and PrefixList is set
	PrefixList PrefixListID       `json:"prefixList,omitzero"`
	Gateway    GatewayID          `json:"gateway,omitzero"`
	Interface  NetworkInterfaceID `json:"interface,omitzero"`
	Origin     string             `json:"origin"` // "CreateRouteTable", "CreateRoute", "EnableVgwRoutePropagation"
	State      string             `json:"state"`  // "active", "blackhole"
}

// Destination is a block or the identifier of a prefix list, as rules of hops name it.
func (r *InsightsRoute) Destination() string {
	if r.PrefixList != "" {
		return string(r.PrefixList)
	}
	return r.CIDR.String()
}

// PacketHeader is what packets of an analysis look like.
type PacketHeader struct {
	Protocol         Protocol    `json:"protocol"`
	Source           netip.Addr  `json:"source"`
	Destination      netip.Addr  `json:"destination"`
	SourcePorts      []PortRange `json:"sourcePorts"`
	DestinationPorts []PortRange `json:"destinationPorts"`
}

// Codes of explanations, as Reachability Analyzer names them.
const (
	CodeBadState        = "BAD_STATE"                    // Endpoint is in State
	CodeBadStateRoute   = "BAD_STATE_ROUTE"              // Route leads nowhere
	CodeCannotRoute     = "CANNOT_ROUTE"                 // Route, or Component, does not lead to the packet's destination
	CodeNoRoute         = "NO_ROUTE_TO_DESTINATION"      // no route of RouteTable does
	CodeGroupMismatch   = "ENI_SG_RULES_MISMATCH"        // no rule of Groups admits the packet; GroupRule would
	CodeACLRestriction  = "SUBNET_ACL_RESTRICTION"       // ACLRule of ACL denies the packet
	CodeAddress         = "ENI_ADDRESS_RESTRICTION"      // Interface does not have the address
	CodeComponentFilter = "COMPONENT_FILTER_RESTRICTION" // the only ways pass, or avoid, what the filters say
	CodeNoPath          = "NO_PATH"                      // nothing listens: Ports and Protocols say what the interface takes
)

// Explanation is one reason why the destination is not reachable. What does not belong to the reason is zero.
type Explanation struct {
	Code      string `json:"code"`
	Direction string `json:"direction,omitzero"` // "ingress" or "egress", seen from the component
	Component string `json:"component,omitzero"`
	// Missing says which change of the rules would help.
	Missing        string             `json:"missing,omitzero"`
	ACL            NetworkACLID       `json:"acl,omitzero"`
	ACLRule        *NetworkACLEntry   `json:"aclRule,omitzero"`
	Address        netip.Addr         `json:"address,omitzero"`
	Addresses      []netip.Addr       `json:"addresses,omitzero"`
	CIDRs          []netip.Prefix     `json:"cidrs,omitzero"`
	Destination    string             `json:"destination,omitzero"`
	Endpoint       EndpointID         `json:"endpoint,omitzero"`
	Gateway        GatewayID          `json:"gateway,omitzero"`
	Groups         []SecurityGroupID  `json:"groups,omitzero"`
	GroupRule      *SecurityGroupRule `json:"groupRule,omitzero"` // that is missing from Groups
	Interface      NetworkInterfaceID `json:"interface,omitzero"`
	Port           int                `json:"port,omitzero"`
	Ports          []PortRange        `json:"ports,omitzero"`
	Protocols      []Protocol         `json:"protocols,omitzero"`
	Route          *InsightsRoute     `json:"route,omitzero"`
	RouteTable     RouteTableID       `json:"routeTable,omitzero"`
	State          string             `json:"state,omitzero"`
	Subnet         SubnetID           `json:"subnet,omitzero"`
	VPC            VPCID              `json:"vpc,omitzero"`
	SourceVPC      VPCID              `json:"sourceVpc,omitzero"`
	DestinationVPC VPCID              `json:"destinationVpc,omitzero"`
}

// Kinds of documents of Reachability Analyzer.
const (
	KindInsightsPath     state.Kind = "network-insights-path"
	KindInsightsAnalysis state.Kind = "network-insights-analysis"
)

// InsightsPaths is the table of paths.
func InsightsPaths() state.Table[InsightsPath] {
	return state.Table[InsightsPath]{Kind: KindInsightsPath, ID: func(p *InsightsPath) string { return string(p.ID) }}
}

// InsightsAnalyses is the table of analyses; keys: path, status.
func InsightsAnalyses() state.Table[InsightsAnalysis] {
	return state.Table[InsightsAnalysis]{
		Kind: KindInsightsAnalysis, ID: func(a *InsightsAnalysis) string { return string(a.ID) },
		Keys: func(a *InsightsAnalysis) []state.Key {
			return []state.Key{{Name: "path", Value: string(a.Path)}, {Name: "status", Value: string(a.Status)}}
		},
	}
}
