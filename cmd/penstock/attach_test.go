package main

import (
	"bytes"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/hostnet/kernel"
	"penstock.dev/penstock/internal/vpc"
)

func TestAttachIsRead(t *testing.T) {
	t.Parallel()
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	for in, want := range map[string]kernel.Attachment{
		"host": {},
		"host,networks=192.168.0.0/16+172.16.0.0/16,addresses=192.168.0.1": {
			Networks: []netip.Prefix{p("192.168.0.0/16"), p("172.16.0.0/16")}, Addresses: []netip.Addr{a("192.168.0.1")},
		},
		"netns=vpn,networks=10.8.0.0/16": {Namespace: "vpn", Networks: []netip.Prefix{p("10.8.0.0/16")}},
		"macvlan=eth0,networks=192.0.2.0/24+10.20.0.0/16,gateway=192.0.2.1,nexthops=192.0.2.50@10.77.0.0/16+192.0.2.51@10.78.0.0/16": {
			Networks: []netip.Prefix{p("192.0.2.0/24"), p("10.20.0.0/16")},
			LAN: &kernel.LAN{Parent: "eth0", Gateway: a("192.0.2.1"), NextHops: []kernel.NextHop{
				{VPC: p("10.77.0.0/16"), Addr: a("192.0.2.50")}, {VPC: p("10.78.0.0/16"), Addr: a("192.0.2.51")},
			}},
		},
	} {
		got, err := parseAttach(in)
		if diff := cmp.Diff(want, got, cmp.Comparer(func(x, y netip.Addr) bool { return x == y }), cmp.Comparer(func(x, y netip.Prefix) bool { return x == y })); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", in, err, diff)
		}
	}
}

func TestAttachNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                               `"" is not host, netns=NAME or macvlan=INTERFACE`,
		"wifi":                           `"wifi" is not`,
		"netns=":                         `"netns=" is not`,
		"netns=../x,networks=10.0.0.0/8": `"netns=../x" is not`,
		"netns=vpn":                      "netns=vpn: networks: name at least one",
		"macvlan=eth0,gateway=192.0.2.1": "macvlan=eth0: networks: name at least one",
		"host,network=10.0.0.0/8":        "host: network: unknown member",
		"host,networks=10.0.0.0":         "host: networks: netip.ParsePrefix",
		"host,networks=10.0.0.1/8":       "host: networks: 10.0.0.1/8 has bits beyond its length; the network is 10.0.0.0/8",
		"host,networks=10.0.0.0/8,networks=1.0.0.0/8": "host: networks is given twice",
		"netns=vpn,networks=10.0.0.0/8,addresses=x":   "netns=vpn: addresses: ParseAddr",
		"host,networks=10.0.0.0/8,gateway=10.0.0.1":   "host: gateway: is for macvlan",
		"macvlan=e,networks=10.0.0.0/8,nexthops=1.2":  `macvlan=e: nexthops: "1.2" is not IP@VPC-CIDR`,
	} {
		if _, err := parseAttach(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", in, err, want)
		}
	}
	if _, err := parseDev([]string{"--attach", "host"}, io.Discard); err == nil || !strings.Contains(err.Error(), "--attach goes with --net kernel") {
		t.Errorf("with the loopback network: %v", err)
	}
}

func TestRefusalsAreLoggedOnceASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		r := &region{log: slog.New(slog.NewTextHandler(&b, nil))}
		for range 3 {
			for range 100 {
				r.logRefusal(vpc.Refusal{Reason: "too many connections are open"})
			}
			time.Sleep(time.Second)
		}
		if lines := strings.Count(b.String(), "\n"); lines != 3 || strings.Count(b.String(), "unsaid=99") != 2 {
			t.Errorf("300 refusals in 3 s:\n%s", &b)
		}
	})
}
