import { closeCode, endedCode } from "@penstock/protocol";
import type { EndReason } from "./session/end_reason.ts";

/** Every text of the viewer, in one place. */
export const texts = {
  sessionLabel: "Remote session",
  keyboardLabel:
    "Keyboard of the remote session. Press Control, Alt, Shift and Q together to move to the toolbar.",
  toolbar: "Session",
  screenKeyboard: "Keyboard",
  keysByPlace:
    "Keys go by their place now: the session's own keyboard decides what they make. Ctrl+Alt+Shift+K goes back.",
  keysByCharacter: "Keys go by their character again.",
  commandIsControl: "⌘ is Ctrl in the session. Ctrl+Alt+Shift+C goes back.",
  commandIsSuper: "⌘ is the Super key in the session.",
  textTooLong: (most: number) =>
    `The text was not typed: it has more than ${most.toLocaleString("en")} characters.`,
  fullScreen: "Full screen",
  leaveFullScreen: "Leave full screen",
  second: "Second monitor",
  closeSecond: "Close second monitor",
  secondBlocked:
    "The browser did not open the window of the second monitor. Allow pop-up windows for this page.",
  secondLabel: "Second monitor of the remote session",
  secondTitle: (title: string) => `${title} (second monitor)`,
  secondAlone:
    "This window shows the second monitor of a session. Open it from the toolbar of the session's window.",
  zoom: "Zoom",
  zoomOut: "Smaller",
  zoomIn: "Larger",
  zoomFit: "Fit",
  zoomFits: (percent: number) => `Fit, ${percent} %: show pixel for pixel`,
  zoomedTo: (percent: number) => `${percent} %: fit the window`,
  endSession: "End session",
  leaveHint:
    "Ctrl+Alt+Shift+Q moves the keyboard from the session to this toolbar; Escape moves it back. With Ctrl+Alt+Shift: F full screen, M second monitor, S quality, + and − zoom, 0 fit, 1 pixel for pixel, arrows pan, L locks the pointer, K keys by place, C ⌘ as Ctrl.",
  connecting: "Connecting…",
  starting: "Waiting for the first picture…",
  reconnecting: "The connection was lost. Reconnecting…",
  connected: "Connected",
  endTitle: "End this session?",
  endBody: "Programs that are still open in it are closed, and unsaved work is lost.",
  endConfirm: "End session",
  endCancel: "Stay",
  limited: (width: number, height: number) =>
    `This window is larger than the session's screen can be (${width} × ${height} pixels), so there is a border around it.`,
  dismiss: "Dismiss",
  backToPortal: "Back to the applications",
  tryAgain: "Try again",
  codeLabel: "Code",
  checkingPort: "Looking for the rule that blocks it…",
  retryingPort: "This page keeps trying; nothing is lost meanwhile.",
  blockedBy: "Blocked by",
  fix: "To fix it",
  notBlocked:
    "The endpoint's own rules allow it, so something between here and the endpoint blocks it: a firewall, a proxy, or a route.",
  portTitle: (port: number) => `Port ${port} of the endpoint cannot be reached from here`,
  portBody: (port: number) =>
    `This page and your input come through, but the pictures come over port ${port}. Ports 1400 to 1499 must be open from your network to the endpoint.`,
  quality: {
    title: "Quality",
    heading: "Penstock: quality of the session",
    copy: "Copy as text",
    close: "Close",
    copied: "Copied.",
    notCopied: "The browser does not allow it: select the text instead.",
    tiles: "lossless tiles",
    video: (codec: string, path: string, hardware: boolean, millis: number) =>
      `tiles, video ${codec} (${path}, ${hardware ? "hardware" : "software"}, ${millis.toFixed(1)} ms)`,
    screen: (width: number, height: number, scale: number, zoom: number) =>
      `${width} × ${height}, ${scale} % desktop, shown at ${zoom} %`,
    labels: {
      rtt: "Round trip",
      age: "Age of pictures, p50 / p95",
      updates: "Updates a second",
      rate: "Down / up",
      control: "Control and input",
      display: "Display",
      decode: "Decode and draw",
      path: "Pictures by",
      screen: "Screen",
      recoveries: "Recoveries",
      host: "Endpoint's host",
      endpoint: "Endpoint",
      session: "Session",
      joined: "Here for",
      now: "Time",
      version: "Viewer",
      browser: "Browser",
    },
  },
} as const;

export interface EndText {
  title: string;
  body: string;
  /** Short, for the help desk. */
  code: string;
}

/** What the user reads when a viewer stopped. */
export function endText(reason: EndReason): EndText {
  switch (reason.kind) {
    case "ended": {
      const [title, body] = endedTexts.get(reason.code) ?? ["The session ended", ""];
      return { title, body: reason.reason || body, code: `ended-${reason.code}` };
    }
    case "refused": {
      const known = refusedTexts.get(reason.code);
      return {
        title: known?.title ?? "The endpoint closed the connection",
        body: [known?.body, reason.reason && sentence(reason.reason)].filter(Boolean).join(" "),
        code: `${known?.code ?? "closed"} (${reason.code})`,
      };
    }
    case "port":
      return {
        title: texts.portTitle(reason.port),
        body: texts.portBody(reason.port),
        code: reason.code,
      };
    case "closed":
      return {
        ...closedTexts[reason.code],
        code: reason.reason ? `${reason.code} (${reason.reason})` : reason.code,
      };
    case "fault":
      return { ...faultTexts[reason.code], code: reason.code };
  }
}

function sentence(text: string): string {
  const first = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(first) ? first : `${first}.`;
}

const endedTexts = new Map<number, readonly [string, string]>([
  [endedCode.byUser, ["You ended the session", "Everything in it is closed."]],
  [
    endedCode.byAdministrator,
    ["An administrator ended the session", "Ask your administrator if you did not expect this."],
  ],
  [endedCode.maxDuration, ["The session reached its greatest length", "You can start a new one."]],
  [
    endedCode.idle,
    ["The session ended because nothing happened in it", "You can start a new one."],
  ],
  [endedCode.applicationClosed, ["The application was closed", "The session ended with it."]],
  [
    endedCode.instanceFailed,
    [
      "The session's machine failed",
      "Start a new session. If this happens again, tell your administrator.",
    ],
  ],
  [endedCode.serverShutsDown, ["The service is shutting down", "Try again in a few minutes."]],
  [
    endedCode.interfaceGone,
    [
      "The endpoint's network interface was removed",
      "Sessions that came through it have ended. Start a new one.",
    ],
  ],
]);

const refusedTexts = new Map<number, EndText>(
  (
    [
      [
        closeCode.badMessage,
        "bad-message",
        "The viewer and the session did not understand each other",
        "Reload the page. If this happens again, tell your administrator.",
      ],
      [
        closeCode.badTicket,
        "bad-ticket",
        "This link is not valid",
        "Open the application again from the portal.",
      ],
      [
        closeCode.ticketUsed,
        "ticket-used",
        "This link was used before",
        "Each link works once. Open the application again from the portal.",
      ],
      [
        closeCode.wrongEndpoint,
        "wrong-endpoint",
        "This link belongs to another endpoint",
        "Open the application again from the portal.",
      ],
      [
        closeCode.noSession,
        "no-session",
        "The session no longer exists",
        "It has ended. Open the application again from the portal.",
      ],
      [
        closeCode.ticketExpired,
        "ticket-expired",
        "This link has expired",
        "Open the application again from the portal.",
      ],
      [
        closeCode.wrongChannel,
        "wrong-channel",
        "This link is for something else",
        "Open the application again from the portal.",
      ],
      [
        closeCode.replaced,
        "replaced",
        "The session was opened in another place",
        "Only one window can show it at a time.",
      ],
      [
        closeCode.ended,
        "ended",
        "The session has ended",
        "Open the application again from the portal.",
      ],
      [
        closeCode.version,
        "version",
        "This page and the session speak different versions",
        "Reload the page. If this happens again, tell your administrator.",
      ],
    ] as const
  ).map(([close, code, title, body]) => [close, { code, title, body }]),
);

const closedTexts = {
  "by-user": { title: "You ended the session", body: "Everything in it is closed." },
  left: { title: "You left the session", body: "It goes on for a while; you can return to it." },
  lost: {
    title: "The connection was lost and did not come back",
    body: "The session may still be running: check your network, then try again.",
  },
  unreachable: {
    title: "The endpoint cannot be reached from here",
    body: "Nothing answered on its control port. Check your network (VPN, proxy, firewall), then try again.",
  },
} as const;

const faultTexts = {
  "no-ticket": {
    title: "This page needs a streaming link",
    body: "Open an application from the portal, or use the streaming URL that you were given.",
  },
  "no-decoder": {
    title: "This browser cannot show the session",
    body: "WebAssembly is switched off or blocked here. Use a current browser, or ask your administrator.",
  },
  "no-picture": {
    title: "This browser cannot draw the session any more",
    body: "It failed several times, perhaps because memory is short. Close other tabs and programs, then try again.",
  },
} as const;
