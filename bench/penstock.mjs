// The product: `penstock dev` as users start it, its portal and its viewer.
import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { colours, near, probedPage, showsFlipper } from "./latency.mjs";
import { family, freePort, start, stop, until, wrote } from "./processes.mjs";

const run = promisify(execFile);
const canvas = "canvas#screen";

/** One region on a fresh data folder whose catalogue has flipper beside this machine's own applications. */
export class Region {
  #binary;
  #directory;
  #process;
  #environment;

  constructor(binary, flipper) {
    this.#binary = binary;
    this.#directory = mkdtempSync(join(tmpdir(), "penstock-bench-"));
    const applications = join(this.#directory, "share/applications");
    mkdirSync(applications, { recursive: true });
    writeFileSync(
      join(applications, "flipper.desktop"),
      `[Desktop Entry]\nType=Application\nName=Flipper\nExec=${flipper} -width 1280 -height 720\n`,
    );
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
      ["dev", "--data-dir", this.data, "--api-addr", addresses[0], "--public-addr", addresses[1]],
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

  /** Every process of the instance that runs the user's session. */
  async sessionProcesses(user) {
    const { stdout } = await run(this.#binary, ["sessions", "--json", "--data-dir", this.data]);
    const session = JSON.parse(stdout).find((s) => s.userId === user && s.state === "ACTIVE");
    return family(session.pid);
  }

  /** Ends the process; the data stay for another start. */
  async stop() {
    await stop(this.#process);
  }

  /** Removes the data. */
  remove() {
    rmSync(this.#directory, { recursive: true, force: true });
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

  /** Waits until the fleet has an instance that no session uses. */
  warm() {
    return until("warm instance", async () => {
      const { Fleets } = await this.aws(
        "appstream",
        "describe-fleets",
        "--names",
        this.dev.fleetName,
      );
      return (Fleets[0]?.ComputeCapacityStatus?.Available ?? 0) > 0 ? true : undefined;
    });
  }

  /** Signs a user in with a streaming URL; the page shows the catalogue. */
  async signIn(context, user) {
    const { StreamingURL } = await this.aws(
      ...["appstream", "create-streaming-url", "--stack-name", this.dev.stackName],
      ...["--fleet-name", this.dev.fleetName, "--user-id", user, "--validity", "3600"],
    );
    const page = await probedPage(context);
    await page.goto(`${StreamingURL}&resolution=1280x720`);
    await page.getByRole("button", { name: "Flipper" }).waitFor();
    return page;
  }

  /**
   * Clicks flipper in the catalogue and waits for its picture. milliseconds is from the click to the first pixel of flipper
   * that the viewer painted; close ends the session.
   */
  async open(context, user) {
    const page = await this.signIn(context, user);
    let clicked;
    await page.exposeBinding("benchClicked", (_, time) => {
      clicked = time;
    });
    await page.evaluate(() =>
      addEventListener(
        "click",
        (event) => globalThis.benchClicked(performance.timeOrigin + event.timeStamp),
        {
          capture: true,
          once: true,
        },
      ),
    );
    await page.getByRole("button", { name: "Flipper" }).click();
    await page.waitForURL((url) => url.origin !== new URL(this.dev.publicUrl).origin);
    await page.waitForFunction(() => globalThis.penstock?.state === "streaming");
    await showsFlipper(page, canvas);
    const changes = await page.evaluate(() => globalThis.benchProbe.changes);
    const first = changes.find(({ colour }) => near(colour, colours[0]));
    await page.locator(canvas).click({ position: { x: 400, y: 400 } });
    return {
      name: "Penstock",
      page,
      canvas,
      milliseconds: first.time - clicked,
      close: async () => {
        await page.close();
        const { Sessions } = await this.aws(
          ...["appstream", "describe-sessions", "--stack-name", this.dev.stackName],
          ...["--fleet-name", this.dev.fleetName, "--user-id", user],
        );
        for (const { Id } of Sessions) {
          await this.aws("appstream", "expire-session", "--session-id", Id);
        }
      },
    };
  }
}
