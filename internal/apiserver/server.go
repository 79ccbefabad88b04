// Package apiserver is the HTTP front door: it authenticates a request, decodes it, asks the policies, calls the
// handler and renders the answer, for every AWS protocol that Penstock speaks, all on one URL.
package apiserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"

	"penstock.dev/penstock/internal/audit"
	"penstock.dev/penstock/internal/control"
	"penstock.dev/penstock/internal/control/access"
	"penstock.dev/penstock/internal/control/network"
	"penstock.dev/penstock/internal/control/signin"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/wire/query"
	"penstock.dev/penstock/internal/wire/sigv4"
)

// credentials finds access keys. A key that nobody has is a fault of kind NotFound.
type credentials interface {
	Lookup(ctx context.Context, accessKeyID string) (iam.Credential, error)
}

// authorizer decides what a principal may do.
type authorizer interface {
	Authorize(r iam.Request) iam.Decision
}

// assertions verifies what SAML providers say of who assumes a role, and uses it up.
type assertions interface {
	Assertion(ctx context.Context, providerARN, encoded string) (*access.SAML, error)
	Spend(ctx context.Context, a *access.SAML) error
}

// Options are the parts that a Server needs. AccountID, Region and Credentials are required.
type Options struct {
	AccountID string // 12 digits
	Region    string

	Credentials credentials
	Authorizer  authorizer // nil: the account's root principal may do everything, nobody else anything
	Roles       roles      // nil: IAM shows no roles
	// Access keeps users, roles and policies, and decides in the place of Authorizer and Roles. With nil, identities are fixed.
	Access *access.Service

	Control *control.Control // nil: no AppStream operation is served
	Network *network.Service // nil: no EC2 operation is served
	Users   *signin.Service  // nil: no operation on the user pool is served

	// SAML verifies assertions; nil: AssumeRoleWithSAML is not served.
	SAML assertions

	// PageKey is a secret from which tokens of pages are made; with nil they end with the server.
	PageKey []byte

	MaxBodyBytes   int64         // of one request; 0 for 1 MiB
	MaxRequests    int           // at one time; more are told to slow down; 0 for 256
	HandlerTimeout time.Duration // 0 for 30 s
	BodyTimeout    time.Duration // for the body to arrive; 0 for 20 s
	ClockSkew      time.Duration // 0 for 5 min, as AWS

	Audit audit.Recorder // of every request; nil keeps no record

	Log *slog.Logger     // nil discards
	Now func() time.Time // nil for time.Now
}

// Server answers API requests. It is an http.Handler and safe for concurrent use.
type Server struct {
	options Options
	log     *slog.Logger
	tables  map[service]*table
	pager   *pager
	slots   chan struct{} // holds one item for each request that is being answered
	looks   chan struct{} // holds one item for each unsigned body that is being looked at
	proofs  chan struct{} // holds one item for each unsigned body that is being read for an assertion
}

// An unsigned request is refused, and its body only tells in which form. So little of few of them is read.
const (
	maxLooks     = 16
	maxLookBytes = 8 << 10
	maxLookTime  = time.Second
)

// A request to assume a role by an assertion is not signed. As many are read at one time, so much of each, for so long.
const (
	maxProofs     = 32
	maxProofBytes = 192 << 10 // 100,000 characters of an assertion, escaped
	maxProofTime  = 5 * time.Second
)

// New builds a server of every operation that its handlers' files list. It fails when two handlers claim one operation,
// or when one claims an operation that is not in the model.
func New(o Options) (*Server, error) {
	if o.AccountID == "" || o.Region == "" || o.Credentials == nil {
		return nil, errors.New("apiserver needs an account, a region and credentials")
	}
	if o.Authorizer == nil {
		o.Authorizer = iam.AccountOwner{AccountID: o.AccountID}
	}
	o.Audit = audit.Or(o.Audit)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	setDefault(&o.MaxBodyBytes, 1<<20)
	setDefault(&o.MaxRequests, 256)
	setDefault(&o.HandlerTimeout, 30*time.Second)
	setDefault(&o.BodyTimeout, 20*time.Second)
	setDefault(&o.ClockSkew, 5*time.Minute)
	s := &Server{
		options: o, log: o.Log, slots: make(chan struct{}, o.MaxRequests), looks: make(chan struct{}, maxLooks),
		proofs: make(chan struct{}, maxProofs),
	}
	var err error
	if s.pager, err = newPager(o.PageKey); err != nil {
		return nil, err
	}
	s.tables, err = newTables(s.appstreamOperations(), s.ec2Operations(), s.iamOperations(), s.stsOperations())
	if err != nil {
		return nil, err
	}
	return s, nil
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" && r.URL.Path != "" {
		http.Error(w, "Penstock answers AWS API requests at /.", http.StatusNotFound)
		return
	}
	switch r.Method {
	case http.MethodPost:
	case http.MethodGet, http.MethodHead:
		if r.URL.RawQuery == "" {
			s.greet(w)
			return
		}
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		http.Error(w, "Penstock answers AWS API requests by POST.", http.StatusMethodNotAllowed)
		return
	}
	x := &exchange{server: s, request: r, requestID: newRequestID(), started: s.options.Now()}
	x.respond(w)
}

// greet tells a person who opened the API's address in a browser what it is.
func (s *Server) greet(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	fmt.Fprintf(w, "This is Penstock's API (AppStream 2.0, EC2, IAM and STS) for region %s.\n"+
		"It is not a page to read: point the AWS CLI at it with --endpoint-url, or an SDK with its endpoint option.\n", s.options.Region)
}

// newRequestID is a random UUID, as AWS's request IDs are.
func newRequestID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// exchange is one request on its way to its answer.
type exchange struct {
	server    *Server
	request   *http.Request
	requestID string
	started   time.Time

	signature    *sigv4.Signature // as stated; authenticate proves it
	signatureErr error

	service    service // 0 until it is known
	protocol   protocol
	operation  string
	credential iam.Credential // that the signature names
	principal  iam.Principal  // proved

	// For the record.
	proof         *proof // of the caller, once it was asked
	input, output shaped
	named         []string // ARNs of the resources that the request names
	refusalText   string
}

// respond answers the request, whatever happens in its handler.
func (x *exchange) respond(w http.ResponseWriter) {
	a := x.answer(w)
	x.record(a)
	h := w.Header()
	h.Set("Content-Type", a.contentType)
	h.Set("X-Amzn-Requestid", x.requestID)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if a.close {
		h.Set("Connection", "close")
	}
	w.WriteHeader(a.status)
	_, err := w.Write(a.body)
	x.server.log.Debug("answered", "service", x.service.signingName(), "operation", x.operation, "principal", x.principal.ARN(),
		"request", x.requestID, "status", a.status, "code", a.code, "took", x.server.options.Now().Sub(x.started), "write_error", err)
}

// answer is a rendered answer.
type answer struct {
	status      int
	contentType string
	body        []byte
	code        string // of an error
	close       bool   // the request's body was not read to its end
}

func (x *exchange) answer(w http.ResponseWriter) (a answer) {
	s := x.server
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("handler panicked", "request", x.requestID, "operation", x.operation, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			a = x.refuse(x.internal())
		}
	}()
	ctx, cancel := context.WithTimeout(x.request.Context(), s.options.HandlerTimeout)
	defer cancel()
	x.route()
	if x.signatureErr != nil && x.protocol == queryProtocol {
		if form, body, ok := x.unsigned(w); ok {
			return x.prove(ctx, form, body)
		}
	}
	if err := x.identify(ctx); err != nil {
		x.limitRest(w)
		return x.fail(err)
	}
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		x.limitRest(w)
		return x.refuse(x.throttled())
	}
	body, err := x.readBody(w)
	if err != nil {
		a = x.fail(err)
		a.close = true
		return a
	}
	out, err := x.handle(ctx, body)
	if err != nil {
		return x.fail(err)
	}
	return out
}

// unsigned looks at a request without a signature. It is true for one to assume a role by an assertion, of which it has read all.
func (x *exchange) unsigned(w http.ResponseWriter) (form *query.Form, body []byte, ok bool) {
	if e, missing := errors.AsType[*sigv4.Error](x.signatureErr); x.server.options.SAML == nil || !missing || e.Problem != sigv4.Missing || x.request.ContentLength > maxProofBytes {
		x.look(w)
		return nil, nil, false
	}
	select {
	case x.server.proofs <- struct{}{}:
		defer func() { <-x.server.proofs }()
	default:
		return nil, nil, false
	}
	if x.request.Body != nil {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(maxProofTime)) // a test's writer has none
		var err error
		if body, err = io.ReadAll(http.MaxBytesReader(w, x.request.Body, maxProofBytes)); err != nil {
			return nil, nil, false
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	}
	form, err := x.parseForm(body)
	if err != nil {
		return nil, nil, false
	}
	x.routeForm(form)
	return form, body, x.service == sts && x.operation == withSAML
}

// prove answers a request whose proof is in its body.
func (x *exchange) prove(ctx context.Context, form *query.Form, body []byte) answer {
	select {
	case x.server.slots <- struct{}{}:
		defer func() { <-x.server.slots }()
	default:
		return x.refuse(x.throttled())
	}
	out, err := x.perform(ctx, form, body)
	if err != nil {
		return x.fail(err)
	}
	return out
}

// look reads the start of an unsigned body for the name of its service, so that its sender can read the refusal.
func (x *exchange) look(w http.ResponseWriter) {
	select {
	case x.server.looks <- struct{}{}:
		defer func() { <-x.server.looks }()
	default:
		return
	}
	var start []byte
	if x.request.Body != nil {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(maxLookTime)) // a test's writer has none
		start, _ = io.ReadAll(io.LimitReader(x.request.Body, maxLookBytes))            // what came by then
	}
	if form, err := x.parseForm(start); err == nil {
		x.routeForm(form)
	}
}

// limitRest bounds the time that net/http waits for the rest of a body that nobody will read.
func (x *exchange) limitRest(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(maxLookTime)) // a test's writer has none
}

// readBody reads the whole body, at most the bound and within its time.
func (x *exchange) readBody(w http.ResponseWriter) ([]byte, error) {
	o := &x.server.options
	if x.request.Body == nil || x.request.ContentLength == 0 {
		return nil, nil
	}
	if x.request.ContentLength > o.MaxBodyBytes {
		return nil, x.tooLarge()
	}
	rc := http.NewResponseController(w)
	// A writer without deadlines, as in tests, is one without a slow client.
	deadlineErr := rc.SetReadDeadline(time.Now().Add(o.BodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, x.request.Body, o.MaxBodyBytes))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, x.tooLarge()
	}
	if err != nil {
		return nil, x.cutShort() // the deadline stays, or net/http would wait for the rest of the body
	}
	if deadlineErr == nil {
		if err := rc.SetReadDeadline(time.Time{}); err != nil {
			return nil, x.cutShort()
		}
	}
	return body, nil
}

// sourceIP is the client's address.
func sourceIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
