// Package video codes pictures with the video and image libraries that the machine has: OpenH264, libvpx, libyuv and
// libturbojpeg, opened at run time by their sonames and called without cgo. Every one of them is optional: without a
// video library NewEncoder says so and the caller stays with tiles and JPEG, which pure Go makes too.
//
// How it is used: Load once a process, NewEncoder once a region of the screen and size, Encode a frame each time the
// region changed, Close. When Encode fails, the caller closes the encoder, sends the region by other means, and may
// try a new one.
//
// Pictures are BT.601 in limited range, in 4:2:0. The H.264 stream says so itself; with VP8 the viewer tells its decoder.
// Their coded size is the Config's CodedSize: the viewer drops the column and the row that are too many.
package video

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// Image is a picture in memory: 4 bytes a pixel, blue, green, red and one that means nothing; Stride in bytes.
type Image struct {
	Pix                   []byte
	Stride, Width, Height int
}

// Codec is a video codec, by its number on the wire (docs/protocol.md).
type Codec uint8

// The codecs.
const (
	H264 Codec = 1 // constrained baseline, Annex B, one access unit a frame
	VP8  Codec = 2 // one frame as in RFC 6386
)

// String is the codec's usual name.
func (c Codec) String() string {
	switch c {
	case H264:
		return "H.264"
	case VP8:
		return "VP8"
	default:
		return fmt.Sprintf("codec %d", uint8(c))
	}
}

// Limits of pictures, in pixels. The largest is what level 5.2 of H.264 and OpenH264 take.
const (
	MinEdge   = 16
	MaxWidth  = 4096
	MaxHeight = 2304
)

// MaxQP is the coarsest quantizer of H.264's scale; 0 is the finest.
const MaxQP = 51

var (
	// ErrNoCodec says that the machine has no library for a codec.
	ErrNoCodec = errors.New("no library for this codec")
	// ErrClosed says that an encoder was used after Close.
	ErrClosed = errors.New("encoder is closed")
)

// Config is what an encoder is made for.
type Config struct {
	Codec         Codec
	Width, Height int // pixels, from 16×16 to 4096×2304
	FPS           int // frames a second that are expected, 30 by default; it changes no frame's quality
	Threads       int // slices coded in parallel, 1 by default and 2 at most; VP8 always takes one
	// Half codes the picture at half its width and height, which takes less than half of the time and bytes: for
	// viewers and links that cannot keep up. The viewer stretches the coded picture to the region.
	Half bool
}

// CodedSize is the size of the frames that a decoder makes. Both edges are even: where the picture's are not, its last
// column and row are repeated; with Half, the whole picture is scaled to it.
func (c Config) CodedSize() (width, height int) {
	width, height = c.Width, c.Height
	if c.Half {
		width, height = (width+1)/2, (height+1)/2
	}
	return CodedSize(width, height)
}

// CodedSize is the size of the decoded frames of pictures with this size that are not halved: both edges are rounded up to
// even numbers.
func CodedSize(width, height int) (int, int) { return width + width&1, height + height&1 }

func (c Config) withDefaults() (Config, error) {
	if err := checkSize(c.Width, c.Height); err != nil {
		return c, err
	}
	if w, h := c.CodedSize(); w < MinEdge || h < MinEdge {
		return c, fmt.Errorf("half of %dx%d is less than %dx%d", c.Width, c.Height, MinEdge, MinEdge)
	}
	if c.FPS == 0 {
		c.FPS = 30
	}
	if c.FPS < 1 || c.FPS > 120 {
		return c, fmt.Errorf("FPS is %d: must be 1 to 120", c.FPS)
	}
	if c.Threads == 0 {
		c.Threads = 1
	}
	if c.Threads < 1 || c.Threads > 2 {
		return c, fmt.Errorf("threads is %d: must be 1 or 2", c.Threads)
	}
	return c, nil
}

func checkSize(width, height int) error {
	if width < MinEdge || width > MaxWidth || height < MinEdge || height > MaxHeight {
		return fmt.Errorf("picture is %dx%d: must be %dx%d to %dx%d", width, height, MinEdge, MinEdge, MaxWidth, MaxHeight)
	}
	return nil
}

// check refuses an image whose pixels are not all there.
func (m Image) check() error {
	switch {
	case m.Width < 1 || m.Height < 1 || m.Width > maxImageEdge || m.Height > maxImageEdge:
		return fmt.Errorf("image is %dx%d: must be 1x1 to %dx%d", m.Width, m.Height, maxImageEdge, maxImageEdge)
	case m.Stride < 4*m.Width || m.Stride > 1<<20:
		return fmt.Errorf("stride of image is %d: must be %d to %d", m.Stride, 4*m.Width, 1<<20)
	case len(m.Pix) < m.Stride*(m.Height-1)+4*m.Width:
		return fmt.Errorf("image has %d bytes: %dx%d with a stride of %d has %d",
			len(m.Pix), m.Width, m.Height, m.Stride, m.Stride*(m.Height-1)+4*m.Width)
	}
	return nil
}

// maxImageEdge bounds images that are no video; it is the X server's and JPEG's own order of magnitude.
const maxImageEdge = 32767

// Encoder codes the pictures of one region. Its methods may be called by several goroutines, and wait for each other.
type Encoder interface {
	// Encode appends one access unit (H.264 in Annex B, or one VP8 frame) with img to dst; img has the size of the
	// Config. Each call makes exactly one frame, never none, and the decoder needs no later one to show it. key
	// forces a key frame; the first one always is. qp is 0 (finest) to 51 on H.264's scale, where 6 more double the
	// step; VP8 takes the quantizer nearest to it. An error leaves dst as it was.
	Encode(dst []byte, img Image, qp int, key bool) (out []byte, isKey bool, err error)
	// Close frees the library's memory; a second one does nothing. Encode fails with ErrClosed after it.
	Close() error
}

// Libraries are the codecs that this machine has. They are loaded once and stay so to the end of the process. All
// methods may be called by any goroutine.
type Libraries struct {
	openH264 *openH264
	vpx      *vpx
	yuv      *yuv
	jpeg     *turboJPEG
	missing  []string
}

// Load opens the libraries that the machine has, and logs in one line what it found. It never fails: a library that is
// missing, has a version that this package does not know, or fails its trial, is as none. Libraries come from the
// dynamic loader's own directories; nothing in the working directory or from a path is ever taken.
func Load(log *slog.Logger) *Libraries { return load(log, sonames()) }

// names are the sonames that Load opens, by library. An empty one stands for a library that is not there.
type names struct{ openH264, vpx, yuv, jpeg string }

// sonames are those whose layouts and functions this package knows.
func sonames() names {
	return names{openH264: "libopenh264.so.7", vpx: "libvpx.so.7", yuv: "libyuv.so.0", jpeg: "libturbojpeg.so.0"}
}

func load(log *slog.Logger, n names) *Libraries {
	tuneMalloc()
	l := &Libraries{}
	var have []string
	// note keeps the result of one library for the log.
	note := func(name, version string, err error) {
		if err == nil {
			have = append(have, version)
			return
		}
		l.missing = append(l.missing, name)
		if errors.Is(err, errNoLibrary) {
			log.Debug("optional library not found", "library", name, "error", err)
		} else {
			log.Warn("library refused", "library", name, "error", err)
		}
	}
	var err error
	l.yuv, err = openYUV(n.yuv)
	note(n.yuv, "libyuv", err)
	l.openH264, err = openOpenH264(n.openH264)
	note(n.openH264, l.openH264.String(), err)
	l.vpx, err = openVPX(n.vpx)
	note(n.vpx, l.vpx.String(), err)
	l.jpeg, err = openTurboJPEG(n.jpeg)
	note(n.jpeg, "libjpeg-turbo", err)
	codecs := make([]string, 0, 3)
	for _, c := range l.Codecs() {
		codecs = append(codecs, c.String())
	}
	codecs = append(codecs, "JPEG")
	log.Info("codecs loaded", "codecs", strings.Join(codecs, " "), "libraries", strings.Join(have, ", "),
		"without", strings.Join(l.missing, ", "))
	return l
}

// Codecs are the video codecs that NewEncoder knows here, best first; none when the machine has no library.
func (l *Libraries) Codecs() []Codec {
	var codecs []Codec
	if l.openH264 != nil {
		codecs = append(codecs, H264)
	}
	if l.vpx != nil {
		codecs = append(codecs, VP8)
	}
	return codecs
}

// NewEncoder makes an encoder; it must be closed. The error wraps ErrNoCodec when the machine has no library for the
// codec.
func (l *Libraries) NewEncoder(cfg Config) (Encoder, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	switch {
	case cfg.Codec == H264 && l.openH264 != nil:
		return l.openH264.newEncoder(cfg, l.yuv)
	case cfg.Codec == VP8 && l.vpx != nil:
		return l.vpx.newEncoder(cfg, l.yuv)
	default:
		return nil, fmt.Errorf("%s: %w", cfg.Codec, ErrNoCodec)
	}
}
