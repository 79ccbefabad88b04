package loopback

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"penstock.dev/penstock/internal/vpc"
	"penstock.dev/penstock/internal/vpc/vpctest"
)

// TestBlocksAreToldApart: two blocks of one VPC have the same low bits; each is played by a /16 of its own, also after a restart.
func TestBlocksAreToldApart(t *testing.T) {
	t.Parallel()
	store, spread := openStore(t), t.TempDir()
	n := vpctest.NewNetwork(77)
	n.VPC.Secondary = []vpc.CIDRBlock{{CIDR: netip.MustParsePrefix("10.78.0.0/16")}}
	n.Subnets[1].CIDR, n.Interfaces[1].Addr = netip.MustParsePrefix("10.78.1.0/24"), netip.MustParseAddr("10.78.1.10")
	var at [2]netip.Addr
	for run := range 2 {
		d, _ := start(t, Config{Store: store, Spread: spread})
		if err := d.Apply(t.Context(), vpctest.PlanOf(n)); err != nil {
			t.Fatal(err)
		}
		for i := range n.Interfaces {
			if err := d.Check(t.Context(), n.Interfaces[i].ID); err != nil {
				t.Fatal(err)
			}
			dial, ok := d.DialAddr(n.VPC.ID, n.At(i, 443))
			if !ok || run == 1 && dial.Addr() != at[i] {
				t.Errorf("run %d: %s is dialled at %s, was %s", run, n.At(i, 443), dial, at[i])
			}
			at[i] = dial.Addr()
			c, err := dialFrom(t.Context(), d, netip.MustParseAddrPort("192.168.0.7:0"), n.VPC.ID, n.At(i, 443))
			if err != nil {
				t.Fatal(err)
			}
			served, err := d.Accept(t.Context())
			if err != nil || served.Interface != n.Interfaces[i].ID || served.Local != n.At(i, 443) {
				t.Errorf("run %d: connection to %s arrived at %+v, %v", run, n.At(i, 443), served, err)
			}
			_ = errors.Join(c.Close(), served.Close()) // both ends of it are ours
		}
		if at[0] == at[1] {
			t.Fatalf("two blocks are both at %s", at[0])
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestIPv6IsSaidNotToBeCarried: an interface with both addresses serves IPv4 and the log says what it does not; one with IPv6
// alone fails with the reason.
func TestIPv6IsSaidNotToBeCarried(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	d, _ := start(t, Config{Log: slog.New(slog.NewTextHandler(&log, nil))})
	n := vpctest.NewNetwork(77)
	six := vpctest.NewNetwork6(77)
	n.VPC.IPv6, n.Subnets[0].IPv6, n.Interfaces[0].Addr6 = six.VPC.IPv6, six.Subnets[0].IPv6, six.Interfaces[0].Addr6
	n.Subnets[1], n.Interfaces[1] = six.Subnets[1], six.Interfaces[1]
	for range 2 {
		if err := d.Apply(t.Context(), vpctest.PlanOf(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Check(t.Context(), n.Interfaces[0].ID); err != nil {
		t.Errorf("an interface with both addresses: %v", err)
	}
	if err := d.Check(context.Background(), n.Interfaces[1].ID); !errors.Is(err, ErrNoIPv6) || !strings.Contains(err.Error(), n.Interfaces[1].Addr6.String()) {
		t.Errorf("an interface with IPv6 alone: %v", err)
	}
	if _, ok := d.DialAddr(n.VPC.ID, netip.AddrPortFrom(n.Interfaces[0].Addr6, 443)); ok {
		t.Error("an IPv6 address is dialled somewhere")
	}
	if got := strings.Count(log.String(), "served at its IPv4 address alone"); got != 1 {
		t.Errorf("said %d times that IPv6 is not served, want once:\n%s", got, log.String())
	}
}
