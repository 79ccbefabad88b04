package process_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/appstream/appstreamtest"
	"penstock.dev/penstock/internal/compute/process"
	"penstock.dev/penstock/internal/compute/procfs"
)

// An instance whose agent misbehaves does not start, says why, and leaves nothing.
func TestBadAgents(t *testing.T) {
	message := func(s string) string { return fmt.Sprintf(`printf '\%03o\000\000\000%s' >&3`, len(s), s) }
	for name, c := range map[string]struct{ script, want string }{
		"ends at once":            {"exit 7", "exit status 7"},
		"says why on its way out": {"echo no display today >&2; exit 1", "no display today"},
		"refuses":                 {message(`{"failed":{"reason":"Xvfb not found: install package xvfb"}}`) + "; sleep 100", "install package xvfb"},
		"writes garbage":          {"echo garbage that is no message >&3; sleep 100", "malformed"},
		"writes a huge length":    {`printf '\377\377\377\377' >&3; sleep 100`, "malformed"},
		"closes its link":         {"exec 3>&-; sleep 100", "agent"},
		"never answers":           {"sleep 100", "deadline"},
		"ignores the end of all":  {`trap "" TERM HUP INT; while :; do sleep 100; done`, "deadline"},
		"answers a question that nobody asked": {
			message(`{"begun":{"session":"s"}}`) + ";" + message(`{"begun":{"session":"s"}}`) + "; sleep 100", "malformed",
		},
		"reports another's session":  {message(`{"event":{"session":"x","kind":"over"}}`) + "; sleep 100", "malformed"},
		"serves viewers elsewhere":   {message(`{"ready":{"display":":1","pid":1,"socket":"/etc/passwd"}}`) + "; sleep 100", "/etc/passwd"},
		"leaves something behind":    {"(setsid sleep 1000 &) ; echo x >left; exit 1", "exit status 1"},
		"sends what only we may say": {message(`{"end":{"code":1}}`) + "; sleep 100", "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "agent")
			if err := os.WriteFile(path, []byte("#!/bin/sh\n[ \"$2\" = -end-user ] && exit\n"+c.script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			w := openWith(t, process.Options{DataDir: filepath.Join(dir, "data"), Executable: path})
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			defer cancel()
			id := appstreamtest.ID(1)
			if _, err := w.Start(ctx, appstream.InstanceSpec{ID: id}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an error with %q", err, c.want)
			}
			ids, err := w.Running(t.Context())
			if err != nil || len(ids) != 0 {
				t.Errorf("got %v, %v; want no instance", ids, err)
			}
			for _, l := range w.leftovers() {
				t.Errorf("left behind: %s", l)
			}
		})
	}
}

// Many instances at the same time do not get the same user, nor one of a process that runs.
func TestUsersAreNotShared(t *testing.T) {
	needs(t, "Xvfb", "openbox")
	if os.Getuid() != 0 {
		t.Skip("needs root, for instances with users of their own")
	}
	t.Parallel()
	w := open(t, t.TempDir())
	seen := make(map[int]bool)
	for n := range 4 {
		info, err := w.Start(t.Context(), appstream.InstanceSpec{ID: appstreamtest.ID(n)})
		if err != nil {
			t.Fatal(err)
		}
		p, err := procfs.Get(info.Local.PID)
		if err != nil {
			t.Fatal(err)
		}
		if p.UID == 0 || seen[p.UID] {
			t.Errorf("instance %d has user %d, which is taken", n, p.UID)
		}
		seen[p.UID] = true
	}
}
