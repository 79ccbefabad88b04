package encode

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"unsafe"

	"penstock.dev/penstock/internal/media"
)

// frame is one view while it is encoded: its pixels, and which tiles it changes in the viewer's picture.
type frame struct {
	pix     []uint32
	rect    image.Rectangle // of pix
	cut     image.Rectangle // what of it lies in the picture
	changed []bool          // by tile of the picture
	count   int             // how many of them
	box     image.Rectangle // around them
	overlap bool            // an earlier frame shows some of the same pixels
}

// row is the pixels of row y from x0 to x1.
func (f *frame) row(x0, x1, y int) []uint32 {
	start := (y-f.rect.Min.Y)*f.rect.Dx() - f.rect.Min.X
	return f.pix[start+x0 : start+x1]
}

// line is the viewer's pixels of row y from x0 to x1.
func (t *Tiles) line(x0, x1, y int) []uint32 {
	return t.shadow[y*t.size.Width+x0 : y*t.size.Width+x1]
}

// tile is the rectangle of the tile i, cut to the picture.
func (t *Tiles) tile(i int) image.Rectangle {
	x, y := i%t.columns*tileSize, i/t.columns*tileSize
	return image.Rect(x, y, min(x+tileSize, t.size.Width), min(y+tileSize, t.size.Height))
}

// tilesOf is the tiles that rect touches, in columns and rows of tiles.
func tilesOf(rect image.Rectangle) image.Rectangle {
	if rect.Empty() {
		return image.Rectangle{}
	}
	return image.Rect(rect.Min.X/tileSize, rect.Min.Y/tileSize, (rect.Max.X-1)/tileSize+1, (rect.Max.Y-1)/tileSize+1)
}

// look makes a frame of the view and finds what it changes.
func (t *Tiles) look(v *media.View) error {
	if len(v.Pix) != v.Rect.Dx()*v.Rect.Dy()*4 {
		return fmt.Errorf("view %v has %d bytes", v.Rect, len(v.Pix))
	}
	cut := v.Rect.Intersect(t.size.Bounds())
	if cut.Empty() {
		return nil
	}
	pix := words(v.Pix)
	if pix == nil {
		return fmt.Errorf("view %v is not aligned to its pixels", v.Rect)
	}
	overlap := false
	for i := range t.frames {
		overlap = overlap || t.frames[i].cut.Overlaps(cut)
	}
	if len(t.frames) < cap(t.frames) {
		t.frames = t.frames[:len(t.frames)+1]
	} else {
		t.frames = append(t.frames, frame{})
	}
	f := &t.frames[len(t.frames)-1]
	*f = frame{pix: pix, rect: v.Rect, cut: cut, overlap: overlap, changed: cleared(f.changed, len(t.dirty))}
	grid := tilesOf(cut)
	for row := grid.Min.Y; row < grid.Max.Y; row++ {
		for column := grid.Min.X; column < grid.Max.X; column++ {
			f.changed[row*t.columns+column] = true
		}
	}
	t.mark(f)
	return nil
}

// mark looks again at the tiles that count as changed.
func (t *Tiles) mark(f *frame) {
	f.count, f.box = 0, image.Rectangle{}
	grid := tilesOf(f.cut)
	for row := grid.Min.Y; row < grid.Max.Y; row++ {
		for column := grid.Min.X; column < grid.Max.X; column++ {
			i := row*t.columns + column
			if !f.changed[i] {
				continue
			}
			part := t.tile(i).Intersect(f.cut)
			if f.changed[i] = !t.same(f, part); f.changed[i] {
				f.count++
				f.box = f.box.Union(part)
			}
		}
	}
}

func (t *Tiles) same(f *frame, part image.Rectangle) bool {
	for y := part.Min.Y; y < part.Max.Y; y++ {
		if !equal(t.line(part.Min.X, part.Max.X, y), f.row(part.Min.X, part.Max.X, y)) {
			return false
		}
	}
	return true
}

// take copies what the frame changes into the shadow and makes those tiles dirty. It goes line by line and not tile by
// tile, as memory is read ahead in order.
func (t *Tiles) take(f *frame) {
	grid := tilesOf(f.cut)
	if cap(t.taken) < t.columns {
		t.taken = make([]box, t.columns)
	}
	taken := t.taken[:t.columns]
	for row := grid.Min.Y; row < grid.Max.Y; row++ {
		clear(taken)
		first := row * t.columns
		for y := max(row*tileSize, f.cut.Min.Y); y < min((row+1)*tileSize, f.cut.Max.Y); y++ {
			for column := grid.Min.X; column < grid.Max.X; column++ {
				if !f.changed[first+column] && !f.overlap {
					continue
				}
				x0, x1 := max(column*tileSize, f.cut.Min.X), min((column+1)*tileSize, f.cut.Max.X)
				if from, to := update(t.line(x0, x1, y), f.row(x0, x1, y)); from < to {
					taken[column].add(box{uint16(x0 + from), uint16(y), uint16(x0 + to), uint16(y + 1)})
				}
			}
		}
		for column := grid.Min.X; column < grid.Max.X; column++ {
			b := taken[column]
			if b.x0 == b.x1 {
				continue
			}
			i := first + column
			if t.dirty[i] {
				b.add(t.boxes[i])
			}
			t.setDirty(i, true)
			t.boxes[i] = b
			t.touch(i)
		}
	}
}

func (t *Tiles) setDirty(i int, dirty bool) {
	switch {
	case dirty && !t.dirty[i]:
		t.dirtyCount++
	case !dirty && t.dirty[i]:
		t.dirtyCount--
	}
	t.dirty[i] = dirty
	if dirty {
		t.boxes[i] = boxOf(t.tile(i))
	}
}

// box is the part of a dirty tile in which the viewer's picture may differ, unless the tile is lossy.
type box struct{ x0, y0, x1, y1 uint16 }

func boxOf(r image.Rectangle) box {
	return box{uint16(r.Min.X), uint16(r.Min.Y), uint16(r.Max.X), uint16(r.Max.Y)}
}

// add makes b the box around both; an empty one counts for nothing.
func (b *box) add(o box) {
	if b.x0 == b.x1 {
		*b = o
		return
	}
	b.x0, b.y0, b.x1, b.y1 = min(b.x0, o.x0), min(b.y0, o.y0), max(b.x1, o.x1), max(b.y1, o.y1)
}

func (b box) rectangle() image.Rectangle {
	return image.Rect(int(b.x0), int(b.y0), int(b.x1), int(b.y1))
}

// equal reports whether captured pixels are those of the picture, but for the byte that means nothing.
func equal(picture, captured []uint32) bool {
	if bytes.Equal(octets(picture), octets(captured)) {
		return true
	}
	for len(captured) >= 8 && len(picture) >= 8 {
		a, b := captured[:8], picture[:8]
		differ := (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) | (a[5] ^ b[5]) | (a[6] ^ b[6]) | (a[7] ^ b[7])
		if differ&rgb != 0 {
			return false
		}
		captured, picture = captured[8:], picture[8:]
	}
	for i, p := range captured {
		if p&rgb != picture[i] {
			return false
		}
	}
	return true
}

// update makes dst equal to src without the byte that means nothing, and returns from where to where it was not. What
// lies between has no branch a pixel: what moves differs everywhere.
func update(dst, src []uint32) (from, to int) {
	if bytes.Equal(octets(dst), octets(src)) {
		return 0, 0
	}
	for from < len(src) && dst[from] == src[from]&rgb {
		from++
	}
	to = len(src)
	for to > from && dst[to-1] == src[to-1]&rgb {
		to--
	}
	d, s := octets(dst[from:to]), octets(src[from:to])
	const mask = rgb | rgb<<32
	for len(d) >= 32 && len(s) >= 32 {
		a, b := binary.LittleEndian.Uint64(s)&mask, binary.LittleEndian.Uint64(s[8:])&mask
		e, f := binary.LittleEndian.Uint64(s[16:])&mask, binary.LittleEndian.Uint64(s[24:])&mask
		binary.LittleEndian.PutUint64(d, a)
		binary.LittleEndian.PutUint64(d[8:], b)
		binary.LittleEndian.PutUint64(d[16:], e)
		binary.LittleEndian.PutUint64(d[24:], f)
		d, s = d[32:], s[32:]
	}
	for i := to - len(d)/4; i < to; i++ {
		dst[i] = src[i] & rgb
	}
	return from, to
}

// words sees bytes as little-endian pixels; nil when they are not aligned.
func words(b []byte) []uint32 {
	p := unsafe.Pointer(unsafe.SliceData(b))
	if uintptr(p)%4 != 0 {
		return nil
	}
	return unsafe.Slice((*uint32)(p), len(b)/4)
}

func octets(w []uint32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w))), len(w)*4)
}
