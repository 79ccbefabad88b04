import type { SendInput } from "./keyboard.ts";

export interface Point {
  x: number;
  y: number;
}

/** Moves closer together than this wait for the next frame, and only the latest is sent. */
const denseMillis = 8;

/** Turns pointer and wheel events into input messages. No DOM; points are remote pixels. */
export class Pointer {
  readonly #send: SendInput;
  readonly #now: () => number;
  #last: (Point & { buttons: number }) | undefined;
  #waiting: Point | undefined;
  #sentAt = Number.NEGATIVE_INFINITY;
  #byX = 0;
  #byY = 0;
  #byButtons = 0;
  #restX = 0;
  #restY = 0;

  constructor(send: SendInput, now: () => number) {
    this.#send = send;
    this.#now = now;
  }

  /**
   * A pointer event with the browser's buttons mask. Returns true when the move waits for flush, which the
   * page calls at the next frame. A change of buttons goes at once.
   */
  update(point: Point, browserButtons: number): boolean {
    const buttons = buttonsOf(browserButtons);
    const last = this.#last;
    if (last !== undefined && buttons === last.buttons) {
      if (point.x === last.x && point.y === last.y) {
        this.#waiting = undefined;
        return false;
      }
      if (this.#now() - this.#sentAt < denseMillis) {
        this.#waiting = point;
        return true;
      }
    }
    this.#emit(point, buttons);
    return false;
  }

  /** Sends the move that waits. */
  flush(): void {
    if (this.#waiting !== undefined) {
      this.#emit(this.#waiting, this.#last?.buttons ?? 0);
    }
    this.#emitBy(false);
  }

  /** The page sent release-all, or a new session begins: no button is down. */
  reset(): void {
    this.#last = undefined;
    this.#waiting = undefined;
    this.#byX = 0;
    this.#byY = 0;
    this.#byButtons = 0;
  }

  /**
   * A movement of a locked pointer, in remote pixels. Returns true when it waits for flush; a change of buttons goes
   * at once, with the movement before it.
   */
  moveBy(dx: number, dy: number, browserButtons: number): boolean {
    const buttons = buttonsOf(browserButtons);
    this.#byX += dx;
    this.#byY += dy;
    if (buttons === this.#byButtons && this.#now() - this.#sentAt < denseMillis) {
      return true;
    }
    this.#byButtons = buttons;
    this.#emitBy(true);
    return false;
  }

  #emitBy(always: boolean): void {
    const dx = clamp(Math.trunc(this.#byX));
    const dy = clamp(Math.trunc(this.#byY));
    if (always || dx !== 0 || dy !== 0) {
      this.#byX -= dx;
      this.#byY -= dy;
      this.#sentAt = this.#now();
      this.#last = undefined; // nobody knows where the pointer is now
      this.#send({ kind: "relative", dx, dy, buttons: this.#byButtons });
    }
  }

  wheel(point: Point, event: WheelLike): void {
    this.flush();
    this.#restX += notches(event.deltaX, event.wheelDeltaX, event.deltaMode);
    this.#restY += notches(event.deltaY, event.wheelDeltaY, event.deltaMode);
    const dx = clamp(Math.trunc(this.#restX));
    const dy = clamp(Math.trunc(this.#restY));
    this.#restX -= dx;
    this.#restY -= dy;
    if (Math.abs(this.#restX) > 0x7fff || Math.abs(this.#restY) > 0x7fff) {
      this.#restX = 0;
      this.#restY = 0;
    }
    if (dx !== 0 || dy !== 0) {
      this.#send({ kind: "wheel", x: point.x, y: point.y, dx, dy });
    }
  }

  #emit(point: Point, buttons: number): void {
    this.#waiting = undefined;
    this.#last = { ...point, buttons };
    this.#sentAt = this.#now();
    this.#send({ kind: "pointer", x: point.x, y: point.y, buttons });
  }
}

/** The parts of WheelEvent that are needed; wheelDelta is not standard but tells notches apart from touchpads. */
export interface WheelLike {
  deltaX: number;
  deltaY: number;
  deltaMode: number;
  wheelDeltaX?: number;
  wheelDeltaY?: number;
}

/** A wheel movement in 1/120 notch, positive right and down. */
function notches(delta: number, wheelDelta: number | undefined, mode: number): number {
  if (mode === 1) {
    return delta * 40; // lines: three a notch
  }
  if (mode === 2) {
    return delta * 360; // pages
  }
  if (wheelDelta !== undefined && wheelDelta !== 0 && wheelDelta % 120 === 0) {
    return -wheelDelta; // a wheel with notches: 120 each, with the other sign
  }
  return delta * 1.2; // pixels: a hundred a notch
}

function clamp(value: number): number {
  return Math.max(-0x8000, Math.min(0x7fff, value));
}

/** PointerEvent.buttons (1 left, 2 right, 4 middle, 8 back, 16 forward) as the protocol has them. */
export function buttonsOf(browser: number): number {
  return (browser & 1) | ((browser & 4) >> 1) | ((browser & 2) << 1) | (browser & 0x18);
}
