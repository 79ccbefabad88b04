// What moves, through the whole product: ffplay on the session's X server, its encoder, Chromium's decoders.
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { launchBrowser } from "./browser.ts";
import { exactPicture } from "./picture.ts";
import { Region, type SessionView } from "./region.ts";

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
  context = await browser.newContext({ viewport: { width: 800, height: 600 } });
  page = await context.newPage();
  problems.length = 0;
  page.on("pageerror", (error) => problems.push(error.message));
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

async function open(user: string): Promise<SessionView> {
  await page.goto(await region.streamingUrl(user, "xterm"));
  await page.waitForFunction(() => window.penstock?.state === "streaming", undefined, {
    timeout: 40_000,
  });
  return region.sessionOf(user);
}

const stats = () => page.evaluate(() => window.penstock.stats());

/** Plays pictures that no tile holds well for some seconds. */
const play = (session: SessionView, seconds: number) =>
  region.x(
    session,
    "sh",
    "-c",
    `timeout ${seconds} ffplay -loglevel error -noborder -left 40 -top 40 ` +
      "-f lavfi -i mandelbrot=size=480x320:rate=25 </dev/null; [ $? = 124 ]", // it played until then
  );

it("sends nothing to a hidden page, and the right picture when it is back", async () => {
  const session = await open("ivy");
  await exactPicture(region, page, "ivy");
  const hide = (hidden: boolean) =>
    page.evaluate((value) => {
      Object.defineProperty(document, "visibilityState", {
        configurable: true,
        get: () => (value ? "hidden" : "visible"),
      });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
  const bytes = async () => (await stats()).bytes.display;
  await hide(true);
  let before = -1;
  let quiet = 0;
  await expect
    .poll(
      async () => {
        const now = await bytes();
        quiet = now === before ? quiet + 1 : 0;
        before = now;
        return quiet;
      },
      { timeout: 30_000, interval: 500 },
    )
    .toBeGreaterThan(3); // what was under way has come
  await play(session, 4);
  const windows = () => region.x(session, "xwininfo", "-root", "-tree");
  await region.x(session, "sh", "-c", "xterm -T left -e sleep 90 >/dev/null 2>&1 &");
  await expect.poll(windows, { timeout: 20_000 }).toContain('"left"');
  expect(await bytes()).toBe(before);
  await hide(false);
  await exactPicture(region, page, "ivy");
  expect(await bytes()).toBeGreaterThan(before);
  expect((await stats()).recoveries).toBe(0);
});

it("shows video while pictures move, and exact pixels when they rest", async () => {
  const session = await open("jon");
  await exactPicture(region, page, "jon");
  const played = play(session, 50).catch(() => {}); // it is ended before
  await expect
    .poll(async () => (await stats()).video.frames, { timeout: 45_000 })
    .toBeGreaterThan(5);
  expect((await stats()).video).toMatchObject({
    path: expect.stringMatching(/copy|draw/),
    codec: expect.stringMatching(/h264|vp8/),
  });
  await region.x(session, "xdotool", "search", "--class", "ffplay", "windowkill");
  await played;
  await exactPicture(region, page, "jon");
  expect((await stats()).recoveries).toBe(0);
}, 150_000);
