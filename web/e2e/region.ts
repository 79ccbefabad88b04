import { type ChildProcess, execFile, spawn } from "node:child_process";
import {
  chmodSync,
  chownSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const run = promisify(execFile);
const patience = 60_000;
const binary =
  process.env["PENSTOCK_BIN"] ?? fileURLToPath(new URL("../../bin/penstock", import.meta.url));

/** The part of dev.json that the tests use. */
export interface Dev {
  apiUrl: string;
  publicUrl: string;
  region: string;
  accountId: string;
  stackName: string;
  fleetName: string;
  vpcId: string;
  vpcEndpointId: string;
  dnsAddr: string;
  streamingUrl: string;
  userNetworks: { cidr: string; dial: string }[];
  endpointAddresses: { subnetId: string; private: string; dial: string }[];
  /** The root certificate, when TLS is on. */
  caBundle?: string;
}

export interface SessionView {
  id: string;
  userId: string;
  state: string;
  connectionState: string;
  endpointId: string;
  display?: string;
  xauthority?: string;
}

export interface RegionOptions {
  /** What goes before every command: "nsenter", "--net=…" runs all in a network namespace. */
  within?: string[];
  /** IP:PORT of the portal; a free port of 127.0.0.1 by default. */
  publicAddr?: string;
  /** The ID of the user that everything runs as; needs root. */
  user?: number;
}

/** A running `penstock dev` on a data folder of its own. */
export class Region {
  readonly #data = mkdtempSync(join(tmpdir(), "penstock-web-"));
  readonly #within: string[];
  readonly #publicAddr: string | undefined;
  #process: ChildProcess | undefined;
  #log = "";
  dev!: Dev;

  readonly #user: number | undefined;

  constructor(options: RegionOptions = {}) {
    this.#within = options.within ?? [];
    this.#user = options.user;
    if (this.#user !== undefined) {
      chownSync(this.#data, this.#user, this.#user);
      this.#within.push("setpriv", `--reuid=${this.#user}`, `--regid=${this.#user}`);
      // Instances put their folders into one that goes with the data.
      this.#within.push("--clear-groups", "env", `TMPDIR=${this.#data}`, `HOME=${this.#data}`);
    }
    this.#publicAddr = options.publicAddr;
  }

  /** A program of ours or of the machine, where the server runs. */
  #command(program: string, ...args: string[]): [string, string[]] {
    const [first = program, ...rest] = [...this.#within, program, ...args];
    return [first, rest];
  }

  /** The binary, where the user may execute it. */
  #binary(): string {
    if (this.#user === undefined) {
      return binary;
    }
    const copy = join(this.#data, "penstock");
    if (!existsSync(copy)) {
      copyFileSync(binary, copy);
      chmodSync(copy, 0o755);
    }
    return copy;
  }

  async start(...args: string[]): Promise<void> {
    if (!existsSync(binary)) {
      throw new Error(`no binary at ${binary}: run make build, or set PENSTOCK_BIN`);
    }
    const ports = await Promise.all([freePort(), freePort()]);
    const [program, line] = this.#command(
      this.#binary(),
      "dev",
      "--data-dir",
      this.#data,
      "--api-addr",
      `127.0.0.1:${ports[0]}`,
      "--public-addr",
      this.#publicAddr ?? `127.0.0.1:${ports[1]}`,
      ...args,
    );
    const child = spawn(program, line);
    this.#process = child;
    child.stderr.on("data", (text) => {
      this.#log += text;
    });
    await new Promise<void>((resolve, reject) => {
      let said = "";
      const timer = setTimeout(
        () => reject(new Error(`penstock dev is not ready\n${this.#log}`)),
        patience,
      );
      child.once("exit", () => reject(new Error(`penstock dev ended\n${this.#log}`)));
      child.stdout.on("data", (text) => {
        said += text;
        if (/^ready$/m.test(said)) {
          clearTimeout(timer);
          resolve();
        }
      });
    });
    this.dev = JSON.parse(readFileSync(join(this.#data, "dev.json"), "utf8")) as Dev;
  }

  /** Ends the server with SIGTERM and removes its data. */
  async stop(): Promise<void> {
    const child = this.#process;
    if (child !== undefined && child.exitCode === null) {
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), 15_000);
      await ended;
      clearTimeout(timer);
    }
    rmSync(this.#data, { recursive: true, force: true });
  }

  /** Runs Debian's AWS CLI and returns what it prints. */
  async aws(...args: string[]): Promise<unknown> {
    const { stdout } = await run(
      ...this.#command(
        "/usr/bin/aws",
        "--endpoint-url",
        this.dev.apiUrl,
        "--output",
        "json",
        ...args,
      ),
      {
        timeout: patience,
        env: {
          ...process.env,
          AWS_SHARED_CREDENTIALS_FILE: join(this.#data, "aws/credentials"),
          AWS_CONFIG_FILE: join(this.#data, "aws/config"),
          AWS_EC2_METADATA_DISABLED: "true",
          AWS_PAGER: "",
          ...(this.dev.caBundle === undefined ? {} : { AWS_CA_BUNDLE: this.dev.caBundle }),
        },
      },
    );
    return stdout.trim() === "" ? undefined : JSON.parse(stdout);
  }

  /** A streaming URL of the demo's stack for a user, perhaps with an application. */
  async streamingUrl(user: string, application?: string): Promise<string> {
    const { stackName, fleetName } = this.dev;
    const answer = (await this.aws(
      "appstream",
      "create-streaming-url",
      "--stack-name",
      stackName,
      "--fleet-name",
      fleetName,
      "--user-id",
      user,
      ...(application === undefined ? [] : ["--application-id", application]),
    )) as { StreamingURL: string };
    return answer.StreamingURL;
  }

  /** Has the root trusted by programs that take `home` for their home folder, by their NSS store alone. */
  async trust(home: string): Promise<void> {
    await run(binary, ["trust", "--install", "--store", "nss", "--data-dir", this.#data], {
      timeout: patience,
      env: { ...process.env, HOME: home },
    });
  }

  async sessions(): Promise<SessionView[]> {
    const { stdout } = await run(binary, ["sessions", "--json", "--data-dir", this.#data]);
    return JSON.parse(stdout) as SessionView[];
  }

  /** The newest mail to a user, as the server wrote it for the operator; waits until it is there. */
  async mailTo(user: string, count = 1): Promise<string> {
    const folder = join(this.#data, "mail");
    for (let left = patience; left > 0; left -= 50) {
      const names = existsSync(folder) ? readdirSync(folder).filter((n) => n.endsWith(".eml")) : [];
      const mails = names
        .sort()
        .map((name) => readFileSync(join(folder, name), "utf8").replace(/=\r?\n/g, ""))
        .filter((text) => text.includes(`To: <${user}>`));
      if (mails.length >= count) {
        return mails.at(-1) ?? "";
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error(`${user} got no mail\n${this.#log}`);
  }

  /** The user's live session. */
  async sessionOf(user: string): Promise<SessionView> {
    const found = (await this.sessions()).find((s) => s.userId === user && s.state === "ACTIVE");
    if (found === undefined) {
      throw new Error(`${user} has no session`);
    }
    return found;
  }

  /** What the X server of a session shows, as rows of R, G, B bytes, by X11's own tools. */
  async screen(session: SessionView): Promise<Buffer> {
    const { stdout } = await run("sh", ["-c", "xwd -silent -root | convert xwd:- -depth 8 rgb:-"], {
      encoding: "buffer",
      maxBuffer: 256 << 20,
      timeout: patience,
      env: x11(session),
    });
    return stdout;
  }

  /** Runs an X11 tool on the session's display. */
  async x(session: SessionView, program: string, ...args: string[]): Promise<string> {
    const { stdout } = await run(program, args, { timeout: patience, env: x11(session) });
    return stdout;
  }
}

function x11(session: SessionView): NodeJS.ProcessEnv {
  return {
    ...process.env,
    DISPLAY: session.display ?? "",
    XAUTHORITY: session.xauthority ?? "",
  };
}

export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address ? address.port : 0));
    });
  });
}
