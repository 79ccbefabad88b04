package apiserver

import (
	"context"
	"errors"

	"penstock.dev/penstock/internal/audit"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
)

// call runs an operation's handler. The first use of AppStream makes its service role, when the caller may; one who may not
// learns the reason together with the refusal of what needs the role.
func (x *exchange) call(ctx context.Context, o *servedOperation, c Caller, in any) (any, error) {
	access := x.server.options.Access
	if x.service != appStream || access == nil {
		return o.call(ctx, c, in)
	}
	made, refusal, err := access.EnsureServiceRole(ctx, x.credential, c.proof.question)
	if err != nil {
		return nil, err
	}
	if made {
		x.server.log.Info("made AppStream's service role at its first use", "role", iam.ServiceAccessRoleName, "principal", c.Principal.ARN())
		for _, name := range []string{"CreateRole", "AttachRolePolicy"} {
			e := audit.Event{
				Source: "iam.amazonaws.com", Name: name, Identity: audit.Identify(x.credential), SourceIP: iam.AppStreamService, UserAgent: iam.AppStreamService,
				RequestID: x.requestID, Type: audit.APICall,
				Resources: []audit.Resource{{ARN: iam.RoleARN(c.AccountID, "/service-role/", iam.ServiceAccessRoleName), AccountID: c.AccountID, Type: "AWS::IAM::Role"}},
			}
			e.Identity.InvokedBy = iam.AppStreamService
			x.server.options.Audit.Record(e)
		}
	}
	out, err := o.call(ctx, c, in)
	if f, ok := errors.AsType[*fault.Error](err); ok && f.Kind == fault.InvalidRole && f.Resource == "" && refusal != "" {
		f := *f
		f.Reason += " AppStream makes it at its first use by a principal that may, and this one may not: " + refusal
		return nil, &f
	}
	return out, err
}
