package channel

// Codecs that a viewer offers in Start.
const (
	CodecTiles uint32 = 1 << 0
	CodecCopy  uint32 = 1 << 1
	CodecFill  uint32 = 1 << 2
	CodecJPEG  uint32 = 1 << 3
	CodecH264  uint32 = 1 << 4
	CodecVP8   uint32 = 1 << 5
	CodecText  uint32 = 1 << 6
)

// Start is the viewer's first message on display.
type Start struct {
	Version uint16 `json:"version"`
	Codecs  uint32 `json:"codecs"`
	Window  uint32 `json:"window"` // bytes in flight; 0 leaves it to the agent
}

// Type is TypeStart.
func (*Start) Type() Type { return TypeStart }

// Append appends the message to dst.
func (m *Start) Append(dst []byte) []byte {
	dst = le.AppendUint16(append(dst, byte(TypeStart)), m.Version)
	dst = le.AppendUint32(dst, m.Codecs)
	return le.AppendUint32(dst, m.Window)
}

func (m *Start) parse(r *reader) { *m = Start{r.u16(), r.u32(), r.u32()} }

// Ack says that update Seq and all before it are drawn.
type Ack struct {
	Seq          uint32 `json:"seq"`
	DecodeMicros uint32 `json:"decodeMicros"` // receipt to drawn
	Queued       uint8  `json:"queued"`
}

// Type is TypeAck.
func (*Ack) Type() Type { return TypeAck }

// Append appends the message to dst.
func (m *Ack) Append(dst []byte) []byte {
	dst = le.AppendUint32(append(dst, byte(TypeAck)), m.Seq)
	return append(le.AppendUint32(dst, m.DecodeMicros), m.Queued)
}

func (m *Ack) parse(r *reader) { *m = Ack{r.u32(), r.u32(), r.u8()} }

// Reasons of a Refresh.
const (
	RefreshAsked   uint8 = 0
	RefreshDecoder uint8 = 1
	RefreshLost    uint8 = 2
)

// Refresh asks for a full picture in a new epoch.
type Refresh struct {
	Reason uint8 `json:"reason"`
}

// Type is TypeRefresh.
func (*Refresh) Type() Type { return TypeRefresh }

// Append appends the message to dst.
func (m *Refresh) Append(dst []byte) []byte { return append(dst, byte(TypeRefresh), m.Reason) }

func (m *Refresh) parse(r *reader) {
	m.Reason = r.u8()
	if m.Reason > RefreshLost {
		r.fail("unknown reason")
	}
}

// Flags of an update.
const (
	UpdateNewEpoch uint8 = 1 << 0 // the zstd stream starts anew and the picture is black until drawn
	UpdateLossless uint8 = 1 << 1
)

// UpdateHeader begins an update; count sections follow it.
//
//	u8 type, u32 seq, u32 epoch, u8 flags, u64 captureMicros, u16 width, u16 height, u8 count
type UpdateHeader struct {
	Seq           uint32 `json:"seq"` // from 1, +1 each, per connection
	Epoch         uint32 `json:"epoch"`
	Flags         uint8  `json:"flags"`
	CaptureMicros uint64 `json:"captureMicros,string"` // the agent's monotonic clock
	Width         uint16 `json:"width"`
	Height        uint16 `json:"height"`
}

// AppendUpdateHeader appends the message type, h and the number of sections to dst. It does not allocate
// when dst has room.
func AppendUpdateHeader(dst []byte, h *UpdateHeader, sections uint8) []byte {
	dst = le.AppendUint32(append(dst, byte(TypeUpdate)), h.Seq)
	dst = le.AppendUint32(dst, h.Epoch)
	dst = le.AppendUint64(append(dst, h.Flags), h.CaptureMicros)
	dst = le.AppendUint16(dst, h.Width)
	return append(le.AppendUint16(dst, h.Height), sections)
}

// SectionKind is the kind of one section of an update.
type SectionKind uint8

// The kinds of sections. A section is u8 kind, u32 length, body; the comments give the body.
const (
	SectionCopy  SectionKind = 1 // u16 count, count × (u16 srcX, srcY, dstX, dstY, width, height)
	SectionFill  SectionKind = 2 // u16 count, count × (u16 x, y, width, height, u8 r, g, b)
	SectionTiles SectionKind = 3 // u32 rawLength, one flushed run of the epoch's zstd stream
	SectionJPEG  SectionKind = 4 // u16 x, y, width, height, JPEG bytes
	SectionVideo SectionKind = 5 // u8 region, codec, flags, u16 x, y, width, height, codedWidth, codedHeight, access unit
	SectionText  SectionKind = 6 // u32 rawLength, one flushed run of the epoch's zstd stream
)

// AppendSection appends one section with the given body.
func AppendSection(dst []byte, kind SectionKind, body []byte) []byte {
	dst = le.AppendUint32(append(dst, byte(kind)), uint32(len(body)))
	return append(dst, body...)
}

// AppendTiles appends a tiles section. It does not allocate when dst has room.
func AppendTiles(dst []byte, rawLength int, compressed []byte) []byte {
	return AppendStream(dst, SectionTiles, rawLength, compressed)
}

// AppendStream appends a section that is a part of the epoch's zstd stream: tiles or text. It does not allocate when dst has room.
func AppendStream(dst []byte, kind SectionKind, rawLength int, compressed []byte) []byte {
	dst = le.AppendUint32(append(dst, byte(kind)), uint32(4+len(compressed)))
	dst = le.AppendUint32(dst, uint32(rawLength))
	return append(dst, compressed...)
}

// Copy moves a rectangle of the picture; overlapping source and destination behave as a move.
type Copy struct {
	SrcX   uint16 `json:"srcX"`
	SrcY   uint16 `json:"srcY"`
	DstX   uint16 `json:"dstX"`
	DstY   uint16 `json:"dstY"`
	Width  uint16 `json:"width"`
	Height uint16 `json:"height"`
}

// AppendCopies appends a copy section of at most 65,535 copies.
func AppendCopies(dst []byte, copies []Copy) []byte {
	dst = le.AppendUint32(append(dst, byte(SectionCopy)), uint32(2+12*len(copies)))
	return AppendCopyBody(dst, copies)
}

// AppendCopyBody appends the body of a copy section of at most 65,535 copies. It does not allocate when dst
// has room.
func AppendCopyBody(dst []byte, copies []Copy) []byte {
	dst = le.AppendUint16(dst, uint16(len(copies)))
	for _, c := range copies {
		dst = le.AppendUint16(dst, c.SrcX)
		dst = le.AppendUint16(dst, c.SrcY)
		dst = le.AppendUint16(dst, c.DstX)
		dst = le.AppendUint16(dst, c.DstY)
		dst = le.AppendUint16(dst, c.Width)
		dst = le.AppendUint16(dst, c.Height)
	}
	return dst
}

// Fill paints a rectangle in one colour.
type Fill struct {
	X      uint16 `json:"x"`
	Y      uint16 `json:"y"`
	Width  uint16 `json:"width"`
	Height uint16 `json:"height"`
	R      uint8  `json:"r"`
	G      uint8  `json:"g"`
	B      uint8  `json:"b"`
}

// AppendFills appends a fill section of at most 65,535 fills.
func AppendFills(dst []byte, fills []Fill) []byte {
	dst = le.AppendUint32(append(dst, byte(SectionFill)), uint32(2+11*len(fills)))
	return AppendFillBody(dst, fills)
}

// AppendFillBody appends the body of a fill section of at most 65,535 fills. It does not allocate when dst
// has room.
func AppendFillBody(dst []byte, fills []Fill) []byte {
	dst = le.AppendUint16(dst, uint16(len(fills)))
	for _, f := range fills {
		dst = le.AppendUint16(dst, f.X)
		dst = le.AppendUint16(dst, f.Y)
		dst = le.AppendUint16(dst, f.Width)
		dst = le.AppendUint16(dst, f.Height)
		dst = append(dst, f.R, f.G, f.B)
	}
	return dst
}

// JPEGHeader is the rectangle in which a JPEG picture of the same size is drawn.
type JPEGHeader struct {
	X      uint16 `json:"x"`
	Y      uint16 `json:"y"`
	Width  uint16 `json:"width"`
	Height uint16 `json:"height"`
}

// AppendJPEGHeader appends what stands before the JPEG bytes in the body of its section. It does not allocate
// when dst has room.
func AppendJPEGHeader(dst []byte, h JPEGHeader) []byte {
	dst = le.AppendUint16(dst, h.X)
	dst = le.AppendUint16(dst, h.Y)
	dst = le.AppendUint16(dst, h.Width)
	return le.AppendUint16(dst, h.Height)
}

// VideoRegions is how many video regions there can be at a time.
const VideoRegions = 2

// Codecs of a video section.
const (
	VideoH264 uint8 = 1 // Annex B, constrained baseline
	VideoVP8  uint8 = 2
)

// Flags of a video section.
const (
	VideoKey    uint8 = 1 << 0 // the first of a new decoder, for a stream of the coded size
	VideoEnd    uint8 = 1 << 1 // the region is over; no access unit follows and the other fields mean nothing
	VideoScaled uint8 = 1 << 2 // the coded picture is stretched to the rectangle
)

// VideoHeader is where and how the access unit of a video section is shown: the top left of the coded picture,
// or all of it when it is scaled.
type VideoHeader struct {
	Region      uint8  `json:"region"`
	Codec       uint8  `json:"codec"`
	Flags       uint8  `json:"flags"`
	X           uint16 `json:"x"`
	Y           uint16 `json:"y"`
	Width       uint16 `json:"width"`
	Height      uint16 `json:"height"`
	CodedWidth  uint16 `json:"codedWidth"`
	CodedHeight uint16 `json:"codedHeight"`
}

// AppendVideoHeader appends what stands before the access unit in the body of a video section. It does not
// allocate when dst has room.
func AppendVideoHeader(dst []byte, h *VideoHeader) []byte {
	dst = append(dst, h.Region, h.Codec, h.Flags)
	dst = le.AppendUint16(dst, h.X)
	dst = le.AppendUint16(dst, h.Y)
	dst = le.AppendUint16(dst, h.Width)
	dst = le.AppendUint16(dst, h.Height)
	dst = le.AppendUint16(dst, h.CodedWidth)
	return le.AppendUint16(dst, h.CodedHeight)
}

// Section is one decoded section; which fields count depends on Kind.
type Section struct {
	Kind      SectionKind
	Copies    []Copy
	Fills     []Fill
	RawLength uint32
	Tiles     []byte // of tiles and text: part of the epoch's zstd stream; aliases the message
	JPEG      JPEGHeader
	Video     VideoHeader
	Data      []byte // the JPEG picture or the access unit; aliases the message
}

// Update is one change of the picture. Its Sections alias the message that it was decoded from.
type Update struct {
	UpdateHeader
	Sections []Section
}

// Type is TypeUpdate.
func (*Update) Type() Type { return TypeUpdate }

// Append appends the message to dst. At most 255 sections.
func (m *Update) Append(dst []byte) []byte {
	dst = AppendUpdateHeader(dst, &m.UpdateHeader, uint8(len(m.Sections)))
	for i := range m.Sections {
		switch s := &m.Sections[i]; s.Kind {
		case SectionCopy:
			dst = AppendCopies(dst, s.Copies)
		case SectionFill:
			dst = AppendFills(dst, s.Fills)
		case SectionTiles, SectionText:
			dst = AppendStream(dst, s.Kind, int(s.RawLength), s.Tiles)
		case SectionJPEG:
			dst = AppendSection(dst, s.Kind, append(AppendJPEGHeader(nil, s.JPEG), s.Data...))
		case SectionVideo:
			dst = AppendSection(dst, s.Kind, append(AppendVideoHeader(nil, &s.Video), s.Data...))
		}
	}
	return dst
}

// MaxRawLength is the greatest rawLength of a tiles or text section on a screen of width × height pixels.
func MaxRawLength(width, height int) int { return 4*width*height + 65536 }

func (m *Update) parse(r *reader) {
	m.UpdateHeader = UpdateHeader{r.u32(), r.u32(), r.u8(), r.u64(), r.u16(), r.u16()}
	count := int(r.u8())
	if r.fault == "" && (m.Width == 0 || m.Height == 0) {
		r.fail("screen has no pixels")
	}
	for range count {
		kind := SectionKind(r.u8())
		body := reader{rest: r.bytes(int(r.u32()))}
		if r.fault != "" {
			return
		}
		s := Section{Kind: kind}
		switch kind {
		case SectionCopy:
			m.parseCopies(&s, &body)
		case SectionFill:
			m.parseFills(&s, &body)
		case SectionTiles, SectionText:
			s.RawLength = body.u32()
			if int64(s.RawLength) > int64(MaxRawLength(int(m.Width), int(m.Height))) {
				body.fail("rawLength is too great for the screen")
			}
			s.Tiles = body.rest
		case SectionJPEG:
			m.parseJPEG(&s, &body)
		case SectionVideo:
			m.parseVideo(&s, &body)
		default:
			body.fail("unknown kind of section")
		}
		if body.fault != "" {
			r.fail(body.fault)
			return
		}
		m.Sections = append(m.Sections, s)
	}
}

func (m *Update) inside(x, y, width, height uint16) bool {
	return int(x)+int(width) <= int(m.Width) && int(y)+int(height) <= int(m.Height)
}

func (m *Update) parseCopies(s *Section, r *reader) {
	count := int(r.u16())
	if count*12 > len(r.rest) {
		r.fail("too short")
		return
	}
	s.Copies = make([]Copy, count)
	for i := range s.Copies {
		c := Copy{r.u16(), r.u16(), r.u16(), r.u16(), r.u16(), r.u16()}
		if !m.inside(c.SrcX, c.SrcY, c.Width, c.Height) || !m.inside(c.DstX, c.DstY, c.Width, c.Height) {
			r.fail("copy reaches outside the screen")
			return
		}
		s.Copies[i] = c
	}
}

func (m *Update) parseFills(s *Section, r *reader) {
	count := int(r.u16())
	if count*11 > len(r.rest) {
		r.fail("too short")
		return
	}
	s.Fills = make([]Fill, count)
	for i := range s.Fills {
		f := Fill{r.u16(), r.u16(), r.u16(), r.u16(), r.u8(), r.u8(), r.u8()}
		if !m.inside(f.X, f.Y, f.Width, f.Height) {
			r.fail("fill reaches outside the screen")
			return
		}
		s.Fills[i] = f
	}
}

func (m *Update) parseJPEG(s *Section, r *reader) {
	h := JPEGHeader{r.u16(), r.u16(), r.u16(), r.u16()}
	s.JPEG, s.Data = h, r.rest
	switch {
	case r.fault != "":
	case h.Width == 0 || h.Height == 0:
		r.fail("JPEG has no pixels")
	case !m.inside(h.X, h.Y, h.Width, h.Height):
		r.fail("JPEG reaches outside the screen")
	case len(s.Data) == 0:
		r.fail("JPEG has no bytes")
	}
}

func (m *Update) parseVideo(s *Section, r *reader) {
	h := VideoHeader{r.u8(), r.u8(), r.u8(), r.u16(), r.u16(), r.u16(), r.u16(), r.u16(), r.u16()}
	s.Video, s.Data = h, r.rest
	end := h.Flags&VideoEnd != 0
	switch {
	case r.fault != "":
	case h.Region >= VideoRegions:
		r.fail("unknown video region")
	case h.Codec != VideoH264 && h.Codec != VideoVP8:
		r.fail("unknown video codec")
	case end && len(s.Data) > 0:
		r.fail("bytes follow the end of a video region")
	case end:
	case h.Width == 0 || h.Height == 0 || h.CodedWidth == 0 || h.CodedHeight == 0:
		r.fail("video has no pixels")
	case !m.inside(h.X, h.Y, h.Width, h.Height):
		r.fail("video reaches outside the screen")
	case h.Flags&VideoScaled == 0 && (h.CodedWidth < h.Width || h.CodedHeight < h.Height):
		r.fail("video is smaller than its rectangle")
	case len(s.Data) == 0:
		r.fail("video has no access unit")
	}
}
