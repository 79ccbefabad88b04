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
	spare   []uint8          // keycodes that make nothing
}

// place is where a character is found: press keycode while exactly these of shift and third level are down.
type place struct {
	keycode uint8
	shift   bool
	level3  bool
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

// index finds the characters. The third level stands behind the two levels of the second group.
func (m *keymap) index() {
	const thirdLevel = 4
	for row := range len(m.syms) / m.columns {
		keycode := m.first + uint8(row)
		syms := m.syms[row*m.columns : (row+1)*m.columns]
		empty := true
		for _, k := range syms {
			empty = empty && k == noSymbol
		}
		if empty && m.mods[keycode] == 0 {
			m.spare = append(m.spare, keycode)
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
	for _, level := range []struct {
		column        int
		shift, level3 bool
	}{{0, false, false}, {1, true, false}, {thirdLevel, false, true}, {thirdLevel + 1, true, true}} {
		if level.column >= m.columns || level.level3 && m.level3 == 0 || level.shift && m.shift == 0 {
			continue
		}
		for row := range len(m.syms) / m.columns {
			k := m.syms[row*m.columns+level.column]
			r, ok := k.character()
			if !ok || 0xff80 <= k && k <= 0xffbd { // the number pad needs NumLock
				continue
			}
			if _, ok := m.places[r]; !ok {
				m.places[r] = place{m.first + uint8(row), level.shift, level.level3}
			}
		}
	}
}

// modifier is the lowest modifier that the keycode is; false when it is none.
func (m *keymap) modifier(keycode uint8) (int, bool) {
	return bits.TrailingZeros8(m.mods[keycode]), m.mods[keycode] != 0
}
