package video

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image/jpeg"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unsafe"
)

// libraries opens what the tests need; a machine without them skips.
func libraries(t testing.TB, codecs ...Codec) *Libraries {
	t.Helper()
	var log bytes.Buffer
	l := Load(slog.New(slog.NewTextHandler(&log, nil)))
	have := fmt.Sprint(l.Codecs())
	for _, c := range codecs {
		if !strings.Contains(have, c.String()) {
			t.Skipf("the library for %s is missing: run scripts/setup.sh run\n%s", c, log.String())
		}
	}
	return l
}

// whole says that the slow tests run too.
func whole() bool { return os.Getenv("PENSTOCK_E2E") == "1" }

// wave is 100 times a sine, over 256 steps.
var wave = func() (w [256]int32) {
	for i := range w {
		w[i] = int32(math.Round(100 * math.Sin(2*math.Pi*float64(i)/256)))
	}
	return w
}()

// picture is what a camera might see at a time: large soft shapes that move, in all colours, with some grain.
func picture(width, height, frame int) Image {
	img := Image{Pix: make([]byte, (4*width+12)*height), Stride: 4*width + 12, Width: width, Height: height}
	draw(img, frame)
	return img
}

func draw(img Image, frame int) {
	grain := uint32(frame)*2654435761 + 1
	// Phases are in 1/2^24 of a step of the wave, so that the highest byte is the step.
	step := func(pixels float64) uint32 { return uint32(math.MaxUint32 / pixels) }
	dx := [3]uint32{step(251), step(359), step(837)}
	dy := [3]uint32{step(176), -step(135), step(195)}
	for y := range img.Height {
		row := img.Pix[y*img.Stride:][:4*img.Width]
		var phase [3]uint32
		for c := range phase {
			phase[c] = dy[c]*uint32(y) + dx[c]*uint32(3*frame) + uint32(c)<<30
		}
		for i := 0; i < len(row); i += 4 {
			grain = grain*1664525 + 1013904223
			n := int32(grain>>29) - 4
			for c := range phase {
				row[i+2-c] = byte(128 + wave[phase[c]>>24] + n)
				phase[c] += dx[c]
			}
			row[i+3] = byte(grain >> 20) // means nothing
		}
	}
}

// texture is noise at all scales that moves sideways: where every step of a quantizer shows.
func texture(width, height, frame int) Image {
	img := Image{Pix: make([]byte, 4*width*height), Stride: 4 * width, Width: width, Height: height}
	noise := func(x, y, z int) int {
		h := uint32(x)*374761393 + uint32(y)*668265263 + uint32(z)*2147483647
		h = (h ^ h>>13) * 1274126177
		return int((h^h>>16)&255) - 128
	}
	for y := range height {
		for x := range width {
			for c := range 3 {
				value := 0
				for octave := range 5 {
					k := 32 >> octave // pixels from one value to the next
					px := x + 2*frame
					column, row, fx, fy, z := px/k, y/k, px%k, y%k, 3*octave+c*(1-octave/3)
					above := (noise(column, row, z)*(k-fx) + noise(column+1, row, z)*fx) / k
					below := (noise(column, row+1, z)*(k-fx) + noise(column+1, row+1, z)*fx) / k
					value += (above*(k-fy) + below*fy) / k * 4 / (4 + 3*octave)
				}
				img.Pix[y*img.Stride+4*x+c] = byte(min(max(128+value/2, 0), 255))
			}
		}
	}
	return img
}

// decodeH264 and decodeVP8 ask ffmpeg for the I420 frames of a stream; ffmpeg's decoders are its own.
func decodeH264(t *testing.T, stream []byte, width, height int) []*planes {
	return decode(t, "h264", stream, width, height)
}

func decodeVP8(t *testing.T, frames [][]byte, width, height int) []*planes {
	// IVF: a header of 32 bytes, then size and time before each frame.
	ivf := append([]byte("DKIF\x00\x00\x20\x00VP80"), make([]byte, 20)...)
	binary.LittleEndian.PutUint16(ivf[12:], uint16(width))
	binary.LittleEndian.PutUint16(ivf[14:], uint16(height))
	binary.LittleEndian.PutUint32(ivf[16:], 30)
	binary.LittleEndian.PutUint32(ivf[20:], 1)
	binary.LittleEndian.PutUint32(ivf[24:], uint32(len(frames)))
	for i, f := range frames {
		ivf = binary.LittleEndian.AppendUint32(ivf, uint32(len(f)))
		ivf = binary.LittleEndian.AppendUint64(ivf, uint64(i))
		ivf = append(ivf, f...)
	}
	return decode(t, "ivf", ivf, width, height)
}

func decode(t *testing.T, format string, stream []byte, width, height int) []*planes {
	t.Helper()
	ffmpeg, err := exec.LookPath("ffmpeg")
	if err != nil {
		t.Skip("ffmpeg is missing: run scripts/setup.sh test")
	}
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, ffmpeg, "-hide_banner", "-loglevel", "error", "-xerror", "-f", format, "-i", "pipe:0",
		"-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "yuv420p", "pipe:1")
	cmd.Stdin = bytes.NewReader(stream)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil || problems.Len() > 0 {
		t.Fatalf("ffmpeg: %v\n%s", err, problems.String())
	}
	size := width*height + width*height/2
	if out.Len()%size != 0 {
		t.Fatalf("ffmpeg gave %d bytes: not frames of %dx%d", out.Len(), width, height)
	}
	var frames []*planes
	for data := out.Bytes(); len(data) > 0; data = data[size:] {
		frames = append(frames, &planes{
			y: data[:width*height], u: data[width*height:][:width*height/4], v: data[width*height/4*5:][:width*height/4],
			width: width, height: height, yStride: width, cStride: width / 2,
		})
	}
	return frames
}

// psnr compares luma and chroma, in dB.
func psnr(a, b *planes) (y, u, v float64) {
	plane := func(a, b []byte, aStride, bStride, width, height int) float64 {
		sum := 0
		for y := range height {
			row, other := a[y*aStride:][:width], b[y*bStride:][:width]
			for x := range row {
				d := int(row[x]) - int(other[x])
				sum += d * d
			}
		}
		if sum == 0 {
			return 99
		}
		return 10 * math.Log10(255*255*float64(width*height)/float64(sum))
	}
	return plane(a.y, b.y, a.yStride, b.yStride, a.width, a.height),
		plane(a.u, b.u, a.cStride, b.cStride, a.width/2, a.height/2),
		plane(a.v, b.v, a.cStride, b.cStride, a.width/2, a.height/2)
}

func planesOf(img Image) *planes {
	p := planesFor(Config{Width: img.Width, Height: img.Height})
	convertGo(p, img)
	return p
}

// TestRoundTrip codes moving pictures of many sizes and qualities, and looks at what another decoder makes of them.
func TestRoundTrip(t *testing.T) {
	l := libraries(t, H264, VP8)
	sizes := [][2]int{{16, 16}, {17, 31}, {64, 64}, {333, 217}, {854, 480}, {1280, 720}}
	if whole() {
		sizes = append(sizes, [2]int{1920, 1080}, [2]int{3840, 2160}, [2]int{4096, 2304})
	}
	for _, codec := range []Codec{H264, VP8} {
		for _, size := range sizes {
			for _, threads := range []int{1, 2} {
				if codec == VP8 && threads == 2 {
					continue
				}
				t.Run(fmt.Sprintf("%s/%dx%d/threads=%d", codec, size[0], size[1], threads), func(t *testing.T) {
					roundTrip(t, l, Config{Codec: codec, Width: size[0], Height: size[1], Threads: threads})
				})
			}
		}
	}
}

func roundTrip(t *testing.T, l *Libraries, cfg Config) {
	e, err := l.NewEncoder(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close() }()
	// quality at least this many dB of luma, by QP.
	steps := []struct {
		qp   int
		key  bool
		luma float64
	}{{26, false, 37}, {26, false, 36}, {26, true, 37}, {18, false, 39}, {36, false, 30}, {36, true, 30}, {26, false, 35}}
	if cfg.Width > 2000 {
		steps = steps[:3]
	}
	var stream []byte
	var frames [][]byte
	var want []*planes
	for i, s := range steps {
		img := picture(cfg.Width, cfg.Height, i)
		before := len(stream)
		var isKey bool
		if stream, isKey, err = e.Encode(stream, img, s.qp, s.key); err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if wantKey := i == 0 || s.key; isKey != wantKey {
			t.Errorf("frame %d: key frame %v, want %v", i, isKey, wantKey)
		}
		frames = append(frames, bytes.Clone(stream[before:]))
		want = append(want, planesOf(img))
	}
	width, height := cfg.CodedSize()
	var got []*planes
	if cfg.Codec == H264 {
		got = decodeH264(t, stream, width, height)
	} else {
		got = decodeVP8(t, frames, width, height)
	}
	if len(got) != len(want) {
		t.Fatalf("%d frames came out of %d", len(got), len(want))
	}
	for i := range got {
		y, u, v := psnr(got[i], want[i])
		t.Logf("frame %d: QP %d, %d bytes, PSNR %.1f %.1f %.1f", i, steps[i].qp, len(frames[i]), y, u, v)
		if y < steps[i].luma || u < 30 || v < 30 {
			t.Errorf("frame %d, QP %d: PSNR %.1f %.1f %.1f dB, want at least %.0f, 30, 30", i, steps[i].qp, y, u, v, steps[i].luma)
		}
	}
}

// TestQuantizersAreAlike holds VP8's quantizers against H.264's: the same QP looks alike.
func TestQuantizersAreAlike(t *testing.T) {
	l := libraries(t, H264, VP8)
	const width, height = 320, 192
	images := []Image{texture(width, height, 0), texture(width, height, 1), texture(width, height, 2)}
	before := 99.0
	for _, qp := range []int{16, 22, 26, 32, 38, 42} {
		var db [2]float64
		for i, codec := range []Codec{H264, VP8} {
			e, err := l.NewEncoder(Config{Codec: codec, Width: width, Height: height})
			if err != nil {
				t.Fatal(err)
			}
			var frames [][]byte
			for _, img := range images {
				out, _, err := e.Encode(nil, img, qp, false)
				if err != nil {
					t.Fatal(err)
				}
				frames = append(frames, out)
			}
			_ = e.Close()
			var got []*planes
			if codec == H264 {
				got = decodeH264(t, bytes.Join(frames, nil), width, height)
			} else {
				got = decodeVP8(t, frames, width, height)
			}
			for j := range got {
				y, _, _ := psnr(got[j], planesOf(images[j]))
				db[i] += y / float64(len(got))
			}
		}
		t.Logf("QP %d: H.264 %.1f dB, VP8 %.1f dB", qp, db[0], db[1])
		if math.Abs(db[0]-db[1]) > 1.5 || db[0] > before-1 {
			t.Errorf("QP %d: H.264 has %.1f dB, VP8 %.1f, the finer one before %.1f", qp, db[0], db[1], before)
		}
		before = db[0]
	}
}

// TestEachLibraryMissing takes one library away at a time; everything else goes on.
func TestEachLibraryMissing(t *testing.T) {
	libraries(t, H264, VP8)
	img := picture(100, 60, 0)
	for _, test := range []struct {
		name   string
		change func(*names)
		want   []Codec
	}{
		{"none is missing", func(*names) {}, []Codec{H264, VP8}},
		{"no OpenH264", func(n *names) { n.openH264 = "libpenstock-absent.so.7" }, []Codec{VP8}},
		{"no libvpx", func(n *names) { n.vpx = "libpenstock-absent.so.7" }, []Codec{H264}},
		{"no libyuv", func(n *names) { n.yuv = "libpenstock-absent.so.0" }, []Codec{H264, VP8}},
		{"no libturbojpeg", func(n *names) { n.jpeg = "libpenstock-absent.so.0" }, []Codec{H264, VP8}},
		{"nothing at all", func(n *names) { *n = names{} }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := sonames()
			test.change(&n)
			l := load(slog.New(slog.DiscardHandler), n)
			if got := l.Codecs(); fmt.Sprint(got) != fmt.Sprint(test.want) {
				t.Errorf("codecs are %v, want %v", got, test.want)
			}
			for _, c := range []Codec{H264, VP8} {
				e, err := l.NewEncoder(Config{Codec: c, Width: 100, Height: 60})
				if !strings.Contains(fmt.Sprint(test.want), c.String()) {
					if !errors.Is(err, ErrNoCodec) {
						t.Errorf("%s: error is %v, want ErrNoCodec", c, err)
					}
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", c, err)
					continue
				}
				if out, isKey, err := e.Encode(nil, img, 26, false); err != nil || !isKey || len(out) == 0 {
					t.Errorf("%s: %d bytes, key %v, %v", c, len(out), isKey, err)
				}
				_ = e.Close()
			}
			out, err := l.AppendJPEG([]byte("before"), img, 85, true)
			if err != nil || !bytes.HasPrefix(out, []byte("before\xff\xd8")) {
				t.Fatalf("JPEG: %d bytes, %v", len(out), err)
			}
			if decoded, err := jpeg.Decode(bytes.NewReader(out[6:])); err != nil || decoded.Bounds().Dx() != 100 || decoded.Bounds().Dy() != 60 {
				t.Errorf("JPEG does not decode: %v", err)
			}
		})
	}
}

// TestWrongLibraryRefused gives each codec a library that exists and is another.
func TestWrongLibraryRefused(t *testing.T) {
	libraries(t, H264, VP8)
	for _, wrong := range []string{"libc.so.6", "libyuv.so.0", "libvpx.so.7", "libopenh264.so.7"} {
		var log bytes.Buffer
		n := names{openH264: wrong, vpx: wrong, yuv: wrong, jpeg: wrong}
		ours := sonames()
		l := load(slog.New(slog.NewTextHandler(&log, nil)), n)
		if (l.openH264 != nil) != (wrong == ours.openH264) || (l.vpx != nil) != (wrong == ours.vpx) || (l.yuv != nil) != (wrong == ours.yuv) || l.jpeg != nil {
			t.Errorf("%s was taken for another library:\n%s", wrong, log.String())
		}
		if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), wrong+" has no function") {
			t.Errorf("%s: the refusal is not logged:\n%s", wrong, log.String())
		}
	}
}

func TestLibraryByPathRefused(t *testing.T) {
	for _, name := range []string{"./libopenh264.so.7", "/usr/lib/x86_64-linux-gnu/libopenh264.so.7", "lib/x.so"} {
		if _, err := open(name); err == nil || !strings.Contains(err.Error(), "not by a path") {
			t.Errorf("open(%q): error is %v", name, err)
		}
	}
}

func TestBadUseIsAnError(t *testing.T) {
	l := libraries(t, H264, VP8)
	for _, cfg := range []Config{
		{Codec: H264, Width: 15, Height: 16},
		{Codec: H264, Width: 4097, Height: 16},
		{Codec: H264, Width: 16, Height: 2305},
		{Codec: VP8, Width: 0, Height: 0},
		{Codec: VP8, Width: -16, Height: 16},
		{Codec: H264, Width: 64, Height: 64, FPS: -1},
		{Codec: H264, Width: 64, Height: 64, FPS: 121},
		{Codec: H264, Width: 64, Height: 64, Threads: 3},
		{Width: 64, Height: 64},
		{Codec: 3, Width: 64, Height: 64},
	} {
		if e, err := l.NewEncoder(cfg); err == nil {
			_ = e.Close()
			t.Errorf("NewEncoder(%+v) has no error", cfg)
		}
	}
	good := picture(64, 64, 0)
	for _, c := range []Codec{H264, VP8} {
		e, err := l.NewEncoder(Config{Codec: c, Width: 64, Height: 64})
		if err != nil {
			t.Fatal(err)
		}
		for name, img := range map[string]Image{
			"another size": picture(66, 64, 0), "no pixels": {Stride: 256, Width: 64, Height: 64},
			"stride": {Pix: good.Pix, Stride: 255, Width: 64, Height: 64}, "short": {Pix: good.Pix[:256*64-1], Stride: 256, Width: 64, Height: 64},
			"huge stride": {Pix: good.Pix, Stride: 1 << 30, Width: 64, Height: 64},
		} {
			if out, _, err := e.Encode([]byte("x"), img, 26, false); err == nil || string(out) != "x" {
				t.Errorf("%s, image with %s: %q, %v", c, name, out, err)
			}
		}
		for _, qp := range []int{-1, 52} {
			if _, _, err := e.Encode(nil, good, qp, false); err == nil {
				t.Errorf("%s: QP %d has no error", c, qp)
			}
		}
		if _, isKey, err := e.Encode(nil, good, 26, false); err != nil || !isKey {
			t.Errorf("%s: after refused frames: key %v, %v", c, isKey, err)
		}
		for range 2 {
			if err := e.Close(); err != nil {
				t.Errorf("%s: close: %v", c, err)
			}
		}
		if out, _, err := e.Encode([]byte("x"), good, 26, false); !errors.Is(err, ErrClosed) || string(out) != "x" {
			t.Errorf("%s after Close: %q, %v", c, out, err)
		}
	}
	for _, q := range []int{0, 101} {
		if _, err := l.AppendJPEG(nil, good, q, true); err == nil {
			t.Errorf("JPEG quality %d has no error", q)
		}
	}
}

// TestLayouts holds the structures against what a C compiler says of the headers of OpenH264 2.3.1 and libvpx 1.12.0.
func TestLayouts(t *testing.T) {
	var p h264Params
	var layer h264Layer
	var bits h264Bits
	var c vpxConfig
	var i vpxImage
	for _, test := range []struct {
		name      string
		got, want uintptr
	}{
		{"SEncParamExt", unsafe.Sizeof(p), 920},
		{"SEncParamExt.sSpatialLayers", unsafe.Offsetof(p.layers), 32},
		{"SEncParamExt.iComplexityMode", unsafe.Offsetof(p.complexity), 832},
		{"SEncParamExt.iMaxQp", unsafe.Offsetof(p.maxQP), 868},
		{"SEncParamExt.iMultipleThreadIdc", unsafe.Offsetof(p.threads), 892},
		{"SEncParamExt.bEnableSceneChangeDetect", unsafe.Offsetof(p.sceneChangeDetect), 912},
		{"SEncParamExt.iIdrBitrateRatio", unsafe.Offsetof(p.idrBitrateRatio), 916},
		{"SSpatialLayerConfig", unsafe.Sizeof(layer), 200},
		{"SSpatialLayerConfig.bVideoSignalTypePresent", unsafe.Offsetof(layer.signalTypePresent), 184},
		{"SSpatialLayerConfig.eAspectRatio", unsafe.Offsetof(layer.aspect), 192},
		{"SSourcePicture", unsafe.Sizeof(h264Source{}), 72},
		{"SSourcePicture.pData", unsafe.Offsetof(h264Source{}.data), 24},
		{"SFrameBSInfo", unsafe.Sizeof(bits), 5144},
		{"SFrameBSInfo.eFrameType", unsafe.Offsetof(bits.frameType), 5128},
		{"SLayerBSInfo", unsafe.Sizeof(bits.layers[0]), 40},
		{"SLayerBSInfo.pBsBuf", unsafe.Offsetof(bits.layers[0].data), 32},
		{"vpx_codec_ctx_t", unsafe.Sizeof(vpxEncoder{}.context), 56},
		{"vpx_codec_enc_cfg_t", unsafe.Sizeof(c), 504},
		{"vpx_codec_enc_cfg_t.g_error_resilient", unsafe.Offsetof(c.errorResilient), 36},
		{"vpx_codec_enc_cfg_t.rc_end_usage", unsafe.Offsetof(c.endUsage), 72},
		{"vpx_codec_enc_cfg_t.rc_target_bitrate", unsafe.Offsetof(c.bitrate), 112},
		{"vpx_codec_enc_cfg_t.rc_max_quantizer", unsafe.Offsetof(c.maxQ), 120},
		{"vpx_codec_enc_cfg_t.kf_mode", unsafe.Offsetof(c.kfMode), 160},
		{"vpx_image_t", unsafe.Sizeof(i), 136},
		{"vpx_image_t.d_w", unsafe.Offsetof(i.shown), 24},
		{"vpx_image_t.planes", unsafe.Offsetof(i.planes), 48},
		{"vpx_image_t.stride", unsafe.Offsetof(i.stride), 80},
		{"vpx_codec_cx_pkt_t.data.frame.sz", unsafe.Offsetof(vpxPacket{}.size), 16},
		{"vpx_codec_cx_pkt_t.data.frame.flags", unsafe.Offsetof(vpxPacket{}.flags), 40},
	} {
		if test.got != test.want {
			t.Errorf("%s is at or has %d, want %d", test.name, test.got, test.want)
		}
	}
}
