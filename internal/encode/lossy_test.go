package encode_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"penstock.dev/penstock/internal/encode"
	"penstock.dev/penstock/internal/media"
	"penstock.dev/penstock/internal/video"
	"penstock.dev/penstock/internal/wire/channel"
)

const everyCodec = allCodecs | media.CodecJPEG | media.CodecH264 | media.CodecVP8

// coarse is a lossy codec that needs no library: five or six bits of each colour, each frame as its difference to
// the one before. Its decoder notices when one is missing or is not what the stream began with.
type coarse struct {
	codecs    []video.Codec
	failAfter int // frames until every encoder fails; 0: never
	noJPEG    bool
	made      int
	frames    int
	open      int
}

func (c *coarse) Codecs() []video.Codec { return c.codecs }

func (c *coarse) NewEncoder(cfg video.Config) (video.Encoder, error) {
	if cfg.Width < video.MinEdge || cfg.Height < video.MinEdge || cfg.Width > video.MaxWidth || cfg.Height > video.MaxHeight {
		return nil, fmt.Errorf("picture is %dx%d", cfg.Width, cfg.Height)
	}
	c.made++
	c.open++
	return &coarseEncoder{c: c, cfg: cfg}, nil
}

func (c *coarse) AppendJPEG(dst []byte, img video.Image, quality int, _ bool) ([]byte, error) {
	if c.noJPEG {
		return dst, errors.New("no JPEG today")
	}
	picture := image.NewRGBA(image.Rect(0, 0, img.Width, img.Height))
	for y := range img.Height {
		for x := range img.Width {
			p := img.Pix[y*img.Stride+4*x:]
			copy(picture.Pix[y*picture.Stride+4*x:], []byte{p[2], p[1], p[0], 0xff})
		}
	}
	var out bytes.Buffer
	if err := jpeg.Encode(&out, picture, &jpeg.Options{Quality: quality}); err != nil {
		return dst, err
	}
	return append(dst, out.Bytes()...), nil
}

type coarseEncoder struct {
	c      *coarse
	cfg    video.Config
	last   []uint16
	number uint32
	closed bool
}

func (e *coarseEncoder) Encode(dst []byte, img video.Image, qp int, key bool) ([]byte, bool, error) {
	switch e.c.frames++; {
	case e.closed:
		return dst, false, video.ErrClosed
	case e.c.failAfter > 0 && e.c.frames > e.c.failAfter:
		return dst, false, errors.New("library fails")
	case img.Width != e.cfg.Width || img.Height != e.cfg.Height || qp < 0 || qp > video.MaxQP:
		return dst, false, fmt.Errorf("frame of %d×%d with QP %d for %+v", img.Width, img.Height, qp, e.cfg)
	}
	w, h := video.CodedSize(img.Width, img.Height)
	if key = key || e.last == nil; key {
		e.last, e.number = make([]uint16, w*h), 0
	}
	e.number++
	dst = append(dst, 0xc0)
	if key {
		dst[len(dst)-1] = 0xc1
	}
	dst = binary.LittleEndian.AppendUint32(dst, e.number)
	for y := range h {
		for x := range w {
			p := img.Pix[min(y, img.Height-1)*img.Stride+4*min(x, img.Width-1):]
			v := uint16(p[2]>>3)<<11 | uint16(p[1]>>2)<<5 | uint16(p[0]>>3)
			dst = binary.LittleEndian.AppendUint16(dst, v^e.last[y*w+x])
			e.last[y*w+x] = v
		}
	}
	return dst, key, nil
}

func (e *coarseEncoder) Close() error {
	if !e.closed {
		e.closed = true
		e.c.open--
	}
	return nil
}

type coarseDecoder struct {
	last   []uint16
	pix    []byte
	number uint32
}

func newCoarseDecoder(_ uint8, width, height int) (encode.VideoDecoder, error) {
	return &coarseDecoder{last: make([]uint16, width*height), pix: make([]byte, 4*width*height)}, nil
}

func (d *coarseDecoder) Decode(unit []byte) ([]byte, error) {
	if len(unit) != 5+2*len(d.last) {
		return nil, fmt.Errorf("unit of %d bytes", len(unit))
	}
	d.number++
	if n := binary.LittleEndian.Uint32(unit[1:]); n != d.number || (unit[0] == 0xc1) != (n == 1) {
		return nil, fmt.Errorf("frame %d (%x) comes as frame %d", n, unit[0], d.number)
	}
	for i := range d.last {
		d.last[i] ^= binary.LittleEndian.Uint16(unit[5+2*i:])
		v := d.last[i]
		copy(d.pix[4*i:], []byte{byte(v>>11<<3 | 4), byte(v>>5<<2 | 2), byte(v<<3 | 4), 0xff})
	}
	return d.pix, nil
}

func (d *coarseDecoder) Close() {}

// hybrid is an encoder with all codecs, the viewer that follows it, and their clock.
type hybrid struct {
	t       *testing.T
	s       *screen
	codecs  media.Codecs
	lossy   *coarse
	enc     *encode.Tiles
	dec     *encode.Decoder
	seq     uint32
	now     uint64 // µs
	quality media.Quality
	log     bytes.Buffer

	// Of all updates.
	kinds    map[channel.SectionKind]int
	keys     int
	ends     int
	bytes    int
	lossless bool // the last packet said so
	jpegs    []image.Rectangle
}

func newHybrid(t *testing.T, s *screen, codecs media.Codecs, lossy *coarse) *hybrid {
	t.Helper()
	v := &hybrid{
		t: t, s: s, codecs: codecs, lossy: lossy, dec: encode.NewDecoder(), now: 1_000_000,
		quality: media.Quality{Limit: noLimit, BytesPerSecond: 100_000_000}, kinds: map[channel.SectionKind]int{},
	}
	o := encode.Options{Log: slog.New(slog.NewTextHandler(&v.log, nil))}
	if lossy != nil {
		o.Lossy = lossy
	}
	var err error
	if v.enc, err = encode.NewTiles(codecs, o); err != nil {
		t.Fatal(err)
	}
	v.dec.NewVideo = newCoarseDecoder
	t.Cleanup(v.dec.Close)
	v.enc.Begin(s.size)
	return v
}

func newCoarse() *coarse { return &coarse{codecs: []video.Codec{video.H264, video.VP8}} }

// send encodes the present pixels of the rectangles and has the viewer apply the update; false when there is none.
func (v *hybrid) send(rects ...image.Rectangle) (more, sent bool) {
	v.t.Helper()
	views := make([]media.View, 0, len(rects))
	for _, r := range rects {
		views = append(views, v.s.view(r))
	}
	p, err := v.enc.Encode(views, v.now, v.quality)
	if err != nil {
		v.t.Fatal(err)
	}
	if p == nil {
		return false, false
	}
	v.seq++
	b := message(p, v.seq)
	v.bytes += len(b)
	v.lossless = p.Lossless
	v.limits(p)
	u, err := v.dec.Apply(b)
	if err != nil {
		v.t.Fatal(err)
	}
	for i := range u.Sections {
		v.section(&u.Sections[i], p)
	}
	if !p.More {
		v.check()
	}
	return p.More, true
}

func (v *hybrid) section(s *channel.Section, p *media.Packet) {
	v.t.Helper()
	v.kinds[s.Kind]++
	need := map[channel.SectionKind]media.Codecs{
		channel.SectionTiles: media.CodecTiles, channel.SectionCopy: media.CodecCopy,
		channel.SectionFill: media.CodecFill, channel.SectionJPEG: media.CodecJPEG,
	}[s.Kind]
	switch s.Kind { //nolint:exhaustive // the others have no losses
	case channel.SectionText:
		need = media.CodecText
	case channel.SectionVideo:
		need = map[uint8]media.Codecs{channel.VideoH264: media.CodecH264, channel.VideoVP8: media.CodecVP8}[s.Video.Codec]
		if s.Video.Flags&channel.VideoKey != 0 {
			v.keys++
		}
		if s.Video.Flags&channel.VideoEnd != 0 {
			v.ends++
		} else if p.Lossless {
			v.t.Fatal("an update with video says that it is lossless")
		}
	case channel.SectionJPEG:
		v.jpegs = append(v.jpegs, image.Rect(int(s.JPEG.X), int(s.JPEG.Y), int(s.JPEG.X)+int(s.JPEG.Width), int(s.JPEG.Y)+int(s.JPEG.Height)))
		if p.Lossless {
			v.t.Fatal("an update with JPEG says that it is lossless")
		}
	}
	if v.codecs&need == 0 {
		v.t.Fatalf("a section of kind %d was sent, but not offered", s.Kind)
	}
}

// limits checks that a packet goes over its limit by what compresses worse than what came before it, one picture or
// one frame a region at most.
func (v *hybrid) limits(p *media.Packet) {
	v.t.Helper()
	const tile = 64 + 3*64*64 // that does not compress
	tiles, jpegs, greatest := 0, 0, 0
	for _, s := range p.Sections {
		switch s.Kind { //nolint:exhaustive // the others are not limited
		case media.SectionTiles:
			tiles += len(s.Body)
		case media.SectionJPEG:
			jpegs += len(s.Body)
			greatest = max(greatest, len(s.Body))
		}
	}
	if tiles > 2*v.quality.Limit+tile || jpegs > max(2*v.quality.Limit, greatest) {
		v.t.Fatalf("packet of %d bytes of tiles and %d of JPEG with a limit of %d", tiles, jpegs, v.quality.Limit)
	}
}

// check compares what the viewer has without losses with the screen, outside the video regions.
func (v *hybrid) check() {
	v.t.Helper()
	want := v.s.rgba()
	var regions []image.Rectangle
	for n := range channel.VideoRegions {
		if r, ok := v.dec.Region(n); ok {
			regions = append(regions, r)
		}
	}
	for i, inexact := range v.dec.Inexact {
		if inexact || bytes.Equal(want[4*i:4*i+4], v.dec.Picture[4*i:4*i+4]) {
			continue
		}
		at := image.Pt(i%v.s.size.Width, i/v.s.size.Width)
		if !slices.ContainsFunc(regions, func(r image.Rectangle) bool { return at.In(r) }) {
			v.t.Fatalf("update %d: pixel %v is wrong, and did not come with losses", v.seq, at)
		}
	}
}

// pass lets time pass and does what the encoder wants to do meanwhile.
func (v *hybrid) pass(micros uint64) {
	v.t.Helper()
	end := v.now + micros
	for calls := 0; ; calls++ {
		at, ok := v.enc.Due()
		if !ok || at > end {
			break
		}
		v.now = max(v.now, at)
		more := true
		for more {
			more, _ = v.send()
		}
		if calls > 10_000 {
			v.t.Fatalf("the encoder wants to be called again and again: now %d, due %d", v.now, at)
		}
	}
	v.now = end
}

// rest lets the picture come to rest and checks that it is exact after a second; on a fast link that is also how
// long it may take.
func (v *hybrid) rest() {
	v.t.Helper()
	for more := true; more; {
		more, _ = v.send()
	}
	fast := v.quality.BytesPerSecond >= 50_000_000
	if fast {
		v.pass(1_000_000)
	} else {
		v.pass(3_600_000_000)
	}
	if !bytes.Equal(v.s.rgba(), v.dec.Picture) {
		v.t.Fatalf("update %d: the picture is at rest but not exact", v.seq)
	}
	if i := slices.Index(v.dec.Inexact, true); i >= 0 {
		v.t.Fatalf("update %d: pixel %d is right by chance", v.seq, i)
	}
	v.pass(2_000_000)
	if at, ok := v.enc.Due(); ok {
		v.t.Fatalf("all is exact but the encoder is due at %d, now %d", at, v.now)
	}
	if v.lossy != nil && v.lossy.open > 0 {
		v.t.Fatalf("%d video encoders are open at rest", v.lossy.open)
	}
}

// film paints the next frame of something that moves: smooth colours and some grain, hundreds in each tile.
func (s *screen) film(rect image.Rectangle, frame int) {
	for y := rect.Min.Y; y < rect.Max.Y; y++ {
		for x := rect.Min.X; x < rect.Max.X; x++ {
			at := (y*s.size.Width + x) * 4
			dx, dy := x-rect.Min.X, y-rect.Min.Y
			grain := byte(s.rng.Uint32N(8))
			s.pix[at] = byte(dx+3*frame) + grain
			s.pix[at+1] = byte(dy+2*frame) + grain
			s.pix[at+2] = byte((dx+dy)/2-frame) + grain
		}
	}
}

// Whatever moves, plays, scrolls and pauses, on whatever link: pixels that came without losses are exact at every
// update, codecs that were not offered are not used, limits are kept, and at rest all is exact.
func TestLossyComesToRest(t *testing.T) {
	t.Parallel()
	sizes := []media.Size{{Width: 640, Height: 480}, {Width: 1000, Height: 333}, {Width: 517, Height: 700}, {Width: 64, Height: 64}, {Width: 65, Height: 129}}
	codecs := []media.Codecs{
		everyCodec, everyCodec, everyCodec &^ media.CodecJPEG, everyCodec &^ media.CodecH264,
		everyCodec &^ media.CodecCopy, media.CodecTiles | media.CodecH264, media.CodecTiles | media.CodecCopy | media.CodecJPEG, allCodecs,
	}
	for n, size := range sizes {
		t.Run(size.String(), func(t *testing.T) {
			t.Parallel()
			video := 0
			for seed := range uint64(len(codecs)) {
				if n > 0 && (seed+uint64(n))%3 != 0 { // the first size has them all
					continue
				}
				t.Run(fmt.Sprintf("codecs=%b", codecs[seed]), func(t *testing.T) {
					v := newHybrid(t, newScreen(size, 10*uint64(n)+seed), codecs[seed], newCoarse())
					v.scene(100 / raceShare)
					video += v.kinds[channel.SectionVideo]
				})
			}
			if video == 0 && n == 0 {
				t.Error("there was never any video")
			}
		})
	}
}

// scene draws at random for so many steps, with pauses.
func (v *hybrid) scene(steps int) {
	v.t.Helper()
	s := v.s
	rng := s.rng
	s.text(s.size.Bounds())
	v.send(s.size.Bounds())
	film := s.randomRect()
	playing := false
	for step := range steps {
		var damage media.Region
		draw := func(r image.Rectangle) { damage.Add(r.Intersect(s.size.Bounds())) }
		if rng.IntN(15) == 0 {
			playing = !playing
			if film = s.randomRect(); rng.IntN(2) == 0 {
				film = image.Rect(film.Min.X, film.Min.Y, film.Min.X+300, film.Min.Y+300).Intersect(s.size.Bounds())
			}
		}
		if playing {
			if rng.IntN(4) == 0 { // dragged over what is below it
				by := image.Pt(rng.IntN(41)-20, rng.IntN(41)-20)
				draw(film)
				s.shift(film, by.X, by.Y)
				film = film.Add(by).Intersect(s.size.Bounds())
			}
			s.film(film, step)
			draw(film)
		}
		switch rect := s.randomRect(); rng.IntN(12) {
		case 0, 1:
			dy := rng.IntN(81) - 40
			s.scroll(rect, 0, dy)
			draw(rect)
		case 2:
			s.text(rect)
			draw(rect)
		case 3:
			s.paint(rect, []int{1, 2, 30, 5000}[rng.IntN(4)])
			draw(rect)
		case 4: // a window over others
			by := image.Pt(rng.IntN(81)-40, rng.IntN(81)-40)
			s.shift(rect, by.X, by.Y)
			draw(rect.Add(by))
		case 5:
			letter := image.Rect(rect.Min.X, rect.Min.Y, rect.Min.X+8, rect.Min.Y+14).Intersect(s.size.Bounds())
			s.text(letter)
			draw(letter)
		}
		clusters := damage.Clusters(nil, s.size.Bounds())
		v.now += uint64(5_000 + rng.IntN(45_000))
		if rng.IntN(8) == 0 {
			v.quality = media.Quality{
				Limit:          []int{noLimit, 0, 20_000, 200_000}[rng.IntN(4)],
				BytesPerSecond: []int{0, 50_000, 1_000_000, 100_000_000}[rng.IntN(4)],
				VideoQP:        rng.IntN(60), VideoFPS: []int{0, 60, 10, 5}[rng.IntN(4)], VideoScale: rng.IntN(3),
				JPEGQuality: rng.IntN(101),
			}
		}
		switch rng.IntN(40) {
		case 0: // the viewer lost its picture
			v.enc.Begin(s.size)
			clusters = append(clusters[:0], s.size.Bounds())
		case 1: // the screen has another size
			size := media.Size{Width: 64 + rng.IntN(600), Height: 64 + rng.IntN(500)}
			*s = *newScreen(size, rng.Uint64())
			s.text(size.Bounds())
			rng = s.rng
			film = s.randomRect()
			v.enc.Begin(size)
			clusters = append(clusters[:0], size.Bounds())
		}
		if len(clusters) == 0 {
			v.pass(uint64(rng.IntN(400_000)))
			continue
		}
		more, _ := v.send(clusters...)
		for more && rng.IntN(3) > 0 {
			v.now += 1000
			more, _ = v.send()
		}
		if !more && rng.IntN(20) == 0 {
			v.quality.BytesPerSecond = 100_000_000
			v.quality.Limit = noLimit
			v.rest()
			playing = false
		}
	}
	v.rest()
}

// What a decoder shows may be anything: nothing relies on how losses look.
func TestRestWithNoise(t *testing.T) {
	long(t)
	t.Parallel()
	for seed := range uint64(4) {
		v := newHybrid(t, newScreen(media.Size{Width: 640, Height: 480}, 300+seed), everyCodec, newCoarse())
		v.dec.NewVideo = nil
		v.scene(100)
	}
}

// play shows frames of a film in rect.
func (v *hybrid) play(rect image.Rectangle, frames int, micros uint64) {
	v.t.Helper()
	for frame := range frames {
		v.s.film(rect, frame)
		for more, rects := true, []image.Rectangle{rect}; more; rects = nil {
			more, _ = v.send(rects...)
		}
		v.now += micros
	}
}

// A video in a window becomes a region within a few frames, the region is no larger than it has to be, the text
// around it stays exact, and all is exact after it.
func TestVideoWindow(t *testing.T) {
	long(t)
	t.Parallel()
	for _, fps := range []uint64{60, 30, 15, 8} {
		t.Run(fmt.Sprintf("%d frames a second", fps), func(t *testing.T) {
			t.Parallel()
			s := newScreen(media.Size{Width: 1000, Height: 700}, 5)
			s.text(s.size.Bounds())
			v := newHybrid(t, s, everyCodec, newCoarse())
			v.quality.VideoFPS = 60
			v.send(s.size.Bounds())
			film := image.Rect(200, 100, 680, 370)
			v.play(film, 3, 1_000_000/fps)
			if v.kinds[channel.SectionVideo] == 0 {
				t.Fatal("no video after three frames")
			}
			v.bytes = 0
			before := v.kinds[channel.SectionTiles]
			v.play(film, 30, 1_000_000/fps)
			region, ok := v.dec.Region(0)
			if want := image.Rect(192, 64, 704, 384); !ok || region != want {
				t.Errorf("region is %v, want %v: the tiles of %v", region, want, film)
			}
			if got := v.kinds[channel.SectionTiles] - before; got != 0 {
				t.Errorf("%d updates had tiles beside the video", got)
			}
			if v.keys > 3 {
				t.Errorf("%d key frames", v.keys)
			}
			for y := film.Min.Y; y < film.Max.Y; y++ {
				for x := film.Min.X; x < film.Max.X; x++ {
					at := (y*s.size.Width + x) * 4
					for c := range 3 {
						if d := int(s.pix[at+2-c]) - int(v.dec.Picture[at+c]); d < -8 || d > 8 {
							t.Fatalf("pixel %d,%d: colour %d differs by %d", x, y, c, d)
						}
					}
				}
			}
			v.rest()
			if v.ends != 1 {
				t.Errorf("%d regions ended, want 1", v.ends)
			}
		})
	}
}

// Text is never lossy, however fast it changes and however slow the link is: a region or a JPEG picture never has
// anything that is not photographic, but for what stands between.
func TestTextStaysExact(t *testing.T) {
	long(t)
	t.Parallel()
	for _, rate := range []int{0, 60_000, 100_000_000} {
		s := newScreen(media.Size{Width: 1000, Height: 700}, 6)
		s.text(s.size.Bounds())
		v := newHybrid(t, s, everyCodec, newCoarse())
		v.quality.BytesPerSecond = rate
		v.send(s.size.Bounds())
		for step := range 60 {
			rect := image.Rect(100, 100, 900, 600)
			if step%3 > 0 {
				s.scroll(rect, 0, -17)
			} else {
				s.text(rect)
			}
			v.send(rect)
			v.now += 30_000
		}
		if v.kinds[channel.SectionVideo]+v.kinds[channel.SectionJPEG] > 0 {
			t.Errorf("%d bytes a second: sections %v", rate, v.kinds)
		}
	}
}

// Typing beside a video stays exact and does not move the region.
func TestTypingBesideVideo(t *testing.T) {
	long(t)
	t.Parallel()
	s := newScreen(media.Size{Width: 1000, Height: 700}, 7)
	s.text(s.size.Bounds())
	v := newHybrid(t, s, everyCodec, newCoarse())
	v.send(s.size.Bounds())
	film := image.Rect(64, 64, 448, 320)
	letters := image.Rect(600, 100, 900, 500)
	for frame := range 90 {
		s.film(film, frame)
		s.text(letters)
		v.send(film, letters)
		v.now += 33_000
	}
	if r, ok := v.dec.Region(0); !ok || r.Overlaps(letters) {
		t.Errorf("region %v, %v; the text is at %v", r, ok, letters)
	}
	if _, ok := v.dec.Region(1); ok {
		t.Error("there is a second region")
	}
	for y := letters.Min.Y; y < letters.Max.Y; y++ {
		if slices.Contains(v.dec.Inexact[y*1000+letters.Min.X:y*1000+letters.Max.X], true) {
			t.Fatalf("text of row %d came with losses", y)
		}
	}
}

// Two videos are two regions; a third joins one of them.
func TestTwoVideos(t *testing.T) {
	long(t)
	t.Parallel()
	s := newScreen(media.Size{Width: 1920, Height: 1080}, 8)
	s.text(s.size.Bounds())
	v := newHybrid(t, s, everyCodec, newCoarse())
	v.quality.VideoFPS = 60
	v.send(s.size.Bounds())
	films := []image.Rectangle{image.Rect(64, 64, 448, 320), image.Rect(1408, 704, 1856, 1024), image.Rect(64, 704, 448, 960)}
	play := func(films ...image.Rectangle) {
		for frame := range 25 {
			for _, f := range films {
				s.film(f, frame)
			}
			v.send(films...)
			v.now += 33_000
		}
	}
	regions := func() []image.Rectangle {
		var list []image.Rectangle
		for n := range channel.VideoRegions {
			if r, ok := v.dec.Region(n); ok {
				list = append(list, r)
			}
		}
		return list
	}
	play(films[:2]...)
	if got := regions(); len(got) != 2 || got[0].Overlaps(got[1]) {
		t.Errorf("two videos: regions %v", got)
	}
	play(films...)
	got := regions()
	for _, f := range films {
		if !slices.ContainsFunc(got, func(r image.Rectangle) bool { return f.In(r) }) {
			t.Errorf("three videos: regions %v do not cover %v", got, f)
		}
	}
	v.rest()
}

// Full motion is video of the whole screen from the third frame on; a video that gets smaller has a smaller
// region after a second.
func TestWholeScreen(t *testing.T) {
	long(t)
	t.Parallel()
	s := newScreen(media.Size{Width: 1280, Height: 720}, 9)
	v := newHybrid(t, s, everyCodec, newCoarse())
	v.quality.VideoFPS = 60
	v.send(s.size.Bounds())
	v.play(s.size.Bounds(), 2, 33_000)
	if r, ok := v.dec.Region(0); !ok || r != s.size.Bounds() {
		t.Fatalf("after two frames the region is %v, %v", r, ok)
	}
	v.play(image.Rect(0, 0, 1000, 500), 10, 33_000)
	small := image.Rect(128, 128, 640, 384)
	v.play(small, 80, 33_000)
	if r, ok := v.dec.Region(0); !ok || area(r) > 2*area(small) || !small.In(r) {
		t.Errorf("region is %v, %v; the video is %v", r, ok, small)
	}
	v.rest()
}

func area(r image.Rectangle) int { return r.Dx() * r.Dy() }

// A refresh while a video plays begins it anew with a key frame at once, and does not send it as tiles first.
func TestRefreshKeepsVideo(t *testing.T) {
	long(t)
	t.Parallel()
	s := newScreen(media.Size{Width: 1000, Height: 700}, 10)
	v := newHybrid(t, s, everyCodec, newCoarse())
	v.send(s.size.Bounds())
	film := image.Rect(200, 100, 680, 370)
	v.play(film, 10, 33_000)
	v.enc.Begin(s.size)
	keys := v.keys
	s.film(film, 11)
	v.send(s.size.Bounds())
	if _, ok := v.dec.Region(0); !ok || v.keys != keys+1 {
		t.Errorf("region: %v, %d more key frames", ok, v.keys-keys)
	}
	v.play(film, 10, 33_000)
	v.rest()
}

// Scrolling photographs are copies, not video.
func TestScrolledPhotographsAreCopied(t *testing.T) {
	long(t)
	t.Parallel()
	s := newScreen(media.Size{Width: 1000, Height: 700}, 11)
	page := image.Rect(100, 64, 900, 640)
	s.paint(page, 5000)
	v := newHybrid(t, s, everyCodec, newCoarse())
	v.quality.BytesPerSecond = 1_000_000
	for more, rects := true, []image.Rectangle{s.size.Bounds()}; more; rects = nil {
		more, _ = v.send(rects...)
	}
	for range 20 {
		s.shift(page, 0, -40)
		s.paint(image.Rect(100, 600, 900, 640), 5000)
		s.text(image.Rect(0, 0, 1000, 64))
		v.send(s.size.Bounds())
		v.now += 33_000
	}
	if v.kinds[channel.SectionVideo] > 0 || v.kinds[channel.SectionCopy] < 15 || v.kinds[channel.SectionJPEG] < 15 {
		t.Errorf("sections %v, want copies and JPEG of what is new", v.kinds)
	}
	v.rest()
}

// JPEG is for photographs on slow links alone.
func TestJPEGByLink(t *testing.T) {
	long(t)
	t.Parallel()
	for _, tt := range []struct {
		rate, colours int
		codecs        media.Codecs
		want          bool
	}{
		{1_000_000, 5000, everyCodec, true},
		{1_000_000, 30, everyCodec, false},
		{1_000_000, 5000, everyCodec &^ media.CodecJPEG, false},
		{100_000_000, 5000, everyCodec, false},
		{0, 5000, everyCodec, true},
	} {
		s := newScreen(media.Size{Width: 640, Height: 480}, 12)
		v := newHybrid(t, s, tt.codecs, newCoarse())
		v.quality.BytesPerSecond = tt.rate
		v.send(s.size.Bounds())
		s.paint(image.Rect(64, 64, 576, 448), tt.colours)
		v.now += 500_000
		v.send(s.size.Bounds())
		if got := v.kinds[channel.SectionJPEG] > 0; got != tt.want {
			t.Errorf("%+v: got JPEG %v", tt, got)
		}
		if v.kinds[channel.SectionJPEG] > 0 && v.jpegs[0] != image.Rect(64, 64, 576, 448) {
			t.Errorf("%+v: JPEG of %v, want one of all", tt, v.jpegs)
		}
		v.rest()
	}
}

// Without a video codec, what moves is JPEG: neither the machine nor the viewer has one.
func TestMotionWithoutVideo(t *testing.T) {
	long(t)
	t.Parallel()
	for _, lossy := range []*coarse{newCoarse(), {}} {
		codecs := everyCodec
		if len(lossy.codecs) > 0 {
			codecs &^= media.CodecH264 | media.CodecVP8
		}
		s := newScreen(media.Size{Width: 640, Height: 480}, 13)
		v := newHybrid(t, s, codecs, lossy)
		v.send(s.size.Bounds())
		v.play(image.Rect(64, 64, 576, 448), 12, 33_000)
		if v.kinds[channel.SectionJPEG] < 7 || v.kinds[channel.SectionVideo] > 0 {
			t.Errorf("sections %v, want JPEG", v.kinds)
		}
		v.rest()
	}
}

// An encoder that fails ends its region; the picture goes on without it and comes to rest. The log is not filled.
func TestFaults(t *testing.T) {
	long(t)
	t.Parallel()
	for _, noJPEG := range []bool{false, true} {
		s := newScreen(media.Size{Width: 640, Height: 480}, 14)
		lossy := newCoarse()
		lossy.failAfter, lossy.noJPEG = 8, noJPEG
		v := newHybrid(t, s, everyCodec, lossy)
		v.send(s.size.Bounds())
		for range 4 { // long enough to be tried again
			v.play(image.Rect(64, 64, 448, 256), 60, 55_000)
		}
		if v.kinds[channel.SectionVideo] == 0 || v.ends != 1 {
			t.Errorf("sections %v, %d ends", v.kinds, v.ends)
		}
		if got := v.kinds[channel.SectionJPEG] > 0; got == noJPEG {
			t.Errorf("without JPEG %v: sections %v", noJPEG, v.kinds)
		}
		if n := strings.Count(v.log.String(), "video failed"); n < 1 || n > 3 {
			t.Errorf("the log has %d lines of failures:\n%s", n, v.log.String())
		}
		if n := strings.Count(v.log.String(), "JPEG failed"); n > 1 || (n == 1) != noJPEG {
			t.Errorf("the log has %d lines of JPEG:\n%s", n, v.log.String())
		}
		v.rest()
	}
}

// Refinement takes its share of a slow link and no more, in small packets, and a new change stops it.
func TestRefinementIsPaced(t *testing.T) {
	long(t)
	t.Parallel()
	s := newScreen(media.Size{Width: 1000, Height: 700}, 15)
	v := newHybrid(t, s, everyCodec, newCoarse())
	v.quality.BytesPerSecond = 1_000_000
	v.send(s.size.Bounds())
	s.paint(s.size.Bounds(), 5000)
	for more, rects := true, []image.Rectangle{s.size.Bounds()}; more; rects = nil {
		more, _ = v.send(rects...)
	}
	start := v.now
	if at, ok := v.enc.Due(); !ok || at != start+200_000 {
		t.Fatalf("due at %d, %v; want 200 ms after %d", at, ok, start)
	}
	v.now += 150_000
	if _, sent := v.send(); sent {
		t.Error("something was sent too early")
	}
	v.bytes = 0
	v.pass(2_000_000)
	if v.bytes < 300_000 || v.bytes > 520_000 {
		t.Errorf("%d bytes in about two seconds of a link of 1 MB a second", v.bytes)
	}
	// What changes again waits again.
	s.paint(s.size.Bounds(), 5000)
	for more, rects := true, []image.Rectangle{s.size.Bounds()}; more; rects = nil {
		more, _ = v.send(rects...)
	}
	v.bytes = 0
	v.pass(190_000)
	if v.bytes > 0 {
		t.Errorf("%d bytes although everything has just changed", v.bytes)
	}
	v.quality.BytesPerSecond = 100_000_000
	v.now += 1_000_000
	most := 0
	for {
		v.bytes = 0
		if _, sent := v.send(); !sent {
			break
		}
		most = max(most, v.bytes)
	}
	if most > 66_000 {
		t.Errorf("a packet of %d bytes, want 64 KiB at most", most)
	}
	v.rest()
}

// Frames of a region come no faster than its rate, and the last one comes though nothing changes any more.
func TestVideoRate(t *testing.T) {
	long(t)
	t.Parallel()
	s := newScreen(media.Size{Width: 640, Height: 480}, 16)
	v := newHybrid(t, s, everyCodec, newCoarse())
	v.quality.VideoFPS = 10
	v.send(s.size.Bounds())
	film := image.Rect(64, 64, 576, 448)
	v.play(film, 10, 16_667)
	before := v.kinds[channel.SectionVideo]
	v.play(film, 120, 16_667)
	if got := v.kinds[channel.SectionVideo] - before; got < 18 || got > 22 {
		t.Errorf("%d frames in two seconds, want about 20", got)
	}
	before = v.kinds[channel.SectionVideo]
	v.pass(150_000)
	if got := v.kinds[channel.SectionVideo] - before; got > 1 {
		t.Errorf("%d frames after the last change", got)
	}
	last := bytes.Clone(s.pix)
	v.rest()
	if !bytes.Equal(last, s.pix) {
		t.Error("the screen changed")
	}
}

// Text goes before a frame that would delay it on a slow link.
func TestTextBeforeVideo(t *testing.T) {
	t.Parallel()
	s := newScreen(media.Size{Width: 640, Height: 480}, 17)
	v := newHybrid(t, s, everyCodec, newCoarse())
	v.send(s.size.Bounds())
	film := image.Rect(64, 64, 448, 384)
	v.play(film, 10, 40_000)
	v.quality.BytesPerSecond = 500_000
	s.film(film, 11)
	letter := image.Rect(600, 400, 610, 416)
	s.text(letter)
	before := v.kinds[channel.SectionVideo]
	if more, _ := v.send(film, letter); !more {
		t.Error("the update says that there is no more")
	}
	if v.kinds[channel.SectionVideo] != before {
		t.Error("the frame went with the text")
	}
	v.send() // as there is more
	if v.kinds[channel.SectionVideo] != before+1 {
		t.Error("the frame did not follow")
	}
}

// A region that is larger than the library takes is coded at half its size.
func TestHugeRegionIsScaled(t *testing.T) {
	long(t)
	t.Parallel()
	s := newScreen(media.Size{Width: 4200, Height: 700}, 18)
	v := newHybrid(t, s, everyCodec, newCoarse())
	v.send(s.size.Bounds())
	v.play(s.size.Bounds(), 3, 33_000)
	if v.kinds[channel.SectionVideo] == 0 {
		t.Error("no video")
	}
	v.rest()
}

func TestLossyDoesNotAllocate(t *testing.T) {
	libraries := video.Load(slog.New(slog.DiscardHandler))
	s := newScreen(media.Size{Width: 1280, Height: 720}, 19)
	s.text(s.size.Bounds())
	for name, tt := range map[string]struct {
		rate  int
		need  bool
		frame image.Rectangle
	}{
		"video": {100_000_000, len(libraries.Codecs()) > 0, image.Rect(128, 128, 768, 512)},
		"idle":  {100_000_000, true, image.Rectangle{}},
	} {
		if !tt.need {
			t.Logf("%s: no video library", name)
			continue
		}
		enc, err := encode.NewTiles(everyCodec, encode.Options{Lossy: libraries})
		if err != nil {
			t.Fatal(err)
		}
		defer enc.Close()
		enc.Begin(s.size)
		q := media.Quality{Limit: noLimit, BytesPerSecond: tt.rate, VideoFPS: 60}
		now := uint64(1)
		if _, err := enc.Encode([]media.View{s.view(s.size.Bounds())}, now, q); err != nil {
			t.Fatal(err)
		}
		var views [4][]media.View
		for i := range views {
			if !tt.frame.Empty() {
				s.film(tt.frame, i)
				views[i] = []media.View{s.view(tt.frame)}
			}
		}
		i, videos := 0, 0
		run := func() {
			i++
			now += 33_000
			p, err := enc.Encode(views[i%len(views)], now, q)
			if err != nil {
				t.Fatal(err)
			}
			if p != nil && p.Sections[len(p.Sections)-1].Kind == media.SectionVideo {
				videos++
			}
			enc.Due()
		}
		for range 40 {
			run()
		}
		if allocs := testing.AllocsPerRun(50, run); allocs != 0 {
			t.Errorf("%s: got %v allocations an update, want 0", name, allocs)
		}
		if !tt.frame.Empty() && videos < 60 {
			t.Errorf("%s: only %d of %d updates had video", name, videos, i)
		}
	}
}
