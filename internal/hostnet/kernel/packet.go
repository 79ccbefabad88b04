package kernel

import (
	"encoding/binary"
	"net/netip"

	"penstock.dev/penstock/internal/vpc"
)

// packet is what the headers of an IP packet say.
type packet struct {
	src, dst netip.AddrPort // ports are 0 where the protocol has none, and in fragments but the first
	protocol vpc.Protocol
	flags    byte   // of TCP
	sequence uint32 // of TCP
	bytes    uint64 // of the whole packet
}

// Headers of IPv6 that stand between its own and the protocol's: hop-by-hop, routing, fragment, destination options.
const (
	ipv6HopByHop    = 0
	ipv6Routing     = 43
	ipv6Fragment    = 44
	ipv6Destination = 60
	ipv6Extensions  = 8 // at most, so that a packet costs no more than that
)

// parsePacket reads the beginning of an IP packet; false when it is none.
func parsePacket(b []byte) (packet, bool) {
	if len(b) == 0 {
		return packet{}, false
	}
	switch b[0] >> 4 {
	case 4:
		return parseIPv4(b)
	case 6:
		return parseIPv6(b)
	}
	return packet{}, false
}

func parseIPv4(b []byte) (packet, bool) {
	header := int(b[0]&15) * 4
	if len(b) < 20 || header < 20 {
		return packet{}, false
	}
	p := packet{protocol: vpc.Protocol(b[9]), bytes: uint64(binary.BigEndian.Uint16(b[2:]))}
	src, dst := netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	first := binary.BigEndian.Uint16(b[6:])&0x1fff == 0
	p.transport(src, dst, b[min(header, len(b)):], first)
	return p, true
}

func parseIPv6(b []byte) (packet, bool) {
	if len(b) < 40 {
		return packet{}, false
	}
	p := packet{bytes: 40 + uint64(binary.BigEndian.Uint16(b[4:]))}
	src, dst := netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	next, rest, first := b[6], b[40:], true
	for range ipv6Extensions {
		size := 0
		switch next {
		case ipv6HopByHop, ipv6Routing, ipv6Destination:
			if len(rest) >= 2 {
				size = 8 + int(rest[1])*8
			}
		case ipv6Fragment:
			if len(rest) >= 4 {
				size = 8
				first = first && binary.BigEndian.Uint16(rest[2:])&^7 == 0
			}
		}
		if size == 0 || size > len(rest) {
			break
		}
		next, rest = rest[0], rest[size:]
	}
	p.protocol = vpc.Protocol(next)
	p.transport(src, dst, rest, first)
	return p, true
}

func (p *packet) transport(src, dst netip.Addr, b []byte, first bool) {
	var from, to uint16
	if p.protocol.HasPorts() && first && len(b) >= 4 {
		from, to = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		if p.protocol == vpc.TCP && len(b) > flagsOffset {
			p.sequence, p.flags = binary.BigEndian.Uint32(b[4:]), b[flagsOffset]
		}
	}
	p.src, p.dst = netip.AddrPortFrom(src, from), netip.AddrPortFrom(dst, to)
}

// opens says whether the packet begins a TCP connection.
func (p *packet) opens() bool { return p.protocol == vpc.TCP && p.flags&(flagSYN|flagACK) == flagSYN }

// answers says whether the packet is the answer to one that opens, be it a reset because nothing listens: that one has no sequence.
func (p *packet) answers() bool {
	return p.protocol == vpc.TCP && (p.flags&(flagSYN|flagACK) == flagSYN|flagACK || p.flags&(flagRST|flagACK) == flagRST|flagACK && p.sequence == 0)
}

// resetSize is the size of the reset that answers the packet.
func (p *packet) resetSize() uint64 {
	if p.src.Addr().Is4() {
		return 20 + 20
	}
	return 40 + 20
}
