package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/compute/procfs"
)

// Adopt makes this process the parent of whatever its descendants leave behind, so that EndAll finds all of them.
func Adopt() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the parent of orphans: %w", err)
	}
	return nil
}

// Shield keeps other processes of the same user from tracing the agent or reading its memory, where keys are.
func Shield() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("shield the agent's memory: %w", err)
	}
	return nil
}

// reapAfter is how long an ended child waits for its own owner, who is told at once; the orphans that we adopted have none.
const reapAfter = time.Second

// Reap buries adopted orphans until ctx ends. Children that some part of this program started and waits for are left to it.
func Reap(ctx context.Context) {
	chld := make(chan os.Signal, 1)
	signal.Notify(chld, syscall.SIGCHLD)
	defer signal.Stop(chld)
	seen := make(map[int]uint64) // zombies of the look before: pid to start time
	var again <-chan time.Time   // set while there are zombies
	for {
		select {
		case <-ctx.Done():
			return
		case <-chld:
			if again == nil {
				again = time.After(reapAfter)
			}
			continue
		case <-again:
			again = nil
		}
		all, err := procfs.List()
		if err != nil {
			continue
		}
		now := make(map[int]uint64)
		for _, p := range all {
			if p.PPID != os.Getpid() || p.State != 'Z' {
				continue
			}
			if start, ok := seen[p.PID]; ok && start == p.Start {
				_, _ = unix.Wait4(p.PID, nil, unix.WNOHANG, nil)
				continue
			}
			now[p.PID] = p.Start
		}
		if seen = now; len(seen) > 0 {
			again = time.After(reapAfter)
		}
	}
}

// AskAll asks every descendant but one (0: none) to end and waits for them, at most for the grace period.
func AskAll(grace time.Duration, but int) {
	ask := syscall.SIGTERM
	for end := time.Now().Add(grace); signalAll(ask, but) > 0 && time.Now().Before(end); ask = 0 {
		time.Sleep(10 * time.Millisecond)
	}
}

// EndAll ends every descendant by force and returns when none is left, or after 3 s with what still is. With ownUser, everything
// else that runs under this process's uid ends as well. The caller starts nothing meanwhile.
func EndAll(ownUser bool) error {
	for end := time.Now().Add(3 * time.Second); ; {
		if ownUser && os.Getuid() > 0 {
			// One call for all: not even a fork bomb is quicker. It spares the caller.
			_ = unix.Kill(-1, unix.SIGKILL)
		}
		left := signalAll(syscall.SIGKILL, 0)
		if left == 0 && noChildren() {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d processes of the instance do not end", left)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// signalAll signals all descendants but one and counts them.
func signalAll(sig syscall.Signal, but int) (left int) {
	all, err := procfs.List()
	if err != nil {
		return 1
	}
	for _, p := range procfs.Descendants(all, os.Getpid()) {
		if p.State != 'Z' && p.PID != but {
			left++
			_ = p.Signal(sig)
		}
	}
	return left
}

// noChildren reaps what has ended and reports whether no child is left.
func noChildren() bool {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.ECHILD):
			return true
		case errors.Is(err, unix.EINTR) || (err == nil && pid > 0):
			continue
		default:
			return false
		}
	}
}
