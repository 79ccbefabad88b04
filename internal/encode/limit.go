package encode

import (
	"fmt"

	"penstock.dev/penstock/internal/media"
)

const (
	// leastChunk is how many bytes of records are worth a flush: each costs some bytes and a table of codes.
	leastChunk = 4 << 10
	// fullShare of a limit is enough: what a further chunk would bring is not worth its flush.
	fullShare = 0.75
	// mostPrompt bounds the records that go before all others.
	mostPrompt = 64 << 10
)

// fillPacket packs tiles until the packet has about limit bytes as they travel: those that prompt views have changed,
// alone, or else all in turn. Records are compressed as they come, because nobody knows before how small
// they get: at a fixed number of records a page of text would take a slow link ten updates instead of one.
func (t *Tiles) fillPacket(views []media.View, limit int) error {
	for i := range views {
		if views[i].Prompt {
			if more, err := t.writeText(views[i].Rect, max(limit, mostPrompt)); more || err != nil {
				return err
			}
			t.packView(&views[i], max(limit, mostPrompt))
		}
	}
	if len(t.raw)+len(t.solid)+len(t.text.raw) > 0 {
		return nil // whoever waits for it waits for nothing else
	}
	budget := limit - t.coded
	if budget <= 0 && t.coded > 0 {
		return nil // the next packet has them
	}
	if more, err := t.writeText(t.size.Bounds(), budget); more || err != nil {
		return err
	}
	if budget -= t.out.Len(); budget <= 0 && t.out.Len() > 0 {
		return nil
	}
	written := t.out.Len()
	for t.ready > 0 {
		t.packSome(budget)
		if t.ready == 0 || len(t.raw) == t.written {
			break
		}
		if err := t.compress(); err != nil {
			return err
		}
		left := limit - t.coded - t.out.Len() - solidRecord*len(t.solid)
		if left < int(float64(limit)*(1-fullShare)) {
			break
		}
		// What comes may compress worse than what came.
		budget = min(int(float64(left)*float64(len(t.raw))/float64(t.out.Len()-written)), limit)
		if budget < leastChunk {
			break
		}
	}
	return nil
}

// packSome packs tiles in turn, up to budget bytes of records, but at least one.
func (t *Tiles) packSome(budget int) {
	start, solid := len(t.raw), len(t.solid)
	for t.ready > 0 {
		if i := t.next; t.isReady(i) {
			before, lossy := len(t.raw), t.lossy[i]
			t.send(i)
			size := len(t.raw) - start + solidRecord*(len(t.solid)-solid)
			if size > budget && before > start && len(t.raw) > before {
				t.setDirty(i, true) // goes with the next one
				t.setLossy(i, lossy)
				t.ready++
				t.raw = t.raw[:before]
				return
			}
			if size > budget {
				t.next = (t.next + 1) % len(t.dirty)
				return
			}
		}
		t.next = (t.next + 1) % len(t.dirty)
	}
}

// packView packs the tiles that the view has changed, up to about most bytes of records. What is left waits as all
// else does.
func (t *Tiles) packView(v *media.View, most int) {
	grid := tilesOf(v.Rect.Intersect(t.size.Bounds()))
	for row := grid.Min.Y; row < grid.Max.Y; row++ {
		for column := grid.Min.X; column < grid.Max.X; column++ {
			if i := row*t.columns + column; t.isReady(i) && len(t.raw) <= most {
				t.send(i)
			}
		}
	}
}

// compress appends the records that are new to the tiles section.
func (t *Tiles) compress() error {
	if t.written == len(t.raw) {
		return nil
	}
	if _, err := t.zstd.Write(t.raw[t.written:]); err != nil {
		return fmt.Errorf("compress tiles: %w", err)
	}
	if err := t.zstd.Flush(); err != nil {
		return fmt.Errorf("compress tiles: %w", err)
	}
	t.written = len(t.raw)
	return nil
}
