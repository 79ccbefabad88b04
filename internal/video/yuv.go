package video

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"
)

// planes is a picture in 4:2:0: a byte of luma a pixel, and a byte of each chroma a square of four. BT.601, limited
// range. Width and height are even.
type planes struct {
	y, u, v       []byte
	width, height int
	yStride       int // bytes
	cStride       int

	half []byte // of pixels: the picture at half its size, where that is what is coded

	caller
	source []byte // the pixels of the present call: there they are on the heap and alive
}

// planeAlign keeps rows on the boundaries of vector instructions.
const planeAlign = 64

// newPlanes makes planes on the heap, whose memory never moves.
//
//go:noinline
func newPlanes(width, height int) *planes {
	p := &planes{width: width, height: height}
	p.yStride = (width + planeAlign - 1) &^ (planeAlign - 1)
	p.cStride = (width/2 + planeAlign - 1) &^ (planeAlign - 1)
	memory := make([]byte, p.yStride*height+p.cStride*height)
	p.y, memory = memory[:p.yStride*height:p.yStride*height], memory[p.yStride*height:]
	p.u, p.v = memory[:p.cStride*height/2:p.cStride*height/2], memory[p.cStride*height/2:]
	return p
}

// planesFor makes the planes that an encoder codes.
func planesFor(cfg Config) *planes {
	p := newPlanes(cfg.CodedSize())
	if cfg.Half {
		p.half = make([]byte, 4*p.width*p.height)
	}
	return p
}

// address is where a plane's memory begins: 0 is luma. The user keeps p alive.
func (p *planes) address(plane int) uintptr {
	return uintptr(unsafe.Pointer(unsafe.SliceData([...][]byte{p.y, p.u, p.v}[plane])))
}

// yuv is libyuv. It has no function that tells its version; a trial does instead. A nil *yuv stands for Go's own code.
type yuv struct {
	argbToI420 function
	argbScale  function
}

func openYUV(soname string) (*yuv, error) {
	lib, err := open(soname)
	if err != nil {
		return nil, err
	}
	c := &yuv{}
	if err := lib.functions(map[string]*function{"ARGBToI420": &c.argbToI420, "ARGBScale": &c.argbScale}); err != nil {
		return nil, err
	}
	if err := c.try(); err != nil {
		return nil, fmt.Errorf("%s: %w", soname, err)
	}
	return c, nil
}

// try converts a picture of all colours and compares it with Go's result.
func (c *yuv) try() error {
	const width, height = 64, 32
	pix := make([]byte, 4*width*height)
	for i := range width * height {
		binary.LittleEndian.PutUint32(pix[4*i:], uint32(i)*0x01020b)
	}
	img := Image{Pix: pix, Stride: 4 * width, Width: width, Height: height}
	got, want := newPlanes(width, height), newPlanes(width, height)
	if err := c.convert(got, img); err != nil {
		return err
	}
	convertGo(want, img)
	for _, p := range [][2][]byte{{got.y, want.y}, {got.u, want.u}, {got.v, want.v}} {
		for i := range p[0] {
			if d := int(p[0][i]) - int(p[1][i]); d < -3 || d > 3 {
				return errors.New("the trial conversion gave other colours")
			}
		}
	}
	p := planesFor(Config{Width: width, Height: height, Half: true})
	half := Image{Pix: make([]byte, len(p.half)), Stride: 4 * p.width, Width: p.width, Height: p.height}
	halve(half, img)
	if err := c.scale(p, half, img); err != nil {
		return err
	}
	for i := range half.Pix {
		if d := int(half.Pix[i]) - int(p.half[i]); i%4 != 3 && (d < -2 || d > 2) {
			return errors.New("the trial scaling gave another picture")
		}
	}
	return nil
}

// fill makes the planes of a picture of the size that p was made for.
func (c *yuv) fill(p *planes, img Image) error {
	if p.half == nil {
		return c.convert(p, img)
	}
	half := Image{Pix: p.half, Stride: 4 * p.width, Width: p.width, Height: p.height}
	if err := c.scale(p, half, img); err != nil {
		return err
	}
	return c.convert(p, half)
}

// scaleBox is kFilterBox: each pixel is the mean of those that it stands for.
const scaleBox = 3

// scale fills to, which is p.half, with from at another size.
func (c *yuv) scale(p *planes, to, from Image) error {
	if c == nil {
		halve(to, from)
		return nil
	}
	p.source = from.Pix
	r := int32(p.call(c.argbScale,
		uintptr(unsafe.Pointer(unsafe.SliceData(p.source))), uintptr(from.Stride), uintptr(from.Width), uintptr(from.Height),
		uintptr(unsafe.Pointer(unsafe.SliceData(p.half))), uintptr(to.Stride), uintptr(to.Width), uintptr(to.Height), scaleBox))
	p.source = nil
	if r != 0 {
		return fmt.Errorf("libyuv: scaling of %dx%d to %dx%d failed: %d", from.Width, from.Height, to.Width, to.Height, r)
	}
	return nil
}

// halve is the scaling in Go: the mean of two by two pixels, at the place that a pixel of to stands for.
func halve(to, from Image) {
	for y := range to.Height {
		y0 := y * from.Height / to.Height
		top := from.Pix[y0*from.Stride:][:4*from.Width]
		below := from.Pix[min(y0+1, from.Height-1)*from.Stride:][:4*from.Width]
		row := to.Pix[y*to.Stride:][:4*to.Width]
		if from.Width == 2*to.Width {
			for x := range to.Width {
				a := binary.LittleEndian.Uint64(top[8*x:])
				b := binary.LittleEndian.Uint64(below[8*x:])
				binary.LittleEndian.PutUint32(row[4*x:], mean(uint32(a), uint32(a>>32), uint32(b), uint32(b>>32)))
			}
			continue
		}
		for x := range to.Width {
			x0 := x * from.Width / to.Width
			x1 := min(x0+1, from.Width-1)
			binary.LittleEndian.PutUint32(row[4*x:], mean(
				binary.LittleEndian.Uint32(top[4*x0:]), binary.LittleEndian.Uint32(top[4*x1:]),
				binary.LittleEndian.Uint32(below[4*x0:]), binary.LittleEndian.Uint32(below[4*x1:])))
		}
	}
}

// mean is the mean of four pixels, channel by channel.
func mean(a, b, c, d uint32) uint32 {
	rb := a&redBlue + b&redBlue + c&redBlue + d&redBlue + 0x20002
	g := a>>8&0xff + b>>8&0xff + c>>8&0xff + d>>8&0xff + 2
	return rb>>2&redBlue | g>>2<<8
}

// convert fills p with img, whose size is p's or one less where that is odd.
func (c *yuv) convert(p *planes, img Image) error {
	if c == nil {
		convertGo(p, img)
		return nil
	}
	p.source = img.Pix
	r := p.call(c.argbToI420,
		uintptr(unsafe.Pointer(unsafe.SliceData(p.source))), uintptr(img.Stride),
		p.address(0), uintptr(p.yStride), p.address(1), uintptr(p.cStride), p.address(2), uintptr(p.cStride),
		uintptr(img.Width), uintptr(img.Height))
	p.source = nil
	if int32(r) != 0 {
		return fmt.Errorf("libyuv: conversion of %dx%d failed: %d", img.Width, img.Height, int32(r))
	}
	p.pad(img.Width, img.Height)
	return nil
}

// pad repeats the last column and row of luma where the picture's are odd; chroma has them already.
func (p *planes) pad(width, height int) {
	if width < p.width {
		for y := range height {
			row := p.y[y*p.yStride:][:p.width]
			row[width] = row[width-1]
		}
	}
	if height < p.height {
		copy(p.y[height*p.yStride:][:p.width], p.y[(height-1)*p.yStride:][:p.width])
	}
}

// convertGo is the conversion in Go, with the numbers of libyuv:
//
//	Y = (66 R + 129 G +  25 B + 0x1080) >> 8
//	U = (112 B - 74 G - 38 R + 0x8080) >> 8, V = (112 R - 94 G - 18 B + 0x8080) >> 8, of the mean of four pixels.
//
// Two pixels are one word, and the same channel of both is 32 bits apart, so that one multiplication does both.
func convertGo(p *planes, img Image) {
	for y := 0; y < img.Height; y += 2 {
		top := img.Pix[y*img.Stride:][:4*img.Width]
		below := top
		y1 := y
		if y+1 < img.Height {
			y1 = y + 1
			below = img.Pix[y1*img.Stride:][:4*img.Width]
		}
		convertRows(
			p.y[y*p.yStride:][:p.width], p.y[y1*p.yStride:][:p.width],
			p.u[y/2*p.cStride:][:p.width/2], p.v[y/2*p.cStride:][:p.width/2], top, below)
	}
	p.pad(img.Width, img.Height)
}

const (
	redBlue = 0xff00ff
	both    = 1 | 1<<32      // 1 in each of the two pixels
	channel = 0xff * both    // the lowest byte of each
	pairs   = redBlue * both // blue and red of each
	// chromaRound is 128.5 of 256, for the sum of four pixels.
	chromaRound = 0x8080 << 2
)

// luma is the Y of two pixels, of which each is 0xXXRRGGBB, in the low two bytes.
func luma(pixels uint64) uint16 {
	y := (pixels>>16&channel)*66 + (pixels>>8&channel)*129 + (pixels&channel)*25 + 0x1080*both
	return uint16(y>>8&0xff | y>>32&0xff00)
}

// chroma is U and V of four pixels.
func chroma(a, b uint64) (u, v byte) {
	rb := a&pairs + b&pairs
	rb += rb >> 32
	green := a>>8&channel + b>>8&channel
	red, blue, g := int32(rb>>16&0xffff), int32(rb&0xffff), int32(green)+int32(green>>32)
	return byte((112*blue - 74*g - 38*red + chromaRound) >> 10), byte((112*red - 94*g - 18*blue + chromaRound) >> 10)
}

// convertRows makes two rows of luma and one of each chroma of two rows of pixels. The last pixel of an odd row counts
// twice; luma has room for it.
func convertRows(y0, y1, u, v, top, below []byte) {
	n := len(top) / 8 // pairs of pixels
	odd := len(top)/4&1 == 1
	if odd {
		last := len(top) - 4
		a := uint64(binary.LittleEndian.Uint32(top[last:])) * both
		b := uint64(binary.LittleEndian.Uint32(below[last:])) * both
		y0[2*n], y1[2*n] = byte(luma(a)), byte(luma(b))
		u[n], v[n] = chroma(a, b)
	}
	// Lengths that the compiler can see save it a check an access.
	top, below = top[:8*n], below[:8*n]
	y0, y1, u, v = y0[:2*n], y1[:2*n], u[:n], v[:n]
	for i := range u {
		a := binary.LittleEndian.Uint64(top[8*i : 8*i+8])
		b := binary.LittleEndian.Uint64(below[8*i : 8*i+8])
		la, lb := luma(a), luma(b)
		y0[2*i], y0[2*i+1] = byte(la), byte(la>>8)
		y1[2*i], y1[2*i+1] = byte(lb), byte(lb>>8)
		u[i], v[i] = chroma(a, b)
	}
}
