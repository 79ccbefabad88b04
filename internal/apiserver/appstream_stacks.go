package apiserver

import (
	"cmp"
	"context"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/control"
	"penstock.dev/penstock/internal/fault"
	api "penstock.dev/penstock/internal/wire/appstreamapi"
)

func (h *appstreamHandlers) createStack(ctx context.Context, _ Caller, in *api.CreateStackInput) (*api.CreateStackOutput, error) {
	if err := cmp.Or(unsupported(in.ContentRedirection != nil, "contentRedirection"), unsupported(in.AgentAccessConfig != nil, "agentAccessConfig")); err != nil {
		return nil, err
	}
	s := appstream.Stack{
		Name: deref(in.Name), Description: deref(in.Description), DisplayName: deref(in.DisplayName),
		RedirectURL: deref(in.RedirectURL), FeedbackURL: deref(in.FeedbackURL),
		StorageConnectors: storageConnectors(in.StorageConnectors), UserSettings: userSettings(in.UserSettings),
		AccessEndpoints: accessEndpoints(in.AccessEndpoints), EmbedHostDomains: in.EmbedHostDomains, Tags: in.Tags,
	}
	if in.ApplicationSettings != nil {
		s.ApplicationSettings = *appSettings(in.ApplicationSettings)
	}
	if in.StreamingExperienceSettings != nil {
		s.PreferredProtocol = deref(in.StreamingExperienceSettings.PreferredProtocol)
	}
	out, err := h.control.CreateStack(ctx, s)
	if err != nil {
		return nil, err
	}
	return &api.CreateStackOutput{Stack: new(h.stack(out))}, nil
}

func (h *appstreamHandlers) describeStacks(ctx context.Context, _ Caller, in *api.DescribeStacksInput) (*api.DescribeStacksOutput, error) {
	ss, err := h.control.Stacks(ctx, in.Names)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeStacksOutput{Stacks: make([]api.Stack, 0, len(ss))}
	for _, s := range ss {
		out.Stacks = append(out.Stacks, h.stack(s))
	}
	return out, nil
}

func (h *appstreamHandlers) updateStack(ctx context.Context, _ Caller, in *api.UpdateStackInput) (*api.UpdateStackOutput, error) {
	if err := cmp.Or(unsupported(in.ContentRedirection != nil, "contentRedirection"), unsupported(in.AgentAccessConfig != nil, "agentAccessConfig")); err != nil {
		return nil, err
	}
	if in.Name == nil {
		return nil, fault.New(fault.Missing, "name", "", "the stack's name is missing")
	}
	ch := control.StackChange{
		Description: in.Description, DisplayName: in.DisplayName, RedirectURL: in.RedirectURL, FeedbackURL: in.FeedbackURL,
		StorageConnectors: storageConnectors(in.StorageConnectors), UserSettings: userSettings(in.UserSettings),
		ApplicationSettings: appSettings(in.ApplicationSettings), AccessEndpoints: accessEndpoints(in.AccessEndpoints),
		EmbedHostDomains: in.EmbedHostDomains, Delete: in.AttributesToDelete,
	}
	if in.StreamingExperienceSettings != nil {
		ch.PreferredProtocol = in.StreamingExperienceSettings.PreferredProtocol
	}
	if deref(in.DeleteStorageConnectors) {
		ch.Delete = append(ch.Delete, api.StackAttributeStorageConnectors)
	}
	out, err := h.control.UpdateStack(ctx, *in.Name, ch)
	if err != nil {
		return nil, err
	}
	return &api.UpdateStackOutput{Stack: new(h.stack(out))}, nil
}

func (h *appstreamHandlers) deleteStack(ctx context.Context, _ Caller, in *api.DeleteStackInput) (*api.DeleteStackOutput, error) {
	return nil, h.control.DeleteStack(ctx, deref(in.Name))
}

func (h *appstreamHandlers) stack(s *appstream.Stack) api.Stack {
	out := api.Stack{
		Arn: h.arn("stack", s.Name), Name: &s.Name, Description: optional(s.Description), DisplayName: optional(s.DisplayName),
		CreatedTime: &s.CreatedTime, RedirectURL: optional(s.RedirectURL), FeedbackURL: optional(s.FeedbackURL),
		EmbedHostDomains: s.EmbedHostDomains, AccessEndpoints: accessEndpointShapes(s.AccessEndpoints),
		ApplicationSettings: &api.ApplicationSettingsResponse{
			Enabled: &s.ApplicationSettings.Enabled, SettingsGroup: optional(s.ApplicationSettings.SettingsGroup),
		},
	}
	for _, c := range s.StorageConnectors {
		out.StorageConnectors = append(out.StorageConnectors, api.StorageConnector{
			ConnectorType: &c.Type, ResourceIdentifier: optional(c.ResourceIdentifier), Domains: c.Domains,
		})
	}
	for _, u := range appstream.EffectiveUserSettings(s.UserSettings) {
		out.UserSettings = append(out.UserSettings, api.UserSetting{
			Action: &u.Action, Permission: &u.Permission, MaximumLength: optional(u.MaximumLength),
		})
	}
	if s.PreferredProtocol != "" {
		out.StreamingExperienceSettings = &api.StreamingExperienceSettings{PreferredProtocol: &s.PreferredProtocol}
	}
	return out
}

func storageConnectors(in []api.StorageConnector) []appstream.StorageConnector {
	var out []appstream.StorageConnector
	for _, c := range in {
		out = append(out, appstream.StorageConnector{
			Type: deref(c.ConnectorType), ResourceIdentifier: deref(c.ResourceIdentifier), Domains: c.Domains,
		})
	}
	return out
}

func userSettings(in []api.UserSetting) []appstream.UserSetting {
	var out []appstream.UserSetting
	for _, u := range in {
		out = append(out, appstream.UserSetting{Action: deref(u.Action), Permission: deref(u.Permission), MaximumLength: deref(u.MaximumLength)})
	}
	return out
}

func accessEndpoints(in []api.AccessEndpoint) []appstream.AccessEndpoint {
	var out []appstream.AccessEndpoint
	for _, e := range in {
		out = append(out, appstream.AccessEndpoint{EndpointType: deref(e.EndpointType), VpceID: deref(e.VpceId)})
	}
	return out
}

func accessEndpointShapes(es []appstream.AccessEndpoint) []api.AccessEndpoint {
	var out []api.AccessEndpoint
	for _, e := range es {
		out = append(out, api.AccessEndpoint{EndpointType: &e.EndpointType, VpceId: &e.VpceID})
	}
	return out
}

func appSettings(in *api.ApplicationSettings) *appstream.AppSettings {
	if in == nil {
		return nil
	}
	return &appstream.AppSettings{Enabled: deref(in.Enabled), SettingsGroup: deref(in.SettingsGroup)}
}
