package encode_test

import (
	"bytes"
	"image"
	"testing"

	"penstock.dev/penstock/internal/encode"
	"penstock.dev/penstock/internal/media"
)

// A packet has about as many bytes as its limit says, whatever the content: neither a tenth of it, because a page
// of text compresses well, nor more than a tile beyond it.
func TestPacketsFillTheirLimit(t *testing.T) {
	long(t)
	t.Parallel()
	size := media.Size{Width: 1280, Height: 1024}
	for name, paint := range map[string]func(*screen){
		"text":  func(s *screen) { s.text(size.Bounds()) },
		"noise": func(s *screen) { s.paint(size.Bounds(), 5000) },
		"noise below text": func(s *screen) {
			s.text(size.Bounds())
			s.paint(image.Rect(0, 500, size.Width, size.Height), 5000)
		},
	} {
		for _, limit := range []int{6_000, 50_000} {
			s := newScreen(size, 5)
			paint(s)
			enc, err := encode.NewTiles(allCodecs, encode.Options{})
			if err != nil {
				t.Fatal(err)
			}
			dec := encode.NewDecoder()
			enc.Begin(size)
			views := []media.View{s.view(size.Bounds())}
			for seq := uint32(1); ; seq++ {
				p, err := enc.Encode(views, 1, media.Quality{Limit: limit})
				if err != nil || p == nil {
					t.Fatalf("%s: got %v, %v", name, p, err)
				}
				views = nil
				if _, err := dec.Apply(message(p, seq)); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				const tile = 64 * 64 * 3
				if n := p.Bytes(); n > 2*limit+tile || p.More && n < limit/2 {
					t.Errorf("%s: packet %d has %d bytes, its limit is %d", name, seq, n, limit)
				}
				if !p.More {
					break
				}
			}
			if !bytes.Equal(s.rgba(), dec.Picture) {
				t.Errorf("%s, limit %d: the pictures differ", name, limit)
			}
			dec.Close()
		}
	}
}

// What somebody waits for goes before a page that has waited longer, and takes nothing of it along when it fills
// the limit by itself.
func TestPromptViewsGoFirst(t *testing.T) {
	t.Parallel()
	size := media.Size{Width: 1280, Height: 1024}
	s := newScreen(size, 6)
	enc, err := encode.NewTiles(allCodecs, encode.Options{})
	if err != nil {
		t.Fatal(err)
	}
	dec := encode.NewDecoder()
	defer dec.Close()
	enc.Begin(size)
	seq := uint32(0)
	send := func(views []media.View, limit int) *media.Packet {
		t.Helper()
		p, err := enc.Encode(views, 1, media.Quality{Limit: limit})
		if err != nil || p == nil {
			t.Fatalf("got %v, %v", p, err)
		}
		seq++
		if _, err := dec.Apply(message(p, seq)); err != nil {
			t.Fatal(err)
		}
		return p
	}
	s.paint(size.Bounds(), 5000)
	if p := send([]media.View{s.view(size.Bounds())}, 20_000); !p.More {
		t.Fatal("a screen of noise went in 20,000 bytes")
	}
	for _, at := range []image.Point{{1200, 1000}, {10, 10}, {600, 490}, {1000, 40}} {
		letter := image.Rectangle{Min: at, Max: at.Add(image.Pt(9, 15))}
		s.paint(letter, 2)
		v := s.view(letter)
		v.Prompt = true
		p := send([]media.View{v}, 50_000) // there is room, but it would wait for what fills it
		if !p.More {
			t.Fatal("everything was sent")
		}
		want := s.rgba()
		for y := letter.Min.Y; y < letter.Max.Y; y++ {
			from, to := (y*size.Width+letter.Min.X)*4, (y*size.Width+letter.Max.X)*4
			if !bytes.Equal(want[from:to], dec.Picture[from:to]) {
				t.Fatalf("letter at %v was not sent at once", at)
			}
		}
		if n := p.Bytes(); n > 13_000 {
			t.Errorf("the letter took %d bytes, want those of its tile", n)
		}
	}
	for send(nil, 100_000).More {
	}
	if !bytes.Equal(s.rgba(), dec.Picture) {
		t.Error("the pictures differ at the end")
	}
}

// long leaves a test to runs without the race detector: an encoder belongs to one goroutine, and takes ten times as long with it.
func long(t *testing.T) {
	t.Helper()
	if raceEnabled {
		t.Skip("one goroutine alone; runs without the race detector (make e2e)")
	}
}
