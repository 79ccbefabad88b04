import { expect, it } from "vitest";
import { FrameAge } from "./frame_age.ts";

it("counts waiting beyond the quickest arrival, and decoding", () => {
  const age = new FrameAge();
  const offset = 123_456; // the clocks have nothing in common
  expect(age.measure(offset + 0, 20, 21)).toBeCloseTo(1);
  expect(age.measure(offset + 100, 150, 155)).toBeCloseTo(35);
  expect(age.measure(offset + 200, 210, 210)).toBeCloseTo(0); // a quicker one sets the mark
  expect(age.measure(offset + 300, 320, 320)).toBeCloseTo(10);
});

it("follows clocks that drift apart", () => {
  const age = new FrameAge();
  for (let t = 0; t < 600_000; t += 1000) {
    age.measure(t * 0.999, t + 10, t + 10); // 1 ms a second
  }
  expect(age.measure(600_000 * 0.999, 600_010, 600_010)).toBeLessThan(61);
});
