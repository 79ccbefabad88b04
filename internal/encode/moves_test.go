package encode_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"testing"

	"penstock.dev/penstock/internal/encode"
	"penstock.dev/penstock/internal/media"
	"penstock.dev/penstock/internal/wire/channel"
)

// shift moves the pixels of rect, as a scrolling application does.
func (s *screen) shift(rect image.Rectangle, dx, dy int) {
	before := bytes.Clone(s.pix)
	to := rect.Add(image.Pt(dx, dy)).Intersect(s.size.Bounds())
	for y := to.Min.Y; y < to.Max.Y; y++ {
		from := ((y-dy)*s.size.Width + to.Min.X - dx) * 4
		copy(s.pix[(y*s.size.Width+to.Min.X)*4:][:to.Dx()*4], before[from:])
	}
}

// scroll moves the content of rect within rect and writes text where it came from nowhere.
func (s *screen) scroll(rect image.Rectangle, dx, dy int) {
	inner := rect.Intersect(rect.Sub(image.Pt(dx, dy)))
	if inner.Empty() {
		s.text(rect)
		return
	}
	s.shift(inner, dx, dy)
	to := inner.Add(image.Pt(dx, dy))
	for _, r := range []image.Rectangle{
		image.Rect(rect.Min.X, rect.Min.Y, rect.Max.X, to.Min.Y), image.Rect(rect.Min.X, to.Max.Y, rect.Max.X, rect.Max.Y),
		image.Rect(rect.Min.X, rect.Min.Y, to.Min.X, rect.Max.Y), image.Rect(to.Max.X, rect.Min.Y, rect.Max.X, rect.Max.Y),
	} {
		s.text(r)
	}
}

// session is an encoder and the viewer that follows it.
type session struct {
	t     testing.TB
	enc   *encode.Tiles
	dec   *encode.Decoder
	seq   uint32
	spoil func(message []byte) []byte // on the way; nil for nothing

	copies, fills, texts, bytes int
}

func newSession(t testing.TB, codecs media.Codecs, size media.Size) *session {
	t.Helper()
	enc, err := encode.NewTiles(codecs, encode.Options{})
	if err != nil {
		t.Fatal(err)
	}
	enc.Begin(size)
	v := &session{t: t, enc: enc, dec: encode.NewDecoder()}
	t.Cleanup(v.dec.Close)
	return v
}

// send encodes and applies one update and reports whether there is more.
func (v *session) send(limit int, views ...media.View) bool {
	v.t.Helper()
	p, err := v.enc.Encode(views, 0, media.Quality{Limit: limit})
	if err != nil {
		v.t.Fatal(err)
	}
	if p == nil {
		return false
	}
	v.seq++
	b := message(p, v.seq)
	if v.spoil != nil {
		b = v.spoil(b)
	}
	v.bytes += len(b)
	u, err := v.dec.Apply(b)
	if err != nil {
		v.t.Fatal(err)
	}
	for _, s := range u.Sections {
		v.copies += len(s.Copies)
		v.fills += len(s.Fills)
		if s.Kind == channel.SectionText {
			v.texts++
		}
	}
	return p.More
}

func (v *session) exact(s *screen) bool { return bytes.Equal(s.rgba(), v.dec.Picture) }

// Whatever scrolls, moves and changes at once, and however the link cuts it in parts, the viewer's picture is
// the source's, exactly.
func TestMovesAreExact(t *testing.T) {
	t.Parallel()
	for _, size := range []media.Size{{Width: 640, Height: 480}, {Width: 333, Height: 251}, {Width: 64, Height: 700}, {Width: 900, Height: 65}} {
		t.Run(size.String(), func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(4) {
				s := newScreen(size, seed)
				s.text(size.Bounds())
				v := newSession(t, allCodecs, size)
				views := []media.View{s.view(size.Bounds())}
				for step := range 80 / raceShare {
					limit := []int{noLimit, 0, 5000}[s.rng.IntN(3)]
					more := v.send(limit, views...)
					// Sometimes the rest waits while the picture goes on changing.
					if limit == noLimit || s.rng.IntN(2) == 0 || step%10 == 9 {
						for more {
							more = v.send(limit)
						}
						if !v.exact(s) {
							t.Fatalf("seed %d step %d: the pictures differ", seed, step)
						}
					}
					var damage media.Region
					for range 1 + s.rng.IntN(3) {
						rect := s.randomRect()
						dx, dy := s.rng.IntN(81)-40, s.rng.IntN(81)-40
						switch s.rng.IntN(6) {
						case 0, 1:
							s.scroll(rect, 0, dy)
						case 2:
							s.scroll(rect, dx, 0)
						case 3: // a window over others
							s.shift(rect, dx, dy)
							damage.Add(rect.Add(image.Pt(dx, dy)))
						case 4: // another window comes in front
							s.paint(rect, 1+s.rng.IntN(20))
						case 5:
							s.text(rect)
						}
						damage.Add(rect)
					}
					views = views[:0]
					for _, r := range damage.Clusters(nil, size.Bounds()) {
						views = append(views, s.view(r))
					}
					if s.rng.IntN(3) == 0 && len(views) > 0 { // views that overlap
						views = append(views, s.view(s.randomRect()))
					}
					if s.rng.IntN(20) == 0 {
						v.enc.Begin(size)
						views = []media.View{s.view(size.Bounds())}
					}
				}
				if v.copies == 0 && size.Height > 100 && size.Width > 100 {
					t.Errorf("seed %d: nothing was copied", seed)
				}
			}
		})
	}
}

// A page of text that moved is explained by copies alone but for what is new.
func TestMovesAreFound(t *testing.T) {
	t.Parallel()
	size := media.Size{Width: 1000, Height: 800}
	page := image.Rect(150, 70, 950, 730)
	for _, tt := range []struct {
		name string
		draw func(s *screen)
		most float64 // bytes against those without copies
	}{
		{"up", func(s *screen) { s.scroll(page, 0, -13) }, 0.15},
		{"down", func(s *screen) { s.scroll(page, 0, 39) }, 0.2},
		{"far", func(s *screen) { s.scroll(page, 0, -400) }, 0.7},
		{"left", func(s *screen) { s.scroll(page, -17, 0) }, 0.35},
		{"right", func(s *screen) { s.scroll(page, 60, 0) }, 0.35},
		{"window", func(s *screen) {
			r := image.Rect(200, 200, 600, 500)
			s.shift(r, 31, -22)
			s.text(image.Rect(200, 478, 600, 500))
			s.text(image.Rect(200, 200, 231, 500))
		}, 0.35},
		{"two columns", func(s *screen) {
			s.scroll(image.Rect(150, 70, 500, 730), 0, -13)
			s.scroll(image.Rect(520, 70, 950, 730), 0, 26)
		}, 0.35},
		{"around a line that changes", func(s *screen) {
			s.scroll(page, 0, 120)
			s.text(image.Rect(150, 380, 950, 384))
		}, 0.35},
		{"with a first column that ends earlier", func(s *screen) {
			s.scroll(image.Rect(0, 3, 903, 783), 0, -15)
			s.text(image.Rect(5, 740, 15, 750))
		}, 0.15},
		{"beside a bar that differs", func(s *screen) {
			s.scroll(page, 0, -26)
			s.text(image.Rect(935, 70, 950, 730))
		}, 0.35},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			with, without, copies := 0, 0, 0
			for _, codecs := range []media.Codecs{allCodecs, media.CodecTiles} {
				s := newScreen(size, 9)
				s.text(size.Bounds())
				v := newSession(t, codecs, size)
				v.send(noLimit, s.view(size.Bounds()))
				v.bytes = 0
				tt.draw(s)
				v.send(noLimit, s.view(size.Bounds()))
				if !v.exact(s) {
					t.Fatal("the pictures differ")
				}
				if codecs == media.CodecTiles {
					without = v.bytes
					if v.copies+v.fills > 0 {
						t.Error("got sections that the viewer did not offer")
					}
				} else if with, copies = v.bytes, v.copies; copies == 0 {
					t.Error("nothing was copied")
				}
			}
			t.Logf("%d bytes in %d copies and tiles, %d without copies", with, copies, without)
			if share := float64(with) / float64(without); share > tt.most {
				t.Errorf("got %.2f of the bytes without copies, want at most %.2f", share, tt.most)
			}
		})
	}
}

// The comparison of pictures catches copies and fills that are wrong by a pixel or missing.
func TestWrongMoveIsSeen(t *testing.T) {
	t.Parallel()
	size := media.Size{Width: 700, Height: 500}
	u16 := func(b []byte, at, by int) {
		binary.LittleEndian.PutUint16(b[at:], uint16(int(binary.LittleEndian.Uint16(b[at:]))+by))
	}
	const body = 23 + 5 // header of the update, kind and length of the section
	for _, tt := range []struct {
		name  string
		kind  byte
		spoil func(b []byte) []byte
	}{
		{"nothing", 0, func(b []byte) []byte { return b }},
		{"source is a row off", 1, func(b []byte) []byte { u16(b, body+4, -1); return b }},
		{"destination is a column off", 1, func(b []byte) []byte { u16(b, body+6, 1); u16(b, body+10, -1); return b }},
		{"the first row is missing", 1, func(b []byte) []byte {
			u16(b, body+4, 1)
			u16(b, body+8, 1)
			u16(b, body+12, -1)
			return b
		}},
		{"no copy", 1, func(b []byte) []byte { u16(b, body, -1); return b }},
		{"fill is too small", 2, func(b []byte) []byte { u16(b, body+6, -1); return b }},
		{"another colour", 2, func(b []byte) []byte { b[body+10] ^= 1; return b }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newScreen(size, 4)
			s.text(size.Bounds())
			v := newSession(t, noText, size)
			v.send(noLimit, s.view(size.Bounds()))
			spoiled := false
			v.spoil = func(b []byte) []byte {
				if tt.kind != 0 && b[23] != tt.kind {
					t.Fatalf("the first section is of kind %d", b[23])
				}
				spoiled = true
				return tt.spoil(b)
			}
			if tt.kind == 2 {
				s.paint(size.Bounds(), 1)
			} else {
				s.scroll(size.Bounds(), 0, -16)
			}
			v.send(noLimit, s.view(size.Bounds()))
			if got, want := v.exact(s), tt.kind == 0; !spoiled || got != want {
				t.Errorf("got equal pictures %v, want %v", got, want)
			}
		})
	}
}

// What a slow link has not carried yet is not copied as if the viewer had it.
func TestScrollOfWhatWaits(t *testing.T) {
	long(t)
	t.Parallel()
	size := media.Size{Width: 800, Height: 600}
	s := newScreen(size, 5)
	s.text(size.Bounds())
	v := newSession(t, allCodecs, size)
	v.send(1000, s.view(size.Bounds()))
	for i := range 200 {
		s.scroll(size.Bounds(), 0, -13)
		v.send(40_000, s.view(size.Bounds()))
		if i == 100 && v.copies == 0 {
			t.Error("nothing was copied while something waited")
		}
	}
	if !v.exact(s) {
		t.Log("the link never caught up")
	}
	for v.send(noLimit) {
	}
	if !v.exact(s) {
		t.Error("the pictures differ")
	}
}

func TestFills(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		size  media.Size
		areas []image.Rectangle // of one colour each
	}{
		{media.Size{Width: 1920, Height: 1080}, []image.Rectangle{image.Rect(0, 0, 1920, 1080)}},
		{media.Size{Width: 65, Height: 600}, []image.Rectangle{image.Rect(0, 0, 65, 600)}},
		{media.Size{Width: 800, Height: 600}, []image.Rectangle{image.Rect(0, 0, 384, 600), image.Rect(384, 0, 800, 600)}},
		{media.Size{Width: 800, Height: 600}, []image.Rectangle{image.Rect(0, 0, 800, 128), image.Rect(0, 128, 800, 600)}},
	} {
		s := newScreen(tt.size, 6)
		v := newSession(t, noText, tt.size)
		s.text(tt.size.Bounds())
		v.send(noLimit, s.view(tt.size.Bounds()))
		middle := image.Rect(tt.size.Width/2, tt.size.Height/2, tt.size.Width/2+3, tt.size.Height/2+3)
		s.text(middle) // the next update begins behind it
		v.send(noLimit, s.view(middle))
		v.bytes, v.fills = 0, 0
		for _, r := range tt.areas {
			s.paint(r, 1)
		}
		v.send(noLimit, s.view(tt.size.Bounds()))
		if n := len(tt.areas); !v.exact(s) || v.fills != n || v.bytes != 23+5+2+11*n {
			t.Errorf("%v: got %d fills in %d bytes, exact %v; want %d", tt.areas, v.fills, v.bytes, v.exact(s), n)
		}
	}
}

// Views that were captured one after the other may show the same place differently: the last one counts.
func TestOverlappingViews(t *testing.T) {
	t.Parallel()
	size := media.Size{Width: 400, Height: 300}
	for _, codecs := range []media.Codecs{allCodecs, media.CodecTiles} {
		s := newScreen(size, 2)
		s.text(size.Bounds())
		v := newSession(t, codecs, size)
		v.send(noLimit, s.view(size.Bounds()))
		before := bytes.Clone(s.pix)
		s.scroll(size.Bounds(), 0, -20)
		first := s.view(image.Rect(0, 0, 300, 300))
		copy(s.pix, before) // drawn back before the second capture
		second := s.view(image.Rect(100, 0, 400, 300))
		s.pix = bytes.Clone(s.pix)
		for y := range 300 { // what only the first view shows
			copy(s.pix[y*400*4:][:100*4], first.Pix[y*300*4:])
		}
		for v.send(noLimit, first, second) {
		}
		if !v.exact(s) {
			t.Errorf("codecs %b: the picture is not that of the last views", codecs)
		}
	}
}

// Arbitrary sequences of drawing, scrolling and captures in parts: the pictures are equal in the end.
func FuzzMoves(f *testing.F) {
	f.Add(uint64(1), []byte{0, 10, 10, 200, 100, 240, 1, 0, 0, 255, 255, 13, 2, 30, 30, 90, 90, 7, 3, 30, 30, 90, 90, 7})
	f.Add(uint64(2), []byte("scroll up, scroll down, drag it over there, and then draw a little on top of it"))
	f.Fuzz(func(t *testing.T, seed uint64, moves []byte) {
		size := media.Size{Width: 256 + int(seed%64), Height: 256}
		s := newScreen(size, seed)
		s.text(size.Bounds())
		v := newSession(t, allCodecs, size)
		v.send(noLimit, s.view(size.Bounds()))
		for ; len(moves) >= 6; moves = moves[6:] {
			m := moves
			rect := image.Rect(int(m[1]), int(m[2]), int(m[3])+1, int(m[4])+1).Intersect(size.Bounds())
			if rect.Empty() {
				continue
			}
			by := int(int8(m[5]))
			damage := rect
			switch m[0] % 4 {
			case 0:
				s.scroll(rect, 0, by%rect.Dy())
			case 1:
				s.scroll(rect, by%rect.Dx(), 0)
			case 2:
				s.shift(rect, by, by/2)
				damage = rect.Union(rect.Add(image.Pt(by, by/2)))
			case 3:
				s.paint(rect, 1+int(m[5]))
			}
			v.send([]int{noLimit, 0, 9000}[m[0]/4%3], s.view(damage.Intersect(size.Bounds())))
		}
		for v.send(noLimit) {
		}
		if !v.exact(s) {
			t.Error("the pictures differ")
		}
	})
}

// document is a tall picture of which a window shows a part: its views need no copying.
type document struct {
	*screen
	window image.Rectangle // on the screen
}

func (d *document) view(top int) media.View {
	n := d.window.Dx() * 4
	return media.View{Rect: d.window, Pix: d.pix[top*n : (top+d.window.Dy())*n]}
}

// BenchmarkScroll is a terminal that fills its window and an editor with bars that do not scroll, with and
// without copies.
func BenchmarkScroll(b *testing.B) {
	const steps = 100
	size := media.Size{Width: 1920, Height: 1080}
	for _, tt := range []struct {
		name   string
		window image.Rectangle
		lines  int // rows of pixels a step
	}{
		{"terminal", image.Rect(2, 20, 1918, 1076), 13},
		{"editor", image.Rect(60, 90, 1890, 1040), 57},
	} {
		d := document{newScreen(media.Size{Width: tt.window.Dx(), Height: tt.window.Dy() + steps*tt.lines}, 12), tt.window}
		clear(d.pix) // the byte without a meaning is mostly 0
		d.text(d.size.Bounds())
		for _, codecs := range []media.Codecs{allCodecs, media.CodecTiles} {
			b.Run(fmt.Sprintf("%s/copy=%v", tt.name, codecs&media.CodecCopy != 0), func(b *testing.B) {
				enc, err := encode.NewTiles(codecs, encode.Options{})
				if err != nil {
					b.Fatal(err)
				}
				views := make([]media.View, 1)
				show := func(top int) int {
					views[0] = d.view(top)
					packet, err := enc.Encode(views, 0, media.Quality{Limit: noLimit})
					if err != nil || packet == nil {
						b.Fatal(packet, err)
					}
					return packet.Bytes()
				}
				n, total := 0, 0
				b.ReportAllocs()
				for b.Loop() {
					if n%steps == 0 { // from the top, where nothing is known yet
						b.StopTimer()
						enc.Begin(size)
						show(0)
						show(tt.lines)
						show(0)
						b.StartTimer()
					}
					total += show((n%steps + 1) * tt.lines)
					n++
				}
				b.ReportMetric(float64(total)/float64(n), "B/update")
			})
		}
	}
}
