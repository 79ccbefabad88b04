package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/state"
)

// instanceLoop boots instances that must start and removes those that must end.
func (c *Control) instanceLoop() *loop {
	return &loop{
		name: "instances", store: c.Store, log: c.Log, workers: startsAtOnce + 4,
		list: listIDs(appstream.Instances),
		wake: func(_ state.Reader, ch state.Change) (string, error) {
			if ch.Kind != appstream.Instances.Kind || ch.Deleted {
				return "", nil
			}
			return ch.ID, nil
		},
		handle: c.reconcileInstance,
	}
}

func (c *Control) reconcileInstance(ctx context.Context, id string) (time.Duration, error) {
	i, ok, err := c.Instance(ctx, appstream.InstanceID(id))
	if err != nil || !ok {
		return 0, err
	}
	switch i.State {
	case appstream.InstanceStarting:
		return 0, c.startInstance(ctx, i)
	case appstream.InstanceEnding:
		return 0, c.endInstance(ctx, i)
	case appstream.InstanceReady, appstream.InstanceClaimed:
		return 0, nil
	default:
		return 0, fmt.Errorf("instance %s has unknown state %q", id, i.State)
	}
}

func (c *Control) startInstance(ctx context.Context, i *appstream.Instance) error {
	startCtx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	info, startErr := c.Compute.Start(startCtx, appstream.InstanceSpec{ID: i.ID, Fleet: i.Fleet})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		now, ok, err := appstream.Instances.Get(tx, string(i.ID))
		if err != nil || !ok || now.State != appstream.InstanceStarting {
			return err // it must end meanwhile: the change wakes us again
		}
		if startErr == nil {
			now.State, now.PublicKey, now.Local = appstream.InstanceReady, info.PublicKey, info.Local
		} else {
			now.State, now.Failure = appstream.InstanceEnding, startErr.Error()
		}
		if now.Builder != "" {
			err = c.builderInstanceStarted(tx, now.Builder, startErr)
		} else {
			err = c.fleetInstanceStarted(tx, now.Fleet, startErr)
		}
		return errors.Join(err, appstream.Instances.Put(tx, now))
	})
	if startErr != nil {
		c.Log.Warn("instance did not start", "instance", i.ID, "fleet", i.Fleet, "builder", i.Builder, "error", startErr)
	}
	return err
}

// provisioningFailure is the code of FleetErrors for an instance that did not start.
const provisioningFailure = "FLEET_INSTANCE_PROVISIONING_FAILURE"

// retryAt is when the next instance may be started after this many failures in a row.
func (c *Control) retryAt(failures int) time.Time {
	return c.Now().UTC().Add(min(time.Second<<min(failures, 6), time.Minute))
}

// fleetInstanceStarted writes into a fleet how the start of one of its instances went.
func (c *Control) fleetInstanceStarted(tx state.Tx, name string, startErr error) error {
	f, ok, err := appstream.Fleets.Get(tx, name)
	if err != nil || !ok {
		return err
	}
	if startErr == nil {
		if f.StartFailures == 0 && len(f.Errors) == 0 {
			return nil
		}
		f.StartFailures, f.RetryAt = 0, time.Time{}
		setOtherErrors(f)
		return appstream.Fleets.Put(tx, f)
	}
	setOtherErrors(f, appstream.FleetError{Code: provisioningFailure, Message: startErr.Error()})
	f.RetryAt = c.retryAt(f.StartFailures)
	f.StartFailures++
	return appstream.Fleets.Put(tx, f)
}

func (c *Control) endInstance(ctx context.Context, i *appstream.Instance) error {
	if err := c.Compute.Stop(ctx, i.ID, i.EndCode, i.EndReason); err != nil {
		return fmt.Errorf("stop instance: %w", err)
	}
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		return appstream.Instances.Delete(tx, string(i.ID))
	})
	return err
}

// Adopt compares what is recorded with what still runs, once after a start: what is gone is shown as ended. Until then nothing
// that is stored about instances and sessions can be believed.
func (c *Control) Adopt(ctx context.Context) error {
	running, err := c.Compute.Running(ctx)
	if err != nil {
		return fmt.Errorf("list running instances: %w", err)
	}
	var unknown []appstream.InstanceID
	_, err = c.Store.Update(ctx, func(tx state.Tx) error {
		unknown = slices.Clone(running)
		is, err := appstream.Instances.List(tx, state.Query{})
		if err != nil {
			return err
		}
		for _, i := range is {
			unknown = slices.DeleteFunc(unknown, func(id appstream.InstanceID) bool { return id == i.ID })
			if slices.Contains(running, i.ID) {
				continue
			}
			if err := c.lose(tx, i, "the server was restarted and the session's processes did not survive"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range unknown {
		if err := c.Compute.Stop(ctx, id, appstream.EndInstanceFailed, "instance is not known any more"); err != nil {
			return err
		}
	}
	return nil
}

// lose records that an instance runs no more: its session has ended, and what is left of it must go.
func (c *Control) lose(tx state.Tx, i *appstream.Instance, reason string) error {
	if i.Session != "" {
		s, ok, err := appstream.Sessions.Get(tx, string(i.Session))
		if err != nil {
			return err
		}
		if ok && s.Live() {
			if err := c.end(tx, s, appstream.EndInstanceFailed, reason); err != nil {
				return err
			}
		}
	}
	i.State, i.Failure = appstream.InstanceEnding, reason
	return appstream.Instances.Put(tx, i)
}

// watchInstances writes down what instances report until ctx ends.
func (c *Control) watchInstances(ctx context.Context) error {
	for {
		e, err := c.Compute.Next(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("next instance event: %w", err)
		}
		for !c.observe(ctx, e) {
			if !sleep(ctx, time.Second) {
				return nil
			}
		}
	}
}

// observe writes one event and reports whether that is done.
func (c *Control) observe(ctx context.Context, e appstream.InstanceEvent) bool {
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		i, ok, err := appstream.Instances.Get(tx, string(e.Instance))
		if err != nil || !ok {
			return err
		}
		if e.Kind == appstream.InstanceGone {
			if i.State == appstream.InstanceEnding {
				return nil
			}
			return c.lose(tx, i, "the instance failed")
		}
		s, ok, err := appstream.Sessions.Get(tx, string(i.Session))
		if err != nil || !ok || !s.Live() || e.Session != s.ID {
			return err
		}
		switch e.Kind {
		case appstream.ViewerConnected, appstream.ViewerDisconnected:
			s.Connected = e.Kind == appstream.ViewerConnected
			return appstream.Sessions.Put(tx, s)
		case appstream.SessionOver:
			return c.end(tx, s, e.Code, e.Reason)
		case appstream.InstanceGone:
		}
		return nil
	})
	if err != nil && ctx.Err() == nil && !errors.Is(err, state.ErrClosed) {
		c.Log.Error("writing an instance event failed", "instance", e.Instance, "kind", e.Kind, "error", err)
		return false
	}
	return true
}
