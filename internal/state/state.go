// Package state is the contract of the durable store: documents with revisions and a change feed.
//
// One implementation is internal/sqlite; every implementation runs the suite in state/statetest.
// Documents are JSON; kinds, IDs and keys are UTF-8 without NUL. What is not is refused. A transaction's function may run more
// than once, must not have effects of its own, must not use the transaction after it returned, and must not call the store:
// an Update inside an Update waits for ever.
package state

import (
	"context"
	"errors"
)

// Kind names a sort of document: "stack", "vpc-endpoint". Kinds are constants of the domain packages.
type Kind string

// Revision counts committed transactions that wrote something. It never decreases, also across restarts.
type Revision int64

// Key is a secondary key by which documents of one kind are listed: {"vpc", "vpc-0123…"}.
type Key struct{ Name, Value string }

// Document is one resource as stored.
type Document struct {
	Kind     Kind
	ID       string // unique within the kind
	Revision Revision
	Body     []byte // JSON
}

// Query selects documents of one kind in order of the bytes of their ID.
type Query struct {
	By    Key    // zero: all of the kind
	After string // only IDs greater than this; for pages
	Limit int    // 0: no limit
}

// Change says that a document was written or deleted. The feed tells that, not what: readers read the document.
type Change struct {
	Revision Revision
	Kind     Kind
	ID       string
	Deleted  bool
}

var (
	// ErrNotFound is returned by Get for a document that does not exist.
	ErrNotFound = errors.New("document not found")
	// ErrCompacted is returned by Changes when the feed no longer reaches back that far, or when the store never came to that
	// revision because it was restored from an older backup: list again.
	ErrCompacted = errors.New("change feed does not reach that revision")
	// ErrClosed is returned by a store that was closed.
	ErrClosed = errors.New("store is closed")
)

// Reader reads one consistent state.
type Reader interface {
	// Get returns the document or ErrNotFound.
	Get(kind Kind, id string) (Document, error)
	// List returns the documents that q selects, in order of ID.
	List(kind Kind, q Query) ([]Document, error)
	// Count returns how many documents List would return without After and Limit.
	Count(kind Kind, by Key) (int, error)
	// Revision is the revision of this state.
	Revision() (Revision, error)
}

// Tx reads and writes. Its writes are seen by its own reads and by nobody else until they are durable.
type Tx interface {
	Reader
	// Put writes the document and replaces its secondary keys. A write that changes neither makes no revision.
	Put(kind Kind, id string, body []byte, keys []Key) error
	// Delete removes the document; deleting what does not exist is not an error.
	Delete(kind Kind, id string) error
}

// Store keeps documents. All methods may be called concurrently.
type Store interface {
	// View runs fn on one consistent state.
	View(ctx context.Context, fn func(Reader) error) error
	// Update runs fn alone, one after the other in some order, and returns when what it wrote would survive a power cut.
	// An error of fn undoes its writes and is returned as it is; a panic of fn does, too, and is returned as an error.
	// The revision is that of its writes, or the newest that fn saw when it wrote nothing. ctx ends the waiting for fn's
	// turn: once fn was called, its result is returned. A storage failure during the commit is the one error
	// after which the writes may be found done.
	Update(ctx context.Context, fn func(Tx) error) (Revision, error)
	// Changes waits until there are changes after the given revision, then returns them in order (at most some
	// thousands a call, whole revisions, one change for each document in a revision), or returns ctx's error.
	Changes(ctx context.Context, after Revision) ([]Change, error)
}
