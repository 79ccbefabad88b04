const bucketMillis = 30_000;

/**
 * Estimates how old a picture is when it is drawn. Clocks of agent and viewer have an unknown offset, so the
 * quickest arrival of the last half to whole minute counts as zero: the age here is what a picture waited
 * beyond that, plus decoding. The way itself (half a round trip) is added by whoever knows it.
 */
export class FrameAge {
  #min = Number.POSITIVE_INFINITY;
  #lastMin = Number.POSITIVE_INFINITY;
  #begin = Number.NEGATIVE_INFINITY;

  /** All in ms: capture by the agent's clock, the others by ours. */
  measure(captured: number, received: number, drawn: number): number {
    if (received - this.#begin > bucketMillis) {
      this.#lastMin =
        received - this.#begin > 2 * bucketMillis ? Number.POSITIVE_INFINITY : this.#min;
      this.#min = Number.POSITIVE_INFINITY;
      this.#begin = received;
    }
    this.#min = Math.min(this.#min, received - captured);
    return drawn - captured - Math.min(this.#min, this.#lastMin);
  }
}
