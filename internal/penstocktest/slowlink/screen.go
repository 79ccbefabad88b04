package slowlink

import (
	"encoding/binary"
	"errors"
	"image"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"penstock.dev/penstock/internal/media"
)

// The places of the screen.
var (
	bounds = image.Rect(0, 0, 1280, 720)
	// letter is what a key changes.
	letter = image.Rect(16, 16, 40, 40)
	// film is where the film plays.
	film = image.Rect(320, 160, 960, 520)
	// page is what PlayPages changes.
	page = image.Rect(64, 64, 1280, 720)
	// smallPage is what it changes when asked for less.
	smallPage = image.Rect(64, 64, 464, 364)
)

// Screen is a display in memory whose application answers a key at once with a letter in another colour.
type Screen struct {
	damaged chan struct{}
	never   chan struct{}

	mu       sync.Mutex // guards what follows
	pix      []byte     // B, G, R, 0
	region   media.Region
	captures int
	views    []media.View
	buf      []byte
	clusters []image.Rectangle
	keys     int
	frame    uint32
	drawn    map[uint32]time.Time // when each frame of the film was drawn
}

func newScreen() *Screen {
	s := &Screen{damaged: make(chan struct{}, 1), never: make(chan struct{}), drawn: map[uint32]time.Time{}}
	s.pix = make([]byte, bounds.Dx()*bounds.Dy()*4)
	for i := range s.pix {
		s.pix[i] = 0xff
	}
	s.region.Add(bounds)
	s.damaged <- struct{}{}
	return s
}

func (s *Screen) add(r image.Rectangle) {
	s.region.Add(r)
	select {
	case s.damaged <- struct{}{}:
	default:
	}
}

func (s *Screen) fill(r image.Rectangle, colour uint32) {
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			binary.LittleEndian.PutUint32(s.pix[(y*bounds.Dx()+x)*4:], colour)
		}
	}
}

// copyFrom takes a rectangle of a picture, panned by offset.
func (s *Screen) copyFrom(picture []byte, r image.Rectangle, offset int) {
	for y := r.Min.Y; y < r.Max.Y; y++ {
		from := (y%bounds.Dy()*bounds.Dx() + offset%(bounds.Dx()-r.Dx()+1)) * 4
		copy(s.pix[(y*bounds.Dx()+r.Min.X)*4:(y*bounds.Dx()+r.Max.X)*4], picture[from:])
	}
}

// photo is a picture with smooth areas, edges and grain, as a camera makes them. Two with the same seed differ in
// their grain.
func photo(seed, grain uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	a, b := 0.004+rng.Float64()*0.01, 0.003+rng.Float64()*0.01
	rng = rand.New(rand.NewPCG(seed, grain))
	var noise [1 << 12]int8
	for i := range noise {
		noise[i] = int8(max(-20, min(20, rng.NormFloat64()*3)))
	}
	pix := make([]byte, bounds.Dx()*bounds.Dy()*4)
	for y := range bounds.Dy() {
		for x := range bounds.Dx() {
			v := 120 + 60*math.Sin(a*float64(x)) + 50*math.Cos(b*float64(y)+a*float64(x))
			if (x/90+y/70)%5 == 0 {
				v += 30
			}
			at := (y*bounds.Dx() + x) * 4
			bits := rng.Uint64()
			for c := range 3 {
				grain := float64(noise[bits>>(12*c)%uint64(len(noise))])
				pix[at+c] = byte(max(0, min(255, v+float64(c*12)+grain)))
			}
		}
	}
	return pix
}

// Still ends what plays.
type Still func()

// PlayFilm draws 30 frames a second until Still. Each has its number in two corners.
func (s *Screen) PlayFilm() Still {
	var pictures [4][]byte
	for i := range pictures {
		pictures[i] = photo(1, uint64(i))
	}
	return s.play(time.Second/30, func() {
		s.frame++
		s.drawn[s.frame] = time.Now()
		s.copyFrom(pictures[s.frame%uint32(len(pictures))], film, int(s.frame*3))
		for _, r := range marks() {
			s.fill(r, s.frame)
		}
		s.add(film)
	})
}

// marks are the corners of the film with the frame's number.
func marks() [2]image.Rectangle {
	return [2]image.Rectangle{
		{Min: film.Min, Max: film.Min.Add(image.Pt(16, 16))}, {Min: film.Max.Sub(image.Pt(16, 16)), Max: film.Max},
	}
}

// PlayPages turns to another photograph now and then, on most of the screen or on an eighth of it.
func (s *Screen) PlayPages(every time.Duration, small bool) Still {
	page := page
	if small {
		page = smallPage
	}
	pictures := [][]byte{photo(2, 1), photo(3, 1)}
	n := 0
	return s.play(every, func() {
		n++
		s.copyFrom(pictures[n%2], page, 0)
		s.add(page)
	})
}

// play calls draw at once and then every so often.
func (s *Screen) play(every time.Duration, draw func()) Still {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			s.mu.Lock()
			draw()
			s.mu.Unlock()
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	return func() { close(stop); <-done }
}

// colourOf is the letter's colour after n keys.
func colourOf(n int) uint32 {
	return [...]uint32{0xd02020, 0x20a040, 0x2040d0, 0xd0a020, 0x20a0c0, 0xa020c0}[n%6]
}

// Inject answers a key.
func (s *Screen) Inject(e media.Event) error {
	if k, ok := e.(media.Key); !ok || !k.Down {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys++
	s.fill(letter, colourOf(s.keys))
	s.add(letter)
	return nil
}

// Shows reports whether a viewer's picture (R, G, B, A) is what is on the screen.
func (s *Screen) Shows(picture []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(picture) != len(s.pix) {
		return false
	}
	for i := 0; i < len(picture); i += 4 {
		if p, q := picture[i:i+4], s.pix[i:i+4]; p[0] != q[2] || p[1] != q[1] || p[2] != q[0] {
			return false
		}
	}
	return true
}

// Captures is how often the screen was captured.
func (s *Screen) Captures() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.captures
}

// age is how long ago the frame was drawn.
func (s *Screen) age(frame uint32) (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.drawn[frame]
	return time.Since(at), ok
}

// Size is fixed.
func (s *Screen) Size() media.Size { return media.Size{Width: bounds.Dx(), Height: bounds.Dy()} }

// MaxSize is Size.
func (s *Screen) MaxSize() media.Size { return s.Size() }

// Arrange does nothing.
func (s *Screen) Arrange(media.Layout) error { return nil }

// Damaged holds a token when something was drawn.
func (s *Screen) Damaged() <-chan struct{} { return s.damaged }

// TakeDamage adds what was drawn since the last call.
func (s *Screen) TakeDamage(r *media.Region) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.AddRegion(&s.region)
	s.region.Reset()
	return nil
}

// Capture copies the region.
func (s *Screen) Capture(r *media.Region, size media.Size) ([]media.View, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.captures++
	s.clusters = r.Clusters(s.clusters[:0], size.Bounds())
	total := 0
	for _, c := range s.clusters {
		total += c.Dx() * c.Dy() * 4
	}
	if cap(s.buf) < total {
		s.buf = make([]byte, total)
	}
	s.views = s.views[:0]
	at := 0
	for _, c := range s.clusters {
		n := c.Dx() * 4
		start := at
		for y := c.Min.Y; y < c.Max.Y; y++ {
			copy(s.buf[at:at+n], s.pix[(y*bounds.Dx()+c.Min.X)*4:])
			at += n
		}
		s.views = append(s.views, media.View{Rect: c, Pix: s.buf[start:at:at]})
	}
	return s.views, nil
}

// CursorChanged never holds a token.
func (s *Screen) CursorChanged() <-chan struct{} { return s.never }

// Cursor is none.
func (s *Screen) Cursor() (media.Cursor, error) { return media.Cursor{}, errors.New("no cursor") }

// Done is never closed.
func (s *Screen) Done() <-chan struct{} { return s.never }
