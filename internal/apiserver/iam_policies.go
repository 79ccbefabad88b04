package apiserver

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"penstock.dev/penstock/internal/control/access"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/wire/iamapi"
)

func (h *iamHandlers) policyShape(m *access.Managed, u access.Usage) *iamapi.Policy {
	p := &iamapi.Policy{
		PolicyName: new(m.Name), PolicyId: new(m.ID), Arn: new(m.ARN(h.account)), Path: new(m.Path), DefaultVersionId: new(m.Default),
		AttachmentCount: count(len(u.Users) + len(u.Roles)), PermissionsBoundaryUsageCount: count(len(u.Bounds)), IsAttachable: new(true),
		CreateDate: new(m.Created), UpdateDate: new(m.Updated), Tags: tagShapes(m.Tags),
	}
	if m.Description != "" {
		p.Description = new(m.Description)
	}
	return p
}

func count(n int) *int32 { return new(int32(n)) } //nolint:gosec // quotas are far below

func (h *iamHandlers) createPolicy(ctx context.Context, _ Caller, in *iamapi.CreatePolicyInput) (*iamapi.CreatePolicyOutput, error) {
	m, err := h.access.CreatePolicy(ctx, access.Managed{
		Name: *in.PolicyName, Path: deref(in.Path), Description: deref(in.Description), Tags: tagMap(in.Tags),
	}, *in.PolicyDocument)
	if err != nil {
		return nil, err
	}
	return &iamapi.CreatePolicyOutput{Policy: h.policyShape(m, access.Usage{})}, nil
}

func (h *iamHandlers) getPolicy(ctx context.Context, _ Caller, in *iamapi.GetPolicyInput) (*iamapi.GetPolicyOutput, error) {
	m, u, err := h.access.Policy(ctx, *in.PolicyArn)
	if err != nil {
		return nil, err
	}
	return &iamapi.GetPolicyOutput{Policy: h.policyShape(m, u)}, nil
}

func (h *iamHandlers) listPolicies(ctx context.Context, _ Caller, in *iamapi.ListPoliciesInput) (*iamapi.ListPoliciesOutput, error) {
	all, uses, err := h.access.Policies(ctx)
	if err != nil {
		return nil, err
	}
	scope := deref(in.Scope)
	list := []iamapi.Policy{}
	for _, m := range all {
		u := uses[m.ARN(h.account)]
		attached := len(u.Users)+len(u.Roles) > 0
		if deref(in.PolicyUsageFilter) == "PermissionsBoundary" {
			attached = len(u.Bounds) > 0
			if !attached {
				continue
			}
		}
		if scope == "AWS" && !m.AWS || scope == "Local" && m.AWS || deref(in.OnlyAttached) && !attached || !strings.HasPrefix(m.Path, deref(in.PathPrefix)) {
			continue
		}
		p := h.policyShape(m, u)
		p.Tags, p.Description = nil, nil
		list = append(list, *p)
	}
	byARN := func(p iamapi.Policy) string { return *p.Arn }
	slices.SortFunc(list, func(a, b iamapi.Policy) int { return strings.Compare(*a.Arn, *b.Arn) })
	out := &iamapi.ListPoliciesOutput{}
	out.Policies, out.IsTruncated, out.Marker, err = iamPage(list, byARN, in.Marker, in.MaxItems)
	return out, err
}

func (h *iamHandlers) deletePolicy(ctx context.Context, _ Caller, in *iamapi.DeletePolicyInput) (*iamapi.DeletePolicyOutput, error) {
	return nil, h.access.DeletePolicy(ctx, *in.PolicyArn)
}

func (h *iamHandlers) createPolicyVersion(ctx context.Context, _ Caller, in *iamapi.CreatePolicyVersionInput) (*iamapi.CreatePolicyVersionOutput, error) {
	v, err := h.access.CreateVersion(ctx, *in.PolicyArn, *in.PolicyDocument, deref(in.SetAsDefault))
	if err != nil {
		return nil, err
	}
	return &iamapi.CreatePolicyVersionOutput{PolicyVersion: &iamapi.PolicyVersion{
		VersionId: new(v.ID), IsDefaultVersion: new(deref(in.SetAsDefault)), CreateDate: new(v.Created),
	}}, nil
}

func (h *iamHandlers) getPolicyVersion(ctx context.Context, _ Caller, in *iamapi.GetPolicyVersionInput) (*iamapi.GetPolicyVersionOutput, error) {
	v, m, err := h.access.PolicyVersion(ctx, *in.PolicyArn, *in.VersionId)
	if err != nil {
		return nil, err
	}
	return &iamapi.GetPolicyVersionOutput{PolicyVersion: &iamapi.PolicyVersion{
		Document: new(encodeDocument(v.Document)), VersionId: new(v.ID), IsDefaultVersion: new(v.ID == m.Default), CreateDate: new(v.Created),
	}}, nil
}

func (h *iamHandlers) listPolicyVersions(ctx context.Context, _ Caller, in *iamapi.ListPolicyVersionsInput) (*iamapi.ListPolicyVersionsOutput, error) {
	m, _, err := h.access.Policy(ctx, *in.PolicyArn)
	if err != nil {
		return nil, err
	}
	out := &iamapi.ListPolicyVersionsOutput{Versions: []iamapi.PolicyVersion{}, IsTruncated: new(false)}
	for _, v := range slices.Backward(m.Versions) {
		out.Versions = append(out.Versions, iamapi.PolicyVersion{VersionId: new(v.ID), IsDefaultVersion: new(v.ID == m.Default), CreateDate: new(v.Created)})
	}
	return out, nil
}

func (h *iamHandlers) deletePolicyVersion(ctx context.Context, _ Caller, in *iamapi.DeletePolicyVersionInput) (*iamapi.DeletePolicyVersionOutput, error) {
	return nil, h.access.DeleteVersion(ctx, *in.PolicyArn, *in.VersionId)
}

func (h *iamHandlers) setDefaultPolicyVersion(ctx context.Context, _ Caller, in *iamapi.SetDefaultPolicyVersionInput) (*iamapi.SetDefaultPolicyVersionOutput, error) {
	return nil, h.access.SetDefaultVersion(ctx, *in.PolicyArn, *in.VersionId)
}

func (h *iamHandlers) tagPolicy(ctx context.Context, _ Caller, in *iamapi.TagPolicyInput) (*iamapi.TagPolicyOutput, error) {
	return nil, h.access.TagPolicy(ctx, *in.PolicyArn, tagMap(in.Tags), nil)
}

func (h *iamHandlers) untagPolicy(ctx context.Context, _ Caller, in *iamapi.UntagPolicyInput) (*iamapi.UntagPolicyOutput, error) {
	return nil, h.access.TagPolicy(ctx, *in.PolicyArn, nil, in.TagKeys)
}

func (h *iamHandlers) listPolicyTags(ctx context.Context, _ Caller, in *iamapi.ListPolicyTagsInput) (*iamapi.ListPolicyTagsOutput, error) {
	m, _, err := h.access.Policy(ctx, *in.PolicyArn)
	if err != nil {
		return nil, err
	}
	return &iamapi.ListPolicyTagsOutput{Tags: append([]iamapi.Tag{}, tagShapes(m.Tags)...), IsTruncated: new(false)}, nil
}

func (h *iamHandlers) listEntitiesForPolicy(ctx context.Context, _ Caller, in *iamapi.ListEntitiesForPolicyInput) (*iamapi.ListEntitiesForPolicyOutput, error) {
	_, u, err := h.access.Policy(ctx, *in.PolicyArn)
	if err != nil {
		return nil, err
	}
	out := &iamapi.ListEntitiesForPolicyOutput{
		PolicyGroups: []iamapi.PolicyGroup{}, PolicyUsers: []iamapi.PolicyUser{}, PolicyRoles: []iamapi.PolicyRole{}, IsTruncated: new(false),
	}
	var list []*access.Entity
	if f := deref(in.PolicyUsageFilter); f != "PermissionsBoundary" {
		list = append(append(list, u.Users...), u.Roles...)
	}
	if f := deref(in.PolicyUsageFilter); f != "PermissionsPolicy" {
		list = append(list, u.Bounds...)
	}
	filter := deref(in.EntityFilter)
	for _, e := range list {
		if !strings.HasPrefix(e.Path, deref(in.PathPrefix)) {
			continue
		}
		switch {
		case e.Kind == access.User && (filter == "" || filter == "User"):
			out.PolicyUsers = append(out.PolicyUsers, iamapi.PolicyUser{UserName: new(e.Name), UserId: new(e.ID)})
		case e.Kind == access.Role && (filter == "" || filter == "Role"):
			out.PolicyRoles = append(out.PolicyRoles, iamapi.PolicyRole{RoleName: new(e.Name), RoleId: new(e.ID)})
		}
	}
	return out, nil
}

// simulation is what both simulating operations share.
type simulation struct {
	set       iam.PolicySet
	principal iam.Principal
	tags      map[string]string
	actions   []string
	resources []string
	context   []iamapi.ContextEntry
	stored    bool // the policies are a principal's
}

func (h *iamHandlers) simulateCustomPolicy(_ context.Context, c Caller, in *iamapi.SimulateCustomPolicyInput) (*iamapi.SimulateCustomPolicyOutput, error) {
	if in.ResourcePolicy != nil || in.ResourceOwner != nil || in.CallerArn != nil || len(in.OrderedOrganizationPolicyInputList) > 0 {
		return nil, unsimulated()
	}
	m := simulation{principal: iam.Principal{Kind: iam.User, AccountID: c.AccountID}, actions: in.ActionNames, resources: in.ResourceArns, context: in.ContextEntries}
	if err := m.add(in.PolicyInputList, in.PermissionsBoundaryPolicyInputList); err != nil {
		return nil, err
	}
	out := &iamapi.SimulateCustomPolicyOutput{}
	var err error
	out.EvaluationResults, out.IsTruncated, out.Marker, err = m.page(in.Marker, in.MaxItems)
	return out, err
}

func (h *iamHandlers) simulatePrincipalPolicy(ctx context.Context, _ Caller, in *iamapi.SimulatePrincipalPolicyInput) (*iamapi.SimulatePrincipalPolicyOutput, error) {
	if in.ResourcePolicy != nil || in.ResourceOwner != nil || in.CallerArn != nil || len(in.PolicyExclusionList) > 0 {
		return nil, unsimulated()
	}
	set, p, tags, err := h.access.PoliciesOf(ctx, *in.PolicySourceArn)
	if err != nil {
		return nil, err
	}
	m := simulation{set: *set, principal: p, tags: tags, actions: in.ActionNames, resources: in.ResourceArns, context: in.ContextEntries, stored: true}
	m.set.Identity = slices.Clone(set.Identity)
	if err := m.add(in.PolicyInputList, in.PermissionsBoundaryPolicyInputList); err != nil {
		return nil, err
	}
	out := &iamapi.SimulatePrincipalPolicyOutput{}
	out.EvaluationResults, out.IsTruncated, out.Marker, err = m.page(in.Marker, in.MaxItems)
	return out, err
}

func unsimulated() error {
	return fault.New(fault.Unsupported, "", "", "Simulating resource policies, other callers, organizations and exclusions is not served by this version.")
}

func (m *simulation) add(policies, boundaries []string) error {
	parse := func(prefix string, i int, document string) (*iam.Policy, error) {
		p, err := iam.ParsePolicy(iam.IdentityPolicy, document)
		if err != nil {
			return nil, fault.New(fault.Invalid, "", "", err.Error()).WithCode("InvalidInput")
		}
		return p.Named(prefix+"."+strconv.Itoa(i+1), ""), nil
	}
	for i, d := range policies {
		p, err := parse("PolicyInputList", i, d)
		if err != nil {
			return err
		}
		m.set.Identity = append(m.set.Identity, p)
	}
	if len(boundaries) > 1 {
		return fault.New(fault.Invalid, "", "", "At most one permissions boundary policy may be given.")
	}
	for i, d := range boundaries {
		p, err := parse("PermissionsBoundaryPolicyInputList", i, d)
		if err != nil {
			return err
		}
		m.set.Boundary = p
	}
	return nil
}

// sourceType is the kind of policy that a statement is from, in IAM's words.
func (m *simulation) sourceType(st iam.Step) string {
	switch arn := st.Policy.ARN; {
	case strings.HasPrefix(arn, "arn:aws:iam::aws:"):
		return iamapi.PolicySourceTypeAwsManaged
	case arn != "":
		return iamapi.PolicySourceTypeUserManaged
	case !m.stored:
		return iamapi.PolicySourceTypeNone
	case m.principal.Kind == iam.User:
		return iamapi.PolicySourceTypeUser
	}
	return iamapi.PolicySourceTypeRole
}

// page evaluates every action on every resource, and answers one page of it.
func (m *simulation) page(marker *string, maxItems *int32) ([]iamapi.EvaluationResult, *bool, *string, error) {
	resources := m.resources
	if len(resources) == 0 {
		resources = []string{"*"}
	}
	const most = 10000
	if len(m.actions)*len(resources) > most {
		return nil, nil, nil, fault.Newf(fault.Invalid, "", "", "At most %d evaluations may be asked for.", most)
	}
	keys := map[string][]string{}
	for _, e := range m.context {
		keys[iam.LowerKey(deref(e.ContextKeyName))] = e.ContextKeyValues
	}
	type numbered struct {
		at     string
		result iamapi.EvaluationResult
	}
	var all []numbered
	for _, action := range m.actions {
		for _, resource := range resources {
			r := iam.Request{Principal: m.principal, Action: action, Resources: []string{resource}, PrincipalTags: m.tags, Keys: keys}
			d := m.set.Explain(&r, resource)
			e := iamapi.EvaluationResult{
				EvalActionName: new(action), EvalResourceName: new(resource), EvalDecision: new("implicitDeny"),
				MatchedStatements: []iamapi.Statement{}, MissingContextValues: append([]string{}, d.Missing...),
			}
			switch {
			case d.Allowed:
				e.EvalDecision = new("allowed")
			case d.Explicit:
				e.EvalDecision = new("explicitDeny")
			}
			for _, st := range d.Deciding() {
				e.MatchedStatements = append(e.MatchedStatements, iamapi.Statement{
					SourcePolicyId: new(st.Policy.Name), SourcePolicyType: new(m.sourceType(st)),
					StartPosition: &iamapi.Position{Line: count(st.Line), Column: count(st.Column)},
					EndPosition:   &iamapi.Position{Line: count(st.End.Line), Column: count(st.End.Column)},
				})
			}
			if m.set.Boundary != nil {
				e.PermissionsBoundaryDecisionDetail = &iamapi.PermissionsBoundaryDecisionDetail{AllowedByPermissionsBoundary: new(d.AllowedBy(iam.BoundaryLayer))}
			}
			at := strconv.Itoa(len(all))
			all = append(all, numbered{strings.Repeat("0", 6-len(at)) + at, e})
		}
	}
	list, truncated, next, err := iamPage(all, func(n numbered) string { return n.at }, marker, maxItems)
	out := make([]iamapi.EvaluationResult, 0, len(list))
	for _, n := range list {
		out = append(out, n.result)
	}
	return out, truncated, next, err
}
