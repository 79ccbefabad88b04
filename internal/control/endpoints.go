package control

import (
	"cmp"
	"net/netip"
	"slices"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// endpointPort is where viewers open an endpoint's page.
const endpointPort = 443

// placement is the network interface that a session streams from.
type placement struct {
	ENI      string // eni-…
	Address  string // private IPv4 address
	Address6 string // IPv6 address
	Origin   string // "http://127.80.1.10:443", "https://[fd00:77:0:1::10]:443"
}

// checkAccessEndpoints refuses endpoints that a stack or builder cannot be bound to. AppStream looks at them as its service role.
func (c *Control) checkAccessEndpoints(r state.Reader, es []appstream.AccessEndpoint) error {
	if len(es) == 0 {
		return nil
	}
	if err := c.asServiceRole(r, "ec2:DescribeVpcEndpoints"); err != nil {
		return err
	}
	for i, e := range es {
		if e.EndpointType != "STREAMING" {
			return fault.Newf(fault.Invalid, "accessEndpoints.endpointType", "", "%q is not STREAMING", e.EndpointType)
		}
		if e.VpceID == "" {
			return fault.New(fault.Missing, "accessEndpoints.vpceId", "", "the VPC endpoint's ID is missing")
		}
		if i > 0 {
			return fault.New(fault.Combination, "accessEndpoints", "", "at most one STREAMING endpoint can be set")
		}
		if err := c.checkEndpoint(r, appstream.EndpointID(e.VpceID)); err != nil {
			return err
		}
	}
	return nil
}

// checkEndpoint refuses an endpoint that a stack or builder cannot be bound to (facts: no such endpoint → not found; another service or
// type, not available → combination).
func (c *Control) checkEndpoint(r state.Reader, id appstream.EndpointID) error {
	e, ok, err := vpc.Endpoints().Get(r, string(id))
	if err != nil {
		return err
	}
	switch {
	case !ok || e.OwnerID != c.Account || e.State == vpc.EndpointDeleted:
		return fault.New(fault.NotFound, "VPC endpoint", string(id), "there is no VPC endpoint with this ID in this account and region")
	case !vpc.IsStreaming(e.Service):
		return fault.Newf(fault.Combination, "VPC endpoint", string(id), "it is for service %s, not for appstream.streaming", e.Service)
	case e.Type != vpc.EndpointInterface:
		return fault.Newf(fault.Combination, "VPC endpoint", string(id), "it is of type %s, not Interface", e.Type)
	case e.State != vpc.EndpointAvailable:
		return fault.Newf(fault.Combination, "VPC endpoint", string(id), "it is %s; it must be available", e.State)
	default:
		return nil
	}
}

// placeAt chooses the interface that a new session streams from; seed spreads sessions over zones.
func (c *Control) placeAt(r state.Reader, id appstream.EndpointID, seed uint64) (placement, error) {
	unavailable := func(reason string) error { return fault.New(fault.NotAvailable, "VPC endpoint", string(id), reason) }
	e, ok, err := vpc.Endpoints().Get(r, string(id))
	switch {
	case err != nil:
		return placement{}, err
	case !ok:
		return placement{}, unavailable("it does not exist any more")
	case e.State != vpc.EndpointAvailable && (e.State != vpc.EndpointPending || e.Realised == 0):
		return placement{}, unavailable("it is " + string(e.State))
	}
	var up []*vpc.NetworkInterface
	for _, eni := range e.Interfaces {
		n, ok, err := vpc.NetworkInterfaces().Get(r, string(eni))
		if err != nil {
			return placement{}, err
		}
		if ok && n.Status == vpc.InterfaceInUse {
			up = append(up, n)
		}
	}
	if len(up) == 0 {
		return placement{}, unavailable("none of its network interfaces is in use")
	}
	n := up[seed%uint64(len(up))]
	origin, ok := c.originAt(e, n, "")
	if !ok {
		return placement{}, unavailable("its network is not up yet")
	}
	p := placement{ENI: string(n.ID), Origin: origin}
	if n.Addr.IsValid() {
		p.Address = n.Addr.String()
	}
	if n.Addr6.IsValid() {
		p.Address6 = n.Addr6.String()
	}
	return p, nil
}

// originAt is where a viewer opens an interface: at its address of the viewer's family, where users of that family have a way into VPCs
// and the interface has one; otherwise at the one that the endpoint's name has, and the IPv4 one where it has both. No family: the viewer
// is not known.
func (c *Control) originAt(e *vpc.Endpoint, n *vpc.NetworkInterface, viewer vpc.AddressFamily) (string, bool) {
	if c.UserNetworks != nil && !slices.ContainsFunc(c.UserNetworks(), func(u vpc.UserNetwork) bool { return vpc.FamilyOf(u.Dial.Addr()) == viewer }) {
		viewer = "" // it has the portal by this family, but nothing behind it
	}
	order := func(a netip.Addr) int {
		if viewer != "" && vpc.FamilyOf(a) == viewer {
			return -1
		}
		return rank(e.DNSRecordType, a)
	}
	addrs := n.Addrs()
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return cmp.Compare(order(a), order(b)) })
	scheme := "http://"
	if c.Secure {
		scheme = "https://"
	}
	for _, a := range addrs {
		if dial, ok := c.DialAddr(n.VPC, netip.AddrPortFrom(a, endpointPort)); ok {
			return scheme + dial.String(), true
		}
	}
	return "", false
}

// rank puts addresses that the endpoint's name has before others.
func rank(r vpc.DNSRecordType, a netip.Addr) int {
	if r.Has(a) {
		return 0
	}
	return 1
}

// endpointGone reports whether the endpoint is being deleted or was deleted.
func endpointGone(r state.Reader, id appstream.EndpointID) (bool, error) {
	e, ok, err := vpc.Endpoints().Get(r, string(id))
	return err == nil && (!ok || e.State == vpc.EndpointDeleting || e.State == vpc.EndpointDeleted), err
}
