package iam

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Request is one question to the policies: may Principal do Action to Resources?
type Request struct {
	Principal Principal
	Action    string   // "ec2:DescribeVpcEndpoints"
	Resources []string // ARNs; empty stands for every resource

	// What conditions and policy variables may ask for. Zero values are absent keys.
	SourceIP      string    // aws:SourceIp
	Time          time.Time // aws:CurrentTime and aws:EpochTime
	Region        string    // aws:RequestedRegion
	UserAgent     string    // aws:UserAgent
	Transport     Transport // aws:SecureTransport
	TokenIssued   time.Time // aws:TokenIssueTime, of temporary credentials
	PrincipalTags map[string]string
	// SourceIdentity is aws:SourceIdentity, of role sessions.
	SourceIdentity string
	Keys           map[string][]string // further keys, their names in lower case
}

// Transport is how a request came.
type Transport int

// The transports. The zero value is unknown, and the key is absent then.
const (
	UnknownTransport Transport = iota
	Plain
	Secure
)

// values are the values of a condition key, whose name is in lower case; false when the request has none.
func (r *Request) values(key string) ([]string, bool) {
	if v, ok := r.Keys[key]; ok && len(v) > 0 { // a key without a value counts as absent
		return v, true
	}
	one := func(v string) ([]string, bool) {
		if v == "" {
			return nil, false
		}
		return []string{v}, true
	}
	p := &r.Principal
	switch key {
	case "aws:username":
		if p.Kind == User {
			return one(p.Name)
		}
	case "aws:userid":
		return one(p.UserID())
	case "aws:principalarn":
		if p.Kind == RoleSession {
			return one(RoleARN(p.AccountID, p.Path, p.Name))
		}
		if p.Kind != Service {
			return one(p.ARN())
		}
	case "aws:principalaccount":
		return one(p.AccountID)
	case "aws:principaltype":
		switch p.Kind {
		case Root:
			return one("Account")
		case User:
			return one("User")
		case RoleSession:
			return one("AssumedRole")
		case Anonymous:
			return one("Anonymous")
		case Service, Federated:
		}
	case "aws:principalisawsservice":
		return one(strconv.FormatBool(p.Kind == Service))
	case "aws:principalservicename":
		if p.Kind == Service {
			return one(p.Name)
		}
	case "aws:sourceip":
		return one(r.SourceIP)
	case "aws:currenttime":
		if !r.Time.IsZero() {
			return one(r.Time.UTC().Format(time.RFC3339))
		}
	case "aws:epochtime":
		if !r.Time.IsZero() {
			return one(strconv.FormatInt(r.Time.Unix(), 10))
		}
	case "aws:tokenissuetime":
		if !r.TokenIssued.IsZero() {
			return one(r.TokenIssued.UTC().Format(time.RFC3339))
		}
	case "aws:multifactorauthpresent":
		if !r.TokenIssued.IsZero() {
			return one("false")
		}
	case "aws:sourceidentity":
		return one(r.SourceIdentity)
	case "aws:requestedregion":
		return one(r.Region)
	case "aws:useragent":
		return one(r.UserAgent)
	case "aws:securetransport":
		if r.Transport != UnknownTransport {
			return one(strconv.FormatBool(r.Transport == Secure))
		}
	}
	if tag, ok := strings.CutPrefix(key, "aws:principaltag/"); ok {
		var out []string // several, where tags differ in the case of their keys
		for k, v := range r.PrincipalTags {
			if LowerKey(k) == tag {
				out = append(out, v)
			}
		}
		slices.Sort(out)
		return out, len(out) > 0
	}
	return nil, false
}

// Layer is one of the sets of policies that all have to allow a request.
type Layer int

// The layers.
const (
	IdentityLayer Layer = iota
	BoundaryLayer
	SessionLayer
	TrustLayer
)

// Match is a statement that decided.
type Match struct {
	Layer     Layer
	Policy    *Policy // nil: none
	Statement int     // from 0
	Sid       string  // may be empty
	Line      int     // where the statement begins in its document, from 1
	Column    int
	End       Place // where it ends
}

// Place is a line and a column of a document, from 1.
type Place struct{ Line, Column int }

// Decision is the answer to a Request, with the reason that explains a denial.
type Decision struct {
	Allowed  bool
	Explicit bool   // a statement denied, and not the want of one that allows
	Match    Match  // the statement that denied or, where one did, that allowed
	Reason   string // one sentence in the words of AWS's denials, empty when allowed
}

// PolicySet is every policy that applies to one principal. It may be shared.
type PolicySet struct {
	Identity []*Policy
	Boundary *Policy // nil for none
	// Session policies apply when Limited; an empty list then allows nothing.
	Session []*Policy
	Limited bool
}

// Decide answers the request: a statement that denies wins, then every layer has to allow. Several resources have to be
// allowed one by one.
func (s *PolicySet) Decide(r *Request) Decision {
	if len(r.Resources) == 0 {
		return s.decide(r, "*")
	}
	var d Decision
	for _, resource := range r.Resources {
		if d = s.decide(r, resource); !d.Allowed {
			return d
		}
	}
	return d
}

func (s *PolicySet) decide(r *Request, resource string) Decision {
	identity, denied := scan(s.Identity, r, resource)
	if denied {
		return refusal(IdentityLayer, identity, r, resource)
	}
	var boundary, session Match
	if s.Boundary != nil {
		if boundary, denied = scan([]*Policy{s.Boundary}, r, resource); denied {
			return refusal(BoundaryLayer, boundary, r, resource)
		}
	}
	if s.Limited {
		if session, denied = scan(s.Session, r, resource); denied {
			return refusal(SessionLayer, session, r, resource)
		}
	}
	switch {
	case identity.Policy == nil:
		return refusal(IdentityLayer, identity, r, resource)
	case s.Boundary != nil && boundary.Policy == nil:
		return refusal(BoundaryLayer, boundary, r, resource)
	case s.Limited && session.Policy == nil:
		return refusal(SessionLayer, session, r, resource)
	}
	return Decision{Allowed: true, Match: identity}
}

// scan finds a statement that denies or, without one, the first that allows.
func scan(policies []*Policy, r *Request, resource string) (m Match, denied bool) {
	for _, p := range policies {
		for i := range p.statements {
			s := &p.statements[i]
			if s.allow && m.Policy != nil || !s.applies(r, resource) {
				continue
			}
			at := Match{Policy: p, Statement: i, Sid: s.sid, Line: s.start.line, Column: s.start.column, End: Place{s.end.line, s.end.column}}
			if !s.allow {
				return at, true
			}
			m = at
		}
	}
	return m, false
}

// applies reports whether the statement is about the request.
func (s *statement) applies(r *Request, resource string) bool {
	return s.hasAction(r.Action) != s.notAction && s.hasResource(r, resource) != s.notResource && s.conditionsMet(r)
}

func (s *statement) hasAction(action string) bool {
	for _, a := range s.actions {
		if matchPattern(a, action, true) {
			return true
		}
	}
	return false
}

func (s *statement) hasResource(r *Request, resource string) bool {
	for i := range s.resources {
		if p, ok := s.resources[i].resolve(r); ok && matchPattern(p, resource, false) {
			return true
		}
	}
	return false
}

func (s *statement) conditionsMet(r *Request) bool {
	for i := range s.conditions {
		if !s.conditions[i].met(r) {
			return false
		}
	}
	return true
}

// layerNames are the words of denials: what lacks a statement, and what has one that denies.
func (l Layer) names() (none, deny string) {
	switch l {
	case BoundaryLayer:
		return "no permissions boundary", "a permissions boundary"
	case SessionLayer:
		return "no session policy", "a session policy"
	case TrustLayer:
		return "no resource-based policy", "a resource-based policy"
	case IdentityLayer:
	}
	return "no identity-based policy", "an identity-based policy"
}

func refusal(l Layer, m Match, r *Request, resource string) Decision {
	m.Layer = l
	who := r.Principal.ARN()
	if who == "" {
		who = "anonymous"
	}
	none, deny := l.names()
	why := "because " + none + " allows the " + r.Action + " action"
	if m.Policy != nil {
		why = "with an explicit deny in " + deny
		if m.Policy.ARN != "" {
			why += ": " + m.Policy.ARN
		}
	}
	return Decision{
		Explicit: m.Policy != nil, Match: m,
		Reason: fmt.Sprintf("User: %s is not authorized to perform: %s on resource: %s %s", who, r.Action, resource, why),
	}
}

// Trust is what a role's trust policy says about a request to assume it.
type Trust struct {
	Denied  bool
	Named   bool // it allows this very principal, which needs no policy of its own then
	Account bool // it allows the principal's account, whose own policies decide then
}

// Trusts asks a trust policy about a principal.
func (p *Policy) Trusts(r *Request) Trust {
	var t Trust
	for i := range p.statements {
		s := &p.statements[i]
		if s.hasAction(r.Action) == s.notAction {
			continue
		}
		named, account := s.principals.has(&r.Principal)
		if s.notPrincipal {
			named, account = false, !named && !account
		}
		if !named && !account || !s.conditionsMet(r) {
			continue
		}
		if !s.allow {
			t.Denied = true
			continue
		}
		t.Named, t.Account = t.Named || named, t.Account || account
	}
	return t
}

func (p *principals) has(who *Principal) (named, account bool) {
	if who.Kind == Anonymous {
		return p.anyone, false
	}
	if p.anyone {
		return true, false
	}
	if who.Kind == Federated {
		return slices.Contains(p.federated, who.Name), false
	}
	if who.Kind == Service {
		return slices.Contains(p.services, who.Name), false
	}
	arn, role := who.ARN(), ""
	if who.Kind == RoleSession {
		role = RoleARN(who.AccountID, who.Path, who.Name)
	}
	for _, a := range p.aws {
		switch a {
		case "*", role:
			named = true
		case who.AccountID, RootOf(who.AccountID).ARN():
			account = true
		}
		named = named || a == arn && who.Kind != Root
	}
	return named, account
}

// AccountOwner decides for an account without policies: its root principal may do everything, nobody else anything.
type AccountOwner struct {
	AccountID string
}

// Owns reports whether p is the account's root, whom no policy limits.
func (a AccountOwner) Owns(p Principal) bool {
	return p.Kind == Root && a.AccountID != "" && p.AccountID == a.AccountID
}

// Authorize decides one request.
func (a AccountOwner) Authorize(r Request) Decision {
	if a.Owns(r.Principal) {
		return Decision{Allowed: true}
	}
	return new(PolicySet).Decide(&r)
}
