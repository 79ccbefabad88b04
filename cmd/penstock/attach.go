package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"penstock.dev/penstock/internal/hostnet/kernel"
)

// attachUsage is what --attach takes.
const attachUsage = "`where` users are, with --net kernel; may be repeated: host, netns=NAME or macvlan=INTERFACE, then " +
	"networks=CIDR[+CIDR], addresses=IP[+IP] for the users' end of links, gateway=IP and nexthops=IP@VPC-CIDR[+…] for macvlan " +
	"(without --attach: this machine plays an office and a guests' network)"

// parseAttach reads one --attach. The error names the member that is wrong.
func parseAttach(s string) (kernel.Attachment, error) {
	var a kernel.Attachment
	members := strings.Split(s, ",")
	kind, name, named := strings.Cut(members[0], "=")
	switch {
	case kind == "host" && !named:
	case kind == "netns" && name != "" && !strings.ContainsAny(name, "/ "):
		a.Namespace = name
	case kind == "macvlan" && name != "":
		a.LAN = &kernel.LAN{Parent: name}
	default:
		return a, fmt.Errorf("%q is not host, netns=NAME or macvlan=INTERFACE", members[0])
	}
	for i, m := range members[1:] {
		key, value, _ := strings.Cut(m, "=")
		for _, earlier := range members[1 : 1+i] {
			if k, _, _ := strings.Cut(earlier, "="); k == key {
				return a, fmt.Errorf("%s: %s is given twice", a, key)
			}
		}
		if err := setAttach(&a, key, value); err != nil {
			return a, fmt.Errorf("%s: %s: %w", a, key, err)
		}
	}
	if len(a.Networks) == 0 && (a.Namespace != "" || a.LAN != nil || len(members) > 1) {
		return a, fmt.Errorf("%s: networks: name at least one network of users, as networks=192.168.0.0/16", a)
	}
	return a, nil
}

// setAttach sets one member.
func setAttach(a *kernel.Attachment, key, value string) error {
	if (key == "gateway" || key == "nexthops") && a.LAN == nil {
		return errors.New("is for macvlan")
	}
	for part := range strings.SplitSeq(value, "+") {
		var err error
		switch key {
		case "networks":
			var p netip.Prefix
			if p, err = parseNetwork(part); err == nil {
				a.Networks = append(a.Networks, p)
			}
		case "addresses":
			var addr netip.Addr
			if addr, err = netip.ParseAddr(part); err == nil {
				a.Addresses = append(a.Addresses, addr)
			}
		case "gateway":
			a.LAN.Gateway, err = netip.ParseAddr(part)
		case "nexthops":
			var h kernel.NextHop
			addr, block, _ := strings.Cut(part, "@")
			if h.Addr, err = netip.ParseAddr(addr); err != nil {
				return fmt.Errorf("%q is not IP@VPC-CIDR: %w", part, err)
			}
			if h.VPC, err = parseNetwork(block); err == nil {
				a.LAN.NextHops = append(a.LAN.NextHops, h)
			}
		default:
			return errors.New("unknown member; there are networks, addresses, gateway and nexthops")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func parseNetwork(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, err
	}
	if p != p.Masked() {
		return p, fmt.Errorf("%s has bits beyond its length; the network is %s", p, p.Masked())
	}
	return p, nil
}
