package video

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"sync"
	"unsafe"

	"github.com/ebitengine/purego"
)

// Numbers of turbojpeg.h.
const (
	tjBGRX      = 3    // TJPF_BGRX
	tj444       = 0    // TJSAMP_444
	tj420       = 2    // TJSAMP_420
	tjNoRealloc = 1024 // TJFLAG_NOREALLOC: the output is in our memory
	tjFastDCT   = 2048 // TJFLAG_FASTDCT
	// tjFastLimit is the quality up to which the fast transform loses nothing that can be seen.
	tjFastLimit = 90
)

// turboJPEG is libturbojpeg. Its handles are for one goroutine at a time, so they are kept in a pool.
type turboJPEG struct {
	initCompress, destroy function
	compress, lastError   function
	bufferSize            function

	mu   sync.Mutex
	free []*tjHandle
}

// maxIdle bounds the handles that are kept, and what is kept with them.
const maxIdle = 4

type tjHandle struct {
	caller
	handle uintptr
	source []byte  // the pixels of the present call: there they are on the heap and alive
	buffer []byte  // of the library's output
	target uintptr // &buffer[0], as the library takes it
	size   uint64  // of the output
}

func openTurboJPEG(soname string) (*turboJPEG, error) {
	lib, err := open(soname)
	if err != nil {
		return nil, err
	}
	t := &turboJPEG{}
	err = lib.functions(map[string]*function{
		"tjInitCompress": &t.initCompress, "tjDestroy": &t.destroy, "tjCompress2": &t.compress,
		"tjGetErrorStr2": &t.lastError, "tjBufSize": &t.bufferSize,
	})
	if err != nil {
		return nil, err
	}
	if err := t.try(); err != nil {
		return nil, fmt.Errorf("%s: %w", soname, err)
	}
	return t, nil
}

// try codes a picture of one colour and looks at it through Go's decoder.
func (t *turboJPEG) try() error {
	const edge = 16
	img := Image{Pix: bytes.Repeat([]byte{200, 100, 20, 0}, edge*edge), Stride: 4 * edge, Width: edge, Height: edge}
	out, err := t.append(nil, img, 95, false)
	if err != nil {
		return err
	}
	decoded, err := jpeg.Decode(bytes.NewReader(out))
	if err != nil {
		return fmt.Errorf("trial picture: %w", err)
	}
	r, g, b, _ := decoded.At(edge/2, edge/2).RGBA()
	near := func(got uint32, want int) bool { d := int(got>>8) - want; return -8 < d && d < 8 }
	if decoded.Bounds() != image.Rect(0, 0, edge, edge) || !near(r, 20) || !near(g, 100) || !near(b, 200) {
		return errors.New("the trial picture came out wrong")
	}
	return nil
}

func (t *turboJPEG) take() (*tjHandle, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if n := len(t.free); n > 0 {
		h := t.free[n-1]
		t.free = t.free[:n-1]
		return h, nil
	}
	handle, _, _ := purego.SyscallN(uintptr(t.initCompress))
	if handle == 0 {
		return nil, errors.New("libturbojpeg: no handle")
	}
	return &tjHandle{handle: handle}, nil
}

func (t *turboJPEG) put(h *tjHandle) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.free) < maxIdle {
		t.free = append(t.free, h)
		return
	}
	purego.SyscallN(uintptr(t.destroy), h.handle)
}

// append codes img, which is checked, after dst.
func (t *turboJPEG) append(dst []byte, img Image, quality int, subsample bool) (out []byte, err error) {
	out = dst
	defer guard("libturbojpeg", &err)
	sampling := tj444
	if subsample {
		sampling = tj420
	}
	flags := tjNoRealloc
	if quality <= tjFastLimit {
		flags |= tjFastDCT
	}
	h, err := t.take()
	if err != nil {
		return dst, err
	}
	defer t.put(h)
	most := h.call(t.bufferSize, uintptr(img.Width), uintptr(img.Height), uintptr(sampling))
	if int64(most) < 1 || most > maxJPEG {
		return dst, fmt.Errorf("libturbojpeg: no bound for the size of %dx%d", img.Width, img.Height)
	}
	if uintptr(len(h.buffer)) < most {
		h.buffer = make([]byte, most)
	}
	h.source, h.target, h.size = img.Pix, uintptr(unsafe.Pointer(unsafe.SliceData(h.buffer))), uint64(len(h.buffer))
	r := int32(h.call(t.compress, h.handle,
		uintptr(unsafe.Pointer(unsafe.SliceData(h.source))), uintptr(img.Width), uintptr(img.Stride), uintptr(img.Height), tjBGRX,
		uintptr(unsafe.Pointer(&h.target)), uintptr(unsafe.Pointer(&h.size)), uintptr(sampling), uintptr(quality), uintptr(flags)))
	h.source = nil
	if r != 0 || h.size > uint64(len(h.buffer)) {
		return dst, fmt.Errorf("libturbojpeg: %dx%d: %s", img.Width, img.Height, stringAt(h.call(t.lastError, h.handle)))
	}
	return append(dst, h.buffer[:h.size]...), nil
}

// maxJPEG bounds the memory of one picture.
const maxJPEG = 256 << 20

// jpegScratch holds what Go's encoder needs from call to call.
type jpegScratch struct {
	picture image.RGBA
	out     bytes.Buffer
}

var jpegScratches = sync.Pool{New: func() any { return new(jpegScratch) }}

// AppendJPEG appends img as a JFIF picture to dst; quality is 1 to 100. subsample halves the chroma in both directions,
// as Go's own encoder, which stands in when the machine has no libturbojpeg, always does. An error leaves dst as it was.
func (l *Libraries) AppendJPEG(dst []byte, img Image, quality int, subsample bool) ([]byte, error) {
	if err := img.check(); err != nil {
		return dst, err
	}
	if quality < 1 || quality > 100 {
		return dst, fmt.Errorf("quality is %d: must be 1 to 100", quality)
	}
	if img.Width*img.Height > maxJPEGPixels {
		return dst, fmt.Errorf("image is %dx%d: more than %d pixels", img.Width, img.Height, maxJPEGPixels)
	}
	if l.jpeg != nil {
		return l.jpeg.append(dst, img, quality, subsample)
	}
	s, _ := jpegScratches.Get().(*jpegScratch)
	defer jpegScratches.Put(s)
	s.fill(img)
	s.out.Reset()
	if err := jpeg.Encode(&s.out, &s.picture, &jpeg.Options{Quality: quality}); err != nil {
		return dst, fmt.Errorf("JPEG: %w", err)
	}
	return append(dst, s.out.Bytes()...), nil
}

// maxJPEGPixels is four times a screen of 5120×2880.
const maxJPEGPixels = 4 * 5120 * 2880

// fill makes the picture that Go's encoder has a fast way for.
func (s *jpegScratch) fill(img Image) {
	size := 4 * img.Width * img.Height
	if cap(s.picture.Pix) < size {
		s.picture.Pix = make([]byte, size)
	}
	s.picture.Pix = s.picture.Pix[:size]
	s.picture.Stride, s.picture.Rect = 4*img.Width, image.Rect(0, 0, img.Width, img.Height)
	for y := range img.Height {
		from := img.Pix[y*img.Stride:][:4*img.Width]
		to := s.picture.Pix[y*4*img.Width:][:4*img.Width]
		for i := 0; i+4 <= len(from); i += 4 {
			v := binary.BigEndian.Uint32(from[i:]) // BBGGRRXX
			binary.LittleEndian.PutUint32(to[i:], v>>8&0xff|v>>8&0xff00|v>>8&0xff0000|0xff000000)
		}
	}
}
