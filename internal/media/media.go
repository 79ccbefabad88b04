// Package media holds the values of the stream between a session's screen and its viewer, and the rules that
// need no I/O: how damage merges, how much may be in flight, which input counts. Nothing here blocks.
package media

import (
	"fmt"
	"image"
)

// Size is the size of a screen in physical pixels.
type Size struct {
	Width, Height int
}

// Bounds is the rectangle from the origin with this size.
func (s Size) Bounds() image.Rectangle { return image.Rect(0, 0, s.Width, s.Height) }

// String is WIDTHxHEIGHT, as in resolution=1280x720.
func (s Size) String() string { return fmt.Sprintf("%dx%d", s.Width, s.Height) }

// Fit is the nearest size that a screen of at most limit can take. A screen has at least 64 × 64 pixels.
func (s Size) Fit(limit Size) Size {
	return Size{
		Width:  max(minEdge, min(s.Width, limit.Width)),
		Height: max(minEdge, min(s.Height, limit.Height)),
	}
}

// minEdge is the smallest width and height of a screen.
const minEdge = 64

// View is a captured rectangle of the screen.
type View struct {
	Rect image.Rectangle
	// Pix holds the rectangle's rows without gaps, 4 bytes a pixel: blue, green, red and one that means
	// nothing. It is valid until the next capture.
	Pix []byte
	// Prompt says that somebody waits for it: what changed in it goes before what has waited.
	Prompt bool
}

// SectionKind is the kind of one part of a packet.
type SectionKind uint8

// The kinds of sections, as in docs/protocol.md.
const (
	SectionCopy  SectionKind = 1
	SectionFill  SectionKind = 2
	SectionTiles SectionKind = 3
	SectionJPEG  SectionKind = 4
	SectionVideo SectionKind = 5
	SectionText  SectionKind = 6
)

// Section is one part of a packet.
type Section struct {
	Kind      SectionKind
	RawLength int // of tiles and text: length of Body decompressed
	Body      []byte
}

// Packet is a change of the picture as encoded. Its memory is valid until its encoder's next call.
type Packet struct {
	Epoch         uint32
	NewEpoch      bool
	Lossless      bool
	CaptureMicros uint64
	Size          Size
	Sections      []Section
	// More says that not all of the change is in the packet: the next call of the encoder has the rest.
	More bool
}

// Bytes is the sum of the sections' lengths.
func (p *Packet) Bytes() int {
	n := 0
	for i := range p.Sections {
		n += len(p.Sections[i].Body)
	}
	return n
}

// Codecs is the set of section kinds that a viewer can decode, as in the message start.
type Codecs uint32

// The codecs.
const (
	CodecTiles Codecs = 1 << 0
	CodecCopy  Codecs = 1 << 1
	CodecFill  Codecs = 1 << 2
	CodecJPEG  Codecs = 1 << 3
	CodecH264  Codecs = 1 << 4
	CodecVP8   Codecs = 1 << 5
	CodecText  Codecs = 1 << 6
)

// Quality is what the link and the viewer can take of the next packet. What is zero but Limit is the encoder's
// choice, so an encoder may be used without any knowledge of the link.
type Quality struct {
	// Limit is about how many bytes the packet may have; the rest comes with the next one.
	Limit int
	// BytesPerSecond is what the link is thought to carry; 0: not known yet.
	BytesPerSecond int
	// VideoQP is the quantizer of video, 12 (best) to 51, in H.264's scale; DefaultVideoQP when 0.
	VideoQP int
	// VideoFPS is how many frames a second a video region may have; DefaultVideoFPS when 0.
	VideoFPS int
	// VideoScale divides the edges of video before it is coded: 1 or 2; 1 when 0.
	VideoScale int
	// JPEGQuality is 1 to 100; DefaultJPEGQuality when 0.
	JPEGQuality int
}

// What zero values of a Quality stand for.
const (
	DefaultVideoQP     = 26
	DefaultVideoFPS    = 30
	DefaultJPEGQuality = 85
)

// Encoder turns captured views into packets for one viewer. It keeps the picture that the viewer has after
// the last packet, so every packet that it returns must be sent. It is used by one goroutine at a time. Times
// are µs of one monotonic clock.
type Encoder interface {
	// Begin starts a new epoch on a black picture of the given size. The next packet carries NewEpoch.
	Begin(size Size)
	// Encode compares the views, captured at now, with the viewer's picture and returns what differs, or nil
	// when nothing does. Views outside the picture are cut. The first call of an epoch always returns a
	// packet. A packet that would take more than about q.Limit bytes is left incomplete, and says so.
	//
	// Without views, and when no change waits, it makes pixels exact that came to the viewer with losses and
	// have not changed of late.
	Encode(views []View, now uint64, q Quality) (*Packet, error)
	// Due is when Encode wants to be called although nothing changed; false when the viewer has exactly what
	// was captured and nothing has to end. A call before that time is in vain, a late one does no harm.
	Due() (at uint64, ok bool)
	// Close frees what the encoder holds. It is not used afterwards.
	Close()
}

// Cursor is the shape of the remote pointer. A cursor without pixels is hidden.
type Cursor struct {
	Serial uint32
	Size   Size
	Hot    image.Point
	RGBA   []byte // not premultiplied
}
