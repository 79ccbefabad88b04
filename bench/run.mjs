// Measures Penstock beside its peer and writes the measured part of docs/benchmarks.md. Run it with `make bench`.
//
//   node bench/run.mjs [streaming] [network] [links] [--keys 200] [--rounds 3] [--launches 5] [--starts 10] [--seconds 5]
//
// Without names of parts all are measured; the page keeps what it says of the others.
import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { launch } from "./browser.mjs";
import { keys } from "./latency.mjs";
import { links, linksReport } from "./links.mjs";
import { network } from "./network.mjs";
import { networkReport } from "./network_report.mjs";
import { Region } from "./penstock.mjs";
import { pause, stopAll } from "./processes.mjs";
import { machine, replaced, report } from "./report.mjs";
import { openVnc } from "./vnc.mjs";

const run = promisify(execFile);
const root = fileURLToPath(new URL("..", import.meta.url));
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    keys: { type: "string", default: "200" },
    rounds: { type: "string", default: "3" },
    launches: { type: "string", default: "5" },
    starts: { type: "string", default: "10" },
    seconds: { type: "string", default: "5" },
    output: { type: "string", default: join(root, "docs/benchmarks.md") },
  },
});
const count = Object.fromEntries(
  ["keys", "rounds", "launches", "starts", "seconds"].map((name) => [name, Number(values[name])]),
);

const programs = mkdtempSync(join(tmpdir(), "penstock-bench-programs-"));
const regions = [];
let browser;

const binary = join(root, "bin/penstock");
const parts = {
  streaming: { measure: streaming, render: report },
  network: {
    measure: async () => {
      const loadBefore = loadavg()[0];
      const results = await network({ root, programs, binary, rounds: count.rounds, seconds: 1.5 });
      return { ...results, machine: await machine(root), loadBefore, loadAfter: loadavg()[0] };
    },
    render: networkReport,
  },
  links: {
    measure: async () => {
      const loadBefore = loadavg()[0];
      const results = await links({ programs, seconds: count.seconds });
      return { ...results, machine: await machine(root), loadBefore, loadAfter: loadavg()[0] };
    },
    render: linksReport,
  },
};

async function main() {
  for (const name of positionals) {
    if (parts[name] === undefined) {
      throw new Error(`there is no part ${name}; there are ${Object.keys(parts).join(", ")}`);
    }
  }
  await run("go", ["build", "-o", `${programs}/`, "./bench/..."], {
    cwd: root,
    env: { ...process.env, CGO_ENABLED: "0" },
  });
  await run("chmod", ["-R", "a+rX", programs]); // instances run under uids of their own
  for (const name of positionals.length > 0 ? positionals : Object.keys(parts)) {
    const { measure, render } = parts[name];
    const results = await measure();
    const document = readFileSync(values.output, "utf8");
    writeFileSync(values.output, replaced(document, name, render(results)));
    console.log(`wrote what was measured of ${name} to ${values.output}`);
  }
}

async function streaming() {
  const flipper = join(programs, "flipper");
  const apiload = join(programs, "apiload");
  const results = { count, machine: await machine(root), loadBefore: loadavg()[0] };

  console.log("start to ready");
  results.starts = { fresh: [], again: [] };
  for (let i = 0; i < count.starts; i++) {
    const region = newRegion(binary, flipper);
    results.starts.fresh.push(await region.start());
    await region.stop();
    results.starts.again.push(await region.start());
    await region.stop();
    region.remove();
  }

  const region = newRegion(binary, flipper);
  await region.start();
  await region.warm();
  await pause(2000);
  results.memory = { idle: region.processes() };

  browser = await launch();
  const context = await browser.newContext({
    viewport: { width: 1400, height: 900 },
    ignoreHTTPSErrors: true,
  });
  console.log("click to first pixel");
  results.launches = [];
  for (let i = 0; i < count.launches; i++) {
    await region.warm();
    const session = await region.open(context, `launch-${i}`);
    results.launches.push(session.milliseconds);
    await session.close();
  }

  await region.warm();
  const session = await region.open(context, "keys");
  await region.warm();
  await pause(2000);
  results.memory.busy = region.processes();
  results.memory.session = await region.sessionProcesses("keys");

  console.log("key to changed pixel");
  const peer = await openVnc(context, flipper, 1280, 720);
  results.memory.peer = peer.processes();
  results.keys = [];
  for (let round = 0; round < count.rounds; round++) {
    for (const mode of ["drawn", "frame"]) {
      // Whoever comes first changes from round to round.
      const order = round % 2 === 0 ? [session, peer] : [peer, session];
      for (const viewer of order) {
        const times = await keys(viewer.page, viewer.canvas, mode, count.keys);
        results.keys.push({ viewer: viewer.name, mode, round, times });
      }
    }
  }
  await peer.close();
  await session.close();

  console.log("API");
  results.api = [];
  for (const sessions of [0, 10_000]) {
    const { stackName, fleetName } = region.dev;
    if (sessions > 0) {
      await region.stop();
      await run(join(programs, "storefill"), [
        ...["-data-dir", region.data, "-sessions", String(sessions)],
        ...["-stack", stackName, "-fleet", fleetName],
      ]);
      await region.start();
      await region.warm();
    }
    const { key, secret } = region.credentials();
    for (const clients of [1, 8]) {
      const { stdout } = await run(
        apiload,
        [
          ...["-url", region.dev.apiUrl, "-region", region.dev.region, "-key", key],
          ...["-stack", stackName, "-fleet", fleetName],
          ...["-clients", String(clients), "-duration", `${count.seconds}s`],
        ],
        { env: { ...process.env, APILOAD_SECRET: secret } },
      );
      const lines = stdout.trim().split("\n");
      results.api.push(...lines.map((line) => ({ sessions, ...JSON.parse(line) })));
    }
  }
  results.loadAfter = loadavg()[0];
  await region.stop();
  region.remove();
  return results;
}

function newRegion(binary, flipper) {
  const region = new Region(binary, flipper);
  regions.push(region);
  return region;
}

async function cleanUp() {
  await browser?.close();
  await stopAll();
  for (const region of regions) {
    region.remove();
  }
  rmSync(programs, { recursive: true, force: true });
}

for (const name of ["SIGINT", "SIGTERM"]) {
  process.once(name, () => cleanUp().finally(() => process.exit(1)));
}
try {
  await main();
} finally {
  await cleanUp();
}
