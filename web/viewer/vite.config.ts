import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig, type Plugin } from "vite";
import { precompress } from "../precompress.ts";
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

/**
 * Adds the page's script to the viewer's page, after its first one: it waits for the document and the style sheet, the first does not.
 * Preloads the decoder, which a script would ask for only after it has run.
 */
function pageScripts(): Plugin {
  return {
    name: "penstock:scripts",
    transformIndexHtml: {
      order: "post",
      handler(html, { bundle, path }) {
        if (path.endsWith("second.html")) {
          return []; // the first window's worker decodes
        }
        const files = Object.values(bundle ?? {});
        const page = files.find((f) => f.type === "chunk" && f.isEntry && f.name === "page");
        const script = {
          tag: "script",
          attrs: {
            type: "module",
            crossorigin: true,
            src: `./${page?.fileName ?? "src/ui/page.ts"}`,
          },
          injectTo: "head" as const,
        };
        const imports = (page?.type === "chunk" ? page.imports : [])
          .filter((name) => !html.includes(name))
          .map((name) => ({
            tag: "link",
            attrs: { rel: "modulepreload", crossorigin: true, href: `./${name}` },
            injectTo: "head" as const,
          }));
        const decoders = files
          .filter(({ fileName }) => fileName.endsWith(".wasm"))
          .map(({ fileName }) => ({
            tag: "link",
            attrs: {
              rel: "preload",
              as: "fetch",
              type: "application/wasm",
              crossorigin: true,
              href: `./${fileName}`,
            },
            injectTo: "head-prepend" as const,
          }));
        return [...decoders, ...imports, script];
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
  plugins: [zstdAsset(), pageScripts(), precompress()],
  worker: { format: "es" },
  build: {
    outDir: fileURLToPath(new URL("../../internal/webui/dist/viewer", import.meta.url)),
    emptyOutDir: true,
    rollupOptions: { input: [`${root}index.html`, `${root}second.html`, `${root}src/ui/page.ts`] },
    target: "es2022",
    sourcemap: false,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
});
