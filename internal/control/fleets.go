package control

import (
	"context"
	"fmt"
	"slices"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
)

// FleetChange is what UpdateFleet sends: nil members stay as they are.
type FleetChange struct {
	Description, DisplayName, ImageName, InstanceType, StreamView, IamRoleArn *string
	DesiredInstances                                                          *int32
	MaxUserDuration, DisconnectTimeout, IdleTimeout                           *time.Duration
	InternetAccess                                                            *bool
	SubnetIDs, SecurityGroupIDs                                               []string
}

// whileRunning reports whether every sent member may change on a running fleet (UpdateFleet: display name, capacity, image and the
// idle and disconnect timeouts).
func (ch *FleetChange) whileRunning() bool {
	return ch.Description == nil && ch.InstanceType == nil && ch.StreamView == nil && ch.IamRoleArn == nil &&
		ch.MaxUserDuration == nil && ch.InternetAccess == nil && ch.SubnetIDs == nil && ch.SecurityGroupIDs == nil
}

// maxInstances bounds a fleet on one machine.
const maxInstances = 100

// CreateFleet makes a fleet, stopped.
func (c *Control) CreateFleet(ctx context.Context, f appstream.Fleet) (*appstream.Fleet, error) {
	if err := appstream.CheckName("Name", f.Name); err != nil {
		return nil, err
	}
	f.CreatedTime, f.State = c.Now().UTC(), appstream.FleetStopped
	if f.FleetType == "" {
		f.FleetType = appstream.AlwaysOn
	}
	if f.MaxUserDuration == 0 {
		f.MaxUserDuration = appstream.DefaultUserDuration * time.Second
	}
	if f.DisconnectTimeout == 0 {
		f.DisconnectTimeout = appstream.DefaultDisconnectTimeout * time.Second
	}
	if f.StreamView == "" {
		f.StreamView = "APP"
	}
	if err := checkFleet(&f); err != nil {
		return nil, err
	}
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		if _, ok, err := appstream.Fleets.Get(tx, f.Name); err != nil {
			return err
		} else if ok {
			return fault.New(fault.AlreadyExists, "fleet", f.Name, "a fleet with this name exists")
		}
		if err := c.asServiceRole(tx, ""); err != nil {
			return err
		}
		if err := c.checkMachineRole(tx, f.IamRoleArn); err != nil {
			return err
		}
		return appstream.Fleets.Put(tx, &f)
	})
	if err != nil {
		return nil, err
	}
	return &f, nil
}

// checkFleet normalises and refuses values outside the API's ranges.
func checkFleet(f *appstream.Fleet) error {
	f.IdleTimeout = appstream.RoundIdle(f.IdleTimeout)
	switch {
	case f.FleetType == appstream.Elastic:
		return fault.New(fault.Unsupported, "fleetType", "", "ELASTIC fleets run applications from app blocks, which this version does not serve")
	case f.FleetType != appstream.AlwaysOn && f.FleetType != appstream.OnDemand:
		return fault.Newf(fault.Invalid, "fleetType", "", "%q is not ALWAYS_ON, ON_DEMAND or ELASTIC", f.FleetType)
	case f.ImageName != BaseImage:
		return fault.New(fault.NotFound, "image", f.ImageName, "there is no image with this name")
	case f.DesiredInstances < 0 || f.DesiredInstances > maxInstances:
		return fault.Newf(fault.Invalid, "computeCapacity.desiredInstances", "", "%d is not between 0 and %d", f.DesiredInstances, maxInstances)
	case outside(f.MaxUserDuration, appstream.MinUserDuration, appstream.MaxUserDuration):
		return rangeFault("maxUserDurationInSeconds", f.MaxUserDuration, appstream.MinUserDuration, appstream.MaxUserDuration)
	case outside(f.DisconnectTimeout, appstream.MinDisconnectTimeout, appstream.MaxDisconnectTimeout):
		return rangeFault("disconnectTimeoutInSeconds", f.DisconnectTimeout, appstream.MinDisconnectTimeout, appstream.MaxDisconnectTimeout)
	case f.IdleTimeout != 0 && outside(f.IdleTimeout, appstream.MinIdleTimeout, appstream.MaxIdleTimeout):
		return rangeFault("idleDisconnectTimeoutInSeconds", f.IdleTimeout, appstream.MinIdleTimeout, appstream.MaxIdleTimeout)
	}
	return nil
}

func outside(d time.Duration, lo, hi int) bool {
	return d < time.Duration(lo)*time.Second || d > time.Duration(hi)*time.Second
}

func rangeFault(member string, d time.Duration, lo, hi int) error {
	return fault.Newf(fault.Invalid, member, "", "%d is not between %d and %d", d/time.Second, lo, hi)
}

// UpdateFleet changes the members that were sent; a running fleet takes only some of them.
func (c *Control) UpdateFleet(ctx context.Context, name string, ch FleetChange) (*appstream.Fleet, error) {
	return c.changeFleet(ctx, name, func(tx state.Tx, f *appstream.Fleet) error {
		switch f.State {
		case appstream.FleetStarting, appstream.FleetStopping:
			return fault.Newf(fault.InUse, "fleet", name, "it is %s; update it when it is RUNNING or STOPPED", f.State)
		case appstream.FleetRunning:
			if !ch.whileRunning() {
				return fault.New(fault.InUse, "fleet", name, "only display name, capacity, image and the idle and disconnect timeouts can change while it is RUNNING")
			}
		case appstream.FleetStopped:
		}
		set(&f.Description, ch.Description)
		set(&f.DisplayName, ch.DisplayName)
		set(&f.ImageName, ch.ImageName)
		set(&f.InstanceType, ch.InstanceType)
		set(&f.StreamView, ch.StreamView)
		set(&f.IamRoleArn, ch.IamRoleArn)
		set(&f.DesiredInstances, ch.DesiredInstances)
		set(&f.MaxUserDuration, ch.MaxUserDuration)
		set(&f.DisconnectTimeout, ch.DisconnectTimeout)
		set(&f.IdleTimeout, ch.IdleTimeout)
		set(&f.InternetAccess, ch.InternetAccess)
		setList(&f.SubnetIDs, ch.SubnetIDs)
		setList(&f.SecurityGroupIDs, ch.SecurityGroupIDs)
		if ch.IamRoleArn != nil {
			if err := c.checkMachineRole(tx, f.IamRoleArn); err != nil {
				return err
			}
		}
		return checkFleet(f)
	})
}

// StartFleet asks for RUNNING. Starting what starts or runs is not an error.
func (c *Control) StartFleet(ctx context.Context, name string) error {
	_, err := c.changeFleet(ctx, name, func(_ state.Tx, f *appstream.Fleet) error {
		switch f.State {
		case appstream.FleetStopping:
			return fault.New(fault.NotPermitted, "fleet", name, "it is STOPPING; start it when it is STOPPED")
		case appstream.FleetStopped:
			f.State, f.Errors = appstream.FleetStarting, nil
		case appstream.FleetStarting, appstream.FleetRunning:
		}
		return nil
	})
	return err
}

// StopFleet asks for STOPPED; its sessions end. Stopping what stops or is stopped is not an error.
func (c *Control) StopFleet(ctx context.Context, name string) error {
	_, err := c.changeFleet(ctx, name, func(_ state.Tx, f *appstream.Fleet) error {
		if f.State != appstream.FleetStopped {
			f.State = appstream.FleetStopping
		}
		return nil
	})
	return err
}

// DeleteFleet removes a stopped fleet that no stack is associated with.
func (c *Control) DeleteFleet(ctx context.Context, name string) error {
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		f, ok, err := appstream.Fleets.Get(tx, name)
		if err != nil {
			return err
		}
		if !ok {
			return fleetNotFound(name)
		}
		as, err := appstream.Associations.By(tx, "fleet", name)
		if err != nil {
			return err
		}
		if len(as) > 0 {
			return fault.Newf(fault.InUse, "fleet", name, "it is associated with stack %s", as[0].StackName)
		}
		if f.State != appstream.FleetStopped {
			return fault.Newf(fault.InUse, "fleet", name, "it is %s; delete it when it is STOPPED", f.State)
		}
		return appstream.Fleets.Delete(tx, name)
	})
	return err
}

// Fleets returns the named fleets, all when no name is given, in order of their names.
func (c *Control) Fleets(ctx context.Context, names []string) ([]*appstream.Fleet, error) {
	return named(ctx, c.Store, appstream.Fleets, "fleet", names)
}

// Capacity counts a fleet's instances by what they do.
type Capacity struct{ Running, InUse, Available int32 }

// FleetCapacity counts what a fleet has now.
func (c *Control) FleetCapacity(ctx context.Context, name string) (Capacity, error) {
	return state.Read(ctx, c.Store, func(r state.Reader) (n Capacity, err error) {
		is, err := appstream.Instances.By(r, "fleet", name)
		for _, i := range is {
			switch i.State {
			case appstream.InstanceReady:
				n.Running++
				n.Available++
			case appstream.InstanceClaimed:
				n.Running++
				n.InUse++
			case appstream.InstanceStarting, appstream.InstanceEnding:
			}
		}
		return n, err
	})
}

// AssociateFleet lets users of the stack use the fleet. Repeating it is not an error.
func (c *Control) AssociateFleet(ctx context.Context, fleet, stack string) error {
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		if _, ok, err := appstream.Fleets.Get(tx, fleet); err != nil {
			return err
		} else if !ok {
			return fleetNotFound(fleet)
		}
		if _, ok, err := appstream.Stacks.Get(tx, stack); err != nil {
			return err
		} else if !ok {
			return stackNotFound(stack)
		}
		return appstream.Associations.Put(tx, &appstream.Association{FleetName: fleet, StackName: stack})
	})
	return err
}

// DisassociateFleet undoes AssociateFleet; sessions between the two must have ended.
func (c *Control) DisassociateFleet(ctx context.Context, fleet, stack string) error {
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		a := appstream.Association{FleetName: fleet, StackName: stack}
		id := appstream.Associations.ID(&a)
		if _, ok, err := appstream.Associations.Get(tx, id); err != nil {
			return err
		} else if !ok {
			return fault.Newf(fault.NotFound, "fleet", fleet, "it is not associated with stack %s", stack)
		}
		ss, err := appstream.Sessions.By(tx, "live-stack", stack)
		if err != nil {
			return err
		}
		for _, s := range ss {
			if s.Fleet == fleet {
				return fault.Newf(fault.InUse, "fleet", fleet, "session %s of stack %s runs on it", s.ID, stack)
			}
		}
		return appstream.Associations.Delete(tx, id)
	})
	return err
}

// AssociatedStacks returns the names of the stacks whose users use the fleet.
func (c *Control) AssociatedStacks(ctx context.Context, fleet string) ([]string, error) {
	return c.associated(ctx, "fleet", fleet, func(a *appstream.Association) string { return a.StackName })
}

// AssociatedFleets returns the names of the fleets that users of the stack use.
func (c *Control) AssociatedFleets(ctx context.Context, stack string) ([]string, error) {
	return c.associated(ctx, "stack", stack, func(a *appstream.Association) string { return a.FleetName })
}

func (c *Control) associated(ctx context.Context, key, value string, name func(*appstream.Association) string) ([]string, error) {
	return state.Read(ctx, c.Store, func(r state.Reader) ([]string, error) {
		as, err := appstream.Associations.By(r, key, value)
		out := make([]string, 0, len(as))
		for _, a := range as {
			out = append(out, name(a))
		}
		return out, err
	})
}

func (c *Control) changeFleet(ctx context.Context, name string, change func(state.Tx, *appstream.Fleet) error) (*appstream.Fleet, error) {
	var out *appstream.Fleet
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		f, ok, err := appstream.Fleets.Get(tx, name)
		if err != nil {
			return err
		}
		if !ok {
			return fleetNotFound(name)
		}
		if err := change(tx, f); err != nil {
			return err
		}
		out = f
		return appstream.Fleets.Put(tx, f)
	})
	return out, err
}

func fleetNotFound(name string) error {
	return fault.New(fault.NotFound, "fleet", name, "there is no fleet with this name")
}

// BaseImage is the image that every fleet of this version runs: this machine's own applications.
const BaseImage = "Penstock-Base"

// AwaitCapacity waits until the fleet runs with an instance that is ready or in use, or returns at once when it is stopped, wants none, or
// lacks the service role.
func (c *Control) AwaitCapacity(ctx context.Context, name string) error {
	var last appstream.FleetState
	var problems []appstream.FleetError
	err := state.Await(ctx, c.Store, func(r state.Reader) (bool, error) {
		f, ok, err := appstream.Fleets.Get(r, name)
		if err != nil || !ok {
			return true, err
		}
		last, problems = f.State, f.Errors
		if f.State == appstream.FleetStopped || f.State == appstream.FleetStopping || f.DesiredInstances == 0 ||
			slices.ContainsFunc(f.Errors, isRoleError) { // which only somebody can mend
			return true, nil
		}
		if f.State != appstream.FleetRunning {
			return false, nil
		}
		is, err := appstream.Instances.By(r, "fleet", name)
		return slices.ContainsFunc(is, func(i *appstream.Instance) bool {
			return i.State == appstream.InstanceReady || i.State == appstream.InstanceClaimed
		}), err
	})
	if err != nil && len(problems) > 0 {
		return fmt.Errorf("fleet %s is still %s: %s: %w", name, last, problems[0].Message, err)
	}
	return err
}
