import { Writer } from "./bytes.ts";
import { type Message, type Section, typeOf, type Update } from "./messages.ts";

/** The whole message as bytes. A number that does not fit its field is a RangeError. */
export function encode(message: Message): Uint8Array<ArrayBuffer> {
  const out = new Writer(typeOf[message.kind]);
  switch (message.kind) {
    case "hello":
      out.u16(message.version).u32(message.capabilities);
      out.u16(message.width).u16(message.height).u16(message.scale).u8(message.flags);
      break;
    case "welcome":
      out.u16(message.version).u32(message.capabilities).u16(message.displayPort);
      out.u16(message.maxWidth).u16(message.maxHeight);
      out.str8(message.sessionId).str8(message.application);
      out.str16(message.displayTicket).str16(message.resumeTicket);
      break;
    case "ping":
    case "pong":
      out.u64(message.time);
      break;
    case "resize":
      out.u16(message.width).u16(message.height).u16(message.scale);
      break;
    case "monitors":
      out.u16(message.scale).u8(message.monitors.length);
      for (const { width, height } of message.monitors) {
        out.u16(width).u16(height);
      }
      break;
    case "cursor-again":
      out.u32(message.serial);
      break;
    case "cursor":
      if (message.rgba.byteLength !== message.width * message.height * 4) {
        throw new RangeError("cursor: rgba has not width·height·4 bytes");
      }
      out.u32(message.serial).u16(message.width).u16(message.height);
      out.u16(message.hotX).u16(message.hotY).bytes(message.rgba);
      break;
    case "ended":
      out.u16(message.code).str16(message.reason);
      break;
    case "tickets":
      out.str16(message.displayTicket).str16(message.resumeTicket);
      break;
    case "notice":
      out.u16(message.code).str16(message.text);
      break;
    case "visibility":
      out.bool(message.hidden);
      break;
    case "end":
    case "need-display-ticket":
      break;
    case "pointer":
      out.u32(message.seq).u16(message.x).u16(message.y).u8(message.buttons);
      break;
    case "wheel":
      out.u32(message.seq).u16(message.x).u16(message.y).i16(message.dx).i16(message.dy);
      break;
    case "key":
      out.u32(message.seq).bool(message.down).u8(message.flags);
      out.str8(message.code).str8(message.key);
      break;
    case "text":
      out.u32(message.seq).str16(message.text);
      break;
    case "release-all":
      out.u32(message.seq);
      break;
    case "relative":
      out.u32(message.seq).i16(message.dx).i16(message.dy).u8(message.buttons);
      break;
    case "keyboard": {
      const keys = message.keys.slice(0, 255);
      out.u32(message.seq).str8(message.language).u8(keys.length);
      for (const { code, key } of keys) {
        out.str8(code).str8(key);
      }
      break;
    }
    case "start":
      out.u16(message.version).u32(message.codecs).u32(message.window);
      break;
    case "update":
      encodeUpdate(out, message);
      break;
    case "ack":
      out.u32(message.seq).u32(message.decodeMicros).u8(message.queued);
      break;
    case "refresh":
      out.u8(message.reason);
      break;
  }
  return out.finish();
}

function encodeUpdate(out: Writer, update: Update): void {
  out.u32(update.seq).u32(update.epoch).u8(update.flags).u64(update.captureMicros);
  out.u16(update.width).u16(update.height).u8(update.sections.length);
  for (const section of update.sections) {
    encodeSection(out, section);
  }
}

function encodeSection(out: Writer, section: Section): void {
  switch (section.kind) {
    case "copy":
      out
        .u8(1)
        .u32(2 + 12 * section.copies.length)
        .u16(section.copies.length);
      for (const c of section.copies) {
        out.u16(c.srcX).u16(c.srcY).u16(c.dstX).u16(c.dstY).u16(c.width).u16(c.height);
      }
      break;
    case "fill":
      out
        .u8(2)
        .u32(2 + 11 * section.fills.length)
        .u16(section.fills.length);
      for (const f of section.fills) {
        out.u16(f.x).u16(f.y).u16(f.width).u16(f.height).u8(f.r).u8(f.g).u8(f.b);
      }
      break;
    case "tiles":
    case "text":
      out
        .u8(section.kind === "tiles" ? 3 : 6)
        .u32(4 + section.data.byteLength)
        .u32(section.rawLength)
        .bytes(section.data);
      break;
    case "jpeg":
      out.u8(4).u32(8 + section.data.byteLength);
      out.u16(section.x).u16(section.y).u16(section.width).u16(section.height);
      out.bytes(section.data);
      break;
    case "video":
      out.u8(5).u32(15 + section.data.byteLength);
      out.u8(section.region).u8(section.codec).u8(section.flags);
      out.u16(section.x).u16(section.y).u16(section.width).u16(section.height);
      out.u16(section.codedWidth).u16(section.codedHeight).bytes(section.data);
      break;
  }
}
