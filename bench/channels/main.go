// Command channels plays both sides of a relay: the agent, and viewers that open channels through whatever relay stands between. It
// prints what it measured as one line of JSON; the relay's own processor time comes from /proc.
//
//	channels agent -socket PATH
//	channels bulk|ping|connect|idle -address HOST:PORT -dir DIR -pid PID ...
//
// A viewer sends an upgrade request, as viewers do. What it wants of the agent is one letter after the answer: d, frames without end;
// u, take what comes; e, echo; b, read nothing and say nothing.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "channels:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: channels agent|bulk|ping|connect|idle")
	}
	fs := flag.NewFlagSet("channels", flag.ExitOnError)
	socket := fs.String("socket", "", "`path` of the agent's socket")
	v := viewers{}
	fs.StringVar(&v.address, "address", "", "`address` of the relay")
	dir := fs.String("dir", "", "`folder` with the ticket")
	fs.BoolVar(&v.plain, "plain", false, "without TLS")
	fs.IntVar(&v.pid, "pid", 0, "process of the relay")
	fs.IntVar(&v.count, "connections", 1, "how many")
	fs.BoolVar(&v.up, "up", false, "bulk towards the agent")
	fs.DurationVar(&v.duration, "duration", 2*time.Second, "how long")
	fs.DurationVar(&v.settle, "settle", 3*time.Second, "idle: time before memory is read")
	fs.BoolVar(&v.used, "used", false, "idle: each connection carried 1 MiB before")
	if err := fs.Parse(args[1:]); err != nil {
		return err
	}
	if err := raiseLimit(); err != nil {
		return err
	}
	if args[0] == "agent" {
		return serveAgent(*socket)
	}
	ticket, err := os.ReadFile(filepath.Join(*dir, "ticket"))
	if err != nil {
		return err
	}
	v.ticket = string(ticket)
	var result any
	switch args[0] {
	case "bulk":
		result, err = v.bulk()
	case "ping":
		result, err = v.ping()
	case "connect":
		result, err = v.connect()
	case "idle":
		result, err = v.idle()
	default:
		err = fmt.Errorf("%q is not agent, bulk, ping, connect or idle", args[0])
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// raiseLimit allows as many descriptors as the machine lets this process have.
func raiseLimit() error {
	for _, n := range []uint64{200_000, 0} {
		var l unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
			return err
		}
		l.Max = max(l.Max, n)
		l.Cur = l.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err == nil {
			return nil
		}
	}
	return nil
}
