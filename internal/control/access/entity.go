package access

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/state"
)

// Kind is what an entity is.
type Kind string

// The kinds of entities.
const (
	User Kind = "user"
	Role Kind = "role"
)

// title is the kind at the beginning of a sentence.
func (k Kind) title() string {
	if k == User {
		return "User"
	}
	return "Role"
}

// IAM's quotas.
const (
	maxUsers           = 5000
	maxRoles           = 1000
	maxManaged         = 1500
	maxAttached        = 10
	maxVersions        = 5
	maxKeys            = 2
	maxTags            = 50
	maxUserInlineSize  = 2048
	maxRoleInlineSize  = 10240
	maxManagedSize     = 6144
	maxTrustSize       = 2048
	maxSessionPolicies = 10
)

// Entity is a user or a role.
type Entity struct {
	Kind     Kind
	Path     string // begins and ends with a slash
	Name     string
	ID       string // AIDA… or AROA…
	Created  time.Time
	Tags     map[string]string `json:",omitempty"`
	Inline   map[string]string `json:",omitempty"` // policy documents by name
	Attached []string          `json:",omitempty"` // ARNs of managed policies, in order of attachment
	Boundary string            `json:",omitempty"` // ARN of a managed policy

	Trust       string        `json:",omitempty"` // of a role: who may assume it
	Description string        `json:",omitempty"`
	MaxSession  time.Duration `json:",omitempty"`
}

// ARN is the entity's name in policies.
func (e *Entity) ARN(account string) string {
	if e.Kind == User {
		return iam.UserARN(account, e.Path, e.Name)
	}
	return iam.RoleARN(account, e.Path, e.Name)
}

// Names are unique whatever their letters' case.
func entityID(e *Entity) string { return strings.ToLower(e.Name) }

func entityKeys(e *Entity) []state.Key {
	keys := []state.Key{}
	for _, arn := range e.Attached {
		keys = append(keys, state.Key{Name: "policy", Value: arn})
	}
	if e.Boundary != "" {
		keys = append(keys, state.Key{Name: "boundary", Value: e.Boundary})
	}
	return keys
}

func table(k Kind) state.Table[Entity] {
	return state.Table[Entity]{Kind: state.Kind("iam-" + string(k)), ID: entityID, Keys: entityKeys}
}

func get(r state.Reader, k Kind, name string) (*Entity, error) {
	e, ok, err := table(k).Get(r, strings.ToLower(name))
	if err != nil {
		return nil, err
	}
	if !ok || e.Name != name {
		return nil, notFound("The %s with name %s cannot be found.", k, name)
	}
	return e, nil
}

// Create makes a user or a role; its ID and time are made here.
func (s *Service) Create(ctx context.Context, e Entity) (*Entity, error) {
	prefix, quota, most := "AIDA", "UsersPerAccount", maxUsers
	if e.Kind == Role {
		prefix, quota, most = "AROA", "RolesPerAccount", maxRoles
		if err := checkTrust(e.Trust); err != nil {
			return nil, err
		}
	}
	if e.Path == "" {
		e.Path = "/"
	}
	if e.linked() {
		return nil, fault.Newf(fault.InvalidRole, "", "", "Roles with path %s are made by CreateServiceLinkedRole.", linkedPath)
	}
	if len(e.Tags) > maxTags {
		return nil, limit("TagsPer"+e.Kind.title(), maxTags)
	}
	e.ID, e.Created = newID(prefix), s.now()
	t := table(e.Kind)
	_, err := s.update(ctx, func(tx state.Tx) error {
		if _, ok, err := t.Get(tx, entityID(&e)); err != nil || ok {
			return orExists(err, "%s with name %s already exists.", e.Kind.title(), e.Name)
		}
		if n, err := tx.Count(t.Kind, state.Key{}); err != nil || n >= most {
			return orLimit(err, quota, most)
		}
		if err := s.checkBoundary(tx, e.Boundary); err != nil {
			return err
		}
		return t.Put(tx, &e)
	})
	if err != nil {
		return nil, err
	}
	return &e, nil
}

func orExists(err error, format string, args ...any) error {
	if err != nil {
		return err
	}
	return fault.Newf(fault.AlreadyExists, "", "", format, args...)
}

func orLimit(err error, what string, n int) error {
	if err != nil {
		return err
	}
	return limit(what, n)
}

func checkTrust(document string) error {
	if sizeOf(document) > maxTrustSize {
		return limit("ACLSizePerRole", maxTrustSize)
	}
	_, err := parse(iam.TrustPolicy, document)
	return err
}

func (s *Service) checkBoundary(r state.Reader, arn string) error {
	if arn == "" {
		return nil
	}
	_, err := s.managed(r, arn)
	return err
}

// Get finds a user or role; NotFound when there is none.
func (s *Service) Get(ctx context.Context, k Kind, name string) (e *Entity, err error) {
	err = s.options.Store.View(ctx, func(r state.Reader) error {
		e, err = get(r, k, name)
		return err
	})
	return e, err
}

// List lists the users or roles whose path begins with prefix, in order of their names.
func (s *Service) List(ctx context.Context, k Kind, prefix string) (out []*Entity, err error) {
	err = s.options.Store.View(ctx, func(r state.Reader) error {
		out, err = table(k).List(r, state.Query{})
		return err
	})
	return slices.DeleteFunc(out, func(e *Entity) bool { return !strings.HasPrefix(e.Path, prefix) }), err
}

// Change changes one user or role in a transaction. fn may run more than once.
func (s *Service) Change(ctx context.Context, k Kind, name string, fn func(*Entity) error) (e *Entity, err error) {
	_, err = s.update(ctx, func(tx state.Tx) error {
		if e, err = get(tx, k, name); err != nil {
			return err
		}
		if err := cmp.Or(e.modifiable(), fn(e)); err != nil {
			return err
		}
		return table(k).Put(tx, e)
	})
	return e, err
}

// Delete removes a user or role that has no keys and no policies.
func (s *Service) Delete(ctx context.Context, k Kind, name string) error {
	_, err := s.update(ctx, func(tx state.Tx) error {
		e, err := get(tx, k, name)
		if err != nil {
			return err
		}
		if err := e.modifiable(); err != nil {
			return err
		}
		why := ""
		switch {
		case len(e.Attached) > 0:
			why = "must detach all policies first."
		case len(e.Inline) > 0:
			why = "must delete policies first."
		case k == User:
			n, err := tx.Count(keys.Kind, state.Key{Name: "user", Value: e.ID})
			if err != nil {
				return err
			}
			if n > 0 {
				why = "must delete access keys first."
			}
		}
		if why != "" {
			return fault.New(fault.InUse, "", "", "Cannot delete entity, "+why)
		}
		return table(k).Delete(tx, entityID(e))
	})
	return err
}

// Rename gives a user another name or path; empty leaves it. Keys and policies stay.
func (s *Service) Rename(ctx context.Context, name, newName, newPath string) error {
	_, err := s.update(ctx, func(tx state.Tx) error {
		e, err := get(tx, User, name)
		if err != nil {
			return err
		}
		old := entityID(e)
		if newPath != "" {
			e.Path = newPath
		}
		if newName != "" {
			e.Name = newName
		}
		if now := entityID(e); now != old {
			if _, ok, err := table(User).Get(tx, now); err != nil || ok {
				return orExists(err, "User with name %s already exists.", newName)
			}
			if err := table(User).Delete(tx, old); err != nil {
				return err
			}
		}
		own, err := keys.By(tx, "user", e.ID)
		if err != nil {
			return err
		}
		for _, k := range own {
			k.User = e.Name
			if err := keys.Put(tx, k); err != nil {
				return err
			}
		}
		return table(User).Put(tx, e)
	})
	return err
}

// PutInline writes an inline policy.
func (s *Service) PutInline(ctx context.Context, k Kind, name, policy, document string) error {
	if _, err := parse(iam.IdentityPolicy, document); err != nil {
		return err
	}
	_, err := s.Change(ctx, k, name, func(e *Entity) error {
		if e.Inline == nil {
			e.Inline = map[string]string{}
		}
		e.Inline[policy] = document
		size, most := 0, maxUserInlineSize
		if k == Role {
			most = maxRoleInlineSize
		}
		for _, d := range e.Inline {
			size += sizeOf(d)
		}
		if size > most {
			return fault.Newf(fault.Limit, "", "", "Maximum policy size of %d bytes exceeded for %s %s", most, k, name)
		}
		return nil
	})
	return err
}

// Inline finds an inline policy's document; NotFound when there is none.
func (s *Service) Inline(ctx context.Context, k Kind, name, policy string) (string, error) {
	e, err := s.Get(ctx, k, name)
	if err != nil {
		return "", err
	}
	d, ok := e.Inline[policy]
	if !ok {
		return "", noInline(k, policy)
	}
	return d, nil
}

func noInline(k Kind, policy string) error {
	return notFound("The %s policy with name %s cannot be found.", k, policy)
}

// DeleteInline removes an inline policy.
func (s *Service) DeleteInline(ctx context.Context, k Kind, name, policy string) error {
	_, err := s.Change(ctx, k, name, func(e *Entity) error {
		if _, ok := e.Inline[policy]; !ok {
			return noInline(k, policy)
		}
		delete(e.Inline, policy)
		return nil
	})
	return err
}

// Attach attaches a managed policy; attaching it again changes nothing.
func (s *Service) Attach(ctx context.Context, k Kind, name, arn string) error {
	_, err := s.update(ctx, func(tx state.Tx) error {
		e, err := get(tx, k, name)
		if err != nil {
			return err
		}
		if err := e.modifiable(); err != nil {
			return err
		}
		if _, err := s.managed(tx, arn); err != nil {
			return err
		}
		if slices.Contains(e.Attached, arn) {
			return nil
		}
		if len(e.Attached) >= maxAttached {
			return limit(fmt.Sprintf("PoliciesPer%s", k.title()), maxAttached)
		}
		e.Attached = append(e.Attached, arn)
		return table(k).Put(tx, e)
	})
	return err
}

// Detach detaches a managed policy.
func (s *Service) Detach(ctx context.Context, k Kind, name, arn string) error {
	_, err := s.Change(ctx, k, name, func(e *Entity) error {
		i := slices.Index(e.Attached, arn)
		if i < 0 {
			return notFound("Policy %s was not found.", arn)
		}
		e.Attached = slices.Delete(e.Attached, i, i+1)
		return nil
	})
	return err
}

// Tag adds and replaces tags, then removes those with the given keys.
func (s *Service) Tag(ctx context.Context, k Kind, name string, add map[string]string, remove []string) error {
	_, err := s.Change(ctx, k, name, func(e *Entity) error {
		return changeTags(&e.Tags, add, remove, k.title())
	})
	return err
}

func changeTags(tags *map[string]string, add map[string]string, remove []string, of string) error {
	if *tags == nil {
		*tags = map[string]string{}
	}
	maps.Copy(*tags, add)
	for _, k := range remove {
		delete(*tags, k)
	}
	if len(*tags) > maxTags {
		return limit("TagsPer"+of, maxTags)
	}
	return nil
}

// SetTrust replaces a role's trust policy.
func (s *Service) SetTrust(ctx context.Context, role, document string) error {
	if err := checkTrust(document); err != nil {
		return err
	}
	_, err := s.Change(ctx, Role, role, func(e *Entity) error {
		e.Trust = document
		return nil
	})
	return err
}

// SetBoundary sets or, with an empty ARN, removes the permissions boundary.
func (s *Service) SetBoundary(ctx context.Context, k Kind, name, arn string) error {
	_, err := s.update(ctx, func(tx state.Tx) error {
		e, err := get(tx, k, name)
		if err != nil {
			return err
		}
		if err := cmp.Or(e.modifiable(), s.checkBoundary(tx, arn)); err != nil {
			return err
		}
		e.Boundary = arn
		return table(k).Put(tx, e)
	})
	return err
}
