import { existsSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";

const path = process.env["CHROMIUM"] ?? "/usr/bin/chromium";

/** A headless system Chromium; throws where there is none. */
export function launchBrowser(...args: string[]): Promise<Browser> {
  if (!existsSync(path)) {
    throw new Error(`no Chromium at ${path}; set CHROMIUM to its path`);
  }
  return chromium.launch({
    executablePath: path,
    args: [
      "--no-sandbox",
      "--disable-background-networking",
      "--disable-component-update",
      "--no-first-run",
      ...args,
    ],
  });
}
