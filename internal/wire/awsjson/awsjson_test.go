package awsjson_test

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/wire/appstreamapi"
	"penstock.dev/penstock/internal/wire/awsjson"
	"penstock.dev/penstock/internal/wire/shape"
)

// everything has one member of each kind.
type everything struct {
	Text   *string           `json:"Text"`
	Small  *int32            `json:"small"`
	Large  *int64            `json:"Large"`
	Ratio  *float64          `json:"Ratio"`
	Flag   *bool             `json:"Flag"`
	At     *time.Time        `json:"At"`
	Raw    []byte            `json:"Raw"`
	Words  []string          `json:"Words"`
	Counts map[string]int32  `json:"Counts"`
	Inner  *inner            `json:"Inner"`
	Inners []inner           `json:"Inners"`
	Named  map[string]string `json:"Named"`
}

type inner struct {
	Text *string `json:"Text"`
}

func formOf(tb testing.TB, v any) *shape.Type {
	tb.Helper()
	t, err := shape.NewSchemas(appstreamapi.EnumValues).Of(reflect.TypeOf(v))
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
		want       everything
	}{
		{"empty body", "", everything{}},
		{"empty object", " {} ", everything{}},
		{"null is absent", `{"Text":null,"Words":null,"Inner":null}`, everything{}},
		{"empty is not absent", `{"Text":"","Words":[],"Named":{},"Inner":{}}`, everything{
			Text: new(""), Words: []string{}, Named: map[string]string{}, Inner: &inner{},
		}},
		{"names are exact", `{"text":"a","SMALL":1}`, everything{}},
		{"unknown members", `{"X":{"a":[1,{"b":null}],"c":"\u0041\n"},"Y":-1.5e3,"Z":true,"Text":"t"}`, everything{Text: new("t")}},
		{"scalars", `{"Text":"a\"\u00e9\ud83d\ude00","small":-7,"Large":9007199254740993,"Ratio":1.5e-3,"Flag":false}`, everything{
			Text: new("a\"é😀"), Small: new(int32(-7)), Large: new(int64(9007199254740993)), Ratio: new(1.5e-3), Flag: new(false),
		}},
		{"time, whole", `{"At":1700000000}`, everything{At: new(time.Unix(1700000000, 0).UTC())}},
		{"time, fraction", `{"At":1.700000000123E9}`, everything{At: new(time.Unix(1700000000, 123e6).UTC())}},
		{"blob", `{"Raw":"AQI="}`, everything{Raw: []byte{1, 2}}},
		{"lists and maps", "{\"Words\":[\"a\",\"b\"],\t\"Inners\":[{\"Text\":\"x\"},{}],\"Counts\":{\"n\":3}}\r\n", everything{
			Words: []string{"a", "b"}, Inners: []inner{{Text: new("x")}, {}}, Counts: map[string]int32{"n": 3},
		}},
		{"the last of two wins", `{"Words":["a"],"Words":["b"]}`, everything{Words: []string{"b"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var got everything
			if err := awsjson.Decode(form, []byte(tc.body), &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	form := formOf(t, everything{})
	for _, tc := range []struct{ name, body, want string }{
		{"not an object", `[]`, "the body must be a JSON object"},
		{"a bare word", `null`, "the body must be a JSON object"},
		{"cut", `{"Text":"a`, "Text: unexpected end of the JSON text"},
		{"cut in an escape", `{"Text":"a\`, "Text: unexpected end of the JSON text"},
		{"bad escape", `{"Text":"\q"}`, "Text: a string has an escape that JSON does not know"},
		{"text after the end", `{}{}`, "text after the end of the JSON object"},
		{"no comma", `{"Text":"a" "Flag":true}`, "unexpected character '\"' at byte 12 of the JSON text"},
		{"final comma", `{"Text":"a",}`, "unexpected character '}' at byte 12 of the JSON text"},
		{"control character", "{\"Text\":\"a\nb\"}", "Text: unexpected character '\\n' at byte 10 of the JSON text"},
		{"not UTF-8", "{\"Text\":\"\xff\"}", "Text: a string is not valid UTF-8"},
		{"leading zero", `{"small":01}`, "unexpected character '1' at byte 10 of the JSON text"},
		{"number for a string", `{"Text":5}`, "Text: NUMBER_VALUE can not be converted to a String"},
		{"string for a number", `{"small":"5"}`, "small: STRING_VALUE can not be converted to an Integer"},
		{"fraction for an integer", `{"small":1.5}`, "small: the number 1.5 is not an Integer of 32 bits"},
		{"too large for 32 bits", `{"small":2147483648}`, "small: the number 2147483648 is not an Integer of 32 bits"},
		{"string for a flag", `{"Flag":"true"}`, "Flag: STRING_VALUE can not be converted to a Boolean"},
		{"object for a list", `{"Words":{}}`, "Words: START_OBJECT can not be converted to a list"},
		{"in a list", `{"Inners":[{},{"Text":true}]}`, "Inners[1].Text: TRUE_VALUE can not be converted to a String"},
		{"null in a list", `{"Words":["a",null]}`, "Words[1]: NULL_VALUE can not be an item of a list"},
		{"in a map", `{"Counts":{"a":"b"}}`, `Counts["a"]: STRING_VALUE can not be converted to an Integer`},
		{"null in a map", `{"Named":{"a":null}}`, `Named["a"]: NULL_VALUE can not be the value of a map`},
		{"time out of range", `{"At":1e300}`, "At: the number 1e300 is not a time in epoch seconds"},
		{"time as text", `{"At":"2026-01-01T00:00:00Z"}`, "At: STRING_VALUE can not be converted to a Timestamp"},
		{"not base64", `{"Raw":"*"}`, "Raw: the value is not base64"},
		{"too deep", `{"X":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`, "the JSON text is nested deeper than 32 levels"},
		{"too many items", `{"Inners":[{}` + strings.Repeat(",{}", 10_000) + `]}`, "Inners: a list has more than 10000 items"},
		{"too many members", `{"Named":{"a":"b"` + strings.Repeat(`,"a":"b"`, 10_000) + `}}`, "Named: an object has more than 10000 members"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var got everything
			err := awsjson.Decode(form, []byte(tc.body), &got)
			if err == nil {
				t.Fatalf("got no error and %+v", got)
			}
			if _, ok := err.(*awsjson.SerializationError); !ok { //nolint:errorlint // returned bare
				t.Errorf("got a %T, want a *SerializationError", err)
			}
			if diff := cmp.Diff(tc.want, err.Error()); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAppend(t *testing.T) {
	t.Parallel()
	form := formOf(t, everything{})
	for _, tc := range []struct {
		name string
		from everything
		want string
	}{
		{"nothing", everything{}, `{}`},
		{"empty is not absent", everything{Text: new(""), Words: []string{}, Named: map[string]string{}, Inner: &inner{}}, `{"Text":"","Words":[],"Inner":{},"Named":{}}`},
		{
			"scalars",
			everything{Text: new("\"\\\n\t\r\x00é\xff"), Small: new(int32(-7)), Large: new(int64(1 << 60)), Ratio: new(0.5), Flag: new(true)},
			`{"Text":"\"\\\n\t\r\u0000é` + "\uFFFD" + `","small":-7,"Large":1152921504606846976,"Ratio":0.5,"Flag":true}`,
		},
		{"times", everything{At: new(time.Unix(1700000000, 123456789))}, `{"At":1700000000.123}`},
		{"whole time", everything{At: new(time.Unix(1700000000, 0))}, `{"At":1700000000}`},
		{
			"sorted map",
			everything{Counts: map[string]int32{"b": 2, "a": 1}, Raw: []byte{1, 2}, Inners: []inner{{}, {Text: new("x")}}},
			`{"Raw":"AQI=","Counts":{"a":1,"b":2},"Inners":[{},{"Text":"x"}]}`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := string(awsjson.Append(nil, form, &tc.from))
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("encoded (-want +got):\n%s", diff)
			}
			if !json.Valid([]byte(got)) {
				t.Errorf("not valid JSON: %s", got)
			}
		})
	}
}

func TestAppendError(t *testing.T) {
	t.Parallel()
	got := string(awsjson.AppendError(nil, "ResourceNotFoundException", `stack "x"`))
	want := `{"__type":"ResourceNotFoundException","Message":"stack \"x\""}`
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// FuzzDecode holds the decoder to encoding/json on what both take, and its output to a round trip.
func FuzzDecode(f *testing.F) {
	form := formOf(f, everything{})
	for _, s := range []string{
		`{"Text":"a\u00e9","small":1,"Large":-2,"Ratio":1e3,"Flag":true,"At":1.5,"Raw":"AQI=","Words":["a"],"Counts":{"n":1}}`,
		`{"Inner":{"Text":null},"Inners":[{},{"Text":"x"}],"Named":{"a":"b"},"X":[[{"y":1}]]}`, `{"X":"\ud800"}`, `{`, ``,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var got everything
		if err := awsjson.Decode(form, body, &got); err != nil {
			return
		}
		if len(strings.TrimSpace(string(body))) > 0 && !json.Valid(body) {
			t.Fatalf("took what is not JSON: %q", body)
		}
		text := awsjson.Append(nil, form, &got)
		if !json.Valid(text) {
			t.Fatalf("wrote what is not JSON: %q", text)
		}
		var again everything
		if err := awsjson.Decode(form, text, &again); err != nil {
			t.Fatalf("refused its own output %q: %v", text, err)
		}
		if diff := cmp.Diff(got, again); diff != "" {
			t.Fatalf("round trip (-first +second):\n%s", diff)
		}
	})
}

func BenchmarkDecodeCreateStack(b *testing.B) {
	form := formOf(b, appstreamapi.CreateStackInput{})
	body := []byte(`{"Name":"stack","Description":"a stack","AccessEndpoints":[{"EndpointType":"STREAMING","VpceId":"vpce-0123456789abcdef0"}],` +
		`"UserSettings":[{"Action":"CLIPBOARD_COPY_FROM_LOCAL_DEVICE","Permission":"ENABLED"},{"Action":"FILE_UPLOAD","Permission":"DISABLED"}],` +
		`"Tags":{"team":"a"},"ApplicationSettings":{"Enabled":true,"SettingsGroup":"g"}}`)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var in appstreamapi.CreateStackInput
		if err := awsjson.Decode(form, body, &in); err != nil {
			b.Fatal(err)
		}
		if v := shape.Validate(form, &in); v != nil {
			b.Fatal(shape.Message(v))
		}
	}
}

func BenchmarkAppendDescribeSessions(b *testing.B) {
	form := formOf(b, appstreamapi.DescribeSessionsOutput{})
	out := &appstreamapi.DescribeSessionsOutput{NextToken: new("next")}
	for range 50 {
		out.Sessions = append(out.Sessions, appstreamapi.Session{
			Id: new("0f5c2c1e-0000-4000-8000-000000000000"), UserId: new("user"), StackName: new("stack"), FleetName: new("fleet"),
			State: new("ACTIVE"), ConnectionState: new("CONNECTED"), StartTime: new(time.Unix(1700000000, 5e8)),
			MaxExpirationTime: new(time.Unix(1700050000, 0)), AuthenticationType: new("API"),
		})
	}
	b.ReportAllocs()
	for b.Loop() {
		awsjson.Append(nil, form, out)
	}
}
