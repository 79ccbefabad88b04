// Package channel turns the messages of the channel protocol (docs/protocol.md) into bytes and back.
//
// Every decoder treats its input as hostile: it checks lengths before it allocates and never panics.
// Decoded messages own their memory unless their comment says otherwise.
package channel

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"
)

// Version is the greatest protocol version that this package knows.
const Version = 1

// Greatest size of one message, in bytes.
const (
	MaxFromViewer = 64 << 10
	MaxFromAgent  = 32 << 20
)

// Subprotocol is the WebSocket subprotocol of version 1; TicketPrefix begins the one that carries the ticket.
const (
	Subprotocol  = "penstock.1"
	TicketPrefix = "ticket."
)

// Type is the first byte of a message.
type Type uint8

// The message types. The comments give the body's layout; all integers are little-endian.
const (
	TypeHello             Type = 0x01 // u16 version, u32 capabilities, u16 width, u16 height, u16 scale, u8 flags
	TypeWelcome           Type = 0x02 // u16 version, u32 capabilities, u16 displayPort, u16 maxWidth, u16 maxHeight, str8 sessionId, str8 application, str16 displayTicket, str16 resumeTicket
	TypePing              Type = 0x03 // u64 time
	TypePong              Type = 0x04 // u64 time
	TypeResize            Type = 0x05 // u16 width, u16 height, u16 scale
	TypeCursor            Type = 0x06 // u32 serial, u16 width, u16 height, u16 hotX, u16 hotY, RGBA
	TypeEnded             Type = 0x07 // u16 code, str16 reason
	TypeTickets           Type = 0x08 // str16 displayTicket, str16 resumeTicket
	TypeNotice            Type = 0x09 // u16 code, str16 text
	TypeVisibility        Type = 0x0a // u8 hidden
	TypeEnd               Type = 0x0b // no body
	TypeNeedDisplayTicket Type = 0x0c // no body
	TypeMonitors          Type = 0x0d // u16 scale, u8 count, count × (u16 width, u16 height)
	TypeCursorAgain       Type = 0x0e // u32 serial

	TypePointer    Type = 0x10 // u32 seq, u16 x, u16 y, u8 buttons
	TypeWheel      Type = 0x11 // u32 seq, u16 x, u16 y, i16 dx, i16 dy
	TypeKey        Type = 0x12 // u32 seq, u8 down, u8 flags, str8 code, str8 key
	TypeText       Type = 0x13 // u32 seq, str16 text
	TypeReleaseAll Type = 0x14 // u32 seq
	TypeRelative   Type = 0x15 // u32 seq, i16 dx, i16 dy, u8 buttons
	TypeKeyboard   Type = 0x16 // u32 seq, str8 language, u8 count, count × (str8 code, str8 key)

	TypeStart   Type = 0x20 // u16 version, u32 codecs, u32 window
	TypeUpdate  Type = 0x21 // see UpdateHeader
	TypeAck     Type = 0x22 // u32 seq, u32 decodeMicros, u8 queued
	TypeRefresh Type = 0x23 // u8 reason
)

// String is the message's name in docs/protocol.md.
func (t Type) String() string {
	switch t {
	case TypeHello:
		return "hello"
	case TypeWelcome:
		return "welcome"
	case TypePing:
		return "ping"
	case TypePong:
		return "pong"
	case TypeResize:
		return "resize"
	case TypeCursor:
		return "cursor"
	case TypeEnded:
		return "ended"
	case TypeTickets:
		return "tickets"
	case TypeNotice:
		return "notice"
	case TypeVisibility:
		return "visibility"
	case TypeEnd:
		return "end"
	case TypeNeedDisplayTicket:
		return "need-display-ticket"
	case TypeMonitors:
		return "monitors"
	case TypeCursorAgain:
		return "cursor-again"
	case TypePointer:
		return "pointer"
	case TypeWheel:
		return "wheel"
	case TypeKey:
		return "key"
	case TypeText:
		return "text"
	case TypeReleaseAll:
		return "release-all"
	case TypeRelative:
		return "relative"
	case TypeKeyboard:
		return "keyboard"
	case TypeStart:
		return "start"
	case TypeUpdate:
		return "update"
	case TypeAck:
		return "ack"
	case TypeRefresh:
		return "refresh"
	}
	return fmt.Sprintf("type 0x%02x", uint8(t))
}

// Connection is one WebSocket of a viewer; each carries its own message types.
type Connection uint8

// The connections of version 1.
const (
	Control Connection = iota // channels control and input
	Display                   // channel display
)

// Sender is who sent a message.
type Sender uint8

// The two ends of a connection.
const (
	FromViewer Sender = iota
	FromAgent
)

// Error is a message that breaks the protocol; the connection ends with close code 4400 and this text.
type Error struct {
	Type   Type
	Reason string
}

// Error names the message and what is wrong with it.
func (e *Error) Error() string { return e.Type.String() + ": " + e.Reason }

// Message is one decoded message: one of the pointer types of this package.
type Message interface {
	// Type is the message's first byte.
	Type() Type
	// Append appends the whole message to dst. Strings that do not fit their length field are cut at
	// the end of a character.
	Append(dst []byte) []byte

	parse(r *reader)
}

// Parse decodes one message that sender sent on conn. Any error is an *Error.
func Parse(conn Connection, sender Sender, b []byte) (Message, error) {
	if len(b) == 0 {
		return nil, &Error{Reason: "empty message"}
	}
	t := Type(b[0])
	limit := MaxFromViewer
	if sender == FromAgent {
		limit = MaxFromAgent
	}
	if len(b) > limit {
		return nil, &Error{Type: t, Reason: "larger than the greatest message"}
	}
	m := newMessage(conn, sender, t)
	if m == nil {
		if _, known := place(t); known {
			return nil, &Error{Type: t, Reason: "not sent on this connection in this direction"}
		}
		return nil, &Error{Type: t, Reason: "unknown message type"}
	}
	r := reader{rest: b[1:]}
	m.parse(&r)
	if r.fault != "" {
		return nil, &Error{Type: t, Reason: r.fault}
	}
	return m, nil
}

// newMessage returns an empty message of type t, or nil when sender does not send t on conn.
func newMessage(conn Connection, sender Sender, t Type) Message {
	if at, ok := place(t); !ok || conn != at.conn || sender != at.sender && !at.both {
		return nil
	}
	switch t {
	case TypeHello:
		return new(Hello)
	case TypeWelcome:
		return new(Welcome)
	case TypePing:
		return new(Ping)
	case TypePong:
		return new(Pong)
	case TypeResize:
		return new(Resize)
	case TypeCursor:
		return new(Cursor)
	case TypeEnded:
		return new(Ended)
	case TypeTickets:
		return new(Tickets)
	case TypeNotice:
		return new(Notice)
	case TypeVisibility:
		return new(Visibility)
	case TypeEnd:
		return new(End)
	case TypeMonitors:
		return new(Monitors)
	case TypeCursorAgain:
		return new(CursorAgain)
	case TypeNeedDisplayTicket:
		return new(NeedDisplayTicket)
	case TypePointer:
		return new(Pointer)
	case TypeWheel:
		return new(Wheel)
	case TypeKey:
		return new(Key)
	case TypeText:
		return new(Text)
	case TypeReleaseAll:
		return new(ReleaseAll)
	case TypeRelative:
		return new(Relative)
	case TypeKeyboard:
		return new(Keyboard)
	case TypeStart:
		return new(Start)
	case TypeUpdate:
		return new(Update)
	case TypeAck:
		return new(Ack)
	case TypeRefresh:
		return new(Refresh)
	}
	return nil
}

// way is where a message travels.
type way struct {
	conn   Connection
	sender Sender
	both   bool // in both directions
}

// place is where messages of type t travel; false for an unknown type.
func place(t Type) (way, bool) {
	switch t {
	case TypePing, TypePong:
		return way{conn: Control, both: true}, true
	case TypeHello, TypeResize, TypeVisibility, TypeEnd, TypeNeedDisplayTicket, TypeMonitors,
		TypePointer, TypeWheel, TypeKey, TypeText, TypeReleaseAll, TypeRelative, TypeKeyboard:
		return way{conn: Control, sender: FromViewer}, true
	case TypeWelcome, TypeCursor, TypeEnded, TypeTickets, TypeNotice, TypeCursorAgain:
		return way{conn: Control, sender: FromAgent}, true
	case TypeStart, TypeAck, TypeRefresh:
		return way{conn: Display, sender: FromViewer}, true
	case TypeUpdate:
		return way{conn: Display, sender: FromAgent}, true
	}
	return way{}, false
}

// reader takes fields from the front of a message. After the first fault every further field is zero.
type reader struct {
	rest  []byte
	fault string
}

func (r *reader) fail(reason string) {
	if r.fault == "" {
		r.fault = reason
	}
	r.rest = nil
}

// bytes returns the next n bytes, which alias the message.
func (r *reader) bytes(n int) []byte {
	if r.fault != "" {
		return nil
	}
	if n < 0 || n > len(r.rest) {
		r.fail("too short")
		return nil
	}
	b := r.rest[:n:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) u8() uint8 {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// flag is a byte that must be 0 or 1.
func (r *reader) flag(name string) bool {
	v := r.u8()
	if v > 1 {
		r.fail(name + " is neither 0 nor 1")
	}
	return v == 1
}

func (r *reader) text(n int) string {
	b := r.bytes(n)
	if !utf8.Valid(b) {
		r.fail("text is not UTF-8")
		return ""
	}
	return string(b)
}

func (r *reader) str8() string  { return r.text(int(r.u8())) }
func (r *reader) str16() string { return r.text(int(r.u16())) }

// cut shortens s to at most limit bytes without splitting a character, and mends what is not UTF-8.
func cut(s string, limit int) string {
	if !utf8.ValidString(s) {
		s = string([]rune(s))
	}
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

func appendStr8(dst []byte, s string) []byte {
	s = cut(s, 0xff)
	return append(append(dst, uint8(len(s))), s...)
}

func appendStr16(dst []byte, s string) []byte {
	s = cut(s, 0xffff)
	return append(binary.LittleEndian.AppendUint16(dst, uint16(len(s))), s...)
}

func appendFlag(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}
