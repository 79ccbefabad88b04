package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"penstock.dev/penstock/internal/certs"
)

// trustStores are where programs of this machine look for roots.
type trustStores struct {
	system string   // folder of the machine's own roots
	update []string // command that makes the bundle of them
	home   string   // of the user whose browsers are told
	which  string   // of --store
}

// The values of --store.
const (
	storeAll    = "all"
	storeSystem = "system"
	storeNSS    = "nss"
)

const (
	systemRoots = "/usr/local/share/ca-certificates"
	toolTimeout = time.Minute
)

func trustCommand(ctx context.Context, args []string) error {
	set := flag.NewFlagSet("penstock trust", flag.ContinueOnError)
	dir := set.String("data-dir", "./penstock-data", "`folder` of all state; the CA is made there when it has none")
	show := set.Bool("print", false, "print the root certificate in PEM and nothing else")
	install := set.Bool("install", false, "add it to the system's store (needs root) and to this user's NSS store (Chromium)")
	uninstall := set.Bool("uninstall", false, "undo --install")
	which := set.String("store", storeAll, "`store` that --install and --uninstall are about: all, system or nss")
	if err := set.Parse(args); err != nil {
		return err
	}
	chosen := 0
	for _, c := range []bool{*show, *install, *uninstall} {
		if c {
			chosen++
		}
	}
	if set.NArg() > 0 || chosen > 1 {
		return errors.New("takes one of --print, --install and --uninstall, and no arguments")
	}
	if !slices.Contains([]string{storeAll, storeSystem, storeNSS}, *which) {
		return fmt.Errorf("--store %q is not all, system or nss", *which)
	}
	data, err := filepath.Abs(*dir)
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(data, "ca")); errors.Is(err, fs.ErrNotExist) {
		switch user := os.Getenv("SUDO_USER"); {
		case *uninstall:
			return fmt.Errorf("there is no certificate authority in %s: --uninstall needs the root certificate that was installed", data)
		case os.Geteuid() == 0 && user != "" && user != "root":
			return errors.New("there is no certificate authority yet; run penstock trust once without sudo, so that it is not root's")
		}
	}
	ca, err := openAuthority(data)
	if err != nil {
		return err
	}
	if *show {
		_, err = os.Stdout.Write(ca.PEM())
		return err
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return err
	}
	stores := trustStores{system: systemRoots, update: []string{"update-ca-certificates"}, home: home, which: *which}
	switch {
	case *install:
		return stores.install(ctx, os.Stdout, ca, os.Geteuid() == 0)
	case *uninstall:
		return stores.uninstall(ctx, os.Stdout, ca, os.Geteuid() == 0)
	default:
		explainTrust(os.Stdout, ca)
		return nil
	}
}

func explainTrust(w io.Writer, ca *certs.Authority) {
	c := ca.Permitted()
	fmt.Fprintf(w, "%s\n  root certificate  %s\n  SHA-256           %s\n  ends              %s\n", ca.Name(), ca.Path(), ca.Fingerprint(), ca.Ends().Format(time.DateOnly))
	fmt.Fprintf(w, "It can vouch for these names and names below them, and for these addresses; for nothing else (critical name constraints):\n")
	for _, n := range c.Names {
		fmt.Fprintf(w, "  %s\n", n)
	}
	for _, r := range c.Ranges {
		fmt.Fprintf(w, "  %s\n", r)
	}
	fmt.Fprintf(w, `
To trust it:
  this machine and this user's Chromium    penstock trust --install      (undone by --uninstall; the system's store needs root)
  AWS CLI, boto3                           AWS_CA_BUNDLE=%[1]s
  curl                                     curl --cacert %[1]s …
  Node.js                                  NODE_EXTRA_CA_CERTS=%[1]s
  Firefox                                  Settings, Certificates, Authorities, Import: this file, "identify websites"
  another machine                          copy the file (penstock trust --print), never its key
`, ca.Path())
}

// file is the root in the system's folder; the name says which authority's.
func (s trustStores) file(ca *certs.Authority) string {
	return filepath.Join(s.system, strings.ReplaceAll(strings.ToLower(ca.Name()), " ", "-")+".crt")
}

func (s trustStores) nss() string { return filepath.Join(s.home, ".pki", "nssdb") }

// install does what it can and says what it could not. Repeating it changes nothing.
func (s trustStores) install(ctx context.Context, w io.Writer, ca *certs.Authority, root bool) error {
	var problems []error
	if s.which != storeNSS {
		if err := s.installSystem(ctx, ca, root); err != nil {
			problems = append(problems, fmt.Errorf("system's store: %w", err))
		} else {
			fmt.Fprintf(w, "system's store: %s is trusted (%s)\n", ca.Name(), s.file(ca))
		}
	}
	if s.which != storeSystem {
		if err := s.installNSS(ctx, ca); err != nil {
			problems = append(problems, fmt.Errorf("NSS store: %w", err))
		} else {
			fmt.Fprintf(w, "NSS store: %s is trusted (%s); restart Chromium\n", ca.Name(), s.nss())
		}
	}
	return errors.Join(problems...)
}

var errNotRoot = errors.New("needs root; run it again with sudo for this store")

func (s trustStores) installSystem(ctx context.Context, ca *certs.Authority, root bool) error {
	if !root {
		return errNotRoot
	}
	if err := os.MkdirAll(s.system, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(s.file(ca), ca.PEM(), 0o644); err != nil {
		return err
	}
	_, err := runTool(ctx, s.update[0], s.update[1:]...)
	return err
}

func (s trustStores) installNSS(ctx context.Context, ca *certs.Authority) error {
	if _, err := os.Stat(filepath.Join(s.nss(), "cert9.db")); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(s.nss(), 0o700); err != nil {
			return err
		}
		if _, err := runTool(ctx, "certutil", "-d", "sql:"+s.nss(), "-N", "--empty-password"); err != nil {
			return err
		}
	}
	// C: trusted to vouch for servers, for nothing else.
	_, err := runTool(ctx, "certutil", "-d", "sql:"+s.nss(), "-A", "-n", ca.Name(), "-t", "C,,", "-i", ca.Path())
	return err
}

func (s trustStores) uninstall(ctx context.Context, w io.Writer, ca *certs.Authority, root bool) error {
	var problems []error
	if s.which != storeNSS {
		if err := s.uninstallSystem(ctx, w, ca, root); err != nil {
			problems = append(problems, fmt.Errorf("system's store: %w", err))
		}
	}
	if s.which != storeSystem {
		if err := s.uninstallNSS(ctx, w, ca); err != nil {
			problems = append(problems, fmt.Errorf("NSS store: %w", err))
		}
	}
	return errors.Join(problems...)
}

func (s trustStores) uninstallSystem(ctx context.Context, w io.Writer, ca *certs.Authority, root bool) error {
	switch err := os.Remove(s.file(ca)); {
	case errors.Is(err, fs.ErrNotExist):
		fmt.Fprintf(w, "system's store: %s was not there\n", ca.Name())
		return nil
	case err != nil && !root:
		return errNotRoot
	case err != nil:
		return err
	}
	if _, err := runTool(ctx, s.update[0], s.update[1:]...); err != nil {
		return err
	}
	fmt.Fprintf(w, "system's store: %s was removed\n", ca.Name())
	return nil
}

func (s trustStores) uninstallNSS(ctx context.Context, w io.Writer, ca *certs.Authority) error {
	present, err := s.inNSS(ctx, ca)
	if err != nil {
		return err
	}
	if !present {
		fmt.Fprintf(w, "NSS store: %s was not there\n", ca.Name())
		return nil
	}
	if _, err := runTool(ctx, "certutil", "-d", "sql:"+s.nss(), "-D", "-n", ca.Name()); err != nil {
		return err
	}
	fmt.Fprintf(w, "NSS store: %s was removed\n", ca.Name())
	return nil
}

func (s trustStores) inNSS(ctx context.Context, ca *certs.Authority) (bool, error) {
	if _, err := os.Stat(filepath.Join(s.nss(), "cert9.db")); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	list, err := runTool(ctx, "certutil", "-d", "sql:"+s.nss(), "-L")
	return err == nil && strings.Contains(list, ca.Name()), err
}

// runTool runs a program of the machine and returns what it said.
func runTool(ctx context.Context, name string, args ...string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		packages := map[string]string{"certutil": "libnss3-tools", "update-ca-certificates": "ca-certificates"}
		return "", fmt.Errorf("%s is missing; on Debian it comes with %s", name, packages[name])
	}
	ctx, cancel := context.WithTimeout(ctx, toolTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
