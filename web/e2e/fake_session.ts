import type { Section } from "@penstock/protocol";
import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect } from "vitest";
import { launchBrowser } from "./browser.ts";
import { FakeAgent } from "./fake_agent.ts";
import { canvasOf } from "./picture.ts";

const timeout = 30_000;

export type Colour = [number, number, number];
/** Column, row and the colour there. */
export type Point = [number, number, Colour];

export const slate: Colour = [30, 60, 90];
export const red: Colour = [200, 40, 40];
export const green: Colour = [40, 180, 60];
export const blue: Colour = [50, 60, 210];
export const grey = (n: number): Colour => [20 * n, 20 * n, 20 * n];

/** The whole screen in one colour. */
export function ground(a: FakeAgent): Section[] {
  const [r, g, b] = slate;
  return [{ kind: "fill", fills: [{ x: 0, y: 0, width: a.width, height: a.height, r, g, b }] }];
}

/** The four quarters of picture n of the test streams, shown at x and y. */
export const quarters = (x: number, y: number, n: number): Point[] => [
  [x + 80, y + 60, red],
  [x + 240, y + 60, green],
  [x + 80, y + 180, blue],
  [x + 240, y + 180, grey(n)],
];

/** What is wrong with some points of rows of R, G, B bytes; lossy colours may be off by a little. */
export function wrong(rgb: Buffer, width: number, points: Point[], off = 4): string[] {
  return points.flatMap(([x, y, want]) => {
    const at = (y * width + x) * 3;
    const got = [...rgb.subarray(at, at + 3)];
    const near = want.every((value, i) => Math.abs(value - (got[i] ?? 0)) <= off);
    return near ? [] : [`${x},${y} is ${got} instead of ${want}`];
  });
}

/** For each test of a file: a page of 640×480 and a fake agent for it. Call it once, at the top. */
export function fakeSession(args: string[] = []) {
  let browser: Browser;
  const problems: string[] = [];
  const session = {
    page: undefined as unknown as Page,
    agent: undefined as unknown as FakeAgent,

    /** Waits until the viewer streams. */
    async streaming(): Promise<void> {
      await session.page.waitForFunction(() => window.penstock?.state === "streaming", undefined, {
        timeout,
      });
    },

    /** Opens the viewer; paint draws the first update of each epoch. */
    async open(paint: (a: FakeAgent) => Section[] = ground): Promise<void> {
      session.agent.paint = paint;
      await session.page.goto(`${session.agent.url}#t=first.sig`);
      await session.streaming();
    },

    /** Runs code in the display worker. */
    inWorker: <T>(code: () => T) => session.page.workers()[0]?.evaluate(code),

    /** Waits until the points of the canvas have these colours. */
    async shows(points: Point[]): Promise<void> {
      await expect
        .poll(
          async () => {
            const { width, rgb } = await canvasOf(session.page);
            return wrong(rgb, width, points);
          },
          { timeout },
        )
        .toEqual([]);
    },

    stats: () => session.page.evaluate(() => window.penstock.stats()),
  };

  beforeAll(async () => {
    browser = await launchBrowser(...args);
  });
  afterAll(() => browser?.close());
  beforeEach(async () => {
    session.agent = new FakeAgent();
    await session.agent.start();
    session.page = await browser.newPage({ viewport: { width: 640, height: 480 } });
    problems.length = 0;
    session.page.on("pageerror", (error) => problems.push(error.message));
    session.page.on("console", (message) => {
      if (/Content Security Policy|TypeError|ReferenceError/.test(message.text())) {
        problems.push(message.text());
      }
    });
  });
  afterEach(async () => {
    await session.page.close();
    await session.agent.stop();
    expect(problems).toEqual([]);
  });
  return session;
}
