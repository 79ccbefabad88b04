package video

import (
	"bytes"
	"fmt"
	"testing"
)

// bits reads H.264's syntax, without the bytes that keep start codes apart. Beyond the end there are zeros.
type bits struct {
	data []byte
	at   int
}

func (b *bits) u(n int) (v int) {
	for range n {
		v <<= 1
		if b.at/8 < len(b.data) {
			v |= int(b.data[b.at/8]>>(7-b.at%8)) & 1
		}
		b.at++
	}
	return v
}

func (b *bits) flag() bool { return b.u(1) == 1 }

func (b *bits) ue() int {
	zeros := 0
	for b.u(1) == 0 && zeros < 32 {
		zeros++
	}
	return 1<<zeros - 1 + b.u(zeros)
}

func (b *bits) se() int {
	v := b.ue()
	if v%2 == 1 {
		return (v + 1) / 2
	}
	return -v / 2
}

// units splits an access unit in Annex B; the first byte of each is the unit's header.
func units(unit []byte) (out [][]byte) {
	for _, u := range bytes.Split(unit, []byte{0, 0, 1})[1:] {
		out = append(out, bytes.TrimRight(u, "\x00"))
	}
	return out
}

func payload(unit []byte) *bits {
	return &bits{data: bytes.ReplaceAll(unit[1:], []byte{0, 0, 3}, []byte{0, 0})}
}

// sps is a sequence parameter set of baseline profile, as far as it matters here.
type sps struct {
	Profile, Constraints, Level int
	FrameNumBits, POCType, Refs int
	Width, Height               int // after cropping
	FullRange                   bool
	Primaries, Transfer, Matrix int
	Restricted                  bool
	Reorder, DecodedFrames      int
	POCBits                     int
	PicInitQP                   int // from the picture parameter set

	rangeAt, matrixAt int // bits of the payload, of a set without emulation prevention
}

func parseSPS(unit []byte) (s sps) {
	b := payload(unit)
	s.Profile, s.Constraints, s.Level = b.u(8), b.u(8), b.u(8)
	b.ue()
	s.FrameNumBits = b.ue() + 4
	if s.POCType = b.ue(); s.POCType == 0 {
		s.POCBits = b.ue() + 4
	}
	s.Refs = b.ue()
	b.u(1)
	s.Width, s.Height = 16*(b.ue()+1), 16*(b.ue()+1)
	b.u(2) // frames only, 8x8 inference
	if b.flag() {
		left, right, top, bottom := b.ue(), b.ue(), b.ue(), b.ue()
		s.Width -= 2 * (left + right)
		s.Height -= 2 * (top + bottom)
	}
	if !b.flag() {
		return s
	}
	if b.flag() && b.u(8) == 255 {
		b.u(32)
	}
	if b.flag() {
		b.u(1)
	}
	if b.flag() {
		b.u(3)
		s.rangeAt = b.at
		s.FullRange = b.flag()
		if b.flag() {
			s.Primaries, s.Transfer = b.u(8), b.u(8)
			s.matrixAt = b.at
			s.Matrix = b.u(8)
		}
	}
	if b.flag() {
		b.ue()
		b.ue()
	}
	if b.flag() {
		b.u(32)
		b.u(33)
	}
	nal, vcl := b.flag(), b.flag()
	if nal || vcl {
		return s // none is expected
	}
	b.u(1)
	if s.Restricted = b.flag(); s.Restricted {
		b.u(1)
		b.ue()
		b.ue()
		b.ue()
		b.ue()
		s.Reorder, s.DecodedFrames = b.ue(), b.ue()
	}
	return s
}

// sliceQP is the quantizer of a slice of a stream with this sequence set.
func sliceQP(unit []byte, s sps) int {
	b := payload(unit)
	idr, ref := unit[0]&31 == 5, unit[0]>>5&3
	b.ue()
	kind := b.ue() % 5
	b.ue()
	b.u(s.FrameNumBits)
	if idr {
		b.ue()
	}
	b.u(s.POCBits)
	if kind == 0 {
		if b.flag() {
			b.ue()
		}
		if b.flag() {
			for b.ue() != 3 {
				b.ue()
			}
		}
	}
	switch {
	case idr:
		b.u(2)
	case ref != 0 && b.flag():
		for op := b.ue(); op != 0; op = b.ue() {
			b.ue()
		}
	}
	return s.PicInitQP + b.se()
}

// withColours changes the matrix and the range that a stream names in its first unit, and nothing of its pictures.
func withColours(t *testing.T, data []byte, matrix int, full bool) []byte {
	t.Helper()
	out := bytes.Clone(data)
	unit := units(out)[0]
	s := parseSPS(unit)
	if unit[0]&31 != 7 || bytes.Contains(unit, []byte{0, 0, 3}) || s.matrixAt == 0 {
		t.Fatalf("the stream does not begin with a plain sequence parameter set: % x", unit)
	}
	set := func(at, n, v int) {
		for i := range n {
			p, bit := &out[4+1+(at+i)/8], byte(0x80>>((at+i)%8))
			*p &^= bit
			if v>>(n-1-i)&1 == 1 {
				*p |= bit
			}
		}
	}
	set(s.matrixAt, 8, matrix)
	if full {
		set(s.rangeAt, 1, 1)
	}
	if got := parseSPS(units(out)[0]); got.Matrix != matrix || got.FullRange != full || got.Primaries != s.Primaries {
		t.Fatalf("the change went wrong: %+v", got)
	}
	return out
}

// TestH264Stream reads the streams themselves: what profile they are of, that decoders need not wait for later frames, in
// which colours they are, and that each frame has exactly the quantizer that was asked for.
func TestH264Stream(t *testing.T) {
	l := libraries(t, H264)
	sizes := [][2]int{{16, 16}, {101, 75}, {640, 360}}
	if whole() {
		sizes = append(sizes, [2]int{1920, 1080}, [2]int{4096, 2304})
	}
	for _, size := range sizes {
		for _, threads := range []int{1, 2} {
			t.Run(fmt.Sprintf("%dx%d/threads=%d", size[0], size[1], threads), func(t *testing.T) {
				e, err := l.NewEncoder(Config{Codec: H264, Width: size[0], Height: size[1], Threads: threads})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = e.Close() }()
				checkH264Stream(t, e, size[0], size[1], threads)
			})
		}
	}
}

func checkH264Stream(t *testing.T, e Encoder, width, height, threads int) {
	img := picture(width, height, 0)
	var s sps
	qps := []int{26, 0, 1, 11, 12, 22, 36, 50, 51, 27}
	for i, qp := range qps {
		forced := i == 5
		out, isKey, err := e.Encode(nil, img, qp, forced)
		if err != nil {
			t.Fatal(err)
		}
		slices := 0
		var kinds []int
		for _, u := range units(out) {
			kind := int(u[0] & 31)
			kinds = append(kinds, kind)
			switch kind {
			case 7:
				next := parseSPS(u)
				if i > 0 {
					next.PicInitQP = s.PicInitQP
					if next != s {
						t.Errorf("frame %d: the sequence parameter set changed from %+v to %+v", i, s, next)
					}
				}
				s = next
			case 8:
				b := payload(u)
				b.ue()
				b.ue()
				if cabac := b.flag(); cabac {
					t.Error("CABAC in baseline")
				}
				b.u(1)
				b.ue()
				b.ue()
				b.ue()
				b.u(3)
				s.PicInitQP = 26 + b.se()
			case 1, 5:
				slices++
				if got := sliceQP(u, s); got != qp {
					t.Errorf("frame %d has QP %d, want %d", i, got, qp)
				}
				if (kind == 5) != isKey {
					t.Errorf("frame %d: NAL unit %d, but key frame is %v", i, kind, isKey)
				}
			default:
				t.Errorf("frame %d has a NAL unit of type %d", i, kind)
			}
		}
		if isKey != (i == 0 || forced) {
			t.Errorf("frame %d: key frame is %v", i, isKey)
		}
		if isKey && (kinds[0] != 7 || kinds[1] != 8) {
			t.Errorf("frame %d: NAL units %v, want the parameter sets first", i, kinds)
		}
		wantSlices := threads
		if height < 2*h264SliceMinimum {
			wantSlices = 1
		}
		if slices != wantSlices {
			t.Errorf("frame %d has %d slices, want %d", i, slices, wantSlices)
		}
	}
	w, h := Config{Width: width, Height: height}.CodedSize()
	if s.Width != w || s.Height != h {
		t.Errorf("coded size is %dx%d, want %dx%d", s.Width, s.Height, w, h)
	}
	if s.Profile != 66 || s.Constraints&0xc0 != 0xc0 {
		t.Errorf("profile %d, constraints %#x: want constrained baseline", s.Profile, s.Constraints)
	}
	if s.Refs != 1 || !s.Restricted || s.Reorder != 0 || s.DecodedFrames > 1 {
		t.Errorf("decoders may wait for later frames: %+v", s)
	}
	if s.FullRange || s.Primaries != 1 || s.Transfer != 13 || s.Matrix != 6 {
		t.Errorf("colours are %+v: want BT.601, limited range, sRGB", s)
	}
	t.Logf("%+v", s)
}
