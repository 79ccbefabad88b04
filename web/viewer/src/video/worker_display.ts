import type { DisplayChannel, DisplayChannelEvents } from "../session/display_channel.ts";
import type { DisplayStats } from "./display.ts";
import { LazyDisplay } from "./lazy_display.ts";
import type { FromWorker, ToWorker } from "./worker_messages.ts";

const maxRestarts = 3;

export interface DisplayHost {
  /** A fresh canvas that replaces the one before, in the page. */
  newCanvas(): HTMLCanvasElement;
  stats(stats: DisplayStats): void;
  /** The worker crashed and a new one is ready; the session must open again. */
  restarted(): void;
  /** The compiled zstd decoder. */
  decoder: Promise<WebAssembly.Module>;
  /** Starts the worker script. */
  newWorker(): Worker;
}

/** The display channel in a worker; falls back to the page where workers or OffscreenCanvas are missing. */
export function newDisplayChannel(host: DisplayHost): DisplayChannel {
  if (
    typeof Worker === "undefined" ||
    !("transferControlToOffscreen" in HTMLCanvasElement.prototype)
  ) {
    return new LazyDisplay(host);
  }
  return new WorkerDisplay(host);
}

class WorkerDisplay implements DisplayChannel {
  readonly #host: DisplayHost;
  #events: DisplayChannelEvents | undefined;
  #worker: Worker | undefined;
  #page: LazyDisplay | undefined;
  #id = 0;
  #restarts = 0;

  constructor(host: DisplayHost) {
    this.#host = host;
    this.#startWorker();
  }

  listen(events: DisplayChannelEvents): void {
    this.#events = events;
    this.#page?.listen(events);
  }

  open(url: string, ticket: string): void {
    if (this.#page !== undefined) {
      this.#page.open(url, ticket);
      return;
    }
    this.#id++;
    this.#post({ kind: "open", url, ticket, id: this.#id });
  }

  close(): void {
    this.#page?.close();
    this.#id++; // what the worker still says about the connection is stale
    this.#post({ kind: "close" });
  }

  refresh(reason: number): void {
    this.#page?.refresh(reason);
    this.#post({ kind: "refresh", reason });
  }

  #post(message: ToWorker, transfer: Transferable[] = []): void {
    this.#worker?.postMessage(message, transfer);
  }

  #startWorker(): void {
    const worker = this.#host.newWorker();
    this.#worker = worker;
    worker.onmessage = (event: MessageEvent<FromWorker>) => {
      if (this.#worker === worker) {
        this.#receive(event.data);
      }
    };
    worker.onerror = (event) => {
      event.preventDefault();
      if (this.#worker === worker) {
        this.#crashed();
      }
    };
    const canvas = this.#host.newCanvas().transferControlToOffscreen();
    this.#post({ kind: "surface", canvas }, [canvas]);
    this.#host.decoder.then(
      (module) => this.#worker === worker && this.#post({ kind: "decoder", module }),
      (cause: unknown) => {
        if (this.#worker === worker) {
          this.#post({ kind: "no-decoder", reason: String(cause) });
          this.#events?.failed(String(cause));
        }
      },
    );
  }

  #receive(message: FromWorker): void {
    if (message.kind === "stats") {
      this.#host.stats(message.stats);
      return;
    }
    if (message.id !== this.#id) {
      return;
    }
    switch (message.kind) {
      case "opened":
        this.#events?.opened();
        break;
      case "drawn":
        this.#events?.drawn(message.width, message.height);
        break;
      case "closed":
        this.#events?.closed(message.code, message.reason, message.opened);
        break;
    }
  }

  #crashed(): void {
    this.#worker?.terminate();
    this.#worker = undefined;
    this.#id++;
    this.#restarts++;
    if (this.#restarts <= maxRestarts) {
      this.#startWorker();
    } else {
      this.#page = new LazyDisplay(this.#host);
      if (this.#events !== undefined) {
        this.#page.listen(this.#events);
      }
    }
    this.#host.restarted();
  }
}
