package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/vpc"
)

// errNotAmended says that one ruleset cannot be made of another one step by step: it must be replaced.
var errNotAmended = errors.New("the ruleset must be replaced")

// amend makes the ruleset that is in force, was, into another one, in one step: only rules that differ are touched, so that a
// change costs little more with many other rules than with few, and counters of the others go on. It reports whether nobody else
// changed anything since generation, and the generation that this made. After errNotAmended, and after any other error, nothing has changed.
func (f filter) amend(generation uint32, was, now vpc.Ruleset, logs bool) (next uint32, alone bool, err error) {
	b, err := f.batch(logs)
	if err != nil {
		return 0, false, err
	}
	defer b.close()
	if err := b.amend(f, was, now); err != nil {
		return 0, false, err
	}
	if b.steps > count(now) {
		return 0, false, errNotAmended // it would take longer
	}
	if b.steps > 0 {
		if err := b.c.Flush(); err != nil {
			return 0, false, fmt.Errorf("amend packet filter: %w", err)
		}
		generation++
	}
	next, err = f.generation()
	return next, next == generation, err
}

// amend collects the steps from one ruleset to the other.
func (b *batch) amend(f filter, was, now vpc.Ruleset) (err error) {
	oldChains, oldSets := map[string]*vpc.Chain{}, map[string]*vpc.AddrSet{}
	for i := range was.Chains {
		oldChains[was.Chains[i].Name] = &was.Chains[i]
		b.chains[was.Chains[i].Name] = true
	}
	for name := range logChains(was, b.logs) {
		b.chains[name] = true
	}
	for i := range was.Sets {
		s := &was.Sets[i]
		oldSets[s.Name] = s
		b.sets[s.Name], _ = b.setOf(s) // the kernel finds it by its name
	}
	for i := range now.Chains { // all of them before anything leads to one
		c := &now.Chains[i]
		switch old := oldChains[c.Name]; {
		case old == nil && c.Hook != "":
			return errNotAmended // chains with a hook have an order
		case old == nil:
			b.addChain(c)
		case old.Hook != c.Hook || old.Priority != c.Priority || old.Drop != c.Drop:
			return errNotAmended
		}
	}
	for i := range now.Sets {
		s := &now.Sets[i]
		old := oldSets[s.Name]
		delete(oldSets, s.Name)
		if old == nil {
			err = b.addSet(s)
		} else {
			err = b.amendSet(old, s)
		}
		if err != nil {
			return err
		}
	}
	for i := range now.Chains {
		c := &now.Chains[i]
		old := oldChains[c.Name]
		delete(oldChains, c.Name)
		if old == nil {
			old = &vpc.Chain{Name: c.Name}
		}
		if err := b.amendChain(f, old, c); err != nil {
			return err
		}
	}
	// What is left of the old ones is in nobody's way. A chain can go when nothing leads to it.
	gone := logChains(was, b.logs)
	for name := range logChains(now, b.logs) {
		delete(gone, name)
	}
	for name, c := range oldChains {
		if c.Hook != "" {
			return errNotAmended
		}
		gone[name] = true
	}
	for name := range gone {
		b.c.FlushChain(&nftables.Chain{Name: name, Table: b.t})
	}
	for name := range gone {
		b.c.DelChain(&nftables.Chain{Name: name, Table: b.t})
	}
	for name := range oldSets {
		b.c.DelSet(b.sets[name])
	}
	b.steps += len(gone) + len(oldSets)
	return nil
}

// logChains are the chains in which packets are logged for rules of the ruleset.
func logChains(rules vpc.Ruleset, logs bool) map[string]bool {
	out := map[string]bool{}
	for i := range rules.Chains {
		for j := range rules.Chains[i].Rules {
			if name, _ := loggedIn(&rules.Chains[i].Rules[j]); logs && name != "" {
				out[name] = true
			}
		}
	}
	return out
}

// amendSet takes out of a set what is not in it any more, and puts in what is new.
func (b *batch) amendSet(was, now *vpc.AddrSet) error {
	if was.Family != now.Family || was.Interval != now.Interval {
		return errNotAmended
	}
	if now.Interval {
		if !slices.Equal(was.Ranges, now.Ranges) {
			return errNotAmended // ranges that grow overlap with themselves
		}
		return nil
	}
	difference := func(all, without []netip.Addr) (out []nftables.SetElement) {
		for _, a := range all {
			if _, found := slices.BinarySearchFunc(without, a, netip.Addr.Compare); !found {
				out = append(out, nftables.SetElement{Key: a.AsSlice()})
			}
		}
		return out
	}
	if less := difference(was.Addrs, now.Addrs); len(less) > 0 {
		b.steps++
		if err := b.c.SetDeleteElements(b.sets[now.Name], less); err != nil {
			return fmt.Errorf("take out of set %s: %w", now.Name, err)
		}
	}
	if more := difference(now.Addrs, was.Addrs); len(more) > 0 {
		b.steps++
		if err := b.c.SetAddElements(b.sets[now.Name], more); err != nil {
			return fmt.Errorf("add to set %s: %w", now.Name, err)
		}
	}
	return nil
}

// amendChain exchanges the rules between those that both have at the beginning and those that both have at the end.
func (b *batch) amendChain(f filter, was, now *vpc.Chain) error {
	same := func(i, j int) bool { return reflect.DeepEqual(&was.Rules[i], &now.Rules[j]) }
	first := 0
	for first < len(was.Rules) && first < len(now.Rules) && same(first, first) {
		first++
	}
	last := 0 // so many are the same at the end
	for last < len(was.Rules)-first && last < len(now.Rules)-first && same(len(was.Rules)-1-last, len(now.Rules)-1-last) {
		last++
	}
	if first+last == len(was.Rules) && first+last == len(now.Rules) {
		return nil
	}
	before := uint64(0) // the end
	if len(was.Rules) > 0 {
		handles, err := f.handles(was.Name)
		if err != nil {
			return err
		}
		if len(handles) != len(was.Rules) {
			return errNotAmended // somebody else was here
		}
		if last > 0 {
			before = handles[len(handles)-last]
		}
		for _, h := range handles[first : len(handles)-last] {
			b.steps++
			if err := b.c.DelRule(&nftables.Rule{Table: b.t, Chain: &nftables.Chain{Name: was.Name, Table: b.t}, Handle: h}); err != nil {
				return fmt.Errorf("delete rule: %w", err)
			}
		}
	}
	for i := first; i < len(now.Rules)-last; i++ {
		if err := b.addRule(now.Name, &now.Rules[i], before); err != nil {
			return err
		}
	}
	return nil
}

// handles are the kernel's numbers of a chain's rules, in their order.
func (f filter) handles(chain string) ([]uint64, error) {
	s, err := dialNetfilter(f.ns, nfDatagram)
	if err != nil {
		return nil, fmt.Errorf("open packet filter: %w", err)
	}
	defer s.close()
	var of []byte
	of = nfAttribute(of, unix.NFTA_RULE_TABLE, []byte(tableName+"\x00"))
	of = nfAttribute(of, unix.NFTA_RULE_CHAIN, []byte(chain+"\x00"))
	var out []uint64
	err = s.exchange(filterPatience, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, unix.NFPROTO_INET, 0, of,
		func(_ uint16, _ byte, attributes []byte) {
			nfAttributes(attributes, func(typ uint16, data []byte) {
				if typ == unix.NFTA_RULE_HANDLE && len(data) == 8 {
					out = append(out, binary.BigEndian.Uint64(data))
				}
			})
		})
	if err != nil {
		return nil, fmt.Errorf("read chain %s: %w", chain, err)
	}
	return out, nil
}
