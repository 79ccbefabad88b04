package portal

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"penstock.dev/penstock/internal/argon"
	"penstock.dev/penstock/internal/audit"
	"penstock.dev/penstock/internal/control/signin"
	"penstock.dev/penstock/internal/sqlite"
)

// mailbox is where a user's mails come to.
type mailbox chan signin.Mail

func (m mailbox) Send(_ context.Context, mail signin.Mail) error {
	m <- mail
	return nil
}

// site is a portal over TLS, and a browser before it.
type site struct {
	*httptest.Server
	t       *testing.T
	service *signin.Service
	mails   mailbox
	browser *http.Client
}

func newSite(t *testing.T, secure bool, change ...func(*Options)) *site {
	t.Helper()
	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	s := &site{t: t, mails: make(mailbox, 16)}
	if s.service, err = signin.New(signin.Options{
		Store: store, Seed: make([]byte, 32), Hasher: argon.New(argon.Options{MemoryKiB: 64}), Mailer: s.mails,
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.service.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	o := Options{SignIn: s.service, Pages: http.NotFoundHandler(), Port: 8443, Secure: secure, Log: slog.New(slog.DiscardHandler)}
	for _, c := range change {
		c(&o)
	}
	p := New(o)
	if secure {
		s.Server = httptest.NewTLSServer(p)
	} else {
		s.Server = httptest.NewServer(p)
	}
	t.Cleanup(s.Close)
	s.browser = s.newBrowser()
	return s
}

func (s *site) newBrowser() *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return &http.Client{Jar: jar, Transport: s.Client().Transport}
}

// post sends what the portal's own page would; headers go over its own.
func (s *site) post(b *http.Client, path string, body any, headers ...string) (*http.Response, map[string]any) {
	s.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodPost, s.URL+"/api/portal/v1/"+path, strings.NewReader(string(text)))
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(csrfHeader, "1")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Del(headers[i])
		if headers[i+1] != "" {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	resp, err := b.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	out := map[string]any{}
	if b, err := io.ReadAll(resp.Body); err != nil {
		s.t.Fatal(err)
	} else if len(b) > 0 {
		if err := json.Unmarshal(b, &out); err != nil {
			s.t.Fatalf("%s: %s: %v", path, b, err)
		}
	}
	return resp, out
}

func (s *site) user(name string) (temporary string) {
	s.t.Helper()
	if err := s.service.CreateUser(s.t.Context(), signin.NewUser{Name: name}); err != nil {
		s.t.Fatal(err)
	}
	_, after, _ := strings.Cut((<-s.mails).Text, "temporary password  ")
	temporary, _, _ = strings.Cut(after, "\n")
	return temporary
}

func (s *site) cookies(b *http.Client) map[string]string {
	u, err := url.Parse(s.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	out := map[string]string{}
	for _, c := range b.Jar.Cookies(u) {
		out[c.Name] = c.Value
	}
	return out
}

func TestSignInCookie(t *testing.T) {
	t.Parallel()
	for name, secure := range map[string]bool{"__Host-penstock_session_8443": true, "penstock_session_8443": false} {
		s := newSite(t, secure)
		temporary := s.user("ann@example.com")
		// A cookie that somebody planted is not taken up (session fixation).
		u, err := url.Parse(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		planted := strings.Repeat("A", 43)
		s.browser.Jar.SetCookies(u, []*http.Cookie{{Name: name, Value: planted, Path: "/", Secure: secure}})
		resp, out := s.post(s.browser, "signin", map[string]string{"userName": "ann@example.com", "password": temporary})
		if resp.StatusCode != http.StatusOK || out["step"] != "new-password" {
			t.Fatalf("sign-in: got %s %v", resp.Status, out)
		}
		c := resp.Cookies()
		if len(c) != 1 || c[0].Name != name || !c[0].HttpOnly || c[0].Secure != secure || c[0].SameSite != http.SameSiteLaxMode || c[0].Path != "/" || c[0].Domain != "" {
			t.Errorf("cookie: got %+v, want %s", c, name)
		}
		first := s.cookies(s.browser)[name]
		if first == planted || first == "" {
			t.Error("the planted cookie was taken up")
		}
		resp, out = s.post(s.browser, "signin/new-password", map[string]string{"password": "violet tramway kettle 41"})
		if resp.StatusCode != http.StatusOK || out["step"] != "done" || s.cookies(s.browser)[name] == first {
			t.Errorf("new password: got %s %v, want another cookie", resp.Status, out)
		}
		stolen := s.newBrowser()
		stolen.Jar.SetCookies(u, []*http.Cookie{{Name: name, Value: first, Path: "/", Secure: secure}})
		if resp, _ := s.post(stolen, "account/password", map[string]string{"old": "x", "password": "y"}); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("the cookie from before: got %s", resp.Status)
		}
		if resp, _ := s.post(s.browser, "signout", map[string]bool{}); resp.StatusCode != http.StatusNoContent || len(s.cookies(s.browser)) != 0 {
			t.Errorf("sign-out: got %s, cookies %v", resp.Status, s.cookies(s.browser))
		}
	}
}

func TestOtherSitesCannotSignIn(t *testing.T) {
	t.Parallel()
	s := newSite(t, true)
	body := map[string]string{"userName": "ann@example.com", "password": s.user("ann@example.com")}
	for name, headers := range map[string][]string{
		"a form of another site":   {csrfHeader, "", "Sec-Fetch-Site", "cross-site"},
		"a script of another site": {"Sec-Fetch-Site", "cross-site"},
		"another port of the host": {"Sec-Fetch-Site", "same-site"},
		"an old browser's form":    {csrfHeader, "", "Sec-Fetch-Site", "", "Origin", "https://evil.example"},
		"an old browser's script":  {"Sec-Fetch-Site", "", "Origin", "https://evil.example"},
		"no origin":                {"Sec-Fetch-Site", ""},
	} {
		for _, path := range []string{"signin", "signin/new-password", "signin/code", "signin/enrol", "signin/enrol/confirm", "reset", "reset/confirm", "account/password", "account/second-factor", "account/second-factor/remove", "signout"} {
			if resp, out := s.post(s.browser, path, body, headers...); resp.StatusCode != http.StatusForbidden || out["code"] != "cross-site" {
				t.Errorf("%s to %s: got %s %v", name, path, resp.Status, out)
			}
		}
	}
	if resp, _ := s.post(s.browser, "signin", body, "Sec-Fetch-Site", "", "Origin", s.URL); resp.StatusCode != http.StatusOK {
		t.Errorf("an old browser's own page: got %s", resp.Status)
	}
}

func TestRefusalsLookAlike(t *testing.T) {
	t.Parallel()
	s := newSite(t, true)
	s.user("ann@example.com")
	var answers []string
	for _, name := range []string{"ann@example.com", "nobody@example.com"} {
		var all []string
		for range 7 {
			resp, out := s.post(s.browser, "signin", map[string]string{"userName": name, "password": "a wrong password"})
			all = append(all, resp.Status, resp.Header.Get("Retry-After"), strings.TrimSpace(out["code"].(string)+" "+out["reason"].(string)))
		}
		answers = append(answers, strings.Join(all, "|"))
	}
	if answers[0] != answers[1] {
		t.Errorf("a known and an unknown user are told apart:\n%s\n%s", answers[0], answers[1])
	}
	if !strings.Contains(answers[0], "429 Too Many Requests|1|wait ") {
		t.Errorf("no waiting after 5 failures: %s", answers[0])
	}
	for _, name := range []string{"ann@example.com", "nobody@example.com", "", strings.Repeat("x", 600)} {
		if resp, out := s.post(s.browser, "reset", map[string]string{"userName": name}); resp.StatusCode != http.StatusAccepted || len(out) != 0 {
			t.Errorf("reset of %.20q: got %s %v", name, resp.Status, out)
		}
	}
	if resp, _ := s.post(s.browser, "signin", map[string]string{"userName": strings.Repeat("x", 8<<10)}); resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a huge body: got %s", resp.Status)
	}
}

// fullDisk is a record that cannot be written.
type fullDisk struct{ audit.Discard }

func (fullDisk) Ready() error { return errors.New("no space left on device") }

func TestNobodySignsInWithoutARecord(t *testing.T) {
	t.Parallel()
	s := newSite(t, true, func(o *Options) { o.SignIn.Audit = fullDisk{} })
	body := map[string]string{"userName": "ann@example.com", "password": s.user("ann@example.com")}
	if resp, out := s.post(s.browser, "signin", body); resp.StatusCode != http.StatusServiceUnavailable || out["code"] != "no-record" || len(resp.Cookies()) > 0 {
		t.Errorf("sign-in: got %s %v", resp.Status, out)
	}
	if resp, out := s.post(s.browser, "reset", body); resp.StatusCode != http.StatusServiceUnavailable || out["code"] != "no-record" {
		t.Errorf("a request for a new password: got %s %v", resp.Status, out)
	}
	if resp, _ := s.post(s.browser, "signout", map[string]bool{}); resp.StatusCode != http.StatusNoContent {
		t.Errorf("sign-out: got %s", resp.Status)
	}
}

func TestQRCode(t *testing.T) {
	t.Parallel()
	rows, err := qrRows("otpauth://totp/Penstock:ann@example.com?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")
	if err != nil {
		t.Fatal(err)
	}
	// The finder pattern that a scanner looks for, in its three corners.
	finder := []string{"1111111", "1000001", "1011101", "1011101", "1011101", "1000001", "1111111"}
	n := len(rows)
	for y, want := range finder {
		for _, got := range []string{rows[y][:7], rows[y][n-7:], rows[n-7+y][:7]} {
			if got != want {
				t.Errorf("row %d of a finder: got %s, want %s", y, got, want)
			}
		}
	}
	if _, err := qrRows(strings.Repeat("x", 5000)); err == nil {
		t.Error("a text that does not fit: no error")
	}
}
