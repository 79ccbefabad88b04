// What the reports of all measured parts of docs/benchmarks.md have in common.
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
    x11vnc: await version("x11vnc"),
    xpra: await version("xpra"),
    xterm: await version("xterm"),
    openh264: await version("libopenh264-7"),
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

/** What every measured part begins with; more are rows of its own. */
export function heading({ machine, loadBefore, loadAfter, minutes }, ...more) {
  return table(
    ["", ""],
    [
      ["commit", machine.commit],
      ["date", `${machine.date} UTC, in ${minutes.toFixed(1)} minutes`],
      ["machine", `${machine.cpu}, ${machine.memory}, no GPU`],
      ["system", machine.system],
      ["load average before / after", `${loadBefore.toFixed(1)} / ${loadAfter.toFixed(1)}`],
      ["built with", machine.go],
      ...more,
    ],
  );
}

/** The same for parts without a browser. */
export function plainHeading({ machine, loadBefore, loadAfter }, ...more) {
  return table(
    ["", ""],
    [
      ["commit", machine.commit],
      ["date", `${machine.date} UTC`],
      ["machine", `${machine.cpu}, ${machine.memory}`],
      ["system", machine.system],
      ["load average before / after", `${loadBefore.toFixed(1)} / ${loadAfter.toFixed(1)}`],
      ...more,
    ],
  );
}

export function table(head, rows) {
  const line = (cells) => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}

export function quantile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.round(share * (sorted.length - 1))];
}

export const milliseconds = (value) => (value < 100 ? value.toFixed(1) : value.toFixed(0));
export const ratio = (a, b) => `${(a / b).toFixed(2)}×`;
