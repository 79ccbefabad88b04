package apiserver

import (
	"context"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/control"
	api "penstock.dev/penstock/internal/wire/appstreamapi"
)

func (h *appstreamHandlers) createEntitlement(ctx context.Context, _ Caller, in *api.CreateEntitlementInput) (*api.CreateEntitlementOutput, error) {
	e, err := h.control.CreateEntitlement(ctx, appstream.Entitlement{
		Name: deref(in.Name), Stack: deref(in.StackName), Description: deref(in.Description), Visibility: deref(in.AppVisibility),
		Attributes: attributes(in.Attributes),
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateEntitlementOutput{Entitlement: new(entitlement(e))}, nil
}

func (h *appstreamHandlers) updateEntitlement(ctx context.Context, _ Caller, in *api.UpdateEntitlementInput) (*api.UpdateEntitlementOutput, error) {
	e, err := h.control.UpdateEntitlement(ctx, deref(in.StackName), deref(in.Name), control.EntitlementChange{
		Description: in.Description, Visibility: in.AppVisibility, Attributes: attributes(in.Attributes),
	})
	if err != nil {
		return nil, err
	}
	return &api.UpdateEntitlementOutput{Entitlement: new(entitlement(e))}, nil
}

func (h *appstreamHandlers) deleteEntitlement(ctx context.Context, _ Caller, in *api.DeleteEntitlementInput) (*api.DeleteEntitlementOutput, error) {
	return nil, h.control.DeleteEntitlement(ctx, deref(in.StackName), deref(in.Name))
}

func (h *appstreamHandlers) describeEntitlements(ctx context.Context, _ Caller, in *api.DescribeEntitlementsInput) (*api.DescribeEntitlementsOutput, error) {
	limit, err := pageSize(in.MaxResults)
	if err != nil {
		return nil, err
	}
	es, next, err := h.control.Entitlements(ctx, deref(in.StackName), deref(in.Name), deref(in.NextToken), limit)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeEntitlementsOutput{Entitlements: make([]api.Entitlement, 0, len(es)), NextToken: optional(next)}
	for _, e := range es {
		out.Entitlements = append(out.Entitlements, entitlement(e))
	}
	return out, nil
}

func (h *appstreamHandlers) entitleApplication(
	ctx context.Context, _ Caller, in *api.AssociateApplicationToEntitlementInput,
) (*api.AssociateApplicationToEntitlementOutput, error) {
	return nil, h.control.EntitleApplication(ctx, deref(in.StackName), deref(in.EntitlementName), deref(in.ApplicationIdentifier))
}

func (h *appstreamHandlers) withdrawApplication(
	ctx context.Context, _ Caller, in *api.DisassociateApplicationFromEntitlementInput,
) (*api.DisassociateApplicationFromEntitlementOutput, error) {
	return nil, h.control.WithdrawApplication(ctx, deref(in.StackName), deref(in.EntitlementName), deref(in.ApplicationIdentifier))
}

func (h *appstreamHandlers) listEntitledApplications(
	ctx context.Context, _ Caller, in *api.ListEntitledApplicationsInput,
) (*api.ListEntitledApplicationsOutput, error) {
	limit, err := pageSize(in.MaxResults)
	if err != nil {
		return nil, err
	}
	names, next, err := h.control.EntitledApplications(ctx, deref(in.StackName), deref(in.EntitlementName), deref(in.NextToken), limit)
	if err != nil {
		return nil, err
	}
	out := &api.ListEntitledApplicationsOutput{EntitledApplications: make([]api.EntitledApplication, 0, len(names)), NextToken: optional(next)}
	for _, n := range names {
		out.EntitledApplications = append(out.EntitledApplications, api.EntitledApplication{ApplicationIdentifier: &n})
	}
	return out, nil
}

func attributes(in []api.EntitlementAttribute) []appstream.Attribute {
	var out []appstream.Attribute
	for _, a := range in {
		out = append(out, appstream.Attribute{Name: deref(a.Name), Value: deref(a.Value)})
	}
	return out
}

func entitlement(e *appstream.Entitlement) api.Entitlement {
	out := api.Entitlement{
		Name: &e.Name, StackName: &e.Stack, Description: optional(e.Description), AppVisibility: &e.Visibility,
		CreatedTime: &e.Created, LastModifiedTime: &e.Modified,
	}
	for _, a := range e.Attributes {
		out.Attributes = append(out.Attributes, api.EntitlementAttribute{Name: &a.Name, Value: &a.Value})
	}
	return out
}
