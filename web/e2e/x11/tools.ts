import { type ChildProcessWithoutNullStreams, execFile, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { SessionView } from "../region.ts";

const run = promisify(execFile);
const patience = 30_000;

/** One level of a key, as keyboard.c prints it. */
export interface Level {
  /** The keysym's name. */
  sym: string;
  /** Empty for dead keys and keys that make nothing. */
  text: string;
  /** What the next key makes of a dead key. */
  dead: { key: string; shift: boolean; text: string }[];
}

export interface LayoutKey {
  /** XKB's name of the place, like AD01. */
  key: string;
  /** Plain, Shift, AltGr, Shift+AltGr; two when the layout has no AltGr. */
  levels: Level[];
}

/** What the reader's window got. */
export type Seen =
  | { t: "down"; code: number; state: number; sym: string; text: string }
  | { t: "up"; code: number; state: number; sym: string }
  | { t: "press" | "release"; button: number; x: number; y: number }
  | { t: "move"; x: number; y: number }
  | { t: "ready" | "mapping" }
  | { t: "mark"; n: number };

/** The C programs beside this file, compiled into a folder of their own. */
export class X11Tools {
  readonly #folder = mkdtempSync(join(tmpdir(), "penstock-x11-"));

  async build(): Promise<void> {
    const source = (name: string) => fileURLToPath(new URL(name, import.meta.url));
    const compile = (name: string, library: string) =>
      run("gcc", ["-O1", "-Wall", "-o", join(this.#folder, name), source(`${name}.c`), library], {
        timeout: patience,
      });
    await Promise.all([compile("keyboard", "-lxkbcommon"), compile("reader", "-lX11")]);
  }

  remove(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async layout(name: string, variant = ""): Promise<LayoutKey[]> {
    const { stdout } = await run(join(this.#folder, "keyboard"), [name, variant], {
      timeout: patience,
      maxBuffer: 16 << 20,
    });
    return stdout
      .split("\n")
      .filter(Boolean)
      .map((line) => JSON.parse(line) as LayoutKey);
  }

  /** Starts the reader on a session's display; it covers the screen and has the focus. */
  async read(session: SessionView): Promise<Reader> {
    const reader = new Reader(
      spawn(join(this.#folder, "reader"), {
        env: {
          ...process.env,
          DISPLAY: session.display ?? "",
          XAUTHORITY: session.xauthority ?? "",
        },
      }),
    );
    await reader.until(() => reader.seen.some(({ t }) => t === "ready"), "the focus");
    return reader;
  }
}

/** A running reader.c. */
export class Reader {
  readonly seen: Seen[] = [];
  readonly #child: ChildProcessWithoutNullStreams;
  #rest = "";
  #marks = 0;
  #wake: () => void = () => {};
  #ended = false;

  constructor(child: ChildProcessWithoutNullStreams) {
    this.#child = child;
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      const lines = (this.#rest + text).split("\n");
      this.#rest = lines.pop() ?? "";
      for (const line of lines) {
        this.seen.push(JSON.parse(line) as Seen);
      }
      this.#wake();
    });
    child.stdin.on("error", () => {});
    child.once("exit", () => {
      this.#ended = true;
      this.#wake();
    });
  }

  /** Waits until what was seen fulfils the condition. */
  async until(condition: () => boolean, what: string): Promise<void> {
    const end = performance.now() + patience;
    while (!condition()) {
      if (this.#ended || performance.now() > end) {
        const tail = JSON.stringify(this.seen.slice(-20));
        throw new Error(
          `${this.#ended ? "reader ended" : "timed out"} before ${what}; saw ${tail}`,
        );
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 200);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  command(line: string): void {
    this.#child.stdin.write(`${line}\n`);
  }

  /** Waits until all that the X server has sent so far was seen. */
  async settle(): Promise<void> {
    const n = ++this.#marks;
    this.command(`mark ${n}`);
    await this.until(() => this.seen.some((s) => s.t === "mark" && s.n === n), "the mark");
  }

  /** What was typed since the last call of clear, as one text. */
  text(): string {
    return this.seen
      .map((s) => (s.t === "down" ? Buffer.from(s.text, "hex").toString("utf8") : ""))
      .join("");
  }

  downs() {
    return this.seen.filter((s) => s.t === "down");
  }

  clear(): void {
    this.seen.length = 0;
  }

  stop(): void {
    this.#child.stdin.end();
    this.#child.kill("SIGTERM");
  }
}
