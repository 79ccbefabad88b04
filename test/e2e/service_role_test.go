package e2e

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/appstream"
	appstreamtypes "github.com/aws/aws-sdk-go-v2/service/appstream/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
)

const serviceRole = "AmazonAppStreamServiceAccess"

// TestServiceRoleAtFirstUse: the first use of AppStream by one who may make the role makes it; others are told why they cannot.
func TestServiceRoleAtFirstUse(t *testing.T) {
	needE2E(t)
	t.Parallel()
	s := start(t, t.TempDir(), "--no-demo")
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	root := iam.NewFromConfig(s.asRoot())
	role := func() error {
		_, err := root.GetRole(ctx, &iam.GetRoleInput{RoleName: aws.String(serviceRole)})
		return err
	}
	wantCode(t, role(), "NoSuchEntity", serviceRole)
	config, _ := s.newUser(ctx, root, "streams", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"appstream:*","Resource":"*"}}`)
	streams := appstream.NewFromConfig(config)
	if _, err := streams.DescribeStacks(ctx, &appstream.DescribeStacksInput{}); err != nil {
		t.Errorf("what needs no role: %v", err)
	}
	withEndpoint := func(c *appstream.Client, name string) error {
		_, err := c.CreateStack(ctx, &appstream.CreateStackInput{Name: &name, AccessEndpoints: []appstreamtypes.AccessEndpoint{
			{EndpointType: "STREAMING", VpceId: aws.String("vpce-0123456789abcdef0")},
		}})
		return err
	}
	const reason = "iam:CreateRole on resource: arn:aws:iam::"
	wantCode(t, withEndpoint(streams, "one"), "InvalidRoleException", "ec2:DescribeVpcEndpoints")
	wantCode(t, withEndpoint(streams, "one"), "InvalidRoleException", reason+s.info.AccountID+":role/service-role/"+serviceRole+" because no identity-based policy allows")
	_, err := streams.CreateFleet(ctx, &appstream.CreateFleetInput{
		Name: aws.String("f"), ImageName: aws.String("Penstock-Base"), InstanceType: aws.String("stream.standard.small"),
		ComputeCapacity: &appstreamtypes.ComputeCapacity{DesiredInstances: aws.Int32(1)},
	})
	wantCode(t, err, "InvalidRoleException", reason)
	wantCode(t, role(), "NoSuchEntity", serviceRole)

	config, _ = s.newUser(ctx, root, "admin", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["appstream:*","iam:CreateRole","iam:AttachRolePolicy"],"Resource":"*"}}`)
	if _, err := appstream.NewFromConfig(config).DescribeStacks(ctx, &appstream.DescribeStacksInput{}); err != nil {
		t.Error(err)
	}
	if err := role(); err != nil {
		t.Fatalf("after the first use: %v", err)
	}
	attached, err := root.ListAttachedRolePolicies(ctx, &iam.ListAttachedRolePoliciesInput{RoleName: aws.String(serviceRole)})
	if err != nil || len(attached.AttachedPolicies) != 1 || *attached.AttachedPolicies[0].PolicyArn != "arn:aws:iam::aws:policy/service-role/"+serviceRole {
		t.Errorf("attached: got %+v (%v)", attached, err)
	}
	wantCode(t, withEndpoint(streams, "one"), "ResourceNotFoundException", "vpce-0123456789abcdef0")
	if out := s.mustPenstock("explain", "access", "--principal", "service-role", "--action", "ec2:DescribeVpcEndpoints"); !strings.Contains(out, "ALLOWED") ||
		!strings.Contains(out, "arn:aws:iam::aws:policy/service-role/"+serviceRole) {
		t.Errorf("explained: %s", out)
	}
	if got := s.audited("--event-source", "iam.amazonaws.com", "--event-name", "CreateRole", "--user", "admin"); len(got) != 1 || !strings.Contains(got[0].CloudTrailEvent, `"invokedBy":"appstream.amazonaws.com"`) {
		t.Errorf("the making of the role on record: got %+v", got)
	}
}

// TestServiceRoleWithTheAWSCLI takes the service role and its actions away and gives them back, while a session runs.
func TestServiceRoleWithTheAWSCLI(t *testing.T) {
	needE2E(t)
	t.Parallel()
	s := start(t, t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 6*patience)
	defer cancel()
	as, _ := s.sdk()
	viewer := s.connect(s.visit(s.info.StreamingURL).mustLaunch("xterm").ViewerURL, "")
	endpoint := "EndpointType=STREAMING,VpceId=" + s.info.VPCEndpointID
	update := []string{"appstream", "update-stack", "--name", "demo", "--access-endpoints", endpoint}
	create := func(name string) []string {
		return []string{"appstream", "create-stack", "--name", name, "--access-endpoints", endpoint}
	}
	refused := func(text string, args ...string) {
		t.Helper()
		viewer.mustLive(t) // also so that the agent hears of it: one that is silent for 30 s is disconnected
		if _, err := s.tryAWS(args...); err == nil || !strings.Contains(err.Error(), "(InvalidRoleException)") || !strings.Contains(err.Error(), text) {
			t.Errorf("aws %s: got %v, want InvalidRoleException with %q", strings.Join(args, " "), err, text)
		}
	}
	errorsOf := func() (codes []string) {
		t.Helper()
		out, err := as.DescribeFleets(ctx, &appstream.DescribeFleetsInput{Names: []string{"demo"}})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range out.Fleets[0].FleetErrors {
			codes = append(codes, string(e.ErrorCode))
		}
		return codes
	}
	reports := func(codes ...string) {
		t.Helper()
		until(t, "the fleet's errors "+strings.Join(codes, " "), func() bool { return slices.Equal(errorsOf(), codes) })
	}
	reports()
	s.aws(nil, update...)

	// A deny of exactly the action.
	deny := `{"Version":"2012-10-17","Statement":[{"Sid":"NoEndpoints","Effect":"Deny","Action":"ec2:DescribeVpcEndpoints","Resource":"*"}]}`
	s.aws(nil, "iam", "put-role-policy", "--role-name", serviceRole, "--policy-name", "no", "--policy-document", deny)
	refused("lacks the action ec2:DescribeVpcEndpoints", update...)
	refused("with an explicit deny in an identity-based policy", create("two")...)
	s.aws(nil, "appstream", "create-stack", "--name", "internet") // without an endpoint nobody looks for one
	s.aws(nil, "iam", "delete-role-policy", "--role-name", serviceRole, "--policy-name", "no")
	s.aws(nil, update...)

	// A policy without the action, in the place of AWS's own.
	managed := "arn:aws:iam::aws:policy/service-role/" + serviceRole
	s.aws(nil, "iam", "detach-role-policy", "--role-name", serviceRole, "--policy-arn", managed)
	s.aws(nil, "iam", "put-role-policy", "--role-name", serviceRole, "--policy-name", "some", "--policy-document",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ec2:DescribeSubnets","ec2:CreateNetworkInterface"],"Resource":"*"}]}`)
	refused("ec2:DescribeVpcEndpoints", update...)
	reports("IAM_SERVICE_ROLE_MISSING_DESCRIBE_SECURITY_GROUPS_ACTION", "IAM_SERVICE_ROLE_MISSING_ENI_DESCRIBE_ACTION", "IAM_SERVICE_ROLE_MISSING_ENI_DELETE_ACTION")
	s.aws(nil, "iam", "delete-role-policy", "--role-name", serviceRole, "--policy-name", "some")

	// No role at all.
	s.aws(nil, "iam", "delete-role", "--role-name", serviceRole)
	refused("The service role is missing", update...)
	refused("ec2:DescribeVpcEndpoints", create("two")...)
	refused("does not exist", "appstream", "create-fleet", "--name", "f", "--image-name", "Penstock-Base", "--instance-type", "stream.standard.small", "--compute-capacity", "DesiredInstances=1")
	reports("IAM_SERVICE_ROLE_IS_MISSING")
	viewer.mustLive(t)

	// Made again by hand, as the text says.
	s.aws(nil, "iam", "create-role", "--role-name", serviceRole, "--path", "/service-role/", "--assume-role-policy-document",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"appstream.amazonaws.com"},"Action":"sts:AssumeRole"}]}`)
	refused("because no identity-based policy allows the ec2:DescribeVpcEndpoints action", update...)
	s.aws(nil, "iam", "attach-role-policy", "--role-name", serviceRole, "--policy-arn", managed)
	reports()
	s.aws(nil, update...)
	s.aws(nil, create("two")...)
	viewer.mustLive(t)
}
