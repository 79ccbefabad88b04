package encode

import "image"

const (
	probeWidth   = 16 // pixels
	filterBits   = 12
	maxVectors   = 256
	maxSightings = 32 // of one probe
	leastSeen    = 3
)

// probe is a piece of a row of the new picture.
type probe struct {
	at     image.Point
	key    uint32
	pixels [probeWidth]uint32
	seen   int
}

// vector is a distance and how many probes moved by it.
type vector struct {
	by    image.Point
	count int
	last  int // the probe that counted last
}

// key is a hash of the first four pixels, of filterBits bits.
func key(p []uint32) uint32 {
	_ = p[3]
	a := uint64(p[0]) | uint64(p[1])<<32
	b := uint64(p[2]) | uint64(p[3])<<32
	return uint32((a*mulA + b*mulB) >> (64 - filterBits))
}

// match looks for pieces of the frame's changed tiles anywhere in the source of the old picture, and returns
// the distance that most of them moved by: a dragged window, a horizontal scroll.
func (t *Tiles) match(f *frame, source image.Rectangle) (image.Point, bool) {
	m := &t.moves
	t.chooseProbes(f)
	if len(m.probes) < leastSeen {
		return image.Point{}, false
	}
	clear(m.filter[:])
	for _, p := range m.probes {
		m.filter[p.key>>6] |= 1 << (p.key & 63)
	}
	m.vectors = m.vectors[:0]
	for y := source.Min.Y; y < source.Max.Y; y++ {
		row := t.line(source.Min.X, source.Max.X, y)
		for i := 0; i+probeWidth <= len(row); i++ {
			if row[i] == row[i+1] { // no probe begins so
				continue
			}
			if k := key(row[i:]); m.filter[k>>6]>>(k&63)&1 != 0 {
				m.sight(k, row[i:i+probeWidth], image.Pt(source.Min.X+i, y))
			}
		}
	}
	best := vector{count: max(leastSeen, len(m.probes)/4) - 1}
	for _, v := range m.vectors {
		if v.count > best.count {
			best = v
		}
	}
	return best.by, best.by != image.Point{}
}

// sight counts the probes that are these pixels at this place of the old picture.
func (m *moves) sight(key uint32, pixels []uint32, at image.Point) {
	for i := range m.probes {
		p := &m.probes[i]
		if p.key != key || p.seen == maxSightings || at == p.at || [probeWidth]uint32(pixels) != p.pixels {
			continue
		}
		p.seen++
		by := p.at.Sub(at)
		known := false
		for j := range m.vectors {
			if v := &m.vectors[j]; v.by == by {
				if v.last != i {
					v.count++
					v.last = i
				}
				known = true
				break
			}
		}
		if !known && len(m.vectors) < maxVectors {
			m.vectors = append(m.vectors, vector{by, 1, i})
		}
	}
}

// chooseProbes takes pieces with some structure from changed tiles all over the frame.
func (t *Tiles) chooseProbes(f *frame) {
	m := &t.moves
	m.probes = m.probes[:0]
	grid := tilesOf(f.box)
	step := max(1, f.count/maxProbes)
	n := 0
	for row := grid.Min.Y; row < grid.Max.Y; row++ {
		for column := grid.Min.X; column < grid.Max.X; column++ {
			i := row*t.columns + column
			if !f.changed[i] {
				continue
			}
			if n++; n%step == 0 && len(m.probes) < maxProbes {
				t.chooseProbe(f, t.tile(i).Intersect(f.cut))
			}
		}
	}
}

// chooseProbe takes the first piece of the tile that begins with a change of colour, has some more, and is
// not in the old picture at the same place.
func (t *Tiles) chooseProbe(f *frame, part image.Rectangle) {
	const rowStep, leastEdges = 5, 4
	for y := part.Min.Y + rowStep/2; y < part.Max.Y; y += rowStep {
		row := f.row(part.Min.X, part.Max.X, y)
		for x := 0; x+probeWidth <= len(row); x++ {
			if row[x]&rgb == row[x+1]&rgb || row[x+2]&rgb == row[x+3]&rgb && row[x+1]&rgb == row[x+2]&rgb {
				continue
			}
			p := probe{at: image.Pt(part.Min.X+x, y)}
			edges := 0
			for i, c := range row[x : x+probeWidth] {
				p.pixels[i] = c & rgb
				if i > 0 && p.pixels[i] != p.pixels[i-1] {
					edges++
				}
			}
			if edges < leastEdges || equal(t.line(p.at.X, p.at.X+probeWidth, y), p.pixels[:]) {
				x += probeWidth / 2
				continue
			}
			p.key = key(p.pixels[:])
			t.moves.probes = append(t.moves.probes, p)
			return
		}
	}
}
