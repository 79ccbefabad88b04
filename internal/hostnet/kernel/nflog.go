package kernel

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// logGroup is the group of a namespace's log in which packets that rules drop are told of.
const logGroup = 77

// The log of packets (include/uapi/linux/netfilter/nfnetlink_log.h). Numbers are big-endian.
const (
	ulogSubsystem = 4
	ulogPacket    = ulogSubsystem << 8
	ulogConfig    = ulogSubsystem<<8 | 1

	ulogConfigCommand   = 1 // u8: 1 binds
	ulogConfigMode      = 2 // u32 bytes of each packet, u8 mode, u8 of padding
	ulogConfigTimeout   = 4 // u32 hundredths of a second until a batch is sent
	ulogConfigThreshold = 5 // u32 packets of a batch
	ulogConfigFlags     = 6 // u16

	ulogBind      = 1
	ulogCopy      = 2 // mode: the packet's beginning
	ulogSequenced = 1 // flag: packets are numbered

	ulogAttrPayload  = 9
	ulogAttrPrefix   = 10
	ulogAttrSequence = 12 // u32

	// Enough for IPv6 with some extension headers and TCP's own.
	ulogSnap = 128
	// A batch waits no longer than this.
	ulogWait = 100 * time.Millisecond
	// Packets that wait to be read; rules log no more than some hundreds a second.
	ulogBuffer = 4 << 20
	ulogBatch  = 32
)

// packetLog reads the packets that rules of a namespace log.
type packetLog struct {
	*nfSocket
	next uint32 // number of the packet that should come next
	seen bool   // whether one came yet
}

func openPacketLog(ns netns.NsHandle) (*packetLog, error) {
	s, err := dialNetfilter(ns, ulogBuffer)
	if err != nil {
		return nil, fmt.Errorf("open packet log: %w", err)
	}
	for _, attributes := range [][]byte{
		nfAttribute(nil, ulogConfigCommand, []byte{ulogBind}),
		nfAttribute(nil, ulogConfigMode, append(binary.BigEndian.AppendUint32(nil, ulogSnap), ulogCopy, 0)),
		nfAttribute(nil, ulogConfigTimeout, binary.BigEndian.AppendUint32(nil, uint32(ulogWait/(10*time.Millisecond)))),
		nfAttribute(nil, ulogConfigThreshold, binary.BigEndian.AppendUint32(nil, ulogBatch)),
		nfAttribute(nil, ulogConfigFlags, binary.BigEndian.AppendUint16(nil, ulogSequenced)),
	} {
		if err := s.exchange(filterPatience, ulogConfig, unix.NLM_F_ACK, unix.AF_UNSPEC, logGroup, attributes, func(uint16, byte, []byte) {}); err != nil {
			s.close()
			return nil, fmt.Errorf("configure packet log: %w", err)
		}
	}
	return &packetLog{nfSocket: s}, nil
}

// logged is a packet that a rule logged.
type logged struct {
	rule   string // its identity
	packet packet
}

// read waits for packets and hands them to f. lost counts those that the kernel had no room for.
func (l *packetLog) read(f func(logged)) (lost uint64, err error) {
	_, err = l.receive(func(typ uint16, _ byte, attributes []byte) {
		if typ != ulogPacket {
			return
		}
		p, sequence, ok := parseLogged(attributes)
		if sequence != nil {
			lost += l.missing(*sequence)
		}
		if ok {
			f(p)
		}
	})
	return lost, err
}

// missing is how many packets are missing before the one with a number.
func (l *packetLog) missing(sequence uint32) (n uint64) {
	if l.seen {
		n = uint64(sequence - l.next)
	}
	l.next, l.seen = sequence+1, true
	return n
}

func parseLogged(attributes []byte) (p logged, sequence *uint32, ok bool) {
	nfAttributes(attributes, func(typ uint16, data []byte) {
		switch typ {
		case ulogAttrPayload:
			p.packet, ok = parsePacket(data)
		case ulogAttrPrefix:
			for len(data) > 0 && data[len(data)-1] == 0 {
				data = data[:len(data)-1]
			}
			p.rule = string(data)
		case ulogAttrSequence:
			if len(data) == 4 {
				sequence = new(binary.BigEndian.Uint32(data))
			}
		}
	})
	return p, sequence, ok
}
