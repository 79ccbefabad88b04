// Measures the network: the relay beside nginx and HAProxy, endpoints and rules through the API, the kernel driver, the name server.
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { family, freePort, start, stop, until, wrote } from "./processes.mjs";

const run = promisify(execFile);

// Every relay: TLS 1.3, TLS_AES_128_GCM_SHA256, P-256, the same kind of certificate, the agent on a unix socket, one thread of work where
// that can be said. All else is the program's or Debian's default.
const nginxConfig = ({ directory, port, limit }) => `
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile ${limit};
pid ${directory}/nginx.pid;
error_log stderr warn;
events { worker_connections ${limit}; }
stream {
  server {
    listen 127.0.0.1:${port} ssl backlog=4096;
    ssl_certificate ${directory}/cert.pem;
    ssl_certificate_key ${directory}/key.pem;
    ssl_protocols TLSv1.3;
    ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
    ssl_ecdh_curve prime256v1;
    proxy_timeout 1h;
    proxy_pass unix:${directory}/agent;
  }
}
`;

const haproxyConfig = ({ directory, port, limit }) => `
global
  nbthread 1
  maxconn ${Math.floor((limit - 50) / 2)}
  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-bind-curves P-256
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend viewers
  bind 127.0.0.1:${port} ssl crt ${directory}/both.pem
  default_backend agents
backend agents
  server agent unix@${directory}/agent
`;

/** Runs all; programs is the folder with what bench/ builds, binary is bin/penstock. */
export async function network({ root, programs, binary, rounds, seconds }) {
  if (process.getuid() !== 0) {
    throw new Error("the network is measured in namespaces: run `make bench` as root");
  }
  const directory = mkdtempSync(join(tmpdir(), "penstock-bench-network-"));
  try {
    console.log("endpoints and rules");
    const { stdout } = await run(
      join(programs, "endpoints"),
      ["-binary", binary, "-rounds", String(4 * rounds)],
      { timeout: 120_000, killSignal: "SIGTERM" },
    );
    console.log("kernel network and name server");
    const kernel = await benchmark(
      root,
      "./internal/hostnet/kernel",
      "^Benchmark(Connect|Throughput)$",
      rounds,
    );
    const names = await benchmark(root, "./internal/nameserver", "AnswersOverUDP", rounds);
    const relays = await measureRelays({ directory, programs, rounds, seconds });
    return { rounds, relays, endpoints: JSON.parse(stdout), kernel, names };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function measureRelays({ directory, programs, rounds, seconds }) {
  const limit = Number((await run("bash", ["-c", "ulimit -Hn"])).stdout) || 1_000_000;
  const gateway = async (name, ...more) => {
    const own = join(directory, name.replace(/\W/g, "-"));
    mkdirSync(own);
    const running = start(join(programs, "gateway"), [
      ...["-agent", join(directory, "agent"), "-dir", own],
      ...more,
    ]);
    await wrote(running, "\n");
    return {
      name,
      running,
      directory: own,
      pid: running.pid,
      address: running.output.split(/\s/)[1],
    };
  };
  const other = async (name, program, args, config, first) => {
    const port = await freePort();
    const file = join(directory, `${name}.conf`);
    writeFileSync(
      file,
      config({ directory: first.directory, port, limit }).replaceAll(
        `${first.directory}/agent`,
        join(directory, "agent"),
      ),
    );
    const running = start(program, [...args, file]);
    const pid = await until(`worker of ${name}`, () => {
      const members = family(running.pid).map((p) => p.pid);
      return name === "nginx" ? members[1] : members[0];
    });
    const address = `127.0.0.1:${port}`;
    await until(`${name} at ${address}: ${running.output}`, async () =>
      run(join(programs, "channels"), [
        "ping",
        "-address",
        address,
        "-dir",
        first.directory,
        "-duration",
        "1ms",
      ]).then(
        () => true,
        () => undefined,
      ),
    );
    return { name, running, directory: first.directory, pid, address };
  };
  const start3 = async () => {
    const penstock = await gateway("Penstock");
    return [
      penstock,
      await other("nginx", "/usr/sbin/nginx", ["-p", directory, "-c"], nginxConfig, penstock),
      await other("HAProxy", "/usr/sbin/haproxy", ["-db", "-f"], haproxyConfig, penstock),
    ];
  };
  const end = async (all) => {
    await Promise.all(all.map(({ running }) => stop(running)));
    rmSync(all[0].directory, { recursive: true, force: true });
  };
  const ask = async (relay, what, ...more) => {
    const { stdout } = await run(
      join(programs, "channels"),
      [
        what,
        "-address",
        relay.address,
        "-dir",
        relay.directory,
        "-pid",
        String(relay.pid),
        ...more,
      ],
      { timeout: 120_000 },
    );
    return JSON.parse(stdout);
  };

  const agent = start(join(programs, "channels"), ["agent", "-socket", join(directory, "agent")]);
  await wrote(agent, "ready");
  console.log("relays under load");
  let all = await start3();
  const plain = await gateway("plain", "-plain");
  const results = Object.fromEntries(
    all.map(({ name }) => [
      name,
      { down: [], many: [], up: [], ping: [], loaded: [], connect: [] },
    ]),
  );
  results.plain = { down: [] };
  const duration = ["-duration", `${seconds}s`];
  for (let round = 0; round < rounds; round++) {
    // Whoever comes first changes from round to round.
    for (const relay of [...all.slice(round % 3), ...all.slice(0, round % 3)]) {
      const into = results[relay.name];
      into.down.push(await ask(relay, "bulk", ...duration));
      into.many.push(await ask(relay, "bulk", "-connections", "8", ...duration));
      into.up.push(await ask(relay, "bulk", "-up", ...duration));
      into.ping.push(await ask(relay, "ping", ...duration));
      const load = ask(relay, "bulk", "-connections", "2", ...duration);
      into.loaded.push(await ask(relay, "ping", "-duration", `${seconds / 2}s`));
      await load;
      into.connect.push(await ask(relay, "connect", ...duration));
    }
    results.plain.down.push(await ask(plain, "bulk", "-plain", ...duration));
  }
  await end([plain]);
  await end(all);

  console.log("idle connections");
  const connections = Math.min(10_000, Math.floor((limit - 100) / 2));
  all = await start3();
  for (const relay of all) {
    results[relay.name].idle = await ask(relay, "idle", "-connections", String(connections));
  }
  await end(all);
  await stop(agent);
  return results;
}

/** The metrics of Go benchmarks: name → unit → values. */
async function benchmark(root, directory, pattern, count) {
  const { stdout } = await run(
    "go",
    [
      "test",
      "-run",
      "^$",
      "-bench",
      pattern,
      "-benchtime",
      "300ms",
      "-count",
      String(count),
      directory,
    ],
    { cwd: root, timeout: 180_000, maxBuffer: 1 << 24 },
  );
  const found = {};
  for (const [, name, rest] of stdout.matchAll(/^Benchmark(\S+?)-\d+\s+\d+\s+(.*)$/gm)) {
    for (const [, value, unit] of rest.matchAll(/([\d.]+) (\S+)/g)) {
      found[name] ??= {};
      found[name][unit] ??= [];
      found[name][unit].push(Number(value));
    }
  }
  return found;
}
