/** Writes a zstd stream by hand, in blocks without compression: for tests, as no encoder runs in Node 20. */
export class BlockStream {
  #begun = false;
  readonly #windowByte: number;

  /** windowByte is the frame's window descriptor; 0x60 stands for 4 MiB. */
  constructor(windowByte = 0x60) {
    this.#windowByte = windowByte;
  }

  /** One run that yields data; the first has the frame's header before it. */
  run(data: Uint8Array): Uint8Array {
    const parts: Uint8Array[] = [];
    if (!this.#begun) {
      this.#begun = true;
      parts.push(Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd, 0x00, this.#windowByte));
    }
    const greatest = 100_000;
    for (let at = 0; at < data.byteLength; at += greatest) {
      const block = data.subarray(at, at + greatest);
      parts.push(header(0, block.byteLength), block);
    }
    return concat(parts);
  }

  /** A block that repeats one byte. */
  static repeat(byte: number, count: number): Uint8Array {
    return concat([header(1, count), Uint8Array.of(byte)]);
  }

  /** An empty last block, which ends the frame. */
  static last(): Uint8Array {
    return Uint8Array.of(1, 0, 0);
  }
}

function header(type: number, size: number): Uint8Array {
  const value = (size << 3) | (type << 1);
  return Uint8Array.of(value & 0xff, (value >> 8) & 0xff, (value >> 16) & 0xff);
}

export function concat(parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.byteLength;
  }
  return whole;
}
