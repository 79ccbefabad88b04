import { defineConfig } from "vitest/config";

export default defineConfig({
  define: { __PENSTOCK_VERSION__: JSON.stringify("test") },
  test: { include: ["*/src/**/*.test.ts"], testTimeout: 30_000 },
});
