import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { BadMessage, decodeDisplayFromAgent } from "@penstock/protocol";
import { describe, expect, it } from "vitest";
import { zstdModule } from "../../zstd_module.ts";
import { paletteTile, type RGB, rawTile, solidTile } from "../testing/tile_records.ts";
import { concat } from "../testing/zstd_blocks.ts";
import { Picture } from "./picture.ts";
import { Glyphs } from "./text.ts";
import { drawTiles } from "./tiles.ts";
import { ZstdModule } from "./zstd.ts";

function at(picture: Picture, x: number, y: number): RGB {
  const pixel = picture.pixels[y * picture.width + x] as number;
  expect(pixel >>> 24).toBe(0xff);
  return [pixel & 0xff, (pixel >> 8) & 0xff, (pixel >> 16) & 0xff];
}

const colours = (count: number): RGB[] =>
  Array.from({ length: count }, (_, i) => [i, 255 - i, (i * 7) & 0xff] as const);

describe("drawTiles", () => {
  // 100 × 70: tiles at the right edge are 36 wide, at the bottom edge 6 high.
  for (const [name, column, row, w, h] of [
    ["whole tile", 0, 0, 64, 64],
    ["right edge", 1, 0, 36, 64],
    ["bottom edge", 0, 1, 64, 6],
    ["corner", 1, 1, 36, 6],
  ] as const) {
    it(`draws raw, ${name}`, () => {
      const picture = new Picture(100, 70);
      const record = rawTile(column, row, w, h, (x, y) => [x, y, x ^ y]);
      expect(drawTiles(picture, record)).toBe(record.byteLength);
      for (let y = 0; y < 70; y++) {
        for (let x = 0; x < 100; x++) {
          const tx = x - column * 64;
          const ty = y - row * 64;
          const inside = tx >= 0 && ty >= 0 && tx < w && ty < h;
          expect(at(picture, x, y)).toEqual(inside ? [tx, ty, tx ^ ty] : [0, 0, 0]);
        }
      }
    });

    for (const bits of [1, 2, 4, 8] as const) {
      it(`draws a palette of ${bits} bits, ${name}`, () => {
        const picture = new Picture(100, 70);
        const palette = colours(1 << bits);
        const index = (x: number, y: number) => (x * 3 + y * 5) & ((1 << bits) - 1);
        const record = paletteTile(column, row, w, h, bits, palette, index);
        expect(drawTiles(picture, record)).toBe(record.byteLength);
        for (let y = 0; y < h; y++) {
          for (let x = 0; x < w; x++) {
            expect(at(picture, column * 64 + x, row * 64 + y)).toEqual(palette[index(x, y)]);
          }
        }
      });
    }

    it(`draws solid, ${name}`, () => {
      const picture = new Picture(100, 70);
      drawTiles(picture, solidTile(column, row, [9, 8, 7]));
      expect(at(picture, column * 64 + w - 1, row * 64 + h - 1)).toEqual([9, 8, 7]);
      expect(picture.pixels.filter((pixel) => pixel === 0xff070809)).toHaveLength(w * h);
    });
  }

  it("leaves an incomplete record", () => {
    const picture = new Picture(128, 64);
    const whole = solidTile(0, 0, [1, 2, 3]);
    const next = paletteTile(1, 0, 64, 64, 4, colours(5), () => 4);
    const both = concat([whole, next]);
    for (let length = 0; length < both.byteLength; length++) {
      const want = length < whole.byteLength ? 0 : whole.byteLength;
      expect(drawTiles(picture, both.subarray(0, length))).toBe(want);
    }
    expect(at(picture, 64, 0)).toEqual([0, 0, 0]);
  });

  for (const [name, record] of [
    ["column outside", solidTile(2, 0, [0, 0, 0])],
    ["row outside", solidTile(0, 1, [0, 0, 0])],
    ["unknown coding", Uint8Array.of(0, 0, 3, 0, 0, 0)],
    ["too many colours", Uint8Array.of(0, 0, 2, 4)],
    ["1-bit index not in palette", paletteTile(0, 0, 64, 64, 1, colours(1), (x) => x & 1)],
    ["4-bit index not in palette", paletteTile(0, 0, 64, 64, 4, colours(3), (x) => x & 3)],
    ["8-bit index not in palette", paletteTile(0, 0, 64, 64, 8, colours(255), (x) => 192 + x)],
  ] as const) {
    it(`refuses ${name}`, () => {
      expect(() => drawTiles(new Picture(128, 64), record)).toThrow(BadMessage);
    });
  }

  it("does not take padding bits for indices", () => {
    // 36 pixels of 1 bit: 5 bytes, the last with 4 bits that no pixel uses.
    const record = paletteTile(0, 0, 36, 1, 1, colours(1), () => 0);
    record[record.byteLength - 1] = 0xf0;
    expect(drawTiles(new Picture(36, 1), record)).toBe(record.byteLength);
  });
});

it("draws the stream that the Go encoder recorded", async () => {
  interface Step {
    name: string;
    hex: string;
    pictureWidth: number;
    pictureHeight: number;
    pictureSha256: string;
  }
  const file = new URL(
    "../../../../internal/wire/channel/testdata/update-stream.json",
    import.meta.url,
  );
  const steps = JSON.parse(readFileSync(file, "utf8")) as Step[];
  expect(steps.length).toBeGreaterThan(5);
  const zstd = await ZstdModule.instantiate(new WebAssembly.Module(zstdModule()));
  let stream = zstd.stream();
  let picture = new Picture(1, 1);
  let glyphs = new Glyphs();
  for (const step of steps) {
    const update = decodeDisplayFromAgent(Buffer.from(step.hex.replace(/\s/g, ""), "hex"));
    if (update.flags & 1) {
      stream.close();
      stream = zstd.stream();
      glyphs = new Glyphs();
      picture = new Picture(update.width, update.height);
    }
    for (const section of update.sections) {
      if (section.kind === "tiles") {
        stream.decode(section.data, section.rawLength, (raw) => drawTiles(picture, raw));
      } else if (section.kind === "text") {
        stream.decode(section.data, section.rawLength, (raw) => glyphs.draw(picture, raw));
      } else if (section.kind === "copy") {
        for (const copy of section.copies) {
          picture.copy(copy);
        }
      } else if (section.kind === "fill") {
        for (const fill of section.fills) {
          picture.fill(fill);
        }
      }
    }
    const bytes = new Uint8Array(picture.pixels.buffer);
    expect([picture.width, picture.height]).toEqual([step.pictureWidth, step.pictureHeight]);
    expect(createHash("sha256").update(bytes).digest("hex"), step.name).toBe(step.pictureSha256);
  }
});
