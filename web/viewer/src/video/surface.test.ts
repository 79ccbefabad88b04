import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { watchLoss } from "./surface.ts";

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

function watched() {
  const canvas = new EventTarget();
  const said: string[] = [];
  const isLost = watchLoss(canvas, {
    restored: () => said.push("restored"),
    broken: (reason) => said.push(reason),
  });
  return { isLost, said, tell: (what: string) => canvas.dispatchEvent(new Event(what)) };
}

it("is content with a canvas that comes back in time", () => {
  const { isLost, said, tell } = watched();
  expect(isLost()).toBe(false);
  tell("contextlost");
  expect(isLost()).toBe(true);
  vi.advanceTimersByTime(2000);
  tell("contextrestored");
  expect(isLost()).toBe(false);
  vi.advanceTimersByTime(60_000);
  expect(said).toEqual(["restored"]);
});

it("gives a canvas up that does not come back", () => {
  const { isLost, said, tell } = watched();
  tell("contextlost");
  vi.advanceTimersByTime(60_000);
  expect(isLost()).toBe(true);
  expect(said).toEqual(["the canvas was lost"]);
});
