import { BadMessage } from "./errors.ts";
import { decodeUtf8, encodeUtf8 } from "./utf8.ts";

/** Reads little-endian fields; every read is checked against the end before anything is allocated. */
export class Reader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #type: string;
  #at: number;
  readonly #end: number;

  constructor(bytes: Uint8Array, type: string, at = 0, end = bytes.byteLength) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#type = type;
    this.#at = at;
    this.#end = end;
  }

  get remaining(): number {
    return this.#end - this.#at;
  }

  fail(reason: string): never {
    throw new BadMessage(this.#type, reason);
  }

  #take(length: number): number {
    if (length > this.#end - this.#at) {
      this.fail("too short");
    }
    const at = this.#at;
    this.#at += length;
    return at;
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1));
  }

  u16(): number {
    return this.#view.getUint16(this.#take(2), true);
  }

  i16(): number {
    return this.#view.getInt16(this.#take(2), true);
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  u64(): bigint {
    return this.#view.getBigUint64(this.#take(8), true);
  }

  /** A u8 that may be only 0 or 1. */
  bool(): boolean {
    const value = this.u8();
    if (value > 1) {
      this.fail("value is neither 0 nor 1");
    }
    return value === 1;
  }

  str8(): string {
    return this.#text(this.u8());
  }

  str16(): string {
    return this.#text(this.u16());
  }

  #text(length: number): string {
    const text = decodeUtf8(this.bytes(length));
    if (text === undefined) {
      this.fail("text is not UTF-8");
    }
    return text;
  }

  /** The next bytes, without a copy: they share the message's memory. */
  bytes(length: number): Uint8Array {
    const at = this.#take(length);
    return this.#bytes.subarray(at, at + length);
  }

  /** A reader of the next bytes alone. */
  part(length: number): Reader {
    const at = this.#take(length);
    return new Reader(this.#bytes, this.#type, at, at + length);
  }
}

/** Writes little-endian fields into a growing buffer. Values outside a field's range are a RangeError. */
export class Writer {
  #bytes: Uint8Array<ArrayBuffer>;
  #view: DataView;
  #length = 0;

  constructor(type: number, capacity = 64) {
    this.#bytes = new Uint8Array(capacity);
    this.#view = new DataView(this.#bytes.buffer);
    this.u8(type);
  }

  /** Makes room for by more bytes and returns where they go; may replace #view, so call it first. */
  #grow(by: number): number {
    const at = this.#length;
    const need = at + by;
    if (need > this.#bytes.byteLength) {
      const larger = new Uint8Array(Math.max(need, 2 * this.#bytes.byteLength));
      larger.set(this.#bytes.subarray(0, at));
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    this.#length = need;
    return at;
  }

  u8(value: number): this {
    check(value, 0, 0xff);
    const at = this.#grow(1);
    this.#view.setUint8(at, value);
    return this;
  }

  u16(value: number): this {
    check(value, 0, 0xffff);
    const at = this.#grow(2);
    this.#view.setUint16(at, value, true);
    return this;
  }

  i16(value: number): this {
    check(value, -0x8000, 0x7fff);
    const at = this.#grow(2);
    this.#view.setInt16(at, value, true);
    return this;
  }

  u32(value: number): this {
    check(value, 0, 0xffffffff);
    const at = this.#grow(4);
    this.#view.setUint32(at, value, true);
    return this;
  }

  u64(value: bigint): this {
    if (value < 0n || value > 0xffff_ffff_ffff_ffffn) {
      throw new RangeError(`${value} does not fit a u64`);
    }
    const at = this.#grow(8);
    this.#view.setBigUint64(at, value, true);
    return this;
  }

  bool(value: boolean): this {
    return this.u8(value ? 1 : 0);
  }

  /** Text that does not fit is cut at the end of a character. */
  str8(text: string): this {
    const bytes = encodeUtf8(text, 0xff);
    return this.u8(bytes.byteLength).bytes(bytes);
  }

  /** Text that does not fit is cut at the end of a character. */
  str16(text: string): this {
    const bytes = encodeUtf8(text, 0xffff);
    return this.u16(bytes.byteLength).bytes(bytes);
  }

  bytes(bytes: Uint8Array): this {
    const at = this.#grow(bytes.byteLength);
    this.#bytes.set(bytes, at);
    return this;
  }

  finish(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(0, this.#length);
  }
}

function check(value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new RangeError(`${value} is not a whole number from ${min} to ${max}`);
  }
}
