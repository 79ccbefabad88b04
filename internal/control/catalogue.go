package control

import (
	"context"
	"slices"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
)

// Offer is a stack, or a builder in the place of one, as one visitor sees it.
type Offer struct {
	Stack        *appstream.Stack
	Applications []appstream.Application
	// Unavailable is why nothing of it can be started now; empty when it can.
	Unavailable string
}

// Offers lists what a visitor may start, in order of the stacks' names. A visitor who may do nothing any more is a fault.
func (c *Control) Offers(ctx context.Context, v appstream.Visitor) ([]Offer, error) {
	apps, err := c.Compute.Applications(ctx)
	if err != nil {
		return nil, err
	}
	return state.Read(ctx, c.Store, func(r state.Reader) ([]Offer, error) {
		if v.Builder != "" {
			return builderOffers(r, v)
		}
		names, err := c.stacksOf(r, v)
		if err != nil {
			return nil, err
		}
		out := make([]Offer, 0, len(names))
		for _, n := range names {
			o, err := c.offer(r, v, n, apps)
			if err != nil {
				return nil, err
			}
			if o != nil {
				out = append(out, *o)
			}
		}
		return out, nil
	})
}

// offer is one stack of a visitor's; nil when it was deleted since.
func (c *Control) offer(r state.Reader, v appstream.Visitor, name string, apps []appstream.Application) (*Offer, error) {
	s, ok, err := appstream.Stacks.Get(r, name)
	if err != nil || !ok {
		return nil, err
	}
	o := &Offer{Stack: s}
	all, named, err := entitled(r, v, name)
	if err != nil {
		return nil, err
	}
	for _, a := range apps {
		if (all || slices.Contains(named, a.Name)) && (v.Application == "" || v.Application == a.Name) {
			o.Applications = append(o.Applications, a)
		}
	}
	if all && v.Application == Desktop {
		o.Applications = append(o.Applications, appstream.Application{Name: Desktop, DisplayName: Desktop})
	}
	f, err := c.fleetOf(r, v, name)
	if err == nil {
		_, err = c.usable(r, name, f)
	}
	switch fault.KindOf(err) {
	case fault.NotFound, fault.NotPermitted, fault.NotAvailable:
		o.Unavailable = err.Error()
		return o, nil
	default:
		return o, err
	}
}

// stacksOf are the names of a visitor's stacks, in order. A user of the pool who was disabled or deleted is refused.
func (c *Control) stacksOf(r state.Reader, v appstream.Visitor) ([]string, error) {
	switch v.Auth {
	case appstream.AuthUserPool:
		u, ok, err := appstream.Users.Get(r, v.UserID)
		if err != nil {
			return nil, err
		}
		if !ok || !u.Enabled {
			return nil, fault.New(fault.Denied, "user", "", "your account is not enabled any more")
		}
		as, err := appstream.UserStacks.By(r, "user", v.UserID)
		out := make([]string, 0, len(as))
		for _, a := range as {
			out = append(out, a.StackName)
		}
		return out, err
	case appstream.AuthSAML:
		if v.Stack != "" {
			return []string{v.Stack}, nil
		}
		return slices.Compact(slices.Sorted(slices.Values(v.Stacks))), nil
	case appstream.AuthAPI:
	}
	return []string{v.Stack}, nil
}

// entitled are the applications of a stack that a visitor may start. Entitlements limit federated users alone, as in AppStream.
func entitled(r state.Reader, v appstream.Visitor, stack string) (all bool, named []string, err error) {
	if v.Auth != appstream.AuthSAML {
		return true, nil, nil
	}
	es, err := appstream.Entitlements.By(r, "stack", stack)
	if err != nil {
		return false, nil, err
	}
	all, named = appstream.Entitled(es, v.Attributes)
	return all, named, nil
}

// permit refuses what a visitor may not start now. Every launch asks again: a user may have been disabled or lost the stack since.
func (c *Control) permit(r state.Reader, v appstream.Visitor, stack, application string) error {
	names, err := c.stacksOf(r, v)
	if err != nil {
		return err
	}
	if !slices.Contains(names, stack) {
		return fault.New(fault.NotPermitted, "stack", stack, "it is not assigned to you")
	}
	if v.Application != "" && v.Application != application {
		return fault.New(fault.NotPermitted, "application", application, "the streaming URL names another application")
	}
	all, named, err := entitled(r, v, stack)
	if err != nil {
		return err
	}
	if !all && !slices.Contains(named, application) {
		return fault.New(fault.NotPermitted, "application", application, "no entitlement of yours names it")
	}
	return nil
}

// fleetOf is the fleet on which a visitor uses a stack: the streaming URL's; otherwise the one where the visitor's session runs,
// else the first running one of the stack's.
func (c *Control) fleetOf(r state.Reader, v appstream.Visitor, stack string) (string, error) {
	if v.Fleet != "" {
		return v.Fleet, nil
	}
	ss, err := appstream.Sessions.By(r, "live-user", stack+" "+v.UserID)
	if err != nil {
		return "", err
	}
	for _, s := range ss {
		if s.AuthType == string(v.Auth) && s.Provider == v.Provider && s.Expire == 0 {
			return s.Fleet, nil
		}
	}
	as, err := appstream.Associations.By(r, "stack", stack)
	if err != nil {
		return "", err
	}
	if len(as) == 0 {
		return "", fault.New(fault.NotAvailable, "stack", stack, "no fleet is associated with it")
	}
	for _, a := range as {
		f, ok, err := appstream.Fleets.Get(r, a.FleetName)
		if err != nil {
			return "", err
		}
		if ok && f.State == appstream.FleetRunning {
			return f.Name, nil
		}
	}
	return as[0].FleetName, nil
}
