package apiserver

import (
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/control"
	"penstock.dev/penstock/internal/fault"
)

// appstreamHandlers answers AppStream operations: wire shapes in, calls of control, wire shapes out.
type appstreamHandlers struct {
	control         *control.Control
	region, account string
}

// appstreamOperations lists the AppStream operations that this server answers, each with its handler.
// An operation of the model that is not listed is refused as not implemented.
func (s *Server) appstreamOperations() []operation {
	if s.options.Control == nil {
		return nil
	}
	h := &appstreamHandlers{control: s.options.Control, region: s.options.Region, account: s.options.AccountID}
	ops := []operation{
		appstreamOp("CreateStack", h.createStack),
		appstreamOp("DescribeStacks", h.describeStacks),
		appstreamOp("UpdateStack", h.updateStack),
		appstreamOp("DeleteStack", h.deleteStack),
		appstreamOp("CreateFleet", h.createFleet),
		appstreamOp("DescribeFleets", h.describeFleets),
		appstreamOp("UpdateFleet", h.updateFleet),
		appstreamOp("StartFleet", h.startFleet),
		appstreamOp("StopFleet", h.stopFleet),
		appstreamOp("DeleteFleet", h.deleteFleet),
		appstreamOp("AssociateFleet", h.associateFleet),
		appstreamOp("DisassociateFleet", h.disassociateFleet),
		appstreamOp("ListAssociatedFleets", h.listAssociatedFleets),
		appstreamOp("ListAssociatedStacks", h.listAssociatedStacks),
		appstreamOp("CreateStreamingURL", h.createStreamingURL),
		appstreamOp("DescribeSessions", h.describeSessions),
		appstreamOp("ExpireSession", h.expireSession),
		appstreamOp("DescribeImages", h.describeImages),
		appstreamOp("TagResource", h.tagResource),
		appstreamOp("UntagResource", h.untagResource),
		appstreamOp("ListTagsForResource", h.listTagsForResource),
		appstreamOp("CreateEntitlement", h.createEntitlement),
		appstreamOp("UpdateEntitlement", h.updateEntitlement),
		appstreamOp("DeleteEntitlement", h.deleteEntitlement),
		appstreamOp("DescribeEntitlements", h.describeEntitlements),
		appstreamOp("AssociateApplicationToEntitlement", h.entitleApplication),
		appstreamOp("DisassociateApplicationFromEntitlement", h.withdrawApplication),
		appstreamOp("ListEntitledApplications", h.listEntitledApplications),
	}
	ops = append(ops, h.builderOperations()...)
	if s.options.Users != nil {
		ops = append(ops, (&userHandlers{h, s.options.Users}).operations()...)
	}
	return ops
}

func (h *appstreamHandlers) arn(kind, name string) *string {
	return new(appstream.ARN(h.region, h.account, kind, name))
}

// deref is the value, or zero for an absent member.
func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// optional is absent for the zero value: AppStream leaves empty members out.
func optional[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

// seconds reads an optional number of seconds.
func seconds(p *int32) *time.Duration {
	if p == nil {
		return nil
	}
	return new(time.Duration(*p) * time.Second)
}

func wholeSeconds(d time.Duration) *int32 {
	return new(int32(d / time.Second)) //nolint:gosec // the API's ranges are far below
}

// unsupported refuses a member that this version cannot honour, instead of accepting it in silence.
func unsupported(sent bool, member string) error {
	if !sent {
		return nil
	}
	return fault.New(fault.Unsupported, member, "", "this version cannot honour it; leave it out")
}
