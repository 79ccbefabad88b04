import type { DisplayChannel, DisplayChannelEvents } from "../session/display_channel.ts";
import { connectWebSocket } from "../transport/connection.ts";
import { Display } from "./display.ts";
import { StatsReport } from "./stats_report.ts";
import { CanvasSurface } from "./surface.ts";
import type { DisplayHost } from "./worker_display.ts";
import { ZstdModule } from "./zstd.ts";

/** The same display code on the page's own thread. */
export class PageDisplay implements DisplayChannel {
  readonly #display: Display;
  readonly #host: DisplayHost;
  #events: DisplayChannelEvents | undefined;

  constructor(host: DisplayHost) {
    this.#host = host;
    const zstd = host.decoder.then((module) => ZstdModule.instantiate(module));
    zstd.catch((cause: unknown) => this.#events?.failed(String(cause)));
    const canvas = new CanvasSurface(host.newCanvas());
    const report = new StatsReport(() => host.stats({ ...this.#display.stats }));
    this.#display = new Display(
      connectWebSocket,
      {
        resize: (width, height) => canvas.resize(width, height),
        paint: (picture, x, y, width, height) => {
          canvas.paint(picture, x, y, width, height);
          report.touch();
        },
      },
      zstd,
      {
        opened: () => this.#events?.opened(),
        drawn: (width, height) => {
          report.now();
          this.#events?.drawn(width, height);
        },
        closed: (code, reason, opened) => this.#events?.closed(code, reason, opened),
      },
    );
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
}
