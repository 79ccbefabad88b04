package kernel

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/vpc"
	"penstock.dev/penstock/internal/vpc/vpctest"
)

// stuffed is the suite's network with rules that match nothing of the office's before those that do.
func stuffed(rules int) *vpctest.Network {
	n := vpctest.NewNetwork(77)
	own := n.Group.Rules
	n.Group.Rules = nil
	for i := range rules {
		n.Group.Rules = append(n.Group.Rules, vpc.SecurityGroupRule{
			ID: vpc.SecurityGroupRuleID(fmt.Sprintf("sgr-%06d", i)), Protocol: vpc.TCP, Ports: vpc.PortRange{From: 443, To: 443},
			Peer: vpc.Peer{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), 32)},
		})
	}
	n.Group.Rules = append(n.Group.Rules, own...)
	return n
}

// BenchmarkApply is one rule that changes, until the kernel has it.
func BenchmarkApply(b *testing.B) {
	for _, rules := range []int{1, 100, 1000, 5000} {
		b.Run(fmt.Sprintf("rules=%d", rules), func(b *testing.B) {
			u := newUsers(b)
			d, _ := start(b, u, Config{HealEvery: time.Hour})
			n := stuffed(rules)
			plans := []vpc.Plan{vpctest.PlanOf(n)}
			n.Group.Rules[0].Ports.To++
			plans = append(plans, vpctest.PlanOf(n))
			for k := 0; b.Loop(); k++ {
				if err := d.Apply(b.Context(), plans[k%2]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkApplyUnchanged is what each pass and each look for foreign changes costs.
func BenchmarkApplyUnchanged(b *testing.B) {
	u := newUsers(b)
	d, _ := start(b, u, Config{HealEvery: time.Hour})
	p := vpctest.PlanOf(stuffed(1000))
	for b.Loop() {
		if err := d.Apply(b.Context(), p); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEndpoint is an endpoint in two zones from nothing until both interfaces answer on all 101 ports, and away again.
func BenchmarkEndpoint(b *testing.B) {
	u := newUsers(b)
	d, _ := start(b, u, Config{HealEvery: time.Hour})
	n := vpctest.NewNetwork(77)
	p, none := vpctest.PlanOf(n), vpctest.PlanOf()
	var up time.Duration
	for b.Loop() {
		began := time.Now()
		if err := d.Apply(b.Context(), p); err != nil {
			b.Fatal(err)
		}
		for _, i := range n.Interfaces {
			if err := d.Check(b.Context(), i.ID); err != nil {
				b.Fatal(err)
			}
		}
		up += time.Since(began)
		if err := d.Apply(b.Context(), none); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(up.Microseconds())/1000/float64(b.N), "ms/available")
}

// BenchmarkConnect is a connection of a user until its handshake is done, with rules before the one that admits it, and with
// none in the kernel at all.
func BenchmarkConnect(b *testing.B) {
	for _, rules := range []int{-1, 0, 100, 1000} {
		name := fmt.Sprintf("rules=%d", rules)
		if rules < 0 {
			name = "unfiltered"
		}
		b.Run(name, func(b *testing.B) {
			u, d := startProperty(b)
			n := stuffed(max(rules, 0))
			if rules < 0 {
				d.change = func(r *vpc.Ruleset) { *r = vpc.Ruleset{VPC: r.VPC} }
			}
			if err := d.Apply(b.Context(), vpctest.PlanOf(n)); err != nil {
				b.Fatal(err)
			}
			to := &unix.SockaddrInet4{Addr: n.Interfaces[0].Addr.As4(), Port: 443}
			err := inside(u.ns, func() error {
				for b.Loop() {
					fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
					if err != nil {
						return err
					}
					if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
						return err
					}
					if err := unix.Connect(fd, to); err != nil && !errors.Is(err, unix.ECONNRESET) { // reset after the handshake: too many wait
						return err
					}
					if err := unix.Close(fd); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "connects/s")
		})
	}
}

// BenchmarkThroughput is one connection of a user that sends as fast as it can.
func BenchmarkThroughput(b *testing.B) {
	for _, rules := range []int{-1, 0, 100, 1000} {
		name := fmt.Sprintf("rules=%d", rules)
		if rules < 0 {
			name = "unfiltered"
		}
		b.Run(name, func(b *testing.B) {
			u := newUsers(b)
			d, _ := start(b, u, Config{HealEvery: time.Hour})
			n := stuffed(max(rules, 0))
			if rules < 0 {
				d.change = func(r *vpc.Ruleset) { *r = vpc.Ruleset{VPC: r.VPC} }
			}
			if err := d.Apply(b.Context(), vpctest.PlanOf(n)); err != nil {
				b.Fatal(err)
			}
			from := netip.AddrPortFrom(officeAddr, 0)
			c, err := u.dial(b.Context(), d, from, n.VPC.ID, netip.AddrPortFrom(n.Interfaces[0].Addr, 443), 5*time.Second)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			in, err := d.Accept(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = in.Close() }()
			piece := make([]byte, 1<<20)
			sent := make(chan error, 1)
			go func() {
				for {
					if _, err := c.Write(piece); err != nil {
						sent <- err
						return
					}
				}
			}()
			b.SetBytes(int64(len(piece)))
			got := make([]byte, len(piece))
			for b.Loop() {
				if _, err := io.ReadFull(in, got); err != nil {
					b.Fatal(err)
				}
			}
			_ = c.Close()
			if err := <-sent; err == nil {
				b.Error("the sender did not notice the end")
			}
		})
	}
}
