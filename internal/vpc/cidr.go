package vpc

import (
	"crypto/sha256"
	"net/netip"
	"strings"

	"penstock.dev/penstock/internal/fault"
)

// reserved are ranges that no VPC may take, and why.
func reserved() []struct {
	cidr netip.Prefix
	why  string
} {
	return []struct {
		cidr netip.Prefix
		why  string
	}{
		{netip.MustParsePrefix("169.254.0.0/16"), "169.254.0.0/16 is reserved for link-local addresses"},
		{netip.MustParsePrefix("198.19.0.0/16"), "198.19.0.0/16 is the management network of streaming instances"},
		{netip.MustParsePrefix("127.0.0.0/8"), "127.0.0.0/8 is reserved for loopback addresses"},
		{netip.MustParsePrefix("0.0.0.0/8"), "0.0.0.0/8 is reserved"},
		{netip.MustParsePrefix("224.0.0.0/3"), "224.0.0.0/3 is reserved"},
	}
}

// ParseCIDR reads an IPv4 block and masks it: 10.0.0.7/16 is 10.0.0.0/16.
func ParseCIDR(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is4() {
		return netip.Prefix{}, fault.Newf(fault.Invalid, "", "", "Value (%s) for parameter cidrBlock is invalid. This is not a valid CIDR block.", s).WithCode("InvalidParameterValue")
	}
	return p.Masked(), nil
}

// ParseCIDR6 reads an IPv6 block and masks it.
func ParseCIDR6(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is6() || p.Addr().Is4In6() {
		return netip.Prefix{}, fault.Newf(fault.Invalid, "", "", "Value (%.60s) for parameter ipv6CidrBlock is invalid. This is not a valid IPv6 CIDR block.", s).WithCode("InvalidParameterValue")
	}
	return p.Masked(), nil
}

func badRange(format string, args ...any) error {
	return fault.Newf(fault.Invalid, "", "", format, args...).WithCode("InvalidVpc.Range")
}

// CheckVPCCIDR applies the rules of CreateVpc: /16 to /28, outside the reserved ranges.
func CheckVPCCIDR(p netip.Prefix) error {
	if p.Bits() < 16 || p.Bits() > 28 {
		return badRange("The CIDR '%s' is invalid. A VPC's block is between a /16 and a /28.", p)
	}
	for _, r := range reserved() {
		if r.cidr.Overlaps(p) {
			return badRange("The CIDR '%s' is invalid: %s.", p, r.why)
		}
	}
	return nil
}

// private are the ranges of which a VPC's IPv4 blocks must all be in one, or in none (RFC 1918).
func private() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16")}
}

// BlocksPerVPC is how many blocks of each family a VPC may have.
const BlocksPerVPC = 5

// CheckSecondaryCIDR applies the rules of AssociateVpcCidrBlock for another IPv4 block of a VPC: those of CreateVpc, apart from
// the VPC's other blocks, and private addresses only of the range that the first block is of.
func CheckSecondaryCIDR(v *VPC, p netip.Prefix) error {
	if err := CheckVPCCIDR(p); err != nil {
		return err
	}
	if len(v.Secondary)+1 >= BlocksPerVPC {
		return tooManyBlocks(v.ID)
	}
	for _, b := range v.Blocks() {
		if b.Overlaps(p) {
			return badRange("The CIDR '%s' conflicts with the CIDR block %s of the VPC.", p, b)
		}
	}
	for _, r := range private() {
		if r.Overlaps(p) && !r.Contains(v.CIDR.Addr()) {
			return badRange("The CIDR '%s' is restricted. Use a CIDR from the same private address range as the current VPC CIDR, or use a publicly-routable CIDR.", p)
		}
	}
	return nil
}

func tooManyBlocks(id VPCID) error {
	return fault.Newf(fault.Limit, "", "", "This network '%s' has met its maximum number of allowed CIDRs: %d", id, BlocksPerVPC).WithCode("CidrLimitExceeded")
}

// AmazonPool is the pool of the IPv6 blocks that a VPC is given.
const AmazonPool = "Amazon"

// CheckVPCIPv6 applies the rules for an IPv6 block of a VPC that its owner brings: /44 to /60 in steps of 4, global or
// unique local addresses, apart from those of all VPCs.
func CheckVPCIPv6(p netip.Prefix, others []*VPC) error {
	if p.Bits() < 44 || p.Bits() > 60 || p.Bits()%4 != 0 {
		return badRange("The IPv6 CIDR '%s' is invalid. A VPC's IPv6 block is a /44, /48, /52, /56 or /60.", p)
	}
	if !netip.MustParsePrefix("2000::/3").Contains(p.Addr()) && !netip.MustParsePrefix("fc00::/7").Contains(p.Addr()) {
		return badRange("The IPv6 CIDR '%s' is invalid. It has neither global nor unique local addresses.", p)
	}
	for _, v := range others {
		for _, b := range v.IPv6 {
			if b.CIDR.Overlaps(p) {
				return badRange("The IPv6 CIDR '%s' conflicts with the CIDR block %s of %s.", p, b.CIDR, v.ID)
			}
		}
	}
	return nil
}

// CheckIPv6Count says whether a VPC may have another IPv6 block.
func CheckIPv6Count(v *VPC) error {
	if len(v.IPv6) >= BlocksPerVPC {
		return tooManyBlocks(v.ID)
	}
	return nil
}

// AmazonBlock is an IPv6 block for a VPC that asks to be given one: a /56 of the account's own /48 of unique local addresses
// (RFC 4193: fd, and 40 bits that follow from the account), that no VPC has.
func AmazonBlock(account string, vpcs []*VPC) (netip.Prefix, error) {
	h := sha256.Sum256([]byte("penstock IPv6 of account " + account))
	a := [16]byte{0: 0xfd}
	copy(a[1:6], h[:5])
	for n := range 256 {
		a[6] = byte(n)
		p := netip.PrefixFrom(netip.AddrFrom16(a), 56)
		if CheckVPCIPv6(p, vpcs) == nil {
			return p, nil
		}
	}
	return netip.Prefix{}, fault.New(fault.Limit, "", "", "All IPv6 CIDR blocks of the account are in use").WithCode("AddressLimitExceeded")
}

// CheckSubnetCIDR applies the rules of CreateSubnet: /16 to /28, inside a block of the VPC, apart from its other subnets.
func CheckSubnetCIDR(vpc *VPC, p netip.Prefix, others []*Subnet) error {
	if p.Bits() < 16 || p.Bits() > 28 {
		return badSubnet("The CIDR '%s' is invalid. A subnet's block is between a /16 and a /28.", p)
	}
	return placeSubnet(vpc, p, others)
}

// CheckSubnetIPv6 applies the rules for the IPv6 block of a subnet: /44 to /64 in steps of 4, inside a block of the VPC, apart
// from its other subnets.
func CheckSubnetIPv6(vpc *VPC, p netip.Prefix, others []*Subnet) error {
	if p.Bits() < 44 || p.Bits() > 64 || p.Bits()%4 != 0 {
		return badSubnet("The IPv6 CIDR '%s' is invalid. A subnet's IPv6 block is a /44 to a /64, in steps of four bits.", p)
	}
	return placeSubnet(vpc, p, others)
}

func badSubnet(format string, args ...any) error {
	return fault.Newf(fault.Invalid, "", "", format, args...).WithCode("InvalidSubnet.Range")
}

func placeSubnet(vpc *VPC, p netip.Prefix, others []*Subnet) error {
	if _, inside := vpc.BlockOf(p); !inside {
		var same []string
		for _, b := range vpc.Blocks() {
			if b.Addr().Is4() == p.Addr().Is4() {
				same = append(same, b.String())
			}
		}
		if len(same) == 0 {
			return badSubnet("The CIDR '%s' is invalid. The VPC %s has no IPv6 CIDR block.", p, vpc.ID)
		}
		return badSubnet("The CIDR '%s' is invalid. It is not inside a block of the VPC: %s.", p, strings.Join(same, ", "))
	}
	for _, s := range others {
		if s.CIDR.Overlaps(p) || s.IPv6.Overlaps(p) {
			return fault.Newf(fault.Conflict, "", "", "The CIDR '%s' conflicts with another subnet", p).WithCode("InvalidSubnet.Conflict")
		}
	}
	return nil
}

// Usable is the number of IPv4 addresses that a subnet has for interfaces: all but the first four and the last.
func Usable(s *Subnet) int {
	if s.Native() {
		return 0
	}
	return 1<<(32-s.CIDR.Bits()) - 5
}

// usable are the first and the last address of a block that interfaces may have: all but its first four and its last.
func usable(p netip.Prefix) (first, last netip.Addr) {
	first, last = p.Masked().Addr(), lastAddr(p)
	for range 4 {
		first = first.Next()
	}
	return first, last.Prev()
}

// CheckAddress says whether an interface may take the address in a subnet's block: inside, not one of the five reserved, free.
func CheckAddress(block netip.Prefix, a netip.Addr, taken func(netip.Addr) bool) error {
	first, last := usable(block)
	switch {
	case !block.Contains(a):
		return fault.Newf(fault.Invalid, "", "", "Address %s does not fall within the subnet's address range %s", a, block).WithCode("InvalidParameterValue")
	case a.Less(first) || last.Less(a):
		return fault.Newf(fault.Invalid, "", "", "Address %s is in subnet's reserved address range", a).WithCode("InvalidParameterValue")
	case taken(a):
		return fault.Newf(fault.InUse, "", "", "Address %s is in use.", a).WithCode("InvalidIPAddress.InUse")
	}
	return nil
}

// FreeAddress is the lowest address of a subnet's block that an interface may take.
func FreeAddress(subnet SubnetID, block netip.Prefix, taken func(netip.Addr) bool) (netip.Addr, error) {
	first, last := usable(block)
	for a := first; !last.Less(a); a = a.Next() {
		if !taken(a) {
			return a, nil
		}
	}
	return netip.Addr{}, fault.Newf(fault.Limit, "", "", "The subnet %s has no free addresses", subnet).WithCode("InsufficientFreeAddressesInSubnet")
}

// Rebase puts the low bits of an IPv4 address into another network of the same size.
func Rebase(a netip.Addr, to netip.Prefix) netip.Addr {
	low, high := a.As4(), to.Addr().As4()
	bits := to.Bits()
	for i := range low {
		mask := byte(0)
		switch {
		case bits >= 8*(i+1):
			mask = 0xff
		case bits > 8*i:
			mask = 0xff << (8 - (bits - 8*i))
		}
		low[i] = high[i]&mask | low[i]&^mask
	}
	return netip.AddrFrom4(low)
}
