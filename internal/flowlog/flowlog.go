// Package flowlog writes VPC flow logs to files, one writer a folder, and reads them again.
//
// What a driver counted is written once an aggregation interval and then synced, so that a power cut costs the records of
// one interval. A line that a killed process left half written is cut off before the next one is written.
package flowlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"penstock.dev/penstock/internal/vpc"
	"penstock.dev/penstock/internal/wire/flowlog"
)

// Config is what New needs. Zero values are usable but for Dir and Source.
type Config struct {
	Dir       string
	AccountID string
	Source    vpc.FlowMeter
	// Interval is how long traffic is summed up before it is written (0: a minute).
	Interval time.Duration
	Limits   Limits
	// Log may be nil.
	Log *slog.Logger
}

// Limits bound the files. Zero values stand for the defaults.
type Limits struct {
	File  int64         // bytes after which a file is closed and compressed (16 MiB)
	Age   time.Duration // and after how long (24 hours)
	Total int64         // bytes of all files; the oldest go first (256 MiB). At least twice File.
}

// Stats counts since New.
type Stats struct {
	Records uint64 // written, of all kinds
	Lost    uint64 // records that could not be written
	Skipped uint64 // packets or flows that the driver saw and did not keep
	Removed uint64 // files that went because of Limits.Total
	Failed  uint64 // intervals of which something could not be counted or written
}

// Log is the flow log of all interfaces of a driver.
type Log struct {
	cfg Config
	log *slog.Logger

	mu    sync.Mutex
	stats Stats

	// What follows belongs to Run.
	files   *files
	began   time.Time
	failing bool
	owed    map[vpc.NetworkInterfaceID]span // interfaces whose records were lost, and when
	names   map[vpc.NetworkInterfaceID]bool // of the interval before
}

type span struct{ from, to time.Time }

// New makes a flow log. Nothing is written before Run.
func New(cfg Config) (*Log, error) {
	if cfg.Dir == "" || cfg.Source == nil {
		return nil, errors.New("flow logs: no folder or no source")
	}
	if cfg.Interval == 0 {
		cfg.Interval = time.Minute
	}
	if cfg.Limits.File == 0 {
		cfg.Limits.File = 16 << 20
	}
	if cfg.Limits.Age == 0 {
		cfg.Limits.Age = 24 * time.Hour
	}
	if cfg.Limits.Total == 0 {
		cfg.Limits.Total = 256 << 20
	}
	switch {
	case cfg.Interval < 0:
		return nil, fmt.Errorf("flow logs: interval %s is negative", cfg.Interval)
	case cfg.Limits.File < 0 || cfg.Limits.Age < 0:
		return nil, errors.New("flow logs: a limit of files is negative")
	case cfg.Limits.Total < 2*cfg.Limits.File:
		return nil, fmt.Errorf("flow logs: %d bytes in all are less than two files of %d", cfg.Limits.Total, cfg.Limits.File)
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Log{
		cfg: cfg, log: log, owed: map[vpc.NetworkInterfaceID]span{},
		files: &files{dir: cfg.Dir, limits: cfg.Limits, now: time.Now},
	}, nil
}

// Stats counts since New.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

func (l *Log) count(f func(*Stats)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.stats)
}

// Run writes once an interval until ctx ends, and then what is left. Whatever goes wrong is logged and counted: traffic goes on.
func (l *Log) Run(ctx context.Context) {
	l.began = time.Now()
	for {
		next := l.began.Truncate(l.cfg.Interval).Add(l.cfg.Interval)
		select {
		case <-time.After(time.Until(next)):
			l.write(ctx)
		case <-ctx.Done():
			l.write(ctx)
			if err := l.files.close(); err != nil {
				l.log.Warn("flow logs could not be closed", "error", err)
			}
			return
		}
	}
}

// write takes the traffic of the interval that ends now to the files.
func (l *Log) write(ctx context.Context) {
	flows, err := l.cfg.Source.Flows(context.WithoutCancel(ctx)) // what was counted before the end counts
	from, to := l.began, time.Now()
	l.began = to
	var failed []error
	if err != nil {
		failed = append(failed, fmt.Errorf("count traffic: %w", err))
		flows = nil
		for id := range l.names {
			l.owe(id, from, to)
		}
	} else {
		l.remember(flows)
	}
	for _, i := range flows {
		if i.Skipped > 0 {
			l.count(func(s *Stats) { s.Skipped += i.Skipped })
			l.log.Warn("traffic was left out of the flow logs", "interface", i.Interface, "packets", i.Skipped)
		}
	}
	if err := l.append(flows, from, to); err != nil {
		failed = append(failed, err)
	}
	removed, err := l.files.tidy(ctx)
	if len(removed) > 0 {
		l.count(func(s *Stats) { s.Removed += uint64(len(removed)) })
		l.log.Warn("oldest flow logs were removed to make room", "files", removed)
	}
	if err != nil {
		failed = append(failed, err)
	}
	l.report(errors.Join(failed...))
}

func (l *Log) remember(flows []vpc.InterfaceFlows) {
	l.names = make(map[vpc.NetworkInterfaceID]bool, len(flows))
	for _, i := range flows {
		l.names[i.Interface] = true
	}
}

// report says once that something is wrong, and once that it is well again.
func (l *Log) report(err error) {
	switch {
	case err != nil:
		l.count(func(s *Stats) { s.Failed++ })
		if !l.failing {
			l.log.Error("flow logs could not be written; traffic goes on without", "folder", l.cfg.Dir, "error", err)
		}
	case l.failing:
		l.log.Warn("flow logs are written again", "folder", l.cfg.Dir, "lost", l.Stats().Lost)
	}
	l.failing = err != nil
}

// append writes the records of an interval, after those that say what was lost earlier.
func (l *Log) append(flows []vpc.InterfaceFlows, from, to time.Time) error {
	batch := make([]byte, 0, 64<<10)
	records := 0 // in batch
	var err error
	flush := func() {
		written := 0
		if err == nil && records > 0 {
			written, err = l.files.append(batch)
		}
		l.count(func(s *Stats) {
			s.Records += uint64(written)
			s.Lost += uint64(records - written)
		})
		batch, records = batch[:0], 0
	}
	add := func(r flowlog.Record) {
		r.Account = l.cfg.AccountID
		batch = r.Append(batch)
		records++
		if len(batch) > 60<<10 {
			flush()
		}
	}
	for id, s := range l.owed {
		add(flowlog.Record{Interface: string(id), Start: s.from.Unix(), End: s.to.Unix(), Status: flowlog.SkipData})
	}
	for _, i := range flows {
		for _, r := range recordsOf(i, from, to) {
			add(r)
		}
	}
	flush()
	if err == nil {
		err = l.files.sync()
	}
	if err != nil {
		for _, i := range flows {
			l.owe(i.Interface, from, to)
		}
		return err
	}
	clear(l.owed)
	return nil
}

// owe remembers that records of an interface are missing; the folder says so when it can be written again.
func (l *Log) owe(id vpc.NetworkInterfaceID, from, to time.Time) {
	s, ok := l.owed[id]
	if !ok {
		s.from = from
		if len(l.owed) >= maxOwed {
			return
		}
	}
	s.to = to
	l.owed[id] = s
}

// maxOwed bounds the interfaces that owe remembers.
const maxOwed = 4096

// recordsOf are the records of one interface for an interval.
func recordsOf(i vpc.InterfaceFlows, from, to time.Time) []flowlog.Record {
	out := make([]flowlog.Record, 0, len(i.Flows)+1)
	for _, f := range i.Flows {
		r := flowlog.Record{
			Interface: string(i.Interface), Src: f.Src, Dst: f.Dst, Protocol: uint8(f.Protocol), Packets: f.Packets, Bytes: f.Bytes,
			Start: clamp(f.First, from, to).Unix(), End: clamp(f.Last, from, to).Unix(), Action: flowlog.Accept, Status: flowlog.OK,
		}
		if f.Rejected {
			r.Action = flowlog.Reject
		}
		out = append(out, r)
	}
	none := flowlog.Record{Interface: string(i.Interface), Start: from.Unix(), End: to.Unix()}
	switch {
	case i.Skipped > 0:
		none.Status = flowlog.SkipData
		out = append(out, none)
	case len(i.Flows) == 0:
		none.Status = flowlog.NoData
		out = append(out, none)
	}
	return out
}

func clamp(t, from, to time.Time) time.Time {
	if t.Before(from) {
		return from
	}
	if t.After(to) {
		return to
	}
	return t
}
