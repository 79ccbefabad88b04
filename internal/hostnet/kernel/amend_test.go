package kernel

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"penstock.dev/penstock/internal/vpc"
	"penstock.dev/penstock/internal/vpc/vpctest"
)

// nft runs the kernel's own tool in a namespace.
func nft(t *testing.T, ns netns.NsHandle, args ...string) string {
	t.Helper()
	var out []byte
	err := inside(ns, func() (err error) {
		out, err = exec.CommandContext(t.Context(), "nft", args...).CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("nft %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// inForce is the table as the kernel has it, without counts and with everything that has no order in one.
func inForce(t *testing.T, ns netns.NsHandle) string {
	t.Helper()
	var blocks []string // sets and chains
	for block := range strings.SplitSeq(nft(t, ns, "-s", "list", "table", "inet", tableName), "\n\t}\n") {
		if strings.Contains(block, "\tset ") {
			words := strings.FieldsFunc(block, func(r rune) bool { return strings.ContainsRune(" ,{}\n\t", r) })
			slices.Sort(words)
			block = strings.Join(words, " ")
		}
		blocks = append(blocks, strings.TrimPrefix(block, "table inet "+tableName+" {"))
	}
	slices.Sort(blocks)
	return strings.Join(blocks, "\n")
}

// mutate changes one thing of the suite's network, or a few.
func (c chance) mutate(n *vpctest.Network, next *int) {
	rule := func() vpc.SecurityGroupRule {
		*next++
		p, ports := c.traffic(false)
		return vpc.SecurityGroupRule{ID: vpc.SecurityGroupRuleID(fmt.Sprintf("sgr-%d", *next)), Egress: c.yes(20), Protocol: p, Ports: ports, Peer: vpc.Peer{CIDR: c.peer()}}
	}
	for range 1 + c.IntN(2) {
		rules := &n.Group.Rules
		switch at := c.IntN(len(*rules) + 1); c.IntN(6) {
		case 0, 1:
			*rules = slices.Insert(*rules, at, rule())
		case 2:
			if at < len(*rules) {
				*rules = slices.Delete(*rules, at, at+1)
			}
		case 3:
			if at < len(*rules) {
				(*rules)[at] = rule()
			}
		case 4:
			n.ACL.Entries = c.entries()
		case 5:
			*rules = slices.Insert(*rules, at, vpc.SecurityGroupRule{
				ID: vpc.SecurityGroupRuleID(fmt.Sprintf("sgr-peer-%d", at)), Protocol: vpc.TCP, Ports: vpc.AllPorts, Peer: vpc.Peer{Group: n.Group.ID},
			})
		}
	}
}

// TestAmendedIsReplaced: whatever changes, the kernel has the same rules in the same order as when they are put in place anew.
func TestAmendedIsReplaced(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft (package nftables)")
	}
	_, d := startProperty(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := chance{rand.New(rand.NewPCG(seed, 0))}
	network, next := vpctest.NewNetwork(77), 0
	steps := map[string]func() vpc.Plan{
		"another network": c.plan,
		"a change":        func() vpc.Plan { c.mutate(network, &next); return vpctest.PlanOf(network) },
	}
	for name, step := range steps {
		if err := d.Apply(t.Context(), vpctest.PlanOf()); err != nil {
			t.Fatal(err)
		}
		amended, changed := 0, 0
		for i := range 40 {
			p := step()
			if i == 0 {
				if err := d.Apply(t.Context(), p); err != nil {
					t.Fatal(err)
				}
				continue
			}
			id := p.Interfaces[0].VPC
			ns := d.namespace(t, id)
			table, before := nft(t, ns, "-a", "list", "tables"), inForce(t, ns)
			if err := d.Apply(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			got := inForce(t, ns)
			if got != before {
				changed++
				if nft(t, ns, "-a", "list", "tables") == table {
					amended++
				}
			}
			d.applying.Lock()
			_, err := filter{ns}.replace(d.networks[id].rules, d.networks[id].logs)
			d.networks[id].generation, _ = filter{ns}.generation()
			d.applying.Unlock()
			if err != nil {
				t.Fatal(err)
			}
			if want := inForce(t, ns); got != want {
				t.Fatalf("%s %d: the kernel had\n%s\n\nreplaced:\n%s", name, i, got, want)
			}
		}
		t.Logf("%s: %d changes, %d of them amended", name, changed, amended)
		if changed < 20 || amended < changed/3 {
			t.Errorf("%s: the test is too weak: %d changes, %d amended", name, changed, amended)
		}
	}
}

// TestCountersGoOnWhenOtherRulesChange: only rules that differ are touched.
func TestCountersGoOnWhenOtherRulesChange(t *testing.T) {
	l := newLane(t, Config{})
	user, served := l.connects(netip.AddrPortFrom(officeAddr, 0), 0, 443)
	l.flows(user, served)
	name := func() string {
		for k := range l.counters() {
			if strings.HasPrefix(k, "security-group:"+string(l.n.Group.ID)+":sgr-") && l.counters()[k] > 0 {
				return k
			}
		}
		t.Fatal("no rule of the group counted")
		return ""
	}()
	was := l.counters()[name]
	l.n.Group.Rules = append(l.n.Group.Rules, vpc.SecurityGroupRule{
		ID: "sgr-new", Protocol: vpc.TCP, Ports: vpc.PortRange{From: 9, To: 9}, Peer: vpc.Peer{CIDR: netip.MustParsePrefix("11.0.0.0/8")},
	})
	l.apply()
	if now := l.counters()[name]; now < was {
		t.Errorf("%s: %d packets, and %d before another rule was added", name, now, was)
	}
}

func (l *lane) counters() map[string]uint64 {
	l.t.Helper()
	all, err := l.d.Counters(l.n.VPC.ID)
	if err != nil {
		l.t.Fatal(err)
	}
	return all
}
