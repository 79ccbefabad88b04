import { readFileSync } from "node:fs";
import { codec, type Section, videoCodec, videoFlag } from "@penstock/protocol";

// Made by testdata/make_streams.mjs, which says what they show.
const read = (file: string) => readFileSync(new URL(`testdata/${file}`, import.meta.url));

/** What Chromium offers. */
export const everyCodec = Object.values(codec).reduce((all, bit) => all | bit, 0);

export const streamWidth = 320;
export const streamHeight = 240;

/** Access units of an Annex B stream with a delimiter before each. */
function cutH264(bytes: Buffer): Uint8Array[] {
  const delimiter = Buffer.of(0, 0, 0, 1, 9);
  const units: Uint8Array[] = [];
  for (let at = bytes.indexOf(delimiter); at >= 0; ) {
    const next = bytes.indexOf(delimiter, at + 1);
    units.push(bytes.subarray(at, next < 0 ? undefined : next));
    at = next;
  }
  return units;
}

/** Frames of an IVF file. */
function cutIVF(bytes: Buffer): Uint8Array[] {
  const frames: Uint8Array[] = [];
  for (let at = 32; at < bytes.length; ) {
    const end = at + 12 + bytes.readUInt32LE(at);
    frames.push(bytes.subarray(at + 12, end));
    at = end;
  }
  return frames;
}

export type Codec = keyof typeof videoCodec;

const units = { h264: cutH264(read("quarters.h264")), vp8: cutIVF(read("quarters.ivf")) };
const jpeg = read("quarters.jpg");

/** Picture n of a stream, at x and y of the screen; n = 0 is the key. */
export function videoSection(codec: Codec, n: number, x: number, y: number, more = {}): Section {
  return {
    kind: "video",
    region: 0,
    codec: videoCodec[codec],
    flags: n === 0 ? videoFlag.key : 0,
    x,
    y,
    width: streamWidth,
    height: streamHeight,
    codedWidth: streamWidth,
    codedHeight: streamHeight,
    data: units[codec][n] as Uint8Array,
    ...more,
  };
}

export function endSection(region = 0): Section {
  return videoSection("h264", 0, 0, 0, {
    region,
    flags: videoFlag.end,
    data: new Uint8Array(),
  });
}

/** The first picture as a JPEG. */
export function jpegSection(x: number, y: number, data: Uint8Array = jpeg): Section {
  return { kind: "jpeg", x, y, width: streamWidth, height: streamHeight, data };
}
