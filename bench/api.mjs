// The API under load: a store with few sessions and one with ten thousand.
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { Region } from "./penstock.mjs";

const run = promisify(execFile);

export async function api({ programs, binary, seconds }) {
  const region = new Region(binary, join(programs, "flipper"));
  const calls = [];
  try {
    await region.start();
    for (const sessions of [0, 10_000]) {
      const { stackName, fleetName } = region.dev;
      if (sessions > 0) {
        await region.stop();
        await run(join(programs, "storefill"), [
          ...["-data-dir", region.data, "-sessions", String(sessions)],
          ...["-stack", stackName, "-fleet", fleetName],
        ]);
        await region.start();
      }
      await region.warm();
      const { key, secret } = region.credentials();
      for (const clients of [1, 8]) {
        const { stdout } = await run(
          join(programs, "apiload"),
          [
            ...["-url", region.dev.apiUrl, "-region", region.dev.region, "-key", key],
            ...["-stack", stackName, "-fleet", fleetName],
            ...["-clients", String(clients), "-duration", `${seconds}s`],
          ],
          { env: { ...process.env, APILOAD_SECRET: secret } },
        );
        const lines = stdout.trim().split("\n");
        calls.push(...lines.map((line) => ({ sessions, ...JSON.parse(line) })));
      }
    }
  } finally {
    await region.stop();
    region.remove();
  }
  return { calls };
}
