// Command gateway serves channels as `penstock dev` does, with internal/gateway, its TLS and its tickets, on one address and without
// the rest of a region, so that its time and memory are the relay's alone.
//
// It writes into -dir what its clients need: ticket, and cert.pem and key.pem for servers that are measured beside it.
package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	_ "net/http/pprof" //nolint:gosec // on an address that is asked for
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/certs"
	"penstock.dev/penstock/internal/gateway"
	"penstock.dev/penstock/internal/vpc"
)

const endpoint = "vpce-00000000000000001"

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "`address` of the endpoint's port 1400")
	agent := flag.String("agent", "", "`socket` of the agent")
	dir := flag.String("dir", "", "`folder` for ticket and certificates")
	plain := flag.Bool("plain", false, "without TLS")
	debug := flag.String("debug", "", "`address` of profiles")
	flag.Parse()
	if *debug != "" {
		go func() { fmt.Fprintln(os.Stderr, http.ListenAndServe(*debug, nil)) }() //nolint:gosec // for profiles
	}
	if err := run(*listen, *agent, *dir, *plain); err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1)
	}
}

func run(listen, agent, dir string, plain bool) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	public, control, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	token, err := appstream.SignTicket(control, appstream.Ticket{
		ID: "bench", KeyID: appstream.KeyControl, Session: "s", Endpoint: endpoint, Channel: appstream.ChannelDisplay,
		Expires: time.Now().Add(time.Hour),
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "ticket"), []byte(token), 0o600); err != nil {
		return err
	}
	config, err := encryption(dir)
	if err != nil {
		return err
	}
	if plain {
		config = nil
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	g := gateway.New(gateway.Options{
		Sessions: one{}, Agents: socket(agent), ControlKey: public, Page: http.NotFoundHandler(), TLS: config,
		Log: slog.New(slog.DiscardHandler),
	})
	fmt.Println("ready", l.Addr())
	return g.Run(ctx, &door{l: l})
}

// encryption is the configuration of a region's endpoints; the same kind of certificate is written for others.
func encryption(dir string) (*tls.Config, error) {
	local := netip.MustParseAddr("127.0.0.1")
	authority, err := certs.OpenAuthority(filepath.Join(dir, "ca"), certs.Constraints{Names: []string{"localhost"}, Ranges: []netip.Prefix{netip.PrefixFrom(local, 8).Masked()}})
	if err != nil {
		return nil, err
	}
	source, err := certs.New(certs.Options{Authority: authority, Known: func(string, netip.Addr) bool { return true }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	cert, err := authority.Issue(nil, []netip.Addr{local}, time.Now())
	if err != nil {
		return nil, err
	}
	var chain []byte
	for _, der := range cert.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return nil, err
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for name, b := range map[string][]byte{"cert.pem": chain, "key.pem": key, "both.pem": append(chain, key...)} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			return nil, err
		}
	}
	return source.Config(), nil
}

// one is a store with one session.
type one struct{}

func (one) Session(_ context.Context, id appstream.SessionID) (*appstream.Session, bool, error) {
	return &appstream.Session{ID: id, Endpoint: endpoint, State: appstream.SessionActive}, true, nil
}

// socket is the agent of every instance.
type socket string

func (s socket) Dial(ctx context.Context, _ appstream.InstanceID) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", string(s))
}

// door admits everybody.
type door struct{ l net.Listener }

func (d *door) Accept(ctx context.Context) (*vpc.Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = d.l.Close() })
	defer stop()
	c, err := d.l.Accept()
	if err != nil {
		return nil, err
	}
	v := vpc.NewConn(c, nil)
	v.Endpoint, v.Port = endpoint, 1400
	return v, nil
}
