package appstream

import (
	"slices"
	"strings"
	"time"

	"penstock.dev/penstock/internal/state"
)

// What an entitlement shows (AppVisibility).
const (
	AllApplications        = "ALL"
	AssociatedApplications = "ASSOCIATED"
)

// EntitlementAttributes are the names that an entitlement may ask for (CreateEntitlement: the supported SAML principal tags).
var EntitlementAttributes = []string{"roles", "department", "organization", "groups", "title", "costCenter", "userType"}

// Attribute is one value that an entitlement asks for.
type Attribute struct{ Name, Value string }

// Entitlement gives applications of a stack to the federated users who have its attributes.
type Entitlement struct {
	Name         string
	Stack        string
	Description  string `json:",omitempty"`
	Visibility   string // ALL, ASSOCIATED
	Attributes   []Attribute
	Applications []string `json:",omitempty"` // in order of association
	Created      time.Time
	Modified     time.Time
}

// Entitlements is the table of entitlements.
var Entitlements = state.Table[Entitlement]{
	Kind: "entitlement",
	ID:   func(e *Entitlement) string { return e.Stack + " " + e.Name },
	Keys: func(e *Entitlement) []state.Key { return []state.Key{{Name: "stack", Value: e.Stack}} },
}

// Matches reports whether a user with these attributes has every attribute that the entitlement names, each with one of the values
// that it names for it. An attribute's value may be several with colons between them, as SAML principal tags are.
func (e *Entitlement) Matches(attributes map[string][]string) bool {
	wanted := map[string][]string{}
	for _, a := range e.Attributes {
		wanted[a.Name] = append(wanted[a.Name], a.Value)
	}
	for name, values := range wanted {
		has := false
		for _, v := range attributes[name] {
			for one := range strings.SplitSeq(v, ":") {
				has = has || slices.Contains(values, one)
			}
			has = has || slices.Contains(values, v)
		}
		if !has {
			return false
		}
	}
	return len(wanted) > 0
}

// Entitled says which applications a federated user may start of a stack that has these entitlements: all of them, or the ones
// that are named. Without any entitlement a stack shows everything.
func Entitled(es []*Entitlement, attributes map[string][]string) (all bool, applications []string) {
	if len(es) == 0 {
		return true, nil
	}
	for _, e := range es {
		if !e.Matches(attributes) {
			continue
		}
		if e.Visibility == AllApplications {
			return true, nil
		}
		applications = append(applications, e.Applications...)
	}
	return false, applications
}
