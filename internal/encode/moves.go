package encode

import (
	"image"
	"math/bits"
	"slices"

	"penstock.dev/penstock/internal/wire/channel"
)

// Limits of the search for what moved. Nothing here decides what the viewer shows: a copy is applied to the
// shadow as the viewer applies it, and what still differs from the screen is sent as tiles.
const (
	leastChanged = 4   // tiles; less is cheaper to send than to explain
	leastExtent  = 64  // pixels of the change's longer side
	leastVotes   = 8   // unique places that agree on a scroll
	leastRun     = 16  // rows of a copy
	leastUse     = 8   // rows of a copy that it changes
	stackRows    = 8   // rows that make one place: fewer repeat in text
	voteColumns  = 8   // columns of tiles that vote
	votePixels   = 256 // of a row, in all of them
	maxRounds    = 3
	maxCopies    = 64 // of an update
	maxProbes    = 16
	playsLook    = 8 // updates between two searches in a moving picture
	maxDebt      = 1 << 20
	debtPaid     = 1 << 19 // an update: about half a millisecond
)

// moves is the memory of the search; none of it counts between two updates but the debt.
type moves struct {
	spans    []span
	starts   []int    // of runs, by column
	old, new []uint64 // hashes by span and row
	votes    []int32  // by vertical distance
	table    []place
	turn     uint32
	was      []bool

	probes  []probe
	filter  [1 << (filterBits - 6)]uint64
	vectors []vector
	// debt is how many pixels were searched in two dimensions for nothing. Each update pays some; while there
	// is much of it, as in moving pictures, that search is left out.
	debt int
}

// span is a range of x.
type span struct{ from, to int }

// place is where a hash stands in the old and in the new picture: a row, nowhere or several.
type place struct {
	hash     uint64
	turn     uint32
	old, new int32
}

const (
	nowhere = -1
	several = -2
)

// findCopies explains what it can of the frames' changes by copies inside the viewer's picture.
func (t *Tiles) findCopies() {
	t.moves.debt = max(0, t.moves.debt-debtPaid)
	first := 0
	for round := range maxRounds {
		changed, source := 0, image.Rectangle{}
		for i := range t.frames {
			changed += t.frames[i].count
			source = source.Union(t.frames[i].box)
		}
		if round == 0 {
			first = changed
		}
		if changed < leastChanged || round > 0 && changed*4 < first {
			return
		}
		found := false
		for i := range t.frames {
			f := &t.frames[i]
			if t.plays(f.box) {
				continue
			}
			if f.count < leastChanged || max(f.box.Dx(), f.box.Dy()) < leastExtent {
				continue
			}
			if dy := t.vote(f, source); dy != 0 && t.explain(f, image.Pt(0, dy)) {
				found = true
				continue
			}
			if t.moves.debt > maxDebt {
				continue
			}
			if by, ok := t.match(f, source); ok && t.explain(f, by) {
				t.moves.debt = 0
				found = true
			} else {
				t.moves.debt += source.Dx() * source.Dy()
			}
		}
		if !found {
			return
		}
	}
}

// plays reports whether a change lies within a video region that has shown to be one. Few copies come out of a moving picture, and the
// search costs as much as its coding, so it is made now and then.
func (t *Tiles) plays(box image.Rectangle) bool {
	if t.update%playsLook == 0 {
		return false
	}
	for r := range t.activeRegions() {
		if r.frames >= leastFrames && box.In(t.pixels(r.grid)) {
			return true
		}
	}
	return false
}

// vote is the vertical distance that most places of the frame moved by, as told by the places that stand
// once in the old picture and once in the new; 0 for none.
func (t *Tiles) vote(f *frame, source image.Rectangle) int {
	m := &t.moves
	if source.Dy() < stackRows+leastVotes || f.box.Dy() < stackRows+leastVotes {
		return 0
	}
	height := t.size.Height
	m.votes = cleared(m.votes, 2*height)
	if want := 1 << bits.Len(uint(4*height)); len(m.table) != want {
		m.table = cleared(m.table, want)
		m.turn = 0
	}
	grid := tilesOf(f.box)
	columns := 0
	for c := grid.Min.X; c < grid.Max.X; c++ {
		if t.changedColumn(f, c, grid) {
			columns++
		}
	}
	step := (columns + voteColumns - 1) / voteColumns
	m.spans = m.spans[:0]
	at := 0
	for c := grid.Min.X; c < grid.Max.X; c++ {
		if t.changedColumn(f, c, grid) {
			if at++; at%step == 0 {
				m.spans = append(m.spans, span{max(c*tileSize, f.cut.Min.X), min((c+1)*tileSize, f.cut.Max.X)})
			}
		}
	}
	for i := range m.spans { // a part of each column tells enough when there are many
		m.spans[i].to = min(m.spans[i].to, m.spans[i].from+votePixels/len(m.spans))
	}
	// Memory is read row by row: going down a column takes several times as long.
	rows, newRows := source.Dy(), f.box.Dy()
	m.old, m.new = sized(m.old, rows*len(m.spans)), sized(m.new, newRows*len(m.spans))
	for y := range rows {
		for i, s := range m.spans {
			m.old[i*rows+y] = hash(t.line(s.from, s.to, source.Min.Y+y))
		}
	}
	for y := range newRows {
		for i, s := range m.spans {
			m.new[i*newRows+y] = hash(f.row(s.from, s.to, f.box.Min.Y+y))
		}
	}
	for i := range m.spans {
		m.voteColumn(m.old[i*rows:][:rows], m.new[i*newRows:][:newRows], source.Min.Y, f.box.Min.Y, height)
	}
	best, most := 0, int32(leastVotes-1)
	for i, n := range m.votes {
		if n > most {
			best, most = i-height, n
		}
	}
	return best
}

// sized is a slice of n values, whichever they are, that reuses s where it can.
func sized(s []uint64, n int) []uint64 {
	if cap(s) < n {
		return make([]uint64, n)
	}
	return s[:n]
}

func (t *Tiles) changedColumn(f *frame, column int, grid image.Rectangle) bool {
	for row := grid.Min.Y; row < grid.Max.Y; row++ {
		if f.changed[row*t.columns+column] {
			return true
		}
	}
	return false
}

// voteColumn counts the distances of one column; the hashes are of rows from oldTop and newTop on.
func (m *moves) voteColumn(old, now []uint64, oldTop, newTop, height int) {
	old, now = stack(old), stack(now)
	if m.turn++; m.turn == 0 {
		clear(m.table)
		m.turn = 1
	}
	for i, h := range old {
		p := m.at(h)
		p.old = one(p.old, oldTop+i)
	}
	for i, h := range now {
		p := m.at(h)
		p.new = one(p.new, newTop+i)
	}
	for i, h := range now {
		if p := m.at(h); p.old >= 0 && p.new >= 0 && p.old != p.new {
			m.votes[newTop+i-int(p.old)+height]++
		}
	}
}

// at is the entry of hash, new when it was not there.
func (m *moves) at(hash uint64) *place {
	mask := uint64(len(m.table) - 1)
	for slot := hash >> 20 & mask; ; slot = (slot + 1) & mask {
		p := &m.table[slot]
		if p.turn != m.turn {
			*p = place{hash, m.turn, nowhere, nowhere}
			return p
		}
		if p.hash == hash {
			return p
		}
	}
}

func one(before int32, row int) int32 {
	if before == nowhere {
		return int32(row)
	}
	return several
}

const (
	mulA = 0x9e3779b97f4a7c15
	mulB = 0xc2b2ae3d27d4eb4f
)

// hash is a hash of pixels without the bytes that mean nothing.
func hash(p []uint32) uint64 {
	a, b := uint64(len(p)), uint64(mulB)
	for len(p) >= 4 {
		x := uint64(p[0]&rgb) | uint64(p[1]&rgb)<<32
		y := uint64(p[2]&rgb) | uint64(p[3]&rgb)<<32
		a = bits.RotateLeft64((a^x)*mulA, 29)
		b = bits.RotateLeft64((b^y)*mulB, 31)
		p = p[4:]
	}
	for _, x := range p {
		a = bits.RotateLeft64((a^uint64(x&rgb))*mulA, 29)
	}
	a = (a ^ b) * mulA
	return a ^ a>>29
}

// stack makes each hash of a row that of the row and the next seven, in place.
func stack(rows []uint64) []uint64 {
	if len(rows) < stackRows {
		return nil
	}
	rows, all := rows[:len(rows)-stackRows+1], rows
	for i := range rows {
		h := uint64(0)
		for _, r := range all[i : i+stackRows] { // those behind i are as they were
			h = h*mulA + r
		}
		rows[i] = h ^ h>>31
	}
	return rows
}

// explain adds the copies by which the frame's changes are the viewer's pixels moved by the vector, applies
// them, and reports whether there were any.
func (t *Tiles) explain(f *frame, by image.Point) bool {
	from := len(t.copies)
	// A pixel moves to where the frame shows it from where the viewer has it.
	area := f.box.Intersect(t.size.Bounds().Add(by))
	grid := tilesOf(area)
	starts := t.moves.starts[:0]
	for c := grid.Min.X; c < grid.Max.X; c++ {
		start := area.Max.Y // no run
		if t.changedColumn(f, c, grid) {
			start = area.Min.Y
		}
		starts = append(starts, start)
	}
	t.moves.starts = starts
	for y := area.Min.Y; y <= area.Max.Y; y++ {
		last := y == area.Max.Y
		if !last && equal(t.line(area.Min.X-by.X, area.Max.X-by.X, y-by.Y), f.row(area.Min.X, area.Max.X, y)) {
			continue
		}
		for i, start := range starts {
			if start == area.Max.Y {
				continue
			}
			c := grid.Min.X + i
			x0, x1 := max(c*tileSize, area.Min.X), min((c+1)*tileSize, area.Max.X)
			if last || !equal(t.line(x0-by.X, x1-by.X, y-by.Y), f.row(x0, x1, y)) {
				t.addRun(f, from, by, image.Rect(x0, start, x1, y))
				starts[i] = y + 1
			}
		}
	}
	if len(t.copies) == from {
		return false
	}
	t.copies = t.copies[:from+t.widenAll(f, by, t.copies[from:])]
	found := t.copies[from:]
	ordered := order(found)
	for _, c := range found {
		t.move(c)
		rect := destination(c)
		grid := tilesOf(rect)
		for row := grid.Min.Y; row < grid.Max.Y; row++ {
			for column := grid.Min.X; column < grid.Max.X; column++ {
				i := row*t.columns + column
				// A tile that one copy covers is as the comparisons above have found it; mark looks at the others.
				f.changed[i] = !ordered || !t.tile(i).Intersect(f.cut).In(rect)
			}
		}
	}
	t.mark(f)
	return true
}

// addRun adds a copy to rect, or makes the one at its left wider, when it is worth its bytes.
func (t *Tiles) addRun(f *frame, from int, by image.Point, rect image.Rectangle) {
	if rect.Dy() < leastRun || !t.useful(f, rect) {
		return
	}
	for i := from; i < len(t.copies); i++ {
		c := &t.copies[i]
		if int(c.DstX)+int(c.Width) == rect.Min.X && int(c.DstY) == rect.Min.Y && int(c.Height) == rect.Dy() {
			c.Width += uint16(rect.Dx())
			return
		}
	}
	if len(t.copies) < maxCopies {
		t.copies = append(t.copies, channel.Copy{
			SrcX: uint16(rect.Min.X - by.X), SrcY: uint16(rect.Min.Y - by.Y),
			DstX: uint16(rect.Min.X), DstY: uint16(rect.Min.Y),
			Width: uint16(rect.Dx()), Height: uint16(rect.Dy()),
		})
	}
}

// useful reports whether enough rows of rect change.
func (t *Tiles) useful(f *frame, rect image.Rectangle) bool {
	n := 0
	for y := rect.Min.Y; y < rect.Max.Y; y++ {
		if f.changed[y/tileSize*t.columns+rect.Min.X/tileSize] &&
			!equal(t.line(rect.Min.X, rect.Max.X, y), f.row(rect.Min.X, rect.Max.X, y)) {
			if n++; n == leastUse {
				return true
			}
		}
	}
	return false
}

// widenAll makes copies wider, the largest first, and narrows those that it reaches into, and returns how many are left: a window
// is often less wide than the columns of tiles, and a few rows beside it have moved by chance.
func (t *Tiles) widenAll(f *frame, by image.Point, found []channel.Copy) int {
	slices.SortFunc(found, func(a, b channel.Copy) int {
		return int(b.Width)*int(b.Height) - int(a.Width)*int(a.Height)
	})
	n := 0
	for i := range found {
		found[n] = found[i]
		if narrow(found[:n], &found[n]) {
			t.widen(f, by, found[:n+1], n)
			n++
		}
	}
	return n
}

// narrow takes away what a copy shares with others by the same vector, and reports whether something is left.
func narrow(others []channel.Copy, c *channel.Copy) bool {
	for _, o := range others {
		mine, other := destination(*c), destination(o)
		if !mine.Overlaps(other) {
			continue
		}
		left, right := other.Min.X-mine.Min.X, mine.Max.X-other.Max.X
		switch {
		case left <= 0 && right <= 0:
			return false
		case left >= right:
			c.Width = uint16(left)
		default:
			by := uint16(mine.Dx() - right)
			c.SrcX += by
			c.DstX += by
			c.Width = uint16(right)
		}
	}
	return true
}

// widen makes a copy wider by what moved along in the columns of tiles beside it, up to the next copy: if they
// overlapped, no order of them would do.
func (t *Tiles) widen(f *frame, by image.Point, found []channel.Copy, at int) {
	area := f.cut.Intersect(t.size.Bounds().Add(by))
	c := &found[at]
	rect := destination(*c)
	left, right := min(tileSize, rect.Min.X-area.Min.X), min(tileSize, area.Max.X-rect.Max.X)
	for i := range found {
		other := destination(found[i])
		if i == at || other.Min.Y >= rect.Max.Y || other.Max.Y <= rect.Min.Y {
			continue
		}
		if other.Max.X <= rect.Min.X {
			left = min(left, rect.Min.X-other.Max.X)
		} else if other.Min.X >= rect.Max.X {
			right = min(right, other.Min.X-rect.Max.X)
		}
	}
	for y := rect.Min.Y; y < rect.Max.Y && left+right > 0; y++ {
		was := t.line(rect.Min.X-left-by.X, rect.Max.X+right-by.X, y-by.Y)
		now := f.row(rect.Min.X-left, rect.Max.X+right, y)
		n := 0
		for n < left && was[left-1-n] == now[left-1-n]&rgb {
			n++
		}
		end := left + rect.Dx()
		left = n
		n = 0
		for n < right && was[end+n] == now[end+n]&rgb {
			n++
		}
		right = n
	}
	c.SrcX -= uint16(left)
	c.DstX -= uint16(left)
	c.Width += uint16(left + right)
}

func destination(c channel.Copy) image.Rectangle {
	return image.Rect(int(c.DstX), int(c.DstY), int(c.DstX)+int(c.Width), int(c.DstY)+int(c.Height))
}

func origin(c channel.Copy) image.Rectangle {
	return image.Rect(int(c.SrcX), int(c.SrcY), int(c.SrcX)+int(c.Width), int(c.SrcY)+int(c.Height))
}

// order puts copies so that none overwrites what a later one reads, and reports whether that could be.
func order(copies []channel.Copy) bool {
	ordered := true
	for i := range copies {
		free := false
		for j := i; j < len(copies) && !free; j++ {
			free = true
			for k := i; k < len(copies) && free; k++ {
				free = k == j || !destination(copies[j]).Overlaps(origin(copies[k]))
			}
			if free {
				copies[i], copies[j] = copies[j], copies[i]
			}
		}
		ordered = ordered && free
	}
	return ordered
}

// move applies a copy to the shadow. Dirty tiles are those in which the viewer's picture differs from it, so
// what comes from them is dirty again, and what is covered from elsewhere is not any more; the same holds for
// tiles that the viewer has with losses.
func (t *Tiles) move(c channel.Copy) {
	rect := destination(c)
	if t.dirtyCount > 0 {
		t.moves.was = append(t.moves.was[:0], t.dirty...)
		t.spread(c, t.setDirty)
	}
	if t.lossyCount > 0 {
		t.moves.was = append(t.moves.was[:0], t.lossy...)
		t.spread(c, func(i int, lossy bool) {
			t.setLossy(i, lossy)
			t.lossyCopy = t.lossyCopy || lossy
		})
	}
	for i := range int(c.Height) {
		if c.DstY > c.SrcY { // from the bottom, or rows would be read after they are overwritten
			i = int(c.Height) - 1 - i
		}
		x, y := int(c.SrcX), int(c.SrcY)+i
		copy(t.line(rect.Min.X, rect.Max.X, rect.Min.Y+i), t.line(x, x+rect.Dx(), y))
	}
}

// spread tells set, for each tile that the copy changes, whether something in moves.was gets or stays there.
func (t *Tiles) spread(c channel.Copy, set func(i int, is bool)) {
	rect := destination(c)
	grid := tilesOf(rect)
	for row := grid.Min.Y; row < grid.Max.Y; row++ {
		for column := grid.Min.X; column < grid.Max.X; column++ {
			i := row*t.columns + column
			part := t.tile(i).Intersect(rect)
			is := t.moves.was[i] && part != t.tile(i)
			from := tilesOf(part.Add(origin(c).Min).Sub(rect.Min))
			for y := from.Min.Y; y < from.Max.Y; y++ {
				for x := from.Min.X; x < from.Max.X; x++ {
					is = is || t.moves.was[y*t.columns+x]
				}
			}
			set(i, is)
		}
	}
}
