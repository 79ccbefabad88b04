import { describe, expect, it } from "vitest";
import { boundZoom, nextZoom, place, toRemote, type View } from "./layout.ts";

const fit: View = { zoom: "fit", panX: 0, panY: 0, awaits: false };

describe("place", () => {
  it("draws a picture of the container's size pixel for pixel", () => {
    const one = { left: 0, top: 0, width: 801, height: 601, scale: 1 };
    expect(place({ width: 801, height: 601 }, { width: 801, height: 601 }, 1, fit)).toEqual(one);
    const size = { width: 1600, height: 1200 };
    expect(place(size, size, 2, fit)).toEqual({ ...one, width: 800, height: 600 });
    // While a window is dragged, a difference of a pixel or two is not worth a blur.
    expect(place({ width: 801, height: 601 }, { width: 803, height: 600 }, 1, fit)).toEqual({
      ...one,
      left: 1,
    });
  });

  it("fills the container with a picture that is about to be replaced", () => {
    const view = { ...fit, awaits: true };
    expect(place({ width: 800, height: 600 }, { width: 1600, height: 900 }, 1, view)).toEqual({
      left: 200,
      top: 0,
      width: 1200,
      height: 900,
      scale: 1.5,
    });
  });

  it("scales other pictures down to fit, and up by whole numbers alone", () => {
    const size = { width: 1280, height: 720 };
    expect(place(size, { width: 640, height: 480 }, 1, fit)).toEqual({
      left: 0,
      top: 60,
      width: 640,
      height: 360,
      scale: 0.5,
    });
    expect(place(size, { width: 1920, height: 1080 }, 1, fit)).toEqual({
      left: 320,
      top: 180,
      width: 1280,
      height: 720,
      scale: 1,
    });
    expect(place(size, { width: 3840, height: 2160 }, 2, fit)).toEqual({
      left: 0,
      top: 0,
      width: 1920,
      height: 1080,
      scale: 3,
    });
  });

  it("zooms and pans within the picture", () => {
    const picture = { width: 1000, height: 800 };
    const container = { width: 500, height: 1000 };
    const at = (panX: number, panY: number) =>
      place(picture, container, 1, { zoom: 100, panX, panY, awaits: false });
    expect(at(-50, 0)).toEqual({ left: 0, top: 100, width: 1000, height: 800, scale: 1 });
    expect(at(120.4, 10)).toMatchObject({ left: -120, top: 100 });
    expect(at(9000, 0)).toMatchObject({ left: -500 });
    expect(place(picture, container, 1, { ...fit, zoom: 50 })).toMatchObject({
      left: 0,
      top: 300,
      width: 500,
    });
  });
});

it("finds the remote pixel and stays inside the picture", () => {
  const picture = { width: 1280, height: 720 };
  const placement = { left: 0, top: 60, width: 640, height: 360, scale: 0.5 };
  expect(toRemote(320, 240, placement, picture)).toEqual({ x: 640, y: 360 });
  expect(toRemote(0, 60, placement, picture)).toEqual({ x: 0, y: 0 });
  expect(toRemote(-5, 0, placement, picture)).toEqual({ x: 0, y: 0 });
  expect(toRemote(700, 900, placement, picture)).toEqual({ x: 1279, y: 719 });
});

it("steps through zooms", () => {
  expect(nextZoom(100, 1)).toBe(125);
  expect(nextZoom(100, -1)).toBe(75);
  expect(nextZoom(63, 1)).toBe(75);
  expect(nextZoom(400, 1)).toBe(400);
  expect(nextZoom(10, -1)).toBe(25);
  expect([boundZoom(1), boundZoom(1000), boundZoom(110)]).toEqual([25, 400, 110]);
});
