package appstream

import (
	"crypto/sha256"
	"encoding/hex"
	"time"

	"penstock.dev/penstock/internal/state"
)

// AuthType is how a user proved who they are, as in the API.
type AuthType string

// The authentication types that are served. Users of OpenID Connect count as SAML: the API's word for federated.
const (
	AuthAPI      AuthType = "API"      // by a streaming URL
	AuthSAML     AuthType = "SAML"     // by an identity provider
	AuthUserPool AuthType = "USERPOOL" // by a name and password kept here
)

// UserStatus is how far a user of the pool came, as in the API.
type UserStatus string

// The statuses that users reach here.
const (
	UserUnconfirmed UserStatus = "UNCONFIRMED" // has at most a temporary password
	UserConfirmed   UserStatus = "CONFIRMED"   // chose a password
)

// User is one user of the pool. The name is an e-mail address and case-sensitive; secrets are kept elsewhere.
type User struct {
	Name      string
	FirstName string `json:",omitempty"`
	LastName  string `json:",omitempty"`
	Enabled   bool
	Status    UserStatus
	Created   time.Time
}

// ID is what stands for the user in ARNs: names may hold what an ARN may not.
func (u *User) ID() string {
	sum := sha256.Sum256([]byte(u.Name))
	return "userpool/" + hex.EncodeToString(sum[:16])
}

// Users is the table of the pool's users.
var Users = state.Table[User]{
	Kind: "user",
	ID:   func(u *User) string { return u.Name },
}

// UserStack lets a user of the pool use a stack.
type UserStack struct{ UserName, StackName string }

// UserStacks is the table of these associations.
var UserStacks = state.Table[UserStack]{
	Kind: "user-stack",
	ID:   func(a *UserStack) string { return a.StackName + " " + a.UserName },
	Keys: func(a *UserStack) []state.Key {
		return []state.Key{{Name: "stack", Value: a.StackName}, {Name: "user", Value: a.UserName}}
	},
}

// Visitor is somebody who signed in at the portal, and what the sign-in is good for.
type Visitor struct {
	Auth     AuthType
	UserID   string
	Provider string `json:",omitempty"` // that vouches for a federated user

	// Stack and Fleet are the only ones of a streaming URL. Stack alone may come with a federated sign-in.
	Stack string `json:",omitempty"`
	Fleet string `json:",omitempty"`
	// Builder is the only thing that the streaming URL of a builder is good for.
	Builder BuilderID `json:",omitempty"`
	Made    time.Time `json:",omitzero"` // when the builder was
	// Stacks are those that the identity provider's users may use.
	Stacks      []string `json:",omitempty"`
	Application string   `json:",omitempty"` // starts at once, and is the only one
	Context     string   `json:",omitempty"` // SessionContext
	Resolution  string   `json:",omitempty"` // WIDTHxHEIGHT
	// Attributes are what the identity provider says of the user; entitlements ask for them.
	Attributes map[string][]string `json:",omitempty"`
	// Asserted is set where roles decide what the user may stream from.
	Asserted *Asserted `json:",omitempty"`
}

// Asserted is what a SAML assertion said for the policies of the roles that it named. They are asked again at each launch.
type Asserted struct {
	Roles          []string // ARNs of those that allowed a stack
	Provider       string   // ARN
	Session        string   // role session name
	Keys           map[string][]string
	Tags           map[string]string `json:",omitempty"`
	Transitive     []string          `json:",omitempty"`
	SourceIdentity string            `json:",omitempty"`
}

// Visitor is who opens a streaming URL with this grant.
func (g Grant) Visitor() Visitor {
	return Visitor{
		Auth: AuthAPI, UserID: g.UserID, Stack: g.Stack, Fleet: g.Fleet, Builder: g.Builder, Made: g.Made, Application: g.Application, Context: g.Context,
	}
}
