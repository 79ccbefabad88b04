import { createReadStream, existsSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import {
  type Ack,
  type ControlFromAgent,
  type ControlFromViewer,
  decodeControlFromViewer,
  decodeDisplayFromViewer,
  encode,
  type Section,
  type Update,
} from "@penstock/protocol";
import { type WebSocket, WebSocketServer } from "ws";
import { BlockStream, concat } from "../viewer/src/testing/zstd_blocks.ts";

export const dist = fileURLToPath(new URL("../../internal/webui/dist/", import.meta.url));

const types: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
  ".txt": "text/plain; charset=utf-8",
};

/** The strictest policy that the pages need; the servers of the product send the same. */
export const policy = (connect: string) =>
  `default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data:; ` +
  `connect-src 'self' ${connect}; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;

export function serveFile(
  folder: string,
  request: IncomingMessage,
  response: ServerResponse,
  connect: string,
): void {
  const path = new URL(request.url ?? "/", "http://x").pathname;
  const file = join(folder, normalize(path === "/" ? "/index.html" : path));
  if (!file.startsWith(folder) || !existsSync(file)) {
    response.writeHead(404).end();
    return;
  }
  response.writeHead(200, {
    "Content-Type": types[extname(file)] ?? "application/octet-stream",
    "Content-Security-Policy": policy(connect),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
  });
  createReadStream(file).pipe(response);
}

export async function listen(server: Server | ReturnType<typeof createTcpServer>): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

/** A gateway and an agent in one process, as much of them as the viewer's page can see. */
export class FakeAgent {
  readonly received: ControlFromViewer[] = [];
  readonly acks: Ack[] = [];
  /** Codecs of each start, and reasons of each refresh. */
  readonly starts: number[] = [];
  readonly refreshes: number[] = [];
  /** The viewer said that nobody can see it. */
  hidden = false;
  /** Bytes of updates that were sent. */
  displayBytes = 0;
  readonly ticketsSeen: string[] = [];
  width = 640;
  height = 480;
  /** A port where nothing answers, named in welcome instead of the display port. */
  wrongPort: number | undefined;
  reachability: unknown;
  reachabilityAuthorization: string | undefined;
  /** Draws the first update of each epoch. */
  paint: (agent: FakeAgent) => Section[] = () => [];
  url = "";
  #page: Server;
  #displayServer: Server;
  #displayPort = 0;
  #controls = new Set<WebSocket>();
  #displays = new Set<WebSocket>();
  #stream = new BlockStream();
  #seq = 0;
  #epoch = 0;
  #tickets = 0;
  #waiters: (() => void)[] = [];

  constructor() {
    this.#page = createServer((request, response) => {
      if (request.url === "/v1/config.json") {
        response.setHeader("Content-Type", "application/json");
        response.end(
          JSON.stringify({
            portalUrl: "https://portal.example/",
            endpointId: "vpce-0a1b2c",
            region: "us-east-1",
          }),
        );
      } else if (request.url?.startsWith("/v1/reachability")) {
        this.reachabilityAuthorization = request.headers.authorization;
        response.setHeader("Content-Type", "application/json");
        response.end(JSON.stringify(this.reachability ?? { ok: true, symptom: "", hops: [] }));
      } else {
        serveFile(join(dist, "viewer/"), request, response, "ws://127.0.0.1:*");
      }
    });
    this.#displayServer = createServer((_request, response) => response.writeHead(404).end());
    this.#accept(this.#page, "/v1/channel/control", (socket) => this.#control(socket));
    this.#accept(this.#displayServer, "/v1/channel/display", (socket) => this.#display(socket));
  }

  async start(): Promise<void> {
    this.#displayPort = await listen(this.#displayServer);
    this.url = `http://127.0.0.1:${await listen(this.#page)}/`;
  }

  async stop(): Promise<void> {
    this.dropAll();
    for (const server of [this.#page, this.#displayServer]) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  }

  /** Cuts every connection, as a lost network does. */
  dropAll(): void {
    for (const socket of [...this.#controls, ...this.#displays]) {
      socket.terminate();
    }
  }

  dropDisplay(): void {
    for (const socket of this.#displays) {
      socket.terminate();
    }
  }

  send(message: ControlFromAgent): void {
    for (const socket of this.#controls) {
      socket.send(encode(message));
    }
  }

  close(code: number, reason: string): void {
    for (const socket of this.#controls) {
      socket.close(code, reason);
    }
  }

  /** A tiles section of the epoch's stream. */
  tiles(...records: Uint8Array[]): Section {
    const raw = concat(records);
    return { kind: "tiles", rawLength: raw.byteLength, data: this.#stream.run(raw) };
  }

  update(sections: Section[], flags = 0): void {
    const update: Update = {
      kind: "update",
      seq: ++this.#seq,
      epoch: this.#epoch,
      flags,
      captureMicros: BigInt(Math.round(performance.now() * 1000)),
      width: this.width,
      height: this.height,
      sections,
    };
    if (this.hidden) {
      return;
    }
    for (const socket of this.#displays) {
      const bytes = encode(update);
      this.displayBytes += bytes.byteLength;
      socket.send(bytes);
    }
  }

  newEpoch(): void {
    this.#epoch++;
    this.#stream = new BlockStream();
    this.update(this.paint(this), 1);
  }

  /** Waits until something received fulfils the condition. */
  async until(condition: () => boolean, what: string, millis = 20_000): Promise<void> {
    const end = performance.now() + millis;
    while (!condition()) {
      if (performance.now() > end) {
        throw new Error(`timed out waiting for ${what}`);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 200);
        this.#waiters.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  #woken(): void {
    for (const wake of this.#waiters.splice(0)) {
      wake();
    }
  }

  #accept(server: Server, path: string, use: (socket: WebSocket) => void): void {
    const sockets = new WebSocketServer({
      noServer: true,
      perMessageDeflate: false,
      handleProtocols: (protocols) => (protocols.has("penstock.1") ? "penstock.1" : false),
    });
    server.on("upgrade", (request, socket, head) => {
      if (request.url !== path) {
        socket.destroy();
        return;
      }
      const ticket =
        /ticket\.([^, ]+)/.exec(request.headers["sec-websocket-protocol"] ?? "")?.[1] ?? "";
      sockets.handleUpgrade(request, socket, head, (ws) => {
        if (this.ticketsSeen.includes(ticket)) {
          ws.close(4402, "ticket was redeemed before");
          return;
        }
        this.ticketsSeen.push(ticket);
        use(ws);
      });
    });
  }

  #newTicket(channel: string): string {
    return `${channel}-${++this.#tickets}.sig`;
  }

  #control(socket: WebSocket): void {
    this.#controls.add(socket);
    socket.on("close", () => this.#controls.delete(socket));
    socket.on("message", (data: Buffer) => {
      const message = decodeControlFromViewer(data);
      this.received.push(message);
      const answer = (reply: ControlFromAgent) => socket.send(encode(reply));
      switch (message.kind) {
        case "hello":
          this.hidden = false;
          if (message.width > 0) {
            this.width = message.width;
            this.height = message.height;
          }
          answer({
            kind: "welcome",
            version: 1,
            capabilities: 0,
            displayPort: this.wrongPort ?? this.#displayPort,
            maxWidth: 5120,
            maxHeight: 2880,
            sessionId: "session-1",
            application: "Text editor",
            displayTicket: this.#newTicket("display"),
            resumeTicket: this.#newTicket("resume"),
          });
          break;
        case "ping":
          answer({ kind: "pong", time: message.time });
          break;
        case "resize":
          this.width = message.width;
          this.height = message.height;
          this.newEpoch();
          break;
        case "need-display-ticket":
          answer({
            kind: "tickets",
            displayTicket: this.#newTicket("display"),
            resumeTicket: this.#newTicket("resume"),
          });
          break;
        case "visibility":
          this.hidden = message.hidden;
          if (!message.hidden) {
            this.newEpoch();
          }
          break;
        case "end":
          answer({ kind: "ended", code: 1, reason: "" });
          socket.close(4410, "ended");
          break;
        default:
          break;
      }
      this.#woken();
    });
  }

  #display(socket: WebSocket): void {
    this.#displays.add(socket);
    socket.on("close", () => this.#displays.delete(socket));
    socket.on("message", (data: Buffer) => {
      const message = decodeDisplayFromViewer(data);
      if (message.kind === "start") {
        this.#seq = 0;
        this.starts.push(message.codecs);
        this.newEpoch();
      } else if (message.kind === "refresh") {
        this.refreshes.push(message.reason);
        this.newEpoch();
      } else {
        this.acks.push(message);
      }
      this.#woken();
    });
  }
}

/** A TCP port that accepts nothing: it was free a moment ago. */
export async function closedPort(): Promise<number> {
  const server = createTcpServer();
  const port = await listen(server);
  await new Promise((resolve) => server.close(resolve));
  return port;
}
