// The browser's own rule (Local Network Access): the portal is at an address that Chromium counts as public, the endpoint at a
// private one, and a session streams without a flag that turns the rule off and without a permission. Real networks in namespaces:
// the kernel driver, a user behind a router. Every certificate is trusted through the NSS store of the browser's user.
import { execFile } from "node:child_process";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { type BrowserContext, chromium, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { Networks, namespacesMissing } from "./networks.ts";
import { difference, exactPicture } from "./picture.ts";
import { Region } from "./region.ts";

const run = promisify(execFile);
/** Documentation addresses (RFC 5737) belong to nobody; Chromium counts them as public, which the tests check. */
const publicAddr = "203.0.113.10";
const portal = `https://${publicAddr}`;
const missing = namespacesMissing();
if (missing !== undefined && process.env["PENSTOCK_TEST_STRICT"] === "1") {
  throw new Error(missing);
}

const networks = new Networks();
const region = new Region({
  within: ["nsenter", `--net=/run/netns/${networks.server}`, "--"],
  publicAddr: `${publicAddr}:443`,
});
const folder = mkdtempSync(join(tmpdir(), "penstock-lna-"));
const home = join(folder, "home");
let context: BrowserContext | undefined;
let blocked: string[] = [];
let sockets: URL[] = [];
let spaces = new Map<string, Set<string>>();

describe.skipIf(missing !== undefined)("Local Network Access", () => {
  beforeAll(async () => {
    mkdirSync(home);
    await networks.make(publicAddr);
    const { cert, key, root } = await publicCertificate();
    await region.start("--net", "kernel", "--tls", "on", "--tls-cert", cert, "--tls-key", key);
    await networks.join(region.dev.userNetworks[0]?.cidr ?? "");
    await region.trust(home);
    const database = `sql:${join(home, ".pki", "nssdb")}`;
    await run("certutil", ["-d", database, "-A", "-n", "public", "-t", "C,,", "-i", root]);
  }, 120_000);
  afterAll(async () => {
    await region.stop();
    await networks.remove();
    rmSync(folder, { recursive: true, force: true });
  }, 60_000);
  beforeEach(() => {
    blocked = [];
    sockets = [];
    spaces = new Map();
  });
  afterEach(async () => {
    await context?.close();
    context = undefined;
    for (const s of await region.sessions()) {
      if (s.state === "ACTIVE") {
        await region.aws("appstream", "expire-session", "--session-id", s.id);
      }
    }
  }, 60_000);

  it("streams, also to a returning visitor, after a reload and after a cut", async () => {
    let page = await visit("profile");
    await page.goto(await region.streamingUrl("lou"));
    const first = page.url();
    await page.getByRole("button", { name: /^XTerm/ }).click();
    await streams(page);
    await exactPicture(region, page, "lou");
    const { id } = await region.sessionOf("lou");
    expect(new URL(first).origin).toBe(portal);
    await notAsked(page, "a first visit");
    expect([...(spaces.get(publicAddr) ?? [])]).toEqual(["Public"]);
    expect([...(spaces.get(new URL(page.url()).hostname) ?? [])]).toEqual(["Local"]);

    await page.reload();
    await streams(page);
    await exactPicture(region, page, "lou");
    await notAsked(page, "a reload");

    // The network goes away and comes back: the page reconnects by itself.
    await networks.cut(true);
    await page.waitForFunction(() => window.penstock?.state === "reconnecting", undefined, {
      timeout: 50_000,
    });
    await networks.cut(false);
    await streams(page);
    const before = await exactPicture(region, page, "lou");
    await page.keyboard.type("seq 1 200\n");
    await expect
      .poll(async () => difference(await exactPicture(region, page, "lou"), before))
      .toBeGreaterThan(100);
    await notAsked(page, "a reconnect");

    // The browser is closed and opened again with the same profile: caches, cookies, permissions.
    await context?.close();
    page = await visit("profile");
    await page.goto(portal);
    await page.getByRole("button", { name: /^XTerm/ }).click();
    await streams(page);
    await exactPicture(region, page, "lou");
    expect((await region.sessionOf("lou")).id).toBe(id);
    await notAsked(page, "a second visit");

    // The session ends; by the page's link back to the portal and into the next one.
    await region.aws("appstream", "expire-session", "--session-id", id);
    await page.getByRole("link", { name: "Back to the applications" }).click({ timeout: 30_000 });
    await page.waitForURL(`${portal}/**`);
    sockets = [];
    await page.getByRole("button", { name: /^XTerm/ }).click();
    await streams(page);
    await notAsked(page, "a way back");
    const preferences = JSON.parse(
      readFileSync(join(folder, "profile", "Default", "Preferences"), "utf8"),
    ) as { profile?: { content_settings?: { exceptions?: Record<string, object> } } };
    for (const [kind, sites] of Object.entries(
      preferences.profile?.content_settings?.exceptions ?? {},
    )) {
      if (/local_network|loopback_network/.test(kind)) {
        expect(Object.keys(sites), kind).toEqual([]);
      }
    }
  }, 240_000);

  it("goes on in the other zone when one is lost, and new sessions begin there", async () => {
    const page = await visit("zones");
    await page.goto(await region.streamingUrl("zoe", "xterm"));
    await streams(page);
    const session = await region.sessionOf("zoe");
    const lost = new URL(page.url()).hostname;
    const other = region.dev.endpointAddresses.map((a) => a.dial).find((a) => a !== lost) ?? "";
    const name = await endpointName();
    expect((await addresses(name)).sort()).toEqual([lost, other].sort());
    sockets = [];

    const vpc = await loseZone(lost);
    try {
      await expect.poll(() => statusOf(lost), { timeout: 30_000 }).toBe("pending");
      expect(await statusOf(other)).toBe("in-use");
      await expect.poll(() => addresses(name), { timeout: 10_000 }).toEqual([other]);
      expect(await endpointState()).toBe("available");

      // The running session reconnects by itself as soon as somebody uses it, from the page of the address that is lost.
      await page.mouse.move(200, 200);
      await page.waitForFunction(() => window.penstock?.state === "reconnecting", undefined, {
        timeout: 60_000,
      });
      await page.waitForFunction(() => window.penstock?.state === "streaming", undefined, {
        timeout: 60_000,
      });
      expect(new Set(sockets.slice(-2).map((s) => s.hostname))).toEqual(new Set([other]));
      const before = await exactPicture(region, page, "zoe");
      await page.keyboard.type("seq 1 200\n");
      await expect
        .poll(async () => difference(await exactPicture(region, page, "zoe"), before))
        .toBeGreaterThan(100);
      expect((await region.sessionOf("zoe")).id).toBe(session.id);
      await notAsked(page, "the other zone");
      expect(blocked).toEqual([]);

      // So does who comes back by the portal, and everybody new.
      for (const user of ["zoe", "zac", "zed"]) {
        const next = (await context?.newPage()) as Page;
        await next.goto(await region.streamingUrl(user, "xterm"));
        await next.waitForURL(`https://${other}/**`, { timeout: 30_000 });
        await next.close();
      }
    } finally {
      await networks.run(vpc, "nft", "delete", "table", "inet", "lost");
    }
    await expect.poll(() => statusOf(lost), { timeout: 30_000 }).toBe("in-use");
    await expect
      .poll(async () => (await addresses(name)).sort(), { timeout: 10_000 })
      .toEqual([lost, other].sort());
  }, 240_000);

  it("is in force: the portal's page may not connect to the endpoint", async () => {
    const address = region.dev.endpointAddresses[0]?.dial ?? "";
    // Without the portal's own content security policy, which forbids it first.
    let page = await visit("bare", { bypassCSP: true });
    await page.goto(portal);
    expect(await reach(page, address)).toEqual({ fetch: "TypeError", socket: "error" });
    expect(blocked.join("\n")).toContain("ERR_BLOCKED_BY_LOCAL_NETWORK_ACCESS_CHECKS");
    expect(await permissions(page)).not.toContain("granted");
    await context?.close();

    // What keeps it out is that rule alone: with the permission the same page fetches.
    page = await visit("permitted", { bypassCSP: true });
    await context?.grantPermissions(["local-network-access"], { origin: portal });
    await page.goto(portal);
    expect((await reach(page, address)).fetch).toBe("opaque");
    expect(spaces.get(publicAddr)).toEqual(new Set(["Public"]));
  }, 120_000);
});

/** Has every packet to an address of the endpoint dropped in its VPC, and returns the VPC's namespace. */
async function loseZone(address: string): Promise<string> {
  const vpc = readdirSync("/run/netns").find(
    (n) => n.startsWith("penstock-") && n.endsWith(region.dev.vpcId.replace("vpc-", "")),
  );
  if (vpc === undefined) {
    throw new Error("the VPC has no namespace");
  }
  const rules =
    `table inet lost { chain input { type filter hook prerouting priority -400; ` +
    `ip daddr ${address} tcp dport { 443, 1400-1499 } drop; }; }`;
  await networks.run(vpc, "nft", rules);
  return vpc;
}

async function statusOf(address: string): Promise<string | undefined> {
  const answer = (await region.aws(
    "ec2",
    "describe-network-interfaces",
    "--filters",
    `Name=addresses.private-ip-address,Values=${address}`,
  )) as { NetworkInterfaces: { Status: string }[] };
  return answer.NetworkInterfaces[0]?.Status;
}

async function endpoint(): Promise<{ State: string; DnsEntries: { DnsName: string }[] }> {
  const answer = (await region.aws(
    "ec2",
    "describe-vpc-endpoints",
    "--vpc-endpoint-ids",
    region.dev.vpcEndpointId,
  )) as { VpcEndpoints: [{ State: string; DnsEntries: { DnsName: string }[] }] };
  return answer.VpcEndpoints[0];
}

const endpointState = async () => (await endpoint()).State;
const endpointName = async () => (await endpoint()).DnsEntries[0]?.DnsName ?? "";

/** What the region's name server answers. */
async function addresses(name: string): Promise<string[]> {
  const [host = "", port = ""] = region.dev.dnsAddr.split(":");
  const said = await networks.run(
    networks.server,
    "dig",
    ...["+short", "+time=2", `@${host}`, "-p", port, name],
  );
  return said.trim().split("\n");
}

/** Chromium in the user's namespace with a profile of its own, at an empty page that is watched. */
async function visit(profile: string, options: { bypassCSP?: boolean } = {}): Promise<Page> {
  const start = join(folder, "chromium");
  const program = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
  writeFileSync(start, `#!/bin/sh\nexec ip netns exec ${networks.user} ${program} "$@"\n`);
  chmodSync(start, 0o755);
  context = await chromium.launchPersistentContext(join(folder, profile), {
    executablePath: start,
    env: { ...process.env, HOME: home } as Record<string, string>,
    args: ["--no-sandbox"], // of processes: the tests run as root
    viewport: { width: 1000, height: 700 },
    ...options,
  });
  const page = await context.newPage();
  page.on("console", (message) => {
    if (/LOCAL_NETWORK_ACCESS|local network|private network/i.test(message.text())) {
      blocked.push(message.text());
    }
  });
  page.on("requestfailed", (request) => {
    const text = request.failure()?.errorText ?? "";
    if (/LOCAL_NETWORK|PRIVATE_NETWORK/.test(text)) {
      blocked.push(`${request.url()}: ${text}`);
    }
  });
  page.on("websocket", (socket) => {
    sockets.push(new URL(socket.url()));
    socket.on("socketerror", (text) => {
      if (/LOCAL_NETWORK|PRIVATE_NETWORK/.test(text)) {
        blocked.push(`${socket.url()}: ${text}`);
      }
    });
  });
  const cdp = await context.newCDPSession(page);
  await cdp.send("Network.enable");
  cdp.on("Network.requestWillBeSentExtraInfo", ({ clientSecurityState, headers }) => {
    const from = headers["Referer"] ?? headers["Origin"] ?? headers["referer"] ?? headers["origin"];
    if (clientSecurityState !== undefined && from !== undefined) {
      const host = new URL(from).hostname;
      const seen = spaces.get(host) ?? new Set();
      spaces.set(host, seen.add(clientSecurityState.initiatorIPAddressSpace));
    }
  });
  return page;
}

/** Waits until the page streams from a private address, over its two kinds of ports, and nothing was blocked. */
async function streams(page: Page): Promise<void> {
  await page.waitForFunction(() => window.penstock?.state === "streaming", undefined, {
    timeout: 50_000,
  });
  const url = new URL(page.url());
  const private_ = region.dev.endpointAddresses.map((a) => a.dial);
  expect(private_).toContain(url.hostname);
  expect(url.protocol).toBe("https:");
  expect(new Set(sockets.map((s) => s.protocol))).toEqual(new Set(["wss:"]));
  for (const s of sockets) {
    expect(private_).toContain(s.hostname);
  }
  const ports = new Set(sockets.map((s) => Number(s.port === "" ? 443 : s.port)));
  expect(ports).toContain(443);
  ports.delete(443);
  expect(ports.size).toBeGreaterThan(0);
  for (const port of ports) {
    expect(port).toBeGreaterThanOrEqual(1400);
    expect(port).toBeLessThanOrEqual(1499);
  }
  expect(blocked).toEqual([]);
}

/** No permission was asked for, given or refused, at the portal or at the endpoint. */
async function notAsked(page: Page, when: string): Promise<void> {
  expect(new Set(await permissions(page)), when).toEqual(new Set(["prompt"]));
}

/** The state of the permissions that the rule knows, in this version's words. */
function permissions(page: Page): Promise<string[]> {
  return page.evaluate(async () => {
    const found: string[] = [];
    for (const name of ["local-network-access", "local-network", "loopback-network"]) {
      try {
        found.push((await navigator.permissions.query({ name: name as PermissionName })).state);
      } catch {
        // a name that this version does not have
      }
    }
    return found;
  });
}

/** What a page gets when it fetches from the endpoint and opens a WebSocket to it. */
function reach(page: Page, address: string): Promise<{ fetch: string; socket: string }> {
  return page.evaluate(async (to) => {
    const bound = { signal: AbortSignal.timeout(20_000), mode: "no-cors" as const };
    const fetched = await fetch(`https://${to}/v1/config.json`, bound).then(
      (r) => r.type as string,
      (cause) => (cause instanceof Error ? cause.name : String(cause)),
    );
    const socket = await new Promise<string>((resolve) => {
      const s = new WebSocket(`wss://${to}/v1/channel/control`);
      s.onopen = () => resolve("open");
      s.onerror = () => resolve("error");
      setTimeout(() => resolve("nothing"), 20_000);
    });
    return { fetch: fetched, socket };
  }, address);
}

/** A certificate for the public address; its authority stands for one that browsers know. */
async function publicCertificate(): Promise<{ cert: string; key: string; root: string }> {
  const at = (name: string) => join(folder, name);
  const openssl = (...args: string[]) => run("openssl", args, { cwd: folder });
  const ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const files = { cert: at("portal.pem"), key: at("portal.key"), root: at("public.pem") };
  await openssl(
    ...["req", "-x509", ...ec, "-days", "30", "-subj", "/CN=Public CA of the tests"],
    ...["-keyout", at("public.key"), "-out", files.root],
  );
  await openssl(
    ...["req", ...ec, "-subj", "/O=portal", "-keyout", files.key, "-out", at("portal.csr")],
  );
  writeFileSync(
    at("portal.ext"),
    `subjectAltName=IP:${publicAddr}\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n`,
  );
  await openssl(
    ...["x509", "-req", "-in", at("portal.csr"), "-CA", files.root, "-CAkey", at("public.key")],
    ...["-CAcreateserial", "-days", "30", "-extfile", at("portal.ext"), "-out", files.cert],
  );
  return files;
}
