// The whole path: the built binary, a real application on a real X server, Chromium.
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { launchBrowser } from "./browser.ts";
import { canvasOf, difference, exactPicture } from "./picture.ts";
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
  for (const s of await region.sessions()) {
    if (s.state === "ACTIVE") {
      await region.aws("appstream", "expire-session", "--session-id", s.id);
    }
  }
  expect(problems).toEqual([]);
}, 60_000);

const streaming = () =>
  page.waitForFunction(() => window.penstock?.state === "streaming", undefined, {
    timeout: 40_000,
  });

const canvas = () => canvasOf(page);
const exact = (user: string) => exactPicture(region, page, user);

it("opens a streaming URL, chooses the editor and types into it", async () => {
  await page.goto(await region.streamingUrl("ann"));
  await page.getByRole("button", { name: /^Mousepad/ }).click();
  await streaming();
  const url = new URL(page.url());
  expect(region.dev.endpointAddresses.map((a) => a.dial)).toContain(url.hostname);
  expect(url.port === "" || url.port === "443").toBe(true);
  expect(url.search + url.hash).toBe("");
  const session = await region.sessionOf("ann");
  expect(session.endpointId).toBe(region.dev.vpcEndpointId);
  const windows = () => region.x(session, "xwininfo", "-root", "-tree");
  await expect.poll(windows, { timeout: 20_000 }).toContain("Untitled 1 - Mousepad");
  const before = await exact("ann");
  await page.keyboard.type("Penstock: (two) lines\n");
  await page.keyboard.type("äöü é ß € Ω");
  await expect.poll(windows, { timeout: 20_000 }).toContain("*Untitled 1 - Mousepad");
  await expect.poll(async () => difference(await exact("ann"), before)).toBeGreaterThan(100);
  // What was typed, as the application has it: select all, copy, read the selection.
  await page.keyboard.press("Control+a");
  const text = () =>
    region.x(session, "sh", "-c", "timeout 5 xclip -o -selection primary 2>/dev/null || true");
  await expect.poll(text, { timeout: 20_000 }).toBe("Penstock: (two) lines\näöü é ß € Ω");
});

it("leads straight to a session that streams the application already, and only a person's window", async () => {
  const url = await region.streamingUrl("fay", "xterm");
  const asked: string[] = [];
  page.on("request", (request) => asked.push(new URL(request.url()).pathname));
  await page.goto(url);
  await streaming();
  expect(asked).toContain("/api/portal/v1/launch");
  const before = await region.sessionOf("fay");

  const second = await context.newPage();
  const paths: string[] = [];
  second.on("request", (request) => paths.push(new URL(request.url()).pathname));
  await second.goto(url);
  await second.waitForFunction(() => window.penstock?.state === "streaming", undefined, {
    timeout: 40_000,
  });
  expect(paths.slice(0, 2)).toEqual(["/authenticate", "/"]);
  expect(paths.filter((path) => path.startsWith("/api/portal"))).toEqual([]);
  expect(new URL(second.url()).hash).toBe("");
  await exactPicture(region, second, "fay");
  expect((await region.sessionOf("fay")).id).toBe(before.id);

  // What reads links for somebody, or shows them in a frame, gets the portal's page and no ticket.
  for (const headers of [
    {},
    { "Sec-Fetch-Dest": "iframe" },
    { "Sec-Fetch-Dest": "document", "Sec-Purpose": "prefetch" },
  ]) {
    const answer = await fetch(url, { redirect: "manual", headers });
    expect([answer.status, answer.headers.get("location")]).toEqual([303, "/"]);
  }
});

it("keeps the scripts that are named by their content, and nothing else", async () => {
  await page.goto(await region.streamingUrl("gus", "xterm"));
  await streaming();
  const carried = () =>
    page.evaluate(() =>
      performance
        .getEntriesByType("resource")
        .map((entry) => entry as PerformanceResourceTiming)
        .filter(({ name }) => /\/assets\/.*\.(js|wasm|css)$/.test(name))
        .map(({ name, transferSize }) => [name.split("/").at(-1) ?? "", transferSize] as const),
    );
  const first = await carried();
  expect(first.length).toBeGreaterThan(4);
  await page.goto("about:blank");
  await page.goto(await region.streamingUrl("gus", "xterm"));
  await streaming();
  const again = await carried();
  expect(again.map(([name]) => name).sort()).toEqual(first.map(([name]) => name).sort());
  expect(again.filter(([, bytes]) => bytes > 0)).toEqual([]);
  const { origin } = new URL(page.url());
  for (const path of ["/", "/v1/config.json"]) {
    const answer = await page.request.get(origin + path);
    expect(answer.headers()["cache-control"]).toBe("no-store");
  }
  const script = await page.request.get(
    `${origin}/assets/${first.find(([n]) => /js$/.test(n))?.[0]}`,
  );
  expect(script.headers()["cache-control"]).toBe("private, max-age=31536000, immutable");
  expect(script.headers()["content-encoding"]).toBe("gzip");
});

it("moves the mouse, clicks and scrolls where the user does", async () => {
  await page.goto(await region.streamingUrl("bob", "xterm"));
  await streaming();
  const session = await region.sessionOf("bob");
  await exact("bob");
  const position = () => region.x(session, "xdotool", "getmouselocation", "--shell");
  await page.mouse.move(321, 234);
  await expect.poll(position, { timeout: 10_000 }).toMatch(/X=321\nY=234/);
  await page.keyboard.type("seq 1 500\n");
  const bottom = await exact("bob");
  await page.mouse.wheel(0, -1200);
  await expect.poll(async () => difference(await exact("bob"), bottom)).toBeGreaterThan(100);
});

it("launches the application that the URL names on a fixed screen", async () => {
  await page.goto(`${await region.streamingUrl("cid", "xterm")}&resolution=800x600`);
  await streaming();
  const shot = await canvas();
  expect([shot.width, shot.height]).toEqual([800, 600]);
  await exact("cid");
  await page.setViewportSize({ width: 640, height: 480 });
  await page.keyboard.type("echo still the same size\n");
  await exact("cid");
  expect((await canvas()).width).toBe(800);
});

it("follows the window, survives a reload and comes back to the same session", async () => {
  await page.goto(await region.streamingUrl("dan", "xterm"));
  await streaming();
  await page.setViewportSize({ width: 820, height: 620 });
  await expect.poll(async () => (await canvas()).width, { timeout: 20_000 }).toBe(820);
  await page.keyboard.type("echo before the reload\n");
  await exact("dan");
  await page.reload();
  await streaming();
  await exact("dan");
  const before = await region.sessionOf("dan");
  await page.keyboard.type("echo after the reload\n");
  await exact("dan");
  expect((await region.sessionOf("dan")).id).toBe(before.id);
});

it("shows why a session ended and leads back to the portal", async () => {
  await page.goto(await region.streamingUrl("eve", "xterm"));
  await streaming();
  const { id } = await region.sessionOf("eve");
  await region.aws("appstream", "expire-session", "--session-id", id);
  await page.waitForFunction(() => window.penstock?.state === "ended", undefined, {
    timeout: 20_000,
  });
  await expect(
    page.getByText("An administrator ended the session").first().isVisible(),
  ).resolves.toBe(true);
  await page.getByRole("link", { name: "Back to the applications" }).click();
  await page.waitForURL(`${region.dev.publicUrl}/**`);
});

it("opens the desktop of an image builder, until the builder is deleted", async () => {
  const { vpcEndpointId, endpointAddresses } = region.dev;
  await region.aws(
    "appstream",
    "create-image-builder",
    ...["--name", "office", "--image-name", "Penstock-Base"],
    ...["--instance-type", "stream.standard.medium"],
    ...["--access-endpoints", `EndpointType=STREAMING,VpceId=${vpcEndpointId}`],
  );
  const state = async () => {
    const answer = (await region.aws("appstream", "describe-image-builders")) as {
      ImageBuilders: { State: string }[];
    };
    return answer.ImageBuilders[0]?.State;
  };
  await expect.poll(state, { timeout: 30_000 }).toBe("RUNNING");
  const { StreamingURL } = (await region.aws(
    "appstream",
    "create-image-builder-streaming-url",
    ...["--name", "office"],
  )) as { StreamingURL: string };
  await page.goto(StreamingURL);
  await streaming();
  expect(endpointAddresses.map((a) => a.dial)).toContain(new URL(page.url()).hostname);
  const before = await exact("ImageBuilderAdmin");
  await page.keyboard.type("echo from the builder\n");
  await expect
    .poll(async () => difference(await exact("ImageBuilderAdmin"), before))
    .toBeGreaterThan(100);
  await region.aws("appstream", "delete-image-builder", "--name", "office");
  await page.waitForFunction(() => window.penstock?.state === "ended", undefined, {
    timeout: 20_000,
  });
  await expect.poll(state, { timeout: 30_000 }).toBe(undefined);
}, 120_000);

it("ends when the application is closed", async () => {
  await page.goto(await region.streamingUrl("fay", "xterm"));
  await streaming();
  await page.keyboard.type("exit\n");
  await page.waitForFunction(() => window.penstock?.state === "ended", undefined, {
    timeout: 20_000,
  });
});

it("streams from the internet endpoint while the stack has no other, and stays there", async () => {
  const update = (...change: string[]) =>
    region.aws("appstream", "update-stack", "--name", region.dev.stackName, ...change);
  await update("--attributes-to-delete", "ACCESS_ENDPOINTS");
  try {
    await page.goto(await region.streamingUrl("hal", "xterm"));
    await streaming();
  } finally {
    await update("--access-endpoints", `EndpointType=STREAMING,VpceId=${region.dev.vpcEndpointId}`);
  }
  expect(page.url()).toBe(`${region.dev.publicUrl}/stream/`);
  expect((await region.sessionOf("hal")).endpointId).toBe("internet");
  await page.keyboard.type("echo the running session stays where it began\n");
  await exact("hal");
  await page.reload();
  await streaming();
  await exact("hal");
});

it("names the rule when the display ports are closed", async () => {
  const groups = (await region.aws(
    "ec2",
    "describe-security-groups",
    "--filters",
    "Name=group-name,Values=demo-streaming",
  )) as { SecurityGroups: { GroupId: string }[] };
  const rule = [
    "--group-id",
    groups.SecurityGroups[0]?.GroupId ?? "",
    "--protocol",
    "tcp",
    "--port",
    "1400-1499",
    "--cidr",
    "192.168.0.0/16",
  ];
  await region.aws("ec2", "revoke-security-group-ingress", ...rule);
  try {
    await page.goto(await region.streamingUrl("gus", "xterm"));
    await page
      .getByText(/Port 14\d\d of the endpoint cannot be reached from here/)
      .first()
      .waitFor({ timeout: 40_000 });
    await page
      .getByText(/sg-[0-9a-f]{17}/)
      .first()
      .waitFor({ timeout: 20_000 });
  } finally {
    await region.aws("ec2", "authorize-security-group-ingress", ...rule);
  }
});
