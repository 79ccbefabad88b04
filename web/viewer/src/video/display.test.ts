import { type DisplayFromViewer, decodeDisplayFromViewer } from "@penstock/protocol";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { zstdModule } from "../../zstd_module.ts";
import { type FakeConnection, fakeConnect } from "../testing/fake_connection.ts";
import { FakeStream } from "../testing/fake_stream.ts";
import { FakeSurface } from "../testing/fake_surface.ts";
import { paletteTile, rawTile, solidTile } from "../testing/tile_records.ts";
import { Display, type DisplayEvents } from "./display.ts";
import { type Media, noMedia } from "./media.ts";
import { ZstdModule } from "./zstd.ts";

let zstd: ZstdModule;
beforeAll(async () => {
  zstd = await ZstdModule.instantiate(new WebAssembly.Module(zstdModule()));
});

let surface: FakeSurface;
let stream: FakeStream;
let connections: FakeConnection[];
let display: Display;
let drawn: string[];
let broken: string[];
let closed: { code: number; opened: boolean }[];
let clock: number;

beforeEach(() => {
  surface = new FakeSurface();
  stream = new FakeStream();
  drawn = [];
  closed = [];
  broken = [];
  clock = 1000;
});

async function open(
  decoder = Promise.resolve(zstd),
  media: Media = noMedia,
): Promise<FakeConnection> {
  const fake = fakeConnect();
  connections = fake.connections;
  const events: DisplayEvents = {
    opened: () => {},
    drawn: (width, height, epoch) => drawn.push(`${width}x${height} epoch ${epoch}`),
    closed: (code, _reason, opened) => closed.push({ code, opened }),
    broken: (reason) => broken.push(reason),
  };
  const probed = Promise.resolve(media);
  display = new Display(fake.connect, surface, decoder, probed, events, () => clock);
  await probed;
  display.open("ws://x/", "t");
  const connection = connections[0] as FakeConnection;
  connection.open();
  await decoder;
  await Promise.resolve();
  return connection;
}

const sent = (connection: FakeConnection): DisplayFromViewer[] =>
  connection.sent.splice(0).map((bytes) => decodeDisplayFromViewer(bytes));
const kinds = (connection: FakeConnection) => sent(connection).map(({ kind }) => kind);

describe("Display", () => {
  it("starts, draws the first picture and acknowledges it", async () => {
    const connection = await open();
    expect(sent(connection)).toEqual([{ kind: "start", version: 1, codecs: 71, window: 0 }]);
    connection.message(stream.newEpoch(solidTile(1, 1, [1, 2, 3])));
    await Promise.resolve();
    await Promise.resolve();
    expect(surface.at(99, 69)).toBe("ff030201");
    expect(surface.at(0, 0)).toBe("ff000000");
    expect(drawn).toEqual(["100x70 epoch 1"]);
    expect(sent(connection)).toEqual([{ kind: "ack", seq: 1, decodeMicros: 0, queued: 0 }]);
    expect(display.stats).toMatchObject({ updates: 1, epoch: 1, width: 100, height: 70 });
  });

  it("keeps updates in order while the decoder loads", async () => {
    let ready: (zstd: ZstdModule) => void = () => {};
    const later = new Promise<ZstdModule>((resolve) => {
      ready = resolve;
    });
    const fake = fakeConnect();
    const probed = Promise.resolve(noMedia);
    display = new Display(fake.connect, surface, later, probed, {
      opened: () => {},
      drawn: () => drawn.push("drawn"),
      closed: () => {},
      broken: () => {},
    });
    await probed;
    display.open("ws://x/", "t");
    const connection = fake.connections[0] as FakeConnection;
    connection.open();
    connection.message(stream.newEpoch(solidTile(0, 0, [1, 1, 1])));
    connection.message(stream.update([stream.tiles(solidTile(0, 0, [2, 2, 2]))]));
    expect(kinds(connection)).toEqual(["start"]);
    ready(zstd);
    await later;
    await Promise.resolve();
    expect(surface.at(0, 0)).toBe("ff020202");
    expect(sent(connection).map((m) => m.kind === "ack" && [m.seq, m.queued])).toEqual([
      [1, 1],
      [2, 0],
    ]);
  });

  it("applies sections in their order", async () => {
    const connection = await open();
    connection.message(stream.newEpoch(solidTile(0, 0, [1, 1, 1])));
    connection.message(
      stream.update([
        { kind: "fill", fills: [{ x: 0, y: 0, width: 2, height: 1, r: 5, g: 5, b: 5 }] },
        { kind: "copy", copies: [{ srcX: 0, srcY: 0, dstX: 1, dstY: 0, width: 3, height: 1 }] },
        { kind: "fill", fills: [{ x: 0, y: 0, width: 1, height: 1, r: 6, g: 6, b: 6 }] },
      ]),
    );
    await Promise.resolve();
    const row = [0, 1, 2, 3, 4].map((x) => surface.at(x, 0));
    expect(row).toEqual(["ff060606", "ff050505", "ff050505", "ff010101", "ff010101"]);
  });

  it("begins a new epoch of another size in black with a new zstd stream", async () => {
    const connection = await open();
    connection.message(stream.newEpoch(solidTile(0, 0, [1, 1, 1])));
    stream.width = 70;
    stream.height = 200;
    connection.message(stream.newEpoch(solidTile(1, 3, [2, 2, 2])));
    expect([surface.width, surface.height]).toEqual([70, 200]);
    expect(surface.at(0, 0)).toBe("ff000000");
    expect(surface.at(69, 199)).toBe("ff020202");
    connection.message(stream.newEpoch());
    expect(surface.at(69, 199)).toBe("ff000000");
    expect(drawn).toEqual(["100x70 epoch 1", "70x200 epoch 2", "70x200 epoch 3"]);
  });

  it("drops updates before the first epoch, but acknowledges them", async () => {
    const connection = await open();
    sent(connection);
    connection.message(stream.update([stream.tiles(solidTile(0, 0, [1, 1, 1]))]));
    await Promise.resolve();
    expect(kinds(connection)).toEqual(["ack"]);
    expect(drawn).toEqual([]);
    expect(surface.width).toBe(0);
  });

  it("asks for a refresh after a fault and drops what comes before the new epoch", async () => {
    const connection = await open();
    connection.message(stream.newEpoch(solidTile(0, 0, [1, 1, 1])));
    sent(connection);
    connection.message(stream.update([{ kind: "tiles", rawLength: 6, data: Uint8Array.of(9) }]));
    expect(sent(connection)).toEqual([
      { kind: "refresh", reason: 1 },
      { kind: "ack", seq: 2, decodeMicros: 0, queued: 0 },
    ]);
    connection.message(stream.update([stream.tiles(solidTile(0, 0, [3, 3, 3]))]));
    expect(surface.at(0, 0)).toBe("ff010101");
    connection.message(stream.newEpoch(solidTile(0, 0, [4, 4, 4])));
    expect(surface.at(0, 0)).toBe("ff040404");
    expect(kinds(connection)).toEqual(["ack", "ack"]);
  });

  it("gives up after too many faults in a minute", async () => {
    const connection = await open();
    const fault = () => {
      connection.message(stream.newEpoch(solidTile(0, 0, [1, 1, 1])));
      connection.message(Uint8Array.of(0x21, 1));
    };
    fault();
    fault();
    clock += 61_000;
    fault();
    fault();
    fault();
    expect(closed).toEqual([]);
    fault();
    expect(closed).toEqual([{ code: 4400, opened: true }]);
  });

  it("refuses a change of size within an epoch and a screen beyond its memory", async () => {
    const connection = await open();
    connection.message(stream.newEpoch(solidTile(0, 0, [1, 1, 1])));
    stream.width = 101;
    sent(connection);
    connection.message(stream.update([]));
    expect(kinds(connection)).toEqual(["refresh", "ack"]);
    stream.width = 65535;
    stream.height = 65535;
    connection.message(stream.newEpoch());
    expect(kinds(connection)).toEqual(["refresh", "ack"]);
  });

  it("says why when there is no decoder", async () => {
    const none = Promise.reject(new Error("blocked by policy"));
    none.catch(() => {});
    const fake = fakeConnect();
    const reasons: string[] = [];
    display = new Display(fake.connect, surface, none, Promise.resolve(noMedia), {
      opened: () => {},
      drawn: () => {},
      closed: (code, reason) => reasons.push(`${code} ${reason}`),
      broken: () => {},
    });
    display.open("ws://x/", "t");
    const connection = fake.connections[0] as FakeConnection;
    connection.open();
    connection.message(stream.newEpoch());
    await expect.poll(() => reasons).toEqual(["4500 no decoder: Error: blocked by policy"]);
  });

  it("forgets a connection that it closed", async () => {
    const connection = await open();
    display.open("ws://y/", "u");
    expect(connection.live).toBe(false);
    expect(closed).toEqual([]);
    connection.message(stream.newEpoch(solidTile(0, 0, [1, 1, 1])));
    expect(drawn).toEqual([]);
  });

  it("survives damaged streams: asks for a refresh or gives up, never throws, never hangs", async () => {
    let seed = 42;
    const random = (below: number) => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
      return (seed >>> 8) % below;
    };
    let faults = 0;
    for (let round = 0; round < 500; round++) {
      surface = new FakeSurface();
      stream = new FakeStream();
      const connection = await open();
      const updates = [
        stream.newEpoch(
          solidTile(0, 0, [1, 2, 3]),
          paletteTile(
            1,
            0,
            36,
            64,
            4,
            [
              [1, 1, 1],
              [2, 2, 2],
              [3, 3, 3],
            ],
            (x) => x % 3,
          ),
        ),
        stream.update([
          { kind: "copy", copies: [{ srcX: 0, srcY: 0, dstX: 9, dstY: 3, width: 64, height: 64 }] },
          stream.tiles(rawTile(1, 1, 36, 6, (x, y) => [x, y, 0])),
        ]),
        stream.update([stream.tiles(solidTile(0, 1, [7, 7, 7]))]),
      ];
      const damaged = updates[random(updates.length)] as Uint8Array;
      for (let i = 0; i <= random(3); i++) {
        damaged[random(damaged.byteLength)] = random(256);
      }
      sent(connection);
      for (const update of updates) {
        connection.message(
          random(40) === 0 ? update.subarray(0, random(update.byteLength)) : update,
        );
      }
      if (!connection.live || sent(connection).some(({ kind }) => kind === "refresh")) {
        faults++;
      }
      display.close();
    }
    expect(faults).toBeGreaterThan(100);
  });
});
