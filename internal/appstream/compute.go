package appstream

import (
	"context"
	"net"
	"time"
)

// Compute is where instances run: child processes, containers, pods. Every driver runs the suite in appstreamtest.
// Methods may be called concurrently and are safe to repeat.
type Compute interface {
	// Applications lists the catalogue of the base image.
	Applications(ctx context.Context) ([]Application, error)
	// Start boots an instance and returns when it can take a session, or why it cannot. ctx bounds the start only.
	Start(ctx context.Context, spec InstanceSpec) (InstanceInfo, error)
	// Running lists the instances that still run, for instance after a restart of the server. What the driver finds left over
	// from an earlier run and cannot adopt, it has removed before it answers.
	Running(ctx context.Context) ([]InstanceID, error)
	// Begin starts the session's application on a ready instance. Another Begin of the same session starts that application beside it.
	Begin(ctx context.Context, id InstanceID, s SessionSpec) error
	// Stop ends whatever runs on the instance, tells its viewer why, and returns when nothing is left. Unknown instances are no error.
	Stop(ctx context.Context, id InstanceID, code EndCode, reason string) error
	// Dial opens a connection to the instance's agent, which speaks HTTP and WebSocket on it (docs/protocol.md).
	Dial(ctx context.Context, id InstanceID) (net.Conn, error)
	// Next waits for the next event of any instance.
	Next(ctx context.Context) (InstanceEvent, error)
}

// Application is one entry of an image's catalogue.
type Application struct {
	Name        string // as in the API: [a-zA-Z0-9][a-zA-Z0-9_.-]*
	DisplayName string
	Description string   `json:",omitempty"`
	Command     []string // program and arguments
	WorkingDir  string   `json:",omitempty"`
	IconPath    string   `json:",omitempty"` // PNG or SVG file on this machine
}

// InstanceSpec is what an instance is made from.
type InstanceSpec struct {
	ID    InstanceID
	Fleet string // empty for a builder's
}

// InstanceInfo is what a started instance says of itself.
type InstanceInfo struct {
	PublicKey []byte // Ed25519, for tickets with KeySession
	Local     *Local // nil for compute elsewhere
}

// SessionSpec is a session as its agent needs to know it.
type SessionSpec struct {
	ID                SessionID
	UserID            string
	Stack, Fleet      string // empty for a builder's
	Endpoint          EndpointID
	Application       Application
	ControlKey        []byte // Ed25519 public key of the broker
	DisconnectTimeout time.Duration
	IdleTimeout       time.Duration // 0: off
	EndsAt            time.Time     // when the session reaches its greatest length; zero: never
	DisplayPort       uint16        // where the viewer opens the display channel
	Width, Height     uint16        // fixed screen; 0: follows the window
	Window            Window        // the screen that it begins with, unless it is fixed
	Context           string        // SessionContext of the streaming URL, for the application's environment
}

// InstanceEventKind says what happened on an instance.
type InstanceEventKind string

// Instance events.
const (
	ViewerConnected    InstanceEventKind = "connected"
	ViewerDisconnected InstanceEventKind = "disconnected"
	SessionOver        InstanceEventKind = "over" // the agent ended the session by itself: Code and Reason say why
	InstanceGone       InstanceEventKind = "gone" // the instance's agent is no more
)

// InstanceEvent is something that an instance saw.
type InstanceEvent struct {
	Instance InstanceID
	Session  SessionID // empty before Begin
	Kind     InstanceEventKind
	Code     EndCode
	Reason   string
}
