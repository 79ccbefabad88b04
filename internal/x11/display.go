package x11

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Displays that servers started here take.
const (
	firstDisplay = 100
	lastDisplay  = 9999
)

// displayLock is the file by which X servers agree on who has a display: "%10d\n" of a process.
type displayLock string

func lockPath(display int) string { return fmt.Sprintf("/tmp/.X%d-lock", display) }

// lockDisplay takes the first free display. The X server could choose one itself, but then it takes no lock,
// and without its abstract socket it would take a display that another server has.
func lockDisplay() (int, displayLock, error) {
	for display := firstDisplay; display <= lastDisplay; display++ {
		path := lockPath(display)
		ok, err := takeLock(path)
		if err != nil {
			return 0, "", fmt.Errorf("lock an X display: %w", err)
		}
		if !ok {
			continue
		}
		if socketFree(socketPath(display)) {
			return display, displayLock(path), nil
		}
		if err := displayLock(path).release(); err != nil {
			return 0, "", err
		}
	}
	return 0, "", errors.New("lock an X display: all are taken")
}

// takeLock creates the lock file; false when a living process has it. A dead one's is taken over.
func takeLock(path string) (bool, error) {
	// Written first and linked then, so that nobody sees a lock without its process.
	f, err := os.CreateTemp("/tmp", ".penstock-X-lock-")
	if err != nil {
		return false, err
	}
	defer os.Remove(f.Name())
	_, err = fmt.Fprintf(f, "%10d\n", os.Getpid())
	if err := errors.Join(err, f.Chmod(0o444), f.Close()); err != nil {
		return false, err
	}
	for range 2 {
		err := os.Link(f.Name(), path)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, os.ErrExist) {
			return false, err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil || pid <= 0 || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return false, nil
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return false, nil // another user's; let it be
		}
	}
	return false, nil
}

// socketFree reports whether a server can make its socket here: nothing is there, or a dead server's that
// this user can remove.
func socketFree(path string) bool {
	if _, err := os.Lstat(path); errors.Is(err, os.ErrNotExist) {
		return true
	}
	if c, err := net.Dial("unix", path); err == nil { //nolint:noctx // a local socket that answers or refuses at once
		_ = c.Close()
		return false
	}
	return os.Remove(path) == nil
}

func (l displayLock) release() error { return removeIfThere(string(l)) }
