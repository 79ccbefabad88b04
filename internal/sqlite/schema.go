package sqlite

import (
	"database/sql/driver"
	"errors"
	"fmt"
)

// migrations lead from an empty file to the newest schema, one version each. Released ones are never edited.
var migrations = [][]string{
	{
		// keys is the canonical JSON list of the document's rows in resource_key: [["name","value"],…] in order, "" for none.
		`CREATE TABLE resource (
			kind     TEXT NOT NULL,
			id       TEXT NOT NULL,
			revision INTEGER NOT NULL,
			keys     TEXT NOT NULL,
			body     BLOB NOT NULL,
			PRIMARY KEY (kind, id)
		) WITHOUT ROWID, STRICT`,
		`CREATE TABLE resource_key (
			kind  TEXT NOT NULL,
			name  TEXT NOT NULL,
			value TEXT NOT NULL,
			id    TEXT NOT NULL,
			PRIMARY KEY (kind, name, value, id)
		) WITHOUT ROWID, STRICT`,
		// Revisions have no gaps, so the oldest row tells how far the feed reaches back.
		`CREATE TABLE change (
			revision INTEGER NOT NULL,
			kind     TEXT NOT NULL,
			id       TEXT NOT NULL,
			deleted  INTEGER NOT NULL,
			PRIMARY KEY (revision, kind, id)
		) WITHOUT ROWID, STRICT`,
	},
}

// migrate brings the file to the newest schema, all of it or nothing. It refuses files of newer programs and of others.
func migrate(c *conn) (err error) {
	if err := c.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.exec("ROLLBACK"))
		}
	}()
	version, err := schemaVersion(c)
	if err != nil {
		return err
	}
	if version > int64(len(migrations)) {
		return fmt.Errorf("%s has schema version %d, written by a newer release; this one knows versions up to %d", c.path, version, len(migrations))
	}
	for ; version < int64(len(migrations)); version++ {
		for _, statement := range migrations[version] {
			if err := c.exec(statement); err != nil {
				return fmt.Errorf("migrate %s to schema version %d: %w", c.path, version+1, err)
			}
		}
		if err := c.exec("INSERT INTO meta (name, value) VALUES ('schema', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", version+1); err != nil {
			return fmt.Errorf("migrate %s to schema version %d: %w", c.path, version+1, err)
		}
	}
	return c.exec("COMMIT")
}

// schemaVersion is 0 for a file that is still empty; it gets its meta table here.
func schemaVersion(c *conn) (int64, error) {
	var tables, meta int64
	err := c.query(func(row []driver.Value) error {
		tables++
		if row[0] == "meta" {
			meta++
		}
		return nil
	}, "SELECT name FROM sqlite_schema WHERE type = 'table'")
	if err != nil {
		return 0, err
	}
	if tables == 0 {
		return 0, c.exec("CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID, STRICT")
	}
	if meta == 0 {
		return 0, fmt.Errorf("%s is a database of another program", c.path)
	}
	version, err := c.integer("SELECT value FROM meta WHERE name = 'schema'")
	if err != nil || version <= 0 {
		return 0, errors.Join(fmt.Errorf("%s is a database of another program: no schema version", c.path), err)
	}
	return version, nil
}
