// Package encode turns captured pixels into packets: lossless palette tiles in one zstd stream an epoch
// (docs/protocol.md, "Display"). Decoder is the other direction, for tests and measurements.
package encode

import (
	"bytes"
	"fmt"
	"image"
	"unsafe"

	"github.com/klauspost/compress/zstd"

	"penstock.dev/penstock/internal/media"
	"penstock.dev/penstock/internal/wire/channel"
)

const (
	tileSize = channel.TileSize
	// window is how far back the zstd stream looks, in bytes of packed tiles: the viewer's decoder and this
	// encoder each keep that much. 4 MiB is 4 to 8 screens of text, so going back to a window costs nothing.
	window = 4 << 20
	// rgb cuts away the byte of a pixel that means nothing.
	rgb = 0x00ffffff
)

// Tiles is the encoder of lossless tiles. It keeps the viewer's picture, sends only tiles that differ from
// it, and allocates nothing in its steady state. One goroutine at a time may use it.
type Tiles struct {
	size          media.Size
	columns, rows int
	shadow        []uint32 // what the viewer has: 0x00RRGGBB, row by row
	dirty         []bool   // by tile
	dirtyCount    int
	next          int // the tile to go on with, so that none waits for ever behind a limit

	epoch   uint32
	fresh   bool // the next packet begins the epoch
	raw     []byte
	out     bytes.Buffer
	zstd    *zstd.Encoder
	palette palette
	section [1]media.Section
	packet  media.Packet
}

// NewTiles makes an encoder. Begin must come before Encode.
func NewTiles() (*Tiles, error) {
	z, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1), // compress in the calling goroutine
		zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(window),
		zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	return &Tiles{zstd: z}, nil
}

// Begin starts a new epoch: the viewer's picture is black and its zstd decoder starts anew.
func (t *Tiles) Begin(size media.Size) {
	t.size = size
	t.columns = (size.Width + tileSize - 1) / tileSize
	t.rows = (size.Height + tileSize - 1) / tileSize
	t.shadow = cleared(t.shadow, size.Width*size.Height)
	t.dirty = cleared(t.dirty, t.columns*t.rows)
	t.dirtyCount, t.next = 0, 0
	t.epoch++
	t.fresh = true
	t.out.Reset()
	t.zstd.Reset(&t.out)
}

// cleared is a slice of n zero values that reuses s where it can.
func cleared[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	s = s[:n]
	clear(s)
	return s
}

// Encode takes the views into the viewer's picture and returns the tiles that differ, or nil when none does
// and the epoch has begun. A packet ends with the tile that takes its records, before compression, over limit.
func (t *Tiles) Encode(views []media.View, captureMicros uint64, limit int) (*media.Packet, error) {
	for i := range views {
		if err := t.compare(&views[i]); err != nil {
			return nil, err
		}
	}
	if t.dirtyCount == 0 && !t.fresh {
		return nil, nil
	}
	t.packet = media.Packet{
		Epoch: t.epoch, NewEpoch: t.fresh, Lossless: true,
		CaptureMicros: captureMicros, Size: t.size,
	}
	t.fresh = false
	if t.dirtyCount == 0 {
		return &t.packet, nil // a black screen
	}
	t.raw = t.raw[:0]
	for t.dirtyCount > 0 && len(t.raw) <= limit {
		if i := t.next; t.dirty[i] {
			t.dirty[i] = false
			t.dirtyCount--
			t.pack(i%t.columns, i/t.columns)
		}
		t.next = (t.next + 1) % len(t.dirty)
	}
	t.packet.More = t.dirtyCount > 0
	t.out.Reset()
	if _, err := t.zstd.Write(t.raw); err != nil {
		return nil, fmt.Errorf("compress tiles: %w", err)
	}
	if err := t.zstd.Flush(); err != nil {
		return nil, fmt.Errorf("compress tiles: %w", err)
	}
	t.section[0] = media.Section{Kind: media.SectionTiles, RawLength: len(t.raw), Body: t.out.Bytes()}
	t.packet.Sections = t.section[:]
	return &t.packet, nil
}

// compare copies the view into the shadow and marks the tiles in which a pixel changed.
func (t *Tiles) compare(v *media.View) error {
	if len(v.Pix) != v.Rect.Dx()*v.Rect.Dy()*4 {
		return fmt.Errorf("view %v has %d bytes", v.Rect, len(v.Pix))
	}
	rect := v.Rect.Intersect(t.size.Bounds())
	if rect.Empty() {
		return nil
	}
	pix := words(v.Pix)
	if pix == nil {
		return fmt.Errorf("view %v is not aligned to its pixels", v.Rect)
	}
	stride := v.Rect.Dx()
	for row := rect.Min.Y / tileSize; row <= (rect.Max.Y-1)/tileSize; row++ {
		for column := rect.Min.X / tileSize; column <= (rect.Max.X-1)/tileSize; column++ {
			part := image.Rect(column*tileSize, row*tileSize, (column+1)*tileSize, (row+1)*tileSize).Intersect(rect)
			changed := false
			for y := part.Min.Y; y < part.Max.Y; y++ {
				from := (y-v.Rect.Min.Y)*stride + part.Min.X - v.Rect.Min.X
				to := y*t.size.Width + part.Min.X
				if update(t.shadow[to:to+part.Dx()], pix[from:from+part.Dx()]) {
					changed = true
				}
			}
			if i := row*t.columns + column; changed && !t.dirty[i] {
				t.dirty[i] = true
				t.dirtyCount++
			}
		}
	}
	return nil
}

// update makes dst equal to src without the byte that means nothing, and reports whether it was not.
func update(dst, src []uint32) bool {
	if bytes.Equal(octets(dst), octets(src)) {
		return false
	}
	changed := false
	for i, p := range src {
		if p &= rgb; dst[i] != p {
			dst[i] = p
			changed = true
		}
	}
	return changed
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

// pack appends the record of one tile to raw, in the coding that takes fewest bytes.
func (t *Tiles) pack(column, row int) {
	x, y := column*tileSize, row*tileSize
	w, h := min(tileSize, t.size.Width-x), min(tileSize, t.size.Height-y)
	t.raw = append(t.raw, byte(column), byte(row))
	colours := t.palette.count(t.shadow[y*t.size.Width+x:], t.size.Width, w, h)
	bits := 8
	switch {
	case colours == 1:
		t.raw = appendRGB(append(t.raw, channel.TileSolid), t.palette.colours[0])
		return
	case colours == 0:
		bits = 0
	case colours <= 2:
		bits = 1
	case colours <= 4:
		bits = 2
	case colours <= 16:
		bits = 4
	}
	stride := (w*bits + 7) / 8
	if bits == 0 || 1+3*colours+stride*h >= 3*w*h {
		t.packRaw(x, y, w, h)
		return
	}
	t.raw = append(t.raw, byte(bits), byte(colours-1))
	for _, c := range t.palette.colours[:colours] {
		t.raw = appendRGB(t.raw, c)
	}
	indices := t.palette.indices[:w*h]
	if bits == 8 {
		t.raw = append(t.raw, indices...)
		return
	}
	perByte := 8 / bits
	for ; len(indices) > 0; indices = indices[w:] {
		line := indices[:w]
		for len(line) >= perByte {
			b := byte(0)
			for i, index := range line[:perByte] {
				b |= index << (i * bits)
			}
			t.raw = append(t.raw, b)
			line = line[perByte:]
		}
		if len(line) > 0 {
			b := byte(0)
			for i, index := range line {
				b |= index << (i * bits)
			}
			t.raw = append(t.raw, b)
		}
	}
}

func (t *Tiles) packRaw(x, y, w, h int) {
	t.raw = append(t.raw, channel.TileRaw)
	for i := range h {
		start := (y+i)*t.size.Width + x
		for _, p := range t.shadow[start : start+w] {
			t.raw = append(t.raw, byte(p>>16), byte(p>>8), byte(p))
		}
	}
}

func appendRGB(dst []byte, p uint32) []byte {
	return append(dst, byte(p>>16), byte(p>>8), byte(p))
}
