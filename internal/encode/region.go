package encode

import (
	"image"
	"iter"
	"log/slog"
	"runtime"
	"slices"
	"time"

	"penstock.dev/penstock/internal/media"
	"penstock.dev/penstock/internal/video"
	"penstock.dev/penstock/internal/wire/channel"
)

// Video regions: rectangles of tiles whose changes go as frames of video and not as tiles.
const (
	maxRegions = channel.VideoRegions
	// A region begins with so many photographic tiles that are hot, or warm.
	leastHot  = 6
	leastWarm = 32
	// A region has at least leastFrames before it ends for want of hot tiles.
	leastFrames = 10
	// wholeShare is how much of the screen, in percent, makes the whole of it one region.
	wholeShare = 60
	// A region whose hot tiles took less than shrinkShare percent of it for shrinkTime shrinks to them.
	shrinkTime  = time.Second
	shrinkShare = 70
	// growTime is the least time between two key frames for growth; until then, what is new goes as tiles.
	growTime = 150 * time.Millisecond
	// idleTime is when a region without changes ends: by then its hottest tile has cooled.
	idleTime = 1500 * time.Millisecond
	// gap is how many tiles apart two photographic tiles may be in one moving picture.
	gap = 2
	// deferTime is what a frame may delay the tiles of the same update; a longer one comes after them.
	deferTime = 10 * time.Millisecond
	// faultTime is how long there is no video after its encoder failed, and maxFaults how often it may.
	faultTime = 5 * time.Second
	maxFaults = 3
	// frameSlack is how much earlier than its turn a frame may come, as updates have turns of their own. In µs.
	frameSlack = 4_000

	bestQP, worstQP = 12, 51
)

// region is one video region.
type region struct {
	active  bool
	grid    image.Rectangle // in tiles
	encoder video.Encoder   // nil before the first frame of this size
	scale   int             // divides the picture's edges
	begun   bool            // the viewer has a decoder
	frames  int             // since it began

	frameAt, keyAt, hotAt uint64 // µs
	interval              uint64 // µs between two frames
	waits                 bool   // changes wait for the next frame's turn
	deferred              bool   // the last update had its tiles without this frame
	recent                image.Rectangle
	recentAt              uint64 // since when recent is gathered

	half []uint32 // the picture, scaled
	body []byte   // of the section, from frame to frame
	size int      // bytes of the last frame
}

// videoState is what Tiles remembers of video.
type videoState struct {
	lossyCodecs Lossy
	log         *slog.Logger
	codec       video.Codec // 0: none
	regions     [maxRegions]region
	faults      int
	deferred    bool // a frame follows in the next packet
	faultAt     uint64

	ends   [][]byte // bodies of the sections that end regions, in this update
	endMem [2 * maxRegions][videoHeader]byte
	kinds  []tileKind // by tile, of the present update
	queue  []int32
	parts  []part
}

// videoHeader is the length of what stands before an access unit.
const videoHeader = 15

// tileKind is what the present update found of a tile.
type tileKind uint8

const (
	tileCalm  tileKind = iota
	tileWarm           // photographic and warm
	tileHot            // photographic and hot
	tileTaken          // part of a moving picture or a JPEG picture already
	tileLater          // of a JPEG picture in a later packet
)

// part is a connected set of photographic tiles that change.
type part struct {
	grid      image.Rectangle
	hot, warm int
}

// activeRegions are those that the viewer has, or will have with the next packet.
func (t *Tiles) activeRegions() iter.Seq[*region] {
	return func(yield func(*region) bool) {
		for i := range t.regions {
			if t.regions[i].active && !yield(&t.regions[i]) {
				return
			}
		}
	}
}

// beginVideo is a new epoch: the viewer has no region.
func (t *Tiles) beginVideo() {
	for i := range t.regions {
		t.stop(&t.regions[i])
		t.regions[i].begun = false
	}
	t.kinds = cleared(t.kinds, t.columns*t.rows)
}

// stop frees what codes the region's frames and forgets it, but for its memory.
func (t *Tiles) stop(r *region) {
	if r.encoder != nil {
		if err := r.encoder.Close(); err != nil {
			t.log.Debug("video encoder did not close", "error", err)
		}
	}
	*r = region{begun: r.begun, half: r.half, body: r.body}
}

// end is stop, and tells the viewer.
func (t *Tiles) end(r *region) {
	if r.begun && len(t.ends) < len(t.endMem) {
		h := channel.VideoHeader{Region: t.number(r), Codec: uint8(t.codec), Flags: channel.VideoEnd}
		t.ends = append(t.ends, channel.AppendVideoHeader(t.endMem[len(t.ends)][:0], &h))
		r.begun = false
	}
	t.stop(r)
}

func (t *Tiles) number(r *region) uint8 {
	for i := range t.regions {
		if r == &t.regions[i] {
			return uint8(i)
		}
	}
	return 0
}

// inRegion reports whether the tile i belongs to a video region.
func (t *Tiles) inRegion(i int) bool {
	at := image.Pt(i%t.columns, i/t.columns)
	for j := range t.regions {
		if t.regions[j].active && at.In(t.regions[j].grid) {
			return true
		}
	}
	return false
}

// planRegions begins, grows, shrinks and ends regions after what the present update changes.
func (t *Tiles) planRegions() {
	if t.codec == 0 {
		return
	}
	for r := range t.activeRegions() {
		t.review(r)
	}
	if t.faulty() {
		return
	}
	t.findParts()
	for _, p := range t.parts {
		if t.explained(p.grid) {
			continue
		}
		t.place(p)
	}
	t.settleRegions()
}

// faulty reports whether there is no video for now, as its encoder failed.
func (t *Tiles) faulty() bool {
	return t.faults >= maxFaults || t.faults > 0 && t.now-t.faultAt < uint64(faultTime/time.Microsecond)
}

// review looks at a region that there is: whether something in it is hot, and whether it is too large.
func (t *Tiles) review(r *region) {
	hot := false
	for row := r.grid.Min.Y; row < r.grid.Max.Y; row++ {
		for column := r.grid.Min.X; column < r.grid.Max.X; column++ {
			i := row*t.columns + column
			if t.heatOf(i) <= hotHeat {
				continue
			}
			hot = true
			if t.touchedIn[i] == t.update {
				r.recent = r.recent.Union(image.Rect(column, row, column+1, row+1))
				r.hotAt = t.now
			}
		}
	}
	if !hot && r.frames >= leastFrames || t.now-r.hotAt >= uint64(idleTime/time.Microsecond) {
		t.end(r)
		return
	}
	if t.now-r.recentAt < uint64(shrinkTime/time.Microsecond) {
		return
	}
	small := t.grown(r.recent)
	if !r.recent.Empty() && r.frames >= leastFrames && area(small)*100 < area(r.grid)*shrinkShare {
		t.resize(r, small)
	}
	r.recent, r.recentAt = image.Rectangle{}, t.now
}

// findParts finds the connected parts of what is photographic and changes outside the regions.
func (t *Tiles) findParts() {
	t.parts = t.parts[:0]
	marked := 0
	for _, n := range t.touched {
		i := int(n)
		t.kinds[i] = tileCalm
		heat := t.heat[i]
		if heat <= warmHeat || t.inRegion(i) {
			continue
		}
		if t.photographic(i, heat > hotHeat) {
			t.kinds[i] = tileWarm
			if heat > hotHeat {
				t.kinds[i] = tileHot
			}
			marked++
		}
	}
	for _, n := range t.touched {
		if marked > 0 && (t.kinds[n] == tileWarm || t.kinds[n] == tileHot) {
			t.parts = append(t.parts, t.flood(n))
		}
	}
	for _, n := range t.touched {
		t.kinds[n] = tileCalm
	}
}

// flood is the part that the tile first belongs to.
func (t *Tiles) flood(first int32) part {
	var p part
	queue := append(t.queue[:0], first)
	take := func(i int32) {
		if t.kinds[i] == tileHot {
			p.hot++
		}
		p.warm++
		t.kinds[i] = tileTaken
		x, y := int(i)%t.columns, int(i)/t.columns
		p.grid = p.grid.Union(image.Rect(x, y, x+1, y+1))
	}
	take(first)
	for len(queue) > 0 {
		i := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		x, y := int(i)%t.columns, int(i)/t.columns
		near := image.Rect(x-gap, y-gap, x+gap+1, y+gap+1).Intersect(image.Rect(0, 0, t.columns, t.rows))
		for row := near.Min.Y; row < near.Max.Y; row++ {
			for column := near.Min.X; column < near.Max.X; column++ {
				j := int32(row*t.columns + column)
				if t.kinds[j] == tileWarm || t.kinds[j] == tileHot {
					take(j)
					queue = append(queue, j)
				}
			}
		}
	}
	t.queue = queue
	return p
}

// explained reports whether copies of the present update account for more of the change there than is left.
func (t *Tiles) explained(grid image.Rectangle) bool {
	if len(t.copies) == 0 {
		return false
	}
	box := t.pixels(grid)
	moved, left := 0, 0
	for _, c := range t.copies {
		moved += area(destination(c).Intersect(box))
	}
	for _, n := range t.touched {
		if image.Pt(int(n)%t.columns, int(n)/t.columns).In(grid) {
			left += area(t.tile(int(n)))
		}
	}
	return moved > left
}

// place gives a moving picture its region: the one that it touches, a new one, or the nearer of two.
func (t *Tiles) place(p part) {
	grid := t.grown(p.grid)
	var free, best *region
	waste := 0
	for i := range t.regions {
		r := &t.regions[i]
		if !r.active {
			if free == nil {
				free = r
			}
			continue
		}
		touches := p.grid.Inset(-1).Overlaps(r.grid)
		w := area(r.grid.Union(grid)) - area(r.grid) - area(grid)
		if touches {
			w -= t.columns * t.rows
		}
		if best == nil || w < waste {
			best, waste = r, w
		}
	}
	enough := p.hot >= leastHot || p.warm >= leastWarm
	switch {
	case best != nil && p.grid.Inset(-1).Overlaps(best.grid):
		if p.hot > 0 && t.now-best.keyAt >= uint64(growTime/time.Microsecond) {
			t.resize(best, best.grid.Union(grid))
			best.hotAt = t.now
		}
	case !enough:
	case free != nil:
		begun := free.begun
		*free = region{
			active: true, grid: grid, begun: begun, half: free.half, body: free.body,
			hotAt: t.now, recentAt: t.now, keyAt: t.now,
		}
	case t.now-best.keyAt >= uint64(growTime/time.Microsecond):
		t.resize(best, best.grid.Union(grid))
		best.hotAt = t.now
	}
}

// grown is a rectangle of tiles with those around it that change all the time too, and at least two wide
// and high, as video encoders want.
func (t *Tiles) grown(grid image.Rectangle) image.Rectangle {
	if grid.Empty() {
		return grid
	}
	all := image.Rect(0, 0, t.columns, t.rows)
	around := grid.Inset(-1).Intersect(all)
	out := grid
	for row := around.Min.Y; row < around.Max.Y; row++ {
		for column := around.Min.X; column < around.Max.X; column++ {
			at := image.Pt(column, row)
			if !at.In(grid) && t.heatOf(row*t.columns+column) >= warmHeat {
				out = out.Union(image.Rectangle{at, at.Add(image.Pt(1, 1))})
			}
		}
	}
	if out.Dx() == 1 {
		out.Min.X, out.Max.X = max(0, out.Min.X-1), min(t.columns, max(2, out.Max.X))
	}
	if out.Dy() == 1 {
		out.Min.Y, out.Max.Y = max(0, out.Min.Y-1), min(t.rows, max(2, out.Max.Y))
	}
	return out
}

// resize gives the region another place; the viewer makes a new decoder for it.
func (t *Tiles) resize(r *region, grid image.Rectangle) {
	if grid == r.grid {
		return
	}
	if r.encoder != nil {
		if err := r.encoder.Close(); err != nil {
			t.log.Debug("video encoder did not close", "error", err)
		}
		r.encoder = nil
	}
	r.grid, r.keyAt = grid, t.now
}

// settleRegions joins regions that overlap, and makes the screen one region when they take most of it.
func (t *Tiles) settleRegions() {
	a, b := &t.regions[0], &t.regions[1]
	if a.active && b.active && a.grid.Overlaps(b.grid) {
		t.join(a, b)
	}
	total := 0
	for r := range t.activeRegions() {
		total += area(t.pixels(r.grid))
	}
	if total*100 <= t.size.Width*t.size.Height*wholeShare {
		return
	}
	if a.active && b.active {
		t.join(a, b)
	}
	for r := range t.activeRegions() {
		t.resize(r, image.Rect(0, 0, t.columns, t.rows))
	}
}

func (t *Tiles) join(a, b *region) {
	t.resize(a, a.grid.Union(b.grid))
	a.hotAt = max(a.hotAt, b.hotAt)
	t.end(b)
}

// pixels is the rectangle of a rectangle of tiles, cut to the screen.
func (t *Tiles) pixels(grid image.Rectangle) image.Rectangle {
	return image.Rect(grid.Min.X*tileSize, grid.Min.Y*tileSize, grid.Max.X*tileSize, grid.Max.Y*tileSize).Intersect(t.size.Bounds())
}

// sendRegions codes the frames whose turn it is, and takes their tiles from what else is to be sent. It returns
// how many bytes they have.
func (t *Tiles) sendRegions(q *media.Quality, views []media.View) int {
	n := 0
	prompt := slices.ContainsFunc(views, func(v media.View) bool { return v.Prompt })
	t.deferred = false
	for r := range t.activeRegions() {
		r.waits = false
		dirty, others := t.dirtyIn(r.grid)
		if dirty == 0 {
			continue
		}
		if t.explained(r.grid) {
			continue // its tiles go as those outside
		}
		fps := q.VideoFPS
		if fps <= 0 {
			fps = media.DefaultVideoFPS
		}
		r.interval = uint64(1_000_000 / fps)
		if r.encoder != nil && t.now+frameSlack < r.frameAt+r.interval {
			r.waits = true
			continue
		}
		rate := q.BytesPerSecond
		if others && !r.deferred && (prompt || rate > 0 && r.size > rate/int(time.Second/deferTime)) {
			r.deferred, r.waits, t.deferred = true, true, true
			continue
		}
		r.deferred = false
		if err := t.frame(r, q); err != nil {
			t.log.Warn("video failed", "codec", t.codec.String(), "error", err)
			t.faults++
			t.faultAt = t.now
			t.end(r)
			continue
		}
		n += len(r.body)
		t.sent = append(t.sent, media.Section{Kind: media.SectionVideo, Body: r.body})
	}
	return n
}

// dirtyIn is how many tiles of a rectangle of tiles are dirty, and whether there are others outside all regions.
func (t *Tiles) dirtyIn(grid image.Rectangle) (n int, others bool) {
	for i, dirty := range t.dirty {
		if !dirty {
			continue
		}
		if image.Pt(i%t.columns, i/t.columns).In(grid) {
			n++
		} else if !others {
			others = !t.inRegion(i)
		}
	}
	return n, others
}

// frame codes the region's picture.
func (t *Tiles) frame(r *region, q *media.Quality) error {
	rect := t.pixels(r.grid)
	scale := max(1, min(q.VideoScale, 2))
	if rect.Dx() > video.MaxWidth || rect.Dy() > video.MaxHeight {
		scale = 2
	}
	if rect.Dx() < 2*video.MinEdge || rect.Dy() < 2*video.MinEdge {
		scale = 1
	}
	img := video.Image{
		Pix: octets(t.shadow[rect.Min.Y*t.size.Width+rect.Min.X:]), Stride: 4 * t.size.Width,
		Width: rect.Dx(), Height: rect.Dy(),
	}
	if scale == 2 {
		img = r.halved(img)
	}
	if r.encoder != nil && r.scale != scale {
		if err := r.encoder.Close(); err != nil {
			t.log.Debug("video encoder did not close", "error", err)
		}
		r.encoder = nil
	}
	key := r.encoder == nil
	if key {
		e, err := t.lossyCodecs.NewEncoder(video.Config{
			Codec: t.codec, Width: img.Width, Height: img.Height, FPS: media.DefaultVideoFPS, Threads: threads(img),
		})
		if err != nil {
			return err
		}
		r.encoder, r.scale = e, scale
	}
	qp := q.VideoQP
	if qp <= 0 {
		qp = media.DefaultVideoQP
	}
	h := channel.VideoHeader{
		Region: t.number(r), Codec: uint8(t.codec),
		X: uint16(rect.Min.X), Y: uint16(rect.Min.Y), Width: uint16(rect.Dx()), Height: uint16(rect.Dy()),
	}
	width, height := video.CodedSize(img.Width, img.Height)
	h.CodedWidth, h.CodedHeight = uint16(width), uint16(height)
	if scale > 1 {
		h.Flags |= channel.VideoScaled
	}
	body, isKey, err := r.encoder.Encode(channel.AppendVideoHeader(r.body[:0], &h), img, max(bestQP, min(qp, worstQP)), key)
	if err != nil {
		return err
	}
	r.body = body
	if isKey {
		r.body[flagsOfVideo] |= channel.VideoKey
	}
	r.begun = true
	r.frames++
	r.frameAt, r.size = media.Turn(r.frameAt, t.now, r.interval), len(body)
	if isKey {
		r.keyAt = t.now
	}
	for row := r.grid.Min.Y; row < r.grid.Max.Y; row++ {
		for column := r.grid.Min.X; column < r.grid.Max.X; column++ {
			t.setDirty(row*t.columns+column, false)
			t.setLossy(row*t.columns+column, true)
		}
	}
	return nil
}

// flagsOfVideo is where the flags stand in the body of a video section.
const flagsOfVideo = 2

// threads is how many slices of a picture are worth coding at once: other sessions want their cores too.
func threads(img video.Image) int {
	pixels, cores := img.Width*img.Height, runtime.NumCPU()
	if pixels >= 1280*720 && cores >= 4 || pixels >= 1920*1080 && cores >= 2 {
		return 2
	}
	return 1
}

// halved is img with half its edges, rounded up; each pixel is the mean of four.
func (r *region) halved(img video.Image) video.Image {
	w, h := (img.Width+1)/2, (img.Height+1)/2
	if cap(r.half) < w*h {
		r.half = make([]uint32, w*h)
	}
	r.half = r.half[:w*h]
	pix, stride := words(img.Pix), img.Stride/4
	for y := range h {
		top := pix[2*y*stride:][:img.Width]
		below := top
		if 2*y+1 < img.Height {
			below = pix[(2*y+1)*stride:][:img.Width]
		}
		out := r.half[y*w : (y+1)*w]
		for x := range img.Width / 2 {
			out[x] = mean(top[2*x], top[2*x+1], below[2*x], below[2*x+1])
		}
		if img.Width%2 == 1 {
			x := img.Width - 1
			out[w-1] = mean(top[x], top[x], below[x], below[x])
		}
	}
	return video.Image{Pix: octets(r.half), Stride: 4 * w, Width: w, Height: h}
}

// mean is the mean of four pixels, by colour.
func mean(a, b, c, d uint32) uint32 {
	const rb, g = 0xff00ff, 0x00ff00
	x := a&rb + b&rb + c&rb + d&rb + 0x020002
	y := a&g + b&g + c&g + d&g + 0x000200
	return x>>2&rb | y>>2&g
}

func area(r image.Rectangle) int { return r.Dx() * r.Dy() }
