package slowlink_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"penstock.dev/penstock/internal/encode"
	"penstock.dev/penstock/internal/media"
	"penstock.dev/penstock/internal/penstocktest/slowlink"
	"penstock.dev/penstock/internal/wire/channel"
)

const (
	patience = 30 * time.Second
	lossless = channel.CodecTiles | channel.CodecCopy | channel.CodecFill
	tile     = 64 * 64 * 3
)

func start(t *testing.T, c slowlink.Conditions, congestion string) (*slowlink.Session, *slowlink.Viewer) {
	t.Helper()
	if missing := slowlink.Missing(); missing != "" {
		t.Skip(missing)
	}
	link, err := slowlink.Open(c, congestion)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(link.Close)
	session, err := slowlink.Start(link, func(c media.Codecs) (media.Encoder, error) { return encode.NewTiles(c, encode.Options{}) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Close)
	viewer, err := session.Open(lossless)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(viewer.Close)
	if err := viewer.Exact(patience); err != nil {
		t.Fatal(err)
	}
	return session, viewer
}

// Over real TCP, while more is drawn than the link carries: keys are answered, little waits before the link, no more
// than three updates come without an acknowledgement, a link that becomes slower or faster is followed, and the
// picture is exact when the drawing ends.
func TestStreamOverLinks(t *testing.T) {
	for _, tt := range []struct {
		from, to   slowlink.Conditions
		congestion string
	}{
		{slowlink.Conditions{Rate: 20e6, Trip: 50 * time.Millisecond}, slowlink.Conditions{Rate: 2e6, Trip: 50 * time.Millisecond}, "reno"},
		{slowlink.Conditions{Rate: 2e6, Trip: 5 * time.Millisecond}, slowlink.Conditions{Rate: 20e6, Trip: 150 * time.Millisecond}, ""},
		{slowlink.Conditions{Rate: 10e6, Trip: 20 * time.Millisecond, Loss: 0.01}, slowlink.Conditions{Rate: 5e6, Trip: 20 * time.Millisecond}, "cubic"},
	} {
		name := fmt.Sprintf("%v Mbit/s %v to %v Mbit/s %v", tt.from.Rate/1e6, tt.from.Trip, tt.to.Rate/1e6, tt.to.Trip)
		t.Run(name, func(t *testing.T) {
			session, viewer := start(t, tt.from, tt.congestion)
			still := session.Screen.PlayPages(150*time.Millisecond, true)
			keys := func() {
				t.Helper()
				for range 6 {
					if err := viewer.Key(t.Context()); err != nil {
						t.Fatal(err)
					}
					if err := viewer.Answered(patience); err != nil {
						t.Fatal(err)
					}
					time.Sleep(100 * time.Millisecond) // a user's pause
				}
			}
			keys()
			session.Link.Set(tt.to)
			keys()
			if _, err := viewer.Take(); err != nil {
				t.Fatal(err)
			}
			var waiting []int
			if err := viewer.Until(patience, "thirty updates", func(s *slowlink.Seen) bool {
				waiting = s.Waiting
				return s.Updates >= 30
			}); err != nil {
				t.Fatal(err)
			}
			slices.Sort(waiting)
			bytes := tt.to.Rate / 8
			bound := int(bytes*(tt.to.Trip+200*time.Millisecond).Seconds()) + 3*tile
			if got := waiting[len(waiting)*9/10]; got > bound {
				t.Errorf("%d bytes wait before the link, want at most %d", got, bound)
			}
			viewer.Hold()
			quiet(t, session.Link)
			held, err := viewer.Release(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			// One may have been acknowledged while Hold came.
			if held == 0 || held > 3 {
				t.Errorf("%d updates came without an acknowledgement, want at most 3", held)
			}
			still()
			if err := viewer.Exact(patience); err != nil {
				t.Error(err)
			}
		})
	}
}

// quiet waits until the link has carried nothing for a second.
func quiet(t *testing.T, l *slowlink.Link) {
	t.Helper()
	end := time.Now().Add(patience)
	for n := -1; n != l.Packets(); time.Sleep(time.Second) {
		if n = l.Packets(); time.Now().After(end) {
			t.Fatal("the link was not quiet")
		}
	}
}

// When nothing changes there are no packets, no captures, and nothing wakes.
func TestIdleCostsNothing(t *testing.T) {
	session, viewer := start(t, slowlink.Conditions{Rate: 100e6, Trip: 5 * time.Millisecond}, "")
	if err := viewer.Key(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := viewer.Answered(patience); err != nil {
		t.Fatal(err)
	}
	const watched = 3 * time.Second
	var packets, captures, switches int
	for range 4 { // TCP's own sign of life after 15 s, or a busy machine's leftovers, may fall into one of them
		quiet(t, session.Link)
		packets, captures, switches = session.Link.Packets(), session.Screen.Captures(), contextSwitches(t)
		time.Sleep(watched)
		packets, captures, switches = session.Link.Packets()-packets, session.Screen.Captures()-captures, contextSwitches(t)-switches
		if packets == 0 && captures == 0 && switches < 60 {
			return
		}
	}
	t.Errorf("in %v without a change: %d packets, %d captures, the process slept and woke %d times", watched, packets, captures, switches)
}

// A viewer whose network vanishes without a word is noticed by the kernel's own signs of life, which carry no payload: nothing else is
// sent while nothing happens. Another can resume then.
func TestLostViewerIsNoticed(t *testing.T) {
	if os.Getenv("PENSTOCK_E2E") != "1" {
		t.Skip("needs PENSTOCK_E2E=1: it waits half a minute for a link that is cut (make e2e)")
	}
	t.Parallel()
	session, _ := start(t, slowlink.Conditions{Rate: 100e6, Trip: 5 * time.Millisecond}, "")
	quiet(t, session.Link)
	select {
	case <-session.Gone:
		t.Fatal("the viewer was taken for lost while it was there")
	case <-time.After(20 * time.Second): // longer than the time after which it is asked
	}
	session.Link.Cut()
	select {
	case <-session.Gone:
	case <-time.After(2 * time.Minute):
		t.Fatal("a viewer that is gone was not noticed")
	}
}

// contextSwitches is how often threads of this process have gone to sleep.
func contextSwitches(t *testing.T) int {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread ended
		}
		for line := range strings.SplitSeq(string(b), "\n") {
			if rest, ok := strings.CutPrefix(line, "voluntary_ctxt_switches:"); ok {
				n, err := strconv.Atoi(strings.TrimSpace(rest))
				if err != nil {
					t.Fatal(err)
				}
				sum += n
			}
		}
	}
	return sum
}

// A hidden viewer's screen is not captured; when it is seen again it gets what changed.
func TestHiddenCostsNothing(t *testing.T) {
	session, viewer := start(t, slowlink.Conditions{Rate: 100e6, Trip: 5 * time.Millisecond}, "")
	if err := viewer.Hide(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	quiet(t, session.Link)
	captures, packets := session.Screen.Captures(), session.Link.Packets()
	still := session.Screen.PlayPages(50*time.Millisecond, true)
	time.Sleep(500 * time.Millisecond)
	still()
	if n := session.Screen.Captures() - captures; n > 0 {
		t.Errorf("%d captures while nobody sees the picture", n)
	}
	if n := session.Link.Packets() - packets; n > 0 {
		t.Errorf("%d packets while nobody sees the picture", n)
	}
	if err := viewer.Hide(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if err := viewer.Exact(patience); err != nil {
		t.Error(err)
	}
}
