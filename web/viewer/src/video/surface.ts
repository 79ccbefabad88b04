import type { Surface, SurfaceEvents } from "./display.ts";
import type { Still } from "./media.ts";
import type { Box, Picture } from "./picture.ts";

type Canvas = OffscreenCanvas | HTMLCanvasElement;
type Context = OffscreenCanvasRenderingContext2D | CanvasRenderingContext2D;

/** Time for the browser to bring a lost canvas back. */
const restoreMillis = 3000;

// Readbacks are rare: the canvas must not leave the graphics card because of them.
const settings = { alpha: false, desynchronized: true, willReadFrequently: false } as const;

/** Tells when a canvas that the browser took is back, or does not come back; says whether it is gone now. */
export function watchLoss(canvas: EventTarget, events: SurfaceEvents): () => boolean {
  let lost = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  canvas.addEventListener("contextlost", () => {
    lost = true;
    clearTimeout(timer);
    timer = setTimeout(() => events.broken("the canvas was lost"), restoreMillis);
  });
  canvas.addEventListener("contextrestored", () => {
    lost = false;
    clearTimeout(timer);
    events.restored();
  });
  return () => lost;
}

/** Paints pictures on a 2D canvas with putImageData. */
export class CanvasSurface implements Surface {
  readonly #canvas: Canvas;
  readonly #context: Context;
  #image: ImageData | undefined;
  #scratch: Context | undefined;
  readonly #isLost: () => boolean;

  /** Throws where there is no 2D canvas. */
  constructor(canvas: Canvas, events: SurfaceEvents) {
    this.#canvas = canvas;
    const context = canvas.getContext("2d", settings) as Context | null;
    if (context === null) {
      throw new Error("the browser grants no 2D canvas");
    }
    this.#context = context;
    this.#isLost = watchLoss(canvas, events);
  }

  resize(width: number, height: number): void {
    if (this.#canvas.width !== width || this.#canvas.height !== height) {
      this.#canvas.width = width;
      this.#canvas.height = height;
    }
  }

  paint(picture: Picture, x: number, y: number, width: number, height: number): void {
    this.#context.putImageData(this.#imageOf(picture), 0, 0, x, y, width, height);
  }

  draw(still: Still, crop: Box, { x, y, width, height }: Box): void {
    this.#context.drawImage(still, crop.x, crop.y, crop.width, crop.height, x, y, width, height);
  }

  read({ x, y, width, height }: Box): Uint32Array {
    if (this.#isLost()) {
      return new Uint32Array(width * height); // restored asks for a new picture
    }
    const { data } = this.#context.getImageData(x, y, width, height);
    return new Uint32Array(data.buffer, data.byteOffset, width * height);
  }

  timeDraw(still: Still, width: number, height: number): number {
    return this.#time(width, height, (context) => {
      context.drawImage(still, 0, 0, width, height, 0, 0, width, height);
    });
  }

  timePaint(picture: Picture, x: number, y: number, width: number, height: number): number {
    const image = this.#imageOf(picture);
    return this.#time(width, height, (context) => {
      context.putImageData(image, -x, -y, x, y, width, height);
    });
  }

  endTiming(): void {
    this.#scratch = undefined;
  }

  /** ms of work on a canvas of that size and until it is done, beyond those of reading a pixel back. */
  #time(width: number, height: number, work: (context: Context) => void): number {
    let context = this.#scratch;
    if (context?.canvas.width !== width || context.canvas.height !== height) {
      const canvas =
        typeof OffscreenCanvas === "undefined"
          ? Object.assign(document.createElement("canvas"), { width, height })
          : new OffscreenCanvas(width, height);
      context = canvas.getContext("2d", settings) as Context;
      this.#scratch = context;
      work(context); // the first time costs what later ones do not
      context.getImageData(0, 0, 1, 1);
    }
    const idle = performance.now();
    context.getImageData(0, 0, 1, 1);
    const start = performance.now();
    work(context);
    context.getImageData(0, 0, 1, 1);
    return performance.now() - start - (start - idle);
  }

  #imageOf(picture: Picture): ImageData {
    if (this.#image?.data.buffer !== picture.pixels.buffer) {
      const bytes = new Uint8ClampedArray(picture.pixels.buffer);
      this.#image = new ImageData(bytes, picture.width, picture.height);
    }
    return this.#image;
  }
}
