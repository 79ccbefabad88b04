import type { Cursor, Notice, Welcome } from "@penstock/protocol";
import { type Capture, captureInput } from "./input/capture.ts";
import type { KeyboardSettings } from "./input/keyboard.ts";
import { isMac } from "./input/platform.ts";
import type { DisplayChannel } from "./session/display_channel.ts";
import type { EndReason } from "./session/end_reason.ts";
import { type InputWithoutSeq, Session, type SessionState } from "./session/session.ts";
import { StoredSession } from "./session/store.ts";
import { texts } from "./texts.ts";
import { connectWith } from "./transport/connection.ts";
import type { EarlySocket } from "./transport/early.ts";
import type { Size, Zoom } from "./ui/layout.ts";
import { type Part, Stage } from "./ui/stage.ts";
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
  fixedSize?: Size;
  /** The compiled zstd decoder. */
  decoder: Promise<WebAssembly.Module>;
  /** A connection of the ticket that was opened before; taken over when it leads where the viewer connects to. */
  socket?: EarlySocket;
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
  /** The window is larger than the session's screen can be, which has this size; undefined when it is not. */
  limited: Size | undefined;
  /** What the window shows of the picture changed. */
  zoom: undefined;
  /** New numbers of the display: at most ten times a second, never while nothing is drawn. */
  stats: ViewerStats;
  /** A window shows the second monitor, or none does any more. */
  second: boolean;
  /** The user asked by keyboard to leave the session's keyboard focus. */
  leaveKeyboard: undefined;
  /** Something for the user to read. */
  told: string;
  /** A text was longer than can be typed; none of it was. */
  inputRefused: undefined;
}

export interface ViewerStats {
  /** Latest round trip on control; 0 when none is known. */
  rttMs: number;
  /** Estimated age of the latest picture when it was drawn: half a round trip, waiting and decoding. */
  frameAgeMs: number;
  /** Bytes of messages, both ways, over the life of the page. */
  bytes: { control: number; display: number };
  /** The part of all bytes that this side sent. */
  sent: number;
  /** Latest update, receipt to drawn. */
  decodeMs: number;
  updates: number;
  epoch: number;
  width: number;
  height: number;
  /** The desktop's, in percent. */
  scale: number;
  /** Device pixels a picture's pixel, in percent. */
  zoom: number;
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

/** What a window that shows the second monitor gives to the first. */
export interface SecondSeat {
  /** Its size in device pixels. */
  box: Size;
  /** A fresh canvas in the place of the one before. */
  canvas(): OffscreenCanvas;
  /** The canvas has a picture of this size. */
  show(size: Size): void;
  cursor(cursor: Cursor): void;
  state(state: SessionState): void;
  hidden(): boolean;
  close(): void;
}

/** What the first window gives to that window. */
export interface SecondHost {
  join(seat: SecondSeat): {
    title: string;
    settings: Partial<KeyboardSettings>;
    cursorHidden: () => boolean;
    /** A text was too long to be typed. */
    refused: () => void;
    send: (input: InputWithoutSeq) => void;
    live: () => boolean;
    resized(box: Size): void;
    /** Its visibility changed. */
    seen(): void;
    /** The user asked by keyboard to leave its keyboard focus. */
    leave(): void;
    left(): void;
  };
}

type Listener<T> = (event: T) => void;

/** A round trip older than this is measured anew when somebody asks for it. */
const staleRttMillis = 1000;

/** Shows one session in a container and sends its input. */
export class Viewer {
  readonly #options: ViewerOptions;
  readonly #session: Session;
  readonly #channel: DisplayChannel;
  readonly #origin: URL;
  readonly #stage: Stage;
  readonly #field: HTMLTextAreaElement;
  readonly #abort = new AbortController();
  readonly #listeners = new Map<keyof ViewerEvents, Set<Listener<never>>>();
  #capture: Capture | undefined;
  #second: { seat: SecondSeat; box: Size } | undefined;
  #picture: Size | undefined;
  #cursor: Cursor | undefined;
  #limited: Size | undefined;
  #alternatives: readonly string[] = [];
  #pingedAt = Number.NEGATIVE_INFINITY;
  #display: DisplayStats = emptyStats();

  constructor(options: ViewerOptions) {
    this.#options = options;
    const stage = new Stage(options.container, {
      settled: () => this.#resize(),
      zoomed: () => this.#emit("zoom", undefined),
    });
    const field = document.createElement("textarea");
    field.className = "penstock-keys";
    field.setAttribute("aria-label", texts.keyboardLabel);
    field.autocapitalize = "off";
    field.autocomplete = "off";
    field.spellcheck = false;
    stage.element.append(field);
    this.#stage = stage;
    this.#field = field;

    const store = new StoredSession(sessionValues());
    if (options.ticket !== undefined) {
      store.startAnew();
    }
    const origin = new URL(options.origin ?? location.origin);
    this.#origin = origin;
    const scheme = origin.protocol === "https:" ? "wss:" : "ws:";
    this.#channel = newDisplayChannel({
      newCanvas: () => this.#newCanvas(),
      newSecondCanvas: () => this.#second?.seat.canvas(),
      stats: (stats) => {
        if (stats.updates !== this.#display.updates) {
          this.#session.displayActive();
        }
        this.#display = stats;
        if (this.#listeners.get("stats")?.size) {
          this.#emit("stats", this.#read());
        }
      },
      restarted: () => this.#session.displayRestarted(),
      decoder: options.decoder,
      newWorker: options.newWorker,
    });
    this.#session = new Session({
      connect: connectWith(options.socket),
      display: this.#channel,
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
          stage.element.dataset["state"] = state;
          this.#second?.seat.state(state);
          this.#emit("state", state);
          if (state === "streaming") {
            this.#begin();
          }
        },
        ended: (reason) => {
          this.#abort.abort();
          this.#second?.seat.close();
          this.#emit("ended", reason);
        },
        welcome: ({ sessionId, application, displayPort }) => {
          this.#tellLimit();
          this.#emit("welcome", { sessionId, application, displayPort });
        },
        drawn: (width, height) => {
          this.#picture = { width, height };
          this.#share();
        },
        cursor: (cursor) => {
          this.#cursor = cursor;
          stage.setCursor(cursor);
          this.#second?.seat.cursor(cursor);
          this.#capture?.cursorChanged();
        },
        notice: (notice) => this.#emit("notice", notice),
        portBlocked: (blocked) => this.#emit("portBlocked", blocked),
      },
      now: () => performance.now(),
      random: Math.random,
    });
    stage.element.dataset["state"] = this.#session.state;
  }

  get state(): SessionState {
    return this.#session.state;
  }

  /** Connects; call once, after the listeners are there. */
  start(): void {
    const { signal } = this.#abort;
    this.#capture = captureInput({
      stage: this.#stage.element,
      field: this.#field,
      settings: { mac: isMac(), commandIsControl: isMac() },
      cursorHidden: () => this.#cursorHidden(),
      refused: () => this.#emit("inputRefused", undefined),
      send: (input) => this.#session.input(input),
      live: () => this.#session.state === "streaming",
      toRemote: (clientX, clientY) => this.#stage.toRemote(clientX, clientY),
      zoomAt: (factor, clientX, clientY) => this.zoomAt(factor, clientX, clientY),
      panBy: (dx, dy) => this.panBy(dx, dy),
      leave: () => this.#emit("leaveKeyboard", undefined),
      signal,
    });
    this.#stage.follow(signal);
    const seen = () => this.#seen();
    window.addEventListener("pagehide", () => this.#second?.seat.close(), { signal });
    document.addEventListener("visibilitychange", seen, { signal });
    // A frozen page is as good as hidden; what its connections did meanwhile is found out at once afterwards.
    document.addEventListener("freeze", () => this.#session.setHidden(true), { signal });
    document.addEventListener("resume", seen, { signal });
    window.addEventListener("online", () => this.#session.probe(), { signal });
    window.addEventListener("focus", () => this.#session.probe(), { signal });
    window.addEventListener("pageshow", (event) => event.persisted && this.#session.probe(), {
      signal,
    });
    this.#options.signal?.addEventListener("abort", () => this.leave(), { signal });
    this.#seen();
    this.#session.start();
  }

  /** Listens until signal ends. */
  on<K extends keyof ViewerEvents>(
    name: K,
    listener: Listener<ViewerEvents[K]>,
    signal?: AbortSignal,
  ): void {
    const listeners = this.#listeners.get(name) ?? new Set();
    listeners.add(listener as Listener<never>);
    this.#listeners.set(name, listeners);
    signal?.addEventListener("abort", () => listeners.delete(listener as Listener<never>));
  }

  /** The host that the session is reached at now. */
  get host(): string {
    return this.#session.host ?? this.#origin.host;
  }

  stats(): ViewerStats {
    const now = performance.now();
    if (now - this.#pingedAt > staleRttMillis && this.state === "streaming") {
      this.#pingedAt = now;
      this.#session.ping();
    }
    return this.#read();
  }

  #read(): ViewerStats {
    const rttMs = this.#session.rttMs ?? 0;
    const { bytes, decodeMs, frameAgeMs, updates, epoch, width, height } = this.#display;
    const { videoFrames, videoDecodeMs, videoPath, videoCodec, videoHardware } = this.#display;
    return {
      rttMs,
      frameAgeMs: frameAgeMs + rttMs / 2,
      bytes: { control: this.#session.controlBytes, display: bytes },
      sent: this.#session.controlSent + this.#display.sent,
      decodeMs,
      updates,
      epoch,
      width,
      height,
      scale: this.#wish().scale,
      zoom: this.#stage.percent,
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

  /** The first picture is there: keys go to the session, unless the user has gone elsewhere meanwhile. */
  #begin(): void {
    const { activeElement, body } = this.#field.ownerDocument;
    if (activeElement === null || activeElement === body) {
      this.focus(); // not before: it would make the browser lay the page out while the connection is made
    }
    this.#capture?.began();
  }

  /** Gives the keyboard to the session. */
  focus(): void {
    this.#field.focus({ preventScroll: true });
  }

  /** Has the page show something to read. */
  tell(text: string): void {
    this.#emit("told", text);
  }

  /** Opens or closes the screen keyboard of a phone or tablet; from a gesture of the user's. */
  showKeyboard(shown: boolean): void {
    this.#capture?.showKeyboard(shown);
  }

  /** Locks the pointer to the session, for games and the like; from a gesture of the user's. Escape frees it. */
  lockPointer(locked: boolean): void {
    this.#capture?.lockPointer(locked);
  }

  /** Whether ⌘ is the session's Control; true on a Mac unless changed. */
  get commandIsControl(): boolean {
    return this.#capture?.settings.commandIsControl ?? false;
  }

  set commandIsControl(is: boolean) {
    if (this.#capture !== undefined) {
      this.#capture.settings.commandIsControl = is;
    }
  }

  /** Whether keys go by their place, so that the session's keyboard and input methods decide what they make. */
  get keysByPlace(): boolean {
    return this.#capture?.settings.byPlace ?? false;
  }

  set keysByPlace(is: boolean) {
    if (this.#capture !== undefined) {
      this.#capture.settings.byPlace = is;
    }
  }

  refresh(): void {
    this.#session.refresh();
  }

  /** "fit", or percent, where 100 draws the picture pixel for pixel. */
  get zoom(): Zoom {
    return this.#stage.zoom;
  }

  set zoom(zoom: Zoom) {
    this.#stage.setZoom(zoom);
  }

  /** What the zoom comes to now, in percent. */
  get zoomPercent(): number {
    return this.#stage.percent;
  }

  zoomStep(direction: 1 | -1): void {
    this.#stage.step(direction);
  }

  /** Zooms by a factor around a point of the window, as two fingers do. */
  zoomAt(factor: number, clientX: number, clientY: number): void {
    this.#stage.zoomAt(factor, clientX, clientY);
  }

  /** Moves a picture that is larger than the window, in CSS pixels. */
  panBy(dx: number, dy: number): void {
    this.#stage.panBy(dx, dy);
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
    this.#stage.setCanvas(canvas);
    return canvas;
  }

  /** The screen that the session is asked for: the stage's, in device pixels, or the fixed one. */
  #wish() {
    const fixed = this.#options.fixedSize;
    if (fixed !== undefined) {
      return { ...fixed, scale: 100 };
    }
    const wish = { ...this.#stage.box, scale: Math.round(this.#stage.pixelRatio * 100) };
    const second = this.#second?.box;
    return second === undefined ? wish : { ...wish, second };
  }

  /** Whether the session and this browser can show a second monitor in a window of its own. */
  get takesSecond(): boolean {
    return this.#session.takesSecond && this.#channel.canShowSecond === true;
  }

  /** Opens the window of the second monitor, or closes it; false when the browser does not let it open. */
  toggleSecond(): boolean {
    if (this.#second !== undefined) {
      this.#second.seat.close();
      return true;
    }
    const host: SecondHost = { join: (seat) => this.#join(seat) };
    Object.assign(window, { penstockSecond: host });
    const { width, height } = this.#options.container.getBoundingClientRect();
    return window.open("./second.html", "_blank", `popup,width=${width},height=${height}`) !== null;
  }

  #join(seat: SecondSeat): ReturnType<SecondHost["join"]> {
    this.#second?.seat.close();
    const second = { seat, box: seat.box };
    this.#second = second;
    const mine = () => this.#second === second;
    seat.state(this.#session.state);
    if (this.#cursor !== undefined) {
      seat.cursor(this.#cursor);
    }
    this.#resize();
    this.#seen();
    this.#emit("second", true);
    return {
      title: document.title,
      settings: { ...this.#capture?.settings },
      cursorHidden: () => this.#cursorHidden(),
      refused: () => this.#emit("inputRefused", undefined),
      send: (input) => {
        const { x } = this.#parts()?.second ?? { x: 0 };
        this.#session.input("x" in input ? { ...input, x: input.x + x } : input);
      },
      live: () => this.#session.state === "streaming" && this.#parts() !== undefined,
      resized: (box) => {
        second.box = box;
        if (mine()) {
          this.#resize();
        }
      },
      seen: () => this.#seen(),
      leave: () => {
        window.focus();
        this.#emit("leaveKeyboard", undefined);
      },
      left: () => {
        if (mine()) {
          this.#second = undefined;
          this.#resize();
          this.#share();
          this.#seen();
          this.#emit("second", false);
        }
      },
    };
  }

  /** The parts of the picture that the windows show; undefined while the picture is not that of two monitors. */
  #parts(): { first: Part; second: Part } | undefined {
    const { width, height, second } = this.#session.screen;
    if (
      this.#second === undefined ||
      second === undefined ||
      this.#picture?.width !== width + second.width ||
      this.#picture.height !== Math.max(height, second.height)
    ) {
      return undefined;
    }
    return { first: { x: 0, y: 0, width, height }, second: { x: width, y: 0, ...second } };
  }

  /** Gives each window its part of the picture. */
  #share(): void {
    if (this.#picture === undefined) {
      return;
    }
    const parts = this.#parts();
    this.#stage.setPicture(this.#picture, parts?.first);
    if (parts !== undefined) {
      this.#channel.showSecond?.(parts.second);
      this.#second?.seat.show(parts.second);
    } else if (this.#second === undefined) {
      this.#channel.showSecond?.(undefined);
    }
  }

  #cursorHidden(): boolean {
    return this.#cursor !== undefined && this.#cursor.rgba.byteLength === 0;
  }

  #seen(): void {
    const second = this.#second?.seat.hidden() ?? true;
    this.#session.setHidden(document.visibilityState === "hidden" && second);
  }

  #resize(): void {
    const wish = this.#wish();
    if (this.#options.fixedSize !== undefined || wish.width === 0 || wish.height === 0) {
      return;
    }
    this.#stage.await(this.#session.resize(wish));
    if (this.#second !== undefined) {
      this.#share(); // two monitors of another share of the same screen make no new picture
    }
    this.#tellLimit();
  }

  /** Tells once that the window is larger than the session's screen can be, and once that it no longer is. */
  #tellLimit(): void {
    const wish = this.#wish();
    const max = this.#session.maxSize;
    const over = max !== undefined && (wish.width > max.width || wish.height > max.height);
    if (over !== (this.#limited !== undefined)) {
      this.#limited = over ? max : undefined;
      this.#emit("limited", this.#limited);
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
