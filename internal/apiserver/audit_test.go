package apiserver

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"

	"penstock.dev/penstock/internal/audit"
	"penstock.dev/penstock/internal/wire/appstreamapi"
	"penstock.dev/penstock/internal/wire/shape"
)

// memory is a Recorder that a test reads.
type memory struct {
	mu     sync.Mutex
	events []audit.Event
	broken error
}

func (m *memory) Ready() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.broken
}

func (m *memory) Record(e audit.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, e)
}

func (m *memory) take() []audit.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.events
	m.events = nil
	return out
}

// TestEveryRequestIsOnRecord: who asked for what from where, how it ended, and no secret.
func TestEveryRequestIsOnRecord(t *testing.T) {
	t.Parallel()
	m := &memory{}
	a, ann := newAccess(t, 0)
	f := newFront(t, Options{Access: a, Audit: m}, testOperations()...)
	f.options.Credentials = a
	one := func(c call) audit.Event {
		t.Helper()
		f.do(c.request(t))
		es := m.take()
		if len(es) != 1 {
			t.Fatalf("got %d events: %+v", len(es), es)
		}
		return es[0]
	}
	e := one(stsCall())
	if e.Source != "sts.amazonaws.com" || e.Name != "GetCallerIdentity" || e.ErrorCode != "" || !e.ReadOnly || e.Unproved || e.Identity.Type != "Root" || e.SourceIP == "" || e.RequestID == "" {
		t.Errorf("got %+v", e)
	}
	denied := appStreamCall("DescribeStacks", `{}`)
	denied.key = keyOf(ann)
	if e = one(denied); e.ErrorCode != "AccessDeniedException" || e.Identity.UserName != "ann" || !strings.Contains(e.ErrorText, "is not authorized to perform") {
		t.Errorf("got %+v", e)
	}
	forged := stsCall()
	forged.key = keyOf(ann)
	forged.key.Secret = "wrong"
	if e = one(forged); !e.Unproved || e.Identity.AccessKeyID != ann.AccessKeyID || e.Identity.UserName != "" || e.ErrorCode != "SignatureDoesNotMatch" || e.Request != nil {
		t.Errorf("got %+v", e)
	}
	create := call{service: "iam", form: "Action=CreateAccessKey&UserName=ann&Version=2010-05-08"}
	e = one(create)
	var out struct{ AccessKey map[string]string }
	if err := json.Unmarshal(e.Response, &out); err != nil || out.AccessKey["secretAccessKey"] != hidden || !strings.HasPrefix(out.AccessKey["accessKeyId"], "AKIA") {
		t.Errorf("got %s (%v)", e.Response, err)
	}
	if len(e.Resources) != 1 || e.Resources[0].Type != "AWS::IAM::User" || string(e.Request) != `{"userName":"ann"}` {
		t.Errorf("got %+v %s", e.Resources, e.Request)
	}

	// A log that cannot be written: what reads goes on, what changes does not begin.
	m.broken = errors.New("no space")
	if got := f.do(stsCall().request(t)); got.status != 200 {
		t.Errorf("reading: got %d %s", got.status, got.code)
	}
	if got := f.do(create.request(t)); got.status != 503 || !strings.Contains(got.message, "audit log cannot be written") {
		t.Errorf("changing: got %d %s %s", got.status, got.code, got.message)
	}
	keys, err := a.Keys(t.Context(), "ann")
	if err != nil || len(keys) != 2 {
		t.Errorf("got %d keys (%v)", len(keys), err)
	}
}

// TestNoSecretIsCopied fills every member of every shape of AppStream, whose model has the most secrets, and looks at what is left.
func TestNoSecretIsCopied(t *testing.T) {
	t.Parallel()
	schemas := shape.NewSchemas(appstreamapi.EnumValues)
	for _, in := range []any{
		&appstreamapi.CreateDirectoryConfigInput{ServiceAccountCredentials: &appstreamapi.ServiceAccountCredentials{AccountName: new("s3cr3t"), AccountPassword: new("s3cr3t")}},
		&appstreamapi.CreateStreamingURLInput{SessionContext: new("s3cr3t"), StackName: new("shown")},
		&appstreamapi.CreateStreamingURLOutput{StreamingURL: new("s3cr3t")},
		&appstreamapi.CreateUserInput{FirstName: new("s3cr3t"), UserName: new("shown")},
	} {
		st, err := schemas.Of(reflect.TypeOf(in).Elem())
		if err != nil {
			t.Fatal(err)
		}
		if got := string(redact(st, in)); strings.Contains(got, "s3cr3t") || !strings.Contains(got, hidden) {
			t.Errorf("%T: got %s", in, got)
		}
	}
	for arn, want := range map[string]string{
		"arn:aws:appstream:us-east-1:1:stack/a": "AWS::AppStream::Stack", "arn:aws:ec2:us-east-1:1:vpc-endpoint/vpce-1": "AWS::EC2::VPCEndpoint",
		"arn:aws:ec2:us-east-1:1:security-group/sg-1": "AWS::EC2::SecurityGroup", "arn:aws:iam::1:role/a/b": "AWS::IAM::Role", "*": "", "arn:aws:ec2:r:1:*/x": "",
	} {
		if got := resourceType(arn); got != want {
			t.Errorf("%s: got %q, want %q", arn, got, want)
		}
	}
}
