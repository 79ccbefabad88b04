import { codec } from "@penstock/protocol";
import type { Media, Still } from "../video/media.ts";

const opaque = 0xff000000;

/** A frame of one colour. */
export class FakeFrame {
  readonly timestamp: number;
  readonly visibleRect: { x: number; y: number; width: number; height: number };
  readonly pixel: number;
  closed = 0;
  readonly #media: FakeMedia;

  constructor(media: FakeMedia, timestamp: number, width: number, height: number, pixel: number) {
    this.#media = media;
    this.timestamp = timestamp;
    this.visibleRect = { x: 0, y: 0, width, height };
    this.pixel = pixel;
    media.frames.push(this);
  }

  async copyTo(to: Uint32Array, options: VideoFrameCopyToOptions): Promise<PlaneLayout[]> {
    if (this.closed > 0) {
      throw new Error("frame is closed");
    }
    await this.#media.copying;
    if (!this.#media.copies) {
      throw new DOMException("no such format", "NotSupportedError");
    }
    const { width = 0, height = 0 } = options.rect ?? {};
    const { offset, stride } = options.layout?.[0] ?? { offset: 0, stride: 4 * width };
    for (let row = 0; row < height; row++) {
      const start = (offset + row * stride) / 4;
      to.fill(this.pixel, start, start + width);
    }
    return [];
  }

  close(): void {
    this.closed++;
  }
}

/** A decoder whose access units are R, G, B of the frame's colour; it answers when the test says so, or at once. */
class FakeDecoder {
  state: CodecState = "unconfigured";
  config: VideoDecoderConfig | undefined;
  readonly chunks: { type: string; timestamp: number; data: Uint8Array }[] = [];
  readonly #media: FakeMedia;
  readonly #init: VideoDecoderInit;

  constructor(media: FakeMedia, init: VideoDecoderInit) {
    this.#media = media;
    this.#init = init;
  }

  configure(config: VideoDecoderConfig): void {
    if (this.#media.refusesConfig(config)) {
      throw new DOMException("not supported", "NotSupportedError");
    }
    this.config = config;
    this.state = "configured";
  }

  decode(chunk: { type: string; timestamp: number; data: Uint8Array }): void {
    if (this.state !== "configured") {
      throw new DOMException("closed", "InvalidStateError");
    }
    this.chunks.push(chunk);
    if (this.#media.auto) {
      this.answer();
    }
  }

  /** Decodes the oldest access unit; one that begins with 0xff, 0, 0xff is broken. */
  answer(): void {
    const chunk = this.chunks.shift();
    if (chunk === undefined || this.state !== "configured") {
      return;
    }
    const [r = 0, g = 0, b = 0] = chunk.data;
    if (r === 255 && g === 0 && b === 255) {
      this.state = "closed";
      this.#init.error(new DOMException("broken access unit", "EncodingError"));
      return;
    }
    const { codedWidth = 0, codedHeight = 0 } = this.config ?? {};
    const pixel = (opaque | (b << 16) | (g << 8) | r) >>> 0;
    const frame = new FakeFrame(this.#media, chunk.timestamp, codedWidth, codedHeight, pixel);
    this.#init.output(frame as unknown as VideoFrame);
  }

  close(): void {
    this.state = "closed";
    this.chunks.length = 0;
  }
}

/** Decoders that a test plays. JPEGs are R, G, B, width and height. */
export class FakeMedia implements Media {
  codecs: number = codec.jpeg | codec.h264 | codec.vp8;
  kinds = new Map<number, HardwareAcceleration[]>([
    [codec.h264, ["prefer-hardware", "prefer-software"]],
    [codec.vp8, ["prefer-software"]],
  ]);
  canCopy = true;
  /** What copyTo really can. */
  copies = true;
  /** Copies wait for this. */
  copying: Promise<void> | undefined;
  /** Decoders answer at once. */
  auto = true;
  refusesConfig: (config: VideoDecoderConfig) => boolean = () => false;
  readonly decoders: FakeDecoder[] = [];
  readonly frames: FakeFrame[] = [];
  readonly images: { resolve: () => void; reject: () => void }[] = [];

  newDecoder(init: VideoDecoderInit): VideoDecoder {
    const decoder = new FakeDecoder(this, init);
    this.decoders.push(decoder);
    return decoder as unknown as VideoDecoder;
  }

  newChunk(init: EncodedVideoChunkInit): EncodedVideoChunk {
    return init as unknown as EncodedVideoChunk;
  }

  decodeImage(data: Uint8Array): Promise<Still> {
    const [r = 0, g = 0, b = 0, width = 0, height = 0] = data;
    return new Promise((resolve, reject) => {
      const pixel = (opaque | (b << 16) | (g << 8) | r) >>> 0;
      this.images.push({
        resolve: () => {
          const frame = new FakeFrame(this, 0, width, height, pixel);
          resolve(frame as unknown as Still);
        },
        reject: () => reject(new DOMException("broken", "EncodingError")),
      });
    });
  }

  /** Frames that nobody closed, or closed twice. */
  get leaked(): number {
    return this.frames.filter(({ closed }) => closed !== 1).length;
  }
}
