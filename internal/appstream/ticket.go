package appstream

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Channel is one lane of a session that has a connection of its own.
type Channel string

// The channels that have a connection of their own. Input travels on the control connection.
const (
	ChannelControl Channel = "control"
	ChannelDisplay Channel = "display"
)

// Ticket admits one connection of one viewer to one session at one endpoint. It is signed, short-lived and used once.
type Ticket struct {
	ID       string     `json:"j"` // 128 random bits, base64url; what "used once" counts
	KeyID    string     `json:"k"` // KeyControl, or KeySession for those that the session's agent signs
	Session  SessionID  `json:"s"`
	Endpoint EndpointID `json:"e"` // the session's endpoint, or InternetEndpoint
	Channel  Channel    `json:"c"`
	Expires  time.Time  `json:"x"`
}

// Key IDs of tickets.
const (
	KeyControl = "control" // signed by the broker
	KeySession = "session" // signed by the session's agent with the key that the session names
)

// maxTicket bounds what VerifyTicket looks at, in bytes.
const maxTicket = 1024

// Why a ticket is not accepted.
var (
	ErrTicketMalformed = errors.New("ticket is malformed")
	ErrTicketSignature = errors.New("ticket's signature is wrong")
	ErrTicketExpired   = errors.New("ticket expired")
)

var b64 = base64.RawURLEncoding.Strict()

// SignTicket makes the text form: base64url(JSON) "." base64url(Ed25519 signature of that JSON).
func SignTicket(key ed25519.PrivateKey, t Ticket) (string, error) {
	return signToken(key, t)
}

// VerifyTicket checks form, signature and expiry. keyFor returns the public key for the ticket's key ID and session
// (both not yet proved), or nil. Whether the ticket fits the endpoint, the channel and was used before is the caller's to check.
func VerifyTicket(token string, keyFor func(keyID string, session SessionID) ed25519.PublicKey, now time.Time) (Ticket, error) {
	var t Ticket
	if len(token) > maxTicket {
		return t, ErrTicketMalformed
	}
	payload, sig, err := splitToken(token, &t)
	if err != nil {
		return Ticket{}, ErrTicketMalformed
	}
	if t.ID == "" || t.Session == "" || t.Endpoint == "" || t.Channel == "" || t.Expires.IsZero() {
		return Ticket{}, ErrTicketMalformed
	}
	key := keyFor(t.KeyID, t.Session)
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, payload, sig) {
		return Ticket{}, ErrTicketSignature
	}
	if !now.Before(t.Expires) {
		return t, ErrTicketExpired
	}
	return t, nil
}

func signToken(key ed25519.PrivateKey, v any) (string, error) {
	payload, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encode token: %w", err)
	}
	return b64.EncodeToString(payload) + "." + b64.EncodeToString(ed25519.Sign(key, payload)), nil
}

// splitToken decodes both halves and the JSON, and proves nothing.
func splitToken(token string, into any) (payload, sig []byte, err error) {
	head, tail, ok := strings.Cut(token, ".")
	if !ok {
		return nil, nil, errors.New("token has no signature")
	}
	if payload, err = b64.DecodeString(head); err != nil {
		return nil, nil, err
	}
	if sig, err = b64.DecodeString(tail); err != nil {
		return nil, nil, err
	}
	return payload, sig, json.Unmarshal(payload, into)
}
