import { codec } from "@penstock/protocol";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { type DisplayStats, emptyStats } from "./display_stats.ts";
import { WorkerDisplay } from "./worker_display.ts";
import type { FromWorker, ToWorker } from "./worker_messages.ts";

/** A worker that a test plays. */
class FakeWorker extends EventTarget {
  readonly got: ToWorker[] = [];
  ended = false;
  onmessage: ((event: { data: FromWorker }) => void) | undefined;
  onerror: ((event: Event) => void) | undefined;

  postMessage(message: ToWorker): void {
    this.got.push(message);
  }

  terminate(): void {
    this.ended = true;
  }

  say(message: FromWorker): void {
    this.onmessage?.({ data: message });
  }

  pings(): number {
    return this.got.filter(({ kind }) => kind === "ping").length;
  }
}

let workers: FakeWorker[];
let restarts: number;
let stats: DisplayStats;
let display: WorkerDisplay;
/** Who waits for which lock: the page's callbacks by name. */
let locks: Map<string, () => void>;

const worker = () => workers.at(-1) as FakeWorker;

beforeEach(() => {
  vi.useFakeTimers();
  vi.spyOn(console, "warn").mockImplementation(() => {});
  locks = new Map();
  vi.stubGlobal("navigator", {
    locks: {
      request: (name: string, _options: object, granted: () => void) => {
        locks.set(name, granted);
        return new Promise(() => {});
      },
    },
  });
  workers = [];
  restarts = 0;
  display = new WorkerDisplay(
    {
      newCanvas: () => ({ transferControlToOffscreen: () => ({}) }) as unknown as HTMLCanvasElement,
      stats: (latest) => {
        stats = latest;
      },
      restarted: () => restarts++,
      decoder: new Promise(() => {}),
      newWorker: () => {
        workers.push(new FakeWorker());
        return worker() as unknown as Worker;
      },
    },
    () => Date.now(),
  );
});
afterEach(() => {
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
  vi.useRealTimers();
});

it("asks for signs of life when somebody uses the session, and never else", async () => {
  display.open("ws://x/", "t");
  await vi.advanceTimersByTimeAsync(600_000);
  expect(worker().pings()).toBe(0); // its script may still be on the way
  worker().say({ kind: "held" });
  for (let i = 0; i < 50; i++) {
    display.check();
  }
  await vi.advanceTimersByTimeAsync(0);
  expect(worker().pings()).toBe(1);
  worker().say({ kind: "pong" });
  await vi.advanceTimersByTimeAsync(100);
  display.check(); // too soon, but not forgotten
  await vi.advanceTimersByTimeAsync(1899);
  expect(worker().pings()).toBe(1);
  await vi.advanceTimersByTimeAsync(1);
  expect(worker().pings()).toBe(2);
  worker().say({ kind: "pong" });
  expect(vi.getTimerCount()).toBe(0);
  expect(restarts).toBe(0);
});

it("replaces a worker that is silent twice, that failed, that says so, or whose lock is free", async () => {
  worker().say({ kind: "held" });
  display.check();
  await vi.advanceTimersByTimeAsync(5999);
  expect(restarts).toBe(0);
  await vi.advanceTimersByTimeAsync(1);
  expect(restarts).toBe(1);
  expect(workers[0]?.ended).toBe(true);

  await vi.advanceTimersByTimeAsync(11 * 60_000);
  workers[1]?.onerror?.(new Event("error", { cancelable: true }));
  expect(restarts).toBe(2);

  await vi.advanceTimersByTimeAsync(11 * 60_000);
  worker().say({ kind: "broken", reason: "no memory" });
  expect(restarts).toBe(3);

  await vi.advanceTimersByTimeAsync(11 * 60_000);
  const hold = worker().got.find((message) => message.kind === "hold");
  worker().say({ kind: "held" });
  locks.get(hold?.kind === "hold" ? hold.lock : "")?.();
  expect(restarts).toBe(4);
  expect(workers).toHaveLength(5);
  // What dead workers still say is not heard.
  workers[0]?.say({ kind: "broken", reason: "again" });
  expect(restarts).toBe(4);
});

it("offers no video from the second loss on, and goes on counting", () => {
  const refused = () => {
    display.open("ws://x/", "t");
    const open = worker().got.find((message) => message.kind === "open");
    return open?.kind === "open" && open.refused;
  };
  worker().say({ kind: "stats", stats: { ...emptyStats(), bytes: 100, updates: 3, epoch: 7 } });
  expect(refused()).toBe(0);
  worker().say({ kind: "broken", reason: "" });
  expect(stats).toMatchObject({ bytes: 100, updates: 3, epoch: 7, recoveries: 1 });
  expect(refused()).toBe(0);
  worker().say({ kind: "stats", stats: { ...emptyStats(), bytes: 10, updates: 1, recoveries: 2 } });
  expect(stats).toMatchObject({ bytes: 110, updates: 4, recoveries: 3 });
  worker().say({ kind: "broken", reason: "" });
  expect(stats).toMatchObject({ bytes: 110, updates: 4, recoveries: 4 });
  expect(refused()).toBe(codec.h264 | codec.vp8);
});
