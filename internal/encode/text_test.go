package encode_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"

	"penstock.dev/penstock/internal/encode"
	"penstock.dev/penstock/internal/media"
	"penstock.dev/penstock/internal/wire/channel"
)

// font is shapes like letters, with blends at their edges; some touch their neighbours.
type font struct {
	widths  []int
	letters [][]byte // how much of the ink each pixel has, 0 to 4, by row of letterHeight
}

const letterHeight = 13

func newFont(letters int) *font {
	rng := rand.New(rand.NewPCG(4, 4))
	f := &font{}
	for range letters {
		w := 3 + rng.IntN(8)
		shape := make([]byte, w*letterHeight)
		x, y := rng.IntN(w), rng.IntN(letterHeight)
		for range 8 + rng.IntN(30) { // a pen that wanders
			shape[y*w+x] = byte(1 + rng.IntN(4))
			x = min(max(x+rng.IntN(3)-1, 0), w-1)
			y = min(max(y+rng.IntN(3)-1, 0), letterHeight-1)
		}
		f.widths = append(f.widths, w)
		f.letters = append(f.letters, shape)
	}
	return f
}

func (s *screen) clear(rect image.Rectangle, colour uint32) {
	rect = rect.Intersect(s.size.Bounds())
	for y := rect.Min.Y; y < rect.Max.Y; y++ {
		for x := rect.Min.X; x < rect.Max.X; x++ {
			binary.LittleEndian.PutUint32(s.pix[(y*s.size.Width+x)*4:], colour|s.rng.Uint32()<<24)
		}
	}
}

// letter draws a letter over what is there and returns its width.
func (s *screen) letter(at image.Point, f *font, n int) int {
	w := f.widths[n]
	for i, ink := range f.letters[n] {
		p := at.Add(image.Pt(i%w, i/w))
		if ink == 0 || !p.In(s.size.Bounds()) {
			continue
		}
		pix := s.pix[(p.Y*s.size.Width+p.X)*4:]
		for c := range 3 {
			pix[c] = byte((int(pix[c])*(4-int(ink)) + 0x20*int(ink)) / 4)
		}
	}
	return w
}

// write fills rect with a page of words.
func (s *screen) write(rect image.Rectangle, f *font) {
	s.clear(rect, 0xf0f0e8)
	for y := rect.Min.Y; y+letterHeight <= rect.Max.Y; y += 17 {
		for x := rect.Min.X; x < rect.Max.X-10; {
			if s.rng.IntN(6) == 0 {
				x += 5
				continue
			}
			x += s.letter(image.Pt(x, y), f, s.rng.IntN(len(f.letters))) + s.rng.IntN(2)
		}
	}
}

// Pages, scrolls, moves, letters, frames and pictures, in views and packets of all sizes: the viewer has the screen exactly.
func TestTextIsExact(t *testing.T) {
	t.Parallel()
	f := newFont(60)
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			size := media.Size{Width: 640 + int(seed)*7, Height: 400 - int(seed)*3}
			s := newScreen(size, seed)
			v := newSession(t, allCodecs, size)
			s.write(size.Bounds(), f)
			for step := range 80 {
				rect := s.randomRect()
				switch s.rng.IntN(9) {
				case 0:
					s.write(rect, f)
				case 1:
					s.write(size.Bounds(), f)
				case 2:
					s.scroll(rect, 0, s.rng.IntN(60)-30)
				case 3:
					s.shift(rect, s.rng.IntN(20)-10, s.rng.IntN(20)-10)
				case 4:
					s.clear(rect, s.rng.Uint32()&0xffffff)
				case 5: // a frame around text
					s.clear(rect, 0x101010)
					s.write(rect.Inset(1+s.rng.IntN(3)), f)
				case 6:
					s.paint(rect.Intersect(image.Rect(0, 0, 150, 100).Add(rect.Min)), 1+s.rng.IntN(600))
				default:
					for range 1 + s.rng.IntN(3) {
						s.letter(image.Pt(s.rng.IntN(size.Width), s.rng.IntN(size.Height)), f, s.rng.IntN(60))
					}
				}
				limit := []int{noLimit, 0, 3000, 20_000}[s.rng.IntN(4)]
				views := []media.View{s.view(size.Bounds())}
				views[0].Prompt = s.rng.IntN(4) == 0
				for more := true; more; views = nil {
					more = v.send(limit, views...)
				}
				if !v.exact(s) {
					t.Fatalf("step %d: the picture differs from the screen", step)
				}
			}
			if v.texts < 40 {
				t.Errorf("got %d text sections", v.texts)
			}
		})
	}
}

// More different glyphs than the dictionary holds: old ones make room, and come again when they are needed.
// Pages that change all the time, of more colours than a palette has, go as text, exactly, and not as video.
func TestColouredTextIsNoVideo(t *testing.T) {
	t.Parallel()
	for _, rate := range []int{60_000, 100_000_000} {
		s := newScreen(media.Size{Width: 900, Height: 640}, 3)
		s.clear(s.size.Bounds(), 0x102030)
		f := newFont(40)
		v := newHybrid(t, s, everyCodec, newCoarse())
		v.quality.BytesPerSecond = rate
		v.send(s.size.Bounds())
		rect := image.Rect(64, 64, 832, 576)
		for range 30 {
			s.write(rect, f)
			for y := rect.Min.Y; y < rect.Max.Y; y++ { // more colours than a palette has
				for x := rect.Min.X; x < rect.Max.X; x++ {
					if pix := s.pix[(y*s.size.Width+x)*4:]; pix[0] != 0xe8 {
						pix[0], pix[1] = pix[0]^byte(x&31), pix[1]^byte(y&31)
					}
				}
			}
			v.send(rect)
			v.now += 16_667
		}
		if v.kinds[channel.SectionVideo]+v.kinds[channel.SectionJPEG] > 0 {
			t.Errorf("%d bytes a second: sections %v", rate, v.kinds)
		}
	}
}

func TestDictionaryTurnsOver(t *testing.T) {
	t.Parallel()
	size := media.Size{Width: 1280, Height: 720}
	s := newScreen(size, 5)
	v := newSession(t, allCodecs, size)
	for page := range 6 {
		s.clear(size.Bounds(), 0xffffff)
		for y := 2; y+10 < size.Height; y += 12 { // 60 × 91 dots of many kinds
			for x := 3; x+10 < size.Width; x += 14 {
				n := uint32(x*y + page*7919)
				for bit := range 24 {
					if n*2654435761>>(bit+4)&1 != 0 {
						s.clear(image.Rect(x+bit%5, y+bit/5, x+bit%5+1, y+bit/5+1), 0x303030)
					}
				}
			}
		}
		for more, views := true, []media.View{s.view(size.Bounds())}; more; views = nil {
			more = v.send(noLimit, views...)
		}
		if !v.exact(s) {
			t.Fatalf("page %d: the picture differs from the screen", page)
		}
	}
}

// A page of text whose letters the viewer knows takes few bytes, and a letter on it hardly any.
func TestKnownTextIsSmall(t *testing.T) {
	t.Parallel()
	size := media.Size{Width: 1280, Height: 720}
	f := newFont(60)
	s := newScreen(size, 6)
	v := newSession(t, allCodecs, size)
	s.write(size.Bounds(), f)
	v.send(noLimit, s.view(size.Bounds()))
	s.write(size.Bounds(), f)
	v.send(noLimit, s.view(size.Bounds()))
	before := v.bytes
	s.write(size.Bounds(), f)
	v.send(noLimit, s.view(size.Bounds()))
	if page := v.bytes - before; page > 40_000 { // some 6,000 random letters, several in a piece now and then
		t.Errorf("a page took %d bytes", page)
	}
	before = v.bytes
	s.letter(image.Pt(400, 300), f, 7)
	v.send(noLimit, s.view(image.Rect(350, 280, 450, 330)))
	if letter := v.bytes - before; letter > 300 {
		t.Errorf("a letter took %d bytes", letter)
	}
	if !v.exact(s) {
		t.Error("the picture differs from the screen")
	}
}

// textMessage is an update of 100 × 70 pixels with one text section.
func textMessage(t testing.TB, seq uint32, flags uint8, z *zstd.Encoder, out *bytes.Buffer, raw []byte) []byte {
	t.Helper()
	out.Reset()
	if _, err := z.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := z.Flush(); err != nil {
		t.Fatal(err)
	}
	h := channel.UpdateHeader{Seq: seq, Epoch: 1, Flags: flags, Width: 100, Height: 70}
	return channel.AppendStream(channel.AppendUpdateHeader(nil, &h, 1), channel.SectionText, len(raw), out.Bytes())
}

// badText is records that no viewer may take. The dictionary has one glyph of 2 × 1 pixels before them.
var badText = map[string][]byte{
	"unknown record":              {9},
	"clear outside":               {1, 90, 0, 0, 0, 11, 0, 5, 0, 1, 2, 3},
	"clear without pixels":        {1, 0, 0, 0, 0, 0, 0, 5, 0, 1, 2, 3},
	"clear that is cut off":       {1, 0, 0},
	"index not in the palette":    {2, 0, 1, 2, 3, 1, 1, 1, 1},
	"glyph without pixels":        {2, 0, 1, 2, 3, 1, 0, 1},
	"glyph that is too wide":      append([]byte{2, 0, 1, 2, 3, 1, 65, 1}, make([]byte, 65)...),
	"glyph with too many pixels":  append([]byte{2, 0, 1, 2, 3, 1, 64, 17}, make([]byte, 64*17)...),
	"glyph that is cut off":       {2, 0, 1, 2, 3, 1, 4, 4, 0},
	"palette that is cut off":     {2, 255, 1, 2, 3},
	"glyph that is not there":     {3, 0, 0, 0, 0, 1, 1, 0, 0, 0},
	"glyph outside at the right":  {3, 99, 0, 0, 0, 1, 0, 0, 0, 0},
	"glyph outside at the bottom": {3, 0, 0, 70, 0, 1, 0, 0, 0, 0},
	"glyph outside at the top":    {3, 0, 0, 0, 0, 1, 0, 0, 0, 255},
	"line that is cut off":        {3, 0, 0, 0, 0, 2, 0, 0, 0, 0},
	"record that is too long":     longRecord(),
}

func longRecord() []byte {
	raw := []byte{2, 0, 1, 2, 3, 13}
	for range 13 {
		raw = append(raw, 32, 30)
	}
	return append(raw, make([]byte, 13*32*30)...)
}

var oneGlyph = []byte{2, 1, 10, 20, 30, 40, 50, 60, 1, 2, 1, 0, 1}

func TestBadText(t *testing.T) {
	t.Parallel()
	for name, raw := range badText {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			z, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
			if err != nil {
				t.Fatal(err)
			}
			dec := encode.NewDecoder()
			defer dec.Close()
			good := append(bytes.Clone(oneGlyph), 3, 98, 0, 69, 0, 1, 0, 0, 0, 0)
			if _, err := dec.Apply(textMessage(t, 1, channel.UpdateNewEpoch, z, &out, good)); err != nil {
				t.Fatal(err)
			}
			if got, want := dec.Picture[len(dec.Picture)-8:], []byte{10, 20, 30, 255, 40, 50, 60, 255}; !bytes.Equal(got, want) {
				t.Errorf("got the glyph %v, want %v", got, want)
			}
			if _, err := dec.Apply(textMessage(t, 2, 0, z, &out, raw)); err == nil {
				t.Error("got no error")
			}
		})
	}
}

// FuzzText draws any records after some that are right.
func FuzzText(f *testing.F) {
	for _, raw := range badText {
		f.Add(raw)
	}
	f.Add(append(bytes.Clone(oneGlyph), 3, 0, 0, 0, 0, 1, 0, 0, 0, 0))
	f.Fuzz(func(_ *testing.T, raw []byte) {
		var g channel.Glyphs
		picture := make([]byte, 100*70*4)
		nothing := func(int, int, int, int) {}
		if g.Draw(oneGlyph, picture, 100, 70, nothing) != nil {
			panic("the first glyph is refused")
		}
		_ = g.Draw(raw, picture, 100, 70, func(x, y, w, h int) {
			if !image.Rect(x, y, x+w, y+h).In(image.Rect(0, 0, 100, 70)) {
				panic("drawn outside")
			}
		})
	})
}

func BenchmarkPage(b *testing.B) {
	size := media.Size{Width: 1280, Height: 720}
	f := newFont(60)
	for _, c := range []struct {
		name   string
		codecs media.Codecs
	}{{"text", allCodecs}, {"tiles", noText}} {
		b.Run(c.name, func(b *testing.B) {
			s := newScreen(size, 6)
			enc, err := encode.NewTiles(c.codecs, encode.Options{})
			if err != nil {
				b.Fatal(err)
			}
			enc.Begin(size)
			var pages [8]media.View
			for i := range pages {
				s.write(size.Bounds(), f)
				pages[i] = s.view(size.Bounds())
			}
			sent, n := 0, 0
			for i := range 2 * len(pages) {
				if _, err := enc.Encode(pages[i%len(pages):][:1], 0, media.Quality{Limit: noLimit}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				p, err := enc.Encode(pages[n%len(pages):][:1], 0, media.Quality{Limit: noLimit})
				if err != nil {
					b.Fatal(err)
				}
				sent += p.Bytes()
				n++
			}
			b.ReportMetric(float64(sent)/float64(n), "B/page")
		})
	}
}
