export type RGB = readonly [number, number, number];

/** Colour of the pixel at column x and row y of a tile. */
export type Pattern = (x: number, y: number) => RGB;

export function rawTile(
  column: number,
  row: number,
  w: number,
  h: number,
  pattern: Pattern,
): Uint8Array {
  const record = [column, row, 0];
  for (let y = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      record.push(...pattern(x, y));
    }
  }
  return Uint8Array.from(record);
}

export function solidTile(column: number, row: number, colour: RGB): Uint8Array {
  return Uint8Array.of(column, row, 16, ...colour);
}

/** Pixels are indices into colours, bits bits each, the leftmost in the lowest bits. */
export function paletteTile(
  column: number,
  row: number,
  w: number,
  h: number,
  bits: 1 | 2 | 4 | 8,
  colours: RGB[],
  index: (x: number, y: number) => number,
): Uint8Array {
  const record = [column, row, bits, colours.length - 1, ...colours.flat()];
  for (let y = 0; y < h; y++) {
    let byte = 0;
    let used = 0;
    for (let x = 0; x < w; x++) {
      byte |= index(x, y) << used;
      used += bits;
      if (used === 8) {
        record.push(byte);
        byte = 0;
        used = 0;
      }
    }
    if (used > 0) {
      record.push(byte);
    }
  }
  return Uint8Array.from(record);
}
