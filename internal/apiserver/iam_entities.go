package apiserver

import (
	"context"
	"encoding/base64"
	"maps"
	"slices"
	"strings"
	"time"

	"penstock.dev/penstock/internal/control/access"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/wire/iamapi"
)

// iamHandlers answers IAM operations: wire shapes in, calls of the access service, wire shapes out.
type iamHandlers struct {
	access  *access.Service
	account string
}

func (h *iamHandlers) operations() []operation {
	return []operation{
		iamOp("CreateUser", h.createUser),
		iamOp("GetUser", h.getUser),
		iamOp("ListUsers", h.listUsers),
		iamOp("UpdateUser", h.updateUser),
		iamOp("DeleteUser", h.deleteUser),
		iamOp("TagUser", h.tagUser),
		iamOp("UntagUser", h.untagUser),
		iamOp("ListUserTags", h.listUserTags),
		iamOp("PutUserPolicy", h.putUserPolicy),
		iamOp("GetUserPolicy", h.getUserPolicy),
		iamOp("ListUserPolicies", h.listUserPolicies),
		iamOp("DeleteUserPolicy", h.deleteUserPolicy),
		iamOp("AttachUserPolicy", h.attachUserPolicy),
		iamOp("DetachUserPolicy", h.detachUserPolicy),
		iamOp("ListAttachedUserPolicies", h.listAttachedUserPolicies),
		iamOp("ListGroupsForUser", h.listGroupsForUser),
		iamOp("CreateAccessKey", h.createAccessKey),
		iamOp("ListAccessKeys", h.listAccessKeys),
		iamOp("UpdateAccessKey", h.updateAccessKey),
		iamOp("DeleteAccessKey", h.deleteAccessKey),
		iamOp("GetAccessKeyLastUsed", h.getAccessKeyLastUsed),
		iamOp("ListSSHPublicKeys", none[iamapi.ListSSHPublicKeysInput](h, userOf, &iamapi.ListSSHPublicKeysOutput{IsTruncated: new(false)})),
		iamOp("ListSigningCertificates", none[iamapi.ListSigningCertificatesInput](h, userOf, &iamapi.ListSigningCertificatesOutput{Certificates: []iamapi.SigningCertificate{}, IsTruncated: new(false)})),
		iamOp("ListServiceSpecificCredentials", none[iamapi.ListServiceSpecificCredentialsInput](h, userOf, &iamapi.ListServiceSpecificCredentialsOutput{})),
		iamOp("ListMFADevices", none[iamapi.ListMFADevicesInput](h, userOf, &iamapi.ListMFADevicesOutput{MFADevices: []iamapi.MFADevice{}, IsTruncated: new(false)})),
		iamOp("ListVirtualMFADevices", none[iamapi.ListVirtualMFADevicesInput](h, nil, &iamapi.ListVirtualMFADevicesOutput{VirtualMFADevices: []iamapi.VirtualMFADevice{}, IsTruncated: new(false)})),
		iamOp("ListAccountAliases", none[iamapi.ListAccountAliasesInput](h, nil, &iamapi.ListAccountAliasesOutput{AccountAliases: []string{}, IsTruncated: new(false)})),
		iamOp("GetLoginProfile", h.getLoginProfile),
		iamOp("DeleteLoginProfile", h.deleteLoginProfile),

		iamOp("CreateRole", h.createRole),
		iamOp("GetRole", h.getRole),
		iamOp("ListRoles", h.listRoles),
		iamOp("UpdateRole", h.updateRole),
		iamOp("UpdateRoleDescription", h.updateRoleDescription),
		iamOp("UpdateAssumeRolePolicy", h.updateAssumeRolePolicy),
		iamOp("DeleteRole", h.deleteRole),
		iamOp("TagRole", h.tagRole),
		iamOp("UntagRole", h.untagRole),
		iamOp("ListRoleTags", h.listRoleTags),
		iamOp("PutRolePolicy", h.putRolePolicy),
		iamOp("GetRolePolicy", h.getRolePolicy),
		iamOp("ListRolePolicies", h.listRolePolicies),
		iamOp("DeleteRolePolicy", h.deleteRolePolicy),
		iamOp("AttachRolePolicy", h.attachRolePolicy),
		iamOp("DetachRolePolicy", h.detachRolePolicy),
		iamOp("ListAttachedRolePolicies", h.listAttachedRolePolicies),
		iamOp("PutRolePermissionsBoundary", h.putRoleBoundary),
		iamOp("DeleteRolePermissionsBoundary", h.deleteRoleBoundary),
		iamOp("ListInstanceProfilesForRole", h.listInstanceProfilesForRole),

		iamOp("CreateServiceLinkedRole", h.createServiceLinkedRole),
		iamOp("DeleteServiceLinkedRole", h.deleteServiceLinkedRole),
		iamOp("GetServiceLinkedRoleDeletionStatus", h.getServiceLinkedRoleDeletionStatus),
		iamOp("GetAccountSummary", h.getAccountSummary),

		iamOp("CreatePolicy", h.createPolicy),
		iamOp("GetPolicy", h.getPolicy),
		iamOp("ListPolicies", h.listPolicies),
		iamOp("DeletePolicy", h.deletePolicy),
		iamOp("CreatePolicyVersion", h.createPolicyVersion),
		iamOp("GetPolicyVersion", h.getPolicyVersion),
		iamOp("ListPolicyVersions", h.listPolicyVersions),
		iamOp("DeletePolicyVersion", h.deletePolicyVersion),
		iamOp("SetDefaultPolicyVersion", h.setDefaultPolicyVersion),
		iamOp("TagPolicy", h.tagPolicy),
		iamOp("UntagPolicy", h.untagPolicy),
		iamOp("ListPolicyTags", h.listPolicyTags),
		iamOp("ListEntitiesForPolicy", h.listEntitiesForPolicy),
		iamOp("SimulateCustomPolicy", h.simulateCustomPolicy),
		iamOp("SimulatePrincipalPolicy", h.simulatePrincipalPolicy),
	}
}

// iamPage cuts one page out of a list in order of its keys. The marker is opaque: the last key of the page before.
func iamPage[T any](list []T, keyOf func(T) string, marker *string, maxItems *int32) (out []T, truncated *bool, next *string, err error) {
	out = list
	if marker != nil {
		after, err := base64.RawURLEncoding.DecodeString(*marker)
		if err != nil {
			return nil, nil, nil, fault.New(fault.Invalid, "", "", "Invalid Marker.")
		}
		i := 0
		for i < len(list) && keyOf(list[i]) <= string(after) {
			i++
		}
		out = list[i:]
	}
	most := 100
	if maxItems != nil {
		most = int(*maxItems)
	}
	if len(out) <= most {
		return out, new(false), nil, nil
	}
	out = out[:most]
	return out, new(true), new(base64.RawURLEncoding.EncodeToString([]byte(keyOf(out[most-1])))), nil
}

func self(s string) string { return s }

func tagMap(tags []iamapi.Tag) map[string]string {
	m := map[string]string{}
	for _, t := range tags {
		m[deref(t.Key)] = deref(t.Value)
	}
	return m
}

func tagShapes(tags map[string]string) []iamapi.Tag {
	var out []iamapi.Tag
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		out = append(out, iamapi.Tag{Key: new(k), Value: new(tags[k])})
	}
	return out
}

func boundaryShape(arn string) *iamapi.AttachedPermissionsBoundary {
	if arn == "" {
		return nil
	}
	return &iamapi.AttachedPermissionsBoundary{PermissionsBoundaryType: new("Policy"), PermissionsBoundaryArn: new(arn)}
}

func (h *iamHandlers) userShape(e *access.Entity) *iamapi.User {
	return &iamapi.User{
		Path: new(e.Path), UserName: new(e.Name), UserId: new(e.ID), Arn: new(e.ARN(h.account)), CreateDate: new(e.Created),
		PermissionsBoundary: boundaryShape(e.Boundary), Tags: tagShapes(e.Tags),
	}
}

func (h *iamHandlers) roleShape(e *access.Entity) *iamapi.Role {
	r := roleShape(iam.Role{
		AccountID: h.account, Path: e.Path, Name: e.Name, ID: e.ID, Created: e.Created, TrustPolicy: e.Trust, Description: e.Description, MaxSession: e.MaxSession,
	})
	r.PermissionsBoundary, r.Tags = boundaryShape(e.Boundary), tagShapes(e.Tags)
	return &r
}

// userOf is the user that a request is about: the named one or, without a name, the caller.
func (h *iamHandlers) userOf(c Caller, name *string) (string, error) {
	if name != nil {
		return *name, nil
	}
	if c.Principal.Kind != iam.User {
		return "", fault.New(fault.Invalid, "", "", "Must specify userName when calling with non-User credentials")
	}
	return c.Principal.Name, nil
}

// userOf reads the member UserName of an input.
func userOf(in any) *string {
	switch in := in.(type) {
	case *iamapi.ListSSHPublicKeysInput:
		return in.UserName
	case *iamapi.ListSigningCertificatesInput:
		return in.UserName
	case *iamapi.ListServiceSpecificCredentialsInput:
		return in.UserName
	case *iamapi.ListMFADevicesInput:
		return in.UserName
	}
	return nil
}

// none answers a list of what nobody can have here; a user that is named must exist.
func none[In, Out any](h *iamHandlers, user func(any) *string, out *Out) func(context.Context, Caller, *In) (*Out, error) {
	return func(ctx context.Context, _ Caller, in *In) (*Out, error) {
		if user != nil {
			if name := user(in); name != nil {
				if _, err := h.access.Get(ctx, access.User, *name); err != nil {
					return nil, err
				}
			}
		}
		return out, nil
	}
}

func (h *iamHandlers) createUser(ctx context.Context, _ Caller, in *iamapi.CreateUserInput) (*iamapi.CreateUserOutput, error) {
	e, err := h.access.Create(ctx, access.Entity{
		Kind: access.User, Name: *in.UserName, Path: deref(in.Path), Tags: tagMap(in.Tags), Boundary: deref(in.PermissionsBoundary),
	})
	if err != nil {
		return nil, err
	}
	return &iamapi.CreateUserOutput{User: h.userShape(e)}, nil
}

// getUser without a name describes the caller. AWS answers the account's root with the account as its user ID.
func (h *iamHandlers) getUser(ctx context.Context, c Caller, in *iamapi.GetUserInput) (*iamapi.GetUserOutput, error) {
	if p := c.Principal; in.UserName == nil && p.Kind == iam.Root {
		return &iamapi.GetUserOutput{User: &iamapi.User{
			UserId: new(p.UserID()), Arn: new(p.ARN()), CreateDate: new(time.Unix(0, 0).UTC()),
		}}, nil
	}
	name, err := h.userOf(c, in.UserName)
	if err != nil {
		return nil, err
	}
	e, err := h.access.Get(ctx, access.User, name)
	if err != nil {
		return nil, err
	}
	return &iamapi.GetUserOutput{User: h.userShape(e)}, nil
}

func lowerName(e *access.Entity) string { return strings.ToLower(e.Name) }

func (h *iamHandlers) listUsers(ctx context.Context, _ Caller, in *iamapi.ListUsersInput) (*iamapi.ListUsersOutput, error) {
	all, err := h.access.List(ctx, access.User, deref(in.PathPrefix))
	if err != nil {
		return nil, err
	}
	out := &iamapi.ListUsersOutput{Users: []iamapi.User{}}
	all, out.IsTruncated, out.Marker, err = iamPage(all, lowerName, in.Marker, in.MaxItems)
	for _, e := range all {
		u := h.userShape(e)
		u.Tags, u.PermissionsBoundary = nil, nil // as IAM: lists leave them out
		out.Users = append(out.Users, *u)
	}
	return out, err
}

func (h *iamHandlers) updateUser(ctx context.Context, _ Caller, in *iamapi.UpdateUserInput) (*iamapi.UpdateUserOutput, error) {
	return nil, h.access.Rename(ctx, *in.UserName, deref(in.NewUserName), deref(in.NewPath))
}

func (h *iamHandlers) deleteUser(ctx context.Context, _ Caller, in *iamapi.DeleteUserInput) (*iamapi.DeleteUserOutput, error) {
	return nil, h.access.Delete(ctx, access.User, *in.UserName)
}

func (h *iamHandlers) tagUser(ctx context.Context, _ Caller, in *iamapi.TagUserInput) (*iamapi.TagUserOutput, error) {
	return nil, h.access.Tag(ctx, access.User, *in.UserName, tagMap(in.Tags), nil)
}

func (h *iamHandlers) untagUser(ctx context.Context, _ Caller, in *iamapi.UntagUserInput) (*iamapi.UntagUserOutput, error) {
	return nil, h.access.Tag(ctx, access.User, *in.UserName, nil, in.TagKeys)
}

func (h *iamHandlers) tags(ctx context.Context, k access.Kind, name string) ([]iamapi.Tag, error) {
	e, err := h.access.Get(ctx, k, name)
	if err != nil {
		return nil, err
	}
	return append([]iamapi.Tag{}, tagShapes(e.Tags)...), nil
}

func (h *iamHandlers) listUserTags(ctx context.Context, _ Caller, in *iamapi.ListUserTagsInput) (*iamapi.ListUserTagsOutput, error) {
	tags, err := h.tags(ctx, access.User, *in.UserName)
	return &iamapi.ListUserTagsOutput{Tags: tags, IsTruncated: new(false)}, err
}

func (h *iamHandlers) putUserPolicy(ctx context.Context, _ Caller, in *iamapi.PutUserPolicyInput) (*iamapi.PutUserPolicyOutput, error) {
	return nil, h.access.PutInline(ctx, access.User, *in.UserName, *in.PolicyName, *in.PolicyDocument)
}

func (h *iamHandlers) getUserPolicy(ctx context.Context, _ Caller, in *iamapi.GetUserPolicyInput) (*iamapi.GetUserPolicyOutput, error) {
	d, err := h.access.Inline(ctx, access.User, *in.UserName, *in.PolicyName)
	return &iamapi.GetUserPolicyOutput{UserName: in.UserName, PolicyName: in.PolicyName, PolicyDocument: new(encodeDocument(d))}, err
}

func (h *iamHandlers) inlineNames(ctx context.Context, k access.Kind, name string) ([]string, error) {
	e, err := h.access.Get(ctx, k, name)
	if err != nil {
		return nil, err
	}
	return append([]string{}, slices.Sorted(maps.Keys(e.Inline))...), nil
}

func (h *iamHandlers) listUserPolicies(ctx context.Context, _ Caller, in *iamapi.ListUserPoliciesInput) (*iamapi.ListUserPoliciesOutput, error) {
	names, err := h.inlineNames(ctx, access.User, *in.UserName)
	if err != nil {
		return nil, err
	}
	out := &iamapi.ListUserPoliciesOutput{}
	out.PolicyNames, out.IsTruncated, out.Marker, err = iamPage(names, self, in.Marker, in.MaxItems)
	return out, err
}

func (h *iamHandlers) deleteUserPolicy(ctx context.Context, _ Caller, in *iamapi.DeleteUserPolicyInput) (*iamapi.DeleteUserPolicyOutput, error) {
	return nil, h.access.DeleteInline(ctx, access.User, *in.UserName, *in.PolicyName)
}

func (h *iamHandlers) attachUserPolicy(ctx context.Context, _ Caller, in *iamapi.AttachUserPolicyInput) (*iamapi.AttachUserPolicyOutput, error) {
	return nil, h.access.Attach(ctx, access.User, *in.UserName, *in.PolicyArn)
}

func (h *iamHandlers) detachUserPolicy(ctx context.Context, _ Caller, in *iamapi.DetachUserPolicyInput) (*iamapi.DetachUserPolicyOutput, error) {
	return nil, h.access.Detach(ctx, access.User, *in.UserName, *in.PolicyArn)
}

// attached lists the managed policies of an entity in order of their ARNs.
func (h *iamHandlers) attached(ctx context.Context, k access.Kind, name string, prefix *string) ([]iamapi.AttachedPolicy, error) {
	e, err := h.access.Get(ctx, k, name)
	if err != nil {
		return nil, err
	}
	out := []iamapi.AttachedPolicy{}
	for _, arn := range slices.Sorted(slices.Values(e.Attached)) {
		_, path, _ := strings.Cut(arn, ":policy")
		i := strings.LastIndexByte(path, '/')
		if prefix == nil || strings.HasPrefix(path[:i+1], *prefix) {
			out = append(out, iamapi.AttachedPolicy{PolicyName: new(path[i+1:]), PolicyArn: new(arn)})
		}
	}
	return out, nil
}

func attachedARN(p iamapi.AttachedPolicy) string { return *p.PolicyArn }

func (h *iamHandlers) listAttachedUserPolicies(ctx context.Context, _ Caller, in *iamapi.ListAttachedUserPoliciesInput) (*iamapi.ListAttachedUserPoliciesOutput, error) {
	list, err := h.attached(ctx, access.User, *in.UserName, in.PathPrefix)
	if err != nil {
		return nil, err
	}
	out := &iamapi.ListAttachedUserPoliciesOutput{}
	out.AttachedPolicies, out.IsTruncated, out.Marker, err = iamPage(list, attachedARN, in.Marker, in.MaxItems)
	return out, err
}

func (h *iamHandlers) listGroupsForUser(ctx context.Context, _ Caller, in *iamapi.ListGroupsForUserInput) (*iamapi.ListGroupsForUserOutput, error) {
	_, err := h.access.Get(ctx, access.User, *in.UserName)
	return &iamapi.ListGroupsForUserOutput{Groups: []iamapi.Group{}, IsTruncated: new(false)}, err
}

func (h *iamHandlers) createAccessKey(ctx context.Context, c Caller, in *iamapi.CreateAccessKeyInput) (*iamapi.CreateAccessKeyOutput, error) {
	user, err := h.userOf(c, in.UserName)
	if err != nil {
		return nil, err
	}
	k, secret, err := h.access.CreateKey(ctx, user)
	if err != nil {
		return nil, err
	}
	return &iamapi.CreateAccessKeyOutput{AccessKey: &iamapi.AccessKey{
		UserName: new(k.User), AccessKeyId: new(k.ID), Status: new(iamapi.StatusTypeActive), SecretAccessKey: new(secret), CreateDate: new(k.Created),
	}}, nil
}

func (h *iamHandlers) listAccessKeys(ctx context.Context, c Caller, in *iamapi.ListAccessKeysInput) (*iamapi.ListAccessKeysOutput, error) {
	user, err := h.userOf(c, in.UserName)
	if err != nil {
		return nil, err
	}
	list, err := h.access.Keys(ctx, user)
	if err != nil {
		return nil, err
	}
	out := &iamapi.ListAccessKeysOutput{AccessKeyMetadata: []iamapi.AccessKeyMetadata{}}
	list, out.IsTruncated, out.Marker, err = iamPage(list, func(k *access.Key) string { return k.ID }, in.Marker, in.MaxItems)
	for _, k := range list {
		status := iamapi.StatusTypeActive
		if k.Inactive {
			status = iamapi.StatusTypeInactive
		}
		out.AccessKeyMetadata = append(out.AccessKeyMetadata, iamapi.AccessKeyMetadata{
			UserName: new(k.User), AccessKeyId: new(k.ID), Status: new(status), CreateDate: new(k.Created),
		})
	}
	return out, err
}

func (h *iamHandlers) updateAccessKey(ctx context.Context, c Caller, in *iamapi.UpdateAccessKeyInput) (*iamapi.UpdateAccessKeyOutput, error) {
	user, err := h.userOf(c, in.UserName)
	if err != nil {
		return nil, err
	}
	if *in.Status == iamapi.StatusTypeExpired {
		return nil, fault.New(fault.Invalid, "", "", "The status of an access key is Active or Inactive.")
	}
	return nil, h.access.SetKeyActive(ctx, user, *in.AccessKeyId, *in.Status == iamapi.StatusTypeActive)
}

func (h *iamHandlers) deleteAccessKey(ctx context.Context, c Caller, in *iamapi.DeleteAccessKeyInput) (*iamapi.DeleteAccessKeyOutput, error) {
	user, err := h.userOf(c, in.UserName)
	if err != nil {
		return nil, err
	}
	return nil, h.access.DeleteKey(ctx, user, *in.AccessKeyId)
}

func (h *iamHandlers) getAccessKeyLastUsed(ctx context.Context, _ Caller, in *iamapi.GetAccessKeyLastUsedInput) (*iamapi.GetAccessKeyLastUsedOutput, error) {
	u, err := h.access.KeyLastUsed(ctx, *in.AccessKeyId)
	if err != nil {
		return nil, err
	}
	used := &iamapi.AccessKeyLastUsed{ServiceName: new("N/A"), Region: new("N/A")}
	if !u.At.IsZero() {
		used = &iamapi.AccessKeyLastUsed{LastUsedDate: new(u.At), ServiceName: new(u.Service), Region: new(u.Region)}
	}
	return &iamapi.GetAccessKeyLastUsedOutput{UserName: new(u.User), AccessKeyLastUsed: used}, nil
}

func (h *iamHandlers) getLoginProfile(ctx context.Context, c Caller, in *iamapi.GetLoginProfileInput) (*iamapi.GetLoginProfileOutput, error) {
	return nil, h.noLogin(ctx, c, in.UserName)
}

func (h *iamHandlers) deleteLoginProfile(ctx context.Context, c Caller, in *iamapi.DeleteLoginProfileInput) (*iamapi.DeleteLoginProfileOutput, error) {
	return nil, h.noLogin(ctx, c, in.UserName)
}

// noLogin says that a user has no password: users of the API sign with keys.
func (h *iamHandlers) noLogin(ctx context.Context, c Caller, user *string) error {
	name, err := h.userOf(c, user)
	if err != nil {
		return err
	}
	if _, err := h.access.Get(ctx, access.User, name); err != nil {
		return err
	}
	return fault.Newf(fault.NotFound, "", "", "Login Profile for User %s cannot be found.", name)
}

func (h *iamHandlers) createRole(ctx context.Context, _ Caller, in *iamapi.CreateRoleInput) (*iamapi.CreateRoleOutput, error) {
	e, err := h.access.Create(ctx, access.Entity{
		Kind: access.Role, Name: *in.RoleName, Path: deref(in.Path), Tags: tagMap(in.Tags), Boundary: deref(in.PermissionsBoundary),
		Trust: *in.AssumeRolePolicyDocument, Description: deref(in.Description), MaxSession: time.Duration(deref(in.MaxSessionDuration)) * time.Second,
	})
	if err != nil {
		return nil, err
	}
	return &iamapi.CreateRoleOutput{Role: h.roleShape(e)}, nil
}

func (h *iamHandlers) getRole(ctx context.Context, _ Caller, in *iamapi.GetRoleInput) (*iamapi.GetRoleOutput, error) {
	e, err := h.access.Get(ctx, access.Role, *in.RoleName)
	if err != nil {
		return nil, err
	}
	return &iamapi.GetRoleOutput{Role: h.roleShape(e)}, nil
}

func (h *iamHandlers) listRoles(ctx context.Context, _ Caller, in *iamapi.ListRolesInput) (*iamapi.ListRolesOutput, error) {
	all, err := h.access.List(ctx, access.Role, deref(in.PathPrefix))
	if err != nil {
		return nil, err
	}
	out := &iamapi.ListRolesOutput{Roles: []iamapi.Role{}}
	all, out.IsTruncated, out.Marker, err = iamPage(all, lowerName, in.Marker, in.MaxItems)
	for _, e := range all {
		r := h.roleShape(e)
		r.Tags, r.PermissionsBoundary = nil, nil
		out.Roles = append(out.Roles, *r)
	}
	return out, err
}

func (h *iamHandlers) updateRole(ctx context.Context, _ Caller, in *iamapi.UpdateRoleInput) (*iamapi.UpdateRoleOutput, error) {
	_, err := h.access.Change(ctx, access.Role, *in.RoleName, func(e *access.Entity) error {
		if in.Description != nil {
			e.Description = *in.Description
		}
		if in.MaxSessionDuration != nil {
			e.MaxSession = time.Duration(*in.MaxSessionDuration) * time.Second
		}
		return nil
	})
	return nil, err
}

func (h *iamHandlers) updateRoleDescription(ctx context.Context, _ Caller, in *iamapi.UpdateRoleDescriptionInput) (*iamapi.UpdateRoleDescriptionOutput, error) {
	e, err := h.access.Change(ctx, access.Role, *in.RoleName, func(e *access.Entity) error {
		e.Description = *in.Description
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &iamapi.UpdateRoleDescriptionOutput{Role: h.roleShape(e)}, nil
}

func (h *iamHandlers) updateAssumeRolePolicy(ctx context.Context, _ Caller, in *iamapi.UpdateAssumeRolePolicyInput) (*iamapi.UpdateAssumeRolePolicyOutput, error) {
	return nil, h.access.SetTrust(ctx, *in.RoleName, *in.PolicyDocument)
}

func (h *iamHandlers) deleteRole(ctx context.Context, _ Caller, in *iamapi.DeleteRoleInput) (*iamapi.DeleteRoleOutput, error) {
	return nil, h.access.Delete(ctx, access.Role, *in.RoleName)
}

func (h *iamHandlers) tagRole(ctx context.Context, _ Caller, in *iamapi.TagRoleInput) (*iamapi.TagRoleOutput, error) {
	return nil, h.access.Tag(ctx, access.Role, *in.RoleName, tagMap(in.Tags), nil)
}

func (h *iamHandlers) untagRole(ctx context.Context, _ Caller, in *iamapi.UntagRoleInput) (*iamapi.UntagRoleOutput, error) {
	return nil, h.access.Tag(ctx, access.Role, *in.RoleName, nil, in.TagKeys)
}

func (h *iamHandlers) listRoleTags(ctx context.Context, _ Caller, in *iamapi.ListRoleTagsInput) (*iamapi.ListRoleTagsOutput, error) {
	tags, err := h.tags(ctx, access.Role, *in.RoleName)
	return &iamapi.ListRoleTagsOutput{Tags: tags, IsTruncated: new(false)}, err
}

func (h *iamHandlers) putRolePolicy(ctx context.Context, _ Caller, in *iamapi.PutRolePolicyInput) (*iamapi.PutRolePolicyOutput, error) {
	return nil, h.access.PutInline(ctx, access.Role, *in.RoleName, *in.PolicyName, *in.PolicyDocument)
}

func (h *iamHandlers) getRolePolicy(ctx context.Context, _ Caller, in *iamapi.GetRolePolicyInput) (*iamapi.GetRolePolicyOutput, error) {
	d, err := h.access.Inline(ctx, access.Role, *in.RoleName, *in.PolicyName)
	return &iamapi.GetRolePolicyOutput{RoleName: in.RoleName, PolicyName: in.PolicyName, PolicyDocument: new(encodeDocument(d))}, err
}

func (h *iamHandlers) listRolePolicies(ctx context.Context, _ Caller, in *iamapi.ListRolePoliciesInput) (*iamapi.ListRolePoliciesOutput, error) {
	names, err := h.inlineNames(ctx, access.Role, *in.RoleName)
	if err != nil {
		return nil, err
	}
	out := &iamapi.ListRolePoliciesOutput{}
	out.PolicyNames, out.IsTruncated, out.Marker, err = iamPage(names, self, in.Marker, in.MaxItems)
	return out, err
}

func (h *iamHandlers) deleteRolePolicy(ctx context.Context, _ Caller, in *iamapi.DeleteRolePolicyInput) (*iamapi.DeleteRolePolicyOutput, error) {
	return nil, h.access.DeleteInline(ctx, access.Role, *in.RoleName, *in.PolicyName)
}

func (h *iamHandlers) attachRolePolicy(ctx context.Context, _ Caller, in *iamapi.AttachRolePolicyInput) (*iamapi.AttachRolePolicyOutput, error) {
	return nil, h.access.Attach(ctx, access.Role, *in.RoleName, *in.PolicyArn)
}

func (h *iamHandlers) detachRolePolicy(ctx context.Context, _ Caller, in *iamapi.DetachRolePolicyInput) (*iamapi.DetachRolePolicyOutput, error) {
	return nil, h.access.Detach(ctx, access.Role, *in.RoleName, *in.PolicyArn)
}

func (h *iamHandlers) listAttachedRolePolicies(ctx context.Context, _ Caller, in *iamapi.ListAttachedRolePoliciesInput) (*iamapi.ListAttachedRolePoliciesOutput, error) {
	list, err := h.attached(ctx, access.Role, *in.RoleName, in.PathPrefix)
	if err != nil {
		return nil, err
	}
	out := &iamapi.ListAttachedRolePoliciesOutput{}
	out.AttachedPolicies, out.IsTruncated, out.Marker, err = iamPage(list, attachedARN, in.Marker, in.MaxItems)
	return out, err
}

func (h *iamHandlers) putRoleBoundary(ctx context.Context, _ Caller, in *iamapi.PutRolePermissionsBoundaryInput) (*iamapi.PutRolePermissionsBoundaryOutput, error) {
	return nil, h.access.SetBoundary(ctx, access.Role, *in.RoleName, *in.PermissionsBoundary)
}

func (h *iamHandlers) deleteRoleBoundary(ctx context.Context, _ Caller, in *iamapi.DeleteRolePermissionsBoundaryInput) (*iamapi.DeleteRolePermissionsBoundaryOutput, error) {
	return nil, h.access.SetBoundary(ctx, access.Role, *in.RoleName, "")
}

func (h *iamHandlers) listInstanceProfilesForRole(ctx context.Context, _ Caller, in *iamapi.ListInstanceProfilesForRoleInput) (*iamapi.ListInstanceProfilesForRoleOutput, error) {
	_, err := h.access.Get(ctx, access.Role, *in.RoleName)
	return &iamapi.ListInstanceProfilesForRoleOutput{InstanceProfiles: []iamapi.InstanceProfile{}, IsTruncated: new(false)}, err
}

func (h *iamHandlers) createServiceLinkedRole(ctx context.Context, _ Caller, in *iamapi.CreateServiceLinkedRoleInput) (*iamapi.CreateServiceLinkedRoleOutput, error) {
	e, err := h.access.CreateServiceLinked(ctx, *in.AWSServiceName, deref(in.Description), deref(in.CustomSuffix))
	if err != nil {
		return nil, err
	}
	return &iamapi.CreateServiceLinkedRoleOutput{Role: h.roleShape(e)}, nil
}

func (h *iamHandlers) deleteServiceLinkedRole(ctx context.Context, _ Caller, in *iamapi.DeleteServiceLinkedRoleInput) (*iamapi.DeleteServiceLinkedRoleOutput, error) {
	task, err := h.access.DeleteServiceLinked(ctx, *in.RoleName)
	return &iamapi.DeleteServiceLinkedRoleOutput{DeletionTaskId: new(task)}, err
}

func (h *iamHandlers) getServiceLinkedRoleDeletionStatus(ctx context.Context, _ Caller, in *iamapi.GetServiceLinkedRoleDeletionStatusInput) (*iamapi.GetServiceLinkedRoleDeletionStatusOutput, error) {
	err := h.access.ServiceLinkedDeleted(ctx, *in.DeletionTaskId)
	return &iamapi.GetServiceLinkedRoleDeletionStatusOutput{Status: new(iamapi.DeletionTaskStatusTypeSucceeded)}, err
}

// getAccountSummary counts what there is; what nobody can have here is 0.
func (h *iamHandlers) getAccountSummary(ctx context.Context, _ Caller, _ *iamapi.GetAccountSummaryInput) (*iamapi.GetAccountSummaryOutput, error) {
	n, err := h.access.Summarize(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]int32{}
	for _, k := range iamapi.EnumValues("SummaryKeyType") {
		out[k] = 0
	}
	maps.Copy(out, access.Quotas())
	for k, v := range map[string]int{"Users": n.Users, "Roles": n.Roles, "Policies": n.Policies, "PolicyVersionsInUse": n.Versions, "GlobalEndpointTokenVersion": 2} {
		out[k] = *count(v)
	}
	if h.access.RootKey() {
		out["AccountAccessKeysPresent"] = 1
	}
	return &iamapi.GetAccountSummaryOutput{SummaryMap: out}, nil
}
