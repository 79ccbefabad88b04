package control

import (
	"context"
	"fmt"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/state"
)

// startsAtOnce bounds how many instances are booted at the same time on one machine.
const startsAtOnce = 2

// startTimeout bounds the boot of one instance.
const startTimeout = 30 * time.Second

// fleetLoop keeps every fleet at its desired state and capacity.
func (c *Control) fleetLoop() *loop {
	return &loop{
		name: "fleets", store: c.Store, log: c.Log, workers: 1,
		list: listIDs(appstream.Fleets),
		wake: func(r state.Reader, ch state.Change) (string, error) {
			switch ch.Kind {
			case appstream.Fleets.Kind:
				return ch.ID, nil
			case appstream.Instances.Kind:
				i, ok, err := appstream.Instances.Get(r, ch.ID)
				if err != nil || ok {
					return fleetOf(i), err
				}
				// The record is gone and no longer says whose it was; fleet names are in the ID of nothing else, so wake by a listing.
				return wakeAll, nil
			default:
				if c.ServiceRole != nil && c.ServiceRole.DecidesServiceRole(ch.Kind) {
					return wakeAll, nil
				}
				return "", nil
			}
		},
		handle: everyOf(c, appstream.Fleets, c.reconcileFleet),
	}
}

// wakeAll is an ID that stands for all resources of a loop.
const wakeAll = " all"

// everyOf handles a resource, or with wakeAll every one of its table.
func everyOf[T any](c *Control, t state.Table[T], handle func(context.Context, string) (time.Duration, error)) func(context.Context, string) (time.Duration, error) {
	return func(ctx context.Context, id string) (time.Duration, error) {
		if id != wakeAll {
			return handle(ctx, id)
		}
		ids, err := state.Read(ctx, c.Store, listIDs(t))
		if err != nil {
			return 0, err
		}
		var again time.Duration
		for _, id := range ids {
			a, err := handle(ctx, id)
			if err != nil {
				return 0, err
			}
			if a > 0 && (again == 0 || a < again) {
				again = a
			}
		}
		return again, nil
	}
}

func fleetOf(i *appstream.Instance) string {
	if i == nil {
		return ""
	}
	return i.Fleet
}

func (c *Control) reconcileFleet(ctx context.Context, name string) (time.Duration, error) {
	var again time.Duration
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		again = 0
		f, ok, err := appstream.Fleets.Get(tx, name)
		if err != nil || !ok {
			return err
		}
		is, err := appstream.Instances.By(tx, "fleet", name)
		if err != nil {
			return err
		}
		switch f.State {
		case appstream.FleetStarting, appstream.FleetRunning:
			again, err = c.fill(tx, f, is)
			return err
		case appstream.FleetStopping, appstream.FleetStopped:
			return c.drain(tx, f, is)
		default:
			return fmt.Errorf("fleet %s has unknown state %q", name, f.State)
		}
	})
	return again, err
}

// fill adds and removes instances until the fleet has as many as desired. A fleet runs when it can take a session, or when it
// wants no instance at all.
func (c *Control) fill(tx state.Tx, f *appstream.Fleet, is []*appstream.Instance) (time.Duration, error) {
	var alive []*appstream.Instance
	usable := 0
	for _, i := range is {
		if i.State != appstream.InstanceEnding {
			alive = append(alive, i)
		}
		if i.State == appstream.InstanceReady || i.State == appstream.InstanceClaimed {
			usable++
		}
	}
	if f.State == appstream.FleetStarting && (usable > 0 || f.DesiredInstances == 0) {
		f.State = appstream.FleetRunning
		setOtherErrors(f)
		if err := appstream.Fleets.Put(tx, f); err != nil {
			return 0, err
		}
		c.Log.Info("fleet runs", "fleet", f.Name)
	}
	lacking, err := c.checkRole(tx, f)
	if err != nil {
		return 0, err
	}
	want := int(f.DesiredInstances)
	if len(alive) < want && !lacking {
		now := c.Now().UTC()
		if wait := f.RetryAt.Sub(now); wait > 0 {
			return wait, nil
		}
		for range want - len(alive) {
			i := &appstream.Instance{ID: newInstanceID(), Fleet: f.Name, State: appstream.InstanceStarting, Created: now}
			if err := appstream.Instances.Put(tx, i); err != nil {
				return 0, err
			}
		}
	}
	// Too many: those without a session go, not yet started ones first.
	surplus := len(alive) - want
	for _, st := range []appstream.InstanceState{appstream.InstanceStarting, appstream.InstanceReady} {
		for _, i := range alive {
			if surplus > 0 && i.State == st {
				i.State = appstream.InstanceEnding
				if err := appstream.Instances.Put(tx, i); err != nil {
					return 0, err
				}
				surplus--
			}
		}
	}
	return 0, nil
}

// drain ends a fleet's instances and sessions; when nothing is left the fleet is stopped.
func (c *Control) drain(tx state.Tx, f *appstream.Fleet, is []*appstream.Instance) error {
	if err := c.endInstances(tx, is); err != nil {
		return err
	}
	if len(is) == 0 && f.State == appstream.FleetStopping {
		f.State = appstream.FleetStopped
		c.Log.Info("fleet stopped", "fleet", f.Name)
		return appstream.Fleets.Put(tx, f)
	}
	return nil
}

// endInstances asks for the end of instances and their sessions.
func (c *Control) endInstances(tx state.Tx, is []*appstream.Instance) error {
	for _, i := range is {
		switch i.State {
		case appstream.InstanceStarting, appstream.InstanceReady:
			i.State = appstream.InstanceEnding
			if err := appstream.Instances.Put(tx, i); err != nil {
				return err
			}
		case appstream.InstanceClaimed:
			s, ok, err := appstream.Sessions.Get(tx, string(i.Session))
			if err != nil {
				return err
			}
			if ok && s.Live() && s.Expire == 0 {
				s.Expire = appstream.EndByAdministrator
				if err := appstream.Sessions.Put(tx, s); err != nil {
					return err
				}
			}
		case appstream.InstanceEnding:
		}
	}
	return nil
}

// listIDs lists the IDs of a table.
func listIDs[T any](t state.Table[T]) func(state.Reader) ([]string, error) {
	return func(r state.Reader) ([]string, error) {
		docs, err := r.List(t.Kind, state.Query{})
		ids := make([]string, 0, len(docs))
		for _, d := range docs {
			ids = append(ids, d.ID)
		}
		return ids, err
	}
}
