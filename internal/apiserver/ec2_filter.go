package apiserver

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/vpc"
	api "penstock.dev/penstock/internal/wire/ec2api"
)

// ec2Filter are the filters of an operation: what each of the documented names reads from an item. A filter matches
// when any value of the item matches any value of the request.
type ec2Filter[T any] map[string]func(*T) []string

// one makes a filter of a single value.
func one[T any](value func(*T) string) func(*T) []string {
	return func(v *T) []string { return []string{value(v)} }
}

// yes makes a filter of a truth.
func yes[T any](value func(*T) bool) func(*T) []string {
	return func(v *T) []string { return []string{strconv.FormatBool(value(v))} }
}

// never is a documented filter on something that no resource here has.
func never[T any](*T) []string { return nil }

// every reads a value from each element of a list of the item.
func every[T, E any](list func(*T) []E, value func(*E) string) func(*T) []string {
	return func(v *T) []string {
		elements := list(v)
		out := make([]string, 0, len(elements))
		for i := range elements {
			out = append(out, value(&elements[i]))
		}
		return out
	}
}

// apply keeps the items that match all of the filters. Filters that the operation does not have are refused.
func (f ec2Filter[T]) apply(items []T, filters []api.Filter, tags func(*T) []api.Tag) ([]T, error) {
	for _, q := range filters {
		name := deref(q.Name)
		read := f[name]
		key, isTag := strings.CutPrefix(name, "tag:")
		switch {
		case read != nil:
		case isTag && tags != nil:
			read = func(v *T) []string {
				for _, t := range tags(v) {
					if deref(t.Key) == key {
						return []string{deref(t.Value)}
					}
				}
				return nil
			}
		case name == "tag-key" && tags != nil:
			read = func(v *T) []string {
				var out []string
				for _, t := range tags(v) {
					out = append(out, deref(t.Key))
				}
				return out
			}
		default:
			return nil, fault.Newf(fault.Invalid, "", "", "The filter '%.80s' is invalid", name).WithCode("InvalidParameterValue")
		}
		if len(q.Values) > 200 {
			return nil, fault.New(fault.Limit, "", "", "The maximum number of filter values on a single call is 200").WithCode("FilterLimitExceeded")
		}
		kept := make([]T, 0, len(items))
		for i := range items {
			have := read(&items[i])
			if slices.ContainsFunc(q.Values, func(pattern string) bool {
				return slices.ContainsFunc(have, func(v string) bool { return wildcard(pattern, v) })
			}) {
				kept = append(kept, items[i])
			}
		}
		items = kept
	}
	return items, nil
}

// wildcard matches * for any text, ? for one byte and \ before a literal character, case-sensitively. It takes linear space and no recursion.
func wildcard(pattern, text string) bool {
	var p, t int
	star, mark := -1, 0
	for t < len(text) {
		if p < len(pattern) {
			switch c := pattern[p]; {
			case c == '*':
				star, mark = p, t
				p++
				continue
			case c == '\\' && p+1 < len(pattern):
				if pattern[p+1] == text[t] {
					p, t = p+2, t+1
					continue
				}
			case c == '?' || c == text[t]:
				p, t = p+1, t+1
				continue
			}
		}
		if star < 0 {
			return false
		}
		mark++
		p, t = star+1, mark
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// maxPage is the most that one answer holds.
const maxPage = 1000

// page orders items by their ID and cuts out the one that begins behind after: what the token of the answer before held.
func page[T any](items []T, id func(*T) string, maxResults *int32, after *string) ([]T, *string, error) {
	slices.SortFunc(items, func(a, b T) int { return cmp.Compare(id(&a), id(&b)) })
	if after != nil {
		i, found := slices.BinarySearchFunc(items, *after, func(v T, want string) int { return cmp.Compare(id(&v), want) })
		if found {
			i++
		}
		items = items[i:]
	}
	limit := maxPage
	if maxResults != nil {
		if *maxResults < 1 {
			return nil, nil, fault.Newf(fault.Invalid, "", "", "Value (%d) for parameter MaxResults is invalid. It is at least 1.", *maxResults).WithCode("InvalidParameterValue")
		}
		limit = min(limit, int(*maxResults))
	}
	if len(items) <= limit {
		return items, nil, nil
	}
	return items[:limit], new(id(&items[limit-1])), nil
}

// found filters and pages the items of a describing operation.
func found[T any](items []T, f ec2Filter[T], filters []api.Filter, tags func(*T) []api.Tag, id func(*T) string, maxResults *int32, token *string) ([]T, *string, error) {
	items, err := f.apply(items, filters, tags)
	if err != nil {
		return nil, nil, err
	}
	return page(items, id, maxResults, token)
}

// ec2IDs converts identifiers of requests.
func ec2IDs[ID ~string](list []string) []ID {
	out := make([]ID, 0, len(list))
	for _, v := range list {
		out = append(out, ID(v))
	}
	return out
}

// texts converts identifiers for answers.
func texts[ID ~string](list []ID) []string {
	out := make([]string, 0, len(list))
	for _, v := range list {
		out = append(out, string(v))
	}
	return out
}

// strOrNil is nil for an empty text, which answers leave out.
func strOrNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// i32 is a number as the wire carries it.
func i32(n int) *int32 { return new(int32(n)) }

// intp is a number as rules take it.
func intp(n *int32) *int {
	if n == nil {
		return nil
	}
	return new(int(*n))
}

// ec2Tags are tags for an answer, ordered by key.
func ec2Tags(tags vpc.Tags) []api.Tag {
	out := make([]api.Tag, 0, len(tags))
	for k, v := range tags {
		out = append(out, api.Tag{Key: new(k), Value: new(v)})
	}
	slices.SortFunc(out, func(a, b api.Tag) int { return cmp.Compare(*a.Key, *b.Key) })
	return out
}

// tagsOf reads the tags of a request.
func tagsOf(list []api.Tag) (vpc.Tags, error) {
	if len(list) == 0 {
		return nil, nil
	}
	out := make(vpc.Tags, len(list))
	for _, t := range list {
		key := deref(t.Key)
		if _, twice := out[key]; twice {
			return nil, fault.Newf(fault.Invalid, "", "", "Duplicate tag key '%.128s' specified.", key).WithCode("InvalidParameterValue")
		}
		out[key] = deref(t.Value)
	}
	return out, nil
}

// specifiedTags reads the TagSpecifications of an operation that creates one kind of resource.
func specifiedTags(specs []api.TagSpecification, resourceType string) (vpc.Tags, error) {
	var all []api.Tag
	for _, s := range specs {
		if got := deref(s.ResourceType); got != resourceType {
			return nil, fault.Newf(fault.Invalid, "", "", "'%.80s' is not a valid taggable resource type for this operation.", got).WithCode("InvalidParameterValue")
		}
		all = append(all, s.Tags...)
	}
	return tagsOf(all)
}
