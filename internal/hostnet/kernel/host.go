package kernel

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
)

// HostAttachment lets the namespace of the process play two networks of users: the office (192.168.0.0/16, as its address
// 192.168.0.1, unless the machine uses that network) and the guests (172.16.0.0/16). Where the machine has IPv6, each has a /64
// besides, of a /48 of unique local addresses that follows from the data directory; they come after both IPv4 networks.
// What the data directory's earlier run left is not in the way.
func HostAttachment(dataDir string) (Attachment, error) {
	dir, err := filepath.Abs(dataDir)
	if err != nil {
		return Attachment{}, err
	}
	h, ns, err := openSpace("")
	if err != nil {
		return Attachment{}, err
	}
	defer ns.Close()
	defer h.Close()
	var a Attachment
	for _, candidates := range [][]string{
		{"192.168.0.0/16", "172.18.0.0/16", "10.192.0.0/16", "10.224.0.0/16", "100.64.0.0/16"},
		{"172.16.0.0/16", "172.19.0.0/16", "10.193.0.0/16", "10.225.0.0/16", "100.65.0.0/16"},
	} {
		var why []error
		found := false
		for _, c := range candidates {
			p, err := netip.ParsePrefix(c)
			if err != nil {
				return Attachment{}, err
			}
			if err := overlap(h, owner(dir), p); err != nil {
				why = append(why, err)
				continue
			}
			a.Networks, a.Addresses, found = append(a.Networks, p), append(a.Addresses, p.Addr().Next()), true
			break
		}
		if !found {
			return Attachment{}, fmt.Errorf("find a network for users: %w", errors.Join(why...))
		}
	}
	if !hasIPv6() {
		return a, nil
	}
	site := sha256.Sum256([]byte("penstock networks of users " + dir))
	for n := range byte(2) {
		six := [16]byte{0: 0xfd, 7: n + 1}
		copy(six[1:6], site[:])
		p := netip.PrefixFrom(netip.AddrFrom16(six), 64)
		if err := overlap(h, owner(dir), p); err != nil {
			return Attachment{}, fmt.Errorf("find an IPv6 network for users: %w", err)
		}
		a.Networks, a.Addresses = append(a.Networks, p), append(a.Addresses, p.Addr().Next())
	}
	return a, nil
}
