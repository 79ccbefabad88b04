package awscompat

import (
	"encoding/json"
	"maps"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/appstream"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// trait is a member of the model: its type, and the type of its items or values.
type trait struct {
	T     string
	Of    *trait
	Value *trait
}

func (t *trait) UnmarshalJSON(text []byte) error {
	if text[0] == '"' {
		return json.Unmarshal(text, &t.T)
	}
	type plain trait
	return json.Unmarshal(text, (*plain)(t))
}

type shapes map[string]map[string]*trait

type operation struct {
	Input, Output           map[string]*trait
	InputShape, OutputShape string
}

// TestModelAgreesWithTheSDK compares every member of every operation that our shapes are generated from with the structs
// of the official SDK, which come from another copy of AWS's model.
func TestModelAgreesWithTheSDK(t *testing.T) {
	t.Parallel()
	var one struct {
		Operations map[string]operation
		Shapes     shapes
	}
	var identity struct {
		IAM       map[string]operation `json:"iam.operations"`
		IAMShapes shapes               `json:"iam.shapes"`
		STS       map[string]operation `json:"sts.operations"`
		STSShapes shapes               `json:"sts.shapes"`
	}
	load(t, "iam-sts", &identity)
	var more struct {
		Operations map[string]operation
		Shapes     shapes
	}
	load(t, "ec2-more", &more)
	known, used := differences(), map[string]bool{}
	for _, tc := range []struct {
		name   string
		client reflect.Type
		file   string
		ops    map[string]operation
		shapes shapes
		want   int
	}{
		{"appstream", reflect.TypeFor[*appstream.Client](), "appstream", nil, nil, 89},
		{"ec2", reflect.TypeFor[*ec2.Client](), "ec2", nil, nil, 70},
		{"iam", reflect.TypeFor[*iam.Client](), "", identity.IAM, identity.IAMShapes, 68},
		{"sts", reflect.TypeFor[*sts.Client](), "", identity.STS, identity.STSShapes, 5},
	} {
		ops, shapes := tc.ops, tc.shapes
		if tc.file != "" {
			one.Operations, one.Shapes = nil, nil
			load(t, tc.file, &one)
			ops, shapes = one.Operations, one.Shapes
		}
		if tc.name == "ec2" {
			maps.Copy(ops, more.Operations)
			maps.Copy(shapes, more.Shapes)
		}
		if len(ops) != tc.want {
			t.Errorf("%s: the model has %d operations, want %d", tc.name, len(ops), tc.want)
		}
		for name, op := range ops {
			method, ok := tc.client.MethodByName(name)
			if !ok {
				t.Errorf("%s: the SDK has no %s", tc.name, name)
				continue
			}
			in, out := op.Input, op.Output
			if op.InputShape != "" {
				in = shapes[op.InputShape]
			}
			if op.OutputShape != "" {
				out = shapes[op.OutputShape]
			}
			c := comparison{t: t, shapes: shapes, seen: map[string]bool{}, known: known, used: used}
			c.structure(tc.name+" "+name+" input", in, method.Type.In(2).Elem())
			c.structure(tc.name+" "+name+" output", out, method.Type.Out(0).Elem())
		}
	}
	for name := range known {
		if !used[name] {
			t.Errorf("%s is no longer a difference", name)
		}
	}
}

// differences are the members that only one side has, because the two models are of different days, and unions, which
// the SDK gives a Go interface.
func differences() map[string]string {
	return map[string]string{
		"UserControlMode":                "only in the model: June 2026",
		"SourceRoleTemplate":             "only in the SDK",
		"MinimumSessionTokenSize":        "only in the SDK",
		"SessionTokenSize":               "only in the SDK",
		"SessionTokenUtilization":        "only in the SDK",
		"TransitGatewayPolicyTable":      "only in the SDK",
		"TransitGatewayPolicyTableEntry": "only in the SDK",
		"PolicyIdentifier":               "a union",
	}
}

func load(t *testing.T, name string, into any) {
	t.Helper()
	text, err := os.ReadFile("../../tools/apigen/model/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
}

type comparison struct {
	t      *testing.T
	shapes shapes
	seen   map[string]bool   // shapes that were compared, by name
	known  map[string]string // differences that are all right
	used   map[string]bool   // those of them that were met
}

// differs reports a difference in a member or shape that is not known.
func (c *comparison) differs(name, format string, args ...any) {
	c.t.Helper()
	if c.known[name] != "" {
		c.used[name] = true
		return
	}
	c.t.Errorf(format, args...)
}

func (c *comparison) structure(at string, members map[string]*trait, sdk reflect.Type) {
	c.t.Helper()
	names := map[string]*trait{}
	for name, m := range members {
		names[strings.ToUpper(name[:1])+name[1:]] = m
	}
	for f := range sdk.Fields() {
		if !f.IsExported() || f.Name == "ResultMetadata" {
			continue
		}
		m := names[f.Name]
		if m == nil {
			c.differs(f.Name, "%s: the model has no %s", at, f.Name)
			continue
		}
		delete(names, f.Name)
		c.value(at+"."+f.Name, m, f.Type)
	}
	for name := range names {
		c.differs(name, "%s: the SDK has no %s", at, name)
	}
}

func (c *comparison) value(at string, m *trait, sdk reflect.Type) {
	c.t.Helper()
	if sdk.Kind() == reflect.Pointer {
		sdk = sdk.Elem()
	}
	want := map[string]reflect.Kind{
		"string": reflect.String, "int": reflect.Int32, "long": reflect.Int64, "bool": reflect.Bool, "double": reflect.Float64,
		"list": reflect.Slice, "blob": reflect.Slice, "map": reflect.Map, "timestamp": reflect.Struct,
	}
	kind, ok := want[m.T]
	if !ok {
		kind = reflect.Struct
	}
	if sdk.Kind() != kind || (m.T == "timestamp") != (sdk == reflect.TypeFor[time.Time]()) {
		c.differs(m.T, "%s: the model says %s, the SDK %s", at, m.T, sdk)
		return
	}
	switch {
	case m.T == "list":
		c.value(at+"[]", m.Of, sdk.Elem())
	case m.T == "map":
		c.value(at+"{}", m.Value, sdk.Elem())
	case !ok && !c.seen[m.T]:
		c.seen[m.T] = true
		if c.shapes[m.T] == nil {
			c.t.Errorf("%s: the model has no shape %s", at, m.T)
			return
		}
		c.structure(at, c.shapes[m.T], sdk)
	}
}
