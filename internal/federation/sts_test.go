package federation

import (
	"encoding/base64"
	"encoding/xml"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/crewjam/saml"
	dsig "github.com/russellhaering/goxmldsig"

	"penstock.dev/penstock/internal/apiserver"
	"penstock.dev/penstock/internal/audit"
	"penstock.dev/penstock/internal/control/access"
	"penstock.dev/penstock/internal/wire/sigv4"
)

// recorder keeps what is put on record.
type recorder struct {
	mu     sync.Mutex
	events []audit.Event
}

func (r *recorder) Ready() error { return nil }

func (r *recorder) Record(e audit.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *recorder) last(t *testing.T) audit.Event {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) == 0 {
		t.Fatal("nothing is on record")
	}
	return r.events[len(r.events)-1]
}

// temporaryKey is what STS calls credentials.
type temporaryKey struct {
	AccessKeyID     string `xml:"AccessKeyId"`
	SecretAccessKey string
	SessionToken    string
	Expiration      string
}

// assumed is STS's answer.
type assumed struct {
	Code        string               `xml:"Error>Code"`
	Message     string               `xml:"Error>Message"`
	Credentials temporaryKey         `xml:"AssumeRoleWithSAMLResult>Credentials"`
	User        struct{ Arn string } `xml:"AssumeRoleWithSAMLResult>AssumedRoleUser"`
	Subject     string               `xml:"AssumeRoleWithSAMLResult>Subject"`
	SubjectType string               `xml:"AssumeRoleWithSAMLResult>SubjectType"`
	Issuer      string               `xml:"AssumeRoleWithSAMLResult>Issuer"`
	Audience    string               `xml:"AssumeRoleWithSAMLResult>Audience"`
	Qualifier   string               `xml:"AssumeRoleWithSAMLResult>NameQualifier"`
	Source      string               `xml:"AssumeRoleWithSAMLResult>SourceIdentity"`
	Arn         string               `xml:"GetCallerIdentityResult>Arn"`
}

// TestAssumeRoleWithSAML: an assertion makes a session of the role that it names and that trusts its provider, once, without a signature;
// its keys and tags reach the policies, and the record says who it was.
func TestAssumeRoleWithSAML(t *testing.T) {
	t.Parallel()
	i := newIDP(t)
	rec := &recorder{}
	server, err := apiserver.New(apiserver.Options{AccountID: account, Region: "us-east-1", Credentials: i.iam, Access: i.iam, SAML: i.f, Audit: rec})
	if err != nil {
		t.Fatal(err)
	}
	do := func(r *http.Request) (int, assumed) {
		t.Helper()
		w := httptest.NewRecorder()
		server.ServeHTTP(w, r)
		var a assumed
		if err := xml.Unmarshal(w.Body.Bytes(), &a); err != nil {
			t.Fatalf("%v: %s", err, w.Body)
		}
		return w.Code, a
	}
	form := func(f url.Values) *http.Request {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://api.test/", strings.NewReader(f.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
		return r
	}
	roleARN := func(name string) string { return "arn:aws:iam::" + account + ":role/" + name }
	provider := "arn:aws:iam::" + account + ":saml-provider/corp"
	ask := func(role, response string, more ...string) (int, assumed) {
		t.Helper()
		f := url.Values{
			"Action": {"AssumeRoleWithSAML"}, "Version": {"2011-06-15"}, "RoleArn": {roleARN(role)}, "PrincipalArn": {provider},
			"SAMLAssertion": {base64.StdEncoding.EncodeToString([]byte(response))},
		}
		for n := 0; n < len(more); n += 2 {
			f.Set(more[n], more[n+1])
		}
		return do(form(f))
	}
	id := 0
	bring := func(role string, attributes map[string]string, change ...func(*said)) string {
		all := map[string]string{roleAttribute: roleARN(role) + "," + provider, sessionAttribute: "sam"}
		for k, v := range attributes {
			all[k] = v
			if v == "" {
				delete(all, k)
			}
		}
		id++
		s := said{attributes: all, id: "a-" + time.Now().Format("150405.000000000") + string(rune('a'+id%26))}
		for _, c := range change {
			c(&s)
		}
		return i.good(s)
	}
	trust := strings.Replace(trustCorp, `"sts:TagSession"`, `"sts:TagSession","sts:SetSourceIdentity"`, 1)
	i.role("ops", trust, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iam:GetUser","Resource":"*","Condition":{"StringEquals":{`+
		`"saml:sub":"sam@example.com","aws:PrincipalTag/team":"blue","aws:FederatedProvider":"`+provider+`","aws:SourceIdentity":"sam"}}}]}`)
	i.role("plain", strings.Replace(trustCorp, `,"sts:TagSession"`, "", 1), streamAll)
	i.role("elsewhere", strings.Replace(trustCorp, "saml-provider/corp", "saml-provider/other", 1), streamAll)
	i.role("named", strings.Replace(trustCorp, `"SAML:aud":"https://portal.example/federation/corp/acs"`, `"SAML:sub":"zoe@example.com"`, 1), streamAll)
	i.role("conditions", strings.Replace(trustCorp, `"SAML:aud":"https://portal.example/federation/corp/acs"`, `"SAML:iss":"https://idp.example/metadata","SAML:doc":"`+account+`/corp",`+
		`"SAML:sub":"sam@example.com","SAML:namequalifier":"`+nameQualifier("https://idp.example/metadata", account, "corp")+`","sts:RoleSessionName":"sam"`, 1), streamAll)
	tags := map[string]string{tagAttribute + "team": "blue", sourceAttribute: "sam"}
	response := bring("ops", tags)
	status, a := ask("ops", response)
	if status != 200 || a.Subject != "sam@example.com" || a.Issuer != "https://idp.example/metadata" || a.Audience != "https://portal.example/federation/corp/acs" ||
		a.User.Arn != "arn:aws:sts::"+account+":assumed-role/ops/sam" || a.Source != "sam" || a.Qualifier == "" || !strings.HasSuffix(a.SubjectType, "emailAddress") {
		t.Fatalf("got %d %+v", status, a)
	}
	if end, err := time.Parse(time.RFC3339, a.Credentials.Expiration); err != nil || time.Until(end) > time.Hour || time.Until(end) < 50*time.Minute {
		t.Errorf("expires %s, want an hour from now", a.Credentials.Expiration)
	}
	e := rec.last(t)
	if e.Name != "AssumeRoleWithSAML" || e.Identity.Type != "SAMLUser" || e.Identity.UserName != "sam@example.com" || e.Identity.Provider != a.Qualifier || e.Unproved ||
		len(e.Resources) != 1 || e.Resources[0].ARN != roleARN("ops") || strings.Contains(string(e.Request), "PHNhbWxw") {
		t.Errorf("on record: %+v %s", e, e.Request)
	}

	// The session signs.
	key := sigv4.Key{AccessKeyID: a.Credentials.AccessKeyID, Secret: a.Credentials.SecretAccessKey, SessionToken: a.Credentials.SessionToken}
	signed := func(service, body string) *http.Request {
		r := form(nil)
		r.Body, r.ContentLength = http.NoBody, 0
		r = httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://api.test/", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
		sigv4.Sign(r, []byte(body), key, "us-east-1", service, time.Now())
		return r
	}
	if status, got := do(signed("sts", "Action=GetCallerIdentity&Version=2011-06-15")); status != 200 || got.Arn != a.User.Arn {
		t.Errorf("the session: got %d %+v", status, got)
	}
	e = rec.last(t)
	if s := e.Identity.Session; e.Identity.Type != "AssumedRole" || s == nil || s.SourceIdentity != "sam" || s.Federation == nil || s.Federation.Provider != provider ||
		s.Federation.Attributes["sub"] != "sam@example.com" {
		t.Errorf("the session on record: %+v %+v", e.Identity, e.Identity.Session)
	}
	if _, err := i.iam.Create(t.Context(), access.Entity{Kind: access.User, Name: "bob"}); err != nil {
		t.Fatal(err)
	}
	if status, got := do(signed("iam", "Action=GetUser&UserName=bob&Version=2010-05-08")); status != 200 {
		t.Errorf("what the policy asks of the assertion: got %d %+v", status, got)
	}
	if status, got := do(signed("iam", "Action=ListUsers&Version=2010-05-08")); status != 403 {
		t.Errorf("what no policy allows: got %d %+v", status, got)
	}

	for name, tc := range map[string]struct {
		role, response string
		more           []string
		status         int
		code, message  string
	}{
		"the same assertion again":               {"ops", response, nil, 400, "InvalidIdentityToken", "used before"},
		"every condition of a trust policy":      {"conditions", bring("conditions", nil), nil, 200, "", ""},
		"another user":                           {"named", bring("named", nil), nil, 403, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithSAML"},
		"a role that trusts another":             {"elsewhere", bring("elsewhere", nil), nil, 403, "AccessDenied", "Not authorized"},
		"a role that does not exist":             {"nobody", bring("nobody", nil), nil, 403, "AccessDenied", "Not authorized"},
		"a role that is not in the assertion":    {"plain", bring("ops", nil), nil, 403, "AccessDenied", "Not authorized"},
		"tags without sts:TagSession":            {"plain", bring("plain", map[string]string{tagAttribute + "team": "blue"}), nil, 403, "AccessDenied", "Not authorized"},
		"a source identity without its right":    {"plain", bring("plain", map[string]string{sourceAttribute: "sam"}), nil, 403, "AccessDenied", "Not authorized"},
		"no tags":                                {"plain", bring("plain", nil), []string{"DurationSeconds", "900"}, 200, "", ""},
		"longer than the role allows":            {"plain", bring("plain", nil), []string{"DurationSeconds", "7200"}, 400, "ValidationError", "MaxSessionDuration"},
		"another provider":                       {"plain", bring("plain", nil), []string{"PrincipalArn", provider + "2"}, 400, "InvalidIdentityToken", "No SAML provider"},
		"no role session name":                   {"plain", bring("plain", map[string]string{sessionAttribute: ""}), nil, 400, "InvalidIdentityToken", "RoleSessionName"},
		"a bad role session name":                {"plain", bring("plain", map[string]string{sessionAttribute: "sam smith"}), nil, 400, "InvalidIdentityToken", "RoleSessionName"},
		"no role":                                {"plain", bring("plain", map[string]string{roleAttribute: ""}), nil, 400, "InvalidIdentityToken", "Role"},
		"expired":                                {"plain", bring("plain", nil, func(s *said) { s.issued = time.Now().Add(-time.Hour) }), nil, 400, "ExpiredTokenException", "Token must be redeemed"},
		"not yet valid":                          {"plain", bring("plain", nil, func(s *said) { s.issued = time.Now().Add(time.Hour) }), nil, 400, "InvalidIdentityToken", ""},
		"for another audience":                   {"plain", bring("plain", nil, func(s *said) { s.audience = "https://signin.aws.amazon.com/saml" }), nil, 400, "InvalidIdentityToken", ""},
		"an answer to the portal":                {"plain", bring("plain", nil, func(s *said) { s.inResponseTo = "id-1" }), nil, 400, "InvalidIdentityToken", "the browser that made it"},
		"not signed":                             {"plain", text(t, i.response(said{}, i.assertion(said{}))), nil, 400, "InvalidIdentityToken", ""},
		"SHA-1":                                  {"plain", text(t, i.response(said{}, i.sign(i.assertion(said{}), dsig.RSASHA1SignatureMethod))), nil, 400, "InvalidIdentityToken", ""},
		"a session policy that is no policy":     {"plain", bring("plain", nil), []string{"Policy", "{}"}, 400, "MalformedPolicyDocument", ""},
		"no assertion":                           {"plain", "", nil, 400, "ValidationError", "sAMLAssertion"},
		"a transient user, whom STS lets assume": {"plain", bring("plain", nil, func(s *said) { s.format = string(saml.TransientNameIDFormat) }), nil, 200, "", ""},
	} {
		status, got := ask(tc.role, tc.response, tc.more...)
		if status != tc.status || got.Code != tc.code || !strings.Contains(got.Message, tc.message) {
			t.Errorf("%s: got %d %s: %s, want %d %s: %s", name, status, got.Code, got.Message, tc.status, tc.code, tc.message)
		}
	}
	// Everything else still has to be signed, and large bodies of strangers are not read.
	if status, got := do(form(url.Values{"Action": {"GetCallerIdentity"}, "Version": {"2011-06-15"}})); status != 403 || got.Code != "MissingAuthenticationToken" {
		t.Errorf("another operation unsigned: got %d %+v", status, got)
	}
	huge := form(url.Values{"Action": {"AssumeRoleWithSAML"}, "Version": {"2011-06-15"}, "SAMLAssertion": {strings.Repeat("A", 300<<10)}})
	if status, got := do(huge); status != 403 || got.Code != "MissingAuthenticationToken" {
		t.Errorf("300 KiB of a stranger: got %d %+v", status, got)
	}
}
