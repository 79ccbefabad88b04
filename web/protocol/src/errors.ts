/** A message that breaks the protocol. Whoever receives one ends the connection with close code 4400. */
export class BadMessage extends Error {
  readonly code = "bad-message";
  /** Name of the message type, or "type 0x.." when it is unknown. */
  readonly type: string;

  constructor(type: string, reason: string) {
    super(`${type}: ${reason}`);
    this.name = "BadMessage";
    this.type = type;
  }
}
