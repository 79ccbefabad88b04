import { describe, expect, it } from "vitest";
import { place, toRemote } from "./layout.ts";

describe("place", () => {
  it("draws a picture of the window's size pixel for pixel", () => {
    expect(place({ width: 800, height: 600 }, { width: 801, height: 601 }, 1, false)).toEqual({
      left: 0,
      top: 0,
      width: 800,
      height: 600,
    });
    expect(place({ width: 1600, height: 1200 }, { width: 800, height: 600 }, 2, false)).toEqual({
      left: 0,
      top: 0,
      width: 800,
      height: 600,
    });
  });

  it("scales a picture of another size to fit while the screen follows the window", () => {
    const got = place({ width: 800, height: 600 }, { width: 1600, height: 900 }, 1, false);
    expect(got).toEqual({ left: 200, top: 0, width: 1200, height: 900 });
  });

  it("scales a fixed size down but never up", () => {
    const size = { width: 1280, height: 720 };
    expect(place(size, { width: 640, height: 480 }, 1, true)).toEqual({
      left: 0,
      top: 60,
      width: 640,
      height: 360,
    });
    expect(place(size, { width: 1920, height: 1080 }, 1, true)).toEqual({
      left: 320,
      top: 180,
      width: 1280,
      height: 720,
    });
  });
});

it("finds the remote pixel and stays inside the picture", () => {
  const picture = { width: 1280, height: 720 };
  const placement = { left: 0, top: 60, width: 640, height: 360 };
  expect(toRemote(320, 240, placement, picture)).toEqual({ x: 640, y: 360 });
  expect(toRemote(0, 60, placement, picture)).toEqual({ x: 0, y: 0 });
  expect(toRemote(639.9, 419.9, placement, picture)).toEqual({ x: 1279, y: 719 });
  expect(toRemote(-50, 9999, placement, picture)).toEqual({ x: 0, y: 719 });
});
