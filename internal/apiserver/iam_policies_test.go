package apiserver

import (
	"net/url"
	"strings"
	"testing"

	"penstock.dev/penstock/internal/wire/iamapi"
)

// TestBadPoliciesAreRefusedWithTheirPlace: wherever a policy can be given, one with an error is MalformedPolicyDocument with the place and the
// reason, and one that is too large says its bound; nothing of it is kept.
func TestBadPoliciesAreRefusedWithTheirPlace(t *testing.T) {
	t.Parallel()
	a, _ := newAccess(t, 0)
	f := newFront(t, Options{Access: a})
	f.options.Credentials = a
	ask := func(operation string, members ...string) reply {
		form := url.Values{"Action": {operation}, "Version": {iamapi.Version}}
		for i := 0; i < len(members); i += 2 {
			form.Set(members[i], members[i+1])
		}
		return f.do(call{service: "iam", form: form.Encode()}.request(t))
	}
	const trust = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"sts:AssumeRole"}}`
	if got := ask("CreateRole", "RoleName", "r", "AssumeRolePolicyDocument", trust); got.status != 200 {
		t.Fatalf("CreateRole: %+v", got)
	}
	good := `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"ec2:*","Resource":"*"}}`
	made := ask("CreatePolicy", "PolicyName", "p", "PolicyDocument", good)
	_, arn, _ := strings.Cut(made.body, "<Arn>")
	arn, _, _ = strings.Cut(arn, "</Arn>")
	for _, op := range []struct {
		name    string
		members []string
		member  string // that the document goes into
		most    int    // characters without white space
	}{
		{"PutUserPolicy", []string{"UserName", "ann", "PolicyName", "x"}, "PolicyDocument", 2048},
		{"PutRolePolicy", []string{"RoleName", "r", "PolicyName", "x"}, "PolicyDocument", 10240},
		{"CreatePolicy", []string{"PolicyName", "x"}, "PolicyDocument", 6144},
		{"CreatePolicyVersion", []string{"PolicyArn", arn}, "PolicyDocument", 6144},
		{"CreateRole", []string{"RoleName", "x"}, "AssumeRolePolicyDocument", 2048},
		{"UpdateAssumeRolePolicy", []string{"RoleName", "r"}, "PolicyDocument", 2048},
	} {
		statement := `"Effect": "Allow", "Action": "ec2:*", "Resource": "*"`
		if strings.Contains(op.name, "AssumeRole") || op.name == "CreateRole" {
			statement = `"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "sts:AssumeRole"`
		}
		with := func(s string) string { return "{\n  \"Version\": \"2012-10-17\",\n  \"Statement\": [{" + s + "}]\n}" }
		many := with(statement + strings.Repeat("},\n{"+statement, op.most/40))
		for _, tc := range []struct{ name, document, code, message string }{
			{"effect", with(strings.Replace(statement, "Allow", "Permit", 1)), "MalformedPolicyDocument", "Effect must be Allow or Deny. (line 3, column 28)"},
			{"unknown element", with(statement + `, "Reason": "x"`), "MalformedPolicyDocument", "(line 3, column "},
			{"cut short", with(statement)[:40], "MalformedPolicyDocument", "(line 3, column "},
			{"another version", strings.Replace(with(statement), "2012-10-17", "2026-01-01", 1), "MalformedPolicyDocument", "(line 2, column 14)"},
			{"operator", with(statement + `, "Condition": {"StringSame": {"aws:username": "x"}}`), "MalformedPolicyDocument", "(line 3, column "},
			{"fullwidth letters", with(strings.Replace(statement, "Allow", "\uff21llow", 1)), "ValidationError", "olicyDocument"}, // the model takes Latin-1 alone
			{"too large", many, "LimitExceeded", ""},
			{"huge", with(statement + `, "Sid": "` + strings.Repeat("a", 120_000) + `"`), "", ""},
		} {
			got := ask(op.name, append(op.members, op.member, tc.document)...)
			if got.status == 200 || tc.code != "" && got.code != tc.code || !strings.Contains(got.message, tc.message) {
				t.Errorf("%s: %s: got %d %s: %.200s, want %s: %s", op.name, tc.name, got.status, got.code, got.message, tc.code, tc.message)
			}
		}
	}
	if got := ask("ListUserPolicies", "UserName", "ann"); strings.Contains(got.body, "<member>") {
		t.Errorf("a refused policy is there: %s", got.body)
	}
	if got := ask("GetRole", "RoleName", "r"); !strings.Contains(got.body, url.QueryEscape(trust)) {
		t.Errorf("a refused trust policy is there: %s", got.body)
	}
	if got := ask("GetRole", "RoleName", "x"); got.code != "NoSuchEntity" {
		t.Errorf("a role with a refused trust policy is there: %d %s", got.status, got.code)
	}
}
