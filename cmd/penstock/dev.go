package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/hostnet/kernel"
	"penstock.dev/penstock/internal/hostnet/rootless"
	"penstock.dev/penstock/internal/nameserver"
	"penstock.dev/penstock/internal/sqlite"
	"penstock.dev/penstock/internal/x11"
)

// serverConfig is what a server is told: `penstock dev` by flags, `penstock serve` by the keys of a file that stand for the same flags.
type serverConfig struct {
	command    string // dev or serve
	dataDir    string
	apiAddr    string
	publicAddr string
	noDemo     bool
	net        string
	tls        string
	tlsCert    string
	tlsKey     string
	tlsMin     tlsVersion
	host       *rootless.Host // with rootless
	attach     []kernel.Attachment
	acme       acmeConfig
	publicURL  string
	dnsAddr    netip.AddrPort
	upstreams  []netip.AddrPort // of names that are not ours
	flowLogs   flowLogConfig
	audit      auditConfig
	keyFile    string
	xServer    string
	key        []byte // its content; nil for none
	accountID  string // of a data directory that has none yet; "": any
	limits     limitsConfig
	logLevel   slog.Level
	signIn     signInConfig
	profileDir string // only dev has it
}

const (
	devRegion = "us-east-1"
	// readyTimeout bounds the time from start to `ready`.
	readyTimeout = 60 * time.Second
)

func parseDev(args []string, out io.Writer) (serverConfig, error) {
	c := serverConfig{command: "dev"}
	fs := flag.NewFlagSet("penstock dev", flag.ContinueOnError)
	fs.SetOutput(out)
	c.flags(fs)
	fs.BoolVar(&c.noDemo, "no-demo", false, "begin with an empty account that has one default VPC")
	fs.StringVar(&c.profileDir, "profile", "", "`folder` for processor profiles (pprof) of the server and of each instance, written when they end")
	c.limits.flags(fs)
	if err := fs.Parse(args); err != nil {
		return c, err
	}
	if fs.NArg() > 0 {
		return c, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	return c, c.check()
}

// flags are the settings that every way to start a server has.
func (c *serverConfig) flags(fs *flag.FlagSet) {
	fs.StringVar(&c.dataDir, "data-dir", "./penstock-data", "`folder` of all state")
	fs.StringVar(&c.apiAddr, "api-addr", "127.0.0.1:4580", "`address` of the API: all AWS protocols on one URL")
	fs.StringVar(&c.publicAddr, "public-addr", "127.0.0.1:8080", "`address` of portal, console and internet streaming endpoint")
	fs.StringVar(&c.net, "net", netLoopback, "network `driver`: loopback, kernel (real addresses and packet filters; needs root) or rootless (packet filters in namespaces of its own)")
	fs.Func("attach", attachUsage, func(s string) error {
		a, err := parseAttach(s)
		c.attach = append(c.attach, a)
		return err
	})
	fs.StringVar(&c.tls, "tls", tlsAuto, "`when` to serve TLS: auto (away from loopback) or on (everywhere)")
	fs.StringVar(&c.tlsCert, "tls-cert", "", "`file` with a certificate chain of your own in PEM, read again when it changes; turns TLS on")
	fs.StringVar(&c.tlsKey, "tls-key", "", "`file` with the key of --tls-cert in PEM")
	c.acme.flags(fs)
	fs.StringVar(&c.publicURL, "public-url", "", "`URL` by which users come to --public-addr, such as https://portal.example.com (default: by its address)")
	fs.Var(&c.tlsMin, "tls-min", "oldest `version` of TLS: 1.3 or 1.2")
	fs.TextVar(&c.dnsAddr, "dns-addr", netip.MustParseAddrPort("127.0.0.1:0"), "`address` of the name server; port 0 takes any free one")
	fs.Func("dns-upstream", "`address` of a name server for all other names, IP:PORT; may be repeated (without: they are refused)", func(s string) error {
		p, err := netip.ParseAddrPort(s)
		c.upstreams = append(c.upstreams, p)
		return err
	})
	c.flowLogs.flags(fs)
	c.audit.flags(fs)
	fs.StringVar(&c.keyFile, "key-file", "", "`file` with a key or passphrase that seals what is secret in the data directory")
	fs.StringVar(&c.xServer, "x-server", string(x11.Xvfb), "X server of instances: xvfb (screens to 5120x2880) or xvnc (to 7680x4320, so two monitors of 4K)")
	c.signIn.flags(fs)
	fs.TextVar(&c.logLevel, "log-level", slog.LevelWarn, "least `level` that is logged: debug, info, warn or error")
}

// check refuses what cannot work, before anything is opened, and reads the key file. Its errors name flags.
func (c *serverConfig) check() error {
	switch c.net {
	case netLoopback, netKernel, netRootless:
	default:
		return fmt.Errorf("--net %q is not loopback, kernel or rootless", c.net)
	}
	if x11.ServerKind(c.xServer).Program() == "" {
		return fmt.Errorf("--x-server %q is not xvfb or xvnc", c.xServer)
	}
	if len(c.attach) > 0 && c.net != netKernel {
		return errors.New("--attach goes with --net kernel")
	}
	if c.tls != tlsAuto && c.tls != tlsOn {
		return fmt.Errorf("--tls %q is not auto or on", c.tls)
	}
	if err := c.signIn.check(); err != nil {
		return err
	}
	if (c.tlsCert == "") != (c.tlsKey == "") {
		return errors.New("--tls-cert and --tls-key go together")
	}
	if err := c.flowLogs.check(); err != nil {
		return err
	}
	if err := c.audit.check(); err != nil {
		return err
	}
	var err error
	if c.key, err = readKeyFile(c.keyFile); err != nil {
		return fmt.Errorf("--key-file: %w", err)
	}
	for _, a := range []struct{ flag, value string }{{"--api-addr", c.apiAddr}, {"--public-addr", c.publicAddr}} {
		p, err := netip.ParseAddrPort(a.value)
		if err != nil {
			return fmt.Errorf("%s %q is not IP:PORT: %w", a.flag, a.value, err)
		}
		if p.Addr().IsUnspecified() {
			return fmt.Errorf("%s %s is no address to connect to; name one of this machine's", a.flag, a.value)
		}
	}
	if err := c.acme.check(); err != nil {
		return err
	}
	if c.publicURL != "" {
		if err := checkPublicURL(c.publicURL, c.secure()); err != nil {
			return fmt.Errorf("--public-url %q: %w", c.publicURL, err)
		}
	}
	dir, err := filepath.Abs(c.dataDir)
	if err != nil {
		return fmt.Errorf("--data-dir: %w", err)
	}
	c.dataDir = dir
	return nil
}

func devCommand(ctx context.Context, args []string) error {
	c, err := parseDev(args, os.Stderr)
	if err != nil {
		return err
	}
	if c.limits.only {
		return c.limits.write(os.Stdout)
	}
	return c.serve(ctx, args, slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: c.logLevel})))
}

// serve runs a region until ctx ends. args are those of the command, which is run again where the network is in namespaces of its own.
func (c serverConfig) serve(ctx context.Context, args []string, log *slog.Logger) error {
	if err := os.MkdirAll(c.dataDir, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	if c.net == netRootless {
		host, err := rootless.Inside()
		if err != nil {
			return err
		}
		if host == nil {
			return runInside(ctx, append([]string{c.command}, args...))
		}
		c.host = host
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		go func() { // ends with the process
			host.Gone()
			cancel()
		}()
	}
	c.checkLimits(log)
	stopProfile, err := profileServer(c.profileDir)
	if err != nil {
		return err
	}
	defer stopProfile()
	r, err := openRegion(ctx, c, log)
	if err != nil {
		return err
	}
	defer r.close()
	return r.run(ctx)
}

// expectedConns is how many connections of viewers a server should have room for.
const expectedConns = 10_000

// checkLimits says when the process may not open enough. The runtime has raised the soft limit to the hard one for this process; what
// it starts gets the original.
func (c serverConfig) checkLimits(log *slog.Logger) {
	each := 2 // to the viewer and to its agent
	if c.net == netRootless {
		each = 4 // and both ends of what is carried inside
	}
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return
	}
	if need := uint64(each*expectedConns + 1000); l.Cur < need {
		log.Warn("this process may open too few files for 10,000 connections; more than there is room for are reset",
			"limit", l.Cur, "needed", need, "room", (l.Cur-min(l.Cur, 1000))/uint64(each), "raise", "LimitNOFILE= of the unit, or ulimit -Hn before the start")
	}
}

// runInside runs a command of this program again in namespaces of its own, and is its process outside.
func runInside(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := rootless.Run(ctx, cmd)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if exit.Exited() {
			return exitStatus(exit.ExitCode()) // it has said why
		}
		return fmt.Errorf("the server ended: %w", err)
	}
	return err
}

// lock takes the data directory. A server in namespaces of its own is killed by the kernel a moment after the process outside was.
func (c serverConfig) lock(ctx context.Context) (unlock func() error, err error) {
	const patience = 2 * time.Second
	for end := time.Now().Add(patience); ; {
		if unlock, err = sqlite.Lock(c.dataDir); err == nil || c.host == nil || time.Now().After(end) {
			return unlock, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// listen binds an address and says what to do when that is not possible.
func (c serverConfig) listen(ctx context.Context, name, addr string) (net.Listener, error) {
	var l net.Listener
	var err error
	if c.host != nil {
		l, err = c.host.Listen("tcp", addr)
	} else {
		var lc net.ListenConfig
		l, err = lc.Listen(ctx, "tcp", addr)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s (choose another with --%s): %w", addr, name, err)
	}
	return l, nil
}

// listenDNS binds the name server's sockets.
func (c serverConfig) listenDNS(ctx context.Context) (*nameserver.Sockets, error) {
	if c.host != nil {
		return nameserver.ListenBy(c.dnsAddr, c.host.Listen, c.host.ListenPacket)
	}
	return nameserver.Listen(ctx, c.dnsAddr)
}
