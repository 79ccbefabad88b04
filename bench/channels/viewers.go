package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// viewers open channels.
type viewers struct {
	address  string
	ticket   string
	plain    bool
	pid      int
	count    int
	up, used bool
	duration time.Duration
	settle   time.Duration
}

// The same for every relay: TLS 1.3 with P-256, and TLS_AES_128_GCM_SHA256, which Go prefers where the processor has AES.
func (v *viewers) config() *tls.Config {
	return &tls.Config{
		InsecureSkipVerify: true, //nolint:gosec // it is not what is measured
		MinVersion:         tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.CurveP256},
	}
}

const patience = 20 * time.Second

// open opens a channel and tells the agent what is wanted.
func (v *viewers) open(want byte) (net.Conn, error) {
	tcp, err := net.DialTimeout("tcp", v.address, patience)
	if err != nil {
		return nil, err
	}
	_ = tcp.SetDeadline(time.Now().Add(patience))
	c := tcp
	if !v.plain {
		t := tls.Client(tcp, v.config())
		if err := t.Handshake(); err != nil {
			_ = tcp.Close()
			return nil, err
		}
		if s := t.ConnectionState(); s.CipherSuite != tls.TLS_AES_128_GCM_SHA256 || s.CurveID != tls.CurveP256 {
			return nil, fmt.Errorf("negotiated %s with %s", tls.CipherSuiteName(s.CipherSuite), s.CurveID)
		}
		c = t
	}
	_, err = io.WriteString(c, "GET /v1/channel/display HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"+
		"Sec-WebSocket-Protocol: penstock.1, ticket."+v.ticket+"\r\n\r\n")
	if err == nil {
		err = answered(c)
	}
	if err == nil {
		_, err = c.Write([]byte{want})
	}
	if err != nil {
		_ = tcp.Close()
		return nil, err
	}
	_ = tcp.SetDeadline(time.Time{})
	return c, nil
}

// answered reads the answer to the upgrade, and not one byte more.
func answered(c net.Conn) error {
	var got []byte
	b := make([]byte, 1)
	for !bytes.HasSuffix(got, []byte("\r\n\r\n")) {
		if _, err := io.ReadFull(c, b); err != nil {
			return err
		}
		if got = append(got, b[0]); len(got) > 4096 {
			return errors.New("the answer has no end")
		}
	}
	if !bytes.HasPrefix(got, []byte("HTTP/1.1 101")) {
		return fmt.Errorf("the upgrade was answered by %q", got)
	}
	return nil
}

func (v *viewers) bulk() (any, error) {
	var total atomic.Int64
	var wg sync.WaitGroup
	var conns []net.Conn
	defer wg.Wait()
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	for range v.count {
		want := byte('d')
		if v.up {
			want = 'u'
		}
		c, err := v.open(want)
		if err != nil {
			return nil, err
		}
		conns = append(conns, c)
		wg.Go(func() {
			b := make([]byte, 64<<10)
			for {
				var n int
				var err error
				if v.up {
					n, err = c.Write(b)
				} else {
					n, err = c.Read(b)
				}
				total.Add(int64(n))
				if err != nil {
					return
				}
			}
		})
	}
	time.Sleep(v.duration / 4)
	began, cpu, n := time.Now(), v.cpu(), total.Load()
	time.Sleep(v.duration)
	n = total.Load() - n
	cpu = v.cpu() - cpu
	return map[string]any{"bytes": n, "seconds": time.Since(began).Seconds(), "cpu": cpu}, nil
}

func (v *viewers) ping() (any, error) {
	c, err := v.open('e')
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(v.duration + patience))
	message := append([]byte{0x82, 62}, make([]byte, 62)...)
	got := make([]byte, len(message))
	var times []float64
	end := time.Now().Add(v.duration)
	cpu := v.cpu()
	for time.Now().Before(end) {
		began := time.Now()
		if _, err := c.Write(message); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(c, got); err != nil {
			return nil, err
		}
		times = append(times, float64(time.Since(began).Nanoseconds())/1000)
	}
	cpu = v.cpu() - cpu
	slices.Sort(times)
	at := func(share float64) float64 { return times[int(math.Round(share*float64(len(times)-1)))] }
	return map[string]any{"pings": len(times), "p50": at(0.5), "p99": at(0.99), "max": at(1), "cpu": cpu}, nil
}

// connect opens channels one after the other, each with a full handshake, until its first byte has come back.
func (v *viewers) connect() (any, error) {
	n := 0
	began, cpu := time.Now(), v.cpu()
	b := make([]byte, 1)
	for time.Since(began) < v.duration {
		c, err := v.open('e')
		if err != nil {
			return nil, err
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Write([]byte{1}); err != nil {
			return nil, err
		}
		if _, err := c.Read(b); err != nil {
			return nil, err
		}
		_ = c.Close()
		n++
	}
	took := time.Since(began).Seconds()
	return map[string]any{"connects": n, "seconds": took, "cpu": v.cpu() - cpu}, nil
}

// idle opens channels, leaves them alone and reads what the relay holds.
func (v *viewers) idle() (any, error) {
	before := v.resident()
	var mu sync.Mutex
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	var failed error
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(v.count))
	for range 8 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				c, err := v.prepared()
				mu.Lock()
				if err != nil {
					failed = err
					left.Store(0)
				} else {
					conns = append(conns, c)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	time.Sleep(v.settle)
	result := map[string]any{"connections": len(conns), "before": before, "after": v.resident(), "descriptors": v.descriptors()}
	if failed != nil {
		result["failed"] = failed.Error()
	}
	// All are still there, and work.
	for _, c := range conns[:min(len(conns), 100)] {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, errors.Join(errors.New("an idle connection did not stay so"), err)
		}
	}
	return result, nil
}

func (v *viewers) prepared() (net.Conn, error) {
	if !v.used {
		return v.open('b')
	}
	c, err := v.open('e')
	if err != nil {
		return nil, err
	}
	b := make([]byte, 4096)
	for range 256 {
		if _, err := c.Write(b); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// cpu is the processor time of the relay, in seconds; the kernel counts it in hundredths.
func (v *viewers) cpu() float64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", v.pid))
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100
}

// resident is the memory of the relay, in KiB.
func (v *viewers) resident() int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.pid))
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	n, _ := strconv.Atoi(strings.Fields(rest + " 0")[0])
	return n
}

func (v *viewers) descriptors() int {
	list, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", v.pid))
	return len(list)
}
