package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/state"
)

// put writes one document.
func put(t testing.TB, s *Store, id, body string) state.Revision {
	t.Helper()
	revision, err := s.Update(t.Context(), func(tx state.Tx) error {
		return tx.Put("stack", id, []byte(body), []state.Key{{Name: "body", Value: body}})
	})
	if err != nil {
		t.Fatal(err)
	}
	return revision
}

// contents returns all stacks as ID=body, by the way of their key too, which must agree.
func contents(t testing.TB, s *Store) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := s.View(t.Context(), func(r state.Reader) error {
		docs, err := r.List("stack", state.Query{})
		if err != nil {
			return err
		}
		for _, d := range docs {
			got[d.ID] = string(d.Body)
			byKey, err := r.List("stack", state.Query{By: state.Key{Name: "body", Value: string(d.Body)}})
			if err != nil {
				return err
			}
			found := false
			for _, k := range byKey {
				found = found || k.ID == d.ID
			}
			if !found {
				return fmt.Errorf("document %s is not found by its key", d.ID)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

func wantOpenError(t *testing.T, o Options, text string) {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err == nil {
		closeStore(t, s)
		t.Fatalf("opened, want an error with %q", text)
	}
	if !strings.Contains(err.Error(), text) {
		t.Fatalf("got error %q, want one with %q", err, text)
	}
}

func TestOpenMakesFolderAndPrivateFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a b", "c?d#e%41&f=g", "state.db")
	s := open(t, Options{Path: path})
	put(t, s, "a", `1`)
	for _, name := range []string{path, path + "-wal", path + "-shm", path + ".lock"} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != 0o600 {
			t.Errorf("%s: got mode %o, want 600", name, got)
		}
	}
	closeStore(t, s)
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{"state.db", "state.db.lock"}, names); diff != "" {
		t.Errorf("files left (-want +got):\n%s", diff)
	}
	s = open(t, Options{Path: path})
	defer closeStore(t, s)
	if diff := cmp.Diff(map[string]string{"a": "1"}, contents(t, s)); diff != "" {
		t.Errorf("contents (-want +got):\n%s", diff)
	}
}

func TestOpenSettings(t *testing.T) {
	t.Parallel()
	s := open(t, Options{Path: filepath.Join(t.TempDir(), "state.db")})
	defer closeStore(t, s)
	put(t, s, "a", `1`)
	for pragma, want := range map[string]int64{"synchronous": 2, "wal_autocheckpoint": 0, "busy_timeout": 5000} {
		got, err := s.writer.conn.integer("PRAGMA " + pragma) // the writer is idle
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("%s: got %d, want %d", pragma, got, want)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	fresh := func(t *testing.T) string { return filepath.Join(t.TempDir(), "state.db") }
	t.Run("no path", func(t *testing.T) {
		t.Parallel()
		wantOpenError(t, Options{}, "no path")
	})
	t.Run("negative feed", func(t *testing.T) {
		t.Parallel()
		wantOpenError(t, Options{Path: fresh(t), KeepRevisions: -1}, "negative")
	})
	t.Run("folder in the way", func(t *testing.T) {
		t.Parallel()
		wantOpenError(t, Options{Path: t.TempDir()}, "is a directory")
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		path := fresh(t)
		if _, err := Open(ctx, Options{Path: path}); !errors.Is(err, context.Canceled) {
			t.Fatalf("got error %v, want %v", err, context.Canceled)
		}
		closeStore(t, open(t, Options{Path: path})) // the lock was released
	})
	t.Run("newer schema", func(t *testing.T) {
		t.Parallel()
		path := fresh(t)
		closeStore(t, open(t, Options{Path: path}))
		execOn(t, path, "UPDATE meta SET value = 99 WHERE name = 'schema'")
		wantOpenError(t, Options{Path: path}, "schema version 99, written by a newer release; this one knows versions up to 1")
	})
	t.Run("another program's database", func(t *testing.T) {
		t.Parallel()
		path := fresh(t)
		touch(t, path)
		execOn(t, path, "CREATE TABLE recipes (name TEXT)")
		wantOpenError(t, Options{Path: path}, "database of another program")
	})
	t.Run("another program's meta table", func(t *testing.T) {
		t.Parallel()
		path := fresh(t)
		touch(t, path)
		execOn(t, path, "CREATE TABLE meta (name TEXT, value TEXT)")
		wantOpenError(t, Options{Path: path}, "database of another program")
	})
	t.Run("not a database", func(t *testing.T) {
		t.Parallel()
		path := fresh(t)
		if err := os.WriteFile(path, bytes.Repeat([]byte("recipes\n"), 1000), 0o600); err != nil {
			t.Fatal(err)
		}
		wantOpenError(t, Options{Path: path}, "state.db is damaged or no database; restore it from a backup")
		got, err := os.ReadFile(path)
		if err != nil || len(got) != 8000 {
			t.Errorf("the file was touched: %d bytes, error %v", len(got), err)
		}
	})
}

func touch(t testing.TB, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// execOn runs one statement on a closed database.
func execOn(t testing.TB, path, statement string) {
	t.Helper()
	c, err := openConn(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.exec(statement), c.close()); err != nil {
		t.Fatal(err)
	}
}

func TestMigrateUndoesWhatFailed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	closeStore(t, open(t, Options{Path: path}))
	// As left by nobody: version 0 cannot be, and going on from a hole must not half-work.
	execOn(t, path, "UPDATE meta SET value = 0 WHERE name = 'schema'")
	wantOpenError(t, Options{Path: path}, "no schema version")
	execOn(t, path, "UPDATE meta SET value = 1 WHERE name = 'schema'")
	closeStore(t, open(t, Options{Path: path}))
}

func TestOneProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "state.db")
	s := open(t, Options{Path: path})
	wantOpenError(t, Options{Path: path}, dir+" is in use by this process already")
	put(t, s, "a", `1`)
	closeStore(t, s)
	closeStore(t, open(t, Options{Path: path}))
}

func TestLock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	release, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Lock(dir)
	if want := dir + " is in use by this process already"; err == nil || err.Error() != want {
		t.Errorf("got error %v, want %s", err, want)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}

	// Another process holds it, and then dies without a word.
	child := startChild(t, "lock", dir)
	child.waitFor(t, "locked")
	_, err = Lock(dir)
	if want := fmt.Sprintf("%s is in use by process %d", dir, child.cmd.Process.Pid); err == nil || err.Error() != want {
		t.Errorf("got error %v, want %s", err, want)
	}
	child.kill(t)
	release, err = Lock(dir)
	if err != nil {
		t.Fatalf("after the holder died: %v", err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such folder: got error %v, want %v", err, fs.ErrNotExist)
	}
}

func TestNetworkFileSystemsAreRefused(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		magic int64
		want  string
	}{
		"nfs":   {0x6969, "NFS"},
		"cifs":  {0xff534d42, "CIFS"},
		"smb2":  {0xfe534d42, "SMB"},
		"fuse":  {0x65735546, "FUSE"},
		"9p":    {0x01021997, "9P"},
		"ext4":  {unix.EXT4_SUPER_MAGIC, ""},
		"xfs":   {unix.XFS_SUPER_MAGIC, ""},
		"btrfs": {unix.BTRFS_SUPER_MAGIC, ""},
		"tmpfs": {unix.TMPFS_MAGIC, ""},
	} {
		err := refuseFileSystemType("/data", tc.magic)
		if tc.want == "" && err != nil {
			t.Errorf("%s: got error %v, want none", name, err)
		}
		if tc.want != "" && (err == nil || !strings.Contains(err.Error(), "/data is on a "+tc.want+" file system")) {
			t.Errorf("%s: got error %v, want one that names %s", name, err, tc.want)
		}
	}
	if err := refuseNetworkFileSystem(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such folder: got error %v, want %v", err, fs.ErrNotExist)
	}
}

func TestBackup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, Options{Path: filepath.Join(dir, "state.db")})
	defer closeStore(t, s)
	for i := range 200 {
		put(t, s, fmt.Sprint(i), fmt.Sprint(i))
	}
	want := contents(t, s)
	stop := make(chan struct{})
	written := make(chan error, 1)
	go func() { // the store goes on
		for i := 0; ; i++ {
			select {
			case <-stop:
				written <- nil
				return
			default:
			}
			if _, err := s.Update(t.Context(), func(tx state.Tx) error {
				return errors.Join(tx.Put("left", "a", fmt.Append(nil, i), nil), tx.Put("right", "a", fmt.Append(nil, i), nil))
			}); err != nil {
				written <- err
				return
			}
		}
	}()
	path := filepath.Join(dir, "it's a backup.db")
	if err := s.Backup(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	if err := s.Backup(t.Context(), path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("backup over a backup: got error %v, want %v", err, fs.ErrExist)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Backup(ctx, filepath.Join(dir, "cancelled.db")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got error %v, want %v", err, context.Canceled)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
	close(stop)
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*.partial"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v, error %v", left, err)
	}

	restored := open(t, Options{Path: path})
	defer closeStore(t, restored)
	if diff := cmp.Diff(want, contents(t, restored)); diff != "" {
		t.Errorf("contents of the backup (-want +got):\n%s", diff)
	}
	if err := restored.View(t.Context(), func(r state.Reader) error {
		left, errLeft := r.Get("left", "a")
		right, errRight := r.Get("right", "a")
		if !errors.Is(errLeft, errRight) || !bytes.Equal(left.Body, right.Body) {
			return fmt.Errorf("half a transaction: %s, %s: %w", left.Body, right.Body, errors.Join(errLeft, errRight))
		}
		newest, err := r.Revision()
		if err == nil && newest < 200 {
			err = fmt.Errorf("got revision %d, want 200 at least", newest)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	put(t, restored, "new", `1`)
}

func TestFeedIsTrimmed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	for _, keep := range []int{1, 10, 100} {
		s := open(t, Options{Path: path, KeepRevisions: keep})
		var newest state.Revision
		for i := range 300 {
			newest = put(t, s, "a", fmt.Sprint(keep*1000+i))
			changes, err := s.Changes(t.Context(), max(0, newest-state.Revision(min(keep, i+1))))
			if err != nil || len(changes) == 0 || changes[len(changes)-1].Revision != newest {
				t.Fatalf("keep %d, revision %d: got %d changes, error %v", keep, newest, len(changes), err)
			}
		}
		rows, err := s.writer.conn.integer("SELECT count(*) FROM change") // the writer is idle
		if err != nil {
			t.Fatal(err)
		}
		if limit := int64(keep + keep/8 + 1); rows > limit {
			t.Errorf("keep %d: the feed has %d rows, want %d at most", keep, rows, limit)
		}
		closeStore(t, s)
	}
}

// A feed that is much too long, after its length was configured shorter, is shortened step by step.
func TestFeedIsShortened(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	closeStore(t, open(t, Options{Path: path}))
	execOn(t, path, `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
		INSERT INTO change (revision, kind, id, deleted) SELECT i, 'stack', 'a', 0 FROM n`)
	const keep = 10
	s := open(t, Options{Path: path, KeepRevisions: keep})
	defer closeStore(t, s)
	for i := range 10 {
		put(t, s, "a", fmt.Sprint(i))
	}
	rows, err := s.writer.conn.integer("SELECT count(*) FROM change") // the writer is idle
	if err != nil {
		t.Fatal(err)
	}
	if rows > keep+2 {
		t.Errorf("the feed has %d rows, want %d at most", rows, keep+2)
	}
}

// When a statement fails in the middle of a Put, nothing of the transaction may stay, even if its function does not care. The
// others are not harmed for longer than the damage lasts.
func TestHalfAPut(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	s := open(t, Options{Path: path})
	defer closeStore(t, s)
	put(t, s, "a", `1`)
	execOn(t, path, "ALTER TABLE resource_key RENAME TO elsewhere")
	_, err := s.Update(t.Context(), func(tx state.Tx) error {
		_ = tx.Put("stack", "b", []byte(`1`), []state.Key{{Name: "body", Value: "1"}})
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "resource_key") {
		t.Errorf("got error %v, want one about the table", err)
	}
	if _, err := s.Update(t.Context(), func(tx state.Tx) error { return tx.Put("fleet", "c", []byte(`1`), nil) }); err != nil {
		t.Errorf("document without keys: %v", err)
	}
	execOn(t, path, "ALTER TABLE elsewhere RENAME TO resource_key")
	if diff := cmp.Diff(map[string]string{"a": "1"}, contents(t, s)); diff != "" {
		t.Errorf("contents (-want +got):\n%s", diff)
	}
	if got := put(t, s, "b", `1`); got != 3 {
		t.Errorf("got revision %d, want 3", got)
	}
}

// A disk that is full is an error for those who write, and nothing else: no hang, no damage, and it goes on when there is
// space again.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	dir := mountTmpfs(t, "2m")
	s := open(t, Options{Path: filepath.Join(dir, "state.db")})
	defer closeStore(t, s)
	want := map[string]string{}
	body := `"` + strings.Repeat("x", 20_000) + `"`
	var full error
	for i := 0; full == nil && i < 1000; i++ {
		id := fmt.Sprint(i)
		if _, full = s.Update(t.Context(), func(tx state.Tx) error {
			return tx.Put("stack", id, []byte(body), []state.Key{{Name: "body", Value: body}})
		}); full == nil {
			want[id] = body
		}
	}
	if full == nil || !strings.Contains(full.Error(), "no space left") {
		t.Fatalf("got error %v, want one that says there is no space", full)
	}
	if diff := cmp.Diff(want, contents(t, s)); diff != "" {
		t.Errorf("contents on a full disk (-want +got):\n%s", diff)
	}
	// A function that goes on after the database failed writes nothing either.
	if _, err := s.Update(t.Context(), func(tx state.Tx) error {
		for i := range 200 {
			_ = tx.Put("swallowed", fmt.Sprint(i), []byte(body), nil)
		}
		return nil
	}); err == nil {
		t.Error("a function that swallowed the errors: no error")
	}
	if out, err := exec.CommandContext(t.Context(), "mount", "-o", "remount,size=16m", dir).CombinedOutput(); err != nil {
		t.Fatalf("remount: %v: %s", err, out)
	}
	put(t, s, "after", `1`)
	want["after"] = `1`
	if diff := cmp.Diff(want, contents(t, s)); diff != "" {
		t.Errorf("contents after there was space again (-want +got):\n%s", diff)
	}
	if err := s.View(t.Context(), func(r state.Reader) error {
		n, err := r.Count("swallowed", state.Key{})
		if n > 0 {
			t.Errorf("%d documents of a failed function are there", n)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
}
