import { Reader } from "./bytes.ts";
import { BadMessage } from "./errors.ts";
import {
  type ControlFromAgent,
  type ControlFromViewer,
  type Copy,
  type DisplayFromAgent,
  type DisplayFromViewer,
  type Fill,
  type JPEGSection,
  type MessageKind,
  maxFromAgent,
  maxFromViewer,
  maxMonitors,
  refreshReason,
  type Section,
  typeOf,
  type Update,
  type VideoSection,
  videoCodec,
  videoFlag,
  videoRegions,
} from "./messages.ts";

const nameOf = new Map<number, MessageKind>(
  (Object.entries(typeOf) as [MessageKind, number][]).map(([name, type]) => [type, name]),
);

/** What the agent sends on the control connection. Throws BadMessage. */
export function decodeControlFromAgent(bytes: Uint8Array): ControlFromAgent {
  const { kind, body } = open(bytes, maxFromAgent);
  switch (kind) {
    case "welcome":
      return {
        kind,
        version: body.u16(),
        capabilities: body.u32(),
        displayPort: body.u16(),
        maxWidth: body.u16(),
        maxHeight: body.u16(),
        sessionId: body.str8(),
        application: body.str8(),
        displayTicket: body.str16(),
        resumeTicket: body.str16(),
      };
    case "ping":
    case "pong":
      return { kind, time: body.u64() };
    case "cursor": {
      const serial = body.u32();
      const width = body.u16();
      const height = body.u16();
      const hotX = body.u16();
      const hotY = body.u16();
      return { kind, serial, width, height, hotX, hotY, rgba: body.bytes(width * height * 4) };
    }
    case "cursor-again":
      return { kind, serial: body.u32() };
    case "ended":
      return { kind, code: body.u16(), reason: body.str16() };
    case "tickets":
      return { kind, displayTicket: body.str16(), resumeTicket: body.str16() };
    case "notice":
      return { kind, code: body.u16(), text: body.str16() };
    default:
      throw misplaced(kind);
  }
}

/** What the viewer sends on the control connection. Throws BadMessage. */
export function decodeControlFromViewer(bytes: Uint8Array): ControlFromViewer {
  const { kind, body } = open(bytes, maxFromViewer);
  switch (kind) {
    case "hello":
      return {
        kind,
        version: body.u16(),
        capabilities: body.u32(),
        width: body.u16(),
        height: body.u16(),
        scale: body.u16(),
        flags: body.u8(),
      };
    case "ping":
    case "pong":
      return { kind, time: body.u64() };
    case "resize":
      return { kind, width: body.u16(), height: body.u16(), scale: body.u16() };
    case "monitors": {
      const scale = body.u16();
      const count = body.u8();
      if (count < 1 || count > maxMonitors) {
        throw new BadMessage(kind, "count is neither 1 nor 2");
      }
      const monitors = Array.from({ length: count }, () => ({
        width: body.u16(),
        height: body.u16(),
      }));
      return { kind, scale, monitors };
    }
    case "visibility":
      return { kind, hidden: body.bool() };
    case "end":
    case "need-display-ticket":
      return { kind };
    case "pointer":
      return { kind, seq: body.u32(), x: body.u16(), y: body.u16(), buttons: body.u8() };
    case "wheel":
      return {
        kind,
        seq: body.u32(),
        x: body.u16(),
        y: body.u16(),
        dx: body.i16(),
        dy: body.i16(),
      };
    case "key":
      return {
        kind,
        seq: body.u32(),
        down: body.bool(),
        flags: body.u8(),
        code: body.str8(),
        key: body.str8(),
      };
    case "text":
      return { kind, seq: body.u32(), text: body.str16() };
    case "release-all":
      return { kind, seq: body.u32() };
    case "relative":
      return { kind, seq: body.u32(), dx: body.i16(), dy: body.i16(), buttons: body.u8() };
    case "keyboard": {
      const seq = body.u32();
      const language = body.str8();
      const count = body.u8();
      if (count * 2 > body.remaining) {
        body.fail("too short");
      }
      const keys: { code: string; key: string }[] = [];
      for (let i = 0; i < count; i++) {
        keys.push({ code: body.str8(), key: body.str8() });
      }
      return { kind, seq, language, keys };
    }
    default:
      throw misplaced(kind);
  }
}

/** What the agent sends on the display connection. Throws BadMessage. */
export function decodeDisplayFromAgent(bytes: Uint8Array): DisplayFromAgent {
  const { kind, body } = open(bytes, maxFromAgent);
  if (kind !== "update") {
    throw misplaced(kind);
  }
  const update: Update = {
    kind,
    seq: body.u32(),
    epoch: body.u32(),
    flags: body.u8(),
    captureMicros: body.u64(),
    width: body.u16(),
    height: body.u16(),
    sections: [],
  };
  const count = body.u8();
  if (update.width === 0 || update.height === 0) {
    body.fail("screen has no pixels");
  }
  for (let i = 0; i < count; i++) {
    const sectionKind = body.u8();
    update.sections.push(decodeSection(sectionKind, body.part(body.u32()), update));
  }
  return update;
}

/** What the viewer sends on the display connection. Throws BadMessage. */
export function decodeDisplayFromViewer(bytes: Uint8Array): DisplayFromViewer {
  const { kind, body } = open(bytes, maxFromViewer);
  switch (kind) {
    case "start":
      return { kind, version: body.u16(), codecs: body.u32(), window: body.u32() };
    case "ack":
      return { kind, seq: body.u32(), decodeMicros: body.u32(), queued: body.u8() };
    case "refresh": {
      const reason = body.u8();
      if (reason > refreshReason.lostPicture) {
        body.fail("unknown reason");
      }
      return { kind, reason };
    }
    default:
      throw misplaced(kind);
  }
}

function open(bytes: Uint8Array, limit: number): { kind: MessageKind; body: Reader } {
  const type = bytes[0];
  if (type === undefined) {
    throw new BadMessage("message", "empty message");
  }
  const kind = nameOf.get(type);
  if (kind === undefined) {
    throw new BadMessage(`type 0x${type.toString(16).padStart(2, "0")}`, "unknown message type");
  }
  if (bytes.byteLength > limit) {
    throw new BadMessage(kind, "larger than the greatest message");
  }
  return { kind, body: new Reader(bytes, kind, 1) };
}

function misplaced(kind: MessageKind): BadMessage {
  return new BadMessage(kind, "not sent on this connection in this direction");
}

function decodeSection(kind: number, body: Reader, screen: Update): Section {
  switch (kind) {
    case 1: {
      const count = body.u16();
      if (count * 12 > body.remaining) {
        body.fail("too short");
      }
      const copies: Copy[] = [];
      for (let i = 0; i < count; i++) {
        const c: Copy = {
          srcX: body.u16(),
          srcY: body.u16(),
          dstX: body.u16(),
          dstY: body.u16(),
          width: body.u16(),
          height: body.u16(),
        };
        if (
          Math.max(c.srcX, c.dstX) + c.width > screen.width ||
          Math.max(c.srcY, c.dstY) + c.height > screen.height
        ) {
          body.fail("copy reaches outside the screen");
        }
        copies.push(c);
      }
      return { kind: "copy", copies };
    }
    case 2: {
      const count = body.u16();
      if (count * 11 > body.remaining) {
        body.fail("too short");
      }
      const fills: Fill[] = [];
      for (let i = 0; i < count; i++) {
        const f: Fill = {
          x: body.u16(),
          y: body.u16(),
          width: body.u16(),
          height: body.u16(),
          r: body.u8(),
          g: body.u8(),
          b: body.u8(),
        };
        if (f.x + f.width > screen.width || f.y + f.height > screen.height) {
          body.fail("fill reaches outside the screen");
        }
        fills.push(f);
      }
      return { kind: "fill", fills };
    }
    case 3:
    case 6: {
      const rawLength = body.u32();
      if (rawLength > 4 * screen.width * screen.height + 65536) {
        body.fail("rawLength is too great for the screen");
      }
      return { kind: kind === 3 ? "tiles" : "text", rawLength, data: body.bytes(body.remaining) };
    }
    case 4:
      return decodeJPEG(body, screen);
    case 5:
      return decodeVideo(body, screen);
    default:
      return body.fail("unknown kind of section");
  }
}

function inside(rect: { x: number; y: number; width: number; height: number }, screen: Update) {
  return rect.x + rect.width <= screen.width && rect.y + rect.height <= screen.height;
}

function decodeJPEG(body: Reader, screen: Update): JPEGSection {
  const section: JPEGSection = {
    kind: "jpeg",
    x: body.u16(),
    y: body.u16(),
    width: body.u16(),
    height: body.u16(),
    data: body.bytes(body.remaining),
  };
  if (section.width === 0 || section.height === 0) {
    body.fail("JPEG has no pixels");
  }
  if (!inside(section, screen)) {
    body.fail("JPEG reaches outside the screen");
  }
  if (section.data.byteLength === 0) {
    body.fail("JPEG has no bytes");
  }
  return section;
}

function decodeVideo(body: Reader, screen: Update): VideoSection {
  const section: VideoSection = {
    kind: "video",
    region: body.u8(),
    codec: body.u8(),
    flags: body.u8(),
    x: body.u16(),
    y: body.u16(),
    width: body.u16(),
    height: body.u16(),
    codedWidth: body.u16(),
    codedHeight: body.u16(),
    data: body.bytes(body.remaining),
  };
  if (section.region >= videoRegions) {
    body.fail("unknown video region");
  }
  if (section.codec !== videoCodec.h264 && section.codec !== videoCodec.vp8) {
    body.fail("unknown video codec");
  }
  if (section.flags & videoFlag.end) {
    return section.data.byteLength === 0
      ? section
      : body.fail("bytes follow the end of a video region");
  }
  const { width, height, codedWidth, codedHeight } = section;
  if (width === 0 || height === 0 || codedWidth === 0 || codedHeight === 0) {
    body.fail("video has no pixels");
  }
  if (!inside(section, screen)) {
    body.fail("video reaches outside the screen");
  }
  if (!(section.flags & videoFlag.scaled) && (codedWidth < width || codedHeight < height)) {
    body.fail("video is smaller than its rectangle");
  }
  if (section.data.byteLength === 0) {
    body.fail("video has no access unit");
  }
  return section;
}
