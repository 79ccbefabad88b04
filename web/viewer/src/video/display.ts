import {
  BadMessage,
  closeCode,
  codec,
  decodeDisplayFromAgent,
  encode,
  refreshReason,
  type Update,
  updateFlag,
  version,
} from "@penstock/protocol";
import type { Connect, Connection } from "../transport/connection.ts";
import { FrameAge } from "./frame_age.ts";
import { Picture } from "./picture.ts";
import { drawTiles } from "./tiles.ts";
import type { ZstdModule, ZstdStream } from "./zstd.ts";

/** Greatest picture in pixels that is accepted: a shadow of 256 MiB. */
const maxPixels = 64 * 1024 * 1024;
/** Refreshes asked for within faultWindowMillis before the connection is given up. */
const maxFaults = 3;
const faultWindowMillis = 60_000;

/** Where a picture is painted: a 2D canvas in a worker or in the page. */
export interface Surface {
  /** Sets the size when it differs, which clears the surface. */
  resize(width: number, height: number): void;
  paint(picture: Picture, x: number, y: number, width: number, height: number): void;
}

export interface DisplayStats {
  bytes: number;
  updates: number;
  epoch: number;
  width: number;
  height: number;
  /** Of the latest update: receipt to drawn. */
  decodeMs: number;
  /** Estimated age of the latest picture when it was drawn, without the way to here; see FrameAge. */
  frameAgeMs: number;
}

export interface DisplayEvents {
  /** The handshake of the display connection succeeded. */
  opened(): void;
  /** The first picture of an epoch is on the surface. */
  drawn(width: number, height: number, epoch: number): void;
  closed(code: number, reason: string, opened: boolean): void;
}

/**
 * The display channel of one page: connects, decodes, paints, acknowledges. The same code runs in a worker
 * and, where there is none, in the page. One connection at a time.
 */
export class Display {
  readonly #connect: Connect;
  readonly #surface: Surface;
  readonly #events: DisplayEvents;
  readonly #now: () => number;
  #zstdReady: ZstdModule | undefined;
  #zstdFault: string | undefined;
  #stream: ZstdStream | undefined;
  #connection: Connection | undefined;
  #picture: Picture | undefined;
  #queue: { bytes: Uint8Array; at: number }[] = [];
  #awaitsEpoch = true;
  #faults: number[] = [];
  #age = new FrameAge();
  readonly stats: DisplayStats = {
    bytes: 0,
    updates: 0,
    epoch: 0,
    width: 0,
    height: 0,
    decodeMs: 0,
    frameAgeMs: 0,
  };

  constructor(
    connect: Connect,
    surface: Surface,
    zstd: Promise<ZstdModule>,
    events: DisplayEvents,
    now: () => number = () => performance.now(),
  ) {
    this.#connect = connect;
    this.#surface = surface;
    this.#events = events;
    this.#now = now;
    zstd.then(
      (ready) => this.#decoderReady(ready),
      (cause: unknown) => this.#decoderFailed(cause),
    );
  }

  open(url: string, ticket: string): void {
    this.close();
    this.#age = new FrameAge();
    const connection = this.#connect(url, ticket, {
      opened: () => {
        this.#send({
          kind: "start",
          version,
          codecs: codec.tiles | codec.copy | codec.fill,
          window: 0,
        });
        this.#events.opened();
      },
      message: (bytes) => this.#receive(bytes),
      closed: (code, reason, opened) => {
        if (this.#connection === connection) {
          this.#connection = undefined;
          this.#queue = [];
          this.#events.closed(code, reason, opened);
        }
      },
    });
    this.#connection = connection;
  }

  /** Ends the connection without an event. The surface keeps its picture. */
  close(): void {
    const connection = this.#connection;
    this.#connection = undefined;
    this.#queue = [];
    this.#awaitsEpoch = true;
    this.#stream?.close();
    this.#stream = undefined;
    connection?.close(1000, "");
  }

  refresh(reason: number): void {
    this.#send({ kind: "refresh", reason });
  }

  #send(message: Parameters<typeof encode>[0]): void {
    const bytes = encode(message);
    this.stats.bytes += bytes.byteLength;
    this.#connection?.send(bytes);
  }

  #receive(bytes: Uint8Array): void {
    this.stats.bytes += bytes.byteLength;
    const at = this.#now();
    if (this.#zstdReady !== undefined) {
      this.#draw(bytes, at, 0);
      return;
    }
    if (this.#zstdFault !== undefined) {
      this.#connection?.close(closeCode.internal, this.#zstdFault);
      return;
    }
    // The decoder still loads: the agent sends at most 3 updates without an acknowledgement.
    this.#queue.push({ bytes, at });
  }

  #decoderReady(zstd: ZstdModule): void {
    this.#zstdReady = zstd;
    const queue = this.#queue;
    this.#queue = [];
    queue.forEach(({ bytes, at }, i) => {
      this.#draw(bytes, at, queue.length - 1 - i);
    });
  }

  #decoderFailed(cause: unknown): void {
    this.#zstdFault = `no decoder: ${cause}`;
    if (this.#queue.length > 0) {
      this.#connection?.close(closeCode.internal, this.#zstdFault);
    }
  }

  #draw(bytes: Uint8Array, receivedAt: number, queued: number): void {
    const connection = this.#connection;
    if (connection === undefined) {
      return;
    }
    let update: Update;
    try {
      update = decodeDisplayFromAgent(bytes);
    } catch (cause) {
      this.#fault(cause, connection);
      return;
    }
    const newEpoch = (update.flags & updateFlag.newEpoch) !== 0;
    try {
      if (newEpoch) {
        this.#begin(update);
      }
      if (!this.#awaitsEpoch) {
        this.#apply(update);
      }
    } catch (cause) {
      this.#fault(cause, connection);
    }
    if (this.#connection !== connection) {
      return;
    }
    const drawnAt = this.#now();
    const micros = Math.round((drawnAt - receivedAt) * 1000);
    // An update that was dropped is acknowledged too, or the agent would wait for it.
    this.#send({
      kind: "ack",
      seq: update.seq,
      decodeMicros: Math.min(Math.max(micros, 0), 0xffffffff),
      queued: Math.min(queued, 255),
    });
    if (this.#awaitsEpoch) {
      return;
    }
    this.stats.updates++;
    this.stats.decodeMs = micros / 1000;
    this.stats.frameAgeMs = this.#age.measure(
      Number(update.captureMicros) / 1000,
      receivedAt,
      drawnAt,
    );
    if (newEpoch) {
      this.stats.epoch = update.epoch;
      this.stats.width = update.width;
      this.stats.height = update.height;
      this.#events.drawn(update.width, update.height, update.epoch);
    }
  }

  #begin(update: Update): void {
    if (update.width * update.height > maxPixels) {
      throw new BadMessage("update", "screen is too large");
    }
    this.#stream?.close();
    this.#stream = undefined;
    this.#awaitsEpoch = false;
    const picture = this.#picture;
    if (picture?.width === update.width && picture.height === update.height) {
      picture.reset();
    } else {
      this.#picture = new Picture(update.width, update.height);
    }
  }

  #apply(update: Update): void {
    const picture = this.#picture;
    if (picture?.width !== update.width || picture.height !== update.height) {
      throw new BadMessage("update", "screen changed its size within an epoch");
    }
    for (const section of update.sections) {
      switch (section.kind) {
        case "copy":
          section.copies.forEach((copy) => {
            picture.copy(copy);
          });
          break;
        case "fill":
          section.fills.forEach((fill) => {
            picture.fill(fill);
          });
          break;
        case "tiles":
          this.#stream ??= this.#zstdReady?.stream();
          this.#stream?.decode(section.data, section.rawLength, (raw) => drawTiles(picture, raw));
          break;
      }
    }
    this.#surface.resize(picture.width, picture.height);
    for (const box of picture.takeChanges()) {
      this.#surface.paint(picture, box.x, box.y, box.width, box.height);
    }
  }

  /** Asks for a new epoch, or gives the connection up when that happened too often. */
  #fault(cause: unknown, connection: Connection): void {
    if (!(cause instanceof BadMessage)) {
      connection.close(closeCode.internal, String(cause));
      return;
    }
    this.#awaitsEpoch = true;
    const now = this.#now();
    this.#faults = this.#faults.filter((at) => now - at < faultWindowMillis);
    this.#faults.push(now);
    if (this.#faults.length > maxFaults) {
      connection.close(closeCode.badMessage, cause.message);
      return;
    }
    this.refresh(refreshReason.decoderFault);
  }
}
