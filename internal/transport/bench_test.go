package transport_test

import (
	"image"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"penstock.dev/penstock/internal/wire/channel"
)

// BenchmarkKeyToPicture is the time from a key sent to the picture with its letter, decoded: the whole path
// but browser and gateway, with xterm as the application.
func BenchmarkKeyToPicture(b *testing.B) {
	r := newRig(b)
	v := r.join(b, channel.Hello{Width: 1280, Height: 720})
	ready := filepath.Join(r.home, "ready")
	r.start(b, "xterm", "-geometry", "80x24+0+0", "-bg", "white", "-fg", "black", "-e", "sh", "-c", "touch "+ready+"; cat > /dev/null")
	v.until(b, "the terminal's window", func(p *image.NRGBA) bool { _, err := os.Stat(ready); return err == nil && light(p) > 50_000 })
	v.seq++
	send(b, v.control, &channel.Pointer{Seq: v.seq, X: 200, Y: 100})
	window := image.Rect(0, 0, 500, 330)
	v.key(b, "KeyA", "a", 0)
	var took []time.Duration
	n := 0
	for b.Loop() {
		before := dark(v.picture(), window)
		start := time.Now()
		v.seq++
		send(b, v.control, &channel.Key{Seq: v.seq, Down: true, Code: "KeyW", Key: "w"})
		v.until(b, "the letter", func(p *image.NRGBA) bool { return dark(p, window) != before })
		took = append(took, time.Since(start))
		v.seq++
		send(b, v.control, &channel.Key{Seq: v.seq, Code: "KeyW", Key: "w"})
		if n++; n%60 == 0 {
			v.key(b, "Enter", "Enter", 0)
			time.Sleep(50 * time.Millisecond) // what the new line draws belongs to no letter
		}
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-p50")
	b.ReportMetric(float64(took[len(took)*95/100].Microseconds())/1000, "ms-p95")
	b.ReportMetric(float64(v.bytes)/float64(v.updates), "B/update")
}

// BenchmarkScroll is a terminal that prints as fast as it can for a fixed time.
func BenchmarkScroll(b *testing.B) {
	r := newRig(b)
	v := r.join(b, channel.Hello{Width: 1280, Height: 720})
	r.start(b, "xterm", "-geometry", "150x50+0+0", "-e", "sh", "-c", "while :; do ls -l --color=always /usr/bin /etc; done")
	for range 10 {
		v.update(b)
	}
	v.updates, v.bytes = 0, 0
	b.ReportAllocs()
	start := time.Now()
	for b.Loop() {
		v.update(b)
	}
	b.ReportMetric(float64(v.updates)/time.Since(start).Seconds(), "updates/s")
	b.ReportMetric(float64(v.bytes)/float64(v.updates), "B/update")
}
