package portal

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/audit"
	"penstock.dev/penstock/internal/control/signin"
	"penstock.dev/penstock/internal/fault"
)

// record puts an event of a request on record: what the caller set, and how the request came.
func (p *Portal) record(r *http.Request, e audit.Event) {
	c := client(r)
	e.SourceIP, e.UserAgent, e.TLS = c.Source, c.Agent, c.TLS
	if e.Source == "" {
		e.Source = audit.AppStreamSource
	}
	if e.Type == "" {
		e.Type = audit.Action
	}
	p.Audit.Record(e)
}

// client is where a request comes from.
func client(r *http.Request) signin.Client {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	agent := r.UserAgent()
	c := signin.Client{Source: host, Agent: agent[:min(len(agent), maxAgent)]}
	if r.TLS != nil {
		c.TLS = &audit.TLS{Version: strings.ReplaceAll(tls.VersionName(r.TLS.Version), " ", "v"), Cipher: tls.CipherSuiteName(r.TLS.CipherSuite), Host: r.Host}
	}
	return c
}

// source is the address that a request comes from; zero when it is none.
func source(r *http.Request) netip.Addr {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}

// maxAgent bounds what is kept of a User-Agent.
const maxAgent = 256

// recordUser is record for a user who is signed in and does something with a stack.
func (p *Portal) recordUser(r *http.Request, v appstream.Visitor, stack string, e audit.Event) {
	e.Identity = audit.StreamingUser(v.UserID, string(v.Auth))
	if e.Additional == nil {
		e.Additional = map[string]any{}
	}
	if v.Builder != "" {
		e.Additional["builder"] = string(v.Builder)
	} else {
		e.Additional["stackName"] = stack
	}
	p.record(r, e)
}

// faultText is what a user may learn of an error.
func faultText(err error) string {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f.Error()
	}
	return "internal"
}
