import type { DisplayStats } from "./display_stats.ts";
import type { Box } from "./picture.ts";

/** What the page tells the display worker. */
export type ToWorker =
  | { kind: "surface"; canvas: OffscreenCanvas }
  | { kind: "decoder"; module: WebAssembly.Module }
  | { kind: "no-decoder"; reason: string }
  /** refused: bits of start.codecs that are not to be offered. */
  | { kind: "open"; url: string; ticket: string; id: number; refused: number }
  | { kind: "close" }
  | { kind: "refresh"; reason: number }
  /** A second window shows part of the picture, on a canvas that comes once; without a part none does. */
  | { kind: "second"; part: Box | undefined; canvas?: OffscreenCanvas }
  /** Asks for a sign of life. */
  | { kind: "ping" }
  /** The page takes the lock of this name as soon as the worker does not hold it, dead. */
  | { kind: "hold"; lock: string };

/** What the display worker tells the page; id is that of the open that it belongs to. */
export type FromWorker =
  | { kind: "opened"; id: number }
  | { kind: "drawn"; id: number; width: number; height: number; epoch: number }
  | { kind: "closed"; id: number; code: number; reason: string; opened: boolean }
  | { kind: "stats"; stats: DisplayStats }
  | { kind: "pong" }
  | { kind: "held" }
  /** The display cannot go on in this worker. */
  | { kind: "broken"; reason: string };
