// How users sign in, in Chromium with the built binary: from the welcome mail to the application that streams.
import { createHmac } from "node:crypto";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { expectAccessible } from "./axe.ts";
import { launchBrowser } from "./browser.ts";
import { Region } from "./region.ts";

let browser: Browser;
let region: Region;
let context: BrowserContext;
let page: Page;
const problems: string[] = [];

beforeAll(async () => {
  browser = await launchBrowser();
  region = new Region();
  await region.start();
}, 90_000);
afterAll(async () => {
  await browser?.close();
  await region?.stop();
}, 30_000);

beforeEach(async () => {
  context = await browser.newContext({ viewport: { width: 1000, height: 800 } });
  page = await context.newPage();
  problems.length = 0;
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (message) => {
    if (/Content Security Policy|TypeError|ReferenceError/.test(message.text())) {
      problems.push(message.text());
    }
  });
});
afterEach(async () => {
  await context.close();
  for (const s of await region.sessions()) {
    if (s.state === "ACTIVE") {
      await region.aws("appstream", "expire-session", "--session-id", s.id);
    }
  }
  expect(problems).toEqual([]);
}, 60_000);

const pool = ["--authentication-type", "USERPOOL"];
const appstream = (operation: string, ...args: string[]) =>
  region.aws("appstream", operation, ...args);
const link = (user: string) =>
  `UserName=${user},StackName=${region.dev.stackName},AuthenticationType=USERPOOL`;
const title = () => page.locator("h1").textContent();
const heading = (text: string) => page.getByRole("heading", { level: 1, name: text }).waitFor();
const streaming = () =>
  page.waitForFunction(() => window.penstock?.state === "streaming", undefined, {
    timeout: 40_000,
  });

/** A user of the pool with the demo's stack; answers the temporary password of the welcome mail. */
async function newUser(user: string): Promise<string> {
  await appstream("create-user", "--user-name", user, "--first-name", "Ada", ...pool);
  await appstream("batch-associate-user-stack", "--user-stack-associations", link(user));
  const mail = await region.mailTo(user);
  return /temporary password {2}(\S+)/.exec(mail)?.[1] ?? "";
}

async function signIn(user: string, password: string): Promise<void> {
  await page.goto(region.dev.publicUrl);
  await page.getByLabel("E-mail address").fill(user);
  await page.getByLabel("Password").fill(password);
  await page.keyboard.press("Enter");
}

async function choosePassword(password: string): Promise<void> {
  await heading("Choose a password");
  await page.getByLabel("New password", { exact: true }).fill(password);
  await page.getByLabel("New password, once more").fill(password);
  await page.getByRole("button", { name: "Save password" }).click();
}

/** What an authenticator app shows for a base32 key (RFC 6238), steps away from now. */
function totp(key: string, steps = 0): string {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
  const bits = [...key.replace(/\s/g, "")]
    .map((c) => alphabet.indexOf(c).toString(2).padStart(5, "0"))
    .join("");
  const seed = Buffer.from((bits.match(/.{8}/g) ?? []).map((b) => Number.parseInt(b, 2)));
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000) + steps));
  const mac = createHmac("sha1", seed).update(counter).digest();
  const at = (mac.at(-1) ?? 0) & 15;
  return ((mac.readUInt32BE(at) & 0x7fffffff) % 1_000_000).toString().padStart(6, "0");
}

it("goes from the welcome mail over a new password to the application", async () => {
  const user = "ada@example.com";
  const temporary = await newUser(user);
  await signIn(user, "not the password");
  await page.locator(".problem", { hasText: "is wrong" }).waitFor();
  expect(await title()).toBe("Sign in");
  await expectAccessible(page);
  expect(await page.getByLabel("Password").evaluate((e) => e === document.activeElement)).toBe(
    true,
  );
  await signIn(user, temporary);
  await heading("Choose a password");
  await page.reload(); // the step is the server's to know
  await heading("Choose a password");
  await expectAccessible(page);
  await choosePassword("short");
  await page.locator(".problem", { hasText: "shorter than 12" }).waitFor();
  const before = (await context.cookies()).map(({ value }) => value);
  await choosePassword("violet tramway kettle 41");
  await page.getByRole("button", { name: "Mousepad" }).waitFor();
  const [cookie] = await context.cookies();
  expect(before).not.toContain(cookie?.value);
  expect(cookie).toMatchObject({ httpOnly: true, sameSite: "Lax", path: "/" });
  await page.getByRole("button", { name: "Mousepad" }).click();
  await streaming();
  const { Sessions } = (await appstream(
    "describe-sessions",
    "--stack-name",
    region.dev.stackName,
    "--fleet-name",
    region.dev.fleetName,
    "--user-id",
    user,
    ...pool,
  )) as { Sessions: { UserId: string; AuthenticationType: string }[] };
  expect(Sessions.filter(({ UserId }) => UserId === user).map((s) => s.AuthenticationType)).toEqual(
    ["USERPOOL"],
  );
  const { Users } = (await appstream("describe-users", ...pool)) as {
    Users: { UserName: string; Status: string; Enabled: boolean }[];
  };
  expect(Users).toMatchObject([{ UserName: user, Status: "CONFIRMED", Enabled: true }]);
});

it("ends the catalogue of a user who lost the stack, and the sign-in of one who is disabled", async () => {
  const user = "bob@example.com";
  await signIn(user, await newUser(user));
  await choosePassword("granite lantern Oslo bread");
  const mousepad = page.getByRole("button", { name: "Mousepad" });
  await mousepad.waitFor();
  await appstream("batch-disassociate-user-stack", "--user-stack-associations", link(user));
  await mousepad.click();
  await page.locator(".message", { hasText: "not assigned to you" }).waitFor();
  await appstream("batch-associate-user-stack", "--user-stack-associations", link(user));
  await page.getByRole("button", { name: "Back to the applications" }).click();
  await appstream("disable-user", "--user-name", user, ...pool);
  await mousepad.click();
  await heading("Sign in");
  await signIn(user, "granite lantern Oslo bread");
  await page.locator(".problem", { hasText: "disabled" }).waitFor();
});

it("adds an authenticator app and asks for its code", async () => {
  const user = "cat@example.com";
  const password = "harvest pebble organ 7 west";
  await signIn(user, await newUser(user));
  await choosePassword(password);
  await page.getByRole("button", { name: "Account" }).click();
  await heading("Account");
  await expectAccessible(page);
  await page.getByRole("button", { name: "Add an authenticator app" }).click();
  await page.getByLabel("Password").fill(password);
  await page.keyboard.press("Enter");
  await page.locator("svg.qr").waitFor();
  await expectAccessible(page);
  const key = (await page.locator("code").textContent()) ?? "";
  await page.getByRole("textbox", { name: "Code" }).fill(totp(key));
  await page.keyboard.press("Enter");
  await heading("Keep your recovery codes");
  await expectAccessible(page);
  const recovery = (await page.locator(".codes code").first().textContent()) ?? "";
  await page.getByRole("button", { name: "I have kept them" }).click();
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("button", { name: "Sign in again" }).click();
  await signIn(user, password);
  await heading("Second factor");
  await expectAccessible(page);
  await page.getByRole("textbox", { name: "Code" }).fill("000000");
  await page.keyboard.press("Enter");
  await page.locator(".problem", { hasText: "wrong" }).waitFor();
  await page.getByRole("textbox", { name: "Code" }).fill(totp(key, 1)); // the code of now enrolled the app
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Mousepad" }).waitFor();
  await context.clearCookies();
  await signIn(user, password);
  await page.getByRole("textbox", { name: "Code" }).fill(recovery);
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Mousepad" }).click();
  await streaming();
});

it("sets a new password by a code of a mail", async () => {
  const user = "dan@example.com";
  await signIn(user, await newUser(user));
  await choosePassword("orchid bicycle 19 thunder");
  await page.getByRole("button", { name: "Mousepad" }).waitFor();
  await context.clearCookies();
  await page.goto(region.dev.publicUrl);
  await page.getByRole("button", { name: "Forgot your password?" }).click();
  await heading("Forgot your password?");
  await expectAccessible(page);
  await page.getByLabel("E-mail address").fill(user);
  await page.keyboard.press("Enter");
  await heading("Set a new password");
  await expectAccessible(page);
  const code = /code {2}(\S+)/.exec(await region.mailTo(user, 2))?.[1] ?? "";
  await page.getByLabel("Code from the mail").fill(code);
  await page.getByLabel("New password", { exact: true }).fill("copper meadow 27 violin");
  await page.getByLabel("New password, once more").fill("copper meadow 27 violin");
  await page.getByRole("button", { name: "Save password" }).click();
  await heading("Sign in");
  await signIn(user, "copper meadow 27 violin");
  await page.getByRole("button", { name: "Mousepad" }).waitFor();
});
