package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestNamesFollowEndpoints asks the region's name server while an endpoint is made smaller and deleted, from two networks.
func TestNamesFollowEndpoints(t *testing.T) {
	needE2E(t)
	dns := freePort(t)
	s := start(t, t.TempDir(), "--dns-addr", dns)
	b, err := os.ReadFile(filepath.Join(s.dir, "dev.json"))
	if err != nil {
		t.Fatal(err)
	}
	var info struct{ DNSAddr string }
	if err := json.Unmarshal(b, &info); err != nil || info.DNSAddr != dns {
		t.Fatalf("dnsAddr of dev.json: got %q, %v; want %q", info.DNSAddr, err, dns)
	}
	var d struct {
		VpcEndpoints []struct {
			SubnetIds  []string                   //nolint:revive // as the API spells it
			DnsEntries []struct{ DnsName string } //nolint:revive // as the API spells it
		}
	}
	s.aws(&d, "ec2", "describe-vpc-endpoints", "--vpc-endpoint-ids", s.info.VPCEndpointID)
	entries := d.VpcEndpoints[0].DnsEntries
	regional, zonal := entries[0].DnsName, entries[1].DnsName
	private := "any" + entries[len(entries)-1].DnsName[1:]
	first, second := s.info.EndpointAddresses[0].Dial, s.info.EndpointAddresses[1].Dial

	office, inside := lookup(dns, "127.0.0.5"), lookup(dns, net.IP{127, net.ParseIP(first).To4()[1], 0, 9}.String())
	for _, tt := range []struct {
		name string
		want []string
	}{{regional, []string{first, second}}, {zonal, []string{first}}, {private, []string{first, second}}} {
		for where, ask := range map[string]func(*testing.T, string) []string{"office": office, "inside the VPC": inside} {
			if got := ask(t, tt.name); !slices.Equal(got, tt.want) {
				t.Errorf("%s, %s: got %v, want %v", where, tt.name, got, tt.want)
			}
		}
	}
	if got := lookup(dns, "127.250.0.1")(t, regional); len(got) != 0 {
		t.Errorf("a network that is attached to nothing: got %v, want no answer", got)
	}
	s.aws(nil, "ec2", "modify-vpc-endpoint", "--vpc-endpoint-id", s.info.VPCEndpointID, "--remove-subnet-ids", d.VpcEndpoints[0].SubnetIds[1])
	until(t, "the second address to go", func() bool { return slices.Equal(office(t, regional), []string{first}) })
	s.aws(nil, "ec2", "delete-vpc-endpoints", "--vpc-endpoint-ids", s.info.VPCEndpointID)
	until(t, "the names to go", func() bool { return len(office(t, regional)) == 0 && len(inside(t, private)) == 0 })
}

// lookup asks a name server from an address; no answer when there is no such name, or when it refuses.
func lookup(server, source string) func(*testing.T, string) []string {
	r := &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		d := &net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(source)}}
		if network == "tcp" {
			d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(source)}
		}
		return d.DialContext(ctx, network, server)
	}}
	return func(t *testing.T, name string) []string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		got, err := r.LookupHost(ctx, name+".")
		if e, ok := errors.AsType[*net.DNSError](err); err != nil && (!ok || e.IsTimeout) {
			t.Fatalf("%s: %v", name, err)
		}
		slices.Sort(got)
		return got
	}
}
