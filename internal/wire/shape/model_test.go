package shape_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/wire/appstreamapi"
	"penstock.dev/penstock/internal/wire/ec2api"
	"penstock.dev/penstock/internal/wire/iamapi"
	"penstock.dev/penstock/internal/wire/shape"
	"penstock.dev/penstock/internal/wire/stsapi"
)

func TestGeneratedShapesAreCurrent(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "go", "run", "-C", "../../../tools", "./apigen", "-check")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// modelPaths are the wire paths of one operation as the model lists them, apart from our generated structs.
type modelPaths struct {
	InputWire []string
	OutputXML []string
}

// TestWireNamesMatchTheModel walks the generated structs of every Query operation and compares each path on the wire,
// with its type, to the list that the model gives separately.
func TestWireNamesMatchTheModel(t *testing.T) {
	t.Parallel()
	var ec2, more, identity map[string]json.RawMessage
	read(t, "ec2", &ec2)
	read(t, "ec2-more", &more)
	read(t, "iam-sts", &identity)
	for _, tc := range []struct {
		pkg   string
		model json.RawMessage
		enums func(string) []string
		style string // between a list and its index
	}{
		{"ec2api", ec2["operations"], ec2api.EnumValues, ""},
		{"iamapi", identity["iam.operations"], iamapi.EnumValues, ".member"},
		{"stsapi", identity["sts.operations"], stsapi.EnumValues, ".member"},
	} {
		var ops map[string]modelPaths
		if err := json.Unmarshal(tc.model, &ops); err != nil {
			t.Fatal(err)
		}
		if tc.pkg == "ec2api" {
			if err := json.Unmarshal(more["operations"], &ops); err != nil { // into the same map
				t.Fatal(err)
			}
		}
		schemas := shape.NewSchemas(tc.enums)
		for name, types := range generatedTypes()[tc.pkg] {
			t.Run(tc.pkg+" "+name, func(t *testing.T) {
				in, err := schemas.Of(types[0])
				if err != nil {
					t.Fatal(err)
				}
				out, err := schemas.Of(types[1])
				if err != nil {
					t.Fatal(err)
				}
				var want []string
				for _, p := range ops[name].InputWire {
					p = strings.TrimSuffix(p, " (list required)")
					want = append(want, modelType(strings.ReplaceAll(p, "!", "")))
				}
				if diff := cmp.Diff(want, requestPaths(in, "", tc.style)); diff != "" {
					t.Errorf("request parameters (-model +structs):\n%s", diff)
				}
				want = nil
				var cuts []string
				for _, p := range ops[name].OutputXML {
					if cut, ok := strings.CutSuffix(p, ">"); ok {
						p, _, _ = strings.Cut(cut, " <") // a/b/* <Shape>: the model lists no deeper
						cuts = append(cuts, strings.TrimSuffix(p, "*"))
					}
					want = append(want, modelType(p))
				}
				var got []string
				for _, p := range answerPaths(out, "") {
					for _, cut := range cuts {
						if strings.HasPrefix(p, cut) {
							p = cut + "*"
						}
					}
					if !slices.Contains(got, p) {
						got = append(got, p)
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("answer elements (-model +structs):\n%s", diff)
				}
			})
		}
	}
}

// modelType brings a path's type to the form of the structs: enumerations with an upper-case name, and without one
// where the model cuts its values short.
func modelType(path string) string {
	path, enum, ok := strings.Cut(path, ":")
	if !ok || enum == "ResourceType" {
		return path
	}
	return path + ":" + strings.ToUpper(enum[:1]) + enum[1:]
}

func read(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile("../../../tools/apigen/model/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
}

func word(k shape.Kind) string {
	return map[shape.Kind]string{
		shape.String: "string", shape.Int32: "int", shape.Int64: "long", shape.Bool: "bool",
		shape.Float64: "double", shape.Time: "timestamp", shape.Blob: "blob",
	}[k]
}

func requestPaths(t *shape.Type, prefix, style string) []string {
	var paths []string
	for _, f := range t.Fields {
		paths = append(paths, paths1(f.Type, prefix+f.In, style, enumName(t, f))...)
	}
	return paths
}

func paths1(t *shape.Type, path, style, enum string) []string {
	switch t.Kind {
	case shape.Struct:
		return requestPaths(t, path+".", style)
	case shape.List:
		return paths1(t.Elem, path+style+".N", style, enum)
	default:
		return []string{path + " " + word(t.Kind) + enum}
	}
}

func answerPaths(t *shape.Type, prefix string) []string {
	var paths []string
	for _, f := range t.Fields {
		paths = append(paths, answerPaths1(f.Type, prefix+f.Out, f.Item, enumName(t, f))...)
	}
	return paths
}

func answerPaths1(t *shape.Type, path, item, enum string) []string {
	switch t.Kind {
	case shape.Struct:
		return answerPaths(t, path+"/")
	case shape.List:
		return answerPaths1(t.Elem, path+"/"+item, item, enum)
	case shape.Map:
		return answerPaths1(t.Elem, path+"/entry/value", item, enum)
	default:
		return []string{path + " " + word(t.Kind) + enum}
	}
}

// enumName is ":Name" for a member whose tag names an enumeration.
func enumName(t *shape.Type, f shape.Field) string {
	gf := t.Go.Field(f.Index)
	for _, key := range []string{"check", "each"} {
		for word := range strings.SplitSeq(gf.Tag.Get(key), ";") {
			if name, ok := strings.CutPrefix(word, "enum="); ok {
				return ":" + name
			}
		}
	}
	return ""
}

func TestEveryOperationHasAWireForm(t *testing.T) {
	t.Parallel()
	types := generatedTypes()
	for _, tc := range []struct {
		pkg        string
		operations []string
		enums      func(string) []string
		want       int
	}{
		{"appstreamapi", appstreamapi.Operations(), appstreamapi.EnumValues, 89},
		{"ec2api", ec2api.Operations(), ec2api.EnumValues, 70},
		{"iamapi", iamapi.Operations(), iamapi.EnumValues, 68},
		{"stsapi", stsapi.Operations(), stsapi.EnumValues, 5},
	} {
		if len(tc.operations) != tc.want || len(types[tc.pkg]) != tc.want || !slices.IsSorted(tc.operations) {
			t.Errorf("%s: got %d operations with %d types, want %d, sorted", tc.pkg, len(tc.operations), len(types[tc.pkg]), tc.want)
		}
		schemas := shape.NewSchemas(tc.enums)
		for _, name := range tc.operations {
			for _, ty := range types[tc.pkg][name] {
				st, err := schemas.Of(ty)
				if err != nil {
					t.Errorf("%s: %v", ty, err)
					continue
				}
				// Empty structs show that no pattern panics when it is first used.
				shape.Validate(st, reflect.New(ty).Interface())
			}
		}
	}
	if _, err := shape.NewSchemas(appstreamapi.EnumValues).Of(reflect.TypeFor[struct{ C chan int }]()); err == nil {
		t.Error("a channel has a form on the wire")
	}
}

// TestEveryPatternCompiles gives every string of every input a value, so that each pattern is compiled and used.
func TestEveryPatternCompiles(t *testing.T) {
	t.Parallel()
	enums := map[string]func(string) []string{
		"appstreamapi": appstreamapi.EnumValues, "ec2api": ec2api.EnumValues, "iamapi": iamapi.EnumValues, "stsapi": stsapi.EnumValues,
	}
	for pkg, operations := range generatedTypes() {
		schemas := shape.NewSchemas(enums[pkg])
		for _, types := range operations {
			for _, ty := range types {
				st, err := schemas.Of(ty)
				if err != nil {
					t.Fatal(err)
				}
				in := reflect.New(ty)
				fill(st, in.Elem())
				shape.Validate(st, in.Interface())
			}
		}
	}
}

// fill makes every member present.
func fill(t *shape.Type, v reflect.Value) {
	switch t.Kind {
	case shape.Struct:
		for i := range t.Fields {
			fill(t.Fields[i].Type, t.Fields[i].Settable(v))
		}
	case shape.List:
		v.Set(reflect.MakeSlice(t.Go, 1, 1))
		fill(t.Elem, v.Index(0))
	case shape.Map:
		v.Set(reflect.MakeMap(t.Go))
		elem := reflect.New(t.Elem.Go).Elem()
		fill(t.Elem, elem)
		v.SetMapIndex(reflect.ValueOf("key"), elem)
	case shape.String:
		v.SetString("value")
	default:
	}
}

func TestValidateNamesTheMember(t *testing.T) {
	t.Parallel()
	str := func(n int) *string { return new(strings.Repeat("x", n)) }
	for _, tc := range []struct {
		name string
		in   any
		want string
	}{
		{"good", &appstreamapi.CreateStackInput{Name: new("stack"), Tags: map[string]string{"team": "a b"}}, ""},
		{
			"absent", &appstreamapi.CreateStackInput{},
			"1 validation error detected: Value null at 'name' failed to satisfy constraint: Member must not be null",
		},
		{
			"pattern", &appstreamapi.CreateStackInput{Name: new("-x")},
			"1 validation error detected: Value '-x' at 'name' failed to satisfy constraint: " +
				"Member must satisfy regular expression pattern: ^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,100}$",
		},
		{
			"whole string", &appstreamapi.CreateStackInput{Name: new("good\n")},
			"1 validation error detected: Value 'good\n' at 'name' failed to satisfy constraint: " +
				"Member must satisfy regular expression pattern: ^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,100}$",
		},
		{
			"nested in a list", &appstreamapi.CreateStackInput{Name: new("s"), AccessEndpoints: []appstreamapi.AccessEndpoint{
				{EndpointType: new("STREAMING"), VpceId: new("vpce-1")},
				{EndpointType: new("STREAM"), VpceId: new("")},
			}},
			"2 validation errors detected: Value 'STREAM' at 'accessEndpoints.2.member.endpointType' failed to satisfy constraint: " +
				"Member must satisfy enum value set: [STREAMING]; Value '' at 'accessEndpoints.2.member.vpceId' failed to satisfy constraint: " +
				"Member must have length greater than or equal to 1",
		},
		{
			"list size", &appstreamapi.CreateStackInput{Name: new("s"), AccessEndpoints: []appstreamapi.AccessEndpoint{}},
			"1 validation error detected: Value '[]' at 'accessEndpoints' failed to satisfy constraint: " +
				"Member must have length greater than or equal to 1",
		},
		{
			"list item", &appstreamapi.DescribeStacksInput{Names: []string{"a", ""}},
			"1 validation error detected: Value '[]' at 'names' failed to satisfy constraint: " +
				"Member must satisfy constraint: [Member must have length greater than or equal to 1]",
		},
		{
			"map key", &appstreamapi.CreateStackInput{Name: new("s"), Tags: map[string]string{"aws:x": "y"}},
			"1 validation error detected: Value '[aws:x]' at 'tags' failed to satisfy constraint: Map keys must satisfy constraint: " +
				`[Member must satisfy regular expression pattern: ^.[\p{L}\p{Z}\p{N}_.:/=+\-@]*$]`,
		},
		{
			"length counts characters", &appstreamapi.CreateStackInput{Name: new("s"), DisplayName: new(strings.Repeat("ü", 100))},
			"",
		},
		{
			"too long, shown short", &appstreamapi.CreateStackInput{Name: new("s"), RedirectURL: str(1001)},
			"1 validation error detected: Value '" + strings.Repeat("x", 256) + "…' at 'redirectURL' failed to satisfy constraint: " +
				"Member must have length less than or equal to 1000",
		},
		{
			"secret", &appstreamapi.CreateDirectoryConfigInput{
				DirectoryName: new("d"), OrganizationalUnitDistinguishedNames: []string{},
				ServiceAccountCredentials: &appstreamapi.ServiceAccountCredentials{AccountName: new("n"), AccountPassword: str(200)},
			},
			"1 validation error detected: Value '***' at 'serviceAccountCredentials.accountPassword' failed to satisfy constraint: " +
				"Member must have length less than or equal to 127",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			// The builder is not for concurrent use; each case has its own.
			st, err := shape.NewSchemas(appstreamapi.EnumValues).Of(reflect.TypeOf(tc.in).Elem())
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if v := shape.Validate(st, tc.in); len(v) > 0 {
				got = shape.Message(v)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
		})
	}
}

func TestValidateReportsAtMostTen(t *testing.T) {
	t.Parallel()
	in := &appstreamapi.DescribeStacksInput{Names: make([]string, 1000)}
	st, err := shape.NewSchemas(appstreamapi.EnumValues).Of(reflect.TypeOf(in).Elem())
	if err != nil {
		t.Fatal(err)
	}
	if got := len(shape.Validate(st, in)); got != 10 {
		t.Errorf("got %d violations, want 10", got)
	}
}
