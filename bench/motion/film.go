package main

import (
	"math"
	"math/rand/v2"
	"time"
)

// A film is a large landscape over which a camera pans: smooth shapes, edges and fine texture, with grain as of a camera that
// differs from frame to frame. The landscape is kept several times with different grain, so that showing a frame costs no
// more than copying it.
type film struct {
	width, height int
	pixels        []uint32 // copies × rows × stride, 0xRRGGBB
	covered       [copies][]uint32
	at            [copies][2]int // where the cells of each copy lie now
}

const (
	copies  = 8
	marginX = 256 // how far the camera pans, in pixels
	marginY = 128

	cell    = 16 // side of a cell in pixels; bench/motion.mjs knows the same layout
	columns = 4
	lines   = 5 // sixteen bits of the number, then their checksum
	inset   = 16
)

func (f *film) stride() int { return f.width + marginX }
func (f *film) rows() int   { return f.height + marginY }
func (f *film) size() int   { return copies * f.stride() * f.rows() * 4 }

// shoot paints every copy; the same picture each time the program runs.
func (f *film) shoot() {
	stride, rows := f.stride(), f.rows()
	random := rand.New(rand.NewPCG(1, 2))
	noise := newNoise(random)
	grain := make([]int16, 1<<16)
	for i := range grain {
		grain[i] = int16(random.NormFloat64() * 5)
	}
	land := make([][3]int16, stride*rows)
	for y := range rows {
		for x := range stride {
			land[y*stride+x] = colour(noise, float64(x), float64(y), float64(rows))
		}
	}
	for c := range copies {
		frame := f.pixels[c*stride*rows:][:stride*rows]
		for i, rgb := range land {
			g := grain[(i*7+int(random.Uint32()&0x3ff))&0xffff]
			frame[i] = uint32(clamp(rgb[0]+g))<<16 | uint32(clamp(rgb[1]+g))<<8 | uint32(clamp(rgb[2]+g))
		}
		f.covered[c] = make([]uint32, 0, 5*cell*cell*columns*lines)
	}
}

// colour is the landscape without grain: a sky with clouds, hills behind each other, and textured ground.
func colour(n *noise, x, y, rows float64) [3]int16 {
	cloud := n.layers(x/180, y/90, 4)
	for hill := 3.0; hill >= 1; hill-- {
		ridge := rows*(0.35+0.15*(3-hill)) + 90*n.layers(x/(120+60*hill), hill*31, 4)
		if y > ridge && hill == 1 {
			texture := n.layers(x/9, y/5, 3)
			return [3]int16{int16(96 + 70*texture), int16(104 + 80*texture), int16(58 + 40*texture)}
		}
		if y > ridge && y < ridge+rows*0.25 {
			shade := 30*hill + 50*n.layers(x/22, y/14, 3)
			return [3]int16{int16(40 + shade), int16(70 + shade*0.9), int16(60 + shade*1.1)}
		}
	}
	fade := y / rows
	return [3]int16{int16(110 + 90*fade + 60*cloud), int16(150 + 60*fade + 50*cloud), int16(215 + 20*cloud)}
}

// expose prepares the frame of this number: its cells are painted into the next copy, whose cells from eight frames ago give
// way to the landscape again. Returned are the copy and the camera's place in it.
func (f *film) expose(number int, t time.Duration) (copyNumber, left, top int) {
	s := t.Seconds()
	left = int((0.5 + 0.5*math.Sin(s*0.9)) * (marginX - 1))
	top = int((0.5 + 0.5*math.Sin(s*0.6+1)) * (marginY - 1))
	c := number % copies
	stride := f.stride()
	frame := f.pixels[c*stride*f.rows():]
	i := 0
	if len(f.covered[c]) > 0 {
		f.eachCell(f.at[c][0], f.at[c][1], func(_, offset int) {
			copy(frame[offset:][:cell], f.covered[c][i:][:cell])
			i += cell
		})
	}
	f.covered[c] = f.covered[c][:0]
	f.at[c] = [2]int{left, top}
	bits := encode(uint16(number))
	f.eachCell(left, top, func(bit, offset int) {
		f.covered[c] = append(f.covered[c], frame[offset:][:cell]...)
		value := uint32(0x101010)
		if bits>>bit&1 == 1 {
			value = 0xebebeb
		}
		for x := range cell {
			frame[offset+x] = value
		}
	})
	return c, left, top
}

// encode appends the checksum, the exclusive or of the number's four nibbles inverted, as bits 16 to 19.
func encode(number uint16) uint32 {
	sum := (number ^ number>>4 ^ number>>8 ^ number>>12 ^ 0xf) & 0xf
	return uint32(number) | uint32(sum)<<16
}

// eachCell calls do with the bit and the offset of every row of every cell, at all five places.
func (f *film) eachCell(left, top int, do func(bit, offset int)) {
	right, bottom := f.width-inset-cell*columns, f.height-inset-cell*lines
	for _, place := range [][2]int{{inset, inset}, {right, inset}, {right / 2, bottom / 2}, {inset, bottom}, {right, bottom}} {
		for bit := range columns * lines {
			x, y := left+place[0]+bit%columns*cell, top+place[1]+bit/columns*cell
			for row := range cell {
				do(bit, (y+row)*f.stride()+x)
			}
		}
	}
}

func clamp(v int16) int16 { return max(0, min(255, v)) }

// noise is smooth value noise on a grid that repeats after 256 cells.
type noise struct{ grid [256][256]float64 }

func newNoise(random *rand.Rand) *noise {
	n := new(noise)
	for y := range n.grid {
		for x := range n.grid[y] {
			n.grid[y][x] = random.Float64()*2 - 1
		}
	}
	return n
}

// layers adds ever finer noise, from −1 to 1 in all.
func (n *noise) layers(x, y float64, count int) float64 {
	sum, size, total := 0.0, 1.0, 0.0
	for range count {
		sum += size * n.at(x, y)
		total += size
		x, y, size = x*2+17, y*2+29, size/2
	}
	return sum / total
}

func (n *noise) at(x, y float64) float64 {
	fx, fy := math.Floor(x), math.Floor(y)
	ix, iy := int(fx)&255, int(fy)&255
	jx, jy := (ix+1)&255, (iy+1)&255
	ease := func(t float64) float64 { return t * t * (3 - 2*t) }
	tx, ty := ease(x-fx), ease(y-fy)
	upper := n.grid[iy][ix] + tx*(n.grid[iy][jx]-n.grid[iy][ix])
	lower := n.grid[jy][ix] + tx*(n.grid[jy][jx]-n.grid[jy][ix])
	return upper + ty*(lower-upper)
}
