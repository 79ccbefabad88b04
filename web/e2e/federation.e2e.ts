// Sign-in by real identity providers in Chromium: node-oidc-provider for OpenID Connect, pysaml2 for SAML.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { expectAccessible } from "./axe.ts";
import { launchBrowser } from "./browser.ts";
import { freePort, Region } from "./region.ts";

const folder = mkdtempSync(join(tmpdir(), "penstock-idp-"));
const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const servers: ChildProcess[] = [];
let browser: Browser;
let region: Region;
let context: BrowserContext;
let page: Page;
let idp = "";

/** Starts a server that prints "ready". */
function serve(program: string, ...args: string[]): Promise<void> {
  const child = spawn(program, args, { cwd: here("..") });
  servers.push(child);
  let said = "";
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${args[0]} is not ready: ${said}`)), 30_000);
    child.once("exit", () => reject(new Error(`${args[0]} ended: ${said}`)));
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on("data", (text) => {
        said += text;
        if (/^ready$/m.test(said)) {
          clearTimeout(timer);
          resolve();
        }
      });
    }
  });
}

beforeAll(async () => {
  browser = await launchBrowser();
  const [oidcPort, samlPort, publicPort] = await Promise.all([freePort(), freePort(), freePort()]);
  const python = ["/usr/bin/python3", here("saml_idp.py"), folder, `${samlPort}`] as const;
  idp = `http://127.0.0.1:${samlPort}`;
  writeFileSync(join(folder, "idp.xml"), execFileSync(python[0], [...python.slice(1), "metadata"]));
  writeFileSync(join(folder, "secret"), "a secret of the test alone\n", { mode: 0o600 });
  const providers = [
    {
      id: "company",
      name: "Company account",
      type: "oidc",
      issuer: `http://127.0.0.1:${oidcPort}`,
      clientId: "penstock",
      clientSecretFile: join(folder, "secret"),
      userClaim: "email",
      stacks: ["demo"],
    },
    {
      id: "campus",
      name: "Campus",
      type: "saml",
      metadataFile: join(folder, "idp.xml"),
      stacks: ["demo"],
    },
  ];
  const file = join(folder, "providers.json");
  writeFileSync(file, JSON.stringify({ providers }));
  region = new Region({ publicAddr: `127.0.0.1:${publicPort}` });
  await Promise.all([
    region.start("--identity-providers", file),
    serve(
      process.execPath,
      here("oidc_provider.mjs"),
      `${oidcPort}`,
      `http://127.0.0.1:${publicPort}/federation/company/callback`,
    ),
  ]);
  const metadata = await fetch(`${region.dev.publicUrl}/federation/campus/metadata`);
  writeFileSync(join(folder, "sp.xml"), await metadata.text());
  await serve(...python, "serve", join(folder, "sp.xml"));
}, 90_000);
afterAll(async () => {
  await browser?.close();
  for (const server of servers) {
    server.kill();
  }
  await region?.stop();
  rmSync(folder, { recursive: true, force: true });
}, 30_000);

beforeEach(async () => {
  context = await browser.newContext({ viewport: { width: 1000, height: 800 } });
  page = await context.newPage();
});
afterEach(async () => {
  await context.close();
  for (const s of await region.sessions()) {
    if (s.state === "ACTIVE") {
      await region.aws("appstream", "expire-session", "--session-id", s.id);
    }
  }
}, 60_000);

const mousepad = () => page.getByRole("button", { name: "Mousepad" });
const heading = (text: string) => page.getByRole("heading", { level: 1, name: text }).waitFor();
const streaming = () =>
  page.waitForFunction(() => window.penstock?.state === "streaming", undefined, {
    timeout: 40_000,
  });

async function sessionOf(user: string, auth: string): Promise<unknown[]> {
  const { Sessions } = (await region.aws(
    "appstream",
    "describe-sessions",
    "--stack-name",
    "demo",
    "--fleet-name",
    "demo",
    "--user-id",
    user,
    "--authentication-type",
    auth,
  )) as { Sessions: { State: string }[] };
  return Sessions.filter(({ State }) => State === "ACTIVE");
}

/** Signs in at node-oidc-provider's own pages. */
async function atProvider(user: string): Promise<void> {
  await page.getByPlaceholder("Enter any login").fill(user);
  await page.getByPlaceholder("and password").fill("anything");
  await page.getByRole("button", { name: "Sign-in" }).click();
  await page.getByRole("button", { name: "Continue" }).click();
}

it("signs in by OpenID Connect and streams", async () => {
  await page.goto(region.dev.publicUrl);
  await heading("Sign in");
  await expectAccessible(page);
  await page.getByRole("link", { name: "Continue with Company account" }).click();
  await atProvider("olga@example.com");
  await mousepad().click();
  await streaming();
  expect(await sessionOf("olga@example.com", "SAML")).toHaveLength(1);
  expect(await sessionOf("olga@example.com", "USERPOOL")).toHaveLength(0);
});

it("refuses a user whose e-mail address the provider did not verify", async () => {
  await page.goto(`${region.dev.publicUrl}/federation/company/start`);
  await atProvider("unverified@example.com");
  await heading("You could not be signed in");
  expect(await page.locator("code").textContent()).toBe("bad-user");
  await expectAccessible(page);
});

it("refuses the answer of a sign-in that another browser began", async () => {
  await page.route("**/federation/company/callback*", (route) => route.abort());
  const answer = page.waitForRequest("**/federation/company/callback*");
  await page.goto(`${region.dev.publicUrl}/federation/company/start`);
  await atProvider("eve@example.com").catch(() => undefined); // the last navigation is stopped
  const url = (await answer).url();
  const victim = await browser.newContext();
  const other = await victim.newPage();
  await other.goto(url);
  await other.getByRole("heading", { name: "You could not be signed in" }).waitFor();
  expect(await other.locator("code").textContent()).toBe("other-browser");
  await victim.close();
});

it("signs in by SAML and streams", async () => {
  await fetch(`${idp}/user?name=sam@example.com`);
  await page.goto(region.dev.publicUrl);
  await page.getByRole("link", { name: "Continue with Campus" }).click();
  await mousepad().click();
  await streaming();
  expect(await sessionOf("sam@example.com", "SAML")).toHaveLength(1);
});

it("refuses an assertion that is encrypted by triple DES under RSA 1.5, which is what pysaml2 has", async () => {
  await fetch(`${idp}/user?name=secret@example.com`);
  await page.goto(`${region.dev.publicUrl}/federation/campus/start?stack=demo`);
  await heading("You could not be signed in");
  expect(await page.locator("code").textContent()).toBe("bad-assertion");
});

it("signs in when the provider begins, to the stack of RelayState, once", async () => {
  const relay = encodeURIComponent("https://relay.example/?stack=demo&accountId=");
  let form = "";
  await page.route("**/federation/campus/acs", (route) => {
    form = route.request().postData() ?? "";
    return route.continue();
  });
  await page.goto(`${idp}/start?user=ida@example.com&relay=${relay}`);
  await mousepad().waitFor();
  expect(new URL(page.url()).origin).toBe(region.dev.publicUrl);
  const again = await fetch(`${region.dev.publicUrl}/federation/campus/acs`, {
    method: "POST",
    body: form,
    headers: { "Content-Type": "application/x-www-form-urlencoded" },
    redirect: "manual",
  });
  expect(again.headers.get("location")).toBe("/?error=replayed");
  expect(again.headers.get("set-cookie")).toBeNull();
  await page.goto(`${idp}/start?user=ida@example.com&relay=${encodeURIComponent("stack=other")}`);
  await heading("You could not be signed in");
  expect(await page.locator("code").textContent()).toBe("wrong-stack");
});

it("lets the role of an assertion decide, at the sign-in and at each launch, and for STS", async () => {
  const account = region.dev.accountId;
  const provider = `arn:aws:iam::${account}:saml-provider/campus`;
  const role = `arn:aws:iam::${account}:role/campus`;
  const values = encodeURIComponent(`${role},${provider}`);
  const begin = () => page.goto(`${idp}/start?user=rosa@example.com&role=${values}`);
  await begin(); // before there is such a role
  await heading("You could not be signed in");
  expect(await page.locator("code").textContent()).toBe("bad-role");
  const trust = {
    Version: "2012-10-17",
    Statement: {
      Effect: "Allow",
      Principal: { Federated: provider },
      Action: ["sts:AssumeRoleWithSAML", "sts:TagSession"],
      Condition: { StringEquals: { "SAML:aud": `${region.dev.publicUrl}/federation/campus/acs` } },
    },
  };
  const policy = (effect: string) =>
    JSON.stringify({
      Version: "2012-10-17",
      Statement: {
        Effect: effect,
        Action: "appstream:Stream",
        Resource: `arn:aws:appstream:us-east-1:${account}:stack/demo`,
        // biome-ignore lint/suspicious/noTemplateCurlyInString: a policy variable
        Condition: { StringEquals: { "appstream:userId": "${saml:sub}" } },
      },
    });
  const named = ["--role-name", "campus"];
  const put = (effect: string) =>
    region.aws(
      "iam",
      "put-role-policy",
      ...named,
      "--policy-name",
      "stream",
      "--policy-document",
      policy(effect),
    );
  await region.aws(
    "iam",
    "create-role",
    ...named,
    "--assume-role-policy-document",
    JSON.stringify(trust),
  );
  await put("Allow");
  await begin();
  await mousepad().waitFor();
  await put("Deny"); // who is signed in launches nothing any more
  await mousepad().click();
  await page.locator(".message", { hasText: "no role of your sign-in" }).waitFor();
  await put("Allow");
  await begin();
  await mousepad().click();
  await streaming();
  expect(await sessionOf("rosa@example.com", "SAML")).toHaveLength(1);
  const response = await fetch(`${idp}/response?user=rosa@example.com&role=${values}`);
  const assume = [
    "assume-role-with-saml",
    "--role-arn",
    role,
    "--principal-arn",
    provider,
    "--saml-assertion",
    await response.text(),
  ] as const;
  const assumed = (await region.aws("sts", ...assume)) as {
    Subject: string;
    AssumedRoleUser: { Arn: string };
  };
  expect(assumed.Subject).toBe("rosa@example.com");
  expect(assumed.AssumedRoleUser.Arn).toBe(
    `arn:aws:sts::${account}:assumed-role/campus/rosa@example.com`,
  );
  await expect(region.aws("sts", ...assume)).rejects.toThrow("used before");
}, 180_000);

it("shows a federated user what the entitlements name", async () => {
  const stack = ["--stack-name", "demo"];
  const entitlement = ["--entitlement-name", "editors", "--application-identifier", "mousepad"];
  const { Images } = (await region.aws("appstream", "describe-images")) as {
    Images: { Applications: { Name: string; DisplayName: string }[] }[];
  };
  const editor =
    Images[0]?.Applications.find(({ DisplayName }) => DisplayName === "Mousepad")?.Name ?? "";
  entitlement[3] = editor;
  const attributes = ["--attributes", "Name=groups,Value=editors"];
  await region.aws(
    "appstream",
    "create-entitlement",
    ...stack,
    "--name",
    "editors",
    "--app-visibility",
    "ASSOCIATED",
    ...attributes,
  );
  await region.aws("appstream", "associate-application-to-entitlement", ...stack, ...entitlement);
  await page.goto(`${idp}/start?user=ida@example.com`);
  await mousepad().waitFor();
  expect(await page.locator(".app").count()).toBe(1);
  await region.aws(
    "appstream",
    "update-entitlement",
    ...stack,
    "--name",
    "editors",
    "--attributes",
    "Name=groups,Value=others",
  );
  await mousepad().click();
  await page.locator(".message", { hasText: "no entitlement of yours names it" }).waitFor();
  await region.aws("appstream", "delete-entitlement", ...stack, "--name", "editors");
});
