package apiserver

import (
	"context"
	"net/netip"
	"strconv"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/vpc"
	api "penstock.dev/penstock/internal/wire/ec2api"
)

// withIPv6 says which VPCs have IPv6 addresses.
func (h *ec2Handlers) withIPv6(ctx context.Context) (map[vpc.VPCID]bool, error) {
	all, err := h.net.DescribeVPCs(ctx, nil)
	out := make(map[vpc.VPCID]bool, len(all))
	for _, v := range all {
		out[v.ID] = len(v.IPv6) > 0
	}
	return out, err
}

func aclShape(a *vpc.NetworkACL, ipv6 bool) api.NetworkAcl {
	out := api.NetworkAcl{
		NetworkAclId: new(string(a.ID)), VpcId: new(string(a.VPC)), OwnerId: new(a.OwnerID), IsDefault: new(a.Default), Tags: ec2Tags(a.Tags),
		Associations: make([]api.NetworkAclAssociation, 0, len(a.Associations)), Entries: make([]api.NetworkAclEntry, 0, len(a.Entries)+2),
	}
	for _, s := range a.Associations {
		out.Associations = append(out.Associations, api.NetworkAclAssociation{
			NetworkAclAssociationId: new(string(s.ID)), NetworkAclId: new(string(a.ID)), SubnetId: new(string(s.Subnet)),
		})
	}
	for _, egress := range []bool{true, false} {
		for _, e := range a.Entries {
			if e.Egress == egress {
				out.Entries = append(out.Entries, aclEntryShape(e))
			}
		}
		out.Entries = append(out.Entries, aclEntryShape(vpc.NetworkACLEntry{
			Number: vpc.FixedDenyNumber, Egress: egress, Protocol: vpc.AllProtocols, CIDR: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Ports: vpc.AllPorts,
		}))
		if ipv6 {
			out.Entries = append(out.Entries, aclEntryShape(vpc.NetworkACLEntry{
				Number: vpc.FixedDenyNumberIP6, Egress: egress, Protocol: vpc.AllProtocols, CIDR: netip.PrefixFrom(netip.IPv6Unspecified(), 0), Ports: vpc.AllPorts,
			}))
		}
	}
	return out
}

func aclEntryShape(e vpc.NetworkACLEntry) api.NetworkAclEntry {
	action := "deny"
	if e.Allow {
		action = "allow"
	}
	out := api.NetworkAclEntry{RuleNumber: i32(e.Number), Egress: new(e.Egress), RuleAction: new(action), Protocol: new(e.Protocol.Number())}
	if e.CIDR.Addr().Is6() {
		out.Ipv6CidrBlock = new(e.CIDR.String())
	} else {
		out.CidrBlock = new(e.CIDR.String())
	}
	switch {
	case e.Protocol.HasPorts():
		out.PortRange = &api.PortRange{From: i32(e.Ports.From), To: i32(e.Ports.To)}
	case e.Protocol == vpc.ICMP || e.Protocol == vpc.ICMPv6:
		out.IcmpTypeCode = &api.IcmpTypeCode{Type: i32(e.ICMPType), Code: i32(e.ICMPCode)}
	}
	return out
}

// aclEntry reads an entry of a request.
func aclEntry(number *int32, protocol, action *string, egress *bool, cidr, cidr6 *string, icmp *api.IcmpTypeCode, ports *api.PortRange) (vpc.NetworkACLEntry, error) {
	e := vpc.NetworkACLEntry{Number: int(deref(number)), Egress: deref(egress), Allow: deref(action) == "allow", Ports: vpc.AllPorts}
	var ok bool
	if e.Protocol, ok = vpc.ParseProtocol(deref(protocol)); !ok {
		return e, fault.Newf(fault.Invalid, "", "", "Value (%.40s) for parameter protocol is invalid. Unknown protocol.", deref(protocol)).WithCode("InvalidParameterValue")
	}
	if (cidr == nil) == (cidr6 == nil) {
		return e, fault.New(fault.Missing, "", "", "The request must contain exactly one of cidrBlock and ipv6CidrBlock").WithCode("MissingParameter")
	}
	p, err := netip.ParsePrefix(deref(cidr) + deref(cidr6))
	if err != nil || p.Addr().Is6() != (cidr6 != nil) {
		return e, fault.Newf(fault.Invalid, "", "", "Value (%.60s) for parameter cidrBlock is invalid. This is not a valid CIDR block.", deref(cidr)+deref(cidr6)).WithCode("InvalidParameterValue")
	}
	e.CIDR = p.Masked()
	switch {
	case e.Protocol.HasPorts():
		if ports == nil || ports.From == nil || ports.To == nil {
			return e, fault.New(fault.Missing, "", "", "The request must contain the parameter portRange").WithCode("MissingParameter")
		}
		e.Ports = vpc.PortRange{From: int(*ports.From), To: int(*ports.To)}
	case e.Protocol == vpc.ICMP || e.Protocol == vpc.ICMPv6:
		if icmp == nil || icmp.Type == nil || icmp.Code == nil {
			return e, fault.New(fault.Missing, "", "", "The request must contain the parameter icmpTypeCode").WithCode("MissingParameter")
		}
		e.ICMPType, e.ICMPCode = int(*icmp.Type), int(*icmp.Code)
	}
	return e, nil
}

func (h *ec2Handlers) createNetworkACL(ctx context.Context, _ Caller, in *api.CreateNetworkAclInput) (*api.CreateNetworkAclOutput, error) {
	tags, err := specifiedTags(in.TagSpecifications, "network-acl")
	if err != nil {
		return nil, err
	}
	a, err := h.net.CreateNetworkACL(ctx, vpc.VPCID(deref(in.VpcId)), tags, deref(in.ClientToken))
	if err != nil {
		return nil, err
	}
	ipv6, err := h.withIPv6(ctx)
	if err != nil {
		return nil, err
	}
	return &api.CreateNetworkAclOutput{NetworkAcl: new(aclShape(a, ipv6[a.VPC])), ClientToken: in.ClientToken}, nil
}

func (h *ec2Handlers) describeNetworkACLs(ctx context.Context, _ Caller, in *api.DescribeNetworkAclsInput) (*api.DescribeNetworkAclsOutput, error) {
	type a = api.NetworkAcl
	all, err := h.net.DescribeNetworkACLs(ctx, ec2IDs[vpc.NetworkACLID](in.NetworkAclIds))
	if err != nil {
		return nil, err
	}
	ipv6, err := h.withIPv6(ctx)
	if err != nil {
		return nil, err
	}
	items := make([]a, 0, len(all))
	for _, v := range all {
		items = append(items, aclShape(v, ipv6[v.VPC]))
	}
	associations := func(v *a) []api.NetworkAclAssociation { return v.Associations }
	entries := func(v *a) []api.NetworkAclEntry { return v.Entries }
	number := func(n *int32) string {
		if n == nil {
			return ""
		}
		return strconv.Itoa(int(*n))
	}
	ports := func(e *api.NetworkAclEntry) api.PortRange { return deref(e.PortRange) }
	icmp := func(e *api.NetworkAclEntry) api.IcmpTypeCode { return deref(e.IcmpTypeCode) }
	f := ec2Filter[a]{
		"association.association-id": every(associations, func(s *api.NetworkAclAssociation) string { return *s.NetworkAclAssociationId }),
		"association.network-acl-id": every(associations, func(s *api.NetworkAclAssociation) string { return *s.NetworkAclId }),
		"association.subnet-id":      every(associations, func(s *api.NetworkAclAssociation) string { return *s.SubnetId }),
		"default":                    yes(func(v *a) bool { return *v.IsDefault }),
		"entry.cidr":                 every(entries, func(e *api.NetworkAclEntry) string { return deref(e.CidrBlock) }),
		"entry.ipv6-cidr":            every(entries, func(e *api.NetworkAclEntry) string { return deref(e.Ipv6CidrBlock) }),
		"entry.icmp.code":            every(entries, func(e *api.NetworkAclEntry) string { return number(icmp(e).Code) }),
		"entry.icmp.type":            every(entries, func(e *api.NetworkAclEntry) string { return number(icmp(e).Type) }),
		"entry.port-range.from":      every(entries, func(e *api.NetworkAclEntry) string { return number(ports(e).From) }),
		"entry.port-range.to":        every(entries, func(e *api.NetworkAclEntry) string { return number(ports(e).To) }),
		"entry.protocol":             every(entries, func(e *api.NetworkAclEntry) string { return *e.Protocol }),
		"entry.rule-action":          every(entries, func(e *api.NetworkAclEntry) string { return *e.RuleAction }),
		"entry.egress":               every(entries, func(e *api.NetworkAclEntry) string { return strconv.FormatBool(*e.Egress) }),
		"entry.rule-number":          every(entries, func(e *api.NetworkAclEntry) string { return number(e.RuleNumber) }),
		"network-acl-id":             one(func(v *a) string { return *v.NetworkAclId }),
		"owner-id":                   one(func(v *a) string { return *v.OwnerId }),
		"vpc-id":                     one(func(v *a) string { return *v.VpcId }),
	}
	items, next, err := found(items, f, in.Filters, func(v *a) []api.Tag { return v.Tags }, func(v *a) string { return *v.NetworkAclId }, in.MaxResults, in.NextToken)
	return &api.DescribeNetworkAclsOutput{NetworkAcls: items, NextToken: next}, err
}

func (h *ec2Handlers) deleteNetworkACL(ctx context.Context, _ Caller, in *api.DeleteNetworkAclInput) (*api.DeleteNetworkAclOutput, error) {
	return nil, h.net.DeleteNetworkACL(ctx, vpc.NetworkACLID(deref(in.NetworkAclId)))
}

func (h *ec2Handlers) createNetworkACLEntry(ctx context.Context, _ Caller, in *api.CreateNetworkAclEntryInput) (*api.CreateNetworkAclEntryOutput, error) {
	e, err := aclEntry(in.RuleNumber, in.Protocol, in.RuleAction, in.Egress, in.CidrBlock, in.Ipv6CidrBlock, in.IcmpTypeCode, in.PortRange)
	if err != nil {
		return nil, err
	}
	return nil, h.net.CreateNetworkACLEntry(ctx, vpc.NetworkACLID(deref(in.NetworkAclId)), e)
}

func (h *ec2Handlers) replaceNetworkACLEntry(ctx context.Context, _ Caller, in *api.ReplaceNetworkAclEntryInput) (*api.ReplaceNetworkAclEntryOutput, error) {
	e, err := aclEntry(in.RuleNumber, in.Protocol, in.RuleAction, in.Egress, in.CidrBlock, in.Ipv6CidrBlock, in.IcmpTypeCode, in.PortRange)
	if err != nil {
		return nil, err
	}
	return nil, h.net.ReplaceNetworkACLEntry(ctx, vpc.NetworkACLID(deref(in.NetworkAclId)), e)
}

func (h *ec2Handlers) deleteNetworkACLEntry(ctx context.Context, _ Caller, in *api.DeleteNetworkAclEntryInput) (*api.DeleteNetworkAclEntryOutput, error) {
	return nil, h.net.DeleteNetworkACLEntry(ctx, vpc.NetworkACLID(deref(in.NetworkAclId)), int(deref(in.RuleNumber)), deref(in.Egress))
}

func (h *ec2Handlers) replaceNetworkACLAssociation(ctx context.Context, _ Caller, in *api.ReplaceNetworkAclAssociationInput) (*api.ReplaceNetworkAclAssociationOutput, error) {
	id, err := h.net.ReplaceNetworkACLAssociation(ctx, vpc.NetworkACLAssociationID(deref(in.AssociationId)), vpc.NetworkACLID(deref(in.NetworkAclId)))
	return &api.ReplaceNetworkAclAssociationOutput{NewAssociationId: new(string(id))}, err
}
