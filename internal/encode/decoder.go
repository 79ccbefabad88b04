package encode

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"penstock.dev/penstock/internal/wire/channel"
)

// maxPixels bounds the picture that a Decoder allocates.
const maxPixels = 1 << 26

// Decoder is a viewer's side of the display channel: it applies updates to a picture. It is the reference
// that the tests of both ends compare with, so it is simple and strict rather than fast. One goroutine at a
// time may use it. Close frees its zstd decoder.
type Decoder struct {
	Width, Height int
	Picture       []byte // R, G, B, A, row by row

	epoch uint32
	seq   uint32
	feed  feed
	zstd  *zstd.Decoder
	raw   []byte
}

// feed is an endless stream to a decompressor: what was not read yet.
type feed struct{ rest []byte }

var errStarved = errors.New("zstd stream ends inside a section")

func (f *feed) Read(p []byte) (int, error) {
	if len(f.rest) == 0 {
		return 0, errStarved
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

// NewDecoder makes a decoder without a picture; the first update brings it.
func NewDecoder() *Decoder { return &Decoder{} }

// Close frees what the decoder holds.
func (d *Decoder) Close() {
	if d.zstd != nil {
		d.zstd.Close()
		d.zstd = nil
	}
}

// Apply draws one update message, from its type byte to its end, and returns its header.
func (d *Decoder) Apply(message []byte) (*channel.Update, error) {
	m, err := channel.Parse(channel.Display, channel.FromAgent, message)
	if err != nil {
		return nil, err
	}
	u, ok := m.(*channel.Update)
	if !ok {
		return nil, fmt.Errorf("got %v, want an update", m.Type())
	}
	if u.Seq != d.seq+1 {
		return nil, fmt.Errorf("update %d follows update %d", u.Seq, d.seq)
	}
	d.seq = u.Seq
	if err := d.begin(u); err != nil {
		return nil, err
	}
	for i := range u.Sections {
		if err := d.section(&u.Sections[i]); err != nil {
			return nil, fmt.Errorf("update %d: %w", u.Seq, err)
		}
	}
	return u, nil
}

// begin starts a new epoch when the update says so and checks that it fits the current one otherwise.
func (d *Decoder) begin(u *channel.Update) error {
	width, height := int(u.Width), int(u.Height)
	if u.Flags&channel.UpdateNewEpoch == 0 {
		if u.Epoch != d.epoch || width != d.Width || height != d.Height || d.Picture == nil {
			return fmt.Errorf("update %d: epoch %d of %d×%d did not begin", u.Seq, u.Epoch, width, height)
		}
		return nil
	}
	if width*height > maxPixels {
		return fmt.Errorf("update %d: %d×%d is too large", u.Seq, width, height)
	}
	d.epoch, d.Width, d.Height = u.Epoch, width, height
	d.Picture = make([]byte, width*height*4)
	for i := 3; i < len(d.Picture); i += 4 {
		d.Picture[i] = 0xff
	}
	d.Close()
	d.feed.rest = nil
	return nil
}

func (d *Decoder) section(s *channel.Section) error {
	switch s.Kind {
	case channel.SectionCopy:
		for _, c := range s.Copies {
			d.move(c)
		}
	case channel.SectionFill:
		for _, f := range s.Fills {
			d.fill(f)
		}
	case channel.SectionTiles:
		return d.tiles(s)
	case channel.SectionJPEG, channel.SectionVideo:
		return fmt.Errorf("section of kind %d is not supported", s.Kind)
	}
	return nil
}

func (d *Decoder) tiles(s *channel.Section) error {
	d.feed.rest = append(d.feed.rest, s.Tiles...)
	if d.zstd == nil {
		z, err := zstd.NewReader(&d.feed, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(8<<20))
		if err != nil {
			return fmt.Errorf("begin zstd stream: %w", err)
		}
		d.zstd = z
	}
	if cap(d.raw) < int(s.RawLength) {
		d.raw = make([]byte, s.RawLength)
	}
	d.raw = d.raw[:s.RawLength]
	if _, err := io.ReadFull(d.zstd, d.raw); err != nil {
		return fmt.Errorf("decompress tiles: %w", err)
	}
	if len(d.feed.rest) > 0 {
		return fmt.Errorf("%d bytes stand behind the tiles", len(d.feed.rest))
	}
	return channel.DrawTiles(d.raw, d.Picture, d.Width, d.Height)
}

func (d *Decoder) move(c channel.Copy) {
	n := int(c.Width) * 4
	line := func(x, y uint16, i int) []byte {
		start := ((int(y)+i)*d.Width + int(x)) * 4
		return d.Picture[start : start+n]
	}
	for i := range int(c.Height) {
		if c.DstY > c.SrcY { // from the bottom, or rows would be read after they are overwritten
			i = int(c.Height) - 1 - i
		}
		copy(line(c.DstX, c.DstY, i), line(c.SrcX, c.SrcY, i))
	}
}

func (d *Decoder) fill(f channel.Fill) {
	for y := int(f.Y); y < int(f.Y)+int(f.Height); y++ {
		for x := int(f.X); x < int(f.X)+int(f.Width); x++ {
			at := (y*d.Width + x) * 4
			d.Picture[at], d.Picture[at+1], d.Picture[at+2], d.Picture[at+3] = f.R, f.G, f.B, 0xff
		}
	}
}
