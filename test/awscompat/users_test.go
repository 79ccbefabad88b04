package awscompat

import (
	"context"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/appstream"
	"github.com/aws/aws-sdk-go-v2/service/appstream/types"

	"penstock.dev/penstock/internal/apiserver"
	domain "penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/argon"
	"penstock.dev/penstock/internal/control"
	"penstock.dev/penstock/internal/control/access"
	"penstock.dev/penstock/internal/control/signin"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/penstocktest/terraform"
	"penstock.dev/penstock/internal/sqlite"
)

// catalogue is compute that has applications and runs nothing.
type catalogue struct{ domain.Compute }

func (catalogue) Applications(context.Context) ([]domain.Application, error) {
	return []domain.Application{{Name: "editor"}, {Name: "terminal"}}, nil
}

// pool is a server with a user pool and policies; its client is the account's root.
func pool(t *testing.T) (*api, *appstream.Client, *access.Service) {
	t.Helper()
	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	users, err := signin.New(signin.Options{Store: store, Seed: make([]byte, 32), Hasher: argon.New(argon.Options{MemoryKiB: 64}), UserQuota: 3})
	if err != nil {
		t.Fatal(err)
	}
	who, err := access.New(access.Options{
		Store: store, AccountID: account, Seed: make([]byte, 32), Root: iam.Credential{AccessKeyID: keyID, Secret: secret, Principal: iam.RootOf(account)},
	})
	if err != nil {
		t.Fatal(err)
	}
	handler, err := apiserver.New(apiserver.Options{
		AccountID: account, Region: region, Credentials: who, Access: who, Users: users,
		Control: control.New(control.Options{Store: store, Region: region, Account: account, Compute: catalogue{}}),
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	a := &api{url: srv.URL}
	c := appstream.NewFromConfig(a.good())
	for _, name := range []string{"s1", "s2"} {
		if _, err := c.CreateStack(t.Context(), &appstream.CreateStackInput{Name: aws.String(name)}); err != nil {
			t.Fatal(err)
		}
	}
	return a, c, who
}

func TestUserPool(t *testing.T) {
	t.Parallel()
	_, c, _ := pool(t)
	ctx := t.Context()
	ann := aws.String("ann@example.com")
	create := func(name, first *string, action types.MessageAction, auth types.AuthenticationType) error {
		_, err := c.CreateUser(ctx, &appstream.CreateUserInput{UserName: name, FirstName: first, MessageAction: action, AuthenticationType: auth})
		return err
	}
	if err := create(ann, aws.String("Ann"), "", types.AuthenticationTypeUserpool); err != nil {
		t.Fatal(err)
	}
	wantCode(t, create(ann, nil, "", types.AuthenticationTypeUserpool), "ResourceAlreadyExistsException", "exists")
	wantCode(t, create(ann, nil, "", types.AuthenticationTypeSaml), "InvalidParameterCombinationException", "authenticationType")
	wantCode(t, create(ann, aws.String("Ann"), types.MessageActionResend, types.AuthenticationTypeUserpool), "InvalidParameterCombinationException", "RESEND")
	wantCode(t, create(aws.String("ann"), nil, "", types.AuthenticationTypeUserpool), "ValidationException", "e-mail")
	if err := create(ann, nil, types.MessageActionResend, types.AuthenticationTypeUserpool); err != nil {
		t.Errorf("RESEND: %v", err)
	}
	for _, n := range []string{"bob@example.com", "cat@example.com"} {
		if err := create(aws.String(n), nil, types.MessageActionSuppress, types.AuthenticationTypeUserpool); err != nil {
			t.Fatal(err)
		}
	}
	wantCode(t, create(aws.String("dan@example.com"), nil, "", types.AuthenticationTypeUserpool), "LimitExceededException", "quota of 3")
	var names []string
	pages := 0
	for in := (&appstream.DescribeUsersInput{AuthenticationType: types.AuthenticationTypeUserpool, MaxResults: aws.Int32(2)}); pages == 0 || in.NextToken != nil; pages++ {
		out, err := c.DescribeUsers(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		in.NextToken = out.NextToken
		for _, u := range out.Users {
			names = append(names, *u.UserName)
			if !aws.ToBool(u.Enabled) || *u.Status != "UNCONFIRMED" || !strings.HasPrefix(*u.Arn, "arn:aws:appstream:us-east-1:123456789012:user/userpool/") || u.CreatedTime.IsZero() {
				t.Errorf("got %+v", u)
			}
		}
	}
	if want := []string{"ann@example.com", "bob@example.com", "cat@example.com"}; !slices.Equal(names, want) || pages != 2 {
		t.Errorf("got %v on %d pages, want %v on 2", names, pages, want)
	}
	if _, err := c.DisableUser(ctx, &appstream.DisableUserInput{UserName: ann, AuthenticationType: types.AuthenticationTypeUserpool}); err != nil {
		t.Error(err)
	}
	wantCode(t, create(ann, nil, types.MessageActionResend, types.AuthenticationTypeUserpool), "InvalidAccountStatusException", "disabled")
	if _, err := c.EnableUser(ctx, &appstream.EnableUserInput{UserName: ann, AuthenticationType: types.AuthenticationTypeUserpool}); err != nil {
		t.Error(err)
	}
	link := func(user, stack string) types.UserStackAssociation {
		return types.UserStackAssociation{UserName: &user, StackName: &stack, AuthenticationType: types.AuthenticationTypeUserpool}
	}
	made, err := c.BatchAssociateUserStack(ctx, &appstream.BatchAssociateUserStackInput{UserStackAssociations: []types.UserStackAssociation{
		link(*ann, "s1"), link(*ann, "none"), link("eve@example.com", "s2"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(made.Errors) != 2 || made.Errors[0].ErrorCode != types.UserStackAssociationErrorCodeStackNotFound ||
		made.Errors[1].ErrorCode != types.UserStackAssociationErrorCodeUserNameNotFound || *made.Errors[1].UserStackAssociation.UserName != "eve@example.com" {
		t.Errorf("errors: got %+v", made.Errors)
	}
	ask := func(in *appstream.DescribeUserStackAssociationsInput) []types.UserStackAssociation {
		t.Helper()
		out, err := c.DescribeUserStackAssociations(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		return out.UserStackAssociations
	}
	// As Terraform reads one association.
	one := ask(&appstream.DescribeUserStackAssociationsInput{StackName: aws.String("s1"), UserName: ann, AuthenticationType: types.AuthenticationTypeUserpool})
	if len(one) != 1 || *one[0].StackName != "s1" || *one[0].UserName != *ann {
		t.Errorf("got %+v", one)
	}
	_, err = c.DescribeUserStackAssociations(ctx, &appstream.DescribeUserStackAssociationsInput{})
	wantCode(t, err, "InvalidParameterCombinationException", "stackName or userName")
	if _, err := c.BatchDisassociateUserStack(ctx, &appstream.BatchDisassociateUserStackInput{UserStackAssociations: []types.UserStackAssociation{link(*ann, "s1")}}); err != nil {
		t.Error(err)
	}
	if left := ask(&appstream.DescribeUserStackAssociationsInput{StackName: aws.String("s1")}); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
	if _, err := c.DeleteUser(ctx, &appstream.DeleteUserInput{UserName: ann, AuthenticationType: types.AuthenticationTypeUserpool}); err != nil {
		t.Error(err)
	}
	_, err = c.DeleteUser(ctx, &appstream.DeleteUserInput{UserName: ann, AuthenticationType: types.AuthenticationTypeUserpool})
	wantCode(t, err, "ResourceNotFoundException", "no user")
}

func TestEntitlements(t *testing.T) {
	t.Parallel()
	_, c, _ := pool(t)
	ctx := t.Context()
	s1, name := aws.String("s1"), aws.String("editors")
	groups := []types.EntitlementAttribute{{Name: aws.String("groups"), Value: aws.String("editors")}}
	create := func(stack *string, attributes []types.EntitlementAttribute) (*appstream.CreateEntitlementOutput, error) {
		return c.CreateEntitlement(ctx, &appstream.CreateEntitlementInput{Name: name, StackName: stack, AppVisibility: types.AppVisibilityAssociated, Attributes: attributes})
	}
	made, err := create(s1, groups)
	if err != nil || made.Entitlement.AppVisibility != types.AppVisibilityAssociated || made.Entitlement.CreatedTime == nil {
		t.Fatalf("got %+v (%v)", made, err)
	}
	_, err = create(s1, groups)
	wantCode(t, err, "EntitlementAlreadyExistsException", "editors")
	_, err = create(aws.String("none"), groups)
	wantCode(t, err, "ResourceNotFoundException", "none")
	_, err = create(s1, []types.EntitlementAttribute{{Name: aws.String("shoe"), Value: aws.String("42")}})
	wantCode(t, err, "OperationNotPermittedException", "shoe")
	for _, app := range []string{"terminal", "editor", "editor"} {
		in := &appstream.AssociateApplicationToEntitlementInput{StackName: s1, EntitlementName: name, ApplicationIdentifier: &app}
		if _, err := c.AssociateApplicationToEntitlement(ctx, in); err != nil {
			t.Fatal(err)
		}
	}
	_, err = c.AssociateApplicationToEntitlement(ctx, &appstream.AssociateApplicationToEntitlementInput{StackName: s1, EntitlementName: name, ApplicationIdentifier: aws.String("none")})
	wantCode(t, err, "ResourceNotFoundException", "none")
	var apps []string
	pages := 0
	for in := (&appstream.ListEntitledApplicationsInput{StackName: s1, EntitlementName: name, MaxResults: aws.Int32(1)}); pages == 0 || in.NextToken != nil; pages++ {
		out, err := c.ListEntitledApplications(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		in.NextToken = out.NextToken
		for _, a := range out.EntitledApplications {
			apps = append(apps, *a.ApplicationIdentifier)
		}
	}
	if want := []string{"editor", "terminal"}; !slices.Equal(apps, want) {
		t.Errorf("applications: got %v, want %v", apps, want)
	}
	changed, err := c.UpdateEntitlement(ctx, &appstream.UpdateEntitlementInput{StackName: s1, Name: name, AppVisibility: types.AppVisibilityAll, Description: aws.String("all")})
	if err != nil || changed.Entitlement.AppVisibility != types.AppVisibilityAll || len(changed.Entitlement.Attributes) != 1 || *changed.Entitlement.Description != "all" {
		t.Errorf("got %+v (%v)", changed, err)
	}
	_, err = c.DescribeEntitlements(ctx, &appstream.DescribeEntitlementsInput{StackName: s1, Name: aws.String("none")})
	wantCode(t, err, "EntitlementNotFoundException", "none")
	if _, err := c.DisassociateApplicationFromEntitlement(ctx, &appstream.DisassociateApplicationFromEntitlementInput{StackName: s1, EntitlementName: name, ApplicationIdentifier: aws.String("editor")}); err != nil {
		t.Error(err)
	}
	if _, err := c.DeleteEntitlement(ctx, &appstream.DeleteEntitlementInput{StackName: s1, Name: name}); err != nil {
		t.Error(err)
	}
	if all, err := c.DescribeEntitlements(ctx, &appstream.DescribeEntitlementsInput{StackName: s1}); err != nil || len(all.Entitlements) != 0 {
		t.Errorf("left: %+v (%v)", all, err)
	}
}

// TestStackOfAnAssociationIsAsked: the resource of a batch is the stack of each of its items.
func TestStackOfAnAssociationIsAsked(t *testing.T) {
	t.Parallel()
	a, root, who := pool(t)
	ctx := t.Context()
	for _, err := range []error{
		func() error {
			_, err := root.CreateUser(ctx, &appstream.CreateUserInput{UserName: aws.String("ann@example.com"), AuthenticationType: types.AuthenticationTypeUserpool})
			return err
		}(),
		func() error {
			_, err := who.Create(ctx, access.Entity{Kind: access.User, Path: "/", Name: "clerk", Created: time.Now()})
			return err
		}(),
		who.PutInline(ctx, access.User, "clerk", "p",
			`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"appstream:BatchAssociateUserStack","Resource":"arn:aws:appstream:*:*:stack/s1"}}`),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	key, keySecret, err := who.CreateKey(ctx, "clerk")
	if err != nil {
		t.Fatal(err)
	}
	clerk := appstream.NewFromConfig(a.config(key.ID, keySecret, region))
	batch := func(stacks ...string) error {
		var in appstream.BatchAssociateUserStackInput
		for _, s := range stacks {
			in.UserStackAssociations = append(in.UserStackAssociations, types.UserStackAssociation{
				UserName: aws.String("ann@example.com"), StackName: &s, AuthenticationType: types.AuthenticationTypeUserpool,
			})
		}
		_, err := clerk.BatchAssociateUserStack(ctx, &in)
		return err
	}
	if err := batch("s1"); err != nil {
		t.Error(err)
	}
	wantCode(t, batch("s1", "s2"), "AccessDeniedException", "stack/s2")
	_, err = clerk.CreateUser(ctx, &appstream.CreateUserInput{UserName: aws.String("bob@example.com"), AuthenticationType: types.AuthenticationTypeUserpool})
	wantCode(t, err, "AccessDeniedException", "appstream:CreateUser")
}

const terraformUsers = `
variable "enabled" { default = true }

resource "aws_appstream_stack" "s" {
  name = "tools"
}

resource "aws_appstream_user" "ann" {
  authentication_type     = "USERPOOL"
  user_name               = "ann@example.com"
  first_name              = "Ann"
  last_name               = "Lee"
  enabled                 = var.enabled
  send_email_notification = true
}

resource "aws_appstream_user_stack_association" "a" {
  authentication_type = aws_appstream_user.ann.authentication_type
  stack_name          = aws_appstream_stack.s.name
  user_name           = aws_appstream_user.ann.user_name
}
`

// TestTerraformUsers makes a user and an association with Terraform, wants an empty plan after it, disables the user, and destroys both.
func TestTerraformUsers(t *testing.T) {
	t.Parallel()
	terraform.Need(t)
	a, c, _ := pool(t)
	run := terraform.Prepare(t, a.url, keyID, secret, terraformUsers)
	run(0, "init", "-no-color")
	run(0, "apply", "-no-color", "-auto-approve")
	run(0, "plan", "-no-color", "-detailed-exitcode")
	run(0, "apply", "-no-color", "-auto-approve", "-var", "enabled=false")
	out, err := c.DescribeUsers(t.Context(), &appstream.DescribeUsersInput{AuthenticationType: types.AuthenticationTypeUserpool})
	if err != nil || len(out.Users) != 1 || aws.ToBool(out.Users[0].Enabled) || aws.ToString(out.Users[0].LastName) != "Lee" {
		t.Errorf("got %+v (%v), want Ann, disabled", out, err)
	}
	run(0, "plan", "-no-color", "-detailed-exitcode", "-var", "enabled=false")
	run(0, "destroy", "-no-color", "-auto-approve")
	if out, err = c.DescribeUsers(t.Context(), &appstream.DescribeUsersInput{AuthenticationType: types.AuthenticationTypeUserpool}); err != nil || len(out.Users) != 0 {
		t.Errorf("left: %+v (%v)", out, err)
	}
}
