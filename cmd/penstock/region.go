package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"penstock.dev/penstock/internal/apiserver"
	"penstock.dev/penstock/internal/auditlog"
	"penstock.dev/penstock/internal/certs"
	"penstock.dev/penstock/internal/certs/acme"
	"penstock.dev/penstock/internal/compute/process"
	"penstock.dev/penstock/internal/control"
	"penstock.dev/penstock/internal/control/access"
	"penstock.dev/penstock/internal/control/network"
	"penstock.dev/penstock/internal/control/signin"
	"penstock.dev/penstock/internal/federation"
	"penstock.dev/penstock/internal/flowlog"
	"penstock.dev/penstock/internal/gateway"
	"penstock.dev/penstock/internal/nameserver"
	"penstock.dev/penstock/internal/portal"
	"penstock.dev/penstock/internal/sqlite"
	"penstock.dev/penstock/internal/vpc"
	"penstock.dev/penstock/internal/webui"
)

// region is everything that a server runs in one process.
type region struct {
	config     serverConfig
	log        *slog.Logger
	rootMu     sync.Mutex
	current    identity // identity with the root key in force now; under rootMu
	identity   identity
	store      *sqlite.Store
	driver     hostNetwork
	flows      *flowlog.Log // nil: off
	compute    *process.Driver
	network    *network.Service
	control    *control.Control
	access     *access.Service
	audit      *auditlog.Log
	signIn     *signin.Service
	federation *federation.Federation // nil without identity providers
	gateway    *gateway.Gateway
	api        http.Handler
	public     http.Handler

	tls       *tls.Config      // of the endpoints' listeners; nil: plain
	authority *certs.Authority // with tls
	certs     *certs.Source    // with tls
	acme      *acme.Client     // nil: no certificates from an ACME server
	names     atomic.Pointer[endpointNames]

	refusalLogged  atomic.Int64  // the second of the last refusal that was logged
	refusalsUnsaid atomic.Uint64 // since then
	dns            *nameserver.Server
	dnsOn          *nameserver.Sockets

	apiListener, publicListener, adminListener net.Listener
	acmeListener                               net.Listener // nil: no http-01
	adminPath                                  string
	hostSources                                []netip.Addr // of this machine's own users, when they are not loopback addresses
	cleanup                                    []func()     // in order of making; run backwards
}

const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
)

// openRegion builds everything and binds the listeners; nothing runs yet. The first thing it takes is the data directory's lock.
func openRegion(ctx context.Context, c serverConfig, log *slog.Logger) (_ *region, err error) {
	r := &region{config: c, log: log}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	unlock, err := c.lock(ctx)
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", c.dataDir, err)
	}
	r.onClose("unlock", unlock)
	if r.identity, err = loadIdentity(c.dataDir, c.key, c.accountID); err != nil {
		return nil, err
	}
	r.current = r.identity
	if r.audit, err = r.openAudit(); err != nil {
		return nil, err
	}
	if r.apiListener, err = r.bind(ctx, "api-addr", c.apiAddr); err != nil {
		return nil, err
	}
	if r.publicListener, err = r.bind(ctx, "public-addr", c.publicAddr); err != nil {
		return nil, err
	}
	if r.dnsOn, err = c.listenDNS(ctx); err != nil {
		return nil, fmt.Errorf("listen on %s (choose another with --dns-addr): %w", c.dnsAddr, err)
	}
	r.onClose("dns-addr", r.dnsOn.Close)
	if err = r.openACME(ctx); err != nil {
		return nil, err
	}
	if r.tls, err = r.openTLS(); err != nil {
		return nil, err
	}
	if r.adminPath, err = r.bindAdmin(ctx); err != nil {
		return nil, err
	}
	if r.store, err = sqlite.Open(ctx, sqlite.Options{Path: filepath.Join(c.dataDir, "state.db"), Log: log}); err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	r.onClose("store", r.store.Close)
	if r.driver, err = r.openNetwork(); err != nil {
		return nil, err
	}
	r.onClose("network", r.driver.Close)
	if r.flows, err = r.openFlowLogs(); err != nil {
		return nil, err
	}
	if r.compute, err = process.New(process.Options{DataDir: c.dataDir, XServer: c.xServer, ProfileDir: c.profileDir, Log: log}); err != nil {
		return nil, err
	}
	return r, r.build()
}

// build makes the services and handlers, from the inside out.
func (r *region) build() (err error) {
	key := r.identity.signingKey()
	publicURL := r.publicOrigin()
	r.names.Store(&endpointNames{})
	r.dns = nameserver.New(nameserver.Options{Names: r.servedNames, Text: r.challengeText, Upstreams: r.config.upstreams, Log: r.log.With("part", "nameserver")})
	r.network = network.New(network.Config{
		Store: r.store, Driver: r.driver, Region: devRegion, AccountID: r.identity.AccountID, Limits: r.config.limits.Limits, Log: r.log.With("part", "network"),
	})
	if r.access, err = access.New(access.Options{
		Store: r.store, AccountID: r.identity.AccountID, Seed: r.identity.Seed, Root: r.identity.root(), RootSince: r.identity.RootSince,
		Region: devRegion, Log: r.log.With("part", "access"),
	}); err != nil {
		return err
	}
	r.control = control.New(control.Options{
		ServiceRole: r.access, Roles: r.access, Quotas: r.config.limits.appstream(),
		Store: r.store, Compute: r.compute, DialAddr: r.driver.DialAddr, UserNetworks: r.driver.UserNetworks, Key: key, Region: devRegion, Account: r.identity.AccountID,
		PublicURL: publicURL, InternetOrigin: publicURL, InternetPort: r.publicPort(), Secure: r.tls != nil,
		Log:   r.log.With("part", "control"),
		Audit: r.audit,
	})
	r.gateway = gateway.New(gateway.Options{
		Sessions: r.control, Agents: r.compute, ControlKey: key.Public().(ed25519.PublicKey), //nolint:forcetypeassert // documented
		Page: webui.Viewer(), PortalURL: publicURL, Region: devRegion, Explain: r.explain, KnownHost: r.knownHost, Hosts: r.endpointHosts,
		TLS: r.tls, Audit: r.audit, Log: r.log.With("part", "gateway"),
	})
	if r.signIn, err = r.openSignIn(publicURL); err != nil {
		return err
	}
	if r.public, err = r.publicHandler(publicURL); err != nil {
		return err
	}
	o := apiserver.Options{
		AccountID: r.identity.AccountID, Region: devRegion, Control: r.control, Network: r.network, Users: r.signIn,
		Credentials: r.access, Access: r.access, PageKey: r.identity.Seed, Log: r.log.With("part", "api"),
		Audit: r.audit,
	}
	if r.federation != nil {
		o.SAML = r.federation
	}
	r.api, err = apiserver.New(o)
	return err
}

// publicHandler is the public plane: portal, console and the internet streaming endpoint.
func (r *region) publicHandler(publicURL string) (http.Handler, error) {
	mux := http.NewServeMux()
	internet := r.gateway.Internet()
	mux.Handle("/stream/", internet)
	mux.Handle("/v1/", internet)
	mux.HandleFunc("GET /console/", consolePage)
	mux.HandleFunc("GET /preflight", r.preflight)
	p := portal.New(portal.Options{
		Control: r.control, SignIn: r.signIn, Pages: webui.Portal(), Port: r.publicPort(), Secure: r.config.secure(), Log: r.log.With("part", "portal"),
		Audit: r.audit,
	})
	f, err := r.openFederation(p, publicURL)
	if err != nil {
		return nil, err
	}
	if r.federation = f; f != nil {
		p.Choices = func() any { return f.Choices() }
		mux.Handle("/federation/", f)
	}
	mux.Handle("/", p)
	return onlyHosts(mux, r.publicListener.Addr().String(), r.publicHost), nil
}

// run serves until ctx ends; instances and connections end with it.
func (r *region) run(ctx context.Context) error {
	if err := r.network.Recover(ctx); err != nil {
		return fmt.Errorf("forget the network of an earlier run: %w", err)
	}
	if err := r.control.Adopt(ctx); err != nil {
		return fmt.Errorf("adopt what an earlier run left: %w", err)
	}
	defer r.keepAudit()()
	defer r.keepFlowLogs()() // to the end, so that what everything else does at its end is in them
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.compute.Run(ctx) })
	g.Go(func() error { return r.access.Run(ctx) })
	g.Go(func() error { return r.signIn.Run(ctx) })
	g.Go(func() error { return r.network.Run(ctx) })
	g.Go(func() error { return r.control.Run(ctx) })
	g.Go(func() error { return r.gateway.Run(ctx, r.driver) })
	g.Go(func() error { return serveHTTP(ctx, secured(r.apiListener, r.publicTLS()), r.api, r.log) })
	g.Go(func() error { return serveHTTP(ctx, secured(r.publicListener, r.publicTLS()), r.public, r.log) })
	g.Go(func() error {
		return serveHTTP(ctx, r.adminListener, usersAdmin(r.adminHandler(), r.signIn, r.log), r.log)
	})
	if r.acme != nil {
		g.Go(func() error { return r.acme.Run(ctx) })
	}
	if r.acmeListener != nil {
		g.Go(func() error { return serveHTTP(ctx, r.acmeListener, r.acme, r.log) })
	}
	g.Go(func() error { return r.keepNames(ctx) })
	g.Go(func() error { return r.dns.Run(ctx, r.dnsOn) })
	g.Go(func() error { return r.becomeReady(ctx) })
	return g.Wait()
}

// adminHandler is what operators may ask and do on the socket that only the server's own user can open.
func (r *region) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /explain/access", accessHandler(r.access))
	mux.HandleFunc("POST /root-key/rotate", r.rotateRootKey)
	mux.Handle("/", adminHandler(r.control, r.log))
	return mux
}

// close gives back everything that was taken, last first.
func (r *region) close() {
	for _, f := range slices.Backward(r.cleanup) {
		f()
	}
	r.cleanup = nil
}

func (r *region) onClose(what string, f func() error) {
	r.cleanup = append(r.cleanup, func() {
		if err := f(); err != nil && !errors.Is(err, net.ErrClosed) {
			r.log.Warn("closing failed", "part", what, "error", err)
		}
	})
}

func (r *region) bind(ctx context.Context, flag, addr string) (net.Listener, error) {
	l, err := r.config.listen(ctx, flag, addr)
	if err == nil {
		r.onClose(flag, l.Close)
	}
	return l, err
}

func (r *region) bindAdmin(ctx context.Context) (string, error) {
	path, remove, err := adminSocket(r.config.dataDir)
	if err != nil {
		return "", fmt.Errorf("make the operator's socket: %w", err)
	}
	r.cleanup = append(r.cleanup, remove)
	var lc net.ListenConfig
	if r.adminListener, err = lc.Listen(ctx, "unix", path); err != nil {
		return "", fmt.Errorf("listen on the operator's socket: %w", err)
	}
	r.onClose("admin socket", r.adminListener.Close)
	return path, nil
}

// refused is told of connections that the rules did not admit.
func (r *region) refused(f vpc.Refusal) {
	r.logRefusal(f)
	r.recordRefusal(f)
}

// logRefusal keeps a crowd from filling the log: one line a second, which says how many went before it.
func (r *region) logRefusal(f vpc.Refusal) {
	if now := time.Now().Unix(); r.refusalLogged.Swap(now) == now {
		r.refusalsUnsaid.Add(1)
	} else {
		r.log.Info("connection was refused at an endpoint", "endpoint", f.Endpoint, "interface", f.Interface,
			"source", f.Flow.Src, "destination", f.Flow.Dst, "reason", f.Reason, "unsaid", r.refusalsUnsaid.Swap(0))
	}
}

// explain answers whether another connection from the same source to another port would be admitted.
func (r *region) explain(c *vpc.Conn, port uint16) vpc.Verdict {
	return r.network.Snapshot().Explain(vpc.Flow{
		VPC: c.VPC, Protocol: vpc.TCP, Src: c.Source, Dst: netip.AddrPortFrom(c.Local.Addr(), port),
	})
}

// onlyHosts refuses requests for other hosts than the address served, localhost and names of the operator's (DNS rebinding).
func onlyHosts(next http.Handler, addr string, own func(host string) bool) http.Handler {
	host, port, _ := net.SplitHostPort(addr)
	known := []string{addr, net.JoinHostPort("localhost", port)}
	if port == "80" {
		known = append(known, host, "localhost")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			name = r.Host
		}
		if !slices.Contains(known, strings.ToLower(r.Host)) && !own(name) {
			http.Error(w, "This address serves no host of that name.", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func tcpPort(l net.Listener) uint16 {
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		return a.AddrPort().Port()
	}
	return 0
}

// secured lets a listener's clients speak TLS, when there is a configuration for it.
func secured(l net.Listener, config *tls.Config) net.Listener {
	if config == nil {
		return l
	}
	return gateway.SecureListener(l, config) // the internet endpoint relays too
}

// serveHTTP serves until ctx ends.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: 64 << 10,
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) && ctx.Err() == nil {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}
