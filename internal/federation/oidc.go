package federation

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"penstock.dev/penstock/internal/appstream"
)

// algorithms are those of ID tokens that are taken, whatever the provider says: no "none", and no HMAC under the client's secret.
var algorithms = []string{
	oidc.RS256, oidc.RS384, oidc.RS512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.EdDSA,
}

// skew is how far a provider's clock may be from ours.
const skew = time.Minute

// discoveredFor is how long what a provider says of itself is believed. Its keys are asked for again whenever one is unknown.
const discoveredFor = time.Hour

// oidcProvider is one OpenID Connect provider.
type oidcProvider struct {
	*Provider
	redirect string
	http     *http.Client
	now      func() time.Time
	secret   string

	mu    sync.Mutex
	known *discovery
}

// discovery is what a provider said of itself.
type discovery struct {
	at       time.Time
	provider *oidc.Provider
	style    oauth2.AuthStyle
	sendsIss bool // RFC 9207: its answers name the issuer
}

func (f *Federation) newOIDC(p *Provider) (*oidcProvider, error) {
	c, err := p.client()
	if err != nil {
		return nil, err
	}
	o := &oidcProvider{Provider: p, redirect: f.base(p.ID) + "/callback", http: c, now: f.Now}
	if p.ClientSecretFile != "" {
		if o.secret, err = secret(p.ClientSecretFile); err != nil {
			return nil, fmt.Errorf("clientSecretFile: %w", err)
		}
	}
	return o, nil
}

// discover asks the provider for its endpoints and keys, now and then. The issuer that it names must be the configured one.
func (o *oidcProvider) discover(ctx context.Context) (*discovery, error) {
	o.mu.Lock()
	d := o.known
	o.mu.Unlock()
	if d != nil && o.now().Sub(d.at) < discoveredFor {
		return d, nil
	}
	p, err := oidc.NewProvider(oidc.ClientContext(ctx, o.http), o.Issuer)
	if err != nil {
		if d != nil {
			return d, nil // better what it said an hour ago than nothing
		}
		return nil, refused("provider-away", "the provider cannot be asked for its endpoints: %v", err)
	}
	var m struct {
		Methods  []string `json:"token_endpoint_auth_methods_supported"`
		SendsIss bool     `json:"authorization_response_iss_parameter_supported"`
		Auth     string   `json:"authorization_endpoint"`
		Token    string   `json:"token_endpoint"`
		Keys     string   `json:"jwks_uri"`
	}
	if err := p.Claims(&m); err != nil {
		return nil, refused("provider-away", "the provider's description cannot be read: %v", err)
	}
	for _, u := range []string{m.Token, m.Keys} {
		if err := checkServer(u); err != nil {
			return nil, refused("provider-away", "an endpoint of the provider: %v", err)
		}
	}
	if u, err := url.Parse(m.Auth); err != nil || u.Scheme != "https" && checkServer(u.Scheme+"://"+u.Host) != nil {
		return nil, refused("provider-away", "the provider's authorization endpoint %q is not https", m.Auth)
	}
	d = &discovery{at: o.now(), provider: p, style: oauth2.AuthStyleInHeader, sendsIss: m.SendsIss}
	if len(m.Methods) > 0 && !slices.Contains(m.Methods, "client_secret_basic") || o.secret == "" {
		d.style = oauth2.AuthStyleInParams
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.known = d
	return d, nil
}

func (o *oidcProvider) config(d *discovery) *oauth2.Config {
	e := d.provider.Endpoint()
	e.AuthStyle = d.style
	return &oauth2.Config{ClientID: o.ClientID, ClientSecret: o.secret, Endpoint: e, RedirectURL: o.redirect, Scopes: append([]string{oidc.ScopeOpenID}, o.Scopes...)}
}

// start is where the browser goes to; p gets what its answer must show.
func (o *oidcProvider) start(ctx context.Context, p *pending) (string, error) {
	d, err := o.discover(ctx)
	if err != nil {
		return "", err
	}
	p.State, p.Nonce, p.Verifier = randomID(), randomID(), oauth2.GenerateVerifier()
	return o.config(d).AuthCodeURL(p.State, oidc.Nonce(p.Nonce), oauth2.S256ChallengeOption(p.Verifier)), nil
}

// claims are those of an ID token that are looked at here; go-oidc checks signature, issuer, audience and expiry.
type claims struct {
	AuthorizedParty string `json:"azp"`
	Nonce           string `json:"nonce"`
	EmailVerified   any    `json:"email_verified"`
}

// finish redeems the answer's code and checks the ID token.
func (o *oidcProvider) finish(ctx context.Context, p pending, q url.Values) (v appstream.Visitor, err error) {
	d, err := o.discover(ctx)
	if err != nil {
		return v, err
	}
	// Mix-up: an answer of another provider must not be redeemed at this one (RFC 9207). Each provider has a redirect URI of its own, too.
	if iss, has := q.Get("iss"), q.Has("iss"); has && iss != o.Issuer || d.sendsIss && !has {
		return v, refused("wrong-issuer", "the answer names issuer %.200q, not this provider", iss)
	}
	if q.Has("error") {
		return v, refused("provider-refused", "the provider answered %.100q: %.200q", q.Get("error"), q.Get("error_description"))
	}
	token, err := o.config(d).Exchange(oidc.ClientContext(ctx, o.http), q.Get("code"), oauth2.VerifierOption(p.Verifier))
	if err != nil {
		return v, refused("provider-refused", "the code was not redeemed: %.300s", err.Error())
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return v, refused("bad-token", "the provider sent no ID token")
	}
	verifier := d.provider.VerifierContext(oidc.ClientContext(context.WithoutCancel(ctx), o.http), &oidc.Config{
		ClientID: o.ClientID, SupportedSigningAlgs: algorithms, Now: func() time.Time { return o.now().Add(-skew) },
	})
	id, err := verifier.Verify(oidc.ClientContext(ctx, o.http), raw)
	if err != nil {
		return v, refused("bad-token", "the ID token: %v", err)
	}
	return o.user(p, id, token)
}

// user checks what go-oidc leaves to its caller, and reads who the user is.
func (o *oidcProvider) user(p pending, id *oidc.IDToken, token *oauth2.Token) (v appstream.Visitor, err error) {
	var c claims
	all := map[string]any{}
	if id.Claims(&c) != nil || id.Claims(&all) != nil {
		return v, refused("bad-token", "the ID token's claims cannot be read")
	}
	now := o.now()
	switch {
	case !same(p.Nonce, c.Nonce):
		return v, refused("bad-token", "the ID token's nonce is not that of the request")
	case len(id.Audience) > 1 && c.AuthorizedParty == "", c.AuthorizedParty != "" && c.AuthorizedParty != o.ClientID:
		return v, refused("bad-token", "the ID token is for client %.100q", c.AuthorizedParty)
	case id.IssuedAt.After(now.Add(skew)):
		return v, refused("bad-token", "the ID token was issued in the future")
	case id.IssuedAt.Before(now.Add(-pendingLife - skew)):
		return v, refused("bad-token", "the ID token was issued before the sign-in began")
	}
	if id.AccessTokenHash != "" {
		if err := id.VerifyAccessToken(token.AccessToken); err != nil {
			return v, refused("bad-token", "the ID token belongs to another access token")
		}
	}
	user, _ := all[o.UserClaim].(string)
	if o.UserClaim == "email" && c.EmailVerified != true && c.EmailVerified != "true" && !o.UnverifiedEmail {
		return v, refused("bad-user", "the provider does not say that it verified the user's e-mail address")
	}
	attributes := map[string][]string{}
	for _, name := range appstream.EntitlementAttributes {
		from := name
		if mapped, ok := o.Attributes[name]; ok {
			from = mapped
		} else if o.Attributes != nil {
			continue
		}
		if values := texts(all[from]); len(values) > 0 {
			attributes[name] = values
		}
	}
	return o.visitor(user, p.Stack, attributes)
}

const maxValues = 256 // of one attribute

// texts are the values of a claim that is a text or a list of texts.
func texts(claim any) (out []string) {
	switch c := claim.(type) {
	case string:
		return []string{c}
	case bool, float64, json.Number:
		return []string{fmt.Sprint(c)}
	case []any:
		for _, x := range c {
			if s, ok := x.(string); ok && len(out) < maxValues {
				out = append(out, s)
			}
		}
	}
	return out
}
