// Command apigen writes the Go shapes of the services that Penstock serves from the API model in model/.
//
//	go run -C tools ./apigen          writes the packages under internal/wire
//	go run -C tools ./apigen -check   fails when a written file is not what the model says
//
// The output depends on the model alone, so that the same model always gives the same bytes.
package main

import (
	"bytes"
	"embed"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

//go:embed model/*.json
var model embed.FS

func main() {
	root := flag.String("root", "..", "directory of the repository")
	check := flag.Bool("check", false, "compare with the written files instead of writing them")
	flag.Parse()
	if err := run(*root, *check); err != nil {
		fmt.Fprintln(os.Stderr, "apigen:", err)
		os.Exit(1)
	}
}

func run(root string, check bool) error {
	services, err := load()
	if err != nil {
		return err
	}
	all, err := typesTest(services)
	if err != nil {
		return err
	}
	written := []file{all}
	for _, s := range services {
		files, err := s.generate()
		if err != nil {
			return fmt.Errorf("generate %s: %w", s.pkg, err)
		}
		written = append(written, files...)
	}
	var stale []error
	for _, f := range written {
		path := filepath.Join(root, "internal", "wire", f.name)
		if !check {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(path, f.text, 0o644); err != nil {
				return err
			}
			continue
		}
		got, err := os.ReadFile(path)
		if err != nil {
			stale = append(stale, err)
		} else if !bytes.Equal(got, f.text) {
			stale = append(stale, fmt.Errorf("%s is not what the model says: run make generate", path))
		}
	}
	return errors.Join(stale...)
}
