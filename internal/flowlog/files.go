package flowlog

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"penstock.dev/penstock/internal/wire/flowlog"
)

// A file is named for the time at which it was begun, so that names are in the order of records. The newest one is written to;
// others are compressed, and what is called .tmp is half compressed.
const (
	namePrefix = "flows-"
	nameTime   = "20060102T150405.000000000Z"
	plain      = ".log"
	compressed = ".log.gz"
	temporary  = ".tmp"
)

// files is a folder of flow logs with its one writer.
type files struct {
	dir    string
	limits Limits
	now    func() time.Time

	file  *os.File // nil: none is open
	began time.Time
	size  int64 // of whole lines
	torn  bool  // something may follow them
}

// stem is a file's name without its ending, and when it was begun; false when it is not one of ours.
func stem(name string) (string, time.Time, bool) {
	s, ok := strings.CutSuffix(name, compressed)
	if !ok {
		if s, ok = strings.CutSuffix(name, plain); !ok {
			return "", time.Time{}, false
		}
	}
	at, err := time.Parse(nameTime, strings.TrimPrefix(s, namePrefix))
	return s, at, err == nil && strings.HasPrefix(s, namePrefix)
}

// stems are the files of a folder by name, oldest first.
func stems(dir string) ([]string, error) {
	all, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range all {
		if s, _, ok := stem(e.Name()); ok {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// append adds lines. After an error, those that are there as a whole stay: somebody may have read them.
func (f *files) append(lines []byte) (written int, err error) {
	if f.file != nil && (f.size >= f.limits.File || f.now().Sub(f.began) >= f.limits.Age) {
		if err := f.close(); err != nil {
			return 0, err
		}
	}
	if f.file == nil {
		if err := f.open(); err != nil {
			return 0, err
		}
	}
	if f.torn {
		if err := f.mend(); err != nil {
			return 0, err
		}
	}
	n, err := f.file.WriteAt(lines, f.size)
	whole := lines[:bytes.LastIndexByte(lines[:n], '\n')+1]
	f.size += int64(len(whole))
	if err != nil {
		f.torn = true
		err = errors.Join(fmt.Errorf("write flow log: %w", err), f.mend())
	}
	return bytes.Count(whole, []byte{'\n'}), err
}

// mend cuts off what is no whole line.
func (f *files) mend() error {
	if err := f.file.Truncate(f.size); err != nil {
		return fmt.Errorf("cut flow log: %w", err)
	}
	f.torn = false
	return nil
}

// open goes on with the newest file of an earlier run when it may still grow, or begins one.
func (f *files) open() error {
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return fmt.Errorf("make folder of flow logs: %w", err)
	}
	all, err := stems(f.dir)
	if err != nil {
		return fmt.Errorf("list flow logs: %w", err)
	}
	began := f.now().UTC()
	if len(all) > 0 {
		name, at, _ := stem(all[len(all)-1] + plain)
		done, err := f.reopen(name, at)
		if done || err != nil {
			return err
		}
		if !began.After(at) { // the clock went back
			began = at.Add(1)
		}
	}
	file, err := os.OpenFile(filepath.Join(f.dir, namePrefix+began.Format(nameTime)+plain), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("begin flow log: %w", err)
	}
	f.file, f.began, f.size, f.torn = file, began, 0, true
	return f.head()
}

// head writes the first line of an empty file.
func (f *files) head() error {
	line := []byte(flowlog.Header + "\n")
	if _, err := f.file.WriteAt(line, 0); err != nil {
		_ = f.file.Close() // the error that came first is the news
		f.file = nil
		return fmt.Errorf("begin flow log: %w", err)
	}
	f.size, f.torn = int64(len(line)), false
	return syncFolder(f.dir)
}

// reopen goes on with a file when it may still grow. A killed process may have left half a line.
func (f *files) reopen(name string, began time.Time) (done bool, err error) {
	if f.now().Sub(began) >= f.limits.Age {
		return false, nil
	}
	file, err := os.OpenFile(filepath.Join(f.dir, name+plain), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // it is compressed
	}
	if err != nil {
		return false, fmt.Errorf("open flow log: %w", err)
	}
	size, err := wholeLines(file)
	if err != nil || size >= f.limits.File {
		return false, errors.Join(err, file.Close())
	}
	f.file, f.began, f.size, f.torn = file, began, size, true
	if size == 0 {
		return true, f.head()
	}
	return true, nil
}

// wholeLines is the size of a file up to the end of its last whole line.
func wholeLines(file *os.File) (int64, error) {
	info, err := file.Stat()
	if err != nil {
		return 0, fmt.Errorf("read flow log: %w", err)
	}
	b := make([]byte, 4096)
	for end := info.Size(); end > 0; {
		from := max(end-int64(len(b)), 0)
		part := b[:end-from]
		if _, err := file.ReadAt(part, from); err != nil {
			return 0, fmt.Errorf("read flow log: %w", err)
		}
		if i := bytes.LastIndexByte(part, '\n'); i >= 0 {
			return from + int64(i) + 1, nil
		}
		end = from
	}
	return 0, nil
}

// sync has the records written so far survive a power cut.
func (f *files) sync() error {
	if f.file == nil {
		return nil
	}
	if err := f.file.Sync(); err != nil {
		return fmt.Errorf("sync flow log: %w", err)
	}
	return nil
}

func (f *files) close() error {
	if f.file == nil {
		return nil
	}
	err := f.sync()
	if f.torn {
		err = errors.Join(err, f.mend())
	}
	err = errors.Join(err, f.file.Close())
	f.file = nil
	return err
}

// tidy compresses files that are complete and removes the oldest ones until all are within the limit. It ends early with ctx.
func (f *files) tidy(ctx context.Context) (removed []string, err error) {
	all, err := os.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list flow logs: %w", err)
	}
	var left []string // by name: oldest first
	for _, e := range all {
		name := e.Name()
		switch {
		case strings.HasPrefix(name, namePrefix) && strings.HasSuffix(name, temporary): // of a run that was killed
			if err := os.Remove(filepath.Join(f.dir, name)); err != nil {
				return nil, fmt.Errorf("remove half a flow log: %w", err)
			}
		case f.file != nil && name == filepath.Base(f.file.Name()):
		default:
			if _, _, ok := stem(name); ok {
				left = append(left, name)
			}
		}
	}
	slices.Sort(left)
	// The bound holds while a file is compressed too: then it is there twice, at most.
	removed, left, err = f.prune(left)
	for _, name := range left {
		if err != nil || ctx.Err() != nil {
			return removed, err
		}
		if f.file == nil && name == left[len(left)-1] {
			break // the next record may go there
		}
		if strings.HasSuffix(name, plain) {
			if err = compress(ctx, filepath.Join(f.dir, name)); ctx.Err() != nil {
				err = nil // the next run does it
			}
		}
	}
	return removed, err
}

// prune removes oldest files until the rest, with room to compress the largest, is within the limit.
func (f *files) prune(all []string) (removed, left []string, err error) {
	total := f.size
	sizes := make([]int64, len(all))
	spare := int64(0)
	for i, name := range all {
		info, err := os.Stat(filepath.Join(f.dir, name))
		if err != nil {
			return nil, all, fmt.Errorf("list flow logs: %w", err)
		}
		sizes[i] = info.Size()
		total += sizes[i]
		if strings.HasSuffix(name, plain) {
			spare = max(spare, sizes[i]/2)
		}
	}
	for i, name := range all {
		if total+spare <= f.limits.Total {
			return removed, all[i:], nil
		}
		if err := os.Remove(filepath.Join(f.dir, name)); err != nil {
			return removed, all[i:], fmt.Errorf("remove oldest flow log: %w", err)
		}
		total -= sizes[i]
		removed = append(removed, name)
	}
	return removed, nil, nil
}

// compress puts a compressed file in place of a plain one. At any moment one of them is there and whole.
func compress(ctx context.Context, path string) (err error) {
	from, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("compress flow log: %w", err)
	}
	defer from.Close()
	name := path + ".gz"
	to, err := os.OpenFile(name+temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("compress flow log: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("compress flow log: %w", err), os.Remove(name+temporary))
		}
	}()
	z := gzip.NewWriter(to)
	z.Name = filepath.Base(path)
	_, err = io.Copy(z, readerUntil{ctx, from})
	err = errors.Join(err, z.Close(), to.Sync(), to.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(name+temporary, name); err != nil {
		return err
	}
	return errors.Join(syncFolder(filepath.Dir(path)), os.Remove(path))
}

// readerUntil fails when its context has ended.
type readerUntil struct {
	ctx context.Context
	io.Reader
}

func (r readerUntil) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
