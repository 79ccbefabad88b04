package kernel

import (
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/vpc"
)

// Each rule that drops logs at most so many packets a second, after so many at once: what somebody floods costs no more than that, and
// does not hide what other rules drop.
const (
	logRate  = 250
	logBurst = 500
)

// logChainName is the name of the chain in which packets of a rule are logged before its verdict.
func logChainName(rule string) string { return "log-" + short(rule, 16) }

// listenerRule is the name of the rules that reset connections to ports on which nothing listens.
const listenerRule = string(vpc.HopListener) + "::"

func isListenerRule(name string) bool { return name == listenerRule }

// loggedIn is the chain in which packets of a rule are logged, and the rule's verdict. Empty: it drops nothing, or nothing that
// is an interface's.
func loggedIn(r *vpc.Rule) (chain string, verdict expr.Any) {
	switch {
	case r.Name == "":
		return "", nil
	case r.Action == vpc.ActionReset && isListenerRule(r.Name):
		return logChainName(r.Name), &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}
	case r.Action != vpc.ActionDrop:
		return "", nil
	}
	kind, _, _ := strings.Cut(r.Name, ":")
	switch vpc.HopKind(kind) {
	case vpc.HopDeviceRoute, vpc.HopNetworkACLIn, vpc.HopNetworkACLOut, vpc.HopSecurityGroup, vpc.HopReturnRoute:
		return logChainName(r.Name), &expr.Verdict{Kind: expr.VerdictDrop}
	case vpc.HopListener: // an address that no interface has
	}
	return "", nil
}

// logChain logs with the rule's name, as far as the rate allows, and counts what it does not log; the verdict is the same.
func logChain(c *nftables.Conn, chain *nftables.Chain, name string, verdict expr.Any) {
	c.AddRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: []expr.Any{
		&expr.Limit{Type: expr.LimitTypePkts, Rate: logRate, Unit: expr.LimitTimeSecond, Burst: logBurst},
		&expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX, Group: logGroup, Data: []byte(name)},
		verdict,
	}})
	c.AddRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: []expr.Any{&expr.Counter{}, verdict}})
}

// unlogged are packets by the names of rules that dropped them beyond the rate at which they log.
func (f filter) unlogged(rules vpc.Ruleset) (map[string]uint64, error) {
	c, err := f.conn()
	if err != nil {
		return nil, fmt.Errorf("open packet filter: %w", err)
	}
	defer func() { _ = c.CloseLasting() }()
	t := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	out := map[string]uint64{}
	for i := range rules.Chains {
		for j := range rules.Chains[i].Rules {
			r := &rules.Chains[i].Rules[j]
			chain, _ := loggedIn(r)
			if _, read := out[r.Name]; chain == "" || read {
				continue
			}
			all, err := c.GetRules(t, &nftables.Chain{Name: chain, Table: t})
			if err != nil {
				return nil, fmt.Errorf("read chain %s: %w", chain, err)
			}
			out[r.Name] = 0
			for _, rule := range all {
				if n, ok := rule.Exprs[0].(*expr.Counter); ok {
					out[r.Name] += n.Packets
				}
			}
		}
	}
	return out, nil
}
