package apiserver

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	"penstock.dev/penstock/internal/audit"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/wire/awsjson"
	"penstock.dev/penstock/internal/wire/awsquery"
	"penstock.dev/penstock/internal/wire/ec2query"
	"penstock.dev/penstock/internal/wire/query"
	"penstock.dev/penstock/internal/wire/shape"
	"penstock.dev/penstock/internal/wire/sigv4"
)

// Caller is who asks, for which account and region, and under which request ID. Handlers get it by value.
type Caller struct {
	Principal iam.Principal
	AccountID string // 12 digits
	Region    string
	RequestID string
	SourceIP  string
	Action    string // "ec2:CreateVpc"

	proof *proof // nil where identities are fixed
}

// proof is the credential that a caller proved, and what conditions may ask for.
type proof struct {
	credential iam.Credential
	question   iam.Request
	identity   audit.Identity // of a caller who proved itself in the request; the handler sets it
}

// operation is one operation of a service and the handler that answers it.
type operation struct {
	service service
	name    string
	in, out reflect.Type // struct types
	tidy    func(in any) // makes of the input what the model has, where AWS's clients send it otherwise; may be nil
	call    func(ctx context.Context, c Caller, in any) (any, error)
}

// appstreamOp ties an AppStream operation to its handler. The handler gets input that meets the model's constraints;
// it answers with a *fault.Error for what the caller may learn, any other error is internal.
func appstreamOp[In, Out any](name string, fn func(context.Context, Caller, *In) (*Out, error)) operation {
	return op(appStream, name, fn)
}

// ec2Op is appstreamOp for EC2. A request with DryRun is answered before the handler: handlers never see one.
func ec2Op[In, Out any](name string, fn func(context.Context, Caller, *In) (*Out, error)) operation {
	return op(ec2, name, fn)
}

// tidied is an operation whose input is tidied before it is held against the model.
func tidied[In any](o operation, tidy func(*In)) operation {
	o.tidy = func(in any) { tidy(in.(*In)) }
	return o
}

// iamOp is appstreamOp for IAM.
func iamOp[In, Out any](name string, fn func(context.Context, Caller, *In) (*Out, error)) operation {
	return op(iamService, name, fn)
}

// stsOp is appstreamOp for STS.
func stsOp[In, Out any](name string, fn func(context.Context, Caller, *In) (*Out, error)) operation {
	return op(sts, name, fn)
}

func op[In, Out any](s service, name string, fn func(context.Context, Caller, *In) (*Out, error)) operation {
	return operation{
		service: s,
		name:    name,
		in:      reflect.TypeFor[In](),
		out:     reflect.TypeFor[Out](),
		call: func(ctx context.Context, c Caller, in any) (any, error) {
			out, err := fn(ctx, c, in.(*In))
			if err != nil {
				return nil, err
			}
			if out == nil {
				out = new(Out)
			}
			return out, nil
		},
	}
}

// table is what one service serves.
type table struct {
	served  map[string]*servedOperation
	modeled map[string]bool
}

// servedOperation is an operation with the wire forms of its input and output.
type servedOperation struct {
	operation
	inShape, outShape *shape.Type
	targets           []target // what policies are asked about
}

func newTables(lists ...[]operation) (map[service]*table, error) {
	tables := map[service]*table{}
	schemas, rules := map[service]*shape.Schemas{}, map[service]map[string][]target{}
	for _, s := range []service{appStream, ec2, iamService, sts} {
		m := s.model()
		t := &table{served: map[string]*servedOperation{}, modeled: map[string]bool{}}
		for _, name := range m.operations() {
			t.modeled[name] = true
		}
		tables[s], schemas[s], rules[s] = t, shape.NewSchemas(m.enumValues), authorization(s)
	}
	for _, list := range lists {
		for _, o := range list {
			t := tables[o.service]
			name := o.service.signingName() + ":" + o.name
			if !t.modeled[o.name] {
				return nil, fmt.Errorf("operation %s is not in the model", name)
			}
			if t.served[o.name] != nil {
				return nil, fmt.Errorf("operation %s has two handlers", name)
			}
			in, err := schemas[o.service].Of(o.in)
			if err != nil {
				return nil, fmt.Errorf("operation %s: input: %w", name, err)
			}
			out, err := schemas[o.service].Of(o.out)
			if err != nil {
				return nil, fmt.Errorf("operation %s: output: %w", name, err)
			}
			targets, ok := rules[o.service][o.name]
			if !ok {
				return nil, fmt.Errorf("operation %s is not in the table of authorization", name)
			}
			t.served[o.name] = &servedOperation{operation: o, inShape: in, outShape: out, targets: targets}
		}
	}
	return tables, nil
}

// targetPrefix is what stands before the operation in AppStream's X-Amz-Target.
const targetPrefix = "PhotonAdminProxyService."

// route finds the protocol, which needs no more than the headers, and the service where they name it. It reads the
// signature, and proves nothing of it.
func (x *exchange) route() {
	r := x.request
	x.signature, x.signatureErr = sigv4.Parse(r)
	target := r.Header.Get("X-Amz-Target")
	if target != "" || strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-amz-json") {
		x.protocol = jsonProtocol
		if name, ok := strings.CutPrefix(target, targetPrefix); ok {
			x.service, x.operation = appStream, name
		}
		return
	}
	x.protocol = queryProtocol
	// The scope is not proved yet. It says which error form the caller reads, and authenticate checks it.
	if x.signatureErr == nil {
		x.service = serviceOf(x.signature.Service)
	}
	if x.service == ec2 {
		x.protocol = ec2Protocol
	}
}

// routeForm finds the operation, and the service where the scope did not name one of ours.
func (x *exchange) routeForm(form *query.Form) {
	x.operation = form.Get("Action")
	if x.service == 0 {
		x.service = serviceOfVersion(form.Get("Version"))
	}
	if x.service == ec2 {
		x.protocol = ec2Protocol
	}
}

// handle authenticates, decodes, authorizes, validates and calls the operation, in this order: nobody learns anything
// about a resource without the right to.
func (x *exchange) handle(ctx context.Context, body []byte) (answer, error) {
	var form *query.Form
	var formErr error
	if x.protocol != jsonProtocol {
		if form, formErr = x.parseForm(body); formErr == nil {
			x.routeForm(form)
		}
	}
	if err := x.authenticate(body); err != nil {
		return answer{}, err
	}
	if formErr != nil {
		return answer{}, formErr
	}
	return x.perform(ctx, form, body)
}

// perform decodes, authorizes, validates and calls the operation of a caller who is known, or who proves itself in the operation's input.
func (x *exchange) perform(ctx context.Context, form *query.Form, body []byte) (answer, error) {
	s := x.server
	t := s.tables[x.service]
	if t == nil || !t.modeled[x.operation] {
		return answer{}, x.unknownOperation()
	}
	if form != nil && form.Get("Version") != x.service.model().version {
		return answer{}, x.wrongVersion(form.Get("Version"))
	}
	c := Caller{
		Principal: x.principal, AccountID: s.options.AccountID, Region: s.options.Region, RequestID: x.requestID,
		SourceIP: sourceIP(x.request), Action: x.service.signingName() + ":" + x.operation,
	}
	o := t.served[x.operation]
	if o == nil {
		if err := x.authorize(ctx, &c, nil, nil); err != nil {
			return answer{}, err
		}
		return answer{}, x.notImplemented()
	}
	in := reflect.New(o.in).Interface()
	if err := x.decode(o, form, body, in); err != nil {
		return answer{}, err
	}
	x.input = shaped{o.inShape, in}
	if err := x.authorize(ctx, &c, o, in); err != nil {
		return answer{}, err
	}
	if err := x.validate(o, in); err != nil {
		return answer{}, err
	}
	if x.service == ec2 {
		if err := cmp.Or(x.openNextToken(in), exclusive(o, in)); err != nil {
			return answer{}, err
		}
		if dryRun(in) {
			return answer{}, x.dryRun()
		}
	}
	if err := x.ready(); err != nil {
		return answer{}, err
	}
	out, err := x.call(ctx, o, c, in)
	if err != nil {
		return answer{}, err
	}
	if x.service == ec2 {
		x.sealNextToken(out)
	}
	x.output = shaped{o.outShape, out}
	return x.render(o, out), nil
}

// parseForm reads the parameters of a POST body or, for GET, of the URL without those of its signature.
func (x *exchange) parseForm(body []byte) (*query.Form, error) {
	if x.request.Method != http.MethodPost {
		return query.Parse(x.request.URL.RawQuery, func(name string) bool { return strings.HasPrefix(name, "X-Amz-") })
	}
	return query.Parse(string(body), nil)
}

func (x *exchange) decode(o *servedOperation, form *query.Form, body []byte, in any) error {
	switch x.protocol {
	case jsonProtocol:
		return awsjson.Decode(o.inShape, body, in)
	case ec2Protocol:
		return ec2query.Decode(form, o.inShape, in)
	case queryProtocol:
	}
	return awsquery.Decode(form, o.inShape, in)
}

func (x *exchange) validate(o *servedOperation, in any) error {
	if o.tidy != nil {
		o.tidy(in)
	}
	v := shape.Validate(o.inShape, in)
	if len(v) == 0 {
		return nil
	}
	switch x.protocol {
	case jsonProtocol:
		return &apiError{code: "ValidationException", message: shape.Message(v), status: http.StatusBadRequest}
	case ec2Protocol:
		return ec2query.Refuse(v[0])
	case queryProtocol:
	}
	return &awsquery.RequestError{Code: awsquery.CodeValidation, Message: shape.Message(v)}
}

// render writes the answer of an operation that succeeded.
func (x *exchange) render(o *servedOperation, out any) answer {
	switch x.protocol {
	case jsonProtocol:
		return answer{http.StatusOK, awsjson.ContentType, awsjson.Append(nil, o.outShape, out), "", false}
	case ec2Protocol:
		ns := x.service.model().namespace
		return answer{http.StatusOK, query.ContentType, ec2query.Answer(ns, o.name, x.requestID, o.outShape, out), "", false}
	case queryProtocol:
	}
	m := x.service.model()
	text := awsquery.Answer(m.namespace, o.name, x.requestID, o.outShape, out, m.hasResult(o.name))
	return answer{http.StatusOK, query.ContentType, text, "", false}
}

// exclusive refuses MaxResults beside IDs, as EC2 does in its older describing operations: those with pages of 5 and more.
func exclusive(o *servedOperation, in any) error {
	v := reflect.ValueOf(in).Elem()
	size, ok := o.in.FieldByName("MaxResults")
	if !ok || v.FieldByIndex(size.Index).IsNil() || !strings.Contains(size.Tag.Get("check"), "min=5;") || !strings.HasPrefix(o.name, "Describe") {
		return nil
	}
	for i := range o.in.NumField() {
		f := o.in.Field(i)
		if f.Type == reflect.TypeFor[[]string]() && v.Field(i).Len() > 0 {
			return &ec2query.RequestError{
				Code: "InvalidParameterCombination", Message: fmt.Sprintf("The parameter %s cannot be used with the parameter MaxResults", f.Tag.Get("in")),
			}
		}
	}
	return nil
}

// dryRun reports whether an EC2 input has DryRun=true.
func dryRun(in any) bool {
	f := reflect.ValueOf(in).Elem().FieldByName("DryRun")
	if !f.IsValid() {
		return false
	}
	p, ok := reflect.TypeAssert[*bool](f)
	return ok && p != nil && *p
}
