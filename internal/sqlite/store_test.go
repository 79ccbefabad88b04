package sqlite

import (
	"path/filepath"
	"testing"

	"penstock.dev/penstock/internal/state/statetest"
)

func TestStore(t *testing.T) {
	t.Parallel()
	statetest.Run(t, func(t testing.TB, dir string) statetest.Store {
		t.Helper()
		return open(t, Options{Path: filepath.Join(dir, "state.db"), KeepRevisions: statetest.FeedRevisions})
	})
}

// open opens a store that its caller closes.
func open(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
