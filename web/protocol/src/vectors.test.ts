import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import {
  BadMessage,
  decodeControlFromAgent,
  decodeControlFromViewer,
  decodeDisplayFromAgent,
  decodeDisplayFromViewer,
  encode,
  type Message,
  typeOf,
} from "./index.ts";

// The byte vectors that the Go tests of internal/wire/channel read too.
const folder = new URL("../../../internal/wire/channel/testdata/", import.meta.url);

interface Vector {
  name: string;
  direction?: "viewer-to-agent" | "agent-to-viewer";
  hex: string;
  message?: Record<string, unknown>;
  error?: string;
}

function bytesOf(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex.replace(/\s+/g, ""), "hex"));
}

const bytesFields = new Set(["rgba", "data", "tiles"]);
const wideFields = new Set(["time", "captureMicros"]);

/**
 * The message of a vector as this package writes it: byte arrays and 64-bit integers in their own types, and
 * data for what is tiles to the Go tests.
 */
function fromJSON(value: unknown, field = ""): unknown {
  if (typeof value === "string" && bytesFields.has(field)) {
    return bytesOf(value);
  }
  if (typeof value === "string" && wideFields.has(field)) {
    return BigInt(value);
  }
  if (Array.isArray(value)) {
    return value.map((item) => fromJSON(item));
  }
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(
      Object.entries(value).map(([k, v]) => [k === "tiles" ? "data" : k, fromJSON(v, k)]),
    );
  }
  return value;
}

/** A decoded message with its byte arrays in plain copies, so that toEqual compares content alone. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) {
    return Uint8Array.from(value);
  }
  if (Array.isArray(value)) {
    return value.map(plain);
  }
  if (typeof value === "object" && value !== null) {
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, plain(v)]));
  }
  return value;
}

const decoders = {
  "agent-to-viewer": { control: decodeControlFromAgent, display: decodeDisplayFromAgent },
  "viewer-to-agent": { control: decodeControlFromViewer, display: decodeDisplayFromViewer },
};

const files = readdirSync(folder).filter((name) => name.endsWith(".json"));

describe("byte vectors", () => {
  it("cover every message", () => {
    const covered = files.map((name) => name.slice(0, -".json".length));
    expect(covered).toEqual(expect.arrayContaining(Object.keys(typeOf)));
  });

  for (const file of files) {
    const kind = file.slice(0, -".json".length);
    const vectors = JSON.parse(readFileSync(new URL(file, folder), "utf8")) as Vector[];
    if (!(kind in typeOf) && kind !== "unknown") {
      continue; // parts of a message have tests of their own
    }
    describe(kind, () => {
      for (const vector of vectors) {
        const bytes = bytesOf(vector.hex);
        const { control, display } = decoders[vector.direction ?? "agent-to-viewer"];
        const decode = (bytes[0] ?? 0) >= 0x20 && (bytes[0] ?? 0) < 0x30 ? display : control;
        if (vector.error !== undefined) {
          it(`refuses ${vector.name}`, () => {
            expect(() => decode(bytes)).toThrow(BadMessage);
          });
          continue;
        }
        const message = { kind, ...(fromJSON(vector.message ?? {}) as object) } as Message;
        it(`decodes ${vector.name}`, () => {
          expect(plain(decode(bytes))).toEqual(message);
        });
        it(`encodes ${vector.name}`, () => {
          const got = encode(message);
          // Bytes behind the last field are ignored, so a vector may have more than its message.
          const want = /behind|trailing|later version/.test(vector.name)
            ? bytes.subarray(0, got.byteLength)
            : bytes;
          expect(Buffer.from(got).toString("hex")).toBe(Buffer.from(want).toString("hex"));
        });
        it(`refuses every shorter form of ${vector.name}`, () => {
          const whole = encode(message);
          for (let length = 0; length < whole.byteLength; length++) {
            expect(() => decode(whole.subarray(0, length))).toThrow(BadMessage);
          }
        });
      }
    });
  }
});
