package x11

import (
	"bufio"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock.dev/penstock/internal/media"
)

// client is a program that notes what is typed into its window.
type client struct {
	typed func() string // so far
	stop  func()
	trace func() string // how it came by that
}

// clients are the kinds of program that read the keyboard in ways of their own. Each start has one in front, with the keys.
var clients = []struct {
	name  string
	start func(t *testing.T, s *Server, run int) *client
}{
	{"Xlib", startReader},
	{"xterm", startTerminal},
	{"GTK", startGTK},
}

// runClient runs a program on the display until stop is called. Each line that it prints goes to line.
func runClient(t *testing.T, s *Server, line func(string), args ...string) (stop func()) {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "DISPLAY="+s.Display(), "XAUTHORITY="+s.Xauthority(), "LC_ALL=C.UTF-8", "XMODIFIERS=@im=none",
		"GTK_IM_MODULE=gtk-im-context-simple", "GDK_BACKEND=x11", "NO_AT_BRIDGE=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe() // readers end with it
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			line(lines.Text())
		}
	}()
	stop = sync.OnceFunc(func() {
		_ = in.Close()
		_ = cmd.Process.Kill()
		<-done
		_ = cmd.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// startReader starts web/e2e/x11/reader.c, which is Xlib and nothing else.
func startReader(t *testing.T, s *Server, _ int) *client {
	t.Helper()
	program := filepath.Join(t.TempDir(), "reader")
	if _, err := os.Stat("/usr/include/X11/XKBlib.h"); err != nil {
		t.Skip("needs Xlib's headers (Debian package libx11-dev)")
	}
	if out, err := exec.CommandContext(t.Context(), "gcc", "-O1", "-o", program, "../../web/e2e/x11/reader.c", "-lX11").CombinedOutput(); err != nil {
		t.Fatalf("compile the reader: %v\n%s", err, out)
	}
	var mu sync.Mutex
	var text, trace strings.Builder
	ready := make(chan struct{})
	told := sync.OnceFunc(func() { close(ready) })
	stop := runClient(t, s, func(line string) {
		mu.Lock()
		defer mu.Unlock()
		var seen struct{ T, Text string }
		if err := json.Unmarshal([]byte(line), &seen); err != nil {
			t.Errorf("reader wrote %q: %v", line, err)
		}
		b, _ := hex.DecodeString(seen.Text)
		text.Write(b)
		fmt.Fprintln(&trace, line)
		if seen.T == "ready" {
			told()
		}
	}, program)
	await(t, "the reader's focus", ready)
	locked := func(b *strings.Builder) func() string {
		return func() string {
			mu.Lock()
			defer mu.Unlock()
			return b.String()
		}
	}
	return &client{locked(&text), stop, locked(&trace)}
}

// startTerminal starts an xterm whose program writes what it gets into a file.
func startTerminal(t *testing.T, s *Server, run int) *client {
	t.Helper()
	if _, err := exec.LookPath("xterm"); err != nil {
		t.Skip("needs xterm (Debian package xterm)")
	}
	if _, err := exec.LookPath("xdotool"); err != nil {
		t.Skip("needs xdotool (Debian package xdotool)")
	}
	out := filepath.Join(t.TempDir(), "typed")
	title := fmt.Sprintf("terminal %d", run)
	stop := runClient(t, s, func(string) {}, "xterm", "-u8", "-T", title, "-geometry", "80x24+0+0",
		"-e", "sh", "-c", "stty raw -echo; : > "+out+"; cat >> "+out)
	eventually(t, "the terminal's program", func() bool { _, err := os.Stat(out); return err == nil })
	focus := exec.CommandContext(t.Context(), "xdotool", "search", "--sync", "--name", "^"+title+"$", "windowfocus", "--sync")
	focus.Env = append(os.Environ(), "DISPLAY="+s.Display(), "XAUTHORITY="+s.Xauthority())
	if said, err := focus.CombinedOutput(); err != nil {
		t.Fatalf("give the terminal the focus: %v\n%s", err, said)
	}
	return &client{func() string { b, _ := os.ReadFile(out); return string(b) }, stop, func() string { return "" }}
}

// gtkEntry prints what its field has, in hex, whenever that changes.
const gtkEntry = `
import gi
gi.require_version("Gtk", "3.0")
from gi.repository import Gtk, GLib
def say(text): print(text, flush=True)
w = Gtk.Window(type=Gtk.WindowType.TOPLEVEL)
e = Gtk.Entry()
e.connect("changed", lambda e: say("text " + e.get_text().encode().hex()))
e.connect("focus-in-event", lambda *_: say("ready"))
w.add(e)
w.set_default_size(400, 100)
w.show_all()
GLib.timeout_add(50, lambda: (w.get_window().focus(0), True)[1] if not w.is_active() else False)
Gtk.main()
`

func startGTK(t *testing.T, s *Server, _ int) *client {
	t.Helper()
	if err := exec.CommandContext(t.Context(), "/usr/bin/python3", "-c", `import gi; gi.require_version("Gtk", "3.0")`).Run(); err != nil {
		t.Skip("needs GTK from Python (Debian packages python3-gi and gir1.2-gtk-3.0)")
	}
	var mu sync.Mutex
	text := ""
	ready := make(chan struct{})
	told := sync.OnceFunc(func() { close(ready) })
	stop := runClient(t, s, func(line string) {
		if line == "ready" {
			told()
		}
		if digits, ok := strings.CutPrefix(line, "text "); ok {
			b, _ := hex.DecodeString(digits)
			mu.Lock()
			text = string(b)
			mu.Unlock()
		}
	}, "/usr/bin/python3", "-c", gtkEntry)
	await(t, "the field's focus", ready)
	return &client{func() string { mu.Lock(); defer mu.Unlock(); return text }, stop, func() string { return "" }}
}

// eventually waits for a condition outside, up to the tests' patience.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// burn keeps the processors busy until the test ends, in `make e2e` alone.
func burn(t *testing.T) {
	t.Helper()
	if os.Getenv("PENSTOCK_E2E") == "" {
		return
	}
	for range 2 * runtime.NumCPU() {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", "ulimit -t 30; while :; do :; done") // ends by itself, too
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Wait() }) // killed with the test's context
	}
}

// A program whose first keys these are gets every character that has to be bound, however fast they come: libX11
// begins to follow the keyboard some time after it looked the first key up.
func TestUnboundCharactersInNewPrograms(t *testing.T) {
	t.Parallel()
	burn(t)
	for _, kind := range clients {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			openScreen(t, s)
			in, err := s.OpenInput()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(in.Close)
			runs := map[string]int{"Xlib": 4}[kind.name]
			for run := range max(runs, 2) {
				c := kind.start(t, s, run)
				want := "1"
				for i := range 40 { // each a change of the keyboard
					want += string(rune(0x4e00 + 100*run + i))
				}
				want += "¹€™æ" // there from the start
				for _, r := range want {
					if err := typeKey(in, r); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Duration(100*(run+1)) * time.Microsecond) // for the server and the program to get on
				}
				end := time.Now().Add(patience)
				for c.typed() != want && strings.HasPrefix(want, c.typed()) && time.Now().Before(end) {
					time.Sleep(5 * time.Millisecond)
				}
				if got := c.typed(); got != want {
					t.Errorf("program %d got %q, want %q\n%s", run, got, want, c.trace())
				}
				c.stop()
			}
		})
	}
}

// typeKey types a character, with AltGr as Windows tells of it when it is not ASCII.
func typeKey(in *Input, r rune) error {
	const graph = media.ModCtrl | media.ModAlt | media.ModAltGraph
	events := []media.Event{press("KeyX", string(r), 0), lift("KeyX", string(r), 0)}
	if r >= 0x80 {
		events = []media.Event{
			press("ControlLeft", "Control", media.ModCtrl), press("AltRight", "AltGraph", graph),
			press("KeyX", string(r), graph), lift("KeyX", string(r), graph),
			lift("ControlLeft", "Control", media.ModAlt|media.ModAltGraph), lift("AltRight", "AltGraph", 0),
		}
	}
	for _, e := range events {
		if err := in.Inject(e); err != nil {
			return err
		}
	}
	return nil
}
