package ec2query_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/wire/ec2api"
	"penstock.dev/penstock/internal/wire/ec2query"
	"penstock.dev/penstock/internal/wire/query"
	"penstock.dev/penstock/internal/wire/shape"
)

func formOf[T any](tb testing.TB) *shape.Type {
	tb.Helper()
	t, err := shape.NewSchemas(ec2api.EnumValues).Of(reflect.TypeFor[T]())
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func parse(tb testing.TB, body string) *query.Form {
	tb.Helper()
	f, err := query.Parse(body, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

func TestDecodeWhatTheCLISends(t *testing.T) {
	t.Parallel()
	// The body of: authorize-security-group-ingress --group-id sg-1 --protocol tcp --port 1400-1499 --cidr 10.0.0.0/8
	const body = "Action=AuthorizeSecurityGroupIngress&Version=2016-11-15&GroupId=sg-1&IpPermissions.1.FromPort=1400&" +
		"IpPermissions.1.IpProtocol=tcp&IpPermissions.1.IpRanges.1.CidrIp=10.0.0.0%2F8&IpPermissions.1.ToPort=1499"
	var got ec2api.AuthorizeSecurityGroupIngressInput
	if err := ec2query.Decode(parse(t, body), formOf[ec2api.AuthorizeSecurityGroupIngressInput](t), &got); err != nil {
		t.Fatal(err)
	}
	want := ec2api.AuthorizeSecurityGroupIngressInput{
		GroupId: new("sg-1"),
		IpPermissions: []ec2api.IpPermission{{
			IpProtocol: new("tcp"), FromPort: new(int32(1400)), ToPort: new(int32(1499)),
			IpRanges: []ec2api.IpRange{{CidrIp: new("10.0.0.0/8")}},
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	form := formOf[ec2api.CreateVpcEndpointInput](t)
	for _, tc := range []struct{ name, body, code, message string }{
		{"required", "ServiceName=x", "MissingParameter", "The request must contain the parameter VpcId"},
		{"enumeration", "VpcId=v&VpcEndpointType=interface", "InvalidParameterValue", "Value (interface) for parameter VpcEndpointType is invalid. " +
			"Member must satisfy enum value set: [Interface, Gateway, GatewayLoadBalancer, Resource, ServiceNetwork]."},
		{"nested", "VpcId=v&DnsOptions.DnsRecordIpType=ipv5", "InvalidParameterValue", "Value (ipv5) for parameter DnsOptions.DnsRecordIpType is invalid. " +
			"Member must satisfy enum value set: [ipv4, dualstack, ipv6, service-defined]."},
		{"unknown", "VpcId=v&VpcID=w", "UnknownParameter", "The parameter VpcID is not recognized"},
		{"flag", "VpcId=v&PrivateDnsEnabled=ja", "InvalidParameterValue", "Value (ja) for parameter PrivateDnsEnabled is invalid: want true or false."},
		{"huge index", "VpcId=v&SubnetId.999999999=s", "MalformedQueryString", "The parameter SubnetId.999999999 cannot be read: a list index must be a number from 1 to 65535."},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var in ec2api.CreateVpcEndpointInput
			err := ec2query.Decode(parse(t, tc.body), form, &in)
			if v := shape.Validate(form, &in); err == nil && len(v) > 0 {
				err = ec2query.Refuse(v[0])
			}
			e, ok := errors.AsType[*ec2query.RequestError](err)
			if !ok {
				t.Fatalf("got %v", err)
			}
			if e.Code != tc.code || tc.message != "" && e.Message != tc.message {
				t.Errorf("got %s: %s\nwant %s: %s", e.Code, e.Message, tc.code, tc.message)
			}
		})
	}
}

func TestRefuseNamesItemsOfLists(t *testing.T) {
	t.Parallel()
	form := formOf[ec2api.ModifySecurityGroupRulesInput](t)
	var in ec2api.ModifySecurityGroupRulesInput
	if err := ec2query.Decode(parse(t, "GroupId=g&SecurityGroupRule.7.SecurityGroupRuleId=r&SecurityGroupRule.9.SecurityGroupRule.IpProtocol=tcp"), form, &in); err != nil {
		t.Fatal(err)
	}
	v := shape.Validate(form, &in)
	if len(v) != 1 {
		t.Fatalf("got %d violations, want 1", len(v))
	}
	const want = "MissingParameter: The request must contain the parameter SecurityGroupRule.2.SecurityGroupRuleId"
	if got := ec2query.Refuse(v[0]).Error(); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// The form of answers and errors is that of AWS's published examples.
func TestAnswer(t *testing.T) {
	t.Parallel()
	out := &ec2api.CreateVpcEndpointOutput{VpcEndpoint: &ec2api.VpcEndpoint{
		VpcEndpointId: new("vpce-1"), State: new("pending"), SubnetIds: []string{"subnet-1", "subnet-2"}, RouteTableIds: []string{},
		Groups: []ec2api.SecurityGroupIdentifier{{GroupId: new("sg-1"), GroupName: new("a & b")}}, PrivateDnsEnabled: new(false),
		CreationTimestamp: new(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)),
	}}
	got := string(ec2query.Answer(ec2api.Namespace, "CreateVpcEndpoint", "id-1", formOf[ec2api.CreateVpcEndpointOutput](t), out))
	want := `<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<CreateVpcEndpointResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>id-1</requestId><vpcEndpoint>` +
		`<vpcEndpointId>vpce-1</vpcEndpointId><state>pending</state><routeTableIdSet></routeTableIdSet>` +
		`<subnetIdSet><item>subnet-1</item><item>subnet-2</item></subnetIdSet>` +
		`<groupSet><item><groupId>sg-1</groupId><groupName>a &amp; b</groupName></item></groupSet>` +
		`<privateDnsEnabled>false</privateDnsEnabled><creationTimestamp>2026-01-02T03:04:05.000Z</creationTimestamp>` +
		`</vpcEndpoint></CreateVpcEndpointResponse>`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	got = string(ec2query.Answer(ec2api.Namespace, "DeleteVpc", "id-2", formOf[ec2api.DeleteVpcOutput](t), &ec2api.DeleteVpcOutput{}))
	want = `<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<DeleteVpcResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>id-2</requestId><return>true</return></DeleteVpcResponse>`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answer without members (-want +got):\n%s", diff)
	}
	got = string(ec2query.Error("InvalidVpcID.NotFound", "The vpc ID '<x>' does not exist", "id-3"))
	want = `<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<Response><Errors><Error><Code>InvalidVpcID.NotFound</Code><Message>The vpc ID '&lt;x&gt;' does not exist</Message></Error></Errors>` +
		`<RequestID>id-3</RequestID></Response>`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
}

func FuzzDecode(f *testing.F) {
	form := formOf[ec2api.AuthorizeSecurityGroupIngressInput](f)
	f.Add("GroupId=sg-1&IpPermissions.1.FromPort=1400&IpPermissions.1.IpRanges.1.CidrIp=10.0.0.0%2F8&DryRun=true")
	f.Add("IpPermissions.65535.Groups.3.UserId=1&TagSpecification.1.Tag.1.Key=")
	f.Fuzz(func(t *testing.T, body string) {
		parsed, err := query.Parse(body, nil)
		if err == nil {
			var in ec2api.AuthorizeSecurityGroupIngressInput
			if err = ec2query.Decode(parsed, form, &in); err == nil {
				for _, v := range shape.Validate(form, &in) {
					_ = ec2query.Refuse(v)
				}
				return
			}
		}
		if _, ok := errors.AsType[*ec2query.RequestError](ec2query.Refused(err)); !ok {
			t.Fatalf("error of another type: %T", err)
		}
	})
}

func BenchmarkAnswerDescribeVpcEndpoints(b *testing.B) {
	form := formOf[ec2api.DescribeVpcEndpointsOutput](b)
	out := &ec2api.DescribeVpcEndpointsOutput{}
	for range 20 {
		out.VpcEndpoints = append(out.VpcEndpoints, ec2api.VpcEndpoint{
			VpcEndpointId: new("vpce-0123456789abcdef0"), State: new("available"), SubnetIds: []string{"subnet-1", "subnet-2"},
			Groups:            []ec2api.SecurityGroupIdentifier{{GroupId: new("sg-1"), GroupName: new("g")}},
			CreationTimestamp: new(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)), PrivateDnsEnabled: new(true),
		})
	}
	b.ReportAllocs()
	for b.Loop() {
		ec2query.Answer(ec2api.Namespace, "DescribeVpcEndpoints", "id", form, out)
	}
}
