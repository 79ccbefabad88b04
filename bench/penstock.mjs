// The product: `penstock dev` as users start it, its portal and its viewer.
import { execFile } from "node:child_process";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { probedPage, restingPixels, rightPicture } from "./latency.mjs";
import {
  family,
  freePort,
  removeFolder,
  start,
  stop,
  temporaryFolder,
  until,
  wrote,
} from "./processes.mjs";
import { callAppStream } from "./sign.mjs";

const run = promisify(execFile);
export const canvas = "canvas#screen";

/**
 * One region on a fresh data folder whose catalogue has, beside this machine's own applications, flipper and Stage: the same
 * window, which lets the programs of the benchmark appear over it.
 */
export class Region {
  #binary;
  #directory;
  #process;
  #environment;
  #profiles;

  /** With profiles, a folder, the server and its instances write their processor profiles there when they end. */
  constructor(binary, flipper, profiles) {
    this.#binary = binary;
    this.#profiles = profiles;
    this.#directory = temporaryFolder("region");
    const applications = join(this.#directory, "share/applications");
    mkdirSync(applications, { recursive: true });
    for (const [name, more] of [
      ["Flipper", ""],
      ["Stage", " -still"],
    ]) {
      writeFileSync(
        join(applications, `${name.toLowerCase()}.desktop`),
        `[Desktop Entry]\nType=Application\nName=${name}\nExec=${flipper} -width 1280 -height 720${more}\n`,
      );
    }
    this.#environment = {
      ...process.env,
      XDG_DATA_DIRS: `${join(this.#directory, "share")}:/usr/local/share:/usr/share`,
    };
  }

  /** Starts the process and returns the milliseconds until it printed ready. */
  async start() {
    const addresses = [await freePort(), await freePort()].map((port) => `127.0.0.1:${port}`);
    const began = performance.now();
    this.#process = start(
      this.#binary,
      [
        ...["dev", "--data-dir", this.data, "--api-addr", addresses[0]],
        ...["--public-addr", addresses[1]],
        ...(this.#profiles === undefined ? [] : ["--profile", this.#profiles]),
      ],
      { env: this.#environment },
    );
    await wrote(this.#process, "ready");
    const took = performance.now() - began;
    this.dev = JSON.parse(readFileSync(join(this.data, "dev.json"), "utf8"));
    return took;
  }

  get data() {
    return join(this.#directory, "data");
  }

  /** Every process of the region with its memory. */
  processes() {
    return family(this.#process.pid);
  }

  /** The user's session, as `penstock sessions --json` tells it. */
  async session(user) {
    const { stdout } = await run(this.#binary, ["sessions", "--json", "--data-dir", this.data]);
    return JSON.parse(stdout).find((s) => s.userId === user && s.state === "ACTIVE");
  }

  /** Processes of the region and of the instance that runs a session, as { x, server }; applications are in neither. */
  sessionProcesses({ pid }) {
    const named = (...names) =>
      family(pid)
        .filter(({ command }) => names.includes((command[0] ?? "").split("/").pop()))
        .map((member) => member.pid);
    return {
      x: named("Xvfb", "Xtigervnc"),
      server: [this.#process.pid, ...named("penstock", "openbox")],
    };
  }

  /** Ends the process; the data stay for another start. */
  async stop() {
    await stop(this.#process);
  }

  /** Removes the data. */
  remove() {
    removeFolder(this.#directory);
  }

  /** Access key of the account. */
  credentials() {
    const file = readFileSync(join(this.data, "aws/credentials"), "utf8");
    const value = (name) => new RegExp(`^${name}\\s*=\\s*(\\S+)`, "m").exec(file)?.[1];
    return { key: value("aws_access_key_id"), secret: value("aws_secret_access_key") };
  }

  /** Calls the API with the AWS CLI and returns its answer. */
  async aws(...args) {
    const { stdout } = await run(
      "/usr/bin/aws",
      ["--endpoint-url", this.dev.apiUrl, "--output", "json", ...args],
      {
        env: {
          ...this.#environment,
          AWS_SHARED_CREDENTIALS_FILE: join(this.data, "aws/credentials"),
          AWS_CONFIG_FILE: join(this.data, "aws/config"),
          AWS_PAGER: "",
        },
      },
    );
    return stdout.trim() === "" ? {} : JSON.parse(stdout);
  }

  /** The fleet's ComputeCapacityStatus. */
  async #capacity() {
    const { Fleets } = await this.#call("DescribeFleets", { Names: [this.dev.fleetName] });
    return Fleets[0]?.ComputeCapacityStatus ?? {};
  }

  #call(operation, input) {
    return callAppStream(this.dev.apiUrl, this.credentials(), this.dev.region, operation, input);
  }

  #resize(instances) {
    return this.#call("UpdateFleet", {
      Name: this.dev.fleetName,
      ComputeCapacity: { DesiredInstances: instances },
    });
  }

  /** Waits until the fleet has an instance that no session uses. */
  warm() {
    return until("warm instance", async () =>
      ((await this.#capacity()).Available ?? 0) > 0 ? true : undefined,
    );
  }

  /**
   * Takes all instances from the fleet that no session uses and returns { begin, restore }: begin asks for one instance more, from which
   * moment on it may boot, and restore gives the fleet what it had.
   */
  async cool() {
    const { Desired, Running = 0, InUse = 0 } = await this.#capacity();
    const used = Math.min(InUse, Running);
    await this.#resize(used);
    await until("fleet without a free instance", async () => {
      const { Available = 0, Running: left = 0 } = await this.#capacity();
      return Available === 0 && left <= used ? true : undefined;
    });
    return { begin: () => this.#resize(used + 1), restore: () => this.#resize(Desired) };
  }

  /** A streaming URL; with an application it opens that one without a question. */
  async streamingUrl(
    user,
    { application, fleet = this.dev.fleetName, width = 1280, height = 720 },
  ) {
    const { StreamingURL } = await this.aws(
      ...["appstream", "create-streaming-url", "--stack-name", this.dev.stackName],
      ...["--fleet-name", fleet, "--user-id", user, "--validity", "3600"],
      ...(application === undefined ? [] : ["--application-id", application]),
    );
    return `${StreamingURL}&resolution=${width}x${height}`;
  }

  /**
   * Clicks flipper in the portal's catalogue and returns { page, milliseconds }: from the click to the first animation frame that
   * showed flipper's picture right. Where before is given it is called just before the click, and the clock starts when it is.
   */
  async click(context, user, before) {
    const page = await probedPage(context, {
      expected: { selector: canvas, pixels: restingPixels(1280, 720) },
      workers: false,
    });
    const right = rightPicture(page);
    right.catch(() => {}); // awaited below
    await page.goto(await this.streamingUrl(user, {}));
    let clicked;
    await page.exposeBinding("benchClicked", (_, time) => {
      clicked = time;
    });
    const button = page.getByRole("button", { name: "Flipper" });
    await button.waitFor();
    await page.evaluate(() =>
      addEventListener(
        "click",
        (event) => globalThis.benchClicked(performance.timeOrigin + event.timeStamp),
        { capture: true, once: true },
      ),
    );
    const began = performance.timeOrigin + performance.now();
    await before?.();
    await button.click();
    const milliseconds = (await right) - (before === undefined ? clicked : began);
    return { page, milliseconds };
  }

  /** Ends the user's sessions. */
  async expire(user) {
    const { Sessions } = await this.aws(
      ...["appstream", "describe-sessions", "--stack-name", this.dev.stackName],
      ...["--fleet-name", this.dev.fleetName, "--user-id", user],
    );
    for (const { Id } of Sessions) {
      await this.aws("appstream", "expire-session", "--session-id", Id);
    }
  }
}
