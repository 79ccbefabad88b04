package vpc

import (
	"fmt"
	"strconv"
	"strings"
)

// Protocol is an IP protocol number; AllProtocols stands for every protocol.
type Protocol int16

// The protocols that have names.
const (
	AllProtocols Protocol = -1
	ICMP         Protocol = 1
	TCP          Protocol = 6
	UDP          Protocol = 17
	ICMPv6       Protocol = 58
)

// ParseProtocol reads a protocol as clients write it: a name or a number, -1 or "all" for every protocol.
func ParseProtocol(s string) (Protocol, bool) {
	switch strings.ToLower(s) {
	case "-1", "all":
		return AllProtocols, true
	case "tcp":
		return TCP, true
	case "udp":
		return UDP, true
	case "icmp":
		return ICMP, true
	case "icmpv6":
		return ICMPv6, true
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, false
	}
	return Protocol(n), true
}

// String is the protocol as security groups show it: tcp, udp, icmp and icmpv6 by name, others by number.
func (p Protocol) String() string {
	switch p {
	case ICMP:
		return "icmp"
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case ICMPv6:
		return "icmpv6"
	default:
		return p.Number()
	}
}

// Number is the protocol as network ACLs show it: always a number.
func (p Protocol) Number() string { return strconv.Itoa(int(p)) }

// HasPorts says whether rules for the protocol name ports.
func (p Protocol) HasPorts() bool { return p == TCP || p == UDP }

// PortRange is an inclusive range of ports. For ICMP rules of groups it is type and code. {-1,-1}: all.
type PortRange struct {
	From int `json:"from"`
	To   int `json:"to"`
}

// AllPorts is every port.
var AllPorts = PortRange{From: -1, To: -1}

// Contains says whether the range holds the port.
func (r PortRange) Contains(port uint16) bool {
	return r == AllPorts || r.From <= int(port) && int(port) <= r.To
}

// String is "443", "1400-1499" or "all".
func (r PortRange) String() string {
	switch {
	case r == AllPorts:
		return "all"
	case r.From == r.To:
		return strconv.Itoa(r.From)
	default:
		return fmt.Sprintf("%d-%d", r.From, r.To)
	}
}
