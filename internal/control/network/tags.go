package network

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// checkTags applies EC2's rules for tags.
func (s *Service) checkTags(tags vpc.Tags) error {
	if len(tags) > s.limits.TagsPerResource {
		return limit("TagLimitExceeded", "The maximum number of Tags for a resource has been reached.")
	}
	for k, v := range tags {
		switch {
		case k == "" || utf8.RuneCountInString(k) > 127:
			return invalid("Tag keys have 1 to 127 characters: '%.160s'", k)
		case utf8.RuneCountInString(v) > 255:
			return invalid("Tag value exceeds the maximum length of 255 characters")
		case strings.HasPrefix(strings.ToLower(k), "aws:"):
			return invalid("Tag keys starting with 'aws:' are reserved for internal use")
		}
	}
	return nil
}

// taggable is a document that has tags.
type taggable struct {
	resourceType string
	tags         vpc.Tags
	put          func(state.Tx, vpc.Tags) error
}

// kinds of taggable resources by the prefix of their identifiers, the names being those of EC2's resource types.
func (s *Service) taggable(r state.Reader, id string) (taggable, error) {
	prefix, _, _ := strings.Cut(id, "-")
	switch prefix {
	case vpc.PrefixVPC:
		return tagged(r, "vpc", vpc.VPCs(), vpc.VPCID(id), func(v *vpc.VPC) *vpc.Tags { return &v.Tags })
	case vpc.PrefixSubnet:
		return tagged(r, "subnet", vpc.Subnets(), vpc.SubnetID(id), func(v *vpc.Subnet) *vpc.Tags { return &v.Tags })
	case vpc.PrefixSecurityGroup:
		return tagged(r, "security-group", vpc.SecurityGroups(), vpc.SecurityGroupID(id), func(v *vpc.SecurityGroup) *vpc.Tags { return &v.Tags })
	case vpc.PrefixNetworkACL:
		return tagged(r, "network-acl", vpc.NetworkACLs(), vpc.NetworkACLID(id), func(v *vpc.NetworkACL) *vpc.Tags { return &v.Tags })
	case vpc.PrefixRouteTable:
		return tagged(r, "route-table", vpc.RouteTables(), vpc.RouteTableID(id), func(v *vpc.RouteTable) *vpc.Tags { return &v.Tags })
	case vpc.PrefixNetworkInterface:
		return tagged(r, "network-interface", vpc.NetworkInterfaces(), vpc.NetworkInterfaceID(id), func(v *vpc.NetworkInterface) *vpc.Tags { return &v.Tags })
	case vpc.PrefixEndpoint:
		return tagged(r, "vpc-endpoint", vpc.Endpoints(), vpc.EndpointID(id), func(v *vpc.Endpoint) *vpc.Tags { return &v.Tags })
	case vpc.PrefixPrefixList:
		return tagged(r, "prefix-list", vpc.PrefixLists(), vpc.PrefixListID(id), func(v *vpc.PrefixList) *vpc.Tags { return &v.Tags })
	case vpc.PrefixInsightsPath:
		return tagged(r, "network-insights-path", vpc.InsightsPaths(), vpc.InsightsPathID(id), func(v *vpc.InsightsPath) *vpc.Tags { return &v.Tags })
	case vpc.PrefixInsightsAnalysis:
		return tagged(r, "network-insights-analysis", vpc.InsightsAnalyses(), vpc.InsightsAnalysisID(id), func(v *vpc.InsightsAnalysis) *vpc.Tags { return &v.Tags })
	case vpc.PrefixSecurityGroupRule:
		return s.taggedRule(r, vpc.SecurityGroupRuleID(id))
	}
	return taggable{}, fault.Newf(fault.Malformed, "", "", "The ID '%.60s' is not valid", id).WithCode("InvalidID")
}

func tagged[T any, ID ~string](r state.Reader, resourceType string, t state.Table[T], id ID, tags func(*T) *vpc.Tags) (taggable, error) {
	v, err := get(r, t, id)
	if err != nil {
		return taggable{}, err
	}
	return taggable{resourceType: resourceType, tags: *tags(v), put: func(tx state.Tx, next vpc.Tags) error {
		*tags(v) = next
		return t.Put(tx, v)
	}}, nil
}

func (s *Service) taggedRule(r state.Reader, id vpc.SecurityGroupRuleID) (taggable, error) {
	if err := vpc.CheckID(id); err != nil {
		return taggable{}, err
	}
	groups, err := vpc.SecurityGroups().By(r, "rule", string(id))
	if err != nil {
		return taggable{}, err
	}
	for _, g := range groups {
		i := slices.IndexFunc(g.Rules, func(r vpc.SecurityGroupRule) bool { return r.ID == id })
		if i >= 0 {
			return taggable{resourceType: "security-group-rule", tags: g.Rules[i].Tags, put: func(tx state.Tx, next vpc.Tags) error {
				g.Rules[i].Tags = next
				return vpc.SecurityGroups().Put(tx, g)
			}}, nil
		}
	}
	return taggable{}, vpc.NotFound(id)
}

// CreateTags sets tags on resources of any kind; all or none.
func (s *Service) CreateTags(ctx context.Context, resources []string, tags vpc.Tags) error {
	if len(resources) == 0 {
		return missing("resourceIdSet")
	}
	if len(tags) == 0 {
		return missing("tagSet")
	}
	_, err := s.store.Update(ctx, func(tx state.Tx) error {
		for _, id := range resources {
			r, err := s.taggable(tx, id)
			if err != nil {
				return err
			}
			next := make(vpc.Tags, len(r.tags)+len(tags))
			maps.Copy(next, r.tags)
			maps.Copy(next, tags)
			if err := cmp.Or(s.checkTags(tags), s.checkTags(next)); err != nil {
				return err
			}
			if err := r.put(tx, next); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// TagSelector names a tag to delete: its key, and its value unless that is nil.
type TagSelector struct {
	Key   string
	Value *string
}

// DeleteTags removes tags from resources; all tags when none is named. Tags that are not there are not an error.
func (s *Service) DeleteTags(ctx context.Context, resources []string, selectors []TagSelector) error {
	if len(resources) == 0 {
		return missing("resourceIdSet")
	}
	_, err := s.store.Update(ctx, func(tx state.Tx) error {
		for _, id := range resources {
			r, err := s.taggable(tx, id)
			if err != nil {
				return err
			}
			next := vpc.Tags{}
			for k, v := range r.tags {
				drop := len(selectors) == 0 || slices.ContainsFunc(selectors, func(t TagSelector) bool {
					return t.Key == k && (t.Value == nil || *t.Value == v)
				})
				if !drop {
					next[k] = v
				}
			}
			if err := r.put(tx, next); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// TagDescription is one tag of one resource.
type TagDescription struct{ ResourceID, ResourceType, Key, Value string }

// TagsOf returns the tags of the named resources, by ID. It reads these alone; what does not exist has none.
func (s *Service) TagsOf(ctx context.Context, ids []string) (map[string]vpc.Tags, error) {
	return state.Read(ctx, s.store, func(r state.Reader) (map[string]vpc.Tags, error) {
		out := make(map[string]vpc.Tags, len(ids))
		for _, id := range ids {
			if _, ok := out[id]; ok {
				continue
			}
			t, err := s.taggable(r, id)
			if _, ok := errors.AsType[*fault.Error](err); ok { // unknown, or no ID at all
				continue
			}
			if err != nil {
				return nil, err
			}
			out[id] = t.tags
		}
		return out, nil
	})
}

// DescribeTags returns every tag, ordered by resource and key.
func (s *Service) DescribeTags(ctx context.Context) ([]TagDescription, error) {
	return state.Read(ctx, s.store, func(r state.Reader) ([]TagDescription, error) {
		var out []TagDescription
		add := func(resourceType, id string, tags vpc.Tags) {
			for k, v := range tags {
				out = append(out, TagDescription{id, resourceType, k, v})
			}
		}
		err := cmp.Or(
			each(r, vpc.VPCs(), func(v *vpc.VPC) { add("vpc", string(v.ID), v.Tags) }),
			each(r, vpc.Subnets(), func(v *vpc.Subnet) { add("subnet", string(v.ID), v.Tags) }),
			each(r, vpc.SecurityGroups(), func(v *vpc.SecurityGroup) {
				add("security-group", string(v.ID), v.Tags)
				for _, rule := range v.Rules {
					add("security-group-rule", string(rule.ID), rule.Tags)
				}
			}),
			each(r, vpc.NetworkACLs(), func(v *vpc.NetworkACL) { add("network-acl", string(v.ID), v.Tags) }),
			each(r, vpc.RouteTables(), func(v *vpc.RouteTable) { add("route-table", string(v.ID), v.Tags) }),
			each(r, vpc.NetworkInterfaces(), func(v *vpc.NetworkInterface) { add("network-interface", string(v.ID), v.Tags) }),
			each(r, vpc.Endpoints(), func(v *vpc.Endpoint) { add("vpc-endpoint", string(v.ID), v.Tags) }),
			each(r, vpc.PrefixLists(), func(v *vpc.PrefixList) { add("prefix-list", string(v.ID), v.Tags) }),
			each(r, vpc.InsightsPaths(), func(v *vpc.InsightsPath) { add("network-insights-path", string(v.ID), v.Tags) }),
			each(r, vpc.InsightsAnalyses(), func(v *vpc.InsightsAnalysis) { add("network-insights-analysis", string(v.ID), v.Tags) }),
		)
		slices.SortFunc(out, func(a, b TagDescription) int {
			return strings.Compare(a.ResourceID+"\x00"+a.Key, b.ResourceID+"\x00"+b.Key)
		})
		return out, err
	})
}

func each[T any](r state.Reader, t state.Table[T], fn func(*T)) error {
	all, err := t.List(r, state.Query{})
	for _, v := range all {
		fn(v)
	}
	return err
}
