package apiserver

import (
	"context"
	"encoding/base64"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/control"
	"penstock.dev/penstock/internal/fault"
	api "penstock.dev/penstock/internal/wire/appstreamapi"
)

// DescribeSessions: Limit default 20, at most 50.
const (
	defaultSessions = 20
	maxSessions     = 50
)

func (h *appstreamHandlers) createStreamingURL(ctx context.Context, _ Caller, in *api.CreateStreamingURLInput) (*api.CreateStreamingURLOutput, error) {
	u, expires, err := h.control.CreateStreamingURL(ctx, control.StreamingURLRequest{
		Stack: deref(in.StackName), Fleet: deref(in.FleetName), UserID: deref(in.UserId),
		Application: deref(in.ApplicationId), Context: deref(in.SessionContext), Validity: in.Validity,
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateStreamingURLOutput{StreamingURL: &u, Expires: &expires}, nil
}

func (h *appstreamHandlers) describeSessions(ctx context.Context, _ Caller, in *api.DescribeSessionsInput) (*api.DescribeSessionsOutput, error) {
	limit := defaultSessions
	if in.Limit != nil {
		limit = int(*in.Limit)
	}
	if limit < 1 || limit > maxSessions {
		return nil, fault.Newf(fault.Invalid, "limit", "", "%d is not between 1 and %d", limit, maxSessions)
	}
	after, err := base64.RawURLEncoding.DecodeString(deref(in.NextToken))
	if err != nil {
		return nil, fault.New(fault.Invalid, "nextToken", "", "it was not made by this operation")
	}
	auth := appstream.AuthType(deref(in.AuthenticationType))
	if auth == "" && in.UserId != nil {
		auth = appstream.AuthAPI // DescribeSessions: the default that goes with a user ID
	}
	ss, next, err := h.control.Sessions(ctx, control.SessionQuery{
		Stack: deref(in.StackName), Fleet: deref(in.FleetName), UserID: deref(in.UserId), After: string(after), Limit: limit, Auth: auth, Instance: deref(in.InstanceId),
	})
	if err != nil {
		return nil, err
	}
	out := &api.DescribeSessionsOutput{Sessions: make([]api.Session, 0, len(ss))}
	for _, s := range ss {
		out.Sessions = append(out.Sessions, session(s))
	}
	if next != "" {
		out.NextToken = new(base64.RawURLEncoding.EncodeToString([]byte(next)))
	}
	return out, nil
}

func (h *appstreamHandlers) expireSession(ctx context.Context, _ Caller, in *api.ExpireSessionInput) (*api.ExpireSessionOutput, error) {
	return nil, h.control.ExpireSession(ctx, appstream.SessionID(deref(in.SessionId)))
}

func session(s *appstream.Session) api.Session {
	connection := api.SessionConnectionStateNotConnected
	if s.Connected {
		connection = api.SessionConnectionStateConnected
	}
	out := api.Session{
		Id: new(string(s.ID)), UserId: &s.UserID, StackName: &s.Stack, FleetName: &s.Fleet, State: new(string(s.State)),
		ConnectionState: &connection, StartTime: &s.Started, MaxExpirationTime: &s.MaxEnd, AuthenticationType: &s.AuthType,
		InstanceId: new(string(s.Instance)),
	}
	if s.ENI != "" {
		out.NetworkAccessConfiguration = &api.NetworkAccessConfiguration{EniId: &s.ENI, EniPrivateIpAddress: strOrNil(s.ENIAddress)}
		if s.ENIAddress6 != "" {
			out.NetworkAccessConfiguration.EniIpv6Addresses = []string{s.ENIAddress6}
		}
	}
	return out
}
