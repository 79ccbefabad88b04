// Turns what was measured of the API into its part of docs/benchmarks.md.
import { heading, milliseconds, table } from "./report.mjs";

export function apiReport({ calls, ...run }) {
  return `${[
    heading(run),
    "### API\n\nSigned requests over HTTP on loopback; the client runs on the same cores. Milliseconds.",
    table(
      [
        "sessions in the store",
        "call",
        "clients",
        "calls a second",
        "p50",
        "p99",
        "slowest",
        "failed",
      ],
      calls.map((r) => [
        r.sessions === 0 ? "few" : r.sessions,
        r.call,
        r.clients,
        Math.round(r.perSecond),
        milliseconds(r.p50),
        milliseconds(r.p99),
        milliseconds(r.max),
        r.failures,
      ]),
    ),
  ].join("\n\n")}\n`;
}
