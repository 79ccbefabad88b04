package vpc

import (
	"encoding/binary"
	"net/netip"

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

// CheckVPCCIDR applies the rules of CreateVpc: /16 to /28, outside the reserved ranges.
func CheckVPCCIDR(p netip.Prefix) error {
	if p.Bits() < 16 || p.Bits() > 28 {
		return fault.Newf(fault.Invalid, "", "", "The CIDR '%s' is invalid. A VPC's block is between a /16 and a /28.", p).WithCode("InvalidVpc.Range")
	}
	for _, r := range reserved() {
		if r.cidr.Overlaps(p) {
			return fault.Newf(fault.Invalid, "", "", "The CIDR '%s' is invalid: %s.", p, r.why).WithCode("InvalidVpc.Range")
		}
	}
	return nil
}

// CheckSubnetCIDR applies the rules of CreateSubnet: /16 to /28, inside the VPC, apart from its other subnets.
func CheckSubnetCIDR(vpc *VPC, p netip.Prefix, others []*Subnet) error {
	if p.Bits() < 16 || p.Bits() > 28 {
		return fault.Newf(fault.Invalid, "", "", "The CIDR '%s' is invalid. A subnet's block is between a /16 and a /28.", p).WithCode("InvalidSubnet.Range")
	}
	if p.Bits() < vpc.CIDR.Bits() || !vpc.CIDR.Contains(p.Addr()) {
		return fault.Newf(fault.Invalid, "", "", "The CIDR '%s' is invalid. It is not inside the VPC's block %s.", p, vpc.CIDR).WithCode("InvalidSubnet.Range")
	}
	for _, s := range others {
		if s.CIDR.Overlaps(p) {
			return fault.Newf(fault.Conflict, "", "", "The CIDR '%s' conflicts with another subnet", p).WithCode("InvalidSubnet.Conflict")
		}
	}
	return nil
}

func u32(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

func addr4(v uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], v)
	return netip.AddrFrom4(b)
}

// bounds are the first and the last address of an IPv4 block.
func bounds(p netip.Prefix) (first, last uint32) {
	first = u32(p.Masked().Addr())
	return first, first | uint32(uint64(1)<<(32-p.Bits())-1)
}

// Usable is the number of addresses that a subnet has for interfaces: all but the first four and the last.
func Usable(p netip.Prefix) int { return 1<<(32-p.Bits()) - 5 }

// CheckAddress says whether an interface may take the address in the subnet: inside, not one of the five reserved, free.
func CheckAddress(subnet *Subnet, a netip.Addr, taken func(netip.Addr) bool) error {
	first, last := uint32(0), uint32(0)
	if a.Is4() {
		first, last = bounds(subnet.CIDR)
	}
	switch v := a; {
	case !v.Is4() || u32(v) < first || u32(v) > last:
		return fault.Newf(fault.Invalid, "", "", "Address %s does not fall within the subnet's address range %s", a, subnet.CIDR).WithCode("InvalidParameterValue")
	case u32(v) < first+4 || u32(v) == last:
		return fault.Newf(fault.Invalid, "", "", "Address %s is in subnet's reserved address range", a).WithCode("InvalidParameterValue")
	case taken(a):
		return fault.Newf(fault.InUse, "", "", "Address %s is in use.", a).WithCode("InvalidIPAddress.InUse")
	}
	return nil
}

// FreeAddress is the lowest address of the subnet that an interface may take.
func FreeAddress(subnet *Subnet, taken func(netip.Addr) bool) (netip.Addr, error) {
	first, last := bounds(subnet.CIDR)
	for v := first + 4; v < last; v++ {
		if a := addr4(v); !taken(a) {
			return a, nil
		}
	}
	return netip.Addr{}, fault.Newf(fault.Limit, "", "", "The subnet %s has no free addresses", subnet.ID).WithCode("InsufficientFreeAddressesInSubnet")
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
