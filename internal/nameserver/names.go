package nameserver

import (
	"net/netip"
	"strings"
)

// Names is everything that the server answers from, immutable once given to it.
type Names struct {
	// Apexes are zones that are ours for every source: a name below one that a source's view lacks does not exist.
	Apexes []string
	Views  []View
}

// View is what sources of some prefixes see. The longest prefix that holds a source decides.
type View struct {
	Sources []netip.Prefix
	// Records are the addresses of names: lower case, no dot at the end; "*.example.net" stands for every name below example.net
	// that has no record of its own.
	Records map[string][]Target
	// Private are zones that are ours in this view alone: those of private names.
	Private []string
}

// Target is one address of a name.
type Target struct {
	Addr netip.Addr
	Down bool // left out of answers while another address is up
}

// viewOf finds the view of a source; nil when it has none.
func (n *Names) viewOf(src netip.Addr) *View {
	src = src.Unmap().WithZone("")
	var found *View
	longest := -1
	for i := range n.Views {
		for _, p := range n.Views[i].Sources {
			if p.Bits() > longest && p.Contains(src) {
				found, longest = &n.Views[i], p.Bits()
			}
		}
	}
	return found
}

// apexOf is the zone of ours that a name is in, "" when it is in none.
func (n *Names) apexOf(v *View, name string) string {
	longest := ""
	zones := n.Apexes
	for range 2 {
		for _, a := range zones {
			if len(a) > len(longest) && within(name, a) {
				longest = a
			}
		}
		if v == nil {
			break
		}
		zones = v.Private
	}
	return longest
}

func within(name, apex string) bool {
	return name == apex || strings.HasSuffix(name, "."+apex)
}

// find returns the targets of a name, and whether the name exists: a name above one with records exists and has none
// (RFC 8020).
func (v *View) find(name string) (targets []Target, exists bool) {
	if v == nil {
		return nil, false
	}
	if t, ok := v.Records[name]; ok {
		return t, true
	}
	for other := range v.Records {
		if strings.HasSuffix(other, "."+name) {
			return nil, true
		}
	}
	for parent := name; ; { // the closest wildcard above
		_, rest, ok := strings.Cut(parent, ".")
		if !ok {
			return nil, false
		}
		parent = rest
		if t, ok := v.Records["*."+parent]; ok {
			return t, true
		}
		if _, ok := v.Records[parent]; ok {
			return nil, false // a closer name without a wildcard hides those above (RFC 4592)
		}
	}
}

// serving leaves out what is down, unless everything is: then all are answered, because the check may be what is wrong.
func serving(ts []Target) []Target {
	var up []Target
	for _, t := range ts {
		if !t.Down {
			up = append(up, t)
		}
	}
	if len(up) == 0 {
		return ts
	}
	return up
}
