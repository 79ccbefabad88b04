package process

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Limits of what runs in an instance.
const (
	maxProcesses = 2048 // of the instance's uid, threads counted
	maxFiles     = 4096 // a process
	oomScore     = 500  // when memory is short, a session goes before the server
)

// Confine gives up what an instance must not have and becomes args, this same binary, with a new process image: the user (uid < 0 keeps it), all
// supplementary groups, all capabilities, the way to get any (setuid files), core files, and files that others can read. It returns
// only when it cannot do so.
func Confine(uid int, args []string) error {
	// Users, groups and no_new_privs belong to the thread; exec makes this thread the only one.
	runtime.LockOSThread()
	syscall.Umask(0o077)
	if err := lower(unix.RLIMIT_CORE, 0); err != nil {
		return err
	}
	if err := lower(unix.RLIMIT_NOFILE, maxFiles); err != nil {
		return err
	}
	// Where the kernel does not let us: sessions are then not the first to go.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(oomScore)), 0)
	program := self
	if uid >= 0 {
		var err error
		if program, err = executable(); err != nil {
			return err
		}
		if err := lower(unix.RLIMIT_NPROC, maxProcesses); err != nil {
			return err
		}
		if err := becomeUser(uid); err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("give up capabilities: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("renounce new privileges: %w", err)
	}
	err := syscall.Exec(program, args, os.Environ())
	return fmt.Errorf("start the agent as user %d: %w", unix.Getuid(), err)
}

// executable returns a path by which other users can execute this binary: a copy in memory when its own mode keeps them out.
func executable() (string, error) {
	src, err := os.Open(self)
	if err != nil {
		return "", fmt.Errorf("open the binary: %w", err)
	}
	defer src.Close()
	if st, err := src.Stat(); err != nil || st.Mode()&0o001 != 0 {
		return self, err
	}
	fd, err := unix.MemfdCreate("penstock", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // kernels before 6.3 know no MFD_EXEC, and need none
		fd, err = unix.MemfdCreate("penstock", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return "", fmt.Errorf("copy the binary: %w", err)
	}
	// fd itself stays open until exec; the file that writes to it does not.
	writer, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("copy the binary: %w", err)
	}
	dst := os.NewFile(uintptr(writer), "penstock")
	defer dst.Close()
	if _, err := io.Copy(dst, src); err != nil {
		return "", fmt.Errorf("copy the binary: %w", err)
	}
	if err := dst.Chmod(0o555); err != nil {
		return "", fmt.Errorf("copy the binary: %w", err)
	}
	return fmt.Sprintf("/proc/self/fd/%d", fd), nil
}

// self is this process's binary, wherever it lies: also below a folder that its user cannot enter.
const self = "/proc/self/exe"

// becomeUser changes user and group of this thread for good.
func becomeUser(uid int) error {
	if uid == 0 {
		return errors.New("an instance does not run as root")
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
			break // the kernel knows no more of them; or has none to give, and then there is nothing to drop
		} else if err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); e != 0 {
		return fmt.Errorf("leave all groups: %w", e)
	}
	id := uintptr(uid)
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, id, id, id); e != 0 {
		return fmt.Errorf("become group %d: %w", uid, e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, id, id, id); e != 0 {
		return fmt.Errorf("become user %d: %w", uid, e)
	}
	return nil
}

// lower lowers both limits of a resource to at most n.
func lower(resource int, n uint64) error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(resource, &l); err != nil {
		return fmt.Errorf("read limit %d: %w", resource, err)
	}
	l.Max = min(l.Max, n)
	l.Cur = min(l.Cur, l.Max)
	if resource == unix.RLIMIT_NOFILE {
		l.Cur = min(l.Cur, 1024) // programs with select(2) rely on it; who needs more may raise it
	}
	if err := syscall.Setrlimit(resource, &l); err != nil {
		return fmt.Errorf("set limit %d: %w", resource, err)
	}
	return nil
}

// EndUser ends every process of this process's user but itself, and must only run as a user that an instance has for itself.
func EndUser() error {
	if uid := unix.Getuid(); uid < minUID {
		return fmt.Errorf("user %d is not an instance's own", uid)
	}
	if err := unix.Kill(-1, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end the user's processes: %w", err)
	}
	return nil
}

// minUID guards EndUser against users of people and services.
const minUID = 10000
