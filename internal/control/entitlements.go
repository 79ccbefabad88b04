package control

import (
	"context"
	"slices"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
)

// AppStream's quotas of entitlements.
const (
	maxEntitlements         = 50 // of a stack
	maxEntitledApplications = 50 // of an entitlement
)

// EntitlementChange is what UpdateEntitlement sends: nil members stay as they are.
type EntitlementChange struct {
	Description, Visibility *string
	Attributes              []appstream.Attribute
}

// CreateEntitlement gives applications of a stack to federated users with certain attributes.
func (c *Control) CreateEntitlement(ctx context.Context, e appstream.Entitlement) (*appstream.Entitlement, error) {
	if err := checkAttributes(e.Attributes); err != nil {
		return nil, err
	}
	e.Created = c.Now().UTC()
	e.Modified = e.Created
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		if _, ok, err := appstream.Stacks.Get(tx, e.Stack); err != nil {
			return err
		} else if !ok {
			return stackNotFound(e.Stack)
		}
		if _, ok, err := appstream.Entitlements.Get(tx, appstream.Entitlements.ID(&e)); err != nil {
			return err
		} else if ok {
			return fault.Newf(fault.AlreadyExists, "entitlement", e.Name, "stack %s has an entitlement of this name", e.Stack)
		}
		n, err := tx.Count(appstream.Entitlements.Kind, state.Key{Name: "stack", Value: e.Stack})
		if err != nil {
			return err
		}
		if n >= maxEntitlements {
			return fault.Newf(fault.Limit, "entitlement", e.Name, "stack %s has its quota of %d entitlements", e.Stack, maxEntitlements)
		}
		return appstream.Entitlements.Put(tx, &e)
	})
	return &e, err
}

// checkAttributes refuses names that identity providers cannot send for entitlements. The model has no code of its own for that.
func checkAttributes(as []appstream.Attribute) error {
	for i, a := range as {
		if !slices.Contains(appstream.EntitlementAttributes, a.Name) {
			return fault.Newf(fault.NotPermitted, "attributes", "", "%q is not one of %v", a.Name, appstream.EntitlementAttributes)
		}
		if slices.Contains(as[:i], a) {
			return fault.Newf(fault.NotPermitted, "attributes", "", "%s %q stands twice", a.Name, a.Value)
		}
	}
	return nil
}

// UpdateEntitlement changes the members that were sent.
func (c *Control) UpdateEntitlement(ctx context.Context, stack, name string, ch EntitlementChange) (*appstream.Entitlement, error) {
	if err := checkAttributes(ch.Attributes); err != nil {
		return nil, err
	}
	return c.changeEntitlement(ctx, stack, name, func(_ state.Tx, e *appstream.Entitlement) error {
		set(&e.Description, ch.Description)
		set(&e.Visibility, ch.Visibility)
		setList(&e.Attributes, ch.Attributes)
		return nil
	})
}

// DeleteEntitlement removes an entitlement.
func (c *Control) DeleteEntitlement(ctx context.Context, stack, name string) error {
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		e, err := entitlementOf(tx, stack, name)
		if err != nil {
			return err
		}
		return appstream.Entitlements.Delete(tx, appstream.Entitlements.ID(e))
	})
	return err
}

// EntitleApplication adds an application of the base image to an entitlement. Repeating it is not an error.
func (c *Control) EntitleApplication(ctx context.Context, stack, name, application string) error {
	if _, err := c.application(ctx, application); err != nil {
		return err
	}
	_, err := c.changeEntitlement(ctx, stack, name, func(_ state.Tx, e *appstream.Entitlement) error {
		if slices.Contains(e.Applications, application) {
			return nil
		}
		if len(e.Applications) >= maxEntitledApplications {
			return fault.Newf(fault.Limit, "entitlement", name, "it has its quota of %d applications", maxEntitledApplications)
		}
		e.Applications = append(e.Applications, application)
		slices.Sort(e.Applications)
		return nil
	})
	return err
}

// WithdrawApplication undoes EntitleApplication.
func (c *Control) WithdrawApplication(ctx context.Context, stack, name, application string) error {
	_, err := c.changeEntitlement(ctx, stack, name, func(_ state.Tx, e *appstream.Entitlement) error {
		i := slices.Index(e.Applications, application)
		if i < 0 {
			return fault.Newf(fault.NotFound, "application", application, "entitlement %s does not name it", name)
		}
		e.Applications = slices.Delete(e.Applications, i, i+1)
		return nil
	})
	return err
}

// Entitlements lists those of a stack in order of their names, or the named one, and where to go on when there are more.
func (c *Control) Entitlements(ctx context.Context, stack, name, after string, limit int) (out []*appstream.Entitlement, next string, err error) {
	out, err = state.Read(ctx, c.Store, func(r state.Reader) ([]*appstream.Entitlement, error) {
		if name != "" {
			e, err := entitlementOf(r, stack, name)
			return []*appstream.Entitlement{e}, err
		}
		if _, ok, err := appstream.Stacks.Get(r, stack); err != nil {
			return nil, err
		} else if !ok {
			return nil, stackNotFound(stack)
		}
		return appstream.Entitlements.List(r, state.Query{By: state.Key{Name: "stack", Value: stack}, After: after, Limit: limit + 1})
	})
	if len(out) > limit {
		out = out[:limit]
		next = appstream.Entitlements.ID(out[limit-1])
	}
	return out, next, err
}

// EntitledApplications lists the applications of an entitlement in order, and where to go on when there are more.
func (c *Control) EntitledApplications(ctx context.Context, stack, name, after string, limit int) (out []string, next string, err error) {
	e, err := state.Read(ctx, c.Store, func(r state.Reader) (*appstream.Entitlement, error) { return entitlementOf(r, stack, name) })
	if err != nil {
		return nil, "", err
	}
	for _, a := range e.Applications {
		if a <= after {
			continue
		}
		if len(out) == limit {
			return out, out[limit-1], nil
		}
		out = append(out, a)
	}
	return out, "", nil
}

func (c *Control) changeEntitlement(
	ctx context.Context, stack, name string, change func(state.Tx, *appstream.Entitlement) error,
) (*appstream.Entitlement, error) {
	return state.Write(ctx, c.Store, func(tx state.Tx) (*appstream.Entitlement, error) {
		e, err := entitlementOf(tx, stack, name)
		if err != nil {
			return nil, err
		}
		if err := change(tx, e); err != nil {
			return nil, err
		}
		e.Modified = c.Now().UTC()
		return e, appstream.Entitlements.Put(tx, e)
	})
}

// entitlementOf finds an entitlement, or says whether it or its stack is missing.
func entitlementOf(r state.Reader, stack, name string) (*appstream.Entitlement, error) {
	if _, ok, err := appstream.Stacks.Get(r, stack); err != nil {
		return nil, err
	} else if !ok {
		return nil, stackNotFound(stack)
	}
	e, ok, err := appstream.Entitlements.Get(r, appstream.Entitlements.ID(&appstream.Entitlement{Stack: stack, Name: name}))
	if err == nil && !ok {
		err = fault.Newf(fault.NotFound, "entitlement", name, "stack %s has no entitlement of this name", stack)
	}
	return e, err
}
