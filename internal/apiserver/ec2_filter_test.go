package apiserver

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/vpc"
	api "penstock.dev/penstock/internal/wire/ec2api"
)

func TestWildcard(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true},
		{"", "a", false},
		{"a", "a", true},
		{"a", "A", false},
		{"*", "", true},
		{"*", "anything", true},
		{"a*", "abc", true},
		{"*c", "abc", true},
		{"a*c", "abbbc", true},
		{"a*c", "abbbd", false},
		{"?", "", false},
		{"?", "a", true},
		{"a??", "abc", true},
		{"a??", "ab", false},
		{"**a**b**", "xaxbx", true},
		{"a*b*c", "a1b2b3c", true},
		{`\*`, "*", true},
		{`\*`, "a", false},
		{`a\?`, "a?", true},
		{`a\?`, "ab", false},
		{`\\`, `\`, true},
		{"us-east-1?", "us-east-1a", true},
		{"*.appstream.streaming", "com.amazonaws.us-east-1.appstream.streaming", true},
	} {
		if got := wildcard(tt.pattern, tt.text); got != tt.want {
			t.Errorf("%q on %q: %t", tt.pattern, tt.text, got)
		}
	}
}

// plainWildcard is the same by recursion: exponential, and easy to believe.
func plainWildcard(p, s string) bool {
	switch {
	case p == "":
		return s == ""
	case p[0] == '*':
		return plainWildcard(p[1:], s) || s != "" && plainWildcard(p, s[1:])
	case s == "":
		return false
	case p[0] == '\\' && len(p) > 1:
		return p[1] == s[0] && plainWildcard(p[2:], s[1:])
	case p[0] == '?' || p[0] == s[0]:
		return plainWildcard(p[1:], s[1:])
	}
	return false
}

func FuzzWildcard(f *testing.F) {
	f.Add("a*b?", "axxbc")
	f.Add(`*\**`, "a*b")
	f.Fuzz(func(t *testing.T, p, s string) {
		if len(p) > 12 || len(s) > 16 {
			return // the plain one takes too long
		}
		if got, want := wildcard(p, s), plainWildcard(p, s); got != want {
			t.Errorf("%q on %q: got %t, want %t", p, s, got, want)
		}
	})
}

type thing struct {
	id   string
	tags vpc.Tags
}

func TestFilters(t *testing.T) {
	t.Parallel()
	things := []thing{{"a", vpc.Tags{"Name": "one"}}, {"b", vpc.Tags{"Name": "two", "x": ""}}, {"c", nil}}
	f := ec2Filter[thing]{"id": one(func(v *thing) string { return v.id }), "nothing": never[thing]}
	tags := func(v *thing) []api.Tag { return ec2Tags(v.tags) }
	for _, tt := range []struct {
		name    string
		filters []api.Filter
		want    string
		code    string
	}{
		{"none", nil, "abc", ""},
		{"any of the values", []api.Filter{{Name: new("id"), Values: []string{"a", "c", "z"}}}, "ac", ""},
		{"all of the filters", []api.Filter{{Name: new("id"), Values: []string{"a", "b"}}, {Name: new("tag:Name"), Values: []string{"t*"}}}, "b", ""},
		{"tag with an empty value", []api.Filter{{Name: new("tag:x"), Values: []string{""}}}, "b", ""},
		{"tag-key", []api.Filter{{Name: new("tag-key"), Values: []string{"Name"}}}, "ab", ""},
		{"documented, but on nothing that is here", []api.Filter{{Name: new("nothing"), Values: []string{"*"}}}, "", ""},
		{"no values", []api.Filter{{Name: new("id")}}, "", ""},
		{"unknown", []api.Filter{{Name: new("colour"), Values: []string{"red"}}}, "", "InvalidParameterValue"},
		{"no name", []api.Filter{{Values: []string{"red"}}}, "", "InvalidParameterValue"},
		{"too many values", []api.Filter{{Name: new("id"), Values: make([]string, 201)}}, "", "FilterLimitExceeded"},
	} {
		got, err := f.apply(append([]thing(nil), things...), tt.filters, tags)
		ids := ""
		for _, v := range got {
			ids += v.id
		}
		if e, ok := errors.AsType[*fault.Error](err); ids != tt.want || ok && e.Code != tt.code || ok != (tt.code != "") {
			t.Errorf("%s: got %q, %v", tt.name, ids, err)
		}
	}
	if _, err := f.apply(things, []api.Filter{{Name: new("tag:x"), Values: []string{"y"}}}, nil); err == nil {
		t.Error("a tag filter where there are no tags")
	}
}

func TestPage(t *testing.T) {
	t.Parallel()
	all := func() []thing {
		var out []thing
		for n := range 7 {
			out = append(out, thing{id: fmt.Sprint(6 - n)})
		}
		return out
	}
	id := func(v *thing) string { return v.id }
	var got []string
	var token *string
	for range 10 {
		items, next, err := page(all(), id, new(int32(3)), token)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range items {
			got = append(got, v.id)
		}
		if token = next; token == nil {
			break
		}
	}
	if d := cmp.Diff([]string{"0", "1", "2", "3", "4", "5", "6"}, got); d != "" {
		t.Errorf("pages (-want +got):\n%s", d)
	}
	// What the token named may be gone meanwhile.
	_, next, err := page(all(), id, new(int32(3)), nil)
	if err != nil {
		t.Fatal(err)
	}
	less := append(all()[:4], all()[5:]...) // without "2"
	if items, _, err := page(less, id, new(int32(3)), next); err != nil || items[0].id != "3" {
		t.Errorf("after what went: %v, %v", items, err)
	}
	if _, _, err := page(all(), id, new(int32(-1)), nil); err == nil {
		t.Error("a negative size was taken")
	}
}
