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
	return nil
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
// Blue and red of a pixel stand in one word, 16 bits apart, so that one multiplication does both.
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
	// lumaRB times (red<<16 | blue) has 66 red + 25 blue in bits 16 to 31.
	lumaRB    = 66 | 25<<16
	lumaG     = 129
	lumaRound = 0x1080
	// chromaRound is 128.5 of 256, for the sum of four pixels.
	chromaRound = 0x8080 << 2
)

// luma is the Y of one pixel, which is 0xXXRRGGBB.
func luma(pixel uint32) byte {
	rb := uint64(pixel&redBlue) * lumaRB
	return byte((uint32(rb>>16)&0xffff + (pixel>>8&0xff)*lumaG + lumaRound) >> 8)
}

// convertRows makes two rows of luma and one of each chroma of two rows of pixels.
func convertRows(y0, y1, u, v, top, below []byte) {
	n := len(top) / 8 // pairs of pixels
	below = below[:len(top)]
	y0, y1 = y0[:2*n+len(top)/4&1], y1[:2*n+len(top)/4&1]
	u, v = u[:(len(top)/4+1)/2], v[:(len(top)/4+1)/2]
	for i := range n {
		a := binary.LittleEndian.Uint64(top[8*i:])
		b := binary.LittleEndian.Uint64(below[8*i:])
		a0, a1, b0, b1 := uint32(a), uint32(a>>32), uint32(b), uint32(b>>32)
		y0[2*i], y0[2*i+1] = luma(a0), luma(a1)
		y1[2*i], y1[2*i+1] = luma(b0), luma(b1)
		u[i], v[i] = chroma(a0, a1, b0, b1)
	}
	if len(top)/4&1 == 1 {
		a := binary.LittleEndian.Uint32(top[8*n:])
		b := binary.LittleEndian.Uint32(below[8*n:])
		y0[2*n], y1[2*n] = luma(a), luma(b)
		u[n], v[n] = chroma(a, a, b, b)
	}
}

// chroma is U and V of four pixels.
func chroma(a0, a1, b0, b1 uint32) (u, v byte) {
	rb := a0&redBlue + a1&redBlue + b0&redBlue + b1&redBlue
	g := int32(a0>>8&0xff + a1>>8&0xff + b0>>8&0xff + b1>>8&0xff)
	r, b := int32(rb>>16), int32(rb&0xffff)
	return byte((112*b - 74*g - 38*r + chromaRound) >> 10), byte((112*r - 94*g - 18*b + chromaRound) >> 10)
}
