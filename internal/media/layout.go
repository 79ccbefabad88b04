package media

import "image"

// MaxMonitors is how many monitors a screen can have.
const MaxMonitors = 2

// The scales of a desktop, in percent; 100 is 96 dpi.
const (
	DefaultScale = 100
	minScale     = 75
	maxScale     = 500
)

// Layout is how a screen is to be: monitors side by side from the left with their tops aligned, and the
// desktop's scale. A second monitor that is not used is zero.
type Layout struct {
	Monitors [MaxMonitors]Size
	Scale    int // percent; 100 is 96 dpi
}

// SingleMonitor is a layout of one monitor.
func SingleMonitor(size Size, scale int) Layout {
	return Layout{Monitors: [MaxMonitors]Size{size}, Scale: scale}
}

// Size is the screen that holds all monitors.
func (l Layout) Size() Size {
	var s Size
	for _, m := range l.Monitors {
		s.Width += m.Width
		s.Height = max(s.Height, m.Height)
	}
	return s
}

// Bounds are the monitors' rectangles on the screen.
func (l Layout) Bounds() []image.Rectangle {
	out := make([]image.Rectangle, 0, MaxMonitors)
	x := 0
	for _, m := range l.Monitors {
		if m != (Size{}) {
			out = append(out, image.Rect(x, 0, x+m.Width, m.Height))
		}
		x += m.Width
	}
	return out
}

// Fit is the nearest layout on a screen of at most limit. Two monitors that are too wide together are cut to
// the same share each. A scale of 0 is 100 percent.
func (l Layout) Fit(limit Size) Layout {
	l.Monitors[0] = l.Monitors[0].Fit(limit)
	if second := &l.Monitors[1]; *second != (Size{}) {
		*second = second.Fit(limit)
		if first := &l.Monitors[0]; first.Width+second.Width > limit.Width {
			first.Width = max(minEdge, first.Width*limit.Width/(first.Width+second.Width))
			second.Width = max(minEdge, limit.Width-first.Width)
		}
	}
	if l.Scale == 0 {
		l.Scale = DefaultScale
	}
	l.Scale = max(minScale, min(l.Scale, maxScale))
	return l
}
