package network

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// CreateSecurityGroup makes a group that admits nothing and lets everything out. Without a VPC it is the default one's.
func (s *Service) CreateSecurityGroup(ctx context.Context, id vpc.VPCID, name, description string, tags vpc.Tags) (*vpc.SecurityGroup, error) {
	if err := vpc.CheckGroupName(name); err != nil {
		return nil, err
	}
	if description == "" {
		return nil, missing("GroupDescription")
	}
	if err := cmp.Or(vpc.CheckDescription(description), s.checkTags(tags)); err != nil {
		return nil, err
	}
	return state.Write(ctx, s.store, func(tx state.Tx) (*vpc.SecurityGroup, error) {
		if id == "" {
			defaults, err := vpc.VPCs().By(tx, "default", "true")
			if err != nil {
				return nil, err
			}
			if len(defaults) == 0 {
				return nil, fault.New(fault.Invalid, "", "", "No default VPC for this user").WithCode("VPCIdNotSpecified")
			}
			id = defaults[0].ID
		}
		v, err := get(tx, vpc.VPCs(), id)
		if err != nil {
			return nil, err
		}
		others, err := vpc.SecurityGroups().By(tx, "vpc", string(id))
		if err != nil {
			return nil, err
		}
		if name == vpc.DefaultGroupName {
			return nil, invalid("Cannot use reserved security group name: %s", name)
		}
		if slices.ContainsFunc(others, func(g *vpc.SecurityGroup) bool { return g.Name == name }) {
			return nil, fault.Newf(fault.AlreadyExists, "", "", "The security group '%s' already exists for VPC '%s'", name, id).WithCode("InvalidGroup.Duplicate")
		}
		n, err := tx.Count(vpc.KindSecurityGroup, state.Key{})
		if err != nil {
			return nil, err
		}
		if n >= s.limits.SecurityGroups {
			return nil, limit("SecurityGroupLimitExceeded", "The maximum number of security groups has been reached.")
		}
		g := &vpc.SecurityGroup{
			ID: newID[vpc.SecurityGroupID](vpc.PrefixSecurityGroup), OwnerID: s.account, VPC: id, Name: name, Description: description,
			Rules: []vpc.SecurityGroupRule{egressTo(anywhere())}, Tags: tags, Created: s.now().UTC(),
		}
		if len(v.IPv6) > 0 {
			g.Rules = append(g.Rules, egressTo(anywhere6()))
		}
		return g, vpc.SecurityGroups().Put(tx, g)
	})
}

// DescribeSecurityGroups returns the named groups, or all.
func (s *Service) DescribeSecurityGroups(ctx context.Context, ids []vpc.SecurityGroupID) ([]*vpc.SecurityGroup, error) {
	return describe(ctx, s.store, vpc.SecurityGroups(), ids)
}

// GroupRef names a group by ID or, in the default VPC, by name.
type GroupRef struct {
	ID   vpc.SecurityGroupID
	Name string
}

// group finds the group that ref names.
func (s *Service) group(r state.Reader, ref GroupRef) (*vpc.SecurityGroup, error) {
	if ref.ID != "" {
		return get(r, vpc.SecurityGroups(), ref.ID)
	}
	if ref.Name == "" {
		return nil, missing("GroupId")
	}
	defaults, err := vpc.VPCs().By(r, "default", "true")
	if err != nil {
		return nil, err
	}
	for _, v := range defaults {
		groups, err := vpc.SecurityGroups().By(r, "vpc", string(v.ID))
		if err != nil {
			return nil, err
		}
		for _, g := range groups {
			if g.Name == ref.Name {
				return g, nil
			}
		}
	}
	return nil, fault.Newf(fault.NotFound, "", "", "The security group '%s' does not exist in default VPC", ref.Name).WithCode("InvalidGroup.NotFound")
}

// DeleteSecurityGroup removes a group that no interface carries and no other group names.
func (s *Service) DeleteSecurityGroup(ctx context.Context, ref GroupRef) (vpc.SecurityGroupID, error) {
	return state.Write(ctx, s.store, func(tx state.Tx) (vpc.SecurityGroupID, error) {
		g, err := s.group(tx, ref)
		if err != nil {
			return "", err
		}
		if g.Name == vpc.DefaultGroupName {
			return "", fault.Newf(fault.NotPermitted, "", "", "the specified group: %q name: %q cannot be deleted by a user", string(g.ID), g.Name).WithCode("CannotDelete")
		}
		used, err := tx.Count(vpc.KindNetworkInterface, state.Key{Name: "group", Value: string(g.ID)})
		if err != nil {
			return "", err
		}
		peers, err := vpc.SecurityGroups().By(tx, "peer", string(g.ID))
		if err != nil {
			return "", err
		}
		endpoints, err := vpc.Endpoints().By(tx, "group", string(g.ID))
		if err != nil {
			return "", err
		}
		named := slices.ContainsFunc(peers, func(o *vpc.SecurityGroup) bool { return o.ID != g.ID })
		carried := slices.ContainsFunc(endpoints, func(e *vpc.Endpoint) bool { return e.State != vpc.EndpointDeleted })
		if used > 0 || named || carried {
			return "", dependency("resource %s has a dependent object", g.ID)
		}
		return g.ID, vpc.SecurityGroups().Delete(tx, string(g.ID))
	})
}

// RuleRequest is a rule as a client asks for it or describes it for revoking.
type RuleRequest struct {
	Protocol    string
	From, To    *int
	CIDR        string            // IPv4 or IPv6; exactly one of CIDR, Group and PrefixList
	Family      vpc.AddressFamily // that CIDR must be of; empty: any
	Group       GroupRef
	GroupOwner  string
	PrefixList  vpc.PrefixListID
	Description string
}

// rule reads a request. For revoking, ports that come with protocol -1 are ignored as they are for authorizing.
func (s *Service) rule(r state.Reader, in *vpc.SecurityGroup, q RuleRequest, egress bool) (vpc.SecurityGroupRule, error) {
	none := vpc.SecurityGroupRule{}
	proto, ports, err := vpc.NormalizeTraffic(q.Protocol, q.From, q.To)
	if err != nil {
		return none, err
	}
	if err := vpc.CheckDescription(q.Description); err != nil {
		return none, err
	}
	out := vpc.SecurityGroupRule{Egress: egress, Protocol: proto, Ports: ports, Description: q.Description}
	if q.CIDR != "" && q.Group != (GroupRef{}) || q.CIDR != "" && q.PrefixList != "" || q.Group != (GroupRef{}) && q.PrefixList != "" {
		return none, combination("A rule has one peer: %s, %s or a prefix list", "a CIDR block", "a security group")
	}
	switch {
	case q.CIDR != "":
		p, err := netip.ParsePrefix(q.CIDR)
		if err != nil || q.Family != "" && vpc.FamilyOf(p.Addr()) != q.Family {
			return none, invalid("CIDR block %.60s is malformed", q.CIDR)
		}
		out.Peer.CIDR = p.Masked()
	case q.Group != GroupRef{}:
		if q.GroupOwner != "" && q.GroupOwner != s.account {
			return none, vpc.NotFound(q.Group.ID)
		}
		var g *vpc.SecurityGroup
		if q.Group.ID == "" { // a name: of the same VPC
			all, err := vpc.SecurityGroups().By(r, "vpc", string(in.VPC))
			if err != nil {
				return none, err
			}
			for _, o := range all {
				if o.Name == q.Group.Name {
					g = o
				}
			}
			if g == nil {
				return none, fault.Newf(fault.NotFound, "", "", "The security group '%s' does not exist", q.Group.Name).WithCode("InvalidGroup.NotFound")
			}
		} else if g, err = get(r, vpc.SecurityGroups(), q.Group.ID); err != nil {
			return none, err
		}
		if g.VPC != in.VPC {
			return none, fault.Newf(fault.NotFound, "", "", "You have specified two resources that belong to different networks: %s and %s", in.ID, g.ID).WithCode("InvalidGroup.NotFound")
		}
		out.Peer.Group = g.ID
	case q.PrefixList != "":
		l, err := get(r, vpc.PrefixLists(), q.PrefixList)
		if err != nil {
			return none, err
		}
		out.Peer.PrefixList = l.ID
	default:
		return none, missing("IpRanges, Ipv6Ranges, PrefixListIds or UserIdGroupPairs")
	}
	return out, nil
}

// prefixLists are all lists, to be found by their identifiers.
func prefixLists(r state.Reader) (vpc.Lists, error) {
	all, err := vpc.PrefixLists().List(r, state.Query{})
	if err != nil {
		return nil, err
	}
	byID := make(map[vpc.PrefixListID]*vpc.PrefixList, len(all))
	for _, l := range all {
		byID[l.ID] = l
	}
	return func(id vpc.PrefixListID) *vpc.PrefixList { return byID[id] }, nil
}

// Authorize adds rules to a group; all or none.
func (s *Service) Authorize(ctx context.Context, ref GroupRef, egress bool, requests []RuleRequest, tags vpc.Tags) (*vpc.SecurityGroup, []vpc.SecurityGroupRule, error) {
	if len(requests) == 0 {
		return nil, nil, missing("ipPermissions")
	}
	if err := s.checkTags(tags); err != nil {
		return nil, nil, err
	}
	var added []vpc.SecurityGroupRule
	g, err := state.Write(ctx, s.store, func(tx state.Tx) (*vpc.SecurityGroup, error) {
		added = nil
		g, err := s.group(tx, ref)
		if err != nil {
			return nil, err
		}
		for _, q := range requests {
			r, err := s.rule(tx, g, q, egress)
			if err != nil {
				return nil, err
			}
			r.ID, r.Tags = newID[vpc.SecurityGroupRuleID](vpc.PrefixSecurityGroupRule), tags
			added = append(added, r)
		}
		lists, err := prefixLists(tx)
		if err != nil {
			return nil, err
		}
		if err := g.Add(added, lists, s.limits.RulesPerGroup); err != nil {
			return nil, err
		}
		return g, vpc.SecurityGroups().Put(tx, g)
	})
	return g, added, err
}

// Revoke takes rules out of a group, by their IDs or by what they say. Rules that match nothing fail the call, except in
// a default VPC, where they are returned as unknown.
func (s *Service) Revoke(ctx context.Context, ref GroupRef, egress bool, ids []vpc.SecurityGroupRuleID, requests []RuleRequest) (revoked []vpc.SecurityGroupRule, unknown []RuleRequest, err error) {
	if len(ids) == 0 && len(requests) == 0 {
		return nil, nil, missing("ipPermissions")
	}
	_, err = s.store.Update(ctx, func(tx state.Tx) error {
		revoked, unknown = nil, nil
		g, err := s.group(tx, ref)
		if err != nil {
			return err
		}
		v, err := get(tx, vpc.VPCs(), g.VPC)
		if err != nil {
			return err
		}
		take := func(i int) {
			revoked = append(revoked, g.Rules[i])
			g.Rules = slices.Delete(g.Rules, i, i+1)
		}
		for _, id := range ids {
			if err := vpc.CheckID(id); err != nil {
				return err
			}
			i := slices.IndexFunc(g.Rules, func(r vpc.SecurityGroupRule) bool { return r.ID == id && r.Egress == egress })
			if i < 0 {
				return vpc.NotFound(id)
			}
			take(i)
		}
		for _, q := range requests {
			r, err := s.rule(tx, g, q, egress)
			if err != nil {
				return err
			}
			if i := g.Find(&r); i >= 0 {
				take(i)
				continue
			}
			if !v.Default {
				return fault.New(fault.NotFound, "", "", "The specified rule does not exist in this security group.").WithCode("InvalidPermission.NotFound")
			}
			unknown = append(unknown, q)
		}
		return vpc.SecurityGroups().Put(tx, g)
	})
	return revoked, unknown, err
}

// Rule is a rule with the group that it belongs to.
type Rule struct {
	Group *vpc.SecurityGroup
	vpc.SecurityGroupRule
}

// DescribeSecurityGroupRules returns the named rules, or all.
func (s *Service) DescribeSecurityGroupRules(ctx context.Context, ids []vpc.SecurityGroupRuleID) ([]Rule, error) {
	groups, err := describe(ctx, s.store, vpc.SecurityGroups(), []vpc.SecurityGroupID(nil))
	if err != nil {
		return nil, err
	}
	var out []Rule
	found := map[vpc.SecurityGroupRuleID]bool{}
	for _, g := range groups {
		for _, r := range g.Rules {
			if len(ids) == 0 || slices.Contains(ids, r.ID) {
				found[r.ID] = true
				out = append(out, Rule{Group: g, SecurityGroupRule: r})
			}
		}
	}
	for _, id := range ids {
		if err := vpc.CheckID(id); err != nil {
			return nil, err
		}
		if !found[id] {
			return nil, vpc.NotFound(id)
		}
	}
	return out, nil
}

// ModifyRules exchanges rules of a group for others; each keeps its ID, direction and tags.
func (s *Service) ModifyRules(ctx context.Context, ref GroupRef, changes map[vpc.SecurityGroupRuleID]RuleRequest) error {
	_, err := s.store.Update(ctx, func(tx state.Tx) error {
		g, err := s.group(tx, ref)
		if err != nil {
			return err
		}
		for id, q := range changes {
			if err := vpc.CheckID(id); err != nil {
				return err
			}
			i := slices.IndexFunc(g.Rules, func(r vpc.SecurityGroupRule) bool { return r.ID == id })
			if i < 0 {
				return vpc.NotFound(id)
			}
			r, err := s.rule(tx, g, q, g.Rules[i].Egress)
			if err != nil {
				return err
			}
			if j := g.Find(&r); j >= 0 && j != i {
				return fault.Newf(fault.AlreadyExists, "", "", "the specified rule %q already exists", r.String()).WithCode("InvalidPermission.Duplicate")
			}
			r.ID, r.Tags = id, g.Rules[i].Tags
			g.Rules[i] = r
		}
		lists, err := prefixLists(tx)
		if err != nil {
			return err
		}
		if err := g.CheckQuota(lists, s.limits.RulesPerGroup); err != nil {
			return err
		}
		return vpc.SecurityGroups().Put(tx, g)
	})
	return err
}

// DescribeRules sets the descriptions of rules that exist, by ID or by what they say.
func (s *Service) DescribeRules(ctx context.Context, ref GroupRef, egress bool, byID map[vpc.SecurityGroupRuleID]string, requests []RuleRequest) error {
	_, err := s.store.Update(ctx, func(tx state.Tx) error {
		g, err := s.group(tx, ref)
		if err != nil {
			return err
		}
		for id, text := range byID {
			if err := vpc.CheckDescription(text); err != nil {
				return err
			}
			i := slices.IndexFunc(g.Rules, func(r vpc.SecurityGroupRule) bool { return r.ID == id && r.Egress == egress })
			if i < 0 {
				return vpc.NotFound(id)
			}
			g.Rules[i].Description = text
		}
		for _, q := range requests {
			r, err := s.rule(tx, g, q, egress)
			if err != nil {
				return err
			}
			i := g.Find(&r)
			if i < 0 {
				return fault.New(fault.NotFound, "", "", "The specified rule does not exist in this security group.").WithCode("InvalidPermission.NotFound")
			}
			g.Rules[i].Description = q.Description
		}
		return vpc.SecurityGroups().Put(tx, g)
	})
	return err
}
