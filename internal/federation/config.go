// Package federation lets users sign in through identity providers: OpenID Connect (authorization code with PKCE) and SAML 2.0
// (web browser SSO). It is the relying side only; what a user may do is decided by internal/control.
package federation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"time"

	"penstock.dev/penstock/internal/appstream"
)

// Provider is one identity provider as the operator describes it.
type Provider struct {
	ID   string `json:"id"`   // part of URLs and of sessions: [a-z0-9-]
	Name string `json:"name"` // on the button; empty: the ID
	Type string `json:"type"` // oidc or saml

	// Stacks are those that the provider's users may use; entitlements narrow what they see of each.
	Stacks []string `json:"stacks"`
	// Attributes maps entitlement attributes to the claims or SAML attributes that hold them; without it they have the same names
	// (for SAML: https://aws.amazon.com/SAML/Attributes/PrincipalTag:NAME).
	Attributes map[string]string `json:"attributes"`
	// SessionSeconds bounds a sign-in; 0: as long as any.
	SessionSeconds int `json:"sessionSeconds"`
	// CAFile holds certificates that the provider's server is trusted by, in PEM, instead of the machine's.
	CAFile string `json:"caFile"`

	// OpenID Connect.
	Issuer           string   `json:"issuer"`
	ClientID         string   `json:"clientId"`
	ClientSecretFile string   `json:"clientSecretFile"` // empty: a public client
	Scopes           []string `json:"scopes"`           // besides openid; empty: profile, email
	UserClaim        string   `json:"userClaim"`        // that becomes the user ID; empty: sub
	// UnverifiedEmail accepts an e-mail address as user ID that the provider does not say it verified.
	UnverifiedEmail bool `json:"unverifiedEmail"`

	// SAML.
	MetadataFile string `json:"metadataFile"`
	// SPInitiatedOnly refuses assertions that nobody here asked for. AppStream's own federation begins at the provider.
	SPInitiatedOnly bool `json:"spInitiatedOnly"`
	// UserAttribute becomes the user ID instead of the NameID.
	UserAttribute string `json:"userAttribute"`
	// IAMName is the provider's name in IAM's ARNs (saml-provider/NAME), which roles trust; empty: the ID.
	IAMName string `json:"iamName"`
}

// The types of providers.
const (
	typeOIDC = "oidc"
	typeSAML = "saml"
)

const (
	maxConfig    = 1 << 20
	maxProviders = 32
	// SessionDuration of AWS's SAML attribute: 15 minutes to 12 hours.
	minSession = 900
	maxSession = 43200
)

var (
	providerPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	stackPattern    = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,100}$`)
	iamNamePattern  = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)
	userPattern     = regexp.MustCompile(`^[\p{L}\p{M}\p{S}\p{N}\p{P}]{1,128}$`)
)

// Load reads the file of identity providers: {"providers": [...]}. Unknown members are refused.
func Load(path string) ([]Provider, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("identity providers: %w", err)
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, fmt.Errorf("identity providers: %w", err)
	}
	ps, err := parseConfig(b)
	if err != nil {
		return nil, fmt.Errorf("identity providers %s: %w", path, err)
	}
	return ps, nil
}

func parseConfig(b []byte) ([]Provider, error) {
	if len(b) > maxConfig {
		return nil, fmt.Errorf("the file is longer than %d bytes", maxConfig)
	}
	var c struct {
		Providers []Provider `json:"providers"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the object")
	}
	if len(c.Providers) == 0 || len(c.Providers) > maxProviders {
		return nil, fmt.Errorf("providers: %d stand there; 1 to %d are allowed", len(c.Providers), maxProviders)
	}
	seen := map[string]bool{}
	for i := range c.Providers {
		p := &c.Providers[i]
		if err := p.check(); err != nil {
			return nil, fmt.Errorf("providers[%d] (%s): %w", i, p.ID, err)
		}
		if seen[p.ID] {
			return nil, fmt.Errorf("providers[%d]: id %q stands twice", i, p.ID)
		}
		seen[p.ID] = true
	}
	return c.Providers, nil
}

// check refuses what does not fit together and fills in defaults.
func (p *Provider) check() error {
	if !providerPattern.MatchString(p.ID) {
		return fmt.Errorf("id: %q must match %s", p.ID, providerPattern)
	}
	if p.Name == "" {
		p.Name = p.ID
	}
	if len(p.Stacks) == 0 {
		return errors.New("stacks: name at least one stack")
	}
	for _, s := range p.Stacks {
		if !stackPattern.MatchString(s) {
			return fmt.Errorf("stacks: %q is not a stack's name", s)
		}
	}
	if p.SessionSeconds != 0 && (p.SessionSeconds < minSession || p.SessionSeconds > maxSession) {
		return fmt.Errorf("sessionSeconds: %d is not between %d and %d", p.SessionSeconds, minSession, maxSession)
	}
	for name := range p.Attributes {
		if !slices.Contains(appstream.EntitlementAttributes, name) {
			return fmt.Errorf("attributes: %q is not one of %v", name, appstream.EntitlementAttributes)
		}
	}
	switch p.Type {
	case typeOIDC:
		return p.checkOIDC()
	case typeSAML:
		return p.checkSAML()
	}
	return fmt.Errorf("type: %q is not %s or %s", p.Type, typeOIDC, typeSAML)
}

func (p *Provider) checkOIDC() error {
	if p.MetadataFile != "" || p.SPInitiatedOnly || p.UserAttribute != "" || p.IAMName != "" {
		return errors.New("metadataFile, spInitiatedOnly, userAttribute and iamName go with type saml")
	}
	if err := checkServer(p.Issuer); err != nil {
		return fmt.Errorf("issuer: %w", err)
	}
	if p.ClientID == "" {
		return errors.New("clientId is missing")
	}
	if len(p.Scopes) == 0 {
		p.Scopes = []string{"profile", "email"}
	}
	if p.UserClaim == "" {
		p.UserClaim = "sub"
	}
	return nil
}

func (p *Provider) checkSAML() error {
	if p.Issuer != "" || p.ClientID != "" || p.ClientSecretFile != "" || p.UserClaim != "" || len(p.Scopes) > 0 || p.UnverifiedEmail {
		return errors.New("issuer, clientId, clientSecretFile, scopes, userClaim and unverifiedEmail go with type oidc")
	}
	if p.MetadataFile == "" {
		return errors.New("metadataFile is missing")
	}
	if p.IAMName == "" {
		p.IAMName = p.ID
	}
	if !iamNamePattern.MatchString(p.IAMName) {
		return fmt.Errorf("iamName: %q must match %s", p.IAMName, iamNamePattern)
	}
	return nil
}

// checkServer refuses servers that are reached in the clear, except on this machine.
func checkServer(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%q is not an absolute URL without query", text)
	}
	if u.Scheme == "https" {
		return nil
	}
	a, err := netip.ParseAddr(u.Hostname())
	if u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && a.IsLoopback()) {
		return nil
	}
	return fmt.Errorf("%q must be https", text)
}

func (p *Provider) life() time.Duration { return time.Duration(p.SessionSeconds) * time.Second }

// visitor is a user whom the provider vouches for. A stack that is asked for must be one of the provider's.
func (p *Provider) visitor(user, stack string, attributes map[string][]string) (appstream.Visitor, error) {
	if !userPattern.MatchString(user) {
		return appstream.Visitor{}, refused("bad-user", "the identity provider's name of the user is empty, too long or has spaces")
	}
	if stack != "" && !slices.Contains(p.Stacks, stack) {
		return appstream.Visitor{}, refused("wrong-stack", "the identity provider's users may not use stack %.101q", stack)
	}
	return appstream.Visitor{
		Auth: appstream.AuthSAML, UserID: user, Provider: p.ID, Stack: stack, Stacks: p.Stacks, Attributes: attributes,
	}, nil
}
