package federation

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"penstock.dev/penstock/internal/argon"
	"penstock.dev/penstock/internal/audit"
	"penstock.dev/penstock/internal/control/signin"
	"penstock.dev/penstock/internal/sqlite"
)

var b64 = base64.RawURLEncoding

// op is an OpenID provider that does what a test says, right or wrong.
type op struct {
	*httptest.Server
	mu        sync.Mutex
	key       *rsa.PrivateKey
	kid       string
	claims    map[string]any // over the right ones; nil values take one away
	sign      func(input string) string
	header    map[string]any
	discovery map[string]any
	nonce     string
	challenge string
	verifier  string // as the client sent it
	code      string
	keyAsked  int
}

func newOP(t *testing.T) *op {
	t.Helper()
	o := &op{kid: "k1"}
	o.newKey(t, "k1")
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		d := map[string]any{
			"issuer": o.URL, "authorization_endpoint": o.URL + "/auth", "token_endpoint": o.URL + "/token", "jwks_uri": o.URL + "/keys",
			"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
			"id_token_signing_alg_values_supported": []string{"RS256", "none", "HS256"},
		}
		o.mu.Lock()
		maps.Copy(d, o.discovery)
		o.mu.Unlock()
		_ = json.NewEncoder(w).Encode(d)
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.keyAsked++
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []map[string]string{{
			"kty": "RSA", "use": "sig", "alg": "RS256", "kid": o.kid, "n": b64.EncodeToString(o.key.N.Bytes()),
			"e": b64.EncodeToString(big.NewInt(int64(o.key.E)).Bytes()),
		}}})
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		o.mu.Lock()
		defer o.mu.Unlock()
		o.verifier = r.PostForm.Get("code_verifier")
		sum := sha256.Sum256([]byte(o.verifier))
		if r.PostForm.Get("code") != o.code || b64.EncodeToString(sum[:]) != o.challenge {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"error":"invalid_grant"}`))
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "at", "token_type": "Bearer", "expires_in": 60, "id_token": o.token()})
	})
	o.Server = httptest.NewServer(mux)
	t.Cleanup(o.Close)
	return o
}

func (o *op) newKey(t *testing.T, kid string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.key, o.kid = key, kid
}

// token is called with the lock held.
func (o *op) token() string {
	now := time.Now()
	c := map[string]any{
		"iss": o.URL, "aud": "client", "sub": "sam", "nonce": o.nonce, "exp": now.Add(time.Minute).Unix(), "iat": now.Unix(),
		"email": "sam@example.com", "email_verified": true, "groups": []string{"editors", "staff"},
	}
	for k, v := range o.claims {
		if v == nil {
			delete(c, k)
		} else {
			c[k] = v
		}
	}
	h := map[string]any{"alg": "RS256", "kid": o.kid, "typ": "JWT"}
	maps.Copy(h, o.header)
	head, _ := json.Marshal(h)
	body, _ := json.Marshal(c)
	input := b64.EncodeToString(head) + "." + b64.EncodeToString(body)
	if o.sign != nil {
		return input + "." + o.sign(input)
	}
	sum := sha256.Sum256([]byte(input))
	sig, _ := rsa.SignPKCS1v15(rand.Reader, o.key, crypto.SHA256, sum[:])
	return input + "." + b64.EncodeToString(sig)
}

// page keeps sign-ins as the portal does.
type page struct{}

func (page) Keep(w http.ResponseWriter, t signin.Token) {
	http.SetCookie(w, &http.Cookie{Name: "session", Value: t.Value, Path: "/"})
}

func (page) Token(r *http.Request) string {
	if c, err := r.Cookie("session"); err == nil {
		return c.Value
	}
	return ""
}

func (page) Client(*http.Request) signin.Client { return signin.Client{Source: "192.0.2.1"} }

// site is a portal with one provider, and a browser before it.
type site struct {
	t       *testing.T
	op      *op
	signIn  *signin.Service
	url     string
	browser *http.Client
}

func newSite(t *testing.T, change ...func(*Provider)) *site {
	t.Helper()
	s := &site{t: t, op: newOP(t)}
	dir := t.TempDir()
	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(dir, "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	seed := make([]byte, 32)
	if s.signIn, err = signin.New(signin.Options{Store: store, Seed: seed, Hasher: argon.New(argon.Options{MemoryKiB: 64})}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("a secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := Provider{ID: "op", Type: typeOIDC, Issuer: s.op.URL, ClientID: "client", ClientSecretFile: filepath.Join(dir, "secret"), Stacks: []string{"demo"}}
	for _, c := range change {
		c(&p)
	}
	if err := p.check(); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	f, err := New(Options{
		Providers: []Provider{p}, SignIn: s.signIn, Browser: page{}, PublicURL: srv.URL, AccountID: account, Seed: seed, KeyDir: dir, Port: 1,
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	mux.Handle("/federation/", f)
	s.url, s.browser = srv.URL, newBrowser(t)
	return s
}

func newBrowser(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// get answers where the browser is sent.
func (s *site) get(b *http.Client, u string) string {
	s.t.Helper()
	resp, err := b.Get(u)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.Header.Get("Location")
}

// begin goes to the provider, and answers the callback's parameters as a right provider would send them.
func (s *site) begin(b *http.Client, query string) url.Values {
	s.t.Helper()
	to, err := url.Parse(s.get(b, s.url+"/federation/op/start"+query))
	if err != nil || to.Path != "/auth" {
		s.t.Fatalf("start leads to %v (%v)", to, err)
	}
	q := to.Query()
	if q.Get("code_challenge_method") != "S256" || q.Get("redirect_uri") != s.url+"/federation/op/callback" || q.Get("client_secret") != "" {
		s.t.Errorf("request: got %v", q)
	}
	s.op.mu.Lock()
	defer s.op.mu.Unlock()
	s.op.nonce, s.op.challenge, s.op.code = q.Get("nonce"), q.Get("code_challenge"), randomID()
	return url.Values{"state": {q.Get("state")}, "code": {s.op.code}}
}

func (s *site) back(b *http.Client, q url.Values) string {
	s.t.Helper()
	return s.get(b, s.url+"/federation/op/callback?"+q.Encode())
}

// signedIn is who the browser is.
func (s *site) signedIn(b *http.Client) (*signin.SignIn, error) {
	u, _ := url.Parse(s.url)
	for _, c := range b.Jar.Cookies(u) {
		if c.Name == "session" {
			return s.signIn.Lookup(s.t.Context(), c.Value)
		}
	}
	return nil, errors.New("no cookie")
}

func TestOIDCSignIn(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(p *Provider) { p.UserClaim = "email" })
	if to := s.back(s.browser, s.begin(s.browser, "?stack=demo")); to != "/" {
		t.Fatalf("sent to %q, want the portal", to)
	}
	si, err := s.signedIn(s.browser)
	if err != nil || si.Visitor.UserID != "sam@example.com" || si.Visitor.Stack != "demo" || len(si.Visitor.Attributes["groups"]) != 2 {
		t.Errorf("got %+v (%v)", si, err)
	}
	// Its keys change: the unknown one is asked for.
	s.op.newKey(t, "k2")
	if to := s.back(s.browser, s.begin(s.browser, "")); to != "/" {
		t.Errorf("after new keys: sent to %q", to)
	}
}

func TestOIDCRefuses(t *testing.T) {
	t.Parallel()
	past, future := time.Now().Add(-time.Hour).Unix(), time.Now().Add(time.Hour).Unix()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(*op)
		answer func(url.Values)
		code   string
	}{
		"wrong issuer":    {change: func(o *op) { o.claims = map[string]any{"iss": "https://other.example"} }, code: "bad-token"},
		"wrong audience":  {change: func(o *op) { o.claims = map[string]any{"aud": "other"} }, code: "bad-token"},
		"two audiences":   {change: func(o *op) { o.claims = map[string]any{"aud": []string{"client", "other"}} }, code: "bad-token"},
		"another's party": {change: func(o *op) { o.claims = map[string]any{"azp": "other"} }, code: "bad-token"},
		"expired":         {change: func(o *op) { o.claims = map[string]any{"exp": past} }, code: "bad-token"},
		"from the future": {change: func(o *op) { o.claims = map[string]any{"iat": future} }, code: "bad-token"},
		"from yesterday":  {change: func(o *op) { o.claims = map[string]any{"iat": past} }, code: "bad-token"},
		"not yet":         {change: func(o *op) { o.claims = map[string]any{"nbf": future} }, code: "bad-token"},
		"no nonce":        {change: func(o *op) { o.claims = map[string]any{"nonce": nil} }, code: "bad-token"},
		"wrong nonce":     {change: func(o *op) { o.claims = map[string]any{"nonce": "x"} }, code: "bad-token"},
		"other access":    {change: func(o *op) { o.claims = map[string]any{"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"} }, code: "bad-token"},
		"not verified":    {change: func(o *op) { o.claims = map[string]any{"email_verified": false} }, code: "bad-user"},
		"no e-mail":       {change: func(o *op) { o.claims = map[string]any{"email": nil} }, code: "bad-user"},
		"strange user":    {change: func(o *op) { o.claims = map[string]any{"email": "a b\n"} }, code: "bad-user"},
		"alg none": {change: func(o *op) {
			o.header, o.sign = map[string]any{"alg": "none"}, func(string) string { return "" }
		}, code: "bad-token"},
		"HMAC under the secret": {change: func(o *op) {
			o.header, o.sign = map[string]any{"alg": "HS256"}, func(in string) string {
				m := hmac.New(sha256.New, []byte("a secret"))
				m.Write([]byte(in))
				return b64.EncodeToString(m.Sum(nil))
			}
		}, code: "bad-token"},
		"a key of its own": {change: func(o *op) {
			o.header, o.sign = map[string]any{"alg": "ES256", "kid": "mine", "jwk": map[string]string{
				"kty": "EC", "crv": "P-256", "x": b64.EncodeToString(ec.X.Bytes()), "y": b64.EncodeToString(ec.Y.Bytes()),
			}}, func(in string) string {
				sum := sha256.Sum256([]byte(in))
				r, x, _ := ecdsa.Sign(rand.Reader, ec, sum[:])
				return b64.EncodeToString(append(r.FillBytes(make([]byte, 32)), x.FillBytes(make([]byte, 32))...))
			}
		}, code: "bad-token"},
		"wrong state":         {answer: func(q url.Values) { q.Set("state", "x") }, code: "other-browser"},
		"no state":            {answer: func(q url.Values) { q.Del("state") }, code: "other-browser"},
		"wrong code":          {answer: func(q url.Values) { q.Set("code", "x") }, code: "provider-refused"},
		"user said no":        {answer: func(q url.Values) { q.Set("error", "access_denied") }, code: "provider-refused"},
		"mix-up":              {answer: func(q url.Values) { q.Set("iss", "https://other.example") }, code: "wrong-issuer"},
		"issuer kept back":    {change: func(o *op) { o.discovery = map[string]any{"authorization_response_iss_parameter_supported": true} }, code: "wrong-issuer"},
		"a challenge changed": {change: func(o *op) { o.challenge = "x" }, code: "provider-refused"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, func(p *Provider) { p.UserClaim = "email" })
			if tc.change != nil && strings.HasPrefix(name, "issuer") {
				tc.change(s.op)
			}
			q := s.begin(s.browser, "")
			if tc.change != nil {
				s.op.mu.Lock()
				tc.change(s.op)
				s.op.mu.Unlock()
			}
			if tc.answer != nil {
				tc.answer(q)
			}
			if to := s.back(s.browser, q); to != "/?error="+tc.code {
				t.Errorf("sent to %q, want code %s", to, tc.code)
			}
			if _, err := s.signedIn(s.browser); err == nil {
				t.Error("signed in")
			}
		})
	}
}

func TestOIDCAnswersAreBoundToTheBrowser(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	q := s.begin(s.browser, "")
	victim := newBrowser(t)
	if to := s.back(victim, q); to != "/?error=other-browser" {
		t.Errorf("a browser that began nothing: sent to %q", to)
	}
	s.begin(victim, "")
	if to := s.back(victim, q); to != "/?error=other-browser" {
		t.Errorf("a browser that began another sign-in: sent to %q", to)
	}
	q = s.begin(s.browser, "")
	if to := s.back(s.browser, q); to != "/" {
		t.Errorf("the browser itself: sent to %q", to)
	}
	if to := s.back(s.browser, q); to != "/?error=other-browser" {
		t.Errorf("the same answer again: sent to %q", to)
	}
	q = s.begin(s.browser, "?stack=other")
	if to := s.back(s.browser, q); to != "/?error=wrong-stack" {
		t.Errorf("another stack: sent to %q", to)
	}
}

func TestOIDCProviderAway(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.op.mu.Lock()
	s.op.discovery = map[string]any{"token_endpoint": "http://other.example/token"}
	s.op.mu.Unlock()
	if to := s.get(s.browser, s.url+"/federation/op/start"); to != "/?error=provider-away" {
		t.Errorf("an endpoint in the clear: sent to %q", to)
	}
	s.op.mu.Lock()
	s.op.discovery = map[string]any{"issuer": "https://other.example"}
	s.op.mu.Unlock()
	if to := s.get(s.browser, s.url+"/federation/op/start"); to != "/?error=provider-away" {
		t.Errorf("another issuer: sent to %q", to)
	}
	s.op.Close()
	if to := s.get(s.browser, s.url+"/federation/op/start"); to != "/?error=provider-away" {
		t.Errorf("no server: sent to %q", to)
	}
}

// fullDisk is a record that cannot be written.
type fullDisk struct{ audit.Discard }

func (fullDisk) Ready() error { return errors.New("no space left on device") }

// TestNoFederatedSignInWithoutARecord: identity providers are no way around the rule that passwords are under.
func TestNoFederatedSignInWithoutARecord(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	q := s.begin(s.browser, "")
	s.signIn.Audit = fullDisk{}
	if at := s.back(s.browser, q); at != "/?error=no-record" {
		t.Errorf("got sent to %s", at)
	}
	if _, err := s.signedIn(s.browser); err == nil {
		t.Error("the browser is signed in")
	}
	s.signIn.Audit = audit.Discard{}
	s.back(s.browser, s.begin(s.browser, ""))
	if _, err := s.signedIn(s.browser); err != nil {
		t.Errorf("with a record again: %v", err)
	}
}
