import type { DisplayChannel, DisplayChannelEvents } from "../session/display_channel.ts";
import { connectWebSocket } from "../transport/connection.ts";
import { Display } from "./display.ts";
import { browserMedia } from "./media.ts";
import { StatsReport } from "./stats_report.ts";
import { CanvasSurface } from "./surface.ts";
import type { DisplayHost } from "./worker_display.ts";
import { ZstdModule } from "./zstd.ts";

/** Canvases lost, or memory that was short, within the life of the page before the viewer says so and ends. */
const maxBroken = 3;

/** The same display code on the page's own thread. */
export class PageDisplay implements DisplayChannel {
  readonly #host: DisplayHost;
  readonly #refused: number;
  readonly #zstd: Promise<ZstdModule>;
  #display: Display;
  #events: DisplayChannelEvents | undefined;
  #broken = 0;

  /** refused: bits of start.codecs that are not to be offered. */
  constructor(host: DisplayHost, refused: number) {
    this.#host = host;
    this.#refused = refused;
    this.#zstd = host.decoder.then((module) => ZstdModule.instantiate(module));
    this.#zstd.catch((cause: unknown) => this.#events?.failed("no-decoder", String(cause)));
    this.#display = this.#newDisplay();
  }

  listen(events: DisplayChannelEvents): void {
    this.#events = events;
  }

  open(url: string, ticket: string): void {
    this.#display.open(url, ticket);
  }

  close(): void {
    this.#display.close();
    this.#host.stats({ ...this.#display.stats });
  }

  refresh(reason: number): void {
    this.#display.refresh(reason);
  }

  check(): void {} // it lives while the page does

  #newDisplay(): Display {
    const host = this.#host;
    const broken = (reason: string) => this.#failed(reason);
    const canvas = new CanvasSurface(host.newCanvas(), {
      restored: () => display.restored(),
      broken,
    });
    const report = new StatsReport(() => host.stats({ ...display.stats }));
    const display = new Display(
      connectWebSocket,
      {
        resize: (width, height) => canvas.resize(width, height),
        paint: (picture, x, y, width, height) => {
          canvas.paint(picture, x, y, width, height);
          report.touch();
        },
        draw: (still, crop, to) => {
          canvas.draw(still, crop, to);
          report.touch();
        },
        read: (box) => canvas.read(box),
        timeDraw: (still, width, height) => canvas.timeDraw(still, width, height),
        timePaint: (picture, x, y, w, h) => canvas.timePaint(picture, x, y, w, h),
        endTiming: () => canvas.endTiming(),
      },
      this.#zstd,
      browserMedia(),
      {
        opened: () => this.#events?.opened(),
        drawn: (width, height) => {
          report.now();
          this.#events?.drawn(width, height);
        },
        closed: (code, reason, opened) => this.#events?.closed(code, reason, opened),
        broken,
      },
    );
    display.refuse(this.#refused);
    return display;
  }

  #failed(reason: string): void {
    this.#broken++;
    this.#display.close();
    if (this.#broken > maxBroken) {
      this.#events?.failed("no-picture", reason);
      return;
    }
    try {
      this.#display = this.#newDisplay();
    } catch (cause) {
      this.#events?.failed("no-picture", String(cause));
      return;
    }
    this.#host.restarted();
  }
}
