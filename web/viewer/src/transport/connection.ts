import { subprotocol, ticketPrefix } from "@penstock/protocol";
import { type EarlySocket, ticketShape } from "./early.ts";

/** Receives what happens on a connection; closed is the last call and comes once. */
export interface ConnectionEvents {
  opened(): void;
  message(bytes: Uint8Array): void;
  /** opened tells whether the handshake had succeeded; code 1006 stands for a lost or refused connection. */
  closed(code: number, reason: string, opened: boolean): void;
}

/** One WebSocket of the channel protocol. */
export interface Connection {
  send(bytes: Uint8Array<ArrayBuffer>): void;
  /** Closes from this side: events.closed is called at once with this code and reason. */
  close(code: number, reason: string): void;
  /** Bytes handed to send that have not left yet. */
  readonly waiting: number;
}

/** Opens a connection; fakes of it run the tests. */
export type Connect = (url: string, ticket: string, events: ConnectionEvents) => Connection;

/** Time for a handshake. A firewall that drops in silence would keep the browser waiting for minutes. */
export const handshakeMillis = 5000;

/** Connect over a real WebSocket, in a page or a worker. */
export const connectWebSocket: Connect = (url, ticket, events) =>
  new SocketConnection(url, ticket, events);

/** Connect that takes over a socket which was opened early, when the first connection asked for is that one. */
export function connectWith(early: EarlySocket | undefined): Connect {
  let first = early;
  return (url, ticket, events) => {
    const taken = first?.url === url && first.ticket === ticket ? first : undefined;
    first = undefined;
    return new SocketConnection(url, ticket, events, taken);
  };
}

class SocketConnection implements Connection {
  readonly #socket: WebSocket | undefined;
  readonly #events: ConnectionEvents;
  readonly #timer: ReturnType<typeof setTimeout> | undefined;
  #opened = false;
  #closed = false;

  constructor(url: string, ticket: string, events: ConnectionEvents, early?: EarlySocket) {
    this.#events = events;
    if (!ticketShape.test(ticket)) {
      queueMicrotask(() => this.#end(4401, "the ticket is malformed"));
      return;
    }
    const socket = early?.socket ?? new WebSocket(url, [subprotocol, ticketPrefix + ticket]);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    this.#timer = setTimeout(() => this.close(4408, "no answer to the handshake"), handshakeMillis);
    const opened = () => {
      clearTimeout(this.#timer);
      if (!this.#closed) {
        this.#opened = true;
        events.opened();
      }
    };
    socket.onopen = opened;
    socket.onmessage = (event: MessageEvent<unknown>) => {
      if (this.#closed) {
        return;
      }
      if (event.data instanceof ArrayBuffer) {
        events.message(new Uint8Array(event.data));
      } else {
        this.close(4400, "text message");
      }
    };
    socket.onclose = (event) => this.#end(event.code, event.reason);
    if (early === undefined) {
      return;
    }
    // What happened before is told as soon as the caller has the connection.
    if (early.closed !== undefined) {
      const { code, reason } = early.closed;
      queueMicrotask(() => {
        this.#opened = code !== 1006;
        this.#end(code, reason);
      });
    } else if (socket.readyState === WebSocket.OPEN) {
      queueMicrotask(opened);
    }
  }

  get waiting(): number {
    return this.#socket?.bufferedAmount ?? 0;
  }

  send(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.#socket?.readyState === WebSocket.OPEN) {
      this.#socket.send(bytes);
    }
  }

  close(code: number, reason: string): void {
    if (this.#closed) {
      return;
    }
    // The browser refuses more than 123 bytes.
    this.#socket?.close(code, reason.replace(/[^ -~]/g, "?").slice(0, 123));
    this.#end(code, reason);
  }

  #end(code: number, reason: string): void {
    if (this.#closed) {
      return;
    }
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#events.closed(code, reason, this.#opened);
  }
}
