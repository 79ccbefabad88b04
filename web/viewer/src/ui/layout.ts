/** Where the picture lies in its container, in CSS pixels. */
export interface Placement {
  left: number;
  top: number;
  width: number;
  height: number;
}

/** Greatest difference in device pixels between window and picture that still counts as the same size. */
const slack = 2;

/**
 * Places a picture of width × height remote pixels in a container of CSS pixels. A picture of the container's
 * own size is drawn pixel for pixel; a smaller one of fixed size too; everything else is scaled to fit.
 */
export function place(
  picture: { width: number; height: number },
  container: { width: number; height: number },
  pixelRatio: number,
  fixedSize: boolean,
): Placement {
  const deviceWidth = container.width * pixelRatio;
  const deviceHeight = container.height * pixelRatio;
  const same =
    Math.abs(deviceWidth - picture.width) < slack + 1 &&
    Math.abs(deviceHeight - picture.height) < slack + 1;
  const fit = Math.min(deviceWidth / picture.width, deviceHeight / picture.height);
  const scale = same ? 1 : fixedSize ? Math.min(1, fit) : fit;
  const width = (picture.width * scale) / pixelRatio;
  const height = (picture.height * scale) / pixelRatio;
  // On whole device pixels, or the browser would blur a picture that is pixel for pixel.
  const whole = (css: number) => Math.floor(css * pixelRatio) / pixelRatio;
  return {
    left: same ? 0 : whole((container.width - width) / 2),
    top: same ? 0 : whole((container.height - height) / 2),
    width,
    height,
  };
}

/** Remote pixel under a point of the container, kept inside the picture. */
export function toRemote(
  x: number,
  y: number,
  placement: Placement,
  picture: { width: number; height: number },
): { x: number; y: number } {
  const along = (at: number, start: number, length: number, pixels: number) =>
    Math.max(0, Math.min(pixels - 1, Math.floor(((at - start) * pixels) / length)));
  return {
    x: along(x, placement.left, placement.width, picture.width),
    y: along(y, placement.top, placement.height, picture.height),
  };
}
