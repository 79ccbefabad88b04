// Input from Chromium to a real X client in a real session: exact text in exact order, and every state a key can be in.
import type { Browser, BrowserContext, CDPSession, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { launchBrowser } from "./browser.ts";
import { Region, type SessionView } from "./region.ts";
import { type AltGrStyle, BrowserKeyboard, codeOf } from "./x11/browser_keyboard.ts";
import { type LayoutKey, type Reader, X11Tools } from "./x11/tools.ts";

let browser: Browser;
let region: Region;
let context: BrowserContext;
let page: Page;
let devtools: CDPSession;
let keyboard: BrowserKeyboard;
let reader: Reader;
let session: SessionView;
const tools = new X11Tools();

beforeAll(async () => {
  region = new Region();
  [browser] = await Promise.all([launchBrowser(), region.start(), tools.build()]);
  context = await browser.newContext({ viewport: { width: 800, height: 600 } });
  page = await context.newPage();
  devtools = await context.newCDPSession(page);
  keyboard = new BrowserKeyboard(devtools);
  await page.goto(await region.streamingUrl("ann", "xterm"));
  await streaming(page);
  session = await region.sessionOf("ann");
  reader = await tools.read(session);
}, 90_000);
afterAll(async () => {
  reader?.stop();
  await browser?.close();
  await region?.stop();
  tools.remove();
}, 30_000);

const streaming = (p: Page) =>
  p.waitForFunction(() => window.penstock?.state === "streaming", undefined, { timeout: 40_000 });

/** Waits until the reader has typed as much as is expected, and a little more for what is too much. */
const typed = async (want: string) => {
  const length = [...want].length;
  await keyboard.flush();
  await reader
    .until(() => [...reader.text()].length >= length, `${length} characters`)
    .catch(() => {});
  await reader.settle();
  return reader.text();
};

/** Every difference of two texts, for a message that helps. */
function wrong(got: string, want: string): string[] {
  const a = [...got];
  const b = [...want];
  const all: string[] = [];
  for (let i = 0; i < Math.max(a.length, b.length) && all.length < 10; i++) {
    if (a[i] !== b[i]) {
      all.push(`at ${i}: got ${JSON.stringify(a[i])}, want ${JSON.stringify(b[i])}`);
    }
  }
  return all;
}

beforeEach(() => reader.clear());
afterEach(async () => {
  await keyboard.flush();
});

/** Layouts of the matrix: the browser knows the first, so the session follows; of the others it tells nothing. */
const layouts: [name: string, variant: string][] = [
  ["us", ""],
  ["de", ""],
  ["fr", ""],
  ["ch", ""],
  ["ch", "fr"],
  ["se", ""],
  ["no", ""],
  ["dk", ""],
  ["fi", ""],
  ["tr", ""],
  ["jp", ""],
  ["ara", ""],
];

/** Has the browser know a layout as Chromium does, or none; the page asks when its window gets the focus. */
const setLayout = (layout: LayoutKey[] | undefined, language = "en") =>
  page.evaluate(
    ({ map, language }) => {
      Object.defineProperty(navigator, "language", { configurable: true, get: () => language });
      const keyboard = (navigator as unknown as { keyboard: { getLayoutMap: unknown } }).keyboard;
      keyboard.getLayoutMap = async () => new Map(map ?? []);
      window.dispatchEvent(new Event("focus"));
    },
    {
      language,
      map: layout?.flatMap(({ key, levels }) => {
        const code = codeOf.get(key);
        const text = levels[0]?.text ?? "";
        return code === undefined || text === "" ? [] : [[code, text] as [string, string]];
      }),
    },
  );

/** Waits until the session's X server has the layout. */
const followed = (name: string, variant: string) =>
  expect
    .poll(() => region.x(session, "setxkbmap", "-query"), { timeout: 20_000 })
    .toMatch(new RegExp(`layout: +${name}(,us)?\\n${variant && `variant: +${variant},?\\n`}`));

let strokes = 0;
async function typeAll(layout: LayoutKey[], style: AltGrStyle): Promise<void> {
  const want = keyboard.typeAll(layout, style);
  expect([...want].length).toBeGreaterThan(90);
  expect(wrong(await typed(want), want), `AltGr as on ${style}`).toEqual([]);
  strokes += keyboard.strokes;
  keyboard.strokes = 0;
}

describe("every key of a layout at every level", () => {
  for (const [name, variant] of layouts.filter(([n]) => /de|tr|ara/.test(n))) {
    it(`${name}, on a session with an American keyboard`, async () => {
      await setLayout(undefined);
      await typeAll(await tools.layout(name, variant), "windows");
    });
  }
  for (const [name, variant] of layouts) {
    it(`${name} ${variant}`.trim(), async () => {
      const layout = await tools.layout(name, variant);
      await setLayout(layout, name === "fi" ? "fi-FI" : "en"); // Swedish but for AltGr
      await followed(name, variant);
      reader.clear();
      await typeAll(layout, name === "fr" || name === "no" ? "windows" : "linux");
    });
  }
  it("was thousands of keystrokes", () => {
    expect(strokes).toBeGreaterThan(4000);
  });
});
