// Package process runs instances as child processes of the server: one agent an instance, and below it the X server, the window
// manager and the application. Where the server is root, each instance has a user of its own.
package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
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
)

// Bounds of a driver's waits.
const (
	startTime    = 15 * time.Second // for an instance to become ready
	beginTime    = 15 * time.Second // for its application to start
	stopTime     = 3 * time.Second  // for its agent to end by itself
	lockTime     = 2 * time.Second  // for the user of a dead agent to become free
	shutdownTime = 4500 * time.Millisecond
	writeTime    = 2 * time.Second // for the agent to take a message
)

// Options of a driver. Zero values work, but DataDir must be set.
type Options struct {
	DataDir    string // records of running instances; one server at a time uses it
	RuntimeDir string // folders of running instances, homes included; below /run or /var/lib for root, else below the temporary folder
	Executable string // the penstock binary; this process's own by default
	UIDs       UIDs   // users for instances when the server is root
	MaxWidth   uint16 // greatest screen; 0: the agent's default
	MaxHeight  uint16
	XServer    string // xvfb or xvnc; empty: the agent's default
	Debug      bool   // agents log more
	ProfileDir string // folder for processor profiles of agents, one a file; empty: none are made
	Log        *slog.Logger
}

// Driver runs instances. It implements appstream.Compute. Whoever makes one calls Recover once and then Run.
type Driver struct {
	opts    Options
	log     *slog.Logger
	root    bool
	records *records
	events  *queue
	slots   chan struct{} // a place for each start at the same time: more of them only wait for each other

	recovering sync.Mutex // one at a time

	mu        sync.Mutex
	closed    bool
	instances map[appstream.InstanceID]*instance
}

var _ appstream.Compute = (*Driver)(nil)

// New opens the data directory and starts nothing.
func New(o Options) (*Driver, error) {
	if o.DataDir == "" {
		return nil, errors.New("instances need a data directory")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Executable == "" {
		o.Executable = self
	}
	if o.UIDs == (UIDs{}) {
		o.UIDs = DefaultUIDs()
	}
	if o.RuntimeDir == "" {
		o.RuntimeDir = defaultRuntimeDir()
	}
	r, err := openRecords(o.DataDir)
	if err != nil {
		return nil, err
	}
	return &Driver{
		opts: o, log: o.Log, root: os.Geteuid() == 0, records: r, events: newQueue(),
		slots: make(chan struct{}, max(2, runtime.GOMAXPROCS(0))), instances: make(map[appstream.InstanceID]*instance),
	}, nil
}

// usersDir holds the locks of all users that instances on this machine have, whichever server runs them.
const usersDir = "/run/penstock/users"

// defaultRuntimeDir has room for the homes of users: where /run is kept in memory, it is elsewhere.
func defaultRuntimeDir() string {
	if os.Geteuid() == 0 {
		var fs unix.Statfs_t
		if err := unix.Statfs("/run", &fs); err == nil && fs.Type == unix.TMPFS_MAGIC {
			return "/var/lib/penstock/instances"
		}
		return "/run/penstock/instances"
	}
	return filepath.Join(os.TempDir(), "penstock-"+strconv.Itoa(os.Getuid()))
}

var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,39}$`)

// folderPattern is what records.folderName makes.
var folderPattern = regexp.MustCompile(`^[0-9a-f]{8}-[A-Za-z0-9][A-Za-z0-9-]{0,39}$`)

// validID keeps instance IDs usable as file names.
func validID(id appstream.InstanceID) bool { return idPattern.MatchString(string(id)) }

// Run blocks until ctx ends and then ends every instance. Afterwards no instance starts any more.
func (d *Driver) Run(ctx context.Context) error {
	<-ctx.Done()
	d.mu.Lock()
	d.closed = true
	ids := make([]appstream.InstanceID, 0, len(d.instances))
	for id := range d.instances {
		ids = append(ids, id)
	}
	d.mu.Unlock()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	errs := make([]error, len(ids))
	var all sync.WaitGroup
	for i, id := range ids {
		all.Go(func() { errs[i] = d.Stop(stop, id, appstream.EndShutdown, "the server shuts down") })
	}
	all.Wait()
	return errors.Join(errs...)
}

// Recover removes what instances of an earlier server left on this machine. Instances of this driver stay.
func (d *Driver) Recover(ctx context.Context) error {
	d.recovering.Lock()
	defer d.recovering.Unlock()
	recs, err := d.records.list(d.damaged)
	errs := []error{err}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, rec := range recs {
		if d.get(rec.Instance) != nil {
			continue
		}
		all.Go(func() {
			err := d.recover(ctx, rec)
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		})
	}
	all.Wait()
	d.endStrays()
	d.removeStrays(recs)
	return errors.Join(errs...)
}

func (d *Driver) damaged(id appstream.InstanceID, err error) {
	d.log.Error("record of an instance was damaged and is removed", "instance", id, "error", err)
}

// endStrays kills processes that carry the mark of this data directory and of no instance that runs.
func (d *Driver) endStrays() {
	all, err := procfs.List()
	if err != nil {
		return
	}
	for _, p := range all {
		value, ok := procfs.Env(p.PID, guest.Marker)
		id, ours := strings.CutPrefix(value, d.records.id+"/")
		if !ok || !ours || d.get(appstream.InstanceID(id)) != nil {
			continue
		}
		d.log.Warn("process of an earlier server found", "pid", p.PID, "instance", id)
		if err := p.Signal(syscall.SIGKILL); err != nil {
			d.log.Warn("process of an earlier server could not be killed", "pid", p.PID, "error", err)
		}
	}
}

// recover ends what is left of one recorded instance.
func (d *Driver) recover(ctx context.Context, rec record) error {
	d.log.Info("instance of an earlier server found", "instance", rec.Instance)
	if agent, ok := rec.agent(); ok {
		// Its link has ended with its server: it is about to end everything by itself.
		for end := time.Now().Add(stopTime); agent.Alive() && time.Now().Before(end) && ctx.Err() == nil; {
			time.Sleep(10 * time.Millisecond)
		}
		if err := agent.Signal(syscall.SIGKILL); err != nil {
			return err
		}
		for end := time.Now().Add(stopTime); agent.Alive() && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
		}
	}
	if rec.UID != 0 {
		l, err := lockUID(usersDir, rec.UID)
		// An agent that was killed holds it until its last thread is gone, a moment after the process counts as ended.
		for end := time.Now().Add(lockTime); err == nil && l == nil && time.Now().Before(end) && ctx.Err() == nil; {
			time.Sleep(5 * time.Millisecond)
			l, err = lockUID(usersDir, rec.UID)
		}
		if err != nil {
			return err
		}
		if l == nil {
			// Another server's instance has this user now, so nothing of ours can be left of it: a user with processes is not given away.
			rec.UID = 0
		} else {
			defer l.release()
		}
	}
	if rec.Boot != bootID() {
		rec.UID = 0 // nothing runs any more, and the user may be another's
	}
	if err := d.sweep(rec); err != nil {
		return err
	}
	return d.records.remove(rec.Instance)
}

// removeStrays removes folders of this data directory without a record, and those of other data directories that nobody uses any more:
// their server was killed and never came back.
func (d *Driver) removeStrays(recs []record) {
	known := make(map[string]bool)
	for _, rec := range recs {
		known[rec.Folder] = true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	folders, _ := filepath.Glob(filepath.Join(d.opts.RuntimeDir, d.records.id[:8]+"-*"))
	for _, f := range folders {
		if !known[f] && d.instances[appstream.InstanceID(filepath.Base(f)[9:])] == nil {
			_ = os.RemoveAll(f)
		}
	}
	if d.root {
		d.removeAbandoned()
	}
}

// removeAbandoned removes folders whose user no server has locked and no process runs under.
func (d *Driver) removeAbandoned() {
	entries, _ := os.ReadDir(d.opts.RuntimeDir)
	for _, e := range entries {
		path := filepath.Join(d.opts.RuntimeDir, e.Name())
		st, err := os.Lstat(path)
		if err != nil || !st.IsDir() || !folderPattern.MatchString(e.Name()) {
			continue
		}
		sys, ok := st.Sys().(*syscall.Stat_t)
		if !ok || int(sys.Uid) < minUID {
			continue
		}
		l, err := lockUID(usersDir, int(sys.Uid))
		if err != nil || l == nil {
			continue
		}
		all, err := procfs.List()
		if err == nil && !slices.ContainsFunc(all, func(p procfs.Process) bool { return p.UID == int(sys.Uid) }) {
			d.log.Info("folder of an abandoned instance was removed", "folder", path)
			_ = os.RemoveAll(path)
		}
		l.release()
	}
}

func (d *Driver) get(id appstream.InstanceID) *instance {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.instances[id]
}

// folder is where the instance lives. Short: a socket's path has at most 107 bytes.
func (d *Driver) folder(id appstream.InstanceID) string {
	return filepath.Join(d.opts.RuntimeDir, d.records.folderName(id))
}

// makeRuntimeDir makes the folder of all instances' folders and refuses one that others control.
func (d *Driver) makeRuntimeDir() error {
	if err := makePassable(filepath.Dir(d.opts.RuntimeDir)); err != nil {
		return fmt.Errorf("make runtime folder: %w", err)
	}
	mode := fs.FileMode(0o700)
	if d.root {
		mode = 0o711 // instances' users pass through, and see nothing
		for dir := filepath.Dir(d.opts.RuntimeDir); ; dir = filepath.Dir(dir) {
			if st, err := os.Stat(dir); err != nil || st.Mode()&0o001 == 0 {
				return fmt.Errorf("runtime folder %s is of no use: other users cannot pass through %s", d.opts.RuntimeDir, dir)
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	err := os.Mkdir(d.opts.RuntimeDir, mode)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make runtime folder: %w", err)
	}
	st, err := os.Lstat(d.opts.RuntimeDir)
	if err != nil {
		return fmt.Errorf("make runtime folder: %w", err)
	}
	if !st.IsDir() || !ownedBy(d.opts.RuntimeDir, os.Geteuid()) {
		return fmt.Errorf("runtime folder %s belongs to somebody else", d.opts.RuntimeDir)
	}
	if err := os.Chmod(d.opts.RuntimeDir, mode); err != nil {
		return fmt.Errorf("make runtime folder: %w", err)
	}
	if d.root {
		// X servers of ordinary users cannot make this one, or would own it.
		if err := os.Mkdir(socketDir, 0o700); err == nil {
			if err := os.Chmod(socketDir, 0o777|fs.ModeSticky); err != nil {
				return fmt.Errorf("make folder of X sockets: %w", err)
			}
		}
	}
	return nil
}

// makePassable makes a folder and those above it where they are missing, for all users to pass through whatever our umask is.
func makePassable(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := makePassable(parent); err != nil {
			return err
		}
	}
	err := os.Mkdir(dir, 0o755) //nolint:gosec // instances' users pass through
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Chmod(dir, 0o755) //nolint:gosec // the same
}

// Start boots an instance. An instance that runs already is answered with what it is.
func (d *Driver) Start(ctx context.Context, spec appstream.InstanceSpec) (appstream.InstanceInfo, error) {
	if !validID(spec.ID) {
		return appstream.InstanceInfo{}, fault.Newf(fault.Malformed, "instance", string(spec.ID), "must match %s", idPattern)
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return appstream.InstanceInfo{}, fault.New(fault.NotAvailable, "instance", string(spec.ID), "the server shuts down")
	}
	in, running := d.instances[spec.ID]
	if !running {
		in = d.newInstance(spec.ID)
		d.instances[spec.ID] = in
	}
	d.mu.Unlock()
	if !running {
		in.boot(ctx) // one of the first two cases is true afterwards; what ended the instance says more than ctx
		ctx = context.WithoutCancel(ctx)
	}
	select {
	case <-in.ready:
		return in.info, nil
	case <-in.gone:
		return appstream.InstanceInfo{}, fmt.Errorf("start instance %s: %w", spec.ID, in.why())
	case <-ctx.Done():
		return appstream.InstanceInfo{}, fmt.Errorf("start instance %s: %w", spec.ID, ctx.Err())
	}
}

// Running removes what earlier servers left and lists the instances that this one has.
func (d *Driver) Running(ctx context.Context) ([]appstream.InstanceID, error) {
	if err := d.Recover(ctx); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	ids := make([]appstream.InstanceID, 0, len(d.instances))
	for id := range d.instances {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids, nil
}

// Begin starts the session's application: the first one, or a further one of the same session. Another session is refused.
func (d *Driver) Begin(ctx context.Context, id appstream.InstanceID, s appstream.SessionSpec) error {
	in := d.get(id)
	if in == nil {
		return unknown(id)
	}
	ctx, cancel := context.WithTimeout(ctx, beginTime)
	defer cancel()
	if err := in.begin(ctx, s); err != nil {
		return fmt.Errorf("begin session %s on instance %s: %w", s.ID, id, err)
	}
	return nil
}

func unknown(id appstream.InstanceID) error {
	return fault.New(fault.NotFound, "instance", string(id), "does not run here")
}

// Stop ends the instance and returns when nothing of it is left.
func (d *Driver) Stop(ctx context.Context, id appstream.InstanceID, code appstream.EndCode, reason string) error {
	in := d.get(id)
	if in == nil {
		return d.stopRecorded(ctx, id)
	}
	in.stop(code, reason)
	select {
	case <-in.gone:
		if err := in.leftover; err != nil {
			return fmt.Errorf("stop instance %s: %w", id, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop instance %s: %w", id, ctx.Err())
	}
}

// stopRecorded ends what is left of an instance that could not be ended whole before.
func (d *Driver) stopRecorded(ctx context.Context, id appstream.InstanceID) error {
	if !validID(id) {
		return nil
	}
	rec, err := d.records.get(id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return d.recover(ctx, rec)
}

// Dial opens a connection to the instance's agent.
func (d *Driver) Dial(ctx context.Context, id appstream.InstanceID) (net.Conn, error) {
	in := d.get(id)
	if in == nil {
		return nil, unknown(id)
	}
	select {
	case <-in.ready:
	default:
		return nil, fault.New(fault.NotAvailable, "instance", string(id), "has not started yet")
	}
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "unix", in.socket)
	if err != nil {
		return nil, fmt.Errorf("dial agent of instance %s: %w", id, err)
	}
	return c, nil
}

// Next waits for the next event. Of an instance whose viewer came and went meanwhile, only the latest news is kept.
func (d *Driver) Next(ctx context.Context) (appstream.InstanceEvent, error) {
	return d.events.next(ctx)
}

// queue holds events that nobody took yet: of each instance one about its viewer, one end of its session, one end of itself.
type queue struct {
	wake chan struct{} // has one element while the list may hold something

	mu   sync.Mutex
	list []appstream.InstanceEvent
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

func (q *queue) put(e appstream.InstanceEvent) {
	viewer := func(k appstream.InstanceEventKind) bool {
		return k == appstream.ViewerConnected || k == appstream.ViewerDisconnected
	}
	q.mu.Lock()
	for i, old := range q.list {
		if old.Instance == e.Instance && (old.Kind == e.Kind || (viewer(old.Kind) && viewer(e.Kind))) {
			q.list = append(q.list[:i], q.list[i+1:]...)
			break
		}
	}
	q.list = append(q.list, e)
	q.mu.Unlock()
	q.notify()
}

func (q *queue) notify() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) next(ctx context.Context) (appstream.InstanceEvent, error) {
	for {
		q.mu.Lock()
		if len(q.list) > 0 {
			e := q.list[0]
			q.list = q.list[1:]
			more := len(q.list) > 0
			q.mu.Unlock()
			if more {
				q.notify()
			}
			return e, nil
		}
		q.mu.Unlock()
		select {
		case <-q.wake:
		case <-ctx.Done():
			return appstream.InstanceEvent{}, ctx.Err()
		}
	}
}
