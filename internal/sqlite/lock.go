package sqlite

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Lock takes dir, which must exist, for this process alone. The kernel releases it when the process ends, however it ends.
// The error says which process holds it. release may be called once.
func Lock(dir string) (release func() error, err error) {
	return lockFile(filepath.Join(dir, "lock"))
}

func lockFile(path string) (release func() error, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("%s is in use by %s", filepath.Dir(path), holder(f))
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err := errors.Join(f.Truncate(0), writeAt(f, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		return nil, fmt.Errorf("write process id to %s: %w", path, err)
	}
	// The file stays: unlinking it would let a third process lock a new one beside a second that waits for the old.
	return func() error { return errors.Join(f.Truncate(0), f.Close()) }, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// holder names the process in the lock file. It may have been locked a moment ago and still be empty.
func holder(f *os.File) string {
	text, err := io.ReadAll(io.LimitReader(f, 32))
	pid, convErr := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || convErr != nil {
		return "another process"
	}
	if pid == os.Getpid() {
		return "this process already"
	}
	return fmt.Sprintf("process %d", pid)
}
