package access

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
)

// linkedPath is where service-linked roles are. Nobody changes those but the service that they are linked with.
const linkedPath = "/aws-service-role/"

// linkable are the services that have a service-linked role here: the name of the role and its policy.
var linkable = map[string]struct{ role, policy string }{
	"appstream.application-autoscaling.amazonaws.com": {
		"AWSServiceRoleForApplicationAutoScaling_AppStreamFleet", "arn:aws:iam::aws:policy/aws-service-role/AWSApplicationAutoscalingAppStreamFleetPolicy",
	},
}

// LinkedRoleName is the name of a service's role; a pattern of every one for a service that has none here.
func LinkedRoleName(service, suffix string) string {
	l, ok := linkable[service]
	switch {
	case !ok:
		return "*"
	case suffix != "":
		return l.role + "_" + suffix
	}
	return l.role
}

// deletion is a service-linked role that was deleted.
type deletion struct {
	ID   string // task/aws-service-role/SERVICE/ROLE/UUID
	Role string
	At   time.Time
}

var deletions = state.Table[deletion]{Kind: "iam-role-deletion", ID: func(d *deletion) string { return d.ID }}

// maxDeletions bounds the answers that are kept.
const maxDeletions = 100

// CreateServiceLinked makes the role of a service.
func (s *Service) CreateServiceLinked(ctx context.Context, service, description, suffix string) (*Entity, error) {
	l, ok := linkable[service]
	if !ok {
		return nil, fault.Newf(fault.InvalidRole, "", "", "%s has no service-linked role here.", service)
	}
	if suffix != "" {
		return nil, fault.Newf(fault.InvalidRole, "", "", "Custom suffix is not allowed for %s", service)
	}
	e := &Entity{
		Kind: Role, Path: linkedPath + service + "/", Name: l.role, ID: newID("AROA"), Created: s.now(), Description: description, MaxSession: time.Hour,
		Trust:    `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"` + service + `"},"Action":"sts:AssumeRole"}]}`,
		Attached: []string{l.policy},
	}
	t := table(Role)
	_, err := s.update(ctx, func(tx state.Tx) error {
		if _, taken, err := t.Get(tx, entityID(e)); err != nil {
			return err
		} else if taken {
			return fault.Newf(fault.InvalidRole, "", "", "Service role name %s has been taken in this account, please try a different suffix.", l.role)
		}
		return t.Put(tx, e)
	})
	return e, err
}

// DeleteServiceLinked removes a service-linked role and returns the ID of what IAM calls the task: nothing of ours uses such a role, so it
// is done at once.
func (s *Service) DeleteServiceLinked(ctx context.Context, role string) (task string, err error) {
	_, err = s.update(ctx, func(tx state.Tx) error {
		e, err := get(tx, Role, role)
		if err != nil {
			return err
		}
		if !e.linked() {
			return notFound("Service-linked role with name %s cannot be found.", role)
		}
		var b [16]byte
		rand.Read(b[:]) // never fails
		task = fmt.Sprintf("task%s%s/%x-%x-%x-%x-%x", e.Path, e.Name, b[:4], b[4:6], b[6:8], b[8:10], b[10:])
		old, err := deletions.List(tx, state.Query{})
		if err != nil {
			return err
		}
		if len(old) >= maxDeletions {
			oldest := old[0]
			for _, d := range old {
				if d.At.Before(oldest.At) {
					oldest = d
				}
			}
			if err := deletions.Delete(tx, oldest.ID); err != nil {
				return err
			}
		}
		if err := deletions.Put(tx, &deletion{ID: task, Role: role, At: s.now()}); err != nil {
			return err
		}
		return table(Role).Delete(tx, entityID(e))
	})
	return task, err
}

// ServiceLinkedDeleted reports whether a task deleted its role; NotFound for a task that is not known.
func (s *Service) ServiceLinkedDeleted(ctx context.Context, task string) error {
	return s.options.Store.View(ctx, func(r state.Reader) error {
		_, ok, err := deletions.Get(r, task)
		if err == nil && !ok {
			err = notFound("Deletion task with id %.200s cannot be found.", task)
		}
		return err
	})
}

func (e *Entity) linked() bool { return e.Kind == Role && strings.HasPrefix(e.Path, linkedPath) }

// modifiable refuses to change a role that belongs to a service.
func (e *Entity) modifiable() error {
	if e.linked() {
		return fault.Newf(fault.NotPermitted, "", "", "Cannot perform the operation on the protected role '%s' - this role is only modifiable by AWS", e.Name)
	}
	return nil
}

// Summary counts what the account has, and what it may have.
type Summary struct{ Users, Roles, Policies, Versions int }

// Summarize counts the account's users, roles and own policies.
func (s *Service) Summarize(ctx context.Context) (Summary, error) {
	return state.Read(ctx, s.options.Store, func(r state.Reader) (n Summary, err error) {
		if n.Users, err = r.Count(table(User).Kind, state.Key{}); err != nil {
			return n, err
		}
		if n.Roles, err = r.Count(table(Role).Kind, state.Key{}); err != nil {
			return n, err
		}
		own, err := managedPolicies.List(r, state.Query{})
		n.Policies = len(own)
		for _, m := range own {
			n.Versions += len(m.Versions)
		}
		return n, err
	})
}

// Quotas are IAM's quotas that this account has, by their names in GetAccountSummary.
func Quotas() map[string]int32 {
	return map[string]int32{
		"UsersQuota": maxUsers, "RolesQuota": maxRoles, "PoliciesQuota": maxManaged, "AccessKeysPerUserQuota": maxKeys, "VersionsPerPolicyQuota": maxVersions,
		"UserPolicySizeQuota": maxUserInlineSize, "RolePolicySizeQuota": maxRoleInlineSize, "PolicySizeQuota": maxManagedSize, "AssumeRolePolicySizeQuota": maxTrustSize,
		"AttachedPoliciesPerUserQuota": maxAttached, "AttachedPoliciesPerRoleQuota": maxAttached, "PolicyVersionsInUseQuota": maxManaged * maxVersions,
	}
}

// RootKey reports whether the account's root has an access key.
func (s *Service) RootKey() bool {
	root, _ := s.rootNow()
	return root.AccessKeyID != ""
}
