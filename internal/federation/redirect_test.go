package federation

import (
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"penstock.dev/penstock/internal/control/signin"
)

// plainBrowser keeps nothing.
type plainBrowser struct{}

func (plainBrowser) Keep(http.ResponseWriter, signin.Token) {}
func (plainBrowser) Token(*http.Request) string             { return "" }
func (plainBrowser) Client(*http.Request) signin.Client     { return signin.Client{Source: "192.0.2.1"} }

// TestRedirectsStayHere: whatever a request says, the browser is sent to the provider's own endpoint or to the portal's page.
func TestRedirectsStayHere(t *testing.T) {
	t.Parallel()
	i := newIDP(t)
	i.f.Browser = plainBrowser{}
	evil := []string{"https://evil.example/", "//evil.example", `/\evil.example`, "javascript:alert(1)", "/%2f/evil.example", "https:evil.example", "\thttps://evil.example", "demo\r\nLocation: https://evil.example"}
	tried := 0
	for _, e := range evil {
		v := url.QueryEscape(e)
		form := func(response, relay string) *http.Request {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/federation/corp/acs", strings.NewReader(url.Values{"SAMLResponse": {base64.StdEncoding.EncodeToString([]byte(response))}, "RelayState": {relay}}.Encode()))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			return r
		}
		get := func(target string) *http.Request {
			return httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
		}
		for _, r := range []*http.Request{
			get("/federation/corp/start?stack=" + v + "&next=" + v + "&RelayState=" + v + "&redirect_uri=" + v),
			get("/federation/corp/finish?handle=" + v + "&next=" + v),
			get("/federation/corp/callback?state=" + v + "&code=" + v),
			form(i.good(said{id: "a" + v}), e), form(i.good(said{id: "b" + v}), "stack=demo&next="+v), form("x", e), form(i.good(said{id: "c" + v, inResponseTo: "id-1"}), e),
		} {
			w := httptest.NewRecorder()
			i.f.ServeHTTP(w, r)
			to := w.Header().Get("Location")
			if to == "" {
				continue
			}
			tried++
			u, err := url.Parse(to)
			here := err == nil && u.Scheme == "" && u.Host == "" && (u.Path == "/" || u.Path == "/federation/corp/finish")
			there := err == nil && strings.HasPrefix(to, "https://idp.example/sso?") && u.Host == "idp.example"
			if !here && !there || strings.ContainsAny(to, "\r\n\\") {
				t.Errorf("%s %s: goes to %q", r.Method, r.URL, to)
			}
		}
	}
	if tried < 30 {
		t.Errorf("only %d redirects were looked at", tried)
	}
}
