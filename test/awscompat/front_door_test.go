// Package awscompat drives the API server with AWS's own clients: the official SDK and the AWS CLI are the judges.
package awscompat

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/appstream"
	appstreamtypes "github.com/aws/aws-sdk-go-v2/service/appstream/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/apiserver"
	"penstock.dev/penstock/internal/control"
	"penstock.dev/penstock/internal/control/network"
	identity "penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/sqlite"
)

const (
	account = "123456789012"
	region  = "us-east-1"
	keyID   = "AKIAIOSFODNN7EXAMPLE"
	secret  = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)

// api is a server on a loopback socket, over a real store. Nothing reconciles in it.
type api struct {
	url      string
	requests atomic.Int64
}

func serve(t *testing.T) *api {
	t.Helper()
	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	dir := identity.NewDirectory(
		[]identity.Credential{{AccessKeyID: keyID, Secret: secret, Principal: identity.RootOf(account)}},
		[]identity.Role{identity.ServiceAccessRole(account, "AROA1234567890EXAMPLE", time.Unix(1_700_000_000, 0))})
	handler, err := apiserver.New(apiserver.Options{
		AccountID: account, Region: region, Credentials: dir, Roles: dir,
		Control: control.New(control.Options{Store: store, Region: region, Account: account}),
		Network: network.New(network.Config{Store: store, Region: region, AccountID: account}),
	})
	if err != nil {
		t.Fatal(err)
	}
	a := &api{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.requests.Add(1)
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	a.url = srv.URL
	return a
}

// config is the SDK's configuration with one key, for one region.
func (a *api) config(keyID, secret, region string) aws.Config {
	return aws.Config{
		Region: region, BaseEndpoint: aws.String(a.url),
		Credentials: credentials.NewStaticCredentialsProvider(keyID, secret, ""),
	}
}

func (a *api) good() aws.Config { return a.config(keyID, secret, region) }

// wantCode checks the code that the SDK read from an error answer.
func wantCode(t *testing.T, err error, code, says string) {
	t.Helper()
	e, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		t.Errorf("got %v, want an API error %s", err, code)
		return
	}
	if e.ErrorCode() != code || !strings.Contains(e.ErrorMessage(), says) {
		t.Errorf("got %s: %s\nwant %s: %s", e.ErrorCode(), e.ErrorMessage(), code, says)
	}
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	a := serve(t)
	who, err := sts.NewFromConfig(a.good()).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := *who.Account+" "+*who.Arn+" "+*who.UserId, account+" arn:aws:iam::"+account+":root "+account; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// A client for another region may ask who it is.
	if _, err := sts.NewFromConfig(a.config(keyID, secret, "eu-central-1")).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{}); err != nil {
		t.Error(err)
	}
	client := iam.NewFromConfig(a.good())
	role, err := client.GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String("AmazonAppStreamServiceAccess")})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := *role.Role.Arn, "arn:aws:iam::123456789012:role/service-role/AmazonAppStreamServiceAccess"; got != want {
		t.Errorf("role: got %s, want %s", got, want)
	}
	if !role.Role.CreateDate.Equal(time.Unix(1_700_000_000, 0)) || *role.Role.MaxSessionDuration != 3600 {
		t.Errorf("role: created %s, session %d s", role.Role.CreateDate, *role.Role.MaxSessionDuration)
	}
	_, err = client.GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String("nobody")})
	wantCode(t, err, "NoSuchEntity", "nobody")
	if _, ok := errors.AsType[*iamtypes.NoSuchEntityException](err); !ok {
		t.Errorf("got a %T", err)
	}
	roles, err := client.ListRoles(t.Context(), &iam.ListRolesInput{})
	if err != nil || len(roles.Roles) != 1 || roles.IsTruncated {
		t.Errorf("roles: got %+v, %v", roles, err)
	}
	me, err := client.GetUser(t.Context(), &iam.GetUserInput{})
	if err != nil || *me.User.Arn != "arn:aws:iam::"+account+":root" {
		t.Errorf("user: got %+v, %v", me, err)
	}
}

func TestPresignedIdentity(t *testing.T) {
	t.Parallel()
	a := serve(t)
	signed, err := sts.NewPresignClient(sts.NewFromConfig(a.good())).PresignGetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), signed.Method, signed.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("got %s", resp.Status)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	a := serve(t)
	for _, tc := range []struct {
		name                string
		config              aws.Config
		appstream, ec2, sts string // codes; empty for success
	}{
		{"wrong secret", a.config(keyID, secret+"x", region), "InvalidSignatureException", "AuthFailure", "SignatureDoesNotMatch"},
		{"unknown key", a.config("AKIANOBODY", secret, region), "UnrecognizedClientException", "AuthFailure", "InvalidClientTokenId"},
		{"wrong region", a.config(keyID, secret, "eu-west-1"), "InvalidSignatureException", "AuthFailure", ""},
		{"no key", aws.Config{Region: region, BaseEndpoint: aws.String(a.url), Credentials: aws.AnonymousCredentials{}}, "MissingAuthenticationTokenException", "MissingAuthenticationToken", "MissingAuthenticationToken"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.config.RetryMaxAttempts = 1
			_, err := appstream.NewFromConfig(tc.config).DescribeStacks(t.Context(), &appstream.DescribeStacksInput{})
			wantCode(t, err, tc.appstream, "")
			_, err = ec2.NewFromConfig(tc.config).DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{})
			wantCode(t, err, tc.ec2, "")
			_, err = sts.NewFromConfig(tc.config).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
			if tc.sts != "" {
				wantCode(t, err, tc.sts, "")
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestErrorsThatTheSDKKnows: modelled errors arrive as their types, and nothing that cannot help is repeated.
func TestErrorsThatTheSDKKnows(t *testing.T) {
	t.Parallel()
	a := serve(t)
	ctx := t.Context()
	as, nets := appstream.NewFromConfig(a.good()), ec2.NewFromConfig(a.good())

	_, err := as.DescribeStacks(ctx, &appstream.DescribeStacksInput{Names: []string{"nothing"}})
	wantCode(t, err, "ResourceNotFoundException", "nothing")
	if _, ok := errors.AsType[*appstreamtypes.ResourceNotFoundException](err); !ok {
		t.Errorf("got a %T", err)
	}
	_, err = as.CreateStack(ctx, &appstream.CreateStackInput{Name: aws.String("-")})
	wantCode(t, err, "ValidationException", "1 validation error detected: Value '-' at 'name' failed to satisfy constraint: Member must satisfy regular expression pattern")
	_, err = as.CreateStack(ctx, &appstream.CreateStackInput{Name: aws.String("s"), AccessEndpoints: []appstreamtypes.AccessEndpoint{{EndpointType: "MAIL"}}})
	wantCode(t, err, "ValidationException", "'accessEndpoints.1.member.endpointType'")
	_, err = as.CreateStack(ctx, &appstream.CreateStackInput{Name: aws.String("s"), Description: aws.String(strings.Repeat("x", 2<<20))})
	wantCode(t, err, "RequestEntityTooLargeException", "1048576 bytes")

	before := a.requests.Load()
	_, err = as.DescribeThemeForStack(ctx, &appstream.DescribeThemeForStackInput{StackName: aws.String("s")})
	wantCode(t, err, "NotImplemented", "appstream:DescribeThemeForStack")
	if n := a.requests.Load() - before; n != 1 {
		t.Errorf("the SDK asked %d times for what is not implemented, want once", n)
	}

	_, err = nets.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{VpcIds: []string{"vpc-00000000000000000"}})
	wantCode(t, err, "InvalidVpcID.NotFound", "vpc-00000000000000000")
	_, err = nets.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{DryRun: aws.Bool(true)})
	wantCode(t, err, "DryRunOperation", "would have succeeded")
	_, err = nets.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{MaxResults: aws.Int32(1)})
	wantCode(t, err, "InvalidParameterValue", "MaxResults")
	_, err = nets.DescribeInstances(ctx, &ec2.DescribeInstancesInput{})
	wantCode(t, err, "InvalidAction", "DescribeInstances")
}

// TestNestedShapes sends and reads back the deepest shapes that the mission needs.
func TestNestedShapes(t *testing.T) {
	t.Parallel()
	a := serve(t)
	ctx := t.Context()
	nets := ec2.NewFromConfig(a.good())
	made, err := nets.CreateVpc(ctx, &ec2.CreateVpcInput{
		CidrBlock: aws.String("10.20.0.0/16"),
		TagSpecifications: []ec2types.TagSpecification{{
			ResourceType: ec2types.ResourceTypeVpc,
			Tags:         []ec2types.Tag{{Key: aws.String("Name"), Value: aws.String("a & <b> \"ü\" 😀")}, {Key: aws.String("empty"), Value: aws.String("")}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	read, err := nets.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{Filters: []ec2types.Filter{{Name: aws.String("tag:Name"), Values: []string{"other", "a & <b> \"ü\" 😀"}}}})
	if err != nil || len(read.Vpcs) != 1 {
		t.Fatalf("got %+v, %v", read, err)
	}
	tags := map[string]string{}
	for _, tag := range read.Vpcs[0].Tags {
		tags[*tag.Key] = *tag.Value
	}
	if diff := cmp.Diff(map[string]string{"Name": "a & <b> \"ü\" 😀", "empty": ""}, tags); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
	group, err := nets.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{
		GroupName: aws.String("streaming"), Description: aws.String("users"), VpcId: made.Vpc.VpcId,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []ec2types.IpPermission{
		{IpProtocol: aws.String("tcp"), FromPort: aws.Int32(443), ToPort: aws.Int32(443), IpRanges: []ec2types.IpRange{
			{CidrIp: aws.String("192.168.0.0/16"), Description: aws.String("office")}, {CidrIp: aws.String("172.16.0.0/16")},
		}},
		{IpProtocol: aws.String("tcp"), FromPort: aws.Int32(1400), ToPort: aws.Int32(1499), Ipv6Ranges: []ec2types.Ipv6Range{{CidrIpv6: aws.String("2001:db8::/32")}}},
	}
	if _, err := nets.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: group.GroupId, IpPermissions: want}); err != nil {
		t.Fatal(err)
	}
	groups, err := nets.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{GroupIds: []string{*group.GroupId}})
	if err != nil || len(groups.SecurityGroups) != 1 {
		t.Fatalf("got %+v, %v", groups, err)
	}
	got := map[int32]string{}
	for _, p := range groups.SecurityGroups[0].IpPermissions {
		for _, r := range p.IpRanges {
			got[*p.FromPort] += *r.CidrIp + " " + aws.ToString(r.Description) + ";"
		}
		for _, r := range p.Ipv6Ranges {
			got[*p.FromPort] += *r.CidrIpv6 + ";"
		}
	}
	if got[443] != "192.168.0.0/16 office;172.16.0.0/16 ;" && got[443] != "172.16.0.0/16 ;192.168.0.0/16 office;" || got[1400] != "2001:db8::/32;" {
		t.Errorf("rules read back: %v", got)
	}
	// An operation without output.
	if _, err := nets.ModifyVpcAttribute(ctx, &ec2.ModifyVpcAttributeInput{VpcId: made.Vpc.VpcId, EnableDnsHostnames: &ec2types.AttributeBooleanValue{Value: aws.Bool(true)}}); err != nil {
		t.Error(err)
	}
	attribute, err := nets.DescribeVpcAttribute(ctx, &ec2.DescribeVpcAttributeInput{VpcId: made.Vpc.VpcId, Attribute: ec2types.VpcAttributeNameEnableDnsHostnames})
	if err != nil || !*attribute.EnableDnsHostnames.Value {
		t.Errorf("got %+v, %v", attribute, err)
	}

	as := appstream.NewFromConfig(a.good())
	stack, err := as.CreateStack(ctx, &appstream.CreateStackInput{
		Name: aws.String("stack"), Description: aws.String("\"quoted\" ü\n"), Tags: map[string]string{"team": "a", "empty": ""},
		UserSettings: []appstreamtypes.UserSetting{{Action: appstreamtypes.ActionFileUpload, Permission: appstreamtypes.PermissionDisabled}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if *stack.Stack.Description != "\"quoted\" ü\n" || time.Since(*stack.Stack.CreatedTime).Abs() > time.Hour {
		t.Errorf("got description %q, created %s", *stack.Stack.Description, stack.Stack.CreatedTime)
	}
	stackTags, err := as.ListTagsForResource(ctx, &appstream.ListTagsForResourceInput{ResourceArn: stack.Stack.Arn})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"team": "a", "empty": ""}, stackTags.Tags); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
}

// TestCLI: Debian's AWS CLI, whose models are years older than ours.
func TestCLI(t *testing.T) {
	t.Parallel()
	const cli = "/usr/bin/aws"
	if os.Getenv("PENSTOCK_E2E") != "1" {
		t.Skip("needs PENSTOCK_E2E=1: it starts the AWS CLI for every call (make e2e)")
	}
	if _, err := os.Stat(cli); err != nil {
		t.Skipf("the AWS CLI is missing: install Debian's awscli (%v)", err)
	}
	a := serve(t)
	run := func(into any, args ...string) (stderr string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, cli, append(args, "--endpoint-url", a.url, "--output", "json")...)
		cmd.Env = append(os.Environ(), "AWS_EC2_METADATA_DISABLED=true", "AWS_ACCESS_KEY_ID="+keyID, "AWS_SECRET_ACCESS_KEY="+secret,
			"AWS_DEFAULT_REGION="+region, "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_MAX_ATTEMPTS=1")
		out, err := cmd.Output()
		if failed, ok := errors.AsType[*exec.ExitError](err); ok {
			return string(failed.Stderr)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out, into); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return ""
	}
	var who struct{ Account, Arn, UserID string }
	if stderr := run(&who, "sts", "get-caller-identity"); stderr != "" || who.Account != account {
		t.Errorf("got %+v %s", who, stderr)
	}
	var role struct{ Role struct{ RoleName string } }
	if stderr := run(&role, "iam", "get-role", "--role-name", "AmazonAppStreamServiceAccess"); stderr != "" || role.Role.RoleName != "AmazonAppStreamServiceAccess" {
		t.Errorf("got %+v %s", role, stderr)
	}
	var nothing any
	for _, tc := range []struct {
		want string
		args []string
	}{
		{"(ResourceNotFoundException) when calling the DescribeStacks operation", []string{"appstream", "describe-stacks", "--names", "nothing"}},
		{"(InvalidVpcID.NotFound) when calling the DescribeVpcs operation", []string{"ec2", "describe-vpcs", "--vpc-ids", "vpc-00000000000000000"}},
		{"(DryRunOperation) when calling the DescribeVpcs operation", []string{"ec2", "describe-vpcs", "--dry-run"}},
		{"(NoSuchEntity) when calling the GetRole operation", []string{"iam", "get-role", "--role-name", "nobody"}},
		{"(InvalidSignatureException) when calling the DescribeStacks operation (reached max retries: 0): Credential should be scoped to a valid region", []string{"appstream", "describe-stacks", "--region", "eu-west-1"}},
	} {
		if stderr := run(&nothing, tc.args...); !strings.Contains(stderr, tc.want) {
			t.Errorf("%v: got %q, want %q", tc.args, stderr, tc.want)
		}
	}
}
