import { BadMessage } from "@penstock/protocol";
import type { Picture } from "./picture.ts";

export const tileSize = 64;

const opaque = 0xff000000;
/** Colours of the current palette as pixels; what lies behind the last colour is 0, which is no opaque pixel. */
const palette = new Uint32Array(256);

/**
 * Draws the complete tile records at the front of bytes and returns how many bytes they have.
 * Throws BadMessage; the picture is then partly drawn.
 */
export function drawTiles(picture: Picture, bytes: Uint8Array): number {
  const { width, height, pixels } = picture;
  let at = 0;
  while (bytes.byteLength - at >= 3) {
    const x = (bytes[at] as number) * tileSize;
    const y = (bytes[at + 1] as number) * tileSize;
    const coding = bytes[at + 2] as number;
    if (x >= width || y >= height) {
      throw bad("tile is outside the screen");
    }
    const w = Math.min(tileSize, width - x);
    const h = Math.min(tileSize, height - y);
    const length = recordLength(bytes, at, coding, w, h);
    if (length === 0 || at + length > bytes.byteLength) {
      break;
    }
    picture.replace(x, y, w, h);
    const start = y * width + x;
    if (coding === 0) {
      drawRaw(pixels, start, width, w, h, bytes, at + 3);
    } else if (coding === 16) {
      const pixel = rgb(bytes, at + 3);
      for (let row = 0; row < h; row++) {
        const to = start + row * width;
        pixels.fill(pixel, to, to + w);
      }
    } else {
      const colours = (bytes[at + 3] as number) + 1;
      for (let i = 0; i < colours; i++) {
        palette[i] = rgb(bytes, at + 4 + 3 * i);
      }
      palette.fill(0, colours, 1 << coding);
      const body = at + 4 + 3 * colours;
      const known =
        coding === 8
          ? drawBytes(pixels, start, width, w, h, bytes, body)
          : drawBits(pixels, start, width, w, h, bytes, body, coding);
      if (!known) {
        throw bad("index is not in the palette");
      }
    }
    picture.touch(x, y, w, h);
    at += length;
  }
  return at;
}

/** Length of the record at at, or 0 when its own length field is not there yet. */
function recordLength(bytes: Uint8Array, at: number, coding: number, w: number, h: number): number {
  switch (coding) {
    case 0:
      return 3 + w * h * 3;
    case 1:
    case 2:
    case 4:
    case 8: {
      const last = bytes[at + 3];
      if (last === undefined) {
        return 0;
      }
      if (last >= 1 << coding) {
        throw bad("palette has more colours than its indices can name");
      }
      return 4 + 3 * (last + 1) + h * ((w * coding + 7) >> 3);
    }
    case 16:
      return 6;
    default:
      throw bad(`unknown tile coding ${coding}`);
  }
}

function rgb(bytes: Uint8Array, at: number): number {
  return (
    (opaque |
      ((bytes[at + 2] as number) << 16) |
      ((bytes[at + 1] as number) << 8) |
      (bytes[at] as number)) >>>
    0
  );
}

function drawRaw(
  pixels: Uint32Array,
  start: number,
  stride: number,
  w: number,
  h: number,
  bytes: Uint8Array,
  from: number,
): void {
  let at = from;
  for (let row = 0; row < h; row++) {
    const to = start + row * stride;
    for (let i = to; i < to + w; i++) {
      pixels[i] =
        opaque |
        ((bytes[at + 2] as number) << 16) |
        ((bytes[at + 1] as number) << 8) |
        (bytes[at] as number);
      at += 3;
    }
  }
}

function drawBytes(
  pixels: Uint32Array,
  start: number,
  stride: number,
  w: number,
  h: number,
  bytes: Uint8Array,
  from: number,
): boolean {
  let at = from;
  let all = -1;
  for (let row = 0; row < h; row++) {
    const to = start + row * stride;
    for (let i = to; i < to + w; i++) {
      const pixel = palette[bytes[at++] as number] as number;
      all &= pixel;
      pixels[i] = pixel;
    }
  }
  return all >>> 24 === 0xff;
}

/** Indices of 1, 2 or 4 bits, the leftmost pixel in the lowest bits; each row begins a byte. */
function drawBits(
  pixels: Uint32Array,
  start: number,
  stride: number,
  w: number,
  h: number,
  bytes: Uint8Array,
  from: number,
  bits: number,
): boolean {
  const mask = (1 << bits) - 1;
  let at = from;
  let all = -1;
  for (let row = 0; row < h; row++) {
    const to = start + row * stride;
    let byte = 0;
    let left = 0;
    for (let i = to; i < to + w; i++) {
      if (left === 0) {
        byte = bytes[at++] as number;
        left = 8;
      }
      const pixel = palette[byte & mask] as number;
      byte >>= bits;
      left -= bits;
      all &= pixel;
      pixels[i] = pixel;
    }
  }
  return all >>> 24 === 0xff;
}

function bad(reason: string): BadMessage {
  return new BadMessage("update", reason);
}
