import type { Cursor, Notice, Welcome } from "@penstock/protocol";
import { captureInput } from "./input/capture.ts";
import { cssCursor } from "./input/cursor.ts";
import type { EndReason } from "./session/end_reason.ts";
import { Session, type SessionState } from "./session/session.ts";
import { StoredSession } from "./session/store.ts";
import { texts } from "./texts.ts";
import { connectWebSocket } from "./transport/connection.ts";
import { type Placement, place, toRemote } from "./ui/layout.ts";
import { type DisplayStats, emptyStats } from "./video/display_stats.ts";
import { newDisplayChannel } from "./video/worker_display.ts";

export interface ViewerOptions {
  /** Filled by the viewer; must have a size of its own. */
  container: HTMLElement;
  /** The streaming ticket; without it the resume ticket of this tab is used. */
  ticket?: string;
  /** Origin of the endpoint, like "https://endpoint.example"; the page's own when absent. */
  origin?: string;
  /** A screen of this size whatever the window; otherwise the screen follows the window. */
  fixedSize?: { width: number; height: number };
  /** The compiled zstd decoder. */
  decoder: Promise<WebAssembly.Module>;
  /** Starts the display worker's script. */
  newWorker: () => Worker;
  /** Ends the viewer as leave does. */
  signal?: AbortSignal;
}

/** The display port does not answer while control works. The ticket authorises the question why. */
export interface PortBlocked {
  port: number;
  displayTicket: string;
}

export interface ViewerEvents {
  state: SessionState;
  /** The last event. */
  ended: EndReason;
  welcome: Pick<Welcome, "sessionId" | "application" | "displayPort">;
  notice: Notice;
  /** Undefined when the port answers again. */
  portBlocked: PortBlocked | undefined;
  /** The user asked by keyboard to leave the session's keyboard focus. */
  leaveKeyboard: undefined;
}

export interface ViewerStats {
  /** Latest round trip on control; 0 when none is known. */
  rttMs: number;
  /** Estimated age of the latest picture when it was drawn: half a round trip, waiting and decoding. */
  frameAgeMs: number;
  /** Bytes of messages, both ways, over the life of the page. */
  bytes: { control: number; display: number };
  /** Latest update, receipt to drawn. */
  decodeMs: number;
  updates: number;
  epoch: number;
  width: number;
  height: number;
  video: {
    /** Frames of video regions that were shown. */
    frames: number;
    /** Latest frame: handed to the decoder to decoded. */
    decodeMs: number;
    /** Latest frame: copied into the picture, or drawn on the canvas. */
    path: DisplayStats["videoPath"];
    codec: DisplayStats["videoCodec"];
    hardware: boolean;
  };
  /** JPEG pictures that were shown. */
  images: number;
  /** Faults of decoders, worker and canvas that the viewer got over by itself. */
  recoveries: number;
}

type Listener<T> = (event: T) => void;

const resizeMillis = 100;
/** A round trip older than this is measured anew when somebody asks for it. */
const staleRttMillis = 1000;

/** Shows one session in a container and sends its input. */
export class Viewer {
  readonly #options: ViewerOptions;
  readonly #session: Session;
  readonly #origin: URL;
  readonly #stage: HTMLElement;
  readonly #field: HTMLTextAreaElement;
  readonly #abort = new AbortController();
  readonly #listeners = new Map<keyof ViewerEvents, Set<Listener<never>>>();
  #canvas: HTMLCanvasElement | undefined;
  #picture: { width: number; height: number } | undefined;
  #placement: Placement = { left: 0, top: 0, width: 0, height: 0 };
  #cursor: Cursor | undefined;
  #alternatives: readonly string[] = [];
  #pingedAt = Number.NEGATIVE_INFINITY;
  #display: DisplayStats = emptyStats();

  constructor(options: ViewerOptions) {
    this.#options = options;
    const stage = document.createElement("div");
    stage.className = "penstock-stage";
    const field = document.createElement("textarea");
    field.className = "penstock-keys";
    field.setAttribute("aria-label", texts.keyboardLabel);
    field.autocapitalize = "off";
    field.autocomplete = "off";
    field.spellcheck = false;
    stage.append(field);
    options.container.append(stage);
    this.#stage = stage;
    this.#field = field;

    const store = new StoredSession(sessionValues());
    if (options.ticket !== undefined) {
      store.startAnew();
    }
    const origin = new URL(options.origin ?? location.origin);
    this.#origin = origin;
    const scheme = origin.protocol === "https:" ? "wss:" : "ws:";
    this.#session = new Session({
      connect: connectWebSocket,
      display: newDisplayChannel({
        newCanvas: () => this.#newCanvas(),
        stats: (stats) => {
          this.#display = stats;
        },
        restarted: () => this.#session.displayRestarted(),
        decoder: options.decoder,
        newWorker: options.newWorker,
      }),
      store,
      controlUrl: (host) => {
        const port = origin.port === "" ? "" : `:${origin.port}`;
        return `${scheme}//${host ?? origin.hostname}${port}/v1/channel/control`;
      },
      displayUrl: (port, host) =>
        `${scheme}//${host ?? origin.hostname}:${port}/v1/channel/display`,
      alternatives: () => this.#alternatives,
      ticket: options.ticket,
      screen: this.#wish(),
      fixedSize: options.fixedSize !== undefined,
      events: {
        state: (state) => {
          stage.dataset["state"] = state;
          this.#emit("state", state);
        },
        ended: (reason) => {
          this.#abort.abort();
          this.#emit("ended", reason);
        },
        welcome: ({ sessionId, application, displayPort }) =>
          this.#emit("welcome", { sessionId, application, displayPort }),
        drawn: (width, height) => {
          this.#picture = { width, height };
          this.#layout();
        },
        cursor: (cursor) => {
          this.#cursor = { ...cursor, rgba: cursor.rgba.slice() };
          this.#drawCursor();
        },
        notice: (notice) => this.#emit("notice", notice),
        portBlocked: (blocked) => this.#emit("portBlocked", blocked),
      },
      now: () => performance.now(),
      random: Math.random,
    });
    stage.dataset["state"] = this.#session.state;
  }

  get state(): SessionState {
    return this.#session.state;
  }

  /** Connects; call once, after the listeners are there. */
  start(): void {
    const { signal } = this.#abort;
    captureInput({
      stage: this.#stage,
      field: this.#field,
      send: (input) => this.#session.input(input),
      live: () => this.#session.state === "streaming",
      toRemote: (clientX, clientY) => this.#toRemote(clientX, clientY),
      leave: () => this.#emit("leaveKeyboard", undefined),
      signal,
    });
    this.#followWindow(signal);
    document.addEventListener(
      "visibilitychange",
      () => this.#session.setHidden(document.visibilityState === "hidden"),
      { signal },
    );
    window.addEventListener("online", () => this.#session.probe(), { signal });
    window.addEventListener("pageshow", (event) => event.persisted && this.#session.probe(), {
      signal,
    });
    this.#options.signal?.addEventListener("abort", () => this.leave(), { signal });
    this.#session.setHidden(document.visibilityState === "hidden");
    this.#session.start();
    this.focus();
  }

  on<K extends keyof ViewerEvents>(name: K, listener: Listener<ViewerEvents[K]>): void {
    const listeners = this.#listeners.get(name) ?? new Set();
    listeners.add(listener as Listener<never>);
    this.#listeners.set(name, listeners);
  }

  stats(): ViewerStats {
    const now = performance.now();
    if (now - this.#pingedAt > staleRttMillis && this.state === "streaming") {
      this.#pingedAt = now;
      this.#session.ping();
    }
    const rttMs = this.#session.rttMs ?? 0;
    const { bytes, decodeMs, frameAgeMs, updates, epoch, width, height } = this.#display;
    const { videoFrames, videoDecodeMs, videoPath, videoCodec, videoHardware } = this.#display;
    return {
      rttMs,
      frameAgeMs: frameAgeMs + rttMs / 2,
      bytes: { control: this.#session.controlBytes, display: bytes },
      decodeMs,
      updates,
      epoch,
      width,
      height,
      video: {
        frames: videoFrames,
        decodeMs: videoDecodeMs,
        path: videoPath,
        codec: videoCodec,
        hardware: videoHardware,
      },
      images: this.#display.images,
      recoveries: this.#display.recoveries,
    };
  }

  /** Other hosts of the same endpoint, where the session can be reached when the first one is lost. */
  setAlternatives(hosts: readonly string[]): void {
    this.#alternatives = hosts.filter((host) => host !== this.#origin.hostname);
  }

  /** Gives the keyboard to the session. */
  focus(): void {
    this.#field.focus({ preventScroll: true });
  }

  refresh(): void {
    this.#session.refresh();
  }

  /** Ends the session for good. */
  endSession(): void {
    this.#session.endSession();
  }

  /** Leaves; the session goes on and can be resumed. */
  leave(): void {
    this.#session.leave();
  }

  #emit<K extends keyof ViewerEvents>(name: K, event: ViewerEvents[K]): void {
    for (const listener of this.#listeners.get(name) ?? []) {
      (listener as Listener<ViewerEvents[K]>)(event);
    }
  }

  #newCanvas(): HTMLCanvasElement {
    const canvas = document.createElement("canvas");
    canvas.id = "screen";
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", texts.sessionLabel);
    if (this.#canvas === undefined) {
      this.#stage.prepend(canvas);
    } else {
      this.#canvas.replaceWith(canvas);
    }
    this.#canvas = canvas;
    return canvas;
  }

  #wish() {
    const scale = Math.round(devicePixelRatio * 100);
    const fixed = this.#options.fixedSize;
    if (fixed !== undefined) {
      return { ...fixed, scale: 100 };
    }
    const { width, height } = this.#stage.getBoundingClientRect();
    return {
      width: Math.floor(width * devicePixelRatio),
      height: Math.floor(height * devicePixelRatio),
      scale,
    };
  }

  #followWindow(signal: AbortSignal): void {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let wished = JSON.stringify(this.#wish());
    const changed = () => {
      this.#layout();
      clearTimeout(timer);
      timer = setTimeout(() => {
        const wish = this.#wish();
        const json = JSON.stringify(wish);
        if (json !== wished && wish.width > 0 && wish.height > 0) {
          wished = json;
          this.#session.resize(wish);
        }
      }, resizeMillis);
    };
    const observer = new ResizeObserver(changed);
    observer.observe(this.#stage);
    window.addEventListener("resize", changed, { signal }); // a change of devicePixelRatio alone
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      observer.disconnect();
    });
  }

  #layout(): void {
    const canvas = this.#canvas;
    const picture = this.#picture;
    if (canvas === undefined || picture === undefined) {
      return;
    }
    const container = this.#stage.getBoundingClientRect();
    const fixed = this.#options.fixedSize !== undefined;
    this.#placement = place(picture, container, devicePixelRatio, fixed);
    const { left, top, width, height } = this.#placement;
    canvas.style.left = `${left}px`;
    canvas.style.top = `${top}px`;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    this.#drawCursor();
  }

  #toRemote(clientX: number, clientY: number): { x: number; y: number } | undefined {
    const picture = this.#picture;
    if (picture === undefined) {
      return undefined;
    }
    const box = this.#stage.getBoundingClientRect();
    return toRemote(clientX - box.left, clientY - box.top, this.#placement, picture);
  }

  #drawCursor(): void {
    if (this.#cursor !== undefined && this.#picture !== undefined) {
      const pixelRatio =
        this.#placement.width === 0 ? 1 : this.#picture.width / this.#placement.width;
      this.#stage.style.cursor = cssCursor(this.#cursor, pixelRatio);
    }
  }
}

/** sessionStorage, which some settings block. */
function sessionValues(): Storage | undefined {
  try {
    return sessionStorage;
  } catch {
    return undefined;
  }
}
