package encode

import (
	"image"

	"penstock.dev/penstock/internal/media"
	"penstock.dev/penstock/internal/video"
	"penstock.dev/penstock/internal/wire/channel"
)

// JPEG is for photographic tiles that would keep a slow link busy, one picture for each rectangle of them.
const (
	// losslessTime is how long a link may take for the lossless tiles of an update, in ms.
	losslessTime = 50
	// packedShare is what zstd leaves of a photographic tile, in percent.
	packedShare = 80
	// unknownRate is what a link is thought to carry before it has shown something, in bytes per second.
	unknownRate = 1_250_000
	// A rectangle has at least as many tiles as 128 × 128 pixels.
	leastJPEG = 4
	maxJPEGs  = 32
	// jpegBits is about what a pixel of a photograph takes, in tenths of a bit.
	jpegBits = 15
)

// sendJPEGs codes photographic tiles that wait as JPEG pictures: when the link is too slow for lossless ones, or
// when they are hot and there is no video. It returns how many bytes they have. Tiles that must wait for a later
// packet are left as tileLater.
func (t *Tiles) sendJPEGs(q *media.Quality) int {
	if t.later {
		clear(t.kinds)
		t.later = false
	}
	if t.codecs&media.CodecJPEG == 0 || t.lossyCodecs == nil || t.jpegFailed {
		return 0
	}
	rate := q.BytesPerSecond
	if rate <= 0 {
		rate = unknownRate
	}
	const packed = tileBytes * packedShare / 100
	budget := rate / 1000 * losslessTime
	slow := t.dirtyCount*packed > budget
	if !slow && (t.codec != 0 && !t.faulty() || t.dirtyCount < leastHot) {
		return 0
	}
	photographs := 0
	for i, dirty := range t.dirty {
		if !dirty || t.held(i) {
			continue
		}
		if hot := t.heatOf(i) > hotHeat; (slow || hot) && t.photographic(i, hot) {
			t.kinds[i] = tileWarm
			photographs++
		}
	}
	n := 0
	if slow && photographs*packed > budget || !slow && photographs >= leastHot {
		n = t.jpegs(q)
	}
	for i, k := range t.kinds {
		if k != tileLater {
			t.kinds[i] = tileCalm
		}
	}
	return n
}

// jpegs makes rectangles of the photographic tiles, grown to the right and then down, and codes them.
func (t *Tiles) jpegs(q *media.Quality) int {
	quality := q.JPEGQuality
	if quality <= 0 || quality > 100 {
		quality = media.DefaultJPEGQuality
	}
	n := 0
	full := false
	for i := range t.kinds {
		if t.kinds[i] != tileWarm {
			continue
		}
		grid := t.rectangleAt(i, q.Limit-t.coded-n)
		if area(grid) < leastJPEG {
			t.setKinds(grid, tileTaken)
			continue
		}
		full = full || t.coded+n > 0 && t.coded+n+jpegBytes(t.pixels(grid)) > q.Limit || len(t.jpegEnds) == maxJPEGs
		if full {
			t.setKinds(grid, tileLater)
			t.later = true
			continue
		}
		start := len(t.jpeg)
		if !t.appendJPEG(t.pixels(grid), quality) {
			break
		}
		n += len(t.jpeg) - start
		t.jpegEnds = append(t.jpegEnds, len(t.jpeg))
		t.setKinds(grid, tileTaken)
		for row := grid.Min.Y; row < grid.Max.Y; row++ {
			for column := grid.Min.X; column < grid.Max.X; column++ {
				t.setDirty(row*t.columns+column, false)
				t.setLossy(row*t.columns+column, true)
			}
		}
	}
	return n
}

// rectangleAt is the rectangle of warm tiles from the tile i on, of about as many bytes as are left.
func (t *Tiles) rectangleAt(i, left int) image.Rectangle {
	x, y := i%t.columns, i/t.columns
	grid := image.Rect(x, y, x+1, y+1)
	for grid.Max.X < t.columns && t.warmIn(image.Rect(grid.Max.X, y, grid.Max.X+1, y+1)) {
		if area(grid) >= leastJPEG && jpegBytes(t.pixels(grid)) > left {
			break
		}
		grid.Max.X++
	}
	for grid.Max.Y < t.rows && t.warmIn(image.Rect(x, grid.Max.Y, grid.Max.X, grid.Max.Y+1)) {
		grid.Max.Y++
		if area(grid) > leastJPEG && jpegBytes(t.pixels(grid)) > left {
			grid.Max.Y--
			break
		}
	}
	return grid
}

// jpegBytes is about how many bytes the picture of a rectangle takes.
func jpegBytes(rect image.Rectangle) int { return area(rect) * jpegBits / 80 }

func (t *Tiles) setKinds(grid image.Rectangle, k tileKind) {
	for row := grid.Min.Y; row < grid.Max.Y; row++ {
		for column := grid.Min.X; column < grid.Max.X; column++ {
			t.kinds[row*t.columns+column] = k
		}
	}
}

// warmIn reports whether all tiles of a rectangle of tiles wait to be part of a picture.
func (t *Tiles) warmIn(grid image.Rectangle) bool {
	for row := grid.Min.Y; row < grid.Max.Y; row++ {
		for column := grid.Min.X; column < grid.Max.X; column++ {
			if t.kinds[row*t.columns+column] != tileWarm {
				return false
			}
		}
	}
	return true
}

// appendJPEG appends the body of a JPEG section. When that fails there is no JPEG any more.
func (t *Tiles) appendJPEG(rect image.Rectangle, quality int) bool {
	h := channel.JPEGHeader{X: uint16(rect.Min.X), Y: uint16(rect.Min.Y), Width: uint16(rect.Dx()), Height: uint16(rect.Dy())}
	start := len(t.jpeg)
	out, err := t.lossyCodecs.AppendJPEG(channel.AppendJPEGHeader(t.jpeg, h), video.Image{
		Pix: octets(t.shadow[rect.Min.Y*t.size.Width+rect.Min.X:]), Stride: 4 * t.size.Width,
		Width: rect.Dx(), Height: rect.Dy(),
	}, quality, true)
	if err != nil {
		t.log.Warn("JPEG failed", "error", err)
		t.jpegFailed = true
		t.jpeg = t.jpeg[:start]
		return false
	}
	t.jpeg = out
	return true
}

// held reports whether a dirty tile waits for a frame of its region.
func (t *Tiles) held(i int) bool {
	at := image.Pt(i%t.columns, i/t.columns)
	for r := range t.activeRegions() {
		if r.waits && at.In(r.grid) {
			return true
		}
	}
	return false
}
