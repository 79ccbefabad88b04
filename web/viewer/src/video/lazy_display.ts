import type { DisplayChannel, DisplayChannelEvents } from "../session/display_channel.ts";
import type { DisplayHost } from "./worker_display.ts";

/** The display channel in the page, whose code is loaded only by browsers that need it. */
export class LazyDisplay implements DisplayChannel {
  readonly #loaded: Promise<DisplayChannel>;
  #events: DisplayChannelEvents | undefined;

  /** refused: bits of start.codecs that are not to be offered. */
  constructor(host: DisplayHost, refused: number) {
    this.#loaded = import("./page_display.ts").then(
      ({ PageDisplay }) => new PageDisplay(host, refused),
    );
    this.#loaded.catch((cause: unknown) => this.#events?.failed("no-picture", String(cause)));
  }

  listen(events: DisplayChannelEvents): void {
    this.#events = events;
    this.#do((display) => display.listen(events));
  }

  open(url: string, ticket: string): void {
    this.#do((display) => display.open(url, ticket));
  }

  close(): void {
    this.#do((display) => display.close());
  }

  refresh(reason: number): void {
    this.#do((display) => display.refresh(reason));
  }

  check(): void {
    this.#do((display) => display.check());
  }

  /** In the order of the calls; a failure to load is reported once, by the constructor. */
  #do(action: (display: DisplayChannel) => void): void {
    this.#loaded.then(action, () => {});
  }
}
