// Measures Penstock beside its peers and writes the measured part of docs/benchmarks.md. Run it with `make bench`.
//
//   node bench/run.mjs [streaming] [api] [network] [links] [--quick] [--only idle,press] [--viewers Penstock,Xpra] [--seconds 5] [--profile FOLDER]
//
// Without names of parts all are measured; the page keeps what it says of the others. --quick takes a few samples of everything and
// --only and --viewers take some scenarios and viewers of streaming: all three print what they found and leave the page alone. --profile has
// streaming write to FOLDER a trace of the browser while it opens a session, and processor profiles (pprof) of the server and of each
// agent over the whole run, and adds what they say of the opening to the report; profiles slow down, so figures with it do not count.
import { execFile } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { loadavg } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { api } from "./api.mjs";
import { apiReport } from "./api_report.mjs";
import { links, linksReport } from "./links.mjs";
import { network } from "./network.mjs";
import { networkReport } from "./network_report.mjs";
import { stopAll, temporaryFolder } from "./processes.mjs";
import { machine, replaced } from "./report.mjs";
import { streaming } from "./streaming.mjs";
import { streamingReport } from "./streaming_report.mjs";

const run = promisify(execFile);
const root = fileURLToPath(new URL("..", import.meta.url));
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    quick: { type: "boolean", default: false },
    only: { type: "string" },
    viewers: { type: "string" },
    profile: { type: "string" },
    seconds: { type: "string", default: "5" },
    output: { type: "string", default: join(root, "docs/benchmarks.md") },
  },
});

const programs = temporaryFolder("programs");
const binary = join(root, "bin/penstock");
const parts = {
  streaming: {
    measure: () =>
      streaming({
        root,
        programs,
        isQuick: values.quick,
        only: values.only?.split(","),
        viewers: values.viewers?.split(","),
        profiles: profileFolder(),
      }),
    render: streamingReport,
  },
  api: {
    measure: () => api({ programs, binary, seconds: values.quick ? 1 : Number(values.seconds) }),
    render: apiReport,
  },
  network: {
    measure: () => network({ root, programs, binary, rounds: values.quick ? 1 : 3, seconds: 1.5 }),
    render: networkReport,
  },
  links: {
    measure: () => links({ programs, seconds: values.quick ? 1 : Number(values.seconds) }),
    render: linksReport,
  },
};

/** The folder of --profile, made if need be. */
function profileFolder() {
  if (values.profile === undefined) {
    return undefined;
  }
  mkdirSync(values.profile, { recursive: true });
  return resolve(values.profile);
}

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
    const loadBefore = loadavg()[0];
    const began = performance.now();
    const results = {
      ...(await measure()),
      machine: await machine(root),
      loadBefore,
      loadAfter: loadavg()[0],
      minutes: (performance.now() - began) / 60_000,
    };
    const text = render(results);
    console.log(text);
    if (results.failures?.length > 0) {
      process.exitCode = 1;
    }
    if (
      values.quick ||
      values.only !== undefined ||
      values.viewers !== undefined ||
      values.profile !== undefined
    ) {
      continue;
    }
    writeFileSync(values.output, replaced(readFileSync(values.output, "utf8"), name, text));
    console.log(`wrote what was measured of ${name} to ${values.output}`);
  }
}

for (const name of ["SIGINT", "SIGTERM"]) {
  process.once(name, () => stopAll().finally(() => process.exit(1)));
}
try {
  await main();
} finally {
  await stopAll();
}
