const everyMillis = 100;

/** Calls send soon after touch, at most ten times a second and not at all while nothing happens. */
export class StatsReport {
  readonly #send: () => void;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(send: () => void) {
    this.#send = send;
  }

  touch(): void {
    this.#timer ??= setTimeout(() => this.now(), everyMillis);
  }

  now(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#send();
  }
}
