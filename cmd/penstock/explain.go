package main

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"penstock.dev/penstock/internal/control/access"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/sqlite"
)

func explainCommand(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "access" {
		return explainAccess(ctx, args[1:], os.Stdout)
	}
	return errors.New("say what to explain: penstock explain access -h")
}

// accessQuestion is what `penstock explain access` asks.
type accessQuestion struct {
	principal, action string
	resources         []string
	context           map[string][]string
}

// explained is the answer for one resource.
type explained struct {
	Principal string          `json:"principal"`
	Action    string          `json:"action"`
	Resource  string          `json:"resource"`
	Allowed   bool            `json:"allowed"`
	Reason    string          `json:"reason"`
	Missing   []string        `json:"missing"`
	Steps     []explainedStep `json:"steps"`
}

type explainedStep struct {
	Layer   string `json:"layer"`
	Policy  string `json:"policy"` // its name, or its ARN
	Sid     string `json:"sid,omitempty"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Effect  string `json:"effect"`
	Applies bool   `json:"applies"`
	Decides bool   `json:"decides"`
	Why     string `json:"why,omitempty"`
}

func explainAccess(ctx context.Context, args []string, w io.Writer) error {
	fs := flag.NewFlagSet("penstock explain access", flag.ContinueOnError)
	dir := fs.String("data-dir", "./penstock-data", "`folder` of the server; it may run or not")
	asJSON := fs.Bool("json", false, "print JSON")
	q := accessQuestion{context: map[string][]string{}}
	fs.StringVar(&q.principal, "principal", "", "`who`: user/NAME, role/NAME, the ARN of one, an access key's ID, or service-role for what AppStream itself may do")
	fs.StringVar(&q.action, "action", "", "`what`, such as appstream:CreateStack")
	fs.Func("resource", "`ARN` of what it is done to; may be repeated (without: *)", func(s string) error {
		q.resources = append(q.resources, s)
		return nil
	})
	fs.Func("context", "a condition key of the request, `KEY=VALUE`; may be repeated", func(s string) error {
		k, v, ok := strings.Cut(s, "=")
		if !ok || !strings.Contains(k, ":") {
			return fmt.Errorf("%q is not KEY=VALUE with a key such as aws:SourceIp", s)
		}
		q.context[k] = append(q.context[k], v)
		return nil
	})
	if err := fs.Parse(args); err != nil {
		return err
	}
	switch {
	case fs.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case q.principal == "" || q.action == "":
		return errors.New("--principal and --action are needed")
	case !strings.Contains(q.action, ":"):
		return fmt.Errorf("--action %q has no service before a colon, as appstream:CreateStack has", q.action)
	}
	answers, err := askAccess(ctx, *dir, q)
	if err != nil {
		return err
	}
	if *asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(answers)
	}
	for _, a := range answers {
		a.print(w)
	}
	return nil
}

func (a *explained) print(w io.Writer) {
	verdict := "DENIED"
	if a.Allowed {
		verdict = "ALLOWED"
	}
	fmt.Fprintf(w, "%s: %s may %s on %s\n", verdict, a.Principal, a.Action, a.Resource)
	if !a.Allowed {
		fmt.Fprintf(w, "  %s\n", a.Reason)
	} else if a.Reason != "" {
		fmt.Fprintf(w, "  %s\n", a.Reason)
	}
	for _, s := range a.Steps {
		mark := " "
		if s.Decides {
			mark = "*"
		}
		name := s.Policy
		if s.Sid != "" {
			name += " (" + s.Sid + ")"
		}
		what := "applies"
		if !s.Applies {
			what = "does not apply: " + s.Why
		}
		fmt.Fprintf(w, "%s %-5s %s %s, line %d, column %d: %s\n", mark, s.Effect, s.Layer, name, s.Line, s.Column, what)
	}
	if len(a.Steps) == 0 && !a.Allowed {
		fmt.Fprintln(w, "  there is no policy at all")
	}
	if len(a.Missing) > 0 {
		fmt.Fprintf(w, "  not known here, and asked for by policies: %s (give them with --context)\n", strings.Join(a.Missing, ", "))
	}
}

// askAccess asks the running server or, when none runs, the state in the data directory.
func askAccess(ctx context.Context, dir string, q accessQuestion) ([]explained, error) {
	v := url.Values{"principal": {q.principal}, "action": {q.action}, "resource": q.resources}
	for k, values := range q.context {
		for _, val := range values {
			v.Add("context", k+"="+val)
		}
	}
	var out struct {
		Error   string      `json:"error"`
		Answers []explained `json:"answers"`
	}
	err := askAdmin(ctx, dir, "/explain/access?"+v.Encode(), &out)
	if notRunning(err) {
		return offlineAccess(ctx, dir, q)
	}
	if err == nil && out.Error != "" {
		err = errors.New(out.Error)
	}
	return out.Answers, err
}

func offlineAccess(ctx context.Context, dir string, q accessQuestion) ([]explained, error) {
	s, done, err := openAccess(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer done()
	return answerAccess(ctx, s, q)
}

// openAccess opens the identities of a data directory on which no server runs.
func openAccess(ctx context.Context, dir string) (s *access.Service, done func(), err error) {
	if _, err := os.Stat(filepath.Join(dir, "state.db")); err != nil {
		return nil, nil, fmt.Errorf("%s holds no state of a server: %w", dir, err)
	}
	unlock, err := sqlite.Lock(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("data directory %s: %w", dir, err)
	}
	id, err := readIdentity(dir)
	if err != nil {
		return nil, nil, errors.Join(err, unlock())
	}
	if id.Sealed != nil { // policies are not secret: what is opened with the seed is not looked at here
		id.Seed = make([]byte, ed25519.SeedSize)
	}
	store, err := sqlite.Open(ctx, sqlite.Options{Path: filepath.Join(dir, "state.db")})
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open state: %w", err), unlock())
	}
	done = func() { _ = errors.Join(store.Close(), unlock()) } // nothing was written
	if s, err = access.New(access.Options{Store: store, AccountID: id.AccountID, Seed: id.Seed, Root: id.root(), Region: devRegion}); err != nil {
		done()
		return nil, nil, err
	}
	return s, done, nil
}

// accessHandler answers `penstock explain access` on the operator's socket.
func accessHandler(s *access.Service) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := r.URL.Query()
		q := accessQuestion{principal: v.Get("principal"), action: v.Get("action"), resources: v["resource"], context: map[string][]string{}}
		for _, c := range v["context"] {
			k, val, _ := strings.Cut(c, "=")
			q.context[k] = append(q.context[k], val)
		}
		out := map[string]any{}
		answers, err := answerAccess(r.Context(), s, q)
		out["answers"] = answers
		if err != nil {
			out["error"] = err.Error() // the operator may read everything
		}
		writeJSON(w, out)
	}
}

func answerAccess(ctx context.Context, s *access.Service, q accessQuestion) ([]explained, error) {
	set, who, tags, err := s.PrincipalPolicies(ctx, q.principal)
	if err != nil {
		if f, ok := errors.AsType[*fault.Error](err); ok {
			err = errors.New(f.Reason)
		}
		return nil, err
	}
	r := iam.Request{Principal: who, Action: q.action, Region: devRegion, PrincipalTags: tags, Time: time.Now(), Keys: map[string][]string{}}
	for k, v := range q.context {
		r.Keys[iam.LowerKey(k)] = v
	}
	if len(q.resources) == 0 {
		q.resources = []string{"*"}
	}
	var out []explained
	for _, resource := range q.resources {
		e := explained{Principal: who.ARN(), Action: q.action, Resource: resource, Missing: []string{}, Steps: []explainedStep{}}
		if who.Kind == iam.Root {
			e.Allowed, e.Reason = true, "No policy limits the account's root."
			out = append(out, e)
			continue
		}
		x := set.Explain(&r, resource)
		e.Allowed, e.Reason, e.Missing = x.Allowed, x.Reason, append(e.Missing, x.Missing...)
		for _, st := range x.Steps {
			step := explainedStep{
				Layer: st.Layer.String(), Policy: st.Policy.Name, Sid: st.Sid, Line: st.Line, Column: st.Column, Effect: "Deny",
				Applies: st.Applies, Why: st.Why, Decides: st.Applies && (!st.Allow || !x.Explicit),
			}
			if st.Policy.ARN != "" {
				step.Policy = st.Policy.ARN
			}
			if st.Allow {
				step.Effect = "Allow"
			}
			e.Steps = append(e.Steps, step)
		}
		out = append(out, e)
	}
	return out, nil
}
