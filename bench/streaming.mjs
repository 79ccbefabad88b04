// What a user of a streamed desktop feels and what an operator pays, on Penstock and on its peers in turns.
import { execFile } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { launch } from "./browser.mjs";
import {
  noticesWrongColours,
  presses,
  probedPage,
  restingPixels,
  rightPicture,
  showsFlipper,
} from "./latency.mjs";
import { layout, sent, summary } from "./motion.mjs";
import { peers } from "./peers.mjs";
import { canvas, Region } from "./penstock.mjs";
import {
  carried,
  carriedBetween,
  family,
  memory,
  pause,
  processorTime,
  processorTimeBetween,
  removeFolder,
  start,
  stop,
  temporaryFolder,
  wrote,
} from "./processes.mjs";
import { stepsOf, traceCategories } from "./trace.mjs";

const run = promisify(execFile);

// How much is measured; quick is for work on the benchmark itself.
const full = {
  presses: 45,
  rounds: 3,
  motionRounds: 2,
  watch: 3.5,
  office: 1,
  idle: 20,
  openings: 5,
  launches: 5,
  starts: 5,
};
const quick = {
  presses: 8,
  rounds: 1,
  motionRounds: 1,
  watch: 2,
  office: 0.3,
  idle: 5,
  openings: 2,
  launches: 1,
  starts: 1,
};

// What bench/office does, and the second in which it has done it.
const officeParts = [
  ["typing", 8],
  ["scrolling", 16],
  ["pages", 22],
  ["dragging", 28],
];

const small = { width: 200, height: 200 };
const quarter = { width: 640, height: 360 };
// Share of the presses that each combination gets; the one that most updates are like gets most.
const combinations = [
  { area: small, input: "key", mode: "drawn", share: 1 },
  { area: small, input: "key", mode: "frame", share: 0.6 },
  { area: small, input: "click", mode: "drawn", share: 0.4 },
  { area: small, input: "click", mode: "frame", share: 0.3 },
  { area: quarter, input: "key", mode: "drawn", share: 0.6 },
  { area: quarter, input: "key", mode: "frame", share: 0.4 },
  { area: quarter, input: "click", mode: "drawn", share: 0.3 },
  { area: quarter, input: "click", mode: "frame", share: 0.3 },
];

/**
 * Measures everything. only and viewers, when given, name the scenarios (start, idle, opening, press, motion, office) and the
 * viewers to take. profiles, a folder, gets a trace of the browser while it opens and the profiles of server and agents.
 */
export async function streaming({
  root,
  programs,
  isQuick,
  only,
  viewers = ["Penstock", ...Object.keys(peers)],
  profiles,
}) {
  const count = isQuick ? quick : full;
  const bench = new Bench(root, programs, count, viewers, profiles);
  const wanted = (name) => only === undefined || only.includes(name);
  const results = { count, isQuick };
  try {
    if (wanted("start")) {
      results.starts = await bench.starts();
    }
    await bench.open(1280, 720);
    results.memory = bench.memory();
    if (wanted("idle")) {
      results.idle = await bench.idle();
    }
    if (wanted("opening")) {
      results.opening = await bench.opening();
      results.launches = await bench.launches().catch((error) => {
        bench.failures.push({ viewer: "Penstock", scenario: "launches", message: error.message });
        return undefined;
      });
      if (profiles !== undefined) {
        results.steps = await bench.profileOpening(profiles);
      }
    }
    if (wanted("press")) {
      results.presses = await bench.presses();
    }
    results.motion = [];
    if (wanted("motion")) {
      results.motion.push(...(await bench.motion(1280, 720)));
    }
    if (wanted("office")) {
      results.office = await bench.office();
    }
    await bench.closeViewers();
    if (wanted("motion")) {
      await bench.open(1920, 1080);
      results.motion.push(...(await bench.motion(1920, 1080)));
    }
  } finally {
    await bench.close();
  }
  results.failures = bench.failures;
  return results;
}

class Bench {
  #root;
  #programs;
  #count;
  #wanted;
  #profiles;
  #region;
  #viewers = [];
  #folder = temporaryFolder("streaming");
  #turn = 0;
  failures = []; // { viewer, scenario, message }

  constructor(root, programs, count, wanted, profiles) {
    this.#profiles = profiles;
    this.#wanted = wanted;
    this.#root = root;
    this.#programs = programs;
    this.#count = count;
  }

  /** Every program of the benchmark runs over what is shown already. */
  #program(viewer, name, ...args) {
    return start(join(this.#programs, name), args, { env: viewer.environment });
  }

  /** What work gives, or undefined when it fails: the others are measured nevertheless, and the report tells. */
  async #attempt(viewer, scenario, work) {
    try {
      return await work();
    } catch (error) {
      console.error(`  ${viewer.name}, ${scenario}: ${error.message}`);
      this.failures.push({ viewer: viewer.name, scenario, message: error.message.split("\n")[0] });
      return undefined;
    }
  }

  /** The viewers, in another order each time. */
  #turns() {
    const at = this.#turn++ % this.#viewers.length;
    return [...this.#viewers.slice(at), ...this.#viewers.slice(0, at)];
  }

  #newRegion() {
    const flipper = join(this.#programs, "flipper");
    return new Region(join(this.#root, "bin/penstock"), flipper, this.#profiles);
  }

  /** Milliseconds from the start of `penstock dev` to ready, on an empty folder and on one that has its demo. */
  async starts() {
    console.log("start to ready");
    const times = { fresh: [], again: [] };
    for (let i = 0; i < this.#count.starts; i++) {
      const region = this.#newRegion();
      try {
        times.fresh.push(await region.start());
        await region.stop();
        times.again.push(await region.start());
      } finally {
        await region.stop();
        region.remove();
      }
    }
    return times;
  }

  /** Opens a session or a display of this size everywhere, each in a browser of its own. */
  async open(width, height) {
    console.log(`opening viewers of ${width}×${height}`);
    for (const name of this.#wanted) {
      if (name === "Penstock") {
        this.#viewers.push(await this.#openPenstock(width, height));
        continue;
      }
      const product = peers[name];
      const peer = await product(width, height);
      this.#viewers.push({ ...peer, name, closeProduct: peer.close, stage: undefined });
      const viewer = this.#viewers.at(-1);
      viewer.stage = this.#program(viewer, "flipper", "-still", "-width", "1280", "-height", "720");
      await wrote(viewer.stage, "shown");
    }
    for (const viewer of this.#viewers) {
      viewer.width = width;
      viewer.height = height;
      await this.#openBrowser(viewer);
    }
  }

  async #openPenstock(width, height) {
    if (this.#region === undefined) {
      this.#region = this.#newRegion();
      await this.#region.start();
    }
    const region = this.#region;
    await region.warm();
    const user = `viewer-${height}`;
    const viewer = {
      name: "Penstock",
      canvas,
      url: await region.streamingUrl(user, { application: "stage", width, height }),
      closeProduct: () => region.expire(user),
    };
    viewer.opened = async () => {
      const session = await region.session(user);
      viewer.environment = {
        ...process.env,
        DISPLAY: session.display,
        XAUTHORITY: session.xauthority,
      };
      viewer.processes = () => region.sessionProcesses(session);
    };
    return viewer;
  }

  /** A browser of its own for the viewer, its page open and showing the stage. */
  async #openBrowser(viewer) {
    viewer.browser = await launch();
    const viewport = viewer.viewport ?? { width: viewer.width + 120, height: viewer.height + 180 };
    viewer.context = await viewer.browser.browser.newContext({ viewport, ignoreHTTPSErrors: true });
    await this.#openPage(viewer, true);
    await viewer.opened?.();
  }

  /** Opens the viewer's page and returns the milliseconds until it showed the stage. */
  async #openPage(viewer, workers) {
    viewer.page = await probedPage(viewer.context, {
      expected: { selector: viewer.canvas, pixels: restingPixels(1280, 720) },
      workers,
    });
    const right = rightPicture(viewer.page);
    right.catch(() => {}); // awaited below
    const began = performance.timeOrigin + performance.now();
    await viewer.page.goto(viewer.url);
    const milliseconds = (await right) - began;
    // A click outside the area that changes gives the viewer the keyboard; the pointer stays there.
    const { x, y } = await viewer.page.evaluate((selector) => {
      const all = [...document.querySelectorAll(selector)];
      const { left, top } = all
        .sort((a, b) => b.width * b.height - a.width * a.height)[0]
        .getBoundingClientRect();
      return { x: left, y: top };
    }, viewer.canvas);
    await viewer.page.mouse.move(x + 700, y + 500);
    await viewer.page.mouse.down();
    await viewer.page.mouse.up();
    return milliseconds;
  }

  /** PSS of the processes of each product with one session that shows a still picture. */
  memory() {
    return this.#viewers.map((viewer) => {
      const { x, server } = viewer.processes();
      const of = (pids) => pids.map(memory).filter((found) => found !== undefined);
      return { viewer: viewer.name, x: of(x), server: of(server) };
    });
  }

  /** Processor time and bytes while nothing changes; all at once, for they have nothing to do. */
  async idle() {
    console.log("idle");
    await pause(3000);
    const meters = this.#viewers.map((viewer) => meter(viewer));
    await pause(this.#count.idle * 1000);
    return meters.map((read) => read());
  }

  /** From opening the viewer's address to the right picture, while the session runs. */
  async opening() {
    console.log("opening");
    const found = [];
    for (let round = 0; round < this.#count.openings; round++) {
      for (const viewer of this.#turns()) {
        await viewer.page.close();
        await pause(500);
        const milliseconds = await this.#attempt(viewer, "opening", () =>
          this.#openPage(viewer, false),
        );
        if (milliseconds !== undefined) {
          found.push({ viewer: viewer.name, milliseconds });
        }
      }
    }
    for (const viewer of this.#viewers) {
      await viewer.page.close();
      await this.#attempt(viewer, "opening again", () => this.#openPage(viewer, true));
    }
    return found;
  }

  /** From the click on an application in the portal to its picture: on a warm instance, and where none is. */
  async launches() {
    console.log("launches");
    const viewer = this.#viewers.find(({ name }) => name === "Penstock");
    if (viewer === undefined) {
      return undefined;
    }
    const warm = [];
    for (let i = 0; i < this.#count.launches; i++) {
      await this.#region.warm();
      const user = `launch-${i}`;
      const { page, milliseconds } = await this.#region.click(viewer.context, user);
      warm.push(milliseconds);
      await page.close();
      await this.#region.expire(user);
    }
    const cold = [];
    for (let i = 0; i < this.#count.launches; i++) {
      const user = `cold-${i}`;
      await this.#region.warm();
      const fleet = await this.#region.cool();
      try {
        const { page, milliseconds } = await this.#region.click(viewer.context, user, fleet.begin);
        cold.push(milliseconds);
        await page.close();
        await this.#region.expire(user);
      } finally {
        await fleet.restore();
      }
    }
    return { warm, cold };
  }

  /**
   * One opening of Penstock's address more, with a trace of the browser in folder: opening.json, for chrome://tracing or Perfetto, and the
   * steps that are in it.
   */
  async profileOpening(folder) {
    const viewer = this.#viewers.find(({ name }) => name === "Penstock");
    if (viewer === undefined) {
      return undefined;
    }
    console.log("opening, traced");
    await viewer.page.close();
    await pause(500);
    const { browser } = viewer.browser;
    await browser.startTracing(undefined, { categories: traceCategories });
    let trace;
    try {
      await this.#openPage(viewer, false);
    } finally {
      trace = await browser.stopTracing();
    }
    writeFileSync(join(folder, "opening.json"), trace);
    return stepsOf(JSON.parse(trace.toString("utf8")).traceEvents);
  }

  async presses() {
    console.log("press to changed pixel");
    const found = [];
    for (const area of [small, quarter]) {
      const flippers = [];
      for (const viewer of this.#viewers) {
        const flipper = this.#program(
          ...[viewer, "flipper", "-width", "1280", "-height", "720"],
          ...["-area", `${area.width}x${area.height}`],
        );
        await wrote(flipper, "shown");
        flippers.push(flipper);
        await this.#attempt(viewer, "wrong colours", async () => {
          await showsFlipper(viewer, area);
          await noticesWrongColours(viewer, area);
        });
      }
      for (let round = 0; round < this.#count.rounds; round++) {
        for (const combination of combinations.filter((c) => c.area === area)) {
          const { input, mode, share } = combination;
          const count = Math.max(2, Math.round(share * this.#count.presses));
          for (const viewer of this.#turns()) {
            const times = await this.#attempt(viewer, `${input} ${area.width} ${mode}`, () =>
              presses(viewer, { input, mode, count, area }),
            );
            if (times !== undefined) {
              found.push({ viewer: viewer.name, area, input, mode, round, times });
            }
          }
        }
      }
      await Promise.all(flippers.map(stop));
    }
    return found;
  }

  async motion(width, height) {
    console.log(`motion ${width}×${height}`);
    const found = [];
    for (let round = 0; round < this.#count.motionRounds; round++) {
      for (const viewer of this.#turns()) {
        const seen = await this.#attempt(viewer, `motion ${height}`, () =>
          this.#motionOf(viewer, width, height),
        );
        if (seen === undefined) {
          continue;
        }
        console.log(`  ${viewer.name}: ${seen.wholePerSecond.toFixed(1)} whole frames a second`);
        found.push({ viewer: viewer.name, width, height, round, ...seen });
      }
    }
    return found;
  }

  async #motionOf(viewer, width, height) {
    const { page } = viewer;
    await page.bringToFront();
    await page.evaluate(() => globalThis.benchProbe.enable(false, [[100, 100]]));
    const log = join(this.#folder, "frames");
    const player = this.#program(
      ...[viewer, "motion", "-width", String(width), "-height", String(height), "-log", log],
    );
    try {
      await wrote(player, "playing");
      await pause(2500); // whatever adapts has adapted
      // First without the probe, whose reading costs processor time, then with it.
      const read = meter(viewer);
      await pause(this.#count.watch * 1000);
      const cost = read();
      await page.evaluate((what) => globalThis.benchProbe.watch(what), layout(width, height));
      await pause(this.#count.watch * 1000);
      const { samples, clock } = await page.evaluate(() => globalThis.benchProbe.unwatch());
      await stop(player);
      return { ...summary(samples, sent(log), clock), cost };
    } finally {
      await stop(player);
      await pause(700); // what it left has been shown
    }
  }

  async office() {
    console.log("office work");
    const found = [];
    for (const viewer of this.#turns()) {
      const seen = await this.#attempt(viewer, "office", () => this.#officeOf(viewer));
      if (seen !== undefined) {
        console.log(`  ${viewer.name}: ${(seen.exact * 100).toFixed(2)} % of the pixels exact`);
        found.push({ viewer: viewer.name, ...seen });
      }
    }
    return found;
  }

  async #officeOf(viewer) {
    const { page } = viewer;
    await page.bringToFront();
    await page.evaluate(() => globalThis.benchProbe.enable(false, [[100, 100]]));
    const office = this.#program(viewer, "office", "-scale", String(this.#count.office));
    try {
      await wrote(office, "begins");
      const began = performance.now();
      const read = meter(viewer);
      const parts = [];
      for (const [name, seconds] of officeParts) {
        await pause(began + seconds * 1000 * this.#count.office - performance.now());
        parts.push({ name, bytes: read().bytes });
      }
      await wrote(office, "ends", 60_000);
      await pause(1000);
      const cost = { ...read(), parts };
      return { cost, exact: await this.#exact(viewer, 1280, 720) };
    } finally {
      await stop(office);
      await pause(500);
    }
  }

  /** Share of the pixels that are in the viewer's canvas exactly as in the X server. */
  async #exact(viewer, width, height) {
    // The canvas first: nothing that comes later may help it.
    const text = await viewer.page.evaluate(
      ({ canvas, width, height }) => globalThis.benchProbe.picture(canvas, width, height),
      { canvas: viewer.canvas, width, height },
    );
    const shown = Buffer.from(text, "base64");
    const { stdout } = await run(
      join(this.#programs, "screenshot"),
      ["-width", String(width), "-height", String(height)],
      { env: viewer.environment, encoding: "buffer", maxBuffer: 64 << 20 },
    );
    const equal = equalPixels(shown, stdout);
    const share = equal.length / (width * height);
    if (equal.length > 0) {
      stdout[equal[0] * 4] ^= 1;
      if (equalPixels(shown, stdout).length !== equal.length - 1) {
        throw new Error("a wrong pixel would go unnoticed");
      }
    }
    return share;
  }

  async closeViewers() {
    for (const viewer of this.#viewers.splice(0).reverse()) {
      await viewer.browser?.close();
      if (viewer.stage !== undefined) {
        await stop(viewer.stage);
      }
      await viewer.closeProduct();
    }
  }

  async close() {
    await this.closeViewers();
    await this.#region?.stop();
    this.#region?.remove();
    removeFolder(this.#folder);
  }
}

/** Numbers of the pixels that two raw pictures have in common. */
function equalPixels(a, b) {
  if (a.length !== b.length) {
    throw new Error(`pictures of ${a.length} and ${b.length} bytes`);
  }
  const left = new Uint32Array(Uint8Array.from(a).buffer);
  const right = new Uint32Array(Uint8Array.from(b).buffer);
  const equal = [];
  for (let i = 0; i < left.length; i++) {
    if (left[i] === right[i]) {
      equal.push(i);
    }
  }
  return equal;
}

/** Starts metering processor time and bytes of a viewer; what is returned reads how much it was, and in how many seconds. */
function meter(viewer) {
  const look = () => {
    const { x, server } = viewer.processes();
    const browser = family(viewer.browser.pid).map(({ pid }) => pid);
    return {
      time: performance.now(),
      x: processorTime(x),
      server: processorTime(server),
      browser: processorTime(browser),
      bytes: carried(browser),
    };
  };
  const before = look();
  return () => {
    const after = look();
    const between = (name) => processorTimeBetween(before[name], after[name]);
    return {
      viewer: viewer.name,
      seconds: (after.time - before.time) / 1000,
      x: between("x"),
      server: between("server"),
      browser: between("browser"),
      bytes: carriedBetween(before.bytes, after.bytes),
    };
  };
}
