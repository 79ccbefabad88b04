// The screen follows the window: size, device pixel ratio, desktop scale. Real X server, real Chromium.
import { execFileSync } from "node:child_process";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, it, vi } from "vitest";
import { launchBrowser } from "./browser.ts";
import { canvasOf, difference, exactPicture } from "./picture.ts";
import { Region } from "./region.ts";

vi.setConfig({ testTimeout: 240_000 }); // pictures of 4K through X11 tools

let browser: Browser;
let region: Region;
const contexts: BrowserContext[] = [];
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
afterEach(async () => {
  for (const context of contexts.splice(0)) {
    await context.close();
  }
  for (const s of await region.sessions()) {
    if (s.state === "ACTIVE") {
      await region.aws("appstream", "expire-session", "--session-id", s.id);
    }
  }
  expect(problems.splice(0)).toEqual([]);
}, 60_000);

async function open(
  user: string,
  width: number,
  height: number,
  deviceScaleFactor = 1,
  on = browser,
): Promise<Page> {
  const context = await on.newContext(
    on === browser ? { viewport: { width, height }, deviceScaleFactor } : { viewport: null },
  );
  contexts.push(context);
  const page = await context.newPage();
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (message) => {
    if (/Content Security Policy|TypeError|ReferenceError/.test(message.text())) {
      problems.push(message.text());
    }
  });
  await page.goto(await region.streamingUrl(user, "xterm")); // its text cursor does not blink
  await page.waitForFunction(() => window.penstock?.state === "streaming", undefined, {
    timeout: 40_000,
  });
  return page;
}

/** What the browser shows of the session, in device pixels, as rows of R, G, B bytes of the picture's size. */
async function shown(page: Page, width: number, height: number): Promise<Buffer> {
  await page.evaluate(() => {
    for (const part of document.querySelectorAll<HTMLElement>(".toolbar, .overlay, .notices")) {
      part.style.display = "none";
    }
  });
  const png = await page.screenshot({ scale: "device" });
  return execFileSync(
    "convert",
    ["png:-", "-crop", `${width}x${height}+0+0`, "+repage", "-depth", "8", "rgb:-"],
    { input: png, maxBuffer: 256 << 20 },
  );
}

/** Waits until the browser shows the X server's picture, device pixel for pixel. */
async function expectSharp(page: Page, user: string): Promise<{ width: number; height: number }> {
  const session = await region.sessionOf(user);
  let size = { width: 0, height: 0 };
  await expect
    .poll(
      async () => {
        const { width, height } = await canvasOf(page);
        size = { width, height };
        return difference(await region.screen(session), await shown(page, width, height));
      },
      { timeout: 30_000 },
    )
    .toBe(0);
  return size;
}

/** What Chromium emulates, and what it does on a screen of such a ratio. */
const ratios = [
  { scale: 1, width: 801, height: 601, real: false },
  { scale: 1.25, width: 801, height: 601, real: false },
  { scale: 1.25, width: 803, height: 700, real: true },
  { scale: 1.5, width: 733, height: 641, real: true },
  { scale: 2, width: 700, height: 501, real: false },
  { scale: 3, width: 411, height: 731, real: false },
];
for (const { scale, width, height, real } of ratios) {
  const name = real ? `a screen of ${scale}` : `${scale} emulated`;
  it(`draws pixel for pixel at ${name} device pixels a CSS pixel, and the desktop has that scale`, async () => {
    const user = `scale${scale * 100}${real}`;
    const args = [`--force-device-scale-factor=${scale}`, `--window-size=${width},${height}`];
    const own = real ? await launchBrowser(...args) : undefined;
    try {
      const page = await open(user, width, height, scale, own);
      const got = await expectSharp(page, user);
      const inner = await page.evaluate(() => [innerWidth, innerHeight, devicePixelRatio] as const);
      expect(inner[2]).toBe(scale);
      // Chromium decides about the last fraction of a pixel.
      expect(Math.abs(got.width - inner[0] * scale)).toBeLessThan(1.5);
      expect(Math.abs(got.height - inner[1] * scale)).toBeLessThan(1.5);
      const session = await region.sessionOf(user);
      const dpi = 96 * scale;
      expect(await region.x(session, "xrdb", "-query")).toContain(`Xft.dpi:\t${dpi}\n`);
      const settings = await region.x(session, "dump_xsettings");
      expect(settings).toContain(`Xft/DPI ${dpi * 1024}\n`);
      expect(settings).toContain(`Gdk/WindowScalingFactor ${Math.floor(scale)}\n`);
      const resolution = /resolution: +(\d+)x/.exec(await region.x(session, "xdpyinfo"));
      expect(Math.abs(Number(resolution?.[1]) - dpi)).toBeLessThanOrEqual(1);
    } finally {
      await own?.close();
    }
  });
}

it("starts the first application with the window's size and scale", async () => {
  // xterm keeps the size of the letters that it started with.
  const heights: number[] = [];
  for (const scale of [1, 2]) {
    const user = `first${scale}`;
    await open(user, 640, 480, scale);
    const session = await region.sessionOf(user);
    const id = /^ *(0x[0-9a-f]+) .*"XTerm"\)/m.exec(
      await region.x(session, "xwininfo", "-root", "-tree"),
    )?.[1];
    const hints = await region.x(session, "xprop", "-id", id ?? "", "WM_NORMAL_HINTS");
    heights.push(Number(/resize increment: \d+ by (\d+)/.exec(hints)?.[1]));
  }
  expect(heights[0]).toBeLessThan(20);
  expect(heights[1]).toBeGreaterThan(24);
});

it("follows a window that goes to a screen of another ratio", async () => {
  const page = await open("moves", 800, 600);
  const session = await region.sessionOf("moves");
  const devtools = await page.context().newCDPSession(page);
  for (const scale of [2, 1.5, 1]) {
    await devtools.send("Emulation.setDeviceMetricsOverride", {
      width: 800,
      height: 600,
      deviceScaleFactor: scale,
      mobile: false,
    });
    const resources = () => region.x(session, "xrdb", "-query");
    await expect.poll(resources, { timeout: 20_000 }).toContain(`Xft.dpi:\t${96 * scale}\n`);
    await expect
      .poll(async () => (await canvasOf(page)).width, { timeout: 20_000 })
      .toBe(800 * scale);
    await expectSharp(page, "moves");
  }
});

it("ends a drag of the window in exactly its last size", async () => {
  const page = await open("drag", 900, 700);
  const session = await region.sessionOf("drag");
  const modes = async () =>
    ((await region.x(session, "xrandr")).match(/^ +\d+x\d+/gm) ?? []).length;
  const before = await modes();
  for (let i = 0; i < 50; i++) {
    await page.setViewportSize({ width: 500 + i * 9, height: 900 - i * 7 });
    await page.waitForTimeout(20);
  }
  await expect
    .poll(async () => {
      const { width, height } = await canvasOf(page);
      return [width, height];
    })
    .toEqual([941, 557]);
  await exactPicture(region, page, "drag");
  await expectSharp(page, "drag");
  expect(await modes()).toBe(before);
});

it("takes any size, up to 4K", async () => {
  const page = await open("sizes", 800, 600);
  // A phone that is turned, the smallest window, and the greatest of all.
  for (const [width, height] of [
    [412, 915],
    [915, 412],
    [64, 64],
    [3840, 2160],
    [1367, 769],
  ] as const) {
    await page.setViewportSize({ width, height });
    await expect.poll(async () => (await canvasOf(page)).width, { timeout: 20_000 }).toBe(width);
    await exactPicture(region, page, "sizes");
  }
});

it("keeps the old picture scaled until the new one is there", async () => {
  const page = await open("still", 800, 600);
  await exactPicture(region, page, "still");
  // The share of the window that shows the session, over the time of a resize: never less than a whole side.
  await page.evaluate(() => {
    const record = { least: 1, widths: new Set<number>() };
    Object.assign(window, { record });
    const look = () => {
      const canvas = document.querySelector<HTMLCanvasElement>("#screen");
      const box = canvas?.getBoundingClientRect();
      if (canvas && box) {
        // What object-fit makes of it.
        const fit =
          canvas.style.objectFit === "contain"
            ? Math.min(box.width / canvas.width, box.height / canvas.height)
            : box.width / canvas.width;
        const share = Math.max(
          (canvas.width * fit) / innerWidth,
          (canvas.height * fit) / innerHeight,
        );
        record.least = Math.min(record.least, share);
        record.widths.add(canvas.width);
      }
      requestAnimationFrame(look);
    };
    look();
  });
  await page.setViewportSize({ width: 1200, height: 900 });
  await expect.poll(async () => (await canvasOf(page)).width, { timeout: 20_000 }).toBe(1200);
  await exactPicture(region, page, "still");
  const record = await page.evaluate(() => {
    const { least, widths } = (
      window as unknown as { record: { least: number; widths: Set<number> } }
    ).record;
    return { least, widths: [...widths] };
  });
  expect(record.widths).toEqual([800, 1200]);
  // The stage hears of its size in the frame in which it has it; the old place may be seen in that one alone.
  expect(record.least).toBeGreaterThan(0.6);
});

it("says when the window is larger than the session's screen can be", async () => {
  const page = await open("large", 5400, 800);
  await page.getByText(/larger than the session's screen can be \(5120 × 2880/).waitFor();
  await expect.poll(async () => (await canvasOf(page)).width, { timeout: 20_000 }).toBe(5120);
  expect(await page.locator("#screen").boundingBox()).toMatchObject({ x: 140, width: 5120 });
});

/** A part of what the X server shows. */
function part(screen: Buffer, width: number, x: number, w: number, h: number): Buffer {
  const rows = Array.from({ length: h }, (_, y) =>
    screen.subarray((y * width + x) * 3, (y * width + x + w) * 3),
  );
  return Buffer.concat(rows);
}

it("shows a second monitor in a window of its own", async () => {
  const user = "double";
  const page = await open(user, 800, 600);
  const session = await region.sessionOf(user);
  const monitors = async () =>
    (await region.x(session, "xrandr", "--listmonitors")).match(/\d+\/\d+x\d+\/\d+\+\d+\+\d+/g);
  /** Both windows show their monitor, device pixel for pixel. */
  const expectBoth = async (second: Page, a: [number, number], b: [number, number]) => {
    const width = a[0] + b[0];
    await expect
      .poll(
        async () => {
          const screen = await region.screen(session);
          if (screen.length !== width * Math.max(a[1], b[1]) * 3) {
            return "another screen";
          }
          return [
            difference(part(screen, width, 0, ...a), await shown(page, ...a)),
            difference(part(screen, width, a[0], ...b), await shown(second, ...b)),
          ];
        },
        { timeout: 60_000 },
      )
      .toEqual([0, 0]);
  };
  const opened = page.context().waitForEvent("page");
  await page.keyboard.press("Control+Alt+Shift+Q");
  await page.getByRole("button", { name: "Second monitor" }).click();
  const second = await opened;
  second.on("pageerror", (error) => problems.push(error.message));
  await second.setViewportSize({ width: 641, height: 700 });
  await expect
    .poll(monitors, { timeout: 30_000 })
    .toEqual(["800/212x600/159+0+0", "641/170x700/185+800+0"]);
  expect(await region.x(session, "xdpyinfo", "-ext", "XINERAMA")).toContain("head #1: 641x700");

  // Something to see on each: another terminal lies on both.
  const windows = () => region.x(session, "xwininfo", "-root", "-tree");
  await page.bringToFront();
  await page.keyboard.type("xterm -title both -geometry 60x30+650+40 &\n");
  await expect.poll(windows, { timeout: 20_000 }).toMatch(/"both"/);
  await second.bringToFront();
  await second.mouse.move(51, 62);
  const position = () => region.x(session, "xdotool", "getmouselocation", "--shell");
  await expect.poll(position, { timeout: 20_000 }).toMatch(/X=851\nY=62\n/);
  await second.mouse.click(100, 200);
  await second.keyboard.type("seq -s ' ' 1 2000; echo typed in the second window\n");
  await expectBoth(second, [800, 600], [641, 700]);
  const before = await region.screen(session);
  await second.keyboard.type("clear; seq 1 100\n");
  await expect
    .poll(async () => difference(before, await region.screen(session)), { timeout: 20_000 })
    .toBeGreaterThan(1000);
  await expectBoth(second, [800, 600], [641, 700]);

  await second.setViewportSize({ width: 500, height: 400 });
  await expect.poll(monitors, { timeout: 30_000 }).toContain("500/132x400/106+800+0");
  await expectBoth(second, [800, 600], [500, 400]);
  // Another share of a screen of the same size.
  await page.setViewportSize({ width: 700, height: 600 });
  await expect.poll(monitors, { timeout: 30_000 }).toContain("500/132x400/106+700+0");
  await expectBoth(second, [700, 600], [500, 400]);
  await page.bringToFront();
  await page.mouse.move(33, 44);
  await expect.poll(position, { timeout: 20_000 }).toMatch(/X=33\nY=44\n/);

  await second.close({ runBeforeUnload: true });
  await expect.poll(monitors, { timeout: 30_000 }).toEqual(["700/185x600/159+0+0"]);
  await exactPicture(region, page, user);
  await expectSharp(page, user);
});
