package agent

import (
	"slices"

	"penstock.dev/penstock/internal/media"
)

// keptCursors are the serials of the cursors that a viewer keeps, the oldest first. An animated cursor comes
// round in a second; its pictures are sent once.
type keptCursors []uint32

// message shows a cursor to the viewer, and notes that it has it then. A nil k always sends the picture.
func (k *keptCursors) message(c *media.Cursor) media.ToViewer {
	if k == nil || len(c.RGBA) == 0 {
		return c
	}
	if slices.Contains(*k, c.Serial) {
		return &media.CursorAgain{Serial: c.Serial}
	}
	if len(*k) == media.KeptCursors {
		*k = slices.Delete(*k, 0, 1)
	}
	*k = append(*k, c.Serial)
	return c
}
