package access

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
)

// Asserted is what a SAML identity provider says of a user.
type Asserted struct {
	RoleARN, ProviderARN string
	Session              string // role session name
	UserID               string // condition key appstream:userId
	// Keys are saml:aud, saml:doc, saml:iss, saml:namequalifier, saml:sub and saml:sub_type.
	Keys           map[string][]string
	Tags           map[string]string // PrincipalTag attributes
	Transitive     []string          // keys of Tags that the sessions after this one inherit
	SourceIdentity string
}

// lastingKeys are those of Keys that stay with the role's session.
var lastingKeys = []string{"saml:namequalifier", "saml:sub", "saml:sub_type"}

// federatedProvider is the condition key of the provider's ARN.
const federatedProvider = "aws:federatedprovider"

// session is what an assertion leaves in the session of the role.
func (a *Asserted) session(issued time.Time) iam.Session {
	sn := iam.Session{Issued: issued, Tags: a.Tags, Transitive: a.Transitive, SourceIdentity: a.SourceIdentity, Keys: map[string][]string{federatedProvider: {a.ProviderARN}}}
	for _, k := range lastingKeys {
		if v := a.Keys[k]; len(v) > 0 {
			sn.Keys[k] = v
		}
	}
	return sn
}

// trusted finds the role when it exists and trusts the provider with this user. The error is fault.Denied.
func (s *Service) trusted(ctx context.Context, a *Asserted, q iam.Request) (*Entity, error) {
	role, err := s.Get(ctx, Role, a.RoleARN[strings.LastIndexByte(a.RoleARN, '/')+1:])
	switch {
	case fault.Is(err, fault.NotFound), err == nil && role.ARN(s.options.AccountID) != a.RoleARN:
		return nil, fault.Newf(fault.Denied, "", "", "role %s does not exist", a.RoleARN)
	case err != nil:
		return nil, err
	}
	trust, err := parse(iam.TrustPolicy, role.Trust)
	if err != nil {
		return nil, err
	}
	q.Principal = iam.Principal{Kind: iam.Federated, AccountID: s.options.AccountID, Name: a.ProviderARN}
	q.Resources, q.Keys = []string{a.RoleARN}, map[string][]string{"sts:rolesessionname": {a.Session}, federatedProvider: {a.ProviderARN}}
	maps.Copy(q.Keys, a.Keys)
	addTags(q.Keys, role.Tags, "aws:resourcetag/", "iam:resourcetag/")
	addTags(q.Keys, a.Tags, "aws:requesttag/")
	actions := []string{"sts:AssumeRoleWithSAML"}
	if len(a.Tags) > 0 {
		q.Keys["aws:tagkeys"] = slices.Sorted(maps.Keys(a.Tags))
		actions = append(actions, "sts:TagSession")
	}
	if len(a.Transitive) > 0 {
		q.Keys["sts:transitivetagkeys"] = a.Transitive
	}
	if a.SourceIdentity != "" {
		q.Keys["sts:sourceidentity"] = []string{a.SourceIdentity}
		actions = append(actions, "sts:SetSourceIdentity")
	}
	for _, action := range actions {
		q.Action = action
		if t := trust.Trusts(&q); t.Denied || !t.Named {
			return nil, fault.Newf(fault.Denied, "", "", "the trust policy of role %s does not allow %s to %s", a.RoleARN, action, a.ProviderARN)
		}
	}
	return role, nil
}

// longest is how long a session of a role may be.
func (e *Entity) longest() time.Duration {
	if e.MaxSession == 0 {
		return defaultRole
	}
	return e.MaxSession
}

// StreamsAs answers which of the stacks, by name, a user whom an identity provider vouches for may stream from, as AppStream decides it:
// the role's trust policy has to admit the provider for sts:AssumeRoleWithSAML (and sts:TagSession where there are tags), and the role's
// policies have to allow appstream:Stream on the stack. It answers, too, how long a session of the role may be. The error is fault.Denied
// when the role does not exist or does not trust.
func (s *Service) StreamsAs(ctx context.Context, a Asserted, stacks []string, r iam.Request) ([]string, time.Duration, error) {
	r.Time, r.Region = s.options.Now(), s.options.Region
	role, err := s.trusted(ctx, &a, r)
	if err != nil {
		return nil, 0, err
	}
	sn := a.session(r.Time)
	c := iam.Credential{
		Principal: iam.Principal{Kind: iam.RoleSession, AccountID: s.options.AccountID, Path: role.Path, Name: role.Name, ID: role.ID, Session: a.Session},
		Session:   &sn,
	}
	r.Action = "appstream:Stream"
	var out []string
	for _, stack := range stacks {
		r.Resources, r.Keys = []string{appstream.ARN(s.options.Region, s.options.AccountID, "stack", stack)}, map[string][]string{"appstream:userid": {a.UserID}}
		d, err := s.Authorize(ctx, c, r)
		if err != nil {
			return nil, 0, err
		}
		if d.Allowed {
			out = append(out, stack)
		}
	}
	return out, role.longest(), nil
}

// MayStream asks again, at a launch, whether one of the roles that an assertion named lets its user stream from a stack. The error is
// fault.Denied when none does.
func (s *Service) MayStream(ctx context.Context, v appstream.Visitor, stack string, r iam.Request) error {
	for _, role := range v.Asserted.Roles {
		a := Asserted{
			RoleARN: role, ProviderARN: v.Asserted.Provider, Session: v.Asserted.Session, UserID: v.UserID, Keys: v.Asserted.Keys, Tags: v.Asserted.Tags,
			Transitive: v.Asserted.Transitive, SourceIdentity: v.Asserted.SourceIdentity,
		}
		stacks, _, err := s.StreamsAs(ctx, a, []string{stack}, r)
		switch {
		case fault.Is(err, fault.Denied):
		case err != nil:
			return err
		case len(stacks) > 0:
			return nil
		}
	}
	return fault.New(fault.Denied, "stack", stack, "no role of your sign-in lets you stream from it any more; sign in again")
}

// SAML is an assertion that was verified, as a caller of AssumeRoleWithSAML brings it.
type SAML struct {
	Asserted
	Roles       []string // that the assertion offers with this provider
	Issuer      string
	Audience    string    // the address that the assertion is for
	Subject     string    // NameID
	SubjectType string    // its format
	Qualifier   string    // saml:namequalifier
	Until       time.Time // end of the provider's own session; zero: not said
	ID          string    // used up by it
	OnceUntil   time.Time
}

// AssumeRoleWithSAML makes temporary credentials of a role for whom an identity provider vouches. Nobody signs the request: the assertion,
// which the caller verified, is the proof. What is wrong with the role is told in the words of AWS, which do not say what.
func (s *Service) AssumeRoleWithSAML(ctx context.Context, saml *SAML, a Assume, r iam.Request) (iam.Credential, error) {
	none := iam.Credential{}
	saml.RoleARN = a.RoleARN
	a.Tags, a.Transitive, a.SourceIdentity, a.SessionName = saml.Tags, saml.Transitive, saml.SourceIdentity, saml.Session
	sn, err := s.sessionOf(ctx, a)
	if err != nil {
		return none, err
	}
	if PackedSize(a) > 100 {
		return none, fault.New(fault.Limit, "", "", "The session policies and tags are larger than a session token holds.").WithCode("PackedPolicyTooLarge")
	}
	if err := a.inherit(&sn, nil); err != nil {
		return none, err
	}
	refused := fault.New(fault.Denied, "", "", "Not authorized to perform sts:AssumeRoleWithSAML")
	if !slices.Contains(saml.Roles, a.RoleARN) {
		return none, refused
	}
	r.Time, r.Region = s.options.Now(), s.options.Region
	role, err := s.trusted(ctx, &saml.Asserted, r)
	switch {
	case fault.Is(err, fault.Denied):
		return none, refused
	case err != nil:
		return none, err
	}
	d := a.Duration
	switch {
	case d == 0:
		d = min(defaultRole, role.longest())
	case d > role.longest():
		return none, fault.New(fault.Invalid, "", "", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	if !saml.Until.IsZero() {
		d = min(d, saml.Until.Sub(s.now()))
	}
	sn.Keys = saml.session(s.now()).Keys
	p := iam.Principal{Kind: iam.RoleSession, AccountID: s.options.AccountID, Path: role.Path, Name: role.Name, ID: role.ID, Session: a.SessionName}
	return s.issue(p, sn, d)
}
