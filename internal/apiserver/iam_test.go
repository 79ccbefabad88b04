package apiserver

import (
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

// TestResourcesOfRequests: what a request names is what the policies are asked about, with the tags that it brings.
func TestResourcesOfRequests(t *testing.T) {
	t.Parallel()
	w := newAuthWorld(t)
	as, ec := asARN, func(kind, id string) string { return "arn:aws:ec2:us-east-1:123456789012:" + kind + "/" + id }
	id := func(resource string) string { return "arn:aws:iam::123456789012:" + resource }
	tag := []ec2api.Tag{{Key: new("K"), Value: new("v")}}
	for _, tc := range []struct {
		name    string
		service service
		in      any
		want    []asked
	}{
		{"CreateStack", appStream, &appstreamapi.CreateStackInput{Name: new("x"), Tags: map[string]string{"Team": "a"}}, []asked{
			{as("stack", "x"), map[string][]string{"aws:requesttag/team": {"a"}, "aws:tagkeys": {"Team"}}},
		}},
		// Condition keys fold the case of ASCII letters, and nothing else: neither the Kelvin sign nor a second tag hides the first.
		{"CreateStack", appStream, &appstreamapi.CreateStackInput{Name: new("x"), Tags: map[string]string{"key": "1", "Key": "2", "\u212aey": "3"}}, []asked{
			{as("stack", "x"), map[string][]string{"aws:requesttag/key": {"2", "1"}, "aws:requesttag/\u212aey": {"3"}, "aws:tagkeys": {"Key", "key", "\u212aey"}}},
		}},
		{"DescribeFleets", appStream, &appstreamapi.DescribeFleetsInput{Names: []string{"f", "g"}}, nil},
		{"UpdateFleet", appStream, &appstreamapi.UpdateFleetInput{Name: new("f"), ImageArn: new(as("image", "i"))}, []asked{
			{as("fleet", "f"), map[string][]string{"aws:resourcetag/team": {"blue"}}}, {as("image", "i"), map[string][]string{}},
		}},
		{"DescribeVpcs", ec2, &ec2api.DescribeVpcsInput{VpcIds: []string{"vpc-1"}}, nil},
		{"CreateVpc", ec2, &ec2api.CreateVpcInput{TagSpecifications: []ec2api.TagSpecification{{ResourceType: new("vpc"), Tags: tag}, {ResourceType: new("subnet"), Tags: tag}}}, []asked{
			{ec("vpc", "*"), map[string][]string{"aws:requesttag/k": {"v"}, "aws:tagkeys": {"K"}, "ec2:region": {region}}},
		}},
		{"DeleteVpcEndpoints", ec2, &ec2api.DeleteVpcEndpointsInput{VpcEndpointIds: []string{"vpce-1", "vpce-2", "vpce-1"}}, []asked{
			{ec("vpc-endpoint", "vpce-1"), map[string][]string{"ec2:region": {region}}}, {ec("vpc-endpoint", "vpce-2"), map[string][]string{"ec2:region": {region}}},
		}},
		{"CreateTags", ec2, &ec2api.CreateTagsInput{Resources: []string{"odd", "odd-1"}}, []asked{
			{ec("*", "odd"), map[string][]string{"ec2:region": {region}}}, {ec("*", "odd-1"), map[string][]string{"ec2:region": {region}}},
		}},
		{"DeleteSecurityGroup", ec2, &ec2api.DeleteSecurityGroupInput{GroupName: new("nobody's")}, []asked{{ec("security-group", "*"), map[string][]string{"ec2:region": {region}}}}},
		{"GetUser", iamService, &iamapi.GetUserInput{UserName: new("ann")}, []asked{{id("user/team/ann"), map[string][]string{}}}},
		{"GetUser", iamService, &iamapi.GetUserInput{}, []asked{{id("user/me"), map[string][]string{}}}},
		{"CreateUser", iamService, &iamapi.CreateUserInput{UserName: new("eve"), Path: new("/x/"), PermissionsBoundary: new("arn:b")}, []asked{
			{id("user/x/eve"), map[string][]string{"iam:permissionsboundary": {"arn:b"}}},
		}},
		{"UntagUser", iamService, &iamapi.UntagUserInput{UserName: new("ann"), TagKeys: []string{"a", "b"}}, []asked{{id("user/team/ann"), map[string][]string{"aws:tagkeys": {"a", "b"}}}}},
		{"CreatePolicy", iamService, &iamapi.CreatePolicyInput{PolicyName: new("p")}, []asked{{id("policy/p"), map[string][]string{}}}},
		{"GetPolicy", iamService, &iamapi.GetPolicyInput{PolicyArn: new("arn:aws:iam::aws:policy/x")}, []asked{{"arn:aws:iam::aws:policy/x", map[string][]string{}}}},
		{"GetAccessKeyLastUsed", iamService, &iamapi.GetAccessKeyLastUsedInput{AccessKeyId: new("AKIANOBODY")}, []asked{{id("user/*"), map[string][]string{}}}},
	} {
		x := &exchange{server: w.Server, service: tc.service, operation: tc.name}
		c := Caller{AccountID: account, Region: region, Principal: iam.Principal{Kind: iam.User, AccountID: account, Name: "me"}}
		got, err := x.resources(t.Context(), c, w.tables[tc.service].served[tc.name].targets, reflect.ValueOf(tc.in).Elem())
		if d := cmp.Diff(tc.want, got, cmp.AllowUnexported(asked{})); err != nil || d != "" {
			t.Errorf("%s: %v %s", tc.name, err, d)
		}
	}
}

// TestEveryServedOperationAsksThePolicies: a user without policies is refused by every operation, also by those that are not
// served, but for the four of STS that need no permission.
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
	if want := []string{"AssumeRole", "AssumeRoleWithSAML", "GetCallerIdentity", "GetSessionToken"}; !slices.Equal(open, want) {
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
