package federation

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	"penstock.dev/penstock/internal/control/access"
	"penstock.dev/penstock/internal/control/signin"
	"penstock.dev/penstock/internal/fault"
)

// Codes of AssumeRoleWithSAML.
const (
	codeIdentity = "InvalidIdentityToken"
	codeExpired  = "ExpiredTokenException"
)

var sessionPattern = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)

// Assertion verifies what a caller of AssumeRoleWithSAML brings, for the SAML provider with that ARN: as at the portal, and with the same
// address as audience. An assertion that answers a request of the portal's is for the browser that asked, and good for nothing here.
func (f *Federation) Assertion(_ context.Context, providerARN, encoded string) (*access.SAML, error) {
	invalid := func(format string, args ...any) error {
		return fault.Newf(fault.Invalid, "", "", format, args...).WithCode(codeIdentity)
	}
	var s *samlProvider
	for _, p := range f.saml {
		if p.arn() == providerARN {
			s = p
		}
	}
	if s == nil {
		return nil, invalid("No SAML provider %.200s is known", providerARN)
	}
	select {
	case f.busy <- struct{}{}:
		defer func() { <-f.busy }()
	default:
		return nil, fault.New(fault.Throttled, "", "", "Too many assertions are looked at; try again")
	}
	got, inResponseTo, err := s.verify(encoded)
	if r, ok := errors.AsType[*refusal](err); ok {
		f.Log.Info("an assertion was refused", "provider", s.ID, "code", r.code, "reason", r.reason)
		if r.code == expiredCode {
			return nil, fault.New(fault.Invalid, "", "", "Token must be redeemed within 5 minutes of issuance").WithCode(codeExpired)
		}
		return nil, invalid("%s", strings.ToUpper(r.reason[:1])+r.reason[1:])
	} else if err != nil {
		return nil, err
	}
	values := attributesOf(got)
	out := &access.SAML{
		Asserted: s.asserted(got, values), Roles: s.offered(values), Issuer: got.Issuer.Value, Audience: s.sp.AcsURL.String(), ID: onceOf(s.ID, got.ID),
		OnceUntil: f.Now().Add(replayMemory),
	}
	out.Qualifier = out.Keys["saml:namequalifier"][0]
	if sub := out.Keys["saml:sub"]; len(sub) > 0 {
		out.Subject, out.SubjectType = sub[0], out.Keys["saml:sub_type"][0]
	}
	switch {
	case inResponseTo != "":
		return nil, invalid("The assertion answers a request of the portal and is for the browser that made it")
	case out.Subject == "":
		return nil, invalid("The assertion has no NameID")
	case out.Session == "":
		return nil, invalid("Assertion is missing required attribute %s", sessionAttribute)
	case !sessionPattern.MatchString(out.Session):
		return nil, invalid("RoleSessionName in the assertion must match %s", sessionPattern)
	case out.SourceIdentity != "" && !sessionPattern.MatchString(out.SourceIdentity):
		return nil, invalid("SourceIdentity in the assertion must match %s", sessionPattern)
	case len(values[roleAttribute]) == 0:
		return nil, invalid("Assertion is missing required attribute %s", roleAttribute)
	}
	for k, v := range out.Tags {
		if k == "" || len(k) > maxTagKey || len(v) > maxTagValue || len(out.Tags) > maxSessionTags {
			return nil, invalid("PrincipalTag %.128q is too long, or there are more than %d", k, maxSessionTags)
		}
	}
	for _, st := range got.AuthnStatements {
		if end := st.SessionNotOnOrAfter; end != nil && (out.Until.IsZero() || end.Before(out.Until)) {
			out.Until = *end
		}
	}
	if !out.Until.IsZero() && out.Until.Sub(f.Now()) < time.Second {
		return nil, fault.New(fault.Invalid, "", "", "The provider's session has ended").WithCode(codeExpired)
	}
	slices.Sort(out.Transitive)
	return out, nil
}

// Limits of session tags, as of STS.
const (
	maxSessionTags = 50
	maxTagKey      = 128
	maxTagValue    = 256
)

// Spend uses an assertion up: it makes one session, here or at the portal.
func (f *Federation) Spend(ctx context.Context, a *access.SAML) error {
	err := f.SignIn.Spend(ctx, a.ID, a.OnceUntil)
	if _, ok := errors.AsType[*signin.Refusal](err); ok {
		return fault.New(fault.Invalid, "", "", "The assertion was used before").WithCode(codeIdentity)
	}
	return err
}

// onceOf names what an assertion uses up.
func onceOf(provider, id string) string { return "saml " + provider + " " + id }
