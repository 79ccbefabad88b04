import type { SurfaceEvents } from "./display.ts";
import type { Still } from "./media.ts";
import type { Box, Picture } from "./picture.ts";
import { watchLoss } from "./surface.ts";

/** The part of the picture that a second window shows, on a canvas of that window. It is painted after the first. */
export class SecondSurface {
  readonly #canvas: OffscreenCanvas;
  readonly #context: OffscreenCanvasRenderingContext2D;
  #part: Box = { x: 0, y: 0, width: 0, height: 0 };
  #image: ImageData | undefined;

  /** Throws where there is no 2D canvas. */
  constructor(canvas: OffscreenCanvas, events: SurfaceEvents) {
    const context = canvas.getContext("2d", { alpha: false, desynchronized: true });
    if (context === null) {
      throw new Error("the browser grants no second 2D canvas");
    }
    this.#canvas = canvas;
    this.#context = context;
    watchLoss(canvas, events);
  }

  /** Shows another part; it is blank until painted. */
  show(part: Box): void {
    this.#part = part;
    if (this.#canvas.width !== part.width || this.#canvas.height !== part.height) {
      this.#canvas.width = part.width;
      this.#canvas.height = part.height;
    }
  }

  paint(picture: Picture, x: number, y: number, width: number, height: number): void {
    const part = this.#part;
    const left = Math.max(x, part.x);
    const top = Math.max(y, part.y);
    const right = Math.min(x + width, part.x + part.width);
    const bottom = Math.min(y + height, part.y + part.height);
    if (left >= right || top >= bottom) {
      return;
    }
    if (this.#image?.data.buffer !== picture.pixels.buffer) {
      const bytes = new Uint8ClampedArray(picture.pixels.buffer);
      this.#image = new ImageData(bytes, picture.width, picture.height);
    }
    this.#context.putImageData(
      this.#image,
      -part.x,
      -part.y,
      left,
      top,
      right - left,
      bottom - top,
    );
  }

  draw(still: Still, crop: Box, to: Box): void {
    const { x, y } = this.#part;
    this.#context.drawImage(
      still,
      crop.x,
      crop.y,
      crop.width,
      crop.height,
      to.x - x,
      to.y - y,
      to.width,
      to.height,
    );
  }
}
