package network

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// Checks of interfaces that serve. Two that fail in a row take an interface out of use, two that succeed put it back: what is lost is
// known within about healthEvery + 2 × checkOneLimit.
const (
	healthEvery   = 5 * time.Second
	checkOneLimit = 2 * time.Second // of one port of one interface
	inARow        = 2
	healthChecks  = 32 // at the same time: those of a lost zone do not delay the others much
)

// pulse is what is known about an interface between its checks.
type pulse struct {
	endpoint vpc.EndpointID
	ports    []vpc.PortRange // of the endpoint's service
	down     bool            // it is not in use
	next     time.Time       // when it is checked again
	running  bool
	round    int // counts checks
	streak   int // checks in a row that contradict down
}

// watch checks the interfaces of endpoints that are available, each on its own, until ctx ends.
func (r *reconciler) watch(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		now := r.now()
		soonest := now.Add(r.healthEvery)
		r.mu.Lock()
		for id, p := range r.pulses {
			switch {
			case p.running:
			case now.Before(p.next):
				soonest = earlier(soonest, p.next)
			default:
				p.running = true
				running.Go(func() { r.examine(ctx, id, p) })
			}
		}
		r.mu.Unlock()
		timer := time.NewTimer(max(soonest.Sub(now), time.Millisecond))
		select {
		case <-timer.C:
		case <-r.watched: // others are to be checked, or one of them was
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// follow has watch check the interfaces of endpoints that are available now, and no others.
func (r *reconciler) follow(res vpc.Resources) {
	r.mu.Lock()
	defer r.mu.Unlock()
	had := r.pulses
	r.pulses = map[vpc.NetworkInterfaceID]*pulse{}
	available := map[vpc.EndpointID]*vpc.Endpoint{}
	for _, e := range res.Endpoints {
		if e.State == vpc.EndpointAvailable {
			available[e.ID] = e
		}
	}
	for _, i := range res.Interfaces {
		e := available[i.Endpoint]
		if e == nil {
			continue
		}
		p := had[i.ID]
		if p == nil {
			p = &pulse{endpoint: e.ID, ports: res.EndpointPorts(e.Service), next: r.now().Add(r.spread())}
		}
		if down := i.Status != vpc.InterfaceInUse; p.down != down {
			p.down, p.streak = down, 0
		}
		r.pulses[i.ID] = p
	}
	r.nudgeWatch()
}

func (r *reconciler) nudgeWatch() {
	select {
	case r.watched <- struct{}{}:
	default:
	}
}

// spread is the time between two checks, with jitter, so that those of many interfaces do not come at once.
func (r *reconciler) spread() time.Duration {
	return r.healthEvery*4/5 + rand.N(max(r.healthEvery*2/5, 1)) //nolint:gosec // spreads load
}

// examine checks the first port of an interface and, in turn, one of the others, and notes what that means.
func (r *reconciler) examine(ctx context.Context, id vpc.NetworkInterfaceID, p *pulse) {
	err := r.answers(ctx, id, p)
	if ctx.Err() != nil {
		return
	}
	r.mu.Lock()
	changed := false
	if (err != nil) != p.down {
		p.streak++
		changed = p.streak >= inARow
	} else {
		p.streak = 0
	}
	p.round++
	down := p.down
	r.mu.Unlock()
	if changed {
		if werr := r.turn(ctx, id, p.endpoint, err); werr != nil {
			r.log.Error("health of a network interface was not written", "interface", id, "error", werr)
		} else {
			down = err != nil
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p.running = false
	if down != p.down {
		p.down, p.streak = down, 0
	}
	wait := r.spread()
	if p.streak > 0 { // make sure soon
		wait /= 5
	}
	p.next = r.now().Add(wait)
	r.nudgeWatch()
}

// answers connects to an interface.
func (r *reconciler) answers(ctx context.Context, id vpc.NetworkInterfaceID, p *pulse) error {
	if len(p.ports) == 0 {
		return nil
	}
	select {
	case r.probing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-r.probing }()
	total := 0
	for _, x := range p.ports {
		total += x.To - x.From + 1
	}
	ports := []uint16{uint16(p.ports[0].From)} //nolint:gosec // a port
	at := p.round % total
	for _, x := range p.ports {
		n := x.To - x.From + 1
		if at < n {
			ports = append(ports, uint16(x.From+at)) //nolint:gosec // a port
			break
		}
		at -= n
	}
	for _, port := range ports {
		one, cancel := context.WithTimeout(ctx, checkOneLimit)
		err := r.driver.CheckPort(one, id, port)
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// turn writes that an interface is lost (result says why) or serves again. An endpoint stays available while one of its interfaces
// is in use; when none is, it failed, and is tried again as a whole.
func (r *reconciler) turn(ctx context.Context, id vpc.NetworkInterfaceID, endpoint vpc.EndpointID, result error) error {
	left := -1 // interfaces in use; -1: nothing was written
	_, err := r.raw.Update(ctx, func(tx state.Tx) error {
		left = -1
		e, ok, err := vpc.Endpoints().Get(tx, string(endpoint))
		if err != nil || !ok || e.State != vpc.EndpointAvailable {
			return err // it is being checked as a whole, or on its way out
		}
		i, ok, err := vpc.NetworkInterfaces().Get(tx, string(id))
		if err != nil || !ok || i.Endpoint != endpoint {
			return err
		}
		if i.Status = vpc.InterfaceInUse; result != nil {
			i.Status = vpc.InterfacePending
		}
		if err := vpc.NetworkInterfaces().Put(tx, i); err != nil {
			return err
		}
		left = 0
		for _, other := range e.Interfaces {
			o, ok, err := vpc.NetworkInterfaces().Get(tx, string(other))
			if err != nil {
				return err
			}
			if ok && o.Status == vpc.InterfaceInUse {
				left++
			}
		}
		switch {
		case left == 0:
			e.State, e.LastError = vpc.EndpointFailed, unhealthy(fmt.Errorf("no network interface answers; the last was %s (%s): %w", id, i.Zone, result))
		case result != nil:
			e.LastError = unhealthy(fmt.Errorf("network interface %s (%s) does not answer: %w", id, i.Zone, result))
		case left == len(e.Interfaces):
			e.LastError = nil
		}
		return vpc.Endpoints().Put(tx, e)
	})
	switch {
	case err != nil || left < 0:
	case result != nil:
		r.log.Error("network interface was lost", "endpoint", endpoint, "interface", id, "left", left, "error", result)
	default:
		r.log.Info("network interface serves again", "endpoint", endpoint, "interface", id)
	}
	return err
}

func unhealthy(err error) *vpc.EndpointError {
	return &vpc.EndpointError{Code: "InternalError", Message: err.Error()}
}
