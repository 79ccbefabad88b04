package access

import (
	"context"
	"strings"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/state"
)

// account remembers that AppStream's role was made, so that one that was deleted stays deleted.
type account struct {
	ServiceRoleMade bool
}

var accounts = state.Table[account]{Kind: "iam-account", ID: func(*account) string { return "account" }}

// EnsureServiceRole makes AmazonAppStreamServiceAccess with its managed policy when the account never had it and the caller may
// make it; q says what conditions may ask for. A caller who may not is told why in refusal, which is no error: what needs no role goes on.
func (s *Service) EnsureServiceRole(ctx context.Context, c iam.Credential, q iam.Request) (made bool, refusal string, err error) {
	if s.roleMade.Load() {
		return false, "", nil
	}
	had, err := state.Read(ctx, s.options.Store, hadServiceRole)
	if err != nil {
		return false, "", err
	}
	if had == roleUnknown {
		if refusal, err = s.mayMakeServiceRole(ctx, c, q); err != nil || refusal != "" {
			return false, refusal, err
		}
	}
	if had != roleRemembered {
		if made, err = s.makeServiceRole(ctx); err != nil {
			return false, "", err
		}
	}
	s.roleMade.Store(true)
	return made, "", nil
}

type roleHistory int

const (
	roleUnknown    roleHistory = iota
	roleByHand                 // somebody made it, before AppStream was used
	roleRemembered             // it was there once
)

func hadServiceRole(r state.Reader) (roleHistory, error) {
	a, ok, err := accounts.Get(r, "account")
	if err != nil || ok && a.ServiceRoleMade {
		return roleRemembered, err
	}
	_, err = get(r, Role, iam.ServiceAccessRoleName)
	if fault.Is(err, fault.NotFound) {
		return roleUnknown, nil
	}
	return roleByHand, err
}

// mayMakeServiceRole asks the caller's own policies, as IAM would if the caller made the role.
func (s *Service) mayMakeServiceRole(ctx context.Context, c iam.Credential, q iam.Request) (refusal string, err error) {
	q.Resources = []string{iam.RoleARN(s.options.AccountID, "/service-role/", iam.ServiceAccessRoleName)}
	for _, action := range []string{"iam:CreateRole", "iam:AttachRolePolicy"} {
		q.Action, q.Keys = action, map[string][]string{"aws:calledvia": {iam.AppStreamService}, "aws:viaawsservice": {"true"}}
		if action == "iam:AttachRolePolicy" {
			q.Keys["iam:policyarn"] = []string{serviceAccessPolicy}
		}
		d, err := s.Authorize(ctx, c, q)
		if err != nil || !d.Allowed {
			return d.Reason, err
		}
	}
	return "", nil
}

func (s *Service) makeServiceRole(ctx context.Context) (made bool, err error) {
	_, err = s.update(ctx, func(tx state.Tx) error {
		made = false
		had, err := hadServiceRole(tx)
		if err != nil || had == roleRemembered {
			return err
		}
		if err := accounts.Put(tx, &account{ServiceRoleMade: true}); err != nil || had == roleByHand {
			return err
		}
		r := iam.ServiceAccessRole(s.options.AccountID, newID("AROA"), s.now())
		made = true
		e := &Entity{
			Kind: Role, Path: r.Path, Name: r.Name, ID: r.ID, Created: r.Created, Trust: r.TrustPolicy, Description: r.Description,
			MaxSession: r.MaxSession, Attached: []string{serviceAccessPolicy},
		}
		return table(Role).Put(tx, e)
	})
	return made, err
}

// AsServiceRole decides whether AppStream may do an action to all resources as its service role, in the state that r shows;
// nil when it may.
func (s *Service) AsServiceRole(r state.Reader, action string) (*iam.RoleProblem, error) {
	missing := func(reason string) *iam.RoleProblem {
		return &iam.RoleProblem{Missing: true, Action: action, Reason: reason}
	}
	e, err := get(r, Role, iam.ServiceAccessRoleName)
	if fault.Is(err, fault.NotFound) {
		return missing("role " + iam.ServiceAccessRoleName + " does not exist in this account"), nil
	}
	if err != nil {
		return nil, err
	}
	if reason, err := s.untrusting(e); err != nil || reason != "" {
		return missing(reason), err
	}
	if action == "" {
		return nil, nil
	}
	set, err := s.setOf(r, e)
	if err != nil {
		return nil, err
	}
	q := iam.Request{
		Principal: iam.Principal{
			Kind: iam.RoleSession, AccountID: s.options.AccountID, Path: e.Path, Name: e.Name, ID: e.ID, Session: iam.ServiceAccessSession,
		},
		Action: action, Time: s.now(), Region: s.options.Region, PrincipalTags: e.Tags,
	}
	if d := set.Decide(&q); !d.Allowed {
		return &iam.RoleProblem{Action: action, Reason: d.Reason}, nil
	}
	return nil, nil
}

// untrusting is why AppStream cannot assume a role; empty when it can.
func (s *Service) untrusting(e *Entity) (reason string, err error) {
	trust, err := parse(iam.TrustPolicy, e.Trust)
	if err != nil {
		return "", err
	}
	q := iam.Request{
		Principal: iam.Principal{Kind: iam.Service, Name: iam.AppStreamService}, Action: "sts:AssumeRole", Time: s.now(), Region: s.options.Region,
		Keys: map[string][]string{"aws:sourceaccount": {s.options.AccountID}, "sts:rolesessionname": {iam.ServiceAccessSession}},
	}
	if t := trust.Trusts(&q); t.Denied || !t.Named {
		return "the trust policy of role " + e.Name + " does not let " + iam.AppStreamService + " assume it", nil
	}
	return "", nil
}

// MachineRole is why instances cannot have the role with this ARN; empty when AppStream may assume it.
func (s *Service) MachineRole(r state.Reader, arn string) (reason string, err error) {
	e, err := get(r, Role, arn[strings.LastIndexByte(arn, '/')+1:])
	if fault.Is(err, fault.NotFound) || err == nil && iam.RoleARN(s.options.AccountID, e.Path, e.Name) != arn {
		return "there is no role with this ARN in this account", nil
	}
	if err != nil {
		return "", err
	}
	return s.untrusting(e)
}

// DecidesServiceRole reports whether a change of a document of this kind may change what AsServiceRole answers.
func (s *Service) DecidesServiceRole(k state.Kind) bool {
	return k == table(Role).Kind || k == managedPolicies.Kind
}
