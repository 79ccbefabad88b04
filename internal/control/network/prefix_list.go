package network

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// keptVersions is how many earlier versions of a prefix list can be read and restored.
const keptVersions = 100

// PrefixListEntry is an entry as a client writes it.
type PrefixListEntry struct{ CIDR, Description string }

// CreatePrefixList are the parameters of CreateManagedPrefixList.
type CreatePrefixList struct {
	Name          string
	AddressFamily string
	MaxEntries    int
	Entries       []PrefixListEntry
	Tags          vpc.Tags
}

// CreatePrefixList makes a list, version 1.
func (s *Service) CreatePrefixList(ctx context.Context, c CreatePrefixList, token string) (*vpc.PrefixList, error) {
	l := &vpc.PrefixList{
		OwnerID: s.account, Name: c.Name, AddressFamily: vpc.AddressFamily(c.AddressFamily), MaxEntries: c.MaxEntries,
		Version: 1, State: vpc.PrefixListCreated, Tags: c.Tags,
	}
	if l.AddressFamily != vpc.FamilyIPv4 && l.AddressFamily != vpc.FamilyIPv6 {
		return nil, invalid("Value (%.40s) for parameter AddressFamily is invalid. It is IPv4 or IPv6.", c.AddressFamily)
	}
	if err := cmp.Or(checkListName(c.Name), s.checkMaxEntries(c.MaxEntries), s.checkTags(c.Tags)); err != nil {
		return nil, err
	}
	var err error
	if l.Entries, err = listEntries(l.AddressFamily, c.Entries); err != nil {
		return nil, err
	}
	if len(l.Entries) > l.MaxEntries {
		return nil, tooManyEntries(l)
	}
	return state.Write(ctx, s.store, func(tx state.Tx) (*vpc.PrefixList, error) {
		return once(s, tx, "CreateManagedPrefixList", token, c, vpc.PrefixLists(), func() (*vpc.PrefixList, error) {
			n, err := tx.Count(vpc.KindPrefixList, state.Key{})
			if err != nil {
				return nil, err
			}
			if n >= s.limits.PrefixLists {
				return nil, limit("PrefixListLimitExceeded", "The maximum number of prefix lists has been reached.")
			}
			made := *l
			made.ID, made.Created = newID[vpc.PrefixListID](vpc.PrefixPrefixList), s.now().UTC()
			return &made, vpc.PrefixLists().Put(tx, &made)
		})
	})
}

func checkListName(name string) error {
	switch {
	case name == "":
		return missing("PrefixListName")
	case utf8.RuneCountInString(name) > 255:
		return invalid("Value for parameter PrefixListName is invalid. It has at most 255 characters.")
	case strings.HasPrefix(name, "com.amazonaws"):
		return invalid("Value (%.80s) for parameter PrefixListName is invalid. Names must not begin with com.amazonaws.", name)
	}
	return nil
}

func (s *Service) checkMaxEntries(n int) error {
	if n < 1 || n > s.limits.EntriesPerPrefixList {
		return invalid("Value (%d) for parameter MaxEntries is invalid. A prefix list has 1 to %d entries.", n, s.limits.EntriesPerPrefixList)
	}
	return nil
}

func tooManyEntries(l *vpc.PrefixList) error {
	return limit("PrefixListMaxEntriesExceeded", "The prefix list can have at most "+plural(l.MaxEntries, "entry", "entries")+".")
}

// listEntries reads entries of requests: blocks of the list's family, masked, each once.
func listEntries(family vpc.AddressFamily, entries []PrefixListEntry) ([]vpc.PrefixListEntry, error) {
	out := make([]vpc.PrefixListEntry, 0, len(entries))
	for _, e := range entries {
		p, err := netip.ParsePrefix(e.CIDR)
		if err != nil || vpc.FamilyOf(p.Addr()) != family {
			return nil, invalid("Value (%.60s) for parameter Cidr is invalid. This is not a CIDR block of the list's address family, %s.", e.CIDR, family)
		}
		if utf8.RuneCountInString(e.Description) > 255 {
			return nil, invalid("Value for parameter Description is invalid. It has at most 255 characters.")
		}
		p = p.Masked()
		if slices.ContainsFunc(out, func(o vpc.PrefixListEntry) bool { return o.CIDR == p }) {
			return nil, invalid("Value (%s) for parameter Cidr is invalid. The block is given twice.", p)
		}
		out = append(out, vpc.PrefixListEntry{CIDR: p, Description: e.Description})
	}
	sortEntries(out)
	return out, nil
}

func sortEntries(list []vpc.PrefixListEntry) {
	slices.SortFunc(list, func(a, b vpc.PrefixListEntry) int {
		return cmp.Or(a.CIDR.Addr().Compare(b.CIDR.Addr()), cmp.Compare(a.CIDR.Bits(), b.CIDR.Bits()))
	})
}

// ModifyPrefixList are the parameters of ModifyManagedPrefixList; nil and empty change nothing.
type ModifyPrefixList struct {
	ID             vpc.PrefixListID
	CurrentVersion *int64 // needed to change entries
	Name           *string
	MaxEntries     *int
	Add            []PrefixListEntry // an entry that is there gets the new description
	Remove         []string
}

// ModifyPrefixList changes a list; changed entries are a new version. Whatever names the list follows at once.
func (s *Service) ModifyPrefixList(ctx context.Context, m ModifyPrefixList) (*vpc.PrefixList, error) {
	entries := len(m.Add)+len(m.Remove) > 0
	switch {
	case entries && m.MaxEntries != nil:
		return nil, combination("The parameter %s cannot be used with the parameter %s", "MaxEntries", "AddEntry or RemoveEntry")
	case entries && m.CurrentVersion == nil:
		return nil, missing("CurrentVersion")
	case !entries && m.MaxEntries == nil && m.Name == nil:
		return nil, missing("PrefixListName, MaxEntries, AddEntry or RemoveEntry")
	}
	if m.Name != nil {
		if err := checkListName(*m.Name); err != nil {
			return nil, err
		}
	}
	return state.Write(ctx, s.store, func(tx state.Tx) (*vpc.PrefixList, error) {
		l, err := s.prefixListAt(tx, m.ID, m.CurrentVersion)
		if err != nil {
			return nil, err
		}
		if m.Name != nil {
			l.Name = *m.Name
		}
		if entries {
			next, err := changedEntries(l, m)
			if err != nil {
				return nil, err
			}
			if len(next) > l.MaxEntries {
				return nil, tooManyEntries(l)
			}
			newVersion(l, next)
		}
		if m.MaxEntries != nil {
			if err := s.resize(tx, l, *m.MaxEntries); err != nil {
				return nil, err
			}
		}
		l.State = vpc.PrefixListChanged
		return l, vpc.PrefixLists().Put(tx, l)
	})
}

// prefixListAt is a list, which must be at the version when that is given.
func (s *Service) prefixListAt(r state.Reader, id vpc.PrefixListID, version *int64) (*vpc.PrefixList, error) {
	l, err := managedList(r, id)
	if err != nil {
		return nil, err
	}
	if version != nil && *version != l.Version {
		return nil, fault.New(fault.Conflict, "", "", "The prefix list has the incorrect version number.").WithCode("PrefixListVersionMismatch")
	}
	return l, nil
}

// managedList is get with the code that EC2 has in operations on managed lists.
func managedList(r state.Reader, id vpc.PrefixListID) (*vpc.PrefixList, error) {
	l, err := get(r, vpc.PrefixLists(), id)
	if fault.Is(err, fault.NotFound) {
		return nil, fault.Newf(fault.NotFound, "", "", "The prefix list ID '%s' does not exist.", id).WithCode("InvalidPrefixListID.NotFound")
	}
	return l, err
}

func changedEntries(l *vpc.PrefixList, m ModifyPrefixList) ([]vpc.PrefixListEntry, error) {
	gone := make([]PrefixListEntry, 0, len(m.Remove))
	for _, c := range m.Remove {
		gone = append(gone, PrefixListEntry{CIDR: c})
	}
	remove, err := listEntries(l.AddressFamily, gone)
	if err != nil {
		return nil, err
	}
	add, err := listEntries(l.AddressFamily, m.Add)
	if err != nil {
		return nil, err
	}
	next := slices.Clone(l.Entries)
	at := func(list []vpc.PrefixListEntry, p netip.Prefix) int {
		return slices.IndexFunc(list, func(e vpc.PrefixListEntry) bool { return e.CIDR == p })
	}
	for _, e := range remove {
		switch i := at(next, e.CIDR); {
		case i < 0:
			return nil, fault.Newf(fault.Invalid, "", "", "The CIDR block %s is not in the prefix list %s and cannot be removed.", e.CIDR, l.ID).WithCode("InvalidPrefixListModification")
		case at(add, e.CIDR) >= 0:
			return nil, fault.Newf(fault.Invalid, "", "", "The CIDR block %s is both to be added and to be removed.", e.CIDR).WithCode("InvalidPrefixListModification")
		default:
			next = slices.Delete(next, i, i+1)
		}
	}
	for _, e := range add {
		if i := at(next, e.CIDR); i >= 0 {
			next[i] = e
		} else {
			next = append(next, e)
		}
	}
	sortEntries(next)
	return next, nil
}

// newVersion gives a list other entries and keeps those that it had.
func newVersion(l *vpc.PrefixList, entries []vpc.PrefixListEntry) {
	l.Versions = append(l.Versions, vpc.PrefixListPast{Version: l.Version, Entries: l.Entries})
	if n := len(l.Versions) - keptVersions; n > 0 {
		l.Versions = slices.Delete(l.Versions, 0, n)
	}
	l.Version++
	l.Entries = entries
}

// resize changes how many entries a list may have; the groups and tables that name it must have room for them.
func (s *Service) resize(tx state.Tx, l *vpc.PrefixList, n int) error {
	if err := s.checkMaxEntries(n); err != nil {
		return err
	}
	l.MaxEntries = n
	if len(l.Entries) > n {
		return tooManyEntries(l)
	}
	stored, err := prefixLists(tx)
	if err != nil {
		return err
	}
	lists := func(id vpc.PrefixListID) *vpc.PrefixList {
		if id == l.ID {
			return l
		}
		return stored(id)
	}
	groups, tables, err := naming(tx, l.ID)
	if err != nil {
		return err
	}
	for _, g := range groups {
		if err := g.CheckQuota(lists, s.limits.RulesPerGroup); err != nil {
			return err
		}
	}
	for _, t := range tables {
		if t.Count(lists) > s.limits.RoutesPerTable {
			return limit("RouteLimitExceeded", "The route table "+string(t.ID)+" has no room for a prefix list of that size.")
		}
	}
	return nil
}

// naming are the groups and route tables that name a list.
func naming(r state.Reader, id vpc.PrefixListID) ([]*vpc.SecurityGroup, []*vpc.RouteTable, error) {
	groups, err := vpc.SecurityGroups().By(r, "prefix-list", string(id))
	if err != nil {
		return nil, nil, err
	}
	tables, err := vpc.RouteTables().By(r, "prefix-list", string(id))
	return groups, tables, err
}

// RestorePrefixList makes a new version of a list with the entries of an earlier one.
func (s *Service) RestorePrefixList(ctx context.Context, id vpc.PrefixListID, previous, current int64) (*vpc.PrefixList, error) {
	return state.Write(ctx, s.store, func(tx state.Tx) (*vpc.PrefixList, error) {
		l, err := s.prefixListAt(tx, id, &current)
		if err != nil {
			return nil, err
		}
		if previous == current {
			return nil, invalid("Value (%d) for parameter PreviousVersion is invalid. It is the current version.", previous)
		}
		entries, err := entriesAt(l, "PreviousVersion", previous)
		if err != nil {
			return nil, err
		}
		if len(entries) > l.MaxEntries {
			return nil, tooManyEntries(l)
		}
		newVersion(l, entries)
		l.State = vpc.PrefixListRestore
		return l, vpc.PrefixLists().Put(tx, l)
	})
}

func entriesAt(l *vpc.PrefixList, member string, version int64) ([]vpc.PrefixListEntry, error) {
	if version == l.Version {
		return l.Entries, nil
	}
	for _, v := range l.Versions {
		if v.Version == version {
			return v.Entries, nil
		}
	}
	return nil, invalid("Value (%d) for parameter %s is invalid. The prefix list %s has no such version.", version, member, l.ID)
}

// DeletePrefixList removes a list that no rule and no route names.
func (s *Service) DeletePrefixList(ctx context.Context, id vpc.PrefixListID) (*vpc.PrefixList, error) {
	return state.Write(ctx, s.store, func(tx state.Tx) (*vpc.PrefixList, error) {
		l, err := managedList(tx, id)
		if err != nil {
			return nil, err
		}
		groups, tables, err := naming(tx, id)
		if err != nil {
			return nil, err
		}
		if len(groups)+len(tables) > 0 {
			return nil, dependency("The prefix list '%s' is referenced by %s and %s and cannot be deleted.", id,
				plural(len(groups), "security group", "security groups"), plural(len(tables), "route table", "route tables"))
		}
		return l, vpc.PrefixLists().Delete(tx, string(id))
	})
}

// DescribePrefixLists returns the named lists, or all.
func (s *Service) DescribePrefixLists(ctx context.Context, ids []vpc.PrefixListID) ([]*vpc.PrefixList, error) {
	return state.Read(ctx, s.store, func(r state.Reader) ([]*vpc.PrefixList, error) {
		if len(ids) == 0 {
			return vpc.PrefixLists().List(r, state.Query{})
		}
		var out []*vpc.PrefixList
		for _, id := range unique(ids) {
			l, err := managedList(r, id)
			if err != nil {
				return nil, err
			}
			out = append(out, l)
		}
		return out, nil
	})
}

// PrefixListEntries are the entries of a version of a list; of the current one when version is nil.
func (s *Service) PrefixListEntries(ctx context.Context, id vpc.PrefixListID, version *int64) ([]vpc.PrefixListEntry, error) {
	return state.Read(ctx, s.store, func(r state.Reader) ([]vpc.PrefixListEntry, error) {
		l, err := managedList(r, id)
		if err != nil || version == nil {
			if err != nil {
				return nil, err
			}
			return l.Entries, nil
		}
		return entriesAt(l, "TargetVersion", *version)
	})
}

// PrefixListAssociations are the IDs of the groups and route tables that name a list.
func (s *Service) PrefixListAssociations(ctx context.Context, id vpc.PrefixListID) ([]string, error) {
	return state.Read(ctx, s.store, func(r state.Reader) ([]string, error) {
		if _, err := managedList(r, id); err != nil {
			return nil, err
		}
		groups, tables, err := naming(r, id)
		if err != nil {
			return nil, err
		}
		var out []string
		for _, g := range groups {
			out = append(out, string(g.ID))
		}
		for _, t := range tables {
			out = append(out, string(t.ID))
		}
		return out, nil
	})
}
