import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

/** What looks closely at keys and pictures runs alone; the others mostly wait for servers and networks, two at a time. */
const alone = ["input", "faults", "screen", "stream", "video", "viewer"].map((n) => `${n}.e2e.ts`);
const bounds = { testTimeout: 60_000, hookTimeout: 60_000 };

export default defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  test: {
    projects: [
      {
        extends: true,
        test: {
          name: "journeys",
          include: ["*.e2e.ts"],
          exclude: alone,
          maxWorkers: 2,
          sequence: { groupOrder: 0 },
          ...bounds,
        },
      },
      {
        extends: true,
        test: {
          name: "pictures",
          include: alone,
          maxWorkers: 1,
          sequence: { groupOrder: 1 },
          ...bounds,
        },
      },
    ],
  },
});
