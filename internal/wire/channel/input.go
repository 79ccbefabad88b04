package channel

// Pointer is the whole state of the pointer.
type Pointer struct {
	Seq     uint32 `json:"seq"`
	X       uint16 `json:"x"`
	Y       uint16 `json:"y"`
	Buttons uint8  `json:"buttons"` // bit 0 left, 1 middle, 2 right, 3 back, 4 forward; others ignored
}

// Type is TypePointer.
func (*Pointer) Type() Type { return TypePointer }

// Append appends the message to dst.
func (m *Pointer) Append(dst []byte) []byte {
	dst = le.AppendUint32(append(dst, byte(TypePointer)), m.Seq)
	dst = le.AppendUint16(dst, m.X)
	dst = le.AppendUint16(dst, m.Y)
	return append(dst, m.Buttons)
}

func (m *Pointer) parse(r *reader) { *m = Pointer{r.u32(), r.u16(), r.u16(), r.u8()} }

// Wheel is a turn of the wheel at a place.
type Wheel struct {
	Seq uint32 `json:"seq"`
	X   uint16 `json:"x"`
	Y   uint16 `json:"y"`
	DX  int16  `json:"dx"` // 1/120 notch, positive is right
	DY  int16  `json:"dy"` // 1/120 notch, positive is down
}

// Type is TypeWheel.
func (*Wheel) Type() Type { return TypeWheel }

// Append appends the message to dst.
func (m *Wheel) Append(dst []byte) []byte {
	dst = le.AppendUint32(append(dst, byte(TypeWheel)), m.Seq)
	dst = le.AppendUint16(dst, m.X)
	dst = le.AppendUint16(dst, m.Y)
	dst = le.AppendUint16(dst, uint16(m.DX))
	return le.AppendUint16(dst, uint16(m.DY))
}

func (m *Wheel) parse(r *reader) {
	*m = Wheel{r.u32(), r.u16(), r.u16(), int16(r.u16()), int16(r.u16())}
}

// The flags of Key.
const (
	KeyRepeat   uint8 = 1 << 0
	KeyShift    uint8 = 1 << 1
	KeyCtrl     uint8 = 1 << 2
	KeyAlt      uint8 = 1 << 3
	KeyMeta     uint8 = 1 << 4
	KeyAltGraph uint8 = 1 << 5
	KeyCapsLock uint8 = 1 << 6
	KeyNumLock  uint8 = 1 << 7
)

// Key is a key that went down or up, as the browser named it.
type Key struct {
	Seq   uint32 `json:"seq"`
	Down  bool   `json:"down"`
	Flags uint8  `json:"flags"`
	Code  string `json:"code"` // KeyboardEvent.code
	Key   string `json:"key"`  // KeyboardEvent.key
}

// Type is TypeKey.
func (*Key) Type() Type { return TypeKey }

// Append appends the message to dst.
func (m *Key) Append(dst []byte) []byte {
	dst = le.AppendUint32(append(dst, byte(TypeKey)), m.Seq)
	dst = append(appendFlag(dst, m.Down), m.Flags)
	return appendStr8(appendStr8(dst, m.Code), m.Key)
}

func (m *Key) parse(r *reader) {
	*m = Key{r.u32(), r.flag("down"), r.u8(), r.str8(), r.str8()}
}

// Text is text that an input method composed.
type Text struct {
	Seq  uint32 `json:"seq"`
	Text string `json:"text"`
}

// Type is TypeText.
func (*Text) Type() Type { return TypeText }

// Append appends the message to dst.
func (m *Text) Append(dst []byte) []byte {
	return appendStr16(le.AppendUint32(append(dst, byte(TypeText)), m.Seq), m.Text)
}

func (m *Text) parse(r *reader) { *m = Text{r.u32(), r.str16()} }

// ReleaseAll lets all keys and buttons go.
type ReleaseAll struct {
	Seq uint32 `json:"seq"`
}

// Type is TypeReleaseAll.
func (*ReleaseAll) Type() Type { return TypeReleaseAll }

// Append appends the message to dst.
func (m *ReleaseAll) Append(dst []byte) []byte {
	return le.AppendUint32(append(dst, byte(TypeReleaseAll)), m.Seq)
}

func (m *ReleaseAll) parse(r *reader) { m.Seq = r.u32() }

// Relative is a movement of the pointer from where it is, while the page has it locked.
type Relative struct {
	Seq     uint32 `json:"seq"`
	DX      int16  `json:"dx"`      // pixels, positive is right
	DY      int16  `json:"dy"`      // pixels, positive is down
	Buttons uint8  `json:"buttons"` // as in Pointer
}

// Type is TypeRelative.
func (*Relative) Type() Type { return TypeRelative }

// Append appends the message to dst.
func (m *Relative) Append(dst []byte) []byte {
	dst = le.AppendUint32(append(dst, byte(TypeRelative)), m.Seq)
	dst = le.AppendUint16(dst, uint16(m.DX))
	dst = le.AppendUint16(dst, uint16(m.DY))
	return append(dst, m.Buttons)
}

func (m *Relative) parse(r *reader) {
	*m = Relative{r.u32(), int16(r.u16()), int16(r.u16()), r.u8()}
}

// Keyboard is what the browser knows of the user's keyboard.
type Keyboard struct {
	Seq      uint32        `json:"seq"`
	Language string        `json:"language"` // BCP 47
	Keys     []KeyboardKey `json:"keys"`     // at most 255; others are not sent
}

// KeyboardKey is one key and what it makes without modifiers.
type KeyboardKey struct {
	Code string `json:"code"` // KeyboardEvent.code
	Key  string `json:"key"`  // as navigator.keyboard.getLayoutMap tells it
}

// Type is TypeKeyboard.
func (*Keyboard) Type() Type { return TypeKeyboard }

// Append appends the message to dst.
func (m *Keyboard) Append(dst []byte) []byte {
	dst = le.AppendUint32(append(dst, byte(TypeKeyboard)), m.Seq)
	dst = appendStr8(dst, m.Language)
	keys := m.Keys[:min(len(m.Keys), 255)]
	dst = append(dst, uint8(len(keys)))
	for _, k := range keys {
		dst = appendStr8(appendStr8(dst, k.Code), k.Key)
	}
	return dst
}

func (m *Keyboard) parse(r *reader) {
	*m = Keyboard{Seq: r.u32(), Language: r.str8()}
	count := int(r.u8())
	if 2*count > len(r.rest) {
		r.fail("too short")
		return
	}
	m.Keys = make([]KeyboardKey, count)
	for i := range m.Keys {
		m.Keys[i] = KeyboardKey{r.str8(), r.str8()}
	}
}
