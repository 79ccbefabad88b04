package federation

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/audit"
	"penstock.dev/penstock/internal/control/access"
	"penstock.dev/penstock/internal/control/signin"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/state"
)

// browser keeps a sign-in in the visitor's browser.
type browser interface {
	Keep(w http.ResponseWriter, t signin.Token)
	Token(r *http.Request) string
	Client(r *http.Request) signin.Client
}

// roles are IAM's: whether a role that an assertion names trusts the provider, and which stacks it lets the user stream from.
type roles interface {
	StreamsAs(ctx context.Context, a access.Asserted, stacks []string, r iam.Request) ([]string, time.Duration, error)
}

// Options is what a Federation is built from. All but Log and Now are required.
type Options struct {
	Providers []Provider
	SignIn    *signin.Service
	Browser   browser
	Roles     roles
	Audit     audit.Recorder
	PublicURL string // of the portal, no slash at the end
	AccountID string
	Seed      []byte // of the data directory: seals what a browser carries while it is at the provider
	KeyDir    string // where the key of SAML is kept
	Port      uint16 // of the portal; part of the cookie's name
	Secure    bool   // served over TLS
	Log       *slog.Logger
	Now       func() time.Time
}

// Federation is the handler of /federation/. It is safe for concurrent use.
type Federation struct {
	Options
	mux    *http.ServeMux
	oidc   map[string]*oidcProvider
	saml   map[string]*samlProvider
	sealed cipher.AEAD
	busy   chan struct{} // holds one item for each conversation with a provider, and each assertion that is looked at
}

const (
	pendingLife = 10 * time.Minute
	maxBusy     = 16
	callTimeout = 15 * time.Second // of one sign-in's conversation with a provider
	maxAnswer   = 1 << 20          // of a provider's server
	maxForm     = 1 << 20          // of a SAML response
)

// New reads what the providers name in files. It does not ask their servers: one that is away must not keep the portal from starting.
func New(o Options) (*Federation, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Audit = audit.Or(o.Audit)
	f := &Federation{Options: o, mux: http.NewServeMux(), oidc: map[string]*oidcProvider{}, saml: map[string]*samlProvider{}, busy: make(chan struct{}, maxBusy)}
	var err error
	if f.sealed, err = state.Sealer(o.Seed, "penstock federation 1"); err != nil {
		return nil, err
	}
	for i := range o.Providers {
		p := &f.Providers[i]
		switch p.Type {
		case typeOIDC:
			f.oidc[p.ID], err = f.newOIDC(p)
		case typeSAML:
			f.saml[p.ID], err = f.newSAML(p)
		}
		if err != nil {
			return nil, fmt.Errorf("identity provider %s: %w", p.ID, err)
		}
	}
	f.mux.HandleFunc("GET /federation/{id}/start", f.start)
	f.mux.HandleFunc("GET /federation/{id}/callback", f.callback)
	f.mux.HandleFunc("GET /federation/{id}/metadata", f.metadata)
	f.mux.HandleFunc("POST /federation/{id}/acs", f.assertion)
	f.mux.HandleFunc("GET /federation/{id}/finish", f.finish)
	return f, nil
}

// Choice is a provider as the portal offers it.
type Choice struct {
	Name string `json:"name"`
	URL  string `json:"url"` // on the portal
}

// Choices lists the providers in the order of their file.
func (f *Federation) Choices() []Choice {
	out := make([]Choice, 0, len(f.Providers))
	for _, p := range f.Providers {
		out = append(out, Choice{p.Name, "/federation/" + p.ID + "/start"})
	}
	return out
}

// ServeHTTP sets the headers of every answer and hands over.
func (f *Federation) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	f.mux.ServeHTTP(w, r)
}

func (f *Federation) base(id string) string { return f.PublicURL + "/federation/" + id }

// refusal is why a provider's user is not signed in. The code is shown; the reason is for the log.
type refusal struct{ code, reason string }

func (r *refusal) Error() string { return r.reason }

func refused(code, format string, args ...any) error {
	return &refusal{code, fmt.Sprintf(format, args...)}
}

// pending is what a browser carries, sealed, while it is at the provider: it binds the answer to the browser that asked.
type pending struct {
	Provider string
	State    string // OIDC: state; SAML: ID of the request
	Nonce    string `json:",omitempty"`
	Verifier string `json:",omitempty"` // PKCE
	Stack    string `json:",omitempty"`
	Expires  time.Time
}

func (f *Federation) pendingName() string {
	name := fmt.Sprintf("penstock_pending_%d", f.Port)
	if f.Secure {
		return "__Host-" + name
	}
	return name
}

func (f *Federation) setPending(w http.ResponseWriter, value string, age int) {
	http.SetCookie(w, &http.Cookie{
		Name: f.pendingName(), Value: value, Path: "/", MaxAge: age, HttpOnly: true, Secure: f.Secure, SameSite: http.SameSiteLaxMode,
	})
}

func (f *Federation) keepPending(w http.ResponseWriter, p pending) error {
	p.Expires = f.Now().Add(pendingLife)
	b, err := json.Marshal(p)
	if err != nil {
		return fmt.Errorf("encode what is pending: %w", err)
	}
	f.setPending(w, base64.RawURLEncoding.EncodeToString(f.sealed.Seal(nil, nil, b, []byte(p.Provider))), int(pendingLife/time.Second))
	return nil
}

// pendingOf is what the browser carries for a provider.
func (f *Federation) pendingOf(r *http.Request, provider string) (pending, bool) {
	var p pending
	c, err := r.Cookie(f.pendingName())
	if err != nil {
		return p, false
	}
	b, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err == nil {
		b, err = f.sealed.Open(nil, nil, b, []byte(provider))
	}
	if err != nil || json.Unmarshal(b, &p) != nil || p.Provider != provider || !f.Now().Before(p.Expires) {
		return pending{}, false
	}
	return p, true
}

func same(a, b string) bool { return a != "" && subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

func randomID() string {
	var b [24]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// begin takes one of the places for conversations with providers.
func (f *Federation) begin(r *http.Request) (context.Context, func(), error) {
	select {
	case f.busy <- struct{}{}:
	default:
		return nil, nil, refused("busy", "too many sign-ins are under way")
	}
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	return ctx, func() { cancel(); <-f.busy }, nil
}

// start sends the browser to the provider. ?stack= asks for one stack.
func (f *Federation) start(w http.ResponseWriter, r *http.Request) {
	id, stack := r.PathValue("id"), r.URL.Query().Get("stack")
	ctx, done, err := f.begin(r)
	if err != nil {
		f.fail(w, r, id, err)
		return
	}
	defer done()
	p := pending{Provider: id, Stack: stack}
	var to string
	switch o, s := f.oidc[id], f.saml[id]; {
	case o != nil:
		to, err = o.start(ctx, &p)
	case s != nil:
		to, err = s.start(&p)
	default:
		http.NotFound(w, r)
		return
	}
	if err == nil {
		err = f.keepPending(w, p)
	}
	if err != nil {
		f.fail(w, r, id, err)
		return
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// callback is where OpenID Connect comes back to.
func (f *Federation) callback(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	o := f.oidc[id]
	if o == nil {
		http.NotFound(w, r)
		return
	}
	p, ok := f.pendingOf(r, id)
	f.setPending(w, "", -1) // good for one answer
	v, err := appstream.Visitor{}, error(nil)
	switch q := r.URL.Query(); {
	case !ok:
		err = refused("other-browser", "no sign-in at this provider was begun in this browser, or it took too long")
	case !same(p.State, q.Get("state")):
		err = refused("other-browser", "the state is not that of the request")
	default:
		var ctx context.Context
		var done func()
		if ctx, done, err = f.begin(r); err == nil {
			v, err = o.finish(ctx, p, q)
			done()
		}
	}
	if err != nil {
		f.fail(w, r, id, err)
		return
	}
	t, err := f.SignIn.Open(r.Context(), v, f.Browser.Client(r), f.Browser.Token(r), signin.OpenOptions{Life: o.life()})
	f.enter(w, r, id, t, err)
}

// assertion is where SAML comes back to: a form that another site posts, so that the browser sends no cookie of ours. An answer to a
// request of ours waits for the browser that asked (finish); what the provider began goes in directly.
func (f *Federation) assertion(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	s := f.saml[id]
	if s == nil {
		http.NotFound(w, r)
		return
	}
	ctx, done, err := f.begin(r)
	if err != nil {
		f.fail(w, r, id, err)
		return
	}
	defer done()
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		f.fail(w, r, id, refused("bad-assertion", "the form cannot be read"))
		return
	}
	a, err := s.read(ctx, f.Browser.Client(r).Origin(), r.PostForm.Get("SAMLResponse"), r.PostForm.Get("RelayState"))
	if err != nil {
		f.fail(w, r, id, err)
		return
	}
	o := signin.OpenOptions{Life: a.life, Binding: a.answers, Once: onceOf(id, a.id), OnceUntil: a.until}
	t, err := f.SignIn.Open(r.Context(), a.visitor, f.Browser.Client(r), "", o)
	if err == nil && t.Step == signin.StepBind {
		http.Redirect(w, r, "/federation/"+id+"/finish?"+url.Values{"handle": {t.Value}}.Encode(), http.StatusSeeOther)
		return
	}
	f.enter(w, r, id, t, err)
}

// finish signs in the browser that asked for an assertion.
func (f *Federation) finish(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	p, ok := f.pendingOf(r, id)
	f.setPending(w, "", -1)
	if !ok {
		f.fail(w, r, id, refused("other-browser", "no sign-in at this provider was begun in this browser, or it took too long"))
		return
	}
	t, err := f.SignIn.Bind(r.Context(), r.URL.Query().Get("handle"), p.State, f.Browser.Client(r), f.Browser.Token(r))
	f.enter(w, r, id, t, err)
}

// enter shows the catalogue to a browser that is signed in.
func (f *Federation) enter(w http.ResponseWriter, r *http.Request, id string, t signin.Token, err error) {
	if refusal, ok := errors.AsType[*signin.Refusal](err); ok { // it is on record
		f.Log.Info("federated sign-in was refused", "provider", id, "code", refusal.Code)
		sendBack(w, r, refusal.Code)
		return
	}
	if err != nil {
		f.fail(w, r, id, err)
		return
	}
	f.Browser.Keep(w, t)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// fail shows the portal with the code of a refusal, and puts the reason on record.
func (f *Federation) fail(w http.ResponseWriter, r *http.Request, id string, err error) {
	code, reason := "sign-in-failed", "internal"
	if x, ok := errors.AsType[*refusal](err); ok {
		code, reason = x.code, x.reason
		f.Log.Info("federated sign-in was refused", "provider", id, "code", code, "reason", reason)
	} else {
		f.Log.Warn("federated sign-in failed", "provider", id, "error", err)
	}
	c := f.Browser.Client(r)
	f.Audit.Record(audit.Event{
		Source: audit.SignInSource, Name: "SignIn", Type: audit.SignIn, Identity: audit.StreamingUser("", string(appstream.AuthSAML)),
		SourceIP: c.Source, UserAgent: c.Agent, TLS: c.TLS, ErrorCode: code, ErrorText: reason, Unproved: true, Additional: map[string]any{"provider": id},
	})
	sendBack(w, r, code)
}

// sendBack goes to the portal's own page: nothing of the request decides where to.
func sendBack(w http.ResponseWriter, r *http.Request, code string) {
	http.Redirect(w, r, "/?"+url.Values{"error": {code}}.Encode(), http.StatusSeeOther)
}

// client talks to a provider's server: with bounds, and without following it elsewhere.
func (p *Provider) client() (*http.Client, error) {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: callTimeout, ResponseHeaderTimeout: callTimeout, MaxIdleConns: 4,
		IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if p.CAFile != "" {
		b, err := os.ReadFile(p.CAFile)
		if err != nil {
			return nil, fmt.Errorf("caFile: %w", err)
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("caFile: %s holds no certificate", p.CAFile)
		}
	}
	return &http.Client{
		Transport: bounded{t}, Timeout: callTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// bounded cuts answers that are too long.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.next.RoundTrip(r)
	if err == nil {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	}
	return resp, err
}

// secret reads a secret from a file of the operator's.
func secret(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	s := strings.TrimSpace(string(b))
	if s == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return s, nil
}
