// Measures the stream over slow, long and lossy links and writes that part of docs/benchmarks.md. bench/pacing does the work.
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { plainHeading, table } from "./report.mjs";

const run = promisify(execFile);

/** Runs bench/pacing; programs is the folder with what bench/ builds. */
export async function links({ programs, seconds }) {
  if (process.getuid() !== 0) {
    throw new Error("links are measured between namespaces: run `make bench` as root");
  }
  const { stdout } = await run(join(programs, "pacing"), ["-seconds", String(seconds)], {
    timeout: 1_800_000,
    killSignal: "SIGTERM",
    maxBuffer: 64 << 20,
  });
  return { seconds, results: JSON.parse(stdout) };
}

/** The measured part about links. */
export function linksReport({ machine, loadBefore, loadAfter, seconds, results }) {
  const times = (value, trip) => `${value.toFixed(0)} (${(value / trip).toFixed(2)}×)`;
  const rows = results.map((r) => [
    `${r.mbit} Mbit/s, ${r.trip} ms${r.loss > 0 ? `, ${r.loss * 100} % lost` : ""}`,
    r.load,
    times(r.echoP50, r.trip),
    times(r.echoP95, r.trip),
    r.carried.toFixed(2),
    `${r.queueP50.toFixed(0)} / ${r.queueP95.toFixed(0)} / ${r.queueMost.toFixed(0)}`,
    ((r.queueP95 * 8 * 1.024) / r.mbit).toFixed(0),
    r.load === "film" ? r.frames.toFixed(1) : "",
    r.load === "film" ? `${r.ageP50.toFixed(0)} / ${r.ageP95.toFixed(0)}` : "",
  ]);
  return [
    plainHeading({ machine, loadBefore, loadAfter }, [
      "TCP towards the viewer",
      results[0]?.congestion ?? "",
    ]),
    "### Links\n",
    `${seconds} s a row. In brackets: as a multiple of the round trip.\n`,
    table(
      [
        "link",
        "beside the keys",
        "key to drawn letter, ms, p50",
        "p95",
        "Mbit/s carried",
        "KiB before the link, p50 / p95 / most",
        "p95 of that, ms",
        "whole frames a second",
        "age of a frame, ms, p50 / p95",
      ],
      rows,
    ),
  ].join("\n");
}
