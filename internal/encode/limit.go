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

// fillPacket packs tiles until the packet has about limit bytes as they travel: first those that prompt views have
// changed, then the others in turn. Records are compressed as they come, because nobody knows before how small
// they get: at a fixed number of records a page of text would take a slow link ten updates instead of one.
func (t *Tiles) fillPacket(views []media.View, limit int) error {
	t.raw, t.written = t.raw[:0], 0
	t.out.Reset()
	for i := range views {
		if views[i].Prompt {
			t.packView(&views[i], max(limit, mostPrompt))
		}
	}
	budget := limit
	if len(t.raw) > limit/2 {
		budget = 0 // whoever waits for it waits for nothing else
	}
	for t.dirtyCount > 0 && (budget > 0 || len(t.raw) == 0) {
		from := len(t.raw) + solidRecord*len(t.solid)
		for t.dirtyCount > 0 && len(t.raw)+solidRecord*len(t.solid)-from <= budget {
			if i := t.next; t.dirty[i] {
				t.setDirty(i, false)
				t.pack(i%t.columns, i/t.columns)
			}
			t.next = (t.next + 1) % len(t.dirty)
		}
		if t.dirtyCount == 0 || len(t.raw) == 0 {
			break
		}
		if err := t.compress(); err != nil {
			return err
		}
		left := limit - t.out.Len() - solidRecord*len(t.solid)
		budget = int(float64(left) * float64(len(t.raw)) / float64(t.out.Len()))
		if left < int(float64(limit)*(1-fullShare)) || budget < leastChunk {
			break
		}
	}
	return nil
}

// packView packs the tiles that the view has changed, up to about most bytes of records. What is left waits as all
// else does.
func (t *Tiles) packView(v *media.View, most int) {
	grid := tilesOf(v.Rect.Intersect(t.size.Bounds()))
	for row := grid.Min.Y; row < grid.Max.Y; row++ {
		for column := grid.Min.X; column < grid.Max.X; column++ {
			if i := row*t.columns + column; t.dirty[i] && len(t.raw) <= most {
				t.setDirty(i, false)
				t.pack(column, row)
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
