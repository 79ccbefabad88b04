import { expect, it } from "vitest";
import { BadMessage, decodeControlFromAgent, decodeDisplayFromAgent, encode } from "./index.ts";

it("ignores bytes behind the last field", () => {
  const bytes = encode({ kind: "ping", time: 7n });
  const longer = Uint8Array.from([...bytes, 1, 2, 3]);
  expect(decodeControlFromAgent(longer)).toEqual({ kind: "ping", time: 7n });
});

it("names the message type in its errors", () => {
  expect(() => decodeControlFromAgent(Uint8Array.of(2, 1))).toThrow("welcome: too short");
  expect(() => decodeControlFromAgent(Uint8Array.of(0x7e))).toThrow("type 0x7e: unknown");
  expect(() => decodeControlFromAgent(Uint8Array.of(0x21, 0))).toThrow("update: not sent");
});

it("refuses a field that is out of range when it encodes", () => {
  expect(() => encode({ kind: "resize", width: 65536, height: 1, scale: 1 })).toThrow(RangeError);
  expect(() => encode({ kind: "wheel", seq: 1, x: 0, y: 0, dx: -40000, dy: 0 })).toThrow(
    RangeError,
  );
});

it("cuts long text at the end of a character", () => {
  const bytes = encode({
    kind: "key",
    seq: 1,
    down: true,
    flags: 0,
    code: "",
    key: `${"a".repeat(254)}ß`,
  });
  expect(bytes.byteLength).toBe(1 + 4 + 2 + 1 + 1 + 254);
});

it("answers BadMessage or a message to any bytes", () => {
  let seed = 1;
  const random = () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed >>> 8;
  };
  for (let round = 0; round < 20_000; round++) {
    const bytes = new Uint8Array(random() % 80).map(() => random());
    bytes[0] = round % 2 === 0 ? 0x21 : random() % 0x24;
    for (const decode of [decodeControlFromAgent, decodeDisplayFromAgent]) {
      try {
        decode(bytes);
      } catch (error) {
        expect(error).toBeInstanceOf(BadMessage);
      }
    }
  }
});
