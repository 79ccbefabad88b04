package process

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/compute/procfs"
)

const (
	socketDir  = "/tmp/.X11-unix" // X servers put their sockets there
	sweepTime  = 5 * time.Second  // for the processes of one instance to end
	helperTime = 2 * time.Second  // for the helper that ends all of a user's; one by one is the other way
)

// sweep ends every process of an instance whose agent is gone, and removes what they left on the machine.
func (d *Driver) sweep(rec record) error {
	marker := d.records.marker(rec.Instance)
	killed := make(map[int]bool)
	errProcesses := d.endProcesses(rec, marker, killed)
	if errProcesses != nil {
		return errProcesses // what they use stays until they are gone
	}
	removeDisplays(owner(rec))
	if rec.UID != 0 {
		removeFiles(rec.UID)
	}
	removeIPC(func(uid, creator int) bool {
		if rec.UID != 0 {
			return uid == rec.UID
		}
		return uid == os.Getuid() && killed[creator]
	})
	if err := os.RemoveAll(rec.Folder); err != nil {
		return fmt.Errorf("remove folder of instance %s: %w", rec.Instance, err)
	}
	return nil
}

func owner(rec record) int {
	if rec.UID != 0 {
		return rec.UID
	}
	return os.Getuid()
}

// endProcesses kills until two looks in a row find nothing: a process that starts carries its mark only a moment later.
func (d *Driver) endProcesses(rec record, marker string, killed map[int]bool) error {
	for end, clean := time.Now().Add(sweepTime), 0; clean < 2; {
		if rec.UID != 0 {
			d.endUser(rec.UID)
		}
		all, err := procfs.List()
		if err != nil {
			return err
		}
		left := 0
		for _, p := range all {
			mine := rec.UID != 0 && p.UID == rec.UID
			if p.State == 'Z' || p.PID == os.Getpid() || (!mine && !procfs.HasEnv(p.PID, marker)) {
				continue
			}
			left++
			killed[p.PID] = true
			if err := p.Signal(syscall.SIGKILL); err != nil {
				d.log.Warn("process of an instance could not be killed", "instance", rec.Instance, "pid", p.PID, "error", err)
			}
		}
		if left == 0 {
			clean++
			continue
		}
		clean = 0
		if time.Now().After(end) {
			return fmt.Errorf("%d processes of instance %s do not end", left, rec.Instance)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// endUser kills everything of the user in one call, made as that user.
func (d *Driver) endUser(uid int) {
	all, err := procfs.List()
	if err == nil {
		n := 0
		for _, p := range all {
			if p.UID == uid && p.State != 'Z' {
				n++
			}
		}
		if n == 0 {
			return
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), helperTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.opts.Executable, "agent", "-end-user")
	cmd.Env = []string{}
	cmd.Dir = "/"
	id := uint32(uid) //nolint:gosec // from our own range
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: id, Gid: id}}
	if out, err := cmd.CombinedOutput(); err != nil {
		d.log.Warn("processes of an instance's user were not ended in one call", "uid", uid, "error", err, "output", string(out))
	}
}

// removeDisplays removes lock and socket of the user's X servers that run no more.
func removeDisplays(uid int) {
	locks, _ := filepath.Glob("/tmp/.X*-lock")
	for _, lock := range locks {
		b, err := os.ReadFile(lock)
		if err != nil || !ownedBy(lock, uid) {
			continue
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err == nil {
			if p, err := procfs.Get(pid); err == nil && p.State != 'Z' && p.UID == uid {
				continue
			}
		}
		n := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(lock), ".X"), "-lock")
		removeSocket(filepath.Join(socketDir, "X"+n), uid)
		_ = os.Remove(lock)
	}
	sockets, _ := filepath.Glob(socketDir + "/X*")
	for _, s := range sockets {
		lock := "/tmp/." + filepath.Base(s) + "-lock"
		if _, err := os.Lstat(lock); errors.Is(err, os.ErrNotExist) {
			removeSocket(s, uid)
		}
	}
}

// removeSocket removes a socket of the user that nobody listens on.
func removeSocket(path string, uid int) {
	if !ownedBy(path, uid) {
		return
	}
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil {
		_ = c.Close()
		return
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		_ = os.Remove(path)
	}
}

func ownedBy(path string, uid int) bool {
	st, err := os.Lstat(path)
	if err != nil {
		return false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && int(sys.Uid) == uid
}

// removeFiles removes what the instance's own user left in the folders that everybody may write.
func removeFiles(uid int) {
	for _, dir := range []string{"/tmp", "/var/tmp", "/dev/shm", "/tmp/.ICE-unix", "/tmp/.X11-unix"} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			if path != socketDir && path != "/tmp/.ICE-unix" && ownedBy(path, uid) {
				_ = os.RemoveAll(path)
			}
		}
	}
}

// removeIPC removes System V shared memory, semaphores and queues that mine accepts by owner and creating process (0: unknown).
func removeIPC(mine func(uid, creator int) bool) {
	for _, kind := range []struct {
		file       string
		id, uid    string
		creator    string
		removeCall uintptr
	}{
		{"shm", "shmid", "uid", "cpid", unix.SYS_SHMCTL},
		{"sem", "semid", "uid", "", unix.SYS_SEMCTL},
		{"msg", "msqid", "uid", "", unix.SYS_MSGCTL},
	} {
		b, err := os.ReadFile("/proc/sysvipc/" + kind.file)
		if err != nil {
			continue
		}
		for _, row := range parseTable(b) {
			uid, creator := row[kind.uid], row[kind.creator]
			if !mine(uid, creator) {
				continue
			}
			if kind.file == "sem" { // semctl(id, number, command)
				_, _, _ = unix.Syscall(kind.removeCall, uintptr(row[kind.id]), 0, unix.IPC_RMID)
			} else { // shmctl(id, command, buffer)
				_, _, _ = unix.Syscall(kind.removeCall, uintptr(row[kind.id]), unix.IPC_RMID, 0)
			}
		}
	}
}

// parseTable reads a table of numbers under a line of column names.
func parseTable(b []byte) (rows []map[string]int) {
	lines := bufio.NewScanner(bytes.NewReader(b))
	if !lines.Scan() {
		return nil
	}
	names := strings.Fields(lines.Text())
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) != len(names) {
			continue
		}
		row := make(map[string]int, len(names))
		for i, name := range names {
			if n, err := strconv.Atoi(f[i]); err == nil {
				row[name] = n
			}
		}
		rows = append(rows, row)
	}
	return rows
}
