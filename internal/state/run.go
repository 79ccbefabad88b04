package state

import (
	"context"
	"errors"
)

// Read returns one value of one consistent state.
func Read[T any](ctx context.Context, s Store, fn func(Reader) (T, error)) (out T, err error) {
	err = s.View(ctx, func(r Reader) (err error) {
		out, err = fn(r)
		return err
	})
	return out, err
}

// Write is one transaction with a result.
func Write[T any](ctx context.Context, s Store, fn func(Tx) (T, error)) (out T, err error) {
	_, err = s.Update(ctx, func(tx Tx) (err error) {
		out, err = fn(tx)
		return err
	})
	return out, err
}

// Await waits until cond is true of the stored state, or returns cond's or ctx's error. The change feed wakes it.
func Await(ctx context.Context, s Store, cond func(Reader) (bool, error)) error {
	for {
		var done bool
		at, err := Read(ctx, s, func(r Reader) (at Revision, err error) {
			if at, err = r.Revision(); err != nil {
				return at, err
			}
			done, err = cond(r)
			return at, err
		})
		if err != nil || done {
			return err
		}
		if _, err := s.Changes(ctx, at); err != nil && !errors.Is(err, ErrCompacted) {
			return err
		}
	}
}
