package gateway

import (
	"maps"
	"net"
	"net/http"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/audit"
)

// record puts on record that a ticket was redeemed or refused, or that a channel closed. The ticket itself is never in it.
func (g *Gateway) record(name string, r *http.Request, v visit, channel appstream.Channel, s *appstream.Session, ref *refusal, more map[string]any) {
	e := audit.Event{
		Source: audit.AppStreamSource, Name: name, SourceIP: clientOf(v.source), UserAgent: r.UserAgent(), Type: audit.Action,
		Additional: map[string]any{"endpoint": string(v.endpoint), "channel": string(channel)},
	}
	maps.Copy(e.Additional, more)
	if s != nil {
		e.Identity = audit.StreamingUser(s.UserID, s.AuthType)
		maps.Copy(e.Additional, map[string]any{"sessionId": string(s.ID), "stackName": s.Stack, "fleetName": s.Fleet})
	}
	if ref != nil {
		e.ErrorCode, e.ErrorText, e.Unproved = ref.code.name(), ref.reason, true
	}
	g.Audit.Record(e)
}

func clientOf(source string) string {
	if host, _, err := net.SplitHostPort(source); err == nil {
		return host
	}
	return source
}
