package rootless

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// linkVariable tells the process inside which descriptors its link and its lifeline are.
const linkVariable = "PENSTOCK_ROOTLESS_LINK"

// stopPatience is how long the process inside may take to end after the signal; then it is killed.
const stopPatience = 10 * time.Second

// ErrNotAllowed says that this machine lets the user make no user namespace.
var ErrNotAllowed = errors.New("user namespaces are not allowed here")

// Run starts a command in a user, a network and a mount namespace of its own and lives as long as it does, opening sockets of
// the machine's network for it. The end of ctx asks it to end (SIGTERM). When this process ends, however it ends, the
// kernel kills the command; its namespaces end with it.
//
// The command's user is the caller's, with the capabilities that networks need and no way to be another user; root's command may
// be every user that root may be. The error is *exec.ExitError when the command failed.
func Run(ctx context.Context, cmd *exec.Cmd) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a link to the namespaces: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "link"), os.NewFile(uintptr(fds[1]), "link")
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	_ = ours.Close() // conn has its own
	if err != nil {
		return fmt.Errorf("make a link to the namespaces: %w", err)
	}
	defer conn.Close()
	link, ok := conn.(*net.UnixConn)
	if !ok {
		return errors.New("make a link to the namespaces: not a Unix socket")
	}
	theirLife, ourLife, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a link to the namespaces: %w", err)
	}
	defer theirLife.Close()
	defer ourLife.Close()

	first := 3 + len(cmd.ExtraFiles)
	cmd.ExtraFiles = append(cmd.ExtraFiles, theirs, theirLife)
	plain, err := withoutCapabilities(cmd.Path)
	if err != nil {
		return err
	}
	if plain != nil {
		defer plain.Close()
		cmd.Path = fmt.Sprintf("/proc/self/fd/%d", first+2)
		cmd.ExtraFiles = append(cmd.ExtraFiles, plain)
	}
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, linkVariable+"="+strconv.Itoa(first))
	if cmd.SysProcAttr, err = namespaces(); err != nil {
		return err
	}
	// The kernel kills the command when the thread that started it ends, so this one stays.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return notAllowed(err)
	}
	_, _ = theirs.Close(), theirLife.Close() // so that the link ends with the command
	served := make(chan struct{})
	go func() {
		defer close(served)
		serveSockets(link)
	}()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	kill := context.AfterFunc(ctx, func() {
		time.AfterFunc(stopPatience, func() { _ = cmd.Process.Kill() }) // of a process that was waited for: nothing happens
	})
	defer kill()
	err = cmd.Wait()
	_ = link.Close()
	<-served
	return err
}

// withoutCapabilities is a copy in memory of a program whose file gives capabilities (setcap, for port 443); nil when it gives none. Such
// a file takes from whoever executes it the capabilities that it does not give.
func withoutCapabilities(program string) (*os.File, error) {
	if n, err := unix.Getxattr(program, "security.capability", nil); err != nil || n == 0 {
		return nil, nil //nolint:nilnil // files without the attribute, and file systems without attributes, give nothing
	}
	// Who executed it may not be looked at by others, and the kernel counts the child's maps of users as such a look.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("prepare for namespaces: %w", err)
	}
	src, err := os.Open(program)
	if err != nil {
		return nil, fmt.Errorf("copy the program: %w", err)
	}
	defer src.Close()
	fd, err := unix.MemfdCreate("penstock", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // kernels before 6.3 know no MFD_EXEC, and need none
		fd, err = unix.MemfdCreate("penstock", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("copy the program: %w", err)
	}
	written := os.NewFile(uintptr(fd), "penstock")
	defer written.Close()
	if _, err := written.ReadFrom(src); err != nil {
		return nil, fmt.Errorf("copy the program: %w", err)
	}
	// A file that is open for writing cannot be executed.
	copied, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return nil, fmt.Errorf("copy the program: %w", err)
	}
	return copied, nil
}

// namespaces is how the process inside is made: for root with all users that root has, otherwise with the caller alone.
func namespaces() (*syscall.SysProcAttr, error) {
	attr := &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
		Pdeathsig:  syscall.SIGKILL,
		Setpgid:    true, // a terminal's Ctrl-C comes to this process, which passes it on
	}
	if os.Geteuid() != 0 {
		uid, gid := os.Geteuid(), os.Getegid()
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
		// Somebody else than root keeps capabilities beyond exec only this way. Agents give them up.
		attr.AmbientCaps = []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW, unix.CAP_NET_BIND_SERVICE, unix.CAP_SYS_ADMIN}
		return attr, nil
	}
	var err error
	if attr.UidMappings, err = sameIDs("/proc/self/uid_map"); err != nil {
		return nil, err
	}
	if attr.GidMappings, err = sameIDs("/proc/self/gid_map"); err != nil {
		return nil, err
	}
	groups, err := os.ReadFile("/proc/self/setgroups")
	attr.GidMappingsEnableSetgroups = err == nil && strings.TrimSpace(string(groups)) == "allow"
	return attr, nil
}

// sameIDs maps every ID that this namespace has to itself. A line is: first ID here, first ID outside, how many.
func sameIDs(path string) ([]syscall.SysProcIDMap, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the IDs of this namespace: %w", err)
	}
	var out []syscall.SysProcIDMap
	for line := range strings.Lines(string(b)) {
		var first, outside, n int
		if _, err := fmt.Sscan(line, &first, &outside, &n); err != nil {
			return nil, fmt.Errorf("read the IDs of this namespace: %q in %s: %w", line, path, err)
		}
		out = append(out, syscall.SysProcIDMap{ContainerID: first, HostID: first, Size: n})
	}
	return out, nil
}

// settingsOf user namespaces: what must be there for an ordinary user to make one.
func settingsOf() []struct{ path, bad, fix string } {
	return []struct{ path, bad, fix string }{
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"},
		{"/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=15000"},
		{"/proc/sys/user/max_net_namespaces", "0", "user.max_net_namespaces=15000"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"},
	}
}

// notAllowed says what an operator can do where a namespace could not be made.
func notAllowed(err error) error {
	errno, ok := errors.AsType[syscall.Errno](err)
	switch {
	case !ok:
		return err
	case errno == unix.EINVAL:
		return fmt.Errorf("%w: this kernel has none (CONFIG_USER_NS); use --net loopback", ErrNotAllowed)
	case errno != unix.EPERM && errno != unix.ENOSPC && errno != unix.EUSERS && errno != unix.EACCES:
		return fmt.Errorf("start in namespaces of its own: %w", err)
	}
	for _, s := range settingsOf() {
		if b, readErr := os.ReadFile(s.path); readErr == nil && strings.TrimSpace(string(b)) == s.bad {
			return fmt.Errorf("%w: to allow them, run: sudo sysctl -w %s (or use --net loopback)", ErrNotAllowed, s.fix)
		}
	}
	if errno == unix.ENOSPC {
		return fmt.Errorf("%w: there are too many of them; to allow more, run: sudo sysctl -w user.max_user_namespaces=100000 (or use --net loopback)", ErrNotAllowed)
	}
	return fmt.Errorf("%w (%w): a container or a security module forbids them to this process; use --net loopback", ErrNotAllowed, err)
}

// Inside is the machine's network, for a process that Run started; nil for any other.
func Inside() (*Host, error) {
	value := os.Getenv(linkVariable)
	if value == "" {
		return nil, nil //nolint:nilnil // outside there is none, which is no failure
	}
	if err := os.Unsetenv(linkVariable); err != nil {
		return nil, err
	}
	first, err := strconv.Atoi(value)
	if err != nil || first < 3 {
		return nil, fmt.Errorf("%s=%q is not a descriptor", linkVariable, value)
	}
	// Nothing that is started here may keep them open.
	syscall.CloseOnExec(first)
	syscall.CloseOnExec(first + 1)
	if own, err := os.Readlink("/proc/self/exe"); err == nil && strings.HasPrefix(own, "/memfd:") {
		_ = syscall.Close(first + 2)                               // the copy that Run executed
		_ = os.WriteFile("/proc/self/comm", []byte("penstock"), 0) // it would be listed by the number of that
	}
	f := os.NewFile(uintptr(first), "link")
	conn, err := net.FileConn(f)
	_ = f.Close() // conn has its own
	if err != nil {
		return nil, fmt.Errorf("open the link to the machine's network: %w", err)
	}
	link, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("open the link to the machine's network: not a Unix socket"), conn.Close())
	}
	if err := syscall.SetNonblock(first+1, true); err != nil { // so that reading it holds no thread
		return nil, errors.Join(fmt.Errorf("open the link to the machine's network: %w", err), conn.Close())
	}
	return &Host{link: link, lifeline: os.NewFile(uintptr(first+1), "lifeline")}, nil
}
