package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"penstock.dev/penstock/internal/iam"
)

func lines(t *testing.T, n int) ([]string, []Head) {
	t.Helper()
	var out []string
	var heads []Head
	var h Head
	for i := range n {
		e := Event{Source: AppStreamSource, Name: fmt.Sprintf("Event%d", i+1), Request: json.RawMessage(`{"chain":{"sequence":9}}`)}
		body, err := e.Encode(Origin{ID: "id", Now: time.Unix(1_800_000_000, 0), Region: "us-east-1", Account: "123456789012"})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(h.Append(nil, body)))
		heads = append(heads, h)
	}
	return out, heads
}

func verify(text string, recorded ...Head) (*Result, error) {
	return Verify([]File{{"audit", strings.NewReader(text)}}, recorded...)
}

// TestChainShowsEveryChange: whatever is done to a log but adding to its end is found, and the place is named.
func TestChainShowsEveryChange(t *testing.T) {
	t.Parallel()
	l, heads := lines(t, 6)
	join := func(parts ...string) string { return strings.Join(parts, "") }
	whole := join(l...)
	recorded := heads[5]
	r, err := verify(whole, recorded)
	if err != nil || r.Events != 6 || r.Last != recorded || r.First.Sequence != 1 || r.Torn != 0 || len(r.Reached) != 1 {
		t.Fatalf("got %+v (%v)", r, err)
	}
	// A line with another number and hash, made by one who knows how.
	forged := heads[1]
	again := forged.Append(nil, []byte(`{"eventName":"Nothing"}`))
	rest := join(l[3:]...)
	var rewritten string
	for range 3 {
		rewritten += string(forged.Append(nil, []byte(`{"eventName":"Nothing"}`)))
	}
	for _, tc := range []struct {
		name, text, says string
		line             int
	}{
		{"a word is edited", strings.Replace(whole, "Event3", "Event9", 1), "content was changed", 3},
		{"a space is added", strings.Replace(whole, `"Event2"`, ` "Event2"`, 1), "content was changed", 2},
		{"the number is edited", strings.Replace(whole, `"sequence":2,`, `"sequence":3,`, 1), "content was changed", 2},
		{"a hash is in capitals", strings.Replace(whole, heads[2].Hash.String()+chainEnd, strings.ToUpper(heads[2].Hash.String())+chainEnd, 1), "no chain member", 3},
		{"an event is deleted", join(l[0], l[1], rest), "event 4 follows event 2", 3},
		{"an event stands twice", join(l[0], l[1], l[1], l[2], rest), "event 2 follows event 2", 3},
		{"two events are swapped", join(l[0], l[2], l[1], rest), "event 3 follows event 1", 2},
		{"the first event is deleted", join(l[1:]...), "begins with event 2", 1},
		{"the end is cut off", join(l[:4]...), "the end was cut off", 4},
		{"everything is cut off", "", "the end was cut off", 0},
		{"an event is replaced with its hash", join(l[0], l[1], string(again), rest), "that one was replaced", 4},
		{"the end is written anew", join(l[0], l[1], string(again), rewritten), "not the one that a recorded head names", 0},
		{"an empty line", join(l[0], "\n", whole[len(l[0]):]), "no chain member", 2},
		{"another object behind", join(l[0], `{"a":1}`+"\n"), "no chain member", 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			_, err := verify(tc.text, recorded)
			p, ok := errors.AsType[*ProblemError](err)
			if !ok || !strings.Contains(p.Text, tc.says) || tc.line > 0 && p.Line != tc.line {
				t.Errorf("got %v, want line %d and %q", err, tc.line, tc.says)
			}
		})
	}
	if r, err := verify(whole[:len(whole)-9]); err != nil || r.Torn == 0 || r.Events != 5 {
		t.Errorf("a torn end: got %+v (%v)", r, err)
	}
	if _, err := Verify([]File{{"one", strings.NewReader(whole[:len(whole)-9])}, {"two", strings.NewReader(l[5])}}); err == nil {
		t.Error("a file that ends within a line is followed by another")
	}
	if r, err := Verify([]File{{"one", strings.NewReader(join(l[:3]...))}, {"two", strings.NewReader(rest)}}, heads[2]); err != nil || r.Events != 6 {
		t.Errorf("two files: got %+v (%v)", r, err)
	}
}

func TestHeadText(t *testing.T) {
	t.Parallel()
	_, heads := lines(t, 3)
	if h, err := ParseHead(heads[2].String() + "\n"); err != nil || h != heads[2] {
		t.Errorf("got %v (%v)", h, err)
	}
	for _, s := range []string{"", "3", "3:", "x:00", "-1:" + heads[0].Hash.String(), "3:" + heads[0].Hash.String() + "00"} {
		if _, err := ParseHead(s); err == nil {
			t.Errorf("%q was read", s)
		}
	}
}

// TestEventsAreBounded: what strangers send cannot make long lines, and nothing breaks the line or its encoding.
func TestEventsAreBounded(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ü\n", 100_000)
	e := Event{
		Source: long, Name: long, SourceIP: long, UserAgent: long + "\xff", ErrorCode: long, ErrorText: long, RequestID: long, Unproved: true,
		Identity: Identity{UserName: long, AccessKeyID: long}, Request: json.RawMessage(`"` + strings.Repeat("x", 70<<10) + `"`),
	}
	body, err := e.Encode(Origin{Now: time.Unix(0, 0)})
	if err != nil || len(body) > 8<<10 || !json.Valid(body) || strings.Contains(string(body), "\n") {
		t.Errorf("got %d bytes (%v)", len(body), err)
	}
	var back map[string]any
	if err := json.Unmarshal(body, &back); err != nil || back["eventType"] != "AwsServiceEvent" || back["userIdentity"].(map[string]any)["type"] != "Unknown" {
		t.Errorf("got %v (%v)", back, err)
	}
}

func TestIdentities(t *testing.T) {
	t.Parallel()
	const account = "123456789012"
	for _, tc := range []struct {
		c    iam.Credential
		want string
	}{
		{iam.Credential{AccessKeyID: "AKIA1", Secret: "no", Principal: iam.RootOf(account)}, `{"type":"Root","principalId":"123456789012","arn":"arn:aws:iam::123456789012:root","accountId":"123456789012","accessKeyId":"AKIA1"}`},
		{iam.Credential{AccessKeyID: "AKIA2", Secret: "no", Principal: iam.Principal{Kind: iam.User, AccountID: account, Name: "ann", ID: "AIDA1"}}, `{"type":"IAMUser","principalId":"AIDA1","arn":"arn:aws:iam::123456789012:user/ann","accountId":"123456789012","accessKeyId":"AKIA2","userName":"ann"}`},
		{
			iam.Credential{AccessKeyID: "ASIA3", Secret: "no", SessionToken: "no", Session: &iam.Session{Issued: time.Unix(0, 0)}, Principal: iam.Principal{Kind: iam.RoleSession, AccountID: account, Path: "/p/", Name: "r", Session: "s", ID: "AROA1"}},
			`{"type":"AssumedRole","principalId":"AROA1:s","arn":"arn:aws:sts::123456789012:assumed-role/r/s","accountId":"123456789012","accessKeyId":"ASIA3",` +
				`"sessionContext":{"sessionIssuer":{"type":"Role","principalId":"AROA1","arn":"arn:aws:iam::123456789012:role/p/r","accountId":"123456789012","userName":"r"},` +
				`"attributes":{"creationDate":"1970-01-01T00:00:00Z","mfaAuthenticated":"false"}}}`,
		},
	} {
		b, err := json.Marshal(Identify(tc.c))
		if err != nil || string(b) != tc.want {
			t.Errorf("got  %s (%v)\nwant %s", b, err, tc.want)
		}
	}
}

// FuzzVerify wants no panic, and that only what Append wrote is accepted.
func FuzzVerify(f *testing.F) {
	var h Head
	one := string(h.Append(nil, []byte(`{"a":1}`)))
	two := one + string(h.Append(nil, []byte(`{"b":"RetireAuditFiles"}`)))
	f.Add(one, "")
	f.Add(two, one)
	f.Add(strings.Replace(two, "1", "2", 1), "{}\n")
	f.Fuzz(func(t *testing.T, a, b string) {
		r, err := Verify([]File{{"a", strings.NewReader(a)}, {"b", strings.NewReader(b)}})
		if err != nil || r.Events == 0 {
			return
		}
		var again Head
		text := ""
		for line := range strings.SplitAfterSeq(a+b, "\n") {
			if !strings.HasSuffix(line, "\n") {
				break
			}
			body, _, _ := strings.Cut(line, fmt.Sprintf("%s%d%s", chainStart, again.Sequence+1, chainPrev+again.Hash.String()+chainHash))
			text += string(again.Append(nil, []byte(body+"}")))
		}
		if !strings.HasPrefix(a+b, text) || uint64(len(text)+r.Torn) != uint64(len(a+b)) {
			t.Fatalf("accepted %q, and Append writes %q", a+b, text)
		}
	})
}
