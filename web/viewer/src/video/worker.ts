// The display worker: owns the display connection, the decoder and the canvas.
import { connectWebSocket } from "../transport/connection.ts";
import { Display, type Surface } from "./display.ts";
import { StatsReport } from "./stats_report.ts";
import { CanvasSurface } from "./surface.ts";
import type { FromWorker, ToWorker } from "./worker_messages.ts";
import { ZstdModule } from "./zstd.ts";

declare const self: {
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
  postMessage(message: FromWorker): void;
};

let surface: CanvasSurface | undefined;
let id = 0;
let resolveDecoder: (zstd: ZstdModule | Promise<ZstdModule>) => void;
let rejectDecoder: (reason: Error) => void;
const decoder = new Promise<ZstdModule>((resolve, reject) => {
  resolveDecoder = resolve;
  rejectDecoder = reject;
});
decoder.catch(() => {}); // Display reports it when it needs the decoder

const lateSurface: Surface = {
  resize: (width, height) => surface?.resize(width, height),
  paint: (picture, x, y, width, height) => {
    surface?.paint(picture, x, y, width, height);
    report.touch();
  },
};

const display = new Display(connectWebSocket, lateSurface, decoder, {
  opened: () => self.postMessage({ kind: "opened", id }),
  drawn: (width, height, epoch) => {
    report.now();
    self.postMessage({ kind: "drawn", id, width, height, epoch });
  },
  closed: (code, reason, opened) => self.postMessage({ kind: "closed", id, code, reason, opened }),
});
const report = new StatsReport(() => self.postMessage({ kind: "stats", stats: display.stats }));

self.onmessage = ({ data }) => {
  switch (data.kind) {
    case "surface":
      surface = new CanvasSurface(data.canvas);
      break;
    case "decoder":
      resolveDecoder(ZstdModule.instantiate(data.module));
      break;
    case "no-decoder":
      rejectDecoder(new Error(data.reason));
      break;
    case "open":
      id = data.id;
      display.open(data.url, data.ticket);
      break;
    case "close":
      display.close();
      break;
    case "refresh":
      display.refresh(data.reason);
      break;
  }
};
