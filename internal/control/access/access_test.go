package access_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock.dev/penstock/internal/control/access"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/sqlite"
	"penstock.dev/penstock/internal/state"
)

const (
	account  = "123456789012"
	allowAll = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`
	readOnly = "arn:aws:iam::aws:policy/AmazonAppStreamReadOnlyAccess"
)

type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

type fixture struct {
	*access.Service
	t     *testing.T
	store *sqlite.Store
	path  string
	seed  []byte
	clock *clock
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, path: filepath.Join(t.TempDir(), "state.db"), seed: make([]byte, 32), clock: &clock{t: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)}}
	_, _ = rand.Read(f.seed)
	f.open()
	return f
}

func (f *fixture) open() {
	f.t.Helper()
	var err error
	if f.store, err = sqlite.Open(f.t.Context(), sqlite.Options{Path: f.path}); err != nil {
		f.t.Fatal(err)
	}
	store := f.store
	f.t.Cleanup(func() { _ = store.Close() })
	f.Service, err = access.New(access.Options{
		Store: f.store, AccountID: account, Seed: f.seed, Now: f.clock.now,
		Root:   iam.Credential{AccessKeyID: "AKIAROOT", Secret: "root", Principal: iam.RootOf(account)},
		Region: "us-east-1",
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) fails(err error, kind fault.Kind, text string) {
	f.t.Helper()
	if !fault.Is(err, kind) || !strings.Contains(err.Error(), text) {
		f.t.Errorf("got %v, want kind %d with %q", err, kind, text)
	}
}

// user makes a user with a key.
func (f *fixture) user(name string) iam.Credential {
	f.t.Helper()
	_, err := f.Create(f.t.Context(), access.Entity{Kind: access.User, Name: name})
	f.must(err)
	k, secret, err := f.CreateKey(f.t.Context(), name)
	f.must(err)
	c, err := f.Lookup(f.t.Context(), k.ID)
	f.must(err)
	if c.Secret != secret || c.Principal.Name != name || c.Inactive {
		f.t.Fatalf("got %v of %+v", c, c.Principal)
	}
	return c
}

func (f *fixture) role(name, trust string) string {
	f.t.Helper()
	e, err := f.Create(f.t.Context(), access.Entity{Kind: access.Role, Name: name, Trust: `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole",` + trust + `}]}`})
	f.must(err)
	return e.ARN(account)
}

func (f *fixture) may(c iam.Credential, action string) iam.Decision {
	f.t.Helper()
	d, err := f.Authorize(f.t.Context(), c, iam.Request{Action: action})
	f.must(err)
	return d
}

func TestPoliciesOfUsers(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	ann := f.user("ann")
	if d := f.may(ann, "appstream:DescribeStacks"); d.Allowed {
		t.Error("a user without policies may describe")
	}
	f.must(f.Attach(ctx, access.User, "ann", readOnly))
	f.must(f.Attach(ctx, access.User, "ann", readOnly)) // again
	if d := f.may(ann, "appstream:DescribeStacks"); !d.Allowed {
		t.Errorf("got %q", d.Reason)
	}
	if f.may(ann, "appstream:CreateStack").Allowed {
		t.Error("read-only may create")
	}
	f.must(f.PutInline(ctx, access.User, "ann", "all", allowAll))
	if !f.may(ann, "appstream:CreateStack").Allowed {
		t.Error("the inline policy is not in force")
	}
	f.must(f.PutInline(ctx, access.User, "ann", "no", `{"Statement":[{"Effect":"Deny","Action":"appstream:Create*","Resource":"*"}]}`))
	if d := f.may(ann, "appstream:CreateStack"); d.Allowed || !d.Explicit || d.Match.Policy.Name != "no" {
		t.Errorf("got %+v", d)
	}
	f.fails(f.PutInline(ctx, access.User, "ann", "bad", `{`), fault.Invalid, "line 1")
	f.fails(f.PutInline(ctx, access.User, "ann", "big", strings.Replace(allowAll, `"*"`, `"s3:`+strings.Repeat("a", 2048)+`"`, 1)), fault.Limit, "Maximum policy size of 2048 bytes exceeded for user ann")
	f.fails(f.Delete(ctx, access.User, "ann"), fault.InUse, "must detach all policies first.")
	f.must(f.Detach(ctx, access.User, "ann", readOnly))
	f.fails(f.Detach(ctx, access.User, "ann", readOnly), fault.NotFound, "was not found")
	f.fails(f.Delete(ctx, access.User, "ann"), fault.InUse, "must delete policies first.")
	f.must(f.DeleteInline(ctx, access.User, "ann", "all"))
	f.must(f.DeleteInline(ctx, access.User, "ann", "no"))
	f.fails(f.Delete(ctx, access.User, "ann"), fault.InUse, "must delete access keys first.")
	f.must(f.DeleteKey(ctx, "ann", ann.AccessKeyID))
	f.must(f.Delete(ctx, access.User, "ann"))
	if f.may(ann, "appstream:DescribeStacks").Allowed {
		t.Error("a deleted user may describe")
	}
	if !f.may(iam.Credential{Principal: iam.RootOf(account)}, "x:y").Allowed {
		t.Error("root may not")
	}
	_, err := f.Create(ctx, access.Entity{Kind: access.User, Name: "Bob"})
	f.must(err)
	_, err = f.Create(ctx, access.Entity{Kind: access.User, Name: "bob"})
	f.fails(err, fault.AlreadyExists, "User with name bob already exists.")
}

func TestBoundary(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	ann := f.user("ann")
	f.must(f.PutInline(ctx, access.User, "ann", "all", allowAll))
	f.must(f.SetBoundary(ctx, access.User, "ann", readOnly))
	if d := f.may(ann, "ec2:CreateVpc"); d.Allowed || !strings.Contains(d.Reason, "no permissions boundary allows") {
		t.Errorf("got %+v", d)
	}
	f.must(f.SetBoundary(ctx, access.User, "ann", ""))
	if !f.may(ann, "ec2:CreateVpc").Allowed {
		t.Error("a boundary that was removed is in force")
	}
}

func TestManagedPolicies(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	ann := f.user("ann")
	m, err := f.CreatePolicy(ctx, access.Managed{Name: "P", Path: "/x/"}, allowAll)
	f.must(err)
	arn := m.ARN(account)
	if arn != "arn:aws:iam::123456789012:policy/x/P" {
		t.Errorf("got %s", arn)
	}
	f.must(f.Attach(ctx, access.User, "ann", arn))
	if !f.may(ann, "ec2:CreateVpc").Allowed {
		t.Error("the managed policy is not in force")
	}
	v, err := f.CreateVersion(ctx, arn, strings.Replace(allowAll, "Allow", "Deny", 1), true)
	f.must(err)
	if d := f.may(ann, "ec2:CreateVpc"); d.Allowed || !strings.HasSuffix(d.Reason, "with an explicit deny in an identity-based policy: "+arn) {
		t.Errorf("got %+v", d)
	}
	f.fails(f.DeleteVersion(ctx, arn, v.ID), fault.InUse, "default version")
	f.must(f.SetDefaultVersion(ctx, arn, "v1"))
	if !f.may(ann, "ec2:CreateVpc").Allowed {
		t.Error("the older version is not in force again")
	}
	f.fails(f.DeletePolicy(ctx, arn), fault.InUse, "attached")
	f.must(f.Detach(ctx, access.User, "ann", arn))
	f.fails(f.DeletePolicy(ctx, arn), fault.InUse, "more than one version")
	f.must(f.DeleteVersion(ctx, arn, v.ID))
	f.must(f.DeletePolicy(ctx, arn))
	f.fails(f.DeletePolicy(ctx, readOnly), fault.Denied, "outside your own account")
}

func TestKeys(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	ann := f.user("ann")
	_, _, err := f.CreateKey(ctx, "ann")
	f.must(err)
	_, _, err = f.CreateKey(ctx, "ann")
	f.fails(err, fault.Limit, "Cannot exceed quota for AccessKeysPerUser: 2")
	f.must(f.SetKeyActive(ctx, "ann", ann.AccessKeyID, false))
	if c, err := f.Lookup(ctx, ann.AccessKeyID); err != nil || !c.Inactive {
		t.Errorf("got %v, %v", c, err)
	}
	_, err = f.Create(ctx, access.Entity{Kind: access.User, Name: "eve"})
	f.must(err)
	f.fails(f.SetKeyActive(ctx, "eve", ann.AccessKeyID, true), fault.NotFound, "Access Key")
	f.fails(f.DeleteKey(ctx, "eve", ann.AccessKeyID), fault.NotFound, "Access Key")
	f.must(f.SetKeyActive(ctx, "ann", ann.AccessKeyID, true))

	if u, err := f.KeyLastUsed(ctx, ann.AccessKeyID); err != nil || !u.At.IsZero() {
		t.Errorf("never used: got %+v, %v", u, err)
	}
	before, err := revision(ctx, f.store)
	f.must(err)
	for range 100 {
		f.Used(ann, "ec2", "eu-west-1")
	}
	if after, err := revision(ctx, f.store); err != nil || after != before {
		t.Errorf("using a key wrote to the store: %d, then %d (%v)", before, after, err)
	}
	if u, err := f.KeyLastUsed(ctx, ann.AccessKeyID); err != nil || u.Service != "ec2" {
		t.Errorf("used: got %+v, %v", u, err)
	}
	f.must(f.Flush(ctx))
	f.must(f.Rename(ctx, "ann", "anna", "/new/"))

	// What is stored survives a restart, and the file does not show the secret.
	f.must(f.store.Close())
	files, err := filepath.Glob(f.path + "*")
	f.must(err)
	for _, name := range files {
		b, err := os.ReadFile(name)
		f.must(err)
		if bytes.Contains(b, []byte(ann.Secret)) {
			t.Errorf("%s holds the secret in the clear", name)
		}
	}
	f.open()
	c, err := f.Lookup(ctx, ann.AccessKeyID)
	if err != nil || c.Secret != ann.Secret || c.Principal.ARN() != "arn:aws:iam::123456789012:user/new/anna" {
		t.Errorf("after a restart: got %v of %s, %v", c, c.Principal.ARN(), err)
	}
	if u, err := f.KeyLastUsed(ctx, ann.AccessKeyID); err != nil || u.Region != "eu-west-1" || u.User != "anna" {
		t.Errorf("last use after a restart: got %+v, %v", u, err)
	}
	_, _ = rand.Read(f.seed)
	f.must(f.store.Close())
	f.open()
	if _, err := f.Lookup(ctx, ann.AccessKeyID); err == nil || fault.Is(err, fault.NotFound) {
		t.Errorf("another seed opened the secret: %v", err)
	}
}

func revision(ctx context.Context, s state.Store) (rev state.Revision, err error) {
	err = s.View(ctx, func(r state.Reader) error {
		rev, err = r.Revision()
		return err
	})
	return rev, err
}

func TestAssumeRole(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	ann, eve := f.user("ann"), f.user("eve")
	named := f.role("named", `"Principal":{"AWS":"arn:aws:iam::123456789012:user/ann"},"Condition":{"StringEquals":{"sts:ExternalId":"42"}}`)
	shared := f.role("shared", `"Principal":{"AWS":"123456789012"}`)
	f.must(f.PutInline(ctx, access.Role, "named", "all", allowAll))
	f.must(f.PutInline(ctx, access.Role, "shared", "all", allowAll))
	assume := func(c iam.Credential, a access.Assume) (iam.Credential, error) {
		if a.SessionName == "" {
			a.SessionName = "work"
		}
		return f.AssumeRole(ctx, c, a, iam.Request{Time: f.clock.now()})
	}
	refused := func(c iam.Credential, a access.Assume, text string) {
		t.Helper()
		_, err := assume(c, a)
		f.fails(err, fault.Denied, text)
	}
	refused(ann, access.Assume{RoleARN: named}, "User: arn:aws:iam::123456789012:user/ann is not authorized to perform: sts:AssumeRole on resource: "+named)
	refused(ann, access.Assume{RoleARN: named, ExternalID: "43"}, "not authorized")
	refused(eve, access.Assume{RoleARN: named, ExternalID: "42"}, "not authorized")
	refused(ann, access.Assume{RoleARN: shared}, "not authorized")
	refused(ann, access.Assume{RoleARN: shared + "x"}, "not authorized")
	refused(iam.Credential{Principal: iam.RootOf(account)}, access.Assume{RoleARN: shared}, "root accounts")
	f.must(f.PutInline(ctx, access.User, "eve", "assume", `{"Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"`+shared+`"}}`))
	if _, err := assume(eve, access.Assume{RoleARN: shared}); err != nil {
		t.Errorf("a trusted account's user with a policy: %v", err)
	}
	f.must(f.PutInline(ctx, access.User, "ann", "no", `{"Statement":{"Effect":"Deny","Action":"sts:*","Resource":"*"}}`))
	refused(ann, access.Assume{RoleARN: named, ExternalID: "42"}, "explicit deny")
	f.must(f.DeleteInline(ctx, access.User, "ann", "no"))

	_, err := assume(ann, access.Assume{RoleARN: named, ExternalID: "42", Duration: 2 * time.Hour})
	f.fails(err, fault.Invalid, "exceeds the MaxSessionDuration")
	_, err = assume(ann, access.Assume{RoleARN: named, ExternalID: "42", Policy: "{"})
	f.fails(err, fault.Invalid, "Syntax errors in policy")
	got, err := assume(ann, access.Assume{
		RoleARN: named, ExternalID: "42", Duration: 15 * time.Minute,
		Policy: `{"Statement":{"Effect":"Allow","Action":"ec2:Describe*","Resource":"*"}}`, PolicyARNs: []string{readOnly},
	})
	f.must(err)
	c, err := f.Session(ctx, got.AccessKeyID, got.SessionToken)
	f.must(err)
	if c.Secret != got.Secret || c.Principal.ARN() != "arn:aws:sts::123456789012:assumed-role/named/work" || !c.Expires.Equal(f.clock.now().Add(15*time.Minute)) {
		t.Errorf("got %v of %s until %s", c, c.Principal.ARN(), c.Expires)
	}
	for action, want := range map[string]bool{"ec2:DescribeVpcs": true, "appstream:ListTagsForResource": true, "ec2:CreateVpc": false} {
		if d := f.may(c, action); d.Allowed != want || !want && !strings.Contains(d.Reason, "no session policy") {
			t.Errorf("%s: got %+v", action, d)
		}
	}
	// A session policy limits what a trust policy by name gives, too.
	next := f.role("next", `"Principal":{"AWS":"`+named+`"}`)
	f.must(f.DeleteInline(ctx, access.Role, "named", "all"))
	refused(c, access.Assume{RoleARN: next}, "not authorized")
	free, err := assume(ann, access.Assume{RoleARN: named, ExternalID: "42"})
	f.must(err)
	if _, err := assume(free, access.Assume{RoleARN: next}); err != nil {
		t.Errorf("a role that assumes a role: %v", err)
	}
	f.must(f.SetBoundary(ctx, access.Role, "named", readOnly))
	refused(free, access.Assume{RoleARN: next}, "not authorized")
	f.must(f.SetBoundary(ctx, access.Role, "named", ""))
	for name, bad := range map[string][2]string{
		"another key's token": {"ASIAOTHER", got.SessionToken}, "cut": {got.AccessKeyID, got.SessionToken[:len(got.SessionToken)-4]},
		"no base64": {got.AccessKeyID, "%"}, "empty": {got.AccessKeyID, ""}, "huge": {got.AccessKeyID, strings.Repeat("A", 1<<20)},
	} {
		if _, err := f.Session(ctx, bad[0], bad[1]); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// The role's end is the session's end, also when another role gets its name.
	f.must(f.Delete(ctx, access.Role, "named"))
	f.role("named", `"Principal":"*"`)
	if _, err := f.Session(ctx, got.AccessKeyID, got.SessionToken); !fault.Is(err, fault.NotFound) {
		t.Errorf("a session of a deleted role: got %v", err)
	}
}

func TestSessionToken(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	ann := f.user("ann")
	f.must(f.Attach(ctx, access.User, "ann", readOnly))
	got, err := f.SessionToken(ann, time.Hour)
	f.must(err)
	c, err := f.Session(ctx, got.AccessKeyID, got.SessionToken)
	f.must(err)
	if !f.may(c, "appstream:DescribeStacks").Allowed || f.may(c, "ec2:CreateVpc").Allowed || c.Principal != ann.Principal {
		t.Errorf("got %v of %+v", c, c.Principal)
	}
	_, err = f.SessionToken(c, 0)
	f.fails(err, fault.Denied, "Cannot call GetSessionToken with session credentials")
	f.clock.add(2 * time.Hour)
	if c, err := f.Session(ctx, got.AccessKeyID, got.SessionToken); err != nil || c.Expires.After(f.clock.now()) {
		t.Errorf("an expired token: got %v, %v", c, err)
	}
}

// TestServiceRole follows AppStream's role: made at the first use by one who may, asked like any role, and left deleted.
func TestServiceRole(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	const arn = "arn:aws:iam::123456789012:role/service-role/AmazonAppStreamServiceAccess"
	ask := func(action string) *iam.RoleProblem {
		t.Helper()
		p, err := state.Read(ctx, f.store, func(r state.Reader) (*iam.RoleProblem, error) { return f.AsServiceRole(r, action) })
		f.must(err)
		return p
	}
	wants := func(p *iam.RoleProblem, missing bool, text string) {
		t.Helper()
		if p == nil || p.Missing != missing || !strings.Contains(p.Reason, text) {
			t.Errorf("got %+v, want missing %t with %q", p, missing, text)
		}
	}
	wants(ask("ec2:DescribeVpcEndpoints"), true, "does not exist")

	// A user who may create the role but not attach its policy, then one that may.
	ann := f.user("ann")
	first := func() (bool, string) {
		t.Helper()
		made, refusal, err := f.EnsureServiceRole(ctx, ann, iam.Request{})
		f.must(err)
		return made, refusal
	}
	if made, refusal := first(); made || !strings.Contains(refusal, "iam:CreateRole on resource: "+arn+" because no identity-based policy allows") {
		t.Errorf("without a policy: got %t, %q", made, refusal)
	}
	f.must(f.PutInline(ctx, access.User, "ann", "create", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iam:CreateRole","Resource":"`+arn+`"}}`))
	if made, refusal := first(); made || !strings.Contains(refusal, "iam:AttachRolePolicy on resource: "+arn) {
		t.Errorf("without the right to attach: got %t, %q", made, refusal)
	}
	f.must(f.PutInline(ctx, access.User, "ann", "attach", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iam:AttachRolePolicy","Resource":"*",`+
		`"Condition":{"ArnEquals":{"iam:PolicyARN":"arn:aws:iam::aws:policy/service-role/AmazonAppStreamServiceAccess"}}}}`))
	if made, refusal := first(); !made || refusal != "" {
		t.Errorf("with both: got %t, %q", made, refusal)
	}
	if made, _ := first(); made {
		t.Error("it was made twice")
	}
	role, err := f.Get(ctx, access.Role, iam.ServiceAccessRoleName)
	f.must(err)
	if role.ARN(account) != arn || len(role.Attached) != 1 {
		t.Errorf("got %+v", role)
	}
	if p := ask("ec2:DescribeVpcEndpoints"); p != nil {
		t.Errorf("got %+v", p)
	}
	wants(ask("ec2:DeleteVpc"), false, "assumed-role/AmazonAppStreamServiceAccess/PhotonSession is not authorized to perform: ec2:DeleteVpc on resource: * because no identity-based")

	f.must(f.PutInline(ctx, access.Role, role.Name, "no", `{"Statement":{"Effect":"Deny","Action":"ec2:DescribeVpcE*","Resource":"*"}}`))
	wants(ask("ec2:DescribeVpcEndpoints"), false, "with an explicit deny in an identity-based policy")
	f.must(f.DeleteInline(ctx, access.Role, role.Name, "no"))
	f.must(f.SetTrust(ctx, role.Name, `{"Statement":{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}}`))
	wants(ask("ec2:DescribeVpcEndpoints"), true, "does not let appstream.amazonaws.com assume it")
	f.must(f.SetTrust(ctx, role.Name, role.Trust))
	f.must(f.Detach(ctx, access.Role, role.Name, role.Attached[0]))
	wants(ask("ec2:DescribeVpcEndpoints"), false, "no identity-based policy allows")
	if p := ask(""); p != nil {
		t.Errorf("without its policy it can still be assumed: got %+v", p)
	}
	f.must(f.Delete(ctx, access.Role, role.Name))
	wants(ask(""), true, "does not exist")
	f.must(f.store.Close())
	f.open()
	if made, refusal := first(); made || refusal != "" {
		t.Errorf("a role that was deleted came back: %t, %q", made, refusal)
	}
	_, err = f.Get(ctx, access.Role, role.Name)
	f.fails(err, fault.NotFound, "cannot be found")
}

// TestChangesAreInForce: a policy that was taken away before a question is not in its answer, however many ask meanwhile.
func TestChangesAreInForce(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	ann := f.user("ann")
	stop := make(chan struct{})
	var askers sync.WaitGroup
	for range 4 {
		askers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = f.Authorize(ctx, ann, iam.Request{Action: "x:y"})
				}
			}
		})
	}
	for range 20 {
		f.must(f.PutInline(ctx, access.User, "ann", "p", allowAll))
		if !f.may(ann, "x:y").Allowed {
			t.Error("a new policy is not in force")
		}
		f.must(f.DeleteInline(ctx, access.User, "ann", "p"))
		if f.may(ann, "x:y").Allowed {
			t.Error("a policy that was taken away is in force")
		}
	}
	close(stop)
	askers.Wait()
}

// TestSessionTags: tags and a source identity need their own right, decide like the role's own tags, and go on in a chain as asked.
func TestSessionTags(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	ann := f.user("ann")
	f.must(f.PutInline(ctx, access.User, "ann", "all", allowAll))
	plain := f.role("plain", `"Principal":{"AWS":"arn:aws:iam::123456789012:user/ann"}`)
	f.fails(errOf(f.AssumeRole(ctx, ann, access.Assume{RoleARN: plain, SessionName: "s1", Tags: map[string]string{"team": "blue"}}, iam.Request{})),
		fault.Denied, "not authorized to perform: sts:TagSession on resource: "+plain)
	f.fails(errOf(f.AssumeRole(ctx, ann, access.Assume{RoleARN: plain, SessionName: "s1", SourceIdentity: "ann"}, iam.Request{})),
		fault.Denied, "sts:SetSourceIdentity")

	trust := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"sts:AssumeRole"},` +
		`{"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"sts:TagSession","Condition":{"StringLike":{"aws:RequestTag/team":"b*"},"ForAllValues:StringEquals":{"sts:TransitiveTagKeys":["team","cost"]}}},` +
		`{"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"sts:SetSourceIdentity","Condition":{"StringEquals":{"sts:SourceIdentity":"ann"}}}]}`
	newRole := func(name string) string {
		e, err := f.Create(ctx, access.Entity{Kind: access.Role, Name: name, Trust: trust, Tags: map[string]string{"Team": "own", "size": "1"}, Inline: map[string]string{
			"own":  `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"appstream:*","Resource":"*","Condition":{"StringEquals":{"aws:PrincipalTag/team":"blue","aws:SourceIdentity":"ann"}}}]}`,
			"next": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:*","Resource":"*"}]}`,
		}})
		f.must(err)
		return e.ARN(account)
	}
	first, second := newRole("first"), newRole("second")
	ask := access.Assume{RoleARN: first, SessionName: "s1", SourceIdentity: "ann", Tags: map[string]string{"team": "blue", "cost": "7"}, Transitive: []string{"team"}}
	wrong := ask
	wrong.Tags = map[string]string{"team": "red"}
	wrong.Transitive = nil
	f.fails(errOf(f.AssumeRole(ctx, ann, wrong, iam.Request{})), fault.Denied, "sts:TagSession")
	for text, change := range map[string]func(*access.Assume){
		"Duplicate tag keys":         func(a *access.Assume) { a.Tags = map[string]string{"team": "b", "TEAM": "b"}; a.Transitive = nil },
		"is reserved":                func(a *access.Assume) { a.Tags = map[string]string{"AWS:x": "b"}; a.Transitive = nil },
		"not among the session tags": func(a *access.Assume) { a.Transitive = []string{"none"} },
		"larger than a session token": func(a *access.Assume) {
			a.Tags = map[string]string{"team": strings.Repeat("b", 17<<10)}
		},
	} {
		bad := ask
		change(&bad)
		if _, err := f.AssumeRole(ctx, ann, bad, iam.Request{}); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %q", err, text)
		}
	}
	one, err := f.AssumeRole(ctx, ann, ask, iam.Request{})
	f.must(err)
	if d := f.may(one, "appstream:DescribeStacks"); !d.Allowed {
		t.Errorf("the session's tag does not stand before the role's: %s", d.Reason)
	}
	two, err := f.AssumeRole(ctx, one, access.Assume{RoleARN: second, SessionName: "s2"}, iam.Request{})
	f.must(err)
	if sn := two.Session; sn.Tags["team"] != "blue" || sn.Tags["cost"] != "" || sn.SourceIdentity != "ann" || !sn.Chained {
		t.Errorf("got %+v", sn)
	}
	if d := f.may(two, "appstream:DescribeStacks"); !d.Allowed {
		t.Errorf("the chain lost its tag or its source: %s", d.Reason)
	}
	f.fails(errOf(f.AssumeRole(ctx, one, access.Assume{RoleARN: second, SessionName: "s2", Tags: map[string]string{"TEAM": "b"}}, iam.Request{})), fault.Invalid, "is inherited")
	f.fails(errOf(f.AssumeRole(ctx, one, access.Assume{RoleARN: second, SessionName: "s2", SourceIdentity: "eve"}, iam.Request{})), fault.Denied, "cannot be changed")
	f.fails(errOf(f.AssumeRole(ctx, one, access.Assume{RoleARN: second, SessionName: "s2", Duration: 2 * time.Hour}, iam.Request{})), fault.Invalid, "1 hour session limit")
	again, err := f.Session(ctx, two.AccessKeyID, two.SessionToken)
	f.must(err)
	if again.Session.SourceIdentity != "ann" || again.Session.Tags["team"] != "blue" {
		t.Errorf("from its token: got %+v", again.Session)
	}
}

func errOf(_ iam.Credential, err error) error { return err }

// TestServiceLinkedRoles: nobody but their service changes them, and their deletion is remembered.
func TestServiceLinkedRoles(t *testing.T) {
	t.Parallel()
	f, ctx := newFixture(t), t.Context()
	const service, name = "appstream.application-autoscaling.amazonaws.com", "AWSServiceRoleForApplicationAutoScaling_AppStreamFleet"
	e, err := f.CreateServiceLinked(ctx, service, "", "")
	f.must(err)
	if got := e.ARN(account); got != "arn:aws:iam::123456789012:role/aws-service-role/"+service+"/"+name || len(e.Attached) != 1 {
		t.Errorf("got %s %v", got, e.Attached)
	}
	_, err = f.CreateServiceLinked(ctx, service, "", "")
	f.fails(err, fault.InvalidRole, "has been taken")
	_, err = f.CreateServiceLinked(ctx, service, "", "x")
	f.fails(err, fault.InvalidRole, "suffix")
	_, err = f.CreateServiceLinked(ctx, "unknown.amazonaws.com", "", "")
	f.fails(err, fault.InvalidRole, "no service-linked role")
	const protected = "only modifiable by AWS"
	f.fails(f.Delete(ctx, access.Role, name), fault.NotPermitted, protected)
	f.fails(f.PutInline(ctx, access.Role, name, "p", allowAll), fault.NotPermitted, protected)
	f.fails(f.Attach(ctx, access.Role, name, readOnly), fault.NotPermitted, protected)
	f.fails(f.Detach(ctx, access.Role, name, e.Attached[0]), fault.NotPermitted, protected)
	f.fails(f.SetTrust(ctx, name, e.Trust), fault.NotPermitted, protected)
	f.fails(f.SetBoundary(ctx, access.Role, name, readOnly), fault.NotPermitted, protected)
	_, err = f.Create(ctx, access.Entity{Kind: access.Role, Name: "mine", Path: "/aws-service-role/x/", Trust: e.Trust})
	f.fails(err, fault.InvalidRole, "CreateServiceLinkedRole")
	f.role("mine", `"Principal":{"Service":"ec2.amazonaws.com"}`)
	_, err = f.DeleteServiceLinked(ctx, "mine")
	f.fails(err, fault.NotFound, "Service-linked role")
	task, err := f.DeleteServiceLinked(ctx, name)
	f.must(err)
	f.must(f.ServiceLinkedDeleted(ctx, task))
	f.fails(f.ServiceLinkedDeleted(ctx, task+"x"), fault.NotFound, "cannot be found")
	_, err = f.Get(ctx, access.Role, name)
	f.fails(err, fault.NotFound, "cannot be found")
}
