package x11

import (
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"penstock.dev/penstock/internal/media"
)

// Input injects pointer and keyboard events into one display, on a connection of its own so that a picture
// never delays a key. One goroutine at a time may use it.
//
// Keys go by the character that the browser named: it is looked up in the display's keyboard, with the
// modifiers that it needs there, whatever the user's own layout is. Characters that the keyboard lacks are
// put on its unused keycodes.
type Input struct {
	c     *conn
	xtest extension
	log   *slog.Logger

	stale  atomic.Bool // the keyboard changed
	keymap *keymap
	bound  map[rune]*binding // characters on unused keycodes
	clock  uint64            // counts the use of bindings

	held    map[string]uint8 // keycodes that are down, by the name of the key that the user holds
	order   []string         // of the keys in held, as they were pressed
	buttons media.Buttons
	wheelX  int // part of a notch that is not turned yet, in 1/120
	wheelY  int

	batch  []byte
	queued int
}

// binding is a character on an unused keycode.
type binding struct {
	keycode uint8
	used    uint64
	at      time.Time // when it was used
}

// settleTime is what an application is given to look a bound character up, before its keycode makes another.
const settleTime = 100 * time.Millisecond

// OpenInput connects to the server's display for input and turns its own key repetition off: the viewer's
// counts, so that a stalled network never types on.
func (s *Server) OpenInput() (*Input, error) {
	in := &Input{log: s.log, held: map[string]uint8{}, bound: map[rune]*binding{}}
	c, err := dial(s.display, s.cookie, func(ev []byte) {
		if ev[0]&0x7f == eventMapping {
			in.stale.Store(true)
		}
	}, func(e *xError) { s.log.Debug("X request was refused", "error", e) })
	if err != nil {
		return nil, err
	}
	in.c = c
	if err := in.open(); err != nil {
		c.close()
		return nil, fmt.Errorf("open input of display :%d: %w", s.display, err)
	}
	return in, nil
}

func (in *Input) open() error {
	var err error
	if in.xtest, _, err = in.c.extension("XTEST"); err != nil {
		return err
	}
	if err := grabProof(in.c); err != nil {
		return err
	}
	const autoRepeatMode, off = 1 << 7, 0
	if err := in.c.check(words([]byte{opChangeKeyboardControl, 0, 3, 0}, autoRepeatMode, off)); err != nil {
		return fmt.Errorf("turn key repetition off: %w", err)
	}
	in.keymap, err = loadKeymap(in.c)
	return err
}

// Close ends the connection. Keys that are down stay down.
func (in *Input) Close() { in.c.close() }

// Inject does what the user did.
func (in *Input) Inject(e media.Event) error {
	if in.stale.Swap(false) {
		if err := in.reload(); err != nil {
			return err
		}
	}
	switch e := e.(type) {
	case media.Pointer:
		in.move(e.X, e.Y)
		in.setButtons(e.Buttons)
	case media.Wheel:
		in.move(e.X, e.Y)
		in.wheelX = in.turn(in.wheelX, e.DX, 6, 7)
		in.wheelY = in.turn(in.wheelY, e.DY, 4, 5)
	case media.Key:
		in.key(e)
	case media.Text:
		in.text(e.Text)
	case media.ReleaseAll:
		in.releaseAll()
	}
	return in.flush()
}

// reload reads the keyboard again after somebody changed it. What was bound and is gone is forgotten.
func (in *Input) reload() error {
	m, err := loadKeymap(in.c)
	if err != nil {
		return err
	}
	in.keymap = m
	for r, b := range in.bound {
		if p, ok := m.places[r]; !ok || p.keycode != b.keycode {
			delete(in.bound, r)
		}
	}
	return nil
}

// The kinds of event that XTEST fakes.
const (
	fakeKeyPress      = 2
	fakeKeyRelease    = 3
	fakeButtonPress   = 4
	fakeButtonRelease = 5
	fakeMotion        = 6

	xtestFakeInput = 2
)

// fake queues one faked event.
func (in *Input) fake(kind, detail uint8, x, y int) {
	in.batch = append(in.batch, in.xtest.opcode, xtestFakeInput, 9, 0, kind, detail, 0, 0)
	in.batch = words(in.batch, 0, in.c.setup.root, 0, 0)
	in.batch = halves(in.batch, uint16(x), uint16(y))
	in.batch = words(in.batch, 0, 0)
	in.queued++
}

// flush sends what is queued in one write.
func (in *Input) flush() error {
	if in.queued == 0 {
		return nil
	}
	err := in.c.post(in.queued, in.batch)
	in.batch, in.queued = in.batch[:0], 0
	return err
}

func (in *Input) move(x, y int) { in.fake(fakeMotion, 0, x, y) }

// setButtons presses and releases what differs from the last state.
func (in *Input) setButtons(now media.Buttons) {
	for i, button := range [...]uint8{1, 2, 3, 8, 9} {
		bit := media.Buttons(1) << i
		switch {
		case now&bit != 0 && in.buttons&bit == 0:
			in.fake(fakeButtonPress, button, 0, 0)
		case now&bit == 0 && in.buttons&bit != 0:
			in.fake(fakeButtonRelease, button, 0, 0)
		}
	}
	in.buttons = now
}

const (
	notch      = 120
	maxNotches = 20 // in one event; more is a fault or a fling that nobody follows
)

// turn clicks the wheel's buttons for whole notches and returns what is left.
func (in *Input) turn(rest, delta int, back, forth uint8) int {
	if rest > 0 && delta < 0 || rest < 0 && delta > 0 {
		rest = 0
	}
	rest += delta
	button, n := forth, rest/notch
	if n < 0 {
		button, n = back, -n
	}
	for range min(n, maxNotches) {
		in.fake(fakeButtonPress, button, 0, 0)
		in.fake(fakeButtonRelease, button, 0, 0)
	}
	return rest % notch
}

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
	in.syncModifiers(k)
	switch k.Key {
	case "", "Dead", "Process", "Unidentified", "Compose":
		return // the text that comes of it follows as a character or as text
	case "CapsLock", "NumLock", "AltGraph", "Fn", "FnLock", "Symbol", "SymbolLock":
		return // the browser applies them to the characters that it names
	}
	r, size := utf8.DecodeRuneInString(k.Key)
	if size == len(k.Key) && r != utf8.RuneError {
		in.pressCharacter(name, r, k)
		return
	}
	sym := namedKeysym(k.Code, k.Key)
	if sym == noSymbol {
		return
	}
	keycode, ok := in.keymap.codes[sym]
	if !ok {
		if keycode, ok = in.bind(sym, 0); !ok {
			return
		}
	}
	if _, modifier := in.keymap.modifier(keycode); modifier && k.Repeat {
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
	if shortcut {
		if latin, ok := latinByCode(k.Code); ok && r > unicode.MaxASCII {
			r = latin
		}
		// CapsLock makes no other shortcut of Ctrl+C.
		if k.Modifiers&media.ModShift != 0 {
			r = unicode.ToUpper(r)
		} else {
			r = unicode.ToLower(r)
		}
	}
	p, bound, ok := in.find(r)
	if !ok {
		in.log.Warn("no unused keycode for a character")
		return
	}
	in.withLevel(p, bound, !shortcut, func() { in.press(name, p.keycode) })
}

// find is where r is on the keyboard, after it was put there when it was nowhere. bound says that it makes
// r with and without Shift.
func (in *Input) find(r rune) (p place, bound, ok bool) {
	sym := keysymOf(r)
	if sym == noSymbol {
		return place{}, false, false
	}
	if r < 0x20 { // Return and Tab
		keycode, ok := in.keymap.codes[sym]
		return place{keycode: keycode}, false, ok
	}
	if b := in.bound[r]; b != nil {
		in.clock++
		b.used, b.at = in.clock, time.Now()
		return place{keycode: b.keycode}, true, true
	}
	if p, ok := in.keymap.places[r]; ok {
		return p, false, true
	}
	keycode, ok := in.bind(sym, r)
	return place{keycode: keycode}, true, ok
}

// bind puts a keysym on an unused keycode, or on the one that was bound and not used for longest.
func (in *Input) bind(sym keysym, r rune) (uint8, bool) {
	var keycode uint8
	if n := len(in.keymap.spare); n > 0 {
		keycode = in.keymap.spare[n-1]
		in.keymap.spare = in.keymap.spare[:n-1]
	} else {
		var oldest rune
		for r, b := range in.bound {
			if !in.isDown(b.keycode) && (keycode == 0 || b.used < in.bound[oldest].used) {
				oldest, keycode = r, b.keycode
			}
		}
		if keycode == 0 {
			return 0, false
		}
		if wait := settleTime - time.Since(in.bound[oldest].at); wait > 0 {
			if err := in.flush(); err != nil {
				return 0, false
			}
			time.Sleep(wait)
		}
		delete(in.bound, oldest)
		delete(in.keymap.places, oldest)
	}
	// Twice, so that Shift makes no other character of it.
	in.batch = words(append(in.batch, opChangeKeyboardMapping, 1, 4, 0, keycode, 2, 0, 0), uint32(sym), uint32(sym))
	in.queued++
	if r == 0 {
		in.keymap.codes[sym] = keycode
		return keycode, true
	}
	in.clock++
	in.bound[r] = &binding{keycode, in.clock, time.Now()}
	return keycode, true
}

// withLevel runs press while exactly the level modifiers that p needs are down, and then puts them back. A
// bound character needs none and minds none. plain also lifts Control and Alt, which belong to AltGr.
func (in *Input) withLevel(p place, bound, plain bool, press func()) {
	var lifted, added []uint8
	for _, name := range in.order {
		keycode := in.held[name]
		modifier, ok := in.keymap.modifier(keycode)
		if !ok {
			continue
		}
		switch {
		case keycode == in.keymap.level3:
			continue
		case modifier == bitShift && (p.shift || bound):
			continue
		case modifier != bitShift && !plain:
			continue
		}
		lifted = append(lifted, keycode)
	}
	if p.shift && !in.modifierDown(bitShift) {
		added = append(added, in.keymap.shift)
	}
	if p.level3 && !in.isDown(in.keymap.level3) {
		added = append(added, in.keymap.level3)
	}
	for _, keycode := range lifted {
		in.fake(fakeKeyRelease, keycode, 0, 0)
	}
	for _, keycode := range added {
		in.fake(fakeKeyPress, keycode, 0, 0)
	}
	press()
	for _, keycode := range added {
		in.fake(fakeKeyRelease, keycode, 0, 0)
	}
	for _, keycode := range lifted {
		in.fake(fakeKeyPress, keycode, 0, 0)
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

// text types characters one after the other. Modifiers that are down do not count.
func (in *Input) text(s string) {
	const name = "text"
	for _, r := range s {
		p, bound, ok := in.find(r)
		if !ok {
			continue
		}
		in.withLevel(p, bound, true, func() { in.press(name, p.keycode) })
		in.release(name)
	}
}

// releaseAll lets everything go, the last key first.
func (in *Input) releaseAll() {
	for len(in.order) > 0 {
		in.release(in.order[len(in.order)-1])
	}
	in.setButtons(0)
	in.wheelX, in.wheelY = 0, 0
}
