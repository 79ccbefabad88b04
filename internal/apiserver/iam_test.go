package apiserver

import (
	"context"
	"crypto/tls"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/control/access"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/sqlite"
	"penstock.dev/penstock/internal/wire/appstreamapi"
	"penstock.dev/penstock/internal/wire/ec2api"
	"penstock.dev/penstock/internal/wire/iamapi"
	"penstock.dev/penstock/internal/wire/sigv4"
)

// newAccess is an access service whose clock is late, and a user ann with a key.
func newAccess(t *testing.T, late time.Duration) (*access.Service, iam.Credential) {
	t.Helper()
	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	a, err := access.New(access.Options{
		Store: store, AccountID: account, Seed: make([]byte, 32), Now: func() time.Time { return now.Add(-late) },
		Root: iam.Credential{AccessKeyID: root.AccessKeyID, Secret: root.Secret, Principal: iam.RootOf(account)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Create(t.Context(), access.Entity{Kind: access.User, Name: "ann", Path: "/team/"}); err != nil {
		t.Fatal(err)
	}
	k, _, err := a.CreateKey(t.Context(), "ann")
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Lookup(t.Context(), k.ID)
	if err != nil {
		t.Fatal(err)
	}
	return a, c
}

func keyOf(c iam.Credential) sigv4.Key {
	return sigv4.Key{AccessKeyID: c.AccessKeyID, Secret: c.Secret, SessionToken: c.SessionToken}
}

// TestExpiredToken: a token that is over says so, in each protocol, to who can prove to have its secret.
func TestExpiredToken(t *testing.T) {
	t.Parallel()
	a, ann := newAccess(t, time.Hour)
	old, err := a.SessionToken(ann, 15*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := a.SessionToken(ann, 2*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	f := newFront(t, Options{Access: a}, testOperations()...)
	forged := keyOf(old)
	forged.Secret = "x"
	for _, tc := range []struct {
		name   string
		call   call
		key    sigv4.Key
		status int
		code   string
	}{
		{"appstream", appStreamCall("DescribeStacks", `{}`), keyOf(old), 400, "ExpiredTokenException"},
		{"ec2", ec2Call("Action=DescribeVpcs"), keyOf(old), 400, "RequestExpired"},
		{"sts", stsCall(), keyOf(old), 403, "ExpiredToken"},
		{"without the secret", stsCall(), forged, 403, "SignatureDoesNotMatch"},
		{"fresh", stsCall(), keyOf(fresh), 200, ""},
		{"fresh, denied", appStreamCall("DescribeStacks", `{}`), keyOf(fresh), 400, "AccessDeniedException"},
		{"fresh without its token", stsCall(), sigv4.Key{AccessKeyID: fresh.AccessKeyID, Secret: fresh.Secret}, 403, "InvalidClientTokenId"},
		{"fresh with another's token", stsCall(), sigv4.Key{AccessKeyID: fresh.AccessKeyID, Secret: fresh.Secret, SessionToken: old.SessionToken}, 403, "InvalidClientTokenId"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.call.key = tc.key
			if got := f.do(tc.call.request(t)); got.status != tc.status || got.code != tc.code {
				t.Errorf("got %d %s: %s", got.status, got.code, got.message)
			}
		})
	}
}

// TestResourcesOfRequests: what a request names is what the policies are asked about.
func TestResourcesOfRequests(t *testing.T) {
	t.Parallel()
	a, _ := newAccess(t, 0)
	f := newFront(t, Options{Access: a})
	as := func(kind, name string) string { return "arn:aws:appstream:us-east-1:123456789012:" + kind + "/" + name }
	ec := func(kind, id string) string { return "arn:aws:ec2:us-east-1:123456789012:" + kind + "/" + id }
	id := func(resource string) string { return "arn:aws:iam::123456789012:" + resource }
	for _, tc := range []struct {
		name    string
		service service
		in      any
		want    []string
	}{
		{"CreateStack", appStream, &appstreamapi.CreateStackInput{Name: new("s")}, []string{as("stack", "s")}},
		{"DescribeFleets", appStream, &appstreamapi.DescribeFleetsInput{Names: []string{"f", "g"}}, []string{as("fleet", "f"), as("fleet", "g")}},
		{"DescribeStacks", appStream, &appstreamapi.DescribeStacksInput{}, nil},
		{"AssociateFleet", appStream, &appstreamapi.AssociateFleetInput{FleetName: new("f"), StackName: new("s")}, []string{as("fleet", "f"), as("stack", "s")}},
		{"TagResource", appStream, &appstreamapi.TagResourceInput{ResourceArn: new(as("stack", "s"))}, []string{as("stack", "s")}},
		{"DescribeVpcs", ec2, &ec2api.DescribeVpcsInput{VpcIds: []string{"vpc-1"}}, nil},
		{"CreateVpc", ec2, &ec2api.CreateVpcInput{}, []string{ec("vpc", "*")}},
		{"DeleteVpcEndpoints", ec2, &ec2api.DeleteVpcEndpointsInput{VpcEndpointIds: []string{"vpce-1", "vpce-2"}}, []string{ec("vpc-endpoint", "vpce-1"), ec("vpc-endpoint", "vpce-2")}},
		{"ModifyVpcEndpoint", ec2, &ec2api.ModifyVpcEndpointInput{VpcEndpointId: new("vpce-1"), AddSecurityGroupIds: []string{"sg-1"}}, []string{ec("vpc-endpoint", "vpce-1"), ec("security-group", "sg-1")}},
		{"CreateTags", ec2, &ec2api.CreateTagsInput{Resources: []string{"subnet-1", "odd"}}, []string{ec("subnet", "subnet-1"), ec("*", "odd")}},
		{"GetUser", iamService, &iamapi.GetUserInput{UserName: new("ann")}, []string{id("user/team/ann")}},
		{"GetUser", iamService, &iamapi.GetUserInput{}, []string{id("user/me")}},
		{"CreateUser", iamService, &iamapi.CreateUserInput{UserName: new("eve"), Path: new("/x/")}, []string{id("user/x/eve")}},
		{"PutRolePolicy", iamService, &iamapi.PutRolePolicyInput{RoleName: new("r"), PolicyName: new("p")}, []string{id("role/r")}},
		{"CreatePolicy", iamService, &iamapi.CreatePolicyInput{PolicyName: new("p")}, []string{id("policy/p")}},
		{"GetPolicy", iamService, &iamapi.GetPolicyInput{PolicyArn: new("arn:aws:iam::aws:policy/x")}, []string{"arn:aws:iam::aws:policy/x"}},
	} {
		x := &exchange{server: f.Server, service: tc.service, operation: tc.name}
		c := Caller{AccountID: account, Region: region, Principal: iam.Principal{Kind: iam.User, AccountID: account, Name: "me"}}
		if d := cmp.Diff(tc.want, x.resources(context.Background(), c, reflect.ValueOf(tc.in).Elem())); d != "" {
			t.Errorf("%s: %s", tc.name, d)
		}
	}
}

func TestKeysOfRequests(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		in   any
		want map[string][]string
	}{
		{"map", &appstreamapi.CreateStackInput{Tags: map[string]string{"Team": "a"}}, map[string][]string{"aws:requesttag/team": {"a"}, "aws:tagkeys": {"Team"}}},
		{"list", &iamapi.CreateUserInput{Tags: []iamapi.Tag{{Key: new("K"), Value: new("v")}}, PermissionsBoundary: new("arn:b")}, map[string][]string{"aws:requesttag/k": {"v"}, "aws:tagkeys": {"K"}, "iam:permissionsboundary": {"arn:b"}}},
		{"specification", &ec2api.CreateVpcInput{TagSpecifications: []ec2api.TagSpecification{{Tags: []ec2api.Tag{{Key: new("K"), Value: new("v")}}}}}, map[string][]string{"aws:requesttag/k": {"v"}, "aws:tagkeys": {"K"}}},
		// Condition keys fold the case of ASCII letters, and nothing else: neither the Kelvin sign nor a second tag hides the first.
		{"look-alikes", &appstreamapi.CreateStackInput{Tags: map[string]string{"key": "1", "Key": "2", "\u212aey": "3"}}, map[string][]string{
			"aws:requesttag/key": {"2", "1"}, "aws:requesttag/\u212aey": {"3"}, "aws:tagkeys": {"Key", "key", "\u212aey"},
		}},
		{"removed", &iamapi.UntagUserInput{TagKeys: []string{"a", "b"}}, map[string][]string{"aws:tagkeys": {"a", "b"}}},
		{"policy", &iamapi.AttachUserPolicyInput{PolicyArn: new("arn:p")}, map[string][]string{"iam:policyarn": {"arn:p"}}},
	} {
		if d := cmp.Diff(tc.want, requestKeys(reflect.ValueOf(tc.in).Elem())); d != "" {
			t.Errorf("%s: %s", tc.name, d)
		}
	}
}

// TestEveryServedOperationAsksThePolicies: a user without policies is refused by every operation, also by those that are not
// served, but for the three of STS that need no permission.
func TestEveryServedOperationAsksThePolicies(t *testing.T) {
	t.Parallel()
	a, ann := newAccess(t, 0)
	f := newFront(t, Options{Access: a})
	f.options.Credentials = a
	var open []string
	for _, s := range []service{iamService, sts} {
		for name := range f.tables[s].modeled {
			c := call{service: s.signingName(), form: "Action=" + name + "&Version=" + s.model().version, key: keyOf(ann)}
			if got := f.do(c.request(t)); got.code != "AccessDenied" || !strings.Contains(got.message, "no identity-based policy allows the "+s.signingName()+":"+name+" action") {
				open = append(open, name)
			}
		}
	}
	slices.Sort(open)
	if want := []string{"AssumeRole", "GetCallerIdentity", "GetSessionToken"}; !slices.Equal(open, want) {
		t.Errorf("operations without a question: got %v, want %v", open, want)
	}
}

// TestUnsignedPayload: a signature that leaves the body out is good over TLS alone, and the streaming forms never are.
func TestUnsignedPayload(t *testing.T) {
	t.Parallel()
	f := newFront(t, Options{}, testOperations()...)
	for _, tc := range []struct {
		hash string
		tls  bool
		code string
	}{
		{sigv4.UnsignedPayload, true, ""},
		{sigv4.UnsignedPayload, false, "SignatureDoesNotMatch"},
		{"STREAMING-AWS4-HMAC-SHA256-PAYLOAD", true, "IncompleteSignature"},
		{"STREAMING-UNSIGNED-PAYLOAD-TRAILER", true, "IncompleteSignature"},
	} {
		r := stsCall().request(t)
		for _, h := range []string{"Authorization", "X-Amz-Date", "X-Amz-Content-Sha256"} {
			r.Header.Del(h)
		}
		r.Header.Set("X-Amz-Content-Sha256", tc.hash)
		sigv4.Sign(r, nil, root, region, "sts", now)
		if tc.tls {
			r.TLS = &tls.ConnectionState{}
		}
		if got := f.do(r); got.code != tc.code {
			t.Errorf("%s, TLS %t: got %d %s: %s", tc.hash, tc.tls, got.status, got.code, got.message)
		}
	}
}
