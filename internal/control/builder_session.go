package control

import (
	"context"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
)

// CreateBuilderStreamingURL returns a URL with which its bearer works on a builder's desktop, and when it expires.
// CreateImageBuilderStreamingURL: validity 1 to 604800 s, 3600 by default; the builder must run.
func (c *Control) CreateBuilderStreamingURL(ctx context.Context, kind appstream.BuilderKind, name string, validity *int64) (string, time.Time, error) {
	b, err := state.Read(ctx, c.Store, func(r state.Reader) (*appstream.Builder, error) {
		b, err := builder(r, kind.ID(name))
		if err == nil && b.State != appstream.BuilderRunning {
			err = fault.Newf(fault.NotPermitted, kind.Title(), name, "it is %s; a streaming URL needs one that is RUNNING", b.State)
		}
		return b, err
	})
	if err != nil {
		return "", time.Time{}, err
	}
	return c.streamingURL(appstream.Grant{
		Builder: b.ID(), Made: b.CreatedTime, UserID: kind.Administrator(), Application: Desktop,
	}, validity, appstream.BuilderValidity)
}

// builderOffers is a builder as its administrator sees it: its desktop, in the place of a stack's applications.
func builderOffers(r state.Reader, v appstream.Visitor) ([]Offer, error) {
	b, err := builderOf(r, v)
	if fault.Is(err, fault.NotFound) {
		return nil, nil // it was deleted since
	}
	if err != nil {
		return nil, err
	}
	o := Offer{
		Stack:        &appstream.Stack{Name: b.Name, DisplayName: b.DisplayName, Description: b.Description},
		Applications: []appstream.Application{{Name: Desktop, DisplayName: Desktop}},
	}
	if err := streams(b); err != nil {
		o.Unavailable = err.Error()
	}
	return []Offer{o}, nil
}

// builderOf is the builder that a visitor's streaming URL was made for.
func builderOf(r state.Reader, v appstream.Visitor) (*appstream.Builder, error) {
	b, err := builder(r, v.Builder)
	if err == nil && !b.CreatedTime.Equal(v.Made) {
		err = fault.New(fault.NotFound, b.Kind.Title(), b.Name, "the one that the streaming URL was made for was deleted")
	}
	return b, err
}

// streams refuses a builder that nobody can work on now.
func streams(b *appstream.Builder) error {
	if b.State == appstream.BuilderRunning {
		return nil
	}
	return fault.Newf(fault.NotAvailable, b.Kind.Title(), b.Name, "it is %s; start it first", b.State)
}

// onBuilder places a session on a builder: its running one, or a new one on its instance. It has no limit in time: it ends with the
// builder, or when its user or an administrator ends it, and the builder gets another instance then.
func (c *Control) onBuilder(q LaunchRequest) launch {
	return launch{
		place: func(tx state.Tx) (*appstream.Session, error) {
			if q.Application != q.Visitor.Application {
				return nil, fault.New(fault.NotPermitted, "application", q.Application, "the streaming URL names another application")
			}
			b, inst, s, err := builderNow(tx, q.Visitor)
			if err != nil || s != nil {
				return s, err
			}
			if inst == nil {
				return nil, errNoneReady
			}
			s = newSession(q, inst, appstream.StreamingEndpoint(b.AccessEndpoints), c.Now().UTC())
			s.Builder = b.ID()
			return c.claim(tx, inst, s)
		},
		placeable: func(r state.Reader) (bool, error) {
			_, inst, s, err := builderNow(r, q.Visitor)
			return inst != nil || s != nil, err
		},
	}
}

// builderNow is a running builder with what a session can be on: the session that it has, or an instance that is ready. It has neither
// while its instance starts.
func builderNow(r state.Reader, v appstream.Visitor) (*appstream.Builder, *appstream.Instance, *appstream.Session, error) {
	b, err := builderOf(r, v)
	if err == nil {
		err = streams(b)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	ss, err := appstream.Sessions.By(r, "live-builder", string(b.ID()))
	if err != nil {
		return nil, nil, nil, err
	}
	for _, s := range ss {
		if s.Expire == 0 {
			return b, nil, s, nil
		}
	}
	is, err := appstream.Instances.By(r, "builder", string(b.ID()))
	for _, i := range is {
		if i.State == appstream.InstanceReady {
			return b, i, nil, err
		}
	}
	return b, nil, nil, err
}
