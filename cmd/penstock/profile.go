package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
)

// profile writes this process's processor profile to a file until stop is called; what cannot be written is not worth a failure then.
func profile(f *os.File) (stop func(), err error) {
	if err := pprof.StartCPUProfile(f); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("profile: %w", err)
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}, nil
}

// profileServer profiles the server into dir, which it makes; instances put theirs beside it.
func profileServer(dir string) (stop func(), err error) {
	if dir == "" {
		return func() {}, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "server.pprof"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	return profile(f)
}

// profileAgent profiles an agent into the file that the driver handed over.
func profileAgent(fd int) (stop func(), err error) {
	if fd == 0 {
		return func() {}, nil
	}
	return profile(os.NewFile(uintptr(fd), "profile"))
}
