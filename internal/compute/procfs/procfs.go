// Package procfs looks at this machine's processes and signals exactly those that it looked at.
package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Process is one process as it was seen. PID and Start together name it for as long as the machine runs.
type Process struct {
	PID   int
	PPID  int
	UID   int    // of the /proc entry: the effective user, 0 for a process that may not be dumped
	State byte   // 'Z' is a process that has ended and waits for its parent
	Start uint64 // clock ticks since boot
}

// List returns all processes that are visible.
func List() ([]Process, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var all []Process
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		p, err := Get(pid)
		if err != nil {
			continue // it ended meanwhile
		}
		all = append(all, p)
	}
	return all, nil
}

// Get looks at one process. A process that is no more gives an error that is fs.ErrNotExist.
func Get(pid int) (Process, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, syscall.ESRCH) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return Process{}, err
	}
	p, err := parseStat(stat)
	if err != nil {
		return Process{}, err
	}
	p.PID = pid
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if errors.Is(err, syscall.ESRCH) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return Process{}, err
	}
	p.UID, err = parseUID(status)
	return p, err
}

// parseUID reads the real user from /proc/PID/status, which stays right for processes that may not be dumped.
func parseUID(status []byte) (int, error) {
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("Uid:")); ok {
			if f := bytes.Fields(rest); len(f) > 0 {
				return strconv.Atoi(string(f[0]))
			}
		}
	}
	return 0, errors.New("no Uid line in status")
}

// parseStat reads /proc/PID/stat. The name in parentheses may hold anything, parentheses too.
func parseStat(stat []byte) (Process, error) {
	end := bytes.LastIndexByte(stat, ')')
	if end < 0 {
		return Process{}, errors.New("stat without a name")
	}
	f := bytes.Fields(stat[end+1:])
	// state ppid pgrp session tty tpgid flags minflt cminflt majflt cmajflt utime stime cutime cstime priority nice threads itrealvalue starttime
	if len(f) < 20 || len(f[0]) != 1 {
		return Process{}, errors.New("stat is too short")
	}
	ppid, err := strconv.Atoi(string(f[1]))
	if err != nil {
		return Process{}, fmt.Errorf("stat's parent: %w", err)
	}
	start, err := strconv.ParseUint(string(f[19]), 10, 64)
	if err != nil {
		return Process{}, fmt.Errorf("stat's start time: %w", err)
	}
	return Process{PPID: ppid, State: f[0][0], Start: start}, nil
}

// HasEnv reports whether the process was started with this variable ("NAME=value"). False where we may not look.
func HasEnv(pid int, assignment string) bool {
	name, want, _ := strings.Cut(assignment, "=")
	value, ok := Env(pid, name)
	return ok && value == want
}

// Env returns a variable that the process was started with. False where it has none or we may not look.
func Env(pid int, name string) (string, bool) {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return "", false
	}
	for v := range bytes.SplitSeq(env, []byte{0}) {
		if value, ok := bytes.CutPrefix(v, []byte(name+"=")); ok {
			return string(value), true
		}
	}
	return "", false
}

// Descendants returns those of all that descend from root, root itself excluded.
func Descendants(all []Process, root int) []Process {
	children := make(map[int][]Process)
	for _, p := range all {
		children[p.PPID] = append(children[p.PPID], p)
	}
	var found []Process
	seen := map[int]bool{root: true}
	for next := []int{root}; len(next) > 0; {
		pid := next[0]
		next = next[1:]
		for _, p := range children[pid] {
			if !seen[p.PID] {
				seen[p.PID] = true
				found = append(found, p)
				next = append(next, p.PID)
			}
		}
	}
	return found
}

// Signal sends sig to this very process: never to another one that got its number. A process that is no more is no error.
func (p Process) Signal(sig syscall.Signal) error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open process %d: %w", p.PID, err)
	}
	defer unix.Close(fd)
	now, err := Get(p.PID)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && now.Start != p.Start) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at process %d: %w", p.PID, err)
	}
	if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal process %d: %w", p.PID, err)
	}
	return nil
}

// Alive reports whether this very process still runs; a zombie does not.
func (p Process) Alive() bool {
	now, err := Get(p.PID)
	return err == nil && now.Start == p.Start && now.State != 'Z' && now.State != 'X'
}
