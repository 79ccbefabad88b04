package network

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// Retries of endpoints that failed, and of passes that failed.
const (
	retryFirst = time.Second
	retryMost  = 30 * time.Second
	checkLimit = 30 * time.Second // of one endpoint's check
	checkers   = 4                // endpoints checked at the same time
)

// reconciler is what one Run knows between its passes.
type reconciler struct {
	*Service
	seen  state.Revision             // the state that the last pass saw
	retry map[vpc.EndpointID]retryAt // endpoints that failed
}

type retryAt struct {
	after time.Duration
	when  time.Time
}

// Run keeps the driver's network at what is stored, until ctx ends. Endpoints that were available when the process
// ended are pending until their interfaces answer again.
func (s *Service) Run(ctx context.Context) error {
	r := &reconciler{Service: s, retry: map[vpc.EndpointID]retryAt{}}
	if err := s.Recover(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("start network reconciler: %w", err)
	}
	defer s.progress.set(false, 0)
	pause := retryFirst
	for {
		wake, err := r.pass(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, state.ErrClosed):
			return fmt.Errorf("reconcile network: %w", err)
		case err != nil:
			s.log.Error("network was not reconciled", "error", err, "retry", pause)
			wake, pause = s.now().Add(pause), min(2*pause, retryMost)
		default:
			pause = retryFirst
		}
		if err := r.wait(ctx, wake); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("reconcile network: %w", err)
		}
	}
}

// Recover writes that nothing is realised yet: a process that just started serves no interface. Run does it first; call
// it earlier when others read endpoints before Run begins.
func (s *Service) Recover(ctx context.Context) error {
	_, err := s.raw.Update(ctx, func(tx state.Tx) error {
		all, err := vpc.Endpoints().List(tx, state.Query{})
		if err != nil {
			return err
		}
		for _, e := range all {
			if e.State != vpc.EndpointAvailable && e.State != vpc.EndpointFailed {
				continue
			}
			e.State, e.Realised = vpc.EndpointPending, 0
			if err := vpc.Endpoints().Put(tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// resources reads everything that the rules are made of.
func (s *Service) resources(r state.Reader) (vpc.Resources, error) {
	out := vpc.Resources{UserNetworks: s.userCIDRs(), EndpointPorts: func(name string) []vpc.PortRange {
		service, _ := vpc.FindService(s.region, name)
		return service.Ports
	}}
	var err error
	if out.VPCs, err = vpc.VPCs().List(r, state.Query{}); err != nil {
		return out, err
	}
	if out.Subnets, err = vpc.Subnets().List(r, state.Query{}); err != nil {
		return out, err
	}
	if out.Groups, err = vpc.SecurityGroups().List(r, state.Query{}); err != nil {
		return out, err
	}
	if out.ACLs, err = vpc.NetworkACLs().List(r, state.Query{}); err != nil {
		return out, err
	}
	if out.RouteTables, err = vpc.RouteTables().List(r, state.Query{}); err != nil {
		return out, err
	}
	if out.Interfaces, err = vpc.NetworkInterfaces().List(r, state.Query{}); err != nil {
		return out, err
	}
	out.Endpoints, err = vpc.Endpoints().List(r, state.Query{})
	return out, err
}

// plan is what the driver must have in force: interfaces of endpoints that are not on their way out.
func (s *Service) plan(res vpc.Resources) vpc.Plan {
	living := make(map[vpc.EndpointID]*vpc.Endpoint, len(res.Endpoints))
	for _, e := range res.Endpoints {
		if e.State != vpc.EndpointDeleting && e.State != vpc.EndpointDeleted {
			living[e.ID] = e
		}
	}
	p := vpc.Plan{Snapshot: vpc.NewSnapshot(res)}
	for _, i := range res.Interfaces {
		if e := living[i.Endpoint]; e != nil {
			p.Interfaces = append(p.Interfaces, vpc.PlannedInterface{
				ID: i.ID, Endpoint: e.ID, Service: e.Service, VPC: i.VPC, Addr: i.Addr, Ports: res.EndpointPorts(e.Service),
			})
		}
	}
	return p
}

// pass reads the whole state, puts it in force, and writes what became of the endpoints.
// It returns when it wants to run again even if nothing changes; zero: never.
func (r *reconciler) pass(ctx context.Context) (wake time.Time, err error) {
	res, err := view(ctx, r.raw, func(rd state.Reader) (res vpc.Resources, err error) {
		if r.seen, err = rd.Revision(); err != nil {
			return res, err
		}
		return r.resources(rd)
	})
	if err != nil {
		return time.Time{}, fmt.Errorf("read network: %w", err)
	}
	plan := r.plan(res)
	applied := r.driver.Apply(ctx, plan)
	if ctx.Err() != nil {
		return time.Time{}, ctx.Err()
	}
	if applied == nil {
		r.snapshot.Store(plan.Snapshot)
	}
	r.progress.set(true, r.seen) // also after a failure: who waits learns nothing more by waiting

	now := r.now()
	var pending, deleting []*vpc.Endpoint
	var expired []vpc.EndpointID
	present := map[vpc.EndpointID]bool{}
	soonest := func(t time.Time) {
		if wake.IsZero() || t.Before(wake) {
			wake = t
		}
	}
	for _, e := range res.Endpoints {
		present[e.ID] = true
		switch e.State {
		case vpc.EndpointPending:
			pending = append(pending, e)
		case vpc.EndpointFailed:
			if at := r.retry[e.ID]; now.Before(at.when) {
				soonest(at.when)
			} else {
				pending = append(pending, e)
			}
		case vpc.EndpointDeleting:
			deleting = append(deleting, e)
		case vpc.EndpointDeleted:
			if at := e.Deleted.Add(r.linger); now.Before(at) {
				soonest(at)
			} else {
				expired = append(expired, e.ID)
			}
		case vpc.EndpointAvailable:
			delete(r.retry, e.ID)
		}
	}
	for id := range r.retry {
		if !present[id] {
			delete(r.retry, id)
		}
	}

	results := r.check(ctx, pending, applied)
	if ctx.Err() != nil {
		return time.Time{}, ctx.Err()
	}
	if err := r.settle(ctx, pending, results, soonest); err != nil {
		return wake, err
	}
	// What goes is taken from the store only after it was taken from the network.
	if applied == nil {
		if err := r.remove(ctx, deleting, expired); err != nil {
			return wake, err
		}
		if len(deleting) > 0 {
			soonest(now.Add(r.linger))
		}
	}
	return wake, applied
}

// check connects to the interfaces of endpoints, some at a time; the results are in the order of the endpoints.
func (r *reconciler) check(ctx context.Context, endpoints []*vpc.Endpoint, applied error) []error {
	results := make([]error, len(endpoints))
	room := make(chan struct{}, checkers)
	var work sync.WaitGroup
	for n, e := range endpoints {
		if applied != nil {
			results[n] = applied
			continue
		}
		room <- struct{}{}
		work.Go(func() {
			defer func() { <-room }()
			ctx, cancel := context.WithTimeout(ctx, checkLimit)
			defer cancel()
			for _, i := range e.Interfaces {
				if err := r.driver.Check(ctx, i); err != nil {
					results[n] = fmt.Errorf("network interface %s: %w", i, err)
					return
				}
			}
		})
	}
	work.Wait()
	return results
}

// settle writes available or failed, unless an endpoint was changed since it was checked.
func (r *reconciler) settle(ctx context.Context, checked []*vpc.Endpoint, results []error, soonest func(time.Time)) error {
	if len(checked) == 0 {
		return nil
	}
	type outcome struct {
		id  vpc.EndpointID
		err error
	}
	var outcomes []outcome
	_, err := r.raw.Update(ctx, func(tx state.Tx) error {
		outcomes = nil
		for n, was := range checked {
			e, ok, err := vpc.Endpoints().Get(tx, string(was.ID))
			if err != nil {
				return err
			}
			if !ok || e.Generation != was.Generation || e.State != vpc.EndpointPending && e.State != vpc.EndpointFailed {
				continue // changed meanwhile: the next pass sees it
			}
			outcomes = append(outcomes, outcome{e.ID, results[n]})
			status := "in-use"
			if results[n] == nil {
				e.State, e.LastError, e.Realised = vpc.EndpointAvailable, nil, e.Generation
			} else {
				status = "pending"
				e.State, e.LastError = vpc.EndpointFailed, &vpc.EndpointError{Code: "InternalError", Message: results[n].Error()}
			}
			if err := vpc.Endpoints().Put(tx, e); err != nil {
				return err
			}
			for _, id := range e.Interfaces {
				i, ok, err := vpc.NetworkInterfaces().Get(tx, string(id))
				if err != nil {
					return err
				}
				if ok && i.Status != status {
					i.Status = status
					if err := vpc.NetworkInterfaces().Put(tx, i); err != nil {
						return err
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write endpoints: %w", err)
	}
	for _, o := range outcomes {
		if o.err == nil {
			delete(r.retry, o.id)
			r.log.Info("endpoint became available", "endpoint", o.id)
			continue
		}
		at := r.retry[o.id]
		at.after = min(max(2*at.after, retryFirst), retryMost)
		at.when = r.now().Add(at.after)
		r.retry[o.id] = at
		soonest(at.when)
		r.log.Error("endpoint failed", "endpoint", o.id, "error", o.err, "retry", at.after)
	}
	return nil
}

// remove deletes the interfaces of endpoints that are off the network and forgets endpoints that were deleted long ago.
func (r *reconciler) remove(ctx context.Context, deleting []*vpc.Endpoint, expired []vpc.EndpointID) error {
	if len(deleting)+len(expired) == 0 {
		return nil
	}
	_, err := r.raw.Update(ctx, func(tx state.Tx) error {
		for _, was := range deleting {
			e, ok, err := vpc.Endpoints().Get(tx, string(was.ID))
			if err != nil {
				return err
			}
			if !ok || e.State != vpc.EndpointDeleting {
				continue
			}
			for _, id := range e.Interfaces {
				if err := vpc.NetworkInterfaces().Delete(tx, string(id)); err != nil {
					return err
				}
			}
			e.State, e.Deleted, e.Interfaces, e.Realised = vpc.EndpointDeleted, r.now().UTC(), nil, e.Generation
			if err := vpc.Endpoints().Put(tx, e); err != nil {
				return err
			}
		}
		for _, id := range expired {
			if err := vpc.Endpoints().Delete(tx, string(id)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove endpoints: %w", err)
	}
	for _, e := range deleting {
		r.log.Info("endpoint was removed from the network", "endpoint", e.ID)
	}
	return nil
}

// wait returns when something changed that the rules are made of, or when wake has come.
func (r *reconciler) wait(ctx context.Context, wake time.Time) error {
	waitCtx := ctx
	if !wake.IsZero() {
		var cancel context.CancelFunc
		waitCtx, cancel = context.WithTimeout(ctx, wake.Sub(r.now()))
		defer cancel()
	}
	for {
		changes, err := r.raw.Changes(waitCtx, r.seen)
		switch {
		case errors.Is(err, state.ErrCompacted):
			return nil // a pass reads everything
		case err != nil && ctx.Err() == nil && waitCtx.Err() != nil:
			return nil // it is time
		case err != nil:
			return err
		}
		for _, c := range changes {
			r.seen = max(r.seen, c.Revision)
			if ours(c.Kind) {
				return nil
			}
		}
		r.progress.set(true, r.seen) // nothing in there concerns the rules
	}
}

// ours says whether documents of the kind matter to the network.
func ours(k state.Kind) bool {
	switch k {
	case vpc.KindVPC, vpc.KindSubnet, vpc.KindSecurityGroup, vpc.KindNetworkACL, vpc.KindRouteTable, vpc.KindNetworkInterface, vpc.KindEndpoint:
		return true
	}
	return false
}
