import { texts } from "../texts.ts";
import type { Viewer, ViewerStats } from "../viewer.ts";
import { element } from "./dom.ts";

const everyMillis = 500;
/** Pictures over which ages are counted, and the time over which rates are. */
const maxAges = 200;
const rateMillis = 5000;

/** What does not change while the panel is open. */
export interface About {
  session: string;
  endpoint: string;
  host: string;
  /** When the page joined the session, ms since 1970. */
  joined: number;
  browser: string;
}

interface Sample {
  at: number;
  stats: ViewerStats;
}

/**
 * The numbers that a user can read to a help desk, and copy as text. It measures only while it is open: no timer
 * and no listener otherwise.
 */
export class QualityPanel {
  readonly element: HTMLElement;
  readonly #viewer: Viewer;
  readonly #about: () => About;
  readonly #list = element("dl");
  readonly #copied = element("span", { role: "status", class: "quiet" });
  readonly #cells = new Map<string, HTMLElement>();
  #ages: number[] = [];
  #samples: Sample[] = [];
  #timer: ReturnType<typeof setInterval> | undefined;
  #listening: AbortController | undefined;

  constructor(viewer: Viewer, about: () => About, closed: () => void) {
    this.#viewer = viewer;
    this.#about = about;
    const copy = element("button", { type: "button" }, texts.quality.copy);
    copy.addEventListener("click", () => void this.#copy());
    const close = element("button", { type: "button" }, texts.quality.close);
    close.addEventListener("click", () => {
      this.toggle(false);
      closed();
    });
    this.element = element(
      "section",
      { id: "quality", class: "quality", "aria-labelledby": "quality-title", hidden: true },
      element("h2", { id: "quality-title" }, texts.quality.title),
      this.#list,
      element("div", { class: "actions" }, copy, close, this.#copied),
    );
    this.element.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        this.toggle(false);
        closed();
      }
    });
  }

  get open(): boolean {
    return !this.element.hidden;
  }

  toggle(open = !this.open): void {
    if (open === this.open) {
      return;
    }
    this.element.hidden = !open;
    clearInterval(this.#timer);
    this.#listening?.abort();
    this.#listening = undefined;
    this.#ages = [];
    this.#samples = [];
    this.#copied.textContent = "";
    if (!open) {
      return;
    }
    this.#listening = new AbortController();
    let updates = -1;
    this.#viewer.on(
      "stats",
      (stats) => {
        if (stats.updates !== updates) {
          updates = stats.updates;
          this.#ages.push(stats.frameAgeMs);
          this.#ages.splice(0, this.#ages.length - maxAges);
        }
      },
      this.#listening.signal,
    );
    this.#draw();
    this.#timer = setInterval(() => this.#draw(), everyMillis);
  }

  /** The rows as text, as the help desk gets them. */
  text(): string {
    const rows = [...this.#cells].map(([label, cell]) => `${label}: ${cell.textContent}`);
    return [texts.quality.heading, ...rows].join("\n");
  }

  async #copy(): Promise<void> {
    this.#draw();
    const text = this.text();
    let done = false;
    try {
      await navigator.clipboard.writeText(text);
      done = true;
    } catch {
      done = copyByCommand(text, this.element); // without TLS, or forbidden
    }
    this.#copied.textContent = done ? texts.quality.copied : texts.quality.notCopied;
  }

  #draw(): void {
    const stats = this.#viewer.stats();
    const at = performance.now();
    this.#samples.push({ at, stats });
    while (this.#samples.length > 2 && at - (this.#samples[1]?.at ?? at) >= rateMillis) {
      this.#samples.shift();
    }
    for (const [label, value] of rows(stats, this.#samples, this.#ages, this.#about())) {
      let cell = this.#cells.get(label);
      if (cell === undefined) {
        cell = element("dd");
        this.#cells.set(label, cell);
        this.#list.append(element("div", {}, element("dt", {}, label), cell));
      }
      if (cell.textContent !== value) {
        cell.textContent = value;
      }
    }
  }
}

/** Every row of the panel: label and value. */
export function rows(
  stats: ViewerStats,
  samples: readonly Sample[],
  ages: readonly number[],
  about: About,
): [string, string][] {
  const { labels } = texts.quality;
  const first = samples[0];
  const last = samples[samples.length - 1];
  const seconds = first && last ? (last.at - first.at) / 1000 : 0;
  const perSecond = (read: (stats: ViewerStats) => number) =>
    first && last && seconds > 0 ? (read(last.stats) - read(first.stats)) / seconds : 0;
  const down = perSecond(({ bytes, sent }) => bytes.control + bytes.display - sent);
  const up = perSecond(({ sent }) => sent);
  const ms = (value: number | undefined) => (value === undefined ? "–" : `${value.toFixed(1)} ms`);
  const video = stats.video;
  const path =
    video.codec === "none"
      ? texts.quality.tiles
      : texts.quality.video(
          { h264: "H.264", vp8: "VP8" }[video.codec],
          video.path === "none" ? "–" : video.path,
          video.hardware,
          video.decodeMs,
        );
  const age = percentile(ages, 0.5);
  return [
    [labels.rtt, stats.rttMs > 0 ? ms(stats.rttMs) : "–"],
    [labels.age, age === undefined ? "–" : `${ms(age)} / ${ms(percentile(ages, 0.95))}`],
    [labels.updates, perSecond(({ updates }) => updates).toFixed(1)],
    [labels.rate, `${mbit(down)} / ${mbit(up)} Mbit/s`],
    [labels.control, size(stats.bytes.control)],
    [labels.display, size(stats.bytes.display)],
    [labels.decode, ms(stats.decodeMs)],
    [labels.path, path],
    [labels.screen, texts.quality.screen(stats.width, stats.height, stats.scale, stats.zoom)],
    [labels.recoveries, String(stats.recoveries)],
    [labels.host, about.host],
    [labels.endpoint, about.endpoint || "–"],
    [labels.session, about.session || "–"],
    [labels.joined, about.joined > 0 ? duration(Date.now() - about.joined) : "–"],
    [labels.now, new Date().toISOString().replace(/\.\d+Z$/, "Z")],
    [labels.version, __PENSTOCK_VERSION__],
    [labels.browser, about.browser],
  ];
}

/** The value below which this share of the values lies; undefined for none. */
export function percentile(values: readonly number[], share: number): number | undefined {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
}

function mbit(bytesPerSecond: number): string {
  return ((Math.max(0, bytesPerSecond) * 8) / 1e6).toFixed(2);
}

function size(bytes: number): string {
  if (bytes < 1024) {
    return `${bytes} B`;
  }
  if (bytes < 1024 * 1024) {
    return `${(bytes / 1024).toFixed(1)} KiB`;
  }
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}

function duration(millis: number): string {
  const seconds = Math.max(0, Math.floor(millis / 1000));
  const two = (value: number) => String(value).padStart(2, "0");
  return `${Math.floor(seconds / 3600)}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
}

/** Copies where the page may not use the clipboard's API. */
function copyByCommand(text: string, near: HTMLElement): boolean {
  const active = document.activeElement;
  const field = element("textarea", { class: "copied", "aria-hidden": "true", tabindex: "-1" });
  field.value = text;
  near.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  (active as HTMLElement | null)?.focus();
  return done;
}
