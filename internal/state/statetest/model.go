package statetest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"penstock.dev/penstock/internal/state"
)

// model is what a store should hold.
type model struct {
	revision state.Revision
	docs     map[modelID]modelDoc
}

type modelID struct {
	kind state.Kind
	id   string
}

type modelDoc struct {
	revision state.Revision
	body     string
	keys     []state.Key // in order, each once
}

func (m model) clone() model {
	return model{m.revision, maps.Clone(m.docs)}
}

// list does what state.Reader's List promises, the slow way.
func (m model) list(kind state.Kind, q state.Query) []state.Document {
	docs := []state.Document{}
	for id, d := range m.docs {
		if id.kind == kind && id.id > q.After && (q.By == (state.Key{}) || slices.Contains(d.keys, q.By)) {
			docs = append(docs, state.Document{Kind: kind, ID: id.id, Revision: d.revision, Body: []byte(d.body)})
		}
	}
	slices.SortFunc(docs, func(a, b state.Document) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	if q.Limit > 0 && len(docs) > q.Limit {
		docs = docs[:q.Limit]
	}
	return docs
}

var (
	modelKinds  = []state.Kind{"stack", "fleet"}
	modelIDs    = []string{"a", "b", "c", "d", "e"}
	modelValues = []string{"", "1", "2"}
)

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func randomKeys(r *rand.Rand) []state.Key {
	var keys []state.Key
	for range r.IntN(4) {
		keys = append(keys, state.Key{Name: pick(r, []string{"x", "y"}), Value: pick(r, modelValues)})
	}
	return keys
}

// testModel runs random transactions on the store and on a model and compares all that can be read.
func testModel(t *testing.T, f *fixture) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	m := model{docs: map[modelID]modelDoc{}}
	abort := errors.New("abort")
	for step := range 300 {
		if step%100 == 99 {
			f.reopen(t)
		}
		next := m.clone()
		fail := r.IntN(5) == 0
		wrote := map[modelID]bool{} // deleted?
		steps := 1 + r.IntN(5)
		revision, err := f.Update(t.Context(), func(tx state.Tx) error {
			pending := m.revision + 1 // known in advance: this test writes alone, and asks only for stores without gaps
			for range steps {
				id := modelID{pick(r, modelKinds), pick(r, modelIDs)}
				switch r.IntN(3) {
				case 0:
					if err := tx.Delete(id.kind, id.id); err != nil {
						return err
					}
					if _, ok := next.docs[id]; ok {
						delete(next.docs, id)
						wrote[id] = true
					}
				default:
					body, keys := fmt.Sprint(r.IntN(3)), randomKeys(r)
					if err := tx.Put(id.kind, id.id, []byte(body), keys); err != nil {
						return err
					}
					slices.SortFunc(keys, func(a, b state.Key) int {
						if a.Name < b.Name || a.Name == b.Name && a.Value < b.Value {
							return -1
						}
						return 1
					})
					keys = slices.Compact(keys)
					if old, ok := next.docs[id]; !ok || old.body != body || !slices.Equal(old.keys, keys) {
						next.docs[id] = modelDoc{pending, body, keys}
						wrote[id] = false
					}
				}
			}
			if len(wrote) > 0 {
				next.revision = pending
			}
			if err := next.compare(t, tx, r); err != nil {
				return err
			}
			if fail {
				return abort
			}
			return nil
		})
		switch {
		case fail:
			wantError(t, "update", err, abort)
		case err != nil:
			t.Fatalf("step %d: %v", step, err)
		default:
			wantEqual(t, "revision", revision, next.revision)
			if len(wrote) > 0 {
				changes, err := f.Changes(t.Context(), m.revision)
				wantError(t, "changes", err, nil)
				got := map[modelID]bool{}
				for _, c := range changes {
					got[modelID{c.Kind, c.ID}] = c.Deleted
				}
				wantEqual(t, "changes", len(got), len(wrote))
				if !maps.Equal(got, wrote) {
					t.Fatalf("step %d: got changes %v, want %v", step, got, wrote)
				}
			}
			m = next
		}
		f.view(t, func(reader state.Reader) error { return m.compare(t, reader, r) })
	}
}

// compare reads everything in a random way.
func (m model) compare(t *testing.T, reader state.Reader, r *rand.Rand) error {
	t.Helper()
	revision, err := reader.Revision()
	if err != nil {
		return err
	}
	wantEqual(t, "revision", revision, m.revision)
	for _, kind := range modelKinds {
		q := state.Query{Limit: r.IntN(4), After: pick(r, append(modelIDs, ""))}
		if r.IntN(2) == 0 {
			q.By = state.Key{Name: pick(r, []string{"x", "y", "z"}), Value: pick(r, modelValues)}
		}
		for _, q := range []state.Query{{}, q} {
			got, err := reader.List(kind, q)
			if err != nil {
				return err
			}
			wantEqual(t, fmt.Sprintf("list of %s, %+v", kind, q), append([]state.Document{}, got...), m.list(kind, q))
		}
		n, err := reader.Count(kind, q.By)
		if err != nil {
			return err
		}
		wantEqual(t, fmt.Sprintf("count of %s, %v", kind, q.By), n, len(m.list(kind, state.Query{By: q.By})))
		id := pick(r, modelIDs)
		d, err := reader.Get(kind, id)
		if _, ok := m.docs[modelID{kind, id}]; !ok {
			wantError(t, "get", err, state.ErrNotFound)
			continue
		}
		if err != nil {
			return err
		}
		wantEqual(t, "document", d.Body, []byte(m.docs[modelID{kind, id}].body))
	}
	return nil
}
