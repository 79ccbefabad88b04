package channel

import "encoding/binary"

var le = binary.LittleEndian

// HelloFixedSize is the flag of Hello that keeps the screen's size when the viewer's window changes.
const HelloFixedSize uint8 = 1

// HelloKeepsCursors is the capability of Hello by which the viewer keeps the last KeptCursors cursors, so that
// CursorAgain can name them. WelcomeMonitors is the one of Welcome by which the agent takes Monitors.
const (
	HelloKeepsCursors uint32 = 1
	WelcomeMonitors   uint32 = 1

	KeptCursors = 64
	MaxMonitors = 2
)

// Hello is the viewer's first message on control. Width and Height of 0 keep the screen's size.
type Hello struct {
	Version      uint16 `json:"version"`
	Capabilities uint32 `json:"capabilities"`
	Width        uint16 `json:"width"`  // physical pixels
	Height       uint16 `json:"height"` // physical pixels
	Scale        uint16 `json:"scale"`  // percent; 100 is 96 dpi
	Flags        uint8  `json:"flags"`
}

// Type is TypeHello.
func (*Hello) Type() Type { return TypeHello }

// Append appends the message to dst.
func (m *Hello) Append(dst []byte) []byte {
	dst = append(dst, byte(TypeHello))
	dst = le.AppendUint16(dst, m.Version)
	dst = le.AppendUint32(dst, m.Capabilities)
	dst = le.AppendUint16(dst, m.Width)
	dst = le.AppendUint16(dst, m.Height)
	dst = le.AppendUint16(dst, m.Scale)
	return append(dst, m.Flags)
}

func (m *Hello) parse(r *reader) {
	*m = Hello{r.u16(), r.u32(), r.u16(), r.u16(), r.u16(), r.u8()}
}

// Welcome is the agent's first message on control.
type Welcome struct {
	Version       uint16 `json:"version"`
	Capabilities  uint32 `json:"capabilities"`
	DisplayPort   uint16 `json:"displayPort"`
	MaxWidth      uint16 `json:"maxWidth"`
	MaxHeight     uint16 `json:"maxHeight"`
	SessionID     string `json:"sessionId"`
	Application   string `json:"application"`
	DisplayTicket string `json:"displayTicket"`
	ResumeTicket  string `json:"resumeTicket"`
}

// Type is TypeWelcome.
func (*Welcome) Type() Type { return TypeWelcome }

// Append appends the message to dst.
func (m *Welcome) Append(dst []byte) []byte {
	dst = append(dst, byte(TypeWelcome))
	dst = le.AppendUint16(dst, m.Version)
	dst = le.AppendUint32(dst, m.Capabilities)
	dst = le.AppendUint16(dst, m.DisplayPort)
	dst = le.AppendUint16(dst, m.MaxWidth)
	dst = le.AppendUint16(dst, m.MaxHeight)
	dst = appendStr8(dst, m.SessionID)
	dst = appendStr8(dst, m.Application)
	dst = appendStr16(dst, m.DisplayTicket)
	return appendStr16(dst, m.ResumeTicket)
}

func (m *Welcome) parse(r *reader) {
	*m = Welcome{r.u16(), r.u32(), r.u16(), r.u16(), r.u16(), r.str8(), r.str8(), r.str16(), r.str16()}
}

// Ping asks the other end for a Pong with the same time.
type Ping struct {
	Time uint64 `json:"time,string"` // µs of the sender's monotonic clock
}

// Type is TypePing.
func (*Ping) Type() Type { return TypePing }

// Append appends the message to dst.
func (m *Ping) Append(dst []byte) []byte {
	return le.AppendUint64(append(dst, byte(TypePing)), m.Time)
}

func (m *Ping) parse(r *reader) { m.Time = r.u64() }

// Pong answers a Ping.
type Pong struct {
	Time uint64 `json:"time,string"` // as received
}

// Type is TypePong.
func (*Pong) Type() Type { return TypePong }

// Append appends the message to dst.
func (m *Pong) Append(dst []byte) []byte {
	return le.AppendUint64(append(dst, byte(TypePong)), m.Time)
}

func (m *Pong) parse(r *reader) { m.Time = r.u64() }

// Resize asks for another size of the screen.
type Resize struct {
	Width  uint16 `json:"width"`
	Height uint16 `json:"height"`
	Scale  uint16 `json:"scale"` // percent
}

// Type is TypeResize.
func (*Resize) Type() Type { return TypeResize }

// Append appends the message to dst.
func (m *Resize) Append(dst []byte) []byte {
	dst = append(dst, byte(TypeResize))
	dst = le.AppendUint16(dst, m.Width)
	dst = le.AppendUint16(dst, m.Height)
	return le.AppendUint16(dst, m.Scale)
}

func (m *Resize) parse(r *reader) { *m = Resize{r.u16(), r.u16(), r.u16()} }

// Cursor is the shape of the remote pointer. A size of 0×0 hides it.
type Cursor struct {
	Serial uint32 `json:"serial"`
	Width  uint16 `json:"width"`
	Height uint16 `json:"height"`
	HotX   uint16 `json:"hotX"`
	HotY   uint16 `json:"hotY"`
	RGBA   []byte `json:"-"` // Width·Height·4 bytes, not premultiplied
}

// Type is TypeCursor.
func (*Cursor) Type() Type { return TypeCursor }

// Append appends the message to dst. RGBA must have Width·Height·4 bytes.
func (m *Cursor) Append(dst []byte) []byte {
	dst = append(dst, byte(TypeCursor))
	dst = le.AppendUint32(dst, m.Serial)
	dst = le.AppendUint16(dst, m.Width)
	dst = le.AppendUint16(dst, m.Height)
	dst = le.AppendUint16(dst, m.HotX)
	dst = le.AppendUint16(dst, m.HotY)
	return append(dst, m.RGBA...)
}

func (m *Cursor) parse(r *reader) {
	*m = Cursor{r.u32(), r.u16(), r.u16(), r.u16(), r.u16(), nil}
	pixels := r.bytes(int(m.Width) * int(m.Height) * 4)
	m.RGBA = append([]byte{}, pixels...)
}

// EndedCode says why a session ended.
type EndedCode uint16

// The reasons for the end of a session.
const (
	EndedByUser        EndedCode = 1
	EndedByAdmin       EndedCode = 2
	EndedMaxDuration   EndedCode = 3
	EndedIdle          EndedCode = 4
	EndedApplication   EndedCode = 5
	EndedInstance      EndedCode = 6
	EndedShutdown      EndedCode = 7
	EndedInterfaceGone EndedCode = 8
)

// Ended is the agent's last message: the session is over.
type Ended struct {
	Code   EndedCode `json:"code"`
	Reason string    `json:"reason"`
}

// Type is TypeEnded.
func (*Ended) Type() Type { return TypeEnded }

// Append appends the message to dst.
func (m *Ended) Append(dst []byte) []byte {
	dst = le.AppendUint16(append(dst, byte(TypeEnded)), uint16(m.Code))
	return appendStr16(dst, m.Reason)
}

func (m *Ended) parse(r *reader) { *m = Ended{EndedCode(r.u16()), r.str16()} }

// Tickets replaces the viewer's tickets. DisplayTicket may be empty: keep none.
type Tickets struct {
	DisplayTicket string `json:"displayTicket"`
	ResumeTicket  string `json:"resumeTicket"`
}

// Type is TypeTickets.
func (*Tickets) Type() Type { return TypeTickets }

// Append appends the message to dst.
func (m *Tickets) Append(dst []byte) []byte {
	dst = appendStr16(append(dst, byte(TypeTickets)), m.DisplayTicket)
	return appendStr16(dst, m.ResumeTicket)
}

func (m *Tickets) parse(r *reader) { *m = Tickets{r.str16(), r.str16()} }

// Notice is something the user should read.
type Notice struct {
	Code uint16 `json:"code"`
	Text string `json:"text"`
}

// Type is TypeNotice.
func (*Notice) Type() Type { return TypeNotice }

// Append appends the message to dst.
func (m *Notice) Append(dst []byte) []byte {
	dst = le.AppendUint16(append(dst, byte(TypeNotice)), m.Code)
	return appendStr16(dst, m.Text)
}

func (m *Notice) parse(r *reader) { *m = Notice{r.u16(), r.str16()} }

// Visibility says whether anybody can see the picture.
type Visibility struct {
	Hidden bool `json:"hidden"`
}

// Type is TypeVisibility.
func (*Visibility) Type() Type { return TypeVisibility }

// Append appends the message to dst.
func (m *Visibility) Append(dst []byte) []byte {
	return appendFlag(append(dst, byte(TypeVisibility)), m.Hidden)
}

func (m *Visibility) parse(r *reader) { m.Hidden = r.flag("hidden") }

// End is the user's wish to end the session.
type End struct{}

// Type is TypeEnd.
func (*End) Type() Type { return TypeEnd }

// Append appends the message to dst.
func (*End) Append(dst []byte) []byte { return append(dst, byte(TypeEnd)) }

func (*End) parse(*reader) {}

// NeedDisplayTicket asks for Tickets with a display ticket.
type NeedDisplayTicket struct{}

// Type is TypeNeedDisplayTicket.
func (*NeedDisplayTicket) Type() Type { return TypeNeedDisplayTicket }

// Append appends the message to dst.
func (*NeedDisplayTicket) Append(dst []byte) []byte { return append(dst, byte(TypeNeedDisplayTicket)) }

func (*NeedDisplayTicket) parse(*reader) {}

// Monitor is the size of one monitor, in physical pixels.
type Monitor struct {
	Width  uint16 `json:"width"`
	Height uint16 `json:"height"`
}

// Monitors asks for one or two monitors side by side, from the left, with their tops aligned.
type Monitors struct {
	Scale    uint16    `json:"scale"` // percent
	Monitors []Monitor `json:"monitors"`
}

// Type is TypeMonitors.
func (*Monitors) Type() Type { return TypeMonitors }

// Append appends the message to dst.
func (m *Monitors) Append(dst []byte) []byte {
	dst = le.AppendUint16(append(dst, byte(TypeMonitors)), m.Scale)
	dst = append(dst, byte(len(m.Monitors)))
	for _, one := range m.Monitors {
		dst = le.AppendUint16(le.AppendUint16(dst, one.Width), one.Height)
	}
	return dst
}

func (m *Monitors) parse(r *reader) {
	m.Scale = r.u16()
	n := r.u8()
	if n < 1 || n > MaxMonitors {
		r.fail("count is neither 1 nor 2")
		return
	}
	for range n {
		m.Monitors = append(m.Monitors, Monitor{r.u16(), r.u16()})
	}
}

// CursorAgain shows a cursor that the viewer keeps.
type CursorAgain struct {
	Serial uint32 `json:"serial"`
}

// Type is TypeCursorAgain.
func (*CursorAgain) Type() Type { return TypeCursorAgain }

// Append appends the message to dst.
func (m *CursorAgain) Append(dst []byte) []byte {
	return le.AppendUint32(append(dst, byte(TypeCursorAgain)), m.Serial)
}

func (m *CursorAgain) parse(r *reader) { m.Serial = r.u32() }
