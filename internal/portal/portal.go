// Package portal serves the public plane's pages for users: sign-in by streaming URL, by password and by identity providers, the
// catalogue, launching an application and the hand-over to the endpoint, by top-level navigation with a one-time ticket in the fragment.
package portal

import (
	"context"
	"encoding/json"
	"errors"
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
	"penstock.dev/penstock/internal/control/signin"
	"penstock.dev/penstock/internal/fault"
)

// Options is what a Portal is built from.
type Options struct {
	Control *control.Control
	SignIn  *signin.Service
	Choices func() any     // identity providers, each with name and url; nil: none
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
	p.mux.HandleFunc("GET /api/portal/v1/me", p.me)
	p.mux.HandleFunc("POST /api/portal/v1/launch", p.signedIn(p.launch))
	p.mux.HandleFunc("GET /api/portal/v1/sessions/{id}", p.signedIn(p.session))
	p.mux.HandleFunc("GET /api/portal/v1/applications/{name}/icon", p.signedIn(p.icon))
	p.signInRoutes()
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
	v, err := p.Control.OpenStreamingURL(q.Get("parameters"), q.Get("resolution"))
	if err != nil {
		code := "url-invalid"
		switch {
		case errors.Is(err, appstream.ErrGrantExpired):
			code = "url-expired"
		case !errors.Is(err, appstream.ErrGrantInvalid):
			code = "url-parameters"
		}
		p.Log.Info("streaming URL was refused", "source", r.RemoteAddr, "code", code)
		p.record(r, audit.Event{
			Source: audit.SignInSource, Name: "SignIn", Type: audit.SignIn, ErrorCode: code, ErrorText: err.Error(), Unproved: true,
			Identity: audit.StreamingUser("", string(appstream.AuthAPI)),
		})
		p.sendBack(w, r, code)
		return
	}
	t, err := p.SignIn.Open(r.Context(), v, client(r), p.token(r), signin.OpenOptions{})
	if refusal, ok := errors.AsType[*signin.Refusal](err); ok {
		p.sendBack(w, r, refusal.Code)
		return
	}
	if err != nil {
		p.Log.Error("streaming URL could not be opened", "error", err)
		p.sendBack(w, r, "internal")
		return
	}
	http.SetCookie(w, p.cookie(t))
	to := p.streaming(r, v)
	if to == "" {
		to = "/"
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// streaming is the viewer's URL when the session that a streaming URL leads to streams already: the way there needs no page in between. It is
// empty when the portal's page has to decide, and for everything but a person's window that opens the URL: what looks ahead
// at links, or frames them, gets no ticket. It starts nothing.
func (p *Portal) streaming(r *http.Request, v appstream.Visitor) string {
	if v.Application == "" || v.Builder != "" || r.Header.Get("Sec-Fetch-Dest") != "document" || r.Header.Get("Sec-Purpose") != "" {
		return ""
	}
	ctx, cancel := context.WithTimeout(r.Context(), launchWait)
	defer cancel()
	s, err := p.Control.Streaming(ctx, control.LaunchRequest{Visitor: v, Stack: v.Stack, Application: v.Application, From: p.Client(r).Origin()})
	if err != nil || s == nil {
		return "" // the page asks again, and shows why
	}
	to, err := p.Control.ViewerURL(ctx, s, source(r))
	if err != nil {
		return ""
	}
	p.recordLaunch(r, v, s, v.Application)
	p.recordTicket(r, v, s)
	return to
}

func (p *Portal) recordLaunch(r *http.Request, v appstream.Visitor, s *appstream.Session, application string) {
	p.recordUser(r, v, s.Stack, audit.Event{Name: "LaunchApplication", Additional: map[string]any{
		"application": application, "sessionId": string(s.ID), "endpoint": string(s.Endpoint), "fleetName": s.Fleet,
	}})
}

func (p *Portal) recordTicket(r *http.Request, v appstream.Visitor, s *appstream.Session) {
	p.recordUser(r, v, s.Stack, audit.Event{Name: "IssueTicket", Additional: map[string]any{"sessionId": string(s.ID), "endpoint": string(s.Endpoint)}})
}

// sendBack shows the portal's page with the reason of a refusal, and nobody signed in.
func (p *Portal) sendBack(w http.ResponseWriter, r *http.Request, code string) {
	http.SetCookie(w, p.cookie(signin.Token{}))
	http.Redirect(w, r, "/?"+url.Values{"error": {code}}.Encode(), http.StatusSeeOther)
}

// signedIn lets only browsers through that are signed in; what changes something must also come from our own page.
func (p *Portal) signedIn(next func(http.ResponseWriter, *http.Request, appstream.Visitor)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && !sameOrigin(r) {
			writeError(w, http.StatusForbidden, "cross-site", "the request does not come from the portal's own page")
			return
		}
		si, err := p.SignIn.Lookup(r.Context(), p.token(r))
		if err == nil && si.Step != signin.StepDone {
			err = &signin.Refusal{Code: signin.CodeEnded, Reason: "the sign-in is not finished"}
		}
		if err != nil {
			p.fail(w, r, err)
			return
		}
		next(w, r, si.Visitor)
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

// stackView is a stack of the visitor's with what can be started from it.
type stackView struct {
	Name         string            `json:"name"`
	DisplayName  string            `json:"displayName"`
	Description  string            `json:"description"`
	Unavailable  string            `json:"unavailable"` // why nothing can be started now
	RedirectURL  string            `json:"redirectUrl"`
	FeedbackURL  string            `json:"feedbackUrl"`
	Applications []applicationView `json:"applications"`
}

func (p *Portal) me(w http.ResponseWriter, r *http.Request) {
	si, err := p.SignIn.Lookup(r.Context(), p.token(r))
	if err == nil && si.Step != signin.StepDone {
		p.notSignedIn(w, r, si, "the sign-in is not finished")
		return
	}
	if refusal, ok := errors.AsType[*signin.Refusal](err); ok {
		p.notSignedIn(w, r, nil, refusal.Reason)
		return
	}
	if err != nil {
		p.fail(w, r, err)
		return
	}
	v := si.Visitor
	offers, err := p.Control.Offers(r.Context(), v)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	stacks := make([]stackView, 0, len(offers))
	for _, o := range offers {
		s := stackView{
			Name: o.Stack.Name, DisplayName: o.Stack.DisplayName, Description: o.Stack.Description, Unavailable: o.Unavailable,
			RedirectURL: o.Stack.RedirectURL, FeedbackURL: o.Stack.FeedbackURL, Applications: make([]applicationView, 0, len(o.Applications)),
		}
		if s.DisplayName == "" {
			s.DisplayName = s.Name
		}
		for _, a := range o.Applications {
			view := applicationView{ID: a.Name, DisplayName: a.DisplayName, Description: a.Description}
			if a.IconPath != "" {
				view.IconURL = "/api/portal/v1/applications/" + url.PathEscape(a.Name) + "/icon"
			}
			s.Applications = append(s.Applications, view)
		}
		stacks = append(stacks, s)
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"userId": v.UserID, "authType": v.Auth, "stacks": stacks, "launch": v.Application, "resolution": v.Resolution,
	})
}

func (p *Portal) launch(w http.ResponseWriter, r *http.Request, v appstream.Visitor) {
	var q struct {
		ApplicationID string `json:"applicationId"`
		StackName     string `json:"stackName"`
		Window        struct {
			Width  uint16 `json:"width"`
			Height uint16 `json:"height"`
			Scale  uint16 `json:"scale"`
		} `json:"window"`
	}
	if !readJSON(w, r, &q) {
		return
	}
	if q.StackName == "" || v.Builder != "" {
		q.StackName = v.Stack // the only one of a streaming URL; none where it is a builder's
	}
	if q.ApplicationID == "" || q.StackName == "" && v.Builder == "" {
		writeError(w, http.StatusBadRequest, "bad-request", "applicationId or stackName is missing")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), launchWait)
	defer cancel()
	s, err := p.Control.Launch(ctx, control.LaunchRequest{
		Visitor: v, Stack: q.StackName, Application: q.ApplicationID, Window: appstream.Window(q.Window), From: p.Client(r).Origin(),
	})
	if errors.Is(err, context.DeadlineExceeded) {
		writeError(w, http.StatusServiceUnavailable, "no-capacity", "no machine became ready in time; try again")
		return
	}
	if err != nil {
		p.recordUser(r, v, q.StackName, audit.Event{Name: "LaunchApplication", ErrorCode: "Refused", ErrorText: faultText(err), Additional: map[string]any{"application": q.ApplicationID}})
		p.fail(w, r, err)
		return
	}
	p.recordLaunch(r, v, s, q.ApplicationID)
	p.answer(ctx, w, r, v, s.ID)
}

func (p *Portal) session(w http.ResponseWriter, r *http.Request, v appstream.Visitor) {
	id := appstream.SessionID(r.PathValue("id"))
	s, ok, err := p.Control.Session(r.Context(), id)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	if !ok || s.UserID != v.UserID || s.AuthType != string(v.Auth) || s.Provider != v.Provider || s.Builder != v.Builder || v.Stack != "" && s.Stack != v.Stack {
		writeError(w, http.StatusNotFound, "no-session", "there is no such session of yours")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), launchWait)
	defer cancel()
	p.answer(ctx, w, r, v, id)
}

// answer waits for the session and says where to go.
func (p *Portal) answer(ctx context.Context, w http.ResponseWriter, r *http.Request, v appstream.Visitor, id appstream.SessionID) {
	s, err := p.Control.Ready(ctx, id)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	out := map[string]any{"sessionId": s.ID, "state": "starting", "viewerUrl": "", "code": "", "reason": ""}
	switch s.State {
	case appstream.SessionActive:
		u, err := p.Control.ViewerURL(ctx, s, source(r))
		if err != nil {
			p.fail(w, r, err)
			return
		}
		p.recordTicket(r, v, s)
		out["state"], out["viewerUrl"] = "ready", u
	case appstream.SessionExpired:
		out["state"], out["code"], out["reason"] = "failed", "session-ended", s.EndReason
	case appstream.SessionPending:
	}
	writeJSON(w, http.StatusOK, out)
}

// icon serves an application's icon from this machine's icon themes.
func (p *Portal) icon(w http.ResponseWriter, r *http.Request, _ appstream.Visitor) {
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

// fail answers with a fault's reason, or with nothing but a number when the failure is ours.
func (p *Portal) fail(w http.ResponseWriter, r *http.Request, err error) {
	if refusal, ok := errors.AsType[*signin.Refusal](err); ok {
		p.refuse(w, refusal)
		return
	}
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
	case fault.NotAvailable, fault.Limit, fault.Throttled:
		status = http.StatusServiceUnavailable
	case fault.NotPermitted, fault.Denied:
		status = http.StatusForbidden
	default:
	}
	code := strings.ReplaceAll(f.Resource, " ", "-")
	if code == "" {
		code = "busy"
	}
	writeError(w, status, code, f.Error())
}

// readJSON reads a small body; what is not one is answered.
func readJSON(w http.ResponseWriter, r *http.Request, into any) bool {
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(into); err != nil {
		writeError(w, http.StatusBadRequest, "bad-request", "the body is not JSON, or too long")
		return false
	}
	return true
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func writeError(w http.ResponseWriter, status int, code, reason string) {
	writeJSON(w, status, map[string]string{"code": code, "reason": reason})
}
