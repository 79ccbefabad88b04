package x11

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"penstock.dev/penstock/internal/media"
)

// Input injects pointer and keyboard events into one display, on a connection of its own so that a picture
// never delays a key. One goroutine at a time may use it.
//
// Keys go by the character that the browser named: it is looked up in the display's keyboard, with the
// modifiers that it needs there, first on the key at the same place. The keyboard follows the user's (layout.go);
// characters that it lacks all the same are put on spare keycodes (binding.go). A key without a character or name
// goes by its place.
type Input struct {
	c     *conn
	xtest extension
	xkb   xkb
	res   extension // X-Resource; zero when the server lacks it
	log   *slog.Logger

	closing  sync.Once
	stale    atomic.Bool // somebody else changed the keyboard
	keymap   *keymap
	bindings *bindings
	follower follower

	held    map[string]uint8 // keycodes that are down, by the name of the key that the user holds
	order   []string         // of the keys in held, as they were pressed
	buttons media.Buttons
	wheelX  int // part of a notch that is not turned yet, in 1/120
	wheelY  int

	keyed     time.Time             // the last key went down
	followers map[program]time.Time // programs, and when they were first typed to what was bound for them

	batch  []byte
	queued int
}

// OpenInput connects to the server's display for input and turns its own key repetition off: the viewer's
// counts, so that a stalled network never types on.
func (s *Server) OpenInput() (*Input, error) {
	in := &Input{
		log: s.log, held: map[string]uint8{}, bindings: newBindings(), follower: newFollower(), followers: map[program]time.Time{},
	}
	var opened atomic.Pointer[xkb] // events come before the extension's numbers are known
	c, err := dial(s.display, s.cookie, func(ev []byte) {
		if x := opened.Load(); x != nil && x.foreign(ev) {
			in.stale.Store(true)
		}
	}, func(e *xError) { s.log.Debug("X request was refused", "error", e) })
	if err != nil {
		return nil, err
	}
	in.c = c
	if in.xkb, err = openXKB(c); err == nil {
		opened.Store(&in.xkb)
		err = in.open()
	}
	if err != nil {
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
	if in.res, err = openResource(in.c); err != nil {
		return err
	}
	if in.keymap, err = loadKeymap(in.c); err != nil {
		return err
	}
	in.prepare()
	return in.flush()
}

// Close ends the connection, and with it whatever waits in Inject. Keys that are down stay down.
func (in *Input) Close() {
	in.closing.Do(func() { close(in.bindings.closed) })
	in.c.close()
}

// Inject does what the user did.
func (in *Input) Inject(e media.Event) error {
	if in.stale.Swap(false) {
		in.follower.current = nil
		if err := in.reload(); err != nil {
			return err
		}
	}
	switch e := e.(type) {
	case media.Pointer:
		in.move(e.X, e.Y)
		in.setButtons(e.Buttons)
	case media.Relative:
		in.fakeRelative(e.DX, e.DY)
		in.setButtons(e.Buttons)
	case media.Wheel:
		in.move(e.X, e.Y)
		in.wheelX = in.turn(in.wheelX, e.DX, 6, 7)
		in.wheelY = in.turn(in.wheelY, e.DY, 4, 5)
	case media.Key:
		in.key(e)
	case media.Text:
		in.text(e.Text)
	case media.Keyboard:
		in.follower.told(e)
		return in.follow()
	case media.ReleaseAll:
		in.releaseAll()
	}
	return in.flush()
}

// reload reads the keyboard again after somebody changed it. When what was bound is gone, it is forgotten.
func (in *Input) reload() error {
	m, err := loadKeymap(in.c)
	if err != nil {
		return err
	}
	in.keymap = m
	for slot := range min(in.bindings.free, len(spareKeycodes)) {
		if row := m.row(spareKeycodes[slot]); row == nil || row[0] != in.bindings.slots[slot].sym {
			in.bindings.forget()
			break
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
	if kind == fakeKeyPress {
		in.keyed = time.Now()
	}
}

// fakeRelative queues a movement of the pointer from where it is.
func (in *Input) fakeRelative(dx, dy int) {
	const relative = 1
	if dx != 0 || dy != 0 {
		in.fake(fakeMotion, relative, dx, dy)
	}
}

// lock queues a change of the locks among affect, and of the group.
func (in *Input) lock(affect, locks, group uint8) {
	in.batch = in.xkb.appendLock(in.batch, affect, locks, group)
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

// releaseAll lets everything go, the last key first.
func (in *Input) releaseAll() {
	for len(in.order) > 0 {
		in.release(in.order[len(in.order)-1])
	}
	in.setButtons(0)
	in.wheelX, in.wheelY = 0, 0
}
