package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/appstream"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
)

const describeAndList = `{"Version":"2012-10-17","Statement":[{"Sid":"Read","Effect":"Allow","Action":["appstream:Describe*","appstream:List*"],"Resource":"*"}]}`

// as is a configuration of the official SDK with these credentials.
func (s *server) as(id, secret, token string) aws.Config {
	return aws.Config{
		Region: s.info.Region, BaseEndpoint: &s.info.APIURL, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(id, secret, token),
	}
}

// asRoot reads the credentials file as an SDK does.
func (s *server) asRoot() aws.Config {
	as, _ := s.sdk()
	return aws.Config{Region: s.info.Region, BaseEndpoint: &s.info.APIURL, RetryMaxAttempts: 1, Credentials: as.Options().Credentials}
}

func (s *server) asSession(c *ststypes.Credentials) aws.Config {
	return s.as(*c.AccessKeyId, *c.SecretAccessKey, *c.SessionToken)
}

// newUser makes a user with a key and, if not empty, an inline policy.
func (s *server) newUser(ctx context.Context, root *iam.Client, name, policy string) (aws.Config, string) {
	s.t.Helper()
	if _, err := root.CreateUser(ctx, &iam.CreateUserInput{UserName: &name}); err != nil {
		s.t.Fatal(err)
	}
	k, err := root.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: &name})
	if err != nil {
		s.t.Fatal(err)
	}
	if policy != "" {
		if _, err := root.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: &name, PolicyName: aws.String("inline"), PolicyDocument: &policy}); err != nil {
			s.t.Fatal(err)
		}
	}
	return s.as(*k.AccessKey.AccessKeyId, *k.AccessKey.SecretAccessKey, ""), *k.AccessKey.AccessKeyId
}

func wantCode(t *testing.T, err error, want, text string) {
	t.Helper()
	if code(err) != want || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want %s with %q", err, want, text)
	}
}

// TestAccessWithTheGoSDK gives users and roles what their policies say, and nothing else.
func TestAccessWithTheGoSDK(t *testing.T) {
	needE2E(t)
	t.Parallel()
	dir := t.TempDir()
	s := start(t, dir, "--no-demo")
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	root := iam.NewFromConfig(s.asRoot())
	ann, annKey := s.newUser(ctx, root, "ann", describeAndList)
	stacks := appstream.NewFromConfig(ann)

	if _, err := stacks.DescribeStacks(ctx, &appstream.DescribeStacksInput{}); err != nil {
		t.Errorf("describe: %v", err)
	}
	create := func(c *appstream.Client) error {
		_, err := c.CreateStack(ctx, &appstream.CreateStackInput{Name: aws.String("blue")})
		return err
	}
	arn := "arn:aws:appstream:" + s.info.Region + ":" + s.info.AccountID + ":stack/blue"
	user := "User: arn:aws:iam::" + s.info.AccountID + ":user/ann is not authorized to perform: "
	wantCode(t, create(stacks), "AccessDeniedException",
		user+"appstream:CreateStack on resource: "+arn+" because no identity-based policy allows the appstream:CreateStack action")
	vpcs := ec2.NewFromConfig(ann)
	_, err := vpcs.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{})
	wantCode(t, err, "UnauthorizedOperation", "You are not authorized to perform this operation. "+user+"ec2:DescribeVpcs")
	_, err = vpcs.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.9.0.0/16"), DryRun: aws.Bool(true)})
	wantCode(t, err, "UnauthorizedOperation", ":vpc/*")
	_, err = ec2.NewFromConfig(s.asRoot()).CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.9.0.0/16"), DryRun: aws.Bool(true)})
	wantCode(t, err, "DryRunOperation", "")
	_, err = iam.NewFromConfig(ann).CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String("eve")})
	wantCode(t, err, "AccessDenied", "iam:CreateUser on resource: arn:aws:iam::"+s.info.AccountID+":user/eve")
	me, err := sts.NewFromConfig(ann).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil || *me.Arn != "arn:aws:iam::"+s.info.AccountID+":user/ann" || !strings.HasPrefix(*me.UserId, "AIDA") {
		t.Errorf("who am I: got %+v (%v)", me, err)
	}

	// An explicit deny wins over a policy that allows everything.
	put := func(name, document string) {
		t.Helper()
		if _, err := root.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: aws.String("ann"), PolicyName: &name, PolicyDocument: &document}); err != nil {
			t.Fatal(err)
		}
	}
	put("all", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`)
	put("no", `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"appstream:CreateStack","Resource":"arn:aws:appstream:*:*:stack/b*"}]}`)
	wantCode(t, create(stacks), "AccessDeniedException", "with an explicit deny in an identity-based policy")
	if _, err := stacks.CreateStack(ctx, &appstream.CreateStackInput{Name: aws.String("green")}); err != nil {
		t.Errorf("a stack that the deny does not name: %v", err)
	}
	malformed := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Resource":"*"}]}`
	_, err = root.PutUserPolicy(ctx, &iam.PutUserPolicyInput{UserName: aws.String("ann"), PolicyName: aws.String("bad"), PolicyDocument: &malformed})
	wantCode(t, err, "MalformedPolicyDocument", "Policy statement must contain actions. (line 1, column 38)")

	// Tags of what exists, and tags that a request brings.
	put("locked", `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":["appstream:Delete*","ec2:DeleteVpc","iam:DeleteUser"],"Resource":"*",`+
		`"Condition":{"StringEquals":{"aws:ResourceTag/locked":"yes"}}},{"Effect":"Deny","Action":"appstream:CreateStack","Resource":"*",`+
		`"Condition":{"StringEquals":{"aws:RequestTag/team":"red"}}}]}`)
	_, err = stacks.CreateStack(ctx, &appstream.CreateStackInput{Name: aws.String("red"), Tags: map[string]string{"team": "red"}})
	wantCode(t, err, "AccessDeniedException", "explicit deny")
	if _, err := stacks.CreateStack(ctx, &appstream.CreateStackInput{Name: aws.String("locked"), Tags: map[string]string{"locked": "yes"}}); err != nil {
		t.Error(err)
	}
	_, err = stacks.DeleteStack(ctx, &appstream.DeleteStackInput{Name: aws.String("locked")})
	wantCode(t, err, "AccessDeniedException", "stack/locked with an explicit deny")
	if _, err := stacks.DeleteStack(ctx, &appstream.DeleteStackInput{Name: aws.String("green")}); err != nil {
		t.Errorf("a stack without the tag: %v", err)
	}
	vpc, err := vpcs.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.9.0.0/16")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := vpcs.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{*vpc.Vpc.VpcId}, Tags: []ec2types.Tag{{Key: aws.String("locked"), Value: aws.String("yes")}}}); err != nil {
		t.Error(err)
	}
	_, err = vpcs.DeleteVpc(ctx, &ec2.DeleteVpcInput{VpcId: vpc.Vpc.VpcId})
	wantCode(t, err, "UnauthorizedOperation", "vpc/"+*vpc.Vpc.VpcId+" with an explicit deny")
	if _, err := root.CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String("kept"), Tags: []iamtypes.Tag{{Key: aws.String("locked"), Value: aws.String("yes")}}}); err != nil {
		t.Error(err)
	}
	_, err = iam.NewFromConfig(ann).DeleteUser(ctx, &iam.DeleteUserInput{UserName: aws.String("kept")})
	wantCode(t, err, "AccessDenied", "user/kept with an explicit deny")

	// A role, with an external ID and a session policy.
	role, err := root.CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("streaming"), AssumeRolePolicyDocument: aws.String(
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"` + *me.Arn + `"},"Action":"sts:AssumeRole","Condition":{"StringEquals":{"sts:ExternalId":"42"}}}]}`)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := root.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: aws.String("streaming"), PolicyArn: aws.String("arn:aws:iam::aws:policy/AdministratorAccess")}); err != nil {
		t.Fatal(err)
	}
	assume := sts.NewFromConfig(ann)
	in := &sts.AssumeRoleInput{RoleArn: role.Role.Arn, RoleSessionName: aws.String("work")}
	_, err = assume.AssumeRole(ctx, in)
	wantCode(t, err, "AccessDenied", user+"sts:AssumeRole on resource: "+*role.Role.Arn)
	in.ExternalId = aws.String("42")
	assumed, err := assume.AssumeRole(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	session := s.asSession(assumed.Credentials)
	if err := create(appstream.NewFromConfig(session)); err != nil {
		t.Errorf("the role creates: %v", err)
	}
	me, err = sts.NewFromConfig(session).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil || *me.Arn != "arn:aws:sts::"+s.info.AccountID+":assumed-role/streaming/work" || *me.UserId != *role.Role.RoleId+":work" {
		t.Errorf("who is the role: got %+v (%v)", me, err)
	}
	in.Policy = aws.String(describeAndList)
	limited, err := assume.AssumeRole(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, create(appstream.NewFromConfig(s.asSession(limited.Credentials))), "AccessDeniedException", "because no session policy allows the appstream:CreateStack action")
	spoiled := *assumed.Credentials
	spoiled.SessionToken = aws.String("A" + *spoiled.SessionToken)
	_, err = sts.NewFromConfig(s.asSession(&spoiled)).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	wantCode(t, err, "InvalidClientTokenId", "")
	_, err = appstream.NewFromConfig(s.as(*spoiled.AccessKeyId, *spoiled.SecretAccessKey, "")).DescribeStacks(ctx, &appstream.DescribeStacksInput{})
	wantCode(t, err, "UnrecognizedClientException", "")

	token, err := sts.NewFromConfig(ann).GetSessionToken(ctx, &sts.GetSessionTokenInput{DurationSeconds: aws.Int32(900)})
	if err != nil || time.Until(*token.Credentials.Expiration) > 900*time.Second {
		t.Fatalf("session token: got %+v (%v)", token, err)
	}
	if _, err := appstream.NewFromConfig(s.asSession(token.Credentials)).DescribeStacks(ctx, &appstream.DescribeStacksInput{}); err != nil {
		t.Errorf("describe with a session token: %v", err)
	}

	// A key that is switched off, and one that was used.
	used, err := root.GetAccessKeyLastUsed(ctx, &iam.GetAccessKeyLastUsedInput{AccessKeyId: &annKey})
	if err != nil || used.AccessKeyLastUsed.LastUsedDate == nil || *used.UserName != "ann" {
		t.Errorf("last used: got %+v (%v)", used, err)
	}
	if _, err := root.UpdateAccessKey(ctx, &iam.UpdateAccessKeyInput{UserName: aws.String("ann"), AccessKeyId: &annKey, Status: "Inactive"}); err != nil {
		t.Fatal(err)
	}
	_, err = stacks.DescribeStacks(ctx, &appstream.DescribeStacksInput{})
	wantCode(t, err, "UnrecognizedClientException", "")
	_, err = root.DeleteUser(ctx, &iam.DeleteUserInput{UserName: aws.String("ann")})
	wantCode(t, err, "DeleteConflict", "")

	// Keys and tokens outlive the process.
	s.stop()
	s = start(t, dir, "--no-demo")
	session.BaseEndpoint = &s.info.APIURL
	if _, err := appstream.NewFromConfig(session).DescribeStacks(ctx, &appstream.DescribeStacksInput{}); err != nil {
		t.Errorf("a role session after a restart: %v", err)
	}
	ann.BaseEndpoint = &s.info.APIURL
	_, err = appstream.NewFromConfig(ann).DescribeStacks(ctx, &appstream.DescribeStacksInput{})
	wantCode(t, err, "UnrecognizedClientException", "")
}

// TestAccessWithTheAWSCLI makes what Terraform and administrators make, with Debian's AWS CLI.
func TestAccessWithTheAWSCLI(t *testing.T) {
	needE2E(t)
	t.Parallel()
	s := start(t, t.TempDir(), "--no-demo")
	s.aws(nil, "iam", "create-user", "--user-name", "bob", "--path", "/team/", "--tags", "Key=team,Value=blue")
	s.awsFails("EntityAlreadyExists", "iam", "create-user", "--user-name", "bob")
	s.awsFails("NoSuchEntity", "iam", "get-user", "--user-name", "nobody")
	var policy struct{ Policy struct{ Arn string } }
	s.aws(&policy, "iam", "create-policy", "--policy-name", "Read", "--policy-document", describeAndList)
	s.awsFails("EntityAlreadyExists", "iam", "create-policy", "--policy-name", "Read", "--policy-document", describeAndList)
	s.awsFails("MalformedPolicyDocument", "iam", "create-policy", "--policy-name", "Bad", "--policy-document", `{"Version":"2012-10-17"`)
	s.aws(nil, "iam", "attach-user-policy", "--user-name", "bob", "--policy-arn", policy.Policy.Arn)
	s.awsFails("DeleteConflict", "iam", "delete-policy", "--policy-arn", policy.Policy.Arn)
	var version struct{ PolicyVersion struct{ Document any } }
	s.aws(&version, "iam", "get-policy-version", "--policy-arn", policy.Policy.Arn, "--version-id", "v1")
	if d, ok := version.PolicyVersion.Document.(map[string]any); !ok || d["Version"] != "2012-10-17" {
		t.Errorf("document: got %v", version.PolicyVersion.Document)
	}
	var result struct {
		EvaluationResults []struct{ EvalActionName, EvalDecision string }
	}
	s.aws(&result, "iam", "simulate-principal-policy", "--policy-source-arn", "arn:aws:iam::"+s.info.AccountID+":user/team/bob",
		"--action-names", "appstream:DescribeStacks", "appstream:CreateStack")
	if r := result.EvaluationResults; len(r) != 2 || r[0].EvalDecision != "allowed" || r[1].EvalDecision != "implicitDeny" {
		t.Errorf("simulation: got %+v", r)
	}

	var role struct {
		Role struct {
			Arn                      string
			MaxSessionDuration       int
			AssumeRolePolicyDocument map[string]any
		}
	}
	trust := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"appstream.amazonaws.com"},"Action":"sts:AssumeRole"}]}`
	s.aws(&role, "iam", "create-role", "--role-name", "fleet", "--assume-role-policy-document", trust, "--max-session-duration", "7200", "--tags", "Key=a,Value=b")
	if role.Role.MaxSessionDuration != 7200 || role.Role.AssumeRolePolicyDocument["Version"] != "2012-10-17" {
		t.Errorf("role: got %+v", role.Role)
	}
	s.aws(nil, "iam", "put-role-policy", "--role-name", "fleet", "--policy-name", "inline", "--policy-document", describeAndList)
	s.awsFails("DeleteConflict", "iam", "delete-role", "--role-name", "fleet")
	s.aws(nil, "iam", "list-instance-profiles-for-role", "--role-name", "fleet")
	s.aws(nil, "iam", "delete-role-policy", "--role-name", "fleet", "--policy-name", "inline")
	s.aws(nil, "iam", "delete-role", "--role-name", "fleet")
	s.awsFails("AccessDenied", "sts", "assume-role", "--role-arn", role.Role.Arn, "--role-session-name", "x1")

	// The pages of a list hold every user once.
	for _, name := range []string{"a1", "B2", "c3", "D4"} {
		s.aws(nil, "iam", "create-user", "--user-name", name)
	}
	var users struct{ Users []struct{ UserName string } }
	s.aws(&users, "iam", "list-users", "--page-size", "2")
	if len(users.Users) != 5 {
		t.Errorf("users: got %+v", users.Users)
	}
	s.aws(nil, "iam", "detach-user-policy", "--user-name", "bob", "--policy-arn", policy.Policy.Arn)
	s.aws(nil, "iam", "delete-policy", "--policy-arn", policy.Policy.Arn)
	s.aws(nil, "iam", "delete-user", "--user-name", "bob")
}

// TestMoreOfIAMWithTheAWSCLI: service-linked roles, the account's summary, whose a key is, session tags and a complete simulation.
func TestMoreOfIAMWithTheAWSCLI(t *testing.T) {
	needE2E(t)
	t.Parallel()
	s := start(t, t.TempDir(), "--no-demo")
	const linked = "AWSServiceRoleForApplicationAutoScaling_AppStreamFleet"
	s.aws(nil, "iam", "create-service-linked-role", "--aws-service-name", "appstream.application-autoscaling.amazonaws.com")
	s.awsFails("InvalidInput", "iam", "create-service-linked-role", "--aws-service-name", "appstream.application-autoscaling.amazonaws.com")
	s.awsFails("UnmodifiableEntity", "iam", "delete-role", "--role-name", linked)
	var task struct{ DeletionTaskID string }
	s.aws(&task, "iam", "delete-service-linked-role", "--role-name", linked)
	var status struct{ Status string }
	s.aws(&status, "iam", "get-service-linked-role-deletion-status", "--deletion-task-id", task.DeletionTaskID)
	if status.Status != "SUCCEEDED" {
		t.Errorf("got %+v", status)
	}
	s.awsFails("NoSuchEntity", "iam", "get-service-linked-role-deletion-status", "--deletion-task-id", "task/none")

	var me struct{ Arn, Account string }
	s.aws(&me, "sts", "get-caller-identity")
	s.aws(nil, "iam", "create-user", "--user-name", "bob")
	var key struct{ AccessKey struct{ AccessKeyID string } }
	s.aws(&key, "iam", "create-access-key", "--user-name", "bob")
	var owner struct{ Account string }
	s.aws(&owner, "sts", "get-access-key-info", "--access-key-id", key.AccessKey.AccessKeyID)
	if owner.Account != me.Account {
		t.Errorf("the key is of %q", owner.Account)
	}
	s.awsFails("ValidationError", "sts", "get-access-key-info", "--access-key-id", "AKIAIOSFODNN7EXAMPLE")
	var summary struct{ SummaryMap map[string]int }
	s.aws(&summary, "iam", "get-account-summary")
	if m := summary.SummaryMap; m["Users"] != 1 || m["UsersQuota"] != 5000 || m["AccountAccessKeysPresent"] != 1 || m["Groups"] != 0 {
		t.Errorf("got %v", m)
	}

	// A simulation says which statements decided, where they are, and what it was not told.
	document := "{\n \"Version\": \"2012-10-17\",\n \"Statement\": [\n  {\"Effect\": \"Allow\", \"Action\": \"appstream:*\", \"Resource\": \"*\"},\n" +
		"  {\"Effect\": \"Deny\", \"Action\": \"appstream:Delete*\", \"Resource\": \"arn:aws:appstream:*:*:stack/${aws:PrincipalTag/Team}*\",\n   \"Condition\": {\"Bool\": {\"aws:MultiFactorAuthPresent\": \"false\"}}}\n ]\n}"
	s.aws(nil, "iam", "put-user-policy", "--user-name", "bob", "--policy-name", "stacks", "--policy-document", document)
	type position struct{ Line, Column int }
	var result struct {
		EvaluationResults []struct {
			EvalActionName, EvalDecision string
			MissingContextValues         []string
			MatchedStatements            []struct {
				SourcePolicyID   string
				SourcePolicyType string
				StartPosition    position
				EndPosition      position
			}
		}
	}
	simulate := func(context ...string) {
		t.Helper()
		result.EvaluationResults = nil
		s.aws(&result, append([]string{
			"iam", "simulate-principal-policy", "--policy-source-arn", "arn:aws:iam::" + s.info.AccountID + ":user/bob",
			"--action-names", "appstream:DeleteStack", "--resource-arns", "arn:aws:appstream:us-east-1:" + s.info.AccountID + ":stack/blue",
		}, context...)...)
	}
	simulate()
	r := result.EvaluationResults[0]
	if r.EvalDecision != "allowed" || strings.Join(r.MissingContextValues, " ") != "aws:MultiFactorAuthPresent aws:PrincipalTag/Team" ||
		len(r.MatchedStatements) != 1 || r.MatchedStatements[0].StartPosition != (position{4, 3}) || r.MatchedStatements[0].EndPosition != (position{4, 64}) ||
		r.MatchedStatements[0].SourcePolicyID != "stacks" || r.MatchedStatements[0].SourcePolicyType != "user" {
		t.Errorf("got %+v", r)
	}
	simulate("--context-entries", "ContextKeyName=aws:MultiFactorAuthPresent,ContextKeyValues=false,ContextKeyType=boolean", "ContextKeyName=aws:PrincipalTag/Team,ContextKeyValues=blue,ContextKeyType=string")
	if r := result.EvaluationResults[0]; r.EvalDecision != "explicitDeny" || len(r.MissingContextValues) != 0 || r.MatchedStatements[0].StartPosition.Line != 5 || r.MatchedStatements[0].EndPosition.Line != 6 {
		t.Errorf("got %+v", r)
	}
	if out := s.mustPenstock("explain", "access", "--principal", "user/bob", "--action", "appstream:DeleteStack", "--resource",
		"arn:aws:appstream:us-east-1:"+s.info.AccountID+":stack/blue", "--context", "aws:MultiFactorAuthPresent=false", "--context", "aws:PrincipalTag/Team=blue"); !strings.Contains(out, "DENIED") ||
		!strings.Contains(out, "with an explicit deny in an identity-based policy") || !strings.Contains(out, "line 5") {
		t.Errorf("got %s", out)
	}
	out := s.mustPenstock("explain", "access", "--principal", "user/bob", "--action", "ec2:DescribeVpcs")
	if !strings.Contains(out, "no identity-based policy allows the ec2:DescribeVpcs action") || !strings.Contains(out, "Action does not list ec2:DescribeVpcs") {
		t.Errorf("got %s", out)
	}
	if out, err := s.penstock("explain", "access", "--principal", "user/nobody", "--action", "ec2:DescribeVpcs"); err == nil || !strings.Contains(out, "cannot be found") {
		t.Errorf("got %s (%v)", out, err)
	}

	// Session tags through the client.
	s.aws(nil, "iam", "create-role", "--role-name", "tagged", "--assume-role-policy-document", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",`+
		`"Principal":{"AWS":"`+s.info.AccountID+`"},"Action":["sts:AssumeRole","sts:TagSession","sts:SetSourceIdentity"]}]}`)
	s.aws(nil, "iam", "put-user-policy", "--user-name", "bob", "--policy-name", "assume", "--policy-document", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:*","Resource":"*"}]}`)
	s.awsFails("AccessDenied", "sts", "assume-role", "--role-arn", "arn:aws:iam::"+s.info.AccountID+":role/tagged", "--role-session-name", "s1") // root

	// Without a server the data directory answers.
	s.stop()
	if out := s.mustPenstock("explain", "access", "--principal", "user/bob", "--action", "appstream:CreateStack", "--json"); !strings.Contains(out, `"allowed": true`) {
		t.Errorf("got %s", out)
	}
}
