package control

import (
	"context"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/audit"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// beginTimeout bounds the start of an application.
const beginTimeout = 20 * time.Second

// sessionLoop starts the applications of placed sessions and ends sessions that must end.
func (c *Control) sessionLoop() *loop {
	live := func(r state.Reader) ([]string, error) {
		ss, err := appstream.Sessions.By(r, "live", "yes")
		ids := make([]string, 0, len(ss))
		for _, s := range ss {
			ids = append(ids, string(s.ID))
		}
		return ids, err
	}
	return &loop{
		name: "sessions", store: c.Store, log: c.Log, workers: 8,
		list: live,
		wake: func(_ state.Reader, ch state.Change) (string, error) {
			switch {
			case ch.Kind == appstream.Sessions.Kind && !ch.Deleted:
				return ch.ID, nil
			case ch.Kind == vpc.KindEndpoint:
				return endpointPrefix + ch.ID, nil
			default:
				return "", nil
			}
		},
		handle: c.reconcileSession,
	}
}

// endpointPrefix marks work that concerns all sessions of an endpoint.
const endpointPrefix = "endpoint "

func (c *Control) reconcileSession(ctx context.Context, id string) (time.Duration, error) {
	if len(id) > len(endpointPrefix) && id[:len(endpointPrefix)] == endpointPrefix {
		return 0, c.endpointChanged(ctx, appstream.EndpointID(id[len(endpointPrefix):]))
	}
	s, ok, err := c.Session(ctx, appstream.SessionID(id))
	if err != nil || !ok {
		return 0, err
	}
	if !s.Live() {
		return 0, c.recordEnd(ctx, s)
	}
	now := c.Now()
	switch {
	case s.Expire != 0:
		return 0, c.endSession(ctx, s.ID, s.Expire, endReasons[s.Expire])
	case !s.MaxEnd.IsZero() && !now.Before(s.MaxEnd):
		return 0, c.endSession(ctx, s.ID, appstream.EndMaxDuration, endReasons[appstream.EndMaxDuration])
	case s.Begun < len(s.Applications()):
		return 0, c.begin(ctx, s)
	case s.MaxEnd.IsZero():
		return 0, nil
	default:
		return s.MaxEnd.Sub(now), nil
	}
}

// endReasons is what users read when a session ends.
var endReasons = map[appstream.EndCode]string{
	appstream.EndByUser:          "You ended the session.",
	appstream.EndByAdministrator: "An administrator ended the session.",
	appstream.EndMaxDuration:     "The session reached its maximum duration.",
	appstream.EndIdle:            "The session was idle for too long.",
	appstream.EndApplication:     "The application was closed.",
	appstream.EndInstanceFailed:  "The machine that ran the session failed.",
	appstream.EndShutdown:        "The server is shutting down.",
	appstream.EndEndpointGone:    "The network endpoint of the session was removed.",
	appstream.EndDisconnected:    "Nobody reconnected within the disconnect timeout.",
}

// begin starts the session's next application.
func (c *Control) begin(ctx context.Context, s *appstream.Session) error {
	spec, err := c.sessionSpec(ctx, s)
	if err == nil {
		beginCtx, cancel := context.WithTimeout(ctx, beginTimeout)
		err = c.Compute.Begin(beginCtx, s.Instance, spec)
		cancel()
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	beginErr := err
	_, err = c.Store.Update(ctx, func(tx state.Tx) error {
		now, ok, err := appstream.Sessions.Get(tx, string(s.ID))
		if err != nil || !ok || !now.Live() {
			return err
		}
		if beginErr != nil && s.Begun == 0 {
			return c.end(tx, now, appstream.EndInstanceFailed, "The application could not be started: "+beginErr.Error())
		}
		now.Begun, now.State = s.Begun+1, appstream.SessionActive // a later application that fails does not end the session
		return appstream.Sessions.Put(tx, now)
	})
	if beginErr != nil {
		c.Log.Warn("application did not start", "session", s.ID, "application", spec.Application.Name, "error", beginErr)
	}
	return err
}

func (c *Control) sessionSpec(ctx context.Context, s *appstream.Session) (appstream.SessionSpec, error) {
	spec := appstream.SessionSpec{
		ID: s.ID, UserID: s.UserID, Stack: s.Stack, Fleet: s.Fleet, Endpoint: s.Endpoint, Context: s.Context,
		EndsAt: s.MaxEnd, ControlKey: publicKey(c.Key), DisconnectTimeout: s.DisconnectTimeout, IdleTimeout: s.IdleTimeout, DisplayPort: s.DisplayPort,
	}
	spec.Window = s.Window
	if s.Fixed != "" {
		var err error
		if spec.Width, spec.Height, err = ParseResolution(s.Fixed); err != nil {
			return spec, err
		}
	}
	app, err := c.application(ctx, s.Applications()[s.Begun])
	spec.Application = app
	return spec, err
}

// endSession ends one session, once.
func (c *Control) endSession(ctx context.Context, id appstream.SessionID, code appstream.EndCode, reason string) error {
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		s, ok, err := appstream.Sessions.Get(tx, string(id))
		if err != nil || !ok || !s.Live() {
			return err
		}
		return c.end(tx, s, code, reason)
	})
	return err
}

// recordEnd puts the end of a session on record: once, or twice when the server is killed in between.
func (c *Control) recordEnd(ctx context.Context, s *appstream.Session) error {
	if s.EndRecorded {
		return nil
	}
	about := map[string]any{
		"sessionId": string(s.ID), "userId": s.UserID, "endpoint": string(s.Endpoint),
		"reason": s.EndReason, "startTime": s.Started.UTC().Format(time.RFC3339),
	}
	if s.Builder != "" {
		about["builder"] = string(s.Builder)
	} else {
		about["stackName"], about["fleetName"] = s.Stack, s.Fleet
	}
	c.Audit.Record(audit.Event{Source: audit.AppStreamSource, Name: "EndSession", Time: s.Ended, Identity: audit.Itself(), Additional: about})
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		now, ok, err := appstream.Sessions.Get(tx, string(s.ID))
		if err != nil || !ok {
			return err
		}
		now.EndRecorded = true
		return appstream.Sessions.Put(tx, now)
	})
	return err
}

// end writes that a session has ended and that its instance must go.
func (c *Control) end(tx state.Tx, s *appstream.Session, code appstream.EndCode, reason string) error {
	s.State, s.Connected, s.Ended, s.EndCode, s.EndReason = appstream.SessionExpired, false, c.Now().UTC(), code, reason
	if err := appstream.Sessions.Put(tx, s); err != nil {
		return err
	}
	i, ok, err := appstream.Instances.Get(tx, string(s.Instance))
	if err != nil || !ok || i.State == appstream.InstanceEnding {
		return err
	}
	i.State, i.EndCode, i.EndReason = appstream.InstanceEnding, code, reason
	return appstream.Instances.Put(tx, i)
}

// endpointChanged ends the sessions of an endpoint that is being deleted.
func (c *Control) endpointChanged(ctx context.Context, id appstream.EndpointID) error {
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		gone, err := endpointGone(tx, id)
		if err != nil || !gone {
			return err
		}
		ss, err := appstream.Sessions.By(tx, "live-endpoint", string(id))
		if err != nil {
			return err
		}
		for _, s := range ss {
			if err := c.end(tx, s, appstream.EndEndpointGone, endReasons[appstream.EndEndpointGone]); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// purge forgets sessions that ended long ago, until ctx ends.
func (c *Control) purge(ctx context.Context) error {
	for sleep(ctx, time.Hour) {
		_, err := c.Store.Update(ctx, func(tx state.Tx) error {
			ss, err := appstream.Sessions.List(tx, state.Query{})
			if err != nil {
				return err
			}
			for _, s := range ss {
				if !s.Live() && c.Now().Sub(s.Ended) > keepEnded {
					if err := appstream.Sessions.Delete(tx, string(s.ID)); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil && ctx.Err() == nil {
			c.Log.Error("forgetting ended sessions failed", "error", err)
		}
	}
	return nil
}
