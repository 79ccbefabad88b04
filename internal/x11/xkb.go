package x11

import (
	"errors"
	"fmt"
)

// The X Keyboard Extension, as far as input needs it (The X Keyboard Extension: Protocol Specification, 1.0).
const (
	xkbUseExtension    = 0
	xkbSelectEvents    = 1
	xkbLatchLockState  = 5
	xkbSetMap          = 9
	xkbGetKbdByName    = 23
	xkbCoreKeyboard    = 0x100
	xkbNewKeyboardKind = 0 // kinds of event
	xkbMapKind         = 1

	maskLock    = 1 << 1
	maskNumLock = 1 << 4 // Mod2 in every keyboard that X.Org's rules make
)

// xkbGroups is how many groups a key has at most.
const xkbGroups = 4

// xkb is the extension on one connection.
type xkb struct{ extension }

// openXKB turns the extension on and asks for the events that tell of another keyboard.
func openXKB(c *conn) (xkb, error) {
	e, ok, err := c.extension("XKEYBOARD")
	switch {
	case err != nil:
		return xkb{}, err
	case !ok:
		return xkb{}, errors.New("the X server has no keyboard extension")
	}
	x := xkb{e}
	reply, err := c.ask(finish(halves(x.request(xkbUseExtension), 1, 0)))
	if err != nil {
		return xkb{}, fmt.Errorf("use the keyboard extension: %w", err)
	}
	if reply[1] == 0 {
		return xkb{}, errors.New("the X server does not support version 1.0 of the keyboard extension")
	}
	const events, everything = 1<<xkbNewKeyboardKind | 1<<xkbMapKind, 0xff
	return x, c.check(finish(halves(x.request(xkbSelectEvents), xkbCoreKeyboard, events, 0, events, everything, everything)))
}

// foreign reports whether an event says that somebody else changed the keyboard.
func (x xkb) foreign(ev []byte) bool {
	if ev[0]&0x7f != x.firstEvent {
		return false
	}
	switch ev[1] {
	case xkbNewKeyboardKind:
		return ev[14] == x.opcode && ev[15] == xkbGetKbdByName // and not because another device sent the first key
	case xkbMapKind:
		const types, keysyms, modifiers, virtual, virtualMap = 1 << 0, 1 << 1, 1 << 2, 1 << 6, 1 << 7
		changed := le.Uint16(ev[10:])
		if changed&(types|modifiers|virtual|virtualMap) != 0 {
			return true
		}
		if changed&keysyms == 0 {
			return false
		}
		first, count := int(ev[16]), int(ev[17])
		for keycode := first; keycode < first+count; keycode++ {
			if !isSpare(uint8(keycode)) {
				return true
			}
		}
	}
	return false
}

// appendLock appends a request that sets the locks of affect to locks, and the group.
func (x xkb) appendLock(b []byte, affect, locks, group uint8) []byte {
	b = append(b, x.opcode, xkbLatchLockState, 4, 0)
	b = halves(b, xkbCoreKeyboard)
	return append(b, affect, locks, 1, group, 0, 0, 0, 0, 0, 0)
}

// appendKeys appends a request that gives neighbouring keys what they make in each of their groups, whatever the
// modifiers.
func (x xkb) appendKeys(b []byte, first uint8, keys [][xkbGroups]keysym) []byte {
	const presentKeysyms, recomputeActions = 1 << 1, 1 << 1
	start := len(b)
	b = append(b, x.opcode, xkbSetMap, 0, 0)
	b = halves(b, xkbCoreKeyboard, presentKeysyms, recomputeActions)
	b = append(b, 8, 255, 0, 0, first, uint8(len(keys)))
	b = halves(b, uint16(xkbGroups*len(keys)))
	const header = 36
	b = append(b, make([]byte, start+header-len(b))...) // no actions, behaviours, explicit parts, modifiers
	for _, syms := range keys {
		const oneLevel = 0 // the first type of every keyboard
		b = append(b, oneLevel, oneLevel, oneLevel, oneLevel, xkbGroups, 1)
		b = halves(b, xkbGroups)
		for _, sym := range syms {
			b = words(b, uint32(sym))
		}
	}
	le.PutUint16(b[start+2:], uint16((len(b)-start)/4))
	return b
}

// loadKeyboard has the server compile a keyboard from its XKB data and use it.
func (x xkb) loadKeyboard(c *conn, symbols string) error {
	const needed = 0x3f // types, compatibility, symbols, indicators, names of keys
	req := halves(x.request(xkbGetKbdByName), xkbCoreKeyboard, needed, needed)
	req = append(req, 1, 0)
	for _, component := range []string{"", "evdev+aliases(qwerty)", "complete", "complete", symbols, ""} {
		req = append(append(req, uint8(len(component))), component...)
	}
	reply, err := c.ask(finish(req))
	if err != nil {
		return fmt.Errorf("load keyboard %s: %w", symbols, err)
	}
	if reply[10] == 0 {
		return fmt.Errorf("load keyboard %s: the X server could not compile it", symbols)
	}
	return nil
}
