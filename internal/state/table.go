package state

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Table is a typed view of one kind of document. Tables are values of the domain packages.
type Table[T any] struct {
	Kind Kind
	ID   func(*T) string
	Keys func(*T) []Key // secondary keys; may be nil
}

// Get returns the document as T. The second result is false when it does not exist.
func (t Table[T]) Get(r Reader, id string) (*T, bool, error) {
	d, err := r.Get(t.Kind, id)
	if errors.Is(err, ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	v, err := t.decode(d)
	return v, err == nil, err
}

// List returns the documents that q selects, in order of ID.
func (t Table[T]) List(r Reader, q Query) ([]*T, error) {
	docs, err := r.List(t.Kind, q)
	if err != nil {
		return nil, err
	}
	out := make([]*T, 0, len(docs))
	for _, d := range docs {
		v, err := t.decode(d)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// By returns the documents with one secondary key, in order of ID.
func (t Table[T]) By(r Reader, name, value string) ([]*T, error) {
	return t.List(r, Query{By: Key{Name: name, Value: value}})
}

// Put writes v.
func (t Table[T]) Put(tx Tx, v *T) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s %s: %w", t.Kind, t.ID(v), err)
	}
	var keys []Key
	if t.Keys != nil {
		keys = t.Keys(v)
	}
	return tx.Put(t.Kind, t.ID(v), body, keys)
}

// Delete removes the document with this ID, if there is one.
func (t Table[T]) Delete(tx Tx, id string) error { return tx.Delete(t.Kind, id) }

func (t Table[T]) decode(d Document) (*T, error) {
	v := new(T)
	if err := json.Unmarshal(d.Body, v); err != nil {
		return nil, fmt.Errorf("decode %s %s: %w", d.Kind, d.ID, err)
	}
	return v, nil
}
