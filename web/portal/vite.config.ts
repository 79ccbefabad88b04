import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";
import { precompress } from "../precompress.ts";

export default defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  base: "./",
  plugins: [precompress()],
  build: {
    outDir: fileURLToPath(new URL("../../internal/webui/dist/portal", import.meta.url)),
    emptyOutDir: true,
    target: "es2022",
    sourcemap: false,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
});
