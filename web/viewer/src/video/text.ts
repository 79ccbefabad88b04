import { BadMessage } from "@penstock/protocol";
import type { Picture } from "./picture.ts";

/** Bounds of the dictionary and of its records (docs/protocol.md, "Text"). */
export const maxGlyphs = 4096;
export const maxGlyphEdge = 64;
export const maxGlyphPixels = 1024;

const kindClear = 1;
const kindGlyphs = 2;
const kindLine = 3;

const opaque = 0xff000000;
const palette = new Uint32Array(256);

interface Glyph {
  readonly width: number;
  readonly height: number;
  readonly pixels: Uint32Array;
}

/** The dictionary of small pictures of one epoch, and the records that fill it and place them. */
export class Glyphs {
  readonly #glyphs: Glyph[] = [];
  #next = 0;

  /**
   * Applies the complete records at the front of bytes and returns how many bytes they have. Throws BadMessage; the picture is
   * then partly drawn.
   */
  draw(picture: Picture, bytes: Uint8Array): number {
    let at = 0;
    while (at < bytes.byteLength) {
      const length = recordLength(bytes, at);
      if (length === 0 || at + length > bytes.byteLength) {
        break;
      }
      switch (bytes[at]) {
        case kindClear:
          clear(picture, bytes, at);
          break;
        case kindGlyphs:
          this.#learn(bytes, at);
          break;
        default:
          this.#place(picture, bytes, at);
      }
      at += length;
    }
    return at;
  }

  #learn(bytes: Uint8Array, at: number): void {
    const colours = byteAt(bytes, at + 1) + 1;
    for (let i = 0; i < colours; i++) {
      palette[i] = rgb(bytes, at + 2 + 3 * i);
    }
    palette.fill(0, colours);
    const sizes = at + 3 + 3 * colours;
    const count = byteAt(bytes, sizes - 1);
    let from = sizes + 2 * count;
    for (let i = 0; i < count; i++) {
      const width = byteAt(bytes, sizes + 2 * i);
      const height = byteAt(bytes, sizes + 2 * i + 1);
      const pixels = new Uint32Array(width * height);
      let all = -1;
      for (let j = 0; j < pixels.length; j++) {
        const pixel = palette[byteAt(bytes, from++)] as number;
        all &= pixel;
        pixels[j] = pixel;
      }
      if (all >>> 24 !== 0xff) {
        throw bad("index is not in the palette");
      }
      this.#glyphs[this.#next] = { width, height, pixels };
      this.#next = (this.#next + 1) % maxGlyphs;
    }
  }

  #place(picture: Picture, bytes: Uint8Array, at: number): void {
    const stride = picture.width;
    const shadow = picture.pixels;
    let x = u16(bytes, at + 1);
    let y = u16(bytes, at + 3);
    const end = at + 6 + 4 * byteAt(bytes, at + 5);
    let top = picture.height;
    let bottom = 0;
    let right = 0;
    let left = picture.width;
    for (let entry = at + 6; entry < end; entry += 4) {
      const glyph = this.#glyphs[u16(bytes, entry)];
      if (glyph === undefined) {
        throw bad("glyph is not in the dictionary");
      }
      x += byteAt(bytes, entry + 2);
      y += (byteAt(bytes, entry + 3) << 24) >> 24;
      const { width, height, pixels } = glyph;
      if (y < 0 || x + width > stride || y + height > picture.height) {
        throw bad("glyph reaches outside the screen");
      }
      picture.own(x, y, width, height);
      let from = 0;
      for (let to = y * stride + x, row = 0; row < height; row++, to += stride) {
        for (let i = to; i < to + width; i++) {
          shadow[i] = pixels[from++] as number;
        }
      }
      left = Math.min(left, x);
      top = Math.min(top, y);
      right = Math.max(right, x + width);
      bottom = Math.max(bottom, y + height);
    }
    if (right > left) {
      picture.touch(left, top, right - left, bottom - top);
    }
  }
}

/** Length of the record at at, or 0 when its own length fields are not there yet. Refuses what no record may be. */
function recordLength(bytes: Uint8Array, at: number): number {
  const left = bytes.byteLength - at;
  switch (bytes[at]) {
    case kindClear:
      return 12;
    case kindGlyphs: {
      if (left < 2) {
        return 0;
      }
      const sizes = 3 + 3 * (byteAt(bytes, at + 1) + 1);
      if (left < sizes) {
        return 0;
      }
      const count = byteAt(bytes, at + sizes - 1);
      if (left < sizes + 2 * count) {
        return 0;
      }
      let length = sizes + 2 * count;
      for (let i = 0; i < count; i++) {
        const width = byteAt(bytes, at + sizes + 2 * i);
        const height = byteAt(bytes, at + sizes + 2 * i + 1);
        const pixels = width * height;
        if (width > maxGlyphEdge || height > maxGlyphEdge || pixels > maxGlyphPixels || !pixels) {
          throw bad("glyph has no pixels or too many");
        }
        length += pixels;
      }
      if (length > maxTextRecord) {
        throw bad("record is too long");
      }
      return length;
    }
    case kindLine:
      return left < 6 ? 0 : 6 + 4 * byteAt(bytes, at + 5);
    default:
      throw bad(`unknown record ${bytes[at]}`);
  }
}

/** Greatest length of a record. */
export const maxTextRecord = 12_000;

function clear(picture: Picture, bytes: Uint8Array, at: number): void {
  const x = u16(bytes, at + 1);
  const y = u16(bytes, at + 3);
  const width = u16(bytes, at + 5);
  const height = u16(bytes, at + 7);
  if (!width || !height || x + width > picture.width || y + height > picture.height) {
    throw bad("rectangle has no pixels or reaches outside the screen");
  }
  const r = byteAt(bytes, at + 9);
  const g = byteAt(bytes, at + 10);
  const b = byteAt(bytes, at + 11);
  picture.fill({ x, y, width, height, r, g, b });
}

function byteAt(bytes: Uint8Array, at: number): number {
  return bytes[at] as number;
}

function u16(bytes: Uint8Array, at: number): number {
  return byteAt(bytes, at) | (byteAt(bytes, at + 1) << 8);
}

function rgb(bytes: Uint8Array, at: number): number {
  return (
    (opaque | (byteAt(bytes, at + 2) << 16) | (byteAt(bytes, at + 1) << 8) | byteAt(bytes, at)) >>>
    0
  );
}

function bad(reason: string): BadMessage {
  return new BadMessage("update", `text: ${reason}`);
}
