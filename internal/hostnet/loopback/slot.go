package loopback

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"net"
	"net/netip"
	"syscall"

	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// A slot is a /16 of 127.0.0.0/8, named by the second octet, that plays a VPC.
type slot struct {
	number uint8
	cidr   netip.Prefix // of the VPC
	claim  net.Listener // keeps other processes of ours from choosing it
}

// The pool of slots: 127.80.0.0/16 to 127.239.0.0/16.
const (
	firstSlot = 80
	slotCount = 160
)

// record is the document that remembers a VPC's slot.
type record struct {
	VPC  vpc.VPCID `json:"vpc"`
	Slot uint8     `json:"slot"`
}

// KindNetwork is the kind of the documents that remember which /16 plays which VPC.
const KindNetwork state.Kind = "loopback-network"

func records() state.Table[record] {
	return state.Table[record]{Kind: KindNetwork, ID: func(r *record) string { return string(r.VPC) }}
}

func slotPrefix(number uint8) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{127, number, 0, 0}), 16)
}

// dialAddr is where an address of a VPC listens.
func dialAddr(number uint8, private netip.Addr) netip.Addr {
	return vpc.Rebase(private, slotPrefix(number))
}

// lastAddr is the last address of a slot: reserved in every subnet that could hold it, so no interface ever has it.
func lastAddr(number uint8) netip.Addr { return netip.AddrFrom4([4]byte{127, number, 255, 255}) }

// claimSlot takes a slot for this process; it falls back to the machine when the process ends, however it ends.
// The name is abstract, so it is of this network namespace, as 127.0.0.0/8 is.
func (d *Driver) claimSlot(number uint8) (net.Listener, error) {
	return d.listen("unix", fmt.Sprintf("@penstock-loopback-127.%d", number))
}

// settleSlots gives every VPC of the snapshot its slot, the remembered one where it is free, and forgets those of VPCs that are gone.
func (d *Driver) settleSlots(ctx context.Context, s *vpc.Snapshot) error {
	present := map[vpc.VPCID]netip.Prefix{}
	for _, id := range s.VPCs() {
		present[id], _ = s.HasVPC(id)
	}
	d.mu.Lock()
	settled := len(present) == len(d.slots)
	for id := range present {
		settled = settled && d.slots[id] != nil
	}
	d.mu.Unlock()
	if settled {
		return nil
	}

	remembered := map[vpc.VPCID]uint8{}
	if err := d.cfg.Store.View(ctx, func(r state.Reader) error {
		clear(remembered)
		all, err := records().List(r, state.Query{})
		for _, rec := range all {
			remembered[rec.VPC] = rec.Slot
		}
		return err
	}); err != nil {
		return fmt.Errorf("read loopback networks: %w", err)
	}
	reserved := map[uint8]bool{} // remembered by VPCs that are still there
	for id, number := range remembered {
		if _, ok := present[id]; ok {
			reserved[number] = true
		}
	}
	for _, id := range s.VPCs() {
		d.mu.Lock()
		have := d.slots[id] != nil
		d.mu.Unlock()
		if have {
			continue
		}
		claimed, err := d.chooseSlot(remembered[id], reserved)
		if err != nil {
			return err
		}
		claimed.cidr = present[id]
		d.mu.Lock()
		d.slots[id] = claimed
		d.mu.Unlock()
	}
	d.mu.Lock()
	var freed []*slot
	for id, s := range d.slots {
		if _, ok := present[id]; !ok {
			delete(d.slots, id)
			freed = append(freed, s)
		}
	}
	d.mu.Unlock()
	if err := d.remember(ctx); err != nil {
		return err
	}
	for _, s := range freed {
		_ = s.claim.Close() // whoever takes it next finds out by claiming
	}
	return nil
}

// chooseSlot claims the preferred slot, or the first free one from where this data directory begins.
func (d *Driver) chooseSlot(preferred uint8, reserved map[uint8]bool) (*slot, error) {
	h := fnv.New32a()
	_, _ = h.Write([]byte(d.cfg.Spread)) // a hash does not fail
	begin := int(h.Sum32() % slotCount)
	numbers := make([]uint8, 0, slotCount+1)
	if preferred >= firstSlot && int(preferred) < firstSlot+slotCount {
		numbers = append(numbers, preferred)
	}
	for i := range slotCount {
		if n := uint8(firstSlot + (begin+i)%slotCount); !reserved[n] {
			numbers = append(numbers, n)
		}
	}
	for _, n := range numbers {
		claim, err := d.claimSlot(n)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("claim %s: %w", slotPrefix(n), err)
		}
		return &slot{number: n, claim: claim}, nil
	}
	return nil, fmt.Errorf("no /16 of 127.%d.0.0 to 127.%d.0.0 is free", firstSlot, firstSlot+slotCount-1)
}

// moveSlot exchanges a VPC's slot for one that is not among the taken.
func (d *Driver) moveSlot(ctx context.Context, id vpc.VPCID, taken map[uint8]bool) error {
	d.mu.Lock()
	old := d.slots[id]
	reserved := maps.Clone(taken)
	for _, s := range d.slots {
		reserved[s.number] = true
	}
	d.mu.Unlock()
	next, err := d.chooseSlot(0, reserved)
	if err != nil {
		return err
	}
	next.cidr = old.cidr
	d.mu.Lock()
	d.slots[id] = next
	d.mu.Unlock()
	if err := d.remember(ctx); err != nil {
		return err
	}
	return old.claim.Close()
}

// remember writes the slots in use and forgets all others.
func (d *Driver) remember(ctx context.Context) error {
	d.mu.Lock()
	now := make(map[vpc.VPCID]uint8, len(d.slots))
	for id, s := range d.slots {
		now[id] = s.number
	}
	d.mu.Unlock()
	_, err := d.cfg.Store.Update(ctx, func(tx state.Tx) error {
		all, err := records().List(tx, state.Query{})
		if err != nil {
			return err
		}
		for _, r := range all {
			if _, ok := now[r.VPC]; !ok {
				if err := records().Delete(tx, string(r.VPC)); err != nil {
					return err
				}
			}
		}
		for id, n := range now {
			if err := records().Put(tx, &record{VPC: id, Slot: n}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remember loopback networks: %w", err)
	}
	return nil
}
