package process_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/appstream/appstreamtest"
	"penstock.dev/penstock/internal/compute/guest"
	"penstock.dev/penstock/internal/compute/process"
	"penstock.dev/penstock/internal/compute/procfs"
)

// background is an application that does not end with its display, and says in its home that it runs.
const background = `setsid sh -c 'echo $$ >$HOME/pid.new; mv $HOME/pid.new $HOME/pid; trap "" TERM HUP; while :; do sleep 100; done' & exec xterm`

// serve is a server process: it starts two instances, begins a session on one, says where they are, and runs until it is told to end.
func serve(dataDir string) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	first, _ := strconv.Atoi(os.Getenv("PENSTOCK_TEST_UIDS"))
	d, err := process.New(process.Options{
		DataDir: dataDir, Executable: os.Getenv(binaryVariable), MaxWidth: 1600, MaxHeight: 1200, UIDs: process.UIDs{First: first, Count: 30},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := d.Run(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	var infos []appstream.InstanceInfo
	for n := range 2 {
		info, err := d.Start(ctx, appstream.InstanceSpec{ID: appstreamtest.ID(n)})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		infos = append(infos, info)
	}
	if err := d.Begin(ctx, appstreamtest.ID(0), appstream.SessionSpec{
		ID: "s", Endpoint: appstream.InternetEndpoint, Application: appstream.Application{Name: "sh", Command: []string{"sh", "-c", background}},
		ControlKey: make([]byte, 32), Width: 1024, Height: 768,
	}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	_ = json.NewEncoder(os.Stdout).Encode(infos)
	<-done
}

// server is one in a process of its own, ready and with its background application running.
type server struct {
	cmd     *exec.Cmd
	dataDir string
	infos   []appstream.InstanceInfo
	pids    []procfs.Process // everything that it runs
}

func startServer(t *testing.T, first int) *server {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{dataDir: t.TempDir()}
	s.cmd = exec.Command(os.Args[0])
	s.cmd.Env = append(os.Environ(), serverVariable+"="+s.dataDir, binaryVariable+"="+path, fmt.Sprint("PENSTOCK_TEST_UIDS=", first))
	s.cmd.Stderr = t.Output()
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.cmd.Process.Kill() })
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil {
		t.Fatalf("server did not come up: %v", err)
	}
	if err := json.Unmarshal(line, &s.infos); err != nil {
		t.Fatal(err)
	}
	appstreamtest.AwaitWindows(t, s.infos[0], "xterm")
	var pid string
	appstreamtest.Await(t, "background application", func() bool {
		b, err := os.ReadFile(filepath.Join(s.folder(0), "home/pid"))
		pid = strings.TrimSpace(string(b))
		return err == nil
	})
	s.pids = s.processes(t)
	if len(s.pids) < 8 { // two of agent, X server and window manager; xterm and the background application
		t.Fatalf("only %d processes run", len(s.pids))
	}
	if n, _ := strconv.Atoi(pid); !procfs.HasEnv(n, s.marker(t, 0)) {
		t.Fatalf("process %s does not carry %s", pid, s.marker(t, 0))
	}
	return s
}

func (s *server) folder(n int) string { return filepath.Dir(s.infos[n].Local.Xauthority) }

func (s *server) marker(t *testing.T, n int) string {
	id, err := os.ReadFile(filepath.Join(s.dataDir, "compute/id"))
	if err != nil {
		t.Fatal(err)
	}
	return guest.Marker + "=" + string(id) + "/" + string(appstreamtest.ID(n))
}

// processes are those of its instances that run.
func (s *server) processes(t *testing.T) (found []procfs.Process) {
	t.Helper()
	all, err := procfs.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		for n := range s.infos {
			if p.State != 'Z' && (procfs.HasEnv(p.PID, s.marker(t, n)) || p.PID == s.infos[n].Local.PID) {
				found = append(found, p)
				break
			}
		}
	}
	return found
}

// gone checks that nothing is left of what the server ran.
func (s *server) gone(t *testing.T) {
	t.Helper()
	for _, p := range s.pids {
		cmd, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.PID))
		if p.Alive() && len(cmd) > 0 { // without a command it has ended, though not everything of it may be torn down yet
			t.Errorf("process %d is left: %q", p.PID, cmd)
		}
	}
	for n, info := range s.infos {
		x := strings.TrimPrefix(info.Local.Display, ":")
		left := func(path string) bool {
			_, err := os.Lstat(path)
			return !errors.Is(err, fs.ErrNotExist)
		}
		if path := s.folder(n); left(path) {
			t.Errorf("%s is left", path)
		}
		for _, path := range []string{"/tmp/.X11-unix/X" + x, "/tmp/.X" + x + "-lock"} {
			// Another test's X server may take the display, or end, while we look.
			for end := time.Now().Add(2 * time.Second); left(path) && !inUse(x); time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					t.Errorf("%s is left", path)
					break
				}
			}
		}
	}
	records, _ := filepath.Glob(filepath.Join(s.dataDir, "compute/instances/*"))
	if len(records) > 0 {
		t.Errorf("records are left: %v", records)
	}
}

func (s *server) wait(t *testing.T) {
	t.Helper()
	done := make(chan struct{})
	go func() { _ = s.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(appstreamtest.Patience):
		t.Fatal("server does not end")
	}
}

// recover is the next start of a server on the same data directory.
func (s *server) recover(t *testing.T, first int) {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	d, err := process.New(process.Options{DataDir: s.dataDir, Executable: path, UIDs: process.UIDs{First: first, Count: 30}})
	if err != nil {
		t.Fatal(err)
	}
	ids, err := d.Running(t.Context())
	if err != nil || len(ids) != 0 {
		t.Errorf("got %v, %v; want no instance after a restart", ids, err)
	}
}

func TestServerIsToldToEnd(t *testing.T) {
	needs(t, "Xvfb", "openbox", "xterm")
	t.Parallel()
	s := startServer(t, 60000)
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.wait(t)
	s.gone(t)
}

func TestServerIsKilled(t *testing.T) {
	needs(t, "Xvfb", "openbox", "xterm")
	t.Parallel()
	s := startServer(t, 60100)
	_ = s.cmd.Process.Kill()
	s.wait(t)
	// The agents notice by themselves; no server is needed for the processes to end.
	appstreamtest.Await(t, "end of all processes", func() bool { return len(s.processes(t)) == 0 })
	s.recover(t, 60100)
	s.gone(t)
}

func TestServerAndAgentsAreKilled(t *testing.T) {
	needs(t, "Xvfb", "openbox", "xterm")
	t.Parallel()
	s := startServer(t, 60200)
	_ = s.cmd.Process.Signal(syscall.SIGSTOP) // it must not clean up after its agents
	for _, info := range s.infos {
		if err := syscall.Kill(info.Local.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	_ = s.cmd.Process.Kill()
	s.wait(t)
	if len(s.processes(t)) == 0 {
		t.Fatal("nothing was left to recover from: the test proves nothing")
	}
	s.recover(t, 60200)
	s.gone(t)
}

// A record whose process number now belongs to somebody else must not cost that process its life.
func TestRecoverSparesStrangers(t *testing.T) {
	stranger := exec.Command("sleep", "1000")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stranger.Process.Kill(); _ = stranger.Wait() })
	p, err := procfs.Get(stranger.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Skip("no boot ID")
	}
	for name, record := range map[string]string{
		"another start time": fmt.Sprintf(`{"instance":"i-1","folder":"FOLDER","uid":0,"pid":%d,"start":%d,"boot":%q}`, p.PID, p.Start-1, strings.TrimSpace(string(boot))),
		"another boot":       fmt.Sprintf(`{"instance":"i-1","folder":"FOLDER","uid":0,"pid":%d,"start":%d,"boot":"b"}`, p.PID, p.Start),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d, err := process.New(process.Options{DataDir: dir})
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "compute/instances/i-1.json")
			id, err := os.ReadFile(filepath.Join(dir, "compute/id"))
			if err != nil {
				t.Fatal(err)
			}
			folder := filepath.Join(dir, string(id[:8])+"-i-1")
			if err := os.Mkdir(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			record := strings.ReplaceAll(record, "FOLDER", folder)
			if err := os.WriteFile(path, []byte(record), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := d.Recover(t.Context()); err != nil {
				t.Error(err)
			}
			if !p.Alive() {
				t.Fatal("a process of somebody else was killed")
			}
			for _, left := range []string{path, folder} {
				if _, err := os.Lstat(left); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s is still there: %v", left, err)
				}
			}
		})
	}
}

// A damaged record leads to no other folder, and what carries the data directory's mark ends all the same.
func TestDamagedRecords(t *testing.T) {
	precious := t.TempDir()
	for name, record := range map[string]string{
		"cut":            `{"instance":"i-1","fol`,
		"another name":   `{"instance":"i-2","folder":"PRECIOUS"}`,
		"no folder":      `{"instance":"i-1"}`,
		"outside world":  `{"instance":"../i-1","folder":"PRECIOUS"}`,
		"another folder": `{"instance":"i-1","folder":"PRECIOUS"}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d, err := process.New(process.Options{DataDir: dir})
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "compute/instances/i-1.json")
			if err := os.WriteFile(path, []byte(strings.ReplaceAll(record, "PRECIOUS", precious)), 0o600); err != nil {
				t.Fatal(err)
			}
			id, err := os.ReadFile(filepath.Join(dir, "compute/id"))
			if err != nil {
				t.Fatal(err)
			}
			stray := exec.Command("sleep", "1000")
			stray.Env = []string{guest.Marker + "=" + string(id) + "/i-1"}
			if err := stray.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() { _ = stray.Wait(); close(ended) }()
			appstreamtest.Await(t, "stray process", func() bool { return procfs.HasEnv(stray.Process.Pid, stray.Env[0]) })
			if err := d.Recover(t.Context()); err != nil {
				t.Error(err)
			}
			select {
			case <-ended:
			case <-time.After(appstreamtest.Patience):
				_ = stray.Process.Kill()
				t.Error("a process of the data directory was left")
			}
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("record is still there: %v", err)
			}
			if _, err := os.Lstat(precious); err != nil {
				t.Fatal("a folder that is not an instance's was removed")
			}
		})
	}
}

// Binary and data directory often lie where instances' users cannot go, such as root's home.
func TestBelowPrivateFolder(t *testing.T) {
	needs(t, "Xvfb", "openbox", "xterm")
	if os.Getuid() != 0 {
		t.Skip("needs root, for instances with users of their own")
	}
	t.Parallel()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	private := filepath.Join(t.TempDir(), "private")
	if err := os.Mkdir(private, 0o700); err != nil {
		t.Fatal(err)
	}
	hidden := filepath.Join(private, "penstock")
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(hidden, b, 0o700) // nor may they execute it
	}
	if err != nil {
		t.Fatal(err)
	}
	// The runtime folder lies somewhere that does not exist yet.
	public, err := os.MkdirTemp("/tmp", "penstock-public-")
	if err == nil {
		err = os.Chmod(public, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(public) })
	w := openWith(t, process.Options{DataDir: filepath.Join(private, "data"), Executable: hidden, RuntimeDir: public + "/a/b/run"})
	blocked := openWith(t, process.Options{DataDir: filepath.Join(private, "data2"), Executable: hidden, RuntimeDir: private + "/run"})
	if _, err := blocked.Start(t.Context(), appstream.InstanceSpec{ID: "i-1"}); err == nil || !strings.Contains(err.Error(), private) {
		t.Errorf("runtime folder that users cannot reach: got %v, want an error that names %s", err, private)
	}
	info, err := w.Start(t.Context(), appstream.InstanceSpec{ID: appstreamtest.ID(1)})
	if err != nil {
		t.Fatal(err)
	}
	p, err := procfs.Get(info.Local.PID)
	if err != nil || p.UID == 0 {
		t.Errorf("agent: got %+v, %v; want another user than root", p, err)
	}
	err = w.Begin(t.Context(), appstreamtest.ID(1), appstream.SessionSpec{
		ID: "s", Endpoint: appstream.InternetEndpoint, ControlKey: make([]byte, 32), Width: 1024, Height: 768,
		Application: appstream.Application{Name: "xterm", Command: []string{"xterm"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	appstreamtest.AwaitWindows(t, info, "xterm")
	if err := w.Stop(t.Context(), appstreamtest.ID(1), appstream.EndByUser, ""); err != nil {
		t.Error(err)
	}
	for _, l := range w.leftovers() {
		t.Errorf("left behind: %s", l)
	}
}

// TestOrdinaryUser runs the suite again as a user without any privilege.
func TestOrdinaryUser(t *testing.T) {
	needs(t, "Xvfb", "openbox", "xterm", "setpriv")
	if os.Getuid() != 0 {
		t.Skip("the other tests run as an ordinary user already")
	}
	t.Parallel()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "penstock-nobody-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	self := filepath.Join(dir, "process.test")
	b, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(self, b, 0o755)
	}
	if err == nil {
		err = os.Chmod(self, 0o755)
	}
	if err == nil {
		err = os.Chown(dir, 65534, 65534)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
		self, "-test.run=^(TestCompute|TestServer.*)$", "-test.timeout=240s", "-test.parallel=2")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + dir, "TMPDIR=" + dir, binaryVariable + "=" + path}
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "PASS") {
		t.Errorf("nothing passed:\n%s", out)
	}
}
