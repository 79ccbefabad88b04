import {
  BadMessage,
  type ControlFromAgent,
  type ControlFromViewer,
  type Cursor,
  closeCode,
  decodeControlFromAgent,
  encode,
  helloFixedSize,
  helloKeepsCursors,
  type Input,
  keptCursors,
  type Notice,
  version,
  type Welcome,
  welcomeMonitors,
} from "@penstock/protocol";
import type { Connect, Connection } from "../transport/connection.ts";
import { Backoff } from "./backoff.ts";
import type { DisplayChannel } from "./display_channel.ts";
import { type EndReason, isFinal } from "./end_reason.ts";
import type { SessionStore } from "./store.ts";

export type SessionState = "connecting" | "streaming" | "reconnecting" | "ended";

/** The screen that the viewer wishes, in physical pixels; 0×0 keeps what is there. */
export interface ScreenWish {
  width: number;
  height: number;
  /** Percent; 100 is 96 dpi. */
  scale: number;
  /** A second monitor, to the right of the first. */
  second?: { width: number; height: number };
}

export interface SessionEvents {
  state(state: SessionState): void;
  ended(reason: EndReason): void;
  welcome(welcome: Welcome): void;
  /** The first picture of an epoch is drawn. */
  drawn(width: number, height: number): void;
  cursor(cursor: Cursor): void;
  notice(notice: Notice): void;
  /** The display port does not answer while control works; undefined when it answers again. */
  portBlocked(blocked: { port: number; displayTicket: string } | undefined): void;
}

export interface SessionOptions {
  connect: Connect;
  display: DisplayChannel;
  store: SessionStore;
  /** Of the page's own host; alternatives are other hosts of the same endpoint. */
  controlUrl: (host: string | undefined) => string;
  displayUrl: (port: number, host: string | undefined) => string;
  /** Hosts to try in turn when the one before does not answer. */
  alternatives?: () => readonly string[];
  /** From the page's address; without it the stored resume ticket is used. */
  ticket: string | undefined;
  screen: ScreenWish;
  fixedSize: boolean;
  events: SessionEvents;
  /** ms of a monotonic clock. */
  now: () => number;
  /** From 0 to 1; spreads the retries of many viewers. */
  random: () => number;
  /** How long lost connections are retried, in ms. */
  reconnectMillis?: number;
  /** How long the first connection is tried, in ms. */
  connectMillis?: number;
}

/**
 * Something happened and control said nothing for this long: ask. For silentMillis: give the connection up (docs/protocol.md). While
 * nothing happens nothing is asked, so that a still picture costs no bytes: the gateway's kernel watches the connection.
 */
const askMillis = 2500;
const silentMillis = 30_000;
/** A picture that changed at regular intervals up to this, and misses its turn twice, is a reason to ask, too. */
const regularMillis = 60_000;
/** Nothing was said and nothing happened for this long. */
const quietMillis = 20_000;
/** So many quiet connections lost: something between cuts them, so they are kept busy from then on. */
const maxQuietLosses = 2;
const busyMillis = 15_000;
/** After a hint that the network changed, an answer must come this soon. */
const probeMillis = 4_000;
/** Display handshakes that fail before the port counts as blocked. */
const blockedAfter = 2;
/** Between two display connections, should the first end at once. */
const displayRestMillis = 500;
/** Display connections given up for broken updates within pictureFaultMillis. */
const maxPictureFaults = 3;
const pictureFaultMillis = 10 * 60_000;

/** Why the display connection is not there, while control is. */
interface DisplayTry {
  failures: number;
  since: number;
}

/**
 * The life of one viewer of one session: control connection, tickets, reconnects, and the display channel
 * that hangs on them. No DOM. After ended it does nothing more.
 */
export class Session {
  readonly #options: SessionOptions;
  readonly #events: SessionEvents;
  readonly #reconnectMillis: number;
  readonly #connectMillis: number;
  readonly #retry: Backoff;
  #state: SessionState = "connecting";
  #control: Connection | undefined;
  #controlOpened = false;
  #welcome: Welcome | undefined;
  #ticket: string | undefined;
  #displayTicket = "";
  #screen: ScreenWish;
  /** The screen that hello asked for. */
  #greeted: ScreenWish | undefined;
  #hidden = false;
  #triedSince: number;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  #watchTimer: ReturnType<typeof setTimeout> | undefined;
  #displayTimer: ReturnType<typeof setTimeout> | undefined;
  #displayTry: DisplayTry | undefined;
  /** The ticket of the display handshake under way; it is redeemed only when that succeeds. */
  #triedTicket = "";
  #awaitsDisplayTicket = false;
  #displayTriedAt = Number.NEGATIVE_INFINITY;
  #pictureFaults: number[] = [];
  #heardAt = 0;
  /** Since when something happened that nothing heard on control has confirmed. */
  #unsureSince: number | undefined;
  /** When something happened last, and the time between the last three of these. */
  #stirredAt = Number.NEGATIVE_INFINITY;
  #interval = Number.POSITIVE_INFINITY;
  #intervalBefore = Number.POSITIVE_INFINITY;
  /** The question of unsureSince was asked. */
  #asked = false;
  #quietLosses = 0;
  #probeUntil: number | undefined;
  #pinged: { time: bigint; at: number } | undefined;
  #rttMs: number | undefined;
  /** By serial, in the order in which they came: the last ones, as the agent counts on. */
  readonly #cursors = new Map<number, Cursor>();
  #endReason: EndReason | undefined;
  #bytes = 0;
  #sent = 0;
  /** Which host is connected to: 0 is the page's own, others are alternatives. */
  #at = 0;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#events = options.events;
    this.#reconnectMillis = options.reconnectMillis ?? 5 * 60_000;
    this.#connectMillis = options.connectMillis ?? 20_000;
    this.#retry = new Backoff(options.random);
    this.#screen = options.screen;
    this.#triedSince = options.now();
    options.display.listen({
      opened: () => this.#displayOpened(),
      drawn: (width, height) => this.#drawn(width, height),
      closed: (code, reason, opened) => this.#displayClosed(code, reason, opened),
      failed: (code, reason) => this.#end({ kind: "fault", code, reason }),
    });
  }

  get state(): SessionState {
    return this.#state;
  }

  get endReason(): EndReason | undefined {
    return this.#endReason;
  }

  /** Latest round trip on control in ms. */
  get rttMs(): number | undefined {
    return this.#rttMs;
  }

  /** Bytes of messages on control, both ways. */
  get controlBytes(): number {
    return this.#bytes;
  }

  /** The part of controlBytes that this side sent. */
  get controlSent(): number {
    return this.#sent;
  }

  /** The alternative host that is connected to; undefined for the page's own. */
  get host(): string | undefined {
    return this.#host();
  }

  /** Bytes of input that the network has not taken yet. */
  get inputWaiting(): number {
    return this.#control?.waiting ?? 0;
  }

  start(): void {
    const stored = this.#options.store.resumeTicket();
    this.#ticket = this.#options.ticket ?? stored;
    if (this.#ticket === undefined) {
      this.#end({ kind: "fault", code: "no-ticket", reason: "" });
      return;
    }
    // A reload before welcome tries the same ticket again: its use may not have come to pass.
    this.#options.store.keepResumeTicket(this.#ticket);
    this.#openControl();
  }

  /** Sends input while streaming; otherwise it is lost, for input is never replayed. */
  input(input: DistributiveOmit<Input, "seq">): void {
    if (this.#state === "streaming") {
      this.#send({ ...input, seq: this.#options.store.nextSeq() } as Input);
      this.#options.display.check();
      if (this.#quiet() >= quietMillis) {
        this.probe(); // somebody is back, and is not to wait for an answer that cannot come
      }
      this.#stir();
    }
  }

  /** The picture changed. */
  displayActive(): void {
    if (this.#welcome !== undefined) {
      this.#stir();
    }
  }

  /** The greatest screen that the session can have, once it is known. */
  get maxSize(): { width: number; height: number } | undefined {
    const welcome = this.#welcome;
    return welcome && { width: welcome.maxWidth, height: welcome.maxHeight };
  }

  /** Asks for another screen, unless it has a fixed size; returns what was asked for, undefined for nothing. */
  resize(screen: ScreenWish): ScreenWish | undefined {
    const before = this.#fit(this.#screen);
    this.#screen = screen;
    const wish = this.#fit(screen);
    if (
      this.#welcome === undefined ||
      this.#options.fixedSize ||
      JSON.stringify(before) === JSON.stringify(wish)
    ) {
      return undefined;
    }
    this.#sendScreen(wish);
    return wish;
  }

  /** The screen that was asked for, as the session can have it. */
  get screen(): ScreenWish {
    return this.#fit(this.#screen);
  }

  /** Whether the session's agent takes a second monitor. */
  get takesSecond(): boolean {
    const capabilities = this.#welcome?.capabilities ?? 0;
    return (capabilities & welcomeMonitors) !== 0 && !this.#options.fixedSize;
  }

  #sendScreen({ width, height, scale, second }: ScreenWish): void {
    if (second === undefined) {
      this.#send({ kind: "resize", width, height, scale });
    } else {
      this.#send({ kind: "monitors", scale, monitors: [{ width, height }, second] });
    }
  }

  setHidden(hidden: boolean): void {
    if (this.#hidden === hidden) {
      return;
    }
    this.#hidden = hidden;
    if (this.#welcome !== undefined) {
      this.#send({ kind: "visibility", hidden });
    }
    if (!hidden) {
      this.probe();
    }
  }

  /** The network may have changed: retry now, or find out soon whether the connection still lives. */
  probe(): void {
    if (this.#retryTimer !== undefined) {
      this.#openControl();
    } else if (this.#welcome !== undefined) {
      this.#options.display.check();
      this.#probeUntil ??= this.#options.now() + probeMillis;
      this.ping();
      this.#watch();
    }
  }

  /** Measures the round trip. */
  ping(): void {
    if (this.#welcome === undefined) {
      return;
    }
    const at = this.#options.now();
    const time = BigInt(Math.round(at * 1000));
    this.#pinged = { time, at };
    this.#send({ kind: "ping", time });
    this.#unsureSince ??= at;
    this.#asked = true;
    this.#watch();
  }

  refresh(): void {
    this.#options.display.refresh(0);
  }

  /** The user ends the session; the agent answers with ended. */
  endSession(): void {
    if (this.#welcome === undefined) {
      this.#end({ kind: "closed", code: "by-user", reason: "", resumable: false });
      return;
    }
    this.#send({ kind: "end" });
    setTimeout(() => {
      this.#end({ kind: "closed", code: "by-user", reason: "", resumable: false });
    }, 3000);
  }

  /** Leaves without ending the session: it can be resumed. */
  leave(): void {
    this.#end({ kind: "closed", code: "left", reason: "", resumable: true });
  }

  /** The display channel's maker lost it (a worker crashed) and has a new one. */
  displayRestarted(): void {
    if (this.#welcome !== undefined && this.#state !== "ended") {
      this.#displayClosed(1006, "display worker restarted", true);
    }
  }

  #setState(state: SessionState): void {
    if (this.#state !== state && this.#state !== "ended") {
      this.#state = state;
      this.#events.state(state);
    }
  }

  #send(message: ControlFromViewer): void {
    const bytes = encode(message);
    this.#bytes += bytes.byteLength;
    this.#sent += bytes.byteLength;
    this.#control?.send(bytes);
  }

  #fit(screen: ScreenWish): ScreenWish {
    const { width, height, scale } = screen;
    if (width === 0 || height === 0) {
      return screen;
    }
    const maxWidth = this.#welcome?.maxWidth ?? 16384;
    const maxHeight = this.#welcome?.maxHeight ?? 16384;
    const bound = (value: number, max: number) => Math.max(64, Math.min(value, max));
    const first = { width: bound(width, maxWidth), height: bound(height, maxHeight), scale };
    if (screen.second === undefined || !this.takesSecond) {
      return first;
    }
    const second = {
      width: bound(screen.second.width, maxWidth),
      height: bound(screen.second.height, maxHeight),
    };
    const both = first.width + second.width;
    if (both > maxWidth) {
      // As the agent cuts them (docs/protocol.md).
      first.width = Math.max(64, Math.floor((first.width * maxWidth) / both));
      second.width = Math.max(64, maxWidth - first.width);
    }
    return { ...first, second };
  }

  // Control connection.

  #openControl(): void {
    clearTimeout(this.#retryTimer);
    this.#retryTimer = undefined;
    this.#controlOpened = false;
    const url = this.#options.controlUrl(this.#host());
    const control = this.#options.connect(url, this.#ticket ?? "", {
      opened: () => {
        if (this.#control !== control) {
          return;
        }
        this.#controlOpened = true;
        this.#cursors.clear();
        this.#greeted = this.#fit(this.#screen);
        this.#send({
          kind: "hello",
          version,
          capabilities: helloKeepsCursors,
          width: this.#greeted.width,
          height: this.#greeted.height,
          scale: this.#greeted.scale,
          flags: this.#options.fixedSize ? helloFixedSize : 0,
        });
        this.#heard();
      },
      message: (bytes) => {
        if (this.#control === control) {
          this.#receive(bytes);
        }
      },
      closed: (code, reason, opened) => {
        if (this.#control === control) {
          this.#controlClosed(code, reason, opened);
        }
      },
    });
    this.#control = control;
  }

  #alternatives(): readonly string[] {
    return this.#options.alternatives?.() ?? [];
  }

  /** The host to connect to; undefined is the page's own. */
  #host(): string | undefined {
    return this.#at === 0 ? undefined : this.#alternatives()[this.#at - 1];
  }

  #receive(bytes: Uint8Array): void {
    this.#bytes += bytes.byteLength;
    this.#heard();
    let message: ControlFromAgent;
    try {
      message = decodeControlFromAgent(bytes);
      if (
        (this.#welcome === undefined) !== (message.kind === "welcome") &&
        message.kind !== "ended"
      ) {
        throw new BadMessage(message.kind, "out of order");
      }
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      this.#control?.close(closeCode.badMessage, reason.slice(0, 100));
      return;
    }
    switch (message.kind) {
      case "welcome":
        this.#welcomed(message);
        break;
      case "tickets":
        this.#ticket = message.resumeTicket;
        this.#options.store.keepResumeTicket(message.resumeTicket);
        if (message.displayTicket !== "") {
          this.#displayTicket = message.displayTicket;
          if (this.#awaitsDisplayTicket) {
            this.#openDisplay();
          }
        }
        break;
      case "ping":
        this.#send({ kind: "pong", time: message.time });
        break;
      case "pong":
        if (this.#pinged?.time === message.time) {
          this.#rttMs = this.#options.now() - this.#pinged.at;
          this.#pinged = undefined;
        }
        break;
      case "cursor":
        this.#keepCursor({ ...message, rgba: message.rgba.slice() });
        break;
      case "cursor-again": {
        const cursor = this.#cursors.get(message.serial);
        if (cursor !== undefined) {
          this.#events.cursor(cursor);
        }
        break;
      }
      case "notice":
        this.#events.notice(message);
        break;
      case "ended":
        this.#end({ kind: "ended", code: message.code, reason: message.reason });
        break;
    }
  }

  #keepCursor(cursor: Cursor): void {
    if (cursor.rgba.byteLength > 0) {
      const [oldest] = this.#cursors.keys();
      if (this.#cursors.size === keptCursors && oldest !== undefined) {
        this.#cursors.delete(oldest);
      }
      this.#cursors.set(cursor.serial, cursor);
    }
    this.#events.cursor(cursor);
  }

  #welcomed(welcome: Welcome): void {
    this.#welcome = welcome;
    this.#ticket = welcome.resumeTicket;
    this.#displayTicket = welcome.displayTicket;
    this.#options.store.keepResumeTicket(welcome.resumeTicket);
    this.#events.welcome(welcome);
    this.#displayTry = { failures: 0, since: this.#options.now() };
    this.#openDisplay();
    const wish = this.#fit(this.#screen);
    if (!this.#options.fixedSize && JSON.stringify(wish) !== JSON.stringify(this.#greeted)) {
      // hello went out before the greatest size was known, or the window changed meanwhile
      this.#sendScreen(wish);
    }
    if (this.#hidden) {
      this.#send({ kind: "visibility", hidden: true });
    }
    this.ping();
  }

  #controlClosed(code: number, reason: string, opened: boolean): void {
    if (code === 1006 && this.#welcome !== undefined && this.#quiet() >= quietMillis) {
      this.#quietLosses++;
    }
    clearTimeout(this.#watchTimer);
    this.#watchTimer = undefined;
    this.#probeUntil = undefined;
    this.#pinged = undefined;
    this.#control = undefined;
    if (!opened || code === closeCode.tooSlow) {
      // Nothing is heard at this host: the next attempt is at another one of the endpoint.
      this.#at = (this.#at + 1) % (1 + this.#alternatives().length);
    }
    const now = this.#options.now();
    if (this.#welcome !== undefined) {
      this.#welcome = undefined;
      this.#triedSince = now;
      this.#retry.reset();
    }
    this.#stopDisplay();
    this.#events.portBlocked(undefined);
    if (isFinal(code)) {
      this.#end({ kind: "refused", code, reason });
      return;
    }
    const first = this.#state === "connecting";
    if (!first) {
      this.#setState("reconnecting");
    }
    const wait = this.#retry.next();
    const bound = first ? this.#connectMillis : this.#reconnectMillis;
    if (now + wait - this.#triedSince > bound) {
      this.#end({
        kind: "closed",
        code: first && !opened && !this.#controlOpened ? "unreachable" : "lost",
        reason: code === 1006 ? "" : `${code} ${reason}`.trim(),
        resumable: true,
      });
      return;
    }
    this.#retryTimer = setTimeout(() => this.#openControl(), wait);
  }

  // Silence on control.

  #heard(): void {
    this.#heardAt = this.#options.now();
    this.#probeUntil = undefined;
    this.#unsureSince = undefined;
    this.#asked = false;
    this.#watch();
  }

  /** Something happened here or there; whether control still lives is to be found out, unless it says something anyway. */
  #stir(): void {
    const now = this.#options.now();
    this.#intervalBefore = this.#interval;
    this.#interval = now - this.#stirredAt;
    this.#stirredAt = now;
    if (this.#unsureSince === undefined) {
      this.#unsureSince = now;
      this.#watch();
    }
  }

  /** For how long nothing was heard and nothing happened, in ms. */
  #quiet(): number {
    return this.#options.now() - Math.max(this.#heardAt, this.#stirredAt);
  }

  /** Sets one timer for the next moment at which silence means something; none while it never does. */
  #watch(): void {
    clearTimeout(this.#watchTimer);
    this.#watchTimer = undefined;
    const now = this.#options.now();
    const lost = this.#unsureSince !== undefined && now - this.#unsureSince >= silentMillis;
    if (lost || (this.#probeUntil !== undefined && now >= this.#probeUntil)) {
      this.#control?.close(closeCode.tooSlow, "nothing heard from the agent");
      return;
    }
    const due = this.#nextQuestion();
    if (due !== undefined && due <= now) {
      this.ping(); // which watches
      return;
    }
    const silent = this.#asked ? (this.#unsureSince ?? now) + silentMillis : undefined;
    const next = Math.min(...[due, silent, this.#probeUntil].filter((at) => at !== undefined));
    if (next !== Number.POSITIVE_INFINITY) {
      this.#watchTimer = setTimeout(() => {
        this.#watchTimer = undefined;
        if (this.#control !== undefined) {
          this.#watch();
        }
      }, next - now);
    }
  }

  /** When to ask whether control lives; undefined: no need, or asked already. */
  #nextQuestion(): number | undefined {
    if (this.#asked || this.#welcome === undefined) {
      return undefined;
    }
    if (this.#unsureSince !== undefined) {
      return this.#unsureSince + askMillis;
    }
    const turn = this.#stirredAt + 2 * this.#interval;
    const [short, long] = [this.#interval, this.#intervalBefore].sort((a, b) => a - b) as [
      number,
      number,
    ];
    const regular = short >= askMillis && long <= Math.min(2 * short, regularMillis);
    if (regular && this.#heardAt < turn) {
      return turn;
    }
    return this.#quietLosses >= maxQuietLosses ? this.#heardAt + busyMillis : undefined;
  }

  // Display connection.

  #openDisplay(): void {
    const port = this.#welcome?.displayPort;
    if (port === undefined) {
      return;
    }
    this.#awaitsDisplayTicket = this.#displayTicket === "";
    if (this.#awaitsDisplayTicket) {
      this.#send({ kind: "need-display-ticket" });
      return;
    }
    this.#displayTriedAt = this.#options.now();
    this.#triedTicket = this.#displayTicket;
    this.#displayTicket = "";
    this.#options.display.open(this.#options.displayUrl(port, this.#host()), this.#triedTicket);
  }

  #displayOpened(): void {
    this.#triedTicket = "";
    if (this.#displayTry !== undefined && this.#displayTry.failures >= blockedAfter) {
      this.#events.portBlocked(undefined);
    }
  }

  #drawn(width: number, height: number): void {
    if (this.#state === "ended" || this.#welcome === undefined) {
      return;
    }
    this.#displayTry = undefined;
    this.#retry.reset();
    this.#setState("streaming");
    this.#events.drawn(width, height);
  }

  #displayClosed(code: number, reason: string, opened: boolean): void {
    const welcome = this.#welcome;
    if (welcome === undefined || this.#state === "ended") {
      return; // control went first and decides
    }
    if (!opened && this.#displayTicket === "") {
      this.#displayTicket = this.#triedTicket; // no handshake: not redeemed
    }
    if (this.#state === "streaming") {
      this.#setState("reconnecting");
    }
    const now = this.#options.now();
    const attempt = this.#displayTry ?? { failures: 0, since: now };
    this.#displayTry = attempt;
    attempt.failures++;
    const ticketRefused =
      code === closeCode.badTicket ||
      code === closeCode.ticketUsed ||
      code === closeCode.ticketExpired;
    if (code === closeCode.badMessage) {
      this.#pictureFaults = this.#pictureFaults.filter((at) => now - at < pictureFaultMillis);
      this.#pictureFaults.push(now);
    }
    const givenUp =
      code === closeCode.badMessage
        ? this.#pictureFaults.length > maxPictureFaults
        : isFinal(code) && !ticketRefused;
    if (givenUp) {
      this.#end({ kind: "refused", code, reason });
      return;
    }
    const bound = this.#state === "connecting" ? 2 * 60_000 : this.#reconnectMillis;
    if (now - attempt.since > bound || (ticketRefused && attempt.failures > 5)) {
      this.#end(
        opened
          ? { kind: "refused", code, reason }
          : { kind: "port", code: "port-blocked", port: welcome.displayPort, resumable: true },
      );
      return;
    }
    if (!opened && attempt.failures === blockedAfter) {
      this.#events.portBlocked({ port: welcome.displayPort, displayTicket: this.#displayTicket });
    }
    const rest = this.#displayTriedAt + displayRestMillis - now;
    const wait =
      attempt.failures === 1
        ? Math.max(rest, 0)
        : Math.min(250 * 2 ** (attempt.failures - 2), 3000);
    clearTimeout(this.#displayTimer);
    this.#displayTimer = setTimeout(() => {
      this.#displayTimer = undefined;
      this.#openDisplay();
    }, wait);
  }

  #stopDisplay(): void {
    clearTimeout(this.#displayTimer);
    this.#displayTimer = undefined;
    this.#displayTry = undefined;
    this.#awaitsDisplayTicket = false;
    this.#displayTicket = "";
    this.#options.display.close();
  }

  #end(reason: EndReason): void {
    if (this.#state === "ended") {
      return;
    }
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#watchTimer);
    this.#retryTimer = undefined;
    this.#endReason = reason;
    this.#stopDisplay();
    const control = this.#control;
    this.#control = undefined;
    this.#welcome = undefined;
    control?.close(1000, "");
    if (!("resumable" in reason && reason.resumable)) {
      this.#options.store.forget();
    }
    this.#setState("ended");
    this.#events.ended(reason);
  }
}

type DistributiveOmit<T, K extends PropertyKey> = T extends unknown ? Omit<T, K> : never;
export type InputWithoutSeq = DistributiveOmit<Input, "seq">;
