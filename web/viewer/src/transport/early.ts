import { subprotocol, ticketPrefix } from "@penstock/protocol";

/** What no ticket may contain: it goes into a header's token list. */
export const ticketShape = /^[A-Za-z0-9_.-]{1,4096}$/;

/** A WebSocket that was opened before its user was there. */
export interface EarlySocket {
  readonly url: string;
  readonly ticket: string;
  readonly socket: WebSocket;
  /** How it ended meanwhile. */
  closed: { code: number; reason: string } | undefined;
}

/** The address of the page's own scheme: wss for https. */
export function socketUrl(url: URL): string {
  return `${url.protocol === "https:" ? "wss:" : "ws:"}//${url.host}${url.pathname}`;
}

/** Opens the WebSocket of a ticket; undefined when that cannot be one. Nothing may be sent before its user takes it over. */
export function connectEarly(url: URL, ticket: string): EarlySocket | undefined {
  if (!ticketShape.test(ticket)) {
    return undefined;
  }
  const address = socketUrl(url);
  const socket = new WebSocket(address, [subprotocol, ticketPrefix + ticket]);
  socket.binaryType = "arraybuffer";
  const early: EarlySocket = { url: address, ticket, socket, closed: undefined };
  socket.onclose = ({ code, reason }) => {
    early.closed = { code, reason };
  };
  return early;
}
