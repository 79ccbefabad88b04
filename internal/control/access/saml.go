package access

import (
	"context"
	"maps"
	"strings"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
)

// Asserted is what a SAML identity provider says of a user who comes to stream.
type Asserted struct {
	RoleARN, ProviderARN string
	Session              string // role session name
	UserID               string // condition key appstream:userId
	// Keys are saml:aud, saml:iss, saml:sub and saml:sub_type.
	Keys map[string][]string
	Tags map[string]string // PrincipalTag attributes
}

// StreamsAs answers which of the stacks, by name, a user whom an identity provider vouches for may stream from, as AppStream decides it:
// the role's trust policy has to admit the provider for sts:AssumeRoleWithSAML (and sts:TagSession where there are tags), and the role's
// policies have to allow appstream:Stream on the stack. The error is fault.Denied when the role does not exist or does not trust.
func (s *Service) StreamsAs(ctx context.Context, a Asserted, stacks []string, r iam.Request) ([]string, error) {
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
	r.Time, r.Region = s.options.Now(), s.options.Region
	actions := []string{"sts:AssumeRoleWithSAML"}
	q := r
	q.Principal = iam.Principal{Kind: iam.Federated, AccountID: s.options.AccountID, Name: a.ProviderARN}
	q.Resources, q.Keys = []string{a.RoleARN}, map[string][]string{"sts:rolesessionname": {a.Session}}
	maps.Copy(q.Keys, a.Keys)
	for k, v := range a.Tags {
		q.Keys["aws:requesttag/"+iam.LowerKey(k)] = []string{v}
		q.Keys["aws:tagkeys"] = append(q.Keys["aws:tagkeys"], k)
	}
	if len(a.Tags) > 0 {
		actions = append(actions, "sts:TagSession")
	}
	for _, action := range actions {
		q.Action = action
		if t := trust.Trusts(&q); t.Denied || !t.Named {
			return nil, fault.Newf(fault.Denied, "", "", "the trust policy of role %s does not allow %s to %s", a.RoleARN, action, a.ProviderARN)
		}
	}
	c := iam.Credential{
		Principal: iam.Principal{Kind: iam.RoleSession, AccountID: s.options.AccountID, Path: role.Path, Name: role.Name, ID: role.ID, Session: a.Session},
		Session:   &iam.Session{Issued: r.Time, Tags: a.Tags},
	}
	r.Action, r.Keys = "appstream:Stream", map[string][]string{"appstream:userid": {a.UserID}}
	for _, k := range []string{"saml:sub", "saml:sub_type"} { // those that stay with the session
		if v := a.Keys[k]; len(v) > 0 {
			r.Keys[k] = v
		}
	}
	var out []string
	for _, stack := range stacks {
		r.Resources = []string{appstream.ARN(s.options.Region, s.options.AccountID, "stack", stack)}
		d, err := s.Authorize(ctx, c, r)
		if err != nil {
			return nil, err
		}
		if d.Allowed {
			out = append(out, stack)
		}
	}
	return out, nil
}
