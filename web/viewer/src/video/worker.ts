// The display worker: owns the display connection, the decoders and the canvas.
import { connectWebSocket } from "../transport/connection.ts";
import { Display, type Surface } from "./display.ts";
import { browserMedia } from "./media.ts";
import type { Box } from "./picture.ts";
import { SecondSurface } from "./second_surface.ts";
import { StatsReport } from "./stats_report.ts";
import { CanvasSurface } from "./surface.ts";
import type { FromWorker, ToWorker } from "./worker_messages.ts";
import { ZstdModule } from "./zstd.ts";

declare const self: {
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
  postMessage(message: FromWorker): void;
};

let surface: CanvasSurface | undefined;
let second: SecondSurface | undefined;
let id = 0;
let resolveDecoder: (zstd: ZstdModule | Promise<ZstdModule>) => void;
let rejectDecoder: (reason: Error) => void;
const decoder = new Promise<ZstdModule>((resolve, reject) => {
  resolveDecoder = resolve;
  rejectDecoder = reject;
});
decoder.catch(() => {}); // Display reports it when it needs the decoder

const canvas = (): Surface => {
  if (surface === undefined) {
    throw new Error("there is no canvas");
  }
  return surface;
};
// The canvas comes by message, before the first open.
const lateSurface: Surface = {
  resize: (width, height) => canvas().resize(width, height),
  paint: (picture, x, y, width, height) => {
    canvas().paint(picture, x, y, width, height);
    second?.paint(picture, x, y, width, height);
    report.touch();
  },
  draw: (still, crop, to) => {
    canvas().draw(still, crop, to);
    second?.draw(still, crop, to);
    report.touch();
  },
  read: (box) => canvas().read(box),
  timeDraw: (still, width, height) => canvas().timeDraw(still, width, height),
  timePaint: (picture, x, y, w, h) => canvas().timePaint(picture, x, y, w, h),
  endTiming: () => canvas().endTiming(),
};

const broken = (reason: string) => self.postMessage({ kind: "broken", reason });

// Probed after what waits already: the connection may be asked for while this script is loaded, and goes first.
const media = new Promise<void>((resolve) => setTimeout(resolve)).then(browserMedia);

const display = new Display(connectWebSocket, lateSurface, decoder, media, {
  opened: () => self.postMessage({ kind: "opened", id }),
  drawn: (width, height, epoch) => {
    report.now();
    self.postMessage({ kind: "drawn", id, width, height, epoch });
  },
  closed: (code, reason, opened) => {
    report.now(); // it says what is not offered any more
    self.postMessage({ kind: "closed", id, code, reason, opened });
  },
  broken: (reason) => {
    report.now();
    broken(reason);
  },
});
const report = new StatsReport(() => self.postMessage({ kind: "stats", stats: display.stats }));

function newSecond(canvas: OffscreenCanvas): SecondSurface {
  const made: SecondSurface = new SecondSurface(canvas, {
    restored: () => display.restored(),
    broken: (reason) => {
      if (second === made) {
        // a window that was closed takes its canvas with it
        broken(reason);
      }
    },
  });
  return made;
}

function showSecond(part: Box | undefined, fresh: OffscreenCanvas | undefined): void {
  if (part === undefined) {
    second = undefined;
    return;
  }
  try {
    if (fresh !== undefined) {
      second = newSecond(fresh);
    }
    second?.show(part);
    display.repaint();
  } catch (cause) {
    broken(String(cause));
  }
}

self.onmessage = ({ data }) => {
  switch (data.kind) {
    case "surface":
      try {
        surface = new CanvasSurface(data.canvas, {
          restored: () => {
            display.restored();
            report.touch();
          },
          broken,
        });
      } catch (cause) {
        broken(String(cause));
      }
      break;
    case "decoder":
      resolveDecoder(ZstdModule.instantiate(data.module));
      break;
    case "no-decoder":
      rejectDecoder(new Error(data.reason));
      break;
    case "open":
      id = data.id;
      display.refuse(data.refused);
      display.open(data.url, data.ticket);
      break;
    case "close":
      display.close();
      break;
    case "refresh":
      display.refresh(data.reason);
      break;
    case "second":
      showSecond(data.part, data.canvas);
      break;
    case "ping":
      self.postMessage({ kind: "pong" });
      break;
    case "hold":
      void navigator.locks.request(data.lock, () => {
        self.postMessage({ kind: "held" });
        return new Promise(() => {}); // until this worker is gone
      });
      break;
  }
};
