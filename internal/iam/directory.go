package iam

import (
	"context"
	"time"

	"penstock.dev/penstock/internal/fault"
)

// Role is an identity that principals and services assume.
type Role struct {
	AccountID   string
	Path        string // begins and ends with a slash; "" stands for "/"
	Name        string
	ID          string // AROA…
	Created     time.Time
	TrustPolicy string // JSON: who may assume it
	Description string
	MaxSession  time.Duration // 1 to 12 h; 0 for 1 h
}

// ARN is the role's name in policies and answers.
func (r Role) ARN() string { return RoleARN(r.AccountID, r.Path, r.Name) }

// ServiceAccessRoleName is the role that AppStream assumes to look at the network for its customer. It assumes it under the session
// name ServiceAccessSession.
const (
	ServiceAccessRoleName = "AmazonAppStreamServiceAccess"
	ServiceAccessSession  = "PhotonSession"
	AppStreamService      = "appstream.amazonaws.com"
)

// RoleProblem is why AppStream cannot do something as its service role.
type RoleProblem struct {
	Missing bool   // the role is absent, or cannot be assumed
	Action  string // that was to be done
	Reason  string // one sentence
}

// ServiceAccessRole is the role AmazonAppStreamServiceAccess as AppStream creates it at its first use in an account.
func ServiceAccessRole(accountID, id string, created time.Time) Role {
	return Role{
		AccountID: accountID,
		Path:      "/service-role/",
		Name:      ServiceAccessRoleName,
		ID:        id,
		Created:   created,
		TrustPolicy: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",` +
			`"Principal":{"Service":"` + AppStreamService + `"},"Action":"sts:AssumeRole"}]}`,
		MaxSession: time.Hour,
	}
}

// Directory is a fixed set of credentials and roles, for an account that has no others. It is immutable.
type Directory struct {
	credentials map[string]Credential
	roles       []Role
}

// NewDirectory makes a directory; of two credentials with one access key ID the later wins.
func NewDirectory(credentials []Credential, roles []Role) *Directory {
	d := &Directory{credentials: map[string]Credential{}, roles: roles}
	for _, c := range credentials {
		d.credentials[c.AccessKeyID] = c
	}
	return d
}

// Lookup finds a credential by its access key ID; NotFound when nobody has it.
func (d *Directory) Lookup(_ context.Context, accessKeyID string) (Credential, error) {
	c, ok := d.credentials[accessKeyID]
	if !ok {
		return Credential{}, fault.New(fault.NotFound, "access-key", accessKeyID, "there is no such access key")
	}
	return c, nil
}

// Role finds a role by its name; NotFound when there is none.
func (d *Directory) Role(_ context.Context, name string) (Role, error) {
	for _, r := range d.roles {
		if r.Name == name {
			return r, nil
		}
	}
	return Role{}, fault.Newf(fault.NotFound, "", "", "The role with name %s cannot be found.", name)
}

// Roles lists the roles in their order.
func (d *Directory) Roles(context.Context) ([]Role, error) { return d.roles, nil }
