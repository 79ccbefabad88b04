package control

import (
	"slices"
	"strings"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/state"
)

// ServiceRole is AmazonAppStreamServiceAccess: AppStream looks at its customer's endpoints, subnets and groups as this role, and
// may do there what the role's policies say.
type ServiceRole interface {
	// AsServiceRole decides one action to all resources, or with an empty action whether the role can be assumed at all; nil when it may.
	AsServiceRole(r state.Reader, action string) (*iam.RoleProblem, error)
	// MachineRole is why instances cannot have the role with this ARN; empty when AppStream may assume it.
	MachineRole(r state.Reader, arn string) (reason string, err error)
	// DecidesServiceRole reports whether a changed document of this kind may change an answer of AsServiceRole.
	DecidesServiceRole(k state.Kind) bool
}

// asServiceRole refuses (InvalidRole) what the service role is not allowed.
func (c *Control) asServiceRole(r state.Reader, action string) error {
	if c.ServiceRole == nil {
		return nil
	}
	p, err := c.ServiceRole.AsServiceRole(r, action)
	if err != nil || p == nil {
		return err
	}
	if p.Missing {
		what := "AppStream needs it"
		if action != "" {
			what += " for " + action
		}
		return fault.Newf(fault.InvalidRole, "", "", "The service role is missing: %s; %s. Make it with path /service-role/, a trust policy for %s "+
			"and the policy arn:aws:iam::aws:policy/service-role/%s.", p.Reason, what, iam.AppStreamService, iam.ServiceAccessRoleName)
	}
	return fault.Newf(fault.InvalidRole, "", "", "The service role %s lacks the action %s: %s", iam.ServiceAccessRoleName, p.Action, p.Reason)
}

// checkMachineRole refuses a role that instances are to have and that AppStream cannot assume; empty is none.
func (c *Control) checkMachineRole(r state.Reader, arn string) error {
	if c.ServiceRole == nil || arn == "" {
		return nil
	}
	reason, err := c.ServiceRole.MachineRole(r, arn)
	if err != nil || reason == "" {
		return err
	}
	return fault.New(fault.InvalidRole, "iamRoleArn", arn, reason)
}

// Codes of FleetErrors about the service role. What a fleet's instances need is what their network interfaces need, in the VPC that the
// fleet names or the default one.
const (
	roleErrorPrefix = "IAM_SERVICE_ROLE_"
	roleIsMissing   = "IAM_SERVICE_ROLE_IS_MISSING"
)

var fleetActions = []struct{ action, code string }{
	{"ec2:DescribeSubnets", "IAM_SERVICE_ROLE_MISSING_DESCRIBE_SUBNET_ACTION"},
	{"ec2:DescribeSecurityGroups", "IAM_SERVICE_ROLE_MISSING_DESCRIBE_SECURITY_GROUPS_ACTION"},
	{"ec2:CreateNetworkInterface", "IAM_SERVICE_ROLE_MISSING_ENI_CREATE_ACTION"},
	{"ec2:DescribeNetworkInterfaces", "IAM_SERVICE_ROLE_MISSING_ENI_DESCRIBE_ACTION"},
	{"ec2:DeleteNetworkInterface", "IAM_SERVICE_ROLE_MISSING_ENI_DELETE_ACTION"},
}

// roleErrors is what the service role lacks for a fleet's instances.
func (c *Control) roleErrors(r state.Reader) (out []appstream.FleetError, err error) {
	if c.ServiceRole == nil {
		return nil, nil
	}
	for _, a := range fleetActions {
		p, err := c.ServiceRole.AsServiceRole(r, a.action)
		switch {
		case err != nil:
			return nil, err
		case p == nil:
		case p.Missing:
			return []appstream.FleetError{{Code: roleIsMissing, Message: p.Reason}}, nil
		default:
			out = append(out, appstream.FleetError{Code: a.code, Message: p.Reason})
		}
	}
	return out, nil
}

// checkRole writes into a fleet what its service role lacks, and reports whether anything does. Instances that run stay; new ones wait
// for the role.
func (c *Control) checkRole(tx state.Tx, f *appstream.Fleet) (lacking bool, err error) {
	found, err := c.roleErrors(tx)
	if err != nil {
		return false, err
	}
	others := slices.DeleteFunc(slices.Clone(f.Errors), isRoleError)
	if all := append(found, others...); !slices.Equal(all, f.Errors) {
		f.Errors = all
		err = appstream.Fleets.Put(tx, f)
	}
	return len(found) > 0, err
}

func isRoleError(e appstream.FleetError) bool { return strings.HasPrefix(e.Code, roleErrorPrefix) }

// setOtherErrors replaces a fleet's errors but those about the service role.
func setOtherErrors(f *appstream.Fleet, errs ...appstream.FleetError) {
	f.Errors = append(slices.DeleteFunc(f.Errors, func(e appstream.FleetError) bool { return !isRoleError(e) }), errs...)
}
