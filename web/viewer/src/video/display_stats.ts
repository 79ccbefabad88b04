import { codec } from "@penstock/protocol";
import type { PathKind } from "./frame_path.ts";

/** Codecs that every browser has. */
export const plainCodecs = codec.tiles | codec.copy | codec.fill | codec.text;

/** What a display did, and how. */
export interface DisplayStats {
  /** Of messages, both ways. */
  bytes: number;
  /** The part of bytes that went to the agent. */
  sent: number;
  updates: number;
  epoch: number;
  width: number;
  height: number;
  /** Of the latest update: receipt to drawn. */
  decodeMs: number;
  /** Estimated age of the latest picture when it was drawn, without the way to here; see FrameAge. */
  frameAgeMs: number;
  /** Frames of video regions that were shown. */
  videoFrames: number;
  /** Of the latest frame of video: handed to the decoder to decoded. */
  videoDecodeMs: number;
  /** Of the latest frame: how it came on the canvas. */
  videoPath: PathKind | "none";
  /** Of the latest frame. */
  videoCodec: "h264" | "vp8" | "none";
  videoHardware: boolean;
  /** JPEG pictures that were shown. */
  images: number;
  /** Bits of start.codecs that are offered now. */
  codecs: number;
  /** Faults after which the picture was asked for or painted anew. */
  recoveries: number;
}

export function emptyStats(): DisplayStats {
  return {
    bytes: 0,
    sent: 0,
    updates: 0,
    epoch: 0,
    width: 0,
    height: 0,
    decodeMs: 0,
    frameAgeMs: 0,
    videoFrames: 0,
    videoDecodeMs: 0,
    videoPath: "none",
    videoCodec: "none",
    videoHardware: false,
    images: 0,
    codecs: plainCodecs,
    recoveries: 0,
  };
}
