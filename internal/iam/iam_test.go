package iam_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
)

func TestPrincipalNames(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		p       iam.Principal
		arn, id string
	}{
		{"nobody", iam.Principal{}, "", ""},
		{"root", iam.RootOf("123456789012"), "arn:aws:iam::123456789012:root", "123456789012"},
		{"user", iam.Principal{Kind: iam.User, AccountID: "123456789012", Name: "ann", ID: "AIDA1"}, "arn:aws:iam::123456789012:user/ann", "AIDA1"},
		{"user with a path", iam.Principal{Kind: iam.User, AccountID: "123456789012", Path: "/team/", Name: "ann", ID: "AIDA1"}, "arn:aws:iam::123456789012:user/team/ann", "AIDA1"},
		{
			"role session, which leaves the role's path out",
			iam.Principal{Kind: iam.RoleSession, AccountID: "123456789012", Path: "/service-role/", Name: "R", Session: "S", ID: "AROA1"},
			"arn:aws:sts::123456789012:assumed-role/R/S", "AROA1:S",
		},
		{"service", iam.Principal{Kind: iam.Service, Name: "appstream.amazonaws.com"}, "appstream.amazonaws.com", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if tc.p.ARN() != tc.arn || tc.p.UserID() != tc.id {
				t.Errorf("got %q and %q, want %q and %q", tc.p.ARN(), tc.p.UserID(), tc.arn, tc.id)
			}
		})
	}
}

func TestAccountOwner(t *testing.T) {
	t.Parallel()
	owner := iam.AccountOwner{AccountID: "123456789012"}
	for _, tc := range []struct {
		name string
		p    iam.Principal
		want bool
	}{
		{"its root", iam.RootOf("123456789012"), true},
		{"another account's root", iam.RootOf("210987654321"), false},
		{"its user", iam.Principal{Kind: iam.User, AccountID: "123456789012", Name: "ann"}, false},
		{"a role session", iam.Principal{Kind: iam.RoleSession, AccountID: "123456789012", Name: "R", Session: "S"}, false},
		{"nobody", iam.Principal{}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			d := owner.Authorize(iam.Request{Principal: tc.p, Action: "ec2:DescribeVpcs", Resources: []string{"arn:x"}})
			if d.Allowed != tc.want {
				t.Errorf("got %+v", d)
			}
			if !d.Allowed && !strings.Contains(d.Reason, "is not authorized to perform: ec2:DescribeVpcs on resource: arn:x") {
				t.Errorf("the reason does not explain: %q", d.Reason)
			}
		})
	}
	if (iam.AccountOwner{}).Authorize(iam.Request{Principal: iam.Principal{Kind: iam.Root}}).Allowed {
		t.Error("an owner without an account let a root without an account in")
	}
}

func TestCredentialKeepsItsSecret(t *testing.T) {
	t.Parallel()
	c := iam.Credential{AccessKeyID: "AKIA1", Secret: "hush", SessionToken: "hush"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, c); strings.Contains(got, "hush") || !strings.Contains(got, "AKIA1") {
			t.Errorf("%s shows %q", verb, got)
		}
	}
}

func TestDirectory(t *testing.T) {
	t.Parallel()
	role := iam.ServiceAccessRole("123456789012", "AROA1", time.Unix(0, 0))
	d := iam.NewDirectory([]iam.Credential{{AccessKeyID: "AKIA1", Secret: "s"}}, []iam.Role{role})
	if c, err := d.Lookup(t.Context(), "AKIA1"); err != nil || c.Secret != "s" {
		t.Errorf("got %v, %v", c, err)
	}
	if _, err := d.Lookup(t.Context(), "AKIA2"); !fault.Is(err, fault.NotFound) {
		t.Errorf("unknown key: got %v", err)
	}
	if r, err := d.Role(t.Context(), "AmazonAppStreamServiceAccess"); err != nil || r.ARN() != "arn:aws:iam::123456789012:role/service-role/AmazonAppStreamServiceAccess" {
		t.Errorf("got %v, %v", r, err)
	}
	if _, err := d.Role(t.Context(), "x"); !fault.Is(err, fault.NotFound) {
		t.Errorf("unknown role: got %v", err)
	}
}
