package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/flowlog"
	"penstock.dev/penstock/internal/vpc"
	"penstock.dev/penstock/internal/vpc/vpctest"
	wire "penstock.dev/penstock/internal/wire/flowlog"
)

// counts sums up what a driver tells of one direction.
type counts struct {
	flows          int
	packets, bytes uint64
}

// metered is a lane whose flows are summed up over all calls.
type metered struct {
	*lane
	told    []vpc.InterfaceFlows
	skipped uint64
	r       *refusals
}

func newMetered(t *testing.T) *metered {
	t.Helper()
	u := newUsers(t)
	d, r := start(t, u, Config{Meter: true})
	m := &metered{lane: &lane{t: t, u: u, d: d, n: vpctest.NewNetwork(77)}, r: r}
	m.apply()
	return m
}

func (m *metered) take() []vpc.InterfaceFlows {
	m.t.Helper()
	got, err := m.d.Flows(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	for _, i := range got {
		m.skipped += i.Skipped
	}
	m.told = append(m.told, got...)
	return got
}

func (m *metered) count(which func(vpc.FlowCount) bool) (c counts) {
	for _, i := range m.told {
		for _, f := range i.Flows {
			if which(f) {
				c.flows++
				c.packets += f.Packets
				c.bytes += f.Bytes
			}
		}
	}
	return c
}

// TestFlowsAreExact compares what is told with what the client's socket counted, to the packet and the byte. Words are small and go one
// by one, so that nothing is put together on its way.
func TestFlowsAreExact(t *testing.T) {
	t.Parallel()
	m := newMetered(t)
	user, served := m.connects(anyPort(officeAddr), 0, 1410)
	for range 150 {
		m.flows(user, served)
	}
	raw, err := user.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	await(t, "agreement with the client's socket", func() bool {
		if cerr := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); cerr != nil || err != nil {
			t.Fatal(cerr, err)
		}
		m.take()
		in := m.count(func(f vpc.FlowCount) bool { return f.Dst == m.n.At(0, 1410) && !f.Rejected })
		return in.packets >= uint64(info.Segs_out)
	})
	in := m.count(func(f vpc.FlowCount) bool { return f.Dst == m.n.At(0, 1410) && !f.Rejected })
	out := m.count(func(f vpc.FlowCount) bool { return f.Src == m.n.At(0, 1410) && !f.Rejected })
	const opening, header = 20 + 20 + 20, 20 + 20 + 12 // IPv4, TCP, options
	wantIn := counts{in.flows, uint64(info.Segs_out), info.Bytes_sent + opening + uint64(info.Segs_out-1)*header}
	wantOut := counts{out.flows, uint64(info.Segs_in), info.Bytes_received + opening + uint64(info.Segs_in-1)*header}
	if in != wantIn || out != wantOut {
		t.Errorf("told: %+v and %+v; the client's socket: %+v and %+v", in, out, wantIn, wantOut)
	}
	if info.Bytes_sent != 150*5 || in.flows < 1 {
		t.Errorf("the client sent %d bytes in %d flows", info.Bytes_sent, in.flows)
	}

	// The end comes after the last look, and by an event: closing is told of too.
	_ = errors.Join(user.Close(), served.Close()) // both ends of it are ours
	await(t, "the closing", func() bool {
		m.take()
		return m.count(func(f vpc.FlowCount) bool { return f.Dst == m.n.At(0, 1410) }).packets >= in.packets+2
	})
	closed := m.count(func(f vpc.FlowCount) bool { return f.Dst == m.n.At(0, 1410) })
	if closed.packets > in.packets+3 || closed.bytes > in.bytes+3*header {
		t.Errorf("with its end: %+v, without: %+v", closed, in)
	}
}

// TestEndOfAConnectionIsCountedOnce has connections end between two looks, so that only their ends tell of them.
func TestEndOfAConnectionIsCountedOnce(t *testing.T) {
	t.Parallel()
	m := newMetered(t)
	n := m.d.networks[m.n.VPC.ID]
	// Connections are forgotten at once when they end.
	if err := inside(n.ns, func() error {
		return errors.Join(writeSetting("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close", "1"), writeSetting("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait", "1"))
	}); err != nil {
		t.Skip("the time for which connections are remembered cannot be set: ", err)
	}
	const many = 50
	for range many {
		user, served := m.connects(anyPort(officeAddr), 0, 443)
		m.flows(user, served)
		_ = user.(*net.TCPConn).SetLinger(0) // it ends by a reset
		_ = errors.Join(user.Close(), served.Close())
	}
	m.take()
	before := m.count(func(f vpc.FlowCount) bool { return f.Dst == m.n.At(0, 443) })
	await(t, "end of what is remembered", func() bool {
		m.take()
		n.watch.mu.Lock()
		defer n.watch.mu.Unlock()
		return len(n.watch.counted) == 0
	})
	after := m.count(func(f vpc.FlowCount) bool { return f.Dst == m.n.At(0, 443) })
	if before.packets != after.packets || before.bytes != after.bytes || before.packets < 4*many || m.skipped != 0 {
		t.Errorf("before the ends were told of: %+v, after: %+v, %d skipped", before, after, m.skipped)
	}
	if m.count(func(f vpc.FlowCount) bool { return f.Rejected }).flows != 0 {
		t.Error("something was rejected")
	}
}

// TestPermittedPortWithoutListenerIsAccepted: the rules let it pass, and it was answered.
func TestPermittedPortWithoutListenerIsAccepted(t *testing.T) {
	t.Parallel()
	m := newMetered(t)
	m.n.Group.Rules = append(m.n.Group.Rules, vpc.SecurityGroupRule{ID: "sgr-ssh", Protocol: vpc.TCP, Ports: vpc.PortRange{From: 22, To: 22}, Peer: vpc.Peer{CIDR: netip.MustParsePrefix("192.168.0.0/16")}})
	m.apply()
	if _, err := m.dial(anyPort(officeAddr), 0, 22, patience); !errors.Is(err, unix.ECONNREFUSED) {
		t.Fatalf("dial: %v", err)
	}
	at := m.n.At(0, 22)
	await(t, "flow", func() bool { m.take(); return m.count(func(f vpc.FlowCount) bool { return f.Src == at }).flows > 0 })
	in, out := m.count(func(f vpc.FlowCount) bool { return f.Dst == at && !f.Rejected }), m.count(func(f vpc.FlowCount) bool { return f.Src == at && !f.Rejected })
	if (in != counts{1, 1, 60}) || (out != counts{1, 1, 40}) {
		t.Errorf("in %+v, out %+v", in, out)
	}
	if got := m.r.list(); len(got) != 0 {
		t.Errorf("refusals: %+v", got)
	}
}

// TestRetriesAreOneFlow: a SYN that is sent again and again is one record with as many packets, and one refusal, until the
// interval ends.
func TestRetriesAreOneFlow(t *testing.T) {
	t.Parallel()
	m := newMetered(t)
	from := netip.AddrPortFrom(guestAddr, 45679)
	go m.u.dial(t.Context(), m.d, from, m.n.VPC.ID, m.n.At(1, 443), 3500*time.Millisecond) //nolint:errcheck // it is dropped
	rejected := func(f vpc.FlowCount) bool { return f.Rejected && f.Src == from && f.Dst == m.n.At(1, 443) }
	await(t, "refusal", func() bool { return len(m.r.list()) > 0 })
	id := "security-group:" + string(m.n.Group.ID) + ":"
	await(t, "two packets", func() bool {
		c, err := m.d.Counters(m.n.VPC.ID)
		if err != nil {
			t.Fatal(err)
		}
		return c[id] >= 2
	})
	await(t, "record of two packets", func() bool {
		time.Sleep(2 * ulogWait) // a batch waits for so long
		m.told = m.take()
		return m.count(rejected).packets >= 2 || len(m.r.list()) > 1
	})
	if c := m.count(rejected); c.flows != 1 || c.bytes != 60*c.packets {
		t.Errorf("told: %+v", c)
	}
	if got := m.r.list(); len(got) != 1 || got[0].Flow.Src != from || got[0].Verdict.Blocked().Identity() != id {
		t.Errorf("refusals: %+v", got)
	}
}

// TestOtherProtocolsAreTold has UDP and ICMP rejected: records, and no connection that was refused.
func TestOtherProtocolsAreTold(t *testing.T) {
	t.Parallel()
	m := newMetered(t)
	if err := inside(m.u.ns, func() error {
		c, err := net.DialUDP("udp4", net.UDPAddrFromAddrPort(anyPort(officeAddr)), net.UDPAddrFromAddrPort(m.n.At(0, 5000)))
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err = c.Write([]byte("hello")); err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		echo := []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}
		return unix.Sendto(fd, echo, 0, &unix.SockaddrInet4{Addr: m.n.Interfaces[0].Addr.As4()})
	}); err != nil {
		t.Fatal(err)
	}
	await(t, "records", func() bool { m.take(); return m.count(func(f vpc.FlowCount) bool { return f.Rejected }).flows >= 2 })
	udp := m.count(func(f vpc.FlowCount) bool {
		return f.Rejected && f.Protocol == vpc.UDP && f.Dst == m.n.At(0, 5000) && f.Src.Addr() == officeAddr
	})
	icmp := m.count(func(f vpc.FlowCount) bool {
		return f.Rejected && f.Protocol == vpc.ICMP && f.Dst == m.n.At(0, 0) && f.Src.Port() == 0
	})
	if (udp != counts{1, 1, 33}) || (icmp != counts{1, 1, 28}) {
		t.Errorf("UDP %+v, ICMP %+v", udp, icmp)
	}
	if got := m.r.list(); len(got) != 0 {
		t.Errorf("refusals: %+v", got)
	}
}

// flood opens connections to a port from as many ports of the office, one try each.
func (m *metered) flood(port uint16, many int) {
	m.t.Helper()
	to := &unix.SockaddrInet4{Addr: m.n.Interfaces[0].Addr.As4(), Port: int(port)}
	if err := inside(m.u.ns, func() error {
		for k := range many {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			if err = unix.Bind(fd, &unix.SockaddrInet4{Addr: officeAddr.As4(), Port: 10000 + k}); err == nil {
				if err = unix.Connect(fd, to); errors.Is(err, unix.EINPROGRESS) {
					err = nil
				}
			}
			if err = errors.Join(err, unix.Close(fd)); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		m.t.Fatal(err)
	}
}

func heap() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// TestFloodOfRejectedConnections: what is logged is bounded, what is not is counted, and others are served and told of.
func TestFloodOfRejectedConnections(t *testing.T) {
	m := newMetered(t)
	m.take()
	before := heap()
	const many = 10000
	began := time.Now()
	m.flood(2222, many)
	took := time.Since(began)
	m.flows(m.connects(anyPort(officeAddr), 1, 443)) // meanwhile others are served
	m.silent(netip.AddrPortFrom(guestAddr, 45680), 1, 443)
	id := "security-group:" + string(m.n.Group.ID) + ":"
	await(t, "all packets", func() bool {
		c, err := m.d.Counters(m.n.VPC.ID)
		return err == nil && c[id] >= many
	})
	time.Sleep(3 * ulogWait)
	m.take()
	at := m.n.At(0, 2222)
	logged := m.count(func(f vpc.FlowCount) bool { return f.Rejected && f.Dst == at })
	bound := logBurst + logRate*int(took/time.Second+2)
	if logged.flows < logBurst || logged.flows > bound {
		t.Errorf("%d of %d flows were logged, in %v, want at most %d", logged.flows, many, took, bound)
	}
	var skipped uint64
	for _, i := range m.told {
		if i.Interface == m.n.Interfaces[0].ID {
			skipped += i.Skipped
		}
	}
	if logged.packets+skipped < many {
		t.Errorf("%d packets were logged and %d skipped of %d", logged.packets, skipped, many)
	}
	if n := len(m.r.list()); n > bound+1 {
		t.Errorf("%d refusals were told of", n)
	}
	if more := int64(heap()) - int64(before); more > 16<<20 {
		t.Errorf("%d bytes more are in use", more)
	}
	// A rule of another interface, and one that drops nothing else, is told of as ever.
	m.n.ACL.Entries = append(m.n.ACL.Entries, vpc.NetworkACLEntry{Number: 7, Protocol: vpc.TCP, CIDR: netip.MustParsePrefix("192.168.0.7/32"), Ports: vpc.PortRange{From: 1400, To: 1400}})
	m.apply()
	m.silent(anyPort(officeAddr), 1, 1400)
	await(t, "another rule's record", func() bool {
		m.take()
		return m.count(func(f vpc.FlowCount) bool { return f.Rejected && f.Dst == m.n.At(1, 1400) }).flows > 0
	})
}

// TestHalfOpenFloodIsBounded has 10,000 requests accepted whose answers are dropped, with flow logs written: records of all
// requests and of as many answers as are logged, in a file of a size to match.
func TestHalfOpenFloodIsBounded(t *testing.T) {
	m := newMetered(t)
	dir := filepath.Join(t.TempDir(), "flow-logs")
	log, err := flowlog.New(flowlog.Config{Dir: dir, AccountID: "123456789012", Source: m.d, Interval: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { log.Run(ctx); close(done) }()
	all := m.n.ACL.Entries
	m.n.ACL.Entries = all[:1] // outbound is empty
	m.apply()
	before := heap()
	const many = 10000
	m.flood(443, many)
	m.n.ACL.Entries = all
	m.apply()
	m.lane.flows(m.connects(anyPort(officeAddr), 1, 443))
	if err := m.d.Check(t.Context(), m.n.Interfaces[0].ID); err != nil {
		t.Errorf("check: %v", err)
	}
	time.Sleep(2 * ulogWait)
	cancel()
	<-done
	if more := int64(heap()) - int64(before); more > 32<<20 {
		t.Errorf("%d bytes more are in use", more)
	}
	requests, answers, skips := map[netip.AddrPort]bool{}, 0, 0
	r := flowlog.Reader{Dir: dir}
	if err := r.Read(t.Context(), func(rec wire.Record, _ []byte) error {
		switch {
		case rec.Status == wire.SkipData:
			skips++
		case rec.Status == wire.OK && rec.Action == wire.Accept && rec.Dst == m.n.At(0, 443):
			requests[rec.Src] = true
		case rec.Status == wire.OK && rec.Action == wire.Reject && rec.Src == m.n.At(0, 443):
			answers++
		}
		return nil
	}); err != nil || r.Unreadable != 0 {
		t.Fatalf("%v, %d unreadable lines", err, r.Unreadable)
	}
	// The kernel itself drops requests beyond the backlog, without a trace in connection tracking, or answers them by cookies.
	if len(requests) < many*9/10 {
		t.Errorf("%d of %d requests were told of", len(requests), many)
	}
	if answers < logBurst || skips == 0 {
		t.Errorf("%d answers were told of, %d intervals say that some were not", answers, skips)
	}
	size := int64(0)
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > 4<<20 {
		t.Errorf("the files have %d bytes", size)
	}
	t.Logf("%d requests, %d answers, %d intervals with more, %d bytes, %+v", len(requests), answers, skips, size, log.Stats())
}

// TestWithoutMeter: refusals are told of, traffic is not counted.
func TestWithoutMeter(t *testing.T) {
	t.Parallel()
	u := newUsers(t)
	d, r := start(t, u, Config{})
	l := &lane{t: t, u: u, d: d, n: vpctest.NewNetwork(77)}
	l.apply()
	l.silent(anyPort(guestAddr), 0, 443)
	await(t, "refusal", func() bool { return len(r.list()) == 1 })
	if _, err := d.Flows(t.Context()); err == nil {
		t.Error("flows were told of")
	}
	if err := inside(d.networks[l.n.VPC.ID].ns, func() error {
		b, err := os.ReadFile(trackSettings()[0])
		if err == nil && strings.TrimSpace(string(b)) != "0" {
			err = fmt.Errorf("connection tracking counts: %q", b)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
}

// TestRuleThatIsGone names the rule that dropped a packet, not what the rules of now would say.
func TestRuleThatIsGone(t *testing.T) {
	t.Parallel()
	m := newMetered(t)
	w := m.d.networks[m.n.VPC.ID].watch
	f := vpc.Flow{VPC: m.n.VPC.ID, Protocol: vpc.TCP, Src: netip.AddrPortFrom(officeAddr, 50000), Dst: m.n.At(0, 443)}
	for rule, want := range map[string]vpc.Hop{
		"network-acl-outbound:acl-gone:7":                   {Dir: vpc.Return, Kind: vpc.HopNetworkACLOut, Resource: "acl-gone", Rule: "7", Why: "dropped by network-acl-outbound:acl-gone:7"},
		"return-route:rtb-gone:2001:db8::/32":               {Dir: vpc.Return, Kind: vpc.HopReturnRoute, Resource: "rtb-gone", Rule: "2001:db8::/32", Why: "dropped by return-route:rtb-gone:2001:db8::/32"},
		"nonsense":                                          {Dir: vpc.Forward, Kind: "nonsense", Why: "dropped by nonsense"},
		"security-group:" + string(m.n.Group.ID) + ":other": {Dir: vpc.Forward, Kind: vpc.HopSecurityGroup, Resource: string(m.n.Group.ID), Rule: "other", Why: "dropped by security-group:" + string(m.n.Group.ID) + ":other"},
	} {
		got := w.verdict(f, rule)
		if h := got.Blocked(); got.OK || h == nil || *h != want {
			t.Errorf("%s: %+v, want %+v", rule, h, want)
		}
	}
}

// TestDropsNameTheRuleThatExplainNames has random rules drop random connections: each is told of once, and rejected in the flow logs,
// with the rule by which the kernel dropped it, which is the one that the evaluator names.
func TestDropsNameTheRuleThatExplainNames(t *testing.T) {
	u, d, r := startPropertyTold(t, Config{Meter: true})
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	seen, kinds := map[ends]bool{}, map[vpc.HopKind]int{}
	checked := 0
	for set := range 25 {
		c := chance{rand.New(rand.NewPCG(seed, uint64(set)))}
		p := c.plan()
		if err := d.Apply(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		earlier, before := maps.Clone(seen), len(r.list())
		if _, err := d.Flows(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := try(u.ns, c, p, 100, false, waits{first: 5 * time.Second}, seen); err != nil {
			t.Fatal(err)
		}
		want := map[ends]string{} // the rule
		for e := range seen {
			v := p.Snapshot.Explain(vpc.Flow{VPC: p.Interfaces[0].VPC, Protocol: vpc.TCP, Src: e.src, Dst: e.dst})
			at := slices.ContainsFunc(p.Interfaces, func(i vpc.PlannedInterface) bool { return i.Addr == e.dst.Addr() })
			if h := v.Blocked(); !earlier[e] && at && v.Symptom == vpc.Timeout && h != nil {
				want[e] = h.Identity()
				kinds[h.Kind]++
			}
		}
		got := func() map[ends]string {
			out := map[ends]string{}
			for _, x := range r.list()[before:] {
				if !earlier[ends{x.Flow.Src, x.Flow.Dst}] { // what came late
					out[ends{x.Flow.Src, x.Flow.Dst}] = x.Verdict.Blocked().Identity()
				}
			}
			return out
		}
		for end := time.Now().Add(5 * time.Second); len(got()) < len(want) && time.Now().Before(end); time.Sleep(ulogWait / 4) {
		}
		if diff := cmp.Diff(want, got(), cmpopts.EquateComparable(netip.AddrPort{}, ends{})); diff != "" {
			t.Fatalf("set %d: -Explain +kernel:\n%s\nrules:\n%s", set, diff, d.networks[p.Interfaces[0].VPC].rules)
		}
		flows, err := d.Flows(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		rejected := map[ends]bool{}
		for _, i := range flows {
			for _, f := range i.Flows {
				if f.Rejected {
					rejected[ends{f.Src, f.Dst}], rejected[ends{f.Dst, f.Src}] = true, true
				}
			}
		}
		for e, rule := range want {
			if !rejected[e] {
				t.Errorf("set %d: no record of %v, dropped by %s", set, e, rule)
			}
		}
		checked += len(want)
	}
	t.Logf("%d dropped connections: %v", checked, kinds)
	if checked < 500 || len(kinds) < 3 {
		t.Errorf("the test is too weak: %d dropped connections, by %v", checked, kinds)
	}
}

// TestSocketsCountWhereTrackingDoesNot: what passed is told of all the same.
func TestSocketsCountWhereTrackingDoesNot(t *testing.T) {
	t.Parallel()
	u := newUsers(t)
	d, r := start(t, u, Config{Meter: true})
	d.untracked = true
	m := &metered{lane: &lane{t: t, u: u, d: d, n: vpctest.NewNetwork(77)}, r: r}
	m.apply()
	user, served := m.connects(anyPort(officeAddr), 0, 1410)
	for range 50 {
		m.flows(user, served)
	}
	m.silent(anyPort(guestAddr), 0, 443)
	m.take()
	_ = errors.Join(user.Close(), served.Close()) // both ends of it are ours
	await(t, "all records", func() bool {
		m.take()
		return m.count(func(f vpc.FlowCount) bool { return f.Rejected && f.Dst == m.n.At(0, 443) }).flows > 0
	})
	in := m.count(func(f vpc.FlowCount) bool { return f.Dst == m.n.At(0, 1410) && !f.Rejected })
	out := m.count(func(f vpc.FlowCount) bool { return f.Src == m.n.At(0, 1410) && !f.Rejected })
	for _, c := range []counts{in, out} {
		if c.packets < 50 || c.packets > 200 || c.bytes < 50*5+52*c.packets || c.bytes > 50*5+60*c.packets {
			t.Errorf("in %+v, out %+v", in, out)
		}
	}
}

// TestLostMessagesAreCounted by the numbers that the kernel gives packets.
func TestLostMessagesAreCounted(t *testing.T) {
	t.Parallel()
	message := func(sequence uint32) []byte {
		b := nfAttribute(nil, ulogAttrSequence, binary.BigEndian.AppendUint32(nil, sequence))
		b = nfAttribute(b, ulogAttrPrefix, []byte("rule\x00"))
		return nfAttribute(b, ulogAttrPayload, ipv4)
	}
	l := &packetLog{}
	var lost uint64
	for _, s := range []uint32{7, 8, 12, 13, 0xffffffff, 0, 1} {
		p, sequence, ok := parseLogged(message(s))
		if !ok || p.rule != "rule" || p.packet.dst != netip.MustParseAddrPort("10.0.1.10:443") {
			t.Fatalf("packet %d: %+v, %t", s, p, ok)
		}
		lost += l.missing(*sequence)
	}
	if want := uint64(3 + 0xffffffff - 14); lost != want {
		t.Errorf("%d were lost, want %d", lost, want)
	}
}

// ipv4 is a SYN from 192.168.0.7:50000 to 10.0.1.10:443.
var ipv4 = []byte{
	0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, 6, 0, 0, // version, size, flags, protocol
	192, 168, 0, 7, 10, 0, 1, 10,
	0xc3, 0x50, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 0, 0xa0, 0x02, 0, 0, 0, 0, 0, 0, // TCP
}

// ipv6 is a SYN-ACK from [2001:db8::1]:443 to [2001:db8::2]:50000 behind a hop-by-hop header.
var ipv6 = []byte{
	0x60, 0, 0, 0, 0, 28, 0, 64,
	0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
	0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
	6, 0, 0, 0, 0, 0, 0, 0, // hop-by-hop
	0x01, 0xbb, 0xc3, 0x50, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x12, 0, 0, 0, 0, 0, 0,
}

func TestParsePacket(t *testing.T) {
	t.Parallel()
	fragment := append([]byte(nil), ipv4...)
	fragment[7] = 9 // an offset
	for name, tt := range map[string]struct {
		b    []byte
		want packet
	}{
		"IPv4":          {ipv4, packet{src: netip.MustParseAddrPort("192.168.0.7:50000"), dst: netip.MustParseAddrPort("10.0.1.10:443"), protocol: vpc.TCP, flags: 2, sequence: 1, bytes: 60}},
		"cut short":     {ipv4[:24], packet{src: netip.MustParseAddrPort("192.168.0.7:50000"), dst: netip.MustParseAddrPort("10.0.1.10:443"), protocol: vpc.TCP, bytes: 60}},
		"IPv6":          {ipv6, packet{src: netip.MustParseAddrPort("[2001:db8::1]:443"), dst: netip.MustParseAddrPort("[2001:db8::2]:50000"), protocol: vpc.TCP, flags: 0x12, sequence: 1, bytes: 68}},
		"IPv4 fragment": {fragment, packet{src: netip.MustParseAddrPort("192.168.0.7:0"), dst: netip.MustParseAddrPort("10.0.1.10:0"), protocol: vpc.TCP, bytes: 60}},
	} {
		got, ok := parsePacket(tt.b)
		if !ok || got != tt.want {
			t.Errorf("%s: %+v, %t, want %+v", name, got, ok, tt.want)
		}
	}
	if p, _ := parsePacket(ipv4); !p.opens() || p.answers() || p.resetSize() != 40 {
		t.Error("a SYN is not seen as one")
	}
	if p, _ := parsePacket(ipv6); p.opens() || !p.answers() || p.resetSize() != 60 {
		t.Error("a SYN-ACK is not seen as one")
	}
	for _, b := range [][]byte{nil, {0x45}, {0x60}, ipv4[:19], ipv6[:39], {0x41, 19: 0}, {0x50, 60: 0}} {
		if p, ok := parsePacket(b); ok {
			t.Errorf("%x was read as %+v", b, p)
		}
	}
}

// FuzzPacket reads any bytes as a packet: no panic, no port where there is none.
func FuzzPacket(f *testing.F) {
	f.Add(ipv4)
	f.Add(ipv6)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := parsePacket(b)
		if ok && (!p.src.IsValid() || !p.dst.IsValid() || !p.protocol.HasPorts() && p.src.Port()+p.dst.Port() != 0) {
			t.Errorf("%+v", p)
		}
	})
}

// FuzzMessages reads any bytes as the kernel's messages about packets and connections.
func FuzzMessages(f *testing.F) {
	tuple := nfAttribute(nil, trackTupleIP, nfAttribute(nfAttribute(nil, trackIPv4Source, []byte{10, 0, 0, 1}), trackIPv4Dest, []byte{10, 0, 0, 2}))
	tuple = nfAttribute(tuple, trackTupleProtocol, nfAttribute(nil, trackProtocol, []byte{6}))
	body := nfAttribute([]byte{2, 0, 0, 0}, trackOriginal, tuple)
	body = nfAttribute(body, trackCounters, nfAttribute(nil, trackPackets, make([]byte, 8)))
	message := binary.NativeEndian.AppendUint32(nil, uint32(nfHeader+len(body)))
	message = binary.NativeEndian.AppendUint16(message, trackNew)
	message = append(append(message, make([]byte, nfHeader-6)...), body...)
	seen := 0
	if end, err := nfMessages(message, func(_ uint16, _ byte, a []byte) {
		if got, ok := parseTracked(a); ok && got.protocol == vpc.TCP && got.dst.Addr() == netip.MustParseAddr("10.0.0.2") {
			seen++
		}
	}); end || err != nil || seen != 1 {
		f.Fatalf("the seed is read as %d connections, %t, %v", seen, end, err)
	}
	f.Add(message)
	f.Add(nfAttribute(make([]byte, 20), ulogAttrPayload, ipv4))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = nfMessages(b, func(_ uint16, _ byte, a []byte) { // what is wrong is an error, never a panic
			parseTracked(a)
			parseLogged(a)
		})
	})
}
