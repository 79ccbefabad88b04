package auditlog_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"penstock.dev/penstock/internal/audit"
	"penstock.dev/penstock/internal/auditlog"
)

func open(t *testing.T, o auditlog.Options) *auditlog.Log {
	t.Helper()
	l, err := auditlog.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func check(t *testing.T, dir string, recorded ...audit.Head) *audit.Result {
	t.Helper()
	r, err := auditlog.Check(dir, recorded...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func event(name string) audit.Event {
	return audit.Event{Source: audit.AppStreamSource, Name: name, Additional: map[string]any{"filler": strings.Repeat("x", 200)}}
}

// names are the names of all events in the folder, in order.
func names(t *testing.T, dir string) (out []string) {
	t.Helper()
	files, err := auditlog.Files(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(b) {
			var e struct {
				Name string `json:"eventName"`
			}
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			out = append(out, e.Name)
		}
	}
	return out
}

// TestManyWriters: every event is there once, in one chain, over several files and restarts.
func TestManyWriters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const writers, each = 16, 50
	for round := range 3 {
		l := open(t, auditlog.Options{Dir: dir, MaxFile: 16 << 10})
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					l.Record(event(fmt.Sprintf("E-%d-%d-%d", round, w, i)))
				}
			})
		}
		wg.Wait()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if h := l.Head(); h.Sequence != uint64((round+1)*writers*each) {
			t.Errorf("round %d ends with event %d", round, h.Sequence)
		}
	}
	r := check(t, dir)
	seen := map[string]int{}
	for _, n := range names(t, dir) {
		seen[n]++
	}
	files, err := auditlog.Files(dir)
	if err != nil || r.Events != 3*writers*each || len(seen) != 3*writers*each || len(files) < 10 {
		t.Errorf("got %d events, %d different ones, %d files (%v)", r.Events, len(seen), len(files), err)
	}
	info, err := os.Stat(files[0])
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v)", info.Mode(), err)
	}
}

// TestOldFilesGoOnRecord: removing old files leaves a log that verifies, and nobody else can remove one.
func TestOldFilesGoOnRecord(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, auditlog.Options{Dir: dir, MaxFile: 4 << 10, Keep: 3})
	for i := range 200 {
		l.Record(event(fmt.Sprintf("E%d", i)))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := auditlog.Files(dir)
	if err != nil || len(files) != 3 {
		t.Fatalf("got %d files (%v)", len(files), err)
	}
	r := check(t, dir)
	if r.First.Sequence == 1 || len(r.Retired) == 0 {
		t.Errorf("got %+v", r)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := auditlog.Check(dir); err == nil || !strings.Contains(err.Error(), "no event says") {
		t.Errorf("a removed file: got %v", err)
	}
}

// TestCutEnd: the head beside the log shows an end that was cut off, also after the server went on.
func TestCutEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, auditlog.Options{Dir: dir})
	for i := range 10 {
		l.Record(event(fmt.Sprintf("E%d", i)))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	head := l.Head()
	files, _ := auditlog.Files(dir)
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	cut := bytes.Join(bytes.SplitAfter(b, []byte("\n"))[:7], nil)
	if err := os.WriteFile(files[0], cut, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := auditlog.Check(dir); err == nil || !strings.Contains(err.Error(), "the end was cut off") {
		t.Errorf("got %v", err)
	}
	l = open(t, auditlog.Options{Dir: dir})
	for range 5 {
		l.Record(event("After"))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); got[7] != "FindAuditDamage" {
		t.Errorf("got %v", got)
	}
	if _, err := auditlog.Check(dir, head); err == nil || !strings.Contains(err.Error(), "recorded head") {
		t.Errorf("with the head that the operator kept: got %v", err)
	}
}

// TestFullDisk: while the disk is full changes are refused, memory is bounded, and with room again the chain goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount a small file system")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=128k"); err != nil {
		t.Skipf("needs a small file system: mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 60<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	l := open(t, auditlog.Options{Dir: filepath.Join(dir, "audit")})
	if err := l.Ready(); err != nil {
		t.Fatal(err)
	}
	const n = 3000
	for i := range n {
		l.Record(event(fmt.Sprintf("E%d", i)))
	}
	if err := l.Ready(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("got %v, want no space", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=4m"); err != nil {
		t.Fatal(err)
	}
	if err := l.Ready(); err != nil {
		t.Fatalf("with room again: %v", err)
	}
	l.Record(event("Last"))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	r := check(t, filepath.Join(dir, "audit"))
	got := names(t, filepath.Join(dir, "audit"))
	if got[len(got)-1] != "Last" || got[len(got)-2] != "LoseAuditEvents" || r.Events >= n || r.Events < 1024 {
		t.Errorf("got %d events that end with %v", r.Events, got[max(0, len(got)-2):])
	}
	for i, name := range got[:len(got)-2] {
		if name != fmt.Sprintf("E%d", i) {
			t.Fatalf("event %d is %s: the order was lost", i, name)
		}
	}
}

// TestStrangersCannotFillTheDisk: what anybody can cause is written up to a bound, and counted.
func TestStrangersCannotFillTheDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := open(t, auditlog.Options{Dir: dir, Now: func() time.Time { return time.Unix(1_800_000_000, 0) }})
	for range 5000 {
		e := event("Knock")
		e.Unproved = true
		l.Record(e)
	}
	l.Record(event("Proved"))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	got := names(t, dir)
	if len(got) != 202 || got[200] != "Proved" || got[201] != "SuppressAuditEvents" {
		t.Errorf("got %d events", len(got))
	}
	check(t, dir)
}

// TestKilledWriter: what was recorded when a process is killed is there, and the next one goes on with the chain.
func TestKilledWriter(t *testing.T) {
	t.Parallel()
	if dir := os.Getenv("PENSTOCK_AUDIT_DIR"); dir != "" {
		l, err := auditlog.Open(auditlog.Options{Dir: dir, MaxFile: 64 << 10})
		if err != nil {
			t.Fatal(err)
		}
		for w := range 4 {
			go func() {
				for i := 0; ; i++ {
					name := fmt.Sprintf("E-%d-%d", w, i)
					l.Record(event(name))
					_, _ = os.Stdout.WriteString(name + "\n")
				}
			}()
		}
		select {}
	}
	dir := t.TempDir()
	for round := range 4 {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestKilledWriter$")
		cmd.Env = append(os.Environ(), "PENSTOCK_AUDIT_DIR="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acknowledged := make([]byte, 4096*(round+1))
		n := 0
		for n < len(acknowledged) {
			m, err := out.Read(acknowledged[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += m
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // killed
		check(t, dir)
		have := map[string]bool{}
		l := open(t, auditlog.Options{Dir: dir})
		l.Record(event("Next"))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if r := check(t, dir); r.Torn != 0 {
			t.Errorf("got %d torn bytes after the next start", r.Torn)
		}
		for _, name := range names(t, dir) {
			have[name] = true
		}
		list := strings.Split(string(acknowledged[:n]), "\n")
		for _, name := range list[:len(list)-1] {
			if !have[name] {
				t.Fatalf("round %d: event %s was acknowledged and is lost", round, name)
			}
		}
	}
}

func BenchmarkRecord(b *testing.B) {
	l, err := auditlog.Open(auditlog.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	e := event("CreateStack")
	b.ReportAllocs()
	for b.Loop() {
		l.Record(e)
	}
}

// BenchmarkRecordSynced is what each event would cost if it were synced before the answer (ADR 25).
func BenchmarkRecordSynced(b *testing.B) {
	dir := b.TempDir()
	l, err := auditlog.Open(auditlog.Options{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	e := event("CreateStack")
	l.Record(e)
	names, err := auditlog.Files(dir)
	if err != nil || len(names) != 1 {
		b.Fatalf("got %v (%v), want one file", names, err)
	}
	f, err := os.Open(names[0])
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for b.Loop() {
		l.Record(e)
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}
