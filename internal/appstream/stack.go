package appstream

import (
	"slices"
	"time"

	"penstock.dev/penstock/internal/state"
)

// Stack is what users stream from: settings and the endpoint that they must use.
type Stack struct {
	Name                string
	Description         string `json:",omitempty"`
	DisplayName         string `json:",omitempty"`
	RedirectURL         string `json:",omitempty"`
	FeedbackURL         string `json:",omitempty"`
	CreatedTime         time.Time
	StorageConnectors   []StorageConnector `json:",omitempty"`
	UserSettings        []UserSetting      `json:",omitempty"`
	ApplicationSettings AppSettings
	AccessEndpoints     []AccessEndpoint `json:",omitempty"`
	EmbedHostDomains    []string         `json:",omitempty"`
	PreferredProtocol   string           `json:",omitempty"`
	Tags                Tags             `json:",omitempty"`
}

// StorageConnector is persistent storage offered to users of a stack.
type StorageConnector struct {
	Type               string
	ResourceIdentifier string   `json:",omitempty"`
	Domains            []string `json:",omitempty"`
}

// UserSetting allows or forbids one action to users of a stack.
type UserSetting struct {
	Action, Permission string
	MaximumLength      int32 `json:",omitempty"` // characters; clipboard actions only
}

// AppSettings says whether applications' settings persist, and under which group.
type AppSettings struct {
	Enabled       bool
	SettingsGroup string `json:",omitempty"`
}

// AccessEndpoint binds a stack or builder to an interface VPC endpoint.
type AccessEndpoint struct {
	EndpointType string // STREAMING
	VpceID       string
}

// Endpoint is where new sessions of the stack must stream from.
func (s *Stack) Endpoint() EndpointID { return StreamingEndpoint(s.AccessEndpoints) }

// Stacks is the table of stacks.
var Stacks = state.Table[Stack]{
	Kind: "stack",
	ID:   func(s *Stack) string { return s.Name },
	Keys: func(s *Stack) []state.Key { return []state.Key{{Name: "endpoint", Value: string(s.Endpoint())}} },
}

// Actions of user settings in the order in which DescribeStacks lists them, with the permission that holds when nothing was sent
// (facts: everything is on unless said otherwise, smart card sign-in is off in practice).
var defaultUserSettings = []UserSetting{
	{Action: "CLIPBOARD_COPY_FROM_LOCAL_DEVICE", Permission: Enabled},
	{Action: "CLIPBOARD_COPY_TO_LOCAL_DEVICE", Permission: Enabled},
	{Action: "FILE_UPLOAD", Permission: Enabled},
	{Action: "FILE_DOWNLOAD", Permission: Enabled},
	{Action: "PRINTING_TO_LOCAL_DEVICE", Permission: Enabled},
	{Action: "DOMAIN_PASSWORD_SIGNIN", Permission: Enabled},
	{Action: "DOMAIN_SMART_CARD_SIGNIN", Permission: Disabled},
	{Action: "AUTO_TIME_ZONE_REDIRECTION", Permission: Enabled},
}

// Permissions of user settings.
const (
	Enabled  = "ENABLED"
	Disabled = "DISABLED"
)

// EffectiveUserSettings is the full list: what was sent over what holds by default.
func EffectiveUserSettings(sent []UserSetting) []UserSetting {
	out := make([]UserSetting, 0, len(defaultUserSettings))
	for _, d := range defaultUserSettings {
		for _, s := range sent {
			if s.Action == d.Action {
				d = s
			}
		}
		out = append(out, d)
	}
	return out
}

// DropStorageConnector removes the connectors of one type.
func (s *Stack) DropStorageConnector(kind string) {
	s.StorageConnectors = slices.DeleteFunc(s.StorageConnectors, func(c StorageConnector) bool { return c.Type == kind })
}
