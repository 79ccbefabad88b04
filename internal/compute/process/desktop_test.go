package process_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/appstream/appstreamtest"
)

// The application's main window is all that users see; further windows have their size and a frame.
func TestFirstWindowFillsTheScreen(t *testing.T) {
	needs(t, "Xvfb", "openbox", "xterm")
	t.Parallel()
	w := open(t, t.TempDir())
	id := appstreamtest.ID(1)
	info, err := w.Start(t.Context(), appstream.InstanceSpec{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	s := appstream.SessionSpec{ID: "s", Endpoint: appstream.InternetEndpoint, ControlKey: make([]byte, 32), Width: 1024, Height: 768}
	begin := func(class string) {
		s.Application = appstream.Application{Name: class, Command: []string{"xterm", "-class", class, "-geometry", "40x10"}}
		if err := w.Begin(t.Context(), id, s); err != nil {
			t.Fatal(err)
		}
	}
	begin("First")
	appstreamtest.AwaitWindows(t, info, "First")
	appstreamtest.Await(t, "window as large as the screen", func() bool {
		window, screen := appstreamtest.Geometry(t, info, "First")
		return screen == [2]int{1024, 768} && window == [4]int{0, 0, 1024, 768}
	})
	// The rule of the first window goes a moment after it has come; windows of one application may be quicker, and fill the screen too.
	small := false
	for n := 0; n < 20 && !small; n++ {
		class := "Further" + string(rune('A'+n))
		begin(class)
		appstreamtest.Await(t, "further window", func() bool {
			window, _ := appstreamtest.Geometry(t, info, class)
			return window[2] > 0
		})
		window, _ := appstreamtest.Geometry(t, info, class)
		small = window[2] < 1024 && window[3] < 768 && window[1] > 0 // below its title
	}
	if !small {
		t.Error("further windows fill the screen as well")
	}
}

// GTK programs must not wait for buses that are not there, nor for a user database that does not know the user.
func TestMousepad(t *testing.T) {
	needs(t, "Xvfb", "openbox", "mousepad")
	t.Parallel()
	w := open(t, t.TempDir())
	id := appstreamtest.ID(1)
	info, err := w.Start(t.Context(), appstream.InstanceSpec{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	err = w.Begin(t.Context(), id, appstream.SessionSpec{
		ID: "s", Endpoint: appstream.InternetEndpoint, ControlKey: make([]byte, 32), Width: 1024, Height: 768,
		Application: appstream.Application{Name: "mousepad", Command: []string{"mousepad"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	appstreamtest.AwaitWindows(t, info, "mousepad")
	appstreamtest.Await(t, "window as large as the screen", func() bool {
		window, screen := appstreamtest.Geometry(t, info, "mousepad")
		return screen == [2]int{1024, 768} && window == [4]int{0, 0, 1024, 768}
	})
	appstreamtest.CloseWindows(t, info)
	e, err := w.Next(t.Context())
	if err != nil || e.Kind != appstream.SessionOver || e.Code != appstream.EndApplication {
		t.Errorf("got %+v, %v; want the session's end", e, err)
	}
	if err := w.Stop(t.Context(), id, appstream.EndByUser, ""); err != nil {
		t.Error(err)
	}
	for _, l := range w.leftovers() {
		t.Errorf("left behind: %s", l)
	}
}

// Applications leave processes behind that nobody waits for; the agent does.
func TestOrphansAreBuried(t *testing.T) {
	needs(t, "Xvfb", "openbox", "xterm")
	t.Parallel()
	w := open(t, t.TempDir())
	id := appstreamtest.ID(1)
	info, err := w.Start(t.Context(), appstream.InstanceSpec{ID: id})
	if err != nil {
		t.Fatal(err)
	}
	const script = `for i in 1 2 3; do (sh -c 'echo $$ >>$HOME/pids; sleep 0.2' &); done; exec xterm`
	err = w.Begin(t.Context(), id, appstream.SessionSpec{
		ID: "s", Endpoint: appstream.InternetEndpoint, ControlKey: make([]byte, 32),
		Application: appstream.Application{Name: "sh", Command: []string{"sh", "-c", script}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var pids []string
	appstreamtest.Await(t, "three orphans", func() bool {
		b, _ := os.ReadFile(filepath.Join(filepath.Dir(info.Local.Xauthority), "home/pids"))
		pids = strings.Fields(string(b))
		return len(pids) == 3
	})
	appstreamtest.Await(t, "end of the orphans", func() bool {
		for _, pid := range pids {
			if _, err := os.Lstat("/proc/" + pid); err == nil {
				return false
			}
		}
		return true
	})
	appstreamtest.AwaitWindows(t, info, "xterm") // it lives on
}
