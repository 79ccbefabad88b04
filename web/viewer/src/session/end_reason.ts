import { closeCode } from "@penstock/protocol";

/** Why a viewer stopped. What the user reads about it is in texts.ts. */
export type EndReason =
  /** The agent ended the session; code is one of endedCode. */
  | { kind: "ended"; code: number; reason: string }
  /** A connection was refused or closed by rule of the product; code is one of closeCode. */
  | { kind: "refused"; code: number; reason: string }
  /** This side gave up or left. */
  | {
      kind: "closed";
      code: "by-user" | "left" | "lost" | "unreachable";
      reason: string;
      resumable: boolean;
    }
  /** Control works but the display port does not. */
  | { kind: "port"; code: "port-blocked"; port: number; resumable: true }
  /** The page cannot begin or cannot draw. */
  | { kind: "fault"; code: "no-ticket" | "no-decoder" | "no-picture"; reason: string };

const final = new Set<number>([
  closeCode.badMessage,
  closeCode.badTicket,
  closeCode.ticketUsed,
  closeCode.wrongEndpoint,
  closeCode.noSession,
  closeCode.ticketExpired,
  closeCode.wrongChannel,
  closeCode.replaced,
  closeCode.ended,
  closeCode.version,
]);

/** Whether a connection that closed with this code will be refused again. */
export function isFinal(code: number): boolean {
  return final.has(code);
}
