package media_test

import (
	"image"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/media"
)

// However rectangles are added, the clusters cover all of them inside the bounds, stay inside the bounds, and
// are few.
func TestRegionCovers(t *testing.T) {
	t.Parallel()
	bounds := image.Rect(0, 0, 200, 150)
	rng := rand.New(rand.NewPCG(3, 4))
	for round := range 500 {
		var r media.Region
		var want [150][200]bool
		for range 1 + rng.IntN(60) {
			x, y := rng.IntN(240)-20, rng.IntN(190)-20
			rect := image.Rect(x, y, x+rng.IntN(40), y+rng.IntN(40))
			r.Add(rect)
			in := rect.Intersect(bounds)
			for y := in.Min.Y; y < in.Max.Y; y++ {
				for x := in.Min.X; x < in.Max.X; x++ {
					want[y][x] = true
				}
			}
		}
		clusters := r.Clusters(nil, bounds)
		if len(clusters) > 4 {
			t.Fatalf("round %d: %d clusters", round, len(clusters))
		}
		for _, c := range clusters {
			if c.Empty() || !c.In(bounds) {
				t.Fatalf("round %d: cluster %v", round, c)
			}
		}
		for y := range want {
			for x, damaged := range want[y] {
				covered := false
				for _, c := range clusters {
					covered = covered || image.Pt(x, y).In(c)
				}
				if damaged && !covered {
					t.Fatalf("round %d: %d,%d is lost", round, x, y)
				}
			}
		}
	}
}

func TestRegionClusters(t *testing.T) {
	t.Parallel()
	bounds := image.Rect(0, 0, 1000, 1000)
	tests := map[string]struct {
		add, want []image.Rectangle
	}{
		"nothing":        {nil, nil},
		"empty":          {[]image.Rectangle{{}}, nil},
		"outside":        {[]image.Rectangle{image.Rect(2000, 0, 2010, 10)}, nil},
		"cut":            {[]image.Rectangle{image.Rect(990, 990, 2000, 2000)}, []image.Rectangle{image.Rect(990, 990, 1000, 1000)}},
		"neighbours":     {[]image.Rectangle{image.Rect(0, 0, 10, 10), image.Rect(12, 0, 20, 10)}, []image.Rectangle{image.Rect(0, 0, 20, 10)}},
		"far apart":      {[]image.Rectangle{image.Rect(0, 0, 10, 10), image.Rect(900, 900, 910, 910)}, []image.Rectangle{image.Rect(0, 0, 10, 10), image.Rect(900, 900, 910, 910)}},
		"inside another": {[]image.Rectangle{image.Rect(0, 0, 50, 50), image.Rect(10, 10, 20, 20)}, []image.Rectangle{image.Rect(0, 0, 50, 50)}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var r media.Region
			for _, rect := range tt.add {
				r.Add(rect)
			}
			if diff := cmp.Diff(tt.want, r.Clusters(nil, bounds)); diff != "" {
				t.Errorf("want(-) got(+)\n%s", diff)
			}
		})
	}
}

func TestRegionDoesNotAllocate(t *testing.T) {
	var r media.Region
	clusters := make([]image.Rectangle, 0, 8)
	allocs := testing.AllocsPerRun(100, func() {
		for i := range 100 {
			r.Add(image.Rect(i*37%900, i*53%900, i*37%900+20, i*53%900+20))
		}
		clusters = r.Clusters(clusters[:0], image.Rect(0, 0, 1000, 1000))
		r.Reset()
	})
	if allocs != 0 {
		t.Errorf("got %v allocations, want 0", allocs)
	}
}

func TestFit(t *testing.T) {
	t.Parallel()
	limit := media.Size{Width: 1000, Height: 800}
	for in, want := range map[media.Size]media.Size{
		{Width: 0, Height: 0}:         {Width: 64, Height: 64},
		{Width: 801, Height: 601}:     {Width: 801, Height: 601},
		{Width: 63, Height: 65000}:    {Width: 64, Height: 800},
		{Width: 65000, Height: 65000}: limit,
	} {
		if got := in.Fit(limit); got != want {
			t.Errorf("%v: got %v, want %v", in, got, want)
		}
	}
}

func TestInputOrder(t *testing.T) {
	t.Parallel()
	var o media.InputOrder
	for i, tt := range []struct {
		connect bool
		seq     uint32
		want    bool
	}{
		{true, 1, true},
		{false, 2, true},
		{false, 2, false},
		{false, 1, false},
		{false, 10, true},
		{true, 10, false},
		{false, 1, false},
		{false, 11, true}, // the same page again
		{true, 1, true},
		{false, 1, false},
		{false, 2, true}, // a new page
		{true, 0, false},
		{false, 4294967295, true},
		{false, 0, false},
	} {
		if tt.connect {
			o.Connected()
		}
		if got := o.Accept(tt.seq); got != tt.want {
			t.Errorf("step %d, seq %d: got %v, want %v", i, tt.seq, got, tt.want)
		}
	}
}

func TestPacer(t *testing.T) {
	t.Parallel()
	var p media.Pacer
	now := time.Unix(1000, 0)
	wait := func(what string, want time.Duration) {
		t.Helper()
		if got := p.Wait(now); got != want {
			t.Errorf("%s: wait %v, want %v", what, got, want)
		}
	}
	const frame = time.Second / 60
	wait("first", 0)
	p.Started(now)
	wait("second at once", frame)
	now = now.Add(frame / 2)
	wait("half a frame later", frame-frame/2)
	p.InputSeen(now)
	wait("after a key", 0)
	p.Started(now)
	wait("after its answer", frame)
	for range 10 {
		p.InputSeen(now)
	}
	p.Started(now)
	p.Started(now)
	wait("many keys answer twice", frame)
	p.InputSeen(now)
	now = now.Add(51 * time.Millisecond)
	p.Started(now)
	wait("an answer that did not come in time", frame)
}

// A film's frame that comes late does not make the next one late, and no run has more than its rate.
func TestPacerCatchesUp(t *testing.T) {
	t.Parallel()
	const turn = time.Second / 60
	start := time.Unix(1000, 0)
	for _, late := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond, turn / 2, 12 * time.Millisecond} {
		var p media.Pacer
		p.Started(start)
		p.Started(start.Add(turn + late))
		want := max(0, late-turn/2)
		if got := p.Wait(start.Add(2 * turn)); got != want {
			t.Errorf("a frame after one that was %v late waits %v, want %v", late, got, want)
		}
		now, n := start.Add(turn+late), 0
		for end := now.Add(time.Second); now.Before(end); n++ {
			now = now.Add(p.Wait(now) + 100*time.Microsecond)
			p.Started(now)
		}
		if n > 61 {
			t.Errorf("%d updates in a second", n)
		}
	}
	if got := media.Turn(1_000, 22_000, 16_667); got != 22_000-(21_000-16_667) {
		t.Errorf("a late frame's turn began at %d", got)
	}
	if got := media.Turn(1_000, 900_000, 16_667); got != 900_000 {
		t.Errorf("the turn of the first frame of a run began at %d", got)
	}
}
