package main

import (
	"regexp"
	"strings"
	"testing"
)

func TestSummarise(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		in       string
		want     []string
		wantNot  []string
		passed   int
		failed   int
		skipped  int
		packages int
		allowed  int // of the skipped ones
	}{
		"a pass is one line": {
			in: `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"chatter\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p","Elapsed":1.25}
`,
			want:    []string{"ok   p 1.2s", "tests: 1 passed, 0 failed, 0 skipped"},
			wantNot: []string{"chatter"},
			passed:  1,
		},
		"a failure shows its output": {
			in: `{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: got 1, want 2\n"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p","Elapsed":0}
`,
			want:     []string{"got 1, want 2", "FAIL p", "1 failed"},
			wantNot:  []string{"=== RUN"},
			failed:   1,
			packages: 1,
		},
		"a skip gives its reason": {
			in: `{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: no Xvfb\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"--- SKIP: TestA\n"}
{"Action":"skip","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p"}
`,
			want:    []string{"skipped p TestA: a_test.go:3: no Xvfb", "1 skipped"},
			skipped: 1,
		},
		"a skip with an allowed reason": {
			in: `{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: a part of TestB\n"}
{"Action":"skip","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p"}
`,
			want:    []string{"skipped p TestA: a_test.go:3: a part of TestB", "1 skipped"},
			skipped: 1,
			allowed: 1,
		},
		"a skip of one run that another passed is none": {
			in: `{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: without the race detector\n"}
{"Action":"skip","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    a_test.go:9: without the race detector\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"pass","Package":"p"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p"}
{"Action":"pass","Package":"q","Test":"TestB"}
{"Action":"pass","Package":"q"}
`,
			want:    []string{"skipped p TestB: a_test.go:9: without the race detector", "2 passed, 0 failed, 1 skipped"},
			wantNot: []string{"skipped p TestA"},
			passed:  2,
			skipped: 1,
		},
		"a package that does not build fails": {
			in: `{"ImportPath":"p [p.test]","Action":"build-output","Output":"p/a.go:1: syntax error\n"}
{"ImportPath":"p [p.test]","Action":"build-fail"}
{"Action":"fail","Package":"p","FailedBuild":"p [p.test]"}
`,
			want:     []string{"syntax error", "FAIL p"},
			packages: 1,
		},
		"a crash of the whole package fails": {
			in: `{"Action":"output","Package":"p","Output":"panic: boom\n"}
{"Action":"fail","Package":"p"}
`,
			want:     []string{"panic: boom", "FAIL p"},
			packages: 1,
		},
		"what is no event is passed on": {
			in:   "go: cannot find module\n",
			want: []string{"go: cannot find module", "tests: 0 passed"},
		},
	}
	for label, tt := range tests {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			s, err := summarise(strings.NewReader(tt.in), &out, regexp.MustCompile("a part of"))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("got %q, want it to contain %q", out.String(), want)
				}
			}
			for _, not := range tt.wantNot {
				if strings.Contains(out.String(), not) {
					t.Errorf("got %q, want it without %q", out.String(), not)
				}
			}
			if s.forbidden != tt.skipped-tt.allowed {
				t.Errorf("got %d forbidden skips, want %d", s.forbidden, tt.skipped-tt.allowed)
			}
			if s.passed != tt.passed || s.failed != tt.failed || s.skipped != tt.skipped || s.packagesFailed != tt.packages {
				t.Errorf("got %+v, want passed %d, failed %d, skipped %d, packages failed %d", s, tt.passed, tt.failed, tt.skipped, tt.packages)
			}
		})
	}
}
