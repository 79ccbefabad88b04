package x11

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"penstock.dev/penstock/internal/media"
)

// query is what setxkbmap says of the display's keyboard.
func query(t *testing.T, s *Server) string {
	t.Helper()
	if _, err := exec.LookPath("setxkbmap"); err != nil {
		t.Skip("needs setxkbmap (Debian package x11-xkb-utils)")
	}
	cmd := exec.CommandContext(t.Context(), "setxkbmap", "-query")
	cmd.Env = append(os.Environ(), "DISPLAY="+s.Display(), "XAUTHORITY="+s.Xauthority())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("setxkbmap -query: %v\n%s", err, out)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

// told is what a browser tells of a layout of the table.
func told(name, variant, language string) media.Keyboard {
	m := media.Keyboard{Language: language, Keys: map[string]string{}}
	for i := range layouts {
		if l := &layouts[i]; l.name == name && l.variant == variant {
			for k, code := range layoutPlaces {
				if l.plain[k] != ' ' {
					m.Keys[code] = string(l.plain[k])
				}
			}
		}
	}
	return m
}

// Each layout of the table is one that the X server can load, and is found again by what it makes.
func TestLayoutsAreFollowed(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	ty := newTypist(t, s)
	for i := range layouts {
		l := &layouts[i]
		language := l.language
		ty.do(told(l.name, l.variant, language))
		if got := ty.in.follower.current; got != l && string(got.plain) != string(l.plain) {
			t.Errorf("layout %s(%s): followed %s(%s)", l.name, l.variant, got.name, got.variant)
		}
		for _, at := range []int{1, 14, 27, 40} { // a digit and a letter of each row
			r := l.plain[at]
			if r == ' ' {
				continue
			}
			ty.do(press(layoutPlaces[at], string(r), 0))
			ty.do(lift(layoutPlaces[at], string(r), 0))
			code := evdevKeycodes[layoutPlaces[at]]
			if p, ok := ty.in.keymap.on(code, r); !ok || p.shift || p.level3 || p.group != 0 {
				t.Errorf("layout %s(%s): key %s does not make %q by itself", l.name, l.variant, layoutPlaces[at], r)
			}
			if got := ty.typed(); got != string(r) {
				t.Errorf("layout %s(%s): typed %q, want %q", l.name, l.variant, got, string(r))
			}
		}
	}
	ty.do(told("ch", "fr", "fr-CH"))
	if got := query(t, s); !strings.Contains(got, "layout: ch variant: fr") {
		t.Errorf("setxkbmap says %q", got)
	}
	ty.do(press("KeyA", "a", 0))
	time.Sleep(900 * time.Millisecond) // a keyboard that repeats by itself would have begun after 660
	if got := ty.typed(); got != "a" {
		t.Errorf("a followed keyboard repeats by itself: %q", got)
	}
}

func TestLayoutIsLearned(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	ty := newTypist(t, s)
	german := [][2]string{{"KeyY", "z"}, {"KeyZ", "y"}, {"BracketLeft", "ü"}, {"Semicolon", "ö"}, {"Slash", "-"}}
	for range 2 {
		for _, k := range german {
			ty.do(press(k[0], k[1], 0))
			ty.do(lift(k[0], k[1], 0))
			if got := ty.typed(); got != k[1] {
				t.Errorf("got %q, want %q", got, k[1])
			}
		}
		ty.in.follower.typed = time.Now().Add(-2 * restTime) // a pause
		ty.in.follower.changed = true
	}
	if got := ty.in.follower.current; got == nil || got.name != "de" {
		t.Errorf("current layout is %+v, want de", got)
	}
	if p, ok := ty.in.keymap.on(evdevKeycodes["KeyY"], 'z'); !ok || p.shift {
		t.Error("KeyY does not make z")
	}
}

// What somebody in the session chose is not changed by typing.
func TestChosenKeyboardStays(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	ty := newTypist(t, s)
	query(t, s)
	ty.layout(s, "fr")
	ty.drain()
	for range 3 {
		for _, k := range [][2]string{{"KeyY", "z"}, {"KeyZ", "y"}, {"BracketLeft", "ü"}, {"Semicolon", "ö"}} {
			ty.do(press(k[0], k[1], 0))
			ty.do(lift(k[0], k[1], 0))
			if got := ty.typed(); got != k[1] {
				t.Errorf("got %q, want %q", got, k[1])
			}
		}
		ty.in.follower.typed, ty.in.follower.changed = time.Now().Add(-2*restTime), true
	}
	if got := query(t, s); !strings.Contains(got, "layout: fr") {
		t.Errorf("setxkbmap says %q", got)
	}
}

// Text of more different characters than there are places for arrives whole and in order.
func TestLongText(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	ty := newTypist(t, s)
	var want []rune
	for i := range 1200 {
		switch {
		case i%7 == 0:
			want = append(want, rune(0x1f300+i%500)) // beyond U+FFFF
		case i%3 == 0:
			want = append(want, rune('a'+i%26))
		default:
			want = append(want, rune(0x4e00+i%700))
		}
	}
	// The typist reads the keyboard when it looks at the events, so it must look before a place is used again.
	const step = 200
	for part := range slices.Chunk(want, step) {
		ty.do(media.Text{Text: string(part)})
		if got := ty.typed(); got != string(part) {
			t.Fatalf("got %q, want %q", got, string(part))
		}
	}
}

func TestLocks(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	ty := newTypist(t, s)
	const capsLock, numLock = 66, 77
	for _, lock := range []uint8{capsLock, numLock} { // the session's own are on
		ty.in.fake(fakeKeyPress, lock, 0, 0)
		ty.in.fake(fakeKeyRelease, lock, 0, 0)
	}
	if err := ty.in.flush(); err != nil {
		t.Fatal(err)
	}
	ty.drain()
	tests := []struct {
		name string
		key  media.Key
		want string
	}{
		{"a letter", press("KeyA", "a", 0), "a"},
		{"a letter while the user's CapsLock is on", press("KeyA", "A", media.ModCapsLock), "A"},
		{"a digit of the number pad", press("Numpad7", "7", media.ModNumLock), "<ffb7>"},
		{"the number pad without NumLock", press("Numpad7", "Home", 0), "<ff95>"},
		{"the number pad with Shift, which undoes NumLock", press("Numpad4", "ArrowLeft", media.ModShift|media.ModNumLock), "<ff96>"},
		{"the number pad's point", press("NumpadDecimal", ".", media.ModNumLock), "<ffae>"},
		{"the number pad's comma, which this keyboard lacks", press("NumpadDecimal", ",", media.ModNumLock), ","},
		{"plus of the number pad", press("NumpadAdd", "+", media.ModNumLock), "<ffab>"},
		{"Enter of the number pad", press("NumpadEnter", "Enter", 0), "<ff8d>"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ty.t = t
			ty.do(tt.key)
			if got := ty.typed(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			ty.do(media.ReleaseAll{})
			ty.drain()
		})
	}
}

func TestByPlace(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	ty := newTypist(t, s)
	ty.do(told("de", "", "de"))
	ty.do(press("KeyY", "", 0))
	ty.do(lift("KeyY", "", 0))
	ty.do(press("Equal", "", 0)) // a dead acute there
	ty.do(lift("Equal", "", 0))
	ty.do(press("ShiftLeft", "", media.ModShift))
	ty.do(press("Digit7", "", media.ModShift))
	ty.do(press("Nowhere", "", media.ModShift))
	if got, want := ty.typed(), "z<fe51>/"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSeveralCharactersOnAKey(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	ty := newTypist(t, s)
	ty.do(press("KeyB", "لا", 0))
	ty.do(lift("KeyB", "لا", 0))
	if got := ty.typed(); got != "لا" {
		t.Errorf("got %q", got)
	}
}

func TestRelative(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	ty := newTypist(t, s)
	ty.do(media.Pointer{X: 100, Y: 100})
	ty.moved()
	ty.do(media.Relative{DX: -30, DY: 7, Buttons: media.ButtonLeft})
	ty.do(media.Relative{})
	if got, want := strings.Join(ty.moved(), ", "), "move 70,107, press 1 at 70,107, release 1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	ty.do(media.Relative{DX: -32768, DY: 32767})
	if got, want := strings.Join(ty.moved(), ", "), "move 0,599"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A key that the keyboard has is injected without allocating.
func BenchmarkKey(b *testing.B) {
	s := startServer(b)
	in, err := s.OpenInput()
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	keys := []media.Event{press("KeyA", "A", media.ModShift), lift("KeyA", "A", media.ModShift), press("KeyE", "e", 0), lift("KeyE", "e", 0)}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := in.Inject(keys[i%len(keys)]); err != nil {
			b.Fatal(err)
		}
	}
}
