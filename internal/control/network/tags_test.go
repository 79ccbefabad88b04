package network_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"penstock.dev/penstock/internal/control/network"
	"penstock.dev/penstock/internal/sqlite"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// tally counts the documents that are read.
type tally struct {
	state.Store
	n atomic.Int64
}

type tallied struct {
	state.Reader
	n *atomic.Int64
}

func (t *tally) View(ctx context.Context, fn func(state.Reader) error) error {
	return t.Store.View(ctx, func(r state.Reader) error { return fn(tallied{r, &t.n}) })
}

func (t tallied) Get(kind state.Kind, id string) (state.Document, error) {
	t.n.Add(1)
	return t.Reader.Get(kind, id)
}

func (t tallied) List(kind state.Kind, q state.Query) ([]state.Document, error) {
	ds, err := t.Reader.List(kind, q)
	t.n.Add(int64(len(ds)))
	return ds, err
}

// manyTags is a service with n tagged subnets.
func manyTags(tb testing.TB, n int) (*network.Service, *tally) {
	tb.Helper()
	store, err := sqlite.Open(tb.Context(), sqlite.Options{Path: filepath.Join(tb.TempDir(), "state.db")})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = store.Close() })
	if _, err := store.Update(tb.Context(), func(tx state.Tx) error {
		for i := range n {
			s := &vpc.Subnet{ID: vpc.SubnetID(fmt.Sprintf("subnet-%017x", i)), VPC: "vpc-00000000000000000", Tags: vpc.Tags{"n": fmt.Sprint(i)}}
			if err := vpc.Subnets().Put(tx, s); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		tb.Fatal(err)
	}
	t := &tally{Store: store}
	return network.New(network.Config{Store: t, Region: "us-east-1", AccountID: "123456789012"}), t
}

// asked are a resource with tags, one that does not exist, and what is no ID.
func asked() []string {
	return []string{fmt.Sprintf("subnet-%017x", 3), fmt.Sprintf("vpc-%017x", 9), "nonsense", "sg-nonsense"}
}

// TestTagsOfReadsWhatIsAsked: what a request costs does not grow with the account.
func TestTagsOfReadsWhatIsAsked(t *testing.T) {
	t.Parallel()
	for _, n := range []int{10, 1000} {
		s, count := manyTags(t, n)
		tags, err := s.TagsOf(t.Context(), asked())
		if err != nil || len(tags) != 1 || tags[asked()[0]]["n"] != "3" {
			t.Errorf("of %d resources: got %v (%v), want the tags of one", n, tags, err)
		}
		if got := count.n.Load(); got != 2 {
			t.Errorf("of %d resources: %d documents were read, want the 2 that have an ID", n, got)
		}
	}
}

func BenchmarkTagsOf(b *testing.B) {
	s, _ := manyTags(b, 10_000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.TagsOf(b.Context(), asked()); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDescribeTags is what each authorised request cost before.
func BenchmarkDescribeTags(b *testing.B) {
	s, _ := manyTags(b, 10_000)
	for b.Loop() {
		if _, err := s.DescribeTags(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
