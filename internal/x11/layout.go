package x11

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"penstock.dev/penstock/internal/media"
)

// layout is a keyboard of X.Org's XKB data: what its keys make plain and with Shift, in the order of layoutPlaces.
// A space stands for a dead key and for nothing.
type layout struct {
	name, variant string
	language      string // whose keyboard it is first of all
	plain, shift  []rune
}

// layoutPlaces are the keys that tell layouts apart.
var layoutPlaces = strings.Fields("Backquote Digit1 Digit2 Digit3 Digit4 Digit5 Digit6 Digit7 Digit8 Digit9 Digit0 Minus Equal " +
	"KeyQ KeyW KeyE KeyR KeyT KeyY KeyU KeyI KeyO KeyP BracketLeft BracketRight " +
	"KeyA KeyS KeyD KeyF KeyG KeyH KeyJ KeyK KeyL Semicolon Quote Backslash " +
	"IntlBackslash KeyZ KeyX KeyC KeyV KeyB KeyN KeyM Comma Period Slash")

// symbols is the layout's component for the X server. Behind layouts of other scripts stands the American one, which
// shortcuts need.
func (l *layout) symbols() string {
	own := l.name
	if l.variant != "" {
		own += "(" + l.variant + ")"
	}
	if l.latin() {
		return "pc+" + own + "+inet(evdev)"
	}
	return "pc+" + own + "+us:2+inet(evdev)"
}

func (l *layout) latin() bool {
	n := 0
	for _, r := range l.plain {
		if r >= 'a' && r <= 'z' {
			n++
		}
	}
	return n >= 20
}

// follower finds out which keyboard the user has, from what the browser tells of it and from what is typed.
type follower struct {
	language string
	plain    map[int]rune // by the index of layoutPlaces
	shift    map[int]rune
	current  *layout // that the session has; nil when somebody in it chose another
	changed  bool    // something was learned since the last look
	typed    time.Time
}

func newFollower() follower {
	return follower{plain: map[int]rune{}, shift: map[int]rune{}, current: &layouts[0]} // servers begin with "us"
}

var layoutIndex = func() map[string]int {
	index := make(map[string]int, len(layoutPlaces))
	for i, code := range layoutPlaces {
		index[code] = i
	}
	return index
}()

// told takes what the browser knows of the user's keyboard. It replaces what was learned.
func (f *follower) told(m media.Keyboard) {
	clear(f.plain)
	clear(f.shift)
	f.language, f.changed = m.Language, true
	for code, key := range m.Keys {
		if i, ok := layoutIndex[code]; ok {
			if r := []rune(key); len(r) == 1 {
				f.plain[i] = r[0]
			}
		}
	}
}

// learn takes what a key made.
func (in *Input) learn(k media.Key, r rune) {
	f := &in.follower
	defer func() { f.typed = time.Now() }()
	i, ok := layoutIndex[k.Code]
	if !ok || k.Modifiers&(media.ModAltGraph|media.ModCapsLock) != 0 {
		return
	}
	at := f.plain
	if k.Modifiers&media.ModShift != 0 {
		at = f.shift
	}
	if at[i] != r {
		at[i] = r
		f.changed = true
	}
}

// score counts what a layout explains. A dead key says nothing: what comes of it counts for another key.
func (f *follower) score(l *layout) int {
	n := 0
	for level, seen := range [...]map[int]rune{f.plain, f.shift} {
		keys := l.plain
		if level == 1 {
			keys = l.shift
		}
		for i, r := range seen {
			switch {
			case keys[i] == r:
				n += 2
			case keys[i] != ' ':
				n -= 3
			case unicode.IsLetter(r):
				n--
			}
		}
	}
	n *= 4
	if f.language != "" && strings.HasPrefix(strings.ToLower(f.language), l.language) {
		n++ // breaks ties
		if strings.EqualFold(f.language, l.language) {
			n++
		}
	}
	return n
}

// best is the layout that explains most; the current one when no other explains more.
func (f *follower) best() *layout {
	best, most := f.current, 0
	if best != nil {
		most = f.score(best)
	}
	for i := range layouts {
		if n := f.score(&layouts[i]); n > most {
			best, most = &layouts[i], n
		}
	}
	return best
}

const (
	// certain is what a layout must be ahead of the current one by, when it is learned from typing alone.
	certain = 24
	// restTime without a key lets applications look up all that was typed before the keyboard changes.
	restTime = time.Second
)

// follow gives the session the user's keyboard.
func (in *Input) follow() error {
	f := &in.follower
	f.changed = false
	l := f.best()
	if l == f.current || l == nil {
		return nil
	}
	in.settle(f.typed)
	in.releaseAll()
	if err := in.flush(); err != nil {
		return err
	}
	if err := in.xkb.loadKeyboard(in.c, l.symbols()); err != nil {
		return err
	}
	f.current = l
	in.bindings.forget()
	in.log.Info("keyboard followed the user's", "layout", l.name, "variant", l.variant)
	err := in.reload()
	in.stale.Store(false) // the events of this very change have come by now
	if err != nil {
		return err
	}
	in.prepare()
	if err := in.flush(); err != nil {
		return err
	}
	return in.nameLayout(l)
}

// followTyping follows the user's keyboard when what was typed leaves little doubt, between two bouts of typing.
func (in *Input) followTyping() error {
	f := &in.follower
	if !f.changed || f.current == nil || time.Since(f.typed) < restTime {
		return nil
	}
	f.changed = false
	if best := f.best(); f.score(best)-f.score(f.current) < certain {
		return nil
	}
	return in.follow()
}

// nameLayout leaves word of the layout where programs look for it (setxkbmap -query does).
func (in *Input) nameLayout(l *layout) error {
	const opInternAtom, opChangeProperty, stringType = 16, 18, 31
	const property = "_XKB_RULES_NAMES"
	request := append(halves([]byte{opInternAtom, 0, 0, 0}, uint16(len(property)), 0), property...)
	reply, err := in.c.ask(finish(request))
	if err != nil {
		return fmt.Errorf("name the layout: %w", err)
	}
	name, variant := l.name, l.variant
	if !l.latin() {
		name, variant = name+",us", variant+","
	}
	value := strings.Join([]string{"evdev", "pc105", name, variant, "", ""}, "\x00")
	request = words([]byte{opChangeProperty, 0, 0, 0}, in.c.setup.root, le.Uint32(reply[8:]), stringType, 8, uint32(len(value)))
	return in.c.check(finish(append(request, value...)))
}
