// Command testsum reads the output of go test -json, prints one line a package and everything that a failed test wrote,
// and closes with the counts of tests passed, failed and skipped and the reason of each skip.
//
// The input may hold several runs, one after the other: a test that one of them skipped counts as skipped only if no other
// passed it. With -strict a skipped test is a failure, so that nothing that a machine lacks hides a test; -allow is a regular
// expression of the reasons that are right all the same.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

// event is one line of go test -json (go doc test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Output     string
	Elapsed    float64
}

// name identifies a test or, with no test, its package.
type name struct{ pkg, test string }

type summary struct {
	allowed                 *regexp.Regexp
	passed, failed, skipped int
	packagesFailed          int
	forbidden               int // skips whose reason is not allowed
	ran                     map[name]bool
	skips                   map[name]string // and why
}

func main() {
	strict := flag.Bool("strict", false, "count a skipped test as a failure")
	allow := flag.String("allow", "^$", "reasons of skips that are no failure with -strict, a regular `expression`")
	flag.Parse()
	allowed, err := regexp.Compile(*allow)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsum: -allow:", err)
		os.Exit(2)
	}
	s, err := summarise(os.Stdin, os.Stdout, allowed)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
		os.Exit(1)
	}
	if s.packagesFailed > 0 || s.failed > 0 || (*strict && s.forbidden > 0) || s.passed == 0 {
		os.Exit(1)
	}
}

// summarise reads events from r until its end and writes the report to w.
func summarise(r io.Reader, w io.Writer, allowed *regexp.Regexp) (summary, error) {
	s := summary{allowed: allowed, ran: map[name]bool{}, skips: map[name]string{}}
	output := map[name][]string{}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			s.take(line, output, w)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return s, fmt.Errorf("read test events: %w", err)
		}
	}
	var skips []string
	for n, why := range s.skips {
		if s.ran[n] {
			continue
		}
		s.skipped++
		if !s.allowed.MatchString(why) {
			s.forbidden++
		}
		skips = append(skips, fmt.Sprintf("skipped %s %s: %s", n.pkg, n.test, why))
	}
	slices.Sort(skips)
	for _, skip := range skips {
		fmt.Fprintln(w, skip)
	}
	fmt.Fprintf(w, "tests: %d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skipped)
	return s, nil
}

func (s *summary) take(line []byte, output map[name][]string, w io.Writer) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil || e.Action == "" {
		fmt.Fprint(w, string(line)) // not an event: what go itself had to say
		return
	}
	if e.Package == "" {
		e.Package = e.ImportPath
	}
	n := name{e.Package, e.Test}
	switch e.Action {
	case "output", "build-output":
		output[n] = append(output[n], e.Output)
		return
	case "build-fail":
		fmt.Fprint(w, strings.Join(output[n], ""))
		delete(output, n)
		return
	case "pass", "fail", "skip":
	default:
		return
	}
	wrote := output[n]
	delete(output, n)
	if e.Test == "" {
		s.endPackage(e, wrote, w)
		return
	}
	switch e.Action {
	case "pass":
		s.passed++
		s.ran[n] = true
	case "fail":
		s.failed++
		s.ran[n] = true
		fmt.Fprint(w, said(wrote))
	case "skip":
		s.skips[n] = reason(wrote)
	}
}

func (s *summary) endPackage(e event, wrote []string, w io.Writer) {
	switch e.Action {
	case "pass":
		fmt.Fprintf(w, "ok   %s %.1fs\n", e.Package, e.Elapsed)
	case "fail":
		s.packagesFailed++
		fmt.Fprint(w, said(wrote))
		fmt.Fprintf(w, "FAIL %s %.1fs\n", e.Package, e.Elapsed)
	}
}

// said is what was written, without the lines that only tell which test runs.
func said(wrote []string) string {
	var kept strings.Builder
	for _, line := range wrote {
		if !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "FAIL") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// reason is what a skipped test said, without the framework's own lines.
func reason(wrote []string) string {
	var words []string
	for _, line := range wrote {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "===") || strings.HasPrefix(line, "---") {
			continue
		}
		words = append(words, line)
	}
	if len(words) == 0 {
		return "no reason given"
	}
	return strings.Join(words, " ")
}
