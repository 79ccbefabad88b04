// Package linkapi holds the messages between whoever runs instances and the agent of one instance.
//
// A message is a little-endian u32 length and that many bytes of JSON: an object with one member, whose name is the message's kind.
// The connection is also the lifeline: an agent whose connection ends, ends itself and everything that it started.
package linkapi

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// MaxMessage is the greatest length of a message's JSON, in bytes.
const MaxMessage = 64 << 10

// ErrMessage is what every message that cannot be understood wraps.
var ErrMessage = errors.New("link message is malformed")

// Message is one message: exactly one member is set.
type Message struct {
	Configure *Configure `json:"configure,omitempty"` // to the agent, first
	Begin     *Begin     `json:"begin,omitempty"`     // to the agent, once ready
	End       *End       `json:"end,omitempty"`       // to the agent, last
	Ready     *Ready     `json:"ready,omitempty"`     // answers configure
	Begun     *Begun     `json:"begun,omitempty"`     // answers begin
	Failed    *Failed    `json:"failed,omitempty"`    // answers configure or begin
	Event     *Event     `json:"event,omitempty"`     // from the agent, after begun
}

// Configure tells the agent who it is.
type Configure struct {
	Instance  string `json:"instance"`
	Folder    string `json:"folder"`              // the instance's own: the viewers' socket and the X cookie go there
	Home      string `json:"home"`                // the user's
	OwnUser   bool   `json:"ownUser,omitempty"`   // nothing else runs under the agent's uid
	MaxWidth  uint16 `json:"maxWidth,omitempty"`  // greatest screen, 0: the agent's default
	MaxHeight uint16 `json:"maxHeight,omitempty"` //
	XServer   string `json:"xServer,omitempty"`   // xvfb or xvnc; empty: the agent's default
	Debug     bool   `json:"debug,omitempty"`     // log more
	ProfileFD int    `json:"profileFd,omitempty"` // where to write a processor profile; 0: nowhere
}

// Ready says that the instance can take a session.
type Ready struct {
	Display    string `json:"display"`    // ":100"
	Xauthority string `json:"xauthority"` // path of the cookie file
	PID        int    `json:"pid"`
	PublicKey  []byte `json:"publicKey"` // Ed25519, for tickets that the agent signs
	Socket     string `json:"socket"`    // path of the unix socket that serves viewers
}

// Begin starts a session.
type Begin struct {
	Session           string        `json:"session"`
	UserID            string        `json:"userId,omitempty"`
	Stack             string        `json:"stack,omitempty"`
	Fleet             string        `json:"fleet,omitempty"`
	Endpoint          string        `json:"endpoint"`
	Application       Application   `json:"application"`
	ControlKey        []byte        `json:"controlKey,omitempty"` // Ed25519 public key of the broker
	DisconnectTimeout time.Duration `json:"disconnectTimeout,omitempty"`
	IdleTimeout       time.Duration `json:"idleTimeout,omitempty"` // 0: off
	EndsAt            time.Time     `json:"endsAt,omitzero"`       // when the session reaches its greatest length
	DisplayPort       uint16        `json:"displayPort,omitempty"`
	Width             uint16        `json:"width,omitempty"` // fixed screen; 0: follows the window
	Height            uint16        `json:"height,omitempty"`
	Window            Window        `json:"window,omitzero"`   // the user's; the screen begins with it
	Context           string        `json:"context,omitempty"` // of the streaming URL, for the application
}

// Window is a user's window: device pixels and percent of 96 dpi, 0 for what is not known.
type Window struct {
	Width  uint16 `json:"width,omitempty"`
	Height uint16 `json:"height,omitempty"`
	Scale  uint16 `json:"scale,omitempty"`
}

// Application is what a session runs.
type Application struct {
	Name        string   `json:"name"`
	DisplayName string   `json:"displayName,omitempty"`
	Command     []string `json:"command"`
	WorkingDir  string   `json:"workingDir,omitempty"`
}

// Begun says that the session's application was started.
type Begun struct {
	Session string `json:"session"`
}

// Failed says why the agent cannot do what it was told.
type Failed struct {
	Reason string `json:"reason"`
}

// EventKind says what happened in the session.
type EventKind string

// Events.
const (
	Connected    EventKind = "connected"
	Disconnected EventKind = "disconnected"
	Over         EventKind = "over" // the session is over: Code and Reason say why
)

// Event is something that the agent saw.
type Event struct {
	Session string    `json:"session"`
	Kind    EventKind `json:"kind"`
	Code    uint16    `json:"code,omitempty"` // as in message "ended" of the channel protocol
	Reason  string    `json:"reason,omitempty"`
}

// End ends the instance.
type End struct {
	Code   uint16 `json:"code"`
	Reason string `json:"reason,omitempty"`
}

// kinds counts the members that are set.
func (m *Message) kinds() (n int) {
	for _, set := range [...]bool{
		m.Configure != nil, m.Begin != nil, m.End != nil, m.Ready != nil, m.Begun != nil, m.Failed != nil, m.Event != nil,
	} {
		if set {
			n++
		}
	}
	return n
}

// check refuses what no sender of this package means.
func (m *Message) check() error {
	if n := m.kinds(); n != 1 {
		return fmt.Errorf("%w: %d kinds, want 1", ErrMessage, n)
	}
	bad := func(what string) error { return fmt.Errorf("%w: %s", ErrMessage, what) }
	switch {
	case m.Configure != nil && (m.Configure.Instance == "" || m.Configure.Folder == "" || m.Configure.Home == ""):
		return bad("configure without instance, folder or home")
	case m.Begin != nil && (m.Begin.Session == "" || len(m.Begin.Application.Command) == 0):
		return bad("begin without session or command")
	case m.Begin != nil && (m.Begin.DisconnectTimeout < 0 || m.Begin.IdleTimeout < 0):
		return bad("begin with a negative timeout")
	case m.Ready != nil && (m.Ready.Display == "" || m.Ready.Socket == "" || m.Ready.PID <= 0):
		return bad("ready without display, socket or pid")
	case m.Begun != nil && m.Begun.Session == "":
		return bad("begun without session")
	case m.Event != nil && m.Event.Session == "":
		return bad("event without session")
	case m.Event != nil && m.Event.Kind != Connected && m.Event.Kind != Disconnected && m.Event.Kind != Over:
		return bad(fmt.Sprintf("event %q", m.Event.Kind))
	}
	return nil
}

// Append appends the message's bytes to b.
func Append(b []byte, m *Message) ([]byte, error) {
	if err := m.check(); err != nil {
		return b, err
	}
	body, err := json.Marshal(m)
	if err != nil {
		return b, fmt.Errorf("encode link message: %w", err)
	}
	if len(body) > MaxMessage {
		return b, fmt.Errorf("%w: %d bytes, at most %d", ErrMessage, len(body), MaxMessage)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body))) //nolint:gosec // bounded just above
	return append(b, body...), nil
}

// Decode understands the JSON of one message.
func Decode(body []byte) (*Message, error) {
	if len(body) > MaxMessage {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrMessage, len(body), MaxMessage)
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	m := new(Message)
	if err := dec.Decode(m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	if dec.More() {
		return nil, fmt.Errorf("%w: more than one value", ErrMessage)
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	return m, nil
}

// Write sends one message in one call of w.Write. Callers serialise their calls.
func Write(w io.Writer, m *Message) error {
	b, err := Append(nil, m)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// Read receives the next message. It returns io.EOF, unwrapped, when the connection ended between two messages.
func Read(r io.Reader) (*Message, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > MaxMessage {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrMessage, n, MaxMessage)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return Decode(body)
}
