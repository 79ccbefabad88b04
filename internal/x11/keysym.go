package x11

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// keysym is the X name of what a key makes.
type keysym uint32

const noSymbol keysym = 0

// Keysyms of keys that have a part of their own here.
const (
	ksBackSpace   keysym = 0xff08
	ksTab         keysym = 0xff09
	ksReturn      keysym = 0xff0d
	ksShiftL      keysym = 0xffe1
	ksShiftR      keysym = 0xffe2
	ksControlL    keysym = 0xffe3
	ksControlR    keysym = 0xffe4
	ksCapsLock    keysym = 0xffe5
	ksMetaL       keysym = 0xffe7
	ksMetaR       keysym = 0xffe8
	ksAltL        keysym = 0xffe9
	ksAltR        keysym = 0xffea
	ksSuperL      keysym = 0xffeb
	ksSuperR      keysym = 0xffec
	ksLevel3Shift keysym = 0xfe03
	ksModeSwitch  keysym = 0xff7e
	ksNumLock     keysym = 0xff7f
	ksKPEnter     keysym = 0xff8d

	// unicodeKeysym plus a character above U+00FF is that character's keysym.
	unicodeKeysym keysym = 0x01000000
)

// keypad reports whether the keysym is of the number pad.
func (k keysym) keypad() bool { return k >= 0xff80 && k <= 0xffbd }

// keypadCharacter is what a keysym of the number pad types; false for those that type nothing.
func (k keysym) keypadCharacter() (rune, bool) {
	if r := rune(k) - 0xff80; k.keypad() && r >= '*' && r <= '=' && r != '<' {
		return r, true // KP_Multiply to KP_9 and KP_Equal stand where ASCII has the characters
	}
	return 0, false
}

// character is what the keysym types; false when it types nothing.
func (k keysym) character() (rune, bool) {
	switch {
	case k >= 0x20 && k <= 0x7e, k >= 0xa0 && k <= 0xff:
		return rune(k), true
	case k >= unicodeKeysym+0x100 && k <= unicodeKeysym+utf8.MaxRune:
		return rune(k - unicodeKeysym), true
	case k < 0xff00:
		if i, ok := slices.BinarySearchFunc(legacyKeysyms[:], k, func(pair [2]uint16, k keysym) int {
			return int(pair[0]) - int(k)
		}); ok {
			return rune(legacyKeysyms[i][1]), true
		}
	}
	return 0, false
}

// keysymOf is the keysym that types a character.
func keysymOf(r rune) keysym {
	switch {
	case r == '\n' || r == '\r':
		return ksReturn
	case r == '\t':
		return ksTab
	case r == '\b':
		return ksBackSpace
	case r < 0x20 || r >= 0x7f && r < 0xa0 || !utf8.ValidRune(r):
		return noSymbol
	case r <= 0xff:
		return keysym(r)
	default:
		return unicodeKeysym + keysym(r)
	}
}

// namedKeysym is the keysym of a key that the browser names instead of giving a character. The code tells
// left from right and the number pad from the rest.
func namedKeysym(code, key string) keysym {
	right := strings.HasSuffix(code, "Right")
	side := func(left, rightSym keysym) keysym {
		if right {
			return rightSym
		}
		return left
	}
	switch key {
	case "Shift":
		return side(ksShiftL, ksShiftR)
	case "Control":
		return side(ksControlL, ksControlR)
	case "Alt":
		return side(ksAltL, ksAltR)
	case "Meta", "OS", "Super":
		return side(ksSuperL, ksSuperR)
	case "Hyper":
		return side(0xffed, 0xffee)
	case "Enter":
		if code == "NumpadEnter" {
			return ksKPEnter
		}
		return ksReturn
	case "Backspace":
		return ksBackSpace
	case "Tab":
		return ksTab
	case "Escape", "Esc":
		return 0xff1b
	case "Delete", "Del":
		return 0xffff
	case "Insert":
		return 0xff63
	case "Home":
		return 0xff50
	case "ArrowLeft", "Left":
		return 0xff51
	case "ArrowUp", "Up":
		return 0xff52
	case "ArrowRight", "Right":
		return 0xff53
	case "ArrowDown", "Down":
		return 0xff54
	case "PageUp":
		return 0xff55
	case "PageDown":
		return 0xff56
	case "End":
		return 0xff57
	case "Clear":
		return 0xff0b
	case "Pause":
		return 0xff13
	case "ScrollLock":
		return 0xff14
	case "PrintScreen":
		return 0xff61
	case "Undo":
		return 0xff65
	case "Redo", "Again":
		return 0xff66
	case "ContextMenu":
		return 0xff67
	case "Find":
		return 0xff68
	case "NonConvert":
		return 0xff22
	case "Convert":
		return 0xff23
	case "KanaMode":
		return 0xff2d
	case "HangulMode":
		return 0xff31
	case "HanjaMode":
		return 0xff34
	case "Cancel":
		return 0xff69
	case "Help":
		return 0xff6a
	case "AudioVolumeDown":
		return 0x1008ff11
	case "AudioVolumeMute":
		return 0x1008ff12
	case "AudioVolumeUp":
		return 0x1008ff13
	case "MediaPlayPause":
		return 0x1008ff14
	case "MediaStop":
		return 0x1008ff15
	case "MediaTrackPrevious":
		return 0x1008ff16
	case "MediaTrackNext":
		return 0x1008ff17
	case "BrowserBack":
		return 0x1008ff26
	case "BrowserForward":
		return 0x1008ff27
	case "BrowserRefresh":
		return 0x1008ff29
	case "Copy":
		return 0x1008ff57
	case "Cut":
		return 0x1008ff58
	case "Paste":
		return 0x1008ff6d
	}
	if n, ok := functionKey(key); ok {
		return 0xffbe + keysym(n-1)
	}
	return noSymbol
}

// functionKey is the number of F1 to F35.
func functionKey(key string) (int, bool) {
	if len(key) < 2 || len(key) > 3 || key[0] != 'F' {
		return 0, false
	}
	n := 0
	for _, c := range key[1:] {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, n >= 1 && n <= 35 && key[1] != '0'
}

// latinByCode is the character that a key has on an American keyboard. It stands in for a shortcut's
// character when the application's keyboard cannot make the user's, as with Ctrl and С in a Russian layout.
func latinByCode(code string) (rune, bool) {
	if letter, ok := strings.CutPrefix(code, "Key"); ok && len(letter) == 1 && letter[0] >= 'A' && letter[0] <= 'Z' {
		return rune(letter[0]) + 'a' - 'A', true
	}
	if digit, ok := strings.CutPrefix(code, "Digit"); ok && len(digit) == 1 && digit[0] >= '0' && digit[0] <= '9' {
		return rune(digit[0]), true
	}
	switch code {
	case "Minus":
		return '-', true
	case "Equal":
		return '=', true
	case "BracketLeft":
		return '[', true
	case "BracketRight":
		return ']', true
	case "Semicolon":
		return ';', true
	case "Quote":
		return '\'', true
	case "Backquote":
		return '`', true
	case "Backslash":
		return '\\', true
	case "Comma":
		return ',', true
	case "Period":
		return '.', true
	case "Slash":
		return '/', true
	case "Space":
		return ' ', true
	}
	return 0, false
}
