package sqlite

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock.dev/penstock/internal/state"
)

// patience bounds every wait. A test that runs into it has failed.
const patience = 30 * time.Second

// childEnv makes the test binary play a process that the tests kill: what to do, and its arguments.
const childEnv = "PENSTOCK_SQLITE_TEST_CHILD"

func TestMain(m *testing.M) {
	if role := os.Getenv(childEnv); role != "" {
		if err := runChild(role, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func runChild(role string, args []string) error {
	switch role {
	case "lock":
		if _, err := Lock(args[0]); err != nil {
			return err
		}
		fmt.Println("locked")
		_, err := io.Copy(io.Discard, os.Stdin) // until the parent goes
		return err
	case "write":
		return childWrites(args[0], args[1])
	case "fill":
		return childFills(args[0])
	}
	return fmt.Errorf("unknown role %q", role)
}

const childWriters = 8

// childWrites writes from eight goroutines until it is killed, and prints each document after its write was acknowledged: as
// revision and ID. Each document refers to the one that its writer wrote before.
func childWrites(path, synchronous string) error {
	s, err := Open(context.Background(), Options{Path: path, synchronous: synchronous, KeepRevisions: 1 << 30})
	if err != nil {
		return err
	}
	fmt.Println("opened")
	failed := make(chan error, childWriters)
	for w := range childWriters {
		go func() {
			prefix := fmt.Sprintf("%d-%d-", os.Getpid(), w)
			for n := 0; ; n++ {
				id := prefix + strconv.Itoa(n)
				revision, err := s.Update(context.Background(), func(tx state.Tx) error {
					body := fmt.Sprintf(`{"n":%d,"pad":%q}`, n, strings.Repeat("x", 40+n%500))
					return errors.Join(
						tx.Put("document", id, []byte(body), []state.Key{{Name: "writer", Value: prefix}}),
						tx.Put("head", prefix, []byte(strconv.Itoa(n)), nil),
					)
				})
				if err != nil {
					failed <- err
					return
				}
				// One write call a line: a line is either out or not.
				if _, err := os.Stdout.WriteString(fmt.Sprintf("%d %s\n", revision, id)); err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	return <-failed
}

// fillBody is the body of the documents that childFills writes.
var fillBody = `"` + strings.Repeat("x", 20_000) + `"`

// childFills writes documents 0, 1, … until that fails, and prints each after it was acknowledged. Then it waits for a line of
// input, writes one more, and closes the store; and prints the errors of all that.
func childFills(path string) error {
	s, err := Open(context.Background(), Options{Path: path})
	if err != nil {
		return err
	}
	fill := func(id string) error {
		_, err := s.Update(context.Background(), func(tx state.Tx) error {
			return tx.Put("stack", id, []byte(fillBody), []state.Key{{Name: "body", Value: fillBody}})
		})
		return err
	}
	for n := range 10_000 {
		if err := fill(strconv.Itoa(n)); err != nil {
			fmt.Println("failed:", err)
			break
		}
		fmt.Println(n)
	}
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	fmt.Println("late:", fill("late"))
	fmt.Println("closed:", s.Close())
	return nil
}

// child is a process of the test binary.
type child struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stderr strings.Builder
	read   chan struct{} // closed at the end of its output

	mu    sync.Mutex
	lines []string
	grown chan struct{} // closed when there are more lines
}

func startChild(t testing.TB, role string, args ...string) *child {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: exec.Command(exe, args...), read: make(chan struct{}), grown: make(chan struct{})}
	c.cmd.Env = append(os.Environ(), childEnv+"="+role)
	c.cmd.Stderr = &c.stderr
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.stdin = stdin
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.read)
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			c.mu.Lock()
			c.lines = append(c.lines, lines.Text())
			close(c.grown)
			c.grown = make(chan struct{})
			c.mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		if c.cmd.ProcessState == nil {
			_ = c.cmd.Process.Kill()
			<-c.read
			_ = c.cmd.Wait()
		}
	})
	return c
}

// waitForLines returns when the child has printed n lines.
func (c *child) waitForLines(t testing.TB, n int) {
	t.Helper()
	deadline := time.After(patience)
	for {
		c.mu.Lock()
		have, grown := len(c.lines), c.grown
		c.mu.Unlock()
		if have >= n {
			return
		}
		select {
		case <-grown:
		case <-c.read:
			t.Fatalf("child ended after %d of %d lines: %s", have, n, c.stderr.String())
		case <-deadline:
			t.Fatalf("child printed %d lines, want %d", have, n)
		}
	}
}

func (c *child) waitFor(t testing.TB, line string) {
	t.Helper()
	c.waitForLines(t, 1)
	if got := c.line(0); got != line {
		t.Fatalf("child printed %q, want %q", got, line)
	}
}

// line is the nth line that the child printed, "" when there is none.
func (c *child) line(n int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n >= len(c.lines) {
		return ""
	}
	return c.lines[n]
}

// kill ends the child at once and returns all that it printed.
func (c *child) kill(t testing.TB) []string {
	t.Helper()
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-c.read
	_ = c.cmd.Wait() // killed: always an error
	return c.lines
}

// acknowledged parses what a writing child printed.
func acknowledged(t testing.TB, lines []string) map[string]state.Revision {
	t.Helper()
	acked := map[string]state.Revision{}
	for _, line := range lines {
		if line == "opened" {
			continue
		}
		var revision state.Revision
		var id string
		if _, err := fmt.Sscanf(line, "%d %s", &revision, &id); err != nil {
			t.Fatalf("child printed %q: %v", line, err)
		}
		acked[id] = revision
	}
	return acked
}

// lost opens the database and returns how many of the acknowledged documents are not there as they were written. It is an
// error when what is there does not fit together: that may not happen even to those who lose something.
func lost(ctx context.Context, path string, acked map[string]state.Revision) (missing int, err error) {
	s, err := Open(ctx, Options{Path: path, KeepRevisions: 1 << 30})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.Check(ctx); err != nil {
		return 0, err
	}
	var newest state.Revision
	if err := s.View(ctx, func(r state.Reader) error {
		docs, err := r.List("document", state.Query{})
		if err != nil {
			return err
		}
		there := map[string]state.Revision{}
		count := map[string]int{}
		for _, d := range docs {
			there[d.ID] = d.Revision
			count[d.ID[:strings.LastIndexByte(d.ID, '-')+1]]++
		}
		for id, revision := range acked {
			if there[id] != revision {
				missing++
			}
		}
		heads, err := r.List("head", state.Query{})
		if err != nil {
			return err
		}
		for _, h := range heads {
			n, err := strconv.Atoi(string(h.Body))
			if err != nil {
				return err
			}
			byKey, err := r.Count("document", state.Key{Name: "writer", Value: h.ID})
			if err != nil {
				return err
			}
			if count[h.ID] != n+1 || byKey != n+1 {
				return fmt.Errorf("writer %s: last is %d, but there are %d documents, %d by key", h.ID, n, count[h.ID], byKey)
			}
		}
		newest, err = r.Revision()
		if err == nil && int(newest) != len(docs) {
			err = fmt.Errorf("revision is %d, but there are %d documents of one revision each", newest, len(docs))
		}
		return err
	}); err != nil {
		return 0, err
	}
	changes := 0
	for after := state.Revision(0); after < newest; {
		page, err := s.Changes(ctx, after)
		if err != nil {
			return 0, err
		}
		changes += len(page)
		after = page[len(page)-1].Revision
	}
	if changes != 2*int(newest) {
		return 0, fmt.Errorf("change feed has %d changes, want two for each of %d revisions", changes, newest)
	}
	return missing, nil
}

// need skips a test whose precondition is missing, or fails it where nothing may be missing.
func need(t testing.TB, ok bool, what string) {
	t.Helper()
	if ok {
		return
	}
	if os.Getenv("PENSTOCK_TEST_STRICT") == "1" {
		t.Fatalf("missing: %s", what)
	}
	t.Skipf("missing: %s", what)
}

func needTools(t testing.TB, tools ...string) {
	t.Helper()
	need(t, os.Getuid() == 0, "root, to mount a file system")
	for _, tool := range tools {
		_, err := exec.LookPath(tool)
		need(t, err == nil, tool)
	}
}

// command runs a program that must succeed.
func command(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// unmountLater unmounts dir at the end of the test, whatever else went wrong.
func unmountLater(t testing.TB, dir string) {
	t.Helper()
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			out2, err2 := exec.Command("umount", "--lazy", dir).CombinedOutput()
			t.Errorf("umount %s: %v: %s; lazily: %v: %s", dir, err, out, err2, out2)
		}
	})
}

// mountTmpfs mounts an empty file system of a size, "2m".
func mountTmpfs(t testing.TB, size string) string {
	t.Helper()
	needTools(t, "mount", "umount")
	dir := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "size="+size, "penstock-test", dir).CombinedOutput()
	need(t, err == nil, fmt.Sprintf("permission to mount: %s", out))
	unmountLater(t, dir)
	return dir
}
