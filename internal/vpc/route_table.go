package vpc

import "net/netip"

// RouteTable says where packets that leave a subnet go.
type RouteTable struct {
	ID      RouteTableID `json:"id"`
	OwnerID string       `json:"ownerId"`
	VPC     VPCID        `json:"vpc"`
	Routes  []Route      `json:"routes,omitzero"` // without the local route and the propagated ones
	// Propagates says that the routes to the users' networks arrive by themselves through the VPC's gateway.
	// Main tables are made so; others have the routes that they were given, as in EC2.
	Propagates   bool                    `json:"propagates,omitzero"`
	Associations []RouteTableAssociation `json:"associations,omitzero"`
	Tags         Tags                    `json:"tags,omitzero"`
}

// Route is a static route of a table.
type Route struct {
	CIDR       netip.Prefix       `json:"cidr,omitzero"`       // masked; exactly one of CIDR and PrefixList is set
	PrefixList PrefixListID       `json:"prefixList,omitzero"` // every block of the list
	Gateway    GatewayID          `json:"gateway,omitzero"`
	Interface  NetworkInterfaceID `json:"interface,omitzero"` // leads to an interface that forwards nothing here: a dead end
}

// Destination is where the route leads, as EC2's messages show it: a block or the identifier of a prefix list.
func (r *Route) Destination() string {
	if r.PrefixList != "" {
		return string(r.PrefixList)
	}
	return r.CIDR.String()
}

// SameDestination says whether two routes are about the same addresses.
func (r *Route) SameDestination(o *Route) bool {
	return r.CIDR == o.CIDR && r.PrefixList == o.PrefixList
}

// Count is how many routes of its own the table has for its quota: a route to a prefix list counts as often as the list may
// have entries.
func (t *RouteTable) Count(lists Lists) int {
	n := 0
	for _, r := range t.Routes {
		if l := lists(r.PrefixList); l != nil {
			n += l.MaxEntries
			continue
		}
		n++
	}
	return n
}

// RouteTableAssociation ties a subnet to a table, or makes the table the VPC's main one.
type RouteTableAssociation struct {
	ID     RouteTableAssociationID `json:"id"`
	Main   bool                    `json:"main,omitzero"`
	Subnet SubnetID                `json:"subnet,omitzero"` // empty when Main
}

// LocalGateway is the target of the route inside the VPC.
const LocalGateway GatewayID = "local"
