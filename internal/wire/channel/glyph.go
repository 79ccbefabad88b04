package channel

import "fmt"

// Bounds of the dictionary of glyphs that both sides keep for an epoch: a viewer refuses what exceeds them.
const (
	MaxGlyphs      = 4096 // slots; the glyph after the last one takes the place of the first
	MaxGlyphEdge   = 64   // pixels
	MaxGlyphPixels = 1024
	MaxTextRecord  = 12_000 // bytes
)

// Kinds of a text record: u8 kind, body.
const (
	TextClear  = 1 // u16 x, y, width, height, R, G, B: a rectangle in one colour
	TextGlyphs = 2 // u8 colours − 1, colours × (R, G, B), u8 count, count × (u8 width, u8 height), then their indices, row by row
	TextLine   = 3 // u16 x, y, u8 count, count × (u16 slot, u8 dx, i8 dy): each from the place of the one before
)

// Glyphs is the dictionary of an epoch as a viewer keeps it. The zero value is empty.
type Glyphs struct {
	glyphs []Glyph
	next   int
}

// Glyph is a small picture: width × height pixels of R, G, B, A.
type Glyph struct {
	Width, Height int
	Pixels        []byte
}

// Reset empties the dictionary.
func (g *Glyphs) Reset() { g.glyphs, g.next = g.glyphs[:0], 0 }

// add puts a glyph in the next slot, in place of the oldest one when all are taken.
func (g *Glyphs) add(glyph Glyph) {
	if g.next == len(g.glyphs) {
		g.glyphs = append(g.glyphs, glyph)
	} else {
		g.glyphs[g.next] = glyph
	}
	g.next = (g.next + 1) % MaxGlyphs
}

// Draw draws the records of one text section, already decompressed, on picture: width × height pixels of R, G, B, A. It tells drawn of
// every rectangle. It stops at the first fault; what was drawn until then stays.
func (g *Glyphs) Draw(raw, picture []byte, width, height int, drawn func(x, y, w, h int)) error {
	if len(picture) != width*height*4 {
		return &Error{Type: TypeUpdate, Reason: "picture and screen differ in size"}
	}
	r := reader{rest: raw}
	for len(r.rest) > 0 {
		before := len(r.rest)
		switch kind := r.u8(); kind {
		case TextClear:
			clearText(&r, picture, width, height, drawn)
		case TextGlyphs:
			g.learn(&r)
		case TextLine:
			g.drawLine(&r, picture, width, height, drawn)
		default:
			r.fail(fmt.Sprintf("unknown record %d", kind))
		}
		if r.fault == "" && before-len(r.rest) > MaxTextRecord {
			r.fail("record is too long")
		}
		if r.fault != "" {
			return &Error{Type: TypeUpdate, Reason: "text: " + r.fault}
		}
	}
	return nil
}

func clearText(r *reader, picture []byte, width, height int, drawn func(x, y, w, h int)) {
	x, y, w, h := int(r.u16()), int(r.u16()), int(r.u16()), int(r.u16())
	c := r.bytes(3)
	if r.fault != "" {
		return
	}
	if w == 0 || h == 0 || x+w > width || y+h > height {
		r.fail("rectangle has no pixels or reaches outside the screen")
		return
	}
	for row := y; row < y+h; row++ {
		line := picture[(row*width+x)*4 : (row*width+x+w)*4]
		for len(line) > 0 {
			line[0], line[1], line[2], line[3] = c[0], c[1], c[2], 0xff
			line = line[4:]
		}
	}
	drawn(x, y, w, h)
}

func (g *Glyphs) learn(r *reader) {
	colours := int(r.u8()) + 1
	palette := r.bytes(3 * colours)
	count := int(r.u8())
	sizes := r.bytes(2 * count)
	for i := range count {
		if r.fault != "" {
			return
		}
		w, h := int(sizes[2*i]), int(sizes[2*i+1])
		if w == 0 || h == 0 || w > MaxGlyphEdge || h > MaxGlyphEdge || w*h > MaxGlyphPixels {
			r.fail("glyph has no pixels or too many")
			return
		}
		indices := r.bytes(w * h)
		glyph := Glyph{Width: w, Height: h, Pixels: make([]byte, 0, len(indices)*4)}
		for _, index := range indices {
			if int(index) >= colours {
				r.fail("index is not in the palette")
				return
			}
			c := palette[3*int(index):]
			glyph.Pixels = append(glyph.Pixels, c[0], c[1], c[2], 0xff)
		}
		if r.fault == "" {
			g.add(glyph)
		}
	}
}

func (g *Glyphs) drawLine(r *reader, picture []byte, width, height int, drawn func(x, y, w, h int)) {
	x, y := int(r.u16()), int(r.u16())
	for range int(r.u8()) {
		slot := int(r.u16())
		x += int(r.u8())
		y += int(int8(r.u8()))
		if r.fault != "" {
			return
		}
		if slot >= len(g.glyphs) {
			r.fail("glyph is not in the dictionary")
			return
		}
		glyph := &g.glyphs[slot]
		w, h := glyph.Width, glyph.Height
		if y < 0 || x+w > width || y+h > height {
			r.fail("glyph reaches outside the screen")
			return
		}
		for row := range h {
			copy(picture[((y+row)*width+x)*4:][:w*4], glyph.Pixels[row*w*4:])
		}
		drawn(x, y, w, h)
	}
}
