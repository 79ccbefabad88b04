package process

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/compute/guest"
	"penstock.dev/penstock/internal/compute/procfs"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/wire/linkapi"
)

// instance is one agent and all that it runs. Its own goroutine (live) is the only one that ends it.
type instance struct {
	driver *Driver
	id     appstream.InstanceID
	log    *slog.Logger

	ready   chan struct{}              // closed when the agent said so; info and socket are set
	ending  chan struct{}              // closed by stop
	gone    chan struct{}              // closed when nothing is left; leftover is set
	answers chan error                 // the agent's answer to begin: begun or failed
	turn    chan struct{}              // holds an element while a begin is under way
	info    appstream.InstanceInfo     // before ready
	socket  string                     // before ready
	session chan appstream.SessionSpec // holds the session once begun

	mu       sync.Mutex
	link     *net.UnixConn // nil before the agent runs
	stopping bool
	code     uint16
	reason   string
	over     bool
	err      error // the first reason why it ended
	leftover error // what could not be removed
}

func (d *Driver) newInstance(id appstream.InstanceID) *instance {
	return &instance{
		driver: d, id: id, log: d.log.With("instance", string(id)),
		ready: make(chan struct{}), ending: make(chan struct{}), gone: make(chan struct{}),
		answers: make(chan error, 1), turn: make(chan struct{}, 1), session: make(chan appstream.SessionSpec, 1),
	}
}

func (in *instance) isReady() bool {
	select {
	case <-in.ready:
		return true
	default:
		return false
	}
}

// fail notes why the instance ends; the first reason counts.
func (in *instance) fail(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err == nil {
		in.err = err
	}
}

// why is nil while nothing went wrong.
func (in *instance) why() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.err
}

// boot starts the agent and hands the instance to its goroutine. It returns when the agent is ready, the instance is gone or ctx ends,
// which ends the instance too.
func (in *instance) boot(ctx context.Context) {
	d := in.driver
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-ctx.Done():
		in.fail(ctx.Err())
	case <-in.ending:
		in.fail(errors.New("stopped before it started"))
	}
	if in.why() != nil {
		in.bury(nil, record{}, nil)
		return
	}
	proc, rec, lock, err := in.spawn(ctx)
	if err != nil {
		in.fail(err)
		in.bury(nil, rec, lock)
		return
	}
	go in.live(proc, rec, lock)
	select {
	case <-in.ready:
	case <-in.gone:
	case <-ctx.Done():
		in.fail(fmt.Errorf("agent is not ready: %w", ctx.Err()))
		in.stop(appstream.EndInstanceFailed, "the instance did not start")
		<-in.gone
	}
}

// child is the agent's process.
type child struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when it was waited for
	stderr *relay

	profileFD int // where the agent finds its profile's file; 0: it makes none
}

// firstExtraFD is the number of the first file that a child gets beside the standard ones (os/exec).
const firstExtraFD = 3

// spawn makes user, folder, record and process of the instance.
func (in *instance) spawn(ctx context.Context) (*child, record, *uidLock, error) {
	d := in.driver
	rec := record{Instance: in.id, Folder: d.folder(in.id), Boot: bootID()}
	if n := len(rec.Folder) + len("/viewer.sock"); n > 107 {
		return nil, rec, nil, fmt.Errorf("runtime folder %s is too long for sockets", d.opts.RuntimeDir)
	}
	if err := d.stopRecorded(ctx, in.id); err != nil {
		return nil, record{}, nil, fmt.Errorf("end the instance's earlier life: %w", err)
	}
	if err := d.makeRuntimeDir(); err != nil {
		return nil, rec, nil, err
	}
	var lock *uidLock
	if d.root {
		var err error
		if lock, err = freeUID(usersDir, d.opts.UIDs, string(in.id)); err != nil {
			return nil, rec, nil, err
		}
		rec.UID = lock.uid
	}
	if err := d.records.put(rec); err != nil {
		return nil, rec, lock, err
	}
	if err := os.Mkdir(rec.Folder, 0o700); err != nil {
		return nil, rec, lock, fmt.Errorf("make the instance's folder: %w", err)
	}
	if lock != nil {
		if err := os.Chown(rec.Folder, lock.uid, lock.uid); err != nil {
			return nil, rec, lock, fmt.Errorf("hand over the instance's folder: %w", err)
		}
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, rec, lock, fmt.Errorf("make the agent's link: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "link"), os.NewFile(uintptr(fds[1]), "link")
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	_ = ours.Close()
	if err != nil {
		return nil, rec, lock, fmt.Errorf("make the agent's link: %w", err)
	}
	in.mu.Lock()
	in.link = conn.(*net.UnixConn) //nolint:forcetypeassert // a unix socket pair
	in.mu.Unlock()

	uid := "-1"
	files := []*os.File{theirs}
	if lock != nil {
		uid = strconv.Itoa(lock.uid)
		files = append(files, lock.file) // the user stays taken while the agent lives
	}
	profileFD := 0
	if dir := d.opts.ProfileDir; dir != "" {
		f, err := os.OpenFile(filepath.Join(dir, "agent-"+string(in.id)+".pprof"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			return nil, rec, lock, fmt.Errorf("make the agent's profile: %w", err)
		}
		defer f.Close()
		profileFD = firstExtraFD + len(files)
		files = append(files, f)
	}
	c := &child{profileFD: profileFD, exited: make(chan struct{}), stderr: &relay{log: in.log}}
	c.cmd = exec.Command(d.opts.Executable, "agent", "-confine", uid) //nolint:noctx // it lives as long as its link
	c.cmd.Args[0] = "penstock"
	c.cmd.Dir = rec.Folder
	c.cmd.Env = in.environ(rec)
	c.cmd.ExtraFiles = files
	c.cmd.Stderr = c.stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	c.cmd.WaitDelay = time.Second
	if err := c.cmd.Start(); err != nil {
		return nil, rec, lock, fmt.Errorf("start agent: %w", err)
	}
	rec.PID = c.cmd.Process.Pid
	if p, err := procfs.Get(rec.PID); err == nil {
		rec.Start = p.Start
	}
	go func() {
		_ = c.cmd.Wait()
		c.stderr.flush()
		close(c.exited)
	}()
	if err := d.records.put(rec); err != nil {
		in.fail(err) // live ends it
	}
	return c, rec, lock, nil
}

// environ is the agent's environment: what applications get as well, so nothing of the server's.
func (in *instance) environ(rec record) []string {
	place := guest.Place{Folder: rec.Folder, Home: rec.Folder + "/home"}
	return append(place.Environ(), in.driver.records.marker(in.id))
}

// live talks to the agent until its link or its process ends, then removes what is left.
func (in *instance) live(c *child, rec record, lock *uidLock) {
	if in.why() == nil {
		if err := in.send(&linkapi.Message{Configure: &linkapi.Configure{
			Instance: string(in.id), Folder: rec.Folder, Home: rec.Folder + "/home", OwnUser: rec.UID != 0,
			MaxWidth: in.driver.opts.MaxWidth, MaxHeight: in.driver.opts.MaxHeight, XServer: in.driver.opts.XServer, Debug: in.driver.opts.Debug,
			ProfileFD: c.profileFD,
		}}); err != nil {
			in.log.Debug("agent did not take its configuration", "error", err) // its end says why
		}
	}
	unlinked := make(chan struct{})
	go func() {
		defer close(unlinked)
		in.listen()
	}()
	select {
	case <-in.ending:
		in.mu.Lock()
		end := &linkapi.End{Code: in.code, Reason: in.reason}
		in.mu.Unlock()
		if err := in.send(&linkapi.Message{End: end}); err != nil {
			in.log.Debug("agent did not take the end", "error", err)
		}
	case <-unlinked:
	case <-c.exited:
	}
	select {
	case <-c.exited:
	case <-time.After(stopTime):
		in.log.Warn("agent did not end by itself")
		_ = c.cmd.Process.Kill()
		<-c.exited
	}
	_ = in.link.Close()
	<-unlinked
	if in.why() == nil && in.wanted() {
		in.fail(errors.New("instance was stopped"))
	}
	if in.why() == nil {
		in.fail(fmt.Errorf("agent ended (%s)%s", c.cmd.ProcessState, c.stderr.hint()))
	}
	in.bury(c, rec, lock)
}

// bury removes what is left of the instance, forgets it, and tells who waits.
func (in *instance) bury(c *child, rec record, lock *uidLock) {
	d := in.driver
	var err error
	if rec.Instance != "" {
		if err = d.sweep(rec); err == nil {
			err = d.records.remove(in.id)
		}
		if err != nil {
			in.log.Error("instance was not removed whole", "error", err)
		}
	}
	if lock != nil {
		lock.release()
	}
	wanted := in.wanted()
	in.mu.Lock()
	in.leftover = err
	if in.link != nil {
		_ = in.link.Close()
	}
	in.mu.Unlock()
	d.mu.Lock()
	delete(d.instances, in.id)
	d.mu.Unlock()
	if c != nil && in.isReady() && !wanted {
		in.log.Warn("agent is gone", "error", in.why())
		d.events.put(appstream.InstanceEvent{
			Instance: in.id, Session: in.sessionID(), Kind: appstream.InstanceGone,
			Code: appstream.EndInstanceFailed, Reason: "the instance failed",
		})
	}
	close(in.gone)
}

// wanted reports whether stop was called.
func (in *instance) wanted() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.stopping
}

func (in *instance) sessionID() appstream.SessionID {
	select {
	case s := <-in.session:
		in.session <- s
		return s.ID
	default:
		return ""
	}
}

// stop asks the agent to end. The first call's reason counts.
func (in *instance) stop(code appstream.EndCode, reason string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.stopping {
		return
	}
	in.stopping, in.code, in.reason = true, uint16(code), reason
	close(in.ending)
}

// send writes one message to the agent.
func (in *instance) send(m *linkapi.Message) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.link == nil {
		return errors.New("agent does not run")
	}
	if err := in.link.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return err
	}
	return linkapi.Write(in.link, m)
}

// listen takes the agent's messages until the link ends.
func (in *instance) listen() {
	r := bufio.NewReader(in.link)
	for {
		m, err := linkapi.Read(r)
		if err == nil {
			err = in.take(m)
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.ECONNRESET) {
				in.fail(fmt.Errorf("link of the agent: %w", err))
			}
			_ = in.link.CloseWrite() // the agent ends itself
			return
		}
	}
}

// take handles one message. An error ends the instance.
func (in *instance) take(m *linkapi.Message) error {
	switch {
	case m.Ready != nil && !in.isReady():
		if m.Ready.Socket != in.driver.folder(in.id)+"/viewer.sock" {
			return fmt.Errorf("agent serves viewers at %q", m.Ready.Socket)
		}
		in.socket = m.Ready.Socket
		in.info = appstream.InstanceInfo{
			PublicKey: m.Ready.PublicKey,
			Local:     &appstream.Local{Display: m.Ready.Display, Xauthority: m.Ready.Xauthority, PID: m.Ready.PID},
		}
		in.log.Info("instance is ready", "display", m.Ready.Display, "pid", m.Ready.PID)
		close(in.ready)
	case m.Failed != nil && !in.isReady():
		in.fail(errors.New(m.Failed.Reason))
		return io.EOF
	case m.Failed != nil:
		return in.answer(errors.New(m.Failed.Reason))
	case m.Begun != nil:
		return in.answer(nil)
	case m.Event != nil:
		return in.event(m.Event)
	default:
		return fmt.Errorf("%w: not from an agent", linkapi.ErrMessage)
	}
	return nil
}

func (in *instance) answer(err error) error {
	select {
	case in.answers <- err:
		return nil
	default:
		return fmt.Errorf("%w: answer without a question", linkapi.ErrMessage)
	}
}

// event passes on what the agent saw, of the session that runs here and of no other.
func (in *instance) event(e *linkapi.Event) error {
	kind, ok := map[linkapi.EventKind]appstream.InstanceEventKind{
		linkapi.Connected: appstream.ViewerConnected, linkapi.Disconnected: appstream.ViewerDisconnected, linkapi.Over: appstream.SessionOver,
	}[e.Kind]
	if !ok || appstream.SessionID(e.Session) != in.sessionID() {
		return fmt.Errorf("%w: event %q of session %q", linkapi.ErrMessage, e.Kind, e.Session)
	}
	in.mu.Lock()
	over := in.over
	in.over = over || kind == appstream.SessionOver
	in.mu.Unlock()
	if over {
		return nil // nothing follows the end of a session but the end of the instance
	}
	in.driver.events.put(appstream.InstanceEvent{
		Instance: in.id, Session: appstream.SessionID(e.Session), Kind: kind, Code: appstream.EndCode(e.Code), Reason: e.Reason,
	})
	return nil
}

// begin hands the session to the agent and waits for its answer.
func (in *instance) begin(ctx context.Context, s appstream.SessionSpec) error {
	if !in.isReady() {
		return fault.New(fault.NotAvailable, "instance", string(in.id), "has not started yet")
	}
	select {
	case in.turn <- struct{}{}:
		defer func() { <-in.turn }()
	case <-in.gone:
		return unknown(in.id)
	case <-ctx.Done():
		return ctx.Err()
	}
	first := in.sessionID() == ""
	if first {
		in.session <- s // before the agent knows it: its first event may be quicker than its answer
	} else if in.sessionID() != s.ID {
		return fault.New(fault.InUse, "instance", string(in.id), "runs another session")
	}
	err := in.send(&linkapi.Message{Begin: wireBegin(s)})
	if err == nil {
		select {
		case err = <-in.answers:
		case <-in.gone:
			err = in.why()
		case <-ctx.Done():
			err = ctx.Err()
			in.fail(fmt.Errorf("agent did not begin the session: %w", err))
			// Whether it begins is unknown now, and no instance serves two sessions.
			in.stop(appstream.EndInstanceFailed, "the application did not start")
			return err
		}
	}
	if err != nil && first {
		<-in.session
	}
	return err
}

func wireBegin(s appstream.SessionSpec) *linkapi.Begin {
	return &linkapi.Begin{
		Session: string(s.ID), UserID: s.UserID, Stack: s.Stack, Fleet: s.Fleet, Endpoint: string(s.Endpoint),
		Application: linkapi.Application{
			Name: s.Application.Name, DisplayName: s.Application.DisplayName,
			Command: s.Application.Command, WorkingDir: s.Application.WorkingDir,
		},
		ControlKey: s.ControlKey, DisconnectTimeout: s.DisconnectTimeout, IdleTimeout: s.IdleTimeout,
		EndsAt: s.EndsAt, DisplayPort: s.DisplayPort, Width: s.Width, Height: s.Height, Window: linkapi.Window(s.Window), Context: s.Context,
	}
}

// relay puts the lines that an agent logs into the server's log.
type relay struct {
	log *slog.Logger

	mu   sync.Mutex
	part []byte
	last string
}

const maxLine = 2 << 10

// Write never fails.
func (r *relay) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for rest := p; len(rest) > 0; {
		line, after, whole := strings.Cut(string(rest), "\n")
		rest = rest[len(rest)-len(after):]
		r.part = append(r.part, line[:min(len(line), maxLine-len(r.part))]...)
		if !whole {
			break
		}
		r.emit()
	}
	return len(p), nil
}

func (r *relay) flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.part) > 0 {
		r.emit()
	}
}

// emit logs the line with the agent's own level.
func (r *relay) emit() {
	line := string(r.part)
	r.part = r.part[:0]
	r.last = line
	level := slog.LevelInfo
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelWarn, slog.LevelError} {
		if strings.Contains(line, "level="+l.String()+" ") {
			level = l
		}
	}
	r.log.Log(context.Background(), level, "agent logged", "line", line)
}

// hint is the last line, for the reason of a failed start.
func (r *relay) hint() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == "" {
		return ""
	}
	return ": " + r.last
}
