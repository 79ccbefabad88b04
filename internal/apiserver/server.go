// Package apiserver is the HTTP front door: it authenticates a request, decodes it, asks the policies, calls the
// handler and renders the answer, for every AWS protocol that Penstock speaks, all on one URL.
package apiserver

import "penstock.dev/penstock/internal/control"

// Server answers API requests. It is an http.Handler and safe for concurrent use.
type Server struct {
	options Options
}

// Options are the parts that a Server needs.
type Options struct {
	AccountID string
	Region    string
	Control   *control.Control // answers AppStream operations; nil: none is served
}
