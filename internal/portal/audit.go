package portal

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/audit"
	"penstock.dev/penstock/internal/fault"
)

// record puts an event of a request on record: what the caller set, and how the request came.
func (p *Portal) record(r *http.Request, e audit.Event) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	e.SourceIP, e.UserAgent = host, r.UserAgent()
	if e.Source == "" {
		e.Source = audit.AppStreamSource
	}
	if e.Type == "" {
		e.Type = audit.Action
	}
	if r.TLS != nil {
		e.TLS = &audit.TLS{Version: strings.ReplaceAll(tls.VersionName(r.TLS.Version), " ", "v"), Cipher: tls.CipherSuiteName(r.TLS.CipherSuite), Host: r.Host}
	}
	p.Audit.Record(e)
}

// recordUser is record for a user who is signed in.
func (p *Portal) recordUser(r *http.Request, g appstream.Grant, e audit.Event) {
	e.Identity = audit.StreamingUser(g.UserID, "API")
	if e.Additional == nil {
		e.Additional = map[string]any{}
	}
	e.Additional["stackName"] = g.Stack
	p.record(r, e)
}

// faultText is what a user may learn of an error.
func faultText(err error) string {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f.Error()
	}
	return "internal"
}
