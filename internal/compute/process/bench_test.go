package process_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/appstream/appstreamtest"
	"penstock.dev/penstock/internal/compute/process"
	"penstock.dev/penstock/internal/compute/procfs"
)

// BenchmarkSession reports how long an instance takes to be ready, its application to show a window and the instance to be gone, and
// what memory each part takes: its share of what is shared (PSS), in MiB.
func BenchmarkSession(b *testing.B) {
	needs(b, "Xvfb", "openbox", "xterm")
	path, err := binary()
	if err != nil {
		b.Fatal(err)
	}
	for _, app := range []string{"xterm", "mousepad"} {
		b.Run(app, func(b *testing.B) {
			needs(b, app)
			w := openWith(b, process.Options{DataDir: b.TempDir(), Executable: path})
			var ready, window, gone time.Duration
			memory := make(map[string]float64)
			for n := 0; b.Loop(); n++ {
				id := appstreamtest.ID(n)
				start := time.Now()
				info, err := w.Start(b.Context(), appstream.InstanceSpec{ID: id})
				if err != nil {
					b.Fatal(err)
				}
				ready += time.Since(start)
				start = time.Now()
				if err := w.Begin(b.Context(), id, appstream.SessionSpec{
					ID: "s", Endpoint: appstream.InternetEndpoint, ControlKey: make([]byte, 32),
					Application: appstream.Application{Name: app, Command: []string{app}},
				}); err != nil {
					b.Fatal(err)
				}
				appstreamtest.AwaitWindows(b, info, app)
				window += time.Since(start)
				for part, mib := range pss(b, info.Local.PID) {
					memory[part] += mib
				}
				start = time.Now()
				if err := w.Stop(b.Context(), id, appstream.EndByUser, ""); err != nil {
					b.Fatal(err)
				}
				gone += time.Since(start)
			}
			each := func(d time.Duration) float64 { return float64(d.Milliseconds()) / float64(b.N) }
			b.ReportMetric(each(ready), "ms-ready")
			b.ReportMetric(each(window), "ms-window")
			b.ReportMetric(each(gone), "ms-gone")
			for part, mib := range memory {
				b.ReportMetric(mib/float64(b.N), "MiB-"+part)
			}
		})
	}
}

// pss is the memory of the agent and of what descends from it, by program.
func pss(b *testing.B, agent int) map[string]float64 {
	all, err := procfs.List()
	if err != nil {
		b.Fatal(err)
	}
	found := make(map[string]float64)
	for _, p := range append(procfs.Descendants(all, agent), procfs.Process{PID: agent}) {
		dir := filepath.Join("/proc", strconv.Itoa(p.PID))
		name, _ := os.ReadFile(filepath.Join(dir, "comm"))
		rollup, _ := os.ReadFile(filepath.Join(dir, "smaps_rollup"))
		for line := range strings.Lines(string(rollup)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == "Pss:" {
				kib, _ := strconv.ParseFloat(f[1], 64)
				found[strings.TrimSpace(string(name))] += kib / 1024
			}
		}
	}
	return found
}
