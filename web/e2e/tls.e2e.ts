// TLS from end to end in Chromium, which trusts the private authority through an NSS database as `penstock trust` makes one, and
// is told to ignore nothing.
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { type Browser, chromium } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { Region } from "./region.ts";

const run = promisify(execFile);
const path = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
const region = new Region();
let name = "";
const open: { browser: Browser; home: string }[] = [];

beforeAll(async () => {
  await region.start("--tls", "on");
  const answer = (await region.aws(
    "ec2",
    "describe-vpc-endpoints",
    "--vpc-endpoint-ids",
    region.dev.vpcEndpointId,
  )) as { VpcEndpoints: { DnsEntries: { DnsName: string }[] }[] };
  name = answer.VpcEndpoints[0]?.DnsEntries[0]?.DnsName ?? "";
}, 90_000);
afterEach(async () => {
  for (const { browser, home } of open.splice(0)) {
    await browser.close();
    rmSync(home, { recursive: true, force: true });
  }
}, 30_000);
afterAll(() => region.stop(), 30_000);

/** A Chromium with a home of its own, where the root is trusted or not. */
async function browserWithHome(trusting: boolean): Promise<Browser> {
  if (!existsSync(path)) {
    throw new Error(`no Chromium at ${path}; set CHROMIUM to its path`);
  }
  const home = mkdtempSync(join(tmpdir(), "penstock-home-"));
  const database = join(home, ".pki", "nssdb");
  mkdirSync(database, { recursive: true, mode: 0o700 });
  await run("certutil", ["-d", `sql:${database}`, "-N", "--empty-password"]);
  if (trusting) {
    const root = region.dev.caBundle ?? "";
    await run("certutil", ["-d", `sql:${database}`, "-A", "-n", "root", "-t", "C,,", "-i", root]);
  }
  const address = region.dev.endpointAddresses[0]?.dial ?? "";
  const browser = await chromium.launch({
    executablePath: path,
    env: { ...process.env, HOME: home } as Record<string, string>,
    args: [
      "--no-sandbox",
      "--disable-background-networking",
      "--disable-component-update",
      "--no-first-run",
      // What a name server inside the VPC would answer.
      `--host-resolver-rules=MAP ${name} ${address}`,
    ],
  });
  open.push({ browser, home });
  return browser;
}

const streaming = () => window.penstock?.state === "streaming";

it("streams over https and wss, by address and by name", async () => {
  const browser = await browserWithHome(true);
  const page = await browser.newPage();
  const sockets: string[] = [];
  const problems: string[] = [];
  page.on("websocket", (socket) => sockets.push(new URL(socket.url()).protocol));
  page.on("console", (message) => {
    if (/Content Security Policy|Mixed Content|SSL|CERT/.test(message.text())) {
      problems.push(message.text());
    }
  });
  await page.goto(await region.streamingUrl("tess"));
  await page.getByRole("button", { name: /^Mousepad/ }).click();
  await page.waitForFunction(streaming, undefined, { timeout: 40_000 });
  const url = new URL(page.url());
  expect(url.protocol).toBe("https:");
  expect(region.dev.endpointAddresses.map((a) => a.dial)).toContain(url.hostname);
  expect(await page.evaluate(() => window.isSecureContext)).toBe(true);
  expect(new Set(sockets)).toEqual(new Set(["wss:"]));
  expect(sockets.length).toBeGreaterThan(1);
  const cookies = await page.context().cookies(region.dev.publicUrl);
  expect(cookies.map((c) => c.secure)).toEqual([true]);

  // The endpoint's name has a certificate too; nothing there asks the user anything.
  const other = await browser.newPage();
  const answer = await other.goto(`https://${name}/v1/config.json`);
  expect(answer?.status()).toBe(200);
  expect((await answer?.securityDetails())?.issuer).toMatch(/^Penstock private CA /);
  expect(problems).toEqual([]);
});

it("refuses the portal while the root is not trusted", async () => {
  const browser = await browserWithHome(false);
  const page = await browser.newPage();
  await expect(page.goto(region.dev.publicUrl)).rejects.toThrow(/ERR_CERT_AUTHORITY_INVALID/);
});
