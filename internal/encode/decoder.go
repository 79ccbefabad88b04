package encode

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
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

	// Inexact tells of each pixel whether it came with losses, or was copied from such a one.
	Inexact []bool
	// NewVideo makes the decoder of a video region. When it is nil, video is drawn as noise: what a viewer shows
	// is then as wrong as it can be until it is made exact.
	NewVideo func(codec uint8, width, height int) (VideoDecoder, error)

	epoch   uint32
	seq     uint32
	feed    feed
	zstd    *zstd.Decoder
	raw     []byte
	glyphs  channel.Glyphs
	regions [channel.VideoRegions]videoRegion
	noise   uint32
}

// VideoDecoder decodes the access units of one video region.
type VideoDecoder interface {
	// Decode returns the picture of one access unit: R, G, B, A row by row, valid until the next call.
	Decode(unit []byte) ([]byte, error)
	Close()
}

// videoRegion is a video region as the viewer has it.
type videoRegion struct {
	begun   bool
	header  channel.VideoHeader // of its last section
	decoder VideoDecoder        // nil without NewVideo
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
	for i := range d.regions {
		d.regions[i].close()
	}
}

func (r *videoRegion) close() {
	if r.decoder != nil {
		r.decoder.Close()
	}
	*r = videoRegion{}
}

// Region is the rectangle of a video region and whether there is one.
func (d *Decoder) Region(number int) (image.Rectangle, bool) {
	r := &d.regions[number]
	return rectOf(r.header.X, r.header.Y, r.header.Width, r.header.Height), r.begun
}

func rectOf(x, y, width, height uint16) image.Rectangle {
	return image.Rect(int(x), int(y), int(x)+int(width), int(y)+int(height))
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
	d.Inexact = make([]bool, width*height)
	d.Close()
	d.glyphs.Reset()
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
	case channel.SectionText:
		return d.text(s)
	case channel.SectionJPEG:
		return d.jpeg(s)
	case channel.SectionVideo:
		return d.video(s)
	}
	return nil
}

// mark notes whether the pixels of a rectangle are inexact now.
func (d *Decoder) mark(rect image.Rectangle, inexact bool) {
	for y := rect.Min.Y; y < rect.Max.Y; y++ {
		row := d.Inexact[y*d.Width+rect.Min.X : y*d.Width+rect.Max.X]
		for x := range row {
			row[x] = inexact
		}
	}
}

func (d *Decoder) jpeg(s *channel.Section) error {
	rect := rectOf(s.JPEG.X, s.JPEG.Y, s.JPEG.Width, s.JPEG.Height)
	config, err := jpeg.DecodeConfig(bytes.NewReader(s.Data))
	if err != nil {
		return fmt.Errorf("JPEG: %w", err)
	}
	if config.Width != rect.Dx() || config.Height != rect.Dy() {
		return fmt.Errorf("JPEG of %d×%d in a rectangle of %d×%d", config.Width, config.Height, rect.Dx(), rect.Dy())
	}
	img, err := jpeg.Decode(bytes.NewReader(s.Data))
	if err != nil {
		return fmt.Errorf("JPEG: %w", err)
	}
	at := img.Bounds().Min
	for y := range rect.Dy() {
		for x := range rect.Dx() {
			r, g, b, _ := img.At(at.X+x, at.Y+y).RGBA()
			p := d.Picture[((rect.Min.Y+y)*d.Width+rect.Min.X+x)*4:]
			p[0], p[1], p[2], p[3] = byte(r>>8), byte(g>>8), byte(b>>8), 0xff
		}
	}
	d.mark(rect, true)
	return nil
}

func (d *Decoder) video(s *channel.Section) error {
	h := s.Video
	r := &d.regions[h.Region]
	switch {
	case h.Flags&channel.VideoEnd != 0:
		if !r.begun {
			return fmt.Errorf("video region %d ends but did not begin", h.Region)
		}
		r.close()
		return nil
	case h.Flags&channel.VideoKey != 0:
		r.close()
		r.begun = true
		if d.NewVideo != nil {
			var err error
			if r.decoder, err = d.NewVideo(h.Codec, int(h.CodedWidth), int(h.CodedHeight)); err != nil {
				return fmt.Errorf("video region %d: %w", h.Region, err)
			}
		}
	case !r.begun:
		return fmt.Errorf("video region %d begins without a key frame", h.Region)
	case h.Codec != r.header.Codec || h.CodedWidth != r.header.CodedWidth || h.CodedHeight != r.header.CodedHeight:
		return fmt.Errorf("video region %d changes without a key frame", h.Region)
	}
	r.header = h
	rect := rectOf(h.X, h.Y, h.Width, h.Height)
	d.mark(rect, true)
	if r.decoder == nil {
		for y := rect.Min.Y; y < rect.Max.Y; y++ {
			for x := rect.Min.X; x < rect.Max.X; x++ {
				d.noise = d.noise*1664525 + 1013904223
				binary.LittleEndian.PutUint32(d.Picture[(y*d.Width+x)*4:], d.noise>>8|0xff000000)
			}
		}
		return nil
	}
	pix, err := r.decoder.Decode(s.Data)
	if err != nil {
		return fmt.Errorf("video region %d: %w", h.Region, err)
	}
	width, height := int(h.CodedWidth), int(h.CodedHeight)
	if len(pix) != width*height*4 {
		return fmt.Errorf("video region %d: picture of %d bytes, want %d×%d", h.Region, len(pix), width, height)
	}
	for y := range rect.Dy() {
		for x := range rect.Dx() {
			fromX, fromY := x, y
			if h.Flags&channel.VideoScaled != 0 {
				fromX, fromY = x*width/rect.Dx(), y*height/rect.Dy()
			}
			copy(d.Picture[((rect.Min.Y+y)*d.Width+rect.Min.X+x)*4:][:4], pix[(fromY*width+fromX)*4:])
		}
	}
	return nil
}

// decompress reads the section's part of the epoch's stream into raw.
func (d *Decoder) decompress(s *channel.Section) error {
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
	return nil
}

func (d *Decoder) text(s *channel.Section) error {
	if err := d.decompress(s); err != nil {
		return err
	}
	return d.glyphs.Draw(d.raw, d.Picture, d.Width, d.Height, func(x, y, w, h int) {
		d.mark(image.Rect(x, y, x+w, y+h), false)
	})
}

func (d *Decoder) tiles(s *channel.Section) error {
	if err := d.decompress(s); err != nil {
		return err
	}
	if err := channel.DrawTiles(d.raw, d.Picture, d.Width, d.Height); err != nil {
		return err
	}
	for raw := d.raw; len(raw) > 0; {
		x, y, w, h, n := d.record(raw)
		d.mark(image.Rect(x, y, x+w, y+h), false)
		raw = raw[n:]
	}
	return nil
}

// record is the rectangle and the length of the tile record that raw begins with; it has been drawn already.
func (d *Decoder) record(raw []byte) (x, y, w, h, n int) {
	x, y = int(raw[0])*tileSize, int(raw[1])*tileSize
	w, h = min(tileSize, d.Width-x), min(tileSize, d.Height-y)
	switch coding := int(raw[2]); coding {
	case channel.TileRaw:
		return x, y, w, h, 3 + 3*w*h
	case channel.TileSolid:
		return x, y, w, h, 3 + 3
	default:
		return x, y, w, h, 3 + 1 + 3*(int(raw[3])+1) + (w*coding+7)/8*h
	}
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
		copy(d.Inexact[(int(c.DstY)+i)*d.Width+int(c.DstX):][:c.Width], d.Inexact[(int(c.SrcY)+i)*d.Width+int(c.SrcX):][:c.Width])
	}
}

func (d *Decoder) fill(f channel.Fill) {
	d.mark(rectOf(f.X, f.Y, f.Width, f.Height), false)
	for y := int(f.Y); y < int(f.Y)+int(f.Height); y++ {
		for x := int(f.X); x < int(f.X)+int(f.Width); x++ {
			at := (y*d.Width + x) * 4
			d.Picture[at], d.Picture[at+1], d.Picture[at+2], d.Picture[at+3] = f.R, f.G, f.B, 0xff
		}
	}
}
