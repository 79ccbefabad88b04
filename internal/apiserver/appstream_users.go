package apiserver

import (
	"context"

	"penstock.dev/penstock/internal/control/signin"
	"penstock.dev/penstock/internal/fault"
	api "penstock.dev/penstock/internal/wire/appstreamapi"
)

// Sizes of pages: DescribeUserStackAssociations takes up to 500.
const (
	defaultUserPage = 100
	maxUserPage     = 500
)

// userHandlers answer the operations on the user pool.
type userHandlers struct {
	*appstreamHandlers
	users *signin.Service
}

func (h *userHandlers) operations() []operation {
	return []operation{
		appstreamOp("CreateUser", h.createUser),
		appstreamOp("DeleteUser", h.deleteUser),
		appstreamOp("DescribeUsers", h.describeUsers),
		appstreamOp("EnableUser", h.enableUser),
		appstreamOp("DisableUser", h.disableUser),
		appstreamOp("BatchAssociateUserStack", h.associate),
		appstreamOp("BatchDisassociateUserStack", h.disassociate),
		appstreamOp("DescribeUserStackAssociations", h.describeAssociations),
	}
}

// inPool refuses users that are not of the pool.
func inPool(auth *string) error {
	if a := deref(auth); a != api.AuthenticationTypeUserpool {
		return fault.Newf(fault.Combination, "authenticationType", "", "users are kept for %s alone, not for %s", api.AuthenticationTypeUserpool, a)
	}
	return nil
}

// userNotFound is what operations answer that know no other error: nobody of another type is kept here.
func userNotFound(auth *string, name string) error {
	if deref(auth) != api.AuthenticationTypeUserpool {
		return fault.Newf(fault.NotFound, "user", name, "no users of type %s are kept here", deref(auth))
	}
	return nil
}

func (h *userHandlers) createUser(ctx context.Context, _ Caller, in *api.CreateUserInput) (*api.CreateUserOutput, error) {
	if err := inPool(in.AuthenticationType); err != nil {
		return nil, err
	}
	return nil, h.users.CreateUser(ctx, signin.NewUser{
		Name: deref(in.UserName), FirstName: in.FirstName, LastName: in.LastName, Message: deref(in.MessageAction),
	})
}

func (h *userHandlers) deleteUser(ctx context.Context, _ Caller, in *api.DeleteUserInput) (*api.DeleteUserOutput, error) {
	if err := userNotFound(in.AuthenticationType, deref(in.UserName)); err != nil {
		return nil, err
	}
	return nil, h.users.DeleteUser(ctx, deref(in.UserName))
}

func (h *userHandlers) enableUser(ctx context.Context, _ Caller, in *api.EnableUserInput) (*api.EnableUserOutput, error) {
	if err := userNotFound(in.AuthenticationType, deref(in.UserName)); err != nil {
		return nil, err
	}
	return nil, h.users.SetUserEnabled(ctx, deref(in.UserName), true)
}

func (h *userHandlers) disableUser(ctx context.Context, _ Caller, in *api.DisableUserInput) (*api.DisableUserOutput, error) {
	if err := userNotFound(in.AuthenticationType, deref(in.UserName)); err != nil {
		return nil, err
	}
	return nil, h.users.SetUserEnabled(ctx, deref(in.UserName), false)
}

func (h *userHandlers) describeUsers(ctx context.Context, _ Caller, in *api.DescribeUsersInput) (*api.DescribeUsersOutput, error) {
	if err := inPool(in.AuthenticationType); err != nil {
		return nil, err
	}
	limit, err := pageSize(in.MaxResults)
	if err != nil {
		return nil, err
	}
	us, next, err := h.users.Users(ctx, deref(in.NextToken), limit)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeUsersOutput{Users: make([]api.User, 0, len(us)), NextToken: optional(next)}
	for _, u := range us {
		out.Users = append(out.Users, api.User{
			Arn: h.arn("user", u.ID()), UserName: &u.Name, Enabled: &u.Enabled, Status: new(string(u.Status)), FirstName: optional(u.FirstName),
			LastName: optional(u.LastName), CreatedTime: &u.Created, AuthenticationType: new(api.AuthenticationTypeUserpool),
		})
	}
	return out, nil
}

func (h *userHandlers) associate(ctx context.Context, _ Caller, in *api.BatchAssociateUserStackInput) (*api.BatchAssociateUserStackOutput, error) {
	failed, err := h.batch(ctx, in.UserStackAssociations, h.users.Associate)
	if err != nil {
		return nil, err
	}
	return &api.BatchAssociateUserStackOutput{Errors: failed}, nil
}

func (h *userHandlers) disassociate(ctx context.Context, _ Caller, in *api.BatchDisassociateUserStackInput) (*api.BatchDisassociateUserStackOutput, error) {
	failed, err := h.batch(ctx, in.UserStackAssociations, h.users.Disassociate)
	if err != nil {
		return nil, err
	}
	return &api.BatchDisassociateUserStackOutput{Errors: failed}, nil
}

// batch does what can be done of a list and answers the rest in the list of errors, with HTTP 200.
func (h *userHandlers) batch(
	ctx context.Context, in []api.UserStackAssociation, do func(context.Context, []signin.Link) ([]signin.LinkError, error),
) ([]api.UserStackAssociationError, error) {
	links := make([]signin.Link, 0, len(in))
	for _, a := range in {
		if err := inPool(a.AuthenticationType); err != nil {
			return nil, err
		}
		links = append(links, signin.Link{User: deref(a.UserName), Stack: deref(a.StackName), Notify: deref(a.SendEmailNotification)})
	}
	failed, err := do(ctx, links)
	if err != nil {
		return nil, err
	}
	out := make([]api.UserStackAssociationError, 0, len(failed))
	for _, f := range failed {
		out = append(out, api.UserStackAssociationError{
			UserStackAssociation: &api.UserStackAssociation{
				StackName: &f.Stack, UserName: &f.User, AuthenticationType: new(api.AuthenticationTypeUserpool), SendEmailNotification: &f.Notify,
			},
			ErrorCode: &f.Code, ErrorMessage: &f.Message,
		})
	}
	return out, nil
}

func (h *userHandlers) describeAssociations(
	ctx context.Context, _ Caller, in *api.DescribeUserStackAssociationsInput,
) (*api.DescribeUserStackAssociationsOutput, error) {
	switch {
	case in.StackName == nil && in.UserName == nil:
		return nil, fault.New(fault.Combination, "stackName", "", "stackName or userName is needed")
	case in.UserName != nil && in.AuthenticationType == nil:
		return nil, fault.New(fault.Combination, "authenticationType", "", "it goes with userName")
	case in.AuthenticationType != nil:
		if err := inPool(in.AuthenticationType); err != nil {
			return nil, err
		}
	}
	limit, err := pageSize(in.MaxResults)
	if err != nil {
		return nil, err
	}
	as, next, err := h.users.Links(ctx, deref(in.StackName), deref(in.UserName), deref(in.NextToken), limit)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeUserStackAssociationsOutput{UserStackAssociations: make([]api.UserStackAssociation, 0, len(as)), NextToken: optional(next)}
	for _, a := range as {
		out.UserStackAssociations = append(out.UserStackAssociations, api.UserStackAssociation{
			StackName: &a.StackName, UserName: &a.UserName, AuthenticationType: new(api.AuthenticationTypeUserpool),
		})
	}
	return out, nil
}

// pageSize reads MaxResults: zero stands for the default.
func pageSize(most *int32) (int, error) {
	n := int(deref(most))
	switch {
	case n < 0 || n > maxUserPage:
		return 0, fault.Newf(fault.Invalid, "maxResults", "", "%d is not between 0 and %d", n, maxUserPage)
	case n == 0:
		return defaultUserPage, nil
	}
	return n, nil
}
