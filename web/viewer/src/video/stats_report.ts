const everyMillis = 100;

/** Calls send at touch, or soon after: at most ten times a second, and not at all while nothing happens. */
export class StatsReport {
  readonly #send: () => void;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #sentAt = Number.NEGATIVE_INFINITY;

  constructor(send: () => void) {
    this.#send = send;
  }

  /** Something changed; sent after the task at hand, so that all of it is in. */
  touch(): void {
    const wait = this.#sentAt + everyMillis - performance.now();
    this.#timer ??= setTimeout(() => this.now(), Math.max(wait, 0));
  }

  now(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#sentAt = performance.now();
    this.#send();
  }
}
