package network_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"penstock.dev/penstock/internal/control/network"
	"penstock.dev/penstock/internal/hostnet/loopback"
	"penstock.dev/penstock/internal/sqlite"
	"penstock.dev/penstock/internal/vpc"
)

// BenchmarkRuleInForce is one rule added and one taken away, each until it is in force, with some endpoints on the network.
func BenchmarkRuleInForce(b *testing.B) {
	for _, endpoints := range []int{1, 20} {
		b.Run(fmt.Sprintf("endpoints=%d", endpoints), func(b *testing.B) {
			store, err := sqlite.Open(b.Context(), sqlite.Options{Path: filepath.Join(b.TempDir(), "state.db")})
			if err != nil {
				b.Fatal(err)
			}
			defer store.Close()
			d, err := loopback.New(loopback.Config{Store: store, Spread: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			s := network.New(network.Config{Store: store, Driver: d, Region: region, AccountID: account})
			v, err := s.CreateVPC(b.Context(), "10.77.0.0/16", "", nil)
			if err != nil {
				b.Fatal(err)
			}
			n, err := s.CreateSubnet(b.Context(), v.ID, "10.77.1.0/24", "", nil)
			if err != nil {
				b.Fatal(err)
			}
			for range endpoints {
				if _, err := s.CreateVPCEndpoint(b.Context(), network.CreateEndpoint{VPC: v.ID, Service: streaming, Type: vpc.EndpointInterface, Subnets: []vpc.SubnetID{n.ID}}); err != nil {
					b.Fatal(err)
				}
			}
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			defer func() {
				cancel()
				if err := <-done; err != nil {
					b.Error(err)
				}
			}()
			q := []network.RuleRequest{{Protocol: "tcp", From: new(443), To: new(443), CIDR: "192.168.0.0/16"}}
			ref := network.GroupRef{ID: v.DefaultSecurityGroup}
			for b.Loop() {
				if _, _, err := s.Authorize(b.Context(), ref, false, q, nil); err != nil {
					b.Fatal(err)
				}
				if _, _, err := s.Revoke(b.Context(), ref, false, nil, q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
