// Turns what was measured of the network into a part of docs/benchmarks.md.
import { milliseconds, plainHeading, quantile, table } from "./report.mjs";

/** The measured part about the network. */
export function networkReport({
  machine,
  loadBefore,
  loadAfter,
  rounds,
  relays,
  endpoints,
  kernel,
  names,
}) {
  const programs = ["Penstock", "nginx", "HAProxy"];
  const median = (values) => quantile(values, 0.5);
  const each = (name, kind, value) => relays[name][kind].map(value);
  const perCore = ({ bytes, cpu }) => (bytes * 8) / 1e9 / cpu;
  const row = (title, kind, value, show, better) => {
    const medians = programs.map((name) => median(each(name, kind, value)));
    const [own = 0, ...others] = medians;
    return [
      title,
      ...medians.map(show),
      ...others.map((other) => `${(better === "more" ? own / other : other / own).toFixed(2)}×`),
      programs.map((name) => each(name, kind, value).map(show).join(" ")).join(" / "),
    ];
  };
  const gigabits = (value) => value.toFixed(2);
  const micros = (value) => value.toFixed(0);
  const idle = programs.map((name) => relays[name].idle);
  const kilobytes = idle.map(({ before, after, connections }) => (after - before) / connections);
  const parts = [
    plainHeading({ machine, loadBefore, loadAfter }, [
      "peers",
      `nginx ${machine.nginx}, HAProxy ${machine.haproxy}`,
    ]),
    `### Relay\n\n${rounds} rounds in turns, medians; a ratio above 1 means that Penstock is better.`,
    table(
      ["", ...programs, "nginx", "HAProxy", "rounds"],
      [
        row("Gbit/s per core, one connection", "down", perCore, gigabits, "more"),
        row("Gbit/s per core, eight connections", "many", perCore, gigabits, "more"),
        row("Gbit/s per core, towards the agent", "up", perCore, gigabits, "more"),
        row("ping-pong, µs, p50", "ping", ({ p50 }) => p50, micros, "less"),
        row("ping-pong, µs, p99", "ping", ({ p99 }) => p99, micros, "less"),
        row(
          "ping-pong beside two saturated connections, µs, p50",
          "loaded",
          ({ p50 }) => p50,
          micros,
          "less",
        ),
        row(
          "ping-pong beside two saturated connections, µs, p99",
          "loaded",
          ({ p99 }) => p99,
          micros,
          "less",
        ),
        row(
          "handshakes a second, one client",
          "connect",
          ({ connects, seconds }) => connects / seconds,
          micros,
          "more",
        ),
        row(
          "processor time of a handshake, µs",
          "connect",
          ({ connects, cpu }) => (cpu * 1e6) / connects,
          micros,
          "less",
        ),
        [
          `KiB for each of ${idle.map(({ connections }) => connections).join(" / ")} idle connections`,
          ...kilobytes.map((value) => value.toFixed(1)),
          ...kilobytes.slice(1).map((value) => `${(value / kilobytes[0]).toFixed(2)}×`),
          "",
        ],
      ],
    ),
    `Penstock without TLS, where the kernel carries the bytes: ${median(relays.plain.down.map(perCore)).toFixed(1)} Gbit/s per core.`,
    `### Endpoints and rules\n\n\`penstock dev --net kernel\`, signed requests; milliseconds.`,
    table(
      ["from the request on", "p50", "p95", "slowest", "of"],
      [
        ["endpoint in two zones → `available`", ...distribution(endpoints.create)],
        ...endpoints.rules.flatMap(({ rules, authorize, revoke }) => [
          [`rule allowed, ${rules} others → first connection`, ...distribution(authorize)],
          [`rule revoked, ${rules} others → first packet dropped`, ...distribution(revoke)],
        ]),
      ],
    ),
    "### Kernel network and name server",
    table(
      ["rules before the one that matches", "connects a second", "Gbit/s, one connection"],
      ["unfiltered", "rules=0", "rules=100", "rules=1000"].map((rules) => [
        rules.replace("unfiltered", "no filter at all").replace("rules=", ""),
        micros(median(kernel[`Connect/${rules}`]["connects/s"])),
        gigabits((median(kernel[`Throughput/${rules}`]["MB/s"]) * 8) / 1000),
      ]),
    ),
    `DNS answers a second, client on the same cores: ${micros(median(names.AnswersOverUDP["answers/s"]))}.`,
  ];
  return `${parts.join("\n\n")}\n`;
}

const distribution = ({ count, p50, p95, max }) => [...[p50, p95, max].map(milliseconds), count];
