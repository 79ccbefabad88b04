export interface Size {
  width: number;
  height: number;
}

/** Where the picture lies in its container, in CSS pixels. */
export interface Placement extends Size {
  left: number;
  top: number;
  /** Device pixels a picture's pixel. */
  scale: number;
}

/** "fit": all of the picture; otherwise percent, where 100 draws it pixel for pixel. */
export type Zoom = "fit" | number;

export interface View {
  zoom: Zoom;
  /** How far the picture's left top corner lies outside the container, in device pixels, when it is larger. */
  panX: number;
  panY: number;
  /** The picture is about to be replaced by one of the container's size: until then it fills it. */
  awaits: boolean;
}

/** Greatest difference in device pixels between window and picture that still counts as the same size. */
const slack = 2;

/**
 * Places a picture in a container, both in device pixels. A picture of the container's own size is drawn pixel
 * for pixel. Another one is scaled down to fit, or up by a whole number, which keeps it sharp.
 */
export function place(picture: Size, container: Size, pixelRatio: number, view: View): Placement {
  const same =
    Math.abs(container.width - picture.width) <= slack &&
    Math.abs(container.height - picture.height) <= slack;
  const fit = Math.min(container.width / picture.width, container.height / picture.height);
  const scale =
    view.zoom !== "fit"
      ? view.zoom / 100
      : same
        ? 1
        : fit < 1 || view.awaits
          ? fit
          : Math.floor(fit);
  const width = picture.width * scale;
  const height = picture.height * scale;
  // On whole device pixels, or the browser would blur a picture that is pixel for pixel.
  const start = (room: number, length: number, pan: number) =>
    length > room + slack
      ? 0 - Math.round(Math.max(0, Math.min(pan, length - room)))
      : Math.max(0, Math.floor((room - length) / 2));
  return {
    left: start(container.width, width, view.panX) / pixelRatio,
    top: start(container.height, height, view.panY) / pixelRatio,
    width: width / pixelRatio,
    height: height / pixelRatio,
    scale,
  };
}

/** Remote pixel under a point of the container, kept inside the picture. */
export function toRemote(
  x: number,
  y: number,
  placement: Placement,
  picture: Size,
): { x: number; y: number } {
  const along = (at: number, start: number, length: number, pixels: number) =>
    Math.max(0, Math.min(pixels - 1, Math.floor(((at - start) * pixels) / length)));
  return {
    x: along(x, placement.left, placement.width, picture.width),
    y: along(y, placement.top, placement.height, picture.height),
  };
}

const steps = [25, 50, 75, 100, 125, 150, 200, 300, 400] as const;
const least = 25;
const greatest = 400;

/** The next step of zoom above (1) or below (-1) a scale in percent. */
export function nextZoom(percent: number, direction: 1 | -1): number {
  if (direction > 0) {
    return steps.find((step) => step > percent + 0.5) ?? greatest;
  }
  return steps.filter((step) => step < percent - 0.5).at(-1) ?? least;
}

/** A zoom inside the steps' range. */
export function boundZoom(percent: number): number {
  return Math.max(least, Math.min(percent, greatest));
}
