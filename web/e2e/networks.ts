// Network namespaces for tests: one where the server runs, which is the router of the network of users, and one where a user is.
// Nothing of the machine's own network changes, and nothing leaves the machine.
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { promisify } from "node:util";

const run = promisify(execFile);

/** What keeps this machine from making namespaces; undefined when nothing does. */
export function namespacesMissing(): string | undefined {
  if (process.getuid?.() !== 0) {
    return "network namespaces need root";
  }
  return existsSync("/usr/sbin/ip") || existsSync("/sbin/ip") ? undefined : "needs ip (iproute2)";
}

/** The namespaces of a test, with names of its own. */
export class Networks {
  readonly #id = randomBytes(3).toString("hex");
  readonly server = `psk-e2e-${this.#id}-s`;
  readonly user = `psk-e2e-${this.#id}-u`;
  /** The server's end of the link to the user. */
  readonly link = `psu${this.#id}`;

  /** Makes both; publicAddr is an address of the server that nothing outside the namespaces knows. */
  async make(publicAddr: string): Promise<void> {
    for (const ns of [this.server, this.user]) {
      await ip("netns", "add", ns);
      await ip("-n", ns, "link", "set", "lo", "up");
    }
    await ip("-n", this.server, "addr", "add", `${publicAddr}/32`, "dev", "lo");
    const end = ["type", "veth", "peer", "name", "u0", "netns", this.user];
    await ip("-n", this.server, "link", "add", this.link, ...end);
    await this.run(this.server, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward");
  }

  /** Puts the user into a network, the server being its router; the user's address. */
  async join(network: string): Promise<string> {
    const [a = "0", b = "0"] = network.split(".");
    const [router, device] = [`${a}.${b}.7.1`, `${a}.${b}.7.2`];
    await ip("-n", this.server, "addr", "add", `${router}/24`, "dev", this.link);
    await ip("-n", this.server, "link", "set", this.link, "up");
    await ip("-n", this.user, "addr", "add", `${device}/24`, "dev", "u0");
    await ip("-n", this.user, "link", "set", "u0", "up");
    await ip("-n", this.user, "route", "add", "default", "via", router);
    return device;
  }

  /** Cuts the user off, or undoes it. */
  async cut(off: boolean): Promise<void> {
    await ip("-n", this.server, "link", "set", this.link, off ? "down" : "up");
  }

  /** Runs a program in a namespace and returns what it says. */
  async run(ns: string, program: string, ...args: string[]): Promise<string> {
    const { stdout } = await run("ip", ["netns", "exec", ns, program, ...args], {
      timeout: 60_000,
    });
    return stdout;
  }

  async remove(): Promise<void> {
    for (const ns of [this.user, this.server]) {
      await ip("netns", "del", ns).catch(() => undefined); // it was not made
    }
  }
}

async function ip(...args: string[]): Promise<void> {
  await run("ip", args, { timeout: 20_000 });
}
