package video

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
)

// Layouts and numbers of OpenH264's interface, from wels/codec_api.h, codec_app_def.h and codec_def.h of 2.3.1. They are
// those of libopenh264.so.7, versions 2.3.x; openOpenH264 refuses any other.

// h264Params is SEncParamExt.
type h264Params struct {
	usageType                    int32
	picWidth, picHeight          int32
	targetBitrate                int32
	rcMode                       int32
	maxFrameRate                 float32
	temporalLayers               int32
	spatialLayers                int32
	layers                       [4]h264Layer
	complexity                   int32
	intraPeriod                  uint32
	refFrames                    int32
	spsPpsIDStrategy             int32
	prefixNAL, sSEI, simulcast   bool
	padding                      int32
	entropyCoding                int32
	frameSkip                    bool
	maxBitrate                   int32
	maxQP, minQP                 int32
	maxNALSize                   uint32
	longTermReference            bool
	ltrRefNum                    int32
	ltrMarkPeriod                uint32
	threads                      uint16
	loadBalancing                bool
	loopFilterDisable            int32
	loopFilterAlpha              int32
	loopFilterBeta               int32
	denoise, backgroundDetection bool
	adaptiveQuant, frameCropping bool
	sceneChangeDetect            bool
	losslessLink, fixRCOverShoot bool
	idrBitrateRatio              int32
}

// h264Layer is SSpatialLayerConfig.
type h264Layer struct {
	width, height       int32
	frameRate           float32
	bitrate, maxBitrate int32
	profile, level      int32
	qp                  int32
	slices              struct {
		mode           int32
		number         uint32
		macroblocks    [35]uint32
		sizeConstraint uint32
	}
	signalTypePresent  bool
	format             uint8
	fullRange          bool
	descriptionPresent bool
	primaries          uint8
	transfer           uint8
	matrix             uint8
	aspectPresent      bool
	aspect             int32
	aspectExt          [2]uint16
}

// h264Source is SSourcePicture.
type h264Source struct {
	format        int32
	stride        [4]int32
	data          [4]uintptr
	width, height int32
	timestamp     int64 // milliseconds
}

// h264Bits is SFrameBSInfo: a frame as coded, in the library's memory.
type h264Bits struct {
	layerCount int32
	layers     [128]struct {
		temporal, spatial, quality uint8
		frameType                  int32
		layerType                  uint8
		subSeq                     int32
		nalCount                   int32
		nalLengths                 uintptr // int32 of each
		data                       uintptr
	}
	frameType int32
	size      int32
	timestamp int64
}

// Functions of ISVCEncoder by their place in its table.
const (
	vtInitializeExt    = 1
	vtGetDefaultParams = 2
	vtUninitialize     = 3
	vtEncodeFrame      = 4
	vtForceIntraFrame  = 6
	vtSetOption        = 7
)

const (
	usageCamera       = 0  // CAMERA_VIDEO_REAL_TIME
	rcOff             = -1 // RC_OFF_MODE: each frame takes the layer's QP
	profileBaseline   = 66
	complexityLow     = 0
	sliceSingle       = 0 // SM_SINGLE_SLICE
	sliceFixed        = 1 // SM_FIXEDSLCNUM_SLICE
	formatI420        = 23
	frameIDR          = 1
	frameI            = 2
	frameP            = 3
	optionParamExt    = 3  // ENCODER_OPTION_SVC_ENCODE_PARAM_EXT
	optionTraceLevel  = 25 // ENCODER_OPTION_TRACE_LEVEL
	videoUnspecified  = 5
	primariesBT709    = 1  // sRGB's
	transferSRGB      = 13 // IEC 61966-2-1
	matrixBT601       = 6  // SMPTE 170M
	allLayers         = -1
	h264SliceMinimum  = 64 // rows of pixels that are worth a second slice
	h264MajorMinor    = "2.3"
	h264KnownRevision = 1
)

// openH264 is the library.
type openH264 struct {
	create, destroy function
	version         string
}

func (o *openH264) String() string {
	if o == nil {
		return ""
	}
	return "OpenH264 " + o.version
}

func openOpenH264(soname string) (*openH264, error) {
	lib, err := open(soname)
	if err != nil {
		return nil, err
	}
	o := &openH264{}
	var version function
	err = lib.functions(map[string]*function{
		"WelsCreateSVCEncoder": &o.create, "WelsDestroySVCEncoder": &o.destroy, "WelsGetCodecVersionEx": &version,
	})
	if err != nil {
		return nil, err
	}
	v := new([4]uint32) // OpenH264Version: major, minor, revision, reserved
	purego.SyscallN(uintptr(version), uintptr(unsafe.Pointer(v)))
	o.version = fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2])
	if v[0] != 2 || v[1] != 3 {
		return nil, fmt.Errorf("%s is OpenH264 %s: only 2.3 is known", soname, o.version)
	}
	if err := o.try(); err != nil {
		return nil, fmt.Errorf("%s (OpenH264 %s): %w", soname, o.version, err)
	}
	return o, nil
}

// try codes two small frames: a library that cannot is not used.
func (o *openH264) try() (err error) {
	e, err := o.newEncoder(Config{Codec: H264, Width: 32, Height: 32, FPS: 30, Threads: 1}, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	img := Image{Pix: make([]byte, 4*32*32), Stride: 4 * 32, Width: 32, Height: 32}
	for i, wantKey := range []bool{true, false} {
		out, isKey, err := e.Encode(nil, img, 30, false)
		if err != nil {
			return fmt.Errorf("trial frame %d: %w", i, err)
		}
		if isKey != wantKey || len(out) < 5 || [4]byte(out) != [4]byte{0, 0, 0, 1} {
			return fmt.Errorf("trial frame %d is no access unit as expected", i)
		}
	}
	return nil
}

// h264Encoder is an ISVCEncoder. What the library is given pointers to lives in it, on the heap, where memory never
// moves; the library copies the picture before EncodeFrame returns.
type h264Encoder struct {
	lib *openH264
	yuv *yuv
	cfg Config

	mu sync.Mutex // guards all below
	caller
	encoder uintptr // ISVCEncoder*; 0 when closed
	methods uintptr // its table of functions
	// traceLevel is 0, quiet: the library would write to standard error.
	traceLevel int32
	params     h264Params
	source     h264Source
	bits       h264Bits
	planes     *planes
	frames     int64
	// renew says that a frame was lost on the way to the caller: the next must be a key frame.
	renew bool
}

func (o *openH264) newEncoder(cfg Config, converter *yuv) (enc Encoder, err error) {
	defer guard("make OpenH264 encoder", &err)
	e := &h264Encoder{lib: o, yuv: converter, cfg: cfg}
	width, height := cfg.CodedSize()
	e.planes = planesFor(cfg)
	if r := int32(e.call(o.create, uintptr(unsafe.Pointer(&e.encoder)))); r != 0 || e.encoder == 0 {
		return nil, fmt.Errorf("OpenH264: create encoder: %d", r)
	}
	e.methods = word(e.encoder)
	e.method(vtSetOption, optionTraceLevel, uintptr(unsafe.Pointer(&e.traceLevel)))
	if r := e.method(vtGetDefaultParams, uintptr(unsafe.Pointer(&e.params)), 0); r != 0 {
		e.destroy(false)
		return nil, fmt.Errorf("OpenH264: default parameters: %d", r)
	}
	if err := e.params.checkDefaults(); err != nil {
		e.destroy(false)
		return nil, err
	}
	e.params.set(cfg, width, height)
	var r int32
	withSignalsBlocked(func() { r = e.method(vtInitializeExt, uintptr(unsafe.Pointer(&e.params)), 0) })
	if r != 0 {
		e.destroy(false)
		return nil, fmt.Errorf("OpenH264: start encoder for %dx%d: %d", width, height, r)
	}
	e.source = h264Source{
		format: formatI420, width: int32(width), height: int32(height),
		stride: [4]int32{int32(e.planes.yStride), int32(e.planes.cStride), int32(e.planes.cStride)},
		data:   [4]uintptr{e.planes.address(0), e.planes.address(1), e.planes.address(2)},
	}
	return e, nil
}

// checkDefaults looks at the library's own defaults, as an unknown layout shows here before it does harm.
func (p *h264Params) checkDefaults() error {
	if p.maxQP != MaxQP || p.spatialLayers != 1 || p.temporalLayers != 1 || p.threads != 1 || !p.frameCropping ||
		p.layers[0].qp != 26 && p.layers[0].qp != 24 {
		return fmt.Errorf("OpenH264: the default parameters are not those of a known version (QP %d of %d, %d layers, %d threads)",
			p.layers[0].qp, p.maxQP, p.spatialLayers, p.threads)
	}
	return nil
}

// set asks for frames as a live region of the screen needs them: a QP a frame and no rate control, so no frame is ever
// skipped; one reference, no reordering; key frames on demand alone.
func (p *h264Params) set(cfg Config, width, height int) {
	threads := cfg.Threads
	if height < 2*h264SliceMinimum {
		threads = 1
	}
	p.usageType = usageCamera
	p.picWidth, p.picHeight = int32(width), int32(height)
	p.targetBitrate, p.maxBitrate = 5_000_000, 0 // of no effect without rate control
	p.rcMode = rcOff
	p.maxFrameRate = float32(cfg.FPS)
	p.temporalLayers, p.spatialLayers = 1, 1
	p.complexity = complexityLow
	p.intraPeriod = 0
	p.refFrames = 1
	p.spsPpsIDStrategy = 0 // constant: a decoder that begins anew finds the same sets
	p.prefixNAL, p.sSEI, p.simulcast = false, false, false
	p.entropyCoding = 0 // CAVLC, as in baseline
	p.frameSkip = false
	p.minQP, p.maxQP = 0, MaxQP
	p.longTermReference = false
	p.threads = uint16(threads)
	p.loadBalancing = false // slices of one size: the same input gives the same output
	p.loopFilterDisable = 0
	p.denoise = false
	p.backgroundDetection = false
	p.adaptiveQuant = false
	p.frameCropping = true
	p.sceneChangeDetect = false // it makes key frames that nobody asked for
	l := &p.layers[0]
	l.width, l.height = int32(width), int32(height)
	l.frameRate = p.maxFrameRate
	l.bitrate, l.maxBitrate = p.targetBitrate, 0
	l.profile = profileBaseline
	l.level = 0 // by size and rate
	l.qp = 26
	l.slices.mode, l.slices.number = sliceSingle, 1
	if threads > 1 {
		l.slices.mode, l.slices.number = sliceFixed, uint32(threads)
	}
	l.signalTypePresent, l.format, l.fullRange = true, videoUnspecified, false
	l.descriptionPresent = true
	l.primaries, l.transfer, l.matrix = primariesBT709, transferSRGB, matrixBT601
}

// method calls a method. Pointers in the arguments are to memory of e, which is on the heap.
func (e *h264Encoder) method(index int, a, b uintptr) int32 {
	return int32(e.call(at(e.methods, index), e.encoder, a, b))
}

func (e *h264Encoder) Encode(dst []byte, img Image, qp int, key bool) (out []byte, isKey bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	out = dst
	defer guard("OpenH264", &err)
	if e.encoder == 0 {
		return dst, false, ErrClosed
	}
	if err := e.cfg.checkFrame(img, qp); err != nil {
		return dst, false, err
	}
	if err := e.yuv.fill(e.planes, img); err != nil {
		return dst, false, err
	}
	if layer := &e.params.layers[0]; layer.qp != int32(qp) {
		layer.qp = int32(qp)
		if r := e.method(vtSetOption, optionParamExt, uintptr(unsafe.Pointer(&e.params))); r != 0 {
			layer.qp = -1 // whatever holds now
			return dst, false, fmt.Errorf("OpenH264: set QP %d: %d", qp, r)
		}
	}
	if key || e.renew {
		every := int32(allLayers)
		if r := e.method(vtForceIntraFrame, 1, uintptr(every)); r != 0 {
			return dst, false, fmt.Errorf("OpenH264: ask for a key frame: %d", r)
		}
	}
	e.source.timestamp = e.frames * 1000 / int64(e.cfg.FPS)
	e.frames++
	e.bits.layerCount, e.bits.frameType = 0, 0
	e.renew = true
	r := e.method(vtEncodeFrame, uintptr(unsafe.Pointer(&e.source)), uintptr(unsafe.Pointer(&e.bits)))
	if r != 0 {
		return dst, false, fmt.Errorf("OpenH264: encode frame %d: %d", e.frames, r)
	}
	isKey = e.bits.frameType == frameIDR
	if !isKey && e.bits.frameType != frameI && e.bits.frameType != frameP {
		return dst, false, fmt.Errorf("OpenH264: frame %d came out as type %d", e.frames, e.bits.frameType)
	}
	if out, err = e.bits.append(dst); err != nil {
		return dst, false, err
	}
	e.renew = false
	return out, isKey, nil
}

// append adds the frame's NAL units.
func (b *h264Bits) append(dst []byte) ([]byte, error) {
	if b.layerCount < 1 || int(b.layerCount) > len(b.layers) {
		return dst, fmt.Errorf("OpenH264: frame has %d layers", b.layerCount)
	}
	out := dst
	for i := range b.layers[:b.layerCount] {
		l := &b.layers[i]
		if l.nalCount < 1 || l.nalCount > 128 || l.nalLengths == 0 || l.data == 0 {
			return dst, fmt.Errorf("OpenH264: layer %d of a frame has %d NAL units", i, l.nalCount)
		}
		total := 0
		for n := range l.nalCount {
			total += int(*(*int32)(pointer(l.nalLengths + uintptr(4*n))))
		}
		if total < 1 || total > maxAccessUnit {
			return dst, fmt.Errorf("OpenH264: layer %d of a frame has %d bytes", i, total)
		}
		out = append(out, bytesAt(l.data, total)...)
	}
	return out, nil
}

// maxAccessUnit bounds what is believed of a library's lengths: more than any frame of the largest size has.
const maxAccessUnit = 64 << 20

func (e *h264Encoder) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.encoder != 0 {
		e.destroy(true)
	}
	return nil
}

func (e *h264Encoder) destroy(initialized bool) {
	if initialized {
		e.method(vtUninitialize, 0, 0)
	}
	e.call(e.lib.destroy, e.encoder)
	e.encoder, e.methods = 0, 0
	e.bits = h264Bits{}
	e.planes = nil
}

// checkFrame refuses a frame that an encoder was not made for.
func (c Config) checkFrame(img Image, qp int) error {
	if err := img.check(); err != nil {
		return err
	}
	if img.Width != c.Width || img.Height != c.Height {
		return fmt.Errorf("image is %dx%d: the encoder is for %dx%d", img.Width, img.Height, c.Width, c.Height)
	}
	if qp < 0 || qp > MaxQP {
		return fmt.Errorf("QP is %d: must be 0 to %d", qp, MaxQP)
	}
	return nil
}
