import type { Surface } from "./display.ts";
import type { Picture } from "./picture.ts";

type Canvas = OffscreenCanvas | HTMLCanvasElement;

/** Paints pictures on a 2D canvas with putImageData. */
export class CanvasSurface implements Surface {
  readonly #canvas: Canvas;
  readonly #context: OffscreenCanvasRenderingContext2D | CanvasRenderingContext2D;
  #image: ImageData | undefined;

  constructor(canvas: Canvas) {
    this.#canvas = canvas;
    const context = canvas.getContext("2d", { alpha: false, desynchronized: true }) as
      | OffscreenCanvasRenderingContext2D
      | CanvasRenderingContext2D
      | null;
    if (context === null) {
      throw new Error("the browser grants no 2D canvas");
    }
    this.#context = context;
  }

  resize(width: number, height: number): void {
    if (this.#canvas.width !== width || this.#canvas.height !== height) {
      this.#canvas.width = width;
      this.#canvas.height = height;
    }
  }

  paint(picture: Picture, x: number, y: number, width: number, height: number): void {
    if (this.#image?.data.buffer !== picture.pixels.buffer) {
      const bytes = new Uint8ClampedArray(picture.pixels.buffer);
      this.#image = new ImageData(bytes, picture.width, picture.height);
    }
    this.#context.putImageData(this.#image, 0, 0, x, y, width, height);
  }
}
