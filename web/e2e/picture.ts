import type { Page } from "playwright-core";
import { expect } from "vitest";
import type { Region } from "./region.ts";

/** The canvas as rows of R, G, B bytes. */
export async function canvasOf(
  page: Page,
): Promise<{ width: number; height: number; rgb: Buffer }> {
  const shot = await page.evaluate(() => {
    const screen = document.querySelector<HTMLCanvasElement>("canvas#screen") as HTMLCanvasElement;
    const copy = document.createElement("canvas");
    copy.width = screen.width;
    copy.height = screen.height;
    const draw = copy.getContext("2d") as CanvasRenderingContext2D;
    draw.drawImage(screen, 0, 0);
    const { data } = draw.getImageData(0, 0, copy.width, copy.height);
    const rgb = new Uint8Array((data.length / 4) * 3);
    for (let from = 0, to = 0; from < data.length; from += 4) {
      rgb[to++] = data[from] ?? 0;
      rgb[to++] = data[from + 1] ?? 0;
      rgb[to++] = data[from + 2] ?? 0;
    }
    const parts: string[] = [];
    for (let at = 0; at < rgb.length; at += 0x6000) {
      parts.push(btoa(String.fromCharCode(...rgb.subarray(at, at + 0x6000)))); // whole groups of 3
    }
    return { width: copy.width, height: copy.height, base64: parts.join("") };
  });
  return { width: shot.width, height: shot.height, rgb: Buffer.from(shot.base64, "base64") };
}

/** Waits until canvas and X server show the same picture, every pixel, and returns it. */
export async function exactPicture(region: Region, page: Page, user: string): Promise<Buffer> {
  const session = await region.sessionOf(user);
  let last: Buffer = Buffer.alloc(0);
  await expect
    .poll(
      async () => {
        const server = await region.screen(session);
        const { rgb } = await canvasOf(page);
        last = rgb;
        return difference(server, rgb);
      },
      { timeout: 30_000 },
    )
    .toBe(0);
  return last;
}

/** How many pixels differ; all of them when the sizes do. */
export function difference(a: Buffer, b: Buffer): number {
  if (a.length !== b.length) {
    return Math.max(a.length, b.length) / 3;
  }
  let n = 0;
  for (let i = 0; i < a.length; i += 3) {
    if (a[i] !== b[i] || a[i + 1] !== b[i + 1] || a[i + 2] !== b[i + 2]) {
      n++;
    }
  }
  return n;
}
