package encode_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"image"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/encode"
	"penstock.dev/penstock/internal/media"
	"penstock.dev/penstock/internal/wire/channel"
)

const (
	noText    = media.CodecTiles | media.CodecCopy | media.CodecFill
	allCodecs = noText | media.CodecText
)

// noLimit lets every packet be whole.
const noLimit = 1 << 30

// screen is a source of pixels: B, G, R and a byte of noise, as an X server gives them.
type screen struct {
	size media.Size
	pix  []byte
	rng  *rand.Rand
}

func newScreen(size media.Size, seed uint64) *screen {
	s := &screen{size: size, pix: make([]byte, size.Width*size.Height*4), rng: rand.New(rand.NewPCG(seed, 1))}
	s.paint(size.Bounds(), 1)
	return s
}

// paint fills rect with about the given number of colours in a pattern.
func (s *screen) paint(rect image.Rectangle, colours int) {
	palette := make([][3]byte, colours)
	for i := range palette {
		v := s.rng.Uint32()
		palette[i] = [3]byte{byte(v), byte(v >> 8), byte(v >> 16)}
	}
	for y := rect.Min.Y; y < rect.Max.Y; y++ {
		for x := rect.Min.X; x < rect.Max.X; x++ {
			c := palette[s.rng.IntN(colours)]
			at := (y*s.size.Width + x) * 4
			s.pix[at], s.pix[at+1], s.pix[at+2], s.pix[at+3] = c[0], c[1], c[2], byte(s.rng.Uint32())
		}
	}
}

func (s *screen) randomRect() image.Rectangle {
	x, y := s.rng.IntN(s.size.Width), s.rng.IntN(s.size.Height)
	return image.Rect(x, y, x+1+s.rng.IntN(s.size.Width-x), y+1+s.rng.IntN(s.size.Height-y))
}

func (s *screen) view(rect image.Rectangle) media.View {
	v := media.View{Rect: rect}
	for y := rect.Min.Y; y < rect.Max.Y; y++ {
		start := (y*s.size.Width + rect.Min.X) * 4
		v.Pix = append(v.Pix, s.pix[start:start+rect.Dx()*4]...)
	}
	return v
}

func (s *screen) rgba() []byte {
	out := make([]byte, len(s.pix))
	for i := 0; i < len(out); i += 4 {
		out[i], out[i+1], out[i+2], out[i+3] = s.pix[i+2], s.pix[i+1], s.pix[i], 0xff
	}
	return out
}

// message is a packet as it travels.
func message(p *media.Packet, seq uint32) []byte {
	h := channel.UpdateHeader{
		Seq: seq, Epoch: p.Epoch, CaptureMicros: p.CaptureMicros,
		Width: uint16(p.Size.Width), Height: uint16(p.Size.Height), Flags: channel.UpdateLossless,
	}
	if p.NewEpoch {
		h.Flags |= channel.UpdateNewEpoch
	}
	b := channel.AppendUpdateHeader(nil, &h, uint8(len(p.Sections)))
	for _, s := range p.Sections {
		if s.Kind == media.SectionTiles || s.Kind == media.SectionText {
			b = channel.AppendStream(b, channel.SectionKind(s.Kind), s.RawLength, s.Body)
		} else {
			b = channel.AppendSection(b, channel.SectionKind(s.Kind), s.Body)
		}
	}
	return b
}

// Whatever was drawn and however much more than that is reported as damage, the viewer's picture is the
// source's, exactly.
func TestPictureIsExact(t *testing.T) {
	t.Parallel()
	sizes := []image.Point{{64, 64}, {65, 66}, {127, 64}, {640, 480}, {333, 251}, {1, 1}, {1000, 3}}
	limits := []int{noLimit, 0, 20_000}
	for i, p := range sizes {
		size := media.Size{Width: p.X, Height: p.Y}
		t.Run(size.String(), func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(3) {
				s := newScreen(size, seed*100+uint64(i))
				enc, err := encode.NewTiles(allCodecs, encode.Options{})
				if err != nil {
					t.Fatal(err)
				}
				dec := encode.NewDecoder()
				defer dec.Close()
				enc.Begin(size)
				seq := uint32(0)
				views := []media.View{s.view(size.Bounds())}
				for step := range 60 / raceShare {
					for more := true; more; {
						p, err := enc.Encode(views, uint64(step), media.Quality{Limit: limits[step%len(limits)]})
						if err != nil {
							t.Fatal(err)
						}
						if p != nil {
							seq++
							if _, err := dec.Apply(message(p, seq)); err != nil {
								t.Fatalf("seed %d step %d: %v", seed, step, err)
							}
						}
						more = p != nil && p.More
						if s.rng.IntN(5) == 0 { // something is drawn while the rest waits
							views = append(views[:0], media.View{Rect: s.randomRect()})
							s.paint(views[0].Rect, 7)
							views[0] = s.view(views[0].Rect)
							more = true
						} else {
							views = nil
						}
					}
					if want := s.rgba(); !bytes.Equal(want, dec.Picture) {
						t.Fatalf("seed %d step %d: the pictures differ", seed, step)
					}
					views = views[:0]
					for range s.rng.IntN(4) {
						rect := s.randomRect()
						s.paint(rect, []int{1, 2, 3, 4, 5, 16, 17, 256, 257, 5000}[s.rng.IntN(10)])
						views = append(views, media.View{Rect: rect})
					}
					for i := range views { // after all drawing, as a capture is
						rect := views[i].Rect
						if s.rng.IntN(2) == 0 {
							rect = rect.Inset(-s.rng.IntN(50)).Intersect(s.size.Bounds())
						}
						views[i] = s.view(rect)
					}
					if s.rng.IntN(15) == 0 { // a viewer that lost its picture, or a resize
						size := media.Size{Width: 1 + s.rng.IntN(300), Height: 1 + s.rng.IntN(300)}
						s = newScreen(size, seed)
						s.paint(size.Bounds(), 300)
						enc.Begin(size)
						views = []media.View{s.view(size.Bounds())}
					}
				}
			}
		})
	}
}

func TestUnchangedIsNothing(t *testing.T) {
	t.Parallel()
	size := media.Size{Width: 300, Height: 200}
	s := newScreen(size, 1)
	enc, err := encode.NewTiles(noText, encode.Options{})
	if err != nil {
		t.Fatal(err)
	}
	enc.Begin(size)
	all := []media.View{s.view(size.Bounds())}
	if p, err := enc.Encode(all, 1, media.Quality{Limit: noLimit}); err != nil || p == nil || !p.NewEpoch {
		t.Fatalf("first update: got %+v, %v", p, err)
	}
	if p, err := enc.Encode(all, 2, media.Quality{Limit: noLimit}); err != nil || p != nil {
		t.Errorf("same pixels: got %+v, %v; want nothing", p, err)
	}
	for i := 3; i < len(s.pix); i += 4 {
		s.pix[i] ^= 0xff
	}
	if p, err := enc.Encode([]media.View{s.view(size.Bounds())}, 3, media.Quality{Limit: noLimit}); err != nil || p != nil {
		t.Errorf("only the unused byte differs: got %+v, %v; want nothing", p, err)
	}
	s.pix[(100*300+70)*4] ^= 1
	p, err := enc.Encode([]media.View{s.view(size.Bounds())}, 4, media.Quality{Limit: noLimit})
	if err != nil || p == nil {
		t.Fatalf("one pixel changed: got %+v, %v", p, err)
	}
	// One solid-but-for-a-pixel tile: column, row, coding, count, two colours, 64 rows of 8 bytes.
	if want := 3 + 1 + 6 + 64*8; p.Sections[0].RawLength != want {
		t.Errorf("got %d bytes of records, want %d: one tile", p.Sections[0].RawLength, want)
	}
}

func TestBlackScreen(t *testing.T) {
	t.Parallel()
	size := media.Size{Width: 70, Height: 70}
	enc, err := encode.NewTiles(allCodecs, encode.Options{})
	if err != nil {
		t.Fatal(err)
	}
	enc.Begin(size)
	p, err := enc.Encode([]media.View{{Rect: size.Bounds(), Pix: make([]byte, 70*70*4)}}, 1, media.Quality{Limit: noLimit})
	if err != nil || p == nil || !p.NewEpoch || len(p.Sections) != 0 {
		t.Errorf("got %+v, %v; want the new epoch without sections", p, err)
	}
}

func TestBadView(t *testing.T) {
	t.Parallel()
	enc, err := encode.NewTiles(allCodecs, encode.Options{})
	if err != nil {
		t.Fatal(err)
	}
	enc.Begin(media.Size{Width: 64, Height: 64})
	if _, err := enc.Encode([]media.View{{Rect: image.Rect(0, 0, 2, 2), Pix: make([]byte, 15)}}, 1, media.Quality{Limit: noLimit}); err == nil {
		t.Error("got no error for a view that lacks a byte")
	}
}

// The largest screen full of noise goes in messages that are not too large.
func TestLargestScreen(t *testing.T) {
	long(t)
	t.Parallel()
	size := media.Size{Width: 5120, Height: 2880}
	rng := rand.NewChaCha8([32]byte{1})
	pix := make([]byte, size.Width*size.Height*4)
	if _, err := rng.Read(pix); err != nil {
		t.Fatal(err)
	}
	enc, err := encode.NewTiles(allCodecs, encode.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dec := encode.NewDecoder()
	defer dec.Close()
	enc.Begin(size)
	views := []media.View{{Rect: size.Bounds(), Pix: pix}}
	for seq := uint32(1); ; seq++ {
		p, err := enc.Encode(views, 1, media.Quality{Limit: 24 << 20})
		if err != nil {
			t.Fatal(err)
		}
		b := message(p, seq)
		if len(b) > channel.MaxFromAgent {
			t.Fatalf("message of %d bytes", len(b))
		}
		if _, err := dec.Apply(b); err != nil {
			t.Fatal(err)
		}
		if !p.More {
			break
		}
		views = nil
	}
	for i := 0; i < len(pix); i += 4 {
		if pix[i+2] != dec.Picture[i] || pix[i+1] != dec.Picture[i+1] || pix[i] != dec.Picture[i+2] {
			t.Fatalf("pixel %d differs", i/4)
		}
	}
}

var update = flag.Bool("update", false, "write the vectors of real updates")

// vector is an entry of update-stream.json: the updates of one connection, in order. RGBA is the SHA-256 of
// the viewer's picture after it, R, G, B, 255 row by row.
type vector struct {
	Name      string         `json:"name"`
	Direction string         `json:"direction"`
	Fields    []string       `json:"fields"`
	Hex       string         `json:"hex"`
	Message   map[string]any `json:"message"`
	Width     int            `json:"pictureWidth"`
	Height    int            `json:"pictureHeight"`
	SHA256    string         `json:"pictureSha256"`
}

// The stream that both decoders are tested with: every coding, cut tiles, a kept window, other
// epochs, copies and fills.
func TestStreamVectors(t *testing.T) {
	const file = "../wire/channel/testdata/update-stream.json"
	var list []vector
	if *update {
		list = makeVectors(t)
		b, err := json.MarshalIndent(list, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	list = nil
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	dec := encode.NewDecoder()
	defer dec.Close()
	codings, kinds := map[byte]int{}, map[channel.SectionKind]int{}
	for _, v := range list {
		b, err := hex.DecodeString(strings.ReplaceAll(v.Hex, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		u, err := dec.Apply(b)
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		for _, s := range u.Sections {
			kinds[s.Kind]++
		}
		if slices.ContainsFunc(u.Sections, func(s channel.Section) bool { return s.Kind == channel.SectionTiles }) {
			for _, c := range dec.Codings() {
				codings[c]++
			}
		}
		if dec.Width != v.Width || dec.Height != v.Height {
			t.Errorf("%s: got %d×%d, want %d×%d", v.Name, dec.Width, dec.Height, v.Width, v.Height)
		}
		if got := sum(dec.Picture); got != v.SHA256 {
			t.Errorf("%s: got picture %s, want %s", v.Name, got, v.SHA256)
		}
	}
	for _, c := range []byte{channel.TileRaw, 1, 2, 4, 8, channel.TileSolid} {
		if codings[c] == 0 {
			t.Errorf("no tile of coding %d", c)
		}
	}
	for _, k := range []channel.SectionKind{channel.SectionCopy, channel.SectionFill, channel.SectionTiles, channel.SectionText} {
		if kinds[k] == 0 {
			t.Errorf("no section of kind %d", k)
		}
	}
	if diff := cmp.Diff(list, makeVectors(t)); diff != "" && !*update {
		t.Logf("the encoder makes other bytes than it did; this is no fault as long as they decode")
	}
}

func sum(picture []byte) string {
	s := sha256.Sum256(picture)
	return hex.EncodeToString(s[:])
}

func makeVectors(t *testing.T) []vector {
	t.Helper()
	var list []vector
	enc, err := encode.NewTiles(media.CodecTiles, encode.Options{}) // so that every coding occurs
	if err != nil {
		t.Fatal(err)
	}
	size := media.Size{Width: 200, Height: 130} // 4 × 3 tiles: the last column has 8 pixels, the last row 2
	s := newScreen(size, 7)
	enc.Begin(size)
	add := func(name string, views ...media.View) {
		t.Helper()
		p, err := enc.Encode(views, uint64(1_000_000*(len(list)+1)), media.Quality{Limit: noLimit})
		if err != nil || p == nil {
			t.Fatalf("%s: got %v, %v", name, p, err)
		}
		b := message(p, uint32(len(list)+1))
		v := vector{Name: name, Direction: "agent-to-viewer", Width: s.size.Width, Height: s.size.Height, SHA256: sum(s.rgba())}
		var parts []string
		field := func(name string, n int) {
			v.Fields = append(v.Fields, name)
			parts = append(parts, hex.EncodeToString(b[:n]))
			b = b[n:]
		}
		flags := 2
		if p.NewEpoch {
			flags = 3
		}
		sections := []any{}
		field("type", 1)
		field("seq", 4)
		field("epoch", 4)
		field("flags", 1)
		field("captureMicros", 8)
		field("width", 2)
		field("height", 2)
		field("sections", 1)
		for _, section := range p.Sections {
			switch section.Kind { //nolint:exhaustive // the vectors have no others
			case media.SectionTiles, media.SectionText:
				kind := "tiles"
				if section.Kind == media.SectionText {
					kind = "text"
				}
				sections = append(sections, map[string]any{
					"kind": kind, "rawLength": float64(section.RawLength), "tiles": hex.EncodeToString(section.Body),
				})
				field(kind+".kind", 1)
				field(kind+".length", 4)
				field(kind+".rawLength", 4)
				field(kind+".zstd", len(section.Body))
			case media.SectionCopy:
				names := []string{"srcX", "srcY", "dstX", "dstY", "width", "height"}
				sections = append(sections, map[string]any{"kind": "copy", "copies": records(section.Body, names, nil)})
				field("copy.kind", 1)
				field("copy.length", 4)
				field("copy.count", 2)
				field("copy.rects", len(section.Body)-2)
			case media.SectionFill:
				names := []string{"x", "y", "width", "height"}
				sections = append(sections, map[string]any{"kind": "fill", "fills": records(section.Body, names, []string{"r", "g", "b"})})
				field("fill.kind", 1)
				field("fill.length", 4)
				field("fill.count", 2)
				field("fill.rects", len(section.Body)-2)
			}
		}
		v.Hex = strings.Join(parts, " ")
		v.Message = map[string]any{
			"seq": float64(len(list) + 1), "epoch": float64(p.Epoch), "flags": float64(flags),
			"captureMicros": strconv.FormatUint(p.CaptureMicros, 10),
			"width":         float64(p.Size.Width), "height": float64(p.Size.Height), "sections": sections,
		}
		list = append(list, v)
	}
	add("solid everywhere, edge tiles", s.view(size.Bounds()))
	first := image.Rect(0, 0, 64, 64)
	for _, colours := range []int{2, 4, 16, 250, 5000} {
		s.paint(first, colours)
		add(fmt.Sprintf("first tile, about %d colours", colours), s.view(first))
	}
	corner := image.Rect(190, 120, 200, 130)
	for _, colours := range []int{2, 3, 12, 5000} {
		s.paint(corner, colours)
		add(fmt.Sprintf("cut tiles at the corner, about %d colours", colours), s.view(corner))
	}
	before := s.view(size.Bounds())
	saved := bytes.Clone(s.pix)
	s.paint(size.Bounds(), 1)
	add("one colour", s.view(size.Bounds()))
	s.pix = saved
	add("back to what the window still holds", before)
	size = media.Size{Width: 65, Height: 64}
	s = newScreen(size, 8)
	s.paint(size.Bounds(), 3)
	enc.Begin(size)
	add("new epoch of another size", s.view(size.Bounds()))
	s.paint(image.Rect(64, 0, 65, 64), 2)
	add("one column of pixels", s.view(image.Rect(64, 0, 65, 64)))
	size = media.Size{Width: 70, Height: 70}
	s = newScreen(size, 8)
	clear(s.pix)
	enc.Begin(size)
	add("black screen", s.view(size.Bounds()))
	s.paint(image.Rect(10, 10, 20, 20), 2)
	add("first tiles of an epoch that began black", s.view(image.Rect(10, 10, 20, 20)))

	if enc, err = encode.NewTiles(noText, encode.Options{}); err != nil {
		t.Fatal(err)
	}
	size = media.Size{Width: 300, Height: 200}
	s = newScreen(size, 9)
	s.text(image.Rect(20, 10, 290, 190))
	for range 4 { // epochs go on
		enc.Begin(size)
	}
	add("new epoch for copies", s.view(size.Bounds()))
	s.scroll(image.Rect(20, 10, 290, 190), 0, -13)
	add("scroll up", s.view(size.Bounds()))
	s.scroll(image.Rect(20, 10, 290, 190), 0, 26)
	add("scroll down", s.view(size.Bounds()))
	s.scroll(image.Rect(20, 10, 290, 190), 7, 0)
	add("scroll right", s.view(size.Bounds()))
	s.shift(image.Rect(40, 30, 200, 150), 11, -9)
	add("window moved over itself", s.view(size.Bounds()))
	s.paint(image.Rect(0, 0, 256, 128), 1)
	add("fill", s.view(size.Bounds()))

	if enc, err = encode.NewTiles(allCodecs, encode.Options{}); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		enc.Begin(size)
	}
	f := newFont(30)
	s.clear(size.Bounds(), 0xf0f0e8)
	s.write(image.Rect(10, 8, 290, 150), f)
	add("new epoch for text", s.view(size.Bounds()))
	s.write(image.Rect(10, 8, 290, 150), f)
	add("another page", s.view(size.Bounds()))
	s.scroll(image.Rect(10, 8, 290, 150), 0, -17)
	s.write(image.Rect(10, 128, 290, 150), f)
	add("text scrolled", s.view(size.Bounds()))
	s.letter(image.Pt(20, 170), f, 3)
	add("a letter", s.view(image.Rect(0, 160, 100, 190)))
	s.clear(image.Rect(0, 0, 300, 20), 0x203060)
	s.paint(image.Rect(100, 60, 140, 90), 400)
	add("text, a bar and a picture", s.view(size.Bounds()))
	return list
}

// records is the decoded body of a copy or fill section: its fields of two bytes, then those of one.
func records(body []byte, halves, octets []string) []any {
	list := []any{}
	for body = body[2:]; len(body) > 0; {
		r := map[string]any{}
		for _, name := range halves {
			r[name] = float64(binary.LittleEndian.Uint16(body))
			body = body[2:]
		}
		for _, name := range octets {
			r[name] = float64(body[0])
			body = body[1:]
		}
		list = append(list, r)
	}
	return list
}

func FuzzDecoder(f *testing.F) {
	b, err := os.ReadFile("../wire/channel/testdata/update-stream.json")
	if err != nil {
		f.Fatal(err)
	}
	var list []vector
	if err := json.Unmarshal(b, &list); err != nil {
		f.Fatal(err)
	}
	for _, v := range list {
		b, err := hex.DecodeString(strings.ReplaceAll(v.Hex, " ", ""))
		if err != nil {
			f.Fatal(err)
		}
		b[1] = 1 // its seq
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		dec := encode.NewDecoder()
		defer dec.Close()
		_, _ = dec.Apply(message) // must not panic
	})
}

// text paints rect like a page of text: two colours and some blends between them, in runs.
func (s *screen) text(rect image.Rectangle) {
	palette := [6]uint32{0xffffff, 0xffffff, 0xffffff, 0x1e1e1e, 0x8e8e8e, 0xc5c5c5}
	for y := rect.Min.Y; y < rect.Max.Y; y++ {
		for x := rect.Min.X; x < rect.Max.X; {
			c := palette[s.rng.IntN(6)]
			for n := 1 + s.rng.IntN(6); n > 0 && x < rect.Max.X; n-- {
				at := (y*s.size.Width + x) * 4
				s.pix[at], s.pix[at+1], s.pix[at+2] = byte(c), byte(c>>8), byte(c>>16)
				x++
			}
		}
	}
}

func hd(b testing.TB) (*screen, *encode.Tiles) {
	b.Helper()
	size := media.Size{Width: 1920, Height: 1080}
	s := newScreen(size, 3)
	s.text(size.Bounds())
	enc, err := encode.NewTiles(allCodecs, encode.Options{})
	if err != nil {
		b.Fatal(err)
	}
	enc.Begin(size)
	if _, err := enc.Encode([]media.View{s.view(size.Bounds())}, 0, media.Quality{Limit: noLimit}); err != nil {
		b.Fatal(err)
	}
	return s, enc
}

// alternate returns the views of two pictures that differ inside rect.
func alternate(s *screen, rect image.Rectangle) [2][]media.View {
	var out [2][]media.View
	for i := range out {
		s.text(rect)
		out[i] = []media.View{s.view(rect)}
	}
	return out
}

func TestEncodeDoesNotAllocate(t *testing.T) {
	long(t)
	s, enc := hd(t)
	for name, rect := range map[string]image.Rectangle{
		"letter": image.Rect(600, 300, 610, 320),
		"window": image.Rect(100, 100, 1060, 900),
	} {
		views := alternate(s, rect)
		i := 0
		run := func() {
			i++
			if p, err := enc.Encode(views[i%2], 1, media.Quality{Limit: noLimit}); err != nil || p == nil {
				t.Fatal(p, err)
			}
		}
		for range 20 { // until buffers and window have their size
			run()
		}
		if allocs := testing.AllocsPerRun(50, run); allocs != 0 {
			t.Errorf("%s: got %v allocations an update, want 0", name, allocs)
		}
	}
	for name, by := range map[string]image.Point{"scroll": {0, -26}, "sideways": {19, 0}, "fill": {}} {
		rect := image.Rect(100, 100, 1060, 900)
		views := [2]media.View{s.view(rect)}
		if s.scroll(rect, by.X, by.Y); by == (image.Point{}) {
			s.paint(rect, 1)
		}
		views[1] = s.view(rect)
		i, moved := 0, 0
		run := func() {
			i++
			p, err := enc.Encode(views[i%2:][:1], 1, media.Quality{Limit: noLimit})
			if err != nil || p == nil {
				t.Fatal(p, err)
			}
			if p.Sections[0].Kind != media.SectionTiles {
				moved++
			}
		}
		for range 80 { // until a search that found nothing is tried again
			run()
		}
		if allocs := testing.AllocsPerRun(50, run); allocs != 0 {
			t.Errorf("%s: got %v allocations an update, want 0", name, allocs)
		}
		if moved < 40 {
			t.Errorf("%s: only %d of %d updates began with copies or fills", name, moved, i)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, tt := range []struct {
		name string
		rect image.Rectangle
	}{
		{"letter", image.Rect(600, 300, 610, 320)},
		{"line", image.Rect(100, 300, 1060, 320)},
		{"window", image.Rect(100, 100, 1060, 900)},
		{"screen", image.Rect(0, 0, 1920, 1080)},
	} {
		for _, changed := range []bool{true, false} {
			b.Run(fmt.Sprintf("%s/changed=%v", tt.name, changed), func(b *testing.B) {
				s, enc := hd(b)
				views := alternate(s, tt.rect)
				if !changed {
					views[0] = views[1]
					if _, err := enc.Encode(views[0], 0, media.Quality{Limit: noLimit}); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportAllocs()
				n, total := 0, 0
				for b.Loop() {
					n++
					p, err := enc.Encode(views[n%2], 0, media.Quality{Limit: noLimit})
					if err != nil {
						b.Fatal(err)
					}
					if p != nil {
						total += p.Bytes()
					}
				}
				b.ReportMetric(float64(total)/float64(n), "B/update")
			})
		}
	}
}
