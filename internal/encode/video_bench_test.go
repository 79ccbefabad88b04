package encode_test

import (
	"image"
	"log/slog"
	"testing"

	"penstock.dev/penstock/internal/encode"
	"penstock.dev/penstock/internal/media"
	"penstock.dev/penstock/internal/video"
)

// BenchmarkVideo is an update of a picture that moves, of this size, in the middle of a screen of 1920×1080, with the codecs of the machine.
func BenchmarkVideo(b *testing.B) {
	lossy := video.Load(slog.New(slog.DiscardHandler))
	if len(lossy.Codecs()) == 0 {
		b.Skip("there is no video codec here")
	}
	for _, size := range []media.Size{{Width: 320, Height: 180}, {Width: 854, Height: 480}, {Width: 1280, Height: 720}, {Width: 1920, Height: 1080}} {
		b.Run(size.String(), func(b *testing.B) {
			s := newScreen(media.Size{Width: 1920, Height: 1080}, 1)
			enc, err := encode.NewTiles(everyCodec, encode.Options{Lossy: lossy})
			if err != nil {
				b.Fatal(err)
			}
			defer enc.Close()
			enc.Begin(s.size)
			quality := media.Quality{Limit: noLimit, BytesPerSecond: 100_000_000, VideoFPS: 60}
			film := image.Rect(0, 0, size.Width, size.Height).Add(image.Pt((1920-size.Width)/2, (1080-size.Height)/2))
			var views [8]media.View
			for i := range views {
				s.film(film, i)
				views[i] = s.view(film)
			}
			now := uint64(1_000_000)
			bytes, updates := 0, 0
			step := func(i int) {
				p, err := enc.Encode(views[i%8:i%8+1], now, quality)
				if err != nil {
					b.Fatal(err)
				}
				if p != nil {
					bytes += p.Bytes()
					updates++
				}
				now += 16_667
			}
			for i := range 30 {
				step(i)
			}
			bytes, updates = 0, 0
			b.ReportAllocs()
			for i := 30; b.Loop(); i++ {
				step(i)
			}
			b.ReportMetric(float64(bytes)/float64(max(1, updates)), "bytes/update")
			b.ReportMetric(float64(updates)/float64(b.N), "updates/op")
		})
	}
}
