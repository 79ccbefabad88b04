// Package encode turns captured pixels into packets: copies of what moved, fills, glyphs and lossless palette tiles in one
// zstd stream an epoch, and, for moving pictures and for photographs on slow links, video regions and JPEG, which
// lossless tiles replace when the picture has come to rest (docs/protocol.md, "Display"; docs/adr/0030). Decoder
// is the other direction, for tests and measurements.
package encode

import (
	"bytes"
	"fmt"
	"log/slog"

	"github.com/klauspost/compress/zstd"

	"penstock.dev/penstock/internal/media"
	"penstock.dev/penstock/internal/video"
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

// Tiles is the encoder. It keeps the picture that the viewer should have, finds what moved in it, sends only what
// differs after that, and allocates nothing in its steady state. It knows which tiles the viewer has with losses.
// One goroutine at a time may use it.
type Tiles struct {
	codecs        media.Codecs
	size          media.Size
	columns, rows int
	shadow        []uint32 // what the viewer has, but for losses: 0x00RRGGBB, row by row
	dirty         []bool   // by tile
	boxes         []box    // by tile: where a dirty one differs
	dirtyCount    int
	next          int // the tile to go on with, so that none waits for ever behind a limit

	frames  []frame // of the present update
	taken   []box   // by column of tiles
	copies  []channel.Copy
	moves   moves
	solid   []int32 // tiles of the present update that are solid
	isSolid []bool  // by tile
	fills   []channel.Fill

	epoch   uint32
	fresh   bool // the next packet begins the epoch
	raw     []byte
	written int // bytes of raw that are in out
	out     bytes.Buffer
	zstd    *zstd.Encoder
	palette palette
	text    text
	section []media.Section
	moved   []byte // bodies of the sections
	filled  []byte
	packet  media.Packet

	now uint64 // µs, of the present update
	lossyState
	videoState
	sent       []media.Section // video of the present update
	jpeg       []byte          // bodies of its JPEG sections
	jpegEnds   []int           // where each of them ends
	jpegFailed bool
	coded      int  // bytes of video and JPEG in the present update
	ready      int  // tiles that wait to be packed
	later      bool // some photographic tiles wait for the next packet
	lossyCopy  bool // a copy of the present update moves lossy pixels
}

// Options are what an encoder may use beside lossless tiles. The zero value is nothing.
type Options struct {
	Lossy Lossy // nil: the encoder is lossless
	Log   *slog.Logger
}

// NewTiles makes an encoder for a viewer that has these codecs; CodecTiles must be one of them. Begin must
// come before Encode.
func NewTiles(codecs media.Codecs, o Options) (*Tiles, error) {
	z, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1), // compress in the calling goroutine
		zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(window),
		zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("make zstd encoder: %w", err)
	}
	t := &Tiles{codecs: codecs, zstd: z}
	t.lossyCodecs, t.log = o.Lossy, o.Log
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	if o.Lossy != nil {
		offered := map[video.Codec]media.Codecs{video.H264: media.CodecH264, video.VP8: media.CodecVP8}
		for _, c := range o.Lossy.Codecs() {
			if codecs&offered[c] != 0 {
				t.codec = c
				break
			}
		}
	}
	return t, nil
}

// Begin starts a new epoch: the viewer's picture is black and its zstd decoder starts anew.
func (t *Tiles) Begin(size media.Size) {
	same := size == t.size
	t.size = size
	t.columns = (size.Width + tileSize - 1) / tileSize
	t.rows = (size.Height + tileSize - 1) / tileSize
	t.shadow = cleared(t.shadow, size.Width*size.Height)
	t.dirty = cleared(t.dirty, t.columns*t.rows)
	t.boxes = cleared(t.boxes, t.columns*t.rows)
	t.isSolid = cleared(t.isSolid, t.columns*t.rows)
	t.dirtyCount, t.next = 0, 0
	t.beginText()
	t.moves.debt = 0
	t.epoch++
	t.fresh = true
	t.out.Reset()
	t.zstd.Reset(&t.out)
	t.beginLossy(same)
	t.beginVideo()
}

// Close frees the encoders of video.
func (t *Tiles) Close() {
	for i := range t.regions {
		t.stop(&t.regions[i])
	}
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

// Encode takes the views into the viewer's picture and returns what differs, or nil when nothing does and
// the epoch has begun. A packet ends with the tile that takes it, compressed, to about the limit; frames of
// video and JPEG pictures count too. When nothing waits, it refines.
func (t *Tiles) Encode(views []media.View, now uint64, q media.Quality) (*media.Packet, error) {
	t.now = max(t.now, now)
	t.frames, t.copies, t.fills = t.frames[:0], t.copies[:0], t.fills[:0]
	t.touched, t.sent, t.ends, t.jpegEnds = t.touched[:0], t.sent[:0], t.ends[:0], t.jpegEnds[:0]
	t.jpeg, t.raw, t.lossyCopy = t.jpeg[:0], t.raw[:0], false
	t.update++
	for i := range views {
		if err := t.look(&views[i]); err != nil {
			return nil, err
		}
	}
	if t.codecs&media.CodecCopy != 0 && !t.fresh {
		t.findCopies()
	}
	for i := range t.frames {
		t.take(&t.frames[i])
	}
	t.out.Reset()
	t.written = 0
	t.text.beginPacket()
	t.planRegions()
	t.coded = t.sendRegions(&q, views)
	t.coded += t.sendJPEGs(&q)
	t.countReady()
	if err := t.fillPacket(views, q.Limit); err != nil {
		return nil, err
	}
	if t.ready == 0 && len(t.raw)+len(t.solid)+len(t.text.raw) == 0 && !t.fresh {
		t.refine(&q, len(views) > 0 || t.coded > 0)
	}
	t.addSolid()
	if len(t.raw)+len(t.text.raw)+len(t.copies)+len(t.fills)+len(t.sent)+len(t.ends)+len(t.jpegEnds) == 0 && !t.fresh {
		return nil, nil
	}
	t.packet = media.Packet{
		Epoch: t.epoch, NewEpoch: t.fresh, Lossless: len(t.sent)+len(t.jpegEnds) == 0 && !t.lossyCopy,
		CaptureMicros: now, Size: t.size, More: t.ready > 0 || t.later || t.deferred,
	}
	t.fresh = false
	return &t.packet, t.sections()
}

// countReady counts the dirty tiles that go with this packet or the next ones: not those that wait for a frame of
// video, whose turn comes by itself, nor those that will be part of a JPEG picture.
func (t *Tiles) countReady() {
	t.ready = 0
	for i := range t.dirty {
		if t.isReady(i) {
			t.ready++
		}
	}
}

func (t *Tiles) isReady(i int) bool { return t.dirty[i] && t.kinds[i] != tileLater && !t.held(i) }

// send packs a tile that is ready.
func (t *Tiles) send(i int) {
	t.setDirty(i, false)
	t.setLossy(i, false)
	t.ready--
	t.pack(i%t.columns, i/t.columns)
}

// solidRecord is the length of a solid tile's record.
const solidRecord = 6

// sections puts what ends regions, copies, fills, text, records, JPEG pictures and video into the packet, in this order.
func (t *Tiles) sections() error {
	sections := t.section[:0]
	for _, body := range t.ends {
		sections = append(sections, media.Section{Kind: media.SectionVideo, Body: body})
	}
	if len(t.copies) > 0 {
		t.moved = channel.AppendCopyBody(t.moved[:0], t.copies)
		sections = append(sections, media.Section{Kind: media.SectionCopy, Body: t.moved})
	}
	if len(t.fills) > 0 {
		t.filled = channel.AppendFillBody(t.filled[:0], t.fills)
		sections = append(sections, media.Section{Kind: media.SectionFill, Body: t.filled})
	}
	text := t.text.compressed
	if text > 0 {
		sections = append(sections, media.Section{Kind: media.SectionText, RawLength: len(t.text.raw), Body: nil})
	}
	at := len(sections) - 1
	if len(t.raw) > 0 {
		if err := t.compress(); err != nil {
			return err
		}
		sections = append(sections, media.Section{Kind: media.SectionTiles, RawLength: len(t.raw), Body: t.out.Bytes()[text:]})
	}
	if text > 0 { // the buffer stays where it is from here on
		sections[at].Body = t.out.Bytes()[:text:text]
	}
	start := 0
	for _, end := range t.jpegEnds {
		sections = append(sections, media.Section{Kind: media.SectionJPEG, Body: t.jpeg[start:end:end]})
		start = end
	}
	t.section = append(sections, t.sent...)
	t.packet.Sections = t.section
	return nil
}

// pack appends the record of one tile to raw, in the coding that takes fewest bytes.
func (t *Tiles) pack(column, row int) {
	x, y := column*tileSize, row*tileSize
	w, h := min(tileSize, t.size.Width-x), min(tileSize, t.size.Height-y)
	colours := t.palette.count(t.shadow[y*t.size.Width+x:], t.size.Width, w, h)
	if colours == 1 && t.codecs&media.CodecFill != 0 {
		t.isSolid[row*t.columns+column] = true
		t.solid = append(t.solid, int32(row*t.columns+column)) // addSolid has it
		return
	}
	t.raw = append(t.raw, byte(column), byte(row))
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
