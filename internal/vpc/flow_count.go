package vpc

import (
	"context"
	"net/netip"
	"time"
)

// FlowMeter is the part of network drivers that flow logs are written from. Its suite is vpctest.RunFlows.
type FlowMeter interface {
	// Flows is what passed and what was rejected at each interface since the call before, and forgets it. Every interface of
	// the plan is named, and those that left it since, in the order of their identifiers. What a driver sees is bounded:
	// what it could not keep is in Skipped.
	Flows(ctx context.Context) ([]InterfaceFlows, error)
}

// InterfaceFlows is the traffic of one interface.
type InterfaceFlows struct {
	Interface NetworkInterfaceID
	Flows     []FlowCount
	Skipped   uint64 // packets or flows, at least so many, that were seen and are not in Flows
}

// FlowCount is the traffic of a flow in one direction.
type FlowCount struct {
	Src, Dst    netip.AddrPort // ports are 0 where the protocol has none
	Protocol    Protocol
	Rejected    bool
	Packets     uint64
	Bytes       uint64 // of IP packets, headers included
	First, Last time.Time
}
