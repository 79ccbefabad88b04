package main

import (
	"net/netip"
	"slices"

	"penstock.dev/penstock/internal/hostnet/kernel"
	"penstock.dev/penstock/internal/hostnet/loopback"
	"penstock.dev/penstock/internal/hostnet/rootless"
	"penstock.dev/penstock/internal/vpc"
)

// hostNetwork is what the network drivers share here.
type hostNetwork interface {
	vpc.Driver
	vpc.FlowMeter
	// Hint is what an operator can do to be served better; empty when nothing is to be done.
	Hint(binary string) string
}

// The values of --net.
const (
	netLoopback = "loopback"
	netKernel   = "kernel"
	netRootless = "rootless"
)

// openNetwork makes the chosen driver. Nothing of the machine's network changes before its first plan.
func (r *region) openNetwork() (hostNetwork, error) {
	c := r.config
	switch c.net {
	case netKernel:
	case netRootless:
		return rootless.New(rootless.Config{Host: c.host, Store: r.store, DataDir: c.dataDir, Meter: c.flowLogs.on, Refused: r.refused, Log: r.log})
	default:
		return loopback.New(loopback.Config{Store: r.store, Spread: c.dataDir, Meter: c.flowLogs.on, Refused: r.refused, Log: r.log})
	}
	if err := kernel.Available(); err != nil {
		return nil, err
	}
	attachments, err := r.attachments()
	if err != nil {
		return nil, err
	}
	return kernel.New(kernel.Config{DataDir: c.dataDir, Attachments: attachments, Meter: c.flowLogs.on, Refused: r.refused, Log: r.log})
}

// attachments are where users are. A browser on this machine reaches the portal from a loopback address, and endpoints from one of the
// addresses of the machine's own attachments.
func (r *region) attachments() ([]kernel.Attachment, error) {
	all := slices.Clone(r.config.attach)
	if len(all) == 0 {
		all = append(all, kernel.Attachment{})
	}
	for i := range all {
		if all[i].Namespace != "" || all[i].LAN != nil {
			continue
		}
		if len(all[i].Networks) == 0 {
			var err error
			if all[i], err = kernel.HostAttachment(r.config.dataDir); err != nil {
				return nil, err
			}
		}
		r.hostSources = append(r.hostSources, all[i].Addresses...)
	}
	return all, nil
}

// userSource is the address by which a visitor of the public plane would reach an address of an endpoint (zero: any).
func (r *region) userSource(a, to netip.Addr) netip.Addr {
	if len(r.hostSources) > 0 {
		if a.IsLoopback() {
			for _, s := range r.hostSources {
				if !to.IsValid() || s.Is4() == to.Is4() {
					return s
				}
			}
			return r.hostSources[0]
		}
		return a
	}
	for _, n := range r.driver.UserNetworks() {
		if n.Dial.Contains(a) {
			return vpc.Rebase(a, n.CIDR)
		}
	}
	return a
}
