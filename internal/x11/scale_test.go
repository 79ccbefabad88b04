package x11

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/media"
)

// tool runs an X11 program on the server's display and returns what it prints.
func tool(t testing.TB, s *Server, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("needs %s (Debian packages x11-utils, x11-xserver-utils, xsettingsd)", name)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = displayEnv(s)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return string(out)
}

func displayEnv(s *Server) []string {
	return append(os.Environ(), "DISPLAY="+s.Display(), "XAUTHORITY="+s.Xauthority(), "NO_AT_BRIDGE=1", "GTK_A11Y=none", "GSETTINGS_BACKEND=memory")
}

// What programs of others see of each scale: the screen's resolution, its monitors, resources and XSETTINGS.
func TestScaleIsSeenByPrograms(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	x := openScreen(t, s)
	for _, c := range []struct {
		scale, dpi, factor, unscaled, cursor int
	}{
		{100, 96, 1, 96, 24}, {125, 120, 1, 120, 30}, {150, 144, 1, 144, 36}, {200, 192, 2, 96, 48}, {250, 240, 2, 120, 60}, {300, 288, 3, 96, 72},
	} {
		size := media.Size{Width: 801, Height: 601} // the same one: the scale alone changes
		if err := x.Arrange(media.SingleMonitor(size, c.scale)); err != nil {
			t.Fatal(err)
		}
		settings := tool(t, s, "dump_xsettings")
		for _, want := range []string{
			fmt.Sprintf("Xft/DPI %d\n", c.dpi*1024), fmt.Sprintf("Gdk/WindowScalingFactor %d\n", c.factor),
			fmt.Sprintf("Gdk/UnscaledDPI %d\n", c.unscaled*1024), fmt.Sprintf("Gtk/CursorThemeSize %d\n", c.cursor),
		} {
			if !strings.Contains(settings, want) {
				t.Errorf("%d %%: settings are\n%s\nwant %s", c.scale, settings, want)
			}
		}
		resources := tool(t, s, "xrdb", "-query")
		for _, want := range []string{fmt.Sprintf("Xft.dpi:\t%d\n", c.dpi), fmt.Sprintf("Xcursor.size:\t%d\n", c.cursor)} {
			if !strings.Contains(resources, want) {
				t.Errorf("%d %%: resources are\n%s\nwant %s", c.scale, resources, want)
			}
		}
		if m := regexp.MustCompile(`resolution: +(\d+)x(\d+) dots`).FindStringSubmatch(tool(t, s, "xdpyinfo")); m == nil || !near(m[1], c.dpi) || !near(m[2], c.dpi) {
			t.Errorf("%d %%: xdpyinfo says %q, want %d dpi", c.scale, m, c.dpi)
		}
		monitors := tool(t, s, "xrandr", "--listmonitors")
		want := fmt.Sprintf("801/%dx601/%d+0+0", millimetres(801, c.scale), millimetres(601, c.scale))
		if !strings.Contains(monitors, "Monitors: 1\n") || !strings.Contains(monitors, want) {
			t.Errorf("%d %%: monitors are\n%s\nwant one, %s", c.scale, monitors, want)
		}
	}
}

// near allows for sizes in whole millimetres.
func near(got string, want int) bool {
	n, err := strconv.Atoi(got)
	return err == nil && n >= want-1 && n <= want+1
}

func TestResourcesOfOthersStay(t *testing.T) {
	t.Parallel()
	old := "Emacs.font:\tsans\nXft.dpi:\t50\nXft.antialias: 1\n"
	want := "Emacs.font:\tsans\nXft.antialias: 1\nXft.dpi:\t120\nXcursor.size:\t30\nXTerm*faceName:\tMonospace\nXTerm*faceSize:\t9\n"
	if diff := cmp.Diff(want, mergeResources(old, 125)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	back := "Emacs.font:\tsans\nXft.antialias: 1\nXft.dpi:\t96\nXcursor.size:\t24\n"
	if diff := cmp.Diff(back, mergeResources(want, 100)); diff != "" {
		t.Errorf("back to 100 %% (-want +got)\n%s", diff)
	}
}

// A settings manager of the session's own keeps the selection; when it goes, ours comes back.
func TestSettingsManagerOfTheSessionWins(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	x := openScreen(t, s)
	daemon, err := exec.LookPath("xsettingsd")
	if err != nil {
		t.Skip("needs xsettingsd (Debian package xsettingsd)")
	}
	config := filepath.Join(t.TempDir(), "xsettingsd")
	if err := os.WriteFile(config, []byte("Xft/DPI 77777\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), daemon, "-c", config)
	cmd.Env = displayEnv(s)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "the other manager", func() bool { return strings.Contains(tool(t, s, "dump_xsettings"), "Xft/DPI 77777") })
	size := media.Size{Width: 800, Height: 600}
	if err := x.Arrange(media.SingleMonitor(size, 150)); err != nil {
		t.Fatal(err)
	}
	if got := tool(t, s, "dump_xsettings"); !strings.Contains(got, "Xft/DPI 77777") {
		t.Errorf("the session's own manager was replaced:\n%s", got)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	scale := 150
	until(t, "ours again", func() bool {
		scale = 350 - scale // 200, 150, …
		if err := x.Arrange(media.SingleMonitor(size, scale)); err != nil {
			t.Fatal(err)
		}
		return strings.Contains(tool(t, s, "dump_xsettings"), fmt.Sprintf("Xft/DPI %d\n", dpi(scale)*1024))
	})
}

// until waits for a condition that nothing signals.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// gtkProgram prints "factor height" whenever its scale changes: the window's factor, and how many physical pixels a line of text is high.
const gtkProgram = `
import gi
gi.require_version("Gtk", "3.0")
from gi.repository import GLib, Gtk
window, label = Gtk.Window(), Gtk.Label(label="Penstock")
window.add(label)
window.show_all()
last = None
def report():
    global last
    factor = window.get_scale_factor()
    now = (factor, label.create_pango_layout("Penstock").get_pixel_size()[1] * factor)
    if now != last:
        last = now
        print(*now, flush=True)
    return True
GLib.timeout_add(50, report)
Gtk.main()
`

// A GTK program that runs follows the scale: its text is as high as the scale says, in physical pixels.
func TestScaleIsFollowedByGTK(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	x := openScreen(t, s)
	const python = "/usr/bin/python3"
	if err := exec.CommandContext(t.Context(), python, "-c", "import gi; gi.require_version('Gtk', '3.0')").Run(); err != nil {
		t.Skip("needs GTK for Python (Debian packages python3-gi, gir1.2-gtk-3.0)")
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", gtkProgram)
	cmd.Env = slices.DeleteFunc(displayEnv(s), func(v string) bool { return strings.HasPrefix(v, "GDK_") })
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := make(chan [2]int, 100)
	go func() {
		defer close(lines)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			var v [2]int
			if _, err := fmt.Sscan(sc.Text(), &v[0], &v[1]); err == nil {
				lines <- v
			}
		}
	}()
	await := func(what string, ok func(v [2]int) bool) [2]int {
		t.Helper()
		var last [2]int
		for timeout := time.After(patience); ; {
			select {
			case v, open := <-lines:
				if !open {
					t.Fatalf("%s: the program ended", what)
				}
				if last = v; ok(v) {
					return v
				}
			case <-timeout:
				t.Fatalf("%s: waited too long; last factor and height %v", what, last)
			}
		}
	}
	base := await("at the start", func([2]int) bool { return true })
	for _, c := range []struct{ scale, factor int }{{200, 2}, {150, 1}, {300, 3}, {125, 1}, {100, 1}} {
		if err := x.Arrange(media.SingleMonitor(media.Size{Width: 1000, Height: 700}, c.scale)); err != nil {
			t.Fatal(err)
		}
		want := float64(base[1]) * float64(c.scale) / 100
		await(fmt.Sprintf("at %d %%, height %.1f", c.scale, want), func(v [2]int) bool {
			return v[0] == c.factor && float64(v[1]) > want*0.9 && float64(v[1]) < want*1.1
		})
	}
}

// Two monitors, and one again, as other programs see them.
func TestMonitors(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	x := openScreen(t, s)
	two := media.Layout{Monitors: [media.MaxMonitors]media.Size{{Width: 801, Height: 601}, {Width: 640, Height: 700}}, Scale: 100}
	one := media.SingleMonitor(media.Size{Width: 900, Height: 600}, 100)
	wider := media.Layout{Monitors: [media.MaxMonitors]media.Size{{Width: 700, Height: 601}, {Width: 741, Height: 700}}, Scale: 100} // the same screen
	for _, c := range []struct {
		layout media.Layout
		want   []string
	}{
		{two, []string{"801/212x601/159+0+0", "640/169x700/185+801+0"}},
		{wider, []string{"700/185x601/159+0+0", "741/196x700/185+700+0"}},
		{one, []string{"900/238x600/159+0+0"}},
		{two, []string{"801/212x601/159+0+0", "640/169x700/185+801+0"}},
		{one, []string{"900/238x600/159+0+0"}},
	} {
		if err := x.Arrange(c.layout); err != nil {
			t.Fatal(err)
		}
		if got := x.Size(); got != c.layout.Size() {
			t.Errorf("the screen has %v, want %v", got, c.layout.Size())
		}
		got := regexp.MustCompile(`\d+/\d+x\d+/\d+\+\d+\+\d+`).FindAllString(tool(t, s, "xrandr", "--listmonitors"), -1)
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("monitors (-want +got)\n%s", diff)
		}
		if tools := tool(t, s, "xdpyinfo", "-ext", "XINERAMA"); !strings.Contains(tools, fmt.Sprintf("head #%d", len(c.want)-1)) || strings.Contains(tools, fmt.Sprintf("head #%d", len(c.want))) {
			t.Errorf("window managers do not see %d heads:\n%s", len(c.want), tools)
		}
	}
}
