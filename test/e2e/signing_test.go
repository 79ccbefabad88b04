package e2e

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sts"
)

// boto3Access is identities by Debian's boto3: keys, temporary credentials, presigned requests, a wrong clock.
const boto3Access = `
import sys, json, urllib.request, urllib.error, datetime, boto3
from botocore.exceptions import ClientError
import botocore.auth
url = sys.argv[1]
def client(service, **credentials):
    return boto3.client(service, endpoint_url=url, region_name="us-east-1", **credentials)
def keys(c):
    return dict(aws_access_key_id=c["AccessKeyId"], aws_secret_access_key=c["SecretAccessKey"], aws_session_token=c.get("SessionToken"))
def refused(code, text, call, **arguments):
    try:
        call(**arguments)
    except ClientError as e:
        assert e.response["Error"]["Code"] == code and text in str(e), e
        return
    raise AssertionError("not refused with " + code)
iam = client("iam")
account = client("sts").get_caller_identity()["Account"]
iam.create_user(UserName="py")
iam.attach_user_policy(UserName="py", PolicyArn="arn:aws:iam::aws:policy/AmazonAppStreamReadOnlyAccess")
key = iam.create_access_key(UserName="py")["AccessKey"]
assert "SecretAccessKey" not in iam.list_access_keys(UserName="py")["AccessKeyMetadata"][0]
refused("EntityAlreadyExists", "py", iam.create_user, UserName="py")
mine = keys(key)
assert isinstance(client("appstream", **mine).describe_stacks()["Stacks"], list)
refused("AccessDeniedException", "appstream:CreateStack", client("appstream", **mine).create_stack, Name="s")
refused("InvalidSignatureException", "", client("appstream", aws_access_key_id=key["AccessKeyId"], aws_secret_access_key="wrong").describe_stacks)
sts = client("sts", **mine)
token = keys(sts.get_session_token(DurationSeconds=900)["Credentials"])
client("appstream", **token).describe_stacks()
refused("AccessDenied", "session credentials", client("sts", **token).get_session_token)
iam.create_role(RoleName="py-role", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [
    {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::%s:user/py" % account}, "Action": "sts:AssumeRole", "Condition": {"StringEquals": {"sts:ExternalId": "42"}}}]}))
role = "arn:aws:iam::%s:role/py-role" % account
refused("AccessDenied", "sts:AssumeRole", sts.assume_role, RoleArn=role, RoleSessionName="s1")
session = keys(sts.assume_role(RoleArn=role, RoleSessionName="s1", ExternalId="42")["Credentials"])
assert client("sts", **session).get_caller_identity()["Arn"] == "arn:aws:sts::%s:assumed-role/py-role/s1" % account
refused("AccessDeniedException", "assumed-role/py-role/s1", client("appstream", **session).describe_stacks)

presigned = sts.generate_presigned_url("get_caller_identity", ExpiresIn=60, HttpMethod="GET")
assert ":user/py</Arn>" in urllib.request.urlopen(presigned).read().decode()
with_token = client("sts", **token).generate_presigned_url("get_caller_identity", ExpiresIn=60, HttpMethod="GET")
assert ":user/py</Arn>" in urllib.request.urlopen(with_token).read().decode()
for spoiled in (presigned.replace("GetCallerIdentity", "GetSessionToken"), presigned.replace("Expires=60", "Expires=61")):
    try:
        urllib.request.urlopen(spoiled)
        raise AssertionError("a changed URL works")
    except urllib.error.HTTPError as e:
        assert e.code == 403 and b"SignatureDoesNotMatch" in e.read(), e

class Late(datetime.datetime):
    @classmethod
    def utcnow(cls):
        return super().utcnow() - datetime.timedelta(minutes=20)
botocore.auth.datetime.datetime = Late
now = datetime.datetime.utcnow().strftime("%Y%m%dT%H")
refused("InvalidSignatureException", "Signature expired: ", client("appstream", **mine).describe_stacks)
print("done")
`

// TestClientsSign: the SDKs for JavaScript, Python and Go sign in their own ways, header and presigned, with keys of all kinds.
func TestClientsSign(t *testing.T) {
	needE2E(t)
	t.Parallel()
	s := start(t, t.TempDir(), "--no-demo")
	run := func(t *testing.T, name string, args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Env = s.env()
		if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "done" {
			t.Errorf("%v\n%s", err, out)
		}
	}
	t.Run("javascript", func(t *testing.T) {
		if _, err := os.Stat(filepath.Join("js", "node_modules", "@aws-sdk", "client-appstream")); err != nil {
			t.Skip("needs the AWS SDK for JavaScript: scripts/setup.sh test")
		}
		run(t, "node", "--no-warnings", filepath.Join("js", "access.mjs"), s.info.APIURL)
	})
	t.Run("python", func(t *testing.T) {
		if exec.CommandContext(t.Context(), "/usr/bin/python3", "-c", "import boto3").Run() != nil {
			t.Skip("needs Debian's python3-boto3")
		}
		run(t, "/usr/bin/python3", "-W", "ignore", "-c", boto3Access, s.info.APIURL)
	})
	t.Run("go", func(t *testing.T) {
		c := s.asRoot()
		in := &sts.GetCallerIdentityInput{}
		p, err := sts.NewPresignClient(sts.NewFromConfig(c)).PresignGetCallerIdentity(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		for url, want := range map[string]int{p.URL: 200, strings.Replace(p.URL, "GetCallerIdentity", "GetSessionToken", 1): 403, p.URL + "&x=1": 403} {
			req, err := http.NewRequestWithContext(t.Context(), p.Method, url, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("presigned: got %s, want %d", resp.Status, want)
			}
			// The date by which SDKs set their clocks right.
			if at, err := http.ParseTime(resp.Header.Get("Date")); err != nil || time.Since(at).Abs() > time.Minute {
				t.Errorf("date: got %q (%v)", resp.Header.Get("Date"), err)
			}
		}
	})
}
