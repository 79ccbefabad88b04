// Package vpctest is the suite that every network driver passes.
package vpctest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"penstock.dev/penstock/internal/vpc"
)

// Harness is a driver with what a test needs to be its users. The office is 192.168.0.0/16, the guests' network
// 172.16.0.0/16; both are networks of users of the driver. Where Family is IPv6 they are fd01::/64 and fd02::/64.
type Harness struct {
	Driver vpc.Driver
	Family vpc.AddressFamily // of all addresses; empty: IPv4
	// Dial connects from an address of a user to an address of a VPC, port 0 of from meaning any.
	Dial func(ctx context.Context, from netip.AddrPort, id vpc.VPCID, to netip.AddrPort) (net.Conn, error)
	// Refusals are those that the driver told of so far: each connection that it refused, once.
	Refusals func() []vpc.Refusal
}

// patience bounds every wait of the suite.
const patience = 20 * time.Second

// Network is the suite's VPC: two subnets in two zones with an endpoint's interface in each, a group that admits the
// office, and the default ACL. Tests change it and plan again.
type Network struct {
	VPC        *vpc.VPC
	Subnets    []*vpc.Subnet
	Group      *vpc.SecurityGroup
	ACL        *vpc.NetworkACL
	Table      *vpc.RouteTable
	Interfaces []*vpc.NetworkInterface
	Endpoint   *vpc.Endpoint
	Lists      []*vpc.PrefixList
}

// Service is the service of the suite's endpoint.
const Service = "com.amazonaws.us-east-1.appstream.streaming"

// NewNetwork makes the suite's VPC; base is its second octet: 10.base.0.0/16.
func NewNetwork(base byte) *Network {
	id := fmt.Sprintf("%017x", base)
	cidr := func(third byte, bits int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, base, third, 0}), bits)
	}
	anywhere := netip.MustParsePrefix("0.0.0.0/0")
	n := &Network{
		VPC: &vpc.VPC{ID: vpc.VPCID("vpc-" + id), CIDR: cidr(0, 16), Gateway: vpc.GatewayID("vgw-" + id)},
		Group: &vpc.SecurityGroup{ID: vpc.SecurityGroupID("sg-" + id), Rules: []vpc.SecurityGroupRule{
			{ID: "sgr-443", Protocol: vpc.TCP, Ports: vpc.PortRange{From: 443, To: 443}, Peer: vpc.Peer{CIDR: netip.MustParsePrefix("192.168.0.0/16")}},
			{ID: "sgr-1400", Protocol: vpc.TCP, Ports: vpc.PortRange{From: 1400, To: 1499}, Peer: vpc.Peer{CIDR: netip.MustParsePrefix("192.168.0.0/16")}},
		}},
		ACL: &vpc.NetworkACL{ID: vpc.NetworkACLID("acl-" + id), Entries: []vpc.NetworkACLEntry{
			{Number: 100, Allow: true, Protocol: vpc.AllProtocols, CIDR: anywhere, Ports: vpc.AllPorts},
			{Number: 100, Egress: true, Allow: true, Protocol: vpc.AllProtocols, CIDR: anywhere, Ports: vpc.AllPorts},
		}},
		Table:    &vpc.RouteTable{ID: vpc.RouteTableID("rtb-" + id), Propagates: true, Associations: []vpc.RouteTableAssociation{{Main: true}}},
		Endpoint: &vpc.Endpoint{ID: vpc.EndpointID("vpce-" + id), Service: Service, State: vpc.EndpointAvailable},
	}
	n.Group.VPC, n.ACL.VPC, n.Table.VPC, n.Endpoint.VPC = n.VPC.ID, n.VPC.ID, n.VPC.ID, n.VPC.ID
	for i, zone := range []string{"us-east-1a", "us-east-1b"} {
		third := byte(i + 1)
		s := &vpc.Subnet{ID: vpc.SubnetID(fmt.Sprintf("subnet-%d-%s", i, id)), VPC: n.VPC.ID, CIDR: cidr(third, 24), Zone: zone}
		n.Subnets = append(n.Subnets, s)
		n.ACL.Associations = append(n.ACL.Associations, vpc.NetworkACLAssociation{Subnet: s.ID})
		n.Interfaces = append(n.Interfaces, &vpc.NetworkInterface{
			ID: vpc.NetworkInterfaceID(fmt.Sprintf("eni-%d-%s", i, id)), VPC: n.VPC.ID, Subnet: s.ID, Groups: []vpc.SecurityGroupID{n.Group.ID},
			Addr: netip.AddrFrom4([4]byte{10, base, third, 10}), Endpoint: n.Endpoint.ID,
		})
	}
	return n
}

// NewNetwork6 is NewNetwork with IPv6 addresses alone, but for the VPC's block: fd00:base::/56.
func NewNetwork6(base byte) *Network {
	n := NewNetwork(base)
	cidr := func(subnet byte, bits int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 3: base, 7: subnet}), bits)
	}
	n.VPC.IPv6 = []vpc.CIDRBlock{{Association: "vpc-cidr-assoc-1", CIDR: cidr(0, 56)}}
	for i, s := range n.Subnets {
		s.CIDR, s.IPv6 = netip.Prefix{}, cidr(byte(i+1), 64)
		a := s.IPv6.Addr().As16()
		a[15] = 16
		n.Interfaces[i].Addr, n.Interfaces[i].Addr6 = netip.Addr{}, netip.AddrFrom16(a)
	}
	for i := range n.Group.Rules {
		n.Group.Rules[i].Peer.CIDR = netip.MustParsePrefix("fd01::/64")
	}
	for i := range n.ACL.Entries {
		n.ACL.Entries[i].CIDR = netip.MustParsePrefix("::/0")
	}
	return n
}

func ports(string) []vpc.PortRange {
	return []vpc.PortRange{{From: 443, To: 443}, {From: 1400, To: 1499}}
}

// PlanOf is the plan of networks, seen by users of the two networks. The networks may be changed afterwards.
func PlanOf(networks ...*Network) vpc.Plan {
	r := vpc.Resources{
		UserNetworks: []netip.Prefix{
			netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("172.16.0.0/16"), netip.MustParsePrefix("fd01::/64"), netip.MustParsePrefix("fd02::/64"),
		}, EndpointPorts: ports,
	}
	var p vpc.Plan
	for _, n := range networks {
		v, group, acl, table := *n.VPC, *n.Group, *n.ACL, *n.Table
		group.Rules, acl.Entries = slices.Clone(group.Rules), slices.Clone(acl.Entries)
		r.VPCs, r.Groups, r.ACLs, r.RouteTables = append(r.VPCs, &v), append(r.Groups, &group), append(r.ACLs, &acl), append(r.RouteTables, &table)
		r.PrefixLists = append(r.PrefixLists, copies(n.Lists)...)
		r.Subnets, r.Interfaces, r.Endpoints = append(r.Subnets, copies(n.Subnets)...), append(r.Interfaces, copies(n.Interfaces)...), append(r.Endpoints, n.Endpoint)
		for _, i := range n.Interfaces {
			for _, a := range i.Addrs() {
				p.Interfaces = append(p.Interfaces, vpc.PlannedInterface{
					ID: i.ID, Endpoint: i.Endpoint, Service: n.Endpoint.Service, VPC: i.VPC, Addr: a, Ports: ports(n.Endpoint.Service),
				})
			}
		}
	}
	p.Snapshot = vpc.NewSnapshot(r)
	return p
}

// copies are of their own, because tests change a network while a driver has the plan before.
func copies[T any](all []*T) []*T {
	out := make([]*T, 0, len(all))
	for _, v := range all {
		out = append(out, new(*v))
	}
	return out
}

// At is the first address of the network's interface i.
func (n *Network) At(i int, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(n.Interfaces[i].Addrs()[0], port)
}

// suite is one test with a fresh driver.
type suite struct {
	Harness
	t             *testing.T
	ctx           context.Context
	office, guest netip.AddrPort
}

func newSuite(ctx context.Context, t *testing.T, h Harness) *suite {
	s := &suite{Harness: h, t: t, ctx: ctx, office: netip.MustParseAddrPort("192.168.0.7:0"), guest: netip.MustParseAddrPort("172.16.0.5:0")}
	if h.Family == vpc.FamilyIPv6 {
		s.office, s.guest = netip.MustParseAddrPort("[fd01::7]:0"), netip.MustParseAddrPort("[fd02::5]:0")
	}
	return s
}

func (s *suite) network(base byte) *Network {
	if s.Family == vpc.FamilyIPv6 {
		return NewNetwork6(base)
	}
	return NewNetwork(base)
}

// Run puts a driver through the suite; start makes a fresh one for each test and cleans up after it.
func Run(t *testing.T, start func(t *testing.T) Harness) {
	for _, tt := range []struct {
		name string
		run  func(*suite)
	}{
		{"Check", check},
		{"Admits", admits},
		{"RefusesOtherNetworks", refusesOtherNetworks},
		{"JudgesTheWayBack", judgesTheWayBack},
		{"RulesChange", rulesChange},
		{"Repeat", repeat},
		{"InterfaceLeaves", interfaceLeaves},
		{"VPCLeaves", vpcLeaves},
		{"TwoVPCsWithOneCIDR", twoVPCsWithOneCIDR},
		{"AcceptEnds", acceptEnds},
		{"Concurrent", concurrent},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
			defer cancel()
			tt.run(newSuite(ctx, t, start(t)))
		})
	}
}

func (s *suite) apply(networks ...*Network) {
	s.t.Helper()
	if err := s.Driver.Apply(s.ctx, PlanOf(networks...)); err != nil {
		s.t.Fatalf("apply: %v", err)
	}
}

func (s *suite) checked(n *Network) {
	s.t.Helper()
	for _, i := range n.Interfaces {
		if err := s.Driver.Check(s.ctx, i.ID); err != nil {
			s.t.Fatalf("check %s: %v", i.ID, err)
		}
	}
}

// connect makes a connection that must be admitted and returns both ends.
func (s *suite) connect(from netip.AddrPort, n *Network, i int, port uint16) (user net.Conn, served *vpc.Conn) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	user, err := s.Dial(ctx, from, n.VPC.ID, n.At(i, port))
	if err != nil {
		s.t.Fatalf("dial %s from %s: %v", n.At(i, port), from, err)
	}
	s.t.Cleanup(func() { _ = user.Close() })
	served, err = s.Driver.Accept(ctx)
	if err != nil {
		s.t.Fatalf("accept %s from %s: %v", n.At(i, port), from, err)
	}
	s.t.Cleanup(func() { _ = served.Close() })
	return user, served
}

// exchange sends a word each way.
func (s *suite) exchange(user net.Conn, served *vpc.Conn) {
	s.t.Helper()
	for _, c := range []struct{ from, to net.Conn }{{user, served}, {served, user}} {
		if err := errors.Join(c.from.SetDeadline(time.Now().Add(patience)), c.to.SetDeadline(time.Now().Add(patience))); err != nil {
			s.t.Fatalf("deadline: %v", err)
		}
		if _, err := io.WriteString(c.from, "hello"); err != nil {
			s.t.Fatalf("write: %v", err)
		}
		b := make([]byte, 5)
		if _, err := io.ReadFull(c.to, b); err != nil || string(b) != "hello" {
			s.t.Fatalf("read: %q, %v", b, err)
		}
	}
}

// refused makes a connection that must not come about, or end at once without a byte.
func (s *suite) refused(from netip.AddrPort, n *Network, i int, port uint16) {
	s.t.Helper()
	before := len(s.Refusals())
	ctx, cancel := context.WithTimeout(s.ctx, 3*time.Second)
	defer cancel()
	c, err := s.Dial(ctx, from, n.VPC.ID, n.At(i, port))
	for from.Port() != 0 && errors.Is(err, syscall.EADDRINUSE) { // the user's port is taken: the next one is as good
		from = netip.AddrPortFrom(from.Addr(), from.Port()+1)
		c, err = s.Dial(ctx, from, n.VPC.ID, n.At(i, port))
	}
	if err == nil {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience)) // the read says it
		got, err := c.Read(make([]byte, 1))
		if e, ok := errors.AsType[net.Error](err); got != 0 || err == nil || ok && e.Timeout() {
			s.t.Fatalf("refused connection from %s: read %d bytes, %v", from, got, err)
		}
	}
	s.await("refusal", func() bool { return len(s.Refusals()) > before })
	r := s.Refusals()[before]
	if r.Reason == "" || r.Verdict.OK || r.Verdict.Blocked() == nil || r.Interface != n.Interfaces[i].ID || r.Flow.Src.Addr() != from.Addr() {
		s.t.Fatalf("refusal = %+v", r)
	}
}

// await waits until what becomes true.
func (s *suite) await(what string, is func() bool) {
	s.t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s did not come", what)
		}
	}
}

// closed waits until a read on the user's side fails.
func (s *suite) closed(c net.Conn) {
	s.t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience)) // the read says it
	_, err := c.Read(make([]byte, 1))
	if e, ok := errors.AsType[net.Error](err); err == nil || ok && e.Timeout() {
		s.t.Fatalf("connection is still open: %v", err)
	}
}

func check(s *suite) {
	n := s.network(77)
	if err := s.Driver.Check(s.ctx, n.Interfaces[0].ID); !errors.Is(err, vpc.ErrUnknownInterface) {
		s.t.Errorf("before the plan: %v", err)
	}
	s.apply(n)
	s.checked(n)
	n.Group.Rules = nil // the check goes past the rules
	s.apply(n)
	s.checked(n)
	if st := s.Driver.Stats(); st.Admitted != 0 || st.Refused != 0 || st.Open != 0 {
		s.t.Errorf("checks were counted: %+v", st)
	}
	if _, ok := s.Driver.DialAddr("vpc-unknown", n.At(0, 443)); ok {
		s.t.Error("an unknown VPC has an address")
	}
}

func admits(s *suite) {
	n := s.network(77)
	s.apply(n)
	for i := range n.Interfaces {
		for _, port := range []uint16{443, 1400, 1450, 1499} {
			user, served := s.connect(s.office, n, i, port)
			s.exchange(user, served)
			if served.Endpoint != n.Endpoint.ID || served.Interface != n.Interfaces[i].ID || served.VPC != n.VPC.ID || served.Service != Service {
				s.t.Errorf("port %d: connection of %s %s", port, served.Endpoint, served.Interface)
			}
			if served.Port != port || served.Local != n.At(i, port) {
				s.t.Errorf("port = %d at %s, want %d at %s", served.Port, served.Local, port, n.At(i, port))
			}
			if served.Source.Addr() != s.office.Addr() || served.Source.Port() < 1024 {
				s.t.Errorf("source = %s, want %s with the user's port", served.Source, s.office.Addr())
			}
		}
	}
	if st := s.Driver.Stats(); st.Admitted != 8 || st.Open != 8 || st.Waiting != 0 {
		s.t.Errorf("stats = %+v", st)
	}
}

func refusesOtherNetworks(s *suite) {
	n := s.network(77)
	s.apply(n)
	s.refused(s.guest, n, 0, 443)
	s.refused(s.guest, n, 1, 1400)
	user, served := s.connect(s.office, n, 0, 443)
	s.exchange(user, served)
	if st := s.Driver.Stats(); st.Admitted != 1 || st.Waiting != 0 {
		s.t.Errorf("stats = %+v", st)
	}
}

func judgesTheWayBack(s *suite) {
	n := s.network(77)
	n.ACL.Entries[1] = vpc.NetworkACLEntry{Number: 100, Egress: true, Allow: true, Protocol: vpc.TCP, CIDR: n.Group.Rules[0].Peer.CIDR, Ports: vpc.PortRange{From: 32768, To: 60999}}
	s.apply(n)
	s.refused(netip.AddrPortFrom(s.office.Addr(), uint16(2000+time.Now().UnixNano()%20000)), n, 0, 443)
	n.Table.Propagates = false
	s.apply(n)
	s.refused(s.office, n, 0, 443)
	n.Table.Propagates = true
	n.ACL.Entries[1].Ports = vpc.PortRange{From: 1024, To: 65535}
	s.apply(n)
	s.connect(s.office, n, 0, 443)
}

func rulesChange(s *suite) {
	n := s.network(77)
	s.apply(n)
	user, served := s.connect(s.office, n, 0, 443)
	all := n.Group.Rules
	n.Group.Rules = nil
	s.apply(n)
	s.refused(s.office, n, 0, 443)
	s.exchange(user, served) // groups are stateful: what runs, runs on
	n.Group.Rules = all
	s.apply(n)
	s.exchange(s.connect(s.office, n, 0, 443))
	n.ACL.Entries = append(n.ACL.Entries, vpc.NetworkACLEntry{Number: 1, Protocol: vpc.TCP, CIDR: netip.PrefixFrom(s.office.Addr(), s.office.Addr().BitLen()), Ports: vpc.PortRange{From: 443, To: 443}})
	s.apply(n)
	s.refused(s.office, n, 0, 443)
	s.exchange(s.connect(s.office, n, 0, 1400))
}

func repeat(s *suite) {
	n := s.network(77)
	s.apply(n)
	user, served := s.connect(s.office, n, 1, 1410)
	for range 5 {
		s.apply(n)
		s.exchange(user, served)
	}
	s.checked(n)
}

func interfaceLeaves(s *suite) {
	n := s.network(77)
	s.apply(n)
	goes, goesServed := s.connect(s.office, n, 0, 443)
	stays, staysServed := s.connect(s.office, n, 1, 443)
	waits, err := s.Dial(s.ctx, s.office, n.VPC.ID, n.At(0, 1400)) // admitted, and nobody takes it
	if err != nil {
		s.t.Fatal(err)
	}
	defer waits.Close()
	s.await("waiting connection", func() bool { return s.Driver.Stats().Waiting == 1 })

	both := n.Interfaces
	n.Interfaces = both[1:]
	s.apply(n)
	s.closed(goes)
	s.closed(waits)
	if _, err := goesServed.Write([]byte("x")); err == nil {
		s.t.Error("the served end of a connection that went can still be written")
	}
	s.exchange(stays, staysServed)
	if err := s.Driver.Check(s.ctx, both[0].ID); !errors.Is(err, vpc.ErrUnknownInterface) {
		s.t.Errorf("check of the interface that left: %v", err)
	}
	n.Interfaces = both
	if c, err := s.Dial(s.ctx, s.office, n.VPC.ID, n.At(0, 443)); err == nil {
		_ = c.Close() // that it came about is the failure
		s.t.Error("an interface that left still listens")
	}
	s.apply(n)
	s.checked(n)
	s.exchange(s.connect(s.office, n, 0, 443)) // not the connection that waited
}

func vpcLeaves(s *suite) {
	a, b := s.network(77), s.network(78)
	s.apply(a, b)
	goes, _ := s.connect(s.office, a, 0, 443)
	stays, served := s.connect(s.office, b, 0, 443)
	s.apply(b)
	s.closed(goes)
	s.exchange(stays, served)
	if _, ok := s.Driver.DialAddr(a.VPC.ID, a.At(0, 443)); ok {
		s.t.Error("a VPC that left still has an address")
	}
	s.apply(a, b)
	s.exchange(s.connect(s.office, a, 0, 443))
}

func twoVPCsWithOneCIDR(s *suite) {
	a, b := s.network(77), s.network(77)
	const other = "000000000000000ff"
	b.VPC.ID, b.VPC.Gateway = "vpc-"+other, "vgw-"+other
	b.Group.ID, b.ACL.ID, b.Table.ID, b.Endpoint.ID = "sg-"+other, "acl-"+other, "rtb-"+other, "vpce-"+other
	b.Group.VPC, b.ACL.VPC, b.Table.VPC, b.Endpoint.VPC = b.VPC.ID, b.VPC.ID, b.VPC.ID, b.VPC.ID
	b.Group.Rules = b.Group.Rules[:1]
	b.ACL.Associations = nil
	for i, n := range b.Subnets {
		n.ID, n.VPC = vpc.SubnetID(fmt.Sprintf("subnet-%d-%s", i, other)), b.VPC.ID
		b.ACL.Associations = append(b.ACL.Associations, vpc.NetworkACLAssociation{Subnet: n.ID})
		e := b.Interfaces[i]
		e.ID, e.VPC, e.Subnet, e.Endpoint, e.Groups = vpc.NetworkInterfaceID(fmt.Sprintf("eni-%d-%s", i, other)), b.VPC.ID, n.ID, b.Endpoint.ID, []vpc.SecurityGroupID{b.Group.ID}
	}
	s.apply(a, b)
	for _, n := range []*Network{a, b} {
		_, served := s.connect(s.office, n, 0, 443)
		if served.VPC != n.VPC.ID || served.Endpoint != n.Endpoint.ID {
			s.t.Errorf("connection to %s arrived at %s", n.VPC.ID, served.VPC)
		}
	}
	s.connect(s.office, a, 0, 1400)
	s.refused(s.office, b, 0, 1400)
}

func acceptEnds(s *suite) {
	n := s.network(77)
	s.apply(n)
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	if _, err := s.Driver.Accept(ctx); !errors.Is(err, context.Canceled) {
		s.t.Errorf("accept with an ended context: %v", err)
	}
	user, served := s.connect(s.office, n, 0, 443)
	got := make(chan error, 1)
	go func() {
		_, err := s.Driver.Accept(s.ctx)
		got <- err
	}()
	if err := s.Driver.Close(); err != nil {
		s.t.Errorf("close: %v", err)
	}
	select {
	case err := <-got:
		if !errors.Is(err, net.ErrClosed) {
			s.t.Errorf("accept on a closed driver: %v", err)
		}
	case <-time.After(patience):
		s.t.Fatal("accept did not end with its driver")
	}
	s.closed(user)
	_ = served.Close() // also after the driver: it must not hang or panic
	if err := s.Driver.Apply(s.ctx, PlanOf(n)); err == nil {
		s.t.Error("apply on a closed driver")
	}
	if err := s.Driver.Close(); err != nil {
		s.t.Errorf("close again: %v", err)
	}
}

// concurrent connects from many sides while rules and interfaces change all the time: every connection either carries its
// word or ends, and what is counted open in the end is nothing.
func concurrent(s *suite) {
	n := s.network(77)
	s.apply(n)
	ctx, cancel := context.WithCancel(s.ctx)
	var echo, users, plans sync.WaitGroup
	echo.Go(func() {
		for {
			c, err := s.Driver.Accept(ctx)
			if err != nil {
				return
			}
			echo.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience)) // the copy says it
				_, _ = io.Copy(c, c)                        // ends with the user
			})
		}
	})
	plans.Go(func() {
		both := slices.Clone(n.Interfaces)
		for k := 0; ctx.Err() == nil; k++ {
			m := *n
			m.Interfaces = both[:1+k%2] // interface 1 comes and goes
			if err := s.Driver.Apply(ctx, PlanOf(&m)); err != nil && ctx.Err() == nil {
				s.t.Errorf("apply: %v", err)
				return
			}
		}
	})
	var mu sync.Mutex
	words := map[int]int{} // interface: words that came back
	for g := range 6 {
		users.Go(func() {
			for k := range 40 {
				i := (g + k) % 2
				c, err := s.Dial(ctx, s.office, n.VPC.ID, n.At(i, uint16(1400+k%100)))
				if err != nil {
					if i == 0 {
						s.t.Errorf("dial the interface that stays: %v", err)
					}
					continue
				}
				_ = c.SetDeadline(time.Now().Add(patience)) // the read says it
				_, _ = io.WriteString(c, "hello")           // as above
				b := make([]byte, 5)
				if _, err := io.ReadFull(c, b); err == nil {
					mu.Lock()
					words[i]++
					mu.Unlock()
				} else if i == 0 {
					s.t.Errorf("the interface that stays lost a connection: %v", err)
				}
				_ = c.Close() // both ends of it are ours
			}
		})
	}
	users.Wait()
	cancel()
	plans.Wait()
	echo.Wait()
	if words[0] != 120 {
		s.t.Errorf("%d of 120 words came back from the interface that stays", words[0])
	}
	s.await("end of all connections", func() bool { return s.Driver.Stats().Open == 0 || drain(s.Driver) })
}

// drain closes what was admitted after the last Accept.
func drain(d vpc.Driver) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if c, err := d.Accept(ctx); err == nil {
		_ = c.Close() // nobody is there
	}
	return d.Stats().Open == 0
}
