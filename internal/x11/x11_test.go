package x11

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"image"
	"log/slog"
	"math/rand/v2"
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

const patience = 20 * time.Second

// TestMain fails when the tests leave goroutines behind.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	end := time.Now().Add(5 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(end) {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > before && code == 0 {
		stacks := make([]byte, 1<<20)
		fmt.Fprintf(os.Stderr, "%d goroutines are left of %d:\n%s\n", n, before, stacks[:runtime.Stack(stacks, true)])
		code = 1
	}
	os.Exit(code)
}

// startServer starts an X server for the test, or skips when there is none.
func startServer(t testing.TB) *Server {
	t.Helper()
	return startKind(t, testKind)
}

// testKind is the server that the tests use; TestAgainstXvnc runs them again with the other one.
var testKind = cmp.Or(ServerKind(os.Getenv("PENSTOCK_TEST_X_SERVER")), Xvfb)

func startKind(t testing.TB, kind ServerKind) *Server {
	t.Helper()
	if _, err := exec.LookPath(kind.Program()); err != nil {
		t.Skipf("needs %s (Debian package %s)", kind.Program(), kind.Package())
	}
	s, err := StartServer(t.Context(), ServerOptions{
		Dir: t.TempDir(), Kind: kind, MaxSize: media.Size{Width: 2560, Height: 1440},
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func openScreen(t testing.TB, s *Server) *Screen {
	t.Helper()
	x, err := s.OpenScreen()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(x.Close)
	if err := x.Resize(media.Size{Width: 800, Height: 600}); err != nil {
		t.Fatal(err)
	}
	return x
}

// painter is a client that draws on a window of its own.
type painter struct {
	c          *conn
	window, gc uint32
}

func newPainter(t testing.TB, s *Server, r image.Rectangle, events uint32, onEvent func([]byte)) *painter {
	t.Helper()
	c, err := dial(s.display, s.cookie, onEvent, func(e *xError) { t.Error(e) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	p := &painter{c: c, window: c.newID(), gc: c.newID()}
	const inputOutput, overrideRedirect, eventMask = 1, 1 << 9, 1 << 11
	req := words([]byte{1, 24, 10, 0}, p.window, c.setup.root)
	req = halves(req, uint16(r.Min.X), uint16(r.Min.Y), uint16(r.Dx()), uint16(r.Dy()), 0, inputOutput)
	req = words(req, c.setup.rootVisual, overrideRedirect|eventMask, 1, events)
	for _, r := range [][]byte{
		req,
		words([]byte{8, 0, 2, 0}, p.window),
		words([]byte{55, 0, 4, 0}, p.gc, p.window, 0),
		words([]byte{42, 0, 3, 0}, p.window, 0), // focus
	} {
		if err := c.check(r); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// fill paints a rectangle of the window in a colour and waits until the server has done it.
func (p *painter) fill(t testing.TB, r image.Rectangle, colour uint32) {
	t.Helper()
	const foreground = 1 << 2
	req := halves(words([]byte{70, 0, 5, 0}, p.window, p.gc), uint16(r.Min.X), uint16(r.Min.Y), uint16(r.Dx()), uint16(r.Dy()))
	if err := p.c.check(words([]byte{56, 0, 4, 0}, p.gc, foreground, colour)); err != nil {
		t.Fatal(err)
	}
	if err := p.c.check(req); err != nil {
		t.Fatal(err)
	}
}

func await(t testing.TB, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(patience):
		t.Fatalf("waited too long for %s", what)
	}
}

// follow applies damage and captures to a copy of the screen until it holds want.
type copyOf struct {
	size media.Size
	pix  []byte
}

func (c *copyOf) take(t testing.TB, x *Screen) int {
	t.Helper()
	var region media.Region
	if err := x.TakeDamage(&region); err != nil {
		t.Fatal(err)
	}
	size := x.Size()
	if size != c.size {
		c.size, c.pix = size, make([]byte, size.Width*size.Height*4)
		region.Add(size.Bounds())
	}
	views, err := x.Capture(&region, size)
	if err != nil {
		t.Fatal(err)
	}
	pixels := 0
	for _, v := range views {
		pixels += v.Rect.Dx() * v.Rect.Dy()
		for y := v.Rect.Min.Y; y < v.Rect.Max.Y; y++ {
			at := ((y-v.Rect.Min.Y)*v.Rect.Dx() + 0) * 4
			copy(c.pix[(y*size.Width+v.Rect.Min.X)*4:], v.Pix[at:at+v.Rect.Dx()*4])
		}
	}
	return pixels
}

// whole is the screen as XGetImage sees it.
func whole(t testing.TB, x *Screen) []byte {
	t.Helper()
	size := x.Size()
	req := halves(words([]byte{opGetImage, zPixmap, 5, 0}, x.c.setup.root), 0, 0, uint16(size.Width), uint16(size.Height))
	reply, err := x.c.ask(words(req, allPlanes))
	if err != nil {
		t.Fatal(err)
	}
	return reply[32:]
}

func TestDamageAndCapture(t *testing.T) {
	t.Parallel()
	for _, shared := range []bool{true, false} {
		t.Run(fmt.Sprintf("shared memory %v", shared), func(t *testing.T) {
			t.Parallel()
			s := startServer(t)
			x := openScreen(t, s)
			x.useImages = !shared
			p := newPainter(t, s, image.Rect(100, 50, 500, 350), 0, nil)
			var c copyOf
			await(t, "the first damage", x.Damaged())
			c.take(t, x)
			rng := rand.New(rand.NewPCG(1, 2))
			for i := range 100 {
				for range 1 + rng.IntN(5) {
					px, py := rng.IntN(390), rng.IntN(290)
					p.fill(t, image.Rect(px, py, px+1+rng.IntN(400-px), py+1+rng.IntN(300-py)), rng.Uint32()&rgbMask)
				}
				await(t, "damage", x.Damaged())
				c.take(t, x)
				// The first token may stand for the first rectangle only; all of it is there when
				// the server has answered this connection once more.
				want := whole(t, x)
				c.take(t, x)
				if !bytes.Equal(want, c.pix) {
					t.Fatalf("step %d: the copy differs from the screen", i)
				}
				select {
				case <-x.Damaged():
				default:
				}
			}
			p.fill(t, image.Rect(10, 10, 13, 12), 0x123456)
			await(t, "damage of a small rectangle", x.Damaged())
			if got := c.take(t, x); got > 100 {
				t.Errorf("captured %d pixels for a rectangle of 3×2", got)
			}
			if !shared {
				return
			}
			if x.useImages {
				t.Error("shared memory was given up")
			}
		})
	}
}

const rgbMask = 0xffffff

func TestResize(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	x := openScreen(t, s)
	var c copyOf
	for _, size := range []media.Size{
		{Width: 1337, Height: 751}, {Width: 64, Height: 64}, {Width: 2560, Height: 1440}, {Width: 801, Height: 601}, {Width: 801, Height: 601},
	} {
		if err := x.Resize(size); err != nil {
			t.Fatal(err)
		}
		if got := x.Size(); got != size {
			t.Fatalf("got %v, want %v", got, size)
		}
		c.take(t, x)
		if !bytes.Equal(whole(t, x), c.pix) {
			t.Errorf("%v: the copy differs from the screen", size)
		}
		other, err := dial(s.display, s.cookie, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := image.Pt(int(other.setup.width), int(other.setup.height)); got != image.Pt(size.Width, size.Height) {
			t.Errorf("a new client sees %v, want %v", got, size)
		}
		other.close()
	}
	for _, size := range []media.Size{{}, {Width: 63, Height: 64}, {Width: 2561, Height: 100}, {Width: 100, Height: -1}} {
		if err := x.Resize(size); err == nil {
			t.Errorf("resize to %v: got no error", size)
		}
	}
}

// A window that is dragged leaves nothing behind: no modes, no shared memory, no files.
func TestManyResizesLeaveNothing(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	x := openScreen(t, s)
	var c copyOf
	resources := func() (modes, files int) {
		t.Helper()
		reply, err := x.c.ask(finish(words(x.randr.request(randrResourcesCurrent), x.c.setup.root)))
		if err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.PID()))
		if err != nil {
			t.Fatal(err)
		}
		return int(le.Uint16(reply[20:])), len(entries)
	}
	c.take(t, x)
	modes, files := resources()
	size := media.Size{Width: 2560, Height: 1440}
	for i := range 50 {
		size = media.Size{Width: 700 + 31*i, Height: 1400 - 21*i}
		if err := x.Arrange(media.SingleMonitor(size, 100+50*(i%3))); err != nil {
			t.Fatal(err)
		}
		if i%5 == 0 {
			c.take(t, x)
		}
	}
	c.take(t, x)
	if got := x.Size(); got != size {
		t.Errorf("got %v at the end, want %v", got, size)
	}
	if !bytes.Equal(whole(t, x), c.pix) {
		t.Error("the copy differs from the screen")
	}
	if m, f := resources(); m != modes || f != files {
		t.Errorf("after 50 resizes the server has %d modes and %d files, want %d and %d as before", m, f, modes, files)
	}
}

func TestCursor(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	x := openScreen(t, s)
	await(t, "the first cursor", x.CursorChanged())
	p := newPainter(t, s, image.Rect(0, 0, 800, 600), 0, nil)
	// A cursor of a 16×16 bitmap, all set, red on blue, hot spot 3,4.
	pixmap, cursor, gc := p.c.newID(), p.c.newID(), p.c.newID()
	requests := [][]byte{
		halves(words([]byte{53, 1, 4, 0}, pixmap, x.c.setup.root), 16, 16),
		words([]byte{55, 0, 5, 0}, gc, pixmap, 1<<2, 1),
		halves(words([]byte{70, 0, 5, 0}, pixmap, gc), 0, 0, 16, 16),
		halves(words([]byte{93, 0, 8, 0}, cursor, pixmap, pixmap), 0xffff, 0, 0, 0, 0, 0xffff, 3, 4),
		words([]byte{2, 0, 4, 0}, p.window, 1<<14, cursor),
	}
	for _, r := range requests {
		if err := p.c.check(r); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the new cursor", x.CursorChanged())
	got, err := x.Cursor()
	if err != nil {
		t.Fatal(err)
	}
	if got.Size != (media.Size{Width: 16, Height: 16}) || got.Hot != image.Pt(3, 4) || got.Serial == 0 {
		t.Errorf("got size %v, hot spot %v, serial %d", got.Size, got.Hot, got.Serial)
	}
	if want := bytes.Repeat([]byte{255, 0, 0, 255}, 256); !bytes.Equal(got.RGBA, want) {
		t.Errorf("got pixels %v…, want red", got.RGBA[:8])
	}
}

// TestMalformedRequests: requests with a wrong length are not sent, errors belong to their requests, and nobody waits for
// a reply that cannot come.
func TestMalformedRequests(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	c, err := dial(s.display, s.cookie, nil, func(e *xError) { t.Errorf("an error of nobody: %v", e) })
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	within := func(what string, f func() error) error {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- f() }()
		select {
		case err := <-done:
			return err
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: no end", what)
			return nil
		}
	}
	ask := func(req []byte) func() error {
		return func() error { _, err := c.ask(req); return err }
	}
	focus := []byte{opGetInputFocus, 0, 1, 0}
	for _, tc := range []struct {
		label, want string
		req         []byte
	}{
		{"longer than it is", "says that it has 8 bytes, there are 4", []byte{opGetInputFocus, 0, 2, 0}},
		{"shorter than it is", "4 bytes follow 1 X requests", []byte{opGetInputFocus, 0, 1, 0, opGetInputFocus, 0, 1, 0}},
		{"of no length", "says that it has 0 bytes", []byte{opGetInputFocus, 0, 0, 0}},
		{"part of a header", "request 1 of 1 is missing", []byte{opGetInputFocus, 0}},
	} {
		if err := within(tc.label, ask(tc.req)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", tc.label, err, tc.want)
		}
		if err := within("a request after one "+tc.label, ask(focus)); err != nil {
			t.Errorf("after a request %s: %v", tc.label, err)
		}
	}

	const badLength = 16
	var failed *xError
	if err := within("bad length", ask([]byte{opGetInputFocus, 0, 2, 0, 0, 0, 0, 0})); !errors.As(err, &failed) || failed.code != badLength {
		t.Errorf("a request with too many words: got %v, want error %d", err, badLength)
	}
	var unanswered error
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, unanswered = c.ask([]byte{127, 0, 1, 0}) // NoOperation
	}()
	for range 2 { // one of them is sent after it
		if err := within("a request beside one without a reply", ask(focus)); err != nil {
			t.Error(err)
		}
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		select {
		case <-done:
		default:
			if time.Now().After(end) {
				t.Fatal("a request without a reply is waited for")
			}
			_, _ = c.ask(focus)
			continue
		}
		break
	}
	if !errors.Is(unanswered, errNoReply) {
		t.Errorf("a request without a reply: got %v, want %v", unanswered, errNoReply)
	}
	if err := within("check", func() error { return c.check([]byte{127, 0, 1, 0}) }); err != nil {
		t.Errorf("check of a request without a reply: %v", err)
	}
}

func TestServerNeedsCookie(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	if c, err := dial(s.display, []byte("0123456789abcdef"), nil, nil); err == nil {
		c.close()
		t.Error("a wrong cookie was accepted")
	}
	if c, err := dial(s.display, nil, nil, nil); err == nil {
		c.close()
		t.Error("no cookie was accepted")
	}
	info, err := os.Stat(s.Xauthority())
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("cookie file has mode %v, want 0600", info.Mode())
	}
}

func TestServerEnds(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	x := openScreen(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, "the end of the screen", x.Done())
	if _, err := x.Cursor(); err == nil {
		t.Error("a request to a server that ended: got no error")
	}
	if err := x.Resize(media.Size{Width: 640, Height: 480}); err == nil {
		t.Error("resize on a server that ended: got no error")
	}
	if err := s.Close(); err != nil {
		t.Errorf("closing twice: %v", err)
	}
}

// Servers that start at once get displays of their own, and a display of a process that is gone is taken
// over.
func TestDisplaysAreLocked(t *testing.T) {
	t.Parallel()
	const n = 6
	servers := make([]*Server, n)
	var starting sync.WaitGroup
	for i := range servers {
		starting.Go(func() { servers[i] = startServer(t) })
	}
	starting.Wait()
	seen := map[string]bool{}
	for _, s := range servers {
		if seen[s.Display()] {
			t.Errorf("two servers have display %s", s.Display())
		}
		seen[s.Display()] = true
		c, err := dial(s.display, s.cookie, nil, nil)
		if err != nil {
			t.Error(err)
			continue
		}
		c.close()
	}
	gone := exec.CommandContext(t.Context(), "true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "lock")
	for _, tt := range []struct {
		name, content string
		want          bool
	}{
		{"of a process that is gone", fmt.Sprintf("%10d\n", gone.Process.Pid), true},
		{"of this process", fmt.Sprintf("%10d\n", os.Getpid()), false},
		{"of nobody", "what?\n", false},
		{"empty", "", false},
	} {
		_ = os.Remove(path)
		if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := takeLock(path); err != nil || got != tt.want {
			t.Errorf("lock %s: got %v, %v; want %v", tt.name, got, err, tt.want)
		}
	}
}

// Not parallel: nothing else in this process may take the display meanwhile. Another process may.
func TestServerLeavesNothing(t *testing.T) {
	s := startServer(t)
	if err := s.process.Kill(); err != nil { // it cannot clean up by itself
		t.Fatal(err)
	}
	await(t, "the server's end", s.Done())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	switch b, err := os.ReadFile(lockPath(s.display)); {
	case err != nil:
		if _, err := os.Lstat(socketPath(s.display)); !errors.Is(err, os.ErrNotExist) && !socketFree(socketPath(s.display)) {
			t.Logf("display %s was taken by another process", s.Display())
		} else if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("socket is left: %v", err)
		}
	case strings.TrimSpace(string(b)) == fmt.Sprint(os.Getpid()):
		t.Error("lock is left")
	}
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	for name, program := range map[string]string{"missing": "/nonexistent/Xvfb", "ends at once": "/bin/false"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if s, err := StartServer(t.Context(), ServerOptions{Dir: t.TempDir(), Program: program}); err == nil {
				t.Errorf("got display %s, want an error", s.Display())
			}
		})
	}
	t.Run("never ready", func(t *testing.T) {
		t.Parallel()
		program := filepath.Join(t.TempDir(), "server")
		if err := os.WriteFile(program, []byte("#!/bin/sh\nexec sleep 1000\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if s, err := StartServer(ctx, ServerOptions{Dir: t.TempDir(), Program: program}); err == nil {
			t.Errorf("got display %s, want an error", s.Display())
		}
	})
}

// No shared memory stays behind, even while the screen is open: the segment is removed when it is attached.
func TestSharedMemoryIsNotLeft(t *testing.T) {
	s := startServer(t)
	x := openScreen(t, s)
	var c copyOf
	c.take(t, x)
	if x.useImages {
		t.Fatal("shared memory was not used")
	}
	b, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		t.Skipf("needs /proc/sysvipc/shm: %v", err)
	}
	for _, line := range strings.Split(string(b), "\n")[1:] {
		f := strings.Fields(line)
		if len(f) > 4 && f[4] == fmt.Sprint(os.Getpid()) {
			const dest = 0o1000 // SHM_DEST: goes when the last process detaches
			var mode int
			if _, err := fmt.Sscanf(f[2], "%o", &mode); err != nil {
				t.Fatal(err)
			}
			if mode&dest == 0 {
				t.Errorf("segment is not marked for removal: %s", line)
			}
		}
	}
}

func BenchmarkCapture(b *testing.B) {
	s := startServer(b)
	x := openScreen(b, s)
	size := media.Size{Width: 1920, Height: 1080}
	if err := x.Resize(size); err != nil {
		b.Fatal(err)
	}
	for name, r := range map[string]image.Rectangle{
		"letter": image.Rect(600, 300, 616, 316), "line": image.Rect(100, 300, 740, 364), "screen": size.Bounds(),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var region media.Region
				region.Add(r)
				if _, err := x.Capture(&region, size); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
