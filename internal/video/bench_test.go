package video

import (
	"fmt"
	"log/slog"
	"syscall"
	"testing"
	"time"
)

// cpu is the CPU time of the process, its libraries' threads included.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measured reports CPU milliseconds an operation, which busy machines distort less than ns/op, and bytes.
func measured(b *testing.B, f func() int) {
	b.Helper()
	f()
	b.ReportAllocs()
	b.ResetTimer()
	start, bytes := cpu(), 0
	for range b.N {
		bytes += f()
	}
	b.StopTimer()
	b.ReportMetric(float64((cpu()-start).Microseconds())/1000/float64(b.N), "cpu-ms/frame")
	if bytes > 0 {
		b.ReportMetric(float64(bytes)/float64(b.N), "bytes/frame")
	}
}

var benchSizes = [][2]int{{1280, 720}, {1920, 1080}}

// film is a moving picture of texture with grain: all of it changes, in a round of frames.
func film(width, height int) []Image {
	frames := make([]Image, 0, 6)
	grain := uint32(1)
	for i := range cap(frames) {
		img := texture(width, height, i)
		for j := range img.Pix {
			grain = grain*1664525 + 1013904223
			img.Pix[j] = byte(min(max(int(img.Pix[j])+int(grain>>28)-8, 0), 255))
		}
		frames = append(frames, img)
	}
	// Forth and back, so that no frame follows one that it has nothing to do with.
	for i := len(frames) - 2; i > 0; i-- {
		frames = append(frames, frames[i])
	}
	return frames
}

// BenchmarkEncode codes film at QP 26, conversion of colours included, by codec, threads and size; half codes at half size;
// key makes each frame a key frame.
func BenchmarkEncode(b *testing.B) {
	l := libraries(b, H264, VP8)
	for _, size := range benchSizes {
		frames := film(size[0], size[1])
		for _, test := range []struct {
			name string
			cfg  Config
			yuv  *yuv
			key  bool
		}{
			{"h264", Config{Codec: H264}, l.yuv, false},
			{"h264-threads=2", Config{Codec: H264, Threads: 2}, l.yuv, false},
			{"h264-half", Config{Codec: H264, Half: true}, l.yuv, false},
			{"h264-key", Config{Codec: H264}, l.yuv, true},
			{"h264-without-libyuv", Config{Codec: H264}, nil, false},
			{"vp8", Config{Codec: VP8}, l.yuv, false},
			{"vp8-half", Config{Codec: VP8, Half: true}, l.yuv, false},
			{"vp8-key", Config{Codec: VP8}, l.yuv, true},
		} {
			b.Run(fmt.Sprintf("%dx%d/%s", size[0], size[1], test.name), func(b *testing.B) {
				test.cfg.Width, test.cfg.Height = size[0], size[1]
				e, err := (&Libraries{openH264: l.openH264, vpx: l.vpx, yuv: test.yuv}).NewEncoder(test.cfg)
				if err != nil {
					b.Fatal(err)
				}
				defer func() { _ = e.Close() }()
				out := make([]byte, 0, 4<<20)
				i := 0
				measured(b, func() int {
					i++
					if out, _, err = e.Encode(out[:0], frames[i%len(frames)], 26, test.key); err != nil {
						b.Fatal(err)
					}
					return len(out)
				})
			})
		}
	}
}

// BenchmarkConvert is BGRX to I420, and the halving before it.
func BenchmarkConvert(b *testing.B) {
	l := libraries(b)
	for _, size := range benchSizes {
		img := picture(size[0], size[1], 0)
		for name, c := range map[string]*yuv{"libyuv": l.yuv, "go": nil} {
			if name == "libyuv" && c == nil {
				continue
			}
			for _, half := range []bool{false, true} {
				b.Run(fmt.Sprintf("%dx%d/%s/half=%v", size[0], size[1], name, half), func(b *testing.B) {
					p := planesFor(Config{Width: size[0], Height: size[1], Half: half})
					measured(b, func() int {
						if err := c.fill(p, img); err != nil {
							b.Fatal(err)
						}
						return 0
					})
				})
			}
		}
	}
}

// BenchmarkJPEG codes a picture of film.
func BenchmarkJPEG(b *testing.B) {
	n := sonames()
	n.jpeg = ""
	both := map[string]*Libraries{"machine": libraries(b), "go": load(slog.New(slog.DiscardHandler), n)}
	for _, size := range benchSizes {
		img := texture(size[0], size[1], 0)
		for _, test := range []struct {
			name      string
			quality   int
			subsample bool
		}{{"420-q85", 85, true}, {"444-q95", 95, false}} {
			for name, l := range both {
				b.Run(fmt.Sprintf("%dx%d/%s/%s", size[0], size[1], test.name, name), func(b *testing.B) {
					out := make([]byte, 0, 8<<20)
					measured(b, func() int {
						var err error
						if out, err = l.AppendJPEG(out[:0], img, test.quality, test.subsample); err != nil {
							b.Fatal(err)
						}
						return len(out)
					})
				})
			}
		}
	}
}

// BenchmarkOpen makes an encoder, codes its first frame and closes it: what a new region costs.
func BenchmarkOpen(b *testing.B) {
	l := libraries(b, H264, VP8)
	for _, size := range benchSizes {
		img := picture(size[0], size[1], 0)
		for _, codec := range []Codec{H264, VP8} {
			b.Run(fmt.Sprintf("%dx%d/%s", size[0], size[1], codec), func(b *testing.B) {
				out := make([]byte, 0, 4<<20)
				measured(b, func() int {
					e, err := l.NewEncoder(Config{Codec: codec, Width: size[0], Height: size[1]})
					if err != nil {
						b.Fatal(err)
					}
					if out, _, err = e.Encode(out[:0], img, 26, false); err != nil {
						b.Fatal(err)
					}
					_ = e.Close()
					return len(out)
				})
			})
		}
	}
}

// BenchmarkLoad opens the libraries, their trials included; the first time in a process the loader adds its own.
func BenchmarkLoad(b *testing.B) {
	measured(b, func() int {
		Load(slog.New(slog.DiscardHandler))
		return 0
	})
}
