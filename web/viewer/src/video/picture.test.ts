import { expect, it } from "vitest";
import { Picture } from "./picture.ts";

/** A picture in which every pixel is different. */
function numbered(width: number, height: number): Picture {
  const picture = new Picture(width, height);
  picture.pixels.forEach((_, i) => {
    picture.pixels[i] = i;
  });
  picture.takeChanges();
  return picture;
}

it("moves rectangles as if through a copy, in every direction of overlap", () => {
  for (const [dx, dy] of [
    [0, 1],
    [0, -1],
    [1, 0],
    [-1, 0],
    [2, 3],
    [-2, -3],
    [3, -2],
    [-3, 2],
    [0, 0],
  ] as const) {
    const picture = numbered(20, 20);
    const before = picture.pixels.slice();
    picture.copy({ srcX: 5, srcY: 5, dstX: 5 + dx, dstY: 5 + dy, width: 9, height: 8 });
    const want = before.slice();
    for (let y = 0; y < 8; y++) {
      for (let x = 0; x < 9; x++) {
        want[(5 + dy + y) * 20 + 5 + dx + x] = before[(5 + y) * 20 + 5 + x] as number;
      }
    }
    expect(picture.pixels, `${dx},${dy}`).toEqual(want);
  }
});

it("fills to its edges", () => {
  const picture = new Picture(5, 4);
  picture.fill({ x: 1, y: 1, width: 4, height: 3, r: 1, g: 2, b: 3 });
  expect([...picture.pixels.subarray(0, 5)]).toEqual(Array(5).fill(0xff000000));
  expect([...picture.pixels.subarray(5, 10)]).toEqual([0xff000000, ...Array(4).fill(0xff030201)]);
  expect(picture.pixels.filter((p) => p === 0xff030201)).toHaveLength(12);
});

it("is black and changed all over at first and after reset", () => {
  const picture = new Picture(200, 130);
  expect(picture.takeChanges()).toEqual([{ x: 0, y: 0, width: 200, height: 130 }]);
  expect(picture.takeChanges()).toEqual([]);
  picture.pixels[7] = 1;
  picture.reset();
  expect(picture.pixels.every((pixel) => pixel === 0xff000000)).toBe(true);
  expect(picture.takeChanges()).toEqual([{ x: 0, y: 0, width: 200, height: 130 }]);
});

it("keeps changes that lie apart in boxes of their own", () => {
  const picture = new Picture(1000, 1000);
  picture.takeChanges();
  picture.touch(0, 0, 10, 10);
  picture.touch(900, 900, 10, 10);
  expect(picture.takeChanges()).toEqual([
    { x: 0, y: 0, width: 10, height: 64 },
    { x: 900, y: 896, width: 10, height: 64 },
  ]);
});

it("joins bands of like extent and covers every change", () => {
  let seed = 3;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return (seed >>> 8) % below;
  };
  for (let round = 0; round < 200; round++) {
    const picture = new Picture(300, 300);
    picture.takeChanges();
    const touched = Array.from({ length: 1 + random(5) }, () => {
      const x = random(300);
      const y = random(300);
      return { x, y, width: 1 + random(300 - x), height: 1 + random(300 - y) };
    });
    for (const box of touched) {
      picture.touch(box.x, box.y, box.width, box.height);
    }
    const boxes = picture.takeChanges();
    for (const t of touched) {
      for (const [x, y] of [
        [t.x, t.y],
        [t.x + t.width - 1, t.y + t.height - 1],
      ] as const) {
        const covered = boxes.some(
          (b) => x >= b.x && x < b.x + b.width && y >= b.y && y < b.y + b.height,
        );
        expect(covered).toBe(true);
      }
    }
    for (const b of boxes) {
      expect(b.x + b.width <= 300 && b.y + b.height <= 300).toBe(true);
    }
  }
});

it("is right on the canvas and where it is read, whatever is drawn past it", () => {
  const size = 160;
  let seed = 11;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return (seed >>> 8) % below;
  };
  const same = (a: Uint32Array, b: Uint32Array) => a.every((value, i) => value === b[i]);
  let readBacks = 0;
  for (let round = 0; round < 60; round++) {
    const canvas = new Uint32Array(size * size);
    const truth = new Uint32Array(size * size).fill(0xff000000);
    const picture = new Picture(size, size, (box) => {
      readBacks++;
      const pixels = new Uint32Array(box.width * box.height);
      for (let row = 0; row < box.height; row++) {
        const from = (box.y + row) * size + box.x;
        pixels.set(canvas.subarray(from, from + box.width), row * box.width);
      }
      return pixels;
    });
    const paint = () => {
      for (const box of picture.takeChanges()) {
        for (let row = box.y; row < box.y + box.height; row++) {
          const from = row * size + box.x;
          canvas.set(picture.pixels.subarray(from, from + box.width), from);
        }
      }
    };
    const cover = (
      to: Uint32Array,
      b: { x: number; y: number },
      w: number,
      h: number,
      p: number,
    ) => {
      for (let row = b.y; row < b.y + h; row++) {
        to.fill(p, row * size + b.x, row * size + b.x + w);
      }
    };
    for (let step = 0; step < 30; step++) {
      const width = 1 + random(80);
      const height = 1 + random(80);
      const at = { x: random(size - width), y: random(size - height) };
      const pixel = 0xff000000 + 1 + step;
      switch (random(5)) {
        case 0:
          cover(truth, at, width, height, pixel);
          picture.fill({ ...at, width, height, r: step + 1, g: 0, b: 0 });
          break;
        case 1: // a tile
          cover(truth, at, width, height, pixel);
          picture.replace(at.x, at.y, width, height);
          cover(picture.pixels, at, width, height, pixel);
          picture.touch(at.x, at.y, width, height);
          break;
        case 2: {
          const src = { x: random(size - width), y: random(size - height) };
          const before = truth.slice();
          for (let row = 0; row < height; row++) {
            const from = (src.y + row) * size + src.x;
            truth.set(before.subarray(from, from + width), (at.y + row) * size + at.x);
          }
          picture.copy({ srcX: src.x, srcY: src.y, dstX: at.x, dstY: at.y, width, height });
          break;
        }
        case 3: // a frame
          cover(truth, at, width, height, pixel);
          cover(canvas, at, width, height, pixel);
          picture.passed(at.x, at.y, width, height);
          break;
        default:
          paint();
          expect(same(canvas, truth), `round ${round}, step ${step}`).toBe(true);
      }
    }
    paint();
    expect(same(canvas, truth)).toBe(true);
    picture.own(0, 0, size, size);
    expect(same(picture.pixels, truth)).toBe(true);
    expect(picture.behind).toBe(false);
  }
  expect(readBacks).toBeGreaterThan(200);
});
