package kernel

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/vpc"
	"penstock.dev/penstock/internal/vpc/vpctest"
)

// site is a real network of the tests: a bridge in a namespace that stands for the machine, with one device on it. A second device is
// beyond the first, which is then the router of both.
type site struct {
	t       *testing.T
	machine *users // where the parent interface is
	device  *users // 192.168.0.7, and the router
	beyond  *users // 172.16.0.5
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, machine: newUsers(t), device: newUsers(t), beyond: newUsers(t)}
	veth := func(from *users, name string, to *users, peer string) {
		from.do(t, func(h *netlink.Handle) error {
			return h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer, PeerNamespace: netlink.NsFd(int(to.ns))})
		})
	}
	s.machine.do(t, func(h *netlink.Handle) error {
		return h.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "switch"}, MulticastSnooping: new(false)})
	})
	veth(s.machine, "port1", s.device, "eth0")
	veth(s.machine, "port2", s.machine, "eth0") // the machine's own interface on the network: the parent
	veth(s.device, "eth1", s.beyond, "eth0")
	s.machine.do(t, func(h *netlink.Handle) error {
		bridge, err := h.LinkByName("switch")
		for _, name := range []string{"port1", "port2"} {
			var l netlink.Link
			if err == nil {
				l, err = h.LinkByName(name)
			}
			if err == nil {
				err = errors.Join(h.LinkSetMaster(l, bridge), h.LinkSetUp(l))
			}
		}
		return errors.Join(err, h.LinkSetUp(bridge))
	})
	s.up(s.machine, "eth0", "")
	s.up(s.device, "eth0", "192.168.0.7/16")
	s.up(s.device, "eth1", "172.16.0.1/16")
	s.up(s.beyond, "eth0", "172.16.0.5/16")
	s.route(s.beyond, "10.77.0.0/16", "eth0", "172.16.0.1")
	s.must(inside(s.device.ns, func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) }))
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) up(at *users, name, addr string) {
	s.t.Helper()
	at.do(s.t, func(h *netlink.Handle) error {
		l, err := h.LinkByName(name)
		if err == nil && addr != "" {
			a, perr := netlink.ParseAddr(addr)
			err = errors.Join(perr, h.AddrAdd(l, a))
		}
		if err != nil {
			return err
		}
		return h.LinkSetUp(l)
	})
}

// route is what the site's router is told; without a gateway: to is on the network itself.
func (s *site) route(at *users, to, name, gateway string) {
	s.t.Helper()
	at.do(s.t, func(h *netlink.Handle) error {
		l, err := h.LinkByName(name)
		if err != nil {
			return err
		}
		r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: prefixOf(netip.MustParsePrefix(to)), Scope: netlink.SCOPE_LINK}
		if gateway != "" {
			r.Gw, r.Scope = net.ParseIP(gateway), netlink.SCOPE_UNIVERSE
		}
		return h.RouteReplace(r)
	})
}

func (s *site) attachment(hops ...NextHop) Attachment {
	return Attachment{
		Namespace: s.machine.name, Networks: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("172.16.0.0/16")},
		LAN: &LAN{Parent: "eth0", Gateway: officeAddr, NextHops: hops},
	}
}

func (s *site) dial(at *users, to netip.AddrPort, limit time.Duration) (c net.Conn, err error) {
	err = inside(at.ns, func() error {
		c, err = (&net.Dialer{Timeout: limit}).DialContext(s.t.Context(), "tcp4", to.String())
		return err
	})
	return c, err
}

// served connects and wants the connection at the driver, from the source.
func (s *site) served(d *Driver, at *users, to netip.AddrPort, source netip.Addr) net.Conn {
	s.t.Helper()
	user, err := s.dial(at, to, 10*time.Second)
	s.must(err)
	s.t.Cleanup(func() { _ = user.Close() })
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	c, err := d.Accept(ctx)
	s.must(err)
	s.t.Cleanup(func() { _ = c.Close() })
	if c.Source.Addr() != source || c.Local != to {
		s.t.Errorf("connection from %s at %s, want %s at %s", c.Source, c.Local, source, to)
	}
	if !word(user, c, 5*time.Second) || !word(c, user, 5*time.Second) {
		s.t.Errorf("%s exchanges nothing with %s", source, to)
	}
	return user
}

func (s *site) silent(at *users, to netip.AddrPort) {
	s.t.Helper()
	c, err := s.dial(at, to, 300*time.Millisecond)
	if e, ok := errors.AsType[net.Error](err); !ok || !e.Timeout() {
		s.t.Errorf("%s: %v, want silence", to, err)
	}
	if c != nil {
		_ = c.Close() // that it came about is the failure
	}
}

func TestDevicesOfARealNetwork(t *testing.T) {
	t.Parallel()
	hop := NextHop{VPC: netip.MustParsePrefix("10.77.0.0/16"), Addr: netip.MustParseAddr("192.168.0.77")}
	for name, tt := range map[string]struct {
		hops []NextHop
		via  string
	}{
		"by a next hop":          {[]NextHop{hop}, "192.168.0.77"},
		"as if on the network":   {nil, ""},
		"another VPC's next hop": {[]NextHop{{VPC: netip.MustParsePrefix("10.78.0.0/16"), Addr: hop.Addr}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			s.route(s.device, "10.77.0.0/16", "eth0", tt.via)
			d, _ := start(t, s.machine, Config{Attachments: []Attachment{s.attachment(tt.hops...)}, HealEvery: time.Hour})
			n := vpctest.NewNetwork(77)
			s.must(d.Apply(t.Context(), vpctest.PlanOf(n)))
			for _, i := range n.Interfaces {
				s.must(d.Check(t.Context(), i.ID))
			}
			s.served(d, s.device, n.At(0, 443), officeAddr)
			kept := s.served(d, s.device, n.At(1, 1400), officeAddr)
			s.silent(s.beyond, n.At(0, 443)) // the group admits no guests
			s.silent(s.device, n.At(0, 22))
			n.Group.Rules = append(n.Group.Rules, vpc.SecurityGroupRule{
				ID: "sgr-guests", Protocol: vpc.TCP, Ports: vpc.PortRange{From: 443, To: 443}, Peer: vpc.Peer{CIDR: netip.MustParsePrefix("172.16.0.0/16")},
			})
			s.must(d.Apply(t.Context(), vpctest.PlanOf(n)))
			s.served(d, s.beyond, n.At(0, 443), guestAddr) // by the router, and back by it
			n.Group.Rules = nil
			s.must(d.Apply(t.Context(), vpctest.PlanOf(n)))
			s.silent(s.device, n.At(0, 443))
			if _, err := kept.Write([]byte("x")); err != nil {
				t.Errorf("a connection that the group remembers: %v", err)
			}
		})
	}
}

// TestRealNetworkHeals: what others take away from the interface on a real network comes back, and neighbours need not learn a new address.
func TestRealNetworkHeals(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	hop := NextHop{VPC: netip.MustParsePrefix("10.77.0.0/16"), Addr: netip.MustParseAddr("192.168.0.77")}
	s.route(s.device, "10.77.0.0/16", "eth0", "192.168.0.77")
	d, _ := start(t, s.machine, Config{Attachments: []Attachment{s.attachment(hop)}, HealEvery: 20 * time.Millisecond})
	n := vpctest.NewNetwork(77)
	s.must(d.Apply(t.Context(), vpctest.PlanOf(n)))
	s.served(d, s.device, n.At(0, 443), officeAddr)
	in := d.networks[n.VPC.ID]
	link := func() netlink.Link {
		l, err := in.route.LinkByName(insideName(0))
		s.must(err)
		return l
	}
	first := link().Attrs().HardwareAddr.String()
	for what, take := range map[string]func() error{
		"link":  func() error { return in.route.LinkDel(link()) },
		"state": func() error { return in.route.LinkSetDown(link()) },
		"address": func() error {
			return in.route.AddrDel(link(), &netlink.Addr{IPNet: prefixOf(netip.PrefixFrom(hop.Addr, 32))})
		},
		"route": func() error {
			return in.route.RouteDel(&netlink.Route{LinkIndex: link().Attrs().Index, Dst: prefixOf(netip.MustParsePrefix("172.16.0.0/16"))})
		},
	} {
		before := d.Healed()
		if err := take(); err != nil {
			t.Fatalf("take the %s: %v", what, err)
		}
		await(t, "healing of the "+what, func() bool { return d.Healed() > before })
		s.served(d, s.device, n.At(0, 443), officeAddr)
	}
	if again := link().Attrs().HardwareAddr.String(); again != first {
		t.Errorf("the interface's address is %s, was %s", again, first)
	}

	// The parent goes: endpoints say so. It comes back: they serve.
	s.machine.do(t, func(h *netlink.Handle) error {
		l, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		return h.LinkDel(l)
	})
	await(t, "complaint", func() bool {
		err := d.Check(t.Context(), n.Interfaces[0].ID)
		return err != nil && strings.Contains(err.Error(), "find interface eth0")
	})
	s.machine.do(t, func(h *netlink.Handle) error {
		if err := h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "port2"}, PeerName: "eth0"}); err != nil {
			return err
		}
		bridge, err := h.LinkByName("switch")
		if err != nil {
			return err
		}
		port, err := h.LinkByName("port2")
		if err != nil {
			return err
		}
		return errors.Join(h.LinkSetMaster(port, bridge), h.LinkSetUp(port))
	})
	s.up(s.machine, "eth0", "")
	await(t, "return", func() bool { return d.Check(t.Context(), n.Interfaces[0].ID) == nil })
	s.served(d, s.device, n.At(0, 443), officeAddr)
}

// TestRealNetworkAfterACrash: a driver that ended without Close leaves a namespace with its interface; the next one takes both away.
func TestRealNetworkAfterACrash(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.route(s.device, "10.77.0.0/16", "eth0", "")
	dir := t.TempDir()
	cfg := Config{DataDir: dir, Attachments: []Attachment{s.attachment()}}
	crashed, out := worker(t, "apply", place{cfg.DataDir, cfg.Attachments})
	said(t, out, "applied")
	_ = crashed.Process.Kill() // the wait says it
	_ = crashed.Wait()
	a := vpctest.NewNetwork(77)
	name := namespaceName(owner(dir), a.VPC.ID)
	if err := unix.Access(namePath(name), unix.F_OK); err != nil {
		t.Fatalf("the crash left nothing: %v", err)
	}

	d, _ := start(t, s.machine, cfg)
	b := vpctest.NewNetwork(78)
	s.route(s.device, "10.78.0.0/16", "eth0", "")
	s.must(d.Apply(t.Context(), vpctest.PlanOf(b)))
	if err := unix.Access(namePath(name), unix.F_OK); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("the namespace %s is still there: %v", name, err)
	}
	s.served(d, s.device, b.At(0, 443), officeAddr)
	// Nobody answers for the addresses of the VPC that is gone; the kernel takes its time to end a namespace.
	await(t, "end of the crashed driver's endpoint", func() bool {
		c, err := s.dial(s.device, a.At(0, 443), 4*time.Second)
		if err == nil {
			_ = c.Close() // it is not there yet, or still
		}
		return errors.Is(err, syscall.EHOSTUNREACH)
	})
}

func TestAttachmentsAreChecked(t *testing.T) {
	t.Parallel()
	p, addr := netip.MustParsePrefix, netip.MustParseAddr
	office := []netip.Prefix{p("192.168.0.0/16")}
	for want, all := range map[string][]Attachment{
		"macvlan=eth0: networks: 192.168.5.0/24 overlaps 192.168.0.0/16 of netns=office": {
			{Namespace: "office", Networks: office}, {Networks: []netip.Prefix{p("192.168.5.0/24")}, LAN: &LAN{Parent: "eth0"}},
		},
		"host: networks: 10.1.0.0/16 overlaps 10.0.0.0/8 of host": {{Networks: []netip.Prefix{p("10.0.0.0/8"), p("10.1.0.0/16")}}},
		"host: networks: 10.0.0.0/8 overlaps 10.0.0.0/8 of host":  {{Networks: []netip.Prefix{p("10.0.0.0/8"), p("10.0.0.0/8")}}},
		"host: networks: 127.1.0.0/16 is reserved for loopback":   {{Networks: []netip.Prefix{p("127.1.0.0/16")}}},
		"host: networks: 224.0.0.0/4 is reserved for multicast":   {{Networks: []netip.Prefix{p("224.0.0.0/4")}}},
		`macvlan=: macvlan: "" is no name of an interface`:        {{Networks: office, LAN: &LAN{}}},
		"macvlan=eth0: addresses: ":                               {{Networks: office, Addresses: []netip.Addr{officeAddr}, LAN: &LAN{Parent: "eth0"}}},
		"macvlan=eth0: gateway: 10.0.0.1 is in no network":        {{Networks: office, LAN: &LAN{Parent: "eth0", Gateway: addr("10.0.0.1")}}},
		"macvlan=eth0: nexthops: 10.0.0.1 is in no network":       {{Networks: office, LAN: &LAN{Parent: "eth0", NextHops: []NextHop{{p("10.77.0.0/16"), addr("10.0.0.1")}}}}},
		"macvlan=eth0: nexthops: 10.77.0.1/16 is not the block":   {{Networks: office, LAN: &LAN{Parent: "eth0", NextHops: []NextHop{{p("10.77.0.1/16"), officeAddr}}}}},
		"macvlan=eth0: nexthops: 192.168.0.7 or 10.78.0.0/16 is named twice": {{Networks: office, LAN: &LAN{Parent: "eth0", NextHops: []NextHop{
			{p("10.77.0.0/16"), officeAddr}, {p("10.78.0.0/16"), officeAddr},
		}}}},
	} {
		if _, err := New(Config{DataDir: "x", Attachments: all}); err == nil || !strings.Contains(err.Error(), "attachment "+want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestBlocksOnARealNetwork: a real network knows one VPC for an address, and users are not in a VPC.
func TestBlocksOnARealNetwork(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d, _ := start(t, s.machine, Config{Attachments: []Attachment{s.attachment()}})
	first, second, users := vpctest.NewNetwork(77), vpctest.NewNetwork(78), vpctest.NewNetwork(79)
	second.VPC.CIDR = netip.MustParsePrefix("10.76.0.0/14") // holds both
	users.VPC.CIDR = netip.MustParsePrefix("192.168.0.0/24")
	users.Subnets = users.Subnets[:1]
	users.Subnets[0].CIDR, users.Interfaces = users.VPC.CIDR, users.Interfaces[:1]
	users.Interfaces[0].Addr = netip.MustParseAddr("192.168.0.10")
	s.must(d.Apply(t.Context(), vpctest.PlanOf(first, second, users)))
	s.must(d.Check(t.Context(), first.Interfaces[0].ID))
	for _, n := range []*vpctest.Network{second, users} {
		if err := d.Check(t.Context(), n.Interfaces[0].ID); !errors.Is(err, ErrOverlap) {
			t.Errorf("%s: %v, want %v", n.VPC.CIDR, err, ErrOverlap)
		}
	}
}
