// Package portal serves the public plane's pages for users: sign-in by streaming URL, the catalogue, launching an application and
// the hand-over to the endpoint, by top-level navigation with a one-time ticket in the fragment.
package portal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/audit"
	"penstock.dev/penstock/internal/control"
	"penstock.dev/penstock/internal/fault"
)

// Options is what a Portal is built from.
type Options struct {
	Control *control.Control
	Pages   http.Handler   // the portal's page and assets
	Port    uint16         // where it is served; part of the cookie's name, because cookies do not tell ports apart
	Secure  bool           // served over TLS
	Audit   audit.Recorder // of sign-ins and launches; nil keeps no record
	Log     *slog.Logger
}

// Portal is the handler of the public plane's user pages.
type Portal struct {
	Options
	mux *http.ServeMux
}

const (
	launchWait  = 20 * time.Second // a launch call answers "starting" after that
	maxBody     = 4 << 10
	csrfHeader  = "X-Penstock-Portal"
	maxIconSize = 1 << 20
)

// New builds the handler.
func New(o Options) *Portal {
	o.Audit = audit.Or(o.Audit)
	p := &Portal{Options: o, mux: http.NewServeMux()}
	p.mux.HandleFunc("GET /authenticate", p.authenticate)
	p.mux.HandleFunc("GET /api/portal/v1/me", p.signedIn(p.me))
	p.mux.HandleFunc("POST /api/portal/v1/launch", p.signedIn(p.launch))
	p.mux.HandleFunc("GET /api/portal/v1/sessions/{id}", p.signedIn(p.session))
	p.mux.HandleFunc("GET /api/portal/v1/applications/{name}/icon", p.signedIn(p.icon))
	p.mux.HandleFunc("POST /api/portal/v1/signout", p.signOut)
	p.mux.Handle("GET /", o.Pages)
	return p
}

// ServeHTTP sets the headers of every page and hands over.
func (p *Portal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "+
		"connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	p.mux.ServeHTTP(w, r)
}

// authenticate opens a streaming URL: the browser keeps a cookie, the URL's parameters leave the address bar.
func (p *Portal) authenticate(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	g, token, err := p.Control.SignIn(q.Get("parameters"), q.Get("resolution"))
	if err != nil {
		code, reason := "url-invalid", err.Error()
		switch {
		case errors.Is(err, appstream.ErrGrantExpired):
			code = "url-expired"
		case !errors.Is(err, appstream.ErrGrantInvalid):
			code = "url-parameters"
		}
		p.Log.Info("streaming URL was refused", "source", r.RemoteAddr, "code", code)
		p.record(r, audit.Event{Source: audit.SignInSource, Name: "SignIn", Type: audit.SignIn, ErrorCode: code, ErrorText: reason, Unproved: true, Identity: audit.StreamingUser("", "API")})
		http.SetCookie(w, p.cookie("", -1))
		http.Redirect(w, r, "/?"+url.Values{"error": {code}, "reason": {reason}}.Encode(), http.StatusSeeOther)
		return
	}
	p.Log.Info("user signed in by streaming URL", "stack", g.Stack, "user", g.UserID, "source", r.RemoteAddr)
	p.recordUser(r, g, audit.Event{Source: audit.SignInSource, Name: "SignIn", Type: audit.SignIn})
	http.SetCookie(w, p.cookie(token, int(control.SignInLife/time.Second)))
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (p *Portal) cookieName() string { return fmt.Sprintf("penstock_session_%d", p.Port) }

func (p *Portal) cookie(value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: p.cookieName(), Value: value, Path: "/", MaxAge: maxAge,
		HttpOnly: true, Secure: p.Secure, SameSite: http.SameSiteLaxMode,
	}
}

// signedIn lets only browsers with a valid cookie through; what changes something must also come from our own page.
func (p *Portal) signedIn(next func(http.ResponseWriter, *http.Request, appstream.Grant)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && !sameOrigin(r) {
			writeError(w, http.StatusForbidden, "cross-site", "the request does not come from the portal's own page")
			return
		}
		c, err := r.Cookie(p.cookieName())
		if err != nil {
			writeError(w, http.StatusUnauthorized, "not-signed-in", "open a streaming URL to sign in")
			return
		}
		g, err := p.Control.SignedIn(c.Value)
		if err != nil {
			writeError(w, http.StatusUnauthorized, "not-signed-in", "the sign-in has ended; open a streaming URL to sign in again")
			return
		}
		next(w, r, g)
	}
}

func sameOrigin(r *http.Request) bool {
	if r.Header.Get(csrfHeader) != "1" {
		return false
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" {
		return site == "same-origin"
	}
	u, err := url.Parse(r.Header.Get("Origin"))
	return err == nil && u.Host == r.Host
}

type applicationView struct {
	ID          string `json:"id"`
	DisplayName string `json:"displayName"`
	Description string `json:"description"`
	IconURL     string `json:"iconUrl"`
}

func (p *Portal) me(w http.ResponseWriter, r *http.Request, g appstream.Grant) {
	apps, err := p.Control.Applications(r.Context())
	if err != nil {
		p.fail(w, r, err)
		return
	}
	stacks, err := p.Control.Stacks(r.Context(), []string{g.Stack})
	if err != nil {
		p.fail(w, r, err)
		return
	}
	s := stacks[0]
	views := make([]applicationView, 0, len(apps))
	for _, a := range apps {
		v := applicationView{ID: a.Name, DisplayName: a.DisplayName, Description: a.Description}
		if a.IconPath != "" {
			v.IconURL = "/api/portal/v1/applications/" + url.PathEscape(a.Name) + "/icon"
		}
		views = append(views, v)
	}
	display := s.DisplayName
	if display == "" {
		display = s.Name
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"stackName": s.Name, "stackDisplayName": display, "description": s.Description, "userId": g.UserID,
		"applications": views, "launch": g.Application, "resolution": g.Resolution,
		"redirectUrl": s.RedirectURL, "feedbackUrl": s.FeedbackURL,
	})
}

func (p *Portal) launch(w http.ResponseWriter, r *http.Request, g appstream.Grant) {
	var q struct {
		ApplicationID string `json:"applicationId"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&q); err != nil || q.ApplicationID == "" {
		writeError(w, http.StatusBadRequest, "bad-request", "applicationId is missing or the body is not JSON")
		return
	}
	if g.Application != "" && q.ApplicationID != g.Application {
		writeError(w, http.StatusForbidden, "not-granted", "the streaming URL names another application")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), launchWait)
	defer cancel()
	s, err := p.Control.Launch(ctx, control.LaunchRequest{Grant: g, Application: q.ApplicationID, Resolution: g.Resolution})
	if errors.Is(err, context.DeadlineExceeded) {
		writeError(w, http.StatusServiceUnavailable, "no-capacity", "no machine became ready in time; try again")
		return
	}
	if err != nil {
		p.recordUser(r, g, audit.Event{Name: "LaunchApplication", ErrorCode: "Refused", ErrorText: faultText(err), Additional: map[string]any{"application": q.ApplicationID}})
		p.fail(w, r, err)
		return
	}
	p.recordUser(r, g, audit.Event{Name: "LaunchApplication", Additional: map[string]any{
		"application": q.ApplicationID, "sessionId": string(s.ID), "endpoint": string(s.Endpoint), "fleetName": s.Fleet,
	}})
	p.answer(ctx, w, r, g, s.ID)
}

func (p *Portal) session(w http.ResponseWriter, r *http.Request, g appstream.Grant) {
	id := appstream.SessionID(r.PathValue("id"))
	s, ok, err := p.Control.Session(r.Context(), id)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	if !ok || s.UserID != g.UserID || s.Stack != g.Stack {
		writeError(w, http.StatusNotFound, "no-session", "there is no such session of yours")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), launchWait)
	defer cancel()
	p.answer(ctx, w, r, g, id)
}

// answer waits for the session and says where to go.
func (p *Portal) answer(ctx context.Context, w http.ResponseWriter, r *http.Request, g appstream.Grant, id appstream.SessionID) {
	s, err := p.Control.Ready(ctx, id)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	out := map[string]any{"sessionId": s.ID, "state": "starting", "viewerUrl": "", "code": "", "reason": ""}
	switch s.State {
	case appstream.SessionActive:
		u, err := p.Control.ViewerURL(ctx, s)
		if err != nil {
			p.fail(w, r, err)
			return
		}
		p.recordUser(r, g, audit.Event{Name: "IssueTicket", Additional: map[string]any{"sessionId": string(s.ID), "endpoint": string(s.Endpoint)}})
		out["state"], out["viewerUrl"] = "ready", u
	case appstream.SessionExpired:
		out["state"], out["code"], out["reason"] = "failed", "session-ended", s.EndReason
	case appstream.SessionPending:
	}
	writeJSON(w, http.StatusOK, out)
}

// icon serves an application's icon from this machine's icon themes.
func (p *Portal) icon(w http.ResponseWriter, r *http.Request, _ appstream.Grant) {
	apps, err := p.Control.Applications(r.Context())
	if err != nil {
		p.fail(w, r, err)
		return
	}
	for _, a := range apps {
		if a.Name != r.PathValue("name") || a.IconPath == "" {
			continue
		}
		body, err := os.ReadFile(a.IconPath)
		if err != nil || len(body) > maxIconSize {
			break
		}
		contentType := "image/png"
		if filepath.Ext(a.IconPath) == ".svg" {
			contentType = "image/svg+xml"
		}
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(body)
		return
	}
	http.NotFound(w, r)
}

func (p *Portal) signOut(w http.ResponseWriter, r *http.Request) {
	if !sameOrigin(r) {
		writeError(w, http.StatusForbidden, "cross-site", "the request does not come from the portal's own page")
		return
	}
	http.SetCookie(w, p.cookie("", -1))
	w.WriteHeader(http.StatusNoContent)
}

// fail answers with a fault's reason, or with nothing but a number when the failure is ours.
func (p *Portal) fail(w http.ResponseWriter, r *http.Request, err error) {
	f, ok := errors.AsType[*fault.Error](err)
	if !ok {
		p.Log.Error("portal request failed", "path", r.URL.Path, "error", err)
		writeError(w, http.StatusInternalServerError, "internal", "something went wrong here; try again")
		return
	}
	status := http.StatusBadRequest
	switch f.Kind {
	case fault.NotFound:
		status = http.StatusNotFound
	case fault.NotAvailable, fault.Limit:
		status = http.StatusServiceUnavailable
	case fault.NotPermitted, fault.Denied:
		status = http.StatusForbidden
	default:
	}
	writeError(w, status, strings.ReplaceAll(f.Resource, " ", "-"), f.Error())
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func writeError(w http.ResponseWriter, status int, code, reason string) {
	writeJSON(w, status, map[string]string{"code": code, "reason": reason})
}
