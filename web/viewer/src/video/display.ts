import {
  BadMessage,
  closeCode,
  codec,
  decodeDisplayFromAgent,
  encode,
  type JPEGSection,
  refreshReason,
  type Section,
  type Update,
  updateFlag,
  type VideoSection,
  version,
  videoFlag,
} from "@penstock/protocol";
import type { Connect, Connection } from "../transport/connection.ts";
import { type DisplayStats, emptyStats, plainCodecs } from "./display_stats.ts";
import { FrameAge } from "./frame_age.ts";
import { FramePath, type PathKind } from "./frame_path.ts";
import { codecBit, type Media, MediaFault, noMedia, type Still, stillSize } from "./media.ts";
import { type Box, Picture } from "./picture.ts";
import { FrameTicket, VideoRegions } from "./regions.ts";
import { Glyphs } from "./text.ts";
import { drawTiles } from "./tiles.ts";
import type { ZstdModule, ZstdStream } from "./zstd.ts";

/** Greatest picture in pixels that is accepted: a shadow of 256 MiB. */
const maxPixels = 64 * 1024 * 1024;
/** Refreshes asked for within faultWindowMillis before the connection is given up. */
const maxFaults = 3;
const faultWindowMillis = 60_000;
/** Faults of one codec's decoder within faultWindowMillis before the codec is not offered any more. */
const maxMediaFaults = 2;
/** Updates that wait for frames: the agent has at most 3 under way. */
const maxQueue = 32;
/** How long a decoder may keep an answer before it counts as one that never answers. */
const stallMillis = 2000;
const hardwareStallMillis = 500;
/** A timer that fires this much later than asked for tells of a suspended thread, not of a slow decoder. */
const suspendedMillis = 1000;
/** How long start may wait for the probes of what the browser decodes. */
const probeMillis = 1000;

/** Where a picture is painted: a 2D canvas in a worker or in the page. */
export interface Surface {
  /** Sets the size when it differs, which clears the surface. */
  resize(width: number, height: number): void;
  paint(picture: Picture, x: number, y: number, width: number, height: number): void;
  /** Draws crop of a still, stretched to a box. */
  draw(still: Still, crop: Box, to: Box): void;
  /** What is on the surface now, row by row. */
  read(box: Box): Uint32Array;
  /** ms that drawing the top left of a still takes until it is done, tried out of sight. */
  timeDraw(still: Still, width: number, height: number): number;
  /** ms that painting a box of the picture takes, likewise. */
  timePaint(picture: Picture, x: number, y: number, width: number, height: number): number;
  /** Frees what the timing used. */
  endTiming(): void;
}

export interface SurfaceEvents {
  /** The surface was lost and is back, blank. */
  restored(): void;
  /** The surface was lost and does not come back. */
  broken(reason: string): void;
}

export interface DisplayEvents {
  /** The handshake of the display connection succeeded. */
  opened(): void;
  /** The first picture of an epoch is on the surface. */
  drawn(width: number, height: number, epoch: number): void;
  closed(code: number, reason: string, opened: boolean): void;
  /** This display cannot go on, but a new one might: memory is short, or something is wrong with it. */
  broken(reason: string): void;
}

/** A JPEG on its way through its decoder. */
class ImageTicket {
  frame: Still | undefined;
  fault: MediaFault | undefined;
  #dropped = false;

  constructor(decoding: Promise<Still>, answered: () => void) {
    decoding.then(
      (still) => {
        if (this.#dropped) {
          still.close();
          return;
        }
        this.frame = still;
        answered();
      },
      (cause: unknown) => {
        this.fault = new MediaFault(codec.jpeg, `JPEG does not decode: ${cause}`);
        answered();
      },
    );
  }

  get answered(): boolean {
    return this.frame !== undefined || this.fault !== undefined;
  }

  drop(): void {
    this.#dropped = true;
    this.frame?.close();
    this.frame = undefined;
  }
}

type Ticket = FrameTicket | ImageTicket;

/** An update on its way to the surface. */
interface Job {
  readonly update: Update;
  readonly receivedAt: number;
  /** At the index of its section, what is being decoded for it. */
  readonly tickets: (Ticket | undefined)[];
  /** Index of the section to apply next. */
  next: number;
}

const noTickets: (Ticket | undefined)[] = [];

/**
 * The display channel of one page: connects, decodes, paints, acknowledges. The same code runs in a worker
 * and, where there is none, in the page. One connection at a time.
 *
 * Updates are drawn in order and their sections too. One that has only tiles, copies and fills is drawn as it
 * comes, without a promise; JPEG and video are handed to their decoders as they come, and whatever follows
 * waits until they are drawn. After a fault a new epoch is asked for and everything before it is dropped.
 */
export class Display {
  readonly #connect: Connect;
  readonly #surface: Surface;
  readonly #events: DisplayEvents;
  readonly #now: () => number;
  #zstdReady: ZstdModule | undefined;
  #zstdFault: string | undefined;
  #stream: ZstdStream | undefined;
  #media: Media | undefined;
  #regions: VideoRegions | undefined;
  #path = new FramePath(false);
  /** Bits of start.codecs that are not offered. */
  #refused = 0;
  /** Bits of codecs that showed something. */
  #worked = 0;
  #connection: Connection | undefined;
  /** The connection whose start waits for the probes. */
  #unstarted: Connection | undefined;
  #picture: Picture | undefined;
  #queue: Job[] = [];
  /** The frame that is being copied into the picture. */
  #copying: Ticket | undefined;
  /** An update's sections are being handed to the decoders. */
  #handing = false;
  #awaitsEpoch = true;
  #faults: number[] = [];
  #mediaFaults: { bit: number; at: number }[] = [];
  #watchTimer: ReturnType<typeof setTimeout> | undefined;
  #watchDue = 0;
  #progressAt = 0;
  #age = new FrameAge();
  #glyphs = new Glyphs();
  readonly #drawText = (raw: Uint8Array): number =>
    this.#glyphs.draw(this.#picture as Picture, raw);
  readonly #drawTiles = (raw: Uint8Array): number => drawTiles(this.#picture as Picture, raw);
  readonly stats: DisplayStats = emptyStats();

  constructor(
    connect: Connect,
    surface: Surface,
    zstd: Promise<ZstdModule>,
    media: Promise<Media>,
    events: DisplayEvents,
    now: () => number = () => performance.now(),
  ) {
    this.#connect = connect;
    this.#surface = surface;
    this.#events = events;
    this.#now = now;
    zstd.then(
      (ready) => {
        this.#zstdReady = ready;
        this.#pump();
      },
      (cause: unknown) => this.#decoderFailed(cause),
    );
    media.then(
      (ready) => this.#mediaReady(ready),
      () => this.#mediaReady(noMedia),
    );
  }

  /** Codecs that are not to be offered, besides those that failed here. */
  refuse(codecs: number): void {
    this.#refused |= codecs;
  }

  open(url: string, ticket: string): void {
    this.close();
    this.#age = new FrameAge();
    const connection = this.#connect(url, ticket, {
      opened: () => {
        if (this.#media === undefined) {
          this.#unstarted = connection;
          setTimeout(() => this.#start(connection), probeMillis);
        } else {
          this.#sendStart();
        }
        this.#events.opened();
      },
      message: (bytes) => {
        if (this.#connection === connection) {
          this.#receive(bytes);
        }
      },
      closed: (code, reason, opened) => {
        if (this.#connection === connection) {
          this.#connection = undefined;
          this.#forget();
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
    this.#forget();
    this.#awaitsEpoch = true;
    this.#stream?.close();
    this.#stream = undefined;
    connection?.close(1000, "");
  }

  refresh(reason: number): void {
    this.#send({ kind: "refresh", reason });
  }

  /** The surface was lost and came back blank. */
  restored(): void {
    this.stats.recoveries++;
    this.repaint();
  }

  /** Paints everything anew; what only the surface had is asked for. */
  repaint(): void {
    const picture = this.#picture;
    if (picture === undefined || this.#awaitsEpoch) {
      return; // a picture is on its way
    }
    if (picture.behind || this.#copying !== undefined) {
      this.#renew(refreshReason.lostPicture);
      return;
    }
    picture.touch(0, 0, picture.width, picture.height);
    this.#paint(picture);
  }

  #send(message: Parameters<typeof encode>[0]): void {
    const bytes = encode(message);
    this.stats.sent += bytes.byteLength;
    this.stats.bytes += bytes.byteLength;
    this.#connection?.send(bytes);
  }

  #sendStart(): void {
    const codecs = (plainCodecs | (this.#media?.codecs ?? 0)) & ~this.#refused;
    this.stats.codecs = codecs;
    this.#send({ kind: "start", version, codecs, window: 0 });
  }

  #start(connection: Connection): void {
    if (this.#unstarted === connection) {
      this.#unstarted = undefined;
      this.#sendStart();
    }
  }

  #mediaReady(media: Media): void {
    this.#media = media;
    this.#path = new FramePath(media.canCopy);
    this.#regions = new VideoRegions(
      media,
      {
        answered: (decodeMillis) => {
          this.stats.videoDecodeMs = decodeMillis;
          this.#pump();
        },
      },
      this.#now,
    );
    if (this.#unstarted !== undefined) {
      this.#start(this.#unstarted);
    }
  }

  #decoderFailed(cause: unknown): void {
    this.#zstdFault = `no decoder: ${cause}`;
    if (this.#queue.length > 0) {
      this.#connection?.close(closeCode.internal, this.#zstdFault);
    }
  }

  #receive(bytes: Uint8Array): void {
    this.stats.bytes += bytes.byteLength;
    const receivedAt = this.#now();
    if (this.#zstdFault !== undefined) {
      this.#connection?.close(closeCode.internal, this.#zstdFault);
      return;
    }
    let update: Update;
    try {
      update = decodeDisplayFromAgent(bytes);
    } catch (cause) {
      this.#fault(cause);
      return;
    }
    const newEpoch = (update.flags & updateFlag.newEpoch) !== 0;
    if (newEpoch) {
      this.#abandon();
    }
    const job: Job = { update, receivedAt, tickets: noTickets, next: 0 };
    if (this.#queue.length === 0) {
      this.#progressAt = receivedAt;
    }
    this.#queue.push(job);
    try {
      if (newEpoch) {
        this.#begin(update);
      }
      if (this.#awaitsEpoch) {
        this.#abandon();
        return;
      }
      if (this.#queue.length > maxQueue) {
        throw new BadMessage("update", "too many updates without an acknowledgement");
      }
      this.#decode(job);
    } catch (cause) {
      this.#fault(cause);
      return;
    }
    this.#pump();
  }

  /** Begins an epoch: a black picture, no zstd stream, no video. */
  #begin(update: Update): void {
    if (update.width * update.height > maxPixels) {
      throw new BadMessage("update", "screen is too large");
    }
    this.#stream?.close();
    this.#stream = undefined;
    this.#glyphs = new Glyphs();
    const picture = this.#picture;
    const same = picture?.width === update.width && picture.height === update.height;
    if (same && this.#copying === undefined) {
      picture.reset();
    } else {
      // A frame that is still being copied goes into the picture that was.
      this.#copying = undefined;
      this.#picture = undefined; // memory may be short
      this.#picture = new Picture(update.width, update.height, (box) => this.#surface.read(box));
    }
    this.#awaitsEpoch = false;
  }

  /** Hands what the update needs to the decoders. */
  #decode(job: Job): void {
    this.#handing = true; // a decoder that fails at once must not be heard before its ticket is kept
    try {
      this.#handOver(job);
    } finally {
      this.#handing = false;
    }
  }

  #handOver(job: Job): void {
    const { sections } = job.update;
    for (let i = 0; i < sections.length; i++) {
      const section = sections[i] as Section;
      if (section.kind !== "jpeg" && section.kind !== "video") {
        continue;
      }
      const ticket =
        section.kind === "jpeg" ? this.#decodeImage(section) : this.#decodeVideo(section);
      if (ticket !== undefined) {
        if (job.tickets === noTickets) {
          (job as { tickets: Job["tickets"] }).tickets = [];
        }
        job.tickets[i] = ticket;
      }
    }
  }

  #decodeImage(section: JPEGSection): Ticket {
    const media = this.#media ?? noMedia;
    return new ImageTicket(media.decodeImage(section.data), () => this.#pump());
  }

  #decodeVideo(section: VideoSection): Ticket | undefined {
    if (section.flags & videoFlag.end) {
      this.#regions?.end(section.region);
      return undefined;
    }
    return this.#regions?.decode(section, (section.flags & videoFlag.key) !== 0);
  }

  /** Draws what can be drawn now, in order. */
  #pump(): void {
    if (this.#zstdReady === undefined || this.#copying !== undefined || this.#handing) {
      return;
    }
    for (let job = this.#queue[0]; job !== undefined; job = this.#queue[0]) {
      try {
        if (!this.#advance(job)) {
          this.#watch();
          return;
        }
      } catch (cause) {
        this.#fault(cause);
        return;
      }
      this.#queue.shift();
      this.#progressAt = this.#now();
      this.#drawn(job);
    }
  }

  /** Applies the sections of an update, from the one where it waited; false when it waits again. */
  #advance(job: Job): boolean {
    const { update, tickets } = job;
    const picture = this.#picture;
    if (picture?.width !== update.width || picture.height !== update.height) {
      throw new BadMessage("update", "screen changed its size within an epoch");
    }
    for (; job.next < update.sections.length; job.next++) {
      const section = update.sections[job.next] as Section;
      switch (section.kind) {
        case "copy":
          for (const copy of section.copies) {
            picture.copy(copy);
          }
          break;
        case "fill":
          for (const fill of section.fills) {
            picture.fill(fill);
          }
          break;
        case "tiles":
          this.#stream ??= this.#zstdReady?.stream();
          this.#stream?.decode(section.data, section.rawLength, this.#drawTiles);
          break;
        case "text":
          this.#stream ??= this.#zstdReady?.stream();
          this.#stream?.decode(section.data, section.rawLength, this.#drawText);
          break;
        case "jpeg":
        case "video": {
          const ticket = tickets[job.next];
          if (ticket === undefined) {
            break; // the end of a region
          }
          if (ticket.fault !== undefined) {
            throw ticket.fault;
          }
          if (!ticket.answered || !this.#show(picture, section, ticket)) {
            return false;
          }
          break;
        }
      }
    }
    this.#paint(picture);
    return true;
  }

  #paint(picture: Picture): void {
    this.#surface.resize(picture.width, picture.height);
    for (const box of picture.takeChanges()) {
      this.#surface.paint(picture, box.x, box.y, box.width, box.height);
    }
  }

  /** Shows a frame; false when it is being copied, after which the update goes on. */
  #show(picture: Picture, section: JPEGSection | VideoSection, ticket: Ticket): boolean {
    const still = ticket.frame as Still;
    const video = section.kind === "video";
    const bit = video ? codecBit(section.codec) : codec.jpeg;
    const scaled = video && (section.flags & videoFlag.scaled) !== 0;
    const size = stillSize(still);
    if (
      video
        ? !scaled && (size.width < section.width || size.height < section.height)
        : size.width !== section.width || size.height !== section.height
    ) {
      throw new MediaFault(bit, `decoded picture is ${size.width}×${size.height}`);
    }
    const draws = !this.#path.canCopy || (video && this.#path.kind === "draw");
    if (!("copyTo" in still) || scaled || draws) {
      this.#surface.resize(picture.width, picture.height); // which would clear it after the frame
      this.#surface.draw(
        still,
        { x: 0, y: 0, ...(scaled ? size : { width: section.width, height: section.height }) },
        section,
      );
      picture.passed(section.x, section.y, section.width, section.height);
      ticket.drop();
      this.#shown(section, ticket, "draw");
      return true;
    }
    this.#copying = ticket;
    this.#copy(picture, still, section).then(
      () => {
        ticket.drop();
        if (this.#copying === ticket) {
          this.#copying = undefined;
          picture.touch(section.x, section.y, section.width, section.height);
          this.#shown(section, ticket, "copy");
          const job = this.#queue[0];
          if (job !== undefined) {
            job.next++;
          }
          this.#progressAt = this.#now();
          this.#pump();
        }
      },
      (cause: unknown) => {
        if (this.#copying === ticket) {
          this.#copying = undefined;
          if (this.#worked & bit) {
            ticket.drop();
            this.#fault(new MediaFault(bit, `frame cannot be copied: ${cause}`));
          } else {
            this.#path.refuseCopy(); // as it never worked: draw this very frame
            this.#pump();
          }
        } else {
          ticket.drop();
        }
      },
    );
    return false;
  }

  async #copy(picture: Picture, frame: VideoFrame, box: Box): Promise<void> {
    const { x, y, width, height } = box;
    picture.replace(x, y, width, height);
    const probe = this.#path.probing && width * height >= 64 * 64;
    const start = this.#now();
    await frame.copyTo(picture.pixels, {
      format: "RGBX",
      rect: {
        x: frame.visibleRect?.x ?? 0,
        y: frame.visibleRect?.y ?? 0,
        width,
        height,
      },
      layout: [{ offset: 4 * (y * picture.width + x), stride: 4 * picture.width }],
    });
    if (probe && this.#picture === picture) {
      const copied = this.#now() - start;
      const painted = this.#surface.timePaint(picture, x, y, width, height);
      this.#path.sample(copied + painted, this.#surface.timeDraw(frame, width, height));
      if (!this.#path.probing) {
        this.#surface.endTiming();
      }
    }
  }

  #shown(section: JPEGSection | VideoSection, ticket: Ticket, path: PathKind): void {
    if (section.kind === "jpeg") {
      this.#worked |= codec.jpeg;
      this.stats.images++;
      return;
    }
    this.#worked |= codecBit(section.codec);
    this.stats.videoFrames++;
    this.stats.videoPath = path;
    this.stats.videoCodec = codecBit(section.codec) === codec.vp8 ? "vp8" : "h264";
    this.stats.videoHardware =
      ticket instanceof FrameTicket && ticket.decoder.kind === "prefer-hardware";
  }

  /** All of an update is on the surface. */
  #drawn({ update, receivedAt }: Job): void {
    const drawnAt = this.#now();
    this.#acknowledge(update.seq, drawnAt - receivedAt);
    this.stats.updates++;
    this.stats.decodeMs = drawnAt - receivedAt;
    this.stats.frameAgeMs = this.#age.measure(
      Number(update.captureMicros) / 1000,
      receivedAt,
      drawnAt,
    );
    if ((update.flags & updateFlag.newEpoch) !== 0) {
      this.stats.epoch = update.epoch;
      this.stats.width = update.width;
      this.stats.height = update.height;
      this.#events.drawn(update.width, update.height, update.epoch);
    }
  }

  #acknowledge(seq: number, millis: number): void {
    this.#send({
      kind: "ack",
      seq,
      decodeMicros: Math.min(Math.max(Math.round(millis * 1000), 0), 0xffffffff),
      queued: Math.min(this.#queue.length, 255),
    });
  }

  /** Drops what waits, but acknowledges it: the agent would wait for that. */
  #abandon(): void {
    const now = this.#now();
    for (let job = this.#queue.shift(); job !== undefined; job = this.#queue.shift()) {
      for (const ticket of job.tickets) {
        if (ticket !== this.#copying) {
          ticket?.drop();
        }
      }
      this.#acknowledge(job.update.seq, now - job.receivedAt);
    }
    this.#regions?.reset();
  }

  /** Drops what waits, as its connection is gone. */
  #forget(): void {
    this.#unstarted = undefined;
    for (const { tickets } of this.#queue.splice(0)) {
      for (const ticket of tickets) {
        if (ticket !== this.#copying) {
          ticket?.drop();
        }
      }
    }
    this.#regions?.reset();
    clearTimeout(this.#watchTimer);
    this.#watchTimer = undefined;
  }

  /** Sees to it that the first update does not wait for ever. No timer runs while nothing waits. */
  #watch(): void {
    const now = this.#now();
    const due = Math.max(now, this.#progressAt + this.#patience());
    if (this.#watchTimer === undefined || due < this.#watchDue) {
      clearTimeout(this.#watchTimer);
      this.#watchDue = due;
      this.#watchTimer = setTimeout(() => this.#look(), due - now);
    }
  }

  #patience(): number {
    const job = this.#queue[0];
    const ticket = job?.tickets[job.next];
    return ticket instanceof FrameTicket &&
      ticket.decoder.kind === "prefer-hardware" &&
      this.#worked & ticket.decoder.codec
      ? hardwareStallMillis
      : stallMillis;
  }

  #look(): void {
    this.#watchTimer = undefined;
    const job = this.#queue[0];
    if (job === undefined || this.#zstdReady === undefined) {
      return;
    }
    const now = this.#now();
    if (now - this.#watchDue > suspendedMillis) {
      this.#progressAt = now;
    }
    if (now - this.#progressAt < this.#patience()) {
      this.#watch();
      return;
    }
    const section = job.update.sections[job.next];
    const bit = section?.kind === "video" ? codecBit(section.codec) : codec.jpeg;
    this.#fault(new MediaFault(bit, "decoder does not answer"));
  }

  /** Something is wrong with the picture: asks for a new epoch, or gives up what keeps failing. */
  #fault(cause: unknown): void {
    const connection = this.#connection;
    if (connection === undefined) {
      return;
    }
    if (cause instanceof MediaFault) {
      this.stats.recoveries++;
      this.#mediaFault(cause, connection);
      return;
    }
    if (!(cause instanceof BadMessage)) {
      this.#picture = undefined;
      this.close();
      this.#events.broken(String(cause));
      return;
    }
    this.stats.recoveries++;
    const now = this.#now();
    this.#faults = this.#faults.filter((at) => now - at < faultWindowMillis);
    this.#faults.push(now);
    if (this.#faults.length > maxFaults) {
      connection.close(closeCode.badMessage, cause.message);
      return;
    }
    this.#renew(refreshReason.decoderFault);
  }

  #mediaFault({ codec: bit, message }: MediaFault, connection: Connection): void {
    const now = this.#now();
    if (!this.#regions?.stepDown(bit)) {
      this.#mediaFaults = this.#mediaFaults.filter(({ at }) => now - at < faultWindowMillis);
      this.#mediaFaults.push({ bit, at: now });
      const count = this.#mediaFaults.filter((fault) => fault.bit === bit).length;
      if (count > maxMediaFaults || (this.#worked & bit) === 0) {
        this.#refused |= bit; // the session connects again, and offers less
        connection.close(closeCode.internal, `decoder given up: ${message}`);
        return;
      }
    }
    this.#renew(refreshReason.decoderFault);
  }

  /** Drops everything until a new epoch, and asks for it. */
  #renew(reason: number): void {
    this.#awaitsEpoch = true;
    this.refresh(reason);
    this.#abandon();
  }
}
