// Package statetest is the suite that every implementation of state.Store passes.
package statetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/state"
)

// FeedRevisions is how many revisions the change feed of the stores under test reaches back at least.
const FeedRevisions = 1000

// Store is a store that can be closed.
type Store interface {
	state.Store
	io.Closer
}

// Open opens the store whose data is in dir, empty the first time. The suite closes it, and may open it again.
type Open func(t testing.TB, dir string) Store

// patience bounds every wait. A test that runs into it has failed.
const patience = 30 * time.Second

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for _, tc := range []struct {
		name string
		test func(t *testing.T, f *fixture)
	}{
		{"empty", testEmpty},
		{"put, get, delete", testDocuments},
		{"bad input is refused", testBadInput},
		{"any UTF-8 is kept", testText},
		{"large document", testLarge},
		{"keys are replaced", testKeys},
		{"list in order, in pages", testList},
		{"a transaction reads its own writes", testReadYourWrites},
		{"an error undoes the transaction", testRollback},
		{"an error undoes only its own transaction", testRollbackAmongMany},
		{"a panic undoes only its own transaction", testPanic},
		{"an ended goroutine undoes only its own transaction", testGoexit},
		{"a view stays as it was", testViewIsolation},
		{"a view never sees half a transaction", testViewAtomic},
		{"a transaction is over when its function returned", testEnded},
		{"lost updates do not happen", testCounter},
		{"revisions increase and survive", testRevisions},
		{"a write that changes nothing makes no revision", testNoChange},
		{"change feed in order", testChanges},
		{"a large revision is one piece of the feed", testLargeRevision},
		{"change feed is complete with many writers", testChangesConcurrent},
		{"change feed ends", testCompacted},
		{"change feed of the future", testFuture},
		{"cancelled context", testCancelled},
		{"close ends waiting", testClose},
		{"random transactions match a map", testModel},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := &fixture{dir: t.TempDir(), open: open}
			f.Store = open(t, f.dir)
			t.Cleanup(func() {
				if err := f.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			tc.test(t, f)
		})
	}
}

type fixture struct {
	Store
	dir  string
	open Open
}

// reopen closes the store and opens it again.
func (f *fixture) reopen(t *testing.T) {
	t.Helper()
	if err := f.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	f.Store = f.open(t, f.dir)
}

func (f *fixture) update(t *testing.T, fn func(state.Tx) error) state.Revision {
	t.Helper()
	revision, err := f.Update(t.Context(), fn)
	if err != nil {
		t.Fatalf("update: %v", err)
	}
	return revision
}

func (f *fixture) put(t *testing.T, kind state.Kind, id, body string, keys ...state.Key) state.Revision {
	t.Helper()
	return f.update(t, func(tx state.Tx) error { return tx.Put(kind, id, []byte(body), keys) })
}

func (f *fixture) view(t *testing.T, fn func(state.Reader) error) {
	t.Helper()
	if err := f.View(t.Context(), fn); err != nil {
		t.Fatalf("view: %v", err)
	}
}

func (f *fixture) revision(t *testing.T) state.Revision {
	t.Helper()
	var revision state.Revision
	f.view(t, func(r state.Reader) (err error) {
		revision, err = r.Revision()
		return err
	})
	return revision
}

// bodies returns what List finds, as ID=body.
func (f *fixture) bodies(t *testing.T, kind state.Kind, q state.Query) []string {
	t.Helper()
	var got []string
	f.view(t, func(r state.Reader) (err error) {
		got, err = list(r, kind, q)
		return err
	})
	return got
}

func list(r state.Reader, kind state.Kind, q state.Query) ([]string, error) {
	docs, err := r.List(kind, q)
	if err != nil {
		return nil, err
	}
	got := []string{}
	for _, d := range docs {
		if d.Kind != kind {
			return nil, fmt.Errorf("list of %s has a %s", kind, d.Kind)
		}
		got = append(got, d.ID+"="+string(d.Body))
	}
	return got, nil
}

func wantEqual[T any](t testing.TB, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%s differs (-want +got):\n%s", what, diff)
	}
}

func wantError(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: got error %v, want %v", what, got, want)
	}
}

// within fails when fn takes longer than patience.
func within(t testing.TB, what string, fn func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		buf := make([]byte, 1<<20)
		t.Fatalf("%s did not end\n%s", what, buf[:runtime.Stack(buf, true)])
	}
}

func testEmpty(t *testing.T, f *fixture) {
	f.view(t, func(r state.Reader) error {
		revision, err := r.Revision()
		if err != nil {
			return err
		}
		wantEqual(t, "revision", revision, 0)
		_, err = r.Get("stack", "a")
		wantError(t, "get", err, state.ErrNotFound)
		docs, err := r.List("stack", state.Query{})
		if err != nil {
			return err
		}
		wantEqual(t, "documents", len(docs), 0)
		n, err := r.Count("stack", state.Key{})
		wantEqual(t, "count", n, 0)
		return err
	})
}

func testDocuments(t *testing.T, f *fixture) {
	first := f.put(t, "stack", "a", `{"n":1}`)
	second := f.put(t, "stack", "b", `{"n":2}`)
	other := f.put(t, "fleet", "a", `{"n":3}`) // same ID, other kind
	get := func(kind state.Kind, id string) (d state.Document, err error) {
		f.view(t, func(r state.Reader) error {
			d, err = r.Get(kind, id)
			return nil
		})
		return d, err
	}
	for _, want := range []state.Document{
		{Kind: "stack", ID: "a", Revision: first, Body: []byte(`{"n":1}`)},
		{Kind: "stack", ID: "b", Revision: second, Body: []byte(`{"n":2}`)},
		{Kind: "fleet", ID: "a", Revision: other, Body: []byte(`{"n":3}`)},
	} {
		got, err := get(want.Kind, want.ID)
		wantError(t, "get", err, nil)
		wantEqual(t, "document", got, want)
	}
	changed := f.put(t, "stack", "a", `{"n":4}`)
	f.reopen(t)
	got, err := get("stack", "a")
	wantError(t, "get", err, nil)
	wantEqual(t, "document", got, state.Document{Kind: "stack", ID: "a", Revision: changed, Body: []byte(`{"n":4}`)})

	f.update(t, func(tx state.Tx) error { return tx.Delete("stack", "a") })
	_, err = get("stack", "a")
	wantError(t, "get deleted", err, state.ErrNotFound)
	if _, err := get("fleet", "a"); err != nil {
		t.Fatalf("document of another kind went too: %v", err)
	}
	f.update(t, func(tx state.Tx) error { return tx.Delete("stack", "never was") })
	f.put(t, "stack", "a", `{"n":5}`)
	wantEqual(t, "documents", f.bodies(t, "stack", state.Query{}), []string{`a={"n":5}`, `b={"n":2}`})
}

func testBadInput(t *testing.T, f *fixture) {
	before := f.put(t, "stack", "a", `{}`)
	for _, tc := range []struct {
		name string
		kind state.Kind
		id   string
		body string
		key  state.Key
	}{
		{"no kind", "", "a", `{}`, state.Key{}},
		{"no ID", "stack", "", `{}`, state.Key{}},
		{"kind with NUL", "sta\x00ck", "a", `{}`, state.Key{}},
		{"ID with NUL", "stack", "a\x00b", `{}`, state.Key{}},
		{"ID is not UTF-8", "stack", "\xff", `{}`, state.Key{}},
		{"empty body", "stack", "a", ``, state.Key{}},
		{"body is not JSON", "stack", "a", `{"n":`, state.Key{}},
		{"two values in the body", "stack", "a", `{}{}`, state.Key{}},
		{"key without name", "stack", "a", `{}`, state.Key{Value: "v"}},
		{"key with NUL", "stack", "a", `{}`, state.Key{Name: "k", Value: "\x00"}},
		{"key is not UTF-8", "stack", "a", `{}`, state.Key{Name: "\xc3", Value: "v"}},
	} {
		var keys []state.Key
		if tc.key != (state.Key{}) {
			keys = append(keys, tc.key)
		}
		_, err := f.Update(t.Context(), func(tx state.Tx) error { return tx.Put(tc.kind, tc.id, []byte(tc.body), keys) })
		if err == nil {
			t.Errorf("%s: accepted", tc.name)
		}
	}
	if err := f.View(t.Context(), func(r state.Reader) error {
		_, err := r.List("stack", state.Query{Limit: -1})
		return err
	}); err == nil {
		t.Error("negative limit: accepted")
	}
	wantEqual(t, "revision", f.revision(t), before)

	// A refused write is no reason for the transaction to fail, if its function goes on.
	f.update(t, func(tx state.Tx) error {
		if err := tx.Put("stack", "a", nil, nil); err == nil {
			t.Error("empty body accepted")
		}
		return tx.Put("stack", "b", []byte(`1`), nil)
	})
	wantEqual(t, "documents", f.bodies(t, "stack", state.Query{}), []string{`a={}`, `b=1`})
}

func testText(t *testing.T, f *fixture) {
	names := []string{" ", "%", "'", `"`, "a/b:c?d#e", "\n", "\x01", "\u007f", "ä", "日本", "\u2028", "\U0001f600", "<&>", `[["x","y"]]`, strings.Repeat("long", 500)}
	for _, name := range names {
		body := `{"v":"\u0000 ` + "\U0001f600" + `"}`
		f.put(t, state.Kind("k"+name), name, body, state.Key{Name: name, Value: name}, state.Key{Name: "empty"})
		for _, q := range []state.Query{{}, {By: state.Key{Name: name, Value: name}}, {By: state.Key{Name: "empty"}}} {
			wantEqual(t, fmt.Sprintf("list of %q by %q", name, q.By), f.bodies(t, state.Kind("k"+name), q), []string{name + "=" + body})
		}
		f.put(t, state.Kind("k"+name), name, body) // finds its old keys again
		wantEqual(t, "list after the keys went", f.bodies(t, state.Kind("k"+name), state.Query{By: state.Key{Name: name, Value: name}}), []string{})
	}
}

func testLarge(t *testing.T, f *fixture) {
	body := `"` + strings.Repeat("x", 4<<20) + `"`
	f.put(t, "image", "large", body)
	f.reopen(t)
	f.view(t, func(r state.Reader) error {
		d, err := r.Get("image", "large")
		if err == nil && string(d.Body) != body {
			t.Errorf("body of %d bytes differs", len(d.Body))
		}
		return err
	})
}

func testKeys(t *testing.T, f *fixture) {
	key := func(name, value string) state.Key { return state.Key{Name: name, Value: value} }
	check := func(by state.Key, want ...string) {
		t.Helper()
		wantEqual(t, fmt.Sprintf("list by %v", by), f.bodies(t, "eni", state.Query{By: by}), append([]string{}, want...))
		f.view(t, func(r state.Reader) error {
			n, err := r.Count("eni", by)
			wantEqual(t, fmt.Sprintf("count by %v", by), n, len(want))
			return err
		})
	}
	f.put(t, "eni", "a", `1`, key("vpc", "v1"), key("subnet", "s1"), key("group", "g1"), key("group", "g2"), key("group", "g1"))
	f.put(t, "eni", "b", `2`, key("vpc", "v1"), key("subnet", "s2"))
	f.put(t, "route", "c", `3`, key("vpc", "v1"))
	check(key("vpc", "v1"), "a=1", "b=2")
	check(key("group", "g1"), "a=1")
	check(key("group", "g2"), "a=1")
	check(key("group", "v1"))
	check(key("subnet", ""))
	check(state.Key{}, "a=1", "b=2")

	f.put(t, "eni", "a", `1`, key("group", "g2"), key("vpc", "v2")) // body as before
	check(key("vpc", "v1"), "b=2")
	check(key("vpc", "v2"), "a=1")
	check(key("subnet", "s1"))
	check(key("group", "g1"))
	check(key("group", "g2"), "a=1")
	f.put(t, "eni", "a", `4`)
	check(key("vpc", "v2"))
	f.put(t, "eni", "a", `5`, key("vpc", "v1"))
	check(key("vpc", "v1"), "a=5", "b=2")

	_, err := f.Update(t.Context(), func(tx state.Tx) error {
		if err := tx.Put("eni", "a", []byte(`6`), []state.Key{key("vpc", "v9")}); err != nil {
			return err
		}
		if err := tx.Delete("eni", "b"); err != nil {
			return err
		}
		return context.DeadlineExceeded
	})
	wantError(t, "update", err, context.DeadlineExceeded)
	check(key("vpc", "v1"), "a=5", "b=2")
	check(key("vpc", "v9"))

	f.update(t, func(tx state.Tx) error { return tx.Delete("eni", "a") })
	check(key("vpc", "v1"), "b=2")
	f.put(t, "eni", "a", `7`)
	check(key("vpc", "v1"), "b=2")
}

func testList(t *testing.T, f *fixture) {
	ids := []string{"B", "a", "a ", "a-1", "a-10", "a-2", "aa", "z", "ä"} // in order of their bytes
	f.update(t, func(tx state.Tx) error {
		for _, i := range rand.Perm(len(ids)) {
			if err := tx.Put("stack", ids[i], []byte(`0`), []state.Key{{Name: "all"}, {Name: "half", Value: fmt.Sprint(i % 2)}}); err != nil {
				return err
			}
		}
		return tx.Put("stackx", "b", []byte(`0`), []state.Key{{Name: "all"}})
	})
	odd := []string{}
	for i := 1; i < len(ids); i += 2 {
		odd = append(odd, ids[i])
	}
	for name, tc := range map[string]struct {
		by   state.Key
		want []string
	}{
		"all of the kind": {state.Key{}, ids},
		"key of all":      {state.Key{Name: "all"}, ids},
		"key of some":     {state.Key{Name: "half", Value: "1"}, odd},
	} {
		for limit := range len(ids) + 2 {
			got := []string{}
			for after := ""; ; {
				var page []state.Document
				f.view(t, func(r state.Reader) (err error) {
					page, err = r.List("stack", state.Query{By: tc.by, After: after, Limit: limit})
					return err
				})
				if limit > 0 && len(page) > limit {
					t.Fatalf("%s: got a page of %d, want at most %d", name, len(page), limit)
				}
				for _, d := range page {
					got = append(got, d.ID)
				}
				if limit == 0 || len(page) < limit {
					break
				}
				after = page[len(page)-1].ID
			}
			wantEqual(t, fmt.Sprintf("%s in pages of %d", name, limit), got, tc.want)
		}
	}
	wantEqual(t, "after what is not there", f.bodies(t, "stack", state.Query{After: "a-11"}), []string{"a-2=0", "aa=0", "z=0", "ä=0"})
}

func testReadYourWrites(t *testing.T, f *fixture) {
	before := f.put(t, "stack", "old", `0`, state.Key{Name: "k", Value: "v"})
	f.put(t, "stack", "gone", `0`, state.Key{Name: "k", Value: "v"})
	before++
	committed := f.update(t, func(tx state.Tx) error {
		revision, err := tx.Revision()
		if err != nil {
			return err
		}
		wantEqual(t, "revision before a write", revision, before)
		if err := errors.Join(
			tx.Put("stack", "new", []byte(`1`), []state.Key{{Name: "k", Value: "v"}}),
			tx.Put("stack", "old", []byte(`2`), nil),
			tx.Delete("stack", "gone"),
		); err != nil {
			return err
		}
		revision, err = tx.Revision()
		if err != nil {
			return err
		}
		if revision <= before {
			t.Errorf("got revision %d after a write, want more than %d", revision, before)
		}
		d, err := tx.Get("stack", "new")
		if err != nil {
			return err
		}
		wantEqual(t, "own document", d, state.Document{Kind: "stack", ID: "new", Revision: revision, Body: []byte(`1`)})
		_, err = tx.Get("stack", "gone")
		wantError(t, "get own deletion", err, state.ErrNotFound)
		all, err := list(tx, "stack", state.Query{})
		if err != nil {
			return err
		}
		wantEqual(t, "list", all, []string{"new=1", "old=2"})
		byKey, err := list(tx, "stack", state.Query{By: state.Key{Name: "k", Value: "v"}})
		if err != nil {
			return err
		}
		wantEqual(t, "list by key", byKey, []string{"new=1"})
		n, err := tx.Count("stack", state.Key{Name: "k", Value: "v"})
		wantEqual(t, "count", n, 1)
		return err
	})
	wantEqual(t, "revision", f.revision(t), committed)
}

func testRollback(t *testing.T, f *fixture) {
	before := f.put(t, "stack", "a", `0`)
	failure := errors.New("no")
	revision, err := f.Update(t.Context(), func(tx state.Tx) error {
		if err := errors.Join(tx.Put("stack", "b", []byte(`1`), nil), tx.Delete("stack", "a")); err != nil {
			return err
		}
		return failure
	})
	if err != failure { //nolint:errorlint // as it is, not wrapped
		t.Fatalf("got error %v, want it as it was returned", err)
	}
	wantEqual(t, "revision of a failed update", revision, 0)
	wantEqual(t, "documents", f.bodies(t, "stack", state.Query{}), []string{"a=0"})
	wantEqual(t, "revision", f.revision(t), before)
	after := f.put(t, "stack", "c", `1`)
	changes, err := f.Changes(t.Context(), before)
	wantError(t, "changes", err, nil)
	wantEqual(t, "changes", changes, []state.Change{{Revision: after, Kind: "stack", ID: "c"}})
}

// amongMany runs 40 rounds of 16 concurrent transactions, each of which writes two documents; those with an odd number call
// spoil after that. None of what they wrote may stay, and all of the others.
func amongMany(t *testing.T, f *fixture, spoil func() error, check func(error)) {
	t.Helper()
	const writers, rounds = 16, 40
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for round := range rounds {
				id := fmt.Sprintf("%02d-%02d", w, round)
				_, err := f.Update(t.Context(), func(tx state.Tx) error {
					if err := errors.Join(
						tx.Put("left", id, []byte(`1`), []state.Key{{Name: "round", Value: fmt.Sprint(round)}}),
						tx.Put("right", id, []byte(`1`), nil),
					); err != nil {
						return err
					}
					if w%2 == 1 {
						return spoil()
					}
					return nil
				})
				if w%2 == 1 {
					check(err)
				} else if err != nil {
					t.Errorf("update %s: %v", id, err)
				}
			}
		})
	}
	within(t, "updates", group.Wait)
	want := []string{}
	for w := 0; w < writers; w += 2 {
		for round := range rounds {
			want = append(want, fmt.Sprintf("%02d-%02d=1", w, round))
		}
	}
	wantEqual(t, "left", f.bodies(t, "left", state.Query{}), want)
	wantEqual(t, "right", f.bodies(t, "right", state.Query{}), want)
	f.view(t, func(r state.Reader) error {
		n, err := r.Count("left", state.Key{Name: "round", Value: "7"})
		wantEqual(t, "count by key", n, writers/2)
		return err
	})
}

func testRollbackAmongMany(t *testing.T, f *fixture) {
	failure := errors.New("no")
	amongMany(t, f, func() error { return failure }, func(err error) {
		if err != failure { //nolint:errorlint // as it is, not wrapped
			t.Errorf("got error %v, want %v", err, failure)
		}
	})
}

func testPanic(t *testing.T, f *fixture) {
	amongMany(t, f, func() error { panic("on purpose") }, func(err error) {
		if err == nil || !strings.Contains(err.Error(), "on purpose") {
			t.Errorf("got error %v, want one that tells of the panic", err)
		}
	})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("panic of a view did not reach its caller")
			}
		}()
		_ = f.View(t.Context(), func(state.Reader) error { panic("on purpose") })
	}()
	f.put(t, "stack", "a", `1`)
	wantEqual(t, "documents", f.bodies(t, "stack", state.Query{}), []string{"a=1"})
}

func testGoexit(t *testing.T, f *fixture) {
	var failed atomic.Int32
	const writers = 16
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			defer failed.Add(1) // also runs when the goroutine that calls Update is the one that ends
			_, err := f.Update(t.Context(), func(tx state.Tx) error {
				if err := tx.Put("stack", fmt.Sprint(w), []byte(`1`), nil); err != nil {
					return err
				}
				if w%2 == 1 {
					runtime.Goexit()
				}
				return nil
			})
			if w%2 == 1 && err == nil {
				t.Error("ended goroutine: no error")
			}
		})
	}
	within(t, "updates", group.Wait)
	f.view(t, func(r state.Reader) error {
		n, err := r.Count("stack", state.Key{})
		wantEqual(t, "documents", n, writers/2)
		return err
	})
	f.put(t, "stack", "a", `1`)
}

func testViewIsolation(t *testing.T, f *fixture) {
	before := f.put(t, "stack", "a", `1`)
	f.view(t, func(r state.Reader) error {
		check := func(when string) {
			t.Helper()
			got, err := list(r, "stack", state.Query{})
			wantError(t, "list", err, nil)
			wantEqual(t, "documents "+when, got, []string{"a=1"})
			revision, err := r.Revision()
			wantError(t, "revision", err, nil)
			wantEqual(t, "revision "+when, revision, before)
		}
		check("at first")
		f.update(t, func(tx state.Tx) error {
			if err := tx.Put("stack", "a", []byte(`2`), nil); err != nil {
				return err
			}
			check("while a transaction writes")
			wantEqual(t, "documents of another view", f.bodies(t, "stack", state.Query{}), []string{"a=1"})
			return tx.Put("stack", "b", []byte(`2`), nil)
		})
		check("after the commit")
		wantEqual(t, "documents of a later view", f.bodies(t, "stack", state.Query{}), []string{"a=2", "b=2"})
		return nil
	})
}

func testViewAtomic(t *testing.T, f *fixture) {
	write := func(n int) error {
		_, err := f.Update(t.Context(), func(tx state.Tx) error {
			body := []byte(fmt.Sprint(n))
			return errors.Join(tx.Put("stack", "a", body, nil), tx.Put("stack", "b", body, nil))
		})
		return err
	}
	wantError(t, "update", write(0), nil)
	done := make(chan struct{})
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			last := state.Revision(0)
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := f.View(t.Context(), func(r state.Reader) error {
					a, err := r.Get("stack", "a")
					if err != nil {
						return err
					}
					runtime.Gosched()
					b, err := r.Get("stack", "b")
					if err != nil {
						return err
					}
					if string(a.Body) != string(b.Body) || a.Revision != b.Revision {
						return fmt.Errorf("saw %s at %d and %s at %d in one view", a.Body, a.Revision, b.Body, b.Revision)
					}
					if a.Revision < last {
						return fmt.Errorf("saw revision %d after %d", a.Revision, last)
					}
					last = a.Revision
					return nil
				}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for n := range 300 {
		if err := write(n); err != nil {
			t.Error(err)
		}
	}
	close(done)
	within(t, "views", group.Wait)
}

func testEnded(t *testing.T, f *fixture) {
	before := f.put(t, "stack", "a", `1`)
	var reader state.Reader
	var tx state.Tx
	f.view(t, func(r state.Reader) error {
		reader = r
		return nil
	})
	f.update(t, func(x state.Tx) error {
		tx = x
		return nil
	})
	for name, use := range map[string]func() error{
		"get":      func() error { _, err := reader.Get("stack", "a"); return err },
		"list":     func() error { _, err := reader.List("stack", state.Query{}); return err },
		"count":    func() error { _, err := reader.Count("stack", state.Key{}); return err },
		"revision": func() error { _, err := reader.Revision(); return err },
		"tx get":   func() error { _, err := tx.Get("stack", "a"); return err },
		"put":      func() error { return tx.Put("stack", "b", []byte(`1`), nil) },
		"delete":   func() error { return tx.Delete("stack", "a") },
	} {
		if err := use(); err == nil {
			t.Errorf("%s after the transaction: no error", name)
		}
	}
	wantEqual(t, "documents", f.bodies(t, "stack", state.Query{}), []string{"a=1"})
	wantEqual(t, "revision", f.revision(t), before)
}

func testCounter(t *testing.T, f *fixture) {
	const writers, each = 8, 50
	var group sync.WaitGroup
	for range writers {
		group.Go(func() {
			for range each {
				if _, err := f.Update(t.Context(), func(tx state.Tx) error {
					n := 0
					d, err := tx.Get("counter", "one")
					switch {
					case err == nil:
						if _, err := fmt.Sscan(string(d.Body), &n); err != nil {
							return err
						}
					case !errors.Is(err, state.ErrNotFound):
						return err
					}
					return tx.Put("counter", "one", []byte(fmt.Sprint(n+1)), nil)
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	within(t, "updates", group.Wait)
	wantEqual(t, "counter", f.bodies(t, "counter", state.Query{}), []string{fmt.Sprintf("one=%d", writers*each)})
}

func testRevisions(t *testing.T, f *fixture) {
	const writers, each = 8, 30
	var mu sync.Mutex
	seen := map[state.Revision]bool{}
	last := state.Revision(0)
	for round := range 3 {
		var group sync.WaitGroup
		for w := range writers {
			group.Go(func() {
				mine := last
				for i := range each {
					revision, err := f.Update(t.Context(), func(tx state.Tx) error {
						return tx.Put("stack", fmt.Sprint(w), []byte(fmt.Sprint(each*round+i)), nil)
					})
					if err != nil {
						t.Error(err)
						return
					}
					if revision <= mine {
						t.Errorf("got revision %d after %d", revision, mine)
					}
					mine = revision
					mu.Lock()
					if seen[revision] {
						t.Errorf("revision %d given twice", revision)
					}
					seen[revision] = true
					mu.Unlock()
				}
			})
		}
		within(t, "updates", group.Wait)
		newest := slices.Max(append(slices.Collect(maps.Keys(seen)), 0))
		wantEqual(t, "revision", f.revision(t), newest)
		last = newest
		f.reopen(t)
		wantEqual(t, "revision after opening again", f.revision(t), newest)
	}
}

func testNoChange(t *testing.T, f *fixture) {
	keys := []state.Key{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}}
	before := f.put(t, "stack", "a", `{"n":1}`, keys...)
	for name, fn := range map[string]func(state.Tx) error{
		"nothing":              func(state.Tx) error { return nil },
		"read":                 func(tx state.Tx) error { _, err := tx.Get("stack", "a"); return err },
		"same body and keys":   func(tx state.Tx) error { return tx.Put("stack", "a", []byte(`{"n":1}`), keys) },
		"keys in other order":  func(tx state.Tx) error { return tx.Put("stack", "a", []byte(`{"n":1}`), []state.Key{keys[1], keys[0]}) },
		"a key twice":          func(tx state.Tx) error { return tx.Put("stack", "a", []byte(`{"n":1}`), append(keys, keys[0])) },
		"delete what is not":   func(tx state.Tx) error { return tx.Delete("stack", "b") },
		"delete of other kind": func(tx state.Tx) error { return tx.Delete("fleet", "a") },
	} {
		wantEqual(t, "revision of update: "+name, f.update(t, fn), before)
		wantEqual(t, "revision after: "+name, f.revision(t), before)
	}
	wantEqual(t, "the callers' keys", keys, []state.Key{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}})
	if after := f.put(t, "stack", "a", `{"n":1}`, keys[0]); after <= before {
		t.Errorf("got revision %d for other keys, want more than %d", after, before)
	}
}

func testChanges(t *testing.T, f *fixture) {
	var want []state.Change
	note := func(revision state.Revision, id string, deleted bool) {
		want = append(want, state.Change{Revision: revision, Kind: "stack", ID: id, Deleted: deleted})
	}
	note(f.put(t, "stack", "a", `1`), "a", false)
	note(f.put(t, "stack", "b", `1`), "b", false)
	note(f.put(t, "stack", "a", `2`), "a", false)
	note(f.update(t, func(tx state.Tx) error { return tx.Delete("stack", "a") }), "a", true)
	f.put(t, "stack", "b", `1`) // changes nothing
	revision := f.update(t, func(tx state.Tx) error {
		return errors.Join(
			tx.Put("stack", "a", []byte(`3`), nil),
			tx.Put("stack", "a", []byte(`4`), nil),
			tx.Put("stack", "c", []byte(`1`), nil),
			tx.Delete("stack", "c"),
			tx.Delete("stack", "b"),
			tx.Put("stack", "b", []byte(`9`), nil),
		)
	})
	note(revision, "a", false)
	note(revision, "b", false)
	note(revision, "c", true)
	for range 2 {
		for from, c := range want {
			after := c.Revision - 1
			for from > 0 && want[from-1].Revision > after {
				from--
			}
			got, err := f.Changes(t.Context(), after)
			wantError(t, "changes", err, nil)
			slices.SortStableFunc(got, func(a, b state.Change) int { // order within a revision is free
				if a.Revision != b.Revision {
					return int(a.Revision - b.Revision)
				}
				return strings.Compare(a.ID, b.ID)
			})
			wantEqual(t, fmt.Sprintf("changes after %d", after), got, want[from:])
		}
		f.reopen(t)
	}
	// A watcher at the end waits for the next.
	got := make(chan []state.Change, 1)
	go func() {
		changes, err := f.Changes(t.Context(), revision)
		if err != nil {
			t.Errorf("changes: %v", err)
		}
		got <- changes
	}()
	next := f.put(t, "fleet", "x", `1`)
	within(t, "watcher", func() {
		wantEqual(t, "change waited for", <-got, []state.Change{{Revision: next, Kind: "fleet", ID: "x"}})
	})
}

func testLargeRevision(t *testing.T, f *fixture) {
	const large, small = 9000, 40
	want := map[state.Revision]int{}
	for i := range small {
		want[f.put(t, "stack", "a", fmt.Sprint(i))]++
	}
	revision := f.update(t, func(tx state.Tx) error {
		for i := range large {
			if err := tx.Put("stack", fmt.Sprintf("%05d", i), []byte(`1`), nil); err != nil {
				return err
			}
		}
		return nil
	})
	want[revision] = large
	for i := range small {
		want[f.put(t, "stack", "b", fmt.Sprint(i))]++
	}
	got := map[state.Revision]int{}
	newest := f.revision(t)
	for after := state.Revision(0); after < newest; {
		changes, err := f.Changes(t.Context(), after)
		wantError(t, "changes", err, nil)
		for _, c := range changes {
			if c.Revision <= after {
				t.Fatalf("got a change of revision %d in a call after %d", c.Revision, after)
			}
			got[c.Revision]++
		}
		after = changes[len(changes)-1].Revision
	}
	wantEqual(t, "changes a revision", got, want)
}

func testChangesConcurrent(t *testing.T, f *fixture) {
	const writers, each, watchers = 8, 100, 2 // fewer than FeedRevisions
	var mu sync.Mutex
	want := map[state.Change]bool{}
	feeds := make([][]state.Change, watchers)
	var writing, watching sync.WaitGroup
	for w := range watchers {
		watching.Go(func() {
			after := state.Revision(0)
			for len(feeds[w]) < writers*each*3/2 {
				changes, err := f.Changes(t.Context(), after)
				if err != nil {
					t.Errorf("changes after %d: %v", after, err)
					return
				}
				if len(changes) == 0 {
					t.Errorf("no changes after %d, and no waiting for them", after)
					return
				}
				for _, c := range changes {
					if c.Revision < after {
						t.Errorf("got revision %d after %d", c.Revision, after)
					}
					after = c.Revision
				}
				feeds[w] = append(feeds[w], changes...)
			}
		})
	}
	for w := range writers {
		writing.Go(func() {
			for i := range each {
				id := fmt.Sprintf("%d-%d", w, i)
				ids := []string{id + "-a"}
				if i%2 == 1 {
					ids = append(ids, id+"-b")
				}
				revision, err := f.Update(t.Context(), func(tx state.Tx) error {
					for _, id := range ids {
						if err := tx.Put("stack", id, []byte(`1`), nil); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				for _, id := range ids {
					want[state.Change{Revision: revision, Kind: "stack", ID: id}] = true
				}
				mu.Unlock()
			}
		})
	}
	within(t, "writers", writing.Wait)
	within(t, "watchers", watching.Wait)
	for w, feed := range feeds {
		got := map[state.Change]bool{}
		for _, c := range feed {
			if got[c] {
				t.Errorf("watcher %d got %v twice", w, c)
			}
			got[c] = true
		}
		wantEqual(t, fmt.Sprintf("changes that watcher %d got", w), got, want)
	}
}

func testCompacted(t *testing.T, f *fixture) {
	const writers = 16
	_, err := f.Changes(t.Context(), -1)
	wantError(t, "changes from before the beginning", err, state.ErrCompacted)
	var written atomic.Int64
	var mu sync.Mutex
	var revisions []state.Revision
	var group sync.WaitGroup
	for w := range writers {
		group.Go(func() {
			for {
				n := written.Add(1)
				if n > 3*FeedRevisions {
					return
				}
				revision, err := f.Update(t.Context(), func(tx state.Tx) error {
					return tx.Put("stack", fmt.Sprint(w), []byte(fmt.Sprint(n)), nil)
				})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				revisions = append(revisions, revision)
				mu.Unlock()
			}
		})
	}
	within(t, "updates", group.Wait)
	slices.Sort(revisions)
	for i, after := range revisions { // where the feed begins, nothing may be missing
		changes, err := f.Changes(t.Context(), after)
		if errors.Is(err, state.ErrCompacted) {
			continue
		}
		wantError(t, "changes", err, nil)
		wantEqual(t, "first change of the feed", changes[0].Revision, revisions[i+1])
		break
	}
	for range 2 {
		_, err := f.Changes(t.Context(), 0)
		wantError(t, "changes from the beginning", err, state.ErrCompacted)
		newest := f.revision(t)
		got := []state.Revision{}
		for after := newest - FeedRevisions; after < newest; {
			changes, err := f.Changes(t.Context(), after)
			wantError(t, fmt.Sprintf("changes after %d of %d", after, newest), err, nil)
			for _, c := range changes {
				got = append(got, c.Revision)
				after = c.Revision
			}
		}
		wantEqual(t, "changes within the feed's reach", len(got), FeedRevisions)
		if !slices.IsSorted(got) {
			t.Error("changes are out of order")
		}
		f.reopen(t)
	}
}

func testFuture(t *testing.T, f *fixture) {
	// The store was restored from an old backup, and a watcher is ahead of it: it must list again, not wait.
	newest := f.put(t, "stack", "a", `1`)
	within(t, "changes", func() {
		_, err := f.Changes(t.Context(), newest+5)
		wantError(t, "changes", err, state.ErrCompacted)
	})
}

func testCancelled(t *testing.T, f *fixture) {
	before := f.put(t, "stack", "a", `1`)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	unreachable := func() { t.Error("function ran with a cancelled context") }
	_, err := f.Update(cancelled, func(state.Tx) error { unreachable(); return nil })
	wantError(t, "update", err, context.Canceled)
	err = f.View(cancelled, func(state.Reader) error { unreachable(); return nil })
	wantError(t, "view", err, context.Canceled)
	_, err = f.Changes(cancelled, 0)
	wantError(t, "changes", err, context.Canceled)

	// Waiting ends with the context.
	waiting, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	started, release := make(chan struct{}), make(chan struct{})
	group.Go(func() {
		_, err := f.Update(t.Context(), func(tx state.Tx) error {
			close(started)
			<-release
			return tx.Put("stack", "b", []byte(`1`), nil)
		})
		if err != nil {
			t.Errorf("update: %v", err)
		}
	})
	<-started
	answers := make(chan error)
	go func() {
		_, err := f.Changes(waiting, before)
		answers <- err
	}()
	go func() {
		_, err := f.Update(waiting, func(tx state.Tx) error { unreachable(); return tx.Delete("stack", "a") })
		answers <- err
	}()
	cancel()
	within(t, "waiting calls", func() {
		for range 2 {
			wantError(t, "waiting call", <-answers, context.Canceled)
		}
	})
	close(release)
	within(t, "update", group.Wait)

	// A view notices in the middle.
	middle, cancel := context.WithCancel(t.Context())
	err = f.View(middle, func(r state.Reader) error {
		cancel()
		_, err := r.Get("stack", "a")
		return err
	})
	wantError(t, "get", err, context.Canceled)
	wantEqual(t, "documents", f.bodies(t, "stack", state.Query{}), []string{"a=1", "b=1"})
}

func testClose(t *testing.T, f *fixture) {
	before := f.put(t, "stack", "a", `1`)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			_, err := f.Changes(t.Context(), before)
			if !errors.Is(err, state.ErrClosed) {
				t.Errorf("changes: got error %v, want %v", err, state.ErrClosed)
			}
		})
	}
	// One transaction has begun, others wait: the first is finished, and those that fail have done nothing.
	started, release := make(chan struct{}), make(chan struct{})
	results := make(chan error, 8)
	group.Go(func() {
		if _, err := f.Update(t.Context(), func(tx state.Tx) error {
			close(started)
			<-release
			return tx.Put("begun", "a", []byte(`1`), nil)
		}); err != nil {
			t.Errorf("update that had begun: %v", err)
		}
	})
	<-started
	for i := range cap(results) {
		group.Go(func() {
			_, err := f.Update(t.Context(), func(tx state.Tx) error { return tx.Put("waiting", fmt.Sprint(i), []byte(`1`), nil) })
			results <- err
		})
	}
	closed := make(chan error, 2)
	for range cap(closed) {
		go func() { closed <- f.Close() }()
	}
	within(t, "watchers", func() { // until closing has begun
		for {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := f.Changes(ctx, before); errors.Is(err, state.ErrClosed) {
				return
			}
			runtime.Gosched()
		}
	})
	close(release)
	within(t, "close", func() {
		for range cap(closed) {
			wantError(t, "close", <-closed, nil)
		}
	})
	within(t, "calls", group.Wait)
	_, err := f.Update(t.Context(), func(state.Tx) error { return nil })
	wantError(t, "update after close", err, state.ErrClosed)
	wantError(t, "view after close", f.View(t.Context(), func(state.Reader) error { return nil }), state.ErrClosed)
	_, err = f.Changes(t.Context(), 0)
	wantError(t, "changes after close", err, state.ErrClosed)
	wantError(t, "close again", f.Close(), nil)

	f.Store = f.open(t, f.dir)
	wantEqual(t, "documents", f.bodies(t, "begun", state.Query{}), []string{"a=1"})
	done := 0
	for range cap(results) {
		if err := <-results; err == nil {
			done++
		} else if !errors.Is(err, state.ErrClosed) {
			t.Errorf("update that waited: got error %v, want %v", err, state.ErrClosed)
		}
	}
	wantEqual(t, "documents of updates that waited", len(f.bodies(t, "waiting", state.Query{})), done)
}
