// Command penstock is the whole product in one binary: each role and each operator's tool is a subcommand.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
)

// version is set by the build.
var version = "unknown"

// command is one subcommand. Run gets the arguments after its name.
type command struct {
	name, summary string
	run           func(ctx context.Context, args []string) error
}

func commands() []command {
	return []command{
		{"dev", "run a whole region in one process, with a demo to click", devCommand},
		{"serve", "run a region for production on one machine, from a configuration file", serveCommand},
		{"agent", "run one instance; started by penstock itself", agentCommand},
		{"sessions", "list the sessions of a running penstock dev", sessionsCommand},
		{"users", "list the users of the pool, or help one who lost the second factor", usersCommand},
		{"flow-logs", "print the flow logs of endpoint interfaces: what was accepted and what was rejected", flowLogsCommand},
		{"explain", "say who may do what, and which statement of which policy decides", explainCommand},
		{"root-key", "replace the root access key, also a lost one", rootKeyCommand},
		{"rekey", "seal the data directory with another key file", rekeyCommand},
		{"audit", "print, filter and verify the audit log", auditCommand},
		{"trust", "show, install or remove the root certificate of the private CA", trustCommand},
		{"version", "print the version", versionCommand},
	}
}

// exitStatus ends the command with a status; everything was said already.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	// A second signal ends the process at once: stop hands signals back after the first.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	if len(args) == 0 || slices.Contains([]string{"help", "-h", "--help"}, args[0]) {
		usage(os.Stdout)
		return 0
	}
	for _, c := range commands() {
		if c.name != args[0] {
			continue
		}
		err := c.run(ctx, args[1:])
		status, isStatus := errors.AsType[exitStatus](err)
		switch {
		case errors.Is(err, flag.ErrHelp):
			return 0
		case isStatus:
			return int(status)
		case err != nil:
			fmt.Fprintf(os.Stderr, "penstock %s: %v\n", c.name, err)
			return 1
		}
		return 0
	}
	fmt.Fprintf(os.Stderr, "penstock: there is no command %q\n\n", args[0])
	usage(os.Stderr)
	return 2
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Penstock streams Linux applications to a browser over a private network path.\n\nusage: penstock COMMAND [flags]\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-10s %s\n", c.name, c.summary)
	}
	fmt.Fprint(w, "\npenstock COMMAND -h lists the flags of a command.\n")
}

func versionCommand(_ context.Context, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("takes no arguments, got %s", strings.Join(args, " "))
	}
	goVersion := ""
	if b, ok := debug.ReadBuildInfo(); ok {
		goVersion = b.GoVersion
	}
	fmt.Println("penstock", version, goVersion)
	return nil
}
