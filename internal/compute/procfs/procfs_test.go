package procfs

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const tail = " S 12 3 4 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2\n"
	for name, c := range map[string]struct {
		in    string
		ppid  int
		start uint64
		bad   bool
	}{
		"plain":                   {in: "77 (sh)" + tail, ppid: 12, start: 987654},
		"name with a parenthesis": {in: "77 (a) S 1 (b))" + tail, ppid: 12, start: 987654},
		"name with a newline":     {in: "77 (a\nb)" + tail, ppid: 12, start: 987654},
		"empty":                   {in: "", bad: true},
		"no name":                 {in: "77 sh S 1", bad: true},
		"cut":                     {in: "77 (sh) S 12 3", bad: true},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := parseStat([]byte(c.in))
			if (err != nil) != c.bad {
				t.Fatalf("got error %v, want one: %v", err, c.bad)
			}
			if p.PPID != c.ppid || p.Start != c.start {
				t.Errorf("got %+v, want parent %d, start %d", p, c.ppid, c.start)
			}
		})
	}
}

func TestSignalHitsOnlyTheProcessThatWasSeen(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	cmd.Env = append(os.Environ(), "PENSTOCK_TEST=yes")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	p, err := Get(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if p.PPID != os.Getpid() || p.UID != os.Getuid() {
		t.Errorf("got %+v, want our child", p)
	}
	// Start returns a moment before the kernel has put the new environment in its place.
	for end := time.Now().Add(10 * time.Second); !HasEnv(p.PID, "PENSTOCK_TEST=yes") && time.Now().Before(end); {
		runtime.Gosched()
	}
	if !HasEnv(p.PID, "PENSTOCK_TEST=yes") || HasEnv(p.PID, "PENSTOCK_TEST=ye") {
		t.Error("environment was not read right")
	}
	all, err := List()
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, d := range Descendants(all, os.Getpid()) {
		found = found || d.PID == p.PID
	}
	if !found {
		t.Error("child is not among the descendants")
	}
	other := p
	other.Start--
	if err := other.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !p.Alive() || other.Alive() {
		t.Fatal("a process with another start time counts as the same")
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGTERM {
		t.Errorf("ended with %v, want SIGTERM", err)
	}
	if err := p.Signal(syscall.SIGKILL); err != nil {
		t.Errorf("signal to a process that is no more: %v", err)
	}
}
