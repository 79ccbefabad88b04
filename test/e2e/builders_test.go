package e2e

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/appstream"
	astypes "github.com/aws/aws-sdk-go-v2/service/appstream/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	penstock "penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/appstream/appstreamtest"
	"penstock.dev/penstock/internal/penstocktest/terraform"
)

// awsBuilder is an image builder as the AWS CLI prints it.
type awsBuilder struct {
	Name, Arn, State, ImageArn string
	AccessEndpoints            []struct{ EndpointType, VpceID string }
	VpcConfig                  struct{ SubnetIDs, SecurityGroupIDs []string }
}

// imageBuilders describes image builders.
func (s *server) imageBuilders(names ...string) []astypes.ImageBuilder {
	s.t.Helper()
	as, _ := s.sdk()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	out, err := as.DescribeImageBuilders(ctx, &appstream.DescribeImageBuildersInput{Names: names})
	if err != nil {
		s.t.Fatal(err)
	}
	return out.ImageBuilders
}

func (s *server) untilImageBuilder(name string, state astypes.ImageBuilderState) (b astypes.ImageBuilder) {
	s.t.Helper()
	until(s.t, "image builder "+name+" to be "+string(state), func() bool {
		b = s.imageBuilders(name)[0]
		return b.State == state
	})
	return b
}

// TestImageBuilderWithTheAWSCLI makes an image builder on the demo's endpoint, works on its desktop, stops, starts and deletes it.
func TestImageBuilderWithTheAWSCLI(t *testing.T) {
	needE2E(t)
	t.Parallel()
	s := start(t, t.TempDir())
	create := func(name, endpoint string, more ...string) []string {
		args := []string{"appstream", "create-image-builder", "--name", name, "--image-name", "Penstock-Base", "--instance-type", "stream.standard.medium"}
		if endpoint != "" {
			args = append(args, "--access-endpoints", "EndpointType=STREAMING,VpceId="+endpoint)
		}
		return append(args, more...)
	}
	subnet := s.info.EndpointAddresses[0].SubnetID
	var made struct{ ImageBuilder awsBuilder }
	s.aws(&made, create("office", s.info.VPCEndpointID, "--vpc-config", "SubnetIds="+subnet, "--tags", "team=blue", "--description", "ours")...)
	if b := made.ImageBuilder; b.State != "PENDING" || !strings.HasSuffix(b.Arn, ":image-builder/office") || !strings.HasSuffix(b.ImageArn, ":image/Penstock-Base") ||
		len(b.AccessEndpoints) != 1 || !slices.Equal(b.VpcConfig.SubnetIDs, []string{subnet}) {
		t.Errorf("made: got %+v", b)
	}
	s.awsFails("ResourceAlreadyExistsException", create("office", "")...)
	s.awsFails("ResourceNotFoundException", "appstream", "describe-image-builders", "--names", "office", "nobody")
	s.untilImageBuilder("office", "RUNNING")
	var described struct{ ImageBuilders []awsBuilder }
	s.aws(&described, "appstream", "describe-image-builders", "--names", "office")
	if b := described.ImageBuilders; len(b) != 1 || b[0].State != "RUNNING" || b[0].AccessEndpoints[0].VpceID != s.info.VPCEndpointID {
		t.Errorf("described: got %+v", b)
	}
	var tags struct{ Tags map[string]string }
	s.aws(nil, "appstream", "tag-resource", "--resource-arn", made.ImageBuilder.Arn, "--tags", "cost=12")
	s.aws(&tags, "appstream", "list-tags-for-resource", "--resource-arn", made.ImageBuilder.Arn)
	if tags.Tags["team"] != "blue" || tags.Tags["cost"] != "12" {
		t.Errorf("tags: got %v", tags.Tags)
	}

	// Its desktop, at its endpoint and nowhere else.
	streamingURL := func() string {
		var u struct{ StreamingURL string }
		s.aws(&u, "appstream", "create-image-builder-streaming-url", "--name", "office")
		return u.StreamingURL
	}
	p := s.visit(streamingURL())
	if l := p.launch("xterm"); l.status != 403 {
		t.Errorf("an application that is not the desktop: got %+v, want status 403", l)
	}
	l := p.mustLaunch("Desktop")
	u := mustURL(t, l.ViewerURL)
	if !slices.ContainsFunc(s.info.EndpointAddresses, func(a struct{ SubnetID, Private, Dial string }) bool { return a.Dial == u.Hostname() }) {
		t.Errorf("it streams from %s, want one of %v", u.Host, s.info.EndpointAddresses)
	}
	if _, err := tryConnect(t, mustURL(t, s.info.PublicURL), ticketOf(u), ""); err == nil {
		t.Error("its ticket was good at the internet endpoint")
	}
	v := s.connect(s.visit(streamingURL()).mustLaunch("Desktop").ViewerURL, "") // another administrator comes to the same session
	v.mustLive(t)
	ss := s.sessions()
	i := slices.IndexFunc(ss, func(x sessionInfo) bool { return x.ID == l.SessionID })
	if i < 0 || ss[i].Builder != "image-builder/office" || ss[i].EndpointID != s.info.VPCEndpointID || ss[i].State != "ACTIVE" || ss[i].UserID != "ImageBuilderAdmin" ||
		ss[i].Display == "" || ss[i].PID == 0 || len(ss) != 1 {
		t.Fatalf("sessions: got %+v", ss)
	}
	appstreamtest.AwaitWindows(t, penstock.InstanceInfo{Local: &penstock.Local{Display: ss[i].Display, Xauthority: ss[i].Xauthority, PID: ss[i].PID}}, "xterm")
	v.mustLive(t)

	// A session that ends takes its instance with it; the builder runs on, on another one.
	s.aws(nil, "appstream", "expire-session", "--session-id", l.SessionID)
	v.mustEnd(t)
	again := s.visit(streamingURL()).mustLaunch("Desktop")
	if again.SessionID == l.SessionID {
		t.Error("the session that was ended goes on")
	}
	v = s.connect(again.ViewerURL, "")
	v.mustLive(t)

	s.aws(nil, "appstream", "stop-image-builder", "--name", "office")
	v.mustEnd(t)
	s.untilImageBuilder("office", "STOPPED")
	s.awsFails("OperationNotPermittedException", "appstream", "create-image-builder-streaming-url", "--name", "office")
	s.aws(nil, "appstream", "stop-image-builder", "--name", "office") // again
	s.aws(nil, "appstream", "start-image-builder", "--name", "office")
	s.untilImageBuilder("office", "RUNNING")
	s.aws(nil, "appstream", "start-image-builder", "--name", "office") // again
	s.connect(s.visit(streamingURL()).mustLaunch("Desktop").ViewerURL, "").mustLive(t)
	s.aws(&made, "appstream", "delete-image-builder", "--name", "office")
	if made.ImageBuilder.State != "DELETING" {
		t.Errorf("deleted: got %+v, want it DELETING", made.ImageBuilder)
	}
	until(t, "the builder to be gone", func() bool {
		_, err := s.tryAWS("appstream", "describe-image-builders", "--names", "office")
		return err != nil && strings.Contains(err.Error(), "(ResourceNotFoundException)")
	})
	until(t, "three ends of sessions on record", func() bool { return len(s.audited("--event-name", "EndSession")) == 3 })
	if got := s.audited("--event-name", "EndSession"); !strings.Contains(got[0].CloudTrailEvent, `"builder":"image-builder/office"`) {
		t.Errorf("the end of a session on record: got %s", got[0].CloudTrailEvent)
	}
	if got := s.audited("--event-name", "CreateImageBuilder"); len(got) < 2 {
		t.Errorf("CreateImageBuilder on record: got %+v, want the one that was made and the refused one", got)
	}
}

// TestBuildersNeedTheServiceRole: endpoints of builders are looked at as the service role, as those of stacks are.
func TestBuildersNeedTheServiceRole(t *testing.T) {
	needE2E(t)
	t.Parallel()
	s := start(t, t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	as, net := s.sdk()
	role := iam.NewFromConfig(s.asRoot())
	zones := []string{s.info.EndpointAddresses[0].SubnetID, s.info.EndpointAddresses[1].SubnetID}
	api, err := net.CreateVpcEndpoint(ctx, &ec2.CreateVpcEndpointInput{
		VpcId: &s.info.VPCID, ServiceName: aws.String("com.amazonaws.us-east-1.appstream.api"), VpcEndpointType: ec2types.VpcEndpointTypeInterface, SubnetIds: zones,
	})
	if err != nil {
		t.Fatal(err)
	}
	access := func(endpoint string) []astypes.AccessEndpoint {
		return []astypes.AccessEndpoint{{EndpointType: astypes.AccessEndpointTypeStreaming, VpceId: &endpoint}}
	}
	image := func(endpoint string, subnets ...string) error {
		in := &appstream.CreateImageBuilderInput{
			Name: aws.String("i"), ImageName: aws.String("Penstock-Base"), InstanceType: aws.String("stream.standard.small"),
		}
		if endpoint != "" {
			in.AccessEndpoints = access(endpoint)
		}
		if len(subnets) > 0 {
			in.VpcConfig = &astypes.VpcConfig{SubnetIds: subnets}
		}
		_, err := as.CreateImageBuilder(ctx, in)
		return err
	}
	app := func(endpoint string) error {
		in := &appstream.CreateAppBlockBuilderInput{
			Name: aws.String("a"), Platform: astypes.AppBlockBuilderPlatformTypeWindowsServer2019, InstanceType: aws.String("stream.standard.small"),
			VpcConfig: &astypes.VpcConfig{SubnetIds: zones},
		}
		if endpoint != "" {
			in.AccessEndpoints = access(endpoint)
		}
		_, err := as.CreateAppBlockBuilder(ctx, in)
		return err
	}
	update := func(endpoint string) error {
		_, err := as.UpdateAppBlockBuilder(ctx, &appstream.UpdateAppBlockBuilderInput{Name: aws.String("a"), AccessEndpoints: access(endpoint)})
		return err
	}
	if err := app(""); err != nil { // one to update
		t.Fatal(err)
	}
	each := func(code, text string, endpoint string) {
		t.Helper()
		wantCode(t, image(endpoint), code, text)
		wantCode(t, update(endpoint), code, text)
		other := &appstream.CreateAppBlockBuilderInput{
			Name: aws.String("b"), Platform: astypes.AppBlockBuilderPlatformTypeWindowsServer2019, InstanceType: aws.String("stream.standard.small"),
			VpcConfig: &astypes.VpcConfig{SubnetIds: zones}, AccessEndpoints: access(endpoint),
		}
		_, err := as.CreateAppBlockBuilder(ctx, other)
		wantCode(t, err, code, text)
	}
	each("ResourceNotFoundException", "vpce-0123456789abcdef0", "vpce-0123456789abcdef0")
	each("InvalidParameterCombinationException", "not for appstream.streaming", *api.VpcEndpoint.VpcEndpointId)

	deny := func(action string) {
		t.Helper()
		document := `{"Version":"2012-10-17","Statement":[{"Sid":"No","Effect":"Deny","Action":"` + action + `","Resource":"*"}]}`
		_, err := role.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: aws.String(serviceRole), PolicyName: aws.String("no"), PolicyDocument: &document})
		if err != nil {
			t.Fatal(err)
		}
	}
	deny("ec2:DescribeVpcEndpoints")
	each("InvalidRoleException", "lacks the action ec2:DescribeVpcEndpoints", s.info.VPCEndpointID)
	deny("ec2:DescribeSubnets")
	wantCode(t, image("", zones[0]), "InvalidRoleException", "lacks the action ec2:DescribeSubnets")
	if _, err := role.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: aws.String(serviceRole), PolicyName: aws.String("no")}); err != nil {
		t.Fatal(err)
	}
	if err := update(s.info.VPCEndpointID); err != nil {
		t.Errorf("with the role: %v", err)
	}
	managed := "arn:aws:iam::aws:policy/service-role/" + serviceRole
	if _, err := role.DetachRolePolicy(ctx, &iam.DetachRolePolicyInput{RoleName: aws.String(serviceRole), PolicyArn: &managed}); err != nil {
		t.Fatal(err)
	}
	each("InvalidRoleException", "because no identity-based policy allows the ec2:Describe", s.info.VPCEndpointID)

	// A builder that starts without what its network interface needs says so and is not tried for ever.
	if err := image(""); err != nil {
		t.Fatal(err)
	}
	failed := s.untilImageBuilder("i", "FAILED")
	if e := failed.ImageBuilderErrors; len(e) == 0 || e[0].ErrorCode != "IAM_SERVICE_ROLE_MISSING_DESCRIBE_SUBNET_ACTION" {
		t.Errorf("errors of the failed builder: got %+v", e)
	}
	_, err = as.StopImageBuilder(ctx, &appstream.StopImageBuilderInput{Name: aws.String("i")})
	wantCode(t, err, "OperationNotPermittedException", "FAILED")
	if _, err := role.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: aws.String(serviceRole), PolicyArn: &managed}); err != nil {
		t.Fatal(err)
	}
	if _, err := as.StartImageBuilder(ctx, &appstream.StartImageBuilderInput{Name: aws.String("i")}); err != nil {
		t.Fatal(err)
	}
	if b := s.untilImageBuilder("i", "RUNNING"); len(b.ImageBuilderErrors) != 0 {
		t.Errorf("errors of a running builder: got %+v", b.ImageBuilderErrors)
	}

	// No role at all.
	if _, err := role.DetachRolePolicy(ctx, &iam.DetachRolePolicyInput{RoleName: aws.String(serviceRole), PolicyArn: &managed}); err != nil {
		t.Fatal(err)
	}
	if _, err := role.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: aws.String(serviceRole)}); err != nil {
		t.Fatal(err)
	}
	_, err = as.DeleteImageBuilder(ctx, &appstream.DeleteImageBuilderInput{Name: aws.String("i")})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the builder to be gone", func() bool {
		_, err := as.DescribeImageBuilders(ctx, &appstream.DescribeImageBuildersInput{Names: []string{"i"}})
		return code(err) == "ResourceNotFoundException"
	})
	each("InvalidRoleException", "The service role is missing", s.info.VPCEndpointID)
}

// TestImageBuilderOutlivesTheServer kills the server: builders are as they were, and nobody has two.
func TestImageBuilderOutlivesTheServer(t *testing.T) {
	needE2E(t)
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	as, _ := s.sdk()
	create := func(as *appstream.Client, name string) error {
		_, err := as.CreateImageBuilder(ctx, &appstream.CreateImageBuilderInput{
			Name: &name, ImageName: aws.String("Penstock-Base"), InstanceType: aws.String("stream.standard.small"),
		}, func(o *appstream.Options) { o.RetryMaxAttempts = 1 })
		return err
	}
	// Many at once want the same name: one gets it.
	var wg sync.WaitGroup
	var mu sync.Mutex
	made, exists := 0, 0
	for range 8 {
		wg.Go(func() {
			err := create(as, "one")
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				made++
			case code(err) == "ResourceAlreadyExistsException":
				exists++
			default:
				t.Errorf("CreateImageBuilder: %v", err)
			}
		})
	}
	wg.Wait()
	if made != 1 || exists != 7 {
		t.Errorf("%d were made and %d refused, want 1 and 7", made, exists)
	}
	s.untilImageBuilder("one", "RUNNING")
	u, err := as.CreateImageBuilderStreamingURL(ctx, &appstream.CreateImageBuilderStreamingURLInput{Name: aws.String("one"), Validity: aws.Int64(3600)})
	if err != nil {
		t.Fatal(err)
	}
	lost := s.visit(*u.StreamingURL).mustLaunch("Desktop")
	s.connect(lost.ViewerURL, "").mustLive(t)
	if err := create(as, "two"); err != nil {
		t.Fatal(err)
	}
	if _, err := as.StopImageBuilder(ctx, &appstream.StopImageBuilderInput{Name: aws.String("one")}); err != nil {
		t.Fatal(err)
	}
	s.kill() // while one stops and two starts

	s = start(t, dir)
	as, _ = s.sdk()
	s.untilImageBuilder("one", "STOPPED")
	s.untilImageBuilder("two", "RUNNING")
	ss := s.sessions()
	if i := slices.IndexFunc(ss, func(x sessionInfo) bool { return x.ID == lost.SessionID }); i < 0 || ss[i].State != "EXPIRED" {
		t.Errorf("the session of before: got %+v, want it EXPIRED", ss)
	}
	s.kill()

	s = start(t, dir)
	as, _ = s.sdk()
	s.untilImageBuilder("two", "RUNNING")
	u, err = as.CreateImageBuilderStreamingURL(ctx, &appstream.CreateImageBuilderStreamingURLInput{Name: aws.String("two")})
	if err != nil {
		t.Fatal(err)
	}
	l := s.visit(*u.StreamingURL).mustLaunch("Desktop")
	if !strings.HasPrefix(l.ViewerURL, s.info.PublicURL+"/stream/") {
		t.Errorf("without an endpoint it streams from %.60s, want the internet endpoint", l.ViewerURL)
	}
	s.connect(l.ViewerURL, "").mustLive(t)
}

// TestAppBlockBuilderWithTheGoSDK makes app blocks and an app block builder, works on its desktop and takes everything down; what is wrong
// with a request is told by its member.
func TestAppBlockBuilderWithTheGoSDK(t *testing.T) {
	needE2E(t)
	t.Parallel()
	s := start(t, t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	as, _ := s.sdk()
	blocks := make([]string, 3)
	for i, name := range []string{"c", "a", "b"} {
		out, err := as.CreateAppBlock(ctx, &appstream.CreateAppBlockInput{
			Name: &name, PackagingType: astypes.PackagingTypeAppstream2, SourceS3Location: &astypes.S3Location{S3Bucket: aws.String("packages")},
			Tags: map[string]string{"team": "blue"},
		})
		if err != nil {
			t.Fatal(err)
		}
		if b := out.AppBlock; b.State != astypes.AppBlockStateInactive || *b.SourceS3Location.S3Bucket != "packages" || b.CreatedTime == nil {
			t.Errorf("app block: got %+v", b)
		}
		blocks[i] = *out.AppBlock.Arn
	}
	block := func(change func(*appstream.CreateAppBlockInput)) error {
		in := &appstream.CreateAppBlockInput{
			Name: aws.String("x"), PackagingType: astypes.PackagingTypeAppstream2, SourceS3Location: &astypes.S3Location{S3Bucket: aws.String("packages")},
		}
		change(in)
		_, err := as.CreateAppBlock(ctx, in)
		return err
	}
	script := &astypes.ScriptDetails{
		ScriptS3Location: &astypes.S3Location{S3Bucket: aws.String("packages")}, ExecutablePath: aws.String("/x"), TimeoutInSeconds: aws.Int32(1),
	}
	wantCode(t, block(func(in *appstream.CreateAppBlockInput) { in.Name = aws.String("a") }), "ResourceAlreadyExistsException", "app block a")
	wantCode(t, block(func(in *appstream.CreateAppBlockInput) { in.PackagingType = "" }), "OperationNotPermittedException", "packagingType")
	wantCode(t, block(func(in *appstream.CreateAppBlockInput) { in.SetupScriptDetails = script }), "InvalidParameterCombinationException", "setupScriptDetails")
	wantCode(t, block(func(in *appstream.CreateAppBlockInput) { in.PostSetupScriptDetails = script }), "OperationNotPermittedException", "postSetupScriptDetails")
	wantCode(t, block(func(in *appstream.CreateAppBlockInput) { in.SourceS3Location.S3Key = aws.String("k") }), "InvalidParameterCombinationException", "s3Key")
	wantCode(t, block(func(in *appstream.CreateAppBlockInput) { in.SourceS3Location.S3Bucket = aws.String("X") }), "ValidationException", "s3Bucket")
	wantCode(t, block(func(in *appstream.CreateAppBlockInput) { in.Name = aws.String("-") }), "ValidationException", "name")

	// Pages, in order of names.
	var names []string
	var token *string
	for pages := 1; ; pages++ {
		out, err := as.DescribeAppBlocks(ctx, &appstream.DescribeAppBlocksInput{MaxResults: aws.Int32(2), NextToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range out.AppBlocks {
			names = append(names, *b.Name)
		}
		if token = out.NextToken; token == nil {
			if pages != 2 || !slices.Equal(names, []string{"a", "b", "c"}) {
				t.Errorf("%d pages of app blocks: got %v", pages, names)
			}
			break
		}
	}
	_, err := as.DescribeAppBlocks(ctx, &appstream.DescribeAppBlocksInput{NextToken: aws.String("%")})
	wantCode(t, err, "ValidationException", "nextToken")
	_, err = as.DescribeAppBlockBuilders(ctx, &appstream.DescribeAppBlockBuildersInput{MaxResults: aws.Int32(26)})
	wantCode(t, err, "ValidationException", "maxResults")
	_, err = as.DescribeImageBuilders(ctx, &appstream.DescribeImageBuildersInput{MaxResults: aws.Int32(0)})
	wantCode(t, err, "ValidationException", "maxResults")
	_, err = as.DescribeAppBlocks(ctx, &appstream.DescribeAppBlocksInput{Arns: []string{blocks[0] + "x"}})
	wantCode(t, err, "ResourceNotFoundException", "cx")

	zones := []string{s.info.EndpointAddresses[0].SubnetID, s.info.EndpointAddresses[1].SubnetID}
	create := func(change func(*appstream.CreateAppBlockBuilderInput)) (*astypes.AppBlockBuilder, error) {
		in := &appstream.CreateAppBlockBuilderInput{
			Name: aws.String("packer"), Platform: astypes.AppBlockBuilderPlatformTypeWindowsServer2019, InstanceType: aws.String("stream.standard.small"),
			VpcConfig: &astypes.VpcConfig{SubnetIds: zones}, EnableDefaultInternetAccess: aws.Bool(true), Description: aws.String("packs"),
			AccessEndpoints: []astypes.AccessEndpoint{{EndpointType: astypes.AccessEndpointTypeStreaming, VpceId: &s.info.VPCEndpointID}},
		}
		if change != nil {
			change(in)
		}
		out, err := as.CreateAppBlockBuilder(ctx, in)
		if err != nil {
			return nil, err
		}
		return out.AppBlockBuilder, nil
	}
	b, err := create(nil)
	if err != nil {
		t.Fatal(err)
	}
	if b.State != astypes.AppBlockBuilderStateStopped || !slices.Equal(b.VpcConfig.SubnetIds, zones) || !*b.EnableDefaultInternetAccess || *b.Description != "packs" ||
		len(b.AccessEndpoints) != 1 || !strings.HasSuffix(*b.Arn, ":app-block-builder/packer") {
		t.Errorf("made: got %+v", b)
	}
	_, err = create(nil)
	wantCode(t, err, "ResourceAlreadyExistsException", "packer")
	_, err = create(func(in *appstream.CreateAppBlockBuilderInput) {
		in.Name, in.VpcConfig.SubnetIds = aws.String("x"), zones[:1]
	})
	wantCode(t, err, "InvalidParameterCombinationException", "vpcConfig.subnetIds")
	_, err = create(func(in *appstream.CreateAppBlockBuilderInput) { in.Name, in.Platform = aws.String("x"), "RHEL8" })
	wantCode(t, err, "ValidationException", "platform")
	_, err = create(func(in *appstream.CreateAppBlockBuilderInput) {
		in.Name, in.VpcConfig = aws.String("x"), &astypes.VpcConfig{SubnetIds: zones, SecurityGroupIds: []string{"sg-0123456789abcdef0"}}
	})
	wantCode(t, err, "ResourceNotFoundException", "sg-0123456789abcdef0")
	for _, change := range []func(*appstream.CreateImageBuilderInput){
		func(in *appstream.CreateImageBuilderInput) { in.DomainJoinInfo = &astypes.DomainJoinInfo{} },
		func(in *appstream.CreateImageBuilderInput) { in.RootVolumeConfig = &astypes.VolumeConfig{} },
		func(in *appstream.CreateImageBuilderInput) { in.SoftwaresToInstall = []string{"x"} },
		func(in *appstream.CreateImageBuilderInput) { in.AppstreamAgentVersion = aws.String("01-01-2020") },
	} {
		in := &appstream.CreateImageBuilderInput{Name: aws.String("x"), ImageName: aws.String("Penstock-Base"), InstanceType: aws.String("stream.standard.small")}
		change(in)
		_, err := as.CreateImageBuilder(ctx, in)
		wantCode(t, err, "OperationNotPermittedException", "this version cannot honour it")
	}
	_, err = as.CreateImageBuilder(ctx, &appstream.CreateImageBuilderInput{Name: aws.String("x"), InstanceType: aws.String("stream.standard.small")})
	wantCode(t, err, "InvalidParameterCombinationException", "imageName")

	start := func() error {
		_, err := as.StartAppBlockBuilder(ctx, &appstream.StartAppBlockBuilderInput{Name: b.Name})
		return err
	}
	wantCode(t, start(), "OperationNotPermittedException", "not associated with an app block")
	joined, err := as.AssociateAppBlockBuilderAppBlock(ctx, &appstream.AssociateAppBlockBuilderAppBlockInput{AppBlockArn: &blocks[0], AppBlockBuilderName: b.Name})
	if err != nil || *joined.AppBlockBuilderAppBlockAssociation.AppBlockArn != blocks[0] {
		t.Fatalf("associated: got %+v (%v)", joined, err)
	}
	_, err = as.AssociateAppBlockBuilderAppBlock(ctx, &appstream.AssociateAppBlockBuilderAppBlockInput{AppBlockArn: &blocks[1], AppBlockBuilderName: b.Name})
	wantCode(t, err, "LimitExceededException", "app block c")
	listed, err := as.DescribeAppBlockBuilderAppBlockAssociations(ctx, &appstream.DescribeAppBlockBuilderAppBlockAssociationsInput{AppBlockArn: &blocks[0]})
	if err != nil || len(listed.AppBlockBuilderAppBlockAssociations) != 1 || *listed.AppBlockBuilderAppBlockAssociations[0].AppBlockBuilderName != "packer" {
		t.Errorf("associations: got %+v (%v)", listed, err)
	}
	if err := start(); err != nil {
		t.Fatal(err)
	}
	state := func(want astypes.AppBlockBuilderState) {
		t.Helper()
		until(t, "the app block builder to be "+string(want), func() bool {
			out, err := as.DescribeAppBlockBuilders(ctx, &appstream.DescribeAppBlockBuildersInput{Names: []string{"packer"}})
			if err != nil {
				t.Fatal(err)
			}
			return out.AppBlockBuilders[0].State == want
		})
	}
	state(astypes.AppBlockBuilderStateRunning)
	_, err = as.UpdateAppBlockBuilder(ctx, &appstream.UpdateAppBlockBuilderInput{Name: b.Name, InstanceType: aws.String("stream.standard.large")})
	wantCode(t, err, "OperationNotPermittedException", "RUNNING")
	_, err = as.DeleteAppBlockBuilder(ctx, &appstream.DeleteAppBlockBuilderInput{Name: b.Name})
	wantCode(t, err, "OperationNotPermittedException", "RUNNING")
	_, err = as.CreateAppBlockBuilderStreamingURL(ctx, &appstream.CreateAppBlockBuilderStreamingURLInput{AppBlockBuilderName: b.Name, Validity: aws.Int64(604801)})
	wantCode(t, err, "ValidationException", "validity")
	u, err := as.CreateAppBlockBuilderStreamingURL(ctx, &appstream.CreateAppBlockBuilderStreamingURLInput{AppBlockBuilderName: b.Name})
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(*u.Expires); left < 50*time.Minute || left > time.Hour {
		t.Errorf("the URL is good for %v, want about an hour", left)
	}
	l := s.visit(*u.StreamingURL).mustLaunch("Desktop")
	v := s.connect(l.ViewerURL, "")
	v.mustLive(t)
	if ss := s.sessions(); len(ss) != 1 || ss[0].Builder != "app-block-builder/packer" || ss[0].EndpointID != s.info.VPCEndpointID || ss[0].UserID != "AppBlockBuilderAdmin" {
		t.Errorf("sessions: got %+v", ss)
	}
	if _, err := as.StopAppBlockBuilder(ctx, &appstream.StopAppBlockBuilderInput{Name: b.Name}); err != nil {
		t.Fatal(err)
	}
	v.mustEnd(t)
	state(astypes.AppBlockBuilderStateStopped)
	updated, err := as.UpdateAppBlockBuilder(ctx, &appstream.UpdateAppBlockBuilderInput{
		Name: b.Name, InstanceType: aws.String("stream.standard.large"), AttributesToDelete: []astypes.AppBlockBuilderAttribute{astypes.AppBlockBuilderAttributeAccessEndpoints},
	})
	if err != nil || *updated.AppBlockBuilder.InstanceType != "stream.standard.large" || len(updated.AppBlockBuilder.AccessEndpoints) != 0 {
		t.Errorf("updated: got %+v (%v)", updated, err)
	}
	_, err = as.DeleteAppBlockBuilder(ctx, &appstream.DeleteAppBlockBuilderInput{Name: b.Name})
	wantCode(t, err, "ResourceInUseException", "app block c")
	_, err = as.DeleteAppBlock(ctx, &appstream.DeleteAppBlockInput{Name: aws.String("c")})
	wantCode(t, err, "ResourceInUseException", "packer")
	if _, err := as.DisassociateAppBlockBuilderAppBlock(ctx, &appstream.DisassociateAppBlockBuilderAppBlockInput{AppBlockArn: &blocks[0], AppBlockBuilderName: b.Name}); err != nil {
		t.Error(err)
	}
	if _, err := as.DeleteAppBlockBuilder(ctx, &appstream.DeleteAppBlockBuilderInput{Name: b.Name}); err != nil {
		t.Error(err)
	}
	_, err = as.DescribeAppBlockBuilders(ctx, &appstream.DescribeAppBlockBuildersInput{Names: []string{"packer"}})
	wantCode(t, err, "ResourceNotFoundException", "packer")
	for _, name := range []string{"a", "b", "c"} {
		if _, err := as.DeleteAppBlock(ctx, &appstream.DeleteAppBlockInput{Name: &name}); err != nil {
			t.Error(err)
		}
	}
}

// TestBuildersWithinQuotaAndRoles: the quotas file bounds builders; the role for their instances, and for those of fleets, must be there, trust
// AppStream and be the caller's to pass.
func TestBuildersWithinQuotaAndRoles(t *testing.T) {
	needE2E(t)
	t.Parallel()
	limits := filepath.Join(t.TempDir(), "limits.json")
	if err := os.WriteFile(limits, []byte(`{"imageBuilders": 1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, t.TempDir(), "--no-demo", "--limits", limits)
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	as, _ := s.sdk()
	root := iam.NewFromConfig(s.asRoot())
	roleFor := func(name, service string) string {
		t.Helper()
		trust := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"` + service + `"},"Action":"sts:AssumeRole"}]}`
		out, err := root.CreateRole(ctx, &iam.CreateRoleInput{RoleName: &name, Path: aws.String("/machines/"), AssumeRolePolicyDocument: &trust})
		if err != nil {
			t.Fatal(err)
		}
		return *out.Role.Arn
	}
	trusts, other := roleFor("trusts", "appstream.amazonaws.com"), roleFor("other", "ec2.amazonaws.com")
	create := func(as *appstream.Client, name, role string) error {
		in := &appstream.CreateImageBuilderInput{Name: &name, ImageName: aws.String("Penstock-Base"), InstanceType: aws.String("stream.standard.small")}
		if role != "" {
			in.IamRoleArn = &role
		}
		_, err := as.CreateImageBuilder(ctx, in)
		return err
	}
	fleet := func(role string) error {
		_, err := as.CreateFleet(ctx, &appstream.CreateFleetInput{
			Name: aws.String("f"), ImageName: aws.String("Penstock-Base"), InstanceType: aws.String("stream.standard.small"), IamRoleArn: &role,
			ComputeCapacity: &astypes.ComputeCapacity{DesiredInstances: aws.Int32(1)},
		})
		return err
	}
	for role, text := range map[string]string{
		other: "does not let appstream.amazonaws.com assume it", strings.Replace(trusts, "/machines/", "/", 1): "no role with this ARN", trusts + "x": "no role with this ARN",
	} {
		wantCode(t, create(as, "one", role), "InvalidRoleException", text)
		wantCode(t, fleet(role), "InvalidRoleException", text)
	}
	config, _ := s.newUser(ctx, root, "maker", `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":"appstream:*","Resource":["arn:aws:appstream:*:*:image-builder/one","arn:aws:appstream:*:*:image/*"]}]}`)
	maker := appstream.NewFromConfig(config)
	wantCode(t, create(maker, "one", trusts), "AccessDeniedException", "iam:PassRole")
	wantCode(t, create(maker, "two", ""), "AccessDeniedException", "appstream:CreateImageBuilder on resource: arn:aws:appstream:us-east-1:"+s.info.AccountID+":image-builder/two")
	if err := fleet(trusts); err != nil {
		t.Error(err)
	}
	if err := create(as, "one", trusts); err != nil {
		t.Fatal(err)
	}
	wantCode(t, create(as, "two", ""), "LimitExceededException", "quota of 1 image builders")
	s.untilImageBuilder("one", "RUNNING")
	if _, err := maker.CreateImageBuilderStreamingURL(ctx, &appstream.CreateImageBuilderStreamingURLInput{Name: aws.String("one")}); err != nil {
		t.Errorf("a URL by one who may: %v", err)
	}
	_, err := maker.CreateAppBlockBuilderStreamingURL(ctx, &appstream.CreateAppBlockBuilderStreamingURLInput{AppBlockBuilderName: aws.String("one")})
	wantCode(t, err, "AccessDeniedException", ":app-block-builder/one")
	if _, err := maker.DeleteImageBuilder(ctx, &appstream.DeleteImageBuilderInput{Name: aws.String("one")}); err != nil {
		t.Error(err)
	}
}

const terraformBuilder = `
variable "endpoint" {}
variable "subnet" {}
variable "team" { default = "blue" }

resource "aws_appstream_image_builder" "office" {
  name          = "office"
  description   = "ours"
  display_name  = "Office"
  image_name    = "Penstock-Base"
  instance_type = "stream.standard.medium"
  access_endpoint {
    endpoint_type = "STREAMING"
    vpce_id       = var.endpoint
  }
  vpc_config {
    subnet_ids = [var.subnet]
  }
  tags = { team = var.team }
}

output "state" { value = aws_appstream_image_builder.office.state }
output "image" { value = aws_appstream_image_builder.office.image_arn }
`

// TestTerraformImageBuilder applies an image builder with Terraform, wants an empty plan, changes a tag and destroys it.
func TestTerraformImageBuilder(t *testing.T) {
	needE2E(t)
	t.Parallel()
	terraform.Need(t)
	s := start(t, t.TempDir())
	as, _ := s.sdk()
	keys, err := as.Options().Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	run := terraform.Prepare(t, s.info.APIURL, keys.AccessKeyID, keys.SecretAccessKey, terraformBuilder)
	with := func(want int, command string, args ...string) string {
		t.Helper()
		return run(want, slices.Concat([]string{command, "-no-color", "-var", "endpoint=" + s.info.VPCEndpointID, "-var", "subnet=" + s.info.EndpointAddresses[0].SubnetID}, args)...)
	}
	run(0, "init", "-no-color")
	if out := with(0, "apply", "-auto-approve"); !strings.Contains(out, `state = "RUNNING"`) || !strings.Contains(out, ":image/Penstock-Base") {
		t.Errorf("applied: %s", out)
	}
	with(0, "plan", "-detailed-exitcode")
	with(0, "apply", "-auto-approve", "-var", "team=red")
	with(0, "plan", "-detailed-exitcode", "-var", "team=red")
	with(0, "destroy", "-auto-approve")
	if left := s.imageBuilders(); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
}
