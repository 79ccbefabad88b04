// Headless Chromium, driven with playwright-core from web/.
import { createRequire } from "node:module";

const require = createRequire(new URL("../web/package.json", import.meta.url));

/** Starts a browser of its own process tree and returns { browser, pid, close }. */
export async function launch() {
  const { chromium } = require("playwright-core");
  const server = await chromium.launchServer({
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
  const browser = await chromium.connect(server.wsEndpoint());
  return {
    browser,
    pid: server.process().pid,
    close: async () => {
      await browser.close();
      await server.close();
    },
  };
}
