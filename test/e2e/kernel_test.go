package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/coder/websocket"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"penstock.dev/penstock/internal/hostnet/kernel"
	"penstock.dev/penstock/internal/wire/flowlog"
)

// insideEnv is set for the run of this test that has a network namespace of its own.
const insideEnv = "PENSTOCK_E2E_NETWORK_NAMESPACE"

// TestKernelNetwork runs `penstock dev --net kernel`: real addresses, packets dropped by the kernel, nothing left behind. The
// server and its clients run in a network namespace of their own, so that nothing on the machine changes.
func TestKernelNetwork(t *testing.T) {
	inOwnNamespace(t, kernelNetwork)
}

// inOwnNamespace runs the rest of a test again, in a process in a network namespace of its own.
func inOwnNamespace(t *testing.T, rest func(*testing.T)) {
	t.Helper()
	needE2E(t)
	if err := kernel.Available(); err != nil {
		if os.Getenv("PENSTOCK_TEST_STRICT") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if os.Getenv(insideEnv) == "1" {
		loopbackUp(t)
		rest(t)
		return
	}
	t.Parallel()
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), insideEnv+"=1", "PENSTOCK_BIN="+bin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("inside its namespace: %v\n%s", err, tail(string(out), 12000))
	}
}

func loopbackUp(t *testing.T) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func kernelNetwork(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir, "--net", "kernel", "--flow-log-interval", "500ms")
	office, guests := s.kernelContract()
	for _, a := range s.info.EndpointAddresses {
		for _, port := range []string{"443", "1400", "1499"} {
			at := net.JoinHostPort(a.Dial, port)
			if b, err := talkTrusting(t, s.roots(), "", at); err != nil || !strings.HasPrefix(b, "HTTP/1.1 ") {
				t.Errorf("office to %s: got %q (%v), want an HTTP answer", at, b, err)
			}
			if b, err := talkTrusting(t, s.roots(), office, at); err != nil || !strings.HasPrefix(b, "HTTP/1.1 ") {
				t.Errorf("office as %s to %s: got %q (%v), want an HTTP answer", office, at, b, err)
			}
			silent(t, guests, at)
		}
		silent(t, office, net.JoinHostPort(a.Dial, "1500"))
	}

	// What the kernel let pass and what it dropped is in the flow logs, and in the audit with the rule.
	until(t, "records of both zones", func() bool {
		all := s.flowLogs()
		for _, a := range s.info.EndpointAddresses {
			at, from := netip.MustParseAddr(a.Private), netip.MustParseAddr(office)
			in, out := flowed(all, from, at, 1499, flowlog.Accept)
			rejected, _ := flowed(all, netip.MustParseAddr(guests), at, 1400, flowlog.Reject)
			closed, _ := flowed(all, from, at, 1500, flowlog.Reject)
			if !in || !out || !rejected || !closed {
				return false
			}
		}
		return true
	})
	if got := s.audited("--event-name", "RefuseConnection"); len(got) < 8 || !strings.Contains(got[0].CloudTrailEvent, "no rule of sg-") {
		t.Errorf("%d refused connections are on record: %+v", len(got), got)
	}

	// A session streams, and groups remember it while new connections are dropped.
	l := s.visit(s.info.StreamingURL).mustLaunch("xterm")
	if s.info.PublicURL[:7] != "http://" || s.info.APIURL[:7] != "http://" || !strings.HasPrefix(l.ViewerURL, "https://") {
		t.Errorf("portal %s and API %s are on loopback, the endpoint at %s is not", s.info.PublicURL, s.info.APIURL, l.ViewerURL)
	}
	host := mustURL(t, l.ViewerURL).Hostname()
	if addr, err := netip.ParseAddr(host); err != nil || !strings.HasPrefix(host, "10.77.") {
		t.Errorf("the viewer is at %s (%v), want an endpoint's own address", addr, err)
	}
	v := s.connect(l.ViewerURL, "")
	v.mustLive(t)
	s.admitOffice(false)
	s.refusedSoon(office, net.JoinHostPort(host, "443"))
	silent(t, office, net.JoinHostPort(host, "443"))
	v.mustLive(t)
	s.admitOffice(true)
	if b, err := talkTrusting(t, s.roots(), office, net.JoinHostPort(host, "443")); err != nil || b == "" {
		t.Errorf("after the rule came back: %q, %v", b, err)
	}
	s.stalled(v, office, net.JoinHostPort(host, "443"))

	// kill -9 leaves a namespace and a link; the next start takes them away and serves.
	s.kill()
	if n, links := s.left(); n != 1 || links != 1 {
		t.Errorf("after SIGKILL: %d namespaces, %d links: the test does not test", n, links)
	}
	s = start(t, dir, "--net", "kernel")
	office, guests = s.kernelContract()
	at := net.JoinHostPort(s.info.EndpointAddresses[0].Dial, "443")
	if b, err := talkTrusting(t, s.roots(), office, at); err != nil || b == "" {
		t.Errorf("after a restart: %q, %v", b, err)
	}
	silent(t, guests, at)
	if n, links := s.left(); n != 1 || links != 1 {
		t.Errorf("after a restart: %d namespaces, %d links, want one of each", n, links)
	}
	s.stop()
	if n, links := s.left(); n != 0 || links != 0 {
		t.Errorf("after SIGTERM: %d namespaces and %d links were left", n, links)
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil || len(routes) != 0 {
		t.Errorf("after SIGTERM: routes %v, %v", routes, err)
	}
	attachedNetwork(t)
}

// attachedNetwork: users in another namespace, named on the command line, with a network that the demo's group admits.
func attachedNetwork(t *testing.T) {
	name := fmt.Sprintf("penstock-e2e-%d-%d", os.Getpid(), time.Now().UnixNano())
	for _, args := range [][]string{{"netns", "add", name}, {"-n", name, "link", "set", "lo", "up"}} {
		if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	s := start(t, t.TempDir(), "--net", "kernel", "--attach", "netns="+name+",networks=10.99.0.0/16,addresses=10.99.0.7")
	if len(s.info.UserNetworks) != 1 || s.info.UserNetworks[0].CIDR != "10.99.0.0/16" {
		t.Errorf("networks of users: %+v", s.info.UserNetworks)
	}
	ns, err := netns.GetFromName(name)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	at := net.JoinHostPort(s.info.EndpointAddresses[0].Dial, "443")
	said := make(chan string, 1)
	go func() {
		runtime.LockOSThread() // and the thread ends with the goroutine
		if err := netns.Set(ns); err != nil {
			said <- err.Error()
			return
		}
		b, err := talkTrusting(t, s.roots(), "10.99.0.7", at)
		said <- fmt.Sprint(b, err)
	}()
	if b := <-said; !strings.HasPrefix(b, "HTTP/1.1 ") {
		t.Errorf("from the namespace to %s: %s", at, b)
	}
	d := net.Dialer{Timeout: time.Second}
	if c, err := d.DialContext(t.Context(), "tcp", at); err == nil {
		_ = c.Close() // that it came about is the failure
		t.Error("the machine itself, which was not attached, reached the endpoint")
	}
	s.stop()
}

// admitOffice gives the demo's group its rule for the office and port 443, or takes it. The SDK is quicker than the AWS CLI: meanwhile a
// viewer says nothing.
func (s *server) admitOffice(admit bool) {
	s.t.Helper()
	_, client := s.sdk()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	groups, err := client.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{
		Filters: []ec2types.Filter{{Name: aws.String("group-name"), Values: []string{"demo-streaming"}}},
	})
	if err != nil || len(groups.SecurityGroups) != 1 {
		s.t.Fatalf("the demo's group: %v", err)
	}
	id := groups.SecurityGroups[0].GroupId
	rule := []ec2types.IpPermission{{
		IpProtocol: aws.String("tcp"), FromPort: aws.Int32(443), ToPort: aws.Int32(443),
		IpRanges: []ec2types.IpRange{{CidrIp: aws.String(s.info.UserNetworks[0].CIDR)}},
	}}
	if admit {
		_, err = client.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: id, IpPermissions: rule})
	} else {
		_, err = client.RevokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: id, IpPermissions: rule})
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// stalled: a network ACL remembers nothing, so one that denies the office stalls a running session at once, until its entry goes.
func (s *server) stalled(v *viewer, source, at string) {
	s.t.Helper()
	_, client := s.sdk()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	acls, err := client.DescribeNetworkAcls(ctx, &ec2.DescribeNetworkAclsInput{
		Filters: []ec2types.Filter{{Name: aws.String("vpc-id"), Values: []string{s.info.VPCID}}},
	})
	if err != nil || len(acls.NetworkAcls) != 1 {
		s.t.Fatalf("the demo's network ACL: %v", err)
	}
	id := acls.NetworkAcls[0].NetworkAclId
	if _, err := client.CreateNetworkAclEntry(ctx, &ec2.CreateNetworkAclEntryInput{
		NetworkAclId: id, RuleNumber: aws.Int32(1), Egress: aws.Bool(false), Protocol: aws.String("-1"), RuleAction: ec2types.RuleActionDeny,
		CidrBlock: aws.String(s.info.UserNetworks[0].CIDR),
	}); err != nil {
		s.t.Fatal(err)
	}
	s.refusedSoon(source, at)
	pong := make(chan error, 1)
	go func() { pong <- v.ping() }()
	select {
	case err := <-pong:
		s.t.Errorf("a packet of the session passed the network ACL that denies it (%v)", err)
	case <-time.After(500 * time.Millisecond):
	}
	if _, err := client.DeleteNetworkAclEntry(ctx, &ec2.DeleteNetworkAclEntryInput{
		NetworkAclId: id, RuleNumber: aws.Int32(1), Egress: aws.Bool(false),
	}); err != nil {
		s.t.Fatal(err)
	}
	select {
	case err := <-pong: // TCP sends again what was dropped
		if err != nil {
			s.t.Fatal(err)
		}
	case <-time.After(patience):
		s.t.Fatal("the stalled session did not go on")
	}
}

// refusedSoon waits until a change of rules is in force: then a new connection gets no answer, or ends without a byte.
func (s *server) refusedSoon(source, at string) {
	s.t.Helper()
	until(s.t, "refusal at "+at, func() bool {
		d := net.Dialer{Timeout: 300 * time.Millisecond, LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
		c, err := d.DialContext(s.t.Context(), "tcp", at)
		if err != nil {
			return true
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience)) // the read says it
		_, _ = c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
		n, _ := c.Read(make([]byte, 1))
		return n == 0
	})
}

// ping waits for the answer to a ping.
func (v *viewer) ping() error {
	if err := v.conn.Write(v.ctx, websocket.MessageBinary, []byte{0x03, 1, 2, 3, 4, 5, 6, 7, 8}); err != nil {
		return err
	}
	for {
		_, b, err := v.conn.Read(v.ctx)
		if err != nil || b[0] == 0x04 {
			return err
		}
	}
}

// kernelContract checks dev.json and returns an address of each user network that this machine plays.
func (s *server) kernelContract() (office, guests string) {
	s.t.Helper()
	if s.info.Net != "kernel" || len(s.info.EndpointAddresses) != 2 || len(s.info.UserNetworks) < 2 {
		s.t.Fatalf("dev.json: %+v", s.info)
	}
	for _, a := range s.info.EndpointAddresses {
		if a.Private != a.Dial {
			s.t.Errorf("%s is dialled at %s", a.Private, a.Dial)
		}
	}
	var first []string
	for _, n := range s.info.UserNetworks {
		p, err := netip.ParsePrefix(n.CIDR)
		if err != nil || n.CIDR != n.Dial {
			s.t.Fatalf("user network %+v: %v", n, err)
		}
		first = append(first, p.Addr().Next().String())
	}
	return first[0], first[1]
}

// silent wants no answer at all to a connection.
func silent(t *testing.T, source, at string) {
	t.Helper()
	d := net.Dialer{Timeout: 300 * time.Millisecond, LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}}
	c, err := d.DialContext(t.Context(), "tcp", at)
	if err == nil {
		_ = c.Close() // that it came about is the failure
	}
	if e, ok := errors.AsType[net.Error](err); !ok || !e.Timeout() {
		t.Errorf("%s to %s: %v, want silence", source, at, err)
	}
}

// left counts the server's namespaces and links.
func (s *server) left() (namespaces, links int) {
	s.t.Helper()
	names, err := filepath.Glob("/run/netns/penstock-*-" + strings.TrimPrefix(s.info.VPCID, "vpc-"))
	if err != nil {
		s.t.Fatal(err)
	}
	all, err := netlink.LinkList()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, l := range all {
		if strings.HasPrefix(l.Attrs().Name, "psk") {
			links++
		}
	}
	return len(names), links
}
