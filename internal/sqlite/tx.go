package sqlite

import (
	"bytes"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"penstock.dev/penstock/internal/state"
)

var errEnded = errors.New("transaction used after its function returned")

// reader is the state that one transaction of its connection sees.
type reader struct {
	conn *conn
	stop func() error // why it must not be used any more, or nil
}

// Get implements state.Reader.
func (r *reader) Get(kind state.Kind, id string) (state.Document, error) {
	if err := r.stop(); err != nil {
		return state.Document{}, err
	}
	d := state.Document{Kind: kind, ID: id}
	found := false
	err := r.conn.query(func(row []driver.Value) error {
		found = true
		d.Revision = state.Revision(row[0].(int64))
		d.Body = row[1].([]byte)
		return nil
	}, "SELECT revision, body FROM resource WHERE kind = ? AND id = ?", string(kind), id)
	if err != nil {
		return state.Document{}, fmt.Errorf("read %s %s: %w", kind, id, err)
	}
	if !found {
		return state.Document{}, state.ErrNotFound
	}
	return d, nil
}

// List implements state.Reader.
func (r *reader) List(kind state.Kind, q state.Query) ([]state.Document, error) {
	if err := r.stop(); err != nil {
		return nil, err
	}
	if q.Limit < 0 {
		return nil, fmt.Errorf("list %s: limit %d is negative", kind, q.Limit)
	}
	limit := int64(q.Limit)
	if limit == 0 {
		limit = -1
	}
	var docs []state.Document
	row := func(row []driver.Value) error {
		docs = append(docs, state.Document{
			Kind:     kind,
			ID:       row[0].(string),
			Revision: state.Revision(row[1].(int64)),
			Body:     row[2].([]byte),
		})
		if len(docs)%1024 == 0 {
			return r.stop()
		}
		return nil
	}
	var err error
	if q.By == (state.Key{}) {
		err = r.conn.query(row, "SELECT id, revision, body FROM resource WHERE kind = ? AND id > ? ORDER BY id LIMIT ?",
			string(kind), q.After, limit)
	} else { // CROSS JOIN: the key's rows are few and in order; never scan the documents
		err = r.conn.query(row, `SELECT d.id, d.revision, d.body
			FROM resource_key AS k CROSS JOIN resource AS d ON d.kind = k.kind AND d.id = k.id
			WHERE k.kind = ? AND k.name = ? AND k.value = ? AND k.id > ? ORDER BY k.id LIMIT ?`,
			string(kind), q.By.Name, q.By.Value, q.After, limit)
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", kind, err)
	}
	return docs, nil
}

// Count implements state.Reader.
func (r *reader) Count(kind state.Kind, by state.Key) (int, error) {
	if err := r.stop(); err != nil {
		return 0, err
	}
	var n int64
	var err error
	if by == (state.Key{}) {
		n, err = r.conn.integer("SELECT count(*) FROM resource WHERE kind = ?", string(kind))
	} else {
		n, err = r.conn.integer("SELECT count(*) FROM resource_key WHERE kind = ? AND name = ? AND value = ?", string(kind), by.Name, by.Value)
	}
	if err != nil {
		return 0, fmt.Errorf("count %s: %w", kind, err)
	}
	return int(n), nil
}

// Revision implements state.Reader.
func (r *reader) Revision() (state.Revision, error) {
	if err := r.stop(); err != nil {
		return 0, err
	}
	return newestRevision(r.conn)
}

func newestRevision(c *conn) (state.Revision, error) {
	n, err := c.integer("SELECT max(revision) FROM change")
	if err != nil {
		return 0, fmt.Errorf("read revision: %w", err)
	}
	return state.Revision(n), nil
}

// tx is one function's turn inside the writer's transaction.
type tx struct {
	reader
	revision state.Revision // what its writes carry
	wrote    bool
}

// Revision implements state.Reader.
func (t *tx) Revision() (state.Revision, error) {
	if err := t.stop(); err != nil {
		return 0, err
	}
	if t.wrote {
		return t.revision, nil
	}
	return t.revision - 1, nil
}

// Put implements state.Tx.
func (t *tx) Put(kind state.Kind, id string, body []byte, keys []state.Key) error {
	if err := t.stop(); err != nil {
		return err
	}
	if err := validate(kind, id, body, keys); err != nil {
		return fmt.Errorf("write %s %q: %w", kind, id, err)
	}
	encoded, keys := canonical(keys)
	old, found, err := t.stored(kind, id)
	if err != nil {
		return fmt.Errorf("read %s %s: %w", kind, id, err)
	}
	if found && old.keys == encoded && bytes.Equal(old.body, body) {
		return nil
	}
	if err := t.begin(); err != nil {
		return fmt.Errorf("write %s %s: %w", kind, id, err)
	}
	err = t.conn.exec(`INSERT INTO resource (kind, id, revision, keys, body) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (kind, id) DO UPDATE SET revision = excluded.revision, keys = excluded.keys, body = excluded.body`,
		string(kind), id, int64(t.revision), encoded, body)
	if err == nil && old.keys != encoded {
		err = t.replaceKeys(kind, id, old.keys, keys)
	}
	if err == nil {
		err = t.log(kind, id, false)
	}
	if err != nil {
		return fmt.Errorf("write %s %s: %w", kind, id, err)
	}
	return nil
}

// Delete implements state.Tx.
func (t *tx) Delete(kind state.Kind, id string) error {
	if err := t.stop(); err != nil {
		return err
	}
	old, found, err := t.stored(kind, id)
	if err != nil {
		return fmt.Errorf("read %s %s: %w", kind, id, err)
	}
	if !found {
		return nil
	}
	err = t.begin()
	if err == nil {
		err = t.conn.exec("DELETE FROM resource WHERE kind = ? AND id = ?", string(kind), id)
	}
	if err == nil {
		err = t.replaceKeys(kind, id, old.keys, nil)
	}
	if err == nil {
		err = t.log(kind, id, true)
	}
	if err != nil {
		return fmt.Errorf("delete %s %s: %w", kind, id, err)
	}
	return nil
}

// begin marks the place to return to, at the first write: most turns that fail have written nothing.
func (t *tx) begin() error {
	if t.wrote {
		return nil
	}
	if err := t.conn.exec("SAVEPOINT turn"); err != nil {
		return err
	}
	t.wrote = true
	return nil
}

type storedDocument struct {
	keys string
	body []byte
}

func (t *tx) stored(kind state.Kind, id string) (d storedDocument, found bool, err error) {
	err = t.conn.query(func(row []driver.Value) error {
		found = true
		d.keys = row[0].(string)
		d.body = row[1].([]byte)
		return nil
	}, "SELECT keys, body FROM resource WHERE kind = ? AND id = ?", string(kind), id)
	return d, found, err
}

// replaceKeys removes the old keys that are not among the new ones and adds the new ones that are not among the old.
func (t *tx) replaceKeys(kind state.Kind, id, encoded string, keys []state.Key) error {
	old, err := decodeKeys(encoded)
	if err != nil {
		return err
	}
	for _, k := range old {
		if slices.Contains(keys, k) {
			continue
		}
		err := t.conn.exec("DELETE FROM resource_key WHERE kind = ? AND name = ? AND value = ? AND id = ?", string(kind), k.Name, k.Value, id)
		if err != nil {
			return err
		}
	}
	for _, k := range keys {
		if slices.Contains(old, k) {
			continue
		}
		err := t.conn.exec("INSERT INTO resource_key (kind, name, value, id) VALUES (?, ?, ?, ?)", string(kind), k.Name, k.Value, id)
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) log(kind state.Kind, id string, deleted bool) error {
	var flag int64
	if deleted {
		flag = 1
	}
	return t.conn.exec(`INSERT INTO change (revision, kind, id, deleted) VALUES (?, ?, ?, ?)
		ON CONFLICT (revision, kind, id) DO UPDATE SET deleted = excluded.deleted`,
		int64(t.revision), string(kind), id, flag)
}

// validate refuses what some store could not keep as it is.
func validate(kind state.Kind, id string, body []byte, keys []state.Key) error {
	if kind == "" || id == "" {
		return errors.New("kind or ID is empty")
	}
	if !text(string(kind)) || !text(id) {
		return errors.New("kind or ID is not UTF-8 without NUL")
	}
	for _, k := range keys {
		if k.Name == "" {
			return errors.New("name of a key is empty")
		}
		if !text(k.Name) || !text(k.Value) {
			return fmt.Errorf("key %q is not UTF-8 without NUL", k.Name)
		}
	}
	if !json.Valid(body) {
		return errors.New("body is not JSON")
	}
	return nil
}

func text(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// canonical returns the keys in order, each once, and as they are stored with the document.
func canonical(keys []state.Key) (string, []state.Key) {
	if len(keys) == 0 {
		return "", nil
	}
	keys = slices.Clone(keys)
	slices.SortFunc(keys, func(a, b state.Key) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return strings.Compare(a.Value, b.Value)
	})
	keys = slices.Compact(keys)
	pairs := make([][2]string, len(keys))
	for i, k := range keys {
		pairs[i] = [2]string{k.Name, k.Value}
	}
	encoded, _ := json.Marshal(pairs) // strings always encode
	return string(encoded), keys
}

func decodeKeys(encoded string) ([]state.Key, error) {
	if encoded == "" {
		return nil, nil
	}
	var pairs [][2]string
	if err := json.Unmarshal([]byte(encoded), &pairs); err != nil {
		return nil, fmt.Errorf("decode stored keys: %w", err)
	}
	keys := make([]state.Key, len(pairs))
	for i, p := range pairs {
		keys[i] = state.Key{Name: p[0], Value: p[1]}
	}
	return keys, nil
}
