// Drives identities with the AWS SDK for JavaScript. Credentials and region come from the environment; the endpoint is the first argument.
import assert from "node:assert/strict";
import { createHash, createHmac } from "node:crypto";
import { AppStreamClient, CreateStackCommand, DescribeStacksCommand } from "@aws-sdk/client-appstream";
import { DescribeVpcsCommand, EC2Client } from "@aws-sdk/client-ec2";
import { AttachUserPolicyCommand, CreateAccessKeyCommand, CreateRoleCommand, CreateUserCommand, GetUserCommand, IAMClient, PutRolePolicyCommand } from "@aws-sdk/client-iam";
import { AssumeRoleCommand, GetCallerIdentityCommand, GetSessionTokenCommand, STSClient } from "@aws-sdk/client-sts";
import { SignatureV4 } from "@smithy/signature-v4";

const endpoint = process.argv[2];
const region = "us-east-1";
const base = { endpoint, region, maxAttempts: 1 };
const refused = async (name, text, promise) => {
  await assert.rejects(promise, (e) => {
    assert.equal(e.name, name, `${e.name}: ${e.message}`);
    assert.ok(e.message.includes(text), e.message);
    return true;
  });
};
const asCredentials = (c) => ({ accessKeyId: c.AccessKeyId, secretAccessKey: c.SecretAccessKey, sessionToken: c.SessionToken });

const iam = new IAMClient(base);
const root = await new STSClient(base).send(new GetCallerIdentityCommand({}));
assert.equal(root.Arn, `arn:aws:iam::${root.Account}:root`);
await iam.send(new CreateUserCommand({ UserName: "js", Tags: [{ Key: "team", Value: "blue" }] }));
await iam.send(new AttachUserPolicyCommand({ UserName: "js", PolicyArn: "arn:aws:iam::aws:policy/AmazonAppStreamReadOnlyAccess" }));
const { AccessKey: key } = await iam.send(new CreateAccessKeyCommand({ UserName: "js" }));
await refused("NoSuchEntityException", "nobody", iam.send(new GetUserCommand({ UserName: "nobody" })));

const credentials = asCredentials(key);
const appstream = new AppStreamClient({ ...base, credentials });
assert.deepEqual((await appstream.send(new DescribeStacksCommand({}))).Stacks, []);
await refused("AccessDeniedException", "because no identity-based policy allows the appstream:CreateStack action", appstream.send(new CreateStackCommand({ Name: "s" })));
await refused("UnauthorizedOperation", "ec2:DescribeVpcs", new EC2Client({ ...base, credentials }).send(new DescribeVpcsCommand({})));
const wrong = new AppStreamClient({ ...base, credentials: { ...credentials, secretAccessKey: "wrong" } });
await refused("InvalidSignatureException", "does not match the signature you provided", wrong.send(new DescribeStacksCommand({})));

// Temporary credentials: of the user, and of a role with a session tag.
const sts = new STSClient({ ...base, credentials });
const token = await sts.send(new GetSessionTokenCommand({}));
await new AppStreamClient({ ...base, credentials: asCredentials(token.Credentials) }).send(new DescribeStacksCommand({}));
const { Role: role } = await iam.send(new CreateRoleCommand({
  RoleName: "js-role",
  AssumeRolePolicyDocument: JSON.stringify({
    Version: "2012-10-17",
    Statement: [{ Effect: "Allow", Principal: { AWS: `arn:aws:iam::${root.Account}:user/js` }, Action: ["sts:AssumeRole", "sts:TagSession"] }],
  }),
}));
await iam.send(new PutRolePolicyCommand({
  RoleName: "js-role", PolicyName: "p",
  PolicyDocument: JSON.stringify({ Version: "2012-10-17", Statement: [{ Effect: "Allow", Action: "appstream:*", Resource: `arn:aws:appstream:*:*:stack/\${aws:PrincipalTag/team}-*` }] }),
}));
const assumed = await sts.send(new AssumeRoleCommand({ RoleArn: role.Arn, RoleSessionName: "js-session", Tags: [{ Key: "team", Value: "green" }] }));
const asRole = new AppStreamClient({ ...base, credentials: asCredentials(assumed.Credentials) });
assert.equal((await asRole.send(new CreateStackCommand({ Name: "green-1" }))).Stack.Name, "green-1");
await refused("AccessDeniedException", "assumed-role/js-role/js-session", asRole.send(new CreateStackCommand({ Name: "blue-1" })));

// A clock that is wrong: refused with the server's time, and the SDK corrects itself by it when it may try again.
const late = { ...base, credentials, systemClockOffset: -15 * 60 * 1000 };
await refused("InvalidSignatureException", "Signature expired", new AppStreamClient(late).send(new DescribeStacksCommand({})));
await new AppStreamClient({ ...late, maxAttempts: 3 }).send(new DescribeStacksCommand({}));

// Presigned: good as it is, and for nothing else.
class Sha256 {
  constructor(secret) { this.hash = secret ? createHmac("sha256", secret) : createHash("sha256"); }
  update(data) { this.hash.update(data); }
  async digest() { return this.hash.digest(); }
}
const signer = new SignatureV4({ credentials, region, service: "sts", sha256: Sha256 });
const url = new URL(endpoint);
const presigned = await signer.presign({
  method: "GET", protocol: url.protocol, hostname: url.hostname, port: Number(url.port), path: "/", headers: { host: url.host },
  query: { Action: "GetCallerIdentity", Version: "2011-06-15" },
}, { expiresIn: 60 });
const open = (change) => {
  const u = new URL(endpoint);
  for (const [k, v] of Object.entries({ ...presigned.query, ...change })) u.searchParams.set(k, v);
  return fetch(u);
};
const good = await open({});
assert.equal(good.status, 200);
assert.ok((await good.text()).includes(`:user/js</Arn>`));
for (const change of [{ Action: "GetSessionToken" }, { "X-Amz-Expires": "600" }, { "X-Amz-Date": "20200101T000000Z" }]) {
  const r = await open(change);
  assert.ok([400, 403].includes(r.status), `${JSON.stringify(change)}: ${r.status}`);
}
console.log("done");
