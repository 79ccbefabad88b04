/** Ways of a decoded frame to the canvas: copied through the shadow of the screen, or drawn, the shadow behind. */
export type PathKind = "copy" | "draw";

const samples = 5;
/**
 * Drawing must be so much quicker: what it costs later, on the way to the screen, is not in its time, while copying waits for its turn
 * on a busy machine. With a graphics card it takes a tenth; without one, two thirds, and a frame costs twice as much in the end.
 */
const clearly = 0.4;

/**
 * Chooses the faster path of frames by timing both on the first ones. Until it is decided frames are copied,
 * and drawn on a scratch canvas aside.
 */
export class FramePath {
  /** Frames can be copied at all. */
  canCopy: boolean;
  #kind: PathKind;
  #decided: boolean;
  #count = 0;
  #copyMillis = Number.POSITIVE_INFINITY;
  #drawMillis = Number.POSITIVE_INFINITY;

  constructor(canCopy: boolean) {
    this.canCopy = canCopy;
    this.#kind = canCopy ? "copy" : "draw";
    this.#decided = !canCopy;
  }

  get kind(): PathKind {
    return this.#kind;
  }

  /** Both ways of the next frame are to be timed. */
  get probing(): boolean {
    return !this.#decided;
  }

  /** Times of one frame in ms. The quickest of each counts: the others waited for something else. */
  sample(copyMillis: number, drawMillis: number): void {
    this.#copyMillis = Math.min(this.#copyMillis, copyMillis);
    this.#drawMillis = Math.min(this.#drawMillis, drawMillis);
    if (++this.#count >= samples) {
      this.#decided = true;
      this.#kind = this.#drawMillis < this.#copyMillis * clearly ? "draw" : "copy";
    }
  }

  /** Frames of this browser cannot be copied after all. */
  refuseCopy(): void {
    this.canCopy = false;
    this.#decided = true;
    this.#kind = "draw";
  }
}
