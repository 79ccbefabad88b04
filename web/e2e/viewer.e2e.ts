import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { paletteTile, type RGB, rawTile, solidTile } from "../viewer/src/testing/tile_records.ts";
import { expectAccessible } from "./axe.ts";
import { launchBrowser } from "./browser.ts";
import { closedPort, FakeAgent } from "./fake_agent.ts";

let browser: Browser;
let page: Page;
let agent: FakeAgent;
const problems: string[] = [];

beforeAll(async () => {
  browser = await launchBrowser();
});
afterAll(() => browser?.close());

beforeEach(async () => {
  agent = new FakeAgent();
  await agent.start();
  page = await browser.newPage({ viewport: { width: 640, height: 480 } });
  problems.length = 0;
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (message) => {
    if (/Content Security Policy|TypeError|ReferenceError/.test(message.text())) {
      problems.push(message.text());
    }
  });
});
afterEach(async () => {
  await page.close();
  await agent.stop();
  expect(problems).toEqual([]);
});

const state = (want: string) =>
  page.waitForFunction((value) => window.penstock?.state === value, want, { timeout: 15_000 });

/** The pixels of the page's canvas at some points, as a page beside the viewer reads them. */
const pixels = (points: [number, number][]) =>
  page.evaluate((at) => {
    const canvas = document.querySelector<HTMLCanvasElement>("canvas#screen") as HTMLCanvasElement;
    const copy = document.createElement("canvas");
    copy.width = canvas.width;
    copy.height = canvas.height;
    const context = copy.getContext("2d") as CanvasRenderingContext2D;
    context.drawImage(canvas, 0, 0);
    return at.map(([x, y]) => [...context.getImageData(x, y, 1, 1).data.slice(0, 3)]);
  }, points);

const until = async (read: () => Promise<unknown>, want: unknown) => {
  await expect.poll(read, { timeout: 10_000 }).toEqual(want);
};

const checks: [RGB, RGB] = [
  [250, 240, 230],
  [20, 30, 40],
];

/** A picture with tiles of each coding over a solid ground. */
function picture(a: FakeAgent) {
  const grounds = [];
  for (let row = 0; row * 64 < a.height; row++) {
    for (let column = 0; column * 64 < a.width; column++) {
      grounds.push(solidTile(column, row, [30, 60, 90]));
    }
  }
  const h = Math.min(64, a.height - 64);
  return [
    a.tiles(
      ...grounds,
      rawTile(1, 1, 64, h, (x, y) => [x * 4, y * 4, 128]),
      paletteTile(2, 1, 64, h, 1, checks, (x, y) => (x + y) & 1),
    ),
    {
      kind: "fill" as const,
      fills: [{ x: 300, y: 10, width: 20, height: 20, r: 255, g: 0, b: 0 }],
    },
  ];
}

it("connects, draws exact pixels and acknowledges", async () => {
  agent.paint = picture;
  await page.goto(`${agent.url}#t=first.sig`);
  await state("streaming");
  expect(new URL(page.url()).hash).toBe("");
  await until(
    () =>
      pixels([
        [0, 0],
        [64 + 10, 64 + 20],
        [128, 64],
        [129, 64],
        [305, 15],
        [639, 479],
      ]),
    [
      [30, 60, 90],
      [40, 80, 128],
      [250, 240, 230],
      [20, 30, 40],
      [255, 0, 0],
      [30, 60, 90],
    ],
  );
  await agent.until(() => agent.acks.length === 1, "the acknowledgement");
  expect(await page.title()).toBe("Text editor");

  agent.update([
    { kind: "copy", copies: [{ srcX: 300, srcY: 10, dstX: 310, dstY: 20, width: 20, height: 20 }] },
    agent.tiles(solidTile(9, 7, [1, 2, 3])),
  ]);
  await until(
    () =>
      pixels([
        [329, 39],
        [305, 15],
        [639, 479],
      ]),
    [
      [255, 0, 0],
      [255, 0, 0],
      [1, 2, 3],
    ],
  );
  const stats = await page.evaluate(() => window.penstock.stats());
  expect(stats).toMatchObject({ width: 640, height: 480, epoch: 1 });
  expect(stats.bytes.display).toBeGreaterThan(1000);
  // The picture is drawn pixel for pixel.
  const shot = await page.screenshot();
  expect(shot.byteLength).toBeGreaterThan(0);
});

it("sends pointer, wheel, keys and text once each", async () => {
  agent.paint = picture;
  await page.goto(`${agent.url}#t=first.sig`);
  await state("streaming");
  agent.received.length = 0;
  await page.mouse.move(100, 50);
  await page.mouse.down();
  await page.mouse.up();
  await page.mouse.wheel(0, 120);
  await page.keyboard.press("Shift+A");
  await page.keyboard.insertText("日本");
  const kinds = () => agent.received.map(({ kind }) => kind);
  await agent.until(() => kinds().includes("text"), "text");
  const input = agent.received.filter((m) => "seq" in m);
  expect(input.map((m) => m.seq)).toEqual(input.map((_, i) => (input[0]?.seq ?? 0) + i));
  const done = input.filter(({ kind }) => kind !== "keyboard"); // the browser's word of it comes at any time
  expect(done.map(({ seq: _, ...m }) => m)).toEqual([
    { kind: "pointer", x: 100, y: 50, buttons: 0 },
    { kind: "pointer", x: 100, y: 50, buttons: 1 },
    { kind: "pointer", x: 100, y: 50, buttons: 0 },
    { kind: "wheel", x: 100, y: 50, dx: 0, dy: 120 },
    { kind: "key", down: true, flags: expect.any(Number), code: "ShiftLeft", key: "Shift" },
    { kind: "key", down: true, flags: expect.any(Number), code: "KeyA", key: "A" },
    { kind: "key", down: false, flags: expect.any(Number), code: "KeyA", key: "A" },
    { kind: "key", down: false, flags: expect.any(Number), code: "ShiftLeft", key: "Shift" },
    { kind: "text", text: "日本" },
  ]);
});

it("follows the window and keeps a fixed size when asked", async () => {
  agent.paint = picture;
  await page.goto(`${agent.url}#t=first.sig`);
  await state("streaming");
  await page.setViewportSize({ width: 801, height: 601 });
  await until(() => page.evaluate(() => window.penstock.stats().width), 801);
  expect(agent.received).toContainEqual({ kind: "resize", width: 801, height: 601, scale: 100 });
  await until(
    () => page.evaluate(() => (document.querySelector("#screen") as HTMLCanvasElement).width),
    801,
  );

  await page.goto("about:blank");
  await page.goto(`${agent.url}#t=second.sig&r=1280x720`);
  await state("streaming");
  expect(agent.received).toContainEqual(
    expect.objectContaining({ kind: "hello", width: 1280, height: 720, flags: 1 }),
  );
  const box = await page.locator("#screen").boundingBox();
  expect(box?.width).toBeCloseTo(801, 0);
});

it("resumes after a lost network and after a reload, without replaying input", async () => {
  agent.paint = picture;
  await page.goto(`${agent.url}#t=first.sig`);
  await state("streaming");
  await page.keyboard.press("a");
  await agent.until(() => agent.received.some((m) => m.kind === "key" && !m.down), "the key");
  const seq = () => Math.max(...agent.received.flatMap((m) => ("seq" in m ? [m.seq] : [])));
  const before = seq();
  const keys = () => agent.received.filter((m) => m.kind === "key").length;
  agent.dropAll();
  await state("reconnecting");
  await state("streaming");
  expect(keys()).toBe(2);
  await page.keyboard.press("b");
  await agent.until(() => keys() === 4, "the next key");
  expect(seq()).toBeGreaterThan(before);
  agent.dropDisplay();
  await state("reconnecting");
  await state("streaming");
  const reloaded = seq();
  await page.reload();
  await state("streaming");
  await page.keyboard.press("c");
  await agent.until(() => keys() === 6, "the key after the reload");
  expect(seq()).toBeGreaterThan(reloaded);
});

it("recovers from a broken update with a new epoch", async () => {
  agent.paint = picture;
  await page.goto(`${agent.url}#t=first.sig`);
  await state("streaming");
  agent.update([{ kind: "tiles", rawLength: 6, data: Uint8Array.of(1, 2, 3, 4) }]);
  await until(() => page.evaluate(() => window.penstock.stats().epoch), 2);
  await until(() => pixels([[0, 0]]), [[30, 60, 90]]);
  expect(await page.evaluate(() => window.penstock.state)).toBe("streaming");
});

it("shows the cursor", async () => {
  agent.paint = picture;
  await page.goto(`${agent.url}#t=first.sig`);
  await state("streaming");
  const rgba = new Uint8Array(16 * 16 * 4).fill(255);
  agent.send({ kind: "cursor", serial: 1, width: 16, height: 16, hotX: 3, hotY: 4, rgba });
  const cursor = () =>
    page.evaluate(() => (document.querySelector(".penstock-stage") as HTMLElement).style.cursor);
  await until(
    async () => /^url\("data:image\/png;base64,.*"\) 3 4, default$/.test(await cursor()),
    true,
  );
  agent.send({
    kind: "cursor",
    serial: 2,
    width: 0,
    height: 0,
    hotX: 0,
    hotY: 0,
    rgba: new Uint8Array(),
  });
  await until(cursor, "none");
});

it("ends with the reason in plain words and a way back", async () => {
  agent.paint = picture;
  await page.goto(`${agent.url}#t=first.sig`);
  await state("streaming");
  agent.send({ kind: "ended", code: 2, reason: "Ended by the administrator." });
  agent.close(4410, "ended");
  await state("ended");
  await expectAccessible(page);
  expect(await page.locator("h1").textContent()).toBe("An administrator ended the session");
  expect(await page.locator(".card").textContent()).toContain("ended-2");
  expect(await page.locator("a.button").getAttribute("href")).toBe("https://portal.example/");
});

it("shows why a ticket was refused", async () => {
  agent.ticketsSeen.push("first.sig");
  await page.goto(`${agent.url}#t=first.sig`);
  await state("ended");
  expect(await page.locator("h1").textContent()).toBe("This link was used before");
  expect(await page.locator(".card").textContent()).toContain("ticket-used (4402)");
});

it("names the blocked port and the rule that blocks it", async () => {
  agent.wrongPort = await closedPort();
  agent.reachability = {
    ok: false,
    symptom: "timeout",
    hops: [
      { kind: "route table", resource: "rtb-1", rule: "", allow: true, why: "", fix: "" },
      {
        kind: "security group",
        resource: "sg-0123",
        rule: "no inbound rule for tcp 1400",
        allow: false,
        why: "Nothing in the group admits your network on this port.",
        fix: "Allow inbound TCP 1400-1499 from 192.168.0.0/16.",
      },
    ],
  };
  await page.goto(`${agent.url}#t=first.sig`);
  await page.locator(".card dl").waitFor();
  const text = await page.locator(".card").textContent();
  expect(text).toContain(`Port ${agent.wrongPort} of the endpoint cannot be reached from here`);
  expect(text).toContain("sg-0123");
  expect(text).toContain("Allow inbound TCP 1400-1499");
  expect(agent.reachabilityAuthorization).toMatch(/^Bearer display-/);
  expect(await page.evaluate(() => window.penstock.state)).toBe("connecting");
});

it("leaves by keyboard to the toolbar, and ends the session from there", async () => {
  agent.paint = picture;
  await page.goto(`${agent.url}#t=first.sig`);
  await state("streaming");
  agent.received.length = 0;
  await page.keyboard.press("Control+Alt+Shift+Q");
  const focused = () => page.evaluate(() => document.activeElement?.textContent ?? "");
  expect(await focused()).toBe("Full screen");
  await agent.until(() => agent.received.some((m) => m.kind === "release-all"), "release-all");
  await page.keyboard.press("Escape");
  expect(await page.evaluate(() => document.activeElement?.tagName)).toBe("TEXTAREA");
  await page.keyboard.press("Control+Alt+Shift+Q");
  for (let i = 0; i < 4; i++) {
    await page.keyboard.press("ArrowRight");
  }
  expect(await focused()).toBe("Quality");
  await page.keyboard.press("Enter");
  await page.locator(".quality").waitFor();
  await page.waitForTimeout(300); // the bar slides in; axe judges colours
  await expectAccessible(page);
  await page.keyboard.press("ArrowRight");
  expect(await focused()).toBe("End session");
  await page.keyboard.press("Enter");
  await expectAccessible(page);
  await page.getByRole("button", { name: "End session" }).last().click();
  await state("ended");
  expect(await page.locator("h1").textContent()).toBe("You ended the session");
  expect(agent.received.filter((m) => m.kind === "key" && m.code === "KeyQ")).toEqual([]);
});

it("sends what an input method composed, once, and its keys not at all", async () => {
  agent.paint = picture;
  await page.goto(`${agent.url}#t=first.sig`);
  await state("streaming");
  agent.received.length = 0;
  const devtools = await page.context().newCDPSession(page);
  const compose = (text: string) =>
    devtools.send("Input.imeSetComposition", {
      text,
      selectionStart: text.length,
      selectionEnd: text.length,
    });
  for (const commit of ["日本", "語"]) {
    await devtools.send("Input.dispatchKeyEvent", {
      type: "rawKeyDown",
      code: "KeyN",
      key: "Process",
      windowsVirtualKeyCode: 229,
    });
    await compose("n");
    await compose("に");
    await devtools.send("Input.insertText", { text: commit });
    await devtools.send("Input.dispatchKeyEvent", { type: "keyUp", code: "KeyN", key: "n" });
  }
  await page.keyboard.press("x");
  await agent.until(() => agent.received.some((m) => m.kind === "key" && !m.down), "the last key");
  const got = agent.received.flatMap((m) =>
    m.kind === "text" ? [m.text] : m.kind === "key" ? [`${m.code} ${m.down}`] : [],
  );
  expect(got).toEqual(["日本", "語", "KeyX true", "KeyX false"]);
});

it("releases everything when the page loses the focus", async () => {
  agent.paint = picture;
  await page.goto(`${agent.url}#t=first.sig`);
  await state("streaming");
  agent.received.length = 0;
  await page.mouse.move(50, 60);
  await page.mouse.down();
  await page.keyboard.down("Control");
  await page.evaluate(() => window.dispatchEvent(new Event("blur")));
  await page.evaluate(() => window.dispatchEvent(new Event("blur")));
  await agent.until(() => agent.received.some((m) => m.kind === "release-all"), "release-all");
  await page.mouse.move(51, 60);
  await agent.until(() => agent.received.at(-1)?.kind === "pointer", "the pointer");
  expect(
    agent.received.map(({ kind }) => kind).filter((kind) => kind === "release-all"),
  ).toHaveLength(1);
});

it("stops asking for pictures while nobody can see them", async () => {
  agent.paint = picture;
  await page.goto(`${agent.url}#t=first.sig`);
  await state("streaming");
  const hidden = (value: boolean) =>
    page.evaluate((v) => {
      Object.defineProperty(document, "visibilityState", {
        configurable: true,
        get: () => (v ? "hidden" : "visible"),
      });
      document.dispatchEvent(new Event("visibilitychange"));
    }, value);
  await hidden(true);
  await agent.until(
    () => agent.received.some((m) => m.kind === "visibility" && m.hidden),
    "hidden",
  );
  await hidden(false);
  await agent.until(
    () => agent.received.some((m) => m.kind === "visibility" && !m.hidden),
    "shown",
  );
});

it("opens a new link in the same tab as a new session", async () => {
  agent.paint = picture;
  await page.goto(`${agent.url}#t=first.sig`);
  await state("streaming");
  await page.evaluate(() => {
    location.hash = "#t=second.sig";
  });
  await agent.until(() => agent.ticketsSeen.includes("second.sig"), "the second ticket");
  await state("streaming");
  expect(new URL(page.url()).hash).toBe("");
});

it("draws pixel for pixel on a screen of two device pixels a CSS pixel", async () => {
  const fine = await browser.newContext({
    viewport: { width: 320, height: 240 },
    deviceScaleFactor: 2,
  });
  const small = await fine.newPage();
  agent.paint = picture;
  await small.goto(`${agent.url}#t=first.sig`);
  await small.waitForFunction(() => window.penstock?.state === "streaming");
  expect(agent.received).toContainEqual(
    expect.objectContaining({ kind: "hello", width: 640, height: 480, scale: 200 }),
  );
  const box = await small.locator("#screen").boundingBox();
  expect(box).toEqual({ x: 0, y: 0, width: 320, height: 240 });
  await small.mouse.move(100, 50);
  await agent.until(
    () => agent.received.some((m) => m.kind === "pointer" && m.x === 200 && m.y === 100),
    "the pointer",
  );
  const cursor = { kind: "cursor" as const, serial: 1, width: 32, height: 32, hotX: 8, hotY: 4 };
  agent.send({ ...cursor, rgba: new Uint8Array(32 * 32 * 4).fill(255) });
  await expect
    .poll(() =>
      small.evaluate(() => (document.querySelector(".penstock-stage") as HTMLElement).style.cursor),
    )
    .toMatch(/^image-set\(url\("data:.*"\) (2x|2dppx)\) 4 2, default$/);
  await fine.close();
});

it("draws in the page where workers cannot have a canvas", async () => {
  await page.addInitScript(() => {
    Reflect.deleteProperty(HTMLCanvasElement.prototype, "transferControlToOffscreen");
  });
  agent.paint = picture;
  await page.goto(`${agent.url}#t=first.sig`);
  await state("streaming");
  await until(() => pixels([[64 + 10, 64 + 20]]), [[40, 80, 128]]);
  agent.update([agent.tiles(solidTile(9, 7, [1, 2, 3]))]);
  await until(() => pixels([[639, 479]]), [[1, 2, 3]]);
  expect(page.workers()).toHaveLength(0);
});

it("starts a crashed worker again", async () => {
  agent.paint = picture;
  await page.goto(`${agent.url}#t=first.sig`);
  await state("streaming");
  await page.workers()[0]?.evaluate(() => {
    setTimeout(() => {
      throw new Error("crash");
    });
  });
  await agent.until(
    () => agent.received.some((m) => m.kind === "need-display-ticket"),
    "a new display",
  );
  await state("streaming");
  await until(() => pixels([[64 + 10, 64 + 20]]), [[40, 80, 128]]);
  agent.update([agent.tiles(solidTile(9, 7, [1, 2, 3]))]);
  await until(() => pixels([[639, 479]]), [[1, 2, 3]]);
});

it("says that WebAssembly is blocked", async () => {
  await page.route("**/*.wasm", (route) => route.abort());
  await page.goto(`${agent.url}#t=first.sig`);
  await state("ended");
  expect(await page.locator("h1").textContent()).toBe("This browser cannot show the session");
});

it("needs a ticket", async () => {
  await page.goto(agent.url);
  await state("ended");
  expect(await page.locator("h1").textContent()).toBe("This page needs a streaming link");
});

it("shows the quality of the session, copies it, and measures only while it is open", async () => {
  agent.paint = picture;
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.goto(`${agent.url}#t=first.sig`);
  await state("streaming");
  const pings = () => agent.received.filter((m) => m.kind === "ping").length;
  await page.waitForTimeout(1500); // a closed panel asks for nothing
  const closed = pings();
  expect(closed).toBeLessThanOrEqual(1); // the one of welcome
  await page.keyboard.press("Control+Alt+Shift+S");
  const panel = page.getByRole("region", { name: "Quality" });
  await panel.waitFor();
  agent.update([agent.tiles(solidTile(9, 7, [1, 2, 3]))]);
  await agent.until(() => pings() > closed, "a measured round trip");
  const value = (label: string) => panel.locator("div", { hasText: label }).locator("dd").first();
  await until(() => value("Screen").textContent(), "640 × 480, 100 % desktop, shown at 100 %");
  await expect.poll(() => value("Age of pictures").textContent()).toMatch(/ms \/ .* ms/);
  await expect.poll(() => value("Round trip").textContent()).toMatch(/ ms$/);
  expect(await value("Endpoint's host").textContent()).toBe(new URL(agent.url).host);
  await page.setViewportSize({ width: 640, height: 700 });
  await panel.getByRole("button", { name: "Copy as text" }).click();
  await panel.getByText("Copied.").waitFor();
  const copied = await page.evaluate(() => navigator.clipboard.readText());
  for (const label of ["Round trip: ", "Down / up: ", "Session: session-1", "Recoveries: 0"]) {
    expect(copied).toContain(label);
  }
  expect(copied).toMatch(/Viewer: \S+/);
  expect(copied).toContain("Endpoint: vpce-0a1b2c, us-east-1");
  await page.keyboard.press("Escape");
  expect(await panel.isVisible()).toBe(false);
  const before = pings();
  await page.waitForTimeout(1500);
  expect(pings()).toBe(before);
});

it("zooms and pans, and input follows", async () => {
  agent.paint = picture;
  await page.goto(`${agent.url}#t=first.sig&r=1280x720`);
  await state("streaming");
  const box = () => page.locator("#screen").boundingBox();
  expect(await box()).toEqual({ x: 0, y: 60, width: 640, height: 360 });
  await page.keyboard.press("Control+Alt+Shift+Digit1");
  await until(box, { x: -320, y: -120, width: 1280, height: 720 });
  agent.received.length = 0;
  await page.mouse.move(100, 200);
  await agent.until(
    () => agent.received.some((m) => m.kind === "pointer" && m.x === 420 && m.y === 320),
    "the pointer",
  );
  await page.keyboard.press("Control+Alt+Shift+ArrowLeft");
  await until(async () => (await box())?.x, -240);
  await page.mouse.move(639, 200); // the edge pulls in the rest
  await until(async () => (await box())?.x, -640);
  await page.mouse.move(300, 200);
  await page.keyboard.press("Control+Alt+Shift+Equal");
  await until(async () => (await box())?.width, 1600);
  await page.keyboard.press("Control+Alt+Shift+Digit0");
  await until(box, { x: 0, y: 60, width: 640, height: 360 });
  // None of it went to the session.
  expect(
    agent.received.filter((m) => m.kind === "key" && !/^(Control|Alt|Shift)/.test(m.key)),
  ).toEqual([]);
  await page.setViewportSize({ width: 1280 * 2 + 100, height: 720 * 2 + 50 });
  await until(async () => (await box())?.width, 2560);
  expect(await page.locator("#screen").evaluate((canvas) => canvas.style.imageRendering)).toBe(
    "pixelated",
  );
});

it("goes to full screen and back by shortcut and button", async () => {
  agent.paint = picture;
  await page.goto(`${agent.url}#t=first.sig`);
  await state("streaming");
  const full = () => page.evaluate(() => document.fullscreenElement !== null);
  await page.keyboard.press("Control+Alt+Shift+F");
  await until(full, true);
  await page.keyboard.press("Control+Alt+Shift+Q");
  await page.getByRole("button", { name: "Leave full screen" }).click();
  await until(full, false);
  expect(await page.evaluate(() => document.activeElement?.tagName)).toBe("TEXTAREA");
});

it("shows a cursor that is too large for the browser smaller, and one again that it keeps", async () => {
  agent.paint = picture;
  await page.goto(`${agent.url}#t=first.sig`);
  await state("streaming");
  const cursor = () =>
    page.evaluate(() => (document.querySelector(".penstock-stage") as HTMLElement).style.cursor);
  const big = { kind: "cursor" as const, serial: 1, width: 256, height: 128, hotX: 255, hotY: 64 };
  agent.send({ ...big, rgba: new Uint8Array(256 * 128 * 4).fill(255) });
  await until(async () => /^url\("data:.*"\) 127 32, default$/.test(await cursor()), true);
  const first = await cursor();
  const size = await page.evaluate(async (css) => {
    const image = new Image();
    image.src = /"(.*)"/.exec(css)?.[1] ?? "";
    await image.decode();
    return [image.width, image.height];
  }, first);
  expect(size).toEqual([128, 64]);
  const small = { kind: "cursor" as const, serial: 2, width: 16, height: 16, hotX: 3, hotY: 4 };
  agent.send({ ...small, rgba: new Uint8Array(16 * 16 * 4).fill(255) });
  await until(async () => / 3 4, default$/.test(await cursor()), true);
  agent.send({ kind: "cursor-again", serial: 1 });
  await until(cursor, first);
});

it("shows what the session's user should read", async () => {
  agent.paint = picture;
  await page.goto(`${agent.url}#t=first.sig`);
  await state("streaming");
  agent.send({ kind: "notice", code: 1, text: "This session ends in 5 minutes." });
  await page.getByText("This session ends in 5 minutes.").waitFor();
  await expectAccessible(page);
  await page.getByRole("button", { name: "Dismiss" }).click();
  expect(await page.getByText("This session ends in 5 minutes.").count()).toBe(0);
});
