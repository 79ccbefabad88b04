import type { Cursor } from "@penstock/protocol";
import { cssCursor } from "../input/cursor.ts";
import {
  boundZoom,
  nextZoom,
  type Placement,
  place,
  type Size,
  toRemote,
  type Zoom,
} from "./layout.ts";

/** Waits for this long without a change before the session is asked for another size. */
const settleMillis = 100;
/** Distance to the stage's edge, in CSS pixels, within which the pointer pulls a picture that is larger. */
const edge = 32;
/** Greatest speed of that, in CSS pixels a frame. */
const edgeSpeed = 24;

/** A part of a picture, in its pixels. */
export interface Part extends Size {
  x: number;
  y: number;
}

export interface StageEvents {
  /** The stage has another size or another device pixel ratio since settleMillis. */
  settled(): void;
  /** The zoom, or what it comes to in percent, changed. */
  zoomed(): void;
}

/** The element that shows a picture: its size in device pixels, the picture's place in it, zoom and cursor. */
export class Stage {
  readonly element: HTMLElement;
  readonly #events: StageEvents;
  #box: Size = { width: 0, height: 0 };
  #canvas: HTMLCanvasElement | undefined;
  #picture: Size | undefined;
  /** The part of the picture that is shown, when another window shows the rest. */
  #part: Part | undefined;
  #placement: Placement = { left: 0, top: 0, width: 0, height: 0, scale: 1 };
  #cursor: Cursor | undefined;
  #zoom: Zoom = "fit";
  #panX = 0;
  #panY = 0;
  #awaits: Size | undefined;
  #pulled = { x: 0, y: 0, frame: 0 };

  constructor(container: HTMLElement, events: StageEvents) {
    this.#events = events;
    this.element = container.ownerDocument.createElement("div");
    this.element.className = "penstock-stage";
    container.append(this.element);
    this.#measure();
  }

  get #window(): Window {
    return this.element.ownerDocument.defaultView ?? window;
  }

  get pixelRatio(): number {
    return this.#window.devicePixelRatio || 1;
  }

  /** In device pixels. */
  get box(): Size {
    return this.#box;
  }

  /** Calls settled when the size or the ratio has changed, until signal ends. */
  follow(signal: AbortSignal): void {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let ratio = this.pixelRatio;
    const changed = () => {
      this.#layout();
      clearTimeout(timer);
      timer = setTimeout(() => this.#events.settled(), settleMillis);
    };
    const observer = new ResizeObserver(([entry]) => {
      const box = entry?.devicePixelContentBoxSize?.[0];
      this.#measure(box && { width: box.inlineSize, height: box.blockSize });
      changed();
    });
    try {
      observer.observe(this.element, { box: "device-pixel-content-box" });
    } catch {
      observer.observe(this.element); // Safari: whole pixels are computed
    }
    // A change of the ratio alone, as when the window goes to another screen.
    const followRatio = () => {
      const media = this.#window.matchMedia(`(resolution: ${ratio}dppx)`);
      media.addEventListener(
        "change",
        () => {
          ratio = this.pixelRatio;
          this.#measure();
          changed();
          if (!signal.aborted) {
            followRatio();
          }
        },
        { signal, once: true },
      );
    };
    followRatio();
    this.element.addEventListener("pointermove", (event) => this.#pull(event), { signal });
    this.element.addEventListener("pointerleave", () => this.#letGo(), { signal });
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      observer.disconnect();
      this.#letGo();
    });
  }

  /** Puts the canvas in the place of the one before. */
  setCanvas(canvas: HTMLCanvasElement): void {
    if (this.#canvas === undefined) {
      this.element.prepend(canvas);
    } else {
      this.#canvas.replaceWith(canvas);
    }
    this.#canvas = canvas;
    this.#layout();
  }

  /** A picture of this size is on the canvas. */
  setPicture(picture: Size, part?: Part): void {
    this.#picture = picture;
    this.#part = part;
    const shown = part ?? picture;
    if (this.#awaits?.width === shown.width && this.#awaits.height === shown.height) {
      this.#awaits = undefined;
    }
    this.#layout();
  }

  /** A picture of this size was asked for; until it comes, the one before fills the stage. */
  await(size: Size | undefined): void {
    const here = this.#part ?? this.#picture;
    this.#awaits = size?.width === here?.width && size?.height === here?.height ? undefined : size;
    this.#layout();
  }

  setCursor(cursor: Cursor): void {
    this.#cursor = cursor;
    this.#drawCursor();
  }

  /** Remote pixel under a point of the window; undefined before there is a picture. */
  toRemote(clientX: number, clientY: number): { x: number; y: number } | undefined {
    if (this.#picture === undefined) {
      return undefined;
    }
    const box = this.element.getBoundingClientRect();
    const shown = this.#part ?? this.#picture;
    const at = toRemote(clientX - box.left, clientY - box.top, this.#placement, shown);
    return { x: at.x + (this.#part?.x ?? 0), y: at.y + (this.#part?.y ?? 0) };
  }

  get zoom(): Zoom {
    return this.#zoom;
  }

  /** What the zoom comes to now, in percent; 100 is pixel for pixel. */
  get percent(): number {
    return Math.round(this.#placement.scale * 100);
  }

  setZoom(zoom: Zoom): void {
    const { left, top, width, height } = this.element.getBoundingClientRect();
    this.#zoomTo(zoom, left + width / 2, top + height / 2);
  }

  step(direction: 1 | -1): void {
    this.setZoom(nextZoom(this.#placement.scale * 100, direction));
  }

  /** Zooms by a factor and keeps what lies under a point of the window there, as two fingers do. */
  zoomAt(factor: number, clientX: number, clientY: number): void {
    this.#zoomTo(boundZoom(this.#placement.scale * 100 * factor), clientX, clientY);
  }

  /** Moves a picture that is larger than the stage, in CSS pixels. */
  panBy(dx: number, dy: number): void {
    const ratio = this.pixelRatio;
    this.#panTo(this.#panX - dx * ratio, this.#panY - dy * ratio);
  }

  #zoomTo(zoom: Zoom, clientX: number, clientY: number): void {
    const picture = this.#picture;
    const before = this.#placement;
    const box = this.element.getBoundingClientRect();
    this.#zoom = zoom;
    if (picture !== undefined && zoom !== "fit") {
      const ratio = this.pixelRatio;
      const along = (at: number, start: number, from: number, percent: number) =>
        (((at - start - from) * percent) / 100 / before.scale - (at - start)) * ratio;
      this.#panTo(
        along(clientX, box.left, before.left, zoom),
        along(clientY, box.top, before.top, zoom),
      );
    } else {
      this.#layout();
    }
    this.#events.zoomed();
  }

  #panTo(x: number, y: number): void {
    const picture = this.#picture;
    if (picture === undefined) {
      return;
    }
    const scale = this.#zoom === "fit" ? this.#placement.scale : this.#zoom / 100;
    const { width, height } = this.#part ?? picture;
    this.#panX = Math.max(0, Math.min(x, width * scale - this.#box.width));
    this.#panY = Math.max(0, Math.min(y, height * scale - this.#box.height));
    this.#layout();
  }

  /** Near its edge the pointer pulls in what lies beyond. */
  #pull(event: PointerEvent): void {
    const { left, top, width, height } = this.element.getBoundingClientRect();
    const along = (at: number, length: number) =>
      at < edge
        ? ((at - edge) / edge) * edgeSpeed
        : at > length - edge
          ? ((at - length + edge) / edge) * edgeSpeed
          : 0;
    const { width: placed, height: high } = this.#placement;
    this.#pulled.x = placed > width + 1 ? along(event.clientX - left, width) : 0;
    this.#pulled.y = high > height + 1 ? along(event.clientY - top, height) : 0;
    if (this.#pulled.frame === 0 && (this.#pulled.x !== 0 || this.#pulled.y !== 0)) {
      const move = () => {
        const { left: x, top: y } = this.#placement;
        this.panBy(-this.#pulled.x, -this.#pulled.y);
        const moved = this.#placement.left !== x || this.#placement.top !== y;
        this.#pulled.frame = moved ? this.#window.requestAnimationFrame(move) : 0;
      };
      this.#pulled.frame = this.#window.requestAnimationFrame(move);
    }
  }

  #letGo(): void {
    this.#window.cancelAnimationFrame(this.#pulled.frame);
    this.#pulled = { x: 0, y: 0, frame: 0 };
  }

  /** Takes what the browser counts; not where it counts otherwise than it paints, as some emulated screens do. */
  #measure(counted?: Size): void {
    const { width, height } = this.element.getBoundingClientRect();
    const ratio = this.pixelRatio;
    const size = { width: Math.round(width * ratio), height: Math.round(height * ratio) };
    const near =
      counted !== undefined &&
      Math.abs(counted.width - size.width) <= 1 &&
      Math.abs(counted.height - size.height) <= 1;
    this.#box = near ? counted : size;
  }

  #layout(): void {
    const canvas = this.#canvas;
    const picture = this.#picture;
    if (canvas === undefined || picture === undefined) {
      return;
    }
    const ratio = this.pixelRatio;
    const awaits = this.#awaits !== undefined && this.#zoom === "fit";
    const before = this.#placement.scale;
    const part = this.#part;
    this.#placement = place(part ?? picture, this.#box, ratio, {
      zoom: this.#zoom,
      panX: this.#panX,
      panY: this.#panY,
      awaits,
    });
    // While a picture of the stage's own size is on its way, the browser places either by itself: the canvas
    // takes its new size in the worker, a moment before or after this thread hears of it.
    const whole = part === undefined && this.#zoom === "fit" && (awaits || this.#isWhole(picture));
    const css = this.#placement.scale / ratio; // CSS pixels a picture's pixel
    const { left, top, width, height } = whole
      ? { left: 0, top: 0, width: this.#box.width / ratio, height: this.#box.height / ratio }
      : {
          left: this.#placement.left - (part?.x ?? 0) * css,
          top: this.#placement.top - (part?.y ?? 0) * css,
          width: picture.width * css,
          height: picture.height * css,
        };
    const { style } = canvas;
    style.left = `${left}px`;
    style.top = `${top}px`;
    style.width = `${width}px`;
    style.height = `${height}px`;
    style.clipPath =
      part === undefined
        ? "none"
        : `inset(${part.y * css}px ${(picture.width - part.x - part.width) * css}px ` +
          `${(picture.height - part.y - part.height) * css}px ${part.x * css}px)`;
    style.objectFit = whole ? "contain" : "fill";
    const { scale } = this.#placement;
    style.imageRendering = scale > 1 && Number.isInteger(scale) ? "pixelated" : "auto";
    this.#drawCursor();
    if (scale !== before) {
      this.#events.zoomed();
    }
  }

  #isWhole({ width, height }: Size): boolean {
    return width === this.#box.width && height === this.#box.height;
  }

  #drawCursor(): void {
    if (this.#cursor !== undefined && this.#picture !== undefined) {
      this.element.style.cursor = cssCursor(this.#cursor, this.pixelRatio / this.#placement.scale);
    }
  }
}
