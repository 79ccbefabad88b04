// Package auditlog keeps the audit log in files: appended, chained, rotated by size, bounded when the disk is full.
//
// A Log owns its folder. Record may be called concurrently. The files are audit-SEQUENCE.jsonl, named for their first event.
package auditlog

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"penstock.dev/penstock/internal/audit"
)

// Options are what a Log needs. Dir is required.
type Options struct {
	Dir     string
	Region  string
	Account string
	// MaxFile is the size in bytes at which another file is begun; 0 for 64 MiB. Keep is how many files stay; 0 for all.
	MaxFile int64
	Keep    int
	// SyncEvery bounds how long an event that was recorded may be lost by a power cut; 0 for 1 s. Events outlive a killed process at once.
	SyncEvery time.Duration
	Log       *slog.Logger
	Now       func() time.Time
}

// Bounds of memory while nothing can be written, and of what strangers can cause in a second.
const (
	maxPending      = 1024 // events
	maxPendingBytes = 4 << 20
	strangersSecond = 20
	strangersBurst  = 200
)

// Log is an open audit log.
type Log struct {
	options Options

	mu       sync.Mutex
	file     *os.File
	size     int64
	head     audit.Head
	failed   error    // of the last write; nil while all is well
	pending  [][]byte // bodies that could not be written, oldest first
	bytes    int      // of pending
	lost     uint64   // events that did not fit into pending
	dirty    bool     // written, not synced
	closed   bool
	allowed  float64 // events of strangers that may still be written
	refilled time.Time
	skipped  map[string]uint64 // events of strangers that were counted only, by source and name
	stirred  chan struct{}     // holds a token when something was recorded

	syncing sync.Mutex // one sync at a time, outside of mu
}

// headFile says how far the log was on the disk; it lies beside the log and shows a cut end.
const headFile = "head"

// Open opens or makes a log and finds its end. An incomplete last line, which a killed writer leaves, is cut off.
func Open(o Options) (*Log, error) {
	if o.Dir == "" {
		return nil, errors.New("an audit log needs a folder")
	}
	if o.MaxFile == 0 {
		o.MaxFile = 64 << 20
	}
	if o.SyncEvery == 0 {
		o.SyncEvery = time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the audit log: %w", err)
	}
	l := &Log{options: o, allowed: strangersBurst, refilled: o.Now(), skipped: map[string]uint64{}, stirred: make(chan struct{}, 1)}
	damage, err := l.resume()
	if err != nil {
		return nil, err
	}
	for _, d := range damage {
		o.Log.Error("the audit log is not as it was left", "folder", o.Dir, "problem", d)
		l.note("FindAuditDamage", map[string]any{"problem": d})
	}
	return l, nil
}

// resume finds the newest file and its last event.
func (l *Log) resume() (damage []string, err error) {
	files, err := Files(l.options.Dir)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return l.compareHead(nil), l.begin()
	}
	name := files[len(files)-1]
	if l.file, err = os.OpenFile(name, os.O_RDWR, 0o600); err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	end, damage, err := l.readEnd(name)
	if err == nil {
		if info, statErr := l.file.Stat(); statErr == nil && info.Size() > end {
			damage = append(damage, fmt.Sprintf("%d bytes of an incomplete event at the end were cut off", info.Size()-end))
		}
		err = errors.Join(l.file.Truncate(end), seekEnd(l.file))
	}
	if err != nil {
		_ = l.file.Close()
		return nil, fmt.Errorf("read the audit log: %w", err)
	}
	l.size = end
	if l.head.Sequence == 0 { // an empty or unreadable file: its name says which event was to come
		if l.head.Sequence, err = firstOf(name); err != nil {
			return nil, err
		}
		l.head.Sequence--
		if len(files) > 1 {
			l.head.Hash = lastHash(files[len(files)-2])
		}
	}
	return l.compareHead(damage), nil
}

func seekEnd(f *os.File) error {
	_, err := f.Seek(0, io.SeekEnd)
	return err
}

// readEnd finds the last complete line and its hash.
func (l *Log) readEnd(name string) (end int64, damage []string, err error) {
	r := bufio.NewReaderSize(l.file, 256<<10)
	for {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return end, damage, nil
		}
		if err != nil {
			return 0, nil, err
		}
		end += int64(len(line))
		link, err := audit.ReadLink(line[:len(line)-1])
		switch {
		case err != nil && len(damage) < 5:
			damage = append(damage, fmt.Sprintf("%s, byte %d: %v", filepath.Base(name), end-int64(len(line)), err))
		case err == nil:
			l.head = link.Head
		}
	}
}

func lastHash(name string) (h audit.Hash) {
	b, err := os.ReadFile(name)
	if err != nil {
		return h
	}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	link, err := audit.ReadLink([]byte(lines[len(lines)-1]))
	if err != nil {
		return h
	}
	return link.Hash
}

// compareHead says when the log ends before the event that was known to be on the disk.
func (l *Log) compareHead(damage []string) []string {
	h, err := ReadHead(l.options.Dir)
	if err == nil && h.Sequence > l.head.Sequence {
		damage = append(damage, fmt.Sprintf("it ends with event %d, and event %d was on the disk", l.head.Sequence, h.Sequence))
	}
	return damage
}

// ReadHead is the head that was written last beside the log in a folder: a lower bound of where it ended.
func ReadHead(dir string) (audit.Head, error) {
	b, err := os.ReadFile(filepath.Join(dir, headFile))
	if err != nil {
		return audit.Head{}, err
	}
	return audit.ParseHead(string(b))
}

// Files are the files of the log in a folder, oldest first.
func Files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list the audit log: %w", err)
	}
	var out []string
	for _, e := range entries {
		if _, err := firstOf(e.Name()); err == nil {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(out) // the numbers have leading zeros
	return out, nil
}

func firstOf(name string) (uint64, error) {
	n, ok := strings.CutPrefix(filepath.Base(name), "audit-")
	n, ok2 := strings.CutSuffix(n, ".jsonl")
	if !ok || !ok2 || len(n) != 20 {
		return 0, fmt.Errorf("%s is no file of an audit log", name)
	}
	return strconv.ParseUint(n, 10, 64)
}

// begin makes the next file.
func (l *Log) begin() error {
	name := filepath.Join(l.options.Dir, fmt.Sprintf("audit-%020d.jsonl", l.head.Sequence+1))
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600) // only an empty one can be there
	if err != nil {
		return fmt.Errorf("begin a file of the audit log: %w", err)
	}
	if err := syncDir(l.options.Dir); err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, 0
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Ready fails while events cannot be written.
func (l *Log) Ready() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		l.drain() // perhaps there is room again
	}
	return l.failed
}

// Head is the newest event.
func (l *Log) Head() audit.Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// Record writes an event.
func (l *Log) Record(e audit.Event) {
	body, err := e.Encode(l.origin())
	if err == nil && len(body) > audit.MaxLine/2 {
		err = fmt.Errorf("it is %d bytes long", len(body))
	}
	if err != nil { // a value that JSON does not have: a mistake of ours
		l.options.Log.Error("an event could not be encoded", "event", e.Name, "error", err)
		e.Request, e.Response, e.Additional, e.Resources = nil, nil, nil, nil
		if body, err = e.Encode(l.origin()); err != nil {
			return
		}
	}
	defer l.stir()
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.Unproved && !l.admit() {
		l.skipped[e.Source+" "+e.Name]++
		return
	}
	l.put(body)
}

// admit reports whether one more event of strangers may be written now.
func (l *Log) admit() bool {
	now := l.options.Now()
	l.allowed = min(strangersBurst, l.allowed+now.Sub(l.refilled).Seconds()*strangersSecond)
	l.refilled = now
	if l.allowed < 1 {
		return false
	}
	l.allowed--
	return true
}

func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// put writes a body after what waits, or lets it wait. The caller holds mu.
func (l *Log) put(body []byte) {
	if len(l.pending) > 0 {
		l.wait(body)
		l.drain()
		return
	}
	if err := l.write(body); err != nil {
		l.fail(err)
		l.wait(body)
	}
}

func (l *Log) wait(body []byte) {
	if len(l.pending) >= maxPending || l.bytes+len(body) > maxPendingBytes {
		l.lost++
		return
	}
	l.pending = append(l.pending, body)
	l.bytes += len(body)
}

// drain writes what waits, oldest first.
func (l *Log) drain() {
	for len(l.pending) > 0 {
		if err := l.write(l.pending[0]); err != nil {
			l.fail(err)
			return
		}
		l.bytes -= len(l.pending[0])
		l.pending = l.pending[1:]
	}
	l.pending = nil
	if l.failed != nil && !l.closed {
		if err := l.file.Sync(); err != nil {
			l.fail(err)
			return
		}
		l.options.Log.Warn("the audit log can be written again", "lost", l.lost)
		l.failed = nil
		if n := l.lost; n > 0 {
			l.lost = 0
			l.note("LoseAuditEvents", map[string]any{"events": n})
		}
	}
}

func (l *Log) fail(err error) {
	if l.failed == nil {
		l.options.Log.Error("the audit log cannot be written; changes are refused until it can", "folder", l.options.Dir, "error", err)
	}
	l.failed = err
}

// write appends one line, whole or not at all.
func (l *Log) write(body []byte) error {
	if l.closed {
		return fs.ErrClosed
	}
	if l.size >= l.options.MaxFile {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	return l.append(body)
}

func (l *Log) append(body []byte) error {
	head := l.head
	line := head.Append(nil, body)
	if n, err := l.file.Write(line); err != nil {
		if n > 0 { // a full disk took a part
			err = errors.Join(err, l.file.Truncate(l.size), seekEnd(l.file))
		}
		return fmt.Errorf("write the audit log: %w", err)
	}
	l.head, l.size, l.dirty = head, l.size+int64(len(line)), true
	return nil
}

// rotate begins another file and removes the oldest ones beyond Keep; the event that says so is written before.
func (l *Log) rotate() error {
	if err := l.file.Sync(); err != nil {
		return err
	}
	old := l.file
	if err := l.begin(); err != nil {
		l.file = old
		return err
	}
	if err := old.Close(); err != nil {
		l.options.Log.Warn("a file of the audit log was not closed", "error", err)
	}
	files, err := Files(l.options.Dir)
	if err != nil || l.options.Keep == 0 {
		return err
	}
	for len(files) > max(l.options.Keep, 1) {
		next, err := firstOf(files[1])
		if err != nil {
			return err
		}
		through := audit.Head{Sequence: next - 1, Hash: lastHash(files[0])}
		body, err := l.encode(audit.Retired, map[string]any{"file": filepath.Base(files[0]), "through": through.String()})
		if err == nil {
			err = l.append(body)
		}
		if err == nil {
			err = l.file.Sync()
		}
		if err == nil {
			err = os.Remove(files[0])
		}
		if err != nil {
			return err
		}
		files = files[1:]
	}
	return nil
}

// note writes an event about the log itself. The caller holds mu, or is alone.
func (l *Log) note(name string, facts map[string]any) {
	body, err := l.encode(name, facts)
	if err != nil {
		l.options.Log.Error("an event could not be encoded", "event", name, "error", err)
		return
	}
	l.put(body)
}

func (l *Log) encode(name string, facts map[string]any) ([]byte, error) {
	e := audit.Event{Source: audit.PenstockSource, Name: name, Identity: audit.Itself(), Additional: facts}
	return e.Encode(l.origin())
}

func (l *Log) origin() audit.Origin {
	return audit.Origin{ID: newID(), Now: l.options.Now(), Region: l.options.Region, Account: l.options.Account}
}

// Run syncs, and counts what strangers caused, until ctx ends. While nothing is recorded it sleeps.
func (l *Log) Run(ctx context.Context) error {
	timer := time.NewTimer(l.options.SyncEvery)
	defer timer.Stop()
	waits := true
	for {
		select {
		case <-l.stirred:
			if !waits {
				timer.Reset(l.options.SyncEvery)
				waits = true
			}
		case <-timer.C:
			l.settle()
			if waits = l.unsettled(); waits {
				timer.Reset(l.options.SyncEvery)
			}
		case <-ctx.Done():
			l.settle()
			return nil
		}
	}
}

// stir wakes Run.
func (l *Log) stir() {
	select {
	case l.stirred <- struct{}{}:
	default:
	}
}

// unsettled reports whether something is still to be brought to the disk.
func (l *Log) unsettled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dirty || l.failed != nil || len(l.pending) > 0 || len(l.skipped) > 0
}

// settle brings everything to the disk, then says beside the log how far that is.
func (l *Log) settle() {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	for what, n := range l.skipped {
		l.note("SuppressAuditEvents", map[string]any{"event": what, "events": n})
	}
	clear(l.skipped)
	if len(l.pending) > 0 || l.failed != nil {
		l.drain()
	}
	file, head, dirty := l.file, l.head, l.dirty
	l.dirty = false
	l.mu.Unlock()
	if !dirty {
		return
	}
	err := file.Sync()
	if errors.Is(err, fs.ErrClosed) {
		return // rotated meanwhile, and synced then
	}
	if err == nil {
		if err := writeHead(l.options.Dir, head); err != nil {
			l.options.Log.Warn("the head beside the audit log was not written", "error", err)
		}
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dirty = true
	l.fail(err)
}

// writeHead needs no sync of its own: after a power cut an older head is as true.
func writeHead(dir string, h audit.Head) error {
	name := filepath.Join(dir, headFile)
	if err := os.WriteFile(name+".new", []byte(h.String()+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// Close syncs and closes the log.
func (l *Log) Close() error {
	l.settle()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	if n := len(l.pending); n > 0 {
		l.options.Log.Error("the audit log was closed with events that could not be written", "events", uint64(n)+l.lost) //nolint:gosec // a length
	}
	return l.file.Close()
}

// Check verifies the log in a folder against the head beside it and any others that were recorded.
func Check(dir string, recorded ...audit.Head) (*audit.Result, error) {
	// The head first: the log that is being written reaches it when it is read later.
	if h, err := ReadHead(dir); err == nil {
		recorded = append(recorded, h)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the head beside the log: %w", err)
	}
	names, err := Files(dir)
	if err != nil {
		return nil, err
	}
	if len(names) == 0 && len(recorded) == 0 {
		return nil, fmt.Errorf("%s holds no audit log", dir)
	}
	var files []audit.File
	for _, n := range names {
		f, err := os.Open(n)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		files = append(files, audit.File{Name: filepath.Base(n), Reader: f})
	}
	return audit.Verify(files, recorded...)
}
