import type { Cursor } from "@penstock/protocol";

/** Browsers ignore cursors of more CSS pixels, and Firefox those of more pixels. */
const maxSize = 128;
/** Values of pictures that come round, as those of an animated cursor do. */
const known = new WeakMap<Cursor, { pixelRatio: number; value: string }>();

/**
 * Value of the CSS property cursor for a remote cursor, on a screen of pixelRatio of its pixels a CSS pixel. A
 * cursor that is too large is made smaller; the hot spot stays inside.
 */
export function cssCursor(cursor: Cursor, pixelRatio: number): string {
  const { width, height } = cursor;
  if (width === 0 || height === 0) {
    return "none";
  }
  const seen = known.get(cursor);
  if (seen?.pixelRatio === pixelRatio) {
    return seen.value;
  }
  const value = draw(cursor, Math.max(pixelRatio, width / maxSize, height / maxSize));
  known.set(cursor, { pixelRatio, value });
  return value;
}

/** With ratio pixels of the cursor a CSS pixel. */
function draw({ width, height, hotX, hotY, rgba }: Cursor, ratio: number): string {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  canvas
    .getContext("2d")
    ?.putImageData(new ImageData(new Uint8ClampedArray(rgba), width, height), 0, 0);
  const size = { width: Math.ceil(width / ratio), height: Math.ceil(height / ratio) };
  const x = Math.max(0, Math.min(Math.round(hotX / ratio), size.width - 1));
  const y = Math.max(0, Math.min(Math.round(hotY / ratio), size.height - 1));
  if (ratio === 1) {
    return `url("${canvas.toDataURL()}") ${x} ${y}, default`;
  }
  const fits = width <= maxSize && height <= maxSize;
  const scaled = `image-set(url("${canvas.toDataURL()}") ${ratio}x) ${x} ${y}, default`;
  if (fits && CSS.supports("cursor", scaled)) {
    return scaled;
  }
  const small = document.createElement("canvas");
  small.width = size.width;
  small.height = size.height;
  small.getContext("2d")?.drawImage(canvas, 0, 0, width / ratio, height / ratio);
  return `url("${small.toDataURL()}") ${x} ${y}, default`;
}
