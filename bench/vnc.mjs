// The peer: TigerVNC's X server and noVNC behind websockify, from Debian's packages, with their defaults.
import { readdirSync } from "node:fs";
import { probedPage, showsFlipper } from "./latency.mjs";
import { family, freePort, start, stop, until } from "./processes.mjs";

/** Starts server, flipper and viewer page; canvas is the viewer's, close ends all. */
export async function openVnc(context, flipper, width, height) {
  const rfb = await freePort();
  const web = await freePort();
  const display = freeDisplay();
  const server = start("Xtigervnc", [
    `:${display}`,
    ...["-geometry", `${width}x${height}`, "-depth", "24", "-SecurityTypes", "None"],
    ...["-localhost", "-rfbport", String(rfb), "-nolisten", "tcp", "-AlwaysShared"],
  ]);
  await until("display of Xtigervnc", () =>
    readdirSync("/tmp/.X11-unix").includes(`X${display}`) ? true : undefined,
  );
  const application = start(flipper, ["-width", String(width), "-height", String(height)], {
    env: { ...process.env, DISPLAY: `:${display}` },
  });
  const proxy = start("/usr/bin/websockify", [
    ...["--web", "/usr/share/novnc"],
    `127.0.0.1:${web}`,
    `127.0.0.1:${rfb}`,
  ]);
  await until("page of noVNC", async () => {
    const answer = await fetch(`http://127.0.0.1:${web}/vnc_lite.html`).catch(() => undefined);
    return answer?.ok ? true : undefined;
  });
  const page = await probedPage(context);
  const canvas = "#screen canvas";
  await page.goto(`http://127.0.0.1:${web}/vnc_lite.html`);
  await showsFlipper(page, canvas);
  await page.locator(canvas).click({ position: { x: 400, y: 400 } });
  return {
    name: "TigerVNC + noVNC",
    page,
    canvas,
    processes: () => [server, proxy, application].flatMap(({ pid }) => family(pid)),
    close: async () => {
      await page.close();
      await stop(proxy);
      await stop(application);
      await stop(server);
    },
  };
}

function freeDisplay() {
  const taken = new Set(readdirSync("/tmp/.X11-unix"));
  let display = 50 + (process.pid % 400);
  while (taken.has(`X${display}`)) {
    display++;
  }
  return display;
}
