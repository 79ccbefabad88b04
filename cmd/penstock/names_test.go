package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/nameserver"
	"penstock.dev/penstock/internal/vpc"
)

// network makes a VPC with an endpoint of two zones in a source.
func (src *namesSource) network(number byte, private bool, status ...string) *vpc.Endpoint {
	id := string('0' + rune(number))
	v := &vpc.VPC{ID: vpc.VPCID("vpc-" + id), CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, number, 0, 0}), 16), DNSSupport: true}
	service, _ := vpc.FindService(devRegion, "com.amazonaws."+devRegion+".appstream.streaming")
	e := &vpc.Endpoint{ID: vpc.EndpointID("vpce-" + id), VPC: v.ID, Service: service.Name, State: vpc.EndpointAvailable, DNSSuffix: "sfx", PrivateDNS: private}
	for i, s := range status {
		n := &vpc.NetworkInterface{
			ID: vpc.NetworkInterfaceID("eni-" + id + string('a'+rune(i))), VPC: v.ID, Zone: devRegion + string('a'+rune(i)),
			Addr: netip.AddrFrom4([4]byte{10, number, byte(i + 1), 10}), Status: s,
		}
		src.interfaces[n.ID] = n
		e.Interfaces = append(e.Interfaces, n.ID)
	}
	e.DNSEntries = vpc.DNSEntries(e, service, []string{devRegion + "a", devRegion + "b"})
	src.vpcs, src.endpoints = append(src.vpcs, v), append(src.endpoints, e)
	return e
}

func newSource() *namesSource {
	return &namesSource{
		interfaces: map[vpc.NetworkInterfaceID]*vpc.NetworkInterface{},
		users:      []vpc.UserNetwork{{CIDR: netip.MustParsePrefix("192.168.0.0/16"), Dial: netip.MustParsePrefix("127.0.0.0/16")}},
		dial: func(_ vpc.VPCID, a netip.AddrPort) (netip.AddrPort, bool) { // 10.N.x.y is dialled at 127.(100+N).x.y
			b := a.Addr().As4()
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 100 + b[1], b[2], b[3]}), a.Port()), true
		},
	}
}

const (
	base        = ".streaming.appstream.us-east-1.vpce.amazonaws.com"
	privateName = "*.streaming.us-east-1.appstream2.amazonappstream.com"
)

func view(t *testing.T, n *endpointNames, source string) nameserver.View {
	t.Helper()
	for _, v := range n.served.Views {
		if slices.Contains(v.Sources, netip.MustParsePrefix(source)) {
			return v
		}
	}
	t.Fatalf("%s has no view: %v", source, n.served.Views)
	return nameserver.View{}
}

func TestNameEndpoints(t *testing.T) {
	t.Parallel()
	src := newSource()
	src.network(1, true, "in-use", "pending")
	src.network(2, false, "in-use")
	names := nameEndpoints(*src)
	up, down := nameserver.Target{Addr: netip.MustParseAddr("127.101.1.10")}, nameserver.Target{Addr: netip.MustParseAddr("127.101.2.10"), Down: true}
	want := map[string][]nameserver.Target{
		"vpce-1-sfx" + base: {up, down}, "vpce-1-sfx-us-east-1a" + base: {up}, "vpce-1-sfx-us-east-1b" + base: {down}, privateName: {up, down},
	}
	same := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if diff := cmp.Diff(want, view(t, names, "127.101.0.0/16").Records, same); diff != "" {
		t.Errorf("first VPC (-want +got):\n%s", diff)
	}
	second := view(t, names, "127.102.0.0/16")
	if len(second.Private) != 0 || second.Records["vpce-1-sfx"+base] != nil || len(second.Records["vpce-2-sfx"+base]) != 1 {
		t.Errorf("second VPC: got %v", second)
	}
	users := view(t, names, "127.0.0.0/16")
	if len(users.Records["vpce-1-sfx"+base]) != 2 || len(users.Records["vpce-2-sfx"+base]) != 1 || len(users.Records[privateName]) != 2 {
		t.Errorf("users: got %v", users)
	}
}

// TestNamesOfBothFamilies: names have the records that the endpoint's type asks for, of the addresses that the driver serves.
func TestNamesOfBothFamilies(t *testing.T) {
	t.Parallel()
	six := netip.MustParseAddr("fd00:77:0:1::10")
	for record, want := range map[vpc.DNSRecordType][]string{
		vpc.RecordIPv4: {"127.101.1.10"}, vpc.RecordIPv6: {"fd00:77:0:1::10"}, vpc.RecordDual: {"127.101.1.10", "fd00:77:0:1::10"}, vpc.RecordService: {"127.101.1.10", "fd00:77:0:1::10"},
	} {
		src := newSource()
		e := src.network(1, false, "in-use")
		src.vpcs[0].IPv6 = []vpc.CIDRBlock{{CIDR: netip.MustParsePrefix("fd00:77::/56")}}
		src.interfaces[e.Interfaces[0]].Addr6, e.DNSRecordType = six, record
		four := src.dial
		src.dial = func(id vpc.VPCID, a netip.AddrPort) (netip.AddrPort, bool) {
			if a.Addr().Is6() {
				return a, true
			}
			return four(id, a)
		}
		addrs := func() (out []string) {
			for _, x := range view(t, nameEndpoints(*src), "127.101.0.0/16").Records["vpce-1-sfx"+base] {
				out = append(out, x.Addr.String())
			}
			return out
		}
		if d := cmp.Diff(want, addrs()); d != "" {
			t.Errorf("%s (-want +got):\n%s", record, d)
		}
		if v := view(t, nameEndpoints(*src), "fd00:77::/56"); len(v.Records) == 0 {
			t.Errorf("%s: who is in the VPC's IPv6 block has no names", record)
		}
		src.dial = func(id vpc.VPCID, a netip.AddrPort) (netip.AddrPort, bool) { // as the loopback driver does
			if a.Addr().Is6() {
				return netip.AddrPort{}, false
			}
			return four(id, a)
		}
		if record != vpc.RecordIPv6 {
			if d := cmp.Diff([]string{"127.101.1.10"}, addrs()); d != "" {
				t.Errorf("%s, without IPv6 (-want +got):\n%s", record, d)
			}
		}
	}
}

func TestNamesOfSeveralVPCs(t *testing.T) {
	t.Parallel()
	src := newSource()
	src.network(1, true, "in-use")
	src.network(2, true, "in-use")
	names := nameEndpoints(*src)
	if users := view(t, names, "127.0.0.0/16"); len(users.Private) != 0 || users.Records[privateName] != nil {
		t.Errorf("a private name of two VPCs is told to users: %v", users)
	}
	for _, source := range []string{"127.101.0.0/16", "127.102.0.0/16"} {
		if v := view(t, names, source); len(v.Records[privateName]) != 1 {
			t.Errorf("%s: got %v, want its own private name", source, v)
		}
	}
	src.vpcs[0].DNSSupport = false
	src.endpoints[1].State = vpc.EndpointDeleting
	names = nameEndpoints(*src)
	if len(names.served.Views) != 2 || len(view(t, names, "127.102.0.0/16").Records) != 0 || len(names.endpoints) != 0 {
		t.Errorf("no DNS in one VPC, no endpoint in the other: got %v", names)
	}
}

func TestKnownNames(t *testing.T) {
	t.Parallel()
	src := newSource()
	src.network(1, true, "in-use")
	names := nameEndpoints(*src)
	for name, want := range map[string]bool{
		"vpce-1-sfx" + base: true, "vpce-2-sfx" + base: false, "x" + privateName[1:]: true, privateName[2:]: false, privateName[1:]: false, "": false,
	} {
		if got := names.has("vpce-1", name); got != want {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
		if names.has("vpce-9", name) {
			t.Errorf("%q is known of an endpoint that does not exist", name)
		}
	}
}

func TestFlagsOfTLS(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args   []string
		secure bool
		ends   bool // endpoints alone are secure
		fails  bool
	}{
		"default":            {args: nil},
		"on":                 {args: []string{"--tls", "on"}, secure: true},
		"chain":              {args: []string{"--tls-cert", "c", "--tls-key", "k"}, secure: true},
		"away from loopback": {args: []string{"--public-addr", "192.0.2.1:443"}, secure: true},
		"TLS 1.2":            {args: []string{"--tls", "on", "--tls-min", "1.2"}, secure: true},
		"kernel":             {args: []string{"--net", "kernel"}, ends: true},
		"rootless":           {args: []string{"--net", "rootless"}},
		"rootless, on":       {args: []string{"--net", "rootless", "--tls", "on"}, secure: true},
		"chain without key":  {args: []string{"--tls-cert", "c"}, fails: true},
		"TLS 1.1":            {args: []string{"--tls-min", "1.1"}, fails: true},
		"off":                {args: []string{"--tls", "off"}, fails: true},
		"every address":      {args: []string{"--public-addr", "0.0.0.0:443"}, fails: true},
		"upstream by name":   {args: []string{"--dns-upstream", "dns.example"}, fails: true},
	} {
		c, err := parseDev(append([]string{"--data-dir", "x"}, tt.args...), io.Discard)
		if (err != nil) != tt.fails || err == nil && (c.secure() != tt.secure || c.secureEndpoints() != (tt.secure || tt.ends)) {
			t.Errorf("%s: got secure %v, %v; want %v, failure %v", name, c.secure(), err, tt.secure, tt.fails)
		}
	}
}

func TestOnlyHosts(t *testing.T) {
	t.Parallel()
	h := onlyHosts(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), "127.0.0.1:8443", func(host string) bool { return host == "apps.example.org" })
	for host, want := range map[string]int{
		"127.0.0.1:8443": 200, "LOCALHOST:8443": 200, "apps.example.org": 200, "apps.example.org:8443": 200,
		"127.0.0.1": 421, "localhost:80": 421, "evil.example": 421, "apps.example.org.evil.example:8443": 421, "": 421,
	} {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
		r.Host = host
		if h.ServeHTTP(w, r); w.Code != want {
			t.Errorf("%q: got %d, want %d", host, w.Code, want)
		}
	}
}
