package portal

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"penstock.dev/penstock/internal/control/signin"
)

func (p *Portal) signInRoutes() {
	const base = "POST /api/portal/v1/"
	p.mux.HandleFunc(base+"signin", p.own(p.password))
	p.mux.HandleFunc(base+"signin/new-password", p.own(p.newPassword))
	p.mux.HandleFunc(base+"signin/code", p.own(p.code))
	p.mux.HandleFunc(base+"signin/enrol", p.own(p.enrol))
	p.mux.HandleFunc(base+"signin/enrol/confirm", p.own(p.confirmFactor))
	p.mux.HandleFunc(base+"reset", p.own(p.requestReset))
	p.mux.HandleFunc(base+"reset/confirm", p.own(p.confirmReset))
	p.mux.HandleFunc(base+"account/password", p.own(p.changePassword))
	p.mux.HandleFunc(base+"account/second-factor", p.own(p.addFactor))
	p.mux.HandleFunc(base+"account/second-factor/remove", p.own(p.removeFactor))
	p.mux.HandleFunc("GET /api/portal/v1/account", p.account)
	p.mux.HandleFunc(base+"signout", p.own(p.signOut))
}

// own lets only requests of the portal's own page through.
func (p *Portal) own(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !sameOrigin(r) {
			writeError(w, http.StatusForbidden, "cross-site", "the request does not come from the portal's own page")
			return
		}
		next(w, r)
	}
}

// cookieName is the name of the sign-in's cookie. Over TLS the prefix has the browser refuse one that another host or a page without
// TLS set. Cookies do not tell ports apart: the name does.
func (p *Portal) cookieName() string {
	name := fmt.Sprintf("penstock_session_%d", p.Port)
	if p.Secure {
		return "__Host-" + name
	}
	return name
}

// cookie keeps a sign-in in the browser, or removes it when there is no token. The server decides when it ends.
func (p *Portal) cookie(t signin.Token) *http.Cookie {
	age := -1
	if t.Value != "" {
		age = max(1, int(math.Ceil(time.Until(t.Expires).Seconds())))
	}
	return &http.Cookie{
		Name: p.cookieName(), Value: t.Value, Path: "/", MaxAge: age, HttpOnly: true, Secure: p.Secure, SameSite: http.SameSiteLaxMode,
	}
}

// token is what the browser keeps of a sign-in; empty when there is none.
func (p *Portal) token(r *http.Request) string {
	c, err := r.Cookie(p.cookieName())
	if err != nil {
		return ""
	}
	return c.Value
}

// Keep has the browser keep a sign-in, Token is what it keeps and Client where it is: for sign-ins that begin elsewhere.
func (p *Portal) Keep(w http.ResponseWriter, t signin.Token) { http.SetCookie(w, p.cookie(t)) }

// Token is what the browser keeps of a sign-in; empty when there is none.
func (p *Portal) Token(r *http.Request) string { return p.token(r) }

// Client is where a request comes from.
func (p *Portal) Client(r *http.Request) signin.Client { return client(r) }

// notSignedIn answers what the visitor can do to sign in, and at which step an unfinished sign-in is.
func (p *Portal) notSignedIn(w http.ResponseWriter, r *http.Request, si *signin.SignIn, reason string) {
	has, err := p.SignIn.HasUsers(r.Context())
	if err != nil {
		p.fail(w, r, err)
		return
	}
	signIn := map[string]any{"password": has, "step": "", "userId": ""}
	if p.Choices != nil {
		signIn["providers"] = p.Choices()
	}
	if si != nil {
		signIn["step"], signIn["userId"] = si.Step, si.Visitor.UserID
	}
	writeJSON(w, http.StatusUnauthorized, map[string]any{"code": signin.CodeEnded, "reason": reason, "signIn": signIn})
}

// refuse answers why a sign-in went no further.
func (p *Portal) refuse(w http.ResponseWriter, refusal *signin.Refusal) {
	status := http.StatusUnauthorized
	switch refusal.Code {
	case signin.CodeWait:
		status = http.StatusTooManyRequests
		w.Header().Set("Retry-After", strconv.Itoa(int(refusal.Wait/time.Second)))
	case signin.CodeNoRecord:
		status = http.StatusServiceUnavailable
	case signin.CodeWeak:
		status = http.StatusUnprocessableEntity
	case signin.CodeWrong, signin.CodeWrongCode, signin.CodeDisabled, signin.CodeExpired, signin.CodeStep:
		status = http.StatusForbidden
	}
	writeError(w, status, refusal.Code, refusal.Reason)
}

// goOn hands the browser its new token and says which step is next.
func (p *Portal) goOn(w http.ResponseWriter, r *http.Request, t signin.Token, err error) {
	if err != nil {
		p.fail(w, r, err)
		return
	}
	http.SetCookie(w, p.cookie(t))
	out := map[string]any{"step": t.Step}
	if len(t.RecoveryCodes) > 0 {
		out["recoveryCodes"] = t.RecoveryCodes
	}
	writeJSON(w, http.StatusOK, out)
}

func (p *Portal) password(w http.ResponseWriter, r *http.Request) {
	var q struct{ UserName, Password string }
	if readJSON(w, r, &q) {
		t, err := p.SignIn.PasswordSignIn(r.Context(), q.UserName, q.Password, client(r), p.token(r))
		p.goOn(w, r, t, err)
	}
}

func (p *Portal) newPassword(w http.ResponseWriter, r *http.Request) {
	var q struct{ Password string }
	if readJSON(w, r, &q) {
		t, err := p.SignIn.ChooseNewPassword(r.Context(), p.token(r), q.Password, client(r))
		p.goOn(w, r, t, err)
	}
}

func (p *Portal) code(w http.ResponseWriter, r *http.Request) {
	var q struct{ Code string }
	if readJSON(w, r, &q) {
		t, err := p.SignIn.CheckFactor(r.Context(), p.token(r), q.Code, client(r))
		p.goOn(w, r, t, err)
	}
}

func (p *Portal) enrol(w http.ResponseWriter, r *http.Request) {
	e, err := p.SignIn.Enrol(r.Context(), p.token(r))
	p.enrolment(w, r, e, err)
}

func (p *Portal) addFactor(w http.ResponseWriter, r *http.Request) {
	var q struct{ Password string }
	if readJSON(w, r, &q) {
		e, err := p.SignIn.AddFactor(r.Context(), p.token(r), q.Password, client(r))
		p.enrolment(w, r, e, err)
	}
}

// enrolment answers the seed of a second factor, as text and as the modules of a QR code.
func (p *Portal) enrolment(w http.ResponseWriter, r *http.Request, e signin.Enrolment, err error) {
	if err != nil {
		p.fail(w, r, err)
		return
	}
	rows, err := qrRows(e.URI)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{"secret": e.Secret, "uri": e.URI, "qr": rows})
}

func (p *Portal) confirmFactor(w http.ResponseWriter, r *http.Request) {
	var q struct{ Code string }
	if readJSON(w, r, &q) {
		t, err := p.SignIn.ConfirmFactor(r.Context(), p.token(r), q.Code, client(r))
		p.goOn(w, r, t, err)
	}
}

func (p *Portal) removeFactor(w http.ResponseWriter, r *http.Request) {
	var q struct{ Password string }
	if !readJSON(w, r, &q) {
		return
	}
	if err := p.SignIn.RemoveFactor(r.Context(), p.token(r), q.Password, client(r)); err != nil {
		p.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// requestReset answers the same whoever is asked for.
func (p *Portal) requestReset(w http.ResponseWriter, r *http.Request) {
	var q struct{ UserName string }
	if !readJSON(w, r, &q) {
		return
	}
	if err := p.SignIn.RequestReset(q.UserName, client(r)); err != nil {
		p.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}

func (p *Portal) confirmReset(w http.ResponseWriter, r *http.Request) {
	var q struct{ UserName, Code, Password string }
	if !readJSON(w, r, &q) {
		return
	}
	if err := p.SignIn.Reset(r.Context(), q.UserName, q.Code, q.Password, client(r)); err != nil {
		p.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (p *Portal) changePassword(w http.ResponseWriter, r *http.Request) {
	var q struct{ Old, Password string }
	if readJSON(w, r, &q) {
		t, err := p.SignIn.ChangePassword(r.Context(), p.token(r), q.Old, q.Password, client(r))
		p.goOn(w, r, t, err)
	}
}

// account tells a user of the pool about the second factor.
func (p *Portal) account(w http.ResponseWriter, r *http.Request) {
	a, err := p.SignIn.Account(r.Context(), p.token(r))
	if err != nil {
		p.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, a)
}

func (p *Portal) signOut(w http.ResponseWriter, r *http.Request) {
	var q struct{ Everywhere bool }
	if !readJSON(w, r, &q) {
		return
	}
	if err := p.SignIn.SignOut(r.Context(), p.token(r), q.Everywhere, client(r)); err != nil {
		p.fail(w, r, err)
		return
	}
	http.SetCookie(w, p.cookie(signin.Token{}))
	w.WriteHeader(http.StatusNoContent)
}
