// Package rootless is the kernel network driver for whoever is not root: it runs in a user, a network and a mount namespace of
// the server's own (Run). Users are on the machine, outside. They dial addresses of 127.0.0.0/8, as with the loopback driver; each
// connection is carried on to the inside from the address in the users' networks that the user's own stands for, with the same port where
// that is free. So the kernel judges the user's address and port. A connection that it refuses is dropped in silence inside, and the user's
// is reset after dialPatience.
package rootless

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/hostnet/door"
	"penstock.dev/penstock/internal/hostnet/kernel"
	"penstock.dev/penstock/internal/hostnet/loopback"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// Config is what New needs. Host, Store and DataDir must be set.
type Config struct {
	Host    *Host
	Store   state.Store // remembers which VPC is played by which /16
	DataDir string
	// DialPatience is how long the kernel may leave a carried connection without an answer before the user's is reset (0: 3 s).
	DialPatience time.Duration
	// Limits bound connections.
	Limits door.Limits
	// Meter counts the traffic of interfaces, for Flows.
	Meter bool
	// Refused is told of each connection that was reset; it must not block. It may be nil.
	Refused func(vpc.Refusal)
	// Log may be nil.
	Log *slog.Logger
}

// Driver implements vpc.Driver: a kernel driver inside, listeners outside, and what carries connections between them.
type Driver struct {
	cfg     Config
	log     *slog.Logger
	inside  *kernel.Driver
	outside *loopback.Driver
	refused atomic.Uint64
	rules   atomic.Pointer[vpc.Snapshot]
	pipes   pipes

	stop context.CancelFunc
	work sync.WaitGroup
}

var (
	_ vpc.Driver    = (*Driver)(nil)
	_ vpc.FlowMeter = (*Driver)(nil)
)

// New builds a driver in the namespaces of this process. Nothing is bound outside before the first Apply.
func New(cfg Config) (*Driver, error) {
	if cfg.Host == nil {
		return nil, errors.New("rootless network driver: this process is not in namespaces of its own")
	}
	if cfg.DialPatience <= 0 {
		cfg.DialPatience = 3 * time.Second
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	users := loopback.DefaultUserNetworks()
	attachment := kernel.Attachment{}
	for _, u := range users {
		attachment.Networks = append(attachment.Networks, u.CIDR)
	}
	names, err := prepare(cfg.DataDir, attachment.Networks)
	if err != nil {
		return nil, fmt.Errorf("rootless network driver: %w", err)
	}
	if err := kernel.Available(); err != nil {
		return nil, err
	}
	d := &Driver{cfg: cfg, log: log}
	d.inside, err = kernel.New(kernel.Config{
		DataDir: cfg.DataDir, Attachments: []kernel.Attachment{attachment}, Names: names,
		Limits: cfg.Limits, Meter: cfg.Meter, Refused: cfg.Refused, Quiet: true, Log: log, // tell does it
	})
	if err != nil {
		return nil, err
	}
	d.outside, err = loopback.New(loopback.Config{
		Store: cfg.Store, Spread: cfg.DataDir, UserNetworks: users, Sockets: cfg.Host, Unjudged: true,
		Limits: cfg.Limits, Refused: cfg.Refused, Log: log,
	})
	if err != nil {
		return nil, errors.Join(err, d.inside.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.stop = cancel
	d.work.Go(func() { d.carryAll(ctx) })
	return d, nil
}

// prepare makes the process's own network namespace a place where every address of the users' networks may be dialled from, and a
// folder for names of namespaces that nobody else sees.
func prepare(dataDir string, users []netip.Prefix) (names string, err error) {
	lo, err := netlink.LinkByName(vpc.LoopbackLink)
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return "", fmt.Errorf("start loopback: %w", err)
	}
	// Sources on the loopback interface would not pass for the links' own.
	if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte("0"), 0); err != nil {
		return "", err
	}
	for _, p := range users {
		to := &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)}
		err := netlink.RouteReplace(&netlink.Route{
			LinkIndex: lo.Attrs().Index, Dst: to, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST,
		})
		if err != nil {
			return "", fmt.Errorf("be all addresses of %s: %w", p, err)
		}
	}
	names = filepath.Join(dataDir, "netns")
	if err := os.Mkdir(names, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	if err := unix.Mount("penstock", names, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=64k,mode=0700"); err != nil {
		return "", fmt.Errorf("mount a folder for namespaces at %s: %w", names, err)
	}
	return names, nil
}

// Apply puts the plan in force inside before its addresses listen outside.
func (d *Driver) Apply(ctx context.Context, plan vpc.Plan) error {
	if err := d.inside.Apply(ctx, plan); err != nil {
		return err
	}
	d.rules.Store(plan.Snapshot)
	return d.outside.Apply(ctx, plan)
}

// Check connects from the namespace to each port inside, and from the machine to each listener outside.
func (d *Driver) Check(ctx context.Context, id vpc.NetworkInterfaceID) error {
	if err := d.inside.Check(ctx, id); err != nil {
		return err
	}
	return d.outside.Check(ctx, id)
}

// CheckPort is Check of one port.
func (d *Driver) CheckPort(ctx context.Context, id vpc.NetworkInterfaceID, port uint16) error {
	if err := d.inside.CheckPort(ctx, id, port); err != nil {
		return err
	}
	return d.outside.CheckPort(ctx, id, port)
}

// Accept returns the next connection that the kernel let in.
func (d *Driver) Accept(ctx context.Context) (*vpc.Conn, error) {
	c, err := d.inside.Accept(ctx)
	if err == nil {
		c.Dialled, _ = d.outside.DialAddr(c.VPC, c.Local)
	}
	return c, err
}

// DialAddr is the address of 127.0.0.0/8 at which a user on this machine reaches an address of a VPC.
func (d *Driver) DialAddr(id vpc.VPCID, private netip.AddrPort) (netip.AddrPort, bool) {
	return d.outside.DialAddr(id, private)
}

// UserNetworks are the networks of users and the addresses of 127.0.0.0/8 that stand for theirs.
func (d *Driver) UserNetworks() []vpc.UserNetwork { return d.outside.UserNetworks() }

// Hint is what an operator can do to be served better; empty when nothing is to be done.
func (d *Driver) Hint(binary string) string { return d.outside.Hint(binary) }

// Stats counts connections since New. Refused are those that the kernel left without an answer.
func (d *Driver) Stats() vpc.DriverStats {
	s := d.inside.Stats()
	s.Refused += d.refused.Load()
	s.Shed += d.outside.Stats().Shed
	return s
}

// Flows is what the kernel counted inside, where users have the addresses that stand for theirs.
func (d *Driver) Flows(ctx context.Context) ([]vpc.InterfaceFlows, error) { return d.inside.Flows(ctx) }

// Healed counts how often something was put back that somebody else took away.
func (d *Driver) Healed() uint64 { return d.inside.Healed() }

// Counters are packets by the identity of rules, since the VPC's rules last changed.
func (d *Driver) Counters(id vpc.VPCID) (map[string]uint64, error) { return d.inside.Counters(id) }

// Close ends everything and waits for it.
func (d *Driver) Close() error {
	d.stop()
	err := errors.Join(d.outside.Close(), d.inside.Close())
	d.work.Wait()
	d.pipes.close()
	return err
}

// carryAll carries on what comes to the listeners outside, until ctx ends.
func (d *Driver) carryAll(ctx context.Context) {
	for {
		c, err := d.outside.Accept(ctx)
		if err != nil {
			return
		}
		d.work.Go(func() { d.carry(ctx, c) })
	}
}

// carry joins a user's connection to one that the kernel judges as the user's.
func (d *Driver) carry(ctx context.Context, c *vpc.Conn) {
	defer c.Close()
	user, ok := c.TCP()
	if !ok {
		return
	}
	in, err := d.dial(ctx, c)
	if err != nil {
		_ = user.SetLinger(0) // so that Close resets
		d.tell(ctx, c, err)
		return
	}
	defer in.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	join(&d.pipes, user, in)
}

// dial connects inside from the address that the user's stands for. A port that is taken there is exchanged for a free one.
func (d *Driver) dial(ctx context.Context, c *vpc.Conn) (*net.TCPConn, error) {
	link := d.inside.LinkName(c.VPC, 0)
	dialer := net.Dialer{
		Timeout: d.cfg.DialPatience, KeepAlive: -1, LocalAddr: net.TCPAddrFromAddrPort(c.Source),
		Control: func(_, _ string, raw syscall.RawConn) error {
			var err error
			if cerr := raw.Control(func(fd uintptr) {
				// By name of the link: two VPCs may have the same addresses. One port of a user may go to several interfaces.
				if err = unix.BindToDevice(int(fd), link); err == nil {
					err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
				}
			}); cerr != nil {
				return cerr
			}
			return err
		},
	}
	in, err := dialer.DialContext(ctx, "tcp4", c.Local.String())
	if errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL) {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.Source.Addr(), 0))
		in, err = dialer.DialContext(ctx, "tcp4", c.Local.String())
	}
	if err != nil {
		return nil, err
	}
	tcp, ok := in.(*net.TCPConn)
	if !ok {
		return nil, errors.Join(errors.New("not a TCP connection"), in.Close())
	}
	return tcp, nil
}

// tell counts a connection that did not come about inside, and says which rule would be the reason.
func (d *Driver) tell(ctx context.Context, c *vpc.Conn, err error) {
	if ctx.Err() != nil {
		return
	}
	d.refused.Add(1)
	r := vpc.Refusal{
		Endpoint: c.Endpoint, Interface: c.Interface,
		Flow: vpc.Flow{VPC: c.VPC, Protocol: vpc.TCP, Src: c.Source, Dst: c.Local}, Reason: err.Error(),
	}
	if rules := d.rules.Load(); rules != nil {
		r.Verdict = rules.Explain(r.Flow)
		if h := r.Verdict.Blocked(); h != nil {
			r.Reason = h.Why
		}
	}
	if d.cfg.Refused != nil {
		d.cfg.Refused(r)
	}
}
