// One headless Chromium for all viewers, driven with playwright-core from web/.
import { createRequire } from "node:module";

const require = createRequire(new URL("../web/package.json", import.meta.url));

/** Starts the browser. */
export function launch() {
  const { chromium } = require("playwright-core");
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      // Pages whose scripts were changed on their way, as the probe needs, count as coming from a public address.
      "--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets",
    ],
  });
}
