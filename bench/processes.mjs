// Starts programs, ends exactly those, and reads what processes hold of memory, used of the processor and carried over TCP.
import { execFileSync, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const running = new Set();
const folders = new Set();

/** A new folder for what programs write, removed with removeFolder or at the end. */
export function temporaryFolder(name) {
  const folder = mkdtempSync(join(tmpdir(), `penstock-bench-${name}-`));
  folders.add(folder);
  return folder;
}

export function removeFolder(folder) {
  folders.delete(folder);
  rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
}

/** Starts a program in a process group of its own; what it writes is kept for error messages. */
export function start(program, args, options = {}) {
  const child = spawn(program, args, {
    ...options,
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const process = { child, name: program, output: "", pid: child.pid };
  const keep = (chunk) => {
    process.output = (process.output + chunk).slice(-20_000);
    process.onoutput?.();
  };
  child.stdout.setEncoding("utf8").on("data", keep);
  child.stderr.setEncoding("utf8").on("data", keep);
  process.ended = new Promise((resolve) => {
    child.on("error", (error) => {
      process.output += error.message;
      resolve();
    });
    child.on("exit", resolve);
  });
  process.ended.then(() => running.delete(process));
  running.add(process);
  return process;
}

/** Ends a program and its process group: politely, then not. */
export async function stop(process) {
  if (!running.has(process)) {
    return;
  }
  signal(process, "SIGTERM");
  const late = setTimeout(() => signal(process, "SIGKILL"), 8000);
  await process.ended;
  clearTimeout(late);
  signal(process, "SIGKILL"); // what the group may have left
}

function signal(process, name) {
  try {
    globalThis.process.kill(-process.pid, name);
  } catch {
    // nobody left in the group
  }
}

/** Ends everything that was started here and still runs, and removes what folders are left. */
export async function stopAll() {
  await Promise.all([...running].reverse().map(stop));
  for (const folder of folders) {
    removeFolder(folder);
  }
}

/** Waits until the program wrote text; gives up with what it wrote. */
export function wrote(process, text, milliseconds = 30_000) {
  return within(
    milliseconds,
    () => `${process.name} did not write ${JSON.stringify(text)}:\n${process.output}`,
    new Promise((resolve, reject) => {
      process.onoutput = () => {
        if (process.output.includes(text)) {
          resolve();
        }
      };
      process.onoutput();
      process.ended.then(() => reject(new Error(`${process.name} ended:\n${process.output}`)));
    }),
  );
}

/** Calls check until it gives a value that is not undefined. */
export async function until(what, check, milliseconds = 30_000) {
  const end = performance.now() + milliseconds;
  for (;;) {
    const value = await check();
    if (value !== undefined) {
      return value;
    }
    if (performance.now() > end) {
      throw new Error(`no ${what} within ${milliseconds} ms`);
    }
    await pause(20);
  }
}

/** The promise's value, or an error when it takes too long. */
export function within(milliseconds, message, promise) {
  let late;
  const limit = new Promise((_, reject) => {
    late = setTimeout(
      () => reject(new Error(typeof message === "string" ? message : message())),
      milliseconds,
    );
  });
  return Promise.race([promise, limit]).finally(() => clearTimeout(late));
}

export function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** A TCP port of 127.0.0.1 that nobody listens on. */
export function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** pid, parent, name and proportional memory (PSS, kB) of every process below pid, itself first. */
export function family(pid) {
  const children = new Map();
  for (const entry of readdirSync("/proc")) {
    if (!/^\d+$/.test(entry)) {
      continue;
    }
    try {
      const stat = readFileSync(`/proc/${entry}/stat`, "utf8");
      const parent = Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]);
      children.set(parent, [...(children.get(parent) ?? []), Number(entry)]);
    } catch {
      // it ended meanwhile
    }
  }
  const found = [];
  const visit = (id) => {
    const member = memory(id);
    if (member !== undefined) {
      found.push(member);
    }
    for (const child of children.get(id) ?? []) {
      visit(child);
    }
  };
  visit(pid);
  return found;
}

/** pid, command and memory of one process, undefined when it has ended. */
export function memory(pid) {
  try {
    const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, "utf8");
    const kilobytes = (name) =>
      Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(rollup)?.[1] ?? 0);
    const command = readFileSync(`/proc/${pid}/cmdline`, "utf8")
      .split("\0")
      .filter((word) => word !== "");
    return { pid, command, rss: kilobytes("Rss"), pss: kilobytes("Pss") };
  } catch {
    return undefined;
  }
}

/** Milliseconds of processor time, user and system, that each of the processes used so far, waited-for children included. */
export function processorTime(pids) {
  const times = new Map();
  for (const pid of pids) {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      const ticks = fields.slice(11, 15).reduce((total, field) => total + Number(field), 0);
      times.set(pid, ticks * 10); // USER_HZ is 100 on Linux
    } catch {
      // it ended meanwhile
    }
  }
  return times;
}

/** Milliseconds between two readings; a process that is in the later one only counts whole. */
export function processorTimeBetween(earlier, later) {
  let total = 0;
  for (const [pid, time] of later) {
    total += time - (earlier.get(pid) ?? 0);
  }
  return total;
}

/** Bytes of TCP payload that the processes' connections carried so far, { in, out } by connection. */
export function carried(pids) {
  const wanted = new Set(pids.map(String));
  const output = execFileSync("ss", ["-tinpHO"], { encoding: "utf8", maxBuffer: 64 << 20 });
  const connections = new Map();
  for (const line of output.split("\n")) {
    const owners = [...line.matchAll(/pid=(\d+)/g)].map(([, pid]) => pid);
    if (!owners.some((pid) => wanted.has(pid))) {
      continue;
    }
    const [, , , local, remote] = line.trim().split(/\s+/);
    const bytes = (name) => Number(new RegExp(`${name}:(\\d+)`).exec(line)?.[1] ?? 0);
    connections.set(`${local} ${remote}`, {
      in: bytes("bytes_received"),
      out: bytes("bytes_acked"),
    });
  }
  return connections;
}

/** Bytes carried between two readings; what a connection that has ended carried after the earlier one is lost. */
export function carriedBetween(earlier, later) {
  const total = { in: 0, out: 0 };
  for (const [connection, bytes] of later) {
    const before = earlier.get(connection) ?? { in: 0, out: 0 };
    total.in += bytes.in - before.in;
    total.out += bytes.out - before.out;
  }
  return total;
}

/** A display number that no X server of this machine uses. */
export function freeDisplay() {
  const taken = new Set(readdirSync("/tmp/.X11-unix"));
  let display = 50 + (globalThis.process.pid % 400);
  while (taken.has(`X${display}`)) {
    display++;
  }
  return display;
}
