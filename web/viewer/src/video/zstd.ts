import { BadMessage } from "@penstock/protocol";

/** The exports of the zstddec package's module that we drive; its own wrapper does not keep a stream open. */
interface ZstdExports {
  memory: WebAssembly.Memory;
  malloc(size: number): number;
  free(pointer: number): void;
  ZSTD_createDCtx(): number;
  ZSTD_freeDCtx(context: number): number;
  ZSTD_decompressStream(context: number, out: number, input: number): number;
}

/** Greatest window of an epoch's stream (docs/protocol.md). */
const maxWindow = 8 * 1024 * 1024;
const inSize = 256 * 1024;
const outSize = 256 * 1024;
/** Greatest tile record: column, row, coding and 64·64 raw pixels. */
const maxRecord = 3 + 64 * 64 * 3;
/** Results above this are error codes: ZSTD_isError is not exported, the codes go to 120. */
const firstError = 0x1_0000_0000 - 120;

/** Takes decompressed bytes from the front and returns how many it used; it leaves an incomplete record. */
export type Consumer = (bytes: Uint8Array) => number;

/**
 * One epoch's zstd stream: a single frame that never ends, decoded piece by piece in constant memory.
 * After a throw the stream is broken and must be closed.
 */
export class ZstdStream {
  readonly #zstd: ZstdExports;
  readonly #context: number;
  readonly #in: number;
  readonly #out: number;
  readonly #structs: number; // ZSTD_inBuffer and ZSTD_outBuffer: pointer, size, position
  #begun = false;

  constructor(zstd: ZstdModule) {
    this.#zstd = zstd.exports;
    this.#context = this.#zstd.ZSTD_createDCtx();
    this.#in = this.#zstd.malloc(inSize);
    this.#out = this.#zstd.malloc(outSize);
    this.#structs = this.#zstd.malloc(24);
    if (!this.#context || !this.#in || !this.#out || !this.#structs) {
      throw new Error("no memory for a zstd stream");
    }
  }

  /** Feeds one flushed run, which must yield exactly rawLength bytes that consume uses up. Throws BadMessage. */
  decode(data: Uint8Array, rawLength: number, consume: Consumer): void {
    if (!this.#begun) {
      checkFrameHeader(data);
      this.#begun = true;
    }
    const zstd = this.#zstd;
    const inStruct = this.#structs;
    const outStruct = this.#structs + 12;
    let heap = new Uint8Array(zstd.memory.buffer);
    let view = new DataView(zstd.memory.buffer);
    let total = 0;
    let kept = 0; // bytes of an incomplete record at the start of the out buffer
    let at = 0;
    let full = false;
    while (at < data.byteLength || full) {
      const length = Math.min(inSize, data.byteLength - at);
      heap.set(data.subarray(at, at + length), this.#in);
      view.setUint32(inStruct, this.#in, true);
      view.setUint32(inStruct + 4, length, true);
      view.setUint32(inStruct + 8, 0, true);
      view.setUint32(outStruct, this.#out, true);
      view.setUint32(outStruct + 4, outSize, true);
      view.setUint32(outStruct + 8, kept, true);
      const result = zstd.ZSTD_decompressStream(this.#context, outStruct, inStruct) >>> 0;
      if (heap.buffer !== zstd.memory.buffer) {
        heap = new Uint8Array(zstd.memory.buffer); // the module's memory grew
        view = new DataView(zstd.memory.buffer);
      }
      if (result >= firstError) {
        throw bad(`zstd error ${0x1_0000_0000 - result}`);
      }
      if (result === 0) {
        throw bad("zstd frame ends within its epoch");
      }
      const used = view.getUint32(inStruct + 8, true);
      const end = view.getUint32(outStruct + 8, true);
      full = end === outSize;
      at += used;
      total += end - kept;
      if (total > rawLength) {
        throw bad("zstd run is longer than rawLength");
      }
      if (used === 0 && end === kept && length > 0) {
        throw bad("zstd run makes no progress");
      }
      const taken = consume(heap.subarray(this.#out, this.#out + end));
      kept = end - taken;
      if (kept >= maxRecord) {
        throw bad("tile record is too long");
      }
      heap.copyWithin(this.#out, this.#out + taken, this.#out + end);
    }
    if (total !== rawLength) {
      throw bad("zstd run is shorter than rawLength");
    }
    if (kept !== 0) {
      throw bad("tile record is cut off");
    }
  }

  close(): void {
    this.#zstd.free(this.#structs);
    this.#zstd.free(this.#out);
    this.#zstd.free(this.#in);
    this.#zstd.ZSTD_freeDCtx(this.#context);
  }
}

/** The instantiated zstd decoder; makes one stream an epoch. */
export class ZstdModule {
  readonly exports: ZstdExports;

  private constructor(exports: ZstdExports) {
    this.exports = exports;
  }

  static async instantiate(module: WebAssembly.Module): Promise<ZstdModule> {
    const instance = await WebAssembly.instantiate(module, {
      env: { emscripten_notify_memory_growth: () => {} },
    });
    return new ZstdModule(instance.exports as unknown as ZstdExports);
  }

  stream(): ZstdStream {
    return new ZstdStream(this);
  }
}

/** Refuses a frame whose window is greater than the protocol allows, before the decoder reserves it. */
function checkFrameHeader(data: Uint8Array): void {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  if (data.byteLength < 6 || view.getUint32(0, true) !== 0xfd2fb528) {
    throw bad("epoch does not begin with a zstd frame");
  }
  const descriptor = view.getUint8(4);
  if ((descriptor & 3) !== 0) {
    throw bad("zstd frame wants a dictionary");
  }
  let window: number;
  if (descriptor & 0x20) {
    // One segment: the window is the content's size, in 1, 2, 4 or 8 bytes.
    const size = 1 << (descriptor >> 6);
    if (data.byteLength < 5 + size) {
      throw bad("zstd frame header is cut off");
    }
    window =
      size === 1
        ? view.getUint8(5)
        : size === 2
          ? view.getUint16(5, true) + 256
          : size === 4
            ? view.getUint32(5, true)
            : Number(view.getBigUint64(5, true));
  } else {
    const byte = view.getUint8(5);
    const base = 2 ** (10 + (byte >> 3));
    window = base + (base / 8) * (byte & 7);
  }
  if (window > maxWindow) {
    throw bad("zstd window is too great");
  }
}

function bad(reason: string): BadMessage {
  return new BadMessage("update", reason);
}
