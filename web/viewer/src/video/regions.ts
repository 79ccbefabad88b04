import { type VideoSection, videoRegions } from "@penstock/protocol";
import { codecBit, decoderConfig, type Media, MediaFault } from "./media.ts";

/** Access units that a decoder may have at once before it counts as one that holds frames back. */
const maxInside = 2;

/** One access unit on its way through a decoder. */
export class FrameTicket {
  readonly decoder: RegionDecoder;
  readonly timestamp: number;
  frame: VideoFrame | undefined;
  fault: MediaFault | undefined;
  #dropped = false;

  constructor(decoder: RegionDecoder, timestamp: number) {
    this.decoder = decoder;
    this.timestamp = timestamp;
  }

  /** The frame, or why there is none, is known. */
  get answered(): boolean {
    return this.frame !== undefined || this.fault !== undefined;
  }

  accept(frame: VideoFrame): void {
    if (this.#dropped) {
      frame.close();
    } else {
      this.frame = frame;
    }
  }

  /** Closes the frame, now or when it comes. */
  drop(): void {
    this.#dropped = true;
    this.frame?.close();
    this.frame = undefined;
  }
}

/** Receives what decoders say, whenever they say it. */
export interface RegionEvents {
  /** A ticket was answered. */
  answered(decodeMillis: number): void;
}

/** The decoder of one video region, from one key to the next. One access unit in, one frame out, in order. */
export class RegionDecoder {
  readonly codec: number;
  readonly kind: HardwareAcceleration;
  readonly codedWidth: number;
  readonly codedHeight: number;
  readonly #media: Media;
  readonly #events: RegionEvents;
  readonly #now: () => number;
  readonly #decoder: VideoDecoder;
  /** Not yet answered, in order, and when each was handed in. */
  readonly #inside: FrameTicket[] = [];
  readonly #since: number[] = [];
  #timestamp = 0;
  #retired = false;
  #answers = 0;

  constructor(
    media: Media,
    section: VideoSection,
    kind: HardwareAcceleration,
    events: RegionEvents,
    now: () => number,
  ) {
    this.codec = codecBit(section.codec);
    this.kind = kind;
    this.codedWidth = section.codedWidth;
    this.codedHeight = section.codedHeight;
    this.#media = media;
    this.#events = events;
    this.#now = now;
    try {
      this.#decoder = media.newDecoder({
        output: (frame) => this.#output(frame),
        error: (error) => this.#failed(String(error)),
      });
      this.#decoder.configure(
        decoderConfig(this.codec, this.codedWidth, this.codedHeight, kind, section.data),
      );
    } catch (cause) {
      throw new MediaFault(this.codec, `decoder refused: ${cause}`);
    }
  }

  /** Throws MediaFault. */
  decode(data: Uint8Array, key: boolean): FrameTicket {
    if (this.kind === "prefer-hardware" && this.#answers > 0 && this.#inside.length >= maxInside) {
      throw new MediaFault(this.codec, "decoder holds frames back");
    }
    this.#timestamp += 1000;
    const ticket = new FrameTicket(this, this.#timestamp);
    this.#inside.push(ticket);
    this.#since.push(this.#now());
    try {
      this.#decoder.decode(
        this.#media.newChunk({
          type: key ? "key" : "delta",
          timestamp: ticket.timestamp,
          data: data as Uint8Array<ArrayBuffer>,
        }),
      );
    } catch (cause) {
      this.#failed(String(cause));
    }
    return ticket;
  }

  /** No more comes in; the decoder goes when the last frame is out. */
  retire(): void {
    this.#retired = true;
    if (this.#inside.length === 0) {
      this.close();
    }
  }

  close(): void {
    this.#retired = true;
    this.#inside.length = 0;
    this.#since.length = 0;
    if (this.#decoder.state !== "closed") {
      this.#decoder.close();
    }
  }

  #output(frame: VideoFrame): void {
    const ticket = this.#inside[0];
    if (ticket?.timestamp !== frame.timestamp) {
      frame.close();
      if (ticket !== undefined) {
        this.#failed("decoder left a frame out");
      }
      return;
    }
    this.#inside.shift();
    const since = this.#since.shift() as number;
    this.#answers++;
    ticket.accept(frame);
    if (this.#retired && this.#inside.length === 0) {
      this.close();
    }
    this.#events.answered(this.#now() - since);
  }

  #failed(reason: string): void {
    const tickets = this.#inside.splice(0);
    for (const ticket of tickets) {
      ticket.fault = new MediaFault(this.codec, reason);
    }
    this.close();
    if (tickets.length > 0) {
      this.#events.answered(0);
    }
  }
}

/** The decoders of an epoch's video regions, at most two. */
export class VideoRegions {
  readonly #media: Media;
  readonly #events: RegionEvents;
  readonly #now: () => number;
  readonly #decoders: (RegionDecoder | undefined)[] = Array(videoRegions).fill(undefined);
  /** Retired decoders whose frames are still awaited. */
  #leaving: RegionDecoder[] = [];
  /** For each codec's bit, which kind of decoder is used: an index into media.kinds. */
  readonly #step = new Map<number, number>();

  constructor(media: Media, events: RegionEvents, now: () => number) {
    this.#media = media;
    this.#events = events;
    this.#now = now;
  }

  /** Hands an access unit to its region's decoder, a new one when it is a key. Throws MediaFault. */
  decode(section: VideoSection, key: boolean): FrameTicket {
    const bit = codecBit(section.codec);
    if (key) {
      this.end(section.region);
      const kind = this.#media.kinds.get(bit)?.[this.#step.get(bit) ?? 0];
      if (kind === undefined) {
        throw new MediaFault(bit, "codec was not offered");
      }
      this.#decoders[section.region] = new RegionDecoder(
        this.#media,
        section,
        kind,
        this.#events,
        this.#now,
      );
    }
    const decoder = this.#decoders[section.region];
    if (
      decoder?.codec !== bit ||
      decoder.codedWidth !== section.codedWidth ||
      decoder.codedHeight !== section.codedHeight
    ) {
      throw new MediaFault(bit, "video goes on without a key");
    }
    return decoder.decode(section.data, key);
  }

  /** The region is over; frames that are on their way still come out. */
  end(region: number): void {
    const decoder = this.#decoders[region];
    if (decoder !== undefined) {
      this.#decoders[region] = undefined;
      this.#leaving.push(decoder);
      decoder.retire();
      if (this.#leaving.length > 8) {
        this.#leaving.shift(); // long out of frames: the agent has at most 3 updates under way
      }
    }
  }

  /** Closes every decoder, for a new epoch. */
  reset(): void {
    for (const decoder of [...this.#decoders, ...this.#leaving]) {
      decoder?.close();
    }
    this.#decoders.fill(undefined);
    this.#leaving = [];
  }

  /** From now on the next kind of decoder is used for a codec; false when there is none left. */
  stepDown(bit: number): boolean {
    const step = (this.#step.get(bit) ?? 0) + 1;
    if (step >= (this.#media.kinds.get(bit)?.length ?? 0)) {
      return false;
    }
    this.#step.set(bit, step);
    return true;
  }
}
