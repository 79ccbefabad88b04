package process

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/compute/guest"
	"penstock.dev/penstock/internal/compute/procfs"
)

// record is what the data directory knows of an instance, so that a later server finds what this one left.
type record struct {
	Instance appstream.InstanceID `json:"instance"`
	Folder   string               `json:"folder"`
	UID      int                  `json:"uid"` // the instance's own user; 0: it shares the server's
	PID      int                  `json:"pid,omitempty"`
	Start    uint64               `json:"start,omitempty"` // of that process, in clock ticks since boot
	Boot     string               `json:"boot"`            // a process of an earlier boot is no process of ours
}

// records is the folder of records. One server at a time has it.
type records struct {
	dir string
	id  string // of the data directory: 16 hex digits
}

// openRecords makes the folder and the data directory's ID where they are missing.
func openRecords(dataDir string) (*records, error) {
	dir := filepath.Join(dataDir, "compute")
	if err := os.MkdirAll(filepath.Join(dir, "instances"), 0o700); err != nil {
		return nil, fmt.Errorf("open instance records: %w", err)
	}
	for _, pattern := range []string{"*.new", "instances/*.new"} { // never completed
		files, _ := filepath.Glob(filepath.Join(dir, pattern))
		for _, f := range files {
			_ = os.Remove(f)
		}
	}
	path := filepath.Join(dir, "id")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		b = make([]byte, 8)
		_, _ = rand.Read(b)
		b = []byte(hex.EncodeToString(b))
		err = replaceFile(path, b)
	}
	if err != nil {
		return nil, fmt.Errorf("read ID of data directory: %w", err)
	}
	id := strings.TrimSpace(string(b))
	if _, err := hex.DecodeString(id); err != nil || len(id) != 16 {
		return nil, fmt.Errorf("ID of data directory in %s is damaged; remove the file when no instance runs", path)
	}
	return &records{dir: filepath.Join(dir, "instances"), id: id}, nil
}

// marker is what every process of the instance carries in its environment.
func (r *records) marker(id appstream.InstanceID) string {
	return guest.Marker + "=" + r.id + "/" + string(id)
}

// folderName is the name of the instance's folder.
func (r *records) folderName(id appstream.InstanceID) string { return r.id[:8] + "-" + string(id) }

func (r *records) path(id appstream.InstanceID) string {
	return filepath.Join(r.dir, string(id)+".json")
}

func (r *records) put(rec record) error {
	b, err := json.Marshal(rec)
	if err == nil {
		err = replaceFile(r.path(rec.Instance), b)
	}
	if err != nil {
		return fmt.Errorf("record instance %s: %w", rec.Instance, err)
	}
	return nil
}

func (r *records) remove(id appstream.InstanceID) error {
	if err := os.Remove(r.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove record of instance %s: %w", id, err)
	}
	return nil
}

// get reads one record. One that is not there gives fs.ErrNotExist.
func (r *records) get(id appstream.InstanceID) (record, error) {
	var rec record
	b, err := os.ReadFile(r.path(id))
	if errors.Is(err, fs.ErrNotExist) {
		return rec, fs.ErrNotExist
	}
	if err == nil {
		err = json.Unmarshal(b, &rec)
	}
	if err == nil && (rec.Instance != id || filepath.Base(rec.Folder) != r.folderName(rec.Instance)) {
		err = errors.New("record is damaged")
	}
	if err != nil {
		return record{}, fmt.Errorf("read record of instance %s: %w", id, err)
	}
	return rec, nil
}

// list reads all records. damaged is told of those that cannot be used, which are removed: no crash leaves one, and what such an
// instance ran is found by its marker.
func (r *records) list(damaged func(id appstream.InstanceID, err error)) ([]record, error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, fmt.Errorf("list instance records: %w", err)
	}
	var all []record
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		id := appstream.InstanceID(name)
		if !ok || !validID(id) {
			continue // one that is being written, or nothing of ours
		}
		rec, err := r.get(id)
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed meanwhile
		case err != nil:
			damaged(id, err)
			_ = r.remove(id)
		default:
			all = append(all, rec)
		}
	}
	return all, nil
}

// replaceFile writes a file whole or not at all.
func replaceFile(path string, b []byte) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// bootID names this boot of the machine.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// agent is the record's agent process, if it was started in this boot.
func (rec *record) agent() (procfs.Process, bool) {
	if rec.PID == 0 || rec.Boot != bootID() {
		return procfs.Process{}, false
	}
	return procfs.Process{PID: rec.PID, Start: rec.Start}, true
}
