package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"penstock.dev/penstock/internal/audit"
	"penstock.dev/penstock/internal/auditlog"
	"penstock.dev/penstock/internal/vpc"
)

// auditConfig is what a server takes about its audit log.
type auditConfig struct {
	maxFile int64 // MiB
	keep    int
}

func (c *auditConfig) flags(fs *flag.FlagSet) {
	fs.Int64Var(&c.maxFile, "audit-file-size", 64, "`MiB` at which the audit log begins another file")
	fs.IntVar(&c.keep, "audit-keep", 0, "how `many` files of the audit log stay; 0 keeps all")
}

func (c *auditConfig) check() error {
	if c.maxFile < 1 || c.maxFile > 4096 {
		return fmt.Errorf("--audit-file-size %d is not between 1 and 4096", c.maxFile)
	}
	if c.keep < 0 {
		return fmt.Errorf("--audit-keep %d is less than 0", c.keep)
	}
	return nil
}

func auditDir(dataDir string) string { return filepath.Join(dataDir, "audit") }

func (r *region) openAudit() (*auditlog.Log, error) {
	l, err := auditlog.Open(auditlog.Options{
		Dir: auditDir(r.config.dataDir), Region: devRegion, Account: r.identity.AccountID, MaxFile: r.config.audit.maxFile << 20, Keep: r.config.audit.keep,
		Log: r.log.With("part", "audit"),
	})
	if err != nil {
		return nil, err
	}
	r.onClose("audit log", l.Close)
	return l, nil
}

// keepAudit syncs the audit log until everything else has ended; the returned function waits for that.
func (r *region) keepAudit() (end func()) {
	ctx, cancel := context.WithCancel(context.Background()) // it outlives the others
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.audit.Run(ctx) // never fails
	}()
	r.audit.Record(operatorAct("StartServer", map[string]any{"version": version, "pid": os.Getpid(), "net": r.config.net, "apiAddr": r.config.apiAddr, "publicAddr": r.config.publicAddr}))
	return func() {
		r.audit.Record(operatorAct("StopServer", map[string]any{"pid": os.Getpid()}))
		cancel()
		<-done
	}
}

// operatorAct is something that was done on the machine itself.
func operatorAct(name string, facts map[string]any) audit.Event {
	who := strconv.Itoa(os.Getuid())
	if u, err := user.Current(); err == nil {
		who = u.Username
	}
	return audit.Event{Source: audit.PenstockSource, Name: name, Identity: audit.OnMachine(who), Type: audit.Operator, Additional: facts}
}

// recordRefusal puts a connection that the rules did not admit on record.
func (r *region) recordRefusal(f vpc.Refusal) {
	r.audit.Record(audit.Event{
		Source: audit.NetworkSource, Name: "RefuseConnection", SourceIP: f.Flow.Src.String(), ErrorCode: "Refused", ErrorText: fmt.Sprint(f.Reason), Unproved: true,
		Additional: map[string]any{"endpoint": string(f.Endpoint), "networkInterface": string(f.Interface), "destination": f.Flow.Dst.String()},
	})
}

// lookedUp is an event as CloudTrail's LookupEvents answers it.
type lookedUp struct {
	EventID         string           `json:"EventId"`
	EventName       string           `json:"EventName"`
	ReadOnly        string           `json:"ReadOnly"`
	AccessKeyID     string           `json:"AccessKeyId,omitempty"`
	EventTime       time.Time        `json:"EventTime"`
	EventSource     string           `json:"EventSource"`
	Username        string           `json:"Username,omitempty"`
	Resources       []lookedResource `json:"Resources"`
	CloudTrailEvent string           `json:"CloudTrailEvent"`

	errorCode, sourceIP, errorText string
}

type lookedResource struct {
	ResourceType string `json:"ResourceType"`
	ResourceName string `json:"ResourceName"`
}

func lookUp(line []byte) (v lookedUp, err error) {
	var e struct {
		EventID, EventName, EventSource, ErrorCode, ErrorMessage string
		SourceIPAddress                                          string
		EventTime                                                time.Time
		ReadOnly                                                 bool
		UserIdentity                                             audit.Identity
		Resources                                                []audit.Resource
	}
	if err := json.Unmarshal(line, &e); err != nil {
		return v, err
	}
	id := e.UserIdentity
	v = lookedUp{
		EventID: e.EventID, EventName: e.EventName, ReadOnly: strconv.FormatBool(e.ReadOnly), AccessKeyID: id.AccessKeyID, EventTime: e.EventTime,
		EventSource: e.EventSource, Username: id.UserName, Resources: []lookedResource{}, CloudTrailEvent: string(line),
		errorCode: e.ErrorCode, errorText: e.ErrorMessage, sourceIP: e.SourceIPAddress,
	}
	switch id.Type {
	case "Root":
		v.Username = "root"
	case "AssumedRole": // CloudTrail names the session
		v.Username = id.ARN[strings.LastIndexByte(id.ARN, '/')+1:]
	}
	for _, r := range e.Resources {
		v.Resources = append(v.Resources, lookedResource{r.Type, r.ARN})
	}
	return v, nil
}

// auditFilter is what `penstock audit` prints; empty members select everything.
type auditFilter struct {
	id, name, source, user, key, resource, resourceType, readOnly string
	since, until                                                  time.Time
	refused                                                       bool
	limit                                                         int
}

func (f *auditFilter) matches(e *lookedUp) bool {
	for _, p := range []struct{ want, got string }{
		{f.id, e.EventID},
		{f.name, e.EventName},
		{f.source, e.EventSource},
		{f.user, e.Username},
		{f.key, e.AccessKeyID},
		{f.readOnly, e.ReadOnly},
	} {
		if p.want != "" && p.want != p.got {
			return false
		}
	}
	if f.resource != "" || f.resourceType != "" {
		found := false
		for _, r := range e.Resources {
			named := r.ResourceName == f.resource || strings.HasSuffix(r.ResourceName, "/"+f.resource)
			found = found || (f.resource == "" || named) && (f.resourceType == "" || f.resourceType == r.ResourceType)
		}
		if !found {
			return false
		}
	}
	return (f.since.IsZero() || !e.EventTime.Before(f.since)) && (f.until.IsZero() || e.EventTime.Before(f.until)) && (!f.refused || e.errorCode != "")
}

// parseWhen reads a time as RFC 3339, or as a duration before now.
func parseWhen(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, fmt.Errorf("%q is neither a time such as 2026-01-02T15:04:05Z nor a duration such as 1h30m", s)
	}
	return t, nil
}

func auditCommand(_ context.Context, args []string) error {
	if len(args) > 0 && args[0] == "verify" {
		return auditVerify(args[1:], os.Stdout)
	}
	if len(args) > 0 && args[0] == "head" {
		return auditHead(args[1:], os.Stdout)
	}
	fs := flag.NewFlagSet("penstock audit", flag.ContinueOnError)
	fs.Usage = func() {
		fmt.Fprint(fs.Output(), "usage: penstock audit [flags]         print events\n"+
			"       penstock audit verify [flags]  check that nothing was changed, moved or removed\n"+
			"       penstock audit head [flags]    print the newest event's number and hash, to be kept elsewhere\n\n")
		fs.PrintDefaults()
	}
	var f auditFilter
	dir := fs.String("data-dir", "./penstock-data", "`folder` of the server")
	asJSON := fs.Bool("json", false, "print what CloudTrail's LookupEvents answers")
	asLines := fs.Bool("lines", false, "print the lines as they are in the log")
	fs.StringVar(&f.name, "event-name", "", "only events of this `name`, such as CreateStack")
	fs.StringVar(&f.source, "event-source", "", "only events of this `source`, such as appstream.amazonaws.com")
	fs.StringVar(&f.id, "event-id", "", "only the event with this `ID`")
	fs.StringVar(&f.user, "user", "", "only events of this `user`: an IAM user, a role session's name, a streaming user, root")
	fs.StringVar(&f.key, "access-key-id", "", "only events of this access `key`")
	fs.StringVar(&f.resource, "resource", "", "only events about this resource: an `ARN` or its last part")
	fs.StringVar(&f.resourceType, "resource-type", "", "only events about resources of this `type`, such as AWS::AppStream::Stack")
	fs.StringVar(&f.readOnly, "read-only", "", "`true` or false")
	fs.BoolVar(&f.refused, "refused", false, "only what was refused or failed")
	fs.IntVar(&f.limit, "limit", 0, "only the newest `N` events; 0 for all")
	since := fs.String("since", "", "only events from this `time` on: RFC 3339, or a duration before now")
	until := fs.String("until", "", "only events before this `time`")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q; the commands are verify and head", fs.Arg(0))
	}
	for _, p := range []struct {
		text string
		into *time.Time
	}{{*since, &f.since}, {*until, &f.until}} {
		if p.text == "" {
			continue
		}
		var err error
		if *p.into, err = parseWhen(p.text, time.Now()); err != nil {
			return err
		}
	}
	if f.readOnly != "" && f.readOnly != "true" && f.readOnly != "false" {
		return fmt.Errorf("--read-only %q is not true or false", f.readOnly)
	}
	events, err := readAudit(auditDir(*dir), &f)
	if err != nil {
		return err
	}
	return printAudit(os.Stdout, events, *asJSON, *asLines)
}

// readAudit reads the events that a filter selects, oldest first.
func readAudit(dir string, f *auditFilter) ([]lookedUp, error) {
	files, err := auditlog.Files(dir)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s holds no audit log", dir)
	}
	out := []lookedUp{}
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		sc := bufio.NewScanner(file)
		sc.Buffer(nil, audit.MaxLine)
		for n := 1; sc.Scan(); n++ {
			e, err := lookUp([]byte(sc.Text()))
			if err != nil { // a line that is being written, or damage that verify names
				fmt.Fprintf(os.Stderr, "%s, line %d is no event: %v\n", filepath.Base(name), n, err)
				continue
			}
			if !f.matches(&e) {
				continue
			}
			if out = append(out, e); f.limit > 0 && len(out) > f.limit {
				out = out[1:]
			}
		}
		if err := errors.Join(sc.Err(), file.Close()); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
	}
	return out, nil
}

func printAudit(w io.Writer, events []lookedUp, asJSON, asLines bool) error {
	switch {
	case asJSON:
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(map[string]any{"Events": events})
	case asLines:
		for _, e := range events {
			if _, err := fmt.Fprintln(w, e.CloudTrailEvent); err != nil {
				return err
			}
		}
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TIME\tUSER\tFROM\tEVENT\tOUTCOME\tRESOURCES")
	for _, e := range events {
		outcome := "ok"
		if e.errorCode != "" {
			outcome = e.errorCode
		}
		names := make([]string, 0, len(e.Resources))
		for _, r := range e.Resources {
			names = append(names, r.ResourceName[strings.LastIndexByte(r.ResourceName, ':')+1:])
		}
		service, _, _ := strings.Cut(e.EventSource, ".")
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", e.EventTime.Format(time.RFC3339), orDash(e.Username), orDash(e.sourceIP), service+":"+e.EventName, outcome, strings.Join(names, " "))
	}
	return t.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func auditVerify(args []string, w io.Writer) error {
	fs := flag.NewFlagSet("penstock audit verify", flag.ContinueOnError)
	dir := fs.String("data-dir", "./penstock-data", "`folder` of the server")
	var heads []audit.Head
	fs.Func("head", "a head that `penstock audit head` printed before, SEQUENCE:HASH; may be repeated", func(s string) error {
		h, err := audit.ParseHead(s)
		heads = append(heads, h)
		return err
	})
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	r, err := auditlog.Check(auditDir(*dir), heads...)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "%d events, %d to %d, are as they were written; the head is %s\n", r.Events, r.First.Sequence, r.Last.Sequence, r.Last)
	if r.Torn > 0 {
		fmt.Fprintf(w, "the last %d bytes are an incomplete event: it is being written, or its writer was interrupted\n", r.Torn)
	}
	if r.First.Sequence > 1 {
		fmt.Fprintf(w, "events before %d were removed by --audit-keep, as the log itself records\n", r.First.Sequence)
	}
	if len(heads) == 0 {
		fmt.Fprintln(w, "without --head this shows changes of what is there, and not an end that was cut off together with the head beside the log")
	}
	return nil
}

func auditHead(args []string, w io.Writer) error {
	fs := flag.NewFlagSet("penstock audit head", flag.ContinueOnError)
	dir := fs.String("data-dir", "./penstock-data", "`folder` of the server")
	if err := fs.Parse(args); err != nil {
		return err
	}
	r, err := auditlog.Check(auditDir(*dir))
	if err != nil {
		return err
	}
	fmt.Fprintln(w, r.Last)
	return nil
}
