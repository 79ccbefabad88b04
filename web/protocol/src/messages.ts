// The messages of docs/protocol.md. Names and fields are those of the document in lowerCamelCase;
// the Go twin is internal/wire/channel.

/** Greatest protocol version that this package speaks. */
export const version = 1;

/** Greatest message, in bytes. */
export const maxFromViewer = 64 * 1024;
export const maxFromAgent = 32 * 1024 * 1024;

/** WebSocket subprotocols: the first is selected, the second carries the ticket. */
export const subprotocol = "penstock.1";
export const ticketPrefix = "ticket.";

/** First byte of each message; the comments give the body, little-endian. */
export const typeOf = {
  hello: 0x01, // u16 version, u32 capabilities, u16 width, u16 height, u16 scale, u8 flags
  welcome: 0x02, // u16 version, u32 capabilities, u16 displayPort, u16 maxWidth, u16 maxHeight, str8 sessionId, str8 application, str16 displayTicket, str16 resumeTicket
  ping: 0x03, // u64 time
  pong: 0x04, // u64 time
  resize: 0x05, // u16 width, u16 height, u16 scale
  cursor: 0x06, // u32 serial, u16 width, u16 height, u16 hotX, u16 hotY, RGBA
  ended: 0x07, // u16 code, str16 reason
  tickets: 0x08, // str16 displayTicket, str16 resumeTicket
  notice: 0x09, // u16 code, str16 text
  visibility: 0x0a, // u8 hidden
  end: 0x0b, // no body
  "need-display-ticket": 0x0c, // no body
  monitors: 0x0d, // u16 scale, u8 count, count × (u16 width, u16 height)
  "cursor-again": 0x0e, // u32 serial
  pointer: 0x10, // u32 seq, u16 x, u16 y, u8 buttons
  wheel: 0x11, // u32 seq, u16 x, u16 y, i16 dx, i16 dy
  key: 0x12, // u32 seq, u8 down, u8 flags, str8 code, str8 key
  text: 0x13, // u32 seq, str16 text
  "release-all": 0x14, // u32 seq
  relative: 0x15, // u32 seq, i16 dx, i16 dy, u8 buttons
  keyboard: 0x16, // u32 seq, str8 language, u8 count, count × (str8 code, str8 key)
  start: 0x20, // u16 version, u32 codecs, u32 window
  update: 0x21, // u32 seq, u32 epoch, u8 flags, u64 captureMicros, u16 width, u16 height, u8 count, sections
  ack: 0x22, // u32 seq, u32 decodeMicros, u8 queued
  refresh: 0x23, // u8 reason
} as const;

export type MessageKind = keyof typeof typeOf;

/** Bit of hello.flags: the screen keeps its size when the viewer's window changes. */
export const helloFixedSize = 1;

/** Bit of hello.capabilities: cursor-again may name one of the last keptCursors cursors. */
export const helloKeepsCursors = 1;
export const keptCursors = 64;

/** Bit of welcome.capabilities: the agent takes monitors. */
export const welcomeMonitors = 1;
export const maxMonitors = 2;

/** Values of notice.code. */
export const noticeCode = { endsSoon: 1 } as const;

/** Bits of key.flags. */
export const keyFlag = {
  repeat: 1,
  shift: 2,
  ctrl: 4,
  alt: 8,
  meta: 16,
  altGraph: 32,
  capsLock: 64,
  numLock: 128,
} as const;

/** Bits of start.codecs. */
export const codec = { tiles: 1, copy: 2, fill: 4, jpeg: 8, h264: 16, vp8: 32, text: 64 } as const;

/** Bits of update.flags. */
export const updateFlag = { newEpoch: 1, lossless: 2 } as const;

/** Values of refresh.reason. */
export const refreshReason = { asked: 0, decoderFault: 1, lostPicture: 2 } as const;

/** Values of ended.code. */
export const endedCode = {
  byUser: 1,
  byAdministrator: 2,
  maxDuration: 3,
  idle: 4,
  applicationClosed: 5,
  instanceFailed: 6,
  serverShutsDown: 7,
  interfaceGone: 8,
} as const;

/** WebSocket close codes of the product. */
export const closeCode = {
  badMessage: 4400,
  badTicket: 4401,
  ticketUsed: 4402,
  wrongEndpoint: 4403,
  noSession: 4404,
  ticketExpired: 4405,
  wrongChannel: 4406,
  tooSlow: 4408,
  replaced: 4409,
  ended: 4410,
  version: 4426,
  internal: 4500,
  agentUnreachable: 4503,
} as const;

export interface Hello {
  kind: "hello";
  version: number;
  capabilities: number;
  /** Wished screen in physical pixels; 0×0 keeps what is there. */
  width: number;
  height: number;
  /** Percent; 100 is 96 dpi. */
  scale: number;
  flags: number;
}

export interface Welcome {
  kind: "welcome";
  version: number;
  capabilities: number;
  displayPort: number;
  maxWidth: number;
  maxHeight: number;
  sessionId: string;
  application: string;
  displayTicket: string;
  resumeTicket: string;
}

/** Time is in µs of the sender's monotonic clock. */
export interface Ping {
  kind: "ping";
  time: bigint;
}

export interface Pong {
  kind: "pong";
  time: bigint;
}

export interface Resize {
  kind: "resize";
  width: number;
  height: number;
  scale: number;
}

export interface Cursor {
  kind: "cursor";
  serial: number;
  width: number;
  height: number;
  hotX: number;
  hotY: number;
  /** width·height·4 bytes, not premultiplied; shares the message's memory. */
  rgba: Uint8Array;
}

export interface Ended {
  kind: "ended";
  code: number;
  reason: string;
}

export interface Tickets {
  kind: "tickets";
  displayTicket: string;
  resumeTicket: string;
}

export interface Notice {
  kind: "notice";
  code: number;
  text: string;
}

export interface Visibility {
  kind: "visibility";
  hidden: boolean;
}

export interface End {
  kind: "end";
}

export interface NeedDisplayTicket {
  kind: "need-display-ticket";
}

/** One or two monitors side by side, from the left, with their tops aligned. */
export interface Monitors {
  kind: "monitors";
  /** Percent. */
  scale: number;
  monitors: { width: number; height: number }[];
}

export interface CursorAgain {
  kind: "cursor-again";
  serial: number;
}

export interface Pointer {
  kind: "pointer";
  seq: number;
  x: number;
  y: number;
  /** Bit 0 left, 1 middle, 2 right, 3 back, 4 forward. */
  buttons: number;
}

export interface Wheel {
  kind: "wheel";
  seq: number;
  x: number;
  y: number;
  /** 1/120 of a notch; positive is right and down. */
  dx: number;
  dy: number;
}

export interface Key {
  kind: "key";
  seq: number;
  down: boolean;
  flags: number;
  /** KeyboardEvent.code and KeyboardEvent.key. */
  code: string;
  key: string;
}

export interface Text {
  kind: "text";
  seq: number;
  text: string;
}

export interface ReleaseAll {
  kind: "release-all";
  seq: number;
}

/** A movement of the pointer from where it is, while the page has it locked. */
export interface Relative {
  kind: "relative";
  seq: number;
  /** Pixels; positive is right and down. */
  dx: number;
  dy: number;
  /** As in Pointer. */
  buttons: number;
}

/** What the browser knows of the user's keyboard; at most 255 keys are sent. */
export interface UserKeyboard {
  kind: "keyboard";
  seq: number;
  /** BCP 47. */
  language: string;
  /** KeyboardEvent.code, and what the key makes without modifiers. */
  keys: { code: string; key: string }[];
}

export interface Start {
  kind: "start";
  version: number;
  codecs: number;
  window: number;
}

export interface Copy {
  srcX: number;
  srcY: number;
  dstX: number;
  dstY: number;
  width: number;
  height: number;
}

export interface Fill {
  x: number;
  y: number;
  width: number;
  height: number;
  r: number;
  g: number;
  b: number;
}

/** One step of an update; steps are applied in order. */
export type Section =
  | { kind: "copy"; copies: Copy[] }
  | { kind: "fill"; fills: Fill[] }
  /** data continues the epoch's zstd stream and yields rawLength bytes of tile records; it shares the message's memory. */
  | { kind: "tiles"; rawLength: number; data: Uint8Array }
  /** Likewise, of text records. */
  | { kind: "text"; rawLength: number; data: Uint8Array }
  | JPEGSection
  | VideoSection;

/** A JPEG picture of the size of its rectangle; data shares the message's memory. */
export interface JPEGSection {
  kind: "jpeg";
  x: number;
  y: number;
  width: number;
  height: number;
  data: Uint8Array;
}

/** How many video regions there can be at a time. */
export const videoRegions = 2;

/** VideoSection.codec: H.264 is Annex B, constrained baseline. */
export const videoCodec = { h264: 1, vp8: 2 } as const;

/**
 * Bits of VideoSection.flags. key: the first of a new decoder, for a stream of the coded size. end: the region
 * is over; data is empty and the other fields mean nothing. scaled: the coded picture is stretched to the
 * rectangle; without it the top left of the coded picture is shown.
 */
export const videoFlag = { key: 1, end: 2, scaled: 4 } as const;

/** One access unit of a video region; data shares the message's memory. */
export interface VideoSection {
  kind: "video";
  /** Less than videoRegions. */
  region: number;
  codec: number;
  flags: number;
  x: number;
  y: number;
  width: number;
  height: number;
  codedWidth: number;
  codedHeight: number;
  data: Uint8Array;
}

export interface Update {
  kind: "update";
  seq: number;
  epoch: number;
  flags: number;
  captureMicros: bigint;
  width: number;
  height: number;
  sections: Section[];
}

export interface Ack {
  kind: "ack";
  seq: number;
  /** Receipt to drawn. */
  decodeMicros: number;
  queued: number;
}

export interface Refresh {
  kind: "refresh";
  reason: number;
}

export type ControlFromViewer =
  | Hello
  | Ping
  | Pong
  | Resize
  | Monitors
  | Visibility
  | End
  | NeedDisplayTicket
  | Pointer
  | Wheel
  | Key
  | Text
  | ReleaseAll
  | Relative
  | UserKeyboard;
export type ControlFromAgent =
  | Welcome
  | Ping
  | Pong
  | Cursor
  | CursorAgain
  | Ended
  | Tickets
  | Notice;
export type DisplayFromViewer = Start | Ack | Refresh;
export type DisplayFromAgent = Update;
export type Input = Pointer | Wheel | Key | Text | ReleaseAll | Relative | UserKeyboard;
export type Message = ControlFromViewer | ControlFromAgent | DisplayFromViewer | DisplayFromAgent;
