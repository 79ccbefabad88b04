import zstdUrl from "virtual:zstd";

/** Fetches and compiles the zstd decoder; call as early as possible. */
export async function loadDecoder(): Promise<WebAssembly.Module> {
  const response = await fetch(zstdUrl, { credentials: "same-origin" });
  if (!response.ok) {
    throw new Error(`decoder: HTTP ${response.status}`);
  }
  if (response.headers.get("content-type") === "application/wasm") {
    return WebAssembly.compileStreaming(response);
  }
  return WebAssembly.compile(await response.arrayBuffer());
}

/** Whether a worker can draw on a canvas of the page. */
export function workersDraw(): boolean {
  return (
    typeof Worker !== "undefined" && "transferControlToOffscreen" in HTMLCanvasElement.prototype
  );
}

/** Starts the display worker. */
export function newDisplayWorker(): Worker {
  return new Worker(new URL("./worker.ts", import.meta.url), { type: "module", name: "display" });
}
