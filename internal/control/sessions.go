package control

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

const (
	// ticketLife is how long the first ticket of a viewer can be used.
	ticketLife = 60 * time.Second
	// keepEnded is how long ended sessions stay listed.
	keepEnded = 24 * time.Hour
	// displayPorts is the range of ports for the display channel at an interface endpoint.
	firstDisplayPort, displayPorts = 1400, 100
)

// LaunchRequest asks for a session.
type LaunchRequest struct {
	Visitor     appstream.Visitor
	Stack       string // one of the visitor's; empty where the visitor comes for a builder
	Application string
	Window      appstream.Window // the visitor's; zero: not known
	From        iam.Request      // where the visitor is, for the policies of roles
}

// Launch gives the visitor a session: the running one of the same stack and fleet, or a new one on a ready instance. It returns
// when the session has been placed; the session reconciler starts the application. Whether the visitor may is asked in the same
// transaction.
func (c *Control) Launch(ctx context.Context, q LaunchRequest) (*appstream.Session, error) {
	if q.Visitor.Resolution != "" {
		if _, _, err := ParseResolution(q.Visitor.Resolution); err != nil {
			return nil, err
		}
	}
	if err := c.mayAsk(ctx, q); err != nil {
		return nil, err
	}
	l := c.onFleet(q)
	if q.Visitor.Builder != "" {
		l = c.onBuilder(q)
	}
	for {
		s, err := state.Write(ctx, c.Store, l.place)
		if !errors.Is(err, errNoneReady) {
			return s, err
		}
		// An instance is on its way: wait for it as long as the caller does.
		if err := state.Await(ctx, c.Store, l.placeable); err != nil {
			return nil, err
		}
	}
}

// launch is how a session gets its place.
type launch struct {
	place     func(state.Tx) (*appstream.Session, error) // errNoneReady asks to wait until placeable
	placeable func(state.Reader) (bool, error)
}

// onFleet places a session on a fleet of the visitor's stack.
func (c *Control) onFleet(q LaunchRequest) launch {
	var fleet string
	return launch{
		place: func(tx state.Tx) (*appstream.Session, error) {
			err := c.permit(tx, q.Visitor, q.Stack, q.Application)
			if err != nil {
				return nil, err
			}
			if fleet, err = c.fleetOf(tx, q.Visitor, q.Stack); err != nil {
				return nil, err
			}
			f, err := c.usable(tx, q.Stack, fleet)
			if err != nil {
				return nil, err
			}
			if s, err := c.running(tx, q, fleet); err != nil || s != nil {
				return s, err
			}
			return c.place(tx, f, q)
		},
		placeable: func(r state.Reader) (bool, error) { return c.placeable(r, q.Stack, fleet) },
	}
}

// mayAsk refuses applications that do not exist, and visitors whose role forbids the stack.
func (c *Control) mayAsk(ctx context.Context, q LaunchRequest) error {
	if _, err := c.application(ctx, q.Application); err != nil {
		return err
	}
	if q.Visitor.Asserted != nil && c.Roles != nil {
		return c.Roles.MayStream(ctx, q.Visitor, q.Stack, q.From)
	}
	return nil
}

// Streaming is the visitor's session that streams the application already; nil when there is none, and a fault when the visitor may not have
// it. It changes nothing, and asks for the same permissions as Launch.
func (c *Control) Streaming(ctx context.Context, q LaunchRequest) (*appstream.Session, error) {
	if err := c.mayAsk(ctx, q); err != nil {
		return nil, err
	}
	return state.Read(ctx, c.Store, func(r state.Reader) (*appstream.Session, error) {
		if err := c.permit(r, q.Visitor, q.Stack, q.Application); err != nil {
			return nil, err
		}
		fleet, err := c.fleetOf(r, q.Visitor, q.Stack)
		if err != nil {
			return nil, err
		}
		if _, err := c.usable(r, q.Stack, fleet); err != nil {
			return nil, err
		}
		s, err := c.sessionOf(r, q, fleet)
		if err != nil || s == nil || s.State != appstream.SessionActive || !slices.Contains(s.Applications()[:s.Begun], q.Application) {
			return nil, err
		}
		return s, nil
	})
}

// errNoneReady says that no instance is ready now but one will be.
var errNoneReady = errors.New("no instance is ready yet")

// placeable reports whether an instance is ready; it fails when none will be.
func (c *Control) placeable(r state.Reader, stack, fleet string) (bool, error) {
	f, err := c.usable(r, stack, fleet)
	if err != nil {
		return false, err
	}
	_, err = c.readyInstance(r, f)
	if errors.Is(err, errNoneReady) {
		return false, nil
	}
	return err == nil, err
}

// readyInstance returns an instance to claim, errNoneReady when one is starting, a fault when the fleet is full.
func (c *Control) readyInstance(r state.Reader, f *appstream.Fleet) (*appstream.Instance, error) {
	is, err := appstream.Instances.By(r, "fleet", f.Name)
	if err != nil {
		return nil, err
	}
	claimed := 0
	for _, i := range is {
		switch i.State {
		case appstream.InstanceReady:
			return i, nil
		case appstream.InstanceClaimed:
			claimed++
		case appstream.InstanceStarting, appstream.InstanceEnding:
		}
	}
	if claimed < int(f.DesiredInstances) {
		return nil, errNoneReady
	}
	return nil, fault.Newf(fault.NotAvailable, "fleet", f.Name, "all of its %d instances are in use", f.DesiredInstances)
}

// running is the visitor's live session of the same stack and fleet, which gets the application, or nil. A user returns to a session wherever it was begun, but
// not to that of somebody of the same name who proves it in another way.
func (c *Control) running(tx state.Tx, q LaunchRequest, fleet string) (*appstream.Session, error) {
	s, err := c.sessionOf(tx, q, fleet)
	if err != nil || s == nil || slices.Contains(s.Applications(), q.Application) {
		return s, err
	}
	s.More = append(s.More, q.Application)
	return s, appstream.Sessions.Put(tx, s)
}

// sessionOf finds the visitor's live session of a stack and fleet; nil when there is none.
func (c *Control) sessionOf(r state.Reader, q LaunchRequest, fleet string) (*appstream.Session, error) {
	ss, err := appstream.Sessions.By(r, "live-user", q.Stack+" "+q.Visitor.UserID)
	if err != nil {
		return nil, err
	}
	for _, s := range ss {
		if s.Fleet == fleet && s.Expire == 0 && s.AuthType == string(q.Visitor.Auth) && s.Provider == q.Visitor.Provider {
			return s, nil
		}
	}
	return nil, nil
}

// place claims an instance for a new session: session, instance and endpoint in one transaction.
func (c *Control) place(tx state.Tx, f *appstream.Fleet, q LaunchRequest) (*appstream.Session, error) {
	inst, err := c.readyInstance(tx, f)
	if err != nil {
		return nil, err
	}
	stack, ok, err := appstream.Stacks.Get(tx, q.Stack)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, stackNotFound(q.Stack)
	}
	s := newSession(q, inst, stack.Endpoint(), c.Now().UTC())
	s.Stack, s.Fleet, s.MaxEnd = q.Stack, f.Name, s.Started.Add(f.MaxUserDuration)
	s.DisconnectTimeout, s.IdleTimeout = f.DisconnectTimeout, f.IdleTimeout
	return c.claim(tx, inst, s)
}

// newSession is a session of a visitor's on an instance.
func newSession(q LaunchRequest, inst *appstream.Instance, endpoint appstream.EndpointID, now time.Time) *appstream.Session {
	return &appstream.Session{
		ID: newSessionID(), UserID: q.Visitor.UserID, AuthType: string(q.Visitor.Auth), Provider: q.Visitor.Provider,
		Application: q.Application, Context: q.Visitor.Context, Instance: inst.ID, Endpoint: endpoint,
		State: appstream.SessionPending, Started: now, Fixed: q.Visitor.Resolution, Window: q.Window, PublicKey: inst.PublicKey,
	}
}

// claim gives an instance and a place at its endpoint to a new session.
func (c *Control) claim(tx state.Tx, inst *appstream.Instance, s *appstream.Session) (*appstream.Session, error) {
	if s.Endpoint == appstream.InternetEndpoint {
		s.Origin, s.DisplayPort = c.InternetOrigin, c.InternetPort
	} else {
		seed := hash(string(s.ID))
		p, err := c.placeAt(tx, s.Endpoint, seed)
		if err != nil {
			return nil, err
		}
		s.ENI, s.ENIAddress, s.ENIAddress6, s.Origin = p.ENI, p.Address, p.Address6, p.Origin
		s.DisplayPort = uint16(firstDisplayPort + seed%displayPorts) //nolint:gosec // at most 1499
	}
	inst.State, inst.Session = appstream.InstanceClaimed, s.ID
	if err := appstream.Instances.Put(tx, inst); err != nil {
		return nil, err
	}
	return s, appstream.Sessions.Put(tx, s)
}

// Ready waits until the session streams or has ended, or ctx ends, and returns it as it is then.
func (c *Control) Ready(ctx context.Context, id appstream.SessionID) (*appstream.Session, error) {
	var out *appstream.Session
	err := state.Await(ctx, c.Store, func(r state.Reader) (bool, error) {
		s, ok, err := appstream.Sessions.Get(r, string(id))
		if err != nil {
			return false, err
		}
		if !ok {
			return false, fault.New(fault.NotFound, "session", string(id), "there is no session with this ID")
		}
		out = s
		return s.State != appstream.SessionPending, nil
	})
	if err != nil && ctx.Err() != nil && out != nil {
		return out, nil
	}
	return out, err
}

// ViewerURL is where the user's browser opens the session: the endpoint's own origin with a new one-time ticket in the fragment. When the
// session's network interface is not in use, the session moves to another one of its endpoint. An interface with addresses of both
// families is opened at the one of source, the address by which the user reaches the portal (zero: not known).
func (c *Control) ViewerURL(ctx context.Context, s *appstream.Session, source netip.Addr) (string, error) {
	s, err := c.reachable(ctx, s)
	if err != nil {
		return "", err
	}
	origin, err := c.originFor(ctx, s, source)
	if err != nil {
		return "", err
	}
	ticket, err := appstream.SignTicket(c.Key, appstream.Ticket{
		ID: newTokenID(), KeyID: appstream.KeyControl, Session: s.ID, Endpoint: s.Endpoint,
		Channel: appstream.ChannelControl, Expires: c.Now().Add(ticketLife).UTC(),
	})
	if err != nil {
		return "", err
	}
	path := "/"
	if s.Endpoint == appstream.InternetEndpoint {
		path = "/stream/"
	}
	u := origin + path + "#t=" + ticket
	if s.Fixed != "" {
		u += "&r=" + s.Fixed
	}
	return u, nil
}

// originFor is the session's origin, at the address of its interface that a viewer at source reaches.
func (c *Control) originFor(ctx context.Context, s *appstream.Session, source netip.Addr) (string, error) {
	if s.Endpoint == appstream.InternetEndpoint || !source.IsValid() {
		return s.Origin, nil
	}
	return state.Read(ctx, c.Store, func(r state.Reader) (string, error) {
		n, ok, err := vpc.NetworkInterfaces().Get(r, s.ENI)
		if err != nil || !ok {
			return s.Origin, err
		}
		e, ok, err := vpc.Endpoints().Get(r, string(s.Endpoint))
		if err != nil || !ok {
			return s.Origin, err
		}
		if o, ok := c.originAt(e, n, vpc.FamilyOf(source.Unmap())); ok {
			return o, nil
		}
		return s.Origin, nil
	})
}

// reachable is the session at an interface that is in use. Where none is, it stays: the check may be what is wrong.
func (c *Control) reachable(ctx context.Context, s *appstream.Session) (*appstream.Session, error) {
	if s.Endpoint == appstream.InternetEndpoint {
		return s, nil
	}
	use, err := state.Read(ctx, c.Store, func(r state.Reader) (bool, error) {
		n, ok, err := vpc.NetworkInterfaces().Get(r, s.ENI)
		return ok && n.Status == vpc.InterfaceInUse, err
	})
	if err != nil || use {
		return s, err
	}
	_, err = c.Store.Update(ctx, func(tx state.Tx) error {
		now, ok, err := appstream.Sessions.Get(tx, string(s.ID))
		if err != nil || !ok {
			return err
		}
		p, err := c.placeAt(tx, now.Endpoint, hash(string(now.ID)))
		if _, none := errors.AsType[*fault.Error](err); none {
			return nil
		}
		if err != nil {
			return err
		}
		now.ENI, now.ENIAddress, now.ENIAddress6, now.Origin = p.ENI, p.Address, p.Address6, p.Origin
		s = now
		return appstream.Sessions.Put(tx, now)
	})
	return s, err
}

// SessionQuery selects sessions; Stack and Fleet are required by DescribeSessions.
type SessionQuery struct {
	Stack, Fleet, UserID, After string
	Instance                    string             // empty: every one
	Auth                        appstream.AuthType // empty: every one
	Limit                       int
}

// Sessions lists sessions in order of their IDs, and the ID to go on after when there are more.
func (c *Control) Sessions(ctx context.Context, q SessionQuery) ([]*appstream.Session, string, error) {
	var next string
	out, err := state.Read(ctx, c.Store, func(r state.Reader) ([]*appstream.Session, error) {
		if _, ok, err := appstream.Stacks.Get(r, q.Stack); err != nil {
			return nil, err
		} else if !ok {
			return nil, stackNotFound(q.Stack)
		}
		if _, ok, err := appstream.Fleets.Get(r, q.Fleet); err != nil {
			return nil, err
		} else if !ok {
			return nil, fleetNotFound(q.Fleet)
		}
		by := state.Key{Name: "stack", Value: q.Stack + " " + q.Fleet}
		if q.UserID != "" {
			by = state.Key{Name: "user", Value: q.Stack + " " + q.UserID}
		}
		var out []*appstream.Session
		for after := q.After; ; {
			ss, err := appstream.Sessions.List(r, state.Query{By: by, After: after, Limit: q.Limit + 1})
			if err != nil || len(ss) == 0 {
				return out, err
			}
			after = string(ss[len(ss)-1].ID)
			for _, s := range ss {
				if s.Fleet != q.Fleet || q.Auth != "" && s.AuthType != string(q.Auth) || q.Instance != "" && string(s.Instance) != q.Instance {
					continue
				}
				if len(out) == q.Limit { // there is another one
					next = string(out[q.Limit-1].ID)
					return out, nil
				}
				out = append(out, s)
			}
		}
	})
	return out, next, err
}

// AllSessions lists every session that is still known, for operators.
func (c *Control) AllSessions(ctx context.Context) ([]*appstream.Session, error) {
	return state.Read(ctx, c.Store, func(r state.Reader) ([]*appstream.Session, error) {
		return appstream.Sessions.List(r, state.Query{})
	})
}

// Session returns one session; false when it is not known.
func (c *Control) Session(ctx context.Context, id appstream.SessionID) (*appstream.Session, bool, error) {
	var ok bool
	s, err := state.Read(ctx, c.Store, func(r state.Reader) (s *appstream.Session, err error) {
		s, ok, err = appstream.Sessions.Get(r, string(id))
		return s, err
	})
	return s, ok, err
}

// Instance returns one instance; false when it is not known.
func (c *Control) Instance(ctx context.Context, id appstream.InstanceID) (*appstream.Instance, bool, error) {
	var ok bool
	i, err := state.Read(ctx, c.Store, func(r state.Reader) (i *appstream.Instance, err error) {
		i, ok, err = appstream.Instances.Get(r, string(id))
		return i, err
	})
	return i, ok, err
}

// ExpireSession asks for the end of a session. Unknown and ended sessions are no error (the API models none).
func (c *Control) ExpireSession(ctx context.Context, id appstream.SessionID) error {
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		s, ok, err := appstream.Sessions.Get(tx, string(id))
		if err != nil || !ok || !s.Live() || s.Expire != 0 {
			return err
		}
		s.Expire = appstream.EndByAdministrator
		return appstream.Sessions.Put(tx, s)
	})
	return err
}

// ParseResolution reads "WIDTHxHEIGHT" (64 to 5120 by 64 to 2880 pixels).
func ParseResolution(s string) (width, height uint16, err error) {
	bad := fault.Newf(fault.Invalid, "resolution", "", "%q is not WIDTHxHEIGHT between 64x64 and 5120x2880", s)
	if !resolutionPattern.MatchString(s) {
		return 0, 0, bad
	}
	ws, hs, _ := strings.Cut(s, "x")
	w, errW := strconv.ParseUint(ws, 10, 16)
	h, errH := strconv.ParseUint(hs, 10, 16)
	if errW != nil || errH != nil || w < 64 || w > 5120 || h < 64 || h > 2880 {
		return 0, 0, bad
	}
	return uint16(w), uint16(h), nil
}

func hash(s string) uint64 {
	h := fnv.New64a()
	_, _ = fmt.Fprint(h, s) // never fails
	return h.Sum64()
}
