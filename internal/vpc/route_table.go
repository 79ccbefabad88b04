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
	ClientToken  string                  `json:"clientToken,omitzero"`
}

// Route is a static route of a table.
type Route struct {
	CIDR      netip.Prefix       `json:"cidr"` // masked
	Gateway   GatewayID          `json:"gateway,omitzero"`
	Interface NetworkInterfaceID `json:"interface,omitzero"` // leads to an interface that forwards nothing here: a dead end
}

// RouteTableAssociation ties a subnet to a table, or makes the table the VPC's main one.
type RouteTableAssociation struct {
	ID     RouteTableAssociationID `json:"id"`
	Main   bool                    `json:"main,omitzero"`
	Subnet SubnetID                `json:"subnet,omitzero"` // empty when Main
}

// LocalGateway is the target of the route inside the VPC.
const LocalGateway GatewayID = "local"
