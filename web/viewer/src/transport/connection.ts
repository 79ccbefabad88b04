import { subprotocol, ticketPrefix } from "@penstock/protocol";

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

/** What no ticket may contain: it goes into a header's token list. */
const ticketShape = /^[A-Za-z0-9_.-]{1,4096}$/;

/** Connect over a real WebSocket, in a page or a worker. */
export const connectWebSocket: Connect = (url, ticket, events) =>
  new SocketConnection(url, ticket, events);

class SocketConnection implements Connection {
  readonly #socket: WebSocket | undefined;
  readonly #events: ConnectionEvents;
  readonly #timer: ReturnType<typeof setTimeout> | undefined;
  #opened = false;
  #closed = false;

  constructor(url: string, ticket: string, events: ConnectionEvents) {
    this.#events = events;
    if (!ticketShape.test(ticket)) {
      queueMicrotask(() => this.#end(4401, "the ticket is malformed"));
      return;
    }
    const socket = new WebSocket(url, [subprotocol, ticketPrefix + ticket]);
    this.#socket = socket;
    socket.binaryType = "arraybuffer";
    this.#timer = setTimeout(() => this.close(4408, "no answer to the handshake"), handshakeMillis);
    socket.onopen = () => {
      clearTimeout(this.#timer);
      if (!this.#closed) {
        this.#opened = true;
        events.opened();
      }
    };
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
