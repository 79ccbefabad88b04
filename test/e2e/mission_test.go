package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// network is what the walk makes with the AWS CLI.
type walk struct {
	*server
	vpc, subnetA, subnetB, group, acl, endpoint string
}

// TestMissionWithTheAWSCLI walks the page that Penstock exists for with Debian's AWS CLI: network, endpoint, fleet, stack,
// streaming URL, sessions, another endpoint, no endpoint, and back to nothing.
func TestMissionWithTheAWSCLI(t *testing.T) {
	needE2E(t)
	t.Parallel()
	w := &walk{server: start(t, t.TempDir(), "--no-demo")}
	var identity struct{ Account, Arn string }
	w.aws(&identity, "sts", "get-caller-identity")
	if identity.Account != w.info.AccountID {
		t.Errorf("account: got %s, want %s of dev.json", identity.Account, w.info.AccountID)
	}
	w.makeNetwork()
	w.endpoint = w.makeEndpoint()
	w.checkEndpoint()
	w.makeFleet()
	w.aws(nil, "appstream", "create-stack", "--name", "stack", "--access-endpoints", "EndpointType=STREAMING,VpceId="+w.endpoint)
	w.aws(nil, "appstream", "associate-fleet", "--fleet-name", "fleet", "--stack-name", "stack")

	first := w.stream("ann")
	firstURL := mustURL(t, first.ViewerURL)
	if a := w.dialOf(w.endpoint); !slices.Contains(a, firstURL.Hostname()) {
		t.Errorf("first session streams from %s, want one of the endpoint's %v", firstURL.Host, a)
	}
	viewer := w.connect(first.ViewerURL, "")

	// Another endpoint: new sessions go there, the running one stays.
	second := w.makeEndpoint()
	w.aws(nil, "appstream", "update-stack", "--name", "stack", "--access-endpoints", "EndpointType=STREAMING,VpceId="+second)
	other := mustURL(t, w.stream("bob").ViewerURL)
	if a := w.dialOf(second); !slices.Contains(a, other.Hostname()) {
		t.Errorf("second session streams from %s, want one of the new endpoint's %v", other.Host, a)
	}
	if again := mustURL(t, w.stream("ann").ViewerURL); again.Host != firstURL.Host {
		t.Errorf("ann came back to %s, want %s where the session began", again.Host, firstURL.Host)
	}
	viewer.mustLive(t)

	// No endpoint: new sessions stream from the internet endpoint.
	w.aws(nil, "appstream", "update-stack", "--name", "stack", "--attributes-to-delete", "ACCESS_ENDPOINTS")
	if u := w.stream("cid").ViewerURL; !strings.HasPrefix(u, w.info.PublicURL+"/stream/") {
		t.Errorf("third session streams from %s, want the internet endpoint at %s", u, w.info.PublicURL)
	}
	viewer.mustLive(t)

	var described struct {
		Sessions []struct {
			ID                         string `json:"Id"`
			UserID                     string `json:"UserId"`
			State, ConnectionState     string
			NetworkAccessConfiguration struct{ EniID, EniPrivateIPAddress string }
		}
	}
	w.aws(&described, "appstream", "describe-sessions", "--stack-name", "stack", "--fleet-name", "fleet")
	if len(described.Sessions) != 3 {
		t.Fatalf("got %d sessions, want 3", len(described.Sessions))
	}
	for _, s := range described.Sessions {
		if s.State != "ACTIVE" {
			t.Errorf("session of %s is %s, want ACTIVE", s.UserID, s.State)
		}
		if (s.UserID == "cid") == (s.NetworkAccessConfiguration.EniID != "") {
			t.Errorf("session of %s has interface %q", s.UserID, s.NetworkAccessConfiguration.EniID)
		}
	}
	w.awsFails("ResourceInUseException", "appstream", "delete-stack", "--name", "stack")
	for _, s := range described.Sessions {
		w.aws(nil, "appstream", "expire-session", "--session-id", s.ID)
	}
	viewer.mustEnd(t)
	w.tearDown(second)
}

func (w *walk) makeNetwork() {
	var v struct {
		Vpc struct {
			VpcID string `json:"VpcId"`
			State string
		}
	}
	w.aws(&v, "ec2", "create-vpc", "--cidr-block", "10.0.0.0/16")
	w.vpc = v.Vpc.VpcID
	for _, a := range []string{"--enable-dns-support", "--enable-dns-hostnames"} {
		w.aws(nil, "ec2", "modify-vpc-attribute", "--vpc-id", w.vpc, a, `{"Value":true}`)
	}
	subnet := func(cidr, zone string) string {
		var s struct {
			Subnet struct {
				SubnetID string `json:"SubnetId"`
			}
		}
		w.aws(&s, "ec2", "create-subnet", "--vpc-id", w.vpc, "--cidr-block", cidr, "--availability-zone", zone)
		return s.Subnet.SubnetID
	}
	w.subnetA, w.subnetB = subnet("10.0.1.0/24", "us-east-1a"), subnet("10.0.2.0/24", "us-east-1b")
	var g struct {
		GroupID string `json:"GroupId"`
	}
	w.aws(&g, "ec2", "create-security-group", "--group-name", "streaming", "--description", "streaming", "--vpc-id", w.vpc)
	w.group = g.GroupID
	for _, ports := range []string{"443", "1400-1499"} {
		w.aws(nil, "ec2", "authorize-security-group-ingress", "--group-id", w.group, "--protocol", "tcp", "--port", ports, "--cidr", "192.168.0.0/16")
	}
	w.awsFails("InvalidPermission.Duplicate", "ec2", "authorize-security-group-ingress", "--group-id", w.group, "--protocol", "tcp", "--port", "443", "--cidr", "192.168.0.0/16")
	var a struct {
		NetworkACL struct {
			NetworkACLID string `json:"NetworkAclId"`
		} `json:"NetworkAcl"`
	}
	w.aws(&a, "ec2", "create-network-acl", "--vpc-id", w.vpc)
	w.acl = a.NetworkACL.NetworkACLID
	entry := func(direction, from, to string) {
		w.aws(nil, "ec2", "create-network-acl-entry", "--network-acl-id", w.acl, direction, "--rule-number", from,
			"--protocol", "6", "--port-range", fmt.Sprintf("From=%s,To=%s", from, to), "--cidr-block", "0.0.0.0/0", "--rule-action", "allow")
	}
	entry("--ingress", "443", "443")
	entry("--ingress", "1400", "1499")
	entry("--egress", "1024", "65535")
	var acls struct {
		NetworkACLs []struct {
			Associations []struct {
				ID       string `json:"NetworkAclAssociationId"`
				SubnetID string `json:"SubnetId"`
			}
		} `json:"NetworkAcls"`
	}
	w.aws(&acls, "ec2", "describe-network-acls", "--filters", "Name=association.subnet-id,Values="+w.subnetA)
	for _, as := range acls.NetworkACLs[0].Associations {
		if as.SubnetID == w.subnetA || as.SubnetID == w.subnetB {
			w.aws(nil, "ec2", "replace-network-acl-association", "--association-id", as.ID, "--network-acl-id", w.acl)
		}
	}
}

type describedEndpoint struct {
	ID       string `json:"VpcEndpointId"`
	State    string
	Service  string   `json:"ServiceName"`
	ENIs     []string `json:"NetworkInterfaceIds"`
	Subnets  []string `json:"SubnetIds"`
	Private  bool     `json:"PrivateDnsEnabled"`
	DNSNames []struct {
		DNSName string `json:"DnsName"`
	} `json:"DnsEntries"`
}

func (w *walk) describeEndpoint(id string) describedEndpoint {
	w.t.Helper()
	var out struct {
		Endpoints []describedEndpoint `json:"VpcEndpoints"`
	}
	w.aws(&out, "ec2", "describe-vpc-endpoints", "--vpc-endpoint-ids", id)
	if len(out.Endpoints) != 1 {
		w.t.Fatalf("got %d endpoints with ID %s", len(out.Endpoints), id)
	}
	return out.Endpoints[0]
}

// makeEndpoint creates an endpoint in both zones and waits until it is available.
func (w *walk) makeEndpoint() string {
	w.t.Helper()
	var e struct {
		Endpoint describedEndpoint `json:"VpcEndpoint"`
	}
	w.aws(&e, "ec2", "create-vpc-endpoint", "--vpc-id", w.vpc, "--vpc-endpoint-type", "Interface",
		"--service-name", "com.amazonaws.us-east-1.appstream.streaming", "--subnet-ids", w.subnetA, w.subnetB, "--security-group-ids", w.group)
	if e.Endpoint.State != "pending" {
		w.t.Errorf("a new endpoint is %q, want pending", e.Endpoint.State)
	}
	until(w.t, "endpoint to be available", func() bool { return w.describeEndpoint(e.Endpoint.ID).State == "available" })
	return e.Endpoint.ID
}

func (w *walk) checkEndpoint() {
	e := w.describeEndpoint(w.endpoint)
	if len(e.ENIs) != 2 || len(e.Subnets) != 2 || len(e.DNSNames) < 3 {
		w.t.Errorf("endpoint has %d interfaces, %d subnets and %d names, want 2, 2 and at least 3", len(e.ENIs), len(e.Subnets), len(e.DNSNames))
	}
	var out struct {
		NetworkInterfaces []struct {
			InterfaceType, Description, Status, PrivateIPAddress string
			RequesterManaged                                     bool
		}
	}
	w.aws(&out, "ec2", "describe-network-interfaces", "--network-interface-ids", e.ENIs[0], e.ENIs[1])
	for _, n := range out.NetworkInterfaces {
		if n.InterfaceType != "vpc_endpoint" || n.Status != "in-use" || !n.RequesterManaged || n.Description != "VPC Endpoint Interface "+w.endpoint {
			w.t.Errorf("network interface: got %+v", n)
		}
	}
}

// dialOf are the addresses at which an endpoint's interfaces are reached from this machine.
func (w *walk) dialOf(endpoint string) []string {
	w.t.Helper()
	return endpointDial(w.t, w.server, endpoint)
}

func (w *walk) makeFleet() {
	w.aws(nil, "appstream", "create-fleet", "--name", "fleet", "--image-name", "Penstock-Base", "--instance-type", "stream.standard.small",
		"--fleet-type", "ALWAYS_ON", "--compute-capacity", "DesiredInstances=3")
	w.aws(nil, "appstream", "start-fleet", "--name", "fleet")
	until(w.t, "fleet to have three instances", func() bool {
		var out struct {
			Fleets []struct {
				State                 string
				ComputeCapacityStatus struct{ Running int }
			}
		}
		w.aws(&out, "appstream", "describe-fleets", "--names", "fleet")
		return out.Fleets[0].State == "RUNNING" && out.Fleets[0].ComputeCapacityStatus.Running == 3
	})
}

// stream gets a streaming URL with the CLI, opens it and launches the terminal.
func (w *walk) stream(user string) launched {
	w.t.Helper()
	var out struct{ StreamingURL string }
	w.aws(&out, "appstream", "create-streaming-url", "--stack-name", "stack", "--fleet-name", "fleet", "--user-id", user, "--validity", "60")
	return w.visit(out.StreamingURL).mustLaunch("xterm")
}

func (w *walk) tearDown(second string) {
	w.aws(nil, "appstream", "stop-fleet", "--name", "fleet")
	w.awsFails("ResourceInUseException", "appstream", "delete-fleet", "--name", "fleet")
	until(w.t, "fleet to stop", func() bool {
		var out struct{ Fleets []struct{ State string } }
		w.aws(&out, "appstream", "describe-fleets", "--names", "fleet")
		return out.Fleets[0].State == "STOPPED"
	})
	w.aws(nil, "appstream", "disassociate-fleet", "--fleet-name", "fleet", "--stack-name", "stack")
	w.aws(nil, "appstream", "delete-fleet", "--name", "fleet")
	w.aws(nil, "appstream", "delete-stack", "--name", "stack")
	w.awsFails("ResourceNotFoundException", "appstream", "describe-stacks", "--names", "stack")
	w.awsFails("DependencyViolation", "ec2", "delete-subnet", "--subnet-id", w.subnetA)
	w.aws(nil, "ec2", "delete-vpc-endpoints", "--vpc-endpoint-ids", w.endpoint, second)
	until(w.t, "endpoints to go", func() bool {
		_, err := w.tryAWS("ec2", "describe-vpc-endpoints", "--vpc-endpoint-ids", w.endpoint)
		return err != nil && strings.Contains(err.Error(), "InvalidVpcEndpointId.NotFound")
	})
	for _, args := range [][]string{
		{"delete-subnet", "--subnet-id", w.subnetA},
		{"delete-subnet", "--subnet-id", w.subnetB},
		{"delete-network-acl", "--network-acl-id", w.acl},
		{"delete-security-group", "--group-id", w.group},
		{"delete-vpc", "--vpc-id", w.vpc},
	} {
		w.aws(nil, append([]string{"ec2"}, args...)...)
	}
	w.awsFails("InvalidVpcID.NotFound", "ec2", "describe-vpcs", "--vpc-ids", w.vpc)
}

// viewer is an open control channel.
type viewer struct {
	conn *websocket.Conn
	ctx  context.Context
}

// tryConnect opens a control channel with the ticket of a viewer URL, from a source address ("" for 127.0.0.1), at an origin.
func tryConnect(t *testing.T, origin *url.URL, ticket, source string) (*viewer, error) {
	t.Helper()
	return tryConnectTrusting(t, nil, origin, ticket, source)
}

// tryConnectTrusting is tryConnect, over TLS where the origin says so.
func tryConnectTrusting(t *testing.T, roots *x509.CertPool, origin *url.URL, ticket, source string) (*viewer, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 6*patience) // dozens of calls of the AWS CLI may come in between
	t.Cleanup(cancel)
	dialCtx, cancelDial := context.WithTimeout(ctx, 10*time.Second)
	defer cancelDial()
	c, _, err := websocket.Dial(dialCtx, origin.Scheme+"://"+origin.Host+"/v1/channel/control", &websocket.DialOptions{
		HTTPClient: clientFrom(source, roots), Subprotocols: []string{"penstock.1", "ticket." + ticket},
		HTTPHeader: http.Header{"Origin": {origin.Scheme + "://" + origin.Host}},
	})
	if err != nil {
		return nil, err
	}
	c.SetReadLimit(64 << 20)
	t.Cleanup(func() { _ = c.CloseNow() })
	// hello: version 1, no capabilities, 800×600 at 100 %, follows the window
	hello := []byte{0x01, 1, 0, 0, 0, 0, 0, 0x20, 0x03, 0x58, 0x02, 100, 0, 0}
	if err := c.Write(dialCtx, websocket.MessageBinary, hello); err != nil {
		return nil, err
	}
	v := &viewer{c, ctx}
	_, b, err := c.Read(dialCtx)
	if err != nil {
		return nil, err
	}
	if b[0] != 0x02 {
		return nil, fmt.Errorf("first message is 0x%02x, want welcome", b[0])
	}
	return v, nil
}

// clientFrom dials from a source address and trusts roots (nil: the system's).
func clientFrom(source string, roots *x509.CertPool) *http.Client {
	d := &net.Dialer{Timeout: 10 * time.Second}
	if source != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(source)}
	}
	return &http.Client{Transport: &http.Transport{DialContext: d.DialContext, TLSClientConfig: &tls.Config{RootCAs: roots}}}
}

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// ticketOf is the ticket in a viewer URL's fragment.
func ticketOf(u *url.URL) string {
	ticket, _, _ := strings.Cut(strings.TrimPrefix(u.Fragment, "t="), "&")
	return ticket
}

// connect opens a viewer URL as a viewer does.
func (s *server) connect(viewerURL, source string) *viewer {
	s.t.Helper()
	u := mustURL(s.t, viewerURL)
	v, err := tryConnectTrusting(s.t, s.roots(), u, ticketOf(u), source)
	if err != nil {
		s.t.Fatalf("connect: %v", err)
	}
	return v
}

// mustLive sends a ping and wants its pong.
func (v *viewer) mustLive(t *testing.T) {
	t.Helper()
	if err := v.conn.Write(v.ctx, websocket.MessageBinary, []byte{0x03, 1, 2, 3, 4, 5, 6, 7, 8}); err != nil {
		t.Fatalf("ping: %v", err)
	}
	for {
		_, b, err := v.conn.Read(v.ctx)
		if err != nil {
			t.Fatalf("pong: %v", err)
		}
		if b[0] == 0x04 {
			return
		}
	}
}

// mustEnd reads until the session says goodbye.
func (v *viewer) mustEnd(t *testing.T) string {
	t.Helper()
	for {
		_, b, err := v.conn.Read(v.ctx)
		if err != nil {
			t.Fatalf("connection ended without a word of why: %v", err)
		}
		if b[0] == 0x07 {
			return string(b[5:])
		}
	}
}

// endpointDial are the addresses at which an endpoint is dialled, by the preflight page's private addresses and dev.json's translation.
func endpointDial(t *testing.T, s *server, endpoint string) []string {
	t.Helper()
	resp, err := http.Get(s.info.PublicURL + "/preflight?format=json")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var out struct {
		Endpoints []struct {
			ID        string `json:"id"`
			Addresses []struct{ Private, Dial string }
		}
	}
	mustJSON(t, b, &out)
	for _, e := range out.Endpoints {
		if e.ID == endpoint {
			var dial []string
			for _, a := range e.Addresses {
				dial = append(dial, a.Dial)
			}
			return dial
		}
	}
	t.Fatalf("preflight does not know endpoint %s: %s", endpoint, b)
	return nil
}
