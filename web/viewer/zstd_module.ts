import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** The folder of the zstddec package. */
export const zstdPackage = fileURLToPath(new URL("../node_modules/zstddec/", import.meta.url));

/** The WASM module inside the zstddec package, which carries it as text. For the build and for tests. */
export function zstdModule(): Buffer<ArrayBuffer> {
  const source = readFileSync(`${zstdPackage}dist/zstddec-stream.mjs`, "utf8");
  const base64 = /wasm = "([A-Za-z0-9+/=]+)"/.exec(source)?.[1];
  if (base64 === undefined) {
    throw new Error("zstddec: no WASM module found in the package");
  }
  return Buffer.from(base64, "base64");
}
