package kernel

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"penstock.dev/penstock/internal/vpc"
)

// LAN makes an attachment one to a real network: each VPC has a macvlan interface on an interface of the machine, and devices
// of that network, or its router, send to it what goes to endpoints. Nothing else of the machine is on the way.
type LAN struct {
	// Parent is the machine's interface on that network.
	Parent string
	// Gateway is the network's router, by which users beyond it are reached; those of the network that holds it are reached
	// directly. Not valid: all users are.
	Gateway netip.Addr
	// NextHops are addresses on that network which VPCs get for routers to send to. A VPC without one answers for
	// its endpoints' addresses themselves (ARP), so routers send to them as if they were on the network.
	NextHops []NextHop
}

// NextHop is the address of a VPC, named by its block, on a real network.
type NextHop struct {
	VPC  netip.Prefix
	Addr netip.Addr
}

// String names an attachment in messages, as a flag does.
func (a Attachment) String() string {
	var parts []string
	if a.LAN != nil {
		parts = append(parts, "macvlan="+a.LAN.Parent)
	}
	if a.Namespace != "" {
		parts = append(parts, "netns="+a.Namespace)
	}
	if len(parts) == 0 {
		return "host"
	}
	return strings.Join(parts, ",")
}

// checkAttachments says what is wrong with attachments that are good one by one.
func checkAttachments(all []Attachment) error {
	for i, a := range all {
		if err := a.checkLAN(); err != nil {
			return fmt.Errorf("%s: %w", a, err)
		}
		for k, p := range a.Networks {
			if reserved := reservedFor(p); reserved != "" {
				return fmt.Errorf("%s: networks: %s is reserved for %s", a, p, reserved)
			}
			for j, b := range all[:i+1] {
				earlier := b.Networks
				if j == i {
					earlier = earlier[:k]
				}
				for _, q := range earlier {
					if p.Overlaps(q) {
						return fmt.Errorf("%s: networks: %s overlaps %s of %s, and nobody could tell whose users are meant", a, p, q, b)
					}
				}
			}
		}
	}
	return nil
}

// reservedFor says what a network overlaps that no user has.
func reservedFor(p netip.Prefix) string {
	for _, r := range []struct{ prefix, what string }{
		{"127.0.0.0/8", "loopback"}, {"169.254.0.0/16", "links"}, {"224.0.0.0/4", "multicast"}, {"0.0.0.0/8", "this network"},
	} {
		if netip.MustParsePrefix(r.prefix).Overlaps(p) {
			return r.what
		}
	}
	return ""
}

func (a Attachment) checkLAN() error {
	if a.LAN == nil {
		return nil
	}
	inside := func(x netip.Addr) bool {
		return slices.ContainsFunc(a.Networks, func(p netip.Prefix) bool { return p.Contains(x) })
	}
	switch {
	case slices.ContainsFunc(a.Networks, func(p netip.Prefix) bool { return !p.Addr().Is4() }):
		return errors.New("networks: users of macvlan attachments have IPv4")
	case a.LAN.Parent == "" || len(a.LAN.Parent) > 15 || strings.ContainsAny(a.LAN.Parent, "/ "):
		return fmt.Errorf("macvlan: %q is no name of an interface", a.LAN.Parent)
	case len(a.Addresses) > 0:
		return errors.New("addresses: users of a real network have theirs")
	case a.LAN.Gateway.IsValid() && !inside(a.LAN.Gateway):
		return fmt.Errorf("gateway: %s is in no network of the attachment", a.LAN.Gateway)
	}
	for i, h := range a.LAN.NextHops {
		switch {
		case !h.VPC.IsValid() || h.VPC != h.VPC.Masked():
			return fmt.Errorf("nexthops: %s is not the block of a VPC", h.VPC)
		case !inside(h.Addr) || h.Addr == a.LAN.Gateway:
			return fmt.Errorf("nexthops: %s is in no network of the attachment, or its gateway", h.Addr)
		case slices.ContainsFunc(a.LAN.NextHops[:i], func(o NextHop) bool { return o.VPC == h.VPC || o.Addr == h.Addr }):
			return fmt.Errorf("nexthops: %s or %s is named twice", h.Addr, h.VPC)
		}
	}
	return nil
}

// lanMAC is the same after every start, so that neighbours need not learn another.
func lanMAC(owner string, id vpc.VPCID, attachment int) net.HardwareAddr {
	h := sha256.Sum256(fmt.Appendf(nil, "%s %s %d", owner, id, attachment))
	return net.HardwareAddr{0x02, h[0], h[1], h[2], h[3], h[4]} // locally administered
}

// attachLAN gives a VPC its interface on a real network.
func (d *Driver) attachLAN(n *network, i int) (changed bool, err error) {
	a := d.cfg.Attachments[i]
	if b, p, ok := overlapping(n.blocks, a.Networks); ok {
		return false, fmt.Errorf("%s overlaps %s, a network of users at %s: %w", b, p, a, ErrOverlap)
	}
	for id, other := range d.networks {
		if b, p, ok := overlapping(n.blocks, other.blocks); ok && other != n && other.onLAN[i] && !n.onLAN[i] {
			return false, fmt.Errorf("%s overlaps %s, a block of %s: a real network knows one of them: %w", b, p, id, ErrOverlap)
		}
	}
	h, ns, err := openSpace(a.Namespace)
	if err != nil {
		return false, err
	}
	defer ns.Close()
	defer h.Close()
	parent, err := h.LinkByName(a.LAN.Parent)
	if err != nil {
		return false, fmt.Errorf("find interface %s: %w", a.LAN.Parent, err)
	}
	if parent.Attrs().Flags&net.FlagUp == 0 {
		return false, fmt.Errorf("interface %s is down", a.LAN.Parent)
	}
	l, err := n.route.LinkByName(insideName(i))
	if missing(err) {
		changed = true
		if err := h.LinkAdd(&netlink.Macvlan{
			LinkAttrs: netlink.LinkAttrs{
				Name: insideName(i), ParentIndex: parent.Attrs().Index, HardwareAddr: lanMAC(d.owner, n.id, i), Namespace: netlink.NsFd(int(n.ns)),
			},
			Mode: netlink.MACVLAN_MODE_BRIDGE, // VPCs on one parent reach each other as on a switch; their rules judge that
		}); err != nil && !exists(err) {
			return false, fmt.Errorf("make an interface on %s: %w", a.LAN.Parent, err)
		}
		l, err = n.route.LinkByName(insideName(i))
	}
	if err != nil {
		return false, fmt.Errorf("find the interface on %s: %w", a.LAN.Parent, err)
	}
	if l.Attrs().Flags&net.FlagUp == 0 {
		changed = true
		if err := n.route.LinkSetUp(l); err != nil {
			return false, fmt.Errorf("start the interface on %s: %w", a.LAN.Parent, err)
		}
	}
	hops := n.nextHops(a.LAN)
	if changed {
		// Ask for neighbours in the name of the next hop; otherwise in that of the endpoint, which is the packet's source.
		announce := "0"
		if len(hops) > 0 {
			announce = "2"
		}
		path := "/proc/sys/net/ipv4/conf/" + insideName(i) + "/arp_announce"
		if err := inside(n.ns, func() error { return os.WriteFile(path, []byte(announce), 0o644) }); err != nil {
			return false, fmt.Errorf("set %s: %w", path, err)
		}
	}
	done, err := n.ensureAddrs(l, hops, true)
	if err != nil {
		return false, fmt.Errorf("interface on %s: %w", a.LAN.Parent, err)
	}
	changed = changed || done
	for _, p := range a.Networks {
		done, err := ensureLANRoute(n.route, l, p, a.LAN.Gateway)
		if err != nil {
			return false, err
		}
		changed = changed || done
	}
	n.onLAN[i] = true
	return changed, nil
}

// leaveLANs removes the interfaces on real networks that a namespace has. The kernel does it by itself when the namespace ends, but not at
// once, and until then the next interface with the same Ethernet address cannot start.
func leaveLANs(h *netlink.Handle) error {
	links, err := whole(h.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		if l.Type() != "macvlan" {
			continue
		}
		if err := h.LinkDel(l); err != nil && !gone(err) {
			return fmt.Errorf("remove link %s: %w", l.Attrs().Name, err)
		}
	}
	return nil
}

// leaveLANsOf is leaveLANs in a namespace that an earlier run left.
func leaveLANsOf(name string) error {
	h, ns, err := openSpace(name)
	if err != nil {
		return nil // a name that stands for nothing any more
	}
	defer ns.Close()
	defer h.Close()
	return leaveLANs(h)
}

func overlapping(some, others []netip.Prefix) (one, other netip.Prefix, is bool) {
	for _, one := range some {
		for _, other := range others {
			if one.Overlaps(other) {
				return one, other, true
			}
		}
	}
	return netip.Prefix{}, netip.Prefix{}, false
}

// nextHops are the VPC's addresses on the network; none: it answers for its endpoints' addresses.
func (n *network) nextHops(lan *LAN) (out []netip.Addr) {
	for _, h := range lan.NextHops {
		if slices.Contains(n.blocks, h.VPC) {
			out = append(out, h.Addr)
		}
	}
	return out
}

// ensureLANRoute routes a network of users: directly where they, or their router, are; otherwise by the router.
func ensureLANRoute(h *netlink.Handle, l netlink.Link, to netip.Prefix, gateway netip.Addr) (changed bool, err error) {
	want := netlink.Route{LinkIndex: l.Attrs().Index, Dst: prefixOf(to), Scope: netlink.SCOPE_LINK}
	if gateway.IsValid() && !to.Contains(gateway) {
		want.Gw, want.Scope, want.Flags = gateway.AsSlice(), netlink.SCOPE_UNIVERSE, int(netlink.FLAG_ONLINK)
	}
	routes, err := routesOf(h, l)
	if err != nil {
		return false, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if p, ok := prefixFrom(r.Dst); ok && p == to && r.Gw.Equal(want.Gw) {
			return false, nil
		}
	}
	if err := h.RouteReplace(&want); err != nil {
		return false, fmt.Errorf("set route to %s by %s: %w", to, l.Attrs().Name, err)
	}
	return true, nil
}
