package vpc

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"penstock.dev/penstock/internal/fault"
)

// SecurityGroup is a stateful, allow-only set of rules for network interfaces.
type SecurityGroup struct {
	ID          SecurityGroupID     `json:"id"`
	OwnerID     string              `json:"ownerId"`
	VPC         VPCID               `json:"vpc"`
	Name        string              `json:"name"`
	Description string              `json:"description"`
	Rules       []SecurityGroupRule `json:"rules,omitzero"` // in the order in which they were added
	Tags        Tags                `json:"tags,omitzero"`
	Created     time.Time           `json:"created"`
}

// SecurityGroupRule admits one kind of traffic from or to one peer.
type SecurityGroupRule struct {
	ID          SecurityGroupRuleID `json:"id"`
	Egress      bool                `json:"egress,omitzero"`
	Protocol    Protocol            `json:"protocol"`
	Ports       PortRange           `json:"ports"` // ICMP: type and code; {-1,-1} for every port
	Peer        Peer                `json:"peer"`
	Description string              `json:"description,omitzero"`
	Tags        Tags                `json:"tags,omitzero"`
}

// Peer is the other side of a security group's rule: exactly one of its members is set.
type Peer struct {
	CIDR       netip.Prefix    `json:"cidr,omitzero"` // IPv4 or IPv6, masked
	Group      SecurityGroupID `json:"group,omitzero"`
	PrefixList PrefixListID    `json:"prefixList,omitzero"`
}

// DefaultGroupName is the name of the group that every VPC has.
const DefaultGroupName = "default"

// CheckGroupName applies the rules for a group's name: 1 to 255 characters of EC2's set, not beginning with "sg-".
func CheckGroupName(name string) error {
	switch {
	case name == "":
		return fault.New(fault.Missing, "", "", "The request must contain the parameter GroupName").WithCode("MissingParameter")
	case len(name) > 255 || strings.Trim(name, groupCharacters) != "":
		return fault.Newf(fault.Invalid, "", "", "Invalid value '%.80s' for groupName. Up to 255 characters of a-z, A-Z, 0-9, spaces and ._-:/()#,@[]+=&;{}!$* are allowed.", name).WithCode("InvalidParameterValue")
	case strings.HasPrefix(name, "sg-"):
		return fault.Newf(fault.Invalid, "", "", "Invalid value '%s' for groupName. Names must not begin with sg-.", name).WithCode("InvalidParameterValue")
	}
	return nil
}

const groupCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ._-:/()#,@[]+=&;{}!$*"

// CheckDescription applies the rules for the description of a group or a rule: up to 255 characters of EC2's set.
func CheckDescription(text string) error {
	if len(text) > 255 || strings.Trim(text, groupCharacters) != "" {
		return fault.New(fault.Invalid, "", "", "Invalid description. Up to 255 characters of a-z, A-Z, 0-9, spaces and ._-:/()#,@[]+=&;{}!$* are allowed.").WithCode("InvalidParameterValue")
	}
	return nil
}

// NormalizeTraffic reads a rule's protocol and ports as clients send them. Protocol -1 ignores ports; tcp and udp need
// both; icmp takes type and code, -1 or absent for any; other protocols have no ports.
func NormalizeTraffic(protocol string, from, to *int) (Protocol, PortRange, error) {
	invalid := func(format string, args ...any) (Protocol, PortRange, error) {
		return 0, PortRange{}, fault.Newf(fault.Invalid, "", "", format, args...).WithCode("InvalidParameterValue")
	}
	if protocol == "" {
		return 0, PortRange{}, fault.New(fault.Missing, "", "", "The request must contain the parameter ipProtocol").WithCode("MissingParameter")
	}
	p, ok := ParseProtocol(protocol)
	if !ok {
		return invalid("Invalid value '%.40s' for IP protocol. Unknown protocol.", protocol)
	}
	switch p {
	case TCP, UDP:
		if from == nil || to == nil {
			return invalid("Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.")
		}
		for _, v := range []int{*from, *to} {
			if v < 0 || v > 65535 {
				return invalid("Invalid value '%d' for portRange. TCP/UDP port (%d) out of range", v, v)
			}
		}
		if *from > *to {
			return invalid("Invalid value '%d' for portRange. The last port is below the first.", *to)
		}
		return p, PortRange{From: *from, To: *to}, nil
	case ICMP, ICMPv6:
		r := AllPorts
		if from != nil {
			r.From = *from
		}
		if to != nil {
			r.To = *to
		}
		if r.From < -1 || r.From > 255 || r.To < -1 || r.To > 255 {
			return invalid("Invalid value for portRange. ICMP type and code are between -1 and 255.")
		}
		return p, r, nil
	default:
		return p, AllPorts, nil
	}
}

// Same says whether two rules are about the same traffic of the same peer; descriptions do not matter.
func (r *SecurityGroupRule) Same(o *SecurityGroupRule) bool {
	return r.Egress == o.Egress && r.Protocol == o.Protocol && r.Ports == o.Ports && r.Peer == o.Peer
}

// Find is the index of the group's rule that is the same as r, -1 when there is none.
func (g *SecurityGroup) Find(r *SecurityGroupRule) int {
	return slices.IndexFunc(g.Rules, func(have SecurityGroupRule) bool { return have.Same(r) })
}

// RulesPerGroup is how many rules a group may have for each direction and IP family, unless the account has another quota.
const RulesPerGroup = 60

// Lists finds prefix lists by their identifiers; nil for one that is not there.
type Lists func(PrefixListID) *PrefixList

// Add puts rules into the group, up to most for each direction and IP family. A rule that is there already, or twice in rules, fails the whole call.
func (g *SecurityGroup) Add(rules []SecurityGroupRule, lists Lists, most int) error {
	next := *g
	next.Rules = slices.Clone(g.Rules)
	for i := range rules {
		if next.Find(&rules[i]) >= 0 {
			return fault.Newf(fault.AlreadyExists, "", "", "the specified rule %q already exists", rules[i].String()).WithCode("InvalidPermission.Duplicate")
		}
		next.Rules = append(next.Rules, rules[i])
	}
	if err := next.CheckQuota(lists, most); err != nil {
		return err
	}
	g.Rules = next.Rules
	return nil
}

// CheckQuota says whether the group has more rules of a direction and IP family than most. A rule that names a group counts for both IP families, one that
// names a prefix list counts as often as the list may have entries.
func (g *SecurityGroup) CheckQuota(lists Lists, most int) error {
	counts := map[[2]bool]int{}
	for _, r := range g.Rules {
		switch {
		case r.Peer.CIDR.IsValid():
			counts[[2]bool{r.Egress, r.Peer.CIDR.Addr().Is6()}]++
		case r.Peer.PrefixList != "":
			if l := lists(r.Peer.PrefixList); l != nil {
				counts[[2]bool{r.Egress, l.Is6()}] += l.MaxEntries
			}
		default:
			counts[[2]bool{r.Egress, false}]++
			counts[[2]bool{r.Egress, true}]++
		}
	}
	for _, n := range counts {
		if n > most {
			return fault.New(fault.Limit, "", "", "The maximum number of rules per security group has been reached.").WithCode("RulesPerSecurityGroupLimitExceeded")
		}
	}
	return nil
}

// String is the rule as EC2's messages show it.
func (r *SecurityGroupRule) String() string {
	peer := string(r.Peer.Group)
	if r.Peer.CIDR.IsValid() {
		peer = r.Peer.CIDR.String()
	} else if r.Peer.PrefixList != "" {
		peer = string(r.Peer.PrefixList)
	}
	if r.Protocol == AllProtocols {
		return fmt.Sprintf("peer: %s, ALL, ALLOW", peer)
	}
	return fmt.Sprintf("peer: %s, %s, from port: %d, to port: %d, ALLOW", peer, r.Protocol, r.Ports.From, r.Ports.To)
}

// Permission is a group's rules of one direction that share protocol and ports, as DescribeSecurityGroups merges them.
type Permission struct {
	Protocol Protocol
	Ports    PortRange
	Rules    []SecurityGroupRule
}

// Permissions merges the group's rules of one direction.
func (g *SecurityGroup) Permissions(egress bool) []Permission {
	var out []Permission
	for _, r := range g.Rules {
		if r.Egress != egress {
			continue
		}
		i := slices.IndexFunc(out, func(p Permission) bool { return p.Protocol == r.Protocol && p.Ports == r.Ports })
		if i < 0 {
			i = len(out)
			out = append(out, Permission{Protocol: r.Protocol, Ports: r.Ports})
		}
		out[i].Rules = append(out[i].Rules, r)
	}
	return out
}
