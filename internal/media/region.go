package media

import "image"

// maxRects bounds a region's memory and the work of adding to it.
const maxRects = 16

// Region is a set of damaged pixels, kept as at most 16 rectangles that may cover more than was added. Its
// zero value is empty. Adding never allocates.
type Region struct {
	rects [maxRects]image.Rectangle
	n     int
}

// Empty reports whether nothing is damaged.
func (r *Region) Empty() bool { return r.n == 0 }

// Reset empties the region.
func (r *Region) Reset() { r.n = 0 }

// Rects is the rectangles of the region; it is valid until the next change.
func (r *Region) Rects() []image.Rectangle { return r.rects[:r.n] }

// Area is the number of damaged pixels, counted twice where rectangles overlap.
func (r *Region) Area() int {
	n := 0
	for _, rect := range r.rects[:r.n] {
		n += area(rect)
	}
	return n
}

// Add adds a rectangle.
func (r *Region) Add(rect image.Rectangle) {
	if rect.Empty() {
		return
	}
	for i := 0; i < r.n; i++ {
		old := r.rects[i]
		if rect.In(old) {
			return
		}
		// Join what joins without waste: the rest of the loop then sees the greater rectangle.
		if u := old.Union(rect); area(u) <= area(old)+area(rect) {
			rect = u
			r.n--
			r.rects[i] = r.rects[r.n]
			i = -1
		}
	}
	if r.n == maxRects {
		r.joinClosest()
	}
	r.rects[r.n] = rect
	r.n++
}

// AddRegion adds all of other.
func (r *Region) AddRegion(other *Region) {
	for _, rect := range other.rects[:other.n] {
		r.Add(rect)
	}
}

// joinClosest replaces the two rectangles whose union wastes least by that union.
func (r *Region) joinClosest() {
	best, bestI, bestJ := int(^uint(0)>>1), 0, 1
	for i := 0; i < r.n; i++ {
		for j := i + 1; j < r.n; j++ {
			u := r.rects[i].Union(r.rects[j])
			if waste := area(u) - area(r.rects[i]) - area(r.rects[j]); waste < best {
				best, bestI, bestJ = waste, i, j
			}
		}
	}
	r.rects[bestI] = r.rects[bestI].Union(r.rects[bestJ])
	r.n--
	r.rects[bestJ] = r.rects[r.n]
}

// maxClusters bounds how many rectangles one capture fetches.
const maxClusters = 4

// Clusters appends to dst the rectangles to capture, cut to bounds: the bounding box, or up to four
// rectangles when the box has more than twice the pixels of its parts. The region is left with them.
func (r *Region) Clusters(dst []image.Rectangle, bounds image.Rectangle) []image.Rectangle {
	var box image.Rectangle
	sum, n := 0, 0
	for _, rect := range r.rects[:r.n] {
		if rect = rect.Intersect(bounds); !rect.Empty() {
			r.rects[n] = rect
			n++
			box = box.Union(rect)
			sum += area(rect)
		}
	}
	if r.n = n; n == 0 {
		return dst
	}
	if area(box) <= 2*sum {
		r.rects[0], r.n = box, 1
		return append(dst, box)
	}
	for r.n > maxClusters {
		r.joinClosest()
	}
	return append(dst, r.rects[:r.n]...)
}

func area(r image.Rectangle) int { return r.Dx() * r.Dy() }
