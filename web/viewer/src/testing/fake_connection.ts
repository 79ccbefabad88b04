import type { Connect, Connection, ConnectionEvents } from "../transport/connection.ts";

/** One connection that a test plays the other end of. */
export class FakeConnection implements Connection {
  readonly url: string;
  readonly ticket: string;
  readonly sent: Uint8Array[] = [];
  waiting = 0;
  closedWith: { code: number; reason: string } | undefined;
  readonly #events: ConnectionEvents;
  #opened = false;
  #closed = false;

  constructor(url: string, ticket: string, events: ConnectionEvents) {
    this.url = url;
    this.ticket = ticket;
    this.#events = events;
  }

  get live(): boolean {
    return !this.#closed;
  }

  send(bytes: Uint8Array): void {
    if (this.#opened && !this.#closed) {
      this.sent.push(bytes);
    }
  }

  close(code: number, reason: string): void {
    if (!this.#closed) {
      this.closedWith = { code, reason };
      this.lose(code, reason);
    }
  }

  /** The handshake succeeds. */
  open(): void {
    this.#opened = true;
    this.#events.opened();
  }

  message(bytes: Uint8Array): void {
    if (!this.#closed) {
      this.#events.message(bytes);
    }
  }

  /** The other end closes, or the network is lost. */
  lose(code = 1006, reason = ""): void {
    if (!this.#closed) {
      this.#closed = true;
      this.#events.closed(code, reason, this.#opened);
    }
  }
}

/** A Connect that keeps what it opened. */
export function fakeConnect(): { connect: Connect; connections: FakeConnection[] } {
  const connections: FakeConnection[] = [];
  return {
    connections,
    connect: (url, ticket, events) => {
      const connection = new FakeConnection(url, ticket, events);
      connections.push(connection);
      return connection;
    },
  };
}
