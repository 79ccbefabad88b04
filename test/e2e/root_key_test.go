package e2e

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/appstream"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// TestRootKeyIsReplaced: on the machine, with the server running or not; the key before is over, and so is what it had signed for.
func TestRootKeyIsReplaced(t *testing.T) {
	needE2E(t)
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir, "--no-demo")
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	whoAmI := func(c aws.Config) error {
		_, err := sts.NewFromConfig(c).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
		return err
	}
	credentials := filepath.Join(dir, "aws", "credentials")
	for _, f := range []string{credentials, filepath.Join(dir, "identity.json")} {
		if info, err := os.Stat(f); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v (%v)", f, info.Mode(), err)
		}
	}
	before := s.asRoot()
	if _, err := before.Credentials.Retrieve(ctx); err != nil { // the file is read once
		t.Fatal(err)
	}
	token, err := sts.NewFromConfig(before).GetSessionToken(ctx, &sts.GetSessionTokenInput{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(credentials); err != nil { // lost
		t.Fatal(err)
	}
	s.mustPenstock("root-key", "rotate")
	wantCode(t, whoAmI(before), "InvalidClientTokenId", "")
	wantCode(t, whoAmI(s.asSession(token.Credentials)), "InvalidClientTokenId", "")
	if err := whoAmI(s.asRoot()); err != nil {
		t.Errorf("the new key: %v", err)
	}
	if got := s.audited("--event-name", "RotateRootKey"); len(got) != 1 {
		t.Errorf("got %d events", len(got))
	}
	online := s.asRoot()
	if _, err := online.Credentials.Retrieve(ctx); err != nil {
		t.Fatal(err)
	}
	s.stop()
	s.mustPenstock("root-key", "rotate")
	s = start(t, dir, "--no-demo")
	online.BaseEndpoint = &s.info.APIURL
	wantCode(t, whoAmI(online), "InvalidClientTokenId", "")
	if err := whoAmI(s.asRoot()); err != nil {
		t.Errorf("the key that was made without a server: %v", err)
	}
	s.mustPenstock("audit", "verify")
	if got := s.audited("--event-name", "RotateRootKey"); len(got) != 2 {
		t.Errorf("got %d events", len(got))
	}
}

// TestKeyFile: with a key file the data directory alone opens nothing; another key file can take its place.
func TestKeyFile(t *testing.T) {
	needE2E(t)
	t.Parallel()
	dir, keys := t.TempDir(), t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(keys, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one, two := file("one", "correct horse battery staple\n", 0o600), file("two", "f0e1d2c3b4a5968778695a4b3c2d1e0f", 0o600)
	s := start(t, dir, "--no-demo") // not sealed at first
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	ann, _ := s.newUser(ctx, iam.NewFromConfig(s.asRoot()), "ann", describeAndList)
	s.stop()
	describe := func() error {
		ann.BaseEndpoint = &s.info.APIURL
		_, err := appstream.NewFromConfig(ann).DescribeStacks(ctx, &appstream.DescribeStacksInput{})
		return err
	}
	s = start(t, dir, "--no-demo", "--key-file", one)
	if err := describe(); err != nil {
		t.Error(err)
	}
	root, err := s.asRoot().Credentials.Retrieve(ctx)
	if err != nil {
		t.Fatal(err)
	}
	user, err := ann.Credentials.Retrieve(ctx)
	if err != nil {
		t.Fatal(err)
	}
	s.mustPenstock("root-key", "rotate") // the running server knows its key file
	s.stop()
	refused := func(want string, args ...string) {
		t.Helper()
		l := launch(t, dir, append([]string{"--no-demo"}, args...)...)
		<-l.done
		if l.err == nil || !strings.Contains(l.stderr.String(), want) {
			t.Errorf("with %v: got %v, want %q", args, l.stderr.String(), want)
		}
	}
	refused("is sealed with a key file; name it with --key-file")
	refused("not the one that this data directory was sealed with", "--key-file", two)
	refused("can be read by others", "--key-file", file("open", "correct horse battery staple", 0o644))
	refused("at least 16 are wanted", "--key-file", file("short", "secret", 0o600))

	now, err := s.asRoot().Credentials.Retrieve(ctx)
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || path == filepath.Join(dir, "aws", "credentials") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, secret := range []string{root.SecretAccessKey, now.SecretAccessKey, user.SecretAccessKey, `"signingSeed"`} {
			if bytes.Contains(b, []byte(secret)) {
				t.Errorf("%s holds a secret", path)
			}
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if out, err := s.penstock("rekey", "--key-file", two, "--new-key-file", one); err == nil {
		t.Errorf("rekey with the wrong file: %s", out)
	}
	s.mustPenstock("rekey", "--key-file", one, "--new-key-file", two)
	refused("not the one", "--key-file", one)
	s = start(t, dir, "--no-demo", "--key-file", two)
	if err := describe(); err != nil {
		t.Errorf("a user's key after the key file was replaced: %v", err)
	}
	if got := s.audited("--event-name", "RotateKeyFile"); len(got) != 1 {
		t.Errorf("got %d events", len(got))
	}
}
