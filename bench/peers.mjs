// The peers, from Debian's packages and with their defaults: TigerVNC's X server and noVNC, x11vnc on Xvfb and noVNC, Xpra and
// its HTML5 client. Each has an X server of the size asked for, and a browser of its own.
import { cpSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import {
  family,
  freeDisplay,
  freePort,
  removeFolder,
  start,
  stop,
  temporaryFolder,
  until,
  wrote,
} from "./processes.mjs";

/** The peers by the names that the report uses. */
export const peers = {
  "TigerVNC + noVNC": tigervnc,
  "x11vnc + noVNC": x11vnc,
  Xpra: xpra,
};

async function tigervnc(width, height) {
  const rfb = await freePort();
  const display = freeDisplay();
  const server = start("Xtigervnc", [
    `:${display}`,
    ...["-geometry", `${width}x${height}`, "-depth", "24", "-SecurityTypes", "None"],
    ...["-localhost", "-rfbport", String(rfb), "-nolisten", "tcp", "-AlwaysShared"],
  ]);
  await displayIsThere(display);
  const proxy = await noVnc(rfb);
  return {
    ...proxy,
    environment: { ...process.env, DISPLAY: `:${display}` },
    // The X server is the VNC server.
    processes: () => ({ x: [], server: [server, ...proxy.programs].flatMap(pids) }),
    close: async () => {
      await proxy.close();
      await stop(server);
    },
  };
}

async function x11vnc(width, height) {
  const rfb = await freePort();
  const display = freeDisplay();
  const screen = ["-screen", "0", `${width}x${height}x24`];
  const server = start("Xvfb", [`:${display}`, ...screen, "-nolisten", "tcp", "-noreset"]);
  await displayIsThere(display);
  const environment = { ...process.env, DISPLAY: `:${display}` };
  const vnc = start(
    "x11vnc",
    [
      "-display",
      `:${display}`,
      "-localhost",
      "-rfbport",
      String(rfb),
      "-forever",
      "-shared",
      "-nopw",
    ],
    { env: environment },
  );
  await wrote(vnc, `PORT=${rfb}`);
  const proxy = await noVnc(rfb);
  return {
    ...proxy,
    environment,
    processes: () => ({ x: pids(server), server: [vnc, ...proxy.programs].flatMap(pids) }),
    close: async () => {
      await proxy.close();
      await stop(vnc);
      await stop(server);
    },
  };
}

/** A whole desktop, as the others show; its screen takes the size of the browser's window. */
async function xpra(width, height) {
  const port = await freePort();
  const display = freeDisplay();
  const home = temporaryFolder("xpra");
  const cookies = join(home, "cookies");
  writeFileSync(cookies, "", { mode: 0o600 }); // Xpra writes into what is there, or else into the user's own
  // Debian's configuration, but for the programs that it starts on the desktop.
  const configuration = join(home, "etc");
  cpSync("/etc/xpra", configuration, { recursive: true });
  const programs = join(configuration, "conf.d/60_server.conf");
  writeFileSync(programs, readFileSync(programs, "utf8").replaceAll(/^start *=.*$/gm, ""));
  const environment = {
    ...process.env,
    HOME: home,
    XDG_RUNTIME_DIR: home,
    XAUTHORITY: cookies,
    XPRA_SYSTEM_CONF_DIRS: configuration,
  };
  const server = start(
    "xpra",
    [
      ...[
        "start-desktop",
        `:${display}`,
        `--bind-tcp=127.0.0.1:${port}`,
        "--html=on",
        "--daemon=no",
      ],
      // Nothing of a desktop's bus, and no sound: neither carries pixels or input.
      ...["--dbus-launch=no", "--dbus-control=no", "--dbus-proxy=no", "--mdns=no"],
      ...["--pulseaudio=no", "--speaker=disabled", "--microphone=disabled", "--printing=no"],
      ...[`--socket-dir=${home}`, `--socket-dirs=${home}`, `--log-dir=${home}`],
    ],
    { env: environment },
  );
  await wrote(server, "xpra is ready");
  const isX = ({ command }) => /(^|\/)Xvfb/.test(command[0] ?? "");
  return {
    url: `http://127.0.0.1:${port}/`,
    canvas: "canvas",
    viewport: { width, height },
    environment: { ...environment, DISPLAY: `:${display}` },
    processes: () => {
      const all = family(server.pid);
      const pid = (member) => member.pid;
      return { x: all.filter(isX).map(pid), server: all.filter((m) => !isX(m)).map(pid) };
    },
    close: async () => {
      await stop(server);
      removeFolder(home);
    },
  };
}

const pids = ({ pid }) => family(pid).map((member) => member.pid);

function displayIsThere(display) {
  return until(`display ${display}`, () =>
    readdirSync("/tmp/.X11-unix").includes(`X${display}`) ? true : undefined,
  );
}

/** noVNC and websockify in front of a VNC server. */
async function noVnc(rfb) {
  const port = await freePort();
  const websockify = start("/usr/bin/websockify", [`127.0.0.1:${port}`, `127.0.0.1:${rfb}`]);
  await wrote(websockify, "proxying from");
  const pages = await serve("/usr/share/novnc");
  return {
    programs: [websockify],
    url: `http://127.0.0.1:${pages.address().port}/vnc_lite.html?host=127.0.0.1&port=${port}`,
    canvas: "#screen canvas",
    close: async () => {
      pages.closeAllConnections();
      pages.close();
      await stop(websockify);
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
