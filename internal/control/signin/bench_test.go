package signin_test

import (
	"path/filepath"
	"testing"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/argon"
	"penstock.dev/penstock/internal/control/signin"
	"penstock.dev/penstock/internal/sqlite"
)

// BenchmarkPasswordSignIn is one whole sign-in of a user without a second factor: Argon2id at its default cost, and the durable
// write of the sign-in.
func BenchmarkPasswordSignIn(b *testing.B) {
	store, err := sqlite.Open(b.Context(), sqlite.Options{Path: filepath.Join(b.TempDir(), "state.db")})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	s, err := signin.New(signin.Options{Store: store, Seed: make([]byte, 32), Hasher: argon.New(argon.Options{})})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.CreateUser(b.Context(), signin.NewUser{Name: ann}); err != nil {
		b.Fatal(err)
	}
	temporary, err := s.WaitingPassword(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	t, err := s.PasswordSignIn(b.Context(), ann, temporary, here, "")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := s.ChooseNewPassword(b.Context(), t.Value, password, here); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.PasswordSignIn(b.Context(), ann, password, here, ""); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sign-ins/s")
}

var visitor = appstream.Visitor{Auth: appstream.AuthAPI, UserID: "ann", Stack: "s", Fleet: "f"}

// BenchmarkLookup is what every request of a browser that is signed in costs.
func BenchmarkLookup(b *testing.B) {
	store, err := sqlite.Open(b.Context(), sqlite.Options{Path: filepath.Join(b.TempDir(), "state.db")})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	s, err := signin.New(signin.Options{Store: store, Seed: make([]byte, 32), Hasher: argon.New(argon.Options{MemoryKiB: 64})})
	if err != nil {
		b.Fatal(err)
	}
	t, err := s.Open(b.Context(), visitor, here, "", signin.OpenOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Lookup(b.Context(), t.Value); err != nil {
			b.Fatal(err)
		}
	}
}
