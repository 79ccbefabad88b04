package kernel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/hostnet/door"
	"penstock.dev/penstock/internal/vpc"
)

// The property: for any rules and any flow, what the kernel does is what Explain says.
const (
	propertySets  = 56
	propertyFlows = 400 // a rule set
)

// chance is a source of rules and flows that is the same for the same seed.
type chance struct{ *rand.Rand }

func (c chance) yes(percent int) bool { return c.IntN(100) < percent }

func pick[T any](c chance, from ...T) T { return from[c.IntN(len(from))] }

func (c chance) peer() netip.Prefix {
	return netip.MustParsePrefix(pick(c, "192.168.0.0/16", "192.168.0.0/16", "0.0.0.0/0", "0.0.0.0/0", "172.16.0.0/16", "192.168.0.7/32", "192.168.0.0/29",
		"192.168.9.0/24", "172.16.0.0/12", "10.77.0.0/16", "10.77.1.0/24", "10.77.2.10/32", "::/0",
		"fd01::/64", "fd01::/64", "::/0", "::/0", "fd02::/64", "fd01::7/128", "fd01::/125", "fd01:0:0:9::/64", "fd00::/12", "fd00:77::/56", "fd00:77:0:1::/64", "fd00:77:0:3::10/128"))
}

// lists are prefix lists that overlap each other and themselves; one of them is of the other family, one empty.
func (c chance) lists() []*vpc.PrefixList {
	out := []*vpc.PrefixList{
		{ID: "pl-1", AddressFamily: vpc.FamilyIPv4}, {ID: "pl-2", AddressFamily: vpc.FamilyIPv4}, {ID: "pl-3", AddressFamily: vpc.FamilyIPv6}, {ID: "pl-4", AddressFamily: vpc.FamilyIPv4},
	}
	for _, l := range out[:3] {
		for range 2 + c.IntN(7) {
			if p := c.peer(); (vpc.FamilyOf(p.Addr()) == l.AddressFamily) && p.Bits() > 0 {
				l.Entries = append(l.Entries, vpc.PrefixListEntry{CIDR: p})
			}
		}
	}
	return out
}

func (c chance) list() vpc.PrefixListID {
	return pick[vpc.PrefixListID](c, "pl-1", "pl-1", "pl-2", "pl-2", "pl-3", "pl-3", "pl-3", "pl-4", "pl-gone")
}

func (c chance) traffic(ephemeral bool) (vpc.Protocol, vpc.PortRange) {
	switch p := c.IntN(100); {
	case p < 25:
		return vpc.AllProtocols, vpc.AllPorts
	case p < 30:
		return vpc.UDP, vpc.PortRange{From: 0, To: 65535}
	case p < 33:
		return vpc.ICMP, vpc.AllPorts
	case p < 35:
		return vpc.Protocol(0), vpc.AllPorts
	}
	if ephemeral {
		from := pick(c, 0, 1024, 1024, 32768, 49152, c.IntN(65536))
		return vpc.TCP, vpc.PortRange{From: from, To: max(from, pick(c, 65535, 65535, 60999, 61000, c.IntN(65536)))}
	}
	return vpc.TCP, pick(c, vpc.PortRange{From: 443, To: 443}, vpc.PortRange{From: 1400, To: 1499}, vpc.PortRange{From: 1400, To: 1499}, vpc.PortRange{From: 1400, To: 1498},
		vpc.PortRange{From: 1450, To: 1450}, vpc.PortRange{From: 0, To: 65535}, vpc.AllPorts, vpc.PortRange{From: 22, To: 1400})
}

func (c chance) entries() (out []vpc.NetworkACLEntry) {
	for _, egress := range []bool{false, true} {
		numbers := c.Perm(30)
		for i := range c.IntN(8) {
			p, ports := c.traffic(egress)
			out = append(out, vpc.NetworkACLEntry{Number: 1 + numbers[i], Egress: egress, Allow: c.yes(60), Protocol: p, CIDR: c.peer(), Ports: ports})
		}
		if c.yes(80) {
			out = append(out, vpc.NetworkACLEntry{Number: 100, Egress: egress, Allow: true, Protocol: vpc.AllProtocols, CIDR: netip.MustParsePrefix("0.0.0.0/0"), Ports: vpc.AllPorts})
		}
		if c.yes(80) {
			out = append(out, vpc.NetworkACLEntry{Number: 101, Egress: egress, Allow: true, Protocol: vpc.AllProtocols, CIDR: netip.MustParsePrefix("::/0"), Ports: vpc.AllPorts})
		}
	}
	c.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// plan is a VPC with random rules: subnets of both families, of IPv4 and of IPv6 alone, and interfaces with one address or two,
// one of which serves only 443.
func (c chance) plan() vpc.Plan {
	service := func(name string) []vpc.PortRange {
		s, _ := vpc.FindService("us-east-1", name)
		return s.Ports
	}
	const streaming, api = "com.amazonaws.us-east-1.appstream.streaming", "com.amazonaws.us-east-1.appstream.api"
	block := netip.MustParsePrefix
	v := &vpc.VPC{
		ID: "vpc-0000000000000c0de", CIDR: block("10.77.0.0/16"), Gateway: "vgw-1",
		Secondary: []vpc.CIDRBlock{{CIDR: block("10.78.4.0/24")}}, IPv6: []vpc.CIDRBlock{{CIDR: block("fd00:77::/56")}},
	}
	r := vpc.Resources{
		VPCs: []*vpc.VPC{v}, EndpointPorts: service,
		UserNetworks: []netip.Prefix{block("192.168.0.0/16"), block("172.16.0.0/16"), block("fd01::/48"), block("fd02::/64")},
		Subnets: []*vpc.Subnet{
			{ID: "subnet-a", VPC: v.ID, CIDR: block("10.77.1.0/24"), IPv6: block("fd00:77:0:1::/64")},
			{ID: "subnet-b", VPC: v.ID, CIDR: block("10.77.2.0/24")},
			{ID: "subnet-c", VPC: v.ID, IPv6: block("fd00:77:0:3::/64")},
			{ID: "subnet-d", VPC: v.ID, CIDR: block("10.78.4.0/25")},
		},
		Endpoints: []*vpc.Endpoint{{ID: "vpce-s", VPC: v.ID, Service: streaming}, {ID: "vpce-a", VPC: v.ID, Service: api}},
	}
	r.PrefixLists = c.lists()
	groups := []vpc.SecurityGroupID{"sg-1", "sg-2", "sg-3"}
	for _, id := range groups {
		g := &vpc.SecurityGroup{ID: id, VPC: v.ID}
		for i := range c.IntN(8) {
			p, ports := c.traffic(false)
			rule := vpc.SecurityGroupRule{ID: vpc.SecurityGroupRuleID(fmt.Sprintf("sgr-%s-%d", id, i)), Egress: c.yes(25), Protocol: p, Ports: ports, Peer: vpc.Peer{CIDR: c.peer()}}
			switch p := c.IntN(100); {
			case p < 20:
				rule.Peer = vpc.Peer{Group: pick(c, groups...)}
			case p < 50:
				rule.Peer = vpc.Peer{PrefixList: c.list()}
			}
			g.Rules = append(g.Rules, rule)
		}
		if c.yes(50) {
			g.Rules = append(g.Rules, vpc.SecurityGroupRule{ID: vpc.SecurityGroupRuleID("sgr-all-" + string(id)), Egress: true, Protocol: vpc.AllProtocols, Ports: vpc.AllPorts, Peer: vpc.Peer{CIDR: netip.MustParsePrefix("0.0.0.0/0")}})
		}
		if c.yes(50) {
			g.Rules = append(g.Rules, vpc.SecurityGroupRule{ID: vpc.SecurityGroupRuleID("sgr-all6-" + string(id)), Egress: true, Protocol: vpc.AllProtocols, Ports: vpc.AllPorts, Peer: vpc.Peer{CIDR: netip.MustParsePrefix("::/0")}})
		}
		r.Groups = append(r.Groups, g)
	}
	one := &vpc.NetworkACL{ID: "acl-1", VPC: v.ID, Entries: c.entries()}
	two := &vpc.NetworkACL{ID: "acl-2", VPC: v.ID, Entries: c.entries()}
	r.ACLs = []*vpc.NetworkACL{one, two}
	for _, s := range r.Subnets {
		if c.yes(3) {
			continue // a subnet without an ACL admits nothing
		}
		a := pick(c, one, two)
		a.Associations = append(a.Associations, vpc.NetworkACLAssociation{Subnet: s.ID})
	}
	for i, as := range []vpc.RouteTableAssociation{{Main: true}, {Subnet: "subnet-b"}} {
		t := &vpc.RouteTable{ID: vpc.RouteTableID(fmt.Sprintf("rtb-%d", i)), VPC: v.ID, Propagates: c.yes(80), Associations: []vpc.RouteTableAssociation{as}}
		for _, to := range []string{"192.168.0.0/29", "192.168.0.0/16", "172.16.0.0/24", "0.0.0.0/0", "::/0", "fd01::/125", "fd01::/48", "fd02::/80"} {
			switch n := c.IntN(100); {
			case n < 15:
				t.Routes = append(t.Routes, vpc.Route{CIDR: netip.MustParsePrefix(to), Gateway: "vgw-1"})
			case n < 25:
				t.Routes = append(t.Routes, vpc.Route{CIDR: netip.MustParsePrefix(to), Interface: "eni-blackhole"})
			case n < 28:
				t.Routes = append(t.Routes, vpc.Route{CIDR: netip.MustParsePrefix(to), Gateway: "vgw-gone"})
			}
		}
		if c.yes(30) {
			t.Routes = append(t.Routes, pick(c, vpc.Route{PrefixList: c.list(), Gateway: "vgw-1"}, vpc.Route{PrefixList: c.list(), Interface: "eni-blackhole"}))
		}
		r.RouteTables = append(r.RouteTables, t)
	}
	for _, i := range []struct {
		id       vpc.NetworkInterfaceID
		subnet   vpc.SubnetID
		addr     string
		addr6    string
		endpoint vpc.EndpointID
		service  string
	}{
		{"eni-a", "subnet-a", "10.77.1.10", "fd00:77:0:1::10", "vpce-s", streaming},
		{"eni-b", "subnet-b", "10.77.2.10", "", "vpce-s", streaming},
		{"eni-api", "subnet-a", "10.77.1.11", "fd00:77:0:1::11", "vpce-a", api},
		{"eni-c", "subnet-c", "", "fd00:77:0:3::10", "vpce-s", streaming},
		{"eni-d", "subnet-d", "10.78.4.10", "", "vpce-s", streaming},
	} {
		order := c.Perm(len(groups))
		n := &vpc.NetworkInterface{ID: i.id, VPC: v.ID, Subnet: i.subnet, Endpoint: i.endpoint}
		if i.addr != "" {
			n.Addr = netip.MustParseAddr(i.addr)
		}
		if i.addr6 != "" {
			n.Addr6 = netip.MustParseAddr(i.addr6)
		}
		for _, g := range order[:c.IntN(3)+min(1, c.IntN(9))] {
			n.Groups = append(n.Groups, groups[g])
		}
		r.Interfaces = append(r.Interfaces, n)
	}
	p := vpc.Plan{Snapshot: vpc.NewSnapshot(r)}
	for _, n := range r.Interfaces {
		e := r.Endpoints[slices.IndexFunc(r.Endpoints, func(e *vpc.Endpoint) bool { return e.ID == n.Endpoint })]
		for _, a := range n.Addrs() {
			p.Interfaces = append(p.Interfaces, vpc.PlannedInterface{ID: n.ID, Endpoint: e.ID, Service: e.Service, VPC: v.ID, Addr: a, Ports: service(e.Service)})
		}
	}
	return p
}

// propertySources are addresses of users; more than those that the rules like to name.
func propertySources() []netip.Addr {
	var out []netip.Addr
	for _, a := range []string{
		"192.168.0.7", "192.168.0.8", "192.168.9.9", "172.16.0.5", "172.16.3.3", "192.168.200.1",
		"fd01::7", "fd01::8", "fd01:0:0:9::9", "fd02::5", "fd02::1:0:0:5", "fd01::200:1",
	} {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func (c chance) flow(p vpc.Plan, inside bool) vpc.Flow {
	f := vpc.Flow{VPC: p.Interfaces[0].VPC, Protocol: vpc.TCP}
	to := pick(c, p.Interfaces...).Addr
	same := func(a netip.Addr) bool { return a.Is4() == to.Is4() && a != to }
	var from netip.Addr
	for from = to; !same(from); {
		if from = pick(c, propertySources()...); inside {
			from = pick(c, p.Interfaces...).Addr
		}
	}
	switch {
	case inside:
		f.SrcVPC = f.VPC
	case c.yes(3) && to.Is4():
		to = netip.MustParseAddr(pick(c, "10.77.1.99", "10.77.2.5", "10.77.9.9", "10.78.4.11", "10.78.4.200"))
	case c.yes(3) && to.Is6(): // among them where an IPv4-only interface is
		to = netip.MustParseAddr(pick(c, "fd00:77:0:1::99", "fd00:77:0:2::10", "fd00:77:0:3::11", "fd00:77:0:9::9"))
	}
	port := pick[uint16](c, 443, 443, 1400, 1450, 1499, 1498, 1500, 22, 1399)
	f.Dst = netip.AddrPortFrom(to, port)
	f.Src = netip.AddrPortFrom(from, uint16(pick(c, 1024+c.IntN(31744), 32768+c.IntN(28232), 61000+c.IntN(4535))))
	return f
}

// attempt is a connection that was begun.
type attempt struct {
	flow vpc.Flow
	want vpc.Verdict
	fd   int
	got  vpc.Symptom // Timeout until something comes
}

// begin starts a connection from a thread of the namespace; false when the port is taken.
func (a *attempt) begin() (bool, error) {
	domain := unix.AF_INET
	if a.flow.Src.Addr().Is6() {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	a.fd, a.got = fd, vpc.Timeout
	err = errors.Join(
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	if err != nil {
		return false, err
	}
	if err := unix.Bind(fd, sockaddr(a.flow.Src)); errors.Is(err, unix.EADDRINUSE) {
		return false, unix.Close(fd)
	} else if err != nil {
		return false, errors.Join(fmt.Errorf("bind %s: %w", a.flow.Src, err), unix.Close(fd))
	}
	switch err := unix.Connect(fd, sockaddr(a.flow.Dst)); {
	case err == nil:
		a.got = vpc.Connected
	case errors.Is(err, unix.EINPROGRESS):
	case errors.Is(err, unix.ECONNREFUSED):
		a.got = vpc.Refused
	case errors.Is(err, unix.EADDRNOTAVAIL), errors.Is(err, unix.EADDRINUSE):
		return false, unix.Close(fd)
	default:
		a.got = vpc.NoRoute
	}
	return true, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// answers waits until everything that should answer has, at most patience, and then for what should not: grace, or twice what the
// slowest answer took on a busy machine (at most a second).
func answers(all []*attempt, patience, grace time.Duration) error {
	began := time.Now()
	end := began.Add(patience)
	waiting, last := false, false
	for {
		var polls []unix.PollFd
		var of []*attempt
		hoped := 0
		for _, a := range all {
			if a.got != vpc.Timeout {
				continue
			}
			polls, of = append(polls, unix.PollFd{Fd: int32(a.fd), Events: unix.POLLOUT}), append(of, a)
			if a.want.Symptom != vpc.Timeout {
				hoped++
			}
		}
		if hoped == 0 && !waiting {
			waiting, end = true, time.Now().Add(max(grace, min(2*time.Since(began), time.Second)))
		}
		left := time.Until(end)
		if last || len(polls) == 0 {
			return nil
		}
		last = left <= 0 // answers that came while this thread did not run count
		left = max(left, 0)
		if _, err := unix.Poll(polls, int((left+time.Millisecond-1)/time.Millisecond)); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		for i, p := range polls {
			if p.Revents == 0 {
				continue
			}
			code, err := unix.GetsockoptInt(int(p.Fd), unix.SOL_SOCKET, unix.SO_ERROR)
			switch {
			case err != nil:
				return err
			case code == int(unix.ECONNREFUSED):
				of[i].got = vpc.Refused
			case code == 0 || code == int(unix.ECONNRESET) || code == int(unix.EPIPE): // reset after the handshake, when its server goes
				of[i].got = vpc.Connected
			default:
				of[i].got = vpc.NoRoute
			}
		}
	}
}

// ends are the two ends of a connection. No two connections of a test have the same: connection tracking remembers for a
// while what it admitted under other rules.
type ends struct{ src, dst netip.AddrPort }

// outcome is how a connection of a family went.
type outcome struct {
	vpc.AddressFamily
	vpc.Symptom
}

// waits bound how long a try waits for what should answer: when all are made, and when those that no answer came to are made again by
// themselves. Where packets are lost, as a busy machine loses them when its queues are full, silence proves nothing at once.
type waits struct{ first, again time.Duration }

// confirm makes connections once more whose answers did not come, without the others, and returns those that still go otherwise.
// An answer that must not come is wrong at once: nothing lost makes one.
func confirm(wrong []*attempt, patience time.Duration) (still, again []*attempt, err error) {
	for _, a := range wrong {
		if a.got != vpc.Timeout && a.got != vpc.NoRoute {
			still = append(still, a)
			continue
		}
		if err := unix.Close(a.fd); err != nil {
			return nil, nil, err
		}
		a.fd = -1
		switch ok, err := a.begin(); {
		case err != nil:
			return nil, nil, err
		case !ok:
			a.fd = -1
			return nil, nil, fmt.Errorf("%+v: its port was taken between two tries", a.flow)
		}
		again = append(again, a)
	}
	if err := answers(again, patience, 12*time.Millisecond); err != nil {
		return nil, nil, err
	}
	for _, a := range again {
		if a.got != a.want.Symptom {
			still = append(still, a)
		}
	}
	return still, again, nil
}

// tried is how the connections of a try went.
type tried struct {
	wrong []*attempt // otherwise than Explain says
	again int        // were made once more
	tally map[outcome]int
}

// try makes connections from a namespace.
func try(ns netns.NsHandle, c chance, p vpc.Plan, n int, inVPC bool, wait waits, seen map[ends]bool) (out tried, err error) {
	out.tally = map[outcome]int{}
	err = inside(ns, func() error {
		var all []*attempt
		defer func() {
			for _, a := range all {
				if a.fd >= 0 {
					_ = unix.Close(a.fd) // it was only an attempt
				}
			}
		}()
		for len(all) < n {
			a := &attempt{flow: c.flow(p, inVPC)}
			if seen[ends{a.flow.Src, a.flow.Dst}] {
				continue
			}
			seen[ends{a.flow.Src, a.flow.Dst}] = true
			a.want = p.Snapshot.Explain(a.flow)
			ok, err := a.begin()
			if err != nil {
				return err
			}
			if ok {
				all = append(all, a)
			}
		}
		if err := answers(all, wait.first, 12*time.Millisecond); err != nil {
			return err
		}
		for _, a := range all {
			if a.got != a.want.Symptom {
				out.wrong = append(out.wrong, a)
			}
		}
		if wait.again > 0 && len(out.wrong) > 0 {
			var again []*attempt
			var err error
			if out.wrong, again, err = confirm(out.wrong, wait.again); err != nil {
				return err
			}
			out.again = len(again)
		}
		for _, a := range all {
			out.tally[outcome{vpc.FamilyOf(a.flow.Src.Addr()), a.got}]++
		}
		return nil
	})
	return out, err
}

// startProperty is a driver whose connections nobody wants.
func startProperty(t testing.TB) (*users, *Driver) {
	u, d, _ := startPropertyTold(t, Config{})
	return u, d
}

// startPropertyTold is startProperty with what the driver tells of.
func startPropertyTold(t testing.TB, cfg Config) (*users, *Driver, *refusals) {
	u := newUsers(t)
	at := u.attachment()
	at.Networks[2] = netip.MustParsePrefix("fd01::/48")
	at.Addresses = propertySources()
	cfg.Attachments, cfg.Limits, cfg.HealEvery = []Attachment{at}, door.Limits{Waiting: 4096}, time.Hour
	d, r := start(t, u, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := d.Accept(ctx)
			if err != nil {
				return
			}
			if tcp, ok := c.TCP(); ok {
				_ = tcp.SetLinger(0) // so that no packet of it comes later
			}
			_ = c.Close() // that it came about is all
		}
	})
	t.Cleanup(func() {
		cancel()
		work.Wait()
	})
	return u, d, r
}

func (d *Driver) namespace(t testing.TB, id vpc.VPCID) netns.NsHandle {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.networks[id]
	if n == nil {
		t.Fatalf("%s is not on the network", id)
	}
	return n.ns
}

func describe(a *attempt) string {
	return fmt.Sprintf("%+v: kernel %s, Explain %s: %+v", a.flow, a.got, a.want.Symptom, a.want.Blocked())
}

func TestKernelDoesWhatExplainSays(t *testing.T) {
	u, d := startProperty(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	total := map[outcome]int{}
	count, wrongs, again := 0, 0, 0
	wait := waits{5 * time.Second, 30 * time.Second} // the kernel's own tries last longer than that
	seen := map[ends]bool{}
	began := time.Now()
	for set := range propertySets {
		c := chance{rand.New(rand.NewPCG(seed, uint64(set)))}
		p := c.plan()
		if err := d.Apply(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		for _, from := range []struct {
			ns    netns.NsHandle
			n     int
			inVPC bool
		}{{u.ns, propertyFlows * 7 / 8, false}, {d.namespace(t, p.Interfaces[0].VPC), propertyFlows / 8, true}} {
			got, err := try(from.ns, c, p, from.n, from.inVPC, wait, seen)
			if err != nil {
				t.Fatal(err)
			}
			again += got.again
			for k, n := range got.tally {
				total[k] += n
				count += n
			}
			if len(got.wrong) > 0 {
				wait.again = 0 // it has failed; what else goes wrong is shown, not proved
			}
			for _, a := range got.wrong {
				if wrongs++; wrongs <= 5 {
					t.Errorf("set %d: %s", set, describe(a))
				}
			}
		}
		if wrongs > 5 {
			t.Logf("rules of the last set:\n%s", d.networks[p.Interfaces[0].VPC].rules)
			break
		}
	}
	t.Logf("%d connects in %v, %d made again, %d mismatches: %v", count, time.Since(began).Round(time.Millisecond), again, wrongs, total)
	for _, f := range []vpc.AddressFamily{vpc.FamilyIPv4, vpc.FamilyIPv6} {
		if wrongs == 0 && (count < 20000 || total[outcome{f, vpc.Connected}] < count/100 || total[outcome{f, vpc.Refused}] == 0) {
			t.Errorf("the test is too weak for %s: %d connects, %v", f, count, total)
		}
	}
}

// TestLostPacketsAreNoMismatch: what is lost is asked for again before it is called a mismatch, and what stays lost is one.
func TestLostPacketsAreNoMismatch(t *testing.T) {
	u, d := startProperty(t)
	var c chance
	var p vpc.Plan
	for set, answered := uint64(0), 0; answered < 20; set++ { // rules that admit some
		c = chance{rand.New(rand.NewPCG(3, set))}
		p, answered = c.plan(), 0
		for range 200 {
			if p.Snapshot.Explain(c.flow(p, false)).Symptom != vpc.Timeout {
				answered++
			}
		}
	}
	if err := d.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	nft := func(rules string) error {
		return inside(u.ns, func() error {
			if out, err := exec.Command("nft", rules).CombinedOutput(); err != nil {
				return fmt.Errorf("nft: %w: %s", err, out)
			}
			return nil
		})
	}
	seen := map[ends]bool{}
	for _, tt := range []struct {
		name string
		lost time.Duration // 0: for good
	}{{"for a while", 600 * time.Millisecond}, {"for good", 0}} {
		t.Run(tt.name, func(t *testing.T) {
			if err := nft("add table inet lossy; add chain inet lossy in { type filter hook input priority 0; policy drop; }"); err != nil {
				t.Fatal(err)
			}
			end := make(chan error, 1)
			wait := waits{200 * time.Millisecond, 2500 * time.Millisecond}
			if tt.lost > 0 {
				wait.again = 30 * time.Second
				time.AfterFunc(tt.lost, func() { end <- nft("delete table inet lossy") })
			} else {
				defer func() { end <- nft("delete table inet lossy") }()
			}
			got, err := try(u.ns, c, p, 100, false, wait, seen)
			if err != nil {
				t.Fatal(err)
			}
			if tt.lost > 0 {
				if err := <-end; err != nil {
					t.Fatal(err)
				}
			}
			if got.again == 0 || (len(got.wrong) > 0) != (tt.lost == 0) || tt.lost == 0 && len(got.wrong) != got.again {
				t.Errorf("%d connects were made again, %d are mismatches", got.again, len(got.wrong))
			}
		})
	}
}

// TestPropertyCatchesWrongCompilers plants errors between the compiler and the kernel; each must be seen.
func TestPropertyCatchesWrongCompilers(t *testing.T) {
	u, d := startProperty(t)
	each := func(prefix string, f func(*vpc.Rule)) func(*vpc.Ruleset) {
		return func(r *vpc.Ruleset) {
			for i := range r.Chains {
				if !strings.HasPrefix(r.Chains[i].Name, prefix) {
					continue
				}
				for j := range r.Chains[i].Rules {
					f(&r.Chains[i].Rules[j])
				}
			}
		}
	}
	ports := func(r *vpc.Rule, f func(*vpc.PortRange)) {
		if r.Traffic != nil {
			other := *r.Traffic
			f(&other.Ports)
			r.Traffic = &other
		}
	}
	seen := map[ends]bool{}
	for number, tt := range []struct {
		name   string
		change func(*vpc.Ruleset)
	}{
		{"none", nil},
		{"last port off by one", each("group-in-", func(r *vpc.Rule) {
			ports(r, func(p *vpc.PortRange) {
				if p.To == 1499 {
					p.To = 1498
				}
			})
		})},
		{"network ACL not in order", func(r *vpc.Ruleset) {
			for _, c := range r.Chains {
				if strings.HasPrefix(c.Name, "in-") || strings.HasPrefix(c.Name, "out-") {
					slices.Reverse(c.Rules[:len(c.Rules)-1])
				}
			}
		}},
		{"ephemeral ports forgotten", each("out-", func(r *vpc.Rule) { ports(r, func(p *vpc.PortRange) { *p = vpc.AllPorts }) })},
		{"blackholes forgotten", each("routes-", func(r *vpc.Rule) { r.Action = vpc.ActionAccept })},
		{"group stands for everybody", each("group-in-", func(r *vpc.Rule) { r.SrcSet = "" })},
		{"prefix one bit short", each("group-in-", func(r *vpc.Rule) {
			if r.Src.Bits() > 8 {
				r.Src = netip.PrefixFrom(r.Src.Addr(), r.Src.Bits()-8).Masked()
			}
		})},
		{"prefix list ends one block late", func(r *vpc.Ruleset) {
			for i := range r.Sets {
				for j := range r.Sets[i].Ranges {
					last := &r.Sets[i].Ranges[j].Last
					if next := last.Next(); next.IsValid() {
						if *last = netip.MustParseAddr("255.255.255.254"); next.Is6() {
							*last = netip.MustParseAddr("feff::")
						}
						r.Sets[i].Ranges = r.Sets[i].Ranges[:j+1]
						break
					}
				}
			}
		}},
		{"first entry of a prefix list forgotten", func(r *vpc.Ruleset) {
			for i := range r.Sets {
				if len(r.Sets[i].Ranges) > 0 {
					r.Sets[i].Ranges = r.Sets[i].Ranges[1:]
				}
			}
		}},
		{"ports of another interface", each("listen-", func(r *vpc.Rule) { r.Action = vpc.ActionAccept })},
		{"own subnet judged", each("acl-in", func(r *vpc.Rule) {
			if r.Src.IsValid() && r.Src.Bits() == 24 {
				r.Action = vpc.ActionDrop
			}
		})},
		{"own IPv6 subnet judged", each("acl-in", func(r *vpc.Rule) {
			if r.Src.IsValid() && r.Src.Bits() == 64 {
				r.Action = vpc.ActionDrop
			}
		})},
		{"::/0 stands for IPv4 too", each("group-in-", func(r *vpc.Rule) {
			if r.Src == netip.MustParsePrefix("::/0") {
				r.Src = netip.Prefix{}
			}
		})},
		{"0.0.0.0/0 stands for IPv6 too", each("in-acl", func(r *vpc.Rule) {
			if r.Src == netip.MustParsePrefix("0.0.0.0/0") {
				r.Src = netip.Prefix{}
			}
		})},
		{"IPv6 prefix cut at 64 bits", each("group-in-", func(r *vpc.Rule) {
			if r.Src.IsValid() && r.Src.Bits() > 64 {
				r.Src = netip.PrefixFrom(r.Src.Addr(), 64).Masked()
			}
		})},
		{"IPv6 blackholes forgotten", each("routes-", func(r *vpc.Rule) {
			if r.Dst.IsValid() && r.Dst.Addr().Is6() && r.OutLink == "" {
				r.Action = vpc.ActionAccept
			}
		})},
		{"IPv6 members of groups forgotten", func(r *vpc.Ruleset) {
			for i := range r.Sets {
				if s := &r.Sets[i]; strings.HasPrefix(s.Name, "members-") && s.Family == vpc.FamilyIPv6 {
					s.Addrs = nil
				}
			}
		}},
		{"IPv6 not dispatched to groups", each("groups-in", func(r *vpc.Rule) {
			if r.Action == vpc.ActionDispatch && r.Family == vpc.FamilyIPv6 {
				r.Action, r.Targets = vpc.ActionAccept, nil
			}
		})},
		{"IPv6 not dispatched to listeners", each("listeners", func(r *vpc.Rule) {
			if r.Action == vpc.ActionDispatch && r.Family == vpc.FamilyIPv6 {
				r.Action, r.Targets = vpc.ActionAccept, nil
			}
		})},
		{"second IPv4 block has no network ACL", each("acl-in", func(r *vpc.Rule) {
			if r.Dst == netip.MustParsePrefix("10.78.4.0/25") {
				r.Action, r.Chain = vpc.ActionAccept, ""
			}
		})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d.applying.Lock()
			d.change = tt.change
			d.applying.Unlock()
			wait := waits{100 * time.Millisecond, 1500 * time.Millisecond} // what does not come may be the error that is looked for
			if tt.change == nil {
				wait = waits{5 * time.Second, 30 * time.Second}
			}
			for set := range 40 {
				c := chance{rand.New(rand.NewPCG(uint64(7+number), uint64(set)))}
				p := c.plan()
				if err := d.Apply(t.Context(), p); err != nil {
					t.Fatal(err)
				}
				for _, inVPC := range []bool{false, true} {
					ns := u.ns
					if inVPC {
						ns = d.namespace(t, p.Interfaces[0].VPC)
					}
					got, err := try(ns, c, p, 100, inVPC, wait, seen)
					if err != nil {
						t.Fatal(err)
					}
					if wrong := got.wrong; len(wrong) > 0 {
						if tt.change == nil {
							t.Fatal(describe(wrong[0]))
						}
						t.Logf("seen in rule set %d, %d of 100 connects", set, len(wrong))
						return
					}
				}
			}
			if tt.change != nil {
				t.Error("the error was not seen")
			}
		})
	}
}

// TestNamedRuleIsTheOneThatCounted makes one connection at a time and reads which counters moved.
func TestNamedRuleIsTheOneThatCounted(t *testing.T) {
	u, d := startProperty(t)
	denials := map[string]int{}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	handshakes := uint64(0)
	families := map[vpc.AddressFamily]int{}
	enough := func() bool {
		return families[vpc.FamilyIPv4] >= 30 && families[vpc.FamilyIPv6] >= 30 && denials[string(vpc.HopNetworkACLIn)] > 0 && denials[string(vpc.HopNetworkACLOut)] > 0 && denials[string(vpc.HopSecurityGroup)] > 0 && denials[string(vpc.HopReturnRoute)] > 0
	}
	for set := 0; set < 12 || set < 60 && !enough(); set++ {
		c := chance{rand.New(rand.NewPCG(seed, uint64(set)))}
		p := c.plan()
		if err := d.Apply(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		id := p.Interfaces[0].VPC
		if err := inside(d.namespace(t, id), func() error { // an answer that is dropped must not be sent again while the next flow is counted
			return os.WriteFile("/proc/sys/net/ipv4/tcp_synack_retries", []byte("0"), 0o644)
		}); err != nil {
			t.Fatal(err)
		}
		egress := map[string]bool{} // rules for what interfaces send by themselves, such as the end of an earlier connection
		for _, chain := range d.networks[id].rules.Chains {
			for _, r := range chain.Rules {
				egress[r.Name] = egress[r.Name] || strings.HasPrefix(chain.Name, "group-out-")
			}
		}
		for range 25 {
			before := d.quiet(t, id, handshakes)
			flow := c.flow(p, false)
			a := &attempt{flow: flow, want: p.Snapshot.Explain(flow)}
			if err := inside(u.ns, func() error {
				ok, err := a.begin()
				if err != nil || !ok {
					return errors.Join(err, errors.New("flow was not begun"))
				}
				defer unix.Close(a.fd)
				return answers([]*attempt{a}, 5*time.Second, 4*time.Millisecond)
			}); err != nil {
				continue // the port is taken
			}
			if a.got == vpc.Connected {
				handshakes++
			}
			var after map[string]uint64
			var still []string
			for end := time.Now().Add(5 * time.Second); ; { // packets may wait for a processor
				var err error
				if after, err = d.Counters(id); err != nil {
					t.Fatal(err)
				}
				still = nil
				for _, h := range a.want.Hops {
					if h.Kind == vpc.HopListener && !strings.HasPrefix(h.Resource, "subnet-") {
						continue // listeners are counted by the port ranges that they serve
					}
					if after[h.Identity()] == before[h.Identity()] {
						still = append(still, h.Identity())
					}
				}
				if len(still) == 0 || time.Now().After(end) {
					break
				}
			}
			if len(still) > 0 {
				t.Errorf("flow %+v: Explain names %v, whose counters did not move (%s)", flow, still, a.got)
			}
			if b := a.want.Blocked(); b != nil && b.Kind != vpc.HopListener {
				denials[string(b.Kind)]++
				families[vpc.FamilyOf(flow.Dst.Addr())]++
				for name, n := range after { // nothing else of its kind denied
					if n > before[name] && strings.HasPrefix(name, string(b.Kind)) && name != b.Identity() && !passed(a.want, name) && !egress[name] {
						t.Errorf("flow %+v: %s counted too, Explain names %s", flow, name, b.Identity())
					}
				}
			}
		}
	}
	t.Logf("denials counted where Explain says: %v, %v", denials, families)
	if !enough() {
		t.Error("some kind of rule denied no flow")
	}
}

// quiet waits until the driver has closed the connections of earlier flows and their last packets were counted.
func (d *Driver) quiet(t *testing.T, id vpc.VPCID, handshakes uint64) map[string]uint64 {
	t.Helper()
	var last map[string]uint64
	same := 0
	for end := time.Now().Add(10 * time.Second); ; {
		if time.Now().After(end) {
			t.Fatalf("the network did not become quiet: %d handshakes, %+v", handshakes, d.Stats())
		}
		s := d.Stats()
		now, err := d.Counters(id)
		if err != nil {
			t.Fatal(err)
		}
		if same++; s.Open != 0 || s.Waiting != 0 || s.Admitted+s.Refused < handshakes || !maps.Equal(now, last) {
			same = 0
		}
		if same >= 2 {
			return now
		}
		last = now
	}
}

// passed says whether a rule admitted the packet before it was denied.
func passed(v vpc.Verdict, name string) bool {
	return slices.ContainsFunc(v.Hops, func(h vpc.Hop) bool { return h.Allow && h.Identity() == name })
}
