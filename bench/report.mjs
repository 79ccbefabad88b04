// Turns results into the measured part of docs/benchmarks.md.
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { promisify } from "node:util";

const run = promisify(execFile);
/** What was measured with. */
export async function machine(root) {
  const output = async (program, ...args) => {
    const { stdout } = await run(program, args, { cwd: root }).catch(() => ({ stdout: "unknown" }));
    return stdout.trim();
  };
  const version = (name) => output("dpkg-query", "-W", "-f", "$" + "{Version}", name);
  return {
    date: new Date().toISOString().slice(0, 16).replace("T", " "),
    commit: await output("git", "describe", "--always", "--dirty", "--abbrev=12"),
    cpu: `${cpus().length} × ${cpus()[0].model}`,
    memory: `${Math.round(totalmem() / 2 ** 30)} GiB`,
    system: `${/PRETTY_NAME="(.*)"/.exec(readFileSync("/etc/os-release", "utf8"))?.[1]}, Linux ${release()}`,
    go: (await output("go", "version")).replace("go version ", ""),
    chromium: await version("chromium"),
    tigervnc: await version("tigervnc-standalone-server"),
    novnc: await version("novnc"),
    websockify: await version("websockify"),
    xvfb: await version("xvfb"),
    nginx: await version("nginx"),
    haproxy: await version("haproxy"),
  };
}

/** document with the measured part of this name replaced. */
export function replaced(document, name, text) {
  const begin = `<!-- ${name}: begin (written by make bench) -->`;
  const from = document.indexOf(begin);
  const to = document.indexOf(`<!-- ${name}: end -->`);
  if (from < 0 || to < from) {
    throw new Error(`docs/benchmarks.md has lost the markers of its part ${name}`);
  }
  return `${document.slice(0, from)}${begin}\n\n${text}\n${document.slice(to)}`;
}

/** The measured part about streaming. */
export function report({
  machine,
  count,
  starts,
  launches,
  keys,
  api,
  memory,
  loadBefore,
  loadAfter,
}) {
  const parts = [];
  parts.push(
    table(
      ["", ""],
      [
        ["commit", machine.commit],
        ["date", `${machine.date} UTC`],
        ["machine", `${machine.cpu}, ${machine.memory}, no GPU`],
        ["system", machine.system],
        ["load average before / after", `${loadBefore.toFixed(1)} / ${loadAfter.toFixed(1)}`],
        ["built with", machine.go],
        ["browser", `Chromium ${machine.chromium}, headless`],
        ["X server of a session", `xvfb ${machine.xvfb}`],
        [
          "peer",
          `TigerVNC ${machine.tigervnc}, noVNC ${machine.novnc}, websockify ${machine.websockify}`,
        ],
      ],
    ),
  );

  parts.push(
    `### Key to changed pixel\n\n${count.rounds} rounds of ${count.keys} keys each, in turns; milliseconds.`,
  );
  const rows = [];
  const names = [...new Set(keys.map(({ viewer }) => viewer))];
  const ends = {
    drawn: "painted in the viewer's canvas",
    frame: "in an animation frame of the page",
  };
  for (const mode of ["drawn", "frame"]) {
    const all = names.map((name) =>
      keys.filter((k) => k.viewer === name && k.mode === mode).flatMap(({ times }) => times),
    );
    names.forEach((name, i) => {
      const rounds = keys
        .filter((k) => k.viewer === name && k.mode === mode)
        .map(({ times }) => milliseconds(quantile(times, 0.5)));
      rows.push([
        ends[mode],
        name,
        ...[0.05, 0.5, 0.95, 0.99].map((share) => milliseconds(quantile(all[i], share))),
        rounds.join(", "),
      ]);
    });
    rows.push([
      "",
      `ratio ${names[0]} / ${names[1]}`,
      ...[0.05, 0.5, 0.95, 0.99].map((share) =>
        ratio(quantile(all[0], share), quantile(all[1], share)),
      ),
      "",
    ]);
  }
  parts.push(table(["pixel is", "viewer", "p5", "p50", "p95", "p99", "p50 of each round"], rows));

  parts.push(
    `### Starting\n\n${count.starts} starts, ${count.launches} launches; milliseconds.`,
    table(
      ["from → to", "fastest", "p50", "slowest"],
      [
        ["`penstock dev` on an empty folder → `ready`", ...spread(starts.fresh)],
        ["`penstock dev` on a folder that has its demo → `ready`", ...spread(starts.again)],
        ["click on an application in the portal → its first pixel", ...spread(launches)],
      ],
    ),
  );

  parts.push(
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
      api.map((r) => [
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
  );

  const pss = (processes) =>
    megabytes(processes.reduce((total, process) => total + process.pss, 0));
  parts.push(
    "### Memory\n\nMegabytes; PSS counts shared pages once.",
    table(
      ["what", "processes", "PSS", "RSS"],
      [
        [
          "`penstock dev` alone, idle",
          1,
          pss(memory.idle.slice(0, 1)),
          megabytes(memory.idle[0].rss),
        ],
        ["`penstock dev` with its warm instances, idle", memory.idle.length, pss(memory.idle), ""],
        [
          "`penstock dev` alone, one session streaming",
          1,
          pss(memory.busy.slice(0, 1)),
          megabytes(memory.busy[0].rss),
        ],
        ["the session, application included", memory.session.length, pss(memory.session), ""],
        ...memory.session.map((process) => [
          `— ${short(process.command)}`,
          "",
          pss([process]),
          megabytes(process.rss),
        ]),
        [
          "the peer: TigerVNC's X server, websockify, application",
          memory.peer.length,
          pss(memory.peer),
          "",
        ],
        ...memory.peer.map((process) => [
          `— ${short(process.command)}`,
          "",
          pss([process]),
          megabytes(process.rss),
        ]),
      ],
    ),
  );
  return `${parts.join("\n\n")}\n`;
}

export function table(head, rows) {
  const line = (cells) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

export function quantile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.round(share * (sorted.length - 1))];
}

function spread(values) {
  return [0, 0.5, 1].map((share) => milliseconds(quantile(values, share)));
}

function short(command) {
  const [program = "?", ...args] = command;
  const name = program.split("/").pop();
  const role =
    name === "penstock"
      ? args[0]
      : name.startsWith("python")
        ? args[0]?.split("/").pop()
        : undefined;
  return [name, role].filter(Boolean).join(" ");
}

export const milliseconds = (value) => (value < 100 ? value.toFixed(1) : value.toFixed(0));
const megabytes = (kilobytes) => (kilobytes / 1000).toFixed(1);
const ratio = (a, b) => `${(a / b).toFixed(2)}×`;
