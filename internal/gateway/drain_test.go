package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/gateway"
	"penstock.dev/penstock/internal/vpc"
)

// TestDrain: a server that ends lets what is on its way arrive, tells each viewer why, and takes no new ones.
func TestDrain(t *testing.T) {
	t.Parallel()
	for _, encrypted := range []bool{false, true} {
		t.Run(map[bool]string{false: "plain", true: "TLS"}[encrypted], func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			if encrypted {
				s = newSecureSite(t)
			}
			idle := s.mustOpen(t)
			busy := s.mustOpen(t)
			// An echo of 900 kB is on its way when the end comes.
			want := bytes.Repeat([]byte("0123456789"), 90_000)
			busy.SetReadLimit(1 << 20)
			if err := busy.Write(t.Context(), websocket.MessageBinary, want); err != nil {
				t.Fatal(err)
			}
			began := make(chan struct{})
			go func() {
				defer close(began)
				for s.echoing.Load() == 0 && t.Context().Err() == nil {
					time.Sleep(time.Millisecond)
				}
			}()
			select {
			case <-began:
			case <-time.After(patience):
				t.Fatal("the agent got nothing")
			}
			s.stop()
			got, err := s.read(busy)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("what was on its way: got %d bytes, %v; want %d", len(got), err, len(want))
			}
			for name, c := range map[string]*websocket.Conn{"busy": busy, "idle": idle} {
				if _, err := s.read(c); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
					t.Errorf("%s viewer: got %v, want close code 1012", name, err)
				}
			}
			s.waitEnded(t)
			select {
			case s.conns <- nil:
				t.Error("connections are still accepted")
			default:
			}
		})
	}
}

// TestDrainPassesTheAgentsGoodbye: when the agents end too, viewers hear it from them.
func TestDrainPassesTheAgentsGoodbye(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	c := s.mustOpen(t)
	s.stop()
	if err := c.Write(t.Context(), websocket.MessageBinary, []byte("bye")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.read(c); websocket.CloseStatus(err) != 4410 {
		t.Errorf("got %v, want the agent's close code 4410", err)
	}
	s.waitEnded(t)
}

// TestDrainIsBounded: viewers that do not answer, do not read, or do not even shake hands hold nothing up.
func TestDrainIsBounded(t *testing.T) {
	t.Parallel()
	s := newSecureSite(t)
	silent := s.mustOpen(t) // and reads nothing from now on
	stuck := s.mustOpen(t)
	if err := stuck.Write(t.Context(), websocket.MessageBinary, []byte("flood")); err != nil {
		t.Fatal(err)
	}
	half, err := net.Dial("tcp", s.page.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = half.Close() }()
	if _, err := half.Write([]byte{22, 3, 1}); err != nil {
		t.Fatal(err)
	}
	late := time.Now().Add(patience)
	for last, since := int64(-1), time.Now(); time.Since(since) < 200*time.Millisecond; time.Sleep(time.Millisecond) {
		if n := s.flooded.Load(); n == 0 || n != last { // it has not stopped yet
			last, since = n, time.Now()
		}
		if s.flooded.Load() > 64<<20 || time.Now().After(late) {
			t.Fatalf("the agent sent %d bytes and did not stop", s.flooded.Load())
		}
	}
	s.stop()
	s.waitEnded(t)
	_, _ = silent.CloseNow(), stuck.CloseNow()
}

// TestNoRelayBeginsAfterTheEnd: also not by the internet endpoint, which another server serves.
func TestNoRelayBeginsAfterTheEnd(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.sessions["live"].Endpoint = appstream.InternetEndpoint
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: s.gateway.Internet()}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	s.stop()
	s.waitEnded(t)
	c, _, err := s.open(l, "control", s.ticket(func(tk *appstream.Ticket) { tk.Endpoint = appstream.InternetEndpoint }), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.read(c); websocket.CloseStatus(err) != websocket.StatusServiceRestart {
		t.Errorf("got %v, want close code 1012", err)
	}
}

// TestRunEndsWithItsDoor: a driver that fails ends Run with its error, after the relays.
func TestRunEndsWithItsDoor(t *testing.T) {
	t.Parallel()
	g := gateway.New(gateway.Options{Log: slog.New(slog.DiscardHandler)})
	broken := errors.New("no more addresses")
	if err := g.Run(t.Context(), failing{broken}); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

// failing is a door that cannot be opened.
type failing struct{ err error }

func (f failing) Accept(context.Context) (*vpc.Conn, error) { return nil, f.err }
