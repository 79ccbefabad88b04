package access

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/state"
)

// A session token holds all of its credential, sealed and bound to the access key's ID: nothing is stored.
type token struct {
	Secret    string
	Expires   time.Time
	Principal iam.Principal
	Session   iam.Session
}

const (
	maxChained     = time.Hour
	defaultRole    = time.Hour
	defaultSession = 12 * time.Hour
	rootSession    = time.Hour // the longest of the account's root
	maxTokenBytes  = 64 << 10
	maxPolicyText  = 2048
	maxPacked      = 16 << 10 // bytes of session policies, their ARNs and tags
)

func (s *Service) issue(p iam.Principal, sn iam.Session, d time.Duration) (iam.Credential, error) {
	now := s.now()
	sn.Issued = now
	t := token{Secret: newSecret(), Expires: now.Add(d), Principal: p, Session: sn}
	b, err := json.Marshal(t)
	if err != nil {
		return iam.Credential{}, fmt.Errorf("encode session token: %w", err)
	}
	id := newID("ASIA")
	return iam.Credential{
		AccessKeyID: id, Secret: t.Secret, Expires: t.Expires, Principal: p, Session: &t.Session,
		SessionToken: base64.StdEncoding.EncodeToString(s.tokens.Seal(nil, nil, b, []byte(id))),
	}, nil
}

// Session finds the credential that a session token holds; NotFound for a token that is not ours, or whose principal is gone.
// A token that has expired is found, and says so.
func (s *Service) Session(ctx context.Context, accessKeyID, sessionToken string) (iam.Credential, error) {
	unknown := fault.New(fault.NotFound, "access-key", accessKeyID, "there is no such access key")
	if len(sessionToken) > maxTokenBytes {
		return iam.Credential{}, unknown
	}
	sealed, err := base64.StdEncoding.DecodeString(sessionToken)
	if err != nil {
		return iam.Credential{}, unknown
	}
	b, err := s.tokens.Open(nil, nil, sealed, []byte(accessKeyID))
	if err != nil {
		return iam.Credential{}, unknown
	}
	var t token
	if err := json.Unmarshal(b, &t); err != nil {
		return iam.Credential{}, fmt.Errorf("decode session token of %s: %w", accessKeyID, err)
	}
	if t.Principal.Kind == iam.Root {
		if _, since := s.rootNow(); !since.IsZero() && !t.Session.Issued.After(since) {
			return iam.Credential{}, unknown // of a root key that was replaced
		}
	} else {
		if _, _, err := s.policies(ctx, t.Principal); err != nil {
			if fault.Is(err, fault.NotFound) {
				return iam.Credential{}, unknown
			}
			return iam.Credential{}, err
		}
	}
	return iam.Credential{
		AccessKeyID: accessKeyID, Secret: t.Secret, SessionToken: sessionToken, Expires: t.Expires, Principal: t.Principal, Session: &t.Session,
	}, nil
}

// SessionToken makes temporary credentials of the caller; d is 0 for 12 h, or 1 h for the account's root.
func (s *Service) SessionToken(c iam.Credential, d time.Duration) (iam.Credential, error) {
	if c.SessionToken != "" {
		return iam.Credential{}, fault.New(fault.Denied, "", "", "Cannot call GetSessionToken with session credentials")
	}
	if d == 0 {
		d = defaultSession
	}
	if c.Principal.Kind == iam.Root {
		d = min(d, rootSession)
	}
	return s.issue(c.Principal, iam.Session{}, d)
}

// Assume is a request to assume a role.
type Assume struct {
	RoleARN     string
	SessionName string
	ExternalID  string
	Duration    time.Duration // 0 for 1 h
	Policy      string        // session policy
	PolicyARNs  []string      // further session policies

	Tags           map[string]string // session tags
	Transitive     []string          // keys of Tags that the sessions after this one inherit
	SourceIdentity string
}

// AssumeRole makes temporary credentials of a role when its trust policy and the caller's policies allow it.
// The request says what conditions may ask for.
func (s *Service) AssumeRole(ctx context.Context, c iam.Credential, a Assume, r iam.Request) (iam.Credential, error) {
	none := iam.Credential{}
	if c.Principal.Kind == iam.Root {
		return none, fault.New(fault.Denied, "", "", "Roles may not be assumed by root accounts.")
	}
	sn, err := s.sessionOf(ctx, a)
	if err != nil {
		return none, err
	}
	if PackedSize(a) > 100 {
		return none, fault.New(fault.Limit, "", "", "The session policies and tags are larger than a session token holds.").WithCode("PackedPolicyTooLarge")
	}
	sn.Chained = c.Principal.Kind == iam.RoleSession
	if err := a.inherit(&sn, c.Session); err != nil {
		return none, err
	}
	role, err := s.assumable(ctx, c, a, r, "sts:AssumeRole")
	if err != nil {
		return none, err
	}
	// Tags and a source identity are further rights, which the trust policy has to give, too.
	if len(a.Tags) > 0 || len(a.Transitive) > 0 {
		if _, err := s.assumable(ctx, c, a, r, "sts:TagSession"); err != nil {
			return none, err
		}
	}
	if a.SourceIdentity != "" {
		if _, err := s.assumable(ctx, c, a, r, "sts:SetSourceIdentity"); err != nil {
			return none, err
		}
	}
	most := role.longest()
	d := a.Duration
	switch {
	case d == 0:
		d = min(defaultRole, most)
	case sn.Chained && d > maxChained:
		return none, fault.New(fault.Invalid, "", "", "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining")
	case d > most:
		return none, fault.New(fault.Invalid, "", "", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	p := iam.Principal{Kind: iam.RoleSession, AccountID: s.options.AccountID, Path: role.Path, Name: role.Name, ID: role.ID, Session: a.SessionName}
	return s.issue(p, sn, d)
}

// inherit gives a session the tags and the source identity of the request and, in a chain, of the session before.
func (a *Assume) inherit(sn, before *iam.Session) error {
	sn.Tags, sn.Transitive, sn.SourceIdentity = maps.Clone(a.Tags), slices.Clone(a.Transitive), a.SourceIdentity
	for k := range a.Tags {
		for other := range a.Tags {
			if k != other && iam.LowerKey(k) == iam.LowerKey(other) {
				return fault.Newf(fault.Invalid, "", "", "Duplicate tag keys found: %s. Please note that tag keys are case insensitive.", k).WithCode("InvalidParameterValue")
			}
		}
		if strings.HasPrefix(iam.LowerKey(k), "aws:") {
			return fault.Newf(fault.Invalid, "", "", "The tag key %s is reserved for AWS.", k).WithCode("InvalidParameterValue")
		}
	}
	for _, k := range a.Transitive {
		if _, ok := a.Tags[k]; !ok {
			return fault.Newf(fault.Invalid, "", "", "The transitive tag key %s is not among the session tags.", k).WithCode("InvalidParameterValue")
		}
	}
	if before == nil {
		return nil
	}
	for _, k := range before.Transitive {
		if slices.ContainsFunc(slices.Collect(maps.Keys(a.Tags)), func(t string) bool { return iam.LowerKey(t) == iam.LowerKey(k) }) {
			return fault.Newf(fault.Invalid, "", "", "The session tag %s is inherited from the session before and cannot be given again.", k).WithCode("InvalidParameterValue")
		}
		if sn.Tags == nil {
			sn.Tags = map[string]string{}
		}
		sn.Tags[k] = before.Tags[k]
		sn.Transitive = append(sn.Transitive, k)
	}
	if before.SourceIdentity != "" {
		if a.SourceIdentity != "" && a.SourceIdentity != before.SourceIdentity {
			return fault.New(fault.Denied, "", "", "The source identity cannot be changed in a chain of roles.")
		}
		sn.SourceIdentity = before.SourceIdentity
	}
	return nil
}

// sessionOf checks the session policies of a request.
func (s *Service) sessionOf(ctx context.Context, a Assume) (iam.Session, error) {
	sn := iam.Session{Limited: a.Policy != "" || len(a.PolicyARNs) > 0, PolicyARNs: a.PolicyARNs}
	if len(a.PolicyARNs) > maxSessionPolicies {
		return sn, fault.Newf(fault.Invalid, "", "", "At most %d managed session policies may be passed.", maxSessionPolicies)
	}
	if a.Policy != "" {
		if len(a.Policy) > maxPolicyText {
			return sn, fault.Newf(fault.Limit, "", "", "The session policy is longer than %d characters.", maxPolicyText).WithCode("PackedPolicyTooLarge")
		}
		if _, err := parse(iam.IdentityPolicy, a.Policy); err != nil {
			return sn, err
		}
		sn.Policies = []string{a.Policy}
	}
	return sn, s.options.Store.View(ctx, func(r state.Reader) error {
		for _, arn := range a.PolicyARNs {
			if _, err := s.managed(r, arn); err != nil {
				return fault.Newf(fault.Invalid, "", "", "Policy %s does not exist.", arn)
			}
		}
		return nil
	})
}

// assumable finds the role when the caller may do the action, sts:AssumeRole or what goes with it, to it. A role that does not exist is
// refused in the same words.
func (s *Service) assumable(ctx context.Context, c iam.Credential, a Assume, r iam.Request, action string) (*Entity, error) {
	r.Principal, r.Action, r.Resources = c.Principal, action, []string{a.RoleARN}
	r.Keys = map[string][]string{"sts:rolesessionname": {a.SessionName}}
	if a.ExternalID != "" {
		r.Keys["sts:externalid"] = []string{a.ExternalID}
	}
	if a.SourceIdentity != "" {
		r.Keys["sts:sourceidentity"] = []string{a.SourceIdentity}
	}
	addTags(r.Keys, a.Tags, "aws:requesttag/")
	if len(a.Tags) > 0 {
		r.Keys["aws:tagkeys"] = slices.Sorted(maps.Keys(a.Tags))
	}
	if len(a.Transitive) > 0 {
		r.Keys["sts:transitivetagkeys"] = a.Transitive
	}
	role, err := s.Get(ctx, Role, a.RoleARN[strings.LastIndexByte(a.RoleARN, '/')+1:])
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	if err == nil {
		addTags(r.Keys, role.Tags, "aws:resourcetag/", "iam:resourcetag/")
	}
	missing := err != nil || role.ARN(s.options.AccountID) != a.RoleARN
	set, err := s.inForce(ctx, c, &r)
	if err != nil {
		return nil, err
	}
	d := set.Decide(&r)
	refused := fault.Newf(fault.Denied, "", "", "User: %s is not authorized to perform: %s on resource: %s", c.Principal.ARN(), action, a.RoleARN)
	if d.Explicit {
		return nil, fault.New(fault.Denied, "", "", d.Reason)
	}
	if missing {
		return nil, refused
	}
	trust, err := parse(iam.TrustPolicy, role.Trust)
	if err != nil {
		return nil, err
	}
	t := trust.Trusts(&r)
	if t.Named && !d.Allowed {
		// A trust policy that names the caller stands in for the caller's own policies, and not for what limits them.
		if d, err = withinLimits(set, &r); err != nil {
			return nil, err
		}
	}
	if t.Denied || !t.Named && !t.Account || !d.Allowed {
		return nil, refused
	}
	return role, nil
}

// addTags puts tags into condition keys. Those whose keys differ in case alone are values of one.
func addTags(keys map[string][]string, tags map[string]string, prefixes ...string) {
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		for _, p := range prefixes {
			name := p + iam.LowerKey(k)
			keys[name] = append(keys[name], tags[k])
		}
	}
}

// withinLimits asks the boundary and the session policies alone.
func withinLimits(set *iam.PolicySet, r *iam.Request) (iam.Decision, error) {
	all, err := parse(iam.IdentityPolicy, `{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`)
	if err != nil {
		return iam.Decision{}, err
	}
	limits := *set
	limits.Identity = []*iam.Policy{all}
	return limits.Decide(r), nil
}

// PackedSize is how much of the room for session policies and tags a request takes, in percent.
func PackedSize(a Assume) int32 {
	n := len(a.Policy)
	for _, arn := range a.PolicyARNs {
		n += len(arn)
	}
	for k, v := range a.Tags {
		n += len(k) + len(v)
	}
	return int32((n*100 + maxPacked - 1) / maxPacked) //nolint:gosec // its members are bounded
}
