import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { join } from "node:path";
import { dist, listen, serveFile } from "./fake_agent.ts";

export type Answer = { status: number; body: unknown };

/** The public plane as the portal's page sees it: files and API, answers set by the test. */
export class FakePortal {
  readonly calls: string[] = [];
  me: Answer = { status: 200, body: {} };
  /** Answers of launch and of the session, one after the other; the last repeats. */
  launches: Answer[] = [];
  url = "";
  readonly #server: Server;

  constructor() {
    this.#server = createServer((request, response) => void this.#answer(request, response));
  }

  async start(): Promise<void> {
    this.url = `http://127.0.0.1:${await listen(this.#server)}/`;
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = new URL(request.url ?? "/", "http://x").pathname;
    if (!path.startsWith("/api/")) {
      serveFile(join(dist, "portal/"), request, response, "");
      return;
    }
    const chunks: Buffer[] = [];
    for await (const chunk of request) {
      chunks.push(chunk as Buffer);
    }
    const body = Buffer.concat(chunks).toString();
    this.calls.push(
      [request.method, path, body, request.headers["x-penstock-portal"]].filter(Boolean).join(" "),
    );
    if (path.endsWith("/icon")) {
      response.setHeader("Content-Type", "image/svg+xml");
      response.end(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 48 48"><rect width="48" height="48" rx="10" fill="#2e7d32"/><path d="M12 14h24M12 24h24M12 34h14" stroke="#fff" stroke-width="4"/></svg>',
      );
      return;
    }
    const answer = path.endsWith("/me")
      ? this.me
      : path.endsWith("/signout")
        ? { status: 204, body: undefined }
        : this.launches.length > 1
          ? this.launches.shift()
          : this.launches[0];
    response.writeHead(answer?.status ?? 500, { "Content-Type": "application/json" });
    response.end(answer?.body === undefined ? "" : JSON.stringify(answer.body));
  }
}
