import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vite";
import { zstdModule, zstdPackage } from "./zstd_module.ts";

const root = fileURLToPath(new URL(".", import.meta.url));
/** Serves virtual:zstd as a file of its own, so that the page can be strict about what it evaluates. */
function zstdAsset(): Plugin {
  const id = "virtual:zstd";
  return {
    name: "penstock:zstd",
    resolveId: (source) => (source === id ? `\0${id}` : undefined),
    load(source) {
      if (source !== `\0${id}`) {
        return undefined;
      }
      const file = this.emitFile({ type: "asset", name: "zstd.wasm", source: zstdModule() });
      return `export default import.meta.ROLLUP_FILE_URL_${file};`;
    },
    generateBundle() {
      const licence = readFileSync(`${zstdPackage}LICENSE`, "utf8");
      this.emitFile({ type: "asset", fileName: "licenses.txt", source: `zstddec\n\n${licence}` });
    },
  };
}

/** Preloads the decoder, which the script would ask for only after it has run. */
function preloadDecoder(): Plugin {
  return {
    name: "penstock:preload",
    transformIndexHtml: {
      order: "post",
      handler(_html, { bundle, path }) {
        if (path.endsWith("second.html")) {
          return []; // the first window's worker decodes
        }
        return Object.keys(bundle ?? {})
          .filter((name) => name.endsWith(".wasm"))
          .map((name) => ({
            tag: "link",
            attrs: {
              rel: "preload",
              as: "fetch",
              type: "application/wasm",
              crossorigin: true,
              href: `./${name}`,
            },
            injectTo: "head-prepend" as const,
          }));
      },
    },
  };
}

/** As the binary has it: what git describes, or the package's version outside a repository. */
function buildVersion(): string {
  try {
    const args = ["describe", "--tags", "--always", "--dirty"];
    return execFileSync("git", args, {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    }).trim();
  } catch {
    return (JSON.parse(readFileSync(`${root}package.json`, "utf8")) as { version: string }).version;
  }
}

export default defineConfig({
  root,
  define: { __PENSTOCK_VERSION__: JSON.stringify(buildVersion()) },
  base: "./",
  plugins: [zstdAsset(), preloadDecoder()],
  worker: { format: "es" },
  build: {
    outDir: fileURLToPath(new URL("../../internal/webui/dist/viewer", import.meta.url)),
    emptyOutDir: true,
    rollupOptions: { input: [`${root}index.html`, `${root}second.html`] },
    target: "es2022",
    sourcemap: false,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
});
