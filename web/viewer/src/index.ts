/** The streaming client as a library; the page in ui/ is its first user. */
export type { EndReason } from "./session/end_reason.ts";
export type { SessionState } from "./session/session.ts";
export { type EndText, endText } from "./texts.ts";
export {
  type PortBlocked,
  Viewer,
  type ViewerEvents,
  type ViewerOptions,
  type ViewerStats,
} from "./viewer.ts";
