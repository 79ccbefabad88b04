package iam

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestLookAlikes: letters, stars and names that only look like others are others, in resources, condition keys and values; in actions and
// in the document's own words they are refused.
func TestLookAlikes(t *testing.T) {
	t.Parallel()
	const stack = "arn:aws:appstream:us-east-1:123456789012:stack/"
	allow := func(action, resource, condition string) string {
		if condition != "" {
			condition = `,"Condition":{` + condition + `}`
		}
		return `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"` + action + `","Resource":"` + resource + `"` + condition + `}}`
	}
	for _, tc := range []struct {
		name, policy, action, resource string
		keys                           map[string][]string
		want                           bool
	}{
		{"a small star in the resource", allow("appstream:*", stack+"\ufe61", ""), "appstream:DeleteStack", stack + "a", nil, false},
		{"a fullwidth question mark", allow("appstream:*", stack+"\uff1f", ""), "appstream:DeleteStack", stack + "a", nil, false},
		{"a zero-width space", allow("appstream:*", stack+"a\u200b", ""), "appstream:DeleteStack", stack + "a", nil, false},
		{"a zero-width joiner in what is asked", allow("appstream:*", stack+"a", ""), "appstream:DeleteStack", stack + "a\u200d", nil, false},
		{"one letter composed, the other in parts", allow("appstream:*", stack+"caf\u00e9", ""), "appstream:DeleteStack", stack + "cafe\u0301", nil, false},
		{"the same letter", allow("appstream:*", stack+"caf\u00e9", ""), "appstream:DeleteStack", stack + "caf\u00e9", nil, true},
		{"one question mark is one letter of any size", allow("appstream:*", stack+"caf?", ""), "appstream:DeleteStack", stack + "caf\u00e9", nil, true},
		{"and not two", allow("appstream:*", stack+"caf?", ""), "appstream:DeleteStack", stack + "cafe\u0301", nil, false},
		{"an override of direction", allow("appstream:*", stack+"\u202eba", ""), "appstream:DeleteStack", stack + "ab", nil, false},
		{"a value with a fullwidth letter", allow("*", "*", `"StringEquals":{"aws:RequestTag/team":"blue"}`), "ec2:CreateVpc", "", map[string][]string{"aws:requesttag/team": {"\uff42lue"}}, false},
		{"ignoring case reaches what folds, as AWS says", allow("*", "*", `"StringEqualsIgnoreCase":{"aws:RequestTag/team":"BLUE"}`), "ec2:CreateVpc", "", map[string][]string{"aws:requesttag/team": {"blue"}}, true},
		{"a key with the Kelvin sign", allow("*", "*", `"StringEquals":{"aws:RequestTag/key":"1"}`), "ec2:CreateVpc", "", map[string][]string{"aws:requesttag/\u212aey": {"1"}}, false},
		{"the dotted capital I is no i", allow("*", "*", `"StringEquals":{"aws:RequestTag/id":"1"}`), "ec2:CreateVpc", "", map[string][]string{LowerKey("aws:RequestTag/\u0130d"): {"1"}}, false},
		{"a variable's value is no pattern", allow("appstream:*", stack+"${aws:PrincipalTag/team}", ""), "appstream:DeleteStack", stack + "anything", map[string][]string{"aws:principaltag/team": {"*"}}, false},
		{"a star that was escaped", allow("appstream:*", `arn:aws:appstream:us-east-1:123456789012:stack/\u002a`, ""), "appstream:DeleteStack", stack + "a", nil, true}, // JSON says it is one
	} {
		p, err := ParsePolicy(IdentityPolicy, tc.policy)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		r := Request{Principal: Principal{Kind: User, AccountID: "123456789012", Name: "ann"}, Action: tc.action, Keys: tc.keys}
		if tc.resource != "" {
			r.Resources = []string{tc.resource}
		}
		if d := (&PolicySet{Identity: []*Policy{p}}).Decide(&r); d.Allowed != tc.want {
			t.Errorf("%s: allowed %v, want %v", tc.name, d.Allowed, tc.want)
		}
	}
	for name, document := range map[string]string{
		"a Cyrillic letter in the action":   allow("appstre\u0430m:*", "*", ""),
		"the Kelvin sign in the action":     allow("appstream:DeleteStac\u212a", "*", ""),
		"a long s in the action":            allow("appstream:Delete\u017ftack", "*", ""),
		"a fullwidth star":                  allow("appstream:\uff0a", "*", ""),
		"an effect in fullwidth letters":    `{"Statement":{"Effect":"` + "\uff21llow" + `","Action":"*","Resource":"*"}}`,
		"an element with a look-alike":      `{"Statement":{"Effect":"Allow","` + "\u0410ction" + `":"*","Resource":"*"}}`,
		"an element that differs in case":   `{"Statement":{"Effect":"Allow","action":"*","Resource":"*"}}`,
		"an element twice, once escaped":    `{"Statement":{"Effect":"Allow","\u0045ffect":"Deny","Action":"*","Resource":"*"}}`,
		"bytes that are no UTF-8":           "{\"Statement\":{\"Effect\":\"Allow\",\"Action\":\"appstream:\xff\",\"Resource\":\"*\"}}",
		"half a surrogate pair":             `{"Statement":{"Effect":"Allow","Action":"appstream:\ud800","Resource":"*"}}`,
		"a byte order mark":                 "\ufeff" + `{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`,
		"a no-break space between elements": "{\u00a0\"Statement\":{\"Effect\":\"Allow\",\"Action\":\"*\",\"Resource\":\"*\"}}",
		"quotes that are not ASCII":         "{\u201cStatement\u201d:{}}",
		"a resource in a look-alike of arn": `{"Statement":{"Effect":"Allow","Action":"*","Resource":"` + "\u0430rn:aws:s3:::x" + `"}}`,
	} {
		_, err := ParsePolicy(IdentityPolicy, document)
		if _, ok := errors.AsType[*SyntaxError](err); !ok {
			t.Errorf("%s: got %v, want a syntax error", name, err)
		}
	}
}

// naiveMatch answers from the rules alone which ends of p match which ends of s, from the last letters on.
func naiveMatch(p, s []rune) bool {
	match := make([][]bool, len(p)+1)
	for i := len(p); i >= 0; i-- {
		match[i] = make([]bool, len(s)+1)
		for j := len(s); j >= 0; j-- {
			switch {
			case i == len(p):
				match[i][j] = j == len(s)
			case p[i] == '*':
				match[i][j] = match[i+1][j] || j < len(s) && match[i][j+1]
			case j < len(s) && (p[i] == '?' || p[i] == s[j]):
				match[i][j] = match[i+1][j+1]
			}
		}
	}
	return match[0][0]
}

func asciiLower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// FuzzPattern holds the matchers of patterns and ARNs against naive ones.
func FuzzPattern(f *testing.F) {
	f.Add("a*b?c", "axxbyc")
	f.Add("arn:aws:*:*:123:stack/*", "arn:aws:appstream:us-east-1:123:stack/a:b")
	f.Add("*\u00e9?", "caf\u00e9\u0301")
	f.Add("***a", "aaa")
	f.Fuzz(func(t *testing.T, p, s string) {
		if !utf8.ValidString(p) || !utf8.ValidString(s) || len(p) > 24 || len(s) > 48 {
			t.Skip()
		}
		c := compileWild(p)
		if got, want := matchPattern(c, s, false), naiveMatch([]rune(p), []rune(s)); got != want {
			t.Errorf("%q of %q: got %v, want %v", p, s, got, want)
		}
		low := asciiLower(p)
		if got, want := matchPattern(compileWild(low), s, true), naiveMatch([]rune(low), []rune(asciiLower(s))); got != want {
			t.Errorf("%q of %q, whatever the case: got %v, want %v", low, s, got, want)
		}
		ps, ss := strings.SplitN(p, ":", 6), strings.SplitN(s, ":", 6)
		want := len(ps) == 6 && len(ss) == 6
		for i := 0; want && i < 6; i++ {
			want = naiveMatch([]rune(ps[i]), []rune(ss[i]))
		}
		if got := matchARN(c, s); got != want {
			t.Errorf("ARN %q of %q: got %v, want %v", p, s, got, want)
		}
	})
}
