package control

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
)

// StackChange is what UpdateStack sends: nil members stay as they are.
type StackChange struct {
	Description, DisplayName, RedirectURL, FeedbackURL *string
	StorageConnectors                                  []appstream.StorageConnector
	UserSettings                                       []appstream.UserSetting
	ApplicationSettings                                *appstream.AppSettings
	AccessEndpoints                                    []appstream.AccessEndpoint
	EmbedHostDomains                                   []string
	PreferredProtocol                                  *string
	Delete                                             []string // AttributesToDelete
}

// attributesToDelete is what UpdateStack may remove.
var attributesToDelete = map[string]func(*appstream.Stack){
	"STORAGE_CONNECTORS":             func(s *appstream.Stack) { s.StorageConnectors = nil },
	"STORAGE_CONNECTOR_HOMEFOLDERS":  func(s *appstream.Stack) { s.DropStorageConnector("HOMEFOLDERS") },
	"STORAGE_CONNECTOR_GOOGLE_DRIVE": func(s *appstream.Stack) { s.DropStorageConnector("GOOGLE_DRIVE") },
	"STORAGE_CONNECTOR_ONE_DRIVE":    func(s *appstream.Stack) { s.DropStorageConnector("ONE_DRIVE") },
	"REDIRECT_URL":                   func(s *appstream.Stack) { s.RedirectURL = "" },
	"FEEDBACK_URL":                   func(s *appstream.Stack) { s.FeedbackURL = "" },
	"THEME_NAME":                     func(*appstream.Stack) {},
	"USER_SETTINGS":                  func(s *appstream.Stack) { s.UserSettings = nil },
	"EMBED_HOST_DOMAINS":             func(s *appstream.Stack) { s.EmbedHostDomains = nil },
	"IAM_ROLE_ARN":                   func(*appstream.Stack) {},
	"ACCESS_ENDPOINTS":               func(s *appstream.Stack) { s.AccessEndpoints = nil },
	"STREAMING_EXPERIENCE_SETTINGS":  func(s *appstream.Stack) { s.PreferredProtocol = "" },
	"CONTENT_REDIRECTION":            func(*appstream.Stack) {},
	"AGENT_ACCESS_CONFIG":            func(*appstream.Stack) {},
}

// CreateStack makes a stack. Its endpoint must exist and be available.
func (c *Control) CreateStack(ctx context.Context, s appstream.Stack) (*appstream.Stack, error) {
	if err := appstream.CheckName("Name", s.Name); err != nil {
		return nil, err
	}
	s.CreatedTime = c.Now().UTC()
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		if _, ok, err := appstream.Stacks.Get(tx, s.Name); err != nil {
			return err
		} else if ok {
			return fault.New(fault.AlreadyExists, "stack", s.Name, "a stack with this name exists")
		}
		if err := c.checkStack(tx, &s, true); err != nil {
			return err
		}
		return appstream.Stacks.Put(tx, &s)
	})
	if err != nil {
		return nil, err
	}
	return &s, nil
}

// UpdateStack changes the members that were sent. Running sessions keep the endpoint that they began with.
func (c *Control) UpdateStack(ctx context.Context, name string, ch StackChange) (*appstream.Stack, error) {
	for _, a := range ch.Delete {
		if attributesToDelete[a] == nil {
			return nil, fault.Newf(fault.Invalid, "attributesToDelete", "", "%q is not an attribute that can be deleted", a)
		}
		if a == "ACCESS_ENDPOINTS" && len(ch.AccessEndpoints) > 0 {
			return nil, fault.New(fault.Combination, "attributesToDelete", "", "ACCESS_ENDPOINTS cannot be deleted and set in one call")
		}
	}
	var out *appstream.Stack
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		s, ok, err := appstream.Stacks.Get(tx, name)
		if err != nil {
			return err
		}
		if !ok {
			return stackNotFound(name)
		}
		for _, a := range ch.Delete {
			attributesToDelete[a](s)
		}
		set(&s.Description, ch.Description)
		set(&s.DisplayName, ch.DisplayName)
		set(&s.RedirectURL, ch.RedirectURL)
		set(&s.FeedbackURL, ch.FeedbackURL)
		set(&s.PreferredProtocol, ch.PreferredProtocol)
		set(&s.ApplicationSettings, ch.ApplicationSettings)
		setList(&s.StorageConnectors, ch.StorageConnectors)
		setList(&s.UserSettings, ch.UserSettings)
		setList(&s.AccessEndpoints, ch.AccessEndpoints)
		setList(&s.EmbedHostDomains, ch.EmbedHostDomains)
		if err := c.checkStack(tx, s, len(ch.AccessEndpoints) > 0); err != nil {
			return err
		}
		out = s
		return appstream.Stacks.Put(tx, s)
	})
	return out, err
}

// checkStack refuses settings that do not fit together; endpoints are looked at when they are being set.
func (c *Control) checkStack(r state.Reader, s *appstream.Stack, endpoints bool) error {
	for _, u := range []struct{ member, value string }{{"redirectURL", s.RedirectURL}, {"feedbackURL", s.FeedbackURL}} {
		if p, err := url.Parse(u.value); u.value != "" && (err != nil || p.Scheme != "https" && p.Scheme != "http" || p.Host == "") {
			return fault.Newf(fault.Invalid, u.member, "", "%q is not an absolute http or https URL", u.value)
		}
	}
	seen := map[string]bool{}
	perm := map[string]string{}
	for _, u := range appstream.EffectiveUserSettings(s.UserSettings) {
		perm[u.Action] = u.Permission
	}
	for _, u := range s.UserSettings {
		if seen[u.Action] {
			return fault.Newf(fault.Combination, "userSettings", "", "action %s stands twice", u.Action)
		}
		seen[u.Action] = true
		if u.MaximumLength != 0 && (u.Permission != appstream.Enabled || !strings.HasPrefix(u.Action, "CLIPBOARD_")) {
			return fault.Newf(fault.Combination, "userSettings", "", "maximumLength goes with enabled clipboard actions only, not with %s", u.Action)
		}
	}
	if perm["DOMAIN_PASSWORD_SIGNIN"] == appstream.Disabled && perm["DOMAIN_SMART_CARD_SIGNIN"] == appstream.Disabled {
		return fault.New(fault.Combination, "userSettings", "", "password and smart card sign-in cannot both be disabled")
	}
	if !endpoints {
		return nil
	}
	return c.checkAccessEndpoints(r, s.AccessEndpoints)
}

// DeleteStack removes a stack that no fleet is associated with, and what users and entitlements had of it.
func (c *Control) DeleteStack(ctx context.Context, name string) error {
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		if _, ok, err := appstream.Stacks.Get(tx, name); err != nil {
			return err
		} else if !ok {
			return stackNotFound(name)
		}
		as, err := appstream.Associations.By(tx, "stack", name)
		if err != nil {
			return err
		}
		if len(as) > 0 {
			return fault.Newf(fault.InUse, "stack", name, "fleet %s is associated with it", as[0].FleetName)
		}
		n, err := tx.Count(appstream.Sessions.Kind, state.Key{Name: "live-stack", Value: name})
		if err != nil {
			return err
		}
		if n > 0 {
			return fault.New(fault.InUse, "stack", name, "sessions are running")
		}
		if err := deleteBy(tx, appstream.UserStacks, "stack", name); err != nil {
			return err
		}
		if err := deleteBy(tx, appstream.Entitlements, "stack", name); err != nil {
			return err
		}
		return appstream.Stacks.Delete(tx, name)
	})
	return err
}

// Stacks returns the named stacks, all when no name is given, in order of their names.
func (c *Control) Stacks(ctx context.Context, names []string) ([]*appstream.Stack, error) {
	return named(ctx, c.Store, appstream.Stacks, "stack", names)
}

// deleteBy deletes every document with one secondary key.
func deleteBy[T any](tx state.Tx, t state.Table[T], key, value string) error {
	all, err := t.By(tx, key, value)
	for _, v := range all {
		err = errors.Join(err, t.Delete(tx, t.ID(v)))
	}
	return err
}

func stackNotFound(name string) error {
	return fault.New(fault.NotFound, "stack", name, "there is no stack with this name")
}

// named lists a table, or gets exactly the named documents and refuses when one is missing.
func named[T any](ctx context.Context, s state.Store, t state.Table[T], resource string, names []string) ([]*T, error) {
	return state.Read(ctx, s, func(r state.Reader) ([]*T, error) {
		if len(names) == 0 {
			return t.List(r, state.Query{})
		}
		names = slices.Compact(slices.Sorted(slices.Values(names)))
		out := make([]*T, 0, len(names))
		for _, n := range names {
			v, ok, err := t.Get(r, n)
			if err != nil {
				return nil, err
			}
			if !ok {
				return nil, fault.Newf(fault.NotFound, resource, n, "there is no %s with this name", resource)
			}
			out = append(out, v)
		}
		return out, nil
	})
}

func set[T any](dst *T, src *T) {
	if src != nil {
		*dst = *src
	}
}

func setList[T any](dst *[]T, src []T) {
	if src != nil {
		*dst = src
	}
}
