package media_test

import (
	"image"
	"testing"

	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/media"
)

func TestLayoutFit(t *testing.T) {
	t.Parallel()
	limit := media.Size{Width: 5120, Height: 2880}
	two := func(a, b media.Size, scale int) media.Layout {
		return media.Layout{Monitors: [media.MaxMonitors]media.Size{a, b}, Scale: scale}
	}
	for name, c := range map[string]struct{ in, want media.Layout }{
		"as wished": {
			media.SingleMonitor(media.Size{Width: 1367, Height: 769}, 125), media.SingleMonitor(media.Size{Width: 1367, Height: 769}, 125),
		},
		"no scale":  {media.SingleMonitor(media.Size{Width: 800, Height: 600}, 0), media.SingleMonitor(media.Size{Width: 800, Height: 600}, 100)},
		"too small": {media.SingleMonitor(media.Size{}, 1), media.SingleMonitor(media.Size{Width: 64, Height: 64}, 75)},
		"too large": {media.SingleMonitor(media.Size{Width: 9000, Height: 9000}, 9000), media.SingleMonitor(limit, 500)},
		"two": {
			two(media.Size{Width: 1920, Height: 1080}, media.Size{Width: 1280, Height: 1024}, 100),
			two(media.Size{Width: 1920, Height: 1080}, media.Size{Width: 1280, Height: 1024}, 100),
		},
		"two too wide": {
			two(media.Size{Width: 3840, Height: 2160}, media.Size{Width: 3840, Height: 2160}, 200),
			two(media.Size{Width: 2560, Height: 2160}, media.Size{Width: 2560, Height: 2160}, 200),
		},
	} {
		got := c.in.Fit(limit)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
		if s := got.Size(); s.Fit(limit) != s {
			t.Errorf("%s: screen of %v does not fit", name, s)
		}
	}
}

func TestLayoutBounds(t *testing.T) {
	t.Parallel()
	l := media.Layout{Monitors: [media.MaxMonitors]media.Size{{Width: 1920, Height: 1080}, {Width: 1280, Height: 1200}}}
	want := []image.Rectangle{image.Rect(0, 0, 1920, 1080), image.Rect(1920, 0, 3200, 1200)}
	if diff := cmp.Diff(want, l.Bounds()); diff != "" {
		t.Errorf("bounds (-want +got)\n%s", diff)
	}
	if got := l.Size(); got != (media.Size{Width: 3200, Height: 1200}) {
		t.Errorf("got a screen of %v, want 3200x1200", got)
	}
}
