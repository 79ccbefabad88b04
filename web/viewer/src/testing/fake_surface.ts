import type { Surface } from "../video/display.ts";
import type { Still } from "../video/media.ts";
import type { Box, Picture } from "../video/picture.ts";
import type { FakeFrame } from "./fake_media.ts";

/** A surface that keeps what was painted on it. */
export class FakeSurface implements Surface {
  width = 0;
  height = 0;
  pixels = new Uint32Array(0);

  resize(width: number, height: number): void {
    if (width !== this.width || height !== this.height) {
      this.width = width;
      this.height = height;
      this.pixels = new Uint32Array(width * height);
    }
  }

  paint(picture: Picture, x: number, y: number, width: number, height: number): void {
    if (x < 0 || y < 0 || x + width > this.width || y + height > this.height) {
      throw new Error(
        `paints ${width}×${height} at ${x}, ${y} outside ${this.width}×${this.height}`,
      );
    }
    for (let row = y; row < y + height; row++) {
      const start = row * this.width + x;
      this.pixels.set(picture.pixels.subarray(start, start + width), start);
    }
  }

  draw(still: Still, _crop: Box, to: Box): void {
    for (let row = to.y; row < to.y + to.height; row++) {
      const start = row * this.width + to.x;
      this.pixels.fill((still as unknown as FakeFrame).pixel, start, start + to.width);
    }
    this.drawn++;
  }

  read({ x, y, width, height }: Box): Uint32Array {
    const pixels = new Uint32Array(width * height);
    for (let row = 0; row < height; row++) {
      const from = (y + row) * this.width + x;
      pixels.set(this.pixels.subarray(from, from + width), row * width);
    }
    return pixels;
  }

  drawMillis = 1e9;
  drawn = 0;

  timeDraw(): number {
    return this.drawMillis;
  }

  timePaint(): number {
    return 1;
  }

  endTiming(): void {}

  at(x: number, y: number): string {
    return (this.pixels[y * this.width + x] ?? 0).toString(16);
  }
}
