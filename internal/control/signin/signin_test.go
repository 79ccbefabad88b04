package signin_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/argon"
	"penstock.dev/penstock/internal/audit"
	"penstock.dev/penstock/internal/control/signin"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/sqlite"
	"penstock.dev/penstock/internal/state"
)

const (
	ann      = "ann@example.com"
	password = "violet tramway kettle 41"
	other    = "granite lantern Oslo bread"
)

var here = signin.Client{Source: "192.0.2.7", Agent: "test"}

// outbox is a mail server's front: it keeps what it took.
type outbox struct {
	mu    sync.Mutex
	mails []signin.Mail
	fail  error
}

func (o *outbox) Send(_ context.Context, m signin.Mail) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.fail != nil {
		return o.fail
	}
	o.mails = append(o.mails, m)
	return nil
}

func (o *outbox) all() []signin.Mail {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.mails)
}

func (o *outbox) failWith(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.fail = err
}

// clock is time that a test moves.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// rig is a service that runs, on a store of its own.
type rig struct {
	*signin.Service
	t       *testing.T
	ctx     context.Context
	options signin.Options
	stop    func()
	store   state.Store
	out     *outbox
	clock   *clock
	mu      sync.Mutex
	events  []audit.Event
}

func newRig(t *testing.T, change ...func(*signin.Options)) *rig {
	t.Helper()
	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	r := &rig{t: t, store: store, out: &outbox{}, clock: &clock{t: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)}}
	o := signin.Options{
		Store: store, Seed: make([]byte, 32), Hasher: argon.New(argon.Options{MemoryKiB: 64}), Mailer: r.out, PublicURL: "https://portal.example",
		Now: r.clock.now, Audit: r,
	}
	for _, c := range change {
		c(&o)
	}
	r.options = o
	r.start()
	t.Cleanup(func() { r.stop() })
	var stop context.CancelFunc
	r.ctx, stop = context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(stop)
	return r
}

// start runs a new service on the store.
func (r *rig) start() {
	r.t.Helper()
	var err error
	if r.Service, err = signin.New(r.options); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	service := r.Service
	go func() { ended <- service.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Errorf("Run: %v", err)
		}
	})
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// mail waits for the n-th mail that goes out, from 1.
func (r *rig) mail(n int) signin.Mail {
	r.t.Helper()
	for r.ctx.Err() == nil {
		if all := r.out.all(); len(all) >= n {
			return all[n-1]
		}
		time.Sleep(time.Millisecond)
	}
	r.t.Fatalf("mail %d was not sent", n)
	return signin.Mail{}
}

var codePattern = regexp.MustCompile(`(?m)^  (?:temporary password|code)  (\S+)$`)

// codeIn is the temporary password or the code that a mail tells.
func (r *rig) codeIn(m signin.Mail) string {
	r.t.Helper()
	found := codePattern.FindStringSubmatch(m.Text)
	if found == nil {
		r.t.Fatalf("the mail tells no password or code:\n%s", m.Text)
	}
	return found[1]
}

// user makes a user who chose a password.
func (r *rig) user(name, password string) signin.Token {
	r.t.Helper()
	n := len(r.out.all())
	r.must(r.CreateUser(r.ctx, signin.NewUser{Name: name}))
	t, err := r.PasswordSignIn(r.ctx, name, r.codeIn(r.mail(n+1)), here, "")
	r.must(err)
	t, err = r.ChooseNewPassword(r.ctx, t.Value, password, here)
	r.must(err)
	return t
}

func (r *rig) stack(name string) {
	r.t.Helper()
	_, err := r.store.Update(r.ctx, func(tx state.Tx) error { return appstream.Stacks.Put(tx, &appstream.Stack{Name: name}) })
	r.must(err)
}

func code(err error) string {
	if r, ok := errors.AsType[*signin.Refusal](err); ok {
		return r.Code
	}
	return fmt.Sprint(err)
}

func wantCode(t *testing.T, what string, err error, want string) {
	t.Helper()
	if got := code(err); got != want {
		t.Errorf("%s: got %s, want %s", what, got, want)
	}
}

func TestFirstSignInChoosesAPassword(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.must(r.CreateUser(r.ctx, signin.NewUser{Name: ann, FirstName: new("Ann"), LastName: new("Lee")}))
	m := r.mail(1)
	if m.To != ann || !strings.Contains(m.Text, "Hello Ann Lee,") || !strings.Contains(m.Text, "https://portal.example") {
		t.Errorf("welcome mail: got %+v", m)
	}
	temporary := r.codeIn(m)
	first, err := r.PasswordSignIn(r.ctx, ann, strings.ToLower(strings.ReplaceAll(temporary, "-", "")), here, "")
	r.must(err)
	if first.Step != signin.StepNewPassword {
		t.Fatalf("after a temporary password: got step %s", first.Step)
	}
	_, err = r.ChangePassword(r.ctx, first.Value, temporary, password, here)
	wantCode(t, "an unfinished sign-in changes a password", err, signin.CodeStep)
	for what, bad := range map[string]string{
		"short": "abc def ghi", "the temporary one": temporary, "a word": "passwordpassword", "rows of keys": "qwertyuiop1234567890",
		"the own name": "ann-example-com-ann-lee", "repetitions": "aaaabbbbccccdddd", "control characters": "violet\ttramway kettle", "long": strings.Repeat("violet tramway ", 20),
	} {
		_, err := r.ChooseNewPassword(r.ctx, first.Value, bad, here)
		wantCode(t, what, err, signin.CodeWeak)
	}
	second, err := r.ChooseNewPassword(r.ctx, first.Value, password, here)
	r.must(err)
	if second.Step != signin.StepDone || second.Value == first.Value {
		t.Errorf("after the new password: got %+v, want another token that is done", second)
	}
	if _, err := r.Lookup(r.ctx, first.Value); code(err) != signin.CodeEnded {
		t.Errorf("the token from before: got %v, want that it ended", err)
	}
	si, err := r.Lookup(r.ctx, second.Value)
	r.must(err)
	if si.Visitor.Auth != appstream.AuthUserPool || si.Visitor.UserID != ann {
		t.Errorf("visitor: got %+v", si.Visitor)
	}
	if us, _, err := r.Users(r.ctx, "", 10); err != nil || len(us) != 1 || us[0].Status != appstream.UserConfirmed {
		t.Errorf("users: got %+v (%v), want one that is CONFIRMED", us, err)
	}
	_, err = r.PasswordSignIn(r.ctx, ann, temporary, here, "")
	wantCode(t, "the temporary password again", err, signin.CodeWrong)
	third, err := r.PasswordSignIn(r.ctx, ann, password, here, second.Value)
	r.must(err)
	if _, err := r.Lookup(r.ctx, second.Value); code(err) != signin.CodeEnded {
		t.Errorf("the browser's earlier sign-in: got %v, want that it ended", err)
	}
	if third.Step != signin.StepDone {
		t.Errorf("got step %s", third.Step)
	}
}

func TestTemporaryPasswordExpires(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.must(r.CreateUser(r.ctx, signin.NewUser{Name: ann}))
	temporary := r.codeIn(r.mail(1))
	r.clock.pass(7*24*time.Hour - time.Second)
	_, err := r.PasswordSignIn(r.ctx, ann, temporary, here, "")
	r.must(err)
	r.clock.pass(time.Second)
	_, err = r.PasswordSignIn(r.ctx, ann, temporary, here, "")
	wantCode(t, "after 7 days", err, signin.CodeExpired)
	_, err = r.PasswordSignIn(r.ctx, ann, "not the password", here, "")
	wantCode(t, "a wrong password after 7 days", err, signin.CodeWrong)
	r.must(r.CreateUser(r.ctx, signin.NewUser{Name: ann, Message: signin.Resend}))
	fresh := r.codeIn(r.mail(2))
	if fresh == temporary {
		t.Error("RESEND sent the same password")
	}
	if _, err := r.PasswordSignIn(r.ctx, ann, fresh, here, ""); err != nil {
		t.Errorf("after RESEND: %v", err)
	}
}

func TestPool(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *signin.Options) { o.UserQuota = 3 })
	for _, bad := range []string{"ann", "ann@", "@example.com", "Ann <ann@example.com>", "ann@example.com, bob@example.com", "a b@example.com", "ann@example"} {
		if err := r.CreateUser(r.ctx, signin.NewUser{Name: bad}); !fault.Is(err, fault.Invalid) {
			t.Errorf("name %q: got %v", bad, err)
		}
	}
	r.must(r.CreateUser(r.ctx, signin.NewUser{Name: ann, Message: signin.Suppress}))
	for _, tc := range []struct {
		name string
		user signin.NewUser
		want fault.Kind
	}{
		{"again", signin.NewUser{Name: ann}, fault.AlreadyExists},
		{"resend with a name", signin.NewUser{Name: ann, Message: signin.Resend, FirstName: new("Ann")}, fault.Combination},
		{"resend to nobody", signin.NewUser{Name: "bob@example.com", Message: signin.Resend}, fault.Combination},
	} {
		if err := r.CreateUser(r.ctx, tc.user); !fault.Is(err, tc.want) {
			t.Errorf("%s: got %v, want kind %d", tc.name, err, tc.want)
		}
	}
	if _, err := r.PasswordSignIn(r.ctx, ann, "", here, ""); code(err) != signin.CodeWrong {
		t.Errorf("a user without a password: got %v", err)
	}
	// Names are case-sensitive.
	r.must(r.CreateUser(r.ctx, signin.NewUser{Name: "Ann@example.com"}))
	r.must(r.CreateUser(r.ctx, signin.NewUser{Name: "bob@example.com"}))
	if err := r.CreateUser(r.ctx, signin.NewUser{Name: "cat@example.com"}); !fault.Is(err, fault.Limit) {
		t.Errorf("over the quota: got %v", err)
	}
	page, next, err := r.Users(r.ctx, "", 2)
	r.must(err)
	rest, end, err := r.Users(r.ctx, next, 2)
	r.must(err)
	if len(page) != 2 || len(rest) != 1 || end != "" || page[0].Name != "Ann@example.com" || rest[0].Name != "bob@example.com" {
		t.Errorf("pages: got %d and %d users, next %q and %q", len(page), len(rest), next, end)
	}
	r.must(r.DeleteUser(r.ctx, "bob@example.com"))
	for name, err := range map[string]error{
		"delete":  r.DeleteUser(r.ctx, "bob@example.com"),
		"enable":  r.SetUserEnabled(r.ctx, "bob@example.com", true),
		"disable": r.SetUserEnabled(r.ctx, "bob@example.com", false),
	} {
		if !fault.Is(err, fault.NotFound) {
			t.Errorf("%s a user who is gone: got %v", name, err)
		}
	}
}

func TestAssociations(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.stack("s1")
	r.stack("s2")
	r.must(r.CreateUser(r.ctx, signin.NewUser{Name: ann, Message: signin.Suppress}))
	failed, err := r.Associate(r.ctx, []signin.Link{
		{User: ann, Stack: "s1"}, {User: ann, Stack: "none"}, {User: "bob@example.com", Stack: "s1"}, {User: ann, Stack: "s2", Notify: true}, {User: ann, Stack: "s1"},
	})
	r.must(err)
	var codes []string
	for _, f := range failed {
		codes = append(codes, f.Stack+" "+f.Code)
	}
	if want := []string{"none STACK_NOT_FOUND", "s1 USER_NAME_NOT_FOUND"}; !slices.Equal(codes, want) {
		t.Errorf("errors: got %v, want %v", codes, want)
	}
	if m := r.mail(1); !strings.Contains(m.Text, "s2") {
		t.Errorf("mail about s2: got %s", m.Text)
	}
	links, _, err := r.Links(r.ctx, "", ann, "", 10)
	r.must(err)
	if len(links) != 2 || links[0].StackName != "s1" || links[1].StackName != "s2" {
		t.Errorf("of the user: got %v", links)
	}
	if one, _, err := r.Links(r.ctx, "s2", ann, "", 10); err != nil || len(one) != 1 {
		t.Errorf("of both: got %v (%v)", one, err)
	}
	if _, err := r.Disassociate(r.ctx, []signin.Link{{User: ann, Stack: "s1"}}); err != nil {
		t.Error(err)
	}
	if left, _, err := r.Links(r.ctx, "s1", "", "", 10); err != nil || len(left) != 0 {
		t.Errorf("after the end of an association: got %v (%v)", left, err)
	}
	r.must(r.DeleteUser(r.ctx, ann))
	if left, _, err := r.Links(r.ctx, "s2", "", "", 10); err != nil || len(left) != 0 {
		t.Errorf("of a user who is gone: got %v (%v)", left, err)
	}
}

func TestDisabledUserIsOut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	token := r.user(ann, password)
	r.must(r.SetUserEnabled(r.ctx, ann, false))
	if _, err := r.Lookup(r.ctx, token.Value); code(err) != signin.CodeEnded {
		t.Errorf("a disabled user's sign-in: got %v, want that it ended", err)
	}
	_, err := r.PasswordSignIn(r.ctx, ann, password, here, "")
	wantCode(t, "the right password", err, signin.CodeDisabled)
	_, err = r.PasswordSignIn(r.ctx, ann, other, here, "")
	wantCode(t, "a wrong password", err, signin.CodeWrong)
	r.must(r.SetUserEnabled(r.ctx, ann, true))
	if _, err := r.Lookup(r.ctx, token.Value); code(err) != signin.CodeEnded {
		t.Errorf("a sign-in from before: got %v, want that it stays ended", err)
	}
	if _, err := r.PasswordSignIn(r.ctx, ann, password, here, ""); err != nil {
		t.Errorf("an enabled user: %v", err)
	}
	token = r.user("bob@example.com", password)
	r.must(r.DeleteUser(r.ctx, "bob@example.com"))
	r.must(r.CreateUser(r.ctx, signin.NewUser{Name: "bob@example.com"}))
	if _, err := r.Lookup(r.ctx, token.Value); code(err) != signin.CodeEnded {
		t.Errorf("the sign-in of a user who was deleted and made again: got %v", err)
	}
}

func TestSignInEnds(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(ann, password)
	sign := func() string {
		token, err := r.PasswordSignIn(r.ctx, ann, password, here, "")
		r.must(err)
		return token.Value
	}
	live := func(what, token string, want bool) {
		t.Helper()
		if _, err := r.Lookup(r.ctx, token); (err == nil) != want || err != nil && code(err) != signin.CodeEnded {
			t.Errorf("%s: got %v, want live %v", what, err, want)
		}
	}
	idle := sign()
	r.clock.pass(signin.DefaultIdle - time.Second)
	live("just before it is idle", idle, true)
	r.clock.pass(signin.DefaultIdle - time.Second)
	live("used since", idle, true)
	r.clock.pass(signin.DefaultIdle)
	live("idle", idle, false)
	long := sign()
	for range int(signin.DefaultLife/time.Hour) - 1 {
		r.clock.pass(time.Hour)
		live("used each hour", long, true)
	}
	r.clock.pass(time.Hour)
	live("at the end of its life", long, false)
	one, two := sign(), sign()
	r.must(r.SignOut(r.ctx, one, false, here))
	live("signed out", one, false)
	live("another browser's", two, true)
	one = sign()
	r.must(r.SignOut(r.ctx, one, true, here))
	live("signed out everywhere", two, false)
	for _, bad := range []string{"", "x", strings.Repeat("A", 43), strings.Repeat("A", 1<<20)} {
		live("what is no token", bad, false)
	}
	r.must(r.Purge(r.ctx))
	left, err := state.Read(r.ctx, r.store, func(rd state.Reader) (int, error) { return rd.Count("sign-in", state.Key{}) })
	if err != nil || left != 0 {
		t.Errorf("left in the store: %d (%v)", left, err)
	}
}

// TestFailuresOutliveARestart: who waits goes on waiting after a restart, and the store does not tell what names were tried.
func TestFailuresOutliveARestart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(ann, password)
	attacker := signin.Client{Source: "198.51.100.1"}
	for range 7 {
		_, _ = r.PasswordSignIn(r.ctx, ann, "a wrong password", attacker, "") // the clock stands: the last ones wait
	}
	_, err := r.PasswordSignIn(r.ctx, "hunter2-hunter2", "x", attacker, "")
	wantCode(t, "a name that nobody has", err, signin.CodeWrong)
	for range 3 {
		r.stop()
		r.start()
		_, err = r.PasswordSignIn(r.ctx, ann, password, attacker, "")
		wantCode(t, "the right password after a restart", err, signin.CodeWait)
	}
	r.must(r.store.View(r.ctx, func(rd state.Reader) error {
		docs, err := rd.List("sign-in-failure", state.Query{})
		if err != nil {
			return err
		}
		if len(docs) == 0 {
			t.Error("no count is in the store")
		}
		for _, d := range docs {
			if text := fmt.Sprintf("%s %s", d.ID, d.Body); strings.Contains(text, "hunter2") || strings.Contains(text, ann) || strings.Contains(text, attacker.Source) {
				t.Errorf("a count tells what it is for: %s", text)
			}
		}
		return nil
	}))
	r.clock.pass(25 * time.Hour)
	if _, err := r.PasswordSignIn(r.ctx, ann, password, attacker, ""); err != nil {
		t.Errorf("a day later: %v", err)
	}
}

func TestGuessingGetsSlower(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(ann, password)
	// The same answers for a user who exists and for one who does not.
	answers := map[string][]string{}
	for _, name := range []string{ann, "nobody@example.com"} {
		for range 8 {
			_, err := r.PasswordSignIn(r.ctx, name, "a wrong password", signin.Client{Source: "198.51.100." + map[bool]string{true: "1", false: "2"}[name == ann]}, "")
			answers[name] = append(answers[name], err.Error())
		}
	}
	if !slices.Equal(answers[ann], answers["nobody@example.com"]) {
		t.Errorf("a known and an unknown name are told apart:\n%q\n%q", answers[ann], answers["nobody@example.com"])
	}
	if !strings.Contains(answers[ann][7], "try again in 1 second") {
		t.Errorf("after the free attempts: got %q", answers[ann])
	}
	attacker := signin.Client{Source: "198.51.100.1"}
	_, err := r.PasswordSignIn(r.ctx, ann, password, attacker, "")
	wantCode(t, "the right password while waiting", err, signin.CodeWait)
	if _, err := r.PasswordSignIn(r.ctx, ann, password, here, ""); err != nil {
		t.Errorf("the user, from elsewhere: %v", err)
	}
	longest := time.Duration(0)
	for range 30 {
		_, err := r.PasswordSignIn(r.ctx, ann, "a wrong password", attacker, "")
		if refusal, ok := errors.AsType[*signin.Refusal](err); ok && refusal.Wait > 0 {
			longest = max(longest, refusal.Wait)
			r.clock.pass(refusal.Wait)
		}
	}
	if longest != 15*time.Minute {
		t.Errorf("longest wait: got %v, want 15 min", longest)
	}
	if !slices.ContainsFunc(r.acts(), func(e audit.Event) bool { return e.Name == "LockOut" && e.Identity.UserName == ann }) {
		t.Error("no lock-out was put on record")
	}
	for _, e := range r.acts() {
		if e.Identity.UserName == "nobody@example.com" {
			t.Error("a name that nobody has is on record: it may be a password in the wrong field")
		}
	}
}

func (r *rig) Ready() error { return nil }

func (r *rig) Record(e audit.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *rig) acts() []audit.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

func TestActsAreOnRecord(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	token := r.user(ann, password)
	_, _ = r.PasswordSignIn(r.ctx, ann, "a wrong password", here, "")
	_, _ = r.PasswordSignIn(r.ctx, "Tr0ub4dor&3 in the wrong field", "x", here, "")
	token, err := r.ChangePassword(r.ctx, token.Value, password, other, here)
	r.must(err)
	r.must(r.SignOut(r.ctx, token.Value, false, here))
	var got []string
	for _, e := range r.acts() {
		got = append(got, strings.TrimSpace(e.Name+" "+e.Identity.UserName+" "+e.ErrorCode))
		if e.SourceIP != here.Source || e.Source != audit.SignInSource || (e.ErrorCode != "") != e.Unproved {
			t.Errorf("got %+v", e)
		}
		line := fmt.Sprintf("%+v", e)
		for _, secret := range []string{password, other, "Tr0ub4dor", "a wrong password", token.Value} {
			if strings.Contains(line, secret) {
				t.Errorf("%s: a secret is on record", e.Name)
			}
		}
	}
	want := []string{
		"CheckPassword " + ann, "ChangePassword " + ann, "SignIn " + ann, "SignIn " + ann + " " + signin.CodeWrong,
		"SignIn HIDDEN_DUE_TO_SECURITY_REASONS " + signin.CodeWrong, "ChangePassword " + ann, "SignOut " + ann,
	}
	if !slices.Equal(got, want) {
		t.Errorf("on record:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestSprayingAndManySources(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.user(ann, password)
	spray := signin.Client{Source: "2001:db8::1"}
	waited := false
	for i := range 40 {
		spray.Source = fmt.Sprintf("2001:db8::%x", i+1) // one network
		_, err := r.PasswordSignIn(r.ctx, fmt.Sprintf("u%d@example.com", i), "a wrong password", spray, "")
		waited = waited || code(err) == signin.CodeWait
	}
	if !waited {
		t.Error("one source tried a password on 40 users and never had to wait")
	}
	waited = false
	for i := range 60 {
		_, err := r.PasswordSignIn(r.ctx, ann, "a wrong password", signin.Client{Source: fmt.Sprintf("203.0.113.%d", i)}, "")
		waited = waited || code(err) == signin.CodeWait
	}
	if !waited {
		t.Error("60 sources tried one user's password and never had to wait")
	}
}

func TestManyGuessesAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *signin.Options) { o.Hasher = argon.New(argon.Options{MemoryKiB: 64, Queue: 1000}) })
	r.user(ann, password)
	var looked sync.Map
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			_, err := r.PasswordSignIn(r.ctx, ann, "a wrong password", here, "")
			if code(err) == signin.CodeWrong {
				looked.Store(i, true)
			}
		})
	}
	wg.Wait()
	n := 0
	looked.Range(func(any, any) bool { n++; return true })
	if n != 5 {
		t.Errorf("of 100 guesses at one time %d were looked at, want the 5 that are free", n)
	}
}

func TestReset(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	token := r.user(ann, password)
	r.must(r.CreateUser(r.ctx, signin.NewUser{Name: "new@example.com", Message: signin.Suppress}))
	r.must(r.RequestReset("nobody@example.com", here))
	r.must(r.RequestReset("new@example.com", here))
	r.must(r.RequestReset(ann, here))
	m := r.mail(2)
	if m.To != ann {
		t.Fatalf("a mail went to %s", m.To)
	}
	reset := r.codeIn(m)
	wantCode(t, "a wrong code", r.Reset(r.ctx, ann, "WRONG-CODE", other, here), signin.CodeWrongCode)
	wantCode(t, "another user's code", r.Reset(r.ctx, "new@example.com", reset, other, here), signin.CodeWrongCode)
	wantCode(t, "a weak password", r.Reset(r.ctx, ann, reset, "short", here), signin.CodeWeak)
	r.must(r.Reset(r.ctx, ann, strings.ToLower(reset), other, here))
	wantCode(t, "the code again", r.Reset(r.ctx, ann, reset, password, here), signin.CodeWrongCode)
	if _, err := r.Lookup(r.ctx, token.Value); code(err) != signin.CodeEnded {
		t.Errorf("a sign-in from before: got %v, want that it ended", err)
	}
	_, err := r.PasswordSignIn(r.ctx, ann, password, here, "")
	wantCode(t, "the old password", err, signin.CodeWrong)
	if _, err := r.PasswordSignIn(r.ctx, ann, other, here, ""); err != nil {
		t.Errorf("the new password: %v", err)
	}
	r.clock.pass(time.Hour)
	r.must(r.RequestReset(ann, here))
	reset = r.codeIn(r.mail(3))
	r.clock.pass(24 * time.Hour)
	wantCode(t, "after 24 h", r.Reset(r.ctx, ann, reset, password, here), signin.CodeWrongCode)
	r.must(r.RequestReset(ann, here))
	reset = r.codeIn(r.mail(4))
	for i := range 5 {
		_ = r.Reset(r.ctx, ann, "WRONG", password, signin.Client{Source: fmt.Sprintf("203.0.113.%d", i)})
	}
	wantCode(t, "after 5 wrong codes", r.Reset(r.ctx, ann, reset, password, here), signin.CodeWrongCode)
	if got := len(r.out.all()); got != 4 {
		t.Errorf("%d mails went out, want 4: users without a password of their own get none", got)
	}
}

func TestSecondFactor(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(o *signin.Options) { o.SecondFactor = signin.FactorRequired })
	first := r.user(ann, password)
	if first.Step != signin.StepEnrol {
		t.Fatalf("where a second factor is required: got step %s", first.Step)
	}
	e, err := r.Enrol(r.ctx, first.Value)
	r.must(err)
	again, err := r.Enrol(r.ctx, first.Value)
	r.must(err)
	if again != e || !strings.HasPrefix(e.URI, "otpauth://totp/Penstock:ann@example.com?") {
		t.Errorf("enrolment: got %+v, then %+v", e, again)
	}
	_, err = r.ConfirmFactor(r.ctx, first.Value, "000000", here)
	wantCode(t, "a wrong code", err, signin.CodeWrongCode)
	second, err := r.ConfirmFactor(r.ctx, first.Value, signin.CodeOf(e.Secret, r.clock.now()), here)
	r.must(err)
	if second.Step != signin.StepDone || len(second.RecoveryCodes) != 10 || second.Value == first.Value {
		t.Fatalf("after the enrolment: got %+v", second)
	}
	sign := func() string {
		t.Helper()
		token, err := r.PasswordSignIn(r.ctx, ann, password, here, "")
		r.must(err)
		if token.Step != signin.StepFactor {
			t.Fatalf("got step %s, want that a code is asked for", token.Step)
		}
		return token.Value
	}
	token := sign()
	_, err = r.CheckFactor(r.ctx, token, signin.CodeOf(e.Secret, r.clock.now()), here)
	wantCode(t, "the code that enrolled, again", err, signin.CodeWrongCode)
	r.clock.pass(30 * time.Second)
	now := signin.CodeOf(e.Secret, r.clock.now())
	done, err := r.CheckFactor(r.ctx, token, now[:3]+" "+now[3:], here)
	r.must(err)
	if _, err := r.Lookup(r.ctx, done.Value); err != nil || done.Step != signin.StepDone {
		t.Errorf("after the code: got %+v (%v)", done, err)
	}
	_, err = r.CheckFactor(r.ctx, sign(), now, here)
	wantCode(t, "the same code in another browser", err, signin.CodeWrongCode)
	r.clock.pass(5 * time.Minute)
	_, err = r.CheckFactor(r.ctx, sign(), signin.CodeOf(e.Secret, r.clock.now().Add(-time.Minute)), here)
	wantCode(t, "a code of a minute ago", err, signin.CodeWrongCode)
	if _, err := r.CheckFactor(r.ctx, sign(), signin.CodeOf(e.Secret, r.clock.now().Add(-30*time.Second)), here); err != nil {
		t.Errorf("a code of 30 s ago, from a clock that is late: %v", err)
	}
	if _, err := r.CheckFactor(r.ctx, sign(), strings.ToLower(second.RecoveryCodes[3]), here); err != nil {
		t.Errorf("a recovery code: %v", err)
	}
	_, err = r.CheckFactor(r.ctx, sign(), second.RecoveryCodes[3], here)
	wantCode(t, "a recovery code again", err, signin.CodeWrongCode)
	if a, err := r.Account(r.ctx, done.Value); err != nil || !a.SecondFactor || a.RecoveryCodes != 9 || a.FactorRemovable {
		t.Errorf("account: got %+v (%v)", a, err)
	}
	if err := r.RemoveFactor(r.ctx, done.Value, password, here); !fault.Is(err, fault.NotPermitted) {
		t.Errorf("removing a factor that is required: got %v", err)
	}
	r.clock.pass(time.Hour)
	waited := false
	for range 20 {
		_, err := r.CheckFactor(r.ctx, sign(), "123123", here)
		waited = waited || code(err) == signin.CodeWait
	}
	if !waited {
		t.Error("20 wrong codes and no waiting")
	}
	r.must(r.ResetFactor(r.ctx, ann))
	if token, err := r.PasswordSignIn(r.ctx, ann, password, here, ""); err != nil || token.Step != signin.StepEnrol {
		t.Errorf("after the operator's help: got %+v (%v), want another enrolment", token, err)
	}
}

func TestFactorOfOnesOwn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	mine := r.user(ann, password)
	elsewhere, err := r.PasswordSignIn(r.ctx, ann, password, here, "")
	r.must(err)
	_, err = r.AddFactor(r.ctx, mine.Value, other, here)
	wantCode(t, "without the password", err, signin.CodeWrong)
	e, err := r.AddFactor(r.ctx, mine.Value, password, here)
	r.must(err)
	mine, err = r.ConfirmFactor(r.ctx, mine.Value, signin.CodeOf(e.Secret, r.clock.now()), here)
	r.must(err)
	if _, err := r.Lookup(r.ctx, elsewhere.Value); code(err) != signin.CodeEnded {
		t.Errorf("a sign-in without the factor: got %v, want that it ended", err)
	}
	_, err = r.ConfirmFactor(r.ctx, mine.Value, signin.CodeOf(e.Secret, r.clock.now()), here)
	wantCode(t, "an enrolment that is over", err, signin.CodeStep)
	r.must(r.RemoveFactor(r.ctx, mine.Value, password, here))
	if token, err := r.PasswordSignIn(r.ctx, ann, password, here, ""); err != nil || token.Step != signin.StepDone {
		t.Errorf("without a factor: got %+v (%v)", token, err)
	}
	next, err := r.ChangePassword(r.ctx, mine.Value, password, other, here)
	r.must(err)
	if _, err := r.Lookup(r.ctx, mine.Value); code(err) != signin.CodeEnded || next.Value == mine.Value {
		t.Errorf("the token from before the new password: got %v", err)
	}
}

// TestKnownCodes are the test values of RFC 6238, appendix B, cut to six digits.
func TestKnownCodes(t *testing.T) {
	t.Parallel()
	const secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ" // "12345678901234567890"
	for at, want := range map[int64]string{59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130"} {
		if got := signin.CodeOf(secret, time.Unix(at, 0)); got != want {
			t.Errorf("at %d: got %s, want %s", at, got, want)
		}
	}
}

func TestOpenAndBind(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	v := appstream.Visitor{Auth: appstream.AuthSAML, Provider: "corp", UserID: "ann", Stacks: []string{"s"}}
	until := r.clock.now().Add(time.Hour)
	handle, err := r.Open(r.ctx, v, here, "", signin.OpenOptions{Binding: "browser 1", Once: "assertion 1", OnceUntil: until, Life: 15 * time.Minute})
	r.must(err)
	if handle.Step != signin.StepBind {
		t.Fatalf("got step %s", handle.Step)
	}
	_, err = r.Open(r.ctx, v, here, "", signin.OpenOptions{Once: "assertion 1", OnceUntil: until})
	wantCode(t, "an assertion again", err, "replayed")
	_, err = r.Bind(r.ctx, handle.Value, "browser 2", here, "")
	wantCode(t, "another browser", err, "other-browser")
	_, err = r.Bind(r.ctx, handle.Value, "", here, "")
	wantCode(t, "a browser that shows nothing", err, "other-browser")
	done, err := r.Bind(r.ctx, handle.Value, "browser 1", here, "")
	r.must(err)
	_, err = r.Bind(r.ctx, handle.Value, "browser 1", here, "")
	wantCode(t, "a handle again", err, signin.CodeEnded)
	if _, err := r.Lookup(r.ctx, done.Value); err != nil {
		t.Error(err)
	}
	r.clock.pass(15 * time.Minute)
	if _, err := r.Lookup(r.ctx, done.Value); code(err) != signin.CodeEnded {
		t.Errorf("after what the provider allows: got %v", err)
	}
	handle, err = r.Open(r.ctx, v, here, "", signin.OpenOptions{Binding: "browser 1", Once: "assertion 2", OnceUntil: until})
	r.must(err)
	r.clock.pass(time.Minute)
	_, err = r.Bind(r.ctx, handle.Value, "browser 1", here, "")
	wantCode(t, "after a minute", err, signin.CodeEnded)
}

func TestMailWaitsForItsServer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.out.failWith(errors.New("server is away"))
	r.must(r.CreateUser(r.ctx, signin.NewUser{Name: ann}))
	waiting := func(ok func([]signin.WaitingMail) bool) {
		t.Helper()
		for {
			ms, err := r.WaitingMails(r.ctx)
			r.must(err)
			if ok(ms) {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	waiting(func(ms []signin.WaitingMail) bool {
		return len(ms) == 1 && ms[0].Attempts == 1 && ms[0].Failure == "server is away"
	})
	r.out.failWith(nil)
	r.clock.pass(15 * time.Second)
	r.must(r.CreateUser(r.ctx, signin.NewUser{Name: "bob@example.com"})) // wakes the queue
	r.mail(2)
	r.out.failWith(fmt.Errorf("no such mailbox: %w", signin.ErrRejected))
	r.must(r.CreateUser(r.ctx, signin.NewUser{Name: "cat@example.com"}))
	waiting(func(ms []signin.WaitingMail) bool { return len(ms) == 0 })
	body, err := state.Read(r.ctx, r.store, func(rd state.Reader) ([]state.Document, error) { return rd.List("user-credential", state.Query{}) })
	r.must(err)
	for _, d := range body {
		for _, m := range r.out.all() {
			if strings.Contains(string(d.Body), r.codeIn(m)) {
				t.Error("a password stands in the store")
			}
		}
	}
}

// meter counts what one attempt costs: hashes by their work, reads, and writes to the store.
type meter struct {
	state.Store
	*argon.Hasher
	reads, writes atomic.Int64
}

func (m *meter) View(ctx context.Context, fn func(state.Reader) error) error {
	m.reads.Add(1)
	return m.Store.View(ctx, fn)
}

func (m *meter) Update(ctx context.Context, fn func(state.Tx) error) (state.Revision, error) {
	m.writes.Add(1)
	return m.Store.Update(ctx, fn)
}

type cost struct{ hashing, reads, writes int64 }

func (m *meter) of(attempt func()) cost {
	before := cost{int64(m.Work()), m.reads.Load(), m.writes.Load()}
	attempt()
	return cost{int64(m.Work()) - before.hashing, m.reads.Load() - before.reads, m.writes.Load() - before.writes}
}

// TestAGuessCostsTheSameWhoeverItIsFor: the clock tells nobody which users exist, since the same work is done for each of them.
func TestAGuessCostsTheSameWhoeverItIsFor(t *testing.T) {
	t.Parallel()
	m := &meter{Hasher: argon.New(argon.Options{MemoryKiB: 64})}
	r := newRig(t, func(o *signin.Options) {
		m.Store = o.Store
		o.Store, o.Hasher = m, m.Hasher
	})
	const disabled, temporary, silent, expired, asked = "dis@example.com", "tmp@example.com", "sil@example.com", "exp@example.com", "ask@example.com"
	r.must(r.CreateUser(r.ctx, signin.NewUser{Name: expired}))
	r.mail(1)
	r.clock.pass(8 * 24 * time.Hour)
	for _, name := range []string{ann, disabled, asked} {
		r.user(name, password)
	}
	r.must(r.SetUserEnabled(r.ctx, disabled, false))
	r.must(r.CreateUser(r.ctx, signin.NewUser{Name: temporary}))
	r.must(r.CreateUser(r.ctx, signin.NewUser{Name: silent, Message: signin.Suppress}))
	r.mail(5)
	r.must(r.RequestReset(asked, here))
	r.mail(6)
	names := []string{"nobody@example.com", ann, disabled, temporary, silent, expired, asked, "not a name"}
	far := func(n int) signin.Client { return signin.Client{Source: fmt.Sprintf("198.51.100.%d", n)} }
	const aHash = 64   // KiB, one pass
	for i := range 7 { // 5 that are free, and two that wait
		for n, name := range names {
			got := m.of(func() {
				_, err := r.PasswordSignIn(r.ctx, name, "a wrong password", far(n), "")
				wantCode(t, name, err, map[bool]string{true: signin.CodeWrong, false: signin.CodeWait}[i < 5])
			})
			want := cost{aHash, 2, 0} // the credential, and the name for the record
			switch {
			case i == 4: // a lock-out is one more event
				want.reads = 3
			case i > 4:
				want = cost{0, 1, 0}
			}
			if got != want {
				t.Errorf("guess %d for %s: got %+v, want %+v", i+1, name, got, want)
			}
		}
	}
	for n, name := range names {
		got := m.of(func() { wantCode(t, name, r.Reset(r.ctx, name, "WRONG-CODE", other, far(n)), signin.CodeWrongCode) })
		if want := (cost{aHash, 2, 0}); got != want {
			t.Errorf("a wrong code for %s: got %+v, want %+v", name, got, want)
		}
	}
}

// record is one that cannot be written while full is set.
type record struct {
	audit.Discard
	full atomic.Bool
}

func (r *record) Ready() error {
	if r.full.Load() {
		return errors.New("no space left on device")
	}
	return nil
}

// TestNobodyComesInWithoutARecord: while the audit log cannot be written, no way in is open and nothing that a user proves with changes.
func TestNobodyComesInWithoutARecord(t *testing.T) {
	t.Parallel()
	full := &record{}
	r := newRig(t, func(o *signin.Options) { o.Audit = full })
	in := r.user(ann, password)
	r.must(r.CreateUser(r.ctx, signin.NewUser{Name: "new@example.com"}))
	temporary := r.codeIn(r.mail(2))
	step, err := r.PasswordSignIn(r.ctx, "new@example.com", temporary, here, "")
	r.must(err)
	v := appstream.Visitor{Auth: appstream.AuthSAML, Provider: "corp", UserID: "sam"}
	waiting, err := r.Open(r.ctx, v, here, "", signin.OpenOptions{Binding: "b"})
	r.must(err)
	ways := map[string]func() error{
		"a password": func() error { _, err := r.PasswordSignIn(r.ctx, ann, password, here, ""); return err },
		"a streaming URL": func() error {
			_, err := r.Open(r.ctx, appstream.Visitor{Auth: appstream.AuthAPI, UserID: "u", Stack: "s"}, here, "", signin.OpenOptions{})
			return err
		},
		"an assertion": func() error {
			_, err := r.Open(r.ctx, v, here, "", signin.OpenOptions{Once: "saml corp a-1", OnceUntil: r.clock.now().Add(time.Hour)})
			return err
		},
		"an answer":       func() error { _, err := r.Bind(r.ctx, waiting.Value, "b", here, ""); return err },
		"a new password":  func() error { _, err := r.ChooseNewPassword(r.ctx, step.Value, other, here); return err },
		"another one":     func() error { _, err := r.ChangePassword(r.ctx, in.Value, password, other, here); return err },
		"a second factor": func() error { _, err := r.AddFactor(r.ctx, in.Value, password, here); return err },
		"a code":          func() error { _, err := r.CheckFactor(r.ctx, in.Value, "000000", here); return err },
		"a reset":         func() error { return r.Reset(r.ctx, ann, "CODE", other, here) },
		"asking for one":  func() error { return r.RequestReset("someone@example.com", here) },
	}
	full.full.Store(true)
	for name, way := range ways {
		wantCode(t, name, way(), signin.CodeNoRecord)
	}
	if _, err := r.Lookup(r.ctx, in.Value); err != nil {
		t.Errorf("who is signed in: %v", err)
	}
	full.full.Store(false)
	for _, name := range []string{"a password", "a streaming URL", "an assertion", "an answer", "a new password", "asking for one"} {
		r.must(ways[name]())
	}
	full.full.Store(true)
	r.must(r.SignOut(r.ctx, in.Value, true, here))
	if _, err := r.Lookup(r.ctx, in.Value); code(err) != signin.CodeEnded {
		t.Errorf("after signing out: got %v", err)
	}
}
