package encode

import (
	"fmt"
	"image"
	"slices"

	"penstock.dev/penstock/internal/media"
	"penstock.dev/penstock/internal/wire/channel"
)

// Text is what stands in small separate pieces on ground of one colour: letters, and much of what surrounds them. Pieces
// are found without any knowledge of fonts and kept in a dictionary on both sides; what changes is cleared to the colour of
// its ground, and pieces are placed there (docs/protocol.md, "Text"; docs/adr/0037). Nothing here decides what the viewer
// shows: what is placed is what the shadow has at that place, and a tile with anything that is not explained goes as a tile.
const (
	textMarginX = 16 // how far outside of a change the pieces are looked for that reach into it
	textMarginY = 10
	textGap     = 2  // rows without a pixel within one piece
	textBytes   = 64 // of a tile, about, as it travels
	mostJump    = 255
	tallestLine = 40
	cutEdge     = 60 // percent of the pixels along an edge that are not of the ground: something goes on there
	glyphWays   = 4
	glyphBits   = 12
)

// text is the memory of the search for glyphs and the dictionary.
type text struct {
	raw        []byte // records of the present packet
	compressed int    // bytes of out that they take
	written    int    // bytes of raw that are in out

	picked  []bool // by tile: goes as text
	picks   []int32
	grounds []uint32 // by tile, groundWidth in it and row; noGround where there is none
	known   []uint32 // by tile: the pass that found its grounds
	pass    uint32

	areas  []image.Rectangle
	runs   []run
	rows   []int32 // of an area: the first run of each row
	pieces []piece
	order  []uint64
	lines  []textLine
	clears []clearing
	above  []int32 // by groundWidth: index + 1 of the last of clears that begins there
	many   []int32 // by tile: pieces
	open   []int32 // by openRows: index + 1 of the newest line there
	bounds []box   // of a run's root
	cells  []run
	cut    []int32 // by tile: pixels of large pieces

	glyphs  []glyph
	newest  int                            // the slot that is taken next
	index   [glyphWays << glyphBits]uint16 // slot + 1 by hash; a hint
	stamp   uint32
	pending pendingGlyphs
	placed  []byte // line records that wait for pending
}

type run struct {
	x0, x1, y uint16
	parent    int32
}

// piece is a connected piece of ink.
type piece struct {
	box
	next int32 // in its line
}

type textLine struct {
	first, last int32
	y0, y1      int
	before      int32 // index + 1 of an older line in the same openRows
}

type clearing struct {
	box
	colour uint32
}

type glyph struct {
	w, h  int
	pix   []uint32
	stamp uint32 // of the last use
}

const noGround = 1 << 31

const (
	groundWidth   = 32 // pixels of a row that have one ground
	groundColumns = tileSize / groundWidth
	cellWidth     = 32 // of the cells in which a piece that is too large is cut
	cellHeight    = 16
	mostGrounds   = 12  // changes of the ground in a column of one tile
	mostPieces    = 160 // that begin in one tile
	openRows      = 16
	mostOpen      = 6                       // lines in openRows that a piece is tried in
	mostCut       = tileSize * tileSize / 4 // pixels of a tile in such pieces
)

func (t *Tiles) beginText() {
	x := &t.text
	n := t.columns * t.rows
	x.picked = cleared(x.picked, n)
	x.known = cleared(x.known, n)
	x.grounds = cleared(x.grounds, n*tileSize*groundColumns)
	x.pass = 0
	x.newest = 0
	x.glyphs = x.glyphs[:0]
	clear(x.index[:])
	x.beginPacket()
}

func (x *text) beginPacket() { x.raw, x.compressed, x.written = x.raw[:0], 0, 0 }

// writeText takes from the tiles in rect that are ready those that are text, about as many as limit bytes hold, and writes them. It
// reports whether there may be more that the limit has left.
func (t *Tiles) writeText(rect image.Rectangle, limit int) (more bool, err error) {
	x := &t.text
	if t.codecs&media.CodecText == 0 {
		return false, nil
	}
	if x.pass++; x.pass == 0 {
		clear(x.known)
		x.pass = 1
	}
	more = t.pickText(tilesOf(rect.Intersect(t.size.Bounds())), max(1, limit/textBytes))
	if len(x.picks) == 0 {
		return false, nil
	}
	t.findAreas()
	x.pieces = x.pieces[:0]
	for _, area := range x.areas {
		t.findPieces(area)
	}
	t.countPieces()
	t.writeClears()
	t.placePieces()
	for _, i := range x.picks {
		if x.picked[i] {
			x.picked[i] = false
			t.setDirty(int(i), false)
			t.setLossy(int(i), false)
			t.ready--
		}
	}
	if len(x.raw) == x.written {
		return false, nil
	}
	if _, err := t.zstd.Write(x.raw[x.written:]); err != nil {
		return false, fmt.Errorf("compress text: %w", err)
	}
	if err := t.zstd.Flush(); err != nil {
		return false, fmt.Errorf("compress text: %w", err)
	}
	x.compressed = t.out.Len()
	x.written = len(x.raw)
	return more, nil
}

// changeOf is the part of a dirty tile in which the viewer's picture may differ.
func (t *Tiles) changeOf(i int) image.Rectangle {
	if t.lossy[i] {
		return t.tile(i)
	}
	return t.boxes[i].rectangle()
}

// pickText picks ready tiles that may be text, at most so many, and reports whether it has left some.
func (t *Tiles) pickText(grid image.Rectangle, most int) (more bool) {
	x := &t.text
	x.picks = x.picks[:0]
	n := len(t.dirty)
	for k := range n {
		i := (t.next + k) % n
		if !t.isReady(i) || !image.Pt(i%t.columns, i/t.columns).In(grid) {
			continue
		}
		if len(x.picks) == most {
			t.next = i
			return true
		}
		if !t.hasGround(i) {
			continue
		}
		x.picked[i] = true
		x.picks = append(x.picks, int32(i))
	}
	return false
}

// hasGround reports whether at least half of the rows of the tile's change are mostly of one colour.
func (t *Tiles) hasGround(i int) bool {
	r := t.tile(i)
	return t.findGrounds(i)*2 >= r.Dy()*((r.Dx()+groundWidth-1)/groundWidth)
}

// findGrounds finds the ground of each row of the tile and returns how many rows told theirs themselves.
func (t *Tiles) findGrounds(i int) int {
	x := &t.text
	x.known[i] = x.pass
	tile := t.tile(i)
	total := 0
	for at := 0; at < tile.Dx(); at += groundWidth {
		r := image.Rect(tile.Min.X+at, tile.Min.Y, min(tile.Min.X+at+groundWidth, tile.Max.X), tile.Max.Y)
		total += t.findGround(r, x.grounds[(i*groundColumns+at/groundWidth)*tileSize:][:tileSize])
	}
	return total
}

// findGround finds the ground of each row of r.
func (t *Tiles) findGround(r image.Rectangle, grounds []uint32) (found int) {
	ground := uint32(noGround)
	first, changes := 0, 0
	for y := r.Min.Y; y < r.Max.Y; y++ {
		row := t.line(r.Min.X, r.Max.X, y)
		if count(row, ground)*2 < len(row) {
			if c := majority(row); count(row, c)*2 >= len(row) {
				if ground == noGround {
					first = y - r.Min.Y
				} else if changes++; changes > mostGrounds {
					found = -tileSize * groundColumns // no text
				}
				ground = c
				found++
			}
		} else {
			found++
		}
		grounds[y-r.Min.Y] = ground
	}
	for y := range first {
		grounds[y] = grounds[first]
	}
	return found
}

// groundOf is the ground of row y around x.
func (t *Tiles) groundOf(x, y int) uint32 {
	i := y/tileSize*t.columns + x/tileSize
	if t.text.known[i] != t.text.pass {
		t.findGrounds(i)
	}
	return t.text.grounds[(i*groundColumns+x%tileSize/groundWidth)*tileSize+y%tileSize]
}

func count(row []uint32, colour uint32) int {
	n := 0
	for _, p := range row {
		if p == colour {
			n++
		}
	}
	return n
}

// majority is the colour that more than half of the row has, if one does.
func majority(row []uint32) uint32 {
	colour, n := uint32(0), 0
	for _, p := range row {
		switch {
		case n == 0:
			colour, n = p, 1
		case p == colour:
			n++
		default:
			n--
		}
	}
	return colour
}

// findAreas joins the changes of neighbouring picked tiles, along rows of tiles and then down where they are as wide.
func (t *Tiles) findAreas() {
	x := &t.text
	x.areas = x.areas[:0]
	for row := range t.rows {
		for column := 0; column < t.columns; column++ {
			if !x.picked[row*t.columns+column] {
				continue
			}
			area := image.Rectangle{}
			for ; column < t.columns && x.picked[row*t.columns+column]; column++ {
				area = area.Union(t.changeOf(row*t.columns + column))
			}
			joined := false
			for i := len(x.areas) - 1; i >= 0 && !joined; i-- {
				a := &x.areas[i]
				if tilesOf(*a).Max.Y == row && tilesOf(*a).Min.X == tilesOf(area).Min.X && tilesOf(*a).Max.X == tilesOf(area).Max.X {
					*a = a.Union(area)
					joined = true
				}
			}
			if !joined {
				x.areas = append(x.areas, area)
			}
		}
	}
}

// findPieces finds the connected pieces of ink that reach into the area, and cuts those that are too large.
func (t *Tiles) findPieces(area image.Rectangle) {
	x := &t.text
	if x.cut = cleared(x.cut, len(t.dirty)); x.cells == nil {
		x.cells = make([]run, 0, 256)
	}
	around := t.grow(area)
	t.findRuns(around)
	t.joinRuns(around, false)
	x.findBounds()
	large := false
	for i := range x.runs {
		r := &x.runs[i]
		root := x.root(int32(i))
		switch b := x.bounds[root]; {
		case !isGlyph(b):
			large = true
			t.countCut(r)
		case int(root) != i || !b.rectangle().Overlaps(area):
		case !t.fewColours(b):
			t.unpick(b.rectangle())
		default:
			x.pieces = append(x.pieces, piece{box: b})
		}
	}
	if large {
		t.cutLarge(around)
	}
}

// countPieces unpicks the tiles that have more pieces than text has: their places would take more bytes than their pixels.
func (t *Tiles) countPieces() {
	x := &t.text
	x.many = cleared(x.many, len(t.dirty))
	for i := range x.pieces {
		p := &x.pieces[i]
		tile := int(p.y0)/tileSize*t.columns + int(p.x0)/tileSize
		if x.many[tile]++; x.many[tile] > mostPieces {
			x.picked[tile] = false
		}
	}
}

// countCut counts the ink of a piece that is no glyph, for each tile whose change it reaches into, and unpicks those that have much of it.
func (t *Tiles) countCut(r *run) {
	x := &t.text
	for column := int(r.x0) / tileSize; column <= int(r.x1-1)/tileSize; column++ {
		i := int(r.y)/tileSize*t.columns + column
		if !x.picked[i] {
			continue
		}
		part := image.Rect(int(r.x0), int(r.y), int(r.x1), int(r.y)+1).Intersect(t.changeOf(i))
		if x.cut[i] += int32(part.Dx()); x.cut[i] > mostCut {
			x.picked[i] = false
		}
	}
}

// cutLarge makes glyphs of the parts of large pieces that lie in the cells of a grid: frames, lines, and what touches them.
func (t *Tiles) cutLarge(around image.Rectangle) {
	x := &t.text
	x.cells = x.cells[:0]
	for row := range around.Dy() {
		first := int32(len(x.cells))
		for i := x.rows[row]; i < x.rows[row+1]; i++ {
			r := x.runs[i]
			if isGlyph(x.bounds[x.root(i)]) {
				continue
			}
			for x0 := r.x0; x0 < r.x1; {
				x1 := min((x0/cellWidth+1)*cellWidth, r.x1)
				if tile := int(r.y)/tileSize*t.columns + int(x0)/tileSize; x.picked[tile] &&
					t.changeOf(tile).Overlaps(image.Rect(int(x0), int(r.y), int(x1), int(r.y)+1)) {
					x.cells = append(x.cells, run{x0, x1, r.y, int32(len(x.cells))})
				}
				x0 = x1
			}
		}
		x.rows[row] = first
	}
	x.rows[around.Dy()] = int32(len(x.cells))
	x.runs, x.cells = x.cells, x.runs
	t.joinRuns(around, true)
	x.findBounds()
	for i := range x.runs {
		if x.root(int32(i)) != int32(i) {
			continue
		}
		if b := x.bounds[i]; t.fewColours(b) {
			x.pieces = append(x.pieces, piece{box: b})
		} else {
			t.unpick(b.rectangle())
		}
	}
}

// findBounds finds the bounds of the pieces, at the index of their roots.
func (x *text) findBounds() {
	bounds := x.bounds[:0]
	for i := range x.runs {
		r := &x.runs[i]
		root := x.root(int32(i))
		b := box{r.x0, r.y, r.x1, r.y + 1}
		if int(root) == i {
			bounds = append(bounds, b)
			continue
		}
		bounds = append(bounds, box{})
		o := &bounds[root]
		o.x0, o.y0, o.x1, o.y1 = min(o.x0, b.x0), min(o.y0, b.y0), max(o.x1, b.x1), max(o.y1, b.y1)
	}
	x.bounds = bounds
}

func isGlyph(b box) bool {
	w, h := int(b.x1-b.x0), int(b.y1-b.y0)
	return w <= channel.MaxGlyphEdge && h <= channel.MaxGlyphEdge && w*h <= channel.MaxGlyphPixels
}

// fewColours reports whether one palette holds the glyph's colours.
func (t *Tiles) fewColours(b box) bool {
	w, h := int(b.x1-b.x0), int(b.y1-b.y0)
	return w*h <= maxColours || t.palette.count(t.shadow[int(b.y0)*t.size.Width+int(b.x0):], t.size.Width, w, h) > 0
}

// unpick leaves the tiles whose change the rectangle touches to be sent as tiles.
func (t *Tiles) unpick(r image.Rectangle) {
	grid := tilesOf(r)
	for row := grid.Min.Y; row < grid.Max.Y; row++ {
		for column := grid.Min.X; column < grid.Max.X; column++ {
			if i := row*t.columns + column; t.text.picked[i] && t.changeOf(i).Overlaps(r) {
				t.text.picked[i] = false
			}
		}
	}
}

// grow is the area with a margin at each side along which no line runs, such as the border of a window.
func (t *Tiles) grow(area image.Rectangle) image.Rectangle {
	r := area
	bounds := t.size.Bounds()
	if y := area.Min.Y - 1; y >= 0 && !t.edge(area.Min.X, area.Max.X, y, y+1) {
		r.Min.Y = max(0, r.Min.Y-textMarginY)
	}
	if y := area.Max.Y; y < bounds.Max.Y && !t.edge(area.Min.X, area.Max.X, y, y+1) {
		r.Max.Y = min(bounds.Max.Y, r.Max.Y+textMarginY)
	}
	if c := area.Min.X - 1; c >= 0 && !t.edge(c, c+1, area.Min.Y, area.Max.Y) {
		r.Min.X = max(0, r.Min.X-textMarginX)
	}
	if c := area.Max.X; c < bounds.Max.X && !t.edge(c, c+1, area.Min.Y, area.Max.Y) {
		r.Max.X = min(bounds.Max.X, r.Max.X+textMarginX)
	}
	return r
}

// edge reports whether most pixels of the rectangle are not of their ground.
func (t *Tiles) edge(x0, x1, y0, y1 int) bool {
	ink := 0
	for y := y0; y < y1; y++ {
		for x, p := range t.line(x0, x1, y) {
			if p != t.groundOf(x0+x, y) {
				ink++
			}
		}
	}
	return ink*100 > cutEdge*(x1-x0)*(y1-y0)
}

// findRuns finds the runs of ink in each row of r.
func (t *Tiles) findRuns(r image.Rectangle) {
	x := &t.text
	x.runs, x.rows = x.runs[:0], x.rows[:0]
	for y := r.Min.Y; y < r.Max.Y; y++ {
		start := len(x.runs)
		x.rows = append(x.rows, int32(start))
		for x0 := r.Min.X; x0 < r.Max.X; {
			x1 := min((x0/groundWidth+1)*groundWidth, r.Max.X)
			ground := t.groundOf(x0, y)
			row := t.line(x0, x1, y)
			for i := 0; i < len(row); i++ {
				if row[i] == ground {
					continue
				}
				from := i
				for i++; i < len(row) && row[i] != ground; i++ {
				}
				a, b := uint16(x0+from), uint16(x0+i)
				if n := len(x.runs); n > start && x.runs[n-1].x1 == a {
					x.runs[n-1].x1 = b
				} else {
					x.runs = append(x.runs, run{a, b, uint16(y), int32(n)})
				}
			}
			x0 = x1
		}
	}
	x.rows = append(x.rows, int32(len(x.runs)))
}

func (x *text) root(i int32) int32 {
	for x.runs[i].parent != i {
		x.runs[i].parent = x.runs[x.runs[i].parent].parent
		i = x.runs[i].parent
	}
	return i
}

// joinRuns joins runs that touch, corners included, and those that a few rows lie between, all or only within cells.
func (t *Tiles) joinRuns(r image.Rectangle, cells bool) {
	x := &t.text
	for row := 1; row < r.Dy(); row++ {
		for back := 1; back <= min(1+textGap, row); back++ {
			i, end := x.rows[row], x.rows[row+1]
			j, endJ := x.rows[row-back], x.rows[row-back+1]
			for i < end && j < endJ {
				a, b := &x.runs[i], &x.runs[j]
				if a.x0 <= b.x1 && b.x0 <= a.x1 && (!cells || a.y/cellHeight == b.y/cellHeight && a.x0/cellWidth == b.x0/cellWidth) {
					p, q := x.root(i), x.root(j)
					if p != q {
						x.runs[max(p, q)].parent = min(p, q)
					}
				}
				if a.x1 < b.x1 {
					i++
				} else {
					j++
				}
			}
		}
	}
}

// writeClears writes the changes of the picked tiles in the colours of their grounds, joined to rectangles.
func (t *Tiles) writeClears() {
	x := &t.text
	x.clears = x.clears[:0]
	for _, i := range x.picks {
		if !x.picked[i] {
			continue
		}
		r := t.changeOf(int(i))
		for x0 := r.Min.X; x0 < r.Max.X; {
			x1 := min((x0/groundWidth+1)*groundWidth, r.Max.X)
			grounds := x.grounds[(int(i)*groundColumns+x0%tileSize/groundWidth)*tileSize:]
			for y := r.Min.Y; y < r.Max.Y; {
				colour := grounds[y%tileSize]
				from := y
				for y++; y < r.Max.Y && grounds[y%tileSize] == colour; y++ {
				}
				x.addClear(clearing{box{uint16(x0), uint16(from), uint16(x1), uint16(y)}, colour})
			}
			x0 = x1
		}
	}
	x.above = cleared(x.above, t.columns*groundColumns)
	for i := range x.clears { // down
		c := &x.clears[i]
		above := &x.above[c.x0/groundWidth]
		if *above > 0 {
			if o := &x.clears[*above-1]; o.x0 == c.x0 && o.x1 == c.x1 && o.y1 == c.y0 && o.colour == c.colour {
				o.y1 = c.y1
				c.y1 = c.y0 // nothing is left of it
				continue
			}
		}
		*above = int32(i + 1)
	}
	for i := range x.clears {
		c := &x.clears[i]
		if c.y0 == c.y1 {
			continue
		}
		x.raw = append(x.raw, channel.TextClear)
		for _, v := range [4]uint16{c.x0, c.y0, c.x1 - c.x0, c.y1 - c.y0} {
			x.raw = append(x.raw, byte(v), byte(v>>8))
		}
		x.raw = appendRGB(x.raw, c.colour)
	}
}

// addClear adds a rectangle, or makes the one at its left wider.
func (x *text) addClear(c clearing) {
	for i := len(x.clears) - 1; i >= max(0, len(x.clears)-8); i-- {
		if o := &x.clears[i]; o.x1 == c.x0 && o.y0 == c.y0 && o.y1 == c.y1 && o.colour == c.colour {
			o.x1 = c.x1
			return
		}
	}
	x.clears = append(x.clears, c)
}

// wanted reports whether a piece reaches into the change of a tile that goes as text.
func (t *Tiles) wanted(b box) bool {
	r := b.rectangle()
	grid := tilesOf(r)
	for row := grid.Min.Y; row < grid.Max.Y; row++ {
		for column := grid.Min.X; column < grid.Max.X; column++ {
			if i := row*t.columns + column; t.text.picked[i] && t.changeOf(i).Overlaps(r) {
				return true
			}
		}
	}
	return false
}

// placePieces writes the wanted pieces, line by line.
func (t *Tiles) placePieces() {
	x := &t.text
	x.order = x.order[:0]
	for i := range x.pieces {
		if p := &x.pieces[i]; t.wanted(p.box) {
			x.order = append(x.order, uint64(p.x0)<<48|uint64(p.y0)<<32|uint64(i))
		}
	}
	slices.Sort(x.order)
	x.lines = x.lines[:0]
	x.open = cleared(x.open, t.size.Height/openRows+1)
	for k, key := range x.order {
		i := int32(uint32(key))
		p := &x.pieces[i]
		p.next = -1
		if k > 0 && x.pieces[uint32(x.order[k-1])].box == p.box {
			continue // two areas found it
		}
		best := x.lineOf(p)
		if best < 0 {
			row := int(p.y0+p.y1) / 2 / openRows
			x.lines = append(x.lines, textLine{i, i, int(p.y0), int(p.y1), x.open[row]})
			x.open[row] = int32(len(x.lines))
			continue
		}
		line := &x.lines[best]
		x.pieces[line.last].next = i
		line.last = i
		line.y0, line.y1 = min(line.y0, int(p.y0)), max(line.y1, int(p.y1))
	}
	x.nextStamp()
	for l := range x.lines {
		t.placeLine(x.lines[l].first)
	}
	x.flush()
}

// lineOf is the line that the piece overlaps most, or −1.
func (x *text) lineOf(p *piece) int {
	best, most := -1, 0
	row := int(p.y0+p.y1) / 2 / openRows
	for r := max(0, row-1); r <= min(row+1, len(x.open)-1); r++ {
		l := x.open[r]
		for n := 0; l > 0 && n < mostOpen; n++ {
			line := &x.lines[l-1]
			overlap := min(line.y1, int(p.y1)) - max(line.y0, int(p.y0))
			height := max(line.y1, int(p.y1)) - min(line.y0, int(p.y0))
			if overlap > most && int(p.x0)-int(x.pieces[line.last].x0) <= mostJump && height <= max(tallestLine, line.y1-line.y0) {
				best, most = int(l-1), overlap
			}
			l = line.before
		}
	}
	return best
}

// placeLine writes one line of pieces.
func (t *Tiles) placeLine(first int32) {
	x := &t.text
	at, count := -1, 0 // of the count in placed
	var last *piece
	for i := first; i >= 0; i = x.pieces[i].next {
		p := &x.pieces[i]
		slot, fresh := t.slotOf(p.box)
		if fresh || count == 255 {
			at = -1
		}
		if at < 0 {
			x.placed = append(x.placed, channel.TextLine, byte(p.x0), byte(p.x0>>8), byte(p.y0), byte(p.y0>>8), 0)
			at, count, last = len(x.placed)-1, 0, p
		}
		count++
		x.placed[at] = byte(count)
		x.placed = append(x.placed, byte(slot), byte(slot>>8), byte(p.x0-last.x0), byte(p.y0-last.y0))
		last = p
	}
}

// flush writes the glyphs that are new and the lines that place them.
func (x *text) flush() {
	x.raw = x.pending.append(x.raw)
	x.raw = append(x.raw, x.placed...)
	x.placed = x.placed[:0]
}

func (x *text) nextStamp() {
	if x.stamp++; x.stamp == 0 {
		for i := range x.glyphs {
			x.glyphs[i].stamp = 0
		}
		x.stamp = 1
	}
}

// slotOf is the slot of the glyph that is the shadow's pixels in b, and whether everything before it has been flushed.
func (t *Tiles) slotOf(b box) (slot int, flushed bool) {
	x := &t.text
	r := b.rectangle()
	h := uint64(r.Dx())
	for y := r.Min.Y; y < r.Max.Y; y++ {
		h = (h ^ hash(t.line(r.Min.X, r.Max.X, y))) * mulA
	}
	h ^= h >> 29
	ways := x.index[h>>(64-glyphBits)*glyphWays:][:glyphWays]
	for _, way := range ways {
		if way > 0 && t.isGlyphAt(&x.glyphs[way-1], r) {
			x.glyphs[way-1].stamp = x.stamp
			return int(way - 1), false
		}
	}
	slot = x.newest
	if slot == len(x.glyphs) {
		if slot < cap(x.glyphs) {
			x.glyphs = x.glyphs[:slot+1]
		} else {
			x.glyphs = append(x.glyphs, glyph{})
		}
		x.glyphs[slot].stamp = 0
	} else if x.glyphs[slot].stamp == x.stamp { // it is placed by what waits
		x.flush()
		x.nextStamp()
		flushed = true
	}
	x.newest = (x.newest + 1) % channel.MaxGlyphs
	g := &x.glyphs[slot]
	g.w, g.h, g.stamp = r.Dx(), r.Dy(), x.stamp
	g.pix = g.pix[:0]
	for y := r.Min.Y; y < r.Max.Y; y++ {
		g.pix = append(g.pix, t.line(r.Min.X, r.Max.X, y)...)
	}
	copy(ways[1:], ways[:glyphWays-1])
	ways[0] = uint16(slot + 1)
	x.raw = x.pending.add(x.raw, g)
	return slot, flushed
}

func (t *Tiles) isGlyphAt(g *glyph, r image.Rectangle) bool {
	if g.w != r.Dx() || g.h != r.Dy() {
		return false
	}
	for y := range g.h {
		if !slices.Equal(g.pix[y*g.w:(y+1)*g.w], t.line(r.Min.X, r.Max.X, r.Min.Y+y)) {
			return false
		}
	}
	return true
}

// mostPending bounds a record of glyphs.
const mostPending = 10_000

// pendingGlyphs is a record of glyphs that share a palette.
type pendingGlyphs struct {
	colours []uint32
	sizes   []byte
	indices []byte
	slots   [1024]int16 // index + 1 by colour, open addressing
}

// index is the index of the colour, or −1 when there is no more room.
func (p *pendingGlyphs) index(c uint32) int {
	for at := c * 0x9e3779b1 >> 22; ; at = (at + 1) & 1023 {
		switch i := int(p.slots[at]) - 1; {
		case i >= 0 && p.colours[i] == c:
			return i
		case i >= 0:
		case len(p.colours) == maxColours:
			return -1
		default:
			p.colours = append(p.colours, c)
			p.slots[at] = int16(len(p.colours))
			return len(p.colours) - 1
		}
	}
}

// add adds a glyph; when the record is full it is appended to dst before. The glyph has at most 256 colours.
func (p *pendingGlyphs) add(dst []byte, g *glyph) []byte {
	if len(p.sizes) == 2*255 || len(p.indices)+len(g.pix) > mostPending {
		dst = p.append(dst)
	}
	for again := true; again; {
		again = false
		start := len(p.indices)
		for _, c := range g.pix {
			i := p.index(c)
			if i < 0 {
				p.indices = p.indices[:start]
				dst = p.append(dst)
				again = true
				break
			}
			p.indices = append(p.indices, byte(i))
		}
	}
	p.sizes = append(p.sizes, byte(g.w), byte(g.h))
	return dst
}

// append appends the record to dst, if there is one, and begins the next.
func (p *pendingGlyphs) append(dst []byte) []byte {
	if len(p.sizes) > 0 {
		dst = append(dst, channel.TextGlyphs, byte(len(p.colours)-1))
		for _, c := range p.colours {
			dst = appendRGB(dst, c)
		}
		dst = append(dst, byte(len(p.sizes)/2))
		dst = append(dst, p.sizes...)
		dst = append(dst, p.indices...)
	}
	p.colours, p.sizes, p.indices = p.colours[:0], p.sizes[:0], p.indices[:0]
	clear(p.slots[:])
	return dst
}
