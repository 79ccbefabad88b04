// Sessions over the network drivers that filter packets, each as it is used by itself: a portal on loopback, `--tls auto`.
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BrowserContext, chromium, type Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Networks, namespacesMissing } from "./networks.ts";
import { difference, exactPicture } from "./picture.ts";
import { Region } from "./region.ts";

const missing = namespacesMissing();
if (missing !== undefined && process.env["PENSTOCK_TEST_STRICT"] === "1") {
  throw new Error(missing);
}
const program = process.env["CHROMIUM"] ?? "/usr/bin/chromium";

/** A page that tells of what it may not load. */
async function watched(context: BrowserContext): Promise<{ page: Page; problems: string[] }> {
  const page = await context.newPage();
  const problems: string[] = [];
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (message) => {
    if (/Content Security Policy|Mixed Content|SSL|CERT|LOCAL_NETWORK/.test(message.text())) {
      problems.push(message.text());
    }
  });
  return { page, problems };
}

/** Opens the user's streaming URL, begins a session, types into it, and wants every pixel. */
async function session(region: Region, page: Page, user: string): Promise<URL> {
  await page.goto(await region.streamingUrl(user));
  expect(new URL(page.url()).protocol).toBe("http:");
  await page.getByRole("button", { name: /^XTerm/ }).click();
  await page.waitForFunction(() => window.penstock?.state === "streaming", undefined, {
    timeout: 50_000,
  });
  const before = await exactPicture(region, page, user);
  await page.keyboard.type("seq 1 200\n");
  await expect
    .poll(async () => difference(await exactPicture(region, page, user), before), {
      timeout: 30_000,
    })
    .toBeGreaterThan(100);
  return new URL(page.url());
}

describe.skipIf(missing !== undefined)("rootless network", () => {
  const region = new Region({ user: 21347 });
  let context: BrowserContext;
  beforeAll(async () => {
    await region.start("--net", "rootless");
    const browser = await chromium.launch({ executablePath: program, args: ["--no-sandbox"] });
    context = await browser.newContext({ viewport: { width: 1000, height: 700 } });
  }, 90_000);
  afterAll(async () => {
    await context?.browser()?.close();
    await region.stop();
  }, 60_000);

  it("streams to an ordinary user's browser on the machine", async () => {
    const { page, problems } = await watched(context);
    const sockets: URL[] = [];
    page.on("websocket", (socket) => sockets.push(new URL(socket.url())));
    const url = await session(region, page, "rae");
    expect(region.dev.endpointAddresses.map((a) => a.dial)).toContain(url.hostname);
    expect(region.dev.endpointAddresses.map((a) => a.private)).not.toContain(url.hostname);
    expect(url.protocol).toBe("http:");
    expect(sockets.filter((s) => /^14\d\d$/.test(s.port)).length).toBeGreaterThan(0);
    expect(problems).toEqual([]);
  }, 120_000);
});

describe.skipIf(missing !== undefined)("kernel network", () => {
  const networks = new Networks();
  const region = new Region({ within: ["nsenter", `--net=/run/netns/${networks.server}`, "--"] });
  const folder = mkdtempSync(join(tmpdir(), "penstock-drivers-"));
  let context: BrowserContext | undefined;
  beforeAll(async () => {
    await networks.make("192.0.2.1");
    await region.start("--net", "kernel");
  }, 90_000);
  afterAll(async () => {
    await context?.close();
    await region.stop();
    await networks.remove();
    rmSync(folder, { recursive: true, force: true });
  }, 60_000);

  it("goes from the plain portal on loopback to the endpoint over TLS", async () => {
    const home = join(folder, "home");
    mkdirSync(home);
    await region.trust(home);
    const start = join(folder, "chromium");
    writeFileSync(start, `#!/bin/sh\nexec ip netns exec ${networks.server} ${program} "$@"\n`);
    chmodSync(start, 0o755);
    context = await chromium.launchPersistentContext(join(folder, "profile"), {
      executablePath: start,
      env: { ...process.env, HOME: home } as Record<string, string>,
      args: ["--no-sandbox"], // of processes: the tests run as root
      viewport: { width: 1000, height: 700 },
    });
    const { page, problems } = await watched(context);
    const url = await session(region, page, "kit");
    expect(region.dev.publicUrl).toMatch(/^http:\/\/127\.0\.0\.1:/);
    expect(region.dev.endpointAddresses.map((a) => a.private)).toContain(url.hostname);
    expect(url.protocol).toBe("https:");

    // The session ends; the page's link leads back to the plain portal and into the next session.
    const { id } = await region.sessionOf("kit");
    await region.aws("appstream", "expire-session", "--session-id", id);
    await page.getByRole("link", { name: "Back to the applications" }).click({ timeout: 30_000 });
    await page.waitForURL(`${region.dev.publicUrl}/**`);
    await page.getByRole("button", { name: /^XTerm/ }).click();
    await page.waitForFunction(() => window.penstock?.state === "streaming", undefined, {
      timeout: 50_000,
    });
    expect(new URL(page.url()).protocol).toBe("https:");
    expect(problems).toEqual([]);
  }, 180_000);
});
