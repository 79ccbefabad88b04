package vpc

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
)

// Driver puts network interfaces and rules on a real network. Its suite is vpctest.Run.
// All methods may be called concurrently.
type Driver interface {
	// Apply brings the network to the plan: rules are in force when it returns, interfaces of the plan listen where
	// that was possible, interfaces that are no longer in it do not listen and their running connections are closed.
	// Connections of interfaces that stay are never closed. Repeating a plan changes nothing.
	// The error is about the plan as a whole; what keeps one interface from serving is told by Check.
	Apply(ctx context.Context, plan Plan) error
	// Check connects to each port of an interface from the outside, past the rules, and says the first thing that is wrong.
	Check(ctx context.Context, id NetworkInterfaceID) error
	// CheckPort is Check of one port.
	CheckPort(ctx context.Context, id NetworkInterfaceID, port uint16) error
	// Accept returns the next connection that the rules admitted. After Close it returns net.ErrClosed.
	Accept(ctx context.Context) (*Conn, error)
	// DialAddr is where a client on the driver's network reaches an address of a VPC. False: the driver does not know the VPC.
	DialAddr(vpc VPCID, private netip.AddrPort) (netip.AddrPort, bool)
	// UserNetworks are the networks from which users come.
	UserNetworks() []UserNetwork
	// Stats counts what happened since the driver was made.
	Stats() DriverStats
	// Close ends all listeners and connections and gives back what the driver took from the machine.
	Close() error
}

// Plan is everything that a driver must have in force.
type Plan struct {
	Snapshot   *Snapshot
	Interfaces []PlannedInterface
}

// PlannedInterface is an interface with its listeners at one of its addresses: an interface with two is in a plan twice.
type PlannedInterface struct {
	ID       NetworkInterfaceID
	Endpoint EndpointID
	Service  string // of the endpoint
	VPC      VPCID
	Addr     netip.Addr
	Ports    []PortRange
}

// UserNetwork is a network of users and the addresses by which it is played on this machine (the same when the network is real).
type UserNetwork struct {
	CIDR netip.Prefix
	Dial netip.Prefix
}

// DriverStats counts connections.
type DriverStats struct {
	Admitted uint64 // by the rules
	Refused  uint64 // by the rules: those that the driver told of. Where packets are dropped, a connection counts once a minute or interval of Flows, whatever it tries
	Shed     uint64 // admitted, but too many were open or waiting
	Open     int
	Waiting  int // admitted and not yet taken by Accept
}

// Refusal tells of a connection that was not admitted. Verdict is empty when it was shed for lack of room.
type Refusal struct {
	Endpoint  EndpointID
	Interface NetworkInterfaceID
	Flow      Flow
	Verdict   Verdict
	Reason    string // one sentence
}

// Conn is an admitted connection. Its owner must close it, also when it took the TCP connection out of it.
type Conn struct {
	net.Conn
	Endpoint  EndpointID
	Service   string // of the endpoint
	VPC       VPCID
	Interface NetworkInterfaceID
	Port      uint16         // that the client meant: 443 also where the driver listens elsewhere
	Source    netip.AddrPort // the user's address in the modelled network
	Local     netip.AddrPort // the interface's private address and Port
	// Dialled is where the client's own connection went, when the driver carries it on from there; otherwise it is not valid.
	Dialled netip.AddrPort

	once    sync.Once
	closing func()
	err     error
}

// NewConn is for drivers: closing is called once, before the connection is closed by either side of the contract.
func NewConn(c net.Conn, closing func()) *Conn { return &Conn{Conn: c, closing: closing} }

// TCP is the connection as the kernel knows it, for splicing; false when the driver carries it otherwise.
func (c *Conn) TCP() (*net.TCPConn, bool) {
	t, ok := c.Conn.(*net.TCPConn)
	return t, ok
}

// LocalAddr is the address that the client dialled: the one that a certificate must be for.
func (c *Conn) LocalAddr() net.Addr {
	if c.Dialled.IsValid() {
		return net.TCPAddrFromAddrPort(c.Dialled)
	}
	return c.Conn.LocalAddr()
}

// Close ends the connection. It may be called more than once.
func (c *Conn) Close() error {
	c.once.Do(func() {
		if c.closing != nil {
			c.closing()
		}
		c.err = c.Conn.Close()
	})
	return c.err
}

// ErrUnknownInterface is returned by Check for an interface that is not in the plan.
var ErrUnknownInterface = errors.New("network interface is not in the plan")
