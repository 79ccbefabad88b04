import type { DisplayChannel, DisplayChannelEvents } from "../session/display_channel.ts";

/** A display channel that a test plays. */
export class FakeDisplay implements DisplayChannel {
  readonly opens: { url: string; ticket: string }[] = [];
  readonly refreshes: number[] = [];
  checks = 0;
  active = false;
  #events: DisplayChannelEvents | undefined;

  listen(events: DisplayChannelEvents): void {
    this.#events = events;
  }

  open(url: string, ticket: string): void {
    this.opens.push({ url, ticket });
    this.active = true;
  }

  close(): void {
    this.active = false;
  }

  refresh(reason: number): void {
    this.refreshes.push(reason);
  }

  /** The handshake succeeds and the first picture is drawn. */
  draw(width = 640, height = 480): void {
    this.#events?.opened();
    this.#events?.drawn(width, height);
  }

  openOnly(): void {
    this.#events?.opened();
  }

  lose(code = 1006, reason = "", opened = true): void {
    this.active = false;
    this.#events?.closed(code, reason, opened);
  }

  check(): void {
    this.checks++;
  }

  fail(reason: string): void {
    this.#events?.failed("no-decoder", reason);
  }
}
