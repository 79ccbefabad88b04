import { BadMessage } from "@penstock/protocol";
import { describe, expect, it } from "vitest";
import { concat } from "../testing/zstd_blocks.ts";
import { Picture } from "./picture.ts";
import { Glyphs, maxGlyphs } from "./text.ts";

type Colour = readonly [number, number, number];

const u16 = (...values: number[]) => values.flatMap((v) => [v & 0xff, v >> 8]);

function clear(x: number, y: number, w: number, h: number, colour: Colour): Uint8Array {
  return Uint8Array.of(1, ...u16(x, y, w, h), ...colour);
}

function learn(colours: Colour[], ...glyphs: { w: number; h: number; indices: number[] }[]) {
  return Uint8Array.of(
    2,
    colours.length - 1,
    ...colours.flat(),
    glyphs.length,
    ...glyphs.flatMap(({ w, h }) => [w, h]),
    ...glyphs.flatMap(({ indices }) => indices),
  );
}

/** Places: slot, dx, dy. */
function line(x: number, y: number, ...places: [number, number, number][]): Uint8Array {
  const entries = places.flatMap(([slot, dx, dy]) => [...u16(slot), dx, dy & 0xff]);
  return Uint8Array.of(3, ...u16(x, y), places.length, ...entries);
}

const red: Colour = [255, 0, 0];
const green: Colour = [0, 255, 0];
const dot = { w: 1, h: 1, indices: [0] };
const bar = { w: 2, h: 3, indices: [0, 1, 1, 0, 0, 1] };

function colourAt(picture: Picture, x: number, y: number): number[] {
  const pixel = picture.pixels[y * picture.width + x] as number;
  return [pixel & 0xff, (pixel >> 8) & 0xff, (pixel >> 16) & 0xff, pixel >>> 24];
}

describe("Glyphs", () => {
  it("clears, learns and places, each from the place before", () => {
    const picture = new Picture(100, 70);
    picture.takeChanges();
    const bytes = concat([
      clear(10, 20, 30, 40, [1, 2, 3]),
      learn([red, green], dot, bar),
      line(12, 25, [1, 0, 0], [0, 5, -2], [1, 3, 127 - 90]),
    ]);
    expect(new Glyphs().draw(picture, bytes)).toBe(bytes.byteLength);
    for (const [x, y, colour] of [
      [10, 20, [1, 2, 3]],
      [39, 59, [1, 2, 3]],
      [40, 59, [0, 0, 0]],
      [12, 25, red],
      [13, 25, green],
      [12, 26, green],
      [13, 27, green],
      [17, 23, red],
      [20, 60, red],
      [21, 62, green],
    ] as const) {
      expect([...colourAt(picture, x, y)]).toEqual([...colour, 255]);
    }
    const [box] = picture.takeChanges();
    expect(box).toMatchObject({ x: 10, width: 30, y: 0 });
  });

  it("leaves an incomplete record", () => {
    const records = [
      clear(0, 0, 5, 5, red),
      learn([red, green], dot, bar),
      line(1, 1, [0, 0, 0], [1, 4, 4]),
    ];
    const whole = concat(records);
    const ends = [0];
    for (const record of records) {
      ends.push((ends.at(-1) as number) + record.byteLength);
    }
    for (let length = 0; length <= whole.byteLength; length++) {
      const want = ends.filter((end) => end <= length).at(-1);
      expect(new Glyphs().draw(new Picture(20, 20), whole.subarray(0, length))).toBe(want);
    }
  });

  it("keeps the dictionary between sections and replaces the oldest glyph when it is full", () => {
    const glyphs = new Glyphs();
    const picture = new Picture(20, 20);
    for (let i = 0; i < maxGlyphs; i += 128) {
      glyphs.draw(picture, learn([red], ...Array.from({ length: 128 }, () => dot)));
    }
    glyphs.draw(picture, line(0, 0, [0, 0, 0], [maxGlyphs - 1, 1, 0]));
    expect(colourAt(picture, 1, 0)).toEqual([255, 0, 0, 255]);
    glyphs.draw(picture, learn([green], dot));
    glyphs.draw(picture, line(0, 1, [0, 0, 0], [1, 1, 0]));
    expect(colourAt(picture, 0, 1)).toEqual([0, 255, 0, 255]);
    expect(colourAt(picture, 1, 1)).toEqual([255, 0, 0, 255]);
    expect(() => glyphs.draw(picture, line(0, 1, [maxGlyphs, 0, 0]))).toThrow(BadMessage);
  });

  it("brings pixels up to date that only the canvas has", () => {
    const picture = new Picture(20, 20, ({ width, height }) =>
      new Uint32Array(width * height).fill(0xff0000ff),
    );
    picture.passed(0, 0, 10, 10);
    new Glyphs().draw(picture, concat([learn([green], dot), line(4, 4, [0, 0, 0])]));
    expect(colourAt(picture, 4, 4)).toEqual([0, 255, 0, 255]);
    expect(colourAt(picture, 5, 4)).toEqual([255, 0, 0, 255]);
  });

  const many = Array.from({ length: 13 }, () => ({
    w: 32,
    h: 30,
    indices: new Array(960).fill(0),
  }));
  for (const [name, record] of [
    ["an unknown record", Uint8Array.of(9)],
    ["a clear outside", clear(90, 0, 11, 5, red)],
    ["a clear below", clear(0, 66, 1, 5, red)],
    ["a clear without pixels", clear(0, 0, 0, 5, red)],
    ["an index that is not in the palette", learn([red], { w: 1, h: 1, indices: [1] })],
    ["a glyph without pixels", learn([red], { w: 0, h: 1, indices: [] })],
    ["a glyph that is too wide", learn([red], { w: 65, h: 1, indices: new Array(65).fill(0) })],
    ["too many pixels", learn([red], { w: 64, h: 17, indices: new Array(64 * 17).fill(0) })],
    ["a record that is too long", learn([red], ...many)],
    ["a glyph that is not there", line(0, 0, [1, 0, 0])],
    ["a glyph outside at the right", line(100, 0, [0, 0, 0])],
    ["a glyph outside at the bottom", line(0, 70, [0, 0, 0])],
    ["a glyph outside at the top", line(0, 0, [0, 0, -1])],
    ["places that leave the screen", line(90, 0, [0, 0, 0], [0, 255, 0])],
  ] as const) {
    it(`refuses ${name}`, () => {
      const glyphs = new Glyphs();
      const picture = new Picture(100, 70);
      glyphs.draw(picture, learn([red], dot));
      expect(() => glyphs.draw(picture, record)).toThrow(BadMessage);
    });
  }

  it("answers any bytes with BadMessage or a length", () => {
    let state = 1;
    const random = (below: number) => {
      state = (state * 1664525 + 1013904223) >>> 0;
      return Math.floor((state / 2 ** 32) * below);
    };
    const start = concat([
      clear(0, 0, 5, 5, red),
      learn([red, green], dot, bar),
      line(1, 1, [0, 0, 0], [1, 4, 4]),
    ]);
    let refused = 0;
    for (let i = 0; i < 3000; i++) {
      const bytes = start.slice();
      for (let n = 0; n < 1 + random(4); n++) {
        bytes[random(bytes.byteLength)] = random(256);
      }
      const picture = new Picture(30, 30);
      try {
        expect(new Glyphs().draw(picture, bytes)).toBeLessThanOrEqual(bytes.byteLength);
      } catch (cause) {
        expect(cause).toBeInstanceOf(BadMessage);
        refused++;
      }
      expect(picture.pixels.length).toBe(900);
    }
    expect(refused).toBeGreaterThan(100);
  });
});
