package process_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/appstream/appstreamtest"
	"penstock.dev/penstock/internal/compute/guest"
	"penstock.dev/penstock/internal/compute/process"
	"penstock.dev/penstock/internal/compute/procfs"
)

// binary builds the program once for all tests of this run.
var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv(binaryVariable); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "penstock-test-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "penstock")
	cmd := exec.Command("go", "build", "-o", path, "penstock.dev/penstock/cmd/penstock")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return path, errors.Join(os.Chmod(dir, 0o755), os.Chmod(path, 0o755)) // for every user, whatever the umask is
})

// Variables by which a test starts this test binary in another role.
const (
	binaryVariable = "PENSTOCK_TEST_BINARY" // use this program
	serverVariable = "PENSTOCK_TEST_SERVER" // be a server with this data directory
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(serverVariable); dir != "" {
		serve(dir)
		return
	}
	code := m.Run()
	if path, err := binary(); err == nil && os.Getenv(binaryVariable) == "" {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

func needs(t testing.TB, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := guest.LookPath(p); err != nil {
			t.Skipf("%s is not installed", p)
		}
	}
}

// watched remembers what it started, so that the test can look for it afterwards.
type watched struct {
	*process.Driver
	dataDir string

	mu       sync.Mutex
	displays []string
	uids     []int
	folders  []string
}

func (w *watched) Start(ctx context.Context, spec appstream.InstanceSpec) (appstream.InstanceInfo, error) {
	info, err := w.Driver.Start(ctx, spec)
	if err == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		folder := filepath.Dir(info.Local.Xauthority)
		if st, err := os.Stat(folder); err == nil {
			w.uids = append(w.uids, int(st.Sys().(*syscall.Stat_t).Uid))
		}
		w.displays, w.folders = append(w.displays, info.Local.Display), append(w.folders, folder)
	}
	return info, err
}

// inUse reports whether an X server runs on the display.
func inUse(n string) bool {
	b, err := os.ReadFile("/tmp/.X" + n + "-lock")
	if err != nil {
		return false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return false
	}
	p, err := procfs.Get(pid)
	return err == nil && p.Alive()
}

// leftovers looks for everything that an instance may leave on the machine.
func (w *watched) leftovers() (found []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	say := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	id, _ := os.ReadFile(filepath.Join(w.dataDir, "compute/id"))
	all, err := procfs.List()
	if err != nil {
		say("cannot list processes: %v", err)
	}
	own := make(map[int]bool)
	for _, uid := range w.uids {
		if uid != os.Getuid() {
			own[uid] = true
		}
	}
	for _, p := range all {
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID))
		if p.State != 'Z' && (own[p.UID] || strings.Contains(string(env), guest.Marker+"="+string(id)+"/")) {
			cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
			say("process %d: %q", p.PID, cmd)
		}
	}
	for _, d := range w.displays {
		n := strings.TrimPrefix(d, ":")
		if inUse(n) {
			continue // by somebody else by now: our processes are named above
		}
		for _, path := range []string{"/tmp/.X11-unix/X" + n, "/tmp/.X" + n + "-lock"} {
			if st, err := os.Lstat(path); err == nil && (len(own) == 0 || own[int(st.Sys().(*syscall.Stat_t).Uid)]) {
				say("%s", path)
			}
		}
	}
	for _, f := range w.folders {
		if _, err := os.Lstat(f); err == nil {
			say("%s", f)
		}
	}
	for _, dir := range []string{"/tmp", "/var/tmp", "/dev/shm", "/tmp/.X11-unix", "/tmp/.ICE-unix"} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if st, err := e.Info(); err == nil && own[int(st.Sys().(*syscall.Stat_t).Uid)] {
				say("%s/%s", dir, e.Name())
			}
		}
	}
	for _, table := range []struct {
		file string
		uid  int
	}{{"shm", 7}, {"sem", 4}, {"msg", 7}} {
		b, _ := os.ReadFile("/proc/sysvipc/" + table.file)
		for _, line := range strings.Split(string(b), "\n")[1:] {
			if f := strings.Fields(line); len(f) > table.uid {
				if uid, err := strconv.Atoi(f[table.uid]); err == nil && own[uid] {
					say("%s segment: %s", table.file, line)
				}
			}
		}
	}
	records, _ := filepath.Glob(filepath.Join(w.dataDir, "compute/instances/*"))
	return append(found, records...)
}

var drivers atomic.Int32

// open makes a driver and runs it until the test ends.
func open(t *testing.T, dataDir string) *watched {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return openWith(t, process.Options{DataDir: dataDir, Executable: path})
}

func openWith(t testing.TB, o process.Options) *watched {
	t.Helper()
	// Users of its own for each driver: what is left of one is not taken for another's.
	o.UIDs = process.UIDs{First: 62000 + 30*int((drivers.Add(1)-1)%100), Count: 30} // apart from the 60000s of servers and the default's 61000s
	o.MaxWidth, o.MaxHeight = 1600, 1200
	o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	d, err := process.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &watched{Driver: d, dataDir: o.DataDir}
}

func TestCompute(t *testing.T) {
	needs(t, "Xvfb", "openbox", "xterm")
	appstreamtest.Compute(t, func(t *testing.T) *appstreamtest.Rig {
		w := open(t, t.TempDir())
		return &appstreamtest.Rig{Compute: w, Leftovers: w.leftovers, OwnUser: os.Getuid() == 0}
	})
}
