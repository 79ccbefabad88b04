import type { DisplayStats } from "./display.ts";

/** What the page tells the display worker. */
export type ToWorker =
  | { kind: "surface"; canvas: OffscreenCanvas }
  | { kind: "decoder"; module: WebAssembly.Module }
  | { kind: "no-decoder"; reason: string }
  | { kind: "open"; url: string; ticket: string; id: number }
  | { kind: "close" }
  | { kind: "refresh"; reason: number };

/** What the display worker tells the page; id is that of the open that it belongs to. */
export type FromWorker =
  | { kind: "opened"; id: number }
  | { kind: "drawn"; id: number; width: number; height: number; epoch: number }
  | { kind: "closed"; id: number; code: number; reason: string; opened: boolean }
  | { kind: "stats"; stats: DisplayStats };
