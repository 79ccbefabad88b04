package loopback

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"penstock.dev/penstock/internal/flowlog"
	"penstock.dev/penstock/internal/vpc/vpctest"
)

// BenchmarkFlowLogsConnect is connections from their dial until both ends are closed, in turns with flow logs of an interval of a
// second and without, so that what else the machine does hits both: only the ratio means something.
func BenchmarkFlowLogsConnect(b *testing.B) {
	const many = 50
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	var spent [2]time.Duration
	var drivers [2]*Driver
	n := vpctest.NewNetwork(77)
	for i := range drivers {
		d, _ := start(b, Config{Meter: i == 1})
		drivers[i] = d
		if err := d.Apply(b.Context(), vpctest.PlanOf(n)); err != nil {
			b.Fatal(err)
		}
		work.Go(func() {
			for {
				c, err := d.Accept(ctx)
				if err != nil {
					return
				}
				_ = c.Close() // that it came about is all
			}
		})
	}
	log, err := flowlog.New(flowlog.Config{Dir: filepath.Join(b.TempDir(), "flow-logs"), AccountID: "123456789012", Source: drivers[1], Interval: time.Second})
	if err != nil {
		b.Fatal(err)
	}
	work.Go(func() { log.Run(ctx) })
	for b.Loop() {
		for i, d := range drivers {
			began := time.Now()
			for range many {
				c, err := dialFrom(b.Context(), d, netip.MustParseAddrPort("192.168.0.1:0"), n.VPC.ID, n.At(0, 443))
				if err != nil {
					b.Fatal(err)
				}
				_ = c.SetReadDeadline(time.Now().Add(20 * time.Second)) // the read ends with the connection
				_, err = c.Read(make([]byte, 1))
				if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
					b.Fatal(err)
				}
				_ = c.Close()
			}
			spent[i] += time.Since(began)
		}
	}
	off, on := many*float64(b.N)/spent[0].Seconds(), many*float64(b.N)/spent[1].Seconds()
	b.ReportMetric(off, "off-connects/s")
	b.ReportMetric(on, "on-connects/s")
	b.ReportMetric(on/off, "on/off")
}
