package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"time"

	"penstock.dev/penstock/internal/state"
)

const (
	maxBatch         = 1024 // turns in one transaction
	checkpointWrites = 1024 // written turns after which the log is copied into the database
	trimStep         = 4096 // revisions of the feed removed by one transaction at most
	slowBatch        = 5 * time.Second
)

var errExited = errors.New("transaction's function ended its goroutine")

// turn is one call of Update: its function, and when done is closed what came of it.
type turn struct {
	fn       func(state.Tx) error
	revision state.Revision
	err      error
	done     chan struct{}
}

// writer commits everything that waits in one transaction. Only its own goroutine touches it.
type writer struct {
	open     func() (*conn, error)
	keep     state.Revision // revisions that the feed reaches back
	log      *slog.Logger
	conn     *conn          // nil after a failed transaction: what it left behind is unknown
	revision state.Revision // last committed
	oldest   state.Revision // in the feed; 0 when it is empty
	pending  int            // written turns since the last checkpoint
	broken   error          // why nothing can be promised any more
}

// connect opens the connection when there is none and learns where the file stands.
func (w *writer) connect() error {
	if w.conn != nil {
		return nil
	}
	c, err := w.open()
	if err != nil {
		return err
	}
	w.revision, err = newestRevision(c)
	if err != nil {
		return errors.Join(err, c.close())
	}
	oldest, err := c.integer("SELECT min(revision) FROM change")
	if err != nil {
		return errors.Join(err, c.close())
	}
	w.conn, w.oldest = c, state.Revision(oldest)
	return nil
}

func (w *writer) close() error {
	if w.conn == nil || w.broken != nil {
		return w.broken
	}
	return w.conn.close()
}

// run takes turns until closing is closed. Those that it took it finishes. committed is called after each commit, before the
// callers learn of it.
func (w *writer) run(turns <-chan *turn, closing <-chan struct{}, committed func(state.Revision)) {
	batch := make([]*turn, 0, maxBatch)
	for {
		batch = batch[:0]
		select {
		case t := <-turns:
			batch = append(batch, t)
		case <-closing:
			return
		}
		// Callers that got their answer a moment ago are about to come back: let them.
		runtime.Gosched()
		for waiting := true; waiting && len(batch) < maxBatch; {
			select {
			case t := <-turns:
				batch = append(batch, t)
			default:
				waiting = false
			}
		}
		w.batch(batch, committed)
		w.checkpoint()
	}
}

// batch runs the turns, commits what they wrote and answers. When the commit fails all of them fail: each may have read what
// another one wrote.
func (w *writer) batch(turns []*turn, committed func(state.Revision)) {
	before := w.revision
	err := w.transact(turns)
	if err != nil {
		w.abandon(err)
		for _, t := range turns {
			t.revision, t.err = 0, err
		}
	}
	if w.revision != before {
		committed(w.revision)
	}
	for _, t := range turns {
		close(t.done)
	}
}

func (w *writer) transact(turns []*turn) error {
	if w.broken != nil {
		return w.broken
	}
	if err := w.connect(); err != nil {
		return err
	}
	watch := time.AfterFunc(slowBatch, func() {
		w.log.Warn("a transaction took long; its function must not wait for other transactions", "turns", len(turns))
	})
	defer watch.Stop()
	w.conn.failed = nil
	if err := w.conn.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	revision := w.revision
	var aborted error
	for next := 0; next < len(turns) && aborted == nil; {
		// A function may end the goroutine that runs it (a test's FailNow does). Then the rest goes on in a new one.
		done := make(chan struct{})
		go func() {
			defer close(done)
			for next < len(turns) && aborted == nil {
				t := turns[next]
				next++
				w.turn(t, &revision, &aborted)
			}
		}()
		<-done
	}
	if aborted != nil {
		return aborted
	}
	oldest, err := w.trim(revision)
	if err != nil {
		return err
	}
	if err := w.conn.exec("COMMIT"); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	w.pending += int(revision - w.revision)
	w.revision, w.oldest = revision, oldest
	return nil
}

// turn runs one function. An error of it undoes what it wrote; aborted is set when that was impossible.
func (w *writer) turn(t *turn, revision *state.Revision, aborted *error) {
	x := &tx{revision: *revision + 1}
	x.conn, x.stop = w.conn, func() error { return w.conn.failed }
	t.err = errExited
	defer func() {
		x.stop = func() error { return errEnded }
		if p := recover(); p != nil {
			w.log.Error("a transaction's function panicked", "panic", p, "stack", string(debug.Stack()))
			t.err = fmt.Errorf("transaction's function panicked: %v", p)
		}
		if w.conn.failed != nil {
			t.err = w.conn.failed
		}
		switch {
		case t.err == nil && x.wrote:
			t.err = w.conn.exec("RELEASE turn")
			*aborted = t.err
			*revision = x.revision
		case x.wrote:
			w.conn.failed = nil
			*aborted = errors.Join(w.conn.exec("ROLLBACK TO turn"), w.conn.exec("RELEASE turn"))
		case w.conn.failed != nil:
			*aborted = w.conn.failed
		}
		if t.err == nil {
			t.revision = *revision
		}
	}()
	t.err = t.fn(x)
}

// trim removes the end of the feed and returns its new oldest revision.
func (w *writer) trim(newest state.Revision) (state.Revision, error) {
	oldest := w.oldest
	if oldest == 0 && newest > w.revision {
		oldest = w.revision + 1
	}
	to := min(newest-w.keep, oldest+trimStep) // last revision to go
	if newest == w.revision || to-oldest < min(w.keep/8, trimStep/8) {
		return oldest, nil
	}
	if err := w.conn.exec("DELETE FROM change WHERE revision <= ?", int64(to)); err != nil {
		return 0, fmt.Errorf("trim change feed: %w", err)
	}
	return to + 1, nil
}

// abandon gives the connection up after a failure, so that the next transaction starts from what the file says.
func (w *writer) abandon(err error) {
	if w.broken != nil {
		return
	}
	if lostSync(err) {
		// The connection stays open until the process ends: the last one to close copies the log into the database and
		// removes it, and a sync that succeeds now proves nothing.
		w.broken = fmt.Errorf("state can no longer be made durable; restart after the disk was repaired: %w", err)
		w.log.Error("state could not be made durable", "error", err)
		return
	}
	if w.conn == nil {
		return
	}
	_ = w.conn.exec("ROLLBACK") // fails when the database did it by itself
	if err := w.conn.close(); err != nil {
		w.log.Warn("connection did not close", "error", err)
	}
	w.conn = nil
}

// checkpoint copies the log into the database after the callers got their answers, and tells of failures, both of which
// the automatic one does not do.
func (w *writer) checkpoint() {
	if w.conn == nil || w.broken != nil || w.pending < checkpointWrites {
		return
	}
	w.pending = 0
	err := w.conn.exec("PRAGMA wal_checkpoint(PASSIVE)")
	switch {
	case err == nil:
	case lostSync(err):
		w.abandon(err)
	default:
		w.log.Error("log could not be copied into the database", "error", err)
	}
}

// openWriteConn opens the connection that writes.
func openWriteConn(ctx context.Context, path, synchronous string) (*conn, error) {
	return openConn(ctx, path,
		"busy_timeout = 5000",
		"synchronous = "+synchronous,
		"wal_autocheckpoint = 0",
		"journal_size_limit = 67108864",
		"cache_size = -16384",
	)
}
