package network

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// FullAccessPolicy is the policy of every endpoint: AppStream's services support no other.
const FullAccessPolicy = `{"Statement":[{"Action":"*","Effect":"Allow","Principal":"*","Resource":"*"}]}`

// CreateEndpoint are the parameters of CreateVpcEndpoint.
type CreateEndpoint struct {
	VPC           vpc.VPCID
	Service       string
	ServiceRegion string
	Type          vpc.EndpointType // empty: Gateway, as EC2 has it
	Subnets       []vpc.SubnetID
	// Addresses are the addresses that the caller chose; they name subnets as Subnets does.
	Addresses      map[vpc.SubnetID]ChosenAddresses
	Groups         []vpc.SecurityGroupID
	RouteTables    []string
	PolicyDocument string
	// PrivateDNS nil: on where the VPC allows it and no other endpoint has the names, otherwise off.
	PrivateDNS    *bool
	IPAddressType vpc.IPAddressType // empty: IPv4
	DNSRecordType vpc.DNSRecordType // empty: as IPAddressType
	ClientToken   string
	Tags          vpc.Tags
}

// ChosenAddresses are addresses for the interface in a subnet; empty ones are chosen here.
type ChosenAddresses struct{ IPv4, IPv6 string }

// CreateVPCEndpoint makes a pending endpoint with one interface a subnet; Run makes it available.
// A ClientToken that comes again answers the first endpoint.
func (s *Service) CreateVPCEndpoint(ctx context.Context, c CreateEndpoint) (*vpc.Endpoint, error) {
	if err := cmp.Or(s.checkEndpointRequest(&c), s.checkTags(c.Tags)); err != nil {
		return nil, err
	}
	token := c.ClientToken
	c.ClientToken = ""
	return state.Write(ctx, s.store, func(tx state.Tx) (*vpc.Endpoint, error) {
		return once(s, tx, "CreateVpcEndpoint", token, c, vpc.Endpoints(), func() (*vpc.Endpoint, error) { return s.createEndpoint(tx, c) })
	})
}

// checkEndpointRequest applies the rules that need no state.
func (s *Service) checkEndpointRequest(c *CreateEndpoint) error {
	if c.Service == "" {
		return missing("ServiceName")
	}
	if _, ok := vpc.FindService(s.region, c.Service); !ok || c.ServiceRegion != "" && c.ServiceRegion != s.region {
		return fault.Newf(fault.NotFound, "", "", "The Vpc Endpoint Service '%s' does not exist", c.Service).WithCode("InvalidServiceName")
	}
	c.Type = cmp.Or(c.Type, vpc.EndpointGateway)
	if c.Type == vpc.EndpointGateway && len(c.Subnets)+len(c.Addresses) > 0 {
		return invalidParameter("SubnetIds cannot be specified for Gateway type VPC endpoints.")
	}
	if c.Type != vpc.EndpointInterface {
		return invalidParameter("The VPC endpoint service %s only supports the endpoint type Interface.", c.Service)
	}
	if len(c.RouteTables) > 0 {
		return invalidParameter("RouteTableIds cannot be specified for Interface type VPC endpoints.")
	}
	var err error
	if c.IPAddressType, c.DNSRecordType, err = vpc.CheckIPAddressTypes(c.IPAddressType, c.DNSRecordType); err != nil {
		return err
	}
	for id := range c.Addresses {
		if !slices.Contains(c.Subnets, id) {
			c.Subnets = append(c.Subnets, id)
		}
	}
	if len(c.Addresses) > 0 {
		slices.Sort(c.Subnets)
	}
	c.Subnets = unique(c.Subnets)
	c.Groups = unique(c.Groups)
	return checkPolicy(c.PolicyDocument)
}

func unique[T comparable](list []T) []T {
	var out []T
	for _, v := range list {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// checkPolicy admits the full-access policy in any spelling, and nothing else: the services support no policies.
func checkPolicy(document string) error {
	if document == "" {
		return nil
	}
	if len(document) > 20480 {
		return fault.New(fault.Invalid, "", "", "The policy document exceeds 20480 characters").WithCode("InvalidPolicyDocument")
	}
	var p struct {
		Statement json.RawMessage
	}
	if err := json.Unmarshal([]byte(document), &p); err != nil {
		return fault.New(fault.Invalid, "", "", "The policy document is not valid JSON").WithCode("InvalidPolicyDocument")
	}
	var statements []map[string]any
	if err := json.Unmarshal(p.Statement, &statements); err != nil {
		var one map[string]any
		if err := json.Unmarshal(p.Statement, &one); err != nil {
			return fault.New(fault.Invalid, "", "", "The policy document has no statement").WithCode("InvalidPolicyDocument")
		}
		statements = []map[string]any{one}
	}
	full := len(statements) > 0
	for _, st := range statements {
		principal := st["Principal"]
		if m, ok := principal.(map[string]any); ok && len(m) == 1 {
			principal = m["AWS"]
		}
		all := func(v any) bool {
			if l, ok := v.([]any); ok && len(l) == 1 {
				v = l[0]
			}
			return v == "*"
		}
		full = full && st["Effect"] == "Allow" && all(st["Action"]) && all(st["Resource"]) && all(principal) && st["Condition"] == nil
	}
	if full {
		return nil
	}
	return invalidParameter("Endpoint policies are not supported by this service. Only full access is possible.")
}

func (s *Service) createEndpoint(tx state.Tx, c CreateEndpoint) (*vpc.Endpoint, error) {
	v, err := get(tx, vpc.VPCs(), c.VPC)
	if err != nil {
		return nil, err
	}
	others, err := vpc.Endpoints().By(tx, "vpc", string(v.ID))
	if err != nil {
		return nil, err
	}
	living := without(others, func(e *vpc.Endpoint) bool { return e.State == vpc.EndpointDeleted })
	if len(living) >= s.limits.EndpointsPerVPC {
		return nil, limit("VpcEndpointLimitExceeded", "The maximum number of VPC endpoints has been reached.")
	}
	subnets, err := s.endpointSubnets(tx, v, c.Subnets)
	if err != nil {
		return nil, err
	}
	groups := c.Groups
	if len(groups) == 0 {
		groups = []vpc.SecurityGroupID{v.DefaultSecurityGroup}
	}
	if err := s.checkEndpointGroups(tx, v, groups); err != nil {
		return nil, err
	}
	e := &vpc.Endpoint{
		ID: newID[vpc.EndpointID](vpc.PrefixEndpoint), OwnerID: s.account, VPC: v.ID, Type: vpc.EndpointInterface,
		Service: c.Service, State: vpc.EndpointPending, Groups: groups,
		IPAddressType: c.IPAddressType, DNSRecordType: c.DNSRecordType, PolicyDocument: cmp.Or(c.PolicyDocument, FullAccessPolicy),
		Tags: c.Tags, Created: s.now().UTC(), Generation: 1,
		DNSSuffix: suffix(),
	}
	switch {
	case c.PrivateDNS != nil && *c.PrivateDNS:
		if err := privateDNSAllowed(v, e, living); err != nil {
			return nil, err
		}
		e.PrivateDNS = true
	case c.PrivateDNS == nil:
		e.PrivateDNS = privateDNSAllowed(v, e, living) == nil
	}
	for _, n := range subnets {
		if err := s.addInterface(tx, e, n, c.Addresses[n.ID]); err != nil {
			return nil, err
		}
	}
	if err := s.nameEndpoint(tx, e); err != nil {
		return nil, err
	}
	return e, vpc.Endpoints().Put(tx, e)
}

// suffix is the part of an endpoint's names that nobody can guess from its ID.
func suffix() string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	for i := range b {
		b[i] = letters[int(b[i])%len(letters)]
	}
	return string(b[:])
}

// endpointSubnets reads subnets of the VPC, at most one a zone.
func (s *Service) endpointSubnets(r state.Reader, v *vpc.VPC, ids []vpc.SubnetID) ([]*vpc.Subnet, error) {
	out := make([]*vpc.Subnet, 0, len(ids))
	zones := map[string]vpc.SubnetID{}
	for _, id := range ids {
		n, err := get(r, vpc.Subnets(), id)
		if err != nil {
			return nil, err
		}
		if n.VPC != v.ID {
			return nil, invalidParameter("The subnet %s is not in the VPC %s.", id, v.ID)
		}
		if zones[n.Zone] != "" {
			return nil, sameZone(n)
		}
		zones[n.Zone] = id
		out = append(out, n)
	}
	return out, nil
}

func sameZone(n *vpc.Subnet) error {
	return fault.Newf(fault.Invalid, "", "", "Found another VPC endpoint subnet in the availability zone of %s: %s", n.ID, n.Zone).WithCode("DuplicateSubnetsInSameZone")
}

func (s *Service) checkEndpointGroups(r state.Reader, v *vpc.VPC, ids []vpc.SecurityGroupID) error {
	if len(ids) == 0 {
		return invalidParameter("An interface endpoint needs at least one security group.")
	}
	if len(ids) > s.limits.GroupsPerInterface {
		return limit("SecurityGroupsPerInterfaceLimitExceeded", "The maximum number of security groups per interface has been reached.")
	}
	for _, id := range ids {
		g, err := get(r, vpc.SecurityGroups(), id)
		if err != nil {
			return err
		}
		if g.VPC != v.ID {
			return invalidParameter("The security group %s is not in the VPC %s.", id, v.ID)
		}
	}
	return nil
}

// privateDNSAllowed says whether the endpoint may have the service's private names.
func privateDNSAllowed(v *vpc.VPC, e *vpc.Endpoint, others []*vpc.Endpoint) error {
	if !v.DNSSupport || !v.DNSHostnames {
		return invalidParameter("Enabling private DNS requires both enableDnsSupport and enableDnsHostnames VPC attributes set to true for %s", v.ID)
	}
	for _, o := range others {
		if o.ID != e.ID && o.PrivateDNS && o.Service == e.Service && o.State != vpc.EndpointDeleting && o.State != vpc.EndpointDeleted {
			return invalidParameter("private-dns-enabled cannot be set because there is already a conflicting DNS domain for %s in the VPC %s", e.Service, v.ID)
		}
	}
	return nil
}

// address is an interface's address in a block of a subnet, the chosen one when there is one.
func address(r state.Reader, n *vpc.Subnet, block netip.Prefix, chosen string) (netip.Addr, error) {
	there, err := vpc.NetworkInterfaces().By(r, "subnet", string(n.ID))
	if err != nil {
		return netip.Addr{}, err
	}
	used := make(map[netip.Addr]bool, 2*len(there))
	for _, i := range there {
		used[i.Addr], used[i.Addr6] = true, true
	}
	taken := func(a netip.Addr) bool { return used[a] }
	if chosen == "" {
		return vpc.FreeAddress(n.ID, block, taken)
	}
	addr, err := netip.ParseAddr(chosen)
	if err != nil || addr.Is4() != block.Addr().Is4() || addr.Zone() != "" {
		return netip.Addr{}, invalid("Value (%.60s) for parameter SubnetConfiguration is invalid. This is not an %s address.", chosen, vpc.FamilyOf(block.Addr()))
	}
	return addr, vpc.CheckAddress(block, addr, taken)
}

// settleAddresses gives an interface the addresses that an endpoint of the type has in the subnet, keeps those that it has
// already, and takes the others.
func settleAddresses(r state.Reader, i *vpc.NetworkInterface, t vpc.IPAddressType, n *vpc.Subnet, chosen ChosenAddresses) (err error) {
	if err := t.Fits(n); err != nil {
		return err
	}
	if chosen.IPv4 != "" && t == vpc.AddressIPv6 || chosen.IPv6 != "" && t == vpc.AddressIPv4 {
		return invalidParameter("The IP address type %s has no place for the address that was chosen for the subnet %s.", t, n.ID)
	}
	for _, f := range []struct {
		addr   *netip.Addr
		not    vpc.IPAddressType
		block  netip.Prefix
		chosen string
	}{{&i.Addr, vpc.AddressIPv6, n.CIDR, chosen.IPv4}, {&i.Addr6, vpc.AddressIPv4, n.IPv6, chosen.IPv6}} {
		switch {
		case t == f.not:
			*f.addr = netip.Addr{}
		case !f.addr.IsValid():
			if *f.addr, err = address(r, n, f.block, f.chosen); err != nil {
				return err
			}
		}
	}
	return nil
}

// addInterface makes the endpoint's interface in a subnet.
func (s *Service) addInterface(tx state.Tx, e *vpc.Endpoint, n *vpc.Subnet, chosen ChosenAddresses) error {
	var mac [4]byte
	_, _ = rand.Read(mac[:]) // never fails
	i := &vpc.NetworkInterface{
		ID: newID[vpc.NetworkInterfaceID](vpc.PrefixNetworkInterface), OwnerID: s.account, VPC: e.VPC, Subnet: n.ID, Zone: n.Zone,
		MAC: fmt.Sprintf("02:50:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3]), Groups: e.Groups, Endpoint: e.ID,
		InterfaceType: "vpc_endpoint", Description: "VPC Endpoint Interface " + string(e.ID), RequesterManaged: true, Status: vpc.InterfacePending,
	}
	if err := settleAddresses(tx, i, e.IPAddressType, n, chosen); err != nil {
		return err
	}
	e.Subnets = append(e.Subnets, n.ID)
	e.Interfaces = append(e.Interfaces, i.ID)
	return vpc.NetworkInterfaces().Put(tx, i)
}

// nameEndpoint writes the names that follow from the endpoint's zones.
func (s *Service) nameEndpoint(r state.Reader, e *vpc.Endpoint) error {
	zones := make([]string, 0, len(e.Subnets))
	for _, id := range e.Subnets {
		n, err := get(r, vpc.Subnets(), id)
		if err != nil {
			return err
		}
		zones = append(zones, n.Zone)
	}
	service, _ := vpc.FindService(s.region, e.Service)
	e.DNSEntries = vpc.DNSEntries(e, service, zones)
	return nil
}

// DescribeEndpoints returns the named endpoints, or all.
func (s *Service) DescribeEndpoints(ctx context.Context, ids []vpc.EndpointID) ([]*vpc.Endpoint, error) {
	return describe(ctx, s.store, vpc.Endpoints(), ids)
}

// DescribeNetworkInterfaces returns the named interfaces, or all.
func (s *Service) DescribeNetworkInterfaces(ctx context.Context, ids []vpc.NetworkInterfaceID) ([]*vpc.NetworkInterface, error) {
	return describe(ctx, s.store, vpc.NetworkInterfaces(), ids)
}

// ModifyEndpoint are the parameters of ModifyVpcEndpoint; nil and empty change nothing.
type ModifyEndpoint struct {
	ID             vpc.EndpointID
	AddSubnets     []vpc.SubnetID
	RemoveSubnets  []vpc.SubnetID
	Addresses      map[vpc.SubnetID]ChosenAddresses // of added subnets, or other ones for those that are there
	AddGroups      []vpc.SecurityGroupID
	RemoveGroups   []vpc.SecurityGroupID
	PrivateDNS     *bool
	PolicyDocument *string
	ResetPolicy    bool
	IPAddressType  vpc.IPAddressType
	DNSRecordType  vpc.DNSRecordType
}

// ModifyVPCEndpoint changes an endpoint, which is pending until the network carries the change.
func (s *Service) ModifyVPCEndpoint(ctx context.Context, m ModifyEndpoint) error {
	if m.PolicyDocument != nil {
		if m.ResetPolicy {
			return combination("PolicyDocument and ResetPolicy exclude each other")
		}
		if err := checkPolicy(*m.PolicyDocument); err != nil {
			return err
		}
	}
	_, err := s.store.Update(ctx, func(tx state.Tx) error {
		e, err := get(tx, vpc.Endpoints(), m.ID)
		if err != nil {
			return err
		}
		if e.State == vpc.EndpointDeleting || e.State == vpc.EndpointDeleted {
			return fault.Newf(fault.NotPermitted, "", "", "The vpc endpoint %s is in state %s and cannot be modified", e.ID, e.State).WithCode("IncorrectState")
		}
		v, err := get(tx, vpc.VPCs(), e.VPC)
		if err != nil {
			return err
		}
		if err := s.modifyEndpoint(tx, v, e, m); err != nil {
			return err
		}
		e.State = vpc.EndpointPending
		e.LastError = nil
		e.Generation++
		return vpc.Endpoints().Put(tx, e)
	})
	return err
}

func (s *Service) modifyEndpoint(tx state.Tx, v *vpc.VPC, e *vpc.Endpoint, m ModifyEndpoint) error {
	switch {
	case m.PolicyDocument != nil:
		e.PolicyDocument = cmp.Or(*m.PolicyDocument, FullAccessPolicy)
	case m.ResetPolicy:
		e.PolicyDocument = FullAccessPolicy
	}
	if err := modifyTypes(e, m); err != nil {
		return err
	}
	if err := s.modifySubnets(tx, v, e, m); err != nil {
		return err
	}
	if err := s.modifyGroups(tx, v, e, m); err != nil {
		return err
	}
	if m.PrivateDNS != nil {
		if *m.PrivateDNS && !e.PrivateDNS {
			others, err := vpc.Endpoints().By(tx, "vpc", string(v.ID))
			if err != nil {
				return err
			}
			if err := privateDNSAllowed(v, e, others); err != nil {
				return err
			}
		}
		e.PrivateDNS = *m.PrivateDNS
	}
	return s.nameEndpoint(tx, e)
}

// modifyTypes changes which addresses and records the endpoint has. Records that do not fit other addresses follow them, unless
// they are asked for.
func modifyTypes(e *vpc.Endpoint, m ModifyEndpoint) (err error) {
	t := cmp.Or(m.IPAddressType, e.IPAddressType)
	r := cmp.Or(m.DNSRecordType, e.DNSRecordType)
	if m.DNSRecordType == "" && t != e.IPAddressType {
		if _, _, err := vpc.CheckIPAddressTypes(t, r); err != nil || t == vpc.AddressDual {
			r = ""
		}
	}
	e.IPAddressType, e.DNSRecordType, err = vpc.CheckIPAddressTypes(t, r)
	return err
}

func (s *Service) modifySubnets(tx state.Tx, v *vpc.VPC, e *vpc.Endpoint, m ModifyEndpoint) error {
	for _, id := range m.RemoveSubnets {
		if _, err := get(tx, vpc.Subnets(), id); err != nil {
			return err
		}
	}
	// What is there when the call comes counts: EC2 adds before it removes.
	zones := map[string]vpc.SubnetID{}
	for _, id := range e.Subnets {
		n, err := get(tx, vpc.Subnets(), id)
		if err != nil {
			return err
		}
		zones[n.Zone] = id
	}
	add := slices.Clone(m.AddSubnets)
	for id := range m.Addresses {
		if !slices.Contains(add, id) && !slices.Contains(e.Subnets, id) {
			add = append(add, id)
		}
	}
	slices.Sort(add)
	added, err := s.endpointSubnets(tx, v, unique(add))
	if err != nil {
		return err
	}
	for _, n := range added {
		if slices.Contains(e.Subnets, n.ID) {
			continue
		}
		if zones[n.Zone] != "" {
			return sameZone(n)
		}
		if err := s.addInterface(tx, e, n, m.Addresses[n.ID]); err != nil {
			return err
		}
	}
	for _, id := range m.RemoveSubnets {
		i := slices.Index(e.Subnets, id)
		if i < 0 {
			continue
		}
		if err := vpc.NetworkInterfaces().Delete(tx, string(e.Interfaces[i])); err != nil {
			return err
		}
		e.Subnets = slices.Delete(e.Subnets, i, i+1)
		e.Interfaces = slices.Delete(e.Interfaces, i, i+1)
	}
	for i, id := range e.Subnets {
		n, err := get(tx, vpc.Subnets(), id)
		if err != nil {
			return err
		}
		if err := s.settleInterface(tx, e, i, n, m.Addresses[id]); err != nil {
			return err
		}
	}
	return nil
}

// settleInterface gives the endpoint's interface in a subnet the addresses of the endpoint's type. Other addresses that were
// chosen for it make another interface in its place.
func (s *Service) settleInterface(tx state.Tx, e *vpc.Endpoint, at int, n *vpc.Subnet, chosen ChosenAddresses) error {
	i, err := get(tx, vpc.NetworkInterfaces(), e.Interfaces[at])
	if err != nil {
		return err
	}
	other := func(chosen string, has netip.Addr) bool {
		a, err := netip.ParseAddr(chosen)
		return chosen != "" && has.IsValid() && (err != nil || a != has)
	}
	if other(chosen.IPv4, i.Addr) || other(chosen.IPv6, i.Addr6) {
		if err := vpc.NetworkInterfaces().Delete(tx, string(i.ID)); err != nil {
			return err
		}
		if err := s.addInterface(tx, e, n, chosen); err != nil {
			return err
		}
		last := len(e.Interfaces) - 1 // in the place of the one that goes
		e.Interfaces[at], e.Interfaces, e.Subnets = e.Interfaces[last], e.Interfaces[:last], e.Subnets[:last]
		return nil
	}
	if err := settleAddresses(tx, i, e.IPAddressType, n, chosen); err != nil {
		return err
	}
	return vpc.NetworkInterfaces().Put(tx, i)
}

func (s *Service) modifyGroups(tx state.Tx, v *vpc.VPC, e *vpc.Endpoint, m ModifyEndpoint) error {
	if len(m.AddGroups)+len(m.RemoveGroups) == 0 {
		return nil
	}
	for _, id := range m.RemoveGroups {
		if _, err := get(tx, vpc.SecurityGroups(), id); err != nil {
			return err
		}
	}
	groups := unique(append(slices.Clone(e.Groups), m.AddGroups...))
	groups = without(groups, func(id vpc.SecurityGroupID) bool { return slices.Contains(m.RemoveGroups, id) })
	if err := s.checkEndpointGroups(tx, v, groups); err != nil {
		return err
	}
	e.Groups = groups
	for _, id := range e.Interfaces {
		i, err := get(tx, vpc.NetworkInterfaces(), id)
		if err != nil {
			return err
		}
		i.Groups = groups
		if err := vpc.NetworkInterfaces().Put(tx, i); err != nil {
			return err
		}
	}
	return nil
}

// Unsuccessful is an item of DeleteVpcEndpoints that failed.
type Unsuccessful struct {
	ID            vpc.EndpointID
	Code, Message string
}

// DeleteVPCEndpoints marks endpoints for deletion; Run takes them off the network. Each item fails by itself.
func (s *Service) DeleteVPCEndpoints(ctx context.Context, ids []vpc.EndpointID) ([]Unsuccessful, error) {
	if len(ids) == 0 {
		return nil, missing("VpcEndpointId")
	}
	for _, id := range ids {
		if err := vpc.CheckID(id); err != nil {
			return nil, err
		}
	}
	return state.Write(ctx, s.store, func(tx state.Tx) ([]Unsuccessful, error) {
		var out []Unsuccessful
		for _, id := range unique(ids) {
			e, ok, err := vpc.Endpoints().Get(tx, string(id))
			if err != nil {
				return nil, err
			}
			if !ok || e.State == vpc.EndpointDeleted {
				out = append(out, Unsuccessful{id, "InvalidVpcEndpoint.NotFound", fmt.Sprintf("The Vpc Endpoint Id '%s' does not exist", id)})
				continue
			}
			if e.State == vpc.EndpointDeleting {
				continue
			}
			e.State = vpc.EndpointDeleting
			e.Generation++
			if err := vpc.Endpoints().Put(tx, e); err != nil {
				return nil, err
			}
		}
		return out, nil
	})
}

// Address is where an endpoint's interface is reached.
type Address struct {
	Interface vpc.NetworkInterfaceID
	Subnet    vpc.SubnetID
	Zone      string
	Private   netip.Addr
	// Dial is where port 443 of the interface is reached on the driver's network; zero before the first Apply.
	Dial netip.AddrPort
}

// EndpointAddresses are the addresses of an endpoint in the order of its subnets.
func (s *Service) EndpointAddresses(r state.Reader, id vpc.EndpointID) ([]Address, error) {
	e, err := get(r, vpc.Endpoints(), id)
	if err != nil {
		return nil, err
	}
	out := make([]Address, 0, len(e.Interfaces))
	for _, eni := range e.Interfaces {
		i, ok, err := vpc.NetworkInterfaces().Get(r, string(eni))
		if err != nil {
			return nil, err
		}
		if !ok {
			continue // goes with its endpoint
		}
		for _, addr := range i.Addrs() {
			a := Address{Interface: i.ID, Subnet: i.Subnet, Zone: i.Zone, Private: addr}
			served := false
			if s.driver != nil {
				a.Dial, served = s.driver.DialAddr(i.VPC, netip.AddrPortFrom(addr, 443))
			}
			if served || addr.Is4() || !i.Addr.IsValid() { // a driver without IPv6 serves the other address alone
				out = append(out, a)
			}
		}
	}
	return out, nil
}
