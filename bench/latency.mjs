// Key to changed pixel: types into flipper through a viewer and reads the answer from the viewer's canvas.
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { pause, until, within } from "./processes.mjs";

const probe = readFileSync(fileURLToPath(new URL("probe.js", import.meta.url)), "utf8");

/** The colours of flipper's square, in its order. */
export const colours = [0xd02020, 0x20a040, 0x2040d0, 0xd0a020, 0x20a0c0, 0xa020c0];

const answers = new Map(); // page: what waits for its answer

/** A page with the probe in it and in every worker that it starts. */
export async function probedPage(context) {
  const page = await context.newPage();
  await page.exposeBinding("benchAnswer", (_, answer) => answers.get(page)?.(answer));
  await page.addInitScript(probe);
  await page.route(
    (url) => url.pathname.endsWith(".js"),
    async (route) => {
      const response = await route.fetch();
      await route.fulfill({ response, body: `${probe}\n${await response.text()}` });
    },
  );
  return page;
}

/** Whether two colours are the same up to what lossy coding may change. */
export function near(a, b) {
  const far = (shift) => Math.abs(((a >> shift) & 255) - ((b >> shift) & 255));
  return far(16) + far(8) + far(0) <= 24;
}

/** Index of the colour in flipper's list, or undefined. */
function indexOf(colour) {
  const index = colours.findIndex((known) => near(known, colour));
  return index < 0 ? undefined : index;
}

/**
 * Presses a key count times, each after the answer to the one before and a pause of irregular length, and returns the
 * milliseconds from each key event to the changed pixel. mode "drawn" ends at the viewer's own call that painted the pixel;
 * mode "frame" at the first animation frame of the page in which the canvas element shows it.
 */
export async function keys(page, canvas, mode, count) {
  await page.bringToFront();
  await page.evaluate((on) => globalThis.benchProbe.enable(on), mode === "drawn");
  const times = [];
  let shown;
  for (let i = 0; i < count; i++) {
    // The pause is no multiple of any timer's period, so that keys fall everywhere between two ticks.
    await pause(37 + ((i * 61) % 97));
    const answer = new Promise((resolve) => answers.set(page, resolve));
    await page.evaluate(
      ({ mode, canvas }) =>
        mode === "drawn" ? globalThis.benchProbe.key() : globalThis.benchProbe.frame(canvas),
      { mode, canvas },
    );
    await page.keyboard.press("a");
    const { milliseconds, colour } = await within(
      5000,
      `key ${i} changed nothing in ${page.url().split("#")[0]}`,
      answer,
    );
    const index = indexOf(colour);
    if (index === undefined || (shown !== undefined && index !== (shown + 1) % colours.length)) {
      throw new Error(`key ${i} gave colour ${colour.toString(16)} after number ${shown}`);
    }
    shown = index;
    times.push(milliseconds);
  }
  return times;
}

/** Waits until the canvas shows one of flipper's colours. */
export function showsFlipper(page, canvas) {
  return until("picture of flipper", async () => {
    const colour = await page.evaluate(
      (selector) => globalThis.benchProbe.look?.(selector),
      canvas,
    );
    return colour === undefined ? undefined : indexOf(colour);
  });
}
