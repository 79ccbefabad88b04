package e2e

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestKernelIPv6 makes an IPv6-only and a dual-stack endpoint with the AWS CLI on real interfaces, in a network namespace of its
// own: packets of the office reach them in IPv6 and those of the guests do not, a session streams through an IPv6 address, names
// have AAAA records, and what one family loses the other keeps.
func TestKernelIPv6(t *testing.T) {
	inOwnNamespace(t, kernelIPv6)
}

// reaches wants an HTTP answer over TLS, whose certificate is for the address.
func (s *server) reaches(source, at string) {
	s.t.Helper()
	if b, err := talkTrusting(s.t, s.roots(), source, at); err != nil || !strings.HasPrefix(b, "HTTP/1.1 ") {
		s.t.Errorf("%s to %s: got %q (%v), want an HTTP answer", source, at, b, err)
	}
}

// awaitEndpoint waits until an endpoint is available.
func (s *server) awaitEndpoint(id string) {
	s.t.Helper()
	until(s.t, id+" to be available", func() bool {
		var out struct{ VpcEndpoints []struct{ State string } }
		s.aws(&out, "ec2", "describe-vpc-endpoints", "--vpc-endpoint-ids", id)
		return out.VpcEndpoints[0].State == "available"
	})
}

// firstV6 is the first address of the n-th IPv6 network of users in dev.json.
func (s *server) firstV6(n int) string {
	s.t.Helper()
	for _, u := range s.info.UserNetworks {
		p, err := netip.ParsePrefix(u.CIDR)
		if err != nil {
			s.t.Fatal(err)
		}
		if p.Addr().Is6() {
			if n == 0 {
				return p.Addr().Next().String()
			}
			n--
		}
	}
	s.t.Skip("this machine has no IPv6")
	return ""
}

func kernelIPv6(t *testing.T) {
	s := start(t, t.TempDir(), "--net", "kernel")
	office, guests := s.firstV6(0), s.firstV6(1)
	office4, _ := s.kernelContract()

	var made struct {
		Vpc struct {
			VpcID                       string `json:"VpcId"`
			Ipv6CidrBlockAssociationSet []struct{ Ipv6CidrBlock, Ipv6Pool string }
		}
	}
	s.aws(&made, "ec2", "create-vpc", "--cidr-block", "10.66.0.0/16", "--amazon-provided-ipv6-cidr-block")
	if len(made.Vpc.Ipv6CidrBlockAssociationSet) != 1 || made.Vpc.Ipv6CidrBlockAssociationSet[0].Ipv6Pool != "Amazon" {
		t.Fatalf("VPC: %+v", made)
	}
	block := netip.MustParsePrefix(made.Vpc.Ipv6CidrBlockAssociationSet[0].Ipv6CidrBlock)
	if block.Bits() != 56 || !block.Addr().IsPrivate() {
		t.Errorf("the VPC was given %s, want a /56 of unique local addresses", block)
	}
	cidr := func(n byte) string {
		a := block.Addr().As16()
		a[7] = n
		return netip.PrefixFrom(netip.AddrFrom16(a), 64).String()
	}
	var subnet struct {
		Subnet struct {
			SubnetID   string `json:"SubnetId"`
			Ipv6Native bool
		}
	}
	s.aws(&subnet, "ec2", "create-subnet", "--vpc-id", made.Vpc.VpcID, "--ipv6-native", "--ipv6-cidr-block", cidr(1), "--availability-zone", "us-east-1a")
	native := subnet.Subnet.SubnetID
	if !subnet.Subnet.Ipv6Native {
		t.Error("the IPv6-only subnet is not")
	}
	s.aws(&subnet, "ec2", "create-subnet", "--vpc-id", made.Vpc.VpcID, "--cidr-block", "10.66.2.0/24", "--ipv6-cidr-block", cidr(2), "--availability-zone", "us-east-1b")
	both := subnet.Subnet.SubnetID
	var group struct {
		GroupID string `json:"GroupId"`
	}
	s.aws(&group, "ec2", "create-security-group", "--vpc-id", made.Vpc.VpcID, "--group-name", "viewers", "--description", "streams")
	for _, p := range [][2]string{{"443", "443"}, {"1400", "1499"}} {
		s.aws(nil, "ec2", "authorize-security-group-ingress", "--group-id", group.GroupID, "--ip-permissions",
			"IpProtocol=tcp,FromPort="+p[0]+",ToPort="+p[1]+",Ipv6Ranges=[{CidrIpv6="+office+"/64}],IpRanges=[{CidrIp="+office4+"/16}]")
	}
	create := func(kind, subnet string) (id string, addrs map[bool]string) {
		var out struct {
			VpcEndpoint struct {
				VpcEndpointID       string   `json:"VpcEndpointId"`
				NetworkInterfaceIDs []string `json:"NetworkInterfaceIds"`
				IPAddressType       string   `json:"IpAddressType"`
			}
		}
		s.aws(&out, "ec2", "create-vpc-endpoint", "--vpc-id", made.Vpc.VpcID, "--vpc-endpoint-type", "Interface", "--service-name", "com.amazonaws.us-east-1.appstream.streaming",
			"--subnet-ids", subnet, "--security-group-ids", group.GroupID, "--ip-address-type", kind, "--no-private-dns-enabled")
		if out.VpcEndpoint.IPAddressType != kind {
			t.Errorf("endpoint of type %s: %+v", kind, out)
		}
		s.awaitEndpoint(out.VpcEndpoint.VpcEndpointID)
		var eni struct {
			NetworkInterfaces []struct {
				PrivateIPAddress  string `json:"PrivateIpAddress"`
				DenyAllIgwTraffic bool
				Ipv6Addresses     []struct{ Ipv6Address string }
			}
		}
		s.aws(&eni, "ec2", "describe-network-interfaces", "--network-interface-ids", out.VpcEndpoint.NetworkInterfaceIDs[0])
		i := eni.NetworkInterfaces[0]
		if len(i.Ipv6Addresses) != 1 || !i.DenyAllIgwTraffic {
			t.Fatalf("interface of a %s endpoint: %+v", kind, i)
		}
		return out.VpcEndpoint.VpcEndpointID, map[bool]string{true: i.Ipv6Addresses[0].Ipv6Address, false: i.PrivateIPAddress}
	}
	six, sixAt := create("ipv6", native)
	dual, dualAt := create("dualstack", both)
	if sixAt[false] != "" || dualAt[false] == "" {
		t.Errorf("IPv4 addresses: of the IPv6 endpoint %q, of the dual-stack one %q", sixAt[false], dualAt[false])
	}

	for _, at := range []string{sixAt[true], dualAt[true]} {
		for _, port := range []string{"443", "1400", "1499"} {
			s.reaches("", net.JoinHostPort(at, port))
			s.reaches(office, net.JoinHostPort(at, port))
			silent(t, guests, net.JoinHostPort(at, port))
		}
		silent(t, office, net.JoinHostPort(at, "1500"))
	}
	s.reaches(office4, net.JoinHostPort(dualAt[false], "443"))

	// Names have the records that their endpoints have addresses for.
	var dns struct{ DNSAddr string }
	b, err := os.ReadFile(filepath.Join(s.dir, "dev.json"))
	if err != nil {
		t.Fatal(err)
	}
	mustJSON(t, b, &dns)
	for id, want := range map[string][]string{six: {sixAt[true]}, dual: {dualAt[false], dualAt[true]}} {
		var out struct {
			VpcEndpoints []struct{ DNSEntries []struct{ DNSName string } }
		}
		s.aws(&out, "ec2", "describe-vpc-endpoints", "--vpc-endpoint-ids", id)
		slices.Sort(want)
		if got := lookup(dns.DNSAddr, "127.0.0.1")(t, out.VpcEndpoints[0].DNSEntries[0].DNSName); !slices.Equal(got, want) {
			t.Errorf("%s is at %v, want %v", out.VpcEndpoints[0].DNSEntries[0].DNSName, got, want)
		}
	}

	// A session streams through the IPv6 address; groups remember it.
	s.aws(nil, "appstream", "update-stack", "--name", s.info.StackName, "--access-endpoints", "EndpointType=STREAMING,VpceId="+six)
	var streaming struct{ StreamingURL string }
	s.aws(&streaming, "appstream", "create-streaming-url", "--stack-name", s.info.StackName, "--fleet-name", s.info.FleetName, "--user-id", "six", "--application-id", "xterm")
	l := s.visit(streaming.StreamingURL).mustLaunch("xterm")
	if u := mustURL(t, l.ViewerURL); u.Scheme != "https" || u.Hostname() != sixAt[true] {
		t.Errorf("the viewer is at %s, want https at [%s]", l.ViewerURL, sixAt[true])
	}
	if b, err := talkTrusting(t, s.roots(), office, net.JoinHostPort(sixAt[true], "1400")); err != nil || b == "" {
		t.Errorf("channel port: %q, %v", b, err)
	}
	v := s.connect(l.ViewerURL, "")
	v.mustLive(t)
	var sessions struct {
		Sessions []struct {
			NetworkAccessConfiguration struct {
				EniID               string `json:"EniId"`
				EniPrivateIPAddress string `json:"EniPrivateIpAddress"`
				EniIpv6Addresses    []string
			}
		}
	}
	if out, err := s.tryAWS("appstream", "describe-sessions", "--stack-name", s.info.StackName, "--fleet-name", s.info.FleetName); err != nil {
		t.Error(err)
	} else {
		mustJSON(t, out, &sessions)
		if n := sessions.Sessions[0].NetworkAccessConfiguration; n.EniID == "" || n.EniPrivateIPAddress != "" {
			t.Errorf("network access of the session: %+v", n) // the CLI may be too old to show its IPv6 addresses
		}
	}
	rule := []string{"--group-id", group.GroupID, "--ip-permissions", "IpProtocol=tcp,FromPort=443,ToPort=443,Ipv6Ranges=[{CidrIpv6=" + office + "/64}]"}
	s.aws(nil, append([]string{"ec2", "revoke-security-group-ingress"}, rule...)...)
	s.refusedSoon(office, net.JoinHostPort(sixAt[true], "443"))
	silent(t, office, net.JoinHostPort(sixAt[true], "443"))
	s.reaches(office4, net.JoinHostPort(dualAt[false], "443"))
	v.mustLive(t)
	s.aws(nil, append([]string{"ec2", "authorize-security-group-ingress"}, rule...)...)
	until(t, "the rule to come back", func() bool {
		b, err := talkTrusting(t, s.roots(), office, net.JoinHostPort(sixAt[true], "443"))
		return err == nil && b != ""
	})

	// An IPv4-only endpoint drops IPv6 and keeps the connections and the address that stay.
	s.aws(nil, "ec2", "modify-vpc-endpoint", "--vpc-endpoint-id", dual, "--ip-address-type", "ipv4")
	s.awaitEndpoint(dual)
	silent(t, office, net.JoinHostPort(dualAt[true], "443"))
	s.reaches(office4, net.JoinHostPort(dualAt[false], "443"))
	v.mustLive(t)

	s.stop()
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteList(nil, family)
		if err != nil || slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Dst == nil || !r.Dst.IP.IsLoopback() }) {
			t.Errorf("after SIGTERM: routes %v, %v", routes, err)
		}
	}
}
