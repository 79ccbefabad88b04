package gateway

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"penstock.dev/penstock/internal/vpc"
)

// pipes is a door that lets pipes in.
type pipes chan *vpc.Conn

func (p pipes) Accept(ctx context.Context) (*vpc.Conn, error) {
	select {
	case c := <-p:
		return c, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestSlowHandshakes: who does not shake hands is cut off after a while and gives the driver its connection back; others are
// served meanwhile.
func TestSlowHandshakes(t *testing.T) {
	t.Parallel()
	cert := selfSigned(t)
	synctest.Test(t, func(t *testing.T) {
		door := make(pipes)
		g := New(Options{
			TLS: &tls.Config{Certificates: []tls.Certificate{cert}}, Log: slog.New(slog.DiscardHandler), PortalURL: "https://portal",
			Page: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the page") }),
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx, door) }()
		enter := func() (net.Conn, chan struct{}) {
			client, server := net.Pipe()
			closed := make(chan struct{})
			c := vpc.NewConn(server, func() { close(closed) })
			c.Port = pagePort
			door <- c
			return client, closed
		}
		start := time.Now()
		silent, silentClosed := enter()
		partial, partialClosed := enter()
		if _, err := partial.Write([]byte{22, 3, 1}); err != nil { // the first bytes of a handshake
			t.Fatal(err)
		}
		good, goodClosed := enter()
		client := tls.Client(good, &tls.Config{InsecureSkipVerify: true})
		if _, err := io.WriteString(client, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(client)
		if err != nil || time.Since(start) != 0 {
			t.Errorf("another client, meanwhile: %q, %v after %s", answer, err, time.Since(start))
		}
		<-goodClosed
		<-silentClosed
		<-partialClosed
		if waited := time.Since(start); waited > headerTimeout+time.Second {
			t.Errorf("cut off after %s, want %s", waited, headerTimeout)
		}
		_, _ = silent.Close(), partial.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
