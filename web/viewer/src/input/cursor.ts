import type { Cursor } from "@penstock/protocol";

/** Browsers ignore greater cursors. */
const maxSize = 128;

/** Value of the CSS property cursor for a remote cursor, on a screen of pixelRatio device pixels a CSS pixel. */
export function cssCursor(cursor: Cursor, pixelRatio: number): string {
  const { width, height, hotX, hotY, rgba } = cursor;
  if (width === 0 || height === 0) {
    return "none";
  }
  const ratio = Math.max(pixelRatio, width / maxSize, height / maxSize);
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  canvas
    .getContext("2d")
    ?.putImageData(new ImageData(new Uint8ClampedArray(rgba), width, height), 0, 0);
  const url = canvas.toDataURL();
  const x = Math.min(Math.round(hotX / ratio), Math.ceil(width / ratio) - 1);
  const y = Math.min(Math.round(hotY / ratio), Math.ceil(height / ratio) - 1);
  if (ratio === 1) {
    return `url("${url}") ${x} ${y}, default`;
  }
  return `image-set(url("${url}") ${ratio}x) ${x} ${y}, default`;
}
