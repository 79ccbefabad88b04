package x11

import (
	"slices"
	"time"
	"unicode"
)

// settleTime is what an application is given to look a character up before the place it was found at makes another, and
// to begin to follow the keyboard.
const settleTime = 500 * time.Millisecond

// usual are the characters that keyboards of Europe and America make with AltGr and dead keys: those of Windows-1252, and
// what X.Org's layouts add. They are on spare keycodes from the start, so that most sessions never see their
// keyboard change while somebody types. Two of the four groups have room for more than these.
var usual = func() (syms []keysym) {
	for r := rune(0xa0); r <= 0xff; r++ {
		if unicode.IsGraphic(r) {
			syms = append(syms, keysymOf(r))
		}
	}
	for _, r := range "€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ" + "ıẞΩ⅛⅜⅝⅞←↑→↓" {
		syms = append(syms, keysymOf(r))
	}
	return syms
}()

// bindings are characters that the keyboard lacks, on spare keycodes: one in each of a keycode's groups, so that
// several hundred fit before the first has to give way.
type bindings struct {
	slots []binding // of spareKeycodes, the first group of each, then the second…
	at    map[keysym]int
	free  int    // slots from here on were never used
	clock uint64 // counts uses
	ready bool   // the usual characters are bound
	// closed ends the wait for applications.
	closed chan struct{}
}

type binding struct {
	sym  keysym
	used uint64
	when time.Time
}

func newBindings() *bindings {
	return &bindings{
		slots: make([]binding, xkbGroups*len(spareKeycodes)), at: map[keysym]int{}, closed: make(chan struct{}),
	}
}

// forget is called when the keyboard was replaced.
func (b *bindings) forget() {
	clear(b.slots)
	clear(b.at)
	b.free, b.ready = 0, false
}

func (b *bindings) place(slot int) place {
	return place{keycode: spareKeycodes[slot%len(spareKeycodes)], group: uint8(slot / len(spareKeycodes)), bound: true}
}

func (b *bindings) touch(slot int) {
	b.clock++
	b.slots[slot].used, b.slots[slot].when = b.clock, time.Now()
}

// bind puts keysyms on spare keycodes, as many as fit at once, and returns how many those are: at least one unless
// all spare keycodes are held down. It waits for applications when characters that they may not have looked up yet
// have to give way. All that changes is one change for applications, or few.
//
// Those from wanted on are not needed yet: they give way before any other, and take no place that was used.
func (in *Input) bind(syms []keysym, wanted int) int {
	b := in.bindings
	var changed []int
	batch := b.clock // slots used later than this belong to these keysyms
	n := 0
	for ; n < len(syms); n++ {
		slot, ok := b.at[syms[n]]
		if !ok {
			if slot, ok = in.vacant(batch, changed, n < wanted); !ok {
				break
			}
			delete(b.at, b.slots[slot].sym)
			b.at[syms[n]], b.slots[slot] = slot, binding{sym: syms[n]}
			changed = append(changed, slot)
		}
		if n < wanted {
			b.touch(slot)
		}
	}
	if len(changed) > 0 {
		in.awaitFollower(wanted > 0)
		in.write(changed)
	}
	return n
}

// prepare binds the usual characters that the keyboard lacks.
func (in *Input) prepare() {
	if in.bindings.ready {
		return
	}
	in.bindings.ready = true
	in.bind(slices.DeleteFunc(slices.Clone(usual), func(sym keysym) bool {
		r, ok := sym.character()
		_, there := in.keymap.places[r]
		return !ok || there
	}), 0)
}

// vacant is a slot for another character that was not used after the given count, and is not among the taken. Unless
// the character is wanted now, only a slot that was never used will do.
func (in *Input) vacant(batch uint64, taken []int, wanted bool) (int, bool) {
	b := in.bindings
	if b.free < len(b.slots) {
		b.free++
		return b.free - 1, true
	}
	if !wanted {
		batch = 0
	}
	oldest := -1
	for i := range b.slots {
		if b.slots[i].used <= batch && (oldest < 0 || b.slots[i].used < b.slots[oldest].used) &&
			!in.isDown(spareKeycodes[i%len(spareKeycodes)]) && !slices.Contains(taken, i) {
			oldest = i
		}
	}
	if oldest < 0 {
		return 0, false
	}
	if b.slots[oldest].used > 0 {
		in.settle(b.slots[oldest].when)
	}
	return oldest, true
}

// settle waits until applications have had time for what was injected until then.
func (in *Input) settle(since time.Time) {
	wait := settleTime - time.Since(since)
	if wait <= 0 || in.flush() != nil {
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-in.bindings.closed:
	}
}

// awaitFollower waits, when a program has its first keys, until it follows the keyboard. Xlib reads the keyboard to look
// the first key up and asks only then to be told of changes (_XkbLoadDpy): of a change between the two it never hears. typed says that it gets a key after this change.
func (in *Input) awaitFollower(typed bool) {
	if in.keyed.IsZero() {
		return
	}
	p, ok := in.focused()
	if !ok {
		in.settle(in.keyed)
		return
	}
	since, ok := in.followers[p]
	if ok {
		in.settle(since)
		return
	}
	in.settle(in.keyed)
	if !typed {
		return
	}
	const enough = 1000
	if len(in.followers) >= enough {
		clear(in.followers)
	}
	in.followers[p] = time.Now()
}

// write tells the server what the keycodes of the slots make now, neighbours in one request.
func (in *Input) write(slots []int) {
	n := len(spareKeycodes)
	keys := make([]int, 0, len(slots))
	for _, slot := range slots {
		keys = append(keys, slot%n)
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	for len(keys) > 0 {
		run := 1
		for run < len(keys) && spareKeycodes[keys[run]] == spareKeycodes[keys[0]]+uint8(run) {
			run++
		}
		syms := make([][xkbGroups]keysym, run)
		for i := range syms {
			for g := range xkbGroups {
				syms[i][g] = in.bindings.slots[g*n+keys[i]].sym
			}
		}
		in.batch = in.xkb.appendKeys(in.batch, spareKeycodes[keys[0]], syms)
		in.queued++
		keys = keys[run:]
	}
}

// neighbours are a character and those of its alphabet near it that the keyboard lacks too: who types one of them
// will type another, and every change of the keyboard has each application read it anew.
func (in *Input) neighbours(r rune, sym keysym) []keysym {
	const block, ideographs = 32, 0x2e80
	syms := []keysym{sym}
	if _, ok := in.bindings.at[sym]; ok || r >= ideographs {
		return syms
	}
	for other := r &^ (block - 1); other < r|(block-1)+1; other++ {
		if _, ok := in.keymap.places[other]; other != r && !ok && unicode.IsGraphic(other) {
			syms = append(syms, keysymOf(other))
		}
	}
	return syms
}
