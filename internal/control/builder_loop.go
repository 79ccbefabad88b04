package control

import (
	"context"
	"errors"
	"slices"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
)

// maxBuilderStarts is after how many instances that did not start in a row a builder that was to start is given up.
const maxBuilderStarts = 3

// builderLoop keeps every builder at its desired state.
func (c *Control) builderLoop() *loop {
	return &loop{
		name: "builders", store: c.Store, log: c.Log, workers: 1,
		list: listIDs(appstream.Builders),
		wake: func(r state.Reader, ch state.Change) (string, error) {
			switch ch.Kind {
			case appstream.Builders.Kind:
				return ch.ID, nil
			case appstream.Instances.Kind:
				i, ok, err := appstream.Instances.Get(r, ch.ID)
				if err != nil {
					return "", err
				}
				if !ok {
					return wakeAll, nil // the record no longer says whose it was
				}
				return string(i.Builder), nil
			default:
				if c.ServiceRole != nil && c.ServiceRole.DecidesServiceRole(ch.Kind) {
					return wakeAll, nil
				}
				return "", nil
			}
		},
		handle: everyOf(c, appstream.Builders, c.reconcileBuilder),
	}
}

func (c *Control) reconcileBuilder(ctx context.Context, id string) (time.Duration, error) {
	var again time.Duration
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		again = 0
		b, ok, err := appstream.Builders.Get(tx, id)
		if err != nil || !ok {
			return err
		}
		is, err := appstream.Instances.By(tx, "builder", id)
		if err != nil {
			return err
		}
		switch b.State {
		case appstream.BuilderPending, appstream.BuilderStarting, appstream.BuilderRunning:
			again, err = c.fillBuilder(tx, b, is)
			return err
		case appstream.BuilderStopping, appstream.BuilderStopped, appstream.BuilderDeleting, appstream.BuilderFailed:
		}
		return c.drainBuilder(tx, b, is)
	})
	return again, err
}

// fillBuilder gives a builder its instance: the first one, or one in the place of one whose session has ended. A builder runs when the
// instance can take a session.
func (c *Control) fillBuilder(tx state.Tx, b *appstream.Builder, is []*appstream.Instance) (time.Duration, error) {
	is = slices.DeleteFunc(is, func(i *appstream.Instance) bool { return i.State == appstream.InstanceEnding })
	if slices.ContainsFunc(is, func(i *appstream.Instance) bool { return i.State != appstream.InstanceStarting }) {
		if b.State == appstream.BuilderRunning {
			return 0, nil
		}
		b.State = appstream.BuilderRunning
		c.Log.Info("builder runs", "builder", b.ID())
		return 0, appstream.Builders.Put(tx, b)
	}
	if len(is) > 0 {
		return 0, nil
	}
	now := c.Now().UTC()
	if wait := b.RetryAt.Sub(now); wait > 0 {
		return wait, nil
	}
	problems, err := c.builderProblems(tx, b)
	if err != nil {
		return 0, err
	}
	if len(problems) > 0 {
		if b.State != appstream.BuilderRunning {
			return 0, c.giveUp(tx, b, problems)
		}
		return lookAgain, c.noteProblems(tx, b, problems) // a changed role wakes it at once, a changed network does not
	}
	return 0, appstream.Instances.Put(tx, &appstream.Instance{ID: newInstanceID(), Builder: b.ID(), State: appstream.InstanceStarting, Created: now})
}

// lookAgain is how often a builder looks whether its network was mended.
const lookAgain = 15 * time.Second

// builderProblems is why no instance of a builder can be made now.
func (c *Control) builderProblems(r state.Reader, b *appstream.Builder) ([]appstream.FleetError, error) {
	problems, err := c.roleErrors(r)
	if err != nil || len(problems) > 0 {
		return problems, err
	}
	if err = c.checkBuilderNetwork(r, b); err == nil {
		err = c.checkMachineRole(r, b.IamRoleArn)
	}
	f, ok := errors.AsType[*fault.Error](err)
	if !ok {
		return nil, err
	}
	code := "INVALID_SUBNET_CONFIGURATION"
	switch {
	case f.Kind == fault.InvalidRole:
		code = "MACHINE_ROLE_IS_MISSING"
	case f.Kind == fault.NotFound && f.Resource == "subnet":
		code = "SUBNET_NOT_FOUND"
	case f.Kind == fault.NotFound:
		code = "SECURITY_GROUPS_NOT_FOUND"
	}
	return []appstream.FleetError{{Code: code, Message: f.Error()}}, nil
}

// noteProblems writes what is wrong into a builder, with the time when each was seen first.
func (c *Control) noteProblems(tx state.Tx, b *appstream.Builder, problems []appstream.FleetError) error {
	was := b.Errors
	b.Errors = nil
	for _, p := range problems {
		e := appstream.BuilderError{Code: p.Code, Message: p.Message, Time: c.Now().UTC()}
		for _, w := range was {
			if w.Code == e.Code && w.Message == e.Message {
				e = w
			}
		}
		b.Errors = append(b.Errors, e)
	}
	return appstream.Builders.Put(tx, b)
}

// giveUp ends the start of a builder: only somebody can mend what is wrong.
func (c *Control) giveUp(tx state.Tx, b *appstream.Builder, problems []appstream.FleetError) error {
	b.State = appstream.BuilderFailed
	if b.Kind == appstream.AppBlockBuilder {
		b.State = appstream.BuilderStopped
	}
	c.Log.Warn("builder did not start", "builder", b.ID(), "error", problems[0].Message)
	return c.noteProblems(tx, b, problems)
}

// builderInstanceStarted writes into a builder how the start of its instance went.
func (c *Control) builderInstanceStarted(tx state.Tx, id appstream.BuilderID, startErr error) error {
	b, ok, err := appstream.Builders.Get(tx, string(id))
	if err != nil || !ok {
		return err
	}
	if startErr == nil {
		if b.StartFailures == 0 && len(b.Errors) == 0 {
			return nil
		}
		b.StartFailures, b.RetryAt, b.Errors = 0, time.Time{}, nil
		return appstream.Builders.Put(tx, b)
	}
	b.RetryAt = c.retryAt(b.StartFailures)
	b.StartFailures++
	problems := []appstream.FleetError{{Code: provisioningFailure, Message: startErr.Error()}}
	if b.StartFailures >= maxBuilderStarts && b.State == b.Kind.Starting() {
		return c.giveUp(tx, b, problems)
	}
	return c.noteProblems(tx, b, problems)
}

// drainBuilder ends a builder's instance and session; when nothing is left the builder is stopped, or no more.
func (c *Control) drainBuilder(tx state.Tx, b *appstream.Builder, is []*appstream.Instance) error {
	if err := c.endInstances(tx, is); err != nil || len(is) > 0 {
		return err
	}
	switch b.State {
	case appstream.BuilderStopping:
		b.State = appstream.BuilderStopped
		c.Log.Info("builder stopped", "builder", b.ID())
		return appstream.Builders.Put(tx, b)
	case appstream.BuilderDeleting:
		c.Log.Info("builder was deleted", "builder", b.ID())
		return appstream.Builders.Delete(tx, string(b.ID()))
	default:
		return nil
	}
}
