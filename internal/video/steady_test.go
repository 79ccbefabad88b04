package video

import (
	"bytes"
	"errors"
	"fmt"
	"image/jpeg"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestConversion compares Go's conversion with libyuv's on pictures of all kinds and sizes.
func TestConversion(t *testing.T) {
	l := libraries(t)
	if l.yuv == nil {
		t.Skip("libyuv is missing: run scripts/setup.sh run")
	}
	noise := Image{Pix: make([]byte, 4*130*70), Stride: 4 * 130, Width: 130, Height: 70}
	seed := uint32(1)
	for i := range noise.Pix {
		seed = seed*1664525 + 1013904223
		noise.Pix[i] = byte(seed >> 24)
	}
	images := []Image{noise, colours(200, 100), colours(201, 101)}
	for _, size := range [][2]int{{16, 16}, {17, 16}, {16, 17}, {17, 17}, {31, 33}, {640, 480}, {641, 479}, {1920, 1080}} {
		images = append(images, picture(size[0], size[1], 1))
	}
	for _, img := range images {
		width, height := Config{Width: img.Width, Height: img.Height}.CodedSize()
		a, b := newPlanes(width, height), newPlanes(width, height)
		if err := l.yuv.convert(a, img); err != nil {
			t.Fatal(err)
		}
		convertGo(b, img)
		var worst [3]int
		for i, p := range [][2][]byte{{a.y, b.y}, {a.u, b.u}, {a.v, b.v}} {
			for j := range p[0] {
				d := int(p[0][j]) - int(p[1][j])
				worst[i] = max(worst[i], d, -d)
			}
		}
		if worst[0] > 1 || worst[1] > 2 || worst[2] > 2 {
			t.Errorf("%dx%d: Go's planes differ from libyuv's by up to %v, want at most [1 2 2]", img.Width, img.Height, worst)
		}
	}
}

// TestHalf codes pictures at half their size: they come out as the mean of each four pixels, in Go as in libyuv, and the
// whole picture is on the frame whatever its size.
func TestHalf(t *testing.T) {
	l := libraries(t, H264)
	for _, size := range [][2]int{{32, 32}, {640, 360}, {333, 217}, {1366, 768}} {
		img := picture(size[0], size[1], 3)
		cfg := Config{Codec: H264, Width: size[0], Height: size[1], Half: true}
		width, height := cfg.CodedSize()
		if width%2+height%2 != 0 || abs(2*width-size[0]) > 3 || abs(2*height-size[1]) > 3 {
			t.Fatalf("%v is coded as %dx%d", size, width, height)
		}
		// Sampled by the middle of each pixel, in floating point.
		want := Image{Pix: make([]byte, 4*width*height), Stride: 4 * width, Width: width, Height: height}
		for y := range height {
			for x := range width {
				fx, fy := (float64(x)+0.5)*float64(size[0])/float64(width)-0.5, (float64(y)+0.5)*float64(size[1])/float64(height)-0.5
				for c := range 3 {
					at := func(x, y int) float64 {
						return float64(img.Pix[min(max(y, 0), size[1]-1)*img.Stride+4*min(max(x, 0), size[0]-1)+c])
					}
					x0, y0 := int(fx), int(fy)
					dx, dy := fx-float64(x0), fy-float64(y0)
					v := (at(x0, y0)*(1-dx)+at(x0+1, y0)*dx)*(1-dy) + (at(x0, y0+1)*(1-dx)+at(x0+1, y0+1)*dx)*dy
					want.Pix[y*want.Stride+4*x+c] = byte(v + 0.5)
				}
			}
		}
		for _, c := range []*yuv{nil, l.yuv} {
			libs := &Libraries{openH264: l.openH264, yuv: c}
			e, err := libs.NewEncoder(cfg)
			if err != nil {
				t.Fatal(err)
			}
			stream, _, err := e.Encode(nil, img, 16, false)
			if err != nil {
				t.Fatal(err)
			}
			_ = e.Close()
			got := decodeH264(t, stream, width, height)
			if len(got) != 1 {
				t.Fatalf("%d frames", len(got))
			}
			if y, u, v := psnr(got[0], planesOf(want)); y < 36 || u < 36 || v < 36 {
				t.Errorf("%v, libyuv %v: PSNR %.1f %.1f %.1f", size, c != nil, y, u, v)
			}
		}
	}
	if _, err := l.NewEncoder(Config{Codec: H264, Width: 20, Height: 20, Half: true}); err == nil {
		t.Error("half of 20x20 has no error")
	}
}

// TestKnownColours holds both conversions against BT.601's own numbers.
func TestKnownColours(t *testing.T) {
	l := libraries(t)
	for _, test := range []struct {
		name    string
		bgr     [3]byte
		y, u, v int
	}{
		{"black", [3]byte{0, 0, 0}, 16, 128, 128},
		{"white", [3]byte{255, 255, 255}, 235, 128, 128},
		{"grey", [3]byte{128, 128, 128}, 126, 128, 128},
		{"red", [3]byte{0, 0, 255}, 81, 90, 240},
		{"green", [3]byte{0, 255, 0}, 145, 54, 34},
		{"blue", [3]byte{255, 0, 0}, 41, 240, 110},
	} {
		img := Image{Pix: bytes.Repeat([]byte{test.bgr[0], test.bgr[1], test.bgr[2], 77}, 16*16), Stride: 64, Width: 16, Height: 16}
		for _, c := range []*yuv{nil, l.yuv} {
			p := newPlanes(16, 16)
			if err := c.convert(p, img); err != nil {
				t.Fatal(err)
			}
			if d := max(abs(int(p.y[5])-test.y), abs(int(p.u[3])-test.u), abs(int(p.v[3])-test.v)); d > 1 {
				t.Errorf("%s is %d %d %d, want %d %d %d (libyuv: %v)", test.name, p.y[5], p.u[3], p.v[3], test.y, test.u, test.v, c != nil)
			}
		}
	}
}

func abs(v int) int { return max(v, -v) }

// TestPadding looks at what stands in the column and the row that odd sizes are padded by.
func TestPadding(t *testing.T) {
	l := libraries(t)
	img := picture(33, 17, 2)
	for _, c := range []*yuv{nil, l.yuv} {
		p := newPlanes(34, 18)
		if err := c.convert(p, img); err != nil {
			t.Fatal(err)
		}
		for y := range 18 {
			if p.y[y*p.yStride+33] != p.y[y*p.yStride+32] {
				t.Errorf("row %d: the last column is not repeated", y)
			}
		}
		if !bytes.Equal(p.y[17*p.yStride:][:34], p.y[16*p.yStride:][:34]) {
			t.Error("the last row is not repeated")
		}
	}
}

// TestJPEG decodes pictures of both encoders in Go and compares them with what was coded.
func TestJPEG(t *testing.T) {
	libs := libraries(t)
	n := sonames()
	n.jpeg = ""
	for name, l := range map[string]*Libraries{"machine": libs, "Go": load(slog.New(slog.DiscardHandler), n)} {
		for _, size := range [][2]int{{1, 1}, {7, 13}, {128, 128}, {333, 217}} {
			for _, subsample := range []bool{true, false} {
				for _, quality := range []int{85, 95} {
					img := picture(size[0], size[1], 0)
					out, err := l.AppendJPEG([]byte("head"), img, quality, subsample)
					if err != nil || string(out[:4]) != "head" {
						t.Fatalf("%s, %v: %v", name, size, err)
					}
					picture, err := jpeg.Decode(bytes.NewReader(out[4:]))
					if err != nil {
						t.Fatalf("%s, %v: %v", name, size, err)
					}
					if b := picture.Bounds(); b.Dx() != size[0] || b.Dy() != size[1] {
						t.Fatalf("%s: decodes to %v, want %v", name, b, size)
					}
					rgbx := make([]byte, 4*size[0]*size[1])
					for y := range size[1] {
						for x := range size[0] {
							r, g, b, _ := picture.At(x, y).RGBA()
							copy(rgbx[4*(y*size[0]+x):], []byte{byte(r >> 8), byte(g >> 8), byte(b >> 8)})
						}
					}
					if db := channels(img, rgbx); min(db[0], db[1], db[2]) < 33 {
						t.Errorf("%s, %dx%d, quality %d, subsampled %v: %.1f dB", name, size[0], size[1], quality, subsample, db)
					}
				}
			}
		}
	}
	if libs.jpeg == nil {
		t.Skip("libturbojpeg is missing: run scripts/setup.sh run")
	}
	// What subsampling loses shows in a picture with colour in single pixels.
	fine := colours(64, 64)
	for i := 0; i < len(fine.Pix); i += 8 {
		copy(fine.Pix[i:], []byte{0, 0, 255, 0, 255, 0, 0, 0})
	}
	half, err := libs.AppendJPEG(nil, fine, 95, true)
	full, err2 := libs.AppendJPEG(nil, fine, 95, false)
	if err != nil || err2 != nil || len(full) <= len(half) {
		t.Errorf("subsampled %d bytes, not subsampled %d, %v %v", len(half), len(full), err, err2)
	}
}

// TestManyFrames goes past where the frame number (15 bits) and the order count (16) of H.264 begin anew: no key frame
// interrupts a stream, and a decoder follows it to the end.
func TestManyFrames(t *testing.T) {
	l := libraries(t, H264)
	const frames = 40_000
	pictures := []Image{picture(32, 16, 0), picture(32, 16, 9), picture(32, 16, 25)}
	e, err := l.NewEncoder(Config{Codec: H264, Width: 32, Height: 16})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close() }()
	var stream []byte
	for i := range frames {
		var isKey bool
		if stream, isKey, err = e.Encode(stream, pictures[i%len(pictures)], 26, false); err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if isKey != (i == 0) {
			t.Fatalf("frame %d: key frame is %v", i, isKey)
		}
	}
	if !whole() {
		return // the encoder is what may fail; decoding takes long
	}
	got := decodeH264(t, stream, 32, 16)
	if len(got) != frames {
		t.Fatalf("%d frames came out of %d", len(got), frames)
	}
	for i := range got {
		if y, u, v := psnr(got[i], planesOf(pictures[i%len(pictures)])); y < 35 || u < 32 || v < 32 {
			t.Fatalf("frame %d: PSNR %.1f %.1f %.1f", i, y, u, v)
		}
	}
}

// status reads a number of kB or a count from /proc/self/status.
func status(t *testing.T, name string) int {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.Atoi(strings.Fields(value)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("/proc/self/status has no %s", name)
	return 0
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestNothingGrows codes 300 frames, and makes and closes 40 encoders (fewer where slow tests do not run): memory, descriptors and threads stay as they were.
func TestNothingGrows(t *testing.T) {
	l := libraries(t, H264, VP8)
	pictures := []Image{picture(640, 360, 0), picture(640, 360, 7), picture(640, 360, 20)}
	// An encoder of this size takes about 8 MB, and 300 frames of it 30 MB of input alone.
	const allowed = 6 << 10 // kB
	count, encoders := 300, 40
	if !whole() {
		count, encoders = 60, 15
	}
	for _, codec := range []Codec{H264, VP8} {
		t.Run(codec.String(), func(t *testing.T) {
			var out []byte
			var err error
			frames := func(e Encoder, n int) {
				for i := range n {
					if out, _, err = e.Encode(out[:0], pictures[i%3], 20+i%17, i%50 == 49); err != nil {
						t.Fatal(err)
					}
				}
			}
			settle := func() (rss, fds, threads int) {
				debug.FreeOSMemory()
				return status(t, "VmRSS"), descriptors(t), status(t, "Threads")
			}
			e, err := l.NewEncoder(Config{Codec: codec, Width: 640, Height: 360, Threads: 2})
			if err != nil {
				t.Fatal(err)
			}
			frames(e, 40)
			rss, fds, threads := settle()
			frames(e, count)
			after, fdsAfter, _ := settle()
			t.Logf("resident %d kB, after %d frames %d kB", rss, count, after)
			if after > rss+allowed || fdsAfter > fds {
				t.Errorf("%d frames took %d kB and %d descriptors", count, after-rss, fdsAfter-fds)
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			for range encoders {
				e, err := l.NewEncoder(Config{Codec: codec, Width: 640, Height: 360, Threads: 2})
				if err != nil {
					t.Fatal(err)
				}
				frames(e, 2)
				if err := e.Close(); err != nil {
					t.Fatal(err)
				}
			}
			last, fdsLast, threadsLast := settle()
			t.Logf("after %d encoders %d kB, %d threads (%d before)", encoders, last, threadsLast, threads)
			if last > after+allowed || fdsLast > fds || threadsLast > threads+10 {
				t.Errorf("%d encoders left %d kB, %d descriptors, %d threads", encoders, last-after, fdsLast-fds, threadsLast-threads)
			}
		})
	}
}

// TestNoAllocations holds the steady state of every path.
func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates by itself: run without -race")
	}
	l := libraries(t, H264, VP8)
	img := picture(320, 180, 0)
	other := picture(320, 180, 5)
	out := make([]byte, 0, 1<<20)
	measure := func(name string, f func()) {
		t.Helper()
		f()
		if n := testing.AllocsPerRun(50, f); n != 0 {
			t.Errorf("%s allocates %v times a run", name, n)
		}
	}
	for _, c := range []*yuv{nil, l.yuv} {
		for _, cfg := range []Config{{Codec: H264, Threads: 1}, {Codec: H264, Threads: 2}, {Codec: VP8}, {Codec: H264, Half: true}} {
			cfg.Width, cfg.Height = 320, 180
			libs := &Libraries{openH264: l.openH264, vpx: l.vpx, yuv: c}
			e, err := libs.NewEncoder(cfg)
			if err != nil {
				t.Fatal(err)
			}
			i := 0
			measure(fmt.Sprintf("%s, %d threads, libyuv %v", cfg.Codec, cfg.Threads, c != nil), func() {
				i++
				img, other = other, img
				if out, _, err = e.Encode(out[:0], img, 20+i%20, i%10 == 0); err != nil {
					t.Fatal(err)
				}
			})
			_ = e.Close()
		}
	}
	if l.jpeg != nil {
		measure("JPEG", func() {
			var err error
			if out, err = l.AppendJPEG(out[:0], img, 85, true); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestUseByMany uses the libraries from many goroutines, and one encoder from several while it is closed.
func TestUseByMany(t *testing.T) {
	l := libraries(t, H264, VP8)
	img := picture(160, 96, 0)
	var all sync.WaitGroup
	var closed atomic.Int32
	for i := range 8 {
		codec := []Codec{H264, VP8}[i%2]
		e, err := l.NewEncoder(Config{Codec: codec, Width: 160, Height: 96})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			all.Go(func() {
				for {
					out, _, err := e.Encode(nil, img, 26, false)
					if errors.Is(err, ErrClosed) {
						closed.Add(1)
						return
					}
					if err != nil || len(out) == 0 {
						t.Errorf("%s: %d bytes, %v", codec, len(out), err)
						return
					}
				}
			})
		}
		all.Go(func() {
			for range 20 {
				if out, err := l.AppendJPEG(nil, img, 80, true); err != nil || len(out) < 100 {
					t.Errorf("JPEG: %d bytes, %v", len(out), err)
				}
			}
			_ = e.Close()
			_ = e.Close()
		})
	}
	all.Wait()
	if n := closed.Load(); n != 24 {
		t.Errorf("%d uses saw the end, want 24", n)
	}
}

// TestSignalsWhileCoding sends the process signals while threads of OpenH264 run, and collects garbage under them: threads
// of a library see no signal, and each arrives.
func TestSignalsWhileCoding(t *testing.T) {
	l := libraries(t, H264)
	e, err := l.NewEncoder(Config{Codec: H264, Width: 640, Height: 360, Threads: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close() }()
	arrived := make(chan os.Signal, 1)
	signal.Notify(arrived, syscall.SIGUSR1)
	defer signal.Stop(arrived)
	img := picture(640, 360, 0)
	stop := make(chan struct{})
	var coder sync.WaitGroup
	coder.Go(func() {
		var out []byte
		for {
			select {
			case <-stop:
				return
			default:
			}
			if out, _, err = e.Encode(out[:0], img, 26, true); err != nil {
				t.Error(err)
				return
			}
			runtime.GC()
		}
	})
	for range 300 {
		if err := syscall.Kill(os.Getpid(), syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		select {
		case <-arrived:
		case <-time.After(deadline):
			t.Fatal("a signal did not arrive")
		}
	}
	close(stop)
	coder.Wait()
}
