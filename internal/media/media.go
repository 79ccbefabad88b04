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
}

// SectionKind is the kind of one part of a packet.
type SectionKind uint8

// The kinds of sections, as in docs/protocol.md.
const (
	SectionCopy  SectionKind = 1
	SectionFill  SectionKind = 2
	SectionTiles SectionKind = 3
)

// Section is one part of a packet.
type Section struct {
	Kind      SectionKind
	RawLength int // of tiles: length of Body decompressed
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
)

// Encoder turns captured views into packets for one viewer. It keeps the picture that the viewer has after
// the last packet, so every packet that it returns must be sent. It is used by one goroutine at a time.
type Encoder interface {
	// Begin starts a new epoch on a black picture of the given size. The next packet carries NewEpoch.
	Begin(size Size)
	// Encode compares the views with the viewer's picture and returns what differs, or nil when nothing
	// does. Views outside the picture are cut. The first call of an epoch always returns a packet. A
	// packet that would take more than about limit bytes is left incomplete, and says so.
	Encode(views []View, captureMicros uint64, limit int) (*Packet, error)
}

// Cursor is the shape of the remote pointer. A cursor without pixels is hidden.
type Cursor struct {
	Serial uint32
	Size   Size
	Hot    image.Point
	RGBA   []byte // not premultiplied
}
