package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	mdl "github.com/mdlayher/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/vpc"
)

const (
	tableName = "penstock"
	// filterBuffer is the size of the sockets' buffers: the default ones are too small for about 1,000 rules. 64 MiB worked to 20,000.
	filterBuffer = 64 << 20
	// filterPatience bounds each exchange with the kernel.
	filterPatience = 15 * time.Second
)

// filter is the packet filter of one namespace.
type filter struct {
	ns netns.NsHandle
}

func (f filter) conn() (*nftables.Conn, error) {
	return nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(int(f.ns)), nftables.WithSockOptions(roomy))
}

func roomy(c *mdl.Conn) error {
	// In a user namespace the size is capped by the machine's limit, and what is got must do.
	if err := errors.Join(c.SetReadBuffer(filterBuffer), c.SetWriteBuffer(filterBuffer)); err != nil {
		return err
	}
	return c.SetDeadline(time.Now().Add(filterPatience))
}

// numbering guards the library's counter of sets, which it shares between all of its connections and does not guard itself. It guards
// nothing of ours; drivers of one process share it because they share the library.
var numbering sync.Mutex

// addSet adds a set to the batch.
func addSet(c *nftables.Conn, set *nftables.Set, elements []nftables.SetElement) error {
	numbering.Lock()
	defer numbering.Unlock()
	return c.AddSet(set, elements)
}

// replace puts the ruleset in force in place of the one before, in one step. It returns the generation that this made.
// With logs, packets that rules of interfaces drop are logged.
func (f filter) replace(rules vpc.Ruleset, logs bool) (generation uint32, err error) {
	b, err := f.batch(logs)
	if err != nil {
		return 0, err
	}
	defer b.close()
	b.c.AddTable(b.t) // so that there is one to delete
	b.c.DelTable(b.t)
	b.c.AddTable(b.t)
	for i := range rules.Chains { // all of them before anything leads to one
		b.addChain(&rules.Chains[i])
	}
	for i := range rules.Sets {
		if err := b.addSet(&rules.Sets[i]); err != nil {
			return 0, err
		}
	}
	for i := range rules.Chains {
		for j := range rules.Chains[i].Rules {
			if err := b.addRule(rules.Chains[i].Name, &rules.Chains[i].Rules[j], 0); err != nil {
				return 0, err
			}
		}
	}
	if err := b.c.Flush(); err != nil {
		if errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.ENOBUFS) {
			err = fmt.Errorf("%d rules are more than one message may hold here; raise the limit (sudo sysctl -w net.core.wmem_max=%d) "+
				"or name networks by prefix lists, which are one rule: %w", count(rules), filterBuffer, err)
		}
		return 0, fmt.Errorf("replace packet filter: %w", err)
	}
	return f.generation()
}

// batch collects changes of one namespace's packet filter that the kernel makes in one step or not at all.
type batch struct {
	c      *nftables.Conn
	t      *nftables.Table
	chains map[string]bool // that are there
	sets   map[string]*nftables.Set
	logs   bool // packets that rules of interfaces drop are logged
	steps  int  // that it has
}

func (f filter) batch(logs bool) (*batch, error) {
	c, err := f.conn()
	if err != nil {
		return nil, fmt.Errorf("open packet filter: %w", err)
	}
	t := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	return &batch{c: c, t: t, chains: map[string]bool{}, sets: map[string]*nftables.Set{}, logs: logs}, nil
}

func (b *batch) close() { _ = b.c.CloseLasting() } // what it was for is done or was reported

func (b *batch) addChain(c *vpc.Chain) {
	chain := &nftables.Chain{Name: c.Name, Table: b.t}
	if c.Hook != "" {
		chain.Type, chain.Hooknum = nftables.ChainTypeFilter, hook(c.Hook)
		chain.Priority = new(nftables.ChainPriority(c.Priority))
		policy := nftables.ChainPolicyAccept
		if c.Drop {
			policy = nftables.ChainPolicyDrop
		}
		chain.Policy = &policy
	}
	b.c.AddChain(chain)
	b.chains[c.Name] = true
	b.steps++
}

// setOf is a set as the library names it, and its elements.
func (b *batch) setOf(s *vpc.AddrSet) (*nftables.Set, []nftables.SetElement) {
	elements := make([]nftables.SetElement, 0, len(s.Addrs)+2*len(s.Ranges))
	for _, r := range s.Ranges {
		elements = append(elements, nftables.SetElement{Key: r.First.AsSlice()})
		if end := r.Last.Next(); end.IsValid() { // the kernel wants the first address that is not in it
			elements = append(elements, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	for _, a := range s.Addrs {
		elements = append(elements, nftables.SetElement{Key: a.AsSlice()})
	}
	return &nftables.Set{Table: b.t, Name: s.Name, KeyType: headerOf(s.Family).key, Interval: s.Interval}, elements
}

func (b *batch) addSet(s *vpc.AddrSet) error {
	set, elements := b.setOf(s)
	if err := addSet(b.c, set, elements); err != nil {
		return fmt.Errorf("add set %s: %w", s.Name, err)
	}
	b.sets[s.Name] = set
	b.steps++
	return nil
}

// addRule adds a rule at the end of a chain, or before the rule with that handle.
func (b *batch) addRule(chain string, r *vpc.Rule, before uint64) error {
	b.steps++
	es, err := expressions(b.c, b.t, b.sets, r)
	if err != nil {
		return err
	}
	if name, verdict := loggedIn(r); b.logs && name != "" {
		if !b.chains[name] {
			b.chains[name] = true
			logChain(b.c, b.c.AddChain(&nftables.Chain{Name: name, Table: b.t}), r.Name, verdict)
		}
		es[len(es)-1] = &expr.Verdict{Kind: expr.VerdictGoto, Chain: name}
	}
	rule := &nftables.Rule{Table: b.t, Chain: &nftables.Chain{Name: chain, Table: b.t}, Exprs: es, Position: before}
	if r.Name != "" {
		rule.UserData = userdata.AppendString(nil, userdata.TypeComment, r.Name)
	}
	if before != 0 {
		b.c.InsertRule(rule)
	} else {
		b.c.AddRule(rule)
	}
	return nil
}

func count(rules vpc.Ruleset) (n int) {
	for i := range rules.Chains {
		n += len(rules.Chains[i].Rules)
	}
	return n
}

func hook(h vpc.Hook) *nftables.ChainHook {
	switch h {
	case vpc.HookPrerouting:
		return nftables.ChainHookPrerouting
	case vpc.HookForward:
		return nftables.ChainHookForward
	case vpc.HookOutput:
		return nftables.ChainHookOutput
	case vpc.HookInput:
	}
	return nftables.ChainHookInput
}

// header is where an IP header has its addresses. The library adds no condition on the family: in an inet table an address of
// one family would be read at the same offset of the other's header, so every rule with an address names its family first.
type header struct {
	proto               byte
	key                 nftables.SetDatatype
	source, destination uint32
	length              uint32
	errors              byte // protocol of its ICMP
	tooBig              []byte
}

func headerOf(f vpc.AddressFamily) header {
	if f == vpc.FamilyIPv6 {
		return header{unix.NFPROTO_IPV6, nftables.TypeIP6Addr, 8, 24, 16, unix.IPPROTO_ICMPV6, []byte{2, 0}} // packet too big
	}
	return header{unix.NFPROTO_IPV4, nftables.TypeIPAddr, 12, 16, 4, unix.IPPROTO_ICMP, []byte{3, 4}} // fragmentation needed
}

func (h header) address(offset uint32) expr.Any {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: h.length}
}

// familyOf is the family of packets that a rule can match; empty: both.
func familyOf(r *vpc.Rule) vpc.AddressFamily {
	for _, p := range []netip.Prefix{r.Src, r.Dst} {
		if p.IsValid() {
			return vpc.FamilyOf(p.Addr())
		}
	}
	return r.Family
}

// expressions are a rule as the kernel reads it.
func expressions(c *nftables.Conn, t *nftables.Table, sets map[string]*nftables.Set, r *vpc.Rule) ([]expr.Any, error) {
	var es []expr.Any
	equal := func(b []byte) { es = append(es, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b}) }
	family := familyOf(r)
	ip := headerOf(family)
	if family != "" {
		es = append(es, &expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1})
		equal([]byte{ip.proto})
	}
	if r.TooBig {
		es = append(es, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1})
		equal([]byte{ip.errors})
		es = append(es, &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2})
		equal(ip.tooBig)
	}
	for _, l := range []struct {
		key  expr.MetaKey
		name string
	}{{expr.MetaKeyIIFNAME, r.InLink}, {expr.MetaKeyOIFNAME, r.OutLink}} {
		if l.name != "" {
			es = append(es, &expr.Meta{Key: l.key, Register: 1})
			name := make([]byte, unix.IFNAMSIZ)
			copy(name, l.name)
			equal(name)
		}
	}
	if r.Established {
		mask := binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
		es = append(es, &expr.Ct{Key: expr.CtKeySTATE, Register: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)})
	}
	if r.Opening { // SYN without ACK
		es = append(es, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1})
		equal([]byte{unix.IPPROTO_TCP})
		es = append(es, &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: flagsOffset, Len: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{flagSYN | flagACK}, Xor: []byte{0}})
		equal([]byte{flagSYN})
	}
	for _, side := range []struct {
		prefix netip.Prefix
		set    string
		offset uint32
	}{{r.Src, r.SrcSet, ip.source}, {r.Dst, r.DstSet, ip.destination}} {
		if side.prefix.IsValid() && side.prefix.Bits() > 0 {
			es = append(es, ip.address(side.offset))
			if bits, all := side.prefix.Bits(), 8*int(ip.length); bits < all {
				es = append(es, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: ip.length, Mask: net.CIDRMask(bits, all), Xor: make([]byte, ip.length)})
			}
			equal(side.prefix.Masked().Addr().AsSlice())
		}
		if side.set != "" {
			set := sets[side.set]
			if set == nil {
				return nil, fmt.Errorf("rule %q uses set %q, which is not there", r.Name, side.set)
			}
			es = append(es, ip.address(side.offset), &expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID})
		}
	}
	if r.Traffic != nil {
		es = append(es, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1})
		equal([]byte{byte(r.Traffic.Protocol)})
		if p := r.Traffic.Ports; p != vpc.AllPorts {
			es = append(es, &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2})
			first, last := binary.BigEndian.AppendUint16(nil, uint16(p.From)), binary.BigEndian.AppendUint16(nil, uint16(p.To))
			if p.From == p.To {
				equal(first)
			} else {
				es = append(es, &expr.Range{Op: expr.CmpOpEq, Register: 1, FromData: first, ToData: last})
			}
		}
	}
	if r.Action == vpc.ActionDispatch {
		return dispatch(c, t, es, r, ip)
	}
	es = append(es, &expr.Counter{})
	switch r.Action {
	case vpc.ActionAccept:
		return append(es, &expr.Verdict{Kind: expr.VerdictAccept}), nil
	case vpc.ActionDrop:
		return append(es, &expr.Verdict{Kind: expr.VerdictDrop}), nil
	case vpc.ActionReset:
		return append(es, &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}), nil
	case vpc.ActionJump:
		return append(es, &expr.Verdict{Kind: expr.VerdictJump, Chain: r.Chain}), nil
	case vpc.ActionGoto:
		return append(es, &expr.Verdict{Kind: expr.VerdictGoto, Chain: r.Chain}), nil
	case vpc.ActionDispatch:
	}
	return nil, fmt.Errorf("rule %q: unknown action %q", r.Name, r.Action)
}

// The flags in the TCP header.
const (
	flagsOffset = 13
	flagSYN     = 0x02
	flagRST     = 0x04
	flagACK     = 0x10
)

// dispatch is a lookup in a verdict map, the same cost for one interface and for many.
func dispatch(c *nftables.Conn, t *nftables.Table, es []expr.Any, r *vpc.Rule, ip header) ([]expr.Any, error) {
	m := &nftables.Set{Table: t, Anonymous: true, Constant: true, IsMap: true, KeyType: ip.key, DataType: nftables.TypeVerdict}
	elements := make([]nftables.SetElement, 0, len(r.Targets))
	for _, to := range r.Targets {
		elements = append(elements, nftables.SetElement{
			Key: to.Addr.AsSlice(), VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: to.Chain},
		})
	}
	if err := addSet(c, m, elements); err != nil {
		return nil, fmt.Errorf("add verdict map: %w", err)
	}
	offset := ip.destination
	if r.BySource {
		offset = ip.source
	}
	return append(es, ip.address(offset), &expr.Lookup{SourceRegister: 1, DestRegister: 0, IsDestRegSet: true, SetName: m.Name, SetID: m.ID}), nil
}

// generation counts the changes that anybody made to the namespace's packet filter.
func (f filter) generation() (uint32, error) {
	c, err := mdl.Dial(unix.NETLINK_NETFILTER, &mdl.Config{NetNS: int(f.ns)})
	if err != nil {
		return 0, fmt.Errorf("open packet filter: %w", err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(filterPatience)); err != nil {
		return 0, err
	}
	answers, err := c.Execute(mdl.Message{
		Header: mdl.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: mdl.Request},
		Data:   make([]byte, 4), // family, version, resource
	})
	if err != nil {
		return 0, fmt.Errorf("read the packet filter's generation: %w", err)
	}
	for _, m := range answers {
		if len(m.Data) < 4 {
			continue
		}
		ad, err := mdl.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return 0, err
		}
		ad.ByteOrder = binary.BigEndian
		for ad.Next() {
			if ad.Type() == unix.NFTA_GEN_ID {
				return ad.Uint32(), nil
			}
		}
	}
	return 0, errors.New("read the packet filter's generation: no answer")
}

// counters are packets by the names of rules, since the ruleset was put in force.
func (f filter) counters(rules vpc.Ruleset) (map[string]uint64, error) {
	c, err := f.conn()
	if err != nil {
		return nil, fmt.Errorf("open packet filter: %w", err)
	}
	defer func() { _ = c.CloseLasting() }()
	t := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	out := map[string]uint64{}
	for i := range rules.Chains {
		all, err := c.GetRules(t, &nftables.Chain{Name: rules.Chains[i].Name, Table: t})
		if err != nil {
			return nil, fmt.Errorf("read chain %s: %w", rules.Chains[i].Name, err)
		}
		for _, r := range all {
			name, _ := userdata.GetString(r.UserData, userdata.TypeComment)
			if name == "" {
				continue
			}
			for _, e := range r.Exprs {
				if n, ok := e.(*expr.Counter); ok {
					out[name] += n.Packets
				}
			}
		}
	}
	return out, nil
}
