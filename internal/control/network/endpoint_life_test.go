package network_test

import (
	"net"
	"testing"
	"time"

	"penstock.dev/penstock/internal/control/network"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// TestEveryChangeGoesThroughPending: each kind of change makes an endpoint pending and then available again, shows at once and
// leaves running connections alone; deleting the endpoint ends them.
func TestEveryChangeGoesThroughPending(t *testing.T) {
	t.Parallel()
	store := openStore(t)
	r := start(t, store)
	ctx := t.Context()
	w := newSite(t, r.Service)
	if err := r.ModifyVPCAttribute(ctx, w.vpc.ID, network.EnableDNSHostnames, true); err != nil {
		t.Fatal(err)
	}
	more := must[*vpc.SecurityGroup](t)(r.CreateSecurityGroup(ctx, w.vpc.ID, "more", "more", nil))
	e := must[*vpc.Endpoint](t)(r.CreateVPCEndpoint(ctx, network.CreateEndpoint{
		VPC: w.vpc.ID, Service: streaming, Type: vpc.EndpointInterface, Subnets: []vpc.SubnetID{w.a.ID}, Groups: []vpc.SecurityGroupID{w.group.ID}, PrivateDNS: new(false),
	}))
	e = awaitState(t, store, e.ID, vpc.EndpointAvailable)
	eni := r.interfaces(t, e)[0]
	user, served := r.dial(t, "127.0.0.1", w.vpc.ID, eni.Addr, 443)
	if served == nil {
		t.Fatal("the office is not served")
	}
	full := `{"Statement":[{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}]}`
	names := func(e *vpc.Endpoint) int { return len(e.DNSEntries) }
	regional := names(e)
	for _, tt := range []struct {
		name   string
		change network.ModifyEndpoint
		shows  func(*vpc.Endpoint) bool
	}{
		{"private DNS on", network.ModifyEndpoint{PrivateDNS: new(true)}, func(e *vpc.Endpoint) bool { return e.PrivateDNS && names(e) > regional }},
		{"private DNS off", network.ModifyEndpoint{PrivateDNS: new(false)}, func(e *vpc.Endpoint) bool { return !e.PrivateDNS && names(e) == regional }},
		{"a group more", network.ModifyEndpoint{AddGroups: []vpc.SecurityGroupID{more.ID}}, func(e *vpc.Endpoint) bool { return len(e.Groups) == 2 }},
		{"that group less", network.ModifyEndpoint{RemoveGroups: []vpc.SecurityGroupID{more.ID}}, func(e *vpc.Endpoint) bool { return len(e.Groups) == 1 && e.Groups[0] == w.group.ID }},
		{"a policy", network.ModifyEndpoint{PolicyDocument: &full}, func(e *vpc.Endpoint) bool { return e.PolicyDocument == full }},
		{"the policy reset", network.ModifyEndpoint{ResetPolicy: true}, func(e *vpc.Endpoint) bool { return e.PolicyDocument == network.FullAccessPolicy }},
		{"a subnet more", network.ModifyEndpoint{AddSubnets: []vpc.SubnetID{w.b.ID}}, func(e *vpc.Endpoint) bool {
			return len(e.Interfaces) == 2 && len(e.Subnets) == 2 && names(e) > regional
		}},
		{"that subnet less", network.ModifyEndpoint{RemoveSubnets: []vpc.SubnetID{w.b.ID}}, func(e *vpc.Endpoint) bool {
			return len(e.Interfaces) == 1 && e.Interfaces[0] == eni.ID && names(e) == regional
		}},
		{"nothing", network.ModifyEndpoint{}, func(*vpc.Endpoint) bool { return true }},
	} {
		var before state.Revision
		if err := store.View(ctx, func(rd state.Reader) (err error) {
			before, err = rd.Revision()
			return err
		}); err != nil {
			t.Fatal(err)
		}
		generation := must[[]*vpc.Endpoint](t)(r.DescribeEndpoints(ctx, []vpc.EndpointID{e.ID}))[0].Generation
		tt.change.ID = e.ID
		if err := r.ModifyVPCEndpoint(ctx, tt.change); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		got := must[[]*vpc.Endpoint](t)(r.DescribeEndpoints(ctx, []vpc.EndpointID{e.ID}))[0]
		if got.Generation != generation+1 || !tt.shows(got) {
			t.Errorf("%s: got %+v", tt.name, got)
		}
		got = awaitState(t, store, e.ID, vpc.EndpointAvailable)
		if got.Realised != generation+1 || !tt.shows(got) {
			t.Errorf("%s, available: got %+v", tt.name, got)
		}
		// One write made it pending and a later one available.
		changes, err := store.Changes(ctx, before)
		if err != nil {
			t.Fatal(err)
		}
		writes := 0
		for _, c := range changes {
			if c.Kind == vpc.KindEndpoint && c.ID == string(e.ID) {
				writes++
			}
		}
		if writes < 2 {
			t.Errorf("%s: %d writes of the endpoint; it was never pending", tt.name, writes)
		}
		if _, err := served.Write([]byte("x")); err != nil {
			t.Errorf("%s: the running connection: %v", tt.name, err)
		}
		if _, err := user.Write([]byte("y")); err != nil {
			t.Errorf("%s: the running connection: %v", tt.name, err)
		}
		_ = served.SetReadDeadline(time.Now().Add(10 * time.Second)) // the read says it
		if _, err := served.Read(make([]byte, 1)); err != nil {
			t.Errorf("%s: the running connection: %v", tt.name, err)
		}
	}

	connections := []net.Conn{user}
	for range 5 {
		c, s := r.dial(t, "127.0.0.1", w.vpc.ID, eni.Addr, 1400)
		if s == nil {
			t.Fatal("the office is not served")
		}
		connections = append(connections, c)
	}
	if failed, err := r.DeleteVPCEndpoints(ctx, []vpc.EndpointID{e.ID}); err != nil || len(failed) > 0 {
		t.Fatalf("delete: %v, %v", failed, err)
	}
	if err := r.ModifyVPCEndpoint(ctx, network.ModifyEndpoint{ID: e.ID, PrivateDNS: new(true)}); code(err) != "IncorrectState" {
		t.Errorf("modify what is being deleted: %v", err)
	}
	for _, c := range connections {
		ended(t, c)
	}
	awaitState(t, store, e.ID, vpc.EndpointDeleted)
	if again := must[[]network.Unsuccessful](t)(r.DeleteVPCEndpoints(ctx, []vpc.EndpointID{e.ID})); len(again) != 1 || again[0].Code != "InvalidVpcEndpoint.NotFound" {
		t.Errorf("delete again: %+v", again)
	}
	// The service's private names are free again.
	if _, err := r.CreateVPCEndpoint(ctx, network.CreateEndpoint{VPC: w.vpc.ID, Service: streaming, Type: vpc.EndpointInterface, PrivateDNS: new(true)}); err != nil {
		t.Error(err)
	}
}

// TestRulePeers: a rule names one peer, and a block of the family that its member is for.
func TestRulePeers(t *testing.T) {
	t.Parallel()
	s, ctx := quiet(t), t.Context()
	w := newSite(t, s)
	other := must[*vpc.VPC](t)(s.CreateVPC(ctx, "10.78.0.0/16", "", nil))
	for _, tt := range []struct {
		name string
		rule network.RuleRequest
		want string
	}{
		{"two peers", network.RuleRequest{Protocol: "-1", CIDR: "10.0.0.0/8", Group: network.GroupRef{ID: w.group.ID}}, "InvalidParameterCombination"},
		{"no peer", network.RuleRequest{Protocol: "-1"}, "MissingParameter"},
		{"IPv6 as IPv4", network.RuleRequest{Protocol: "-1", CIDR: "fd00::/8", Family: vpc.FamilyIPv4}, "InvalidParameterValue"},
		{"IPv4 as IPv6", network.RuleRequest{Protocol: "-1", CIDR: "10.0.0.0/8", Family: vpc.FamilyIPv6}, "InvalidParameterValue"},
		{"no block", network.RuleRequest{Protocol: "-1", CIDR: "10.0.0.0"}, "InvalidParameterValue"},
		{"group of another VPC", network.RuleRequest{Protocol: "-1", Group: network.GroupRef{ID: other.DefaultSecurityGroup}}, "InvalidGroup.NotFound"},
		{"group of another account", network.RuleRequest{Protocol: "-1", Group: network.GroupRef{ID: w.group.ID}, GroupOwner: "111122223333"}, "InvalidGroup.NotFound"},
		{"unknown list", network.RuleRequest{Protocol: "-1", PrefixList: "pl-0123456789abcdef0"}, "InvalidPrefixListId.NotFound"},
		{"no ports", network.RuleRequest{Protocol: "tcp", CIDR: "10.0.0.0/8"}, "InvalidParameterValue"},
		{"unknown protocol", network.RuleRequest{Protocol: "256", CIDR: "10.0.0.0/8"}, "InvalidParameterValue"},
		{"low bits", network.RuleRequest{Protocol: "-1", CIDR: "10.1.2.3/8", Family: vpc.FamilyIPv4}, ""},
		{"the same again", network.RuleRequest{Protocol: "-1", CIDR: "10.0.0.0/8"}, "InvalidPermission.Duplicate"},
	} {
		if _, _, err := s.Authorize(ctx, network.GroupRef{ID: w.group.ID}, false, []network.RuleRequest{tt.rule}, nil); code(err) != tt.want {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
}
