import { expect, it } from "vitest";
import { parseFragment, parseSize } from "./fragment.ts";

it("reads ticket and size", () => {
  expect(parseFragment("#t=abc.DEF-_")).toEqual({ ticket: "abc.DEF-_" });
  expect(parseFragment("#t=a.b&r=1280x720")).toEqual({
    ticket: "a.b",
    fixedSize: { width: 1280, height: 720 },
  });
  expect(parseFragment("")).toEqual({});
  expect(parseFragment("#t=&r=0x0")).toEqual({});
});

it("refuses sizes out of range", () => {
  for (const text of ["63x100", "100x99999", "x", "1280", "1280x720x2", "-1x100", null]) {
    expect(parseSize(text)).toBeUndefined();
  }
});
