package x11

import (
	"errors"
	"fmt"
	"math/bits"
)

// The X modifiers by their bit.
const (
	bitShift   = 0
	bitControl = 2
	modifiers  = 8
)

// keymap is the server's keyboard as the core protocol tells it: what each keycode makes, and which
// modifiers it is.
type keymap struct {
	first   uint8 // keycode of the first row
	columns int
	syms    []keysym   // columns for each keycode
	mods    [256]uint8 // bits of the modifiers that a keycode is
	places  map[rune]place
	codes   map[keysym]uint8 // first keycode that makes a keysym without modifiers
	level3  uint8            // keycode of the key that chooses the third level; 0 for none
	shift   uint8            // keycode of a shift key; 0 for none
}

// place is where a character is found: press keycode while exactly these of shift and third level are down, in this
// group. A bound place makes its character whatever the modifiers.
type place struct {
	keycode uint8
	shift   bool
	level3  bool
	group   uint8
	bound   bool
}

// loadKeymap reads the keyboard of the server.
func loadKeymap(c *conn) (*keymap, error) {
	m := &keymap{first: c.setup.minKeycode, places: map[rune]place{}, codes: map[keysym]uint8{}}
	count := int(c.setup.maxKeycode) - int(m.first) + 1
	if count <= 0 {
		return nil, errors.New("server has no keycodes")
	}
	reply, err := c.ask([]byte{opGetKeyboardMapping, 0, 2, 0, m.first, uint8(count), 0, 0})
	if err != nil {
		return nil, fmt.Errorf("read the keyboard: %w", err)
	}
	m.columns = int(reply[1])
	if m.columns == 0 || len(reply) < 32+count*m.columns*4 {
		return nil, fmt.Errorf("read the keyboard: %d keysyms in %d bytes", count*m.columns, len(reply)-32)
	}
	m.syms = make([]keysym, count*m.columns)
	for i := range m.syms {
		m.syms[i] = keysym(le.Uint32(reply[32+4*i:]))
	}
	if reply, err = c.ask([]byte{opGetModifierMapping, 0, 1, 0}); err != nil {
		return nil, fmt.Errorf("read the modifiers: %w", err)
	}
	perModifier := int(reply[1])
	if len(reply) < 32+modifiers*perModifier {
		return nil, errors.New("read the modifiers: reply is too short")
	}
	for i, keycode := range reply[32 : 32+modifiers*perModifier] {
		if keycode != 0 {
			m.mods[keycode] |= 1 << (i / perModifier)
		}
	}
	m.index()
	return m, nil
}

// level is a column of the core keyboard: two levels of the first group, two of the second, then the third and fourth of
// the first. Where others are follows from how many levels each group has, which the core keyboard does not tell.
type level struct {
	column        int
	shift, level3 bool
	group         uint8
}

// levels are in the order in which a character is looked for.
var levels = [...]level{
	{column: 0},
	{column: 1, shift: true},
	{column: 4, level3: true},
	{column: 5, level3: true, shift: true},
	{column: 2, group: 1},
	{column: 3, shift: true, group: 1},
}

// index finds the characters.
func (m *keymap) index() {
	for keycode := int(m.first); m.row(uint8(keycode)) != nil; keycode++ {
		keycode, syms := uint8(keycode), m.row(uint8(keycode))
		if isSpare(keycode) {
			continue
		}
		if _, ok := m.codes[syms[0]]; !ok && syms[0] != noSymbol {
			m.codes[syms[0]] = keycode
		}
		switch {
		case syms[0] == ksLevel3Shift && m.level3 == 0:
			m.level3 = keycode
		case m.shift == 0 && m.mods[keycode]&(1<<bitShift) != 0:
			m.shift = keycode
		}
	}
	for _, l := range levels {
		for keycode := int(m.first); m.row(uint8(keycode)) != nil; keycode++ {
			keycode := uint8(keycode)
			r, ok := m.at(keycode, l)
			if !ok || isSpare(keycode) {
				continue
			}
			if _, ok := m.places[r]; !ok {
				m.places[r] = place{keycode: keycode, shift: l.shift, level3: l.level3, group: l.group}
			}
		}
	}
}

// row is what a keycode makes, column by column; nil when there is no such keycode.
func (m *keymap) row(keycode uint8) []keysym {
	at := (int(keycode) - int(m.first)) * m.columns
	if at < 0 || at+m.columns > len(m.syms) {
		return nil
	}
	return m.syms[at : at+m.columns]
}

// at is the character of a keycode at a level. The number pad's need NumLock and are not counted.
func (m *keymap) at(keycode uint8, l level) (rune, bool) {
	row := m.row(keycode)
	if l.column >= len(row) || l.level3 && m.level3 == 0 || l.shift && m.shift == 0 || row[l.column].keypad() {
		return 0, false
	}
	return row[l.column].character()
}

// on is where r is found on one key.
func (m *keymap) on(keycode uint8, r rune) (place, bool) {
	for _, l := range levels {
		if found, ok := m.at(keycode, l); ok && found == r {
			return place{keycode: keycode, shift: l.shift, level3: l.level3, group: l.group}, true
		}
	}
	return place{}, false
}

// modifier is the lowest modifier that the keycode is; false when it is none.
func (m *keymap) modifier(keycode uint8) (int, bool) {
	return bits.TrailingZeros8(m.mods[keycode]), m.mods[keycode] != 0
}
