import { BadMessage } from "@penstock/protocol";
import { beforeAll, describe, expect, it } from "vitest";
import { zstdModule } from "../../zstd_module.ts";
import { BlockStream, concat } from "../testing/zstd_blocks.ts";
import { ZstdModule, type ZstdStream } from "./zstd.ts";

let zstd: ZstdModule;
beforeAll(async () => {
  zstd = await ZstdModule.instantiate(new WebAssembly.Module(zstdModule()));
});

const ramp = (length: number, from = 0) => new Uint8Array(length).map((_, i) => from + i * 7);

/** Decodes one run; record is the size of the pieces that the consumer takes. */
function decode(stream: ZstdStream, data: Uint8Array, rawLength: number, record = 1): Uint8Array {
  const parts: Uint8Array[] = [];
  stream.decode(data, rawLength, (bytes) => {
    const taken = bytes.byteLength - (bytes.byteLength % record);
    parts.push(bytes.slice(0, taken));
    return taken;
  });
  return concat(parts);
}

/** toEqual would take seconds for arrays of this size. */
function expectSame(got: Uint8Array, want: Uint8Array): void {
  expect(got.byteLength).toBe(want.byteLength);
  expect(Buffer.compare(got, want)).toBe(0);
}

describe("ZstdStream", () => {
  it("keeps one frame open over many runs", () => {
    const blocks = new BlockStream();
    const stream = zstd.stream();
    for (const length of [10, 1, 5000, 262_144, 262_143, 700_000, 0, 33]) {
      const data = ramp(length, length);
      expectSame(decode(stream, blocks.run(data), length), data);
    }
    stream.close();
  });

  it("joins records that are split over output buffers", () => {
    const data = ramp(12_291 * 60);
    const stream = zstd.stream();
    expectSame(decode(stream, new BlockStream().run(data), data.byteLength, 12_291), data);
    stream.close();
  });

  it("expands far without holding it all", () => {
    const head = new BlockStream().run(new Uint8Array(0));
    const data = concat([
      head,
      ...Array.from({ length: 80 }, () => BlockStream.repeat(7, 131_072)),
    ]);
    const stream = zstd.stream();
    let total = 0;
    stream.decode(data, 80 * 131_072, (bytes) => {
      expect(bytes.byteLength).toBeLessThanOrEqual(262_144);
      total += bytes.byteLength;
      return bytes.byteLength;
    });
    expect(total).toBe(80 * 131_072);
    stream.close();
  });

  it("two streams do not disturb each other", () => {
    const a = { blocks: new BlockStream(), stream: zstd.stream() };
    const b = { blocks: new BlockStream(), stream: zstd.stream() };
    for (let i = 0; i < 5; i++) {
      for (const { blocks, stream } of [a, b]) {
        expectSame(decode(stream, blocks.run(ramp(1000, i)), 1000), ramp(1000, i));
      }
    }
  });

  const begin = (...more: number[]) => Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, ...more);
  for (const [name, data, rawLength] of [
    ["no frame", Uint8Array.of(1, 2, 3, 4, 5, 6), 4],
    ["nothing", new Uint8Array(0), 0],
    ["a window of 16 MiB", new BlockStream(0x70).run(ramp(10)), 10],
    ["a single segment of 4 GiB", begin(0xa0, 0xff, 0xff, 0xff, 0xff), 1],
    ["a dictionary", begin(0x01, 0x60, 9), 1],
    ["less than rawLength", new BlockStream().run(ramp(10)), 11],
    ["more than rawLength", new BlockStream().run(ramp(10)), 9],
    ["the frame's end", concat([new BlockStream().run(ramp(10)), BlockStream.last()]), 10],
    ["a reserved block", concat([new BlockStream().run(ramp(1)), Uint8Array.of(6, 0, 0)]), 1],
    ["half a block", new BlockStream().run(ramp(10)).subarray(0, 12), 10],
  ] as const) {
    it(`refuses ${name}`, () => {
      const stream = zstd.stream();
      expect(() => decode(stream, data, rawLength)).toThrow(BadMessage);
      stream.close();
    });
  }

  it("refuses a record that is cut off or endless", () => {
    const stream = zstd.stream();
    expect(() => decode(stream, new BlockStream().run(ramp(10)), 10, 3)).toThrow("cut off");
    const other = zstd.stream();
    const long = ramp(20_000);
    const never = () => other.decode(new BlockStream().run(long), 20_000, () => 0);
    expect(never).toThrow("too long");
  });

  it("takes no memory for good", () => {
    const used = () => zstd.exports.memory.buffer.byteLength;
    const run = () => {
      const stream = zstd.stream();
      decode(stream, new BlockStream().run(ramp(300_000)), 300_000);
      stream.close();
    };
    run();
    const before = used();
    for (let i = 0; i < 50; i++) {
      run();
    }
    expect(used()).toBe(before);
  });
});
