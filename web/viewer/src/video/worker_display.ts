import { codec } from "@penstock/protocol";
import type { DisplayChannel, DisplayChannelEvents } from "../session/display_channel.ts";
import { type DisplayStats, emptyStats } from "./display_stats.ts";
import { LazyDisplay } from "./lazy_display.ts";
import type { Box } from "./picture.ts";
import type { FromWorker, ToWorker } from "./worker_messages.ts";

/** Workers lost within lossWindowMillis before the page draws by itself. */
const maxLosses = 3;
const lossWindowMillis = 10 * 60_000;
/** Time for a worker's sign of life, asked for twice: the first may have been lost to a suspended page. */
const pongMillis = 3000;
/** A sign of life is asked for at most this often. */
const checkMillis = 2000;

/** Figures that go on counting when a worker is replaced. */
const noSums = { bytes: 0, sent: 0, updates: 0, videoFrames: 0, images: 0, recoveries: 0 };
const sums = Object.keys(noSums) as (keyof typeof noSums)[];

export interface DisplayHost {
  /** A fresh canvas that replaces the one before, in the page. */
  newCanvas(): HTMLCanvasElement;
  /** A fresh canvas of the second window, which replaces the one before there. */
  newSecondCanvas?(): OffscreenCanvas | undefined;
  stats(stats: DisplayStats): void;
  /** The worker crashed and a new one is ready; the session must open again. */
  restarted(): void;
  /** The compiled zstd decoder. */
  decoder: Promise<WebAssembly.Module>;
  /** Starts the worker script. */
  newWorker(): Worker;
}

/** The display channel in a worker; falls back to the page where workers or OffscreenCanvas are missing. */
export function newDisplayChannel(host: DisplayHost): DisplayChannel {
  if (
    typeof Worker === "undefined" ||
    !("transferControlToOffscreen" in HTMLCanvasElement.prototype)
  ) {
    return new LazyDisplay(host, 0);
  }
  return new WorkerDisplay(host);
}

/**
 * Runs the display in a worker, and notices when that is gone: by its error, by a lock that it holds while it
 * lives, and by its silence when somebody uses the session. A lost worker is replaced, canvas and all.
 */
export class WorkerDisplay implements DisplayChannel {
  readonly #host: DisplayHost;
  readonly #now: () => number;
  #events: DisplayChannelEvents | undefined;
  #worker: Worker | undefined;
  #page: LazyDisplay | undefined;
  #id = 0;
  #losses: number[] = [];
  /** The worker said something: its script is loaded, which may take any time. */
  #spoke = false;
  #lockName = "";
  /** Ends the wait for the worker's lock. */
  #lock: AbortController | undefined;
  #pongTimer: ReturnType<typeof setTimeout> | undefined;
  #checkTimer: ReturnType<typeof setTimeout> | undefined;
  #checkedAt = Number.NEGATIVE_INFINITY;
  #refused = 0;
  /** What the second window shows. */
  #second: Box | undefined;
  /** Sums of workers that are gone. */
  readonly #before = { ...noSums };
  #latest: DisplayStats = emptyStats();

  constructor(host: DisplayHost, now: () => number = () => performance.now()) {
    this.#host = host;
    this.#now = now;
    this.#startWorker();
  }

  listen(events: DisplayChannelEvents): void {
    this.#events = events;
    this.#page?.listen(events);
  }

  open(url: string, ticket: string): void {
    if (this.#page !== undefined) {
      this.#page.open(url, ticket);
      return;
    }
    this.#id++;
    this.#post({ kind: "open", url, ticket, id: this.#id, refused: this.#refused });
    this.#ask();
  }

  close(): void {
    this.#page?.close();
    this.#id++; // what the worker still says about the connection is stale
    this.#post({ kind: "close" });
  }

  refresh(reason: number): void {
    this.#page?.refresh(reason);
    this.#post({ kind: "refresh", reason });
    this.check();
  }

  get canShowSecond(): boolean {
    return this.#page === undefined;
  }

  showSecond(part: Box | undefined): void {
    if (this.#page !== undefined || (part === undefined && this.#second === undefined)) {
      return;
    }
    const fresh = part !== undefined && this.#second === undefined;
    this.#second = part;
    this.#postSecond(fresh);
  }

  #postSecond(fresh: boolean): void {
    const canvas = fresh ? this.#host.newSecondCanvas?.() : undefined;
    const part = this.#second;
    if (canvas === undefined) {
      this.#post({ kind: "second", part });
    } else {
      this.#post({ kind: "second", part, canvas }, [canvas]);
    }
  }

  check(): void {
    // Asked too lately, ask a little later: this may be the last input, and the worker hang since that answer.
    this.#checkTimer ??= setTimeout(
      () => {
        this.#checkTimer = undefined;
        this.#ask();
      },
      Math.max(0, this.#checkedAt + checkMillis - this.#now()),
    );
  }

  #ask(): void {
    if (this.#worker === undefined || !this.#spoke || this.#pongTimer !== undefined) {
      return;
    }
    this.#checkedAt = this.#now();
    const worker = this.#worker;
    const silent = (times: number) => {
      this.#post({ kind: "ping" });
      this.#pongTimer = setTimeout(() => {
        this.#pongTimer = undefined;
        if (this.#worker !== worker) {
          return;
        }
        if (times > 1) {
          this.#lost("the worker does not answer");
        } else {
          silent(times + 1);
        }
      }, pongMillis);
    };
    silent(1);
  }

  #post(message: ToWorker, transfer: Transferable[] = []): void {
    this.#worker?.postMessage(message, transfer);
  }

  #startWorker(): void {
    const worker = this.#host.newWorker();
    this.#worker = worker;
    this.#spoke = false;
    worker.onmessage = (event: MessageEvent<FromWorker>) => {
      if (this.#worker === worker) {
        this.#receive(event.data);
      }
    };
    const failed = (event: Event) => {
      event.preventDefault();
      if (this.#worker === worker) {
        this.#lost("message" in event ? String(event.message) : "a message was lost");
      }
    };
    worker.onerror = failed;
    worker.addEventListener("messageerror", failed);
    const canvas = this.#host.newCanvas().transferControlToOffscreen();
    this.#post({ kind: "surface", canvas }, [canvas]);
    if (this.#second !== undefined) {
      this.#postSecond(true);
    }
    this.#host.decoder.then(
      (module) => this.#worker === worker && this.#post({ kind: "decoder", module }),
      (cause: unknown) => {
        if (this.#worker === worker) {
          this.#post({ kind: "no-decoder", reason: String(cause) });
          this.#events?.failed("no-decoder", String(cause));
        }
      },
    );
    if (typeof navigator !== "undefined" && "locks" in navigator) {
      this.#lockName = `penstock-display-${Math.random().toString(36).slice(2)}`;
      this.#post({ kind: "hold", lock: this.#lockName });
    }
  }

  /** The worker holds its lock: whoever asks for it next gets it when the worker is gone. */
  #held(): void {
    const worker = this.#worker;
    const lock = new AbortController();
    this.#lock = lock;
    navigator.locks
      .request(this.#lockName, { signal: lock.signal }, () => {
        if (this.#worker === worker) {
          this.#lost("the worker was ended");
        }
      })
      .catch(() => {}); // aborted
  }

  #receive(message: FromWorker): void {
    this.#spoke = true;
    switch (message.kind) {
      case "stats":
        this.#report(message.stats);
        return;
      case "pong":
        clearTimeout(this.#pongTimer);
        this.#pongTimer = undefined;
        return;
      case "held":
        this.#held();
        return;
      case "broken":
        this.#lost(message.reason);
        return;
    }
    if (message.id !== this.#id) {
      return;
    }
    switch (message.kind) {
      case "opened":
        this.#events?.opened();
        break;
      case "drawn":
        this.#events?.drawn(message.width, message.height);
        break;
      case "closed":
        this.#events?.closed(message.code, message.reason, message.opened);
        break;
    }
  }

  #report(stats: DisplayStats): void {
    this.#latest = stats;
    const { bytes, sent, updates, videoFrames, images, recoveries } = this.#before;
    this.#host.stats({
      ...stats,
      bytes: bytes + stats.bytes,
      sent: sent + stats.sent,
      updates: updates + stats.updates,
      videoFrames: videoFrames + stats.videoFrames,
      images: images + stats.images,
      recoveries: recoveries + stats.recoveries,
    });
  }

  /** The worker is gone, or of no use any more: a new one takes over, at last the page itself. */
  #lost(reason: string): void {
    this.#worker?.terminate();
    this.#worker = undefined;
    this.#lock?.abort();
    clearTimeout(this.#pongTimer);
    this.#pongTimer = undefined;
    this.#id++;
    for (const name of sums) {
      this.#before[name] += this.#latest[name];
    }
    this.#before.recoveries++;
    this.#report({ ...this.#latest, ...noSums });
    const now = this.#now();
    this.#losses = this.#losses.filter((at) => now - at < lossWindowMillis);
    this.#losses.push(now);
    if (this.#losses.length > 1) {
      this.#refused |= codec.h264 | codec.vp8; // perhaps its decoder is what takes the worker along
    }
    console.warn(`penstock: display worker lost: ${reason}`);
    if (this.#losses.length <= maxLosses) {
      this.#startWorker();
    } else {
      const report = (stats: DisplayStats) => this.#report(stats);
      this.#page = new LazyDisplay(
        { ...this.#host, stats: report },
        codec.h264 | codec.vp8 | codec.jpeg,
      );
      if (this.#events !== undefined) {
        this.#page.listen(this.#events);
      }
    }
    this.#host.restarted();
  }
}
