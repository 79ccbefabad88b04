package apiserver

import (
	"context"
	"reflect"

	"penstock.dev/penstock/internal/iam"
)

// Caller is who asks, for which account and region, and under which request ID. Handlers get it by value.
type Caller struct {
	Principal iam.Principal
	AccountID string // 12 digits
	Region    string
	RequestID string
	SourceIP  string
	Action    string // "ec2:CreateVpc"
}

// operation is one operation of a service and the handler that answers it.
type operation struct {
	service service
	name    string
	in, out reflect.Type // struct types
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
