import type { Copy, Fill } from "@penstock/protocol";

const bandHeight = 64;

export interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

/**
 * The shadow of the remote screen: RGBA pixels, and which parts changed since they were last painted.
 * Changes are kept as one extent for each band of 64 rows.
 */
export class Picture {
  readonly width: number;
  readonly height: number;
  /** One u32 a pixel: R in the lowest byte (all browsers run on little-endian machines), opaque. */
  readonly pixels: Uint32Array<ArrayBuffer>;
  readonly #left: Uint16Array;
  readonly #right: Uint16Array;
  #changed = false;

  /** A black picture that is changed all over. */
  constructor(width: number, height: number) {
    this.width = width;
    this.height = height;
    this.pixels = new Uint32Array(width * height).fill(0xff000000);
    const bands = Math.ceil(height / bandHeight);
    this.#left = new Uint16Array(bands).fill(0xffff);
    this.#right = new Uint16Array(bands);
    this.touch(0, 0, width, height);
  }

  /** Black and changed all over, for a new epoch of the same size. */
  reset(): void {
    this.pixels.fill(0xff000000);
    this.touch(0, 0, this.width, this.height);
  }

  /** Notes that a box inside the picture changed. */
  touch(x: number, y: number, width: number, height: number): void {
    if (width === 0 || height === 0) {
      return;
    }
    this.#changed = true;
    const last = Math.floor((y + height - 1) / bandHeight);
    for (let band = Math.floor(y / bandHeight); band <= last; band++) {
      this.#left[band] = Math.min(this.#left[band] as number, x);
      this.#right[band] = Math.max(this.#right[band] as number, x + width);
    }
  }

  /** Moves a rectangle; both ends lie inside the picture; overlap behaves as a move. */
  copy({ srcX, srcY, dstX, dstY, width, height }: Copy): void {
    const stride = this.width;
    const down = dstY > srcY; // then the last row goes first, or it would be overwritten before it moves
    for (let i = 0; i < height; i++) {
      const row = down ? height - 1 - i : i;
      const from = (srcY + row) * stride + srcX;
      this.pixels.copyWithin((dstY + row) * stride + dstX, from, from + width);
    }
    this.touch(dstX, dstY, width, height);
  }

  fill({ x, y, width, height, r, g, b }: Fill): void {
    const pixel = (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
    for (let row = y; row < y + height; row++) {
      const to = row * this.width + x;
      this.pixels.fill(pixel, to, to + width);
    }
    this.touch(x, y, width, height);
  }

  /** The changed parts as few boxes, and forgets them. Together they cover every change. */
  takeChanges(): Box[] {
    const boxes: Box[] = [];
    if (!this.#changed) {
      return boxes;
    }
    this.#changed = false;
    let open: Box | undefined;
    for (let band = 0; band < this.#left.length; band++) {
      const left = this.#left[band] as number;
      const right = this.#right[band] as number;
      this.#left[band] = 0xffff;
      this.#right[band] = 0;
      if (right === 0) {
        open = undefined;
        continue;
      }
      const y = band * bandHeight;
      const height = Math.min(bandHeight, this.height - y);
      if (open !== undefined) {
        const unionLeft = Math.min(open.x, left);
        const unionRight = Math.max(open.x + open.width, right);
        const union = (unionRight - unionLeft) * (open.height + height);
        const apart = open.width * open.height + (right - left) * height;
        if (union <= 1.25 * apart) {
          open.x = unionLeft;
          open.width = unionRight - unionLeft;
          open.height += height;
          continue;
        }
      }
      open = { x: left, y, width: right - left, height };
      boxes.push(open);
    }
    return boxes;
  }
}
