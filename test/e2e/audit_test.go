package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/appstream"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// penstock runs an operator's command on this server's data directory.
func (s *server) penstock(args ...string) (string, error) {
	s.t.Helper()
	bin, err := binary()
	if err != nil {
		s.t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.Command(bin, append(args, "--data-dir", s.dir)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	return string(out) + stderr.String(), err
}

func (s *server) mustPenstock(args ...string) string {
	s.t.Helper()
	out, err := s.penstock(args...)
	if err != nil {
		s.t.Fatalf("penstock %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

type auditEvent struct {
	EventID, EventName, EventSource, ReadOnly, Username, CloudTrailEvent string
	AccessKeyID                                                          string `json:"AccessKeyId"`
}

func (s *server) audited(args ...string) []auditEvent {
	s.t.Helper()
	var out struct{ Events []auditEvent }
	if err := json.Unmarshal([]byte(s.mustPenstock(append([]string{"audit", "--json"}, args...)...)), &out); err != nil {
		s.t.Fatal(err)
	}
	return out.Events
}

// TestAudit: what users and administrators do, and what they are refused, is on record, unchanged, and without a secret.
func TestAudit(t *testing.T) {
	needE2E(t)
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	secrets := map[string]string{}
	root := iam.NewFromConfig(s.asRoot())
	rootKey, err := s.asRoot().Credentials.Retrieve(ctx)
	if err != nil {
		t.Fatal(err)
	}
	secrets["root's secret"] = rootKey.SecretAccessKey
	ann, _ := s.newUser(ctx, root, "ann", describeAndList)
	annKey, err := ann.Credentials.Retrieve(ctx)
	if err != nil {
		t.Fatal(err)
	}
	secrets["a user's secret"] = annKey.SecretAccessKey
	token, err := sts.NewFromConfig(ann).GetSessionToken(ctx, &sts.GetSessionTokenInput{})
	if err != nil {
		t.Fatal(err)
	}
	secrets["a temporary secret"], secrets["a session token"] = *token.Credentials.SecretAccessKey, *token.Credentials.SessionToken
	session := appstream.NewFromConfig(s.asSession(token.Credentials))
	if _, err := session.DescribeStacks(ctx, &appstream.DescribeStacksInput{}); err != nil {
		t.Error(err)
	}
	_, err = session.CreateStack(ctx, &appstream.CreateStackInput{Name: aws.String("refused")})
	wantCode(t, err, "AccessDeniedException", "")
	wrong := s.as(annKey.AccessKeyID, "wrong", "")
	_, err = appstream.NewFromConfig(wrong).DescribeStacks(ctx, &appstream.DescribeStacksInput{})
	wantCode(t, err, "InvalidSignatureException", "")
	u, err := appstream.NewFromConfig(s.asRoot()).CreateStreamingURL(ctx, &appstream.CreateStreamingURLInput{
		StackName: aws.String("demo"), FleetName: aws.String("demo"), UserId: aws.String("zoe"), SessionContext: aws.String("context-s3cr3t"), Validity: aws.Int64(600),
	})
	if err != nil {
		t.Fatal(err)
	}
	secrets["a streaming URL"] = mustURL(t, *u.StreamingURL).Query().Get("parameters")
	secrets["a session context"] = "context-s3cr3t"
	l := s.visit(*u.StreamingURL).mustLaunch("xterm")
	ticket := ticketOf(mustURL(t, l.ViewerURL))
	secrets["a ticket"] = ticket
	viewer := s.connect(l.ViewerURL, "")
	viewer.mustLive(t)
	if v, err := tryConnect(t, mustURL(t, l.ViewerURL), forge(ticket), ""); err == nil {
		v.mustEnd(t)
	}
	if _, err := appstream.NewFromConfig(s.asRoot()).ExpireSession(ctx, &appstream.ExpireSessionInput{SessionId: aws.String(l.SessionID)}); err != nil {
		t.Fatal(err)
	}
	viewer.mustEnd(t)
	until(t, "the end of the session on record", func() bool { return len(s.audited("--event-name", "EndSession")) == 1 })

	for _, tc := range []struct {
		name string
		args []string
		want int
		text string
	}{
		{"a key is made", []string{"--event-name", "CreateAccessKey", "--resource", "ann"}, 1, `"type":"Root"`},
		{"a denial", []string{"--event-name", "CreateStack", "--refused"}, 1, `"errorCode":"AccessDeniedException","errorMessage":"User: arn:aws:iam::`},
		{"a wrong signature", []string{"--event-name", "DescribeStacks", "--refused"}, 1, `"errorCode":"InvalidSignatureException"`},
		{"with temporary credentials", []string{"--access-key-id", *token.Credentials.AccessKeyId}, 2, `"sessionContext":{"attributes":{"creationDate":`},
		{"a sign-in", []string{"--event-name", "SignIn", "--user", "zoe"}, 1, `"authenticationType":"API"`},
		{"a ticket", []string{"--event-name", "IssueTicket", "--user", "zoe"}, 1, `"endpoint":"` + s.info.VPCEndpointID},
		{"its use", []string{"--event-name", "RedeemTicket", "--user", "zoe"}, 1, `"channel":"control"`},
		{"a forged one", []string{"--event-name", "RedeemTicket", "--refused"}, 1, `"errorMessage":`},
		{"the end of the session", []string{"--event-name", "EndSession"}, 1, `"reason":"An administrator ended the session."`},
		{"changes by type", []string{"--read-only", "false", "--resource-type", "AWS::AppStream::Stack", "--event-name", "CreateStreamingURL"}, 1, `"streamingURL":"HIDDEN_DUE_TO_SECURITY_REASONS"`},
		{"the start", []string{"--event-source", "penstock", "--event-name", "StartServer"}, 1, `"type":"Operator"`},
	} {
		got := s.audited(tc.args...)
		if len(got) != tc.want || !strings.Contains(got[0].CloudTrailEvent, tc.text) {
			t.Errorf("%s: got %d events, want %d with %s: %+v", tc.name, len(got), tc.want, tc.text, got)
		}
	}
	if first := s.audited()[0]; first.EventID == "" || first.ReadOnly == "" || first.EventSource == "" {
		t.Errorf("got %+v", first)
	}
	head := strings.TrimSpace(s.mustPenstock("audit", "head"))
	s.mustPenstock("audit", "verify", "--head", head)

	// Killed while many write: what was acknowledged is on record, and the chain goes on.
	names := s.hammer(ctx, s.kill)
	s.mustPenstock("audit", "verify", "--head", head)
	s = start(t, dir)
	s.mustPenstock("audit", "verify", "--head", head)
	have := map[string]bool{}
	for _, e := range s.audited("--event-name", "CreateUser") {
		var line struct{ RequestParameters struct{ UserName string } }
		mustJSON(t, []byte(e.CloudTrailEvent), &line)
		have[line.RequestParameters.UserName] = true
	}
	for _, name := range names {
		if !have[name] {
			t.Errorf("user %s was acknowledged, and is not on record", name)
		}
	}
	s.stop()

	// Nothing of what opens something is in it, nor in the server's own log.
	files, err := filepath.Glob(filepath.Join(dir, "audit", "audit-*.jsonl"))
	if err != nil || len(files) == 0 {
		t.Fatalf("got %v (%v)", files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for what, secret := range secrets {
			if secret == "" || bytes.Contains(b, []byte(secret)) || strings.Contains(s.stderr.String(), secret) {
				t.Errorf("the record or the log holds %s (%d characters)", what, len(secret))
			}
		}
	}

	// Who changes a line, or cuts the end off, is found out.
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	spoil := func(text []byte, want string) {
		t.Helper()
		if err := os.WriteFile(files[0], text, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := s.penstock("audit", "verify"); err == nil || !strings.Contains(out, want) {
			t.Errorf("got %q (%v), want %q", out, err, want)
		}
	}
	spoil(bytes.Replace(b, []byte(`"AccessDeniedException"`), []byte(`"AccessAllowedExcept."`), 1), "content was changed")
	spoil(b[:bytes.LastIndexByte(b[:len(b)-1], '\n')+1], "the end was cut off")
	spoil(b[bytes.IndexByte(b, '\n')+1:], "begins with event 2")
	if err := os.WriteFile(files[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	s.mustPenstock("audit", "verify", "--head", head)
}

// hammer makes users from many clients, ends in the middle by calling stop, and returns the names that were acknowledged.
func (s *server) hammer(ctx context.Context, stop func()) (names []string) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	enough := make(chan struct{})
	for w := range 8 {
		c := iam.NewFromConfig(s.asRoot())
		wg.Go(func() {
			for i := range 500 {
				name := fmt.Sprintf("user-%d-%d", w, i)
				if _, err := c.CreateUser(ctx, &iam.CreateUserInput{UserName: &name}); err != nil {
					return
				}
				mu.Lock()
				if names = append(names, name); len(names) == 50 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	select {
	case <-enough:
	case <-ctx.Done():
	}
	stop()
	wg.Wait()
	return names
}

// TestFullAuditDisk: while the record cannot be written the API changes nothing; reading goes on, and with room again all does.
func TestFullAuditDisk(t *testing.T) {
	needE2E(t)
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount a small file system")
	}
	dir := t.TempDir()
	small := filepath.Join(dir, "audit")
	if err := os.Mkdir(small, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", small, "tmpfs", 0, "size=256k,mode=0700"); err != nil {
		t.Skipf("needs a small file system: mount: %v", err)
	}
	t.Cleanup(func() { // after the server's end: clean-ups run backwards
		if err := syscall.Unmount(small, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s := start(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	root, stacks := iam.NewFromConfig(s.asRoot()), appstream.NewFromConfig(s.asRoot())
	create := func(name string) error {
		_, err := root.CreateUser(ctx, &iam.CreateUserInput{UserName: &name})
		return err
	}
	if err := create("before"); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(small, "ballast")
	_ = os.WriteFile(ballast, make([]byte, 256<<10), 0o600) // as much as fits
	n := 0
	var err error
	for ; err == nil && n < 200; n++ {
		err = create(fmt.Sprintf("filler-%d", n))
	}
	wantCode(t, err, "ServiceUnavailable", "audit log cannot be written")
	refused := fmt.Sprintf("filler-%d", n-1)
	_, err = root.GetUser(ctx, &iam.GetUserInput{UserName: &refused})
	wantCode(t, err, "NoSuchEntity", refused)
	if _, err := stacks.DescribeStacks(ctx, &appstream.DescribeStacksInput{}); err != nil {
		t.Errorf("reading while the disk is full: %v", err)
	}
	browser := &http.Client{Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := browser.Get(s.info.StreamingURL)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if to := resp.Header.Get("Location"); to != "/?error=no-record" {
		t.Errorf("a streaming URL while the disk is full: sent to %q", to)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	s.visit(s.info.StreamingURL).mustLaunch("xterm")
	if err := create("after"); err != nil {
		t.Errorf("with room again: %v", err)
	}
	s.mustPenstock("audit", "verify")
	if got := s.audited("--event-name", "CreateUser"); len(got) < n+2 { // the refusal, too
		t.Errorf("got %d events of %d calls", len(got), n+2)
	}
}
