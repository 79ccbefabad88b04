package appstream

import (
	"time"

	"penstock.dev/penstock/internal/state"
)

// SessionState is as in the API.
type SessionState string

// Session states.
const (
	SessionPending SessionState = "PENDING" // has an instance, its application is starting
	SessionActive  SessionState = "ACTIVE"
	SessionExpired SessionState = "EXPIRED"
)

// EndCode says why a session ended; docs/protocol.md lists the numbers of message "ended".
type EndCode uint16

// Why sessions end.
const (
	EndByUser          EndCode = 1
	EndByAdministrator EndCode = 2
	EndMaxDuration     EndCode = 3
	EndIdle            EndCode = 4
	EndApplication     EndCode = 5
	EndInstanceFailed  EndCode = 6
	EndShutdown        EndCode = 7
	EndEndpointGone    EndCode = 8
	EndDisconnected    EndCode = 9 // nobody came back within the disconnect timeout
)

// Session is one user's run of a fleet's applications, or an administrator's of a builder's desktop. Its endpoint is a snapshot: it never changes.
type Session struct {
	ID                SessionID
	UserID            string
	AuthType          string // API, SAML, USERPOOL
	Provider          string `json:",omitempty"` // identity provider of a federated user
	Stack             string
	Fleet             string
	Builder           BuilderID `json:",omitempty"` // instead of stack and fleet
	Application       string    // name in the image's catalogue
	More              []string  `json:",omitempty"` // applications that the user started later in the same session
	Context           string    `json:",omitempty"` // SessionContext of the streaming URL
	Instance          InstanceID
	Endpoint          EndpointID
	Origin            string // where viewers reach the endpoint: "http://127.80.1.10:443", no slash at the end
	DisplayPort       uint16
	ENI               string `json:",omitempty"` // of the interface that Origin names
	ENIAddress        string `json:",omitempty"` // private IPv4 address
	ENIAddress6       string `json:",omitempty"` // IPv6 address
	State             SessionState
	Connected         bool
	Started           time.Time
	MaxEnd            time.Time // zero: it ends with its builder
	DisconnectTimeout time.Duration
	IdleTimeout       time.Duration
	Fixed             string    `json:",omitempty"` // WIDTHxHEIGHT of a fixed screen
	Window            Window    `json:",omitzero"`  // the user's when the session was asked for
	Ended             time.Time `json:",omitzero"`
	EndCode           EndCode   `json:",omitempty"`
	EndReason         string    `json:",omitempty"`
	EndRecorded       bool      `json:",omitempty"` // in the audit log
	Begun             int       `json:",omitempty"` // how many of Applications were started
	Expire            EndCode   `json:",omitempty"` // wanted: the session must end for this reason
	PublicKey         []byte    `json:",omitempty"` // the agent's, for tickets with KeySession
}

// Window is what a user's window was when it asked for a session, so that the screen has its size and scale before the first application
// starts. The zero Window is not known.
type Window struct {
	Width, Height uint16 // device pixels; 0×0: not known
	Scale         uint16 // percent, 100 is 96 dpi; 0: not known
}

// Applications are all applications that the session was asked to start, in order.
func (s *Session) Applications() []string { return append([]string{s.Application}, s.More...) }

// Live reports whether the session has not ended.
func (s *Session) Live() bool { return s.State != SessionExpired }

// Sessions is the table of sessions.
var Sessions = state.Table[Session]{
	Kind: "session",
	ID:   func(s *Session) string { return string(s.ID) },
	Keys: func(s *Session) []state.Key {
		if s.Builder != "" {
			if !s.Live() {
				return nil
			}
			return []state.Key{
				{Name: "live", Value: "yes"}, {Name: "live-builder", Value: string(s.Builder)}, {Name: "live-endpoint", Value: string(s.Endpoint)},
			}
		}
		k := []state.Key{
			{Name: "stack", Value: s.Stack + " " + s.Fleet},
			{Name: "user", Value: s.Stack + " " + s.UserID},
		}
		if s.Live() {
			k = append(k, state.Key{Name: "live", Value: "yes"},
				state.Key{Name: "live-stack", Value: s.Stack}, state.Key{Name: "live-fleet", Value: s.Fleet},
				state.Key{Name: "live-endpoint", Value: string(s.Endpoint)},
				state.Key{Name: "live-user", Value: s.Stack + " " + s.UserID})
		}
		return k
	},
}
