package apiserver

import (
	"context"
	"strings"
	"time"

	"penstock.dev/penstock/internal/audit"
	"penstock.dev/penstock/internal/control/access"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/wire/stsapi"
)

// stsOperations lists the STS operations that this server answers.
func (s *Server) stsOperations() []operation {
	list := []operation{stsOp("GetCallerIdentity", s.getCallerIdentity)}
	if s.options.Access != nil {
		list = append(list, stsOp("AssumeRole", s.assumeRole), stsOp("GetSessionToken", s.getSessionToken),
			stsOp("GetAccessKeyInfo", s.getAccessKeyInfo))
		if s.options.SAML != nil {
			list = append(list, stsOp(withSAML, s.assumeRoleWithSAML))
		}
	}
	return list
}

func (s *Server) getCallerIdentity(_ context.Context, c Caller, _ *stsapi.GetCallerIdentityInput) (*stsapi.GetCallerIdentityOutput, error) {
	return &stsapi.GetCallerIdentityOutput{
		UserId:  new(c.Principal.UserID()),
		Account: new(c.Principal.AccountID),
		Arn:     new(c.Principal.ARN()),
	}, nil
}

func (s *Server) assumeRole(ctx context.Context, c Caller, in *stsapi.AssumeRoleInput) (*stsapi.AssumeRoleOutput, error) {
	for _, m := range []struct {
		name  string
		given bool
	}{
		{"SerialNumber", in.SerialNumber != nil},
		{"TokenCode", in.TokenCode != nil},
		{"ProvidedContexts", len(in.ProvidedContexts) > 0},
	} {
		if m.given {
			return nil, fault.Newf(fault.Unsupported, "", "", "%s is not served by this version.", m.name)
		}
	}
	a := access.Assume{
		RoleARN: *in.RoleArn, SessionName: *in.RoleSessionName, ExternalID: deref(in.ExternalId), Policy: deref(in.Policy),
		Duration: time.Duration(deref(in.DurationSeconds)) * time.Second, Transitive: in.TransitiveTagKeys, SourceIdentity: deref(in.SourceIdentity),
	}
	for _, t := range in.Tags {
		if _, twice := a.Tags[deref(t.Key)]; twice {
			return nil, fault.Newf(fault.Invalid, "", "", "Duplicate tag keys found: %s.", deref(t.Key)).WithCode("InvalidParameterValue")
		}
		if a.Tags == nil {
			a.Tags = map[string]string{}
		}
		a.Tags[deref(t.Key)] = deref(t.Value)
	}
	if !strings.HasPrefix(a.RoleARN, "arn:") {
		return nil, fault.Newf(fault.Invalid, "", "", "%s is invalid", a.RoleARN)
	}
	for _, p := range in.PolicyArns {
		a.PolicyARNs = append(a.PolicyARNs, deref(p.Arn))
	}
	t, err := s.options.Access.AssumeRole(ctx, c.proof.credential, a, c.proof.question)
	if err != nil {
		return nil, err
	}
	out := &stsapi.AssumeRoleOutput{
		Credentials:     temporaryShape(t),
		AssumedRoleUser: &stsapi.AssumedRoleUser{AssumedRoleId: new(t.Principal.UserID()), Arn: new(t.Principal.ARN())},
	}
	if t.Session.SourceIdentity != "" {
		out.SourceIdentity = new(t.Session.SourceIdentity)
	}
	if n := access.PackedSize(a); n > 0 {
		out.PackedPolicySize = new(n)
	}
	return out, nil
}

// withSAML is the operation that nobody signs: the assertion in it is the proof.
const withSAML = "AssumeRoleWithSAML"

// assumeRoleWithSAML makes a session of a role for whom an identity provider vouches. An assertion makes one.
func (s *Server) assumeRoleWithSAML(ctx context.Context, c Caller, in *stsapi.AssumeRoleWithSAMLInput) (*stsapi.AssumeRoleWithSAMLOutput, error) {
	said, err := s.options.SAML.Assertion(ctx, *in.PrincipalArn, *in.SAMLAssertion)
	if err != nil {
		return nil, err
	}
	c.proof.identity = audit.SAMLUser(said.Qualifier, said.Subject)
	a := access.Assume{RoleARN: *in.RoleArn, Policy: deref(in.Policy), Duration: time.Duration(deref(in.DurationSeconds)) * time.Second}
	for _, p := range in.PolicyArns {
		a.PolicyARNs = append(a.PolicyARNs, deref(p.Arn))
	}
	t, err := s.options.Access.AssumeRoleWithSAML(ctx, said, a, c.proof.question)
	if err != nil {
		return nil, err
	}
	if err := s.options.SAML.Spend(ctx, said); err != nil {
		return nil, err
	}
	out := &stsapi.AssumeRoleWithSAMLOutput{
		Credentials:     temporaryShape(t),
		AssumedRoleUser: &stsapi.AssumedRoleUser{AssumedRoleId: new(t.Principal.UserID()), Arn: new(t.Principal.ARN())},
		Subject:         new(said.Subject), SubjectType: new(said.SubjectType), Issuer: new(said.Issuer), Audience: new(said.Audience), NameQualifier: new(said.Qualifier),
		SourceIdentity: optional(t.Session.SourceIdentity),
	}
	a.Tags = said.Tags
	out.PackedPolicySize = optional(access.PackedSize(a))
	return out, nil
}

// getAccessKeyInfo says whose key it is. Temporary keys are not kept; every one that looks like ours belongs to the one account.
func (s *Server) getAccessKeyInfo(ctx context.Context, c Caller, in *stsapi.GetAccessKeyInfoInput) (*stsapi.GetAccessKeyInfoOutput, error) {
	id := *in.AccessKeyId
	if !strings.HasPrefix(id, "ASIA") || len(id) != 20 {
		if _, err := s.options.Access.Lookup(ctx, id); fault.Is(err, fault.NotFound) {
			return nil, fault.Newf(fault.Invalid, "", "", "The access key %.40s is not of this account.", id)
		} else if err != nil {
			return nil, err
		}
	}
	return &stsapi.GetAccessKeyInfoOutput{Account: new(c.AccountID)}, nil
}

func (s *Server) getSessionToken(_ context.Context, c Caller, in *stsapi.GetSessionTokenInput) (*stsapi.GetSessionTokenOutput, error) {
	if in.SerialNumber != nil || in.TokenCode != nil {
		return nil, fault.New(fault.Denied, "", "", "MultiFactorAuthentication failed, unable to validate MFA code. No device is registered.")
	}
	t, err := s.options.Access.SessionToken(c.proof.credential, time.Duration(deref(in.DurationSeconds))*time.Second)
	if err != nil {
		return nil, err
	}
	return &stsapi.GetSessionTokenOutput{Credentials: temporaryShape(t)}, nil
}

func temporaryShape(c iam.Credential) *stsapi.Credentials {
	return &stsapi.Credentials{AccessKeyId: new(c.AccessKeyID), SecretAccessKey: new(c.Secret), SessionToken: new(c.SessionToken), Expiration: new(c.Expires)}
}
