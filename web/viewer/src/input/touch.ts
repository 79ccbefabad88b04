import type { Point } from "./pointer.ts";

/** A finger, in CSS pixels of the window. */
export interface Finger {
  id: number;
  x: number;
  y: number;
}

export interface TouchEvents {
  /** The pointer is at a point of the window with these buttons of the browser's mask. */
  pointer(at: Point, buttons: number): void;
  /** Two fingers scrolled by so many CSS pixels; positive is right and down, as a wheel turns. */
  scroll(at: Point, dx: number, dy: number): void;
  /** Two fingers spread by a factor around a point and moved. */
  pinch(factor: number, center: Point, dx: number, dy: number): void;
}

/** A finger that moves less than this has not moved, in CSS pixels. */
const slop = 10;
/** Two fingers whose distance changes by this pinch. */
const pinchSlop = 24;
export const longPressMillis = 500;

type State =
  | { kind: "none" }
  /** Down and not moved; timer turns it into a right click. */
  | { kind: "pressed"; from: Finger; timer: ReturnType<typeof setTimeout> }
  | { kind: "dragging"; id: number }
  | { kind: "two"; distance: number; center: Point; mode: "undecided" | "scroll" | "pinch" }
  /** Until all fingers are up. */
  | { kind: "over" };

/**
 * Touches as a mouse: tap is a click, a finger that moves drags, a long press is a right click, two fingers scroll or
 * pinch. No DOM.
 */
export class Touch {
  readonly #events: TouchEvents;
  readonly #fingers = new Map<number, Finger>();
  #state: State = { kind: "none" };

  constructor(events: TouchEvents) {
    this.#events = events;
  }

  down(finger: Finger): void {
    this.#fingers.set(finger.id, finger);
    const state = this.#state;
    if (state.kind === "none" && this.#fingers.size === 1) {
      const timer = setTimeout(() => this.#longPress(finger), longPressMillis);
      this.#state = { kind: "pressed", from: finger, timer };
    } else if (state.kind === "pressed" && this.#fingers.size === 2) {
      clearTimeout(state.timer);
      this.#state = { kind: "two", mode: "undecided", ...this.#pair() };
    } else if (state.kind === "dragging") {
      const first = this.#fingers.get(state.id) ?? finger;
      this.#events.pointer(first, 0);
      this.#state = { kind: "over" };
    } else {
      this.#state = { kind: "over" };
    }
  }

  move(finger: Finger): void {
    if (!this.#fingers.has(finger.id)) {
      return;
    }
    this.#fingers.set(finger.id, finger);
    const state = this.#state;
    if (state.kind === "pressed") {
      if (Math.hypot(finger.x - state.from.x, finger.y - state.from.y) > slop) {
        clearTimeout(state.timer);
        this.#state = { kind: "dragging", id: finger.id };
        this.#events.pointer(state.from, 0);
        this.#events.pointer(state.from, 1);
        this.#events.pointer(finger, 1);
      }
    } else if (state.kind === "dragging" && finger.id === state.id) {
      this.#events.pointer(finger, 1);
    } else if (state.kind === "two") {
      this.#moveTwo(state);
    }
  }

  up(finger: Finger): void {
    if (!this.#fingers.delete(finger.id)) {
      return;
    }
    const state = this.#state;
    if (state.kind === "pressed") {
      clearTimeout(state.timer);
      this.#click(state.from, 1);
    } else if (state.kind === "dragging" && finger.id === state.id) {
      this.#events.pointer(finger, 0);
    }
    this.#state = this.#fingers.size === 0 ? { kind: "none" } : { kind: "over" };
  }

  /** The browser took the fingers, or the page lost the focus. */
  cancel(): void {
    const state = this.#state;
    if (state.kind === "pressed") {
      clearTimeout(state.timer);
    } else if (state.kind === "dragging") {
      this.#events.pointer(this.#fingers.get(state.id) ?? { x: 0, y: 0 }, 0);
    }
    this.#fingers.clear();
    this.#state = { kind: "none" };
  }

  #longPress(at: Finger): void {
    this.#state = { kind: "over" };
    this.#click(at, 2);
  }

  #click(at: Point, button: number): void {
    this.#events.pointer(at, 0);
    this.#events.pointer(at, button);
    this.#events.pointer(at, 0);
  }

  #moveTwo(state: Extract<State, { kind: "two" }>): void {
    const { distance, center } = this.#pair();
    const dx = center.x - state.center.x;
    const dy = center.y - state.center.y;
    let { mode } = state;
    if (mode === "undecided") {
      if (Math.abs(distance - state.distance) > pinchSlop) {
        mode = "pinch";
      } else if (Math.hypot(dx, dy) > slop) {
        mode = "scroll";
      } else {
        return;
      }
    }
    if (mode === "pinch") {
      this.#events.pinch(distance / Math.max(state.distance, 1), center, dx, dy);
    } else {
      this.#events.scroll(center, -dx, -dy);
    }
    this.#state = { kind: "two", distance, center, mode };
  }

  #pair(): { distance: number; center: Point } {
    const [a = { x: 0, y: 0 }, b = a] = [...this.#fingers.values()];
    return {
      distance: Math.hypot(a.x - b.x, a.y - b.y),
      center: { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 },
    };
  }
}
