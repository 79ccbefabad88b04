import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { expectAccessible } from "./axe.ts";
import { launchBrowser } from "./browser.ts";
import { FakeAgent } from "./fake_agent.ts";
import { FakePortal } from "./fake_portal.ts";

let browser: Browser;
let context: BrowserContext;
let page: Page;
let portal: FakePortal;
const problems: string[] = [];

beforeAll(async () => {
  browser = await launchBrowser();
});
afterAll(() => browser?.close());

beforeEach(async () => {
  portal = new FakePortal();
  await portal.start();
  portal.me = { status: 200, body: me };
  context = await browser.newContext({ viewport: { width: 1000, height: 700 } });
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
  await portal.stop();
  expect(problems).toEqual([]);
});

const stack = {
  name: "demo",
  displayName: "Engineering tools",
  description: "Applications of the engineering department.",
  unavailable: "",
  redirectUrl: "",
  feedbackUrl: "https://feedback.example/",
  applications: [
    {
      id: "desktop",
      displayName: "Desktop",
      description: "A whole desktop with every application.",
      iconUrl: "",
    },
    {
      id: "mousepad",
      displayName: "Text editor",
      description: "Edit text files.",
      iconUrl: "/api/portal/v1/applications/mousepad/icon",
    },
    { id: "xterm", displayName: "Terminal", description: "", iconUrl: "/missing.png" },
  ],
};
const me = {
  userId: "ada@example.com",
  authType: "API",
  stacks: [stack],
  launch: "",
  resolution: "",
};

const status = (state: string, more = {}) => ({
  status: 200,
  body: { sessionId: "s-1", state, viewerUrl: "", code: "", reason: "", ...more },
});
const title = () => page.locator("h1").textContent();

it("shows the applications and hands over to the viewer", async () => {
  const agent = new FakeAgent();
  await agent.start();
  portal.launches = [
    status("starting"),
    status("ready", { viewerUrl: `${agent.url}#t=first.sig` }),
  ];
  await page.goto(portal.url);
  await page.locator(".app").first().waitFor();
  expect(await title()).toBe("Engineering tools");
  expect(await page.locator(".app strong").allTextContents()).toEqual([
    "Desktop",
    "Text editor",
    "Terminal",
  ]);
  await page.getByRole("button", { name: "Desktop", exact: true }).waitFor();
  await expectAccessible(page);
  await page.keyboard.press("Tab"); // feedback
  await page.keyboard.press("Tab"); // sign out
  await page.keyboard.press("Tab"); // Desktop
  await page.keyboard.press("Tab"); // Text editor
  await page.keyboard.press("Enter");
  await page.waitForURL((url) => url.href.startsWith(agent.url));
  await page.waitForFunction(() => window.penstock?.state === "streaming");
  expect(portal.calls).toEqual([
    "GET /api/portal/v1/me",
    "GET /api/portal/v1/applications/mousepad/icon",
    `POST /api/portal/v1/launch ${JSON.stringify({
      stackName: "demo",
      applicationId: "mousepad",
      window: { width: 1000, height: 700, scale: 100 },
    })} 1`,
    "GET /api/portal/v1/sessions/s-1",
  ]);
  expect(agent.ticketsSeen[0]).toBe("first.sig");
  await agent.stop();
});

it("launches at once when the streaming URL names an application, once", async () => {
  portal.me = { status: 200, body: { ...me, launch: "mousepad" } };
  portal.launches = [status("failed", { code: "no-capacity", reason: "The fleet is full." })];
  await page.goto(portal.url);
  await page.locator(".message").waitFor();
  expect(await title()).toBe("Text editor could not be opened");
  expect(await page.locator(".message").textContent()).toContain("The fleet is full.");
  expect(await page.locator(".message").textContent()).toContain("no-capacity");
  await expectAccessible(page);
  await page.reload();
  await page.locator(".app").first().waitFor();
  expect(portal.calls.filter((call) => call.startsWith("POST"))).toHaveLength(1);
});

it("cancels a launch", async () => {
  portal.launches = [status("starting")];
  await page.goto(portal.url);
  await page.locator(".app").first().click();
  await page.locator(".spinner").waitFor();
  await expectAccessible(page);
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.locator(".app").first().waitFor();
});

it("says that a streaming link is needed", async () => {
  portal.me = {
    status: 401,
    body: { code: "not-signed-in", reason: "Open a streaming URL to sign in." },
  };
  await page.goto(portal.url);
  await page.locator(".message").waitFor();
  expect(await title()).toBe("A streaming link is needed");
  await expectAccessible(page);
});

it("says that a link expired, and shows nothing else that stands in the address", async () => {
  await page.goto(`${portal.url}?error=url-expired&reason=Call+this+number`);
  await page.locator(".message").waitFor();
  expect(await title()).toBe("This streaming link has expired");
  expect(await page.textContent("body")).not.toContain("Call this number");
  await expectAccessible(page);
});

it("signs out", async () => {
  await page.goto(portal.url);
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.locator(".message").waitFor();
  expect(await title()).toBe("You are signed out");
  expect(portal.calls).toContain('POST /api/portal/v1/signout {"everywhere":false} 1');
});

it("shows the applications of several stacks, and why one has none to open", async () => {
  const closed = {
    ...stack,
    name: "lab",
    displayName: "Laboratory",
    unavailable: "fleet f: it is STOPPED",
  };
  portal.me = { status: 200, body: { ...me, authType: "USERPOOL", stacks: [stack, closed] } };
  await page.goto(portal.url);
  await page.locator(".app").first().waitFor();
  expect(await page.locator("h2").allTextContents()).toEqual(["Engineering tools", "Laboratory"]);
  expect(await page.locator(".notice").textContent()).toContain("it is STOPPED");
  await page.getByRole("button", { name: "Account" }).waitFor();
  await expectAccessible(page);
});
