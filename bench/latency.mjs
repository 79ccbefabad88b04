// Press to changed pixel: types into flipper or clicks on it through a viewer and reads the answer from the viewer's canvas.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { pause, until, within } from "./processes.mjs";

const probe = readFileSync(fileURLToPath(new URL("probe.js", import.meta.url)), "utf8");

/** The colours of flipper's area, in its order. */
export const colours = [0xd02020, 0x20a040, 0x2040d0, 0xd0a020, 0x20a0c0, 0xa020c0];

const answers = new Map(); // page: what waits for its answer

/** What flipper's whole window shows when nobody has pressed anything. */
export function restingPixels(width, height) {
  return [
    { x: 5, y: 5, colour: colours[0] },
    { x: 195, y: 195, colour: colours[0] },
    { x: 210, y: 100, colour: 0xffffff },
    { x: 100, y: 210, colour: 0xffffff },
    { x: width / 2, y: height / 2, colour: 0xffffff },
    { x: width - 3, y: height - 3, colour: 0xffffff },
  ];
}

/**
 * A page with the probe in it and, with workers, in every worker that it starts, which takes time while it opens. expected, { selector, pixels }, is looked for in every
 * document from its first animation frame on; see rightPicture.
 */
export async function probedPage(context, { expected, workers }) {
  const page = await context.newPage();
  await page.exposeBinding("benchAnswer", (_, answer) => answers.get(page)?.(answer));
  await page.addInitScript(
    `${expected === undefined ? "" : `globalThis.benchExpect = ${JSON.stringify(expected)};`}${probe}`,
  );
  if (!workers) {
    return page;
  }
  await page.route(
    (url) => url.pathname.endsWith(".js"),
    async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, body: `${probe}\n${await response.text()}` });
    },
  );
  return page;
}

/** Milliseconds since 1970 of the first animation frame that showed what the page was made to expect. Call it before the page goes anywhere. */
export function rightPicture(page) {
  const answer = new Promise((resolve) => answers.set(page, resolve));
  return within(
    30_000,
    () => `${page.url().split("#")[0]} did not show the right picture`,
    answer,
  ).then(({ right }) => right);
}

/** Whether two colours are the same up to what lossy coding may change. */
export function near(a, b) {
  const far = (shift) => Math.abs(((a >> shift) & 255) - ((b >> shift) & 255));
  return far(16) + far(8) + far(0) <= 24;
}

/** Index of the colour in flipper's list, or undefined. */
function indexOf(colour, list) {
  const index = list.findIndex((known) => near(known, colour));
  return index < 0 ? undefined : index;
}

/** The pixels that tell that an area of flipper has changed: one inside the small one, two opposite corners of a large one. */
export function pointsOf({ width, height }) {
  return width <= 200
    ? [[100, 100]]
    : [
        [4, 4],
        [width - 5, height - 5],
      ];
}

/**
 * Presses count times, each after the answer to the one before and a pause of irregular length, and returns the milliseconds from
 * each press to the changed pixels. input is "key" or "click". mode "drawn" ends at the viewer's own call that painted the last
 * of them; mode "frame" at the first animation frame of the page in which the canvas element shows them. A colour out of turn
 * fails, as does no answer within five seconds.
 */
export async function presses(viewer, { input, mode, count, area, list = colours }) {
  const { page, canvas } = viewer;
  await page.bringToFront();
  const points = pointsOf(area);
  await page.evaluate(
    ({ on, points, canvas }) => globalThis.benchProbe.enable(on, points, canvas),
    { on: mode === "drawn", points, canvas },
  );
  const event = input === "key" ? "keydown" : "pointerdown";
  const times = [];
  let shown;
  for (let i = 0; i < count; i++) {
    // The pause is no multiple of any timer's period, so that presses fall everywhere between two ticks.
    await pause(23 + ((i * 61) % 67));
    const answer = new Promise((resolve) => answers.set(page, resolve));
    await page.evaluate(({ mode, event, canvas }) => globalThis.benchProbe[mode](event, canvas), {
      mode,
      event,
      canvas,
    });
    if (input === "key") {
      await page.keyboard.press("a");
    } else {
      await page.mouse.down();
      await page.mouse.up();
    }
    const { milliseconds, colour } = await within(
      20_000,
      `${input} ${i} changed nothing in ${viewer.name}`,
      answer,
    );
    const index = indexOf(colour, list);
    if (index === undefined || (shown !== undefined && index !== (shown + 1) % list.length)) {
      throw new Error(
        `${viewer.name}: ${input} ${i} gave colour ${colour.toString(16)} after number ${shown}`,
      );
    }
    shown = index;
    times.push(milliseconds);
  }
  return times;
}

/** Shows that presses would notice: with two colours exchanged in the list it must fail. */
export async function noticesWrongColours(viewer, area) {
  const list = [...colours.slice(0, 2).reverse(), ...colours.slice(2)];
  const outcome = await presses(viewer, {
    ...{ input: "key", mode: "drawn", count: colours.length + 1, area, list },
  }).then(
    () => "passed",
    (error) => error.message,
  );
  if (!outcome.includes("gave colour")) {
    throw new Error(`${viewer.name}: wrong colours went unnoticed: ${outcome}`);
  }
}

/** Waits until the canvas shows one of flipper's colours in its area. */
export function showsFlipper({ name, page, canvas }, area) {
  return until(`picture of flipper in ${name}`, async () => {
    const colour = await page.evaluate(
      ({ canvas, points }) => {
        globalThis.benchProbe?.enable(false, points);
        return globalThis.benchProbe?.look(canvas);
      },
      { canvas, points: pointsOf(area) },
    );
    return colour === undefined ? undefined : indexOf(colour, colours);
  });
}
