package flowlog

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"penstock.dev/penstock/internal/wire/flowlog"
)

// pollEvery is how often a reader that follows looks for more.
const pollEvery = 200 * time.Millisecond

// Reader reads the flow logs of a folder, also while they are written, rotated and compressed. What is no record is counted
// and left out, as is the half line of a writer that was killed.
type Reader struct {
	Dir string
	// Follow waits for more at the end until the context ends.
	Follow bool
	// Unreadable counts lines that are no record.
	Unreadable uint64
}

// Read hands each record, oldest first, to f together with its line, which is f's until it returns. An error of f ends it.
func (r *Reader) Read(ctx context.Context, f func(flowlog.Record, []byte) error) error {
	last := "" // read to its end
	for {
		all, err := stems(r.Dir)
		if errors.Is(err, fs.ErrNotExist) && r.Follow {
			all, err = nil, nil // the writer makes it
		}
		if err != nil {
			return fmt.Errorf("list flow logs: %w", err)
		}
		for i, name := range all {
			if name <= last {
				continue
			}
			newest := i == len(all)-1
			if err := r.file(ctx, name, newest && r.Follow, f); err != nil && !errors.Is(err, fs.ErrNotExist) { // it was removed to make room
				return fmt.Errorf("read flow log %s: %w", name, err)
			}
			last = name
		}
		if !r.Follow {
			return nil
		}
		if !wait(ctx) {
			return nil
		}
	}
}

func wait(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(pollEvery):
		return true
	}
}

// file reads one file; with follow it waits at the end until a newer file is there or ctx ends.
func (r *Reader) file(ctx context.Context, name string, follow bool, f func(flowlog.Record, []byte) error) error {
	path := filepath.Join(r.Dir, name)
	file, err := os.Open(path + plain)
	if errors.Is(err, fs.ErrNotExist) { // it was compressed
		return r.compressed(ctx, path+compressed, f)
	}
	if err != nil {
		return err
	}
	defer file.Close()
	t := &tail{file: file}
	for {
		newer := false
		if follow { // asked before the end is looked for: what is written before a newer file is begun is read
			all, err := stems(r.Dir)
			newer = err == nil && len(all) > 0 && all[len(all)-1] > name
		}
		if err := t.lines(func(line []byte) error { return r.line(ctx, line, f) }); err != nil {
			return err
		}
		if !follow || newer || !wait(ctx) {
			return nil
		}
	}
}

func (r *Reader) compressed(ctx context.Context, path string, f func(flowlog.Record, []byte) error) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	z, err := gzip.NewReader(bufio.NewReader(file))
	if err != nil {
		return err
	}
	s := bufio.NewScanner(z)
	s.Buffer(make([]byte, 0, 4096), 1<<20)
	for s.Scan() {
		if err := r.line(ctx, s.Bytes(), f); err != nil {
			return err
		}
	}
	return errors.Join(s.Err(), z.Close())
}

func (r *Reader) line(ctx context.Context, line []byte, f func(flowlog.Record, []byte) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	rec, err := flowlog.Parse(string(line))
	if err == nil {
		return f(rec, line)
	}
	if !errors.Is(err, flowlog.ErrHeader) {
		r.Unreadable++
	}
	return nil
}

// tail reads whole lines of a file that grows.
type tail struct {
	file *os.File
	at   int64 // of the first line that was not read
	long bool  // what is at there is the rest of a line that is too long for one of ours
}

// lines hands each whole line that is there to f, without its end. The writer may cut off and write again what is no whole line.
func (t *tail) lines(f func([]byte) error) error {
	b := bufio.NewReaderSize(io.NewSectionReader(t.file, t.at, 1<<62), 64<<10)
	for {
		line, err := b.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, bufio.ErrBufferFull):
			t.at += int64(len(line))
			t.long = true
			continue
		case err != nil:
			return err
		}
		t.at += int64(len(line))
		if t.long {
			t.long, line = false, []byte("too long\n")
		}
		if err := f(line[:len(line)-1]); err != nil {
			return err
		}
	}
}
