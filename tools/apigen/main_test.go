package main

import (
	"regexp"
	"testing"
)

func TestGeneratedFilesAreCurrent(t *testing.T) {
	if err := run("../..", true); err != nil {
		t.Error(err)
	}
}

func TestCheckFindsAStaleTree(t *testing.T) {
	dir := t.TempDir()
	if err := run(dir, true); err == nil {
		t.Error("check of an empty tree: got no error")
	}
	if err := run(dir, false); err != nil {
		t.Fatal(err)
	}
	if err := run(dir, true); err != nil {
		t.Errorf("check of a tree just written: %v", err)
	}
}

func TestTranslateKeepsTheMeaningOfPatterns(t *testing.T) {
	for _, tc := range []struct {
		name, pattern string
		match, refuse []string
	}{
		{
			"tag key", `^(^(?!aws:).[\p{L}\p{Z}\p{N}_.:/=+\-@]*)$`,
			[]string{"team", "a", "aws", "my aws:x", "größe"},
			[]string{"aws:team", "", "a#"},
		},
		{"no final dot", `^[0-9a-z\.\-]*(?<!\.)$`, []string{"", "a", "a.b", "1-2"}, []string{"a.", "A"}},
		{"no double hyphen", `^[a-z0-9]([a-z0-9]|-(?!-)){1,61}[a-z0-9]$`, []string{"abc", "a-b"}, []string{"a--b", "ab", "ab-"}},
		{"last plane", `[\u0020-\u007E\u10000-\u10FFFF]+`, []string{"a~", "\U0001F600"}, []string{"\u00e9"}},
		{"long repeat", `^[A-Za-z0-9][A-Za-z]{0,1023}$`, []string{"1", "1a", "1" + string(repeat('a', 1023))}, []string{"1" + string(repeat('a', 1024))}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			yes, not, err := translate(tc.pattern)
			if err != nil {
				t.Fatal(err)
			}
			fits := func(v string) bool {
				return regexp.MustCompile(`\A(?:`+yes+`)\z`).MatchString(v) &&
					(not == "" || !regexp.MustCompile(not).MatchString(v))
			}
			for _, v := range tc.match {
				if !fits(v) {
					t.Errorf("%q was refused", v)
				}
			}
			for _, v := range tc.refuse {
				if fits(v) {
					t.Errorf("%q was let through", v)
				}
			}
		})
	}
}

func repeat(b byte, n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = b
	}
	return out
}
