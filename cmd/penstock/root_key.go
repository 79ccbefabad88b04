package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"penstock.dev/penstock/internal/audit"
	"penstock.dev/penstock/internal/auditlog"
	"penstock.dev/penstock/internal/sqlite"
)

// rootKeyCommand replaces the root access key, also one that was lost: who may write the data directory may do that.
func rootKeyCommand(ctx context.Context, args []string) error {
	if len(args) == 0 || args[0] != "rotate" {
		return errors.New("say what to do: penstock root-key rotate -h")
	}
	fset := flag.NewFlagSet("penstock root-key rotate", flag.ContinueOnError)
	dir := fset.String("data-dir", "./penstock-data", "`folder` of the server; it may run or not")
	keyFile := fset.String("key-file", "", "`file` that the data directory is sealed with; a running server knows it")
	if err := fset.Parse(args[1:]); err != nil {
		return err
	}
	if fset.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fset.Arg(0))
	}
	var out struct{ AccessKeyID, File string }
	err := askAdminBy(ctx, http.MethodPost, *dir, "/root-key/rotate", &out)
	if notRunning(err) {
		out.AccessKeyID, out.File, err = rotateOffline(*dir, *keyFile)
	}
	if err != nil {
		return err
	}
	fmt.Printf("root's access key is %s now, written to %s; the one before and what it had signed for are over\n", out.AccessKeyID, out.File)
	return nil
}

// rekeyCommand seals a data directory with another key file, or with none.
func rekeyCommand(_ context.Context, args []string) error {
	fset := flag.NewFlagSet("penstock rekey", flag.ContinueOnError)
	dir := fset.String("data-dir", "./penstock-data", "`folder` of a server that does not run")
	oldFile := fset.String("key-file", "", "`file` that the directory is sealed with; without: it is not")
	newFile := fset.String("new-key-file", "", "`file` to seal it with; without: it will not be sealed")
	if err := fset.Parse(args); err != nil {
		return err
	}
	if fset.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fset.Arg(0))
	}
	newKey, err := readKeyFile(*newFile)
	if err != nil {
		return err
	}
	return onIdentity(*dir, *oldFile, func(id *identity) ([]byte, audit.Event, error) {
		return newKey, operatorAct("RotateKeyFile", map[string]any{"sealed": newKey != nil}), nil
	})
}

// onIdentity changes the identity of a data directory on which no server runs, and puts that on record. change returns the key to seal with.
func onIdentity(dir, keyFile string, change func(*identity) (key []byte, act audit.Event, err error)) (err error) {
	if _, err := os.Stat(identityPath(dir)); err != nil {
		return fmt.Errorf("%s is no data directory of a server: %w", dir, err)
	}
	unlock, err := sqlite.Lock(dir)
	if err != nil {
		return fmt.Errorf("data directory %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	old, err := readKeyFile(keyFile)
	if err != nil {
		return err
	}
	id, err := readIdentity(dir)
	if err != nil {
		return err
	}
	if err := id.open(old); err != nil {
		return fmt.Errorf("%s: %w", identityPath(dir), err)
	}
	log, err := auditlog.Open(auditlog.Options{Dir: auditDir(dir), Region: devRegion, Account: id.AccountID})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	if err := log.Ready(); err != nil {
		return err
	}
	key, act, err := change(&id)
	if err != nil {
		return err
	}
	if err := id.write(dir, key); err != nil {
		return err
	}
	log.Record(act)
	return nil
}

func rotateOffline(dir, keyFile string) (accessKeyID, file string, err error) {
	err = onIdentity(dir, keyFile, func(id *identity) ([]byte, audit.Event, error) {
		key, err := readKeyFile(keyFile)
		act := id.rotateRoot()
		accessKeyID = id.AccessKeyID
		if err == nil {
			file, err = writeCredentials(dir, *id)
		}
		return key, act, err
	})
	return accessKeyID, file, err
}

// rotateRoot gives root another key, and says so for the record.
func (id *identity) rotateRoot() audit.Event {
	old := id.AccessKeyID
	id.newRootKey()
	id.RootSince = time.Now().UTC().Truncate(time.Second)
	return operatorAct("RotateRootKey", map[string]any{"oldAccessKeyId": old, "newAccessKeyId": id.AccessKeyID})
}

// writeCredentials writes the file that AWS clients read, and returns its path.
func writeCredentials(dir string, id identity) (string, error) {
	path := filepath.Join(dir, "aws", "credentials")
	return path, writeFile(path, fmt.Appendf(nil, "[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n", id.AccessKeyID, id.Secret))
}

// rotateRootKey is the running server's part.
func (r *region) rotateRootKey(w http.ResponseWriter, _ *http.Request) {
	r.rootMu.Lock()
	defer r.rootMu.Unlock()
	path, err := "", r.audit.Ready()
	if err == nil {
		id := r.current
		act := id.rotateRoot()
		if err = id.write(r.config.dataDir, r.config.key); err == nil {
			r.current = id
			r.access.SetRoot(id.root(), id.RootSince)
			r.audit.Record(act)
			path, err = writeCredentials(r.config.dataDir, id)
		}
	}
	if err != nil {
		r.log.Error("the root key was not replaced", "error", err)
		http.Error(w, "the root key was not replaced; the log says why", http.StatusInternalServerError)
		return
	}
	r.log.Warn("the root key was replaced on the operator's socket", "accessKeyId", r.current.AccessKeyID)
	writeJSON(w, map[string]string{"AccessKeyID": r.current.AccessKeyID, "File": path})
}

// notRunning reports whether an error of askAdmin means that no server runs on the data directory.
func notRunning(err error) bool {
	return err != nil && (errors.Is(err, errNoServer) || errors.Is(err, fs.ErrNotExist))
}
