package encode

import (
	"time"

	"penstock.dev/penstock/internal/media"
	"penstock.dev/penstock/internal/video"
)

// Lossy codes pictures with losses: *video.Libraries.
type Lossy interface {
	// Codecs are the video codecs that there are, best first.
	Codecs() []video.Codec
	NewEncoder(cfg video.Config) (video.Encoder, error)
	AppendJPEG(dst []byte, img video.Image, quality int, subsample bool) ([]byte, error)
}

// Heat tells moving pictures from what changes now and then. Times are µs.
const (
	// A tile's heat is 1 for each update that changed it, and each counts less as others follow.
	cooling = 0.85
	// coolTime is how long a tile keeps its heat without a change; after it, the heat sinks as by updates.
	coolTime = 250_000
	// A hot tile has changed in four updates of late, a warm one in two that were close to each other.
	hotHeat  = 3
	warmHeat = 1.8
	coolest  = 32 // steps of coolTime after which nothing is left
)

// What makes a hot tile costly although it has few enough colours for a palette.
const (
	costlyColours = 40
	costlyEdges   = 30 // percent of the pixels that differ from the one at their left
	// Of every sampleRows-th row, few colours tell that the tile is none of a photograph.
	sampleRows    = 8
	sampleColours = 24
)

// Refinement: pixels that came with losses are replaced when they have been still for stillTime. Times are µs.
const (
	stillTime   = 200_000
	refineBytes = 64 << 10 // of records in one packet
	// A slow link carries less than refineBytes in slowTime. It is given at most a quarter to refinement, in
	// packets that take about slowTime.
	slowTime    = 20_000
	slowShare   = 4
	leastRefine = 8 << 10
	// busyRefine is the most in a packet that has something else.
	busyRefine = 16 << 10
)

// lossyState is what Tiles remembers of each tile beside its pixels.
type lossyState struct {
	lossy      []bool   // the viewer's pixels differ from the shadow's by the losses of a coding
	lossyCount int      // how many of them
	lossyAt    []uint64 // when the viewer was last sent lossy pixels of the tile
	refineAt   uint64   // no refinement before
	refineNext int      // the tile to go on with

	heat      []float32
	changedAt []uint64
	touched   []int32  // tiles that the present update changes
	touchedIn []uint32 // by tile: the update that did so last
	update    uint32
	cool      [coolest]float32 // what is left of a heat after so many steps
}

func (t *Tiles) beginLossy(same bool) {
	n := t.columns * t.rows
	t.lossy = cleared(t.lossy, n)
	t.lossyAt = cleared(t.lossyAt, n)
	t.lossyCount, t.refineAt, t.refineNext = 0, 0, 0
	t.touchedIn = cleared(t.touchedIn, n)
	t.update = 0
	if !same { // a viewer that lost its picture has it as hot as before
		t.heat = cleared(t.heat, n)
		t.changedAt = cleared(t.changedAt, n)
	}
	if cap(t.touched) < n {
		t.touched = make([]int32, 0, n)
	}
	if t.cool[0] == 0 {
		left := float32(1)
		for i := range t.cool {
			t.cool[i] = left
			left *= cooling
		}
	}
}

// touch notes that the present update changes the tile i.
func (t *Tiles) touch(i int) {
	if t.touchedIn[i] == t.update {
		return
	}
	t.touchedIn[i] = t.update
	t.touched = append(t.touched, int32(i))
	steps := max(1, (t.now-t.changedAt[i])/coolTime)
	if steps >= coolest {
		t.heat[i] = 0
	} else {
		t.heat[i] *= t.cool[steps]
	}
	t.heat[i]++
	t.changedAt[i] = t.now
}

// heatOf is the heat that the tile i has now.
func (t *Tiles) heatOf(i int) float32 {
	steps := (t.now - t.changedAt[i]) / coolTime
	if steps >= coolest {
		return 0
	}
	return t.heat[i] * t.cool[steps]
}

// photographic reports whether a lossless coding of the tile i is expensive: it has too many colours for a
// palette or, when it is hot, many and changing ones. Text is never photographic where it goes as glyphs, nor elsewhere when it rests.
func (t *Tiles) photographic(i int, hot bool) bool {
	if t.codecs&media.CodecText != 0 && t.hasGround(i) {
		return false
	}
	r := t.tile(i)
	w, h := r.Dx(), r.Dy()
	pix := t.shadow[t.at(i):]
	if h >= 2*sampleRows {
		if n := t.palette.count(pix, sampleRows*t.size.Width, w, h/sampleRows); n != 0 && n <= sampleColours {
			return false
		}
	}
	n := t.palette.count(pix, t.size.Width, w, h)
	if n == 0 {
		return true
	}
	if !hot || n <= costlyColours {
		return false
	}
	edges := 0
	for y := range h {
		row := t.palette.indices[y*w : (y+1)*w]
		for x := 1; x < len(row); x++ {
			if row[x] != row[x-1] {
				edges++
			}
		}
	}
	return edges*100 > costlyEdges*w*h
}

func (t *Tiles) setLossy(i int, lossy bool) {
	switch {
	case lossy && !t.lossy[i]:
		t.lossyCount++
	case !lossy && t.lossy[i]:
		t.lossyCount--
	}
	t.lossy[i] = lossy
	if lossy {
		t.lossyAt[i] = t.now
	}
}

// refine packs tiles whose lossy pixels are still, as many as one packet and the link allow; few when the picture
// is busy elsewhere.
func (t *Tiles) refine(q *media.Quality, busy bool) {
	if t.lossyCount == 0 || t.now < t.refineAt {
		return
	}
	limit, slow := refineBytes, false
	if rate := uint64(q.BytesPerSecond); rate > 0 && rate*slowTime/1e6 < refineBytes {
		slow = true
		limit = int(max(leastRefine, rate*slowTime/1e6))
	}
	if busy {
		limit = min(limit, busyRefine)
	}
	limit = min(limit, q.Limit)
	for range len(t.lossy) {
		i := t.refineNext
		if t.lossy[i] && !t.dirty[i] && t.now-t.lossyAt[i] >= stillTime {
			if len(t.raw) > 0 && len(t.raw)+tileBytes+solidRecord*len(t.solid) > limit {
				break
			}
			t.setLossy(i, false)
			t.pack(i%t.columns, i/t.columns)
		}
		t.refineNext = (t.refineNext + 1) % len(t.lossy)
	}
	if slow {
		t.refineAt = t.now + uint64(len(t.raw))*slowShare*1e6/uint64(q.BytesPerSecond)
	}
}

// tileBytes is the greatest length of a tile's record.
const tileBytes = 3 + 3*tileSize*tileSize

// Due is when there is something to do although nothing changed: a frame of video that waits for its turn, lossy
// pixels that have been still for long enough, a region that is over.
func (t *Tiles) Due() (uint64, bool) {
	at, ok := uint64(0), false
	add := func(when uint64) {
		if !ok || when < at {
			at, ok = when, true
		}
	}
	for r := range t.activeRegions() {
		if r.waits {
			add(r.frameAt + r.interval)
		}
		add(r.hotAt + uint64(idleTime/time.Microsecond))
	}
	if t.lossyCount > 0 {
		oldest := t.now
		for i, lossy := range t.lossy {
			if lossy && !t.dirty[i] {
				oldest = min(oldest, t.lossyAt[i])
			}
		}
		add(max(oldest+stillTime, t.refineAt))
	}
	return at, ok
}
