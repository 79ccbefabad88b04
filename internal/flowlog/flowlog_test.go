package flowlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/vpc"
	"penstock.dev/penstock/internal/wire/flowlog"
)

const patience = 20 * time.Second

// writerHelper makes this test binary a writer that is to be killed.
const writerHelper = "PENSTOCK_TEST_FLOW_LOG_WRITER"

// TestMain looks for goroutines that outlived their tests.
func TestMain(m *testing.M) {
	if dir := os.Getenv(writerHelper); dir != "" {
		writeUntilKilled(dir)
	}
	before := runtime.NumGoroutine()
	code := m.Run()
	for end := time.Now().Add(10 * time.Second); code == 0 && runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			fmt.Fprintln(os.Stderr, "goroutines were left behind:")
			_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1) // the exit code says it
			code = 1
		}
	}
	os.Exit(code)
}

// source is a driver whose traffic the test makes up.
type source struct {
	mu   sync.Mutex
	next func() ([]vpc.InterfaceFlows, error)
}

func (s *source) Flows(context.Context) ([]vpc.InterfaceFlows, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next()
}

func (s *source) set(f func() ([]vpc.InterfaceFlows, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = f
}

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// many is one interface with n flows, told apart by their ports.
func many(n int) []vpc.InterfaceFlows {
	i := vpc.InterfaceFlows{Interface: "eni-1"}
	for k := range n {
		i.Flows = append(i.Flows, vpc.FlowCount{
			Src: netip.AddrPortFrom(netip.MustParseAddr("192.168.0.7"), uint16(1024+k)), Dst: ap("10.0.1.10:443"), Protocol: vpc.TCP,
			Packets: 5, Bytes: 300, First: time.Now(), Last: time.Now(),
		})
	}
	return []vpc.InterfaceFlows{i}
}

// logs collects what is logged.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

func newLog(t *testing.T, cfg Config) (*Log, *source, *logs) {
	t.Helper()
	src, log := &source{}, &logs{}
	src.set(func() ([]vpc.InterfaceFlows, error) { return nil, nil })
	if cfg.Dir == "" {
		cfg.Dir = filepath.Join(t.TempDir(), "flow-logs")
	}
	cfg.Source, cfg.AccountID, cfg.Log = src, "123456789012", slog.New(slog.NewTextHandler(log, nil))
	l, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.files.close(); err != nil {
			t.Error(err)
		}
	})
	return l, src, log
}

// round writes what the source has now.
func (l *Log) round(t *testing.T) {
	t.Helper()
	if l.began.IsZero() {
		l.began = time.Now()
	}
	l.write(t.Context())
}

// readAll reads the folder once.
func readAll(t *testing.T, dir string) (lines []string, records []flowlog.Record, unreadable uint64) {
	t.Helper()
	r := Reader{Dir: dir}
	if err := r.Read(t.Context(), func(rec flowlog.Record, line []byte) error {
		lines, records = append(lines, string(line)), append(records, rec)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return lines, records, r.Unreadable
}

func TestRecordsOfAnInterval(t *testing.T) {
	t.Parallel()
	l, src, log := newLog(t, Config{})
	at := time.Unix(1_800_000_000, 0)
	from, to := at, at.Add(time.Minute)
	flows := []vpc.InterfaceFlows{
		{Interface: "eni-a", Flows: []vpc.FlowCount{
			{Src: ap("192.168.0.7:50000"), Dst: ap("10.0.1.10:443"), Protocol: vpc.TCP, Packets: 12, Bytes: 3456, First: at.Add(time.Second), Last: at.Add(9500 * time.Millisecond)},
			{Src: ap("10.0.1.10:443"), Dst: ap("192.168.0.7:50000"), Protocol: vpc.TCP, Packets: 9, Bytes: 999, First: at.Add(-time.Hour), Last: at.Add(time.Hour)},
			{Src: ap("[fd00::7]:50001"), Dst: ap("[fd01::10]:1400"), Protocol: vpc.TCP, Rejected: true, Packets: 1, Bytes: 80, First: at, Last: at},
		}},
		{Interface: "eni-b"},
		{Interface: "eni-c", Skipped: 17},
	}
	if err := l.append(flows, from, to); err != nil {
		t.Fatal(err)
	}
	lines, _, _ := readAll(t, l.cfg.Dir)
	want := []string{
		"2 123456789012 eni-a 192.168.0.7 10.0.1.10 50000 443 6 12 3456 1800000001 1800000009 ACCEPT OK",
		"2 123456789012 eni-a 10.0.1.10 192.168.0.7 443 50000 6 9 999 1800000000 1800000060 ACCEPT OK",
		"2 123456789012 eni-a fd00::7 fd01::10 50001 1400 6 1 80 1800000000 1800000000 REJECT OK",
		"2 123456789012 eni-b - - - - - - - 1800000000 1800000060 - NODATA",
		"2 123456789012 eni-c - - - - - - - 1800000000 1800000060 - SKIPDATA",
	}
	if d := cmp.Diff(want, lines); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	src.set(func() ([]vpc.InterfaceFlows, error) { return flows, nil })
	l.round(t)
	if s := l.Stats(); s.Records != 10 || s.Skipped != 17 || s.Lost+s.Removed+s.Failed != 0 {
		t.Errorf("stats = %+v", s)
	}
	if log.count("traffic was left out") != 1 {
		t.Error("what was skipped was not logged")
	}
	all, err := os.ReadDir(l.cfg.Dir)
	if err != nil || len(all) != 1 {
		t.Fatalf("files: %v, %v", all, err)
	}
	info, err := all[0].Info()
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of a file: %v, %v", info.Mode(), err)
	}
	b, err := os.ReadFile(filepath.Join(l.cfg.Dir, all[0].Name()))
	if err != nil || !strings.HasPrefix(string(b), flowlog.Header+"\n") {
		t.Errorf("the file begins with %q, %v", b[:min(len(b), 40)], err)
	}
}

// TestRotation fills many small files: they are compressed, all records are there in order, and the oldest go first.
func TestRotation(t *testing.T) {
	t.Parallel()
	l, src, log := newLog(t, Config{Limits: Limits{File: 10_000, Total: 60_000}})
	round := 0
	src.set(func() ([]vpc.InterfaceFlows, error) {
		round++
		f := many(100)
		for i := range f[0].Flows {
			f[0].Flows[i].Bytes = uint64(round*1000 + i)
		}
		return f, nil
	})
	size := func() (total int64, plainFiles, compressedFiles int) {
		all, err := os.ReadDir(l.cfg.Dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			info, err := e.Info()
			if err != nil {
				t.Fatal(err)
			}
			total += info.Size()
			if strings.HasSuffix(e.Name(), compressed) {
				compressedFiles++
			} else {
				plainFiles++
			}
		}
		return total, plainFiles, compressedFiles
	}
	for range 30 {
		l.round(t)
		if total, plainFiles, _ := size(); total > l.cfg.Limits.Total || plainFiles > 2 {
			t.Fatalf("%d bytes in files, %d of them not compressed", total, plainFiles)
		}
	}
	_, records, unreadable := readAll(t, l.cfg.Dir)
	if len(records) != 3000 || unreadable != 0 {
		t.Fatalf("%d records, %d unreadable lines, want 3000 and none", len(records), unreadable)
	}
	for k, r := range records {
		if want := uint64((k/100+1)*1000 + k%100); r.Bytes != want {
			t.Fatalf("record %d has %d bytes, want %d", k, r.Bytes, want)
		}
	}
	if _, _, n := size(); n < 10 {
		t.Errorf("%d files were compressed", n)
	}
	if s := l.Stats(); s.Removed != 0 || s.Failed != 0 {
		t.Errorf("stats = %+v", s)
	}

	for l.Stats().Removed < 5 {
		l.round(t)
		if total, _, _ := size(); total > l.cfg.Limits.Total {
			t.Fatalf("%d bytes in files", total)
		}
		if round > 2000 {
			t.Fatalf("after %d rounds: %+v", round, l.Stats())
		}
	}
	_, records, _ = readAll(t, l.cfg.Dir)
	first, last := records[0].Bytes, records[len(records)-1].Bytes
	if first < 2000 || last != uint64(round*1000+99) || uint64(len(records)) != last-first-900*(last/1000-first/1000)+1 {
		t.Errorf("%d records from %d to %d in round %d: what was removed is not the oldest", len(records), first, last, round)
	}
	if log.count("oldest flow logs were removed") < 1 {
		t.Error("the removal was not logged")
	}
}

func TestRotationByAge(t *testing.T) {
	t.Parallel()
	l, src, _ := newLog(t, Config{Limits: Limits{Age: time.Hour}})
	src.set(func() ([]vpc.InterfaceFlows, error) { return many(1), nil })
	now := time.Now()
	l.files.now = func() time.Time { return now }
	l.round(t)
	now = now.Add(59 * time.Minute)
	l.round(t)
	if all, _ := stems(l.cfg.Dir); len(all) != 1 {
		t.Errorf("files before an hour: %v", all)
	}
	now = now.Add(time.Minute)
	l.round(t)
	all, _ := stems(l.cfg.Dir)
	if len(all) != 2 {
		t.Fatalf("files after an hour: %v", all)
	}
	if _, err := os.Stat(filepath.Join(l.cfg.Dir, all[0]+compressed)); err != nil {
		t.Errorf("the older one: %v", err)
	}
	// A clock that goes back begins no file before those that are there.
	if err := l.files.close(); err != nil {
		t.Fatal(err)
	}
	l.files.limits.File = 1
	now = now.Add(-48 * time.Hour)
	l.round(t)
	again, _ := stems(l.cfg.Dir)
	if len(again) != 3 || again[0] != all[0] || again[1] != all[1] {
		t.Errorf("files %v became %v", all, again)
	}
	if _, records, _ := readAll(t, l.cfg.Dir); len(records) != 4 {
		t.Errorf("%d records", len(records))
	}
}

// TestTornLine goes on after writers that ended in the middle of a line, a header, or nothing.
func TestTornLine(t *testing.T) {
	t.Parallel()
	const line = "2 123456789012 eni-1 192.168.0.7 10.0.1.10 1024 443 6 5 300 1800000000 1800000000 ACCEPT OK"
	for name, left := range map[string]struct {
		content string
		records int
	}{
		"nothing":        {"", 0},
		"half a header":  {flowlog.Header[:20], 0},
		"header":         {flowlog.Header + "\n", 0},
		"half a record":  {flowlog.Header + "\n" + line + "\n" + line[:50], 1},
		"a whole record": {flowlog.Header + "\n" + line + "\n" + line + "\n", 2},
		"a long tail":    {flowlog.Header + "\n" + line + "\n" + strings.Repeat("x", 10_000), 1},
		"no line at all": {strings.Repeat("\x00", 9000), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, src, _ := newLog(t, Config{})
			if err := os.MkdirAll(l.cfg.Dir, 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(l.cfg.Dir, namePrefix+time.Now().UTC().Format(nameTime)+plain)
			if err := os.WriteFile(path, []byte(left.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, records, unreadable := readAll(t, l.cfg.Dir); len(records) != left.records || unreadable != 0 {
				t.Errorf("before: %d records, %d unreadable lines", len(records), unreadable)
			}
			src.set(func() ([]vpc.InterfaceFlows, error) { return many(3), nil })
			l.round(t)
			if _, records, unreadable := readAll(t, l.cfg.Dir); len(records) != left.records+3 || unreadable != 0 {
				t.Errorf("after: %d records, want %d; %d unreadable lines", len(records), left.records+3, unreadable)
			}
			if all, _ := stems(l.cfg.Dir); len(all) != 1 {
				t.Errorf("files: %v", all)
			}
		})
	}
}

func writeUntilKilled(dir string) {
	src := &source{next: func() ([]vpc.InterfaceFlows, error) { return many(2000), nil }}
	l, err := New(Config{Dir: dir, Source: src, AccountID: "123456789012", Interval: time.Millisecond, Limits: Limits{File: 300_000, Total: 4 << 20}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	l.Run(context.Background())
}

// TestKilledWriter kills a writer again and again, at any moment of writing, rotating and compressing: a reader chokes on nothing.
func TestKilledWriter(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "flow-logs")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	before := 0
	for round := range 12 {
		files, _ := stems(dir) // there are none in the first round
		cmd := exec.CommandContext(t.Context(), self)
		cmd.Env = append(os.Environ(), writerHelper+"="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			if all, err := stems(dir); err == nil && len(all) > len(files) {
				break
			}
			if time.Now().After(end) {
				t.Fatal("the writer begins no further file")
			}
		}
		time.Sleep(time.Duration(round) * 1700 * time.Microsecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		_, records, unreadable := readAll(t, dir)
		if unreadable != 0 || len(records) < before {
			t.Fatalf("round %d: %d records, %d before, %d unreadable lines", round, len(records), before, unreadable)
		}
		before = len(records)
	}
	if before < 12*2000 {
		t.Errorf("%d records were written in all", before)
	}
	// Whoever comes next cleans up.
	l, src, _ := newLog(t, Config{Dir: dir})
	src.set(func() ([]vpc.InterfaceFlows, error) { return many(1), nil })
	l.round(t)
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	left := 0
	for _, e := range all {
		if strings.HasSuffix(e.Name(), temporary) {
			t.Errorf("%s was left", e.Name())
		}
		if strings.HasSuffix(e.Name(), plain) {
			left++
		}
	}
	if left > 1 {
		t.Errorf("%d files are not compressed", left)
	}
	if s := l.Stats(); s.Failed != 0 {
		t.Errorf("stats = %+v", s)
	}
}

// TestFullDisk fills a small file system: it is said once and counted, and when there is room again what is missing is marked.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("penstock-test", dir, "tmpfs", 0, "size=128k"); err != nil {
		t.Skip("a file system cannot be mounted, for lack of privilege: ", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	l, src, log := newLog(t, Config{Dir: filepath.Join(dir, "flow-logs")})
	src.set(func() ([]vpc.InterfaceFlows, error) { return many(200), nil })
	for range 20 {
		l.round(t)
	}
	s := l.Stats()
	if s.Lost == 0 || s.Failed < 5 || s.Records < 600 || s.Records+s.Lost < 4000 {
		t.Errorf("stats = %+v", s)
	}
	if n := log.count("flow logs could not be written"); n != 1 || log.count("no space left on device") != 1 {
		t.Errorf("said %d times", n)
	}
	_, records, unreadable := readAll(t, l.cfg.Dir)
	if unreadable != 0 || uint64(len(records)) != s.Records {
		t.Errorf("%d records can be read, %d were written, %d lines are unreadable", len(records), s.Records, unreadable)
	}
	if err := syscall.Mount("penstock-test", dir, "tmpfs", syscall.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatal(err)
	}
	l.round(t)
	if log.count("flow logs are written again") != 1 {
		t.Error("that it is well again was not said")
	}
	_, records, unreadable = readAll(t, l.cfg.Dir)
	marks := 0
	for _, r := range records {
		if r.Status == flowlog.SkipData && r.Interface == "eni-1" {
			marks++
		}
	}
	if marks != 1 || unreadable != 0 || uint64(len(records)) != l.Stats().Records {
		t.Errorf("%d marks of what is missing, %d records, %d unreadable lines, %+v", marks, len(records), unreadable, l.Stats())
	}
	l.round(t)
	if again := l.Stats(); again.Failed != s.Failed {
		t.Errorf("stats = %+v", again)
	}
}

// TestFolderThatCannotBe has a file where the folder should be, until somebody takes it away.
func TestFolderThatCannotBe(t *testing.T) {
	t.Parallel()
	l, src, log := newLog(t, Config{})
	src.set(func() ([]vpc.InterfaceFlows, error) { return many(2), nil })
	if err := os.WriteFile(l.cfg.Dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l.round(t)
	l.round(t)
	if s := l.Stats(); s.Lost < 4 || s.Failed != 2 || log.count("could not be written") != 1 {
		t.Errorf("stats = %+v", s)
	}
	if err := os.Remove(l.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	l.round(t)
	if _, records, _ := readAll(t, l.cfg.Dir); len(records) != 3 || records[0].Status != flowlog.SkipData {
		t.Errorf("records = %+v", records)
	}
}

func TestSourceFails(t *testing.T) {
	t.Parallel()
	l, src, log := newLog(t, Config{})
	src.set(func() ([]vpc.InterfaceFlows, error) { return many(1), nil })
	l.round(t)
	src.set(func() ([]vpc.InterfaceFlows, error) { return nil, errors.New("no answer") })
	l.round(t)
	l.round(t)
	src.set(func() ([]vpc.InterfaceFlows, error) { return many(1), nil })
	l.round(t)
	_, records, _ := readAll(t, l.cfg.Dir)
	var got []flowlog.Status
	for _, r := range records {
		got = append(got, r.Status)
	}
	// What was not counted is marked as soon as that can be written.
	if d := cmp.Diff([]flowlog.Status{flowlog.OK, flowlog.SkipData, flowlog.SkipData, flowlog.OK}, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if l.Stats().Failed != 2 || log.count("no answer") != 1 {
		t.Errorf("stats = %+v", l.Stats())
	}
}

// TestFollow reads while files are written, rotated, compressed and removed.
func TestFollow(t *testing.T) {
	t.Parallel()
	l, src, _ := newLog(t, Config{Interval: 2 * time.Millisecond, Limits: Limits{File: 20_000, Total: 10 << 20}})
	n := uint64(0)
	src.set(func() ([]vpc.InterfaceFlows, error) {
		f := many(50)
		for i := range f[0].Flows {
			n++
			f[0].Flows[i].Bytes = n
		}
		return f, nil
	})
	writing, stop := context.WithCancel(t.Context())
	reading, enough := context.WithTimeout(t.Context(), patience)
	defer enough()
	var work sync.WaitGroup
	work.Go(func() { l.Run(writing) })
	r := Reader{Dir: l.cfg.Dir, Follow: true}
	want := uint64(1)
	err := r.Read(reading, func(rec flowlog.Record, _ []byte) error {
		if rec.Bytes != want {
			return fmt.Errorf("record %d, want %d", rec.Bytes, want)
		}
		if want++; want == 5000 {
			stop()
			enough()
		}
		return nil
	})
	stop()
	work.Wait()
	if !errors.Is(err, context.Canceled) || want != 5000 || r.Unreadable != 0 {
		t.Errorf("read up to %d, %d unreadable lines: %v", want, r.Unreadable, err)
	}
	if _, records, _ := readAll(t, l.cfg.Dir); uint64(len(records)) != n {
		t.Errorf("%d records are there in the end, %d were written", len(records), n)
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	src := &source{}
	for name, cfg := range map[string]Config{
		"no folder":         {Source: src},
		"no source":         {Dir: "x"},
		"negative interval": {Dir: "x", Source: src, Interval: -1},
		"negative file":     {Dir: "x", Source: src, Limits: Limits{File: -1}},
		"negative age":      {Dir: "x", Source: src, Limits: Limits{Age: -1}},
		"one file in all":   {Dir: "x", Source: src, Limits: Limits{File: 10, Total: 19}},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// FuzzReader gives the reader any file: it fails on none, and hands out only what is a record.
func FuzzReader(f *testing.F) {
	f.Add([]byte(flowlog.Header + "\n2 1 eni-1 - - - - - - - 1 2 - NODATA\n2 1 eni"))
	f.Add(bytes.Repeat([]byte("x"), 70_000))
	f.Add([]byte("\n\n\x00\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, namePrefix+time.Unix(1, 1).UTC().Format(nameTime)+plain), content, 0o600); err != nil {
			t.Fatal(err)
		}
		r := Reader{Dir: dir}
		n := 0
		if err := r.Read(t.Context(), func(rec flowlog.Record, line []byte) error {
			n++
			if string(rec.Append(nil)) != string(line)+"\n" {
				t.Errorf("%q was handed out as %+v", line, rec)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
		if total := n + int(r.Unreadable); total > bytes.Count(content, []byte{'\n'}) {
			t.Errorf("%d lines of %q", total, content)
		}
	})
}
