package door

import (
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/vpc"
)

// Sizes in bytes of what TCP_INFO does not tell: headers. The SYN carries more options than what follows.
const (
	headerIPv4    = 20
	headerIPv6    = 40
	headerTCP     = 20
	optionsOpen   = 20 // of a SYN as Linux sends it: MSS, SACK, timestamps, window scale
	optionsStamps = 12
)

// What x/sys has no names for: an option that a connection uses, and states of a socket whose user ended the stream.
const (
	tcpTimestamps = 1

	tcpCloseWait = 8
	tcpLastAck   = 9
	tcpClosing   = 11
)

// meter reads from a socket what passed in both directions. TCP_INFO counts what an accepted connection received and sent;
// it is asked before the connection is closed, so that what is sent after that is not in it.
type meter struct {
	src, dst netip.AddrPort
	tcp      *net.TCPConn
	began    time.Time

	mu      sync.Mutex
	in, out passed // what was counted
}

type passed struct{ packets, bytes uint64 }

func (p passed) less(q passed) passed {
	if p.packets < q.packets || p.bytes < q.bytes {
		return passed{}
	}
	return passed{p.packets - q.packets, p.bytes - q.bytes}
}

// read adds to the ledger what passed since it was read last. since is when that was, unless the connection is younger.
func (m *meter) read(l *Ledger, at vpc.NetworkInterfaceID, since, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	in, out, quiet, ok := socketCounts(m.tcp, m.dst.Addr())
	if !ok {
		return // it was closed under us
	}
	newIn, newOut := in.less(m.in), out.less(m.out)
	m.in, m.out = in, out
	first, last := since, now.Add(-quiet)
	if m.began.After(first) {
		first = m.began
	}
	if last.Before(first) {
		last = first
	}
	add := func(src, dst netip.AddrPort, n passed) {
		if n.packets > 0 {
			l.Add(at, vpc.FlowCount{Src: src, Dst: dst, Protocol: vpc.TCP, Packets: n.packets, Bytes: n.bytes, First: first, Last: last})
		}
	}
	add(m.src, m.dst, newIn)
	add(m.dst, m.src, newOut)
}

// socketCounts are the IP packets of an accepted connection, and how long it has been quiet.
func socketCounts(c *net.TCPConn, local netip.Addr) (in, out passed, quiet time.Duration, ok bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return in, out, 0, false
	}
	var info *unix.TCPInfo
	if cerr := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); cerr != nil || err != nil {
		return in, out, 0, false
	}
	ip := uint64(headerIPv4)
	if local.Is6() {
		ip = headerIPv6
	}
	opening, header := ip+headerTCP+optionsOpen, ip+headerTCP
	if info.Options&tcpTimestamps != 0 {
		header += optionsStamps
	}
	received := info.Bytes_received
	if info.State == tcpCloseWait || info.State == tcpLastAck || info.State == tcpClosing {
		received-- // the user's end of the stream counts as one
	}
	// The kernel counts the SYN among what came in, and not the answer to it among what went out.
	in = passed{uint64(info.Segs_in), received + opening + uint64(max(info.Segs_in, 1)-1)*header}
	out = passed{uint64(info.Segs_out) + 1, info.Bytes_sent + opening + uint64(info.Segs_out)*header}
	ms := min(info.Last_data_sent, info.Last_data_recv, info.Last_ack_recv)
	return in, out, time.Duration(ms) * time.Millisecond, true
}

// Sample adds to the ledger what passed on open connections since it was called last. The caller calls it once at a time.
func (d *Door) Sample() {
	if d.cfg.Ledger == nil {
		return
	}
	now := time.Now()
	d.mu.Lock()
	since := d.sampled
	d.sampled = now
	all := make([]open, 0, len(d.conns))
	for _, o := range d.conns {
		all = append(all, o)
	}
	d.mu.Unlock()
	for _, o := range all {
		if o.meter != nil {
			o.meter.read(d.cfg.Ledger, o.at.ID, since, now)
		}
	}
}

// countRefused counts in the ledger what a connection that the rules refuse brought before it is reset, as a packet filter would have:
// what the way in denies is rejected; what the way back denies was accepted, and its answer rejected.
func (d *Door) countRefused(at *Interface, c *net.TCPConn, f vpc.Flow, v vpc.Verdict) {
	if d.cfg.Ledger == nil {
		return
	}
	in, _, _, ok := socketCounts(c, f.Dst.Addr())
	if !ok {
		return // it is gone already
	}
	now := time.Now()
	h := v.Blocked()
	answered := h != nil && h.Dir == vpc.Return
	d.cfg.Ledger.Add(at.ID, vpc.FlowCount{Src: f.Src, Dst: f.Dst, Protocol: f.Protocol, Rejected: !answered, Packets: in.packets, Bytes: in.bytes, First: now, Last: now})
	if answered {
		opening := uint64(headerIPv4 + headerTCP + optionsOpen)
		if f.Dst.Addr().Is6() {
			opening += headerIPv6 - headerIPv4
		}
		d.cfg.Ledger.Add(at.ID, vpc.FlowCount{Src: f.Dst, Dst: f.Src, Protocol: f.Protocol, Rejected: true, Packets: 1, Bytes: opening, First: now, Last: now})
	}
}

// newMeter counts on a connection, where that is asked for.
func (d *Door) newMeter(at *Interface, c *net.TCPConn, f vpc.Flow) *meter {
	if d.cfg.Ledger == nil || !at.Metered {
		return nil
	}
	return &meter{src: f.Src, dst: f.Dst, tcp: c, began: time.Now()}
}

// lastRead reads a connection that is about to be closed.
func (d *Door) lastRead(o open) {
	if o.meter == nil {
		return
	}
	d.mu.Lock()
	since := d.sampled
	d.mu.Unlock()
	o.meter.read(d.cfg.Ledger, o.at.ID, since, time.Now())
}
