import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { StatsReport } from "./stats_report.ts";

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

it("reports the first change at once, many changes ten times a second, and nothing in between", () => {
  let sent = 0;
  const report = new StatsReport(() => sent++);
  vi.advanceTimersByTime(1000);
  expect(sent).toBe(0);
  report.touch();
  vi.advanceTimersByTime(0);
  expect(sent).toBe(1);
  for (let i = 0; i < 100; i++) {
    report.touch();
    vi.advanceTimersByTime(10);
  }
  expect(sent).toBeGreaterThanOrEqual(10);
  expect(sent).toBeLessThanOrEqual(12);
  vi.advanceTimersByTime(1000);
  const rest = sent;
  vi.advanceTimersByTime(10_000);
  expect(sent).toBe(rest);
});
