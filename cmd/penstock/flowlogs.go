package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"penstock.dev/penstock/internal/flowlog"
	"penstock.dev/penstock/internal/vpc"
	wire "penstock.dev/penstock/internal/wire/flowlog"
)

// flowLogConfig is what `penstock dev` takes for flow logs.
type flowLogConfig struct {
	on       bool
	interval time.Duration
	fileMiB  uint
	totalMiB uint
	age      time.Duration
}

// minFlowInterval keeps the files readable; AWS has 60 and 600 seconds.
const minFlowInterval = 100 * time.Millisecond

func (c *flowLogConfig) flags(fs *flag.FlagSet) {
	fs.BoolVar(&c.on, "flow-logs", true, "write flow logs of endpoint interfaces into flow-logs/ of the data directory")
	fs.DurationVar(&c.interval, "flow-log-interval", time.Minute, "aggregation `interval` of flow logs: 1m or 10m as with AWS, or shorter")
	fs.UintVar(&c.fileMiB, "flow-log-file-mib", 16, "`size` in MiB after which a flow log is compressed and another begun")
	fs.DurationVar(&c.age, "flow-log-age", 24*time.Hour, "and after what `time`")
	fs.UintVar(&c.totalMiB, "flow-log-total-mib", 256, "`size` in MiB of all flow logs; the oldest are removed to stay below")
}

func (c *flowLogConfig) check() error {
	switch {
	case c.interval < minFlowInterval || c.interval > time.Minute && c.interval != 10*time.Minute:
		return fmt.Errorf("--flow-log-interval %s is not 10m, nor from %s to 1m", c.interval, minFlowInterval)
	case c.fileMiB == 0 || c.fileMiB > 1<<20:
		return fmt.Errorf("--flow-log-file-mib %d is not from 1 to %d", c.fileMiB, 1<<20)
	case c.totalMiB < 2*c.fileMiB || c.totalMiB > 1<<30:
		return fmt.Errorf("--flow-log-total-mib %d is not at least twice --flow-log-file-mib %d", c.totalMiB, c.fileMiB)
	case c.age < time.Second:
		return fmt.Errorf("--flow-log-age %s is shorter than a second", c.age)
	}
	return nil
}

func flowLogDir(dataDir string) string { return filepath.Join(dataDir, "flow-logs") }

func (r *region) openFlowLogs() (*flowlog.Log, error) {
	c := r.config.flowLogs
	if !c.on {
		return nil, nil //nolint:nilnil // off
	}
	return flowlog.New(flowlog.Config{
		Dir: flowLogDir(r.config.dataDir), AccountID: r.identity.AccountID, Source: r.driver, Interval: c.interval,
		Limits: flowlog.Limits{File: int64(c.fileMiB) << 20, Age: c.age, Total: int64(c.totalMiB) << 20},
		Log:    r.log.With("part", "flow-logs"),
	})
}

// keepFlowLogs writes flow logs until what it returns is called.
func (r *region) keepFlowLogs() (stop func()) {
	if r.flows == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.flows.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// flowLogFilter says which records `penstock flow-logs` prints.
type flowLogFilter struct {
	interfaces []string
	action     string
	since      time.Time
}

func (f *flowLogFilter) match(r *wire.Record) bool {
	return (len(f.interfaces) == 0 || slices.Contains(f.interfaces, r.Interface)) &&
		(f.action == "" || string(r.Action) == f.action) &&
		(f.since.IsZero() || r.End >= f.since.Unix())
}

func flowLogsCommand(ctx context.Context, args []string) error {
	return printFlowLogs(ctx, args, os.Stdout, os.Stderr)
}

func printFlowLogs(ctx context.Context, args []string, out, complaints io.Writer) error {
	fs := flag.NewFlagSet("penstock flow-logs", flag.ContinueOnError)
	fs.SetOutput(complaints)
	dir := fs.String("data-dir", "./penstock-data", "`folder` of the penstock dev that wrote them, which may be running")
	follow := fs.Bool("follow", false, "wait for more at the end")
	raw := fs.Bool("raw", false, "print the records as they are in the files, in AWS's format")
	since := fs.Duration("since", 0, "only records of the last `time`, such as 15m")
	var filter flowLogFilter
	fs.Func("eni", "only records of this network `interface`; may be repeated", func(s string) error {
		filter.interfaces = append(filter.interfaces, s)
		if !strings.HasPrefix(s, vpc.PrefixNetworkInterface+"-") {
			return errors.New("network interfaces begin with " + vpc.PrefixNetworkInterface + "-")
		}
		return nil
	})
	fs.Func("action", "only records with this `action`: ACCEPT or REJECT", func(s string) error {
		filter.action = strings.ToUpper(s)
		if filter.action != string(wire.Accept) && filter.action != string(wire.Reject) {
			return errors.New("want ACCEPT or REJECT")
		}
		return nil
	})
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if *since < 0 {
		return fmt.Errorf("--since %s is negative", *since)
	}
	if *since > 0 {
		filter.since = time.Now().Add(-*since)
	}
	if _, err := os.Stat(flowLogDir(*dir)); err != nil && !*follow {
		return fmt.Errorf("there are no flow logs of %s: %w", *dir, err)
	}
	w := bufio.NewWriter(out)
	if !*raw {
		fmt.Fprintf(w, flowLogColumns, "INTERFACE", "SOURCE", "DESTINATION", "PROTOCOL", "PACKETS", "BYTES", "START", "SECONDS", "ACTION", "STATUS")
	}
	reader := flowlog.Reader{Dir: flowLogDir(*dir), Follow: *follow}
	err := reader.Read(ctx, func(r wire.Record, line []byte) error {
		if !filter.match(&r) {
			return nil
		}
		if *raw {
			_, _ = w.Write(line) // the writer keeps its error for Flush
			_ = w.WriteByte('\n')
		} else {
			printFlow(w, &r)
		}
		if *follow {
			return w.Flush()
		}
		return nil
	})
	if reader.Unreadable > 0 {
		fmt.Fprintf(complaints, "%d lines are no records and were left out\n", reader.Unreadable)
	}
	if ctx.Err() != nil && *follow {
		err = nil
	}
	return errors.Join(err, w.Flush())
}

const flowLogColumns = "%-21s  %-21s  %-21s  %-8s  %7s  %10s  %-19s  %7s  %-6s  %s\n"

// printFlow is a record for people: times are local, the length of a flow stands in place of its end.
func printFlow(w io.Writer, r *wire.Record) {
	start, seconds := time.Unix(r.Start, 0).Format(time.DateTime), fmt.Sprint(r.End-r.Start)
	if r.Status != wire.OK {
		fmt.Fprintf(w, flowLogColumns, r.Interface, "-", "-", "-", "-", "-", start, seconds, "-", r.Status)
		return
	}
	fmt.Fprintf(w, flowLogColumns, r.Interface, r.Src, r.Dst, vpc.Protocol(r.Protocol), fmt.Sprint(r.Packets), fmt.Sprint(r.Bytes), start, seconds, r.Action, r.Status)
}
