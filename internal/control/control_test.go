package control_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/control"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/sqlite"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// fakeCompute boots instances in no time and remembers what it was asked.
type fakeCompute struct {
	mu      sync.Mutex
	running map[appstream.InstanceID]bool
	begun   map[appstream.SessionID][]string
	windows map[appstream.SessionID]appstream.Window
	stopped map[appstream.InstanceID]appstream.EndCode
	failing bool
	events  chan appstream.InstanceEvent
}

func newFakeCompute() *fakeCompute {
	return &fakeCompute{
		running: map[appstream.InstanceID]bool{}, begun: map[appstream.SessionID][]string{},
		windows: map[appstream.SessionID]appstream.Window{},
		stopped: map[appstream.InstanceID]appstream.EndCode{}, events: make(chan appstream.InstanceEvent, 16),
	}
}

func (f *fakeCompute) Applications(context.Context) ([]appstream.Application, error) {
	return []appstream.Application{{Name: "editor", Command: []string{"editor"}}, {Name: "terminal", Command: []string{"terminal"}}, {Name: "xterm", Command: []string{"xterm"}}}, nil
}

func (f *fakeCompute) Start(_ context.Context, s appstream.InstanceSpec) (appstream.InstanceInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failing {
		return appstream.InstanceInfo{}, errors.New("no X server")
	}
	f.running[s.ID] = true
	return appstream.InstanceInfo{PublicKey: make([]byte, ed25519.PublicKeySize), Local: &appstream.Local{Display: ":7", PID: 1}}, nil
}

func (f *fakeCompute) Running(context.Context) ([]appstream.InstanceID, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var ids []appstream.InstanceID
	for id := range f.running {
		ids = append(ids, id)
	}
	return ids, nil
}

func (f *fakeCompute) Begin(_ context.Context, id appstream.InstanceID, s appstream.SessionSpec) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.running[id] {
		return errors.New("instance does not run")
	}
	f.begun[s.ID] = append(f.begun[s.ID], s.Application.Name)
	f.windows[s.ID] = s.Window
	return nil
}

func (f *fakeCompute) Stop(_ context.Context, id appstream.InstanceID, code appstream.EndCode, _ string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.running, id)
	f.stopped[id] = code
	return nil
}

func (f *fakeCompute) Dial(context.Context, appstream.InstanceID) (net.Conn, error) {
	return nil, errors.New("no agent here")
}

func (f *fakeCompute) Next(ctx context.Context) (appstream.InstanceEvent, error) {
	select {
	case e := <-f.events:
		return e, nil
	case <-ctx.Done():
		return appstream.InstanceEvent{}, ctx.Err()
	}
}

func (f *fakeCompute) stopCode(id appstream.InstanceID) (appstream.EndCode, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, ok := f.stopped[id]
	return c, ok
}

// rig is a control with its store and compute.
type rig struct {
	*control.Control
	t       *testing.T
	ctx     context.Context
	store   state.Store
	compute *fakeCompute
	key     ed25519.PrivateKey
}

const account = "123456789012"

func newRig(t *testing.T) *rig {
	t.Helper()
	return newRigAt(t, filepath.Join(t.TempDir(), "state.db"), newFakeCompute())
}

func newRigAt(t *testing.T, path string, compute *fakeCompute) *rig {
	t.Helper()
	return newRigWith(t, path, compute, func(*control.Options) {})
}

func newRigWith(t *testing.T, path string, compute *fakeCompute, change func(*control.Options)) *rig {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	store, err := sqlite.Open(ctx, sqlite.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	o := control.Options{
		Store: store, Compute: compute, Key: key, Region: "us-east-1", Account: account,
		DialAddr:       func(_ vpc.VPCID, a netip.AddrPort) (netip.AddrPort, bool) { return a, true },
		PublicURL:      "http://127.0.0.1:8080",
		InternetOrigin: "http://127.0.0.1:8080", InternetPort: 8080, Log: slog.New(slog.DiscardHandler),
	}
	change(&o)
	c := control.New(o)
	if err := c.Adopt(ctx); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	r := &rig{Control: c, t: t, ctx: ctx, store: store, compute: compute, key: key}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := store.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// endpoint writes an available streaming endpoint with one interface.
func (r *rig) endpoint(n int, change func(*vpc.Endpoint)) appstream.EndpointID {
	r.t.Helper()
	id := vpc.EndpointID(fmt.Sprintf("vpce-%017x", n))
	eni := vpc.NetworkInterfaceID(fmt.Sprintf("eni-%017x", n))
	e := &vpc.Endpoint{
		ID: id, OwnerID: account, Type: vpc.EndpointInterface, Service: "com.amazonaws.us-east-1.appstream.streaming",
		State: vpc.EndpointAvailable, Interfaces: []vpc.NetworkInterfaceID{eni}, Realised: 1,
	}
	if change != nil {
		change(e)
	}
	_, err := r.store.Update(r.ctx, func(tx state.Tx) error {
		return errors.Join(vpc.Endpoints().Put(tx, e), vpc.NetworkInterfaces().Put(tx, &vpc.NetworkInterface{
			ID: eni, Endpoint: id, Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), Status: "in-use",
		}))
	})
	r.must(err)
	return appstream.EndpointID(id)
}

// demo makes stack "s" on an endpoint (or none) and a running fleet "f".
func (r *rig) demo(instances int32, endpoint appstream.EndpointID) {
	r.t.Helper()
	s := appstream.Stack{Name: "s"}
	if endpoint != "" {
		s.AccessEndpoints = []appstream.AccessEndpoint{{EndpointType: "STREAMING", VpceID: string(endpoint)}}
	}
	_, err := r.CreateStack(r.ctx, s)
	r.must(err)
	_, err = r.CreateFleet(r.ctx, appstream.Fleet{Name: "f", ImageName: control.BaseImage, InstanceType: "stream.standard.small", DesiredInstances: instances})
	r.must(err)
	r.must(r.AssociateFleet(r.ctx, "f", "s"))
	r.must(r.StartFleet(r.ctx, "f"))
	r.untilFleet(appstream.FleetRunning)
}

// until waits until cond holds of the stored state.
func (r *rig) until(what string, cond func(state.Reader) bool) {
	r.t.Helper()
	for {
		var ok bool
		var at state.Revision
		r.must(r.store.View(r.ctx, func(rd state.Reader) (err error) {
			ok = cond(rd)
			at, err = rd.Revision()
			return err
		}))
		if ok {
			return
		}
		if _, err := r.store.Changes(r.ctx, at); err != nil {
			r.t.Fatalf("waiting for %s: %v", what, err)
		}
	}
}

func (r *rig) untilFleet(want appstream.FleetState) {
	r.t.Helper()
	r.until("fleet "+string(want), func(rd state.Reader) bool {
		f, ok, err := appstream.Fleets.Get(rd, "f")
		return err == nil && ok && f.State == want
	})
}

func (r *rig) untilEnded(id appstream.SessionID) *appstream.Session {
	r.t.Helper()
	var s *appstream.Session
	r.until("end of session", func(rd state.Reader) (ended bool) {
		s, ended, _ = appstream.Sessions.Get(rd, string(id))
		return ended && !s.Live()
	})
	return s
}

func (r *rig) launch(user, app string) (*appstream.Session, error) {
	s, err := r.Launch(r.ctx, control.LaunchRequest{
		Visitor: appstream.Visitor{Auth: appstream.AuthAPI, Stack: "s", Fleet: "f", UserID: user}, Stack: "s", Application: app,
	})
	if err != nil {
		return nil, err
	}
	return r.Ready(r.ctx, s.ID)
}

func (r *rig) mustLaunch(user string) *appstream.Session {
	r.t.Helper()
	s, err := r.launch(user, "editor")
	r.must(err)
	if s.State != appstream.SessionActive {
		r.t.Fatalf("session is %s (%s), want ACTIVE", s.State, s.EndReason)
	}
	return s
}

func TestSessionStaysOnItsEndpoint(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first, second := r.endpoint(1, nil), r.endpoint(2, nil)
	r.demo(3, first)
	a := r.mustLaunch("ann")
	_, err := r.UpdateStack(r.ctx, "s", control.StackChange{AccessEndpoints: []appstream.AccessEndpoint{{EndpointType: "STREAMING", VpceID: string(second)}}})
	r.must(err)
	b := r.mustLaunch("bob")
	again := r.mustLaunch("ann")
	_, err = r.UpdateStack(r.ctx, "s", control.StackChange{Delete: []string{"ACCESS_ENDPOINTS"}})
	r.must(err)
	c := r.mustLaunch("cid")
	got := []appstream.EndpointID{a.Endpoint, b.Endpoint, again.Endpoint, c.Endpoint}
	want := []appstream.EndpointID{first, second, first, appstream.InternetEndpoint}
	if !slices.Equal(got, want) {
		t.Errorf("endpoints of sessions: got %v, want %v", got, want)
	}
	if again.ID != a.ID {
		t.Errorf("ann returned to session %s, want %s", again.ID, a.ID)
	}
	if a.Origin != "http://10.0.0.1:443" || a.ENIAddress != "10.0.0.1" || a.DisplayPort < 1400 || a.DisplayPort > 1499 {
		t.Errorf("ann's place: got origin %s, address %s, display port %d", a.Origin, a.ENIAddress, a.DisplayPort)
	}
}

// TestViewerURLLeavesALostZone: who returns to a session whose interface is not in use is sent to another one of its endpoint.
func TestViewerURLLeavesALostZone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.endpoint(1, func(e *vpc.Endpoint) { e.Interfaces = append(e.Interfaces, "eni-00000000000000002") })
	r.endpoint(2, nil) // has the second interface
	r.demo(1, id)
	s := r.mustLaunch("ann")
	lost, other := vpc.NetworkInterfaceID(s.ENI), "10.0.0.2"
	if s.ENIAddress == other {
		other = "10.0.0.1"
	}
	set := func(id vpc.NetworkInterfaceID, status string) {
		_, err := r.store.Update(r.ctx, func(tx state.Tx) error {
			n, _, err := vpc.NetworkInterfaces().Get(tx, string(id))
			n.Status = status
			return errors.Join(err, vpc.NetworkInterfaces().Put(tx, n))
		})
		r.must(err)
	}
	host := func() string {
		now, ok, err := r.Session(r.ctx, s.ID)
		if r.must(err); !ok {
			t.Fatal("the session went")
		}
		u, err := r.ViewerURL(r.ctx, now, netip.Addr{})
		r.must(err)
		p, err := url.Parse(u)
		r.must(err)
		return p.Hostname()
	}
	set(lost, vpc.InterfacePending)
	if got := host(); got != other {
		t.Errorf("with its interface lost: at %s, want %s", got, other)
	}
	if now, _, err := r.Session(r.ctx, s.ID); err != nil || now.ENIAddress != other || now.Endpoint != id {
		t.Errorf("session: %+v, %v; want it at %s", now, err, other)
	}
	for _, eni := range []vpc.NetworkInterfaceID{"eni-00000000000000001", "eni-00000000000000002"} {
		set(eni, vpc.InterfacePending)
	}
	if got := host(); got != other {
		t.Errorf("with none in use: at %s, want %s as before", got, other)
	}
}

// TestViewerURLIsOfTheUsersFamily: who reaches the portal by a family is sent to the endpoint's address of that family.
func TestViewerURLIsOfTheUsersFamily(t *testing.T) {
	t.Parallel()
	const v4, v6 = "http://10.0.0.1:443", "http://[fd00::1]:443"
	both := []string{"192.168.0.0/16", "fd01::/64"}
	for name, tt := range map[string]struct {
		record   vpc.DNSRecordType
		dual     bool
		networks []string // of users; nil: not known
		source   string
		want     string
	}{
		"IPv4 user":                       {vpc.RecordDual, true, both, "192.168.0.7", v4},
		"IPv6 user":                       {vpc.RecordDual, true, both, "fd01::7", v6},
		"IPv6 user, networks not known":   {vpc.RecordDual, true, nil, "fd01::7", v6},
		"IPv6 user, names have IPv4":      {vpc.RecordIPv4, true, both, "fd01::7", v6},
		"IPv4 user, names have IPv6":      {vpc.RecordIPv6, true, both, "192.168.0.7", v4},
		"IPv4 user in IPv6 notation":      {vpc.RecordDual, true, both, "::ffff:192.168.0.7", v4},
		"IPv6 user, endpoint of IPv4":     {vpc.RecordIPv4, false, both, "fd01::7", v4},
		"IPv6 has no way to the endpoint": {vpc.RecordDual, true, both[:1], "fd01::7", v4},
		"user not known":                  {vpc.RecordDual, true, both, "", v4},
		"user not known, names have IPv6": {vpc.RecordIPv6, true, both, "", v6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			id := r.endpoint(1, func(e *vpc.Endpoint) { e.DNSRecordType = tt.record })
			if tt.networks != nil {
				r.UserNetworks = func() (out []vpc.UserNetwork) {
					for _, n := range tt.networks {
						out = append(out, vpc.UserNetwork{CIDR: netip.MustParsePrefix(n), Dial: netip.MustParsePrefix(n)})
					}
					return out
				}
			}
			if tt.dual {
				_, err := r.store.Update(r.ctx, func(tx state.Tx) error {
					n, _, err := vpc.NetworkInterfaces().Get(tx, "eni-00000000000000001")
					n.Addr6 = netip.MustParseAddr("fd00::1")
					return errors.Join(err, vpc.NetworkInterfaces().Put(tx, n))
				})
				r.must(err)
			}
			r.demo(1, id)
			var source netip.Addr
			if tt.source != "" {
				source = netip.MustParseAddr(tt.source)
			}
			u, err := r.ViewerURL(r.ctx, r.mustLaunch("ann"), source)
			if r.must(err); !strings.HasPrefix(u, tt.want+"/#t=") {
				t.Errorf("got %.40s, want %s", u, tt.want)
			}
		})
	}
}

func TestViewerURLCarriesATicketForTheEndpoint(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.endpoint(1, nil)
	r.demo(1, id)
	s := r.mustLaunch("ann")
	u, err := r.ViewerURL(r.ctx, s, netip.Addr{})
	r.must(err)
	p, err := url.Parse(u)
	r.must(err)
	if p.RawQuery != "" || p.Host != "10.0.0.1:443" {
		t.Errorf("viewer URL: got host %s and query %q, want 10.0.0.1:443 and none", p.Host, p.RawQuery)
	}
	token := strings.TrimPrefix(p.Fragment, "t=")
	ticket, err := appstream.VerifyTicket(token, func(string, appstream.SessionID) ed25519.PublicKey {
		return r.key.Public().(ed25519.PublicKey)
	}, time.Now())
	r.must(err)
	if ticket.Session != s.ID || ticket.Endpoint != id || ticket.Channel != appstream.ChannelControl {
		t.Errorf("ticket: got %+v", ticket)
	}
}

func TestStackRefusesEndpoints(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ids := map[string]appstream.EndpointID{
		"pending":       r.endpoint(1, func(e *vpc.Endpoint) { e.State = vpc.EndpointPending }),
		"api service":   r.endpoint(2, func(e *vpc.Endpoint) { e.Service = "com.amazonaws.us-east-1.appstream.api" }),
		"other account": r.endpoint(3, func(e *vpc.Endpoint) { e.OwnerID = "210987654321" }),
		"deleted":       r.endpoint(4, func(e *vpc.Endpoint) { e.State = vpc.EndpointDeleted }),
		"unknown":       "vpce-00000000000000bad",
		"empty":         "",
	}
	want := map[string]fault.Kind{
		"pending": fault.Combination, "api service": fault.Combination, "other account": fault.NotFound,
		"deleted": fault.NotFound, "unknown": fault.NotFound, "empty": fault.Missing,
	}
	for name, id := range ids {
		_, err := r.CreateStack(r.ctx, appstream.Stack{Name: "s", AccessEndpoints: []appstream.AccessEndpoint{{EndpointType: "STREAMING", VpceID: string(id)}}})
		if !fault.Is(err, want[name]) {
			t.Errorf("%s endpoint: got %v, want fault of kind %d", name, err, want[name])
		}
	}
	good := appstream.AccessEndpoint{EndpointType: "STREAMING", VpceID: string(r.endpoint(5, nil))}
	_, err := r.CreateStack(r.ctx, appstream.Stack{Name: "s", AccessEndpoints: []appstream.AccessEndpoint{good, good}})
	if !fault.Is(err, fault.Combination) {
		t.Errorf("two endpoints: got %v, want a combination fault", err)
	}
}

func TestConcurrentLaunchesNeverShareAnInstance(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.demo(5, "")
	r.until("5 ready instances", func(rd state.Reader) bool {
		n, err := rd.Count(appstream.Instances.Kind, state.Key{Name: "state", Value: "f " + string(appstream.InstanceReady)})
		return err == nil && n == 5
	})
	var wg sync.WaitGroup
	var mu sync.Mutex
	byInstance := map[appstream.InstanceID]int{}
	refused := 0
	for i := range 20 {
		wg.Go(func() {
			s, err := r.launch(fmt.Sprintf("user%d", i), "editor")
			mu.Lock()
			defer mu.Unlock()
			switch {
			case fault.Is(err, fault.NotAvailable):
				refused++
			case err != nil:
				t.Errorf("launch: %v", err)
			default:
				byInstance[s.Instance]++
			}
		})
	}
	wg.Wait()
	if len(byInstance) != 5 || refused != 15 {
		t.Errorf("got %d instances in use and %d refusals, want 5 and 15", len(byInstance), refused)
	}
	for id, n := range byInstance {
		if n != 1 {
			t.Errorf("instance %s got %d sessions", id, n)
		}
	}
}

func TestEndsOfSessions(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		end  func(*rig, *appstream.Session)
		want appstream.EndCode
	}{
		{"administrator", func(r *rig, s *appstream.Session) { r.must(r.ExpireSession(r.ctx, s.ID)) }, appstream.EndByAdministrator},
		{"fleet stopped", func(r *rig, _ *appstream.Session) { r.must(r.StopFleet(r.ctx, "f")) }, appstream.EndByAdministrator},
		{"application closed", func(r *rig, s *appstream.Session) {
			r.compute.events <- appstream.InstanceEvent{Instance: s.Instance, Session: s.ID, Kind: appstream.SessionOver, Code: appstream.EndApplication}
		}, appstream.EndApplication},
		{"instance lost", func(r *rig, s *appstream.Session) {
			r.compute.events <- appstream.InstanceEvent{Instance: s.Instance, Kind: appstream.InstanceGone}
		}, appstream.EndInstanceFailed},
		{"endpoint deleted", func(r *rig, _ *appstream.Session) {
			r.endpoint(1, func(e *vpc.Endpoint) { e.State = vpc.EndpointDeleting })
		}, appstream.EndEndpointGone},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.demo(1, r.endpoint(1, nil))
			s := r.mustLaunch("ann")
			tc.end(r, s)
			ended := r.untilEnded(s.ID)
			if ended.EndCode != tc.want || ended.Ended.IsZero() {
				t.Errorf("got code %d at %v, want %d", ended.EndCode, ended.Ended, tc.want)
			}
			r.until("instance to go", func(rd state.Reader) bool {
				_, ok, err := appstream.Instances.Get(rd, string(s.Instance))
				return err == nil && !ok
			})
			if code, ok := r.compute.stopCode(s.Instance); !ok || tc.want != appstream.EndInstanceFailed && code != tc.want {
				t.Errorf("compute was told to stop: %v with code %d, want code %d", ok, code, tc.want)
			}
		})
	}
}

func TestEventsOfAnEarlierSessionAreIgnored(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.demo(1, "")
	s := r.mustLaunch("ann")
	r.compute.events <- appstream.InstanceEvent{Instance: s.Instance, Session: "another", Kind: appstream.SessionOver, Code: appstream.EndIdle}
	r.compute.events <- appstream.InstanceEvent{Instance: s.Instance, Session: s.ID, Kind: appstream.ViewerConnected}
	r.until("viewer", func(rd state.Reader) bool {
		s, ok, err := appstream.Sessions.Get(rd, string(s.ID))
		return err == nil && ok && s.Connected && s.Live()
	})
}

func TestRestartShowsLostSessionsAsEnded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	var id appstream.SessionID
	t.Run("before", func(t *testing.T) {
		r := newRigAt(t, path, newFakeCompute())
		r.demo(2, "")
		id = r.mustLaunch("ann").ID
	})
	r := newRigAt(t, path, newFakeCompute()) // nothing runs any more
	if s := r.untilEnded(id); s.EndCode != appstream.EndInstanceFailed || s.EndReason == "" {
		t.Errorf("after restart: got code %d and reason %q", s.EndCode, s.EndReason)
	}
	if s := r.mustLaunch("ann"); s.ID == id {
		t.Error("the ended session was given again")
	}
}

func TestAnotherApplicationStartsInTheSameSession(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.demo(1, "")
	a := r.mustLaunch("ann")
	b, err := r.launch("ann", "terminal")
	r.must(err)
	if a.ID != b.ID {
		t.Fatalf("got session %s, want %s", b.ID, a.ID)
	}
	r.until("second application", func(rd state.Reader) bool {
		s, ok, err := appstream.Sessions.Get(rd, string(a.ID))
		return err == nil && ok && s.Begun == 2
	})
	r.compute.mu.Lock()
	defer r.compute.mu.Unlock()
	if got := r.compute.begun[a.ID]; !slices.Equal(got, []string{"editor", "terminal"}) {
		t.Errorf("begun: got %v", got)
	}
}

// TestStreaming: a session is found while it streams the application, by its user alone, and looking for it changes nothing.
func TestStreaming(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.demo(2, "")
	ask := func(user, app, only string) (*appstream.Session, error) {
		return r.Streaming(r.ctx, control.LaunchRequest{
			Visitor: appstream.Visitor{Auth: appstream.AuthAPI, Stack: "s", Fleet: "f", UserID: user, Application: only}, Stack: "s", Application: app,
		})
	}
	none := func(user, app string) {
		t.Helper()
		if s, err := ask(user, app, ""); s != nil || err != nil {
			t.Errorf("%s of %s: got %+v, %v; want none", app, user, s, err)
		}
	}
	none("ann", "editor")
	a := r.mustLaunch("ann")
	s, err := ask("ann", "editor", "editor")
	r.must(err)
	if s == nil || s.ID != a.ID {
		t.Errorf("got %+v, want session %s", s, a.ID)
	}
	none("ann", "terminal") // not started: that is a launch's to do
	none("bob", "editor")
	if _, err := ask("ann", "terminal", "editor"); !errors.As(err, new(*fault.Error)) {
		t.Errorf("application that the URL does not name: got %v, want a fault", err)
	}
	if _, err := ask("ann", "nothing", ""); !errors.As(err, new(*fault.Error)) {
		t.Errorf("unknown application: got %v, want a fault", err)
	}
	now, _, err := r.Session(r.ctx, a.ID)
	r.must(err)
	if len(now.More) != 0 {
		t.Errorf("asking started %v", now.More)
	}
	r.must(r.ExpireSession(r.ctx, a.ID))
	r.untilEnded(a.ID)
	none("ann", "editor")
}

// TestWindowIsTheFirstScreen: what the user's window is reaches the instance with the session.
func TestWindowIsTheFirstScreen(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.demo(1, "")
	want := appstream.Window{Width: 1400, Height: 1002, Scale: 200}
	s, err := r.Launch(r.ctx, control.LaunchRequest{
		Visitor: appstream.Visitor{Auth: appstream.AuthAPI, Stack: "s", Fleet: "f", UserID: "ann"}, Stack: "s", Application: "editor", Window: want,
	})
	r.must(err)
	_, err = r.Ready(r.ctx, s.ID)
	r.must(err)
	r.compute.mu.Lock()
	defer r.compute.mu.Unlock()
	if got := r.compute.windows[s.ID]; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestFleetSaysWhyItDoesNotStart(t *testing.T) {
	t.Parallel()
	compute := newFakeCompute()
	compute.failing = true
	r := newRigAt(t, filepath.Join(t.TempDir(), "state.db"), compute)
	_, err := r.CreateFleet(r.ctx, appstream.Fleet{Name: "f", ImageName: control.BaseImage, InstanceType: "small", DesiredInstances: 1})
	r.must(err)
	r.must(r.StartFleet(r.ctx, "f"))
	r.until("fleet error", func(rd state.Reader) bool {
		f, ok, err := appstream.Fleets.Get(rd, "f")
		return err == nil && ok && f.State == appstream.FleetStarting && len(f.Errors) == 1 && strings.Contains(f.Errors[0].Message, "no X server")
	})
	compute.mu.Lock()
	compute.failing = false
	compute.mu.Unlock()
	r.untilFleet(appstream.FleetRunning)
	r.must(r.StopFleet(r.ctx, "f"))
	r.untilFleet(appstream.FleetStopped)
	r.must(r.DeleteFleet(r.ctx, "f"))
}

func TestStreamingURLs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.demo(1, "")
	good := control.StreamingURLRequest{Stack: "s", Fleet: "f", UserID: "ann", Validity: new(int64(60))}
	for _, tc := range []struct {
		name   string
		change func(*control.StreamingURLRequest)
		want   fault.Kind
	}{
		{"validity 0", func(q *control.StreamingURLRequest) { q.Validity = new(int64(0)) }, fault.Invalid},
		{"validity too long", func(q *control.StreamingURLRequest) { q.Validity = new(int64(604801)) }, fault.Invalid},
		{"short user", func(q *control.StreamingURLRequest) { q.UserID = "a" }, fault.Invalid},
		{"bad user", func(q *control.StreamingURLRequest) { q.UserID = "a b" }, fault.Invalid},
		{"no stack", func(q *control.StreamingURLRequest) { q.Stack = "none" }, fault.NotFound},
		{"no fleet", func(q *control.StreamingURLRequest) { q.Fleet = "none" }, fault.NotFound},
		{"no application", func(q *control.StreamingURLRequest) { q.Application = "none" }, fault.NotFound},
	} {
		q := good
		tc.change(&q)
		if _, _, err := r.CreateStreamingURL(r.ctx, q); !fault.Is(err, tc.want) {
			t.Errorf("%s: got %v, want fault of kind %d", tc.name, err, tc.want)
		}
	}
	desktop := good
	desktop.Application = control.Desktop
	if _, _, err := r.CreateStreamingURL(r.ctx, desktop); err != nil {
		t.Errorf("desktop: %v", err)
	}
	if s, err := r.launch("dora", control.Desktop); err != nil || s.State != appstream.SessionActive {
		t.Errorf("desktop: got %+v (%v)", s, err)
	}
	u, expires, err := r.CreateStreamingURL(r.ctx, good)
	r.must(err)
	if left := time.Until(expires); left < 50*time.Second || left > time.Minute {
		t.Errorf("expires in %v, want about a minute", left)
	}
	p, err := url.Parse(u)
	r.must(err)
	parameters := p.Query().Get("parameters")
	v, err := r.OpenStreamingURL(parameters, "800x600")
	r.must(err)
	if v.UserID != "ann" || v.Stack != "s" || v.Fleet != "f" || v.Resolution != "800x600" || v.Auth != appstream.AuthAPI {
		t.Errorf("visitor: got %+v", v)
	}
	forged := []byte(parameters)
	forged[len(forged)-10] ^= 'A' ^ 'B' // another letter, digit or sign of the alphabet in the signature, or none of it
	if _, err := r.OpenStreamingURL(string(forged), ""); !errors.Is(err, appstream.ErrGrantInvalid) {
		t.Errorf("forged: got %v", err)
	}
	other, err := appstream.SignGrant(r.Key, appstream.Grant{Purpose: "other", Stack: "s", Fleet: "f", UserID: "ann", Expires: time.Now().Add(time.Hour)})
	r.must(err)
	if _, err := r.OpenStreamingURL(other, ""); !errors.Is(err, appstream.ErrGrantInvalid) {
		t.Errorf("what was signed for another purpose: got %v", err)
	}
	for _, bad := range []string{"0x0", "63x64", "800x", "99999x1", "800X600", "5121x600"} {
		if _, err := r.OpenStreamingURL(parameters, bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("resolution %s: got %v", bad, err)
		}
	}
}

// TestPagesOfSessionsAreFull: what a query leaves out takes no place in its pages.
func TestPagesOfSessionsAreFull(t *testing.T) {
	t.Parallel()
	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if _, err := store.Update(t.Context(), func(tx state.Tx) error {
		err := errors.Join(appstream.Stacks.Put(tx, &appstream.Stack{Name: "s"}), appstream.Fleets.Put(tx, &appstream.Fleet{Name: "f"}))
		for n := range 40 { // every fourth is asked for
			auth := appstream.AuthAPI
			if n%4 == 3 {
				auth = appstream.AuthSAML
			}
			s := &appstream.Session{ID: appstream.SessionID(fmt.Sprintf("%02d", n)), Stack: "s", Fleet: "f", UserID: "u", AuthType: string(auth), State: appstream.SessionExpired}
			err = errors.Join(err, appstream.Sessions.Put(tx, s))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	c := control.New(control.Options{Store: store, Log: slog.New(slog.DiscardHandler)})
	q := control.SessionQuery{Stack: "s", Fleet: "f", UserID: "u", Auth: appstream.AuthSAML, Limit: 4}
	for _, want := range []int{4, 4, 2} {
		ss, next, err := c.Sessions(t.Context(), q)
		if err != nil || len(ss) != want || (next == "") != (want == 2) {
			t.Fatalf("after %q: got %d sessions, next %q (%v), want %d", q.After, len(ss), next, err, want)
		}
		q.After = next
	}
}
