package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"penstock.dev/penstock/internal/nameserver"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// endpointNames is everything that endpoints are called, at one moment.
type endpointNames struct {
	served nameserver.Names
	// endpoints are the names of each endpoint; "*.x" stands for every name below x.
	endpoints map[vpc.EndpointID][]string
	// hosts are the addresses of each endpoint's interfaces, as they are dialled.
	hosts map[vpc.EndpointID][]string
}

// namesSource is what endpointNames are made of.
type namesSource struct {
	vpcs       []*vpc.VPC
	endpoints  []*vpc.Endpoint
	interfaces map[vpc.NetworkInterfaceID]*vpc.NetworkInterface
	users      []vpc.UserNetwork
	dial       func(vpc.VPCID, netip.AddrPort) (netip.AddrPort, bool)
}

// nameEndpoints makes one view for each VPC that has DNS, with its own endpoints' names, and one for the networks of users,
// which are attached to every VPC: all names, but those private names that several VPCs have are in none but their own.
func nameEndpoints(src namesSource) *endpointNames {
	out := &endpointNames{endpoints: map[vpc.EndpointID][]string{}, hosts: map[vpc.EndpointID][]string{}}
	apexes := map[string]string{} // private zones and the VPC that has them; "" when several do
	for _, s := range vpc.Services(devRegion) {
		out.served.Apexes = append(out.served.Apexes, s.BaseDNSName)
	}
	users := nameserver.View{
		Records: map[string][]nameserver.Target{},
		Sources: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("::1/128")}, // this machine's own users
	}
	for _, n := range src.users {
		users.Sources = append(users.Sources, n.Dial)
	}
	for _, e := range src.endpoints {
		out.hosts[e.ID] = src.hosts(e)
	}
	for _, v := range src.vpcs {
		if !v.DNSSupport {
			continue
		}
		view := nameserver.View{Records: map[string][]nameserver.Target{}}
		for _, b := range v.Blocks() {
			if dialled, ok := src.dial(v.ID, netip.AddrPortFrom(b.Addr(), 443)); ok {
				view.Sources = append(view.Sources, netip.PrefixFrom(dialled.Addr(), b.Bits()).Masked())
			}
		}
		if len(view.Sources) == 0 {
			continue
		}
		for _, e := range src.endpoints {
			if e.VPC == v.ID && e.State != vpc.EndpointDeleting && e.State != vpc.EndpointDeleted {
				src.name(e, &view, out)
			}
		}
		for _, a := range view.Private {
			if _, had := apexes[a]; had {
				apexes[a] = ""
			} else {
				apexes[a] = string(v.ID)
			}
		}
		out.served.Views = append(out.served.Views, view)
	}
	for _, view := range out.served.Views {
		for name, targets := range view.Records {
			apex := strings.TrimPrefix(name, "*.")
			if owner, private := apexes[apex]; private && owner == "" {
				continue
			}
			users.Records[name] = targets
		}
	}
	for a, owner := range apexes {
		if owner != "" {
			users.Private = append(users.Private, a)
		}
	}
	out.served.Views = append(out.served.Views, users)
	return out
}

// hosts are where an endpoint's interfaces are dialled.
func (src namesSource) hosts(e *vpc.Endpoint) []string {
	var out []string
	for _, id := range e.Interfaces {
		n := src.interfaces[id]
		if n == nil {
			continue
		}
		for _, a := range n.Addrs() {
			if d, ok := src.dial(e.VPC, netip.AddrPortFrom(a, 443)); ok {
				out = append(out, d.Addr().Unmap().String())
			}
		}
	}
	return out
}

// name adds an endpoint's names to the view of its VPC.
func (src namesSource) name(e *vpc.Endpoint, view *nameserver.View, out *endpointNames) {
	label := string(e.ID) + "-" + e.DNSSuffix
	var all []nameserver.Target
	zonal := map[string][]nameserver.Target{}
	for _, id := range e.Interfaces {
		n := src.interfaces[id]
		if n == nil {
			continue
		}
		for _, a := range n.Addrs() {
			d, ok := src.dial(e.VPC, netip.AddrPortFrom(a, 443)) // not where the driver has no IPv6
			if !ok || !e.DNSRecordType.Has(a) {
				continue
			}
			t := nameserver.Target{Addr: d.Addr().Unmap(), Down: n.Status != vpc.InterfaceInUse}
			all = append(all, t)
			zonal[label+"-"+n.Zone+"."] = append(zonal[label+"-"+n.Zone+"."], t)
		}
	}
	for _, d := range e.DNSEntries {
		name := strings.ToLower(d.Name)
		out.endpoints[e.ID] = append(out.endpoints[e.ID], name)
		targets := all
		for prefix, of := range zonal {
			if strings.HasPrefix(name, prefix) {
				targets = of
			}
		}
		if !strings.HasPrefix(name, label) {
			view.Private = append(view.Private, strings.TrimPrefix(name, "*."))
		}
		view.Records[name] = targets
	}
}

// has says whether a name in lower case is one of the endpoint's.
func (n *endpointNames) has(id vpc.EndpointID, name string) bool {
	return slices.ContainsFunc(n.endpoints[id], func(own string) bool {
		if apex, wild := strings.CutPrefix(own, "*"); wild {
			return strings.HasSuffix(name, apex) && len(name) > len(apex)
		}
		return name == own
	})
}

// keepNames brings the names up to date with each change of the network, until ctx ends.
func (r *region) keepNames(ctx context.Context) error {
	const pause = time.Second // after a failure
	for ctx.Err() == nil {
		err := r.followNames(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, state.ErrCompacted) {
			continue
		}
		r.log.Error("names were not brought up to date", "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
	return nil
}

// followNames makes the names and returns when something that they are made of changed.
func (r *region) followNames(ctx context.Context) error {
	at, err := r.readNames(ctx)
	for err == nil {
		var changes []state.Change
		if changes, err = r.store.Changes(ctx, at); len(changes) > 0 {
			at = changes[len(changes)-1].Revision
		}
		if slices.ContainsFunc(changes, func(c state.Change) bool {
			return c.Kind == vpc.KindEndpoint || c.Kind == vpc.KindNetworkInterface || c.Kind == vpc.KindVPC
		}) {
			return nil
		}
	}
	return err
}

// readNames makes the names of what is stored now.
func (r *region) readNames(ctx context.Context) (at state.Revision, err error) {
	src := namesSource{interfaces: map[vpc.NetworkInterfaceID]*vpc.NetworkInterface{}, users: r.driver.UserNetworks(), dial: r.driver.DialAddr}
	err = r.store.View(ctx, func(rd state.Reader) (err error) {
		if at, err = rd.Revision(); err != nil {
			return err
		}
		if src.vpcs, err = vpc.VPCs().List(rd, state.Query{}); err != nil {
			return err
		}
		if src.endpoints, err = vpc.Endpoints().List(rd, state.Query{}); err != nil {
			return err
		}
		all, err := vpc.NetworkInterfaces().List(rd, state.Query{})
		for _, n := range all {
			src.interfaces[n.ID] = n
		}
		return err
	})
	if err == nil {
		r.names.Store(nameEndpoints(src))
	}
	return at, err
}

// endpointHosts are the addresses of an endpoint.
func (r *region) endpointHosts(id vpc.EndpointID) []string { return r.names.Load().hosts[id] }

// servedNames is what the name server answers from.
func (r *region) servedNames() *nameserver.Names { return &r.names.Load().served }

// knownHost accepts the address that was dialled, the names of the endpoint that is there, and names of the operator's.
func (r *region) knownHost(c *vpc.Conn, host string) bool {
	a, ok := c.LocalAddr().(*net.TCPAddr)
	return ok && strings.Trim(host, "[]") == a.IP.String() || r.names.Load().has(c.Endpoint, strings.ToLower(host)) || r.ownName(host)
}

// knownName says which names certificates are issued for: those of endpoints, and this machine's at its own addresses.
func (r *region) knownName(name string, local netip.Addr) bool {
	if name == "localhost" {
		return local.IsLoopback()
	}
	names := r.names.Load()
	for id := range names.endpoints {
		if names.has(id, name) {
			return true
		}
	}
	return false
}

// announceNames says how the endpoint's name is asked for.
func (r *region) announceNames(info devJSON) {
	host, port, _ := net.SplitHostPort(info.DNSAddr)
	name := ""
	if own := r.names.Load().endpoints[vpc.EndpointID(info.VPCEndpointID)]; len(own) > 0 {
		name = own[0]
	}
	if name == "" {
		fmt.Printf("names    %s   (UDP and TCP; docs/dns.md)\n", info.DNSAddr)
		return
	}
	fmt.Printf("names    %s   (dig @%s -p %s %s; docs/dns.md)\n", info.DNSAddr, host, port, name)
}
