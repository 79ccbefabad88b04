package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"penstock.dev/penstock/internal/state"
)

// loop brings resources of one sort to their desired state, one call a resource at a time.
// It starts from a listing, is woken by the change feed, retries errors with a growing delay and never drops a wish.
type loop struct {
	name    string
	store   state.Store
	log     *slog.Logger
	workers int
	// list returns the IDs of all resources; it runs at start and when the feed was compacted.
	list func(r state.Reader) ([]string, error)
	// wake returns the resource that a change concerns, or "".
	wake func(r state.Reader, c state.Change) (string, error)
	// handle brings one resource nearer to what is wanted. It is called again after the returned time when that is not zero.
	handle func(ctx context.Context, id string) (time.Duration, error)
}

const (
	minRetry = 200 * time.Millisecond
	maxRetry = 30 * time.Second
)

// Run works until ctx ends, then waits for what runs.
func (l *loop) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	q := newWorkQueue()
	var workers sync.WaitGroup
	defer workers.Wait()
	defer q.close()
	for range max(1, l.workers) {
		workers.Go(func() { l.work(ctx, q) })
	}
	return l.feed(ctx, q)
}

// feed turns changes into work until ctx ends.
func (l *loop) feed(ctx context.Context, q *workQueue) error {
	var after state.Revision
	relist := true
	for {
		err := l.step(ctx, q, &after, relist)
		switch {
		case ctx.Err() != nil || errors.Is(err, state.ErrClosed):
			return nil
		case errors.Is(err, state.ErrCompacted):
			relist = true
		case err != nil:
			l.log.Error("reading the change feed failed", "loop", l.name, "error", err)
			if !sleep(ctx, time.Second) {
				return nil
			}
			relist = true
		default:
			relist = false
		}
	}
}

func (l *loop) step(ctx context.Context, q *workQueue, after *state.Revision, relist bool) error {
	if relist {
		return l.store.View(ctx, func(r state.Reader) error {
			ids, err := l.list(r)
			if err != nil {
				return err
			}
			for _, id := range ids {
				q.add(id)
			}
			*after, err = r.Revision()
			return err
		})
	}
	changes, err := l.store.Changes(ctx, *after)
	if err != nil {
		return err
	}
	return l.store.View(ctx, func(r state.Reader) error {
		for _, c := range changes {
			id, err := l.wake(r, c)
			if err != nil {
				return err
			}
			if id != "" {
				q.add(id)
			}
			*after = max(*after, c.Revision)
		}
		return nil
	})
}

func (l *loop) work(ctx context.Context, q *workQueue) {
	for {
		id, failures, ok := q.next()
		if !ok {
			return
		}
		again, err := l.call(ctx, id)
		switch {
		case ctx.Err() != nil:
			q.done(id, 0, 0)
		case err != nil:
			delay := min(minRetry<<min(failures, 10), maxRetry)
			l.log.Warn("reconciling failed and will be tried again", "loop", l.name, "id", id, "in", delay, "error", err)
			q.done(id, delay, failures+1)
		default:
			q.done(id, again, 0)
		}
	}
}

func (l *loop) call(ctx context.Context, id string) (again time.Duration, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("reconcile %s %s panicked: %v", l.name, id, p)
		}
	}()
	return l.handle(ctx, id)
}

// workQueue holds each ID at most once and never hands one to two workers at the same time.
type workQueue struct {
	mu      sync.Mutex
	ready   *sync.Cond
	order   []string
	items   map[string]*workItem
	stopped bool
}

type workItem struct {
	queued, running bool
	failures        int
	timer           *time.Timer
}

func newWorkQueue() *workQueue {
	q := &workQueue{items: map[string]*workItem{}}
	q.ready = sync.NewCond(&q.mu)
	return q
}

// add asks for id to be handled, now or right after the running call.
func (q *workQueue) add(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.stopped {
		return
	}
	it := q.items[id]
	if it == nil {
		it = &workItem{}
		q.items[id] = it
	}
	if it.timer != nil {
		it.timer.Stop()
		it.timer = nil
	}
	if it.queued {
		return
	}
	it.queued = true
	if !it.running {
		q.order = append(q.order, id)
		q.ready.Signal()
	}
}

// next waits for work. The second result says how often this ID failed in a row.
func (q *workQueue) next() (id string, failures int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.order) == 0 && !q.stopped {
		q.ready.Wait()
	}
	if q.stopped {
		return "", 0, false
	}
	id = q.order[0]
	q.order = q.order[1:]
	it := q.items[id]
	it.queued, it.running = false, true
	return id, it.failures, true
}

// done ends a call; with after > 0 the ID comes again by then at the latest.
func (q *workQueue) done(id string, after time.Duration, failures int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	it := q.items[id]
	it.running, it.failures = false, failures
	switch {
	case q.stopped:
	case it.queued:
		q.order = append(q.order, id)
		q.ready.Signal()
	case after > 0:
		it.timer = time.AfterFunc(after, func() { q.add(id) })
	default:
		delete(q.items, id)
	}
}

func (q *workQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.stopped = true
	for _, it := range q.items {
		if it.timer != nil {
			it.timer.Stop()
		}
	}
	q.ready.Broadcast()
}

// sleep waits for d and reports false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
