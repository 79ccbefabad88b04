package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"

	modernc "modernc.org/sqlite"
	codes "modernc.org/sqlite/lib"
)

// conn is one connection with its prepared statements. One goroutine uses it at a time.
//
// It speaks to the driver without database/sql: a pool that may replace a connection in the middle of a
// transaction, and its locks, are of no use to one writer and a few readers.
type conn struct {
	path  string
	raw   driver.Conn
	stmts map[string]preparedStmt
	args  []driver.NamedValue

	// failed is the first failure of the database since it was cleared. A failure may have ended the transaction, and
	// statements that follow would then commit each by itself.
	failed error
}

type preparedStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// openConn opens the file at path, which must exist, and runs the given pragmas on the connection.
func openConn(ctx context.Context, path string, pragmas ...string) (*conn, error) {
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: "mode=rw&_dqs=0"}
	connector, err := modernc.NewConnector(dsn.String())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	raw, err := connector.Connect(ctx)
	if err != nil {
		return nil, explain(path, err)
	}
	c := &conn{path: path, raw: raw, stmts: map[string]preparedStmt{}}
	for _, p := range pragmas {
		if err := c.exec("PRAGMA " + p); err != nil {
			return nil, errors.Join(fmt.Errorf("set %s: %w", p, err), c.close())
		}
	}
	return c, nil
}

// exec runs one statement that returns no rows, or whose rows are of no interest.
func (c *conn) exec(query string, args ...driver.Value) error {
	return c.execContext(context.Background(), query, args...)
}

// execContext is exec that ctx may interrupt.
func (c *conn) execContext(ctx context.Context, query string, args ...driver.Value) error {
	s, err := c.prepare(query)
	if err != nil {
		return err
	}
	_, err = s.ExecContext(ctx, c.bind(args))
	return c.note(err)
}

// query calls row for each row of the result until it returns an error. The slice is reused; what is in it is not.
func (c *conn) query(row func([]driver.Value) error, query string, args ...driver.Value) error {
	return c.queryContext(context.Background(), row, query, args...)
}

// queryContext is query that ctx may interrupt.
func (c *conn) queryContext(ctx context.Context, row func([]driver.Value) error, query string, args ...driver.Value) error {
	s, err := c.prepare(query)
	if err != nil {
		return err
	}
	rows, err := s.QueryContext(ctx, c.bind(args))
	if err != nil {
		return c.note(err)
	}
	dest := make([]driver.Value, len(rows.Columns()))
	for {
		err := rows.Next(dest)
		if errors.Is(err, io.EOF) {
			return c.note(rows.Close())
		}
		if err != nil {
			return c.note(errors.Join(err, rows.Close()))
		}
		if err := row(dest); err != nil {
			return errors.Join(err, c.note(rows.Close()))
		}
	}
}

// note explains a failure and remembers the first one.
func (c *conn) note(err error) error {
	if err == nil {
		return nil
	}
	err = explain(c.path, err)
	if c.failed == nil {
		c.failed = err
	}
	return err
}

// integer returns the first column of the first row, or 0 when there is none or it is NULL.
func (c *conn) integer(query string, args ...driver.Value) (int64, error) {
	var n int64
	err := c.query(func(row []driver.Value) error {
		n, _ = row[0].(int64)
		return nil
	}, query, args...)
	return n, err
}

func (c *conn) prepare(query string) (preparedStmt, error) {
	if s := c.stmts[query]; s != nil {
		return s, nil
	}
	raw, err := c.raw.Prepare(query)
	if err != nil {
		return nil, c.note(err)
	}
	s := raw.(preparedStmt)
	c.stmts[query] = s
	return s, nil
}

func (c *conn) bind(args []driver.Value) []driver.NamedValue {
	c.args = c.args[:0]
	for i, v := range args {
		c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: v})
	}
	return c.args
}

func (c *conn) close() error {
	var errs []error
	for _, s := range c.stmts {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, c.raw.Close())...)
}

// explain says in words what an operator can do about the failures that have a name.
func explain(path string, err error) error {
	e, ok := errors.AsType[*modernc.Error](err)
	if !ok {
		return err
	}
	switch e.Code() & 0xff {
	case codes.SQLITE_CORRUPT, codes.SQLITE_NOTADB:
		return fmt.Errorf("%s is damaged or no database; restore it from a backup: %w", path, err)
	case codes.SQLITE_FULL:
		return fmt.Errorf("no space left to write %s: %w", path, err)
	case codes.SQLITE_BUSY:
		return fmt.Errorf("another program holds a lock on %s: %w", path, err)
	}
	return err
}

// lostSync reports whether err says that data could not be made durable. What the kernel held for the file may be gone then
// and a later sync may succeed all the same, so nothing written from here on can be promised.
func lostSync(err error) bool {
	e, ok := errors.AsType[*modernc.Error](err)
	return ok && (e.Code() == codes.SQLITE_IOERR_FSYNC || e.Code() == codes.SQLITE_IOERR_DIR_FSYNC)
}
