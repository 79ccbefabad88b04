package access

import (
	"context"
	"maps"
	"slices"
	"strings"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/state"
)

// Authorize decides a request that the credential signed. No policy limits the account's root.
// A principal that was deleted since may do nothing.
func (s *Service) Authorize(ctx context.Context, c iam.Credential, r iam.Request) (iam.Decision, error) {
	if (iam.AccountOwner{AccountID: s.options.AccountID}).Owns(c.Principal) {
		return iam.Decision{Allowed: true}, nil
	}
	set, err := s.inForce(ctx, c, &r)
	if err != nil {
		return iam.Decision{}, err
	}
	return set.Decide(&r), nil
}

// inForce are the policies that apply to a credential, which it also puts into the request.
func (s *Service) inForce(ctx context.Context, c iam.Credential, r *iam.Request) (*iam.PolicySet, error) {
	set, tags, err := s.policies(ctx, c.Principal)
	if err != nil && !fault.Is(err, fault.NotFound) {
		return nil, err
	}
	if err != nil {
		set = new(iam.PolicySet)
	}
	r.Principal, r.PrincipalTags = c.Principal, tags
	sn := c.Session
	if sn == nil {
		return set, nil
	}
	r.TokenIssued, r.SourceIdentity = sn.Issued, sn.SourceIdentity
	if len(sn.Keys) > 0 { // what a session brings along goes before what a request says
		keys := maps.Clone(r.Keys)
		if keys == nil {
			keys = map[string][]string{}
		}
		maps.Copy(keys, sn.Keys)
		r.Keys = keys
	}
	if len(sn.Tags) > 0 {
		r.PrincipalTags = maps.Clone(tags)
		if r.PrincipalTags == nil {
			r.PrincipalTags = map[string]string{}
		}
		for k, v := range sn.Tags {
			maps.DeleteFunc(r.PrincipalTags, func(had, _ string) bool { return iam.LowerKey(had) == iam.LowerKey(k) })
			r.PrincipalTags[k] = v
		}
	}
	if !sn.Limited {
		return set, nil
	}
	limited := *set
	limited.Limited = true
	limited.Session, err = s.sessionPolicies(ctx, sn)
	return &limited, err
}

// sessionPolicies are the session's own policies. A managed one that was deleted since allows nothing.
func (s *Service) sessionPolicies(ctx context.Context, sn *iam.Session) (out []*iam.Policy, err error) {
	for _, d := range sn.Policies {
		p, err := parse(iam.IdentityPolicy, d)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	err = s.options.Store.View(ctx, func(r state.Reader) error {
		for _, arn := range sn.PolicyARNs {
			p, err := s.load(r, arn)
			if fault.Is(err, fault.NotFound) {
				continue
			}
			if err != nil {
				return err
			}
			out = append(out, p)
		}
		return nil
	})
	return out, err
}

// load reads a managed policy's default version.
func (s *Service) load(r state.Reader, arn string) (*iam.Policy, error) {
	m, err := s.managed(r, arn)
	if err != nil {
		return nil, err
	}
	p, err := parse(iam.IdentityPolicy, m.Document())
	if err != nil {
		return nil, err
	}
	return p.Named(m.Name, arn), nil
}

// policies are the parsed policies and the tags of a user or role session.
func (s *Service) policies(ctx context.Context, p iam.Principal) (*iam.PolicySet, map[string]string, error) {
	kind := User
	switch p.Kind {
	case iam.User:
	case iam.RoleSession:
		kind = Role
	case iam.Anonymous, iam.Root, iam.Service, iam.Federated:
		return new(iam.PolicySet), nil, nil
	}
	at := setKey{kind, p.Name, p.ID}
	s.mu.Lock()
	e, generation := s.sets[at], s.generation
	s.mu.Unlock()
	if e != nil {
		return e.set, e.tags, nil
	}
	err := s.options.Store.View(ctx, func(r state.Reader) error {
		x, err := get(r, kind, p.Name)
		if err != nil {
			return err
		}
		if x.ID != p.ID {
			return notFound("The %s with name %s cannot be found.", kind, p.Name)
		}
		set, err := s.setOf(r, x)
		e = &setEntry{set, x.Tags}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.generation == generation {
		if len(s.sets) >= maxSets {
			clear(s.sets)
		}
		s.sets[at] = e
	}
	return e.set, e.tags, nil
}

// setOf parses everything that applies to an entity.
func (s *Service) setOf(r state.Reader, e *Entity) (*iam.PolicySet, error) {
	set := new(iam.PolicySet)
	for _, name := range slices.Sorted(maps.Keys(e.Inline)) {
		p, err := parse(iam.IdentityPolicy, e.Inline[name])
		if err != nil {
			return nil, err
		}
		set.Identity = append(set.Identity, p.Named(name, ""))
	}
	for _, arn := range e.Attached {
		p, err := s.load(r, arn)
		if err != nil {
			return nil, err
		}
		set.Identity = append(set.Identity, p)
	}
	if e.Boundary != "" {
		p, err := s.load(r, e.Boundary)
		if err != nil {
			return nil, err
		}
		set.Boundary = p
	}
	return set, nil
}

// PoliciesOf are the policies of the user or role with this ARN, and whom a simulation asks for.
func (s *Service) PoliciesOf(ctx context.Context, arn string) (*iam.PolicySet, iam.Principal, map[string]string, error) {
	kind, prefix := User, "arn:aws:iam::"+s.options.AccountID+":"
	rest, ok := strings.CutPrefix(arn, prefix+"user/")
	if !ok {
		kind = Role
		if rest, ok = strings.CutPrefix(arn, prefix+"role/"); !ok {
			return nil, iam.Principal{}, nil, fault.Newf(fault.InvalidRole, "", "", "Invalid Entity Arn: %s does not clearly define entity type and name.", arn)
		}
	}
	e, err := s.Get(ctx, kind, rest[strings.LastIndexByte(rest, '/')+1:])
	if err != nil {
		return nil, iam.Principal{}, nil, err
	}
	p := s.principal(e)
	if kind == Role {
		p.Kind, p.Session = iam.RoleSession, "simulation"
	}
	set, tags, err := s.policies(ctx, p)
	return set, p, tags, err
}

// PrincipalPolicies are the policies of a principal as an operator names it: user/NAME, role/NAME, an ARN, an access key's ID, root, or
// service-role for the role that AppStream acts as.
func (s *Service) PrincipalPolicies(ctx context.Context, name string) (*iam.PolicySet, iam.Principal, map[string]string, error) {
	account := s.options.AccountID
	switch {
	case name == "root", name == iam.RootOf(account).ARN():
		return new(iam.PolicySet), iam.RootOf(account), nil, nil
	case name == "service-role":
		name = iam.RoleARN(account, "/service-role/", iam.ServiceAccessRoleName)
	case strings.HasPrefix(name, "user/"), strings.HasPrefix(name, "role/"):
		name = "arn:aws:iam::" + account + ":" + name
	case strings.HasPrefix(name, "arn:aws:sts::"+account+":assumed-role/"):
		role, _, _ := strings.Cut(strings.TrimPrefix(name, "arn:aws:sts::"+account+":assumed-role/"), "/")
		name = iam.RoleARN(account, "/", role)
	case strings.HasPrefix(name, "AKIA"):
		c, err := s.Lookup(ctx, name)
		if err != nil || c.Principal.Kind == iam.Root {
			return new(iam.PolicySet), c.Principal, nil, err
		}
		name = c.Principal.ARN()
	}
	return s.PoliciesOf(ctx, name)
}
