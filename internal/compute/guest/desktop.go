package guest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/xproto"

	"penstock.dev/penstock/internal/compute/procfs"
)

// Timing of "the application closed".
const (
	// lateWindow is how long a program that still runs may show no window once it has shown one: from a splash to the main window.
	lateWindow = 5 * time.Second
	// lastWindow is the same when the program that we started has ended: a window that goes with it may be the last by a moment only.
	lastWindow = 300 * time.Millisecond
	// firstWindow is how long the children of a program that ended may take to show a first window.
	firstWindow = 15 * time.Second
	// restarts of the window manager within its life.
	maxRestarts = 5
	// maxLaunches of programs on one desktop.
	maxLaunches = 100
)

// Desktop is one display with its window manager and the session's application. Its methods may be called concurrently.
type Desktop struct {
	place Place
	log   *slog.Logger
	conn  *xgb.Conn
	root  xproto.Window
	probe xproto.Window // never shown; the window manager answers questions about it
	atoms atoms

	wm      chan int       // pid of each window manager that was started
	windows chan int       // number of windows that the window manager manages, after each change
	begun   chan struct{}  // one element for each program that was launched
	exited  chan error     // how a launched program's first process ended
	over    chan Over      // one element: why the session is over
	done    chan struct{}  // closed by Close
	tasks   sync.WaitGroup // everything that the desktop runs

	mu       sync.Mutex
	launched int
	retired  bool
	closed   bool
}

// Over says why nothing is left to stream.
type Over struct {
	Failed bool   // the desktop failed; otherwise the application closed
	Reason string // in plain words
}

type atoms struct {
	clientList, frameExtents, requestFrameExtents, state, vertical, horizontal, undecorated, windowType, normal, transient xproto.Atom
}

// Open starts the window manager on a display that takes connections and returns when it manages the screen.
// The caller calls Close; processes may outlive it, EndAll ends them.
func Open(ctx context.Context, place Place, log *slog.Logger) (*Desktop, error) {
	d := &Desktop{
		place: place, log: log,
		wm: make(chan int, 1), windows: make(chan int, 1), over: make(chan Over, 1),
		begun: make(chan struct{}, maxLaunches), exited: make(chan error, maxLaunches), done: make(chan struct{}),
	}
	conn, err := xgb.NewConnDisplay(place.Display)
	if err != nil {
		return nil, fmt.Errorf("connect to display %s: %w", place.Display, err)
	}
	d.conn = conn
	managed := make(chan struct{})
	if err := d.prepareRoot(); err != nil {
		conn.Close()
		return nil, err
	}
	d.tasks.Go(func() { d.watchWindows(managed) })
	d.tasks.Go(d.judge)
	failed := make(chan error, 1)
	d.tasks.Go(func() { failed <- d.runWindowManager() })
	answered := make(chan error, 1)
	d.tasks.Go(func() { answered <- d.awaitManager(ctx, managed) })
	select {
	case err = <-answered:
		if err == nil {
			return d, nil
		}
		err = fmt.Errorf("wait for the window manager: %w", err)
	case err = <-failed:
		if err == nil {
			err = errors.New("window manager ended")
		}
	case o := <-d.over:
		err = errors.New(o.Reason)
	}
	d.Close()
	return nil, err
}

// Close lets go of the display and ends the window manager and the application's first process. It does not wait for other processes.
func (d *Desktop) Close() {
	d.mu.Lock()
	if !d.closed {
		d.closed = true
		close(d.done)
		d.conn.Close()
	}
	d.mu.Unlock()
	d.tasks.Wait()
}

// Retire asks the application and everything else on the desktop to end, and waits for that, at most for the grace period. The X server
// (its process) stays: programs need it to the end.
func (d *Desktop) Retire(grace time.Duration, server int) {
	d.mu.Lock()
	d.retired = true
	d.mu.Unlock()
	AskAll(grace, server)
}

// Over delivers once why nothing is left to stream. Nothing comes before Launch unless the desktop fails.
func (d *Desktop) Over() <-chan Over { return d.over }

func (d *Desktop) end(o Over) {
	select {
	case d.over <- o:
	default: // the first reason counts
	}
}

// prepareRoot makes the background plain and asks for news of the window list.
func (d *Desktop) prepareRoot() error {
	setup := xproto.Setup(d.conn)
	d.root = setup.DefaultScreen(d.conn).Root
	for name, atom := range map[string]*xproto.Atom{
		"_NET_CLIENT_LIST": &d.atoms.clientList, "_NET_FRAME_EXTENTS": &d.atoms.frameExtents,
		"_NET_REQUEST_FRAME_EXTENTS": &d.atoms.requestFrameExtents, "_NET_WM_STATE": &d.atoms.state,
		"_NET_WM_STATE_MAXIMIZED_VERT": &d.atoms.vertical, "_NET_WM_STATE_MAXIMIZED_HORZ": &d.atoms.horizontal,
		"_OB_WM_STATE_UNDECORATED": &d.atoms.undecorated, "_NET_WM_WINDOW_TYPE": &d.atoms.windowType,
		"_NET_WM_WINDOW_TYPE_NORMAL": &d.atoms.normal, "WM_TRANSIENT_FOR": &d.atoms.transient,
	} {
		r, err := xproto.InternAtom(d.conn, false, uint16(len(name)), name).Reply() //nolint:gosec // a short constant
		if err != nil {
			return fmt.Errorf("prepare display: %w", err)
		}
		*atom = r.Atom
	}
	const grey = 0x2b2f36
	err := xproto.ChangeWindowAttributesChecked(d.conn, d.root, xproto.CwBackPixel|xproto.CwEventMask,
		[]uint32{grey, xproto.EventMaskPropertyChange}).Check()
	if err != nil {
		return fmt.Errorf("prepare display: %w", err)
	}
	xproto.ClearArea(d.conn, false, d.root, 0, 0, 0, 0)
	if d.probe, err = xproto.NewWindowId(d.conn); err != nil {
		return fmt.Errorf("prepare display: %w", err)
	}
	err = xproto.CreateWindowChecked(d.conn, 0, d.probe, d.root, -10, -10, 1, 1, 0, xproto.WindowClassInputOnly, 0,
		xproto.CwOverrideRedirect|xproto.CwEventMask, []uint32{1, xproto.EventMaskPropertyChange}).Check()
	if err != nil {
		return fmt.Errorf("prepare display: %w", err)
	}
	return nil
}

// ask sends a message about a window to the window manager.
func (d *Desktop) ask(w xproto.Window, kind xproto.Atom, data ...uint32) {
	ev := xproto.ClientMessageEvent{
		Format: 32, Window: w, Type: kind, Data: xproto.ClientMessageDataUnionData32New(append(data, make([]uint32, 5-len(data))...)),
	}
	xproto.SendEvent(d.conn, false, d.root, xproto.EventMaskSubstructureNotify|xproto.EventMaskSubstructureRedirect, string(ev.Bytes()))
}

// awaitManager asks the window manager until it answers. That it says who it is comes long before: what windows ask of it in between,
// openbox may leave lying until the next event, and programs of the X Toolkit then wait for 5 s.
func (d *Desktop) awaitManager(ctx context.Context, answered <-chan struct{}) error {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		d.ask(d.probe, d.atoms.requestFrameExtents)
		select {
		case <-answered:
			return nil
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		case <-d.done:
			return nil
		}
	}
}

// watchWindows counts the windows after each change until the display ends.
func (d *Desktop) watchWindows(managed chan<- struct{}) {
	isManaged, had := false, false
	for {
		ev, xerr := d.conn.WaitForEvent()
		if ev == nil && xerr == nil {
			select {
			case <-d.done:
			default:
				d.end(Over{Failed: true, Reason: "the display of the session ended"})
			}
			return
		}
		p, ok := ev.(xproto.PropertyNotifyEvent)
		if !ok {
			continue
		}
		if p.Window == d.probe && p.Atom == d.atoms.frameExtents && !isManaged {
			isManaged = true
			close(managed)
		}
		if p.Window != d.root || p.Atom != d.atoms.clientList {
			continue
		}
		r, err := xproto.GetProperty(d.conn, false, d.root, d.atoms.clientList, xproto.AtomWindow, 0, 4096).Reply()
		if err != nil {
			continue // the next event, or the connection's end, tells more
		}
		n := len(r.Value) / 4
		if !had {
			had = d.fillScreen(r.Value)
		}
		select { // the newest number replaces one that was not read
		case <-d.windows:
		default:
		}
		d.windows <- n
	}
}

// fillScreen makes the first window that is no dialog as large as the screen, without a frame, and reports whether there was one.
func (d *Desktop) fillScreen(list []byte) bool {
	for ; len(list) >= 4; list = list[4:] {
		w := xproto.Window(xgb.Get32(list))
		kind, err := xproto.GetProperty(d.conn, false, w, d.atoms.windowType, xproto.AtomAtom, 0, 1).Reply()
		if err != nil || (len(kind.Value) >= 4 && xproto.Atom(xgb.Get32(kind.Value)) != d.atoms.normal) {
			continue
		}
		if parent, err := xproto.GetProperty(d.conn, false, w, d.atoms.transient, xproto.AtomWindow, 0, 1).Reply(); err != nil || len(parent.Value) > 0 {
			continue
		}
		const add = 1
		d.ask(w, d.atoms.state, add, uint32(d.atoms.undecorated))
		d.ask(w, d.atoms.state, add, uint32(d.atoms.vertical), uint32(d.atoms.horizontal))
		return true
	}
	return false
}

// runWindowManager keeps the window manager running: applications can end it, and a session without one is of no use.
func (d *Desktop) runWindowManager() error {
	path, err := LookPath("openbox")
	if err != nil {
		return errors.New("openbox not found: install package openbox")
	}
	config, err := d.place.writeOpenbox()
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		cmd := d.command(path, "--sm-disable", "--config-file", config)
		tail, err := d.launch(cmd)
		if err != nil {
			return fmt.Errorf("start window manager: %w", err)
		}
		select {
		case <-d.wm:
		default:
		}
		d.wm <- cmd.Process.Pid
		err = d.wait(cmd)
		d.mu.Lock()
		over := d.closed || d.retired
		d.mu.Unlock()
		if over {
			return nil
		}
		d.log.Warn("window manager ended", "error", err, "output", tail.String())
		if n == maxRestarts {
			d.end(Over{Failed: true, Reason: "the session's window manager does not run"})
			return fmt.Errorf("window manager: %w", err)
		}
	}
}

// command prepares a program of the instance: a process group of its own, nothing on its standard input.
func (d *Desktop) command(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...) //nolint:noctx // it ends with the instance: Close, then EndAll
	cmd.Env = d.place.Environ()
	cmd.Dir = d.place.Home
	cmd.SysProcAttr = group()
	return cmd
}

// launch starts the program and keeps the last that it and its children write to standard error. The pipe stays open for as long as one
// of them lives: a closed one would kill the writer.
func (d *Desktop) launch(cmd *exec.Cmd) (*tail, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		_ = r.Close()
		return nil, err
	}
	t := new(tail)
	read := make(chan struct{})
	d.tasks.Go(func() {
		defer close(read)
		_, _ = io.Copy(t, r)
	})
	d.tasks.Go(func() {
		select {
		case <-read:
		case <-d.done:
		}
		_ = r.Close()
	})
	return t, nil
}

// wait waits for the program; when the desktop closes first, it ends the program.
func (d *Desktop) wait(cmd *exec.Cmd) error {
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-d.done:
			_ = cmd.Process.Kill()
		case <-ended:
		}
	}()
	return cmd.Wait()
}

// Program is what Launch starts.
type Program struct {
	Name       string // what users call it
	Command    []string
	WorkingDir string   // the home folder when empty or not there
	Env        []string // beside the instance's environment, NAME=value
}

// Launch starts an application of the session, beside those that run. It returns when the program runs; Over tells when the last one closed.
func (d *Desktop) Launch(p Program) error {
	if len(p.Command) == 0 {
		return errors.New("application has no command")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed || d.retired:
		return errors.New("the session's desktop is closed")
	case d.launched == maxLaunches:
		return fmt.Errorf("%d applications were started in this session; that is the limit", maxLaunches)
	}
	path, err := d.lookPath(p.Command[0])
	if err != nil {
		return err
	}
	cmd := d.command(path, p.Command[1:]...)
	cmd.Args[0] = p.Command[0]
	cmd.Env = append(cmd.Env, p.Env...)
	if st, err := os.Stat(p.WorkingDir); err == nil && st.IsDir() {
		cmd.Dir = p.WorkingDir
	}
	tail, err := d.launch(cmd)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	d.launched++
	d.begun <- struct{}{}
	d.tasks.Go(func() {
		err := d.wait(cmd)
		if err != nil {
			// What programs say may hold the user's file names.
			d.log.Info("application ended", "error", err)
			d.log.Debug("application said", "output", tail.String())
		}
		d.exited <- err
	})
	return nil
}

// lookPath finds a program on the path that applications have.
func (d *Desktop) lookPath(name string) (string, error) {
	path, err := LookPath(name)
	if err != nil {
		return "", fmt.Errorf("application %q is not installed: %w", name, err)
	}
	return path, nil
}

// judge decides when the application has closed: its last window is gone, or all its processes ended before there was one.
func (d *Desktop) judge() {
	var (
		windows, most int
		began, ended  int // programs
		exitErr       error
		deadline      <-chan time.Time
		wm            []int
	)
	reason := func() string {
		switch {
		case most == 0 && exitErr != nil:
			return fmt.Sprintf("the application ended before it opened a window (%v)", exitErr)
		case most == 0:
			return "the application ended before it opened a window"
		}
		return "the application closed"
	}
	for {
		wait := time.Duration(-1)
		select {
		case <-d.done:
			return
		case <-d.begun:
			began++
		case pid := <-d.wm:
			wm = append(wm, pid)
			continue
		case windows = <-d.windows:
			most = max(most, windows)
		case err := <-d.exited:
			ended++
			exitErr = cmp.Or(exitErr, err)
		case <-deadline:
			if most == 0 && d.others(wm) > 0 {
				// Something without windows was left running in the background: that is not an application any more.
				d.log.Info("application left processes without a window")
			}
			d.end(Over{Reason: reason()})
			return
		}
		hasExited := ended == began
		switch {
		case began == 0 || windows > 0:
		case most > 0 && hasExited:
			wait = lastWindow
			if d.others(wm) > 0 {
				wait = lateWindow
			}
		case most > 0:
			wait = lateWindow
		case hasExited && d.others(wm) == 0:
			wait = lastWindow // its last window event may still be under way
		case hasExited:
			wait = firstWindow
		}
		deadline = nil
		if wait >= 0 {
			deadline = time.After(wait)
		}
	}
}

// others counts the processes that the application left: descendants of the agent that are neither the X server, nor the window manager.
func (d *Desktop) others(wm []int) (n int) {
	all, err := procfs.List()
	if err != nil {
		return 0
	}
	for _, p := range procfs.Descendants(all, os.Getpid()) {
		if p.State != 'Z' && !slices.Contains(wm, p.PID) && procfs.HasEnv(p.PID, "DISPLAY="+d.place.Display) {
			n++
		}
	}
	return n
}

// tail keeps the last bytes that a program wrote.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailSize = 2 << 10

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p[max(0, len(p)-tailSize):]...)
	if extra := len(t.b) - tailSize; extra > 0 {
		t.b = slices.Delete(t.b, 0, extra)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
