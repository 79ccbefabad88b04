package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/vpc"
)

// Connection tracking (include/uapi/linux/netfilter/nfnetlink_conntrack.h). Numbers are big-endian.
const (
	trackSubsystem = 1
	trackNew       = trackSubsystem << 8
	trackGet       = trackSubsystem<<8 | 1
	trackDelete    = trackSubsystem<<8 | 2
	trackEnded     = 3 // the group in which ends of connections are told of

	trackOriginal      = 1 // nested tuple, as the first packet had it
	trackReply         = 2
	trackCounters      = 9 // nested: of the original direction
	trackCountersReply = 10
	trackID            = 12 // u32, the connection's as long as it is remembered
	trackTimestamp     = 20 // nested

	trackTupleIP       = 1 // nested
	trackTupleProtocol = 2 // nested
	trackIPv4Source    = 1
	trackIPv4Dest      = 2
	trackIPv6Source    = 3
	trackIPv6Dest      = 4
	trackProtocol      = 1 // u8
	trackSourcePort    = 2 // u16
	trackDestPort      = 3 // u16
	trackPackets       = 1 // u64
	trackBytes         = 2 // u64
	trackStarted       = 1 // u64 nanoseconds since 1970

	// Ends of connections that wait to be read.
	trackBuffer = 8 << 20
	// trackPatience bounds a dump.
	trackPatience = 30 * time.Second
)

// settings that make connection tracking count; they hold for connections that begin afterwards.
func trackSettings() []string {
	return []string{"/proc/sys/net/netfilter/nf_conntrack_acct", "/proc/sys/net/netfilter/nf_conntrack_timestamp"}
}

// tracked is what connection tracking knows of a connection.
type tracked struct {
	id       uint32
	src, dst netip.AddrPort // of its first packet
	protocol vpc.Protocol
	in, out  traffic // of the direction of the first packet, and of the other
	started  time.Time
}

type traffic struct{ packets, bytes uint64 }

func (t traffic) since(u traffic) traffic {
	if t.packets < u.packets || t.bytes < u.bytes { // another connection with the same number
		return t
	}
	return traffic{t.packets - u.packets, t.bytes - u.bytes}
}

// parseTracked reads a message about a connection; false when it has no ends or no counters.
func parseTracked(attributes []byte) (t tracked, ok bool) {
	counted := false
	nfAttributes(attributes, func(typ uint16, data []byte) {
		switch typ {
		case trackOriginal:
			t.src, t.dst, t.protocol, ok = parseTuple(data)
		case trackCounters:
			t.in, counted = parseCounters(data), true
		case trackCountersReply:
			t.out = parseCounters(data)
		case trackID:
			if len(data) == 4 {
				t.id = binary.BigEndian.Uint32(data)
			}
		case trackTimestamp:
			nfAttributes(data, func(typ uint16, data []byte) {
				if typ == trackStarted && len(data) == 8 {
					t.started = time.Unix(0, int64(binary.BigEndian.Uint64(data)))
				}
			})
		}
	})
	return t, ok && counted
}

func parseTuple(b []byte) (src, dst netip.AddrPort, protocol vpc.Protocol, ok bool) {
	var from, to netip.Addr
	var fromPort, toPort uint16
	nfAttributes(b, func(typ uint16, data []byte) {
		nfAttributes(data, func(inner uint16, data []byte) {
			switch typ {
			case trackTupleIP:
				a, valid := netip.AddrFromSlice(data)
				switch inner {
				case trackIPv4Source, trackIPv6Source:
					if valid {
						from = a
					}
				case trackIPv4Dest, trackIPv6Dest:
					if valid {
						to = a
					}
				}
			case trackTupleProtocol:
				switch {
				case inner == trackProtocol && len(data) == 1:
					protocol = vpc.Protocol(data[0])
				case inner == trackSourcePort && len(data) == 2:
					fromPort = binary.BigEndian.Uint16(data)
				case inner == trackDestPort && len(data) == 2:
					toPort = binary.BigEndian.Uint16(data)
				}
			}
		})
	})
	if !protocol.HasPorts() {
		fromPort, toPort = 0, 0
	}
	return netip.AddrPortFrom(from, fromPort), netip.AddrPortFrom(to, toPort), protocol, from.IsValid() && to.IsValid()
}

func parseCounters(b []byte) (t traffic) {
	nfAttributes(b, func(typ uint16, data []byte) {
		if len(data) != 8 {
			return
		}
		switch typ {
		case trackPackets:
			t.packets = binary.BigEndian.Uint64(data)
		case trackBytes:
			t.bytes = binary.BigEndian.Uint64(data)
		}
	})
	return t
}

// openEnds subscribes to the ends of connections of a namespace, and has connections counted that begin from now on.
func openEnds(ns netns.NsHandle) (*nfSocket, error) {
	if err := inside(ns, func() error {
		var errs []error
		for _, path := range trackSettings() {
			errs = append(errs, writeSetting(path, "1"))
		}
		return errors.Join(errs...)
	}); err != nil {
		return nil, fmt.Errorf("count by connection tracking: %w", err)
	}
	s, err := dialNetfilter(ns, trackBuffer)
	if err != nil {
		return nil, fmt.Errorf("open connection tracking: %w", err)
	}
	if err := s.c.SetsockoptInt(unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, trackEnded); err != nil {
		s.close()
		return nil, fmt.Errorf("follow connection tracking: %w", err)
	}
	return s, nil
}

// dumpTracked hands every connection of a namespace to f.
func dumpTracked(ns netns.NsHandle, f func(tracked)) error {
	s, err := dialNetfilter(ns, trackBuffer)
	if err != nil {
		return fmt.Errorf("open connection tracking: %w", err)
	}
	defer s.close()
	if err := s.exchange(trackPatience, trackGet, unix.NLM_F_DUMP, unix.AF_UNSPEC, 0, nil, func(typ uint16, _ byte, attributes []byte) {
		if typ != trackNew {
			return
		}
		if t, ok := parseTracked(attributes); ok {
			f(t)
		}
	}); err != nil {
		return fmt.Errorf("read connection tracking: %w", err)
	}
	return nil
}
