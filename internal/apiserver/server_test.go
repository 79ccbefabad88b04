package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/wire/appstreamapi"
	"penstock.dev/penstock/internal/wire/ec2api"
	"penstock.dev/penstock/internal/wire/iamapi"
	"penstock.dev/penstock/internal/wire/sigv4"
)

const (
	account = "123456789012"
	region  = "us-east-1"
)

var now = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// front is a server with a directory of credentials, and what it logged.
type front struct {
	*Server
	t   *testing.T
	log *syncBuffer
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

var (
	root      = sigv4.Key{AccessKeyID: "AKIAROOT", Secret: "root secret"}
	user      = sigv4.Key{AccessKeyID: "AKIAUSER", Secret: "user secret"}
	inactive  = sigv4.Key{AccessKeyID: "AKIAOFF", Secret: "off secret"}
	temporary = sigv4.Key{AccessKeyID: "ASIATEMP", Secret: "temporary secret", SessionToken: "token"}
	expired   = sigv4.Key{AccessKeyID: "ASIAOLD", Secret: "old secret", SessionToken: "token"}
)

func newFront(t *testing.T, o Options, operations ...operation) *front {
	t.Helper()
	principal := iam.RootOf(account)
	dir := iam.NewDirectory([]iam.Credential{
		{AccessKeyID: root.AccessKeyID, Secret: root.Secret, Principal: principal},
		{AccessKeyID: user.AccessKeyID, Secret: user.Secret, Principal: iam.Principal{Kind: iam.User, AccountID: account, Name: "ann", ID: "AIDA1"}},
		{AccessKeyID: inactive.AccessKeyID, Secret: inactive.Secret, Inactive: true, Principal: principal},
		{AccessKeyID: temporary.AccessKeyID, Secret: temporary.Secret, SessionToken: "token", Expires: now.Add(time.Hour), Principal: principal},
		{AccessKeyID: expired.AccessKeyID, Secret: expired.Secret, SessionToken: "token", Expires: now, Principal: principal},
	}, []iam.Role{iam.ServiceAccessRole(account, "AROA1", now)})
	f := &front{t: t, log: &syncBuffer{}}
	o.AccountID, o.Region, o.Credentials, o.Roles = account, region, dir, dir
	o.Log = slog.New(slog.NewTextHandler(f.log, nil))
	o.Now = func() time.Time { return now }
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if len(operations) > 0 {
		if s.tables, err = newTables(operations, s.iamOperations(), s.stsOperations()); err != nil {
			t.Fatal(err)
		}
	}
	f.Server = s
	return f
}

// reply is an answer with its error code, in whatever protocol.
type reply struct {
	status        int
	code, message string
	requestID     string
	body          string
	header        http.Header
}

func (f *front) do(r *http.Request) reply {
	f.t.Helper()
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	out := reply{status: w.Code, body: w.Body.String(), requestID: w.Header().Get("X-Amzn-Requestid"), header: w.Header()}
	if strings.HasPrefix(w.Header().Get("Content-Type"), "application/x-amz-json") {
		var e struct {
			Type    string `json:"__type"`
			Message string
		}
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil {
			f.t.Fatalf("answer is not JSON: %v\n%s", err, out.body)
		}
		out.code, out.message = e.Type, e.Message
		return out
	}
	if strings.HasPrefix(w.Header().Get("Content-Type"), "text/xml") {
		var e struct {
			EC2Code      string `xml:"Errors>Error>Code"`
			EC2Message   string `xml:"Errors>Error>Message"`
			QueryCode    string `xml:"Error>Code"`
			QueryMessage string `xml:"Error>Message"`
		}
		if err := xml.Unmarshal(w.Body.Bytes(), &e); err != nil {
			f.t.Fatalf("answer is not XML: %v\n%s", err, out.body)
		}
		out.code, out.message = e.EC2Code+e.QueryCode, e.EC2Message+e.QueryMessage
	}
	return out
}

// call is one request of one protocol, ready to be signed or spoiled.
type call struct {
	service, target, form, body string
	region                      string
	key                         sigv4.Key
	at                          time.Time
	after                       func(*http.Request) // changes the signed request
	before                      func(*http.Request) // changes the request that is to be signed
}

func (c call) request(t *testing.T) *http.Request {
	t.Helper()
	if c.region == "" {
		c.region = region
	}
	if c.key == (sigv4.Key{}) {
		c.key = root
	}
	if c.at.IsZero() {
		c.at = now
	}
	body := c.body + c.form
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://api.test/", strings.NewReader(body))
	if c.target != "" {
		r.Header.Set("Content-Type", "application/x-amz-json-1.1")
		r.Header.Set("X-Amz-Target", c.target)
	} else {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	}
	if c.before != nil {
		c.before(r)
	}
	sigv4.Sign(r, []byte(body), c.key, c.region, c.service, c.at)
	if c.after != nil {
		c.after(r)
	}
	return r
}

const (
	ec2Version = "&Version=2016-11-15"
	iamVersion = "&Version=2010-05-08"
	stsVersion = "&Version=2011-06-15"
)

// appStreamCall, ec2Call and stsCall are good requests to operations that the test server has.
func appStreamCall(name, body string) call {
	return call{service: "appstream", target: targetPrefix + name, body: body}
}
func ec2Call(form string) call { return call{service: "ec2", form: form + ec2Version} }
func stsCall() call            { return call{service: "sts", form: "Action=GetCallerIdentity" + stsVersion} }

func describeStacks(context.Context, Caller, *appstreamapi.DescribeStacksInput) (*appstreamapi.DescribeStacksOutput, error) {
	return &appstreamapi.DescribeStacksOutput{Stacks: []appstreamapi.Stack{}}, nil
}

func describeVpcs(context.Context, Caller, *ec2api.DescribeVpcsInput) (*ec2api.DescribeVpcsOutput, error) {
	return &ec2api.DescribeVpcsOutput{Vpcs: []ec2api.Vpc{}}, nil
}

func testOperations() []operation {
	return []operation{appstreamOp("DescribeStacks", describeStacks), ec2Op("DescribeVpcs", describeVpcs)}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	f := newFront(t, Options{}, testOperations()...)
	for _, tc := range []struct {
		name string
		call call
		want string
	}{
		{"appstream", appStreamCall("DescribeStacks", `{}`), `{"Stacks":[]}`},
		{"appstream without a body", appStreamCall("DescribeStacks", ``), `{"Stacks":[]}`},
		{"ec2", ec2Call("Action=DescribeVpcs"), "<requestId>ID</requestId><vpcSet></vpcSet></DescribeVpcsResponse>"},
		{"sts", stsCall(), "<Arn>arn:aws:iam::123456789012:root</Arn></GetCallerIdentityResult><ResponseMetadata><RequestId>ID</RequestId>"},
		{"sts, another region", func() call { c := stsCall(); c.region = "eu-west-1"; return c }(), "<Account>123456789012</Account>"},
		{"sts, temporary key", func() call { c := stsCall(); c.key = temporary; return c }(), "<Account>123456789012</Account>"},
		{"iam", call{service: "iam", form: "Action=GetRole&RoleName=AmazonAppStreamServiceAccess" + iamVersion}, "<RoleId>AROA1</RoleId>"},
		{"iam list", call{service: "iam", form: "Action=ListRoles&PathPrefix=%2Fservice-role%2F" + iamVersion}, "<RoleId>AROA1</RoleId>"},
		{"iam list of another path", call{service: "iam", form: "Action=ListRoles&PathPrefix=%2Fx%2F" + iamVersion}, "<Roles></Roles>"},
		{"iam users", call{service: "iam", form: "Action=ListUsers" + iamVersion}, "<Users></Users>"},
		{"iam caller", call{service: "iam", form: "Action=GetUser" + iamVersion}, "<UserId>123456789012</UserId><Arn>arn:aws:iam::123456789012:root</Arn>"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := f.do(tc.call.request(t))
			want := strings.ReplaceAll(tc.want, "ID</requestId>", got.requestID+"</requestId>")
			want = strings.ReplaceAll(want, "ID</RequestId>", got.requestID+"</RequestId>")
			if got.status != http.StatusOK || !strings.Contains(got.body, want) {
				t.Errorf("got %d %s\nwant it to contain %s", got.status, got.body, want)
			}
			if len(got.requestID) != 36 {
				t.Errorf("request ID is %q", got.requestID)
			}
		})
	}
}

func TestPresignedGet(t *testing.T) {
	t.Parallel()
	f := newFront(t, Options{})
	presign := func(key sigv4.Key, at time.Time) *http.Request {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://api.test/?Action=GetCallerIdentity"+stsVersion, nil)
		sigv4.Presign(r, nil, key, region, "sts", at, time.Minute)
		return r
	}
	if got := f.do(presign(temporary, now)); got.status != http.StatusOK || !strings.Contains(got.body, "<Account>") {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if got := f.do(presign(root, now.Add(-2*time.Minute))); got.status != 403 || got.code != "SignatureDoesNotMatch" {
		t.Errorf("expired: got %d %s", got.status, got.body)
	}
}

// TestReplayBounds: who can read a signed request can send it again for as long as AWS lets it be sent late, and no longer, and never changed.
func TestReplayBounds(t *testing.T) {
	t.Parallel()
	f := newFront(t, Options{}, testOperations()...)
	at := func(d time.Duration) { f.options.Now = func() time.Time { return now.Add(d) } }
	signed := func() *http.Request { return ec2Call("Action=DescribeVpcs").request(t) } // the same bytes each time
	temporaryCall := func() *http.Request { c := stsCall(); c.key = temporary; return c.request(t) }
	presigned := func() *http.Request {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://api.test/?Action=GetCallerIdentity"+stsVersion, nil)
		sigv4.Presign(r, nil, root, region, "sts", now, 7*24*time.Hour)
		return r
	}
	changed := func() *http.Request {
		r := signed()
		r.Body = io.NopCloser(strings.NewReader("Action=DescribeVpcs" + ec2Version + "&VpcId.1=vpc-1"))
		r.ContentLength = -1
		return r
	}
	for _, tc := range []struct {
		name    string
		request func() *http.Request
		after   time.Duration
		code    string
	}{
		{"at once", signed, 0, ""},
		{"again", signed, 0, ""},
		{"at the end of its time", signed, 5 * time.Minute, ""},
		{"later", signed, 5*time.Minute + time.Second, "RequestExpired"},
		{"a day later", signed, 24 * time.Hour, "RequestExpired"},
		{"with another body", changed, 0, "AuthFailure"},
		{"presigned, again", presigned, time.Hour, ""},
		{"presigned, after seven days", presigned, 7*24*time.Hour + time.Second, "SignatureDoesNotMatch"},
		{"of a session that goes on", temporaryCall, 5 * time.Minute, ""},
		{"of a session that ended, late too", temporaryCall, 2 * time.Hour, "SignatureDoesNotMatch"},
	} {
		at(tc.after)
		if got := f.do(tc.request()); got.code != tc.code || (tc.code == "") != (got.status == http.StatusOK) {
			t.Errorf("%s: got %d %s: %s, want %s", tc.name, got.status, got.code, got.message, tc.code)
		}
	}
}

func TestRefuses(t *testing.T) {
	t.Parallel()
	f := newFront(t, Options{}, testOperations()...)
	with := func(c call, change func(*call)) call { change(&c); return c }
	as, e, s := appStreamCall("DescribeStacks", `{}`), ec2Call("Action=DescribeVpcs"), stsCall()
	for _, tc := range []struct {
		name    string
		call    call
		status  int
		code    string
		message string // part of it
	}{
		{"appstream, no signature", with(as, func(c *call) { c.after = noAuth }), 400, "MissingAuthenticationTokenException", ""},
		{"ec2, no signature", with(e, func(c *call) { c.after = noAuth }), 403, "MissingAuthenticationToken", ""},
		{"sts, no signature", with(s, func(c *call) { c.after = noAuth }), 403, "MissingAuthenticationToken", ""},
		{"appstream, broken signature", with(as, func(c *call) { c.after = halfAuth }), 400, "IncompleteSignatureException", "SignedHeaders"},
		{"sts, broken signature", with(s, func(c *call) { c.after = halfAuth }), 400, "IncompleteSignature", "SignedHeaders"},
		{"appstream, wrong secret", with(as, func(c *call) { c.key.Secret = "x"; c.key.AccessKeyID = root.AccessKeyID }), 400, "InvalidSignatureException", "does not match"},
		{"ec2, wrong secret", with(e, func(c *call) { c.key.Secret = "x"; c.key.AccessKeyID = root.AccessKeyID }), 401, "AuthFailure", "does not match"},
		{"sts, wrong secret", with(s, func(c *call) { c.key.Secret = "x"; c.key.AccessKeyID = root.AccessKeyID }), 403, "SignatureDoesNotMatch", "does not match"},
		{"appstream, unknown key", with(as, func(c *call) { c.key = sigv4.Key{AccessKeyID: "AKIANOBODY", Secret: "x"} }), 400, "UnrecognizedClientException", "security token"},
		{"ec2, unknown key", with(e, func(c *call) { c.key = sigv4.Key{AccessKeyID: "AKIANOBODY", Secret: "x"} }), 401, "AuthFailure", "not able to validate"},
		{"sts, unknown key", with(s, func(c *call) { c.key = sigv4.Key{AccessKeyID: "AKIANOBODY", Secret: "x"} }), 403, "InvalidClientTokenId", "security token"},
		{"sts, inactive key", with(s, func(c *call) { c.key = inactive }), 403, "InvalidClientTokenId", ""},
		{"sts, no session token", with(s, func(c *call) { c.key = temporary; c.key.SessionToken = "" }), 403, "InvalidClientTokenId", ""},
		{"sts, another session token", with(s, func(c *call) { c.key = temporary; c.key.SessionToken = "token2" }), 403, "InvalidClientTokenId", ""},
		{"sts, session token on a long-lived key", with(s, func(c *call) { c.key = root; c.key.SessionToken = "t" }), 403, "InvalidClientTokenId", ""},
		{"sts, expired key", with(s, func(c *call) { c.key = expired }), 403, "ExpiredToken", ""},
		{"appstream, expired key", with(as, func(c *call) { c.key = expired }), 400, "ExpiredTokenException", ""},
		{"appstream, old clock", with(as, func(c *call) { c.at = now.Add(-6 * time.Minute) }), 400, "InvalidSignatureException", "Signature expired: 20260304T050007Z is now earlier than 20260304T050107Z (20260304T050607Z - 5 min.)"},
		{"appstream, clock ahead", with(as, func(c *call) { c.at = now.Add(6 * time.Minute) }), 400, "InvalidSignatureException", "20260304T050607Z"},
		{"ec2, old clock", with(e, func(c *call) { c.at = now.Add(-6 * time.Minute) }), 400, "RequestExpired", "20260304T050607Z"},
		{"sts, old clock", with(s, func(c *call) { c.at = now.Add(-6 * time.Minute) }), 403, "SignatureDoesNotMatch", "20260304T050607Z"},
		{"appstream, another region", with(as, func(c *call) { c.region = "eu-west-1" }), 400, "InvalidSignatureException", "Credential should be scoped to a valid region, not 'eu-west-1'. This endpoint serves 'us-east-1'."},
		{"ec2, another region", with(e, func(c *call) { c.region = "eu-west-1" }), 401, "AuthFailure", "scoped to a valid region"},
		{"appstream, another service", with(as, func(c *call) { c.service = "ec2" }), 400, "InvalidSignatureException", "correct service: 'appstream'"},
		{"ec2, a service that we do not know", with(e, func(c *call) { c.service = "s3" }), 401, "AuthFailure", "correct service: 'ec2'"},
		{"appstream, body changed", with(as, func(c *call) {
			c.after = func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader(`{ }`)); r.ContentLength = 3 }
		}), 400, "InvalidSignatureException", ""},
		{"sts, unsigned payload in the clear", with(s, func(c *call) {
			c.before = func(r *http.Request) { r.Header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD") }
		}), 403, "SignatureDoesNotMatch", "TLS"},
		{"appstream, denied", with(as, func(c *call) { c.key = user }), 400, "AccessDeniedException", "User: arn:aws:iam::123456789012:user/ann is not authorized to perform: appstream:DescribeStacks"},
		{"ec2, denied", with(e, func(c *call) { c.key = user }), 403, "UnauthorizedOperation", "not authorized to perform: ec2:DescribeVpcs"},
		{"ec2, denied dry run", with(ec2Call("Action=DescribeVpcs&DryRun=true"), func(c *call) { c.key = user }), 403, "UnauthorizedOperation", ""},
		{"sts, denied", with(s, func(c *call) { c.key = user }), 403, "AccessDenied", "sts:GetCallerIdentity"},
		{"ec2, dry run", ec2Call("Action=DescribeVpcs&DryRun=true"), 412, "DryRunOperation", "would have succeeded"},
		{"appstream, unknown operation", appStreamCall("MakeTea", `{}`), 400, "UnknownOperationException", ""},
		{"appstream, another target", call{service: "appstream", target: "DynamoDB_20120810.ListTables", body: `{}`}, 400, "UnknownOperationException", ""},
		{"ec2, unknown operation", ec2Call("Action=RunInstances"), 400, "InvalidAction", "The action RunInstances is not valid for this web service."},
		{"sts, unknown operation", call{service: "sts", form: "Action=MakeTea" + stsVersion}, 400, "InvalidAction", "MakeTea"},
		{"ec2, no action", ec2Call("VpcId.1=x"), 400, "MissingAction", ""},
		{"sts, empty body", call{service: "sts"}, 400, "MissingAction", ""},
		{"ec2, another version", call{service: "ec2", form: "Action=DescribeVpcs&Version=2006-06-26"}, 400, "NoSuchVersion", "2016-11-15"},
		{"appstream, in the model but not served", appStreamCall("DescribeThemeForStack", `{}`), 501, "NotImplemented", "appstream:DescribeThemeForStack"},
		{"ec2, in the model but not served", ec2Call("Action=DescribeTags"), 501, "NotImplemented", "ec2:DescribeTags"},
		{"not served, denied first", with(ec2Call("Action=DescribeTags"), func(c *call) { c.key = user }), 403, "UnauthorizedOperation", ""},
		{"appstream, malformed JSON", appStreamCall("DescribeStacks", `{"Names":`), 400, "SerializationException", "Names: unexpected end"},
		{"appstream, wrong type", appStreamCall("DescribeStacks", `{"Names":["a",7]}`), 400, "SerializationException", "Names[1]: NUMBER_VALUE can not be converted to a String"},
		{"appstream, constraint", appStreamCall("DescribeStacks", `{"NextToken":""}`), 400, "ValidationException", "1 validation error detected: Value '' at 'nextToken' failed to satisfy constraint: Member must have length greater than or equal to 1"},
		{"ec2, malformed form", ec2Call("Action=DescribeVpcs&VpcId.1=%zz"), 400, "MalformedQueryString", "VpcId.1"},
		{"ec2, index", ec2Call("Action=DescribeVpcs&VpcId.999999999=x"), 400, "MalformedQueryString", "list index"},
		{"ec2, unknown parameter", ec2Call("Action=DescribeVpcs&VpcID.1=x"), 400, "UnknownParameter", "The parameter VpcID is not recognized"},
		{"ec2, constraint", ec2Call("Action=DescribeVpcs&MaxResults=1"), 400, "InvalidParameterValue", "Value (1) for parameter MaxResults is invalid."},
		{"sts, malformed form", call{service: "sts", form: "%zz"}, 400, "MalformedQueryString", ""},
		{"iam, required", call{service: "iam", form: "Action=GetRole" + iamVersion}, 400, "ValidationError", "Value null at 'roleName'"},
		{"iam, no such role", call{service: "iam", form: "Action=GetRole&RoleName=x" + iamVersion}, 404, "NoSuchEntity", "The role with name x cannot be found."},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := f.do(tc.call.request(t))
			if got.status != tc.status || got.code != tc.code || !strings.Contains(got.message, tc.message) {
				t.Errorf("got %d %s %q\nwant %d %s %q", got.status, got.code, got.message, tc.status, tc.code, tc.message)
			}
			if got.requestID == "" {
				t.Error("no request ID")
			}
		})
	}
}

func noAuth(r *http.Request) { r.Header.Del("Authorization") }

func halfAuth(r *http.Request) {
	auth, _, _ := strings.Cut(r.Header.Get("Authorization"), "SignedHeaders")
	r.Header.Set("Authorization", auth)
}

func TestBodyBound(t *testing.T) {
	t.Parallel()
	f := newFront(t, Options{MaxBodyBytes: 1000}, testOperations()...)
	for _, tc := range []struct {
		name string
		call call
		code string
	}{
		{"appstream", appStreamCall("DescribeStacks", strings.Repeat(" ", 1001)), "RequestEntityTooLargeException"},
		{"ec2", ec2Call("Action=DescribeVpcs&" + strings.Repeat("&", 1000)), "RequestEntityTooLarge"},
	} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s chunked %t", tc.name, chunked), func(t *testing.T) {
				t.Parallel()
				r := tc.call.request(t)
				if chunked {
					r.ContentLength = -1
				}
				got := f.do(r)
				if got.status != http.StatusRequestEntityTooLarge || got.code != tc.code || got.header.Get("Connection") != "close" {
					t.Errorf("got %d %s", got.status, got.body)
				}
			})
		}
	}
	if got := f.do(appStreamCall("DescribeStacks", `{}`+strings.Repeat(" ", 998)).request(t)); got.status != http.StatusOK {
		t.Errorf("a body of exactly the bound: got %d %s", got.status, got.body)
	}
}

// TestSlowBody: a client that stops sending gets an answer, and does not keep its slot.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	f := newFront(t, Options{BodyTimeout: 50 * time.Millisecond, MaxRequests: 1}, testOperations()...)
	srv := httptest.NewServer(f)
	defer srv.Close()
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	r := appStreamCall("DescribeStacks", `{}        `).request(t)
	r.Body, r.ContentLength = nil, 0
	var text bytes.Buffer
	if err := r.Write(&text); err != nil {
		t.Fatal(err)
	}
	head := strings.Replace(text.String(), "Content-Length: 0\r\n", "Content-Length: 10\r\n", 1)
	fmt.Fprint(conn, head+"{")
	answer, err := io.ReadAll(conn) // until the server closes
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(answer), "RequestTimeoutException") {
		t.Errorf("got %q", answer)
	}
	if got := f.do(stsCall().request(t)); got.status != http.StatusOK {
		t.Errorf("the next request: got %d %s", got.status, got.body)
	}
}

// TestStrangersHoldNothing: senders without a known key who never send their bodies do not keep callers out.
func TestStrangersHoldNothing(t *testing.T) {
	t.Parallel()
	f := newFront(t, Options{MaxRequests: 1}, testOperations()...)
	srv := httptest.NewServer(f)
	defer srv.Close()
	unsigned := "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 100\r\n\r\nVersion=2016-11-15&"
	stranger := "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: T.Op\r\nX-Amz-Date: 20260304T050607Z\r\nContent-Length: 100\r\n" +
		"Authorization: AWS4-HMAC-SHA256 Credential=AKIANOBODY/20260304/us-east-1/appstream/aws4_request, SignedHeaders=host;x-amz-date;x-amz-target, " +
		"Signature=" + strings.Repeat("00", 32) + "\r\n\r\n{"
	var strangers []net.Conn
	for i := range 40 {
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, []string{unsigned, stranger}[i%2]); err != nil {
			t.Fatal(err)
		}
		strangers = append(strangers, conn)
	}
	for range 20 {
		if got := f.do(stsCall().request(t)); got.status != http.StatusOK {
			t.Fatalf("a caller was kept out: %d %s", got.status, got.body)
		}
	}
	for i, conn := range strangers {
		answer, err := io.ReadAll(conn) // until the server closes, which it does without the rest of the body
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{"MissingAuthenticationToken", "UnrecognizedClientException"}[i%2]; !strings.Contains(string(answer), want) {
			t.Errorf("stranger %d got %q, want %s", i, answer, want)
		}
	}
}

// TestConcurrentCalls is for the race detector.
func TestConcurrentCalls(t *testing.T) {
	t.Parallel()
	f := newFront(t, Options{}, testOperations()...)
	srv := httptest.NewServer(f)
	defer srv.Close()
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() {
			for range 50 {
				c := []call{appStreamCall("DescribeStacks", `{"Names":["a"]}`), ec2Call("Action=DescribeVpcs&VpcId.1=v"), stsCall(), appStreamCall("X", "{")}[i%4]
				r := c.request(t)
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
					return
				}
				out, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+"/", bytes.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				out.Header, out.Host = r.Header, r.Host
				resp, err := srv.Client().Do(out)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					t.Error(err)
				}
				resp.Body.Close()
				if want := []int{200, 200, 200, 400}[i%4]; resp.StatusCode != want {
					t.Errorf("got %s, want %d", resp.Status, want)
				}
			}
		})
	}
	callers.Wait()
}

func TestTellsBrowsersWhatItIs(t *testing.T) {
	t.Parallel()
	f := newFront(t, Options{})
	for _, tc := range []struct {
		method, path string
		status       int
		says         string
	}{
		{"GET", "/", 200, "--endpoint-url"},
		{"HEAD", "/", 200, ""},
		{"GET", "/favicon.ico", 404, "at /"},
		{"POST", "/x", 404, "at /"},
		{"PUT", "/", 405, "POST"},
		{"OPTIONS", "/", 405, "POST"},
		{"GET", "/?x=1", 403, "MissingAuthenticationToken"},
	} {
		got := f.do(httptest.NewRequestWithContext(t.Context(), tc.method, "http://api.test"+tc.path, nil))
		if got.status != tc.status || !strings.Contains(got.body, tc.says) {
			t.Errorf("%s %s: got %d %q", tc.method, tc.path, got.status, got.body)
		}
	}
}

func TestHandlerFailures(t *testing.T) {
	t.Parallel()
	type (
		in  = appstreamapi.DescribeStacksInput
		out = appstreamapi.DescribeStacksOutput
	)
	for _, tc := range []struct {
		name    string
		handler func(context.Context, Caller, *in) (*out, error)
		status  int
		code    string
		message string
		logged  string
	}{
		{"internal", func(context.Context, Caller, *in) (*out, error) { return nil, errors.New("the disk said no") }, 500, "InternalFailure", "internal error", "the disk said no"},
		{"internal fault", func(context.Context, Caller, *in) (*out, error) {
			return nil, fault.New(fault.Internal, "", "", "the disk said no")
		}, 500, "InternalFailure", "internal error", "the disk said no"},
		{"panic", func(context.Context, Caller, *in) (*out, error) { panic("the disk said no") }, 500, "InternalFailure", "internal error", "the disk said no"},
		{"too slow", func(ctx context.Context, _ Caller, _ *in) (*out, error) {
			<-ctx.Done()
			return nil, fmt.Errorf("read stacks: %w", ctx.Err())
		}, 503, "ServiceUnavailableException", "Try again", "read stacks"},
		{"wrapped fault", func(context.Context, Caller, *in) (*out, error) {
			return nil, fmt.Errorf("secret detail: %w", fault.New(fault.NotFound, "stack", "x", "there is none"))
		}, 404, "ResourceNotFoundException", "stack x: there is none", ""},
		{"EC2's code stays inside", func(context.Context, Caller, *in) (*out, error) {
			return nil, fault.New(fault.NotFound, "", "", "no endpoint").WithCode("InvalidVpcEndpointId.NotFound")
		}, 404, "ResourceNotFoundException", "no endpoint", ""},
		{"its own code", func(context.Context, Caller, *in) (*out, error) {
			return nil, fault.New(fault.Invalid, "", "", "m").WithCode("IncompatibleImageException")
		}, 400, "IncompatibleImageException", "m", ""},
		{"entitlement", func(context.Context, Caller, *in) (*out, error) {
			return nil, fault.New(fault.NotFound, "entitlement", "e", "there is none")
		}, 400, "EntitlementNotFoundException", "entitlement e", ""},
		{"nothing is an empty answer", func(context.Context, Caller, *in) (*out, error) { return nil, nil }, 200, "", "", ""}, //nolint:nilnil // the case
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := newFront(t, Options{HandlerTimeout: 20 * time.Millisecond}, appstreamOp("DescribeStacks", tc.handler))
			got := f.do(appStreamCall("DescribeStacks", `{}`).request(t))
			if got.status != tc.status || got.code != tc.code || !strings.Contains(got.message, tc.message) {
				t.Errorf("got %d %s %q", got.status, got.code, got.message)
			}
			if strings.Contains(got.body, "disk") || strings.Contains(got.body, "secret") {
				t.Errorf("the answer tells too much: %s", got.body)
			}
			if tc.logged != "" && (!strings.Contains(f.log.String(), tc.logged) || !strings.Contains(f.log.String(), got.requestID)) {
				t.Errorf("the log does not have %q under request %s:\n%s", tc.logged, got.requestID, f.log)
			}
			if strings.Contains(f.log.String(), root.Secret) {
				t.Error("the log has a secret")
			}
		})
	}
}

func TestEC2Faults(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err    error
		status int
		code   string
	}{
		{fault.New(fault.NotFound, "vpc", "vpc-1", "x"), 400, "InvalidVpcID.NotFound"},
		{fault.New(fault.NotFound, "kettle", "k", "x"), 400, "InvalidParameterValue"},
		{fault.New(fault.InUse, "vpc", "vpc-1", "x"), 400, "DependencyViolation"},
		{fault.New(fault.NotFound, "vpc", "vpc-1", "x").WithCode("VPCIdNotSpecified"), 400, "VPCIdNotSpecified"},
		{fault.New(fault.Denied, "", "", "x"), 403, "UnauthorizedOperation"},
		{fault.New(fault.Throttled, "", "", "x"), 503, "RequestLimitExceeded"},
		{errors.New("x"), 500, "InternalError"},
	} {
		f := newFront(t, Options{}, ec2Op("DescribeVpcs", func(context.Context, Caller, *ec2api.DescribeVpcsInput) (*ec2api.DescribeVpcsOutput, error) {
			return nil, tc.err
		}))
		if got := f.do(ec2Call("Action=DescribeVpcs").request(t)); got.status != tc.status || got.code != tc.code {
			t.Errorf("%v: got %d %s, want %d %s", tc.err, got.status, got.code, tc.status, tc.code)
		}
	}
}

func TestEveryKindHasACode(t *testing.T) {
	t.Parallel()
	for k := fault.Internal; k <= fault.Unsupported; k++ {
		for name, codes := range map[string]map[fault.Kind]string{"appstream": appstreamCode, "ec2": ec2Code, "iam and sts": identityCode} {
			if codes[k] == "" {
				t.Errorf("%s has no code for kind %d", name, k)
			}
		}
	}
	for _, code := range appstreamCode {
		known := appstreamapi.ErrorStatus(code) != 0
		switch code { // codes of AWS's front end, which the model does not list
		case "ValidationException", "AccessDeniedException", "InternalFailure":
			known = true
		}
		if !known {
			t.Errorf("AppStream does not have the code %s", code)
		}
	}
}

func TestHandlerGetsTheCaller(t *testing.T) {
	t.Parallel()
	var got Caller
	var in *iamapi.GetRoleInput
	f := newFront(t, Options{})
	tables, err := newTables([]operation{iamOp("GetRole", func(_ context.Context, c Caller, i *iamapi.GetRoleInput) (*iamapi.GetRoleOutput, error) {
		got, in = c, i
		return &iamapi.GetRoleOutput{}, nil
	})})
	if err != nil {
		t.Fatal(err)
	}
	f.tables = tables
	r := call{service: "iam", form: "Action=GetRole&RoleName=r" + iamVersion}.request(t)
	r.RemoteAddr = "[2001:db8::1]:4711"
	answer := f.do(r)
	want := Caller{
		Principal: iam.RootOf(account), AccountID: account, Region: region, RequestID: answer.requestID, SourceIP: "2001:db8::1", Action: "iam:GetRole",
	}
	if got != want || in == nil || *in.RoleName != "r" {
		t.Errorf("got %+v and %+v, want %+v", got, in, want)
	}
}

// TestTooManyAtOnce: more requests than slots are told to slow down, at once and without reading their bodies.
func TestTooManyAtOnce(t *testing.T) {
	t.Parallel()
	started, finish := make(chan struct{}), make(chan struct{})
	f := newFront(t, Options{MaxRequests: 1}, appstreamOp("DescribeStacks",
		func(context.Context, Caller, *appstreamapi.DescribeStacksInput) (*appstreamapi.DescribeStacksOutput, error) {
			close(started)
			<-finish
			return nil, nil //nolint:nilnil // an empty answer
		}))
	first := appStreamCall("DescribeStacks", `{}`).request(t)
	var running sync.WaitGroup
	running.Go(func() { f.do(first) })
	<-started
	for _, tc := range []struct {
		call   call
		status int
		code   string
	}{
		{appStreamCall("DescribeStacks", `{}`), 400, "ThrottlingException"},
		{ec2Call("Action=DescribeVpcs"), 503, "RequestLimitExceeded"},
		{stsCall(), 400, "Throttling"},
	} {
		if got := f.do(tc.call.request(t)); got.status != tc.status || got.code != tc.code {
			t.Errorf("got %d %s, want %d %s", got.status, got.body, tc.status, tc.code)
		}
	}
	close(finish)
	running.Wait()
	if got := f.do(stsCall().request(t)); got.status != http.StatusOK {
		t.Errorf("after the first ended: got %d %s", got.status, got.body)
	}
}

func TestNewRefusesWrongTables(t *testing.T) {
	t.Parallel()
	if _, err := newTables([]operation{ec2Op("MakeTea", describeVpcs)}); err == nil {
		t.Error("an operation that is not in the model was registered")
	}
	if _, err := newTables([]operation{ec2Op("DescribeVpcs", describeVpcs), ec2Op("DescribeVpcs", describeVpcs)}); err == nil {
		t.Error("one operation was registered twice")
	}
	if _, err := New(Options{}); err == nil {
		t.Error("a server without an account was built")
	}
}

// TestRandomBytes sends noise, signed and unsigned, and expects a refusal that is the sender's fault each time.
func TestRandomBytes(t *testing.T) {
	t.Parallel()
	f := newFront(t, Options{}, testOperations()...)
	random := rand.New(rand.NewPCG(1, 2))
	noise := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.IntN(256))
		}
		return string(b)
	}
	for range 500 {
		body := noise(random.IntN(200))
		c := call{service: "ec2", form: body}
		switch random.IntN(4) {
		case 0:
			c = appStreamCall("DescribeStacks", body)
		case 1:
			c.form = "Action=DescribeVpcs" + ec2Version + "&" + body
		case 2:
			c.after = func(r *http.Request) { r.Header.Set("Authorization", "AWS4-HMAC-SHA256 "+noise(60)) }
		}
		got := f.do(c.request(t))
		// An empty body is a good DescribeStacks; noise may be a good form of no known parameter only by chance.
		if got.status >= 500 || got.status == http.StatusOK && strings.TrimSpace(body) != "" {
			t.Fatalf("%q: got %d %s", body, got.status, got.body)
		}
	}
}

func BenchmarkRequest(b *testing.B) {
	dir := iam.NewDirectory([]iam.Credential{{AccessKeyID: root.AccessKeyID, Secret: root.Secret, Principal: iam.RootOf(account)}}, nil)
	s, err := New(Options{AccountID: account, Region: region, Credentials: dir, Now: func() time.Time { return now }})
	if err != nil {
		b.Fatal(err)
	}
	if s.tables, err = newTables(testOperations()); err != nil {
		b.Fatal(err)
	}
	for _, bc := range []struct {
		name, service, body string
		header              [2]string
	}{
		{"appstream", "appstream", `{"Names":["stack"]}`, [2]string{"X-Amz-Target", targetPrefix + "DescribeStacks"}},
		{"ec2", "ec2", "Action=DescribeVpcs" + ec2Version + "&VpcId.1=vpc-1", [2]string{"Content-Type", "application/x-www-form-urlencoded"}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "http://api.test/", strings.NewReader(bc.body))
			r.Header.Set(bc.header[0], bc.header[1])
			sigv4.Sign(r, []byte(bc.body), root, region, bc.service, now)
			b.ReportAllocs()
			for b.Loop() {
				r.Body = io.NopCloser(strings.NewReader(bc.body))
				w := httptest.NewRecorder()
				s.ServeHTTP(w, r)
				if w.Code != http.StatusOK {
					b.Fatal(w.Code, w.Body.String())
				}
			}
		})
	}
}

func BenchmarkNew(b *testing.B) {
	dir := iam.NewDirectory(nil, nil)
	for b.Loop() {
		if _, err := New(Options{AccountID: account, Region: region, Credentials: dir}); err != nil {
			b.Fatal(err)
		}
	}
}
