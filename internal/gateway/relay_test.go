package gateway

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"penstock.dev/penstock/internal/vpc"
)

// sockets are the two ends of a connection of the kernel's.
func sockets(t *testing.T) (client, server *net.TCPConn) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if client, err = net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr)); err != nil {
		t.Fatal(err)
	}
	if server, err = l.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*net.TCPConn{client, server} {
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		t.Cleanup(func() { _ = c.Close() })
	}
	return client, server
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// halfCloser is either end of a plain or an encrypted connection.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// TestRelayHalfCloses: each side may finish while the other still speaks; every byte arrives, then a clean end, over TLS too; and
// the driver gets its connection back.
func TestRelayHalfCloses(t *testing.T) {
	t.Parallel()
	cert := selfSigned(t)
	for _, encrypted := range []bool{false, true} {
		for _, viewerFirst := range []bool{true, false} {
			name := map[bool]string{false: "plain", true: "TLS"}[encrypted] + map[bool]string{false: ", agent first", true: ", viewer first"}[viewerFirst]
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				far, near := sockets(t)
				agent, agentNear := sockets(t)
				closed := make(chan struct{})
				conn := vpc.NewConn(near, func() { close(closed) })
				var viewer halfCloser = far
				var gatewaySide net.Conn = conn
				if encrypted {
					viewer = tls.Client(far, &tls.Config{InsecureSkipVerify: true})
					gatewaySide = Secure(conn, &tls.Config{Certificates: []tls.Certificate{cert}})
					var wg sync.WaitGroup
					wg.Go(func() { _ = gatewaySide.(*tls.Conn).HandshakeContext(t.Context()) })
					if err := viewer.(*tls.Conn).HandshakeContext(t.Context()); err != nil {
						t.Fatal(err)
					}
					wg.Wait()
				}
				relayed := make(chan [2]int64, 1)
				go func() {
					up, down := newRelay(gatewaySide, agentNear).run("head", nil)
					relayed <- [2]int64{up, down}
				}()
				var first, second halfCloser = viewer, agent
				if !viewerFirst {
					first, second = second, first
				}
				big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
				sent := make(chan error, 1)
				go func() {
					_, err := first.Write(big)
					if err == nil {
						err = first.CloseWrite()
					}
					sent <- err
				}()
				got, err := io.ReadAll(second)
				if viewerFirst {
					got = bytes.TrimPrefix(got, []byte("head"))
				}
				if err != nil || !bytes.Equal(got, big) {
					t.Fatalf("first way: got %d bytes, %v; want %d", len(got), err, len(big))
				}
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
				if _, err := io.WriteString(second, "goodbye"); err != nil {
					t.Fatal(err)
				}
				if err := second.CloseWrite(); err != nil {
					t.Fatal(err)
				}
				got, err = io.ReadAll(first)
				if err != nil || strings.TrimPrefix(string(got), "head") != "goodbye" {
					t.Errorf("second way: got %q, %v", got, err)
				}
				if n := <-relayed; n != [2]int64{int64(len(big)), 7} && n != [2]int64{7, int64(len(big))} {
					t.Errorf("bytes: got %v", n)
				}
				<-closed
			})
		}
	}
}

// TestRawIsPlainOnly: the kernel may splice what is plain; what is encrypted has to pass through TLS.
func TestRawIsPlainOnly(t *testing.T) {
	t.Parallel()
	_, near := sockets(t)
	plain := vpc.NewConn(near, nil)
	if raw(plain) != net.Conn(near) {
		t.Error("a plain connection is not spliced")
	}
	if encrypted := tls.Server(plain, &tls.Config{}); raw(encrypted) != net.Conn(encrypted) {
		t.Error("the relay would write past TLS")
	}
}

// TestCrowdSettles: memory is given back once after a crowd has come, again after a much larger one, and not for a few.
func TestCrowdSettles(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var s relays
		settled := func() int {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.settled
		}
		var all []*relay
		come := func(n int) {
			for range n {
				r := &relay{}
				if !s.enter(r) {
					t.Fatal("not taken")
				}
				all = append(all, r)
			}
		}
		for _, step := range []struct {
			name       string
			come, want int
		}{
			{"a few", crowd - 1, 0},
			{"a crowd", 1, crowd},
			{"some more", crowd/4 - 1, crowd},
			{"a quarter more", 1, crowd + crowd/4},
		} {
			come(step.come)
			time.Sleep(settleAfter / 2)
			synctest.Wait()
			before := settled()
			time.Sleep(settleAfter)
			synctest.Wait()
			if got := settled(); got != step.want || before == got && step.want > 0 && step.name != "some more" {
				t.Errorf("%s: settled at %d (before its time: %d), want %d", step.name, got, before, step.want)
			}
		}
		for _, r := range all[1:] {
			s.exit(r)
		}
		if got := settled(); got != 1 {
			t.Errorf("after all but one have gone: settled at %d", got)
		}
		s.exit(all[0])
		s.drain()
	})
}
