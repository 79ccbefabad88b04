// Package sqlite keeps state in one SQLite file on a local disk.
//
// One goroutine writes: it runs everything that waits in one transaction, syncs once, and then answers all callers. Readers
// have connections of their own and see the last commit, or the one that was last when they began.
package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	modernc "modernc.org/sqlite"

	"penstock.dev/penstock/internal/state"
)

const (
	defaultKeepRevisions = 100_000
	changesPerCall       = 4096
)

// Options say where and how a Store keeps its documents.
type Options struct {
	Path          string       // of the database file; made, with its folder, when absent
	Log           *slog.Logger // nil: nothing is logged
	KeepRevisions int          // how many revisions the change feed reaches back at least; 0: 100,000

	synchronous string // of SQLite; "": FULL. Others lose acknowledged writes: they prove that the tests can tell
}

// Store implements state.Store. Its methods may be called concurrently.
type Store struct {
	path    string
	unlock  func() error
	turns   chan *turn // no buffer: whoever sends has been taken, and everybody else is still free to give up
	closing chan struct{}
	readers *readers
	written chan struct{} // closed when the writer has ended
	writer  writer

	closed   sync.Once
	closeErr error

	mu       sync.Mutex
	revision state.Revision // last committed
	changed  chan struct{}  // closed when revision moves
}

var _ state.Store = (*Store)(nil)

// Open opens the file, brings its schema up to date and starts the writer. It refuses a file that another process uses, that
// is on a network file system, or that a newer release wrote. ctx bounds the opening only.
func Open(ctx context.Context, o Options) (_ *Store, err error) {
	path, err := filepath.Abs(o.Path)
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	if o.Path == "" || o.KeepRevisions < 0 {
		return nil, errors.New("open state: no path, or a negative number of revisions to keep")
	}
	if o.KeepRevisions == 0 {
		o.KeepRevisions = defaultKeepRevisions
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.synchronous == "" {
		o.synchronous = "FULL"
	}
	s := &Store{
		path:    path,
		turns:   make(chan *turn),
		closing: make(chan struct{}),
		written: make(chan struct{}),
		changed: make(chan struct{}),
		readers: newReaders(path, max(8, 2*runtime.GOMAXPROCS(0))),
	}
	s.writer = writer{
		open: func() (*conn, error) { return openWriteConn(context.WithoutCancel(ctx), path, o.synchronous) },
		keep: state.Revision(o.KeepRevisions),
		log:  o.Log.With("state", path),
	}
	if s.unlock, err = prepareFile(path); err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	if err := s.prepare(ctx, o.synchronous); err != nil {
		return nil, errors.Join(fmt.Errorf("open state: %w", err), s.writer.close(), s.unlock())
	}
	s.revision = s.writer.revision
	go func() {
		defer close(s.written)
		s.writer.run(s.turns, s.closing, s.publish)
	}()
	return s, nil
}

// prepareFile makes the file with nobody else's eyes on it and takes it for this process.
func prepareFile(path string) (unlock func() error, err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := refuseNetworkFileSystem(dir); err != nil {
		return nil, err
	}
	unlock, err = lockFile(path + ".lock")
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = errors.Join(f.Close(), syncDir(dir))
	}
	if err != nil {
		return nil, errors.Join(err, unlock())
	}
	return unlock, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (s *Store) prepare(ctx context.Context, synchronous string) error {
	// fdatasync leaves out the file's time stamps, not its size: as durable, and half as long to wait for.
	if _, err := modernc.Fdatasync(true); err != nil {
		return err
	}
	c, err := openWriteConn(ctx, s.path, synchronous)
	if err != nil {
		return err
	}
	var mode string
	err = c.query(func(row []driver.Value) error {
		mode, _ = row[0].(string)
		return nil
	}, "PRAGMA journal_mode = WAL")
	if err == nil && mode != "wal" {
		err = fmt.Errorf("%s cannot be switched to a write-ahead log, only to %q", s.path, mode)
	}
	if err == nil {
		err = migrate(c)
	}
	if err := errors.Join(err, c.close()); err != nil {
		return err
	}
	return s.writer.connect()
}

// Close lets the transactions that have begun finish, and then closes the file. Everybody who waits gets state.ErrClosed.
func (s *Store) Close() error {
	s.closed.Do(func() {
		close(s.closing)
		<-s.written
		// The writer goes last: the last one out copies the log into the database.
		s.closeErr = errors.Join(s.readers.close(), s.writer.close(), s.unlock())
	})
	return s.closeErr
}

// View implements state.Store. A panic of fn goes on to the caller.
func (s *Store) View(ctx context.Context, fn func(state.Reader) error) error {
	return s.view(ctx, func(r *reader) error { return fn(r) })
}

func (s *Store) view(ctx context.Context, fn func(*reader) error) error {
	c, err := s.readers.take(ctx, s.closing)
	if err != nil {
		return err
	}
	defer func() { s.readers.put(c) }()
	c.failed = nil
	if err := c.exec("BEGIN"); err != nil {
		return err
	}
	r := &reader{conn: c, stop: ctx.Err}
	defer func() {
		r.stop = func() error { return errEnded }
		_ = c.exec("ROLLBACK") // its failure is noted, and put throws the connection away
	}()
	return fn(r)
}

// Update implements state.Store. Once fn has been called its result is returned, whatever becomes of ctx.
func (s *Store) Update(ctx context.Context, fn func(state.Tx) error) (state.Revision, error) {
	if err := s.alive(ctx); err != nil {
		return 0, err
	}
	t := &turn{fn: fn, done: make(chan struct{})}
	select {
	case s.turns <- t:
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-s.closing:
		return 0, state.ErrClosed
	}
	<-t.done
	return t.revision, t.err
}

// Changes implements state.Store.
func (s *Store) Changes(ctx context.Context, after state.Revision) ([]state.Change, error) {
	for {
		if err := s.alive(ctx); err != nil {
			return nil, err
		}
		revision, changed := s.committed()
		if revision != after {
			changes, err := s.changesAfter(ctx, after)
			if err != nil || len(changes) > 0 {
				return changes, err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
		case <-s.closing:
		}
	}
}

// changesAfter returns nothing when after is the newest revision.
func (s *Store) changesAfter(ctx context.Context, after state.Revision) ([]state.Change, error) {
	var changes []state.Change
	err := s.view(ctx, func(r *reader) error {
		oldest, err := r.conn.integer("SELECT min(revision) FROM change")
		if err != nil {
			return err
		}
		newest, err := newestRevision(r.conn)
		if err != nil {
			return err
		}
		if after < state.Revision(oldest)-1 || after > newest || after < 0 {
			return state.ErrCompacted
		}
		changes, err = readChanges(r.conn, "SELECT revision, kind, id, deleted FROM change WHERE revision > ? ORDER BY revision, kind, id LIMIT ?",
			int64(after), int64(changesPerCall+1))
		if err != nil || len(changes) <= changesPerCall {
			return err
		}
		// Cut the last revision off, which may be incomplete, or read it to its end if it is the only one.
		last := changes[len(changes)-1].Revision
		if changes[0].Revision == last {
			changes, err = readChanges(r.conn, "SELECT revision, kind, id, deleted FROM change WHERE revision = ? ORDER BY kind, id", int64(last))
			return err
		}
		for changes[len(changes)-1].Revision == last {
			changes = changes[:len(changes)-1]
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return changes, nil
}

func readChanges(c *conn, query string, args ...driver.Value) ([]state.Change, error) {
	var changes []state.Change
	err := c.query(func(row []driver.Value) error {
		changes = append(changes, state.Change{
			Revision: state.Revision(row[0].(int64)),
			Kind:     state.Kind(row[1].(string)),
			ID:       row[2].(string),
			Deleted:  row[3].(int64) != 0,
		})
		return nil
	}, query, args...)
	return changes, err
}

func (s *Store) alive(ctx context.Context) error {
	select {
	case <-s.closing:
		return state.ErrClosed
	default:
		return ctx.Err()
	}
}

func (s *Store) committed() (state.Revision, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.revision, s.changed
}

func (s *Store) publish(revision state.Revision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision = revision
	close(s.changed)
	s.changed = make(chan struct{})
}

// readers lends connections that read. At most cap(slots) are out; whoever comes then waits.
type readers struct {
	path  string
	slots chan struct{}

	mu   sync.Mutex
	idle []*conn
}

func newReaders(path string, n int) *readers {
	return &readers{path: path, slots: make(chan struct{}, n)}
}

func (r *readers) take(ctx context.Context, closing <-chan struct{}) (*conn, error) {
	select { // closing wins, so that close, which takes all slots, ends
	case <-closing:
		return nil, state.ErrClosed
	default:
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-closing:
		return nil, state.ErrClosed
	}
	r.mu.Lock()
	if n := len(r.idle); n > 0 {
		c := r.idle[n-1]
		r.idle = r.idle[:n-1]
		r.mu.Unlock()
		return c, nil
	}
	r.mu.Unlock()
	c, err := openConn(ctx, r.path, "busy_timeout = 5000", "query_only = ON", "cache_size = -4096")
	if err != nil {
		<-r.slots
		return nil, err
	}
	return c, nil
}

func (r *readers) put(c *conn) {
	if c.failed != nil {
		_ = c.close() // what it failed with was returned
	} else {
		r.mu.Lock()
		r.idle = append(r.idle, c)
		r.mu.Unlock()
	}
	<-r.slots
}

// close waits for those that are out. Nobody may take one from now on.
func (r *readers) close() error {
	for range cap(r.slots) {
		r.slots <- struct{}{}
	}
	var errs []error
	for _, c := range r.idle {
		errs = append(errs, c.close())
	}
	return errors.Join(errs...)
}
