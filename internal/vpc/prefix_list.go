package vpc

import (
	"cmp"
	"net/netip"
	"slices"
	"time"
)

// AddressFamily is the family of a prefix list's entries, as EC2 writes it.
type AddressFamily string

// The address families.
const (
	FamilyIPv4 AddressFamily = "IPv4"
	FamilyIPv6 AddressFamily = "IPv6"
)

// FamilyOf is the family of an address.
func FamilyOf(a netip.Addr) AddressFamily {
	if a.Is4() {
		return FamilyIPv4
	}
	return FamilyIPv6
}

// PrefixListState is the state of a managed prefix list. Changes take effect at once, so lists are in a "-complete" state.
type PrefixListState string

// The states that a list of ours can be in.
const (
	PrefixListCreated PrefixListState = "create-complete"
	PrefixListChanged PrefixListState = "modify-complete"
	PrefixListRestore PrefixListState = "restore-complete"
)

// PrefixList is a managed prefix list: blocks of addresses of one family that rules and routes name together.
type PrefixList struct {
	ID            PrefixListID      `json:"id"`
	OwnerID       string            `json:"ownerId"`
	Name          string            `json:"name"`
	AddressFamily AddressFamily     `json:"addressFamily"`
	MaxEntries    int               `json:"maxEntries"` // what a rule or route that names the list counts against its quota
	Version       int64             `json:"version"`    // of Entries; 1 when the list is made
	Entries       []PrefixListEntry `json:"entries,omitzero"`
	Versions      []PrefixListPast  `json:"versions,omitzero"` // that were before, oldest first
	State         PrefixListState   `json:"state"`
	Tags          Tags              `json:"tags,omitzero"`
	Created       time.Time         `json:"created"`
}

// PrefixListEntry is one block of a list.
type PrefixListEntry struct {
	CIDR        netip.Prefix `json:"cidr"` // of the list's family, masked
	Description string       `json:"description,omitzero"`
}

// PrefixListPast are the entries that a list had in an earlier version.
type PrefixListPast struct {
	Version int64             `json:"version"`
	Entries []PrefixListEntry `json:"entries,omitzero"`
}

// Is6 says whether the list is about IPv6 addresses.
func (l *PrefixList) Is6() bool { return l.AddressFamily == FamilyIPv6 }

// prefixList is a list as a snapshot reads it: longest prefix first, the lowest address first among equals.
type prefixList struct {
	id      PrefixListID
	ipv6    bool
	entries []netip.Prefix
}

func newPrefixList(l *PrefixList) *prefixList {
	v := &prefixList{id: l.ID, ipv6: l.Is6(), entries: make([]netip.Prefix, 0, len(l.Entries))}
	for _, e := range l.Entries {
		if e.CIDR.IsValid() && e.CIDR.Addr().Is6() == v.ipv6 {
			v.entries = append(v.entries, e.CIDR.Masked())
		}
	}
	slices.SortFunc(v.entries, func(a, b netip.Prefix) int {
		return cmp.Or(cmp.Compare(b.Bits(), a.Bits()), a.Addr().Compare(b.Addr()))
	})
	v.entries = slices.Compact(v.entries)
	return v
}

// match is the longest entry that holds the address.
func (l *prefixList) match(a netip.Addr) (netip.Prefix, bool) {
	if l == nil {
		return netip.Prefix{}, false
	}
	for _, e := range l.entries {
		if e.Contains(a) {
			return e, true
		}
	}
	return netip.Prefix{}, false
}

// AddrRange is a range of addresses of one family, both ends in it.
type AddrRange struct{ First, Last netip.Addr }

// String is "10.0.0.0-10.0.255.255".
func (r AddrRange) String() string { return r.First.String() + "-" + r.Last.String() }

// lastAddr is the last address of a block.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(b); bit++ {
		b[bit/8] |= 1 << (7 - bit%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// rangesOf joins blocks of one family to ranges that neither overlap nor touch, in the order of their addresses.
func rangesOf(blocks []netip.Prefix) []AddrRange {
	all := make([]AddrRange, 0, len(blocks))
	for _, p := range blocks {
		all = append(all, AddrRange{p.Masked().Addr(), lastAddr(p)})
	}
	slices.SortFunc(all, func(a, b AddrRange) int { return cmp.Or(a.First.Compare(b.First), a.Last.Compare(b.Last)) })
	var out []AddrRange
	for _, r := range all {
		if n := len(out); n > 0 {
			before := &out[n-1]
			if next := before.Last.Next(); !next.IsValid() || r.First.Compare(next) <= 0 { // not valid: it holds the last address that there is
				if r.Last.Compare(before.Last) > 0 {
					before.Last = r.Last
				}
				continue
			}
		}
		out = append(out, r)
	}
	return out
}
