package query_test

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/wire/query"
	"penstock.dev/penstock/internal/wire/shape"
)

// everything has one member of each kind.
type everything struct {
	Text   *string          `in:"Text" out:"text"`
	Small  *int32           `in:"Small" out:"small"`
	Large  *int64           `in:"Large" out:"large"`
	Ratio  *float64         `in:"Ratio" out:"ratio"`
	Flag   *bool            `in:"Flag" out:"flag"`
	At     *time.Time       `in:"At" out:"at"`
	Raw    []byte           `in:"Raw" out:"raw"`
	Words  []string         `in:"Word" out:"wordSet" item:"item"`
	Counts map[string]int32 `in:"Counts" out:"counts"`
	Inner  *inner           `in:"Inner" out:"inner"`
	Inners []inner          `in:"Inners" out:"innerSet" item:"member"`
}

type inner struct {
	Text  *string  `in:"Text" out:"text"`
	Words []string `in:"Word" out:"words" item:"item"`
}

func formOf(tb testing.TB, v any) *shape.Type {
	tb.Helper()
	t, err := shape.NewSchemas(nil).Of(reflect.TypeOf(v))
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func TestDecode(t *testing.T) {
	t.Parallel()
	form := formOf(t, everything{})
	for _, tc := range []struct {
		name, body string
		style      query.Style
		want       everything
		unknown    []string
	}{
		{"nothing", "", query.Flat, everything{}, nil},
		{"known names are not the operation's", "Action=X&Version=Y", query.Flat, everything{}, nil},
		{"scalars", "Text=a%20b+c%26&Small=-7&Large=9007199254740993&Ratio=1.5&Flag=True&At=2026-01-02T03:04:05.678Z&Raw=AQI%3D", query.Flat, everything{
			Text: new("a b c&"), Small: new(int32(-7)), Large: new(int64(9007199254740993)), Ratio: new(1.5), Flag: new(true),
			At: new(time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)), Raw: []byte{1, 2},
		}, nil},
		{"empty is not absent", "Text=&Word=&&", query.Flat, everything{Text: new(""), Words: []string{}}, nil},
		{"flat lists in order of their numbers", "Word.10=j&Word.2=b&Word.1=a", query.Flat, everything{Words: []string{"a", "b", "j"}}, nil},
		{"a large index costs nothing", "Word.65535=z", query.Flat, everything{Words: []string{"z"}}, nil},
		{"nested", "Inners.1.Text=x&Inners.2.Word.1=y&Inner.Word.1=z", query.Flat, everything{
			Inner: &inner{Words: []string{"z"}}, Inners: []inner{{Text: new("x")}, {Words: []string{"y"}}},
		}, nil},
		{"member lists", "Inners.member.1.Text=x&Inners.member.2.Word.member.1=y&Word=", query.Member, everything{
			Words: []string{}, Inners: []inner{{Text: new("x")}, {Words: []string{"y"}}},
		}, nil},
		{"map entries", "Counts.entry.2.key=b&Counts.entry.2.value=2&Counts.entry.1.key=a&Counts.entry.1.value=1", query.Member, everything{
			Counts: map[string]int32{"a": 1, "b": 2},
		}, nil},
		{"unknown names", "Z=1&Inner.Y.1=2&Inner.Text=t&A.B.C=3", query.Flat, everything{Inner: &inner{Text: new("t")}}, []string{"A", "Inner.Y", "Z"}},
		{"names are exact", "text=1", query.Flat, everything{}, []string{"text"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f, err := query.Parse(tc.body, nil)
			if err != nil {
				t.Fatal(err)
			}
			var got everything
			unknown, err := query.Decode(f, tc.style, form, &got, "Action", "Version")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tc.unknown, unknown); diff != "" {
				t.Errorf("unknown parameters (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	form := formOf(t, everything{})
	for _, tc := range []struct {
		name, body string
		style      query.Style
		problem    query.Problem
		want       string
	}{
		{"bad escape in a name", "A%=1", query.Flat, query.Malformed, "a parameter's name is not URL-encoded UTF-8"},
		{"bad escape in a value", "A=%zz", query.Flat, query.Malformed, "parameter A: the value is not URL-encoded UTF-8"},
		{"not UTF-8", "A=%ff", query.Flat, query.Malformed, "parameter A: the value is not URL-encoded UTF-8"},
		{"empty part", "A..B=1", query.Flat, query.Malformed, "parameter A..B: the name has an empty part"},
		{"no name", "=1", query.Flat, query.Malformed, "the name has an empty part"},
		{"twice", "Text=1&Text=2", query.Flat, query.Malformed, "parameter Text: the parameter is there more than once"},
		{"value and parts", "Word=1&Word.1=2", query.Flat, query.Malformed, "parameter Word.1: the name is part of another parameter's name"},
		{"parts and value", "Word.1=2&Word=1", query.Flat, query.Malformed, "parameter Word: the name is part of another parameter's name"},
		{"index not a number", "Word.x=1", query.Flat, query.Malformed, "parameter Word.x: a list index must be a number from 1 to 65535"},
		{"index too large", "Word.999999999=1", query.Flat, query.Malformed, "parameter Word.999999999: a list index must be a number from 1 to 65535"},
		{"index of too many digits", "Word.99999999999999999999=1", query.Flat, query.Malformed, "parameter Word.99999999999999999999: a list index must be a number from 1 to 65535"},
		{"two spellings of an index", "Word.1=1&Word.01=1", query.Flat, query.Malformed, "parameter Word.01: a list index must be a number from 1 to 65535"},
		{"negative index", "Word.-1=1", query.Flat, query.Malformed, "parameter Word.-1: a list index must be a number from 1 to 65535"},
		{"too deep", strings.Repeat("A.", 40) + "B=1", query.Flat, query.Malformed, "parameter " + strings.Repeat("A.", 40) + "B: the name has too many parts"},
		{"long name", strings.Repeat("A", 600) + "=1", query.Flat, query.Malformed, "parameter " + strings.Repeat("A", 100) + "…: the name is too long"},
		{"too many", strings.Repeat("A=1&", 10_001), query.Flat, query.Malformed, "parameter A: the parameter is there more than once"},
		{"too many different", many(10_001), query.Flat, query.TooMany, "the request has more than 10000 parameters"},
		{"not a flag", "Flag=yes", query.Flat, query.BadValue, "parameter Flag: want true or false"},
		{"not an integer", "Small=1.5", query.Flat, query.BadValue, "parameter Small: want an integer"},
		{"too large for 32 bits", "Small=2147483648", query.Flat, query.BadValue, "parameter Small: want an integer"},
		{"not a time", "At=yesterday", query.Flat, query.BadValue, "parameter At: want a time such as 2026-01-02T15:04:05Z"},
		{"list as a value", "Word=1", query.Flat, query.BadValue, "parameter Word: a list has no value of its own"},
		{"structure as a value", "Inner=1", query.Flat, query.BadValue, "parameter Inner: a structure has no value of its own"},
		{"scalar with parts", "Text.1=1", query.Flat, query.Malformed, "parameter Text.1: the parameter has no parts"},
		{"in a list", "Inners.2.Text.x=1", query.Flat, query.Malformed, "parameter Inners.2.Text.x: the parameter has no parts"},
		{"map without a value", "Counts.entry.1.key=a", query.Member, query.Malformed, "parameter Counts.entry.1: a map entry needs a key and a value"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f, err := query.Parse(tc.body, nil)
			if err == nil {
				var got everything
				_, err = query.Decode(f, tc.style, form, &got)
			}
			e, ok := err.(*query.Error) //nolint:errorlint // returned bare
			if !ok {
				t.Fatalf("got %v (%T), want a *query.Error", err, err)
			}
			if e.Problem != tc.problem || e.Error() != tc.want {
				t.Errorf("got problem %d %q, want %d %q", e.Problem, e.Error(), tc.problem, tc.want)
			}
		})
	}
}

func many(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "Word.%d=1&", i)
	}
	return b.String()
}

func TestParseSkipsWhatItIsTold(t *testing.T) {
	t.Parallel()
	f, err := query.Parse("Action=A&X-Amz-Date=1&X-Amz-Date=2", func(n string) bool { return strings.HasPrefix(n, "X-Amz-") })
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Get("Action"); got != "A" {
		t.Errorf("Action is %q", got)
	}
}

func TestWriter(t *testing.T) {
	t.Parallel()
	form := formOf(t, everything{})
	at := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.FixedZone("", 3600))
	for _, tc := range []struct {
		name   string
		millis bool
		from   everything
		want   string
	}{
		{"nothing", false, everything{}, ""},
		{"empty is not absent", false, everything{Text: new(""), Words: []string{}, Inner: &inner{}}, "<text></text><wordSet></wordSet><inner></inner>"},
		{"scalars", true, everything{
			Text: new("<a> & \"b\"\r\n\x00\x1f\xff\u00e9\uffff😀"), Small: new(int32(-7)), Large: new(int64(1)), Ratio: new(0.5), Flag: new(false),
			At: &at, Raw: []byte{1, 2},
		}, "<text>&lt;a&gt; &amp; &quot;b&quot;&#xD;\n\uFFFD\uFFFD\uFFFD\u00e9\uFFFD😀</text><small>-7</small><large>1</large><ratio>0.5</ratio>" +
			"<flag>false</flag><at>2026-01-02T02:04:05.678Z</at><raw>AQI=</raw>"},
		{"time without decimals", false, everything{At: &at}, "<at>2026-01-02T02:04:05Z</at>"},
		{"lists and maps", false, everything{
			Words: []string{"a", "b"}, Counts: map[string]int32{"b": 2, "a": 1},
			Inners: []inner{{Text: new("x")}, {Words: []string{"y"}}},
		}, "<wordSet><item>a</item><item>b</item></wordSet>" +
			"<counts><entry><key>a</key><value>1</value></entry><entry><key>b</key><value>2</value></entry></counts>" +
			"<innerSet><member><text>x</text></member><member><words><item>y</item></words></member></innerSet>"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := query.Writer{Milliseconds: tc.millis}
			w.Members(form, &tc.from)
			if diff := cmp.Diff(tc.want, w.String()); diff != "" {
				t.Errorf("written (-want +got):\n%s", diff)
			}
			mustBeXML(t, w.String())
		})
	}
}

func mustBeXML(t *testing.T, text string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader("<root>" + text + "</root>"))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("not XML: %v\n%q", err, text)
		}
	}
}

// FuzzDecode holds the parser to net/url on what both take, and the writer to encoding/xml.
func FuzzDecode(f *testing.F) {
	form := formOf(f, everything{})
	for _, s := range []string{
		"Text=a%20b+c&Small=1&Flag=true&At=2026-01-02T03:04:05Z&Word.1=a&Word.2=b&Inner.Text=x&Inners.1.Word.1=y",
		"Inners.member.1.Text=x&Counts.entry.1.key=a&Counts.entry.1.value=1", "Word.999999999=1", "A=%zz", "=&.=",
	} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, body string, member bool) {
		parsed, err := query.Parse(body, nil)
		if err != nil {
			return
		}
		if !strings.Contains(body, ";") {
			if _, err := url.ParseQuery(body); err != nil {
				t.Fatalf("took what is not a form: %q: %v", body, err)
			}
		}
		style := query.Flat
		if member {
			style = query.Member
		}
		var got everything
		if _, err := query.Decode(parsed, style, form, &got); err != nil {
			return
		}
		var w query.Writer
		w.Members(form, &got)
		mustBeXML(t, w.String())
	})
}

func BenchmarkDecode(b *testing.B) {
	form := formOf(b, everything{})
	const body = "Action=X&Version=2016-11-15&Text=10.0.0.0%2F16&Flag=true&Word.1=a&Word.2=b&Inners.1.Text=x&Inners.1.Word.1=y&Inners.2.Text=z"
	b.ReportAllocs()
	for b.Loop() {
		f, err := query.Parse(body, nil)
		if err != nil {
			b.Fatal(err)
		}
		var got everything
		if _, err := query.Decode(f, query.Flat, form, &got, "Action", "Version"); err != nil {
			b.Fatal(err)
		}
	}
}
