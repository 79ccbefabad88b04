package media

import "fmt"

// CloseCode is why a connection was closed, as in docs/protocol.md.
type CloseCode uint16

// The close codes.
const (
	CloseBadMessage       CloseCode = 4400
	CloseBadTicket        CloseCode = 4401
	CloseTicketUsed       CloseCode = 4402
	CloseWrongEndpoint    CloseCode = 4403
	CloseNoSession        CloseCode = 4404
	CloseTicketExpired    CloseCode = 4405
	CloseWrongChannel     CloseCode = 4406
	CloseTooSlow          CloseCode = 4408
	CloseReplaced         CloseCode = 4409
	CloseEnded            CloseCode = 4410
	CloseVersion          CloseCode = 4426
	CloseInternal         CloseCode = 4500
	CloseAgentUnreachable CloseCode = 4503
)

// Close is why a connection ends: the viewer receives Code and Reason.
type Close struct {
	Code   CloseCode
	Reason string // plain words
}

// Error is the code and the reason.
func (c *Close) Error() string { return fmt.Sprintf("%d: %s", c.Code, c.Reason) }

// FromViewer is a message that a viewer sent: one of the pointer types below.
type FromViewer interface{ fromViewer() }

// ToViewer is a message for the viewer's control connection: one of the pointer types below.
type ToViewer interface{ toViewer() }

// Hello is the viewer's first message on control. A zero Size keeps the screen's size.
type Hello struct {
	Version   int
	Size      Size
	Scale     int // percent
	FixedSize bool
	// KeepsCursors: the viewer keeps the last KeptCursors cursors.
	KeepsCursors bool
}

// Welcome answers Hello.
type Welcome struct {
	Version       int
	DisplayPort   uint16
	MaxSize       Size
	Session       string
	Application   string
	DisplayTicket string
	ResumeTicket  string
}

// Ping asks for a Pong; it goes both ways.
type Ping struct{ Time uint64 }

// Pong answers a Ping; it goes both ways.
type Pong struct{ Time uint64 }

// Resize asks for another size of the screen.
type Resize struct {
	Size  Size
	Scale int // percent
}

// Monitors asks for one or two monitors.
type Monitors struct{ Layout Layout }

// KeptCursors is how many cursors a viewer keeps.
const KeptCursors = 64

// CursorAgain shows a cursor that the viewer keeps.
type CursorAgain struct{ Serial uint32 }

// NoticeCode says what a notice is about.
type NoticeCode uint16

// NoticeEndsSoon says that the session reaches its greatest length soon.
const NoticeEndsSoon NoticeCode = 1

// Notice is something the user should read.
type Notice struct {
	Code NoticeCode
	Text string // plain words
}

// Ended says that the session is over.
type Ended struct {
	Code   uint16
	Reason string
}

// Tickets replaces the viewer's tickets.
type Tickets struct{ Display, Resume string }

// Visibility says whether anybody can see the picture.
type Visibility struct{ Hidden bool }

// End is the user's wish to end the session.
type End struct{}

// NeedDisplayTicket asks for Tickets.
type NeedDisplayTicket struct{}

// Start is the viewer's first message on display.
type Start struct {
	Version int
	Codecs  Codecs
	Window  int // bytes in flight; 0: the agent's choice
}

// Ack says that the update Seq and all before it are drawn.
type Ack struct {
	Seq          uint32
	DecodeMicros uint32
	Queued       int
}

// Refresh asks for a full picture in a new epoch.
type Refresh struct{ Reason uint8 }

func (*Hello) fromViewer()             {}
func (*Ping) fromViewer()              {}
func (*Pong) fromViewer()              {}
func (*Resize) fromViewer()            {}
func (*Monitors) fromViewer()          {}
func (*Visibility) fromViewer()        {}
func (*End) fromViewer()               {}
func (*NeedDisplayTicket) fromViewer() {}
func (*Start) fromViewer()             {}
func (*Ack) fromViewer()               {}
func (*Refresh) fromViewer()           {}
func (*Input) fromViewer()             {}

func (*Welcome) toViewer()     {}
func (*Ping) toViewer()        {}
func (*Pong) toViewer()        {}
func (*Cursor) toViewer()      {}
func (*CursorAgain) toViewer() {}
func (*Notice) toViewer()      {}
func (*Ended) toViewer()       {}
func (*Tickets) toViewer()     {}
