package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/vpc"
)

// Gateways of the two ends of a link, one a family. No interface has them: they are keys of permanent neighbour entries, so no
// address of anybody is taken and nobody is asked for an Ethernet address.
func usersGateway(f vpc.AddressFamily) net.IP { return gateway(f, 1) }
func vpcGateway(f vpc.AddressFamily) net.IP   { return gateway(f, 2) }

func gateway(f vpc.AddressFamily, end byte) net.IP {
	if f == vpc.FamilyIPv6 {
		return net.IP{0: 0xfe, 1: 0x80, 13: 77, 15: end}
	}
	return net.IPv4(169, 254, 77, end)
}

// probeAddr is from where interfaces are checked; it is on the loopback interface of a VPC's namespace. No network has it: it is
// a link-local address, or one of the block that is to be discarded everywhere (RFC 6666). The loopback address of IPv6 would
// not do, since the kernel lets it reach no other.
func probeAddr(f vpc.AddressFamily) netip.Addr {
	if f == vpc.FamilyIPv6 {
		return netip.AddrFrom16([16]byte{0: 1, 13: 77, 15: 3}) // 100::4d:3
	}
	return netip.AddrFrom4([4]byte{169, 254, 77, 3})
}

// ErrNoIPv6 says that the machine's kernel was started without IPv6.
var ErrNoIPv6 = errors.New("this machine has no IPv6")

func hasIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err == nil
}

// firstMetric of routes to VPCs, in the users' namespace. VPCs with the same block differ by it.
const firstMetric = 700

// ErrOverlap says that a block of addresses is used by the machine otherwise.
var ErrOverlap = errors.New("addresses are in use on this machine")

func alias(owner string) string { return "penstock " + owner }

// openSpace is a handle to the links, addresses and routes of a namespace, the process's own when name is empty.
func openSpace(name string) (*netlink.Handle, netns.NsHandle, error) {
	var ns netns.NsHandle
	var err error
	if name == "" {
		ns, err = netns.Get()
	} else {
		ns, err = netns.GetFromPath(namePath(name))
	}
	if err != nil {
		return nil, netns.None(), fmt.Errorf("open network namespace %q: %w", name, err)
	}
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, netns.None(), errors.Join(fmt.Errorf("open network namespace %q: %w", name, err), ns.Close())
	}
	return h, ns, nil
}

// prefixOf is a block as netlink has it.
func prefixOf(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixFrom(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	a, ok := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if a = a.Unmap(); !ok || size != a.BitLen() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, bits), true
}

// whole lists again when what is listed changed meanwhile: half a list would pass for a whole one.
func whole[T any](list func() ([]T, error)) (all []T, err error) {
	for range 20 {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return nil, err
}

// routesOf are the routes by a link, or all, of both families.
func routesOf(h *netlink.Handle, l netlink.Link) ([]netlink.Route, error) {
	return bothFamilies(func(family int) ([]netlink.Route, error) { return h.RouteList(l, family) })
}

func addrsOf(h *netlink.Handle, l netlink.Link) ([]netlink.Addr, error) {
	return bothFamilies(func(family int) ([]netlink.Addr, error) { return h.AddrList(l, family) })
}

func bothFamilies[T any](list func(family int) ([]T, error)) (all []T, err error) {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		some, err := whole(func() ([]T, error) { return list(family) })
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

func missing(err error) bool {
	_, ok := errors.AsType[netlink.LinkNotFoundError](err)
	return ok
}

func exists(err error) bool { return errors.Is(err, unix.EEXIST) }

func gone(err error) bool {
	return errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT)
}

// ensureLoopback brings the loopback interface up, with the address from which interfaces are checked.
func (n *network) ensureLoopback() (changed bool, err error) {
	lo, err := n.route.LinkByName(vpc.LoopbackLink)
	if err != nil {
		return false, fmt.Errorf("find loopback: %w", err)
	}
	if lo.Attrs().Flags&net.FlagUp == 0 {
		if err := n.route.LinkSetUp(lo); err != nil {
			return false, fmt.Errorf("start loopback: %w", err)
		}
		changed = true
	}
	probes := []netip.Addr{probeAddr(vpc.FamilyIPv4)}
	if n.ipv6 {
		probes = append(probes, probeAddr(vpc.FamilyIPv6))
	}
	done, err := n.ensureAddrs(lo, probes, false)
	return changed || done, err
}

// bridgeName is the name of a subnet's bridge.
func bridgeName(id vpc.SubnetID) string { return "sn-" + short(string(id), 12) }

// ensureBridge makes a subnet's bridge, with the addresses of its interfaces.
func (n *network) ensureBridge(id vpc.SubnetID, addrs []netip.Addr) (changed bool, err error) {
	name := bridgeName(id)
	l, err := n.route.LinkByName(name)
	if missing(err) {
		changed = true
		// Without snooping the bridge joins no multicast group, so it sends nothing by itself.
		if err := n.route.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}, MulticastSnooping: new(false)}); err != nil && !exists(err) {
			return false, fmt.Errorf("make bridge of %s: %w", id, err)
		}
		l, err = n.route.LinkByName(name)
	}
	if err != nil {
		return false, fmt.Errorf("find bridge of %s: %w", id, err)
	}
	if l.Attrs().Flags&net.FlagUp == 0 {
		changed = true
		if err := n.route.LinkSetUp(l); err != nil {
			return false, fmt.Errorf("start bridge of %s: %w", id, err)
		}
	}
	done, err := n.ensureAddrs(l, addrs, true)
	if err != nil {
		return false, fmt.Errorf("subnet %s: %w", id, err)
	}
	return changed || done, nil
}

// ensureAddrs gives a link its addresses, each alone in its block; exact: and takes all others.
func (n *network) ensureAddrs(l netlink.Link, want []netip.Addr, exact bool) (changed bool, err error) {
	have, err := addrsOf(n.route, l)
	if err != nil {
		return false, fmt.Errorf("list addresses: %w", err)
	}
	left := slices.Clone(want)
	for i := range have {
		p, ok := prefixFrom(have[i].IPNet)
		if at := slices.Index(left, p.Addr()); ok && p.IsSingleIP() && at >= 0 {
			left = slices.Delete(left, at, at+1)
			continue
		}
		if !exact || p.Addr().Is6() && p.Addr().IsLinkLocalUnicast() {
			continue
		}
		changed = true
		if err := n.route.AddrDel(l, &have[i]); err != nil && !gone(err) {
			return false, fmt.Errorf("take address %s: %w", p, err)
		}
	}
	for _, a := range left {
		changed = true
		addr := &netlink.Addr{IPNet: prefixOf(netip.PrefixFrom(a, a.BitLen()))}
		if a.Is6() { // nobody else has it, so it need not be looked for first
			addr.Flags = unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE
		}
		if err := n.route.AddrAdd(l, addr); err != nil && !exists(err) {
			return false, fmt.Errorf("give address %s: %w", a, err)
		}
	}
	for _, a := range left {
		if a.Is6() {
			n.awaitLocal(a)
		}
	}
	return changed, nil
}

// awaitLocal waits until an IPv6 address answers: the kernel makes the route to it later. It gives up after a second; Check
// finds out then.
func (n *network) awaitLocal(a netip.Addr) {
	for range 1000 {
		routes, err := n.route.RouteGet(a.AsSlice())
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// LinkName is the interface in the users' namespace by which an attachment (in the order of the configuration) reaches a VPC.
func (d *Driver) LinkName(id vpc.VPCID, attachment int) string {
	return linkName(d.owner, id, attachment)
}

func linkName(owner string, id vpc.VPCID, attachment int) string {
	return fmt.Sprintf("psk%s%s%x", owner[:5], short(string(id), 5), attachment)
}

func insideName(attachment int) string { return fmt.Sprintf("att%d", attachment) }

func mac(end byte, name string) net.HardwareAddr {
	h := []byte(short(name, 8))
	return net.HardwareAddr{0x02, end, h[0], h[1], h[2], h[3]} // locally administered
}

// attach joins a VPC to the users' networks of an attachment by a pair of links, with routes both ways.
func (d *Driver) attach(n *network, i int) (changed bool, err error) {
	a := d.cfg.Attachments[i]
	h, ns, err := openSpace(a.Namespace)
	if err != nil {
		return false, err
	}
	defer ns.Close()
	defer h.Close()
	name := d.LinkName(n.id, i)
	usersMAC, vpcMAC := mac(0x50, name), mac(0x51, name)

	outer, outerErr := h.LinkByName(name)
	if outerErr == nil && !strings.HasPrefix(outer.Attrs().Alias, alias(d.owner)) {
		return false, fmt.Errorf("interface %s: %w", name, ErrOverlap)
	}
	inner, innerErr := n.route.LinkByName(insideName(i))
	if missing(outerErr) || missing(innerErr) {
		for _, b := range n.blocks {
			if err := overlap(h, d.owner, b); err != nil {
				return false, err
			}
		}
		changed = true
		if outerErr == nil { // its other end is not in our namespace
			if err := h.LinkDel(outer); err != nil && !gone(err) {
				return false, fmt.Errorf("remove %s: %w", name, err)
			}
		}
		pair := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: usersMAC, Alias: alias(d.owner) + " " + string(n.id)},
			PeerName:  insideName(i), PeerHardwareAddr: vpcMAC, PeerNamespace: netlink.NsFd(int(n.ns)),
		}
		if err := h.LinkAdd(pair); err != nil {
			return false, fmt.Errorf("make link %s: %w", name, err)
		}
		if outer, outerErr = h.LinkByName(name); outerErr != nil {
			return false, fmt.Errorf("find link %s: %w", name, outerErr)
		}
		if outer.Attrs().Alias == "" {
			if err := h.LinkSetAlias(outer, pair.Alias); err != nil {
				return false, fmt.Errorf("mark link %s: %w", name, err)
			}
		}
		inner, innerErr = n.route.LinkByName(insideName(i))
	}
	if err := errors.Join(outerErr, innerErr); err != nil {
		return false, fmt.Errorf("find link %s: %w", name, err)
	}
	done, err := d.connectEnds(n, i, h, ns, outer, inner, usersMAC, vpcMAC)
	return changed || done, err
}

// connectEnds gives both ends of a link what they need: addresses of users, neighbours, routes.
func (d *Driver) connectEnds(n *network, i int, h *netlink.Handle, ns netns.NsHandle, outer, inner netlink.Link, usersMAC, vpcMAC net.HardwareAddr) (changed bool, err error) {
	a := d.cfg.Attachments[i]
	if outer.Attrs().Flags&net.FlagUp == 0 {
		if err := inside(ns, func() error { return prepare(outer.Attrs().Name, len(a.Addresses) > 0) }); err != nil {
			return false, err
		}
	}
	for _, end := range []struct {
		h    *netlink.Handle
		link netlink.Link
	}{{h, outer}, {n.route, inner}} {
		if end.link.Attrs().Flags&net.FlagUp == 0 {
			changed = true
			if err := end.h.LinkSetUp(end.link); err != nil {
				return false, fmt.Errorf("start link %s: %w", end.link.Attrs().Name, err)
			}
		}
	}
	users := &network{route: h, ipv6: n.ipv6}
	done, err := users.ensureAddrs(outer, slices.DeleteFunc(slices.Clone(a.Addresses), func(x netip.Addr) bool { return !n.carries(x) }), true)
	if err != nil {
		return false, fmt.Errorf("link %s: %w", outer.Attrs().Name, err)
	}
	changed = changed || done
	for _, b := range n.blocks {
		if !n.carries(b.Addr()) {
			continue
		}
		var src net.IP
		if at := slices.IndexFunc(a.Addresses, func(x netip.Addr) bool { return x.Is4() == b.Addr().Is4() }); at >= 0 {
			src = a.Addresses[at].AsSlice()
		}
		metric, err := freeMetric(h, b, outer.Attrs().Index)
		if err != nil {
			return false, err
		}
		if done, err = ensureRoute(h, outer, b, vpcGateway(vpc.FamilyOf(b.Addr())), vpcMAC, src, metric); err != nil {
			return false, err
		}
		changed = changed || done
	}
	if done, err = dropRoutes(h, outer, n.blocks); err != nil {
		return false, err
	}
	changed = changed || done
	for _, u := range a.Networks {
		if !n.carries(u.Addr()) {
			continue
		}
		if done, err = ensureRoute(n.route, inner, u, usersGateway(vpc.FamilyOf(u.Addr())), usersMAC, nil, innerMetric); err != nil {
			return false, err
		}
		changed = changed || done
	}
	return changed, nil
}

// innerMetric of routes to users, in a VPC's namespace; the kernel's own for IPv6.
const innerMetric = 1024

// dropRoutes takes away the routes by a link to blocks that its VPC has no more.
func dropRoutes(h *netlink.Handle, l netlink.Link, keep []netip.Prefix) (changed bool, err error) {
	routes, err := routesOf(h, l)
	if err != nil {
		return false, fmt.Errorf("list routes: %w", err)
	}
	for i := range routes {
		p, ok := prefixFrom(routes[i].Dst)
		if !ok || slices.Contains(keep, p) || !routes[i].Gw.Equal(vpcGateway(vpc.FamilyOf(p.Addr()))) {
			continue
		}
		changed = true
		if err := h.RouteDel(&routes[i]); err != nil && !gone(err) {
			return false, fmt.Errorf("remove route to %s by %s: %w", p, l.Attrs().Name, err)
		}
	}
	return changed, nil
}

// prepare configures the users' end of a link before it is started: answers may come by it although another one leads to the
// same block, and it has no addresses of its own, so it asks and tells nothing. The kernel's loose way of looking at sources asks
// more of a link without addresses than of others.
func prepare(name string, addressed bool) error {
	loose := "0"
	if addressed {
		loose = "2"
	}
	for _, s := range []struct{ path, value string }{
		{"ipv4/conf/" + name + "/rp_filter", loose},
		{"ipv6/conf/" + name + "/disable_ipv6", "0"},
		{"ipv6/conf/" + name + "/addr_gen_mode", "1"},
		{"ipv6/conf/" + name + "/accept_ra", "0"},
	} {
		path := "/proc/sys/net/" + s.path
		if err := os.WriteFile(path, []byte(s.value), 0o644); err != nil && (hasIPv6() || !strings.HasPrefix(s.path, "ipv6/")) {
			return fmt.Errorf("set %s: %w", path, err)
		}
	}
	return nil
}

// freeMetric is the metric of the link's route to the block, or one that no other route to it has.
func freeMetric(h *netlink.Handle, to netip.Prefix, link int) (int, error) {
	routes, err := routesOf(h, nil)
	if err != nil {
		return 0, fmt.Errorf("list routes: %w", err)
	}
	taken := map[int]bool{}
	for _, r := range routes {
		if p, ok := prefixFrom(r.Dst); ok && p == to {
			if r.LinkIndex == link {
				return r.Priority, nil
			}
			taken[r.Priority] = true
		}
	}
	m := firstMetric
	for taken[m] {
		m++
	}
	return m, nil
}

func ensureRoute(h *netlink.Handle, l netlink.Link, to netip.Prefix, gateway net.IP, at net.HardwareAddr, src net.IP, metric int) (changed bool, err error) {
	index, family := l.Attrs().Index, family(to.Addr())
	neighbours, err := whole(func() ([]netlink.Neigh, error) { return h.NeighList(index, family) })
	if err != nil {
		return false, fmt.Errorf("list neighbours: %w", err)
	}
	if !slices.ContainsFunc(neighbours, func(n netlink.Neigh) bool {
		return n.IP.Equal(gateway) && slices.Equal(n.HardwareAddr, at) && n.State&netlink.NUD_PERMANENT != 0
	}) {
		changed = true
		if err := h.NeighSet(&netlink.Neigh{LinkIndex: index, Family: family, State: netlink.NUD_PERMANENT, IP: gateway, HardwareAddr: at}); err != nil {
			return false, fmt.Errorf("set neighbour of %s: %w", l.Attrs().Name, err)
		}
	}
	routes, err := routesOf(h, l)
	if err != nil {
		return false, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if p, ok := prefixFrom(r.Dst); ok && p == to && r.Gw.Equal(gateway) && r.Priority == metric && (src == nil || r.Src.Equal(src)) {
			return changed, nil
		}
	}
	err = h.RouteReplace(&netlink.Route{LinkIndex: index, Dst: prefixOf(to), Gw: gateway, Flags: int(netlink.FLAG_ONLINK), Src: src, Priority: metric})
	if err != nil {
		return false, fmt.Errorf("set route to %s by %s: %w", to, l.Attrs().Name, err)
	}
	return true, nil
}

// overlap says whether somebody else's route or address is about addresses of the block.
func overlap(h *netlink.Handle, owner string, block netip.Prefix) error {
	links, err := whole(h.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	ours, name := map[int]bool{}, map[int]string{}
	for _, l := range links {
		ours[l.Attrs().Index] = strings.HasPrefix(l.Attrs().Alias, alias(owner))
		name[l.Attrs().Index] = l.Attrs().Name
	}
	routes, err := routesOf(h, nil)
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if p, ok := prefixFrom(r.Dst); ok && p.Bits() > 0 && p.Overlaps(block) && !ours[r.LinkIndex] {
			return fmt.Errorf("%s overlaps the route %s by %s: %w", block, p, name[r.LinkIndex], ErrOverlap)
		}
	}
	addrs, err := addrsOf(h, nil)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if p, ok := prefixFrom(a.IPNet); ok && p.Masked().Overlaps(block) && !ours[a.LinkIndex] {
			return fmt.Errorf("%s overlaps the address %s of %s: %w", block, p, name[a.LinkIndex], ErrOverlap)
		}
	}
	return nil
}

// detachAll removes the links of an owner in a namespace; with a VPC, only those that lead to it.
func detachAll(namespace, owner string, id vpc.VPCID) (removed int, err error) {
	h, ns, err := openSpace(namespace)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil // the users' namespace went, and its links with it
	}
	if err != nil {
		return 0, err
	}
	defer ns.Close()
	defer h.Close()
	links, err := whole(h.LinkList)
	if err != nil {
		return 0, fmt.Errorf("list links: %w", err)
	}
	for _, l := range links {
		mark := alias(owner) + " "
		if !strings.HasPrefix(l.Attrs().Alias, mark) || id != "" && l.Attrs().Alias != mark+string(id) {
			continue
		}
		if err := h.LinkDel(l); err != nil && !gone(err) {
			return removed, fmt.Errorf("remove link %s: %w", l.Attrs().Name, err)
		}
		removed++
	}
	return removed, nil
}
