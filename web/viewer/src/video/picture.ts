import type { Copy, Fill } from "@penstock/protocol";

const bandHeight = 64;

export interface Box {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** Reads pixels of a box back from where pictures are painted, row by row. */
export type ReadBack = (box: Box) => Uint32Array;

/**
 * The shadow of the remote screen: RGBA pixels, and which parts changed since they were last painted.
 * Changes are kept as one extent for each band of 64 rows.
 *
 * Frames may be drawn past it on the canvas; there the picture is behind until somebody needs its pixels, which
 * are then read back. Who reads or writes pixels calls own or replace first.
 */
export class Picture {
  readonly width: number;
  readonly height: number;
  /** One u32 a pixel: R in the lowest byte (all browsers run on little-endian machines), opaque. */
  readonly pixels: Uint32Array<ArrayBuffer>;
  readonly #left: Uint16Array;
  readonly #right: Uint16Array;
  readonly #readBack: ReadBack | undefined;
  #changed = false;
  /** What takeChanges returns, and boxes for it: nothing is allocated for each update. */
  readonly #boxes: Box[] = [];
  readonly #spares: Box[] = [];
  /** Where the canvas is newer; the boxes do not overlap. */
  #behind: Box[] = [];

  /** A black picture that is changed all over. */
  constructor(width: number, height: number, readBack?: ReadBack) {
    this.#readBack = readBack;
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
    this.#behind = [];
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

  /** Some pixels are on the canvas alone. */
  get behind(): boolean {
    return this.#behind.length > 0;
  }

  /** Brings the pixels of a box up to date, before they are read or some of them are written. */
  own(x: number, y: number, width: number, height: number): void {
    if (this.#behind.length > 0) {
      this.#catchUp(x, y, width, height, false);
    }
  }

  /** All pixels of a box are about to be written, which needs none of the old ones. */
  replace(x: number, y: number, width: number, height: number): void {
    if (this.#behind.length > 0) {
      this.#catchUp(x, y, width, height, true);
    }
  }

  /** A box was drawn on the canvas, past the picture. */
  passed(x: number, y: number, width: number, height: number): void {
    this.replace(x, y, width, height);
    this.#behind.push({ x, y, width, height });
  }

  #catchUp(x: number, y: number, width: number, height: number, replaced: boolean): void {
    this.#behind = this.#behind.filter((box) => {
      const apart =
        box.x >= x + width ||
        x >= box.x + box.width ||
        box.y >= y + height ||
        y >= box.y + box.height;
      if (apart) {
        return true;
      }
      const inside =
        box.x >= x &&
        box.y >= y &&
        box.x + box.width <= x + width &&
        box.y + box.height <= y + height;
      const pixels = replaced && inside ? undefined : this.#readBack?.(box);
      if (pixels !== undefined) {
        this.#put(box, pixels);
      }
      return false;
    });
  }

  #put(box: Box, pixels: Uint32Array): void {
    for (let row = 0; row < box.height; row++) {
      const from = row * box.width;
      this.pixels.set(pixels.subarray(from, from + box.width), (box.y + row) * this.width + box.x);
    }
  }

  /** Moves a rectangle; both ends lie inside the picture; overlap behaves as a move. */
  copy({ srcX, srcY, dstX, dstY, width, height }: Copy): void {
    this.own(srcX, srcY, width, height);
    this.own(dstX, dstY, width, height);
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
    this.replace(x, y, width, height);
    const pixel = (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
    for (let row = y; row < y + height; row++) {
      const to = row * this.width + x;
      this.pixels.fill(pixel, to, to + width);
    }
    this.touch(x, y, width, height);
  }

  /**
   * The changed parts as few boxes, and forgets them. Together they cover every change and nothing that is
   * newer on the canvas. What is returned is good until the next call.
   */
  takeChanges(): readonly Box[] {
    const boxes = this.#boxes;
    boxes.length = 0;
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
      open = this.#spares[boxes.length] ?? { x: 0, y: 0, width: 0, height: 0 };
      this.#spares[boxes.length] = open;
      open.x = left;
      open.y = y;
      open.width = right - left;
      open.height = height;
      boxes.push(open);
    }
    let outside: readonly Box[] = boxes;
    for (const hole of this.#behind) {
      outside = without(outside, hole);
    }
    return outside;
  }
}

/** What is left of boxes outside hole. */
function without(boxes: readonly Box[], hole: Box): Box[] {
  return boxes.flatMap((box) => {
    const left = Math.max(box.x, hole.x);
    const right = Math.min(box.x + box.width, hole.x + hole.width);
    const top = Math.max(box.y, hole.y);
    const bottom = Math.min(box.y + box.height, hole.y + hole.height);
    if (left >= right || top >= bottom) {
      return [box];
    }
    return [
      { x: box.x, y: box.y, width: box.width, height: top - box.y },
      { x: box.x, y: top, width: left - box.x, height: bottom - top },
      { x: right, y: top, width: box.x + box.width - right, height: bottom - top },
      { x: box.x, y: bottom, width: box.width, height: box.y + box.height - bottom },
    ].filter(({ width, height }) => width > 0 && height > 0);
  });
}
