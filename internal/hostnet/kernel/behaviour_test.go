package kernel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/hostnet/door"
	"penstock.dev/penstock/internal/vpc"
	"penstock.dev/penstock/internal/vpc/vpctest"
)

const (
	patience = 20 * time.Second
	// silence is how long a connection that must be dropped is watched.
	silence = 300 * time.Millisecond
)

// lane is a driver with one user's namespace and the suite's network.
type lane struct {
	t *testing.T
	u *users
	d *Driver
	n *vpctest.Network
}

func newLane(t *testing.T, cfg Config) *lane {
	t.Helper()
	u := newUsers(t)
	d, _ := start(t, u, cfg)
	l := &lane{t: t, u: u, d: d, n: vpctest.NewNetwork(77)}
	l.apply()
	return l
}

func (l *lane) apply() {
	l.t.Helper()
	if err := l.d.Apply(l.t.Context(), vpctest.PlanOf(l.n)); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lane) dial(from netip.AddrPort, i int, port uint16, limit time.Duration) (net.Conn, error) {
	c, err := l.u.dial(l.t.Context(), l.d, from, l.n.VPC.ID, l.n.At(i, port), limit)
	if err == nil {
		l.t.Cleanup(func() { _ = c.Close() })
	}
	return c, err
}

func anyPort(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, 0) }

// connects wants a connection and returns both ends.
func (l *lane) connects(from netip.AddrPort, i int, port uint16) (user net.Conn, served *vpc.Conn) {
	l.t.Helper()
	user, err := l.dial(from, i, port, patience)
	if err != nil {
		l.t.Fatalf("dial %s from %s: %v", l.n.At(i, port), from, err)
	}
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	if served, err = l.d.Accept(ctx); err != nil {
		l.t.Fatalf("accept: %v", err)
	}
	l.t.Cleanup(func() { _ = served.Close() })
	return user, served
}

// silent wants no answer at all: no reset, no error of the network.
func (l *lane) silent(from netip.AddrPort, i int, port uint16) {
	l.t.Helper()
	_, err := l.dial(from, i, port, silence)
	if e, ok := errors.AsType[net.Error](err); !ok || !e.Timeout() || errors.Is(err, syscall.ETIMEDOUT) {
		l.t.Errorf("dial %s from %s: %v, want silence", l.n.At(i, port), from, err)
	}
}

// word sends a word one way; false when it did not come within limit.
func word(from, to net.Conn, limit time.Duration) bool {
	_ = errors.Join(from.SetDeadline(time.Now().Add(limit)), to.SetDeadline(time.Now().Add(limit))) // the read says it
	if _, err := io.WriteString(from, "hello"); err != nil {
		return false
	}
	_, err := io.ReadFull(to, make([]byte, 5))
	return err == nil
}

func (l *lane) flows(a, b net.Conn) {
	l.t.Helper()
	if !word(a, b, patience) || !word(b, a, patience) {
		l.t.Error("the connection does not flow")
	}
}

func TestGroupsDropInSilenceAndRememberConnections(t *testing.T) {
	t.Parallel()
	l := newLane(t, Config{})
	user, served := l.connects(anyPort(officeAddr), 0, 443)
	other, otherServed := l.connects(anyPort(officeAddr), 1, 1499)
	l.silent(anyPort(officeAddr), 0, 22)
	l.silent(anyPort(officeAddr), 1, 1500)
	l.silent(anyPort(guestAddr), 0, 443)

	l.n.Group.Rules = nil
	l.apply()
	l.flows(user, served)
	l.flows(other, otherServed)
	l.silent(anyPort(officeAddr), 0, 443)
	l.silent(anyPort(officeAddr), 1, 1499)
	if s := l.d.Stats(); s.Admitted != 2 || s.Open != 2 || s.Waiting != 0 {
		t.Errorf("what was dropped reached the driver: %+v", s)
	}
}

func TestPermittedPortWithoutListenerIsReset(t *testing.T) {
	t.Parallel()
	l := newLane(t, Config{})
	l.n.Group.Rules = append(l.n.Group.Rules, vpc.SecurityGroupRule{ID: "sgr-ssh", Protocol: vpc.TCP, Ports: vpc.PortRange{From: 22, To: 22}, Peer: vpc.Peer{CIDR: netip.MustParsePrefix("192.168.0.0/16")}})
	l.apply()
	if _, err := l.dial(anyPort(officeAddr), 0, 22, patience); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v, want it refused", err)
	}
}

func TestNetworkACLsJudgeEveryPacket(t *testing.T) {
	t.Parallel()
	l := newLane(t, Config{})
	user, served := l.connects(anyPort(officeAddr), 0, 443)
	l.flows(user, served)
	all := l.n.ACL.Entries
	l.n.ACL.Entries = all[1:] // inbound is empty
	l.apply()
	if word(user, served, silence) {
		t.Error("a packet passed an empty network ACL")
	}
	l.silent(anyPort(officeAddr), 0, 443)
	l.n.ACL.Entries = all
	l.apply()
	b := make([]byte, 5)
	_ = served.SetDeadline(time.Now().Add(patience)) // the read says it
	if _, err := io.ReadFull(served, b); err != nil {
		t.Errorf("the stalled connection did not go on: %v", err)
	}
	l.n.ACL.Entries = all[:1] // outbound is empty: the request arrives, its answer does not leave
	l.apply()
	l.silent(anyPort(officeAddr), 0, 443)
	counters, err := l.d.Counters(l.n.VPC.ID)
	if err != nil {
		t.Fatal(err)
	}
	if id := "network-acl-outbound:" + string(l.n.ACL.ID) + ":*"; counters[id] == 0 {
		t.Errorf("%s did not count: %v", id, counters)
	}
}

func TestNarrowedEphemeralRange(t *testing.T) {
	t.Parallel()
	l := newLane(t, Config{})
	l.n.ACL.Entries[1].Protocol, l.n.ACL.Entries[1].Ports = vpc.TCP, vpc.PortRange{From: 32768, To: 60999}
	l.apply()
	l.connects(netip.AddrPortFrom(officeAddr, 50001), 0, 443)
	l.connects(netip.AddrPortFrom(officeAddr, 32768), 1, 443)
	l.connects(netip.AddrPortFrom(officeAddr, 60999), 1, 443)
	l.silent(netip.AddrPortFrom(officeAddr, 2000), 0, 443)
	l.silent(netip.AddrPortFrom(officeAddr, 61000), 0, 443)
}

func TestBlackholeRoute(t *testing.T) {
	t.Parallel()
	l := newLane(t, Config{})
	user, served := l.connects(anyPort(officeAddr), 0, 443)
	l.n.Table.Routes = []vpc.Route{{CIDR: netip.MustParsePrefix("192.168.0.0/24"), Interface: "eni-0deadbeef"}}
	l.apply()
	l.silent(anyPort(officeAddr), 0, 443)
	if word(served, user, silence) {
		t.Error("a packet came back by a route that leads nowhere")
	}
	l.n.Table.Routes = nil
	l.apply()
	l.connects(anyPort(officeAddr), 0, 443)
}

func TestTwoZonesAreJudgedApart(t *testing.T) {
	t.Parallel()
	l := newLane(t, Config{})
	closed := &vpc.NetworkACL{ID: "acl-closed", VPC: l.n.VPC.ID, Associations: []vpc.NetworkACLAssociation{{Subnet: l.n.Subnets[1].ID}}}
	p := vpctest.PlanOf(l.n)
	p.Snapshot = vpc.NewSnapshot(vpc.Resources{
		VPCs: []*vpc.VPC{l.n.VPC}, Subnets: l.n.Subnets, Groups: []*vpc.SecurityGroup{l.n.Group}, ACLs: []*vpc.NetworkACL{l.n.ACL, closed},
		RouteTables: []*vpc.RouteTable{l.n.Table}, Interfaces: l.n.Interfaces, Endpoints: []*vpc.Endpoint{l.n.Endpoint},
		UserNetworks: l.u.attachment().Networks, EndpointPorts: func(string) []vpc.PortRange { return p.Interfaces[0].Ports },
	})
	if err := l.d.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	_, served := l.connects(anyPort(officeAddr), 0, 443)
	if served.Interface != l.n.Interfaces[0].ID {
		t.Errorf("arrived at %s", served.Interface)
	}
	l.silent(anyPort(officeAddr), 1, 443)
}

func TestInterfacesOfOneVPCListenOnTheirOwnPorts(t *testing.T) {
	t.Parallel()
	l := newLane(t, Config{})
	l.n.Group.Rules[0].Ports = vpc.AllPorts
	p := vpctest.PlanOf(l.n)
	only443 := []vpc.PortRange{{From: 443, To: 443}}
	l.n.Interfaces[0].Endpoint = "vpce-api"
	p.Interfaces[0].Endpoint, p.Interfaces[0].Ports = "vpce-api", only443
	p.Snapshot = vpc.NewSnapshot(vpc.Resources{
		VPCs: []*vpc.VPC{l.n.VPC}, Subnets: l.n.Subnets, Groups: []*vpc.SecurityGroup{l.n.Group}, ACLs: []*vpc.NetworkACL{l.n.ACL},
		RouteTables: []*vpc.RouteTable{l.n.Table}, Interfaces: l.n.Interfaces, UserNetworks: l.u.attachment().Networks,
		Endpoints: []*vpc.Endpoint{l.n.Endpoint, {ID: "vpce-api", VPC: l.n.VPC.ID, Service: "api"}},
		EndpointPorts: func(service string) []vpc.PortRange {
			if service == "api" {
				return only443
			}
			return p.Interfaces[1].Ports
		},
	})
	if err := l.d.Apply(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	l.connects(anyPort(officeAddr), 0, 443)
	l.connects(anyPort(officeAddr), 1, 1400)
	if _, err := l.dial(anyPort(officeAddr), 0, 1400, patience); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("port of the other interface: %v, want it refused", err)
	}
}

func TestIPv6IsDropped(t *testing.T) {
	t.Parallel()
	l := newLane(t, Config{})
	put := func(h *netlink.Handle, link, addr string) error {
		at, err := h.LinkByName(link)
		if err != nil {
			return err
		}
		a, err := netlink.ParseAddr(addr)
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		return h.AddrAdd(at, a)
	}
	l.u.do(t, func(h *netlink.Handle) error { return put(h, l.d.LinkName(l.n.VPC.ID, 0), "fd77::1/64") })
	if err := put(l.d.networks[l.n.VPC.ID].route, "att0", "fd77::2/64"); err != nil {
		t.Fatal(err)
	}
	err := inside(l.u.ns, func() error {
		c, err := net.DialTimeout("tcp6", "[fd77::2]:443", silence)
		if err == nil {
			_ = c.Close() // that it came about is the failure
		}
		return err
	})
	if e, ok := errors.AsType[net.Error](err); !ok || !e.Timeout() {
		t.Errorf("dial by IPv6: %v, want silence", err)
	}
	counters, err := l.d.Counters(l.n.VPC.ID)
	if err != nil || counters["ipv6:prerouting:"] == 0 {
		t.Errorf("counters: %v, %v", counters, err)
	}
}

// TestForeignSourcesAreDropped has a user of one network claim addresses of another, of nobody, and of the VPC itself.
func TestForeignSourcesAreDropped(t *testing.T) {
	t.Parallel()
	office, guests := newUsers(t), newUsers(t)
	claimed := netip.MustParseAddr("192.168.0.66")
	d, _ := start(t, office, Config{Attachments: []Attachment{
		{Namespace: office.name, Networks: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}, Addresses: []netip.Addr{officeAddr}},
		{Namespace: guests.name, Networks: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/16")}, Addresses: []netip.Addr{guestAddr}},
	}})
	n := vpctest.NewNetwork(77)
	n.Group.Rules[0].Peer.CIDR = netip.MustParsePrefix("0.0.0.0/0")
	if err := d.Apply(t.Context(), vpctest.PlanOf(n)); err != nil {
		t.Fatal(err)
	}
	guests.do(t, func(h *netlink.Handle) error {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		for _, a := range []netip.Addr{claimed, netip.MustParseAddr("10.99.0.1"), n.Interfaces[1].Addr, probeAddr(vpc.FamilyIPv4)} {
			err = errors.Join(err, h.AddrAdd(lo, &netlink.Addr{IPNet: prefixOf(netip.PrefixFrom(a, 32))}))
		}
		return err
	})
	dial := func(u *users, link int, from netip.Addr) error {
		return inside(u.ns, func() error {
			dialer := net.Dialer{Timeout: silence, LocalAddr: net.TCPAddrFromAddrPort(anyPort(from)), Control: func(_, _ string, raw syscall.RawConn) (err error) {
				cerr := raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), d.LinkName(n.VPC.ID, link)) })
				return errors.Join(cerr, err)
			}}
			c, err := dialer.DialContext(t.Context(), "tcp4", n.At(0, 443).String())
			if err == nil {
				_ = c.Close() // that it came about is all
			}
			return err
		})
	}
	if err := dial(guests, 1, guestAddr); err != nil {
		t.Errorf("guest as itself: %v", err)
	}
	if err := dial(office, 0, officeAddr); err != nil {
		t.Errorf("office as itself: %v", err)
	}
	before, err := d.Counters(n.VPC.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []netip.Addr{claimed, netip.MustParseAddr("10.99.0.1"), n.Interfaces[1].Addr, probeAddr(vpc.FamilyIPv4)} {
		if err := dial(guests, 1, from); err == nil {
			t.Errorf("guest as %s was admitted", from)
		}
	}
	after, err := d.Counters(n.VPC.ID)
	if err != nil || after["device-route::"] < before["device-route::"]+4 {
		t.Errorf("foreign sources: %d before, %d after, %v", before["device-route::"], after["device-route::"], err)
	}
}

// logs collects a driver's log.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), s)
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not come", what)
		}
	}
}

func TestHealsWhatOthersTookAway(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		log   string
		wreck func(*testing.T, *lane) error
	}{
		{"namespace deleted", "network namespace was deleted", func(_ *testing.T, l *lane) error { return removeName(l.d.networks[l.n.VPC.ID].name) }},
		{"table flushed", "rules=true", func(_ *testing.T, l *lane) error {
			c, err := nftables.New(nftables.WithNetNSFd(int(l.d.networks[l.n.VPC.ID].ns)))
			if err != nil {
				return err
			}
			c.FlushRuleset()
			return c.Flush()
		}},
		{"link deleted", "links=true", func(t *testing.T, l *lane) error {
			l.u.do(t, func(h *netlink.Handle) error {
				at, err := h.LinkByName(l.d.LinkName(l.n.VPC.ID, 0))
				if err != nil {
					return err
				}
				return h.LinkDel(at)
			})
			return nil
		}},
		{"route deleted", "links=true", func(_ *testing.T, l *lane) error {
			return l.d.networks[l.n.VPC.ID].route.RouteDel(&netlink.Route{Dst: prefixOf(netip.MustParsePrefix("192.168.0.0/16"))})
		}},
		{"IPv6 address deleted", "addresses=true", func(_ *testing.T, l *lane) error {
			h := l.d.networks[l.n.VPC.ID].route
			at, err := h.LinkByName(bridgeName(l.n.Subnets[0].ID))
			if err != nil {
				return err
			}
			return h.AddrDel(at, &netlink.Addr{IPNet: prefixOf(netip.PrefixFrom(l.n.Interfaces[0].Addr6, 128))})
		}},
		{"IPv6 route deleted", "links=true", func(_ *testing.T, l *lane) error {
			return l.d.networks[l.n.VPC.ID].route.RouteDel(&netlink.Route{Dst: prefixOf(netip.MustParsePrefix("fd01::/64"))})
		}},
		{"address deleted", "addresses=true", func(_ *testing.T, l *lane) error {
			h := l.d.networks[l.n.VPC.ID].route
			at, err := h.LinkByName(bridgeName(l.n.Subnets[0].ID))
			if err != nil {
				return err
			}
			return h.AddrDel(at, &netlink.Addr{IPNet: prefixOf(netip.PrefixFrom(l.n.Interfaces[0].Addr, 32))})
		}},
		{"link stopped", "links=true", func(_ *testing.T, l *lane) error {
			h := l.d.networks[l.n.VPC.ID].route
			at, err := h.LinkByName(insideName(0))
			if err != nil {
				return err
			}
			return h.LinkSetDown(at)
		}},
		{"loopback stopped", "links=true", func(_ *testing.T, l *lane) error {
			h := l.d.networks[l.n.VPC.ID].route
			at, err := h.LinkByName(vpc.LoopbackLink)
			if err != nil {
				return err
			}
			return h.LinkSetDown(at)
		}},
		{"neighbour deleted", "links=true", func(_ *testing.T, l *lane) error {
			h := l.d.networks[l.n.VPC.ID].route
			at, err := h.LinkByName(insideName(0))
			if err != nil {
				return err
			}
			return h.NeighDel(&netlink.Neigh{LinkIndex: at.Attrs().Index, Family: netlink.FAMILY_V4, IP: usersGateway(vpc.FamilyIPv4)})
		}},
		{"users' address deleted", "links=true", func(t *testing.T, l *lane) error {
			l.u.do(t, func(h *netlink.Handle) error {
				at, err := h.LinkByName(l.d.LinkName(l.n.VPC.ID, 0))
				if err != nil {
					return err
				}
				return h.AddrDel(at, &netlink.Addr{IPNet: prefixOf(netip.PrefixFrom(guestAddr, 32))})
			})
			return nil
		}},
		{"bridge deleted", "addresses=true", func(_ *testing.T, l *lane) error {
			h := l.d.networks[l.n.VPC.ID].route
			at, err := h.LinkByName(bridgeName(l.n.Subnets[0].ID))
			if err != nil {
				return err
			}
			return h.LinkDel(at)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log logs
			l := newLane(t, Config{HealEvery: 20 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&log, nil))})
			l.dual()
			user, served := l.connects(anyPort(officeAddr), 0, 443)
			user6, served6 := l.connects6(443)
			l.d.applying.Lock()
			before := l.d.Healed()
			err := tt.wreck(t, l)
			l.d.applying.Unlock()
			if err != nil {
				t.Fatal(err)
			}
			await(t, "healing", func() bool { return l.d.Healed() > before })
			await(t, "message", func() bool { return log.has(tt.log) })
			l.flows(user, served)
			l.flows(user6, served6)
			l.connects(anyPort(officeAddr), 0, 443)
			l.connects6(443)
			l.silent(anyPort(guestAddr), 0, 443)
			l.d.applying.Lock()
			healed := l.d.Healed()
			err = errors.Join(l.d.settle(), l.d.settle())
			l.d.applying.Unlock()
			if err != nil || l.d.Healed() != healed {
				t.Errorf("healing does not end: %d, then %d, %v", healed, l.d.Healed(), err)
			}
		})
	}
}

// dual gives the first interface an IPv6 address that the office may reach.
func (l *lane) dual() {
	l.t.Helper()
	six := vpctest.NewNetwork6(77)
	l.n.VPC.IPv6, l.n.Subnets[0].IPv6, l.n.Interfaces[0].Addr6 = six.VPC.IPv6, six.Subnets[0].IPv6, six.Interfaces[0].Addr6
	for _, r := range six.Group.Rules {
		r.ID += "-six"
		l.n.Group.Rules = append(l.n.Group.Rules, r)
	}
	for _, e := range six.ACL.Entries {
		e.Number++
		l.n.ACL.Entries = append(l.n.ACL.Entries, e)
	}
	l.apply()
}

// connects6 wants a connection of the office to the first interface's IPv6 address.
func (l *lane) connects6(port uint16) (user net.Conn, served *vpc.Conn) {
	l.t.Helper()
	user, err := l.u.dial(l.t.Context(), l.d, anyPort(officeAddr6), l.n.VPC.ID, netip.AddrPortFrom(l.n.Interfaces[0].Addr6, port), patience)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = user.Close() })
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	if served, err = l.d.Accept(ctx); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = served.Close() })
	return user, served
}

// TestAnAddressOfTwoGoes: what is connected to the address that stays, stays; what goes is reset and silent.
func TestAnAddressOfTwoGoes(t *testing.T) {
	t.Parallel()
	l := newLane(t, Config{})
	stays, served := l.connects(anyPort(officeAddr), 0, 443)
	l.dual()
	l.flows(stays, served)
	goes, goesServed := l.connects6(1400)
	if goesServed.Local.Addr() != l.n.Interfaces[0].Addr6 || goesServed.Source.Addr() != officeAddr6 || goesServed.Interface != l.n.Interfaces[0].ID {
		t.Errorf("IPv6 connection from %s to %s at %s", goesServed.Source, goesServed.Local, goesServed.Interface)
	}
	if err := l.d.Check(t.Context(), l.n.Interfaces[0].ID); err != nil {
		t.Error(err)
	}
	gone := l.n.Interfaces[0].Addr6
	l.n.Interfaces[0].Addr6 = netip.Addr{}
	l.apply()
	_ = goes.SetReadDeadline(time.Now().Add(patience)) // the read says it
	if _, err := goes.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the connection to the address that went: %v", err)
	}
	if c, err := l.u.dial(t.Context(), l.d, anyPort(officeAddr6), l.n.VPC.ID, netip.AddrPortFrom(gone, 443), silence); err == nil {
		_ = c.Close() // that it came about is the failure
		t.Error("the address that went answers")
	} else if e, ok := errors.AsType[net.Error](err); !ok || !e.Timeout() {
		t.Errorf("the address that went: %v, want silence", err)
	}
	l.flows(stays, served)
	l.connects(anyPort(officeAddr), 0, 443)
	// The block goes as well: its route with it.
	l.n.VPC.IPv6, l.n.Subnets[0].IPv6 = nil, netip.Prefix{}
	l.apply()
	l.flows(stays, served)
	l.u.do(t, func(h *netlink.Handle) error {
		routes, err := h.RouteList(nil, netlink.FAMILY_V6)
		for _, r := range routes {
			if p, ok := prefixFrom(r.Dst); ok && p.Contains(gone) {
				t.Errorf("the route %s is left", p)
			}
		}
		return err
	})
}

// TestTooBigReachesTCP: a router on the way, whose address no rule knows, says that a packet of a connection was too big; what is
// not about a connection is not let in.
func TestTooBigReachesTCP(t *testing.T) {
	t.Parallel()
	l := newLane(t, Config{})
	l.dual()
	_, served := l.connects6(443)
	tcp, ok := served.TCP()
	if !ok {
		t.Fatal("not TCP")
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	option := func(f func(fd int) error) {
		t.Helper()
		var err error
		if cerr := raw.Control(func(fd uintptr) { err = f(int(fd)) }); err != nil || cerr != nil {
			t.Fatal(err, cerr)
		}
	}
	var seq, mtu int
	option(func(fd int) error { // the number of the next byte, from a connection that is under repair for a moment
		err := errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, 1), unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR_QUEUE, 2))
		seq, _ = unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
		return errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, -1)) // and no window probe
	})
	pathMTU := func() int {
		option(func(fd int) (err error) {
			mtu, err = unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU)
			return err
		})
		return mtu
	}
	if got := pathMTU(); got != 1500 {
		t.Fatalf("path MTU is %d before", got)
	}
	router := netip.MustParseAddr("2001:db8::1")
	l.u.do(t, func(h *netlink.Handle) error {
		lo, err := h.LinkByName("lo")
		if err != nil {
			return err
		}
		return h.AddrAdd(lo, &netlink.Addr{IPNet: prefixOf(netip.PrefixFrom(router, 128)), Flags: unix.IFA_F_NODAD})
	})
	send := func(from, to netip.AddrPort) { // of a packet from one to the other
		t.Helper()
		inner := make([]byte, 60)
		inner[0], inner[6], inner[7] = 0x60, unix.IPPROTO_TCP, 64
		binary.BigEndian.PutUint16(inner[4:], 20)
		copy(inner[8:], from.Addr().AsSlice())
		copy(inner[24:], to.Addr().AsSlice())
		binary.BigEndian.PutUint16(inner[40:], from.Port())
		binary.BigEndian.PutUint16(inner[42:], to.Port())
		binary.BigEndian.PutUint32(inner[44:], uint32(seq)) //nolint:gosec // a sequence number is 32 bits
		inner[52] = 5 << 4
		message := append([]byte{2, 0, 0, 0, 0, 0, 0x05, 0x14}, inner...) // packet too big: 1,300 bytes
		if err := inside(l.u.ns, func() error {
			fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return errors.Join(unix.Bind(fd, sockaddr(netip.AddrPortFrom(router, 0))), unix.Sendto(fd, message, 0, sockaddr(netip.AddrPortFrom(from.Addr(), 0))))
		}); err != nil {
			t.Fatal(err)
		}
	}
	before, err := l.d.Counters(l.n.VPC.ID)
	if err != nil {
		t.Fatal(err)
	}
	send(served.Local, netip.AddrPortFrom(officeAddr6, served.Source.Port()+1)) // there is no such connection
	await(t, "the drop of what is about nothing", func() bool {
		now, err := l.d.Counters(l.n.VPC.ID)
		return err == nil && now["input::"]+now["security-group:"+string(l.n.Group.ID)+":"] > before["input::"]+before["security-group:"+string(l.n.Group.ID)+":"]
	})
	if got := pathMTU(); got != 1500 {
		t.Errorf("path MTU is %d after a message about another connection", got)
	}
	send(served.Local, served.Source)
	await(t, "the smaller path MTU", func() bool { return pathMTU() == 1300 })
}

func TestFlushedTableAdmitsNobody(t *testing.T) {
	t.Parallel()
	l := newLane(t, Config{HealEvery: time.Hour})
	c, err := nftables.New(nftables.WithNetNSFd(int(l.d.networks[l.n.VPC.ID].ns)))
	if err != nil {
		t.Fatal(err)
	}
	c.FlushRuleset()
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	if user, err := l.dial(anyPort(guestAddr), 0, 443, patience); err == nil {
		_ = user.SetDeadline(time.Now().Add(patience)) // the read says it
		if n, err := user.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("read %d bytes, %v", n, err)
		}
	}
	await(t, "refusal", func() bool { return l.d.Stats().Refused == 1 })
	if s := l.d.Stats(); s.Admitted != 0 || s.Waiting != 0 {
		t.Errorf("stats = %+v", s)
	}
}

// TestLeftoversOfACrash finds what a killed run leaves: a named namespace, a stale name, and links.
func TestLeftoversOfACrash(t *testing.T) {
	t.Parallel()
	u := newUsers(t)
	dir := t.TempDir()
	o := owner(dir)
	n := vpctest.NewNetwork(77)
	for _, name := range []string{namespaceName(o, n.VPC.ID), namespaceName(o, "vpc-00000000000000bad")} {
		ns, err := makeNamespace(name)
		if err != nil {
			t.Fatal(err)
		}
		link := linkName(o, vpc.VPCID(name), 0)
		u.do(t, func(h *netlink.Handle) error {
			pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: link}, PeerName: "att0", PeerNamespace: netlink.NsFd(int(ns))}
			if err := h.LinkAdd(pair); err != nil {
				return err
			}
			at, err := h.LinkByName(link)
			if err != nil {
				return err
			}
			return errors.Join(h.LinkSetAlias(at, alias(o)+" "+string(n.VPC.ID)), h.LinkSetUp(at),
				h.AddrAdd(at, &netlink.Addr{IPNet: prefixOf(netip.PrefixFrom(officeAddr, 32))}),
				h.RouteAdd(&netlink.Route{LinkIndex: at.Attrs().Index, Dst: prefixOf(n.VPC.CIDR), Priority: at.Attrs().Index}))
		})
		_ = ns.Close() // only the name keeps it
	}
	stale := filepath.Join(namedNamespaces, namespacePrefix(o)+"stale")
	if err := os.WriteFile(stale, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	d, _ := start(t, u, Config{DataDir: dir})
	l := &lane{t: t, u: u, d: d, n: n}
	l.apply()
	if names, err := leftNamespaces(namedNamespaces, o); err != nil || len(names) != 1 {
		t.Errorf("namespaces: %v, %v", names, err)
	}
	l.connects(anyPort(officeAddr), 0, 443)
}

func TestBlockInUseIsReported(t *testing.T) {
	t.Parallel()
	u := newUsers(t)
	u.do(t, func(h *netlink.Handle) error {
		if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "lan0"}}); err != nil {
			return err
		}
		lan, err := h.LinkByName("lan0")
		if err != nil {
			return err
		}
		return errors.Join(h.AddrAdd(lan, &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 77, 1, 1), Mask: net.CIDRMask(24, 32)}}), h.LinkSetUp(lan))
	})
	d, _ := start(t, u, Config{HealEvery: 20 * time.Millisecond})
	n, free := vpctest.NewNetwork(77), vpctest.NewNetwork(78)
	if err := d.Apply(t.Context(), vpctest.PlanOf(n, free)); err != nil {
		t.Fatal(err)
	}
	if err := d.Check(t.Context(), n.Interfaces[0].ID); !errors.Is(err, ErrOverlap) {
		t.Errorf("check: %v, want %v", err, ErrOverlap)
	}
	if err := d.Check(t.Context(), free.Interfaces[0].ID); err != nil {
		t.Errorf("check of the other VPC: %v", err)
	}
	u.do(t, func(h *netlink.Handle) error {
		lan, err := h.LinkByName("lan0")
		if err != nil {
			return err
		}
		return h.LinkDel(lan)
	})
	await(t, "end of the overlap", func() bool { return d.Check(t.Context(), n.Interfaces[0].ID) == nil })
}

// TestNothingIsLeaked repeats everything and counts descriptors and links.
func TestNothingIsLeaked(t *testing.T) {
	l := newLane(t, Config{HealEvery: time.Hour})
	count := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	round := func(k int) {
		m := *l.n
		m.Interfaces = l.n.Interfaces[:1+k%2]
		other := vpctest.NewNetwork(byte(80 + k%3))
		for _, p := range []vpc.Plan{vpctest.PlanOf(&m, other), vpctest.PlanOf(&m)} {
			if err := l.d.Apply(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.d.Check(t.Context(), l.n.Interfaces[0].ID); err != nil {
			t.Fatal(err)
		}
		user, served := l.connects(anyPort(officeAddr), 0, 443)
		_ = errors.Join(user.Close(), served.Close()) // both ends of it are ours
	}
	for k := range 4 {
		round(k)
	}
	before := count()
	for k := range 100 { // of two plans
		round(k)
	}
	if after := count(); after > before+3 {
		t.Errorf("%d descriptors before, %d after 100 rounds", before, after)
	}
	if names, err := leftNamespaces(namedNamespaces, l.d.owner); err != nil || len(names) != 1 {
		t.Errorf("namespaces: %v, %v", names, err)
	}
}

func TestShedsWhatIsTooMuch(t *testing.T) {
	t.Parallel()
	l := newLane(t, Config{Limits: door.Limits{Waiting: 2, PerSource: 4, Open: 5}})
	for k := range 12 {
		if _, err := l.dial(anyPort(officeAddr), k%2, uint16(1400+k), patience); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatal(err)
		}
	}
	await(t, "the last handshake", func() bool { return l.d.Stats().Admitted == 12 })
	await(t, "shedding", func() bool { s := l.d.Stats(); return s.Shed == 10 && s.Waiting == 2 && s.Open == 2 })
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	p := netip.MustParsePrefix
	for name, cfg := range map[string]Config{
		"no data directory":            {},
		"no networks":                  {DataDir: "x", Attachments: []Attachment{{}}},
		"not masked":                   {DataDir: "x", Attachments: []Attachment{{Networks: []netip.Prefix{p("192.168.0.1/16")}}}},
		"everything":                   {DataDir: "x", Attachments: []Attachment{{Networks: []netip.Prefix{p("0.0.0.0/0")}}}},
		"IPv4 written as IPv6":         {DataDir: "x", Attachments: []Attachment{{Networks: []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr("::ffff:10.0.0.0"), 104)}}}},
		"address of another network":   {DataDir: "x", Attachments: []Attachment{{Networks: []netip.Prefix{p("192.168.0.0/16")}, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}}},
		"more attachments than digits": {DataDir: "x", Attachments: make([]Attachment, 17)},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := New(Config{DataDir: "x"}); err != nil {
		t.Error(err)
	}
}

func TestNamesFit(t *testing.T) {
	t.Parallel()
	for _, name := range []string{linkName(owner("/a"), "vpc-0123456789abcdef0", 15), bridgeName("subnet-0123456789abcdef0"), insideName(15)} {
		if len(name) >= unix.IFNAMSIZ {
			t.Errorf("%s has %d characters", name, len(name))
		}
	}
	if a, b := owner("/a/b"), owner("/a/b/"); a != b {
		t.Errorf("one directory has two owners: %s", fmt.Sprint(a, b))
	}
}

// TestHalfOpenFlood has thousands of handshakes that cannot finish, because answers are dropped.
func TestHalfOpenFlood(t *testing.T) {
	t.Parallel()
	l := newLane(t, Config{})
	all := l.n.ACL.Entries
	l.n.ACL.Entries = all[:1] // outbound is empty
	l.apply()
	to := &unix.SockaddrInet4{Addr: l.n.Interfaces[0].Addr.As4(), Port: 443}
	if err := inside(l.u.ns, func() error {
		for range 8000 {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			if err := unix.Connect(fd, to); err != nil && !errors.Is(err, unix.EINPROGRESS) {
				return errors.Join(err, unix.Close(fd))
			}
			if err := unix.Close(fd); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	l.n.ACL.Entries = all
	l.apply()
	l.flows(l.connects(anyPort(officeAddr), 0, 443))
	if err := l.d.Check(t.Context(), l.n.Interfaces[0].ID); err != nil {
		t.Errorf("check: %v", err)
	}
	if s := l.d.Stats(); s.Open != 1 {
		t.Errorf("stats = %+v", s)
	}
}

// TestCloseWhileEverythingRuns closes the driver under applies, checks and connections.
func TestCloseWhileEverythingRuns(t *testing.T) {
	t.Parallel()
	for range 5 {
		l := newLane(t, Config{HealEvery: time.Millisecond})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		var work sync.WaitGroup
		loop := func(f func(k int) error) {
			work.Go(func() {
				for k := 0; ctx.Err() == nil; k++ {
					if err := f(k); errors.Is(err, net.ErrClosed) || errors.Is(err, vpc.ErrUnknownInterface) {
						return
					}
				}
			})
		}
		loop(func(k int) error {
			m := *l.n
			m.Interfaces = l.n.Interfaces[:1+k%2]
			return l.d.Apply(ctx, vpctest.PlanOf(&m))
		})
		loop(func(int) error { return l.d.Check(ctx, l.n.Interfaces[0].ID) })
		loop(func(int) error {
			if _, err := l.d.Counters(l.n.VPC.ID); err != nil && l.d.door.Closed() {
				return net.ErrClosed
			}
			return nil
		})
		loop(func(int) error {
			c, err := l.d.Accept(ctx)
			if err != nil {
				return err
			}
			return c.Close()
		})
		for range 20 {
			if c, err := l.u.dial(ctx, l.d, anyPort(officeAddr), l.n.VPC.ID, l.n.At(0, 443), time.Second); err == nil {
				_ = c.Close() // that it came about is all
			}
		}
		if err := l.d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		work.Wait()
		if ctx.Err() != nil {
			t.Fatal("something did not end with its driver")
		}
		nothingLeft(t, l.d, l.u)
	}
}

// TestUsersNamespaceComesBack takes the users' namespace away and makes it again.
func TestUsersNamespaceComesBack(t *testing.T) {
	t.Parallel()
	l := newLane(t, Config{HealEvery: 10 * time.Millisecond})
	id := l.n.Interfaces[0].ID
	if err := removeName(l.u.name); err != nil {
		t.Fatal(err)
	}
	await(t, "error of the interface", func() bool { return l.d.Check(t.Context(), id) != nil })
	again, err := makeNamespace(l.u.name)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.u.ns.Close() // with it the old namespace goes, and the link's end in it
	l.u.ns = again
	await(t, "the attachment", func() bool { return l.d.Check(t.Context(), id) == nil })
	l.flows(l.connects(anyPort(officeAddr), 0, 443))
	l.silent(anyPort(guestAddr), 0, 443)
}

// TestPortUsedAgainIsANewConnection ends a connection, takes its rule away and connects from the same port: what connection
// tracking still remembers of the first does not admit the second.
func TestPortUsedAgainIsANewConnection(t *testing.T) {
	t.Parallel()
	l := newLane(t, Config{})
	from := netip.AddrPortFrom(officeAddr, 45678)
	for _, serverFirst := range []bool{false, true} {
		user, served := l.connects(from, 0, 443)
		l.flows(user, served)
		for _, end := range []net.Conn{user, served.Conn} {
			if tcp, ok := end.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // so that the port is free at once
			}
		}
		if serverFirst {
			_ = errors.Join(served.Close(), user.Close()) // both ends of it are ours
		} else {
			_ = errors.Join(user.Close(), served.Close()) // as above
		}
		rules := l.n.Group.Rules
		l.n.Group.Rules = nil
		l.apply()
		l.silent(from, 0, 443)
		l.n.Group.Rules = rules
		l.apply()
	}
	l.flows(l.connects(from, 0, 443))
}
