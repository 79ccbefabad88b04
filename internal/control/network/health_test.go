package network_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock.dev/penstock/internal/control/network"
	"penstock.dev/penstock/internal/hostnet/loopback"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// lossy is a driver some of whose interfaces do not answer.
type lossy struct {
	*loopback.Driver
	mu        sync.Mutex
	lost      map[vpc.NetworkInterfaceID]bool
	strangers bool // those that lost does not name are lost
}

var errLost = errors.New("nobody answers")

func (d *lossy) lose(lost bool, ids ...vpc.NetworkInterfaceID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range ids {
		d.lost[id] = lost
	}
}

func (d *lossy) isLost(id vpc.NetworkInterfaceID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	lost, known := d.lost[id]
	return lost || !known && d.strangers
}

func (d *lossy) Check(ctx context.Context, id vpc.NetworkInterfaceID) error {
	if d.isLost(id) {
		return errLost
	}
	return d.Driver.Check(ctx, id)
}

func (d *lossy) CheckPort(ctx context.Context, id vpc.NetworkInterfaceID, port uint16) error {
	if d.isLost(id) {
		return errLost
	}
	return d.Driver.CheckPort(ctx, id, port)
}

// TestZonesAreLostAndComeBack: each interface has its own health; the endpoint is available while one serves, failed when none does,
// also over a modification and a restart; running connections are not touched by any of it.
func TestZonesAreLostAndComeBack(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	inner, err := loopback.New(loopback.Config{Store: store, Spread: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	d := &lossy{Driver: inner, lost: map[vpc.NetworkInterfaceID]bool{}}
	begin := func() (*network.Service, func()) {
		s := network.New(network.Config{
			Store: store, Driver: d, Region: region, AccountID: account, HealthEvery: 50 * time.Millisecond, DeletedLinger: time.Millisecond,
		})
		ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		return s, sync.OnceFunc(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	s, stop := begin()
	defer func() { stop() }()
	w := newSite(t, s)
	e := awaitState(t, store, w.endpoint(t, s, w.a.ID, w.b.ID).ID, vpc.EndpointAvailable)
	a, b := e.Interfaces[0], e.Interfaces[1]

	// want waits for the endpoint's state and the state of both interfaces, and returns the endpoint.
	want := func(what string, state_ vpc.EndpointState, statusA, statusB string) *vpc.Endpoint {
		t.Helper()
		var e2 *vpc.Endpoint
		await(t, store, what, func(r state.Reader) (bool, error) {
			var err error
			if e2, _, err = vpc.Endpoints().Get(r, string(e.ID)); err != nil {
				return false, err
			}
			i, okA, errA := vpc.NetworkInterfaces().Get(r, string(a))
			j, okB, errB := vpc.NetworkInterfaces().Get(r, string(b))
			return okA && okB && e2.State == state_ && i.Status == statusA && j.Status == statusB, errors.Join(errA, errB)
		})
		return e2
	}
	says := func(e *vpc.Endpoint, words ...string) {
		t.Helper()
		for _, word := range words {
			if e.LastError == nil || !strings.Contains(e.LastError.Message, word) {
				t.Errorf("last error %+v does not say %q", e.LastError, word)
			}
		}
	}
	r := &run{Service: s, driver: inner}
	mine, served := r.dial(t, "127.0.0.1", w.vpc.ID, r.interfaces(t, e)[1].Addr, 443)
	if served == nil {
		t.Fatal("no connection")
	}
	defer mine.Close()
	defer served.Close()
	alive := func(when string) {
		t.Helper()
		if _, err := mine.Write([]byte{1}); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		_ = served.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := served.Read(make([]byte, 1)); err != nil || n != 1 {
			t.Fatalf("%s: the running connection: %v", when, err)
		}
	}

	d.lose(true, a)
	says(want("one lost", vpc.EndpointAvailable, vpc.InterfacePending, vpc.InterfaceInUse), string(a), errLost.Error())
	alive("one lost")
	d.lose(false, a)
	if e := want("it is back", vpc.EndpointAvailable, vpc.InterfaceInUse, vpc.InterfaceInUse); e.LastError != nil {
		t.Errorf("last error stays: %+v", e.LastError)
	}
	d.lose(true, a, b)
	says(want("both lost", vpc.EndpointFailed, vpc.InterfacePending, vpc.InterfacePending), "no network interface answers")
	alive("both lost")
	d.lose(false, b)
	says(want("one is back", vpc.EndpointAvailable, vpc.InterfacePending, vpc.InterfaceInUse), string(a))

	// A modification with one lost: pending, and available again without it.
	if err := s.ModifyVPCEndpoint(t.Context(), network.ModifyEndpoint{ID: e.ID, AddGroups: []vpc.SecurityGroupID{w.group.ID}}); err != nil {
		t.Fatal(err)
	}
	await(t, store, "the modification", func(rd state.Reader) (bool, error) {
		e, _, err := vpc.Endpoints().Get(rd, string(e.ID))
		return e.State == vpc.EndpointAvailable && e.Realised == e.Generation, err
	})
	want("modified with one lost", vpc.EndpointAvailable, vpc.InterfacePending, vpc.InterfaceInUse)
	alive("modified")

	// So it is after a restart of the reconciler.
	stop()
	s, stop = begin()
	want("restarted with one lost", vpc.EndpointAvailable, vpc.InterfacePending, vpc.InterfaceInUse)
	d.lose(false, a)
	if e := want("all are back", vpc.EndpointAvailable, vpc.InterfaceInUse, vpc.InterfaceInUse); e.LastError != nil {
		t.Errorf("last error stays: %+v", e.LastError)
	}
	alive("at the end")

	// What never served is not made available by half.
	d.mu.Lock()
	d.strangers = true
	d.mu.Unlock()
	other := awaitState(t, store, w.endpoint(t, s, w.a.ID, w.b.ID).ID, vpc.EndpointFailed)
	d.lose(false, other.Interfaces[1])
	await(t, store, "a check that finds one interface", func(rd state.Reader) (bool, error) {
		e, _, err := vpc.Endpoints().Get(rd, string(other.ID))
		if e.State == vpc.EndpointAvailable {
			t.Fatal("available with an interface that never answered")
		}
		return e.LastError != nil && strings.Contains(e.LastError.Message, string(other.Interfaces[0])), err
	})
	d.lose(false, other.Interfaces[0])
	awaitState(t, store, other.ID, vpc.EndpointAvailable)
}

// TestOneBlinkIsNoLoss: a check that fails once changes nothing.
func TestOneBlinkIsNoLoss(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	inner, err := loopback.New(loopback.Config{Store: store, Spread: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	d := &blinking{Driver: inner, asked: make(chan struct{}, 64)}
	s := network.New(network.Config{Store: store, Driver: d, Region: region, AccountID: account, HealthEvery: 20 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	w := newSite(t, s)
	e := awaitState(t, store, w.endpoint(t, s, w.a.ID).ID, vpc.EndpointAvailable)
	var before state.Revision
	for i := range 24 {
		select {
		case <-d.asked:
		case <-time.After(30 * time.Second):
			t.Fatal("interfaces are not checked")
		}
		if i == 0 {
			if err := store.View(ctx, func(r state.Reader) (err error) { before, err = r.Revision(); return err }); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := store.View(ctx, func(r state.Reader) error {
		now, err := r.Revision()
		i, _, ierr := vpc.NetworkInterfaces().Get(r, string(e.Interfaces[0]))
		if now != before || i.Status != vpc.InterfaceInUse {
			t.Errorf("checks that fail now and then wrote something: %+v", i)
		}
		return errors.Join(err, ierr)
	}); err != nil {
		t.Error(err)
	}
}

// blinking fails every other check.
type blinking struct {
	*loopback.Driver
	mu    sync.Mutex
	n     int
	asked chan struct{}
}

func (d *blinking) CheckPort(ctx context.Context, id vpc.NetworkInterfaceID, port uint16) error {
	if port != 443 {
		return d.Driver.CheckPort(ctx, id, port)
	}
	d.mu.Lock()
	d.n++
	odd := d.n%2 == 1
	d.mu.Unlock()
	select {
	case d.asked <- struct{}{}:
	default:
	}
	if odd {
		return errLost
	}
	return d.Driver.CheckPort(ctx, id, port)
}
