package network

import (
	"context"
	"sync"
	"time"

	"penstock.dev/penstock/internal/state"
)

// promptness bounds how long an operation waits until what it wrote is in force; then it answers all the same.
const promptness = time.Second

// progress says up to which revision the stored rules were put in force.
type progress struct {
	mu      sync.Mutex
	running bool // a Run is at work
	rev     state.Revision
	moved   chan struct{} // closed when anything above changes; nil when nobody waits
}

func (p *progress) set(running bool, rev state.Revision) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running, p.rev = running, max(p.rev, rev)
	if p.moved != nil {
		close(p.moved)
		p.moved = nil
	}
}

// wait returns when rev is in force, when nothing works towards that, or when the time is up.
func (p *progress) wait(ctx context.Context, rev state.Revision) {
	var timer *time.Timer
	for {
		p.mu.Lock()
		if !p.running || p.rev >= rev {
			p.mu.Unlock()
			return
		}
		if p.moved == nil {
			p.moved = make(chan struct{})
		}
		moved := p.moved
		p.mu.Unlock()
		if timer == nil {
			timer = time.NewTimer(promptness)
			defer timer.Stop()
		}
		select {
		case <-moved:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// prompt is a store whose updates return when they are in force, so that who changes a rule and connects finds it applied.
type prompt struct {
	state.Store
	progress *progress
}

func (p prompt) Update(ctx context.Context, fn func(state.Tx) error) (state.Revision, error) {
	rev, err := p.Store.Update(ctx, fn)
	if err == nil {
		p.progress.wait(ctx, rev)
	}
	return rev, err
}
