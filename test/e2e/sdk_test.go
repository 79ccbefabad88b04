package e2e

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/appstream"
	astypes "github.com/aws/aws-sdk-go-v2/service/appstream/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go"
)

// sdk reads the credentials file as an SDK does.
func (s *server) sdk() (*appstream.Client, *ec2.Client) {
	s.t.Helper()
	var id, secret string
	for line := range lines(s.t, s.dir+"/aws/credentials") {
		if v, ok := strings.CutPrefix(line, "aws_access_key_id = "); ok {
			id = v
		}
		if v, ok := strings.CutPrefix(line, "aws_secret_access_key = "); ok {
			secret = v
		}
	}
	cfg := aws.Config{
		Region: s.info.Region, BaseEndpoint: &s.info.APIURL, Credentials: credentials.NewStaticCredentialsProvider(id, secret, ""),
	}
	return appstream.NewFromConfig(cfg), ec2.NewFromConfig(cfg)
}

// code is the API's error code.
func code(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

// TestMissionWithTheGoSDK makes stacks and fleets beside the demo with the official SDK, its validators and its waiters.
func TestMissionWithTheGoSDK(t *testing.T) {
	needE2E(t)
	t.Parallel()
	s := start(t, t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	as, _ := s.sdk()

	created, err := as.CreateFleet(ctx, &appstream.CreateFleetInput{
		Name: aws.String("sdk"), ImageName: aws.String("Penstock-Base"), InstanceType: aws.String("stream.standard.small"),
		ComputeCapacity: &astypes.ComputeCapacity{DesiredInstances: aws.Int32(1)}, IdleDisconnectTimeoutInSeconds: aws.Int32(90),
		Tags: map[string]string{"team": "sdk"},
	})
	if err != nil {
		t.Fatal(err)
	}
	f := created.Fleet
	if f.State != astypes.FleetStateStopped || *f.IdleDisconnectTimeoutInSeconds != 120 || *f.MaxUserDurationInSeconds != 57600 {
		t.Errorf("fleet: got state %s, idle %d, duration %d", f.State, *f.IdleDisconnectTimeoutInSeconds, *f.MaxUserDurationInSeconds)
	}
	_, err = as.CreateFleet(ctx, &appstream.CreateFleetInput{
		Name: aws.String("sdk"), ImageName: aws.String("Penstock-Base"), InstanceType: aws.String("x"),
		ComputeCapacity: &astypes.ComputeCapacity{DesiredInstances: aws.Int32(1)},
	})
	if code(err) != "ResourceAlreadyExistsException" {
		t.Errorf("fleet made twice: got %v", err)
	}
	if _, err := as.StartFleet(ctx, &appstream.StartFleetInput{Name: f.Name}); err != nil {
		t.Fatal(err)
	}
	if _, err := as.StartFleet(ctx, &appstream.StartFleetInput{Name: f.Name}); err != nil {
		t.Errorf("a repeated StartFleet: %v", err)
	}
	quick := func(o *appstream.FleetStartedWaiterOptions) {
		o.MinDelay, o.MaxDelay = 100*time.Millisecond, time.Second
	}
	if err := appstream.NewFleetStartedWaiter(as).Wait(ctx, &appstream.DescribeFleetsInput{Names: []string{"sdk"}}, patience, quick); err != nil {
		t.Fatalf("fleet-started waiter: %v", err)
	}
	if _, err := as.UpdateFleet(ctx, &appstream.UpdateFleetInput{Name: f.Name, Description: aws.String("x")}); code(err) != "ResourceInUseException" {
		t.Errorf("description of a running fleet: got %v", err)
	}

	stack, err := as.CreateStack(ctx, &appstream.CreateStackInput{
		Name: aws.String("sdk"), AccessEndpoints: []astypes.AccessEndpoint{{EndpointType: astypes.AccessEndpointTypeStreaming, VpceId: &s.info.VPCEndpointID}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(stack.Stack.UserSettings); n < 7 || stack.Stack.ApplicationSettings == nil || *stack.Stack.ApplicationSettings.Enabled {
		t.Errorf("stack: got %d user settings and application settings %+v", n, stack.Stack.ApplicationSettings)
	}
	if _, err := as.AssociateFleet(ctx, &appstream.AssociateFleetInput{FleetName: f.Name, StackName: aws.String("sdk")}); err != nil {
		t.Fatal(err)
	}
	listed, err := as.ListAssociatedStacks(ctx, &appstream.ListAssociatedStacksInput{FleetName: f.Name})
	if err != nil || !slices.Equal(listed.Names, []string{"sdk"}) {
		t.Errorf("associated stacks: got %v (%v)", listed, err)
	}
	u, err := as.CreateStreamingURL(ctx, &appstream.CreateStreamingURLInput{
		StackName: aws.String("sdk"), FleetName: f.Name, UserId: aws.String("ann"), ApplicationId: aws.String("xterm"), Validity: aws.Int64(1),
	})
	if err != nil {
		t.Fatal(err)
	}
	expired := *u.StreamingURL
	until(t, "the URL to expire", func() bool { return time.Now().After(u.Expires.Add(time.Second)) })
	if l := s.visit(expired).launch("xterm"); l.status != 401 {
		t.Errorf("an expired URL: got %+v, want status 401", l)
	}
	u, err = as.CreateStreamingURL(ctx, &appstream.CreateStreamingURLInput{
		StackName: aws.String("sdk"), FleetName: f.Name, UserId: aws.String("ann"), ApplicationId: aws.String("xterm"),
		SessionContext: aws.String("order=7"),
	})
	if err != nil {
		t.Fatal(err)
	}
	p := s.visit(*u.StreamingURL)
	if l := p.launch("mousepad"); l.status != 403 {
		t.Errorf("an application that the URL does not name: got %+v, want status 403", l)
	}
	v := s.connect(p.mustLaunch("xterm").ViewerURL, "")
	v.mustLive(t)
	if !applicationHas(t, s.dir, "AppStream_Session_Context=order=7") {
		t.Error("the application did not get the session's context")
	}
	full, err := as.CreateStreamingURL(ctx, &appstream.CreateStreamingURLInput{StackName: aws.String("sdk"), FleetName: f.Name, UserId: aws.String("bob")})
	if err != nil {
		t.Fatal(err)
	}
	if l := s.visit(*full.StreamingURL).launch("xterm"); l.status != 503 || l.Reason == "" {
		t.Errorf("a full fleet: got %+v, want status 503 and a reason", l)
	}
	tags, err := as.ListTagsForResource(ctx, &appstream.ListTagsForResourceInput{ResourceArn: f.Arn})
	if err != nil || tags.Tags["team"] != "sdk" {
		t.Errorf("tags: got %v (%v)", tags, err)
	}
	sessions, err := as.DescribeSessions(ctx, &appstream.DescribeSessionsInput{StackName: aws.String("sdk"), FleetName: f.Name, UserId: aws.String("ann"), AuthenticationType: astypes.AuthenticationTypeApi})
	if err != nil || len(sessions.Sessions) != 1 || sessions.Sessions[0].ConnectionState != astypes.SessionConnectionStateConnected {
		t.Fatalf("sessions: got %+v (%v)", sessions, err)
	}
	if _, err := as.ExpireSession(ctx, &appstream.ExpireSessionInput{SessionId: sessions.Sessions[0].Id}); err != nil {
		t.Fatal(err)
	}
	v.mustEnd(t)

	if _, err := as.StopFleet(ctx, &appstream.StopFleetInput{Name: f.Name}); err != nil {
		t.Fatal(err)
	}
	slow := func(o *appstream.FleetStoppedWaiterOptions) {
		o.MinDelay, o.MaxDelay = 100*time.Millisecond, time.Second
	}
	if err := appstream.NewFleetStoppedWaiter(as).Wait(ctx, &appstream.DescribeFleetsInput{Names: []string{"sdk"}}, patience, slow); err != nil {
		t.Fatalf("fleet-stopped waiter: %v", err)
	}
	if _, err := as.DisassociateFleet(ctx, &appstream.DisassociateFleetInput{FleetName: f.Name, StackName: aws.String("sdk")}); err != nil {
		t.Fatal(err)
	}
	if _, err := as.DeleteFleet(ctx, &appstream.DeleteFleetInput{Name: f.Name}); err != nil {
		t.Fatal(err)
	}
	if _, err := as.DeleteStack(ctx, &appstream.DeleteStackInput{Name: aws.String("sdk")}); err != nil {
		t.Fatal(err)
	}
	_, err = as.CreateDirectoryConfig(ctx, &appstream.CreateDirectoryConfigInput{DirectoryName: aws.String("x"), OrganizationalUnitDistinguishedNames: []string{"OU=x"}})
	if err == nil {
		t.Error("an operation that is not served reported success")
	}
}

// TestEndpointDeletedUnderASession deletes the demo's endpoint with a viewer on it: the viewer is told why.
func TestEndpointDeletedUnderASession(t *testing.T) {
	needE2E(t)
	t.Parallel()
	s := start(t, t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	_, e := s.sdk()
	v := s.connect(s.visit(s.info.StreamingURL).mustLaunch("xterm").ViewerURL, "")
	v.mustLive(t)
	out, err := e.DeleteVpcEndpoints(ctx, &ec2.DeleteVpcEndpointsInput{VpcEndpointIds: []string{s.info.VPCEndpointID, "vpce-00000000000000000"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Unsuccessful) != 1 || *out.Unsuccessful[0].Error.Code != "InvalidVpcEndpoint.NotFound" {
		t.Errorf("unsuccessful: got %+v", out.Unsuccessful)
	}
	until(t, "the session to end", func() bool {
		ss := s.sessions()
		return len(ss) == 1 && ss[0].State == "EXPIRED" && ss[0].EndReason != ""
	})
	// The stack's endpoint is gone: nobody streams, least of all from the internet endpoint.
	if l := s.visit(s.info.StreamingURL).launch("xterm"); l.status != 503 || l.ViewerURL != "" {
		t.Errorf("launch without the endpoint: got %+v, want status 503", l)
	}
}
