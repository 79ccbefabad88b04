import { gzipSync } from "node:zlib";
import type { Plugin } from "vite";

/** Smaller files are not worth a header. */
const minBytes = 1024;

/** Writes NAME.gz beside each script, style sheet, picture and module: the server sends them as they are. */
export function precompress(): Plugin {
  return {
    name: "penstock:precompress",
    generateBundle: {
      order: "post",
      handler(_options, bundle) {
        for (const file of Object.values(bundle)) {
          if (!/\.(js|css|svg|wasm)$/.test(file.fileName)) {
            continue;
          }
          const source = file.type === "chunk" ? file.code : file.source;
          if (source.length >= minBytes) {
            const packed = gzipSync(source, { level: 9 });
            this.emitFile({ type: "asset", fileName: `${file.fileName}.gz`, source: packed });
          }
        }
      },
    },
  };
}
