package x11

import (
	"fmt"
	"image"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"penstock.dev/penstock/internal/media"
)

// typist is an X client that notes what is typed and clicked on its window, as a toolkit understands it.
type typist struct {
	t      *testing.T
	p      *painter
	events chan [32]byte
	in     *Input
	at     string // the last movement
}

func newTypist(t *testing.T, s *Server) *typist {
	t.Helper()
	openScreen(t, s)
	ty := &typist{t: t, events: make(chan [32]byte, 10000)}
	const keys, buttons, motion = 1 | 2, 4 | 8, 64
	ty.p = newPainter(t, s, image.Rect(0, 0, 800, 600), keys|buttons|motion, func(ev []byte) { ty.events <- [32]byte(ev) })
	if _, err := openXKB(ty.p.c); err != nil { // so that events tell of groups
		t.Fatal(err)
	}
	ty.start(s)
	return ty
}

func (ty *typist) start(s *Server) {
	ty.t.Helper()
	if ty.in != nil {
		ty.in.Close()
	}
	in, err := s.OpenInput()
	if err != nil {
		ty.t.Fatal(err)
	}
	ty.in = in
	ty.t.Cleanup(in.Close)
	ty.drain()
}

func (ty *typist) do(e media.Event) {
	ty.t.Helper()
	if err := ty.in.Inject(e); err != nil {
		ty.t.Fatal(err)
	}
}

// drain returns the events until now: all that the server had when it answered both connections once more.
func (ty *typist) drain() []string {
	ty.t.Helper()
	for _, c := range []*conn{ty.in.c, ty.p.c} {
		if _, err := c.ask([]byte{opGetInputFocus, 0, 1, 0}); err != nil {
			ty.t.Fatal(err)
		}
	}
	m, err := loadKeymap(ty.p.c)
	if err != nil {
		ty.t.Fatal(err)
	}
	var all []string
	for {
		select {
		case ev := <-ty.events:
			if s := describe(m, ev); s != "" {
				all = append(all, s)
			}
		default:
			return all
		}
	}
}

// moved is drain without movements to where the pointer is already: an application may have moved it, so
// every event names its place anew.
func (ty *typist) moved() []string {
	ty.t.Helper()
	return slices.DeleteFunc(ty.drain(), func(e string) bool {
		if !strings.HasPrefix(e, "move ") {
			return false
		}
		same := e == ty.at
		ty.at = e
		return same
	})
}

// typed is drain without the releases and the modifiers' own keys, as one string.
func (ty *typist) typed() string {
	ty.t.Helper()
	s := ""
	for _, e := range ty.drain() {
		if c, ok := strings.CutPrefix(e, "down "); ok && !strings.HasPrefix(c, "mod:") {
			s += c
		}
	}
	return s
}

func describe(m *keymap, ev [32]byte) string {
	const shift, lock, control, alt, numLock, super, level3 = 1, 2, 4, 8, 16, 64, 128
	kind, detail, state := ev[0]&0x7f, ev[1], le.Uint16(ev[28:])
	x, y := int16(le.Uint16(ev[24:])), int16(le.Uint16(ev[26:]))
	switch kind {
	case 2, 3:
		verb := map[uint8]string{2: "down ", 3: "up "}[kind]
		row := m.syms[int(detail-m.first)*m.columns:][:m.columns]
		if m.mods[detail] != 0 {
			return verb + "mod:" + fmt.Sprintf("%x", uint32(row[0]))
		}
		column := 0
		if state&level3 != 0 {
			column = 4
		}
		if state&shift != 0 {
			column++
		}
		switch group := state >> 13 & 3; {
		case isSpare(detail): // a level in each of four groups
			column = [...]int{0, 2, 4, 5}[group]
		case group == 1:
			column += 2
		case row[0].keypad() && state&numLock != 0:
			column = 1 - column
		}
		if state&lock != 0 {
			return verb + "caps"
		}
		name := fmt.Sprintf("<%x>", uint32(row[column]))
		if r, ok := row[column].character(); ok {
			name = string(r)
		}
		for bit, prefix := range map[uint16]string{control: "C-", alt: "A-", super: "S-"} {
			if state&bit != 0 {
				name = prefix + name
			}
		}
		return verb + name
	case 4:
		return fmt.Sprintf("press %d at %d,%d", detail, x, y)
	case 5:
		return fmt.Sprintf("release %d", detail)
	case 6:
		return fmt.Sprintf("move %d,%d", x, y)
	}
	return ""
}

func press(code, key string, mods media.Modifiers) media.Key {
	return media.Key{Down: true, Code: code, Key: key, Modifiers: mods}
}

func lift(code, key string, mods media.Modifiers) media.Key {
	return media.Key{Code: code, Key: key, Modifiers: mods}
}

func (ty *typist) layout(s *Server, name string) {
	ty.t.Helper()
	cmd := exec.CommandContext(ty.t.Context(), "setxkbmap", strings.Fields(name)...)
	cmd.Env = append(os.Environ(), "DISPLAY="+s.Display(), "XAUTHORITY="+s.Xauthority())
	if out, err := cmd.CombinedOutput(); err != nil {
		ty.t.Fatalf("setxkbmap %s: %v\n%s", name, err, out)
	}
}

// Whatever the display's keyboard is, characters arrive as they were named, by keys and as text.
func TestCharacters(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("setxkbmap"); err != nil {
		t.Skip("needs setxkbmap (Debian package x11-xkb-utils)")
	}
	ascii := ""
	for r := rune(' '); r <= '~'; r++ {
		ascii += string(r)
	}
	texts := map[string]string{
		"ASCII":    ascii,
		"Latin":    "äöüÄÖÜßéèêëàâçñåøœ€µ°§²³",
		"others":   "ЖжΩωłŁ漢字あ🐈…—„“",
		"repeated": "aaAAääÄÄ  !!жж",
	}
	for _, layout := range []string{"us", "de", "fr", "us dvorak", "ru", "us,ru"} {
		t.Run(layout, func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			ty := newTypist(t, s)
			ty.layout(s, strings.Replace(layout, " ", " -variant ", 1))
			ty.start(s)
			for name, text := range texts {
				for _, r := range text {
					ty.do(press("KeyX", string(r), 0))
					ty.do(lift("KeyX", string(r), 0))
					if got := ty.typed(); got != string(r) {
						t.Errorf("%s by key: got %q, want %q", name, got, string(r))
					}
				}
				got := ""
				for part := range strings.SplitSeq(text, "") {
					ty.do(media.Text{Text: part})
					got += ty.typed()
				}
				if got != text {
					t.Errorf("%s as text: got %q, want %q", name, got, text)
				}
			}
			ty.do(media.Text{Text: "short Text, 100%"})
			if got, want := ty.typed(), "short Text, 100%"; got != want {
				t.Errorf("text in one: got %q, want %q", got, want)
			}
		})
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	ty := newTypist(t, s)
	shift, ctrl, alt, meta, graph := media.ModShift, media.ModCtrl, media.ModAlt, media.ModMeta, media.ModAltGraph
	tests := []struct {
		name string
		do   []media.Event
		want string // typed, see describe
		all  string // every event, when given
	}{
		{name: "named keys", do: []media.Event{
			press("Enter", "Enter", 0), press("NumpadEnter", "Enter", 0), press("Tab", "Tab", 0), press("Escape", "Escape", 0),
			press("ArrowLeft", "ArrowLeft", 0), press("F1", "F1", 0), press("F12", "F12", 0), press("Home", "Home", 0),
			press("Delete", "Delete", 0), press("Backspace", "Backspace", 0), press("PageDown", "PageDown", 0), press("ContextMenu", "ContextMenu", 0),
		}, want: "<ff0d><ff8d><ff09><ff1b><ff51><ffbe><ffc9><ff50><ffff><ff08><ff56><ff67>"},
		{name: "a key that the keyboard lacks", do: []media.Event{press("F24", "F24", 0)}, want: "<ffd5>"},
		{name: "shortcut", do: []media.Event{
			press("ControlLeft", "Control", ctrl), press("KeyC", "c", ctrl), lift("KeyC", "c", ctrl), lift("ControlLeft", "Control", 0), press("KeyC", "c", 0),
		}, want: "C-cc"},
		{name: "shortcut with Shift", do: []media.Event{
			press("ControlLeft", "Control", ctrl), press("ShiftLeft", "Shift", ctrl|shift), press("KeyT", "T", ctrl|shift),
		}, want: "C-T"},
		{name: "shortcut while CapsLock is on", do: []media.Event{
			press("ControlLeft", "Control", ctrl|media.ModCapsLock), press("KeyC", "C", ctrl|media.ModCapsLock),
		}, want: "C-c"},
		{name: "shortcut on a Russian keyboard", do: []media.Event{
			press("ControlLeft", "Control", ctrl), press("KeyC", "с", ctrl),
		}, want: "C-c"},
		{name: "Alt and Meta", do: []media.Event{
			press("AltLeft", "Alt", alt), press("KeyF", "f", alt), lift("AltLeft", "Alt", 0), press("MetaLeft", "Meta", meta), press("KeyE", "e", meta),
		}, want: "A-fS-e"},
		{name: "CapsLock text", do: []media.Event{press("CapsLock", "CapsLock", media.ModCapsLock), press("KeyA", "A", media.ModCapsLock)}, want: "A"},
		{name: "Shift held where the character needs none", do: []media.Event{
			press("ShiftLeft", "Shift", shift), press("Digit7", "/", shift), press("KeyA", "A", shift),
		}, want: "/A"},
		{name: "Shift with an unmapped character", do: []media.Event{
			press("ShiftLeft", "Shift", shift), press("Quote", "Ä", shift), lift("Quote", "Ä", shift), lift("ShiftLeft", "Shift", 0), press("Quote", "ä", 0),
		}, want: "Ää"},
		{name: "AltGr as Windows sends it", do: []media.Event{
			press("ControlLeft", "Control", ctrl), press("AltRight", "AltGraph", ctrl|alt|graph), press("KeyQ", "@", ctrl|alt|graph),
			lift("KeyQ", "@", ctrl|alt|graph), lift("ControlLeft", "Control", alt|graph), lift("AltRight", "AltGraph", 0), press("KeyQ", "q", 0),
		}, want: "@q"},
		{name: "dead and composing keys", do: []media.Event{
			press("Equal", "Dead", 0), lift("Equal", "Dead", 0), press("KeyE", "é", 0), press("KeyA", "Process", 0), press("", "Unidentified", 0),
		}, want: "é"},
		{name: "repetition", do: []media.Event{
			press("KeyA", "a", 0), media.Key{Down: true, Repeat: true, Code: "KeyA", Key: "a"}, lift("KeyA", "a", 0),
		}, all: "down a, up a, down a, up a"},
		{name: "a held modifier repeats", do: []media.Event{
			press("ShiftLeft", "Shift", shift), media.Key{Down: true, Repeat: true, Code: "ShiftLeft", Key: "Shift", Modifiers: shift}, lift("ShiftLeft", "Shift", 0),
		}, all: "down mod:ffe1, up mod:ffe1"},
		{name: "two keys of one character", do: []media.Event{
			press("Digit7", "7", 0), press("Numpad7", "7", 0), lift("Digit7", "7", 0), lift("Numpad7", "7", 0),
		}, all: "down 7, down <ffb7>, up 7, up <ff95>"},
		{name: "up of a key that was let go in another way", do: []media.Event{
			press("ShiftLeft", "Shift", shift), press("KeyA", "A", shift), lift("ShiftLeft", "Shift", 0), lift("KeyA", "a", 0),
		}, all: "down mod:ffe1, down A, up mod:ffe1, up a"},
		{name: "Ctrl went down outside the page", do: []media.Event{press("KeyV", "v", ctrl), lift("KeyV", "v", ctrl), press("KeyV", "v", 0)}, want: "C-vv"},
		{name: "Ctrl went up outside the page", do: []media.Event{
			press("ControlRight", "Control", ctrl), press("KeyV", "v", 0),
		}, all: "down mod:ffe4, up mod:ffe4, down v"},
		{name: "release all", do: []media.Event{
			press("ControlLeft", "Control", ctrl), press("KeyA", "a", ctrl), media.ReleaseAll{},
		}, all: "down mod:ffe3, down C-a, up C-a, up mod:ffe3"},
		{name: "up without down", do: []media.Event{lift("KeyA", "a", 0)}, all: ""},
		{name: "newline and tab in text", do: []media.Event{media.Text{Text: "a\tb\n"}}, want: "a<ff09>b<ff0d>"},
		{name: "control characters in text", do: []media.Event{media.Text{Text: "a\x00\x1b\x7fb"}}, want: "ab"},
		{name: "unknown names", do: []media.Event{press("Foo", "Bar", 0), press("", "", 0), press("F0", "F0", 0), press("F99", "F99", 0)}, all: ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ty.t = t
			for _, e := range tt.do {
				ty.do(e)
			}
			if tt.want != "" {
				if got := ty.typed(); got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			} else if got := strings.Join(ty.drain(), ", "); got != tt.all {
				t.Errorf("got %q, want %q", got, tt.all)
			}
			ty.do(media.ReleaseAll{})
			ty.drain()
			if len(ty.in.held) != 0 {
				t.Errorf("still held: %v", ty.in.held)
			}
		})
	}
}

// More different characters than there are unused keycodes: the ones that were not used for longest give way.
func TestManyUnmappedCharacters(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	ty := newTypist(t, s)
	for round := range 2 {
		for r := rune(0x4e00); r < 0x4e00+300; r++ {
			ty.do(press("KeyX", string(r), 0))
			ty.do(lift("KeyX", string(r), 0))
			if got := ty.typed(); got != string(r) {
				t.Fatalf("round %d: got %q, want %q", round, got, string(r))
			}
		}
	}
	ty.do(media.Text{Text: "still there: aZ9"})
	if got := ty.typed(); got != "still there: aZ9" {
		t.Errorf("got %q", got)
	}
}

func TestPointer(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	ty := newTypist(t, s)
	left, middle, right, back, forward := media.ButtonLeft, media.ButtonMiddle, media.ButtonRight, media.ButtonBack, media.ButtonForward
	tests := []struct {
		name string
		do   []media.Event
		want string
	}{
		{"move", []media.Event{media.Pointer{X: 12, Y: 34}}, "move 12,34"},
		{"outside the screen", []media.Event{media.Pointer{X: 5000, Y: 5000}}, "move 799,599"},
		{"click", []media.Event{media.Pointer{X: 5, Y: 6, Buttons: left}, media.Pointer{X: 5, Y: 6}}, "move 5,6, press 1 at 5,6, release 1"},
		{"all buttons", []media.Event{
			media.Pointer{X: 5, Y: 6, Buttons: left | middle | right | back | forward}, media.Pointer{X: 5, Y: 6},
		}, "press 1 at 5,6, press 2 at 5,6, press 3 at 5,6, press 8 at 5,6, press 9 at 5,6, release 1, release 2, release 3, release 8, release 9"},
		{"drag", []media.Event{
			media.Pointer{X: 1, Y: 1, Buttons: left}, media.Pointer{X: 9, Y: 9, Buttons: left}, media.Pointer{X: 9, Y: 9},
		}, "move 1,1, press 1 at 1,1, move 9,9, release 1"},
		{"unknown buttons", []media.Event{media.Pointer{X: 9, Y: 9, Buttons: 0xe0}}, ""},
		{"wheel", []media.Event{
			media.Wheel{X: 9, Y: 9, DY: 120}, media.Wheel{X: 9, Y: 9, DY: -120}, media.Wheel{X: 9, Y: 9, DX: 120}, media.Wheel{X: 9, Y: 9, DX: -120},
		}, "press 5 at 9,9, release 5, press 4 at 9,9, release 4, press 7 at 9,9, release 7, press 6 at 9,9, release 6"},
		{"wheel in parts", []media.Event{
			media.Wheel{X: 9, Y: 9, DY: 50}, media.Wheel{X: 9, Y: 9, DY: 50}, media.Wheel{X: 9, Y: 9, DY: 50},
		}, "press 5 at 9,9, release 5"},
		{"wheel turns round", []media.Event{media.Wheel{X: 9, Y: 9, DY: 80}, media.Wheel{X: 9, Y: 9, DY: -100}, media.Wheel{X: 9, Y: 9, DY: -20}}, "press 4 at 9,9, release 4"},
		{"release all", []media.Event{media.Pointer{X: 9, Y: 9, Buttons: right}, media.ReleaseAll{}}, "press 3 at 9,9, release 3"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ty.t = t
			for _, e := range tt.do {
				ty.do(e)
			}
			if got := strings.Join(ty.moved(), ", "); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			ty.do(media.ReleaseAll{})
			ty.drain()
		})
	}
	t.Run("huge turn", func(t *testing.T) {
		ty.t = t
		ty.do(media.Wheel{X: 9, Y: 9, DY: 32767})
		if got := len(ty.moved()); got > 2*maxNotches {
			t.Errorf("got %d events", got)
		}
	})
}

// Input passes while another client holds the server, and the screen is captured all the same.
func TestGrabbedServer(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	ty := newTypist(t, s)
	x, err := s.OpenScreen()
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	if err := ty.p.c.check([]byte{opGrabServer, 0, 1, 0}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		ty.do(press("KeyA", "a", 0))
		var region media.Region
		region.Add(image.Rect(0, 0, 100, 100))
		if _, err := x.Capture(&region, x.Size()); err != nil {
			t.Error(err)
		}
	}()
	await(t, "capture while the server is held", done)
	if got := ty.typed(); got != "a" {
		t.Errorf("got %q, want a", got)
	}
}

// Without the viewer's repetitions nothing is typed, however long a key is down.
func TestServerDoesNotRepeat(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	ty := newTypist(t, s)
	ty.do(press("KeyA", "a", 0))
	time.Sleep(900 * time.Millisecond) // the server's own repetition would begin after 660
	if got := ty.typed(); got != "a" {
		t.Errorf("got %q, want a", got)
	}
}
