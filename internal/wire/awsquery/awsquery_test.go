package awsquery_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/wire/awsquery"
	"penstock.dev/penstock/internal/wire/iamapi"
	"penstock.dev/penstock/internal/wire/query"
	"penstock.dev/penstock/internal/wire/shape"
)

func formOf[T any](tb testing.TB) *shape.Type {
	tb.Helper()
	t, err := shape.NewSchemas(iamapi.EnumValues).Of(reflect.TypeFor[T]())
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func TestDecode(t *testing.T) {
	t.Parallel()
	f, err := query.Parse("Action=CreateRole&Version=2010-05-08&RoleName=r&AssumeRolePolicyDocument=%7B%7D&MaxSessionDuration=3600&"+
		"Tags.member.1.Key=a&Tags.member.1.Value=&Unknown=ignored", nil)
	if err != nil {
		t.Fatal(err)
	}
	var got iamapi.CreateRoleInput
	form := formOf[iamapi.CreateRoleInput](t)
	if err := awsquery.Decode(f, form, &got); err != nil {
		t.Fatal(err)
	}
	want := iamapi.CreateRoleInput{
		RoleName: new("r"), AssumeRolePolicyDocument: new("{}"), MaxSessionDuration: new(int32(3600)),
		Tags: []iamapi.Tag{{Key: new("a"), Value: new("")}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
	if v := shape.Validate(form, &got); v != nil {
		t.Errorf("refused: %s", shape.Message(v))
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	form := formOf[iamapi.CreateRoleInput](t)
	for _, tc := range []struct{ name, body, code string }{
		{"not a number", "MaxSessionDuration=x", "MalformedInput"},
		{"twice", "RoleName=a&RoleName=b", "MalformedQueryString"},
		{"not a form", "%zz", "MalformedQueryString"},
		{"index", "Tags.member.-1.Key=a", "MalformedQueryString"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f, err := query.Parse(tc.body, nil)
			if err != nil {
				err = awsquery.Refused(err)
			} else {
				err = awsquery.Decode(f, form, &iamapi.CreateRoleInput{})
			}
			if e, ok := errors.AsType[*awsquery.RequestError](err); !ok || e.Code != tc.code {
				t.Errorf("got %v, want %s", err, tc.code)
			}
		})
	}
}

// The form of answers and errors is that of AWS's published examples.
func TestAnswer(t *testing.T) {
	t.Parallel()
	out := &iamapi.ListRolesOutput{
		Roles:       []iamapi.Role{{RoleName: new("r"), CreateDate: new(time.Date(2026, 1, 2, 3, 4, 5, 6e8, time.UTC))}},
		IsTruncated: new(false),
	}
	got := string(awsquery.Answer(iamapi.Namespace, "ListRoles", "id-1", formOf[iamapi.ListRolesOutput](t), out, iamapi.HasResult("ListRoles")))
	want := `<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<ListRolesResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><ListRolesResult>` +
		`<Roles><member><RoleName>r</RoleName><CreateDate>2026-01-02T03:04:05Z</CreateDate></member></Roles><IsTruncated>false</IsTruncated>` +
		`</ListRolesResult><ResponseMetadata><RequestId>id-1</RequestId></ResponseMetadata></ListRolesResponse>`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	got = string(awsquery.Answer(iamapi.Namespace, "DeleteRole", "id-2", formOf[iamapi.DeleteRoleOutput](t), &iamapi.DeleteRoleOutput{}, iamapi.HasResult("DeleteRole")))
	want = `<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<DeleteRoleResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><ResponseMetadata><RequestId>id-2</RequestId></ResponseMetadata></DeleteRoleResponse>`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answer without a result (-want +got):\n%s", diff)
	}
	got = string(awsquery.Error(iamapi.Namespace, "ServiceFailure", "m", "id-3", 500))
	want = `<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/"><Error><Type>Receiver</Type><Code>ServiceFailure</Code>` +
		`<Message>m</Message></Error><RequestId>id-3</RequestId></ErrorResponse>`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
}

func FuzzDecode(f *testing.F) {
	form := formOf[iamapi.SimulateCustomPolicyInput](f)
	f.Add("PolicyInputList.member.1=%7B%7D&ActionNames.member.1=a%3Ab&ContextEntries.member.1.ContextKeyValues.member.2=x&MaxItems=5")
	f.Fuzz(func(t *testing.T, body string) {
		parsed, err := query.Parse(body, nil)
		if err != nil {
			return
		}
		var in iamapi.SimulateCustomPolicyInput
		if err := awsquery.Decode(parsed, form, &in); err != nil {
			if _, ok := errors.AsType[*awsquery.RequestError](err); !ok {
				t.Fatalf("error of another type: %T", err)
			}
			return
		}
		_ = shape.Message(shape.Validate(form, &in))
	})
}
