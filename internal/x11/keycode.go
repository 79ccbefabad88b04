package x11

import "slices"

// evdevKeycodes are the X keycodes of the places of keys, by KeyboardEvent.code: the kernel's key number and 8 (Linux
// input-event-codes.h; UI Events KeyboardEvent code Values).
var evdevKeycodes = map[string]uint8{
	"Escape": 9, "Digit1": 10, "Digit2": 11, "Digit3": 12, "Digit4": 13, "Digit5": 14, "Digit6": 15, "Digit7": 16, "Digit8": 17,
	"Digit9": 18, "Digit0": 19, "Minus": 20, "Equal": 21, "Backspace": 22, "Tab": 23,
	"KeyQ": 24, "KeyW": 25, "KeyE": 26, "KeyR": 27, "KeyT": 28, "KeyY": 29, "KeyU": 30, "KeyI": 31, "KeyO": 32, "KeyP": 33,
	"BracketLeft": 34, "BracketRight": 35, "Enter": 36, "ControlLeft": 37,
	"KeyA": 38, "KeyS": 39, "KeyD": 40, "KeyF": 41, "KeyG": 42, "KeyH": 43, "KeyJ": 44, "KeyK": 45, "KeyL": 46,
	"Semicolon": 47, "Quote": 48, "Backquote": 49, "ShiftLeft": 50, "Backslash": 51,
	"KeyZ": 52, "KeyX": 53, "KeyC": 54, "KeyV": 55, "KeyB": 56, "KeyN": 57, "KeyM": 58, "Comma": 59, "Period": 60, "Slash": 61,
	"ShiftRight": 62, "NumpadMultiply": 63, "AltLeft": 64, "Space": 65, "CapsLock": 66,
	"F1": 67, "F2": 68, "F3": 69, "F4": 70, "F5": 71, "F6": 72, "F7": 73, "F8": 74, "F9": 75, "F10": 76,
	"NumLock": 77, "ScrollLock": 78,
	"Numpad7": 79, "Numpad8": 80, "Numpad9": 81, "NumpadSubtract": 82, "Numpad4": 83, "Numpad5": 84, "Numpad6": 85, "NumpadAdd": 86,
	"Numpad1": 87, "Numpad2": 88, "Numpad3": 89, "Numpad0": 90, "NumpadDecimal": 91,
	"IntlBackslash": 94, "F11": 95, "F12": 96, "IntlRo": 97, "Convert": 100, "KanaMode": 101, "NonConvert": 102,
	"NumpadEnter": 104, "ControlRight": 105, "NumpadDivide": 106, "PrintScreen": 107, "AltRight": 108,
	"Home": 110, "ArrowUp": 111, "PageUp": 112, "ArrowLeft": 113, "ArrowRight": 114, "End": 115, "ArrowDown": 116, "PageDown": 117,
	"Insert": 118, "Delete": 119, "AudioVolumeMute": 121, "AudioVolumeDown": 122, "AudioVolumeUp": 123, "Power": 124,
	"NumpadEqual": 125, "Pause": 127, "NumpadComma": 129, "Lang1": 130, "Lang2": 131, "IntlYen": 132,
	"MetaLeft": 133, "MetaRight": 134, "ContextMenu": 135, "BrowserStop": 136, "Again": 137, "Undo": 139, "Select": 140,
	"Copy": 141, "Open": 142, "Paste": 143, "Find": 144, "Cut": 145, "Help": 146,
	"LaunchApp2": 148, "Sleep": 150, "WakeUp": 151, "LaunchMail": 163, "BrowserFavorites": 164,
	"BrowserBack": 166, "BrowserForward": 167, "Eject": 169,
	"MediaTrackNext": 171, "MediaPlayPause": 172, "MediaTrackPrevious": 173, "MediaStop": 174,
	"BrowserHome": 180, "BrowserRefresh": 181,
	"F13": 191, "F14": 192, "F15": 193, "F16": 194, "F17": 195, "F18": 196, "F19": 197, "F20": 198, "F21": 199, "F22": 200,
	"F23": 201, "F24": 202, "BrowserSearch": 225,
}

// spareKeycodes are keycodes of no key that a browser tells of, and of no modifier: whatever the keyboard has there
// (buttons of laptops, mostly), nobody presses it, so characters of no other place are put there.
var spareKeycodes = func() (list []uint8) {
	taken := [256]bool{203: true, 204: true, 205: true, 206: true, 207: true} // Mode_switch, Alt, Meta, Super, Hyper
	for _, keycode := range evdevKeycodes {
		taken[keycode] = true
	}
	for keycode := 120; keycode < len(taken); keycode++ {
		if !taken[keycode] {
			list = append(list, uint8(keycode))
		}
	}
	return list
}()

func isSpare(keycode uint8) bool {
	return slices.Contains(spareKeycodes, keycode)
}

// keypad reports whether a place is one of those that NumLock changes.
func keypad(keycode uint8) bool {
	return keycode >= 79 && keycode <= 91 && keycode != 82 && keycode != 86
}
