package argon

import (
	"context"
	"strings"
	"sync"
	"testing"

	"penstock.dev/penstock/internal/fault"
)

// cheap is a hasher whose hashes cost nothing worth waiting for.
func cheap() *Hasher { return New(Options{MemoryKiB: 64, Slots: 2, Queue: 4}) }

func TestHashIsOfThePasswordAlone(t *testing.T) {
	t.Parallel()
	ctx, h := t.Context(), cheap()
	one, err := h.Hash(ctx, "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	two, err := h.Hash(ctx, "correct horse")
	if err != nil || one == two {
		t.Errorf("two hashes of one password are equal: their salt is not random (%v)", err)
	}
	if !strings.HasPrefix(one, "$argon2id$v=19$m=64,t=1,p=1$") {
		t.Errorf("got %s", one)
	}
	for password, want := range map[string]bool{"correct horse": true, "correct hors": false, "correct horse ": false, "": false} {
		if ok, stale, err := h.Verify(ctx, one, password); ok != want || stale || err != nil {
			t.Errorf("%q: got %v, stale %v, %v; want %v", password, ok, stale, err, want)
		}
	}
	if ok, _, err := h.Verify(ctx, "", ""); ok || err != nil {
		t.Errorf("an empty hash: got %v (%v), want no password to have it", ok, err)
	}
	if ok, stale, err := New(Options{MemoryKiB: 128}).Verify(ctx, one, "correct horse"); !ok || !stale || err != nil {
		t.Errorf("a hash of another cost: got %v, stale %v (%v), want true and stale", ok, stale, err)
	}
}

func TestDamagedHashIsAnError(t *testing.T) {
	t.Parallel()
	good := "$argon2id$v=19$m=64,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	if _, _, err := cheap().Verify(t.Context(), good, "x"); err != nil {
		t.Fatalf("the form that the others differ from: %v", err)
	}
	for name, hash := range map[string]string{
		"another function": strings.Replace(good, "argon2id", "argon2i", 1),
		"another version":  strings.Replace(good, "v=19", "v=16", 1),
		"huge memory":      strings.Replace(good, "m=64", "m=99999999", 1),
		"no passes":        strings.Replace(good, "t=1", "t=0", 1),
		"short":            good[:len(good)-4],
		"no salt":          strings.Replace(good, "AAAAAAAAAAAAAAAAAAAAAA$", "$", 1),
		"text":             "password",
	} {
		if ok, _, err := cheap().Verify(t.Context(), hash, "x"); ok || err == nil {
			t.Errorf("%s: got %v and no error", name, ok)
		}
	}
}

func TestNoMoreHashesThanSlotsAndQueue(t *testing.T) {
	t.Parallel()
	h := cheap()
	for range cap(h.slots) { // every slot is taken
		h.slots <- struct{}{}
		h.queue <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	errs := make(chan error, 64)
	for range 64 {
		wg.Go(func() {
			_, err := h.Hash(ctx, "x")
			if fault.Is(err, fault.Throttled) {
				cancel() // the queue is full: those that wait give up
			}
			errs <- err
		})
	}
	wg.Wait()
	cancel()
	close(errs)
	throttled := 0
	for err := range errs {
		switch {
		case fault.Is(err, fault.Throttled):
			throttled++
		case err == nil:
			t.Error("a hash was made though no slot was free")
		}
	}
	if throttled == 0 {
		t.Error("nobody was told to come later")
	}
}

func BenchmarkHash(b *testing.B) {
	h := New(Options{})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := h.Hash(b.Context(), "correct horse battery staple"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
