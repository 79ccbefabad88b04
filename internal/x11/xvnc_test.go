package x11

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"penstock.dev/penstock/internal/media"
)

// All tests of this package pass with Xvnc too.
func TestAgainstXvnc(t *testing.T) {
	if testKind == Xvnc {
		t.Skip("a part of TestAgainstXvnc")
	}
	if _, err := exec.LookPath(Xvnc.Program()); err != nil {
		t.Skipf("needs %s (Debian package %s)", Xvnc.Program(), Xvnc.Package())
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.timeout=5m")
	cmd.Env = append(os.Environ(), "PENSTOCK_TEST_X_SERVER="+string(Xvnc))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Xvnc listens to nobody but X clients, and has screens that are larger than Xvfb's: two of 4K side by side.
func TestXvncIsClosedAndLarge(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath(Xvnc.Program()); err != nil {
		t.Skipf("needs %s (Debian package %s)", Xvnc.Program(), Xvnc.Package())
	}
	s, err := StartServer(t.Context(), ServerOptions{Dir: t.TempDir(), Kind: Xvnc})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	x := openScreen(t, s)
	size := media.Size{Width: 3840, Height: 2160}
	if err := x.Arrange(media.Layout{Monitors: [media.MaxMonitors]media.Size{size, size}, Scale: 200}); err != nil {
		t.Fatal(err)
	}
	if got, want := x.Size(), (media.Size{Width: 7680, Height: 2160}); got != want {
		t.Fatalf("got a screen of %v, want %v", got, want)
	}
	var c copyOf
	c.take(t, x)
	if !bytes.Equal(whole(t, x), c.pix) {
		t.Error("the copy differs from the screen")
	}
	if got := listeners(t, s.PID()); len(got) != 1 || got[0] != socketPath(s.display) {
		t.Errorf("the server listens at %q, want %s alone", got, socketPath(s.display))
	}
}

// listeners are the sockets of a process that take connections: paths, or addresses of TCP.
func listeners(t *testing.T, pid int) (found []string) {
	t.Helper()
	inodes := map[string]bool{}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if link, err := os.Readlink(dir + "/" + e.Name()); err == nil {
			if m := regexp.MustCompile(`^socket:\[(\d+)\]$`).FindStringSubmatch(link); m != nil {
				inodes[m[1]] = true
			}
		}
	}
	for _, table := range []struct {
		name                     string
		state, inode, at, listen int
	}{{"unix", 5, 6, 7, 0}, {"tcp", 3, 9, 1, 0}, {"tcp6", 3, 9, 1, 0}} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table.name))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) <= max(table.inode, table.at) || !inodes[f[table.inode]] {
				continue
			}
			if state := f[table.state]; (table.name == "unix" && state == "01") || (table.name != "unix" && state == "0A") {
				found = append(found, f[table.at])
			}
		}
	}
	return found
}
