// Package x11 drives one X display: it starts the server, captures what changes on the screen, follows the
// cursor, changes the screen's size and injects input.
package x11

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"penstock.dev/penstock/internal/media"
)

// ServerKind is a program that plays a display without a screen.
type ServerKind string

// The kinds. Xvfb has its greatest screen in memory from the start; Xvnc, with its VNC port closed, takes what the
// present one needs, and so can have larger ones.
const (
	Xvfb ServerKind = "xvfb"
	Xvnc ServerKind = "xvnc"
)

// Program is the name of the kind's program; empty for a kind that there is not.
func (k ServerKind) Program() string {
	return map[ServerKind]string{Xvfb: "Xvfb", Xvnc: "Xvnc"}[k]
}

// Package is the Debian package that has the program.
func (k ServerKind) Package() string {
	return map[ServerKind]string{Xvfb: "xvfb", Xvnc: "tigervnc-standalone-server"}[k]
}

// maxSize is the largest screen by default. Tiles count to 256 in each direction, and viewers take 64 million pixels.
func (k ServerKind) maxSize() media.Size {
	if k == Xvnc {
		return media.Size{Width: 7680, Height: 4320}
	}
	return media.Size{Width: 5120, Height: 2880}
}

// arguments are the kind's own, for screens up to size.
func (k ServerKind) arguments(size media.Size) []string {
	if k == Xvnc {
		// Nobody comes by VNC: no port, no socket, and the first message of one would be refused.
		return []string{
			"-geometry", "1280x800", "-depth", "24", "-rfbport", "-1", "-SecurityTypes", "None", "-AcceptSetDesktopSize=0",
		}
	}
	return []string{"-screen", "0", fmt.Sprintf("%dx%dx24", size.Width, size.Height)}
}

// ServerOptions says how to start an X server. Zero values work except for Dir.
type ServerOptions struct {
	// Dir is an existing directory that only this user can enter; the cookie file "Xauthority" goes there.
	Dir string
	// Kind is Xvfb by default.
	Kind ServerKind
	// Program is the X server; the kind's from PATH by default.
	Program string
	// MaxSize is the largest screen that Resize can make; 5120×2880 by default, with Xvnc 7680×4320.
	MaxSize media.Size
	Log     *slog.Logger
}

// Server is a running X server with a display and a cookie of its own. It dies with this process.
type Server struct {
	display int
	lock    displayLock
	cookie  []byte
	auth    string
	maxSize media.Size
	process *os.Process
	log     *slog.Logger

	done chan struct{} // closed when the process has ended
	err  error         // how it ended; set before done

	closing sync.Once
	closed  error // what Close found
}

const (
	readyTimeout = 20 * time.Second
	stopTimeout  = 3 * time.Second
	maxLogLine   = 1000
)

// StartServer starts an X server on a free display and returns when it accepts connections. ctx bounds the start
// only; Close ends the server.
func StartServer(ctx context.Context, o ServerOptions) (*Server, error) {
	display, lock, err := lockDisplay()
	if err != nil {
		return nil, err
	}
	s, err := launch(ctx, o, display, lock)
	if err != nil {
		return nil, errors.Join(err, lock.release())
	}
	return s, nil
}

func launch(ctx context.Context, o ServerOptions, display int, lock displayLock) (*Server, error) {
	if o.Kind == "" {
		o.Kind = Xvfb
	}
	if o.Kind.Program() == "" {
		return nil, fmt.Errorf("X server %q: there are xvfb and xvnc", o.Kind)
	}
	if o.Program == "" {
		o.Program = o.Kind.Program()
	}
	if o.MaxSize == (media.Size{}) {
		o.MaxSize = o.Kind.maxSize()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		cookie: make([]byte, 16), auth: filepath.Join(o.Dir, "Xauthority"),
		maxSize: o.MaxSize, log: o.Log, done: make(chan struct{}), display: display, lock: lock,
	}
	if _, err := rand.Read(s.cookie); err != nil {
		return nil, fmt.Errorf("make X cookie: %w", err)
	}
	if err := writeXauthority(s.auth, s.cookie); err != nil {
		return nil, err
	}
	ready, readyWrite, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Program, err)
	}
	defer ready.Close()
	stderr, stderrWrite, err := os.Pipe()
	if err != nil {
		_ = readyWrite.Close()
		return nil, fmt.Errorf("start %s: %w", o.Program, err)
	}
	cmd := exec.Command(o.Program, append(o.Kind.arguments(o.MaxSize), //nolint:noctx // it outlives the start; Close ends it
		s.Display(), "-displayfd", "3",
		"-noreset", // without it, modes vanish when the last client leaves
		"-nolisten", "tcp", "-nolisten", "local",
		"-auth", s.auth,
		"-dpi", "96",
		"+extension", "GLX", "+extension", "RANDR")...)
	cmd.Stderr = stderrWrite
	cmd.ExtraFiles = []*os.File{readyWrite}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error, 1)
	go func() {
		// The kernel sends the death signal when the thread that forked ends, so this one stays.
		runtime.LockOSThread()
		err := cmd.Start()
		_, _ = readyWrite.Close(), stderrWrite.Close()
		if err == nil {
			s.process = cmd.Process
		}
		started <- err
		if err == nil {
			s.err = cmd.Wait()
			close(s.done)
		}
	}()
	if err := <-started; err != nil {
		_ = stderr.Close()
		return nil, fmt.Errorf("start %s: %w", o.Program, err)
	}
	go logLines(stderr, o.Log)
	if err := s.awaitReady(ctx, ready); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", o.Program, err), s.Close())
	}
	s.log.Info("X server started", "display", s.Display(), "pid", s.process.Pid)
	return s, nil
}

// awaitReady reads the display's number, which the server writes when it accepts connections.
func (s *Server) awaitReady(ctx context.Context, ready *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	line, err := bufio.NewReader(io.LimitReader(ready, 16)).ReadString('\n')
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("wait until it is ready: %w", ctx.Err())
		}
		return errors.New("it ended before it was ready; its log says why")
	}
	if strings.TrimSpace(line) != strconv.Itoa(s.display) {
		return fmt.Errorf("it named display %q, want %d", line, s.display)
	}
	return nil
}

// logLines writes what the server prints to the log; lines are cut, none is kept.
func logLines(r io.ReadCloser, log *slog.Logger) {
	defer r.Close()
	lines := bufio.NewReaderSize(r, maxLogLine)
	for {
		line, more, err := lines.ReadLine()
		if err != nil {
			return
		}
		if text := strings.TrimSpace(string(line)); text != "" {
			log.Debug("X server wrote", "line", text)
		}
		for more && err == nil {
			_, more, err = lines.ReadLine()
		}
	}
}

// Display is the value for DISPLAY.
func (s *Server) Display() string { return ":" + strconv.Itoa(s.display) }

// Xauthority is the value for XAUTHORITY: the path of the file with the cookie.
func (s *Server) Xauthority() string { return s.auth }

// PID is the server's process.
func (s *Server) PID() int { return s.process.Pid }

// Done is closed when the server's process has ended.
func (s *Server) Done() <-chan struct{} { return s.done }

// Close ends the server and waits for its end. It may be called more than once.
func (s *Server) Close() error {
	_ = s.process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-s.done:
	case <-timer.C:
		_ = s.process.Kill()
		<-s.done
	}
	s.closing.Do(func() {
		s.closed = errors.Join(removeIfThere(socketPath(s.display)), s.lock.release())
	})
	return s.closed
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove what the X server left: %w", err)
	}
	return nil
}

// familyWild is the Xauthority family that fits every address.
const familyWild = 0xffff

// writeXauthority writes a file with one entry that fits every display: u16 family, then address, number,
// name and data, each with a u16 length, big-endian.
func writeXauthority(path string, cookie []byte) error {
	b := binary.BigEndian.AppendUint16(nil, familyWild)
	for _, field := range []string{"", "", cookieName, string(cookie)} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(field)))
		b = append(b, field...)
	}
	if err := removeIfThere(path); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write X cookie: %w", err)
	}
	if _, err := f.Write(b); err != nil {
		return errors.Join(fmt.Errorf("write X cookie: %w", err), f.Close())
	}
	return f.Close()
}
