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

// A slot is a /16 of 127.0.0.0/8, named by the second octet, that plays an IPv4 block of a VPC.
type slot struct {
	number uint8
	claim  net.Listener // keeps other processes of ours from choosing it
}

// played is what a slot plays.
type played struct {
	vpc   vpc.VPCID
	block netip.Prefix
}

// slotOf is the slot in which an address of a VPC is, and what it plays. The caller holds mu.
func (d *Driver) slotOf(id vpc.VPCID, a netip.Addr) (played, *slot) {
	for of, s := range d.slots {
		if of.vpc == id && of.block.Contains(a) {
			return of, s
		}
	}
	return played{}, nil
}

// The pool of slots: 127.80.0.0/16 to 127.239.0.0/16.
const (
	firstSlot = 80
	slotCount = 160
)

// record is the document that remembers the slot of a VPC's block.
type record struct {
	VPC   vpc.VPCID    `json:"vpc"`
	Block netip.Prefix `json:"block,omitzero"` // zero: the VPC's first one
	Slot  uint8        `json:"slot"`
}

// KindNetwork is the kind of the documents that remember which /16 plays which VPC.
const KindNetwork state.Kind = "loopback-network"

func records() state.Table[record] {
	return state.Table[record]{Kind: KindNetwork, ID: func(r *record) string {
		if r.Block.IsValid() {
			return string(r.VPC) + " " + r.Block.String()
		}
		return string(r.VPC)
	}}
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

// settleSlots gives every IPv4 block of every VPC of the snapshot its slot, the remembered one where it is free, and forgets
// those of what is gone. These are to be freed when nothing listens on them any more.
func (d *Driver) settleSlots(ctx context.Context, s *vpc.Snapshot) (freed []*slot, err error) {
	var order []played
	first := map[played]bool{}
	for _, id := range s.VPCs() {
		for i, b := range s.Blocks(id) {
			if b.Addr().Is4() {
				order = append(order, played{id, b})
				first[played{id, b}] = i == 0
			}
		}
	}
	d.mu.Lock()
	settled := len(order) == len(d.slots)
	for _, of := range order {
		settled = settled && d.slots[of] != nil
	}
	d.mu.Unlock()
	if settled {
		return nil, nil
	}

	remembered := map[played]uint8{}
	if err := d.cfg.Store.View(ctx, func(r state.Reader) error {
		clear(remembered)
		all, err := records().List(r, state.Query{})
		for _, rec := range all {
			remembered[played{rec.VPC, rec.Block}] = rec.Slot
		}
		return err
	}); err != nil {
		return nil, fmt.Errorf("read loopback networks: %w", err)
	}
	had := func(of played) uint8 {
		if first[of] {
			of.block = netip.Prefix{}
		}
		return remembered[of]
	}
	reserved := map[uint8]bool{} // remembered by blocks that are still there
	for _, of := range order {
		reserved[had(of)] = true
	}
	for _, of := range order {
		d.mu.Lock()
		have := d.slots[of] != nil
		d.mu.Unlock()
		if have {
			continue
		}
		claimed, err := d.chooseSlot(had(of), reserved)
		if err != nil {
			return nil, err
		}
		d.mu.Lock()
		d.slots[of] = claimed
		d.mu.Unlock()
	}
	d.mu.Lock()
	for of, s := range d.slots {
		if _, ok := first[of]; !ok {
			delete(d.slots, of)
			freed = append(freed, s)
		}
	}
	d.mu.Unlock()
	return freed, d.remember(ctx, s)
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

// moveSlot exchanges the slot of a block for one that is not among the taken.
func (d *Driver) moveSlot(ctx context.Context, s *vpc.Snapshot, of played, taken map[uint8]bool) error {
	d.mu.Lock()
	old := d.slots[of]
	reserved := maps.Clone(taken)
	for _, s := range d.slots {
		reserved[s.number] = true
	}
	d.mu.Unlock()
	next, err := d.chooseSlot(0, reserved)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.slots[of] = next
	d.mu.Unlock()
	if err := d.remember(ctx, s); err != nil {
		return err
	}
	return old.claim.Close()
}

// remember writes the slots in use and forgets all others.
func (d *Driver) remember(ctx context.Context, s *vpc.Snapshot) error {
	now := map[string]*record{}
	d.mu.Lock()
	for of, slot := range d.slots {
		r := &record{VPC: of.vpc, Block: of.block, Slot: slot.number}
		if first, _ := s.HasVPC(of.vpc); first == of.block {
			r.Block = netip.Prefix{}
		}
		now[records().ID(r)] = r
	}
	d.mu.Unlock()
	_, err := d.cfg.Store.Update(ctx, func(tx state.Tx) error {
		all, err := records().List(tx, state.Query{})
		if err != nil {
			return err
		}
		for _, r := range all {
			if id := records().ID(r); now[id] == nil {
				if err := records().Delete(tx, id); err != nil {
					return err
				}
			}
		}
		for _, r := range now {
			if err := records().Put(tx, r); err != nil {
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
