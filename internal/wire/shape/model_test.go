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

// TestWireNamesMatchTheModel walks the generated structs of a few dozen operations and compares each path on the wire,
// with its type, to the list that the model gives separately.
func TestWireNamesMatchTheModel(t *testing.T) {
	t.Parallel()
	var ec2, identity map[string]json.RawMessage
	read(t, "ec2", &ec2)
	read(t, "iam-sts", &identity)
	for _, tc := range []struct {
		service string
		model   json.RawMessage
		enums   func(string) []string
		style   string // between a list and its index
		types   map[string][2]reflect.Type
	}{
		{"ec2", ec2["operations"], ec2api.EnumValues, "", map[string][2]reflect.Type{
			"CreateVpc":                     pair[ec2api.CreateVpcInput, ec2api.CreateVpcOutput](),
			"CreateVpcEndpoint":             pair[ec2api.CreateVpcEndpointInput, ec2api.CreateVpcEndpointOutput](),
			"ModifyVpcEndpoint":             pair[ec2api.ModifyVpcEndpointInput, ec2api.ModifyVpcEndpointOutput](),
			"DeleteVpcEndpoints":            pair[ec2api.DeleteVpcEndpointsInput, ec2api.DeleteVpcEndpointsOutput](),
			"DescribeVpcEndpoints":          pair[ec2api.DescribeVpcEndpointsInput, ec2api.DescribeVpcEndpointsOutput](),
			"DescribeVpcEndpointServices":   pair[ec2api.DescribeVpcEndpointServicesInput, ec2api.DescribeVpcEndpointServicesOutput](),
			"AuthorizeSecurityGroupIngress": pair[ec2api.AuthorizeSecurityGroupIngressInput, ec2api.AuthorizeSecurityGroupIngressOutput](),
			"RevokeSecurityGroupEgress":     pair[ec2api.RevokeSecurityGroupEgressInput, ec2api.RevokeSecurityGroupEgressOutput](),
			"ModifySecurityGroupRules":      pair[ec2api.ModifySecurityGroupRulesInput, ec2api.ModifySecurityGroupRulesOutput](),
			"DescribeSecurityGroups":        pair[ec2api.DescribeSecurityGroupsInput, ec2api.DescribeSecurityGroupsOutput](),
			"CreateNetworkAclEntry":         pair[ec2api.CreateNetworkAclEntryInput, ec2api.CreateNetworkAclEntryOutput](),
			"DescribeNetworkAcls":           pair[ec2api.DescribeNetworkAclsInput, ec2api.DescribeNetworkAclsOutput](),
			"DescribeNetworkInterfaces":     pair[ec2api.DescribeNetworkInterfacesInput, ec2api.DescribeNetworkInterfacesOutput](),
			"DescribeAccountAttributes":     pair[ec2api.DescribeAccountAttributesInput, ec2api.DescribeAccountAttributesOutput](),
			"DescribeAvailabilityZones":     pair[ec2api.DescribeAvailabilityZonesInput, ec2api.DescribeAvailabilityZonesOutput](),
			"DescribeSubnets":               pair[ec2api.DescribeSubnetsInput, ec2api.DescribeSubnetsOutput](),
			"DescribeVpcs":                  pair[ec2api.DescribeVpcsInput, ec2api.DescribeVpcsOutput](),
			"DescribeRouteTables":           pair[ec2api.DescribeRouteTablesInput, ec2api.DescribeRouteTablesOutput](),
			"CreateTags":                    pair[ec2api.CreateTagsInput, ec2api.CreateTagsOutput](),
			"ModifyVpcAttribute":            pair[ec2api.ModifyVpcAttributeInput, ec2api.ModifyVpcAttributeOutput](),
			"ModifySubnetAttribute":         pair[ec2api.ModifySubnetAttributeInput, ec2api.ModifySubnetAttributeOutput](),
		}},
		{"iam", identity["iam.operations"], iamapi.EnumValues, ".member", map[string][2]reflect.Type{
			"CreateRole":           pair[iamapi.CreateRoleInput, iamapi.CreateRoleOutput](),
			"GetUser":              pair[iamapi.GetUserInput, iamapi.GetUserOutput](),
			"ListRoles":            pair[iamapi.ListRolesInput, iamapi.ListRolesOutput](),
			"SimulateCustomPolicy": pair[iamapi.SimulateCustomPolicyInput, iamapi.SimulateCustomPolicyOutput](),
			"GetAccountSummary":    pair[iamapi.GetAccountSummaryInput, iamapi.GetAccountSummaryOutput](),
		}},
		{"sts", identity["sts.operations"], stsapi.EnumValues, ".member", map[string][2]reflect.Type{
			"AssumeRole":        pair[stsapi.AssumeRoleInput, stsapi.AssumeRoleOutput](),
			"GetCallerIdentity": pair[stsapi.GetCallerIdentityInput, stsapi.GetCallerIdentityOutput](),
		}},
	} {
		var ops map[string]modelPaths
		if err := json.Unmarshal(tc.model, &ops); err != nil {
			t.Fatal(err)
		}
		schemas := shape.NewSchemas(tc.enums)
		for name, types := range tc.types {
			t.Run(tc.service+" "+name, func(t *testing.T) {
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
					p = strings.TrimSuffix(p, ":ResourceType") // an enumeration that the model cuts short
					want = append(want, strings.ReplaceAll(p, "!", ""))
				}
				if diff := cmp.Diff(want, requestPaths(in, "", tc.style)); diff != "" {
					t.Errorf("request parameters (-model +structs):\n%s", diff)
				}
				if diff := cmp.Diff(ops[name].OutputXML, answerPaths(out, "")); diff != "" {
					t.Errorf("answer elements (-model +structs):\n%s", diff)
				}
			})
		}
	}
}

func pair[In, Out any]() [2]reflect.Type {
	return [2]reflect.Type{reflect.TypeFor[In](), reflect.TypeFor[Out]()}
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

func TestEveryGeneratedShapeHasAWireForm(t *testing.T) {
	t.Parallel()
	for _, ops := range []struct {
		name string
		list []string
		want int
	}{
		{"appstream", appstreamapi.Operations(), 89},
		{"ec2", ec2api.Operations(), 65},
		{"iam", iamapi.Operations(), 68},
		{"sts", stsapi.Operations(), 5},
	} {
		if len(ops.list) != ops.want || !slices.IsSorted(ops.list) {
			t.Errorf("%s: got %d operations (sorted %t), want %d sorted", ops.name, len(ops.list), slices.IsSorted(ops.list), ops.want)
		}
	}
	if _, err := shape.NewSchemas(appstreamapi.EnumValues).Of(reflect.TypeFor[struct{ C chan int }]()); err == nil {
		t.Error("a channel has a form on the wire")
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
