import { expect, it } from "vitest";
import type { InputWithoutSeq } from "../session/session.ts";
import { buttonsOf, Pointer } from "./pointer.ts";

function pointer() {
  const sent: InputWithoutSeq[] = [];
  const clock = { now: 1000 };
  return {
    sent,
    clock,
    pointer: new Pointer(
      (input) => sent.push(input),
      () => clock.now,
    ),
  };
}

it("maps the browser's buttons", () => {
  const names: [number, number][] = [
    [1, 1], // left
    [2, 4], // right
    [4, 2], // middle
    [8, 8], // back
    [16, 16], // forward
    [31, 31],
    [32, 0], // an eraser is no button
  ];
  for (const [browser, protocol] of names) {
    expect(buttonsOf(browser)).toBe(protocol);
  }
});

it("sends single moves at once and only the latest of dense ones", () => {
  const { pointer: p, sent, clock } = pointer();
  expect(p.update({ x: 1, y: 1 }, 0)).toBe(false);
  clock.now += 2;
  expect(p.update({ x: 2, y: 1 }, 0)).toBe(true);
  expect(p.update({ x: 3, y: 1 }, 0)).toBe(true);
  p.flush();
  p.flush();
  clock.now += 9;
  expect(p.update({ x: 4, y: 1 }, 0)).toBe(false);
  expect(sent).toEqual([1, 3, 4].map((x) => ({ kind: "pointer", x, y: 1, buttons: 0 })));
});

it("sends a change of buttons at once, with the newest place", () => {
  const { pointer: p, sent } = pointer();
  p.update({ x: 1, y: 1 }, 0);
  p.update({ x: 2, y: 2 }, 0);
  p.update({ x: 3, y: 3 }, 1);
  p.flush();
  p.update({ x: 3, y: 3 }, 3);
  p.update({ x: 3, y: 3 }, 0);
  expect(sent).toMatchObject([
    { x: 1 },
    { x: 3, buttons: 1 },
    { x: 3, buttons: 5 },
    { x: 3, buttons: 0 },
  ]);
});

it("does not repeat a state, except after a reset", () => {
  const { pointer: p, sent, clock } = pointer();
  p.update({ x: 1, y: 1 }, 1);
  clock.now += 20;
  p.update({ x: 1, y: 1 }, 1);
  p.reset();
  p.update({ x: 1, y: 1 }, 0);
  expect(sent).toMatchObject([{ buttons: 1 }, { buttons: 0 }]);
});

it("turns wheels of every kind into 1/120 notches", () => {
  const wheel = (event: Parameters<Pointer["wheel"]>[1]) => {
    const { pointer: p, sent } = pointer();
    p.wheel({ x: 5, y: 6 }, event);
    return sent.map((m) => m.kind === "wheel" && [m.x, m.y, m.dx, m.dy]);
  };
  const zero = { deltaX: 0, deltaY: 0, deltaMode: 0 };
  expect(wheel({ ...zero, deltaY: 100, wheelDeltaY: -120 })).toEqual([[5, 6, 0, 120]]);
  expect(wheel({ ...zero, deltaY: -53, wheelDeltaY: 240 })).toEqual([[5, 6, 0, -240]]);
  expect(wheel({ ...zero, deltaY: 100 })).toEqual([[5, 6, 0, 120]]);
  expect(wheel({ ...zero, deltaX: -3, deltaMode: 1 })).toEqual([[5, 6, -120, 0]]);
  expect(wheel({ ...zero, deltaY: 1, deltaMode: 2 })).toEqual([[5, 6, 0, 360]]);
  expect(wheel({ ...zero, deltaY: 1e9 })).toEqual([[5, 6, 0, 32767]]);
});

it("adds up what a touchpad moves", () => {
  const { pointer: p, sent } = pointer();
  for (let i = 0; i < 100; i++) {
    p.wheel({ x: 0, y: 0 }, { deltaX: 0, deltaY: 0.5, deltaMode: 0, wheelDeltaY: -1 });
  }
  const total = sent.reduce((sum, m) => sum + (m.kind === "wheel" ? m.dy : 0), 0);
  expect(total).toBeGreaterThanOrEqual(59);
  expect(total).toBeLessThanOrEqual(60);
});

it("sends the waiting move before a wheel", () => {
  const { pointer: p, sent } = pointer();
  p.update({ x: 1, y: 1 }, 0);
  p.update({ x: 2, y: 2 }, 0);
  p.wheel({ x: 2, y: 2 }, { deltaX: 0, deltaY: 100, deltaMode: 0 });
  expect(sent.map(({ kind }) => kind)).toEqual(["pointer", "pointer", "wheel"]);
});

it("gathers movements of a locked pointer, and sends them before a button and a wheel", () => {
  const { pointer: p, sent, clock } = pointer();
  expect(p.moveBy(1.5, 0, 0)).toBe(false);
  clock.now += 2;
  expect(p.moveBy(0.25, -3, 0)).toBe(true);
  expect(p.moveBy(0.5, -3, 1)).toBe(false);
  clock.now += 1;
  p.moveBy(4, 0, 1);
  p.wheel({ x: 9, y: 9 }, { deltaX: 0, deltaY: 100, deltaMode: 0 });
  expect(sent).toEqual([
    { kind: "relative", dx: 1, dy: 0, buttons: 0 },
    { kind: "relative", dx: 1, dy: -6, buttons: 1 },
    { kind: "relative", dx: 4, dy: 0, buttons: 1 },
    { kind: "wheel", x: 9, y: 9, dx: 0, dy: 120 },
  ]);
});
