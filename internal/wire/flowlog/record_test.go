package flowlog

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// golden are lines of the Amazon VPC User Guide, "Flow log record examples", and what they mean.
var golden = []struct {
	name string
	line string
	want Record
}{
	{"accepted", "2 123456789010 eni-1235b8ca123456789 172.31.16.139 172.31.16.21 20641 22 6 20 4249 1418530010 1418530070 ACCEPT OK", Record{
		Account: "123456789010", Interface: "eni-1235b8ca123456789", Src: netip.MustParseAddrPort("172.31.16.139:20641"), Dst: netip.MustParseAddrPort("172.31.16.21:22"),
		Protocol: 6, Packets: 20, Bytes: 4249, Start: 1418530010, End: 1418530070, Action: Accept, Status: OK,
	}},
	{"rejected", "2 123456789010 eni-1235b8ca123456789 172.31.9.69 172.31.9.12 49761 3389 6 20 4249 1418530010 1418530070 REJECT OK", Record{
		Account: "123456789010", Interface: "eni-1235b8ca123456789", Src: netip.MustParseAddrPort("172.31.9.69:49761"), Dst: netip.MustParseAddrPort("172.31.9.12:3389"),
		Protocol: 6, Packets: 20, Bytes: 4249, Start: 1418530010, End: 1418530070, Action: Reject, Status: OK,
	}},
	{"nothing passed", "2 123456789010 eni-1235b8ca123456789 - - - - - - - 1431280876 1431280934 - NODATA", Record{
		Account: "123456789010", Interface: "eni-1235b8ca123456789", Start: 1431280876, End: 1431280934, Status: NoData,
	}},
	{"skipped", "2 123456789010 eni-11111111aaaaaaaaa - - - - - - - 1431280876 1431280934 - SKIPDATA", Record{
		Account: "123456789010", Interface: "eni-11111111aaaaaaaaa", Start: 1431280876, End: 1431280934, Status: SkipData,
	}},
	{"ICMP has no ports", "2 123456789010 eni-1235b8ca123456789 203.0.113.12 172.31.16.139 0 0 1 4 336 1432917027 1432917142 ACCEPT OK", Record{
		Account: "123456789010", Interface: "eni-1235b8ca123456789", Src: netip.MustParseAddrPort("203.0.113.12:0"), Dst: netip.MustParseAddrPort("172.31.16.139:0"),
		Protocol: 1, Packets: 4, Bytes: 336, Start: 1432917027, End: 1432917142, Action: Accept, Status: OK,
	}},
	{"IPv6", "2 123456789010 eni-1235b8ca123456789 2001:db8:1234:a100:8d6e:3477:df66:f105 2001:db8:1234:a102:3304:8879:34cf:4071 34892 22 6 54 8855 1477913708 1477913820 ACCEPT OK", Record{
		Account: "123456789010", Interface: "eni-1235b8ca123456789",
		Src: netip.MustParseAddrPort("[2001:db8:1234:a100:8d6e:3477:df66:f105]:34892"), Dst: netip.MustParseAddrPort("[2001:db8:1234:a102:3304:8879:34cf:4071]:22"),
		Protocol: 6, Packets: 54, Bytes: 8855, Start: 1477913708, End: 1477913820, Action: Accept, Status: OK,
	}},
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for _, tt := range golden {
		got, err := Parse(tt.line)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if d := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.AddrPort{})); d != "" {
			t.Errorf("%s: -want +got:\n%s", tt.name, d)
		}
		if line := string(tt.want.Append(nil)); line != tt.line+"\n" {
			t.Errorf("%s:\n got %q\nwant %q", tt.name, line, tt.line)
		}
	}
}

func TestAppendWritesOneLineWhateverTheRecord(t *testing.T) {
	t.Parallel()
	mapped := netip.AddrPortFrom(netip.MustParseAddr("::ffff:10.0.0.1"), 1)
	zoned := netip.AddrPortFrom(netip.MustParseAddr("fe80::1%eth0"), 2)
	r := Record{Account: "000000000000", Interface: "eni-1", Src: mapped, Dst: zoned, Packets: ^uint64(0), Bytes: ^uint64(0), Start: 1<<62 - 1, End: 1<<62 - 1, Action: Reject, Status: OK}
	line := string(r.Append(nil))
	if want := "2 000000000000 eni-1 10.0.0.1 fe80::1 1 2 0 18446744073709551615 18446744073709551615 4611686018427387903 4611686018427387903 REJECT OK\n"; line != want {
		t.Errorf("got  %q\nwant %q", line, want)
	}
	r = Record{Status: NoData, Action: Accept}
	if line, want := string(r.Append(nil)), "2 - - - - - - - - - 0 0 - NODATA\n"; line != want {
		t.Errorf("got %q, want %q", line, want)
	}
	long := Record{Account: strings.Repeat("1", 64), Interface: strings.Repeat("e", 64), Src: zoned, Dst: zoned, Packets: ^uint64(0), Bytes: ^uint64(0), Start: 1<<62 - 1, End: 1<<62 - 1, Action: Reject, Status: SkipData}
	if n := len(long.Append(nil)) - 1; n > MaxLine {
		t.Errorf("a line has %d bytes", n)
	}
}

func TestParseNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	const ok = "2 123456789010 eni-1 10.0.0.1 10.0.0.2 20641 22 6 20 4249 1418530010 1418530070 ACCEPT OK"
	field := func(i int, v string) string {
		f := strings.Split(ok, " ")
		f[i] = v
		return strings.Join(f, " ")
	}
	for line, want := range map[string]string{
		"":                                 "1 fields",
		ok + " x":                          "15 fields",
		ok + "\n":                          "log-status",
		field(0, "3"):                      "version",
		field(1, "-"):                      "account-id",
		field(2, ""):                       "interface-id",
		field(3, "-"):                      "srcaddr",
		field(3, "fe80::1%eth0"):           "srcaddr",
		field(4, "::ffff:1.2.3.4"):         "dstaddr",
		field(5, "65536"):                  "srcport",
		field(6, "+22"):                    "dstport",
		field(6, "022"):                    "dstport",
		field(7, "256"):                    "protocol",
		field(8, "-1"):                     "packets",
		field(9, "1e3"):                    "bytes",
		field(10, "-5"):                    "start",
		field(11, "9223372036854775808"):   "end",
		field(12, "accept"):                "action",
		field(12, "-"):                     "action",
		field(13, "NODATA"):                "",
		field(13, "FINE"):                  "log-status",
		strings.Repeat("2 ", MaxLine/2+10): "more than",
	} {
		_, err := Parse(line)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q): %v, want it to say %q", line, err, want)
		}
	}
	if _, err := Parse(Header); !errors.Is(err, ErrHeader) {
		t.Errorf("header: %v", err)
	}
}

// FuzzParse has any line either refused or written again as it was.
func FuzzParse(f *testing.F) {
	for _, g := range golden {
		f.Add(g.line)
	}
	f.Add(Header)
	f.Fuzz(func(t *testing.T, line string) {
		r, err := Parse(line)
		if err != nil {
			return
		}
		again, err := Parse(strings.TrimSuffix(string(r.Append(nil)), "\n"))
		if err != nil || again != r {
			t.Errorf("%q is read as %+v and, written and read again, as %+v, %v", line, r, again, err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	r, err := Parse(golden[0].line)
	if err != nil {
		b.Fatal(err)
	}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = r.Append(buf[:0])
	}
}
