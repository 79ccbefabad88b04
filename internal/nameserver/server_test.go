package nameserver

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

const (
	apex    = "streaming.example.net"
	private = "apps.example.org"
)

func target(addr string) Target { return Target{Addr: netip.MustParseAddr(addr)} }

// twoVPCs are two networks and one of users.
func twoVPCs() *Names {
	one := map[string][]Target{
		"vpce-1." + apex:   {target("10.0.1.10"), target("10.0.2.10")},
		"vpce-1-a." + apex: {target("10.0.1.10")},
		"vpce-1-b." + apex: {target("10.0.2.10")},
		"vpce-6." + apex:   {target("10.0.1.11"), target("fd00::11")},
		"*." + private:     {target("10.0.1.10"), target("10.0.2.10")},
	}
	two := map[string][]Target{"vpce-2." + apex: {target("10.8.1.5")}}
	users := map[string][]Target{"vpce-1." + apex: one["vpce-1."+apex], "vpce-2." + apex: two["vpce-2."+apex]}
	return &Names{
		Apexes: []string{apex},
		Views: []View{
			{Sources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}, Records: one, Private: []string{private}},
			{Sources: []netip.Prefix{netip.MustParsePrefix("10.8.0.0/16")}, Records: two},
			{Sources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8")}, Records: users},
		},
	}
}

func server(names *Names, upstreams ...netip.AddrPort) *Server {
	return New(Options{Names: func() *Names { return names }, Upstreams: upstreams, Log: slog.New(slog.DiscardHandler)})
}

// show is what matters of an answer: its code, then what it holds.
func show(m *dns.Msg) string {
	if m == nil {
		return "nothing"
	}
	out := []string{dns.RcodeToString[m.Rcode]}
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			out = append(out, rr.A.String())
		case *dns.AAAA:
			out = append(out, rr.AAAA.String())
		default:
			out = append(out, dns.TypeToString[rr.Header().Rrtype])
		}
	}
	for _, rr := range m.Ns {
		out = append(out, "+"+dns.TypeToString[rr.Header().Rrtype])
	}
	return strings.Join(out, " ")
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		src, name string
		typ       uint16
		want      string
	}{
		"regional":                      {"10.0.9.9", "vpce-1." + apex, dns.TypeA, "NOERROR 10.0.1.10 10.0.2.10"},
		"zonal":                         {"10.0.9.9", "vpce-1-b." + apex, dns.TypeA, "NOERROR 10.0.2.10"},
		"capitals":                      {"10.0.9.9", "VPCE-1." + strings.ToUpper(apex), dns.TypeA, "NOERROR 10.0.1.10 10.0.2.10"},
		"mapped source":                 {"::ffff:10.0.9.9", "vpce-1." + apex, dns.TypeA, "NOERROR 10.0.1.10 10.0.2.10"},
		"AAAA of an IPv4 endpoint":      {"10.0.9.9", "vpce-1." + apex, dns.TypeAAAA, "NOERROR +SOA"},
		"AAAA of a dual-stack one":      {"10.0.9.9", "vpce-6." + apex, dns.TypeAAAA, "NOERROR fd00::11"},
		"A of a dual-stack one":         {"10.0.9.9", "vpce-6." + apex, dns.TypeA, "NOERROR 10.0.1.11"},
		"MX":                            {"10.0.9.9", "vpce-1." + apex, dns.TypeMX, "NOERROR +SOA"},
		"ANY":                           {"10.0.9.9", "vpce-1." + apex, dns.TypeANY, "NOERROR HINFO"},
		"SOA":                           {"10.0.9.9", apex, dns.TypeSOA, "NOERROR SOA"},
		"NS":                            {"10.0.9.9", apex, dns.TypeNS, "NOERROR NS"},
		"apex has no address":           {"10.0.9.9", apex, dns.TypeA, "NOERROR +SOA"},
		"private name":                  {"10.0.9.9", "x." + private, dns.TypeA, "NOERROR 10.0.1.10 10.0.2.10"},
		"private name, deeper":          {"10.0.9.9", "y.x." + private, dns.TypeA, "NOERROR 10.0.1.10 10.0.2.10"},
		"private apex itself":           {"10.0.9.9", private, dns.TypeA, "NOERROR +SOA"},
		"private name, other VPC":       {"10.8.9.9", "x." + private, dns.TypeA, "REFUSED"},
		"other VPC's":                   {"10.8.9.9", "vpce-1." + apex, dns.TypeA, "NXDOMAIN +SOA"},
		"own":                           {"10.8.9.9", "vpce-2." + apex, dns.TypeA, "NOERROR 10.8.1.5"},
		"users see both":                {"10.99.0.1", "vpce-2." + apex, dns.TypeA, "NOERROR 10.8.1.5"},
		"outside":                       {"192.0.2.1", "vpce-1." + apex, dns.TypeA, "NXDOMAIN +SOA"},
		"outside, another name":         {"192.0.2.1", "example.com", dns.TypeA, "REFUSED"},
		"no such endpoint":              {"10.0.9.9", "vpce-3." + apex, dns.TypeA, "NXDOMAIN +SOA"},
		"name that ends like the apex":  {"10.0.9.9", "evil" + apex, dns.TypeA, "REFUSED"},
		"above the apex":                {"10.0.9.9", "example.net", dns.TypeA, "REFUSED"},
		"the root":                      {"10.0.9.9", ".", dns.TypeNS, "REFUSED"},
		"zone transfer":                 {"10.0.9.9", apex, dns.TypeAXFR, "REFUSED"},
		"below a name":                  {"10.0.9.9", "x.vpce-1." + apex, dns.TypeA, "NXDOMAIN +SOA"},
		"another name without upstream": {"10.0.9.9", "example.com", dns.TypeA, "REFUSED"},
	}
	s := server(twoVPCs())
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := new(dns.Msg).SetQuestion(dns.Fqdn(tt.name), tt.typ)
			r := s.Answer(t.Context(), m, netip.MustParseAddr(tt.src), false)
			if got := show(r); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			for _, rr := range append(slices.Clone(r.Answer), r.Ns...) {
				if rr.Header().Ttl != ttl {
					t.Errorf("TTL: got %d, want %d", rr.Header().Ttl, ttl)
				}
			}
			if owned := r.Rcode != dns.RcodeRefused; r.Authoritative != owned {
				t.Errorf("authoritative: got %v, want %v", r.Authoritative, owned)
			}
		})
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	ask := func(down ...bool) string {
		n := twoVPCs()
		ts := []Target{target("10.0.1.10"), target("10.0.2.10")}
		for i := range ts {
			ts[i].Down = down[i]
		}
		n.Views[0].Records["vpce-1."+apex] = ts
		m := new(dns.Msg).SetQuestion("vpce-1."+apex+".", dns.TypeA)
		return show(server(n).Answer(t.Context(), m, netip.MustParseAddr("10.0.0.1"), false))
	}
	got := []string{ask(false, false), ask(false, true), ask(true, false), ask(true, true)}
	want := []string{"NOERROR 10.0.1.10 10.0.2.10", "NOERROR 10.0.1.10", "NOERROR 10.0.2.10", "NOERROR 10.0.1.10 10.0.2.10"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestOddMessages(t *testing.T) {
	t.Parallel()
	question := func(change func(*dns.Msg)) *dns.Msg {
		m := new(dns.Msg).SetQuestion("vpce-1."+apex+".", dns.TypeA)
		change(m)
		return m
	}
	tests := map[string]struct {
		m    *dns.Msg
		want string
	}{
		"an answer":     {question(func(m *dns.Msg) { m.Response = true }), "nothing"},
		"no question":   {question(func(m *dns.Msg) { m.Question = nil }), "FORMERR"},
		"two questions": {question(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), "FORMERR"},
		"update":        {question(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), "NOTIMP"},
		"notify":        {question(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), "NOTIMP"},
		"chaos":         {question(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }), "REFUSED"},
		"EDNS 1":        {question(func(m *dns.Msg) { m.SetEdns0(4096, false); m.IsEdns0().SetVersion(1) }), dns.RcodeToString[dns.RcodeBadVers]},
	}
	s := server(twoVPCs())
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := s.Answer(t.Context(), tt.m, netip.MustParseAddr("10.0.0.1"), false)
			if got := show(r); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if r != nil {
				if _, err := r.Pack(); err != nil {
					t.Errorf("the answer cannot be packed: %v", err)
				}
			}
		})
	}
}

// TestSizes: an endpoint with many addresses is truncated over UDP, by what the asker can take, and whole over TCP.
func TestSizes(t *testing.T) {
	t.Parallel()
	n := twoVPCs()
	var many []Target
	for i := range 200 {
		many = append(many, Target{Addr: netip.AddrFrom4([4]byte{10, 0, 3, byte(i)})})
	}
	n.Views[0].Records["many."+apex] = many
	s := server(n)
	for name, tt := range map[string]struct {
		edns    uint16
		tcp     bool
		most    int
		trimmed bool
	}{
		"plain":         {0, false, 512, true},
		"EDNS":          {4096, false, maxUDP, true},
		"EDNS, tiny":    {100, false, 512, true},
		"TCP":           {0, true, dns.MaxMsgSize, false},
		"TCP with EDNS": {512, true, dns.MaxMsgSize, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := new(dns.Msg).SetQuestion("many."+apex+".", dns.TypeA)
			if tt.edns > 0 {
				m.SetEdns0(tt.edns, true)
			}
			r := s.Answer(t.Context(), m, netip.MustParseAddr("10.0.0.1"), tt.tcp)
			b, err := r.Pack()
			if err != nil || len(b) > tt.most || r.Truncated != tt.trimmed || len(r.Answer) == 200 == tt.trimmed {
				t.Errorf("got %d bytes, %d answers, truncated %v, %v; want at most %d bytes, truncated %v", len(b), len(r.Answer), r.Truncated, err, tt.most, tt.trimmed)
			}
			if (r.IsEdns0() != nil) != (tt.edns > 0) {
				t.Error("EDNS is answered where it was not asked, or the other way round")
			}
		})
	}
}

// run serves on a free port of an address until the test ends.
func run(t *testing.T, s *Server, addr string) *Sockets {
	t.Helper()
	on, err := Listen(t.Context(), netip.MustParseAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, on) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run did not end")
		}
	})
	return on
}

func exchangeFrom(t *testing.T, network, source, addr string, m *dns.Msg) (*dns.Msg, error) {
	t.Helper()
	var local net.Addr = &net.UDPAddr{IP: net.ParseIP(source)}
	if network == "tcp" {
		local = &net.TCPAddr{IP: net.ParseIP(source)}
	}
	c := dns.Client{Net: network, Timeout: 10 * time.Second, Dialer: &net.Dialer{LocalAddr: local, Timeout: 10 * time.Second}}
	r, _, err := c.ExchangeContext(t.Context(), m, addr)
	return r, err
}

// TestOverSockets asks from addresses of two views, by UDP and TCP, and survives rubbish.
func TestOverSockets(t *testing.T) {
	t.Parallel()
	n := twoVPCs()
	n.Views[0].Sources = []netip.Prefix{netip.MustParsePrefix("127.80.0.0/16")}
	n.Views[1].Sources = []netip.Prefix{netip.MustParsePrefix("127.81.0.0/16")}
	on := run(t, server(n), "127.0.0.1:0")
	for _, network := range []string{"udp", "tcp"} {
		for source, want := range map[string]string{"127.80.0.9": "NOERROR 10.0.1.10 10.0.2.10", "127.81.0.9": "NXDOMAIN +SOA"} {
			r, err := exchangeFrom(t, network, source, on.Addr(), new(dns.Msg).SetQuestion("vpce-1."+apex+".", dns.TypeA))
			if err != nil || show(r) != want {
				t.Errorf("%s from %s: got %s, %v; want %s", network, source, show(r), err, want)
			}
		}
	}
	for _, network := range []string{"udp", "tcp"} {
		c, err := net.Dial(network, on.Addr())
		if err != nil {
			t.Fatal(err)
		}
		for _, rubbish := range []string{"", "\x00", "\x00\x01\x00", strings.Repeat("\xc0\x0c", 200), strings.Repeat("\xff", 600)} {
			_, _ = c.Write([]byte(rubbish))
		}
		_ = c.Close()
	}
	if r, err := exchangeFrom(t, "udp", "127.80.0.9", on.Addr(), new(dns.Msg).SetQuestion("vpce-1."+apex+".", dns.TypeA)); err != nil {
		t.Errorf("after rubbish: %s, %v", show(r), err)
	}
}

func TestListenOnATakenPort(t *testing.T) {
	t.Parallel()
	on := run(t, server(twoVPCs()), "127.0.0.1:0")
	if other, err := Listen(t.Context(), netip.MustParseAddrPort(on.Addr())); err == nil {
		_ = other.Close()
		t.Error("two servers have one port")
	}
}

// upstream answers every question with an address, and counts.
func upstream(t *testing.T, answer func(w dns.ResponseWriter, m *dns.Msg)) netip.AddrPort {
	t.Helper()
	on, err := Listen(t.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	for _, s := range []*dns.Server{{PacketConn: on.UDP}, {Listener: on.TCP}} {
		started := make(chan struct{})
		s.Handler, s.NotifyStartedFunc = dns.HandlerFunc(answer), func() { close(started) }
		wg.Go(func() { _ = s.ActivateAndServe() })
		<-started
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return netip.MustParseAddrPort(on.Addr())
}

func says(addr string) func(dns.ResponseWriter, *dns.Msg) {
	return func(w dns.ResponseWriter, m *dns.Msg) {
		r := new(dns.Msg).SetReply(m)
		r.Answer = append(r.Answer, &dns.A{Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(addr)})
		r.SetEdns0(1232, false)
		_ = w.WriteMsg(r)
	}
}

func TestForwarding(t *testing.T) {
	t.Parallel()
	good := upstream(t, says("192.0.2.7"))
	broken := upstream(t, func(w dns.ResponseWriter, m *dns.Msg) {
		_ = w.WriteMsg(new(dns.Msg).SetRcode(m, dns.RcodeServerFailure))
	})
	nxdomain := upstream(t, func(w dns.ResponseWriter, m *dns.Msg) { _ = w.WriteMsg(new(dns.Msg).SetRcode(m, dns.RcodeNameError)) })
	forged := upstream(t, func(w dns.ResponseWriter, m *dns.Msg) {
		m = m.Copy()
		m.Question[0].Name = "bank.example."
		says("192.0.2.66")(w, m)
	})
	nobody := netip.MustParseAddrPort("127.0.0.1:1")
	tests := map[string]struct {
		upstreams []netip.AddrPort
		src       string
		norecurse bool
		want      string
	}{
		"one":                    {[]netip.AddrPort{good}, "10.0.0.1", false, "NOERROR 192.0.2.7"},
		"second, first is gone":  {[]netip.AddrPort{nobody, good}, "10.0.0.1", false, "NOERROR 192.0.2.7"},
		"second, first fails":    {[]netip.AddrPort{broken, good}, "10.0.0.1", false, "NOERROR 192.0.2.7"},
		"NXDOMAIN is an answer":  {[]netip.AddrPort{nxdomain, good}, "10.0.0.1", false, "NXDOMAIN"},
		"another question's":     {[]netip.AddrPort{forged}, "10.0.0.1", false, "SERVFAIL"},
		"all fail":               {[]netip.AddrPort{nobody, broken}, "10.0.0.1", false, "SERVFAIL"},
		"source without a view":  {[]netip.AddrPort{good}, "192.0.2.1", false, "REFUSED"},
		"recursion is not asked": {[]netip.AddrPort{good}, "10.0.0.1", true, "REFUSED"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, overTCP := range []bool{false, true} {
				m := new(dns.Msg).SetQuestion("WWW.example.com.", dns.TypeA)
				m.RecursionDesired = !tt.norecurse
				r := server(twoVPCs(), tt.upstreams...).Answer(t.Context(), m, netip.MustParseAddr(tt.src), overTCP)
				if got := show(r); got != tt.want {
					t.Errorf("TCP %v: got %s, want %s", overTCP, got, tt.want)
				}
				if r.Authoritative || r.IsEdns0() != nil || r.Id != m.Id || r.Question[0] != m.Question[0] {
					t.Errorf("TCP %v: wrong frame of the answer: %v", overTCP, r)
				}
			}
		})
	}
}

// TestLoop: two servers that forward to each other answer soon, having asked each other once.
func TestLoop(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	var here atomic.Pointer[Server]
	there := upstream(t, func(w dns.ResponseWriter, m *dns.Msg) { // forwards to us what we forward to it
		asked.Add(1)
		_ = w.WriteMsg(here.Load().Answer(context.Background(), m, netip.MustParseAddr("10.0.0.2"), false))
	})
	s := server(twoVPCs(), there)
	here.Store(s)
	r := s.Answer(t.Context(), new(dns.Msg).SetQuestion("example.com.", dns.TypeA), netip.MustParseAddr("10.0.0.1"), false)
	if show(r) != "SERVFAIL" {
		t.Errorf("got %s, want SERVFAIL", show(r))
	}
	if n := asked.Load(); n > 2 {
		t.Errorf("the question went round %d times", n)
	}
}

// TestForwardsAreBounded: a silent upstream holds so many questions and no more, and our own names are answered meanwhile.
func TestForwardsAreBounded(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	arrived := make(chan struct{}, maxForwards)
	silent := upstream(t, func(dns.ResponseWriter, *dns.Msg) { arrived <- struct{}{} })
	s := server(twoVPCs(), silent)
	src := netip.MustParseAddr("10.0.0.1")
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for i := range maxForwards {
		wg.Go(func() {
			s.Answer(ctx, new(dns.Msg).SetQuestion(fmt.Sprintf("n%d.example.com.", i), dns.TypeA), src, false)
		})
	}
	deadline := time.After(20 * time.Second)
	for len(s.forwards.room) < maxForwards {
		select {
		case <-arrived:
		case <-deadline:
			t.Fatal("the questions did not arrive")
		}
	}
	if r := s.Answer(ctx, new(dns.Msg).SetQuestion("one-more.example.com.", dns.TypeA), src, false); show(r) != "SERVFAIL" {
		t.Errorf("one more: got %s, want SERVFAIL", show(r))
	}
	if r := s.Answer(ctx, new(dns.Msg).SetQuestion("vpce-1."+apex+".", dns.TypeA), src, false); show(r) != "NOERROR 10.0.1.10 10.0.2.10" {
		t.Errorf("our own: got %s", show(r))
	}
}

// FuzzAnswer: whatever comes in, what goes out can be packed, fits, and answers the same question.
func FuzzAnswer(f *testing.F) {
	for _, m := range []*dns.Msg{
		new(dns.Msg).SetQuestion("vpce-1."+apex+".", dns.TypeA), new(dns.Msg).SetQuestion("x."+private+".", dns.TypeANY),
		new(dns.Msg).SetQuestion(".", dns.TypeNS), new(dns.Msg).SetEdns0(4096, true), new(dns.Msg).SetNotify(apex + "."),
	} {
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, false)
		f.Add(b, true)
	}
	f.Add([]byte("\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"), false) // a name that points at itself
	s := server(twoVPCs())
	src := netip.MustParseAddr("10.0.0.1")
	f.Fuzz(func(t *testing.T, b []byte, overTCP bool) {
		m := new(dns.Msg)
		if m.Unpack(b) != nil {
			return
		}
		r := s.Answer(t.Context(), m, src, overTCP)
		if r == nil {
			return
		}
		out, err := r.Pack()
		if err != nil {
			t.Fatalf("cannot be packed: %v\n%v", err, r)
		}
		if !overTCP && len(out) > maxUDP {
			t.Fatalf("%d bytes over UDP", len(out))
		}
		if !r.Response || r.Id != m.Id || len(m.Question) == 1 && r.Question[0] != m.Question[0] {
			t.Fatalf("answers another message: %v\n%v", m, r)
		}
	})
}

func BenchmarkAnswersOverUDP(b *testing.B) {
	on, err := Listen(b.Context(), netip.MustParseAddrPort("127.0.0.1:0"))
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- server(twoVPCs()).Run(ctx, on) }()
	b.RunParallel(func(pb *testing.PB) {
		c, err := dns.Dial("udp", on.Addr())
		if err != nil {
			b.Error(err)
			return
		}
		defer func() { _ = c.Close() }()
		m := new(dns.Msg).SetQuestion("vpce-1."+apex+".", dns.TypeA)
		for pb.Next() {
			m.Id = dns.Id()
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			if err := c.WriteMsg(m); err != nil {
				b.Error(err)
				return
			}
			if _, err := c.ReadMsg(); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "answers/s")
	cancel()
	if err := <-ended; err != nil {
		b.Error(err)
	}
}

// TestConnectionsAreBounded: so many TCP connections stay open; one more is closed at once, and served when another has gone.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	n := twoVPCs()
	on := run(t, server(n), "127.0.0.1:0")
	var conns []*dns.Conn
	for range maxConns {
		c, err := dns.DialTimeout("tcp", on.Addr(), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		conns = append(conns, c)
	}
	ask := func(c *dns.Conn) error {
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if err := c.WriteMsg(new(dns.Msg).SetQuestion("vpce-1."+apex+".", dns.TypeA)); err != nil {
			return err
		}
		_, err := c.ReadMsg()
		return err
	}
	if err := ask(conns[maxConns-1]); err != nil {
		t.Fatalf("the last that fits: %v", err)
	}
	more := func() error {
		c, err := dns.DialTimeout("tcp", on.Addr(), 10*time.Second)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		return ask(c)
	}
	if more() == nil {
		t.Error("one more is served")
	}
	_ = conns[0].Close()
	for deadline := time.Now().Add(10 * time.Second); more() != nil; {
		if time.Now().After(deadline) {
			t.Fatal("there is no room after one has gone")
		}
	}
}
