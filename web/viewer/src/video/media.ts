import { codec, videoCodec } from "@penstock/protocol";

/** What a decoder yields: a frame, or a bitmap where frames are unknown. Whoever receives it closes it. */
export type Still = VideoFrame | ImageBitmap;

/**
 * What this browser decodes beyond tiles. It is probed, and even then not believed: a decoder that fails or
 * never answers is a MediaFault, after which Display offers less.
 */
export interface Media {
  /** Bits of start.codecs. */
  readonly codecs: number;
  /** For each video codec's bit, the kinds of decoder to try in turn: hardware first. */
  readonly kinds: ReadonlyMap<number, readonly HardwareAcceleration[]>;
  /** Frames can be copied into memory as RGB. */
  readonly canCopy: boolean;
  decodeImage(data: Uint8Array): Promise<Still>;
  newDecoder(init: VideoDecoderInit): VideoDecoder;
  newChunk(init: EncodedVideoChunkInit): EncodedVideoChunk;
}

/** A decoder that failed, or did not answer in time. */
export class MediaFault extends Error {
  /** Bit of start.codecs. */
  readonly codec: number;

  constructor(bit: number, reason: string) {
    super(reason);
    this.name = "MediaFault";
    this.codec = bit;
  }
}

/** Nothing beyond tiles. */
export const noMedia: Media = {
  codecs: 0,
  kinds: new Map(),
  canCopy: false,
  decodeImage: () => Promise.reject(new Error("images are not decoded here")),
  newDecoder: () => {
    throw new Error("video is not decoded here");
  },
  newChunk: () => {
    throw new Error("video is not decoded here");
  },
};

/** The bit of start.codecs of a video section's codec. */
export function codecBit(sectionCodec: number): number {
  return sectionCodec === videoCodec.vp8 ? codec.vp8 : codec.h264;
}

/**
 * Configuration of a decoder. The colours are said here as the protocol has them: neither codec's stream says
 * them, and browsers take BT.709 for what is not said.
 */
export function decoderConfig(
  bit: number,
  codedWidth: number,
  codedHeight: number,
  kind: HardwareAcceleration,
  key?: Uint8Array,
): VideoDecoderConfig {
  return {
    codec: bit === codec.vp8 ? "vp8" : `avc1.${profileLevel(codedWidth, codedHeight, key)}`,
    codedWidth,
    codedHeight,
    colorSpace: {
      primaries: "bt709",
      transfer: "iec61966-2-1",
      matrix: "smpte170m",
      fullRange: false,
    },
    hardwareAcceleration: kind,
    optimizeForLatency: true,
  };
}

/** profile_idc, constraints and level_idc in hex: from the sequence parameter set, else of constrained baseline. */
function profileLevel(width: number, height: number, key: Uint8Array | undefined): string {
  const hex = (byte: number) => byte.toString(16).padStart(2, "0");
  if (key !== undefined) {
    const end = Math.min(key.byteLength - 6, 256);
    for (let i = 0; i < end; i++) {
      if (
        key[i] === 0 &&
        key[i + 1] === 0 &&
        key[i + 2] === 1 &&
        ((key[i + 3] as number) & 31) === 7
      ) {
        return [key[i + 4], key[i + 5], key[i + 6]].map((byte) => hex(byte as number)).join("");
      }
    }
  }
  const macroblocks = Math.ceil(width / 16) * Math.ceil(height / 16);
  return `42c0${hex(macroblocks <= 3600 ? 31 : macroblocks <= 8704 ? 42 : 52)}`;
}

/** A picture of one grey pixel; what a probe decodes. */
const greyJPEG =
  "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRTc4UG1RV19iZ2hnPk1xeXBkeFxlZ2P/wAALCAABAAEBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAAf/EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8AH//Z";

/** Finds out what the browser can. Never rejects. */
export async function browserMedia(): Promise<Media> {
  if (!readsBackExactly()) {
    return noMedia; // a privacy setting blurs what is read from canvases: lossless tiles alone can be right
  }
  const [jpeg, h264, vp8, canCopy] = await Promise.all([
    decodesImages(),
    decoderKinds(codec.h264),
    decoderKinds(codec.vp8),
    copiesFrames(),
  ]);
  return {
    codecs:
      (jpeg ? codec.jpeg : 0) |
      (h264.length > 0 ? codec.h264 : 0) |
      (vp8.length > 0 ? codec.vp8 : 0),
    kinds: new Map([
      [codec.h264, h264],
      [codec.vp8, vp8],
    ]),
    canCopy,
    decodeImage,
    newDecoder: (init) => new VideoDecoder(init),
    newChunk: (init) => new EncodedVideoChunk(init),
  };
}

async function decoderKinds(bit: number): Promise<HardwareAcceleration[]> {
  if (typeof VideoDecoder === "undefined") {
    return []; // an old browser, or a page without TLS
  }
  const all: HardwareAcceleration[] = ["prefer-hardware", "prefer-software", "no-preference"];
  const supported = await Promise.all(
    all.map(async (kind) => {
      try {
        const config = decoderConfig(bit, 1280, 720, kind);
        return (await VideoDecoder.isConfigSupported(config)).supported === true;
      } catch {
        return false;
      }
    }),
  );
  const kinds = all.filter((_, i) => supported[i]);
  return kinds.length > 1 ? kinds.filter((kind) => kind !== "no-preference") : kinds;
}

async function decodesImages(): Promise<boolean> {
  try {
    const still = await decodeImage(Uint8Array.from(atob(greyJPEG), (c) => c.charCodeAt(0)));
    const { width } = stillSize(still);
    still.close();
    return width === 1;
  } catch {
    return false;
  }
}

/** The size in pixels of what a still shows. */
export function stillSize(still: Still): { width: number; height: number } {
  return "copyTo" in still
    ? { width: still.visibleRect?.width ?? 0, height: still.visibleRect?.height ?? 0 }
    : { width: still.width, height: still.height };
}

async function decodeImage(data: Uint8Array): Promise<Still> {
  const bytes = data as Uint8Array<ArrayBuffer>;
  if (typeof ImageDecoder !== "undefined") {
    const decoder = new ImageDecoder({
      type: "image/jpeg",
      data: bytes,
      colorSpaceConversion: "none",
    });
    try {
      return (await decoder.decode()).image;
    } finally {
      decoder.close();
    }
  }
  return createImageBitmap(new Blob([bytes], { type: "image/jpeg" }), {
    colorSpaceConversion: "none",
    premultiplyAlpha: "none",
  });
}

/** Whether copyTo converts to RGB, opaque, and takes a stride. */
async function copiesFrames(): Promise<boolean> {
  if (typeof VideoFrame === "undefined") {
    return false;
  }
  let frame: VideoFrame | undefined;
  try {
    // 4×4 pixels of Y = 235, the brightest in the limited range
    frame = new VideoFrame(new Uint8Array(24).fill(235, 0, 16).fill(128, 16), {
      format: "I420",
      codedWidth: 4,
      codedHeight: 4,
      timestamp: 0,
    });
    const pixels = new Uint32Array(5 * 4);
    await frame.copyTo(pixels, {
      format: "RGBX",
      rect: { x: 0, y: 0, width: 2, height: 2 },
      layout: [{ offset: 4, stride: 20 }],
    });
    return pixels[1] === 0xffffffff && pixels[7] === 0xffffffff && pixels[3] === 0;
  } catch {
    return false;
  } finally {
    frame?.close();
  }
}

function readsBackExactly(): boolean {
  try {
    const canvas =
      typeof OffscreenCanvas === "undefined"
        ? Object.assign(document.createElement("canvas"), { width: 16, height: 16 })
        : new OffscreenCanvas(16, 16);
    const context = canvas.getContext("2d", { alpha: false }) as CanvasRenderingContext2D | null;
    if (context === null) {
      return false;
    }
    const image = context.createImageData(16, 16);
    for (let i = 0; i < image.data.length; i++) {
      image.data[i] = i % 4 === 3 ? 255 : (i * 37) & 255;
    }
    context.putImageData(image, 0, 0);
    const back = context.getImageData(0, 0, 16, 16).data;
    return image.data.every((value, i) => back[i] === value);
  } catch {
    return false;
  }
}
