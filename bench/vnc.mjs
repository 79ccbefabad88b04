// The peer: TigerVNC's X server and noVNC behind websockify, from Debian's packages, with their defaults.
import { readdirSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { probedPage, showsFlipper } from "./latency.mjs";
import { family, freePort, start, stop, until, wrote } from "./processes.mjs";

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
  const proxy = start("/usr/bin/websockify", [`127.0.0.1:${web}`, `127.0.0.1:${rfb}`]);
  await wrote(proxy, "proxying from");
  const pages = await serve("/usr/share/novnc");
  const page = await probedPage(context);
  const canvas = "#screen canvas";
  const { port } = pages.address();
  await page.goto(`http://127.0.0.1:${port}/vnc_lite.html?host=127.0.0.1&port=${web}`);
  await showsFlipper(page, canvas);
  await page.locator(canvas).click({ position: { x: 400, y: 400 } });
  return {
    name: "TigerVNC + noVNC",
    page,
    canvas,
    processes: () => [server, proxy, application].flatMap(({ pid }) => family(pid)),
    close: async () => {
      await page.close();
      pages.closeAllConnections();
      pages.close();
      await stop(proxy);
      await stop(application);
      await stop(server);
    },
  };
}

/** Serves the files of a folder, so that websockify does nothing but carry the stream. */
function serve(folder) {
  const types = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css" };
  const server = createServer((request, response) => {
    const path = normalize(join(folder, new URL(request.url, "http://localhost").pathname));
    readFile(path).then(
      (body) =>
        response
          .setHeader("content-type", types[extname(path)] ?? "application/octet-stream")
          .end(body),
      () => response.writeHead(404).end(),
    );
  });
  return new Promise((resolve, reject) => {
    server.on("error", reject);
    server.listen(0, "127.0.0.1", () => resolve(server));
  });
}

function freeDisplay() {
  const taken = new Set(readdirSync("/tmp/.X11-unix"));
  let display = 50 + (process.pid % 400);
  while (taken.has(`X${display}`)) {
    display++;
  }
  return display;
}
