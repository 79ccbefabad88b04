package slowlink

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"penstock.dev/penstock/internal/agent"
	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/gateway"
	"penstock.dev/penstock/internal/media"
	"penstock.dev/penstock/internal/transport"
	"penstock.dev/penstock/internal/vpc"
)

const (
	endpointID = "vpce-00000000000000001"
	sessionID  = "slowlink"
	// controlPort and displayPort are as an endpoint has them.
	controlPort = 443
	displayPort = 1400
	openTime    = 20 * time.Second
)

// Session is a session with its agent and its gateway, at the near end of a link.
type Session struct {
	Link   *Link
	Screen *Screen
	Gone   chan struct{} // closed when the agent has said that its viewer is gone

	control ed25519.PrivateKey
	started time.Time // the beginning of the agent's clock
	cancel  context.CancelFunc
	running sync.WaitGroup
	dir     string
	web     *http.Server
}

// Start runs a session at the near end of the link. NewEncoder is the agent's. Close ends it; the link stays.
func Start(l *Link, newEncoder func(media.Codecs) (media.Encoder, error)) (*Session, error) {
	s := &Session{Link: l, Screen: newScreen(), Gone: make(chan struct{})}
	var err error
	if s.dir, err = os.MkdirTemp("", "penstock-slowlink-"); err != nil {
		return nil, err
	}
	fail := func(err error) (*Session, error) { _ = os.RemoveAll(s.dir); return nil, err }
	public, control, err := ed25519.GenerateKey(nil)
	if err != nil {
		return fail(err)
	}
	s.control = control
	quiet := slog.New(slog.DiscardHandler)
	s.started = time.Now()
	a, err := agent.New(agent.Options{Screen: s.Screen, Input: s.Screen, NewEncoder: newEncoder, Log: quiet})
	if err != nil {
		return fail(err)
	}
	if err := a.Begin(appstream.SessionSpec{
		ID: sessionID, Endpoint: endpointID, ControlKey: public, DisplayPort: displayPort,
		Application: appstream.Application{Name: "film"}, DisconnectTimeout: time.Hour,
	}); err != nil {
		return fail(err)
	}
	socket := filepath.Join(s.dir, "viewer.sock")
	local, err := net.Listen("unix", socket)
	if err != nil {
		return fail(err)
	}
	config, err := certificate()
	if err != nil {
		return fail(err)
	}
	door, err := openDoor(l)
	if err != nil {
		_ = local.Close()
		return fail(err)
	}
	g := gateway.New(gateway.Options{
		Sessions: one{a.PublicKey()}, Agents: dialer(socket), ControlKey: public,
		Page: http.NotFoundHandler(), TLS: config, Log: quiet,
	})
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.web = &http.Server{Handler: transport.NewHandler(a, quiet), ReadHeaderTimeout: openTime}
	s.running.Go(func() { _ = a.Run(ctx) })
	gone := sync.OnceFunc(func() { close(s.Gone) })
	s.running.Go(func() {
		for {
			select {
			case e := <-a.Events():
				if e.Kind == agent.Disconnected {
					gone()
				}
			case <-ctx.Done():
				return
			}
		}
	})
	s.running.Go(func() { _ = s.web.Serve(local) })
	s.running.Go(func() { _ = g.Run(ctx, door) })
	return s, nil
}

// Close ends agent and gateway.
func (s *Session) Close() {
	s.cancel()
	_ = s.web.Close()
	s.running.Wait()
	_ = os.RemoveAll(s.dir)
}

func (s *Session) ticket() (string, error) {
	return appstream.SignTicket(s.control, appstream.Ticket{
		ID: crand.Text(), KeyID: appstream.KeyControl, Session: sessionID, Endpoint: endpointID,
		Channel: appstream.ChannelControl, Expires: time.Now().Add(time.Hour),
	})
}

// certificate is one that signs itself.
func certificate() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		return nil, err
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.ParseIP(Near)},
	}
	der, err := x509.CreateCertificate(crand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS13,
	}, nil
}

// one is a store with one session.
type one struct{ key ed25519.PublicKey }

func (o one) Session(_ context.Context, id appstream.SessionID) (*appstream.Session, bool, error) {
	return &appstream.Session{ID: id, Endpoint: endpointID, State: appstream.SessionActive, PublicKey: o.key}, true, nil
}

// dialer is the socket of every instance's agent.
type dialer string

func (d dialer) Dial(ctx context.Context, _ appstream.InstanceID) (net.Conn, error) {
	var nd net.Dialer
	return nd.DialContext(ctx, "unix", string(d))
}

// door admits everybody at both ports.
type door struct {
	listeners []net.Listener
	came      chan *vpc.Conn
	running   sync.WaitGroup
}

func openDoor(l *Link) (*door, error) {
	d := &door{came: make(chan *vpc.Conn)}
	for _, p := range []uint16{controlPort, displayPort} {
		ln, err := l.Listen(int(p))
		if err != nil {
			d.close()
			return nil, fmt.Errorf("listen on the link: %w", err)
		}
		d.listeners = append(d.listeners, ln)
		d.running.Go(func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				v := vpc.NewConn(c, nil)
				v.Endpoint, v.Port = endpointID, p
				d.came <- v
			}
		})
	}
	return d, nil
}

func (d *door) Accept(ctx context.Context) (*vpc.Conn, error) {
	select {
	case c := <-d.came:
		return c, nil
	case <-ctx.Done():
		go d.close()
		for c := range d.came {
			_ = c.Close()
		}
		return nil, ctx.Err()
	}
}

func (d *door) close() {
	for _, l := range d.listeners {
		_ = l.Close()
	}
	d.running.Wait()
	close(d.came)
}
