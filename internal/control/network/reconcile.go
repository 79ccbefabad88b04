package network

import (
	"cmp"
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
	seen   state.Revision // the state that the last pass saw
	room   chan struct{}  // holds one item for each check that runs
	checks sync.WaitGroup
	nudged chan struct{} // holds one item when a check wants another pass that no change will bring

	probing chan struct{} // holds one item for each check of health that runs
	watched chan struct{} // holds one item when watch has to look again

	mu       sync.Mutex
	attempts map[vpc.EndpointID]attempt
	pulses   map[vpc.NetworkInterfaceID]*pulse
}

// attempt is what was last tried to make an endpoint available.
type attempt struct {
	generation int64
	running    bool
	after      time.Duration // that it waits before it is tried again
	when       time.Time     // not before
}

// Run keeps the driver's network at what is stored, until ctx ends. Endpoints that were available when the process
// ended are pending until their interfaces answer again.
func (s *Service) Run(ctx context.Context) error {
	r := &reconciler{
		Service: s, attempts: map[vpc.EndpointID]attempt{},
		room: make(chan struct{}, checkers), nudged: make(chan struct{}, 1), watched: make(chan struct{}, 1), probing: make(chan struct{}, healthChecks),
	}
	ctx, cancel := context.WithCancel(ctx)
	defer r.checks.Wait()
	defer cancel()
	if err := s.Recover(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("start network reconciler: %w", err)
	}
	defer s.progress.set(false, 0)
	r.checks.Go(func() { r.watch(ctx) })
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
		return cmp.Or(failInterrupted(tx), dropTokens(tx))
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
	if out.PrefixLists, err = vpc.PrefixLists().List(r, state.Query{}); err != nil {
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
			for _, a := range i.Addrs() {
				p.Interfaces = append(p.Interfaces, vpc.PlannedInterface{
					ID: i.ID, Endpoint: e.ID, Service: e.Service, VPC: i.VPC, Addr: a, Ports: res.EndpointPorts(e.Service),
				})
			}
		}
	}
	return p
}

// pass reads the whole state, puts it in force, and writes what became of the endpoints.
// It returns when it wants to run again even if nothing changes; zero: never.
func (r *reconciler) pass(ctx context.Context) (wake time.Time, err error) {
	res, err := state.Read(ctx, r.raw, func(rd state.Reader) (res vpc.Resources, err error) {
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

	r.follow(res)
	now := r.now()
	var deleting []*vpc.Endpoint
	var expired []vpc.EndpointID
	soonest := func(t time.Time) {
		if wake.IsZero() || t.Before(wake) {
			wake = t
		}
	}
	present := make(map[vpc.EndpointID]bool, len(res.Endpoints))
	for _, e := range res.Endpoints {
		present[e.ID] = true
		switch e.State {
		case vpc.EndpointPending, vpc.EndpointFailed:
			if at := r.try(ctx, e, now, applied); !at.IsZero() {
				soonest(at)
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
		}
	}
	r.forget(present)
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

// try begins to make an endpoint available, unless that runs already; or it returns when to try again.
func (r *reconciler) try(ctx context.Context, e *vpc.Endpoint, now time.Time, applied error) (again time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.attempts[e.ID]
	if a.generation == e.Generation {
		if a.running {
			return time.Time{}
		}
		if now.Before(a.when) {
			return a.when
		}
	} else {
		a = attempt{generation: e.Generation}
	}
	a.running = true
	r.attempts[e.ID] = a
	r.checks.Go(func() {
		lost := map[vpc.NetworkInterfaceID]error{}
		result := applied
		if result == nil {
			lost, result = r.check(ctx, e)
		}
		if ctx.Err() != nil {
			return
		}
		r.conclude(e, result, r.settle(ctx, e, lost, result))
	})
	return time.Time{}
}

// conclude notes how an attempt ended, and wakes the next pass when no change of the store will.
func (r *reconciler) conclude(e *vpc.Endpoint, result, written error) {
	if written != nil {
		r.log.Error("endpoint was not written", "endpoint", e.ID, "error", written)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.attempts[e.ID]
	if a.generation != e.Generation {
		return // another attempt runs for what the endpoint is now
	}
	if result == nil && written == nil {
		delete(r.attempts, e.ID)
		return
	}
	a.running = false
	a.after = min(max(2*a.after, retryFirst), retryMost)
	a.when = r.now().Add(a.after)
	r.attempts[e.ID] = a
	select {
	case r.nudged <- struct{}{}:
	default:
	}
}

// forget drops attempts of endpoints that are no more.
func (r *reconciler) forget(present map[vpc.EndpointID]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, a := range r.attempts {
		if !present[id] && !a.running {
			delete(r.attempts, id)
		}
	}
}

// check connects to every interface of an endpoint; some endpoints are checked at the same time. lost are those that do not answer;
// the error is why the endpoint cannot be available. One that was available before is while one of them answers.
func (r *reconciler) check(ctx context.Context, e *vpc.Endpoint) (lost map[vpc.NetworkInterfaceID]error, err error) {
	select {
	case r.room <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-r.room }()
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	lost = map[vpc.NetworkInterfaceID]error{}
	for _, i := range e.Interfaces {
		if why := r.driver.Check(ctx, i); why != nil {
			lost[i] = fmt.Errorf("network interface %s: %w", i, why)
			err = cmp.Or(err, lost[i])
		}
	}
	if e.Served && len(lost) < len(e.Interfaces) {
		err = nil
	}
	return lost, err
}

// settle writes available or failed, unless the endpoint was changed since it was checked.
func (r *reconciler) settle(ctx context.Context, was *vpc.Endpoint, lost map[vpc.NetworkInterfaceID]error, result error) error {
	written := false
	_, err := r.raw.Update(ctx, func(tx state.Tx) error {
		written = false
		e, ok, err := vpc.Endpoints().Get(tx, string(was.ID))
		if err != nil {
			return err
		}
		if !ok || e.Generation != was.Generation || e.State != vpc.EndpointPending && e.State != vpc.EndpointFailed {
			return nil // the next pass sees what it is now
		}
		written = true
		if result == nil {
			e.State, e.LastError, e.Realised, e.Served = vpc.EndpointAvailable, nil, e.Generation, true
		} else {
			e.State, e.LastError = vpc.EndpointFailed, unhealthy(result)
		}
		for _, id := range e.Interfaces {
			status := vpc.InterfaceInUse
			if why := lost[id]; why != nil || result != nil {
				status = vpc.InterfacePending
				e.LastError = cmp.Or(e.LastError, unhealthy(cmp.Or(why, result)))
			}
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
		return vpc.Endpoints().Put(tx, e)
	})
	switch {
	case err != nil:
		return err
	case written && result == nil:
		r.log.Info("endpoint became available", "endpoint", was.ID, "lost", len(lost))
	case written:
		r.log.Error("endpoint failed", "endpoint", was.ID, "error", result)
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

// wait returns when something changed that the rules are made of, when a check asks for a pass, or when wake has come.
func (r *reconciler) wait(ctx context.Context, wake time.Time) error {
	waitCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !wake.IsZero() {
		timer := time.AfterFunc(wake.Sub(r.now()), cancel)
		defer timer.Stop()
	}
	var nudges sync.WaitGroup
	defer nudges.Wait()
	defer cancel()
	nudges.Go(func() {
		select {
		case <-r.nudged:
			cancel()
		case <-waitCtx.Done():
		}
	})
	for {
		changes, err := r.raw.Changes(waitCtx, r.seen)
		switch {
		case errors.Is(err, state.ErrCompacted):
			return nil // a pass reads everything
		case err != nil && ctx.Err() == nil && waitCtx.Err() != nil:
			return nil // it is time, or a check asks
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
	case vpc.KindVPC, vpc.KindSubnet, vpc.KindSecurityGroup, vpc.KindNetworkACL, vpc.KindRouteTable, vpc.KindNetworkInterface, vpc.KindEndpoint, vpc.KindPrefixList:
		return true
	}
	return false
}
