package nameserver

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	maxForwards     = 256 // questions that wait for upstreams at a time
	upstreamTimeout = 2 * time.Second
)

// question is what has to be the same for two questions to get one answer.
type question struct {
	name       string // as it was asked: its case comes back in the answer
	typ        uint16
	cd, dnssec bool
	over       bool // TCP
	authentic  bool
}

// forward is one question on its way. Those who ask the same meanwhile wait for it, which also ends a loop of servers that
// forward to each other: the question that comes back waits for itself, until it times out.
type forward struct {
	done   chan struct{}
	answer *dns.Msg // nil: none came
}

type forwards struct {
	room chan struct{} // holds one item for each question that waits

	mu      sync.Mutex
	running map[question]*forward
}

// fromUpstream fills r in with what an upstream server says.
func (s *Server) fromUpstream(ctx context.Context, m, r *dns.Msg, overTCP bool) {
	r.RecursionAvailable = true
	select {
	case s.forwards.room <- struct{}{}:
		defer func() { <-s.forwards.room }()
	default:
		s.stats.failed.Add(1)
		r.Rcode = dns.RcodeServerFailure
		return
	}
	q := m.Question[0]
	key := question{name: q.Name, typ: q.Qtype, cd: m.CheckingDisabled, over: overTCP, authentic: m.AuthenticatedData}
	if o := m.IsEdns0(); o != nil {
		key.dnssec = o.Do()
	}
	s.forwards.mu.Lock()
	f, joined := s.forwards.running[key]
	if !joined {
		f = &forward{done: make(chan struct{})}
		s.forwards.running[key] = f
	}
	s.forwards.mu.Unlock()
	if joined {
		select {
		case <-f.done:
		case <-ctx.Done():
		}
	} else {
		f.answer = s.ask(ctx, key)
		s.forwards.mu.Lock()
		delete(s.forwards.running, key)
		s.forwards.mu.Unlock()
		close(f.done)
	}
	select {
	case <-f.done:
	default: // shutting down
		r.Rcode = dns.RcodeServerFailure
		return
	}
	if f.answer == nil {
		s.stats.failed.Add(1)
		r.Rcode = dns.RcodeServerFailure
		return
	}
	s.stats.forwarded.Add(1)
	a := f.answer.Copy() // each asker truncates its own
	r.Rcode, r.AuthenticatedData, r.Truncated = a.Rcode, a.AuthenticatedData, a.Truncated
	r.Answer, r.Ns = a.Answer, a.Ns
	opt := r.IsEdns0()
	r.Extra = nil
	for _, rr := range a.Extra {
		if rr.Header().Rrtype != dns.TypeOPT { // of the connection between upstream and us
			r.Extra = append(r.Extra, rr)
		}
	}
	if opt != nil {
		opt.SetDo(key.dnssec)
		r.Extra = append(r.Extra, opt)
	} else if r.Rcode > 0xf {
		r.Rcode = dns.RcodeServerFailure // an extended code needs EDNS
	}
}

// ask asks one upstream after the other until one says something useful.
func (s *Server) ask(ctx context.Context, q question) *dns.Msg {
	m := new(dns.Msg)
	m.Question = []dns.Question{{Name: q.name, Qtype: q.typ, Qclass: dns.ClassINET}}
	m.RecursionDesired, m.CheckingDisabled, m.AuthenticatedData = true, q.cd, q.authentic
	m.SetEdns0(maxUDP, q.dnssec)
	var failed *dns.Msg
	for _, to := range s.Upstreams {
		a, err := exchange(ctx, m, to.String(), q.over)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.Log.Debug("upstream did not answer", "upstream", to, "error", err)
		case a.Rcode == dns.RcodeServerFailure || a.Rcode == dns.RcodeRefused:
			failed = a
		default:
			return a
		}
	}
	return failed
}

var errOtherQuestion = errors.New("the answer is to another question")

// exchange asks from a port and with an ID of its own, and takes no answer but to that.
func exchange(ctx context.Context, m *dns.Msg, to string, overTCP bool) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, upstreamTimeout)
	defer cancel()
	m = m.Copy()
	m.Id = dns.Id()
	c := dns.Client{Net: "udp", UDPSize: maxUDP, Timeout: upstreamTimeout}
	if overTCP {
		c.Net = "tcp"
	}
	a, _, err := c.ExchangeContext(ctx, m, to)
	if err != nil {
		return nil, err
	}
	if a.Id != m.Id || !a.Response || len(a.Question) != 1 || a.Question[0].Qtype != m.Question[0].Qtype ||
		!strings.EqualFold(a.Question[0].Name, m.Question[0].Name) {
		return nil, errOtherQuestion
	}
	return a, nil
}
