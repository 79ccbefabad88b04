import {
  codec,
  type DisplayFromViewer,
  decodeDisplayFromViewer,
  type Section,
  videoCodec,
  videoFlag,
} from "@penstock/protocol";
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { zstdModule } from "../../zstd_module.ts";
import { type FakeConnection, fakeConnect } from "../testing/fake_connection.ts";
import { FakeMedia } from "../testing/fake_media.ts";
import { FakeStream } from "../testing/fake_stream.ts";
import { FakeSurface } from "../testing/fake_surface.ts";
import { solidTile } from "../testing/tile_records.ts";
import { Display } from "./display.ts";
import { ZstdModule } from "./zstd.ts";

let zstd: ZstdModule;
beforeAll(async () => {
  zstd = await ZstdModule.instantiate(new WebAssembly.Module(zstdModule()));
});

let surface: FakeSurface;
let stream: FakeStream;
let media: FakeMedia;
let connections: FakeConnection[];
let display: Display;
let closed: { code: number; reason: string }[];
let broken: string[];

beforeEach(() => {
  vi.useFakeTimers();
  surface = new FakeSurface();
  stream = new FakeStream();
  stream.width = 200;
  stream.height = 150;
  media = new FakeMedia();
  closed = [];
  broken = [];
});
afterEach(() => {
  vi.useRealTimers();
});

async function open(): Promise<FakeConnection> {
  const fake = fakeConnect();
  connections = fake.connections;
  display = new Display(
    fake.connect,
    surface,
    Promise.resolve(zstd),
    Promise.resolve(media),
    {
      opened: () => {},
      drawn: () => {},
      closed: (code, reason) => closed.push({ code, reason }),
      broken: (reason) => broken.push(reason),
    },
    () => Date.now(),
  );
  await settle();
  return connect();
}

function connect(): FakeConnection {
  display.open("ws://x/", "t");
  const connection = connections.at(-1) as FakeConnection;
  connection.open();
  return connection;
}

/** Lets promises that are settled take effect. */
const settle = () => vi.advanceTimersByTimeAsync(0);

const sent = (connection: FakeConnection): DisplayFromViewer[] =>
  connection.sent.splice(0).map((bytes) => decodeDisplayFromViewer(bytes));
/** What was sent, short: "ack 1", "refresh 1". */
const said = (connection: FakeConnection): string[] =>
  sent(connection).map((m) =>
    m.kind === "ack" ? `ack ${m.seq}` : m.kind === "refresh" ? `refresh ${m.reason}` : m.kind,
  );

const box = { x: 10, y: 20, width: 100, height: 90 };
const red = [200, 0, 0] as const;
const green = [0, 200, 0] as const;
const blue = [0, 0, 200] as const;
const pixel = { red: "ff0000c8", green: "ff00c800", blue: "ffc80000", black: "ff000000" };

function video(colour: readonly number[], flags: number, more: object = {}): Section {
  return {
    kind: "video",
    region: 0,
    codec: videoCodec.h264,
    flags,
    ...box,
    codedWidth: 112,
    codedHeight: 96,
    data: Uint8Array.from(colour),
    ...more,
  };
}
const key = (colour: readonly number[], more: object = {}) => video(colour, videoFlag.key, more);
const delta = (colour: readonly number[], more: object = {}) => video(colour, 0, more);
const end = (): Section => video([], videoFlag.end);
const bad = [255, 0, 255];

const jpeg = (colour: readonly number[], width = 50, height = 40): Section => ({
  kind: "jpeg",
  x: 5,
  y: 6,
  width,
  height,
  data: Uint8Array.of(...colour, 50, 40),
});

const fill = (x: number, y: number, r = 9): Section => ({
  kind: "fill",
  fills: [{ x, y, width: 1, height: 1, r, g: 9, b: 9 }],
});

describe("Display with decoders", () => {
  it("offers what the browser has", async () => {
    expect(sent(await open())).toEqual([{ kind: "start", version: 1, codecs: 127, window: 0 }]);
    media.codecs = codec.jpeg;
    expect(sent(await open())[0]).toMatchObject({ codecs: 79 });
  });

  it("waits with start for the probes, but not for ever", async () => {
    const fake = fakeConnect();
    const never = new Promise<FakeMedia>(() => {});
    display = new Display(fake.connect, surface, Promise.resolve(zstd), never, {
      opened: () => {},
      drawn: () => {},
      closed: () => {},
      broken: () => {},
    });
    display.open("ws://x/", "t");
    const connection = fake.connections[0] as FakeConnection;
    connection.open();
    await settle();
    expect(sent(connection)).toEqual([]);
    await vi.advanceTimersByTimeAsync(1000);
    expect(sent(connection)[0]).toMatchObject({ kind: "start", codecs: 71 });
  });

  it("shows video, acknowledges it when it is drawn, and keeps later updates behind it", async () => {
    media.auto = false;
    const connection = await open();
    connection.message(stream.newEpoch());
    sent(connection);
    connection.message(stream.update([key(red)]));
    connection.message(stream.update([fill(0, 0)]));
    await settle();
    expect(said(connection)).toEqual([]);
    expect(surface.at(0, 0)).toBe(pixel.black);
    media.decoders[0]?.answer();
    await settle();
    expect(said(connection)).toEqual(["ack 2", "ack 3"]);
    expect(surface.at(10, 20)).toBe(pixel.red);
    expect(surface.at(109, 109)).toBe(pixel.red);
    expect(surface.at(110, 109)).toBe(pixel.black);
    expect(surface.at(109, 110)).toBe(pixel.black);
    expect(surface.at(0, 0)).toBe("ff090909");
    expect(display.stats).toMatchObject({
      videoFrames: 1,
      videoPath: "copy",
      videoCodec: "h264",
      videoHardware: true,
      recoveries: 0,
    });
    expect(media.leaked).toBe(0);
  });

  it("draws an update of tiles at once while nothing is awaited", async () => {
    const connection = await open();
    connection.message(stream.newEpoch());
    connection.message(stream.update([key(red)]));
    await settle();
    sent(connection);
    connection.message(stream.update([stream.tiles(solidTile(3, 2, [1, 1, 1]))]));
    expect(said(connection)).toEqual(["ack 3"]); // no promise in between
    expect(surface.at(199, 149)).toBe("ff010101");
  });

  it("applies sections of all kinds in their order", async () => {
    const connection = await open();
    connection.message(stream.newEpoch());
    connection.message(
      stream.update([
        fill(12, 22),
        key(red),
        fill(11, 21),
        jpeg(green),
        { kind: "copy", copies: [{ srcX: 5, srcY: 6, dstX: 150, dstY: 6, width: 2, height: 2 }] },
        fill(6, 7),
      ]),
    );
    await settle();
    media.images[0]?.resolve();
    await settle();
    expect(surface.at(12, 22)).toBe(pixel.green);
    expect(surface.at(60, 60)).toBe(pixel.red);
    expect(surface.at(54, 45)).toBe(pixel.green);
    expect(surface.at(55, 45)).toBe(pixel.red);
    expect(surface.at(151, 7)).toBe(pixel.green);
    expect(surface.at(6, 7)).toBe("ff090909");
    expect(said(connection)).toEqual(["start", "ack 1", "ack 2"]);
    expect(display.stats.images).toBe(1);
    expect(media.leaked).toBe(0);
  });

  it("keeps two regions apart and makes a new decoder at every key", async () => {
    const connection = await open();
    connection.message(stream.newEpoch());
    const other = { region: 1, codec: videoCodec.vp8, x: 120, y: 0, width: 64, height: 64 };
    connection.message(stream.update([key(red), key(green, other)]));
    connection.message(stream.update([delta(blue), delta(red, other)]));
    connection.message(stream.update([key(green), delta(blue, other)]));
    await settle();
    expect(surface.at(10, 20)).toBe(pixel.green);
    expect(surface.at(120, 0)).toBe(pixel.blue);
    expect(media.decoders.map(({ config, state }) => [config?.codec, state])).toEqual([
      ["avc1.42c01f", "closed"],
      ["vp8", "configured"],
      ["avc1.42c01f", "configured"],
    ]);
    expect(media.decoders[0]?.config).toMatchObject({
      optimizeForLatency: true,
      hardwareAcceleration: "prefer-hardware",
      colorSpace: { matrix: "smpte170m", fullRange: false },
    });
    connection.message(stream.update([end()]));
    await settle();
    expect(media.decoders[2]?.state).toBe("closed");
    expect(surface.at(10, 20)).toBe(pixel.green);
    expect(media.leaked).toBe(0);
  });

  it("ends a region only when its last frame is out", async () => {
    media.auto = false;
    const connection = await open();
    connection.message(stream.newEpoch());
    connection.message(stream.update([key(red)]));
    connection.message(stream.update([end(), fill(10, 20)]));
    expect(media.decoders[0]?.state).toBe("configured");
    media.decoders[0]?.answer();
    await settle();
    expect(media.decoders[0]?.state).toBe("closed");
    expect(surface.at(11, 20)).toBe(pixel.red);
    expect(surface.at(10, 20)).toBe("ff090909");
  });

  it("stretches scaled video to its rectangle", async () => {
    const connection = await open();
    connection.message(stream.newEpoch());
    const scaled = { flags: videoFlag.key | videoFlag.scaled, codedWidth: 48, codedHeight: 48 };
    connection.message(stream.update([key(red, scaled)]));
    await settle();
    expect([surface.at(10, 20), surface.at(109, 109)]).toEqual([pixel.red, pixel.red]);
    // The pixels are on the surface alone; a copy out of them and a tile over a part of them find them.
    connection.message(
      stream.update([
        { kind: "copy", copies: [{ srcX: 50, srcY: 50, dstX: 0, dstY: 0, width: 9, height: 9 }] },
        stream.tiles(solidTile(0, 0, [1, 1, 1])),
      ]),
    );
    expect(surface.at(0, 0)).toBe("ff010101");
    expect(surface.at(64, 64)).toBe(pixel.red);
    expect(surface.at(109, 109)).toBe(pixel.red);
    expect(media.leaked).toBe(0);
  });

  it("times both paths on the first frames and takes the faster", async () => {
    surface.drawMillis = 0;
    const connection = await open();
    connection.message(stream.newEpoch());
    connection.message(stream.update([key(red)]));
    for (let i = 0; i < 4; i++) {
      connection.message(stream.update([delta(green)]));
      await settle();
      expect(display.stats.videoPath).toBe("copy");
    }
    expect(surface.drawn).toBe(0);
    connection.message(stream.update([delta(blue)]));
    await settle();
    expect(display.stats.videoPath).toBe("draw");
    expect(surface.at(50, 50)).toBe(pixel.blue);
    // A change beside the region does not paint old pixels over it.
    connection.message(stream.update([fill(0, 50), fill(199, 50)]));
    expect(surface.at(50, 50)).toBe(pixel.blue);
    expect(surface.at(199, 50)).toBe("ff090909");
    connection.message(stream.update([end(), fill(50, 51)]));
    expect(surface.at(50, 50)).toBe(pixel.blue);
    expect(surface.at(50, 51)).toBe("ff090909");
    expect(media.leaked).toBe(0);
  });

  it("draws where frames cannot be copied after all", async () => {
    media.copies = false;
    const connection = await open();
    connection.message(stream.newEpoch());
    connection.message(stream.update([key(red), jpeg(green)]));
    await settle();
    media.images[0]?.resolve();
    await settle();
    expect(surface.at(60, 60)).toBe(pixel.red);
    expect(surface.at(5, 6)).toBe(pixel.green);
    expect(said(connection)).toEqual(["start", "ack 1", "ack 2"]);
    expect(media.leaked).toBe(0);
  });

  it("drops frames of an epoch that is over, also one that is being copied", async () => {
    let copied = () => {};
    media.copying = new Promise((resolve) => {
      copied = resolve;
    });
    const connection = await open();
    connection.message(stream.newEpoch());
    connection.message(stream.update([key(red)]));
    await settle();
    media.auto = false;
    connection.message(stream.update([delta(green)]));
    connection.message(stream.newEpoch(solidTile(0, 0, [1, 1, 1])));
    expect(said(connection)).toEqual(["start", "ack 1", "ack 2", "ack 3", "ack 4"]);
    expect(media.decoders[0]?.state).toBe("closed");
    copied();
    await settle();
    expect(surface.at(12, 22)).toBe("ff010101");
    expect(surface.at(100, 100)).toBe(pixel.black);
    expect(media.leaked).toBe(0);
  });
});

describe("Display with decoders that fail", () => {
  it("uses software after a fault of hardware, then counts", async () => {
    const connection = await open();
    connection.message(stream.newEpoch());
    connection.message(stream.update([key(red)]));
    await settle();
    sent(connection);
    connection.message(stream.update([delta(bad)]));
    expect(said(connection)).toEqual(["refresh 1", "ack 3"]);
    connection.message(stream.update([delta(green)])); // under way when the fault happened
    expect(said(connection)).toEqual(["ack 4"]);
    connection.message(stream.newEpoch());
    connection.message(stream.update([key(blue)]));
    await settle();
    expect(surface.at(50, 50)).toBe(pixel.blue);
    expect(display.stats).toMatchObject({ videoHardware: false, recoveries: 1 });
    expect(closed).toEqual([]);
    expect(media.leaked).toBe(0);
  });

  it("does not offer a codec any more that fails again and again", async () => {
    let connection = await open();
    const codecs: unknown[] = sent(connection).map((m) => m.kind === "start" && m.codecs);
    for (let i = 0; i < 4; i++) {
      connection.message(stream.newEpoch());
      connection.message(stream.update([key(red)]));
      await settle();
      connection.message(stream.update([delta(bad)]));
      await settle();
    }
    expect(closed).toMatchObject([{ code: 4500 }]);
    connection = connect();
    codecs.push(...sent(connection).map((m) => m.kind === "start" && m.codecs));
    expect(codecs).toEqual([127, 127 & ~codec.h264]);
  });

  it("forgets faults that are a minute apart", async () => {
    const connection = await open();
    for (let i = 0; i < 8; i++) {
      connection.message(stream.newEpoch());
      connection.message(stream.update([key(red)]));
      await settle();
      connection.message(stream.update([delta(bad)]));
      await vi.advanceTimersByTimeAsync(31_000);
    }
    expect(closed).toEqual([]);
  });

  it("gives up at once a codec that never worked, in hardware nor in software", async () => {
    media.refusesConfig = (config) => config.codec.startsWith("avc1");
    const connection = await open();
    sent(connection);
    connection.message(stream.newEpoch());
    connection.message(stream.update([key(red)]));
    expect(said(connection)).toEqual(["ack 1", "refresh 1", "ack 2"]);
    connection.message(stream.newEpoch());
    connection.message(stream.update([key(red)]));
    expect(closed).toMatchObject([{ code: 4500 }]);
    expect(sent(connect())[0]).toMatchObject({ codecs: 127 & ~codec.h264 });
  });

  it("waits a bounded time for a decoder that does not answer", async () => {
    const connection = await open();
    connection.message(stream.newEpoch());
    connection.message(stream.update([key(red)]));
    await settle();
    display.stats.recoveries = 0;
    media.auto = false;
    sent(connection);
    connection.message(stream.update([delta(green)]));
    await vi.advanceTimersByTimeAsync(499);
    expect(said(connection)).toEqual([]);
    await vi.advanceTimersByTimeAsync(1);
    expect(said(connection)).toEqual(["refresh 1", "ack 3"]);
    connection.message(stream.newEpoch());
    connection.message(stream.update([key(blue)]));
    await vi.advanceTimersByTimeAsync(1999);
    expect(said(connection)).toEqual(["ack 4"]);
    await vi.advanceTimersByTimeAsync(1);
    expect(said(connection)).toEqual(["refresh 1", "ack 5"]);
    expect(display.stats.recoveries).toBe(2);
    expect(vi.getTimerCount()).toBe(0);
  });

  it("leaves hardware that holds frames back", async () => {
    const connection = await open();
    connection.message(stream.newEpoch());
    connection.message(stream.update([key(red)]));
    await settle();
    media.auto = false;
    sent(connection);
    connection.message(stream.update([delta(green)]));
    connection.message(stream.update([delta(green)]));
    expect(said(connection)).toEqual([]);
    connection.message(stream.update([delta(green)]));
    expect(said(connection)).toEqual(["refresh 1", "ack 3", "ack 4", "ack 5"]);
    connection.message(stream.newEpoch());
    connection.message(stream.update([key(blue)]));
    expect(media.decoders[1]?.config?.hardwareAcceleration).toBe("prefer-software");
  });

  it("asks for a new picture after a frame was left out, a size that is wrong or a missing key", async () => {
    for (const sections of [
      [delta(red, { region: 1 })],
      [key(red), delta(red, { codedWidth: 128 })],
      [key(red), delta(red, { codec: videoCodec.vp8 })],
    ]) {
      const connection = await open();
      connection.message(stream.newEpoch());
      sent(connection);
      for (const section of sections) {
        connection.message(stream.update([section]));
      }
      await settle();
      // As h264 showed nothing yet in the first case, and vp8 has no other kind in the last.
      const gaveUp = closed.splice(0).length;
      expect(said(connection).filter((m) => m === "refresh 1").length + gaveUp).toBe(1);
    }
  });

  it("recovers from a JPEG that does not decode, is of another size or never comes", async () => {
    const connection = await open();
    connection.message(stream.newEpoch());
    connection.message(stream.update([jpeg(red)]));
    media.images.shift()?.resolve();
    await settle();
    sent(connection);
    connection.message(stream.update([jpeg(green), fill(0, 0)]));
    media.images.shift()?.reject();
    await settle();
    expect(said(connection)).toEqual(["refresh 1", "ack 3"]);
    connection.message(stream.newEpoch());
    connection.message(stream.update([jpeg(green, 49)]));
    media.images.shift()?.resolve();
    await settle();
    expect(said(connection)).toEqual(["ack 4", "refresh 1", "ack 5"]);
    connection.message(stream.newEpoch());
    connection.message(stream.update([jpeg(green)]));
    await vi.advanceTimersByTimeAsync(2000);
    expect(closed).toMatchObject([{ code: 4500 }]); // the third within a minute
    media.images.shift()?.resolve(); // too late
    await settle();
    expect(media.leaked).toBe(0);
    expect(sent(connect())[0]).toMatchObject({ codecs: 127 & ~codec.jpeg });
  });

  it("does not take a suspended thread for a slow decoder", async () => {
    const connection = await open();
    media.auto = false;
    connection.message(stream.newEpoch());
    sent(connection);
    connection.message(stream.update([key(red)]));
    vi.setSystemTime(Date.now() + 3_600_000); // the timer fires late
    await vi.advanceTimersByTimeAsync(2000);
    expect(said(connection)).toEqual([]);
    media.decoders[0]?.answer();
    await settle();
    expect(said(connection)).toEqual(["ack 2"]);
  });

  it("paints anew after the surface was lost, or asks when pixels went with it", async () => {
    const connection = await open();
    connection.message(stream.newEpoch());
    connection.message(stream.update([key(red)]));
    await settle();
    sent(connection);
    surface.pixels.fill(0);
    display.restored();
    expect(surface.at(50, 50)).toBe(pixel.red);
    expect(surface.at(0, 0)).toBe(pixel.black);
    expect(said(connection)).toEqual([]);
    const scaled = { flags: videoFlag.key | videoFlag.scaled };
    connection.message(stream.update([key(green, scaled)]));
    await settle();
    surface.pixels.fill(0);
    display.restored();
    expect(said(connection)).toEqual(["ack 3", "refresh 2"]);
    expect(display.stats.recoveries).toBe(2);
  });

  it("says that it is broken when there is no memory for the picture", async () => {
    const connection = await open();
    const real = Uint32Array;
    try {
      vi.stubGlobal(
        "Uint32Array",
        class extends real {
          constructor(length: number) {
            if (length > 1e6) {
              throw new RangeError("Array buffer allocation failed");
            }
            super(length);
          }
        },
      );
      stream.width = 2000;
      stream.height = 1000;
      connection.message(stream.newEpoch());
    } finally {
      vi.unstubAllGlobals();
    }
    expect(broken).toEqual(["RangeError: Array buffer allocation failed"]);
    expect(connection.live).toBe(false);
    expect(closed).toEqual([]);
    stream.seq = 0;
    const again = connect();
    again.message(stream.newEpoch(solidTile(0, 0, [1, 1, 1])));
    expect(surface.at(0, 0)).toBe("ff010101");
  });
});
