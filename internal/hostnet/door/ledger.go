package door

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"penstock.dev/penstock/internal/vpc"
)

// MaxFlows bounds the flows of one interface that a Ledger keeps between two calls of Take, and maxAllFlows those of all.
const (
	MaxFlows    = 65536
	maxAllFlows = 2 * MaxFlows
)

// Ledger sums up what passed and what was rejected at interfaces. All methods may be called concurrently.
type Ledger struct {
	keep time.Duration

	mu    sync.Mutex
	pages map[vpc.NetworkInterfaceID]*page
	size  int
	began time.Time
}

// page is the traffic of one interface.
type page struct {
	flows   map[flowKey]*tally
	skipped uint64
}

type flowKey struct {
	src, dst netip.AddrPort
	protocol vpc.Protocol
	rejected bool
}

type tally struct {
	packets, bytes uint64
	first, last    time.Time
}

// NewLedger makes an empty ledger. keep is after how long it forgets when nobody takes from it; 0: never.
func NewLedger(keep time.Duration) *Ledger {
	return &Ledger{keep: keep, pages: map[vpc.NetworkInterfaceID]*page{}}
}

// Add counts traffic of a flow. It says whether the flow is the first one with its ends and its fate since Take, and is kept:
// what tells people of flows tells them once. Where there is no room the packets are counted as skipped.
func (l *Ledger) Add(at vpc.NetworkInterfaceID, f vpc.FlowCount) (first bool) {
	key := flowKey{f.Src, f.Dst, f.Protocol, f.Rejected}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.keep > 0 && f.Last.Sub(l.began) > l.keep {
		l.pages, l.size, l.began = map[vpc.NetworkInterfaceID]*page{}, 0, f.Last
	}
	p := l.page(at)
	t := p.flows[key]
	if t == nil {
		if len(p.flows) >= MaxFlows || l.size >= maxAllFlows {
			p.skipped += f.Packets
			return false
		}
		t = &tally{first: f.First, last: f.Last}
		p.flows[key] = t
		l.size++
		first = true
	}
	t.packets += f.Packets
	t.bytes += f.Bytes
	if f.First.Before(t.first) {
		t.first = f.First
	}
	if f.Last.After(t.last) {
		t.last = f.Last
	}
	return first
}

// Skip counts what was seen and cannot be added.
func (l *Ledger) Skip(at vpc.NetworkInterfaceID, packets uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.page(at).skipped += packets
}

func (l *Ledger) page(at vpc.NetworkInterfaceID) *page {
	p := l.pages[at]
	if p == nil {
		p = &page{flows: map[flowKey]*tally{}}
		l.pages[at] = p
	}
	return p
}

// Take returns what was added since the call before, with a page for each interface that there is, and forgets it.
func (l *Ledger) Take(interfaces []vpc.NetworkInterfaceID) []vpc.InterfaceFlows {
	l.mu.Lock()
	pages := l.pages
	l.pages, l.size = make(map[vpc.NetworkInterfaceID]*page, len(interfaces)), 0
	l.mu.Unlock()
	for _, id := range interfaces {
		if pages[id] == nil {
			pages[id] = &page{}
		}
	}
	out := make([]vpc.InterfaceFlows, 0, len(pages))
	for id, p := range pages {
		i := vpc.InterfaceFlows{Interface: id, Skipped: p.skipped, Flows: make([]vpc.FlowCount, 0, len(p.flows))}
		for k, t := range p.flows {
			i.Flows = append(i.Flows, vpc.FlowCount{
				Src: k.src, Dst: k.dst, Protocol: k.protocol, Rejected: k.rejected,
				Packets: t.packets, Bytes: t.bytes, First: t.first, Last: t.last,
			})
		}
		slices.SortFunc(i.Flows, func(a, b vpc.FlowCount) int {
			return cmp.Or(a.First.Compare(b.First), a.Src.Compare(b.Src), a.Dst.Compare(b.Dst))
		})
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b vpc.InterfaceFlows) int { return cmp.Compare(a.Interface, b.Interface) })
	return out
}
