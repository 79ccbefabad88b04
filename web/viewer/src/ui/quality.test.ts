import { expect, it } from "vitest";
import { texts } from "../texts.ts";
import type { ViewerStats } from "../viewer.ts";
import { percentile, rows } from "./quality.ts";

const stats: ViewerStats = {
  rttMs: 12.34,
  frameAgeMs: 8,
  bytes: { control: 2048, display: 3 * 1024 * 1024 },
  sent: 1000,
  decodeMs: 1.25,
  updates: 100,
  epoch: 1,
  width: 1920,
  height: 1080,
  scale: 150,
  zoom: 100,
  video: { frames: 9, decodeMs: 4, path: "copy", codec: "h264", hardware: false },
  images: 0,
  recoveries: 2,
};

it("counts rates between the first and the last sample, and ages by rank", () => {
  const first = {
    ...stats,
    updates: 40,
    sent: 500,
    bytes: { control: 1024, display: 1024 * 1024 },
  };
  const samples = [
    { at: 1000, stats: first },
    { at: 3000, stats },
  ];
  const ages = Array.from({ length: 100 }, (_, i) => 100 - i);
  const about = {
    session: "s-1",
    endpoint: "vpce-1, us-east-1",
    host: "e:443",
    joined: 0,
    browser: "b",
  };
  const got = new Map(rows(stats, samples, ages, about));
  const { labels } = texts.quality;
  expect(got.get(labels.rtt)).toBe("12.3 ms");
  expect(got.get(labels.age)).toBe("51.0 ms / 96.0 ms");
  expect(got.get(labels.updates)).toBe("30.0");
  // (1024 + 2 MiB − 500) bytes down and 500 up in two seconds
  expect(got.get(labels.rate)).toBe("8.39 / 0.00 Mbit/s");
  expect(got.get(labels.display)).toBe("3.0 MiB");
  expect(got.get(labels.path)).toContain("H.264 (copy, software, 4.0 ms)");
  expect(got.get(labels.screen)).toBe("1920 × 1080, 150 % desktop, shown at 100 %");
  expect(got.get(labels.recoveries)).toBe("2");
  expect([...got.values()].every((value) => value !== "")).toBe(true);
});

it("has no percentile of nothing", () => {
  expect(percentile([], 0.5)).toBeUndefined();
  expect(percentile([7], 0.95)).toBe(7);
});
