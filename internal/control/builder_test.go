package control_test

import (
	"context"
	"errors"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/control"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// subnets writes two subnets of VPC a in two zones, a third one beside the first, one of VPC b, and a security group of each VPC.
func (r *rig) subnets() {
	r.t.Helper()
	_, err := r.store.Update(r.ctx, func(tx state.Tx) error {
		var errs []error
		for id, in := range map[string][2]string{"a1": {"vpc-a", "1a"}, "a2": {"vpc-a", "1b"}, "a3": {"vpc-a", "1a"}, "b1": {"vpc-b", "1b"}} {
			errs = append(errs, vpc.Subnets().Put(tx, &vpc.Subnet{ID: vpc.SubnetID("subnet-" + id), VPC: vpc.VPCID(in[0]), Zone: in[1]}))
		}
		for _, v := range []string{"a", "b"} {
			errs = append(errs, vpc.SecurityGroups().Put(tx, &vpc.SecurityGroup{ID: vpc.SecurityGroupID("sg-" + v), VPC: vpc.VPCID("vpc-" + v), Name: v}))
		}
		return errors.Join(errs...)
	})
	r.must(err)
}

func (r *rig) untilBuilder(id appstream.BuilderID, want appstream.BuilderState) *appstream.Builder {
	r.t.Helper()
	var b *appstream.Builder
	r.until(string(id)+" to be "+string(want), func(rd state.Reader) bool {
		var err error
		var ok bool
		b, ok, err = appstream.Builders.Get(rd, string(id))
		return err == nil && ok && b.State == want
	})
	return b
}

func (r *rig) untilNoBuilder(id appstream.BuilderID) {
	r.t.Helper()
	r.until(string(id)+" to be gone", func(rd state.Reader) bool {
		_, ok, err := appstream.Builders.Get(rd, string(id))
		return err == nil && !ok
	})
}

func office() appstream.Builder {
	return appstream.Builder{Name: "office", ImageName: control.BaseImage, InstanceType: "small"}
}

func packer() appstream.Builder {
	return appstream.Builder{Name: "packer", Platform: "WINDOWS_SERVER_2019", InstanceType: "small", SubnetIDs: []string{"subnet-a1", "subnet-a2"}}
}

// visit makes a streaming URL of a builder and opens it.
func (r *rig) visit(kind appstream.BuilderKind, name string) appstream.Visitor {
	r.t.Helper()
	u, _, err := r.CreateBuilderStreamingURL(r.ctx, kind, name, nil)
	r.must(err)
	p, err := url.Parse(u)
	r.must(err)
	v, err := r.OpenStreamingURL(p.Query().Get("parameters"), "")
	r.must(err)
	return v
}

// work launches the desktop of a builder.
func (r *rig) work(v appstream.Visitor) (*appstream.Session, error) {
	ctx, cancel := context.WithTimeout(r.ctx, 20*time.Second)
	defer cancel()
	s, err := r.Launch(ctx, control.LaunchRequest{Visitor: v, Application: control.Desktop})
	if err != nil {
		return nil, err
	}
	return r.Ready(r.ctx, s.ID)
}

func TestBuildersRefuseBadInput(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.subnets()
	stream := func(id appstream.EndpointID) []appstream.AccessEndpoint {
		return []appstream.AccessEndpoint{{EndpointType: "STREAMING", VpceID: string(id)}}
	}
	other := r.endpoint(1, func(e *vpc.Endpoint) { e.Service = "com.amazonaws.us-east-1.appstream.api" })
	for name, tc := range map[string]struct {
		change func(*appstream.Builder) // of a good builder
		app    bool                     // of an app block builder
		kind   fault.Kind
		text   string // member or resource, and reason
	}{
		"name":                     {func(b *appstream.Builder) { b.Name = "-x" }, false, fault.Invalid, "name: "},
		"no such image":            {func(b *appstream.Builder) { b.ImageName = "other" }, false, fault.NotFound, "image other"},
		"two subnets":              {func(b *appstream.Builder) { b.SubnetIDs = []string{"subnet-a1", "subnet-a2"} }, false, fault.Combination, "vpcConfig.subnetIds"},
		"groups without a subnet":  {func(b *appstream.Builder) { b.SecurityGroupIDs = []string{"sg-a"} }, false, fault.Combination, "vpcConfig.subnetIds"},
		"no such subnet":           {func(b *appstream.Builder) { b.SubnetIDs = []string{"subnet-x"} }, false, fault.NotFound, "subnet subnet-x"},
		"no such group":            {func(b *appstream.Builder) { b.SubnetIDs, b.SecurityGroupIDs = []string{"subnet-a1"}, []string{"sg-x"} }, false, fault.NotFound, "security group sg-x"},
		"group of another VPC":     {func(b *appstream.Builder) { b.SubnetIDs, b.SecurityGroupIDs = []string{"subnet-a1"}, []string{"sg-b"} }, false, fault.Combination, "vpcConfig.securityGroupIds"},
		"endpoint of the API":      {func(b *appstream.Builder) { b.AccessEndpoints = stream(other) }, false, fault.Combination, "not for appstream.streaming"},
		"no such endpoint":         {func(b *appstream.Builder) { b.AccessEndpoints = stream("vpce-x") }, false, fault.NotFound, "vpce-x"},
		"endpoint without an ID":   {func(b *appstream.Builder) { b.AccessEndpoints = stream("") }, false, fault.Missing, "accessEndpoints.vpceId"},
		"another type of endpoint": {func(b *appstream.Builder) { b.AccessEndpoints = []appstream.AccessEndpoint{{EndpointType: "X"}} }, false, fault.Invalid, "accessEndpoints.endpointType"},
		"platform":                 {func(b *appstream.Builder) { b.Platform = "AMAZON_LINUX2" }, true, fault.Combination, "platform"},
		"one subnet":               {func(b *appstream.Builder) { b.SubnetIDs = b.SubnetIDs[:1] }, true, fault.Combination, "vpcConfig.subnetIds"},
		"two subnets of one zone":  {func(b *appstream.Builder) { b.SubnetIDs = []string{"subnet-a1", "subnet-a3"} }, true, fault.Combination, "Availability Zone 1a"},
		"subnets of two VPCs":      {func(b *appstream.Builder) { b.SubnetIDs = []string{"subnet-a1", "subnet-b1"} }, true, fault.Combination, "VPC vpc-b"},
		"app block and endpoint":   {func(b *appstream.Builder) { b.AccessEndpoints = stream(other) }, true, fault.Combination, "not for appstream.streaming"},
	} {
		b := office()
		create := r.CreateImageBuilder
		if tc.app {
			b, create = packer(), r.CreateAppBlockBuilder
		}
		tc.change(&b)
		if _, err := create(r.ctx, b); !fault.Is(err, tc.kind) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: got %v, want fault of kind %d with %q", name, err, tc.kind, tc.text)
		}
	}
	for _, kind := range []appstream.BuilderKind{appstream.ImageBuilder, appstream.AppBlockBuilder} {
		_, starts := r.StartBuilder(r.ctx, kind, "none")
		_, stops := r.StopBuilder(r.ctx, kind, "none")
		_, _, url := r.CreateBuilderStreamingURL(r.ctx, kind, "none", nil)
		_, lists := r.Builders(r.ctx, kind, []string{"none"})
		for name, err := range map[string]error{"start": starts, "stop": stops, "URL": url, "list": lists} {
			if !fault.Is(err, fault.NotFound) || !strings.Contains(err.Error(), kind.Title()+" none") {
				t.Errorf("%s of no %s: got %v", name, kind, err)
			}
		}
	}
}

// TestImageBuilderStates walks an image builder through its states, with what each of them refuses.
func TestImageBuilderStates(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.subnets()
	endpoint := r.endpoint(1, nil)
	b := office()
	b.SubnetIDs, b.SecurityGroupIDs = []string{"subnet-a1"}, []string{"sg-a"}
	b.AccessEndpoints = []appstream.AccessEndpoint{{EndpointType: "STREAMING", VpceID: string(endpoint)}}
	made, err := r.CreateImageBuilder(r.ctx, b)
	if r.must(err); made.State != appstream.BuilderPending {
		t.Errorf("made: got %s, want PENDING", made.State)
	}
	if _, err := r.CreateImageBuilder(r.ctx, b); !fault.Is(err, fault.AlreadyExists) {
		t.Errorf("made twice: got %v", err)
	}
	r.untilBuilder("image-builder/office", appstream.BuilderRunning)

	v := r.visit(appstream.ImageBuilder, "office")
	offers, err := r.Offers(r.ctx, v)
	if r.must(err); len(offers) != 1 || offers[0].Stack.Name != "office" || len(offers[0].Applications) != 1 || offers[0].Applications[0].Name != control.Desktop || offers[0].Unavailable != "" {
		t.Errorf("offered: got %+v", offers)
	}
	if _, err := r.Launch(r.ctx, control.LaunchRequest{Visitor: v, Application: "editor"}); !fault.Is(err, fault.NotPermitted) {
		t.Errorf("another application: got %v", err)
	}
	s, err := r.work(v)
	r.must(err)
	if s.State != appstream.SessionActive || s.Endpoint != endpoint || s.Origin != "http://10.0.0.1:443" || s.Builder != "image-builder/office" || s.Stack+s.Fleet != "" {
		t.Errorf("session: got %+v", s)
	}
	if u, err := r.ViewerURL(r.ctx, s, netip.Addr{}); err != nil || !strings.HasPrefix(u, "http://10.0.0.1:443/#t=") {
		t.Errorf("viewer URL: got %.40s (%v)", u, err)
	}
	if same, err := r.work(r.visit(appstream.ImageBuilder, "office")); err != nil || same.ID != s.ID {
		t.Errorf("another URL: got %+v (%v), want the same session", same, err)
	}

	// Its application ends, and with it session and instance: the builder goes on with another one.
	r.compute.events <- appstream.InstanceEvent{Instance: s.Instance, Session: s.ID, Kind: appstream.SessionOver, Code: appstream.EndApplication}
	r.untilEnded(s.ID)
	next, err := r.work(v)
	if r.must(err); next.ID == s.ID || next.Instance == s.Instance {
		t.Errorf("after the end of a session: got %s on %s again", next.ID, next.Instance)
	}
	if _, stopped := r.compute.stopCode(s.Instance); !stopped {
		t.Error("the first instance still runs")
	}

	if _, err := r.StartBuilder(r.ctx, appstream.ImageBuilder, "office"); err != nil {
		t.Errorf("start of what runs: %v", err)
	}
	stopping, err := r.StopBuilder(r.ctx, appstream.ImageBuilder, "office")
	if r.must(err); stopping.State != appstream.BuilderStopping {
		t.Errorf("stopped: got %s, want STOPPING", stopping.State)
	}
	if e := r.untilEnded(next.ID); e.EndCode != appstream.EndByAdministrator {
		t.Errorf("the session ended with code %d", e.EndCode)
	}
	r.untilBuilder("image-builder/office", appstream.BuilderStopped)
	if _, _, err := r.CreateBuilderStreamingURL(r.ctx, appstream.ImageBuilder, "office", nil); !fault.Is(err, fault.NotPermitted) {
		t.Errorf("URL of a stopped one: got %v", err)
	}
	if _, err := r.work(v); !fault.Is(err, fault.NotAvailable) {
		t.Errorf("work on a stopped one: got %v", err)
	}
	if offers, err := r.Offers(r.ctx, v); err != nil || len(offers) != 1 || !strings.Contains(offers[0].Unavailable, "STOPPED") {
		t.Errorf("offered of a stopped one: got %+v (%v)", offers, err)
	}
	_, err = r.StartBuilder(r.ctx, appstream.ImageBuilder, "office")
	r.must(err)
	r.untilBuilder("image-builder/office", appstream.BuilderRunning)
	_, err = r.DeleteImageBuilder(r.ctx, "office")
	r.must(err)
	r.untilNoBuilder("image-builder/office")

	// One made later with its name is another one: an old URL does not open it.
	b.AccessEndpoints = nil
	_, err = r.CreateImageBuilder(r.ctx, b)
	r.must(err)
	r.untilBuilder("image-builder/office", appstream.BuilderRunning)
	if _, err := r.work(v); !fault.Is(err, fault.NotFound) {
		t.Errorf("the URL of the one that was deleted: got %v", err)
	}
	if s, err := r.work(r.visit(appstream.ImageBuilder, "office")); err != nil || s.Endpoint != appstream.InternetEndpoint {
		t.Errorf("without an endpoint: got %+v (%v)", s, err)
	}
}

// TestBuildersOnTheirWayAreLeftAlone: nothing may be asked of a builder that changes its state.
func TestBuildersOnTheirWayAreLeftAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, err := r.store.Update(r.ctx, func(tx state.Tx) error {
		var errs []error
		for _, st := range []appstream.BuilderState{appstream.BuilderPending, appstream.BuilderStopping, appstream.BuilderDeleting} {
			errs = append(errs, appstream.Builders.Put(tx, &appstream.Builder{
				Kind: appstream.ImageBuilder, Name: string(st), State: st, RetryAt: time.Now().Add(time.Hour),
			}))
		}
		return errors.Join(errs...)
	})
	r.must(err)
	// STOPPING and DELETING without an instance are over at once; PENDING waits for its next try.
	r.untilBuilder("image-builder/STOPPING", appstream.BuilderStopped)
	r.untilNoBuilder("image-builder/DELETING")
	_, stops := r.StopBuilder(r.ctx, appstream.ImageBuilder, "PENDING")
	_, deletes := r.DeleteImageBuilder(r.ctx, "PENDING")
	_, _, url := r.CreateBuilderStreamingURL(r.ctx, appstream.ImageBuilder, "PENDING", nil)
	for name, tc := range map[string]struct {
		err  error
		kind fault.Kind
	}{"stop": {stops, fault.Conflict}, "delete": {deletes, fault.Conflict}, "URL": {url, fault.NotPermitted}} {
		if !fault.Is(tc.err, tc.kind) || !strings.Contains(tc.err.Error(), "PENDING") {
			t.Errorf("%s of one that is PENDING: got %v", name, tc.err)
		}
	}
}

func TestBuilderThatCannotStart(t *testing.T) {
	t.Parallel()
	compute := newFakeCompute()
	compute.failing = true
	r := newRigAt(t, filepath.Join(t.TempDir(), "state.db"), compute)
	r.subnets()
	_, err := r.CreateImageBuilder(r.ctx, office())
	r.must(err)
	_, err = r.CreateAppBlock(r.ctx, appstream.AppBlock{Name: "k", S3Bucket: "bucket"})
	r.must(err)
	_, err = r.CreateAppBlockBuilder(r.ctx, packer())
	r.must(err)
	_, err = r.AssociateAppBlock(r.ctx, "packer", appstream.ARN("us-east-1", account, "app-block", "k"))
	r.must(err)
	_, err = r.StartBuilder(r.ctx, appstream.AppBlockBuilder, "packer")
	r.must(err)
	failed := r.untilBuilder("image-builder/office", appstream.BuilderFailed)
	if e := failed.Errors; len(e) != 1 || e[0].Code != "FLEET_INSTANCE_PROVISIONING_FAILURE" || !strings.Contains(e[0].Message, "no X server") || e[0].Time.IsZero() {
		t.Errorf("errors: got %+v", e)
	}
	if b := r.untilBuilder("app-block-builder/packer", appstream.BuilderStopped); len(b.Errors) != 1 {
		t.Errorf("errors of an app block builder that did not start: got %+v", b.Errors)
	}
	compute.mu.Lock()
	compute.failing = false
	compute.mu.Unlock()
	_, err = r.StartBuilder(r.ctx, appstream.ImageBuilder, "office")
	r.must(err)
	if b := r.untilBuilder("image-builder/office", appstream.BuilderRunning); len(b.Errors) != 0 {
		t.Errorf("errors of a running builder: got %+v", b.Errors)
	}

	// The network goes while it is stopped.
	b := office()
	b.Name, b.SubnetIDs = "wired", []string{"subnet-a1"}
	_, err = r.CreateImageBuilder(r.ctx, b)
	r.must(err)
	r.untilBuilder("image-builder/wired", appstream.BuilderRunning)
	_, err = r.StopBuilder(r.ctx, appstream.ImageBuilder, "wired")
	r.must(err)
	r.untilBuilder("image-builder/wired", appstream.BuilderStopped)
	_, err = r.store.Update(r.ctx, func(tx state.Tx) error { return vpc.Subnets().Delete(tx, "subnet-a1") })
	r.must(err)
	_, err = r.StartBuilder(r.ctx, appstream.ImageBuilder, "wired")
	r.must(err)
	if b := r.untilBuilder("image-builder/wired", appstream.BuilderFailed); len(b.Errors) != 1 || b.Errors[0].Code != "SUBNET_NOT_FOUND" {
		t.Errorf("errors without its subnet: got %+v", b.Errors)
	}
	_, err = r.DeleteImageBuilder(r.ctx, "wired")
	r.must(err)
	r.untilNoBuilder("image-builder/wired")
}

// roles is a service role whose rights a test sets.
type roles struct {
	mu      sync.Mutex
	lacking string // the only action that it lacks
	machine string // why machine roles cannot be used
}

func (r *roles) set(lacking string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lacking = lacking
}

func (r *roles) AsServiceRole(_ state.Reader, action string) (*iam.RoleProblem, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lacking == "" || action != r.lacking {
		return nil, nil
	}
	return &iam.RoleProblem{Action: action, Reason: "no policy allows it"}, nil
}

func (r *roles) MachineRole(state.Reader, string) (string, error) { return r.machine, nil }

func (r *roles) DecidesServiceRole(k state.Kind) bool { return k == "role" }

// TestRunningBuilderWaitsForTheRole: one that runs and needs another instance says what it lacks, and goes on when that is mended.
func TestRunningBuilderWaitsForTheRole(t *testing.T) {
	t.Parallel()
	role := &roles{machine: "there is no role with this ARN"}
	r := newRigWith(t, filepath.Join(t.TempDir(), "state.db"), newFakeCompute(), func(o *control.Options) { o.ServiceRole = role })
	b := office()
	b.IamRoleArn = "arn:aws:iam::" + account + ":role/none"
	if _, err := r.CreateImageBuilder(r.ctx, b); !fault.Is(err, fault.InvalidRole) || !strings.Contains(err.Error(), "iamRoleArn "+b.IamRoleArn) {
		t.Errorf("a role that does not exist: got %v", err)
	}
	_, err := r.CreateImageBuilder(r.ctx, office())
	r.must(err)
	r.untilBuilder("image-builder/office", appstream.BuilderRunning)
	v := r.visit(appstream.ImageBuilder, "office")
	s, err := r.work(v)
	r.must(err)
	role.set("ec2:CreateNetworkInterface")
	r.must(r.ExpireSession(r.ctx, s.ID))
	r.untilEnded(s.ID)
	r.until("the builder's error", func(rd state.Reader) bool {
		b, ok, err := appstream.Builders.Get(rd, "image-builder/office")
		return err == nil && ok && b.State == appstream.BuilderRunning && len(b.Errors) == 1 && b.Errors[0].Code == "IAM_SERVICE_ROLE_MISSING_ENI_CREATE_ACTION"
	})
	ctx, cancel := context.WithTimeout(r.ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := r.Launch(ctx, control.LaunchRequest{Visitor: v, Application: control.Desktop}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("launch without an instance: got %v, want it to wait", err)
	}
	role.set("")
	_, err = r.store.Update(r.ctx, func(tx state.Tx) error { return tx.Put("role", "r", []byte("{}"), nil) })
	r.must(err)
	if next, err := r.work(v); err != nil || next.ID == s.ID {
		t.Errorf("with the role mended: got %+v (%v)", next, err)
	}
	if b := r.untilBuilder("image-builder/office", appstream.BuilderRunning); len(b.Errors) != 0 {
		t.Errorf("errors stay: %+v", b.Errors)
	}
}

// TestEndpointDeletedUnderABuilder: its session is told, and nobody comes to the builder by another way.
func TestEndpointDeletedUnderABuilder(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	endpoint := r.endpoint(1, nil)
	b := office()
	b.AccessEndpoints = []appstream.AccessEndpoint{{EndpointType: "STREAMING", VpceID: string(endpoint)}}
	_, err := r.CreateImageBuilder(r.ctx, b)
	r.must(err)
	r.untilBuilder("image-builder/office", appstream.BuilderRunning)
	v := r.visit(appstream.ImageBuilder, "office")
	s, err := r.work(v)
	r.must(err)
	_, err = r.store.Update(r.ctx, func(tx state.Tx) error { return vpc.Endpoints().Delete(tx, string(endpoint)) })
	r.must(err)
	if e := r.untilEnded(s.ID); e.EndCode != appstream.EndEndpointGone {
		t.Errorf("ended with code %d, want %d", e.EndCode, appstream.EndEndpointGone)
	}
	if _, err := r.work(v); !fault.Is(err, fault.NotAvailable) || !strings.Contains(err.Error(), string(endpoint)) {
		t.Errorf("without its endpoint: got %v", err)
	}
}

func TestQuotasOfBuilders(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.Quotas = control.Quotas{ImageBuilders: 3}
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			b := office()
			b.Name = string(rune('a' + i))
			_, errs[i] = r.CreateImageBuilder(r.ctx, b)
		})
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		switch {
		case err == nil:
			made++
		case !fault.Is(err, fault.Limit) || !strings.Contains(err.Error(), "quota of 3 image builders"):
			t.Errorf("got %v", err)
		}
	}
	if made != 3 {
		t.Errorf("%d were made, want 3", made)
	}
	for i := range 11 {
		_, err := r.CreateAppBlock(r.ctx, appstream.AppBlock{Name: string(rune('a' + i)), S3Bucket: "bucket"})
		if want := i == 10; want != fault.Is(err, fault.Limit) {
			t.Errorf("app block %d: got %v", i, err)
		}
	}
}

func TestAppBlockBuilders(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.subnets()
	endpoint := r.endpoint(1, nil)
	for _, name := range []string{"k", "l"} {
		_, err := r.CreateAppBlock(r.ctx, appstream.AppBlock{Name: name, S3Bucket: "bucket"})
		r.must(err)
	}
	arn := func(name string) string { return appstream.ARN("us-east-1", account, "app-block", name) }
	if _, err := r.CreateAppBlock(r.ctx, appstream.AppBlock{Name: "k"}); !fault.Is(err, fault.AlreadyExists) {
		t.Errorf("app block made twice: got %v", err)
	}
	made, err := r.CreateAppBlockBuilder(r.ctx, packer())
	if r.must(err); made.State != appstream.BuilderStopped {
		t.Errorf("made: got %s, want STOPPED", made.State)
	}
	refused := func(what string, err error, kind fault.Kind, text string) {
		t.Helper()
		if !fault.Is(err, kind) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: got %v, want fault of kind %d with %q", what, err, kind, text)
		}
	}
	_, err = r.StartBuilder(r.ctx, appstream.AppBlockBuilder, "packer")
	refused("start without an app block", err, fault.NotPermitted, "not associated")
	_, err = r.AssociateAppBlock(r.ctx, "packer", arn("none"))
	refused("no such app block", err, fault.NotFound, "app block none")
	_, err = r.AssociateAppBlock(r.ctx, "packer", "arn:aws:appstream:us-east-1:"+account+":fleet/k")
	refused("the ARN of something else", err, fault.NotFound, "ARN")
	_, err = r.AssociateAppBlock(r.ctx, "none", arn("k"))
	refused("no such builder", err, fault.NotFound, "app block builder none")
	for range 2 { // a repeat is no error
		_, err = r.AssociateAppBlock(r.ctx, "packer", arn("k"))
		r.must(err)
	}
	_, err = r.AssociateAppBlock(r.ctx, "packer", arn("l"))
	refused("a second app block", err, fault.Limit, "app block k")
	refused("delete of an associated app block", r.DeleteAppBlock(r.ctx, "k"), fault.InUse, "packer")
	refused("delete of an associated builder", r.DeleteAppBlockBuilder(r.ctx, "packer"), fault.InUse, "app block k")
	for _, tc := range []struct {
		arn, name string
		want      int
	}{{"", "", 1}, {arn("k"), "", 1}, {arn("l"), "", 0}, {"", "packer", 1}, {arn("k"), "other", 0}, {"arn:x", "", 0}} {
		if bs, err := r.AssociatedBuilders(r.ctx, tc.arn, tc.name); err != nil || len(bs) != tc.want {
			t.Errorf("associations of %q and %q: got %d (%v), want %d", tc.arn, tc.name, len(bs), err, tc.want)
		}
	}

	b, err := r.UpdateAppBlockBuilder(r.ctx, "packer", control.BuilderChange{
		InstanceType: new("large"), SecurityGroupIDs: []string{"sg-a"}, AccessEndpoints: []appstream.AccessEndpoint{{EndpointType: "STREAMING", VpceID: string(endpoint)}},
	})
	if r.must(err); b.InstanceType != "large" || len(b.AccessEndpoints) != 1 || !slices.Equal(b.SubnetIDs, packer().SubnetIDs) {
		t.Errorf("updated: got %+v", b)
	}
	_, err = r.UpdateAppBlockBuilder(r.ctx, "packer", control.BuilderChange{SubnetIDs: []string{"subnet-a1"}})
	refused("one subnet", err, fault.Combination, "vpcConfig.subnetIds")
	_, err = r.UpdateAppBlockBuilder(r.ctx, "packer", control.BuilderChange{Delete: []string{"ACCESS_ENDPOINTS"}, AccessEndpoints: b.AccessEndpoints})
	refused("set and deleted", err, fault.Combination, "attributesToDelete")
	_, err = r.UpdateAppBlockBuilder(r.ctx, "none", control.BuilderChange{})
	refused("update of none", err, fault.NotFound, "none")

	starting, err := r.StartBuilder(r.ctx, appstream.AppBlockBuilder, "packer")
	if r.must(err); starting.State != appstream.BuilderStarting {
		t.Errorf("started: got %s, want STARTING", starting.State)
	}
	r.untilBuilder("app-block-builder/packer", appstream.BuilderRunning)
	_, err = r.UpdateAppBlockBuilder(r.ctx, "packer", control.BuilderChange{InstanceType: new("small")})
	refused("type of a running one", err, fault.NotPermitted, "display name and description")
	b, err = r.UpdateAppBlockBuilder(r.ctx, "packer", control.BuilderChange{DisplayName: new("Packer")})
	if r.must(err); b.DisplayName != "Packer" {
		t.Errorf("display name: got %q", b.DisplayName)
	}
	refused("disassociated while it runs", r.DisassociateAppBlock(r.ctx, "packer", arn("k")), fault.NotPermitted, "RUNNING")
	refused("deleted while it runs", r.DeleteAppBlockBuilder(r.ctx, "packer"), fault.NotPermitted, "RUNNING")
	s, err := r.work(r.visit(appstream.AppBlockBuilder, "packer"))
	if r.must(err); s.Endpoint != endpoint || s.UserID != "AppBlockBuilderAdmin" {
		t.Errorf("session: got %+v", s)
	}
	_, err = r.StopBuilder(r.ctx, appstream.AppBlockBuilder, "packer")
	r.must(err)
	r.untilBuilder("app-block-builder/packer", appstream.BuilderStopped)
	b, err = r.UpdateAppBlockBuilder(r.ctx, "packer", control.BuilderChange{Delete: []string{"ACCESS_ENDPOINTS", "VPC_CONFIGURATION_SECURITY_GROUP_IDS", "IAM_ROLE_ARN"}})
	if r.must(err); len(b.AccessEndpoints)+len(b.SecurityGroupIDs) > 0 {
		t.Errorf("after the deletion of attributes: got %+v", b)
	}
	refused("an app block that it is not associated with", r.DisassociateAppBlock(r.ctx, "packer", arn("l")), fault.NotFound, "app block l")
	r.must(r.DisassociateAppBlock(r.ctx, "packer", arn("k")))
	r.must(r.DeleteAppBlockBuilder(r.ctx, "packer"))
	refused("delete of none", r.DeleteAppBlockBuilder(r.ctx, "packer"), fault.NotFound, "packer")
	r.must(r.DeleteAppBlock(r.ctx, "k"))
	refused("delete of no app block", r.DeleteAppBlock(r.ctx, "k"), fault.NotFound, "app block k")
}

// TestBuildersAfterARestart: what ran gets another instance, what was on its way arrives.
func TestBuildersAfterARestart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	var id appstream.SessionID
	t.Run("before", func(t *testing.T) {
		r := newRigAt(t, path, newFakeCompute())
		for _, name := range []string{"runs", "stops"} {
			b := office()
			b.Name = name
			_, err := r.CreateImageBuilder(r.ctx, b)
			r.must(err)
			r.untilBuilder(appstream.ImageBuilder.ID(name), appstream.BuilderRunning)
		}
		s, err := r.work(r.visit(appstream.ImageBuilder, "runs"))
		r.must(err)
		id = s.ID
	})
	r := newRigAt(t, path, newFakeCompute()) // nothing runs any more
	r.untilEnded(id)
	s, err := r.work(r.visit(appstream.ImageBuilder, "runs"))
	if r.must(err); s.ID == id || s.State != appstream.SessionActive {
		t.Errorf("after a restart: got %+v", s)
	}
	_, err = r.StopBuilder(r.ctx, appstream.ImageBuilder, "stops")
	r.must(err)
	r.untilBuilder("image-builder/stops", appstream.BuilderStopped)
}
