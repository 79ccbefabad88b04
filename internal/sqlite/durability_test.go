package sqlite

import (
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"penstock.dev/penstock/internal/state"
)

// A process that is killed at any moment has lost nothing that it acknowledged. This says nothing about syncs: what a dead
// process wrote is still in the kernel.
func TestKill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	acked := map[string]state.Revision{}
	for range 6 {
		c := startChild(t, "write", path, "FULL")
		c.waitForLines(t, 1+rand.IntN(2000))
		maps.Copy(acked, acknowledged(t, c.kill(t)))
		missing, err := lost(t.Context(), path, acked)
		if err != nil {
			t.Fatal(err)
		}
		if missing > 0 {
			t.Fatalf("%d of %d acknowledged documents were lost", missing, len(acked))
		}
	}
	t.Logf("%d acknowledged, none lost", len(acked))
}

// A power cut: the file system is in an image file, and a copy of that file has only those blocks that were flushed. The same
// with weaker settings must lose something, or the test could not tell.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	needTools(t, "mkfs.ext4", "mount", "umount")

	t.Run("FULL", func(t *testing.T) {
		for range 3 {
			acked, missing, err := cutPower(t, "FULL")
			if err != nil {
				t.Fatal(err)
			}
			if missing > 0 {
				t.Fatalf("%d of %d acknowledged documents were lost", missing, acked)
			}
			t.Logf("%d acknowledged, none lost", acked)
		}
	})
	t.Run("NORMAL", func(t *testing.T) {
		for range 5 {
			acked, missing, err := cutPower(t, "NORMAL")
			if err != nil {
				t.Fatal(err) // what is left must fit together even so
			}
			t.Logf("%d acknowledged, %d lost", acked, missing)
			if missing > 0 {
				return
			}
		}
		t.Fatal("nothing was lost without syncs: this test cannot tell whether there are any")
	})
	t.Run("OFF", func(t *testing.T) {
		for range 5 {
			acked, missing, err := cutPower(t, "OFF")
			t.Logf("%d acknowledged, %d lost, error %v", acked, missing, err)
			if missing > 0 || err != nil {
				return
			}
		}
		t.Fatal("nothing was lost without syncs: this test cannot tell whether there are any")
	})
}

// cutPower lets a child write to a file system of its own until the power is cut, and returns how many documents were
// acknowledged and how many of them are lost.
func cutPower(t *testing.T, synchronous string) (acked, missing int, err error) {
	t.Helper()
	dir := t.TempDir()
	image, after := filepath.Join(dir, "before.img"), filepath.Join(dir, "after.img")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 64<<20); err != nil {
		t.Fatal(err)
	}
	command(t, "mkfs.ext4", "-q", "-F", image)

	c := startChild(t, "write", filepath.Join(mountImage(t, image), "data", "state.db"), synchronous)
	c.waitForLines(t, 200+rand.IntN(2500))
	lines := c.kill(t)
	copyFile(t, after, image)

	promised := acknowledged(t, lines)
	missing, err = lost(t.Context(), filepath.Join(mountImage(t, after), "data", "state.db"), promised)
	return len(promised), missing, err
}

// mountImage mounts the file system in a file until the end of the test. The loop device goes with the mount.
func mountImage(t *testing.T, image string) string {
	t.Helper()
	dir := image + ".mnt"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "mount", "-t", "ext4", "-o", "loop", image, dir).CombinedOutput()
	if err != nil {
		need(t, false, "a loop device with ext4 on it: "+string(out))
	}
	unmountLater(t, dir)
	return dir
}

// copyFile copies what is in the file at this moment, holes as holes.
func copyFile(t *testing.T, to, from string) {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	if _, err := io.Copy(dst, src); err != nil {
		t.Fatal(err)
	}
}
