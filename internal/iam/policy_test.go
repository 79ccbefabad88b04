package iam

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	testAccount = "123456789012"
	stackARN    = "arn:aws:appstream:us-east-1:123456789012:stack/blue"
)

func ann() Principal { return Principal{Kind: User, AccountID: testAccount, Name: "ann", ID: "AIDA1"} }

func mustParse(tb testing.TB, document string) *Policy {
	tb.Helper()
	p, err := ParsePolicy(IdentityPolicy, document)
	if err != nil {
		tb.Fatalf("%v\n%s", err, document)
	}
	return p
}

func TestMalformedPolicies(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, document, want string
		kind                 PolicyKind
	}{
		{"empty", ``, "ends early", 0},
		{"cut short", `{"Version":"2012-10-17","Statement":[`, "ends early", 0},
		{"two documents", `{"Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}{}`, "text after the document. (line 1, column 64)", 0},
		{"not an object", `[]`, "must be a JSON object", 0},
		{"version", `{"Version":"2012-10-18","Statement":[]}`, "valid version string. (line 1, column 12)", 0},
		{"no statement", `{"Version":"2012-10-17"}`, "Statement is missing", 0},
		{"no statements", `{"Statement":[]}`, "at least one statement", 0},
		{"unknown element", `{"Statements":[]}`, `unknown element "Statements"`, 0},
		{"twice", `{"Statement":[{"Effect":"Allow","Effect":"Deny"}]}`, "there twice", 0},
		{"effect", "{\"Statement\":[\n {\"Effect\":\"allow\"}]}", `Invalid effect: "allow". Effect must be Allow or Deny. (line 2, column 12)`, 0},
		{"no effect", `{"Statement":{"Action":"*","Resource":"*"}}`, "Missing required field Effect", 0},
		{"no action", `{"Statement":{"Effect":"Allow","Resource":"*"}}`, "must contain actions", 0},
		{"no resource", `{"Statement":{"Effect":"Allow","Action":"*"}}`, "must contain resources", 0},
		{"empty actions", `{"Statement":{"Effect":"Allow","Action":[],"Resource":"*"}}`, "must contain actions", 0},
		{"action and not", `{"Statement":{"Effect":"Allow","Action":"*","NotAction":"*","Resource":"*"}}`, "Action and NotAction", 0},
		{"vendor", `{"Statement":{"Effect":"Allow","Action":"Describe","Resource":"*"}}`, "prefaced by a vendor", 0},
		{"any vendor", `{"Statement":{"Effect":"Allow","Action":"*:x","Resource":"*"}}`, "Vendor", 0},
		{"resource", `{"Statement":{"Effect":"Allow","Action":"*","Resource":"blue"}}`, `Resource blue must be in ARN format or "*".`, 0},
		{"number", `{"Statement":{"Effect":"Allow","Action":1,"Resource":"*"}}`, "a string is expected", 0},
		{"principal", `{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Principal":"*"}}`, "should not specify a principal", 0},
		{"operator", `{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringIs":{"aws:x":"1"}}}}`, "Invalid Condition type : StringIs.", 0},
		{"date", `{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"DateLessThan":{"aws:CurrentTime":"soon"}}}}`, "a date is expected", 0},
		{"cidr", `{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/33"}}}}`, "CIDR", 0},
		{"variable", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::${aws:username"}}`, "Invalid policy variable", 0},
		{"deep", `{"Statement":` + strings.Repeat("[", 50), "nested too deeply", 0},
		{"sid twice", `{"Statement":[{"Sid":"A","Effect":"Allow","Action":"*","Resource":"*"},{"Sid":"A","Effect":"Allow","Action":"*","Resource":"*"}]}`, "must be unique", 0},
		{"huge", strings.Repeat(" ", MaxPolicyBytes+1), "longer than", 0},
		{"trust with a resource", `{"Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Principal":"*","Resource":"*"}}`, "prohibited field Resource", TrustPolicy},
		{"trust without principal", `{"Statement":{"Effect":"Allow","Action":"sts:AssumeRole"}}`, "Missing required field Principal", TrustPolicy},
		{"trust of half an ARN", `{"Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"AWS":"arn:aws:iam::1:user/x"}}}`, `"AWS":"arn:aws:iam::1:user/x"`, TrustPolicy},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := ParsePolicy(tc.kind, tc.document)
			if _, ok := errors.AsType[*SyntaxError](err); !ok || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestDecisions(t *testing.T) {
	t.Parallel()
	const readOnly = `{"Version":"2012-10-17","Statement":{"Sid":"Read","Effect":"Allow","Action":["appstream:Describe*","appstream:List*"],"Resource":"*"}}`
	const all = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`
	const noCreate = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"appstream:*","Resource":"*"},` +
		`{"Sid":"No","Effect":"Deny","Action":"appstream:create*","Resource":"*"}]}`
	one := func(effect, element, resource, condition string) string {
		return `{"Version":"2012-10-17","Statement":{"Effect":"` + effect + `",` + element + `,"Resource":"` + resource + `","Condition":{` + condition + `}}}`
	}
	allowIf := func(condition string) string { return one("Allow", `"Action":"*"`, "*", condition) }
	for _, tc := range []struct {
		name     string
		identity []string
		boundary string
		session  string
		action   string
		resource string
		want     bool
		reason   string
	}{
		{"nothing", nil, "", "", "appstream:DescribeStacks", "", false, "User: arn:aws:iam::123456789012:user/ann is not authorized to perform: appstream:DescribeStacks on resource: * because no identity-based policy allows the appstream:DescribeStacks action"},
		{"read", []string{readOnly}, "", "", "appstream:DescribeStacks", "", true, ""},
		{"read in other letters", []string{readOnly}, "", "", "AppStream:describestacks", "", true, ""},
		{"create", []string{readOnly}, "", "", "appstream:CreateStack", "", false, "no identity-based policy"},
		{"deny wins", []string{all, noCreate}, "", "", "appstream:CreateStack", stackARN, false, "on resource: " + stackARN + " with an explicit deny in an identity-based policy"},
		{"deny wins before", []string{noCreate, all}, "", "", "appstream:CreateStack", stackARN, false, "explicit deny"},
		{"deny of others", []string{noCreate, all}, "", "", "ec2:CreateVpc", "", true, ""},
		{"boundary", []string{all}, readOnly, "", "appstream:CreateStack", "", false, "because no permissions boundary allows"},
		{"boundary that denies", []string{all}, noCreate, "", "appstream:CreateStack", "", false, "with an explicit deny in a permissions boundary"},
		{"boundary grants nothing", nil, all, "", "appstream:CreateStack", "", false, "no identity-based policy"},
		{"session policy", []string{all}, "", readOnly, "appstream:CreateStack", "", false, "because no session policy allows"},
		{"session policy allows", []string{all}, "", readOnly, "appstream:ListTagsForResource", "", true, ""},
		{"arn", []string{one("Allow", `"Action":"*"`, "arn:aws:appstream:*:*:stack/b*", "")}, "", "", "appstream:DeleteStack", stackARN, true, ""},
		{"other arn", []string{one("Allow", `"Action":"*"`, "arn:aws:appstream:*:*:stack/r?d", "")}, "", "", "appstream:DeleteStack", stackARN, false, "no identity"},
		{"arn is not every resource", []string{one("Allow", `"Action":"*"`, "arn:aws:appstream:*", "")}, "", "", "appstream:DescribeStacks", "", false, "no identity"},
		{"not action", []string{one("Allow", `"NotAction":"iam:*"`, "*", "")}, "", "", "ec2:CreateVpc", "", true, ""},
		{"not action of it", []string{one("Allow", `"NotAction":"iam:*"`, "*", "")}, "", "", "iam:CreateUser", "", false, "no identity"},
		{"variable", []string{one("Allow", `"Action":"*"`, "arn:aws:appstream:us-east-1:*:stack/${aws:username}", "")}, "", "", "appstream:DeleteStack", "arn:aws:appstream:us-east-1:1:stack/ann", true, ""},
		{"variable of another", []string{one("Allow", `"Action":"*"`, "arn:aws:appstream:us-east-1:*:stack/${aws:username}", "")}, "", "", "appstream:DeleteStack", stackARN, false, "no identity"},
		{"variable without a value", []string{one("Allow", `"Action":"*"`, "arn:aws:x:::${aws:PrincipalTag/none}", "")}, "", "", "x:y", "arn:aws:x:::", false, "no identity"},
		{"variable with a default", []string{one("Allow", `"Action":"*"`, "arn:aws:x:::${aws:PrincipalTag/none, 'all'}", "")}, "", "", "x:y", "arn:aws:x:::all", true, ""},
		{"a star from a variable is a star", []string{one("Allow", `"Action":"*"`, "arn:aws:x:::${aws:PrincipalTag/star}", "")}, "", "", "x:y", "arn:aws:x:::all", false, "no identity"},
		{"an escaped star", []string{one("Allow", `"Action":"*"`, "arn:aws:x:::${*}", "")}, "", "", "x:y", "arn:aws:x:::all", false, "no identity"},
		{"address", []string{allowIf(`"IpAddress":{"aws:SourceIp":["10.0.0.0/8","192.0.2.7"]}`)}, "", "", "x:y", "", true, ""},
		{"not address", []string{allowIf(`"NotIpAddress":{"aws:SourceIp":"192.0.2.0/24"}`)}, "", "", "x:y", "", false, "no identity"},
		{"date", []string{allowIf(`"DateGreaterThan":{"aws:CurrentTime":"2026-01-01T00:00:00Z"},"DateLessThan":{"aws:CurrentTime":"2027-01-01"}`)}, "", "", "x:y", "", true, ""},
		{"epoch", []string{allowIf(`"NumericLessThan":{"aws:EpochTime":"10"}`)}, "", "", "x:y", "", false, "no identity"},
		{"transport", []string{allowIf(`"Bool":{"aws:SecureTransport":true}`)}, "", "", "x:y", "", false, "no identity"},
		{"null", []string{allowIf(`"Null":{"aws:TokenIssueTime":"true"}`)}, "", "", "x:y", "", true, ""},
		{"absent key", []string{allowIf(`"StringEquals":{"aws:None":"x"}`)}, "", "", "x:y", "", false, "no identity"},
		{"absent key, negated", []string{allowIf(`"StringNotEquals":{"aws:None":"x"}`)}, "", "", "x:y", "", true, ""},
		{"absent key, if exists", []string{allowIf(`"StringEqualsIfExists":{"aws:None":"x"}`)}, "", "", "x:y", "", true, ""},
		{"all tags", []string{allowIf(`"ForAllValues:StringEquals":{"aws:TagKeys":["a","b","c"]}`)}, "", "", "x:y", "", true, ""},
		{"not all tags", []string{allowIf(`"ForAllValues:StringEquals":{"aws:TagKeys":["a"]}`)}, "", "", "x:y", "", false, "no identity"},
		{"any tag", []string{allowIf(`"ForAnyValue:StringEquals":{"aws:TagKeys":["b","z"]}`)}, "", "", "x:y", "", true, ""},
		{"any of none", []string{allowIf(`"ForAnyValue:StringNotEquals":{"aws:None":["b"]}`)}, "", "", "x:y", "", false, "no identity"},
		{"arn condition", []string{allowIf(`"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:user/*"}`)}, "", "", "x:y", "", true, ""},
		{"arn condition keeps to its part", []string{allowIf(`"ArnLike":{"aws:PrincipalArn":"arn:*:user/ann"}`)}, "", "", "x:y", "", false, "no identity"},
		{"variables of the old version are text", []string{strings.Replace(allowIf(`"StringEquals":{"aws:username":"${aws:username}"}`), "2012-10-17", "2008-10-17", 1)}, "", "", "x:y", "", false, "no identity"},
		{"variable in a condition", []string{allowIf(`"StringEquals":{"aws:username":"${aws:username}"}`)}, "", "", "x:y", "", true, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var s PolicySet
			for _, d := range tc.identity {
				s.Identity = append(s.Identity, mustParse(t, d))
			}
			if tc.boundary != "" {
				s.Boundary = mustParse(t, tc.boundary)
			}
			if tc.session != "" {
				s.Session, s.Limited = []*Policy{mustParse(t, tc.session)}, true
			}
			r := Request{
				Principal: ann(), Action: tc.action, SourceIP: "192.0.2.7", Time: time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC), Transport: Plain,
				PrincipalTags: map[string]string{"star": "*"}, Keys: map[string][]string{"aws:tagkeys": {"a", "b"}},
			}
			if tc.resource != "" {
				r.Resources = []string{tc.resource}
			}
			d := s.Decide(&r)
			if d.Allowed != tc.want || !strings.Contains(d.Reason, tc.reason) || d.Allowed != (d.Reason == "") {
				t.Errorf("got %v %q, want %v %q", d.Allowed, d.Reason, tc.want, tc.reason)
			}
		})
	}
}

func TestDecisionNamesItsStatement(t *testing.T) {
	t.Parallel()
	p := mustParse(t, "{\"Statement\":[{\"Effect\":\"Allow\",\"Action\":\"*\",\"Resource\":\"*\"},\n  {\"Sid\":\"No\",\"Effect\":\"Deny\",\"Action\":\"x:*\",\"Resource\":\"*\"}]}").
		Named("Guard", "arn:aws:iam::123456789012:policy/Guard")
	d := (&PolicySet{Identity: []*Policy{p}}).Decide(&Request{Principal: ann(), Action: "x:y"})
	if d.Allowed || !d.Explicit || d.Match.Statement != 1 || d.Match.Sid != "No" || d.Match.Line != 2 || d.Match.Column != 3 || d.Match.Policy != p {
		t.Errorf("got %+v", d)
	}
	if !strings.HasSuffix(d.Reason, "with an explicit deny in an identity-based policy: arn:aws:iam::123456789012:policy/Guard") {
		t.Errorf("got %q", d.Reason)
	}
}

func TestTrust(t *testing.T) {
	t.Parallel()
	role := Principal{Kind: RoleSession, AccountID: testAccount, Path: "/x/", Name: "R", Session: "s", ID: "AROA1"}
	for _, tc := range []struct {
		name, statement string
		who             Principal
		want            Trust
	}{
		{"account", `"Principal":{"AWS":"123456789012"}`, ann(), Trust{Account: true}},
		{"root's arn", `"Principal":{"AWS":"arn:aws:iam::123456789012:root"}`, ann(), Trust{Account: true}},
		{"user", `"Principal":{"AWS":["arn:aws:iam::123456789012:user/bob","arn:aws:iam::123456789012:user/ann"]}`, ann(), Trust{Named: true}},
		{"another user", `"Principal":{"AWS":"arn:aws:iam::123456789012:user/bob"}`, ann(), Trust{}},
		{"role", `"Principal":{"AWS":"arn:aws:iam::123456789012:role/x/R"}`, role, Trust{Named: true}},
		{"session", `"Principal":{"AWS":"arn:aws:sts::123456789012:assumed-role/R/s"}`, role, Trust{Named: true}},
		{"service", `"Principal":{"Service":"appstream.amazonaws.com"}`, Principal{Kind: Service, Name: "appstream.amazonaws.com"}, Trust{Named: true}},
		{"a user is no service", `"Principal":{"Service":"appstream.amazonaws.com"}`, ann(), Trust{}},
		{"external id", `"Principal":"*","Condition":{"StringEquals":{"sts:ExternalId":"7"}}`, ann(), Trust{Named: true}},
		{"wrong external id", `"Principal":"*","Condition":{"StringEquals":{"sts:ExternalId":"8"}}`, ann(), Trust{}},
		{"other action", `"Principal":"*","NotAction":"sts:AssumeRole"`, ann(), Trust{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			action := `"Action":"sts:AssumeRole",`
			if strings.Contains(tc.statement, "NotAction") {
				action = ""
			}
			p, err := ParsePolicy(TrustPolicy, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",`+action+tc.statement+`}]}`)
			if err != nil {
				t.Fatal(err)
			}
			r := Request{Principal: tc.who, Action: "sts:AssumeRole", Keys: map[string][]string{"sts:externalid": {"7"}}}
			if got := p.Trusts(&r); got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
	p, err := ParsePolicy(TrustPolicy, `{"Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Principal":"*"},`+
		`{"Effect":"Deny","Action":"*","Principal":{"AWS":"arn:aws:iam::123456789012:user/ann"}}]}`)
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Trusts(&Request{Principal: ann(), Action: "sts:AssumeRole"}); !got.Denied {
		t.Errorf("explicit deny: got %+v", got)
	}
}

// The naive evaluator below is written from the published rules alone, over the document as encoding/json reads it and
// over regular expressions. It shares nothing with the evaluator that it judges.

func naiveDecide(t *testing.T, documents []string, action, resource string, keys map[string][]string) bool {
	allowed := false
	for _, text := range documents {
		var doc struct {
			Version   string
			Statement []map[string]any
		}
		if err := json.Unmarshal([]byte(text), &doc); err != nil {
			t.Fatal(err)
		}
		for _, s := range doc.Statement {
			if !naiveApplies(s, action, resource, keys, doc.Version == "2012-10-17") {
				continue
			}
			if s["Effect"] == "Deny" {
				return false
			}
			allowed = true
		}
	}
	return allowed
}

func naiveList(v any) []string {
	switch v := v.(type) {
	case []any:
		var out []string
		for _, e := range v {
			out = append(out, fmt.Sprint(e))
		}
		return out
	case nil:
		return nil
	}
	return []string{fmt.Sprint(v)}
}

var naiveVariable = regexp.MustCompile(`\$\{[^}]*\}`)

// naiveRegexp turns a value into a regular expression; nil when a variable has no value.
func naiveRegexp(value string, wild, variables bool, keys map[string][]string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	quote := func(s string) {
		q := regexp.QuoteMeta(s)
		if wild {
			q = strings.ReplaceAll(strings.ReplaceAll(q, `\*`, `.*`), `\?`, `.`)
		}
		b.WriteString(q)
	}
	for value != "" {
		at := naiveVariable.FindStringIndex(value)
		if !variables || at == nil {
			quote(value)
			break
		}
		quote(value[:at[0]])
		name := value[at[0]+2 : at[1]-1]
		value = value[at[1]:]
		if name == "*" || name == "?" || name == "$" {
			b.WriteString(regexp.QuoteMeta(name))
			continue
		}
		v := keys[strings.ToLower(name)]
		if len(v) != 1 {
			return nil
		}
		b.WriteString(regexp.QuoteMeta(v[0]))
	}
	b.WriteString(`\z`)
	return regexp.MustCompile(b.String())
}

func naiveApplies(s map[string]any, action, resource string, keys map[string][]string, variables bool) bool {
	in := func(list []string, got string, fold bool) bool {
		for _, v := range list {
			if fold {
				v, got = strings.ToLower(v), strings.ToLower(got)
			}
			if re := naiveRegexp(v, true, variables && !fold, keys); re != nil && re.MatchString(got) {
				return true
			}
		}
		return false
	}
	if v, ok := s["Action"]; ok && !in(naiveList(v), action, true) {
		return false
	}
	if v, ok := s["NotAction"]; ok && in(naiveList(v), action, true) {
		return false
	}
	if v, ok := s["Resource"]; ok && !in(naiveList(v), resource, false) {
		return false
	}
	if v, ok := s["NotResource"]; ok && in(naiveList(v), resource, false) {
		return false
	}
	conditions, _ := s["Condition"].(map[string]any)
	for op, block := range conditions {
		for key, want := range block.(map[string]any) {
			got, present := keys[strings.ToLower(key)]
			if !naiveMet(op, naiveList(want), got, present && len(got) > 0, variables, keys) {
				return false
			}
		}
	}
	return true
}

func naiveMet(op string, want, got []string, present, variables bool, keys map[string][]string) bool {
	if op == "Null" {
		for _, w := range want {
			if (w == "true") == !present {
				return true
			}
		}
		return false
	}
	set := ""
	if i := strings.Index(op, ":"); i > 0 {
		set, op = op[:i], op[i+1:]
	}
	bare := strings.TrimSuffix(op, "IfExists")
	negated := strings.Contains(bare, "Not")
	positive := strings.Replace(bare, "Not", "", 1)
	if !present {
		if bare != op || set == "ForAllValues" {
			return true
		}
		return negated && set == ""
	}
	one := func(g string) bool {
		for _, w := range want {
			if naiveCompare(positive, w, g, variables, keys) {
				return true
			}
		}
		return false
	}
	yes, no := 0, 0
	for _, g := range got {
		if one(g) {
			yes++
		} else {
			no++
		}
	}
	switch {
	case set == "ForAllValues" && negated:
		return yes == 0
	case set == "ForAllValues":
		return no == 0
	case set == "ForAnyValue" && negated:
		return no > 0
	case set == "ForAnyValue":
		return yes > 0
	case negated:
		return yes == 0
	}
	return yes > 0
}

func naiveCompare(op, want, got string, variables bool, keys map[string][]string) bool {
	text := func(wild bool) bool {
		re := naiveRegexp(want, wild, variables, keys)
		return re != nil && re.MatchString(got)
	}
	number := func() (w, g float64, ok bool) {
		w, e1 := strconv.ParseFloat(want, 64)
		g, e2 := strconv.ParseFloat(got, 64)
		return w, g, e1 == nil && e2 == nil
	}
	switch op {
	case "StringEquals":
		return text(false)
	case "StringLike":
		return text(true)
	case "StringEqualsIgnoreCase":
		re := naiveRegexp(want, false, variables, keys)
		return re != nil && regexp.MustCompile("(?i)"+re.String()).MatchString(got)
	case "BinaryEquals":
		return want == got
	case "ArnEquals", "ArnLike":
		w, g := strings.SplitN(want, ":", 6), strings.SplitN(got, ":", 6)
		if len(w) != 6 || len(g) != 6 {
			return false
		}
		for i := range w {
			if re := naiveRegexp(w[i], true, variables, keys); re == nil || !re.MatchString(g[i]) {
				return false
			}
		}
		return true
	case "NumericLessThanEquals":
		w, g, ok := number()
		return ok && g <= w
	case "NumericGreaterThan":
		w, g, ok := number()
		return ok && g > w
	case "NumericEquals":
		w, g, ok := number()
		return ok && w == g
	case "NumericLessThan":
		w, g, ok := number()
		return ok && g < w
	case "NumericGreaterThanEquals":
		w, g, ok := number()
		return ok && g >= w
	case "Bool":
		return strings.EqualFold(want, got)
	case "IpAddress":
		a, err := netip.ParseAddr(got)
		if !strings.Contains(want, "/") {
			want += "/32"
		}
		return err == nil && netip.MustParsePrefix(want).Contains(a)
	case "DateEquals", "DateLessThan", "DateLessThanEquals", "DateGreaterThan", "DateGreaterThanEquals":
		w, e1 := time.Parse(time.RFC3339, want)
		g, e2 := time.Parse(time.RFC3339, got)
		if n, err := strconv.ParseInt(got, 10, 64); err == nil {
			g, e2 = time.Unix(n, 0), nil // epoch seconds
		}
		if e1 != nil || e2 != nil {
			return false
		}
		same := g.Equal(w) && op != "DateLessThan" && op != "DateGreaterThan"
		return same || strings.HasPrefix(op, "DateLess") && g.Before(w) || strings.HasPrefix(op, "DateGreater") && g.After(w)
	}
	panic("unknown operator " + op)
}

// drawPolicy makes a policy document, and drawRequest a request, from a source of choices.
func drawPolicy(r *rand.Rand) string {
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	some := func(s ...string) any {
		if r.IntN(2) == 0 {
			return pick(s...)
		}
		return []string{pick(s...), pick(s...)}
	}
	version := pick("2012-10-17", "2012-10-17", "2008-10-17")
	var statements []map[string]any
	for range 1 + r.IntN(4) {
		s := map[string]any{"Effect": pick("Allow", "Allow", "Deny")}
		s[pick("Action", "Action", "NotAction")] = some("*", "a:*", "a:Get*", "A:getx", "b:?ut", "a:G*t*X", "b:*")
		s[pick("Resource", "Resource", "NotResource")] = some("*", "arn:1", "arn:*", "arn:?", "arn:*x*", "arn:${aws:username}", "arn:${*}", "arn:é?", "arn:${aws:none}", "arn:*:*:z")
		block := map[string]map[string]any{}
		for range r.IntN(3) {
			set, exists := pick("", "", "ForAllValues:", "ForAnyValue:"), pick("", "", "IfExists")
			key := pick("aws:username", "aws:TagKeys", "aws:None", "aws:Empty", "x:n", "x:d", "x:b", "x:i")
			var op string
			var want any
			switch r.IntN(8) {
			case 6:
				op = set + pick("ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike") + exists
				key, want = pick("x:a", key), some("arn:aws:s3:::*", "arn:*:s3:*:*:b?", "arn:aws:iam::1:user/${aws:username}", "arn:aws:s3", "*:*:*:*:*:*:*")
			case 7:
				op, key = set+"BinaryEquals"+exists, pick("x:bin", key)
				want = some("YQ==", "YWI=")
			case 0, 1:
				op = set + pick("StringEquals", "StringNotEquals", "StringLike", "StringNotLike", "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase") + exists
				want = some("ann", "ANN", "a", "a*", "?", "${aws:username}", "*", "${*}", "${aws:none}")
			case 2:
				op = set + pick("NumericEquals", "NumericNotEquals", "NumericLessThan", "NumericLessThanEquals", "NumericGreaterThan", "NumericGreaterThanEquals") + exists
				want = some("1", "2.5", "-3")
			case 3:
				op = set + "Bool" + exists
				want = some("true", "false")
			case 4:
				op = set + pick("IpAddress", "NotIpAddress") + exists
				want = some("10.0.0.0/8", "10.1.2.3", "0.0.0.0/0")
			case 5:
				op, want = pick("Null", set+"Date"+pick("Equals", "NotEquals", "LessThan", "LessThanEquals", "GreaterThan", "GreaterThanEquals")+exists), "2026-01-01T00:00:00Z"
				if op == "Null" {
					want = some("true", "false")
				}
			}
			if block[op] == nil {
				block[op] = map[string]any{}
			}
			block[op][key] = want
		}
		if len(block) > 0 {
			s["Condition"] = block
		}
		statements = append(statements, s)
	}
	b, err := json.Marshal(map[string]any{"Version": version, "Statement": statements})
	if err != nil {
		panic(err)
	}
	return string(b)
}

func drawRequest(r *rand.Rand) (action, resource string, keys map[string][]string) {
	pick := func(s ...string) string { return s[r.IntN(len(s))] }
	keys = map[string][]string{}
	put := func(k string, v ...string) {
		if r.IntN(3) > 0 {
			keys[k] = v
		}
	}
	put("aws:username", pick("ann", "a", "*", "x"))
	put("aws:tagkeys", pick("a", "b"), pick("ann", "ab", ""))
	put("aws:empty")
	put("x:n", pick("1", "2.5", "-3", "9", "no"))
	put("x:a", pick("arn:aws:s3:::b1", "arn:aws:iam::1:user/ann", "arn:aws:s3", "no"))
	put("x:bin", pick("YQ==", "YWI=", "YQ"))
	put("x:d", pick("2025-06-01T00:00:00Z", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z", "no"))
	put("x:b", pick("true", "False", "no"))
	put("x:i", pick("10.1.2.3", "10.9.9.9", "192.0.2.1", "no"))
	return pick("a:GetX", "a:PutX", "b:Put", "b:out", "c:x"), pick("*", "arn:1", "arn:x", "arn:*", "arn:ann", "arn:éé", "arn:a:b:z", "arn:"), keys
}

func compareEvaluators(t *testing.T, seed uint64) bool {
	r := rand.New(rand.NewPCG(seed, 7))
	var documents []string
	var s PolicySet
	for range 1 + r.IntN(3) {
		d := drawPolicy(r)
		documents = append(documents, d)
		s.Identity = append(s.Identity, mustParse(t, d))
	}
	action, resource, keys := drawRequest(r)
	want := naiveDecide(t, documents, action, resource, keys)
	// The other layers have to allow as well, and a deny in any of them wins: which is a conjunction of decisions.
	layer := func() (*Policy, bool) {
		d := drawPolicy(r)
		return mustParse(t, d), naiveDecide(t, []string{d}, action, resource, keys)
	}
	if r.IntN(4) == 0 {
		var allowed bool
		s.Boundary, allowed = layer()
		want = want && allowed
	}
	if r.IntN(4) == 0 {
		p, allowed := layer()
		s.Session, s.Limited, want = []*Policy{p}, true, want && allowed
	}
	request := &Request{Action: action, Resources: []string{resource}, Keys: keys}
	got := s.Decide(request)
	if x := s.Explain(request, resource); x.Allowed != got.Allowed || x.Explicit != got.Explicit || !consistent(&s, &x) {
		t.Fatalf("seed %d: decided %+v, explained as %+v", seed, got, x)
	}
	if got.Allowed != want {
		t.Fatalf("seed %d: got %v (%s), the naive evaluator says %v\n%s on %s with %v\n%s", seed, got.Allowed, got.Reason, want, action, resource, keys, strings.Join(documents, "\n"))
	}
	return want
}

// consistent: the steps of an explanation lead to its decision, by the rules that a reader knows.
func consistent(s *PolicySet, x *Explanation) bool {
	denies := false
	allows := map[Layer]bool{}
	for _, st := range x.Steps {
		if (st.Why == "") != st.Applies {
			return false
		}
		denies = denies || st.Applies && !st.Allow
		allows[st.Layer] = allows[st.Layer] || st.Applies && st.Allow
	}
	all := allows[IdentityLayer] && (s.Boundary == nil || allows[BoundaryLayer]) && (!s.Limited || allows[SessionLayer])
	return x.Explicit == denies && x.Allowed == (all && !denies) && (len(x.Deciding()) > 0) == (x.Allowed || x.Explicit)
}

func TestEvaluatorsAgree(t *testing.T) {
	t.Parallel()
	allowed := 0
	const rounds = 20000
	for seed := range uint64(rounds) {
		if compareEvaluators(t, seed) {
			allowed++
		}
	}
	if allowed < rounds/20 || allowed > rounds*19/20 {
		t.Errorf("%d of %d requests were allowed: the draw is one-sided", allowed, rounds)
	}
}

func FuzzEvaluatorsAgree(f *testing.F) {
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, seed uint64) { compareEvaluators(t, seed) })
}

// FuzzParsePolicy wants no panic, errors with a place inside the document, and documents that JSON readers accept.
func FuzzParsePolicy(f *testing.F) {
	f.Add(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"a:*","Resource":"arn:${aws:username}","Condition":{"IpAddress":{"aws:SourceIp":"::/0"}}}]}`)
	f.Add(`{"Statement":{"Effect":"Deny","Principal":{"AWS":"*"},"Action":"*"}}`)
	f.Add("{\n\"Statement\" : [ , ]}")
	f.Fuzz(func(t *testing.T, text string) {
		for _, kind := range []PolicyKind{IdentityPolicy, TrustPolicy} {
			p, err := ParsePolicy(kind, text)
			if e, ok := errors.AsType[*SyntaxError](err); err != nil && (!ok || e.Line < 1 || e.Column < 1 || e.Line > strings.Count(text, "\n")+1) {
				t.Fatalf("got %v", err)
			}
			if err == nil {
				if !json.Valid([]byte(text)) {
					t.Fatal("a document that is not JSON was accepted")
				}
				r := Request{Principal: ann(), Action: "a:b", Time: time.Unix(1, 0), SourceIP: "::1"}
				(&PolicySet{Identity: []*Policy{p}}).Decide(&r)
				p.Trusts(&r)
			}
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		var list []string
		for i := range n - 1 {
			list = append(list, fmt.Sprintf(`{"Effect":"Allow","Action":["ec2:Describe*","s3:Get%d*"],"Resource":"arn:aws:s3:::bucket-%d/*"}`, i, i))
		}
		list = append(list, `{"Effect":"Allow","Action":"appstream:*","Resource":"arn:aws:appstream:*:*:stack/*"}`)
		s := PolicySet{Identity: []*Policy{mustParse(b, `{"Version":"2012-10-17","Statement":[`+strings.Join(list, ",")+`]}`)}}
		r := Request{Principal: ann(), Action: "appstream:DeleteStack", Resources: []string{stackARN}, SourceIP: "192.0.2.7"}
		b.Run(fmt.Sprintf("statements=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !s.Decide(&r).Allowed {
					b.Fatal("denied")
				}
			}
		})
	}
}
