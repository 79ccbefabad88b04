import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { longPressMillis, Touch } from "./touch.ts";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

function touch() {
  const seen: string[] = [];
  return {
    seen,
    touch: new Touch({
      pointer: ({ x, y }, buttons) => seen.push(`${x},${y} ${buttons}`),
      scroll: (_at, dx, dy) => seen.push(`scroll ${dx},${dy}`),
      pinch: (factor, center) => seen.push(`pinch ${factor.toFixed(2)} ${center.x},${center.y}`),
    }),
  };
}
const at = (id: number, x: number, y: number) => ({ id, x, y });

it("takes a tap for a click, though the finger trembles", () => {
  const { touch: t, seen } = touch();
  t.down(at(1, 10, 10));
  t.move(at(1, 14, 12));
  t.up(at(1, 14, 12));
  vi.advanceTimersByTime(longPressMillis);
  expect(seen).toEqual(["10,10 0", "10,10 1", "10,10 0"]);
});

it("takes a long press for a right click, once", () => {
  const { touch: t, seen } = touch();
  t.down(at(1, 10, 10));
  vi.advanceTimersByTime(longPressMillis);
  t.move(at(1, 80, 80));
  t.up(at(1, 80, 80));
  expect(seen).toEqual(["10,10 0", "10,10 2", "10,10 0"]);
});

it("drags, and lets go when a second finger comes or the browser takes over", () => {
  const { touch: t, seen } = touch();
  t.down(at(1, 10, 10));
  t.move(at(1, 30, 10));
  t.down(at(2, 90, 90));
  t.move(at(1, 50, 10));
  t.up(at(1, 50, 10));
  t.up(at(2, 90, 90));
  expect(seen).toEqual(["10,10 0", "10,10 1", "30,10 1", "30,10 0"]);
  t.down(at(3, 10, 10));
  t.move(at(3, 40, 10));
  t.cancel();
  expect(seen.at(-1)).toBe("40,10 0");
});

it("decides once whether two fingers scroll or pinch", () => {
  const { touch: t, seen } = touch();
  t.down(at(1, 100, 100));
  t.down(at(2, 140, 100));
  t.move(at(1, 100, 80));
  t.move(at(2, 140, 80));
  t.move(at(2, 190, 80));
  expect(seen.every((s) => s.startsWith("scroll"))).toBe(true);
  t.cancel();
  seen.length = 0;
  t.down(at(1, 100, 100));
  t.down(at(2, 140, 100));
  t.move(at(2, 180, 100));
  expect(seen).toEqual(["pinch 2.00 140,100"]);
});

it("forgets fingers that it does not know", () => {
  const { touch: t, seen } = touch();
  t.move(at(9, 1, 1));
  t.up(at(9, 1, 1));
  expect(seen).toEqual([]);
});
