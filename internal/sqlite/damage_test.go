package sqlite

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/state"
)

// history is a store that was left in the middle of its life, and what it held at each revision.
type history struct {
	db, log []byte
	states  []map[string]string // by revision
}

// newHistory writes 300 revisions of which about the last 200 are only in the log.
func newHistory(t testing.TB) history {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, Options{Path: path})
	h := history{states: []map[string]string{{}}}
	r := rand.New(rand.NewPCG(1, 2)) // the same each time: fuzzing repeats its inputs
	for len(h.states) <= 300 {
		if len(h.states) == 100 { // copies the log into the database
			closeStore(t, s)
			s = open(t, Options{Path: path})
		}
		next := map[string]string{}
		maps.Copy(next, h.states[len(h.states)-1])
		revision, err := s.Update(t.Context(), func(tx state.Tx) error {
			for n := range 1 + r.IntN(4) {
				id := fmt.Sprint(r.IntN(30))
				if n > 0 && r.IntN(4) == 0 {
					delete(next, id)
					if err := tx.Delete("stack", id); err != nil {
						return err
					}
					continue
				}
				next[id] = fmt.Sprintf("%q", strings.Repeat("x", r.IntN(1000))+fmt.Sprint(len(h.states)))
				if err := tx.Put("stack", id, []byte(next[id]), []state.Key{{Name: "body", Value: next[id]}}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if int(revision) != len(h.states) {
			t.Fatalf("got revision %d, want %d", revision, len(h.states))
		}
		h.states = append(h.states, next)
	}
	var err error
	if h.db, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	if h.log, err = os.ReadFile(path + "-wal"); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	return h
}

// reopen opens the two files as a crash left them and returns the revision at which the store stands. What it holds must be
// exactly what it held then, whole transactions and no gap, and it must go on from there.
func (h history) reopen(t testing.TB, log, shm []byte) state.Revision {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.db")
	for name, content := range map[string][]byte{path: h.db, path + "-wal": log, path + "-shm": shm} {
		if content == nil {
			continue
		}
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, Options{Path: path})
	defer closeStore(t, s)
	revision, _ := s.committed()
	if int(revision) >= len(h.states) {
		t.Fatalf("got revision %d of %d", revision, len(h.states)-1)
	}
	if diff := cmp.Diff(h.states[revision], contents(t, s)); diff != "" {
		t.Fatalf("contents at revision %d (-want +got):\n%s", revision, diff)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := put(t, s, "new", `1`); got != revision+1 {
		t.Fatalf("got revision %d for the next write, want %d", got, revision+1)
	}
	return revision
}

const logHeader = 32 // bytes of the log before its first frame

func TestLogTailDamaged(t *testing.T) {
	t.Parallel()
	h := newHistory(t)
	const inDatabase, last = 99, 300
	if got := h.reopen(t, h.log, nil); got != last {
		t.Fatalf("undamaged: got revision %d, want %d", got, last)
	}
	if got := h.reopen(t, nil, nil); got != inDatabase {
		t.Fatalf("without log: got revision %d, want %d", got, inDatabase)
	}
	garbage := make([]byte, 100_000)
	r := rand.New(rand.NewPCG(3, 4))
	for i := range garbage {
		garbage[i] = byte(r.Uint32())
	}
	if got := h.reopen(t, h.log, garbage[:32768]); got != last {
		t.Fatalf("with an index of garbage: got revision %d, want %d", got, last)
	}
	if got := h.reopen(t, append(bytes.Clone(h.log), garbage...), nil); got != last {
		t.Fatalf("with garbage behind it: got revision %d, want %d", got, last)
	}
	if got := h.reopen(t, append(bytes.Clone(h.log), h.log...), nil); got != last {
		t.Fatalf("with itself behind it: got revision %d, want %d", got, last)
	}
	seen := map[state.Revision]bool{}
	for range 12 {
		seen[h.reopen(t, h.log[:r.IntN(len(h.log))], nil)] = true // cut off

		log := bytes.Clone(h.log)
		log[r.IntN(len(log))] ^= 1 << r.IntN(8) // one bit
		seen[h.reopen(t, log, nil)] = true

		log = bytes.Clone(h.log)
		at := r.IntN(len(log))
		copy(log[at:], garbage[:r.IntN(8192)]) // blocks that never reached the disk
		seen[h.reopen(t, log, garbage[:4096])] = true

		log = bytes.Clone(h.log)
		clear(log[at:])
		seen[h.reopen(t, log, nil)] = true
	}
	if len(seen) < 12 {
		t.Errorf("damage led to %d different revisions only: it does not hit what it should", len(seen))
	}
}

// FuzzLog overwrites part of the log and cuts it.
func FuzzLog(f *testing.F) {
	h := newHistory(f)
	f.Add(uint32(0), uint32(len(h.log)), []byte{})
	f.Add(uint32(logHeader), uint32(len(h.log)), []byte{0, 0, 0, 1})
	f.Add(uint32(100), uint32(5000), bytes.Repeat([]byte{0xff}, 100))
	f.Fuzz(func(t *testing.T, at, end uint32, overwrite []byte) {
		log := bytes.Clone(h.log)
		copy(log[min(int(at), len(log)):], overwrite)
		h.reopen(t, log[:min(int(end), len(log))], nil)
	})
}

// A damaged database is an error that says so, wherever it is noticed; no panic, no hang, and Check finds what opening and
// reading did not come across.
func TestDatabaseDamaged(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, Options{Path: path})
	want := map[string]string{}
	for i := range 300 {
		id := fmt.Sprint(i)
		want[id] = fmt.Sprintf("%q", strings.Repeat("x", i*10))
		put(t, s, id, want[id])
	}
	closeStore(t, s)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(5, 6))
	noticed := map[string]int{}
	for round := range 60 {
		damaged := bytes.Clone(whole)
		switch at := r.IntN(len(damaged)); round % 3 {
		case 0:
			damaged = damaged[:at]
		case 1:
			page := damaged[at/4096*4096:][:4096]
			for i := range page {
				page[i] = byte(r.Uint32())
			}
		case 2: // the header of a page: type, free blocks, number of cells
			page := damaged[at/4096*4096:][:4096]
			for i := range 8 {
				page[i] = byte(r.Uint32())
			}
		}
		if len(damaged) == 0 {
			continue // a new database
		}
		path := filepath.Join(t.TempDir(), "state.db")
		if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		where, err := useDamaged(t, path, want)
		if err == nil {
			t.Fatalf("round %d: nothing noticed", round)
		}
		if !strings.Contains(err.Error(), "is damaged") {
			t.Fatalf("round %d: %s: got error %q, want one that says that the file is damaged", round, where, err)
		}
		noticed[where]++
	}
	t.Logf("noticed by: %v", noticed)
}

// useDamaged returns the first error and what met it.
func useDamaged(t *testing.T, path string, want map[string]string) (where string, err error) {
	t.Helper()
	s, err := Open(t.Context(), Options{Path: path})
	if err != nil {
		return "open", err
	}
	defer func() { _ = s.Close() }()
	err = s.View(t.Context(), func(r state.Reader) error {
		docs, err := r.List("stack", state.Query{})
		if err != nil {
			return err
		}
		for _, d := range docs {
			if want[d.ID] != string(d.Body) {
				return errors.New("contents differ, and so the file is damaged")
			}
		}
		if len(docs) != len(want) {
			return errors.New("documents are missing, and so the file is damaged")
		}
		return nil
	})
	if err != nil {
		return "list", err
	}
	if err := s.Check(t.Context()); err != nil {
		return "check", err
	}
	return "", nil
}

// A disk that accepts writes and then cannot keep them: nothing may be acknowledged from then on, even if later syncs succeed.
func TestSyncFails(t *testing.T) {
	t.Parallel()
	needTools(t, "mkfs.ext4", "mount", "umount")
	thin := mountTmpfs(t, "6m") // holds less than the disk that it pretends to be
	image := filepath.Join(thin, "disk.img")
	touch(t, image)
	if err := os.Truncate(image, 64<<20); err != nil {
		t.Fatal(err)
	}
	command(t, "mkfs.ext4", "-q", "-F", "-O", "^has_journal", image) // with a journal it would turn read-only
	dir := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "mount", "-t", "ext4", "-o", "loop", image, dir).CombinedOutput()
	need(t, err == nil, "a loop device with ext4 on it: "+string(out))
	mounted := true
	t.Cleanup(func() {
		if mounted {
			_ = exec.Command("umount", "--lazy", dir).Run()
		}
	})
	path := filepath.Join(dir, "state.db")
	c := startChild(t, "fill", path)
	want := map[string]string{}
	for n := 1; ; n++ {
		c.waitForLines(t, n)
		line := c.line(n - 1)
		if failure, ok := strings.CutPrefix(line, "failed: "); ok {
			t.Logf("after %d documents: %s", len(want), failure)
			break
		}
		want[line] = fillBody
	}
	command(t, "mount", "-o", "remount,size=128m", thin) // somebody repairs the disk, and syncs succeed again
	if _, err := c.stdin.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	<-c.read
	if err := c.cmd.Wait(); err != nil {
		t.Fatalf("child: %v: %s", err, c.stderr.String())
	}
	late, closed := c.line(len(want)+1), c.line(len(want)+2)
	if !strings.HasPrefix(late, "late: state can no longer be made durable") {
		t.Errorf("got %q for a write after a sync had failed, want its refusal", late)
	}
	if !strings.HasPrefix(closed, "closed: state can no longer be made durable") {
		t.Errorf("got %q for closing, want it to tell the same", closed)
	}
	command(t, "umount", dir)
	mounted = false
	command(t, "mount", "-t", "ext4", "-o", "loop", image, dir)
	mounted = true
	s := open(t, Options{Path: path})
	defer closeStore(t, s)
	got := contents(t, s)
	for n := range len(want) - 1 { // the loop driver takes a request of which half fitted for done: this disk lies once
		if id := fmt.Sprint(n); got[id] != want[id] {
			t.Errorf("acknowledged document %s of %d is lost", id, len(want))
		}
	}
	put(t, s, "after", `1`)
}
