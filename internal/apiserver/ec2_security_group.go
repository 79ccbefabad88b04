package apiserver

import (
	"context"
	"strconv"

	"penstock.dev/penstock/internal/control/network"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/vpc"
	api "penstock.dev/penstock/internal/wire/ec2api"
)

func (h *ec2Handlers) permissions(list []vpc.Permission) []api.IpPermission {
	out := make([]api.IpPermission, 0, len(list))
	for _, p := range list {
		shape := api.IpPermission{
			IpProtocol: new(p.Protocol.String()), UserIdGroupPairs: []api.UserIdGroupPair{}, IpRanges: []api.IpRange{},
			Ipv6Ranges: []api.Ipv6Range{}, PrefixListIds: []api.PrefixListId{},
		}
		if p.Protocol.HasPorts() || p.Protocol == vpc.ICMP || p.Protocol == vpc.ICMPv6 {
			shape.FromPort, shape.ToPort = i32(p.Ports.From), i32(p.Ports.To)
		}
		for _, r := range p.Rules {
			switch {
			case r.Peer.PrefixList != "":
				shape.PrefixListIds = append(shape.PrefixListIds, api.PrefixListId{PrefixListId: new(string(r.Peer.PrefixList)), Description: strOrNil(r.Description)})
			case r.Peer.Group != "":
				shape.UserIdGroupPairs = append(shape.UserIdGroupPairs, api.UserIdGroupPair{
					GroupId: new(string(r.Peer.Group)), UserId: new(h.account), Description: strOrNil(r.Description),
				})
			case r.Peer.CIDR.Addr().Is6():
				shape.Ipv6Ranges = append(shape.Ipv6Ranges, api.Ipv6Range{CidrIpv6: new(r.Peer.CIDR.String()), Description: strOrNil(r.Description)})
			default:
				shape.IpRanges = append(shape.IpRanges, api.IpRange{CidrIp: new(r.Peer.CIDR.String()), Description: strOrNil(r.Description)})
			}
		}
		out = append(out, shape)
	}
	return out
}

func (h *ec2Handlers) groupShape(g *vpc.SecurityGroup) api.SecurityGroup {
	return api.SecurityGroup{
		GroupId: new(string(g.ID)), GroupName: new(g.Name), Description: new(g.Description), OwnerId: new(g.OwnerID), VpcId: new(string(g.VPC)),
		SecurityGroupArn: new(h.ec2ARN("security-group", string(g.ID))), Tags: ec2Tags(g.Tags),
		IpPermissions: h.permissions(g.Permissions(false)), IpPermissionsEgress: h.permissions(g.Permissions(true)),
	}
}

func (h *ec2Handlers) ruleShape(g *vpc.SecurityGroup, r *vpc.SecurityGroupRule) api.SecurityGroupRule {
	out := api.SecurityGroupRule{
		SecurityGroupRuleId: new(string(r.ID)), GroupId: new(string(g.ID)), GroupOwnerId: new(g.OwnerID), IsEgress: new(r.Egress),
		IpProtocol: new(r.Protocol.String()), FromPort: i32(r.Ports.From), ToPort: i32(r.Ports.To), Description: strOrNil(r.Description),
		Tags: ec2Tags(r.Tags), SecurityGroupRuleArn: new(h.ec2ARN("security-group-rule", string(r.ID))),
	}
	switch {
	case r.Peer.PrefixList != "":
		out.PrefixListId = new(string(r.Peer.PrefixList))
	case r.Peer.Group != "":
		out.ReferencedGroupInfo = &api.ReferencedSecurityGroup{GroupId: new(string(r.Peer.Group)), UserId: new(h.account), VpcId: new(string(g.VPC))}
	case r.Peer.CIDR.Addr().Is6():
		out.CidrIpv6 = new(r.Peer.CIDR.String())
	default:
		out.CidrIpv4 = new(r.Peer.CIDR.String())
	}
	return out
}

func (h *ec2Handlers) createSecurityGroup(ctx context.Context, _ Caller, in *api.CreateSecurityGroupInput) (*api.CreateSecurityGroupOutput, error) {
	tags, err := specifiedTags(in.TagSpecifications, "security-group")
	if err != nil {
		return nil, err
	}
	g, err := h.net.CreateSecurityGroup(ctx, vpc.VPCID(deref(in.VpcId)), deref(in.GroupName), deref(in.Description), tags)
	if err != nil {
		return nil, err
	}
	return &api.CreateSecurityGroupOutput{GroupId: new(string(g.ID)), Tags: ec2Tags(g.Tags), SecurityGroupArn: new(h.ec2ARN("security-group", string(g.ID)))}, nil
}

// permissionFilters are the filters on the rules of one direction.
func permissionFilters(f ec2Filter[api.SecurityGroup], prefix string, list func(*api.SecurityGroup) []api.IpPermission) {
	type g = api.SecurityGroup
	rules := func(read func(api.IpPermission) []string) func(*g) []string {
		return func(v *g) []string {
			var out []string
			for _, p := range list(v) {
				out = append(out, read(p)...)
			}
			return out
		}
	}
	port := func(n *int32) []string {
		if n == nil {
			return nil
		}
		return []string{strconv.Itoa(int(*n))}
	}
	pairs := func(p api.IpPermission, read func(*api.UserIdGroupPair) *string) []string {
		var out []string
		for i := range p.UserIdGroupPairs {
			out = append(out, deref(read(&p.UserIdGroupPairs[i])))
		}
		return out
	}
	f[prefix+"cidr"] = rules(func(p api.IpPermission) (out []string) {
		for _, r := range p.IpRanges {
			out = append(out, *r.CidrIp)
		}
		return out
	})
	f[prefix+"ipv6-cidr"] = rules(func(p api.IpPermission) (out []string) {
		for _, r := range p.Ipv6Ranges {
			out = append(out, *r.CidrIpv6)
		}
		return out
	})
	f[prefix+"from-port"] = rules(func(p api.IpPermission) []string { return port(p.FromPort) })
	f[prefix+"to-port"] = rules(func(p api.IpPermission) []string { return port(p.ToPort) })
	f[prefix+"protocol"] = rules(func(p api.IpPermission) []string { return []string{*p.IpProtocol} })
	f[prefix+"group-id"] = rules(func(p api.IpPermission) []string {
		return pairs(p, func(u *api.UserIdGroupPair) *string { return u.GroupId })
	})
	f[prefix+"user-id"] = rules(func(p api.IpPermission) []string {
		return pairs(p, func(u *api.UserIdGroupPair) *string { return u.UserId })
	})
	f[prefix+"group-name"] = never[g]
	f[prefix+"prefix-list-id"] = rules(func(p api.IpPermission) (out []string) {
		for _, l := range p.PrefixListIds {
			out = append(out, *l.PrefixListId)
		}
		return out
	})
}

func (h *ec2Handlers) describeSecurityGroups(ctx context.Context, _ Caller, in *api.DescribeSecurityGroupsInput) (*api.DescribeSecurityGroupsOutput, error) {
	type g = api.SecurityGroup
	all, err := h.net.DescribeSecurityGroups(ctx, ec2IDs[vpc.SecurityGroupID](in.GroupIds))
	if err != nil {
		return nil, err
	}
	if len(in.GroupNames) > 0 {
		if all, err = h.namedGroups(ctx, all, in.GroupNames); err != nil {
			return nil, err
		}
	}
	items := make([]g, 0, len(all))
	for _, v := range all {
		items = append(items, h.groupShape(v))
	}
	f := ec2Filter[g]{
		"description": one(func(v *g) string { return *v.Description }),
		"group-id":    one(func(v *g) string { return *v.GroupId }),
		"group-name":  one(func(v *g) string { return *v.GroupName }),
		"owner-id":    one(func(v *g) string { return *v.OwnerId }),
		"vpc-id":      one(func(v *g) string { return *v.VpcId }),
	}
	permissionFilters(f, "ip-permission.", func(v *g) []api.IpPermission { return v.IpPermissions })
	permissionFilters(f, "egress.ip-permission.", func(v *g) []api.IpPermission { return v.IpPermissionsEgress })
	items, next, err := found(items, f, in.Filters, func(v *g) []api.Tag { return v.Tags }, func(v *g) string { return *v.GroupId }, in.MaxResults, in.NextToken)
	return &api.DescribeSecurityGroupsOutput{SecurityGroups: items, NextToken: next}, err
}

// namedGroups keeps the groups of the default VPC that have one of the names; each must exist.
func (h *ec2Handlers) namedGroups(ctx context.Context, all []*vpc.SecurityGroup, names []string) ([]*vpc.SecurityGroup, error) {
	vpcs, err := h.net.DescribeVPCs(ctx, nil)
	if err != nil {
		return nil, err
	}
	defaults := map[vpc.VPCID]bool{}
	for _, v := range vpcs {
		defaults[v.ID] = v.Default
	}
	var out []*vpc.SecurityGroup
	for _, name := range names {
		n := len(out)
		for _, g := range all {
			if g.Name == name && defaults[g.VPC] {
				out = append(out, g)
			}
		}
		if len(out) == n {
			return nil, fault.Newf(fault.NotFound, "", "", "The security group '%.255s' does not exist in default VPC", name).WithCode("InvalidGroup.NotFound")
		}
	}
	return out, nil
}

func (h *ec2Handlers) deleteSecurityGroup(ctx context.Context, _ Caller, in *api.DeleteSecurityGroupInput) (*api.DeleteSecurityGroupOutput, error) {
	id, err := h.net.DeleteSecurityGroup(ctx, groupRef(in.GroupId, in.GroupName))
	return &api.DeleteSecurityGroupOutput{Return: new(true), GroupId: new(string(id))}, err
}

func groupRef(id, name *string) network.GroupRef {
	return network.GroupRef{ID: vpc.SecurityGroupID(deref(id)), Name: deref(name)}
}

// flatRule are the members of the older form of a rule, one rule a request.
type flatRule struct {
	protocol, cidr, groupName, groupOwner *string
	from, to                              *int32
}

// ruleRequests takes permissions apart: one rule for each peer.
func ruleRequests(list []api.IpPermission, flat flatRule) []network.RuleRequest {
	var out []network.RuleRequest
	for _, p := range list {
		base := network.RuleRequest{Protocol: deref(p.IpProtocol), From: intp(p.FromPort), To: intp(p.ToPort)}
		n := len(out)
		for _, r := range p.IpRanges {
			q := base
			q.CIDR, q.Family, q.Description = deref(r.CidrIp), vpc.FamilyIPv4, deref(r.Description)
			out = append(out, q)
		}
		for _, r := range p.Ipv6Ranges {
			q := base
			q.CIDR, q.Family, q.Description = deref(r.CidrIpv6), vpc.FamilyIPv6, deref(r.Description)
			out = append(out, q)
		}
		for _, r := range p.PrefixListIds {
			q := base
			q.PrefixList, q.Description = vpc.PrefixListID(deref(r.PrefixListId)), deref(r.Description)
			out = append(out, q)
		}
		for _, r := range p.UserIdGroupPairs {
			q := base
			q.Group, q.GroupOwner, q.Description = groupRef(r.GroupId, r.GroupName), deref(r.UserId), deref(r.Description)
			out = append(out, q)
		}
		if len(out) == n { // no peer: refused where rules are read
			out = append(out, base)
		}
	}
	if flat.protocol != nil || flat.cidr != nil || flat.groupName != nil {
		out = append(out, network.RuleRequest{
			Protocol: deref(flat.protocol), From: intp(flat.from), To: intp(flat.to), CIDR: deref(flat.cidr), Family: vpc.FamilyIPv4,
			Group: network.GroupRef{Name: deref(flat.groupName)}, GroupOwner: deref(flat.groupOwner),
		})
		if flat.protocol == nil && flat.groupName != nil { // all traffic of a group
			out[len(out)-1].Protocol = "-1"
		}
	}
	return out
}

func (h *ec2Handlers) authorize(ctx context.Context, ref network.GroupRef, egress bool, q []network.RuleRequest, specs []api.TagSpecification) ([]api.SecurityGroupRule, error) {
	tags, err := specifiedTags(specs, "security-group-rule")
	if err != nil {
		return nil, err
	}
	g, added, err := h.net.Authorize(ctx, ref, egress, q, tags)
	if err != nil {
		return nil, err
	}
	out := make([]api.SecurityGroupRule, 0, len(added))
	for i := range added {
		out = append(out, h.ruleShape(g, &added[i]))
	}
	return out, nil
}

func (h *ec2Handlers) authorizeIngress(ctx context.Context, _ Caller, in *api.AuthorizeSecurityGroupIngressInput) (*api.AuthorizeSecurityGroupIngressOutput, error) {
	q := ruleRequests(in.IpPermissions, flatRule{in.IpProtocol, in.CidrIp, in.SourceSecurityGroupName, in.SourceSecurityGroupOwnerId, in.FromPort, in.ToPort})
	rules, err := h.authorize(ctx, groupRef(in.GroupId, in.GroupName), false, q, in.TagSpecifications)
	return &api.AuthorizeSecurityGroupIngressOutput{Return: new(true), SecurityGroupRules: rules}, err
}

func (h *ec2Handlers) authorizeEgress(ctx context.Context, _ Caller, in *api.AuthorizeSecurityGroupEgressInput) (*api.AuthorizeSecurityGroupEgressOutput, error) {
	q := ruleRequests(in.IpPermissions, flatRule{in.IpProtocol, in.CidrIp, in.SourceSecurityGroupName, in.SourceSecurityGroupOwnerId, in.FromPort, in.ToPort})
	rules, err := h.authorize(ctx, groupRef(in.GroupId, nil), true, q, in.TagSpecifications)
	return &api.AuthorizeSecurityGroupEgressOutput{Return: new(true), SecurityGroupRules: rules}, err
}

func (h *ec2Handlers) revoke(ctx context.Context, ref network.GroupRef, egress bool, ids []string, q []network.RuleRequest) ([]api.RevokedSecurityGroupRule, []api.IpPermission, error) {
	revoked, unknown, err := h.net.Revoke(ctx, ref, egress, ec2IDs[vpc.SecurityGroupRuleID](ids), q)
	if err != nil {
		return nil, nil, err
	}
	out := make([]api.RevokedSecurityGroupRule, 0, len(revoked))
	for _, r := range revoked {
		shape := api.RevokedSecurityGroupRule{
			SecurityGroupRuleId: new(string(r.ID)), GroupId: strOrNil(string(ref.ID)), IsEgress: new(r.Egress), IpProtocol: new(r.Protocol.String()),
			FromPort: i32(r.Ports.From), ToPort: i32(r.Ports.To), ReferencedGroupId: strOrNil(string(r.Peer.Group)),
			PrefixListId: strOrNil(string(r.Peer.PrefixList)), Description: strOrNil(r.Description),
		}
		switch {
		case !r.Peer.CIDR.IsValid():
		case r.Peer.CIDR.Addr().Is6():
			shape.CidrIpv6 = new(r.Peer.CIDR.String())
		default:
			shape.CidrIpv4 = new(r.Peer.CIDR.String())
		}
		out = append(out, shape)
	}
	missing := make([]api.IpPermission, 0, len(unknown))
	for _, u := range unknown {
		p := api.IpPermission{IpProtocol: new(u.Protocol)}
		if u.From != nil {
			p.FromPort = i32(*u.From)
		}
		if u.To != nil {
			p.ToPort = i32(*u.To)
		}
		switch {
		case u.CIDR == "":
		case u.Family == vpc.FamilyIPv6:
			p.Ipv6Ranges = []api.Ipv6Range{{CidrIpv6: new(u.CIDR)}}
		default:
			p.IpRanges = []api.IpRange{{CidrIp: new(u.CIDR)}}
		}
		if u.PrefixList != "" {
			p.PrefixListIds = []api.PrefixListId{{PrefixListId: new(string(u.PrefixList))}}
		}
		if u.Group.ID != "" {
			p.UserIdGroupPairs = []api.UserIdGroupPair{{GroupId: new(string(u.Group.ID))}}
		}
		missing = append(missing, p)
	}
	return out, missing, nil
}

func (h *ec2Handlers) revokeIngress(ctx context.Context, _ Caller, in *api.RevokeSecurityGroupIngressInput) (*api.RevokeSecurityGroupIngressOutput, error) {
	q := ruleRequests(in.IpPermissions, flatRule{in.IpProtocol, in.CidrIp, in.SourceSecurityGroupName, in.SourceSecurityGroupOwnerId, in.FromPort, in.ToPort})
	revoked, unknown, err := h.revoke(ctx, groupRef(in.GroupId, in.GroupName), false, in.SecurityGroupRuleIds, q)
	return &api.RevokeSecurityGroupIngressOutput{Return: new(true), RevokedSecurityGroupRules: revoked, UnknownIpPermissions: unknown}, err
}

func (h *ec2Handlers) revokeEgress(ctx context.Context, _ Caller, in *api.RevokeSecurityGroupEgressInput) (*api.RevokeSecurityGroupEgressOutput, error) {
	q := ruleRequests(in.IpPermissions, flatRule{in.IpProtocol, in.CidrIp, in.SourceSecurityGroupName, in.SourceSecurityGroupOwnerId, in.FromPort, in.ToPort})
	revoked, unknown, err := h.revoke(ctx, groupRef(in.GroupId, nil), true, in.SecurityGroupRuleIds, q)
	return &api.RevokeSecurityGroupEgressOutput{Return: new(true), RevokedSecurityGroupRules: revoked, UnknownIpPermissions: unknown}, err
}

func (h *ec2Handlers) describeSecurityGroupRules(ctx context.Context, _ Caller, in *api.DescribeSecurityGroupRulesInput) (*api.DescribeSecurityGroupRulesOutput, error) {
	type r = api.SecurityGroupRule
	all, err := h.net.DescribeSecurityGroupRules(ctx, ec2IDs[vpc.SecurityGroupRuleID](in.SecurityGroupRuleIds))
	if err != nil {
		return nil, err
	}
	items := make([]r, 0, len(all))
	for i := range all {
		items = append(items, h.ruleShape(all[i].Group, &all[i].SecurityGroupRule))
	}
	f := ec2Filter[r]{
		"group-id":               one(func(v *r) string { return *v.GroupId }),
		"security-group-rule-id": one(func(v *r) string { return *v.SecurityGroupRuleId }),
	}
	items, next, err := found(items, f, in.Filters, func(v *r) []api.Tag { return v.Tags }, func(v *r) string { return *v.SecurityGroupRuleId }, in.MaxResults, in.NextToken)
	return &api.DescribeSecurityGroupRulesOutput{SecurityGroupRules: items, NextToken: next}, err
}

func (h *ec2Handlers) modifySecurityGroupRules(ctx context.Context, _ Caller, in *api.ModifySecurityGroupRulesInput) (*api.ModifySecurityGroupRulesOutput, error) {
	changes := map[vpc.SecurityGroupRuleID]network.RuleRequest{}
	for _, u := range in.SecurityGroupRules {
		if u.SecurityGroupRule == nil {
			return nil, fault.New(fault.Missing, "", "", "The request must contain the parameter SecurityGroupRule").WithCode("MissingParameter")
		}
		r := u.SecurityGroupRule
		if r.CidrIpv4 != nil && r.CidrIpv6 != nil {
			return nil, fault.New(fault.Combination, "", "", "The parameter CidrIpv4 cannot be used with the parameter CidrIpv6").WithCode("InvalidParameterCombination")
		}
		q := network.RuleRequest{
			Protocol: deref(r.IpProtocol), From: intp(r.FromPort), To: intp(r.ToPort), CIDR: deref(r.CidrIpv4), Family: vpc.FamilyIPv4,
			Group: groupRef(r.ReferencedGroupId, nil), PrefixList: vpc.PrefixListID(deref(r.PrefixListId)), Description: deref(r.Description),
		}
		if r.CidrIpv6 != nil {
			q.CIDR, q.Family = *r.CidrIpv6, vpc.FamilyIPv6
		}
		changes[vpc.SecurityGroupRuleID(deref(u.SecurityGroupRuleId))] = q

	}
	return &api.ModifySecurityGroupRulesOutput{Return: new(true)}, h.net.ModifyRules(ctx, groupRef(in.GroupId, nil), changes)
}

func descriptions(list []api.SecurityGroupRuleDescription) map[vpc.SecurityGroupRuleID]string {
	out := make(map[vpc.SecurityGroupRuleID]string, len(list))
	for _, d := range list {
		out[vpc.SecurityGroupRuleID(deref(d.SecurityGroupRuleId))] = deref(d.Description)
	}
	return out
}

func (h *ec2Handlers) updateIngressDescriptions(ctx context.Context, _ Caller, in *api.UpdateSecurityGroupRuleDescriptionsIngressInput) (*api.UpdateSecurityGroupRuleDescriptionsIngressOutput, error) {
	err := h.net.DescribeRules(ctx, groupRef(in.GroupId, in.GroupName), false, descriptions(in.SecurityGroupRuleDescriptions), ruleRequests(in.IpPermissions, flatRule{}))
	return &api.UpdateSecurityGroupRuleDescriptionsIngressOutput{Return: new(true)}, err
}

func (h *ec2Handlers) updateEgressDescriptions(ctx context.Context, _ Caller, in *api.UpdateSecurityGroupRuleDescriptionsEgressInput) (*api.UpdateSecurityGroupRuleDescriptionsEgressOutput, error) {
	err := h.net.DescribeRules(ctx, groupRef(in.GroupId, in.GroupName), true, descriptions(in.SecurityGroupRuleDescriptions), ruleRequests(in.IpPermissions, flatRule{}))
	return &api.UpdateSecurityGroupRuleDescriptionsEgressOutput{Return: new(true)}, err
}

// describeSecurityGroupReferences is about VPCs on the other side of a peering connection: there are none.
func (h *ec2Handlers) describeSecurityGroupReferences(ctx context.Context, _ Caller, in *api.DescribeSecurityGroupReferencesInput) (*api.DescribeSecurityGroupReferencesOutput, error) {
	_, err := h.net.DescribeSecurityGroups(ctx, ec2IDs[vpc.SecurityGroupID](in.GroupId))
	return &api.DescribeSecurityGroupReferencesOutput{SecurityGroupReferenceSet: []api.SecurityGroupReference{}}, err
}

// describeStaleSecurityGroups is about peering connections that are gone: there never were any.
func (h *ec2Handlers) describeStaleSecurityGroups(ctx context.Context, _ Caller, in *api.DescribeStaleSecurityGroupsInput) (*api.DescribeStaleSecurityGroupsOutput, error) {
	_, err := h.net.DescribeVPCs(ctx, []vpc.VPCID{vpc.VPCID(deref(in.VpcId))})
	return &api.DescribeStaleSecurityGroupsOutput{StaleSecurityGroupSet: []api.StaleSecurityGroup{}}, err
}
