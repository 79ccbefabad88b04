package apiserver

import (
	"context"
	"net/url"
	"strings"
	"time"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/wire/iamapi"
)

// roles are the roles of an account whose identities are fixed. A role that does not exist is a fault of kind NotFound.
type roles interface {
	Role(ctx context.Context, name string) (iam.Role, error)
	Roles(ctx context.Context) ([]iam.Role, error)
}

// iamOperations lists the IAM operations that this server answers.
func (s *Server) iamOperations() []operation {
	if s.options.Access != nil {
		return (&iamHandlers{access: s.options.Access, account: s.options.AccountID}).operations()
	}
	return []operation{
		iamOp("GetUser", s.getUser),
		iamOp("ListUsers", s.listUsers),
		iamOp("GetRole", s.getRole),
		iamOp("ListRoles", s.listRoles),
	}
}

// getUser without a name describes the caller. AWS answers the account's root with the account as its user ID.
func (s *Server) getUser(_ context.Context, c Caller, in *iamapi.GetUserInput) (*iamapi.GetUserOutput, error) {
	if in.UserName != nil {
		return nil, fault.Newf(fault.NotFound, "", "", "The user with name %s cannot be found.", *in.UserName)
	}
	p := c.Principal
	switch p.Kind {
	case iam.Root:
		return &iamapi.GetUserOutput{User: &iamapi.User{
			UserId: new(p.UserID()), Arn: new(p.ARN()), CreateDate: new(time.Unix(0, 0).UTC()),
		}}, nil
	case iam.User:
		return &iamapi.GetUserOutput{User: &iamapi.User{
			UserName: new(p.Name), UserId: new(p.UserID()), Arn: new(p.ARN()), CreateDate: new(time.Unix(0, 0).UTC()),
			Path: new(pathOrRoot(p.Path)),
		}}, nil
	case iam.Anonymous, iam.RoleSession, iam.Service, iam.Federated:
	}
	return nil, fault.New(fault.Invalid, "", "", "Must specify userName when calling with non-User credentials")
}

// listUsers answers an empty list: an account has no IAM users yet.
func (s *Server) listUsers(context.Context, Caller, *iamapi.ListUsersInput) (*iamapi.ListUsersOutput, error) {
	return &iamapi.ListUsersOutput{Users: []iamapi.User{}, IsTruncated: new(false)}, nil
}

func (s *Server) getRole(ctx context.Context, _ Caller, in *iamapi.GetRoleInput) (*iamapi.GetRoleOutput, error) {
	if s.options.Roles == nil {
		return nil, fault.Newf(fault.NotFound, "", "", "The role with name %s cannot be found.", *in.RoleName)
	}
	r, err := s.options.Roles.Role(ctx, *in.RoleName)
	if err != nil {
		return nil, err
	}
	out := roleShape(r)
	return &iamapi.GetRoleOutput{Role: &out}, nil
}

func (s *Server) listRoles(ctx context.Context, _ Caller, in *iamapi.ListRolesInput) (*iamapi.ListRolesOutput, error) {
	out := &iamapi.ListRolesOutput{Roles: []iamapi.Role{}, IsTruncated: new(false)}
	if s.options.Roles == nil {
		return out, nil
	}
	all, err := s.options.Roles.Roles(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		if in.PathPrefix == nil || strings.HasPrefix(pathOrRoot(r.Path), *in.PathPrefix) {
			out.Roles = append(out.Roles, roleShape(r))
		}
	}
	return out, nil
}

// roleShape is a role on the wire; IAM answers policies URL-encoded.
func roleShape(r iam.Role) iamapi.Role {
	session := r.MaxSession
	if session == 0 {
		session = time.Hour
	}
	out := iamapi.Role{
		Path: new(pathOrRoot(r.Path)), RoleName: new(r.Name), RoleId: new(r.ID), Arn: new(r.ARN()), CreateDate: new(r.Created),
		AssumeRolePolicyDocument: new(encodeDocument(r.TrustPolicy)),
		MaxSessionDuration:       new(int32(session / time.Second)),
	}
	if r.Description != "" {
		out.Description = new(r.Description)
	}
	return out
}

// encodeDocument writes a policy document as IAM's answers carry it (RFC 3986).
func encodeDocument(document string) string {
	return strings.ReplaceAll(url.QueryEscape(document), "+", "%20")
}

func pathOrRoot(path string) string {
	if path == "" {
		return "/"
	}
	return path
}
