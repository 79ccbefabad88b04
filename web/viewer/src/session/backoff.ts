const firstMillis = 250;
const greatestMillis = 5000;

/** Waits between retries: doubling, bounded, spread by up to a fifth. */
export class Backoff {
  readonly #random: () => number;
  #count = 0;

  constructor(random: () => number) {
    this.#random = random;
  }

  next(): number {
    const wait = Math.min(firstMillis * 2 ** this.#count, greatestMillis);
    this.#count++;
    return wait * (0.9 + 0.2 * this.#random());
  }

  reset(): void {
    this.#count = 0;
  }
}
