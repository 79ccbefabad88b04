// Package iam says who a caller is and what that caller may do.
//
// It holds values and rules: no I/O and no clock. Principals are values and may be copied and compared.
package iam

import (
	"time"
)

// PrincipalKind is how a principal came to be.
type PrincipalKind int

// The kinds of principals.
const (
	// Anonymous is nobody: the zero Principal.
	Anonymous PrincipalKind = iota
	// Root is the account itself.
	Root
	// User is an IAM user.
	User
	// RoleSession is a role that someone assumed.
	RoleSession
	// Federated is an identity provider that vouches for somebody. Its name is its ARN.
	Federated
	// Service is a part of the product that acts in its own name, such as appstream.amazonaws.com.
	Service
)

// Principal is one caller. The zero value is nobody and may do nothing.
type Principal struct {
	Kind      PrincipalKind
	AccountID string // 12 digits
	Path      string // of the user or role, "/" when empty
	Name      string // user name, role name or service name
	Session   string // role session name
	ID        string // unique ID of the user (AIDA…) or role (AROA…); the account for root
}

// RootOf is the root principal of an account.
func RootOf(accountID string) Principal {
	return Principal{Kind: Root, AccountID: accountID, ID: accountID}
}

// ARN is the principal's name in policies and answers; empty for nobody.
// A role session is named as STS names it: arn:aws:sts::ACCOUNT:assumed-role/ROLE/SESSION.
func (p Principal) ARN() string {
	switch p.Kind {
	case Root:
		return "arn:aws:iam::" + p.AccountID + ":root"
	case User:
		return UserARN(p.AccountID, p.Path, p.Name)
	case RoleSession:
		return "arn:aws:sts::" + p.AccountID + ":assumed-role/" + p.Name + "/" + p.Session
	case Service, Federated:
		return p.Name
	case Anonymous:
	}
	return ""
}

// UserID is the identifier that STS answers and policies call aws:userid.
func (p Principal) UserID() string {
	if p.Kind == RoleSession {
		return p.ID + ":" + p.Session
	}
	return p.ID
}

// UserARN is the ARN of an IAM user; path "" stands for "/".
func UserARN(accountID, path, name string) string {
	return "arn:aws:iam::" + accountID + ":user" + slashed(path) + name
}

// RoleARN is the ARN of an IAM role; path "" stands for "/".
func RoleARN(accountID, path, name string) string {
	return "arn:aws:iam::" + accountID + ":role" + slashed(path) + name
}

func slashed(path string) string {
	if path == "" {
		return "/"
	}
	return path
}

// Credential is an access key and the principal that signs with it.
type Credential struct {
	AccessKeyID  string // AKIA… (long-lived) or ASIA… (temporary)
	Secret       string
	SessionToken string    // required from the caller when not empty
	Expires      time.Time // zero for never
	Inactive     bool      // switched off by its owner
	Principal    Principal
	Session      *Session // of temporary credentials; may be nil
}

// Session is what limits temporary credentials beside their principal's policies.
type Session struct {
	Issued     time.Time
	Limited    bool     // session policies were given, and have to allow as well
	Policies   []string // documents
	PolicyARNs []string // of managed policies
	Chained    bool     // a role assumed by a role

	Tags           map[string]string `json:",omitempty"` // session tags: they stand before the principal's own
	Transitive     []string          `json:",omitempty"` // keys of Tags that sessions made from this one inherit
	SourceIdentity string            `json:",omitempty"` // whom the first in the chain named, for all that follow
	// Keys are condition keys that stay with a federated session: the provider's ARN and the user whom it named.
	Keys map[string][]string `json:",omitempty"`
}

// String names the key and never its secret.
func (c Credential) String() string { return "credential " + c.AccessKeyID }

// GoString is String, so that %#v does not show the secret either.
func (c Credential) GoString() string { return c.String() }
