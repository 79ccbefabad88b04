package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/control"
	"penstock.dev/penstock/internal/control/network"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// devJSON is DIR/dev.json, the contract with scripts (DESIGN.md, section 3).
type devJSON struct {
	APIURL            string            `json:"apiUrl"`
	PublicURL         string            `json:"publicUrl"`
	ConsoleURL        string            `json:"consoleUrl"`
	Region            string            `json:"region"`
	AccountID         string            `json:"accountId"`
	Net               string            `json:"net"`
	UserNetworks      []userNetwork     `json:"userNetworks"`
	PID               int               `json:"pid"`
	AdminSocket       string            `json:"adminSocket"`
	StackName         string            `json:"stackName,omitempty"`
	FleetName         string            `json:"fleetName,omitempty"`
	VPCID             string            `json:"vpcId,omitempty"`
	VPCEndpointID     string            `json:"vpcEndpointId,omitempty"`
	EndpointAddresses []endpointAddress `json:"endpointAddresses,omitempty"`
	StreamingURL      string            `json:"streamingUrl,omitempty"`
	DNSAddr           string            `json:"dnsAddr"`
	CABundle          string            `json:"caBundle,omitempty"` // root certificate, when anything speaks TLS
}

type userNetwork struct {
	CIDR string `json:"cidr"`
	Dial string `json:"dial"`
}

type endpointAddress struct {
	SubnetID string `json:"subnetId"`
	Private  string `json:"private"`
	Dial     string `json:"dial"`
}

func readDevJSON(dir string) (devJSON, error) {
	var d devJSON
	b, err := os.ReadFile(filepath.Join(dir, "dev.json"))
	if err != nil {
		return d, err
	}
	return d, json.Unmarshal(b, &d)
}

// demo records how far the making of the demo came, so that a restart goes on there and leaves alone what somebody changed or
// deleted since. Each step finds what an earlier start made and was ended before it could record.
type demo struct {
	VPC      vpc.VPCID
	Subnets  []vpc.SubnetID
	Group    vpc.SecurityGroupID
	Endpoint vpc.EndpointID
	Stack    bool // stack and fleet were made
}

var demos = state.Table[demo]{Kind: "demo", ID: func(*demo) string { return "demo" }}

const (
	demoStack     = "demo"
	demoFleet     = "demo"
	demoUser      = "demo"
	demoCIDR      = "10.77.0.0/16"
	demoInstances = 3
	demoURLLife   = int64(24 * 60 * 60)
)

// becomeReady makes the account's first resources, waits until they serve, writes the files and prints `ready`.
func (r *region) becomeReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	info := devJSON{
		APIURL: r.url(r.apiListener.Addr().String()), PublicURL: r.publicOrigin(), DNSAddr: r.dnsOn.Addr(),
		Region: devRegion, AccountID: r.identity.AccountID, Net: r.config.net, PID: os.Getpid(), AdminSocket: r.adminPath,
	}
	if r.authority != nil {
		info.CABundle = r.authority.Path()
	}
	info.ConsoleURL = info.PublicURL + "/console/"
	for _, n := range r.driver.UserNetworks() {
		info.UserNetworks = append(info.UserNetworks, userNetwork{CIDR: n.CIDR.String(), Dial: n.Dial.String()})
	}
	if _, err := r.network.EnsureDefaultVPC(ctx); err != nil {
		return fmt.Errorf("make the default VPC: %w", err)
	}
	if !r.config.noDemo {
		if err := r.demo(ctx, &info); err != nil {
			return fmt.Errorf("make the demo: %w", err)
		}
	}
	if err := r.writeFiles(info); err != nil {
		return err
	}
	r.announce(info)
	return nil
}

func (r *region) announce(info devJSON) {
	fmt.Printf("API      %s   (AWS_SHARED_CREDENTIALS_FILE=%s AWS_CONFIG_FILE=%s aws --endpoint-url %s …)\n", info.APIURL,
		filepath.Join(r.config.dataDir, "aws", "credentials"), filepath.Join(r.config.dataDir, "aws", "config"), info.APIURL)
	fmt.Printf("portal   %s\n", info.PublicURL)
	if info.CABundle != "" {
		fmt.Printf("trust    AWS_CA_BUNDLE=%s for clients; for browsers: penstock trust --data-dir %s   (docs/tls.md)\n", info.CABundle, r.config.dataDir)
	}
	for _, a := range info.EndpointAddresses {
		fmt.Printf("endpoint %s is dialled at %s (%s, %s)\n", a.Private, a.Dial, info.VPCEndpointID, a.SubnetID)
	}
	r.announceNames(info)
	if hint := r.driver.Hint("bin/penstock"); hint != "" {
		fmt.Println(hint)
	}
	if info.StreamingURL != "" {
		fmt.Printf("\nopen     %s\n\n", info.StreamingURL)
	}
	fmt.Println("ready")
	if err := notifyReady(); err != nil {
		r.log.Warn("the service manager was not told that the server is ready", "error", err)
	}
}

func (r *region) writeFiles(info devJSON) error {
	dir := filepath.Join(r.config.dataDir, "aws")
	r.rootMu.Lock()
	_, err := writeCredentials(r.config.dataDir, r.current)
	r.rootMu.Unlock()
	if err != nil {
		return err
	}
	config := "[default]\nregion = " + devRegion + "\noutput = json\n"
	if info.CABundle != "" {
		config += "ca_bundle = " + info.CABundle + "\n"
	}
	if err := writeFile(filepath.Join(dir, "config"), []byte(config)); err != nil {
		return err
	}
	b, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(r.config.dataDir, "dev.json"), append(b, '\n'))
}

// demo makes what was not made yet, waits for it, and adds it to info.
func (r *region) demo(ctx context.Context, info *devJSON) error {
	// The demo's stack is the first use of AppStream, by the account's root.
	if _, _, err := r.access.EnsureServiceRole(ctx, r.identity.root(), iam.Request{}); err != nil {
		return err
	}
	d := &demo{}
	err := r.store.View(ctx, func(rd state.Reader) error {
		had, ok, err := demos.Get(rd, demos.ID(d))
		if ok {
			d = had
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, step := range []func(context.Context, *demo) error{r.demoVPC, r.demoSubnets, r.demoGroup, r.demoEndpoint} {
		if err := r.demoStep(ctx, d, step); err != nil {
			return err
		}
	}
	present, err := r.awaitEndpoint(ctx, d.Endpoint)
	if err != nil || !present {
		return err
	}
	if err := r.demoStep(ctx, d, r.demoStack); err != nil {
		return err
	}
	if err := r.control.AwaitCapacity(ctx, demoFleet); err != nil {
		return err
	}
	info.VPCID, info.VPCEndpointID = string(d.VPC), string(d.Endpoint)
	err = r.store.View(ctx, func(rd state.Reader) error {
		as, err := r.network.EndpointAddresses(rd, d.Endpoint)
		for _, a := range as {
			info.EndpointAddresses = append(info.EndpointAddresses, endpointAddress{string(a.Subnet), a.Private.String(), a.Dial.Addr().String()})
		}
		return err
	})
	if err != nil {
		return err
	}
	u, _, err := r.control.CreateStreamingURL(ctx, control.StreamingURLRequest{
		Stack: demoStack, Fleet: demoFleet, UserID: demoUser, Validity: new(demoURLLife),
	})
	switch fault.KindOf(err) {
	case fault.NotFound, fault.NotPermitted, fault.NotAvailable:
		return nil // somebody changed the demo since: there is no URL to offer
	default:
	}
	if err == nil {
		info.StackName, info.FleetName, info.StreamingURL = demoStack, demoFleet, u
	}
	return err
}

// demoStep does one step and records it.
func (r *region) demoStep(ctx context.Context, d *demo, step func(context.Context, *demo) error) error {
	if err := step(ctx, d); err != nil {
		return err
	}
	_, err := r.store.Update(ctx, func(tx state.Tx) error { return demos.Put(tx, d) })
	return err
}

func (r *region) demoVPC(ctx context.Context, d *demo) error {
	if d.VPC != "" {
		return nil
	}
	made, err := r.network.DescribeVPCs(ctx, nil)
	if err != nil {
		return err
	}
	for _, v := range made {
		if v.CIDR.String() == demoCIDR && v.Tags["Name"] == "demo" {
			d.VPC = v.ID
			return nil
		}
	}
	v, err := r.network.CreateVPC(ctx, demoCIDR, "", vpc.Tags{"Name": "demo"})
	if err != nil {
		return err
	}
	d.VPC = v.ID
	return nil
}

func (r *region) demoSubnets(ctx context.Context, d *demo) error {
	if len(d.Subnets) > 0 {
		return nil
	}
	for _, a := range []network.VPCAttribute{network.EnableDNSSupport, network.EnableDNSHostnames} {
		if err := r.network.ModifyVPCAttribute(ctx, d.VPC, a, true); err != nil {
			return err
		}
	}
	made, err := r.network.DescribeSubnets(ctx, nil)
	if err != nil {
		return err
	}
	for _, n := range []struct{ cidr, zone string }{{"10.77.1.0/24", devRegion + "a"}, {"10.77.2.0/24", devRegion + "b"}} {
		had := slices.IndexFunc(made, func(sn network.Subnet) bool { return sn.VPC == d.VPC && sn.CIDR.String() == n.cidr })
		if had >= 0 {
			d.Subnets = append(d.Subnets, made[had].ID)
			continue
		}
		sn, err := r.network.CreateSubnet(ctx, d.VPC, n.cidr, n.zone, vpc.Tags{"Name": "demo-" + n.zone})
		if err != nil {
			return err
		}
		d.Subnets = append(d.Subnets, sn.ID)
	}
	return nil
}

// demoGroup makes a security group that admits the office network to the streaming ports.
func (r *region) demoGroup(ctx context.Context, d *demo) error {
	if d.Group != "" {
		return nil
	}
	const name = "demo-streaming"
	made, err := r.network.DescribeSecurityGroups(ctx, nil)
	if err != nil {
		return err
	}
	var g *vpc.SecurityGroup
	if had := slices.IndexFunc(made, func(g *vpc.SecurityGroup) bool { return g.VPC == d.VPC && g.Name == name }); had >= 0 {
		g = made[had]
	} else if g, err = r.network.CreateSecurityGroup(ctx, d.VPC, name, "Streaming from the office network", nil); err != nil {
		return err
	}
	office := r.driver.UserNetworks()[0].CIDR.String()
	var rules []network.RuleRequest
	for _, p := range []struct{ from, to int }{{443, 443}, {1400, 1499}} {
		rules = append(rules, network.RuleRequest{Protocol: "tcp", From: &p.from, To: &p.to, CIDR: office, Description: "office"})
	}
	d.Group = g.ID
	_, _, err = r.network.Authorize(ctx, network.GroupRef{ID: g.ID}, false, rules, nil)
	return ignoreExisting(err)
}

func (r *region) demoEndpoint(ctx context.Context, d *demo) error {
	if d.Endpoint != "" {
		return nil
	}
	e, err := r.network.CreateVPCEndpoint(ctx, network.CreateEndpoint{
		VPC: d.VPC, Service: "com.amazonaws." + devRegion + ".appstream.streaming", Type: vpc.EndpointInterface, Subnets: d.Subnets,
		Groups: []vpc.SecurityGroupID{d.Group}, PrivateDNS: new(true), ClientToken: "penstock-demo", Tags: vpc.Tags{"Name": "demo"},
	})
	if err != nil {
		return err
	}
	d.Endpoint = e.ID
	return nil
}

// awaitEndpoint waits until the endpoint is available, trying a failed one again; false when it was deleted.
func (r *region) awaitEndpoint(ctx context.Context, id vpc.EndpointID) (present bool, err error) {
	var e *vpc.Endpoint
	err = state.Await(ctx, r.store, func(rd state.Reader) (bool, error) {
		var ok bool
		var err error
		e, ok, err = vpc.Endpoints().Get(rd, string(id))
		present = ok && e.State != vpc.EndpointDeleting && e.State != vpc.EndpointDeleted
		return !present || e.State == vpc.EndpointAvailable, err
	})
	if err != nil && e != nil {
		reason := ""
		if e.LastError != nil {
			reason = ": " + e.LastError.Message
		}
		return false, fmt.Errorf("endpoint %s is still %s%s: %w", id, e.State, reason, err)
	}
	return present, err
}

func (r *region) demoStack(ctx context.Context, d *demo) error {
	if d.Stack {
		return nil
	}
	d.Stack = true
	_, err := r.control.CreateStack(ctx, appstream.Stack{
		Name: demoStack, DisplayName: "Penstock demo", Description: "Applications of this machine, streamed through a private endpoint",
		AccessEndpoints: []appstream.AccessEndpoint{{EndpointType: "STREAMING", VpceID: string(d.Endpoint)}},
	})
	if err := ignoreExisting(err); err != nil {
		return err
	}
	_, err = r.control.CreateFleet(ctx, appstream.Fleet{
		Name: demoFleet, DisplayName: "Penstock demo", ImageName: control.BaseImage, InstanceType: "stream.standard.small",
		DesiredInstances: demoInstances, DisconnectTimeout: 5 * time.Minute,
	})
	if err := ignoreExisting(err); err != nil {
		return err
	}
	if err := r.control.AssociateFleet(ctx, demoFleet, demoStack); err != nil {
		return err
	}
	return r.control.StartFleet(ctx, demoFleet)
}

func ignoreExisting(err error) error {
	if fault.Is(err, fault.AlreadyExists) {
		return nil
	}
	return err
}
