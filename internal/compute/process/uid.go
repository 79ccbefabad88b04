package process

import (
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"penstock.dev/penstock/internal/compute/procfs"
)

// UIDs is the range of users that instances get when the server is root: from First on, Count of them.
type UIDs struct{ First, Count int }

// DefaultUIDs is 61000 to 61999: above those that systems give to people, below those that systemd uses.
func DefaultUIDs() UIDs { return UIDs{First: 61000, Count: 1000} }

// uidLock is a user that nobody else on this machine uses as long as the file is open, here or in the agent.
type uidLock struct {
	uid  int
	file *os.File
}

func (l *uidLock) release() { _ = l.file.Close() }

// lockUID takes one user, whether or not processes of it are left. It returns nil when another Penstock has it.
func lockUID(dir string, uid int) (*uidLock, error) {
	err := makePassable(filepath.Dir(dir))
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("lock users: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(uid)+".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock user %d: %w", uid, err)
	}
	switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		_ = f.Close()
		return nil, nil //nolint:nilnil // taken is an answer
	case err != nil:
		_ = f.Close()
		return nil, fmt.Errorf("lock user %d: %w", uid, err)
	}
	return &uidLock{uid: uid, file: f}, nil
}

// freeUID takes a user that has no name, no process and no other Penstock. seed spreads the tries.
func freeUID(dir string, ids UIDs, seed string) (*uidLock, error) {
	all, err := procfs.List()
	if err != nil {
		return nil, err
	}
	busy := make(map[int]bool)
	for _, p := range all {
		busy[p.UID] = true
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(seed))
	for i := range ids.Count {
		uid := ids.First + (int(h.Sum32()%uint32(ids.Count))+i)%ids.Count //nolint:gosec // Count is small
		if busy[uid] || uid < minUID {
			continue
		}
		if _, err := user.LookupId(strconv.Itoa(uid)); err == nil {
			continue
		}
		l, err := lockUID(dir, uid)
		if err != nil {
			return nil, err
		}
		if l == nil {
			continue
		}
		return l, nil
	}
	return nil, fmt.Errorf("no free user from %d to %d for an instance", ids.First, ids.First+ids.Count-1)
}
