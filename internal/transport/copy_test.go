package transport_test

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/encode"
	"penstock.dev/penstock/internal/media"
	"penstock.dev/penstock/internal/wire/channel"
	"penstock.dev/penstock/internal/x11"
)

// follower is an encoder and the viewer behind it.
type follower struct {
	enc    *encode.Tiles
	dec    *encode.Decoder
	seq    uint32
	bytes  int
	copies int
	cpu    time.Duration // of the encoder, when its goroutine keeps its thread
}

func follow(t testing.TB, codecs media.Codecs, size media.Size) *follower {
	t.Helper()
	enc, err := encode.NewTiles(codecs, encode.Options{})
	if err != nil {
		t.Fatal(err)
	}
	enc.Begin(size)
	return &follower{enc: enc, dec: newDecoder(t)}
}

// take encodes and draws the views and requires that the picture shows them exactly.
func (f *follower) take(t testing.TB, views []media.View) {
	t.Helper()
	for i := 0; ; i++ {
		before := threadTime(t)
		p, err := f.enc.Encode(views, 0, media.Quality{Limit: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		f.cpu += threadTime(t) - before
		if p == nil {
			break
		}
		f.seq++
		h := channel.UpdateHeader{Seq: f.seq, Epoch: p.Epoch, Width: uint16(p.Size.Width), Height: uint16(p.Size.Height)}
		if p.NewEpoch {
			h.Flags = channel.UpdateNewEpoch
		}
		b := channel.AppendUpdateHeader(nil, &h, uint8(len(p.Sections)))
		for _, s := range p.Sections {
			if s.Kind == media.SectionTiles || s.Kind == media.SectionText {
				b = channel.AppendStream(b, channel.SectionKind(s.Kind), s.RawLength, s.Body)
			} else {
				b = channel.AppendSection(b, channel.SectionKind(s.Kind), s.Body)
			}
			if s.Kind == media.SectionCopy {
				f.copies++
			}
		}
		if _, err := f.dec.Apply(b); err != nil {
			t.Fatal(err)
		}
		f.bytes += len(b)
		if !p.More {
			break
		}
		views = nil
	}
	for _, v := range views {
		if !f.shows(&v) {
			t.Fatalf("update %d: the picture differs from the screen in %v", f.seq, v.Rect)
		}
	}
}

func threadTime(t testing.TB) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (f *follower) shows(v *media.View) bool {
	for y := v.Rect.Min.Y; y < v.Rect.Max.Y; y++ {
		for x := v.Rect.Min.X; x < v.Rect.Max.X; x++ {
			was := f.dec.Picture[(y*f.dec.Width+x)*4:]
			now := v.Pix[((y-v.Rect.Min.Y)*v.Rect.Dx()+x-v.Rect.Min.X)*4:]
			if was[0] != now[2] || was[1] != now[1] || was[2] != now[0] {
				return false
			}
		}
	}
	return true
}

// drawing is what an application does on the screen for a while. run starts it, with text from file, and
// returns what tells that all is drawn.
type drawing struct {
	name  string
	needs []string
	run   func(t testing.TB, r *desk, file string) (ended func() bool)
}

func drawings() []drawing {
	return []drawing{
		{"xterm seq", []string{"xterm"}, func(t testing.TB, r *desk, _ string) func() bool {
			return r.terminal(t, `for i in $(seq 0 39); do seq $((500 * i + 1)) $((500 * i + 500)); `+r.step()+`; done`)
		}},
		{"xterm lines", []string{"xterm"}, func(t testing.TB, r *desk, file string) func() bool {
			return r.terminal(t, `head -80 '`+file+`'; `+r.begin()+`; tail -60 '`+file+`' | while read -r line; do echo "$line"; `+r.step()+`; done`)
		}},
		{"mousepad", []string{"mousepad", "xdotool"}, func(t testing.TB, r *desk, file string) func() bool {
			r.start(t, "mousepad", "--disable-server", file)
			return r.script(t, fmt.Sprintf(`xdotool search --sync --onlyvisible --class mousepad windowmove 0 0 windowsize %d %d mousemove 400 400
				`+r.begin()+`; for i in $(seq 40); do xdotool click 5; `+r.step()+`; done`, r.size.Width, r.size.Height))
		}},
		{"window dragged", []string{"xterm", "xdotool"}, func(t testing.TB, r *desk, file string) func() bool {
			r.terminal(t, `head -100 '`+file+`'`)
			r.start(t, "xterm", "-title", "dragged", "-fa", "DejaVu Sans Mono", "-fs", "9", "-bg", "black", "-fg", "white",
				"-geometry", "60x20+10+10", "-e", "sh", "-c", "head -60 '"+file+"'; sleep 1000")
			return r.script(t, `id=$(xdotool search --sync --onlyvisible --name '^dragged$' | tail -1); xdotool windowraise $id
				`+r.begin()+`; for i in $(seq 40); do xdotool windowmove $id $((10 + 11 * i)) $((10 + 5 * i)); `+r.step()+`; done`)
		}},
	}
}

// watch runs the drawing on a screen of that size with an encoder that copies and one that does not, and
// requires that every update is exact. It counts from when the drawing has begun.
func watch(t testing.TB, d drawing, size media.Size) (with, without *follower) {
	t.Helper()
	for _, name := range append(d.needs, "Xvfb") {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("needs %s", name)
		}
	}
	text := &strings.Builder{}
	for i := range 3000 {
		fmt.Fprintf(text, "%s%d: func f%x(value int) (%d, error) { return value * %d }\n",
			strings.Repeat("\t", i%4), i, i*7919%65536, i*i%97, i*31%1009)
	}
	r := newDesk(t, size)
	file := filepath.Join(r.home, "text")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	with = follow(t, media.CodecTiles|media.CodecCopy|media.CodecFill, size)
	without = follow(t, media.CodecTiles, size)
	ended := d.run(t, r, file)
	var region media.Region
	region.Add(size.Bounds())
	end := time.Now().Add(9 * patience) // forty steps with two encoders, on a busy machine with the race detector
	first := uint32(0)
	begun, turn := false, 0
	for quiet := false; !quiet; {
		if time.Now().After(end) {
			t.Fatal("waited too long for the end of the drawing")
		}
		over := ended()
		select {
		case <-r.screen.Damaged():
			if err := r.screen.TakeDamage(&region); err != nil {
				t.Fatal(err)
			}
		case <-time.After(300 * time.Millisecond):
			quiet = over
		}
		if quiet {
			region.Add(size.Bounds()) // what no damage told of
		}
		views, err := r.screen.Capture(&region, size)
		if err != nil {
			t.Fatal(err)
		}
		if quiet && (!with.shows(&views[0]) || !without.shows(&views[0])) {
			t.Error("the picture differs from the screen at rest")
		}
		region.Reset()
		if !begun && r.hasBegun() {
			begun = true
			first = with.seq
			with.bytes, without.bytes, with.cpu, without.cpu = 0, 0, 0, 0
		}
		if turn++; turn%2 == 0 { // the first to read the pixels pays for their way into the cache
			with.take(t, views)
			without.take(t, views)
		} else {
			without.take(t, views)
			with.take(t, views)
		}
		r.letStep(t)
	}
	if with.seq < first+3 {
		t.Fatalf("got %d updates", with.seq-first)
	}
	with.seq, without.seq = with.seq-first, without.seq-first
	return with, without
}

// Real applications scroll and move: every update is exact, and copies make them smaller.
func TestCopiesOfRealApplications(t *testing.T) {
	t.Parallel()
	for _, d := range drawings() {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			with, without := watch(t, d, media.Size{Width: 1280, Height: 800})
			t.Logf("%d updates: %d bytes each with copies (in %d of them), %d without: %.1f times fewer", with.seq,
				with.bytes/int(with.seq), with.copies, without.bytes/int(with.seq), float64(without.bytes)/float64(with.bytes))
			if d.name == "xterm seq" {
				return // most updates show other lines altogether
			}
			if with.copies == 0 || with.bytes >= without.bytes {
				t.Errorf("copies in %d updates: got %d bytes, and %d without copies", with.copies, with.bytes, without.bytes)
			}
		})
	}
}

// BenchmarkCopiesOfRealApplications takes a while an iteration; its figures are those of the encoders.
func BenchmarkCopiesOfRealApplications(b *testing.B) {
	for _, d := range drawings() {
		b.Run(d.name, func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var bytes, updates [2]int
			var cpu [2]time.Duration
			for b.Loop() {
				with, without := watch(b, d, media.Size{Width: 1920, Height: 1080})
				for i, f := range []*follower{with, without} {
					bytes[i] += f.bytes
					updates[i] += int(f.seq)
					cpu[i] += f.cpu
				}
			}
			b.ReportMetric(0, "ns/op")
			for i, name := range []string{"copy", "tiles"} {
				b.ReportMetric(float64(bytes[i])/float64(updates[i]), name+"-B/update")
				b.ReportMetric(cpu[i].Seconds()*1000/float64(updates[i]), name+"-CPU-ms/update")
			}
		})
	}
}

// desk is a screen with programs on it.
type desk struct {
	rig
	size    media.Size
	scripts int
	pace    *os.File // a named pipe: a line in it is one step that the drawing may take
}

func newDesk(t testing.TB, size media.Size) *desk {
	t.Helper()
	r := &desk{rig: rig{home: t.TempDir()}, size: size}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	err := unix.Mkfifo(r.paceName(), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if r.pace, err = os.OpenFile(r.paceName(), os.O_RDWR, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.pace.Close() })
	if r.server, err = x11.StartServer(t.Context(), x11.ServerOptions{Dir: r.home, MaxSize: size, Log: log}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.server.Close(); err != nil {
			t.Error(err)
		}
	})
	if r.screen, err = r.server.OpenScreen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.screen.Close)
	return r
}

// terminal runs a command in an xterm that fills the screen and tells when it has ended.
func (r *desk) terminal(t testing.TB, command string) func() bool {
	t.Helper()
	mark, ended := r.mark()
	r.start(t, "xterm", "-geometry", fmt.Sprintf("%dx%d+0+0", r.size.Width/7-3, r.size.Height/15-2), "-fa", "DejaVu Sans Mono", "-fs", "9",
		"-bg", "white", "-fg", "black", "-e", "sh", "-c", command+"; touch '"+mark+"'; sleep 1000")
	return ended
}

// begin is the command that tells that the first picture is drawn.
func (r *desk) begin() string {
	return "sleep 0.5; touch '" + filepath.Join(r.home, "begun") + "'; sleep 0.5"
}

func (r *desk) hasBegun() bool {
	_, err := os.Stat(filepath.Join(r.home, "begun"))
	return err == nil
}

func (r *desk) paceName() string { return filepath.Join(r.home, "pace") }

// step is the command that waits for the next update, so that a slow machine sees as many of them as a fast one.
func (r *desk) step() string { return "read -r _ <>'" + r.paceName() + "'" }

// letStep lets the drawing take one step, unless it has one to take already.
func (r *desk) letStep(t testing.TB) {
	t.Helper()
	waiting, err := unix.IoctlGetInt(int(r.pace.Fd()), unix.TIOCINQ)
	if err == nil && waiting == 0 {
		_, err = r.pace.WriteString("\n")
	}
	if err != nil {
		t.Fatal(err)
	}
}

// script runs a command beside the programs and tells when it has ended.
func (r *desk) script(t testing.TB, command string) func() bool {
	t.Helper()
	mark, ended := r.mark()
	r.start(t, "sh", "-c", command+"\ntouch '"+mark+"'")
	return ended
}

func (r *desk) mark() (string, func() bool) {
	r.scripts++
	mark := filepath.Join(r.home, "done"+strconv.Itoa(r.scripts))
	return mark, func() bool {
		_, err := os.Stat(mark)
		return err == nil
	}
}
