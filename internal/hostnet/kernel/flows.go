package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/hostnet/door"
	"penstock.dev/penstock/internal/vpc"
)

// maxTracked bounds the connections of a VPC whose counters are remembered between two looks; more are skipped.
const maxTracked = 131072

// watch is what the kernel tells of the packets of one VPC: what the rules dropped, by the packet log, and what passed, by
// connection tracking.
type watch struct {
	d *Driver
	n *network

	log  *packetLog // nil: this kernel has none, so drops are told of by counters alone
	ends *nfSocket  // nil: connection tracking does not count, or nobody asks it to

	mu      sync.Mutex
	left    map[netip.Addr]vpc.NetworkInterfaceID      // that left since Flows was called
	dropped map[string]map[vpc.NetworkInterfaceID]bool // by rules since then, at these interfaces
	counted map[uint32]*counted                        // by the number of the connection
	gone    map[uint32]bool                            // that ended while connection tracking is read; nil: it is not
	beyond  map[string]uint64                          // packets that rules dropped and did not log, as last read
	lost    uint64                                     // messages that the kernel had no room for
	looked  time.Time                                  // when connection tracking was read last
	round   uint32                                     // of readings
}

// counted is what was told of a connection already.
type counted struct {
	in, out traffic
	round   uint32
}

// watchNetwork begins to watch a VPC's namespace. What the kernel does not offer is logged and done without.
func (d *Driver) watchNetwork(n *network) {
	w := &watch{d: d, n: n, counted: map[uint32]*counted{}, looked: time.Now()}
	w.forget()
	var err error
	if w.log, err = openPacketLog(n.ns); err != nil {
		d.log.Warn("dropped packets cannot be told of one by one", "vpc", n.id, "error", err)
	} else {
		d.work.Go(w.readLog)
	}
	if d.cfg.Meter && !d.untracked {
		if w.ends, err = openEnds(n.ns); err != nil {
			d.log.Warn("traffic is counted by sockets, not by connection tracking", "vpc", n.id, "error", err)
		} else {
			d.work.Go(w.readEnds)
		}
	}
	n.watch = w
}

// tracks says whether connection tracking counts what passes.
func (w *watch) tracks() bool { return w.ends != nil }

func (w *watch) close() {
	if w.log != nil {
		w.log.close()
	}
	if w.ends != nil {
		w.ends.close()
	}
}

// forget begins another interval. The caller holds mu, or nobody else has w.
func (w *watch) forget() {
	w.left = map[netip.Addr]vpc.NetworkInterfaceID{}
	w.dropped = map[string]map[vpc.NetworkInterfaceID]bool{}
}

// at finds the interface that has an address or had it in this interval. i is nil when it left.
func (w *watch) at(a netip.Addr) (id vpc.NetworkInterfaceID, i *door.Interface) {
	w.d.mu.Lock()
	if known := w.n.interfaces[a]; known != nil {
		i = known.Interface
	}
	w.d.mu.Unlock()
	if i != nil {
		return i.ID, i
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.left[a], nil
}

// readLog takes note of dropped packets until the log is closed.
func (w *watch) readLog() {
	for {
		lost, err := w.log.read(w.noteLogged)
		if errors.Is(err, unix.ENOBUFS) {
			lost, err = lost+1, nil
		}
		if lost > 0 {
			w.mu.Lock()
			w.lost += lost
			w.mu.Unlock()
		}
		if err != nil {
			w.ended("packet log", err)
			return
		}
	}
}

// readEnds takes note of connections that ended until the socket is closed.
func (w *watch) readEnds() {
	for {
		_, err := w.ends.receive(func(typ uint16, _ byte, attributes []byte) {
			if typ != trackDelete {
				return
			}
			if t, ok := parseTracked(attributes); ok {
				w.noteTracked(t, time.Now(), true)
			}
		})
		if errors.Is(err, unix.ENOBUFS) {
			w.mu.Lock()
			w.lost++
			w.mu.Unlock()
			continue
		}
		if err != nil {
			w.ended("connection tracking", err)
			return
		}
	}
}

// ended says why reading ended, unless that is because the network is closed.
func (w *watch) ended(what string, err error) {
	w.d.mu.Lock()
	closed := w.d.networks[w.n.id] != w.n
	w.d.mu.Unlock()
	if !closed && !w.d.door.Closed() {
		w.d.log.Error("the kernel's messages could not be read any more", "vpc", w.n.id, "of", what, "error", err)
	}
}

// noteLogged counts a packet that a rule logged, and tells of the connection that it was to begin.
func (w *watch) noteLogged(l logged) {
	p, now := &l.packet, time.Now()
	inbound := true
	id, at := w.at(p.dst.Addr())
	if id == "" {
		inbound = false
		id, at = w.at(p.src.Addr())
	}
	if id == "" {
		return // of no interface: not what flow logs are about
	}
	f := vpc.FlowCount{Src: p.src, Dst: p.dst, Protocol: p.protocol, Rejected: true, Packets: 1, Bytes: p.bytes, First: now, Last: now}
	connection := vpc.Flow{VPC: w.n.id, Src: p.src, Dst: p.dst, Protocol: p.protocol}
	if !inbound {
		connection.Src, connection.Dst = p.dst, p.src
	}
	if other, _ := w.at(connection.Src.Addr()); other != "" {
		connection.SrcVPC = w.n.id
	}
	if isListenerRule(l.rule) { // accepted by the rules, and answered with a reset because nothing listens
		f.Rejected = false
		w.d.ledger.Add(id, f)
		if w.d.snapshot.Load().Explain(connection).Symptom == vpc.Refused { // and the answer comes back
			f.Src, f.Dst, f.Bytes = f.Dst, f.Src, p.resetSize()
			w.d.ledger.Add(id, f)
		}
		return
	}
	w.hit(l.rule, id)
	first := w.d.ledger.Add(id, f)
	if first && at != nil && !w.d.cfg.Quiet && (inbound && p.opens() || !inbound && p.answers()) {
		w.d.door.Refuse(at, connection, w.verdict(connection, l.rule))
	}
}

// hit remembers that a rule dropped packets at an interface.
func (w *watch) hit(rule string, id vpc.NetworkInterfaceID) {
	if !w.d.cfg.Meter {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	at := w.dropped[rule]
	if at == nil {
		at = map[vpc.NetworkInterfaceID]bool{}
		w.dropped[rule] = at
	}
	at[id] = true
}

// verdict is what the evaluator says of a connection that a rule dropped. Rules may have changed meanwhile: then the one that
// dropped it is named alone.
func (w *watch) verdict(f vpc.Flow, rule string) vpc.Verdict {
	v := w.d.snapshot.Load().Explain(f)
	if h := v.Blocked(); h != nil && h.Identity() == rule {
		return v
	}
	part := append(strings.SplitN(rule, ":", 3), "", "", "")
	h := vpc.Hop{Dir: vpc.Forward, Kind: vpc.HopKind(part[0]), Resource: part[1], Rule: part[2], Why: "dropped by " + rule}
	if h.Kind == vpc.HopReturnRoute || h.Kind == vpc.HopNetworkACLOut {
		h.Dir = vpc.Return
	}
	return vpc.Verdict{Symptom: vpc.Timeout, Hops: []vpc.Hop{h}}
}

// noteTracked counts what passed on a connection since it was looked at last.
func (w *watch) noteTracked(t tracked, now time.Time, ended bool) {
	if isProbe(t.src.Addr()) || isProbe(t.dst.Addr()) {
		return // a check
	}
	id, _ := w.at(t.dst.Addr())
	if id == "" {
		id, _ = w.at(t.src.Addr())
	}
	in, out, first, ok := w.since(t, ended)
	switch {
	case id == "": // of no interface
		return
	case !ok:
		w.d.ledger.Skip(id, 1)
		return
	}
	if t.started.After(first) {
		first = t.started
	}
	if first.After(now) {
		first = now
	}
	if in.packets > 0 {
		w.d.ledger.Add(id, vpc.FlowCount{Src: t.src, Dst: t.dst, Protocol: t.protocol, Packets: in.packets, Bytes: in.bytes, First: first, Last: now})
	}
	if out.packets > 0 {
		w.d.ledger.Add(id, vpc.FlowCount{Src: t.dst, Dst: t.src, Protocol: t.protocol, Packets: out.packets, Bytes: out.bytes, First: first, Last: now})
	}
}

// isProbe says whether an address is the one that checks come from.
func isProbe(a netip.Addr) bool { return a == probeAddr(vpc.FamilyOf(a)) }

// since is what passed on a connection since it was looked at, and when that was; false when there is no room to remember it.
func (w *watch) since(t tracked, ended bool) (in, out traffic, looked time.Time, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.counted[t.id]
	switch {
	case c != nil:
	case ended:
		c = &counted{}
	case w.gone[t.id]: // what is read is older than its end, which was counted
		return in, out, w.looked, true
	case len(w.counted) >= maxTracked:
		return in, out, w.looked, false
	default:
		c = &counted{}
		w.counted[t.id] = c
	}
	in, out = t.in.since(c.in), t.out.since(c.out)
	c.in, c.out, c.round = t.in, t.out, w.round
	if ended {
		delete(w.counted, t.id)
		if w.gone != nil {
			w.gone[t.id] = true
		}
	}
	return in, out, w.looked, true
}

// look reads connection tracking and the counters of what was not logged. The caller holds Driver.applying.
func (w *watch) look() error {
	var errs []error
	if w.tracks() {
		now := time.Now()
		w.mu.Lock()
		w.round++
		w.gone = map[uint32]bool{}
		round := w.round
		w.mu.Unlock()
		errs = append(errs, dumpTracked(w.n.ns, func(t tracked) { w.noteTracked(t, now, false) }))
		w.mu.Lock()
		w.looked, w.gone = now, nil
		for id, c := range w.counted { // whose end was not told of
			if round-c.round > 2 {
				delete(w.counted, id)
			}
		}
		w.mu.Unlock()
	}
	return errors.Join(append(errs, w.lookBeyond())...)
}

// lookBeyond finds out what rules dropped beyond the rate at which they log. The caller holds Driver.applying.
func (w *watch) lookBeyond() error {
	if !w.n.logs || w.n.generation == 0 {
		return nil
	}
	now, err := filter{w.n.ns}.unlogged(w.n.rules)
	if err != nil {
		return fmt.Errorf("read what was not logged: %w", err)
	}
	for rule, packets := range now {
		w.mu.Lock()
		more := packets - w.beyond[rule]
		var at []vpc.NetworkInterfaceID
		for id := range w.dropped[rule] {
			at = append(at, id)
		}
		w.mu.Unlock()
		if more == 0 {
			continue
		}
		for _, id := range at { // the counter is the rule's: which of them it was is not known
			w.d.ledger.Skip(id, more)
		}
	}
	w.mu.Lock()
	w.beyond = now
	w.mu.Unlock()
	return nil
}

// replaced forgets counters that began again with other rules.
func (w *watch) replaced() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.beyond = nil
}

// amended forgets counters of rules that went. The others go on.
func (w *watch) amended(rules vpc.Ruleset) {
	stays := logChains(rules, true)
	w.mu.Lock()
	defer w.mu.Unlock()
	for rule := range w.beyond {
		if !stays[logChainName(rule)] {
			delete(w.beyond, rule)
		}
	}
}

// leave remembers an interface that goes, for what is told of it later. The caller holds Driver.mu.
func (w *watch) leave(a netip.Addr, id vpc.NetworkInterfaceID) {
	if !w.d.cfg.Meter {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left[a] = id
}

// Flows is what passed, by connection tracking, and what the rules dropped, by the log of packets.
func (d *Driver) Flows(context.Context) ([]vpc.InterfaceFlows, error) {
	if !d.cfg.Meter {
		return nil, errors.New("flows: the network is not metered")
	}
	d.applying.Lock()
	defer d.applying.Unlock()
	d.door.Sample()
	var ids []vpc.NetworkInterfaceID
	for _, n := range d.networks {
		here := n.ids()
		lost := d.lookAt(n)
		n.watch.mu.Lock()
		lost += n.watch.lost
		n.watch.lost = 0
		n.watch.forget()
		n.watch.mu.Unlock()
		if lost > 0 { // whose packets they were is not known
			for _, id := range here {
				d.ledger.Skip(id, lost)
			}
		}
		ids = append(ids, here...)
	}
	return d.ledger.Take(ids), nil
}

// lookAt reads what the kernel counted in a VPC. What cannot be read is logged; lost is then not 0. The caller holds Driver.applying.
func (d *Driver) lookAt(n *network) (lost uint64) {
	if !d.cfg.Meter {
		return 0
	}
	if err := n.watch.look(); err != nil {
		d.log.Warn("traffic could not be counted", "vpc", n.id, "error", err)
		return 1
	}
	return 0
}

// ids are the interfaces of a network. The caller holds Driver.applying.
func (n *network) ids() []vpc.NetworkInterfaceID {
	out := make([]vpc.NetworkInterfaceID, 0, len(n.interfaces))
	for _, i := range n.interfaces {
		out = append(out, i.ID)
	}
	slices.Sort(out)
	return slices.Compact(out) // an interface may have more than one address
}
