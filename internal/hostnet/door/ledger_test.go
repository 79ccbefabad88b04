package door

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"penstock.dev/penstock/internal/vpc"
)

func flow(port uint16, packets uint64, at time.Time) vpc.FlowCount {
	return vpc.FlowCount{
		Src: netip.AddrPortFrom(netip.MustParseAddr("192.168.0.7"), port), Dst: netip.MustParseAddrPort("10.0.1.10:443"), Protocol: vpc.TCP,
		Packets: packets, Bytes: packets * 60, First: at, Last: at.Add(time.Second),
	}
}

func TestLedgerSumsUp(t *testing.T) {
	t.Parallel()
	l := NewLedger(0)
	at := time.Unix(1000, 0)
	if !l.Add("eni-b", flow(1, 2, at)) || l.Add("eni-b", flow(1, 3, at.Add(-time.Minute))) || l.Add("eni-b", flow(1, 1, at.Add(time.Minute))) {
		t.Error("a flow is told of other than once")
	}
	rejected := flow(1, 1, at)
	rejected.Rejected = true
	if !l.Add("eni-b", rejected) || !l.Add("eni-c", flow(1, 7, at)) {
		t.Error("a flow with another fate, or of another interface, is not told of")
	}
	l.Skip("eni-d", 5)
	got := l.Take([]vpc.NetworkInterfaceID{"eni-a", "eni-b"})
	sum := flow(1, 6, at.Add(-time.Minute))
	sum.Last = at.Add(time.Minute + time.Second)
	want := []vpc.InterfaceFlows{
		{Interface: "eni-a"},
		{Interface: "eni-b", Flows: []vpc.FlowCount{sum, rejected}},
		{Interface: "eni-c", Flows: []vpc.FlowCount{flow(1, 7, at)}},
		{Interface: "eni-d", Skipped: 5},
	}
	if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.EquateEmpty()); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if got := l.Take(nil); len(got) != 0 {
		t.Errorf("taken twice: %+v", got)
	}
	if !l.Add("eni-b", flow(1, 1, at)) {
		t.Error("a flow is not told of again after it was taken")
	}
}

func TestLedgerIsBounded(t *testing.T) {
	t.Parallel()
	l := NewLedger(0)
	at := time.Unix(1000, 0)
	for _, id := range []vpc.NetworkInterfaceID{"eni-a", "eni-b", "eni-c"} {
		for k := range MaxFlows + 10 {
			f := flow(uint16(k), 1, at)
			f.Dst = netip.AddrPortFrom(f.Dst.Addr(), uint16(k>>16))
			if first := l.Add(id, f); first != (k < MaxFlows && id != "eni-c") {
				t.Fatalf("flow %d of %s: %t", k, id, first)
			}
		}
	}
	there := flow(7, 100, at)
	there.Dst = netip.AddrPortFrom(there.Dst.Addr(), 0)
	l.Add("eni-a", there) // one that is there goes on
	got := l.Take(nil)
	if len(got) != 3 || len(got[0].Flows) != MaxFlows || got[0].Skipped != 10 || len(got[1].Flows) != MaxFlows || len(got[2].Flows) != 0 || got[2].Skipped != MaxFlows+10 {
		t.Fatalf("%d interfaces: %d flows and %d skipped, %d and %d, %d and %d", len(got),
			len(got[0].Flows), got[0].Skipped, len(got[1].Flows), got[1].Skipped, len(got[2].Flows), got[2].Skipped)
	}
}

func TestLedgerForgetsWhatNobodyTakes(t *testing.T) {
	t.Parallel()
	l := NewLedger(time.Minute)
	at := time.Unix(1000, 0)
	if !l.Add("eni-a", flow(1, 1, at)) || l.Add("eni-a", flow(1, 1, at.Add(time.Minute-2*time.Second))) {
		t.Error("within the time a flow is told of other than once")
	}
	if !l.Add("eni-a", flow(1, 1, at.Add(2*time.Minute))) {
		t.Error("after the time a flow is not told of")
	}
	if got := l.Take(nil); len(got) != 1 || got[0].Flows[0].Packets != 1 {
		t.Errorf("taken: %+v", got)
	}
}

func TestLedgerLosesNothing(t *testing.T) {
	t.Parallel()
	l := NewLedger(0)
	const writers, each = 4, 5000
	var work sync.WaitGroup
	for w := range writers {
		work.Go(func() {
			for k := range each {
				l.Add("eni-a", flow(uint16(w*50+k%50), 1, time.Unix(1000, 0)))
			}
		})
	}
	done := make(chan struct{})
	go func() { work.Wait(); close(done) }()
	total := uint64(0)
	for ended := false; !ended; {
		select {
		case <-done:
			ended = true
		default:
		}
		for _, i := range l.Take(nil) {
			for _, f := range i.Flows {
				total += f.Packets
			}
		}
	}
	if total != writers*each {
		t.Errorf("%d packets were taken, %d added", total, writers*each)
	}
}
