package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"penstock.dev/penstock/internal/state"
)

// Backup writes a compact copy of the last committed state to path, where nothing may be yet. The store goes on meanwhile.
// When Backup returns nil the copy is durable, and Open opens it.
func (s *Store) Backup(ctx context.Context, path string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("back up state to %s: %w", path, err)
		}
	}()
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		return errors.Join(os.ErrExist, err)
	}
	partial := path + ".partial"
	f, err := os.OpenFile(partial, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600) // an empty file is what VACUUM INTO accepts
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(partial))
		}
	}()
	err = s.vacuumInto(ctx, partial)
	if err == nil {
		err = f.Sync() // the database does not sync what it vacuums into
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Link(partial, path); err != nil { // unlike a rename it never replaces
		return err
	}
	return errors.Join(os.Remove(partial), syncDir(filepath.Dir(path)))
}

// vacuumInto uses a connection of its own: those for reading may not write, not even elsewhere.
func (s *Store) vacuumInto(ctx context.Context, path string) error {
	return s.alone(ctx, func(c *conn) error { return c.execContext(ctx, "VACUUM INTO ?", path) })
}

// Check reads the whole file and says what is damaged in it.
func (s *Store) Check(ctx context.Context) error {
	return s.alone(ctx, func(c *conn) error {
		var found []string
		err := c.queryContext(ctx, func(row []driver.Value) error {
			if text, _ := row[0].(string); text != "ok" {
				found = append(found, text)
			}
			return nil
		}, "PRAGMA integrity_check(20)")
		if err != nil {
			return fmt.Errorf("check state: %w", err)
		}
		if len(found) > 0 {
			return fmt.Errorf("%s is damaged; restore it from a backup: %s", s.path, strings.Join(found, "; "))
		}
		return nil
	})
}

// alone runs fn with a connection that nobody else uses before or after. Close waits for it as for any reader.
func (s *Store) alone(ctx context.Context, fn func(*conn) error) error {
	select {
	case <-s.closing:
		return state.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	case s.readers.slots <- struct{}{}:
	}
	defer func() { <-s.readers.slots }()
	if err := s.alive(ctx); err != nil {
		return err
	}
	c, err := openConn(ctx, s.path, "busy_timeout = 5000")
	if err != nil {
		return err
	}
	return errors.Join(fn(c), c.close())
}
