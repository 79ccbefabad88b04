package media

// Input is one numbered input event of a viewer.
type Input struct {
	Seq   uint32
	Event Event
}

// Event is what the user did: one of the types below.
type Event interface{ event() }

// Buttons is the set of pointer buttons that are down.
type Buttons uint8

// The buttons.
const (
	ButtonLeft Buttons = 1 << iota
	ButtonMiddle
	ButtonRight
	ButtonBack
	ButtonForward
)

// Pointer is the whole state of the pointer.
type Pointer struct {
	X, Y    int
	Buttons Buttons
}

// Wheel is a turn of the wheel in 1/120 of a notch; positive is right and down.
type Wheel struct {
	X, Y   int
	DX, DY int
}

// Modifiers is the set of modifiers and locks that the browser saw with a key.
type Modifiers uint8

// The modifiers; they stand at the places of the key message's flags, whose lowest bit is the repeat.
const (
	ModShift Modifiers = 1 << (iota + 1)
	ModCtrl
	ModAlt
	ModMeta
	ModAltGraph
	ModCapsLock
	ModNumLock
)

// Key is a key that went down or up.
type Key struct {
	Down, Repeat bool
	Modifiers    Modifiers
	Code         string // KeyboardEvent.code: the place of the key
	Key          string // KeyboardEvent.key: the character or the name
}

// Text is composed text.
type Text struct{ Text string }

// Relative is a movement of the pointer from where it is, in pixels, and its buttons.
type Relative struct {
	DX, DY  int
	Buttons Buttons
}

// Keyboard is what the browser knows of the user's keyboard.
type Keyboard struct {
	Language string            // BCP 47, of the user
	Keys     map[string]string // KeyboardEvent.code to what the key makes without modifiers
}

// ReleaseAll lets all keys and buttons go.
type ReleaseAll struct{}

func (Pointer) event()    {}
func (Wheel) event()      {}
func (Key) event()        {}
func (Text) event()       {}
func (Relative) event()   {}
func (Keyboard) event()   {}
func (ReleaseAll) event() {}

// InputOrder decides which input counts: a number that is not greater than the last one is a repetition. The
// numbers run over the life of a viewer's page, across its connections; a connection that begins with 1 is a
// new page.
type InputOrder struct {
	last  uint32
	first bool // the next number is the connection's first
}

// Connected starts a new connection.
func (o *InputOrder) Connected() { o.first = true }

// Accept reports whether the input with this number is new.
func (o *InputOrder) Accept(seq uint32) bool {
	if o.first && seq == 1 {
		o.last = 0
	}
	o.first = false
	if seq <= o.last {
		return false
	}
	o.last = seq
	return true
}
