package sqlite

import (
	"bytes"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"penstock.dev/penstock/internal/state"
)

const benchKind = state.Kind("bench")

// benchBody is a document of 600 bytes that carries n.
func benchBody(n int) []byte {
	b := []byte(`{"n":` + strconv.Itoa(n) + `,"pad":"`)
	b = append(b, bytes.Repeat([]byte{'x'}, 600-len(b)-2)...)
	return append(b, '"', '}')
}

func benchStore(b *testing.B, docs int) *Store {
	b.Helper()
	s, err := Open(b.Context(), Options{Path: filepath.Join(b.TempDir(), "state.db")})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	for from := 0; from < docs; from += 1000 {
		_, err := s.Update(b.Context(), func(tx state.Tx) error {
			for i := from; i < min(from+1000, docs); i++ {
				keys := []state.Key{{Name: "parity", Value: strconv.Itoa(i % 2)}}
				if err := tx.Put(benchKind, benchID(i), benchBody(i), keys); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	return s
}

func benchID(i int) string { return fmt.Sprintf("document-%08d", i) }

// spread runs work b.N times on as many goroutines as there are writers and reports how many a second.
func spread(b *testing.B, writers int, unit string, work func(i int) error) {
	b.Helper()
	b.ReportAllocs()
	next := make(chan int)
	var group sync.WaitGroup
	b.ResetTimer()
	for range writers {
		group.Go(func() {
			for i := range next {
				if err := work(i); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := range b.N {
		next <- i
	}
	close(next)
	group.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), unit)
}

// BenchmarkCompareAndSwap reads a document and writes it back changed, among 10,000.
func BenchmarkCompareAndSwap(b *testing.B) {
	for _, writers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			const docs = 10_000
			s := benchStore(b, docs)
			spread(b, writers, "swaps/s", func(i int) error {
				id := benchID(i * 7919 % docs)
				body := benchBody(docs + i)
				_, err := s.Update(b.Context(), func(tx state.Tx) error {
					if _, err := tx.Get(benchKind, id); err != nil {
						return err
					}
					return tx.Put(benchKind, id, body, []state.Key{{Name: "parity", Value: "1"}})
				})
				return err
			})
		})
	}
}

// BenchmarkThreeRows claims an instance: a new session, the instance changed, the fleet's counter changed.
func BenchmarkThreeRows(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			const docs = 10_000
			s := benchStore(b, docs)
			spread(b, writers, "transactions/s", func(i int) error {
				_, err := s.Update(b.Context(), func(tx state.Tx) error {
					if err := tx.Put("session", benchID(i), benchBody(i), []state.Key{{Name: "fleet", Value: strconv.Itoa(i % 16)}}); err != nil {
						return err
					}
					if err := tx.Put(benchKind, benchID(i*7919%docs), benchBody(docs+i), nil); err != nil {
						return err
					}
					return tx.Put("fleet", strconv.Itoa(i%16), benchBody(i), nil)
				})
				return err
			})
		})
	}
}

// BenchmarkList lists 10,000 documents, and the half of them that has one key.
func BenchmarkList(b *testing.B) {
	const docs = 10_000
	s := benchStore(b, docs)
	for name, want := range map[string]struct {
		by state.Key
		n  int
	}{
		"all": {state.Key{}, docs},
		"key": {state.Key{Name: "parity", Value: "1"}, docs / 2},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				err := s.View(b.Context(), func(r state.Reader) error {
					got, err := r.List(benchKind, state.Query{By: want.by})
					if err == nil && len(got) != want.n {
						err = fmt.Errorf("got %d documents, want %d", len(got), want.n)
					}
					return err
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkGet reads one document in a view of its own.
func BenchmarkGet(b *testing.B) {
	const docs = 10_000
	s := benchStore(b, docs)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		err := s.View(b.Context(), func(r state.Reader) error {
			_, err := r.Get(benchKind, benchID(i*7919%docs))
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkChangeFeed measures from the call of Update until a watcher has the change.
func BenchmarkChangeFeed(b *testing.B) {
	s := benchStore(b, 1)
	seen := make(chan time.Time)
	after, _ := s.committed()
	go func() {
		defer close(seen)
		for {
			changes, err := s.Changes(b.Context(), after)
			if err != nil {
				return
			}
			after = changes[len(changes)-1].Revision
			seen <- time.Now()
		}
	}()
	var took []time.Duration
	i := 0
	for b.Loop() {
		i++
		began := time.Now()
		if _, err := s.Update(b.Context(), func(tx state.Tx) error { return tx.Put(benchKind, "one", benchBody(i), nil) }); err != nil {
			b.Fatal(err)
		}
		took = append(took, (<-seen).Sub(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
