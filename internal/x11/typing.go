package x11

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"penstock.dev/penstock/internal/media"
)

// key presses or releases a key.
func (in *Input) key(k media.Key) {
	name := k.Code
	if name == "" || name == "Unidentified" {
		name = "key " + strings.ToLower(k.Key)
	}
	if !k.Down {
		in.release(name)
		in.syncModifiers(k)
		return
	}
	if err := in.followTyping(); err != nil {
		in.log.Warn("keyboard did not follow the user's", "error", err)
	}
	in.syncModifiers(k)
	switch k.Key {
	case "":
		in.pressPlace(name, k)
		return
	case "Dead", "Process", "Unidentified", "Compose":
		return // the text that comes of it follows as a character or as text
	case "CapsLock", "NumLock", "AltGraph", "Fn", "FnLock", "Symbol", "SymbolLock":
		return // the browser applies them to the characters that it names
	}
	r, size := utf8.DecodeRuneInString(k.Key)
	switch {
	case r == utf8.RuneError && size < 2:
		return
	case size == len(k.Key):
		in.pressCharacter(name, r, k)
		return
	case strings.ContainsFunc(k.Key, func(r rune) bool { return r > unicode.MaxASCII }):
		in.text(k.Key) // a key of several characters, as Arabic keyboards have them; names are ASCII
		return
	}
	if place, ok := evdevKeycodes[k.Code]; ok && in.pressKeypad(name, place, func(sym keysym) bool { return keypadNames[sym] == k.Key }) {
		return
	}
	sym := namedKeysym(k.Code, k.Key)
	if sym == noSymbol {
		return
	}
	keycode, ok := in.keymap.codes[sym]
	if !ok {
		if in.bind([]keysym{sym}, 1) == 1 {
			p := in.bindings.place(in.bindings.at[sym])
			in.withLevel(p, false, func() { in.press(name, p.keycode) })
		}
		return
	}
	if _, modifier := in.keymap.modifier(keycode); modifier && k.Repeat {
		return
	}
	in.press(name, keycode)
}

// pressPlace presses the key at the same place of the session's keyboard, whatever it makes there.
func (in *Input) pressPlace(name string, k media.Key) {
	keycode, ok := evdevKeycodes[k.Code]
	if _, modifier := in.keymap.modifier(keycode); !ok || modifier && k.Repeat {
		return
	}
	in.press(name, keycode)
}

// Names under which keys are held that the user holds without this page having seen them go down.
const (
	impliedShift   = "implied Shift"
	impliedControl = "implied Control"
	impliedAlt     = "implied Alt"
	impliedMeta    = "implied Meta"
)

// syncModifiers makes Shift, Control, Alt and Meta as the browser saw them with the key: their own events
// are lost when they go up or down outside the page.
func (in *Input) syncModifiers(k media.Key) {
	for _, m := range [...]struct {
		bit     media.Modifiers
		key     string
		implied string
		syms    [2]keysym
	}{
		{media.ModShift, "Shift", impliedShift, [2]keysym{ksShiftL, ksShiftR}},
		{media.ModCtrl, "Control", impliedControl, [2]keysym{ksControlL, ksControlR}},
		{media.ModAlt, "Alt", impliedAlt, [2]keysym{ksAltL, ksAltR}},
		{media.ModMeta, "Meta", impliedMeta, [2]keysym{ksSuperL, ksSuperR}},
	} {
		if k.Key == m.key || m.bit == media.ModMeta && (k.Key == "OS" || k.Key == "Super") {
			continue // it says so itself
		}
		var down []string
		for _, name := range in.order {
			if keycode := in.held[name]; keycode == in.keymap.codes[m.syms[0]] || keycode == in.keymap.codes[m.syms[1]] {
				down = append(down, name)
			}
		}
		wanted := k.Modifiers&m.bit != 0
		switch {
		case wanted && len(down) == 0 && k.Modifiers&media.ModAltGraph == 0:
			if keycode, ok := in.keymap.codes[m.syms[0]]; ok {
				in.press(m.implied, keycode)
			}
		case !wanted:
			for _, name := range down {
				in.release(name)
			}
		}
	}
}

// pressCharacter presses the key that makes r, with the modifiers that it needs.
func (in *Input) pressCharacter(name string, r rune, k media.Key) {
	shortcut := k.Modifiers&(media.ModCtrl|media.ModAlt|media.ModMeta) != 0 && k.Modifiers&media.ModAltGraph == 0
	if !shortcut {
		in.learn(k, r)
	}
	if shortcut {
		if latin, ok := latinByCode(k.Code); ok && unicode.IsLetter(r) && !unicode.Is(unicode.Latin, r) {
			r = latin
		}
		// CapsLock makes no other shortcut of Ctrl+C.
		if k.Modifiers&media.ModShift != 0 {
			r = unicode.ToUpper(r)
		} else {
			r = unicode.ToLower(r)
		}
	}
	keycode := evdevKeycodes[k.Code]
	if in.pressKeypad(name, keycode, func(sym keysym) bool {
		c, ok := sym.keypadCharacter()
		return ok && c == r
	}) {
		return
	}
	p, ok := in.find(r, keycode)
	if !ok {
		in.log.Warn("no place for a character")
		return
	}
	in.withLevel(p, !shortcut, func() { in.press(name, p.keycode) })
}

// keypadNames are what browsers call the number pad's keysyms without NumLock.
var keypadNames = map[keysym]string{
	0xff95: "Home", 0xff96: "ArrowLeft", 0xff97: "ArrowUp", 0xff98: "ArrowRight", 0xff99: "ArrowDown", 0xff9a: "PageUp",
	0xff9b: "PageDown", 0xff9c: "End", 0xff9d: "Clear", 0xff9e: "Insert", 0xff9f: "Delete",
}

// pressKeypad presses a key of the number pad when one of its two keysyms is wanted, with NumLock for that one
// press as the keysym and Shift call for. The session's own NumLock stays off.
func (in *Input) pressKeypad(name string, keycode uint8, wanted func(keysym) bool) bool {
	row := in.keymap.row(keycode)
	if len(row) < 2 || !row[0].keypad() && !row[1].keypad() {
		return false
	}
	if !keypad(keycode) { // the same with and without
		if wanted(row[0]) {
			in.press(name, keycode)
			return true
		}
		return false
	}
	second := wanted(row[1])
	if !second && !wanted(row[0]) {
		return false
	}
	locks := uint8(0)
	if second != in.modifierDown(bitShift) {
		locks = maskNumLock
	}
	in.lock(maskLock|maskNumLock, locks, 0)
	in.press(name, keycode)
	if locks != 0 {
		in.lock(maskNumLock, 0, 0)
	}
	return true
}

// find is where r is on the keyboard, first on the given key, after it was put there when it was nowhere.
func (in *Input) find(r rune, keycode uint8) (place, bool) {
	sym := keysymOf(r)
	switch {
	case sym == noSymbol:
		return place{}, false
	case r < 0x20: // Return, Tab and Backspace
		keycode, ok := in.keymap.codes[sym]
		return place{keycode: keycode}, ok
	}
	if p, ok := in.keymap.on(keycode, r); ok {
		return p, true
	}
	if p, ok := in.keymap.places[r]; ok {
		return p, true
	}
	in.prepare()
	if in.bind(in.neighbours(r, sym), 1) == 0 {
		return place{}, false
	}
	return in.bindings.place(in.bindings.at[sym]), true
}

// withLevel runs press while exactly the level modifiers that p needs are down, CapsLock is off and the group is
// p's, and then puts them back. A bound character needs none and minds none. plain also lifts Control and Alt,
// which belong to AltGr.
func (in *Input) withLevel(p place, plain bool, press func()) {
	var lifted, added [8]uint8 // no hand holds more
	down, up := lifted[:0], added[:0]
	for _, name := range in.order {
		keycode := in.held[name]
		modifier, ok := in.keymap.modifier(keycode)
		switch {
		case !ok, keycode == in.keymap.level3 && (p.level3 || p.bound), modifier == bitShift && (p.shift || p.bound):
			continue
		case modifier != bitShift && keycode != in.keymap.level3 && !plain, len(down) == len(lifted):
			continue
		}
		down = append(down, keycode)
	}
	if p.shift && !in.modifierDown(bitShift) {
		up = append(up, in.keymap.shift)
	}
	if p.level3 && !in.isDown(in.keymap.level3) {
		up = append(up, in.keymap.level3)
	}
	in.lock(maskLock, 0, p.group)
	for _, keycode := range down {
		in.fake(fakeKeyRelease, keycode, 0, 0)
	}
	for _, keycode := range up {
		in.fake(fakeKeyPress, keycode, 0, 0)
	}
	press()
	for _, keycode := range up {
		in.fake(fakeKeyRelease, keycode, 0, 0)
	}
	for _, keycode := range down {
		in.fake(fakeKeyPress, keycode, 0, 0)
	}
	if p.group != 0 {
		in.lock(0, 0, 0)
	}
}

func (in *Input) modifierDown(modifier int) bool {
	for _, keycode := range in.held {
		if in.keymap.mods[keycode]&(1<<modifier) != 0 {
			return true
		}
	}
	return false
}

func (in *Input) isDown(keycode uint8) bool {
	for _, other := range in.held {
		if other == keycode {
			return true
		}
	}
	return false
}

// press presses a keycode under a name. A key that is down already is pressed anew, as a repetition.
func (in *Input) press(name string, keycode uint8) {
	if old, ok := in.held[name]; ok && old != keycode {
		in.release(name)
	}
	if in.isDown(keycode) {
		in.fake(fakeKeyRelease, keycode, 0, 0)
	}
	in.fake(fakeKeyPress, keycode, 0, 0)
	if _, ok := in.held[name]; !ok {
		in.order = append(in.order, name)
	}
	in.held[name] = keycode
}

// release releases the key with this name, unless another key holds the same keycode.
func (in *Input) release(name string) {
	keycode, ok := in.held[name]
	if !ok {
		return
	}
	delete(in.held, name)
	for i, other := range in.order {
		if other == name {
			in.order = append(in.order[:i], in.order[i+1:]...)
			break
		}
	}
	if !in.isDown(keycode) {
		in.fake(fakeKeyRelease, keycode, 0, 0)
	}
}

// textChunk is how many characters of a text are handed to the server at once.
const textChunk = 1000

// text types characters one after the other. Modifiers that are down do not count.
func (in *Input) text(s string) {
	const name = "text"
	in.follower.typed = time.Now()
	text := []rune(strings.ReplaceAll(s, "\r\n", "\n"))
	for len(text) > 0 {
		n := in.bindAhead(text[:min(len(text), textChunk)])
		for _, r := range text[:n] {
			if p, ok := in.find(r, 0); ok {
				in.withLevel(p, true, func() { in.press(name, p.keycode) })
				in.release(name)
			}
		}
		text = text[n:]
		if in.flush() != nil {
			return
		}
	}
}

// bindAhead puts the characters that a text needs and the keyboard lacks there at once, so that applications see
// few changes. It returns how much of the text can be typed then: at least one character.
func (in *Input) bindAhead(text []rune) int {
	var syms []keysym
	missing := map[keysym]int{}
	for i, r := range text {
		sym := keysymOf(r)
		if _, ok := in.keymap.places[r]; ok || sym == noSymbol || r < 0x20 {
			continue
		}
		if _, ok := missing[sym]; !ok {
			missing[sym] = i
			syms = append(syms, sym)
		}
	}
	if len(syms) == 0 {
		return len(text)
	}
	in.prepare()
	if n := in.bind(syms, len(syms)); n < len(syms) {
		return max(missing[syms[n]], 1)
	}
	return len(text)
}
