package video

import (
	"errors"
	"fmt"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
)

// Layouts and numbers of libvpx's interface, from vpx/vpx_encoder.h, vpx_codec.h, vpx_image.h and vp8cx.h of 1.12. They
// are those of libvpx.so.7; openVPX refuses any other version, and the library another number of its interface.

// vpxABI is VPX_ENCODER_ABI_VERSION of 1.12.
const vpxABI = 25

// vpxConfig is vpx_codec_enc_cfg_t; what this package does not set keeps the library's defaults.
type vpxConfig struct {
	usage, threads, profile uint32
	width, height           uint32
	bitDepth                int32
	inputBitDepth           uint32
	timebase                [2]int32
	errorResilient          uint32
	pass                    int32
	lagInFrames             uint32
	dropFrames              uint32
	resizeAllowed           uint32
	scaled                  [2]uint32
	resizeThresholds        [2]uint32
	endUsage                int32
	stats                   [2]struct{ data, size uintptr }
	bitrate                 uint32 // kbit/s
	minQ, maxQ              uint32
	undershoot, overshoot   uint32
	buffer                  [3]uint32
	twoPass                 [4]uint32
	kfMode                  int32
	kfMin, kfMax            uint32
	rest                    [332]byte
}

// vpxImage is vpx_image_t.
type vpxImage struct {
	format, colorSpace, colorRange int32
	width, height, bitDepth        uint32
	shown, rendered                [2]uint32
	chromaShift                    [2]uint32
	planes                         [4]uintptr
	stride                         [4]int32
	bps                            int32
	private, data                  uintptr
	owner, self                    int32
	frameBuffer                    uintptr
}

// vpxPacket is the part of vpx_codec_cx_pkt_t that a frame has.
type vpxPacket struct {
	kind       int32
	data, size uintptr
	pts        int64
	duration   uint64
	flags      uint32
}

const (
	vpxI420          = 258 // VPX_IMG_FMT_I420
	vpxRealtime      = 1   // VPX_DL_REALTIME
	vpxForceKey      = 1   // VPX_EFLAG_FORCE_KF
	vpxFrameIsKey    = 1   // VPX_FRAME_IS_KEY
	vpxFramePacket   = 0   // VPX_CODEC_CX_FRAME_PKT
	vpxCBR           = 1   // VPX_CBR
	vp8SetCPUUsed    = 13  // VP8E_SET_CPUUSED
	vp8SetNoise      = 15  // VP8E_SET_NOISE_SENSITIVITY
	vp8SetStatic     = 17  // VP8E_SET_STATIC_THRESHOLD
	vp8SetPartitions = 18  // VP8E_SET_TOKEN_PARTITIONS
	// vp8CPUUsed is how much the encoder saves: the best ratio of CPU time and bytes in measurements.
	vp8CPUUsed = -12
)

// vpx is the library.
type vpx struct {
	iface, configDefault, configSet function
	initVer, encode, packet         function
	control, destroy, wrap          function
	detail                          function
	version                         string
}

func (v *vpx) String() string {
	if v == nil {
		return ""
	}
	return "libvpx " + v.version
}

func openVPX(soname string) (*vpx, error) {
	lib, err := open(soname)
	if err != nil {
		return nil, err
	}
	v := &vpx{}
	var version function
	err = lib.functions(map[string]*function{
		"vpx_codec_version": &version, "vpx_codec_vp8_cx": &v.iface, "vpx_codec_enc_config_default": &v.configDefault,
		"vpx_codec_enc_config_set": &v.configSet, "vpx_codec_enc_init_ver": &v.initVer, "vpx_codec_encode": &v.encode,
		"vpx_codec_get_cx_data": &v.packet, "vpx_codec_control_": &v.control, "vpx_codec_destroy": &v.destroy,
		"vpx_img_wrap": &v.wrap, "vpx_codec_error_detail": &v.detail,
	})
	if err != nil {
		return nil, err
	}
	n, _, _ := purego.SyscallN(uintptr(version))
	v.version = fmt.Sprintf("%d.%d.%d", n>>16&0xff, n>>8&0xff, n&0xff)
	if n>>16&0xff != 1 || n>>8&0xff != 12 {
		return nil, fmt.Errorf("%s is libvpx %s: only 1.12 is known", soname, v.version)
	}
	if err := v.try(); err != nil {
		return nil, fmt.Errorf("%s (libvpx %s): %w", soname, v.version, err)
	}
	return v, nil
}

// try codes two small frames.
func (v *vpx) try() (err error) {
	e, err := v.newEncoder(Config{Codec: VP8, Width: 32, Height: 32, FPS: 30, Threads: 1}, nil)
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
		// The lowest bit of a frame is 0 in key frames (RFC 6386, 9.1).
		if isKey != wantKey || len(out) < 3 || (out[0]&1 == 0) != wantKey {
			return fmt.Errorf("trial frame %d is no VP8 frame as expected", i)
		}
	}
	return nil
}

// vpxEncoder is a vpx_codec_ctx_t. What the library is given pointers to lives in it, on the heap.
type vpxEncoder struct {
	lib *vpx
	yuv *yuv
	cfg Config

	mu sync.Mutex // guards all below
	caller
	open    bool
	context [7]uintptr // vpx_codec_ctx_t
	config  vpxConfig
	image   vpxImage
	iter    uintptr
	planes  *planes
	frames  int64
	renew   bool // a frame was lost on the way to the caller
}

func (v *vpx) newEncoder(cfg Config, converter *yuv) (enc Encoder, err error) {
	defer guard("make VP8 encoder", &err)
	e := &vpxEncoder{lib: v, yuv: converter, cfg: cfg}
	width, height := cfg.CodedSize()
	e.planes = planesFor(cfg)
	iface := e.call(v.iface)
	if r := int32(e.call(v.configDefault, iface, uintptr(unsafe.Pointer(&e.config)), 0)); r != 0 {
		return nil, fmt.Errorf("libvpx: default parameters: %d", r)
	}
	c := &e.config
	if c.timebase != [2]int32{1, 30} || c.maxQ != 63 || c.kfMax != 128 {
		return nil, errors.New("libvpx: the default parameters are not those of a known version")
	}
	c.threads = 1 // two of them spin, and cost many times the CPU on busy machines
	c.width, c.height = uint32(width), uint32(height)
	c.timebase = [2]int32{1, int32(cfg.FPS)}
	c.errorResilient, c.lagInFrames, c.dropFrames, c.resizeAllowed = 0, 0, 0, 0
	c.endUsage = vpxCBR
	c.bitrate = 100_000 // of no effect, as the quantizer is given
	c.kfMode = 0        // key frames on demand alone
	c.minQ, c.maxQ = uint32(vp8Quantizers[26]), uint32(vp8Quantizers[26])
	r := int32(0)
	withSignalsBlocked(func() {
		r = int32(e.call(v.initVer, uintptr(unsafe.Pointer(&e.context)), iface, uintptr(unsafe.Pointer(c)), 0, vpxABI))
	})
	if r != 0 {
		return nil, fmt.Errorf("libvpx: start encoder for %dx%d: %d", width, height, r)
	}
	e.open = true
	for _, control := range [][2]int{{vp8SetCPUUsed, vp8CPUUsed}, {vp8SetNoise, 0}, {vp8SetStatic, 1}, {vp8SetPartitions, 0}} {
		if r := int32(e.call(v.control, uintptr(unsafe.Pointer(&e.context)), uintptr(control[0]), uintptr(control[1]))); r != 0 {
			e.close()
			return nil, fmt.Errorf("libvpx: set parameter %d: %d", control[0], r)
		}
	}
	e.call(v.wrap, uintptr(unsafe.Pointer(&e.image)), vpxI420, uintptr(width), uintptr(height), 1, e.planes.address(0))
	if e.image.format != vpxI420 || e.image.shown != [2]uint32{uint32(width), uint32(height)} {
		e.close()
		return nil, errors.New("libvpx: its images are not those of a known version")
	}
	e.image.planes = [4]uintptr{e.planes.address(0), e.planes.address(1), e.planes.address(2)}
	e.image.stride = [4]int32{int32(e.planes.yStride), int32(e.planes.cStride), int32(e.planes.cStride)}
	return e, nil
}

func (e *vpxEncoder) Encode(dst []byte, img Image, qp int, key bool) (out []byte, isKey bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	out = dst
	defer guard("libvpx", &err)
	if !e.open {
		return dst, false, ErrClosed
	}
	if err := e.cfg.checkFrame(img, qp); err != nil {
		return dst, false, err
	}
	if err := e.yuv.fill(e.planes, img); err != nil {
		return dst, false, err
	}
	context := uintptr(unsafe.Pointer(&e.context))
	if q := uint32(vp8Quantizers[qp]); e.config.maxQ != q {
		e.config.minQ, e.config.maxQ = q, q
		if r := int32(e.call(e.lib.configSet, context, uintptr(unsafe.Pointer(&e.config)))); r != 0 {
			e.config.maxQ = 64 // whatever holds now
			return dst, false, fmt.Errorf("libvpx: set quantizer %d: %d", q, r)
		}
	}
	flags := uintptr(0)
	if key || e.renew {
		flags = vpxForceKey
	}
	e.renew = true
	e.frames++
	r := int32(e.call(e.lib.encode, context, uintptr(unsafe.Pointer(&e.image)), uintptr(e.frames), 1, flags, vpxRealtime))
	if r != 0 {
		return dst, false, fmt.Errorf("libvpx: encode frame %d: %d", e.frames, r)
	}
	if out, isKey, err = e.take(dst, context); err != nil {
		return dst, false, err
	}
	e.renew = false
	return out, isKey, nil
}

// take appends the frame that was coded; there must be one.
func (e *vpxEncoder) take(dst []byte, context uintptr) (out []byte, isKey bool, err error) {
	out = dst
	e.iter = 0
	for range 8 {
		address := e.call(e.lib.packet, context, uintptr(unsafe.Pointer(&e.iter)))
		if address == 0 {
			break
		}
		p := (*vpxPacket)(pointer(address))
		if p.kind != vpxFramePacket {
			continue
		}
		if p.size < 1 || p.size > maxAccessUnit || p.data == 0 {
			return dst, false, fmt.Errorf("libvpx: frame %d has %d bytes", e.frames, p.size)
		}
		out = append(out, bytesAt(p.data, int(p.size))...)
		isKey = isKey || p.flags&vpxFrameIsKey != 0
	}
	if len(out) == len(dst) {
		return dst, false, fmt.Errorf("libvpx: frame %d was left out", e.frames)
	}
	return out, isKey, nil
}

func (e *vpxEncoder) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.close()
	return nil
}

func (e *vpxEncoder) close() {
	if e.open {
		e.call(e.lib.destroy, uintptr(unsafe.Pointer(&e.context)))
		e.open = false
		e.planes = nil
	}
}

// vp8Quantizers are libvpx's quantizers (0 to 63) whose luma has the PSNR nearest to that of each QP of H.264, as measured
// with moving texture. VP8's finest is H.264's QP 9, its coarsest QP 42.
var vp8Quantizers = [MaxQP + 1]uint8{
	0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 2, 3, 3, 4, 5, 6, 7, 9, 10, 11, 13, 16, 18,
	21, 25, 28, 31, 34, 37, 40, 41, 43, 45, 47, 49, 51, 54, 58, 61, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63,
}
