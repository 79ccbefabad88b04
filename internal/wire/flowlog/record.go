// Package flowlog reads and writes the records of VPC flow logs in their default format, version 2: one line a record,
// fields separated by a space, "-" for what a record has not.
//
// The format is that of the Amazon VPC User Guide, "Flow log records".
package flowlog

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Header names the fields. It is the first line of a file.
const Header = "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status"

// MaxLine bounds a line, without its end: the longest record that Append writes of identifiers up to 64 bytes is shorter.
const MaxLine = 512

const (
	version = "2"
	fields  = 14
	none    = "-"
)

// Action is what became of the traffic of a record.
type Action string

// The actions.
const (
	Accept Action = "ACCEPT"
	Reject Action = "REJECT" // by security groups, network ACLs or routes
)

// Status says what a record is.
type Status string

// The statuses. Records with one of the latter two have no addresses, ports, protocol, counts and action.
const (
	OK       Status = "OK"
	NoData   Status = "NODATA"   // nothing passed at the interface in the interval
	SkipData Status = "SKIPDATA" // something was seen in the interval and is in no record
)

// Record is traffic in one direction of one flow at one interface within one aggregation interval.
type Record struct {
	Account   string // twelve digits
	Interface string // "eni-…"
	Src, Dst  netip.AddrPort
	Protocol  uint8 // IANA number
	Packets   uint64
	Bytes     uint64 // of IP packets, headers included
	Start     int64  // Unix seconds of the first packet in the interval; of the interval's start where there is none
	End       int64  // of the last packet; of the interval's end
	Action    Action
	Status    Status
}

// Append adds the record's line to b, with its end.
func (r *Record) Append(b []byte) []byte {
	word := func(s string) {
		if s == "" {
			s = none
		}
		b = append(append(b, s...), ' ')
	}
	number := func(n uint64) { b = append(strconv.AppendUint(b, n, 10), ' ') }
	word(version)
	word(r.Account)
	word(r.Interface)
	if r.Status == OK {
		b = append(r.Src.Addr().WithZone("").Unmap().AppendTo(b), ' ')
		b = append(r.Dst.Addr().WithZone("").Unmap().AppendTo(b), ' ')
		number(uint64(r.Src.Port()))
		number(uint64(r.Dst.Port()))
		number(uint64(r.Protocol))
		number(r.Packets)
		number(r.Bytes)
	} else {
		for range 7 {
			word("")
		}
	}
	b = append(strconv.AppendInt(b, r.Start, 10), ' ')
	b = append(strconv.AppendInt(b, r.End, 10), ' ')
	if r.Status == OK {
		word(string(r.Action))
	} else {
		word("")
	}
	return append(append(b, r.Status...), '\n')
}

// ErrHeader is what Parse returns for the line of a file that names the fields.
var ErrHeader = errors.New("line names the fields")

// Parse reads a line, without its end.
func Parse(line string) (Record, error) {
	if len(line) > MaxLine {
		return Record{}, fmt.Errorf("flow log record has %d bytes, more than %d", len(line), MaxLine)
	}
	if line == Header {
		return Record{}, ErrHeader
	}
	f := strings.Split(line, " ")
	if len(f) != fields {
		return Record{}, fmt.Errorf("flow log record has %d fields, want %d", len(f), fields)
	}
	if f[0] != version {
		return Record{}, fmt.Errorf("flow log record: version is %q, want %q", f[0], version)
	}
	r := Record{Account: f[1], Interface: f[2], Action: Action(f[12]), Status: Status(f[13])}
	p := parser{fields: f}
	p.given(1, 2)
	r.Start, r.End = int64(p.number(10, 63)), int64(p.number(11, 63))
	switch r.Status {
	case OK:
		r.Src = netip.AddrPortFrom(p.addr(3), uint16(p.number(5, 16)))
		r.Dst = netip.AddrPortFrom(p.addr(4), uint16(p.number(6, 16)))
		r.Protocol = uint8(p.number(7, 8))
		r.Packets, r.Bytes = p.number(8, 64), p.number(9, 64)
		if r.Action != Accept && r.Action != Reject {
			p.fail(12)
		}
	case NoData, SkipData:
		r.Action = ""
		p.empty(3, 4, 5, 6, 7, 8, 9, 12)
	default:
		p.fail(13)
	}
	if p.err != nil {
		return Record{}, p.err
	}
	return r, nil
}

// parser keeps the first error.
type parser struct {
	fields []string
	err    error
}

func (p *parser) fail(i int) {
	if p.err == nil {
		p.err = fmt.Errorf("flow log record: %s is %q", strings.Fields(Header)[i], p.fields[i])
	}
}

func (p *parser) given(all ...int) {
	for _, i := range all {
		if p.fields[i] == "" || p.fields[i] == none {
			p.fail(i)
		}
	}
}

func (p *parser) empty(all ...int) {
	for _, i := range all {
		if p.fields[i] != none {
			p.fail(i)
		}
	}
}

// number reads digits as Append writes them: no sign, no zeros in front.
func (p *parser) number(i, bits int) uint64 {
	s := p.fields[i]
	n, err := strconv.ParseUint(s, 10, bits)
	if err != nil || len(s) > 1 && s[0] == '0' {
		p.fail(i)
	}
	return n
}

func (p *parser) addr(i int) netip.Addr {
	a, err := netip.ParseAddr(p.fields[i])
	if err != nil || a.Zone() != "" || a.Is4In6() {
		p.fail(i)
	}
	return a
}
